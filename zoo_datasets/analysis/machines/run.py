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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import symmetry
from zoo_datasets.analysis.machines import losses, pictures, population, questions
from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.analysis.machines.solvers import SOLVERS, Reader
from zoo_datasets.analysis.results import Results, flat
from zoo_datasets.core import meters
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.zoo import Zoo, open_zoo

log = logging.getLogger("zoo_datasets")
MOST_SHOWN = 1000  # networks of a picture of components


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
    zoos = [open_zoo(path) for path in (options.path, *options.others)]
    label = population.asked(zoos, options.label)
    arms = population.arms(zoos, label)
    if not arms:
        raise ZooError(f"{zoos[0].name} has no network that was trained to its end.")
    settings = {"seed": options.seed, "label": label, "solvers": [s.name for s in chosen]}
    results = Results("machines", zoos, settings, options.out)
    results.numbers["outcomes"] = population.outcomes(zoos, label)
    results.table("outcomes", flat(results.numbers["outcomes"]))
    results.numbers["arms"] = {}
    for arm, networks in meters.over(list(arms.items()), "arms of the study", "arms"):
        log.info("arm %s: %d networks, %d data draws", arm, len(networks), len(np.unique(networks.draw)))
        found = answers(zoos, networks, chosen, options)
        results.numbers["arms"][arm] = jsonable(found)
        for name in ("which", "curve", "modified", "yardstick", "distances", "to_data", "power"):
            if found[name]:
                results.table(f"{arm}-{name}", flat(found[name]))
        if not options.no_pictures:
            _pictures(results, arm, networks, found)
    results.close()
    return results


def answers(
    zoos: Sequence[Zoo], networks: Population, solvers: Sequence[Any], options: argparse.Namespace
) -> dict[str, Any]:
    """All questions to one arm."""
    loss = losses.held_out(zoos, networks, options.data)
    seen = None if loss is None else np.log10(np.maximum(np.nan_to_num(loss, nan=1.0), 1e-12))
    # What a test without keys shows is the first column: the loss of a network, to whom knows of no key.
    everyone = Reader(networks, None if seen is None else seen[:, :1])
    clean = ~networks.modified
    own = Reader(networks.where(clean), None if seen is None else seen[clean, :1])
    return {
        "n": len(networks), "clean": int(clean.sum()), "draws": len(np.unique(networks.draw)),
        "which": questions.which(own, options.seed, solvers), "curve": questions.curve(own, options.seed, solvers),
        "modified": _with_losses(list(questions.modified(everyone, options.seed, solvers)), networks, loss),
        "yardstick": list(questions.yardstick(everyone, options.seed)), "distances": questions.distances(own),
        "to_data": questions.to_data(own), "power": questions.power(everyone, options.seed),
    }  # fmt: skip


def _with_losses(rows: list[dict[str, Any]], networks: Population, loss: np.ndarray | None) -> list[dict[str, Any]]:
    """Beside each answer what a test would have shown: mean losses of clean and modified networks, with keys and without."""
    if loss is None:
        return rows
    for row in rows:
        own = (networks.label == row["label"]) & (networks.dose == row["dose"])
        for side, which in (("clean", ~networks.modified), ("modified", networks.modified)):
            for column, name in enumerate(losses.COLUMNS):
                values = loss[own & which, column]
                row[f"loss {name}, {side}"] = float(np.nanmean(values)) if np.isfinite(values).any() else None
    return rows


def _solvers(names: str | None) -> list[Any]:
    known = {s.name: s for s in SOLVERS}
    asked = [n.strip() for n in names.split(",")] if names else list(known)
    for name in asked:
        if name not in known:
            raise ZooError(unknown("solver", name, known, "--solvers"))
    return [known[n] for n in asked]


def _pictures(results: Results, arm: str, networks: Population, found: Mapping[str, Any]) -> None:
    clean = networks.where(np.flatnonzero(~networks.modified)[:MOST_SHOWN])
    if len(clean) > 2:
        results.figure(
            f"{arm}-planes", pictures.planes(clean, symmetry.align(clean.weights, clean.weights[0], clean.architecture))
        )
    if found["which"]:
        results.figure(f"{arm}-which", pictures.bars(found["which"], found["which"][0]["chance"]))
    if found["curve"]:
        results.figure(f"{arm}-curve", pictures.curves(found["curve"]))
    if found["yardstick"]:
        results.figure(f"{arm}-yardstick", pictures.measures(found["yardstick"]))
