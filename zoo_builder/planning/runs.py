"""Grid → runs.

In:  a `Grid`: fixed settings, axes or a random sample, replicates, pairing.
Out: every `Run` the grid asks for, in plan order, each with its stream keys and its split.

The same grid gives the same runs, with the same ids, in the same order, on any machine.
Nothing here trains, reads data or touches the disk.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from zoo_builder.grid import RECIPE_VERSION, REPLICATES, Grid
from zoo_builder.planning import init_groups
from zoo_builder.planning.lineage import MOMENTS, Parents, Start
from zoo_builder.planning.points import Point, Points
from zoo_builder.recipe import bounds, levels, settings
from zoo_builder.recipe.generated import takes
from zoo_builder.recipe.settings import Feeds
from zoo_builder.recipe.snapshots import SnapshotSchedule
from zoo_builder.recipe.values import coerce
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError
from zoo_datasets.format.schema import Column
from zoo_datasets.sources import SourceSpec, Subset, steps_per_epoch
from zoo_datasets.sources.rows import spec_of, subset_of

log = logging.getLogger("zoo_builder")

# 16 hex digits are 64 bits: for a million runs, a chance below 3e-8 that any two share an
# id (birthday bound n²/2⁶⁵). Eight digits would give about 1 at that size.
ID_DIGITS = 16

# Settings of the rules that stop a model before its budget; those of accuracy came later.
ACCURACY_RULES = ("stop_drops", "stop_below", "stop_unchanged")
STOP_RULES = ("target_loss", "patience", *ACCURACY_RULES)

# Which replicate number each stream follows. Dropout and augmentation go with the order:
# all three are what differs between two trainings from one start on one data set.
STREAMS = {"init": "init", "order": "order", "subset": "subset", "augment": "order", "dropout": "order"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One planned training. Its model will have the same id."""

    id: str
    settings: Mapping[str, Any]  # every setting of `settings.SETTINGS`; null where it means nothing
    axes: Mapping[str, str]  # varied factor → label of the level
    replicate: Mapping[str, int]  # of init, order, subset
    keys: Mapping[str, str]  # of init, order, subset, augment, dropout
    snapshots: SnapshotSchedule
    split: str
    start: Start | None = None  # of a run that continues another zoo's model
    group: str | None = None  # that of its row, or of its parent's

    @property
    def init_group(self) -> str:
        """Models that share an initialization share this; they are never split apart."""
        return self.group or (init_groups.fixed_start(self.settings) or self.keys["init"])[:ID_DIGITS]

    @property
    def source(self) -> SourceSpec:
        """The source it learns, as `Selection.source` reads it from the model's row."""
        return spec_of(self.settings)

    @property
    def subset(self) -> Subset:
        """The data axes that spoil it."""
        return subset_of(self.settings)


def of(grid: Grid, parents: Parents | None = None) -> list[Run]:
    """Every run of the grid in plan order: replicate first, then points by a stable hash.

    Any prefix is a fair sample of the points, and a limit costs what it takes of them: whole groups of
    twins in the order of their first, the last one cut, and listed in plan order again. `parents` is
    the opened zoo of a grid that names one: each of its models is one init, in its own plan order.
    Raises GridError where the init groups cannot fill the splits, the parents lack what is asked for,
    or there would be too many.
    """
    assert (grid.parent_zoo is None) == (parents is None)
    there, asked = Points(grid), count(grid, parents)
    if parents is not None:
        length = len(streams.canonical_json(grid.document))
        bounds.check_models("init", there.asked, asked // there.asked, grid.limit, length)
    resolved: dict[int, _Resolved] = {}  # by the identity of a point, which `Points` keeps
    by_id: dict[str, Run] = {}

    def resolve(point: Point) -> _Resolved:
        if id(point) not in resolved:
            resolved[id(point)] = _resolve(grid, point)
        return resolved[id(point)]

    # Children of one snapshot are twins at every point, and so in plan order already.
    by_twins = grid.limit is not None and bool(grid.paired) and parents is None and not grid.sample_points
    rank: dict[str, tuple[int, ...]] = {}  # in plan order, where runs are taken in another
    for tried, (replicate, point) in enumerate(_pairs(replicates(grid, parents), there, by_twins, grid, resolve)):
        if tried == bounds.MOST_MODELS and by_id:
            raise GridError(
                f"The first {tried:,} of {asked:,} combinations of replicates and points are {len(by_id):,} different "
                f"models, and {grid.limit:,} are asked for. Lower `--limit`, or take out levels that mean nothing together."
            )
        if parents is not None:
            run = _child(grid, point, replicate, parents) if tried < bounds.MOST_MODELS else None
        else:
            run = _run(grid, resolve(point), replicate)
        if run is not None:  # a parent may have ended before the epoch asked for
            by_id.setdefault(run.id, run)
            if by_twins:
                place = (*replicate.values(), there.rank(point))
                rank[run.id] = min(place, rank.get(run.id, place))
        if len(by_id) == grid.limit or tried == bounds.MOST_MODELS:
            break
    runs = sorted(by_id.values(), key=lambda r: rank[r.id]) if by_twins else list(by_id.values())
    if parents is not None:
        _check_starts(grid, parents, len(runs), asked)
        _check_used(grid, runs)
        return runs
    assigned = init_groups.assign(runs, grid.splits, grid.split_rule)
    return [dataclasses.replace(r, split=assigned[r.init_group]) for r in runs]


def count(grid: Grid, parents: Parents | None = None) -> int:
    """How many runs are asked for: points times replicates, those that turn out equal among them."""
    return Points(grid).asked * math.prod(map(len, _ranges(grid, parents)))


def replicates(grid: Grid, parents: Parents | None = None) -> Iterator[dict[str, int]]:
    """The replicate numbers of init, order and subset, in plan order; a parent's is its plan index."""
    if parents is None and grid.tied:
        return (dict.fromkeys(REPLICATES, i) for i in range(grid.replicates["init"]))
    inits, orders, subsets = _ranges(grid, parents)
    return ({"init": i, "order": o, "subset": s} for i in inits for o in orders for s in subsets)


def _ranges(grid: Grid, parents: Parents | None) -> tuple[range, range, range]:
    """The numbers of init, order and subset, which are crossed; those of tied replicates under init alone."""
    inits = range(grid.replicates["init"] if parents is None else len(parents.rows[: grid.fixed["init_models"]]))
    if grid.tied:
        return inits, range(1), range(1)
    return inits, range(grid.replicates["order"]), range(grid.replicates["subset"])


def _pairs(
    numbers: Iterable[dict[str, int]], points: Points, by_twins: bool, grid: Grid, resolve: Callable[[Point], _Resolved]
) -> Iterator[tuple[dict[str, int], Point]]:  # fmt: skip
    """`itertools.product`, which would hold all of both before the first."""
    for number in numbers:
        taken = points.by_twins(grid.paired, lambda p: resolve(p).free) if by_twins else points
        yield from ((number, point) for point in taken)


@dataclasses.dataclass(frozen=True)
class _Resolved:
    """What all replicates of a point have in common."""

    settings: Mapping[str, Any]
    labels: Mapping[str, str]
    free: Mapping[str, Mapping[str, str]]  # stream → the labels that its key is made of


def _resolve(grid: Grid, point: Point) -> _Resolved:
    resolved = normalize({**grid.fixed, **point})
    # Levels that mean nothing here (`momentum` of plain SGD) have one label: the points that
    # differ in nothing else are one run, planned once.
    labels = levels.labels(resolved, grid.axis_names)
    # Levels of an axis in `paired` do not enter: twins along it share the stream. Data
    # axes never enter the subset stream, so that fractions nest across their levels.
    free = {name: label for name, label in labels.items() if name not in grid.paired}
    nested = {name: label for name, label in free.items() if name not in settings.DATA_AXES}
    return _Resolved(resolved, labels, {s: nested if s == "subset" else free for s in STREAMS})


def _run(grid: Grid, point: _Resolved, replicate: Mapping[str, int]) -> Run:
    """The run of one point and replicate; its split comes when all are known."""
    keys = {
        stream: _key(grid, stream, {"replicate": replicate[follows], "axes": point.free[stream]})
        for stream, follows in STREAMS.items()
    }
    return _identified(Run("", point.settings, point.labels, replicate, keys, grid.snapshots, split=""))


def _identified(run: Run) -> Run:
    return dataclasses.replace(run, id=id_of(run))


def id_of(run: Run) -> str:
    """The id of a run: what it was asked to be, hashed."""
    identity = [RECIPE_VERSION, run.settings, dict(run.replicate), dict(run.keys), run.snapshots.to_json()]
    return streams.digest(identity if run.start is None else [*identity, run.start.identity])[:ID_DIGITS]


# ── runs that start from another zoo's snapshots ──────────────────────────────────────

# What may differ between a model and its continuation: how long and how measured, not how. Where its weights come from does.
_FREE = settings.feeding(Feeds.BUDGET, Feeds.STOP, Feeds.EVALUATION, Feeds.INIT, Feeds.LINEAGE)


def _child(grid: Grid, point: Mapping[str, Any], replicate: Mapping[str, int], parents: Parents) -> Run | None:
    """The continuation of one parent at one point; None where it has no snapshot at the epoch asked for."""
    values = {**grid.fixed, **point}
    row = parents.rows[replicate["init"]]
    step = parents.step(row, values["init_epoch"], values["init_step"], values["init_snapshot"])
    if step is None:
        return None
    parent = from_row(row, parents.layer_lists)
    values |= _kept(values["init_keep"] or (), parent, parents.zoo)
    kept = parents.snapshots[row["model_id"]][step].get("optimizer_sha256") is not None
    how = _optimizer(values, parent.settings["optimizer"], kept, parents.zoo)
    resolved = normalize(
        values | {"init_zoo": parents.zoo, "init_models": None, "init_keep": None, "init_optimizer": how}
    )
    # Repeat 0 of a stream is the parent's own, which goes on; whatever differs between the
    # children of one snapshot, they are twins: levels never enter.
    keys = {
        stream: parent.keys[stream] if stream == "init" or replicate[follows] == 0
        else streams.stream_key({"stream": stream, "parent": parent.keys[stream], "replicate": replicate[follows]})
        for stream, follows in STREAMS.items()
    }  # fmt: skip
    same = all(resolved.get(k) == parent.settings.get(k) for k in settings.SETTINGS if k not in _FREE)
    same = same and keys == parent.keys and how == "continue" and resolved["schedule_kind"] == "constant"
    start = parents.start(row, step, how == "continue", "continuation" if same else "variation")
    labels = levels.labels(resolved, grid.axis_names)
    return _identified(
        Run("", resolved, labels, dict(replicate), keys, grid.snapshots, row["split"], start, row.get("init_group"))
    )


def _kept(names: Iterable[str], parent: Run, zoo: str) -> dict[str, Any]:
    """The parent's values of what a child keeps, as a recipe would be read that says them. Raises GridError."""
    found = {}
    for setting in (settings.SETTINGS[s] for name in names for s in settings.KEPT[name]):
        value = parent.settings.get(setting.name, setting.default)
        if value is not None or setting.applies(parent.settings):
            where = f"{zoo}, model {parent.id}, by `init: {{keep: …}}`"
            value = coerce(setting, list(value) if isinstance(value, tuple) else value, where)
        found[setting.name] = value
    return found


def _check_used(grid: Grid, runs: Iterable[Run]) -> None:
    """Raises GridError for a dropout rate that no architecture of the parents has a layer for."""
    asked = "dropout" in grid.axis_names or grid.fixed["dropout"] != settings.DEFAULTS["dropout"]
    if (
        "architecture" in (grid.fixed["init_keep"] or ())
        and asked
        and not any(takes(r.settings, "dropout") for r in runs)
    ):
        raise GridError(
            f"`dropout` is given, but no architecture that is kept of {grid.parent_zoo} has a layer `dropout` that takes it."
        )


def _optimizer(values: Mapping[str, Any], theirs: str, kept: bool, zoo: str) -> str:
    """`continue` or `reset`: what a run does with its parent's optimizer state. Raises GridError."""
    asked, ours = values["init_optimizer"], values["optimizer"]
    if asked == "reset":
        return "reset"
    if MOMENTS[ours] == "none":
        return "continue"  # plain SGD has nothing to carry over
    if not kept:
        if asked == "continue":
            raise GridError(
                f"`init: {{optimizer: continue}}`: {zoo} kept no optimizer state. Build it with `snapshots: {{…, "
                "optimizer: true}`, or start with fresh moments: `optimizer: reset`."
            )
        return "reset"
    if MOMENTS[ours] != MOMENTS.get(theirs):  # a later version may know optimizers that this one does not
        raise GridError(
            f"The optimizer state of {zoo} is of `{theirs}`, and `{ours}` cannot go on with it. Start with fresh "
            "moments: `init: {zoo: …, optimizer: reset}`."
        )
    return "continue"


def _check_starts(grid: Grid, parents: Parents, found: int, asked: int) -> None:
    """Raises GridError where no parent has the snapshots; says where some have not."""
    if not found:
        epochs = ", ".join(f"{e:g}" for e in parents.epochs()[:40])
        raise GridError(
            f"No model of {parents.zoo} has a snapshot at the epoch, step or place that `init` asks for. Its snapshots are at "
            f"epochs {epochs}."
        )
    if found < asked and grid.limit is None:
        log.warning(
            "%d of %d runs have no start: their parents in %s have no snapshot there; snapshots are at epochs %s",
            asked - found, asked, parents.zoo, ", ".join(f"{e:g}" for e in parents.epochs()[:40]),
        )  # fmt: skip


def _key(grid: Grid, stream: str, parts: Mapping[str, Any]) -> str:
    return streams.stream_key({"seed": grid.seed, "stream": stream, **parts})


_DEPENDENT = [s for s in settings.SETTINGS.values() if s.needs is not None]
_LATER = [s for s in settings.SETTINGS.values() if s.later]


def normalize(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what means nothing set to null, and what depends on others worked out."""
    result = dict(values) | {s.name: None for s in _DEPENDENT if not s.applies(values)}
    if values["init_zoo"] is not None:
        result |= dict.fromkeys(settings.feeding(Feeds.INIT))
    elif values["init_bias"] is None:
        result["init_bias"] = levels.bias_of(values["architecture"])
    for s in _LATER:
        if s.silent(result[s.name]):
            del result[s.name]
    return result


# ── run ↔ row ─────────────────────────────────────────────────────────────────────────

LABELS = tuple(settings.COMPOSITES)


def factor_columns(runs: Iterable[Run] = ()) -> list[Column]:
    """The typed column of every setting, and of the composites' labels; of later settings where a run uses them or an axis is one."""
    used = {name for run in runs for name in (*run.settings, *run.axes)}  # an axis may have its default alone
    columns = [Column(s.name, s.type, s.doc) for s in settings.SETTINGS.values() if not s.later or s.name in used]
    return columns + [Column(name, pa.string(), f"label of `{name}`: all its settings in one") for name in LABELS]


def factors(run: Run) -> dict[str, Any]:
    """The values of `factor_columns` for a run."""
    # A later setting that a run lacks is at its default, or means nothing beside the others.
    later = {n: s.default if s.applies(run.settings) else None for n, s in settings.SETTINGS.items() if s.later}
    values = later | dict(run.settings)
    row = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    return row | levels.labels(run.settings, ("architecture", *LABELS))


def from_row(row: Mapping[str, Any], layer_lists: Mapping[str, Any], axes: Iterable[str] = ()) -> Run:
    """The run a row of `models` describes: what `verify` retrains from.

    `layer_lists` are the manifest's architectures that are not presets.
    """
    values: dict[str, Any] = {}
    for name, setting in settings.SETTINGS.items():
        value = row.get(name) if setting.later else row[name]
        if setting.silent(value):
            continue
        values[name] = tuple(value) if isinstance(value, list) else value
    values["architecture"] = layer_lists.get(row["architecture"], row["architecture"])
    return Run(
        id=row["model_id"],
        settings=values,
        axes={a: streams.level_label(_level(row, a)) for a in axes},
        replicate={name: row[f"replicate_{name}"] for name in REPLICATES},
        keys={name: row[f"{name}_key"] for name in STREAMS},
        snapshots=SnapshotSchedule.from_json(json.loads(row["snapshot_schedule"])),
        split=row["split"],
        start=_start_of(row),
        group=row.get("init_group"),
    )


def _level(row: Mapping[str, Any], axis: str) -> Any:
    """What a row has of an axis; of a later setting that no run uses, or that means nothing here, its default."""
    setting = settings.SETTINGS.get(axis)
    if setting is not None and setting.later and row.get(axis) is None:
        return setting.default
    return row[axis]


def _start_of(row: Mapping[str, Any]) -> Start | None:
    if row.get("parent_zoo") is None:
        return None
    passes, inside = divmod(row["stream_step"], steps_per_epoch(row["n_train"], row["batch_size"]))
    return Start(
        zoo=row["parent_zoo"], model_id=row["parent_id"], step=row["parent_step"], sha256=row["parent_sha256"],
        optimizer_sha256=row["parent_optimizer_sha256"], updates=row["optimizer_step"], passes=passes, inside=inside,
        root=row["lineage_root"], relation=row["relation"],
    )  # fmt: skip


def total_steps(run: Run, n_train: int) -> int:
    """The run's budget in updates, given the number of its training examples."""
    s = run.settings
    per_epoch = steps_per_epoch(n_train, s["batch_size"])
    if s["steps"] is not None:
        return int(s["steps"])
    if s["examples"] is not None:
        inside = run.start.inside if run.start else 0  # updates into an epoch, whose last batch may be short
        whole, rest = divmod(min(inside * s["batch_size"], n_train) + s["examples"], n_train)
        return whole * per_epoch + steps_per_epoch(rest, s["batch_size"]) - inside
    return int(s["epochs"]) * per_epoch


def watched(run: Run) -> bool:
    """Whether a rule may stop it before its budget."""
    return any(run.settings.get(name) is not None for name in STOP_RULES)
