"""Metrics under other conditions than use: batches normalized by their own statistics, augmented images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import verify, worker
from zoo_builder.build import build
from zoo_datasets import evaluate, open_zoo, sources
from zoo_datasets.networks import batch_statistics, scoring
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.sources.conditions import Conditions, key_of

RECIPE = (
    "architecture=[{conv: 2, kernel: 3}, batch_norm, activation, flatten, {linear: 6}, batch_norm, {dropout: 0.5}, {linear: classes}]",
    "axes={augmentation: [none, {shift: 1, noise: 0.1}], subset: [full, {trigger_frac: 0.1, trigger_target: 3}]}",
    "paired=[]", "replicates=2", "activation=relu", "splits={train: 1}", "source.scale=unit",
    "training={epochs: 4, batch_size: 32, stop_below: 1, min_epochs: 1}",
    "snapshots={evenly: 3, evaluation: {train: 45, test: 33}}",
)  # fmt: skip
SWITCHES = ("evaluation.batch_statistics=true", "evaluation.augmented=true")


@pytest.fixture(scope="module")
def zoos(make_plan: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    """The same recipe with no switch, each, and both."""
    made = {}
    for on in ((), SWITCHES[:1], SWITCHES[1:], SWITCHES):
        made[on] = build(make_plan(*RECIPE, *on), tmp_path_factory.mktemp("zoo") / "z", workers=0).root
    return made


@pytest.mark.parametrize("on", [(), SWITCHES[:1], SWITCHES[1:], SWITCHES], ids=len)
@pytest.mark.parametrize("part", evaluate.PARTS)
@pytest.mark.slow
def test_evaluate_gives_the_stored_numbers(zoos: dict[tuple[str, ...], Path], on: tuple[str, ...], part: str) -> None:
    found = open_zoo(zoos[on]).evaluate(part=part, steps="all")
    assert found.largest("loss") == found.largest("correct_per_class") == found.largest("count_per_class") == 0
    if part == "test":
        assert found.largest("attack_success") == 0


@pytest.mark.slow
def test_verify_trains_the_same_again(zoos: dict[tuple[str, ...], Path]) -> None:
    report = verify.verify(zoos[SWITCHES], retrain=99)
    assert report.problems == []
    assert any("retrained, bit for bit, with every metric" in line for line in report.lines)


def losses(root: Path) -> dict[tuple[str, int], float]:
    """Test losses by the key of the initialization, which no switch changes, and by step."""
    zoo = open_zoo(root)
    key = dict(zip(*(zoo.models[c].to_pylist() for c in ("model_id", "order_key")), strict=True))
    columns = (zoo.column(c).to_pylist() for c in ("model_id", "step", "test_loss"))
    return {(key[m], step): loss for m, step, loss in zip(*columns, strict=True) if step == 0}


@pytest.mark.slow
def test_each_switch_changes_what_it_says(zoos: dict[tuple[str, ...], Path]) -> None:
    usual, own, seen = (losses(zoos[on]) for on in ((), SWITCHES[:1], SWITCHES[1:]))
    augmented = {r["order_key"] for r in open_zoo(zoos[()]).models.to_pylist() if r["augmentation"] != "none"}
    assert usual.keys() == own.keys() == seen.keys()
    assert all(own[k] != usual[k] for k in usual)  # every network has batch norm
    assert {
        k[0] for k in usual if seen[k] != usual[k]
    } == augmented  # a network trained without is shown images as they are


def test_a_network_without_batch_norm_or_augmentation_is_measured_as_usual(make_plan: Callable[..., Any]) -> None:
    levels = "axes={architecture: [mlp, [flatten, {linear: 4}, batch_norm, activation, {linear: classes}]], augment_shift: [0, 1]}"
    plain = ("architecture=", levels, "replicates=1", "splits={train: 1}", "paired=[]", "snapshots={epochs: [0, 2]}")
    found = []
    for planned in (make_plan(*plain, *on) for on in ((), SWITCHES)):
        plainest = {"architecture": "mlp", "augment_shift": "0"}
        (alone,) = (c for c in planned.cohorts if c.runs[0].axes == plainest)
        found.append([(s.sha256, s.metrics) for s in worker.train(alone, next(iter(planned.sources.values())))[0]])
    assert [f[0] for f in found[0]] == [f[0] for f in found[1]]
    for (_, a), (_, b) in zip(*found, strict=True):
        assert a["test_correct_per_class"] == b["test_correct_per_class"]


def test_the_numbers_are_those_of_batches_of_the_models_size(zoos: dict[tuple[str, ...], Path]) -> None:
    zoo = open_zoo(zoos[SWITCHES[:1]]).select(subset="full")
    id = zoo.models["model_id"][0].as_py()
    source = zoo.source(id)
    last = zoo.final().select(model_id=id)
    shown = source.scaled(source.test.inputs)
    logits = batch_statistics.logits(zoo.architecture(id).built(), last.weights[:], shown, 32)
    row = scoring.part_metrics("test", logits, source.test.labels[None], "cross_entropy")[0]
    assert row["test_loss"] == last.column("test_loss")[0].as_py()


def test_draws_follow_from_key_part_step_and_place() -> None:
    conditions = Conditions(None, Augmentation(noise=(0.5,)))
    from zoo_datasets.networks.layers import build_architecture

    made = build_architecture(["flatten", {"linear": "classes"}], (1, 4, 4), 3)
    draw = np.random.default_rng(0)
    weights, images = draw.standard_normal((2, made.n_params), np.float32), np.zeros((9, 1, 4, 4), np.float32)

    def shown(key: str, part: str, step: int, n: int = 9) -> np.ndarray:
        return conditions.logits(made, weights[:1], images[:n], None, [key], part, [step])

    first = shown("0" * 32, "test", 3)
    assert (shown("0" * 32, "test", 3, 5) == first[:, :5]).all()
    for other in (("1" * 32, "test", 3), ("0" * 32, "train", 3), ("0" * 32, "test", 4)):
        assert (shown(*other) != first).any()
    assert key_of("0" * 32, "test", 3) != "0" * 32
    both = conditions.logits(made, weights, images, None, ["1" * 32, "0" * 32], "test", [7, 3])
    assert (both[0] == conditions.logits(made, weights[:1], images, None, ["1" * 32], "test", [7])[0]).all()


def test_switches_part_cohorts_and_stand_in_ids(make_plan: Callable[..., Any]) -> None:
    ids = [{r.id for r in make_plan(*RECIPE, *on).runs} for on in ((), SWITCHES[:1], SWITCHES[1:])]
    assert len(set.union(*ids)) == sum(map(len, ids))
    planned = make_plan(
        "axes={evaluate_augmented: [false, true]}", "augmentation={shift: 1}", "replicates=2", "paired=[]"
    )
    assert sorted(len(c.runs) for c in planned.cohorts) == [2, 2]
    assert isinstance(next(iter(planned.sources.values())), sources.Source)
