"""Rows that lie in several arrays → one matrix [n, P], a view where they are neighbors.

In:  arrays [k, P] float32 (memory-mapped shards, chunks of an Arrow table), and for every
     row of the matrix the array and the row in it.
Out: views where a slice is contiguous, else one copy made by one call of NumPy.

A Python loop over rows reaches half of what memory gives, grouping rows by array a third.
So all arrays are read through one array of overlapping windows: window i is the P floats
that start 4·i bytes behind the first of the arrays in memory. Only windows that are rows
of an array are ever touched, and no window leaves this file: what is returned is a copy,
or a view of the array that holds the rows, which keeps it mapped.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

# NumPy counts bytes of a view in int64; arrays far apart with long rows would pass it.
MOST_VIEW_BYTES = 2**62


class Reader(Protocol):
    """Rows of weights by their position: a vector [P], a matrix [k, P], or a list of vectors where lengths differ."""

    def one(self, i: int) -> np.ndarray: ...
    def slice(self, start: int, stop: int) -> Any: ...
    def take(self, index: Any) -> Any: ...


class Gather:
    """A matrix [n, P] of rows in `arrays`: row i is `arrays[array[i]][row[i]]`."""

    def __init__(self, arrays: Sequence[np.ndarray], array: np.ndarray, row: np.ndarray) -> None:
        self.arrays, self.array, self.row = arrays, array, row
        self.width = arrays[0].shape[1]
        self._single = arrays[0] if len(arrays) == 1 else None

    def __len__(self) -> int:
        return len(self.row)

    def one(self, i: int) -> np.ndarray:
        """A view [P]."""
        return self.arrays[self.array[i]][self.row[i]]

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop − start, P]: a view where they are neighbors in one array."""
        if start >= stop:
            return np.empty((0, self.width), np.float32)
        at = self.breaks.searchsorted(start)
        if at == len(self.breaks) or self.breaks[at] >= stop - 1:
            first = int(self.row[start])
            return self.arrays[self.array[start]][first : first + stop - start]
        return self.take(slice(start, stop))

    def take(self, index: Any) -> np.ndarray:
        """A copy [k, P] of the rows that NumPy picks by `index`. Raises IndexError."""
        if self._single is not None:
            # Rows were checked when they were located; `clip` spares NumPy a second look.
            return self._single.take(self.row[index], 0, mode="clip")
        if self._windows is not None:
            return self._windows[self._starts[index]]
        arrays, rows = self.array[index], self.row[index]
        out = np.empty((len(rows), self.width), np.float32)
        for i, (a, r) in enumerate(zip(arrays.tolist(), rows.tolist(), strict=True)):
            out[i] = self.arrays[a][r]
        return out

    @functools.cached_property
    def breaks(self) -> np.ndarray:
        """Where row i + 1 is not the neighbor of row i, ascending."""
        return np.flatnonzero((np.diff(self.row) != 1) | (np.diff(self.array) != 0))

    @functools.cached_property
    def _addresses(self) -> np.ndarray:
        return np.array([a.__array_interface__["data"][0] for a in self.arrays], np.int64)

    @functools.cached_property
    def _windows(self) -> np.ndarray | None:
        """The windows [m, P] from the first array in memory to the end of the last; None where that is too far."""
        used = [i for i, a in enumerate(self.arrays) if a.size]
        if not used:
            return None
        low = min(used, key=lambda i: self._addresses[i])
        end = max(int(self._addresses[i]) + self.arrays[i].nbytes for i in used)
        count = (end - int(self._addresses[low])) // 4 - self.width + 1
        if count * self.width * 4 > MOST_VIEW_BYTES or any(self._addresses[i] % 4 for i in used):
            return None
        return np.lib.stride_tricks.as_strided(self.arrays[low], (count, self.width), (4, 4), writeable=False)

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """The window of every row, int64 [n]."""
        low = min(int(a) for a, values in zip(self._addresses, self.arrays, strict=True) if values.size)
        return (self._addresses[self.array] - low) // 4 + self.row * self.width


class Ragged:
    """Rows of several layouts, as lists of vectors: parts (positions, reader) in one order."""

    def __init__(self, parts: list[tuple[np.ndarray, Reader]], n: int) -> None:
        self._readers = [reader for _, reader in parts]
        self._part, self._at = np.empty(n, np.int32), np.empty(n, np.int64)
        for number, (positions, _) in enumerate(parts):
            self._part[positions] = number
            self._at[positions] = np.arange(len(positions))

    def one(self, i: int) -> np.ndarray:
        return self._readers[self._part[i]].one(int(self._at[i]))

    def slice(self, start: int, stop: int) -> list[np.ndarray]:
        return self.take(slice(start, stop))

    def take(self, index: Any) -> list[np.ndarray]:
        part, at = self._part[index], self._at[index]
        out: list[Any] = [None] * len(part)
        for number, reader in enumerate(self._readers):
            mine = np.flatnonzero(part == number)
            if len(mine):
                for i, row in zip(mine.tolist(), reader.take(at[mine]), strict=True):
                    out[i] = row
        return out
