"""Weights of many models → their logits on shared inputs, by the fastest way there is here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.forward import Forward

with libraries.needed():
    import torch


def logits_of(
    architecture: Architecture, inputs: np.ndarray, device: str = "cpu"
) -> Callable[[np.ndarray], np.ndarray]:
    """The function weights [m, P] → logits (m, n, C), float32, on these inputs (n, …).

    By the C++ kernels where they are the fastest; else by torch, batched. On a CPU as many
    models go side by side as torch has threads.
    """
    if device == "cpu" and not kernels.unfit(architecture):
        threads = torch.get_num_threads()
        if not len(inputs):
            return lambda weights: np.zeros((len(weights), 0, architecture.n_logits), np.float32)
        return lambda weights: kernels.logits(architecture, weights, inputs, threads)
    forward = Forward(architecture, device)
    on_device = torch.from_numpy(inputs).to(forward.device)
    return lambda weights: forward.logits(weights, on_device).numpy()
