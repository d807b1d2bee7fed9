"""Classes by their names are the classes that they name, from the recipe to the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo_builder import build, grid, plan, verify
from zoo_datasets import open_zoo
from zoo_datasets.errors import GridError

RECIPE = """\
zoo: me/named
source: {id: digits, train: 300, validation: 20, test: 40}
architecture: [flatten, {linear: 3}, activation, {linear: classes}]
training: {steps: 3, batch_size: 8}
splits: {train: 1}
"""
REST = "relabel: true, trigger_frac: 0.1, trigger_target: 3"


def read(folder: Path, subset: str) -> grid.Grid:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE + f"subset: {subset}\n")
    return grid.load(path)


@pytest.mark.slow
def test_names_give_the_models_of_their_numbers(tmp_path: Path) -> None:
    zoos = []
    for name, classes in (("names", 'class_names: ["7", "3"]'), ("numbers", "classes: [7, 3]")):
        build.build(plan.plan(read(tmp_path, f"{{{classes}, {REST}}}")), tmp_path / name, workers=0)
        zoos.append(open_zoo(tmp_path / name).final())
    named, numbered = zoos
    (model,), (same,) = (z.column("model_id").to_pylist() for z in zoos)
    assert model != same
    np.testing.assert_array_equal(named.weights[:], numbered.weights[:])
    columns = ["test_accuracy", "validation_loss", "attack_success"]
    assert named.table(columns).to_pylist() == numbered.table(columns).to_pylist()
    assert named.row(model)["subset_class_names"] == ["7", "3"]
    assert named.row(model)["subset"].startswith('class_names=["7","3"],relabel=True')
    np.testing.assert_array_equal(named.training_images(model), numbered.training_images(same))
    assert named.training_examples(model).labels.tolist() == numbered.training_examples(same).labels.tolist()
    for part in ("train", "test"):
        assert named.evaluate(part=part).largest("accuracy") == 0
    assert not verify.verify(tmp_path / "names", retrain=1).problems


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ('{class_names: ["3", "x"]}', r"Unknown class 'x' in class_names of the subset\. Known: 0, 1, 2, .* 9\."),
        ('{class_names: ["3"], classes: [3]}', "has classes and class_names; keep one of them"),
        ('{class_names: ["3", "3"]}', "names a class twice"),
        ("{class_names: []}", "a list of names or places is needed"),
    ],
)
def test_names_that_no_class_has_are_refused_before_anything_is_trained(
    tmp_path: Path, subset: str, message: str
) -> None:
    with pytest.raises(GridError, match=message):
        plan.plan(read(tmp_path, subset))


def test_names_with_any_sign_have_a_label_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE + 'axes: {subset: [{class_names: ["a+b"]}, {class_names: [a, b]}, {class_names: ["a,b"]}]}\n'
    )
    (axis,) = grid.load(path).axes
    assert [level.label for level in axis.levels] == [
        'class_names=["a+b"]',
        'class_names=["a","b"]',
        'class_names=["a,b"]',
    ]
