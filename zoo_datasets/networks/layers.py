"""A preset or a list of layers → an `Architecture`, with shapes worked out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo_datasets import errors
from zoo_datasets.networks.architecture import ACTIVATIONS, LAYERS, Architecture, Node, _layout

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
