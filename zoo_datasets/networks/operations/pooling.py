"""Pooling: `{max_pool: 2, stride: 2}`, `{avg_pool: 2}`, `global_avg_pool` of (channels, rows, columns)."""

from __future__ import annotations

from zoo_datasets.networks.operations.operation import (
    Attributes,
    Given,
    Layer,
    Node,
    Operation,
    Shape,
    Tensors,
    Torch,
    Value,
    misfit,
)


def _parse(given: Given) -> Attributes:
    size = given.whole(given.op, 1)
    return {"kernel": size, "stride": given.whole("stride", 1, size)}


def _image(shape: Shape, where: str) -> Shape:
    if len(shape) != 3:
        misfit(where, f"needs (channels, rows, columns), but the layer before gives {shape}.")
    return shape


def windows(attrs: Attributes, shape: Shape, where: str) -> Shape:
    """(channels, rows, columns) of the places where a window fits. Raises GridError."""
    pad = attrs.get("padding", 0)
    rows, columns = ((n + 2 * pad - attrs["kernel"]) // attrs["stride"] + 1 for n in _image(shape, where)[1:])
    if min(n + 2 * pad for n in shape[1:]) < attrs["kernel"]:
        misfit(
            f"{where}:", f"its window {attrs['kernel']}×{attrs['kernel']} does not fit into the input of shape {shape} "
            f"with padding {pad}. Use a smaller kernel, or padding."
        )  # fmt: skip
    return (shape[0], rows, columns)


def _pool(name: str, module: str, function: str, kernel: int, odd: bool) -> Operation:
    """A pooling by windows, by its names in `torch.nn` and in `torch.nn.functional`."""

    def batched(t: Torch, node: Node) -> Layer:
        pool, size, stride = getattr(t.F, function), node.attrs["kernel"], node.attrs["stride"]

        def layer(own: Tensors, x: Value, training: bool) -> Value:
            if not t.on_gpu(x, size):
                return pool(t.grouped(x), size, stride)
            from zoo_datasets.networks.gpu import convolution

            return convolution.pool(x, size, stride, largest=name == "max_pool")

        return layer

    return Operation(
        name=name, options=("stride",), parse=_parse, output_shape=windows, batched=batched,
        module=lambda t, node, shape, dropout: getattr(t.nn, module)(node.attrs["kernel"], node.attrs["stride"]),
        homogeneous=True, odd=odd, kernel=kernel,
    )  # fmt: skip


def _mean(own: Tensors, x: Value, training: bool) -> Value:
    return x.mean((2, 3))  # (B, C, H, W) → (B, C)


def _means(t: Torch, node: Node) -> Layer:
    channels = node.shape[0]

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        if t.on_gpu(x):
            return x.mean((3, 4))
        return t.grouped(x).mean((2, 3)).unflatten(1, (-1, channels)).transpose(0, 1)

    return layer


OPERATIONS = (
    _pool("max_pool", "MaxPool2d", "max_pool2d", 1, odd=False),
    _pool("avg_pool", "AvgPool2d", "avg_pool2d", 2, odd=True),
    Operation(
        name="global_avg_pool", output_shape=lambda attrs, shape, where: (_image(shape, where)[0],),
        module=lambda t, node, shape, dropout: t.Function("GlobalAveragePool", _mean), batched=_means,
        homogeneous=True, odd=True, kernel=3,
    ),
)  # fmt: skip
