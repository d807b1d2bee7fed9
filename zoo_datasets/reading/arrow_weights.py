"""A `datasets.Dataset` that came from a zoo → the same `Weights` that the zoo gives.

In:  a dataset with a `weights` column, after any select, shuffle, filter, sort, split or
     concatenate.
Out: its rows as a matrix over the dataset's own Arrow table, which is not copied; a list of
     vectors where their lengths differ.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core.arrow import numbers_of
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.reading.gather import Gather, Ragged, Reader
from zoo_datasets.reading.weights import Weights


def weights(ds: Any, column: str = "weights") -> Weights:
    """The weights of a `datasets.Dataset` that came from a zoo: the same rows in the same order, not copied.

    It reads the dataset's own Arrow table, through whatever select, shuffle, filter, sort,
    split or concatenate did. Raises ZooError.
    """
    table, indices = getattr(getattr(ds, "data", None), "table", None), getattr(ds, "_indices", None)
    if not isinstance(table, pa.Table):
        splits = isinstance(ds, dict) and all(hasattr(d, "features") for d in ds.values())
        named = f" Take one of its splits: {', '.join(map(str, ds))}." if splits else ""
        raise ZooError(f"weights() reads a datasets.Dataset; this is a {type(ds).__name__}.{named}")
    if column not in table.column_names:
        raise ZooError(
            f"This dataset has no column {column!r}; it has {', '.join(table.column_names[:10])}, …. "
            "Load it with its weights, or open the zoo: zoo_datasets.open_zoo(…).weights."
        )
    rows = np.arange(len(table)) if indices is None else _whole_numbers(indices.column(0))
    return Weights(ArrowWeights(table[column]), rows)


def _whole_numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(numbers_of(c, 0).astype(np.int64) for c in column.chunks)])


class ArrowWeights:
    """The weights column of an Arrow table: a list per row, of one length or of several."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        kind = column.type
        lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not lists or not pa.types.is_float32(kind.value_type):
            raise ZooError(f"The column holds {kind}, not float32 vectors.")
        if column.null_count:  # a null row takes no place among the values: all behind it would shift
            raise IntegrityError(f"{column.null_count} rows have no weights; a zoo has none such. Drop them first.")
        if any(c.flatten().null_count for c in column.chunks):
            raise IntegrityError("Vectors of this column have missing values; a zoo has none such.")
        self.column = column
        self._chunks = [c for c in column.chunks if len(c)]
        self._fixed = pa.types.is_fixed_size_list(kind)
        self._width = kind.list_size if self._fixed else 0

    def __reduce__(self) -> Any:
        return ArrowWeights, (self.column,)

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        """Values of each row, int64 [n]."""
        if self._fixed:
            return np.full(len(self.column), self._width, np.int64)
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(numbers_of(c.offsets, 0)) for c in self._chunks)])

    def layouts_of(self, rows: np.ndarray) -> dict[str, int]:
        """A dataset names no layouts; vectors of one length are taken to share one."""
        if self._fixed:
            return {str(self._width): self._width}
        return {str(n): int(n) for n in np.unique(self._lengths[rows])}

    def layout_numbers(self, rows: np.ndarray) -> np.ndarray:
        return self._lengths[rows]

    def width(self, layouts: tuple[str, ...]) -> int:
        return int(layouts[0]) if layouts else self._width

    def reader(self, rows: np.ndarray) -> Reader:
        widths = self.layouts_of(rows)
        if len(widths) > 1:
            own = self._lengths[rows]
            parts = [(at, self.reader(rows[at])) for at in (np.flatnonzero(own == w) for w in widths.values())]
            return Ragged(parts, len(rows))
        width = self.width(tuple(widths))
        if not self._chunks or not width:
            return Gather(
                [np.empty((1, width), np.float32)], np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int64)
            )
        starts = np.cumsum([0, *(len(c) for c in self._chunks)])
        if self._fixed:
            arrays = [numbers_of(c.flatten(), 0).reshape(-1, width) for c in self._chunks]
            chunk = np.searchsorted(starts, rows, "right") - 1
            return Gather(arrays, chunk.astype(np.int32), rows - starts[chunk])
        return _ragged_column(self._chunks, starts, rows, width)


def _ragged_column(chunks: list[Any], starts: np.ndarray, rows: np.ndarray, width: int) -> Gather:
    """Rows of one width in a column of lists: each chunk's values cut at a row boundary of that width."""
    chunk = np.searchsorted(starts, rows, "right") - 1
    begin = np.empty(len(rows), np.int64)
    arrays: list[np.ndarray] = []
    array = np.empty(len(rows), np.int32)
    for number in np.unique(chunk):
        mine = np.flatnonzero(chunk == number)
        values = numbers_of(chunks[number].values, 0)
        offsets = numbers_of(chunks[number].offsets, 0)[rows[mine] - starts[number]].astype(np.int64)
        # Rows of this width may start anywhere between others: one array per phase of the width.
        for phase in np.unique(offsets % width):
            same = np.flatnonzero(offsets % width == phase)
            array[mine[same]] = len(arrays)
            begin[mine[same]] = offsets[same] // width
            arrays.append(values[phase : phase + (len(values) - phase) // width * width].reshape(-1, width))
    return Gather(arrays, array, begin)
