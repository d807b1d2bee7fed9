"""Logits and labels → the metrics of the format (`schema.METRICS`).

Sums are float64 in a fixed order with `exact`'s functions, so equal logits give equal
metrics on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo_datasets.core import exact


def losses(logits: np.ndarray, labels: np.ndarray, loss: str) -> np.ndarray:
    """Loss of each example, float64 [n]; logits [n, C], labels [n].

    `cross_entropy` is −log softmax; `mse` the mean over classes of (logit − one-hot)².
    """
    z = logits.astype(np.float64)
    at = np.arange(len(labels))
    with np.errstate(invalid="ignore", over="ignore"):
        if loss == "mse":
            z[at, labels] -= 1.0
            return exact.total(z * z) / logits.shape[1]
        z -= z.max(axis=1, keepdims=True)
        return exact.log(exact.total(exact.exp(z))) - z[at, labels]


def score(logits: np.ndarray, labels: np.ndarray, loss: str) -> dict[str, Any]:
    """loss, accuracy, correct_per_class and count_per_class; logits [n, C], labels [n].

    Empty input gives nulls and zero counts. A row of non-finite logits is never right, and
    leaves no loss.
    """
    n_classes = logits.shape[1]
    count = np.bincount(labels, minlength=n_classes)
    if not len(labels):
        return {"loss": None, "accuracy": None, "correct_per_class": count.tolist(), "count_per_class": count.tolist()}
    right = (logits.argmax(axis=1) == labels) & np.isfinite(logits).all(axis=1)
    correct = np.bincount(labels[right], minlength=n_classes)
    mean = float(exact.total(losses(logits, labels, loss)) / len(labels))
    return {
        "loss": mean if np.isfinite(mean) else None,
        "accuracy": int(correct.sum()) / len(labels),
        "correct_per_class": correct.tolist(),
        "count_per_class": count.tolist(),
    }


def attack_success(logits: np.ndarray, target: int) -> float | None:
    """Share of triggered images, none of the target class, classified as the target; null if there are none.

    A row of non-finite logits is classified as nothing, as in `score`.
    """
    if not len(logits):
        return None
    return float(((logits.argmax(axis=1) == target) & np.isfinite(logits).all(axis=1)).mean())
