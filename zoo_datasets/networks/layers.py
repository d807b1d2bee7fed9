"""A preset or a list of layers → an `Architecture`, with shapes worked out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo_datasets import errors
from zoo_datasets.networks.architecture import MOST_SIDE, MOST_VALUES, Architecture
from zoo_datasets.networks.operations.operation import Attributes, Given, Node, Shape, units_of
from zoo_datasets.networks.operations.registry import ACTIVATIONS, OPERATIONS

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
    # Of the published shape of the networks of MLDS (Clemens 2021): 9 inputs, 4 GRU and 4 hidden linear layers of 12, 8
    # outputs, 4,364 parameters. What stood between the linear layers is not known.
    "mlds-gru": [
        *[{"gru": 12}] * 4, *[{"linear": 12}, "activation"] * 4, {"linear": "classes"},
    ],
    "lstm": [{"lstm": 32}, {"lstm": 32}, {"linear": "classes"}],
}  # fmt: skip
# Model Zoos sets every bias of its small CNN to 0.01; elsewhere biases start at 0.
PRESET_BIAS = {"small-cnn": 0.01}
MOST_LAYERS = 1_000  # a thousand small ones take minutes to plan
MOST_NESTED = 8  # blocks inside blocks
BLOCK = "residual"


def build_architecture(
    layers: str | Sequence[Any], input_shape: tuple[int, ...], n_classes: int, activation: str = "relu",
    steps: int | None = None,
) -> Architecture:  # fmt: skip
    """The architecture of a preset or a list of layers, with shapes worked out.

    With `steps` it must give `n_classes` numbers at each of so many; else once.
    A dropout node holds `rate`: None means the model's own rate (a per-model setting).
    Raises GridError naming the layer and both shapes where they do not fit.
    """
    if isinstance(layers, str):
        if layers not in PRESETS:
            raise errors.GridError(errors.unknown("architecture preset", layers, PRESETS))
        layers = PRESETS[layers]
    if (count := sum(1 for _ in unrolled(layers))) > MOST_LAYERS:
        raise errors.GridError(f"The architecture has {count:,} layers; at most {MOST_LAYERS:,}.")
    building = _Building(tuple(input_shape), n_classes, activation)
    building.chain(layers, "")
    shape = building.shape
    if building.total > MOST_VALUES:
        raise errors.GridError(
            f"The architecture has {building.total:,} weights; at most {MOST_VALUES:,}. Take smaller layers."
        )
    if steps is not None and shape != (steps, n_classes):
        raise errors.GridError(
            f"The last layer gives shape {shape}; the source says what is right at each of {steps} steps, so it must give "
            f"(steps, outputs) = ({steps}, {n_classes}). End the list with `{{linear: classes}}`, without `last_step`."
        )
    if steps is None and len(shape) == 2:
        raise errors.GridError(
            f"The last layer gives (steps, features) = {shape}; an input of this source has one label, so it must give "
            f"({n_classes},). Put `last_step` before it."
        )
    if steps is None and shape != (n_classes,) and not (_is_wide(layers[-1]) and len(shape) == 1):
        raise errors.GridError(
            f"The last layer gives shape {shape}; the source has {n_classes} classes, so it must give ({n_classes},). "
            "End the list with `{linear: classes}`."
        )
    return Architecture(tuple(input_shape), tuple(building.nodes))


def _is_wide(head: Any) -> bool:
    """Whether the last layer says itself that it has more outputs than there are classes."""
    return isinstance(head, Mapping) and head.get("linear") == "classes" and "outputs" in head


class _Building:
    """Layers one after another → the nodes of an architecture."""

    def __init__(self, input_shape: Shape, n_classes: int, activation: str) -> None:
        self.shape, self.previous = input_shape, "input"  # of what the next layer is given
        self.n_classes, self.activation = n_classes, activation
        self.nodes: list[Node] = []
        self.total = 0  # values of all weights
        self.counts: dict[str, int] = {}

    def chain(self, layers: Sequence[Any], inside: str) -> None:
        """The nodes of a list; `inside` is the place of its block, like "3.". Raises GridError."""
        for position, layer in enumerate(layers, 1):
            if (block := block_of(layer, f"{inside}{position}")) is not None:
                self._residual(block, f"{inside}{position}")
                continue
            op, attrs = parse_layer(layer, f"{inside}{position}", self.n_classes, self.activation)
            where = f"layer {inside}{position} ({layer if isinstance(layer, str) else op})"
            self._node(op, attrs, OPERATIONS[op].output_shape(attrs, self.shape, where), where)

    def _residual(self, block: Sequence[Any], place: str) -> None:
        before, shape = self.previous, self.shape
        self.chain(block, f"{place}.")
        if self.shape != shape:
            raise errors.GridError(
                f"Layer {place} ({BLOCK}): its layers make {self.shape} of {shape}, and what a block gives is added to what it "
                "is given. Keep the shape: as many channels or features, a stride of 1, and a padding of half an odd kernel."
            )
        self._node("add", {}, shape, f"layer {place} ({BLOCK})", before)

    def _node(self, op: str, attrs: Attributes, shape: Shape, where: str, *others: str) -> None:
        # Names count per kind, so that taking a dropout out renames nothing else.
        kind = "activation" if OPERATIONS[op].activation else op
        self.counts[kind] = self.counts.get(kind, 0) + 1
        node = Node(f"{kind}{self.counts[kind]}", op, (self.previous, *others), shape, attrs)
        self.total += _values(node, self.shape, where)
        self.nodes.append(node)
        self.previous, self.shape = node.name, shape


def block_of(layer: Any, position: str) -> Sequence[Any] | None:
    """The layers of a residual block; None of any other layer. Raises GridError."""
    if layer == BLOCK or (isinstance(layer, Mapping) and BLOCK in layer):
        block = None if isinstance(layer, str) else layer[BLOCK]
        if isinstance(layer, Mapping) and len(layer) > 1:
            other = next(str(k) for k in layer if k != BLOCK)
            raise errors.GridError(
                f"Layer {position} ({BLOCK}) has `{other}` beside its layers; it takes nothing else."
            )
        if not isinstance(block, Sequence) or isinstance(block, str) or not block:
            raise errors.GridError(
                f"Layer {position} ({BLOCK}) is {block!r}; it takes a list of layers, like "
                f"`{{{BLOCK}: [{{conv: 8, kernel: 3, padding: 1}}, activation]}}`."
            )
        if position.count(".") >= MOST_NESTED:
            raise errors.GridError(f"Layer {position} ({BLOCK}) is inside of {MOST_NESTED} others; that is the most.")
        return block
    return None


def unrolled(layers: Sequence[Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer of a list with its place, in forward order, those of blocks in their stead. Raises GridError."""
    for position, layer in enumerate(layers, 1):
        place = f"{inside}{position}"
        block = block_of(layer, place)
        if block is None:
            yield place, layer
        else:
            yield from unrolled(block, f"{place}.")


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


def parse_layer(layer: Any, position: int | str, n_classes: int, activation: str) -> tuple[str, Attributes]:
    """One item of the list → operation and attributes, every default filled in. Raises GridError.

    `activation` is the operation that layers of that name stand for.
    """
    # A node of several inputs is no single layer: it comes of a block.
    known = (*(name for name, o in OPERATIONS.items() if o.inputs == 1), BLOCK, "activation")
    if isinstance(layer, str):
        op, value, options = layer, None, {}
    elif isinstance(layer, Mapping) and layer:
        op = next((k for k in layer if k in known), str(next(iter(layer))))
        value, options = layer.get(op), {k: v for k, v in layer.items() if k != op}
    else:
        raise errors.GridError(f"Layer {position} is {layer!r}; a layer is a name or a mapping like `{{conv: 8}}`.")
    if op not in known:
        raise errors.GridError(errors.unknown("layer", op, known, f"architecture, layer {position}"))
    if op == "activation" and activation not in ACTIVATIONS:
        raise errors.GridError(errors.unknown("activation", activation, ACTIVATIONS))
    operation = OPERATIONS[activation if op == "activation" else op]
    for key in options:
        if key not in operation.options:
            raise errors.GridError(errors.unknown(f"option of `{op}`", key, operation.options, f"layer {position}"))
    return operation.name, operation.parse(Given(op, value, options, position, n_classes))
