"""Plan → what it will take, said before anybody pays: models, bytes, and time.

Time is measured: a few steps and one evaluation of a cohort of each kind, on this machine,
in this process.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
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
from zoo_builder.recipe.snapshots import SnapshotSchedule
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets.core.command import size
from zoo_datasets.core.meters import duration
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.operation import Node

STEPS = 8  # timed, after as many to warm up
MOST_TIMED = 4  # kinds of cohort that are timed; the rest go by the first
MOST_EVALUATED = 2000  # inputs that evaluation is timed on
MOST_BYTES = 1 << 30  # that timing may take
MOST_WORK = 2e11  # multiplications that timing may take: seconds


# What the number of updates depends on: the budget, and how many training inputs come in which batches.
_CHANGES_UPDATES = set(settings.feeding(Feeds.BUDGET, Feeds.BATCHES, Feeds.SOURCE, Feeds.EXAMPLES))


def describe(plan: Plan, workers: int | None) -> Iterator[str]:
    """Lines for the user, cheap facts first."""
    cohorts = plan.cohorts
    yield f"{len(plan.runs):,} models, {len(cohorts):,} cohorts, {_range({c.architecture.n_params for c in cohorts})} parameters each"
    schedules = _Schedules(plan.grid.snapshots)
    yield _sizes(plan, schedules)
    kinds = collections.Counter(f"{c.engine} on {c.device}" for c in cohorts)
    yield "engines: " + ", ".join(f"{name} ({n:,} cohorts)" for name, n in kinds.items())
    steps = {s for c in cohorts for s in c.steps}
    if len(steps) > 1:
        varied = [f"`{a}`" for a in plan.grid.axis_names if _CHANGES_UPDATES & set(settings.sets(a))]
        because = f", because {', '.join(varied)} changes them" if varied else ""
        yield f"warning: updates per model range from {_range(steps)}{because}; give the budget in `steps` to hold them equal"
    seconds = _seconds(plan, schedules)
    if seconds is None:
        yield "how long it takes is not known: one step of such a network is too much work to be timed here"
        return
    slots = workers if workers else devices.cores() if workers is None else 1
    yield f"about {duration(seconds / slots)} with {slots} worker{'s' if slots > 1 else ''} (measured over {2 * STEPS} steps)"


class _Schedules:
    """Cohort → the steps of its models' snapshots; few lengths of training are worked out for all of them."""

    def __init__(self, schedule: SnapshotSchedule) -> None:
        self.at = functools.lru_cache(maxsize=1024)(
            lambda per_epoch, total: frozenset(schedule.steps(per_epoch, total))
        )

    def taken(self, cohort: Cohort) -> int:
        """Snapshots of all its models."""
        return sum(len(self.at(cohort.steps_per_epoch, total)) for total in cohort.steps)

    def events(self, cohort: Cohort) -> int:
        """Steps at which some model has a snapshot."""
        return len(set().union(*(self.at(cohort.steps_per_epoch, total) for total in set(cohort.steps))))


def _range(numbers: set[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _sizes(plan: Plan, schedules: _Schedules) -> str:
    """Snapshots, and their bytes in the shards and in the table of models."""
    taken = {c.id: schedules.taken(c) for c in plan.cohorts}
    keeps = plan.grid.snapshots.keep_optimizer
    copies = 3 if keeps else 1  # weights, and the two slots of the optimizer
    stored = copies * sum(4 * c.architecture.n_params * taken[c.id] for c in plan.cohorts)
    published = sum(4 * c.architecture.n_params * len(c.runs) for c in plan.cohorts)
    what = "weights and optimizer state" if keeps else "weights"
    return f"{sum(taken.values()):,} snapshots, {size(stored)} of {what} and {size(published)} inline"


def _seconds(plan: Plan, schedules: _Schedules) -> float | None:
    """CPU time of the whole plan on one worker, from timing one cohort of each kind; None where one is too large for it."""
    groups: dict[tuple[str, str, int], list[Cohort]] = {}
    for c in plan.cohorts:
        groups.setdefault((c.engine, c.architecture.id, c.batch_size), []).append(c)
    rates: list[tuple[float, float]] = []
    total = 0.0
    for cohorts in groups.values():
        if len(rates) < MOST_TIMED:
            largest = max(cohorts, key=lambda c: len(c.runs))
            models = _affordable(largest, plan)
            if not models:
                return None
            rates.append(_time(dataclasses.replace(largest, runs=largest.runs[:models]), plan))
        per_step, per_input = rates[-1]
        for c in cohorts:
            source = plan.sources[c.runs[0].source]
            inputs = c.n_train + len(source.validation.labels) + len(source.test.labels)
            total += len(c.runs) * (per_step * max(c.steps, default=0) + per_input * inputs * schedules.events(c))
    return total


def _affordable(cohort: Cohort, plan: Plan) -> int:
    """How many of a cohort's models can be timed in a plan's memory and time."""
    source, arch = plan.sources[cohort.runs[0].source], cohort.architecture
    # Multiplications of one input, three times for forward and both halves of backward.
    work = sum(math.prod(n.shape) + _multiplications(arch, n) for n in arch.nodes)
    inputs = min(cohort.batch_size, cohort.n_train) * 2 * STEPS * 3 + MOST_EVALUATED
    outputs = sum(math.prod(n.shape) for n in arch.nodes)
    each = 4 * (6 * arch.n_params + outputs * min(cohort.batch_size, cohort.n_train) * 3) + 40 * cohort.n_train
    parts = (source.train, source.validation, source.test)
    shared = 4 * sum(math.prod(p.inputs.shape) for p in parts) + 4 * MOST_EVALUATED * max(
        math.prod(n.shape) for n in arch.nodes
    )
    return int(min(len(cohort.runs), max(0, MOST_BYTES - shared) // each, MOST_WORK // (work * inputs)))


def _multiplications(arch: Architecture, node: Node) -> int:
    """Those of the weights of a layer, each of which is used at every place of its output (of a sequence, step)."""
    weights = sum(e.size for e in arch.layout.of_node(node.name) if len(e.shape) > 1)
    return weights * (
        math.prod(node.shape[1:]) if len(node.shape) == 3 else node.shape[0] if len(node.shape) == 2 else 1
    )


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
    inputs = data.test.inputs[:MOST_EVALUATED]
    started = time.perf_counter()
    logits = backend.logits(inputs)
    per_input = (time.perf_counter() - started) / len(inputs) / width
    assert np.shape(logits)[0] == width
    return per_step, per_input
