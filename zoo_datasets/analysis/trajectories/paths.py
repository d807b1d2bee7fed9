"""Snapshots of each model, in order → the shape of its path in weight space.

In:  weights [T, P] of one model, T ≥ 3 snapshots in the order of training.
Out: a `Path`: lengths, angles and curvature, in float64; relations of step length and loss.

Every measure is unchanged by translation and rotation of weight space; lengths are in units of
weight (Euclidean), angles in radians.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals, metrics

# Where no model has a value.
NOTHING = {"value": None, "low": None, "high": None, "n_groups": 0, "n_examples": 0, "method": "none"}
FEWEST_SNAPSHOTS = 3  # snapshots: below, a path has no turn


@dataclasses.dataclass(frozen=True)
class Path:
    """The shape of a path w_0 … w_{T−1} with differences Δ_t = w_{t+1} − w_t.

    step        s_t = ‖Δ_t‖                                              [T−1]
    cosine      c_t = Δ_t·Δ_{t+1} / (s_t s_{t+1}); NaN beside a step of length 0   [T−2]
    length      Σ s_t
    chord       ‖w_{T−1} − w_0‖
    tortuosity  length / chord: 1 on a straight line
    smoothness  mean of c_t: 1 on a straight line, 0 for turns of 90°, −1 for reversals
    turn        θ_t = arccos c_t, radians                                [T−2]
    curvature   θ_t / ((s_t + s_{t+1}) / 2), radians per unit of weight: 1/r on a finely
                sampled circle of radius r                               [T−2]
    """

    step: np.ndarray
    cosine: np.ndarray
    chord: float

    @property
    def length(self) -> float:
        return float(self.step.sum())

    @property
    def tortuosity(self) -> float:
        return self.length / self.chord if self.chord > 0 else float("nan")

    @property
    def smoothness(self) -> float:
        return _mean(self.cosine)

    @property
    def turn(self) -> np.ndarray:
        return np.arccos(self.cosine)

    @property
    def curvature(self) -> np.ndarray:
        middle = (self.step[:-1] + self.step[1:]) / 2.0
        return np.divide(self.turn, middle, out=np.full(len(middle), np.nan), where=middle > 0)


def measure(weights: np.ndarray) -> Path:
    """The path of one model's snapshots [T, P]. Raises ValueError for fewer than three."""
    weights = np.asarray(weights)
    if weights.ndim != 2 or len(weights) < FEWEST_SNAPSHOTS:
        raise ValueError(
            f"Weights have shape {weights.shape}; a path needs (T, P) with T ≥ {FEWEST_SNAPSHOTS} snapshots."
        )
    w = weights.astype(np.float64)
    delta = np.diff(w, axis=0)  # [T-1, P]
    step = np.linalg.norm(delta, axis=1)
    return Path(step, cosines(delta[:-1], delta[1:]), float(np.linalg.norm(w[-1] - w[0])))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between each row of a [n, P] and of b; NaN where either is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    product = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    dot = np.einsum("...p,...p->...", a, b)
    cosine = np.divide(dot, product, out=np.full(np.shape(dot), np.nan), where=product > 0)
    return np.clip(cosine, -1.0, 1.0)


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def median(values: np.ndarray) -> float:
    """The median of what is finite; NaN of nothing."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


# ── steps and loss ────────────────────────────────────────────────────────────────────


def along_training(steps: Sequence[np.ndarray], losses: Sequence[np.ndarray]) -> np.ndarray:
    """Kendall's τ over each model's own course of step length s_t and loss before the step, [M].

    Both shrink while a network trains, so this says that they do, and no more; `across_models`
    takes time out.
    """
    return np.array([_kendall(s, loss[:-1]) for s, loss in zip(steps, losses, strict=True)])


def across_models(
    steps: Sequence[np.ndarray], losses: Sequence[np.ndarray], groups: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    """Kendall's τ-a of s_t and loss before the step over models at the same t, over all t, with its interval.

    Time is held fixed: does the model with the higher loss take the longer step? Models with
    fewer steps than others count where they have some.
    """
    m, length = len(steps), max(map(len, steps))
    s, loss = (np.full((m, length), np.nan) for _ in range(2))  # (M, T-1)
    for row, (a, b) in enumerate(zip(steps, losses, strict=True)):
        s[row, : len(a)], loss[row, : len(a)] = a, b[:-1]
    agree, compared = np.zeros((m, m)), np.zeros((m, m))
    for t in range(length):
        signs = np.sign(np.subtract.outer(s[:, t], s[:, t])) * np.sign(np.subtract.outer(loss[:, t], loss[:, t]))
        agree += np.nan_to_num(signs)
        compared += np.isfinite(signs)
    np.fill_diagonal(compared, 0)  # a model drawn twice is no pair

    def tau(rows: np.ndarray) -> float:
        times = np.bincount(rows, minlength=m).astype(np.float64)
        pairs = times @ compared @ times
        return float(times @ agree @ times / pairs) if pairs > 0 else float("nan")

    rows = np.flatnonzero(compared.any(axis=1))
    if not len(rows):
        return dict(NOTHING)
    return intervals.statistic(tau, [rows], np.asarray(groups)[rows], seed=seed, n=resamples).to_json()


def related(a: np.ndarray, b: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Kendall's τ of two values of each model, with an interval over groups; models that lack one are left out."""
    measured = np.isfinite(a) & np.isfinite(b)
    if measured.sum() < 2:
        return dict(NOTHING)
    return intervals.score("kendall", a[measured], b[measured], np.asarray(groups)[measured], seed=seed).to_json()


def _kendall(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return metrics.kendall(a[both], b[both]) if both.sum() >= 2 else float("nan")


def mean(values: np.ndarray, groups: np.ndarray, ends: tuple[float, float] | None = None) -> dict[str, Any]:
    """Mean of the groups' means as `intervals.mean` has it, as JSON; models without a value are left out."""
    values = np.asarray(values, np.float64)
    measured = np.isfinite(values)
    if not measured.any():
        return dict(NOTHING)
    return intervals.mean(values[measured], np.asarray(groups)[measured], ends=ends).to_json()


def share(hits: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Mean share of hits, in [0, 1], with exact bounds over groups, as JSON."""
    hits = np.asarray(hits, np.float64)
    measured = np.isfinite(hits)
    if not measured.any():
        return dict(NOTHING)
    return intervals.proportion(hits[measured], np.asarray(groups)[measured]).to_json()
