"""Weights → the graph of their network, and back, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from zoo_datasets.core import libraries, notebook
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Entry
from zoo_datasets.networks.operations.operation import units_of
from zoo_datasets.networks.operations.registry import operation
from zoo_datasets.views.index import gather, range_of


@dataclasses.dataclass(frozen=True, repr=False)
class Graph:
    """Networks as one graph: N units, E connections, the same wiring for every vector.

    Padding is 0 where a mask is false. Node columns: 0 the bias (of a GRU 0 … 5, of an LSTM 0 … 7, in the order
    of its layout), then what a normalization holds of each unit: weight, bias, running mean and variance. Edge columns: the
    kernel of a convolution, row by row; after `flatten` or `rows`, the positions of a channel; the
    gates of a GRU or LSTM, one after the other; one weight otherwise.
    """

    node_features: Shaped[np.ndarray, "*batch _ _"]  # [..., N, F]; `ungraph` checks what was put in their place
    edge_index: Int64[np.ndarray, "2 e"]  # from, to
    edge_features: Shaped[np.ndarray, "*batch _ _"]  # [..., E, K]
    node_mask: Bool[np.ndarray, "n f"]
    edge_mask: Bool[np.ndarray, "e k"]
    node_layer: Int64[np.ndarray, " n"]  # 0 the input, then conv, linear and recurrent layers in order
    node_unit: Int64[np.ndarray, " n"]  # place in its layer
    layer_names: tuple[str, ...]  # "input", "conv1", …
    node_source: Int64[np.ndarray, "n f"]  # where in the vector, −1 where masked
    edge_source: Int64[np.ndarray, "e k"]
    edge_skip: Bool[np.ndarray, " e"]  # of a residual add: what the unit it comes from gives is added, without a weight

    def __repr__(self) -> str:
        *batch, n, features = self.node_features.shape
        edges, values = self.edge_features.shape[-2:]
        of = f", {' × '.join(f'{b:,}' for b in batch)} networks" if batch else ""
        return (
            f"Graph: {n:,} nodes of {features} values, {edges:,} edges of {values}, {len(self.layer_names)} layers{of}"
        )

    def _repr_html_(self) -> str:
        rows = []
        for layer, name in enumerate(self.layer_names):
            into = int((self.node_layer[self.edge_index[1]] == layer).sum())
            rows.append((name, f"{int((self.node_layer == layer).sum()):,}", f"{into:,}"))
        return notebook.table(repr(self), ("layer", "nodes", "edges into it"), rows)

    def to_pyg(self, row: int | tuple[int, ...] = ()) -> Any:
        """A `torch_geometric.data.Data` of one vector (`row` picks it): x, edge_index, edge_attr, masks, layer, unit, skip."""
        with libraries.needed():
            import torch
            from torch_geometric.data import Data

        x, attributes = self.node_features[row], self.edge_features[row]
        if x.ndim != 2:
            raise ValueError(f"node_features have shape {self.node_features.shape}; pick one vector: to_pyg(row=0).")
        arrays = {
            "x": x, "edge_index": self.edge_index, "edge_attr": attributes, "x_mask": self.node_mask,
            "edge_mask": self.edge_mask, "layer": self.node_layer, "unit": self.node_unit,
            "skip": self.edge_skip,
        }  # fmt: skip
        return Data(**{name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})


def graph(weights: Shaped[np.ndarray, "*batch p"], architecture: Architecture | External) -> Graph:
    """The graph of each vector; `ungraph` gives the vectors back.

    Nodes are units: input features or channels, channels of convolutions, features of linear
    layers, units of recurrent ones. Edges run from every unit to every unit of the next layer with weights,
    and from every unit of a recurrent layer to every one of its own; a
    convolution's kernel is the edge's feature vector (the neural graph of Kofinas et al., "Graph
    Neural Networks for Learning Equivariant Representations of Neural Networks", 2024). Ours,
    and not checked against theirs: after `flatten` there is one edge from each channel with a
    weight per position, and a batch norm is features of the nodes it normalizes. A residual add is an
    edge without features from each unit before the block to the unit of the block's last layer that it
    is added to; these edges come last, and `edge_skip` tells them. Permuting
    hidden units permutes nodes and edges and nothing else. Raises ValueError; NoNetworkError where the
    layers are not known.
    """
    architecture = architecture.built()
    weights = architecture.layout.checked(weights)
    wiring = _wire(architecture)
    return Graph(
        node_features=gather(weights, wiring.nodes), edge_index=wiring.edge_index,
        edge_features=gather(weights, wiring.edges), node_mask=wiring.nodes >= 0, edge_mask=wiring.edges >= 0,
        node_layer=wiring.layer, node_unit=wiring.unit, layer_names=wiring.names,
        node_source=wiring.nodes, edge_source=wiring.edges, edge_skip=wiring.skip,
    )  # fmt: skip


def ungraph(graph: Graph) -> Shaped[np.ndarray, "*batch p"]:
    """The vectors of a graph, bit for bit. Raises ValueError for features of another shape."""
    for name, features, source in (
        ("node", graph.node_features, graph.node_source), ("edge", graph.edge_features, graph.edge_source),
    ):  # fmt: skip
        if features.shape[-2:] != source.shape:
            raise ValueError(
                f"{name}_features have shape {features.shape}; (..., {source.shape[0]}, {source.shape[1]}) is needed."
            )
    width = 1 + max(graph.node_source.max(initial=-1), graph.edge_source.max(initial=-1))
    out = np.zeros((*graph.node_features.shape[:-2], width), graph.node_features.dtype)
    out[..., graph.node_source[graph.node_mask]] = graph.node_features[..., graph.node_mask]
    out[..., graph.edge_source[graph.edge_mask]] = graph.edge_features[..., graph.edge_mask]
    return out


@dataclasses.dataclass(frozen=True)
class _Wiring:
    nodes: Int64[np.ndarray, "n f"]
    edge_index: Int64[np.ndarray, "2 e"]
    edges: Int64[np.ndarray, "e k"]
    skip: Bool[np.ndarray, " e"]
    layer: Int64[np.ndarray, " n"]
    unit: Int64[np.ndarray, " n"]
    names: tuple[str, ...]


def _wire(architecture: Architecture) -> _Wiring:
    for node in architecture.nodes:
        if len(node.inputs) != operation(node.op).inputs:
            raise ValueError(
                f"Node {node.name} has {len(node.inputs)} inputs; `{node.op}` takes {operation(node.op).inputs}."
            )
    layer_of = {"input": 0}  # node → the layer whose units its output runs over
    names, counts = ["input"], [_input_units(architecture)]
    links: list[tuple[int, int, list[Entry]]] = []
    skips: list[tuple[int, int]] = []  # from a layer to the layer that it is added to
    biases: dict[int, list[Entry]] = {}
    norms: list[tuple[int, list[Entry]]] = []  # tensors of layers without units of their own
    for node in architecture.nodes:
        before = layer_of[node.name] = layer_of[node.inputs[0]]
        tensors = list(architecture.placed(node.name))
        skips += [(layer_of[other], before) for other in node.inputs[1:]]
        if operation(node.op).units:
            here = layer_of[node.name] = len(names)
            biases[here] = [e for e, t in tensors if t.reads is None and not t.recurrent]
            links.append((before, here, [e for e, t in tensors if t.reads is not None]))
            if back := [e for e, t in tensors if t.recurrent]:
                links.append((here, here, back))
            names.append(node.name)
            counts.append(units_of(node.shape))
        elif tensors:
            norms.append((before, [e for e, _ in tensors]))
    first = np.concatenate([[0], np.cumsum(counts)])  # of each layer's nodes
    most = max((len(b) for b in biases.values()), default=1)
    norm_columns = _norm_columns(norms, counts, most)
    table = np.full((first[-1], 1 + max((c.max() for c in norm_columns), default=most - 1)), -1, np.int64)
    for number, entries in biases.items():
        for column, entry in enumerate(entries):
            table[first[number] : first[number + 1], column] = range_of(entry)
    for (number, entries), columns in zip(norms, norm_columns, strict=True):
        of_unit = [range_of(e).reshape(counts[number], -1) for e in entries]
        table[first[number] : first[number + 1], columns] = np.concatenate(of_unit, axis=1)
    ends, pieces = [], []
    for source, target, weights in links:
        n, m = counts[target], counts[source]
        to, start = np.divmod(np.arange(n * m), m)
        ends.append(np.stack([first[source] + start, first[target] + to]))
        pieces.append(np.concatenate([range_of(w).reshape(n * m, w.size // (n * m)) for w in weights], axis=1))
    widest = max((p.shape[1] for p in pieces), default=0)
    edges = [np.pad(p, ((0, 0), (0, widest - p.shape[1])), constant_values=-1) for p in pieces]
    weighed = sum(map(len, edges))
    for source, target in skips:
        pairs = _added(counts[source], counts[target])
        ends.append(pairs + np.array([[first[source]], [first[target]]]))
        edges.append(np.full((pairs.shape[1], widest), -1, np.int64))
    return _Wiring(
        nodes=table,
        edge_index=np.concatenate(ends, axis=1) if ends else np.zeros((2, 0), np.int64),
        edges=np.concatenate(edges) if edges else np.zeros((0, 0), np.int64),
        skip=np.arange(sum(map(len, edges))) >= weighed,
        layer=np.repeat(np.arange(len(names)), counts),
        unit=np.concatenate([np.arange(c) for c in counts]),
        names=tuple(names),
    )  # fmt: skip


def _added(source: int, target: int) -> Int64[np.ndarray, "2 e"]:
    """Which of so many units is added to which: as many of one are a block of the other, channels that were flattened."""
    most = max(source, target)
    if most % source or most % target:
        raise ValueError(
            f"{source} units are added to {target}, of which neither is a block of the other; no edges say it."
        )
    place = np.arange(most)
    return np.stack([place * source // most, place * target // most])


def _input_units(architecture: Architecture) -> int:
    """What the first layer with tensors reads: channels of an image, features where it is flattened or cut first."""
    shape = architecture.input_shape
    for node in architecture.nodes:
        if architecture.tensors[node.name]:
            break
        shape = node.shape
    return units_of(shape)


def _norm_columns(norms: Sequence[tuple[int, list[Entry]]], counts: Sequence[int], start: int) -> list[np.ndarray]:
    """Node columns of each normalization's values from `start`; the k-th of any layer has the same columns."""
    blocks = [entries[0].size // counts[layer] for layer, entries in norms]
    layers = [layer for layer, _ in norms]
    ranks = [layers[:i].count(layer) for i, layer in enumerate(layers)]
    columns = [np.zeros(0, np.int64)] * len(norms)
    for rank in range(max(ranks, default=-1) + 1):
        equals = [i for i, r in enumerate(ranks) if r == rank]
        widest = max(blocks[i] for i in equals)
        for i in equals:
            places = widest * np.arange(len(norms[i][1]))[:, None] + np.arange(blocks[i])
            columns[i] = (start + places).ravel()
        start += widest * max(len(norms[i][1]) for i in equals)
    return columns
