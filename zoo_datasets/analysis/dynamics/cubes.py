"""A map known at the corners of a grid → which cells it may take each cell to, as a sparse graph.

In:  a box cut into 2^k equal cells; lower and upper bounds of the map at every corner.
Out: per cell the rectangle of cells that may hold its image; a directed graph of those edges.

The rectangle is the bounding box of the corner bounds, padded by some cells: with equal
bounds and one cell it is the outer approximation of Eslami et al. (2021). Where the map is
uncertain a rectangle may hold thousands of cells, and the graph hundreds of millions of
edges. So an edge may also lead to a *block* of s × s × … cells, s a power of two, which leads
to its halves, down to cells: the same cells are reached, with a few edges each. Blocks have
no edges of their own, so paths between cells are those of the full graph. Needs scipy.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_SUBDIVISIONS = 20  # a million cells: 1 GB of graph in two dimensions


@dataclasses.dataclass(frozen=True)
class Cubes:
    """2^k equal cells of a box, numbered in C order; each dimension is halved in turn, the first one first."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    subdivisions: int  # k

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper) or not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise ValueError(
                f"The box from {self.lower} to {self.upper} is empty; each lower end must be below the upper."
            )
        if not self.dimension <= self.subdivisions <= MOST_SUBDIVISIONS:
            raise ValueError(
                f"{self.subdivisions} subdivisions; a box of {self.dimension} dimensions takes {self.dimension} to "
                f"{MOST_SUBDIVISIONS}."
            )

    @classmethod
    def around(cls, points: np.ndarray, subdivisions: int, margin: float = 0.5) -> Cubes:
        """The box [least − margin, largest + margin] of points [n, d]; 0.5 is the published margin."""
        return cls(tuple(points.min(0) - margin), tuple(points.max(0) + margin), subdivisions)

    @property
    def dimension(self) -> int:
        return len(self.lower)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Cells along each dimension."""
        whole, rest = divmod(self.subdivisions, self.dimension)
        return tuple(2 ** (whole + (i < rest)) for i in range(self.dimension))

    @property
    def n(self) -> int:
        return 2**self.subdivisions

    @property
    def widths(self) -> np.ndarray:
        """Of a cell, [d]."""
        return (np.array(self.upper) - self.lower) / self.shape

    def corners(self) -> np.ndarray:
        """All corners [V, d], V = ∏ (cells + 1), in C order; a corner of several cells stands here once."""
        axes = [np.linspace(a, b, n + 1) for a, b, n in zip(self.lower, self.upper, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dimension)

    def centers(self) -> np.ndarray:
        """[n, d]."""
        places = np.stack(np.unravel_index(np.arange(self.n), self.shape), -1)
        return self.lower + (places + 0.5) * self.widths

    def cell_of(self, points: np.ndarray) -> np.ndarray:
        """The cell that holds each point of [m, d], int64 [m]; −1 outside of the box."""
        places = np.floor((points - self.lower) / self.widths).astype(np.int64)
        places = np.where(points == self.upper, np.array(self.shape) - 1, places)
        inside = ((places >= 0) & (places < self.shape)).all(1)
        cells = np.ravel_multi_index(tuple(np.clip(places, 0, np.array(self.shape) - 1).T), self.shape)
        return np.where(inside, cells, -1)


@dataclasses.dataclass(frozen=True)
class Images:
    """For each cell the rectangle of cells that its image may meet: places first … last, both in the grid."""

    cubes: Cubes
    first: np.ndarray  # int64 [n, d]
    last: np.ndarray  # int64 [n, d]; below `first` where the image lies outside
    leaves: np.ndarray  # bool [n]: the image, before padding, is not inside the box

    def __post_init__(self) -> None:
        kept = ~self.empty
        assert (self.first[kept] >= 0).all()
        assert (self.last[kept] < self.cubes.shape).all()

    @property
    def empty(self) -> np.ndarray:
        """Cells whose whole image lies outside of the box, bool [n]."""
        return np.any(self.last < self.first, axis=1)

    @property
    def itself(self) -> np.ndarray:
        """Cells that meet their own image, bool [n]."""
        places = np.stack(np.unravel_index(np.arange(self.cubes.n), self.cubes.shape), -1)
        return np.all((self.first <= places) & (places <= self.last), axis=1)

    def graph(self) -> csr_array:
        """Edges from cells and blocks, [N, N]: nodes 0 … n − 1 are the cells, the others blocks."""
        from scipy.sparse import csr_array

        shape = np.array(self.cubes.shape)
        d = len(shape)
        length = np.where(self.empty[:, None], 0, self.last - self.first + 1)  # [n, d]
        # The largest block that fits: 2^level cells along each side.
        shortest = length.min(1)
        level = np.frexp(np.maximum(shortest, 1))[1] - 1  # floor(log2)
        level = np.minimum(level, np.frexp(shape.min())[1] - 1)
        n_levels = int(level.max(initial=0)) + 1
        spans = [shape - 2**l + 1 for l in range(n_levels)]  # places of a block of each level, [d]
        offsets = np.cumsum([0, *(int(np.prod(s)) for s in spans)])
        strides = np.array([np.append(np.cumprod(s[:0:-1])[::-1], 1) for s in spans])  # [levels, d]

        size = 2**level
        counts = -(-length // size[:, None])  # blocks along each dimension
        total = counts.prod(1)
        cell = np.repeat(np.arange(len(total)), total)
        rest = np.arange(len(cell)) - np.repeat(np.cumsum(total) - total, total)
        node = offsets[level][cell]
        for k in reversed(range(d)):
            rest, turn = np.divmod(rest, counts[cell, k])
            # The last block ends where the rectangle does, so it may overlap the one before.
            start = np.minimum(self.first[cell, k] + turn * size[cell], self.last[cell, k] + 1 - size[cell])
            node += start * strides[level[cell], k]
        indices, degrees = [node], [total]
        for l in range(1, n_levels):
            places = np.indices(tuple(spans[l])).reshape(d, -1).T @ strides[l - 1]
            halves = [sum(int(b) * 2 ** (l - 1) * s for b, s in zip(bits, strides[l - 1], strict=True))
                      for bits in itertools.product((0, 1), repeat=d)]  # fmt: skip
            indices.append((offsets[l - 1] + places[:, None] + np.array(halves)).ravel())
            degrees.append(np.full(len(places), 2**d))
        index = np.concatenate(indices)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(degrees))])
        # csgraph trusts its numbers: one beyond the nodes would read foreign memory, or never end.
        assert len(index) == starts[-1] < 2**31, f"{len(index):,} edges, degrees of {starts[-1]:,}"
        assert index.min(initial=0) >= 0
        assert index.max(initial=0) < offsets[-1], f"node {index.max():,} of {offsets[-1]:,}"
        # csgraph works in int32 and float64 and would convert each time it is called.
        return csr_array(
            (np.ones(len(index)), index.astype(np.int32), starts.astype(np.int32)), shape=(offsets[-1], offsets[-1])
        )


def images(cubes: Cubes, low: np.ndarray, high: np.ndarray, padding: int = 1) -> Images:
    """Where each cell may go, from bounds of the map at the corners, [V, d] each, in the order of `corners`.

    Cells are closed: an image that ends on a face meets the cells on both sides.
    """
    shape = tuple(n + 1 for n in cubes.shape)
    lower = _over_corners(low.reshape(*shape, -1), cubes.dimension, np.minimum)
    upper = _over_corners(high.reshape(*shape, -1), cubes.dimension, np.maximum)
    most = np.array(cubes.shape) - 1
    first = np.ceil((lower - cubes.lower) / cubes.widths) - 1 - padding
    last = np.floor((upper - cubes.lower) / cubes.widths) + padding
    outside = (first > most).any(1) | (last < 0).any(1)
    first, last = np.clip(first, 0, most), np.clip(last, 0, most)
    last[outside] = -1
    leaves = np.any((lower < cubes.lower) | (upper > np.array(cubes.upper)), axis=1)
    return Images(cubes, first.astype(np.int64), last.astype(np.int64), leaves)


def _over_corners(values: np.ndarray, d: int, best: np.ufunc) -> np.ndarray:
    """Least or largest value over the 2^d corners of each cell: (n₁ + 1, …, d) → [n, d]."""
    for axis in range(d):
        near, far = [slice(None)] * values.ndim, [slice(None)] * values.ndim
        near[axis], far[axis] = slice(None, -1), slice(1, None)
        values = best(values[tuple(near)], values[tuple(far)])
    return values.reshape(-1, d)
