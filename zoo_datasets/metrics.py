"""Targets and predictions → a number, and an interval that knows which models belong together.

In:  y and prediction, arrays [n] in the same order.
Out: floats; `interval` gives value, bounds and all that is needed to compute them again.

A metric that is not defined for its input (no spread, one class) is NaN, never 0. Models that
share an initialization are near-twins, so `interval` draws whole groups, not models: an
interval over single models would be too narrow. `auc` and `balanced_accuracy` are scikit-learn's
in a few lines: a thousand resamples of a thousand examples take 0.5 and 0.1 s, with its own 6 and 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo_datasets import errors
from zoo_datasets.core import streams
from zoo_datasets.core.jsonable import jsonable


def r2(y: np.ndarray, prediction: np.ndarray, baseline: float | None = None) -> float:
    """Share of squared error that the prediction takes off the baseline's: 1 − Σ(y − p)² / Σ(y − b)².

    `baseline` is what one would predict without the inputs: out of sample, the mean of the
    *training* targets (Campbell & Thompson 2008). None means the mean of y
    itself, which knows the answers and so is the harder one. NaN where y equals the baseline.
    """
    y, prediction = _numbers(y, prediction)
    spread = ((y - (y.mean() if baseline is None else baseline)) ** 2).sum()
    return float(1.0 - ((y - prediction) ** 2).sum() / spread) if spread > 0 else float("nan")


def mae(y: np.ndarray, prediction: np.ndarray) -> float:
    """Mean absolute error, in the unit of y."""
    y, prediction = _numbers(y, prediction)
    return float(np.abs(y - prediction).mean())


def difference(y: np.ndarray, prediction: np.ndarray) -> float:
    """Mean of prediction − y: with `interval`, a paired difference of two arms."""
    y, prediction = _numbers(y, prediction)
    return float((prediction - y).mean())


def accuracy(y: np.ndarray, prediction: np.ndarray) -> float:
    """Share of labels that are equal; labels of any type."""
    y, prediction = _pair(y, prediction)
    return float((y == prediction).mean())


def balanced_accuracy(y: np.ndarray, prediction: np.ndarray) -> float:
    """Mean over the classes in y of the share predicted right; chance is 1 / classes."""
    y, prediction = _pair(y, prediction)
    _, label = np.unique(y, return_inverse=True)
    return float((np.bincount(label, y == prediction) / np.bincount(label)).mean())


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Chance that a positive (y = 1) scores above a negative (y = 0), ties one half; NaN for one class."""
    from scipy.stats import rankdata

    y, score = _numbers(y, score)
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"auc takes labels 0 and 1, got {errors.alternatives(np.unique(y))}.")
    positives = int(y.sum())
    negatives = len(y) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(score)[y == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


# Up to here all pairs at once are faster than scipy's sorting, which takes a millisecond for a dozen numbers.
MOST_PAIRED = 256


def kendall(y: np.ndarray, prediction: np.ndarray) -> float:
    """Kendall's τ-b in [−1, 1], which counts ties on either side; NaN where one side is constant."""
    from scipy.stats import kendalltau

    y, prediction = _numbers(y, prediction)
    if len(y) < 2:
        return float("nan")
    if len(y) <= MOST_PAIRED:
        a, b = (np.sign(v[:, None] - v) for v in (y, prediction))  # (n, n)
        untied = np.abs(a).sum() * np.abs(b).sum()
        return float((a * b).sum() / np.sqrt(untied)) if untied else float("nan")
    return float(kendalltau(y, prediction, method="asymptotic").statistic)  # its own p-value is not asked for


SCORES: dict[str, Callable[..., float]] = {
    "r2": r2, "kendall": kendall, "accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "auc": auc,
    "mae": mae, "difference": difference,
}  # fmt: skip


# ── intervals ─────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Interval:
    """A metric with percentile bounds, and the recipe that gives the same bounds again."""

    metric: str
    value: float
    low: float
    high: float
    level: float  # of the interval: 0.95
    n: int  # resamples drawn
    n_undefined: int  # of them left out: the metric was NaN
    seed: int
    n_groups: int
    n_examples: int
    options: dict[str, Any]  # passed on to the metric, such as r2's baseline

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.level:.0%}, {self.n_groups:,} groups)"

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it: NaN as null."""
        return jsonable(dataclasses.asdict(self))


def interval(
    metric: str | Callable[..., float], y: np.ndarray, prediction: np.ndarray, groups: np.ndarray,
    n: int = 1000, seed: int = 0, *, level: float = 0.95, **options: Any,
) -> Interval:  # fmt: skip
    """The metric and its bootstrap interval over whole groups (percentiles; Efron 1979, Field & Welsh 2007).

    `groups` [n] names each example's group: `init_group`. Each of `n` resamples draws as many
    groups as there are, with replacement, and takes all examples of a group each time it
    is drawn. The draws come from `seed` and the number of groups alone, the same anywhere.
    Raises ValueError for fewer than two groups, or where shapes do not fit.
    """
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    if isinstance(metric, str):
        if metric not in SCORES:
            raise ValueError(errors.unknown("metric", metric, SCORES))
        metric = SCORES[metric]
    y, prediction, groups = np.asarray(y), np.asarray(prediction), np.asarray(groups)
    if groups.shape != y.shape:
        raise ValueError(f"groups have shape {groups.shape}, y has {y.shape}: one group an example is needed.")
    if not 0 < level < 1 or n < 1:
        raise ValueError(f"level is {level} and n is {n}; an interval needs 0 < level < 1 and n ≥ 1.")
    value = metric(y, prediction, **options)
    label = np.unique(groups, return_inverse=True)[1]
    n_groups = int(label.max(initial=-1)) + 1
    if n_groups < 2:
        raise ValueError(f"{n_groups} group: an interval over groups needs at least two. Report the value alone.")
    key = streams.stream_key(["bootstrap over groups", seed])
    drawn = np.empty(n)
    for turn in range(n):
        groups_drawn = streams.integers(key, np.full(n_groups, n_groups), (turn, 0, streams.SEQUENCE))
        times = np.bincount(groups_drawn, minlength=n_groups)
        rows = np.repeat(np.arange(len(y)), times[label])
        drawn[turn] = metric(y[rows], prediction[rows], **options)
    defined = drawn[~np.isnan(drawn)]
    tail = (1.0 - level) / 2.0
    low, high_bound = np.quantile(defined, [tail, 1.0 - tail]) if len(defined) else (float("nan"),) * 2
    undefined = n - len(defined)
    return Interval(
        name, float(value), float(low), float(high_bound), level, n, undefined, seed, n_groups, len(y), dict(options)
    )


# ── input ─────────────────────────────────────────────────────────────────────────────


def _pair(y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, prediction = np.asarray(y), np.asarray(prediction)
    if y.ndim != 1 or y.shape != prediction.shape:
        raise ValueError(f"y has shape {y.shape}, the prediction {prediction.shape}; both must be (n,).")
    if not len(y):
        raise ValueError("There is nothing to score: y is empty.")
    return y, prediction


def _numbers(y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, prediction = _pair(y, prediction)
    y, prediction = y.astype(np.float64), prediction.astype(np.float64)
    for name, values in (("y", y), ("the prediction", prediction)):
        wrong = int((~np.isfinite(values)).sum())
        if wrong:
            raise ValueError(
                f"{wrong} of {len(values)} values of {name} are not finite; leave those examples out, and say so."
            )
    return y, prediction
