"""A network, and how many times as wide as its base it is → scales of its initial weights and of its learning rates.

The maximal update parameterization (µP) by Table 3 of Yang et al., "Tensor Programs V" (2022): the form without multipliers
in the forward pass, so that weights are plain weights. With r the width over that of the base, a tensor of the base gets

| | variance of the draw | rate of SGD | rate of Adam |
|---|---|---|---|
| input weights | 1 | r | 1 |
| biases, scales and shifts | 1 | r, those of the outputs 1 | 1 |
| hidden weights | 1/r | 1 | 1/r |
| output weights | 1/r² | 1/r | 1/r |

times what it has in the base. Momentum and Nesterov are as SGD, AdamW and RMSprop as Adam. A tensor's fan in or fan out
grows where that side runs over hidden units, and not where it runs over inputs or outputs, nor over units that a skip ties
to them. Variances are relative to what the same init gives the base, so every init fits: a `normal` of a fixed standard
deviation, a Glorot init, whose first layer would otherwise shrink with its fan out, an `orthogonal` one (in each entry's mean
square). With r = 1 every factor is exactly 1: the base is the network of the standard parameterization, bit for bit.

The table says nothing of the following, and here it is so: what a step's weight decay takes off a weight does not change with
r (the rate is multiplied by the factor and the decay divided, as the authors' own package does); `clip_norm`, `eps`, moments
and dropout are as the recipe says.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.operation import Tensor


def grows(tensor: Tensor) -> tuple[bool, bool]:
    """Whether its fan in and its fan out grow with the width of the network."""
    read = 1 if tensor.recurrent else tensor.reads
    # A scale reads one unit each, along its own dimension.
    return bool(read) and tensor.groups[read or 0] != "", tensor.groups[0] != ""


def variance(tensor: Tensor, ratio: float) -> float:
    """What the variance of its draw is over that of the same tensor of the base."""
    fan_in, fan_out = grows(tensor)
    if not fan_in:
        return 1.0
    return 1.0 / ratio if fan_out else 1.0 / ratio / ratio


def rate_factors(architecture: Architecture, ratio: float, adaptive: bool) -> Float64[np.ndarray, " tensors"]:
    """What the learning rate of each tensor of the layout is multiplied by; `adaptive` means Adam, AdamW and RMSprop."""
    tensors = [t for node in architecture.nodes for t in architecture.tensors[node.name]]
    return np.array([_rate(*grows(t), ratio, adaptive) for t in tensors], np.float64)


def _rate(fan_in: bool, fan_out: bool, ratio: float, adaptive: bool) -> float:
    if adaptive:
        return 1.0 / ratio if fan_in else 1.0
    if fan_in:
        return 1.0 if fan_out else 1.0 / ratio
    return ratio if fan_out else 1.0
