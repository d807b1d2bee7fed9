"""Flat weights of one layout → ridge on principal components, or an MLP.

In:  weight vectors as they are: a unit's place in its layer means something to these baselines, and should not.
Out: `PcaRidge` and `FlatMlp`; the latter with random permutations of hidden units in every batch, if asked.

They are the lower bound that baselines which know the symmetry are measured against. The MLP is that of Zhou et al.,
"Permutation Equivariant Neural Functionals" (NeurIPS 2023), section 4: two hidden layers of 1,000 units, and its
permuted variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo_datasets import symmetry
from zoo_datasets.baselines.heads import Heads
from zoo_datasets.baselines.interface import Predictions, Target, Targets, View, matrix
from zoo_datasets.baselines.learning import Inputs, Neural, Progress, Standard, Training, Trial, perceptron
from zoo_datasets.errors import ZooError

# Times the mean variance of a component, per network: from hardly any shrinking to hardly any slope. Four, as all have.
PENALTIES = (1e-4, 1e-2, 1.0, 1e2)
LEAST_PROBABILITY = 1e-3  # a ridge's share of a class may be negative


class PcaRidge:
    """Ridge on the first principal components of standardized weights; penalty by validation, for each target.

    A class is ridge on indicators, whose predictions are clipped and scaled to probabilities.
    """

    name = "flat"

    def __init__(self, components: int = 512, penalties: Sequence[float] = PENALTIES) -> None:
        self.components, self.penalties = components, tuple(penalties)
        self.settings: dict[str, float] = {}
        self._coefficients: dict[str, np.ndarray] = {}  # (1 + components, 1 or classes)
        self._chosen: dict[str, Any] = {}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Target → the penalty that is taken, where none is to be chosen."""
        self.settings = {name: float(chosen["penalty"]) for name, chosen in settings.items()}

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        """Closed form: the seed changes nothing."""
        view, targets = train
        self.layout, self.heads = view.layout, Heads(targets)
        rows = view.matrix
        self.standard = Standard.by_position(rows)
        x = self.standard(rows).astype(np.float64)  # (n, P)
        self.axes = _axes(x, self.components)
        scores, other = x @ self.axes, self._scores(validation[0])
        self._chosen = {"components": self.axes.shape[1]}
        for k, target in enumerate(targets.of):
            known = np.isfinite(targets.values[:, k])
            y = targets.values[known, k]
            wanted = np.eye(target.classes)[y.astype(np.int64)] if target.classes else y[:, None]
            head, truth = (Heads(_one(targets, k)), _one(validation[1], k))
            tried = []
            penalties = [self.settings[target.name]] if target.name in self.settings else self.penalties
            for penalty, coefficients in _path(scores[known], wanted, penalties):
                score = head.score({target.name: _ends(target, coefficients, other)}, truth)
                tried.append((-np.inf if np.isnan(score) else score, penalty, coefficients))
            _, penalty, self._coefficients[target.name] = max(tried, key=lambda found: found[:2])
            self._chosen[target.name] = {
                "chosen": {"penalty": penalty},
                "tried": [{"penalty": p, "score": float(s)} for s, p, _ in tried],
            }

    def predict(self, view: View) -> Predictions:
        if not self._coefficients:
            raise ZooError(f"The baseline {self.name} has learned nothing yet; call `fit` first.")
        scores = self._scores(view)
        return {t.name: _ends(t, self._coefficients[t.name], scores) for t in self.heads.of}

    def _scores(self, view: View) -> np.ndarray:
        return self.standard(matrix(view, self.layout)).astype(np.float64) @ self.axes  # (n, components)

    @property
    def parameters(self) -> int:
        """Axes and coefficients."""
        return self.axes.size + sum(c.size for c in self._coefficients.values())

    @property
    def chosen(self) -> Mapping[str, Any]:
        return self._chosen


def _one(targets: Targets, k: int) -> Targets:
    return Targets(targets.of[k : k + 1], targets.values[:, k : k + 1])


def _ends(target: Target, coefficients: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(n,) numbers, those that are bounded clipped; (n, classes) probabilities."""
    found = coefficients[0] + scores @ coefficients[1:]
    if target.classes:
        found = np.clip(found, LEAST_PROBABILITY, 1.0)
        return found / found.sum(1, keepdims=True)
    return np.clip(found[:, 0], 0.0, 1.0) if target.bounded else found[:, 0]


def _axes(x: np.ndarray, most: int) -> np.ndarray:
    """The first principal axes of centered rows (n, P), orthonormal (P, components).

    From the smaller of the two products: n² or P² numbers.
    """
    n, p = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if n <= p else x.T @ x)
    # Below this, an axis is rounding.
    kept = np.flatnonzero(values > 1e-10 * values.max(initial=0.0))[::-1][:most]
    return x.T @ (vectors[:, kept] / np.sqrt(values[kept])) if n <= p else vectors[:, kept]


def _path(x: np.ndarray, y: np.ndarray, penalties: Sequence[float]) -> list[tuple[float, np.ndarray]]:
    """Ridge coefficients (1 + components, outputs) of each penalty, the intercept first and not penalized."""
    center, mean = x.mean(0), y.mean(0)
    values, vectors = np.linalg.eigh((x - center).T @ (x - center))
    against = vectors.T @ ((x - center).T @ (y - mean))
    unit = float(values.mean()) if len(values) and values.mean() > 0 else 1.0
    found = []
    for penalty in penalties:
        slopes = vectors @ (against / (np.maximum(values, 0.0) + penalty * unit)[:, None])
        found.append((penalty, np.concatenate([(mean - center @ slopes)[None], slopes])))
    return found


class FlatMlp(Neural):
    """MLP on standardized weights; with `augment`, of a random member of each network's permutation orbit."""

    name = "flat-mlp"
    TRIALS = ({"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-4, "dropout": 0.3}, {"rate": 1e-3, "dropout": 0.3})

    def __init__(
        self, *, augment: bool = False, hidden: Sequence[int] = (1000, 1000), dropout: float = 0.0,
        training: Training = Training(epochs=50, batch=64, rate=1e-3), trials: Sequence[Trial] = (),  # noqa: B008
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        super().__init__(training, trials, progress)
        self.augment, self.hidden, self.dropout = augment, tuple(hidden), dropout

    def prepare(self, train: View) -> None:
        self.layout, self.units = train.layout, train.units
        self.standard = Standard.by_position(train.matrix)

    def inputs(self, view: View) -> Inputs:
        raw = matrix(view, self.layout)

        def read(rows: np.ndarray, rng: np.random.Generator | None) -> torch.Tensor:
            weights = raw[rows]
            if self.augment and rng is not None:
                moves = symmetry.random_permutations(self.units, len(rows), int(rng.integers(2**62)))
                weights = symmetry.permute(weights, self.units, moves)
            return torch.from_numpy(self.standard(weights))

        return read

    def network(self, outputs: int, **options: Any) -> nn.Module:
        """P → hidden layers with ReLU → outputs."""
        hidden, dropout = options.pop("hidden", self.hidden), options.pop("dropout", self.dropout)
        return perceptron(self.layout.n_params, hidden, outputs, dropout)
