"""Arrow arrays → NumPy, of their buffers: pyarrow's own ways first import pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def numbers_of(array: pa.Array, missing: float) -> np.ndarray:
    """The values of an Arrow array of numbers or booleans, with `missing` for null."""
    data, window = array.buffers()[1], slice(array.offset, array.offset + len(array))
    if data is None:
        return np.zeros(0, np.float64)
    if pa.types.is_boolean(array.type):
        bits: np.ndarray = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[window].astype(bool)
        return bits
    values: np.ndarray = np.frombuffer(data, array.type.to_pandas_dtype())[window]
    return np.where(nulls_of(array), np.asarray(missing, values.dtype), values) if array.null_count else values


def floats_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as float64, with NaN for null; whole numbers beyond 2⁵³ are rounded."""
    chunks = (c.cast(pa.float64(), safe=False) for c in column.chunks)
    return np.concatenate([np.zeros(0), *(numbers_of(c, np.nan) for c in chunks)])


def distinct(column: pa.ChunkedArray) -> list[Any]:
    """The values that differ, null among them, by their first rows; lists are compared as a whole."""
    if not pa.types.is_nested(column.type):
        return list(column.unique().to_pylist())
    return list({repr(v): v for v in column.to_pylist()}.values())


def nulls_of(array: pa.Array) -> np.ndarray:
    """bool [n]: where an Arrow array has no value."""
    valid = array.buffers()[0]
    if valid is None or not array.null_count:
        return np.full(len(array), pa.types.is_null(array.type))
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
    nulls: np.ndarray = bits[array.offset : array.offset + len(array)] == 0
    return nulls


def arrow_index(rows: np.ndarray) -> pa.Array:
    """Row numbers as Arrow takes them, not copied."""
    rows = np.ascontiguousarray(rows, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)])
