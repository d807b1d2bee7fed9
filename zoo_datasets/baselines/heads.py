"""Targets ↔ the outputs of one network: a head for each, of one number, or of one for each class.

In:  `Targets` of the training part, with NaN where a network has none; outputs (n, outputs).
Out: losses, predictions by target, scores; and the constant that a head starts at, from training data alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from zoo_datasets.baselines.interface import Predictions, Target, Targets
from zoo_datasets.core.score_sums import least_spread
from zoo_datasets.errors import ZooError

# Accuracy 0 or 1 in all of training would put a head's constant at ±∞.
LEAST_SHARE = 1e-3


class Heads:
    """Targets ↔ the outputs of one network: losses, predictions and scores, NaN left out.

    Raises ZooError for a target without a value in training.
    """

    def __init__(self, training: Targets, bounded: str = "bce", numbers: str = "mse") -> None:
        if bounded not in ("bce", "mse"):
            raise ValueError(f"The loss of bounded numbers is {bounded!r}; it is 'bce' or 'mse'.")
        if numbers not in ("mse", "mae"):
            raise ValueError(f"The loss of numbers is {numbers!r}; it is 'mse' or 'mae'.")
        self.of, self.bounded, self.numbers = training.of, bounded, numbers
        self.slices: list[slice] = []
        self.centers: list[np.ndarray] = []  # training mean (1,), or frequencies (classes,)
        self.spreads: list[float] = []
        end = 0
        for target, values in self._columns(training):
            if not len(values):
                raise ZooError(f"No network of the training part has a value of {target.name}. Leave this target out.")
            self.slices.append(slice(end, end := end + max(1, target.classes)))
            if target.classes:
                counts = np.bincount(values.astype(np.int64), minlength=target.classes) + 1.0  # Laplace's rule
                self.centers.append(counts / counts.sum())
                self.spreads.append(1.0)
            else:
                self.centers.append(np.array([values.mean()]))
                self.spreads.append(float(values.std()) if np.ptp(values) > 0 else 1.0)
        self.outputs = end

    @staticmethod
    def _columns(targets: Targets) -> Iterator[tuple[Target, np.ndarray]]:
        for k, target in enumerate(targets.of):
            values = targets.values[:, k]
            yield target, values[np.isfinite(values)]

    def start(self) -> torch.Tensor:
        """What is added to the outputs (outputs,): a network that gives 0 predicts what training knows without weights."""
        parts = []
        for target, center in zip(self.of, self.centers, strict=True):
            if target.classes:
                parts.append(np.log(center))
            elif target.bounded:
                share = np.clip(center, LEAST_SHARE, 1 - LEAST_SHARE)
                parts.append(np.log(share / (1 - share)))
            else:
                parts.append(np.zeros(1))
        return torch.tensor(np.concatenate(parts), dtype=torch.float32)

    def loss(self, outputs: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Sum over targets of the mean loss of (B, outputs) where values (B, K) are finite."""
        total = outputs.sum() * 0.0  # a batch without any value has a gradient too
        for k, target in enumerate(self.of):
            known = torch.isfinite(values[:, k])
            if not bool(known.any()):
                continue
            out, y = outputs[known, self.slices[k]], values[known, k]
            if target.classes:
                total = total + nn.functional.cross_entropy(out, y.long())
            elif target.bounded and self.bounded == "bce":
                total = total + nn.functional.binary_cross_entropy_with_logits(out[:, 0], y)
            elif target.bounded:
                total = total + ((torch.sigmoid(out[:, 0]) - y) / self.spreads[k]).square().mean()
            else:
                error = out[:, 0] - (y - float(self.centers[k][0])) / self.spreads[k]
                total = total + (error.square() if self.numbers == "mse" else error.abs()).mean()
        return total

    def predictions(self, outputs: torch.Tensor) -> dict[str, np.ndarray]:
        """Target → (n,) float64, or (n, classes) float64 probabilities."""
        found = {}
        for k, target in enumerate(self.of):
            out = outputs[:, self.slices[k]].double()
            if target.classes:
                found[target.name] = torch.softmax(out, 1).numpy()
            elif target.bounded:
                found[target.name] = torch.sigmoid(out[:, 0]).numpy()
            else:
                found[target.name] = (out[:, 0] * self.spreads[k] + float(self.centers[k][0])).numpy()
        return found

    def scores(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Target → 1 − loss / loss of what training knows without weights; NaN where that is 0.

        R² of a number, the same share of the cross-entropy of a class; a head counts as −1 where it is worse than that, so
        that one which overfits decides nothing for all.
        """
        found = {}
        for k, target in enumerate(self.of):
            y, p = targets.values[:, k], np.asarray(predictions[target.name])
            known = np.isfinite(y)
            y, p = y[known], p[known]
            if target.classes:
                own = -np.log(np.maximum(p[np.arange(len(y)), y.astype(np.int64)], 1e-12)).sum()
                constant = -np.log(self.centers[k][y.astype(np.int64)]).sum()
            else:
                own, constant = ((y - p) ** 2).sum(), ((y - self.centers[k]) ** 2).sum()
            least = 0.0 if target.classes else least_spread(y)
            found[target.name] = max(-1.0, float(1.0 - own / constant)) if constant > least else math.nan
        return found

    def score(self, predictions: Predictions, targets: Targets) -> float:
        """Mean of `scores` over targets; NaN where no target has one, or a prediction is not finite."""
        found = [s for s in self.scores(predictions, targets).values() if not math.isnan(s)]
        finite = all(np.isfinite(p).all() for p in predictions.values())
        return float(np.mean(found)) if found and finite else math.nan
