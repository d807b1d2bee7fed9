"""Weights of models of one layout → pairs on different sides that are too near to be strangers.

In:  for each model its zoo, the row of its last snapshot, its side, its architecture.
Out: two lists of pairs: *near*, closer than two networks of different initializations come; and
     *copies*, far apart as they lie and the same network all the same: permuted, sign-flipped, rescaled; and how
     near that is, for a few weights come near by chance.

Distances are ‖a − b‖ / √(‖a‖² + ‖b‖²) of the kernels (no biases, norms or buffers, which start alike
everywhere), less each tensor's mean and scaled to norm 1: what all networks of a recipe have in common,
and how large its weights are, tell nothing apart. Twins lie below 0.31, strangers above 0.93,
whatever the mixture of inits. Found by comparing canonical forms (`symmetry.canonicalize`) are exact copies
alone, up to rounding: units of a copy that was trained on may have another order.
Every pair is compared: n² P multiplications, twice where the layers are known. In blocks, so that memory
stays below about 300 MB for networks of up to a million weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from zoo_datasets import symmetry
from zoo_datasets.core import meters
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Layout

# Held at once: four blocks of vectors, and a few matrices of distances between them.
BLOCK_BYTES = 32 * 2**20
MOST_BLOCK_ROWS = 2048
DOUBLE_BYTES = 8 * 2**20  # of rows that are float64 for a while, five times over
NEAR = 0.6  # half way between twins (≤ 0.31) and strangers (≥ 0.93)
COPY = 0.01  # rounding gives 1e-6; the canonical forms of strangers can be as near as 0.3 where weights are few
MOST_SAMPLED = 512  # models that say how many directions the weights have


@dataclasses.dataclass(frozen=True)
class Member:
    """One model: where its last weights lie, and on which side it is."""

    zoo: int
    row: int
    side: int
    model: str
    architecture: Architecture | External | None = None  # None: of a layout that nobody wrote down


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two models on different sides, and their distance: 0 the same direction, 1 strangers."""

    distance: float
    a: str
    b: str
    across_zoos: bool


@dataclasses.dataclass(frozen=True)
class Found:
    """Pairs of models of one layout."""

    near: list[Pair]
    copies: list[Pair]  # up to a symmetry, and not near as they lie
    limit: float  # of near pairs; what was asked for, or less where strangers come nearer


def find(zoos: Sequence[Any], members: Sequence[Member], near: float = NEAR) -> Found:
    """All pairs on different sides; all models are of one layout."""
    if len(members) < 2:
        return Found([], [], near)
    width = _read(zoos, members[:1]).shape[1]
    layout = members[0].architecture.layout if members[0].architecture is not None else None
    kernels = _kernels(layout, width)
    size = min(MOST_BLOCK_ROWS, max(1, BLOCK_BYTES // (4 * width)))
    blocks = (members[i : i + size] for i in range(0, min(len(members), MOST_SAMPLED), size))
    directions = _directions(_plain(_read(zoos, b), kernels) for b in blocks)
    near = min(near, chance(directions, len(members) * (len(members) - 1) // 2))
    side = np.array([m.side for m in members])
    found: tuple[list[Pair], list[Pair]] = ([], [])
    for i in meters.over(range(0, len(members), size), "comparing weights", "blocks"):
        left = _forms(zoos, members[i : i + size], kernels)
        for j in range(i, len(members), size):
            right = left if i == j else _forms(zoos, members[j : j + size], kernels)
            apart = side[i : i + size, None] != side[None, j : j + size]
            if i == j:
                apart &= np.triu(np.ones_like(apart), 1)
            for pairs, a, b, limit in zip(found, left, right, (near, min(near, COPY)), strict=True):
                for x, y, distance in _within(a, b, limit, apart):
                    p, q = members[i + x], members[j + y]
                    pairs.append(Pair(distance, p.model, q.model, p.zoo != q.zoo))
    known = {(p.a, p.b) for p in found[0]}
    copies = [p for p in found[1] if (p.a, p.b) not in known]
    return Found(sorted(found[0], key=_order), sorted(copies, key=_order), near)


def chance(n_directions: float, n_pairs: int) -> float:
    """How near the nearest of so many pairs of strangers comes once in a hundred audits.

    The squared cosine of two independent vectors in d directions has a beta distribution (1/2, (d − 1)/2): a few dozen
    weights come near by chance, two thousand do not. In one direction all are alike: nothing is near then.
    """
    from scipy.stats import beta

    if n_directions <= 1 + 1e-9:
        return 0.0
    tail = min(1.0, 2 * 0.01 / n_pairs)  # of both signs, of which one is near
    return math.sqrt(1.0 - math.sqrt(beta.isf(tail, 0.5, (n_directions - 1) / 2)))


def _order(pair: Pair) -> tuple[float, str, str]:
    return pair.distance, pair.a, pair.b


def _within(a: np.ndarray, b: np.ndarray, limit: float, apart: np.ndarray) -> list[tuple[int, int, float]]:
    """Rows of a and b nearer than the limit, where `apart`; of vectors [n, P] of norm 1 (or 0: near nothing)."""
    # ‖a − b‖² / 2 = 1 − a·b. Rounding of float32 is about 1e-6: keep what could be near, then compute it exactly.
    maybe = (a @ b.T >= 1.0 - limit**2 - 1e-5) & apart
    found = []
    for x, y in np.argwhere(maybe).tolist():
        distance = float(np.linalg.norm(a[x].astype(np.float64) - b[y].astype(np.float64)) / math.sqrt(2))
        if distance <= limit:
            found.append((x, y, distance))
    return found


# ── vectors ───────────────────────────────────────────────────────────────────────────


def _forms(zoos: Sequence[Any], members: Sequence[Member], kernels: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as they lie, and their canonical forms, float32 [n, P]; the latter 0 where nobody knows the layout."""
    weights = _read(zoos, members)
    canonical = np.zeros_like(weights)
    by_architecture: dict[int, list[int]] = {}
    for place, member in enumerate(members):
        by_architecture.setdefault(id(member.architecture), []).append(place)
    for places in by_architecture.values():
        architecture = members[places[0]].architecture
        if architecture is not None:
            kinds = symmetry.known_kinds(architecture)
            canonical[places] = symmetry.canonicalize(weights[places], architecture, kinds=kinds)
    return _plain(weights, kernels), _plain(canonical, kernels)


def _plain(weights: np.ndarray, kernels: list[slice]) -> np.ndarray:
    """Kernels less their means, of norm 1: float32 [n, P]; 0 where nothing is left."""
    out = np.empty((len(weights), sum(k.stop - k.start for k in kernels)), np.float32)
    step = max(1, DOUBLE_BYTES // (8 * weights.shape[1]))
    for i in range(0, len(weights), step):
        out[i : i + step] = _plain_rows(weights[i : i + step], kernels)
    return out


def _plain_rows(weights: np.ndarray, kernels: list[slice]) -> np.ndarray:
    """The same of some rows, float64 in between."""
    out = np.concatenate(
        [weights[:, k] - weights[:, k].mean(axis=1, keepdims=True, dtype=np.float64) for k in kernels], 1
    )
    norm = np.sqrt((out**2).sum(axis=1, keepdims=True))
    some = norm > 1e-6 * np.sqrt((weights.astype(np.float64) ** 2).sum(axis=1, keepdims=True))  # more than rounding
    return np.where(some, out / np.where(some, norm, 1.0), 0.0).astype(np.float32)


def _kernels(layout: Layout | None, width: int) -> list[slice]:
    """Where the kernels lie in a vector; all of it where there are none, or nobody knows."""
    entries = [e for e in layout or () if e.role == "parameter" and len(e.shape) > 1]
    return [slice(e.offset, e.end) for e in entries] or [slice(0, width)]


def _directions(blocks: Iterable[np.ndarray]) -> float:
    """In how many directions vectors [n, P] of some blocks differ: fewer than there are weights where a few are much larger."""
    power, n = np.zeros(1), 0
    for block in blocks:
        for vector in block:  # one after another: the sum does not depend on the size of a block
            power = power + vector.astype(np.float64) ** 2  # (P,)
        n += len(block)
    power = power / n
    return float(power.sum() ** 2 / max((power**2).sum(), 1e-300)) or 1.0


def _read(zoos: Sequence[Any], members: Sequence[Member]) -> np.ndarray:
    """The last weights of these models, float32 [n, P]."""
    number, row = np.array([m.zoo for m in members]), np.array([m.row for m in members])
    parts = {z: np.asarray(zoos[z].weights[row[number == z]], np.float32) for z in np.unique(number)}
    out = np.empty((len(members), next(iter(parts.values())).shape[1]), np.float32)
    for z, values in parts.items():
        out[number == z] = values
    return out
