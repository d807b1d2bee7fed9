"""Layout and architecture → which units may change places, and where scale and sign are free."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float32, Shaped

from zoo_datasets import errors
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Entry, Layout
from zoo_datasets.networks.operations.operation import Node, Operation, units_of
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

    @property
    def first(self) -> tuple[Place, ...]:
        """Of `own` what lies before anything that reads the units, but for a recurrent tensor, which reads them itself.

        Where values are added, later layers belong to the same units, and what those read is settled after them.
        """
        ends = [p.entry.offset for p in self.readers if not p.recurrent]
        own = [p for p in self.own if not p.recurrent]
        before = tuple(p for p in own if p.entry.offset < min(ends, default=math.inf))
        return before or tuple(own) or self.own  # of an imported layout, whatever there is


@dataclasses.dataclass(frozen=True)
class Factor:
    """A factor per unit between neighboring nodes with weights: `up` times c, `down` divided by c.

    A chain has one source and one sink. Values that are added have one factor, and so several sources; what is
    added later has several sinks too.
    """

    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    units: int
    scale: bool
    sign: bool
    up: tuple[Place, ...]
    down: tuple[Place, ...]

    @property
    def source(self) -> str:
        """The first node whose output it scales."""
        return self.sources[0]

    @property
    def sink(self) -> str:
        """The first node that reads it."""
        return self.sinks[0]

    @property
    def first(self) -> tuple[Place, ...]:
        """Of `up` what decides the factor: what enters the first source, before what later ones read is settled.

        A recurrent tensor turns with the other units too, so it decides nothing.
        """
        return tuple(p for p in self.up if not p.recurrent and p.entry.node not in self.sources[1:])


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
    """Where scale or sign is free, in forward order. Raises NoNetworkError where the layers are not known.

    What is added together has one factor a unit. The input and the logits have none.
    """
    architecture = architecture.built()
    nodes = {node.name: node for node in architecture.nodes}
    together = _together(architecture)
    fixed = {together["input"], together[architecture.nodes[-1].name]} if architecture.nodes else set()
    sources: dict[str, list[Node]] = {}  # by the value that they make a part of
    sinks: dict[str, list[Node]] = {}
    between: dict[str, list[Operation]] = {}  # what such a value goes through
    for node in architecture.nodes:
        value = together[node.name]
        between.setdefault(value, []).append(operation(node.op))
        if architecture.tensors[node.name]:
            sources.setdefault(value, []).append(node)
            sinks.setdefault(together[node.inputs[0]], []).append(node)
    result = []
    for value in dict.fromkeys(together[name] for name in nodes):
        if value in fixed or value not in sources or value not in sinks:
            continue
        factor = _factor(architecture, sources[value], sinks[value])
        scale = factor is not None and factor.scale and all(o.homogeneous for o in between[value])
        sign = all(o.odd for o in between[value])
        if factor is not None and factor.down and (scale or sign):
            result.append(dataclasses.replace(factor, scale=scale, sign=sign))
    return tuple(result)


def _together(architecture: Architecture) -> dict[str, str]:
    """Node → the first node of those whose outputs a factor would multiply alike: "input", or one with weights."""
    first = {"input": "input"}
    for node in architecture.nodes:
        first[node.name] = node.name if architecture.tensors[node.name] else first[node.inputs[0]]
        for other in node.inputs[1:]:
            if first[other] != first[node.name]:
                order = list(first)
                old, new = sorted((first[other], first[node.name]), key=order.index)
                first = {name: old if value == new else value for name, value in first.items()}
    return first


def factors_of(architecture: Architecture | External, kinds: Collection[str]) -> tuple[Factor, ...]:
    """`factors`, where one of the kinds needs them: permutations need the layout alone."""
    return () if set(kinds) <= {"permutation"} else factors(architecture)


def _factor(architecture: Architecture, sources: Sequence[Node], sinks: Sequence[Node]) -> Factor | None:
    """The factor between nodes with weights, if all between allow it; without `down` where nothing reads it.

    None where the units of sources do not divide each other: channels that were flattened, added to others.
    """
    units = units_of(sources[0].shape)
    made = [(e, t) for node in sources for e, t in architecture.placed(node.name)]
    up = [Place(e, 0, units) for e, t in made if not t.buffer and t.signed]
    # A unit's own next step reads its state too.
    down = [Place(e, 1, units) for e, t in made if t.recurrent]
    read = [(e, t) for node in sinks for e, t in architecture.placed(node.name)]
    statistics = [Place(e, 0, units) for e, t in read if t.follows]
    readers = [Place(e, t.reads, units) for e, t in read if t.reads is not None]
    if any(p.entry.shape[p.dim] % units for p in (*up, *down, *statistics, *readers)):
        return None
    return Factor(
        tuple(n.name for n in sources), tuple(n.name for n in sinks), units,
        scale=not statistics, sign=True,  # beside a statistic stands an unscaled ε
        up=(*up, *statistics), down=(*down, *readers),
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
