"""Key and distribution → initial weights: the same bits for every engine and machine."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from zoo_datasets.core import exact, streams
from zoo_datasets.networks.architecture import GRU_TENSORS, WEIGHTED, Architecture

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
    first: LayerInit | None = None, last: LayerInit | None = None,
) -> np.ndarray:  # fmt: skip
    """The initial vector, float32 [n_params], of a key: the same bits for every engine and machine.

    `uniform` draws from [low, high), by default PyTorch's own ±1/√fan_in (of a GRU ±1/√units);
    `normal` from (mean, std), by default (0, 1/√fan_in). Kaiming (He et al. 2015) takes the gain √2 of
    ReLU; Glorot (Glorot & Bengio 2010) both fans; `orthogonal` (Saxe et al. 2014) is
    Gram–Schmidt of normals. Biases are `bias`; batch norm starts at scale 1, shift 0,
    mean 0, variance 1. Each tensor draws from a counter made of its own name: its draws do not
    depend on the layers around it. `first` and `last` are the weights' distributions of the first
    and of the last layer, where they have their own; a single layer is the first.
    """
    own = _own_inits(architecture, first, last)
    vector = np.empty(architecture.n_params, np.float32)
    for e in architecture.layout:
        leaf = e.name.rsplit(".", 1)[1]
        if leaf in ("weight", "running_var") and len(e.shape) == 1:
            tensor: Any = 1.0
        elif leaf.startswith("bias"):
            tensor = bias if not e.name.startswith("batch_norm") else 0.0
        elif leaf.startswith("running_"):
            tensor = 0.0
        else:
            fan_in = math.prod(e.shape[1:])
            fan_out = e.shape[0] * math.prod(e.shape[2:])
            # By name, not by place: a layer more or less leaves the draws of the others alone.
            hi = (int(streams.digest(e.name)[:16], 16), 0, streams.SEQUENCE)
            layer = own.get(e.name, LayerInit(kind, low, high))
            general = e.name not in own  # `mean` and `std` are not of a layer's own init
            if layer.kind == "constant":
                tensor = value
            elif layer.kind in ("uniform", "kaiming_uniform", "glorot_uniform"):
                bound = {
                    "uniform": 1.0 / math.sqrt(e.shape[0] if leaf in GRU_TENSORS else fan_in),
                    "kaiming_uniform": math.sqrt(6.0 / fan_in),
                    "glorot_uniform": math.sqrt(6.0 / (fan_in + fan_out)),
                }[layer.kind]
                a, b = (layer.low, layer.high) if layer.low is not None and layer.high is not None else (-bound, bound)
                tensor = a + (b - a) * streams.uniforms(key, e.size, hi)
            elif layer.kind == "orthogonal":
                tensor = _orthogonal(streams.normals(key, e.size, hi).reshape(e.shape[0], fan_in)).ravel()
            else:
                scale = {
                    "normal": 1.0 / math.sqrt(fan_in) if std is None or not general else std,
                    "kaiming_normal": math.sqrt(2.0 / fan_in),
                    "glorot_normal": math.sqrt(2.0 / (fan_in + fan_out)),
                }[layer.kind]
                tensor = ((mean or 0.0) if general else 0.0) + scale * streams.normals(key, e.size, hi)
        vector[e.offset : e.end] = tensor
    return vector


def _own_inits(architecture: Architecture, first: LayerInit | None, last: LayerInit | None) -> dict[str, LayerInit]:
    """Weight tensors that have an init of their own."""
    layers = [n for n in architecture.nodes if n.op in WEIGHTED]
    ends = [(layers[-1], last), (layers[0], first or (last if len(layers) == 1 else None))] if layers else []
    return {f"{n.name}.{t}": init for n, init in ends if init for t in n.tensors if t.startswith("weight")}


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
