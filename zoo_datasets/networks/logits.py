"""Weights of many models → their logits on shared images, by the fastest way there is here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.forward import Forward


def logits_of(
    architecture: Architecture, images: np.ndarray, device: str = "cpu"
) -> Callable[[np.ndarray], torch.Tensor]:
    """The function weights [m, P] → logits (m, n, C) on these images (n, …).

    By the C++ kernels where they are the fastest; else by torch, batched. On a CPU as many
    models go side by side as torch has threads.
    """
    if device == "cpu" and not kernels.unfit(architecture):
        threads = torch.get_num_threads()
        if not len(images):
            return lambda weights: torch.zeros(len(weights), 0, architecture.n_outputs)
        return lambda weights: torch.from_numpy(kernels.logits(architecture, weights, images, threads))
    forward = Forward(architecture, device)
    shown = torch.from_numpy(images).to(forward.device)
    return lambda weights: forward.logits(weights, shown)
