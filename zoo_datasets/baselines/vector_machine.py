"""Features (n, F) → classes or numbers by a support vector machine (scikit-learn), as `tabular`'s solvers are called.

What is chosen (C, and the width of the kernel) is chosen by who calls, on validation. A machine gives scores and no
probabilities: they are the softmax of its one-against-rest scores, at a temperature that is chosen on validation too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo_datasets.baselines.interface import Target
from zoo_datasets.core import libraries

# (C, γ·F) of the Gaussian kernel on standardized features: from nearly linear to narrow. As many as boosting has.
WIDTHS = ((1.0, 1.0), (10.0, 1.0), (10.0, 0.1), (100.0, 0.1))
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
MOST_STANDARD = 10.0  # a feature of a network that nearly diverged would be all of a distance


class VectorMachine:
    """Gaussian kernel on standardized features."""

    def __init__(self, target: Target, cost: float, width: float) -> None:
        self.target, self.settings, self.temperature, self.size = target, (cost, width), 1.0, 0

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        with libraries.needed():
            from sklearn.svm import SVC, SVR
        self.mean, self.scale = x.mean(0), np.maximum(x.std(0), 1e-9 * (1 + np.abs(x).max(0)))
        cost, width = self.settings
        gamma = width / max(1, x.shape[1])
        self.classes, self.center, self.spread = np.unique(y), float(y.mean()), float(y.std()) or 1.0
        self.model: Any = None
        if not self.target.classes:
            self.model = SVR(C=cost, gamma=gamma).fit(self._standard(x), (y - self.center) / self.spread)
        elif len(self.classes) > 1:
            self.model = SVC(C=cost, gamma=gamma).fit(self._standard(x), y.astype(np.int64))
        self.size = 0 if self.model is None else self.model.dual_coef_.size + self.model.support_vectors_.size

    def warm(self, x: np.ndarray, y: np.ndarray) -> None:
        """Choose the temperature at which these examples, not learned from, are likeliest."""
        if not self.target.classes or not len(y):
            return
        scores, own = self._scores(x), (np.arange(len(y)), y.astype(np.int64))
        losses = [-np.log(np.maximum(self._shares(scores, t)[own], 1e-12)).mean() for t in TEMPERATURES]
        self.temperature = TEMPERATURES[int(np.argmin(losses))]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n,) numbers, or (n, classes) probabilities."""
        if not self.target.classes:
            return np.asarray(self.model.predict(self._standard(x)) * self.spread + self.center)
        return self._shares(self._scores(x), self.temperature)

    def _scores(self, x: np.ndarray) -> np.ndarray:
        """(n, classes that were learned): what costs time."""
        if self.model is None:
            return np.zeros((len(x), 1))
        scores = self.model.decision_function(self._standard(x))
        return np.stack([-scores, scores], 1) / 2 if scores.ndim == 1 else np.asarray(scores)

    def _shares(self, scores: np.ndarray, temperature: float) -> np.ndarray:
        """(n, classes): their softmax; a class that was never seen is nearly impossible."""
        found = np.full((len(scores), self.target.classes), 1e-6)
        odds = np.exp(temperature * (scores - scores.max(1, keepdims=True)))
        found[:, self.classes.astype(np.int64)] += odds / odds.sum(1, keepdims=True)
        return found / found.sum(1, keepdims=True)

    def _standard(self, x: np.ndarray) -> np.ndarray:
        return np.clip((x - self.mean) / self.scale, -MOST_STANDARD, MOST_STANDARD)
