"""Targets, predictions and groups → a score as sums over groups and over pairs of groups.

In:  y and prediction [n], and each example's group as a number below G.
Out: `bootstrap.Sums`, whose value is the score on a scale without ends (`Form.back` undoes it), so that an
     interval cannot leave the score's range: logit of an AUC, atanh of τ, −log(1 − R²).

At equal weights each is the score of `zoo_datasets.metrics` (a test compares them).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo_datasets.core.bootstrap import Sums

ROUNDING = 1e-12  # of a number, relative
BLOCK_NUMBERS = 2**22  # pairs of examples compared at once, float64: 32 MB


@dataclasses.dataclass(frozen=True)
class Form:
    """How a score is made of sums, and what it says as a share of judgements that are right."""

    sums: Callable[..., Sums]  # of (y, prediction, group, G, **options)
    back: Callable[[Any], Any]  # from the endless scale, numbers or arrays
    by_class: bool = False  # what a group is worth depends on the classes it holds
    pairs: bool = False  # a judgement is about two groups
    share: Callable[[float], float] | None = None  # score → share in [0, 1]
    of_share: Callable[[float], float] | None = None


def no_pairs(n_groups: int) -> np.ndarray:
    return np.zeros((0, n_groups, n_groups))


def per_group(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Sums of columns [n, k] over groups, float64 [G, k]."""
    return np.column_stack([np.bincount(group, column, minlength=n_groups) for column in values.T])


def ratio(linear: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The first sum over the second: a mean of groups."""
    mean: np.ndarray = linear[..., 0] / linear[..., 1]
    return mean


def least_spread(y: np.ndarray) -> float:
    """What squares of y (n,) around a value may add up to by rounding alone: the mean of equal numbers is often none of them."""
    return float(ROUNDING**2 * (np.asarray(y, np.float64) ** 2).sum())


def _r2(y: np.ndarray, prediction: np.ndarray, group: np.ndarray, n_groups: int, baseline: float | None = None) -> Sums:
    center = y.mean() if baseline is None else baseline  # near the targets, so that squares do not cancel
    rounding = least_spread(y) / len(y)
    columns = np.column_stack([(y - prediction) ** 2, (y - center) ** 2, y - center, np.ones(len(y))])

    def of(linear: np.ndarray, _: np.ndarray) -> np.ndarray:
        error, square, total, count = np.moveaxis(linear, -1, 0)
        spread = square if baseline is not None else square - total**2 / count
        # Of equal numbers rounding leaves something, in the whole and in a resample of one value.
        least = np.maximum(rounding * count, ROUNDING * square if baseline is None else 0.0)
        scale: np.ndarray = np.log(np.where(spread > least, spread, np.nan)) - np.log(error)
        return scale

    return Sums(per_group(columns, group, n_groups), no_pairs(n_groups), of)


def _auc(y: np.ndarray, score: np.ndarray, group: np.ndarray, n_groups: int) -> Sums:
    positive = (y == 1).astype(np.float64)

    def won(i: slice) -> np.ndarray:  # (rows, n): a positive above a negative
        above = 0.5 * (1.0 + np.sign(score[i, None] - score))
        wins: np.ndarray = above * positive[i, None] * (1.0 - positive)
        return wins

    def of(linear: np.ndarray, quadratic: np.ndarray) -> np.ndarray:
        pairs = linear[..., 0] * linear[..., 1]
        return _logit(quadratic[..., 0] / np.where(pairs > 0.5, pairs, np.nan))

    return Sums(
        per_group(np.column_stack([positive, 1.0 - positive]), group, n_groups),
        _over_pairs([won], group, n_groups), of,
    )  # fmt: skip


def _kendall(y: np.ndarray, prediction: np.ndarray, group: np.ndarray, n_groups: int) -> Sums:
    def sign(values: np.ndarray, i: slice) -> np.ndarray:
        signs: np.ndarray = np.sign(values[i, None] - values)
        return signs

    def of(_: np.ndarray, quadratic: np.ndarray) -> np.ndarray:
        agree, untied, untied_too = np.moveaxis(quadratic, -1, 0)
        product = untied * untied_too
        tau = agree / np.sqrt(np.where((untied > 0.5) & (untied_too > 0.5), product, np.nan))
        scale: np.ndarray = np.arctanh(np.where(np.abs(tau) > 1 - 1e-9, np.sign(tau), tau))
        return scale

    kinds = [
        lambda i: sign(y, i) * sign(prediction, i), lambda i: np.abs(sign(y, i)), lambda i: np.abs(sign(prediction, i)),
    ]  # fmt: skip
    return Sums(np.zeros((n_groups, 0)), _over_pairs(kinds, group, n_groups), of)


def _over_pairs(kinds: list[Callable[[slice], np.ndarray]], group: np.ndarray, n_groups: int) -> np.ndarray:
    """Sums of each kind [rows, n] over pairs of groups, made symmetric: float64 [kinds, G, G]."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(n_groups))
    found = np.zeros((len(kinds), n_groups, n_groups))
    size = max(1, BLOCK_NUMBERS // len(group))
    for k in range(0, len(group), size):
        rows = slice(k, k + size)
        for number, kind in enumerate(kinds):
            np.add.at(found[number], group[rows], np.add.reduceat(kind(rows)[:, order], starts, axis=1))
    both: np.ndarray = (found + found.transpose(0, 2, 1)) / 2
    return both


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.where(share > 1 - 1e-9, 1.0, np.where(share < 1e-9, 0.0, share))  # what a subtraction leaves
    logit: np.ndarray = np.log(share) - np.log1p(-share)
    return logit


def _expit(z: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-z))


def _same(share: Any) -> Any:
    return share


FORMS = {
    "r2": Form(_r2, lambda z: 1.0 - np.exp(-z)),
    "kendall": Form(_kendall, np.tanh, pairs=True, share=lambda tau: (1 + tau) / 2, of_share=lambda p: 2 * p - 1),
    "auc": Form(_auc, _expit, by_class=True, share=_same, of_share=_same),
}
