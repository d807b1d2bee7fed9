"""Committed parts → a sealed zoo: shards, Parquet tables, card and, last, the manifest.

In:  the plan and the record of every cohort, all committed.
Out: the files of format version 1 in plan order, so that neither cohorts nor the order in
which they finished leave a trace; `manifest.json`, by rename, means "finished". Then the
private parts are removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_builder.plan import Plan
from zoo_builder.planning import runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.recipe import levels, recipe_yaml
from zoo_builder.recipe.axes import Axis
from zoo_builder.sealing import faults, parts
from zoo_builder.training import fingerprint
from zoo_datasets.core import files
from zoo_datasets.core.streams import canonical_json
from zoo_datasets.format import card, schema, shards, splits
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS, ZooPaths, optimizer_shard
from zoo_datasets.networks.architecture import Architecture

MOST_SHARD_BYTES = 4_000_000_000  # the Hub takes 5 GB a file
MOST_INLINE_BYTES = 2_000_000_000  # above, the default config would be slow to open
ROW_GROUP_BYTES = 64_000_000
DATA_PAGE_BYTES = 8_000_000  # de-duplicates against the shard on the Hub (2 % new bytes against 9 % at 1 MB)


def seal(paths: ZooPaths, planned: Plan, records: Mapping[str, parts.Record]) -> None:
    """Write the zoo of a complete set of records; it is finished when this returns. Raises OSError."""
    zoo = _Zoo(paths, planned, records)
    placed = zoo.write_shards()
    tables = {"snapshots": zoo.snapshots(placed), "models": zoo.models()}
    # A folder of an earlier attempt may hold tables or shards of other counts.
    for config, table in tables.items():
        zoo.write_table(config, table)
    files.write_atomic(paths.grid, recipe_yaml.dump(dict(planned.grid.document)))
    zoo.written.append(paths.grid)
    for name, text in card.companions(planned.grid.zoo, planned.grid.document.get("license")).items():
        files.write_atomic(paths.root / name, text)
        zoo.written.append(paths.root / name)
    manifest = zoo.manifest(tables)
    files.write_atomic(paths.card, card.render(Manifest.parse(manifest, paths.root), tables["models"]))
    faults.point("before_manifest")
    files.write_json(paths.manifest, manifest)
    finish(paths)


def finish(paths: ZooPaths) -> None:
    """Remove the private parts of a sealed zoo; the recipe goes last, so that a killed clean-up is seen."""
    for folder in (paths.parts, paths.commits, paths.checkpoints, paths.damaged, paths.failed):
        shutil.rmtree(folder, ignore_errors=True)
    paths.recipe.unlink(missing_ok=True)


class _Zoo:
    """The rows of a zoo in their final order, and the files made from them."""

    def __init__(self, paths: ZooPaths, planned: Plan, records: Mapping[str, parts.Record]) -> None:
        self.paths, self.planned, self.records = paths, planned, records
        self.written: list[Path] = []  # what the manifest seals: nothing else that lies in the folder
        self.plan_index = {run.id: i for i, run in enumerate(planned.runs)}
        self.cohort_of = {run.id: c for c in planned.cohorts for run in c.runs}
        self.result_of = {m["model_id"]: m for r in records.values() for m in r.models}
        self.splits = [s for s in SPLITS if any(r.split == s for r in planned.runs)]
        self.runs = [run for s in self.splits for run in planned.runs if run.split == s]
        self.parts = pa.concat_tables([parts.read_rows(paths, r) for r in records.values()])
        self.weights = [parts.read_weights(paths, r) for r in records.values()]
        self.slots = [parts.read_slots(paths, r) for r in records.values()]
        self.keeps = planned.grid.snapshots.keep_optimizer
        self.starts = np.cumsum([0, *(len(w) for w in self.weights)])
        first: dict[str, int] = {}
        for i, model in enumerate(self.parts["model_id"].to_pylist()):
            first.setdefault(model, i)
        # Rows of a model lie together in its part, by step: (R,) in the zoo's order.
        self.counts = np.array([self.result_of[run.id]["n_snapshots"] for run in self.runs])
        self.order = np.concatenate(
            [np.arange(first[r.id], first[r.id] + n) for r, n in zip(self.runs, self.counts, strict=True)]
        )
        self.owner = np.repeat(np.arange(len(self.runs)), self.counts)  # (R,) run of each row

    def _row(self, at: int) -> np.ndarray:
        part, row = self._place(at)
        return self.weights[part][row]

    def _slot(self, at: int, number: int) -> np.ndarray:
        part, row = self._place(at)
        kept = self.slots[part]
        assert kept is not None
        return kept[row, number]  # type: ignore[no-any-return]

    def _place(self, at: int) -> tuple[int, int]:
        part = int(np.searchsorted(self.starts, at, "right")) - 1
        return part, at - int(self.starts[part])

    def write_shards(self) -> list[tuple[str, str, int]]:
        """All shards; the (shard, tensor, row) of every snapshot in the zoo's order."""
        placed: list[tuple[str, str, int]] = []
        for folder in ("weights", "optimizer"):
            shutil.rmtree(self.paths.root / folder, ignore_errors=True)
        for split in self.splits:
            rows = [i for i, owner in enumerate(self.owner) if self.runs[owner].split == split]
            groups: list[list[int]] = [[]]
            size = 0
            for i in rows:
                bytes_here = self._architecture(i).n_params * (8 if self.keeps else 4)  # of the larger file: two slots
                if size + bytes_here > MOST_SHARD_BYTES:
                    groups.append([])
                    size = 0
                groups[-1].append(i)
                size += bytes_here
            for number, group in enumerate(groups):
                placed += self._write_shard(self.paths.shard(split, number, len(groups)), group)
        return placed

    def _architecture(self, row: int) -> Architecture:
        return self.cohort_of[self.runs[self.owner[row]].id].architecture

    def _write_shard(self, path: Path, rows: list[int]) -> list[tuple[str, str, int]]:
        by_layout: dict[str, list[int]] = {}
        widths: dict[str, int] = {}
        placed = []
        name = path.relative_to(self.paths.root).as_posix()
        for i in rows:
            architecture = self._architecture(i)
            layout = architecture.layout_id
            widths[layout] = architecture.n_params
            placed.append((name, layout, len(by_layout.setdefault(layout, []))))
            by_layout[layout].append(i)
        shapes = {layout: (len(members), widths[layout]) for layout, members in by_layout.items()}

        def values(layout: str) -> Iterator[np.ndarray]:
            return (self._row(int(self.order[i])) for i in by_layout[layout])

        shards.write(path, shapes, values)
        self.written.append(path)
        if self.keeps:
            self._write_slots(self.paths.root / optimizer_shard(name), shapes, by_layout)
        return placed

    def _write_slots(self, path: Path, shapes: Mapping[str, tuple[int, int]], members: Mapping[str, list[int]]) -> None:
        """The optimizer's slots, each in the row of its weights in the shard beside."""

        def values(name: str) -> Iterator[np.ndarray]:
            layout, slot = name.rsplit(".slot", 1)
            return (self._slot(int(self.order[i]), int(slot) - 1) for i in members[layout])

        shards.write(path, {f"{name}.slot{n}": shape for name, shape in shapes.items() for n in (1, 2)}, values)
        self.written.append(path)

    def snapshots(self, placed: list[tuple[str, str, int]]) -> pa.Table:
        """The `snapshots` table in the zoo's order."""
        part = self.parts.take(pa.array(self.order))
        names = [f.name for f in schema.SNAPSHOT_HEAD if f.name not in ("model_id", "split")]
        columns: dict[str, pa.Array] = {"model_id": part["model_id"]}
        columns["split"] = pa.array([self.runs[i].split for i in self.owner], pa.string())
        columns |= {name: part[name] for name in names}
        factors = self._factors()
        for axis in self.planned.grid.axis_names:
            columns[axis] = factors[axis].take(pa.array(self.owner))
        columns |= {c.name: part[c.name] for c in schema.METRICS}
        columns["shard"] = pa.array([p[0] for p in placed], pa.string())
        columns["tensor"] = pa.array([p[1] for p in placed], pa.string())
        columns["row"] = pa.array([p[2] for p in placed], pa.int64())
        columns["weights_sha256"] = part["weights_sha256"]
        if self.keeps:
            columns["optimizer_sha256"] = part["optimizer_sha256"]
        return pa.table(columns)

    def _factors(self) -> dict[str, pa.Array]:
        rows = [runs.factors(run) for run in self.runs]
        return {c.name: pa.array([r[c.name] for r in rows], c.type) for c in runs.factor_columns(self.runs)}

    def models(self) -> pa.Table:
        """The `models` table without its weights, in the zoo's order."""
        last = self.order[np.cumsum(self.counts) - 1]
        published = self.parts.take(pa.array(last))
        own = [self._model(run) for run in self.runs]
        columns: dict[str, Any] = {}
        for c in schema.MODEL_HEAD:
            columns[c.name] = pa.array([r[c.name] for r in own], c.type)
        columns |= self._factors()
        lineage = schema.LINEAGE if self.planned.parents is not None else ()
        for c in (*schema.MODEL_TAIL, *lineage):
            if c.name in PUBLISHED:
                columns[c.name] = published[c.name]
            else:
                columns[c.name] = pa.array([r.get(c.name) for r in own], c.type)
        columns |= {c.name: published[c.name] for c in schema.METRICS}
        return pa.table(columns)

    def _model(self, run: runs.Run) -> dict[str, Any]:
        cohort = self.cohort_of[run.id]
        result, engine = self.result_of[run.id], self.records[cohort.id].engine
        return {
            "model_id": run.id,
            "split": run.split,
            "plan_index": self.plan_index[run.id],
            **{f"replicate_{k}": v for k, v in run.replicate.items()},
            **{f"{k}_key": v for k, v in run.keys.items()},
            "init_group": run.init_group,
            "architecture_id": cohort.architecture.id,
            "layout": cohort.architecture.layout_id,
            "n_params": cohort.architecture.n_params,
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

    @property
    def _parents_root(self) -> Path | None:
        return self.planned.parents.root if self.planned.parents is not None else None

    def _splits(self) -> dict[str, Any]:
        """How models were assigned to splits: by rule and shares, or with their parents."""
        if self.planned.parents is not None:
            return {"fractions": {}, "rule": "inherited"}
        groups = {r.init_group for r in self.runs}
        return {"fractions": dict(self.planned.grid.splits), "rule": splits.rule_for(len(groups))}

    def _levels(self, axis: Axis) -> list[str]:
        """The labels of an axis that the zoo has, in the order of the recipe."""
        used = list(dict.fromkeys(run.axes[axis.name] for run in self.runs))
        order = [level.label for level in axis.levels]
        return sorted(used, key=lambda label: order.index(label) if label in order else len(order))

    def write_table(self, config: str, table: pa.Table) -> None:
        """One Parquet file per split; the published weights go inline into `models` while they are small."""
        shutil.rmtree(self.paths.table(config, "x").parent, ignore_errors=True)
        last = self.order[np.cumsum(self.counts) - 1]
        for split in self.splits:
            mine = [i for i, run in enumerate(self.runs) if run.split == split]
            if config == "snapshots":
                keep = np.flatnonzero(np.isin(self.owner, mine))
                part, weights = table.take(pa.array(keep)), None
            else:
                part, weights = table.take(pa.array(mine)), [int(last[i]) for i in mine]
            self.written.append(self.paths.table(config, split))
            with files.atomic(self.paths.table(config, split)) as out:
                self._write_parquet(out, part, weights if self.inline else None)

    @property
    def inline(self) -> bool:
        """Whether `models` carries the published weights."""
        return sum(self.cohort_of[r.id].architecture.n_params for r in self.runs) * 4 <= MOST_INLINE_BYTES

    def _write_parquet(self, out: Any, table: pa.Table, weights: list[int] | None) -> None:
        full = table.schema
        widths = {self.cohort_of[r.id].architecture.n_params for r in self.runs}
        group = len(table) or 1
        if weights is not None:
            kind = pa.list_(pa.float32(), widths.copy().pop()) if len(widths) == 1 else pa.list_(pa.float32())
            full = full.append(pa.field("weights", kind))
            group = max(1, ROW_GROUP_BYTES // (4 * max(widths)))
        plain = [n for n in table.column_names]
        # Weights are noise to a compressor; stored as they are they also de-duplicate on the Hub.
        compression = {**dict.fromkeys(_leaves(table.schema), "zstd"), "weights.list.element": "none"}
        with pq.ParquetWriter(
            out, full, compression=compression, use_dictionary=_leaves(table.schema) if plain else False,
            data_page_size=DATA_PAGE_BYTES, write_page_index=True, write_page_checksum=True, store_schema=True,
        ) as writer:  # fmt: skip
            for start in range(0, len(table), group):
                piece = table.slice(start, group)
                if weights is not None:
                    rows = [self._row(at) for at in weights[start : start + group]]
                    flat = pa.array(np.concatenate(rows), pa.float32())
                    if len(widths) == 1:
                        column: pa.Array = pa.FixedSizeListArray.from_arrays(flat, type=full.field("weights").type)
                    else:
                        offsets = np.cumsum([0, *(len(r) for r in rows)]).astype(np.int32)
                        column = pa.ListArray.from_arrays(pa.array(offsets), flat)
                    piece = piece.append_column(full.field("weights"), column)
                writer.write_table(piece.cast(full), row_group_size=group)

    def manifest(self, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
        """What is sealed: files with sizes and hashes, layouts, sources, digests. No clock, host or path."""
        grid, root = self.planned.grid, self.paths.root
        architectures = {c.architecture.id: c.architecture for c in self.planned.cohorts}
        layouts = {a.layout_id: a for a in architectures.values()}
        lists = {
            levels.label("architecture", r.settings): r.settings["architecture"]
            for r in self.runs
            if not isinstance(r.settings["architecture"], str)
        }
        used = {(r.engine["name"], r.engine["version"], r.engine["isa"]) for r in self.records.values()}
        return {
            "format_version": schema.FORMAT_VERSION,
            "zoo": grid.zoo,
            "identity": self.planned.identity,
            "recipe_sha256": grid.digest,
            "axes": {axis.name: self._levels(axis) for axis in grid.axes}
            | {draw.name: "sample" for draw in grid.draws},
            "factors": [c.name for c in runs.factor_columns(self.runs)],
            "counts": {
                "models": {s: sum(r.split == s for r in self.runs) for s in self.splits},
                "snapshots": {
                    s: int(sum(n for r, n in zip(self.runs, self.counts, strict=True) if r.split == s))
                    for s in self.splits
                },
                "init_groups": len({r.init_group for r in self.runs}),
                "cohorts": len(self.records),
                "diverged": sum(m["diverged_step"] is not None for m in self.result_of.values()),
            },
            "splits": self._splits(),
            "weights_dtype": schema.WEIGHTS_DTYPE,
            **({"optimizer_state": True} if self.keeps else {}),
            "inline_weights": self.inline,
            "architectures": {k: {**a.to_json(), "layout": a.layout_id} for k, a in architectures.items()},
            "layer_lists": lists,
            "layouts": {k: a.layout.to_json() for k, a in layouts.items()},
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
                for spec, source in self.planned.sources.items()
            ],
            "engines": [{"engine": e, "version": v, "isa": i} for e, v, i in sorted(used)],
            "digests": schema.digests(tables),
            "fingerprints": fingerprint.of(self.planned.cohorts, self.planned.sources, self._parents_root),
            "population": fingerprint.population(tables["models"]),
            "files": [files.record(root, p) for p in sorted(self.written)],
        }


def _lineage(run: runs.Run, cohort: Cohort) -> dict[str, Any]:
    """The columns of a model that continues another; none of one that does not."""
    if run.start is None:
        return {}
    s = run.start
    return {
        "parent_id": s.model_id, "parent_step": s.step, "parent_sha256": s.sha256, "lineage_root": s.root,
        "relation": s.relation, "parent_zoo": s.zoo, "parent_optimizer_sha256": s.optimizer_sha256,
        "stream_step": cohort.stream_step, "optimizer_step": s.updates,
    }  # fmt: skip


# Columns of `models` that describe the published snapshot.
PUBLISHED = ("step", "epoch", "examples_seen", "weights_sha256")


def _leaves(full: pa.Schema) -> list[str]:
    """Parquet paths of the columns: a list column's values lie under `.list.element`."""
    return [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in full]
