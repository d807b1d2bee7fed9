"""Layers that compute nothing: `flatten`, `rows`, `tiles` and `last_step` give values another shape."""

from __future__ import annotations

import functools
import math

from zoo_datasets.networks.operations.operation import (
    Attributes,
    Layer,
    Node,
    Operation,
    Shape,
    Tensors,
    Torch,
    Value,
    misfit,
    no_sequence,
    sequence,
)

# ── flatten: (channels, rows, columns) → (features,) ──────────────────────────────────


def _flat(attrs: Attributes, shape: Shape, where: str) -> Shape:
    return (math.prod(no_sequence(attrs, shape, where)),)


def _flatten(t: Torch, node: Node) -> Layer:
    def layer(own: Tensors, x: Value, training: bool) -> Value:
        if x.dim() == 4:  # (B, m·C, H, W) → (B, m, C·H·W)
            return x.reshape(len(x), -1, *node.shape).transpose(0, 1)
        return x.flatten(2)

    return layer


# ── rows: an image → the sequence of its rows ─────────────────────────────────────────


def _rows_shape(attrs: Attributes, shape: Shape, where: str) -> Shape:
    if len(shape) != 3:
        misfit(where, f"reads (channels, rows, columns) as a sequence of rows, but the layer before gives {shape}.")
    return (shape[1], shape[0] * shape[2])


def _rows_of_one(own: Tensors, x: Value, training: bool) -> Value:
    return x.transpose(1, 2).flatten(2)  # (B, C, H, W) → (B, H, C·W)


def _rows(t: Torch, node: Node) -> Layer:
    def layer(own: Tensors, x: Value, training: bool) -> Value:
        if t.on_gpu(x):
            return x.transpose(2, 3).flatten(2)  # (m, B, H, C, W), H the steps and C·W the features
        x = t.grouped(x)  # (B, m·C, H, W)
        return x.unflatten(1, (-1, node.shape[1] // x.shape[3])).permute(1, 0, 3, 2, 4).flatten(2)

    return layer


# ── tiles: an image → the sequence of its square tiles, row after row ──────────────────


def _tiles_shape(attrs: Attributes, shape: Shape, where: str) -> Shape:
    side = attrs["kernel"]
    if len(shape) != 3 or shape[1] % side or shape[2] % side:
        misfit(
            where, f"cuts (channels, rows, columns) into tiles of {side}×{side}, of whole ones alone, but the layer before "
            f"gives {shape}."
        )  # fmt: skip
    return (shape[1] // side * (shape[2] // side), shape[0] * side * side)


def _tiles_of_one(side: int, own: Tensors, x: Value, training: bool) -> Value:
    x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, C, H/s, s, W/s, s)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _tiles(t: Torch, node: Node) -> Layer:
    side = node.attrs["kernel"]

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        if x.dim() == 4:  # (B, m·C, H, W)
            x = x.unflatten(1, (-1, node.shape[1] // side**2)).transpose(0, 1)
        x = x.unflatten(4, (-1, side)).unflatten(3, (-1, side))  # (m, B, C, H/s, s, W/s, s)
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(2)

    return layer


# ── last_step: a sequence → its last step ─────────────────────────────────────────────


def _last_of_one(own: Tensors, x: Value, training: bool) -> Value:
    return x[:, -1]  # (B, T, F) → (B, F)


def _last(t: Torch, node: Node) -> Layer:
    features = node.shape[0]
    return lambda own, x, training: x[:, :, -features:]


OPERATIONS = (
    Operation(
        name="flatten", output_shape=_flat, module=lambda t, node, shape, dropout: t.nn.Flatten(), batched=_flatten,
        homogeneous=True, odd=True, kernel=7,
    ),
    Operation(
        name="rows", output_shape=_rows_shape, batched=_rows, homogeneous=True, odd=True, kernel=17,
        module=lambda t, node, shape, dropout: t.Function("Rows", _rows_of_one),
    ),
    Operation(
        name="tiles", parse=lambda given: {"kernel": given.whole("tiles", 1)}, output_shape=_tiles_shape, batched=_tiles,
        homogeneous=True, odd=True, kernel=18,
        module=lambda t, node, shape, dropout: t.Function("Tiles", functools.partial(_tiles_of_one, node.attrs["kernel"])),
    ),
    Operation(
        name="last_step", output_shape=lambda attrs, shape, where: (sequence(shape, where)[1],), batched=_last,
        module=lambda t, node, shape, dropout: t.Function("LastStep", _last_of_one), homogeneous=True, odd=True, kernel=19,
    ),
)  # fmt: skip
