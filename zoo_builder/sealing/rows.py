"""A run and what training made of it → its rows in both tables, by the names of the columns.

The one place that says so: sealing writes these rows, and `verify` compares a sealed zoo's with them. What
the writer adds (split, shard and row, the last snapshot's columns) is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_builder.planning import lineage, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import Run
from zoo_builder.training.progress import Snapshot
from zoo_datasets.core.streams import canonical_json


def of_model(
    run: Run, plan_index: int, cohort: Cohort, engine: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns of `models` that plan and record know: `result` is how training ended, `engine` what trained."""
    return {
        **runs.factors(run),
        "model_id": run.id,
        "plan_index": plan_index,
        **{f"replicate_{k}": v for k, v in run.replicate.items()},
        **{f"{k}_key": v for k, v in run.keys.items()},
        "init_group": run.init_group,
        "architecture_id": cohort.architecture.id,
        "layout": cohort.architecture.layout_id,
        "n_train": result["n_train"],
        "snapshot_schedule": canonical_json(run.snapshots.to_json()),
        "engine": engine["name"],
        "device": cohort.device,
        "engine_version": engine["version"],
        "isa": engine["isa"],
        "cohort_id": cohort.id,
        "cohort_width": len(cohort.runs),
        "stop_reason": result["stop_reason"],
        "diverged_step": result["diverged_step"],
        "n_snapshots": result["n_snapshots"],
        "source_sha256": cohort.source_sha256,
        **_lineage(run, cohort, engine),
    }


def _lineage(run: Run, cohort: Cohort, engine: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a model that continues another; none of one that does not."""
    if run.start is None:
        return {}
    s = run.start
    here = lineage.trained_by(cohort.source_sha256, engine["name"], engine["version"], cohort.device, engine["isa"])
    # Other data under the same name, and another engine, train no parent longer whatever the recipes say.
    relation = s.relation if s.trained in (None, here) else "variation"
    return {
        "parent_id": s.model_id, "parent_step": s.step, "parent_sha256": s.sha256, "lineage_root": s.root,
        "relation": relation, "parent_zoo": s.zoo, "parent_optimizer_sha256": s.optimizer_sha256,
        "stream_step": cohort.stream_step, "optimizer_step": s.updates,
    }  # fmt: skip


def of_snapshot(model_id: str, s: Snapshot) -> dict[str, Any]:
    """The columns of `snapshots` that training knows."""
    assert s.metrics is not None, "what is published has been scored"
    return {
        "model_id": model_id, "step": s.step, "epoch": s.epoch, "examples_seen": s.examples_seen, **s.metrics,
        "weights_sha256": s.sha256, "optimizer_sha256": s.optimizer_sha256,
    }  # fmt: skip
