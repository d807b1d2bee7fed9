"""A cohort and its source → snapshots: the training loop that all engines share.

In:  a cohort, its source, an opened backend.
Out: for each model its snapshots (step, weights, metrics) and how it ended, sent to the
sink as they come. Models of different length, stop rule and schedule live in one cohort.

The loop walks from event to event (a snapshot, the end of an epoch, a stop check, a
checkpoint) and lets the backend take all steps in between. What it computes itself is
exact arithmetic, so that a result depends on the backend alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from zoo_builder.cohorts import Cohort, augmentation_of
from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Backend, Job, Optimizers, Window
from zoo_builder.lineage import State
from zoo_builder.runs import Run
from zoo_datasets import exact, models, scoring, sources

_KINDS = {"sgd": SGD, "momentum": SGD, "nesterov": SGD, "adam": ADAM, "adamw": ADAMW, "rmsprop": RMSPROP}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Published weights of one model at one step; `model` is its place in the cohort."""

    model: int
    step: int
    epoch: float
    examples_seen: int
    metrics: Mapping[str, Any]
    weights: np.ndarray  # (P,) float32
    slots: np.ndarray | None = None  # (2, P) float32: the optimizer's, where the recipe keeps them

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.weights.astype("<f4", copy=False).tobytes()).hexdigest()

    @property
    def optimizer_sha256(self) -> str | None:
        return (
            None if self.slots is None else hashlib.sha256(self.slots.astype("<f4", copy=False).tobytes()).hexdigest()
        )


@dataclasses.dataclass
class Progress:
    """Everything needed to go on from a checkpoint besides the backend's state."""

    step: int
    active: np.ndarray  # (M,) bool
    stop_reason: list[str | None]
    diverged_step: list[int | None]
    best_loss: list[float]
    best_epoch: list[int]
    snapshots: list[Snapshot]


class Checkpoints(Protocol):
    """Where a long cohort keeps its state; `parts.Checkpoint` is the one on disk."""

    def load(self) -> tuple[dict[str, np.ndarray], Progress] | None: ...

    def due(self) -> bool: ...

    def save(self, state: dict[str, np.ndarray], progress: Progress) -> None: ...


@dataclasses.dataclass(frozen=True)
class Data:
    """The arrays of a cohort: what is trained on and what is evaluated."""

    pool: np.ndarray  # (N or 2N, …) float32: the images in use; the second half is stamped with the trigger
    examples: list[sources.Examples]  # per model, rows into the source's training part
    rows: np.ndarray  # (M, n) int32 into the pool
    labels: np.ndarray  # (M, n) int32 as trained
    clean: np.ndarray  # (M, n) int32
    validation: tuple[np.ndarray, np.ndarray]  # images, labels
    test: tuple[np.ndarray, np.ndarray]
    triggered: np.ndarray | None  # test images with the trigger on

    @property
    def shared_rows(self) -> bool:
        """Whether all models train on the same pool rows, so that one pass shows all of them."""
        return bool((self.rows == self.rows[0]).all())


def data_of(cohort: Cohort, source: sources.Source) -> Data:
    """The arrays of a cohort. Raises GridError where its data axes do not fit the source."""
    first = cohort.runs[0].subset
    examples = [
        sources.training_examples(source.train.labels, source.n_classes, r.subset, r.keys["subset"])
        for r in cohort.runs
    ]
    # Only images that some model sees: a pair of classes is a fifth of MNIST.
    used = np.unique(np.concatenate([e.rows for e in examples]))
    images = sources.turned(source.train.images[used], first.rotate_degrees)
    pool = source.scaled(images)
    if first.trigger_frac:
        pool = np.concatenate([pool, source.scaled(sources.stamp(images, first, source.peak))])
    rows = np.stack([np.searchsorted(used, e.rows) + len(used) * e.poisoned for e in examples]).astype(np.int32)

    def part(which: sources.Part) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels as the head numbers them, without those that it has no class for."""
        labels = sources.relabeled(which.labels, first)
        known = labels >= 0
        return which.images[known], labels[known]

    validation, test = part(source.validation), part(source.test)
    triggered = None
    if first.trigger_frac:
        triggered = source.scaled(sources.stamp(test[0], first, source.peak))
    return Data(
        pool, examples, rows, np.stack([e.labels for e in examples]).astype(np.int32),
        np.stack([e.clean_labels for e in examples]).astype(np.int32), (source.scaled(validation[0]), validation[1]), (source.scaled(test[0]), test[1]), triggered,
    )  # fmt: skip


def job_of(cohort: Cohort, source: sources.Source, pool: np.ndarray, state: State | None = None) -> Job:
    """The cohort as an engine sees it, with initial weights from the models' keys or from their parents."""
    s = [r.settings for r in cohort.runs]

    def vector(name: str, default: float = 0.0, kind: type = np.float64) -> np.ndarray:
        return np.array([default if v[name] is None else v[name] for v in s], kind)

    optimizer = [v["optimizer"] for v in s]
    return Job(
        architecture=cohort.architecture,
        loss=s[0]["loss"],
        pool=pool,
        initial=state.weights if state else np.stack([initial_weights(r, cohort.architecture) for r in cohort.runs]),
        optimizers=Optimizers(
            kind=np.array([_KINDS[o] for o in optimizer], np.int32),
            momentum=vector("momentum"),
            nesterov=np.array([o == "nesterov" for o in optimizer]),
            beta1=vector("beta1"),
            beta2=vector("beta2"),
            eps=vector("eps"),
            alpha=vector("alpha"),
            weight_decay=vector("weight_decay"),
            clip_norm=vector("clip_norm", math.inf),
        ),
        dropout_rate=vector("dropout"),
        dropout_key=tuple(r.keys["dropout"] for r in cohort.runs),
        augment_key=tuple(r.keys["augment"] for r in cohort.runs),
        augmentation=augmentation_of(cohort.runs[0], source),
    )


def initial_weights(run: Run, architecture: models.Architecture) -> np.ndarray:
    """Step 0 of a run that has no parent, float32 [P], from its init key alone."""
    assert run.start is None
    s = run.settings
    first, last = (
        models.LayerInit(s[f"init_{part}_kind"], s.get(f"init_{part}_low"), s.get(f"init_{part}_high"))
        if f"init_{part}_kind" in s
        else None
        for part in ("first", "last")
    )
    return models.initialize(
        architecture, run.keys["init"], s["init_kind"], low=s["init_low"], high=s["init_high"], mean=s["init_mean"],
        std=s["init_std"], value=s["init_value"], bias=s["init_bias"], first=first, last=last,
    )  # fmt: skip


def learning_rates(run: Run, first: int, count: int, steps_per_epoch: int, total: int) -> np.ndarray:
    """Learning rate of `count` steps of one epoch from step `first` on, float64 [count].

    `step` and `exponential` multiply by gamma at epoch ends; `cosine` (Loshchilov & Hutter
    2017, without restarts) goes from lr at step 0 to final_frac · lr at the end, per step.
    """
    s = run.settings
    kind, lr = s["schedule_kind"], s["lr"]
    if kind == "cosine":
        f, steps = s["schedule_final_frac"], range(first, first + count)
        return np.array([lr * (f + (1 - f) * (1 + exact.cosine_half(t / max(total, 1))) / 2) for t in steps])
    if kind == "constant":
        return np.full(count, lr)
    every = s["schedule_every_epochs"] if kind == "step" else 1
    return np.full(count, lr * float(exact.power(s["schedule_gamma"], first // steps_per_epoch // every)))


def snapshot_steps(schedule: Mapping[str, Any], steps_per_epoch: int, total: int) -> list[int]:
    """The steps a schedule asks for, ascending, the last step always among them."""
    kind, value = next((k, v) for k, v in schedule.items() if k != "optimizer")
    if kind == "every_epoch":
        wanted = list(range(0, total + 1, steps_per_epoch))
    elif kind == "epochs":
        wanted = [round(e * steps_per_epoch) for e in value]
    elif kind == "steps":
        wanted = list(value)
    elif kind == "log_steps":
        wanted = [0] + [round(total ** (i / (value - 2))) for i in range(value - 1)] if value > 2 else [0]
    else:
        wanted = [(i * total + (value - 1) // 2) // (value - 1) for i in range(value)]
    return sorted({s for s in wanted if 0 <= s <= total} | {total})


class Trainer:
    """One cohort under training. `run` is the loop; the rest are its sentences.

    `state` is what models with parents start from. Their own steps and epochs count from 0, and
    so does the schedule of the learning rate; their streams go on at `first`, where the parents' were.
    """

    def __init__(
        self, cohort: Cohort, source: sources.Source, data: Data, backend: Backend, state: State | None = None
    ) -> None:
        self.cohort, self.source, self.data, self.backend, self.start = cohort, source, data, backend, state
        self.first = cohort.stream_step
        self.n = cohort.n_train
        self.batch = cohort.batch_size
        self.per_epoch = -(-self.n // self.batch)
        self.total = cohort.steps
        self.runs = cohort.runs
        self.watched = [r.settings["target_loss"] is not None or r.settings["patience"] is not None for r in self.runs]
        self.powers: dict[float, np.ndarray] = {}  # β → β¹, β², … by one running product
        self.due = [self._due(r, t, w) for r, t, w in zip(self.runs, self.total, self.watched, strict=True)]

    def _due(self, run: Run, total: int, watched: bool) -> set[int]:
        if watched and "evenly" in run.snapshots:
            # Its end is not known: keep every epoch, and choose evenly among them afterwards.
            return set(snapshot_steps({"every_epoch": True}, self.per_epoch, total))
        return set(snapshot_steps(run.snapshots, self.per_epoch, total))

    def run(self, sink: Callable[[Snapshot], None], checkpoints: Checkpoints | None = None) -> list[dict[str, Any]]:
        """Train to the end; each model's result: stop_reason, diverged_step.

        Snapshots reach the sink model by model in order of steps, after the last step.
        """
        progress = self._begin(checkpoints)
        while progress.active.any():
            self._advance_to(progress, self._next_event(progress))
            self._at_event(progress)
            if checkpoints is not None and progress.active.any() and checkpoints.due():
                checkpoints.save(self.backend.state(), progress)
        results = []
        for m in range(len(self.runs)):
            for snapshot in self._published(progress, m):
                sink(snapshot)
            results.append({"stop_reason": progress.stop_reason[m], "diverged_step": progress.diverged_step[m]})
        return results

    def _begin(self, checkpoints: Checkpoints | None) -> Progress:
        saved = checkpoints.load() if checkpoints is not None else None
        if saved is not None:
            self.backend.load_state(saved[0])
            return saved[1]
        self._load_parents()
        count = len(self.runs)
        progress = Progress(
            0, np.ones(count, bool), [None] * count, [None] * count, [math.inf] * count, [0] * count, []
        )
        self._at_event(progress)
        return progress

    def _load_parents(self) -> None:
        if self.start is not None:
            self.backend.load_state(dict(vars(self.start)))

    def weights_after(self, steps: int) -> np.ndarray:
        """Weights (M, P) after so many steps from the start, without snapshots or stop rules."""
        self._load_parents()
        count = len(self.runs)
        progress = Progress(0, np.ones(count, bool), [None] * count, [None] * count, [], [], [])
        while progress.step < steps:
            self._advance_to(progress, min(steps, *self._epoch_ends(progress.step)))
        return self.backend.state()["weights"]

    # ── between events ──

    def _next_event(self, progress: Progress) -> int:
        step = progress.step
        stops = self._epoch_ends(step)
        for m in np.flatnonzero(progress.active):
            stops.append(self.total[m])
            stops.append(min((s for s in self.due[m] if s > step), default=self.total[m]))
        return min(stops)

    def _epoch_ends(self, step: int) -> list[int]:
        """The next end of an epoch: of the models' own, and of the streams', which draw batches per epoch."""
        return [(at // self.per_epoch + 1) * self.per_epoch - at + step for at in (step, self.first + step)]

    def _advance_to(self, progress: Progress, stop: int) -> None:
        """Take the steps up to `stop`, which lies in the same epoch or at its end."""
        first, count = progress.step, stop - progress.step
        epoch, offset = divmod(self.first + first, self.per_epoch)
        begin, end = offset * self.batch, min((offset + count) * self.batch, self.n)
        order = np.stack([self._order(m, epoch)[begin:end] for m in range(len(self.runs))])  # (M, n)
        sizes = np.full(count, self.batch, np.int64)
        sizes[-1] = end - begin - self.batch * (count - 1)
        lr = [learning_rates(r, first, count, self.per_epoch, t) for r, t in zip(self.runs, self.total, strict=True)]
        bias = np.stack([self._bias_corrections(r, first, count) for r in self.runs])  # (M, 2, T)
        losses = self.backend.advance(
            Window(
                self.first + first, sizes, np.take_along_axis(self.data.rows, order, 1), np.take_along_axis(self.data.labels, order, 1),
                np.stack(lr), bias[:, 0].copy(), bias[:, 1].copy(), progress.active.copy(),
            )
        )  # fmt: skip
        for m in np.flatnonzero(progress.active & ~np.isfinite(losses).all(axis=1)):
            self._diverged(progress, int(m), first + int(np.argmin(np.isfinite(losses[m]))))
        progress.step = stop

    def _order(self, model: int, epoch: int) -> np.ndarray:
        run, n_source = self.runs[model], len(self.source.train.labels)
        return sources.epoch_order(run.keys["order"], epoch, n_source, self.data.examples[model].rows)

    def _bias_corrections(self, run: Run, first: int, count: int) -> np.ndarray:
        """1 − βᵢᵗ for t = first + 1 …, float64 [2, count]; a function of t alone, whatever the window."""
        first += run.start.updates if run.start else 0
        result = np.ones((2, count))
        for i, name in enumerate(("beta1", "beta2")):
            beta = run.settings[name]
            if beta is not None:
                if beta not in self.powers:
                    most = max(*self.total, self.per_epoch) + max(r.start.updates if r.start else 0 for r in self.runs)
                    self.powers[beta] = np.multiply.accumulate(np.full(most, beta))
                result[i] = 1.0 - self.powers[beta][first : first + count]
        return result

    def _diverged(self, progress: Progress, model: int, step: int) -> None:
        progress.active[model] = False
        progress.stop_reason[model], progress.diverged_step[model] = "diverged", step
        if not any(s.model == model for s in progress.snapshots):
            self._keep_initialization(progress, model)

    # ── at events ──

    def _at_event(self, progress: Progress) -> None:
        step = progress.step
        epoch, inside = divmod(step, self.per_epoch)
        active = [int(m) for m in np.flatnonzero(progress.active)]
        check = [m for m in active if self.watched[m] and not inside and epoch >= 1]
        ends = {m: self._budget_name(m) for m in active if step >= self.total[m]}
        if check:
            losses = self._validation_losses()
            for m in check:
                reason = self._stop_rule(progress, m, epoch, losses[m])
                if reason:
                    ends[m] = reason
        wanted = [m for m in active if step in self.due[m] or m in ends]
        if wanted:
            self._snapshot(progress, wanted)
        for m, reason in ends.items():
            if progress.active[m]:
                progress.active[m] = False
                progress.stop_reason[m] = reason

    def _budget_name(self, model: int) -> str:
        return next(k for k in ("steps", "examples", "epochs") if self.runs[model].settings[k] is not None)

    def _stop_rule(self, progress: Progress, m: int, epoch: int, loss: float) -> str | None:
        s = self.runs[m].settings
        if loss < progress.best_loss[m]:
            progress.best_loss[m], progress.best_epoch[m] = loss, epoch
        if epoch < s["min_epochs"]:
            return None
        if s["target_loss"] is not None and loss <= s["target_loss"]:
            return "target_loss"
        if s["patience"] is not None and epoch - progress.best_epoch[m] >= s["patience"]:
            return "early_stopping"
        return None

    def _validation_losses(self) -> list[float]:
        images, labels = self.data.validation
        logits, loss = self.backend.logits(images), self.runs[0].settings["loss"]
        values = [scoring.score(logits[m], labels, loss)["loss"] for m in range(len(self.runs))]
        return [math.inf if v is None else v for v in values]

    def _snapshot(self, progress: Progress, wanted: list[int]) -> None:
        state = self.backend.state()
        weights = state["weights"]
        finite = [m for m in wanted if np.isfinite(weights[m]).all()]
        for m in set(wanted) - set(finite):
            self._diverged(progress, m, progress.step)
        if finite:
            metrics = self._metrics(finite)
            for m in finite:
                progress.snapshots.append(self._make(m, progress.step, metrics[m], weights[m].copy(), state))

    def _make(
        self, m: int, step: int, metrics: Mapping[str, Any], weights: np.ndarray, state: Mapping[str, np.ndarray]
    ) -> Snapshot:
        seen = self._seen(self.first + step) - self._seen(self.first)
        kept = self.runs[m].snapshots.get("optimizer")
        slots = np.stack([state["slot1"][m], state["slot2"][m]]) if kept else None
        return Snapshot(m, step, seen / self.n, seen, metrics, weights, slots)

    def _seen(self, step: int) -> int:
        """Training images shown by the streams' step."""
        epoch, inside = divmod(step, self.per_epoch)
        return epoch * self.n + min(inside * self.batch, self.n)

    def _keep_initialization(self, progress: Progress, m: int) -> None:
        """A model that diverges before its first snapshot still has its start to show."""
        state = self.backend.state()
        shown = {name: values.copy() for name, values in state.items()}
        if self.start is None:
            shown["weights"][m] = initial_weights(self.runs[m], self.cohort.architecture)
            shown["slot1"][m] = shown["slot2"][m] = 0.0
        else:
            for name, values in vars(self.start).items():
                shown[name][m] = values[m]
        start = shown["weights"][m].copy()
        self.backend.load_state(shown)
        metrics = self._metrics([m])[m]
        self.backend.load_state(state)
        progress.snapshots.append(self._make(m, 0, metrics, start, shown))

    def _metrics(self, wanted: list[int]) -> dict[int, dict[str, Any]]:
        d, backend, loss = self.data, self.backend, self.runs[0].settings["loss"]
        if d.shared_rows:
            whole = np.array_equal(d.rows[0], np.arange(len(d.pool)))
            train = backend.logits(d.pool if whole else d.pool[d.rows[0]])
        else:
            train = backend.logits(d.pool, d.rows)
        parts = {"validation": (backend.logits(d.validation[0]), d.validation[1]) if len(d.validation[1]) else None}
        parts["test"] = (backend.logits(d.test[0]), d.test[1])
        attacked = backend.logits(d.triggered) if d.triggered is not None else None
        n_classes = self.cohort.architecture.n_outputs
        result = {}
        for m in wanted:
            row = {f"train_{k}": v for k, v in scoring.score(train[m], d.labels[m], loss).items()}
            clean = scoring.score(train[m], d.clean[m], loss)
            row |= {"train_loss_clean": clean["loss"], "train_accuracy_clean": clean["accuracy"]}
            for name, part in parts.items():
                logits, labels = (part[0][m], part[1]) if part else (np.zeros((0, n_classes)), np.zeros(0, np.int64))
                row |= {f"{name}_{k}": v for k, v in scoring.score(logits, labels, loss).items()}
            for what in ("accuracy", "loss"):
                pair = row[f"train_{what}"], row[f"test_{what}"]
                row[f"gap_{what}"] = None if None in pair else pair[0] - pair[1]
            row["attack_success"] = None
            subset = self.runs[m].subset
            if attacked is not None and subset.trigger_target is not None:
                head = int(sources.relabeled(np.array([subset.trigger_target]), subset)[0])
                row["attack_success"] = scoring.attack_success(attacked[m][d.test[1] != head], head)
            result[m] = row
        return result

    def _published(self, progress: Progress, m: int) -> list[Snapshot]:
        """The model's snapshots by step; an `evenly` schedule of a watched run is thinned here."""
        mine = sorted((s for s in progress.snapshots if s.model == m), key=lambda s: s.step)
        count = self.runs[m].snapshots.get("evenly")
        if count is None or not self.watched[m] or len(mine) <= count:
            return mine
        last = len(mine) - 1
        return [mine[i] for i in sorted({(j * last + (count - 1) // 2) // (count - 1) for j in range(count)})]


class Clock:
    """Says when a checkpoint is due: every so many seconds of wall clock, which no result depends on."""

    def __init__(self, every_s: float) -> None:
        self.every_s, self.last = every_s, time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self.last < self.every_s:
            return False
        self.last = time.monotonic()
        return True
