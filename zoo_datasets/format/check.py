"""A zoo's bytes against its manifest: everything that can be told without training.

In:  the folder of a sealed zoo.
Out: a `Report` of problems (the zoo is not what was sealed), warnings and what was checked.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.core import files, meters, records, streams
from zoo_datasets.core.command import size as in_words
from zoo_datasets.core.report import Report
from zoo_datasets.errors import FormatVersionError, IntegrityError
from zoo_datasets.format import card, consistency, schema, shards
from zoo_datasets.format.manifest import CONFIGS, Manifest
from zoo_datasets.format.manifest_parts import MOST_UNSEALED_BYTES, SealedFile
from zoo_datasets.format.paths import ZooPaths, optimizer_shard
from zoo_datasets.format.tables import read_schema, read_table

# Beginnings of names that file managers leave in every folder they show.
LEFT_BY_SYSTEMS = (".DS_Store", "._", "Thumbs.db", "desktop.ini", ".directory")
OVERRULING = ".huggingface.yaml"  # which `datasets` puts above a card
MOST_MESSAGE = 1_000  # characters of a problem: names in it are a stranger's


def check(root: Path) -> Report:
    """Compare every byte of a zoo with its manifest, its tables with each other, and with these what its card has `load_dataset` read.

    Raises ZooNotFoundError, FormatVersionError, and IntegrityError where the manifest is unreadable.
    """
    report = sealed(root)
    if not report.problems:
        card_of(root, report)
    return report


def sealed(root: Path) -> Report:
    """The same without the card, which is outside the seal: publishing writes it anew. Raises what `check` does."""
    report = Report()
    _compare(root, Manifest.read(root), report)
    report.problems = [p if len(p) <= MOST_MESSAGE else f"{p[:MOST_MESSAGE]}…" for p in report.problems]
    return report


def _compare(root: Path, manifest: Manifest, report: Report) -> None:
    _architectures(manifest, report)
    _files(root, manifest, report)
    report.lines.append(f"files: {len(manifest.files)} with {manifest.files.size():,} bytes, sizes and SHA-256")
    if report.problems:
        return  # tables of damaged files would only repeat it
    try:
        tables = {config: read_table(root, manifest, config, weights=True) for config in CONFIGS}
    except IntegrityError as error:
        report.problems.append(str(error))
        return
    _columns(manifest, tables, report)
    if report.problems:
        return
    report.extend(list(consistency.contradictions(manifest, tables)))
    _rows(tables, report)
    _groups(tables["models"], report)
    _weights(root, manifest, tables, report)
    if manifest.optimizer_state:
        _optimizer(root, manifest, tables["snapshots"], report)
    report.extend([f"content digest `{name}` is {digest[:16]}…, the manifest says {manifest.digest(name)[:16]}…"
                   for name, digest in schema.digests(tables).items() if manifest.digest(name) != digest])  # fmt: skip
    report.lines.append(
        f"tables: {len(tables['models']):,} models, {len(tables['snapshots']):,} snapshots, ids, splits, digests"
    )


def _architectures(manifest: Manifest, report: Report) -> None:
    problems = []
    for name, record in manifest.architectures.items():
        value = {k: v for k, v in records.encode(record).items() if k != "layout"}
        # The id is a hash of all that is said of the layers: one flip and this version could not build them, which is
        # no more than a warning. A manifest with a digest was written as it is, perhaps by a later version.
        known = manifest.manifest_sha256 is not None or record.kind == "external"
        if not known and (own := streams.digest(value)[:16]) != name:
            problems.append(f"architecture {name} is {own} by its layers: one of them was changed")
            continue
        try:
            manifest.architecture(name, f"architecture {name}")
        except IntegrityError as error:
            problems.append(str(error))
        except FormatVersionError as error:
            report.warnings.append(str(error))
    report.extend(problems)


def _files(root: Path, manifest: Manifest, report: Report) -> None:
    problems = []
    with meters.track("files", manifest.files.size(), "", in_words) as meter:
        for file in manifest.files.values():
            try:
                file.verify(root)
            except IntegrityError as error:
                problems.append(str(error))
            meter.add(file.bytes)
    report.extend(problems)
    extra = [
        name for folder in ("data", "weights", "optimizer") for p in (root / folder).rglob("*")
        if p.is_file() and (name := p.relative_to(root).as_posix()) not in manifest.files
    ]  # fmt: skip
    left = [name for name in extra if name.rsplit("/", 1)[-1].startswith(LEFT_BY_SYSTEMS)]
    report.extend([f"{name} does not belong to the zoo" for name in extra if name not in left])
    if left:
        report.warnings.append(f"{len(left)} files that a file manager left are no part of the zoo: {left[0]}")


def card_of(root: Path, report: Report) -> None:
    """The head of README.md, which says which files `load_dataset` reads, of a zoo that is whole; and what would overrule it."""
    manifest = Manifest.read(root)
    overruling = root / OVERRULING
    if overruling.is_symlink() or overruling.exists():
        report.problems.append(
            f"{overruling.name} does not belong to the zoo: `load_dataset` would follow it, not README.md"
        )
    path = ZooPaths(root).card
    if not path.exists():
        report.warnings.append("README.md is not there: `load_dataset` finds no tables without it")
        return
    schemas = {name: read_schema(root, manifest, name) for name in CONFIGS}
    try:
        text = files.read_bounded(files.inside(root, path.name), MOST_UNSEALED_BYTES).decode()
    except (IntegrityError, OSError, UnicodeDecodeError) as error:
        report.problems.append(f"README.md cannot be read: {error}")
        return
    if wrong := card.misleading(manifest, schemas, text):
        report.problems.append(f"README.md is not the zoo's: {wrong}. Publishing writes it anew")


def _columns(manifest: Manifest, tables: dict[str, pa.Table], report: Report) -> None:
    """The columns of the format are there, and filled where each row needs a value."""
    for config, table in tables.items():
        needed = [*schema.COLUMNS[config], *([schema.OPTIMIZER.name] if _slots(manifest, config) else [])]
        report.extend([f"{config} has no column {n!r}" for n in needed if n not in table.column_names])
        filled = [n for n in schema.FILLED[config] if n in table.column_names]
        report.extend(
            [f"{table[n].null_count:,} rows of {config} have no `{n}`" for n in filled if table[n].null_count]
        )


def _slots(manifest: Manifest, config: str) -> bool:
    return config == "snapshots" and bool(manifest.optimizer_state)


def _rows(tables: dict[str, pa.Table], report: Report) -> None:
    models, snapshots = tables["models"], tables["snapshots"]
    ids = models["model_id"]
    known = pc.unique(ids)
    if len(known) != len(ids):
        report.problems.append(f"{len(ids) - len(known)} model ids are not unique")
    owners, owner = _coded(snapshots["model_id"])
    strangers = owners.filter(pc.invert(pc.is_in(owners, known)))
    report.extend([f"model {m} has snapshots but no row in models" for m in strangers.to_pylist()])
    there = np.append(np.bincount(owner, minlength=len(owners)), 0)[_places(ids, owners)]  # the last: of none
    said = np.asarray(models["n_snapshots"])
    report.extend([f"model {ids[i]} should have {said[i]} snapshots, it has {there[i]}"
                   for i in np.flatnonzero(there != said).tolist()])  # fmt: skip
    steps, order = np.asarray(snapshots["step"]), np.argsort(owner, kind="stable")
    back = (np.diff(steps[order]) <= 0) & (np.diff(owner[order]) == 0)
    report.extend([f"model {owners[m]}: steps are not ascending" for m in np.unique(owner[order][1:][back]).tolist()])


def _coded(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """The distinct values by their first appearance, and which of them each row has, int64 [n]."""
    values = pc.unique(column)
    return values, _places(column, values)


def _places(column: pa.ChunkedArray, values: pa.Array) -> np.ndarray:
    """The place of each row's value among distinct ones, int64 [n]; −1 where it is not there."""
    return np.asarray(pc.fill_null(pc.index_in(column, values), -1)).astype(np.int64)


def _groups(models: pa.Table, report: Report) -> None:
    for column in ("init_group", "lineage_root"):
        seen: dict[str, set[str]] = {}
        for pair in models.select([column, "split"]).group_by([column, "split"]).aggregate([]).to_pylist():
            if pair[column] is not None:
                seen.setdefault(pair[column], set()).add(pair["split"])
        report.extend([f"{column} {g} is in two splits: {', '.join(sorted(s))}" for g, s in seen.items() if len(s) > 1])


def _weights(root: Path, manifest: Manifest, tables: dict[str, pa.Table], report: Report) -> None:
    """Every row of the shards against its checksum, each named once and none left over; and the published weights."""
    snapshots = tables["snapshots"]
    ids, steps, rows = snapshots["model_id"], np.asarray(snapshots["step"]), np.asarray(snapshots["row"])
    digests: list[str | None] = [None] * len(snapshots)
    finite = np.ones(len(snapshots), bool)
    strays: list[int] = []
    left: list[str] = []
    with meters.track("weights", len(snapshots), "snapshots") as meter:
        for shard, name, at in _by_place(snapshots):
            try:
                tensor = np.asarray(shards.open_tensor(_sealed(manifest, shard).find(root), name))
            except (IntegrityError, OSError) as error:
                report.problems.append(str(error))
                return
            layout = manifest.layouts.get(name)
            if layout is None or tensor.shape[1:] != (layout.n_params,):
                report.problems.append(
                    f"{shard}: tensor {name} has shape {list(tensor.shape)}, which is not that of its layout"
                )
                return
            own = _own_rows(rows[at], len(tensor))
            strays += at[~own].tolist()
            for i, row in zip(at[own].tolist(), rows[at[own]].tolist(), strict=True):
                digests[i] = hashlib.sha256(tensor[row].data).hexdigest()
                finite[i] = np.isfinite(tensor[row]).all()
                meter.add()
            if own.sum() != len(tensor):
                left.append(f"{shard}: {len(tensor) - own.sum()} rows of {name} belong to no snapshot")
    shard_of = snapshots["shard"]
    report.extend(
        [f"model {ids[i]}, step {steps[i]}: row {rows[i]} of {shard_of[i]} is not its own" for i in sorted(strays)]
    )
    found = pa.array(digests, pa.string())
    wrong = np.asarray(pc.fill_null(pc.not_equal(found, snapshots["weights_sha256"].combine_chunks()), False))
    report.extend([f"model {ids[i]}, step {steps[i]}: weights differ from their checksum"
                   for i in np.flatnonzero(wrong).tolist()])  # fmt: skip
    report.extend(left)
    _published(tables, found, finite, report)
    if "weights" in tables["models"].column_names:
        _inline(tables["models"], report)


def _by_place(snapshots: pa.Table) -> Iterator[tuple[str, str, np.ndarray]]:
    """Each shard and tensor that is named, by their first rows, with the rows of the table that lie there."""
    shard_names, shard = _coded(snapshots["shard"])
    tensor_names, tensor = _coded(snapshots["tensor"])
    place = shard * len(tensor_names) + tensor
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    for at in np.split(order, starts[1:]) if len(order) else []:
        yield shard_names[shard[at[0]]].as_py(), tensor_names[tensor[at[0]]].as_py(), at


def _own_rows(rows: np.ndarray, n: int) -> np.ndarray:
    """Which rows are among n and named for the first time, bool [len(rows)]."""
    first = np.zeros(len(rows), bool)
    first[np.unique(rows, return_index=True)[1]] = True
    return first & (rows >= 0) & (rows < n)


def _published(tables: dict[str, pa.Table], digests: pa.Array, finite: np.ndarray, report: Report) -> None:
    """The row of a model names its last snapshot whose weights are its own; and which models never moved."""
    models, steps = tables["models"], np.asarray(tables["snapshots"]["step"])
    owners, owner = _coded(tables["snapshots"]["model_id"])
    whole = np.flatnonzero(np.asarray(digests.is_valid()))
    mine, codes = owner[whole], _coded(digests.take(pa.array(whole)))[1]
    first, last = np.full((2, len(owners) + 1), -1)  # among the whole; one more, for a model without any
    last[mine] = np.arange(len(whole))  # of several the last one stays
    first[mine[::-1]] = np.arange(len(whole))[::-1]
    at = last[_places(models["model_id"], owners)]
    there = np.append(whole, 0)[at]
    same = np.asarray(
        pc.equal(digests.take(pa.array(there)), models["weights_sha256"].combine_chunks()).fill_null(False)
    )
    same &= (at >= 0) & (steps[there] == np.asarray(models["step"]))
    report.extend(
        [f"model {models['model_id'][i]}: the published weights are not its last snapshot"
         for i in np.flatnonzero(~same).tolist()]
    )  # fmt: skip
    if len(endless := np.flatnonzero(same & ~finite[there])):
        report.warnings.append(
            f"the published weights of {len(endless)} models are no finite numbers ({models['model_id'][endless[0]]}, …)"
        )
    moved = np.bincount(mine, codes != codes[first[mine]], len(owners)) > 0
    several = np.bincount(mine, minlength=len(owners)) > 1
    still = np.flatnonzero(several & ~moved & (steps[np.append(whole, 0)[last[:-1]]] > 0))
    if len(still):
        report.warnings.append(
            f"{len(still)} models never move: their weights are the same at every step ({owners[still[0]]}, …)"
        )


def _inline(models: pa.Table, report: Report) -> None:
    """The weights in the table of models against their checksum."""
    column = models["weights"]
    if column.null_count:
        report.problems.append(f"{column.null_count} models have no inline weights")
        return
    wrong, row = [], 0
    for chunk in column.chunks:
        values = np.ascontiguousarray(chunk.flatten(), "<f4")
        ends = np.cumsum(np.asarray(chunk.value_lengths())).tolist()
        wanted = models["weights_sha256"].slice(row, len(chunk)).to_pylist()
        for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if hashlib.sha256(values[start:end].data).hexdigest() != wanted[i]:
                wrong.append(row + i)
        row += len(chunk)
    report.extend([f"model {models['model_id'][i]}: inline weights differ from their checksum" for i in wrong])


def _sealed(manifest: Manifest, name: str) -> SealedFile:
    """Raises IntegrityError where a row names a file that was not sealed."""
    if name not in manifest.files:
        raise IntegrityError(f"snapshots lie in {reprlib.repr(name)}, which the manifest does not name")
    return manifest.files[name]


def _optimizer(root: Path, manifest: Manifest, snapshots: pa.Table, report: Report) -> None:
    """The optimizer's slots of every snapshot, which lie in the row of its weights, against their checksum."""
    rows, said = np.asarray(snapshots["row"]), snapshots["optimizer_sha256"].to_pylist()
    ids, steps = snapshots["model_id"], snapshots["step"]
    wrong, stored, used = [], 0, 0
    with meters.track("optimizer state", len(snapshots), "snapshots") as meter:
        for shard, name, at in _by_place(snapshots):
            i = int(at[0])
            try:
                file = _sealed(manifest, optimizer_shard(shard)).find(root)
                slots = [np.asarray(shards.open_tensor(file, f"{name}.slot{k}")) for k in (1, 2)]
                for i in at.tolist():
                    digest = hashlib.sha256(slots[0][rows[i]].data)
                    digest.update(slots[1][rows[i]].data)
                    if digest.hexdigest() != said[i]:
                        wrong.append(i)
                    meter.add()
            except (IntegrityError, OSError, IndexError) as error:
                report.problems.append(f"optimizer state of model {ids[i]}, step {steps[i]}: {error}")
                return
            stored += sum(map(len, slots))
            used += 2 * len(np.unique(rows[at]))
    report.extend(
        [f"model {ids[i]}, step {steps[i]}: optimizer state differs from its checksum" for i in sorted(wrong)]
    )
    if stored != used:
        report.problems.append(f"{stored - used} rows of optimizer state belong to no snapshot")
    report.lines.append(f"optimizer state: {len(snapshots):,} snapshots")
