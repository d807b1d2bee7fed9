"""Cells → rows of a table: bounds, marks, what is left of what the recipe leaves."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from zoo_datasets import (
    intervals,
    leaderboard,
    metrics,
    ranking,
    results,
    solving,
    tasks,
)
from zoo_datasets.zoo import open_zoo

pytest_plugins = ("bench_fixtures",)
pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.mark.slow
def test_the_table_ranks_marks_and_bounds(bench_zoo, found, tmp_path):
    list(results.run(found, ["statistics-ridge", "statistics"], 1, tmp_path))
    cells = results.read(found, tmp_path)
    target = found.test.targets.of[0]
    ranked = ranking.rows(found, cells, target)
    values = [r.scores["r2"].value for r in ranked]
    assert values == sorted(values, reverse=True)
    assert ranked[0].separable is None
    assert next(r for r in ranked if r.baseline == "mean").separable is True  # far behind
    top = ranking.ceiling(found, target)
    assert values[0] < top["r2"] < 1
    assert ranking.ceiling(found, found.test.targets.of[1]) == {}  # a setting is known exactly
    of_gap = ranking.ceiling(found, found.test.targets.of[2])
    assert of_gap["kendall"] < top["kendall"]  # the same images, and less that networks differ by
    of_class = tasks.problem(open_zoo(bench_zoo.root), ["test_accuracy_of_class_3"])
    assert 0 < ranking.ceiling(of_class, of_class.test.targets.of[0])["r2"] < top["r2"]  # a tenth of the images
    text = leaderboard.markdown(found, cells)
    assert text.count("### weightzoo/bench/") == 3
    assert "of test pairs are tied" in text


@pytest.mark.parametrize(("boosting", "ridge", "liked"), [(0.4, 0.3, "metadata-ridge"), (0.3, 0.4, "metadata")])
def test_what_weights_must_add_to_is_the_recipe_that_validation_likes_better(found, answered, boosting, ridge, liked):
    """Boosting learns from noise where the recipe says nothing: a gain over that alone would be a gift."""
    losses = {"metadata": boosting, "metadata-ridge": ridge}
    cells = [
        dataclasses.replace(c, chosen={"tried": [{"validation_loss": losses[c.baseline]}, {"validation_loss": 9.0}]})
        if c.baseline in losses
        else c
        for c in results.read(found, answered)
    ]
    target = found.test.targets.of[0]
    table = ranking.rows(found, cells, target)
    assert {r.control for r in table} == {liked}
    (row,) = (r for r in table if r.baseline == liked)
    assert row.gains == {}
    assert all("r2" in r.gains for r in table if r.baseline != liked)
    assert f"The recipe is {liked}" in leaderboard.markdown(found, cells)
    lines = leaderboard.as_table(found, [(target, table)]).to_pylist()
    assert {r["gain_over"] for r in lines if r["gain"] is not None} == {liked}


def test_stars_are_of_readers_of_weights_and_controls_that_know_more_stand_above_without_one(found, answered):
    """A control that is told training accuracy is best of all, and would leave nobody to be compared."""
    target = found.test.targets.of[0]
    cells = [c for c in results.read(found, answered) if c.task == found.name_of(target.name)]
    y = found.test.targets.values[:, 0]
    rng = np.random.default_rng(0)
    told, weights, near, far = (
        dataclasses.replace(cells[0], baseline=name, predictions=y + scale * rng.normal(size=len(y)))
        for name, scale in (("metadata+training", 1e-4), ("nfn", 0.02), ("probing", 0.022), ("flat", 2.0))
    )
    table = {r.baseline: r for r in ranking.rows(found, [*cells, told, weights, near, far], target)}
    assert list(table)[:2] == ["metadata+training", "nfn"]
    assert [table[n].separable for n in ("metadata+training", "nfn", "probing", "flat")] == [None, None, False, True]
    said = leaderboard.markdown(found, [*cells, told, weights, near, far])
    assert "| probing * |" in said
    assert "| metadata+training |" in said
    assert "not separable from nfn, the first that reads weights" in said


def test_who_says_the_same_is_not_separable_and_who_has_no_bounds_is_told_why(found, answered):
    target = found.test.targets.of[0]
    cells = [c for c in results.read(found, answered) if c.task == found.name_of(target.name)]
    y = found.test.targets.values[:, 0]
    said = y + 0.02 * np.random.default_rng(0).normal(size=len(y))
    wild = np.where(np.arange(len(y)) == 0, 1e30, said)
    many = [
        dataclasses.replace(cells[0], baseline=n, predictions=p) for n, p in (("a", said), ("b", said), ("wild", wild))
    ]
    table = {r.baseline: r for r in ranking.rows(found, [*cells, *many], target)}
    assert (table["b"].separable, table["b"].unsaid) == (False, "")
    assert table["wild"].separable is None
    text = leaderboard.markdown(found, [*cells, *many])
    assert "| b * |" in text
    assert f"? the difference has no bounds: {table['wild'].unsaid}." in text


@pytest.mark.parametrize(
    "tried", [5, [1], [{"validation_loss": "abc"}], [{"validation_loss": None}], [{"validation_loss": 10**400}], None]
)
def test_losses_that_are_none_choose_nothing(found, answered, tried):
    cells = [dataclasses.replace(c, chosen={"tried": tried}) for c in results.read(found, answered)]
    assert ranking.rows(found, cells, found.test.targets.of[0])


def test_networks_that_are_all_alike_have_no_r2_and_no_ceiling(found, answered):
    """As those of a level that all fail at chance, of which rounding leaves a spread."""
    values = found.test.targets.values.copy()
    values[:, 0] = 0.1
    alike = dataclasses.replace(found, test=dataclasses.replace(
        found.test, targets=dataclasses.replace(found.test.targets, values=values)
    ), split=dataclasses.replace(found.split, rule={"maker": "held_out"}))  # fmt: skip
    target = found.test.targets.of[0]
    assert ranking.ceiling(alike, target) == {}
    assert np.isnan([r.scores["r2"].value for r in ranking.rows(alike, results.read(found, answered), target)]).all()


def test_a_split_that_holds_no_level_out_has_none(found):
    """As a published one that is at random, whatever it is called."""
    named = dataclasses.replace(found, split_name="nfn", split=dataclasses.replace(found.split, rule={"maker": "nfn"}))
    assert ranking.unit_of(named, "") == ""
    assert ranking.question(named, found.test.targets.of[0]).middle is not None
    held = dataclasses.replace(named, split=dataclasses.replace(found.split, rule={"maker": "held_out"}))
    assert ranking.unit_of(held, "") == "level"


def test_what_is_left_of_what_the_recipe_leaves_is_a_share_of_squared_error_with_bounds(found, answered):
    target = found.test.targets.of[0]
    cells = [c for c in results.read(found, answered) if c.task == found.name_of(target.name)]
    y = found.test.targets.values[:, 0]
    (recipe,) = (c for c in cells if c.baseline == "metadata")
    off = recipe.predictions - y
    half = [
        dataclasses.replace(recipe, baseline="nfn", seed=i, predictions=y + share * off)
        for i, share in enumerate((0.5, 0.4))
    ]
    control = [
        dataclasses.replace(c, chosen={"tried": [{"validation_loss": 0.0}]}) if c is recipe else c for c in cells
    ]
    row = next(r for r in ranking.rows(found, [*control, *half], target) if r.baseline == "nfn")
    assert row.left.value == pytest.approx(0.25)
    assert row.left.method == "none"  # the same share in every group
    assert row.left_by_seed == pytest.approx((0.16, 0.25))
    score, known = (
        row.scores["r2"].value,
        next(r for r in ranking.rows(found, control, target) if r.baseline == "metadata"),
    )
    assert row.left.value == pytest.approx((1 - score) / (1 - known.scores["r2"].value))


@pytest.mark.slow
def test_strata_are_equal_recipes_or_tenths_of_what_the_recipe_says(found):
    target = found.test.targets.of[0]
    asked = ranking.question(found, target)
    assert len(np.unique(asked.strata)) == 4  # two activations, two rates
    alone = dataclasses.replace(found.test, points=np.arange(len(found.test)).astype(str))
    (control, *_) = solving.solve(found, "metadata", 0)
    tenths = ranking.question(dataclasses.replace(found, test=alone), target, control=control)
    means = [control.predictions[tenths.strata == s] for s in np.unique(tenths.strata)]
    assert len(means) == 10
    assert all(a.max() <= b.min() for a, b in itertools.pairwise(means))


def test_over_levels_there_are_bounds_from_five_on(found):
    def row(value: float) -> ranking.Row:
        return ranking.Row("t", "b", {"r2": ranking._without("r2", value, 9)}, {}, 1, 0.0, 0, None)

    few = ranking.over_units({str(i): [row(0.1 * i)] for i in range(4)}, "r2")
    many = ranking.over_units({str(i): [row(0.1 * i)] for i in range(5)}, "r2")
    assert few["b"].method == "none"
    assert "4 groups" in few["b"].note
    assert many["b"].low < many["b"].value < many["b"].high


def test_without_an_interval_no_row_is_said_to_be_as_good(found, tmp_path):
    """Where a class is of too few groups nothing is known of a lead: no star, and the note names the class as a number."""
    list(results.run(found, ["statistics-ridge", "statistics"], 1, tmp_path))
    cells = results.read(found, tmp_path)
    target = next(t for t in found.test.targets.of if t.classes)
    asked = ranking.question(found, target)
    one = np.unique(asked.groups)[:1]
    place = [t.name for t in found.train.targets.of].index(target.name)
    values = found.test.targets.values.copy()
    values[asked.keep, place] = np.isin(asked.groups, one).astype(float)
    part = dataclasses.replace(found.test, targets=dataclasses.replace(found.test.targets, values=values))
    rare = dataclasses.replace(found, test=part)
    ranked = ranking.rows(rare, cells, target)
    assert len(ranked) - 1 > ranking.first_of(ranked)
    assert all(r.separable is None for r in ranked)
    table = "\n".join(leaderboard._table(target, ranked))
    assert " * |" not in table
    assert table.count(" ? |") == len(ranked) - 1 - ranking.first_of(ranked)
    assert any(
        n.startswith("? the difference has no bounds: 1 of ")
        for n in leaderboard._notes(rare, part, target, "", ranked)
    )
    assert f"1 of {len(np.unique(asked.groups))} groups hold class 1, and at least 5 are needed" in table


def test_seeds_and_bounds_are_of_the_same_mean(found):
    """Of two groups of unlike size, each counts once."""
    target = found.test.targets.of[0]
    n = len(found.test)
    part = dataclasses.replace(found.test, groups=np.array(["a"] * (n - 2) + ["b"] * 2))
    asked = ranking.question(dataclasses.replace(found, test=part), target)
    given = asked.y + np.where(asked.groups == "a", 0.0, 1.0)
    assert asked.value("mae", given) == pytest.approx(0.5)
    assert asked.interval("mae", given).value == pytest.approx(0.5)


def test_r2_of_another_source_is_against_its_own_mean(bench_zoo, other_zoo):
    """Who knows no more than that a source is harder has no R² there."""
    found = tasks.problem(bench_zoo, ["test_accuracy"], others=[other_zoo])
    target = found.train.targets.of[0]
    home, away = (ranking.question(found, target, w) for w in ("", "weightzoo/other"))
    assert home.middle == found.train.targets.values[:, 0].mean()
    assert away.value("r2", np.full(len(away.y), away.y.mean())) == pytest.approx(0)
    held = tasks.problem(bench_zoo, ["test_accuracy"], "activation=relu")
    assert ranking.question(held, target).middle is None


def _reader(found: tasks.Problem, name: str, seed: int, noise: np.ndarray) -> solving.Cell:
    said = found.test.targets.values[:, 0] + noise
    return solving.Cell(found.name_of("test_accuracy"), name, seed, said, 1.0, 1, None, None, found.test.digest)


def test_the_first_of_many_is_held_to_a_stricter_level(found):
    """A lead that would count in a table of two does not where the first is the best of nine."""
    target, rng = found.test.targets.of[0], np.random.default_rng(0)
    unit = 0.1 * rng.normal(size=(9, len(found.test)))
    best = _reader(found, "best", 0, 0.5 * unit[0])
    others = [_reader(found, f"other {i}", 0, 3 * unit[i]) for i in range(2, 9)]
    verdicts = set()
    for scale in np.linspace(0.6, 2, 29):
        second = _reader(found, "second", 0, scale * unit[1])
        two, nine = (ranking.rows(found, [best, second, *more], target) for more in ([], others))
        verdicts.add(tuple(next(r.separable for r in t if r.baseline == "second") for t in (two, nine)))
    assert (True, False) in verdicts
    assert (False, True) not in verdicts


def test_a_row_is_not_beaten_by_a_reader_one_of_whose_seeds_it_reaches(found):
    target, rng = found.test.targets.of[0], np.random.default_rng(0)
    unit = 0.05 * rng.normal(size=(2, len(found.test)))
    seeds = [_reader(found, "best", s, scale * unit[0]) for s, scale in enumerate((0.1, 0.1, 5))]
    second = _reader(found, "second", 0, 4 * unit[1])
    for of_best, beaten in ((seeds[:1], True), (seeds, False)):
        ranked = ranking.rows(found, [*of_best, second], target)
        assert ranked[0].baseline == "best"
        assert next(r.separable for r in ranked if r.baseline == "second") is beaten
    lucky = [_reader(found, "second", s, scale * unit[1]) for s, scale in enumerate((4, 4, 0.05))]  # one seed is ahead
    ranked = ranking.rows(found, [seeds[0], *lucky], target)
    by_name = {r.baseline: r.separable for r in ranked}
    assert ranked[0].baseline == "best"
    assert (by_name["second"], by_name["second, mean of 3"]) == (False, False)


def test_bounds_of_an_order_lie_where_an_order_can(found):
    """A jackknife's over few groups lie beyond 1."""
    asked = ranking.question(found, found.test.targets.of[0])
    few = np.arange(len(asked.y)) < 6
    few = dataclasses.replace(asked, y=asked.y[few], groups=asked.groups[few], keep=asked.keep[few])
    beyond = 0
    for seed in range(20):
        given = np.random.default_rng(seed).normal(size=6)
        raw = intervals.deleted(metrics.spearman, (few.y, given), few.groups)
        shown = few.interval("spearman", given)
        assert (shown.low, shown.high) == (max(-1, raw.low), min(1, raw.high))
        beyond += raw.high > 1 or raw.low < -1
    assert beyond


def test_seeds_that_are_asked_together_are_a_row_of_their_own(found):
    """What they say on average errs less than each, costs what they cost, and has the rank of what it is made of."""
    target, rng = found.test.targets.of[0], np.random.default_rng(0)
    noise = 0.05 * rng.normal(size=(6, len(found.test)))
    seeds = [_reader(found, "reader", s, noise[s]) for s in range(3)]
    control = [_reader(found, "probing-random", s, 0.1 * noise[3 + s]) for s in range(3)]
    ranked = ranking.rows(found, [*seeds, *control], target)
    by_name = {r.baseline: r for r in ranked}
    assert [r.baseline for r in ranked] == [
        "probing-random, mean of 3",
        "probing-random",
        "reader, mean of 3",
        "reader",
    ]
    assert ranked[ranking.first_of(ranked)].baseline == "reader, mean of 3"
    one, three = by_name["reader"], by_name["reader, mean of 3"]
    mean = np.mean([c.predictions for c in seeds], axis=0)
    asked = ranking.question(found, target)
    assert three.scores["r2"].value == asked.value("r2", mean[asked.keep])
    assert (three.seeds, three.cpu_s, three.parameters) == (3, 3 * one.cpu_s, 3 * one.parameters)
    assert (three.spread, three.left_by_seed) == (one.spread, one.left_by_seed)  # those of its seeds
    assert three.spread["r2"][1] < three.scores["r2"].value
    same = [_reader(found, "sure", s, noise[0]) for s in range(3)]  # draws nothing
    assert [r.baseline for r in ranking.rows(found, same, target)] == ["sure"]
    assert "reader, mean of 2" not in {r.baseline for r in ranking.rows(found, seeds[:2], target)}


def test_of_equal_readers_the_best_leads_nobody_in_one_table_of_twenty() -> None:
    """Whoever comes first is chosen by the very numbers that then say how far ahead it is: leads of that one alone were called
    separable in a quarter of the tables of eight equal readers."""
    from scipy.stats import norm

    rng, trials, found = np.random.default_rng(0), 20_000, {}
    for readers, controls in ((2, 0), (8, 0), (23, 0), (4, 4), (1, 6)):
        scores = rng.normal(size=(trials, readers + controls))  # all of one error
        best = scores[:, :readers].max(1)
        lead = best - np.where(scores == best[:, None], np.inf, scores).min(1)
        reach = norm.ppf((1 + ranking.level_of_leads(readers, readers + controls)) / 2) * np.sqrt(2)
        found[readers, controls] = float((lead > reach).mean())
    assert max(found.values()) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert min(found.values()) > 0.01  # no level that nothing reaches
