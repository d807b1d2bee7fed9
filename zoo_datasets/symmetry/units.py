"""Layout and architecture → which units may change places, and where scale and sign are free."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np
from jaxtyping import Float32, Shaped

from zoo_datasets import errors
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Entry, Layout
from zoo_datasets.networks.operations.operation import Node, units_of
from zoo_datasets.networks.operations.registry import operation

KINDS = ("permutation", "scale", "sign")
Permutations = dict[str, np.ndarray]  # group → int64 [..., units]; unit i comes from unit p[i]


@dataclasses.dataclass(frozen=True)
class Place:
    """A dimension of a tensor that runs over units: each unit is `block` neighbors in it."""

    entry: Entry
    dim: int
    units: int

    @property
    def block(self) -> int:
        return self.entry.shape[self.dim] // self.units

    @property
    def recurrent(self) -> bool:
        """Whether the tensor runs over these units twice: from a recurrent layer's state to its next."""
        name = self.entry.groups[self.dim]
        return name != "" and self.entry.groups.count(name) > 1

    @property
    def split_shape(self) -> tuple[int, ...]:
        """The entry's shape with its dimension as (units, block)."""
        s = self.entry.shape
        return (*s[: self.dim], self.units, self.block, *s[self.dim + 1 :])


@dataclasses.dataclass(frozen=True)
class Group:
    """Units that may change places: `own` tensors belong to a unit, `readers` take its output."""

    name: str
    units: int
    own: tuple[Place, ...]
    readers: tuple[Place, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        return (*self.own, *self.readers)


@dataclasses.dataclass(frozen=True)
class Factor:
    """A factor per unit between two neighboring nodes with weights: `up` times c, `down` divided by c."""

    source: str
    sink: str
    units: int
    scale: bool
    sign: bool
    up: tuple[Place, ...]
    down: tuple[Place, ...]


def groups(layout: Layout) -> tuple[Group, ...]:
    """The permutation groups of a layout, in forward order.

    A group has as many units as the first dimension named after it. Raises ValueError where
    another one is no multiple of that.
    """
    sizes: dict[str, int] = {}
    for entry in layout:
        for size, name in zip(entry.shape, entry.groups, strict=True):
            if name:
                sizes.setdefault(name, size)
    found = []
    for name, units in sizes.items():
        places = [Place(e, dim, units) for e in layout for dim, g in enumerate(e.groups) if g == name]
        for p in places:
            if p.entry.shape[p.dim] % units:
                raise ValueError(
                    f"Dimension {p.dim} of {p.entry.name} has size {p.entry.shape[p.dim]}, no multiple of the "
                    f"{units} units of its group {name!r}."
                )
        own = tuple(p for p in places if p.dim == 0)
        found.append(Group(name, units, own, tuple(p for p in places if p.dim > 0)))
    return tuple(found)


def factors(architecture: Architecture | External) -> tuple[Factor, ...]:
    """Where scale or sign is free, in forward order. Raises NoNetworkError where the layers are not known."""
    architecture = architecture.built()
    readers: dict[str, list[Node]] = {}
    for node in architecture.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    result = []
    for node in architecture.nodes:
        if not architecture.tensors[node.name]:
            continue
        between, sink = [operation(node.op)], node
        while len(readers.get(sink.name, [])) == 1 and len(readers[sink.name][0].inputs) == 1:
            sink = readers[sink.name][0]
            if architecture.tensors[sink.name]:
                break
            between.append(operation(sink.op))
        factor = _factor(architecture, node, sink)
        scale = factor.scale and all(o.homogeneous for o in between)
        sign = all(o.odd for o in between)
        if factor.down and (scale or sign):
            result.append(dataclasses.replace(factor, scale=scale, sign=sign))
    return tuple(result)


def factors_of(architecture: Architecture | External, kinds: Collection[str]) -> tuple[Factor, ...]:
    """`factors`, where one of the kinds needs them: permutations need the layout alone."""
    return () if set(kinds) <= {"permutation"} else factors(architecture)


def _factor(architecture: Architecture, source: Node, sink: Node) -> Factor:
    """The factor between two nodes with weights, if all between allow it; without `down` where nothing reads it."""
    units = units_of(source.shape)
    up = [Place(e, 0, units) for e, t in architecture.placed(source.name) if not t.buffer and t.signed]
    # A unit's own next step reads its state too.
    down = [Place(e, 1, units) for e, t in architecture.placed(source.name) if t.recurrent]
    read = [] if sink is source else list(architecture.placed(sink.name))
    statistics = [Place(e, 0, units) for e, t in read if t.follows]
    readers = [Place(e, t.reads, units) for e, t in read if t.reads is not None]
    return Factor(
        source.name, sink.name, units, scale=not statistics, sign=True,  # beside a statistic stands an unscaled ε
        up=(*up, *statistics), down=(*down, *readers) if readers else (),
    )  # fmt: skip


def tensor_of(rows: Shaped[np.ndarray, "s p"], place: Place) -> Shaped[np.ndarray, "s ..."]:
    """A view of one tensor of the rows: (S, …, units, block, …)."""
    e = place.entry
    return rows[:, e.offset : e.end].reshape(len(rows), *place.split_shape)


def by_unit(rows: Shaped[np.ndarray, "s p"], place: Place) -> Shaped[np.ndarray, "s {place.units} k"]:
    """The values of each unit in one tensor."""
    tensor = np.moveaxis(tensor_of(rows, place), 1 + place.dim, 1)
    return tensor.reshape(len(rows), place.units, place.entry.size // place.units)


def matrix_of(
    weights: Shaped[np.ndarray, " ..."], layout: Layout
) -> tuple[Float32[np.ndarray, "*batch p"], Float32[np.ndarray, "s p"]]:
    """The weights in their shape, and as rows. Raises ValueError."""
    weights = layout.checked(np.asarray(weights, np.float32))
    return weights, weights.reshape(math.prod(weights.shape[:-1]), layout.n_params)


def known_kinds(architecture: Architecture | External) -> tuple[str, ...]:
    """The symmetries that can be told of an architecture: of a layout without layers permutations alone."""
    return KINDS if isinstance(architecture, Architecture) else ("permutation",)


def kinds_of(kinds: Collection[str]) -> Collection[str]:
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    for kind in chosen:
        if kind not in KINDS:
            raise ValueError(errors.unknown("kind of symmetry", kind, KINDS))
    return chosen
