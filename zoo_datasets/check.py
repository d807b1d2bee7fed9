"""A zoo's bytes against its manifest: everything that can be told without training.

In:  the folder of a sealed zoo.
Out: a `Report` of problems (the zoo is not what was sealed), warnings and what was checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets import files, parquet, schema, shards
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooNotFoundError

MOST_LISTED = 5  # problems of one kind; a torn disk would otherwise print thousands


@dataclasses.dataclass
class Report:
    """What a check found. `problems` empty means the zoo is what was sealed."""

    lines: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def extend(self, found: list[str]) -> None:
        """Add problems of one kind, the first few by name."""
        self.problems += found[:MOST_LISTED]
        if len(found) > MOST_LISTED:
            self.problems.append(f"… and {len(found) - MOST_LISTED} more like the last")


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a sealed zoo. Raises ZooNotFoundError, IntegrityError, FormatVersionError."""
    path = files.ZooPaths(root).manifest
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        unfinished = files.ZooPaths(root).build.is_dir()
        what = "is not finished: run its build command again" if unfinished else "holds no zoo: it has no manifest.json"
        raise ZooNotFoundError(f"{root} {what}.") from None
    except (ValueError, UnicodeDecodeError, RecursionError):
        raise IntegrityError(f"{path} is not JSON: the zoo is damaged. Fetch or build it again.") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version < 1:
        raise IntegrityError(f"{path} names no format version: this is not the manifest of a zoo.")
    if version > schema.FORMAT_VERSION:
        raise FormatVersionError(
            f"{root} has format version {version}; this library reads up to {schema.FORMAT_VERSION}. Upgrade weightzoo."
        )
    return manifest  # type: ignore[no-any-return]


def check(root: Path) -> Report:
    """Compare every byte of a zoo with its manifest, and its tables with each other.

    Raises ZooNotFoundError, FormatVersionError, and IntegrityError where the manifest is unreadable.
    """
    manifest = read_manifest(root)
    report = Report()
    total = _files(root, manifest, report)
    report.lines.append(f"files: {len(manifest['files'])} with {total:,} bytes, sizes and SHA-256")
    if report.problems:
        return report  # tables of damaged files would only repeat it
    try:
        tables = {config: read_table(root, manifest, config) for config in ("models", "snapshots")}
    except IntegrityError as error:
        report.problems.append(str(error))
        return report
    for config, needed in schema.COLUMNS.items():
        report.extend([f"{config} has no column {n!r}" for n in needed if n not in tables[config].column_names])
    if report.problems:
        return report
    _rows(manifest, tables, report)
    _groups(tables["models"], report)
    _weights(root, manifest, tables, report)
    if manifest.get("optimizer_state"):
        _optimizer(root, tables["snapshots"], report)
    found = schema.digests(tables)
    report.extend([f"content digest `{k}` is {found[k][:16]}…, the manifest says {v[:16]}…"
                   for k, v in manifest["digests"].items() if found[k] != v])  # fmt: skip
    report.lines.append(
        f"tables: {len(tables['models']):,} models, {len(tables['snapshots']):,} snapshots, ids, splits, digests"
    )
    return report


def _files(root: Path, manifest: dict[str, Any], report: Report) -> int:
    problems, total = [], 0
    for entry in manifest["files"]:
        try:
            path = files.inside(root, entry["path"])
            size = path.stat().st_size
        except IntegrityError as error:
            problems.append(str(error))
            continue
        except FileNotFoundError:
            problems.append(f"{entry['path']} is missing")
            continue
        total += size
        if size != entry["bytes"]:
            problems.append(f"{entry['path']} has {size:,} bytes, the manifest says {entry['bytes']:,}")
        elif files.sha256(path) != entry["sha256"]:
            problems.append(f"{entry['path']} has other contents than were sealed")
    report.extend(problems)
    known = {e["path"] for e in manifest["files"]} | {"README.md", "manifest.json"}
    extra = [
        name for folder in ("data", "weights", "optimizer") for p in (root / folder).rglob("*")
        if p.is_file() and (name := p.relative_to(root).as_posix()) not in known
    ]  # fmt: skip
    report.extend([f"{name} does not belong to the zoo" for name in extra])
    return total


def read_table(root: Path, manifest: dict[str, Any], config: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of `models` or `snapshots` in the zoo's order. Raises IntegrityError.

    A split may lie in several files. Row counts come from the Parquet metadata first, so that a
    small file which unfolds to billions of rows is refused before it is read.
    """
    pieces = []
    for split in files.SPLITS:
        if split not in manifest["counts"][config]:
            continue
        prefix = f"data/{config}/{split}-"
        opened = [(e["path"], _parquet(root, e["path"])) for e in manifest["files"] if e["path"].startswith(prefix)]
        rows, wanted = sum(f.metadata.num_rows for _, f in opened), manifest["counts"][config][split]
        if rows != wanted:
            here = " and ".join(path for path, _ in opened) or f"{prefix}*"
            raise IntegrityError(f"{here} has {rows:,} rows, the manifest says {wanted:,}.")
        for path, file in opened:
            try:
                piece = file.read(columns)
                pieces.append(pa.table({n: parquet.plain(piece[n]) for n in piece.column_names}))
            except (pa.ArrowException, OSError) as error:
                raise IntegrityError(f"{path} is damaged: {error}") from None
    try:
        return pa.concat_tables(pieces)
    except pa.ArrowException as error:
        raise IntegrityError(f"The files of {config} have different columns: {error}") from None


def _parquet(root: Path, relative: str) -> pq.ParquetFile:
    path = files.inside(root, relative)
    return parquet.open_file(path, path.stat().st_size, relative)


def _rows(manifest: dict[str, Any], tables: dict[str, pa.Table], report: Report) -> None:
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


def _weights(root: Path, manifest: dict[str, Any], tables: dict[str, pa.Table], report: Report) -> None:
    snapshots = tables["snapshots"].select(["model_id", "step", "split", "shard", "tensor", "row", "weights_sha256"])
    models = tables["models"]
    opened: dict[tuple[str, str], np.ndarray] = {}
    taken: dict[tuple[str, str], set[int]] = {}
    widths = {k: max((e["offset"] + int(np.prod(e["shape"])) for e in v), default=0)
              for k, v in manifest["layouts"].items()}  # fmt: skip
    hashes: dict[str, list[tuple[int, str]]] = {}
    for r in snapshots.to_pylist():
        place = (r["shard"], r["tensor"])
        if place not in opened:
            try:
                opened[place] = shards.open_tensor(files.inside(root, r["shard"]), r["tensor"])
            except (IntegrityError, OSError) as error:
                report.problems.append(str(error))
                return
            if opened[place].shape[1] != widths.get(r["tensor"]):
                report.problems.append(f"{place[0]}: tensor {place[1]} has rows of {opened[place].shape[1]} values")
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
        for i, (model, wanted) in enumerate(
            zip(models["model_id"].to_pylist(), models["weights_sha256"].to_pylist(), strict=True)
        ):
            if hashlib.sha256(np.asarray(inline[i].values, "<f4").tobytes()).hexdigest() != wanted:
                report.problems.append(f"model {model}: inline weights differ from their checksum")


def _optimizer(root: Path, snapshots: pa.Table, report: Report) -> None:
    """The optimizer's slots of every snapshot, which lie in the row of its weights, against their checksum."""
    opened: dict[tuple[str, str], np.ndarray] = {}
    wrong, used = [], set()
    for r in snapshots.select(["model_id", "step", "shard", "tensor", "row", "optimizer_sha256"]).to_pylist():
        rows = []
        for name in (f"{r['tensor']}.slot1", f"{r['tensor']}.slot2"):
            place = files.optimizer_shard(r["shard"]), name
            try:
                if place not in opened:
                    opened[place] = shards.open_tensor(files.inside(root, place[0]), name)
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
