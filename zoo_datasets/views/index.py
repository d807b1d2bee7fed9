"""Layout → index arrays into the flat vector, which the views gather by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Shaped

from zoo_datasets.networks.layout import Entry, Layout


def entries_of(layout: Layout, buffers: bool) -> list[Entry]:
    return [e for e in layout if buffers or e.role != "buffer"]


def range_of(entry: Entry) -> Int64[np.ndarray, " n"]:
    return np.arange(entry.offset, entry.end)


def index_of(layout: Layout, buffers: bool) -> Int64[np.ndarray, " n"]:
    return np.concatenate([np.zeros(0, np.int64), *(range_of(e) for e in entries_of(layout, buffers))])


def padded(pieces: Sequence[np.ndarray]) -> Int64[np.ndarray, "t d"]:
    """Index arrays of different length as one, filled up with −1."""
    index = np.full((len(pieces), max(map(len, pieces), default=0)), -1, np.int64)
    for row, piece in zip(index, pieces, strict=True):
        row[: len(piece)] = piece
    return index


def gather(
    weights: Shaped[np.ndarray, "*batch p"], index: Int64[np.ndarray, "a b"]
) -> Shaped[np.ndarray, "*batch a b"]:
    """Vectors at an index, 0 where it is −1."""
    values = weights[..., np.maximum(index, 0)]
    values[..., index < 0] = 0
    return values
