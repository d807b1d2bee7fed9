"""Workloads that engines are measured on: networks of published zoos, as jobs and windows of random data."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from zoo_builder.engines.contract import ADAM, Job, Optimizers, Window
from zoo_datasets.core import streams
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import PRESETS, build_architecture

POOL = 10_000  # images, as in a training set that no cache holds
LR = 1e-3
STARTS = 64  # initial weights that are drawn; larger cohorts repeat them


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    what: str
    layers: list | str
    shape: tuple[int, ...]
    batch: int
    classes: int = 10

    @property
    def architecture(self) -> Architecture:
        return build_architecture(self.layers, self.shape, self.classes, "relu")

    @property
    def flop(self) -> int:
        """Per training step."""
        total, first = 0, True
        for node in self.architecture.nodes:
            if node.op in ("conv", "linear", "gru"):
                weights = sum(e.size for e in self.architecture.layout.of_node(node.name) if len(e.shape) > 1)
                places = node.shape[0] if node.op == "gru" else math.prod(node.shape[1:])
                total += 2 * weights * places * (2 if first else 3)
                first = False
        return total * self.batch


def block(channels: int) -> list:
    return [{"conv": channels, "kernel": 5, "padding": 2}, "batch_norm", "activation", {"max_pool": 2}]


def pooled(channels: int) -> list:
    return [{"conv": channels, "kernel": 3, "padding": 1}, {"max_pool": 2}, "activation"]


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", "CNN of Model Zoos, 2,464 parameters", [x for x in PRESETS["small-cnn"] if x != "dropout"], (1, 28, 28), 32),
        Workload("W2", "CNN of the Small CNN Zoo, 4,970 parameters", "small-cnn-gap", (1, 28, 28), 64),
        Workload("W3", "MLP 784-32-32-10", ["flatten", {"linear": 32}, "activation", {"linear": 32}, "activation", {"linear": "classes"}], (1, 28, 28), 64),
        Workload("W4", "GRU of 16 units on 64 steps of 16", ["rows", {"gru": 16}, "last_step", {"linear": "classes"}], (1, 64, 16), 128),
        Workload("W5", "CNN 16-32-64, fc 128, on 32×32×3", [*pooled(16), *pooled(32), *pooled(64), "flatten", {"linear": 128}, "activation", {"linear": "classes"}], (3, 32, 32), 64),
        Workload("W6", "CNN 8-16-32 of 5×5 with batch norm, fc 128-64, 92,868 values", [*block(8), *block(16), *block(32), "flatten", {"linear": 128}, "batch_norm", "activation", {"linear": 64}, "batch_norm", "activation", {"linear": "classes"}], (3, 32, 32), 64, 20),
        Workload("MLDS", "4 GRUs of 12 units and 5 linear layers on 10 steps of 9, 4,364 parameters", ["rows", *({"gru": 12} for _ in range(4)), "last_step", *(x for _ in range(4) for x in ({"linear": 12}, "activation")), {"linear": "classes"}], (1, 10, 9), 64, 8),
    )
}  # fmt: skip
# W1 as published: what it is compared with has no streams of masks.
DROPPING = Workload("W1D", "CNN of Model Zoos with its dropout, 2,464 parameters", "small-cnn", (1, 28, 28), 32)


def job_of(w: Workload, n_models: int, pool: np.ndarray) -> Job:
    """A cohort under Adam, every model with its own weights."""
    a = w.architecture
    vector = lambda x: np.full(n_models, float(x))  # noqa: E731
    some = [initialize(a, streams.stream_key([w.name, m]), "uniform") for m in range(min(n_models, STARTS))]
    initial = np.stack([some[m % len(some)] for m in range(n_models)])
    optimizers = Optimizers(
        np.full(n_models, ADAM, np.int32), vector(0), np.zeros(n_models, bool), vector(0.9), vector(0.999), vector(1e-8),
        vector(0.99), vector(0), vector(math.inf),
    )  # fmt: skip
    keys = tuple(streams.stream_key(["none", m]) for m in range(n_models))
    return Job(a, "cross_entropy", pool, initial, optimizers, vector(0), keys, keys, Augmentation(), w.batch)


def window_of(
    w: Workload, n_models: int, steps: int, labels: np.ndarray, first: int, generator: np.random.Generator
) -> Window:
    """So many steps of every model, each on batches of its own."""
    t = first + 1.0 + np.arange(steps)
    rows = generator.integers(0, len(labels), (n_models, steps * w.batch), np.int32)
    return Window(
        first, np.full(steps, w.batch), rows, labels[rows].astype(np.int32), np.full((n_models, steps), LR),
        np.broadcast_to(1 - 0.9**t, (n_models, steps)), np.broadcast_to(1 - 0.999**t, (n_models, steps)),
        np.ones(n_models, bool),
    )  # fmt: skip


def data_of(w: Workload) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    pool = generator.standard_normal((POOL, *w.shape), np.float32)
    return pool, generator.integers(0, w.classes, POOL)
