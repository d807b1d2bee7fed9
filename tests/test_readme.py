"""The README is executed: its commands, its Python, the output it prints, its tables, its extras."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo_builder import grid
from zoo_datasets.networks import kernels

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)


def blocks(language: str) -> list[tuple[str, str]]:
    return [(code, output) for name, code, output in BLOCK.findall(README) if name == language]


@pytest.fixture(scope="module")
def beside_the_digits_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds weightzoo/digits-mlp, built from the recipe as the README does."""
    from zoo_builder import plan
    from zoo_builder.build import build

    folder = tmp_path_factory.mktemp("readme")
    build(plan.plan(grid.load(ROOT / "grids" / "digits.yaml")), folder / "weightzoo" / "digits-mlp", workers=0)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(kernels.missing() is not None, reason="the printed numbers are the native engine's")
def test_every_python_block_prints_what_the_readme_shows(
    beside_the_digits_zoo: Path, environment: dict[str, str]
) -> None:
    assert len(blocks("python")) >= 5
    for code, output in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=beside_the_digits_zoo, env=environment, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == output, code


@pytest.mark.slow
def test_the_ten_line_recipe_builds(run_builder: Callable[..., Any], tmp_path: Path) -> None:
    ((recipe, _),) = blocks("yaml")
    (tmp_path / "my-first.yaml").write_text(recipe)
    (lines,) = (code for code, _ in blocks("sh") if code.startswith("python -m zoo_builder plan"))
    commands = [line.split("#")[0].split()[3:] for line in lines.splitlines()]
    assert [c[0] for c in commands] == ["plan", "--grid", "status", "verify"]
    for command in commands:
        more = ["--workers", "0"] if command[0] in ("--grid",) else []
        ended = run_builder(*command, *more)
        assert ended.code == 0, ended.err
    assert "60 models" in run_builder("status", "weightzoo/my-first").out


def test_install_names_extras_that_there_are() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {e for names in re.findall(r'"\.\[([\w,]+)\]"', README) for e in names.split(",")}
    assert named == set(extras)
    assert "pip install weightzoo" not in README  # it is on no index


@pytest.mark.parametrize("path", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "grids").rglob("*.yaml")))
def test_every_recipe_in_grids_loads(path: str) -> None:
    assert grid.load(ROOT / path).zoo.startswith("weightzoo/")


def test_the_makefile_has_the_two_commands() -> None:
    assert blocks("sh")[0][0].split("\n")[0].startswith("make zoo")
    targets = (ROOT / "Makefile").read_text()
    assert "\nzoo:" in targets
    assert "\ntest:" in targets
    assert shutil.which("make")


def test_the_benchmark_sections_are_what_the_result_files_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    inside = README.split(tables.BEGIN)[1].split(tables.END)[0]
    assert inside == tables.section(), "python benchmarks/tables.py"
    inside = tables.GPU.read_text().split(tables.BEGIN)[1].split(tables.END)[0]
    assert inside == tables.gpu(), "python benchmarks/tables.py"
