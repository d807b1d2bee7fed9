"""Job → trained models by C++ kernels on one CPU core: the fast engine.

In:  a `Job` and windows of steps. Out: losses, states, logits, as `contract.Backend` says.

A model gets the same bits alone, in any cohort, in any cut into windows, and on every CPU
with fused multiply-add: the builds for different instruction sets do the same arithmetic.
The kernels are optional; `kernels.missing` says why they are missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, UInt64

from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Job, Window, check_batches
from zoo_datasets.core import streams
from zoo_datasets.networks import kernels
from zoo_datasets.networks.kernels import flat

# What the bits depend on. Raise it with any change of arithmetic in zoo_datasets/networks/native.
VERSION = "native 3"


class NativeBackend:
    """M models, trained one after another below Python, with the interpreter's lock released."""

    name = "native"
    version = VERSION

    def __init__(self, job: Job) -> None:
        """Raises ValueError where the job cannot be trained here."""
        obstacle = kernels.impossible(job.architecture, job.loss, job.augmentation.channels)
        if obstacle:
            raise ValueError(f"Engine 'native' cannot train this cohort: {obstacle}. Use `--engine torch_batched`.")
        self._job = job
        self._weights = np.array(job.initial, np.float32, order="C")
        self._slot1, self._slot2 = np.zeros_like(self._weights), np.zeros_like(self._weights)
        self._pool = flat(job.pool)
        self._right = {}  # what is right step by step
        if job.outputs is not None:
            values = job.outputs.ndim == 3
            self._right = {"values" if values else "classes": _as(job.outputs, np.float32 if values else np.int64)}
        self._factors = {}
        if job.rate_factors is not None:
            ends = [e.end for e in job.architecture.layout]
            self._factors = {
                "factors": _as(job.rate_factors, np.float64),
                "pieces": np.array([0, *ends], np.int64),
            }
        self._keys = [_keys(keys) for keys in (job.dropout_key, job.augment_key)]
        for kind in np.unique(job.optimizers.kind):
            if kind not in (SGD, ADAM, ADAMW, RMSPROP):
                raise ValueError(f"Unknown optimizer kind {kind}. Known: SGD 0, ADAM 1, ADAMW 2, RMSPROP 3.")
        self._kernels, self.path = kernels.make(job.architecture, job.loss, job.augmentation.for_kernels())

    def state(self) -> dict[str, Float32[np.ndarray, "m p"]]:
        return {"weights": self._weights.copy(), "slot1": self._slot1.copy(), "slot2": self._slot2.copy()}

    def weights(self, models: Sequence[int]) -> Float32[np.ndarray, "k p"]:
        return self._weights[list(models)]

    def load_state(self, state: dict[str, Float32[np.ndarray, "m p"]]) -> None:
        for name, own in (("weights", self._weights), ("slot1", self._slot1), ("slot2", self._slot2)):
            own[...] = state[name]

    def advance(self, window: Window) -> Float32[np.ndarray, "m t"]:
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
            **self._right, **self._factors,
        )  # fmt: skip
        return losses

    def logits(
        self, images: Float[np.ndarray, " n *input"], rows: Int[np.ndarray, "m k"] | None = None,
        models: Sequence[int] | None = None,
    ) -> Float32[np.ndarray, "m shown c"]:  # fmt: skip
        weights = self._weights if models is None else self._weights[list(models)]
        count = len(images) if rows is None else rows.shape[1]
        out = np.empty((len(weights), count, self._job.architecture.n_logits), np.float32)
        self._kernels.evaluate(weights, flat(images), None if rows is None else _as(rows, np.int32), out)
        return out


def _as(values: np.ndarray, kind: type) -> np.ndarray:
    return np.ascontiguousarray(values, kind)


def _keys(keys: Sequence[str]) -> UInt64[np.ndarray, "m 2"]:
    return np.stack([streams.key_words(key) for key in keys])
