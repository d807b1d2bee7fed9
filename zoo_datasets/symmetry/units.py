"""Layout and architecture → which units may change places, and where scale and sign are free."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np

from zoo_datasets import errors
from zoo_datasets.networks.architecture import Architecture, Node
from zoo_datasets.networks.layout import Entry

KINDS = ("permutation", "scale", "sign")
AFFINE = ("conv", "linear", "gru", "batch_norm")  # nodes that hold weights
# Commute with scale and sign.
TRANSPARENT = ("avg_pool", "global_avg_pool", "dropout", "flatten", "rows", "last_step")
HOMOGENEOUS = ("relu", "leaky_relu", "max_pool")  # f(c·x) = c·f(x) for c > 0
ODD = ("tanh",)  # f(−x) = −f(x)
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
        """Whether the tensor runs over these units twice: from a GRU's state to its next."""
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


def groups(layout: Collection[Entry]) -> tuple[Group, ...]:
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


def factors(architecture: Architecture) -> tuple[Factor, ...]:
    """Where scale or sign is free, in forward order."""
    readers: dict[str, list[Node]] = {}
    for node in architecture.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    shapes = {n.name: n.shape for n in architecture.nodes}
    found = []
    for node in architecture.nodes:
        if node.op not in AFFINE:
            continue
        between, sink = [], node
        while len(readers.get(sink.name, [])) == 1 and len(readers[sink.name][0].inputs) == 1:
            sink = readers[sink.name][0]
            if sink.op in AFFINE:
                break
            between.append(sink.op)
        if sink is node or sink.op not in AFFINE:
            continue  # the output, or a fork
        scale = all(op in TRANSPARENT or op in HOMOGENEOUS for op in between)
        scale &= sink.op != "batch_norm" and node.op != "gru"
        sign = all(op in TRANSPARENT or op in ODD for op in between)
        if scale or sign:
            units = shapes[node.name][1 if node.op == "gru" else 0]
            up, down = _rows(architecture, node, units), _columns(architecture, sink, units)
            if sink.op == "batch_norm":  # running mean turns with its input, the weight turns back
                entries = {e.name.rsplit(".", 1)[1]: e for e in architecture.entries(sink.name)}
                up = (*up, Place(entries["running_mean"], 0, units))
                down = (Place(entries["weight"], 0, units),)
            if node.op == "gru":  # its next step reads the state too, in every gate
                back = [e for e in architecture.entries(node.name) if ".weight_h" in e.name]
                down = (*(Place(e, 1, units) for e in back), *down)
            found.append(Factor(node.name, sink.name, units, scale, sign, up, down))
    return tuple(found)


def _rows(architecture: Architecture, node: Node, units: int) -> tuple[Place, ...]:
    """What enters a unit; of a GRU what enters its new gate, the one whose sign the state has."""
    entries = [e for e in architecture.entries(node.name) if e.role == "parameter"]
    return tuple(Place(e, 0, units) for e in entries if node.op != "gru" or e.name.endswith("n"))


def _columns(architecture: Architecture, node: Node, units: int) -> tuple[Place, ...]:
    """What reads the units of the layer before."""
    return tuple(
        Place(e, 1, units) for e in architecture.entries(node.name) if len(e.shape) > 1 and ".weight_h" not in e.name
    )


def tensor_of(rows: np.ndarray, place: Place) -> np.ndarray:
    """A view of one tensor of rows [S, P]: (S, …, units, block, …)."""
    e = place.entry
    return rows[:, e.offset : e.end].reshape(len(rows), *place.split_shape)


def by_unit(rows: np.ndarray, place: Place) -> np.ndarray:
    """The values of each unit in one tensor: (S, units, K)."""
    tensor = np.moveaxis(tensor_of(rows, place), 1 + place.dim, 1)
    return tensor.reshape(len(rows), place.units, place.entry.size // place.units)


def matrix_of(weights: np.ndarray, layout: Collection[Entry]) -> tuple[np.ndarray, np.ndarray]:
    """The weights as float32 [..., P] and as rows [S, P]. Raises ValueError."""
    weights = np.asarray(weights, np.float32)
    width = max((e.end for e in layout), default=0)
    if weights.ndim == 0 or weights.shape[-1] != width:
        raise ValueError(
            f"Weights have shape {weights.shape}; the layout has {width} values, so (..., {width}) is needed."
        )
    return weights, weights.reshape(math.prod(weights.shape[:-1]), width)


def kinds_of(kinds: Collection[str]) -> Collection[str]:
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    for kind in chosen:
        if kind not in KINDS:
            raise ValueError(errors.unknown("kind of symmetry", kind, KINDS))
    return chosen
