"""Linear layers: `{linear: 20}`, `{linear: classes}` or `{linear: classes, outputs: 20}`, (features,) → (features,)."""

from __future__ import annotations

from zoo_datasets import errors
from zoo_datasets.networks.operations.operation import (
    Attributes,
    Given,
    Layer,
    Node,
    Operation,
    Shape,
    Tensor,
    Tensors,
    Torch,
    Value,
    misfit,
)


def _parse(given: Given) -> Attributes:
    """`outputs` beside `classes` makes a head of so many, of which the source's classes are the first."""
    if "outputs" not in given.options:
        return {"features": given.features()}
    outputs = given.whole("outputs", 1)
    if given.value != "classes":
        raise errors.GridError(
            f"Layer {given.position} (linear): `outputs` stands beside `classes` alone, in the last layer; this one has "
            f"{given.value!r}."
        )
    if outputs < given.n_classes:
        raise errors.GridError(
            f"Layer {given.position} (linear): `outputs` is {outputs}, and the source has {given.n_classes} classes; each "
            "needs one."
        )
    return {"features": outputs}


def _output_shape(attrs: Attributes, shape: Shape, where: str) -> Shape:
    if len(shape) != 1:
        remedy = "`last_step`" if len(shape) == 2 else "`flatten` or `global_avg_pool`"
        misfit(where, f"needs a flat input (features,), but the layer before gives {shape}. Put {remedy} before it.")
    return (attrs["features"],)


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    # After `flatten` one unit of the conv is a block of columns; views divide by the group's size.
    n = node.shape[0]
    return [Tensor("weight", (n, width), (own, before), reads=1), Tensor("bias", (n,), (own,), "bias")]


def _batched(t: Torch, node: Node) -> Layer:
    """One batched product."""

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        weight, bias = own["weight"], own["bias"]  # (m, out, in), (m, out)
        if len(x) < len(weight):  # the same input for all: one wide product
            wide = t.F.linear(x[0], weight.flatten(0, 1), bias.flatten())  # (B, m·out)
            return wide.unflatten(1, bias.shape).transpose(0, 1)
        return t.torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    return layer


OPERATIONS = (
    Operation(
        name="linear", options=("outputs",), parse=_parse, output_shape=_output_shape,
        tensors=_tensors, units=True, batched=_batched, homogeneous=True, odd=True, kernel=4,
        module=lambda t, node, shape, dropout: t.nn.Linear(shape[0], node.attrs["features"]),
    ),
)  # fmt: skip
