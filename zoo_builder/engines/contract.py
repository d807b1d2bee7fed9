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

from zoo_datasets.networks.architecture import Architecture

# Update rules, as `Optimizers.kind`. `momentum` and `nesterov` are SGD with those vectors set.
SGD, ADAM, ADAMW, RMSPROP = range(4)


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """The update rule of every model: vectors over M, float64 but for `kind` and `nesterov`.

    The rules are PyTorch's (torch.optim), with g the mean gradient of the batch, clipped
    per model to `clip_norm` (inf: never) by g ← g · min(1, clip / (‖g‖₂ + 1e-6)):

    * all but ADAMW: g ← g + weight_decay · p. ADAMW: p ← p · (1 − lr · weight_decay) first.
    * SGD: b ← momentum · b + g; p ← p − lr · (g + momentum · b if nesterov, else b).
    * ADAM, ADAMW: m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²;
      p ← p − (lr / bias1) · m / (√v / √bias2 + eps), bias_i = 1 − β_i^t, t = 1 at the first step.
    * RMSPROP: v ← alpha · v + (1 − alpha) g²; p ← p − lr · g / (√v + eps).

    Buffers (running statistics) are left alone by all of it.
    """

    kind: np.ndarray  # (M,) int32
    momentum: np.ndarray  # (M,)
    nesterov: np.ndarray  # (M,) bool
    beta1: np.ndarray  # (M,)
    beta2: np.ndarray  # (M,)
    eps: np.ndarray  # (M,)
    alpha: np.ndarray  # (M,)
    weight_decay: np.ndarray  # (M,)
    clip_norm: np.ndarray  # (M,)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images, in this order; streams.py defines the draws.

    `shift` moves by up to so many pixels and fills with `fill`; `crop` moves likewise and
    fills by reflection (pad, then cut out at random); `flip` mirrors columns half the
    time; `noise` adds a normal of that standard deviation per channel. All zero: nothing.
    """

    shift: int = 0
    crop: int = 0
    flip: bool = False
    noise: tuple[float, ...] = ()  # per channel, on the scaled values; () is none
    fill: tuple[float, ...] = ()  # per channel, what a black pixel is after scaling

    @property
    def any(self) -> bool:
        return bool(self.shift or self.crop or self.flip or self.noise)

    @property
    def channels(self) -> int:
        """How many channels noise or fill name."""
        return max(len(self.noise), len(self.fill))


@dataclasses.dataclass(frozen=True)
class Job:
    """A cohort as arrays. Engines never write to `pool` or `initial`."""

    architecture: Architecture
    loss: str  # "cross_entropy": −log softmax; "mse": mean over B·C of (logit − one-hot)²
    pool: np.ndarray  # (N, *input_shape) float32, scaled; shared by all models, read-only
    initial: np.ndarray  # (M, P) float32
    optimizers: Optimizers
    dropout_rate: np.ndarray  # (M,) float64, for the dropout nodes whose own rate is None
    dropout_key: tuple[str, ...]  # M keys
    augment_key: tuple[str, ...]  # M keys
    augmentation: Augmentation
    batch_size: int  # the largest batch of a step

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
    batch_sizes: np.ndarray  # (T,) int64, each ≥ 1
    rows: np.ndarray  # (M, n) int32 into the pool
    targets: np.ndarray  # (M, n) int32 classes
    lr: np.ndarray  # (M, T) float64
    bias1: np.ndarray  # (M, T) float64
    bias2: np.ndarray  # (M, T) float64
    active: np.ndarray  # (M,) bool: the others must keep every bit of weights and state


class Backend(Protocol):
    """M models on one device. Made by `engines.open_backend(name, job, device)`."""

    name: str  # "torch_loop", "torch_batched", "native"
    version: str  # what the bits depend on besides the instruction set: "torch 2.13.0"

    def state(self) -> dict[str, np.ndarray]:
        """Copies of `weights`, `slot1` and `slot2`, each (M, P) float32.

        `slot1` is SGD's b or Adam's m; `slot2` is v; unused ones are zero.
        """
        ...

    def weights(self, models: Sequence[int]) -> np.ndarray:
        """Copies of the weights of these models alone, (k, P) float32, in their order."""
        ...

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state()`: the same bits as without the interruption."""
        ...

    def advance(self, window: Window) -> np.ndarray:
        """Take the window's steps; the loss of each batch before its update, (M, T) float32.

        A model whose numbers stop being finite goes on computing; no other model may
        change by a bit because of it. Inactive models give NaN.
        """
        ...

    def logits(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Outputs in evaluation mode (no dropout, no augmentation, running statistics).

        `images` (n, *input_shape) float32 are shown to every model; with `rows` (M, k)
        int32 model m sees `images[rows[m]]`. Returns (M, n or k, C) float32.
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
