"""Trees of scikit-learn's histogram boosting → plain arrays, which predict without it and can be kept in a file.

In:  a fitted model of numbers. Out: a `Forest`: features (n, F) → sums of leaves (n, outputs).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Forest:
    """All trees' nodes one after another; a leaf is its own child on both sides."""

    feature: np.ndarray  # (N,) int64
    threshold: np.ndarray  # (N,) float64: at most this much goes left
    missing_left: np.ndarray  # (N,) bool: where NaN goes
    children: np.ndarray  # (N, 2) int64
    value: np.ndarray  # (N,) float64
    roots: np.ndarray  # (trees, outputs) int64
    start: np.ndarray  # (outputs,) float64
    depth: int

    @classmethod
    def of(cls, model: Any) -> Forest:
        """The trees of a HistGradientBoostingRegressor or Classifier that has learned from numbers alone."""
        nodes = [tree.nodes for step in model._predictors for tree in step]
        offsets = np.cumsum([0, *(len(n) for n in nodes)])
        joined = np.concatenate(nodes)
        own, first = np.arange(len(joined)), np.repeat(offsets[:-1], [len(n) for n in nodes])
        leaf = joined["is_leaf"].astype(bool)
        sides = [np.where(leaf, own, joined[side].astype(np.int64) + first) for side in ("left", "right")]
        return cls(
            np.where(leaf, 0, joined["feature_idx"]).astype(np.int64), joined["num_threshold"].astype(np.float64),
            joined["missing_go_to_left"].astype(bool), np.stack(sides, 1), joined["value"].astype(np.float64),
            offsets[:-1].reshape(len(model._predictors), -1), np.ravel(model._baseline_prediction).astype(np.float64),
            int(joined["depth"].max()),
        )  # fmt: skip

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, outputs) float64."""
        found = np.tile(self.start, (len(x), 1))
        for turn in self.turns(x):
            found += turn
        return found

    def turns(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """What each turn adds to `start`, (n, outputs) float64."""
        rows = np.arange(len(x))[:, None]
        for roots in self.roots:  # (outputs,)
            at = np.tile(roots, (len(x), 1))
            for _ in range(self.depth):
                here = x[rows, self.feature[at]]
                left = (here <= self.threshold[at]) | (np.isnan(here) & self.missing_left[at])
                at = self.children[at, np.where(left, 0, 1)]
            yield self.value[at]

    def first(self, turns: int) -> Forest:
        """The trees of the first turns alone; of none, what is foretold without having looked."""
        end = int(self.roots[turns, 0]) if turns < len(self.roots) else len(self.value)
        nodes = {n: getattr(self, n)[:end] for n in ("feature", "threshold", "missing_left", "children", "value")}
        return dataclasses.replace(self, roots=self.roots[:turns], **nodes)
