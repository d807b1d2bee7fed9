"""Pooling: `{max_pool: 2, stride: 2}`, `{avg_pool: 2}`, `global_avg_pool` of (channels, rows, columns)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo_datasets.networks.operations.operation import Attributes, Given, Node, Operation, Shape, misfit

if TYPE_CHECKING:
    import torch

    from zoo_datasets.networks.operations.values import Layer, Tensors


def _parse(given: Given) -> Attributes:
    size = given.whole(given.op, 1)
    return {"kernel": size, "stride": given.whole("stride", 1, size)}


def _image(shape: Shape, where: str) -> Shape:
    if len(shape) != 3:
        misfit(where, f"needs (channels, rows, columns), but the layer before gives {shape}.")
    return shape


def windows(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    """(channels, rows, columns) of the places where a window fits. Raises GridError."""
    pad = attrs.get("padding", 0)
    rows, columns = ((n + 2 * pad - attrs["kernel"]) // attrs["stride"] + 1 for n in _image(shape, where)[1:])
    if min(n + 2 * pad for n in shape[1:]) < attrs["kernel"]:
        misfit(
            f"{where}:", f"its window {attrs['kernel']}×{attrs['kernel']} does not fit into the input of shape {shape} "
            f"with padding {pad}. Use a smaller kernel, or padding."
        )  # fmt: skip
    return (shape[0], rows, columns)


def _channels(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    return (_image(shape, where)[0],)


def _max_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from torch import nn

    return nn.MaxPool2d(node.attrs["kernel"], node.attrs["stride"])


def _avg_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from torch import nn

    return nn.AvgPool2d(node.attrs["kernel"], node.attrs["stride"])


def _mean(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return x.mean((2, 3))  # (B, C, H, W) → (B, C)


def _global_module(node: Node, shape: Shape, dropout: float) -> torch.nn.Module:
    from zoo_datasets.networks.operations.values import Function

    return Function("GlobalAveragePool", _mean)


def _pooled(name: str) -> Callable[[Node], Layer]:
    def batched(node: Node) -> Layer:
        import torch.nn.functional as F

        from zoo_datasets.networks.operations.values import grouped

        pool, size, stride = getattr(F, name), node.attrs["kernel"], node.attrs["stride"]
        return lambda own, x, training: pool(grouped(x), size, stride)

    return batched


def _global_batched(node: Node) -> Layer:
    from zoo_datasets.networks.operations.values import grouped

    channels = node.shape[0]
    return lambda own, x, training: grouped(x).mean((2, 3)).unflatten(1, (-1, channels)).transpose(0, 1)


OPERATIONS = (
    Operation(
        name="max_pool", options=("stride",), parse=_parse, output_shape=windows,
        module=_max_module, batched=_pooled("max_pool2d"), homogeneous=True, kernel=1,
    ),
    Operation(
        name="avg_pool", options=("stride",), parse=_parse, output_shape=windows,
        module=_avg_module, batched=_pooled("avg_pool2d"), homogeneous=True, odd=True, kernel=2,
    ),
    Operation(
        name="global_avg_pool", output_shape=_channels,
        module=_global_module, batched=_global_batched, homogeneous=True, odd=True, kernel=3,
    ),
)  # fmt: skip
