"""Snapshots of a population → numbers (n, W, F): W pieces of each network with F statistics of each.

Of each tensor (`layers`), of the whole vector (`vector`), of windows at random places (`window`), or of what a window covers
without looking at a value (`positions`). Statistics: mean, variance, skewness, percentiles 1, 25, 50, 75 and 99
(Eilertsen et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.baselines.groups import finite
from zoo_datasets.baselines.tabular import aligned
from zoo_datasets.core import streams
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.views.per_tensor import EILERTSEN_2020

NUMBERS = 3 + len(EILERTSEN_2020)
WINDOWS = 8  # of each network, where statistics are of windows


def layers(of: Population, snapshots: np.ndarray) -> np.ndarray:
    """Of each tensor that training fits, first and last ones aligned; (n, 1, tensors · 8)."""
    return aligned(of.view(snapshots), n_tensors(of), EILERTSEN_2020, skewness=True).reshape(len(snapshots), 1, -1)


def n_tensors(of: Population) -> int:
    return max(sum(e.role == "parameter" for e in a.layout) for a in of.architectures)


def vector(of: Population, snapshots: np.ndarray) -> np.ndarray:
    """Of all values together; (n, 1, 8)."""
    return np.stack([statistics(finite(of.vectors[i])[None]) for i in snapshots.tolist()])


def window(of: Population, snapshots: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Of windows at random places; (n, W, 8)."""
    found = np.empty((len(snapshots), WINDOWS, NUMBERS))
    for out, i, starts in zip(found, snapshots.tolist(), places(of, snapshots, k, seed), strict=True):
        order = of.orders[i]
        out[:] = statistics(finite(np.stack([of.vectors[i][order[s : s + k]] for s in starts.tolist()])))
    return found


def positions(of: Population, snapshots: np.ndarray, k: int, seed: int) -> np.ndarray:
    """How many values of each tensor the same windows cover, and none of the values; (n, W, tensors)."""
    width = max(len(list(a.layout)) for a in of.architectures)
    tensors: dict[int, np.ndarray] = {}
    found = np.zeros((len(snapshots), WINDOWS, width))
    for out, i, starts in zip(found, snapshots.tolist(), places(of, snapshots, k, seed), strict=True):
        number = int(of.architecture[of.owner[i]])
        if number not in tensors:
            tensors[number] = tensor_of(of.architectures[number], width)[of.orders[i]]
        for counts, start in zip(out, starts.tolist(), strict=True):
            counts[:] = np.bincount(tensors[number][start : start + k], minlength=width)
    return found


def places(of: Population, snapshots: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Random starts of windows, which do not depend on which snapshots are asked about; (n, W) int64."""
    share = streams.generator("nws windows", seed).random((len(of), WINDOWS))[of.owner[snapshots]]
    room = of.lengths[of.owner[snapshots]] - k + 1
    return np.asarray(share * room[:, None], np.int64)


def tensor_of(architecture: Architecture | External, width: int) -> np.ndarray:
    """The number of the tensor that each value is of, (P,) int64: counted from the front in the first half, in the second
    from the back of `width` numbers."""
    entries = list(architecture.layout)
    tail = len(entries) // 2
    found = np.zeros(architecture.layout.n_params, np.int64)
    for number, e in enumerate(entries):
        found[e.offset : e.end] = number if number < len(entries) - tail else width - len(entries) + number
    return found


def before_layers(architecture: Architecture | External) -> np.ndarray:
    """Of each value whether it is of a layer before the first fully connected one, (P,) bool; a batch norm's buffers too."""
    entries = list(architecture.layout)
    first = next((i for i, e in enumerate(entries) if e.role == "parameter" and len(e.shape) == 2), len(entries))
    nodes = {e.name.rpartition(".")[0] for e in entries[:first]}
    found = np.zeros(architecture.layout.n_params, bool)
    for e in entries:
        found[e.offset : e.end] = e.name.rpartition(".")[0] in nodes
    return found


def statistics(rows: np.ndarray) -> np.ndarray:
    """(W, k) → (W, 8)."""
    values = rows.astype(np.float64)
    mean = values.mean(1)
    centered = values - mean[:, None]
    variance = (centered**2).mean(1)
    third = (centered * centered * centered).mean(1)  # a power of 3 takes many times as long
    skewness = np.divide(third, variance**1.5, out=np.zeros_like(third), where=variance > 0)
    return np.column_stack([mean, variance, skewness, np.quantile(values, EILERTSEN_2020, axis=1).T])


def parts(of: Population) -> Mapping[str, np.ndarray]:
    """Layers that all networks have → of each architecture the slots of `layers` that are its own, (A, T) int64: a matrix, its
    biases, and the batch norm behind it. Where all have as many convolutions (linear layers), each; else the first and the last.
    """
    per_architecture = [_layers(a, n_tensors(of)) for a in of.architectures]
    found: dict[str, np.ndarray] = {}
    for kind in ("convolution", "linear"):
        counts = {len(own[kind]) for own in per_architecture}
        alike = len(counts) == 1
        named = (
            {f"{kind} {i + 1}": i for i in range(min(counts))} if alike else {f"first {kind}": 0, f"last {kind}": -1}
        )
        for name, i in named.items() if min(counts) else ():
            slots = [own[kind][i] for own in per_architecture]
            found[name] = np.array([s[: min(map(len, slots))] for s in slots], np.int64)
    return found


def _layers(architecture: Architecture | External, width: int) -> Mapping[str, list[list[int]]]:
    """Kind → for each of its matrices the slots of the tensors from there to the next matrix, aligned in `width`."""
    entries = [e for e in architecture.layout if e.role == "parameter"]
    tail = len(entries) // 2
    found: dict[str, list[list[int]]] = {"convolution": [], "linear": []}
    own: list[int] = []
    for i, e in enumerate(entries):
        if len(e.shape) > 1:
            own = []
            found["convolution" if len(e.shape) > 2 else "linear"].append(own)
        own.append(i if i < len(entries) - tail else width - len(entries) + i)
    return found
