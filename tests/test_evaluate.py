"""Evaluating again: the stored metrics, the loop over modules, other sources."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from zoo_datasets import evaluate, kernels, models, modules, scoring, sources
from zoo_datasets.errors import ZooError, ZooNotFoundError
from zoo_datasets.forward import Forward
from zoo_datasets.zoo import Zoo

pytest_plugins = ("reader_fixtures",)

CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "small-cnn": ("small-cnn", (1, 28, 28)),
    "small-cnn-gap": ("small-cnn-gap", (3, 32, 32)),
    "mlp": ("mlp", (1, 8, 8)),
    "table": ([{"linear": 7}, "batch_norm", "activation", "dropout", {"linear": "classes"}], (4,)),
    "batch norm first": (["batch_norm", {"conv": 4, "padding": 1}, "batch_norm", "activation", {"avg_pool": 2}, "flatten", {"linear": "classes"}], (2, 6, 6)),
    "pool first": ([{"max_pool": 2}, "activation", {"conv": 3, "stride": 2}, "flatten", {"linear": "classes"}], (3, 12, 12)),
    "odd pool": ([{"conv": 2, "kernel": 2, "padding": 1, "stride": 2}, {"max_pool": 3}, "activation", "flatten", {"linear": "classes"}], (2, 9, 11)),
    "other stride": ([{"conv": 2}, {"max_pool": 3, "stride": 2}, "activation", "flatten", {"linear": "classes"}], (1, 9, 9)),
    "pooled away": ([{"conv": 5, "kernel": 3}, "activation", "global_avg_pool", {"linear": 6}, "activation", {"linear": "classes"}], (1, 8, 8)),
}  # fmt: skip


def networks(case: str, activation: str) -> tuple[models.Architecture, np.ndarray, torch.Tensor, torch.Tensor]:
    """An architecture, vectors of three models, seven images, and the logits of their modules."""
    layers, shape = CASES[case]
    architecture = models.build(layers, shape, 5, activation)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, architecture.n_params)).astype(np.float32) * 0.3
    for e in architecture.layout:
        if e.name.endswith("running_var"):
            vectors[:, e.offset : e.end] **= 2
    images = torch.from_numpy(rng.standard_normal((7, *shape)).astype(np.float32))
    with torch.inference_mode():
        wanted = torch.stack([modules.Network(architecture, 0.5).load_vector(v).eval()(images) for v in vectors])
    return architecture, vectors, images, wanted


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
def test_batched_logits_are_those_of_the_modules(case: str, activation: str) -> None:
    architecture, vectors, images, wanted = networks(case, activation)
    forward = Forward(architecture)
    forward.models_at_once, forward.values_at_once = 2, 2 * 2 * forward.largest  # pieces of two models and two images
    assert torch.allclose(forward.logits(vectors, images), wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.skipif(kernels.available() is not None, reason="the C++ kernels cannot run here")
@pytest.mark.parametrize("activation", models.ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
def test_logits_of_kernels_are_those_of_the_modules(case: str, activation: str) -> None:
    architecture, vectors, images, wanted = networks(case, activation)
    found = torch.from_numpy(kernels.logits(architecture, vectors, images.numpy(), threads=2))  # two models and one
    assert torch.allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_tanh_is_within_three_tenths_of_a_millionth() -> None:
    from zoo_datasets.forward import ELEMENTWISE

    x = torch.cat([torch.linspace(-20, 20, 100_001), torch.tensor([float("inf"), -float("inf"), float("nan")])])
    found, wanted = ELEMENTWISE["tanh"](x), torch.tanh(x.double())
    assert float((found.double() - wanted)[:-1].abs().max()) < 3e-7
    assert found[-1].isnan()


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_scores_are_those_of_the_format(loss: str) -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((50, 4)).astype(np.float32)
    logits[3, 2], logits[4, 1] = np.inf, np.nan
    labels = rng.integers(0, 4, 50)
    for keep in (slice(None), slice(5, None), slice(0, 0)):
        found = evaluate.score(torch.from_numpy(logits[keep]), torch.from_numpy(labels[keep]), loss)
        wanted = scoring.score(logits[keep], labels[keep], loss)
        assert found.pop("loss") == (pytest.approx(wanted["loss"], rel=1e-6) if wanted["loss"] is not None else None)
        del wanted["loss"]
        assert found == wanted


def test_every_snapshot_gives_its_stored_metrics(mixed_zoo: Zoo, zoo: Zoo) -> None:
    for part in evaluate.PARTS:
        for opened in (zoo, mixed_zoo):
            found = opened.evaluate(part=part, steps="all")
            assert len(found.table) == len(opened)
            assert found.table["model_id"].to_pylist() == opened.column("model_id").to_pylist()
            assert found.largest("accuracy") == 0
            assert found.largest("loss") < 1e-5
            assert (
                found.table["correct_per_class"].to_pylist() == opened.column(f"{part}_correct_per_class").to_pylist()
            )


def test_the_last_selected_snapshot_is_evaluated(zoo: Zoo) -> None:
    assert set(zoo.select(epoch=[0, 1]).evaluate().table["step"].to_pylist()) == set(
        zoo.select(epoch=1).column("step").to_pylist()
    )
    ids = zoo.models["model_id"].to_pylist()[3:1:-1]
    assert zoo.evaluate(ids).table["model_id"].to_pylist() == ids
    assert repr(zoo.evaluate(ids)).startswith("Evaluation of 2 snapshots on 80 test images: mean accuracy ")


def test_another_source_has_nothing_to_compare_with(zoo: Zoo) -> None:
    found = zoo.evaluate(source=sources.SourceSpec("digits", train=200, validation=60, test=50))
    assert found.largest() is None
    assert "nothing stored" in repr(found)
    assert (
        found.table["count_per_class"][0].as_py()
        == np.bincount(sources.load(sources.SourceSpec("digits", test=50)).test.labels, minlength=10).tolist()
    )


def test_a_shrunken_head_is_tested_on_its_classes(zoo: Zoo) -> None:
    source = zoo.source(zoo.models["model_id"][0].as_py())
    row = zoo.row(zoo.models["model_id"][0].as_py()) | {"subset_classes": [2, 5], "subset_relabel": True}
    images, labels = evaluate._images(source, "test", row, zoo, {})
    known = np.isin(source.test.labels, [2, 5])
    assert np.array_equal(images, source.scaled(source.test.images[known]))
    assert np.array_equal(labels, (source.test.labels[known] == 5).astype(int))


def test_what_cannot_be_evaluated_is_said(zoo: Zoo) -> None:
    with pytest.raises(ZooNotFoundError, match="Unknown model 'abc'"):
        zoo.evaluate(["abc"])
    with pytest.raises(ZooError, match=r"Unknown part 'tset'.*Did you mean `test`"):
        zoo.evaluate(part="tset")
    with pytest.raises(ZooError, match="Unknown steps 'lst'"):
        zoo.evaluate(steps="lst")
    with pytest.raises(ZooError, match=r"images of shape \(4,\); model .* takes \(1, 8, 8\)"):
        zoo.evaluate(source="iris")
    assert dataclasses.is_dataclass(zoo.evaluate(zoo.models["model_id"].to_pylist()[:1]))
