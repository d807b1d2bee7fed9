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
@given(st.integers(3, 399), FRACTIONS)
def test_with_few_groups_every_split_is_within_one_of_its_share(n: int, fractions: dict) -> None:
    assigned = list(splits.assign(keys(n), fractions).values())
    for name, share in fractions.items():
        # A group more where the first groups went round, to leave no split empty.
        assert abs(assigned.count(name) - share * n) < 2.5


def test_the_first_groups_are_pinned() -> None:
    order = list(splits.assign(keys(12), THREE).values())
    assert "".join(name[1] for name in order) == "raerrrrrarre"


def test_three_groups_fill_three_splits_whatever_the_shares() -> None:
    assigned = splits.assign(keys(3), {"train": 0.98, "validation": 0.01, "test": 0.01})
    assert sorted(assigned.values()) == ["test", "train", "validation"]


def test_equal_shares_are_dealt_in_turn() -> None:
    assigned = splits.assign(keys(9), {"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3})
    assert list(assigned.values()) == ["train", "validation", "test"] * 3


def test_many_groups_are_split_by_their_own_hash_alone() -> None:
    assert [splits.rule_for(n) for n in (1, 399, 400)] == ["deficit", "deficit", "hash"]
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
