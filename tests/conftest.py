"""Fixtures for all tests: a tiny recipe on `digits`, its plan, its sealed zoo, other processes."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import importlib.util
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

# Networks of tests are tiny, and threads of OpenBLAS and OpenMP that wait for each other spin: on a machine that has other
# work, a test takes five times as long. What needs threads asks for them.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import jaxtyping
import pytest
import typechecker

# What the annotations say of arrays is checked in every call while the tests run.
SHAPED = (
    "zoo_datasets.core.exact", "zoo_datasets.core.streams", "zoo_datasets.networks.initialization",
    "zoo_datasets.networks.kernels", "zoo_datasets.networks.layout", "zoo_datasets.networks.parameterization", "zoo_datasets.networks.scoring",
    "zoo_datasets.sources.examples", "zoo_datasets.sources.languages", "zoo_datasets.sources.machines",
    "zoo_datasets.sources.spec", "zoo_datasets.sources.subset", "zoo_datasets.sources.triggers",
    "zoo_datasets.symmetry", "zoo_datasets.views",
    "zoo_builder.engines.contract", "zoo_builder.engines.native",
)  # fmt: skip
jaxtyping.jaxtyped = typechecker.sparing(jaxtyping.jaxtyped)
jaxtyping.install_import_hook(SHAPED, "typechecker.checked")

from zoo_builder import grid, plan  # noqa: E402 - behind the hook
from zoo_builder.build import build  # noqa: E402

# No test asserts on elapsed time, Hypothesis' examples neither: a busy machine is no fault.
hypothesis.settings.register_profile("few", deadline=None)
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.load_profile("few")
# By default a property is tried on a fifth of its examples, and at least on so many.
SHARE, LEAST = 5, 5

# No test cuts the power: what is written need not wait for the disk.
os.fsync = lambda handle: None

# 16 models in 4 cohorts of 4: two activations and two sizes of training set. Needs no network.
TINY = """\
zoo: weightzoo/tiny
source: {id: digits, train: 200, validation: 60, test: 80}
architecture: [flatten, {linear: 8}, activation, {linear: classes}]
axes:
  activation: [tanh, relu]
  subset: [full, {frac: 0.5}]
replicates: 4
paired: [subset]
training: {epochs: 2, batch_size: 32, lr: 1e-2}
snapshots: {epochs: [0, 1, 2]}
cohort_size: 4
"""
PACKAGES = str(Path(plan.__file__).resolve().parents[1])
MOST_S = 240  # ends what hangs; no promise about time


# ── what the default run takes ──


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    take_some(items)
    mark_properties(items)


gc.disable()  # while libraries and tests are loaded, of which nothing is garbage


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no test need look through it for garbage, nor pytest three times a test through the
    forty loggers that torch keeps from the root."""
    gc.freeze()
    gc.enable()
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "torch":
            logging.getLogger(name).propagate = True


def take_some(items: list[pytest.Item]) -> None:
    """Of a test marked `some(n)` the default run takes n cases, spread over its parameters; the others are slow."""
    tests: dict[str, list[Any]] = {}
    for item in items:
        if item.get_closest_marker("some"):
            tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    for cases in tests.values():
        left: list[Any] = list(cases)
        seen: set[tuple[str, int]] = set()
        for _ in range(min(len(cases), cases[0].get_closest_marker("some").args[0])):
            case = max(left, key=lambda c: len(_values(c) - seen))  # the most values not seen yet
            left.remove(case)
            seen |= _values(case)
        for case in left:
            case.add_marker(pytest.mark.slow)


def _values(case: Any) -> set[tuple[str, int]]:
    """The values of a case's parameters, each as the object that it is in the parametrization: not all can be hashed."""
    return {(name, id(value)) for name, value in case.callspec.params.items()}


def mark_properties(items: list[pytest.Item]) -> None:
    """What Hypothesis draws examples for is a `property`: few of them, or all with `--hypothesis-profile=all`."""
    few = hypothesis.settings.get_current_profile_name() != "all"
    for test in {i.obj for i in items if isinstance(i, pytest.Function) and hypothesis.is_hypothesis_test(i.obj)}:
        if few:  # as Hypothesis' own plugin sets them
            asked = test._hypothesis_internal_use_settings
            n = min(asked.max_examples, max(asked.max_examples // SHARE, LEAST))
            test._hypothesis_internal_use_settings = hypothesis.settings(asked, max_examples=n)
    for item in items:
        if isinstance(item, pytest.Function) and hypothesis.is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.property)


# ── fixtures ──


@pytest.fixture(autouse=True)
def _no_cluster_and_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "ZOO_FAULT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny_grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path_factory.mktemp("grid") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def make_plan(tiny_grid: Path) -> Callable[..., plan.Plan]:
    """The plan of the tiny recipe with `path=value` changes."""

    def make(*changes: str, limit: int | None = None, **options: Any) -> plan.Plan:
        return plan.plan(grid.load(tiny_grid, changes, limit), **options)

    return make


@pytest.fixture(scope="session")
def tiny_plan(make_plan: Callable[..., plan.Plan]) -> plan.Plan:
    return make_plan()


@pytest.fixture(scope="session")
def tiny_zoo(tiny_plan: plan.Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sealed zoo of the tiny recipe, built in this process. Read it; change only copies of it."""
    out = tmp_path_factory.mktemp("sealed") / "weightzoo" / "tiny"
    build(tiny_plan, out, workers=0)
    return out


@pytest.fixture
def tiny_copy(tiny_zoo: Path, tmp_path: Path) -> Path:
    """A copy of the sealed zoo that a test may damage."""
    return Path(shutil.copytree(tiny_zoo, tmp_path / "copy" / "weightzoo" / "tiny"))


@pytest.fixture(scope="session")
def tree_hash() -> Callable[[Path], dict[str, str]]:
    """Path → SHA-256 of every file of a zoo outside `.build/`, where the log is."""

    def hashes(folder: Path) -> dict[str, str]:
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        kept = [n for n in names if not n.startswith(".build/")]
        return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in kept}

    return hashes


# ── other processes ──


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal that killed it), and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment for processes that finds our packages and keeps every cache in `tmp_path`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "HF_", "ZOO_", "PYTEST_"))}
    return {**kept, "PYTHONPATH": PACKAGES, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run_builder(environment: dict[str, str], tmp_path: Path) -> Callable[..., Ended]:
    """`python -m zoo_builder …` in a fresh interpreter, without a terminal."""

    def run(*arguments: Any, cwd: Path = tmp_path, **more: str) -> Ended:
        command = [sys.executable, "-m", "zoo_builder", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env={**environment, **more}, capture_output=True, text=True, timeout=MOST_S
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def _forks() -> Any:
    """A server whose children have the builder imported: a new process in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    engine = ["torch"] if importlib.util.find_spec("zoo_datasets.networks._kernels") is None else []
    context.set_forkserver_preload(
        ["zoo_builder.cli", "zoo_builder.build", "zoo_builder.plan", "sklearn.datasets", *engine]
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = PACKAGES  # the server imports before it knows our sys.path
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


@pytest.fixture
def start(_forks: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a module-level function in a process of its own; what still runs at the end is killed."""
    running = []

    def begin(
        function: Callable[..., Any], *arguments: Any, env: Mapping[str, str] | None = None, said: Path | None = None
    ) -> Any:
        said = said or tmp_path / "said"
        process = _forks.Process(target=_called, args=(function, arguments, dict(env or {}), str(said)))
        process.start()
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.join()
        process.close()


@pytest.fixture
def elsewhere(start: Callable[..., Any], tmp_path: Path) -> Callable[..., Ended]:
    """Calls a module-level function in a process of its own and waits for its end."""

    def call(function: Callable[..., Any], *arguments: Any, env: Mapping[str, str] | None = None) -> Ended:
        said = tmp_path / "said"
        process = start(function, *arguments, env=env, said=said)
        process.join(MOST_S)
        assert process.exitcode is not None, "it hangs"
        return Ended(process.exitcode, Path(f"{said}.out").read_text(), Path(f"{said}.err").read_text())

    return call


def _called(function: Callable[..., Any], arguments: tuple[Any, ...], env: dict[str, str], said: str) -> None:
    for number, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    for name in ("RAY_ADDRESS", "ZOO_FAULT"):
        os.environ.pop(name, None)
    os.environ.update(env)
    code = function(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
