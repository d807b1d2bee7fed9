"""Names and shapes → the layout of one flat weight vector: where each tensor lies, and which units it runs over.

A `Layout` needs no network: an imported zoo has nothing else. It reads and writes the manifest's
JSON, cuts vectors into named tensors and joins them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from zoo_datasets.core import records, streams
from zoo_datasets.core.records import Mismatch

ROLES = ("parameter", "buffer")
MOST_SIDES = 32  # of a tensor: NumPy's limit before 2.0, and their product is worked out


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor in the flat vector: `vector[offset : offset + size].reshape(shape)`.

    `groups` names, per dimension, the set of units it runs over ("" where units are
    fixed): permuting a group permutes every dimension of that name.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    role: str  # "parameter" or "buffer", which no optimizer touches
    groups: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def node(self) -> str:
        """The layer it belongs to: `conv1` of `conv1.weight`; a tensor without a layer is one of its own."""
        return self.name.rpartition(".")[0] or self.name


@dataclasses.dataclass(frozen=True)
class Layout(Sequence[Entry]):
    """The entries of a vector, which lie one after another without gaps."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, Sequence[int], str, Sequence[str]]]) -> Layout:
        """The layout of tensors (name, shape, role, groups), one after another."""
        entries: list[Entry] = []
        for name, shape, role, groups in tensors:
            entries.append(Entry(name, tuple(shape), entries[-1].end if entries else 0, role, tuple(groups)))
        return cls(tuple(entries))

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        return self.entries[index]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def n_params(self) -> int:
        """Length of the flat vector, buffers included."""
        return self.entries[-1].end if self.entries else 0

    @functools.cached_property
    def id(self) -> str:
        """16 hex digits of the tensors' names, shapes and roles: equal vectors mean equal things."""
        return streams.digest([[e.name, list(e.shape), e.role] for e in self.entries])[:16]

    def buffer_mask(self) -> Bool[np.ndarray, " {self.n_params}"]:
        """True where the value is a buffer that no optimizer touches."""
        mask = np.zeros(self.n_params, bool)
        for entry in self.entries:
            if entry.role == "buffer":
                mask[entry.offset : entry.end] = True
        return mask

    @functools.cached_property
    def by_node(self) -> dict[str, list[Entry]]:
        """Layer → its entries, in the order of the vector."""
        nodes: dict[str, list[Entry]] = {}
        for entry in self.entries:
            nodes.setdefault(entry.node, []).append(entry)
        return nodes

    def of_node(self, node: str) -> list[Entry]:
        """The tensors of one layer, in the order of the vector; none where it has none."""
        return self.by_node.get(node, [])

    def unflatten(self, vector: Shaped[np.ndarray, "*batch p"]) -> dict[str, np.ndarray]:
        """Named views into vectors [..., n_params]: each [..., *shape]. Nothing is copied."""
        lead = vector.shape[:-1]
        return {e.name: vector[..., e.offset : e.end].reshape(*lead, *e.shape) for e in self.entries}

    def flatten(self, tensors: Mapping[str, np.ndarray]) -> Float32[np.ndarray, " {self.n_params}"]:
        """The flat vector of named tensors. Raises KeyError, ValueError."""
        vector = np.empty(self.n_params, np.float32)
        for e in self.entries:
            tensor = np.asarray(tensors[e.name], np.float32)
            if tensor.shape != e.shape:
                raise ValueError(f"{e.name} has shape {tensor.shape}, the layout says {e.shape}.")
            vector[e.offset : e.end] = tensor.ravel()
        return vector

    def checked(self, weights: np.ndarray) -> np.ndarray:
        """The weights as an array [..., n_params]. Raises ValueError with both shapes."""
        weights = np.asarray(weights)
        if weights.ndim == 0 or weights.shape[-1] != self.n_params:
            raise ValueError(
                f"Weights have shape {weights.shape}; the layout has {self.n_params} values, so "
                f"(..., {self.n_params}) is needed."
            )
        return weights

    def to_json(self) -> list[dict[str, Any]]:
        """The layout as the manifest keeps it."""
        return [{**dataclasses.asdict(e), "shape": list(e.shape), "groups": list(e.groups)} for e in self.entries]

    @classmethod
    def from_json(cls, value: Any) -> Layout:
        """The layout of a manifest. Raises Mismatch where entries are no layout."""
        entries = records.decode(tuple[Entry, ...], value)
        end = 0
        names: set[str] = set()
        units: dict[str, int] = {}  # of each group
        for i, e in enumerate(entries):
            if len(e.shape) > MOST_SIDES:
                raise Mismatch(
                    f"`{{at}}` has {len(e.shape):,} sides; a tensor has {MOST_SIDES} at most", f"[{i}].shape"
                )
            if e.name in names or e.role not in ROLES or len(e.groups) != len(e.shape) or e.offset != end:
                raise Mismatch(
                    f"`{{at}}` is {e.name} with role {e.role!r} and {len(e.groups)} groups at {e.offset}; a name of its "
                    f"own, a role of {', '.join(ROLES)}, {len(e.shape)} groups and the offset {end} are needed",
                    f"[{i}]",
                )
            for dim, (side, group) in enumerate(zip(e.shape, e.groups, strict=True)):
                if side < 1:
                    raise Mismatch("`{at}` is 0; a tensor has sides of 1 or more", f"[{i}].shape[{dim}]")
                own = units.setdefault(group, side) if group else 1
                if side % own:
                    raise Mismatch(
                        f"`{{at}}` is {side}, no multiple of the {own} units of its group {group!r}",
                        f"[{i}].shape[{dim}]",
                    )
            end = e.end
            names.add(e.name)
        return cls(entries)


def by_id(layouts: Iterable[Layout]) -> dict[str, Layout]:
    """Id → the layout of that id, whose groups hold for every network of it.

    Networks of one layout may tie their units otherwise: a residual block ties those that it adds. Of such, units are one group where
    any network ties them, and fixed where any network fixes them: what may be permuted then, may be in each.
    """
    found: dict[str, dict[Layout, None]] = {}
    for layout in layouts:
        found.setdefault(layout.id, {})[layout] = None
    return {id: _joined(sorted(own, key=lambda one: [e.groups for e in one])) for id, own in found.items()}


def _joined(layouts: Sequence[Layout]) -> Layout:
    first, *others = layouts
    if not others:
        return first
    places = [(i, dim) for i, e in enumerate(first) for dim in range(len(e.shape))]
    sides = {at: first[at[0]].shape[at[1]] for at in places}
    root = {at: at for at in places}  # of each dimension the first one that it is tied to

    def find(at: tuple[int, int]) -> tuple[int, int]:
        while root[at] != at:
            at = root[at]
        return at

    fixed = set()
    for layout in layouts:
        tied: dict[str, tuple[int, int]] = {}
        for at in places:
            group = layout[at[0]].groups[at[1]]
            if not group:
                fixed.add(at)
                continue
            a, b = sorted((find(tied.setdefault(group, at)), find(at)))
            root[b] = a
    still = {find(at) for at in places if at in fixed or sides[at] % sides[find(at)]}
    names = {at: "" if at in still else first[at[0]].node for at in places if find(at) == at}
    return Layout(
        tuple(
            dataclasses.replace(e, groups=tuple(names[find((i, dim))] for dim in range(len(e.shape))))
            for i, e in enumerate(first)
        )
    )
