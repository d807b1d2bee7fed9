"""A cohort's weights → the metrics of its models, from the backend's logits.

In:  the arrays of the cohort and a backend. Out: for each model wanted a row of metrics on
the parts train, validation and test; or the validation loss alone, for stop rules.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from zoo_builder.engines.contract import Backend
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training.inputs import Data
from zoo_datasets.format import schema
from zoo_datasets.networks import scoring
from zoo_datasets.sources.measured import Measured


def validation(
    cohort: Cohort, data: Data, backend: Backend, models: list[int], step: int
) -> dict[int, tuple[float, float]]:
    """Validation loss, inf where it is none, and share of images classified right of some models, by place in the cohort."""
    loss, labels = cohort.runs[0].settings["loss"], data.validation.labels
    rows = scoring.part_metrics(
        "validation", _logits(cohort, data, "validation", backend, dict.fromkeys(models, step)), labels[None], loss
    )
    found = {}
    for m, row in zip(models, rows, strict=True):
        value = row["validation_loss"]
        found[m] = (math.inf if value is None else value), row["validation_accuracy"]
    return found


def metrics(
    cohort: Cohort, data: Data, backend: Backend, steps: Mapping[int, int], thin: Collection[int] = ()
) -> dict[int, dict[str, Any]]:
    """The metrics of some models, by place in the cohort; of those in `thin` on no more images than their schedule says.

    `steps` are what their weights in the backend are of.
    """
    groups: dict[tuple[tuple[str, int], ...], dict[int, int]] = {}
    for m, step in steps.items():
        groups.setdefault(cohort.runs[m].snapshots.evaluation if m in thin else (), {})[m] = step
    found: dict[int, dict[str, Any]] = {}
    for counts, some in groups.items():
        found |= _metrics(cohort, data.first(dict(counts)) if counts else data, backend, some)
    return found


def _metrics(cohort: Cohort, data: Data, backend: Backend, steps: Mapping[int, int]) -> dict[int, dict[str, Any]]:
    loss, models = cohort.runs[0].settings["loss"], list(steps)
    logits = _train_logits(cohort, data, backend, steps)
    right, clean = data.right(models)
    rows = scoring.part_metrics("train", logits, right, loss, clean)
    for part in ("validation", "test"):
        shown = _logits(cohort, data, part, backend, steps)
        found = scoring.part_metrics(part, shown, getattr(data, part).labels[None], loss)
        rows = [row | more for row, more in zip(rows, found, strict=True)]
    attack = _logits(cohort, data, "attack", backend, steps) if data.attack else None
    result = {}
    for place, (m, row) in enumerate(zip(models, rows, strict=True)):
        more = schema.ATTACK if cohort.runs[m].snapshots.attack_per_class else ()
        row |= scoring.gaps(row) | {"attack_success": None} | {c.name: None for c in more}
        aim = data.attacks[m]
        if attack is not None and data.attack is not None and aim is not None:
            labels = data.attack.labels
            measured = scoring.attack_metrics(attack[place], labels, *aim, stamped=True)
            measured |= scoring.attack_metrics(shown[place], labels, *aim, stamped=False) if more else {}
            row |= {name: value for name, value in measured.items() if name in row}
        result[m] = row
    return result


def _train_logits(cohort: Cohort, data: Data, backend: Backend, steps: Mapping[int, int]) -> np.ndarray:
    models = list(steps)
    if not data.rows.shape[1]:
        return np.zeros((len(models), 0, cohort.architecture.n_logits), np.float32)
    if data.conditions is not None:
        return _under_conditions(cohort, data, "train", data.pool, data.rows[models], backend, steps)
    if not data.shared_rows:
        return backend.logits(data.pool, data.rows[models], models)
    whole = np.array_equal(data.rows[0], np.arange(len(data.pool)))
    return backend.logits(data.pool if whole else data.pool[data.rows[0]], models=models)


def _logits(cohort: Cohort, data: Data, part: str, backend: Backend, steps: Mapping[int, int]) -> np.ndarray:
    """Logits (len(steps), n, C); engines take no empty input."""
    shown: Measured = getattr(data, part)
    if not len(shown.labels):
        return np.zeros((len(steps), 0, cohort.architecture.n_logits), np.float32)
    if data.conditions is not None:
        return _under_conditions(cohort, data, part, shown.inputs, None, backend, steps)
    return backend.logits(shown.inputs, models=list(steps))


def _under_conditions(
    cohort: Cohort, data: Data, part: str, images: np.ndarray, rows: np.ndarray | None, backend: Backend,
    steps: Mapping[int, int],
) -> np.ndarray:  # fmt: skip
    """As the recipe has it measured: not by the engine, so that who measures again gets the same numbers."""
    assert data.conditions is not None
    keys = [cohort.runs[m].keys["augment"] for m in steps]
    return data.conditions.logits(
        cohort.architecture, backend.weights(list(steps)), images, rows, keys, part, list(steps.values())
    )
