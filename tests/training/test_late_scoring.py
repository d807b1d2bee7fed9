"""An even schedule with an open end is scored when it shows which snapshots are kept: same numbers, less work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from zoo_builder import engines, worker
from zoo_builder.training import evaluation
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer

CHANGES = (
    "axes={lr: [1e-3, 1e20, 0.3], activation: [relu]}", "paired=[]", "replicates=2", "splits={train: 1}", "cohort_size=99",
    "training={optimizer: sgd, epochs: 12, batch_size: 64, min_epochs: 1, stop_below: 2}",
)  # fmt: skip


@pytest.mark.parametrize("thin", ["", ", evaluation: {train: 20, test: 30}"])
@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.slow
def test_the_kept_snapshots_have_the_numbers_that_they_had_in_time(
    make_plan: Callable[..., Any], engine: str, thin: str
) -> None:
    def trained(schedule: str) -> Any:
        planned = make_plan(*CHANGES, f"snapshots={{{schedule}{thin}}}", engine=engine)
        (cohort,) = planned.cohorts
        return cohort, worker.train(cohort, next(iter(planned.sources.values())))

    (cohort, (some, ends, _)), (_, (every, same, _)) = trained("evenly: 4"), trained("every_epoch: true")
    assert ends == same
    assert "diverged" in {e["stop_reason"] for e in ends}
    assert len({max(s.step for s in some if s.model == m) for m in range(len(cohort.runs))}) > 1  # of different length
    known = {(s.model, s.step): s for s in every}
    for s in some:
        assert s.sha256 == known[s.model, s.step].sha256
        assert s.metrics == known[s.model, s.step].metrics
    for m in range(len(cohort.runs)):
        assert len([s for s in some if s.model == m]) == min(4, len([s for s in every if s.model == m]))


@pytest.mark.slow
def test_only_what_is_kept_is_scored(make_plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    planned = make_plan(*CHANGES, "snapshots={evenly: 4}", engine="torch_loop")
    (cohort,), (source,) = planned.cohorts, planned.sources.values()
    data = data_of(cohort, source)
    scored: list[tuple[int, int]] = []
    metrics = evaluation.metrics
    monkeypatch.setattr(evaluation, "metrics", lambda *a: scored.extend(a[3].items()) or metrics(*a))
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data), cohort.device)
    snapshots, _ = Trainer(cohort, source, data, backend).run()
    assert sorted(scored) == sorted((s.model, s.step) for s in snapshots)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_logits_of_some_models_are_those_of_all(make_plan: Callable[..., Any], engine: str) -> None:
    planned = make_plan("axes={}", "paired=[]", "replicates=4", "splits={train: 1}", engine=engine)
    (cohort,), (source,) = planned.cohorts, planned.sources.values()
    data = data_of(cohort, source)
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data), cohort.device)
    some, rows = [3, 1], data.rows[:, ::2].copy()
    rows[1] = rows[1, ::-1]
    assert backend.logits(data.pool, models=some).tobytes() == backend.logits(data.pool)[some].tobytes()
    assert backend.logits(data.pool, rows[some], some).tobytes() == backend.logits(data.pool, rows)[some].tobytes()
