"""Dropout: `dropout` at the model's own rate, or `{dropout: 0.5}`."""

from __future__ import annotations

from zoo_datasets import errors
from zoo_datasets.networks.operations.operation import (
    Attributes,
    Given,
    Layer,
    Node,
    Operation,
    Tensors,
    Torch,
    Value,
)


def _parse(given: Given) -> Attributes:
    """`rate`: None means the model's own (a per-model setting)."""
    value = given.value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 <= value < 1):
        raise errors.GridError(f"Layer {given.position} (dropout): the rate is {value!r}; it must be in [0, 1).")
    return {"rate": None if value is None else float(value)}


def _batched(t: Torch, node: Node) -> Layer:
    """Draws nothing: whoever trains gives `own["mask"]`, (m, B, *shape), where something is dropped."""

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        mask = own.get("mask")
        if mask is None:
            return x
        return x * (t.grouped(mask) if x.dim() == 4 else mask.flatten(2) if x.dim() == 3 else mask)

    return layer


OPERATIONS = (
    Operation(
        name="dropout", parse=_parse, batched=_batched, homogeneous=True, odd=True, kernel=6,
        module=lambda t, node, shape, dropout: t.nn.Dropout(
            dropout if node.attrs["rate"] is None else node.attrs["rate"]
        ),
    ),
)  # fmt: skip
