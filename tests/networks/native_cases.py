"""Jobs and windows for the tests of the native engine: random numbers of the asked shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo_builder.engines.contract import SGD, Augmentation, Job, Optimizers, Window
from zoo_datasets.core import streams
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import build_architecture


def optimizers(n_models: int, kind: int = SGD, **settings: float) -> Optimizers:
    """The same rule for all models; momentum ½ leaves the first gradient in `slot1` as it is."""
    defaults = {"momentum": 0.5, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "alpha": 0.99, "weight_decay": 0.0}
    values = {**defaults, "clip_norm": math.inf, "nesterov": False, **settings}
    nesterov = np.full(n_models, bool(values.pop("nesterov")))
    return Optimizers(
        np.full(n_models, kind, np.int32),
        nesterov=nesterov,
        **{k: np.full(n_models, float(v)) for k, v in values.items()},
    )


def job(
    layers: Any, shape: tuple[int, ...], *, classes: int = 10, activation: str = "relu", n_models: int = 2, seed: int = 0,
    loss: str = "cross_entropy", augmentation: Augmentation | None = None, dropout: float = 0.0, kind: int = SGD,
    pool: np.ndarray | None = None, **settings: float,
) -> Job:  # fmt: skip
    architecture = build_architecture(layers, shape, classes, activation)
    if pool is None:
        pool = np.random.default_rng(seed).standard_normal((40, *shape)).astype(np.float32)
    initial = [initialize(architecture, streams.stream_key([seed, m]), "uniform") for m in range(n_models)]
    return Job(
        architecture, loss, pool, np.stack(initial), optimizers(n_models, kind, **settings), np.full(n_models, dropout),
        tuple(streams.stream_key(["dropout", seed, m]) for m in range(n_models)),
        tuple(streams.stream_key(["augment", seed, m]) for m in range(n_models)), augmentation or Augmentation(),
    )  # fmt: skip


def window(cohort: Job, sizes: list[int], *, lr: float = 0.01, first: int = 0, seed: int = 1) -> Window:
    """Steps of these batch sizes, every model with its own examples."""
    generator = np.random.default_rng([seed, first])
    m, t, n = cohort.n_models, len(sizes), sum(sizes)
    exponent = first + 1.0 + np.arange(t)
    o = cohort.optimizers
    return Window(
        first, np.array(sizes, np.int64), generator.integers(0, len(cohort.pool), (m, n)).astype(np.int32),
        generator.integers(0, cohort.architecture.n_outputs, (m, n)).astype(np.int32), np.full((m, t), lr),
        1 - o.beta1[:, None] ** exponent, 1 - o.beta2[:, None] ** exponent, np.ones(m, bool),
    )  # fmt: skip


def member(cohort: Job, m: int) -> Job:
    """One model of a cohort, alone."""
    o = cohort.optimizers
    return Job(
        cohort.architecture, cohort.loss, cohort.pool, cohort.initial[m : m + 1],
        Optimizers(**{k: v[m : m + 1] for k, v in vars(o).items()}), cohort.dropout_rate[m : m + 1],
        cohort.dropout_key[m : m + 1], cohort.augment_key[m : m + 1], cohort.augmentation,
    )  # fmt: skip


def part(w: Window, m: slice = slice(None), steps: slice = slice(None)) -> Window:
    """Some models and some consecutive steps of a window."""
    start, stop, _ = steps.indices(len(w.batch_sizes))
    ends = np.concatenate([[0], np.cumsum(w.batch_sizes)])
    examples = slice(int(ends[start]), int(ends[stop]))
    return Window(
        w.first_step + start, w.batch_sizes[steps], w.rows[m, examples], w.targets[m, examples], w.lr[m, steps],
        w.bias1[m, steps], w.bias2[m, steps], w.active[m],
    )  # fmt: skip
