"""Jobs and windows for the tests of the native engine: random numbers of the asked shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo_builder.engines.contract import SGD, Job, Optimizers, Window
from zoo_datasets.core import streams
from zoo_datasets.networks.augmentation import Augmentation
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
    pool: np.ndarray | None = None, right: str = "label", **settings: float,
) -> Job:  # fmt: skip
    """`right` is said once, as a "label"; of sequences for each step as "classes" or "values"."""
    steps = None if right == "label" else shape[0]
    architecture = build_architecture(layers, shape, classes, activation, steps)
    if pool is None:
        pool = np.random.default_rng(seed).standard_normal((40, *shape)).astype(np.float32)
    outputs: np.ndarray | None = None
    if right == "values":
        outputs = np.random.RandomState(seed + 1).random_sample((len(pool), shape[0], classes)).astype(np.float32)
    elif right == "classes":
        outputs = np.random.RandomState(seed + 1).randint(0, classes, (len(pool), shape[0]))
    initial = [initialize(architecture, streams.stream_key([seed, m]), "uniform") for m in range(n_models)]
    return Job(
        architecture, loss, pool, np.stack(initial), optimizers(n_models, kind, **settings), np.full(n_models, dropout),
        tuple(streams.stream_key(["dropout", seed, m]) for m in range(n_models)),
        tuple(streams.stream_key(["augment", seed, m]) for m in range(n_models)), augmentation or Augmentation(),
        batch_size=8, outputs=outputs,
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
        cohort.dropout_key[m : m + 1], cohort.augment_key[m : m + 1], cohort.augmentation, cohort.batch_size, cohort.outputs,
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


# ── plans that only a hostile manifest would make ──

CLASSES = 10
WEIRD = (-(2**40), -(2**31), -1, 0, 1, 2, 3, 7, 64, 1000, 2**24, 2**31 - 1, 2**31, 2**63 - 1)


def random_plan(rng: np.random.Generator) -> tuple[list[list[int]], list[float], int]:
    """A sound chain of layers as the kernels are told one: rows, rates, and the length of the vector."""
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    rows, rates, at, flat = [], [], 0, False
    for number in range(int(rng.integers(1, 6))):
        op = int(rng.integers(0, 17))
        kernel, stride, pad = (int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(0, 4)))
        pad = pad if op == 0 else 0
        out, weight = shape, at
        if op <= 3 and flat:
            continue
        if op <= 2:
            if min(shape[1:]) + 2 * pad < kernel:
                continue
            sides = [(n + 2 * pad - kernel) // stride + 1 for n in shape[1:]]
            out = (int(rng.integers(1, 10)) if op == 0 else shape[0], sides[0], sides[1])
            at += out[0] * (1 + shape[0] * kernel * kernel) if op == 0 else 0
        elif op in (3, 7):
            out, flat = (shape[0] if op == 3 else shape[0] * shape[1] * shape[2], 1, 1), True
        elif op == 4:
            if shape[1:] != (1, 1):
                continue
            out, flat = (int(rng.integers(1, 20)), 1, 1), True
            at += out[0] * (1 + shape[0])
        elif op == 5:
            at += 4 * shape[0]
        place = number
        if op == 16:  # of the input and all layers, one of this shape: there is at least the one before
            shapes = [tuple(rows[0][1:4]) if rows else shape, *(tuple(row[4:7]) for row in rows)]
            place = int(rng.choice([i - 1 for i, s in enumerate(shapes) if s == shape]))
        rows.append([op, *shape, *out, kernel, stride, pad, place, weight])
        rates.append(float(rng.choice([-1.0, 0.0, 0.5])))
        shape = out
    units = shape[0] * shape[1] * shape[2]
    rows.append([7, *shape, units, 1, 1, 0, 1, 0, 9, at])
    rows.append([4, units, 1, 1, CLASSES, 1, 1, 0, 1, 0, 10, at])
    return rows, [*rates, -1.0, -1.0], at + CLASSES * (1 + units)


def try_plans(module: Any, paths: list[str], rounds: int, seed: int = 0) -> dict[str, int]:
    """Random plans, sound and with one or two numbers changed, each evaluated: how many were refused, and ran."""
    rng, counts = np.random.default_rng(seed), {"sound": 0, "refused": 0, "ran": 0}
    for round_ in range(rounds):
        rows, rates, n_params = random_plan(rng)
        sound = round_ % 4 == 0
        for _ in range(0 if sound else int(rng.integers(1, 3))):
            row = rows[int(rng.integers(len(rows)))]
            row[int(rng.integers(12))] = int(rng.choice(np.array(WEIRD, object)))
        constants, moves = (1e-5, 0.1, 0.01), (0, 0, False)
        try:
            made = module.Kernels(
                paths[round_ % len(paths)], rows, rates, False, n_params, 0, constants, moves, [], []
            )  # fmt: skip
        except ValueError:
            assert not sound, rows
            counts["refused"] += 1
            continue
        counts["sound" if sound else "ran"] += 1
        images = rng.standard_normal((9, int(np.prod(rows[0][1:4])))).astype(np.float32)
        made.evaluate(np.zeros((2, n_params), np.float32), images, None, np.empty((2, 9, rows[-1][4]), np.float32))
    return counts
