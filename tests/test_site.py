"""The documentation site: pages are executed, commands in them parse, recipes load, notebooks run, the site builds strictly."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import zoo_builder.cli
import zoo_datasets.cli
from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets.networks import kernels

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)
EXECUTED = ("start.md", "read.md", "cite.md")
PAGES = ("index.md", "start.md", "build.md", "read.md", "page.md", "study.md", "gallery.md", "cite.md", "notebooks.md")
NOTEBOOKS = ("prediction", "pairs", "backdoor")
ELSEWHERE = ("mine/photographs", "init: {zoo:")  # a folder, or a zoo, that is not here
native = pytest.mark.skipif(kernels.missing() is not None, reason="the printed numbers are the native engine's")


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [(code, output) for name, code, output in BLOCK.findall(text) if name == language]


@pytest.fixture(scope="module")
def beside_the_digits_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds weightzoo/digits-mlp."""
    folder = tmp_path_factory.mktemp("site")
    build(plan.plan(grid.load(ROOT / "grids" / "digits.yaml")), folder / "weightzoo" / "digits-mlp", workers=0)
    return folder


@native
@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_the_python_of_a_page_prints_what_it_shows(
    page: str, beside_the_digits_zoo: Path, environment: dict[str, str]
) -> None:
    """A page is one session: its blocks go on from each other."""
    found = blocks(page, "python")
    assert found
    script = "".join(f"{code}\nprint('~~~', flush=True)\n" for code, _ in found)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=beside_the_digits_zoo, env=environment, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("~~~\n")[:-1] == [output for _, output in found]


def test_every_command_of_a_page_is_one() -> None:
    parsers = {"zoo_builder": zoo_builder.cli._parser(), "zoo_datasets": zoo_datasets.cli._parser()}
    seen = 0
    for page in PAGES:
        for code, _ in blocks(page, "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:2] != ["python", "-m"]:
                    continue
                arguments = words[3:]
                if words[2] == "zoo_builder" and arguments[0].startswith("--"):
                    arguments.insert(0, "build")
                parsers[words[2]].parse_args(arguments)
                seen += 1
    assert seen > 15


@pytest.mark.slow
def test_every_recipe_of_a_page_loads(tmp_path: Path) -> None:
    found = [code for page in PAGES for code, _ in blocks(page, "yaml")]
    assert len(found) >= 3
    for recipe in found:
        (tmp_path / "recipe.yaml").write_text(recipe)
        loaded = grid.load(tmp_path / "recipe.yaml")
        if not any(mark in recipe for mark in ELSEWHERE):
            assert plan.plan(loaded).runs


def test_every_page_is_in_the_navigation() -> None:
    import yaml

    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [p for v in values for p in pages(v)]  # type: ignore[attr-defined]

    there = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    assert sorted(pages(told["nav"])) == sorted(there)


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="no mkdocs: pip install mkdocs-material")
    pytest.importorskip("material", reason="no mkdocs-material: pip install mkdocs-material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")], cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    asked = re.findall(r'(?:src|href)="(https?://[^"]+)"', home)
    assert [a for a in asked if "squidfunk" not in a] == []
    assert (tmp_path / "site" / "notebooks" / "pairs.ipynb").is_file()


@native
@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_a_notebook_runs(name: str, beside_the_digits_zoo: Path, environment: dict[str, str]) -> None:
    nbclient = pytest.importorskip("nbclient", reason="no nbclient: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without what a run leaves
    client = nbclient.NotebookClient(
        notebook,
        timeout=240,
        startup_timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(beside_the_digits_zoo)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        client.execute()
    printed = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type != "error"]
    assert len(printed) >= 3


def test_the_notebooks_are_those_of_the_page() -> None:
    assert {p.stem for p in (DOCS / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)
    listed = re.findall(r"\(notebooks/(\w+)\.ipynb\)", (DOCS / "notebooks.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(NOTEBOOKS)
