"""Detectors and a population → the table: how well backdoors are told from weights, beside what needs no weights.

In:  a `Population`, kinds of detectors, a seed; networks of two fixed clean sets as the yardstick, if there are any.
Out: rows, each a plain mapping with intervals over init groups.

AUC is the chance that a trojaned network scores above a clean one; `paired` the share of twins of which the trojaned one scores higher, with
exact bounds; `tpr` the share found at a threshold that 5 % of the tested clean networks pass. The null is clean networks whose arm is
dealt by coin, learned and tested in the same way; the yardstick two sets of clean data. A backdoor is `detected` where the lower bound
lies above ½ and above the yardstick of the same detector, and `above_chance` where it lies above ½ and above the null's upper bound.
Detectors that learn by chance (`Kind.cheap` is false) learn twice, in rows of their own, which are never averaged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis.backdoors import cells, detectors
from zoo_datasets.analysis.backdoors.detectors import Detector, Kind
from zoo_datasets.analysis.backdoors.population import Population
from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError

FALSE_ALARMS = 0.05  # of clean networks
SEEDS = 2  # of detectors that learn by chance
SIZES = (100, 500, 1500)  # training networks of the search for the smallest dose
BEYOND = 25  # resamples beyond a bound, however far out it lies
Scales = dict[str, dict[str, Any]]  # detector → its null, and its yardstick where there is one


def scales(p: Population, sets: Population | None, kinds: Sequence[Kind], seed: int) -> Scales:
    """What each detector finds where nothing is hidden: arms dealt by coin, and two fixed sets of clean data."""
    clean = p.take(~p.trojaned)
    found: Scales = {}
    for kind in meters.over(kinds, "nulls and yardsticks", "detectors"):
        own: dict[str, Any] = {"null": told(kind, clean, cells.coin(clean, seed), seed)}
        if sets is not None:
            own["yardstick"] = told(kind, sets, sets.trojaned, seed)
        found[kind.name] = own
    return found


def told(kind: Kind, p: Population, y: np.ndarray, seed: int) -> dict[str, Any]:
    """AUC of a detector that learned to tell y, on the test split."""
    train, validation, test = (p.split == s for s in ("train", "validation", "test"))
    if not detectors.suits(kind, p):
        return {
            "n": len(p),
            "auc": None,
            "note": "it reads weights place by place, and the networks are of several layouts",
        }
    try:
        learned = detectors.fit(kind, p.take(train), p.take(validation), seed, (y[train], y[validation]))
    except ZooError as error:
        return {"n": len(p), "auc": None, "note": str(error)}
    if len(np.unique(y[test])) < 2:
        return {"n": len(p), "auc": None, "note": "the test split has networks of one arm alone"}
    score = learned.score(p.take(test))
    return {
        "n": len(p),
        "auc": intervals.score("auc", y[test].astype(np.int64), score, p.group[test]).to_json(),
        "note": "",
    }


def table(
    p: Population, kinds: Sequence[Kind], seed: int, found: Scales
) -> tuple[list[dict[str, Any]], dict[str, Detector]]:
    """A row for each question and detector, and the detectors that learned from all that is matched."""
    rows: list[dict[str, Any]] = []
    learned: dict[str, Detector] = {}
    for cell in meters.over(list(cells.cells(p)), "questions about backdoors", "questions"):
        for kind in kinds:
            if not kind.cheap and cell.name not in cells.DEAR:
                continue
            if not detectors.suits(kind, p.take(cell.train | cell.validation | cell.test)):
                continue
            for drawn in range(seed, seed + (1 if kind.cheap else SEEDS)):
                began = time.process_time()
                detector = detectors.fit(kind, p.take(cell.train), p.take(cell.validation), drawn)
                spent = time.process_time() - began
                if cell.name == "matched":
                    learned.setdefault(kind.name, detector)
                for arm, side in _tested(p, cell):
                    if (row := row_of(p, side, detector)) is not None:
                        rows.append({
                            "question": cell.name, "pairs_that": arm, "detector": kind.name, "control": kind.control, "seed": drawn,
                            "n_train": int(cell.train.sum()), **row, **_verdict(row["auc"], found.get(kind.name)),
                            "cpu_seconds": spent,
                        })  # fmt: skip
    return rows, learned


def _tested(p: Population, cell: cells.Cell) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs that work, and where all is matched those that do not."""
    yield "works", cell.test & p.works
    if cell.name == "matched":
        yield "rest", (p.split == "test") & ~_of_working(p)


def doses(p: Population, learned: dict[str, Detector], found: Scales) -> list[dict[str, Any]]:
    """By rate, what the matched detectors find among the tested pairs, working or not: the dose–response."""
    test = p.split == "test"
    rows = []
    for name, detector in learned.items():
        for rate in np.unique(p.dose[p.trojaned & test]).tolist():
            side = test & p.with_twins(p.dose == rate)
            if (row := row_of(p, side, detector)) is not None:
                success = p.success[side & p.trojaned]
                rows.append({
                    "detector": name, "rate": rate, "success": float(success.mean()),
                    "works": int(p.works[side & p.trojaned].sum()), **row, **_verdict(row["auc"], found.get(name)),
                })  # fmt: skip
    return rows


def smallest(p: Population, kinds: Sequence[Kind], seed: int, found: Scales) -> list[dict[str, Any]]:
    """The smallest rate that is found by a cheap detector of n training networks; bounds are corrected for all rates and sizes."""
    matched = next(iter(cells.cells(p)))
    rates = np.unique(p.dose[p.trojaned & matched.test]).tolist()
    # One side counts, of all rates and sizes; a share of the networks to choose by as of those to learn from.
    tail, share = 0.05 / (len(rates) * len(SIZES)), matched.validation.sum() / max(matched.train.sum(), 1)
    rows = []
    for kind in (k for k in kinds if k.cheap and detectors.suits(k, p)):
        for n in SIZES:
            train = cells.few(p, matched.train, n, seed)
            choose = cells.few(p, matched.validation, max(2, round(n * share)), seed)
            if train is None or choose is None or not (p.trojaned & train).any():
                continue
            detector = detectors.fit(kind, p.take(train), p.take(choose), seed)
            least: float | None = None
            for rate in reversed(rates):  # from the largest: the smallest from which on all are found
                side = matched.test & p.with_twins(p.dose == rate)
                row = row_of(p, side, detector, tail)
                if row is None or not _verdict(row["auc"], found.get(kind.name))["above_chance"]:
                    break
                least = rate
            rows.append(
                {"detector": kind.name, "control": kind.control, "n": n, "smallest_rate": least, "rates": len(rates)}
            )
    return rows


def _of_working(p: Population) -> np.ndarray:
    """Networks of pairs that work; a clean twin of one that works and one that does not counts here."""
    return np.asarray(np.isin(p.pair, p.pair[p.works & p.trojaned]))


def row_of(p: Population, side: np.ndarray, detector: Detector, tail: float = 0.025) -> dict[str, Any] | None:
    """What a detector says of the networks of a mask, its AUC with so much beyond each bound; None where there are not both kinds."""
    own = p.take(side)
    n = int(own.trojaned.sum())
    if not 0 < n < len(own):
        return None
    score = detector.score(own)
    threshold = np.quantile(score[~own.trojaned], 1 - FALSE_ALARMS, method="higher")
    hits = (score > threshold)[own.trojaned].astype(float)
    clean = {int(i): s for i, s, t in zip(own.pair, score, own.trojaned, strict=True) if not t}
    beside = np.array([clean[int(i)] for i in own.pair[own.trojaned]])
    won = (score[own.trojaned] > beside) + 0.5 * (score[own.trojaned] == beside)
    group = own.group[own.trojaned]
    return {
        "clean": len(own) - n, "trojaned": n,
        "auc": intervals.score(
            "auc", own.trojaned.astype(np.int64), score, own.group, level=1 - 2 * tail,
            n=max(intervals.RESAMPLES, round(BEYOND / tail)),
        ).to_json(),
        "tpr": intervals.proportion(hits, group).to_json(), "paired": intervals.proportion(won, group).to_json(),
    }  # fmt: skip


def _verdict(auc: dict[str, Any], scale: dict[str, Any] | None) -> dict[str, Any]:
    """Whether the lower bound lies above chance and the null, and above the yardstick; None where that is not known."""
    null, yard = ((scale or {}).get(name) or {} for name in ("null", "yardstick"))
    low = auc["low"]
    chance = max(0.5, (null.get("auc") or {}).get("high") or 0.5)
    known = (yard.get("auc") or {}).get("value")
    return {
        "above_chance": bool(low is not None and low > chance),
        "yardstick": known, "detected": None if known is None else bool(low is not None and low > max(0.5, known)),
    }  # fmt: skip
