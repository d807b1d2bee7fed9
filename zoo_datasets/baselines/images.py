"""Networks → what they answer to a few labelled inputs → numbers about them: the control of probing, for accuracy.

In:  a view with labelled inputs of its source, or such inputs. Out: predictions by least squares from three numbers of each network:
     how many of the inputs it labels correctly, the mean probability of the right label, and the mean loss.

It reads no weights but by running them. With 128 inputs its share of right answers has a standard error near .04 at
an accuracy of .7: what foretells accuracy from weights alone stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo_datasets.baselines.groups import groups
from zoo_datasets.baselines.interface import Labelled, Predictions, Target, Targets, View
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.logits import logits_of

COUNT = 128


class Images:
    """The control that shows labelled inputs (n, *shape), labels (n,), of which the first `count` are taken.

    Without them every view is shown what its own source gives.
    """

    name = "images"

    def __init__(self, inputs: np.ndarray | None = None, labels: np.ndarray | None = None, count: int = COUNT) -> None:
        """Raises ZooError where there are fewer, or not a label for each."""
        self.count = count
        self._given: Labelled | None = None
        if inputs is not None and labels is not None:
            self._given = self._first(inputs, labels)
        self._of: tuple[Target, ...] = ()
        self._coefficients: list[np.ndarray] = []  # (4, columns) of each target

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        """Least squares; nothing is drawn and nothing chosen, so `validation` and `seed` are not looked at."""
        features, (_, targets) = self._features(train[0]), train
        self._of, self._coefficients = targets.of, []
        for k, target in enumerate(targets.of):
            known = np.isfinite(targets.values[:, k])
            values = targets.values[known, k]
            wanted = np.eye(target.classes)[values.astype(np.int64)] if target.classes else values[:, None]
            self._coefficients.append(np.linalg.lstsq(features[known], wanted, rcond=None)[0])

    def predict(self, view: View) -> Predictions:
        features = self._features(view)
        found: dict[str, np.ndarray] = {}
        for target, coefficients in zip(self._of, self._coefficients, strict=True):
            values = features @ coefficients
            if target.classes:
                values = np.clip(values, 1e-6, None)
                found[target.name] = values / values.sum(1, keepdims=True)
            else:
                found[target.name] = np.clip(values[:, 0], 0.0, 1.0) if target.bounded else values[:, 0]
        return found

    @property
    def parameters(self) -> int:
        return sum(c.size for c in self._coefficients)

    @property
    def chosen(self) -> Mapping[str, object]:
        return {"inputs": self.count}

    def _first(self, inputs: np.ndarray, labels: np.ndarray) -> Labelled:
        if len(inputs) != len(labels) or len(inputs) < self.count:
            raise ZooError(f"{len(inputs)} inputs and {len(labels)} labels; {self.count} of both are needed.")
        return np.ascontiguousarray(inputs[: self.count], np.float32), np.asarray(labels[: self.count], np.int64)

    def _shown(self, view: View) -> Labelled:
        if self._given is not None:
            return self._given
        if view.shown is None:
            raise ZooError("The control `images` shows labelled inputs, and nothing says which these networks take.")
        return self._first(*view.shown())

    def _features(self, view: View) -> np.ndarray:
        """(n, 4): right answers, probability of the right label, its loss (at most that of one in 10¹²), and 1."""
        found, (inputs, labels) = np.ones((len(view), 4)), self._shown(view)
        for architecture, places, weights in groups(view, np.arange(len(view))):
            logits = logits_of(architecture, inputs)(weights).astype(np.float64)  # (m, n, C)
            shown = np.exp(logits - logits.max(2, keepdims=True))
            right = np.take_along_axis(shown / shown.sum(2, keepdims=True), labels[None, :, None], 2)[..., 0]
            found[places, 0] = (logits.argmax(2) == labels).mean(1)
            found[places, 1] = right.mean(1)
            found[places, 2] = -np.log(np.maximum(right, 1e-12)).mean(1)
        return found
