"""A `Study` → what its readers make of networks that are unlike those they learned from.

Three questions, one table each: networks of a level that was never seen; the same networks in other coordinates
(units permuted, scales shifted from layer to layer), which compute the same; children that went on from the networks under another
recipe.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets import symmetry
from zoo_datasets.analysis.nws import divisions, population, properties, scoring
from zoo_datasets.analysis.nws.divisions import Division
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.analysis.nws.questions import Rows, _asked, _last, _spaced, _weights
from zoo_datasets.analysis.nws.scoring import Judged
from zoo_datasets.analysis.nws.solvers import SVM, solve
from zoo_datasets.analysis.nws.study import DEEP, Study, askable, by_layers_of_looks, readers
from zoo_datasets.baselines.groups import finite
from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.intervals import Interval
from zoo_datasets.zoo import Zoo

if TYPE_CHECKING:
    from zoo_datasets.baselines.learning import Learned

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


def symmetries(of: Study, deep_folds: bool = False) -> Rows:
    """All networks in other coordinates, read by what learned from others as they are, in five folds.

    Of each move those networks alone whose weights it changes, beside the same networks as they are, paired: `before` and `lost`.
    The meta-classifier is asked about test networks alone, by each of its seeds, where it does not learn in folds.
    """
    folds = divisions.folds(of.of, of.seed)
    moved: dict[str, np.ndarray] = {}  # move → of which networks it changes weights, (M,) bool
    there: dict[str, list[np.ndarray]] = {kind: [] for kind in SYMMETRIC.values()}
    said: dict[str, list[list[dict[str, np.ndarray]]]] = {name: [] for name in MOVES}  # of each division each seed's
    learned = _learned(of, deep_folds)
    for name, kinds in meters.over(list(MOVES.items()), "networks in other coordinates", "moves"):
        vectors, moved[name] = _moved(of.of, of.of.last, kinds, of.seed)
        elsewhere = Study(_with(of.of, vectors), of.at, of.window, of.seeds, of.windows, of.seed, of.permutations, None)
        for kind, numbers in there.items():
            numbers.append(elsewhere.of_snapshots(kind, of.of.last))
        if of.deep and learned:
            from zoo_datasets.analysis.nws import deep

            windows = deep.moved(of.deep.rows, vectors)
            for at, nets in learned:
                own = of.of.last[at.test]
                starts = _spaced(of, own, of.windows)
                said[name].append([of.deep.said(net, own, starts, of.window, rows=windows) for net in nets])
    rows: Rows = []
    for method, kind in SYMMETRIC.items():
        for p in (p for p in _asked(of, *folds) if not by_layers_of_looks(method, p)):
            parts: dict[str, list[Judged]] = {name: [] for name in MOVES}
            for at in folds:
                more = tuple(numbers[at.test] for numbers in there[kind])
                answers = solve(SVM, of.numbers(kind), p, at, of.seed, more=more).more
                for name, answer in zip(MOVES, answers, strict=True):
                    parts[name].append(of.judge(p, at, [answer]))
            rows += _paired(method, {name: scoring.joined(own) for name, own in parts.items()}, moved)
    for p in _asked(of, *(at for at, _ in learned)) if learned else ():
        by_move = {
            name: scoring.joined([
                of.judge(p, at, [s[p.name].mean(1) for s in own]) for (at, _), own in zip(learned, by_division, strict=True)
            ])
            for name, by_division in said.items()
        }  # fmt: skip
        rows += _paired(DEEP, by_move, moved)
    return rows


def _learned(of: Study, deep_folds: bool) -> list[tuple[Division, list[Learned]]]:
    """Meta-classifiers by whom they are asked about: one in each of five folds, or each seed's of the test networks."""
    divided = [(at, 1) for at in divisions.folds(of.of, of.seed)] if deep_folds else [(of.at, of.seeds)]
    if not of.deep or not _asked(of, *(at for at, _ in divided)):
        return []
    return [
        (at, [of.deep.learned(_asked(of, at), at, of.window, seed) for seed in range(seeds)]) for at, seeds in divided
    ]


def _paired(method: str, by_move: Mapping[str, Judged], moved: Mapping[str, np.ndarray]) -> Rows:
    rows: Rows = []
    still = by_move[STILL]
    for name, judged in by_move.items():
        changed = moved[name][judged.networks]
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


def children(of: Study, zoos: Sequence[Zoo], deep_folds: bool = False) -> Rows:
    """Networks that went on from the population's under another recipe: is their parent's set-up read, or their own?

    By who has not learned from their parent, in five folds; by the meta-classifier, where it does not learn in folds, only
    children of test networks. Properties in which a child differs from its parent are asked twice, of the others the answer is
    one. By place in the child's own training. Raises ZooError for a zoo of no children.
    """
    rows: Rows = []
    for zoo in zoos:
        young, networks, parent = grown(of.of, zoo)
        rows += _of_children(of, zoo.name, young, networks, parent, deep_folds)
    return rows


def grown(of: Population, zoo: Zoo) -> tuple[Population, np.ndarray, np.ndarray]:
    """A zoo's networks, which of them went on from the population's, and from which. Raises ZooError where none did."""
    place_of = {i: n for n, i in enumerate(of.ids)}
    table = zoo.models
    parents = table["parent_id"].to_pylist() if "parent_id" in table.column_names else []
    networks = np.array([n for n, p in enumerate(parents) if p in place_of], np.int64)
    if not len(networks):
        raise ZooError(
            f"No network of {zoo.name} went on from one of {of.names}. Name a zoo whose recipe says "
            "`init: {zoo: …}` of one of these."
        )
    return population.of_children(zoo, of), networks, np.array([place_of[parents[n]] for n in networks.tolist()])


def _of_children(
    of: Study, name: str, young: Population, networks: np.ndarray, parent: np.ndarray, deep_folds: bool
) -> Rows:
    theirs = Study(young, of.at, of.window, of.seeds, of.windows, of.seed, of.permutations, None)
    places = sorted({0, young.n_places // 2, young.n_places - 1})
    # Method → who was asked; and of each property and place what was said, of each division by each seed.
    who: dict[str, list[np.ndarray]] = {"svm": [], DEEP: []}
    said: dict[tuple[str, str, int], list[list[np.ndarray]]] = {}
    there = tuple(theirs.of_snapshots("layers", young.at(place)[networks]) for place in places)
    folds = divisions.folds(of.of, of.seed) if there[0].shape[2] == of.numbers("layers").shape[2] else []
    for at, mine in _among(folds, parent):
        who["svm"].append(mine)
        for p in _asked(of, *folds):
            more = tuple(numbers[mine] for numbers in there)
            for place, answer in zip(
                places, solve(SVM, of.numbers("layers"), p, at, of.seed, more=more).more, strict=True
            ):
                said.setdefault(("svm", p.name, place), []).append([answer])
    learned = _learned(of, deep_folds)
    nets = {at.key: own for at, own in learned}
    for at, mine in _among([at for at, _ in learned], parent):
        from zoo_datasets.baselines.meta_classifier import Rows as Windows

        assert of.deep
        who[DEEP].append(mine)
        windows = Windows(young.vectors, young.orders)
        for place in places:
            snapshots = young.at(place)[networks[mine]]
            starts = windows.spaced(snapshots, of.window, of.windows)
            found = [of.deep.said(net, snapshots, starts, of.window, rows=windows) for net in nets[at.key]]
            for p in _asked(of, *(at for at, _ in learned)):
                said.setdefault((DEEP, p.name, place), []).append([s[p.name].mean(1) for s in found])
    own_values = {p.name: p.values for p in young.properties}
    rows: Rows = []
    for place, method, p in itertools.product(places, who, of.of.properties):
        if parts := said.get((method, p.name, place)):
            mine = np.concatenate(who[method])
            by_seed = [np.concatenate(seed) for seed in zip(*parts, strict=True)]
            about = {"zoo": name, "method": method, "place": place, "of": young.n_places}
            rows += _two_ways(
                p, by_seed, of.of.groups[parent[mine]], parent[mine], own_values.get(p.name), networks[mine], about
            )
    return rows


def _among(divided: Sequence[Division], parent: np.ndarray) -> Iterator[tuple[Division, np.ndarray]]:
    """Divisions and places of the children whose parents they ask about, where there are any."""
    for at in divided:
        mine = np.flatnonzero(np.isin(parent, at.test))
        if len(mine):
            yield at, mine


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
        # A number that all have has no spread that an error could be compared with.
        if kept.any() and (p.target.classes or len(np.unique(values[kept & np.isfinite(values)])) > 1):
            asked = dataclasses.replace(p, values=values)
            judged = scoring.judge(asked, said, np.arange(len(values)), groups)
            rows.append(judged.among(np.isin(judged.networks, np.flatnonzero(kept))).record(whose=whose, **about))
    return rows
