"""One population read in every way: the value that numbers, tables and pictures of a dynamics study are made of.

Row i of every array is the network `population.ids[i]`; a map between steps has pairs of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.analysis.dynamics.coordinates import Coordinates
from zoo_datasets.analysis.dynamics.cubes import Cubes
from zoo_datasets.analysis.dynamics.populations import Population, Predictions
from zoo_datasets.analysis.dynamics.readings import Reading
from zoo_datasets.analysis.dynamics.robustness import Resampled


@dataclasses.dataclass(frozen=True)
class Study:
    """A population in d coordinates; readings, fates and resamples by the name of the reading."""

    population: Population
    predicted: Predictions
    coordinates: Coordinates
    start: np.ndarray  # [n, d]
    end: np.ndarray  # [n, d]
    cubes: Cubes
    spread: list[tuple[str, float]]  # kernel weights and how much their final values differ, the most first
    readings: dict[str, Reading]
    fates: dict[str, dict[str, np.ndarray]]  # by reading: of each "start" and "end", str [n]
    resampled: dict[str, Resampled]  # empty where robustness was not looked at
    resolutions: dict[str, list[dict[str, Any]]]
    numbers: dict[str, Any]  # as the results have them

    @property
    def sentence(self) -> str:
        """One line for the log: wall times differ from run to run, so the numbers leave them out."""
        sets = [f"{n} {len(r.graph)} Morse sets ({sum(r.seconds.values()):.2f} s)" for n, r in self.readings.items()]
        accuracy = self.predicted.balanced.mean()
        return f"{len(self.population)} networks, balanced accuracy {accuracy:.3f}; {', '.join(sets)}"

    @property
    def table(self) -> pa.Table:
        """One row per network."""
        n = len(self.population)
        columns: dict[str, Any] = {"model_id": list(self.population.ids), "init_group": self.population.groups.tolist()}
        columns |= {axis: [level] * n for axis, level in self.population.level.items()}
        columns["population"] = [self.population.number] * n
        columns["balanced_accuracy"] = self.predicted.balanced
        columns["balanced_accuracy_published"] = self.predicted.balanced_swapped
        for when, points in (("start", self.start), ("end", self.end)):
            columns |= {f"{when}_{i + 1}": points[:, i] for i in range(points.shape[1])}
            columns |= {f"{when}_fate_{name}": fates[when].tolist() for name, fates in self.fates.items()}
        return pa.table(columns)
