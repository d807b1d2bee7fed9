"""Snapshots → the singular value decomposition's ladder: d, d/2, …, 3 dimensions.

In:  all snapshots [n, P] in one matrix.
Out: coordinates [n, r] along the right singular vectors, largest first, and the share of squared
     length that the first k keep; the rungs.

Nothing is centered: the decomposition is of the weights as they are, as SVD says, so the cosine
of truncated snapshots still is about the origin. All coordinates together are a rotation of the
weights, which changes no distance and no angle. It is computed once, from the smaller of the
two Gram matrices in float64: singular values below 1e-8 of the largest are noise, and float32
weights hold none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SMALLEST = 3
ROWS = 1024  # converted to float64 at once


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Snapshots along their singular vectors."""

    coordinates: np.ndarray  # float32 [n, r], columns by falling singular value
    energy: np.ndarray  # [r] share of Σ‖w‖² that the first 1 … r columns keep


def rungs(dimension: int, smallest: int = SMALLEST) -> list[int]:
    """dimension, dimension/2, … rounded down, and last `smallest`."""
    dimensions = []
    while dimension > smallest:
        dimensions.append(dimension)
        dimension //= 2
    return [*dimensions, smallest]


def whole_down_to(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The fewest dimensions such that there and at every rung above single linkage (Euclidean) finds every run; None where at none."""
    least = None
    mine = [r for r in rows if (r["metric"], r["linkage"]) == ("euclidean", "single")]
    for row in sorted(mine, key=lambda r: -r["dimensions"]):
        if row["purity"] != 1.0:
            break
        least = row["dimensions"]
    return least


def decompose(weights: np.ndarray, most: int | None = None) -> Ladder:
    """The first `most` coordinates of all snapshots (None: all, as many as min(n, P))."""
    from scipy import linalg

    n, width = weights.shape
    size = min(n, width)
    gram = np.zeros((size, size))
    # Only the eigenvectors that are asked for are computed.
    keep = size if most is None else min(most, size)
    if width <= n:
        for start in range(0, n, ROWS):
            some = weights[start : start + ROWS].astype(np.float64)
            gram += some.T @ some
    else:
        for a in range(0, n, ROWS):
            left = weights[a : a + ROWS].astype(np.float64)
            for b in range(a, n, ROWS):
                product = left @ weights[b : b + ROWS].astype(np.float64).T
                gram[a : a + ROWS, b : b + ROWS] = product
                gram[b : b + ROWS, a : a + ROWS] = product.T
    total = float(np.trace(gram))
    values, vectors = linalg.eigh(gram, subset_by_index=(size - keep, size - 1), overwrite_a=True)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    # A vector's sign is arbitrary and differs between libraries: its largest entry is positive.
    sign = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(keep)])
    coordinates = np.empty((n, keep), np.float32)
    if width <= n:
        basis = vectors * sign
        for start in range(0, n, ROWS):
            coordinates[start : start + ROWS] = weights[start : start + ROWS].astype(np.float64) @ basis
    else:
        coordinates[:] = vectors * (sign * np.sqrt(values))
    return Ladder(coordinates, np.cumsum(values) / total)
