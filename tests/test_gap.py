"""The generalization gap under label noise and class subsets, against counting by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from zoo_builder import plan
from zoo_builder.build import build
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
