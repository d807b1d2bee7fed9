"""What `zoo_builder.estimate` promises: every kind of cohort has its cost, and workers share the cohorts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo_builder import estimate, plan
from zoo_builder.build import build
from zoo_datasets import open_zoo
from zoo_datasets.format import writer


@pytest.fixture
def many_kinds(make_plan: Callable[..., plan.Plan]) -> plan.Plan:
    levels = ", ".join(f"[flatten, {{linear: {n}}}, activation, {{linear: classes}}]" for n in range(2, 34, 4))
    return make_plan(
        "architecture=null", f"axes={{architecture: [{levels}]}}", "paired=[]", "replicates=2", "cohort_size=2"
    )


@pytest.mark.slow
def test_kinds_that_were_not_timed_lie_between_those_that_were(
    many_kinds: plan.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "MOST_S", 0.0)  # one of each engine, the least
    costs = estimate._costs(many_kinds)
    assert costs is not None
    assert len(costs) == 8
    largest = {estimate._kind(c): c for c in many_kinds.cohorts}
    least = min(largest, key=lambda k: log_work(largest, k))
    for kind, cost in costs.items():  # as the work; a step may be too short for the clock
        beyond = math.exp(log_work(largest, kind) - log_work(largest, least))
        assert cost.step == pytest.approx(costs[least].step * beyond, rel=1e-6, abs=1e-7)
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
    return math.log(estimate._work(largest[kind].architecture))


def test_what_augmentation_costs_is_counted_where_it_was_timed_on_other_networks(many_kinds: plan.Plan) -> None:
    """Steps with it and without are two families: a kind takes the times of its own."""
    largest = {}
    for c in many_kinds.cohorts:
        for label in ("none", "shift=1"):
            kind = (*estimate._kind(c)[:4], label)
            largest[kind] = c
    first, *others = [k for k in largest if k[4] == "shift=1"]
    plain = next(k for k in largest if k[4] == "none")
    cheap, dear = estimate._Cost(1, 1, 1, 1, 1, 1), estimate._Cost(1, 1, 1, 5, 1, 1)
    costs = {k: estimate._between(k, largest, {plain: cheap, first: dear}).step for k in others}
    for kind, step in costs.items():
        beyond = math.exp(log_work(largest, kind) - log_work(largest, first))
        assert step == pytest.approx(5 * beyond)


def test_each_family_is_timed_whatever_time_it_takes(
    make_plan: Callable[..., plan.Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = make_plan(
        "axes={augmentation: [none, {noise_std: 0.1}]}", "paired=[]", "replicates=1", "splits={train: 1}"
    )
    monkeypatch.setattr(estimate, "MOST_S", 0.0)
    seen: list[str] = []
    time_of = estimate._time
    monkeypatch.setattr(estimate, "_time", lambda c, *rest: seen.append(estimate._kind(c)[4]) or time_of(c, *rest))
    assert estimate._costs(planned) is not None
    assert sorted(seen) == ["noise_std=0.1", "none"]


def test_of_large_networks_fewer_steps_are_timed(
    make_plan: Callable[..., plan.Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = make_plan("axes={}", "paired=[]", "replicates=1", "splits={train: 1}")
    (cohort,) = planned.cohorts
    for steps, evaluated in estimate.TIMED:
        least = estimate._work(cohort.architecture) * (32 * 4 * (1 + steps) * 3 + 4 * 3 * evaluated)
        monkeypatch.setattr(estimate, "MOST_WORK", float(least))
        assert estimate._affordable(cohort, planned, steps, evaluated) == 1
        seen: list[tuple[int, ...]] = []
        cost = estimate._Cost(**{f.name: 1.0 for f in dataclasses.fields(estimate._Cost)})
        monkeypatch.setattr(estimate, "_time", lambda c, p, *t, seen=seen, cost=cost: seen.append(t) or cost)
        assert estimate._costs(planned) is not None
        assert seen == [(steps, evaluated)]
    monkeypatch.setattr(estimate, "MOST_WORK", 1.0)
    assert estimate._costs(planned) is None


def test_weights_are_said_to_be_inline_where_they_are(tiny_plan: plan.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    schedules = estimate._Schedules(tiny_plan.grid.snapshots)
    published = sum(4 * c.architecture.n_params * len(c.runs) for c in tiny_plan.cohorts)
    for most, said in (
        (published, f" of weights and {estimate.size(published)} inline"),
        (published - 1, " and none inline"),
    ):
        monkeypatch.setattr(writer, "MOST_INLINE_BYTES", most)
        assert estimate._sizes(tiny_plan, schedules).endswith(said)


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


@pytest.mark.parametrize("rule", ["", ", stop_drops: 1"])
@pytest.mark.parametrize("kind", ["{evenly: 4}", "{evenly: 40}", "{epochs: [0, 1]}"])
def test_a_plan_counts_the_snapshots_that_are_kept(
    rule: str, kind: str, make_plan: Callable[..., plan.Plan], tmp_path: Path
) -> None:
    planned = make_plan(f"training={{epochs: 6, batch_size: 50, lr: 0{rule}}}", f"snapshots={kind}", limit=8)
    zoo = open_zoo(build(planned, tmp_path / "zoo", workers=0).root)
    assert set(zoo.models["stop_reason"].to_pylist()) == {"epochs"}  # weights that never move drop nothing
    assert f"{len(zoo):,} snapshots, " in estimate._sizes(planned, estimate._Schedules(planned.grid.snapshots))
