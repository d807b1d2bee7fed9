"""A cohort's weights → the metrics of its models, from the backend's logits.

In:  the arrays of the cohort and a backend. Out: for each model wanted a row of metrics on
the parts train, validation and test; or the validation loss alone, for stop rules.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from zoo_builder.engines.contract import Backend
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training.inputs import Data
from zoo_datasets.networks import scoring
from zoo_datasets.sources.measured import Measured


def validation_losses(cohort: Cohort, data: Data, backend: Backend) -> list[float]:
    """The validation loss of every model; inf where it has none."""
    loss, labels = cohort.runs[0].settings["loss"], data.validation.labels
    values = scoring.mean_losses(_logits(cohort, data.validation, backend), labels, loss)
    return [v if math.isfinite(v) else math.inf for v in values.tolist()]


def validation_accuracies(cohort: Cohort, data: Data, backend: Backend) -> list[float]:
    """The share of validation images that every model classifies right."""
    loss, labels = cohort.runs[0].settings["loss"], data.validation.labels
    rows = scoring.part_metrics("validation", _logits(cohort, data.validation, backend), labels[None], loss)
    return [row["validation_accuracy"] for row in rows]


def metrics(
    cohort: Cohort, data: Data, backend: Backend, models: list[int], thin: Collection[int] = ()
) -> dict[int, dict[str, Any]]:
    """The metrics of some models, by place in the cohort; of those in `thin` on no more images than their schedule says."""
    groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for m in models:
        groups.setdefault(cohort.runs[m].snapshots.evaluation if m in thin else (), []).append(m)
    found: dict[int, dict[str, Any]] = {}
    for counts, some in groups.items():
        found |= _metrics(cohort, data.first(dict(counts)) if counts else data, backend, some)
    return found


def _metrics(cohort: Cohort, data: Data, backend: Backend, models: list[int]) -> dict[int, dict[str, Any]]:
    loss = cohort.runs[0].settings["loss"]
    labels, clean = data.right(models)
    rows = scoring.part_metrics("train", _train_logits(cohort, data, backend)[models], labels, loss, clean)
    for part, shown in (("validation", data.validation), ("test", data.test)):
        found = scoring.part_metrics(part, _logits(cohort, shown, backend)[models], shown.labels[None], loss)
        rows = [row | more for row, more in zip(rows, found, strict=True)]
    attack = _logits(cohort, data.attack, backend) if data.attack else None
    result = {}
    for m, row in zip(models, rows, strict=True):
        row |= scoring.gaps(row) | {"attack_success": None}
        target = data.targets[m]
        if attack is not None and data.attack is not None and target is not None:
            row["attack_success"] = scoring.attack_success(attack[m], data.attack.labels, target)
        result[m] = row
    return result


def _train_logits(cohort: Cohort, data: Data, backend: Backend) -> np.ndarray:
    if not data.rows.shape[1]:
        return np.zeros((*data.rows.shape, cohort.architecture.n_logits), np.float32)
    if not data.shared_rows:
        return backend.logits(data.pool, data.rows)
    whole = np.array_equal(data.rows[0], np.arange(len(data.pool)))
    return backend.logits(data.pool if whole else data.pool[data.rows[0]])


def _logits(cohort: Cohort, shown: Measured, backend: Backend) -> np.ndarray:
    """Logits (M, n, C); engines take no empty input."""
    if len(shown.labels):
        return backend.logits(shown.inputs)
    return np.zeros((len(cohort.runs), 0, cohort.architecture.n_logits), np.float32)
