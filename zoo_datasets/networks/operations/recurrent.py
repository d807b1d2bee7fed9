"""Recurrent layers: `{gru: 8}`, (steps, features) → the hidden state of every step (steps, units).

A gated recurrent unit with one tensor per gate; `nn.GRU`'s arithmetic (Cho et al. 2014), from a state of zeros.
"""

from __future__ import annotations

import functools
from types import ModuleType

from zoo_datasets.networks.operations.operation import (
    Attributes,
    Layer,
    Module,
    Node,
    Operation,
    Shape,
    Tensor,
    Tensors,
    Torch,
    Value,
    sequence,
)

# A GRU's tensors, gate by gate (reset, update, new) in PyTorch's order: the first three concatenated
# are its `weight_ih_l0`, the next `weight_hh_l0`, then `bias_ih_l0` and `bias_hh_l0`.
GRU_TENSORS = tuple(f"{kind}_{side}{gate}" for kind in ("weight", "bias") for side in "ih" for gate in "rzn")


def _output_shape(attrs: Attributes, shape: Shape, where: str) -> Shape:
    return (sequence(shape, where)[0], attrs["features"])


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    n = node.shape[1]
    tensors = []
    for name in GRU_TENSORS:
        signed = name.endswith("n")  # the state is a mean of the new gate's tanh, whose sign it has
        if name.startswith("bias"):
            tensors.append(Tensor(name, (n,), (own,), "bias", signed=signed))
        elif name.startswith("weight_i"):
            tensors.append(Tensor(name, (n, width), (own, before), fan=n, reads=1, signed=signed))
        else:
            tensors.append(Tensor(name, (n, n), (own, own), fan=n, recurrent=True, signed=signed))
    return tensors


def _one(units: int, own: Tensors, x: Value, training: bool) -> Value:
    """Hidden states (B, T, units) of sequences (B, T, features), by PyTorch's own kernel."""
    import torch

    gates = [own[name] for name in GRU_TENSORS]
    flat = [torch.cat(gates[i : i + 3]) for i in range(0, 12, 3)]
    # `shape`, not `len`: `torch.export` leaves it open.
    return torch.gru(x, x.new_zeros(1, x.shape[0], units), flat, True, 1, 0.0, training, False, True)[0]


def _module(t: Torch, node: Node, shape: Shape, dropout: float) -> Module:
    units = node.attrs["features"]
    shapes = {tensor.name: tensor.shape for tensor in _tensors(node, shape[1], "", "")}
    return t.Function("Gru", functools.partial(_one, units), shapes, units**-0.5)


def _gru(torch: ModuleType, own: Tensors, x: Value) -> Value:
    """Hidden states (m, B, T, units) of m gated recurrent units on x (m or 1, B, T, features).

    `own` holds `GRU_TENSORS`, (m, …) each. Differentiable.
    """
    t = [own[name] for name in GRU_TENSORS]
    into, back, bias_into, bias_back = (torch.cat(t[i : i + 3], 1) for i in range(0, 12, 3))  # (m, 3·units, …)
    m, units = len(into), back.shape[2]
    x = x.expand(m, -1, -1, -1)
    # What the inputs add, for all steps in one product.
    given = torch.baddbmm(bias_into[:, None], x.flatten(1, 2), into.transpose(1, 2)).unflatten(1, x.shape[1:3])
    state, states = x.new_zeros(m, x.shape[1], units), []
    for step in given.unbind(2):  # (m, B, 3·units)
        old = torch.baddbmm(bias_back[:, None], state, back.transpose(1, 2))
        reset, update = torch.sigmoid(step[..., : 2 * units] + old[..., : 2 * units]).split(units, 2)
        new = torch.tanh(step[..., 2 * units :] + reset * old[..., 2 * units :])
        state = new + update * (state - new)
        states.append(state)
    return torch.stack(states, 2)


def _batched(t: Torch, node: Node) -> Layer:
    steps = node.shape[0]
    return lambda own, x, training: _gru(t.torch, own, x.unflatten(2, (steps, -1))).flatten(2)


OPERATIONS = (
    Operation(
        name="gru", parse=lambda given: {"features": given.features()}, output_shape=_output_shape,
        tensors=_tensors, units=True, module=_module, batched=_batched, odd=True,
    ),
)  # fmt: skip
