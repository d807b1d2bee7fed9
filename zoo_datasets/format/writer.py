"""Tables, rows and layouts → a sealed zoo: the one writer of the format.

In:  what a zoo is (`About`), and its models as they come (`Models`): columns, snapshots in order
of steps, their weights, and the optimizer's slots where they are kept.
Out: shards, both Parquet tables, the small files beside them, the card and, last and by rename,
`manifest.json`. Models keep their order within their split; splits come in the order of the format.

What is written waits on the disk (`.build/spool`), so that memory grows with the size of one
`Models` and not with their number. Stopped anywhere it leaves no manifest, and a later call
begins anew. Refused, in a sentence, is what no zoo can hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets import errors
from zoo_datasets.core import files
from zoo_datasets.errors import BuildError
from zoo_datasets.format import card, parquet_writer, schema, shards, spool
from zoo_datasets.format.contents import (
    PUBLISHED_COLUMNS,
    About,
    Models,
    Tables,
    check_about,
    check_models,
    checked_rows,
    count_groups,
)
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS, ZooPaths, optimizer_shard
from zoo_datasets.format.schema import Column

MOST_INLINE_BYTES = 2_000_000_000  # above, the default config would be slow to open
MOST_OPENED = 16  # shards mapped at a time, of up to 4 GB each

# Where the published weights lie; for this file alone, never in a table of the zoo.
PLACE = (Column("shard", pa.int64(), "number in its split"), Column("row", pa.int64(), "of the layout's tensor"))


def write(
    root: Path | str,
    about: About,
    models: Iterable[Models],
    further: Callable[[Tables], Mapping[str, Any]] = lambda tables: {},
    *,
    batch_rows: int = spool.BATCH_ROWS,
    most_file_bytes: int = parquet_writer.MOST_FILE_BYTES,
) -> Manifest:
    """Write a zoo into an empty folder, or one where this was stopped; its manifest.

    `further` makes the parts of the manifest that are not about the files, from the finished tables.
    A table of a split above `most_file_bytes` is several files.
    Raises BuildError where a model cannot be held, OSError where the disk cannot.
    """
    paths = ZooPaths(root)
    check_about(about)
    with _scratch(paths) as folder:
        splits = {name: _Split(folder, name, about, batch_rows) for name in SPLITS}
        with contextlib.ExitStack() as stack:
            for split in splits.values():
                stack.callback(split.close)
            for some in models:
                if some.split not in splits:
                    raise BuildError(errors.unknown("split", some.split, SPLITS, f"the models of {about.zoo}"))
                splits[some.split].add(some)
            done = [split for split in splits.values() if split.n_models]
            if not done:
                raise BuildError(f"{about.zoo} has no model: a zoo has at least one.")
            sealed = [record for split in done for record in split.finish(paths)]
        tables = {
            "snapshots": pa.concat_tables([s.snapshots for s in done]),
            "models": pa.concat_tables([s.models for s in done]),
        }
        groups = count_groups(tables["models"], {s.name: s.models for s in done}, about)
        inline = sum(s.published_bytes for s in done) <= MOST_INLINE_BYTES
        widths = frozenset[int]().union(*(s.widths for s in done))  # of all splits: their files have one schema
        for split in done:
            sealed += split.write_tables(paths, widths if inline else None, most_file_bytes)
        texts = {**about.texts, **card.companions(about.zoo, about.license)}
        for name, text in texts.items():
            files.write_atomic(paths.root / name, text)
        sealed += [files.record(paths.root, paths.root / name) for name in texts]
        value = _manifest(about, tables, done, groups, inline, sealed) | dict(further(tables))
        manifest = Manifest.parse(value, paths.root).sealed()
        files.write_atomic(paths.card, card.render(manifest, tables["models"]))
    files.write_json(paths.manifest, manifest.to_json())
    with contextlib.suppress(OSError):  # a builder has more in it
        paths.build.rmdir()
    return manifest


@contextlib.contextmanager
def _scratch(paths: ZooPaths) -> Any:
    """A folder for what waits, gone in the end; `.build` stays where the zoo is not finished.

    Raises BuildError where the zoo's folder holds something else.
    """
    if paths.manifest.exists():
        raise BuildError(f"{paths.root} holds a sealed zoo, and that never changes. Choose another folder.")
    if paths.root.is_dir() and not paths.build.is_dir() and any(paths.root.iterdir()):
        raise BuildError(f"{paths.root} holds other files and no zoo. Choose an empty folder.")
    folder = paths.build / "spool"
    for left in (folder, paths.root / "data", paths.root / "weights", paths.root / "optimizer"):
        shutil.rmtree(left, ignore_errors=True)  # of an earlier attempt, perhaps in other numbers
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Split:
    """The models of one split on their way: tables and rows that grow, then its files."""

    def __init__(self, folder: Path, name: str, about: About, batch_rows: int) -> None:
        self.folder, self.name, self.about, self.batch_rows = folder, name, about, batch_rows
        self.n_models = self.n_snapshots = self.published_bytes = 0
        self.widths: set[int] = set()
        self._rows = spool.ShardSpool(folder, name, about.optimizer)
        self._models = self._table("models", about.model_columns + tuple(_private(c) for c in PLACE))
        self._snapshots = self._table("snapshots", [c for c in about.snapshot_columns if c.name != "shard"])

    def _table(self, what: str, columns: Iterable[Column]) -> spool.TableSpool:
        full = pa.schema([(c.name, c.type) for c in columns])
        return spool.TableSpool(self.folder / f"{files.SCRATCH}{self.name}-{what}", full, self.batch_rows)

    def add(self, some: Models) -> None:
        """Rows to the spools, checked. Raises BuildError."""
        models, snapshots = some.models.combine_chunks(), some.snapshots.combine_chunks()
        counts = check_models(models, snapshots, self.about)
        if not len(models):
            return
        owner = np.repeat(np.arange(len(models)), counts)
        last = pa.array(np.cumsum(counts) - 1)
        layouts = models["layout"].to_pylist()
        widths = np.array([self.about.widths[name] for name in layouts])
        places, hashes = self._add_rows(some, models["model_id"].to_pylist(), layouts, counts)
        rows = np.concatenate([np.arange(first, first + n) for _, first, n in places])
        numbers = np.repeat([number for number, _, _ in places], [n for _, _, n in places])
        given = {name: snapshots[name] for name in snapshots.column_names}
        for name, texts in hashes.items():
            given.setdefault(name, pa.array(texts, pa.string()))
        derived = {"split": pa.repeat(self.name, len(snapshots)), "row": pa.array(rows)}
        repeated = {name: models[name].take(pa.array(owner)) for name in ("model_id", *self.about.axes)}
        repeated["tensor"] = models["layout"].take(pa.array(owner))
        self._snapshots.append(_fitted(self._snapshots.schema, given | derived | repeated))
        given = {name: models[name] for name in models.column_names} | {
            name: given[name].take(last) for name in PUBLISHED_COLUMNS if name in given
        }
        derived = {"split": pa.repeat(self.name, len(models)), "n_params": pa.array(widths)}
        placed = {_private(c).name: pa.array(v).take(last) for c, v in zip(PLACE, (numbers, rows), strict=True)}
        self._models.append(_fitted(self._models.schema, given | derived | placed))
        self.n_models, self.n_snapshots = self.n_models + len(models), self.n_snapshots + len(snapshots)
        self.published_bytes += 4 * int(widths.sum())
        self.widths |= set(widths.tolist())

    def _add_rows(
        self, some: Models, ids: list[str], layouts: list[str], counts: np.ndarray
    ) -> tuple[list[tuple[int, int, int]], dict[str, list[str]]]:
        """Weights and slots to the shards; where they lie, and the checksums that nobody gave."""
        places: list[tuple[int, int, int]] = []
        hashes: dict[str, list[str]] = {}
        weights, slots = iter(some.weights), iter(some.slots) if some.slots is not None else None
        for id, layout, count in zip(ids, layouts, counts.tolist(), strict=True):
            width = self.about.widths[layout]
            rows = checked_rows(next(weights, None), (count, width), f"weights of model {id}", layout)
            state = None
            if self.about.optimizer:
                state = next(slots, None) if slots is not None else None
                state = checked_rows(state, (count, 2, width), f"optimizer slots of model {id}", layout)
            for name, array in (("weights_sha256", rows), ("optimizer_sha256", state)):
                if array is not None and name not in some.snapshots.column_names:
                    hashes.setdefault(name, []).extend(sha256_of_rows(array))
            places += self._rows.add(layout, rows, state)
        if next(weights, None) is not None:
            raise BuildError(
                f"There are weights of more models than the {len(ids)} in the table, the last of them {ids[-1]}."
            )
        return places, hashes

    def finish(self, paths: ZooPaths) -> list[dict[str, Any]]:
        """Shards under their names, and both tables; the shards' entries in the manifest."""
        made, sealed = self._rows.finish(), []
        names = self._table("shards", [c for c in schema.SNAPSHOT_TAIL if c.name == "shard"])
        self.shards = [paths.shard(self.name, i, len(made)) for i in range(len(made))]
        for shard, path in zip(made, self.shards, strict=True):
            name = path.relative_to(paths.root).as_posix()
            sealed.append(_move(shard.weights, paths.root, name) | shard.sealed)
            if shard.optimizer is not None and shard.optimizer_sealed is not None:
                sealed.append(_move(shard.optimizer, paths.root, optimizer_shard(name)) | shard.optimizer_sealed)
            for start in range(0, shard.n_rows, self.batch_rows):
                names.append(pa.table({"shard": pa.repeat(name, min(self.batch_rows, shard.n_rows - start))}))
        rows = self._snapshots.finish()
        columns = {name: rows[name] for name in rows.column_names} | {"shard": names.finish()["shard"]}
        self.snapshots = pa.table({c.name: columns[c.name] for c in self.about.snapshot_columns})
        everything = self._models.finish()
        self.models = everything.select([c.name for c in self.about.model_columns])
        self._places = everything.select(["layout", *(_private(c).name for c in PLACE)])
        return sealed

    def write_tables(self, paths: ZooPaths, widths: frozenset[int] | None, most_bytes: int) -> list[dict[str, Any]]:
        """The Parquet files of both tables, with weights of these widths inline; their entries in the manifest."""
        snapshots, models = (functools.partial(paths.table, config, self.name) for config in ("snapshots", "models"))
        inline = () if widths is None else (self._published, widths)
        written = [
            *parquet_writer.write(snapshots, self.snapshots, most_bytes=most_bytes),
            *parquet_writer.write(models, self.models, *inline, most_bytes=most_bytes),
        ]
        return [files.record(paths.root, path) for path in written]

    def _published(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The last weights of models from … to, out of the shards: one after another, and their lengths."""
        opened = functools.lru_cache(MOST_OPENED)(lambda shard: shards.open_tensors(self.shards[shard]))
        lengths, at = self.models["n_params"].slice(start, end - start).to_numpy(), 0
        flat = np.empty(lengths.sum(), np.float32)
        for begin in range(start, end, self.batch_rows):
            places = self._places.slice(begin, min(self.batch_rows, end - begin))
            for layout, shard, row in zip(*(c.to_pylist() for c in places.columns), strict=True):
                weights = opened(shard)[layout][row]  # (P,)
                flat[at : at + len(weights)] = weights
                at += len(weights)
        return flat, lengths

    def close(self) -> None:
        self._rows.close()
        self._models.close()
        self._snapshots.close()


def sha256_of_rows(array: np.ndarray) -> list[str]:
    """SHA-256 of the little-endian float32 bytes of each row of an array [n, …]."""
    return [hashlib.sha256(row.data).hexdigest() for row in np.ascontiguousarray(array, "<f4")]


def _private(column: Column) -> Column:
    return dataclasses.replace(column, name=f"published_{column.name}")


def _move(made: Path, root: Path, name: str) -> dict[str, str]:
    """A finished file to its place in the zoo."""
    path = root / name
    files.make_folder(path.parent)
    made.replace(path)
    files.sync_folder(path.parent)
    return {"path": name}


def _fitted(full: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """The columns in order and type of the schema, null where they are missing. Raises BuildError."""
    n = len(next(iter(columns.values())))
    result = {}
    for field in full:
        try:
            column = columns.get(field.name, pa.nulls(n, field.type))
            result[field.name] = column.cast(field.type)
        except pa.ArrowException as error:
            raise BuildError(f"Column `{field.name}` is {field.type}, and this is not: {error}") from None
    return pa.table(result, full)


# ── the manifest ──


def _manifest(
    about: About, tables: Tables, splits: Sequence[_Split], groups: int, inline: bool, sealed: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is sealed: files with sizes and hashes, layouts, digests. No clock, host or path."""
    models = tables["models"]
    engines = models.select(["engine", "engine_version", "isa"]).group_by(["engine", "engine_version", "isa"])
    used = [e for e in engines.aggregate([]).to_pylist() if e["engine"] is not None]
    return {
        "format_version": schema.FORMAT_VERSION,
        "zoo": about.zoo,
        "identity": {"document": {"license": about.license} if about.license else {}},
        "axes": dict(about.axes),
        "factors": [c.name for c in about.factors],
        "counts": {
            "models": {s.name: s.n_models for s in splits},
            "snapshots": {s.name: s.n_snapshots for s in splits},
            "init_groups": groups,
            "cohorts": pc.count_distinct(models["cohort_id"]).as_py(),
            "diverged": len(models) - models["diverged_step"].null_count,
        },
        "splits": {"fractions": {}, "rule": "given"},
        "weights_dtype": schema.WEIGHTS_DTYPE,
        **({"optimizer_state": True} if about.optimizer else {}),
        "inline_weights": inline,
        "architectures": dict(about.architectures),
        "layer_lists": {},
        "layouts": {name: layout.to_json() for name, layout in about.layouts.items()},
        "sources": [],
        "engines": sorted(
            ({"engine": e["engine"], "version": e["engine_version"], "isa": e["isa"]} for e in used),
            key=lambda e: tuple(map(str, e.values())),
        ),
        "digests": schema.digests(tables),
        "files": sorted(sealed, key=lambda record: Path(record["path"])),
    }
