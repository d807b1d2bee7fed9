"""The layout of one flat weight vector: where each tensor lies, and which units its dimensions run over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor in the flat vector: `vector[offset : offset + size].reshape(shape)`.

    `groups` names, per dimension, the set of units it runs over ("" where units are
    fixed): permuting a group permutes every dimension of that name.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    role: str  # "parameter" or "buffer"
    groups: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.size


def unflatten(vector: np.ndarray, layout: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Named views into vectors [..., n_params]: each [..., *shape]. Nothing is copied."""
    lead = vector.shape[:-1]
    return {e.name: vector[..., e.offset : e.end].reshape(*lead, *e.shape) for e in layout}


def flatten(tensors: Mapping[str, np.ndarray], layout: Sequence[Entry]) -> np.ndarray:
    """The flat float32 vector [n_params] of named tensors. Raises KeyError, ValueError."""
    parts = []
    for e in layout:
        tensor = np.asarray(tensors[e.name], np.float32)
        if tensor.shape != e.shape:
            raise ValueError(f"{e.name} has shape {tensor.shape}, the layout says {e.shape}.")
        parts.append(tensor.ravel())
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def layout_json(layout: Sequence[Entry]) -> list[dict[str, Any]]:
    """The layout as the manifest keeps it."""
    return [{**dataclasses.asdict(e), "shape": list(e.shape), "groups": list(e.groups)} for e in layout]
