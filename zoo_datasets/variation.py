"""A zoo's paired axis → pairs of models equal in all but that factor, and what the factor does.

In:  a `Selection` whose recipe names the axis in `paired`: twins along it share their
     initialization, batch order, augmentation and dropout, and rank the same images.
Out: the pairs; the mean paired difference of a metric, with an interval over init groups and what they share.

Equal means: every factor column, every stream key and, where models go on from others, the snapshot that they
start from. A composite axis sets several columns (`subset` those of its block), and a factor can make others
meaningless (`momentum` is null for `adam`); these move with the axis, and counts such as `n_train` follow.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.core import notebook, streams
from zoo_datasets.core.arrow import distinct
from zoo_datasets.errors import IntegrityError, ZooError, unknown
from zoo_datasets.networks import generated
from zoo_datasets.reading.selection import Selection
from zoo_datasets.sources import SourceSpec, Subset
from zoo_datasets.sources.fields import columns_of

KEYS = ("init_key", "order_key", "subset_key", "augment_key", "dropout_key")
# Children have the keys of their parents, and paired parents have the same ones: the start alone tells their children apart.
START = ("parent_id", "parent_step", "parent_sha256")
# The columns that an axis sets besides its own; a trailing _ names all columns that begin so. That it is
# what the builder's settings say is a test over all of them (tests/planning/test_every_setting.py).
SETS = {
    "subset": columns_of(Subset),
    "init": ("init_",),
    "schedule": ("schedule_",),
    "augmentation": ("augment_",),
    "source": columns_of(SourceSpec),
    "optimizer": ("momentum", "beta1", "beta2", "alpha", "squares_start", "eps"),
    # Which snapshot of a parent, and not which parent.
    "init_epoch": START[1:],
    "init_step": START[1:],
    "init_snapshot": START[1:],
    # The others mean nothing at some of its levels.
    "machine": ("automaton_", "automaton"),
    "trigger_frac": ("trigger_",),
    "trigger_pattern": ("trigger_seed",),
    "parameterization": ("mup_base",),
    "schedule_kind": ("schedule_",),
    "init_kind": ("init_low", "init_high", "init_mean", "init_std", "init_value"),
    "init_first_kind": ("init_first_",),
    "init_last_kind": ("init_last_",),
    # A preset brings its own bias, and one that is generated its parameters.
    "architecture": (
        "init_bias",
        "init",
        *(p.setting_of(g.name) for g in generated.GENERATED.values() for p in g.parameters),
    ),
}
BLOCKS = ("subset", "init", "schedule", "augmentation")  # axes whose column is the label of their block
# With no baseline named, an effect is against the level that changes nothing.
NEUTRAL = ("full", "none", "constant", "standard")


class Pair(NamedTuple):
    """Two models that differ in one factor alone: `a` at the first level, `b` at the second."""

    a: str
    b: str
    levels: tuple[str, str]
    init_group: str


@dataclasses.dataclass(frozen=True, repr=False)
class Effect:
    """Mean of (metric at the second level − at the first) over pairs, and its interval over what pairs share."""

    axis: str
    on: str
    levels: tuple[str, str]
    n_pairs: int
    n_groups: int  # init groups
    mean: float  # of the means of init groups; of pairs where data draws are resampled too
    low: float  # NaN where there is no interval
    high: float
    level: float  # of the interval
    n_missing: int  # pairs left out, where either metric is null
    note: str = ""  # why there is no interval, or what it leaves out

    def __str__(self) -> str:
        bounds = "[no interval]" if np.isnan(self.low) else f"[{self.low:+.4f}, {self.high:+.4f}]"
        counts = [f"{self.n_pairs} pairs", f"{self.n_groups} init groups"]
        if self.n_missing:
            counts.append(f"{self.n_missing} of {self.n_pairs + self.n_missing} pairs left out: {self.on} is null")
        return (
            f"{self.axis}: {self.levels[0]} → {self.levels[1]}: {self.on} {self.mean:+.4f} {bounds} "
            f"({self.level:.0%}, {', '.join(counts)}{'; ' if self.note else ''}{self.note})"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return Effects([self])._repr_html_()


class Effects(tuple[Effect, ...]):
    """Effects of several levels against one; prints a line for each."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{e.levels[0]} → {e.levels[1]}", f"{e.mean:+.4f}",
                "none" if np.isnan(e.low) else f"[{e.low:+.4f}, {e.high:+.4f}]", f"{e.n_pairs:,}", f"{e.n_groups:,}", e.note,
            )
            for e in self
        ]  # fmt: skip
        what = f"What {self[0].axis} does to {self[0].on}" if self else "No effects"
        level = f"{self[0].level:.0%} interval" if self else "interval"
        return notebook.table(what, ("levels", "mean difference", level, "pairs", "init groups", "note"), rows)


def pairs(zoo: Selection, vary: str, levels: tuple[Any, Any] | None = None) -> list[Pair]:
    """All pairs of selected models that differ in `vary` alone, of two levels or of any two.

    Raises ZooError where `vary` is no axis of this zoo, or is not paired in its recipe.
    """
    labels = _levels(zoo, vary)
    compared = list(itertools.combinations(labels, 2)) if levels is None else [_two(zoo, vary, levels, labels)]
    rows = zoo.models.select(["model_id", "init_group", vary]).to_pylist()
    by_twin: dict[int, dict[str, list[tuple[str, str]]]] = {}
    for row, number in zip(rows, twins(zoo, vary).tolist(), strict=True):
        by_twin.setdefault(number, {}).setdefault(streams.level_label(row[vary]), []).append(
            (row["model_id"], row["init_group"])
        )
    return [
        Pair(a, b, (low, high), group)
        for at_level in by_twin.values()
        for low, high in compared
        for (a, group), (b, _) in itertools.product(at_level.get(low, ()), at_level.get(high, ()))
    ]


def twins(zoo: Selection, vary: str) -> np.ndarray:
    """A number for each row of `zoo.models`, int64 [n], equal where models are equal in all but a paired axis.

    Raises IntegrityError where `models` lacks a factor of the manifest, or a key."""
    start = [name for name in START if name in zoo.models.column_names]
    names = list(dict.fromkeys([*fixed_factors(vary, [*zoo.manifest.factors, *start]), *KEYS]))
    lacking = [name for name in names if name not in zoo.models.column_names]
    if lacking:
        raise IntegrityError(
            f"models of {zoo.name} has no column {lacking[0]!r}, by which twins are known: the zoo is damaged. "
            "Fetch or build it again."
        )
    rows = zip(*(zoo.models[name].to_pylist() for name in names), strict=True)
    known: dict[Any, int] = {}
    keys = (tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in rows)
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def effect(
    zoo: Selection, vary: str, on: str = "test_accuracy", levels: tuple[Any, Any] | None = None, *, level: float = 0.95
) -> Effect | Effects:  # fmt: skip
    """What `vary` does to a metric: the mean difference over pairs, second level minus first.

    With `levels=None` every level of the selection is compared with one: `full`, `none` or `constant` if it is
    there, else the first. The metric is read at each model's last selected snapshot; pairs
    where it is null are left out and counted. The interval is over init groups, and over data draws and
    batch orders too where init groups share them (`replicates: {init: 10, subset: 20}`): those
    vary as inits do. Where they share fewer than five, it is for those alone, and the note says so.

    Raises ZooError as `pairs` does, for a column that holds no numbers, and where no pair is left.
    """
    if levels is None:
        here = set(map(streams.level_label, distinct(zoo.models[vary]))) if vary in zoo.paired else set()
        labels = [k for k in _levels(zoo, vary) if k in here]
        if len(labels) < 2:
            raise ZooError(
                f"This selection of {zoo.name} has {'one level' if labels else 'no level'} of {vary}; an effect needs two. Widen `select`."
            )
        first = next((k for k in NEUTRAL if k in labels), labels[0])
        effects = (effect(zoo, vary, on, (first, k), level=level) for k in labels if k != first)
        return Effects(e for e in effects if isinstance(e, Effect))
    last = zoo.final()
    values = last.column(on)
    if not (values.type == "double" or values.type == "int64"):
        raise ZooError(
            f"Column {on!r} holds {values.type}, not numbers; an effect is on a metric such as test_accuracy."
        )
    value = dict(zip(last.column("model_id").to_pylist(), values.to_pylist(), strict=True))
    found_pairs = pairs(zoo, vary, levels)
    complete = [p for p in found_pairs if value[p.a] is not None and value[p.b] is not None]
    if not complete:
        raise ZooError(
            f"No two selected models of {zoo.name} differ in {vary} alone at levels {' and '.join(map(str, levels))} "
            f"and both have {on}. Widen `select`."
        )
    change = np.array([value[p.b] for p in complete], float) - np.array([value[p.a] for p in complete], float)
    ways = _ways(zoo, complete)
    most = (2.0 if "gap" in on else 1.0) if "accuracy" in on else np.inf  # of a difference
    ends = (-most, most) if np.abs(change).max() <= most < np.inf else None  # an imported zoo may count in per cent
    found = intervals.crossed_mean(change, ways, level=level, ends=ends)
    n_groups = len(set(ways["init groups"].tolist()))
    return Effect(
        vary, on, complete[0].levels, len(complete), n_groups, found.value, found.low, found.high, level,
        len(found_pairs) - len(complete), found.note,
    )  # fmt: skip


DRAWS_NOTHING = {"subset_frac": 1.0, "subset_class_shares": None, "label_noise_frac": 0.0, "trigger_frac": 0.0}
# What several init groups may share, and the columns that say whether it is drawn at all.
SHARED = {
    "data draws": ("subset_key", tuple(DRAWS_NOTHING)),
    "batch orders": ("order_key", ()),
}


def _ways(zoo: Selection, found: Collection[Pair]) -> dict[str, np.ndarray]:
    """What pairs have in common: their init group, and each stream that some init groups share, named [n]."""
    known = set(zoo.manifest.factors)  # of an imported zoo perhaps none of ours
    drawing = [c for c in DRAWS_NOTHING if c in known]
    rows = {
        r["model_id"]: r
        for r in zoo.models.select(["model_id", *(k for k, _ in SHARED.values()), *drawing]).to_pylist()
    }
    ways = {"init groups": np.array([p.init_group for p in found])}
    for way, (key, drawn) in SHARED.items():
        if drawn and not any(
            rows[i][c] not in (None, DRAWS_NOTHING[c]) for p in found for i in (p.a, p.b) for c in drawing
        ):
            continue
        groups: dict[str, set[str]] = {}
        for p in found:
            groups.setdefault(rows[p.a][key], set()).add(p.init_group)
        if max(map(len, groups.values())) > 1:
            ways[way] = np.array([rows[p.a][key] for p in found])
    return ways


def _levels(zoo: Selection, vary: str) -> list[str]:
    """The labels of a paired axis. Raises ZooError where it is none."""
    if vary not in zoo.axes:
        raise ZooError(unknown("axis", vary, zoo.axes, zoo.name))
    if vary not in zoo.paired:
        here = ", ".join(zoo.paired)
        raise ZooError(
            f"{vary!r} is not paired in the recipe of {zoo.name}: models along it share neither initialization nor "
            "batch order, so they differ in more than it. "
            + (f"Paired here: {here}. " if here else "")
            + f"To vary it alone, build a zoo with `paired: [{vary}]`."
        )
    known = zoo.axes[vary]
    if not known:  # drawn at random
        known = sorted(map(streams.level_label, distinct(zoo.models[vary])))
    return known


def _two(zoo: Selection, vary: str, levels: Any, known: list[str]) -> tuple[str, str]:
    """The labels of two levels. Raises ZooError where they are not two."""
    given = list(levels) if isinstance(levels, tuple | list | np.ndarray) else [levels]
    labels = [_label(zoo, vary, level, known) for level in given]
    if len(labels) != 2 or labels[0] == labels[1]:
        raise ZooError(f"`levels` of {vary} are {', '.join(labels)}; take two that differ, or none for all of them.")
    return labels[0], labels[1]


def _label(zoo: Selection, vary: str, level: Any, known: list[str]) -> str:
    label = streams.level_label(level)
    if label not in known and isinstance(level, (int, float)) and not isinstance(level, bool):
        label = next((k for k in known if _number(k) == level), label)  # 0 and 0.0 are one level
    if label not in known:
        raise ZooError(unknown(f"level of {vary}", label, known, zoo.name))
    return label


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def fixed_factors(vary: str, factors: Iterable[str]) -> list[str]:
    """The factor columns that are equal between twins along an axis."""

    def sets(axis: str, name: str) -> bool:
        return any(name.startswith(s) if s.endswith("_") else name == s for s in SETS[axis])

    # A column of a block moves the block's label too: `label_noise_frac` that of `subset`.
    moved = {vary} | {axis for axis in BLOCKS if sets(axis, vary)}
    return [name for name in factors if name not in moved and not (vary in SETS and sets(vary, name))]
