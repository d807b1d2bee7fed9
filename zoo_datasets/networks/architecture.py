"""Layers → `Architecture` → the layout of one flat weight vector.

An `Architecture` is a graph of nodes with the shape of every node's output; it holds no
weights. Its layout says where each tensor lies in the flat float32 vector that a zoo
stores: parameters and buffers in forward order, with the permutation groups that tie the
dimensions of neighbouring tensors together. `modules.py` makes an `nn.Module` of it.

An `External` is what is known of an imported network: the layout alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from zoo_datasets import errors
from zoo_datasets.core import streams
from zoo_datasets.networks.layout import Entry, Layout
from zoo_datasets.networks.operations.operation import Node, Shape, Tensor, units_of
from zoo_datasets.networks.operations.registry import operation


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Nodes in forward order, and the shape of the network's input."""

    input_shape: Shape
    nodes: tuple[Node, ...]

    def built(self) -> Architecture:
        """Itself: its layers are known."""
        return self

    @functools.cached_property
    def tensors(self) -> dict[str, list[Tensor]]:
        """Node → what is known of its tensors, in layout order. Raises FormatVersionError for an unknown layer."""
        return {node.name: tensors for node, tensors in _tensors(self.input_shape, self.nodes)}

    @functools.cached_property
    def layout(self) -> Layout:
        """Where those tensors lie in the vector."""
        return Layout.of(
            (f"{node}.{t.name}", t.shape, "buffer" if t.buffer else "parameter", t.groups)
            for node, tensors in self.tensors.items()
            for t in tensors
        )

    def placed(self, node: str) -> Iterator[tuple[Entry, Tensor]]:
        """The tensors of one node, each with its place."""
        return zip(self.layout.of_node(node), self.tensors[node], strict=True)

    @property
    def n_params(self) -> int:
        """Length of the flat vector, buffers included."""
        return self.layout.n_params

    @property
    def layout_id(self) -> str:
        return self.layout.id

    @property
    def n_outputs(self) -> int:
        """How many numbers it gives: at each step, where it gives a sequence."""
        return self.nodes[-1].shape[-1]

    @property
    def n_logits(self) -> int:
        """How many numbers it gives in all."""
        return math.prod(self.nodes[-1].shape)

    @functools.cached_property
    def input_shapes(self) -> dict[str, Shape]:
        """Node → the shape of its (first) input."""
        shapes = {"input": self.input_shape} | {n.name: n.shape for n in self.nodes}
        return {n.name: shapes[n.inputs[0]] for n in self.nodes}

    @functools.cached_property
    def step_tensors(self) -> tuple[str, ...]:
        """Tensors of its state dict that are not weights but the step itself, and lie in no vector."""
        counted = ((node.name, operation(node.op).step_tensor) for node in self.nodes)
        return tuple(f"{node}.{counter}" for node, counter in counted if counter is not None)

    @functools.cached_property
    def id(self) -> str:
        """16 hex digits of the whole graph, activations included."""
        return streams.digest(self.to_json())[:16]

    def to_json(self) -> dict[str, Any]:
        """What the manifest keeps, beside the id of the layout; `from_json` gives it back."""
        return {
            "kind": "layers",
            "input_shape": list(self.input_shape),
            "nodes": [
                {"name": n.name, "op": n.op, "inputs": list(n.inputs), "shape": list(n.shape), "attrs": dict(n.attrs)}
                for n in self.nodes
            ],
        }


@dataclasses.dataclass(frozen=True)
class External:
    """An imported network: its weights can be read, viewed, permuted and compared, but nothing runs it."""

    layout: Layout
    whose: str = dataclasses.field(default="", compare=False)  # "model m1 of weightzoo/mnist"

    def built(self) -> NoReturn:
        """Raises NoNetworkError: whoever needs layers asks for them here."""
        whose = f"{self.whose[0].upper()}{self.whose[1:]}" if self.whose else "This architecture"
        raise errors.NoNetworkError(
            f"{whose} is of kind 'external', a layout without layers: nothing can run, retrain, rescale or draw it as "
            "a graph; its weights, statistics, tokens, windows and permutations need the layout alone."
        )

    @property
    def n_params(self) -> int:
        return self.layout.n_params

    @property
    def layout_id(self) -> str:
        return self.layout.id

    def to_json(self) -> dict[str, Any]:
        """What the manifest keeps, beside the id of the layout; `from_json` gives it back."""
        return {"kind": "external"}


def from_json(value: Mapping[str, Any], layout: Layout, whose: str = "") -> Architecture | External:
    """The architecture that a manifest keeps with that layout; `whose` it is stands in messages.

    Raises FormatVersionError where this library cannot build it, IntegrityError where it has another layout.
    """
    kind = value.get("kind")
    if kind == "external":
        return External(layout, whose)
    if kind != "layers":
        raise errors.FormatVersionError(
            f"Architecture of kind {kind!r}: this version builds 'layers' and reads 'external'. Upgrade weightzoo."
        )
    nodes = tuple(
        Node(n["name"], n["op"], tuple(n["inputs"]), tuple(n["shape"]), dict(n["attrs"])) for n in value["nodes"]
    )
    architecture = Architecture(tuple(value["input_shape"]), nodes)
    _check(architecture, whose or "a model")
    if architecture.layout_id != layout.id:
        raise errors.IntegrityError(
            f"The architecture of {whose or 'a model'} has layout {architecture.layout_id}, the manifest says "
            f"{layout.id}; the zoo is damaged."
        )
    return architecture


# Of a shape's side and of all values of one layer: more is no network that anything here could run.
MOST_SIDE, MOST_VALUES = 2**24, 2**28
LEAST = {"kernel": 1, "stride": 1, "channels": 1, "features": 1, "padding": 0}


def _check(architecture: Architecture, whose: str) -> None:
    """Raises IntegrityError unless every shape follows from the layer before: whatever runs it believes the shapes."""
    shapes = {"input": architecture.input_shape}
    for place, node in enumerate(architecture.nodes, 1):
        where = f"layer {place} ({node.op})"
        problem = _problem(node, shapes, where)
        if problem:
            raise errors.IntegrityError(f"The architecture of {whose} contradicts itself: {where} {problem}.")
        shapes[node.name] = node.shape


def _problem(node: Node, shapes: Mapping[str, Shape], where: str) -> str | None:
    """What is wrong with a node of somebody's manifest; None where nothing is. Raises FormatVersionError."""
    made = operation(node.op)
    if (
        not isinstance(node.name, str)
        or node.name in shapes
        or len(node.inputs) != made.inputs
        or any(name not in shapes for name in node.inputs)
    ):
        return f"is called {node.name!r} and takes {list(node.inputs)!r}"
    for shape in (*(shapes[name] for name in node.inputs), node.shape):
        if not shape or any(type(n) is not int or not 1 <= n <= MOST_SIDE for n in shape):
            return f"has shape {list(shape)!r}"
        if math.prod(shape) > MOST_VALUES:
            return f"has {math.prod(shape):,} values"
    for name, value in node.attrs.items():
        if name == "rate":
            good = value is None or (isinstance(value, (int, float)) and 0 <= value < 1)
        else:
            good = name in LEAST and type(value) is int and LEAST[name] <= value <= MOST_SIDE
        if not good:
            return f"has `{name}` {value!r}"
    try:
        expected = made.output_shape(node.attrs, shapes[node.inputs[0]], where)
    except errors.GridError as error:
        return f"does not fit: {error}".removesuffix(".")
    except KeyError as error:
        return f"lacks {error}"
    first, *others = (shapes[name] for name in node.inputs)
    if any(other != first for other in others):
        return f"adds values of shape {' and '.join(str(list(s)) for s in (first, *others))}"
    return None if expected == node.shape else f"has shape {list(node.shape)}, and {list(expected)} follows"


def _tensors(input_shape: Shape, nodes: tuple[Node, ...]) -> Iterator[tuple[Node, list[Tensor]]]:
    shapes = {"input": input_shape} | {n.name: n.shape for n in nodes}
    groups = _groups(input_shape, nodes)
    for node in nodes:
        source = node.inputs[0]
        yield node, operation(node.op).tensors(node, units_of(shapes[source]), groups[node.name], groups[source])


def _groups(input_shape: Shape, nodes: tuple[Node, ...]) -> dict[str, str]:
    """Node → the group of units that the channels (or features) of its output run over.

    The input's and the last layer's units are fixed by the data and by the classes: their group is "". Values that
    are added have one group, that of the layer that came first.
    """
    last = max((i for i, n in enumerate(nodes) if operation(n.op).units), default=-1)
    units = {"input": units_of(input_shape)}  # of each group, as its first layer has them
    joined = {"input": "input"}  # group → the group that it is part of, or itself

    def root(group: str) -> str:
        while joined[group] != group:
            group = joined[group]
        return group

    own, fixed = {"input": "input"}, {"input"}
    for i, node in enumerate(nodes):
        own[node.name] = own[node.inputs[0]]
        if operation(node.op).units:
            own[node.name] = joined[node.name] = node.name
            units[node.name] = units_of(node.shape)
            fixed |= {node.name} if i == last else set()
        for other in node.inputs[1:]:
            # In the order of the nodes, which is that of `units`.
            first, second = sorted((root(own[node.name]), root(own[other])), key=list(units).index)
            joined[second] = first
            # A unit of the first is a block of neighbors of the second: channels that were flattened. Else none may move.
            if first in fixed or second in fixed or units[second] % units[first]:
                fixed.add(first)
    return {name: "" if root(group) in fixed else root(group) for name, group in own.items()}
