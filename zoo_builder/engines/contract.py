"""What an engine is given and what it must do: arrays only, no recipe, no files.

A `Job` is a cohort as an engine sees it: M models of one architecture, batch schedule and
loss, that differ in weights, data, optimizer and rates. A `Backend` holds their parameters
and optimizer state and offers two verbs: `advance` by the steps of a `Window`, and
`logits` in evaluation mode. Snapshots, stop rules, metrics, divergence and checkpoints are
the same for every engine and live in `zoo_builder/training/`.

Letters: M models, N pool images, n examples, T steps, P parameters, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation

# Update rules, as `Optimizers.kind`. `momentum` and `nesterov` are SGD with those vectors set.
SGD, ADAM, ADAMW, RMSPROP = range(4)


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """The update rule of every model.

    The rules are PyTorch's (torch.optim), with g the mean gradient of the batch, clipped
    per model to `clip_norm` (inf: never) by g ← g · min(1, clip / (‖g‖₂ + 1e-6)):

    * all but ADAMW: g ← g + weight_decay · p. ADAMW: p ← p · (1 − lr · weight_decay) first.
    * SGD: b ← momentum · b + g; p ← p − lr · (g + momentum · b if nesterov, else b).
    * ADAM, ADAMW: m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²;
      p ← p − (lr / bias1) · m / (√v / √bias2 + eps), bias_i = 1 − β_i^t, t = 1 at the first step.
    * RMSPROP: v ← alpha · v + (1 − alpha) g²; p ← p − lr · g / (√v + eps).

    Where `Job.rate_factors` names one, a tensor's lr is lr · factor and its weight_decay is weight_decay / factor; ADAMW's
    first line, which has both, is as it was.

    Buffers (running statistics) are left alone by all of it.
    """

    kind: Int32[np.ndarray, " m"]
    momentum: Float64[np.ndarray, " m"]
    nesterov: Bool[np.ndarray, " m"]
    beta1: Float64[np.ndarray, " m"]
    beta2: Float64[np.ndarray, " m"]
    eps: Float64[np.ndarray, " m"]
    alpha: Float64[np.ndarray, " m"]
    weight_decay: Float64[np.ndarray, " m"]
    clip_norm: Float64[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True)
class Job:
    """A cohort as arrays. Engines never write to `pool` or `initial`."""

    architecture: Architecture
    # "cross_entropy": −log softmax; "mse": mean over B·C of (logit − one-hot)². Of sequences with `outputs` the mean runs over
    # steps too, and "mse" of values is that of (logit − value)².
    loss: str
    pool: Float32[np.ndarray, " pool *input"]  # scaled; shared by all models, read-only
    initial: Float32[np.ndarray, "m p"]
    optimizers: Optimizers
    dropout_rate: Float64[np.ndarray, " m"]  # for the dropout nodes whose own rate is None
    dropout_key: tuple[str, ...]  # M keys
    augment_key: tuple[str, ...]  # M keys
    augmentation: Augmentation
    batch_size: int  # the largest batch of a step
    # What is right at each step of the pool's sequences: values (N, T, K) float32, or classes (N, T) int64. Then a window's
    # `targets` mean nothing.
    outputs: np.ndarray | None = None
    # Of each tensor of the layout, buffers too; positive. None: 1 for all.
    rate_factors: Float64[np.ndarray, "m tensors"] | None = None

    @property
    def n_models(self) -> int:
        return len(self.initial)


@dataclasses.dataclass(frozen=True)
class Window:
    """T consecutive steps of one epoch: the same batch sizes for every model.

    The examples of the steps lie one after another: step j has rows
    [sum(batch_sizes[:j]), sum(batch_sizes[:j+1])). Learning rates and Adam's bias
    corrections come ready made, because `pow` and `cos` differ between machines.
    """

    first_step: int  # updates done before this window; dropout at step s uses counter s
    batch_sizes: Int64[np.ndarray, " t"]  # each ≥ 1
    rows: Int32[np.ndarray, "m n"]  # into the pool
    targets: Int32[np.ndarray, "m n"]  # classes; of sequences with `Job.outputs` zeros
    lr: Float64[np.ndarray, "m t"]
    bias1: Float64[np.ndarray, "m t"]
    bias2: Float64[np.ndarray, "m t"]
    active: Bool[np.ndarray, " m"]  # the others must keep every bit of weights and state


class Backend(Protocol):
    """M models on one device. Made by `engines.open_backend(name, job, device)`."""

    name: str  # "torch_loop", "torch_batched", "native"
    version: str  # what the bits depend on besides the instruction set: "torch 2.13.0"

    def state(self) -> dict[str, Float32[np.ndarray, "m p"]]:
        """Copies of `weights`, `slot1` and `slot2`.

        `slot1` is SGD's b or Adam's m; `slot2` is v; unused ones are zero.
        """
        ...

    def weights(self, models: Sequence[int]) -> Float32[np.ndarray, "k p"]:
        """Copies of the weights of these models alone, in their order."""
        ...

    def load_state(self, state: dict[str, Float32[np.ndarray, "m p"]]) -> None:
        """Go on from a `state()`: the same bits as without the interruption."""
        ...

    def advance(self, window: Window) -> Float32[np.ndarray, "m t"]:
        """Take the window's steps; the loss of each batch before its update.

        A model whose numbers stop being finite goes on computing; no other model may
        change by a bit because of it. Inactive models give NaN.
        """
        ...

    def logits(
        self, images: Float32[np.ndarray, " n *input"], rows: Int32[np.ndarray, "m k"] | None = None,
        models: Sequence[int] | None = None,
    ) -> Float32[np.ndarray, "m shown c"]:  # fmt: skip
        """Outputs in evaluation mode (no dropout, no augmentation, running statistics) of some models, or all.

        Of a network that gives a sequence, (T, K), they lie flat: c is T·K.
        `images` are shown to every model; with `rows` the m-th of them sees `images[rows[m]]`, so that
        k are shown and not n. A model's bits do not depend on which others are asked for.
        """
        ...


def check_batches(architecture: Architecture, window: Window) -> None:
    """Raises ValueError where batch statistics would be those of a single value, as PyTorch does."""
    lone = np.flatnonzero(window.batch_sizes == 1)
    for node in architecture.nodes if len(lone) else ():
        if node.op == "batch_norm" and all(n == 1 for n in node.shape[1:]):
            raise ValueError(
                f"Step {window.first_step + int(lone[0])} has a batch of one example, and {node.name} needs more than "
                "one value per channel. Use a batch size that leaves no last batch of one."
            )
