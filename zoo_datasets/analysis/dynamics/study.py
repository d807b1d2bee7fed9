"""What one level of a dynamics study found: the value that pictures and tables are made of."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from zoo_datasets.analysis.dynamics import readings
    from zoo_datasets.analysis.dynamics.populations import Population, Predictions


class Study:
    """One population, read in every way."""

    def __init__(
        self, population: Population, predicted: Predictions, settings: readings.Settings, options: argparse.Namespace,
        robust: bool,
    ) -> None:  # fmt: skip
        from zoo_datasets.analysis.dynamics import coordinates, guidance, readings, robustness
        from zoo_datasets.analysis.dynamics.cubes import Cubes
        from zoo_datasets.analysis.dynamics.populations import pairs

        self.population, self.predicted, self.robust = population, predicted, robust
        layout = population.architecture.layout
        before, after, rows = pairs(population, options.map)
        self.coordinates = coordinates.choose(
            options.coordinates, before, after, population.end, layout, options.dimensions, options.seed
        )
        encode = self.coordinates.encode
        self.x, self.y = encode(before), encode(after)
        self.start, self.end = encode(population.start), encode(population.end)
        self.groups = population.groups[rows]
        self.cubes = Cubes.around(np.concatenate([self.x, self.y, self.start]), settings.subdivisions)
        self.readings = {n: readings.read(n, self.x, self.y, self.cubes, settings) for n in readings.READINGS}
        self.fates = {n: {"start": guidance.fates(r, self.start), "end": guidance.fates(r, self.end)}
                      for n, r in self.readings.items()}  # fmt: skip
        self.spread = coordinates.spread(population.end, layout)
        accuracy, swapped = predicted.balanced, predicted.balanced_swapped
        self.numbers: dict[str, Any] = {
            "name": population.name, "level": dict(population.level), "population": population.number,
            "n": len(population), "n_diverged": population.n_diverged, "n_test": len(predicted.labels),
            "pairs": len(self.x), "coordinates": list(self.coordinates.labels), "spread": self.spread,
            "balanced_accuracy": accuracy.mean(), "balanced_accuracy_published": swapped.mean(),
            "entropy_median": np.median(predicted.entropy()),
            "readings": {n: r.numbers() | _indices(r) for n, r in self.readings.items()},
            "guidance": {n: {at: guidance.association(labels, predicted, options.seed) for at, labels in f.items()}
                         for n, f in self.fates.items()},
        }  # fmt: skip
        # Wall times differ from run to run, so they are logged and left out of the numbers.
        self.resampled: dict[str, robustness.Resampled] = {}
        self.levels: dict[str, list[dict]] = {}
        if robust:
            k = settings.subdivisions
            for name, reading in self.readings.items():
                self.resampled[name] = robustness.resample(
                    reading, self.groups, settings, options.resamples, options.seed
                )
                self.levels[name] = robustness.resolutions(reading, settings, tuple(range(max(k - 4, 4), k + 2)))
            self.numbers["resamples"] = {n: r.numbers() for n, r in self.resampled.items()}
            self.numbers["resolutions"] = self.levels
            self.numbers["coordinate_kinds"] = _kinds(population, options)

    def sentence(self) -> str:
        """One line for the log."""
        parts = [f"{n} {len(r.graph)} Morse sets ({sum(r.seconds.values()):.2f} s)" for n, r in self.readings.items()]
        return f"{len(self.population)} networks, balanced accuracy {self.predicted.balanced.mean():.3f}; " + ", ".join(
            parts
        )

    def table(self) -> Any:
        """One row per network."""
        import pyarrow as pa

        n = len(self.population)
        columns: dict[str, Any] = {"model_id": list(self.population.ids), "init_group": self.population.groups.tolist()}
        columns |= {axis: [level] * n for axis, level in self.population.level.items()}
        columns["population"] = [self.population.number] * n
        columns["balanced_accuracy"], columns["balanced_accuracy_published"] = (
            self.predicted.balanced,
            self.predicted.balanced_swapped,
        )
        for at, points in (("start", self.start), ("end", self.end)):
            columns |= {f"{at}_{i + 1}": points[:, i] for i in range(points.shape[1])}
            columns |= {f"{at}_fate_{name}": fates[at].tolist() for name, fates in self.fates.items()}
        return pa.table(columns)


def _indices(reading: readings.Reading) -> dict[str, Any]:
    """The Conley indices of the Morse sets, where CMGDB is installed."""
    from zoo_datasets.analysis.dynamics import conley

    return {"conley": conley.indices(reading.graph)} if conley.available() else {}


def _kinds(population: Population, options: argparse.Namespace) -> list[dict[str, Any]]:
    """How well few coordinates determine their own future, for each kind, against ends dealt at random."""
    from zoo_datasets.analysis.dynamics import coordinates, guidance, surrogate
    from zoo_datasets.analysis.dynamics.populations import pairs

    before, after, rows = pairs(population, options.map)
    order = guidance.generator(options.seed, "shuffled ends").permutation(len(rows))
    found = []
    for kind in coordinates.KINDS:
        layout = population.architecture.layout
        one = coordinates.choose(kind, before, after, population.end, layout, options.dimensions, options.seed)
        x, y, groups = one.encode(before), one.encode(after), population.groups[rows]
        recipe = surrogate.Recipe(options.prior)
        found.append({
            "kind": kind, "labels": one.labels, "reconstruction_r2": one.reconstruction_r2,
            "r2": surrogate.fit(x, y, recipe).r2(x, y), "r2_held_out": surrogate.held_out_r2(x, y, groups, recipe),
            "r2_shuffled": surrogate.fit(x, y[order], recipe).r2(x, y[order]),
            "r2_shuffled_held_out": surrogate.held_out_r2(x, y[order], groups, recipe),
        })  # fmt: skip
    return found
