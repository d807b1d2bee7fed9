"""Numbers of each network → the chance that it is trojaned: logistic regression, and the outlying class of the last layer.

In:  a `View`; what is read of it is weights (raw, or made comparable before), statistics of tensors and of the last layer's units, or
     a table of numbers. Out: baselines with one target of two classes, that keep arrays alone and can be saved.

Logistic regression is L2, its strength chosen by validation, worked out in the space of the training networks where weights are more
than they: the same minimum, at the price of the networks. After Huster et al., "Linear weight classification" (2024, arXiv:2411.03445).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from zoo_datasets.baselines import saved, tabular
from zoo_datasets.baselines.design import Design
from zoo_datasets.baselines.groups import groups
from zoo_datasets.baselines.interface import MixedLayoutsError, Predictions, Target, Targets, View, matrix
from zoo_datasets.core import libraries
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layout import Entry
from zoo_datasets.views.per_tensor import EILERTSEN_2020

TARGET = Target("trojaned", classes=2)
STRENGTHS = (1e-4, 1e-2, 1.0, 100.0)  # C of scikit-learn, over the number of features: as many as other baselines have
MOST_STANDARD = 10.0  # a weight of a network that nearly diverged would be all of a score
FEW_COLUMNS = 100  # for which a minimum is found to the last digits at no price
UNITS = ("norm", "mean", "largest", "spread", "bias")  # of each class's weights in the last layer
FEATURES = ("weights", "statistics", "table")
MOST_COUNT = 10_000  # of tensors or classes, in a file of somebody's: no network of a zoo is near it


class Logistic:
    """L2 logistic regression on what `features` says."""

    def __init__(self, name: str, features: str) -> None:
        assert features in FEATURES, features
        self.name, self.features = name, features
        self.architecture: Architecture | None = None
        self.design: Design | None = None
        self.tensors = self.classes = 0
        self.shift = self.scale = self.slope = np.zeros(0)
        self.intercept = 0.0
        self._chosen: dict[str, object] = {}

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        view, y, z = train[0], train[1].values[:, 0], validation[1].values[:, 0]
        if self.features == "weights":
            self.architecture = view.layout
        elif self.features == "statistics":
            self.tensors, self.classes = shape_of(view)
        else:
            self.design = Design(view.recipe)
        x = self._read(view)
        self.shift, scale = x.mean(0), x.std(0)
        self.scale = np.where(
            scale > 1e-9 * (1 + np.abs(x).max(0, initial=0.0)), scale, np.inf
        )  # what is constant says nothing
        x, v = self._standard(x), self._standard(self._read(validation[0]))
        basis = None
        if x.shape[1] > len(x):  # the minimum lies in the span of the networks (its penalty is the norm)
            squares, u = np.linalg.eigh(x @ x.T)
            kept = squares > squares.max(initial=0.0) * 1e-10
            size = np.sqrt(squares[kept])
            x, basis = u[:, kept] * size, x.T @ u[:, kept] / size  # (n, r), (F, r)
            v = v @ basis
        best, tried = np.inf, []
        for strength in STRENGTHS:
            slope, intercept = _logistic(x, y, strength / max(1, len(self.shift)))
            loss = _log_loss(v @ slope + intercept, z)
            tried.append({"C": strength, "validation_loss": loss})
            if loss < best:
                best, self.slope, self.intercept = loss, slope if basis is None else basis @ slope, intercept
                self._chosen = {"C": strength}
        self._chosen["tried"] = tried

    def predict(self, view: View) -> Predictions:
        odds = self._standard(self._read(view)) @ self.slope + self.intercept
        return {TARGET.name: two(odds)}

    def rebuild(self) -> None:
        """Check what was read from a file. Raises ValueError where this is no detector that has learned."""
        of = {"weights": self.architecture, "statistics": self.tensors and self.classes, "table": self.design}
        _need(bool(of.get(self.features)), f"it does not know how it reads {self.features!r}")
        _need(all(type(n) is int for n in (self.tensors, self.classes)), "its counts are no whole numbers")
        width = self.tensors * (len(EILERTSEN_2020) + 3) + len(UNITS) * (self.classes + 2)  # as `numbers` makes them
        _need(self.features != "statistics" or len(self.shift) == width, "its arrays are not as long as it reads")
        _need(isinstance(self.architecture, Architecture | None), "its architecture is none")
        if self.design is not None:
            columns = [type(name) is str and type(logarithm) is bool for name, logarithm in self.design.numbers]
            _need(all(columns) and not self.design.levels, "its columns are no numbers")
        own = (self.shift, self.scale, self.slope)
        _need(all(_are_numbers(a) and a.shape == self.slope.shape for a in own), "its arrays are not of one length")
        _need(type(self.intercept) is float and np.isfinite([*self.shift, *self.slope, self.intercept]).all(),
              "what it learned are no finite numbers")  # fmt: skip
        _need(not (np.isnan(self.scale) | (self.scale <= 0)).any(), "its scale is not above 0")

    @property
    def parameters(self) -> int:
        return int(self.slope.size) + 1

    @property
    def chosen(self) -> Mapping[str, object]:
        return self._chosen

    def _standard(self, x: np.ndarray) -> np.ndarray:
        return np.clip((x - self.shift) / self.scale, -MOST_STANDARD, MOST_STANDARD)

    def _read(self, view: View) -> np.ndarray:
        if self.features == "weights":
            assert self.architecture is not None, "`fit` comes first"
            return matrix(view, self.architecture).astype(np.float64)
        if self.features == "statistics":
            return numbers(view, self.tensors, self.classes)
        assert self.design is not None, "`fit` comes first"
        return self.design(view.recipe)


class Boosted:
    """Boosted trees on statistics of tensors and of the last layer's units, with the settings of `tabular`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors = self.classes = 0
        self.best: tabular.Boosting | None = None
        self._chosen: dict[str, object] = {}

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        self.tensors, self.classes = shape_of(train[0])
        x, v = (numbers(side, self.tensors, self.classes) for side in (train[0], validation[0]))
        y, z = train[1].values[:, 0], validation[1].values[:, 0].astype(int)
        least, tried = np.inf, []
        for rate, leaves in tabular.LEAVES:
            model = tabular.Boosting(TARGET, rate, leaves, seed)
            model.fit(x, y)
            loss = float(-np.log(np.maximum(model.predict(v)[np.arange(len(z)), z], 1e-12)).mean())
            tried.append({"rate": rate, "leaves": leaves, "validation_loss": loss})
            if loss < least:
                least, self.best, self._chosen = loss, model, {"rate": rate, "leaves": leaves}
        self._chosen["tried"] = tried

    def predict(self, view: View) -> Predictions:
        assert self.best is not None, "`fit` comes first"
        return {TARGET.name: self.best.predict(numbers(view, self.tensors, self.classes))}

    def rebuild(self) -> None:
        """Check what was read from a file. Raises ValueError where this is no detector that has learned."""
        counts = (self.tensors, self.classes)
        _need(
            all(type(n) is int and 0 < n <= MOST_COUNT for n in counts),
            "its counts are no counts of tensors and classes",
        )
        _need(isinstance(self.best, tabular.Boosting), "it has no trees")
        assert self.best is not None
        forest = self.best.forest
        saved.check(forest)
        _need(np.isfinite(forest.value).all() and np.isfinite(forest.start).all(), "its leaves are no finite numbers")
        _need(0 <= forest.depth <= len(forest.value), "its trees are deeper than they have nodes")

    @property
    def parameters(self) -> int:
        return 0 if self.best is None else self.best.size

    @property
    def chosen(self) -> Mapping[str, object]:
        return self._chosen


class OutlierClass:
    """How far the most outlying class stands from the others in the last layer: median distances, nothing is learned."""

    def __init__(self, name: str, reads: str) -> None:
        assert reads in ("weights", "bias"), reads
        self.name, self.reads = name, reads

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        """Nothing is learned of the networks."""

    def predict(self, view: View) -> Predictions:
        return {TARGET.name: two(self.scores(view))}

    def rebuild(self) -> None:
        """Check what was read from a file. Raises ValueError."""
        _need(self.reads in ("weights", "bias"), f"it does not know how it reads {self.reads!r}")

    def scores(self, view: View) -> np.ndarray:
        """The largest (value − median) / median distance from it over classes, (n,): without bounds, for ranks."""
        found = np.zeros(len(view))
        for architecture, places, weights in groups(view, np.arange(len(view))):
            rows, bias = last_layer(architecture, weights)
            values = rows.sum(2) if self.reads == "weights" else bias  # (m, C)
            middle = np.median(values, axis=1, keepdims=True)
            spread = np.median(np.abs(values - middle), axis=1, keepdims=True)
            found[places] = ((values - middle) / np.maximum(spread, 1e-12)).max(1)
        return np.log1p(np.maximum(found, 0.0))

    @property
    def parameters(self) -> int:
        return 0

    @property
    def chosen(self) -> Mapping[str, object]:
        return {}


# ── features ──────────────────────────────────────────────────────────────────────────


def shape_of(view: View) -> tuple[int, int]:
    """Most tensors of a network, and the classes that all of them tell apart. Raises MixedLayoutsError."""
    used = [view.architectures[i] for i in np.unique(view.architecture)]
    classes = {a.n_outputs for a in used}
    if len(classes) != 1:
        raise MixedLayoutsError(
            f"The networks tell {' and '.join(map(str, sorted(classes)))} classes apart, and their last layers are compared class "
            "by class. Take networks of one number of classes."
        )
    return max(sum(e.role == "parameter" for e in a.layout) for a in used), classes.pop()


def numbers(view: View, tensors: int, classes: int) -> np.ndarray:
    """Statistics of each tensor, and of each class's weights in the last layer in falling order, (n, F).

    In falling order nobody sees which class stands out: what learned of one target knows the others too.
    """
    wrong = {view.architectures[i].n_outputs for i in np.unique(view.architecture)} - {classes}
    if wrong:
        raise MixedLayoutsError(
            f"A network tells {min(wrong)} classes apart, and the detector learned from networks of {classes} classes."
        )
    per_tensor = tabular.aligned(view, tensors, EILERTSEN_2020, skewness=True).reshape(len(view), -1)
    per_unit = np.zeros((len(view), len(UNITS) * (classes + 2)))
    for architecture, places, weights in groups(view, np.arange(len(view))):
        rows, bias = last_layer(architecture, weights)  # (m, C, F), (m, C)
        units = np.stack([np.linalg.norm(rows, axis=2), rows.mean(2), rows.max(2), rows.std(2), bias], 1)  # (m, U, C)
        falling = -np.sort(-units, axis=2)
        ahead = falling[..., :1] - falling[..., 1:2] if classes > 1 else falling[..., :1]
        spread = np.maximum(units.std(2, keepdims=True), 1e-9)
        outlying = (falling[..., :1] - units.mean(2, keepdims=True)) / spread
        per_unit[places] = np.concatenate([falling, ahead, outlying], 2).reshape(len(places), -1)
    return np.hstack([per_tensor, per_unit])


def last_layer(architecture: Architecture, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (m, C, F) float64 and biases (m, C) of the last layer, one row a class; biases 0 where there are none.

    Raises ZooError where the last tensor with rows has not one for each class.
    """
    entries = [e for e in architecture.layout if e.role == "parameter"]
    found: Entry | None = next((e for e in reversed(entries) if len(e.shape) > 1), None)
    if found is None or found.shape[0] != architecture.n_outputs:
        raise ZooError(
            "The networks do not end in a layer with a row of weights for each class, and this detector reads it."
        )
    m = len(weights)
    rows = weights[:, found.offset : found.end].reshape(m, found.shape[0], -1).astype(np.float64)
    own = next((e for e in entries if e.node == found.node and e.shape == found.shape[:1]), None)
    bias = np.zeros((m, found.shape[0])) if own is None else weights[:, own.offset : own.end].astype(np.float64)
    return rows, bias


def two(odds: np.ndarray) -> np.ndarray:
    """Log odds (n,) → chances of the two classes (n, 2)."""
    chance = 1.0 / (1.0 + np.exp(-np.clip(odds, -30.0, 30.0)))
    return np.stack([1.0 - chance, chance], 1)


def _need(good: bool | np.bool_, problem: str) -> None:
    if not good:
        raise ValueError(problem)


def _are_numbers(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.float64


def _logistic(x: np.ndarray, y: np.ndarray, c: float) -> tuple[np.ndarray, float]:
    if not x.shape[1]:  # nothing varies, and scikit-learn takes no table without columns
        return np.zeros(0), float(np.log(y.mean()) - np.log1p(-y.mean()))
    with libraries.needed():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits
    with threadpool_limits(1), warnings.catch_warnings():
        # At the weakest penalty the classes are parted before the minimum is there: what is left is of no consequence.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Of a few numbers the slope may be small from the start, and has to be found all the same.
        few = x.shape[1] <= FEW_COLUMNS
        model = LogisticRegression(C=c, max_iter=1000 if few else 300, tol=1e-8 if few else 1e-3).fit(x, y.astype(int))
    return model.coef_[0], float(model.intercept_[0])


def _log_loss(odds: np.ndarray, y: np.ndarray) -> float:
    return float(np.logaddexp(0.0, np.where(y > 0, -odds, odds)).mean())
