"""What the documented base install gives: everything but networks, without what only extras bring."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zoo_datasets

PACKAGE = Path(zoo_datasets.__file__).parent

# What the extras bring.
HIDDEN = ("torch", "jax", "torch_geometric", "ray", "sklearn", "PIL", "matplotlib", "networkx", "threadpoolctl")


HIDE = f"""
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {HIDDEN!r} else super().find_spec(name, path, target)

sys.meta_path = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def on_the_base_install(code: str, folder: Path) -> str:
    """What code prints in a Python of its own that finds no library of the extras."""
    command = [sys.executable, "-W", "error", "-c", HIDE + code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_command_line_needs_no_extra(tmp_path: Path) -> None:
    """Every verb and analysis says its options without what it computes with."""
    code = (
        "from zoo_datasets import cli\n"
        "for command in (['analyze', 'backdoors'], ['bench'], ['scan']):\n"
        "    try:\n        cli.main([*command, '--help'])\n"
        "    except SystemExit as end:\n        print(end.code, file=sys.stderr)\n"
    )
    assert "usage" in on_the_base_install(code, tmp_path)


@pytest.mark.slow
def test_a_dataset_needs_no_torch(tiny_zoo: Path, tmp_path: Path) -> None:
    code = (
        "from zoo_datasets import open_zoo, weights\n"
        "zoo = open_zoo(sys.argv[1]).select(epoch=2)\n"
        "ds = zoo.to_hf(['model_id'])\n"
        "print(ds.num_rows, ds.column_names, (weights(ds)[:] == zoo.weights[:]).all())\n"
    )
    assert on_the_base_install(code, tiny_zoo) == "16 ['model_id', 'weights'] True"


@pytest.mark.slow
def test_effects_and_scores_need_no_extra(tiny_zoo: Path) -> None:
    code = (
        "from zoo_datasets import metrics, open_zoo\n"
        "zoo = open_zoo(sys.argv[1])\n"
        "print([e.n_pairs for e in zoo.effect('subset')])\n"
        "print([round(metrics.SCORES[m]([0, 1, 1, 0], [0, 1, 0, 0]), 3) for m in ('kendall', 'balanced_accuracy', 'auc')])\n"
    )
    assert on_the_base_install(code, tiny_zoo).splitlines() == ["[8]", "[0.577, 0.75, 0.75]"]


# What each needs → what it is called there. None of these is in the base install.
NEEDS = {
    "torch": "from zoo_datasets import open_zoo; open_zoo(sys.argv[1]).load_model(0)",
    "torch as arrays": "from zoo_datasets import open_zoo; open_zoo(sys.argv[1]).weights.torch([0])",
    "torch of loaders": "import zoo_datasets.loaders",
    "torch of engines": "import zoo_builder.engines.torch_loop",
    "scikit-learn": "from zoo_datasets import sources; sources.load(sources.SourceSpec('iris'))",
    "pillow": "from zoo_datasets.sources import image_sets; image_sets.picture(None)",
    "jax": "from zoo_datasets import open_zoo; open_zoo(sys.argv[1]).weights.jax([0])",
}


@pytest.mark.some(1)
@pytest.mark.parametrize("what", NEEDS)
@pytest.mark.slow
def test_what_is_missing_is_one_sentence_with_the_line_that_installs_it(what: str, tiny_zoo: Path) -> None:
    name = what.split()[0]
    code = f"from zoo_datasets.errors import MissingLibraryError\ntry:\n    {NEEDS[what]}\nexcept MissingLibraryError as error:\n    print(error)\n"
    module = {"scikit-learn": "sklearn", "pillow": "PIL"}.get(name, name)
    assert on_the_base_install(code, tiny_zoo) == f"{module} is not installed: pip install {name}."


@pytest.mark.slow
@pytest.mark.parametrize(("module", "pip"), [("yaml", "PyYAML"), ("sklearn", "scikit-learn")])
def test_a_build_without_a_library_ends_in_that_sentence(
    module: str, pip: str, tmp_path: Path, tiny_grid: Path
) -> None:
    code = (
        f"import importlib.machinery, sys\nHIDDEN = ({module!r},)\n" + HIDE.split("\n", 2)[2].replace(repr(HIDDEN), "HIDDEN")
        + f"from zoo_builder.cli import main\nsys.exit(main(['--grid', {str(tiny_grid)!r}, '--workers', '0', '--out', sys.argv[1]]))"
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "z")], capture_output=True, text=True, check=False
    )
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.splitlines()[-1] == f"error: {module} is not installed: pip install {pip}."
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_checkout_beside_an_installed_package_says_whose_the_kernels_are(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """After `pip install .`: what is run in the checkout is the checkout's own, without what was compiled."""
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    shutil.copytree(PACKAGE, checkout / PACKAGE.name, ignore=shutil.ignore_patterns("_kernels*", "__pycache__"))
    code = (
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'ScikitBuildRedirectingFinder']\n"
        "from zoo_datasets.networks import kernels\n"
        "print(kernels.missing())\n"
    )

    def said() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False,
            env=environment | {"PYTHONPATH": f"{checkout}:{site}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    info = site / "weightzoo-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weightzoo\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("zoo_datasets/networks/__init__.py,,\n")
    assert said().startswith("the C++ kernels were not built (")
    (info / "RECORD").write_text("zoo_datasets/networks/_kernels.so,,\n")
    (site / "zoo_datasets" / "networks").mkdir(parents=True)
    (site / "zoo_datasets" / "networks" / "_kernels.so").touch()
    assert said() == (
        f"this is the copy in {checkout}, and the C++ kernels are installed with another: start Python in another folder, "
        "or `pip install -e .` here"
    )
