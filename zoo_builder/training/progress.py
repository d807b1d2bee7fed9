"""What training has come to: snapshots, and the state from which it can go on.

`Snapshot` is what the loop gives away; `Progress` is what it needs besides the backend's
state to go on after a kill; `Checkpoints` is whoever keeps both.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from zoo_builder.training.stop_rules import Trend


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Published weights of one model at one step; `model` is its place in the cohort."""

    model: int
    step: int
    epoch: float
    examples_seen: int
    metrics: Mapping[str, Any] | None  # None only inside the loop: scored where it shows that it is published
    weights: np.ndarray  # (P,) float32
    slots: np.ndarray | None = None  # (2, P) float32: the optimizer's, where the recipe keeps them

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.weights.astype("<f4", copy=False).tobytes()).hexdigest()

    @property
    def optimizer_sha256(self) -> str | None:
        return (
            None if self.slots is None else hashlib.sha256(self.slots.astype("<f4", copy=False).tobytes()).hexdigest()
        )


@dataclasses.dataclass
class Progress:
    """Everything needed to go on from a checkpoint besides the backend's state."""

    step: int
    active: np.ndarray  # (M,) bool
    stop_reason: list[str | None]
    diverged_step: list[int | None]
    best_loss: list[float]
    best_epoch: list[int]
    snapshots: list[Snapshot]
    trends: dict[int, Trend] = dataclasses.field(default_factory=dict)  # of models with rules about accuracy
    reached: set[int] = dataclasses.field(default_factory=set)  # models whose loss came to their schedule's target


class Checkpoints(Protocol):
    """Where a long cohort keeps its state; `parts.Checkpoint` is the one on disk."""

    def load(self) -> tuple[dict[str, np.ndarray], Progress] | None: ...

    def due(self) -> bool: ...

    def save(self, state: dict[str, np.ndarray], progress: Progress) -> None: ...
