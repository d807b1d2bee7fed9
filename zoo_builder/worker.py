"""A cohort → its part: what one worker does, from arrays to a record.

Runs in this process or on a Ray worker; the worker writes files but never commits. Of models that other zoos have it trains
none again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_builder import engines
from zoo_builder.engines import devices
from zoo_builder.planning import cohorts, lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.sealing import earlier, parts
from zoo_builder.sealing.earlier import Earlier
from zoo_builder.training import fingerprint
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.progress import Snapshot
from zoo_builder.training.trainer import Trainer
from zoo_datasets import sources
from zoo_datasets.format.paths import ZooPaths

CHECKPOINT_EVERY_S = 60.0  # what a kill can cost; a checkpoint takes milliseconds


@dataclasses.dataclass(frozen=True)
class Task:
    """A cohort and where it goes. Nothing of it but the cohort can change a result."""

    cohort: Cohort
    out: str
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    parents: str | None = None  # folder of the zoo that the cohort starts from
    earlier: Mapping[int, Earlier] = dataclasses.field(
        default_factory=dict
    )  # its models that other zoos have, by place


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished cohort: its record, and the seconds it took for the log."""

    record: parts.Record
    seconds: float


def train_cohort(task: Task, shared: Mapping[sources.SourceSpec, sources.Source]) -> Done:
    """Train a cohort to its part on disk. `shared` holds the sources by their specs.

    Raises OSError where the disk is full or read-only, IntegrityError where a zoo that has models of it is damaged.
    """
    started = time.monotonic()
    cohort, paths = task.cohort, ZooPaths(Path(task.out))
    own: dict[int, list[Snapshot]] = {m: earlier.snapshots_of(cohort, m, e) for m, e in task.earlier.items()}
    ended = {m: e.result for m, e in task.earlier.items()}
    engine = next((e.engine for e in task.earlier.values()), {})
    if left := [m for m in range(len(cohort.runs)) if m not in own]:
        rest = cohort if not own else cohorts.part(cohort, left)
        checkpoint = parts.Checkpoint(paths.checkpoint(cohort.id), rest.id, task.checkpoint_every_s)
        snapshots, results, engine = train(rest, shared[cohort.runs[0].source], checkpoint, task.parents)
        for s in snapshots:
            own.setdefault(left[s.model], []).append(dataclasses.replace(s, model=left[s.model]))
        ended |= dict(zip(left, results, strict=True))
    ids = [r.id for r in cohort.runs]
    extra = [{**ended[m], "n_train": cohort.n_train} for m in range(len(ids))]
    record = parts.write_part(paths, cohort.id, ids, [s for m in range(len(ids)) for s in own[m]], extra, engine)
    return Done(record, time.monotonic() - started)


def fingerprinted(task: Task, shared: Mapping[sources.SourceSpec, sources.Source]) -> dict[str, Any]:
    """The fingerprint of a cohort's first model, on the worker's device."""
    parents = Path(task.parents) if task.parents else None
    return fingerprint.one(task.cohort, shared[task.cohort.runs[0].source], parents)


def train(
    cohort: Cohort,
    source: sources.Source,
    checkpoint: parts.Checkpoint | None = None,
    parents: str | Path | None = None,
) -> tuple[list[Snapshot], list[dict[str, Any]], dict[str, str]]:
    """Snapshots in order of model and step, each model's result, and the engine that made them."""
    data = data_of(cohort, source)
    state = lineage.load(parents, [r.start for r in cohort.runs])
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data, state), cohort.device)
    isa = devices.isa(backend.name, cohort.device)
    if checkpoint is not None:
        checkpoint.bind(f"{backend.name}, {backend.version}, {isa}")
    snapshots, results = Trainer(cohort, source, data, backend, state).run(checkpoint)
    return snapshots, results, {"name": backend.name, "version": backend.version, "isa": isa}
