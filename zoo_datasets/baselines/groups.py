"""View → its networks by architecture, as matrices: what looks at layers takes those of one architecture at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo_datasets.baselines.interface import View
from zoo_datasets.networks.architecture import Architecture

# Weights of networks that diverged, beyond which no product of a few layers would stay a float32.
MOST = 1e4


def groups(view: View, rows: np.ndarray) -> Iterator[tuple[Architecture, np.ndarray, np.ndarray]]:
    """Architecture, places in `rows`, and weights (m, P) float32 of those networks; what is not finite is 0."""
    own = view.architecture[rows]
    for number in np.unique(own):
        places = np.flatnonzero(own == number)
        yield view.architectures[int(number)], places, finite(np.stack([view.vectors[int(rows[i])] for i in places]))


def finite(weights: np.ndarray) -> np.ndarray:
    """The same weights, NaN and infinities 0, and none beyond ±MOST."""
    return np.clip(np.nan_to_num(weights, nan=0.0, posinf=0.0, neginf=0.0), -MOST, MOST).astype(np.float32, copy=False)
