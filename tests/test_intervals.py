"""Intervals over groups: what they are made of, their edges, and what they refuse. Coverage is simulated elsewhere."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from zoo_datasets import intervals, metrics
from zoo_datasets.core import bootstrap
from zoo_datasets.core.score_sums import FORMS


def grouped(n_groups: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, a prediction of it and groups, both with a part that a group shares."""
    rng, group = np.random.default_rng(seed), np.repeat(np.arange(n_groups), size)
    y = rng.normal(size=n_groups)[group] + rng.normal(size=len(group))
    return y, y + rng.normal(size=n_groups)[group] + 0.5 * rng.normal(size=len(group)), group


# ── means ──


def test_a_mean_is_that_of_groups_with_the_t_interval_of_their_means() -> None:
    values, group = np.array([1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]), np.array(list("aabcdef"))
    found = intervals.mean(values, group)
    wanted = ttest_1samp([2.0, 4.0, 5.0, 6.0, 7.0, 9.0], 0).confidence_interval(0.95)
    assert found.value == 5.5  # the mean of groups, and not 5, that of examples
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.method, found.n_groups, found.n_examples) == ("t", 6, 7)
    narrow = intervals.mean(values, group, level=0.8)
    assert found.low < narrow.low < narrow.high < found.high
    swapped = intervals.difference(values, np.zeros(7), group)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_twins_do_not_narrow_an_interval() -> None:
    values = np.random.default_rng(2).normal(size=30)
    alone = intervals.mean(values, np.arange(30))
    assert intervals.mean(values.repeat(4), np.arange(30).repeat(4)).bounds() == alone.bounds()
    blind = intervals.mean(values.repeat(4), np.arange(120))
    assert blind.high - blind.low < 0.6 * (alone.high - alone.low)


@pytest.mark.parametrize("n_groups", [1, 2, 4])
def test_below_five_groups_there_is_none_and_the_reason_is_printed(n_groups: int) -> None:
    y, prediction, group = grouped(n_groups, 6)
    label = (y > np.median(y)).astype(int)
    share = {"first": group, "second": np.arange(len(group))}
    all_kinds = [
        intervals.mean(y, group), intervals.mean(y, group, skewed=True), intervals.difference(y, prediction, group),
        intervals.proportion(label, group), intervals.statistic(metrics.r2, [y, prediction], group),
        intervals.score("r2", y, prediction, group), intervals.score("kendall", y, prediction, group),
        intervals.score("auc", label, prediction, group), intervals.score("balanced_accuracy", label, label, group),
        intervals.contrast("auc", label, y, prediction, group), intervals.crossed_mean(y, share),
    ]  # fmt: skip
    for found in all_kinds:
        assert np.isfinite(found.value)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.method == "none"
        assert "at least 5 are needed" in str(found)
        assert json.loads(json.dumps(found.to_json()))["low"] is None


def test_below_twenty_groups_it_warns() -> None:
    assert "fewer than 20 groups" in str(intervals.mean(np.arange(19.0), np.arange(19)))
    assert "fewer" not in str(intervals.mean(np.arange(20.0), np.arange(20)))


# ── what is shared two ways ──


def test_what_one_way_holds_is_the_interval_of_that_way() -> None:
    values = np.random.default_rng(0).normal(size=30)
    inits, draws = np.repeat(np.arange(10), 3), np.tile(np.arange(3), 10)
    alone = intervals.mean(values, inits)
    found = intervals.crossed_mean(values, {"init groups": inits, "data draws": draws})
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)
    assert "for 3 data draws and no others" in found.note


def test_a_draw_that_all_share_makes_the_interval_wider() -> None:
    rng = np.random.default_rng(0)
    inits, draws = np.repeat(np.arange(10), 8), np.tile(np.arange(8), 10)
    values = rng.normal(size=8)[draws] + 0.1 * rng.normal(size=80)  # all of it from the draw
    found = intervals.crossed_mean(values, {"init groups": inits, "data draws": draws})
    by_draw = intervals.mean(values, draws)
    assert (found.low, found.high) == pytest.approx((by_draw.low, by_draw.high), abs=0.05)
    assert found.high - found.low > 10 * (lambda i: i.high - i.low)(intervals.mean(values, inits))
    assert found.n_groups == 8
    assert "over 10 init groups and 8 data draws" in found.note


def test_two_ways_that_are_one_are_counted_once() -> None:
    values, group = np.random.default_rng(0).normal(size=24), np.repeat(np.arange(12), 2)
    found, alone = intervals.crossed_mean(values, {"a": group, "b": group}), intervals.mean(values, group)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


# ── scores ──


@pytest.mark.parametrize("metric", ["r2", "kendall", "auc"])
def test_a_score_of_sums_is_that_of_metrics(metric: str) -> None:
    y, prediction, group = grouped(25, 3)
    if metric == "auc":
        y = (y > 0).astype(int)
    prediction = np.round(prediction, 1)  # ties
    form = FORMS[metric]
    sums = form.sums(y.astype(float), prediction, group, 25)
    (here,), _ = sums.values_and_errors(np.ones((1, 25)))
    assert form.back(here) == pytest.approx(metrics.SCORES[metric](y, prediction), abs=1e-12)
    w = bootstrap.draws(25, 4, 0)  # and of any resample, with its error by brute force
    values, errors = sums.values_and_errors(w)
    for times, value, error in zip(w, values, errors, strict=True):
        drawn = np.repeat(np.arange(25), times)
        rows = [np.flatnonzero(group == g) for g in drawn]

        def at(kept: list[np.ndarray]) -> float:
            chosen = np.concatenate(kept)
            return metrics.SCORES[metric](y[chosen], prediction[chosen])

        assert form.back(value) == pytest.approx(at(rows), abs=1e-9)
        left = [at(rows[:k] + rows[k + 1 :]) for k in range(len(rows))]
        scale = {"r2": lambda v: -np.log(1 - v), "kendall": np.arctanh}.get(metric, lambda v: np.log(v / (1 - v)))
        left = scale(np.array(left))
        assert error == pytest.approx(np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum()))


@pytest.mark.parametrize("metric", ["r2", "kendall", "auc", "mae", "difference", "accuracy", "balanced_accuracy"])
def test_a_score_has_the_same_interval_in_any_order_of_rows(metric: str) -> None:
    y, prediction, group = grouped(30, 3)
    if metric in ("auc", "accuracy", "balanced_accuracy"):
        y = (y > 0).astype(int)
    if metric in ("accuracy", "balanced_accuracy"):
        prediction = (prediction > 0).astype(int)
    first = intervals.score(metric, y, prediction, group, seed=5)
    assert first.low < first.value < first.high
    assert first.of == metric
    assert intervals.score(metric, y, prediction, group, seed=5) == first
    order = np.random.default_rng(0).permutation(len(y))
    again = intervals.score(metric, y[order], prediction[order], group[order], seed=5)
    assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=1e-9)
    assert json.loads(json.dumps(first.to_json()))["low"] == first.low
    if first.method == "bootstrap-t":
        assert intervals.score(metric, y, prediction, group, seed=6).low != first.low


def test_an_auc_of_one_does_not_claim_that_nothing_is_ever_misjudged() -> None:
    y, group = np.repeat([0, 1], 40), np.tile(np.arange(40), 2)
    found = intervals.score("auc", y, y + 0.5 * np.random.default_rng(0).random(80), group)
    assert (found.value, found.high, found.method) == (1.0, 1.0, "exact")
    assert found.low == pytest.approx(binomtest(40, 40).proportion_ci(0.95).low)  # 0.912
    none = intervals.score("auc", y, -y, group)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - found.low)


def test_shares_at_their_ends_have_exact_bounds() -> None:
    for hits in (0, 1, 20, 40):
        found = intervals.proportion(np.arange(40) < hits, np.arange(40))
        wanted = binomtest(hits, 40).proportion_ci(0.95)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    # Five equal members of each group are one judgement, and not five.
    twice = intervals.proportion((np.arange(40) < 20).repeat(5), np.arange(40).repeat(5))
    assert twice.high - twice.low > 0.29
    perfect = intervals.proportion(np.ones(200), np.arange(40).repeat(5))
    assert perfect.low == pytest.approx(binomtest(40, 40).proportion_ci(0.95).low)
    assert intervals.score("accuracy", np.ones(40), np.ones(40), np.arange(40)).low == pytest.approx(perfect.low)


def test_a_perfect_order_and_a_perfect_prediction() -> None:
    found = intervals.score("kendall", np.arange(30), np.arange(30) ** 3, np.arange(30))
    assert (found.value, found.high, found.method) == (1.0, 1.0, "exact")
    assert 0.5 < found.low < 0.6  # 2 · (α/2)^(1/15) − 1: fifteen pairs of groups that share none
    exact = intervals.score("r2", np.arange(30.0), np.arange(30.0), np.arange(30))
    assert exact.method == "none"
    assert "end of the range" in exact.note


def test_a_class_in_few_groups_is_said() -> None:
    y = np.repeat([0, 1], [30, 3])
    found = intervals.score("auc", y, np.arange(33.0), np.arange(33))
    assert math.isnan(found.low)
    assert "3 of 33 groups hold class 1, and at least 5 are needed" in str(found)
    undefined = intervals.score("auc", np.zeros(30), np.arange(30.0), np.arange(30))
    assert math.isnan(undefined.value)
    assert "not defined" in str(undefined)


def test_a_contrast_is_of_the_same_resamples() -> None:
    y, prediction, group = grouped(30, 3)
    same = intervals.contrast("r2", y, prediction, prediction, group)
    assert (same.value, same.method) == (0.0, "none")  # nobody differs, and others may
    worse = prediction + np.random.default_rng(0).normal(size=len(y))
    found = intervals.contrast("r2", y, worse, prediction, group)
    assert found.value == pytest.approx(metrics.r2(y, prediction) - metrics.r2(y, worse))
    assert 0 < found.low < found.value < found.high
    both = [intervals.score("r2", y, p, group) for p in (worse, prediction)]
    assert found.high - found.low < sum(i.high - i.low for i in both)


def test_balanced_accuracy_is_a_share_of_each_class() -> None:
    """Of balanced classes the interval is that of the share of hits; of unequal ones the rare class widens it."""
    rng = np.random.default_rng(0)
    y, group = np.repeat(np.arange(4), 40), np.arange(160)
    said = np.where(rng.random(160) < 0.8, y, (y + 1) % 4)
    found, plain = intervals.score("balanced_accuracy", y, said, group), intervals.score("accuracy", y, said, group)
    assert found.method == "exact"
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)
    kept = np.concatenate([np.flatnonzero(y > 0), np.flatnonzero(y == 0)[:6]])
    rare = intervals.score("balanced_accuracy", y[kept], said[kept], group[kept])
    assert rare.high - rare.low > 1.3 * (found.high - found.low)


def test_many_classes_near_the_end_of_the_range_have_bounds_that_say_something() -> None:
    """Twenty classes of eleven, three misses: a bootstrap-t had resamples without any, and said [0.52, 1.00]."""
    y, group = np.repeat(np.arange(20), 11), np.arange(220)
    said = y.copy()
    said[[0, 50, 100]] = (said[[0, 50, 100]] + 1) % 20
    near = intervals.score("balanced_accuracy", y, said, group)
    assert 0.95 < near.low < 217 / 220 < near.high < 1
    constant = intervals.score("balanced_accuracy", y, np.zeros(220, int), group)
    assert (constant.value, constant.method) == (0.05, "exact")
    assert 0.02 < constant.low < 0.05 < constant.high < 0.1
    perfect = intervals.score("balanced_accuracy", y, y, group)
    assert (perfect.high, round(perfect.low, 3)) == (1.0, round(binomtest(220, 220).proportion_ci(0.95).low, 3))
    gain = intervals.contrast("balanced_accuracy", y, np.zeros(220, int), said, group)
    assert 0.88 < gain.low < gain.value < gain.high < 1
    none = intervals.contrast("balanced_accuracy", y, np.zeros(220, int), y, group)
    assert none.value - none.low == pytest.approx(np.hypot(1 - perfect.low, constant.high - constant.value))
    assert 0.8 < none.low < none.value == 0.95 < none.high < 1
    same = intervals.contrast("balanced_accuracy", y, said, said, group)
    assert (same.value, same.method) == (0, "paired")
    assert -0.05 < same.low < 0 < same.high < 0.05  # that 220 networks are told alike does not say that all are


def test_classes_of_large_numbers_stay_apart() -> None:
    y = np.repeat([1000000.0, 1000001.0, 1000002.0], [20, 2, 20])
    found = intervals.score("balanced_accuracy", y, y, np.arange(42))
    assert (found.method, found.note) == ("none", "2 of 42 groups hold class 1000001, and at least 5 are needed")


def test_the_jackknife_is_students_t_of_a_mean() -> None:
    x = np.random.default_rng(0).normal(size=12)
    without = (x.sum() - x) / 11
    found, plain = intervals.jackknife(x.mean(), without, 12), intervals.mean(x, np.arange(12))
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert intervals.jackknife(0.0, without[:4], 12).method == "none"
    without[3] = np.nan
    assert "without some group" in intervals.jackknife(0.0, without, 12).note


def test_no_bound_lies_beyond_an_end() -> None:
    y, said = np.zeros(6), np.array([0, 0, 0, 0, 0, 5.0])
    assert intervals.score("mae", y, said, np.arange(6)).low == 0
    values = np.array([1.0] * 6 + [0.99, 0.97, 0.9, 0.1])
    skewed = intervals.mean(values, np.arange(10), skewed=True, ends=(0.0, 1.0))
    assert 0 <= skewed.low < skewed.value < skewed.high <= 1
    assert intervals.score("mae", y, y, np.arange(6)).method == "none"  # alike, and no end above
    with pytest.raises(ValueError, match="values lie between 2 and 2, beyond their ends 0 and 1"):
        intervals.mean(np.full(10, 2.0), np.arange(10), ends=(0.0, 1.0))


def test_balanced_accuracy_takes_no_options() -> None:
    y = np.repeat([0, 1], 10)
    with pytest.raises(TypeError, match="takes no options, and was given baseline"):
        intervals.score("balanced_accuracy", y, y, np.arange(20), baseline=0.5)
    with pytest.raises(TypeError, match="takes no options"):
        intervals.contrast("balanced_accuracy", y, y, y, np.arange(20), baseline=0.5)


def test_what_rounding_leaves_of_an_error_makes_no_bound() -> None:
    """A resample whose error is 1e-17 and should be 0 has no t of 1e15."""
    values, errors = np.array([1.0, 1.2, 0.8, 1.1] * 30), np.array([0.1, 0.1, 0.1, 1e-17] * 30)
    assert bootstrap.t_bounds(1.0, 0.1, values, errors, 0.9)[0] == -np.inf
    errors[values == 1.1] = 0.1
    assert np.isfinite(bootstrap.t_bounds(1.0, 0.1, values, errors, 0.9)[:2]).all()


def test_any_function_has_the_interval_of_its_sums() -> None:
    """On the scale of a score without ends, both are the same resamples of the same statistic."""
    y, _, group = grouped(12, 2)
    found = intervals.statistic(lambda v: np.mean(v), [y], group, of="mean", n=200, seed=1)
    exact = intervals.mean(y, group)
    assert found.value == pytest.approx(exact.value)
    assert found.low < found.value < found.high
    assert 0.6 < (found.high - found.low) / (exact.high - exact.low) < 1.8
    torn = intervals.statistic(lambda v: float("nan") if len(set(v)) < 20 else v.mean(), [y], group, n=200)
    assert torn.method == "none"
    assert "of the resamples" in torn.note


def test_many_groups_are_dealt_and_cost_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    y, prediction, group = grouped(200, 2)
    each = intervals.score("r2", y, prediction, group)
    monkeypatch.setattr(intervals, "MOST_UNITS", 50)
    dealt = intervals.score("r2", y, prediction, group)
    assert dealt.n_groups == each.n_groups == 200
    assert 0.7 < (dealt.high - dealt.low) / (each.high - each.low) < 1.4


def test_input_that_has_no_interval_says_why() -> None:
    with pytest.raises(ValueError, match=r"groups have shape \(2,\), values \(3,\)"):
        intervals.mean(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="There are no examples"):
        intervals.mean(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        intervals.mean(np.array([0, np.nan, 1]), np.zeros(3))
    with pytest.raises(ValueError, match=r"Unknown metric 'rsq'.*r2"):
        intervals.score("rsq", np.zeros(3), np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="level is 95"):
        intervals.mean(np.zeros(3), np.arange(3), level=95)
    with pytest.raises(ValueError, match="hits are 0 or 1"):
        intervals.proportion(np.full(9, 2), np.arange(9))


# ── eta squared ──


def test_eta_squared_is_the_share_between_levels() -> None:
    draw = np.random.default_rng(5)
    levels, groups = np.repeat([0, 1, 2], 40), np.tile(np.arange(30), 4)
    y = np.array([0.0, 1.0, 5.0])[levels] + draw.standard_normal(120)
    means = np.array([y[levels == k].mean() for k in range(3)])[levels]
    found = intervals.eta_squared(y, levels, groups)
    assert found.value == pytest.approx(((means - y.mean()) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert 0 <= found.low < found.value < found.high <= 1
    assert (found.method, found.n_groups, found.of) == ("bootstrap-t", 30, "eta squared")
    order = draw.permutation(120)
    again = intervals.eta_squared(y[order] + 1e6, np.array(["b", "c", "a"])[levels[order]], groups[order])
    assert (again.value, again.low, again.high) == pytest.approx((found.value, found.low, found.high), rel=1e-6)


def test_eta_squared_of_nothing_is_near_nothing_and_few_groups_have_no_bounds() -> None:
    draw = np.random.default_rng(6)
    y, levels = draw.standard_normal(400), np.tile([0, 1], 200)
    found = intervals.eta_squared(y, levels, np.arange(400) // 4)
    assert found.low == 0
    assert found.value < 0.02
    few = intervals.eta_squared(y, levels, np.arange(400) % 4)
    assert (few.method, np.isnan(few.low)) == ("none", True)
    same = intervals.eta_squared(np.ones(400), levels, np.arange(400) // 4)
    assert same.method == "none"
    assert "do not vary" in same.note


def test_of_a_score_whose_error_one_or_two_groups_make_there_are_no_bounds() -> None:
    """A resample without them has next to no error, and a t that would put the bound of an R² of 1 at −10¹⁵."""
    y = np.arange(60.0)
    near = y + np.resize([0.01, -0.01], 60)
    near[[7, 30]] += 1
    found = intervals.score("r2", y, near, np.arange(60))
    assert found.value > 0.999
    assert found.method == "none"
    assert "one or two of 60 groups make nearly all of its error" in str(found)
    near[[3, 12, 41, 55]] += 1  # six of them are a sample
    found = intervals.score("r2", y, near, np.arange(60))
    assert 0.9 < found.low < found.value < found.high <= 1
    assert intervals.mean(near - y, np.arange(60), skewed=True).method == "bootstrap-t"


def test_groups_that_are_all_alike_have_bounds_by_how_far_others_can_be() -> None:
    zeros, groups = np.zeros(40), np.arange(40)
    found = intervals.mean(zeros, groups, ends=(-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((-1 + 0.025 ** (1 / 40), 1 - 0.025 ** (1 / 40)))
    assert found.method == "exact"
    ones = intervals.mean(zeros + 1, groups, ends=(0.0, 1.0))
    assert (ones.low, ones.high) == (pytest.approx(0.025 ** (1 / 40)), 1.0)
    assert intervals.difference(zeros, zeros, groups).method == "none"
    assert intervals.mean(zeros + 0.1, groups).method == "none"  # to rounding
    assert intervals.mean(groups / 40, groups, ends=(0.0, 1.0)) == intervals.mean(groups / 40, groups)
    few = intervals.mean(np.array([1.0, 1, 1, 1, 0.2]), np.arange(5), ends=(0.0, 1.0))
    assert few.high == 1.0


def test_equal_targets_have_no_r2_and_a_contrast_is_of_what_has_one() -> None:
    y, group = np.full(100, 0.1), np.arange(100)
    found = intervals.score("r2", y, y + 0.01, group)
    assert math.isnan(found.value)
    assert found.method == "none"
    with pytest.raises(ValueError, match="Unknown metric with a contrast 'mae'"):
        intervals.contrast("mae", y, y, y, group)


def test_a_jackknife_of_too_few_groups_says_how_many_there_are() -> None:
    y, prediction, group = grouped(4, 3)
    found = intervals.deleted(metrics.spearman, (y, prediction), group)
    assert (found.n_groups, found.note) == (4, "4 groups, and at least 5 are needed")


@pytest.mark.parametrize("crossed", [1, 2])
def test_a_small_effect_has_bounds_of_some_width_that_hold_it(crossed: int) -> None:
    """A square is not regular at 0: of bounds of its own one in fifty was [0, 0], and one in five missed the truth."""
    held = 0
    for seed in range(60):
        draw, level = np.random.default_rng(seed), np.arange(40) % 2
        y = 0.1 * (2 * level - 1) + np.sqrt(0.99) * draw.standard_normal(40)
        found = intervals.eta_squared(y, level, np.arange(40) // crossed, seed=seed)
        assert 0 <= found.low <= found.value <= found.high
        assert found.high > 0.005
        held += found.low <= 0.01 <= found.high
    assert held >= 54


def test_of_many_levels_the_bounds_hold_the_value() -> None:
    for seed in range(40):
        draw, level = np.random.default_rng(seed), np.arange(60) % 10
        found = intervals.eta_squared(draw.standard_normal(60), level, np.arange(60), seed=seed)
        assert found.low <= found.value <= found.high


def test_too_few_resamples_are_refused() -> None:
    """Of ten none lies beyond a bound of 95 %."""
    assert intervals.least_resamples(0.95) == 200
    y = np.random.default_rng(0).normal(size=36)
    with pytest.raises(ValueError, match="199 resamples are too few for bounds of 95%; take at least 200"):
        intervals.statistic(lambda a: float(a.mean()), [y], np.repeat(np.arange(12), 3), n=199)
    assert intervals.statistic(lambda a: float(a.mean()), [y], np.repeat(np.arange(12), 3), n=200).method != "none"
