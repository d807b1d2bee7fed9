"""A population and the name of a target → what is asked of each network, and whether it can be.

In:  a zoo's networks. Out: a `Target`, the levels of a class, and a value of each network, NaN where it has none.

What can be asked: accuracies and losses as stored, accuracy of one class, the generalization gap on clean labels, the
epoch of a snapshot (`progress`), shares of images kept or mislabeled, whether a class was learned at all (`learned_class_3`), and every setting that the recipe varies: a number where it has more than two levels that are
quantities, else a class.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.baselines.interface import Target
from zoo_datasets.core import streams
from zoo_datasets.core.arrow import floats_of
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.gap import classes_in_play, generalization_gap, learned
from zoo_datasets.sources.rows import NAMES
from zoo_datasets.zoo import Zoo

MOST_TIED = 0.5  # of all pairs: with more, a rank correlation says little
MOST_CLASSES = 200
LOG_RANGE = 50.0  # a positive setting whose levels span more is asked for as its logarithm to base 10
MEASURED = ("test_accuracy", "test_loss", "train_accuracy", "train_loss", "validation_accuracy")
# Shares of images that levels of `subset` differ by → what those have that do not say it.
OF_SUBSET = {"subset_frac": 1.0, "label_noise_frac": 0.0}
DERIVED: dict[str, Callable[[Zoo], np.ndarray]] = {"generalization_gap": generalization_gap}


class TaskError(ZooError, ValueError):
    """A zoo has no such task; the message says why."""


def known(zoo: Zoo) -> list[str]:
    """Names of targets that the zoo may have."""
    shares = (s for s in OF_SUBSET if _of_subset(zoo, s))
    return [*(m for m in MEASURED if m in zoo.models.column_names), *DERIVED, "progress", *zoo.axes, *shares]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A target, and its value of each network."""

    target: Target
    levels: tuple[str, ...]  # of a class, by number
    logarithm: bool  # whether values are logarithms to base 10
    values: np.ndarray  # (n,) float64, NaN where a network has none

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.values[rows])


def asked(zoo: Zoo, name: str, like: Asked | None = None) -> Asked:
    """What `name` asks of each selected snapshot; with `like` in its form: its levels, its scale. Raises TaskError."""
    if name in DERIVED:
        return Asked(Target(name), (), False, DERIVED[name](zoo))
    if name == "progress":
        return Asked(Target(name), (), False, _numbers(zoo.column("epoch")))
    if re.fullmatch(r"test_accuracy_of_class_\d+", name):
        return Asked(Target(name, bounded=True), (), False, _of_class(zoo, int(name.rpartition("_")[2])))
    if re.fullmatch(r"learned_class_\d+", name):
        return Asked(Target(name, classes=2), ("false", "true"), False, _learned(zoo, int(name.rpartition("_")[2])))
    if _of_subset(zoo, name):
        shares = _numbers(zoo.column(name))
        return Asked(Target(name), (), False, np.where(np.isnan(shares), OF_SUBSET[name], shares))
    if name not in zoo.axes and name not in MEASURED and like is None:
        raise TaskError(unknown("target", name, known(zoo), zoo.name))
    if not has(zoo, name):
        raise TaskError(f"{zoo.name} has no column {name!r}.")
    column = zoo.column(name)
    kind = column.type
    number = (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and name not in NAMES
    if name in MEASURED:
        return Asked(Target(name, bounded=name.endswith("accuracy")), (), False, _numbers(column))
    if like is not None and not like.target.classes:
        if not number:
            raise TaskError(f"{zoo.name}: {name!r} is no number, and where the baselines learned it is one.")
        return dataclasses.replace(like, values=_scaled(_numbers(column), like.logarithm))
    if number and like is None:
        values = _numbers(column)
        seen = values[np.isfinite(values)]
        if len(np.unique(seen)) > 2:
            wide = bool(seen.min() > 0 and seen.max() / seen.min() > LOG_RANGE)
            return Asked(Target(name), (), wide, _scaled(values, wide))
    labels = [streams.level_json(v) for v in column.to_pylist()]
    if name in NAMES:  # null where there is nothing to be named: another setting says so
        labels = ["" if v is None else label for v, label in zip(column.to_pylist(), labels, strict=True)]
    levels = tuple(sorted(set(labels) - {""})) if like is None else like.levels
    if len(levels) > MOST_CLASSES:
        raise TaskError(
            f"{zoo.name}: {name!r} has {len(levels):,} levels that are no quantities; at most {MOST_CLASSES}."
        )
    place = {level: float(i) for i, level in enumerate(levels)}
    return Asked(Target(name, len(levels)), levels, False, np.array([place.get(label, np.nan) for label in labels]))


def _of_subset(zoo: Zoo, name: str) -> bool:
    """Whether a target is a share that levels of `subset` differ by, and no axis of its own."""
    return name in OF_SUBSET and name not in zoo.axes and "subset" in zoo.axes and has(zoo, name)


def tested(zoo: Zoo, name: str) -> np.ndarray:
    """The accuracy on finitely many test images that a target was made of, and how many, (n, 2) float64; NaN where it was not."""
    found = np.full((len(zoo), 2), np.nan)
    single = re.fullmatch(r"test_accuracy_of_class_(\d+)", name)
    if (name not in ("test_accuracy", "generalization_gap") and not single) or not has(zoo, "test_count_per_class"):
        return found
    correct, count = (zoo.column(f"test_{n}_per_class").to_pylist() for n in ("correct", "count"))
    play: list[Sequence[int] | None] = [None] * len(zoo)
    if single:
        at = [own.place(int(single[1])) for own in learned(zoo)]
        play = [[] if place is None else [place] for place in at]
    elif name == "generalization_gap":
        play = list(classes_in_play(zoo))
    for row, (right, of, classes) in enumerate(zip(correct, count, play, strict=True)):
        if not of or right is None:
            continue
        places = range(len(of)) if classes is None else classes
        if total := sum(of[c] for c in places if c < len(of)):
            found[row] = sum(right[c] for c in places if c < len(of)) / total, total
    return found


def has(zoo: Zoo, column: str) -> bool:
    """Whether one of a zoo's tables has that column."""
    return column in zoo.snapshots.column_names or column in zoo.models.column_names


def _scaled(values: np.ndarray, logarithm: bool) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values) if logarithm else values


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return floats_of(column)


def _of_class(zoo: Zoo, label: int) -> np.ndarray:
    """Accuracy on test images of a class of the source; NaN where a network has no output for it, or none was measured."""
    found = np.full(len(zoo), np.nan)
    correct, count = (zoo.column(f"test_{n}_per_class").to_pylist() for n in ("correct", "count"))
    for row, (right, of, own) in enumerate(zip(correct, count, learned(zoo), strict=True)):
        place = own.place(label)
        if of is None or right is None or place is None:
            continue
        if place >= len(of):
            raise TaskError(f"{zoo.name} has networks of fewer than {label + 1} classes.")
        found[row] = right[place] / of[place] if of[place] else np.nan
    return found


def _learned(zoo: Zoo, label: int) -> np.ndarray:
    """Whether a class of the source was among those that each network learned."""
    n = max((len(s.class_names) for s in zoo.manifest.sources), default=0)
    if label >= n:
        raise TaskError(f"{zoo.name}: there is no class {label}; its source has {n}.")
    return np.array([1.0 if own.classes is None or label in own.classes else 0.0 for own in learned(zoo)])


def telling(zoo: Zoo, name: str) -> tuple[str, ...]:
    """Axes that give a target away: of a class learned and of a share of images, the subsets; of a setting, what is null wherever it has some level.

    A setting that means something only beside levels of another (`init_std` beside `init_kind: normal`, a trigger's label
    beside a share above 0) says by being null which level that was.
    """
    if name.startswith("learned_class_") or _of_subset(zoo, name):
        return tuple(a for a in zoo.axes if a == "subset" or a.startswith("subset_"))
    if name not in zoo.axes or not has(zoo, name):
        return ()
    values = zoo.column(name).to_pylist()
    # What needs a number needs one above 0, whichever.
    levels = [
        bool(v)
        if isinstance(v, int | float) and name not in NAMES
        else v
        if isinstance(v, str)
        else streams.level_json(v)
        for v in values
    ]
    of = pa.array(["" if v is None else str(v) for v in levels])
    found = []
    for axis in zoo.axes:
        if axis == name or not has(zoo, axis):
            continue
        null = pc.is_null(zoo.column(axis))
        always = pa.table({"of": of, "null": null}).group_by("of").aggregate([("null", "all")])["null_all"].to_pylist()
        if any(always) and not all(always):
            found.append(axis)
    return tuple(found)


def check(zoo: Zoo, of: Asked, train: np.ndarray, test: np.ndarray) -> None:
    """Raises TaskError where there is nothing to learn from the values of `train`, or to ask of those of `test`."""
    target = of.target
    for side, values in (("train", train), ("test", test)):
        seen = values[np.isfinite(values)]
        if not len(seen):
            raise TaskError(f"{zoo.name}: {target.name!r} is null for every {side} network.")
        if len(np.unique(seen)) < 2:
            what = of.levels[int(seen[0])] if target.classes else f"{seen[0]:g}"
            raise TaskError(
                f"{zoo.name}: {target.name!r} is {what} for every {side} network; there is nothing to tell apart."
            )
    setting = target.name in zoo.axes or target.name in OF_SUBSET
    if not target.classes and not setting and (tied := tied_share(test[np.isfinite(test)])) > MOST_TIED:
        raise TaskError(
            f"{zoo.name}: {tied:.0%} of the pairs of test networks are tied in {target.name!r}, more than {MOST_TIED:.0%}: "
            "their order can hardly be told. Measure on more images, or train longer."
        )


def tied_share(values: np.ndarray) -> float:
    """Share of pairs with equal values."""
    _, counts = np.unique(values, return_counts=True)
    pairs = len(values) * (len(values) - 1) / 2
    return float((counts * (counts - 1) / 2).sum() / pairs) if pairs else 0.0
