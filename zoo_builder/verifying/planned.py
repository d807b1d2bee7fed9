"""A sealed zoo's rows and manifest ↔ what its recipe plans: all that can be told without training.

In:  a `Sealed` zoo.
Out: its cohorts in plan order, made anew; what differs goes to the report. Compared are which models there
are, their order and splits, every column of `models` that the plan gives, and what of `snapshots` follows
from it: labels, steps, places, and the sums behind accuracies.

The recipe is the sealed `grid.yaml`. A zoo without one is held to its own ids, which are hashes of the
settings and keys of a row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from zoo_builder import grid
from zoo_builder.grid import Grid
from zoo_builder.plan import Plan
from zoo_builder.planning import cohorts, lineage, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import Parents
from zoo_builder.planning.runs import Run
from zoo_builder.recipe.generated import layers_of
from zoo_builder.sealing import rows, seal
from zoo_builder.training import fingerprint
from zoo_builder.verifying import tables
from zoo_builder.verifying.sealed import Sealed
from zoo_datasets.core import records, streams
from zoo_datasets.core.report import Report
from zoo_datasets.errors import BuildError, GridError, IntegrityError, ZooError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.sources.spec import MADE

# Points of a grid that mean the same are planned once; more of them than this a model are no zoo's.
MOST_POINTS_A_MODEL = 1_000


def compare(zoo: Sealed, report: Report) -> list[Cohort]:
    """The zoo's cohorts in plan order, or none where its rows are not the recipe's."""
    recipe, parents = _recipe(zoo, report), None
    planned: list[Run] | None = None
    if recipe is not None:
        try:
            parents = lineage.open_parents(parent_folder(zoo)) if recipe.parent_zoo is not None else None
        except ZooError as error:
            report.lines.append(f"not compared: rows with the recipe, which starts from another zoo: {error}")
            recipe = None
    try:
        if recipe is not None:
            planned = _planned(recipe, parents, zoo)
            report.extend(_models(zoo, planned))
        else:
            planned = _of_rows(zoo, report)
        if report.problems:
            return []
        made = _cohorts(zoo, planned, recipe)
    except (GridError, IntegrityError, BuildError) as error:
        report.problems.append(str(error))
        return []
    _columns(zoo, planned, made, report)
    tables.compare_snapshots(zoo, made, report)
    if recipe is not None:
        _manifest(zoo, Plan(recipe, planned, made, {}, parents), report)
        report.lines.append(
            f"plan: {len(planned):,} models of grid.yaml, their splits, order, labels, keys and cohorts"
        )
    return made


def parent_folder(zoo: Sealed) -> str:
    """Where the parent zoo lies: under the working directory, beside this zoo, or where the recipe said."""
    name = str(next((r["parent_zoo"] for r in zoo.rows if r.get("parent_zoo")), zoo.manifest.parent_folder))
    places = [Path(name), zoo.root.absolute().parent.parent / name, Path(zoo.manifest.parent_folder or name)]
    return str(next((p for p in places if ZooPaths(p).manifest.is_file()), name))


# ── the recipe, and the runs it asks for ──


def _recipe(zoo: Sealed, report: Report) -> Grid | None:
    """The sealed recipe, compared with what the manifest says of it."""
    if "grid.yaml" not in zoo.manifest.files:
        report.lines.append("not compared: rows with a recipe, of which the zoo holds none; with their own ids instead")
        return None
    try:
        recipe = grid.load(zoo.root / "grid.yaml")
    except GridError as error:
        report.problems.append(f"grid.yaml is not a recipe: {error}")
        return None
    identity = zoo.manifest.identity.document
    if recipe.zoo != zoo.manifest.zoo:
        report.problems.append(f"grid.yaml is the recipe of {recipe.zoo}, and the zoo is {zoo.manifest.zoo}")
    elif recipe.digest != zoo.manifest.recipe_sha256 or json.loads(json.dumps(dict(recipe.document))) != dict(identity):
        report.problems.append("grid.yaml is not the recipe of the manifest beside it")
    return recipe


def _planned(recipe: Grid, parents: Parents | None, zoo: Sealed) -> list[Run]:
    """The runs of the recipe. Raises GridError, IntegrityError."""
    points = recipe.sample_points or math.prod(len(a.levels) for a in recipe.axes)
    inits = len(parents.rows) if parents is not None else recipe.replicates["init"]
    others = 1 if recipe.tied else recipe.replicates["order"] * recipe.replicates["subset"]
    asked, there = points * inits * others, len(zoo.rows)
    if recipe.limit is None and asked > MOST_POINTS_A_MODEL * (there + 1):
        raise IntegrityError(f"grid.yaml asks for {asked:,} models, and the zoo has {there:,}")
    if recipe.limit is not None and recipe.limit > MOST_POINTS_A_MODEL * (there + 1):
        raise IntegrityError(f"grid.yaml asks for {recipe.limit:,} models, and the zoo has {there:,}")
    try:
        return runs.of(recipe, parents)
    except GridError as error:
        raise GridError(f"grid.yaml cannot be planned: {error}") from None


def _models(zoo: Sealed, planned: Sequence[Run]) -> list[str]:
    """What differs in which models there are, in their order and splits."""
    wanted = {r.id for r in planned}
    problems = [f"model {id} is not one that grid.yaml asks for" for id in zoo.by_id if id not in wanted]
    problems += [f"model {r.id} of grid.yaml is missing" for r in planned if r.id not in zoo.by_id]
    if problems:
        return problems
    order = [r.id for split in SPLITS for r in planned if r.split == split]
    for row, id in zip(zoo.rows, order, strict=False):
        if row["model_id"] != id:
            return [f"model {row['model_id']} stands where grid.yaml has model {id}: other splits, or another order"]
    return [f"{len(zoo.rows)} rows of {len(order)} models"] if len(zoo.rows) != len(order) else []


def _of_rows(zoo: Sealed, report: Report) -> list[Run]:
    """The runs of the rows in plan order, each held to its own id."""
    report.extend(
        [f"model {id} is not what its row says: that is {made}" for id, run in zoo.runs.items() if (made := runs.id_of(run)) != id]
    )  # fmt: skip
    in_order = sorted(zoo.rows, key=lambda r: r["plan_index"])
    if [r["plan_index"] for r in in_order] != list(range(len(in_order))):
        report.problems.append("`plan_index` does not count the models from 0")
    return [zoo.runs[r["model_id"]] for r in in_order]


# ── columns of `models` ──


def _cohorts(zoo: Sealed, planned: list[Run], recipe: Grid | None) -> list[Cohort]:
    """Cohorts by the sizes and sources of the rows. Raises GridError, IntegrityError, BuildError."""
    known: dict[str, Architecture] = {}

    def architecture(run: Run) -> Architecture:
        record = zoo.source_of(run)
        if record is None:
            raise IntegrityError(f"The manifest names no source like that of model {run.id}: {run.source.id}.")
        head = run.subset.head
        n_classes = len(record.class_names) if head is None else len(head)
        shape = tuple(record.input_shape)
        steps = shape[0] if run.source.id in MADE else None  # of such sources every step of the input has its output
        key = streams.digest([layers_of(run.settings), run.settings["activation"], list(shape), n_classes, steps])
        if key not in known:
            known[key] = cohorts.build(run, shape, n_classes, steps)
        return known[key]

    def alike(run: Run) -> str:
        row = zoo.by_id[run.id]
        if recipe is None:  # who trained together is known from the rows alone
            return str(row["cohort_id"])
        return cohorts.together(run, architecture(run), row["n_train"], row["source_sha256"])

    made = []
    for chunk in cohorts.chunks(
        planned, recipe.cohort_size_on(zoo.rows[0]["device"]) if recipe else len(planned), alike
    ):
        row = zoo.by_id[chunk[0].id]
        of = row["n_train"], row["engine"], row["device"], row["source_sha256"]
        made.append(cohorts.make(chunk, architecture(chunk[0]), *of))
    return made


def _columns(zoo: Sealed, planned: Sequence[Run], made: Sequence[Cohort], report: Report) -> None:
    """Every column of `models` that the plan gives, of every model."""
    index = {run.id: i for i, run in enumerate(planned)}
    wrong: dict[str, list[str]] = {}
    earlier: list[str] = []
    for cohort in made:
        for run in cohort.runs:
            row = zoo.by_id[run.id]
            engine = {
                "name": zoo.by_id[cohort.runs[0].id]["engine"],
                "version": row["engine_version"],
                "isa": row["isa"],
            }
            wanted = rows.of_model(run, index[run.id], cohort, engine, row) | {
                "split": run.split, "n_params": cohort.architecture.n_params,
            }  # fmt: skip
            # Said of the recipe alone, before data and engine counted.
            by_recipe = run.start.relation if run.start is not None else None
            if wanted.get("relation") == "variation" and row.get("relation") == by_recipe == "continuation":
                earlier.append(run.id)
                wanted["relation"] = by_recipe
            absent = dict.fromkeys(c for c in row if c.startswith("parent_") or c in LINEAGE)
            for name, value in (absent | wanted).items():
                # A later setting at its default has no column in a zoo of which no model uses it.
                if (name in row or value is not None) and _differs(row.get(name), value, name in row):
                    wrong.setdefault(name, []).append(f"{run.id}: {row.get(name)!r}, planned {value!r}")
            record = zoo.source_of(run)
            if record is not None and row["source_sha256"] != record.sha256:
                wrong.setdefault("source_sha256", []).append(f"{run.id}: not that of the manifest")
            if record is not None and row["n_train"] > record.images.get("train", 0):
                wrong.setdefault("n_train", []).append(f"{run.id}: {row['n_train']:,}, more than its source has")
    if earlier:
        report.warnings.append(
            f"`relation` of {len(earlier):,} models is `continuation`, as older versions wrote it, and other data or another engine trained their "
            f"parents ({earlier[0]}, …): they are variations"
        )
    for name, of in wrong.items():
        report.problems.append(
            f"column `{name}` of {len(of):,} models is not what the recipe gives; the first is {_short(of[0])}"
        )


LINEAGE = ("lineage_root", "relation", "stream_step", "optimizer_step")


def _differs(stored: Any, wanted: Any, there: bool) -> bool:
    if not there:
        return False
    return bool(stored != wanted)


def _of_single_networks(manifest: Manifest, plan: Plan) -> bool:
    """Whether every layout is that of some network, if not of all that have its tensors."""
    own = {(c.architecture.layout_id, c.architecture.layout) for c in plan.cohorts}
    return set(manifest.layouts.items()) <= own and set(manifest.layouts) == {name for name, _ in own}


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


# ── the manifest ──


def _manifest(zoo: Sealed, plan: Plan, report: Report) -> None:
    """What the manifest says of recipe, networks, engines and population, against plan and tables."""
    about, manifest = seal.about(plan), zoo.manifest
    models = zoo.tables["models"]
    wanted = seal.described(plan)
    wanted["identity"] = wanted["identity"] | {"sources": sorted(s.sha256 for s in manifest.sources)}
    wanted |= {
        "axes": dict(about.axes),
        "factors": [c.name for c in about.factors],
        "architectures": json.loads(json.dumps(dict(about.architectures))),
        "layouts": {name: layout.to_json() for name, layout in about.layouts.items()},
    }
    stored = {name: _json(getattr(manifest, name)) for name in wanted}
    differing = [name for name in wanted if stored[name] != _json(wanted[name])]
    if "layouts" in differing and _of_single_networks(manifest, plan):
        differing.remove("layouts")
        report.warnings.append(
            "`layouts` of the manifest has the groups of one network each, as older versions wrote them, and others of that layout may "
            "tie their units otherwise: take those of `zoo.architecture(model_id)`"
        )
    problems = [f"`{name}` of the manifest is not what the recipe gives" for name in differing]
    given = {r["model_id"]: (r["engine"], r["engine_version"], r["isa"]) for r in zoo.rows}
    if set(given.values()) != {(e.engine, e.version, e.isa) for e in manifest.engines}:
        problems.append("`engines` of the manifest are not those of the rows")
    used = {streams.canonical_json(seal.spec_record(r.source)) for r in plan.runs}
    if len(manifest.sources) != len(used):
        problems.append(f"the manifest names {len(manifest.sources)} sources, and the models learn {len(used)}")
    counts = {
        "init_groups": pc.count_distinct(models["init_group"]).as_py(), "cohorts": len(plan.cohorts),
        "diverged": len(models) - models["diverged_step"].null_count,
    }  # fmt: skip
    problems += [f"`counts.{k}` of the manifest is {getattr(manifest.counts, k)}, and {v} are there" for k, v in counts.items()
                 if getattr(manifest.counts, k) != v]  # fmt: skip
    if bool(manifest.optimizer_state) != plan.grid.snapshots.keep_optimizer:
        problems.append("`optimizer_state` of the manifest is not what the recipe gives")
    if manifest.population is not None and models["test_accuracy"].null_count == 0:
        ours, theirs = fingerprint.population(models), _json(manifest.population)
        if not all(_near(theirs.get(k), v) for k, v in ours.items()):
            problems.append("`population` of the manifest is not the mean of its models")
    expected = [c.runs[0].id for c in fingerprint.chosen(plan.cohorts)]
    if [f.model_id for f in manifest.fingerprints] != expected:
        problems.append("`fingerprints` of the manifest are of other models")
    problems += list(_table_columns(zoo, about))
    report.extend(problems)


def _table_columns(zoo: Sealed, about: Any) -> Iterator[str]:
    for config, columns in (("models", about.model_columns), ("snapshots", about.snapshot_columns)):
        table, names = zoo.tables[config], [c.name for c in columns]
        if table.column_names != names:
            odd = sorted(set(names) ^ set(table.column_names))
            yield f"{config} has other columns than the recipe gives: {', '.join(odd[:5]) or 'in another order'}"
        else:
            yield from (
                f"column {c.name!r} of {config} is {table.schema.field(c.name).type}, not {c.type}"
                for c in columns if table.schema.field(c.name).type != c.type
            )  # fmt: skip


def _near(a: Any, b: Any) -> bool:
    return a == b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "to_json"):
        return [_json(v) for v in value]
    return records.encode(value)
