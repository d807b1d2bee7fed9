"""Plan → what it will take, said before anybody pays: models, bytes, and time.

Time is measured: a few steps and one evaluation of a cohort of each kind, on this machine,
in this process.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator

import numpy as np

from zoo_builder import engines
from zoo_builder.engines import devices
from zoo_builder.plan import Plan
from zoo_builder.planning import lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.recipe import settings
from zoo_builder.recipe.settings import Feeds
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets.core.command import size

STEPS = 8  # timed, after as many to warm up
MOST_TIMED = 4  # kinds of cohort that are timed; the rest go by the first


# What the number of updates depends on: the budget, and how many training inputs come in which batches.
_CHANGES_UPDATES = set(settings.feeding(Feeds.BUDGET, Feeds.BATCHES, Feeds.SOURCE, Feeds.EXAMPLES))


def describe(plan: Plan, workers: int | None) -> Iterator[str]:
    """Lines for the user, cheap facts first."""
    cohorts = plan.cohorts
    yield f"{len(plan.runs):,} models, {len(cohorts):,} cohorts, {_range({c.architecture.n_params for c in cohorts})} parameters each"
    schedules = {c.id: _schedule(c) for c in cohorts}
    yield _sizes(plan, schedules)
    kinds = collections.Counter(f"{c.engine} on {c.device}" for c in cohorts)
    yield "engines: " + ", ".join(f"{name} ({n:,} cohorts)" for name, n in kinds.items())
    steps = {s for c in cohorts for s in c.steps}
    if len(steps) > 1:
        varied = [f"`{a}`" for a in plan.grid.axis_names if _CHANGES_UPDATES & set(settings.sets(a))]
        because = f", because {', '.join(varied)} changes them" if varied else ""
        yield f"warning: updates per model range from {_range(steps)}{because}; give the budget in `steps` to hold them equal"
    seconds = _seconds(plan, schedules)
    slots = workers if workers else devices.cores() if workers is None else 1
    yield f"about {_duration(seconds / slots)} with {slots} worker{'s' if slots > 1 else ''} (measured over {2 * STEPS} steps)"


def _range(numbers: set[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _sizes(plan: Plan, schedules: dict[str, list[set[int]]]) -> str:
    """Snapshots, and their bytes in the shards and in the table of models."""
    taken = {c.id: sum(map(len, schedules[c.id])) for c in plan.cohorts}
    keeps = plan.grid.snapshots.keep_optimizer
    copies = 3 if keeps else 1  # weights, and the two slots of the optimizer
    stored = copies * sum(4 * c.architecture.n_params * taken[c.id] for c in plan.cohorts)
    published = sum(4 * c.architecture.n_params * len(c.runs) for c in plan.cohorts)
    what = "weights and optimizer state" if keeps else "weights"
    return f"{sum(taken.values()):,} snapshots, {size(stored)} of {what} and {size(published)} inline"


def _schedule(cohort: Cohort) -> list[set[int]]:
    """The steps of each model's snapshots."""
    per_epoch = cohort.steps_per_epoch
    return [set(r.snapshots.steps(per_epoch, t)) for r, t in zip(cohort.runs, cohort.steps, strict=True)]


def _seconds(plan: Plan, schedules: dict[str, list[set[int]]]) -> float:
    """CPU time of the whole plan on one worker, from timing one cohort of each kind."""
    groups: dict[tuple[str, str, int], list[Cohort]] = {}
    for c in plan.cohorts:
        groups.setdefault((c.engine, c.architecture.id, c.batch_size), []).append(c)
    rates: list[tuple[float, float]] = []
    total = 0.0
    for cohorts in groups.values():
        if len(rates) < MOST_TIMED:
            largest = max(cohorts, key=lambda c: len(c.runs))
            rates.append(_time(largest, plan))
        per_step, per_input = rates[-1]
        for c in cohorts:
            source = plan.sources[c.runs[0].source]
            inputs = c.n_train + len(source.validation.labels) + len(source.test.labels)
            events = len(set().union(*schedules[c.id]))
            total += len(c.runs) * (per_step * max(c.steps, default=0) + per_input * inputs * events)
    return total


def _time(cohort: Cohort, plan: Plan) -> tuple[float, float]:
    """Seconds per model and step, and per model and evaluated input."""
    source = plan.sources[cohort.runs[0].source]
    data = data_of(cohort, source)
    state = lineage.load(plan.parents.root if plan.parents else None, [r.start for r in cohort.runs])
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data.pool, state), cohort.device)
    trainer, width = Trainer(cohort, source, data, backend, state), len(cohort.runs)
    steps = max(1, min(STEPS, cohort.steps_per_epoch // 2))
    trainer.weights_after(steps)
    started = time.perf_counter()
    trainer.weights_after(steps)
    per_step = (time.perf_counter() - started) / steps / width
    inputs = data.test.inputs[:2000]
    started = time.perf_counter()
    logits = backend.logits(inputs)
    per_input = (time.perf_counter() - started) / len(inputs) / width
    assert np.shape(logits)[0] == width
    return per_step, per_input


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
