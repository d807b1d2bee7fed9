"""The generalization gap under label noise and class subsets, against counting by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zoo_builder import plan
from zoo_builder.build import build
from zoo_datasets import targets
from zoo_datasets.zoo import Zoo, open_zoo


@pytest.fixture(scope="module")
def zoo(make_plan: Callable[..., plan.Plan], tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    changes = (
        "axes={subset: [full, {label_noise_frac: 0.4}, {classes: [0, 1, 2, 3, 4]}, {classes: [7, 2], relabel: true}]}",
        "replicates=3", "training={epochs: 5, batch_size: 16, lr: 1e-2}", "snapshots={epochs: [0, 5]}",
    )  # fmt: skip
    out = tmp_path_factory.mktemp("gap") / "zoo"
    build(make_plan(*changes), out, workers=0)
    return open_zoo(out)


def by_subset(zoo: Zoo, values: np.ndarray) -> dict[str, float]:
    labels = np.array(zoo.column("subset").to_pylist())
    return {k: float(values[labels == k].mean()) for k in np.unique(labels)}


@pytest.mark.slow
def test_noise_and_missing_classes_are_no_gap(zoo: Zoo) -> None:
    last = zoo.final()
    honest, stored = by_subset(last, last.generalization_gap()), by_subset(last, last.column("gap_accuracy").to_numpy())
    noisy, half = "label_noise_frac=0.4", "classes=0+1+2+3+4"
    assert honest["full"] == pytest.approx(stored["full"], abs=1e-12)
    clean, test = (by_subset(last, last.column(c).to_numpy())[noisy] for c in ("train_accuracy_clean", "test_accuracy"))
    assert honest[noisy] == pytest.approx(clean - test, abs=1e-12)
    assert stored[noisy] < honest[noisy]  # wrong labels are learned later than right ones
    assert stored[half] > honest[half] + 0.2
    assert honest["classes=7+2,relabel=True"] == pytest.approx(stored["classes=7+2,relabel=True"], abs=1e-12)


def test_it_is_what_the_predictions_say(zoo: Zoo) -> None:
    model = zoo.select(subset="classes=0+1+2+3+4").models["model_id"][0].as_py()
    one = zoo.select(model_id=model).final()
    source, examples = zoo.source(model), zoo.training_examples(model)
    network = zoo.load_model(model)
    import torch

    def right(images: np.ndarray, labels: np.ndarray) -> float:
        with torch.no_grad():
            return float((network(torch.from_numpy(images)).argmax(1).numpy() == labels).mean())

    test = source.test
    play = np.isin(test.labels, range(5))
    wanted = right(source.scaled(source.train.inputs[examples.rows]), examples.clean_labels) - right(
        source.scaled(test.inputs)[play], test.labels[play]
    )
    assert one.generalization_gap() == pytest.approx([wanted], abs=1e-6)


def test_a_snapshot_without_its_measure_has_none(zoo: Zoo) -> None:
    assert np.isfinite(zoo.generalization_gap()).all()
    assert len(zoo.generalization_gap()) == len(zoo)


@pytest.mark.parametrize("relabel", ["false", "true"])
@pytest.mark.slow
def test_classes_by_name_are_the_classes(make_plan: Callable[..., plan.Plan], tmp_path: Path, relabel: str) -> None:
    levels = f'full, {{classes: [7, 3], relabel: {relabel}}}, {{class_names: ["7", "3"], relabel: {relabel}}}'
    changes = (
        f"axes={{subset: [{levels}]}}",
        "replicates=3",
        "training={epochs: 3, batch_size: 16, lr: 1e-2}",
        "snapshots={epochs: [3]}",
    )
    build(make_plan(*changes), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    labels = np.array(zoo.column("subset").to_pylist())
    full, numbers, names = (labels == label for label in sorted(set(labels), key=lambda s: (s != "full", "names" in s)))
    assert full.sum() == numbers.sum() == names.sum() == 3
    asked = {
        name: targets.asked(zoo, name).values
        for name in (
            "learned_class_3",
            "learned_class_0",
            "generalization_gap",
            "test_accuracy_of_class_3",
            "test_accuracy_of_class_0",
        )
    }
    for values in [
        *asked.values(),
        *(targets.tested(zoo, name).T[0] for name in asked if name.startswith(("gen", "test"))),
    ]:
        np.testing.assert_array_equal(values[numbers], values[names])
    assert (asked["learned_class_3"] == 1).all()
    assert (asked["learned_class_0"] == full).all()
    # By the class's number in the source, whatever the head calls it: right answers and images are of the head's places.
    correct, count = (zoo.column(f"test_{n}_per_class").to_pylist() for n in ("correct", "count"))
    place = {True: 1, False: 3}[relabel == "true"]
    for row in np.flatnonzero(names):
        assert asked["test_accuracy_of_class_3"][row] == pytest.approx(correct[row][place] / count[row][place])
        assert targets.tested(zoo, "test_accuracy_of_class_3")[row, 1] == count[row][place]
        assert np.isnan(asked["test_accuracy_of_class_0"][row]) == (relabel == "true")
    assert np.isfinite(asked["test_accuracy_of_class_0"][full]).all()
