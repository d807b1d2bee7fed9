"""Cohorts → what another engine or machine must agree with, small enough for a manifest.

Bits differ between engines and instruction sets; what a model starts from and sees does
not. A fingerprint keeps, for a few models, hashes of initialization, training examples and
batch order (equal everywhere) and the weights after 30 steps (equal within what `apart` allows), and
for the population the mean test accuracy with its standard error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_builder import engines
from zoo_builder.planning import lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.recipe.parameterization import largest_rate
from zoo_builder.training.inputs import data_of, epoch_order, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets import sources

MODELS = 4  # from as many cohorts, evenly over the plan
STEPS = 30  # rounding has not yet grown; later, trajectories of equal quality part
VALUES = 2000  # of a weight vector, at equal distances

# How far the weights of two engines may part in STEPS steps. With SGD and Adam nearly all agree within 1e-5. A few do
# not, however good the arithmetic: Adam and RMSprop divide by the root of a second moment, and where a gradient is all
# but zero (a bias before batch norm, a pixel that never changes) rounding decides its sign; and with any optimizer a
# ReLU or a maximum at a tie may fall the other way, which moves the weights into one unit of, say, eight. RMSprop's
# first steps are of ten learning rates and carry it on to the other weights, 98 of 100 of which stay within .05 rates.
# `benchmarks/agreement.py` measures all of it.
WITHIN, SHARE = 1e-5, 0.75
RATES_WITHIN = {"rmsprop": 0.1}
# The others are bounded by what steps of other signs can do, in learning rates: Adam's are of about one, so 30 of them
# part by 60; RMSprop's t-th is of up to 10/√t (alpha .99), in sum 220; a gradient is about 1, and momentum adds ten.
RATES_APART = {"sgd": 1, "momentum": 10, "nesterov": 10, "adam": 60, "adamw": 60, "rmsprop": 220}


def of(
    cohorts: list[Cohort], loaded: Mapping[sources.SourceSpec, sources.Source], parents: Path | None = None
) -> list[dict[str, Any]]:
    """Fingerprints of one model in each of a few cohorts."""
    return [one(c, loaded[c.runs[0].source], parents) for c in chosen(cohorts)]


def chosen(cohorts: Sequence[Cohort]) -> Sequence[Cohort]:
    """The cohorts whose first models have a fingerprint."""
    return [cohorts[i * len(cohorts) // MODELS] for i in range(MODELS)] if len(cohorts) > MODELS else cohorts


def one(cohort: Cohort, source: sources.Source, parents: Path | None) -> dict[str, Any]:
    """The fingerprint of a cohort's first model."""
    run, data = cohort.runs[0], data_of(cohort, source)
    state = lineage.load(parents, [r.start for r in cohort.runs])
    job = job_of(cohort, source, data, state)
    backend = engines.open_backend(cohort.engine, job, cohort.device)
    trainer = Trainer(cohort, source, data, backend, state)
    steps = min(STEPS, *cohort.steps)
    weights = trainer.weights_after(steps)[0]
    seen = data.examples[0]
    order = epoch_order(run, trainer.first // trainer.per_epoch, source, seen)
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


def allowed(settings: Mapping[str, Any]) -> str:
    """What two engines must agree in after STEPS steps, in words."""
    return f"{_near(settings):g} for {SHARE:.0%} of the weights and {_rest(settings):.1g} for any ({settings['optimizer']})"


def _near(settings: Mapping[str, Any]) -> float:
    return max(WITHIN, RATES_WITHIN.get(settings["optimizer"], 0.0) * largest_rate(settings))


def _rest(settings: Mapping[str, Any]) -> float:
    return max(WITHIN, RATES_APART[settings["optimizer"]] * largest_rate(settings))


def apart(settings: Mapping[str, Any], ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """How two vectors of a model, after STEPS steps or fewer, differ by more than rounding; None where they do not."""
    if ours.shape != theirs.shape:
        return f"have {len(ours)} and {len(theirs)} values"
    # Of a model that diverged: what is no number on both sides is alike, and on one side as far as can be.
    numbers = np.isfinite(ours) & np.isfinite(theirs)
    distance = np.where(np.isfinite(ours) == np.isfinite(theirs), 0.0, np.inf)
    distance[numbers] = np.abs(ours[numbers].astype(np.float64) - theirs[numbers])
    near = float((distance <= _near(settings)).mean()) if len(distance) else 1.0
    largest = float(distance.max(initial=0.0))
    if near >= SHARE and largest <= _rest(settings):
        return None
    return f"differ by up to {largest:.1e}, and {near:.0%} of them agree within {_near(settings):g}; allowed is {allowed(settings)}"


def differences(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], settings: Callable[[str], Mapping[str, Any]]
) -> list[str]:
    """What two machines disagree about, in words; empty where they agree. `settings` are those of a model."""
    if [f["model_id"] for f in ours] != [f["model_id"] for f in theirs]:
        return ["the plans differ: other models were fingerprinted"]
    problems = []
    for a, b in zip(ours, theirs, strict=True):
        for what in ("init", "examples", "order"):
            if a[f"{what}_sha256"] != b[f"{what}_sha256"]:
                problems.append(f"model {a['model_id']}: {what} differs; it must be the same bits on every machine")
        if a["steps"] != b["steps"]:
            problems.append(f"model {a['model_id']}: its fingerprint is of {b['steps']} steps, not {a['steps']}")
        elif text := apart(settings(a["model_id"]), _weights(a), _weights(b)):
            problems.append(f"model {a['model_id']}: weights after {a['steps']} steps {text}")
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
