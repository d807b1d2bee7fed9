"""A run's settings, or a row of `models` → how its metrics are measured where that is not as usual; and the logits.

Usual is a network as it is used: running statistics, images as they are. A recipe may ask for what older code did:
each batch normalized by its own statistics, in batches of the training's size, and images augmented as in training.
The draws of an evaluation are a stream of their own: its key is made of the augmentation's key, of the part and of the
model's step, and an image's draws follow from its place in the part.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets.core import streams
from zoo_datasets.networks import augment, batch_statistics, kernels
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.sources.augmentation import augmentation_of
from zoo_datasets.sources.spec import Source


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What an evaluation does beside showing images."""

    batch: int | None  # images whose own statistics normalize them; None: the running ones
    augmentation: Augmentation  # often none

    def logits(
        self, architecture: Architecture, weights: np.ndarray, images: np.ndarray, rows: np.ndarray | None,
        keys: Sequence[str], part: str, steps: Sequence[int],
    ) -> np.ndarray:  # fmt: skip
        """Logits (m, n, C) of networks [m, P] on a part (n, …), or each on its own `rows` (m, n) of it.

        `keys` are of the networks' augmentation streams, `steps` those that their weights are of.
        """
        count = len(images) if rows is None else rows.shape[1]
        out = np.empty((len(weights), count, architecture.n_logits), np.float32)
        if not count:  # a schedule that scores nothing of a part: no batch, and nothing to augment
            return out
        for m, (key, step) in enumerate(zip(keys, steps, strict=True)):
            shown = np.asarray(images if rows is None else images[rows[m]], np.float32)
            if self.augmentation.any:
                shown = np.asarray(augment.augmented(shown, self.augmentation, key_of(key, part, step), 0), np.float32)
            out[m] = self._one(architecture, weights[m : m + 1], shown)[0]
        return out

    def _one(self, architecture: Architecture, weights: np.ndarray, shown: np.ndarray) -> np.ndarray:
        if self.batch is not None:
            return batch_statistics.logits(architecture, weights, shown, self.batch)
        if not kernels.impossible(architecture):
            return kernels.logits(architecture, weights, shown)
        # Needs torch, which the kernels do without.
        forward = importlib.import_module("zoo_datasets.networks.logits").logits_of(architecture, shown)
        logits: np.ndarray = forward(weights)
        return logits


def conditions_of(row: Mapping[str, Any], source: Source) -> Conditions | None:
    """Those of a model; None where it is measured as usual. Raises GridError where its augmentation does not fit the source."""
    own, augmented = bool(row.get("evaluate_batch_statistics")), bool(row.get("evaluate_augmented"))
    if not own and not augmented:
        return None
    return Conditions(row["batch_size"] if own else None, augmentation_of(row, source) if augmented else Augmentation())


def key_of(key: str, part: str, step: int) -> str:
    """The key of the draws of one evaluation."""
    return streams.stream_key({"stream": "evaluation", "augment": key, "part": part, "step": step})
