"""Architecture and weights → units and connections of its layers, as dense arrays: what networks over graphs read.

In:  matrices (m, P) of networks of one architecture. Out: for each layer its units' own values, and for each link
     between two layers the kernels (m, to, from, K); all networks of a batch share what they learn, not the shapes.

The graph is that of `views/graphs.py`; every unit of a layer is linked to every one of the layer before, so that a link is
a block and nothing is gathered by an index. Kernels of several sizes lie in the middle of the largest. A residual add links
each unit to the one that it is added to, by the kernel that leaves things as they are: 1 in the middle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from zoo_datasets.baselines.groups import groups
from zoo_datasets.baselines.interface import View
from zoo_datasets.core import libraries
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.operation import Node
from zoo_datasets.networks.operations.registry import OPERATIONS, operation
from zoo_datasets.views.graphs import Graph, graph

with libraries.needed():
    import torch

ACTIVATIONS = ("none", *sorted(name for name, o in OPERATIONS.items() if o.activation))


@dataclasses.dataclass(frozen=True)
class Link:
    """Every unit of a layer to every unit of another; of a recurrent layer to its own; of an add, some units alone."""

    source: int
    target: int
    index: np.ndarray  # int64 (to, from, K): where in the vector, −1 where there is nothing, P where there is a one
    units: np.ndarray | None = None  # int64 (to, from): which units of the source these are; None: all, in order

    def senders(self, states: torch.Tensor) -> torch.Tensor:
        """States (m, n, d) of the source's units → of those that each unit of the target hears, (m, 1 or to, from, d)."""
        return states[:, None] if self.units is None else states[:, self.units]


@dataclasses.dataclass(frozen=True)
class Wiring:
    """One architecture: layers of units, the input first and the outputs last."""

    names: tuple[str, ...]  # of each layer: "input", "conv1", …
    units: tuple[np.ndarray, ...]  # of each layer int64 (n, F): where in the vector, −1 where there is nothing
    links: tuple[Link, ...]
    activations: tuple[int, ...]  # of each layer: the place in ACTIVATIONS

    @property
    def outputs(self) -> int:
        return len(self.units[-1])

    @property
    def inputs(self) -> int:
        return len(self.units[0])


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a network over graphs was built for."""

    features: int  # columns of a unit
    kernel: int  # side of the largest kernel
    positions: int  # columns of a connection: those of that kernel, or of a channel after `flatten`
    inputs: int
    outputs: int
    layers: int

    @classmethod
    def of(cls, view: View) -> Sizes:
        """Large enough for all architectures of a view."""
        kernel = max((_side(n) for a in view.architectures for n in a.nodes), default=1)
        graphs = [_graph(a) for a in view.architectures]
        return cls(
            features=max(g.node_source.shape[1] for g in graphs),
            kernel=kernel,
            positions=max(kernel**2, *(g.edge_source.shape[1] for g in graphs)),
            inputs=max(int((g.node_layer == 0).sum()) for g in graphs),
            outputs=max(a.n_outputs for a in view.architectures),
            layers=max(len(g.layer_names) for g in graphs),
        )


def wire(architecture: Architecture, sizes: Sizes) -> Wiring:
    """The wiring of an architecture. Raises ZooError where it is larger than what `sizes` were taken from."""
    g = _graph(architecture)
    nodes = {n.name: n for n in architecture.nodes}
    side = max((_side(n) for n in architecture.nodes), default=1)
    fits = (
        g.node_source.shape[1] <= sizes.features and side <= sizes.kernel and g.edge_source.shape[1] <= sizes.positions
        and int((g.node_layer == 0).sum()) <= sizes.inputs and architecture.n_outputs <= sizes.outputs
    )  # fmt: skip
    if not fits:
        raise ZooError(
            "A network has larger kernels, or more inputs, outputs or positions in a channel, than any that was learned from. "
            "Learn from a population that holds such networks."
        )
    counts = np.bincount(g.node_layer)
    units = np.split(g.node_source, np.cumsum(counts)[:-1])
    links, start = [], 0
    # Links lie one after another, those into a unit together; adds come last.
    while start < np.count_nonzero(~g.edge_skip):
        source, target = (int(g.node_layer[g.edge_index[end, start]]) for end in (0, 1))
        size = int(counts[source] * counts[target])
        block = g.edge_source[start : start + size].reshape(counts[target], counts[source], -1)
        links.append(Link(source, target, _widened(block, nodes[g.layer_names[target]], sizes)))
        start += size
    links += _adds(g, counts, architecture.n_params, sizes)
    return Wiring(
        g.layer_names,
        tuple(np.pad(u, ((0, 0), (0, sizes.features - u.shape[1])), constant_values=-1) for u in units),
        tuple(links), tuple(_activations(architecture, g.layer_names)),
    )  # fmt: skip


def _adds(g: Graph, counts: np.ndarray, one: int, sizes: Sizes) -> Iterator[Link]:
    """A link for each residual add."""
    first = np.concatenate([[0], np.cumsum(counts)])
    from_, to = g.edge_index[:, g.edge_skip]
    start = 0
    while start < len(to):
        source, target = int(g.node_layer[from_[start]]), int(g.node_layer[to[start]])
        size = int(max(counts[source], counts[target]))  # of the fewer units each stands for a block of the others
        units = (from_[start : start + size] - first[source]).reshape(counts[target], -1)
        index = np.full((*units.shape, sizes.positions), -1, np.int64)
        index[..., sizes.kernel**2 // 2] = one
        yield Link(source, target, index, units)
        start += size


def _graph(architecture: Architecture) -> Graph:
    return graph(np.zeros(architecture.n_params, np.float32), architecture)


def _side(node: Node) -> int:
    return int(node.attrs["kernel"]) if node.op == "conv" else 1


def _widened(block: np.ndarray, node: Node, sizes: Sizes) -> np.ndarray:
    """Places (to, from, K) of a link among the columns of `sizes`: a kernel and a single weight in the middle."""
    own = np.flatnonzero((block >= 0).any(axis=(0, 1)))
    used = block[..., : int(own.max(initial=-1)) + 1]
    side = _side(node)
    out = np.full((*block.shape[:2], sizes.positions), -1, np.int64)
    if used.shape[2] != side**2:
        out[..., : used.shape[2]] = used
        return out
    first = (sizes.kernel - side) // 2
    rows, columns = np.divmod(np.arange(side**2), side)
    out[..., (first + rows) * sizes.kernel + first + columns] = used
    return out


def _activations(architecture: Architecture, names: tuple[str, ...]) -> Iterator[int]:
    """The first activation behind each layer with units."""
    found = dict.fromkeys(names, 0)
    layer_of = {"input": "input"}
    for node in architecture.nodes:
        layer_of[node.name] = node.name if operation(node.op).units else layer_of[node.inputs[0]]
        if operation(node.op).activation and not found[layer_of[node.name]]:
            found[layer_of[node.name]] = ACTIVATIONS.index(node.op)
    return iter(found.values())


@dataclasses.dataclass(frozen=True)
class Batch:
    """Networks of one architecture: values of units (m, n, F) and of links (m, to, from, K)."""

    architecture: Architecture
    wiring: Wiring
    places: torch.Tensor  # int64 (m,): of these networks among the rows that were asked for
    units: list[torch.Tensor]
    links: list[torch.Tensor]


class Wired:
    """View and rows → batches; wirings are made once."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._made: dict[str, Wiring] = {}

    def __call__(self, view: View, rows: np.ndarray) -> Iterator[Batch]:
        for architecture, places, weights in groups(view, rows):
            wiring = self._made.get(architecture.id)
            if wiring is None:
                wiring = self._made[architecture.id] = wire(architecture, self.sizes)
            # Two columns more: the one of an add, and zeros, which is where −1 points.
            ends = np.broadcast_to(np.array([1, 0], weights.dtype), (len(weights), 2))
            padded = torch.from_numpy(np.concatenate([weights, ends], 1))
            yield Batch(
                architecture, wiring, torch.from_numpy(places), [padded[:, u] for u in wiring.units],
                [padded[:, link.index] for link in wiring.links],
            )  # fmt: skip


def mean_log_degree(view: View, sizes: Sizes) -> float:
    """Mean over all units with inputs of log(inputs + 1): by what PNA scales what it gathers."""
    counts = np.bincount(view.architecture, minlength=len(view.architectures))
    total, number = 0.0, 0
    for architecture, count in zip(view.architectures, counts, strict=True):
        wiring = wire(architecture, sizes)
        heard = [0] * len(wiring.units)
        for link in wiring.links:
            heard[link.target] += link.index.shape[1]
        for units, m in zip(wiring.units, heard, strict=True):
            if m:
                total, number = total + int(count) * len(units) * math.log(m + 1), number + int(count) * len(units)
    return total / number if number else 1.0
