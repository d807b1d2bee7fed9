"""A selection of a zoo → batches of weights and columns to train on.

* `WeightsDataset`: map-style, with batched `__getitems__`; for a `DataLoader` of one's own.
* `WeightsStream` and `Loader`: whole batches in an order fixed by (seed, epoch), dealt out
  over ranks and workers, and resumable inside an epoch.
* `LayoutBatches`: a batch sampler whose batches have one layout each.

A batch is a dict: `weights` float32 (B, P), or a list of vectors where layouts differ; each
target by its column's name: float32, int64 or bool tensors, lists of strings. A missing
number is NaN.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core import libraries, streams
from zoo_datasets.core.arrow import numbers_of
from zoo_datasets.errors import ZooError
from zoo_datasets.reading.selection import Selection

with libraries.needed():
    import torch
    from torch.utils import data

Batch = dict[str, Any]


class WeightsDataset(data.Dataset[Batch]):
    """Snapshots as samples: `ds[i]` is a dict of one snapshot.

    Give a `DataLoader` `collate_fn=ds.collate`: a batch is then gathered in one call.
    Without it the default works too, row by row.
    """

    def __init__(self, zoo: Selection, targets: Sequence[str] = ()) -> None:
        self.zoo, self.targets = zoo, tuple(targets)
        self._columns = {name: _target(zoo.column(name), name) for name in self.targets}

    def __len__(self) -> int:
        return len(self.zoo)

    def __getitem__(self, index: int) -> Batch:
        weights = self.zoo.weights.torch(index)
        return {"weights": weights} | {k: v[index] for k, v in self._columns.items()}

    def __getitems__(self, indices: Sequence[int]) -> _Rows:
        return _Rows(self, indices)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The samples of `indices` as one batch."""
        index = np.asarray(indices, np.int64)
        batch = {"weights": self.zoo.weights.torch(index)}
        picked = torch.from_numpy(index)
        for name, values in self._columns.items():
            batch[name] = values[picked] if isinstance(values, torch.Tensor) else [values[i] for i in index.tolist()]
        return batch

    @staticmethod
    def collate(rows: _Rows) -> Batch:
        """The batch of what `__getitems__` gave."""
        return rows.dataset.batch(rows.indices)


class _Rows(Sequence[Batch]):
    """Samples that were asked for and not read yet, so that `collate` can gather them at once."""

    def __init__(self, dataset: WeightsDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        return self.dataset[self.indices[i]]


def _target(column: pa.ChunkedArray, name: str) -> Any:
    kind = column.type
    if pa.types.is_string(kind):
        return column.to_pylist()
    if pa.types.is_boolean(kind) and not column.null_count:
        return torch.from_numpy(np.concatenate([numbers_of(c, 0) for c in column.chunks]))
    if pa.types.is_integer(kind) and not column.null_count:
        return torch.from_numpy(
            np.concatenate([numbers_of(c, 0) for c in column.chunks] or [np.zeros(0)]).astype(np.int64)
        )
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        wide = column.cast(pa.float64())
        values = [np.zeros(0), *(numbers_of(c, np.nan) for c in wide.chunks)]
        return torch.from_numpy(np.concatenate(values).astype(np.float32))
    if pa.types.is_list(kind) and not column.null_count:
        return [torch.tensor(v) for v in column.to_pylist()]
    raise ZooError(f"Column {name!r} holds {kind} with {column.null_count:,} nulls; it cannot be a target.")


class LayoutBatches(data.Sampler[list[int]]):
    """Batches of positions that share a layout, in an order of (seed, epoch), for `DataLoader(batch_sampler=…)`."""

    def __init__(self, zoo: Selection, batch_size: int, seed: int = 0) -> None:
        self._groups = [at for at, _ in zoo.weights.by_layout().values()]
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __len__(self) -> int:
        return sum(-(-len(at) // self.batch_size) for at in self._groups)

    def __iter__(self) -> Iterator[list[int]]:
        size, batches = self.batch_size, []
        for number, at in enumerate(self._groups):
            order = at[_order(self.seed, self.epoch, len(at), number + 1)]
            batches += [order[i : i + size].tolist() for i in range(0, len(at), size)]
        return (batches[i] for i in _order(self.seed, self.epoch, len(batches), 0))


def _order(seed: int, epoch: int, n: int, turn: int = 0) -> np.ndarray:
    """A permutation of n that depends on nothing else, the same on every rank and machine with one NumPy."""
    return streams.generator("batches", seed, epoch, turn).permutation(n)


class WeightsStream(data.IterableDataset[Batch]):
    """Whole batches of one rank, for `DataLoader(stream, batch_size=None)`; `Loader` does that.

    Batch i of an epoch goes to rank i mod world_size, and there to the worker whose turn it
    is, so that a rank sees the same batches in the same order with any number of workers.
    All ranks get equally many: up to world_size − 1 batches at the end of an epoch are left out.
    """

    def __init__(
        self, zoo: Selection, batch_size: int, targets: Sequence[str] = (), *, shuffle: bool = True, seed: int = 0,
        rank: int = 0, world_size: int = 1, drop_last: bool = False,
    ) -> None:  # fmt: skip
        if batch_size < 1:
            raise ZooError(f"batch_size is {batch_size}; expected 1 or more.")
        if not 0 <= rank < world_size:
            raise ZooError(f"rank is {rank} of {world_size}; expected 0 to world_size − 1.")
        self.dataset = WeightsDataset(zoo, targets)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch, self.start = 0, 0  # the next batch of this rank

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        n = len(self.dataset)
        return (n // self.batch_size if self.drop_last else -(-n // self.batch_size)) // self.world_size

    def __iter__(self) -> Iterator[Batch]:
        n, size = len(self.dataset), self.batch_size
        order = _order(self.seed, self.epoch, n) if self.shuffle else np.arange(n)
        info = data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        for i in range(self.start + worker, len(self), workers):
            first = (i * self.world_size + self.rank) * size
            yield self.dataset.batch(order[first : first + size])


class Loader:
    """Batches of a zoo, epoch after epoch; `state_dict` at any point, to go on from there.

    `workers` are processes that gather ahead; 0 is fastest where the zoo is in the page
    cache. `Loader` may be iterated again for the next epoch.
    """

    def __init__(
        self, zoo: Selection, batch_size: int, targets: Sequence[str] = (), *, workers: int = 0, **options: Any
    ) -> None:
        self.stream = WeightsStream(zoo, batch_size, targets, **options)
        self.workers = workers

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        """What is left of this epoch; at its end the next one begins."""
        batches: Any = self.stream
        if self.workers:
            batches = data.DataLoader(self.stream, batch_size=None, num_workers=self.workers)
        for batch in batches:
            self.stream.start += 1  # counted here, where batches arrive: workers run ahead
            yield batch
        self.stream.epoch, self.stream.start = self.stream.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch is; plain numbers."""
        return {"epoch": self.stream.epoch, "batch": self.stream.start, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises ZooError where it is of other batches than these."""
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ZooError(
                    f"The state is of a loader with {name} {state.get(name)!r}, this one has {value!r}: its batches "
                    "are others. Make the loader with the same arguments."
                )
        self.stream.epoch, self.stream.start = int(state["epoch"]), int(state["batch"])

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        s = self.stream
        rows = hashlib.sha256(s.dataset.zoo.rows.tobytes()).hexdigest()
        options = ("batch_size", "shuffle", "seed", "world_size", "drop_last")
        return {name: getattr(s, name) for name in options} | {
            "rows": streams.digest([s.dataset.zoo.manifest.digest("weights"), rows])[:16]
        }
