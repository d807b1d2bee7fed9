"""Key and distribution → initial weights: the same bits for every engine and machine."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float32

from zoo_datasets.core import exact, streams
from zoo_datasets.networks import parameterization
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.operation import Tensor
from zoo_datasets.networks.operations.registry import operation

INITS = (
    "uniform", "normal", "kaiming_uniform", "kaiming_normal", "glorot_uniform", "glorot_normal", "orthogonal", "constant",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LayerInit:
    """The distribution of one layer's weights; `low` and `high` are of `uniform`."""

    kind: str
    low: float | None = None
    high: float | None = None


def initialize(
    architecture: Architecture, key: str, kind: str, *, low: float | None = None, high: float | None = None,
    mean: float | None = None, std: float | None = None, value: float | None = None, bias: float = 0.0,
    norm_std: float = 0.0, first: LayerInit | None = None, last: LayerInit | None = None, ratio: float = 1.0,
) -> Float32[np.ndarray, " {architecture.n_params}"]:  # fmt: skip
    """The initial vector of a key: the same bits for every engine and machine.

    `uniform` draws from [low, high), by default PyTorch's own ±1/√fan_in (of a GRU ±1/√units);
    `normal` from (mean, std), by default (0, 1/√fan_in). Kaiming (He et al. 2015) takes the gain √2 of
    ReLU; Glorot (Glorot & Bengio 2010) both fans; `orthogonal` (Saxe et al. 2014) is
    Gram–Schmidt of normals. Biases are `bias`; batch norm starts at scale 1 (drawn from a
    normal of mean 1 and `norm_std`), shift 0, mean 0, variance 1. Each tensor draws from a counter made of its own name: its draws do not
    depend on the layers around it. `first` and `last` are the weights' distributions of the first
    and of the last layer, where they have their own; a single layer is the first. `ratio` is how many times as
    wide as its base the network is (`parameterization.py`): 1 is the standard parameterization.
    """
    own = _own_inits(architecture, first, last)
    constants = {"bias": bias, "ones": 1.0, "zeros": 0.0}
    vector = np.empty(architecture.n_params, np.float32)
    for node in architecture.nodes:
        for e, tensor in architecture.placed(node.name):
            values: Any
            # By name, not by place: a layer more or less leaves the draws of the others alone.
            counter = (int(streams.digest(e.name)[:16], 16), 0, streams.SEQUENCE)
            if tensor.start in constants:
                values = constants[tensor.start]
            elif tensor.start == "scale":
                values = 1.0 + norm_std * streams.normals(key, math.prod(tensor.shape), counter) if norm_std else 1.0
            else:
                init, own_mean, own_std = LayerInit(kind, low, high), mean, std
                if node.name in own:  # `mean` and `std` are not of a layer's own init
                    init, own_mean, own_std = own[node.name], None, None
                values = _draw(tensor, init, key, counter, own_mean, own_std, value)
                scale = _scale(tensor, init, own_std, ratio)
                if scale != 1.0:
                    values = values * scale
            vector[e.offset : e.end] = values
    return vector


def _draw(
    tensor: Tensor, init: LayerInit, key: str, counter: tuple[int, int, int], mean: float | None, std: float | None,
    value: float | None,
) -> Any:  # fmt: skip
    """The values of one tensor: float64 [size], or one for all."""
    size, fan_in, fan_out = math.prod(tensor.shape), tensor.fan_in, tensor.fan_out
    if init.kind == "constant":
        return value
    if init.kind in ("uniform", "kaiming_uniform", "glorot_uniform"):
        bound = {
            "uniform": 1.0 / math.sqrt(tensor.fan or fan_in),
            "kaiming_uniform": math.sqrt(6.0 / fan_in),
            "glorot_uniform": math.sqrt(6.0 / (fan_in + fan_out)),
        }[init.kind]
        low, high = (init.low, init.high) if init.low is not None and init.high is not None else (-bound, bound)
        return low + (high - low) * streams.uniforms(key, size, counter)
    normals = streams.normals(key, size, counter)
    if init.kind == "orthogonal":
        return _orthogonal(normals.reshape(tensor.shape[0], fan_in)).ravel()
    scale = {
        "normal": 1.0 / math.sqrt(fan_in) if std is None else std,
        "kaiming_normal": math.sqrt(2.0 / fan_in),
        "glorot_normal": math.sqrt(2.0 / (fan_in + fan_out)),
    }[init.kind]
    return (mean or 0.0) + scale * normals


def _scale(tensor: Tensor, init: LayerInit, std: float | None, ratio: float) -> float:
    """What its draws are multiplied by in a network so many times as wide as its base."""
    fan_in, fan_out = parameterization.grows(tensor)
    of_base = (ratio if fan_in else 1.0, ratio if fan_out else 1.0)
    own, base = _inverse_variance(tensor, init, std, 1.0, 1.0), _inverse_variance(tensor, init, std, *of_base)
    return math.sqrt(own / base * parameterization.variance(tensor, ratio))


def _inverse_variance(tensor: Tensor, init: LayerInit, std: float | None, less_in: float, less_out: float) -> float:
    """1 over the variance of `_draw`, but for a constant, had the tensor fans that are so many times smaller."""
    fan_in, fan_out = tensor.fan_in / less_in, tensor.fan_out / less_out
    given = {"uniform": init.low is not None and init.high is not None, "normal": std is not None}
    if given.get(init.kind):
        return 1.0
    return {
        "uniform": tensor.fan / less_out if tensor.fan else fan_in,  # of recurrent layers the units
        "glorot_uniform": fan_in + fan_out,
        "glorot_normal": fan_in + fan_out,
        "orthogonal": max(tensor.shape[0] / less_out, fan_in),  # the shorter side has norm 1
        "constant": 1.0,
    }.get(init.kind, fan_in)


def _own_inits(architecture: Architecture, first: LayerInit | None, last: LayerInit | None) -> dict[str, LayerInit]:
    """Nodes whose weights have an init of their own."""
    layers = [n.name for n in architecture.nodes if operation(n.op).units]
    ends = [(layers[-1], last), (layers[0], first or (last if len(layers) == 1 else None))] if layers else []
    return {name: init for name, init in ends if init}


def _orthogonal(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal rows (or columns, where those are fewer) by modified Gram–Schmidt, float64.

    LAPACK's QR differs between machines in its last bits; sums here run in one fixed order.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    rows = np.array(matrix.T if tall else matrix)
    for i in range(len(rows)):
        for _ in range(2):  # twice is enough (Kahan–Parlett)
            for j in range(i):
                rows[i] -= exact.total(rows[i] * rows[j]) * rows[j]
        rows[i] /= np.sqrt(exact.total(rows[i] * rows[i]))
    return rows.T if tall else rows
