"""Zoos → one population: networks with their properties, and their snapshots as mapped vectors.

In:  zoos, pooled. Out: a `Population`: of M networks groups, sides and what is known beside the weights; of N
     snapshots the vectors where they lie, and the order in which their values are read.

Windows are of consecutive values as Neural Weight Space writes them (`views.nws_order`); of a network with layers that it
has not, as the zoo stores them. No vector is copied.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from zoo_datasets import split_files, views
from zoo_datasets.analysis.nws import properties
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.baselines.interface import View
from zoo_datasets.core.arrow import floats_of
from zoo_datasets.errors import GridError, NoNetworkError, ZooError
from zoo_datasets.format import splits
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.zoo import Zoo

FEWEST_GROUPS = 10  # of networks that share something: two in each of five folds
BESIDE = ("accuracy", "vector_length")  # what is known of a network beside its settings
UPDATES = "updates"
STARTS = ("init", "init_kind", "initialization")  # settings that say how weights start


@dataclasses.dataclass(frozen=True)
class Population:
    """M networks and their N snapshots."""

    zoos: tuple[Zoo, ...]
    ids: tuple[str, ...]  # (M,)
    groups: np.ndarray  # (M,) str: what shares an initialization or a lineage
    side: np.ndarray  # (M,) str: train, validation, test
    properties: tuple[Property, ...]
    refused: dict[str, str]  # setting → why it is no property
    recipe: pa.Table  # (M,) rows: the settings that vary
    accuracy: np.ndarray  # (M,) float64: of the last snapshot, on test images; NaN where it was not measured
    updates: np.ndarray  # (M,) float64: steps of training until the last snapshot
    architectures: tuple[Architecture | External, ...]
    architecture: np.ndarray  # (M,) int64: the place of each network's own
    vectors: tuple[np.ndarray, ...]  # (N,) of (P,) float32
    snapshots: tuple[np.ndarray, ...]  # (M,) of the places in `vectors`, by step
    starts: np.ndarray  # (M,) bool: whether its first snapshot is from before the first step
    constant: np.ndarray  # (M,) bool: whether all its weights start from one value
    published_order: bool  # whether all values are read in the order of Neural Weight Space

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> str:
        return ", ".join(z.name for z in self.zoos)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """(N,) int64: the network of each snapshot."""
        owner = np.zeros(len(self.vectors), np.int64)
        for network, rows in enumerate(self.snapshots):
            owner[rows] = network
        return owner

    @functools.cached_property
    def orders(self) -> tuple[np.ndarray, ...]:
        """(N,) of (P,) int32: where each value lies, as they are read. Networks that differ in their activation share one."""
        known: dict[str, np.ndarray] = {}
        of: list[np.ndarray] = []
        for a in self.architectures:
            order, first = _order(a), known.get(a.layout_id)
            of.append(first if first is not None and (first == order).all() else order)
            known.setdefault(a.layout_id, order)
        return tuple(of[self.architecture[n]] for n in self.owner.tolist())

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(M,) int64: values of each vector."""
        return np.array([a.layout.n_params for a in self.architectures], np.int64)[self.architecture]

    @property
    def n_places(self) -> int:
        """Snapshots of the networks with the most."""
        return max(map(len, self.snapshots))

    def at(self, place: int) -> np.ndarray:
        """(M,) int64: the snapshot of each network at a place 0 … n_places − 1 of training; shorter runs are stretched."""
        share = place / max(1, self.n_places - 1)
        return np.array([rows[round(share * (len(rows) - 1))] for rows in self.snapshots], np.int64)

    @property
    def last(self) -> np.ndarray:
        return self.at(self.n_places - 1)

    def view(self, snapshots: np.ndarray) -> View:
        """Those snapshots as baselines take networks."""
        return View(
            self.architectures,  # type: ignore[arg-type]  # of those without layers the layout alone is read
            self.architecture[self.owner[snapshots]],
            [self.vectors[i] for i in snapshots.tolist()],
            pa.table({"": pa.nulls(len(snapshots))}),
        )

    def metadata(self, of: Property, updates: bool = False) -> pa.Table:
        """What is known without weights: the other settings but those that tell, the final accuracy, the vector's length."""
        hidden = {of.column, *of.telling}
        table = self.recipe.drop_columns([n for n in self.recipe.column_names if n in hidden])
        for name, values in zip(BESIDE, (self.accuracy, self.lengths), strict=True):
            table = table.append_column(f"final {name}", pa.array(values.astype(np.float64)))
        return table.append_column(UPDATES, pa.array(self.updates)) if updates else table


def read(zoos: Sequence[Zoo], names: Sequence[str] | None = None) -> Population:
    """The population of zoos, with all properties or those of these names. Raises ZooError where there is nothing to read."""
    ids = [i for z in zoos for i in z.models["model_id"].to_pylist()]
    if len(set(ids)) < len(ids):
        raise ZooError(f"{', '.join(z.name for z in zoos)} have networks in common; take one of them.")
    shared = shared_starts(zoos, ids)
    groups = _groups(zoos, ids, shared)
    if (n_groups := len(np.unique(groups))) < FEWEST_GROUPS:
        raise ZooError(
            f"{', '.join(z.name for z in zoos)} has {len(ids):,} networks of {n_groups} initializations; "
            f"what is read from weights is tested on networks never seen, and at least {FEWEST_GROUPS} are needed."
        )
    known, architecture = _architectures(zoos)
    layouts = np.array([a.layout_id for a in known], object)[architecture]
    found, refused, recipe = properties.found(zoos, layouts, names)
    sides = _sides(zoos, ids, groups, shared)
    # Who goes on from another's weights, or has the same, is with it, in whatever group that was put.
    first = _ancestors(zoos, ids)
    groups, sides = groups[first], sides[first]
    return _assembled(zoos, groups, sides, found, refused, recipe, known, architecture)


def of_children(zoo: Zoo, parents: Population) -> Population:
    """A zoo whose networks went on from a population's, with its properties in that population's levels."""
    keys = split_files.group_keys(*parents.zoos, zoo)
    ids = zoo.models["model_id"].to_pylist()
    groups = np.array([keys[i] for i in ids], object).astype(str)
    found = [properties.like(zoo, p) for p in parents.properties]
    known, architecture = _architectures([zoo])
    side = np.full(len(ids), "test")
    return _assembled([zoo], groups, side, found, {}, pa.table({"": pa.nulls(len(ids))}), known, architecture)


def _assembled(
    zoos: Sequence[Zoo], groups: np.ndarray, side: np.ndarray, found: Sequence[Property], refused: dict[str, str],
    recipe: pa.Table, architectures: Sequence[Architecture | External], architecture: np.ndarray,
) -> Population:  # fmt: skip
    vectors: list[np.ndarray] = []
    snapshots: list[np.ndarray] = []
    starts, updates = [], []
    for z in zoos:
        own, steps = _snapshots(z)
        snapshots += [len(vectors) + rows for rows in own]
        starts += [steps[rows[0]] == 0 for rows in own]
        updates += [steps[rows[-1]] for rows in own]
        vectors += _vectors(z)
    ids = tuple(i for z in zoos for i in z.models["model_id"].to_pylist())
    return Population(
        tuple(zoos), ids, groups, side, tuple(found), refused, recipe, _accuracy(zoos), np.array(updates, np.float64),
        tuple(architectures), architecture, tuple(vectors), tuple(snapshots), np.array(starts, bool), constant_starts(zoos),
        all(_published(a) for a in architectures),
    )  # fmt: skip


def _architectures(zoos: Sequence[Zoo]) -> tuple[list[Architecture | External], np.ndarray]:
    """Those that occur, each once, and the place of each model's own, (M,) int64."""
    known: dict[str, Architecture | External] = {}
    names = []
    for z in zoos:
        for i, name in zip(z.models["model_id"].to_pylist(), z.models["architecture_id"].to_pylist(), strict=True):
            names.append(str(name))
            if str(name) not in known:
                known[str(name)] = z.architecture(i)
    place = {name: i for i, name in enumerate(known)}
    return list(known.values()), np.array([place[n] for n in names], np.int64)


def constant_starts(zoos: Sequence[Zoo]) -> np.ndarray:
    """(M,) bool: networks all of whose weights start from one value."""
    found = []
    for z in zoos:
        own = np.zeros(len(z.models), bool)
        for name in (n for n in STARTS if n in z.models.column_names):
            own |= np.array([str(v).startswith("constant") for v in z.models[name].to_pylist()], bool)
        found.append(own)
    return np.concatenate(found)


def shared_starts(zoos: Sequence[Zoo], ids: Sequence[str]) -> np.ndarray:
    """(M,) bool: networks of a constant start whose init group is that of other initializations too, because nothing was drawn."""
    keys, inits = split_files.group_keys(*zoos), _column(zoos, "init_key")
    inside: dict[str, set[str]] = {}
    for i, init in zip(ids, inits, strict=True):
        inside.setdefault(keys[i], set()).add(init or i)
    return constant_starts(zoos) & np.array([len(inside[keys[i]]) > 1 for i in ids], bool)


def _groups(zoos: Sequence[Zoo], ids: Sequence[str], shared: np.ndarray) -> np.ndarray:
    """What networks share. A start that is everybody's says nothing of one: of these, who saw the images in one order."""
    keys, orders = split_files.group_keys(*zoos), _column(zoos, "order_key")
    own = [(f"order {o}" if o else i) if s else keys[i] for i, o, s in zip(ids, orders, shared.tolist(), strict=True)]
    return np.array(own, object).astype(str)


def _column(zoos: Sequence[Zoo], name: str) -> list[str | None]:
    """Of all models; None of a zoo that has no such column."""
    return [
        value
        for z in zoos
        for value in (z.models[name].to_pylist() if name in z.models.column_names else [None] * len(z.models))
    ]


def _ancestors(zoos: Sequence[Zoo], ids: Sequence[str]) -> np.ndarray:
    """(M,) int64: the place of the network that each one's weights go back to, its own where that is not here.

    Networks that end in the same weights are one network, wherever each is said to come from.
    """
    place = {i: n for n, i in enumerate(ids)}
    found = [place.get(str(root), n) for n, root in enumerate(_column(zoos, "lineage_root"))]
    ends: dict[str, int] = {}  # of the last weights, the first network that has them
    for z in zoos:
        last = z.final()
        for i, sha in zip(last.column("model_id").to_pylist(), last.column("weights_sha256").to_pylist(), strict=True):
            n = place[i]
            found[n] = found[ends.setdefault(sha, n)] if sha is not None else found[n]
    return np.array(found, np.int64)


def _sides(zoos: Sequence[Zoo], ids: Sequence[str], groups: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """The split that the zoos were sealed with; where one of its sides is empty, or zoos disagree, one by groups.

    Networks of a shared start are one init group there: they are dealt to the sides by groups of their own.
    """
    try:
        split = split_files.stored(*zoos)
        stored = dict(split.assignment) if set(split.counts) == set(SPLITS) else {}
    except GridError:
        stored = {}
    dealt = [splits.by_hash(g, split_files.STANDARD) for g in groups.tolist()]
    own = [d if s else stored.get(i, d) for i, d, s in zip(ids, dealt, shared.tolist(), strict=True)]
    return np.array(own, object).astype(str)


def _snapshots(zoo: Zoo) -> tuple[list[np.ndarray], np.ndarray]:
    """Of each model the places of its snapshots by step, and the step of each snapshot."""
    steps = np.asarray(zoo.column("step").to_numpy(), np.int64)
    place = {i: n for n, i in enumerate(zoo.models["model_id"].to_pylist())}
    owner = np.array([place[i] for i in zoo.column("model_id").to_pylist()], np.int64)
    order = np.lexsort((steps, owner))
    return np.split(order, np.cumsum(np.bincount(owner, minlength=len(place)))[:-1]), steps


def _vectors(zoo: Zoo) -> list[np.ndarray]:
    """Of each snapshot a view of its vector in the mapped shard; of a zoo on the Hub what was fetched."""
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(zoo)
    for positions, weights in zoo.weights.by_layout().values():
        for start, stop in weights.runs():
            block = weights[start:stop]  # (n, P), a view
            for at, vector in zip(positions[start:stop].tolist(), block, strict=True):
                found[at] = vector
    return found


def _accuracy(zoos: Sequence[Zoo]) -> np.ndarray:
    parts = [
        floats_of(z.models["test_accuracy"])
        if "test_accuracy" in z.models.column_names
        else np.full(len(z.models), np.nan)
        for z in zoos
    ]
    return np.concatenate(parts)


def _order(architecture: Architecture | External) -> np.ndarray:
    try:
        return views.nws_order(architecture).astype(np.int32)
    except (ValueError, NoNetworkError):
        return np.arange(architecture.layout.n_params, dtype=np.int32)


def _published(architecture: Architecture | External) -> bool:
    try:
        views.nws_order(architecture)
    except (ValueError, NoNetworkError):
        return False
    return True
