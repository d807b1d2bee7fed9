"""`Architecture` → `nn.Module`, and flat vector ↔ state dict. Needs torch.

A state dict may come from a network as people train it: in another precision, on another device, wrapped
by `torch.compile` or for several devices, parametrized. It becomes the vector of the network inside, or is
refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.errors import ZooError, alternatives
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.operations import values
from zoo_datasets.networks.operations.registry import operation

with libraries.needed():
    import torch
    from torch import nn
    from torch.nn.utils import parametrize


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
            outputs[node.name] = self.get_submodule(node.name)(*(outputs[name] for name in node.inputs))
        return outputs[self.architecture.nodes[-1].name]  # (B, C), or (B, T, C) where it gives a sequence

    def load_vector(self, vector: np.ndarray, step: int = 0) -> Network:
        """Set every tensor from a flat vector [n_params]; `step` is what batch norm counts."""
        self.load_state_dict(to_state_dict(vector, self.architecture, step))
        return self


def to_state_dict(
    vector: np.ndarray | torch.Tensor, architecture: Architecture | External, step: int = 0
) -> dict[str, torch.Tensor]:
    """The state dict of a flat vector [n_params]; it owns its memory. Raises ZooError."""
    array = _array(vector, "The vector") if isinstance(vector, torch.Tensor) else np.asarray(vector)
    if array.dtype.kind not in "fiu":
        raise ZooError(f"The vector holds {array.dtype}; weights are floating-point numbers.")
    if array.shape != (architecture.layout.n_params,):
        raise ZooError(f"The vector has shape {array.shape}, the layout says ({architecture.layout.n_params},).")
    named = architecture.layout.unflatten(_native(array) if array.dtype.kind == "f" else array.astype(np.float32))
    state = {name: torch.tensor(value) for name, value in named.items()}
    return state | {name: torch.tensor(step) for name in _counters(architecture)}


def to_vector(state: Mapping[str, Any] | nn.Module, architecture: Architecture | External) -> np.ndarray:
    """The flat float32 vector [n_params] of a network or its state dict, other precisions rounded.

    Names are taken without what `torch.compile`, `DataParallel` and their like put before them. Raises ZooError
    where a tensor is missing, of another shape, no number that float32 holds, or one that the vector has no place for.
    """
    if isinstance(state, nn.Module):
        state = _state_of(state)
    if not isinstance(state, Mapping):
        raise ZooError(f"to_vector() takes a state dict or a network, not a {type(state).__name__}.")
    layout = architecture.layout
    entries, bare = {e.name: e for e in layout}, {_bare(e.name): e.name for e in layout}
    tensors: dict[str, np.ndarray] = {}
    extra = []  # beside the steps that batch norm counts, which are no weights
    for name, value in state.items():
        own = name if name in entries else bare.get(_bare(str(name)))
        if own is None or (own != name and own in state):
            extra += [] if _bare(str(name)) in _counters(architecture) else [str(name)]
        elif own in tensors:
            raise ZooError(f"The state has {own} twice, once as {name}; give that of one network.")
        else:
            tensors[own] = _array(value, str(name))
            if tensors[own].shape != entries[own].shape:
                raise ZooError(
                    f"{name} has shape {tensors[own].shape}, the layout says {entries[own].shape}: it is another network's."
                )
    missing = [name for name in entries if name not in tensors]
    if missing:
        raise ZooError(_what_is_missing(missing, extra))
    # What an imported zoo leaves out of its vectors nobody knows; of a network of layers every tensor has its place.
    lost = [name for name in extra if name != "n_averaged"] if isinstance(architecture, Architecture) else []
    if lost:
        raise ZooError(
            f"The vector has no place for {alternatives(lost)}: the network has more tensors than its architecture "
            "says. Give the state of the network alone."
        )
    return layout.flatten(tensors)


# What others put into the names of the tensors of a network that they wrap: `torch.compile`, `DataParallel` and
# `DistributedDataParallel` (and the averaged networks of `torch.optim.swa_utils`), FSDP, activation checkpointing.
WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _counters(architecture: Architecture | External) -> tuple[str, ...]:
    """Tensors of the network that are not weights but the step itself."""
    return architecture.step_tensors if isinstance(architecture, Architecture) else ()


def _state_of(network: nn.Module) -> dict[str, Any]:
    """The state dict of a network, its parametrized tensors as they are used."""
    state = network.state_dict()
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            within = f"{name}." if name else ""
            state = {k: v for k, v in state.items() if not k.startswith(f"{within}parametrizations.")}
            state |= {f"{within}{leaf}": getattr(module, leaf) for leaf in module.parametrizations}
    return state


def _what_is_missing(missing: list[str], extra: list[str]) -> str:
    text = f"The state has no {alternatives(missing)}"
    if any("parametrizations" in name.split(".") for name in extra):
        return f"{text}: it is parametrized. Give the network itself, whose tensors can be worked out."
    if extra:
        return f"{text}, but {alternatives(extra, missing[0])}. Give the state under the network's own names."
    return f"{text}. Give the state of the whole network."


def _native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's order of bytes: torch takes no other."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _array(value: Any, name: str) -> np.ndarray:
    """A tensor as float32 in this machine's memory. Raises ZooError."""
    try:
        tensor = torch.as_tensor(_native(value) if isinstance(value, np.ndarray) else value).detach()
        if hasattr(tensor, "full_tensor"):  # of one that lies on several devices
            tensor = tensor.full_tensor()
        tensor = tensor.to("cpu").to_dense()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ZooError(f"{name} holds no weights that can be read: {str(error).splitlines()[0]}") from None
    if not tensor.is_floating_point():
        raise ZooError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}; weights are floating-point numbers.")
    narrow = tensor.to(torch.float32)
    if tensor.dtype == torch.float64 and bool((narrow.isinf() & tensor.isfinite()).any()):
        raise ZooError(f"{name} holds numbers that are larger than any float32.")
    return narrow.numpy()
