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
import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import intervals
from zoo_datasets.analysis.dynamics import (
    conley,
    coordinates,
    guidance,
    pictures,
    populations,
    readings,
    robustness,
    surrogate,
)
from zoo_datasets.analysis.dynamics.cubes import MOST_SUBDIVISIONS, Cubes
from zoo_datasets.analysis.dynamics.populations import Population, Predictions
from zoo_datasets.analysis.dynamics.study import Study
from zoo_datasets.analysis.results import Results
from zoo_datasets.core import command, meters, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.zoo import open_zoo

log = logging.getLogger(__name__)
MOST_PICTURED = 8  # levels with portraits of their own
HELD_OUT_SUBDIVISIONS = 12  # a fifth of the time of 15, five times over


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `analyze dynamics`."""
    add = parser.add_argument
    add("--coordinates", choices=coordinates.COORDINATES, default="spread",
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
    add(
        "--population",
        type=command.count,
        default=100,
        metavar="N",
        help="replicates that make a population (default: 100)",
    )
    add(
        "--resamples",
        type=command.from_zero,
        default=20,
        metavar="N",
        help="bootstrap resamples of the first population (default: 20)",
    )
    add("--level", action="append", default=[], metavar="AXIS=LEVEL", help="only this level; may be given again")
    add("--data", metavar="DIR", help="folder of local sources (default: $ZOO_DATA)")


def run(options: argparse.Namespace) -> Results:
    """Analyze the zoo; what was written. Raises ZooError."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # a second thread makes Gaussian processes of a hundred points several times slower
        return _run(options)


def _run(options: argparse.Namespace) -> Results:
    _check(options)
    recipe = surrogate.Recipe(options.prior)
    settings = readings.Settings(options.subdivisions, options.confidence, options.simultaneous, recipe)
    zoo = open_zoo(options.path)
    chosen = _at_levels(populations.populations(zoo, options.population, options.start_epoch), options.level)
    _check_dimensions(chosen, options.dimensions)
    names = ("coordinates", "dimensions", "subdivisions", "confidence", "simultaneous", "prior", "map", "start_epoch",
             "population", "resamples", "level", "seed")  # fmt: skip
    results = Results("dynamics", [zoo], {k: getattr(options, k) for k in names}, options.out)
    studies, levels = [], []
    of_levels = dict.fromkeys(tuple(p.level.items()) for p in chosen)
    for level in meters.over(of_levels, "populations by level", "levels"):
        blocks = [p for p in chosen if tuple(p.level.items()) == level]
        predicted = [populations.predictions(p, options.data) for p in blocks]
        for i, population in enumerate(meters.over(blocks, "Morse graphs", "populations")):
            one = study(population, predicted[i], settings, options, robust=not i and options.resamples > 0)
            log.info("%s: %s", population.name, one.sentence)
            studies.append(one)
        levels.append(_level(Population.joined(blocks), predicted, settings, options))
    results.numbers["tests"] = jsonable(guidance.correct([s.numbers for s in studies], levels))
    results.numbers["levels"] = jsonable(levels)
    results.numbers["populations"] = jsonable([s.numbers for s in studies])
    results.table("networks", pa.concat_tables(s.table for s in studies))
    pictured = [s for s in studies if s.resampled][:MOST_PICTURED] or studies[:MOST_PICTURED]
    with meters.track("pictures"):
        for name, figure in pictures.draw(pictured, levels):
            results.figure(name, figure)
    results.close()
    return results


def _check(options: argparse.Namespace) -> None:
    """Raises ZooError for a number that no graph is made by."""
    d, k = options.dimensions, options.subdivisions
    if not 0 < options.confidence < 1:
        raise ZooError(f"--confidence is {options.confidence:g}, and lies between 0 and 1, like 0.95.")
    if not d <= k <= MOST_SUBDIVISIONS:
        raise ZooError(f"--subdivisions is {k}, and a box of {d} dimensions is cut {d} to {MOST_SUBDIVISIONS} times.")


def _check_dimensions(chosen: Sequence[Population], d: int) -> None:
    """Raises ZooError where a network has fewer kernel weights than coordinates are asked for."""
    for population in chosen:
        n = len(coordinates.kernels(population.architecture.layout)[0])
        if n < d:
            raise ZooError(
                f"--dimensions is {d}, and networks of {population.name} have {n} kernel weights. Take fewer."
            )


# ── one population ────────────────────────────────────────────────────────────────────


def study(
    population: Population, predicted: Predictions, settings: readings.Settings, options: argparse.Namespace,
    robust: bool,
) -> Study:  # fmt: skip
    """A population read in every way; `robust` adds resamples, resolutions and the kinds of coordinates."""
    layout = population.architecture.layout
    before, after, rows = populations.pairs(population, options.map)
    chosen = coordinates.choose(
        options.coordinates, before, after, population.end, layout, options.dimensions, options.seed
    )
    x, y, start, end = (chosen.encode(w) for w in (before, after, population.start, population.end))
    cubes = Cubes.around(np.concatenate([x, y, start]), settings.subdivisions)
    read = {n: readings.read(n, x, y, cubes, settings) for n in readings.READINGS}
    fates = {n: {"start": guidance.fates(r, start), "end": guidance.fates(r, end)} for n, r in read.items()}
    spread = coordinates.spread(population.end, layout)
    numbers: dict[str, Any] = {
        "name": population.name, "level": dict(population.level), "population": population.number,
        "n": len(population), "n_diverged": population.n_diverged, "n_test": len(predicted.labels),
        "pairs": len(x), "networks_of_pairs": len(np.unique(rows)), "step_epochs": _step_epochs(population, options),
        "coordinates": list(chosen.labels), "spread": spread,
        "balanced_accuracy": predicted.balanced.mean(), "balanced_accuracy_published": predicted.balanced_swapped.mean(),
        "entropy_median": np.median(predicted.entropy()),
        "readings": {n: r.numbers() | _indices(r) for n, r in read.items()},
        "guidance": {when: guidance.associations({n: f[when] for n, f in fates.items()}, predicted, population.groups, options.seed)
                     for when in ("start", "end")},
    }  # fmt: skip
    resampled: dict[str, robustness.Resampled] = {}
    resolutions: dict[str, list[dict[str, Any]]] = {}
    if robust:
        levels, groups = robustness.around(settings.subdivisions), population.groups[rows]
        for name, reading in read.items():
            resampled[name] = robustness.resample(reading, groups, settings, options.resamples, options.seed)
            resolutions[name] = robustness.resolutions(reading, settings, levels)
        numbers |= {
            "resamples": {n: r.numbers() for n, r in resampled.items()}, "resolutions": resolutions,
            "coordinate_kinds": _coordinate_kinds(population, options),
        }  # fmt: skip
    return Study(
        population, predicted, chosen, start, end, cubes, spread, read, fates, resampled, resolutions, numbers
    )  # fmt: skip


def _step_epochs(population: Population, options: argparse.Namespace) -> float | None:
    return populations.step_epochs(population) if options.map == "step" else None


def _indices(reading: readings.Reading) -> dict[str, Any]:
    """The Conley indices of the Morse sets, where CMGDB is installed."""
    return {"conley": conley.indices(reading.graph)} if conley.available() else {}


def _coordinate_kinds(population: Population, options: argparse.Namespace) -> list[dict[str, Any]]:
    """How well few coordinates determine their own future, for each kind, against ends dealt at random.

    What is said of networks held out is so in coordinates that their ends had no part in.
    """
    before, after, rows = populations.pairs(population, options.map)
    order = streams.generator("shuffled ends", options.seed).permutation(len(rows))
    recipe, layout, records = surrogate.Recipe(options.prior), population.architecture.layout, []
    for kind in meters.over(coordinates.COORDINATES, "kinds of coordinates", "kinds"):
        one = coordinates.choose(kind, before, after, population.end, layout, options.dimensions, options.seed)
        x, y, groups = one.encode(before), one.encode(after), population.groups[rows]
        true, dealt = (_chosen_by(kind, before, ends, rows, population, options) for ends in (after, after[order]))
        records.append({
            "kind": kind, "labels": one.labels, "reconstruction_r2": one.reconstruction_r2,
            "r2": surrogate.fit(x, y, recipe).r2(x, y), "r2_held_out": surrogate.held_out_r2(true, groups, recipe),
            "r2_shuffled": surrogate.fit(x, y[order], recipe).r2(x, y[order]),
            "r2_shuffled_held_out": surrogate.held_out_r2(dealt, groups, recipe),
            "r2_unmoved": surrogate.unmoved_r2(x, y),
        })  # fmt: skip
    return records


def _chosen_by(
    kind: str, before: np.ndarray, after: np.ndarray, rows: np.ndarray, population: Population, options: argparse.Namespace
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Some of the pairs → all of them, in the coordinates that those choose."""

    def coded(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        final, layout = population.end[np.unique(rows[train])], population.architecture.layout
        one = coordinates.choose(kind, before[train], after[train], final, layout, options.dimensions, options.seed)
        return one.encode(before), one.encode(after)

    return coded


# ── all populations of a level ────────────────────────────────────────────────────────


def _level(
    whole: Population, predicted: Sequence[Predictions], settings: readings.Settings, options: argparse.Namespace
) -> dict[str, Any]:
    """All populations of a level together: accuracy with intervals, and what the start foretells."""
    accuracy = np.concatenate([p.balanced for p in predicted])
    swapped = np.concatenate([p.balanced_swapped for p in predicted])

    def mean(values: np.ndarray) -> dict[str, Any]:
        return intervals.mean(values, whole.groups, ends=(0.0, 1.0)).to_json()

    coarse = dataclasses.replace(settings, subdivisions=min(settings.subdivisions, HELD_OUT_SUBDIVISIONS))
    return {
        "level": dict(whole.level), "n": len(whole), "n_populations": len(predicted), "n_diverged": whole.n_diverged,
        "balanced_accuracy": mean(accuracy), "balanced_accuracy_published": mean(swapped),
        "population_means": [p.balanced.mean() for p in predicted],
        "population_means_published": [p.balanced_swapped.mean() for p in predicted],
        "entropy_medians": [np.median(p.entropy()) for p in predicted],
        "foretell": guidance.foretell(
            whole, accuracy, options.coordinates, readings.READINGS, coarse, options.dimensions, options.seed,
            how=options.map,
        ),
    }  # fmt: skip


def _at_levels(population: list[Population], levels: Sequence[str]) -> list[Population]:
    """The populations at all of these levels, each `AXIS=LEVEL`. Raises ZooError for one that there is not."""
    for text in levels:
        axis, _, label = text.partition("=")
        name = population[0].zoo.name
        if axis not in population[0].level:
            raise ZooError(unknown("axis", axis, list(population[0].level), name))
        chosen = [p for p in population if p.level[axis] == label]
        if not chosen:
            raise ZooError(unknown(f"level of {axis}", label, {p.level[axis] for p in population}, name))
        population = chosen
    return population
