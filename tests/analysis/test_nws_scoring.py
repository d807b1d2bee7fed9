"""Readers of settings: chance, intervals, gains, permutations; what is a property, and who is asked."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from zoo_datasets.analysis.nws import pictures, scoring
from zoo_datasets.analysis.nws.properties import TRAINING, Property
from zoo_datasets.analysis.nws.scoring import Judged
from zoo_datasets.baselines.interface import Target
from zoo_datasets.core import permuting


def class_of(values: np.ndarray) -> Property:
    levels = tuple("abc"[: int(np.nanmax(values)) + 1])
    return Property(Target("kind", len(levels)), TRAINING, levels, False, values, "kind", ())


def number_of(values: np.ndarray) -> Property:
    return Property(Target("lr"), TRAINING, (), False, values, "lr", ())


def one_hot(said: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[said]


def judged(of: Property, predictions: list[np.ndarray], groups: np.ndarray | None = None) -> Judged:
    n = len(of.values)
    return scoring.judge(of, predictions, np.arange(n), np.arange(n) if groups is None else groups)


def test_chance_is_the_share_of_the_most_frequent_level_among_those_asked() -> None:
    found = judged(class_of(np.array([0, 0, 0, 1.0])), [one_hot([0, 0, 1, 0], 2)])
    assert found.chance == 0.75
    assert found.record()["value"] == 0.5


def test_chance_counts_a_group_once_as_the_accuracy_does() -> None:
    groups = np.array([0, 0, 0, 1, 2])
    always = judged(class_of(np.array([0, 0, 0, 1, 1.0])), [one_hot([1] * 5, 2)], groups)
    assert always.chance == pytest.approx(2 / 3)
    assert always.record()["value"] == pytest.approx(always.chance)  # a constant answer never beats it


def test_who_has_no_value_is_not_asked() -> None:
    found = judged(class_of(np.array([0, np.nan, 1])), [one_hot([0, 0, 1], 2)])
    assert (found.networks.tolist(), found.record()["n"], found.record()["value"]) == ([0, 2], 2, 1.0)


def test_seeds_are_a_mean_of_each_network_and_are_shown() -> None:
    found = judged(class_of(np.array([0, 1.0] * 5)), [one_hot([0, 1] * 5, 2), one_hot([0, 0] * 5, 2)])
    row = found.record(method="m")
    assert (row["value"], row["by_seed"], row["n"], row["method"]) == (0.75, [1.0, 0.5], 10, "m")


def test_a_number_is_right_by_its_error_against_that_of_the_median() -> None:
    of = number_of(np.array([1.0, 3.0]))
    assert judged(of, [np.array([2.0, 2.0])]).record()["value"] == 0.0
    assert judged(of, [np.array([1.5, 2.5])]).record()["value"] == 0.5
    assert judged(of, [np.array([1.0, 3.0])]).record()["value"] == 1.0


def test_where_a_number_is_the_same_for_all_there_is_no_error_to_compare_with() -> None:
    of = number_of(np.array([1.0, 3.0, 3.0]))
    found = judged(of, [of.values])
    assert found.differ
    assert not found.among(np.array([False, True, True])).differ
    assert not found.among(np.array([True, False, False])).differ
    assert not found.among(np.zeros(3, bool)).differ
    assert judged(
        class_of(np.array([1.0, 1.0])), [one_hot([1, 1], 2)]
    ).differ  # a class is right or not, whatever others are


def test_nobody_to_choose_by_mixes_nothing_in() -> None:
    nobody = np.zeros((0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scoring.share_of(class_of(np.array([0.0, 1.0])), nobody, nobody, np.zeros(0), np.full(2, 0.5)) == 0.0


def test_a_number_is_judged_among_those_it_stands_with_so_that_a_constant_answer_beats_no_chance() -> None:
    """Inside strata the median of all says what stratum it is, which is no news; who is exact stays exact."""
    of = number_of(np.array([0.0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]))
    said = [np.full(12, 11.5), of.values]
    strata = [judged(of, said[:1]).among(np.arange(12) // 4 == b) for b in range(3)]
    assert strata[1].record()["value"] == pytest.approx(0.0)
    assert max(part.record()["value"] for part in strata) <= 0
    exact = [judged(of, said[1:]).among(np.arange(12) // 4 == b) for b in range(3)]
    assert scoring.stratified(exact).record()["value"] == 1.0
    knows_the_stratum = judged(of, [np.repeat([1.5, 11.5, 21.5], 4)])
    assert knows_the_stratum.record()["value"] > 0.8
    inside = [knows_the_stratum.among(np.arange(12) // 4 == b) for b in range(3)]
    assert scoring.stratified(inside).record()["value"] == pytest.approx(0.0)
    assert scoring.joined(inside).record()["value"] == pytest.approx(knows_the_stratum.record()["value"])


# ── gains ──


def test_weights_that_say_more_are_readable_and_those_that_say_nothing_are_bounded() -> None:
    of = class_of(np.tile([0, 1.0], 100))
    known = judged(of, [one_hot([0] * 200, 2)])
    all_right = judged(of, [one_hot([0, 1] * 100, 2)])
    found = scoring.gain(known, all_right, 500, 0)
    assert (found["value"], found["known"], found["with_weights"]) == (0.5, 0.5, 1.0)
    assert scoring.verdict(found | {"q": 0.04}) == "readable"
    assert scoring.verdict(found | {"q": 0.06}) == "undecided"  # of so many tests one is like this by chance
    assert found["p"] == pytest.approx(1 / 501)
    nothing = scoring.gain(known, known, 500, 0)
    # None of 200 differs: by an exact bound at most 1.8 % of others do, and by one right answer each.
    assert (nothing["p"], nothing["high"]) == (1.0, pytest.approx(1 - 0.025 ** (1 / 200)))
    assert nothing["low"] == -nothing["high"]
    assert scoring.verdict(nothing | {"q": 1.0}) == "less than 0.05"


def test_where_no_answer_differs_few_networks_decide_nothing_and_numbers_never_do() -> None:
    of = class_of(np.tile([0, 1.0], 15))
    same = judged(of, [one_hot([0] * 30, 2)])
    found = scoring.gain(same, same, 100, 0)
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert scoring.verdict(found | {"q": 1.0}) == "undecided"
    number = dataclasses.replace(of, target=Target("lr"), levels=(), values=np.linspace(0, 1, 30))
    same = scoring.judge(number, [np.full(30, 0.5)], np.arange(30), np.arange(30))
    found = scoring.gain(same, same, 100, 0)
    assert np.isnan(found["high"])
    assert "all 30 groups are alike" in found["note"]
    assert scoring.verdict(found | {"q": 1.0}) == "undecided"


def test_few_networks_leave_it_undecided() -> None:
    of = class_of(np.tile([0, 1.0], 10))
    right = one_hot([0, 1] * 10, 2)
    one_worse, one_better = right.copy(), right.copy()
    one_worse[0], one_better[2] = [0, 1], [0, 1]
    assert (
        scoring.verdict(scoring.gain(judged(of, [one_worse]), judged(of, [one_better]), 100, 0) | {"q": 0.5})
        == "undecided"
    )


def test_weights_are_left_aside_where_they_mislead_on_validation() -> None:
    of, values = class_of(np.array([0, 1.0] * 20)), np.array([0, 1.0] * 20)
    prior = np.array([0.5, 0.5])
    known = np.array([[0.7, 0.3], [0.3, 0.7]] * 20)
    right, wrong = np.array([[0.9, 0.1], [0.1, 0.9]] * 20), np.array([[0.1, 0.9], [0.9, 0.1]] * 20)
    assert scoring.share_of(of, known, right, values, prior) == 2.0
    assert scoring.share_of(of, known, wrong, values, prior) == 0.0
    assert np.allclose(scoring.mixed(of, known, wrong, 0.0, prior), known)
    both = scoring.mixed(of, known[:1], right[:1], 1.0, prior)  # 0.7·0.9 against 0.3·0.1
    assert both[0] == pytest.approx([0.63 / 0.66, 0.03 / 0.66])


# ── permutations ──


def test_p_of_right_answers_is_the_least_and_of_a_constant_answer_one() -> None:
    of = class_of(np.array([0, 1.0] * 20))
    assert scoring.p_value(judged(of, [one_hot([0, 1] * 20, 2)]), 999, 0) == pytest.approx(1 / 1000)
    assert scoring.p_value(judged(of, [one_hot([0] * 40, 2)]), 999, 0) == 1.0


def test_p_is_uniform_where_answers_know_nothing() -> None:
    draw = np.random.default_rng(0)
    of = class_of(draw.integers(0, 3, 60).astype(float))
    found = [scoring.p_value(judged(of, [np.eye(3)[draw.integers(0, 3, 60)]]), 199, s) for s in range(60)]
    assert 0.35 < np.mean(found) < 0.75  # ties make it larger than one half
    assert np.mean(np.array(found) <= 0.05) < 0.15


def by_folds(draw: np.random.Generator, n: int) -> Judged:
    """Two folds, the reader of each of which says what is more frequent in the other, of every third at random."""
    values = draw.integers(0, 2, n).astype(float)
    of, parts = class_of(values), []
    for fold in (0, 1):
        asked = np.flatnonzero(np.arange(n) % 2 == fold)
        said = np.full(len(asked), int(np.delete(values, asked).mean() > 0.5))
        said[::3] = draw.integers(0, 2, len(said[::3]))
        parts.append(scoring.judge(of, [one_hot(said.tolist(), 2)], asked, np.arange(n)))
    return scoring.joined(parts)


def test_p_by_folds_is_uniform_though_readers_say_what_is_rarer_among_those_they_are_asked_about() -> None:
    draw = np.random.default_rng(0)
    asked = [by_folds(draw, 120) for _ in range(200)]
    found = [scoring.permuted([one], 199, s) for s, one in enumerate(asked)]
    across = [dataclasses.replace(one, fold=np.zeros_like(one.fold)) for one in asked]
    too_large = np.mean([scoring.permuted([one], 199, s)[0] for s, one in enumerate(across)])
    assert 0.48 < np.mean([p for p, _ in found]) < 0.6 < too_large
    assert np.mean([chance for _, chance in found]) < 0.5  # nobody who knows nothing comes to one half
    assert np.mean([p < 0.05 for p, _ in found]) <= 0.08


def test_one_p_of_several_shuffles_finds_what_each_alone_leaves_open() -> None:
    """Eight of twelve right is chance one time in five; ten times over it is none."""
    of = class_of(np.array([0, 1.0] * 6))
    said = one_hot([0, 1] * 4 + [1, 0] * 2, 2)
    parts = [judged(of, [said])] * 10
    alone = scoring.permuted(parts[:1], 2000, 0)[0]
    assert alone == scoring.p_value(parts[0], 2000, 0)
    assert 0.1 < alone < 0.4
    draw = np.random.default_rng(0)
    mixed = []
    for _ in range(10):  # labels that have nothing in common, each said as well
        values = draw.permutation(of.values)
        wrong = draw.permutation(
            np.concatenate([draw.choice(np.flatnonzero(values == v), 2, replace=False) for v in (0, 1)])
        )
        told = values.copy()
        told[wrong] = 1 - told[wrong]
        mixed.append(judged(class_of(values), [one_hot(told.astype(int).tolist(), 2)]))
    assert {float(j.right.mean()) for j in mixed} == {8 / 12}
    assert scoring.permuted(mixed, 2000, 0)[0] < 0.01
    nothing = [judged(class_of(draw.permutation(of.values)), [one_hot([0, 1] * 6, 2)]) for _ in range(10)]
    assert scoring.permuted(nothing, 2000, 0)[0] > 0.05


def test_permutations_move_inside_groups_and_groups_of_one_size_among_each_other() -> None:
    groups = np.array([0, 0, 1, 1, 2])
    found = permuting.permutations(groups, 400, np.random.default_rng(0))
    assert (np.sort(found, 1) == np.arange(5)).all()
    assert (found[:, 4] == 4).all()  # nobody else is alone
    assert {tuple(sorted(pair)) for pair in found[:, :2].tolist()} == {(0, 1), (2, 3)}
    assert len({tuple(row) for row in found.tolist()}) == 8


def test_permutations_leave_a_fold_by_no_label() -> None:
    fold = np.array([0, 0, 0, 1, 1, 1])
    found = permuting.permutations(np.array([0, 0, 1, 2, 3, 3]), 200, np.random.default_rng(0), fold)
    assert (fold[found] == fold).all()
    assert len({tuple(row) for row in found.tolist()}) == 4


def test_twins_that_share_a_level_are_no_independent_evidence() -> None:
    """Four groups of ten twins: forty right answers are four, which chance gives one time in six."""
    groups = np.repeat(np.arange(4), 10)
    of = class_of(np.repeat([0, 0, 1, 1.0], 10))
    found = scoring.p_value(judged(of, [one_hot(of.values.astype(int).tolist(), 2)], groups), 2000, 0)
    assert found is not None
    assert 0.1 < found < 0.25


def test_more_layers_than_colors_are_drawn() -> None:
    rows = [
        {"property": p, "layer": f"conv{i}", "method": "svm", "value": 0.5, "low": 0.4, "high": None, "chance": 0.25,
         "verdict": "readable"}
        for p in ("optimizer", "lr") for i in range(12)
    ]  # fmt: skip
    assert len(pictures._split(rows, "layer", "a title").axes[0].lines) == 3 * len(
        rows
    )  # a point, its interval and the tick of chance
    assert len(pictures._gains(rows, "a title").axes[0].lines) == 2 * len(rows) + 1  # and the line of no gain
