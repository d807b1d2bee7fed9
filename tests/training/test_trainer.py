"""What `zoo_builder.training.trainer` and its schedules promise: schedules, stop rules, divergence, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import engines, worker
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.sealing import parts
from zoo_builder.training.inputs import data_of, initial_weights, job_of
from zoo_builder.training.progress import Snapshot
from zoo_builder.training.schedules import learning_rates
from zoo_builder.training.trainer import Trainer
from zoo_datasets.core import meters
from zoo_datasets.networks import kernels
from zoo_datasets.sources import Source

Trained = tuple[list[Snapshot], list[dict[str, Any]], dict[str, str]]
MakeCohort = Callable[..., tuple[Cohort, Source]]
PER_EPOCH = 4  # 100 images in batches of 32: the last batch is short

ENGINES = [
    "torch_loop",
    "torch_batched",
    pytest.param("native", marks=pytest.mark.skipif(kernels.missing() is not None, reason="no native kernels")),
]
every_engine = pytest.mark.parametrize("engine", ENGINES)
# The distance `torch_batched` allows itself between a model alone and in its cohort: float32
# rounding of other shapes, grown by 12 steps. The others promise the same bits.
TOLERANCE = {"torch_batched": 1e-5}


@pytest.fixture
def make_cohort(make_plan: Callable[..., Any]) -> MakeCohort:
    """One cohort of the tiny recipe with these axes and changes, and its source."""

    def make(axes: Mapping[str, Any], *changes: str, engine: str = "torch_loop") -> tuple[Cohort, Source]:
        fixed = [
            "paired=[]", "replicates=1", "splits={train: 1}", "cohort_size=99", "source.train=100",
            "training={epochs: 2, batch_size: 32}",
        ]  # fmt: skip
        planned = make_plan(*fixed, f"axes={json.dumps(axes)}", *changes, engine=engine)
        (cohort,) = planned.cohorts
        return cohort, planned.sources[cohort.runs[0].source]

    return make


def steps_of(trained: Trained, model: int) -> list[int]:
    return [s.step for s in trained[0] if s.model == model]


def bits(trained: Trained) -> list[Any]:
    """Everything a part is made of, weights by their hashes."""
    rows = [(s.model, s.step, s.epoch, s.examples_seen, s.sha256, s.metrics) for s in trained[0]]
    return [rows, trained[1]]


def by_axis(cohort: Cohort, axis: str, label: str) -> int:
    (index,) = [i for i, r in enumerate(cohort.runs) if r.axes[axis] == label]
    return index


def test_snapshots_come_model_by_model_with_their_place_in_training(make_cohort: MakeCohort) -> None:
    cohort, source = make_cohort({"lr": [1e-2, 1e-3]}, "snapshots={steps: [0, 3, 4, 6]}")
    snapshots, _, _ = worker.train(cohort, source)
    assert [(s.model, s.step) for s in snapshots] == [(m, s) for m in (0, 1) for s in (0, 3, 4, 6, 8)]
    assert [s.examples_seen for s in snapshots[:5]] == [0, 96, 100, 164, 200]
    assert [s.epoch for s in snapshots[:5]] == [0.0, 0.96, 1.0, 1.64, 2.0]
    for m, run in enumerate(cohort.runs):
        assert snapshots[5 * m].weights.tobytes() == initial_weights(run, cohort.architecture).tobytes()


def test_a_snapshot_more_or_less_changes_no_other(make_cohort: MakeCohort) -> None:
    few = worker.train(*make_cohort({"lr": [1e-2]}, "snapshots={epochs: [0, 2]}"))
    many = worker.train(*make_cohort({"lr": [1e-2]}, "snapshots={steps: [0, 1, 2, 3, 4, 5, 6, 7, 8]}"))
    assert [s.sha256 for s in few[0]] == [many[0][0].sha256, many[0][-1].sha256]


# ── learning rates ──


def rates(make_cohort: MakeCohort, schedule: str, lr: float = 0.5, total: int = 12) -> list[float]:
    cohort, _ = make_cohort({"lr": [lr]}, f"training.schedule={schedule}")
    return [float(learning_rates(cohort.runs[0], t, 1, PER_EPOCH, total)[0]) for t in range(total)]


def test_a_constant_rate_is_constant(make_cohort: MakeCohort) -> None:
    assert rates(make_cohort, "constant") == [0.5] * 12


def test_a_step_rate_falls_every_so_many_epochs(make_cohort: MakeCohort) -> None:
    assert rates(make_cohort, "{kind: step, gamma: 0.1, every_epochs: 2}") == [0.5] * 8 + [0.05] * 4


def test_an_exponential_rate_falls_every_epoch(make_cohort: MakeCohort) -> None:
    assert rates(make_cohort, "{kind: exponential, gamma: 0.5}") == [0.5] * 4 + [0.25] * 4 + [0.125] * 4


def test_a_cosine_rate_falls_to_its_final_part(make_cohort: MakeCohort) -> None:
    found = rates(make_cohort, "{kind: cosine, final_frac: 0.2}")
    wanted = [0.5 * (0.2 + 0.8 * (1 + math.cos(math.pi * t / 12)) / 2) for t in range(12)]
    np.testing.assert_allclose(found, wanted, rtol=1e-15)
    assert found[0] == 0.5
    cohort, _ = make_cohort({"lr": [0.5]}, "training.schedule={kind: cosine, final_frac: 0.2}")
    assert learning_rates(cohort.runs[0], 12, 1, PER_EPOCH, 12)[0] == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("kind", ["constant", "step", "exponential", "cosine"])
def test_a_rate_does_not_depend_on_the_window(make_cohort: MakeCohort, kind: str) -> None:
    cohort, _ = make_cohort({"lr": [0.3]}, f"training.schedule={kind}")
    whole = learning_rates(cohort.runs[0], 4, 4, PER_EPOCH, 12).tolist()
    assert whole == [float(learning_rates(cohort.runs[0], t, 1, PER_EPOCH, 12)[0]) for t in range(4, 8)]


def test_the_rate_reaches_the_optimizer(make_cohort: MakeCohort) -> None:
    """With gamma 0 nothing moves after the first epoch."""
    changes = ("training.schedule={kind: step, gamma: 0}", "snapshots=every_epoch", "training.optimizer=sgd")
    snapshots, _, _ = worker.train(*make_cohort({"lr": [0.1]}, *changes))
    start, first, second = (s.sha256 for s in snapshots)
    assert start != first == second


# ── stop rules ──


@pytest.mark.parametrize(
    ("budget", "step", "reason"), [("epochs", 12, "epochs"), ("steps", 6, "steps"), ("examples", 6, "examples")]
)
def test_a_budget_ends_the_run_and_is_its_reason(make_cohort: MakeCohort, budget: str, step: int, reason: str) -> None:
    # 150 examples are one epoch of 100 and two batches of 32.
    amount = {"epochs": 3, "steps": 6, "examples": 150}[budget]
    changes = ("training={batch_size: 32}", f"training.{budget}={amount}", "snapshots={epochs: [0]}")
    trained = worker.train(*make_cohort({"lr": [1e-3]}, *changes))
    assert trained[1] == [{"stop_reason": reason, "diverged_step": None}]
    assert steps_of(trained, 0) == [0, step]


def test_a_budget_of_nothing_gives_the_initialization(make_cohort: MakeCohort) -> None:
    trained = worker.train(*make_cohort({"lr": [1e-3]}, "training.epochs=0"))
    assert (steps_of(trained, 0), trained[1][0]["stop_reason"]) == ([0], "epochs")


@pytest.mark.slow
def test_target_loss_stops_at_the_first_epoch_that_reaches_it(make_cohort: MakeCohort) -> None:
    changes = ("training.epochs=12", "snapshots=every_epoch")
    free = worker.train(*make_cohort({"lr": [1e-2]}, *changes))
    losses = [s.metrics["validation_loss"] for s in free[0]]
    target = (losses[5] + losses[4]) / 2
    first = next(e for e in range(1, 13) if losses[e] <= target)
    stopped = worker.train(*make_cohort({"lr": [1e-2]}, *changes, f"training.target_loss={target!r}"))
    assert first < 12
    assert stopped[1][0]["stop_reason"] == "target_loss"
    assert steps_of(stopped, 0) == [PER_EPOCH * e for e in range(first + 1)]
    assert [s.sha256 for s in stopped[0]] == [s.sha256 for s in free[0][: first + 1]]


def test_a_target_never_reached_leaves_the_budget_as_the_reason(make_cohort: MakeCohort) -> None:
    trained = worker.train(*make_cohort({"lr": [1e-2]}, "training.target_loss=1e-9"))
    assert (trained[1][0]["stop_reason"], steps_of(trained, 0)[-1]) == ("epochs", 8)


@pytest.mark.slow
def test_early_stopping_waits_so_many_epochs_for_a_lower_loss(make_cohort: MakeCohort) -> None:
    # A large rate makes the validation loss rise and fall.
    changes = ("training.epochs=30", "training.optimizer=sgd", "snapshots=every_epoch")
    free = worker.train(*make_cohort({"lr": [1.5]}, *changes))
    losses = [s.metrics["validation_loss"] for s in free[0]][1:]  # of epochs 1, 2, …
    for patience in (1, 3):
        best, expected = 0, None
        for e in range(1, 31):
            best = e if e == 1 or losses[e - 1] < min(losses[: e - 1]) else best
            if e - best >= patience:
                expected = e
                break
        assert expected is not None
        stopped = worker.train(*make_cohort({"lr": [1.5]}, *changes, f"training.patience={patience}"))
        assert stopped[1][0]["stop_reason"] == "early_stopping"
        assert steps_of(stopped, 0)[-1] == PER_EPOCH * expected


@pytest.mark.parametrize(("rule", "count"), [("stop_drops", 1), ("stop_below", 3)])
@pytest.mark.slow
def test_a_rule_about_accuracy_ends_where_the_free_run_says(make_cohort: MakeCohort, rule: str, count: int) -> None:
    """Counted from the first epoch on, with which the next is compared, and heeded from epoch 4 on."""
    changes = ("training.epochs=40", "training.optimizer=sgd", "snapshots=every_epoch")
    free = worker.train(*make_cohort({"lr": [1.5]}, *changes))
    shares = [s.metrics["validation_accuracy"] for s in free[0]]  # of epochs 0, 1, …
    average, drops, below, expected = shares[1], 0, 0, None
    for e in range(2, 41):
        drops = 0 if shares[e] > shares[e - 1] else drops + (shares[e] < shares[e - 1])
        below += shares[e] < average
        average = 0.5 * average + 0.5 * shares[e]
        if e >= 4 and {"stop_drops": drops, "stop_below": below}[rule] >= count:
            expected = e
            break
    assert expected is not None
    stopped = worker.train(*make_cohort({"lr": [1.5]}, *changes, f"training.{rule}={count}", "training.min_epochs=4"))
    assert stopped[1][0]["stop_reason"] == "early_stopping"
    assert steps_of(stopped, 0)[-1] == PER_EPOCH * expected


def test_a_model_that_learns_nothing_ends_by_unchanged_accuracy(make_cohort: MakeCohort) -> None:
    changes = ("training.epochs=9", "training.min_epochs=2", "training.stop_unchanged=3")
    trained = worker.train(*make_cohort({"lr": [0.0]}, *changes))
    assert (trained[1][0]["stop_reason"], steps_of(trained, 0)[-1]) == ("early_stopping", 4 * PER_EPOCH)


def test_no_rule_stops_before_min_epochs(make_cohort: MakeCohort) -> None:
    rules = ("training.target_loss=1e9", "training.epochs=6", "training.min_epochs=3")
    trained = worker.train(*make_cohort({"lr": [1e-2]}, *rules))
    assert (trained[1][0]["stop_reason"], steps_of(trained, 0)[-1]) == ("target_loss", 3 * PER_EPOCH)


def test_an_evenly_schedule_of_a_stopped_run_is_thinned_to_its_count(make_cohort: MakeCohort) -> None:
    changes = ("training.epochs=12", "training.target_loss=1e9", "training.min_epochs=9", "snapshots={evenly: 4}")
    trained = worker.train(*make_cohort({"lr": [1e-2]}, *changes))
    assert steps_of(trained, 0) == [PER_EPOCH * e for e in (0, 3, 6, 9)]


def test_an_evenly_schedule_of_a_run_stopped_early_keeps_what_there_is(make_cohort: MakeCohort) -> None:
    changes = ("training.epochs=12", "training.target_loss=1e9", "snapshots={evenly: 4}")
    assert steps_of(worker.train(*make_cohort({"lr": [1e-2]}, *changes)), 0) == [0, PER_EPOCH]


# ── divergence ──

WILD = "1e+20"  # a rate at which plain SGD leaves float32 within a few steps, whatever the data


@every_engine
def test_a_diverged_model_keeps_its_last_finite_snapshot_and_no_row_after(make_cohort: MakeCohort, engine: str) -> None:
    axes = {"lr": [1e-2, 1e20, 1e-3]}
    changes = ("training.optimizer=sgd", "snapshots={steps: [0, 1, 2, 3, 4, 5, 6, 7, 8]}", "activation=relu")
    cohort, source = make_cohort(axes, *changes, engine=engine)
    trained = worker.train(cohort, source)
    wild = by_axis(cohort, "lr", WILD)
    result = trained[1][wild]
    assert result["stop_reason"] == "diverged"
    assert 0 < result["diverged_step"] < 8
    assert steps_of(trained, wild)[0] == 0
    assert steps_of(trained, wild)[-1] <= result["diverged_step"]
    for s in trained[0]:
        assert np.isfinite(s.weights).all()
    for m in {0, 1, 2} - {wild}:
        assert steps_of(trained, m) == list(range(9))
        assert trained[1][m] == {"stop_reason": "epochs", "diverged_step": None}


@every_engine
def test_weights_that_are_not_finite_are_no_snapshot_though_every_loss_was(
    make_cohort: MakeCohort, engine: str
) -> None:
    """The first update of a rate beyond float32 ruins the weights; the loss before it was fine."""
    changes = ("training.optimizer=sgd", "training.steps=1", "training.epochs=null", "snapshots={steps: [0, 1]}")
    cohort, source = make_cohort({"lr": [1e39, 1e-3]}, *changes, engine=engine)
    trained = worker.train(cohort, source)
    wild = by_axis(cohort, "lr", "1e+39")
    assert steps_of(trained, wild) == [0]
    assert trained[1][wild] == {"stop_reason": "diverged", "diverged_step": 1}
    assert steps_of(trained, 1 - wild) == [0, 1]


@every_engine
def test_a_diverging_model_does_not_touch_the_others(make_cohort: MakeCohort, engine: str) -> None:
    changes = ("training.optimizer=sgd", "training.clip_norm=1")
    calm_cohort, source = make_cohort({"lr": [1e-2, 1e-3]}, *changes, engine=engine)
    cohort, _ = make_cohort({"lr": [1e-2, 1e38, 1e-3]}, *changes, engine=engine)
    calm, mixed = worker.train(calm_cohort, source), worker.train(cohort, source)
    assert "diverged" in [r["stop_reason"] for r in mixed[1]]
    for run in calm_cohort.runs:
        ours = [s.weights for s in calm[0] if calm_cohort.runs[s.model] is run]
        theirs = [s.weights for s in mixed[0] if cohort.runs[s.model].axes == run.axes]
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=TOLERANCE.get(engine, 0))


@every_engine
def test_a_model_that_diverges_before_its_first_snapshot_shows_its_initialization(
    make_cohort: MakeCohort, engine: str
) -> None:
    axes = {"lr": [1e20, 1e-3]}
    changes = ("training.optimizer=sgd", "snapshots={epochs: [2]}", "activation=relu")
    cohort, source = make_cohort(axes, *changes, engine=engine)
    trained = worker.train(cohort, source)
    wild = by_axis(cohort, "lr", WILD)
    (shown,) = [s for s in trained[0] if s.model == wild]
    assert (shown.step, shown.epoch, shown.examples_seen) == (0, 0.0, 0)
    assert shown.weights.tobytes() == initial_weights(cohort.runs[wild], cohort.architecture).tobytes()
    assert trained[1][wild]["diverged_step"] > 0
    # Its metrics are those of the initialization, as a run that asks for them has them.
    asked_cohort, _ = make_cohort(axes, *changes[:1], "snapshots={epochs: [0]}", *changes[2:], engine=engine)
    asked = worker.train(asked_cohort, source)
    asked_wild = by_axis(asked_cohort, "lr", WILD)
    assert shown.metrics == next(s.metrics for s in asked[0] if s.model == asked_wild)
    assert steps_of(trained, 1 - wild) == [8]


# ── one cohort, many runs ──

# Different lengths, optimizers, schedules, rates and stops; dropout, batch norm, label noise.
MIXED_AXES = {"epochs": [1, 3], "optimizer": ["adam", "nesterov", "rmsprop"]}
MIXED = (
    "architecture=[flatten, {linear: 8}, batch_norm, activation, dropout, {linear: classes}]", "dropout=0.3",
    "training={batch_size: 32, weight_decay: 1e-3, clip_norm: 1.0, schedule: cosine}",
    "subset={label_noise_frac: 0.2}", "snapshots={steps: [0, 3, 5, 8]}",
)  # fmt: skip


@pytest.mark.some(1)
@every_engine
@pytest.mark.slow
def test_a_run_alone_is_the_run_in_its_cohort(make_cohort: MakeCohort, engine: str) -> None:
    # Without batch norm: the gradient of a bias before it is rounding alone, and Adam makes
    # whole steps of that.
    plain = "architecture=[flatten, {linear: 8}, activation, dropout, {linear: classes}]"
    cohort, source = make_cohort(MIXED_AXES, *MIXED[1:], plain, engine=engine)
    together = worker.train(cohort, source)
    assert {steps_of(together, m)[-1] for m in range(6)} == {4, 12}
    for m, run in enumerate(cohort.runs):
        alone = worker.train(dataclasses.replace(cohort, runs=(run,)), source)
        mine = [s for s in together[0] if s.model == m]
        assert [s.step for s in alone[0]] == [s.step for s in mine]
        assert alone[1] == [together[1][m]]
        for a, b in zip(alone[0], mine, strict=True):
            np.testing.assert_allclose(a.weights, b.weights, rtol=0, atol=TOLERANCE.get(engine, 0))
            if engine not in TOLERANCE:
                assert a.metrics == b.metrics


@pytest.mark.some(1)
@every_engine
@pytest.mark.slow
def test_the_same_cohort_gives_the_same_bits_twice(make_cohort: MakeCohort, engine: str) -> None:
    assert bits(worker.train(*make_cohort(MIXED_AXES, *MIXED, engine=engine))) == bits(
        worker.train(*make_cohort(MIXED_AXES, *MIXED, engine=engine))
    )


class PowerCut(Exception):
    """Ends training right after a checkpoint."""


class Interrupted(parts.Checkpoint):
    """A checkpoint on disk, due at every event, after which the lights go out."""

    def save(self, *arguments: Any) -> None:
        super().save(*arguments)
        raise PowerCut


@pytest.mark.some(1)
@every_engine
@pytest.mark.slow
def test_training_cut_at_every_event_gives_the_bits_of_the_unbroken(
    make_cohort: MakeCohort, engine: str, tmp_path: Path
) -> None:
    axes = {**MIXED_AXES, "lr": [1e-2, 1e38]}  # half of them diverge
    cohort, source = make_cohort(
        axes, *MIXED, "training.patience=1", "training.min_epochs=2", "training.stop_below=2", engine=engine
    )
    unbroken = worker.train(cohort, source)
    assert {r["stop_reason"] for r in unbroken[1]} >= {"diverged", "epochs"}
    path, cuts = tmp_path / "checkpoint.safetensors", 0
    while True:
        try:
            resumed = worker.train(cohort, source, Interrupted(path, cohort.id, 0))
            break
        except PowerCut:
            cuts += 1
            assert cuts < 20, "it does not get on"
    assert cuts >= 4
    assert bits(resumed) == bits(unbroken)


def test_a_checkpoint_that_cannot_be_read_costs_time_alone(make_cohort: MakeCohort, tmp_path: Path) -> None:
    cohort, source = make_cohort({"lr": [1e-2]})
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"half a checkpo")
    checkpoint = parts.Checkpoint(path, cohort.id, 1e9)
    assert bits(worker.train(cohort, source, checkpoint)) == bits(worker.train(cohort, source))


# ── weights alone ──


def trainer_of(cohort: Cohort, source: Source) -> Trainer:
    data = data_of(cohort, source)
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data, None), cohort.device)
    return Trainer(cohort, source, data, backend)


@every_engine
def test_weights_are_copies_of_the_models_asked_for(make_cohort: MakeCohort, engine: str) -> None:
    trainer = trainer_of(*make_cohort({"lr": [1e-3, 1e-2, 1e-1]}, engine=engine))
    after, backend = trainer.weights_after(2), trainer.backend
    state = backend.state()["weights"]
    assert after.tobytes() == state.tobytes()
    chosen = backend.weights([2, 0])
    assert chosen.tobytes() == state[[2, 0]].tobytes()
    chosen[:] = after[:] = np.nan
    assert backend.state()["weights"].tobytes() == state.tobytes()


@every_engine
def test_weights_after_some_steps_start_from_the_start_every_time(make_cohort: MakeCohort, engine: str) -> None:
    cohort, source = make_cohort({"lr": [1e-2, 1e38]}, "training.optimizer=adam", engine=engine)
    trainer = trainer_of(cohort, source)
    first = trainer.weights_after(PER_EPOCH + 1)
    assert trainer.weights_after(PER_EPOCH + 1).tobytes() == first.tobytes()
    begin = np.stack([initial_weights(run, cohort.architecture) for run in cohort.runs])
    assert trainer.weights_after(0).tobytes() == begin.tobytes() != first.tobytes()


def test_a_snapshot_holds_no_more_than_the_rows_of_its_step(make_cohort: MakeCohort) -> None:
    cohort, source = make_cohort(
        {"lr": [1e-3, 1e-2], "epochs": [1, 2]}, "training={batch_size: 32}", "snapshots={epochs: [2]}"
    )
    for snapshot in worker.train(cohort, source)[0]:
        held = snapshot.weights if snapshot.weights.base is None else snapshot.weights.base
        assert held.nbytes <= 2 * 4 * cohort.architecture.n_params  # two of the four models end at each step


def test_training_tells_the_steps_that_are_done_of_all_models(make_cohort: MakeCohort) -> None:
    told: list[float] = []
    with meters.listening(told.append):
        worker.train(*make_cohort({"lr": [1e-3, 1e30]}))  # the second diverges, and has nothing left to do
    assert told == sorted(told)
    assert told[0] < told[-1] == 2 * 2 * PER_EPOCH


@every_engine
def test_rmsprop_may_start_from_the_squares_that_tensorflow_starts_from(make_cohort: MakeCohort, engine: str) -> None:
    """Its first step is lr · g / √(α s + (1 − α) g²) from a mean of squares s: from 0 it is 10 lr at α = .99, whatever g is."""
    lr, alpha = 0.001, 0.99
    changes = (
        "training.optimizer=rmsprop",
        "training.steps=1",
        "training.epochs=",
        "training.eps=1e-12",
        "snapshots={steps: [0, 1]}",
    )
    moved = {}
    for squares in (0, 1, 4):
        cohort = make_cohort({"lr": [lr]}, *changes, f"training.squares_start={squares}", engine=engine)
        before, after = (s.weights.astype(float) for s in worker.train(*cohort)[0])
        moved[squares] = np.abs(after - before)
    hit = moved[1] > 1e-7
    assert hit.sum() > 20
    assert np.allclose(moved[0][hit], 10 * lr, rtol=1e-3)
    g = np.sqrt(alpha * moved[1] ** 2 / (lr**2 - (1 - alpha) * moved[1] ** 2))
    assert np.allclose(moved[4][hit], (lr * g / np.sqrt(4 * alpha + (1 - alpha) * g**2))[hit], rtol=0.1, atol=1e-8)
