"""Plan → what it will take, said before anybody pays: models, bytes, and time.

Time is measured in this process, on CPUs by what it takes of them: the preparation of a cohort, a few steps, and
evaluations, for as many kinds of cohort as some seconds allow; the others lie between those by the work of a step.
What is the same for all, the start of Ray and sealing, is an allowance of seconds; `benchmarks/plan.py` compares
what was said with what a build took.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zoo_builder import engines
from zoo_builder.engines import devices, gpu_memory
from zoo_builder.plan import Plan
from zoo_builder.planning import lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import watched
from zoo_builder.recipe import levels, settings
from zoo_builder.recipe.settings import Feeds
from zoo_builder.recipe.snapshots import SnapshotSchedule
from zoo_builder.training import evaluation
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets.core import streams
from zoo_datasets.core.command import size
from zoo_datasets.core.meters import duration
from zoo_datasets.format import writer
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.operation import Node
from zoo_datasets.sources.measured import Measured

STEPS, REPEATS = 32, 3  # in a window that is timed; and how often, after one that warms up
MOST_SAID = 4  # kinds of networks whose memory on a GPU is said
MOST_S = 4.0  # of timing; kinds of cohort that do not come up go by their neighbors
WIDTH = 4  # models that `native` is timed with, which trains them one after another
FEW_EVALUATED, MOST_EVALUATED = 50, 2000  # inputs of a part that evaluation is timed on: what each takes, and the rest
# Steps and inputs that are timed of networks: as many as `MOST_WORK` allows, so that of large ones something is known.
TIMED = ((STEPS, MOST_EVALUATED), (8, 400), (2, 100), (1, 100))
# CPU seconds on one core of an EPYC, by benchmarks/plan.py.
RAY_S, WORKER_S = 4.0, 3.0  # Ray's start; a worker's, which imports torch
COHORT_S = 0.02  # to hand one over, write its part and commit it
SEAL_S, SEAL_MODEL_S, SEAL_SNAPSHOT_S = 0.5, 0.0006, 0.00012
MOST_BYTES = 1 << 30  # that timing may take
MOST_WORK = 2e11  # multiplications that timing may take: seconds


# What the number of updates depends on: the budget, and how many training inputs come in which batches.
_CHANGES_UPDATES = set(settings.feeding(Feeds.BUDGET, Feeds.BATCHES, Feeds.SOURCE, Feeds.EXAMPLES))


def _changes(plan: Plan, axis: str) -> bool:
    """Whether networks that differ along this axis alone differ in their number of updates."""
    seen: dict[str, list[int]] = {}
    for cohort in plan.cohorts:
        for run, steps in zip(cohort.runs, cohort.steps, strict=True):
            rest = {k: v for k, v in run.axes.items() if k != axis}
            seen.setdefault(streams.canonical_json([rest, dict(run.replicate)]), []).append(steps)
    alike = [steps for steps in seen.values() if len(steps) > 1]
    return not alike or any(len(set(steps)) > 1 for steps in alike)  # of what is drawn no two networks share the rest


def describe(plan: Plan, workers: int | None) -> Iterator[str]:
    """Lines for the user, cheap facts first."""
    cohorts = plan.cohorts
    yield f"{len(plan.runs):,} models, {len(cohorts):,} cohorts, {_range({c.architecture.n_params for c in cohorts})} parameters each"
    schedules = _Schedules(plan.grid.snapshots)
    yield _sizes(plan, schedules)
    kinds = collections.Counter(f"{c.engine} on {c.device}" for c in cohorts)
    yield "engines: " + ", ".join(f"{name} ({n:,} cohorts)" for name, n in kinds.items())
    yield from _on_gpus(cohorts)
    steps = {s for c in cohorts for s in c.steps}
    if len(steps) > 1:
        varied = [a for a in plan.grid.axis_names if _CHANGES_UPDATES & set(settings.sets(a)) and _changes(plan, a)]
        because = f", because {', '.join(f'`{a}`' for a in varied)} changes them" if varied else ""
        budgets = set(settings.feeding(Feeds.BUDGET))
        way_out = "" if set(varied) & budgets else "; give the budget in `steps` to hold them equal"
        yield f"warning: updates per model range from {_range(steps)}{because}{way_out}"
    slots = min(workers or (devices.cores() if workers is None else 1), len(cohorts))
    seconds = _seconds(plan, schedules, slots, on_ray=workers != 0)
    if seconds is None:
        yield "how long it takes is not known: one step of such a network is too much work to be timed here"
        return
    yield f"about {duration(seconds)} with {slots} worker{'s' if slots > 1 else ''} (measured on this machine)"


def _on_gpus(cohorts: Sequence[Cohort]) -> Iterator[str]:
    """How many models step side by side on a GPU, for each kind of them, and what they take of its memory."""
    # Networks that differ in an activation alone take the same.
    kinds = {(c.architecture.layout_id, c.batch_size): c for c in cohorts if c.device == "cuda"}
    for c in list(kinds.values())[:MOST_SAID]:
        models = max(len(o.runs) for o in cohorts if o.architecture.layout_id == c.architecture.layout_id)
        each = gpu_memory.per_model(c.architecture, c.batch_size)
        text = f"GPU: {size(each)} for each model in batches of {c.batch_size:,}"
        if (whole := gpu_memory.total()) is None:
            yield f"{text}; how many fit is known on the workers"
        else:
            fitting = min(models, gpu_memory.width(c.architecture, c.batch_size, whole))
            yield f"{text}, {fitting:,} side by side of {models:,} in a cohort ({size(whole)} of memory, a quarter of it used)"
    if len(kinds) > MOST_SAID:
        yield f"GPU: {len(kinds) - MOST_SAID} more kinds of networks"


class _Schedules:
    """Cohort → the steps of its models' snapshots; few lengths of training are worked out for all of them."""

    def __init__(self, schedule: SnapshotSchedule) -> None:
        self.at = functools.lru_cache(maxsize=1024)(
            lambda per_epoch, total, open_end: frozenset(schedule.kept(per_epoch, total, open_end=open_end))
        )

    def taken(self, cohort: Cohort) -> int:
        """Snapshots of all its models."""
        return sum(len(self.at(cohort.steps_per_epoch, *own)) for own in self._ends(cohort))

    def events(self, cohort: Cohort) -> int:
        """Steps at which some model has a snapshot."""
        return len(set().union(*(self.at(cohort.steps_per_epoch, *own) for own in set(self._ends(cohort)))))

    def _ends(self, cohort: Cohort) -> list[tuple[int, bool]]:
        """Of each model its updates, and whether a rule may end it before."""
        return [(total, watched(run)) for run, total in zip(cohort.runs, cohort.steps, strict=True)]


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
    inline = f"{size(published)} inline" if published <= writer.MOST_INLINE_BYTES else "none inline"
    return f"{sum(taken.values()):,} snapshots, {size(stored)} of {what} and {inline}"


def _seconds(plan: Plan, schedules: _Schedules, slots: int, on_ray: bool) -> float | None:
    """Seconds of the whole plan with so many workers; None where one step of a network is too much to be timed."""
    costs = _costs(plan)
    if costs is None:
        return None
    free = [0.0] * slots  # when each worker has nothing left to do
    snapshots = 0
    for c in plan.cohorts:
        source, thin = plan.sources[c.runs[0].source], dict(c.runs[0].snapshots.evaluation)
        images = {"train": c.n_train, "validation": len(source.validation.labels), "test": len(source.test.labels)}
        some, events = sum(min(thin.get(part, n), n) for part, n in images.items()), schedules.events(c)
        shown = sum(images.values()) + (events - 1) * some  # the last snapshot is scored in full
        if any(map(watched, c.runs)):  # rules look at validation at the end of each epoch
            shown += max(c.steps) // c.steps_per_epoch * images["validation"]
        heapq.heapreplace(free, free[0] + costs[_kind(c)].of(c, shown, events))
        snapshots += schedules.taken(c)
    started = RAY_S + WORKER_S if on_ray else 0.0
    return started + max(free) + SEAL_S + SEAL_SNAPSHOT_S * snapshots + len(plan.runs) * SEAL_MODEL_S


Kind = tuple[str, str, int, str, str]


def _kind(c: Cohort) -> Kind:
    """Equal of cohorts whose steps take equally long."""
    given = c.runs[0].settings
    augmented = levels.label("augmentation", given)
    augmented += "".join(f", {name}" for name in settings.feeding(Feeds.EVALUATION) if given.get(name))
    return c.engine, c.architecture.id, c.batch_size, c.source_sha256, augmented


@dataclasses.dataclass(frozen=True)
class _Cost:
    """Seconds of a kind of cohort, whose models are trained one after another or side by side."""

    fixed: float  # of a cohort: its images and its engine
    model: float  # of a model: its examples and initial weights
    window: float  # of a model and window of steps: the order of its images
    step: float  # of a model and update
    event: float  # of a model and moment at which snapshots are taken
    image: float  # of a model and image evaluated

    def of(self, c: Cohort, images: int, events: int) -> float:
        """Seconds of a cohort that evaluates so many images of each model, at so many moments in all."""
        steps = max(c.steps, default=0)
        windows = steps / c.steps_per_epoch + events  # they end with epochs and at snapshots, often both
        each = self.model + windows * self.window + steps * self.step + events * self.event + images * self.image
        return self.fixed + COHORT_S + len(c.runs) * each


def _costs(plan: Plan) -> dict[Kind, _Cost] | None:
    """The cost of every kind: of some timed, of those between them by the work of a step. None where that cannot be timed here."""
    if not all(devices.here(c.device) for c in plan.cohorts):
        return None
    largest: dict[Kind, Cohort] = {}
    for c in plan.cohorts:
        known = largest.get(_kind(c))
        if known is None or len(c.runs) > len(known.runs):
            largest[_kind(c)] = c
    kinds = sorted(largest, key=lambda kind: (_family(kind), _work(largest[kind].architecture) * kind[2]))
    timed: dict[Kind, _Cost] = {}
    started = time.perf_counter()
    for kind in _spread(kinds):
        if time.perf_counter() - started > MOST_S and _family(kind) in map(_family, timed):
            continue
        c = largest[kind]
        width = len(c.runs) if kind[0] != "native" or len(c.runs) < WIDTH else WIDTH
        found = next(((min(n, width), *t) for t in TIMED if (n := _affordable(c, plan, *t))), None)
        if found is None:
            return None
        timed[kind] = _time(dataclasses.replace(c, runs=c.runs[: found[0]]), plan, *found[1:])
    return {kind: timed.get(kind) or _between(kind, largest, timed) for kind in kinds}


def _family(kind: Kind) -> tuple[str, str]:
    """Engine and augmentation: a step of one says nothing of another's."""
    return kind[0], kind[4]


def _spread(kinds: list[Kind]) -> list[Kind]:
    """In an order of which every beginning lies evenly over all of them: ends, middle, quarters, …"""
    if not kinds:
        return []
    last = len(kinds) - 1
    places = [0, last, *(last * odd // 2**level for level in range(1, 12) for odd in range(1, 2**level, 2))]
    return [kinds[at] for at in dict.fromkeys([*places, *range(len(kinds))])]


def _between(kind: Kind, largest: dict[Kind, Cohort], timed: dict[Kind, _Cost]) -> _Cost:
    """Between those of more and of less work that were timed, each time by the logarithms of both; beyond them as the work."""
    near = sorted(
        (k for k in timed if _family(k) == _family(kind)), key=lambda k: _work(largest[k].architecture) * k[2]
    )

    def at(field: str, batched: bool) -> float:
        def size(k: Kind) -> float:
            return math.log(_work(largest[k].architecture) * (k[2] if batched else 1))

        points = sorted((size(k), math.log(max(getattr(timed[k], field), 1e-9))) for k in near)
        sizes, costs = (list(values) for values in zip(*points, strict=True))
        beyond = size(kind) - float(np.clip(size(kind), sizes[0], sizes[-1])) if field in ("step", "image") else 0.0
        return math.exp(float(np.interp(size(kind), sizes, costs)) + beyond)

    return _Cost(**{f.name: at(f.name, f.name == "step") for f in dataclasses.fields(_Cost)})


def _work(arch: Architecture) -> int:
    """Multiplications of one input, and what every node makes of it."""
    return sum(math.prod(n.shape) + _multiplications(arch, n) for n in arch.nodes)


def _affordable(cohort: Cohort, plan: Plan, steps: int, evaluated: int) -> int:
    """How many of a cohort's models can be timed, in so many steps and on so many inputs, in a plan's memory and time."""
    source, arch = plan.sources[cohort.runs[0].source], cohort.architecture
    work = _work(arch)  # of an update three times: forward, and both halves of backward
    inputs = min(cohort.batch_size, cohort.n_train) * (1 + REPEATS) * (1 + steps) * 3 + (1 + REPEATS) * 3 * evaluated
    outputs = sum(math.prod(n.shape) for n in arch.nodes)
    each = 4 * (6 * arch.n_params + outputs * min(cohort.batch_size, cohort.n_train) * 3) + 40 * cohort.n_train
    parts = (source.train, source.validation, source.test)
    shared = 4 * sum(math.prod(p.inputs.shape) for p in parts) + 4 * evaluated * max(
        math.prod(n.shape) for n in arch.nodes
    )
    return int(min(len(cohort.runs), max(0, MOST_BYTES - shared) // each, MOST_WORK // (work * inputs)))


def _multiplications(arch: Architecture, node: Node) -> int:
    """Those of the weights of a layer, each of which is used at every place of its output (of a sequence, step)."""
    weights = sum(e.size for e in arch.layout.of_node(node.name) if len(e.shape) > 1)
    return weights * (
        math.prod(node.shape[1:]) if len(node.shape) == 3 else node.shape[0] if len(node.shape) == 2 else 1
    )


def _time(cohort: Cohort, plan: Plan, most_steps: int, evaluated: int) -> _Cost:
    """What a cohort takes, from a few of its steps and snapshots."""
    source, width = plan.sources[cohort.runs[0].source], len(cohort.runs)
    clock = time.process_time if cohort.device == "cpu" else time.perf_counter

    def prepared(some: Cohort) -> tuple[float, Trainer]:
        started = clock()
        data = data_of(some, source)
        state = lineage.load(plan.parents.root if plan.parents else None, [r.start for r in some.runs])
        backend = engines.open_backend(some.engine, job_of(some, source, data, state), some.device)
        return clock() - started, Trainer(some, source, data, backend, state)

    for _ in range(2):  # the first of a kind compiles and loads
        alone, _ = prepared(dataclasses.replace(cohort, runs=cohort.runs[:1]))
    together, trainer = prepared(cohort)
    model = max(together - alone, 0.0) / (width - 1) if width > 1 else 0.0
    trainer._load_start()
    steps = min(most_steps, cohort.steps_per_epoch, max(cohort.steps, default=0))
    active = np.ones(width, bool)

    def window(n: int) -> float:
        return _least(lambda: trainer._losses(0, n, active), clock) / width

    one, all_steps = (window(1), window(steps)) if steps else (0.0, 0.0)
    step = max(all_steps - one, 0.0) / (steps - 1) if steps > 1 else one
    few, many = (_evaluated(trainer, n, clock) for n in (FEW_EVALUATED, evaluated))
    image = max(many[0] - few[0], 0.0) / max(many[1] - few[1], 1) / width
    event = max(few[0] / width - few[1] * image, 0.0)
    return _Cost(max(alone - model, 0.0), model, max(one - step, 0.0), step, event, image)


def _least(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of a call, the least of three after one that warms up: what else runs only makes it longer."""
    took = []
    for _ in range(1 + REPEATS):
        started = clock()
        call()
        took.append(clock() - started)
    return min(took[1:])


def _evaluated(trainer: Trainer, most: int, clock: Callable[[], float]) -> tuple[float, int]:
    """Seconds of the metrics of all models on at most so many images of each part, and how many they were."""
    data = trainer.data
    shown: dict[str, Any] = {
        part: Measured(*(values[:most] for values in getattr(data, part)))
        for part in ("validation", "test", "attack") if getattr(data, part) is not None
    }  # fmt: skip
    training: dict[str, Any] = {name: getattr(data, name)[:, :most] for name in ("rows", "labels", "clean")}
    less = dataclasses.replace(data, **shown, **training)
    everyone = dict.fromkeys(range(len(trainer.runs)), 0)
    took = _least(lambda: evaluation.metrics(trainer.cohort, less, trainer.backend, everyone), clock)
    return took, training["rows"].shape[1] + sum(len(m.labels) for m in shown.values())
