"""A `Study` → the paper's questions, each answered by rows: what is readable, when, where, from how much, of whom.

All answers are about networks of groups that nothing was learned from. Intervals are over groups. What the meta-classifier
says of a network is the mean over evenly spaced windows, unless one window is asked about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets.analysis.nws import divisions, features, scoring
from zoo_datasets.analysis.nws.divisions import Division
from zoo_datasets.analysis.nws.properties import ARCHITECTURE, Property
from zoo_datasets.analysis.nws.scoring import Judged
from zoo_datasets.analysis.nws.solvers import BOOSTING, SVM, solve
from zoo_datasets.analysis.nws.study import (
    ASKED,
    DEEP,
    METADATA,
    METHODS,
    OF_MIXED,
    OF_NETWORK,
    ONE,
    POSITIONS,
    SEED_0,
    UPDATES,
    Study,
    askable,
    by_layers_of_looks,
    reader,
    readers,
)
from zoo_datasets.core import meters

Rows = list[dict[str, Any]]
BINS = 3  # of networks by their accuracy
POSITIONS_ASKED = 100  # evenly spaced windows
PURE = 1.0  # share of a window's values, for it to be of one part of the network


# ── what ──────────────────────────────────────────────────────────────────────────────


def accuracy(of: Study, more: Sequence[tuple[str, Sequence[Property], bool]] = ()) -> Rows:
    """Every property and method, with chance, interval and p; `more` are further meta-classifiers: name, properties, and
    whether their epochs are the published ones.

    These have one seed each and are compared with the first seed of the others, not with the mean over several. Beside what a
    meta-classifier says stand the steps that it learned.
    """
    rows = []
    for p in meters.over(_asked(of, of.at), "properties from statistics", "properties"):
        for method in (m for m in METHODS if not by_layers_of_looks(m, p)):
            rows.append(_kept(of, method, of.judge(p, of.at, [of.answer(method, p, of.at).test])))
    if of.deep:
        for method, batch in ((DEEP, ""), (OF_NETWORK, "network"), (OF_MIXED, "mixed")):
            said = [_last(of, seed, of.at.test, of.windows, batch) for seed in range(of.seeds)]
            steps = {"steps": of.deep.steps(of.at)}
            for p in _asked(of, of.at):
                rows.append(_kept(of, method, of.judge(p, of.at, [s[p.name].mean(1) for s in said])) | steps)
                if method == DEEP:
                    rows.append(_kept(of, ONE, _each(of, p, of.at.test, [s[p.name] for s in said])) | steps)
                    if more:
                        # No test of its own: it is part of the mean above.
                        one = of.judge(p, of.at, [said[0][p.name].mean(1)])
                        rows.append(one.record(method=SEED_0, kind=p.kind, first=False, p=None) | steps)
        for name, properties, published in more:
            steps = {"steps": of.deep.steps(of.at, published)}
            learned = of.deep.learned(properties, of.at, of.window, 0, published=published)
            found = of.deep.said(
                learned, of.of.last[of.at.test], _spaced(of, of.of.last[of.at.test], of.windows), of.window
            )
            rows += [_kept(of, name, of.judge(p, of.at, [found[p.name].mean(1)])) | steps for p in properties]
    return rows


def by_accuracy(of: Study) -> Rows:
    """The same answers, by how accurate the networks are: thirds, and all of them inside thirds."""
    rows = []
    for (_, method), judged in of.judged.items():
        about = {"method": method, "kind": judged.of.kind, "first": method == reader(judged.of)}
        own = of.of.accuracy[judged.networks]
        known = np.isfinite(own)
        if not known.any():
            continue
        edges = np.quantile(own[known], np.arange(1, BINS) / BINS)
        place = np.where(known, np.searchsorted(edges, own, side="right"), -1)
        parts = [judged.among(place == b) for b in range(BINS)]
        for number, part in enumerate(parts):
            if part.differ:
                at: dict[str, Any] = {"bin": number, "accuracy_of_networks": float(own[place == number].mean())}
                rows.append(part.record(**about, **at))
        some = [p for p in parts if p.differ]
        if not some:
            continue
        sizes = [len(p.networks) for p in some]
        inside: dict[str, Any] = {"bin": "inside", "accuracy_of_networks": float(own[known].mean())}
        chance = float(np.average([p.chance for p in some], weights=sizes))
        rows.append(scoring.stratified(some).record(**about, **inside) | {"chance": chance})
        constant = of.of.constant[judged.networks]
        if constant.any() and not constant.all() and judged.among(~constant).differ:
            at = {"bin": "no constant start", "accuracy_of_networks": float(own[~constant].mean())}
            rows.append(judged.among(~constant).record(**about, **at))
    return rows


# ── beyond metadata ───────────────────────────────────────────────────────────────────


def gain(of: Study, deep_folds: bool = False) -> Rows:
    """What weights add to the settings, final accuracy and vector length, by five folds over all networks.

    Once more with the number of updates known too; and of networks without a constant start. The meta-classifier
    is asked in folds only where that is wanted: it is learned anew in each.
    """
    arms = [("all", np.ones(len(of.of), bool))]
    if of.of.constant.any() and not of.of.constant.all():
        arms.append(("no constant start", ~of.of.constant))
    rows = []
    for arm, kept in arms:
        if len(np.unique(of.of.groups[kept])) < divisions.FOLDS:
            continue
        folds = divisions.folds(of.of, of.seed, kept)
        for p in meters.over(_asked(of, *folds), f"gain over metadata, {arm}", "properties"):
            rows += _gains(of, p, folds, readers(p), arm)
        if of.deep and deep_folds:
            for p in _asked(of, *folds):
                rows += _gains(of, p, folds, (DEEP,), arm)
    if of.deep and not deep_folds:
        for p in _asked(of, of.at):
            rows += _gains(of, p, [of.at], (DEEP,), "test networks")
    return rows


def _gains(of: Study, p: Property, folds: Sequence[Division], methods: Sequence[str], arm: str) -> Rows:
    """Rows of one property: for each of two kinds of knowledge, each method mixed with it, and boosting of both at once.

    Of what a network looks like a third kind is where the windows lie, alone: their values may say more of it than that.
    The first of `methods` is the one whose rows are a verdict: the others were not named before.
    """
    overs = (METADATA, UPDATES, *((POSITIONS,) if p.kind == ARCHITECTURE else ()))
    plain: dict[str, list[Judged]] = {over: [] for over in overs}
    with_weights: dict[tuple[str, str], list[Judged]] = {}
    for at in folds:
        weights = {m: _weights(of, m, p, at) for m in methods}
        layers = of.numbers("layers") if "boosting" in methods and arm == "all" else None
        for over in plain:
            known = of.answer(POSITIONS, p, at) if over == POSITIONS else of.beside(over, p, at)
            plain[over].append(of.judge(p, at, [known.test]))
            values, has = p.values[at.validation], np.isfinite(p.values[at.validation])
            for method, (validation, test) in weights.items():
                share = scoring.share_of(p, known.validation[has], validation[has], values[has], known.prior)
                said = scoring.mixed(p, known.test, test, share, known.prior)
                with_weights.setdefault((method, over), []).append(of.judge(p, at, [said]))
            if layers is not None:
                both = np.concatenate([of.known(p, at, over == UPDATES), layers], 2)
                said = solve(BOOSTING, both, p, at, of.seed).test
                with_weights.setdefault(("boosting of both", over), []).append(of.judge(p, at, [said]))
    return [
        scoring.gain(
            scoring.joined(plain[over]), scoring.joined(parts), of.permutations, of.seed,
            method=method, over=over, arm=arm, folds=len(folds), kind=p.kind, first=method == reader(p),
        )
        for (method, over), parts in with_weights.items()
    ]  # fmt: skip


def _weights(of: Study, method: str, p: Property, at: Division) -> tuple[np.ndarray, np.ndarray]:
    """What a method says of validation and test networks from weights alone."""
    if method != DEEP:
        found = of.answer(method, p, at)
        return found.validation, found.test
    said = [_last(of, seed, np.concatenate([at.validation, at.test]), of.windows, "", at)[p.name].mean(1)
            for seed in range(of.seeds if at is of.at else 1)]  # fmt: skip
    mean = np.mean(said, axis=0)
    return mean[: len(at.validation)], mean[len(at.validation) :]


# ── when ──────────────────────────────────────────────────────────────────────────────


def when(of: Study) -> Rows:
    """By snapshot, from the first to the last: statistics learned at that snapshot, the meta-classifier at all. Each with its p."""
    rows = []
    n_places = of.of.n_places
    for place in meters.over(range(n_places), "snapshots along training", "snapshots"):
        known = of.of.starts[of.at.test].all() if place == 0 else False
        about = {"place": place, "of": n_places, "step_0": bool(known)}
        for p in _asked(of, of.at):
            judged = of.judge(p, of.at, [of.answer(reader(p), p, of.at, place).test])
            rows.append(judged.record(method=reader(p), kind=p.kind, **about) | _test(of, judged))
    if of.deep:
        for seed_said, place in _along(of):
            about = {"place": place, "of": n_places, "step_0": bool(place == 0 and of.of.starts[of.at.test].all())}
            for p in _asked(of, of.at):
                judged = of.judge(p, of.at, [s[p.name].mean(1) for s in seed_said])
                rows.append(judged.record(method=DEEP, kind=p.kind, **about) | _test(of, judged))
    return rows


def _along(of: Study) -> Iterator[tuple[list[dict[str, np.ndarray]], int]]:
    assert of.deep
    learned = [of.deep.learned(_asked(of, of.at), of.at, of.window, seed) for seed in range(of.seeds)]
    for place in meters.over(range(of.of.n_places), "the meta-classifier along training", "snapshots"):
        own = of.of.at(place)[of.at.test]
        yield [of.deep.said(net, own, _spaced(of, own, ASKED), of.window) for net in learned], place


# ── where ─────────────────────────────────────────────────────────────────────────────


def where(of: Study) -> dict[str, Rows]:
    """By place in the vector: evenly spaced windows, windows of one part of the network, statistics of one layer."""
    found: dict[str, Rows] = {"layers": [], "positions": [], "parts": []}
    numbers, size = of.numbers("layers"), features.NUMBERS
    for name, slots in features.parts(of.of).items():
        columns = (slots[of.of.architecture][:, :, None] * size + np.arange(size)).reshape(len(of.of), -1)
        own = np.take_along_axis(numbers, columns[:, None], 2)
        for p in (p for p in _asked(of, of.at) if p.kind != ARCHITECTURE):  # whose sizes these would tell
            judged = of.judge(p, of.at, [solve(SVM, own, p, of.at, of.seed).test])
            found["layers"].append(judged.record(method="svm", layer=name))
    if of.deep:
        own = of.of.last[of.at.test]
        starts = _spaced(of, own, POSITIONS_ASKED)
        share = _of_convolutions(of, own, starts)
        said = [
            of.deep.said(of.deep.learned(_asked(of, of.at), of.at, of.window, seed), own, starts, of.window)
            for seed in range(of.seeds)
        ]
        for p in _asked(of, of.at):
            by_place = [_each(of, p, of.at.test, [s[p.name][:, [j]] for s in said]) for j in range(starts.shape[1])]
            bounds = [j.interval() for j in by_place]
            found["positions"].append({
                "property": p.name, "n": len(by_place[0].networks), "chance": by_place[0].chance,
                "values": [b.value for b in bounds], "low": [b.low for b in bounds], "high": [b.high for b in bounds],
            })  # fmt: skip
            inside_of = {"convolutions": share >= PURE, "fully connected": share <= 0}
            has = np.logical_and.reduce(
                [i.any(1) for i in inside_of.values()]
            )  # the same networks, or they are not compared
            for part, inside in inside_of.items() if has.any() else ():
                mine = _each(of, p, of.at.test[has], [s[p.name][has] for s in said], inside[has])
                found["parts"].append(mine.record(part=part, windows=int(inside[has].sum())))
    return found


def _of_convolutions(of: Study, snapshots: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The share of each window's values that are of layers before the first fully connected one, (n, W)."""
    found = np.empty(starts.shape)
    counts: dict[int, np.ndarray] = {}
    for out, i, own in zip(found, snapshots.tolist(), starts, strict=True):
        number = int(of.of.architecture[of.of.owner[i]])
        if number not in counts:
            before = features.before_layers(of.of.architectures[number])[of.of.orders[i]]
            counts[number] = np.concatenate([[0], np.cumsum(before)])
        out[:] = (counts[number][own + of.window] - counts[number][own]) / of.window
    return found


# ── how much ──────────────────────────────────────────────────────────────────────────


def how_much(of: Study, sizes: Sequence[int]) -> Rows:
    """By size of the window: one window and the mean over many, statistics of windows beside; one seed."""
    rows = []
    for size in meters.over(sizes, "sizes of windows", "sizes"):
        whole = bool((of.of.lengths == size).all())
        for p in _asked(of, of.at):
            judged = of.judge(p, of.at, [solve(SVM, of.numbers("window", window=size), p, of.at, of.seed).test])
            rows.append(judged.record(method="svm, windows", size=size, all=whole))
        if of.deep:
            learned = of.deep.learned(_asked(of, of.at), of.at, size, 0)
            own = of.of.last[of.at.test]
            starts = of.deep.rows.spaced(own, size, 1 if whole else of.windows)
            said = of.deep.said(learned, own, starts, size)
            for p in _asked(of, of.at):
                rows.append(of.judge(p, of.at, [said[p.name].mean(1)]).record(method=DEEP, size=size, all=whole))
                rows.append(_each(of, p, of.at.test, [said[p.name]]).record(method=ONE, size=size, all=whole))
    return rows


# ── parts ─────────────────────────────────────────────────────────────────────────────


def _asked(of: Study, *at: Division) -> list[Property]:
    return [p for p in of.of.properties if all(askable(p, a) for a in at)]


def _test(of: Study, judged: Judged) -> dict[str, Any]:
    return {"p": scoring.p_value(judged, of.permutations, of.seed), "n_permutations": of.permutations}


def _kept(of: Study, method: str, judged: Judged) -> dict[str, Any]:
    of.judged[judged.of.name, method] = judged
    first = method == reader(judged.of)
    return judged.record(method=method, kind=judged.of.kind, first=first) | _test(of, judged)


def _spaced(of: Study, snapshots: np.ndarray, count: int) -> np.ndarray:
    assert of.deep
    return of.deep.rows.spaced(snapshots, of.window, count)


def _last(
    of: Study, seed: int, networks: np.ndarray, count: int, batch_statistics: str = "", at: Division | None = None
) -> dict[str, np.ndarray]:  # fmt: skip
    """What the meta-classifier of a seed says of windows of the networks' last snapshots, (n, W, …) of each property; asked once."""
    assert of.deep
    at = at or of.at
    key = (*at.key, seed, networks.tobytes(), count, batch_statistics)
    if key not in of.said:
        learned = of.deep.learned(_asked(of, at), at, of.window, seed)
        own = of.of.last[networks]
        of.said[key] = of.deep.said(learned, own, _spaced(of, own, count), of.window, batch_statistics)
    return of.said[key]


def _each(
    of: Study, p: Property, networks: np.ndarray, said: Sequence[np.ndarray], kept: np.ndarray | None = None
) -> Judged:
    """Windows judged one by one (those that are kept), then the mean over each network's."""
    kept = np.ones(said[0].shape[:2], bool) if kept is None else kept
    count = said[0].shape[1]
    whose = np.repeat(np.arange(len(networks)), count)
    flat = [s.reshape(-1, *s.shape[2:]) for s in said]
    every = scoring.judge(p, flat, networks[whose], of.of.groups)
    first = every.among(np.arange(0, len(every.networks), count))  # each network once
    marks = every.marks.reshape(len(said), -1, count)  # (seeds, n, W)
    mask = kept[np.isfinite(p.values[networks])]
    mean = (marks * mask).sum(2) / np.maximum(1, mask.sum(1))
    return dataclasses.replace(first, marks=mean, said=np.zeros((0, len(first.networks))))
