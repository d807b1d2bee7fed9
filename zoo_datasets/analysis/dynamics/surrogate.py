"""Points and their images → a Gaussian process that stands for the map, with its doubt.

In:  x [n, d], y [n, e]; what the map is taken to be where there is no data (the prior).
Out: a `Surrogate`: mean and standard deviation of the map anywhere.

Two recipes. `PUBLISHED` is that of Eslami et al. (2021): squared exponential of length 0.5
and amplitude 1 in raw units plus noise, prior mean 0, only the mean used. `OURS` scales inputs
and outputs, fits the amplitude too, and its prior mean is the mean of the images: far from
data every point is sent to the middle of what was seen. `identity` instead leaves it where
it is, which makes all unknown space recurrent. Needs scikit-learn.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from zoo_datasets.errors import unknown

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

PRIORS = ("zero", "constant", "identity")
# A prediction of 32,768 corners from 500 points takes 130 MB at once; pieces keep it in the cache.
POINTS_AT_ONCE = 4096
FEWEST_PAIRS = 3


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a surrogate is fitted. Lengths are in units of x, of its standard deviation where scaled."""

    prior: str = "constant"  # mean of the map without data
    scaled: bool = True
    amplitude: bool = True  # fitted; else 1
    length: float = 1.0  # where the fit starts
    shortest: float = 0.1
    longest: float = 10.0

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise ValueError(unknown("prior", self.prior, PRIORS))


PUBLISHED = Recipe("zero", scaled=False, amplitude=False, length=0.5, shortest=0.01, longest=2.0)
OURS = Recipe()


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A fitted map; `predict` gives its mean and how sure it is."""

    recipe: Recipe
    process: GaussianProcessRegressor
    x_middle: np.ndarray  # [d]
    x_scale: np.ndarray
    y_middle: np.ndarray  # [e]
    y_scale: np.ndarray
    notes: tuple[str, ...]  # what the fit warned of

    @property
    def noise_std(self) -> np.ndarray:
        """Scatter of images around the map, [e]: what the coordinates do not tell of a network."""
        return np.sqrt(self.process.kernel_.k2.noise_level) * self.y_scale

    @property
    def prior_std(self) -> np.ndarray:
        """Of the map far from data, [e]."""
        return np.sqrt(self.process.kernel_.k1.diag(np.zeros((1, 1)))[0]) * self.y_scale

    @property
    def length(self) -> np.ndarray:
        """Over which the map changes, per input [d], in its units."""
        kernel = self.process.kernel_.k1
        return np.asarray((kernel.k2 if self.recipe.amplitude else kernel).length_scale * self.x_scale)

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Of the map at x [m, d]: [m, e]."""
        x = np.asarray(x, np.float64)
        pieces = [x[a : a + POINTS_AT_ONCE] for a in range(0, len(x), POINTS_AT_ONCE)]
        scaled = np.concatenate([self.process.predict(self._in(p)).reshape(len(p), -1) for p in pieces])
        return self._out(scaled, x)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the map itself, without the scatter of networks: [m, e] each."""
        x = np.asarray(x, np.float64)
        means, variances = [], []
        noise = self.process.kernel_.k2.noise_level
        for start in range(0, len(x), POINTS_AT_ONCE):
            piece = self._in(x[start : start + POINTS_AT_ONCE])
            mean, std = self.process.predict(piece, return_std=True)
            means.append(mean.reshape(len(piece), -1))
            # One kernel serves all outputs, so their scaled variances are equal.
            variances.append(std.reshape(len(piece), -1) ** 2 - noise)
        return self._out(np.concatenate(means), x), np.sqrt(np.maximum(np.concatenate(variances), 0)) * self.y_scale

    def r2(self, x: np.ndarray, y: np.ndarray) -> float:
        """Share of the images' variance that the map explains, over all coordinates; below 0 is worse than their mean."""
        return float(1 - ((y - self.mean(x)) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())

    def _in(self, x: np.ndarray) -> np.ndarray:
        return (x - self.x_middle) / self.x_scale

    def _out(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return y * self.y_scale + self.y_middle + (x if self.recipe.prior == "identity" else 0)


def fit(x: np.ndarray, y: np.ndarray, recipe: Recipe = OURS) -> Surrogate:
    """The surrogate of points x [n, d] with images y [n, e], in the same order. No randomness."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) != len(y) or len(x) < FEWEST_PAIRS or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"Points {x.shape} and images {y.shape}: at least {FEWEST_PAIRS} finite pairs are needed.")
    target = y - x if recipe.prior == "identity" else y
    d, e = x.shape[1], y.shape[1]
    if recipe.scaled:
        x_middle, x_scale = x.mean(0), _spread(x)
        # Under the prior "identity" the offset is 0 by definition; else it is the mean image.
        y_middle = np.zeros(e) if recipe.prior in ("identity", "zero") else target.mean(0)
        y_scale = _spread(target)
    else:
        x_middle, x_scale, y_middle, y_scale = np.zeros(d), np.ones(d), np.zeros(e), np.ones(e)
        if recipe.prior == "constant":
            y_middle = target.mean(0)
    smooth = RBF(recipe.length, (recipe.shortest, recipe.longest))
    kernel = (ConstantKernel(1.0, (1e-2, 1e2)) * smooth if recipe.amplitude else smooth) + WhiteKernel()
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process.fit((x - x_middle) / x_scale, (target - y_middle) / y_scale)
    notes = []
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        notes.append(str(warning.message).splitlines()[0])
    return Surrogate(recipe, process, x_middle, x_scale, y_middle, y_scale, tuple(notes))


def _spread(values: np.ndarray) -> np.ndarray:
    std = values.std(0)
    return np.where(std > 0, std, 1.0)


def held_out_r2(
    coded: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], groups: np.ndarray, recipe: Recipe = OURS, folds: int = 5
) -> float:  # fmt: skip
    """R² on networks that nothing was learned from: whole groups are held out, `folds` times. NaN where too few would be left.

    `coded` gives all pairs x and y (m, d) in the coordinates that the pairs of some rows choose: those of a fold know nothing of the
    ends that are held out. Folds have coordinates of their own: errors are a share of what the mean of those learned from leaves there,
    of those held out, since coordinates may be chosen for how much the others differ in them.
    """
    from sklearn.model_selection import GroupKFold

    n_groups, largest = len(np.unique(groups)), np.unique(groups, return_counts=True)[1].max()
    if n_groups < 2 or len(groups) - largest < FEWEST_PAIRS:
        return np.nan
    left = 0.0
    for train, test in GroupKFold(min(folds, n_groups)).split(groups, groups=groups):
        x, y = coded(train)
        error = ((y[test] - fit(x[train], y[train], recipe).mean(x[test])) ** 2).sum()
        left += len(test) / len(groups) * float(error / ((y[test] - y[train].mean(0)) ** 2).sum())
    return 1 - left


def unmoved_r2(x: np.ndarray, y: np.ndarray) -> float:
    """R² of "nothing moves", x itself for its image: what a map must exceed where start and end lie close."""
    return float(1 - ((y - x) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
