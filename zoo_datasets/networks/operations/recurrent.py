"""Recurrent layers: `{gru: 8}` and `{lstm: 8}`, (steps, features) → the hidden state of every step (steps, units).

One tensor per gate, and two bias vectors, as PyTorch has them; the arithmetic of `nn.GRU` (Cho et al. 2014) and of `nn.LSTM`
(Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), from states of zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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


def _named(gates: str) -> tuple[str, ...]:
    return tuple(f"{kind}_{side}{gate}" for kind in ("weight", "bias") for side in "ih" for gate in gates)


# The tensors, gate by gate in PyTorch's order: of a GRU (reset, update, new) the first three concatenated are its
# `weight_ih_l0`, the next `weight_hh_l0`, then `bias_ih_l0` and `bias_hh_l0`; of an LSTM (input, forget, cell, output) four.
GRU_TENSORS, LSTM_TENSORS = _named("rzn"), _named("ifgo")


def _output_shape(attrs: Attributes, shape: Shape, where: str) -> Shape:
    return (sequence(shape, where)[0], attrs["features"])


def _tensors(names: tuple[str, ...], turning: str) -> Callable[[Node, int, str, str], list[Tensor]]:
    """`turning` is the gate whose tanh the state is made of, so that it has its sign."""

    def tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
        n, made = node.shape[1], []
        for name in names:
            signed = name.endswith(turning)
            if name.startswith("bias"):
                made.append(Tensor(name, (n,), (own,), "bias", signed=signed))
            elif name.startswith("weight_i"):
                made.append(Tensor(name, (n, width), (own, before), fan=n, reads=1, signed=signed))
            else:
                made.append(Tensor(name, (n, n), (own, own), fan=n, recurrent=True, signed=signed))
        return made

    return tensors


def _one(names: tuple[str, ...], units: int, own: Tensors, x: Value, training: bool) -> Value:
    """Hidden states (B, T, units) of sequences (B, T, features), by PyTorch's own kernel."""
    import torch

    gates, each = [own[name] for name in names], len(names) // 4
    flat = [torch.cat(gates[i : i + each]) for i in range(0, len(names), each)]
    # `shape`, not `len`: `torch.export` leaves it open.
    start = x.new_zeros(1, x.shape[0], units)
    if names == GRU_TENSORS:  # equal, not the same: a copy may have been pickled
        return torch.gru(x, start, flat, True, 1, 0.0, training, False, True)[0]
    return torch.lstm(x, (start, start), flat, True, 1, 0.0, training, False, True)[0]


Joined = tuple[Value, Value, Value, Value]


def _joined(torch: ModuleType, names: tuple[str, ...], own: Tensors) -> Joined:
    """Weights of the inputs and of the state, and their biases, all gates in one: (m, gates·units, …) each."""
    t, each = [own[name] for name in names], len(names) // 4
    into, back, bias_into, bias_back = (torch.cat(t[i : i + each], 1) for i in range(0, len(names), each))
    return into, back, bias_into, bias_back


def _given(torch: ModuleType, tensors: Joined, x: Value) -> Value:
    """What the inputs x (m or 1, B, T, features) add, for all steps in one product: (m, B, T, gates·units)."""
    into, _, bias, _ = tensors
    x = x.expand(len(into), -1, -1, -1)
    return torch.baddbmm(bias[:, None], x.flatten(1, 2), into.transpose(1, 2)).unflatten(1, x.shape[1:3])


def _gru(torch: ModuleType, own: Tensors, x: Value) -> Value:
    """Hidden states (m, B, T, units) of m gated recurrent units on x (m or 1, B, T, features). Differentiable."""
    tensors = _joined(torch, GRU_TENSORS, own)
    back, bias_back, units = tensors[1], tensors[3], tensors[1].shape[2]
    state, states = x.new_zeros(len(back), x.shape[1], units), []
    for step in _given(torch, tensors, x).unbind(2):  # (m, B, 3·units)
        old = torch.baddbmm(bias_back[:, None], state, back.transpose(1, 2))
        reset, update = torch.sigmoid(step[..., : 2 * units] + old[..., : 2 * units]).split(units, 2)
        new = torch.tanh(step[..., 2 * units :] + reset * old[..., 2 * units :])
        state = new + update * (state - new)
        states.append(state)
    return torch.stack(states, 2)


def _lstm(torch: ModuleType, own: Tensors, x: Value) -> Value:
    """Hidden states (m, B, T, units) of m long short-term memories on x (m or 1, B, T, features). Differentiable."""
    tensors = _joined(torch, LSTM_TENSORS, own)
    back, bias_back, units = tensors[1], tensors[3], tensors[1].shape[2]
    state = cell = x.new_zeros(len(back), x.shape[1], units)
    states = []
    for step in _given(torch, tensors, x).unbind(2):  # (m, B, 4·units)
        gates = step + torch.baddbmm(bias_back[:, None], state, back.transpose(1, 2))
        enter, keep, out = (torch.sigmoid(gates[..., i * units : (i + 1) * units]) for i in (0, 1, 3))
        cell = keep * cell + enter * torch.tanh(gates[..., 2 * units : 3 * units])
        state = out * torch.tanh(cell)
        states.append(state)
    return torch.stack(states, 2)


def _operation(
    name: str, names: tuple[str, ...], turning: str, function: Callable[[ModuleType, Tensors, Value], Value], kernel: int
) -> Operation:  # fmt: skip
    tensors = _tensors(names, turning)

    def module(t: Torch, node: Node, shape: Shape, dropout: float) -> Module:
        units = node.attrs["features"]
        shapes = {tensor.name: tensor.shape for tensor in tensors(node, shape[1], "", "")}
        return t.Function(name.capitalize(), functools.partial(_one, names, units), shapes, units**-0.5)

    def batched(t: Torch, node: Node) -> Layer:
        steps = node.shape[0]
        return lambda own, x, training: function(t.torch, own, x.unflatten(2, (steps, -1))).flatten(2)

    return Operation(
        name=name, parse=lambda given: {"features": given.features()}, output_shape=_output_shape, tensors=tensors,
        units=True, module=module, batched=batched, odd=True, kernel=kernel,
    )  # fmt: skip


OPERATIONS = (_operation("gru", GRU_TENSORS, "n", _gru, 20), _operation("lstm", LSTM_TENSORS, "g", _lstm, 21))
