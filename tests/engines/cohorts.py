"""Cohorts for tests of engines: jobs, windows, their parts, and layers and update rules of every kind."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Job, Optimizers, Window
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import build_architecture

CLASSES = 5

# Everything that can go wrong between two models: shared statistics, dropout, pooling, clipping.
RICH = [
    {"conv": 4}, "batch_norm", {"max_pool": 2}, "activation", "dropout", "flatten",
    {"linear": 6}, "batch_norm", "activation", {"linear": "classes"},
]  # fmt: skip


LAYERS = {
    "conv": [{"conv": 4}, "activation", {"conv": 3}, "activation", "flatten", {"linear": "classes"}],
    "stride": [{"conv": 4, "stride": 2, "padding": 1}, "activation", {"conv": 5, "kernel": 2}, "flatten", {"linear": 5}],
    "max_pool": [{"conv": 4}, {"max_pool": 2}, "activation", "flatten", {"linear": "classes"}],
    "overlap": [{"conv": 4}, "activation", {"max_pool": 3, "stride": 1}, "flatten", {"linear": "classes"}],
    "avg_pool": [{"conv": 4}, "activation", {"avg_pool": 3, "stride": 1}, "flatten", {"linear": "classes"}],
    "gap": [{"conv": 4}, "activation", "global_avg_pool", {"linear": "classes"}],
    "mlp": ["flatten", {"linear": 7}, "activation", {"linear": 6}, "activation", {"linear": "classes"}],
    "norm2d": [{"conv": 4}, "batch_norm", "activation", "global_avg_pool", {"linear": "classes"}],
    "norm1d": ["flatten", {"linear": 7}, "batch_norm", "activation", {"linear": "classes"}],
    "dropout": [{"conv": 4}, "activation", "dropout", "flatten", {"linear": 6}, "activation", {"dropout": 0.25}, {"linear": 5}],
    "input": ["activation", "dropout", {"max_pool": 2}, "batch_norm", {"conv": 4, "kernel": 2}, "flatten", {"linear": 5}],
    "gru": [{"conv": 4}, "rows", {"gru": 5}, "dropout", {"gru": 6}, "last_step", "activation", {"linear": "classes"}],
    "lstm": [{"conv": 4}, "rows", {"lstm": 5}, "dropout", {"lstm": 6}, "last_step", "activation", {"linear": "classes"}],
    "lstm on tiles": [{"conv": 3, "padding": 1}, {"tiles": 4}, {"lstm": CLASSES}, "last_step"],
    "tiles of images": [{"tiles": 2}, {"gru": 3}, {"linear": 6}, "tanh", "last_step", {"linear": "classes"}],
    "gru on rows": ["rows", {"gru": CLASSES}, "last_step"],
    "skips": [
        {"conv": 4}, "activation", {"residual": [{"conv": 4, "padding": 1}, "activation", "dropout", {"conv": 4, "padding": 1}]},
        "activation", {"max_pool": 2}, "flatten", {"residual": [{"linear": 36}, "activation"]}, {"linear": "classes"},
    ],
    "skipped input": [
        {"residual": [{"conv": 2, "padding": 1}, "batch_norm", "activation"]}, {"conv": 4}, {"residual": ["activation"]},
        "global_avg_pool", {"linear": "classes"},
    ],
    "skips over images alone": [{"residual": [{"max_pool": 1}, "activation"]}, {"residual": [{"conv": 2, "padding": 1}]}, "flatten", {"linear": 5}],
    "skips of sequences": ["rows", {"gru": 6}, {"residual": [{"gru": 6}, "tanh"]}, "last_step", {"linear": "classes"}],
    "last conv": [{"conv": 4}, "activation", {"conv": CLASSES, "kernel": 6}, "flatten"],
}  # fmt: skip


# One cohort holds them all, its kinds out of order.
RULES = {
    "adam": (ADAM, {}, lambda p: torch.optim.Adam(p)),
    "sgd": (SGD, {}, lambda p: torch.optim.SGD(p)),
    "rmsprop": (RMSPROP, {"alpha": 0.9, "weight_decay": 0.01}, lambda p: torch.optim.RMSprop(p, alpha=0.9, weight_decay=0.01)),
    "momentum": (SGD, {"momentum": 0.9, "weight_decay": 0.02}, lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.02)),
    "adamw": (ADAMW, {"weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, weight_decay=0.1)),
    "nesterov": (SGD, {"momentum": 0.8, "nesterov": True}, lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8, nesterov=True)),
    "adam + L2": (
        ADAM, {"weight_decay": 0.05, "beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
        lambda p: torch.optim.Adam(p, weight_decay=0.05, betas=(0.8, 0.99), eps=1e-4),
    ),
    "sgd, clipped": (SGD, {"clip_norm": 0.05, "momentum": 0.5}, lambda p: torch.optim.SGD(p, momentum=0.5)),
    "adam, clipped": (ADAM, {"clip_norm": 0.3}, lambda p: torch.optim.Adam(p)),
}  # fmt: skip
BASE_LR = {SGD: 0.03, ADAM: 1e-3, ADAMW: 1e-3, RMSPROP: 3e-4}


def make_optimizers(m: int, **vectors: object) -> Optimizers:
    plain = {
        "kind": SGD, "momentum": 0.0, "nesterov": False, "beta1": 0.9, "beta2": 0.999,
        "eps": 1e-8, "alpha": 0.99, "weight_decay": 0.0, "clip_norm": np.inf,
    }  # fmt: skip
    types = {"kind": np.int32, "nesterov": bool}
    return Optimizers(
        **{k: np.broadcast_to(np.asarray(v, types.get(k, float)), m).copy() for k, v in (plain | vectors).items()}
    )


SEQUENCES = {  # of layers that give an output at each of six steps
    "mlds": [*[{"gru": 5}] * 2, {"linear": 4}, "activation", {"linear": "classes"}],
    "lstm": [{"lstm": 6}, "dropout", {"lstm": 5}, {"linear": "classes"}],
    "linear": [{"linear": 7}, "activation", {"linear": "classes"}],
    "gru": [{"gru": CLASSES}],
}


def make_sequences(layers, m=3, *, values=True, n=40, steps=6, features=4, **changes) -> Job:
    """A job of sequences with what is right at each step: values, or classes."""
    architecture = build_architecture(layers, (steps, features), CLASSES, changes.pop("activation", "tanh"), steps)
    generator = np.random.default_rng(8)
    pool = generator.standard_normal((n, steps, features)).astype(np.float32)
    outputs = (
        generator.random((n, steps, CLASSES)).astype(np.float32)
        if values
        else generator.integers(0, CLASSES, (n, steps))
    )
    initial = np.stack([initialize(architecture, f"{i:032x}", "uniform", bias=0.1) for i in range(m)])
    made = make_job(["flatten", {"linear": "classes"}], m=m)
    given = {"loss": "mse" if values else "cross_entropy", "pool": pool, "initial": initial, "outputs": outputs}
    return dataclasses.replace(made, architecture=architecture, **(given | changes))


def make_job(layers, shape=(2, 8, 8), m=3, *, activation="tanh", n=40, **changes) -> Job:
    """Random images and weights; arrays are read-only, because engines must not write to them."""
    architecture = build_architecture(layers, shape, CLASSES, activation)
    generator = np.random.default_rng(7)
    pool = generator.standard_normal((n, *shape)).astype(np.float32)
    initial = np.stack([initialize(architecture, f"{i:032x}", "uniform", bias=0.1) for i in range(m)])
    pool.flags.writeable = initial.flags.writeable = False
    given = {
        "loss": "cross_entropy",
        "pool": pool,
        "initial": initial,
        "optimizers": make_optimizers(m),
        "dropout_rate": np.zeros(m),
        "dropout_key": tuple(f"{i + 1000:032x}" for i in range(m)),
        "augment_key": tuple(f"{i + 2000:032x}" for i in range(m)),
        "augmentation": Augmentation(),
        "batch_size": 8,
    }
    return Job(architecture=architecture, **(given | changes))


def make_window(job: Job, batch_sizes, lr=0.05, first_step=0, active=None) -> Window:
    """Random batches; `lr` is a number, (M, 1) or (M, T)."""
    m, sizes = job.n_models, np.asarray(batch_sizes, np.int64)
    generator = np.random.default_rng(11)
    t = np.arange(first_step + 1, first_step + len(sizes) + 1)
    o = job.optimizers
    return Window(
        first_step=first_step,
        batch_sizes=sizes,
        rows=generator.integers(0, len(job.pool), (m, sizes.sum())).astype(np.int32),
        targets=generator.integers(0, CLASSES, (m, sizes.sum())).astype(np.int32),
        lr=np.broadcast_to(np.asarray(lr, float), (m, len(sizes))).copy(),
        bias1=1 - o.beta1[:, None] ** t,
        bias2=1 - o.beta2[:, None] ** t,
        active=np.ones(m, bool) if active is None else np.asarray(active),
    )


def cut(window: Window, start: int, stop: int) -> Window:
    """Steps [start, stop) of a window as a window of its own."""
    ends = np.concatenate([[0], np.cumsum(window.batch_sizes)])
    part = slice(ends[start], ends[stop])
    steps = {k: getattr(window, k)[:, start:stop] for k in ("lr", "bias1", "bias2")}
    return dataclasses.replace(
        window, first_step=window.first_step + start, batch_sizes=window.batch_sizes[start:stop],
        rows=window.rows[:, part], targets=window.targets[:, part], **steps,
    )  # fmt: skip


def take(job: Job, window: Window, members: list[int]) -> tuple[Job, Window]:
    """The same job and window for some of the models."""
    o = {f.name: getattr(job.optimizers, f.name)[members] for f in dataclasses.fields(Optimizers)}
    smaller = dataclasses.replace(
        job,
        initial=job.initial[members],
        optimizers=Optimizers(**o),
        dropout_rate=job.dropout_rate[members],
        dropout_key=tuple(job.dropout_key[i] for i in members),
        augment_key=tuple(job.augment_key[i] for i in members),
    )
    arrays = {k: getattr(window, k)[members] for k in ("rows", "targets", "lr", "bias1", "bias2", "active")}
    return smaller, dataclasses.replace(window, **arrays)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """The same bits, NaN included."""
    return all(a[k].tobytes() == b[k].tobytes() for k in ("weights", "slot1", "slot2"))


def rich_job(m: int = 5, **changes) -> Job:
    kinds = np.resize([ADAM, SGD, RMSPROP, ADAMW], m)
    optimizers = make_optimizers(m, kind=kinds, momentum=0.9, weight_decay=0.01, clip_norm=np.resize([1.0, np.inf], m))
    given = {
        "optimizers": optimizers,
        "dropout_rate": np.linspace(0, 0.5, m),
        "augmentation": Augmentation(shift=1, fill=(0, 0)),
    }
    return make_job(RICH, m=m, **(given | changes))  # fmt: skip
