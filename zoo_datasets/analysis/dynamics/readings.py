"""Starts and ends in a few coordinates → Morse graphs, read three ways, with what each rests on.

In:  x, y [n, d]: where networks start and end (or stand before and after a step).
Out: a `Reading`: surrogate, Morse graph, and per cell how far it is from anything seen.

`published` is the analysis of Eslami et al. (2021): their process, its mean alone. `mean` is
the mean of ours, which fits amplitude and scale. `confident` widens each image by what ours
does not know: in a box, all corners and coordinates of the map lie inside with at least the
stated probability (Bonferroni); between corners the padding of one cell stands for it. With
`simultaneous="grid"` the same holds for all boxes at once, which bounds the probability
that the Morse graph is an outer approximation of the true one.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import numpy as np

from zoo_datasets.analysis.dynamics import surrogate
from zoo_datasets.analysis.dynamics.cubes import Cubes, images
from zoo_datasets.analysis.dynamics.morse import MorseGraph, morse_graph
from zoo_datasets.errors import unknown

READINGS = ("published", "mean", "confident")
# More than this share of the prior's variance left: the surrogate says what it was told to say.
MOST_DOUBT = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a Morse graph is made."""

    subdivisions: int = 15
    confidence: float = 0.95
    simultaneous: str = "box"
    recipe: surrogate.Recipe = surrogate.OURS

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"The confidence is {self.confidence}; it lies between 0 and 1.")
        if self.simultaneous not in ("box", "grid"):
            raise ValueError(unknown("scope", self.simultaneous, ("box", "grid")))

    def z(self, cubes: Cubes) -> float:
        """Standard deviations on each side that hold every corner at once."""
        from scipy.stats import norm

        d = cubes.dimension
        corners = 2**d if self.simultaneous == "box" else int(np.prod([n + 1 for n in cubes.shape]))
        return float(norm.isf((1 - self.confidence) / (2 * d * corners)))


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read a population."""

    name: str
    z: float
    surrogate: surrogate.Surrogate
    graph: MorseGraph
    x: np.ndarray
    y: np.ndarray
    seconds: dict[str, float]  # fit, predict at all corners, graph

    @functools.cached_property
    def doubt(self) -> np.ndarray:
        """Per cell the share of the prior's variance that the data leave, at its center, [n]."""
        _, std = self.surrogate.predict(self.graph.cubes.centers())
        return ((std / self.surrogate.prior_std) ** 2).max(1)

    @functools.cached_property
    def beyond(self) -> np.ndarray:
        """Cells farther from every start than any start is from its nearest neighbor, bool [n]: nothing was seen there."""
        return beyond_data(self.x, self.graph.cubes.centers())

    def numbers(self) -> dict[str, Any]:
        """What a report says of it."""
        recurrent = self.graph.node >= 0
        regions = self.graph.regions(strict=self.z > 0)
        sets = np.arange(len(self.graph))
        seen = np.array([bool((~self.beyond[self.graph.node == k]).any()) for k in sets], bool)

        def share(mask: np.ndarray) -> float | None:
            return float(mask[recurrent].mean()) if recurrent.any() else None

        return {
            "z": self.z, "cells": self.graph.cubes.n, "lower": self.graph.cubes.lower, "upper": self.graph.cubes.upper,
            "morse_sets": len(self.graph), "sizes": self.graph.sizes, "minimal": self.graph.minimal,
            "hasse": sorted(self.graph.hasse.edges), "form": self.graph.form(), "form_seen": self.graph.form(sets[seen]),
            "recurrent_cells": int(recurrent.sum()),
            "region_cells": {str(k): int((regions == k).sum()) for k in np.unique(regions[regions >= 0])},
            "undecided_cells": int((regions == -1).sum()), "outside_cells": int((regions == -2).sum()),
            "may_leave_cells": int(self.graph.may_leave.sum()),
            "beyond_data": {"cells": float(self.beyond.mean()), "recurrent": share(self.beyond)},
            "doubtful": {"cells": float((self.doubt > MOST_DOUBT).mean()),
                         "recurrent": share(self.doubt > MOST_DOUBT)},
            "surrogate": {
                "r2": self.surrogate.r2(self.x, self.y), "noise_std": self.surrogate.noise_std,
                "prior_mean": self.surrogate.recipe.prior, "prior_std": self.surrogate.prior_std,
                "length": self.surrogate.length, "notes": self.surrogate.notes, "kernel": str(self.surrogate.process.kernel_),
            },
        }  # fmt: skip


def read(
    name: str, x: np.ndarray, y: np.ndarray, cubes: Cubes, settings: Settings = Settings(),
    fitted: surrogate.Surrogate | None = None,
) -> Reading:  # fmt: skip
    """Read starts and ends x, y [n, d], row by row the same network, on a given grid; `fitted` to them before, if given."""
    if name not in READINGS:
        raise ValueError(unknown("reading", name, READINGS))
    t0 = time.perf_counter()
    fitted = fitted or surrogate.fit(x, y, surrogate.PUBLISHED if name == "published" else settings.recipe)
    t1 = time.perf_counter()
    z = settings.z(cubes) if name == "confident" else 0.0
    if z:
        mean, std = fitted.predict(cubes.corners())
        low, high = mean - z * std, mean + z * std
    else:
        low = high = fitted.mean(cubes.corners())
    t2 = time.perf_counter()
    graph = morse_graph(images(cubes, low, high))
    seconds = {"fit": t1 - t0, "predict": t2 - t1, "graph": time.perf_counter() - t2}
    return Reading(name, z, fitted, graph, np.asarray(x), np.asarray(y), seconds)


def beyond_data(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points are farther from every row of x than the largest gap between neighbors in x."""
    from scipy.spatial import cKDTree

    tree = cKDTree(np.unique(x, axis=0))
    gap = tree.query(tree.data, 2)[0][:, 1].max() if tree.n > 1 else 0.0
    return tree.query(points)[0] > gap
