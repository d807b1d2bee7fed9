"""Dropout: `dropout` at the model's own rate, or `{dropout: 0.5}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo_datasets import errors
from zoo_datasets.networks.operations.operation import Attributes, Given, Node, Operation, Shape

if TYPE_CHECKING:
    import torch

    from zoo_datasets.networks.operations.values import Layer, Tensors


def _rate(given: Given) -> Attributes:
    """`rate`: None means the model's own (a per-model setting)."""
    value = given.value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 <= value < 1):
        raise errors.GridError(f"Layer {given.position} (dropout): the rate is {value!r}; it must be in [0, 1).")
    return {"rate": None if value is None else float(value)}


def _dropout_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from torch import nn

    return nn.Dropout(dropout if node.attrs["rate"] is None else node.attrs["rate"])


def _dropout_batched(node: Node) -> Layer:
    """Draws nothing: whoever trains gives `own["mask"]`, (m, B, *shape), where something is dropped."""
    from zoo_datasets.networks.operations.values import grouped

    def layer(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
        mask = own.get("mask")
        if mask is None:
            return x
        return x * (grouped(mask) if x.dim() == 4 else mask.flatten(2) if x.dim() == 3 else mask)

    return layer


OPERATIONS = (
    Operation(
        name="dropout", parse=_rate, module=_dropout_module, batched=_dropout_batched,
        homogeneous=True, odd=True, kernel=6,
    ),
)  # fmt: skip
