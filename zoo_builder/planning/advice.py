"""A plan → what its author may not have meant, as sentences; none of it is a mistake by itself.

In:  the recipe, its runs, cohorts, sources and parents.
Out: sentences: a sample that has fewer points than were asked for, snapshots that are never taken, stop rules that stop none,
     networks that are trained twice, children that are not what their parents were, sides of the split that are far from their shares.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_builder.grid import Grid
from zoo_builder.planning import runs as planned
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import Parents
from zoo_builder.planning.runs import ACCURACY_RULES, STOP_RULES, Run
from zoo_builder.recipe import settings
from zoo_builder.recipe.axes import Axis, Draw, extremes
from zoo_builder.recipe.conflicts import TAKEN_BY_LAYERS
from zoo_builder.recipe.generated import takes
from zoo_builder.recipe.snapshots import SnapshotSchedule
from zoo_datasets import sources
from zoo_datasets.core import streams
from zoo_datasets.errors import MOST_ALTERNATIVES

# Settings that a pattern needs, and a pattern a trigger: networks without one keep them, for their ids were made so.
OF_RANDOM_TRIGGERS = tuple(
    s.name for s in settings.SETTINGS.values() if s.needs is not None and s.needs.setting == "trigger_pattern"
)
MANY_CLASSES = 20  # below, a source may be that small
MOST_OFF = 0.1  # of all networks: a side that has so many more or fewer than its share


def of(
    recipe: Grid, models: Sequence[Run], cohorts: Sequence[Cohort], learned: Iterable[sources.Source],
    parents: Parents | None,
) -> Iterator[str]:  # fmt: skip
    """The sentences, each of them once or more."""
    asked = planned.count(recipe, parents)
    if recipe.sample_points and recipe.limit is None and len(models) < asked:
        yield f"the sample asks for {asked} models, but only {len(models)} of its points differ"
    learned = list(learned)
    for source in learned:
        yield from source.notes
        yield from _hardly_classes(source)
    # All cohorts have the recipe's schedule.
    lengths = {(c.steps_per_epoch, max(c.steps), any(map(planned.watched, c.runs))) for c in cohorts}
    for length in sorted(lengths):
        yield from _not_taken(recipe.snapshots, *length)
    yield from _never_stopped(cohorts)
    yield from _stopped_by_others(models)
    yield from _by_place(models, learned)
    yield from _no_attacks(recipe, models)
    yield from _alike(recipe, models)
    yield from _no_twins(recipe)
    if parents is None:
        yield from _sides(recipe, models)
        return
    if (wanted := recipe.fixed["init_models"] or 0) > len(parents.rows):
        yield f"`init.models` is {wanted:,}, and {parents.zoo} has {len(parents.rows):,}: all of them go on"
    if recipe.fixed["init_optimizer"] is None and "init_optimizer" not in recipe.axis_names:
        if any(r.settings["init_optimizer"] == "reset" for r in models):
            yield f"runs start with fresh optimizer moments: {parents.zoo} kept none"
    yield from _unlike_parents(recipe, models, parents)
    yield from _other_data(cohorts, parents)
    if recipe.seed and not recipe.draws:
        yield (
            f"`seed: {recipe.seed}` changes nothing: children go on in the random streams of their parents, and repeats are drawn from these; "
            "`replicates: {order: N}` gives more of them"
        )
    yield from _same_start(models)


def _hardly_classes(source: sources.Source) -> Iterator[str]:
    if source.n_classes >= MANY_CLASSES and source.output_steps is None:
        each = np.bincount(source.train.labels, minlength=source.n_classes)
        if np.median(each) <= 1:
            yield f"{source.spec.id} has {source.n_classes:,} classes, and most of them have one training example or none: is its label a class?"


def _not_taken(schedule: SnapshotSchedule, steps_per_epoch: int, steps: int, open_end: bool) -> Iterator[str]:
    """Where a schedule asks for snapshots after the end of training, or for more than there are steps to tell apart."""
    if late := schedule.beyond(steps_per_epoch, steps):
        more = f" and {len(late) - MOST_ALTERNATIVES} more" if len(late) > MOST_ALTERNATIVES else ""
        shown = ", ".join(f"{n:g}" for n in late[:MOST_ALTERNATIVES])
        yield f"snapshots at {schedule.kind} {shown}{more} are after the end of training; not taken"
    if (found := len(schedule.kept(steps_per_epoch, steps, open_end=open_end))) < schedule.count:
        ends = (
            ": a stop rule may end training, so that they lie at ends of epochs"
            if open_end and schedule.kind == "evenly"
            else ""
        )
        yield f"`{schedule.kind}` asks for {schedule.count} snapshots, and within {steps:,} updates these are {found} different ones{ends}"


def _never_stopped(cohorts: Sequence[Cohort]) -> Iterator[str]:
    """Stop rules that no network trains long enough for: they look at ends of epochs, at the first one for what others are compared with."""
    budgets = [(run, steps / c.steps_per_epoch) for c in cohorts for run, steps in zip(c.runs, c.steps, strict=True)]
    for name, more in {"min_epochs": 0, "patience": 1, **dict.fromkeys(ACCURACY_RULES, 1)}.items():
        asked = [(run.settings[name], epochs) for run, epochs in budgets if run.settings.get(name)]
        if asked and all(needed + more >= epochs for needed, epochs in asked):
            least, longest = min(n for n, _ in asked), max(epochs for _, epochs in asked)
            yield f"`{name}` is {least}, and training ends after {longest:.3g} epochs: no network is stopped before"


def _stopped_by_others(models: Sequence[Run]) -> Iterator[str]:
    """Stop rules of networks that keep the outputs of classes which they do not learn: validation is of all of them."""
    some = [r for r in models if (r.subset.classes or r.subset.class_names) and not r.subset.relabel]
    for name in STOP_RULES:
        if stopped := sum(r.settings.get(name) is not None for r in some):
            yield (
                f"`{name}` looks at validation examples of all classes, and {stopped:,} networks learn some of these alone: they may be "
                "stopped by what they never see; `relabel: true` leaves the others out"
            )


def _by_place(models: Sequence[Run], learned: Iterable[sources.Source]) -> Iterator[str]:
    """Settings that number classes, of sources whose classes are named by other numbers."""
    for source in learned:
        names = source.class_names
        if not all(n.lstrip("-").isdecimal() for n in names) or all(n == str(i) for i, n in enumerate(names)):
            continue
        own = [r.subset for r in models if r.source == source.spec]
        for setting in ("classes", "trigger_target", "trigger_source"):
            values = {getattr(s, setting) for s in own if setting == "classes" or s.trigger_frac} - {None}
            if values:
                value = min(values, key=str)
                places = value if isinstance(value, tuple) else (value,)
                meant = ", ".join(names[p] for p in places if p < len(names))
                yield (
                    f"`{setting}: {list(value) if isinstance(value, tuple) else value}` are places among the classes of {source.spec.id} "
                    f"({', '.join(names[:MOST_ALTERNATIVES])}{', …' if len(names) > MOST_ALTERNATIVES else ''}), from 0 on: {meant}"
                    + ("; `class_names` takes their names" if setting == "classes" else "")
                )


def _no_attacks(recipe: Grid, models: Sequence[Run]) -> Iterator[str]:
    if recipe.snapshots.attack_per_class and not any(run.settings.get("trigger_frac") for run in models):
        yield "`attack_per_class` counts attacks by a trigger, and no network learns one: its columns will be empty"


# What takes a setting of networks, where it is not called so.
TAKEN = {**{name: name for name in TAKEN_BY_LAYERS}, "norm_scale_std": "batch_norm"}


def _alike(recipe: Grid, models: Sequence[Run]) -> Iterator[str]:
    """Networks that differ in a setting which means nothing to them, and in nothing else: none of their layers takes it, or no trigger."""
    for name in (*TAKEN, *OF_RANDOM_TRIGGERS):
        axis = next((a for a in recipe.axis_names if name in settings.sets(a)), None)
        if axis is None:
            continue
        taken = _taker(TAKEN[name]) if name in TAKEN else _has_trigger
        seen, labeled = collections.Counter[str](), collections.Counter[str]()
        for run in models:
            if not taken(run):
                own, start = _without(run.settings, (name,)), None if run.start is None else run.start.identity
                seen[streams.canonical_json([dict(run.keys), start, own])] += 1
                labeled[streams.canonical_json([dict(run.replicate), start, own])] += 1
        twice = sum(n - 1 for n in seen.values())
        drawn = sum(n - 1 for n in labeled.values()) - twice
        lack = f"layer that takes `{name}`" if name in TAKEN else "trigger"
        remedy = (
            "build their architecture by a recipe of its own"
            if name in TAKEN
            else f"vary `{name}` in a recipe without clean networks"
        )
        if twice:
            yield (
                f"{twice:,} models are trained again, alike: they have no {lack}, and differ from others along the axis `{axis}` alone; to "
                f"leave them out, {remedy}"
            )
        if drawn:
            yield (
                f"{drawn:,} models differ from others by draws alone: they have no {lack}, and the axis `{axis}` tells them apart; to leave them "
                f"out, {remedy}"
            )


def _no_twins(recipe: Grid) -> Iterator[str]:
    """Axes that mean nothing at some level of a paired one and are not paired with it: those without are no twins of the others."""
    axes: dict[str, Axis | Draw] = {**{a.name: a for a in recipe.axes}, **{d.name: d for d in recipe.draws}}
    for name in axes:
        needs = settings.SETTINGS[name].needs if name in settings.SETTINGS and name not in recipe.paired else None
        if needs is None:
            continue
        for paired in (axes[p] for p in recipe.paired if p in axes):
            values = [v[needs.setting] for v in extremes(paired) if needs.setting in v]
            values += [recipe.twin[needs.setting]] if values and needs.setting in recipe.twin else []
            if len(set(map(needs.met_by, values))) == 2:
                yield (
                    f"`{name}` means nothing at some levels of `{paired.name}`, which is paired: networks there are no twins of the others; "
                    f"write `paired: [{', '.join([*recipe.paired, name])}]`"
                )


def _taker(name: str) -> Any:
    known: dict[str, bool] = {}

    def taken(run: Run) -> bool:
        key = streams.canonical_json({k: v for k, v in run.settings.items() if k in ARCHITECTURE})
        if key not in known:
            known[key] = takes(run.settings, name)
        return known[key]

    return taken


def _has_trigger(run: Run) -> bool:
    return bool(run.settings.get("trigger_frac"))


ARCHITECTURE = settings.feeding(settings.Feeds.ARCHITECTURE)


def _sides(recipe: Grid, models: Sequence[Run]) -> Iterator[str]:
    """Shares are of init groups; where these differ in size, a side may have many more networks, or hardly any."""
    counts = collections.Counter(r.split for r in models)
    groups = {r.init_group for r in models}
    off = any(abs(counts[s] / len(models) - share) > MOST_OFF for s, share in recipe.splits.items())
    if (
        off
        and len(groups) >= 2 * len(recipe.splits)
        and len({*collections.Counter(r.init_group for r in models).values()}) > 1
    ):
        shown = ", ".join(f"{s} {counts[s]:,} ({share:.0%} asked)" for s, share in recipe.splits.items())
        yield f"splits are shares of {len(groups):,} init groups, which differ in size: of {len(models):,} networks {shown}"


def _unlike_parents(recipe: Grid, models: Sequence[Run], parents: Parents) -> Iterator[str]:
    """Settings that children have by default, and their parents otherwise: nobody asked for the change."""
    rows = {row["model_id"]: row for row in parents.rows}
    said: dict[str, list[Any]] = {}
    varied = set(itertools.chain.from_iterable(settings.sets(a) for a in recipe.axis_names))
    left = {n: settings.DEFAULTS[n] for n in settings.KEPT_BY if n not in varied and not _is_given(recipe, n)}
    left = {name: default for name, default in left.items() if default is not None}
    for run in models:
        row = rows[run.start.model_id] if run.start is not None else {}
        for name, default in left.items():
            value = row.get(name)
            if value is not None and value != default and run.settings.get(name, default) == default:
                said.setdefault(name, []).append(value)
    for name, values in said.items():
        seen = ", ".join(sorted(set(map(str, values)))[:3])
        yield (
            f"`{name}` is {settings.DEFAULTS[name]}, the default, in {len(values):,} children, and was {seen} in their parents; "
            f"`init: {{keep: [{settings.KEPT_BY[name]}]}}` keeps it"
        )


def _other_data(cohorts: Sequence[Cohort], parents: Parents) -> Iterator[str]:
    """Children of a source that is called as their parents' is, and is other data."""
    rows = {row["model_id"]: row for row in parents.rows}
    found = collections.Counter(
        run.source.id
        for cohort in cohorts
        for run in cohort.runs
        if run.start is not None
        and rows[run.start.model_id].get("source") == run.source.id
        and rows[run.start.model_id].get("source_sha256") != cohort.source_sha256
    )
    for source, n in found.items():
        yield f"{n:,} children learn other data than their parents did, which is called {source} too (or other parts of it)"


def _is_given(recipe: Grid, name: str) -> bool:
    """Whether the recipe says a setting, be it the default."""
    block: Any = recipe.document
    for key in settings.SETTINGS[name].path.split("."):
        block = block.get(key) if isinstance(block, Mapping) else None
    return block is not None


def _same_start(models: Sequence[Run]) -> Iterator[str]:
    """Children that differ by the name of their start alone."""
    named = ("init_epoch", "init_step", "init_snapshot")
    seen = collections.Counter(
        streams.canonical_json([r.start.identity, dict(r.keys), _without(r.settings, named)])
        for r in models
        if r.start is not None
    )
    if twice := sum(n - 1 for n in seen.values()):
        yield (
            f"{twice:,} of {len(models):,} models start from a snapshot that another one starts from by another name, and are trained "
            "again, alike; name each snapshot once"
        )


def _without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in names}
