"""A `Study` → what is told where nothing can be: of shuffled labels, before the first step, by weights that are other networks'.

Each null can fail. Shuffled labels are learned and judged as if they were true: who sees a network, or one of its group, on
both sides tells them; what networks of two groups share it cannot show, since their labels are shuffled apart. Before the
first step only architecture and initialization are there, so that training which is told was seen later. And where each
network is asked with the weights of another one, nothing can be gained over what is known of it anyway: another one of its layout, or
where it is asked what a network looks like, which any of its layout would tell, anybody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis import testing
from zoo_datasets.analysis.nws import divisions, questions, scoring
from zoo_datasets.analysis.nws.divisions import Division
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import ARCHITECTURE, TRAINING
from zoo_datasets.analysis.nws.questions import Rows
from zoo_datasets.analysis.nws.scoring import Judged
from zoo_datasets.analysis.nws.study import DEEP, METADATA, POSITIONS, UPDATES, Study, reader, readers
from zoo_datasets.core import meters, permuting, streams

SHUFFLES = 10  # of one alone it would be left to chance how much it can show


def asked(of: Study, shuffles: int = SHUFFLES) -> Mapping[str, Callable[[], Rows]]:
    """All three, to be asked one by one. Statistics are asked by five folds, about every network. Rows of what nothing can say have a `p`."""
    enough = len(np.unique(of.of.groups)) >= divisions.FOLDS
    folds = divisions.folds(of.of, of.seed) if enough else [of.at]
    return {
        "shuffled": lambda: [*shuffled(of, folds, shuffles), *_shuffled_deep(of)],
        "step_0": lambda: first_snapshot(of),
        "gain": lambda: no_gain(of, folds, others(of.of, of.seed), anybody(of.of, of.seed)) if enough else [],
    }


def mark(rows: Rows) -> dict[str, Any]:
    """`leak` of every row, in place: whether what nothing can say is told, corrected over all that was asked so; the summary."""
    tests = [(f"{r['property']}, {r['method']}, {r.get('over', '')}", r) for r in rows if r.get("p") is not None]
    summary = testing.correct(tests)
    for row in rows:
        row["leak"] = row.get("q") is not None and row["q"] < scoring.FINDING
    return summary


# ── shuffled labels ───────────────────────────────────────────────────────────────────


def shuffled(of: Study, folds: Sequence[Division], shuffles: int) -> Rows:
    """Of each property and statistics the mean over several shuffles, each learned anew with the same budget."""
    rows: Rows = []
    mixed = _mixed(of, shuffles)
    for p in meters.over(questions._asked(of, *folds), "shuffled labels", "properties"):
        for method in readers(p):
            parts = []
            for order in mixed:
                other = dataclasses.replace(p, values=p.values[order])
                said = [of.judge(other, at, [of.learned(method, other, at).test]) for at in folds]
                parts.append(scoring.joined(said))
            rows.append(_of_shuffles(of, method, parts))
    return rows


def _shuffled_deep(of: Study) -> Rows:
    """Of the meta-classifier as many as it has seeds, each seed with a shuffle of its own."""
    if not of.deep:
        return []
    parts: dict[str, list[Judged]] = {}
    for seed, order in enumerate(_mixed(of, of.seeds)):
        asked = [dataclasses.replace(p, values=p.values[order]) for p in questions._asked(of, of.at)]
        learned = of.deep.learned(asked, of.at, of.window, seed)
        own = of.of.last[of.at.test]
        said = of.deep.said(learned, own, questions._spaced(of, own, of.windows), of.window)
        for p in asked:
            parts.setdefault(p.name, []).append(of.judge(p, of.at, [said[p.name].mean(1)]))
    return [_of_shuffles(of, DEEP, of_one) for of_one in parts.values()]


def _mixed(of: Study, shuffles: int) -> np.ndarray:
    """Places (shuffles, M): labels of a group stay together, since a group is what may not be on two sides."""
    return permuting.permutations(of.of.groups, shuffles, streams.generator("nws null", of.seed))


def _of_shuffles(of: Study, method: str, parts: Sequence[Judged]) -> dict[str, Any]:
    """The mean over shuffles, with bounds over shuffles, each one's value, and one p of all together."""
    by_shuffle = np.array([part.interval().value for part in parts])
    found = intervals.mean(by_shuffle, np.arange(len(parts)), ends=(0.0, 1.0) if parts[0].of.target.classes else None)
    p = parts[0].of
    return {
        "property": p.name, "method": method, "kind": p.kind, "n": len(parts[0].networks),
        "n_groups": len(np.unique(parts[0].groups)), "value": found.value, "low": found.low, "high": found.high, "note": found.note, "shuffles": len(parts),
        "by_shuffle": by_shuffle.tolist(), **_by_permutation(of, parts),
    }  # fmt: skip


def _by_permutation(of: Study, parts: Sequence[Judged]) -> dict[str, Any]:
    """`p`, and as `chance` how often the same predictions are right about labels that have changed places within folds."""
    p, chance = scoring.permuted(parts, of.permutations, of.seed)
    return {"p": p, "chance": chance, "n_permutations": of.permutations}


# ── the first snapshot ────────────────────────────────────────────────────────────────


def first_snapshot(of: Study) -> Rows:
    """Where only architecture and initialization can be read; what says of training something has a `p`."""
    started = of.of.starts
    if not started.any() or len(np.unique(of.of.groups[started])) < divisions.FOLDS:
        return []
    rows: Rows = []
    folds = divisions.folds(of.of, of.seed, started)
    for p in meters.over(questions._asked(of, *folds), "the first snapshot", "properties"):
        for method in readers(p):
            judged = scoring.joined([of.judge(p, at, [of.answer(method, p, at, 0).test]) for at in folds])
            row = judged.record(method=method, kind=p.kind)
            if p.kind == TRAINING:
                row |= _by_permutation(of, [judged])
            rows.append(row)
    return rows


# ── the weights of others ─────────────────────────────────────────────────────────────


def no_gain(of: Study, folds: Sequence[Division], moved: np.ndarray, anyone: np.ndarray) -> Rows:
    """The verdict's gain, where each network is asked with the statistics of the network `moved` (M,) names; `anyone` (M,) of what a
    network looks like."""
    strangers = {kind: _with_weights_of(of, places) for kind, places in (("", moved), (ARCHITECTURE, anyone))}
    rows: Rows = []
    for p in meters.over(questions._asked(of, *folds), "gain by the weights of others", "properties"):
        asked_with = strangers[ARCHITECTURE if p.kind == ARCHITECTURE else ""]
        rows += questions._gains(asked_with, p, folds, (reader(p),), "weights of others")
    return rows


def _with_weights_of(of: Study, places: np.ndarray) -> Study:
    """The population, where what is read of each network is another one's; what is known of it without weights stays its own."""
    numbers = dict(of.numbers_of)
    for kind in ("layers", "window"):
        own = of.numbers(kind)
        numbers[of.key(kind)] = own[places]
    known = {key: answer for key, answer in of.answers.items() if key[0] in (METADATA, UPDATES, POSITIONS)}
    return dataclasses.replace(of, numbers_of=numbers, answers=known, judged={}, deep=None)


def others(of: Population, seed: int) -> np.ndarray:
    """(M,) int64: for each network another one of its layout; for those that are alone in theirs another such one.

    Nobody keeps its own, since a few that do would gain. Architectures of one layout differ in what weights are asked about,
    such as the activation: another network of the same one would tell it.
    """
    layout = np.unique([a.layout_id for a in of.architectures], return_inverse=True)[1][of.architecture]
    alone = np.bincount(layout)[layout] == 1
    return _exchanged(np.where(alone, -1, layout), seed)


def anybody(of: Population, seed: int) -> np.ndarray:
    """(M,) int64: for each network any other one."""
    return _exchanged(np.zeros(len(of), np.int64), seed)


def _exchanged(pools: np.ndarray, seed: int) -> np.ndarray:
    """For each place (M,) another one of its pool, or where there is none, of all."""
    rng = streams.generator("nws weights of others", seed)
    found = np.arange(len(pools))
    for pool in np.unique(pools):
        order = rng.permutation(np.flatnonzero(pools == pool))
        found[order] = np.roll(order, 1)
        if len(order) == 1:  # alone in its layout, and no other is: anybody's
            found[order] = rng.choice(np.delete(np.arange(len(pools)), order))
    return found
