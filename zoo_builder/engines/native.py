"""Job → trained models by C++ kernels on one CPU core: the fast engine.

In:  a `Job` and windows of steps. Out: losses, states, logits, as `contract.Backend` says.

A model gets the same bits alone, in any cohort, in any cut into windows, and on every CPU
with fused multiply-add: the builds for different instruction sets do the same arithmetic.
The kernels are optional; `available` says why they are missing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Augmentation, Job, Window, check_batches
from zoo_datasets import models, streams
from zoo_datasets.models import Architecture

try:
    from zoo_builder.native import _kernels
except ImportError as error:  # built without a compiler
    _kernels, _missing = None, str(error)

# What the bits depend on. Raise it with any change of arithmetic in zoo_builder/native.
VERSION = "native 2"

# Forces one build ("avx512", "avx2", "plain"); the bits are the same, so only tests need it.
PATH_VARIABLE = "WEIGHTZOO_NATIVE_PATH"

# The order of plan.h's enum.
_OPS = (
    "conv", "max_pool", "avg_pool", "global_avg_pool", "linear", "batch_norm", "dropout", "flatten",
    "relu", "tanh", "sigmoid", "gelu", "elu", "silu", "leaky_relu", "softmax",
)  # fmt: skip
_LOSSES = ("cross_entropy", "mse")
_MOST_CHANNELS = 64  # of augmentation's noise and fill, fixed arrays in random.h


def available() -> str | None:
    """Why the kernels cannot run here, or None."""
    if _kernels is None:
        return f"the C++ kernels were not built ({_missing})"
    if not _kernels.paths():
        return "this CPU has no fused multiply-add"
    return None


def supported(architecture: Architecture, loss: str, augmentation: Augmentation) -> str | None:
    """Why the kernels cannot train such a cohort, or None."""
    before = "input"
    for node in architecture.nodes:
        if node.op not in _OPS:
            return f"no kernel for layer {node.op!r} ({node.name})"
        if node.inputs != (before,):
            return f"{node.name} takes {', '.join(node.inputs)}; the kernels know only chains of layers"
        if node.op == "linear" and len(_shape_before(architecture, node)) != 1:
            return f"{node.name} needs a flat input"
        before = node.name
    if not any(e.role == "parameter" for e in architecture.layout):
        return "there is nothing to train"
    if loss not in _LOSSES:
        return f"no kernel for loss {loss!r}"
    if max(len(augmentation.noise), len(augmentation.fill)) > _MOST_CHANNELS:
        return f"augmentation of more than {_MOST_CHANNELS} channels"
    return None


# Where eager PyTorch (the better of its two memory layouts) overtakes the kernels: the product
# of a layer's input and output widths. Measured on one Zen 3 core, batch 64, native over eager:
# convolutions of 32-64-128 channels 1.27, 64-64-64 1.12, 96-128 1.03, 48-96-192 1.01, 128-128 0.91,
# 64-128-256 0.87, 128-256 0.84; linear layers of 256-256 1.55, 320-320 1.54, 512-512 0.92, 1024-1024 0.53.
WIDEST = {"conv": 14_000, "linear": 280_000}


def slower(architecture: Architecture) -> str | None:
    """Why PyTorch trains such networks faster, or None: by the widths of the layers that take the time.

    A rule, not a limit: a cohort over it can be trained here as well.
    """
    work = over = 0.0
    shape = architecture.input_shape
    for node in architecture.nodes:
        if node.op in WIDEST:
            multiplications = architecture.entries(node.name)[0].size * math.prod(node.shape[1:])
            work += multiplications
            over += multiplications * shape[0] * node.shape[0] / WIDEST[node.op]
        shape = node.shape
    if not work or over <= work:
        return None
    return f"PyTorch is faster on layers this wide ({over / work:.1f} times the width where it overtakes)"


class NativeBackend:
    """M models, trained one after another below Python, with the interpreter's lock released."""

    name = "native"
    version = VERSION

    def __init__(self, job: Job, path: str | None = None) -> None:
        """`path` forces a build. Raises ValueError where the job cannot be trained here."""
        obstacle = available() or supported(job.architecture, job.loss, job.augmentation)
        if obstacle:
            raise ValueError(f"Engine 'native' cannot train this cohort: {obstacle}. Use `--engine torch_batched`.")
        self._job = job
        self._weights = np.array(job.initial, np.float32, order="C")
        self._slot1, self._slot2 = np.zeros_like(self._weights), np.zeros_like(self._weights)
        self._pool = _flat(job.pool)
        self._keys = [_keys(keys) for keys in (job.dropout_key, job.augment_key)]
        self.path = path or os.environ.get(PATH_VARIABLE) or _kernels.paths()[0]
        self._kernels = _kernels.Kernels(self.path, *_plan(job))

    def state(self) -> dict[str, np.ndarray]:
        return {"weights": self._weights.copy(), "slot1": self._slot1.copy(), "slot2": self._slot2.copy()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        for name, own in (("weights", self._weights), ("slot1", self._slot1), ("slot2", self._slot2)):
            own[...] = state[name]

    def advance(self, window: Window) -> np.ndarray:
        """As the contract says. After a KeyboardInterrupt only `load_state` makes the state whole again."""
        job, o = self._job, self._job.optimizers
        check_batches(job.architecture, window)
        losses = np.full((job.n_models, len(window.batch_sizes)), np.nan, np.float32)
        settings = (o.momentum, o.beta1, o.beta2, o.eps, o.alpha, o.weight_decay, o.clip_norm)
        self._kernels.advance(
            self._weights, self._slot1, self._slot2, self._pool, window.first_step,
            _as(window.batch_sizes, np.int64), _as(window.rows, np.int32), _as(window.targets, np.int32),
            [_as(v, np.float64) for v in (window.lr, window.bias1, window.bias2)],
            _as(window.active, np.uint8), _as(o.kind, np.int32), _as(o.nesterov, np.uint8),
            [_as(v, np.float64) for v in settings], _as(job.dropout_rate, np.float64), *self._keys, losses,
        )  # fmt: skip
        return losses

    def logits(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        count = len(images) if rows is None else rows.shape[1]
        out = np.empty((self._job.n_models, count, self._job.architecture.n_outputs), np.float32)
        self._kernels.evaluate(self._weights, _flat(images), None if rows is None else _as(rows, np.int32), out)
        return out


def _plan(job: Job) -> tuple[Any, ...]:
    """The arguments of `_kernels.Kernels` after the path."""
    architecture, a = job.architecture, job.augmentation
    flat = len(architecture.input_shape) == 1
    layers, rates, shape = [], [], architecture.input_shape
    for number, node in enumerate(architecture.nodes):
        entries = architecture.entries(node.name)
        layers.append([
            _OPS.index(node.op), *_three(shape), *_three(node.shape), node.attrs.get("kernel", 0),
            node.attrs.get("stride", 1), node.attrs.get("padding", 0), number, entries[0].offset if entries else 0,
        ])  # fmt: skip
        rate = node.attrs.get("rate")
        rates.append(-1.0 if rate is None else float(rate))
        shape = node.shape
    constants = (models.BATCH_NORM_EPS, models.BATCH_NORM_MOMENTUM, models.LEAKY_RELU_SLOPE)
    loss = _LOSSES.index(job.loss)
    for kind in np.unique(job.optimizers.kind):
        if kind not in (SGD, ADAM, ADAMW, RMSPROP):
            raise ValueError(f"Unknown optimizer kind {kind}. Known: SGD 0, ADAM 1, ADAMW 2, RMSPROP 3.")
    return (
        layers, rates, flat, architecture.n_params, loss, constants, (a.shift, a.crop, a.flip), list(a.noise), list(a.fill),
    )  # fmt: skip


def _shape_before(architecture: Architecture, node: models.Node) -> tuple[int, ...]:
    source = node.inputs[0]
    return (
        architecture.input_shape if source == "input" else next(n.shape for n in architecture.nodes if n.name == source)
    )


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def _flat(images: np.ndarray) -> np.ndarray:
    """(N, *shape) → (N, units), float32, without a copy where that is what it is."""
    return _as(images, np.float32).reshape(len(images), -1)


def _as(values: np.ndarray, kind: type) -> np.ndarray:
    return np.ascontiguousarray(values, kind)


def _keys(keys: Sequence[str]) -> np.ndarray:
    return np.stack([streams.key_words(key) for key in keys])  # (M, 2) uint64
