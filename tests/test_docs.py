"""The documentation is true: generated pages are what the code says, recipes load, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import zoo_datasets
from zoo_builder import grid, plan
from zoo_builder.recipe import document

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^```yaml\n(.*?)^```$", SETTINGS, re.M | re.S)
ELSEWHERE = ("init: {zoo:", "path: /data")  # starts from another zoo, or reads a folder that is not here

# What lies at the top of the tree, and why: a folder that is not here is scratch, or wants a line here.
TOP = {
    ".ci": "the script that runs every check", ".github": "the same on a public host", "benchmarks": "numbers",
    "docs": "pages", "examples": "a tour", "grids": "recipes", "manifests": "receipts of released zoos",
    "tests": "tests", "zoo_builder": "the writer", "zoo_datasets": "the reader",
}  # fmt: skip


def tracked() -> list[Path]:
    """The files of the tree: what git knows, in an sdist without git all."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git here")
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCES = ("settings.md", "columns.md", "commands.md", "zoos.md")


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_what_the_code_says(generate: ModuleType, name: str) -> None:
    found = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert found == generate.page(name), "write it anew: python docs/generate.py"
    assert set(generate.PAGES) == set(REFERENCES)


def test_every_key_of_a_recipe_has_its_row_and_an_example() -> None:
    keys = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*)\|", SETTINGS.split("## Axes")[0], re.M)))
    assert sorted(keys) == sorted(document.TOP_LEVEL)
    shown = "".join(RECIPES)
    assert [k for k in document.TOP_LEVEL if k != "dropout" and not re.search(rf"^{k}:", shown, re.M)] == [
        "augmentation"
    ]


def test_the_defaults_of_a_recipe_are_as_written(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("zoo: weightzoo/defaults\n")
    bare = grid.load(tmp_path / "recipe.yaml")
    written = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", SETTINGS.split("## Axes")[0], re.M))
    lines = [f"{key}: {value}" for key, value in written.items() if key != "license"]
    (tmp_path / "recipe.yaml").write_text("\n".join(["zoo: weightzoo/defaults", *lines]))
    full = grid.load(tmp_path / "recipe.yaml")
    assert {"seed", "snapshots", "replicates", "splits"} <= set(written)
    for name in ("fixed", "replicates", "tied", "paired", "snapshots", "splits", "seed"):
        assert getattr(full, name) == getattr(bare, name), name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda text: text.split()[1])
@pytest.mark.slow
def test_every_recipe_of_the_reference_is_one(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    loaded = grid.load(tmp_path / "recipe.yaml")
    if not any(mark in recipe for mark in ELSEWHERE):
        assert plan.plan(loaded).runs


def test_every_link_between_pages_leads_somewhere() -> None:
    found, missing = 0, []
    for page in tracked():
        if page.suffix != ".md" or "golden" in page.parts:
            continue
        text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            path = (ROOT / page).parent / target if target else ROOT / page
            found += 1
            if not path.exists() or (anchor and anchor not in anchors(path)):
                missing.append(f"{page}: {link}")
    assert missing == []
    assert found > 20


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def test_no_stray_folder_lies_at_the_top() -> None:
    assert {p.parts[0] for p in tracked() if len(p.parts) > 1} <= set(TOP)


def test_the_version_is_one() -> None:
    assert f"\nversion: {zoo_datasets.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {zoo_datasets.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("target", ["zoo", "test", "lint", "docs"])
def test_make_has_what_contributing_names(target: str) -> None:
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
