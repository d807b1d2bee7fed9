"""Weights of many networks and images → logits, batch norm by the statistics of the batch itself and nothing dropped.

In:  weights [m, P]; images (n, …), or (m, n, …) of each its own; how many make a batch.
Out: logits (m, n, C). Batches are taken in the order of the images; a last one of a single image joins the one before.

Where the C++ kernels are, they give the same bits on every CPU: running statistics that keep nothing of what they were
are those of the batch, and an evaluation by them is what is asked for. Else torch does it, to within rounding.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import numpy as np

from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture


def logits(architecture: Architecture, weights: np.ndarray, images: np.ndarray, batch: int) -> np.ndarray:
    """Logits (m, n, C), float32."""
    own = images.ndim > 1 + len(architecture.input_shape)
    count = images.shape[1 if own else 0]
    out = np.empty((len(weights), count, architecture.n_logits), np.float32)
    normalized = _normalized(architecture)
    for m, vector in enumerate(weights):
        shown = images[m] if own else images
        for part in batches(count, batch):
            given = np.ascontiguousarray(shown[part], np.float32)
            # A value alone has no variance; twice the same image has its mean and, to every channel, its variance.
            out[m, part] = normalized(vector, given if len(given) > 1 else np.repeat(given, 2, 0))[: len(given)]
    return out


def batches(count: int, batch: int) -> list[slice]:
    """Where each batch lies."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]


def _normalized(architecture: Architecture) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A vector [P] and a batch (b, …) → logits (b, C)."""
    if kernels.impossible(architecture, kernels.LOSSES[0]):
        torch = importlib.import_module("zoo_datasets.networks.batched")
        found: Callable[[np.ndarray, np.ndarray], np.ndarray] = torch.in_training(architecture)
        return found
    measured, shown = kernels.statistics(architecture), kernels.make(architecture)[0]
    buffers = architecture.layout.buffer_mask()

    def by_kernels(vector: np.ndarray, images: np.ndarray) -> np.ndarray:
        weights = np.array(vector, np.float32)
        found = measured(weights, images)
        for node in architecture.nodes:
            for e in architecture.layout.of_node(node.name):
                if e.name.endswith(".running_var"):  # kept unbiased, and what a batch is divided by is not
                    values = len(images) * math.prod(node.shape[1:])
                    found[e.offset : e.end] *= np.float32((values - 1) / values)
        weights[buffers] = found[buffers]
        out = np.empty((1, len(images), architecture.n_logits), np.float32)
        shown.evaluate(weights[None], kernels.flat(images), None, out)
        logits: np.ndarray = out[0]
        return logits

    return by_kernels
