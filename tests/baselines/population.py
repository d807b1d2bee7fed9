"""Populations for tests of baselines: networks drawn, not trained, and targets that their weights determine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from zoo_datasets.baselines.interface import Target, Targets, View
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import build_architecture

CONV: list[Any] = [
    {"conv": 4, "kernel": 3}, "activation", {"conv": 3, "kernel": 3}, "activation", "global_avg_pool",
    {"linear": "classes"},
]  # fmt: skip
FLAT: list[Any] = [
    {"conv": 3, "kernel": 2},
    "activation",
    {"max_pool": 2},
    "flatten",
    {"linear": 5},
    "activation",
    {"linear": "classes"},
]
SHAPE, CLASSES = (1, 8, 8), 3
NUMBER, SIZE, KIND = Target("number"), Target("size", bounded=True), Target("kind", classes=2)


def architecture(layers: Sequence[Any] = CONV, activation: str = "relu") -> Architecture:
    return build_architecture(layers, SHAPE, CLASSES, activation)


def view(n: int, *architectures: Architecture, seed: int = 0) -> View:
    """n networks, of the architectures by turns, with biases, and of a scale that differs from one to the next."""
    draw = np.random.default_rng(seed)
    own = np.arange(n) % len(architectures)
    vectors = []
    for i, number in enumerate(own):
        drawn = initialize(architectures[number], f"{seed * 1000 + i:032x}", "kaiming_uniform", bias=0.1)
        vectors.append((drawn * draw.uniform(0.5, 1.5) + 0.05 * draw.standard_normal(len(drawn))).astype(np.float32))
    return View(architectures, own, vectors, pa.table({"lr": draw.uniform(size=n)}))


def targets(view: View, shuffled: int | None = None) -> Targets:
    """The spread of each network's weights as a number, between 0 and 1, and as one of two classes; some unknown."""
    spread = np.array([v.std() for v in view.vectors], np.float64)
    values = np.stack([10 * spread + 3, np.clip(spread, 0, 1), (spread > np.median(spread)).astype(float)], 1)
    if shuffled is not None:
        values = values[np.random.default_rng(shuffled).permutation(len(values))]
    values[0, 0] = values[1, 2] = np.nan
    return Targets((NUMBER, SIZE, KIND), values)


def r2(found: np.ndarray, wanted: np.ndarray) -> float:
    known = np.isfinite(wanted)
    return float(1 - ((found - wanted)[known] ** 2).mean() / wanted[known].var())


def outputs(network: torch.nn.Module, view: View) -> np.ndarray:
    network.eval()
    with torch.no_grad():
        return network((view, np.arange(len(view)))).double().numpy()
