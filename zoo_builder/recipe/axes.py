"""Blocks `axes` and `sample` of a recipe → the factors that are varied, with their levels.

In:  a `Document`.
Out: an `Axis` for each crossed factor, or a `Draw` for each of a random sample. What a level
means is in `levels.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo_builder.recipe import levels, settings
from zoo_builder.recipe.document import Document
from zoo_builder.recipe.values import coerce
from zoo_datasets.errors import GridError, unknown

SAMPLE_KEYS = ("models", "axes", "twins")
DISTRIBUTIONS = ("choice", "uniform", "log_uniform", "integer")


@dataclasses.dataclass(frozen=True)
class Level:
    """One value of an axis: its canonical label, and the settings it fixes."""

    label: str
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A varied factor and its levels, in the order given."""

    name: str
    levels: tuple[Level, ...]


@dataclasses.dataclass(frozen=True)
class Draw:
    """An axis of a random sample: a distribution with its numbers, or levels to choose from."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    levels: tuple[Level, ...] = ()


def crossed(document: Document) -> tuple[Axis, ...]:
    """The axes of block `axes`. Raises GridError."""
    return tuple(_axis(document, name, levels, ("axes", name)) for name, levels in document.mapping("axes").items())


def sampled(document: Document) -> tuple[int, tuple[Draw, ...]]:
    """The number of random points of block `sample`, and its axes; 0 and none without it. Raises GridError."""
    block = document.mapping("sample")
    if not block:
        return 0, ()
    for key in block:
        if key not in SAMPLE_KEYS:
            raise GridError(unknown("key of `sample`", key, SAMPLE_KEYS, document.where("sample", key)))
    points = block.get("models")
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise GridError(f"{document.where('sample')}: `sample` needs `models`, a whole number ≥ 1; got {points!r}.")
    axes = block.get("axes")
    if not isinstance(axes, dict) or not axes:
        raise GridError(
            f"{document.where('sample')}: `sample` needs `axes`, like {{lr: {{log_uniform: [1e-4, 1e-2]}}}}."
        )
    return points, tuple(_draw(document, name, spec) for name, spec in axes.items())


def twin(document: Document, draws: Sequence[Draw], paired: Sequence[str]) -> dict[str, Any]:
    """The settings in which the twin of every drawn point differs from it; none where `sample` has no `twins`. Raises GridError.

    A twin starts from the weights of its point: what differs is drawn by an axis, and that axis is paired.
    """
    block = document.mapping("sample").get("twins")
    if block is None:
        return {}
    where = document.where("sample", "twins")
    if not isinstance(block, dict) or not block:
        raise GridError(
            f"{where}: `twins` is {block!r}; the settings in which they differ are needed: {{trigger_frac: 0}}."
        )
    names = [d.name for d in draws if d.name in paired]
    values: dict[str, Any] = {}
    for name, value in block.items():
        place = document.where("sample", "twins", name)
        if name not in names:
            raise GridError(unknown("axis that is drawn and paired", name, names, place))
        values |= levels.expand(name, value, place)
    return values


def place_of(document: Document, axis: Axis | Draw) -> str:
    """The place of an axis, as messages begin with it."""
    return document.where(*(("axes",) if isinstance(axis, Axis) else ("sample", "axes")), axis.name)


def touched(axis: Axis | Draw) -> set[str]:
    """The settings that an axis fixes."""
    return {name for level in axis.levels for name in level.values} or {axis.name}


def extremes(axis: Axis | Draw) -> list[Mapping[str, Any]]:
    """Settings of every level; of a drawn number, at both ends of its range."""
    if axis.levels:
        return [level.values for level in axis.levels]
    assert isinstance(axis, Draw)
    return [{axis.name: axis.low}, {axis.name: axis.high}]


def _axis(document: Document, name: str, values: Any, path: tuple[str, ...]) -> Axis:
    where = document.where(*path)
    if name not in settings.AXES:
        if name in settings.BY_PATH:
            raise GridError(f"{where}: the axis of `{name}` is called `{settings.BY_PATH[name].name}`.")
        raise GridError(unknown("axis", name, settings.AXES, where))
    if not isinstance(values, list) or not values:
        raise GridError(f"{where}: axis `{name}` is {values!r}; a list of levels is needed, like [1e-3, 1e-4].")
    result: dict[str, Level] = {}
    for i, value in enumerate(values):
        place = document.where(*path, i)
        fixed = levels.expand(name, value, place)
        label = levels.label(name, settings.DEFAULTS | fixed)
        if label in result:
            raise GridError(f"{place}: level {value!r} of `{name}` is there already (both are {label}).")
        result[label] = Level(label, fixed)
    return Axis(name, tuple(result.values()))


def _draw(document: Document, name: str, spec: Any) -> Draw:
    where = document.where("sample", "axes", name)
    if name not in settings.AXES:
        raise GridError(unknown("axis", name, settings.AXES, where))
    if isinstance(spec, list):
        return Draw(name, "choice", levels=_axis(document, name, spec, ("sample", "axes", name)).levels)
    if not isinstance(spec, dict) or len(spec) != 1:
        raise GridError(f"{where}: `{name}` is {spec!r}; one of {', '.join(DISTRIBUTIONS)} is needed.")
    kind, value = next(iter(spec.items()))
    if kind not in DISTRIBUTIONS:
        raise GridError(unknown("distribution", kind, DISTRIBUTIONS, where))
    if kind == "choice":
        return Draw(name, kind, levels=_axis(document, name, value, ("sample", "axes", name, kind)).levels)
    setting = settings.SETTINGS.get(name)
    if setting is None or setting.kind != ("int" if kind == "integer" else "float"):
        raise GridError(f"{where}: `{name}` cannot be drawn {kind}; use `choice` with a list of levels.")
    if not isinstance(value, list) or len(value) != 2 or None in value:
        raise GridError(f"{where}: `{kind}` needs [low, high], got {value!r}.")
    low, high = (coerce(setting, v, where) for v in value)
    if not low < high or (kind == "log_uniform" and low <= 0):
        raise GridError(
            f"{where}: `{kind}: [{low}, {high}]` needs low < high" + (", both above 0." if low <= 0 else ".")
        )
    if kind == "log_uniform" and not math.isfinite(high / low):
        raise GridError(f"{where}: `{kind}: [{low}, {high}]` is too wide for numbers of 64 bits.")
    return Draw(name, kind, low, high)
