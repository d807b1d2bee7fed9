"""Layers → `Architecture` → the layout of one flat weight vector.

An `Architecture` is a graph of nodes with the shape of every node's output; it holds no
weights. Its layout says where each tensor lies in the flat float32 vector that a zoo
stores: parameters and buffers in forward order, with the permutation groups that tie the
dimensions of neighbouring tensors together. `modules.py` makes an `nn.Module` of it.

Shapes are of one sample: (channels, rows, columns), (steps, features) of a sequence, or (features,).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_datasets import errors
from zoo_datasets.core import streams
from zoo_datasets.networks.layout import Entry

ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "elu", "silu", "leaky_relu", "softmax")
LAYERS = (
    "conv", "max_pool", "avg_pool", "global_avg_pool", "linear", "gru", "rows", "last_step", "batch_norm", "dropout",
    "flatten", "activation",
)  # fmt: skip
WEIGHTED = ("conv", "linear", "gru")  # layers with units of their own
# A GRU's tensors, gate by gate (reset, update, new) in PyTorch's order: the first three concatenated
# are its `weight_ih_l0`, the next `weight_hh_l0`, then `bias_ih_l0` and `bias_hh_l0`.
GRU_TENSORS = tuple(f"{kind}_{side}{gate}" for kind in ("weight", "bias") for side in "ih" for gate in "rzn")
BATCH_NORM_MOMENTUM = 0.1  # PyTorch's: new = 0.9 old + 0.1 batch
BATCH_NORM_EPS = 1e-5
LEAKY_RELU_SLOPE = 0.01
ELU_ALPHA = 1.0


@dataclasses.dataclass(frozen=True)
class Node:
    """One layer: its inputs are names of earlier nodes, or "input"."""

    name: str
    op: str  # a layer of LAYERS, with an activation by its own name ("relu")
    inputs: tuple[str, ...]
    shape: tuple[int, ...]  # of its output, one sample
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tensors(self) -> list[str]:
        """Names of this node's tensors, in layout order, without the node's own name."""
        if self.op in ("conv", "linear"):
            return ["weight", "bias"]
        if self.op == "gru":
            return list(GRU_TENSORS)
        if self.op == "batch_norm":
            return ["weight", "bias", "running_mean", "running_var"]
        return []


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Nodes in forward order, the layout of their tensors, and the shapes at both ends."""

    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    layout: tuple[Entry, ...]

    @property
    def n_params(self) -> int:
        """Length of the flat vector, buffers included."""
        return self.layout[-1].end if self.layout else 0

    @property
    def n_outputs(self) -> int:
        return self.nodes[-1].shape[0]

    @property
    def layout_id(self) -> str:
        """16 hex digits of the tensors' names, shapes and roles: equal vectors mean equal things."""
        return streams.digest([[e.name, list(e.shape), e.role] for e in self.layout])[:16]

    @property
    def id(self) -> str:
        """16 hex digits of the whole graph, activations included."""
        return streams.digest(self.to_json())[:16]

    def buffer_mask(self) -> np.ndarray:
        """bool [n_params], true where the value is a buffer that no optimizer touches."""
        mask = np.zeros(self.n_params, bool)
        for entry in self.layout:
            if entry.role == "buffer":
                mask[entry.offset : entry.end] = True
        return mask

    def entries(self, node: str) -> list[Entry]:
        """The tensors of one node, in layout order."""
        return [e for e in self.layout if e.name.rsplit(".", 1)[0] == node]

    def to_json(self) -> dict[str, Any]:
        """What the manifest keeps; `Architecture.from_json` gives it back."""
        return {
            "kind": "layers",
            "input_shape": list(self.input_shape),
            "nodes": [
                {"name": n.name, "op": n.op, "inputs": list(n.inputs), "shape": list(n.shape), "attrs": dict(n.attrs)}
                for n in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Architecture:
        """Raises FormatVersionError where this library cannot build the kind of architecture."""
        if value.get("kind") != "layers":
            raise errors.FormatVersionError(
                f"Architecture of kind {value.get('kind')!r}: this version builds 'layers'. Upgrade weightzoo."
            )
        nodes = tuple(
            Node(n["name"], n["op"], tuple(n["inputs"]), tuple(n["shape"]), dict(n["attrs"])) for n in value["nodes"]
        )
        shape = tuple(value["input_shape"])
        return cls(shape, nodes, _layout(shape, nodes))


def _layout(input_shape: tuple[int, ...], nodes: tuple[Node, ...]) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    offset = 0
    shapes = {"input": input_shape}
    # The group of units that the channels (or features) of a node's output run over. The
    # input's and the last layer's units are fixed by the data and by the classes.
    units = {"input": ""}
    last = max((i for i, n in enumerate(nodes) if n.op in WEIGHTED), default=-1)
    for i, node in enumerate(nodes):
        source = node.inputs[0]
        width, before = shapes[source][-1 if len(shapes[source]) == 2 else 0], units[source]
        if node.op == "conv":
            own = node.name if i != last else ""
            kernel = node.attrs["kernel"]
            tensors = [((node.shape[0], width, kernel, kernel), (own, before, "", "")), ((node.shape[0],), (own,))]
        elif node.op == "linear":
            # After `flatten` one unit of the conv is a block of columns; views divide by the group's size.
            own = node.name if i != last else ""
            tensors = [((node.shape[0], width), (own, before)), ((node.shape[0],), (own,))]
        elif node.op == "gru":
            own, n = node.name if i != last else "", node.shape[1]
            tensors = [((n, width), (own, before))] * 3 + [((n, n), (own, own))] * 3 + [((n,), (own,))] * 6
        else:
            own = before
            tensors = [((width,), (own,))] * len(node.tensors)
        for name, (shape, groups) in zip(node.tensors, tensors, strict=False):
            role = "buffer" if name.startswith("running_") else "parameter"
            entries.append(Entry(f"{node.name}.{name}", shape, offset, role, groups))
            offset = entries[-1].end
        shapes[node.name], units[node.name] = node.shape, own
    return tuple(entries)
