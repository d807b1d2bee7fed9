"""Normalization: `batch_norm`, over channels or features; its statistics are buffers in the vector."""

from __future__ import annotations

from zoo_datasets.networks.operations.operation import (
    Layer,
    Module,
    Node,
    Operation,
    Shape,
    Tensor,
    Tensors,
    Torch,
    Value,
    no_sequence,
)

BATCH_NORM_MOMENTUM = 0.1  # PyTorch's: new = 0.9 old + 0.1 batch
BATCH_NORM_EPS = 1e-5


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    shape, groups = (width,), (own,)
    return [
        Tensor("weight", shape, groups, "scale", reads=0),
        Tensor("bias", shape, groups, "zeros"),
        Tensor("running_mean", shape, groups, "zeros", buffer=True, follows=True),
        Tensor("running_var", shape, groups, "ones", buffer=True),
    ]


def _module(t: Torch, node: Node, shape: Shape, dropout: float) -> Module:
    kind = t.nn.BatchNorm2d if len(shape) == 3 else t.nn.BatchNorm1d
    return kind(shape[0], eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)


def _batched(t: Torch, node: Node) -> Layer:
    """One normalization of m·C channels; in training it writes the running statistics."""
    image = len(node.shape) == 3

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        m, on_gpu = len(own["weight"]), t.on_gpu(x)
        mean, variance = own["running_mean"].reshape(-1), own["running_var"].reshape(-1)
        if training:
            mean, variance = mean.clone(), variance.clone()  # which PyTorch changes
        if on_gpu:
            x = x.expand(m, *x.shape[1:]).permute(0, 2, 3, 4, 1)  # (m, C, H, W, B), as it lies
            columns = x.reshape(1, len(mean), -1)
        elif image:
            columns = t.grouped(x)  # (B, m·C, H, W)
            columns = columns if columns.shape[1] == len(mean) else columns.repeat(1, m, 1, 1)
        else:
            columns = x.expand(m, -1, -1).transpose(0, 1).flatten(1)  # (B, m·features)
        scale, shift = own["weight"].flatten(), own["bias"].flatten()
        columns = t.F.batch_norm(columns, mean, variance, scale, shift, training, BATCH_NORM_MOMENTUM, BATCH_NORM_EPS)
        if training:
            own["running_mean"].copy_(mean.view_as(own["running_mean"]))
            own["running_var"].copy_(variance.view_as(own["running_var"]))
        if on_gpu:
            return columns.view(x.shape).permute(0, 4, 1, 2, 3)
        return columns if image else columns.unflatten(1, (m, -1)).transpose(0, 1)

    return layer


OPERATIONS = (
    Operation(
        name="batch_norm", output_shape=no_sequence, tensors=_tensors, step_tensor="num_batches_tracked",
        module=_module, batched=_batched, homogeneous=True, odd=True, kernel=5,
    ),
)  # fmt: skip
