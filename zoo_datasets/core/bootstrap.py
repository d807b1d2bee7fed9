"""A statistic of groups → what it is in resamples of whole groups, and its jackknife error in each.

In:  `Sums`, for a statistic made of sums over groups and over pairs of groups, or any function of
     rows; how often each group is drawn, w [B, G].
Out: values and errors [B]; `t_bounds`: the bootstrap-t interval of Efron & Tibshirani (1993, ch. 12).

Deleting each group of each resample in turn is B · G statistics. From sums it is one product of
matrices: leaving group g out of w'Qw takes 2 (Qw)_g − Q_gg away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from zoo_datasets.core import streams

ROUNDING = 1e-9  # of an error: less is what sums leave of nothing, and would make a t of any size
BLOCK_NUMBERS = 2**22  # held at once, of float64: 32 MB


@dataclasses.dataclass(frozen=True)
class Sums:
    """A statistic as a function of sums over groups, and over ordered pairs of groups."""

    linear: np.ndarray  # (G, k)
    quadratic: np.ndarray  # (q, G, G), symmetric
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]  # sums (…, k) and (…, q) → values (…); NaN where undefined

    def values_and_errors(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The statistic [B] and its jackknife error over the groups drawn [B], of multiplicities w [B, G]."""
        n_groups = w.shape[1]
        size = max(1, BLOCK_NUMBERS // (n_groups * (self.linear.shape[1] + len(self.quadratic) + 2)))
        parts = [self._block(w[k : k + size].astype(np.float64)) for k in range(0, len(w), size)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _block(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n_groups = w.shape[1]
        linear = w @ self.linear  # (B, k)
        product = np.einsum("bg,qgh->bhq", w, self.quadratic, optimize=True)  # (B, G, q)
        quadratic = np.einsum("bgq,bg->bq", product, w)  # (B, q)
        own = np.einsum("qgg->gq", self.quadratic)
        left_out = self.of(linear[:, None] - self.linear, quadratic[:, None] - 2 * product + own)  # (B, G)
        return self.of(linear, quadratic), jackknife_error(left_out, w, n_groups)


def jackknife_error(left_out: np.ndarray, w: np.ndarray, n_groups: int) -> np.ndarray:
    """[B], from the statistic without one of group g's copies, `left_out` [B, G]; groups not drawn do not count."""
    left_out = np.where(w > 0, left_out, 0.0)
    with np.errstate(invalid="ignore"):
        spread = left_out - (w * left_out).sum(axis=-1, keepdims=True) / n_groups
        error: np.ndarray = np.sqrt((n_groups - 1) / n_groups * (w * spread**2).sum(axis=-1))
        return error


def of_function(
    function: Callable[..., float], arrays: Sequence[np.ndarray], label: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `Sums.values_and_errors`, for any function of arrays [n] whose rows are of groups `label` [n]."""
    rows = [np.flatnonzero(label == g) for g in range(w.shape[1])]
    values, errors = np.full(len(w), np.nan), np.full(len(w), np.nan)
    left_out = np.full(w.shape[1], np.nan)

    def at(times: np.ndarray) -> float:
        chosen = np.concatenate([np.tile(rows[g], times[g]) for g in np.flatnonzero(times)])
        return float(function(*(a[chosen] for a in arrays)))

    for b, times in enumerate(w):
        values[b] = at(times)
        drawn = np.flatnonzero(times)
        if len(drawn) > 1 and not np.isnan(values[b]):
            for g in drawn:
                left_out[g] = at(times - (np.arange(len(times)) == g))
            errors[b] = jackknife_error(left_out, times, len(times))
    return values, errors


def draws(n_groups: int, n: int, seed: int) -> np.ndarray:
    """How often each of `n_groups` is drawn in each of n resamples, int64 [n, n_groups], the same anywhere."""
    key = streams.stream_key(["bootstrap over groups", seed])
    drawn = streams.integers(key, np.full(n * n_groups, n_groups)).reshape(n, n_groups)
    return np.bincount((drawn + n_groups * np.arange(n)[:, None]).ravel(), minlength=n * n_groups).reshape(n, n_groups)


def t_bounds(
    value: float, error: float, values: np.ndarray, errors: np.ndarray, level: float
) -> tuple[float, float, float]:
    """Low, high, and the share of resamples that have no t: those where the statistic or its error is undefined.

    A resample at the end of an endless scale has t = ±∞, and a bound that depends on it is infinite.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.where(errors > ROUNDING * error, errors, 0.0 * errors)
        t = np.where(np.abs(values - value) <= ROUNDING * error, 0.0, values - value) / errors
    t[np.isinf(values)] = values[np.isinf(values)]
    usable = t[~np.isnan(t)]
    undefined = 1 - len(usable) / len(t)
    if not len(usable):
        return float("nan"), float("nan"), undefined
    tail = (1 - level) / 2
    # Order statistics, not between them: an infinite one would make its neighbors NaN.
    few, many = np.quantile(usable, tail, method="inverted_cdf"), np.quantile(usable, 1 - tail, method="inverted_cdf")
    return value - many * error, value - few * error, undefined
