"""A zoo, targets and a split → what a baseline learns from, and what it is asked.

In:  an open zoo, the names of targets, the name of a split.
Out: a `Problem`: views and targets of train, validation and test, and the groups that intervals resample.

A task is a population (a zoo and the filter below) with a target, a split and a version: `digits-mlp/test_accuracy@1`.
The filter is fixed: the last snapshot of every model whose weights are finite (`progress` takes all of them). Rows are
shuffled by a seed of the zoo's digest, so that no order tells anything.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import split_files
from zoo_datasets.baselines.interface import Target, Targets, View
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.gap import generalization_gap
from zoo_datasets.split_files import Split
from zoo_datasets.zoo import Zoo

VERSION = 1  # of the tasks' meaning; another filter, target or split under the same name takes the next
SHARES = {"train": 0.5, "validation": 0.1, "test": 0.4}
MOST_TIED = 0.5  # of all pairs: with more, a rank correlation says little
MOST_CLASSES = 50
LOG_RANGE = 50.0  # a positive setting whose levels span more is asked for as its logarithm to base 10
MEASURED = ("test_accuracy", "test_loss", "train_accuracy", "train_loss", "validation_accuracy")
DERIVED: dict[str, Callable[[Zoo], np.ndarray]] = {"generalization_gap": generalization_gap}


class TaskError(ZooError, ValueError):
    """A zoo has no such task; the message says why."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The networks of one side of the split."""

    view: View
    targets: Targets
    groups: np.ndarray  # (n,) str: models that share an initialization or a lineage
    images: np.ndarray  # (n,) int64 test images behind an accuracy; 0 where unknown

    def __len__(self) -> int:
        return len(self.groups)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Tasks that share population and split, ready to be solved."""

    zoo: str
    zoo_digest: str
    split: Split
    split_name: str
    classes: Mapping[str, tuple[str, ...]]  # of each target that is a class, its levels by number
    train: Part
    validation: Part
    test: Part

    def name_of(self, target: str) -> str:
        """`owner/zoo/target@1`, with the split where it is not by init group."""
        where = "" if self.split_name == "iid" else f"/{self.split_name}"
        return f"{self.zoo}/{target}{where}@{VERSION}"

    @property
    def digest(self) -> str:
        """Of everything a result depends on but the baseline: population, split, version."""
        return streams.digest([self.zoo_digest, self.split.digest, VERSION])


def problem(zoo: Zoo, targets: Sequence[str], split: str = "iid") -> Problem:
    """The tasks of these targets. `split` is `iid` (by init group, 50/10/40) or `AXIS=LEVEL` (that level held out).

    Raises TaskError where the zoo lacks a target, or it is constant, missing everywhere, or tied in more than half its pairs;
    GridError where the split leaves a side empty.
    """
    if not targets:
        raise TaskError(
            "No target was named. Take test_accuracy, generalization_gap, progress, or a setting of the recipe."
        )
    if "progress" in targets and len(targets) > 1:
        raise TaskError("`progress` asks about every snapshot, and the others about the last one: ask for it alone.")
    population = _population(zoo, every="progress" in targets)
    found = [_target(population, name) for name in targets]
    chosen = _split(zoo, split)
    side = np.array([chosen.assignment.get(i, "") for i in population.column("model_id").to_pylist()])
    parts = {s: _part(population, found, np.flatnonzero(side == s)) for s in SPLITS}
    for name, part in parts.items():
        if not len(part):
            raise TaskError(f"{zoo.name}: no network is left for {name} under the split {split!r}. Build more of them.")
    for k, (target, levels, _) in enumerate(found):
        _check(zoo, target, levels, parts["train"].targets.values[:, k], parts["test"].targets.values[:, k])
    classes = {t.name: levels for t, levels, _ in found if t.classes}
    digest = split_files.zoo_digest(zoo)
    return Problem(zoo.name, digest, chosen, split, classes, parts["train"], parts["validation"], parts["test"])


def known(zoo: Zoo) -> list[str]:
    """Names of targets that the zoo may have."""
    return [*(m for m in MEASURED if m in zoo.models.column_names), *DERIVED, "progress", *zoo.axes]


# ── population ────────────────────────────────────────────────────────────────────────


def _population(zoo: Zoo, every: bool) -> Zoo:
    """The networks of the task, in an order of their own: last snapshots (or all), with finite weights."""
    chosen = zoo if every else zoo.final()
    finite = np.array([np.isfinite(w).all() for w in _vectors(chosen)])
    order = np.random.default_rng(int(split_files.zoo_digest(zoo)[:16], 16)).permutation(np.flatnonzero(finite))
    return chosen.take(order)


def _vectors(zoo: Zoo, at_once: int = 1024) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for start in range(0, len(zoo), at_once):
        found.extend(np.asarray(v) for v in zoo.weights[slice(start, min(start + at_once, len(zoo)))])
    return found


def _part(population: Zoo, found: Sequence[tuple[Target, tuple[str, ...], np.ndarray]], rows: np.ndarray) -> Part:
    part = population.take(rows)
    ids = part.column("architecture_id").to_pylist()
    names = list(dict.fromkeys(ids))
    architectures = tuple(population.manifest.architecture(str(n), "a network of the task").built() for n in names)
    recipe = part.table(list(population.axes))
    counts = (
        part.column("test_count_per_class").to_pylist() if _has(part, "test_count_per_class") else [None] * len(part)
    )
    keys = split_files.group_keys(population)
    return Part(
        View(architectures, np.array([names.index(i) for i in ids], np.int64), _vectors(part), recipe),
        Targets(tuple(t for t, *_ in found), np.stack([values[rows] for *_, values in found], axis=1)),
        np.array([keys[i] for i in part.column("model_id").to_pylist()]),
        np.array([sum(c) if c else 0 for c in counts], np.int64),
    )


def _has(zoo: Zoo, column: str) -> bool:
    return column in zoo.snapshots.column_names or column in zoo.models.column_names


# ── targets ───────────────────────────────────────────────────────────────────────────


def _target(zoo: Zoo, name: str) -> tuple[Target, tuple[str, ...], np.ndarray]:
    """A target, its classes, and its values (n,); NaN where a network has none."""
    if name in DERIVED:
        return Target(name), (), DERIVED[name](zoo)
    if name == "progress":
        return Target(name), (), _numbers(zoo.column("epoch"))
    if re.fullmatch(r"test_accuracy_of_class_\d+", name):
        return Target(name, bounded=True), (), _of_class(zoo, int(name.rpartition("_")[2]))
    if name not in zoo.axes and name not in MEASURED:
        raise TaskError(unknown("target", name, known(zoo), zoo.name))
    if not _has(zoo, name):
        raise TaskError(f"{zoo.name} has no column {name!r}.")
    column = zoo.column(name)
    kind = column.type
    if name in MEASURED:
        return Target(name, bounded=name.endswith("accuracy")), (), _numbers(column)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        values = _numbers(column)
        seen = values[np.isfinite(values)]
        if len(np.unique(seen)) > 2:
            wide = len(seen) and seen.min() > 0 and seen.max() / seen.min() > LOG_RANGE
            return Target(name), (), np.log10(values) if wide else values
    labels = [streams.canonical_json(v) for v in column.to_pylist()]
    levels = tuple(sorted(set(labels)))
    if len(levels) > MOST_CLASSES:
        raise TaskError(f"{zoo.name}: {name!r} has {len(levels):,} levels that are no numbers; at most {MOST_CLASSES}.")
    place = {level: float(i) for i, level in enumerate(levels)}
    return Target(name, len(levels)), levels, np.array([place[label] for label in labels])


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)  # null → NaN


def _of_class(zoo: Zoo, place: int) -> np.ndarray:
    correct, count = (zoo.column(f"test_{n}_per_class").to_pylist() for n in ("correct", "count"))
    if any(n is not None and place >= len(n) for n in count):
        raise TaskError(f"{zoo.name} has networks of fewer than {place + 1} classes.")
    return np.array([r[place] / n[place] if n and n[place] else np.nan for r, n in zip(correct, count, strict=True)])


def _check(zoo: Zoo, target: Target, levels: tuple[str, ...], train: np.ndarray, test: np.ndarray) -> None:
    """Raises TaskError where there is nothing to learn or to ask."""
    for side, values in (("train", train), ("test", test)):
        seen = values[np.isfinite(values)]
        if not len(seen):
            raise TaskError(f"{zoo.name}: {target.name!r} is null for every {side} network.")
        if len(np.unique(seen)) < 2:
            what = levels[int(seen[0])] if target.classes else f"{seen[0]:g}"
            raise TaskError(
                f"{zoo.name}: {target.name!r} is {what} for every {side} network; there is nothing to tell apart."
            )
    if not target.classes and target.name not in zoo.axes and (tied := tied_share(test[np.isfinite(test)])) > MOST_TIED:
        raise TaskError(
            f"{zoo.name}: {tied:.0%} of the pairs of test networks are tied in {target.name!r}, more than {MOST_TIED:.0%}: "
            "their order can hardly be told. Measure on more images, or train longer."
        )


def tied_share(values: np.ndarray) -> float:
    """Share of pairs with equal values."""
    _, counts = np.unique(values, return_counts=True)
    pairs = len(values) * (len(values) - 1) / 2
    return float((counts * (counts - 1) / 2).sum() / pairs) if pairs else 0.0


# ── splits ────────────────────────────────────────────────────────────────────────────


def _split(zoo: Zoo, name: str) -> Split:
    if name == "iid":
        return split_files.by_group(zoo, fractions=SHARES, name="iid")
    axis, found, level = name.partition("=")
    if not found:
        raise TaskError(f"Unknown split {name!r}. Known: iid, and AXIS=LEVEL to hold a level out.")
    if axis not in zoo.axes:
        raise TaskError(unknown("axis", axis, zoo.axes, zoo.name))
    levels = {streams.canonical_json(v).strip('"'): v for v in zoo.models[axis].to_pylist()}
    if level not in levels:
        raise TaskError(unknown("level", level, levels, f"axis {axis!r}"))
    # Validation is like training, of whole groups: a rule chosen on the level that is asked about would know it.
    held = split_files.held_out(
        axis, zoo, test=[levels[level]], straddling="drop", fractions={"train": 0.6, "test": 0.4}
    )
    keys = split_files.group_keys(zoo)
    moved = {
        i: "validation" if side == "train" and int(streams.digest(["validation", keys[i]])[:8], 16) % 6 == 0 else side
        for i, side in held.assignment.items()
    }
    return Split(f"held-out-{axis}", VERSION, held.zoos, {**held.rule, "validation_of_train": 1 / 6}, moved)


def describe(found: Problem) -> dict[str, Any]:
    """What a result file says of the tasks."""
    return {
        "zoo": found.zoo, "zoo_digest": found.zoo_digest, "split": found.split_name, "split_digest": found.split.digest,
        "version": VERSION, "n": {s: len(getattr(found, s)) for s in SPLITS},
        "groups": {s: len(set(getattr(found, s).groups.tolist())) for s in SPLITS},
    }  # fmt: skip
