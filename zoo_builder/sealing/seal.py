"""Plan and committed parts → a sealed zoo: records of the plan → rows in plan order → the writer.

In:  the plan and the record of every cohort, all committed.
Out: the zoo's files, in plan order, so that neither cohorts nor the order in which they finished
leave a trace; `manifest.json`, by rename, means "finished". Then the private parts are removed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_builder.plan import Plan
from zoo_builder.planning import runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import Run
from zoo_builder.recipe import levels, recipe_yaml
from zoo_builder.recipe.axes import Axis
from zoo_builder.sealing import faults, parts
from zoo_builder.training import fingerprint
from zoo_datasets.core.streams import canonical_json
from zoo_datasets.format import contents, splits, writer
from zoo_datasets.format.paths import SPLITS, ZooPaths

ROWS = 20_000  # given to the writer at a time
MOST_OPENED = 128  # parts mapped at a time: three maps each, of the 65,530 that Linux allows


def seal(paths: ZooPaths, plan: Plan, records: Mapping[str, parts.Record]) -> None:
    """Write the zoo of a complete set of records; it is finished when this returns. Raises OSError."""
    about = _about(plan)
    models = _models(paths, plan, records, about)
    writer.write(paths.root, about, models, lambda tables: _further(plan, tables))
    finish(paths)


def finish(paths: ZooPaths) -> None:
    """Remove the private parts of a sealed zoo; the recipe goes last, so that a killed clean-up is seen."""
    for folder in (paths.parts, paths.commits, paths.checkpoints, paths.damaged, paths.failed):
        shutil.rmtree(folder, ignore_errors=True)
    paths.recipe.unlink(missing_ok=True)


# ── models in plan order ──


@dataclasses.dataclass(frozen=True)
class _Member:
    """A run of the plan, and where its snapshots lie in its cohort's part."""

    run: Run
    plan_index: int
    cohort: Cohort
    record: parts.Record
    result: Mapping[str, Any]
    first: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.result["n_snapshots"])


def _models(
    paths: ZooPaths, plan: Plan, records: Mapping[str, parts.Record], about: contents.About
) -> Iterator[contents.Models]:
    """All models, split by split in plan order, as many at a time as have some thousand snapshots."""
    index = {run.id: i for i, run in enumerate(plan.runs)}
    members = {m.plan_index: m for c in plan.cohorts for m in _members(c, records[c.id], index)}
    opened = functools.lru_cache(MOST_OPENED)(lambda cohort: parts.open_part(paths, records[cohort]))
    for split in SPLITS:
        chosen = [members[i] for i, run in enumerate(plan.runs) if run.split == split]
        batches = np.cumsum([m.result["n_snapshots"] for m in chosen]) // ROWS
        for _, group in itertools.groupby(zip(chosen, batches, strict=True), lambda pair: pair[1]):
            yield _some(split, [member for member, _ in group], about, opened)


def _members(cohort: Cohort, record: parts.Record, index: Mapping[str, int]) -> Iterator[_Member]:
    """Rows of a model lie together in its part, by step, and models in the order of the cohort."""
    runs_by_id, first = {run.id: run for run in cohort.runs}, 0
    for result in record.models:
        run = runs_by_id[result["model_id"]]
        yield _Member(run, index[run.id], cohort, record, result, first)
        first += result["n_snapshots"]


def _some(
    split: str, members: list[_Member], about: contents.About, opened: Callable[[str], parts.Part]
) -> contents.Models:
    pieces = [(opened(m.cohort.id), m.rows) for m in members]
    rows = pa.concat_tables([part.rows[span] for part, span in pieces])
    slots = (part.slots[span] for part, span in pieces if part.slots is not None)
    return contents.Models(split, _table(members, about), rows, (part.weights[span] for part, span in pieces), slots)


def _table(members: list[_Member], about: contents.About) -> pa.Table:
    """The columns of `models` that the plan and the records know."""
    rows = [runs.factors(m.run) | _columns(m) for m in members]
    columns = [c for c in about.model_columns if c.name not in contents.PUBLISHED_COLUMNS]
    return pa.table({c.name: pa.array([row.get(c.name) for row in rows], c.type) for c in columns})


def _columns(member: _Member) -> dict[str, Any]:
    run, cohort, result, engine = member.run, member.cohort, member.result, member.record.engine
    return {
        "model_id": run.id,
        "plan_index": member.plan_index,
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
        **_lineage(run, cohort),
    }


def _lineage(run: Run, cohort: Cohort) -> dict[str, Any]:
    """The columns of a model that continues another; none of one that does not."""
    if run.start is None:
        return {}
    s = run.start
    return {
        "parent_id": s.model_id, "parent_step": s.step, "parent_sha256": s.sha256, "lineage_root": s.root,
        "relation": s.relation, "parent_zoo": s.zoo, "parent_optimizer_sha256": s.optimizer_sha256,
        "stream_step": cohort.stream_step, "optimizer_step": s.updates,
    }  # fmt: skip


# ── what the zoo is ──


def _about(plan: Plan) -> contents.About:
    grid = plan.grid
    architectures = {c.architecture.id: c.architecture for c in plan.cohorts}
    return contents.About(
        zoo=grid.zoo,
        layouts={a.layout_id: a.layout for a in architectures.values()},
        architectures={k: {**a.to_json(), "layout": a.layout_id} for k, a in architectures.items()},
        factors=runs.factor_columns(plan.runs),
        axes={axis.name: _levels(axis, plan.runs) for axis in grid.axes} | {d.name: "sample" for d in grid.draws},
        lineage=plan.parents is not None,
        optimizer=grid.snapshots.keep_optimizer,
        license=grid.document.get("license"),
        texts={"grid.yaml": recipe_yaml.dump(dict(grid.document))},
    )


def _levels(axis: Axis, planned: list[Run]) -> list[str]:
    """The labels of an axis that the zoo has, in the order of the recipe."""
    used = list(dict.fromkeys(run.axes[axis.name] for run in planned))
    order = [level.label for level in axis.levels]
    return sorted(used, key=lambda label: order.index(label) if label in order else len(order))


def _further(plan: Plan, tables: contents.Tables) -> dict[str, Any]:
    """What the manifest says of recipe and sources, and how another machine can tell that it agrees."""
    value = {
        "identity": plan.identity,
        "recipe_sha256": plan.grid.digest,
        "splits": _splits(plan),
        "layer_lists": {
            levels.label("architecture", r.settings): r.settings["architecture"]
            for r in plan.runs
            if not isinstance(r.settings["architecture"], str)
        },
        "sources": [
            {
                "id": spec.id,
                "spec": {k: list(v) if isinstance(v, tuple) else v for k, v in spec.given.items()},
                "sha256": source.sha256,
                "images": {p: len(getattr(source, p).labels) for p in SPLITS},
                "input_shape": list(source.input_shape),
                "class_names": list(source.class_names),
                "mean": list(source.mean),
                "std": list(source.std),
                "peak": source.peak,
            }
            for spec, source in plan.sources.items()
        ],
        "fingerprints": fingerprint.of(plan.cohorts, plan.sources, plan.parents.root if plan.parents else None),
        "population": fingerprint.population(tables["models"]),
    }
    faults.point("before_manifest")
    return value


def _splits(plan: Plan) -> dict[str, Any]:
    """How models were assigned to splits: by rule and shares, or with their parents."""
    if plan.parents is not None:
        return {"fractions": {}, "rule": "inherited"}
    groups = {r.init_group for r in plan.runs}
    return {"fractions": dict(plan.grid.splits), "rule": splits.rule_for(len(groups))}
