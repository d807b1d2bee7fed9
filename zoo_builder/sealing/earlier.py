"""Sealed zoos that have some of a plan's networks → what need not be trained again.

In:  folders of zoos that were built from recipes: a shorter prefix of this one, fewer levels, what another machine built.
Out: for each cohort an `Earlier` by the place of those of its runs that are there; and their snapshots, every row compared
     with its hash.

A run's id says all that it was asked to be; its row says who trained it, and on which data. Bits of the native engine do not
depend on who is trained beside whom: its models are taken one by one. Those of torch's do: whole cohorts are taken.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_builder.engines import devices
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training.progress import Snapshot
from zoo_datasets.core import files
from zoo_datasets.errors import BuildError, IntegrityError
from zoo_datasets.format import schema, shards
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import optimizer_shard
from zoo_datasets.format.tables import read_table

Row = Mapping[str, Any]

# Columns of a model beside its id: its cohort, what that adds to a run, who trained, and how it ended.
OF_ENGINE = {"name": "engine", "version": "engine_version", "isa": "isa"}
ENDED = ("stop_reason", "diverged_step")
NEEDED = ("model_id", "cohort_id", "architecture_id", "layout", "n_train", "device", "source_sha256", "n_snapshots", *OF_ENGINE.values(), *ENDED)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A model that is there: who trained it, how it ended, and the rows of its snapshots, by step."""

    root: Path
    engine: Mapping[str, str]  # name, version, isa
    result: Mapping[str, Any]  # stop_reason, diverged_step
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class _Zoo:
    root: Path
    models: Mapping[str, Row]  # by id
    places: Mapping[str, list[int]]  # of each model's snapshots in their table
    snapshots: pa.Table  # in one piece: to take a few rows of many chunks copies them all


class Zoos:
    """Sealed zoos, by the ids of their models; of one that lies in two of them the first counts."""

    def __init__(self, roots: Sequence[Path]) -> None:
        """Raises ZooNotFoundError, IntegrityError, FormatVersionError; BuildError of a zoo that no recipe made."""
        self.zoos = [_read(root.absolute()) for root in roots]

    def of(self, cohort: Cohort) -> dict[int, Earlier]:
        """Place in the cohort → the model that has the bits which training it here would give. Raises IntegrityError."""
        found = {
            m: zoo
            for m, run in enumerate(cohort.runs)
            for zoo in reversed(self.zoos)
            if _fits(zoo.models.get(run.id), cohort)
        }
        if cohort.engine != "native" and (len(found) < len(cohort.runs) or len(set(map(id, found.values()))) > 1):
            return {}
        return {m: _earlier(zoo, cohort.runs[m].id) for m, zoo in found.items()}

    def why_not(self, cohorts: Sequence[Cohort]) -> str:
        """Why none of their models serves a plan, as a sentence."""
        for cohort in cohorts:
            for zoo in self.zoos:
                for row in (zoo.models[run.id] for run in cohort.runs if run.id in zoo.models):
                    there = f"{row['engine_version']} on {row['device']} ({row['isa']}), cohort {row['cohort_id'][:16]}"
                    return (
                        f"Model {row['model_id']} is in {zoo.root} too, trained by {there}: its bits are not those of "
                        f"{cohort.engine} on {cohort.device}, cohort {cohort.id[:16]}, or its images are others."
                    )
        return "Their recipes ask for other models."


def _fits(row: Row | None, cohort: Cohort) -> bool:
    """Whether a model that was asked for alike has the bits that training it in this cohort would give."""
    if row is None:
        return False
    if cohort.engine != "native":
        return bool(row["cohort_id"] == cohort.id)  # which names engine, device, data and companions
    from zoo_builder.engines.native import VERSION

    there = (row[name] for name in ("engine_version", "isa", "architecture_id", "layout", "n_train", "source_sha256"))
    isa, made = devices.isa(cohort.engine, cohort.device), cohort.architecture
    return tuple(there) == (VERSION, isa, made.id, made.layout_id, cohort.n_train, cohort.source_sha256)


def _read(root: Path) -> _Zoo:
    manifest = Manifest.read(root)
    for file in manifest.files.under("data/"):
        file.verify(root)
    models, snapshots = (read_table(root, manifest, config) for config in ("models", "snapshots"))
    if missing := [name for name in NEEDED if name not in models.column_names]:
        raise BuildError(
            f"{root} does not say who trained its models (no column {', '.join(missing)}): no recipe made it. Leave it "
            "out of --from."
        )
    places: dict[str, list[int]] = {}
    for place, id in enumerate(snapshots["model_id"].to_pylist()):
        places.setdefault(id, []).append(place)
    rows = {row["model_id"]: row for row in models.select(NEEDED).to_pylist()}
    return _Zoo(root, rows, places, snapshots.combine_chunks())


def _earlier(zoo: _Zoo, id: str) -> Earlier:
    row, places = zoo.models[id], zoo.places.get(id, [])
    if len(places) != row["n_snapshots"]:
        raise IntegrityError(
            f"Model {id} of {zoo.root} has {len(places)} snapshots, and its row says {row['n_snapshots']}: the zoo is "
            "damaged. Fetch or build it again."
        )
    own = sorted(zoo.snapshots.take(places).to_pylist(), key=lambda s: int(s["step"]))
    engine = {name: row[column] for name, column in OF_ENGINE.items()}
    return Earlier(zoo.root, engine, {name: row[name] for name in ENDED}, tuple(own))


def snapshots_of(cohort: Cohort, place: int, model: Earlier) -> list[Snapshot]:
    """The snapshots of a model that is there, as training would give them. Raises IntegrityError, OSError."""
    schedule = cohort.runs[place].snapshots
    names = [c.name for c in (*schema.METRICS, *(schema.ATTACK if schedule.attack_per_class else ()))]
    found = []
    for row in model.rows:
        metrics = {name: row[name] for name in names}
        weights = _vector(model.root, row["shard"], row["tensor"], row["row"])
        slots = None
        if schedule.keep_optimizer:
            beside = optimizer_shard(row["shard"])
            slots = np.stack([_vector(model.root, beside, f"{row['tensor']}.slot{i}", row["row"]) for i in (1, 2)])
        snapshot = Snapshot(place, row["step"], row["epoch"], row["examples_seen"], metrics, weights, slots)
        if (snapshot.sha256, snapshot.optimizer_sha256) != (row["weights_sha256"], row.get("optimizer_sha256")):
            raise IntegrityError(
                f"Model {row['model_id']}, step {row['step']}, of {model.root} differs from its checksum: the zoo is damaged. "
                "Fetch or build it again, or leave it out of --from."
            )
        found.append(snapshot)
    return found


def _vector(root: Path, shard: str, tensor: str, row: int) -> np.ndarray:
    mapped = _opened(files.inside(root, shard), tensor)
    if not 0 <= row < len(mapped):
        raise IntegrityError(
            f"{shard} of {root} has {len(mapped)} rows, and row {row} is asked for: the zoo is damaged."
        )
    return np.array(mapped[row])


@functools.lru_cache(maxsize=64)  # a cohort's models lie in few shards
def _opened(path: Path, tensor: str) -> np.ndarray:
    return shards.open_tensor(path, tensor)
