"""A matrix → its leading principal components, by iteration on a subspace.

In:  float32 [n, P], rows that are centered here, and copied only where one is so large that float32 overflows.
Out: `Components`: mean, directions of norm 1 and their shares of the variance, the largest first.

A direction's sign is that of its largest weight, so that the same rows give the same map. Halko, Martinsson &
Tropp, "Finding structure with randomness" (2011), iterated until the shares no longer move.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from zoo_datasets.core import streams

MORE = 8  # directions beside those asked for, which speed convergence up
MOST_ROUNDS = 60
SETTLED = 1e-6  # of the variance: what a round may still move
SMALL = 400  # rows or columns of which all eigenvectors are taken
LARGE = 1e12  # weights of networks that diverged: products of their sums leave float32


@dataclasses.dataclass(frozen=True)
class Components:
    """Where a map's axes point."""

    mean: np.ndarray  # float64 [P]
    directions: np.ndarray  # float64 [P, k]
    shares: np.ndarray  # float64 [k]

    def project(self, x: np.ndarray) -> np.ndarray:
        """Coordinates float32 [m, k] of rows [m, P]; infinite where float32 holds none."""
        x = _roomy(x)
        with np.errstate(over="ignore"):
            return (x @ self.directions.astype(x.dtype) - (self.mean @ self.directions)).astype(np.float32)

    def padded(self, k: int) -> Components:
        """The same with directions of nothing, where the rows lie in fewer than k."""
        more = k - len(self.shares)
        return Components(
            self.mean, np.pad(self.directions, ((0, 0), (0, more))), np.pad(self.shares, (0, more))
        )  # fmt: skip


def principal(x: np.ndarray, k: int) -> Components | None:
    """The k leading components of rows, or as many as there are; None where rows do not differ."""
    x = _roomy(x)
    n, width = x.shape
    mean = x.mean(axis=0, dtype=np.float64)
    total = float(np.einsum("ij,ij->", x, x, dtype=np.float64)) - n * float(mean @ mean)
    scale = float(np.abs(x).max(initial=0.0))
    if not total > 1e-10 * n * width * scale**2:
        return None
    k = min(k, n - 1, width)
    if min(n, width) <= SMALL:
        centered = x - mean
        if width <= n:
            values, vectors = np.linalg.eigh(centered.T @ centered)
        else:
            values, short = np.linalg.eigh(centered @ centered.T)
            vectors = centered.T @ short / np.sqrt(np.maximum(values, 1e-300))
        order = np.argsort(values)[::-1][:k]
        values, vectors = values[order], vectors[:, order]
    else:
        values, vectors = _iterated(x, mean, k, total)
    good = values > 1e-12 * total
    vectors, values = vectors[:, good], values[good]
    top = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], 0)[0]
    return Components(mean, vectors * np.where(top < 0, -1.0, 1.0), values / total)


def _roomy(x: np.ndarray) -> np.ndarray:
    """The same rows, as doubles where sums of their products would leave float32."""
    return x.astype(np.float64) if np.abs(x).max(initial=0.0) > LARGE else x


def _iterated(x: np.ndarray, mean: np.ndarray, k: int, total: float) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of the scatter matrix and their vectors."""
    width = x.shape[1]
    start = streams.normals(streams.stream_key(["principal components", width]), width * (k + MORE))
    basis = np.linalg.qr(np.asarray(start, np.float64).reshape(width, k + MORE))[0]
    before = np.zeros(k)
    for _ in range(MOST_ROUNDS):
        seen = x @ basis.astype(x.dtype) - (mean @ basis)  # (n, k + MORE)
        values, turn = np.linalg.eigh(seen.T @ seen)
        now = values[::-1][:k]
        if np.abs(now - before).max() <= SETTLED * total:
            break
        before = now
        back = (x.T @ seen.astype(x.dtype)).astype(np.float64) - np.outer(mean, seen.sum(axis=0))
        basis = np.linalg.qr(back)[0]
    return now, basis @ turn[:, ::-1][:, :k]
