"""Logits and labels → the metrics of the format (`schema.METRICS`), by their names.

Builder and reader call the same functions, so what counts and when a metric is null stands here
once. Sums are float64 in a fixed order with `exact`'s functions: equal logits give equal
metrics on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_datasets.core import exact

LOSSES = ("cross_entropy", "mse")  # in the order of the kernels' plan.h


def part_metrics(
    part: str, logits: np.ndarray, labels: np.ndarray, loss: str, clean: np.ndarray | None = None
) -> dict[str, Any]:
    """`score` under the names of a part: "test_loss", …; with clean labels also `…_loss_clean` and `…_accuracy_clean`."""
    named = {f"{part}_{k}": v for k, v in score(logits, labels, loss).items()}
    if clean is not None:
        true = score(logits, clean, loss)
        named |= {f"{part}_{k}_clean": true[k] for k in ("loss", "accuracy")}
    return named


def gaps(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The generalization gaps of a row with the metrics of train and test: null where either is."""
    pairs = {k: (row[f"train_{k}"], row[f"test_{k}"]) for k in ("accuracy", "loss")}
    return {f"gap_{k}": None if train is None or test is None else train - test for k, (train, test) in pairs.items()}


def losses(logits: np.ndarray, labels: np.ndarray, loss: str) -> np.ndarray:
    """Loss of each example, float64 [n]; logits [n, C], labels [n].

    `cross_entropy` is −log softmax; `mse` the mean over classes of (logit − one-hot)².
    """
    z = logits.T.astype(np.float64, order="C")  # (C, n): sums over classes run along the examples
    right = labels, np.arange(len(labels))
    with np.errstate(invalid="ignore", over="ignore"):
        if loss == "mse":
            z[right] -= 1.0
            return exact.total(z * z, axis=0) / len(z)
        z -= z.max(axis=0)
        return exact.log(exact.total(exact.exp(z), axis=0)) - z[right]


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


def attack_success(logits: np.ndarray, labels: np.ndarray, target: int) -> float | None:
    """Share of triggered inputs, but those of the target class, classified as the target; null if there are none.

    A row of non-finite logits is classified as nothing, as in `score`.
    """
    logits = logits[labels != target]
    if not len(logits):
        return None
    return float(((logits.argmax(axis=1) == target) & np.isfinite(logits).all(axis=1)).mean())
