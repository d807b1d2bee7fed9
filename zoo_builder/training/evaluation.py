"""A cohort's weights → the metrics of its models, from the backend's logits.

In:  the arrays of the cohort and a backend. Out: for each model wanted a row of metrics on
the parts train, validation and test; or the validation loss alone, for stop rules.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo_builder.engines.contract import Backend
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training.inputs import Data
from zoo_datasets import sources
from zoo_datasets.networks import scoring


def validation_losses(cohort: Cohort, data: Data, backend: Backend) -> list[float]:
    """The validation loss of every model; inf where it has none."""
    images, labels = data.validation
    logits, loss = backend.logits(images), cohort.runs[0].settings["loss"]
    values = [scoring.score(logits[m], labels, loss)["loss"] for m in range(len(cohort.runs))]
    return [math.inf if v is None else v for v in values]


def metrics(cohort: Cohort, data: Data, backend: Backend, wanted: list[int]) -> dict[int, dict[str, Any]]:
    """The metrics of the models wanted, by place in the cohort."""
    loss, n_classes = cohort.runs[0].settings["loss"], cohort.architecture.n_outputs
    if data.shared_rows:
        whole = np.array_equal(data.rows[0], np.arange(len(data.pool)))
        train = backend.logits(data.pool if whole else data.pool[data.rows[0]])
    else:
        train = backend.logits(data.pool, data.rows)
    parts = {
        "validation": (backend.logits(data.validation[0]), data.validation[1]) if len(data.validation[1]) else None
    }
    parts["test"] = (backend.logits(data.test[0]), data.test[1])
    attacked = backend.logits(data.triggered) if data.triggered is not None else None
    result = {}
    for m in wanted:
        row = {f"train_{k}": v for k, v in scoring.score(train[m], data.labels[m], loss).items()}
        clean = scoring.score(train[m], data.clean[m], loss)
        row |= {"train_loss_clean": clean["loss"], "train_accuracy_clean": clean["accuracy"]}
        for name, part in parts.items():
            logits, labels = (part[0][m], part[1]) if part else (np.zeros((0, n_classes)), np.zeros(0, np.int64))
            row |= {f"{name}_{k}": v for k, v in scoring.score(logits, labels, loss).items()}
        for what in ("accuracy", "loss"):
            pair = row[f"train_{what}"], row[f"test_{what}"]
            row[f"gap_{what}"] = None if None in pair else pair[0] - pair[1]
        row["attack_success"] = None
        subset = cohort.runs[m].subset
        if attacked is not None and subset.trigger_target is not None:
            head = int(sources.relabeled(np.array([subset.trigger_target]), subset)[0])
            row["attack_success"] = scoring.attack_success(attacked[m][data.test[1] != head], head)
        result[m] = row
    return result
