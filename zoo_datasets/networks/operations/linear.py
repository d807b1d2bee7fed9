"""Linear layers: `{linear: 20}` or `{linear: classes}`, (features,) → (features,)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo_datasets.networks.operations.operation import Given, Node, Operation, Shape, Tensor, misfit

if TYPE_CHECKING:
    import torch

    from zoo_datasets.networks.operations.values import Layer, Tensors


def _parse(given: Given) -> dict[str, int]:
    return {"features": given.features()}


def _output_shape(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    if len(shape) != 1:
        remedy = "`last_step`" if len(shape) == 2 else "`flatten` or `global_avg_pool`"
        misfit(where, f"needs a flat input (features,), but the layer before gives {shape}. Put {remedy} before it.")
    return (attrs["features"],)


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    # After `flatten` one unit of the conv is a block of columns; views divide by the group's size.
    n = node.shape[0]
    return [Tensor("weight", (n, width), (own, before), reads=1), Tensor("bias", (n,), (own,), "bias")]


def _module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from torch import nn

    return nn.Linear(shape[0], node.attrs["features"])


def _batched(node: Node) -> Layer:
    """One batched product."""
    import torch
    from torch.nn.functional import linear

    def layer(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
        weight, bias = own["weight"], own["bias"]  # (m, out, in), (m, out)
        if len(x) < len(weight):  # the same input for all: one wide product
            wide = linear(x[0], weight.flatten(0, 1), bias.flatten())  # (B, m·out)
            return wide.unflatten(1, bias.shape).transpose(0, 1)
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    return layer


OPERATIONS = (
    Operation(
        name="linear", parse=_parse, output_shape=_output_shape, tensors=_tensors, units=True,
        module=_module, batched=_batched, homogeneous=True, odd=True, kernel=4,
    ),
)  # fmt: skip
