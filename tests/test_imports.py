"""Who may import whom: the rooms of the design, read from the code itself."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("zoo_datasets", "zoo_builder")

# The floor: what the builder may import of the reader. A module imports what its line says.
FLOOR = {
    "errors": "",
    "exact": "",
    "files": "errors",
    "streams": "errors exact",
    "schema": "errors streams",
    "models": "errors exact streams schema",
    "scoring": "exact",
    "splits": "errors streams",
    "shards": "errors files",
    "examples": "errors exact streams",
    "pictures": "errors",
    "sources": "errors streams schema pictures examples",
    "modules": "models",
    "kernels": "models",
    "card": "errors files schema",
    "parquet": "errors",
    "check": "errors files parquet schema shards splits",
    "command": "errors card",
}
NEEDS_TORCH = {"modules"}

# A module imports only modules above it (of zoo_builder).
BUILDER = (
    "recipe_yaml", "settings", "document", "axes", "conflicts", "grid", "lineage", "runs", "engines.contract", "engines", "engines.augment", "cohorts",
    "engines.devices", "engines.native", "engines.torch_common", "engines.torch_loop",
    "engines.torch_batched", "engines.inputs", "engines.schedules", "engines.progress",
    "engines.evaluation", "engines.trainer", "faults", "plan", "parts", "fingerprint", "estimate", "worker",
    "executor", "seal", "build", "status", "verify", "cli", "__main__",
)  # fmt: skip
# The pure modules, more strictly: recipe to cohorts without a look at how anything is trained.
PURE = {
    "recipe_yaml": "",
    "settings": "",
    "document": "recipe_yaml settings",
    "axes": "settings document",
    "conflicts": "settings document axes",
    "grid": "settings document axes conflicts",
    "runs": "settings axes grid lineage",
    "cohorts": "runs grid engines.contract",
    "engines.contract": "",
}
TORCH_ENGINES = {"engines.torch_common", "engines.torch_loop", "engines.torch_batched"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, lazy: bool = True) -> Iterator[str]:
    """Full names that a module imports; without `lazy`, only what importing it runs."""
    for node in ast.iter_child_nodes(tree):
        if is_for_types_alone(node) or (not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write the full name"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES or full in PACKAGES else node.module
        else:
            yield from imports(node, lazy)


def of(package: str, name: str) -> set[str]:
    """The modules of a package, without its name, that a module imports."""
    found = {i for i in imports(TREES[name]) if i == package or i.startswith(package + ".")}
    return {i.removeprefix(package).lstrip(".") for i in found} - {""}


def modules(package: str) -> list[str]:
    return [n.removeprefix(package + ".") for n in FILES if n.startswith(package + ".")]


def outside(name: str, library: str, lazy: bool = True) -> bool:
    return any(i.split(".")[0] == library for i in imports(TREES[name], lazy))


def test_every_module_has_a_room() -> None:
    assert set(FLOOR) <= set(modules("zoo_datasets"))
    assert sorted(modules("zoo_builder")) == sorted(BUILDER)


@pytest.mark.parametrize("module", FLOOR)
def test_a_module_of_the_floor_imports_what_its_line_says(module: str) -> None:
    assert of("zoo_datasets", f"zoo_datasets.{module}") <= set(FLOOR[module].split())


def test_the_lines_of_the_floor_are_in_order() -> None:
    above: set[str] = set()
    for module, allowed in FLOOR.items():
        assert set(allowed.split()) <= above, module
        above.add(module)


def test_the_reader_never_needs_the_builder() -> None:
    assert not [n for n in FILES if n.startswith("zoo_datasets") and of("zoo_builder", n)]


def test_no_module_imports_itself_through_others() -> None:
    """Imports that run on import; one inside a function may look back."""
    graph = {n: {i for i in imports(TREES[n], lazy=False) if i in FILES and i not in PACKAGES} for n in FILES}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", BUILDER)
def test_a_module_of_the_builder_imports_only_modules_above_it(module: str) -> None:
    name = f"zoo_builder.{module}"
    above = {*BUILDER[: BUILDER.index(module)]}
    found = of("zoo_builder", name)
    assert found <= above
    if module in PURE:
        assert found <= set(PURE[module].split())
    assert of("zoo_datasets", name) <= set(FLOOR)


def test_only_the_executor_imports_ray() -> None:
    assert [n for n in FILES if outside(n, "ray")] == ["zoo_builder.executor"]
    assert not outside("zoo_builder.executor", "ray", lazy=False)


def test_torch_is_imported_on_top_only_where_networks_are() -> None:
    found = {n for n in FILES if outside(n, "torch", lazy=False)}
    assert {n for n in found if n.startswith("zoo_builder.")} == {f"zoo_builder.{m}" for m in TORCH_ENGINES}
    assert {m for m in FLOOR if f"zoo_datasets.{m}" in found} == NEEDS_TORCH


def test_nothing_reads_or_writes_pickle() -> None:
    """No pickle and nothing that unpickles: a zoo of a stranger is data, never code."""
    libraries = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
    calls = (
        "torch.load",
        "torch.save",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "pd.read_pickle",
        "eval",
        "exec",
    )
    for name, tree in TREES.items():
        assert not [i for i in imports(tree) if i.split(".")[0] in libraries], name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{name}, line {node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", f"{name}, line {node.lineno}"


def loaded_by(names: list[str]) -> dict[str, list[str]]:
    """Which of torch, ray and scikit-learn are loaded after each of these imports, one after another."""
    script = (
        "import importlib, json, sys\n"
        "def heavy(name):\n"
        "    importlib.import_module(name)\n"
        "    return sorted({'torch', 'ray', 'sklearn'} & set(sys.modules))\n"
        f"print(json.dumps({{n: heavy(n) for n in {names!r}}}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_reader_and_the_recipe_load_neither_torch_nor_ray_nor_sklearn() -> None:
    floor = [f"zoo_datasets.{m}" for m in FLOOR if m not in NEEDS_TORCH]
    pure = [f"zoo_builder.{m}" for m in PURE]
    names = ["zoo_datasets", *floor, *pure]
    assert loaded_by(names) == {name: [] for name in names}
