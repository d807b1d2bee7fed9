"""Logits and labels → the metrics of the format (`schema.METRICS`), by their names.

Builder and reader call the same functions, so what counts and when a metric is null stands here
once. Sums are float64 in a fixed order, by the C++ kernels or with `exact`'s functions: equal
logits give equal metrics on every machine, with and without kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Integer, Shaped

from zoo_datasets.core import exact
from zoo_datasets.networks import kernels


class Sums(NamedTuple):
    """What M models made of n examples, by each of K sets of labels."""

    loss: Float64[np.ndarray, "k m"]  # over all examples
    correct: Int64[np.ndarray, "k m c"]  # right answers per class


def part_metrics(
    part: str,
    logits: Float32[np.ndarray, "m n c"],
    labels: Shaped[np.ndarray, "one_or_m n *step"],
    loss: str,
    clean: Shaped[np.ndarray, "one_or_m n *step"] | None = None,
) -> list[dict[str, Any]]:
    """Of each model "test_loss", …; with clean labels also `…_loss_clean` and `…_accuracy_clean`.

    Labels are (1, n) where all models have the same. Of sequences they are (1 or M, n, T), or values (1 or M, n, T, K), and
    logits lie flat: then steps are counted, or the K values of each, of which one is right that is closer to its value than
    ½. Empty input gives nulls and zero counts. An example with a logit that is not finite is never right, and a sum that
    is not leaves no loss.
    """
    if labels.ndim == 4:
        return _of_values(part, logits, labels, clean is not None)
    logits, labels, clean = _step_by_step(logits, labels, clean)
    given = np.stack([labels] if clean is None else [labels, clean])
    n, n_classes = logits.shape[1:]
    counts = [np.bincount(row, minlength=n_classes).tolist() for row in labels] * (
        len(logits) if len(labels) == 1 else 1
    )
    names = [f"{part}_{name}" for name in ("loss", "accuracy", "correct_per_class", "count_per_class")]
    names += [] if clean is None else [f"{part}_loss_clean", f"{part}_accuracy_clean"]
    if not n:
        return [dict.fromkeys(names) | dict.fromkeys(names[2:4], count) for count in counts]
    sums = scored(logits, given, loss)
    # Lists of Python's own numbers first: one by one they take as long as the kernels.
    means = [[mean if math.isfinite(mean) else None for mean in row] for row in (sums.loss / n).tolist()]
    right = (sums.correct.sum(axis=-1) / n).tolist()
    columns = [means[0], right[0], sums.correct[0].tolist(), counts, *means[1:], *right[1:]]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _step_by_step(
    logits: np.ndarray, labels: np.ndarray, clean: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Every step of a sequence as an example of its own; other examples as they are."""
    if labels.ndim == 2:
        return logits, labels, clean
    m, n, width = logits.shape
    steps = labels.shape[2]
    flat = logits.reshape(m, n * steps, width // steps)
    return flat, labels.reshape(len(labels), -1), None if clean is None else clean.reshape(len(clean), -1)


def _of_values(part: str, logits: np.ndarray, values: np.ndarray, clean: bool) -> list[dict[str, Any]]:
    """The metrics of values (1 or M, n, T, K), by their squared errors; the K values stand where classes do."""
    _, n, steps, width = values.shape
    counts = [n * steps] * width
    rows = []
    for m, given in enumerate(logits.reshape(len(logits), n, steps, width)):
        apart = given.astype(np.float64) - values[m if len(values) > 1 else 0]
        with np.errstate(invalid="ignore", over="ignore"):
            right = (np.abs(apart) < 0.5).sum(axis=(0, 1)).tolist()
            loss = _finite(exact.total((apart * apart).ravel()) / apart.size) if n else None
        share = sum(right) / sum(counts) if n else None
        row = {"loss": loss, "accuracy": share, "correct_per_class": right, "count_per_class": counts}
        rows.append({f"{part}_{k}": v for k, v in row.items()})
        if clean:
            rows[-1] |= {f"{part}_loss_clean": loss, f"{part}_accuracy_clean": share}
    return rows


def gaps(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The generalization gaps of a row with the metrics of train and test: null where either is."""
    pairs = {k: (row[f"train_{k}"], row[f"test_{k}"]) for k in ("accuracy", "loss")}
    return {f"gap_{k}": None if train is None or test is None else train - test for k, (train, test) in pairs.items()}


def scored(logits: Float32[np.ndarray, "m n c"], labels: Integer[np.ndarray, "k one_or_m n"], loss: str) -> Sums:
    """Sums over the examples; labels are (K, 1, n) where all models have the same."""
    if kernels.missing() is not None:
        return scored_in_numpy(logits, labels, loss)
    shape = len(labels), len(logits)
    sums = Sums(np.empty(shape), np.empty((*shape, logits.shape[2]), np.int64))
    kernels.score(logits, labels, loss, *sums)
    return sums


def scored_in_numpy(
    logits: Float32[np.ndarray, "m n c"], labels: Integer[np.ndarray, "k one_or_m n"], loss: str
) -> Sums:
    """`scored` without kernels, with the same bits."""
    models, _, classes = logits.shape
    right = np.zeros((len(labels), models, classes), np.int64)
    total = np.empty((len(labels), models))
    for m, z in enumerate(logits):
        finite, best = np.isfinite(z).all(axis=1), z.argmax(axis=1)
        for k, given in enumerate(labels[:, m if labels.shape[1] > 1 else 0]):
            total[k, m] = exact.total(losses(z, given, loss))
            right[k, m] = np.bincount(given[(best == given) & finite], minlength=classes)
    return Sums(total, right)


def losses(logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"], loss: str) -> Float64[np.ndarray, " n"]:
    """Loss of each example.

    `cross_entropy` is −log softmax; `mse` the mean over classes of (logit − one-hot)².
    """
    z = logits.T.astype(np.float64, order="C")  # (C, n): sums over classes run along the examples
    right = labels, np.arange(len(labels))
    with np.errstate(invalid="ignore", over="ignore"):
        if loss == "mse":
            z[right] -= 1.0
            errors: np.ndarray = exact.total(z * z, axis=0) / len(z)
            return errors
        z -= z.max(axis=0)
        entropy: np.ndarray = exact.log(exact.total(exact.exp(z), axis=0)) - z[right]
        return entropy


def attack_success(
    logits: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"], target: int, source: int | None = None
) -> float | None:
    """Share of triggered inputs, of the source class or of all but the target's, classified as the target; null if there are none.

    A row of non-finite logits is classified as nothing, as in `part_metrics`.
    """
    logits = logits[labels != target if source is None else labels == source]
    if not len(logits):
        return None
    return float(((logits.argmax(axis=1) == target) & np.isfinite(logits).all(axis=1)).mean())


def attack_metrics(
    logits: Float[np.ndarray, "n c"],
    labels: Integer[np.ndarray, " n"],
    target: int,
    source: int | None = None,
    *,
    stamped: bool,
) -> dict[str, Any]:
    """What goes to the target of images with the trigger on, or of the same images without: as a share, and per class."""
    there = (logits.argmax(axis=1) == target) & np.isfinite(logits).all(axis=1)
    share, counts = ("attack_success", "attack_per_class") if stamped else ("attack_base", "attack_base_per_class")
    return {
        share: attack_success(logits, labels, target, source),
        counts: np.bincount(labels[there], minlength=logits.shape[1]).tolist(),
    }


def _finite(mean: float) -> float | None:
    return float(mean) if np.isfinite(mean) else None
