"""`Architecture` → `nn.Module`, and flat vector ↔ state dict. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.operations import values
from zoo_datasets.networks.operations.registry import operation

with libraries.needed():
    import torch
    from torch import nn


class Network(nn.Module):
    """The network of an architecture; submodules carry the names of its nodes.

    `dropout` is the rate where the architecture leaves it to the model.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        for node in architecture.nodes:
            shape = architecture.input_shapes[node.name]
            self.add_module(node.name, operation(node.op).module(values, node, shape, dropout))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = {"input": images}  # (B, …) each
        for node in self.architecture.nodes:
            outputs[node.name] = self.get_submodule(node.name)(outputs[node.inputs[0]])
        return outputs[self.architecture.nodes[-1].name]  # (B, C)

    def load_vector(self, vector: np.ndarray, step: int = 0) -> Network:
        """Set every tensor from a flat vector [n_params]; `step` is what batch norm counts."""
        self.load_state_dict(to_state_dict(vector, self.architecture, step))
        return self


def to_state_dict(vector: np.ndarray, architecture: Architecture | External, step: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of a flat vector [n_params]; it owns its memory."""
    named = architecture.layout.unflatten(np.asarray(vector))
    state = {name: torch.tensor(value) for name, value in named.items()}
    for node in architecture.nodes if isinstance(architecture, Architecture) else ():
        counter = operation(node.op).step_tensor
        if counter is not None:
            state[f"{node.name}.{counter}"] = torch.tensor(step)
    return state


def to_vector(state: Mapping[str, torch.Tensor], architecture: Architecture | External) -> np.ndarray:
    """The flat float32 vector [n_params] of a state dict. Raises KeyError, ValueError."""
    return architecture.layout.flatten({e.name: state[e.name].detach().cpu().numpy() for e in architecture.layout})
