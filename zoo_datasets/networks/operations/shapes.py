"""Layers that compute nothing: `flatten`, `rows` and `last_step` give values another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo_datasets.networks.operations.operation import Node, Operation, Shape, misfit, no_sequence

if TYPE_CHECKING:
    import torch

    from zoo_datasets.networks.operations.values import Layer, Tensors


# ── flatten: (channels, rows, columns) → (features,) ──────────────────────────────────


def _flat(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    return (math.prod(no_sequence(attrs, shape, where)),)


def _flatten_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from torch import nn

    return nn.Flatten()


def _flatten_batched(node: Node) -> Layer:
    def layer(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
        if x.dim() == 4:  # (B, m·C, H, W) → (B, m, C·H·W)
            return x.reshape(len(x), -1, *node.shape).transpose(0, 1)
        return x.flatten(2)

    return layer


# ── rows: an image → the sequence of its rows ─────────────────────────────────────────


def _rows_shape(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    if len(shape) != 3:
        misfit(
            where, f"reads (channels, rows, columns) as a sequence of rows, but the layer before gives {shape}."
        )  # fmt: skip
    return (shape[1], shape[0] * shape[2])


def _rows(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, C, H, W) → (B, H, C·W)


def _rows_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from zoo_datasets.networks.operations.values import Function

    return Function("Rows", _rows)


def _rows_batched(node: Node) -> Layer:
    from zoo_datasets.networks.operations.values import grouped

    def layer(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
        x = grouped(x)  # (B, m·C, H, W), H the steps and C·W the features
        return x.unflatten(1, (-1, node.shape[1] // x.shape[3])).permute(1, 0, 3, 2, 4).flatten(2)

    return layer


# ── last_step: a sequence → its last step ─────────────────────────────────────────────


def sequence(shape: Shape, where: str) -> Shape:
    """The shape, of a sequence. Raises GridError."""
    if len(shape) != 2:
        misfit(
            where, f"needs a sequence (steps, features), but the layer before gives {shape}. "
            "`rows` makes one of an image, a step per row."
        )  # fmt: skip
    return shape


def _last_shape(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    return (sequence(shape, where)[1],)


def _last(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return x[:, -1]  # (B, T, F) → (B, F)


def _last_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from zoo_datasets.networks.operations.values import Function

    return Function("LastStep", _last)


def _last_batched(node: Node) -> Layer:
    features = node.shape[0]
    return lambda own, x, training: x[:, :, -features:]


OPERATIONS = (
    Operation(
        name="flatten", output_shape=_flat, module=_flatten_module, batched=_flatten_batched,
        homogeneous=True, odd=True, kernel=7,
    ),
    Operation(
        name="rows", output_shape=_rows_shape, module=_rows_module, batched=_rows_batched, homogeneous=True, odd=True,
    ),
    Operation(
        name="last_step", output_shape=_last_shape, module=_last_module, batched=_last_batched,
        homogeneous=True, odd=True,
    ),
)  # fmt: skip
