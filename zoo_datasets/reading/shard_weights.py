"""Snapshots of a zoo → readers of their rows in its shards, here or on the Hub."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from zoo_datasets.core.arrow import arrow_index
from zoo_datasets.errors import FormatVersionError, IntegrityError
from zoo_datasets.format import schema, shards
from zoo_datasets.reading.columns import Columns
from zoo_datasets.reading.gather import Gather, Ragged, Reader
from zoo_datasets.reading.location import Location

MOST_COUNTED = 10_000_000  # pairs of shard and layout for which a counter is kept


@dataclasses.dataclass(frozen=True)
class Places:
    """Where snapshots lie: the blocks (shard, tensor) of the zoo, and of every snapshot its block and its row there."""

    blocks: list[tuple[str, str]]
    block: np.ndarray  # int32 [n]
    row: np.ndarray  # int64 [n]


class Shards:
    """Where the weights of every snapshot of a zoo lie. Picklable."""

    def __init__(self, location: Location, snapshots: Columns, verify: bool = False) -> None:
        if location.manifest.weights_dtype != schema.WEIGHTS_DTYPE:
            raise FormatVersionError(
                f"{location.name} stores weights as {location.manifest.weights_dtype}; this library reads "
                f"{schema.WEIGHTS_DTYPE}. Upgrade weightzoo."
            )
        self.location, self.snapshots, self.verify = location, snapshots, verify
        self._opened: dict[int, np.ndarray] = {}
        self._mapped: dict[str, dict[str, np.ndarray]] = {}
        self._verified: set[str] = set()

    def __reduce__(self) -> Any:
        return Shards, (self.location, self.snapshots, self.verify)

    @functools.cached_property
    def places(self) -> Places:
        """Where every snapshot lies. Raises IntegrityError."""
        shard, shard_names = self.snapshots.codes("shard")
        tensor, tensor_names = self.snapshots.codes("tensor")
        row = self.snapshots.numbers("row")
        if len(row) and row.min() < 0:
            raise IntegrityError(f"Snapshots of {self.location.name} have no place in a shard: the zoo is damaged.")
        pairs = shard.astype(np.int64) * max(1, len(tensor_names)) + tensor
        if len(shard_names) * len(tensor_names) <= MOST_COUNTED:
            used = np.flatnonzero(np.bincount(pairs)) if len(pairs) else np.zeros(0, np.int64)
            number = np.zeros(used.max(initial=0) + 1, np.int32)
            number[used] = np.arange(len(used))
            block = number[pairs]
        else:  # a stranger's names may all be different
            used, block = np.unique(pairs, return_inverse=True)
        split = [divmod(int(u), max(1, len(tensor_names))) for u in used]
        blocks = [(shard_names[s].as_py(), tensor_names[t].as_py()) for s, t in split]
        for name, layout in blocks:
            self.location.entry(name)
            self.location.manifest.width(layout)
        return Places(blocks, block.astype(np.int32), row)

    def layouts_of(self, rows: np.ndarray) -> dict[str, int]:
        places = self.places
        used = np.flatnonzero(np.bincount(places.block[rows], minlength=len(places.blocks)))
        names = list(dict.fromkeys(places.blocks[b][1] for b in used))
        return {name: self._layout_numbers[name] for name in names}

    def layout_numbers(self, rows: np.ndarray) -> np.ndarray:
        of_block = np.array([self._layout_numbers[tensor] for _, tensor in self.places.blocks], np.int32)
        return of_block[self.places.block[rows]]

    @functools.cached_property
    def _layout_numbers(self) -> dict[str, int]:
        names = dict.fromkeys(tensor for _, tensor in self.places.blocks)
        return {name: number for number, name in enumerate(names)}

    def width(self, layouts: tuple[str, ...]) -> int:
        """P of a layout; of no layout (an empty selection) that of the zoo's first."""
        manifest = self.location.manifest
        if not (layouts or manifest.layouts):
            return 0
        return manifest.width(layouts[0] if layouts else next(iter(manifest.layouts)))

    def reader(self, rows: np.ndarray) -> Reader:
        layouts = self.layouts_of(rows)
        if len(layouts) > 1:
            own = self.layout_numbers(rows)
            parts = [(at, self.reader(rows[at])) for at in (np.flatnonzero(own == k) for k in layouts.values())]
            return Ragged(parts, len(rows))
        if not len(rows):
            return Gather([np.empty((0, self.width(())), np.float32)], np.zeros(0, np.int32), np.zeros(0, np.int64))
        places = self.places
        used, array = np.unique(places.block[rows], return_inverse=True)
        if not all(self.location.has(places.blocks[b][0]) for b in used):
            return _RemoteRows(self.location, self.snapshots, places, rows, self.width(tuple(layouts)))
        arrays = [self._array(int(b)) for b in used]
        _check_rows(self.location, places.row[rows], np.array([len(a) for a in arrays])[array])
        gather = Gather(arrays, array.astype(np.int32), places.row[rows])
        return _VerifiedRows(gather, self, [places.blocks[b][0] for b in used]) if self.verify else gather

    def _array(self, block: int) -> np.ndarray:
        if block not in self._opened:
            shard, tensor = self.places.blocks[block]
            path = self.location.path(shard)
            if shard not in self._mapped:  # once, however many layouts it has: each map is an open file
                self._mapped[shard] = shards.open_tensors(path)
            found = self._mapped[shard].get(tensor)
            # A plain array over the mapping: the subclass `memmap` costs microseconds a call.
            array = np.asarray(found if found is not None and found.size else shards.open_tensor(path, tensor))
            _check_shape(self.location, shard, tensor, array.shape)
            self._opened[block] = array
        return self._opened[block]

    def check_bytes(self, shard: str) -> None:
        """Compare a shard with its SHA-256, once. Raises IntegrityError."""
        if shard not in self._verified:
            self.location.verified(shard)
            self._verified.add(shard)


def _check_rows(location: Location, row: np.ndarray, count: np.ndarray | int) -> None:
    """Raises IntegrityError where a row lies behind the last of its tensor."""
    if (row >= count).any():
        raise IntegrityError(
            f"{location.name}: snapshots name rows beyond the end of their shard: the zoo is damaged. "
            "`python -m zoo_datasets check` says where."
        )


def _check_shape(location: Location, shard: str, tensor: str, shape: tuple[int, ...]) -> None:
    """Raises IntegrityError where a tensor is not [n, P] of its layout."""
    width = location.manifest.width(tensor)
    if len(shape) != 2 or shape[1] != width:
        raise IntegrityError(
            f"{shard} of {location.name}: tensor {tensor} has shape {shape}, its layout has {width} values: the "
            "shard's header lies. Fetch or build the zoo again."
        )


class _VerifiedRows:
    """A `Gather` whose shards are compared with their checksums before their first row is returned."""

    @property
    def breaks(self) -> np.ndarray:
        """As of a `Gather`."""
        return self._gather.breaks

    def __init__(self, gather: Gather, source: Shards, names: list[str]) -> None:
        self._gather, self._source, self._names = gather, source, names

    def _look(self, index: Any) -> None:
        for used in np.unique(self._gather.array[index]):
            self._source.check_bytes(self._names[used])

    def one(self, i: int) -> np.ndarray:
        self._look([i])
        return self._gather.one(i)

    def slice(self, start: int, stop: int) -> np.ndarray:
        self._look(slice(start, stop))
        return self._gather.slice(start, stop)

    def take(self, index: Any) -> np.ndarray:
        self._look(index)
        return self._gather.take(index)


class _RemoteRows:
    """Rows of shards on the Hub: fetched by ranges, each compared with its SHA-256."""

    def __init__(self, location: Location, snapshots: Columns, places: Places, rows: np.ndarray, width: int) -> None:
        self._location, self._snapshots, self._places, self._rows = location, snapshots, places, rows
        self._width = width
        self._starts: dict[int, tuple[int, int]] = {}  # block → (byte offset of its row 0, rows)

    def one(self, i: int) -> np.ndarray:
        return self.take(np.array([i]))[0]

    def slice(self, start: int, stop: int) -> np.ndarray:
        return self.take(np.arange(start, stop))

    def take(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        block, row = self._places.block[rows], self._places.row[rows]
        out = np.empty((len(rows), self._width), np.float32)
        size = 4 * self._width
        for b in np.unique(block):
            shard = self._places.blocks[b][0]
            at = np.flatnonzero(block == b)
            begin, count = self._start(int(b))
            _check_rows(self._location, row[at], count)
            pieces = self._location.ranges(shard, [(begin + int(r) * size, size) for r in row[at]])
            digests = self._snapshots.column("weights_sha256").take(arrow_index(rows[at])).to_pylist()
            for i, piece, digest in zip(at, pieces, digests, strict=True):
                if hashlib.sha256(piece).hexdigest() != digest:
                    raise IntegrityError(
                        f"{shard} of {self._location.name}: row {row[i]} differs from its checksum. "
                        "Try again; if it stays so, the zoo on the Hub is damaged."
                    )
                out[i] = np.frombuffer(piece, "<f4")
        return out

    def _start(self, block: int) -> tuple[int, int]:
        if block not in self._starts:
            shard, tensor = self._places.blocks[block]
            location = self._location
            tensors, size = shards.parse_header(location.open(shard).read, f"{shard} of {location.name}")
            if tensor not in tensors or size != location.entry(shard).bytes:
                raise IntegrityError(f"{shard} of {location.name}: its header lies about what it holds.")
            begin, shape = tensors[tensor]
            _check_shape(location, shard, tensor, shape)
            self._starts[block] = begin, shape[0]
        return self._starts[block]
