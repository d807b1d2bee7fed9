"""Snapshots of a cohort → its private part and its commit, each whole or not there.

A worker writes a part (weights as safetensors, rows as Arrow) under a name that holds
the hash of its bytes, and returns a `Record`. It never commits: the driver alone turns a
record into the small commit file that means "this cohort is done"; the first one wins.
A part is always rewritten, because "it exists, so skip it" keeps a damaged file for ever.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from zoo_builder.sealing import faults, rows
from zoo_builder.training.progress import Progress, Snapshot
from zoo_builder.training.stop_rules import Trend
from zoo_datasets.core import files, streams
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import schema, shards
from zoo_datasets.format.paths import ZooPaths

# How a part and its record are laid out. Raise it with any change: a half-built folder of another
# layout is trained again, never mixed in. Records without one are of layout 1, whose rows were Parquet.
LAYOUT = 2
# What disks without hard links say to one: FAT and network disks, containers, a folder of too many.
NO_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EXDEV,
    errno.EINVAL,
}
TENSOR = "snapshots"
SLOTS = "slots"  # of the optimizer, [n, 2, P], where the recipe keeps them
PART_COLUMNS = (
    schema.Column("model_id", pa.string(), "model of the row"),
    *(c for c in schema.SNAPSHOT_HEAD if c.name in ("step", "epoch", "examples_seen")),
    *schema.METRICS,
    schema.Column("weights_sha256", pa.string(), "SHA-256 of the row's bytes"),
    schema.OPTIMIZER,
)


def part_schema(attack: bool) -> pa.Schema:
    """Of the rows of a part; those of attacks by class are there where the recipe asks for them."""
    return pa.schema([(c.name, c.type) for c in (*PART_COLUMNS, *(schema.ATTACK if attack else ()))])


@dataclasses.dataclass(frozen=True)
class Record:
    """What a worker returns of a finished cohort; its JSON is the commit file."""

    cohort_id: str
    files: tuple[Mapping[str, Any], ...]  # path under the zoo, bytes, sha256
    models: tuple[Mapping[str, Any], ...]  # model_id, stop_reason, diverged_step, n_snapshots
    engine: Mapping[str, str]  # name, version, isa

    def to_json(self) -> dict[str, Any]:
        record = {**dataclasses.asdict(self), "files": list(self.files), "models": list(self.models)}
        return {"layout": LAYOUT, **record}

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
        return next(f["path"] for f in self.files if f["path"].endswith(".arrow"))


def write_part(
    paths: ZooPaths,
    cohort_id: str,
    model_ids: list[str],
    snapshots: list[Snapshot],
    results: list[dict[str, Any]],
    engine: Mapping[str, str],
) -> Record:
    """Write weights [n, P] and rows of a cohort, in order of model and step. Raises OSError."""
    contents = {"weights.safetensors": _tensor(TENSOR, [s.weights for s in snapshots])}
    slots = [s.slots for s in snapshots if s.slots is not None]
    if slots:
        assert len(slots) == len(snapshots)
        contents["optimizer.safetensors"] = _tensor(SLOTS, slots)
    sink, of_snapshots = pa.BufferOutputStream(), [rows.of_snapshot(model_ids[s.model], s) for s in snapshots]
    columns = part_schema(schema.ATTACK[0].name in of_snapshots[0])
    with pa.ipc.new_file(sink, columns) as writer:
        writer.write_table(pa.Table.from_pylist(of_snapshots, columns))
    table = sink.getvalue()
    contents["arrow"] = lambda: iter([table])
    written = [_write(paths, cohort_id, suffix, pieces) for suffix, pieces in contents.items()]
    counts = np.bincount([s.model for s in snapshots], minlength=len(model_ids)).tolist()
    ended = [{"model_id": i, "n_snapshots": n, **r} for i, n, r in zip(model_ids, counts, results, strict=True)]
    return Record(cohort_id, tuple(written), tuple(ended), dict(engine))


Pieces = Callable[[], Iterator[Any]]  # the bytes of a file, in order


def _tensor(name: str, arrays: list[np.ndarray]) -> Pieces:
    """A file of one tensor that these arrays are the rows of."""
    shape = (len(arrays), *arrays[0].shape)
    return lambda: shards.pieces({name: shape}, lambda _: (array[None] for array in arrays))


def _write(paths: ZooPaths, cohort_id: str, suffix: str, pieces: Pieces) -> dict[str, Any]:
    """One file under a name that holds the hash of its bytes; how it enters the record."""
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    path = paths.parts / f"{cohort_id[:16]}-{digest.hexdigest()[:16]}.{suffix}"
    faults.point("before_part")
    with files.atomic(path) as out:
        size = sum(out.write(piece) for piece in pieces())
    faults.point("after_part")
    return {"path": path.relative_to(paths.root).as_posix(), "bytes": size, "sha256": digest.hexdigest()}


def commit(paths: ZooPaths, record: Record) -> None:
    """Make a part count. The first commit of a cohort wins; a second is dropped in silence."""
    files.make_folder(paths.commits)
    final = paths.commit(record.cohort_id)
    scratch = final.with_name(f"{files.SCRATCH}{os.getpid()}-{final.name}")
    value = record.to_json()
    files.write_json(scratch, {**value, "sha256": streams.digest(value)})
    faults.point("before_commit")
    try:
        os.link(scratch, final)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # A disk without hard links: the driver holds the output's lock, so nobody commits in between.
        if not final.exists():
            scratch.replace(final)
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
        layout = value.get("layout", 1)
        record = Record.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(f"The commit {path.name} is damaged: this is not a record.") from None
    if not whole:
        raise IntegrityError(f"The commit {path.name} is damaged: it does not have its checksum.")
    if layout != LAYOUT:
        raise IntegrityError(
            f"The commit {path.name} is of another version of the builder (layout {layout}, not {LAYOUT})."
        )
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


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a part, memory-mapped, in order of model and step."""

    weights: np.ndarray  # float32 [n, P]
    slots: np.ndarray | None  # float32 [n, 2, P] of the optimizer, where the recipe keeps them


def read_rows(paths: ZooPaths, record: Record) -> pa.Table:
    """The rows of a part, in order of model and step: held, not mapped, for of a thousand parts each mapped file would stay open.

    Raises IntegrityError, OSError."""
    return pa.ipc.open_file(pa.BufferReader(files.inside(paths.root, record.rows).read_bytes())).read_all()


def open_weights(paths: ZooPaths, record: Record) -> Weights:
    """The weights of a part; none are read yet. Raises IntegrityError, OSError."""
    weights = shards.open_tensor(files.inside(paths.root, record.weights), TENSOR)
    if record.optimizer is None:
        return Weights(weights, None)
    return Weights(weights, shards.open_tensor(files.inside(paths.root, record.optimizer), SLOTS))


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
        """Every so many seconds of wall clock after the last, which no result depends on."""
        return time.monotonic() - self.last_s >= self.every_s

    def save(self, state: dict[str, np.ndarray], progress: Progress) -> None:
        snapshots = [
            {"model": s.model, "step": s.step, "epoch": s.epoch, "examples_seen": s.examples_seen, "metrics": s.metrics}
            for s in progress.snapshots
        ]
        rest = {
            "owner": self.owner, "step": progress.step, "active": progress.active.tolist(),
            "stop_reason": progress.stop_reason, "diverged_step": progress.diverged_step,
            "best_loss": progress.best_loss, "best_epoch": progress.best_epoch, "snapshots": snapshots,
            "reached": sorted(progress.reached),
            "trends": {m: dataclasses.asdict(trend) for m, trend in progress.trends.items()},
        }  # fmt: skip
        n_params = state["weights"].shape[1]
        kept = np.array([s.weights for s in progress.snapshots], np.float32).reshape(-1, n_params)
        text, tensors = json.dumps(rest), {**state, TENSOR: kept}
        slots = [s.slots for s in progress.snapshots if s.slots is not None]
        if slots:
            assert len(slots) == len(progress.snapshots), "optimizer state is published at every snapshot or at none"
            tensors[SLOTS] = np.stack(slots)
        files.write_atomic(self.path, save(tensors, {"rest": text, "sha256": _checksum(text, tensors)}))
        self.last_s = time.monotonic()  # now: one that takes longer than the time between two would follow itself
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
        rest["trends"] = {int(m): Trend(**trend) for m, trend in rest.pop("trends", {}).items()}
        rest["reached"] = set(rest.pop("reached", []))
        rest["active"] = np.array(rest["active"], bool)
        rows = zip(rest["snapshots"], kept, slots, strict=True)
        rest["snapshots"] = [Snapshot(**s, weights=w, slots=z) for s, w, z in rows]
        return state, Progress(**rest)


def _checksum(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Of names and shapes too: a damaged header may exchange tensors of the same bytes."""
    result = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        result.update(f"{name}{tensors[name].dtype}{tensors[name].shape}".encode())
        result.update(np.ascontiguousarray(tensors[name]).data)
    return result.hexdigest()
