"""Layout → index arrays into the flat vector, which the views gather by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo_datasets.networks.layout import Entry, Layout


def entries_of(layout: Layout, buffers: bool) -> list[Entry]:
    return [e for e in layout if buffers or e.role != "buffer"]


def range_of(entry: Entry) -> np.ndarray:
    return np.arange(entry.offset, entry.end)


def index_of(layout: Layout, buffers: bool) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(range_of(e) for e in entries_of(layout, buffers))])


def padded(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Index arrays of different length as one [T, D], filled up with −1."""
    index = np.full((len(pieces), max(map(len, pieces), default=0)), -1, np.int64)
    for row, piece in zip(index, pieces, strict=True):
        row[: len(piece)] = piece
    return index


def gather(weights: np.ndarray, index: np.ndarray) -> np.ndarray:
    """[..., P] at an index [A, B], 0 where it is −1: [..., A, B]."""
    values = weights[..., np.maximum(index, 0)]
    values[..., index < 0] = 0
    return values
