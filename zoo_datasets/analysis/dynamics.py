"""A zoo of populations → Morse graphs of their training, how sure these are, and what they are good for.

In:  a zoo with a snapshot early in training and one at the end (or many, for the map of a step).
Out: numbers, a table of networks, and pictures: the analysis of Eslami et al., "Global Dynamics of
     Training" as published (arXiv 2106.07683), beside one that says what it knows.

For each point of the grid and each block of replicates: coordinates, Gaussian process, cubical
grid, Morse sets, order and regions of attraction, in three readings (`readings.py`); for
the first block of each point also resamples and resolutions (`robustness.py`); and whether
any of it tells good networks from others (`guidance.py`). Start and end are joined by id.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.report import Report
from zoo_datasets.errors import ZooError, unknown

if TYPE_CHECKING:
    from zoo_datasets.analysis import readings
    from zoo_datasets.analysis.populations import Population, Predictions

log = logging.getLogger(__name__)
MOST_PICTURED = 8  # levels with portraits of their own
HELD_OUT_SUBDIVISIONS = 12  # a fifth of the time of 15, five times over


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `analyze dynamics`."""
    add = parser.add_argument
    add("--coordinates", choices=("spread", "pca", "modes", "autoencoder"), default="spread",
        help="in which training is a map: weights of largest spread, as published; principal components; directions "
        "that determine their own future; an autoencoder's code (default: spread)")  # fmt: skip
    add("--dimensions", type=int, default=2, choices=(2, 3, 4), help="how many coordinates (default: 2)")
    add("--subdivisions", type=int, default=15, help="2^this many boxes (default: 15, as published)")
    add(
        "--confidence", type=float, default=0.95, help="that a box's image holds the map at its corners (default: 0.95)"
    )
    add(
        "--simultaneous", choices=("box", "grid"), default="box", help="for each box, or for all at once (default: box)"
    )
    add("--prior", choices=("constant", "identity", "zero"), default="constant",
        help="of our map, where nothing was seen: the mean image, no move, the origin (default: constant)")  # fmt: skip
    add(
        "--map",
        choices=("whole", "step"),
        default="whole",
        help="from start to end, or between snapshots one step apart",
    )
    add("--start-epoch", type=float, default=2.0, help="the epoch that counts as start (default: 2, as published)")
    add("--population", type=int, default=100, metavar="N", help="replicates that make a population (default: 100)")
    add(
        "--resamples",
        type=int,
        default=20,
        metavar="N",
        help="bootstrap resamples of the first population (default: 20)",
    )
    add("--level", action="append", default=[], metavar="AXIS=LEVEL", help="only this level; may be given again")
    add("--data", metavar="DIR", help="folder of local sources (default: $ZOO_DATA)")


def run(options: argparse.Namespace) -> Report:
    """Analyze the zoo; the report of what was written. Raises ZooError."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # a second thread makes Gaussian processes of a hundred points several times slower
        return _run(options)


def _run(options: argparse.Namespace) -> Report:
    from zoo_datasets.analysis import dynamics_pictures, guidance, readings
    from zoo_datasets.analysis.populations import Population, populations, predictions
    from zoo_datasets.analysis.surrogate import Recipe
    from zoo_datasets.zoo import open_zoo

    settings = readings.Settings(options.subdivisions, options.confidence, options.simultaneous, Recipe(options.prior))
    zoo = open_zoo(options.path)
    chosen = _levels(populations(zoo, options.population, options.start_epoch), options.level)
    names = ("coordinates", "dimensions", "subdivisions", "confidence", "simultaneous", "prior", "map", "start_epoch",
             "population", "resamples", "level", "seed")  # fmt: skip
    report = Report("dynamics", [zoo], {k: getattr(options, k) for k in names}, options.out)
    studies, levels, rows = [], [], []
    for level in dict.fromkeys(tuple(p.level.items()) for p in chosen):
        parts = [p for p in chosen if tuple(p.level.items()) == level]
        said = [predictions(p, options.data) for p in parts]
        for population, predicted in zip(parts, said, strict=True):
            first = population is parts[0]
            study = Study(population, predicted, settings, options, robust=first and options.resamples > 0)
            log.info("%s: %s", population.name, study.sentence())
            studies.append(study)
            rows.append(study.table())
        whole = Population.joined(parts)
        levels.append(_level(whole, parts, said, settings, options))
    report.numbers["tests"] = plain(guidance.correct([s.numbers for s in studies], levels))
    report.numbers["levels"] = plain(levels)
    report.numbers["populations"] = plain([s.numbers for s in studies])
    report.table("networks", _concat(rows))
    firsts = [s for s in studies if s.robust][:MOST_PICTURED] or studies[:MOST_PICTURED]
    for name, figure in dynamics_pictures.draw(firsts, levels):
        report.figure(name, figure)
    report.close()
    return report


class Study:
    """One population, read in every way."""

    def __init__(
        self, population: Population, predicted: Predictions, settings: readings.Settings, options: argparse.Namespace,
        robust: bool,
    ) -> None:  # fmt: skip
        from zoo_datasets.analysis import coordinates, guidance, readings, robustness
        from zoo_datasets.analysis.cubes import Cubes
        from zoo_datasets.analysis.populations import pairs

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
    from zoo_datasets.analysis import conley

    return {"conley": conley.indices(reading.graph)} if conley.available() else {}


def _kinds(population: Population, options: argparse.Namespace) -> list[dict[str, Any]]:
    """How well few coordinates determine their own future, for each kind, against ends dealt at random."""
    from zoo_datasets.analysis import coordinates, guidance, surrogate
    from zoo_datasets.analysis.populations import pairs

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


def _level(
    whole: Population, parts: Sequence[Population], said: Sequence[Predictions], settings: readings.Settings,
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """All populations of a level together: accuracy with intervals, and what the start foretells."""
    import dataclasses

    from zoo_datasets import metrics
    from zoo_datasets.analysis import guidance, readings

    accuracy = np.concatenate([p.balanced for p in said])
    swapped = np.concatenate([p.balanced_swapped for p in said])

    def mean(values: np.ndarray) -> dict[str, Any]:
        zeros = np.zeros(len(values))
        return metrics.interval("difference", zeros, values, whole.groups, seed=options.seed).to_json() | {
            "metric": "mean"
        }

    coarse = dataclasses.replace(settings, subdivisions=min(settings.subdivisions, HELD_OUT_SUBDIVISIONS))
    return {
        "level": dict(whole.level), "n": len(whole), "n_populations": len(parts), "n_diverged": whole.n_diverged,
        "balanced_accuracy": mean(accuracy), "balanced_accuracy_published": mean(swapped),
        "population_means": [p.balanced.mean() for p in said],
        "population_means_published": [p.balanced_swapped.mean() for p in said],
        "entropy_medians": [np.median(p.entropy()) for p in said],
        "foretell": guidance.foretell(
            whole, accuracy, options.coordinates, readings.READINGS, coarse, options.dimensions, options.seed,
            how=options.map,
        ),
    }  # fmt: skip


def _levels(found: list[Population], wanted: Sequence[str]) -> list[Population]:
    for text in wanted:
        axis, _, label = text.partition("=")
        known = list(found[0].level)
        if axis not in known:
            raise ZooError(unknown("axis", axis, known, found[0].zoo.name))
        kept = [p for p in found if p.level[axis] == label]
        if not kept:
            raise ZooError(unknown(f"level of {axis}", label, {p.level[axis] for p in found}, found[0].zoo.name))
        found = kept
    return found


def _concat(tables: Sequence[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_tables(tables)


def plain(value: Any) -> Any:
    """As JSON holds it: arrays as lists, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
