"""What `zoo_builder.estimate` promises: every kind of cohort has its cost, and workers share the cohorts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zoo_builder import estimate, plan


@pytest.fixture
def many_kinds(make_plan: Callable[..., plan.Plan]) -> plan.Plan:
    levels = ", ".join(f"[flatten, {{linear: {n}}}, activation, {{linear: classes}}]" for n in range(2, 34, 4))
    return make_plan(
        "architecture=null", f"axes={{architecture: [{levels}]}}", "paired=[]", "replicates=2", "cohort_size=2"
    )


def test_kinds_that_were_not_timed_lie_between_those_that_were(
    many_kinds: plan.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "MOST_S", 0.0)  # one of each engine, the least
    costs = estimate._costs(many_kinds)
    assert costs is not None
    assert len(costs) == 8
    assert [c.step for c in costs.values()] == pytest.approx(
        [next(iter(costs.values())).step] * 8, abs=1e-8
    )  # a step may be too short for the clock
    monkeypatch.setattr(estimate, "MOST_S", 60.0)
    timed = estimate._costs(many_kinds)
    assert timed is not None
    assert len(set(timed.values())) == 8


def test_a_kind_between_two_has_a_cost_between_theirs(many_kinds: plan.Plan) -> None:
    largest = {estimate._kind(c): c for c in many_kinds.cohorts}
    kinds = sorted(largest, key=lambda k: estimate._work(largest[k].architecture))
    low, high = estimate._Cost(1, 1, 1, 1, 1, 1), estimate._Cost(4, 4, 4, 4, 4, 4)
    timed = {kinds[0]: low, kinds[-1]: high}
    steps = [estimate._between(k, largest, timed).step for k in kinds]
    assert steps == sorted(steps)
    assert steps[0] == pytest.approx(1)
    assert steps[-1] == pytest.approx(4)
    assert steps[3] == pytest.approx(
        4 ** ((log_work(largest, kinds[3]) - log_work(largest, kinds[0]))
              / (log_work(largest, kinds[-1]) - log_work(largest, kinds[0])))
    )  # fmt: skip


def log_work(largest: dict[estimate.Kind, estimate.Cohort], kind: estimate.Kind) -> float:
    import math

    return math.log(estimate._work(largest[kind].architecture))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 100])
def test_kinds_are_timed_from_the_ends_inwards_each_once(n: int) -> None:
    kinds: list[estimate.Kind] = [("native", str(i), 32, "") for i in range(n)]
    order = [int(k[1]) for k in estimate._spread(kinds)]
    assert sorted(order) == list(range(n))
    assert order[:2] == [0, n - 1][: min(n, 2)]


def test_two_workers_share_cohorts_and_no_more_work_than_there_are(
    tiny_plan: plan.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = estimate._Schedules(tiny_plan.grid.snapshots)
    cost = estimate._Cost(1 - estimate.COHORT_S, 0, 0, 0, 0, 0)  # a second each
    monkeypatch.setattr(estimate, "_costs", lambda plan: {estimate._kind(c): cost for c in plan.cohorts})
    alone, two, three = (estimate._seconds(tiny_plan, schedules, n, on_ray=False) for n in (1, 2, 3))
    assert alone is not None
    assert (two, three) == (pytest.approx(alone - 2), pytest.approx(alone - 2))  # of four cohorts: 4, 2 and 2 seconds
    on_ray = estimate._seconds(tiny_plan, schedules, 2, on_ray=True)
    assert on_ray == pytest.approx(two + estimate.RAY_S + estimate.WORKER_S)
