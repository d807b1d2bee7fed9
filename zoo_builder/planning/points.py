"""Grid → points: one level of every axis each, in plan order.

In:  a `Grid`: axes that are crossed, or a random sample, or both: each drawn point at every crossed one.
Out: what each point fixes, {setting: value}: crossed points by a hash of their levels, drawn ones as they
come, the crossed ones of each together. A point is worked out when it is first asked for, so that a limit costs what it takes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_builder.grid import Grid
from zoo_builder.recipe import bounds
from zoo_builder.recipe.axes import Axis, Draw
from zoo_datasets.core import exact, streams
from zoo_datasets.errors import GridError

Point = Mapping[str, Any]


class Points:
    """The points of a grid. Each is kept, and is the same object for every replicate that asks for it."""

    def __init__(self, grid: Grid) -> None:
        self.asked = grid.sample_points or math.prod(len(a.levels) for a in grid.axes)
        self._axes = () if grid.sample_points else grid.axes
        self._shape = tuple(len(a.levels) for a in self._axes)
        self._crossed: dict[int, Point] = {}  # by place
        self._place: dict[int, int] = {}  # by identity
        self._drawn: list[Point] = []
        self._rest = _sampled(grid) if grid.sample_points else None

    def __iter__(self) -> Iterator[Point]:
        if self._rest is None:
            yield from map(self._at, self._order)
            return
        for i in itertools.count():
            if i == len(self._drawn):
                point = next(self._rest, None)
                if point is None:
                    return
                self._drawn.append(point)
            yield self._drawn[i]

    def by_twins(self, paired: Collection[str], key: Callable[[Point], Any]) -> Iterator[Point]:
        """Crossed points in plan order, but each followed at once by its twins, in plan order too.

        Twins differ in axes of `paired` alone, and are equal by `key`.
        """
        taken: set[int] = set()
        for first in self._order:
            if first not in taken:
                for place in self._beside(int(first), paired):
                    if place not in taken and key(self._at(place)) == key(self._at(first)):
                        taken.add(place)
                        yield self._at(place)

    def rank(self, point: Point) -> int:
        """The place of a crossed point in plan order."""
        return int(self._rank[self._place[id(point)]])

    def _at(self, place: int) -> Point:
        place = int(place)
        if place not in self._crossed:
            levels = zip(self._axes, np.unravel_index(place, self._shape) if self._shape else (), strict=True)
            point = {k: v for axis, i in levels for k, v in axis.levels[i].values.items()}
            self._crossed[place], self._place[id(point)] = point, place
        return self._crossed[place]

    def _beside(self, place: int, paired: Collection[str]) -> list[int]:
        """The places of the points that differ from one in paired axes alone, itself among them, in plan order."""
        at = np.unravel_index(place, self._shape)
        levels = [np.arange(len(a.levels)) if a.name in paired else [i] for a, i in zip(self._axes, at, strict=True)]
        places = np.ravel_multi_index(np.meshgrid(*levels, indexing="ij"), self._shape).ravel()
        return [int(i) for i in places[np.argsort(self._rank[places])]]

    @functools.cached_property
    def _order(self) -> np.ndarray:
        return _order(self._axes)

    @functools.cached_property
    def _rank(self) -> np.ndarray:
        return np.argsort(self._order)


def _order(axes: Sequence[Axis]) -> np.ndarray:
    """The places of the crossed points by the digest of their labels, int64 [points]."""
    by_name = sorted(range(len(axes)), key=lambda i: axes[i].name)
    # The canonical JSON of {axis: label}, of pieces that are spelled once: a million points in seconds.
    pieces = [[streams.canonical_json({a.name: lv.label})[1:-1] for lv in a.levels] for a in axes]
    digests = b"".join(
        hashlib.sha256(f"{{{','.join([chosen[i] for i in by_name])}}}".encode()).digest()
        for chosen in itertools.product(*pieces)
    )
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)  # ordered as their hex digits are
    return np.lexsort(words.T[::-1])


def _sampled(grid: Grid) -> Iterator[Point]:
    """Each drawn point at every crossed one, and each of these with its twin: what are twins lie one after another."""
    crossed = list(itertools.product(*(axis.levels for axis in grid.axes)))
    crossed = [crossed[place] for place in _order(grid.axes)]
    for point in _drawn_points(grid, grid.sample_points // len(crossed) // (2 if grid.twin else 1)):
        for levels in crossed:
            yield (at := {**point, **{k: v for level in levels for k, v in level.values.items()}} if levels else point)
            if grid.twin:
                yield {**at, **grid.twin}


def _drawn_points(grid: Grid, most: int) -> Iterator[Point]:
    """Drawn points, equal ones of levels or whole numbers once; it ends where all that there are have come."""
    draws = grid.draws
    there_are = math.prod(_choices(d) for d in draws)
    seen: set[tuple[Any, ...]] = set()
    streams_of = [
        streams.uniform_stream(streams.stream_key({"seed": grid.seed, "stream": "sample", "axis": d.name}))
        for d in draws
    ]
    for number, us in enumerate(itertools.islice(zip(*streams_of, strict=False), most)):
        if number == bounds.MOST_POINTS:
            raise GridError(
                f"The first {number:,} drawn points of `sample` are {len(seen):,} different ones, and more models are asked "
                "for. Lower `models` of `sample` or `--limit`, or give its axes more levels."
            )
        if there_are < math.inf:
            places = tuple(int(u * _choices(d)) for d, u in zip(draws, us, strict=True))
            if places in seen:
                continue
            seen.add(places)
        yield {k: v for d, u in zip(draws, us, strict=True) for k, v in drawn(d, u).items()}
        if len(seen) == there_are:
            return


def _choices(draw: Draw) -> float:
    """How many values a draw can have."""
    if draw.kind == "choice":
        return len(draw.levels)
    return int(draw.high) - int(draw.low) + 1 if draw.kind == "integer" else math.inf


def drawn(draw: Draw, u: float) -> Point:
    """What a uniform in [0, 1) makes of a draw."""
    if draw.kind == "choice":
        return draw.levels[int(u * len(draw.levels))].values
    value: Any
    if draw.kind == "integer":
        value = int(draw.low) + int(u * (int(draw.high) - int(draw.low) + 1))
    elif draw.kind == "uniform":
        value = draw.low + (draw.high - draw.low) * u
    else:
        ratio = exact.log(np.array([draw.high / draw.low]))
        value = max(draw.low, float(draw.high * exact.exp((u - 1.0) * ratio)[0]))  # rounding may pass the end
    return {draw.name: value}
