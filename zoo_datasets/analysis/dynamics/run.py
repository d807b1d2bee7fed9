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

from zoo_datasets.analysis.dynamics.study import Study
from zoo_datasets.analysis.report import Report
from zoo_datasets.errors import ZooError, unknown

if TYPE_CHECKING:
    from zoo_datasets.analysis.dynamics import readings
    from zoo_datasets.analysis.dynamics.populations import Population, Predictions

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
    from zoo_datasets.analysis.dynamics import guidance, pictures, readings
    from zoo_datasets.analysis.dynamics.populations import Population, populations, predictions
    from zoo_datasets.analysis.dynamics.surrogate import Recipe
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
    for name, figure in pictures.draw(firsts, levels):
        report.figure(name, figure)
    report.close()
    return report


def _level(
    whole: Population, parts: Sequence[Population], said: Sequence[Predictions], settings: readings.Settings,
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """All populations of a level together: accuracy with intervals, and what the start foretells."""
    import dataclasses

    from zoo_datasets import metrics
    from zoo_datasets.analysis.dynamics import guidance, readings

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
