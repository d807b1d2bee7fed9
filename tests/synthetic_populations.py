"""Networks of random weights, as a baseline sees them, and targets that their weights determine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.baselines.interface import Target, Targets, View
from zoo_datasets.networks.layers import build_architecture

MLP = ["flatten", {"linear": 5}, "activation", {"linear": 4}, "activation", {"linear": "classes"}]
CNN = [{"conv": 4, "kernel": 3}, "activation", {"max_pool": 2}, {"conv": 3, "kernel": 2}, "activation", "flatten",
       {"linear": 5}, "activation", {"linear": "classes"}]  # fmt: skip


def random_view(layers: str | Sequence[Any], shape: tuple[int, ...], n: int, seed: int, classes: int = 3) -> View:
    """n networks of one layout; each network's weights have a size of their own, in [0.5, 1.5]."""
    architecture = build_architecture(layers, shape, classes, "relu")
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.5, (n, architecture.n_params)) * rng.uniform(0.5, 1.5, (n, 1))
    recipe = pa.table({"lr": rng.uniform(size=n)})
    return View((architecture,), np.zeros(n, np.int64), list(weights.astype(np.float32)), recipe)


def size_targets(view: View) -> Targets:
    """What the size of a network's weights says: a number, a share in (0, 1), and which of three thirds it is in."""
    size = np.log(view.matrix.std(1).astype(np.float64))
    rank = np.argsort(np.argsort(size)) / len(size)
    values = np.stack([100 + 5 * size, 0.2 + 0.6 * rank, np.floor(3 * rank)], 1)
    return Targets((Target("size"), Target("share", bounded=True), Target("third", classes=3)), values)


def shuffled(targets: Targets, seed: int) -> Targets:
    return targets.take(np.random.default_rng(seed).permutation(len(targets.values)))
