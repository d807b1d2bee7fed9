"""Zoos of clean and trojaned twins → what tells them apart, and what does not.

In:  one zoo or several, as one population; a yardstick zoo of two clean sets and a zoo of wrong labels, if there are any.
Out: a `Results`: which attacks work; the table of detectors and controls by question; dose–response; the smallest dose; what wrong
     labels without a mark do to detectors; pictures; and
     each detector that learned from everything matched, kept for `scan`.

Splits are the zoo's own (of several zoos one is drawn), and the test split is looked at once: whatever a detector chooses it chooses on validation.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import numpy as np

from zoo_datasets.analysis.backdoors import cells, detectors, pictures, population, scan, study
from zoo_datasets.analysis.backdoors.population import Population
from zoo_datasets.analysis.results import Results, flat, identity
from zoo_datasets.baselines import saved
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.sources.rows import subset_of
from zoo_datasets.sources.triggers import stamp
from zoo_datasets.zoo import Zoo, once, open_zoo

log = logging.getLogger("zoo_datasets")
MOST_TRIGGERS = 24  # that are shown


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--yardstick", metavar="ZOO", help="clean networks of two fixed sets, like grids/backdoors/yardstick.yaml"
    )
    parser.add_argument(
        "--decoys",
        metavar="ZOO",
        help="twins of which one learned wrong labels, like grids/backdoors/wrong-labels.yaml",
    )
    detectors.arguments(parser)


def run(options: argparse.Namespace) -> Results:
    """The whole study. Raises ZooError where the zoos hold no such population."""
    kinds = detectors.named(options.detectors)
    zoos = once(map(open_zoo, options.path))
    beside = {name: open_zoo(path) for name in ("yardstick", "decoys") if (path := getattr(options, name)) is not None}
    p, counts = population.read(zoos, options.data)
    kinds, lacking = detectors.able(kinds, p, asked=options.detectors not in (None, "all"))
    for name, why in lacking.items():
        log.info("left out: %s. %s", name, why)
    sets = population.clean([beside["yardstick"]]) if "yardstick" in beside else None
    wrong = population.wrong_labels([beside["decoys"]]) if "decoys" in beside else None
    settings = {
        "seed": options.seed, "detectors": [k.name for k in kinds], "works": population.WORKS, "margin": population.MARGIN,
        "false_alarms": study.FALSE_ALARMS,
        **{name: identity(zoo) for name, zoo in beside.items()},
    }  # fmt: skip
    results = Results("backdoors", zoos, settings, options.out)
    log.info("%d networks, %d trojaned, %d of those work", len(p), p.trojaned.sum(), (p.works & p.trojaned).sum())
    outcomes = population.outcomes(p)
    list(cells.cells(p))  # says what is lacking before hours are spent
    found = study.scales(p, sets, kinds, options.seed)
    n_sets = None if sets is None else int((sets.split == "train").sum())
    rows, learned = study.table(p, kinds, options.seed, found, n_sets)
    numbers: dict[str, Any] = {
        "population": {**counts, "pairs": int(p.trojaned.sum()), "working": int((p.works & p.trojaned).sum()),
                       "clean": int((~p.trojaned).sum()), "n_train": int((p.works & (p.split == "train")).sum()), "yardstick_n_train": n_sets},
        "left_out": lacking, "outcomes": outcomes, "scales": found, "table": rows, "doses": study.doses(p, learned, found),
        "smallest": study.smallest(p, kinds, options.seed), "decoys": study.decoys(p, wrong, learned) if wrong else [],
    }  # fmt: skip
    results.numbers |= jsonable(numbers)
    results.save()  # before anything that is drawn or kept could fail
    for name in ("outcomes", "table", "doses", "smallest", "decoys"):
        if numbers[name]:
            results.table(name, flat(numbers[name]))
    _keep(results, p, learned, [z.name for z in zoos], rows)
    if not options.no_pictures:
        _draw(results, p, numbers)
        results.figure("triggers", pictures.triggers(_stamped(zoos, options.data)))
    results.close()
    return results


def _keep(
    results: Results, p: Population, learned: dict[str, detectors.Detector], zoos: list[str], rows: list[dict[str, Any]]
) -> None:
    """Each detector that sees weights as a file for `scan`, calibrated on networks that it did not learn from."""
    control = {k.name for k in detectors.KINDS if k.control}
    train, (held, by) = p.take((p.split == "train") & p.works), scan.held_out(p)
    for name, detector in learned.items():
        if name not in control:
            auc = next(r["auc"] for r in rows if r["question"] == "matched" and r["detector"] == name)
            scanner: Any = scan.calibrated(detector, p.take(held), auc, f"{scan.words_of(p, zoos, name)} {by}", train)
            path = results.folder / "detectors" / f"{detectors.slug(name)}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            saved.save(scanner, path)
            results.written.append(path)


def _draw(results: Results, p: Population, numbers: dict[str, Any]) -> None:
    works = [r for r in numbers["table"] if r["pairs_that"] == "works"]
    if works:
        results.figure("questions", pictures.questions(works))
    if matched := [r for r in works if r["question"] == "matched"]:
        results.figure("detectors", pictures.bars(matched))
    if len({r["rate"] for r in numbers["doses"]}) > 1:
        results.figure("doses", pictures.doses(numbers["doses"]))
    one = np.flatnonzero(p.works & (p.architecture == p.architecture[np.flatnonzero(p.works)[0]]))
    results.figure("where", pictures.where(p.take(one)))


def _stamped(zoos: list[Zoo], data: str | None) -> list[tuple[str, np.ndarray]]:
    """A test image with each of the first triggers, every one another image, and what the trigger is."""
    found: dict[tuple[Any, ...], tuple[str, np.ndarray]] = {}
    for zoo in zoos:
        for row in zoo.models.to_pylist():
            subset = subset_of(row)
            if subset.trigger_frac and len(found) < MOST_TRIGGERS and subset.patch not in found:
                source = zoo.source(row["model_id"], data)
                one = slice(len(found), len(found) + 1)
                image = stamp(source.test.inputs[one], subset.numbered(source.class_names), source.peak)[0]
                found[subset.patch] = f"to {subset.trigger_target}, {subset.trigger_opacity:.0%}", image
    return list(found.values())
