"""Snapshots of a zoo → their weights, read when indexed.

In:  the place of every snapshot: shard, tensor and row in it.
Out: `Weights`: indexed like an array, float32 [n, P]; a list of vectors where layouts differ.

Shards on this machine are memory-mapped, and neighboring rows come as views, read-only.
Of shards on the Hub only the rows asked for travel, and each is compared with its
SHA-256. With `verify`, a local shard is compared with its SHA-256 when it is first touched.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.errors import ZooError
from zoo_datasets.reading.gather import Reader


class WeightsSource(Protocol):
    """Where the weights of rows lie: the shards of a zoo, or a column of an Arrow table. Picklable."""

    def layouts_of(self, rows: np.ndarray) -> dict[str, int]:
        """{layout: its number} of those that rows have."""

    def layout_numbers(self, rows: np.ndarray) -> np.ndarray:
        """The number of each row's layout."""

    def width(self, layouts: tuple[str, ...]) -> int:
        """P of a layout; of no layout (an empty selection) that of the first there is."""

    def reader(self, rows: np.ndarray) -> Reader:
        """What reads these rows."""


class Weights:
    """Weight vectors that are read when indexed; as many as the selection has snapshots.

    `w[i]` is a vector [P]; `w[a:b]`, `w[array]` and `w[mask]` are matrices [k, P], or lists
    of vectors where the selection mixes layouts (`by_layout` parts it).
    """

    dtype = np.dtype(np.float32)

    def __init__(self, source: WeightsSource, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows

    def __reduce__(self) -> Any:  # mapped files are opened again where this arrives
        return type(self), (self._source, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<weights of {len(self):,} snapshots, shape {self.shape}, float32, read when indexed>"

    @functools.cached_property
    def layouts(self) -> tuple[str, ...]:
        """Ids of the layouts in this selection."""
        return tuple(self._source.layouts_of(self._rows))

    @property
    def ragged(self) -> bool:
        """Whether layouts differ, so that rows are no matrix."""
        return len(self.layouts) > 1

    @property
    def shape(self) -> tuple[int, int | None]:
        """(n, P); P is None where layouts differ."""
        return len(self), None if self.ragged else self._source.width(self.layouts)

    def by_layout(self) -> dict[str, tuple[np.ndarray, Weights]]:
        """{layout: (positions in this selection, their weights)}: a matrix for each layout."""
        own = self._source.layout_numbers(self._rows)
        groups = {name: np.flatnonzero(own == number) for name, number in self._source.layouts_of(self._rows).items()}
        return {name: (at, Weights(self._source, self._rows[at])) for name, at in groups.items()}

    def runs(self) -> list[tuple[int, int]]:
        """(start, stop) of the stretches that `w[start:stop]` gives without a copy, if they are here; else all in one."""
        breaks = getattr(self._reader, "breaks", None)  # of rows that are mapped
        ends = [len(self)] if breaks is None else [*(breaks + 1).tolist(), len(self)]
        return list(zip([0, *ends], ends, strict=False)) if len(self) else []

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            raise IndexError("Weights have one index, over snapshots: w[rows][:, columns].")
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._reader.slice(start, stop)
            index = np.arange(start, stop, step)
        elif isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"Row {index} of {len(self):,} snapshots.")
            return self._reader.one(int(index) % len(self))
        else:
            index = np.asarray(index)
            if not index.ndim and np.issubdtype(index.dtype, np.integer):
                return self[int(index)]
            if not index.size and index.dtype != bool:
                index = index.astype(np.int64)
        return self._reader.take(index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        if isinstance(whole, list):
            raise ZooError("These weights mix layouts and are no matrix; take them by layout: weights.by_layout().")
        return whole.astype(dtype or np.float32, copy=bool(copy))

    def torch(self, index: Any = slice(None)) -> Any:
        """The same rows as torch tensors that own their memory (a mapped zoo cannot be written to)."""
        with libraries.needed():
            import torch
        found = self[index]
        if isinstance(found, list):
            return [torch.from_numpy(np.array(v)) for v in found]
        return torch.from_numpy(found if found.flags.writeable and found.flags.owndata else np.array(found))

    def jax(self, index: Any = slice(None)) -> Any:
        """The same rows as JAX arrays on JAX's default device. Raises MissingLibraryError without JAX."""
        with libraries.needed():
            import jax.numpy as jnp
        found = self[index]
        return [jnp.asarray(v) for v in found] if isinstance(found, list) else jnp.asarray(found)

    @functools.cached_property
    def _reader(self) -> Reader:
        return self._source.reader(self._rows)
