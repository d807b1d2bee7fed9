"""Groups → permutations of labels that part nothing of what networks of a group share."""

from __future__ import annotations

import numpy as np


def permutations(
    groups: np.ndarray, count: int, rng: np.random.Generator, fold: np.ndarray | None = None
) -> np.ndarray:
    """Places (count, n) of labels that change places without parting what a group shares: inside groups at random, groups of one size (and one fold, in which a group lies whole) among each other."""
    _, first, label, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    found = np.empty((count, len(groups)), np.int64)
    pools = np.column_stack([sizes, fold[first] if fold is not None else np.zeros_like(sizes)])
    for pool in np.unique(pools, axis=0):
        own = np.flatnonzero((pools == pool).all(1))
        blocks = np.stack([np.flatnonzero(label == g) for g in own])  # (groups, size)
        drawn = np.broadcast_to(blocks, (count, *blocks.shape))
        drawn = rng.permuted(drawn, axis=2)
        order = rng.random((count, len(blocks))).argsort(1)
        found[:, blocks.ravel()] = np.take_along_axis(drawn, order[:, :, None], 1).reshape(count, -1)
    return found
