"""Activations, each by its own name; what `activation` stands for is one of them."""

from __future__ import annotations

from zoo_datasets.networks.operations.operation import (
    Layer,
    Node,
    Operation,
    Torch,
    no_sequence,
)

LEAKY_RELU_SLOPE = 0.01


def _activation(module: str, name: str, kernel: int, homogeneous: bool = False, odd: bool = False) -> Operation:
    """An elementwise function, by its names in `torch.nn` and in `torch.nn.functional`."""
    return Operation(
        name=name, activation=True, homogeneous=homogeneous, odd=odd, kernel=kernel,
        module=lambda t, node, shape, dropout: getattr(t.nn, module)(),
        batched=lambda t, node: t.elementwise(getattr(t.F, name)),
    )  # fmt: skip


def _softmax(t: Torch, node: Node) -> Layer:
    """Over the channels of (m, B, …), or of each network in (B, m·C, H, W)."""
    channels = node.shape[0]
    return lambda own, x, training: (
        x.softmax(2) if x.dim() != 4 else x.unflatten(1, (-1, channels)).softmax(2).flatten(1, 2)
    )


OPERATIONS = (
    _activation("ReLU", "relu", 8, homogeneous=True),
    _activation("Tanh", "tanh", 9, odd=True),
    _activation("Sigmoid", "sigmoid", 10),
    _activation("GELU", "gelu", 11),
    _activation("ELU", "elu", 12),
    _activation("SiLU", "silu", 13),
    _activation("LeakyReLU", "leaky_relu", 14, homogeneous=True),
    Operation(
        name="softmax", activation=True, output_shape=no_sequence, batched=_softmax, kernel=15,
        module=lambda t, node, shape, dropout: t.nn.Softmax(dim=1),  # over channels or features
    ),
)  # fmt: skip
