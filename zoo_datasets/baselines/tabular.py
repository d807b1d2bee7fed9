"""Numbers for each network → predictions: mean, ridge and boosting, tuned alike on validation.

In:  features (n, F) of a view: none (`mean`), the recipe (`metadata`), statistics of each tensor (`statistics`), or both.
Out: a `Baseline`. All solvers have the same budget: four settings each, chosen by validation alone; and of boosting the turn that
validation likes best, as networks have their best epoch: where nothing can be read, it says the mean.

Statistics per tensor: Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020), section 3; the quantiles of
Eilertsen et al., "Classifying the classifier" (2020) as a variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import errors
from zoo_datasets.baselines.design import Design
from zoo_datasets.baselines.forest import Forest
from zoo_datasets.baselines.groups import finite, groups
from zoo_datasets.baselines.interface import Predictions, Target, Targets, View
from zoo_datasets.core import libraries
from zoo_datasets.views.per_tensor import EILERTSEN_2020, UNTERTHINER_2020, statistics

QUANTILES = {"unterthiner": UNTERTHINER_2020, "eilertsen": EILERTSEN_2020}
PENALTIES = (1e-3, 1e-1, 10.0, 1e3)  # of ridge on standardized features
LEAVES = ((0.1, 15), (0.1, 31), (0.05, 15), (0.05, 63))  # learning rate and leaves of boosting
FEATURES = ("none", "recipe", "statistics", "recipe+statistics", "recipe+training")
TREES = 300
MOST_TREES = 6_000  # of all classes: boosting grows one a class and turn, and of a hundred classes 300 turns take a quarter of an hour
MOST_KEPT = 3  # views whose statistics are remembered: train, validation, test
SOLVERS = ("mean", "ridge", "boosting")


class Tabular:
    """Features and a solver."""

    def __init__(self, name: str, features: str, solver: str, quantiles: str = "unterthiner") -> None:
        for value, allowed, what in (
            (features, FEATURES, "features"),
            (solver, SOLVERS, "solver"),
            (quantiles, QUANTILES, "quantiles"),
        ):
            if value not in allowed:
                raise errors.ZooError(errors.unknown(what, value, allowed))
        self.name, self.features, self.solver = name, features, solver
        self.settings: dict[str, Any] = {}
        self.quantiles = QUANTILES[quantiles]
        self._heads: dict[str, tuple[Target, Design | None, Any]] = {}
        self._size = self._tensors = 0
        self._kept: list[tuple[View, np.ndarray]] = []  # statistics of the last views: fitted again, they are the same
        self._chosen: dict[str, object] = {}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Target → the one setting that is taken, where none is to be chosen."""
        self.settings = dict(settings)

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        (view, targets), (other, wanted) = train, validation
        tensors = max(sum(e.role == "parameter" for e in a.layout) for a in view.architectures)
        self._tensors, self._kept = tensors, self._kept if tensors == self._tensors else []
        seen, held_out = self._statistics(view), self._statistics(other)
        self._heads, self._chosen, self._size = {}, {}, 0
        for k, target in enumerate(targets.of):
            design = Design(self._told(view, target)) if "recipe" in self.features else None
            x, v = (self._joined(design, target, view, seen), self._joined(design, target, other, held_out))
            y, z = targets.values[:, k], wanted.values[:, k]
            rows, held = np.isfinite(y), np.isfinite(z)
            trials = self._trials(target, seed) if x.shape[1] else [({}, Constant(target))]
            if target.name in self.settings:
                trials = [t for t in trials if t[0] == self.settings[target.name]]
            best: tuple[float, Any, Mapping[str, object]] | None = None
            tried = []
            for settings, solver in trials:
                solver.fit(x[rows], y[rows])
                turns = {}
                if isinstance(solver, Boosting) and held.any():
                    turns = {"turns": solver.keep_best(v[held], z[held])}
                loss = _loss(target, solver.predict(v[held]), z[held]) if held.any() else 0.0
                tried.append({**settings, **turns, "validation_loss": loss})
                if best is None or loss < best[0]:
                    best = loss, solver, settings
            assert best is not None
            self._heads[target.name] = target, design, best[1]
            self._size += best[1].size
            self._chosen[target.name] = {"chosen": dict(best[2]), "tried": tried}

    def predict(self, view: View) -> Predictions:
        seen = self._statistics(view)
        return {
            name: head.predict(self._joined(design, of, view, seen)) for name, (of, design, head) in self._heads.items()
        }

    @property
    def parameters(self) -> int:
        return self._size

    @property
    def chosen(self) -> Mapping[str, object]:
        return self._chosen

    def _statistics(self, view: View) -> np.ndarray:
        """(n, tensors · numbers), or (n, 0) where they are not asked for."""
        if "statistics" not in self.features:
            return np.zeros((len(view), 0))
        for known, numbers in self._kept:
            if known is view:
                return numbers
        found = aligned(view, self._tensors, self.quantiles)
        found = found.reshape(len(view), found.shape[1] * found.shape[2])
        self._kept = [*self._kept, (view, found)][-MOST_KEPT:]
        return found

    def _told(self, view: View, target: Target) -> pa.Table:
        """The recipe without what is asked for, and with `training` the loss and accuracy on training images."""
        told = view.recipe_without(target)
        if "training" in self.features:
            if view.training is None:
                raise errors.ZooError("Loss and accuracy on training images are not known of these networks.")
            for name in view.training.column_names:
                if name != target.name:
                    told = told.append_column(name, view.training[name])
        return told

    def _joined(self, design: Design | None, target: Target, view: View, seen: np.ndarray) -> np.ndarray:
        return seen if design is None else np.hstack([design(self._told(view, target)), seen])

    def _trials(self, target: Target, seed: int) -> list[tuple[dict[str, object], Any]]:
        if self.solver == "mean":
            return [({}, Constant(target))]
        if self.solver == "ridge":
            return [({"penalty": p}, Ridge(target, p)) for p in PENALTIES]
        return [({"rate": r, "leaves": n}, Boosting(target, r, n, seed)) for r, n in LEAVES]


def aligned(view: View, tensors: int, quantiles: Sequence[float], *, skewness: bool = False) -> np.ndarray:
    """Statistics of each tensor of n networks, (n, tensors, numbers).

    Tensors of networks with fewer stand at the two ends, half of them at each, and zeros between: first and last
    layers meet their like. Of networks with more, those in the middle are not read.
    """
    found = np.zeros((len(view), tensors, len(quantiles) + 2 + skewness))
    for architecture, places, weights in groups(view, np.arange(len(view))):
        numbers = statistics(finite(weights), architecture.layout, quantiles, skewness=skewness)  # (m, T, numbers)
        count = numbers.shape[1]
        tail = min(count, tensors) // 2
        head = min(count, tensors) - tail
        found[places, :head] = numbers[:, :head]
        found[places, tensors - tail :] = numbers[:, count - tail :]
    return found


def _loss(target: Target, prediction: np.ndarray, y: np.ndarray) -> float:
    """Squared error of a number, log loss of a class."""
    if not target.classes:
        return float(((prediction - y) ** 2).mean())
    return float(-np.log(np.maximum(prediction[np.arange(len(y)), y.astype(int)], 1e-12)).mean())


class Constant:
    """The mean of the training targets, or the shares of their classes."""

    def __init__(self, target: Target) -> None:
        self.target, self.size = target, max(1, target.classes)

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.value = (
            np.bincount(y.astype(int), minlength=self.target.classes) / len(y) if self.target.classes else y.mean()
        )

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.tile(self.value, (len(x), 1)) if self.target.classes else np.full(len(x), float(self.value))


class Ridge:
    """Linear, on standardized features; of a class by the softmax of least squares on one-hot targets."""

    def __init__(self, target: Target, penalty: float) -> None:
        self.target, self.penalty, self.size = target, penalty, 0

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.mean, self.scale = x.mean(0), np.maximum(x.std(0), 1e-9 * (1 + np.abs(x).max(0)))
        features = (x - self.mean) / self.scale
        wanted = np.eye(self.target.classes)[y.astype(int)] if self.target.classes else y[:, None]
        self.center = wanted.mean(0)
        left = features.T @ features + self.penalty * np.eye(x.shape[1])
        self.weights = np.linalg.solve(left, features.T @ (wanted - self.center))
        self.size = self.weights.size + self.center.size

    def predict(self, x: np.ndarray) -> np.ndarray:
        # A level that training never saw is standardized by a scale near 0: nothing beyond its range is believed.
        found = np.clip((x - self.mean) / self.scale, -1e3, 1e3) @ self.weights + self.center
        if not self.target.classes:
            return np.asarray(np.clip(found[:, 0], 0, 1) if self.target.bounded else found[:, 0])
        shares = np.clip(found, 1e-3, None)
        return np.asarray(shares / shares.sum(1, keepdims=True))


class Boosting:
    """Histogram gradient boosting (scikit-learn); what it learned is kept as plain arrays.

    By default 300 turns, of more than 20 classes fewer.
    """

    def __init__(self, target: Target, rate: float, leaves: int, seed: int, trees: int | None = None) -> None:
        self.target, self.settings, self.size = target, (rate, leaves, seed), 0
        self.trees = trees or min(TREES, MOST_TREES // max(1, target.classes))

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        with libraries.needed():
            from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
            from threadpoolctl import threadpool_limits
        rate, leaves, seed = self.settings
        model = (HistGradientBoostingClassifier if self.target.classes else HistGradientBoostingRegressor)(
            learning_rate=rate, max_leaf_nodes=leaves, max_iter=self.trees, min_samples_leaf=10, l2_regularization=1.0,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
        # A second thread of OpenMP spins: on a busy machine a fit of seconds took minutes.
        with threadpool_limits(1):
            model.fit(x, y.astype(int) if self.target.classes else y)
        self.classes = model.classes_.astype(int) if self.target.classes else np.zeros(0, int)
        self.forest = Forest.of(model)
        self.size = len(self.forest.value)

    def keep_best(self, x: np.ndarray, y: np.ndarray) -> int:
        """Keep the first turns alone, as many as these networks (n, F) with their targets (n,) like best; gives their number."""
        raw = np.tile(self.forest.start, (len(x), 1))
        losses = [_loss(self.target, self._said(raw), y)]
        for turn in self.forest.turns(x):
            raw = raw + turn
            losses.append(_loss(self.target, self._said(raw), y))
        best = int(np.argmin(losses))
        self.forest = self.forest.first(best)
        self.size = max(1, len(self.forest.value))
        return best

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._said(self.forest(x))

    def _said(self, raw: np.ndarray) -> np.ndarray:
        """Sums of trees (n, outputs) → numbers, or shares of classes."""
        if not self.target.classes:
            return np.asarray(np.clip(raw[:, 0], 0, 1) if self.target.bounded else raw[:, 0])
        shares = np.zeros((len(raw), self.target.classes))
        if len(self.classes) == 1:  # of which there is no tree
            shares[:, self.classes] = 1.0
            return shares
        if raw.shape[1] == 1:  # of two classes, the second's log odds
            raw = np.concatenate([np.zeros_like(raw), raw], 1)
        odds = np.exp(raw - raw.max(1, keepdims=True))
        shares[:, self.classes] = odds / odds.sum(1, keepdims=True)
        return shares
