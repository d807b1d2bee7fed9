"""Settings of a population → the properties that are read from weights: classes and numbers, with a kind.

In:  zoos. Out: a `Property` for each setting that varies among their networks, and why others are none.

A setting with few levels is a class, also where these are numbers (a batch size); one that was drawn from a range is a
number, and its logarithm where it spans decades. Of settings that say the same in other words (an alias) the first
is asked about. The kind says when a property can show at all: before the first step only architecture and
initialization can.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from zoo_datasets import targets
from zoo_datasets.baselines.interface import Target
from zoo_datasets.core import streams
from zoo_datasets.core.arrow import floats_of
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.exchange.nws.properties import DATASETS
from zoo_datasets.sources.rows import NAMES
from zoo_datasets.zoo import Zoo

MOST_LEVELS = 16  # of a class; a number with more is asked for as a number
ARCHITECTURE, INITIALIZATION, TRAINING = KINDS = ("architecture", "initialization", "training")
# Networks beyond the first of their layout: with fewer, a setting that the layout determines is no finding.
FEWEST_SHARED = 10
UNSEEN = -1.0  # the number of a level that a population has not
SHAPES = ("width", "depth", "filter", "kernel", "channels", "layers", "units", "architecture")
GRAYS = ("mnist", "fashion")  # sources that differ in their images alone: both gray, of one size


@dataclasses.dataclass(frozen=True)
class Property:
    """One setting of M networks."""

    target: Target
    kind: str  # one of `KINDS`
    levels: tuple[str, ...]  # of a class, by number
    logarithm: bool  # whether values are logarithms to base 10
    values: np.ndarray  # (M,) float64: a class by its number, or a number; NaN where a network has none
    column: str  # the setting it is made of
    telling: tuple[str, ...]  # other settings that give it away

    @property
    def name(self) -> str:
        return self.target.name


def found(
    zoos: Sequence[Zoo], layouts: np.ndarray, names: Sequence[str] | None = None
) -> tuple[list[Property], dict[str, str], pa.Table]:
    """Properties of the zoos' models, why other settings are none, and the settings themselves, a row a model.

    `layouts` says for each model which one it has. Raises ZooError for an unknown name, or where nothing varies.
    """
    known = list(dict.fromkeys([*(a for z in zoos for a in z.axes), *(f for z in zoos for f in z.manifest.factors)]))
    for name in names or ():
        if name not in known:
            raise ZooError(unknown("property", name, known, _names(zoos)))
    kept: dict[str, Property] = {}
    refused: dict[str, str] = {}
    columns: dict[str, pa.ChunkedArray] = {}
    for name in known:
        try:
            columns[name] = _column(zoos, name)
        except ZooError as error:
            if name in (names or ()):
                raise
            refused[name] = str(error)
    for name, column in columns.items():
        labels = _labels(column)
        if len(set(labels)) < 2:
            if name in (names or ()) or any(name in z.axes for z in zoos):
                refused[name] = f"it is {labels[0] if len(labels) else 'nothing'} for every network"
            continue
        own = _of(zoos, name, column, labels, layouts)
        if isinstance(own, str):
            refused[name] = own
        elif said := next((k for k in kept if _says(kept[k], _labels(columns[k]), labels, name, zoos)), None):
            refused[name] = f"`{said}` says it too"
        else:
            kept[name] = own
    table = pa.table({n: columns[n] for n in kept}) if kept else pa.table({})
    asked = [p for n, p in kept.items() if names is None or n in names]
    if not asked:
        why = "; ".join(f"`{n}`: {refused[n]}" for n in names or () if n in refused)
        raise ZooError(
            f"No setting varies among the {len(layouts):,} networks of {_names(zoos)} that could be read from weights. "
            + (f"{why}." if why else "Build a zoo whose axes vary.")
        )
    return [*asked, *_grays(asked)], refused, table


def like(zoo: Zoo, of: Property) -> Property:
    """The property of another zoo's models, in the same levels; `UNSEEN` where it is none of them, NaN where it is not known."""
    labels = _labels(_column([zoo], of.column))
    if of.target.classes:
        place = {level: float(i) for i, level in enumerate(of.levels)}
        values = np.array([place.get(_plain(label, of), np.nan if label == "null" else UNSEEN) for label in labels])
    else:
        numbers = np.array([_number(label) for label in labels])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(np.isfinite(numbers), np.log10(numbers) if of.logarithm else numbers, np.nan)
    return dataclasses.replace(of, values=values)


def _plain(label: str, of: Property) -> str:
    """A level as the property shows it."""
    plain = label.strip('"')
    return DATASETS.get(plain.rpartition("/")[2].lower(), plain) if of.levels == GRAYS else plain


def _of(
    zoos: Sequence[Zoo], name: str, column: pa.ChunkedArray, labels: np.ndarray, layouts: np.ndarray
) -> Property | str:
    """The property, or why it is none."""
    kind = _kind(name, labels, layouts)
    telling = tuple(dict.fromkeys(t for z in zoos for t in targets.telling(z, name)))
    levels = tuple(sorted(set(labels), key=lambda v: (_number(v), v)))
    number = (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)) and name not in NAMES
    if number and (len(levels) > MOST_LEVELS or 2 < len(levels) == len(labels)):  # of few networks each has its own too
        values = floats_of(column)
        seen = values[np.isfinite(values)]
        wide = bool(seen.min() > 0 and seen.max() / seen.min() > targets.LOG_RANGE)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Property(Target(name), kind, (), wide, np.log10(values) if wide else values, name, telling)
    if len(levels) > MOST_LEVELS:
        return f"its {len(levels):,} levels are no quantities; at most {MOST_LEVELS} are told apart"
    place = {level: float(i) for i, level in enumerate(levels)}
    values = np.array([place[v] for v in labels])
    shown = tuple(level.strip('"') for level in levels)
    return Property(Target(name, len(levels)), kind, shown, False, values, name, telling)


def _grays(asked: Sequence[Property]) -> list[Property]:
    """Of a population with more sources than two gray ones of one size, those two as a task of its own."""
    found = []
    for p in asked:
        named = {DATASETS.get(level.rpartition("/")[2].lower(), level): i for i, level in enumerate(p.levels)}
        if len(p.levels) > 2 and all(g in named for g in GRAYS):
            pair = [named[g] for g in GRAYS]
            values = np.select([p.values == i for i in pair], [0.0, 1.0], np.nan)
            target = Target(f"{p.name}: {' or '.join(GRAYS)}", 2)
            found.append(dataclasses.replace(p, target=target, levels=GRAYS, values=values))
    return found


def _kind(name: str, labels: np.ndarray, layouts: np.ndarray) -> str:
    """Whether the layout of the weights determines it, whether it is how they start, or neither.

    Where hardly two networks share a layout, every setting would follow from it: then the name has to tell.
    """
    if name.startswith("init"):
        return INITIALIZATION
    kinds = np.unique(layouts.astype(str))
    pairs = set(zip(layouts.tolist(), labels.tolist(), strict=True))
    if len(layouts) - len(kinds) < FEWEST_SHARED:
        return ARCHITECTURE if any(word in name for word in SHAPES) else TRAINING
    return ARCHITECTURE if len(kinds) > 1 and len(pairs) == len(kinds) else TRAINING


def _says(of: Property, other: np.ndarray, labels: np.ndarray, name: str, zoos: Sequence[Zoo]) -> bool:
    """Whether another setting says this one: always the same levels together; or this is no axis and follows from it.

    Of a number, which differs from network to network, everything would follow: it has to be the same one.
    """
    if not of.target.classes:
        return bool((other == labels).all())
    pairs = set(zip(other.tolist(), labels.tolist(), strict=True))
    follows = len(pairs) == len({a for a, _ in pairs})
    told = len(pairs) == len({b for _, b in pairs})
    return follows and (told or not any(name in z.axes for z in zoos))


def _column(zoos: Sequence[Zoo], name: str) -> pa.ChunkedArray:
    """A setting of all models; null in a zoo without it. Raises ZooError where zoos hold it as different types."""
    parts = [z.models[name] if name in z.models.column_names else None for z in zoos]
    kinds = {p.type for p in parts if p is not None}
    if len(kinds) > 1:
        shown = ", ".join(sorted(map(str, kinds)))
        raise ZooError(f"`{name}` is of different types in {_names(zoos)}: {shown}. Analyze them one by one.")
    kind = kinds.pop() if kinds else pa.null()
    chunks = [
        chunk
        for zoo, part in zip(zoos, parts, strict=True)
        for chunk in ([pa.nulls(len(zoo.models), kind)] if part is None else part.chunks)
    ]
    return pa.chunked_array(chunks, kind)


def _labels(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([streams.level_json(v) for v in column.to_pylist()], object)


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return np.inf


def _names(zoos: Sequence[Zoo]) -> str:
    return ", ".join(z.name for z in zoos)
