"""What is shipped: an sdist from the tree, a wheel from the sdist, and what a reader does with the base install alone.

The bare environment has the wheel and what its base dependencies require, and nothing else of the environment that
runs the tests: no torch, Ray, scikit-learn, Pillow, pytest.
"""

from __future__ import annotations

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import zoo_datasets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
MOST_S = 900  # ends what hangs: two cores compile the kernels in a minute or two
COMPILERS = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CMAKE_ARGS")


def run(*command: Any, **options: Any) -> str:
    """Stdout and stderr of a command that must succeed."""
    done = subprocess.run(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MOST_S,
        check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-c", f"from scikit_build_core import build; build.build_sdist({str(folder)!r})", cwd=ROOT)
    (found,) = folder.iterdir()
    return found


def wheel_of(sdist: Path, folder: Path, environment: dict[str, str], *more: str) -> tuple[Path, str]:
    """The wheel that pip makes of an sdist, without asking any index, and what it said."""
    said = run(
        sys.executable, "-m", "pip", "wheel", "-v", "--no-index", "--no-deps", "--no-build-isolation",
        "--no-cache-dir", *more, "-w", folder, sdist, env=environment,
    )  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found, said


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("c++") is None:
        pytest.skip("no compiler here")
    environment = {k: v for k, v in os.environ.items() if k not in COMPILERS}
    quick = "--config-settings=cmake.define.WEIGHTZOO_OPTIMIZATION=-O1"  # it is not timed here
    return wheel_of(sdist, tmp_path_factory.mktemp("wheel"), environment, quick)[0]


def required(names: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that these requirements stand on, without extras of their own."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(n) for n in names]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        waiting += [Requirement(n) for n in found[name].requires or ()]
    return found


def bare(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment with the wheel and what its base dependencies require."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        requires = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    for distribution in required(requires).values():
        for top in {file.parts[0] for file in distribution.files or () if ".." not in file.parts}:
            here, there = Path(str(distribution.locate_file(top))), site / top
            if here.exists() and not there.exists():
                there.symlink_to(here)
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    return python


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare(wheel, tmp_path_factory.mktemp("bare"))


@pytest.fixture
def bare_environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of ours on the path, and no cache that others wrote."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}


READER = """
import sys
import numpy as np
from datasets import load_dataset
from zoo_datasets import open_zoo, views, weights, symmetry, metrics, split_files, audit

zoo = open_zoo(sys.argv[1])
ended = zoo.final()
ds = ended.to_hf(["model_id", "test_accuracy"])
assert (weights(ds)[:] == ended.weights[:]).all()
rows = load_dataset(sys.argv[1], split="train", cache_dir=sys.argv[2]).with_format("numpy")
assert rows["weights"][:].shape[1] == ended.weights.shape[1]
assert len(zoo.select(activation="tanh", epoch=[1, 2])) == 16
model = ended.models["model_id"][0].as_py()
architecture = zoo.architecture(model)
w = ended.weights[:]
assert (views.ungraph(views.graph(w, architecture)) == w).all()
assert (views.untokens(views.tokens(w, architecture.layout, "neuron")) == w).all()
assert views.statistics(w, architecture.layout).shape == (16, 4, 7)
assert views.trajectories(zoo.weights, zoo.snapshots, "epoch").values.shape[:2] == (16, 3)
assert symmetry.canonicalize(w, architecture).shape == w.shape
print([e.n_pairs for e in zoo.effect("subset")], sum(split_files.stored(zoo).counts.values()))
print(sorted({n.split(".")[0] for n in sys.modules} & {"torch", "ray", "sklearn", "PIL"}))
"""


def test_the_wheel_reads_a_zoo_with_the_base_dependencies_alone(
    python: Path, tiny_zoo: Path, tmp_path: Path, bare_environment: dict[str, str]
) -> None:
    said = run(python, "-W", "error", "-c", READER, tiny_zoo, tmp_path / "cache", cwd=tmp_path, env=bare_environment)
    assert said.splitlines()[-2:] == ["[8] 16", "[]"]


def test_it_says_that_it_is_typed(wheel: Path, sdist: Path) -> None:
    marks = {f"{package}/py.typed" for package in ("zoo_datasets", "zoo_builder")}
    with zipfile.ZipFile(wheel) as archive:
        assert marks <= set(archive.namelist())
    with tarfile.open(sdist) as archive:
        assert marks <= {name.partition("/")[2] for name in archive.getnames()}


def test_it_has_what_is_compiled_where_there_is_a_gpu(wheel: Path) -> None:
    kernels = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zoo_datasets/networks/gpu").glob("*.[ci]*")}
    assert len(kernels) == 3
    with zipfile.ZipFile(wheel) as archive:
        assert kernels <= set(archive.namelist())


def test_its_commands_run_and_name_what_is_missing(
    python: Path, tiny_zoo: Path, tiny_grid: Path, tmp_path: Path, bare_environment: dict[str, str]
) -> None:
    def said(*command: Any) -> tuple[int, str]:
        done = subprocess.run(
            [str(c) for c in command], cwd=tmp_path, env=bare_environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=MOST_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    version = f"weightzoo {zoo_datasets.__version__}, with the native engine\n"
    for command in ("zoo-datasets", "zoo-builder"):
        assert said(python.parent / command, "--version") == (0, version)
    assert said(python.parent / "zoo-datasets", "show", tiny_zoo)[0] == 0
    assert said(python.parent / "zoo-datasets", "check", tiny_zoo)[0] == 0
    code, text = said(python.parent / "zoo-builder", "--grid", tiny_grid, "--workers", "0")
    assert code != 0
    assert text.splitlines()[-1] == "error: sklearn is not installed: pip install scikit-learn."
    code, text = said(
        python, "-c", "import sys; from zoo_datasets import open_zoo; open_zoo(sys.argv[1]).loader(8)", tiny_zoo
    )
    assert text.splitlines()[-1].endswith("torch is not installed: pip install torch.")


def test_an_install_without_a_compiler_succeeds_and_says_so(
    sdist: Path, tiny_zoo: Path, tmp_path: Path, bare_environment: dict[str, str]
) -> None:
    """CMake is there, as pip brings it, and nothing that compiles."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cmake", "ninja", "make"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    environment = {k: v for k, v in os.environ.items() if k not in COMPILERS} | {"PATH": str(tools)}
    wheel, said = wheel_of(sdist, tmp_path / "wheel", environment)
    assert wheel.name.endswith("-none-any.whl")
    assert "installed without its native CPU engine, because the compiler failed" in said
    python = bare(wheel, tmp_path / "bare")
    text = run(python.parent / "zoo-builder", "--version", env=bare_environment)
    assert text.startswith(
        f"weightzoo {zoo_datasets.__version__}, without the native engine: the C++ kernels were not built"
    )
    assert "16 models" in run(python.parent / "zoo-datasets", "show", tiny_zoo, env=bare_environment)
