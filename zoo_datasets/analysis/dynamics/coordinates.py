"""Weight vectors → the few coordinates in which training is looked at as a map.

In:  weights before and after, [m, P], row by row the same network; final weights [n, P]; the layout.
Out: `Coordinates`, which take any weight vector of that layout to d numbers.

`spread` is the published choice: the d kernel weights whose final values differ most between
networks. `pca`: the d directions of largest variance over all of them.
`modes`: learned from the dynamics, the d directions in which the map is most nearly closed. A
map in few coordinates makes sense only if they determine their own future; for a linear
map A the left eigenvectors are exactly that (dynamic mode decomposition, Schmid 2010), and of
them the ones that grow most carry what happens. `autoencoder`: the bottleneck of a small
one, for weights on a bent surface. All look at kernels only, as published, and never at
accuracy. Needs scikit-learn.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from zoo_datasets.errors import unknown
from zoo_datasets.networks.layout import Entry

COORDINATES = ("spread", "pca", "modes", "autoencoder")
HIDDEN = 16  # units on each side of the bottleneck: some hundred points cannot feed more
WEIGHT_PENALTY = 1e-3
MOST_ITERATIONS = 500


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """`encode` takes weights [n, P] to [n, d]; `labels` name the axes."""

    kind: str
    labels: tuple[str, ...]
    reconstruction_r2: float  # share of the kernels' variance that d numbers keep
    encode: Callable[[np.ndarray], np.ndarray] = dataclasses.field(repr=False)


def kernels(layout: Sequence[Entry]) -> tuple[np.ndarray, list[str]]:
    """Places of kernel weights in the vector, and their names: no biases, norms or buffers."""
    places: list[int] = []
    names: list[str] = []
    for entry in layout:
        if entry.role == "parameter" and len(entry.shape) > 1:
            places += range(entry.offset, entry.end)
            names += [f"{entry.name}{list(map(int, at))}" for at in np.ndindex(*entry.shape)]
    return np.array(places, np.int64), names


def spread(end: np.ndarray, layout: Sequence[Entry]) -> list[tuple[str, float]]:
    """Every kernel weight and the standard deviation of its final value over networks, largest first."""
    places, names = kernels(layout)
    std = np.asarray(end, np.float64)[:, places].std(0)
    return [(names[i], float(std[i])) for i in np.argsort(-std, kind="stable")]


def choose(
    kind: str, before: np.ndarray, after: np.ndarray, final: np.ndarray, layout: Sequence[Entry], d: int = 2,
    seed: int = 0,
) -> Coordinates:  # fmt: skip
    """The coordinates of a population. Raises ValueError for an unknown kind or too many dimensions."""
    if kind not in COORDINATES:
        raise ValueError(unknown("kind of coordinates", kind, COORDINATES))
    places, names = kernels(layout)
    if not 2 <= d <= min(4, len(places)):
        raise ValueError(f"{d} dimensions of {len(places)} kernel weights; 2 to 4 are possible.")
    both = np.concatenate([before, after])[:, places].astype(np.float64)
    if kind == "spread":
        chosen = np.argsort(-np.asarray(final, np.float64)[:, places].std(0), kind="stable")[:d]
        columns = places[chosen]
        share = both[:, chosen].var(0).sum() / both.var(0).sum()
        return Coordinates(
            kind, tuple(names[i] for i in chosen), float(share), lambda w: w[:, columns].astype(np.float64)
        )
    if kind == "pca":
        return _pca(both, places, d)
    if kind == "modes":
        return _modes(both[: len(before)], both[len(before) :], places, d)
    return _autoencoder(both, places, d, seed)


def _pca(both: np.ndarray, places: np.ndarray, d: int) -> Coordinates:
    from sklearn.decomposition import PCA

    pca = PCA(d, svd_solver="full").fit(both)
    share = float(pca.explained_variance_ratio_.sum())
    labels = tuple(f"principal component {i + 1}" for i in range(d))
    return Coordinates("pca", labels, share, lambda w: pca.transform(w[:, places].astype(np.float64)))


def _modes(start: np.ndarray, end: np.ndarray, places: np.ndarray, d: int) -> Coordinates:
    from sklearn.linear_model import RidgeCV

    both = np.concatenate([start, end])
    middle, scale = both.mean(0), both.std()
    # end ≈ A start + b, the penalty chosen by leave-one-out: 58 weights and 100 networks need one.
    linear = RidgeCV(np.logspace(-4, 4, 17)).fit((start - middle) / scale, (end - middle) / scale)
    values, vectors = np.linalg.eig(linear.coef_.T)
    order = np.lexsort((values.imag, -np.abs(values).round(9)))
    # A complex pair spans a plane: the real and the imaginary part of one of them.
    spans = [part for i in order if values[i].imag >= 0
             for part in ([vectors[:, i].real, vectors[:, i].imag] if values[i].imag > 0 else [vectors[:, i].real])]  # fmt: skip
    directions = np.stack(spans[:d], 1)  # (P', d)
    codes = (both - middle) @ directions
    largest = np.abs(codes).argmax(0)
    directions = directions * np.sign(codes[largest, range(d)]) / codes.std(0)  # a sign and a unit
    scaled = codes / codes.std(0)
    back = np.linalg.lstsq(np.column_stack([scaled, np.ones(len(scaled))]), both, rcond=None)[0]
    left = both - np.column_stack([scaled, np.ones(len(scaled))]) @ back
    labels = tuple(f"mode {i + 1}" for i in range(d))
    share = 1 - (left**2).sum() / ((both - middle) ** 2).sum()
    return Coordinates("modes", labels, float(share), lambda w: (w[:, places].astype(np.float64) - middle) @ directions)


def _autoencoder(both: np.ndarray, places: np.ndarray, d: int, seed: int) -> Coordinates:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    middle, scale = both.mean(0), both.std()
    points = (both - middle) / scale
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN, d, HIDDEN), activation="tanh", solver="lbfgs", alpha=WEIGHT_PENALTY,
        max_iter=MOST_ITERATIONS, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        # It stops at a number of iterations on purpose: an encoder, not an optimum, is wanted.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(points, points)
    share = 1 - ((points - network.predict(points)) ** 2).sum() / (points**2).sum()

    def code(w: np.ndarray) -> np.ndarray:
        x = (w[:, places].astype(np.float64) - middle) / scale
        for kernel, bias in zip(network.coefs_[:2], network.intercepts_[:2], strict=True):
            x = np.tanh(x @ kernel + bias)
        return x

    # Into units of its own spread, so that boxes and margins mean the same as elsewhere.
    codes = code(_full(both, places))
    code_middle, code_std = codes.mean(0), codes.std(0)
    code_std = np.where(code_std > 0, code_std, 1.0)
    labels = tuple(f"code {i + 1}" for i in range(d))
    return Coordinates("autoencoder", labels, float(share), lambda w: (code(w) - code_middle) / code_std)


def _full(kernel_rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of kernels as rows of whole vectors, zero elsewhere."""
    out = np.zeros((len(kernel_rows), places.max() + 1))
    out[:, places] = kernel_rows
    return out
