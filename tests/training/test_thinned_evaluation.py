"""What `evaluation: {train: n, …}` of a snapshot schedule promises: fewer images before the last snapshot, no other change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import engines, verify, worker
from zoo_builder.build import build
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.sealing import parts
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.progress import Snapshot
from zoo_datasets import evaluate, open_zoo
from zoo_datasets.networks import scoring
from zoo_datasets.sources import Source

Make = Callable[..., tuple[Cohort, Source]]
Trained = tuple[list[Snapshot], list[dict[str, Any]], dict[str, str]]
N_TRAIN, PER_EPOCH = 100, 4
THIN = {"train": 30, "validation": 0}
DATA = {"lr": [1e-2], "subset": ["full", {"label_noise_frac": 0.2}]}
TRIGGER = {"lr": [1e-2, 1e-3], "subset": [{"trigger_frac": 0.1, "trigger_target": 3}]}


@pytest.fixture
def make(make_plan: Callable[..., Any]) -> Make:
    """One cohort with these axes and changes, scored in full or as `evaluation` says."""

    def made(axes: Mapping[str, Any], *changes: str, schedule: Mapping[str, Any], **evaluation: Any) -> Any:
        planned = make_plan(
            "paired=[]", "replicates=1", "splits={train: 1}", "cohort_size=99", f"source.train={N_TRAIN}",
            "training={epochs: 3, batch_size: 32}", f"axes={json.dumps(axes)}",
            f"snapshots={json.dumps({**schedule, **evaluation})}", *changes, engine="torch_loop",
        )  # fmt: skip
        (cohort,) = planned.cohorts
        return cohort, planned.sources[cohort.runs[0].source]

    return made


def both(make: Make, axes: Mapping[str, Any], *changes: str, **schedule: Any) -> tuple[Trained, Trained]:
    """Trained with all images scored at each snapshot, and with few."""
    whole = worker.train(*make(axes, *changes, schedule=schedule))
    return whole, worker.train(*make(axes, *changes, schedule=schedule, evaluation=THIN))


def counted(s: Snapshot, part: str) -> int:
    return sum(s.metrics[f"{part}_count_per_class"])


def of(trained: Trained, model: int) -> list[Snapshot]:
    return [s for s in trained[0] if s.model == model]


def check(whole: Trained, thin: Trained) -> None:
    """Equal steps, weights and ends; the last snapshot of each model in full, the others on few images."""
    assert whole[1] == thin[1]
    assert [(s.model, s.step, s.sha256) for s in whole[0]] == [(s.model, s.step, s.sha256) for s in thin[0]]
    for model in range(len(whole[1])):
        ours, theirs = of(thin, model), of(whole, model)
        assert ours[-1].metrics == theirs[-1].metrics
        for s, t in zip(ours[:-1], theirs[:-1], strict=True):
            assert [counted(s, p) for p in ("train", "validation", "test")] == [30, 0, counted(t, "test")]
            assert s.metrics["validation_loss"] is s.metrics["validation_accuracy"] is None
            assert s.metrics["test_loss"] == t.metrics["test_loss"]
            assert s.metrics["attack_success"] == t.metrics["attack_success"]


@pytest.mark.parametrize("axes", [DATA, TRIGGER])
def test_snapshots_before_the_last_are_scored_on_few_images_and_the_last_in_full(make: Make, axes: Any) -> None:
    check(*both(make, axes, every_epoch=True))


def test_train_images_are_the_first_of_the_models_own_rows(make: Make) -> None:
    axes = {**DATA, "subset": [{"frac": 0.5}, {"frac": 0.5, "label_noise_frac": 0.2}]}
    cohort, source = make(axes, schedule={"every_epoch": True}, evaluation=THIN)
    trained, data = worker.train(cohort, source), data_of(cohort, source)
    for model in range(2):
        rows, labels = data.examples[model].rows[:30], data.examples[model].labels[:30]
        s = of(trained, model)[1]
        backend = engines.open_backend(cohort.engine, job_of(cohort, source, data), "cpu")
        everyone = np.repeat(s.weights[None], 2, 0)
        zeros = np.zeros_like(everyone)
        backend.load_state({"weights": everyone, "slot1": zeros, "slot2": zeros})
        logits = backend.logits(source.scaled(source.train.inputs[rows]))[:1]
        wanted = scoring.part_metrics("train", logits, labels[None], "cross_entropy")[0]
        assert s.metrics["train_correct_per_class"] == wanted["train_correct_per_class"]
        assert s.metrics["train_count_per_class"] == np.bincount(labels, minlength=10).tolist()
        assert s.metrics["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-6)


def test_more_images_than_there_are_is_all_of_them(make: Make) -> None:
    whole = worker.train(*make(DATA, schedule={"every_epoch": True}))
    many = worker.train(*make(DATA, schedule={"every_epoch": True}, evaluation=dict.fromkeys(evaluate.PARTS, 9999)))
    assert [s.metrics for s in whole[0]] == [s.metrics for s in many[0]]


@pytest.mark.slow
def test_stop_rules_see_all_validation_images_and_the_snapshot_they_end_at_is_full(make: Make) -> None:
    changes = ("training.epochs=20", "training.patience=1")
    whole, thin = both(make, {**DATA, "lr": [1.0, 1e-2]}, *changes, every_epoch=True)
    assert "early_stopping" in [r["stop_reason"] for r in thin[1]]
    check(whole, thin)


@pytest.mark.slow
def test_an_even_schedule_that_a_rule_ended_has_its_last_in_full(make: Make) -> None:
    changes = ("training.epochs=12", "training.target_loss=1e9", "training.min_epochs=9")
    whole, thin = both(make, {"lr": [1e-2, 1e-3]}, *changes, evenly=4)
    assert [s.step for s in of(thin, 0)] == [PER_EPOCH * e for e in (0, 3, 6, 9)]
    check(whole, thin)


@pytest.mark.slow
def test_the_last_finite_snapshot_of_a_model_that_diverged_is_in_full(make: Make) -> None:
    changes = ("training.optimizer=sgd", "activation=relu")
    whole, thin = both(make, {"lr": [1e-2, 1e20, 1e-3]}, *changes, steps=list(range(12)))
    (wild,) = [m for m, r in enumerate(thin[1]) if r["stop_reason"] == "diverged"]
    assert of(thin, wild)[-1].step < 12
    check(whole, thin)


def test_a_model_that_diverged_before_its_first_snapshot_has_its_start_in_full(make: Make) -> None:
    check(*both(make, {"lr": [1e20, 1e-3]}, "training.optimizer=sgd", "activation=relu", epochs=[2]))


class PowerCut(Exception):
    pass


class Interrupted(parts.Checkpoint):
    def save(self, *arguments: Any) -> None:
        super().save(*arguments)
        raise PowerCut


@pytest.mark.slow
def test_after_a_resume_the_last_is_in_full_too(make: Make, tmp_path: Path) -> None:
    axes, changes = {"lr": [1e-2, 1e20, 1e-3]}, ("training.optimizer=sgd", "activation=relu")
    cohort, source = make(axes, *changes, schedule={"steps": list(range(12))}, evaluation=THIN)
    cuts = 0
    while True:
        try:
            resumed = worker.train(cohort, source, Interrupted(tmp_path / "checkpoint", cohort.id, 0))
            break
        except PowerCut:
            cuts += 1
            assert cuts < 40, "it does not get on"
    assert cuts >= 4
    check(worker.train(*make(axes, *changes, schedule={"steps": list(range(12))})), resumed)


# ── the zoo ──


@pytest.fixture
def thin_zoo(make_plan: Callable[..., Any], tmp_path: Path) -> Path:
    planned = make_plan(
        "axes={lr: [1e-2, 1e20], subset: [full, {label_noise_frac: 0.2}, {trigger_frac: 0.1, trigger_target: 3}]}",
        "paired=[subset]", "training={optimizer: sgd, epochs: 3, batch_size: 32}", "activation=relu",
        "snapshots={every_epoch: true, evaluation: {train: 30, validation: 0, test: 50}}",
    )  # fmt: skip
    return build(planned, tmp_path / "thin", workers=0).root


@pytest.mark.parametrize("part", evaluate.PARTS)
@pytest.mark.slow
def test_evaluate_measures_on_the_same_images(thin_zoo: Path, part: str) -> None:
    zoo = open_zoo(thin_zoo)
    found = zoo.evaluate(part=part, steps="all")
    assert found.table["count_per_class"].equals(zoo.table([f"{part}_count_per_class"])[f"{part}_count_per_class"])
    assert found.largest("correct_per_class") == 0
    assert found.largest("count_per_class") == 0
    assert found.largest("loss") == pytest.approx(0, abs=1e-6)
    if part == "test":
        assert found.largest("attack_success") == 0
    if part == "train":
        assert found.largest("train_accuracy_clean") == 0
    counts = [sum(c) for c in found.table["count_per_class"].to_pylist()]
    assert min(counts) == {"train": 30, "validation": 0, "test": 50}[part] < max(counts)


@pytest.mark.slow
def test_verify_retrains_it_and_holds_the_counts_to_the_schedule(thin_zoo: Path) -> None:
    report = verify.verify(thin_zoo, retrain=99)
    assert report.problems == []
    assert any("retrained, bit for bit, with every metric" in line for line in report.lines)
