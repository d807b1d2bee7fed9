"""A zoo's folder → how far it is, in a few lines. Reads only small files."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_datasets.core import files, records
from zoo_datasets.errors import ZooNotFoundError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths

MOST_RECORD_BYTES = 100_000_000  # a cohort of ten thousand models takes a hundredth


@dataclasses.dataclass(frozen=True)
class _Planned:
    models: int
    cohorts: int
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what is not asked for here


@dataclasses.dataclass(frozen=True)
class _Trained:
    diverged_step: int | None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what is not asked for here


@dataclasses.dataclass(frozen=True)
class _Commit:
    models: tuple[_Trained, ...]
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what is not asked for here


@dataclasses.dataclass(frozen=True)
class _Failure:
    cohort_id: str
    runs: tuple[str, ...]
    error: str
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what is not asked for here


def describe(paths: ZooPaths) -> list[str]:
    """Lines that say what is done and what is missing. Raises ZooNotFoundError, IntegrityError."""
    if paths.manifest.exists():
        counts = Manifest.read(paths.root).counts
        done = f"{counts.n_models:,} models, {counts.n_snapshots:,} snapshots, {counts.diverged or 0:,} diverged"
        return [f"{paths.root}: finished; {done}"]
    planned = _read(_Planned, paths.recipe)
    if planned is None:
        raise ZooNotFoundError(f"{paths.root} holds no zoo and no build. Name the folder given to --out.")
    # A killed driver leaves half a commit under another name, whose cohort is trained again.
    there = [p for p in sorted(paths.commits.glob("*.json")) if not p.name.startswith(files.SCRATCH)]
    commits = [c for p in there if (c := _read(_Commit, p)) is not None]
    models = [m for c in commits for m in c.models]
    diverged = sum(m.diverged_step is not None for m in models)
    lines = [
        f"{paths.root}: {'being built' if _locked(paths) else 'not finished, nobody is building it'}; "
        f"{len(models):,} of {planned.models:,} models, {len(commits):,} of {planned.cohorts:,} cohorts, {diverged:,} diverged"
    ]
    for path in sorted(paths.failed.glob("*.json")):
        failure = _read(_Failure, path)
        if failure is not None:
            lines.append(f"failed: cohort {failure.cohort_id[:16]}, {len(failure.runs)} models: {failure.error}")
    return lines


def _read(kind: type, path: Path) -> Any:
    """A record of the builder's own; None of a damaged one, whose cohort the next build trains again."""
    try:
        return records.decode(kind, json.loads(files.read_bounded(path, MOST_RECORD_BYTES)))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _locked(paths: ZooPaths) -> bool:
    try:
        with paths.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
