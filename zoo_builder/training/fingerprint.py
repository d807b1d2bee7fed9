"""Cohorts → what another engine or machine must agree with, small enough for a manifest.

Bits differ between engines and instruction sets; what a model starts from and sees does
not. A fingerprint keeps, for a few models, hashes of initialization, training examples and
batch order (equal everywhere) and the weights after 30 steps (equal within 1e-5), and for
the population the mean test accuracy with its standard error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_builder import engines
from zoo_builder.planning import lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets import sources

MODELS = 4  # from as many cohorts, evenly over the plan
STEPS = 30  # rounding has not yet grown; later, trajectories of equal quality part
VALUES = 2000  # of a weight vector, at equal distances
TOLERANCE = 1e-5


def of(
    cohorts: list[Cohort], loaded: Mapping[sources.SourceSpec, sources.Source], parents: Path | None = None
) -> list[dict[str, Any]]:
    """Fingerprints of one model in each of a few cohorts."""
    chosen = [cohorts[i * len(cohorts) // MODELS] for i in range(MODELS)] if len(cohorts) > MODELS else cohorts
    return [_one(c, loaded[c.runs[0].source], parents) for c in chosen]


def _one(cohort: Cohort, source: sources.Source, parents: Path | None) -> dict[str, Any]:
    run, data = cohort.runs[0], data_of(cohort, source)
    state = lineage.load(parents, [r.start for r in cohort.runs])
    job = job_of(cohort, source, data.pool, state)
    backend = engines.open_backend(cohort.engine, job, cohort.device)
    trainer = Trainer(cohort, source, data, backend, state)
    steps = min(STEPS, *cohort.steps)
    weights = trainer.weights_after(steps)[0]
    seen = data.examples[0]
    order = sources.epoch_order(
        run.keys["order"], trainer.first // trainer.per_epoch, len(source.train.labels), seen.rows
    )
    return {
        "model_id": run.id,
        "init_sha256": _hash(job.initial[0]),
        "examples_sha256": _hash(seen.rows.astype("<i8"), seen.labels.astype("<i8"), seen.poisoned),
        "order_sha256": _hash(order.astype("<i8")),
        "steps": steps,
        "weights": base64.b64encode(weights[:: _stride(len(weights))].astype("<f4").tobytes()).decode(),
    }


def population(models: pa.Table) -> dict[str, Any]:
    """Mean test accuracy of the published models, its standard error over init groups, and how many."""
    accuracy = models["test_accuracy"].to_numpy().astype(float)
    groups = np.unique(models["init_group"].to_pylist(), return_inverse=True)[1]
    means = np.bincount(groups, accuracy) / np.bincount(groups)
    error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None
    return {"test_accuracy": float(means.mean()), "standard_error": error, "init_groups": len(means)}


def differences(ours: list[Mapping[str, Any]], theirs: list[Mapping[str, Any]]) -> list[str]:
    """What two machines disagree about, in words; empty where they agree."""
    problems = []
    for a, b in zip(ours, theirs, strict=False):
        for what in ("init", "examples", "order"):
            if a[f"{what}_sha256"] != b[f"{what}_sha256"]:
                problems.append(f"model {a['model_id']}: {what} differs; it must be the same bits on every machine")
        x, y = _weights(a), _weights(b)
        distance = float(np.abs(x - y).max(initial=0.0)) if x.shape == y.shape else np.inf
        if not distance <= TOLERANCE:
            problems.append(
                f"model {a['model_id']}: weights after {a['steps']} steps differ by {distance:.1e} > {TOLERANCE:g}"
            )
    if [f["model_id"] for f in ours] != [f["model_id"] for f in theirs]:
        problems.append("the plans differ: other models were fingerprinted")
    return problems


def _weights(fingerprint: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(fingerprint["weights"]), "<f4")


def _stride(n: int) -> int:
    return max(1, -(-n // VALUES))


def _hash(*arrays: np.ndarray) -> str:
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()
