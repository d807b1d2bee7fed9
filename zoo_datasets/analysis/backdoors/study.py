"""Detectors and a population → the table: how well backdoors are told from weights, beside what needs no weights.

In:  a `Population`, kinds of detectors, a seed; networks of two fixed clean sets as the yardstick, if there are any.
Out: rows, each a plain mapping with intervals over init groups.

AUC is the chance that a trojaned network scores above a clean one; `paired` the share of twins of which the trojaned one scores higher, with
exact bounds; `tpr` the share found at a threshold that 5 % of clean networks pass. The null is clean networks whose arm is dealt by coin,
one coin for all detectors; the yardstick two sets of clean data. A backdoor is `above_chance` where the lower bound lies above ½, and
`detected` where it lies above the yardstick's upper bound of the same detector too. `gain` is the AUC over the best control's on the same networks.
Detectors that learn by chance (`Kind.cheap` is false) learn twice, in rows of their own, which are never averaged.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis.backdoors import cells, detectors
from zoo_datasets.analysis.backdoors.detectors import Detector, Kind
from zoo_datasets.analysis.backdoors.population import WORKS, Population, lift
from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError
from zoo_datasets.intervals import Interval

FALSE_ALARMS = 0.05  # of clean networks
LEVEL = 0.95
FEWEST_OF_A_RATE = 10  # pairs: fewer have no bound above ½ after correction, even if all are told right
SEEDS = 2  # of detectors that learn by chance
SIZES = (100, 500, 1500)  # training networks of the search for the smallest dose
BEYOND = 25  # resamples beyond a bound, however far out it lies
CONTROLS = {k.name for k in detectors.KINDS if k.control}
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
    p: Population, kinds: Sequence[Kind], seed: int, found: Scales, n_like: int | None = None
) -> tuple[list[dict[str, Any]], dict[str, Detector]]:
    """A row for each question and detector, and the detectors that learned from all that is matched.

    With `n_like` one question more: the matched one after learning from as few networks as the yardstick's detectors did.
    """
    rows: list[dict[str, Any]] = []
    learned: dict[str, Detector] = {}
    asked = list(cells.cells(p))
    if n_like is not None and (alike := cells.as_few(p, asked[0], n_like, seed)) is not None:
        asked.insert(1, alike)
    for cell in meters.over(asked, "questions about backdoors", "questions"):
        of_cell: list[tuple[dict[str, Any], np.ndarray]] = []  # with scores of the tested networks
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
                    own = p.take(side)
                    if len(np.unique(own.trojaned)) == 2:
                        score = detector.score(own)
                        row = told_of(own, score)
                        of_cell.append((
                            {"question": cell.name, "pairs_that": arm, "detector": kind.name, "control": kind.control, "seed": drawn,
                             "n_train": int(cell.train.sum()), **row, **_verdict(row["auc"], found.get(kind.name)), "cpu_seconds": spent},
                            score,
                        ))  # fmt: skip
        for arm, side in _tested(p, cell):
            _over_controls(p.take(side), [pair for pair in of_cell if pair[0]["pairs_that"] == arm])
        rows += [row for row, _ in of_cell]
    return rows, learned


def _over_controls(own: Population, scored: Sequence[tuple[dict[str, Any], np.ndarray]]) -> None:
    """Add to each detector's row what it gains over the control with the highest AUC on these networks, and of which twins."""
    controls = [pair for pair in scored if pair[0]["control"]]
    if not controls:
        return
    best, beside = max(controls, key=lambda pair: pair[0]["auc"]["value"])
    paired, other = max(controls, key=lambda pair: pair[0]["paired"]["value"])
    for row, score in scored:
        if not row["control"]:
            gain = intervals.contrast("auc", own.trojaned.astype(np.int64), beside, score, own.group)
            won, lost = (_won(own, s) for s in (score, other))
            of_twins = intervals.difference(lost, won, own.group[own.trojaned], ends=(-1.0, 1.0))
            row |= {
                "best_control": best["detector"], "gain": gain.to_json(), "best_of_twins": paired["detector"],
                "gain_of_twins": of_twins.to_json(),
            }  # fmt: skip


def _tested(p: Population, cell: cells.Cell) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs that work, and where all is matched those that do not; and all whose attack works, whatever it costs on clean images.

    Whether it costs anything is measured on the images that controls read: who passes was in part lucky there.
    """
    yield "works", cell.test & p.works
    if cell.name == "matched":
        test = p.split == "test"
        yield "rest", test & ~_of_working(p)
        yield "attack works", test & p.with_twins(lift(p.success, p.base) >= WORKS)


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


def decoys(p: Population, wrong: Population, learned: dict[str, Detector]) -> list[dict[str, Any]]:
    """What the matched detectors say of twins of which one learned wrong labels without a mark: who tells those tells no backdoor.

    All of them, those equal on clean images as the pairs that are learned from, and by share; none whose start was learned from.
    """
    wrong = wrong.take(~np.isin(wrong.group, p.group[p.split != "test"]))
    sides = {"all": np.ones(len(wrong), bool), "equal on clean images": wrong.works}
    sides |= {f"{share:.3g}": wrong.with_twins(wrong.dose == share) for share in np.unique(wrong.dose[wrong.trojaned])}
    return [
        {"detector": name, "control": name in CONTROLS, "wrong_labels": which, **row}
        for name, detector in learned.items()
        for which, side in sides.items()
        if (row := row_of(wrong, side, detector)) is not None
    ]


def smallest(p: Population, kinds: Sequence[Kind], seed: int) -> list[dict[str, Any]]:
    """The smallest rate that is found, of tested pairs that work, by a cheap detector of n training networks.

    Rates of too few such pairs are not asked about. Bounds are corrected for all rates and sizes that are.
    """
    matched = next(iter(cells.cells(p)))
    every = np.unique(p.dose[p.trojaned & p.works]).tolist()
    pairs = {rate: int((matched.test & p.trojaned & (p.dose == rate)).sum()) for rate in every}
    rates = [rate for rate in every if pairs[rate] >= FEWEST_OF_A_RATE]
    sizes = {n: cell for n in SIZES if (cell := cells.as_few(p, matched, n, seed)) is not None}
    rows = []
    for kind in (k for k in kinds if k.cheap and detectors.suits(k, p)):
        for n, cell in sizes.items():
            if not rates:
                continue
            tail = 0.05 / (len(rates) * len(sizes))  # one side counts
            detector = detectors.fit(kind, p.take(cell.train), p.take(cell.validation), seed)
            least: float | None = None
            for rate in reversed(rates):  # from the largest: the smallest from which on all are found
                row = row_of(p, matched.test & p.with_twins(p.dose == rate), detector, tail)
                if row is None or not _verdict(row["auc"], None)["above_chance"]:
                    break
                least = rate
            rows.append({
                "detector": kind.name, "control": kind.control, "n": n, "smallest_rate": least, "rates": len(rates),
                "pairs": {f"{rate:.3g}": n for rate, n in pairs.items()},
            })  # fmt: skip
    return rows


def _of_working(p: Population) -> np.ndarray:
    """Networks of pairs that work; a clean twin of one that works and one that does not counts here."""
    return np.asarray(np.isin(p.pair, p.pair[p.works & p.trojaned]))


def row_of(p: Population, side: np.ndarray, detector: Detector, tail: float = 0.025) -> dict[str, Any] | None:
    """What a detector says of the networks of a mask, its AUC with so much beyond each bound; None where there are not both kinds."""
    own = p.take(side)
    return told_of(own, detector.score(own), tail) if len(np.unique(own.trojaned)) == 2 else None


def told_of(own: Population, score: np.ndarray, tail: float = 0.025) -> dict[str, Any]:
    """How well scores (n,) part clean networks from trojaned ones, and each from its twin."""
    n, group = int(own.trojaned.sum()), own.group[own.trojaned]
    return {
        "clean": len(own) - n, "trojaned": n,
        "auc": intervals.score(
            "auc", own.trojaned.astype(np.int64), score, own.group, level=1 - 2 * tail,
            n=max(intervals.RESAMPLES, round(BEYOND / tail)),
        ).to_json(),
        "tpr": _found(score[own.trojaned], score[~own.trojaned], group).to_json(),
        "paired": intervals.proportion(_won(own, score), group).to_json(),
    }  # fmt: skip


def _won(own: Population, score: np.ndarray) -> np.ndarray:
    """Of each trojaned network whether it scores above its twin, ½ where they are equal."""
    clean = {int(i): s for i, s, t in zip(own.pair, score, own.trojaned, strict=True) if not t}
    beside, mine = np.array([clean[int(i)] for i in own.pair[own.trojaned]]), score[own.trojaned]
    return np.asarray((mine > beside) + 0.5 * (mine == beside))


def _found(trojaned: np.ndarray, clean: np.ndarray, group: np.ndarray) -> Interval:
    """The share of trojaned networks above a threshold that 5 % of clean ones pass, which is known by the tested ones alone.

    How many of those pass the true threshold is binomial: bounds are the share's own at either end of that, half of 5 % for each.
    """
    from scipy.stats import binom

    falling, half = np.sort(clean)[::-1], (1 - LEVEL) / 2

    def above(k: int) -> np.ndarray:
        """Who passes a threshold that k clean networks pass at most."""
        return (trojaned > (falling[k] if k < len(falling) else -np.inf)).astype(float)

    found = intervals.proportion(above(int(FALSE_ALARMS * len(clean))), group)
    if found.method == "none":
        return found
    least, most = (int(binom.ppf(q, len(clean), FALSE_ALARMS)) for q in (half / 2, 1 - half / 2))
    low, high = (intervals.proportion(above(k), group, level=1 - half) for k in (least, most))
    return dataclasses.replace(found, low=low.low, high=high.high, method="exact, threshold too")


def _verdict(auc: dict[str, Any], scale: dict[str, Any] | None) -> dict[str, Any]:
    """Whether the lower bound lies above chance, and above the yardstick's upper bound too; None where that is not known."""
    low = auc["low"]
    yard = ((scale or {}).get("yardstick") or {}).get("auc") or {}
    known: float | None = yard.get("value")
    most = yard["high"] if yard.get("high") is not None else known or 0.0
    return {
        "above_chance": bool(low is not None and low > 0.5), "yardstick": known,
        "detected": None if known is None else bool(low is not None and low > max(0.5, most)),
    }  # fmt: skip
