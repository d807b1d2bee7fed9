"""`Architecture` → `nn.Module`, the GRU of one model and of many, and flat vector ↔ state dict. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from zoo_datasets.networks.architecture import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM, GRU_TENSORS, Architecture, Node
from zoo_datasets.networks.layout import flatten, unflatten

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


class Network(nn.Module):
    """The network of an architecture; submodules carry the names of its nodes.

    `dropout` is the rate where the architecture leaves it to the model.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        shapes = {"input": architecture.input_shape}
        for node in architecture.nodes:
            self.add_module(node.name, _layer(node, shapes[node.inputs[0]], dropout))
            shapes[node.name] = node.shape

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = {"input": images}  # (B, …) each
        for node in self.architecture.nodes:
            values[node.name] = self.get_submodule(node.name)(values[node.inputs[0]])
        return values[self.architecture.nodes[-1].name]  # (B, C)

    def load_vector(self, vector: np.ndarray, step: int = 0) -> Network:
        """Set every tensor from a flat vector [n_params]; `step` is what batch norm counts."""
        self.load_state_dict(to_state_dict(vector, self.architecture, step))
        return self


class _GlobalAveragePool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))  # (B, C, H, W) → (B, C)


class Gru(nn.Module):
    """A gated recurrent unit, one parameter per gate; `nn.GRU`'s arithmetic (Cho et al. 2014).

    Sequences (B, steps, features) → hidden states (B, steps, units), from a state of zeros.
    """

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.features, self.units = features, units
        bound = units**-0.5
        for name in GRU_TENSORS:
            shape = (units,) if name.startswith("bias") else (units, features if name.startswith("weight_i") else units)
            setattr(self, name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def extra_repr(self) -> str:
        return f"{self.features}, {self.units}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = [getattr(self, name) for name in GRU_TENSORS]
        flat = [torch.cat(gates[i : i + 3]) for i in range(0, 12, 3)]
        start = x.new_zeros(1, len(x), self.units)
        return torch.gru(x, start, flat, True, 1, 0.0, self.training, False, True)[0]


def gru(own: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Hidden states (m, B, T, units) of m gated recurrent units on x (m or 1, B, T, features).

    `own` holds `models.GRU_TENSORS`, (m, …) each; the state starts at zero (Cho et al. 2014, as
    PyTorch's GRU computes it). Differentiable.
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


class _Rows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(2)  # (B, C, H, W) → (B, H, C·W)


class _LastStep(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1]  # (B, T, F) → (B, F)


def _layer(node: Node, shape: tuple[int, ...], dropout: float) -> nn.Module:
    a = node.attrs
    if node.op == "conv":
        return nn.Conv2d(shape[0], a["channels"], a["kernel"], a["stride"], a["padding"])
    if node.op == "linear":
        return nn.Linear(shape[0], a["features"])
    if node.op == "gru":
        return Gru(shape[1], a["features"])
    if node.op == "rows":
        return _Rows()
    if node.op == "last_step":
        return _LastStep()
    if node.op == "max_pool":
        return nn.MaxPool2d(a["kernel"], a["stride"])
    if node.op == "avg_pool":
        return nn.AvgPool2d(a["kernel"], a["stride"])
    if node.op == "global_avg_pool":
        return _GlobalAveragePool()
    if node.op == "batch_norm":
        kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        return kind(shape[0], eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
    if node.op == "dropout":
        return nn.Dropout(dropout if a["rate"] is None else a["rate"])
    if node.op == "flatten":
        return nn.Flatten()
    if node.op == "softmax":
        return nn.Softmax(dim=1)  # over channels or features
    return _ACTIVATIONS[node.op]()


def to_state_dict(vector: np.ndarray, architecture: Architecture, step: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of a flat vector [n_params]; it owns its memory."""
    state = {name: torch.tensor(value) for name, value in unflatten(np.asarray(vector), architecture.layout).items()}
    for node in architecture.nodes:
        if node.op == "batch_norm":  # not stored: it is the step itself
            state[f"{node.name}.num_batches_tracked"] = torch.tensor(step)
    return state


def to_vector(state: Mapping[str, torch.Tensor], architecture: Architecture) -> np.ndarray:
    """The flat float32 vector [n_params] of a state dict. Raises KeyError, ValueError."""
    arrays = {e.name: state[e.name].detach().cpu().numpy() for e in architecture.layout}
    return flatten(arrays, architecture.layout)
