"""Zoos of networks that learned machines → can weights tell what data they learned, and a small change of it?

In:  a zoo of clean networks, with the modified ones in it or in other zoos of the same layout; automata and languages too.
Out: a `Results`: who came to the target; which machine; clean or modified, beside duration and loss; draw against draw; distances;
     each for the arm of equal length (`matched`, the primary one) and the arm that stops on error (`target`).

After Clemens, "MLDS: A Dataset for Weight-Space Analysis of Neural Networks" (2021). Its 99.1 % is five-way, unbalanced and of one
data draw a machine: no number here is to be set beside it, for here whole draws are held out.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets.analysis import testing
from zoo_datasets.analysis.machines import losses, measures, pictures, population, questions
from zoo_datasets.analysis.machines.solvers import SOLVERS, Reader, Solver
from zoo_datasets.analysis.results import Results, flat
from zoo_datasets.core import meters
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.zoo import once, open_zoo

log = logging.getLogger("zoo_datasets")
MOST_SHOWN = 1000  # networks of a picture of components
TABLES = ("which", "curve", "modified", "beside", "nulls", "yardstick", "distances", "to_data", "power")
TESTS = {"test": "", "gain_test": ", above the best control"}  # keys of rows that hold a test, and what it is of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        default=[],
        metavar="ZOO",
        help="further zoos of the same networks, like the modified ones",
    )
    parser.add_argument("--label", metavar="COLUMN", help="what was learned (default: machine, automaton or language)")
    parser.add_argument(
        "--solvers",
        metavar="NAMES",
        help=f"some of these, by commas: {', '.join(s.name for s in SOLVERS)} (default: all)",
    )
    parser.add_argument("--data", metavar="DIR", help="folder of local sources (default: $ZOO_DATA)")
    parser.add_argument("--no-pictures", action="store_true", help="numbers and tables alone")


def run(options: argparse.Namespace) -> Results:
    """The whole study. Raises ZooError where the zoos hold no such population."""
    chosen = _solvers(options.solvers)
    zoos = once(map(open_zoo, (options.path, *options.others)))
    label = population.asked(zoos, options.label)
    arms = population.arms(zoos, label)
    if not arms:
        raise ZooError(f"{zoos[0].name} has no network that was trained to its end.")
    settings = {"seed": options.seed, "label": label, "solvers": [s.name for s in chosen]}
    results = Results("machines", zoos, settings, options.out)
    results.numbers["outcomes"] = population.outcomes(zoos, label)
    results.table("outcomes", flat(results.numbers["outcomes"]))
    results.numbers["learning"] = population.learning(zoos, label)
    if results.numbers["learning"]:
        results.table("learning", flat(results.numbers["learning"]))
        # A start and an end are no curve: a line between the two would show what nobody measured.
        if not options.no_pictures and len({r["epoch"] for r in results.numbers["learning"]}) > 2:
            results.figure("learning", pictures.learning(results.numbers["learning"], label))
    results.numbers["arms"] = {}
    for arm, networks in arms.items():
        log.info("arm %s: %d networks, %d %s", arm, len(networks), len(np.unique(networks.draw)), networks.unit)
        loss = losses.held_out(zoos, networks, options.data)
        reader = Reader(networks, None if loss is None else losses.logarithms(loss))
        found = answers(reader, loss, chosen, options.seed)
        results.numbers["arms"][arm] = jsonable(found)
        if not options.no_pictures:
            _pictures(results, arm, reader, found)
    results.numbers["tests"] = jsonable(testing.correct(tests_of(results.numbers["arms"])))
    results.numbers["tests"]["of_folds"] = "Nadeau & Bengio 2003"  # who reads kept results tells by it how p was found
    for arm, found in results.numbers["arms"].items():
        for name in TABLES:
            if found[name]:
                results.table(f"{arm}-{name}", flat(found[name]))
    results.close()
    return results


def answers(everyone: Reader, loss: np.ndarray | None, solvers: Sequence[Solver], seed: int) -> dict[str, Any]:
    """All questions to one arm, whose held-out losses are `loss` (n, 2)."""
    networks = everyone.population
    clean = everyone.where(~networks.modified)
    questioned: dict[str, Callable[[], Any]] = {
        "which": lambda: questions.which(clean, seed, solvers), "curve": lambda: questions.curve(clean, seed, solvers),
        "modified": lambda: list(questions.modified(everyone, seed, solvers)), "beside": lambda: losses.beside(networks, loss),
        "nulls": lambda: list(measures.nulls(everyone, seed)), "yardstick": lambda: list(measures.yardstick(everyone, seed)),
        "distances": lambda: measures.distances(clean), "to_data": lambda: measures.to_data(clean),
        "power": lambda: questions.power(everyone, seed),
    }  # fmt: skip
    asked = meters.over(list(questioned.items()), f"questions to {len(networks):,} networks", "questions")
    counts = {
        "n": len(networks),
        "clean": len(clean.population),
        "unit": networks.unit,
        "units": len(np.unique(networks.draw)),
    }
    return counts | {name: ask() for name, ask in asked}


def tests_of(arms: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """All tests of the study, which are corrected together: a name and the record of each."""
    found = []
    for arm, answered in arms.items():
        for table in TABLES:
            for row in answered[table]:
                name = ", ".join(str(row[k]) for k in ("label", "dose", "solver", "what") if row.get(k) is not None)
                found += [(f"{arm}, {table}, {name}{more}", row[k]) for k, more in TESTS.items() if k in row]
    return found


def _solvers(names: str | None) -> list[Solver]:
    known = {s.name: s for s in SOLVERS}
    asked = [n.strip() for n in names.split(",")] if names else list(known)
    for name in asked:
        if name not in known:
            raise ZooError(unknown("solver", name, known, "--solvers"))
    return [known[n] for n in asked]


def _pictures(results: Results, arm: str, reader: Reader, found: Mapping[str, Any]) -> None:
    unmodified = np.flatnonzero(~reader.population.modified)
    clean = reader.where(unmodified[:MOST_SHOWN])
    if len(clean.population) > 2:
        results.figure(f"{arm}-planes", pictures.planes(clean.population, clean.aligned(0), len(unmodified)))
    if found["which"]:
        results.figure(f"{arm}-which", pictures.bars(found["which"], found["which"][0]["chance"], found["unit"]))
    if found["curve"]:
        results.figure(f"{arm}-curve", pictures.curves(found["curve"]))
    if found["yardstick"]:
        results.figure(f"{arm}-yardstick", pictures.measures(found["yardstick"]))
    if found["power"]:
        results.figure(f"{arm}-power", pictures.power(found["power"]))
