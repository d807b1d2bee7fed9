"""Who may import whom: the rooms of the design, read from the code itself.

A room is a folder of a package, or a file at its top. Every import counts, those inside
functions and for types alone too; an `__init__` that hands names on is no arrow.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("zoo_datasets", "zoo_builder")

# Folders from the ground up: each imports only folders before it. A new file needs no edit here.
RANKS = {
    "zoo_datasets": (
        "core", "networks", "sources", "format", "reading", "hub", "views", "symmetry", "exchange", "baselines",
        "analysis", "page",
    ),
    "zoo_builder": ("recipe", "engines", "planning", "training", "sealing", "verifying"),
}  # fmt: skip
# A folder is how something is done, and stands on no file at the top but `errors`. These stand on some: a study and
# a zoo's page on the reader's whole face, the plan on the recipe, verifying on recipe, plan and what trains a cohort.
STANDS_ON = {"planning": {"grid"}, "sealing": {"plan"}, "verifying": {"grid", "plan", "worker"}}
STANDS_ON_ALL = {"analysis", "page"}
# The builder imports core, networks, sources, format and errors of the reader, and nothing else.
FLOOR = ("errors", "core", "networks", "sources", "format")
HEAVY = ("torch", "ray", "sklearn")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))}
MODULES = [name for name, path in FILES.items() if path.name != "__init__.py"]


@functools.cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, on_import: bool = False) -> Iterator[str]:
    """Full names that a module imports; with `on_import` only what importing it runs."""
    for node in ast.iter_child_nodes(tree):
        if on_import and (is_for_types_alone(node) or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write the full name"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        else:
            yield from imports(node, on_import)


@functools.cache
def imported(name: str, on_import: bool = False) -> frozenset[str]:
    return frozenset(imports(tree_of(name), on_import))


def ours(name: str) -> set[str]:
    """The modules of both packages that a module imports."""
    return {i for i in imported(name) if i in FILES and i not in PACKAGES}


def room_of(name: str) -> str:
    """`zoo_datasets.core` of `zoo_datasets.core.files`; a file at the top is a room of its own."""
    return ".".join(name.split(".")[:2])


def outside(name: str, library: str, on_import: bool = False) -> bool:
    return any(i.split(".")[0] == library for i in imported(name, on_import))


def check_no_circle(graph: Mapping[str, set[str]]) -> None:
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_a_rank(package: str) -> None:
    folders = {n.split(".")[1] for n in MODULES if n.startswith(package + ".") and n.count(".") > 1}
    assert folders == set(RANKS[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_imports_only_folders_before_it(package: str) -> None:
    ranks = RANKS[package]
    for name in MODULES:
        own = name.split(".")
        if own[0] != package or own[1] not in ranks:
            continue
        before = ranks[: ranks.index(own[1]) + 1]
        rooms = {i.split(".")[1] for i in ours(name) if i.startswith(package + ".")}
        assert not {r for r in rooms if r in ranks and r not in before}, name
        if own[1] not in STANDS_ON_ALL:
            assert rooms - set(ranks) - {"errors"} <= STANDS_ON.get(own[1], set()), name


def test_no_file_imports_itself_through_others() -> None:
    check_no_circle({n: {i for i in ours(n) if FILES[i].name != "__init__.py"} for n in MODULES})


def test_no_room_imports_itself_through_others() -> None:
    rooms: dict[str, set[str]] = {}
    for name in MODULES:
        rooms.setdefault(room_of(name), set()).update({room_of(i) for i in ours(name)} - {room_of(name)})
    check_no_circle(rooms)


def test_the_builder_stands_on_the_floor_alone() -> None:
    for name in MODULES:
        if name.startswith("zoo_builder."):
            read = {i.split(".")[1] for i in ours(name) if i.startswith("zoo_datasets.")}
            assert read <= set(FLOOR), name


@pytest.mark.slow
def test_the_reader_never_needs_the_builder() -> None:
    assert not [n for n in MODULES if n.startswith("zoo_datasets") and outside(n, "zoo_builder")]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_all_it_imports(path: Path) -> None:
    """Benchmarks run by hand, so that a moved name would be noticed late."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_only_the_executor_imports_ray() -> None:
    assert [n for n in MODULES if outside(n, "ray")] == ["zoo_builder.executor"]
    assert not outside("zoo_builder.executor", "ray", on_import=True)


@pytest.mark.slow
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
    for name in FILES:
        assert not [i for i in imported(name) if i.split(".")[0] in libraries], name
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{name}, line {node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", f"{name}, line {node.lineno}"


def loaded_by(names: list[str]) -> dict[str, list[str]]:
    """Which heavy libraries are loaded after each of these imports, one after another."""
    script = (
        "import importlib, json, sys\n"
        "def heavy(name):\n"
        "    importlib.import_module(name)\n"
        f"    return sorted(set({HEAVY!r}) & set(sys.modules))\n"
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
    """What a reader and a planner import brings none of them, however many files there are."""
    light = {"core", "sources", "format", "reading", "hub", "views", "symmetry", "recipe", "planning"}
    names = [n for n in FILES if n in PACKAGES or (n.count(".") > 1 and n.split(".")[1] in light)]
    names += ["zoo_datasets.zoo", "zoo_builder.grid", "zoo_builder.engines", "zoo_datasets.networks.architecture"]
    assert loaded_by(names) == {name: [] for name in names}


def test_torch_is_imported_on_top_only_where_networks_run() -> None:
    """Torch takes seconds to import: files that need it say so here by their room."""
    found = {n for n in MODULES if outside(n, "torch", on_import=True)}
    rooms = {room_of(n) for n in found}
    assert rooms <= {
        "zoo_datasets.networks",
        "zoo_datasets.baselines",
        "zoo_datasets.evaluate",
        "zoo_datasets.loaders",
        "zoo_builder.engines",
    }


def test_no_two_modules_of_tests_share_a_name() -> None:
    # pytest imports a test by its file's name alone, and the scripts of benchmarks/ by theirs: a second one is the first.
    names = [p.stem for folder in ("tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    packages = {p.stem for p in (ROOT / "tests" / "fuzz").rglob("*.py")}  # imported as `tests.fuzz.…`
    assert not {n for n in names if names.count(n) > 1} - packages - {"conftest", "__init__", "__main__"}
