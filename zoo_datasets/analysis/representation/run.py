"""Networks that learned poor data → can weights tell, and how much of it, beside what a test on clean images shows?

In:  a zoo like grids/backdoors/poor-data.yaml. Out: a `Results`: what poor data cost (`harm`); each level against the reference by every
     detector and control (`told`); the class share and the measured reliance on the cue, read as numbers (`amount`); pictures.

Detectors are those of backdoors, and so is the protocol: whole init groups in the zoo's own splits, choices on validation, the test split
once; a null is reference networks whose arm is dealt by coin. `beyond` says whether the lower bound of a detector lies above the highest
upper bound of the controls of the same row: what a test on clean images shows as well is no finding about weights.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis.backdoors import cells, detectors, reads, study
from zoo_datasets.analysis.backdoors.detectors import Kind
from zoo_datasets.analysis.representation import pictures
from zoo_datasets.analysis.representation.arms import REFERENCE, Arms, read
from zoo_datasets.analysis.results import Results, flat
from zoo_datasets.baselines.interface import Baseline, Target, Targets, View
from zoo_datasets.baselines.tabular import Tabular
from zoo_datasets.core import meters
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import open_zoo

log = logging.getLogger("zoo_datasets")
FEWEST = 5  # networks of a side


def _ridge() -> Baseline:
    from zoo_datasets.baselines.flat import PcaRidge  # and PyTorch with it, which the command's help does without

    return PcaRidge()


# Readers of a number: name → what is read, the solver, whether it is a control.
READERS: dict[str, tuple[str, Callable[[], Baseline], bool]] = {
    "statistics, boosting": ("weights", lambda: Tabular("statistics", "statistics", "boosting"), False),
    "ridge on weights": ("weights", _ridge, False),
    "ridge on final - initial": ("change", _ridge, False),
    "test loss and accuracy": ("loss", lambda: Tabular("loss", "recipe", "boosting"), True),
    "accuracy by class": ("classes", lambda: Tabular("classes", "recipe", "boosting"), True),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    detectors.arguments(parser)


def run(options: argparse.Namespace) -> Results:
    """The whole study. Raises ZooError where the zoo holds no such networks."""
    kinds = detectors.named(options.detectors)
    zoo = open_zoo(options.path)
    arms, counts = read(zoo, options.data)
    _check_sides(arms)
    asked = options.detectors not in (None, "all")
    kinds, lacking = detectors.able(kinds, arms.networks, asked)
    for name, why in lacking.items():
        log.info("left out: %s. %s", name, why)
    results = Results(
        "representation", [zoo], {"seed": options.seed, "detectors": [k.name for k in kinds]}, options.out
    )
    clean = arms.networks.take(arms.side(REFERENCE))
    nulls = {
        kind.name: study.told(kind, clean, cells.coin(clean, options.seed), options.seed)
        for kind in meters.over(kinds, "nulls", "detectors")
    }
    numbers: dict[str, Any] = {
        "population": {**counts, "reference": len(clean), "levels": arms.levels}, "left_out": lacking, "nulls": nulls,
        "harm": harm(arms), "told": told(arms, kinds, options.seed), "amount": amount(arms, options.seed),
    }  # fmt: skip
    results.numbers |= jsonable(numbers)
    for name in ("harm", "told", "amount"):
        if numbers[name]:
            results.table(name, flat(numbers[name]))
    if not options.no_pictures:
        results.figure("told", pictures.told(numbers["told"]))
        results.figure("harm", pictures.harm(numbers["harm"]))
    results.close()
    return results


def _check_sides(arms: Arms) -> None:
    for split in ("train", "validation", "test"):
        for level in (REFERENCE, *arms.levels):
            n = int((arms.side(level) & (arms.networks.split == split)).sum())
            if n < (FEWEST if split != "validation" else 2):
                raise ZooError(
                    f"The {split} split has {n} networks of the level {level!r}; at least {FEWEST} are needed to learn from "
                    "and to test, and 2 to choose by. Build more networks."
                )


# ── questions ──


def harm(arms: Arms) -> list[dict[str, Any]]:
    """What each level costs on clean test images, against twins of the reference."""
    p, rows = arms.networks, []
    of_pair = {int(i): k for k, i in enumerate(p.pair) if arms.level[k] == REFERENCE}
    for level, kind in arms.levels.items():
        own = np.flatnonzero(arms.side(level))
        twin = np.array([of_pair[int(i)] for i in p.pair[own]])
        row: dict[str, Any] = {"level": level, "kind": kind, "n": len(own)}
        for name, values in (("accuracy_lost", p.loss[:, 1]), ("accuracy_lost_on_rare_classes", arms.rare)):
            lost = values[twin] - values[own]
            row[name] = (
                intervals.mean(lost, p.group[own], ends=(-1.0, 1.0)).to_json() if np.isfinite(lost).all() else None
            )
        told = own[np.isfinite(arms.reliance[own])]
        row["reliance"] = intervals.mean(arms.reliance[told], p.group[told]).to_json() if len(told) else None
        row["reliance_unknown"] = len(own) - len(told) if kind == "cue" else None
        rows.append(row)
    return rows


def told(arms: Arms, kinds: Sequence[Kind], seed: int) -> list[dict[str, Any]]:
    """Each level against the reference, by every detector: AUC, and the share of twins told right."""
    rows: list[dict[str, Any]] = []
    for level in meters.over(list(arms.levels), "levels against the reference", "levels"):
        p = arms.networks.take(arms.side(level, REFERENCE))
        train, validation, test = (p.split == s for s in ("train", "validation", "test"))
        own = []
        for kind in (k for k in kinds if detectors.suits(k, p)):
            detector = detectors.fit(kind, p.take(train), p.take(validation), seed)
            row = study.row_of(p, test, detector)
            assert row is not None, "both levels have test networks"
            own.append(
                {"level": level, "detector": kind.name, "control": kind.control, "n_train": int(train.sum()), **row}
            )
        rows += _beyond(own, "auc")
    return [
        {("poor" if k == "trojaned" else "reference" if k == "clean" else k): v for k, v in r.items()} for r in rows
    ]


def amount(arms: Arms, seed: int) -> list[dict[str, Any]]:
    """The smallest class share, and the measured reliance on the cue, as numbers read from weights and from clean tests."""
    rows: list[dict[str, Any]] = []
    cue = arms.side(*(level for level, kind in arms.levels.items() if kind == "cue"))
    for name, of, values in (
        ("log10 of the smallest share", ~cue, np.log10(arms.share)), ("reliance on the cue", cue, arms.reliance),
    ):  # fmt: skip
        known = np.isfinite(values)
        if not known.any() or np.ptp(values[known]) == 0:
            continue
        p, y = arms.networks.take(known), values[known]
        sides = [np.flatnonzero(p.split == s) for s in ("train", "validation", "test")]
        if min(map(len, sides)) < 2:  # of those of which the number is known
            continue
        target, own = Target(name), []
        for reader, (reading, make, control) in READERS.items():
            if (reading == "change" and not p.starts.all()) or (make is _ridge and len(p.architectures) > 1):
                continue
            given = [(reads.view(reading, p.take(s), None), Targets((target,), y[s][:, None])) for s in sides]
            solver = make()
            solver.fit(given[0], given[1], seed)
            predicted = _predicted(solver, given[2][0], target)
            scores = {
                m: intervals.score(m, y[sides[2]], predicted, p.group[sides[2]]).to_json() for m in ("r2", "kendall")
            }
            own.append({
                "target": name, "reader": reader, "control": control, "n_train": len(sides[0]), "n": len(sides[2]),
                "left_out": int((of & ~known).sum()), **scores,
            })  # fmt: skip
        rows += _beyond(own, "r2")
    return rows


def _predicted(solver: Baseline, view: View, target: Target) -> np.ndarray:
    return np.asarray(solver.predict(view)[target.name], np.float64)


def _beyond(rows: list[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """Rows of one question, and of each that reads weights whether it says more than any control; uncorrected for their number."""
    highest = max(
        (r[score]["high"] if r[score]["high"] is not None else np.inf for r in rows if r["control"]), default=None
    )
    for row in rows:
        low = row[score]["low"]
        known = not row["control"] and highest is not None
        row["beyond"] = bool(low is not None and low > highest) if known and highest is not None else None
    return rows
