"""A selection of a zoo → batches of weights and columns to train on.

* `WeightsDataset`: map-style, with batched `__getitems__`; for a `DataLoader` of one's own.
* `WeightsStream` and `Loader`: whole batches in an order fixed by (seed, epoch), dealt out
  over ranks and workers, and resumable inside an epoch.
* `LayoutBatches`: a batch sampler whose batches have one layout each.

Every pass over one of these is an epoch of its own, in an order of its own, in a `DataLoader` with
any workers too. `set_epoch`, which Lightning and Accelerate call, says which; from then on only it does.
All ranks get equally many batches, at least one where there are rows.

A batch is a dict: `weights` float32 (B, P), or a list of vectors where layouts differ; each
target by its column's name: float32, int64 or bool tensors, lists of strings. A missing
number is NaN.
"""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.core import libraries, streams
from zoo_datasets.core.arrow import floats_of, numbers_of
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
        self.zoo, self.targets = zoo, (targets,) if isinstance(targets, str) else tuple(targets)
        self._columns = {name: _target(zoo.column(name), name) for name in self.targets}
        self._layout = np.zeros(len(zoo), np.int64)  # the number of each snapshot's own
        for number, (at, _) in enumerate(zoo.weights.by_layout().values()):
            self._layout[at] = number

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
        weights = self.zoo.weights.torch(index)
        if (
            isinstance(weights, list) and len(set(self._layout[index].tolist())) == 1
        ):  # the selection's differ, these do not
            weights = torch.stack(weights)
        batch = {"weights": weights}
        picked = torch.from_numpy(index)
        for name, values in self._columns.items():
            batch[name] = values[picked] if isinstance(values, torch.Tensor) else [values[i] for i in index.tolist()]
        return batch

    @staticmethod
    def collate(rows: _Rows | Sequence[Batch]) -> Batch:
        """The batch of what `__getitems__` gave; of samples of several zoos, as a `ConcatDataset` gives them, by torch's own."""
        return rows.dataset.batch(rows.indices) if isinstance(rows, _Rows) else data.default_collate(list(rows))


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
        return torch.from_numpy(np.concatenate([numbers_of(c, 0) for c in column.chunks] or [np.zeros(0, bool)]))
    if pa.types.is_integer(kind) and not column.null_count:
        return torch.from_numpy(
            np.concatenate([numbers_of(c, 0) for c in column.chunks] or [np.zeros(0)]).astype(np.int64)
        )
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return torch.from_numpy(floats_of(column).astype(np.float32))
    if pa.types.is_list(kind) and not column.null_count:
        within = pc.list_flatten(column)
        if pa.types.is_string(kind.value_type):
            return column.to_pylist()
        if not within.null_count and (pa.types.is_primitive(kind.value_type)):
            return [torch.tensor(v) for v in column.to_pylist()]
        raise ZooError(f"Column {name!r} holds {kind} with {within.null_count:,} nulls inside; it cannot be a target.")
    raise ZooError(f"Column {name!r} holds {kind} with {column.null_count:,} nulls; it cannot be a target.")


class LayoutBatches(data.Sampler[list[int]]):
    """Batches of positions that share a layout, in an order of (seed, epoch), for `DataLoader(batch_sampler=…)`.

    Batch i of an epoch goes to rank i mod world_size; where they do not come out even, the first are
    dealt again. With Lightning say `use_distributed_sampler=False`, and to Accelerate no rank: it deals itself.
    """

    def __init__(self, zoo: Selection, batch_size: int, seed: int = 0, *, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size, self.seed, self.rank, self.world_size = _whole(batch_size, seed, rank, world_size)
        self._groups = [at for at, _ in zoo.weights.by_layout().values()]
        self._said: int | None = None
        self._passes = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch all passes are, until it is said again."""
        self._said = _known(epoch)

    @property
    def epoch(self) -> int:
        """Of the next pass."""
        return self._passes if self._said is None else self._said

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.set_epoch(epoch)

    @property
    def sampler(self) -> LayoutBatches:
        """Itself: Lightning calls `set_epoch` of a batch sampler's sampler only."""
        return self

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return -(-sum(-(-len(at) // self.batch_size) for at in self._groups) // self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        # A generator, which begins with its first batch: a DataLoader asks for an iterator that it never uses.
        epoch, size, batches = self.epoch, self.batch_size, []
        self._passes += 1
        for number, at in enumerate(self._groups):
            order = at[_order(self.seed, epoch, len(at), number + 1)]
            batches += [order[i : i + size].tolist() for i in range(0, len(at), size)]
        order = _order(self.seed, epoch, len(batches), 0)
        for i in range(len(self)):
            yield batches[order[(i * self.world_size + self.rank) % len(batches)]]


def _order(seed: int, epoch: int, n: int, turn: int = 0) -> np.ndarray:
    """A permutation of n that depends on nothing else, the same on every rank and machine with one NumPy."""
    return streams.generator("batches", seed, epoch, turn).permutation(n)


def _whole(batch_size: int, seed: int, rank: int, world_size: int) -> tuple[int, int, int, int]:
    """The same as Python's own whole numbers, which a state is written of. Raises ZooError."""
    try:
        found = tuple(map(operator.index, (batch_size, seed, rank, world_size)))
    except TypeError:
        raise ZooError(
            f"batch_size {batch_size!r}, seed {seed!r}, rank {rank!r}, world_size {world_size!r}: whole numbers are needed."
        ) from None
    batch_size, seed, rank, world_size = found
    if batch_size < 1:
        raise ZooError(f"batch_size is {batch_size}; expected 1 or more.")
    if not 0 <= rank < world_size:
        raise ZooError(f"rank is {rank} of {world_size}; expected 0 to world_size − 1.")
    return batch_size, seed, rank, world_size


def _known(epoch: int) -> int:
    if epoch < 0:
        raise ZooError(f"epoch is {epoch}; expected 0 or more.")
    return epoch


class _Epochs:
    """Which epoch a pass is: the one that was said last, else one more than the pass before.

    Passes are begun in worker processes, which may be new ones for each, or live for several. So both
    numbers lie in memory that these share; each is read and written in one piece, without a lock.
    """

    BITS = 21  # of each of the three parts of what is kept of passes: two million epochs

    def __init__(self) -> None:
        self._shared = torch.tensor([-1, -1]).share_memory_()  # the epoch that was said; the last pass
        self._workers, self._turn = -1, 0  # whose worker this process is, and its passes so far

    def say(self, epoch: int) -> None:
        self._shared[0] = _known(epoch)

    @property
    def next(self) -> int:
        """Of the next pass that this process begins."""
        said, kept = self._shared.tolist()
        return said if said >= 0 else self._after(kept)

    def _after(self, kept: int) -> int:
        mask = (1 << self.BITS) - 1
        return 0 if kept < 0 else (kept >> self.BITS & mask) + (kept & mask) + 1

    def begin(self) -> int:
        """The epoch of the pass that begins now."""
        said, kept = self._shared.tolist()
        if said >= 0:
            return said
        info, mask = data.get_worker_info(), (1 << self.BITS) - 1
        if info is None:
            self._shared[1] = self._after(kept) << self.BITS
            return self._after(kept)
        # Workers that were started together share a seed. Their passes are counted in each of them from
        # the first one's epoch, since one may begin a pass when others have left it.
        workers = (info.seed - info.id) % mask + 1  # 0 is no worker
        self._turn = self._turn + 1 if workers == self._workers else 0
        self._workers = workers
        first = kept >> self.BITS & mask if kept >> 2 * self.BITS == workers else self._after(kept)
        if kept >> 2 * self.BITS != workers or kept & mask < self._turn:
            self._shared[1] = workers << 2 * self.BITS | first << self.BITS | self._turn
        return first + self._turn


class WeightsStream(data.IterableDataset[Batch]):
    """Whole batches of one rank, for `DataLoader(stream, batch_size=None)`; `Loader` does that.

    Batch i of an epoch goes to rank i mod world_size, and there to the worker whose turn it is, so
    that a rank sees the same batches in the same order with any number of workers. All ranks get
    equally many: where batches do not come out even, the first are dealt again, and every row is seen
    in every epoch. With `drop_last` they are left out instead, and so is a batch that is not full, but
    each rank has one; the rows left out differ from epoch to epoch, and without `shuffle` are the next
    one's first.
    """

    def __init__(
        self, zoo: Selection, batch_size: int, targets: Sequence[str] = (), *, shuffle: bool = True, seed: int = 0,
        rank: int = 0, world_size: int = 1, drop_last: bool = False,
    ) -> None:  # fmt: skip
        batch_size, seed, rank, world_size = _whole(batch_size, seed, rank, world_size)
        if drop_last and 0 < len(zoo) < batch_size:
            raise ZooError(
                f"`drop_last` leaves no batch: there are {len(zoo):,} rows, and a batch has {batch_size:,}. "
                f"Use batch_size={len(zoo)} or drop_last=False."
            )
        self.dataset = WeightsDataset(zoo, targets)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.start = 0  # the next batch of this rank
        self._epochs = _Epochs()

    def set_epoch(self, epoch: int) -> None:
        """Which epoch all passes are, in workers that run already too, until it is said again."""
        self._epochs.say(epoch)

    @property
    def epoch(self) -> int:
        """Of the next pass."""
        return self._epochs.next

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.set_epoch(epoch)

    @property
    def _batches(self) -> int:
        """Different ones in an epoch, over all ranks."""
        n = len(self.dataset)
        if not self.drop_last:
            return -(-n // self.batch_size)
        full = n // self.batch_size
        return full // self.world_size * self.world_size or full

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return -(-self._batches // self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        return self._pass(self._epochs.begin())  # now, not with the first batch: a worker may never be asked for one

    def _pass(self, epoch: int) -> Iterator[Batch]:
        n, size, batches = len(self.dataset), self.batch_size, self._batches
        left_out = max(0, n - batches * size)
        order = _order(self.seed, epoch, n) if self.shuffle else np.roll(np.arange(n), epoch * left_out)
        info = data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        for i in range(self.start + worker, len(self), workers):
            first = (i * self.world_size + self.rank) % batches * size
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
        self.stream.set_epoch(0)  # counted here: what is left of an epoch is no pass of its own
        self.workers = workers
        self._dealt = False  # the last batch of this epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; where it is this one, stay in its middle."""
        if epoch != self.stream.epoch:
            self.stream.start, self._dealt = 0, False
        self.stream.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        """What is left of this epoch; with its last batch the next one begins."""
        if self._dealt:
            self._go_on()
        epoch = self.stream.epoch
        batches: Any = self.stream
        if self.workers:
            batches = data.DataLoader(self.stream, batch_size=None, num_workers=self.workers)
        for batch in batches:
            self.stream.start += 1  # counted here, where batches arrive: workers run ahead
            # Who counts batches, as Lightning does, never asks for what comes after the last.
            self._dealt = self.stream.start >= len(self)
            yield batch
        if self.stream.epoch == epoch:
            self._go_on()

    def _go_on(self) -> None:
        """To the beginning of the next epoch."""
        self._dealt = False
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
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if not 0 <= batch <= len(self):
            raise ZooError(f"The state is at batch {batch} of an epoch of {len(self)}.")
        self.stream.epoch, self.stream.start, self._dealt = epoch, batch, False

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        s = self.stream
        rows = hashlib.sha256(s.dataset.zoo.rows.tobytes()).hexdigest()
        options = ("batch_size", "shuffle", "seed", "world_size", "drop_last")
        return {name: getattr(s, name) for name in options} | {
            "rows": streams.digest([s.dataset.zoo.manifest.digest("weights"), rows])[:16]
        }
