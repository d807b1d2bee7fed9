"""A preset or a list of layers → an `Architecture`, with shapes worked out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo_datasets import errors
from zoo_datasets.networks.architecture import MOST_SIDE, MOST_VALUES, Architecture
from zoo_datasets.networks.operations.operation import Attributes, Given, Node, Shape, units_of
from zoo_datasets.networks.operations.registry import OPERATIONS

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
MOST_LAYERS = 1_000  # a thousand small ones take minutes to plan


def build_architecture(
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
    if len(layers) > MOST_LAYERS:
        raise errors.GridError(f"The architecture has {len(layers):,} layers; at most {MOST_LAYERS:,}.")
    nodes: list[Node] = []
    total = 0  # values of all weights
    counts: dict[str, int] = {}
    shape, previous = tuple(input_shape), "input"
    for position, layer in enumerate(layers, 1):
        op, attrs = parse_layer(layer, position, n_classes, activation)
        where = f"layer {position} ({layer if isinstance(layer, str) else op})"
        before, shape = shape, OPERATIONS[op].output_shape(attrs, shape, where)
        # Names count per kind, so that taking a dropout out renames nothing else.
        kind = "activation" if OPERATIONS[op].activation else op
        counts[kind] = counts.get(kind, 0) + 1
        nodes.append(Node(f"{kind}{counts[kind]}", op, (previous,), shape, attrs))
        previous = nodes[-1].name
        total += _values(nodes[-1], before, where)
    if total > MOST_VALUES:
        raise errors.GridError(f"The architecture has {total:,} weights; at most {MOST_VALUES:,}. Take smaller layers.")
    if shape != (n_classes,):
        raise errors.GridError(
            f"The last layer gives shape {shape}; the source has {n_classes} classes, so it must give ({n_classes},). "
            "End the list with `{linear: classes}`."
        )
    return Architecture(tuple(input_shape), tuple(nodes))


def _values(node: Node, before: Shape, where: str) -> int:
    """How many weights a node has. Raises GridError where it is larger than what a manifest may hold."""
    for name, number in node.attrs.items():
        if isinstance(number, int) and number > MOST_SIDE:
            raise errors.GridError(f"{where.capitalize()}: `{name}` is {number:,}; at most {MOST_SIDE:,}.")
    values = math.prod(node.shape)
    if max(node.shape) > MOST_SIDE or values > MOST_VALUES:
        raise errors.GridError(
            f"{where.capitalize()} gives {values:,} values, of shape {node.shape}; at most {MOST_VALUES:,}, and "
            f"{MOST_SIDE:,} along one side."
        )
    return sum(math.prod(t.shape) for t in OPERATIONS[node.op].tensors(node, units_of(before), "", ""))


def parse_layer(layer: Any, position: int, n_classes: int, activation: str) -> tuple[str, Attributes]:
    """One item of the list → operation and attributes, every default filled in. Raises GridError.

    `activation` is the operation that layers of that name stand for.
    """
    known = (*OPERATIONS, "activation")
    if isinstance(layer, str):
        op, value, options = layer, None, {}
    elif isinstance(layer, Mapping) and layer:
        op = next((k for k in layer if k in known), str(next(iter(layer))))
        value, options = layer.get(op), {k: v for k, v in layer.items() if k != op}
    else:
        raise errors.GridError(f"Layer {position} is {layer!r}; a layer is a name or a mapping like `{{conv: 8}}`.")
    if op not in known:
        raise errors.GridError(errors.unknown("layer", op, known, f"architecture, layer {position}"))
    operation = OPERATIONS[activation if op == "activation" else op]
    for key in options:
        if key not in operation.options:
            raise errors.GridError(errors.unknown(f"option of `{op}`", key, operation.options, f"layer {position}"))
    return operation.name, operation.parse(Given(op, value, options, position, n_classes))
