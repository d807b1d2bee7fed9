"""Linear layers: `{linear: 20}`, `{linear: classes}` or `{linear: classes, outputs: 20}`, (features,) → (features,), of a sequence at each step."""

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
    units_of,
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
    if len(shape) > 2:
        misfit(
            where, f"needs a flat input (features,) or a sequence, but the layer before gives {shape}. "
            "Put `flatten` or `global_avg_pool` before it."
        )  # fmt: skip
    return (*shape[:-1], attrs["features"])


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    # After `flatten` one unit of the conv is a block of columns; views divide by the group's size.
    n = units_of(node.shape)
    return [Tensor("weight", (n, width), (own, before), reads=1), Tensor("bias", (n,), (own,), "bias")]


def _batched(t: Torch, node: Node) -> Layer:
    """One batched product."""

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        if len(node.shape) == 2:  # a sequence lies flat: its steps are samples
            steps = node.shape[0]
            return once(own, x.unflatten(2, (steps, -1)).flatten(1, 2)).unflatten(1, (-1, steps)).flatten(2)
        return once(own, x)

    def once(own: Tensors, x: Value) -> Value:
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
        module=lambda t, node, shape, dropout: t.nn.Linear(shape[-1], node.attrs["features"]),
    ),
)  # fmt: skip
