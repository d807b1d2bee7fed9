"""A zoo's folder → how far it is, in a few lines. Reads only small files."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from zoo_datasets.errors import ZooNotFoundError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths


def describe(paths: ZooPaths) -> list[str]:
    """Lines that say what is done and what is missing. Raises ZooNotFoundError."""
    if paths.manifest.exists():
        counts = Manifest.read(paths.root).counts
        done = f"{counts.n_models:,} models, {counts.n_snapshots:,} snapshots, {counts.diverged or 0:,} diverged"
        return [f"{paths.root}: finished; {done}"]
    try:
        recipe = json.loads(paths.recipe.read_bytes())
    except (FileNotFoundError, ValueError):
        raise ZooNotFoundError(f"{paths.root} holds no zoo and no build. Name the folder given to --out.") from None
    records = [r for p in sorted(paths.commits.glob("*.json")) if (r := _commit(p)) is not None]
    models = [m for r in records for m in r["models"]]
    diverged = sum(m["diverged_step"] is not None for m in models)
    lines = [
        f"{paths.root}: {'being built' if _locked(paths) else 'not finished, nobody is building it'}; "
        f"{len(models):,} of {recipe['models']:,} models, {len(records):,} of {recipe['cohorts']:,} cohorts, {diverged:,} diverged"
    ]
    for path in sorted(paths.failed.glob("*.json")):
        failure = json.loads(path.read_bytes())
        lines.append(f"failed: cohort {failure['cohort_id'][:16]}, {len(failure['runs'])} models: {failure['error']}")
    return lines


def _commit(path: Path) -> Any:
    """A commit's record; None for a damaged one, whose cohort the next build trains again."""
    try:
        record = json.loads(path.read_bytes())
        return record if isinstance(record.get("models"), list) else None
    except (ValueError, AttributeError):
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
