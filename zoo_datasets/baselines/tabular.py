"""Numbers for each network → predictions: mean, ridge and boosting, tuned alike on validation.

In:  features (n, F) of a view: none (`mean`), the recipe (`metadata`), statistics of each tensor (`statistics`), or both.
Out: a `Baseline`. All solvers have the same budget: `GRID` settings each, chosen by validation alone.

Statistics per tensor: Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020), section 3; the quantiles of
Eilertsen et al., "Classifying the classifier" (2020) as a variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo_datasets import errors
from zoo_datasets.baselines.design import Design
from zoo_datasets.baselines.interface import Predictions, Target, Targets, View
from zoo_datasets.core import libraries
from zoo_datasets.views.per_tensor import EILERTSEN_2020, UNTERTHINER_2020, statistics

QUANTILES = {"unterthiner": UNTERTHINER_2020, "eilertsen": EILERTSEN_2020}
PENALTIES = (1e-3, 1e-1, 10.0, 1e3)  # of ridge on standardized features
LEAVES = ((0.1, 15), (0.1, 31), (0.05, 15), (0.05, 63))  # learning rate and leaves of boosting
FEATURES = ("none", "recipe", "statistics", "recipe+statistics")
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
        self.quantiles = QUANTILES[quantiles]
        self._heads: dict[str, tuple[Target, Design | None, Callable[[np.ndarray], np.ndarray]]] = {}
        self._size = 0
        self._chosen: dict[str, object] = {}

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        (view, targets), (other, wanted) = train, validation
        seen, held_out = self._statistics(view), self._statistics(other)
        self._heads, self._chosen, self._size = {}, {}, 0
        for k, target in enumerate(targets.of):
            design = Design(view.recipe_without(target)) if "recipe" in self.features else None
            x, v = _joined(design, target, view, seen), _joined(design, target, other, held_out)
            y, z = targets.values[:, k], wanted.values[:, k]
            rows, held = np.isfinite(y), np.isfinite(z)
            trials = self._trials(target, seed) if x.shape[1] else [({}, _Constant(target))]
            best: tuple[float, Any, Mapping[str, object]] | None = None
            tried = []
            for settings, solver in trials:
                solver.fit(x[rows], y[rows])
                loss = _loss(target, solver.predict(v[held]), z[held]) if held.any() else 0.0
                tried.append({**settings, "validation_loss": loss})
                if best is None or loss < best[0]:
                    best = loss, solver, settings
            assert best is not None
            self._heads[target.name] = target, design, best[1].predict
            self._size += best[1].size
            self._chosen[target.name] = {"chosen": dict(best[2]), "tried": tried}

    def predict(self, view: View) -> Predictions:
        seen = self._statistics(view)
        return {name: head(_joined(design, of, view, seen)) for name, (of, design, head) in self._heads.items()}

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
        return statistics(view.matrix, view.layout.layout, self.quantiles).reshape(len(view), -1)

    def _trials(self, target: Target, seed: int) -> list[tuple[dict[str, object], Any]]:
        if self.solver == "mean":
            return [({}, _Constant(target))]
        if self.solver == "ridge":
            return [({"penalty": p}, _Ridge(target, p)) for p in PENALTIES]
        return [({"rate": r, "leaves": n}, _Boosting(target, r, n, seed)) for r, n in LEAVES]


def _joined(design: Design | None, target: Target, view: View, seen: np.ndarray) -> np.ndarray:
    return seen if design is None else np.hstack([design(view.recipe_without(target)), seen])


def _loss(target: Target, prediction: np.ndarray, y: np.ndarray) -> float:
    """Squared error of a number, log loss of a class."""
    if not target.classes:
        return float(((prediction - y) ** 2).mean())
    return float(-np.log(np.maximum(prediction[np.arange(len(y)), y.astype(int)], 1e-12)).mean())


class _Constant:
    """The mean of the training targets, or the shares of their classes."""

    def __init__(self, target: Target) -> None:
        self.target, self.size = target, max(1, target.classes)

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.value = (
            np.bincount(y.astype(int), minlength=self.target.classes) / len(y) if self.target.classes else y.mean()
        )

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.tile(self.value, (len(x), 1)) if self.target.classes else np.full(len(x), float(self.value))


class _Ridge:
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


class _Boosting:
    """Histogram gradient boosting (scikit-learn), 300 trees."""

    def __init__(self, target: Target, rate: float, leaves: int, seed: int) -> None:
        with libraries.needed():
            from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        made = HistGradientBoostingClassifier if target.classes else HistGradientBoostingRegressor
        self.target, self.size = target, 0
        self.model = made(
            learning_rate=rate, max_leaf_nodes=leaves, max_iter=300, min_samples_leaf=10, l2_regularization=1.0,
            early_stopping=False, random_state=seed,
        )  # fmt: skip

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        from threadpoolctl import threadpool_limits

        # A second thread of OpenMP spins: on a busy machine a fit of seconds took minutes.
        with threadpool_limits(1):
            self.model.fit(x, y.astype(int) if self.target.classes else y)
        self.size = sum(t.nodes.size for step in self.model._predictors for t in step)

    def predict(self, x: np.ndarray) -> np.ndarray:
        if not self.target.classes:
            found = self.model.predict(x)
            return np.asarray(np.clip(found, 0, 1) if self.target.bounded else found)
        shares = np.zeros((len(x), self.target.classes))
        shares[:, self.model.classes_.astype(int)] = self.model.predict_proba(x)
        return shares
