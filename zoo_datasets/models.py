"""Layers → `Architecture` → the layout of one flat weight vector.

An `Architecture` is a graph of nodes with the shape of every node's output; it holds no
weights. Its layout says where each tensor lies in the flat float32 vector that a zoo
stores: parameters and buffers in forward order, with the permutation groups that tie the
dimensions of neighbouring tensors together. `modules.py` makes an `nn.Module` of it.

Shapes are of one sample: (channels, rows, columns), (steps, features) of a sequence, or (features,).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import errors, exact, streams

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

PRESETS: dict[str, list[Any]] = {
    # The 2,464-parameter CNN of Schürholt et al., "Model Zoos" (NeurIPS 2022), on 1×28×28.
    "small-cnn": [
        {"conv": 8, "kernel": 5}, {"max_pool": 2}, "activation", "dropout",
        {"conv": 6, "kernel": 5}, {"max_pool": 2}, "activation", "dropout",
        {"conv": 4, "kernel": 2}, "activation", "flatten",
        {"linear": 20}, "activation", "dropout", {"linear": "classes"},
    ],
    # The 4,970-parameter CNN of Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020).
    "small-cnn-gap": [
        {"conv": 16, "kernel": 3, "stride": 2}, "activation", {"conv": 16, "kernel": 3, "stride": 2}, "activation",
        {"conv": 16, "kernel": 3, "stride": 2}, "activation", "global_avg_pool", {"linear": "classes"},
    ],
    "mlp": ["flatten", {"linear": 32}, "activation", "dropout", {"linear": "classes"}],
}  # fmt: skip
# Model Zoos sets every bias of its small CNN to 0.01; elsewhere biases start at 0.
PRESET_BIAS = {"small-cnn": 0.01}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor in the flat vector: `vector[offset : offset + size].reshape(shape)`.

    `groups` names, per dimension, the set of units it runs over ("" where units are
    fixed): permuting a group permutes every dimension of that name.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    role: str  # "parameter" or "buffer"
    groups: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.size


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


def unflatten(vector: np.ndarray, layout: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Named views into vectors [..., n_params]: each [..., *shape]. Nothing is copied."""
    lead = vector.shape[:-1]
    return {e.name: vector[..., e.offset : e.end].reshape(*lead, *e.shape) for e in layout}


def flatten(tensors: Mapping[str, np.ndarray], layout: Sequence[Entry]) -> np.ndarray:
    """The flat float32 vector [n_params] of named tensors. Raises KeyError, ValueError."""
    parts = []
    for e in layout:
        tensor = np.asarray(tensors[e.name], np.float32)
        if tensor.shape != e.shape:
            raise ValueError(f"{e.name} has shape {tensor.shape}, the layout says {e.shape}.")
        parts.append(tensor.ravel())
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def layout_json(layout: Sequence[Entry]) -> list[dict[str, Any]]:
    """The layout as the manifest keeps it."""
    return [{**dataclasses.asdict(e), "shape": list(e.shape), "groups": list(e.groups)} for e in layout]


# ── layers → architecture ─────────────────────────────────────────────────────────────


def build(
    layers: str | Sequence[Any], input_shape: tuple[int, ...], n_classes: int, activation: str = "relu"
) -> Architecture:
    """The architecture of a preset or a list of layers, with shapes worked out.

    A dropout node holds `rate`: None means the model's own rate (a per-model setting).
    Raises GridError naming the layer and both shapes where they do not fit.
    """
    if isinstance(layers, str):
        if layers not in PRESETS:
            raise errors.GridError(errors.unknown("architecture preset", layers, PRESETS))
        layers = PRESETS[layers]
    nodes: list[Node] = []
    counts: dict[str, int] = {}
    shape, previous = tuple(input_shape), "input"
    for position, layer in enumerate(layers, 1):
        op, attrs = parse_layer(layer, position, n_classes, activation)
        where = f"layer {position} ({layer if isinstance(layer, str) else op})"
        out = _output_shape(op, attrs, shape, where)
        # Names count per kind, so that taking a dropout out renames nothing else.
        kind = "activation" if op in ACTIVATIONS else op
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{kind}{counts[kind]}"
        nodes.append(Node(name, op, (previous,), out, attrs))
        shape, previous = out, name
    if shape != (n_classes,):
        raise errors.GridError(
            f"The last layer gives shape {shape}; the source has {n_classes} classes, so it must give ({n_classes},). "
            "End the list with `{linear: classes}`."
        )
    return Architecture(tuple(input_shape), tuple(nodes), _layout(tuple(input_shape), tuple(nodes)))


_OPTIONS = {"conv": {"kernel", "stride", "padding"}, "max_pool": {"stride"}, "avg_pool": {"stride"}}


def parse_layer(layer: Any, position: int, n_classes: int, activation: str) -> tuple[str, dict[str, Any]]:
    """One item of the list → operation and attributes, every default filled in. Raises GridError."""
    if isinstance(layer, str):
        op, value, options = layer, None, {}
    elif isinstance(layer, Mapping) and layer:
        op = next((k for k in layer if k in LAYERS), str(next(iter(layer))))
        value, options = layer.get(op), {k: v for k, v in layer.items() if k != op}
    else:
        raise errors.GridError(f"Layer {position} is {layer!r}; a layer is a name or a mapping like `{{conv: 8}}`.")
    if op not in LAYERS and op not in ACTIVATIONS:
        raise errors.GridError(errors.unknown("layer", op, (*LAYERS, *ACTIVATIONS), f"architecture, layer {position}"))
    for key in options:
        if key not in _OPTIONS.get(op, set()):
            raise errors.GridError(errors.unknown(f"option of `{op}`", key, _OPTIONS.get(op, ()), f"layer {position}"))

    def whole(key: str, number: Any, least: int) -> int:
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise errors.GridError(
                f"Layer {position} ({op}): `{key}` is {number!r}; a whole number ≥ {least} is needed."
            )
        return number

    if op == "conv":
        return op, {
            "channels": whole("conv", value, 1),
            "kernel": whole("kernel", options.get("kernel", 3), 1),
            "stride": whole("stride", options.get("stride", 1), 1),
            "padding": whole("padding", options.get("padding", 0), 0),
        }
    if op in ("max_pool", "avg_pool"):
        size = whole(op, value, 1)
        return op, {"kernel": size, "stride": whole("stride", options.get("stride", size), 1)}
    if op in ("linear", "gru"):
        return op, {"features": n_classes if value == "classes" else whole(op, value, 1)}
    if op == "dropout":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < 1):
            raise errors.GridError(f"Layer {position} (dropout): the rate is {value!r}; it must be in [0, 1).")
        return op, {"rate": None if value is None else float(value)}
    if value is not None:
        raise errors.GridError(f"Layer {position}: `{op}` takes no value, got {value!r}. Write it as `{op}`.")
    return (activation, {}) if op == "activation" else (op, {})


def _output_shape(op: str, attrs: Mapping[str, Any], shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    if op in ("conv", "max_pool", "avg_pool", "global_avg_pool") and len(shape) != 3:
        raise errors.GridError(
            f"{where[0].upper()}{where[1:]} needs (channels, rows, columns), but the layer before gives {shape}."
        )
    if op in ("conv", "max_pool", "avg_pool"):
        pad = attrs.get("padding", 0)
        rows, columns = ((n + 2 * pad - attrs["kernel"]) // attrs["stride"] + 1 for n in shape[1:])
        if min(n + 2 * pad for n in shape[1:]) < attrs["kernel"]:
            raise errors.GridError(
                f"{where[0].upper()}{where[1:]}: its window {attrs['kernel']}×{attrs['kernel']} does not fit into the "
                f"input of shape {shape} with padding {pad}. Use a smaller kernel, or padding."
            )
        return (attrs["channels"] if op == "conv" else shape[0], rows, columns)
    if op == "rows":
        if len(shape) != 3:
            raise errors.GridError(
                f"{where[0].upper()}{where[1:]} reads (channels, rows, columns) as a sequence of rows, but the layer "
                f"before gives {shape}."
            )
        return (shape[1], shape[0] * shape[2])
    if op in ("gru", "last_step"):
        if len(shape) != 2:
            raise errors.GridError(
                f"{where[0].upper()}{where[1:]} needs a sequence (steps, features), but the layer before gives {shape}. "
                "`rows` makes one of an image, a step per row."
            )
        return (shape[0], attrs["features"]) if op == "gru" else (shape[1],)
    if len(shape) == 2 and op in ("flatten", "batch_norm", "softmax"):
        raise errors.GridError(
            f"{where[0].upper()}{where[1:]} takes no sequence, but the layer before gives (steps, features) = {shape}. "
            "Put `last_step` before it."
        )
    if op == "global_avg_pool":
        return (shape[0],)
    if op == "flatten":
        return (math.prod(shape),)
    if op == "linear":
        if len(shape) != 1:
            raise errors.GridError(
                f"{where[0].upper()}{where[1:]} needs a flat input (features,), but the layer before gives {shape}. "
                f"Put {'`last_step`' if len(shape) == 2 else '`flatten` or `global_avg_pool`'} before it."
            )
        return (attrs["features"],)
    return shape  # activation, dropout, batch_norm


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


# ── initialization ────────────────────────────────────────────────────────────────────

INITS = (
    "uniform", "normal", "kaiming_uniform", "kaiming_normal", "glorot_uniform", "glorot_normal", "orthogonal", "constant",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LayerInit:
    """The distribution of one layer's weights; `low` and `high` are of `uniform`."""

    kind: str
    low: float | None = None
    high: float | None = None


def initialize(
    architecture: Architecture, key: str, kind: str, *, low: float | None = None, high: float | None = None,
    mean: float | None = None, std: float | None = None, value: float | None = None, bias: float = 0.0,
    first: LayerInit | None = None, last: LayerInit | None = None,
) -> np.ndarray:  # fmt: skip
    """The initial vector, float32 [n_params], of a key: the same bits for every engine and machine.

    `uniform` draws from [low, high), by default PyTorch's own ±1/√fan_in (of a GRU ±1/√units);
    `normal` from (mean, std), by default (0, 1/√fan_in). Kaiming (He et al. 2015) takes the gain √2 of
    ReLU; Glorot (Glorot & Bengio 2010) both fans; `orthogonal` (Saxe et al. 2014) is
    Gram–Schmidt of normals. Biases are `bias`; batch norm starts at scale 1, shift 0,
    mean 0, variance 1. Each tensor draws from a counter made of its own name: its draws do not
    depend on the layers around it. `first` and `last` are the weights' distributions of the first
    and of the last layer, where they have their own; a single layer is the first.
    """
    own = _own_inits(architecture, first, last)
    vector = np.empty(architecture.n_params, np.float32)
    for e in architecture.layout:
        leaf = e.name.rsplit(".", 1)[1]
        if leaf in ("weight", "running_var") and len(e.shape) == 1:
            tensor: Any = 1.0
        elif leaf.startswith("bias"):
            tensor = bias if not e.name.startswith("batch_norm") else 0.0
        elif leaf.startswith("running_"):
            tensor = 0.0
        else:
            fan_in = math.prod(e.shape[1:])
            fan_out = e.shape[0] * math.prod(e.shape[2:])
            # By name, not by place: a layer more or less leaves the draws of the others alone.
            hi = (int(streams.digest(e.name)[:16], 16), 0, streams.SEQUENCE)
            layer = own.get(e.name, LayerInit(kind, low, high))
            general = e.name not in own  # `mean` and `std` are not of a layer's own init
            if layer.kind == "constant":
                tensor = value
            elif layer.kind in ("uniform", "kaiming_uniform", "glorot_uniform"):
                bound = {
                    "uniform": 1.0 / math.sqrt(e.shape[0] if leaf in GRU_TENSORS else fan_in),
                    "kaiming_uniform": math.sqrt(6.0 / fan_in),
                    "glorot_uniform": math.sqrt(6.0 / (fan_in + fan_out)),
                }[layer.kind]
                a, b = (layer.low, layer.high) if layer.low is not None and layer.high is not None else (-bound, bound)
                tensor = a + (b - a) * streams.uniforms(key, e.size, hi)
            elif layer.kind == "orthogonal":
                tensor = _orthogonal(streams.normals(key, e.size, hi).reshape(e.shape[0], fan_in)).ravel()
            else:
                scale = {
                    "normal": 1.0 / math.sqrt(fan_in) if std is None or not general else std,
                    "kaiming_normal": math.sqrt(2.0 / fan_in),
                    "glorot_normal": math.sqrt(2.0 / (fan_in + fan_out)),
                }[layer.kind]
                tensor = ((mean or 0.0) if general else 0.0) + scale * streams.normals(key, e.size, hi)
        vector[e.offset : e.end] = tensor
    return vector


def _own_inits(architecture: Architecture, first: LayerInit | None, last: LayerInit | None) -> dict[str, LayerInit]:
    """Weight tensors that have an init of their own."""
    layers = [n for n in architecture.nodes if n.op in WEIGHTED]
    ends = [(layers[-1], last), (layers[0], first or (last if len(layers) == 1 else None))] if layers else []
    return {f"{n.name}.{t}": init for n, init in ends if init for t in n.tensors if t.startswith("weight")}


def _orthogonal(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal rows (or columns, where those are fewer) by modified Gram–Schmidt, float64.

    LAPACK's QR differs between machines in its last bits; sums here run in one fixed order.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    rows = np.array(matrix.T if tall else matrix)
    for i in range(len(rows)):
        for _ in range(2):  # twice is enough (Kahan–Parlett)
            for j in range(i):
                rows[i] -= exact.total(rows[i] * rows[j]) * rows[j]
        rows[i] /= np.sqrt(exact.total(rows[i] * rows[i]))
    return rows.T if tall else rows
