"""Values and the groups they belong to → a number with bounds, the unit being the group.

In:  arrays [n], and for each example the group it shares something with: `init_group`, a lineage, a data draw.
Out: an `Interval`: value, bounds, how they were made, and what they leave out.

`mean` and differences take Student's t on the means of groups, `crossed_mean` where two things are
shared at once (an initialization and a data draw), `proportion` exact binomial bounds, `score` and
`statistic` a bootstrap-t with jackknife errors (Efron & Tibshirani 1993, ch. 12). Below five groups there
are no bounds, and `note` says so; below twenty it warns. Percentiles of a bootstrap are not used: at a
nominal 95 % they cover 84 % with five groups. Coverage is simulated in tests/test_interval_coverage.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets.core.jsonable import jsonable

# With four groups and fewer, half of a t interval is the quantile and none of it the data.
FEWEST_GROUPS = 5
# Below these, skewed groups still cost some per cent of coverage (tests/test_interval_coverage.py).
FEW_GROUPS = 20
RESAMPLES = 999  # 25 of them in each tail of 95 %
# Units that are deleted in turn: a score's are sums over groups, any other function is computed anew for each.
MOST_UNITS, MOST_UNITS_OF_A_FUNCTION = 1000, 40
MOST_UNDEFINED = 0.1  # of the resamples: with more, what is left is no longer a sample of them


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with bounds at `level`; the bounds are NaN where there are none, and `note` says why."""

    of: str  # what is estimated: "mean of groups", "auc"
    value: float
    low: float
    high: float
    level: float  # 0.95
    method: str  # "t", "crossed t", "exact", "bootstrap-t", or "none"
    n_groups: int
    n_examples: int
    note: str = ""  # why there are no bounds, that groups are few, of which variation the bounds are
    seed: int | None = None  # of the resamples, where there are any

    def __str__(self) -> str:
        return f"{self.of} {self.value:.4f} {self.bounds()}"

    def bounds(self) -> str:
        """`[low, high] (95%, 12 groups, t; fewer than 20 groups)`, or why there are none."""
        if self.method == "none":
            return f"[no interval: {self.note}]"
        note = f"; {self.note}" if self.note else ""
        return f"[{self.low:.4f}, {self.high:.4f}] ({self.level:.0%}, {self.n_groups:,} groups, {self.method}{note})"

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it: NaN as null."""
        return jsonable(dataclasses.asdict(self))


def mean(values: np.ndarray, groups: np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean of group means and its t interval: what a new group gives on average, however many examples it has."""
    from scipy.stats import t

    values, label, n_groups = _grouped(values, groups, level)
    means = np.bincount(label, values) / np.bincount(label)
    value = float(means.mean())
    if n_groups < FEWEST_GROUPS:
        return _none("mean of groups", value, level, n_groups, len(values))
    half = float(t.ppf((1 + level) / 2, n_groups - 1) * means.std(ddof=1) / np.sqrt(n_groups))
    return _interval("mean of groups", value, (value - half, value + half), level, "t", n_groups, len(values))


def difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean over groups of second − first, pair by pair, and its t interval."""
    return dataclasses.replace(
        mean(np.asarray(second, np.float64) - np.asarray(first, np.float64), groups, level=level),
        of="mean difference of groups",
    )


def proportion(hits: np.ndarray, groups: np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean of the groups' shares of hits, with exact bounds that stay in [0, 1] and never close at its ends.

    Clopper & Pearson's, of as many examples as the groups are worth (Korn & Graubard 1998):
    p (1 − p) over the variance of the mean of groups. Where all or none are hits, that is one example
    a group: 40 groups without a miss allow 8.8 % of misses.
    """
    from scipy.stats import t

    hits, label, n_groups = _grouped(hits, groups, level)
    if not ((hits >= 0) & (hits <= 1)).all():
        raise ValueError("hits are 0 or 1, or shares between them; for other values take `mean`.")
    means = np.bincount(label, hits) / np.bincount(label)
    value = float(means.mean())
    if n_groups < FEWEST_GROUPS:
        return _none("share", value, level, n_groups, len(hits))
    worth = float(n_groups)
    variance = means.var(ddof=1) / n_groups
    if 0 < value < 1 and len(hits) > n_groups and variance > 0:
        tail = (1 + level) / 2
        worth = value * (1 - value) / variance * (t.ppf(tail, len(hits) - 1) / t.ppf(tail, n_groups - 1)) ** 2
    bounds = _clopper_pearson(value, min(worth, len(hits)), level)
    return _interval("share", value, bounds, level, "exact", n_groups, len(hits))


def statistic(
    function: Callable[..., float], arrays: Sequence[np.ndarray], groups: np.ndarray, *, seed: int = 0,
    level: float = 0.95, n: int = RESAMPLES,
) -> Interval:  # fmt: skip
    """Any `function(*arrays)` → float, with a bootstrap-t over whole groups and a jackknife error in each resample.

    The function is called some 25 times a resample: more than 40 groups are dealt into 40 at random.
    Where it is NaN for more than a tenth of the resamples there are no bounds. For scores of
    `metrics` take `score`, which is faster and stays inside the score's range.
    """
    raise NotImplementedError


def score(
    metric: str, y: np.ndarray, prediction: np.ndarray, groups: np.ndarray, *, seed: int = 0, level: float = 0.95,
    n: int = RESAMPLES, **options: Any,
) -> Interval:  # fmt: skip
    """A score of `metrics.SCORES` with the interval that suits it.

    `mae` and `difference` are means of groups, `accuracy` a `proportion`; `r2`, `kendall`, `auc` and
    `balanced_accuracy` take a bootstrap-t on a scale without ends, and exact bounds where the score is at its end.
    """
    raise NotImplementedError


def crossed_mean(values: np.ndarray, ways: Mapping[str, np.ndarray], *, level: float = 0.95) -> Interval:
    """The mean of values that share several things at once, `{"init groups": [n], "subset draws": [n]}`."""
    raise NotImplementedError


# ── parts ─────────────────────────────────────────────────────────────────────────────


def _grouped(values: np.ndarray, groups: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Values as float64 [n], their groups as numbers [n], and how many groups."""
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.ndim != 1 or groups.shape != values.shape:
        raise ValueError(f"groups have shape {groups.shape}, values {values.shape}: one group an example is needed.")
    if not len(values):
        raise ValueError("There is nothing to average: values is empty.")
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{wrong} of {len(values)} values are not finite; leave those examples out, and say so.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; an interval needs 0 < level < 1, such as 0.95.")
    label = np.unique(groups, return_inverse=True)[1]
    return values, label, int(label.max()) + 1


def _none(of: str, value: float, level: float, n_groups: int, n_examples: int, note: str = "") -> Interval:
    note = note or f"{n_groups} groups, and at least {FEWEST_GROUPS} are needed"
    return Interval(of, value, float("nan"), float("nan"), level, "none", n_groups, n_examples, note)


def _interval(
    of: str, value: float, bounds: tuple[float, float], level: float, method: str, n_groups: int, n_examples: int
) -> Interval:
    note = f"fewer than {FEW_GROUPS} groups" if n_groups < FEW_GROUPS else ""
    return Interval(of, value, float(bounds[0]), float(bounds[1]), level, method, n_groups, n_examples, note)


def _clopper_pearson(p: float, n: float, level: float) -> tuple[float, float]:
    from scipy.stats import beta

    tail, hits = (1 - level) / 2, p * n
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high
