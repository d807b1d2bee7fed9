"""Activations, each by its own name; what `activation` stands for is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo_datasets.networks.operations.operation import Node, Operation, Shape, no_sequence, same

if TYPE_CHECKING:
    import torch

    from zoo_datasets.networks.operations.values import Layer

LEAKY_RELU_SLOPE = 0.01


def _activation(
    name: str, module: str, function: str, kernel: int, homogeneous: bool = False, odd: bool = False
) -> Operation:
    """An elementwise function, by its names in `torch.nn` and in `torch.nn.functional`."""

    def made(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
        from torch import nn

        return getattr(nn, module)()  # type: ignore[no-any-return]

    def batched(node: Node) -> Layer:
        import torch.nn.functional as F

        from zoo_datasets.networks.operations.values import elementwise

        return elementwise(getattr(F, function))

    return Operation(
        name=name, activation=True, module=made, batched=batched, output_shape=same,
        homogeneous=homogeneous, odd=odd, kernel=kernel,
    )  # fmt: skip


def _softmax_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from torch import nn

    return nn.Softmax(dim=1)


def _softmax_batched(node: Node) -> Layer:
    """Over the channels of (m, B, …), or of each network in (B, m·C, H, W)."""
    channels = node.shape[0]
    return lambda own, x, training: (
        x.softmax(2) if x.dim() != 4 else x.unflatten(1, (-1, channels)).softmax(2).flatten(1, 2)
    )


OPERATIONS = (
    _activation("relu", "ReLU", "relu", 8, homogeneous=True),
    _activation("tanh", "Tanh", "tanh", 9, odd=True),
    _activation("sigmoid", "Sigmoid", "sigmoid", 10),
    _activation("gelu", "GELU", "gelu", 11),
    _activation("elu", "ELU", "elu", 12),
    _activation("silu", "SiLU", "silu", 13),
    _activation("leaky_relu", "LeakyReLU", "leaky_relu", 14, homogeneous=True),
    Operation(
        name="softmax", activation=True, output_shape=no_sequence,  # over channels or features
        module=_softmax_module, batched=_softmax_batched, kernel=15,
    ),
)  # fmt: skip
