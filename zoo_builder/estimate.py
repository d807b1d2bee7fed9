"""Plan → what it will take, said before anybody pays: models, bytes, and time.

Time is measured: a few steps and one evaluation of a cohort of each kind, on this machine,
in this process.
"""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Iterator

import numpy as np

from zoo_builder import engines
from zoo_builder.plan import Plan
from zoo_builder.planning import lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.schedules import snapshot_steps
from zoo_builder.training.trainer import Trainer

STEPS = 8  # timed, after as many to warm up
KINDS = 4  # at most so many kinds of cohort are timed; the rest go by the first


def describe(planned: Plan, workers: int | None) -> Iterator[str]:
    """Lines for the user, cheap facts first."""
    runs, made = planned.runs, planned.cohorts
    sizes = sorted({c.architecture.n_params for c in made})
    parameters = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    yield f"{len(runs):,} models, {len(made):,} cohorts, {parameters} parameters each"
    schedules = {c.id: _schedule(c) for c in made}
    snapshots = sum(sum(len(d) for d in s) for s in schedules.values())
    copies = 3 if planned.grid.snapshots.get("optimizer") else 1  # weights, and the two slots of the optimizer
    stored = copies * sum(len(d) * c.architecture.n_params * 4 for c in made for d in schedules[c.id])
    published = sum(c.architecture.n_params * 4 * len(c.runs) for c in made)
    yield f"{snapshots:,} snapshots, {_bytes(stored)} of weights{' and optimizer state' if copies > 1 else ''} and {_bytes(published)} inline"
    kinds = collections.Counter(f"{c.engine} on {c.device}" for c in made)
    yield "engines: " + ", ".join(f"{name} ({n:,} cohorts)" for name, n in kinds.items())
    steps = sorted({s for c in made for s in c.steps})
    if len(steps) > 1:
        varied = [a for a in planned.grid.axis_names if a in _CHANGES_UPDATES]
        yield (
            f"warning: updates per model range from {steps[0]:,} to {steps[-1]:,}"
            + (f", because {', '.join(f'`{a}`' for a in varied)} changes them" if varied else "")
            + "; give the budget in `steps` to hold them equal"
        )
    seconds = _seconds(planned, schedules)
    slots = workers if workers else len(os.sched_getaffinity(0)) if workers is None else 1
    yield f"about {_duration(seconds / slots)} with {slots} worker{'s' if slots > 1 else ''} (measured over {2 * STEPS} steps)"


_CHANGES_UPDATES = {"batch_size", "subset", "subset_frac", "subset_classes", "epochs", "steps", "examples", "source",
                    "source_train"}  # fmt: skip


def _schedule(cohort: Cohort) -> list[set[int]]:
    per_epoch = cohort.steps_per_epoch
    return [set(snapshot_steps(r.snapshots, per_epoch, t)) for r, t in zip(cohort.runs, cohort.steps, strict=True)]


def _seconds(planned: Plan, schedules: dict[str, list[set[int]]]) -> float:
    """CPU time of the whole plan on one worker, from timing one cohort of each kind."""
    groups: dict[tuple[str, str, int], list[Cohort]] = {}
    for c in planned.cohorts:
        groups.setdefault((c.engine, c.architecture.id, c.batch_size), []).append(c)
    rates: list[tuple[float, float]] = []
    total = 0.0
    for cohorts in groups.values():
        if len(rates) < KINDS:
            largest = max(cohorts, key=lambda c: len(c.runs))
            rates.append(_time(largest, planned))
        per_step, per_image = rates[-1]
        for c in cohorts:
            images = c.n_train + sum(len(p.labels) for p in (planned.sources[c.runs[0].source].validation,
                                                             planned.sources[c.runs[0].source].test))  # fmt: skip
            events = len(set().union(*schedules[c.id]))
            total += len(c.runs) * (per_step * max(c.steps, default=0) + per_image * images * events)
    return total


def _time(cohort: Cohort, planned: Plan) -> tuple[float, float]:
    """Seconds per model and step, and per model and evaluated image."""
    source = planned.sources[cohort.runs[0].source]
    data = data_of(cohort, source)
    state = lineage.load(planned.parents.root if planned.parents else None, [r.start for r in cohort.runs])
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data.pool, state), cohort.device)
    trainer, width = Trainer(cohort, source, data, backend, state), len(cohort.runs)
    steps = max(1, min(STEPS, cohort.steps_per_epoch // 2))
    trainer.weights_after(steps)
    started = time.perf_counter()
    trainer.weights_after(steps)
    per_step = (time.perf_counter() - started) / steps / width
    images = data.test.inputs[:2000]
    started = time.perf_counter()
    logits = backend.logits(images)
    per_image = (time.perf_counter() - started) / len(images) / width
    assert np.shape(logits)[0] == width
    return per_step, per_image


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(n: float) -> str:
    return f"{n / 1e6:.1f} MB" if n < 1e9 else f"{n / 1e9:.2f} GB"
