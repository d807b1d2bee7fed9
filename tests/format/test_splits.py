"""Init groups → splits: no group in two, none left empty, and what is assigned stays."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_datasets.errors import GridError
from zoo_datasets.format import splits

THREE = {"train": 0.7, "validation": 0.15, "test": 0.15}
FRACTIONS = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(
    lambda parts: {name: p / sum(parts) for name, p in zip(THREE, parts, strict=False)}
)


def keys(n: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{i}".encode()).hexdigest()[:16] for i in range(n)]


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 60), FRACTIONS, st.randoms(use_true_random=False))
def test_every_group_has_one_split_and_every_split_a_group(n: int, fractions: dict, random: object) -> None:
    groups = keys(n) * 3
    random.shuffle(groups)  # twins of a group come anywhere in the plan
    assigned = splits.assign(groups, fractions)
    assert set(assigned) == set(groups)
    assert set(assigned.values()) == set(fractions)


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 399), st.integers(3, 399), FRACTIONS)
def test_more_groups_move_none_that_were_there(few: int, more: int, fractions: dict) -> None:
    few, more = sorted((few, more))
    small, large = (splits.assign(keys(n), fractions) for n in (few, more))
    assert {k: large[k] for k in small} == small


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 399), FRACTIONS, st.sampled_from(["blocks", "deficit"]))
def test_with_few_groups_every_split_is_near_its_share(n: int, fractions: dict, rule: str) -> None:
    assigned = list(splits.assign(keys(n), fractions, rule).values())
    for name, share in fractions.items():
        # A group more where the first groups went round, to leave no split empty, and one where a block is cut.
        assert abs(assigned.count(name) - share * n) < (2.5 if rule == "deficit" else 4)


def test_the_first_groups_are_pinned() -> None:
    order, before = (list(splits.assign(keys(30), THREE, rule).values()) for rule in ("", "deficit"))
    assert "".join(name[1] for name in order) == "aerrrrrarrerrrrrrarererrrrarra"
    assert "".join(name[1] for name in before[:12]) == "raerrrrrarre"
    assert sorted(order[:7]) == sorted(before[:7])  # a block has what its share is, in another order
    assert sorted(order[21:28]) == sorted(before[21:28])


@pytest.mark.parametrize(("points", "replicates"), [(10, 20), (40, 9), (20, 10)])
def test_no_side_has_the_same_points_of_a_grid_every_time(points: int, replicates: int) -> None:
    """Every replicate lists the points alike: an order that recurs with the block left 4 of 10 points to the test side."""
    place = np.arange(points * replicates) % points
    counts = np.zeros((100, points), int)
    for turn, row in enumerate(counts):
        sides = np.array(list(splits.assign(keys(len(place), f"{turn} "), THREE, "blocks").values()))
        row += np.bincount(place[sides == "test"], minlength=points)
    expected = len(place) * THREE["test"] / points
    assert abs(counts.mean(0) - expected).max() < 0.6 * np.sqrt(expected)
    by_rule = {
        rule: np.array(list(splits.assign(keys(len(place)), THREE, rule).values())) for rule in ("blocks", "deficit")
    }
    there = {rule: len(set(place[sides == "test"].tolist())) for rule, sides in by_rule.items()}
    by_chance = np.count_nonzero(counts, axis=1).mean()
    assert there["blocks"] > 0.8 * by_chance > there["deficit"]


def test_three_groups_fill_three_splits_whatever_the_shares() -> None:
    assigned = splits.assign(keys(3), {"train": 0.98, "validation": 0.01, "test": 0.01})
    assert sorted(assigned.values()) == ["test", "train", "validation"]


def test_equal_shares_are_dealt_evenly() -> None:
    assigned = splits.assign(keys(9), {"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3})
    assert sorted(assigned.values()) == sorted(["train", "validation", "test"] * 3)
    assert set(list(assigned.values())[:3]) == {"train", "validation", "test"}


def test_many_groups_are_split_by_their_own_hash_alone() -> None:
    assert [splits.rule_for(n) for n in (1, 399, 400)] == ["blocks", "blocks", "hash"]
    a, b = keys(400, "a"), keys(500, "b")
    alone, together = splits.assign(a, THREE), splits.assign([*b, *a[::-1]], THREE)
    assert {k: together[k] for k in a} == alone


def test_the_hash_rule_is_pinned_and_near_its_shares() -> None:
    assigned = splits.assign(keys(4000), THREE)
    assert "".join(assigned[k][1] for k in keys(30)) == "rrrrrrrrrrrrrerrerrrrrrrrrrraa"
    for name, share in THREE.items():
        count = sum(v == name for v in assigned.values())
        assert abs(count - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


def test_a_share_that_does_not_quite_add_up_still_covers_every_hash() -> None:
    assert splits.by_hash("anything", {"train": 1e-12, "test": 1e-12}) == "test"


def test_fewer_groups_than_splits_names_both_ways_out() -> None:
    with pytest.raises(
        GridError, match=r"2 init group\(s\) cannot fill 3 splits.*raise `replicates`.*`splits: \{train: 1\.0\}`"
    ):
        splits.assign(["a", "b", "a"], THREE)
    with pytest.raises(GridError, match=r"0 init group\(s\)"):
        splits.assign([], THREE)
    assert splits.assign(["a", "a"], {"train": 1.0}) == {"a": "train"}


def test_a_split_without_a_share_gets_nothing() -> None:
    assert set(splits.assign(keys(20), {"train": 1.0, "test": 0.0}).values()) == {"train"}
