"""Another zoo → the snapshots that a grid's runs start from.

In:  the folder of a sealed zoo; its tables are compared with their SHA-256 when it is opened.
Out: `Parents`: its models in plan order and where their snapshots lie; a `Start` for a snapshot
of one of them; and for the starts of a cohort their `StartState`, every row compared with its hash.

A child goes on where its parent stood: `passes` and `inside` say where the parent's streams
(batch order, dropout, augmentation) were, `updates` how often its optimizer had been called.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_builder.recipe import settings
from zoo_datasets.core import files
from zoo_datasets.errors import GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.format import shards
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths, optimizer_shard
from zoo_datasets.format.tables import read_table
from zoo_datasets.sources import steps_per_epoch

# What the slots of an optimizer mean; plain SGD has none that matters.
MOMENTS = {"sgd": "none", "momentum": "momentum", "nesterov": "momentum", "adam": "Adam", "adamw": "Adam", "rmsprop": "RMSProp"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Start:
    """The snapshot that a run starts from, and how the run continues it."""

    zoo: str  # the parent zoo's id
    model_id: str
    step: int
    sha256: str  # of its weights
    optimizer_sha256: str | None  # of the slots to go on with; None: they start at zero
    updates: int  # that these slots have seen; 0 where they start at zero
    passes: int  # whole passes over the training images behind it, its ancestors' included
    inside: int  # updates into the next one
    root: str  # first ancestor
    relation: str  # "continuation": by its recipe the parent trained longer; "variation": anything else
    place: tuple[str, str, int] | None = dataclasses.field(default=None, compare=False)  # shard, tensor, row
    batches: tuple[int, int] | None = dataclasses.field(default=None, compare=False)  # the parent's n_train, batch_size
    trained: tuple[str | None, ...] | None = dataclasses.field(
        default=None, compare=False
    )  # on what, and by what: `trained_by`

    @property
    def identity(self) -> list[Any]:
        """What a run's id is made of: contents, not where they lie."""
        return [self.model_id, self.step, self.sha256, self.optimizer_sha256, self.updates, self.passes, self.inside]


def trained_by(
    source_sha256: str | None, engine: str | None, version: str | None, device: str | None, isa: str | None
) -> tuple[str | None, ...]:
    """What bits depend on besides the recipe: the data itself, and the engine; the native one gives the same on every CPU."""
    return (source_sha256, engine, version, device, None if engine == "native" else isa)


@dataclasses.dataclass(frozen=True)
class StartState:
    """What the models of a cohort start from: three matrices (M, P) float32."""

    weights: np.ndarray
    slot1: np.ndarray
    slot2: np.ndarray


@dataclasses.dataclass(frozen=True)
class Parents:
    """A zoo to start from. `rows` are its models without weights, in plan order."""

    root: Path
    zoo: str
    digests: Mapping[str, str]
    layer_lists: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    snapshots: Mapping[str, Mapping[int, Mapping[str, Any]]]  # model id → step → row of `snapshots`

    def step(self, row: Mapping[str, Any], epoch: float | None, step: int | None, place: int | None) -> int | None:
        """The step that is meant by an epoch of a parent, by a step, or by a place among its snapshots; None where it has no such snapshot."""
        there = sorted(self.snapshots[row["model_id"]])
        if place is not None:
            return there[place] if -len(there) <= place < len(there) else None
        if step is None:
            step = round((epoch or 0.0) * steps_per_epoch(row["n_train"], row["batch_size"]))
        return step if step in there else None

    def start(self, row: Mapping[str, Any], step: int, keeps: bool, relation: str) -> Start:
        """The start at a step of a parent; `keeps`: with its optimizer's slots. Raises KeyError."""
        snapshot = self.snapshots[row["model_id"]][step]
        passes, inside = divmod(
            (row.get("stream_step") or 0) + step, steps_per_epoch(row["n_train"], row["batch_size"])
        )
        return Start(
            zoo=self.zoo, model_id=row["model_id"], step=step, sha256=snapshot["weights_sha256"],
            optimizer_sha256=snapshot.get("optimizer_sha256") if keeps else None,
            updates=(row.get("optimizer_step") or 0) + step if keeps else 0, passes=passes, inside=inside,
            root=row["lineage_root"] or row["model_id"], relation=relation, place=self._place(snapshot),
            batches=(row["n_train"], row["batch_size"]),
            trained=trained_by(*(row.get(name) for name in ("source_sha256", "engine", "engine_version", "device", "isa"))),
        )  # fmt: skip

    def placed(self, start: Start) -> Start:
        """A start read from a child's row, with the place of its snapshot here. Raises IntegrityError."""
        snapshot = self.snapshots.get(start.model_id, {}).get(start.step)
        if snapshot is None or snapshot["weights_sha256"] != start.sha256:
            raise IntegrityError(
                f"{self.root} is not the zoo that model {start.model_id}, step {start.step}, was taken from: it has "
                f"{'other weights' if snapshot else 'no such snapshot'} there."
            )
        return dataclasses.replace(start, place=self._place(snapshot))

    @staticmethod
    def _place(row: Mapping[str, Any]) -> tuple[str, str, int]:
        return row["shard"], row["tensor"], row["row"]

    def epochs(self) -> list[float]:
        """The epochs that the first models have snapshots of, ascending."""
        return sorted({s["epoch"] for r in self.rows[:16] for s in self.snapshots[r["model_id"]].values()})


# What a model's row must say for it to go on: how it was trained, and where its streams are.
NEEDED = (
    *(s.name for s in settings.SETTINGS.values() if not s.later), "plan_index", "n_train", "lineage_root", "split",
    *(f"replicate_{name}" for name in ("init", "order", "subset")),
    *(f"{stream}_key" for stream in ("init", "order", "subset", "augment", "dropout")), "snapshot_schedule",
)  # fmt: skip
COUNTED = ("n_train", "batch_size")


def _counts(column: pa.ChunkedArray) -> bool:
    """Whether every model has a number of at least 1."""
    return column.null_count == 0 and pa.types.is_integer(column.type) and pc.all(pc.greater_equal(column, 1)).as_py()


def open_parents(name: str, where: str = "init.zoo") -> Parents:
    """The zoo in the folder `name`: an id under the working directory, or any path.

    Raises GridError where there is none, IntegrityError where its tables are damaged.
    """
    root = Path(name)
    try:
        manifest = Manifest.read(root)
    except ZooNotFoundError as error:
        raise GridError(
            f"{where}: the parent zoo {name!r} is not here: {error} Build it, fetch it with `python -m zoo_datasets "
            "download`, or name its folder."
        ) from None
    stamp = files.sha256(ZooPaths(root).manifest)
    return _open(root.absolute(), stamp, manifest.zoo)


@functools.lru_cache(maxsize=4)  # a worker opens it once, not for every cohort
def _open(root: Path, stamp: str, zoo: str) -> Parents:
    manifest = Manifest.read(root)
    for file in manifest.files.under("data/"):
        file.verify(root)
    table = read_table(root, manifest, "models")
    missing = [n for n in NEEDED if n not in table.column_names]
    missing += [n for n in COUNTED if n not in missing and not _counts(table[n])]
    if missing:
        raise GridError(
            f"{zoo} does not say how its models were trained (no column {', '.join(missing)}), so nothing can go on from "
            "them. Name a zoo that was built from a recipe."
        )
    rows = table.to_pylist()
    kept = ["optimizer_sha256"] if manifest.optimizer_state else []
    columns = ["model_id", "step", "epoch", "shard", "tensor", "row", "weights_sha256", *kept]
    snapshots: dict[str, dict[int, dict[str, Any]]] = {r["model_id"]: {} for r in rows}
    for s in read_table(root, manifest, "snapshots", columns).to_pylist():
        snapshots[s["model_id"]][s["step"]] = s
    in_order = tuple(sorted(rows, key=lambda r: r["plan_index"]))
    return Parents(root, zoo, manifest.digests, manifest.layer_lists, in_order, snapshots)


def load(root: Path | str | None, starts: Sequence[Start | None]) -> StartState | None:
    """The state that a cohort's starts name, from the zoo at `root`; None of runs without parents. Raises IntegrityError."""
    if starts[0] is None:
        return None
    assert root is not None
    weights, slot1, slot2 = [], [], []
    opened: dict[tuple[str, str], np.ndarray] = {}

    def row(shard: str, tensor: str, number: int) -> np.ndarray:
        if (shard, tensor) not in opened:
            opened[shard, tensor] = shards.open_tensor(files.inside(Path(root), shard), tensor)
        return np.array(opened[shard, tensor][number])

    for start in starts:
        assert start is not None
        assert start.place is not None
        shard, tensor, number = start.place
        weights.append(row(shard, tensor, number))
        _compare(root, start, "weights", start.sha256, weights[-1])
        if start.optimizer_sha256 is None:
            slot1.append(np.zeros_like(weights[-1]))
            slot2.append(np.zeros_like(weights[-1]))
            continue
        beside = optimizer_shard(shard)
        slot1.append(row(beside, f"{tensor}.slot1", number))
        slot2.append(row(beside, f"{tensor}.slot2", number))
        _compare(root, start, "optimizer state", start.optimizer_sha256, slot1[-1], slot2[-1])
    return StartState(np.stack(weights), np.stack(slot1), np.stack(slot2))


def _compare(root: Path | str, start: Start, what: str, wanted: str, *rows: np.ndarray) -> None:
    if hashlib.sha256(b"".join(r.tobytes() for r in rows)).hexdigest() != wanted:
        raise IntegrityError(
            f"The {what} of model {start.model_id}, step {start.step}, of {root} differ from their checksum: the parent "
            "zoo is damaged. Build it again."
        )
