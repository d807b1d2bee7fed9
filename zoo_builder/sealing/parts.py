"""Snapshots of a cohort → its private part and its commit, each whole or not there.

A worker writes a part (weights as safetensors, rows as Parquet) under a name that holds
the hash of its bytes, and returns a `Record`. It never commits: the driver alone turns a
record into the small commit file that means "this cohort is done"; the first one wins.
A part is always rewritten, because "it exists, so skip it" keeps a damaged file for ever.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from zoo_builder.sealing import faults
from zoo_builder.training.progress import Progress, Snapshot
from zoo_datasets.core import files, streams
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import schema, shards
from zoo_datasets.format.paths import ZooPaths

TENSOR = "snapshots"
SLOTS = "slots"  # of the optimizer, [n, 2, P], where the recipe keeps them
PART_COLUMNS = (
    schema.Column("model_id", pa.string(), "model of the row"),
    *(c for c in schema.SNAPSHOT_HEAD if c.name in ("step", "epoch", "examples_seen")),
    *schema.METRICS,
    schema.Column("weights_sha256", pa.string(), "SHA-256 of the row's bytes"),
    schema.OPTIMIZER,
)
PART_SCHEMA = pa.schema([(c.name, c.type) for c in PART_COLUMNS])


@dataclasses.dataclass(frozen=True)
class Record:
    """What a worker returns of a finished cohort; its JSON is the commit file."""

    cohort_id: str
    files: tuple[Mapping[str, Any], ...]  # path under the zoo, bytes, sha256
    models: tuple[Mapping[str, Any], ...]  # model_id, stop_reason, diverged_step, n_snapshots
    engine: Mapping[str, str]  # name, version, isa

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "files": list(self.files), "models": list(self.models)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        return cls(value["cohort_id"], tuple(value["files"]), tuple(value["models"]), value["engine"])

    @property
    def weights(self) -> str:
        return next(f["path"] for f in self.files if f["path"].endswith(".weights.safetensors"))

    @property
    def optimizer(self) -> str | None:
        return next((f["path"] for f in self.files if f["path"].endswith(".optimizer.safetensors")), None)

    @property
    def rows(self) -> str:
        return next(f["path"] for f in self.files if f["path"].endswith(".parquet"))


def write_part(
    paths: ZooPaths,
    cohort_id: str,
    model_ids: list[str],
    snapshots: list[Snapshot],
    results: list[dict[str, Any]],
    engine: Mapping[str, str],
) -> Record:
    """Write weights [n, P] and rows of a cohort, in order of model and step. Raises OSError."""
    rows = [
        {"model_id": model_ids[s.model], "step": s.step, "epoch": s.epoch, "examples_seen": s.examples_seen,
         **s.metrics, "weights_sha256": s.sha256, "optimizer_sha256": s.optimizer_sha256}
        for s in snapshots
    ]  # fmt: skip
    contents = {"weights.safetensors": save({TENSOR: np.stack([s.weights for s in snapshots])})}
    kept = [s.slots for s in snapshots if s.slots is not None]
    if kept:
        assert len(kept) == len(snapshots)
        contents["optimizer.safetensors"] = save({SLOTS: np.stack(kept)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, PART_SCHEMA), sink, write_page_checksum=True)
    contents["parquet"] = sink.getvalue().to_pybytes()
    written = []
    for suffix, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        path = paths.parts / f"{cohort_id[:16]}-{digest[:16]}.{suffix}"
        faults.point("before_part")
        files.write_atomic(path, data)
        faults.point("after_part")
        written.append({"path": path.relative_to(paths.root).as_posix(), "bytes": len(data), "sha256": digest})
    counts = np.bincount([s.model for s in snapshots], minlength=len(model_ids)).tolist()
    ended = [{"model_id": i, "n_snapshots": n, **r} for i, n, r in zip(model_ids, counts, results, strict=True)]
    return Record(cohort_id, tuple(written), tuple(ended), dict(engine))


def commit(paths: ZooPaths, record: Record) -> None:
    """Make a part count. The first commit of a cohort wins; a second is dropped in silence."""
    paths.commits.mkdir(parents=True, exist_ok=True)
    final = paths.commit(record.cohort_id)
    scratch = final.with_name(f"{files.SCRATCH}{os.getpid()}-{final.name}")
    value = record.to_json()
    try:
        files.write_json(scratch, {**value, "sha256": streams.digest(value)})
        faults.point("before_commit")
        os.link(scratch, final)
    except FileExistsError:
        pass
    finally:
        scratch.unlink(missing_ok=True)
    files.sync_folder(paths.commits)
    faults.point("after_commit")


def read_commit(paths: ZooPaths, cohort_id: str) -> Record | None:
    """The committed record of a cohort, its files checked byte for byte; None if there is none.

    Raises IntegrityError where commit or files are damaged.
    """
    path = paths.commit(cohort_id)
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
        whole = value.pop("sha256") == streams.digest(value)
        record = Record.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(f"The commit {path.name} is damaged: this is not a record.") from None
    if not whole:
        raise IntegrityError(f"The commit {path.name} is damaged: it does not have its checksum.")
    if record.cohort_id != cohort_id:
        raise IntegrityError(f"The commit {path.name} speaks of another cohort.")
    for entry in record.files:
        part = files.inside(paths.root, entry["path"])
        if not part.is_file() or part.stat().st_size != entry["bytes"] or files.sha256(part) != entry["sha256"]:
            raise IntegrityError(f"{entry['path']} is missing or damaged.")
    return record


def set_aside(paths: ZooPaths, cohort_id: str) -> None:
    """Move a damaged commit away, so that its cohort runs again; nothing is deleted."""
    paths.damaged.mkdir(parents=True, exist_ok=True)
    number = len(list(paths.damaged.glob(f"{cohort_id}*")))
    paths.commit(cohort_id).rename(paths.damaged / f"{cohort_id}.{number}.json")


def read_rows(paths: ZooPaths, record: Record) -> pa.Table:
    """The rows of a part, in order of model and step."""
    return pq.read_table(files.inside(paths.root, record.rows), page_checksum_verification=True)


def read_weights(paths: ZooPaths, record: Record) -> np.ndarray:
    """The weights of a part, float32 [n, P], memory-mapped: a zoo need not fit into memory."""
    return shards.open_tensor(files.inside(paths.root, record.weights), TENSOR)


def read_slots(paths: ZooPaths, record: Record) -> np.ndarray | None:
    """The optimizer's slots of a part, float32 [n, 2, P], memory-mapped; None where they are not kept."""
    return None if record.optimizer is None else shards.open_tensor(files.inside(paths.root, record.optimizer), SLOTS)


class Checkpoint:
    """The builder-private state of one unfinished cohort; removed when it is committed.

    An unreadable one means to start again: it can cost time, never a result.
    """

    def __init__(self, path: Path, cohort_id: str, every_s: float) -> None:
        self.path, self.owner, self.every_s, self.last_s = path, cohort_id, every_s, time.monotonic()

    def bind(self, engine: str) -> None:
        """Refuse what another engine, version or instruction set has saved: its bits would be mixed in."""
        self.owner += f" {engine}"

    def due(self) -> bool:
        """Every so many seconds of wall clock, which no result depends on."""
        if time.monotonic() - self.last_s < self.every_s:
            return False
        self.last_s = time.monotonic()
        return True

    def save(self, state: dict[str, np.ndarray], progress: Progress) -> None:
        snapshots = [
            {"model": s.model, "step": s.step, "epoch": s.epoch, "examples_seen": s.examples_seen, "metrics": s.metrics}
            for s in progress.snapshots
        ]
        rest = {
            "owner": self.owner, "step": progress.step, "active": progress.active.tolist(),
            "stop_reason": progress.stop_reason, "diverged_step": progress.diverged_step,
            "best_loss": progress.best_loss, "best_epoch": progress.best_epoch, "snapshots": snapshots,
        }  # fmt: skip
        n_params = state["weights"].shape[1]
        kept = np.array([s.weights for s in progress.snapshots], np.float32).reshape(-1, n_params)
        text, tensors = json.dumps(rest), {**state, TENSOR: kept}
        if any(s.slots is not None for s in progress.snapshots):
            tensors[SLOTS] = np.stack([s.slots for s in progress.snapshots])
        files.write_atomic(self.path, save(tensors, {"rest": text, "sha256": _checksum(text, tensors)}))
        faults.point("after_checkpoint")

    def load(self) -> tuple[dict[str, np.ndarray], Progress] | None:
        try:
            with safe_open(self.path, "np") as file:
                metadata = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}
            text = metadata["rest"]
            whole = metadata["sha256"] == _checksum(text, state)
        except (FileNotFoundError, SafetensorError, KeyError, TypeError):
            return None
        rest = json.loads(text) if whole else {}
        if rest.pop("owner", None) != self.owner:
            return None
        kept = state.pop(TENSOR)
        slots = state.pop(SLOTS, [None] * len(kept))
        rest["active"] = np.array(rest["active"], bool)
        rows = zip(rest["snapshots"], kept, slots, strict=True)
        rest["snapshots"] = [Snapshot(**s, weights=w, slots=z) for s, w, z in rows]
        return state, Progress(**rest)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _checksum(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Of names and shapes too: a damaged header may exchange tensors of the same bytes."""
    result = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        result.update(f"{name}{tensors[name].dtype}{tensors[name].shape}".encode() + tensors[name].tobytes())
    return result.hexdigest()
