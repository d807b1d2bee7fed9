"""A cohort and its source → snapshots: the training loop that all engines share.

In:  a cohort, its source, an opened backend.
Out: for each model its snapshots (step, weights, metrics) and how it ended. Models of different length, stop rule and schedule live in one cohort.

The loop walks from event to event (a snapshot, the end of an epoch, a stop check, a
checkpoint) and lets the backend take all steps in between. What it computes itself is
exact arithmetic, so that a result depends on the backend alone.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_builder.engines.contract import Backend, Window
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import StartState
from zoo_builder.planning.runs import ACCURACY_RULES, Run, watched
from zoo_builder.training import evaluation
from zoo_builder.training.inputs import Data, epoch_order, initial_weights
from zoo_builder.training.progress import Checkpoints, Progress, Snapshot
from zoo_builder.training.schedules import BiasCorrections, learning_rates
from zoo_builder.training.stop_rules import Trend
from zoo_datasets import sources
from zoo_datasets.core import meters


class Trainer:
    """One cohort under training. `run` is the loop; the rest are its sentences.

    `state` is what models with parents start from. Their own steps and epochs count from 0, and
    so does the schedule of the learning rate; their streams go on at `first`, where the parents' were.
    """

    def __init__(
        self, cohort: Cohort, source: sources.Source, data: Data, backend: Backend, state: StartState | None = None
    ) -> None:
        self.cohort, self.source, self.data, self.backend, self.start = cohort, source, data, backend, state
        self.first = cohort.stream_step
        self.n = cohort.n_train
        self.batch = cohort.batch_size
        self.per_epoch = cohort.steps_per_epoch
        self.total = cohort.steps
        self.runs = cohort.runs
        self.watched = [watched(r) for r in self.runs]
        # The loss that is worth a snapshot, of models that have one.
        targets = ((m, r.snapshots.target_loss) for m, r in enumerate(self.runs))
        self.awaiting = {m: target for m, target in targets if target is not None}
        self.trending = [any(r.settings.get(n) is not None for n in ACCURACY_RULES) for r in self.runs]
        self.thinned = [w and r.snapshots.kind == "evenly" for r, w in zip(self.runs, self.watched, strict=True)]
        self.bias_corrections = BiasCorrections()
        self.due = [self._due(r, t, w) for r, t, w in zip(self.runs, self.total, self.watched, strict=True)]
        self._in_order = [sorted(steps) for steps in self.due]

    def _due(self, run: Run, total: int, watched: bool) -> set[int]:
        return set(run.snapshots.steps(self.per_epoch, total, open_end=watched))

    def run(self, checkpoints: Checkpoints | None = None) -> tuple[list[Snapshot], list[dict[str, Any]]]:
        """Train to the end; snapshots in order of model and step, and each model's stop_reason and diverged_step."""
        progress = self._begin(checkpoints)
        while progress.active.any():
            self._advance_to(progress, self._next_event(progress))
            self._at_event(progress)
            self._tell(progress)
            if checkpoints is not None and progress.active.any() and checkpoints.due():
                checkpoints.save(self.backend.state(), progress)
        self._score_late(progress)
        ends = zip(progress.stop_reason, progress.diverged_step, strict=True)
        return (
            [progress.snapshots[i] for own in self._published(progress) for i in own],
            [{"stop_reason": reason, "diverged_step": step} for reason, step in ends],
        )

    def _tell(self, progress: Progress) -> None:
        """The steps that are done, of all models; of one that ended all of its budget."""
        left = sum(max(self.total[m] - progress.step, 0) for m in np.flatnonzero(progress.active))
        meters.tell(sum(self.total) - left)

    def _begin(self, checkpoints: Checkpoints | None) -> Progress:
        saved = checkpoints.load() if checkpoints is not None else None
        if saved is not None:
            self.backend.load_state(saved[0])
            return saved[1]
        self._load_start()
        count = len(self.runs)
        progress = Progress(
            0, np.ones(count, bool), [None] * count, [None] * count, [math.inf] * count, [0] * count, []
        )
        self._at_event(progress)
        return progress

    def _load_start(self) -> None:
        """What every model starts from, whatever the backend has done before."""
        self.backend.load_state(self._start(range(len(self.runs))))

    def _start(self, models: Sequence[int]) -> dict[str, np.ndarray]:
        """Their parents' state, or their initial weights and an optimizer that has seen nothing: each (k, P)."""
        if self.start is not None:
            state = {name: values[list(models)] for name, values in vars(self.start).items()}
        else:
            weights = np.stack([initial_weights(self.runs[m], self.cohort.architecture) for m in models])
            state = {"weights": weights, "slot1": np.zeros_like(weights), "slot2": np.zeros_like(weights)}
        for at, run in enumerate(self.runs[m] for m in models):
            if run.start is None or run.start.optimizer_sha256 is None:
                state["slot2"][at] = run.settings.get("squares_start") or 0.0
        return state

    def weights_after(self, steps: int) -> np.ndarray:
        """Weights (M, P) after so many steps from the start, without snapshots or stop rules."""
        self._load_start()
        active, step = np.ones(len(self.runs), bool), 0
        while step < steps:
            stop = min(steps, *self._epoch_ends(step))
            active &= np.isfinite(self._losses(step, stop, active)).all(axis=1)
            step = stop
        return self.backend.weights(range(len(self.runs)))

    # ── between events ──

    def _next_event(self, progress: Progress) -> int:
        step = progress.step
        stops = self._epoch_ends(step)
        for m in np.flatnonzero(progress.active):
            stops.append(self.total[m])
            own = self._in_order[m]
            stops += own[(at := bisect.bisect_right(own, step)) : at + 1]
        return min(stops)

    def _epoch_ends(self, step: int) -> list[int]:
        """The next end of an epoch: of the models' own, and of the streams', which draw batches per epoch."""
        return [(at // self.per_epoch + 1) * self.per_epoch - at + step for at in (step, self.first + step)]

    def _advance_to(self, progress: Progress, stop: int) -> None:
        first = progress.step
        losses = self._losses(first, stop, progress.active)
        for m in np.flatnonzero(progress.active & ~np.isfinite(losses).all(axis=1)):
            self._diverged(progress, int(m), first + int(np.argmin(np.isfinite(losses[m]))))
        progress.step = stop

    def _losses(self, first: int, stop: int, active: np.ndarray) -> np.ndarray:
        """Take the steps up to `stop`, which lies in the same epoch or at its end; their losses (M, T)."""
        count = stop - first
        epoch, offset = divmod(self.first + first, self.per_epoch)
        begin, end = offset * self.batch, min((offset + count) * self.batch, self.n)
        order = np.stack([self._order(m, epoch)[begin:end] for m in range(len(self.runs))])  # (M, n)
        sizes = np.full(count, self.batch, np.int64)
        sizes[-1] = end - begin - self.batch * (count - 1)
        lr = [learning_rates(r, first, count, self.per_epoch, t) for r, t in zip(self.runs, self.total, strict=True)]
        bias = np.stack([self.bias_corrections(r, first, count) for r in self.runs])  # (M, 2, T)
        return self.backend.advance(
            Window(
                self.first + first, sizes, np.take_along_axis(self.data.rows, order, 1), np.take_along_axis(self.data.labels, order, 1),
                np.stack(lr), bias[:, 0].copy(), bias[:, 1].copy(), active.copy(),
            )
        )  # fmt: skip

    def _order(self, model: int, epoch: int) -> np.ndarray:
        return epoch_order(self.runs[model], epoch, self.source, self.data.examples[model])

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
        check = [m for m in active if self._looks(progress, m)] if epoch >= 1 and not inside else []
        hit: set[int] = set()
        ends = {m: self._budget_name(m) for m in active if step >= self.total[m]}
        if check:
            found = self._validation(check, step)
            hit = {m for m in check if m not in progress.reached and found[m][0] <= self.awaiting.get(m, -math.inf)}
            progress.reached |= hit
            for m in (m for m in check if self.watched[m]):
                loss, share = found[m]
                reason = self._stop_rule(progress, m, epoch, loss) or (
                    self._trend_rule(progress, m, epoch, share) if self.trending[m] else None
                )
                if reason:
                    ends[m] = reason
        wanted = [m for m in active if step in self.due[m] or m in ends or m in hit]
        if wanted:
            self._snapshot(progress, wanted, ends)
        for m, reason in ends.items():
            if progress.active[m]:
                progress.active[m] = False
                progress.stop_reason[m] = reason

    def _looks(self, progress: Progress, m: int) -> bool:
        """Whether a model's validation loss is of use after an epoch."""
        return self.watched[m] or (m in self.awaiting and m not in progress.reached)

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

    def _trend_rule(self, progress: Progress, m: int, epoch: int, accuracy: float) -> str | None:
        s = self.runs[m].settings
        progress.trends[m] = progress.trends.get(m, Trend()).after(accuracy)
        return "early_stopping" if epoch >= s["min_epochs"] and progress.trends[m].ends(s) else None

    def _snapshot(self, progress: Progress, wanted: list[int], last: Collection[int]) -> None:
        """Publish the models wanted; those for which it is known to be the last time are scored in full."""
        weights = dict(zip(wanted, self.backend.weights(wanted), strict=True))  # each a row (P,) of its own
        finite = [m for m in wanted if np.isfinite(weights[m]).all()]
        for m in set(wanted) - set(finite):
            self._diverged(progress, m, progress.step)
        if finite:
            # Of an even schedule with an open end most are thinned out; which, shows at the end.
            now = [m for m in finite if m in last or not self.thinned[m]]
            metrics = self._metrics(dict.fromkeys(now, progress.step), thin=set(now) - set(last))
            state = self.backend.state() if any(map(self._keeps_slots, finite)) else {}
            for m in finite:
                progress.snapshots.append(self._make(m, progress.step, metrics.get(m), weights[m], state))

    def _keeps_slots(self, m: int) -> bool:
        return self.runs[m].snapshots.keep_optimizer

    def _make(
        self, m: int, step: int, metrics: Mapping[str, Any] | None, weights: np.ndarray, state: Mapping[str, np.ndarray]
    ) -> Snapshot:
        """A snapshot; of `state` only the optimizer's slots are looked at, where they are kept."""
        seen = self.cohort.seen(self.first + step) - self.cohort.seen(self.first)
        slots = np.stack([state["slot1"][m], state["slot2"][m]]) if self._keeps_slots(m) else None
        return Snapshot(m, step, seen / self.n, seen, metrics, weights, slots)

    def _keep_initialization(self, progress: Progress, m: int) -> None:
        """A model that diverges before its first snapshot still has its start to show."""
        state = self.backend.state()
        shown = {name: values.copy() for name, values in state.items()}
        for name, values in self._start([m]).items():
            shown[name][m] = values[0]
        start = shown["weights"][m].copy()
        self.backend.load_state(shown)
        metrics = self._metrics({m: 0})[m]
        self.backend.load_state(state)
        progress.snapshots.append(self._make(m, 0, metrics, start, shown))

    def _metrics(self, steps: Mapping[int, int], thin: Collection[int] = ()) -> dict[int, dict[str, Any]]:
        return evaluation.metrics(self.cohort, self.data, self.backend, steps, thin)

    def _validation(self, models: list[int], step: int) -> dict[int, tuple[float, float]]:
        return evaluation.validation(self.cohort, self.data, self.backend, models, step)

    def _score_late(self, progress: Progress) -> None:
        """Score what could not be in time: what an even schedule keeps, and in full the last of models that diverged."""
        late = [list(self._unscored(progress, m, own)) for m, own in enumerate(self._published(progress))]
        if not any(late):
            return
        state = self.backend.state()
        for place in range(max(map(len, late))):
            at = {m: some[place] for m, some in enumerate(late) if place < len(some)}
            for m, (i, _) in at.items():
                state["weights"][m] = progress.snapshots[i].weights
            self.backend.load_state(state)
            steps = {m: progress.snapshots[i].step for m, (i, _) in at.items()}
            for m, metrics in self._metrics(steps, thin=[m for m, (_, thin) in at.items() if thin]).items():
                i = at[m][0]
                progress.snapshots[i] = dataclasses.replace(progress.snapshots[i], metrics=metrics)

    def _unscored(self, progress: Progress, m: int, published: list[int]) -> Iterator[tuple[int, bool]]:
        """The published snapshots of a model that have no metrics yet, or too few; and whether few are enough."""
        diverged = progress.stop_reason[m] == "diverged" and bool(self.runs[m].snapshots.evaluation)
        for i in published:
            last = i == published[-1]
            if progress.snapshots[i].metrics is None or (last and diverged):
                yield i, not last

    def _published(self, progress: Progress) -> list[list[int]]:
        """Where each model's snapshots are, by step; an `evenly` schedule of a watched run is thinned here."""
        taken: list[list[int]] = [[] for _ in self.runs]
        for i in sorted(range(len(progress.snapshots)), key=lambda i: progress.snapshots[i].step):
            taken[progress.snapshots[i].model].append(i)
        return [
            [own[i] for i in run.snapshots.thinned(len(own))] if watched else own
            for run, own, watched in zip(self.runs, taken, self.watched, strict=True)
        ]
