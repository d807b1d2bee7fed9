"""The name of a task's split → the split, and the levels that it speaks of.

In:  an open zoo; `iid`, `AXIS=LEVEL` (that level held out), `from:AXIS=LEVEL` (learned on that level alone), or `AXIS` for each of its levels.
Out: a `Split` of `split_files`, by init group; levels by their labels: of a number that was drawn for each network its lowest quarter,
     its highest, and the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo_datasets import split_files
from zoo_datasets.core import streams
from zoo_datasets.errors import unknown
from zoo_datasets.split_files import Split
from zoo_datasets.targets import TaskError
from zoo_datasets.zoo import Zoo

VERSION = 1  # of the tasks' meaning; another filter, target or split under the same name takes the next
MOST_LEVELS = 12  # of an axis, that are asked about one by one; a number with more was drawn
SHARES = {"train": 0.5, "validation": 0.1, "test": 0.4}


def level_names(zoo: Zoo, axis: str) -> dict[str, str]:
    """Each value of an axis, as splits name it → its level. Raises TaskError.

    Of a number that was drawn for each network the levels are its lowest quarter, its highest, and the middle: to hold one out
    asks for what lies beyond what was learned, or between.
    """
    if axis not in zoo.axes:
        raise TaskError(unknown("axis", axis, zoo.axes, zoo.name))
    values = zoo.models[axis].to_pylist()
    labels = {label(v) for v in values}
    if len(labels) <= MOST_LEVELS:
        return {label: label for label in labels}
    if not all(isinstance(v, int | float) for v in values):
        raise TaskError(
            f"{axis} has {len(labels):,} levels in {zoo.name}, and a level is held out of at most {MOST_LEVELS}."
        )
    low, high = np.quantile(np.array(values, np.float64), [0.25, 0.75], method="inverted_cdf")
    return {label(v): "lowest" if v <= low else "highest" if v > high else "middle" for v in values}


def levels(zoo: Zoo, axis: str) -> list[str]:
    """The levels of an axis as splits name them. Raises TaskError."""
    return sorted(set(level_names(zoo, axis).values()))


def expand(zoo: Zoo, split: str) -> Iterator[str]:
    """`AXIS` is each of its levels in turn; everything else is itself. Raises TaskError."""
    if split == "iid" or "=" in split:
        yield named(zoo, split)
    elif split in zoo.axes:
        yield from (f"{split}={level}" for level in levels(zoo, split))
    else:
        raise TaskError(
            f"Unknown split {split!r}. Known: iid, AXIS=LEVEL to hold a level out, AXIS for each of its levels in turn, and "
            f"from:AXIS=LEVEL to learn on one. Axes of {zoo.name}: {', '.join(zoo.axes) or 'none'}."
        )


def made(zoo: Zoo, name: str) -> tuple[str | None, Split]:
    """The axis of whose level alone is learned, and the split."""
    if name == "iid":
        return None, split_files.by_group(zoo, fractions=SHARES, name="iid")
    axis, found, level = name.removeprefix("from:").partition("=")
    if not found:
        raise TaskError(f"Unknown split {name!r}. Known: iid, AXIS=LEVEL to hold a level out, from:AXIS=LEVEL.")
    if level not in (known := levels(zoo, axis)):
        raise TaskError(unknown("level", level, known, f"axis {axis!r}"))
    if name.startswith("from:"):
        return axis, split_files.by_group(zoo, fractions=SHARES, name=name)
    names = level_names(zoo, axis)
    values = {label(v): v for v in zoo.models[axis].to_pylist()}
    held_values = [v for label, v in values.items() if names[label] == level]
    keys = split_files.group_keys(zoo)
    sides: dict[str, set[bool]] = {}
    for model, value in zip(zoo.models["model_id"].to_pylist(), zoo.models[axis].to_pylist(), strict=True):
        sides.setdefault(keys[model], set()).add(names[label(value)] == level)
    torn = any(len(s) > 1 for s in sides.values())  # only then are networks left out
    held = split_files.held_out(
        axis, zoo, test=held_values, straddling="drop" if torn else "error", fractions={"train": 0.6, "test": 0.4},
    )  # fmt: skip
    # Validation is like training, of whole groups: a rule chosen on the level that is asked about would know it.
    drawn = {
        keys[i]: int(streams.digest(["validation", keys[i]])[:8], 16)
        for i, s in held.assignment.items()
        if s == "train"
    }
    chosen = {k for k, number in drawn.items() if number % 6 == 0} or {min(drawn, key=lambda k: drawn[k])}
    moved = {i: "validation" if side == "train" and keys[i] in chosen else side for i, side in held.assignment.items()}
    return None, Split(f"held-out-{axis}", VERSION, held.zoos, {**held.rule, "validation_of_train": 1 / 6}, moved)


def named(zoo: Zoo, split: str) -> str:
    """A split with its level as the zoo has it: 1e-3 is 0.001."""
    axis, equals, level = split.partition("=")
    if not equals or (plain := axis.removeprefix("from:")) not in zoo.axes:
        return split
    return next(
        (f"{axis}={known}" for known in levels(zoo, plain) if known == level or _same_number(known, level)), split
    )


def _same_number(known: str, given: str) -> bool:
    try:
        return float(known) == float(given)
    except ValueError:
        return False


def label(value: Any) -> str:
    return streams.canonical_json(value).strip('"')
