"""Values and the groups they belong to → a number with bounds, the unit being the group.

In:  arrays [n], and for each example the group it shares something with: `init_group`, a lineage, a data draw.
Out: an `Interval`: value, bounds, how they were made, and what they leave out.

`mean` and differences take Student's t on the means of groups, `crossed_mean` where two things are
shared at once (an initialization and a data draw), `proportion` and balanced accuracy exact binomial bounds, other `score`s,
`eta_squared` and `statistic` a bootstrap-t with jackknife errors (Efron & Tibshirani 1993, ch. 12). Below five groups there
are no bounds, and `note` says so; below twenty it warns. Where groups do not differ they show no error, and others may: bounds are
exact where values have ends, and else there are none; an interval has a width. Percentiles of a bootstrap are not used: at a
nominal 95 % they cover 84 % with five groups. Coverage is simulated in tests/test_interval_coverage.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import errors, metrics
from zoo_datasets.core import bootstrap, score_sums, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.core.score_sums import FORMS, Form

# With four groups and fewer, half of a t interval is the quantile and none of it the data.
FEWEST_GROUPS = 5
# Below these, skewed groups still cost some per cent of coverage (tests/test_interval_coverage.py).
FEW_GROUPS = 20
LEVEL = 0.95
RESAMPLES = 999  # 25 of them in each tail of 95 %
IN_A_TAIL = 5  # resamples beyond a bound, at least
# Groups that are deleted in turn; where there are more they are dealt into so many. Scores are sums over groups,
# any other function is computed anew for each.
MOST_UNITS, MOST_UNITS_OF_A_FUNCTION, MOST_DELETED = 400, 40, 100
CONTRASTED = (*FORMS, "balanced_accuracy")  # what `contrast` takes
FLOAT32 = 1e-5  # by which a number that was kept in 32 bits may pass an end
ROUNDING = 1e-12  # of a value: groups that differ by less are alike
MOST_UNDEFINED = 0.1  # of the resamples: with more, what is left is no longer a sample of them
# A resample that lacks the groups which make a score's error has an error of next to nothing, and a t of any size. Where that is
# every tenth, one or two of however many groups make it, and bounds would tell the size of a t. Of few groups it is no wonder.
FAINT = 0.2  # of the sample's own error


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with bounds at `level`; the bounds are NaN where there are none, and `note` says why."""

    of: str  # what is estimated: "mean of groups", "auc"
    value: float
    low: float
    high: float
    level: float  # 0.95
    method: str  # "t", "crossed t", "jackknife t", "exact", "paired", "bootstrap-t", or "none"
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


def mean(
    values: np.ndarray, groups: np.ndarray, *, skewed: bool = False, seed: int = 0, level: float = LEVEL,
    ends: tuple[float, float] | None = None,
) -> Interval:  # fmt: skip
    """The mean of group means and its t interval: what a new group gives on average, however many examples it has.

    `skewed` asks for a bootstrap-t instead, longer on the side of the tail. Where all groups are alike a t has no width, though
    others need not be like them: between which `ends` values lie says how far, and the bounds are exact with it; without ends
    there are none. No bound lies beyond an end. Raises ValueError where a value does.
    """
    from scipy.stats import t

    values, label, n_groups = _grouped(values, groups, level)
    means = np.bincount(label, values) / np.bincount(label)
    value, of = float(means.mean()), "mean of groups"
    if n_groups < FEWEST_GROUPS:
        return _none(of, value, level, n_groups, len(values))
    least, most = ends or (-np.inf, np.inf)
    if values.min() < least - FLOAT32 or values.max() > most + FLOAT32:
        raise ValueError(
            f"values lie between {values.min():g} and {values.max():g}, beyond their ends {least:g} and {most:g}."
        )
    value = float(np.clip(value, least, most))
    if np.ptp(means) <= ROUNDING * max(1.0, abs(value)):
        if not np.isfinite([least, most]).all():
            return _none(of, value, level, n_groups, len(values), _alike(n_groups))
        unlike = 1.0 - ((1 - level) / 2) ** (1 / n_groups)  # at most so many are, of which none was seen
        bounds = value - unlike * (value - least), value + unlike * (most - value)
        return _interval(of, value, bounds, level, "exact", n_groups, len(values))
    if skewed:
        sums = bootstrap.Sums(
            np.column_stack([means, np.ones(n_groups)]), score_sums.no_pairs(n_groups), score_sums.ratio
        )
        counts = n_groups, n_groups, len(values)
        found = _resampled(of, value, sums.values_and_errors, counts, level, seed, is_mean=True)
        return dataclasses.replace(
            found, low=float(np.maximum(least, found.low)), high=float(np.minimum(most, found.high))
        )
    half = float(t.ppf((1 + level) / 2, n_groups - 1) * means.std(ddof=1) / np.sqrt(n_groups))
    bounds = max(least, value - half), min(most, value + half)
    return _interval(of, value, bounds, level, "t", n_groups, len(values))


def difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray, **options: Any) -> Interval:
    """The mean over groups of second − first, pair by pair; options are those of `mean`."""
    found = mean(np.asarray(second, np.float64) - np.asarray(first, np.float64), groups, **options)
    return dataclasses.replace(found, of="mean difference of groups")


def proportion(hits: np.ndarray, groups: np.ndarray, *, level: float = LEVEL) -> Interval:
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
    value, of = float(means.mean()), "share"
    if n_groups < FEWEST_GROUPS:
        return _none(of, value, level, n_groups, len(hits))
    worth, variance = float(n_groups), means.var(ddof=1) / n_groups
    if len(hits) > n_groups and variance > 0:
        tail = (1 + level) / 2
        worth = value * (1 - value) / variance * (t.ppf(tail, len(hits) - 1) / t.ppf(tail, n_groups - 1)) ** 2
    bounds = _clopper_pearson(value, min(worth, len(hits)), level)
    return _interval(of, value, bounds, level, "exact", n_groups, len(hits))


def crossed_mean(
    values: np.ndarray, ways: Mapping[str, np.ndarray], *, level: float = LEVEL, ends: tuple[float, float] | None = None
) -> Interval:
    """The mean of values that share several things at once: `{"init groups": [n], "data draws": [n]}`.

    Variances of the mean clustered by each way, less those by both (Cameron, Gelbach & Miller 2011, with
    its inclusion and exclusion for more than two), never below the largest single one; t of the degrees
    of freedom of the way with the fewest groups. Ways beside the first that have fewer than five
    groups cannot be resampled: the interval is then for those alone, and says so. Where the first is
    left alone it is `mean` of it, with its `ends`; where the groups of every way are alike, of the way with the fewest.
    """
    from scipy.stats import t

    first, *others = list(ways)
    labels = {way: _grouped(values, ways[way], level)[1] for way in ways}
    counts = {way: int(label.max()) + 1 for way, label in labels.items()}
    kept = [first, *(way for way in others if counts[way] >= FEWEST_GROUPS)]
    notes = [f"for {counts[way]} {way} and no others" for way in others if way not in kept]
    found = mean(values, ways[first], level=level, ends=ends)
    if len(kept) > 1 and counts[first] >= FEWEST_GROUPS and found.method != "t":
        each = [mean(values, ways[way], level=level, ends=ends) for way in kept]
        found = next((m for m in each if m.method == "t"), min(each, key=lambda m: m.n_groups))
    if len(kept) > 1 and found.method == "t":
        values = np.asarray(values, np.float64)
        value, total, single = float(values.mean()), 0.0, 0.0
        for size in range(1, len(kept) + 1):
            for chosen in itertools.combinations(kept, size):
                variance = _clustered(values - value, np.column_stack([labels[way] for way in chosen]))
                total += variance if size % 2 else -variance
                single = max(single, variance) if size == 1 else single
        fewest = min(counts[way] for way in kept)
        half = float(t.ppf((1 + level) / 2, fewest - 1) * np.sqrt(max(total, single)))
        least, most = ends or (-np.inf, np.inf)
        bounds = max(least, value - half), min(most, value + half)
        found = _interval("mean", value, bounds, level, "crossed t", fewest, len(values))
        notes.insert(0, "over " + " and ".join(f"{counts[way]} {way}" for way in kept))
    return dataclasses.replace(found, note="; ".join(n for n in (found.note, *notes) if n))


def score(
    metric: str, y: np.ndarray, prediction: np.ndarray, groups: np.ndarray, *, seed: int = 0, level: float = LEVEL,
    n: int = RESAMPLES, **options: Any,
) -> Interval:  # fmt: skip
    """A score of `metrics.SCORES` with the interval that suits it.

    `mae` and `difference` are means of groups, `accuracy` is a `proportion` and `balanced_accuracy` one of each
    class; `r2`, `kendall` and `auc` take a bootstrap-t on a scale without ends. At the end of its range, where no
    resample differs, the bounds are exact: those of as many judgements as there are groups.
    """
    if metric not in metrics.SCORES:
        raise ValueError(errors.unknown("metric", metric, metrics.SCORES))
    if metric == "balanced_accuracy":
        _no_options(metric, options)
        return _balanced(y, prediction, groups, level)
    value = metrics.SCORES[metric](y, prediction, **options)
    if metric in ("mae", "difference", "accuracy"):
        y, prediction = np.asarray(y), np.asarray(prediction)
        if metric == "accuracy":
            found = proportion(y == prediction, groups, level=level)
        else:
            error = prediction.astype(np.float64) - y.astype(np.float64)
            size = metric == "mae"
            found = mean(np.abs(error) if size else error, groups, level=level, ends=(0.0, np.inf) if size else None)
        return dataclasses.replace(found, of=metric)
    form = FORMS[metric]
    y, prediction, label, n_groups = _scored(y, prediction, groups, level)
    worth, scarce = _worth(form, y, label, n_groups)
    if worth < FEWEST_GROUPS or np.isnan(value):
        return _none(metric, value, level, n_groups, len(y), _few(worth, scarce))
    unit, n_units = _dealt(label, n_groups, MOST_UNITS, seed)
    sums = form.sums(y, prediction, unit, n_units, **options)
    found = _resampled(metric, value, sums.values_and_errors, (n_units, n_groups, len(y)), level, seed, n, form.back)
    if found.method == "none" and form.share is not None and form.of_share is not None:
        low, high = _clopper_pearson(form.share(value), worth // 2 if form.pairs else worth, level)
        return _interval(metric, value, (form.of_share(low), form.of_share(high)), level, "exact", n_groups, len(y))
    return found


def contrast(
    metric: str, y: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray, *, seed: int = 0,
    level: float = LEVEL, n: int = RESAMPLES, **options: Any,
) -> Interval:  # fmt: skip
    """How much better `second` scores than `first` on the same examples, by bootstrap-t: score − score.

    Of `balanced_accuracy` by the exact bounds of both and their correlation. At the end of the range of either, where its groups show no
    error, and where the two differ nowhere, by the exact bounds of both as if they were apart.
    """
    if metric not in CONTRASTED:
        raise ValueError(errors.unknown("metric with a contrast", metric, CONTRASTED))
    if metric == "balanced_accuracy":
        _no_options(metric, options)
        return _balanced_contrast(y, first, second, groups, level)
    form = FORMS[metric]
    value = metrics.SCORES[metric](y, second, **options) - metrics.SCORES[metric](y, first, **options)
    y, first, label, n_groups = _scored(y, first, groups, level)
    worth, scarce = _worth(form, y, label, n_groups)
    of = f"difference of {metric}"
    if worth < FEWEST_GROUPS or np.isnan(value):
        return _none(of, value, level, n_groups, len(y), _few(worth, scarce))
    unit, n_units = _dealt(label, n_groups, MOST_UNITS, seed)
    a, b = (form.sums(y, np.asarray(p), unit, n_units, **options) for p in (first, second))
    split = a.linear.shape[1], len(a.quadratic)

    def minus(linear: np.ndarray, quadratic: np.ndarray) -> np.ndarray:
        before = a.of(linear[..., : split[0]], quadratic[..., : split[1]])
        return form.back(b.of(linear[..., split[0] :], quadratic[..., split[1] :])) - form.back(before)

    both = bootstrap.Sums(np.hstack([a.linear, b.linear]), np.concatenate([a.quadratic, b.quadratic]), minus)
    whole = np.ones((1, n_units), np.int64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at_an_end = not all(np.isfinite(s.values_and_errors(whole)).all() for s in (a, b))
        (difference,), (error,) = both.values_and_errors(whole)
    if (at_an_end or not error > ROUNDING * max(1.0, abs(difference))) and form.share is not None:
        one, other = (score(metric, y, p, groups, seed=seed, level=level, n=n, **options) for p in (first, second))
        return dataclasses.replace(apart(one, other), of=of, n_groups=n_groups, n_examples=len(y))
    return _resampled(of, value, both.values_and_errors, (n_units, n_groups, len(y)), level, seed, n)


def apart(first: Interval, second: Interval) -> Interval:
    """second − first of scores on groups that have nothing in common, from the bounds of both (MOVER: Zou & Donner 2008, eq. 2)."""
    value = second.value - first.value
    low = value - float(np.hypot(second.value - second.low, first.high - first.value))
    high = value + float(np.hypot(second.high - second.value, first.value - first.low))
    n_groups, n = first.n_groups + second.n_groups, first.n_examples + second.n_examples
    of = f"difference of {first.of}"
    if "none" in (first.method, second.method):
        return _none(of, value, first.level, n_groups, n, first.note or second.note)
    return _interval(of, value, (low, high), first.level, "MOVER", n_groups, n)


def eta_squared(
    values: np.ndarray, levels: np.ndarray, groups: np.ndarray, *, seed: int = 0, level: float = LEVEL
) -> Interval:  # fmt: skip
    """The share of the values' variance that lies between the means of levels, by bootstrap-t over whole groups.

    Of two levels by Fisher's z of the correlation, whose sign the share has lost: near 0 a square has no error to resample. Of more,
    bounds are cut at 0 and 1 and hold the value. Without any effect that is near (levels − 1) / (examples − 1) rather than 0.
    """
    values, label, n_groups = _grouped(values, groups, level)
    place = np.unique(np.asarray(levels), return_inverse=True)[1]
    y = values - values.mean()  # so that squares do not cancel
    member = (place[:, None] == np.arange(place.max() + 1)).astype(np.float64)  # (n, L)
    n_levels = member.shape[1]

    def share(linear: np.ndarray) -> np.ndarray:
        counts, sums, squares = linear[..., :n_levels], linear[..., n_levels:-1], linear[..., -1]
        total = squares - sums.sum(-1) ** 2 / counts.sum(-1)
        between = (sums**2 / np.maximum(counts, 1.0)).sum(-1) - sums.sum(-1) ** 2 / counts.sum(-1)
        found: np.ndarray = np.where(total > 1e-12 * np.maximum(squares, 1e-300), between / total, np.nan)
        return found

    def signed(linear: np.ndarray, _: np.ndarray) -> np.ndarray:
        means = linear[..., n_levels:-1] / linear[..., :n_levels]
        found: np.ndarray = np.arctanh(
            np.sign(means[..., 1] - means[..., 0]) * np.sqrt(np.clip(share(linear), 0.0, 1.0))
        )
        return found

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # squares beyond doubles: NaN
        columns = np.hstack([member, member * y[:, None], (y**2)[:, None]])
        value = float(share(columns.sum(0)))
    if n_groups < FEWEST_GROUPS or np.isnan(value):
        note = "" if n_groups < FEWEST_GROUPS else "the values do not vary"
        return _none("eta squared", value, level, n_groups, len(values), note)
    unit, n_units = _dealt(label, n_groups, MOST_UNITS, seed)
    per_group, no_pairs = score_sums.per_group(columns, unit, n_units), score_sums.no_pairs(n_units)
    sums = bootstrap.Sums(per_group, no_pairs, signed if n_levels == 2 else lambda linear, _: share(linear))
    found = _resampled("eta squared", value, sums.values_and_errors, (n_units, n_groups, len(values)), level, seed)
    low, high = found.low, found.high
    if n_levels == 2:
        ends = sorted(np.tanh([low, high]) ** 2)
        low, high = 0.0 if low < 0 < high else ends[0], ends[1]
    low, high = np.clip([min(low, value), max(high, value)] if found.method != "none" else [low, high], 0, 1).tolist()
    return dataclasses.replace(found, low=low, high=high)


def statistic(
    function: Callable[..., float], arrays: Sequence[np.ndarray], groups: np.ndarray, *, of: str = "statistic",
    seed: int = 0, level: float = LEVEL, n: int = RESAMPLES,
) -> Interval:  # fmt: skip
    """Any `function(*arrays)` → float, with a bootstrap-t over whole groups and a jackknife error in each resample.

    The function is called some 25 times a resample: more than 40 groups are dealt into 40 at random.
    Where it is NaN for more than a tenth of the resamples there are no bounds. For the scores of
    `metrics` take `score`, which is faster and stays inside the score's range.
    """
    arrays = [np.asarray(a) for a in arrays]
    label, n_groups = _labeled(arrays[0], groups, level)
    value = float(function(*arrays))
    if n_groups < FEWEST_GROUPS:
        return _none(of, value, level, n_groups, len(label))
    unit, n_units = _dealt(label, n_groups, MOST_UNITS_OF_A_FUNCTION, seed)

    def at(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return bootstrap.of_function(function, arrays, unit, w)

    return _resampled(of, value, at, (n_units, n_groups, len(label)), level, seed, n)


def deleted(
    function: Callable[..., float], arrays: Sequence[np.ndarray], groups: np.ndarray, *, of: str = "statistic",
    seed: int = 0, level: float = LEVEL,
) -> Interval:  # fmt: skip
    """Any smooth `function(*arrays)` → float by a jackknife over whole groups, more than 100 dealt into 100: a tenth of a second
    where `statistic` takes minutes."""
    arrays = [np.asarray(a) for a in arrays]
    label, n_groups = _labeled(arrays[0], groups, level)
    unit, n_units = _dealt(label, n_groups, MOST_DELETED, seed)
    value = float(function(*arrays))
    if n_groups < FEWEST_GROUPS:
        return _none(of, value, level, n_groups, len(label))
    without = [float(function(*(a[unit != u] for a in arrays))) for u in range(n_units)]
    found = jackknife(value, np.array(without), len(label), of=of, level=level)
    return dataclasses.replace(found, n_groups=n_groups)


def jackknife(
    value: float, without: np.ndarray, n_examples: int, *, of: str = "statistic", level: float = LEVEL
) -> Interval:
    """A statistic whose examples share groups in ways of their own, as distances between groups do: t of the jackknife's error.

    `without` (groups,) is the statistic with each group left out, wherever it takes part (Efron & Tibshirani 1993, ch. 11).
    """
    from scipy.stats import t

    without = np.asarray(without, np.float64)
    n_groups = len(without)
    if n_groups < FEWEST_GROUPS:
        return _none(of, value, level, n_groups, n_examples)
    if not np.isfinite([value, *without]).all():
        return _none(of, value, level, n_groups, n_examples, "not defined without some group")
    error = np.sqrt((n_groups - 1) / n_groups * ((without - without.mean()) ** 2).sum())
    if error <= ROUNDING * max(1.0, abs(value)):
        return _none(of, value, level, n_groups, n_examples, _alike(n_groups))
    half = float(t.ppf((1 + level) / 2, n_groups - 1) * error)
    return _interval(of, value, (value - half, value + half), level, "jackknife t", n_groups, n_examples)


# ── parts ─────────────────────────────────────────────────────────────────────────────


def _grouped(values: np.ndarray, groups: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Values as float64 [n], their groups as numbers [n], and how many groups."""
    values = np.asarray(values, np.float64)
    label, n_groups = _labeled(values, groups, level)
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{wrong} of {len(values)} values are not finite; leave those examples out, and say so.")
    return values, label, n_groups


def _labeled(values: np.ndarray, groups: np.ndarray, level: float) -> tuple[np.ndarray, int]:
    """The groups as numbers [n], and how many there are. Raises ValueError where shapes do not fit."""
    groups = np.asarray(groups)
    if values.ndim != 1 or groups.shape != values.shape:
        raise ValueError(f"groups have shape {groups.shape}, values {values.shape}: one group an example is needed.")
    if not len(values):
        raise ValueError("There are no examples, and so no interval.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; an interval needs 0 < level < 1, such as 0.95.")
    label = np.unique(groups, return_inverse=True)[1]
    return label, int(label.max()) + 1


def _no_options(metric: str, options: Mapping[str, Any]) -> None:
    if options:
        raise TypeError(f"{metric} takes no options, and was given {', '.join(sorted(options))}.")


def _scored(
    y: np.ndarray, prediction: np.ndarray, groups: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """y and prediction as the sums take them, groups as numbers [n], and how many groups."""
    y, prediction = np.asarray(y).astype(np.float64), np.asarray(prediction).astype(np.float64)
    return y, prediction, *_labeled(y, groups, level)


def _balanced(y: np.ndarray, prediction: np.ndarray, groups: np.ndarray, level: float) -> Interval:
    """The mean of the classes' shares of hits, with exact bounds as of `proportion`.

    A resample in which a rare class has no miss left has no error either, so that a bootstrap-t of many classes
    comes to bounds near nothing. The variance is that of what each group adds, linearized; at the end of the range, where
    there is none, the mean is worth as many judgements as one group each of its classes would make it. It is never worth
    more than its examples: C² / Σ 1/n_c, so that a class of five networks weighs as five, and so does one of five groups
    that are told alike. Degrees of freedom are Satterthwaite's over classes: those of the class that makes the variance.
    """
    from scipy.stats import t

    metric, value = "balanced_accuracy", metrics.balanced_accuracy(y, prediction)
    y = np.asarray(y)
    label, n_groups = _labeled(y, groups, level)
    fewest, scarce = _rarest(y, label, n_groups)
    if fewest < FEWEST_GROUPS or np.isnan(value):
        return _none(metric, value, level, n_groups, len(y), _few(fewest, scarce))
    variance = _clustered_sum(_added(y, prediction), label)
    count, free = _per_class(y, prediction, label)
    if variance > 0:
        tail = (1 + level) / 2
        worth = value * (1 - value) / variance * (t.ppf(tail, len(y) - 1) / t.ppf(tail, min(free, n_groups - 1))) ** 2
    else:
        holding = np.array([len(np.unique(label[y == c])) for c in np.unique(y)])
        worth = len(holding) ** 2 / (1 / holding).sum()
    # A rare class without a miss adds no variance, and is known no better for it.
    bounds = _clopper_pearson(value, min(worth, _most_worth(count)), level)
    return _interval(metric, value, bounds, level, "exact", n_groups, len(y))


def _balanced_contrast(
    y: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray, level: float
) -> Interval:
    """second − first, by the bounds of each and their correlation over groups (Newcombe 1998, method 10; Zou & Donner 2008).

    A t interval of the differences would be too narrow where a class is rare: few of its networks are told differently, and
    where by luck none is, it adds no variance. Exact bounds of each score know better.
    """
    a, b = (_balanced(y, p, groups, level) for p in (first, second))
    of, value = "difference of balanced_accuracy", b.value - a.value
    if "none" in (a.method, b.method):
        return _none(of, value, level, a.n_groups, len(y), a.note or b.note)
    label, n_groups = _labeled(np.asarray(y), groups, level)
    parts = [np.bincount(label, _added(np.asarray(y), p)) for p in (first, second)]
    spread = float(np.sqrt((parts[0] ** 2).sum() * (parts[1] ** 2).sum()))
    # Without spread nothing is known of how they go together: as if they were apart.
    rho = float(np.clip((parts[0] * parts[1]).sum() / spread, -1, 1)) if spread > 1e-24 else 0.0
    # However alike two readers are: what of so many judgements none shows may still be told differently.
    most = min(_most_worth(_per_class(np.asarray(y), p, label)[0]) for p in (first, second))
    least = 1 - ((1 - level) / 2) ** (1 / min(n_groups, most))

    def reach(one: float, other: float) -> float:
        return max(least, float(np.sqrt(max(0.0, one**2 - 2 * rho * one * other + other**2))))

    low = value - reach(b.value - b.low, a.high - a.value)
    high = value + reach(b.high - b.value, a.value - a.low)
    return _interval(of, value, (max(-1.0, low), min(1.0, high)), level, "paired", n_groups, len(y))


def _per_class(y: np.ndarray, prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, float]:
    """How many judgements the examples of each class are worth (C,), and the degrees of freedom of their errors together.

    Of a class whose groups are told alike as many as groups; where it has no miss, or no hit, nothing shows how alike they
    are, and it is as many too.
    """
    worth, squares, free = [], [], []
    for c in np.unique(y):
        own = y == c
        hit = (np.asarray(prediction)[own] == c).astype(np.float64)
        sums = np.bincount(np.unique(label[own], return_inverse=True)[1], hit - hit.mean())
        n, groups, share = len(hit), len(sums), hit.mean()
        clustered = groups / max(1, groups - 1) * float((sums**2).sum()) / n**2
        alone = share * (1 - share) / max(1, n - 1)
        alike = 1.0 if clustered <= 0 else min(1.0, max(groups / n, alone / clustered))
        worth.append(groups if alone <= ROUNDING else n * alike)
        squares.append(clustered)
        free.append(max(1, groups - 1))
    total = np.sum(squares)
    satterthwaite = total**2 / np.sum(np.square(squares) / free) if total > 0 else float(min(free))
    return np.array(worth), float(satterthwaite)


def _most_worth(count: np.ndarray) -> float:
    """How many judgements a mean of the shares of classes of so many examples (C,) is worth at most."""
    return float(len(count) ** 2 / (1 / count).sum())


def _added(y: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """What each example adds to balanced accuracy beside its class's share of hits, over examples and classes [n]."""
    place = np.unique(y, return_inverse=True)[1]
    count = np.bincount(place)
    hit = (np.asarray(y) == np.asarray(prediction)).astype(np.float64)
    beside: np.ndarray = (hit - (np.bincount(place, hit) / count)[place]) / (len(count) * count[place])
    return beside


def _clustered_sum(parts: np.ndarray, label: np.ndarray) -> float:
    """The variance of a sum whose parts [n] are correlated within groups; 0 where only rounding is left."""
    sums = np.bincount(label, parts)
    variance = float(len(sums) / max(1, len(sums) - 1) * (sums**2).sum())
    return variance if variance > 1e-24 else 0.0


def _few(fewest: int, scarce: str) -> str:
    return f"{scarce}, and at least {FEWEST_GROUPS} are needed" if fewest < FEWEST_GROUPS else "it is not defined here"


def _worth(form: Form, y: np.ndarray, label: np.ndarray, n_groups: int) -> tuple[int, str]:
    """How many groups a score rests on, and how to say that they are few."""
    return _rarest(y, label, n_groups) if form.by_class else (n_groups, f"{n_groups} groups")


def _rarest(y: np.ndarray, label: np.ndarray, n_groups: int) -> tuple[int, str]:
    """How many groups hold the rarest class, and how to say that they are few."""
    holding = {c: len(np.unique(label[y == c])) for c in np.unique(y).tolist()}
    rarest = min(holding, key=lambda c: holding[c])
    name = int(rarest) if isinstance(rarest, float) and rarest.is_integer() else rarest
    return holding[rarest], f"{holding[rarest]} of {n_groups} groups hold class {name}"


def _dealt(label: np.ndarray, n_groups: int, most: int, seed: int) -> tuple[np.ndarray, int]:
    """Groups as they are resampled: each one, or dealt at random into `most`."""
    if n_groups <= most:
        return label, n_groups
    return (streams.permutation(streams.stream_key(["groups dealt", seed]), n_groups) % most)[label], most


def _resampled(
    of: str, value: float, at: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], counts: tuple[int, int, int],
    level: float, seed: int, n: int = RESAMPLES, back: Callable[[Any], Any] = lambda z: z, *, is_mean: bool = False,
) -> Interval:  # fmt: skip
    """The bootstrap-t interval of what `at` makes of how often each unit is drawn; counts of units, groups, examples."""
    if n < least_resamples(level):
        raise ValueError(
            f"{n} resamples are too few for bounds of {level:.0%}; take at least {least_resamples(level)}."
        )
    n_units, n_groups, n_examples = counts
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        (here,), (error,) = at(np.ones((1, n_units), np.int64))
        if np.isfinite(here) and error <= ROUNDING * max(1.0, abs(here)):
            return _none(of, value, level, n_groups, n_examples, _alike(n_groups))
        low, high, undefined, faint = here, here, 0.0, 0.0
        if error > 0:
            values, errors = at(bootstrap.draws(n_units, n, seed))
            low, high, undefined = bootstrap.t_bounds(here, error, values, errors, level)
            faint = float((errors[np.isfinite(values)] < FAINT * error).mean()) if np.isfinite(values).any() else 0.0
        bounds = back(low), back(high)
    if not is_mean and n_groups >= FEW_GROUPS and faint > MOST_UNDEFINED and undefined <= MOST_UNDEFINED:
        return _none(
            of, value, level, n_groups, n_examples, f"one or two of {n_groups} groups make nearly all of its error"
        )
    if np.isfinite([error, low, high]).all() and undefined <= MOST_UNDEFINED:
        found = _interval(of, value, bounds, level, "bootstrap-t", n_groups, n_examples)
        return dataclasses.replace(found, seed=seed)
    if not np.isfinite(here) or undefined <= MOST_UNDEFINED:
        note = "the value, or some resamples', is at the end of the range"
    else:
        note = f"not defined in {undefined:.0%} of the resamples"
    return _none(of, value, level, n_groups, n_examples, note)


def least_resamples(level: float) -> int:
    """So many resamples that a few lie beyond each bound of an interval of this level."""
    return math.ceil(2 * IN_A_TAIL / (1 - level) - ROUNDING)


def _clustered(residuals: np.ndarray, labels: np.ndarray) -> float:
    """The variance of a mean whose residuals [n] are correlated where all labels [n, ways] agree."""
    cell = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    sums = np.bincount(cell, residuals)
    return float(len(sums) / max(1, len(sums) - 1) * (sums**2).sum() / len(residuals) ** 2)


def _alike(n_groups: int) -> str:
    return f"all {n_groups} groups are alike, and others need not be"


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
