"""A zoo's bytes against its manifest: everything that can be told without training.

In:  the folder of a sealed zoo.
Out: a `Report` of problems (the zoo is not what was sealed), warnings and what was checked.
"""

from __future__ import annotations

import hashlib
import reprlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from zoo_datasets.core import records, streams
from zoo_datasets.core.report import Report
from zoo_datasets.errors import FormatVersionError, IntegrityError
from zoo_datasets.format import consistency, schema, shards
from zoo_datasets.format.manifest import CONFIGS, Manifest
from zoo_datasets.format.manifest_parts import SealedFile
from zoo_datasets.format.paths import optimizer_shard
from zoo_datasets.format.tables import read_table

# Beginnings of names that file managers leave in every folder they show.
LEFT_BY_SYSTEMS = (".DS_Store", "._", "Thumbs.db", "desktop.ini", ".directory")
MOST_MESSAGE = 1_000  # characters of a problem: names in it are a stranger's


def check(root: Path) -> Report:
    """Compare every byte of a zoo with its manifest, and its tables with each other.

    Raises ZooNotFoundError, FormatVersionError, and IntegrityError where the manifest is unreadable.
    """
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
    for file in manifest.files.values():
        try:
            file.verify(root)
        except IntegrityError as error:
            problems.append(str(error))
    report.extend(problems)
    extra = [
        name for folder in ("data", "weights", "optimizer") for p in (root / folder).rglob("*")
        if p.is_file() and (name := p.relative_to(root).as_posix()) not in manifest.files
    ]  # fmt: skip
    left = [name for name in extra if name.rsplit("/", 1)[-1].startswith(LEFT_BY_SYSTEMS)]
    report.extend([f"{name} does not belong to the zoo" for name in extra if name not in left])
    if left:
        report.warnings.append(f"{len(left)} files that a file manager left are no part of the zoo: {left[0]}")


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
    ids = models["model_id"].to_pylist()
    if len(set(ids)) != len(ids):
        report.problems.append(f"{len(ids) - len(set(ids))} model ids are not unique")
    steps: dict[str, list[int]] = {}
    for model, step in zip(snapshots["model_id"].to_pylist(), snapshots["step"].to_pylist(), strict=True):
        steps.setdefault(model, []).append(step)
    report.extend([f"model {m} has snapshots but no row in models" for m in steps if m not in set(ids)])
    counts = models["n_snapshots"].to_pylist()
    report.extend([f"model {m} should have {n} snapshots, it has {len(steps.get(m, []))}"
                   for m, n in zip(ids, counts, strict=True) if len(steps.get(m, [])) != n])  # fmt: skip
    report.extend([f"model {m}: steps are not ascending" for m, s in steps.items() if s != sorted(set(s))])


def _groups(models: pa.Table, report: Report) -> None:
    for column in ("init_group", "lineage_root"):
        seen: dict[str, set[str]] = {}
        for group, split in zip(models[column].to_pylist(), models["split"].to_pylist(), strict=True):
            if group is not None:
                seen.setdefault(group, set()).add(split)
        report.extend([f"{column} {g} is in two splits: {', '.join(sorted(s))}" for g, s in seen.items() if len(s) > 1])


def _weights(root: Path, manifest: Manifest, tables: dict[str, pa.Table], report: Report) -> None:
    snapshots = tables["snapshots"].select(["model_id", "step", "split", "shard", "tensor", "row", "weights_sha256"])
    models = tables["models"]
    opened: dict[tuple[str, str], np.ndarray] = {}
    taken: dict[tuple[str, str], set[int]] = {}
    hashes: dict[str, list[tuple[int, str]]] = {}
    for r in snapshots.to_pylist():
        place = (r["shard"], r["tensor"])
        if place not in opened:
            try:
                opened[place] = shards.open_tensor(_sealed(manifest, r["shard"]).find(root), r["tensor"])
            except (IntegrityError, OSError) as error:
                report.problems.append(str(error))
                return
            layout = manifest.layouts.get(r["tensor"])
            if layout is None or opened[place].shape[1:] != (layout.n_params,):
                report.problems.append(
                    f"{place[0]}: tensor {place[1]} has shape {list(opened[place].shape)}, which is not that of its layout"
                )
                return
        tensor, rows = opened[place], taken.setdefault(place, set())
        if not 0 <= r["row"] < len(tensor) or r["row"] in rows:
            report.problems.append(
                f"model {r['model_id']}, step {r['step']}: row {r['row']} of {r['shard']} is not its own"
            )
            continue
        rows.add(r["row"])
        digest = hashlib.sha256(tensor[r["row"]].tobytes()).hexdigest()
        if digest != r["weights_sha256"]:
            report.problems.append(f"model {r['model_id']}, step {r['step']}: weights differ from their checksum")
        hashes.setdefault(r["model_id"], []).append((r["step"], digest))
    report.extend([f"{s}: {len(opened[s, t]) - len(rows)} rows of {t} belong to no snapshot"
                   for (s, t), rows in taken.items() if len(rows) != len(opened[s, t])])  # fmt: skip
    for m in models.select(["model_id", "step", "weights_sha256"]).to_pylist():
        last = hashes.get(m["model_id"], [(None, None)])[-1]
        if last != (m["step"], m["weights_sha256"]):
            report.problems.append(f"model {m['model_id']}: the published weights are not its last snapshot")
    still = [m for m, h in hashes.items() if len(h) > 1 and h[-1][0] > 0 and len({d for _, d in h}) == 1]
    if still:
        report.warnings.append(
            f"{len(still)} models never move: their weights are the same at every step ({still[0]}, …)"
        )
    if "weights" in models.column_names:
        inline = models["weights"].combine_chunks()
        if inline.null_count:
            report.problems.append(f"{inline.null_count} models have no inline weights")
            return
        for i, (model, wanted) in enumerate(
            zip(models["model_id"].to_pylist(), models["weights_sha256"].to_pylist(), strict=True)
        ):
            if hashlib.sha256(np.asarray(inline[i].values, "<f4").tobytes()).hexdigest() != wanted:
                report.problems.append(f"model {model}: inline weights differ from their checksum")


def _sealed(manifest: Manifest, name: str) -> SealedFile:
    """Raises IntegrityError where a row names a file that was not sealed."""
    if name not in manifest.files:
        raise IntegrityError(f"snapshots lie in {reprlib.repr(name)}, which the manifest does not name")
    return manifest.files[name]


def _optimizer(root: Path, manifest: Manifest, snapshots: pa.Table, report: Report) -> None:
    """The optimizer's slots of every snapshot, which lie in the row of its weights, against their checksum."""
    opened: dict[tuple[str, str], np.ndarray] = {}
    wrong, used = [], set()
    for r in snapshots.select(["model_id", "step", "shard", "tensor", "row", "optimizer_sha256"]).to_pylist():
        rows = []
        for name in (f"{r['tensor']}.slot1", f"{r['tensor']}.slot2"):
            place = optimizer_shard(r["shard"]), name
            try:
                if place not in opened:
                    opened[place] = shards.open_tensor(_sealed(manifest, place[0]).find(root), name)
                rows.append(opened[place][r["row"]].tobytes())
            except (IntegrityError, OSError, IndexError) as error:
                report.problems.append(f"optimizer state of model {r['model_id']}, step {r['step']}: {error}")
                return
            used.add((*place, r["row"]))
        if hashlib.sha256(b"".join(rows)).hexdigest() != r["optimizer_sha256"]:
            wrong.append(f"model {r['model_id']}, step {r['step']}: optimizer state differs from its checksum")
    report.extend(wrong)
    stored = sum(len(tensor) for tensor in opened.values())
    if stored != len(used):
        report.problems.append(f"{stored - len(used)} rows of optimizer state belong to no snapshot")
    report.lines.append(f"optimizer state: {len(snapshots):,} snapshots")
