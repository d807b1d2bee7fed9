"""Convolutions: `{conv: 8, kernel: 5, stride: 1, padding: 0}` → (channels, rows, columns)."""

from __future__ import annotations

from zoo_datasets.networks.operations.operation import (
    Attributes,
    Given,
    Layer,
    Module,
    Node,
    Operation,
    Shape,
    Tensor,
    Tensors,
    Torch,
    Value,
)
from zoo_datasets.networks.operations.pooling import windows


def _parse(given: Given) -> Attributes:
    return {
        "channels": given.whole("conv", 1),
        "kernel": given.whole("kernel", 1, 3),
        "stride": given.whole("stride", 1, 1),
        "padding": given.whole("padding", 0, 0),
    }


def _output_shape(attrs: Attributes, shape: Shape, where: str) -> Shape:
    return (attrs["channels"], *windows(attrs, shape, where)[1:])


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    n, kernel = node.shape[0], node.attrs["kernel"]
    weight = Tensor("weight", (n, width, kernel, kernel), (own, before, "", ""), reads=1)
    return [weight, Tensor("bias", (n,), (own,), "bias")]


def _module(t: Torch, node: Node, shape: Shape, dropout: float) -> Module:
    a = node.attrs
    return t.nn.Conv2d(shape[0], a["channels"], a["kernel"], a["stride"], a["padding"])


def _batched(t: Torch, node: Node) -> Layer:
    """One grouped convolution with a group per network; on a GPU our own."""
    stride, padding, kernel = (node.attrs[name] for name in ("stride", "padding", "kernel"))

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        if t.on_gpu(x, kernel):
            from zoo_datasets.networks.gpu import convolution

            return convolution.convolve(x, own["weight"], own["bias"], stride, padding)
        weight, x = own["weight"], t.grouped(x)  # (m, out, in, k, k)
        groups = x.shape[1] // weight.shape[2]  # 1 where all networks see the same images
        return t.F.conv2d(x, weight.flatten(0, 1), own["bias"].flatten(), stride, padding, groups=groups)

    return layer


OPERATIONS = (
    Operation(
        name="conv", options=("kernel", "stride", "padding"), parse=_parse, output_shape=_output_shape,
        tensors=_tensors, units=True, module=_module, batched=_batched, homogeneous=True, odd=True, kernel=0,
    ),
)  # fmt: skip
