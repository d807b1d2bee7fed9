"""The worked examples of CONTRIBUTING.md: made in a copy of the tree, and what they add is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo_builder.recipe.settings import SETTINGS
from zoo_datasets import views
from zoo_datasets.analysis import ANALYSES
from zoo_datasets.baselines.known import BASELINES
from zoo_datasets.networks import kernels
from zoo_datasets.sources.embedded import EMBEDDED

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGES = {
    section.split("\n")[0]: change.group(1)
    for section in re.split(r"^## ", PAGE, flags=re.M)
    if (change := re.search(r"^```diff\n(.*?)^```$", section, re.M | re.S))
}

RECIPE = """\
zoo: weightzoo/wine
source: {id: wine, train: 100, validation: 30, test: 40}
architecture: [{linear: 8}, tanh, {linear: classes}]
axes: {subset: [full, {label_shift: 1}]}
paired: [subset]
replicates: 24
training: {epochs: 20, lr: 1e-2}
"""
RUN = """
from zoo_datasets import open_zoo, views
zoo = open_zoo("weightzoo/wine")
ended = zoo.final()
layout = zoo.architecture(zoo.models["model_id"][0].as_py()).layout
print(views.norms(ended.weights[:], layout).shape)
for shift in (0, 1):
    ends = zoo.models.filter(zoo.models["label_shift"].to_numpy() == shift) if shift else zoo.select(subset="full").models
    print(shift, ends["train_accuracy"].to_numpy().mean() > 0.9, ends["test_accuracy"].to_numpy().mean() > 0.9)
"""


# An editable install finds the packages where it was made, before any path is looked at.
THIS_TREE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
"""


def test_each_section_has_its_example() -> None:
    assert set(CHANGES) == {"Add a setting", "Add a source", "Add a view", "Add an analysis", "Add a baseline"}
    assert "test_operations.py" in PAGE
    assert "LAYER_NORM" in (ROOT / "tests" / "networks" / "test_operations.py").read_text()


def test_what_they_add_is_not_there_yet() -> None:
    """Else the example is of something that the tree has, and shows nothing."""
    assert "label_shift" not in SETTINGS
    assert "wine" not in EMBEDDED
    assert not hasattr(views, "norms")
    assert "growth" not in ANALYSES
    assert "norm" not in BASELINES


@pytest.mark.slow
def test_the_examples_add_a_setting_a_source_a_view_an_analysis_and_a_baseline(
    environment: dict[str, str], tmp_path: Path
) -> None:
    tree, work = tmp_path / "tree", tmp_path / "work"
    work.mkdir()
    for package in ("zoo_builder", "zoo_datasets"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for title, change in CHANGES.items():
        command = ["git", "apply", "--unidiff-zero", "--whitespace=nowarn", "-"]
        done = subprocess.run(command, cwd=tree, input=change, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{title}: {done.stderr}"
    (work / "recipe.yaml").write_text(RECIPE)
    if kernels.missing() is None:  # an editable install keeps them elsewhere
        shutil.copy(kernels._kernels.__file__, tree / "zoo_datasets" / "networks")
    (tree / "sitecustomize.py").write_text(THIS_TREE)

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment | {"PYTHONPATH": str(tree)}, capture_output=True,
            text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said("-m", "zoo_builder", "--grid", "recipe.yaml", "--workers", "0")
    assert "sizes and SHA-256" in said("-m", "zoo_builder", "verify", "weightzoo/wine", "--retrain", "8")
    assert said("-c", RUN).splitlines() == ["(48, 4)", "0 True True", "1 True False"]  # wrong labels, learned well
    (written,) = said("-m", "zoo_datasets", "analyze", "growth", "weightzoo/wine").splitlines()
    numbers = json.loads((work / written).read_text())
    assert numbers["n"] == 48
    assert numbers["growth"]["linear1.weight"] > 1
    table = said("-m", "zoo_datasets", "bench", "weightzoo/wine", "--baselines", "norm", "--seeds", "1")
    assert "| norm" in table
