"""Weights of m networks of one architecture and images → logits (m, B, C), in one pass. Needs torch.

Both who trains many models at once and who evaluates them call this. Nothing mixes networks: no
reduction runs over them, and no number of one is multiplied into another's. Linear layers are one
batched product, convolutions one grouped convolution with a group per network; a layer without a
batched form goes through `torch.func.vmap`. `operations/values.py` says how values lie in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations import values as forms
from zoo_datasets.networks.operations.operation import Layer, Node, Shape, Tensors, units_of
from zoo_datasets.networks.operations.registry import operation
from zoo_datasets.networks.operations.residual import SKIP

with libraries.needed():
    import torch
    from torch.func import functional_call, vmap


class Batched:
    """The layers of an architecture, each with the names of its tensors."""

    def __init__(
        self, architecture: Architecture, device: torch.device, instead: Mapping[str, Layer] | None = None
    ) -> None:
        """`instead` are layers, by operation, that take the place of its own."""
        instead = instead or {}
        self.nodes = architecture.nodes
        self._sequence = len(architecture.input_shape) == 2
        self.largest = max((math.prod(n.shape) for n in self.nodes), default=1)  # values of the largest layer
        self._layers: list[tuple[Node, dict[str, str], Layer]] = []
        for node in self.nodes:
            own = {e.name.rpartition(".")[2]: e.name for e in architecture.layout.of_node(node.name)}
            layer = instead.get(node.op) or _layer(node, architecture.input_shapes[node.name], device)
            self._layers.append((node, own, layer))

    def __call__(
        self, tensors: Tensors, values: dict[str, torch.Tensor], masks: Tensors | None = None, first: int = 0
    ) -> torch.Tensor:
        """Logits (m, B, C), from tensors (m, …) by the names of the layout, and what is known of the values.

        `values` hold the input (m or 1, B, *shape), and what the nodes before the `first` to run gave.
        `masks` of dropout nodes mean training, and running statistics change in place; None is evaluation.
        """
        m = len(next(iter(tensors.values())))
        return self.values(tensors, values, masks, first)[self.nodes[-1].name].expand(m, -1, -1)

    def values(
        self, tensors: Tensors, values: dict[str, torch.Tensor], masks: Tensors | None = None, first: int = 0
    ) -> dict[str, torch.Tensor]:
        """What every node gives, each in one of the forms of `operations/values.py`."""
        values, training = dict(values), masks is not None
        if self._sequence and "input" in values:
            values["input"] = values["input"].flatten(2)  # a sequence lies flat, as those between layers do
        for node, names, layer in self._layers[first:]:
            own = {leaf: tensors[name] for leaf, name in names.items()}
            if masks is not None and node.name in masks:
                own["mask"] = masks[node.name]
            if len(node.inputs) > 1:
                own[SKIP] = values[node.inputs[1]]
            values[node.name] = layer(own, values[node.inputs[0]], training)
        return values


def in_training(architecture: Architecture) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The function vector [P], batch (b, …) → logits (b, C), normalized by the batch's own statistics; nothing is dropped."""
    network = Batched(architecture, torch.device("cpu"))

    @torch.inference_mode()
    def shown(vector: np.ndarray, images: np.ndarray) -> np.ndarray:
        named = architecture.layout.unflatten(np.array(vector[None], np.float32))
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in named.items()}
        logits: np.ndarray = network(tensors, {"input": torch.from_numpy(images)[None]}, {})[0].numpy()
        return logits

    return shown


def _layer(node: Node, shape: Shape, device: torch.device) -> Layer:
    made = operation(node.op)
    return _by_vmap(node, shape, device) if made.batched is None else made.batched(forms, node)


def _by_vmap(node: Node, shape: Shape, device: torch.device) -> Layer:
    """A layer given as the module of one network; `shape` is of its input."""
    module = operation(node.op).module(forms, node, shape, 0.0).to(device)

    def layer(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
        module.train(training)
        # Modules know nothing of grouped images, and of sequences that lie flat.
        given = [
            v.unflatten(2, shape) if len(shape) == 2 else forms.stacked(v, units_of(shape))
            for v in (x, *(own[name] for name in own if name == SKIP))
        ]
        tensors = {name: tensor for name, tensor in own.items() if name != SKIP}
        m = max(map(len, (*tensors.values(), *given)))
        given = [v.expand(m, *v.shape[1:]) for v in given]
        if tensors:
            x = vmap(lambda tensors, *one: functional_call(module, tensors, one))(tensors, *given)
        else:
            x = vmap(module)(*given)
        return x.flatten(2) if len(node.shape) == 2 else x

    return layer
