"""Block `snapshots` → the steps at which models are published; its JSON is in every run's id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_builder.recipe.snapshots import SnapshotSchedule, evenly, parse
from zoo_datasets.errors import GridError


@pytest.mark.parametrize(
    ("schedule", "total", "wanted"),
    [
        ({"every_epoch": True}, 10, [0, 4, 8, 10]),
        ({"every_epoch": True}, 0, [0]),
        ({"epochs": [0, 1, 2]}, 8, [0, 4, 8]),
        ({"epochs": [1]}, 10, [4, 10]),
        ({"epochs": [0.25, 0.5, 7]}, 8, [1, 2, 8]),
        ({"steps": [7, 0, 3, 3, 99]}, 8, [0, 3, 7, 8]),
        ({"log_steps": 2}, 8, [0, 8]),
        ({"log_steps": 5}, 8, [0, 1, 2, 4, 8]),
        ({"log_steps": 9}, 2, [0, 1, 2]),
        ({"log_steps": 4}, 0, [0]),
        ({"evenly": 2}, 9, [0, 9]),
        ({"evenly": 5}, 8, [0, 2, 4, 6, 8]),
        ({"evenly": 4}, 10, [0, 3, 7, 10]),
        ({"evenly": 20}, 3, [0, 1, 2, 3]),
    ],
)
def test_a_schedule_names_its_steps(schedule: dict[str, Any], total: int, wanted: list[int]) -> None:
    assert SnapshotSchedule.from_json(schedule).steps(4, total) == wanted


@given(st.integers(2, 40), st.integers(0, 5000))
def test_evenly_spreads_as_many_as_fit_from_the_first_step_to_the_last(count: int, total: int) -> None:
    found = SnapshotSchedule("evenly", count=count).steps(7, total)
    assert len(found) == min(count, total + 1)
    assert (found[0], found[-1]) == (0, total)
    gaps = np.diff(found)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@given(st.sampled_from(["evenly", "log_steps"]), st.integers(2, 40), st.integers(0, 5000))
def test_no_schedule_leaves_the_budget_or_forgets_its_end(kind: str, count: int, total: int) -> None:
    found = SnapshotSchedule(kind, count=count).steps(7, total)
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == total
    assert len(found) <= count


@pytest.mark.parametrize(
    "value",
    [
        {"every_epoch": True},
        {"epochs": [0.0, 0.5, 2.0], "optimizer": True},
        {"steps": [0, 3]},
        {"log_steps": 7},
        {"evenly": 3, "optimizer": True},
        {"steps": [1], "evaluation": {"test": 5}, "target_loss": 0.5, "attack_per_class": True},
    ],
)
def test_a_schedule_is_written_as_a_recipe_has_it_and_read_back(value: dict[str, Any]) -> None:
    schedule = parse(value, "here")
    assert repr(schedule.to_json()) == repr(value)  # 2.0 is not 2: ids are made of it
    assert SnapshotSchedule.from_json(value) == schedule
    assert hash(schedule) == hash(parse(value, "there"))


def test_the_optimizer_is_kept_where_it_is_asked_for() -> None:
    assert not parse({"steps": [1], "optimizer": False}, "here").keep_optimizer
    assert parse({"steps": [1], "optimizer": False}, "here") == parse({"steps": [1]}, "here")
    assert parse({"steps": [1], "optimizer": True}, "here").keep_optimizer


def test_attacks_by_class_are_said_with_true_or_false() -> None:
    assert parse({"steps": [1], "attack_per_class": False}, "here") == parse({"steps": [1]}, "here")
    with pytest.raises(GridError, match=r"here: `attack_per_class` is 3; `true` counts"):
        parse({"steps": [1], "attack_per_class": 3}, "here")


def test_what_lies_after_the_end_is_named_in_its_own_unit() -> None:
    assert SnapshotSchedule("epochs", at=(0.0, 2.0, 2.5, 9.0)).beyond(4, 8) == [2.5, 9.0]
    assert SnapshotSchedule("steps", at=(0, 8, 9)).beyond(4, 8) == [9]
    assert SnapshotSchedule("evenly", count=50).beyond(4, 8) == []


def test_an_open_end_keeps_every_epoch_and_thins_them_evenly() -> None:
    schedule = SnapshotSchedule("evenly", count=3)
    assert schedule.steps(4, 20, open_end=True) == [0, 4, 8, 12, 16, 20]
    assert schedule.thinned(6) == evenly(3, 5) == [0, 3, 5]
    assert schedule.thinned(2) == [0, 1]
    assert SnapshotSchedule("steps", at=(0, 3)).steps(4, 20, open_end=True) == [0, 3, 20]
    assert SnapshotSchedule("steps", at=(0, 3)).thinned(6) == [0, 1, 2, 3, 4, 5]


# ── how snapshots before the last are scored ──


def test_the_images_that_are_scored_are_written_in_the_order_of_parts_and_read_back() -> None:
    schedule = parse({"epochs": [0], "evaluation": {"validation": 0, "train": 1000}}, "here")
    assert schedule.evaluation == (("train", 1000), ("validation", 0))
    assert schedule.to_json() == {"epochs": [0.0], "evaluation": {"train": 1000, "validation": 0}}
    assert SnapshotSchedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize("value", [None, {}])
def test_at_its_default_no_id_knows_of_the_evaluation(value: Any) -> None:
    plain = parse({"epochs": [0]}, "here")
    assert parse({"epochs": [0], "evaluation": value}, "here") == plain
    assert "evaluation" not in plain.to_json()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1000, r"`evaluation` is 1000; numbers of images are needed, like \{train: 1000, validation: 0\}"),
        ({"trian": 5}, "trian"),
        ({"train": -1}, "`evaluation` of train is -1; a whole number"),
        ({"train": True}, "`evaluation` of train is True"),
        ({"test": 0.5}, "`evaluation` of test is 0.5"),
    ],
)
def test_an_evaluation_that_is_none_is_refused(value: Any, said: str) -> None:
    with pytest.raises(GridError, match=said):
        parse({"epochs": [0], "evaluation": value}, "here")


def test_one_more_snapshot_where_the_loss_comes_to_a_target() -> None:
    schedule = parse({"epochs": [0, 2], "target_loss": 1e-4}, "here")
    assert schedule.to_json() == {"epochs": [0.0, 2.0], "target_loss": 1e-4}
    assert SnapshotSchedule.from_json(schedule.to_json()) == schedule
    assert schedule.steps(10, 50) == [0, 20, 50]  # when it comes nobody knows before
    assert schedule.most(10, 50) == 4
    assert "target_loss" not in parse({"epochs": [0, 2]}, "here").to_json()


@pytest.mark.parametrize("value", [-1, "low", True, float("inf"), float("nan"), 10**400])
def test_a_target_loss_is_a_number(value: object) -> None:
    with pytest.raises(GridError, match=r"here: `target_loss` is .*; a validation loss ≥ 0 is needed"):
        parse({"epochs": [0], "target_loss": value}, "here")


def test_evenly_says_how_many_snapshots_there_are() -> None:
    with pytest.raises(GridError, match=r"here: `target_loss` is one more snapshot, and `evenly` says how many"):
        parse({"evenly": 5, "target_loss": 0.1}, "here")
