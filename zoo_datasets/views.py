"""Weights → arrays and graphs: pure functions with declared shapes.

In:  float32 vectors [..., P] (or [S, P]) and the layout or the architecture they follow.
Out: `flat`, `statistics`, `tokens`, `window`, `graph`, `trajectories`; `untokens` and
     `ungraph` give the vectors back, bit for bit.

A view is an index into the flat vector wherever it can be, so it costs one gather for any
number of snapshots. Needs numpy only; `Graph.to_pyg` needs torch_geometric.
Every function raises ValueError with both shapes where weights and layout do not fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import errors, models, streams

# Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020):
# with mean and variance 7 numbers a tensor, for kernel and bias of each layer.
UNTERTHINER_2020 = (0.0, 0.25, 0.5, 0.75, 1.0)
# Eilertsen et al., "Classifying the classifier" (2020, section on feature-based
# meta-classification): with mean, variance and skewness 8 numbers. The published code of
# Schürholt et al., "Self-Supervised Representation Learning on Neural Network Weights"
# (2021), takes these with mean and variance only. Both use population variance.
EILERTSEN_2020 = (0.01, 0.25, 0.5, 0.75, 0.99)


def flat(weights: np.ndarray, layout: Sequence[models.Entry], buffers: bool = True) -> np.ndarray:
    """The vectors [..., P] themselves, or [..., parameters] without the buffers."""
    weights = _checked(weights, layout)
    return weights if buffers else weights[..., _index(layout, buffers=False)]


# ── statistics ────────────────────────────────────────────────────────────────────────


def statistics(
    weights: np.ndarray, layout: Sequence[models.Entry], quantiles: Sequence[float] = UNTERTHINER_2020,
    *, skewness: bool = False, buffers: bool = False,
) -> np.ndarray:  # fmt: skip
    """Per tensor its mean, variance, (skewness) and quantiles: float64 [..., T, 2 (+ 1) + Q].

    T tensors in layout order. Variance is the population's; quantiles interpolate linearly;
    the skewness of a constant tensor is 0. See `UNTERTHINER_2020`, `EILERTSEN_2020` (with
    `skewness=True`) for the published sets, and `statistic_names` for the columns.
    """
    weights = _checked(weights, layout)
    _check_quantiles(quantiles)
    columns = []
    for e in _entries(layout, buffers):
        w = weights[..., e.offset : e.end].astype(np.float64)
        mean = w.mean(-1, keepdims=True)
        variance = ((w - mean) ** 2).mean(-1)
        parts = [mean[..., 0], variance]
        if skewness:
            third = ((w - mean) ** 3).mean(-1)
            parts.append(np.divide(third, variance**1.5, out=np.zeros_like(third), where=variance > 0))
        parts += list(np.quantile(w, quantiles, axis=-1))
        columns.append(np.stack(parts, -1))
    return np.stack(columns, -2)


def statistic_names(
    layout: Sequence[models.Entry], quantiles: Sequence[float] = UNTERTHINER_2020,
    *, skewness: bool = False, buffers: bool = False,
) -> list[str]:  # fmt: skip
    """Names of `statistics(…).reshape(-1, T * F)`: `conv1.weight:mean`, …, `linear2.bias:q100`."""
    _check_quantiles(quantiles)
    kinds = ["mean", "variance", *(["skewness"] if skewness else []), *(f"q{100 * q:g}" for q in quantiles)]
    return [f"{e.name}:{kind}" for e in _entries(layout, buffers) for kind in kinds]


# ── tokens ────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A vector cut into T tokens of D values, zero where the mask is false."""

    values: np.ndarray  # [..., T, D]
    mask: np.ndarray  # bool [T, D]
    positions: np.ndarray  # int64 [T, 3]: token, layer (0, 1, …), place in the layer
    index: np.ndarray  # int64 [T, D]: where in the vector, −1 where the mask is false
    n_params: int


def tokens(
    weights: np.ndarray, layout: Sequence[models.Entry], by: str = "layer", *, size: int | None = None,
    buffers: bool = True,
) -> Tokens:  # fmt: skip
    """Tokens of each vector, with mask and positions; `untokens` gives the vectors back.

    `layer`: a token a layer, with all its tensors. `neuron`: a token a unit or channel, its
    incoming weights and bias (Schürholt et al. 2021; a batch norm's units are
    tokens of their own). `window`: `size` consecutive values, cut anew at each layer. With
    `size`, tokens of layers and neurons longer than that are cut into pieces (for neurons
    as SANE does: Schürholt et al., "Towards Scalable and Versatile Weight Space Learning",
    2024). Positions are those of SANE.
    """
    weights = _checked(weights, layout)
    if by not in ("layer", "neuron", "window"):
        raise ValueError(errors.unknown("kind of token", by, ("layer", "neuron", "window")))
    if by == "window" and size is None:
        raise ValueError('tokens(by="window") needs a `size`: how many consecutive values a token takes.')
    if size is not None and size < 1:
        raise ValueError(f"`size` is {size}; a token takes at least 1 value.")
    pieces: list[np.ndarray] = []
    positions: list[tuple[int, int, int]] = []
    for number, members in enumerate(_layers(_entries(layout, buffers))):
        place = 0
        for row in _units(members) if by == "neuron" else [np.concatenate([_range(e) for e in members])]:
            step = size or len(row)
            for start in range(0, len(row), step):
                positions.append((len(pieces), number, place))
                pieces.append(row[start : start + step])
                place += 1
    index = _padded(pieces)
    mask = index >= 0
    return Tokens(_gather(weights, index), mask, np.array(positions, np.int64).reshape(-1, 3), index, weights.shape[-1])


def untokens(tokens: Tokens, values: np.ndarray | None = None, buffers: np.ndarray | None = None) -> np.ndarray:
    """The vectors [..., P] of tokens, bit for bit, or of other `values` [..., T, D] in their place.

    `buffers` [..., n] in layout order fill what tokens without buffers left out.
    Raises ValueError where shapes do not fit or buffers are missing.
    """
    values = tokens.values if values is None else np.asarray(values)
    if values.shape[-2:] != tokens.index.shape:
        raise ValueError(f"Token values have shape {values.shape}; {('...', *tokens.index.shape)} is needed.")
    out = np.zeros((*values.shape[:-2], tokens.n_params), values.dtype)
    seen = np.zeros(tokens.n_params, bool)
    seen[tokens.index[tokens.mask]] = True
    out[..., tokens.index[tokens.mask]] = values[..., tokens.mask]
    missing = int((~seen).sum())
    if missing:
        given = None if buffers is None else np.shape(buffers)
        if given is None or given[-1:] != (missing,):
            raise ValueError(
                f"These tokens leave out {missing} buffers of {tokens.n_params} values; pass `buffers` of shape "
                f"(..., {missing}), got {given}."
            )
        out[..., ~seen] = buffers
    return out


def _layers(entries: Sequence[models.Entry]) -> list[list[models.Entry]]:
    """Neighboring tensors of one node: `conv1.weight` and `conv1.bias`."""
    layers: dict[str, list[models.Entry]] = {}
    for e in entries:
        layers.setdefault(e.name.rsplit(".", 1)[0], []).append(e)
    return list(layers.values())


def _units(members: Sequence[models.Entry]) -> list[np.ndarray]:
    """Places of each unit's own values in a layer; tensors of another first dimension go apart."""
    rows: dict[int, list[np.ndarray]] = {}
    for e in members:
        n = e.shape[0] if e.shape else 1
        rows.setdefault(n, []).append(_range(e).reshape(n, -1))
    return [row for parts in rows.values() for row in np.concatenate(parts, axis=1)]


# ── windows ───────────────────────────────────────────────────────────────────────────


def window(weights: np.ndarray, k: int, key: Any) -> tuple[np.ndarray, np.ndarray]:
    """k consecutive values of each row [S, P] at a random offset: values [S, k], offsets int64 [S].

    The local view of NWS (Eilertsen et al. 2020). `key` is any JSON value; row i's offset
    depends on key, i, k and P alone, uniform in 0 … P − k. For windows without buffers pass
    `flat(weights, layout, buffers=False)`.
    """
    weights = np.asarray(weights)
    if weights.ndim != 2:
        raise ValueError(f"Weights have shape {weights.shape}; window needs rows (S, P).")
    n, width = weights.shape
    if not 1 <= k <= width:
        raise ValueError(f"A window of {k} values does not fit into weights of shape {weights.shape}: 1 ≤ k ≤ {width}.")
    high = streams.words(streams.stream_key(["window", key]), n) >> np.uint64(32)
    offsets = (high * np.uint64(width - k + 1) >> np.uint64(32)).astype(np.int64)  # [S]
    if not n:
        return weights[:, :k], offsets
    return np.lib.stride_tricks.sliding_window_view(weights, k, axis=1)[np.arange(n), offsets], offsets


# ── graphs ────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Graph:
    """Networks as one graph: N units, E connections, the same wiring for every vector.

    Padding is 0 where a mask is false. Node columns: 0 the bias (of a GRU 0 … 5, in the order of
    its layout), then batch norms' weight, bias, running mean and variance. Edge columns: the
    kernel of a convolution, row by row; after `flatten` or `rows`, the positions of a channel; the
    three gates of a GRU, one after the other; one weight otherwise.
    """

    node_features: np.ndarray  # [..., N, F]
    edge_index: np.ndarray  # int64 [2, E]: from, to
    edge_features: np.ndarray  # [..., E, K]
    node_mask: np.ndarray  # bool [N, F]
    edge_mask: np.ndarray  # bool [E, K]
    node_layer: np.ndarray  # int64 [N]: 0 the input, then conv, linear and GRU layers in order
    node_unit: np.ndarray  # int64 [N]: place in its layer
    layer_names: tuple[str, ...]  # "input", "conv1", …
    node_source: np.ndarray  # int64 [N, F]: where in the vector, −1 where masked
    edge_source: np.ndarray  # int64 [E, K]

    def to_pyg(self, row: int | tuple[int, ...] = ()) -> Any:
        """A `torch_geometric.data.Data` of one vector (`row` picks it): x, edge_index, edge_attr, masks, layer, unit."""
        try:
            from torch_geometric.data import Data
        except ImportError:
            raise ImportError(
                "Graph.to_pyg needs torch_geometric (pip install torch_geometric); "
                "node_features, edge_index and edge_features are plain arrays."
            ) from None
        import torch

        x, attributes = self.node_features[row], self.edge_features[row]
        if x.ndim != 2:
            raise ValueError(f"node_features have shape {self.node_features.shape}; pick one vector: to_pyg(row=0).")
        arrays = {
            "x": x, "edge_index": self.edge_index, "edge_attr": attributes, "x_mask": self.node_mask,
            "edge_mask": self.edge_mask, "layer": self.node_layer, "unit": self.node_unit,
        }  # fmt: skip
        return Data(**{name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})


def graph(weights: np.ndarray, architecture: models.Architecture) -> Graph:
    """The graph of each vector [..., P]; `ungraph` gives the vectors back.

    Nodes are units: input features or channels, channels of convolutions, features of linear
    layers, units of GRUs. Edges run from every unit to every unit of the next layer with weights,
    and from every unit of a GRU to every one of its own; a
    convolution's kernel is the edge's feature vector (the neural graph of Kofinas et al., "Graph
    Neural Networks for Learning Equivariant Representations of Neural Networks", 2024). Ours,
    and not checked against theirs: after `flatten` there is one edge from each channel with a
    weight per position, and a batch norm is features of the nodes it normalizes. Permuting
    hidden units permutes nodes and edges and nothing else.
    """
    weights = _checked(weights, architecture.layout)
    wiring = _wire(architecture)
    return Graph(
        node_features=_gather(weights, wiring.nodes), edge_index=wiring.edge_index,
        edge_features=_gather(weights, wiring.edges), node_mask=wiring.nodes >= 0, edge_mask=wiring.edges >= 0,
        node_layer=wiring.layer, node_unit=wiring.unit, layer_names=wiring.names,
        node_source=wiring.nodes, edge_source=wiring.edges,
    )  # fmt: skip


def ungraph(graph: Graph) -> np.ndarray:
    """The vectors [..., P] of a graph, bit for bit. Raises ValueError for features of another shape."""
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
    nodes: np.ndarray  # int64 [N, F]
    edge_index: np.ndarray
    edges: np.ndarray  # int64 [E, K]
    layer: np.ndarray
    unit: np.ndarray
    names: tuple[str, ...]


def _wire(architecture: models.Architecture) -> _Wiring:
    if any(len(n.inputs) != 1 for n in architecture.nodes):
        node = next(n for n in architecture.nodes if len(n.inputs) != 1)
        raise ValueError(f"Node {node.name} has {len(node.inputs)} inputs; graph knows chains of layers only.")
    layer_of = {"input": 0}  # node → the layer whose units its output runs over
    names, counts = ["input"], [_input_units(architecture)]
    norms: list[tuple[int, models.Node]] = []
    links: list[tuple[int, int, list[models.Entry]]] = []
    biases: dict[int, list[models.Entry]] = {}
    for node in architecture.nodes:
        before = layer_of[node.inputs[0]]
        layer_of[node.name] = before
        if node.op in models.WEIGHTED:
            entries = architecture.entries(node.name)
            here = layer_of[node.name] = len(names)
            biases[here] = [e for e in entries if len(e.shape) == 1]
            weights = [e for e in entries if len(e.shape) > 1]
            links.append((before, here, weights[:3]))  # one, or a GRU's three gates
            if weights[3:]:
                links.append((here, here, weights[3:]))
            names.append(node.name)
            counts.append(biases[here][0].size)
        elif node.op == "batch_norm":
            norms.append((before, node))
    first = np.concatenate([[0], np.cumsum(counts)])  # of each layer's nodes
    most = max((len(b) for b in biases.values()), default=1)
    norm_columns = _norm_columns(architecture, norms, counts, most)
    table = np.full((first[-1], 1 + max((c.max() for c in norm_columns), default=most - 1)), -1, np.int64)
    for number, entries in biases.items():
        for column, entry in enumerate(entries):
            table[first[number] : first[number + 1], column] = _range(entry)
    for (number, node), columns in zip(norms, norm_columns, strict=True):
        of_unit = [_range(e).reshape(counts[number], -1) for e in architecture.entries(node.name)]
        table[first[number] : first[number + 1], columns] = np.concatenate(of_unit, axis=1)
    ends, pieces = [], []
    for source, target, weights in links:
        n, m = counts[target], counts[source]
        to, start = np.divmod(np.arange(n * m), m)
        ends.append(np.stack([first[source] + start, first[target] + to]))
        pieces.append(np.concatenate([_range(w).reshape(n * m, w.size // (n * m)) for w in weights], axis=1))
    widest = max((p.shape[1] for p in pieces), default=0)
    edges = [np.pad(p, ((0, 0), (0, widest - p.shape[1])), constant_values=-1) for p in pieces]
    return _Wiring(
        nodes=table,
        edge_index=np.concatenate(ends, axis=1) if ends else np.zeros((2, 0), np.int64),
        edges=np.concatenate(edges) if edges else np.zeros((0, 0), np.int64),
        layer=np.repeat(np.arange(len(names)), counts),
        unit=np.concatenate([np.arange(c) for c in counts]),
        names=tuple(names),
    )  # fmt: skip


def _input_units(architecture: models.Architecture) -> int:
    """Channels where a convolution or batch norm reads the image, features where it is flattened or cut first."""
    for node in architecture.nodes:
        if node.op in (*models.WEIGHTED, "batch_norm"):
            break
        if node.op == "flatten":
            return int(np.prod(architecture.input_shape))
        if node.op == "rows":
            return node.shape[1]
    return architecture.input_shape[0]


def _norm_columns(
    architecture: models.Architecture, norms: Sequence[tuple[int, models.Node]], counts: Sequence[int], start: int
) -> list[np.ndarray]:
    """Node columns of each batch norm's values from `start`; the k-th norm of any layer has the same columns."""
    blocks = [architecture.entries(node.name)[0].size // counts[layer] for layer, node in norms]
    layers = [layer for layer, _ in norms]
    ranks = [layers[:i].count(layer) for i, layer in enumerate(layers)]
    columns = [np.zeros(0, np.int64)] * len(norms)
    for rank in range(max(ranks, default=-1) + 1):
        widest = max(b for b, r in zip(blocks, ranks, strict=True) if r == rank)
        for i in (i for i, r in enumerate(ranks) if r == rank):
            columns[i] = (start + widest * np.arange(4)[:, None] + np.arange(blocks[i])).ravel()
        start += 4 * widest
    return columns


# ── trajectories ──────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Weights by model and step; 0 where the mask is false."""

    values: np.ndarray  # [M, T, P]
    mask: np.ndarray  # bool [M, T]
    model_ids: tuple[str, ...]
    at: np.ndarray  # [T]: step, epoch, or 0, 1, … for `by="order"`


def trajectories(weights: Any, snapshots: pa.Table, by: str = "step") -> Trajectories:
    """Trajectories of rows [S, P] that lie in the order of the snapshots table (S rows).

    Models come in the order of their first row. The second axis is every distinct `step` (or
    `epoch`) there is, or with `by="order"` the k-th snapshot of a model, whatever its step.
    `weights` may be anything that takes an index array, as a zoo's lazy weights do.
    """
    if by not in ("step", "epoch", "order"):
        raise ValueError(errors.unknown("axis of trajectories", by, ("step", "epoch", "order")))
    shape = tuple(weights.shape)
    if shape[1:] == (None,):
        raise ValueError("These weights mix layouts; take one layout at a time: weights.by_layout().")
    if len(shape) != 2 or shape[0] != len(snapshots):
        raise ValueError(
            f"Weights have shape {shape}; for {len(snapshots)} rows of snapshots ({len(snapshots)}, P) is needed."
        )
    encoded = snapshots["model_id"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    model = encoded.indices.to_numpy()  # [S], in order of first appearance
    ids = tuple(encoded.dictionary.to_pylist())
    column = snapshots["step" if by == "order" else by].to_numpy()
    if by == "order":
        order = np.lexsort((column, model))
        first = np.searchsorted(model[order], np.arange(len(ids)))
        place = np.empty(len(model), np.int64)
        place[order] = np.arange(len(model)) - first[model[order]]
        at = np.arange(place.max(initial=-1) + 1)
    else:
        at, place = np.unique(column, return_inverse=True)
    mask = np.zeros((len(ids), len(at)), bool)
    mask[model, place] = True
    if mask.sum() != len(model):
        raise ValueError(
            f"{len(model) - mask.sum()} rows repeat a model at the same {by}: a trajectory has one snapshot each."
        )
    rows = np.asarray(weights[np.arange(len(model))])
    values = np.zeros((*mask.shape, shape[1]), rows.dtype)
    values[model, place] = rows
    return Trajectories(values, mask, ids, at)


# ── index arrays ──────────────────────────────────────────────────────────────────────


def _entries(layout: Sequence[models.Entry], buffers: bool) -> list[models.Entry]:
    return [e for e in layout if buffers or e.role != "buffer"]


def _range(entry: models.Entry) -> np.ndarray:
    return np.arange(entry.offset, entry.end)


def _index(layout: Sequence[models.Entry], buffers: bool) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(_range(e) for e in _entries(layout, buffers))])


def _padded(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Index arrays of different length as one [T, D], filled up with −1."""
    index = np.full((len(pieces), max(map(len, pieces), default=0)), -1, np.int64)
    for row, piece in zip(index, pieces, strict=True):
        row[: len(piece)] = piece
    return index


def _gather(weights: np.ndarray, index: np.ndarray) -> np.ndarray:
    """[..., P] at an index [A, B], 0 where it is −1: [..., A, B]."""
    values = weights[..., np.maximum(index, 0)]
    values[..., index < 0] = 0
    return values


def _checked(weights: np.ndarray, layout: Sequence[models.Entry]) -> np.ndarray:
    weights = np.asarray(weights)
    width = max((e.end for e in layout), default=0)
    if weights.ndim == 0 or weights.shape[-1] != width:
        raise ValueError(
            f"Weights have shape {weights.shape}; the layout has {width} values, so (..., {width}) is needed."
        )
    return weights


def _check_quantiles(quantiles: Sequence[float]) -> None:
    wrong = [q for q in quantiles if not 0 <= q <= 1]
    if wrong:
        raise ValueError(f"Quantile {wrong[0]} is not in [0, 1]; the 99th percentile is 0.99.")
