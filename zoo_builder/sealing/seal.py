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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_builder.plan import Plan
from zoo_builder.planning import runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import Run
from zoo_builder.recipe import levels, recipe_yaml
from zoo_builder.recipe.axes import Axis
from zoo_builder.sealing import faults, parts, rows
from zoo_builder.training import fingerprint
from zoo_datasets.core import meters
from zoo_datasets.format import contents, splits, writer
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.networks import layout
from zoo_datasets.sources import Source, SourceSpec

ROWS = 20_000  # given to the writer at a time
MOST_OPENED = 64  # parts mapped at a time, two open files each: macOS starts with 256 a process


def seal(
    paths: ZooPaths, plan: Plan, records: Mapping[str, parts.Record], prints: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Write the zoo of a complete set of records; it is finished when this returns. `prints` are its fingerprints, which are made here
    where they are not given. Raises OSError."""
    what = about(plan)
    models = _models(paths, plan, records, what)
    with meters.track("sealing"):
        writer.write(paths.root, what, models, lambda tables: _further(plan, tables, prints))
    finish(paths)


def finish(paths: ZooPaths) -> None:
    """Remove the private parts of a sealed zoo; the recipe goes last, so that a killed clean-up is seen."""
    for folder in (paths.parts, paths.commits, paths.checkpoints, paths.damaged, paths.failed, paths.beats):
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
    opened = functools.lru_cache(MOST_OPENED)(lambda cohort: parts.open_weights(paths, records[cohort]))
    with meters.track("writing the zoo", len(plan.runs), "models") as meter:
        for split in SPLITS:
            chosen = [members[i] for i, run in enumerate(plan.runs) if run.split == split]
            batches = np.cumsum([m.result["n_snapshots"] for m in chosen]) // ROWS
            for _, group in itertools.groupby(zip(chosen, batches, strict=True), lambda pair: pair[1]):
                some = [member for member, _ in group]
                yield _some(split, some, about, paths, opened)
                meter.add(len(some))


def _members(cohort: Cohort, record: parts.Record, index: Mapping[str, int]) -> Iterator[_Member]:
    """Rows of a model lie together in its part, by step, and models in the order of the cohort."""
    runs_by_id, first = {run.id: run for run in cohort.runs}, 0
    for result in record.models:
        run = runs_by_id[result["model_id"]]
        yield _Member(run, index[run.id], cohort, record, result, first)
        first += result["n_snapshots"]


def _some(
    split: str, members: list[_Member], about: contents.About, paths: ZooPaths, opened: Callable[[str], parts.Weights]
) -> contents.Models:
    # Parts are opened when their weights are taken, and closed by those behind them.
    weights = (opened(m.cohort.id).weights[m.rows] for m in members)
    slots = (kept[m.rows] for m in members if (kept := opened(m.cohort.id).slots) is not None)
    return contents.Models(split, _table(members, about), _snapshots(members, paths), weights, slots)


def _snapshots(members: list[_Member], paths: ZooPaths) -> pa.Table:
    """The rows of these models' snapshots, one after another: each part is read once, and of it no more is kept than they need."""
    by_cohort: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        by_cohort.setdefault(member.cohort.id, []).append(place)
    pieces: dict[int, pa.Table] = {}
    for places in by_cohort.values():
        whole = parts.read_rows(paths, members[places[0]].record)
        own = [members[p].rows for p in places]
        some = pa.concat_tables([whole.slice(s.start, s.stop - s.start) for s in own]).combine_chunks()
        starts = np.cumsum([0, *(s.stop - s.start for s in own)]).tolist()
        pieces |= {p: some.slice(a, b - a) for p, (a, b) in zip(places, itertools.pairwise(starts), strict=True)}
    return pa.concat_tables([pieces[p] for p in range(len(members))])


def _table(members: list[_Member], about: contents.About) -> pa.Table:
    """The columns of `models` that the plan and the records know."""
    made = [rows.of_model(m.run, m.plan_index, m.cohort, m.record.engine, m.result) for m in members]
    columns = [c for c in about.model_columns if c.name not in contents.PUBLISHED_COLUMNS]
    return pa.table({c.name: pa.array([row.get(c.name) for row in made], c.type) for c in columns})


# ── what the zoo is ──


def about(plan: Plan) -> contents.About:
    """What the zoo of a plan is, besides its models."""
    grid = plan.grid
    architectures = {c.architecture.id: c.architecture for c in plan.cohorts}
    return contents.About(
        zoo=grid.zoo,
        layouts=layout.by_id(a.layout for a in architectures.values()),
        architectures={k: {**a.to_json(), "layout": a.layout_id} for k, a in architectures.items()},
        factors=runs.factor_columns(plan.runs),
        axes={axis.name: _levels(axis, plan.runs) for axis in grid.axes} | {d.name: "sample" for d in grid.draws},
        lineage=plan.parents is not None,
        optimizer=grid.snapshots.keep_optimizer,
        attack=grid.snapshots.attack_per_class,
        license=grid.document.get("license"),
        texts={"grid.yaml": recipe_yaml.dump(dict(grid.document))},
    )


def _levels(axis: Axis, planned: list[Run]) -> list[str]:
    """The labels of an axis that the zoo has, in the order of the recipe."""
    used = list(dict.fromkeys(run.axes[axis.name] for run in planned))
    order = [level.label for level in axis.levels]
    return sorted(used, key=lambda label: order.index(label) if label in order else len(order))


def _further(plan: Plan, tables: contents.Tables, prints: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """What the manifest says of recipe and sources, and how another machine can tell that it agrees."""
    if prints is None:
        prints = fingerprint.of(plan.cohorts, plan.sources, plan.parents.root if plan.parents else None)
    value = {
        **described(plan),
        "sources": [source_record(source) for source in plan.sources.values()],
        "fingerprints": list(prints),
        "population": fingerprint.population(tables["models"]),
    }
    faults.point("before_manifest")
    return value


def described(plan: Plan) -> dict[str, Any]:
    """What the manifest says of the recipe alone."""
    return {
        "identity": plan.identity,
        "recipe_sha256": plan.grid.digest,
        "splits": _splits(plan),
        "layer_lists": {
            levels.label("architecture", r.settings): r.settings["architecture"]
            for r in plan.runs
            if not isinstance(r.settings["architecture"], str)
        },
    }


def spec_record(spec: SourceSpec) -> dict[str, Any]:
    """A source's spec as the manifest has it."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in spec.given.items()}


def source_record(source: Source) -> dict[str, Any]:
    """What the manifest says of a source."""
    return {
        "id": source.spec.id,
        "spec": spec_record(source.spec),
        "sha256": source.sha256,
        "images": {p: len(getattr(source, p).labels) for p in SPLITS},
        "input_shape": list(source.input_shape),
        "class_names": list(source.class_names),
        "mean": list(source.mean),
        "std": list(source.std),
        "peak": source.peak,
        **({"feature_names": list(source.feature_names)} if source.feature_names else {}),
    }


def _splits(plan: Plan) -> dict[str, Any]:
    """How models were assigned to splits: by rule and shares, or with their parents."""
    if plan.parents is not None:
        return {"fractions": {}, "rule": "inherited"}
    groups = {r.init_group for r in plan.runs}
    return {"fractions": dict(plan.grid.splits), "rule": plan.grid.split_rule or splits.rule_for(len(groups))}
