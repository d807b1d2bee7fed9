"""A `Study` → what its readers make of networks that are unlike those they learned from.

Three questions, one table each: networks of a level that was never seen; the same networks in other coordinates
(units permuted, scales shifted from layer to layer), which compute the same; children that went on from the networks under another
recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import symmetry
from zoo_datasets.analysis.nws import divisions, population, properties, scoring
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.analysis.nws.questions import Rows, _asked, _last, _spaced, _weights
from zoo_datasets.analysis.nws.scoring import Judged
from zoo_datasets.analysis.nws.solvers import SVM, solve
from zoo_datasets.analysis.nws.study import DEEP, Study, askable, readers
from zoo_datasets.baselines.groups import finite
from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.intervals import Interval
from zoo_datasets.zoo import Zoo

# What is done to a network that leaves its function as it is → the kinds of symmetry.
STILL = "as they are"
MOVES: Mapping[str, tuple[str, ...]] = {
    STILL: (),
    "permuted": ("permutation",),
    "rescaled": ("scale", "sign"),
    "both": symmetry.KINDS,
}
SYMMETRIC = {"svm": "layers", "svm, windows": "window"}  # method → what it reads
FEWEST = 5  # networks of a level, to be asked about


# ── a level that was never seen ───────────────────────────────────────────────────────


def held_out(of: Study, axes: Sequence[str], deep: bool = False, deep_folds: bool = False) -> Rows:
    """Each level of these properties left out while learning: how the other properties of its networks are read.

    `within` is what five folds over all networks say of the same networks, `lost` how much better that is, paired by network, and
    `n_train` and `within_n_train` from how many each learned. The meta-classifier is asked where `deep` says so, and has a `within` where
    it learns in five folds too. Raises ZooError for an axis that is no class.
    """
    known = {p.name: p for p in of.of.properties if p.target.classes}
    for axis in axes:
        if axis not in known:
            raise ZooError(unknown("property with levels", axis, known, of.of.names))
    rows: Rows = []
    folds = divisions.folds(of.of, of.seed)
    also = (DEEP,) if deep and deep_folds and of.deep else ()
    inside = {
        (m, p.name): scoring.joined([of.judge(p, at, [_weights(of, m, p, at)[1]]) for at in folds])
        for p in _asked(of, *folds) for m in (*readers(p), *also)
    } if axes else {}  # fmt: skip
    for axis in axes:
        for level, at in divisions.held_out(of.of, known[axis], of.seed):
            if len(at.test) < FEWEST:
                continue
            said = {}
            if deep and of.deep and _asked(of, at):
                said = {name: v.mean(1) for name, v in _last(of, 0, at.test, of.windows, "", at).items()}
            for p in of.of.properties:
                if p.column == known[axis].column or not askable(p, at):
                    continue
                for method in (*readers(p), *([DEEP] if p.name in said else [])):
                    answer = said[p.name] if method == DEEP else of.answer(method, p, at).test
                    judged = of.judge(p, at, [answer])
                    row = judged.record(method=method, axis=axis, level=level, kind=p.kind, n_train=len(at.train))
                    if (method, p.name) in inside:
                        row |= _beside(judged, inside[method, p.name])
                        row["within_n_train"] = round(float(np.mean([len(f.train) for f in folds])))
                    rows.append(row)
    return rows


def _beside(never_seen: Judged, within: Judged) -> dict[str, Any]:
    """How the same networks are read by who has learned from others of their level."""
    place = {network: i for i, network in enumerate(within.networks.tolist())}
    order = np.array([place[network] for network in never_seen.networks.tolist()])
    known = within.among(order)
    lost = scoring.difference(never_seen, known)
    return {"within": float(known.interval().value)} | _lost(lost)


# ── other coordinates ─────────────────────────────────────────────────────────────────


def symmetries(of: Study) -> Rows:
    """Test networks in other coordinates, read by what learned from networks as they are.

    Of each move those networks alone whose weights it changes, beside the same networks as they are, paired: `before` and `lost`.
    """
    own, asked = of.of.last[of.at.test], _asked(of, of.at)
    moved: dict[str, np.ndarray] = {}  # move → of which test networks it changes weights, (n,) bool
    there: dict[str, list[np.ndarray]] = {kind: [] for kind in SYMMETRIC.values()}
    said: dict[str, list[dict[str, np.ndarray]]] = {}
    learned = [of.deep.learned(asked, of.at, of.window, seed) for seed in range(of.seeds)] if of.deep else []
    for name, kinds in meters.over(list(MOVES.items()), "networks in other coordinates", "moves"):
        vectors, moved[name] = _moved(of.of, own, kinds, of.seed)
        elsewhere = Study(_with(of.of, vectors), of.at, of.window, of.seeds, of.windows, of.seed, of.permutations, None)
        for kind, numbers in there.items():
            numbers.append(elsewhere.of_snapshots(kind, own))
        if of.deep:
            from zoo_datasets.analysis.nws import deep

            windows, starts = deep.moved(of.deep.rows, vectors), _spaced(of, own, of.windows)
            said[name] = [of.deep.said(net, own, starts, of.window, rows=windows) for net in learned]
    rows: Rows = []
    for method, kind in SYMMETRIC.items():
        for p in asked:
            answers = solve(SVM, of.numbers(kind), p, of.at, of.seed, more=tuple(there[kind])).more
            by_move = {name: of.judge(p, of.at, [answer]) for name, answer in zip(MOVES, answers, strict=True)}
            rows += _paired(of, method, by_move, moved)
    for p in asked if of.deep else ():
        by_move = {name: of.judge(p, of.at, [s[p.name].mean(1) for s in own_said]) for name, own_said in said.items()}
        rows += _paired(of, DEEP, by_move, moved)
    return rows


def _paired(of: Study, method: str, by_move: Mapping[str, Judged], moved: Mapping[str, np.ndarray]) -> Rows:
    rows: Rows = []
    still = by_move[STILL]
    for name, judged in by_move.items():
        changed = np.isin(judged.networks, of.at.test[moved[name]])
        about = {"method": method, "move": name, "kind": judged.of.kind, "n_moved": int(changed.sum())}
        if name == STILL:
            rows.append(judged.record(**about))
        elif changed.any():
            before, after = still.among(changed), judged.among(changed)
            lost = scoring.difference(after, before)
            rows.append(after.record(**about) | {"before": float(before.interval().value)} | _lost(lost))
    return rows


def _lost(found: Interval) -> dict[str, Any]:
    return {"lost": found.value, "lost_low": found.low, "lost_high": found.high}


def _moved(
    of: Population, snapshots: np.ndarray, kinds: Sequence[str], seed: int
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Snapshot → its vector after a random move, and which of them differ from before, (n,) bool."""
    vectors: dict[int, np.ndarray] = {}
    differs = np.zeros(len(snapshots), bool)
    for place, i in enumerate(snapshots.tolist()):
        before = finite(np.asarray(of.vectors[i]))
        architecture = of.architectures[of.architecture[of.owner[i]]]
        own = [k for k in kinds if k in symmetry.known_kinds(architecture)]
        vectors[i] = symmetry.augment(before, architecture, [seed, of.ids[of.owner[i]]], kinds=own) if own else before
        differs[place] = (vectors[i] != before).any()
    return vectors, differs


def _with(of: Population, vectors: Mapping[int, np.ndarray]) -> Population:
    """The population with other vectors of some snapshots."""
    return dataclasses.replace(of, vectors=tuple(vectors.get(i, v) for i, v in enumerate(of.vectors)))


# ── children ──────────────────────────────────────────────────────────────────────────


def children(of: Study, zoos: Sequence[Zoo]) -> Rows:
    """Networks that went on from the population's under another recipe: is their parent's set-up read, or their own?

    Only children of test networks. Properties in which a child differs from its parent are asked
    twice, of the others the answer is one. By place in the child's own training. Raises ZooError for a zoo of no children.
    """
    rows: Rows = []
    for zoo in zoos:
        young, networks, parent = grown(of.of, zoo)
        rows += _of_children(of, zoo.name, young, networks, parent)
    return rows


def grown(of: Population, zoo: Zoo) -> tuple[Population, np.ndarray, np.ndarray]:
    """The children, which of them went on from test networks, and from which. Raises ZooError where none did."""
    place_of = {i: n for n, i in enumerate(of.ids)}
    table = zoo.models
    parents = table["parent_id"].to_pylist() if "parent_id" in table.column_names else []
    if not any(p in place_of for p in parents):
        raise ZooError(
            f"No network of {zoo.name} went on from one of {of.names}. Name a zoo whose recipe says "
            "`init: {zoo: …}` of one of these."
        )
    networks = np.array(
        [n for n, p in enumerate(parents) if p in place_of and of.side[place_of[p]] == "test"], np.int64
    )
    if not len(networks):
        raise ZooError(
            f"All networks of {zoo.name} went on from networks that are learned from; none is left to ask about."
        )
    parent = np.array([place_of[parents[n]] for n in networks.tolist()], np.int64)
    return population.of_children(zoo, of), networks, parent


def _of_children(of: Study, name: str, young: Population, networks: np.ndarray, parent: np.ndarray) -> Rows:
    rows: Rows = []
    groups = of.of.groups[parent]
    theirs = Study(young, of.at, of.window, of.seeds, of.windows, of.seed, of.permutations, None)
    own_values = {p.name: p.values for p in young.properties}
    asked = _asked(of, of.at)
    places = sorted({0, young.n_places // 2, young.n_places - 1})
    there = tuple(theirs.of_snapshots("layers", young.at(place)[networks]) for place in places)
    by_statistics: dict[str, tuple[np.ndarray, ...]] = {}  # of each property an answer a place
    if there[0].shape[2] == of.numbers("layers").shape[2]:
        by_statistics = {p.name: solve(SVM, of.numbers("layers"), p, of.at, of.seed, more=there).more for p in asked}
    learned = [of.deep.learned(asked, of.at, of.window, seed) for seed in range(of.seeds)] if of.deep else []
    for number, place in enumerate(places):
        snapshots = young.at(place)[networks]
        answers: dict[str, dict[str, list[np.ndarray]]] = {m: {} for m in ("svm", DEEP)}
        answers["svm"] = {name: [found[number]] for name, found in by_statistics.items()}
        if of.deep:
            from zoo_datasets.baselines.meta_classifier import Rows as Windows

            windows = Windows(young.vectors, young.orders)
            starts = windows.spaced(snapshots, of.window, of.windows)
            for net in learned:
                for key, value in of.deep.said(net, snapshots, starts, of.window, rows=windows).items():
                    answers[DEEP].setdefault(key, []).append(value.mean(1))
        for method, by_property in answers.items():
            for p in asked:
                if p.name in by_property:
                    rows += _two_ways(p, by_property[p.name], groups, parent, own_values.get(p.name), networks,
                                      {"zoo": name, "method": method, "place": place, "of": young.n_places})  # fmt: skip
    return rows


def _two_ways(
    p: Property, said: Sequence[np.ndarray], groups: np.ndarray, parent: np.ndarray,
    own: np.ndarray | None, networks: np.ndarray, about: dict[str, Any],
) -> Rows:  # fmt: skip
    """Rows against the parent's value, and where the child's own differs against both."""
    before = p.values[parent]
    now = before if own is None else own[networks]
    same, told = (before == now) | np.isnan(now), now != properties.UNSEEN
    rows: Rows = []
    for whose, values, kept in (
        ("both", before, same),
        ("parent's", before, ~same),
        ("child's own", now, ~same & told),
    ):
        if kept.any():
            asked = dataclasses.replace(p, values=values)
            judged = scoring.judge(asked, said, np.arange(len(values)), groups)
            rows.append(judged.among(np.isin(judged.networks, np.flatnonzero(kept))).record(whose=whose, **about))
    return rows
