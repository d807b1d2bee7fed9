"""Snapshots of a zoo → readers of their rows in its shards, here or on the Hub."""

from __future__ import annotations

import functools
import hashlib
import io
from typing import Any

import numpy as np

from zoo_datasets.core import files
from zoo_datasets.core.arrow import arrow_index
from zoo_datasets.errors import FormatVersionError, IntegrityError
from zoo_datasets.format import shards
from zoo_datasets.reading.columns import Columns
from zoo_datasets.reading.gather import Gather, Ragged
from zoo_datasets.reading.location import Location


class Shards:
    """Where the weights of every snapshot of a zoo lie. Picklable."""

    def __init__(self, location: Location, snapshots: Columns, verify: bool = False) -> None:
        if location.manifest["weights_dtype"] != "float32":
            raise FormatVersionError(
                f"{location.name} stores weights as {location.manifest['weights_dtype']}; this library reads float32. "
                "Upgrade weightzoo."
            )
        self.location, self.snapshots, self.verify = location, snapshots, verify
        self._opened: dict[int, np.ndarray] = {}
        self.verified: set[str] = set()

    def __reduce__(self) -> Any:
        return Shards, (self.location, self.snapshots, self.verify)

    @functools.cached_property
    def _places(self) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
        """The blocks (shard, tensor) of the zoo; for every snapshot its block and its row there."""
        shard, shard_names = self.snapshots.codes("shard")
        tensor, tensor_names = self.snapshots.codes("tensor")
        row = self.snapshots.numbers("row")
        if row.dtype != np.int64 or (len(row) and (row.min() < 0 or shard.min() < 0 or tensor.min() < 0)):
            raise IntegrityError(f"Snapshots of {self.location.name} have no place in a shard: the zoo is damaged.")
        pairs = shard.astype(np.int64) * max(1, len(tensor_names)) + tensor
        used = np.flatnonzero(np.bincount(pairs)) if len(pairs) else np.zeros(0, np.int64)
        number = np.zeros(used.max(initial=0) + 1, np.int32)
        number[used] = np.arange(len(used))
        split = [divmod(int(u), max(1, len(tensor_names))) for u in used]
        return [(shard_names[s].as_py(), tensor_names[t].as_py()) for s, t in split], number[pairs], row

    def layouts_of(self, rows: np.ndarray) -> dict[str, int]:
        """{layout: its number} of those that rows have."""
        blocks, block, _ = self._places
        used = np.flatnonzero(np.bincount(block[rows], minlength=len(blocks)))
        names = list(dict.fromkeys(blocks[b][1] for b in used))
        return {name: self._layout_names.index(name) for name in names}

    def layout_numbers(self, rows: np.ndarray) -> np.ndarray:
        """The number of each row's layout."""
        blocks, block, _ = self._places
        of_block = np.array([self._layout_names.index(tensor) for _, tensor in blocks], np.int32)
        return of_block[block[rows]]

    @functools.cached_property
    def _layout_names(self) -> list[str]:
        return list(dict.fromkeys(tensor for _, tensor in self._places[0]))

    def width(self, layouts: tuple[str, ...]) -> int:
        """P of a layout; of no layout (an empty selection) that of the zoo's first."""
        known = self.location.manifest["layouts"]
        if not (layouts or known):
            return 0
        name = layouts[0] if layouts else next(iter(known))
        if name not in known:
            raise IntegrityError(f"{self.location.name}: no layout {name!r} in the manifest; the zoo is damaged.")
        return max((e["offset"] + int(np.prod(e["shape"], dtype=np.int64)) for e in known[name]), default=0)

    def reader(self, rows: np.ndarray) -> Any:
        """What reads these rows: `one`, `slice`, `take`."""
        layouts = self.layouts_of(rows)
        if len(layouts) > 1:
            own = self.layout_numbers(rows)
            parts = [(at, self.reader(rows[at])) for at in (np.flatnonzero(own == k) for k in layouts.values())]
            return Ragged(parts, len(rows))
        if not len(rows):
            return Gather([np.empty((0, self.width(())), np.float32)], np.zeros(0, np.int32), np.zeros(0, np.int64))
        blocks, block, row = self._places
        if any(not self._near(blocks[b][0]) for b in np.unique(block[rows])):
            return _Far(self, rows, self.width(tuple(layouts)))
        used, array = np.unique(block[rows], return_inverse=True)
        arrays = [self._array(int(b)) for b in used]
        own_rows = row[rows]
        self._check(own_rows, np.array([len(a) for a in arrays])[array], blocks)
        gather = Gather(arrays, array.astype(np.int32), own_rows)
        return _Verified(gather, self, [blocks[b][0] for b in used]) if self.verify else gather

    def _check(self, row: np.ndarray, count: np.ndarray, blocks: list[tuple[str, str]]) -> None:
        if (row >= count).any():
            raise IntegrityError(
                f"{self.location.name}: snapshots name rows beyond the end of their shard: the zoo is damaged. "
                "`python -m zoo_datasets check` says where."
            )

    def _near(self, shard: str) -> bool:
        """Whether a shard lies on this machine whole, as of a local zoo or a downloaded one."""
        if self.location.is_local:
            return True
        path = files.inside(self.location.root, shard)
        return path.is_file() and path.stat().st_size == self.location.entry(shard)["bytes"]

    def _array(self, block: int) -> np.ndarray:
        if block not in self._opened:
            shard, tensor = self._places[0][block]
            # A plain array over the mapping: the subclass `memmap` costs microseconds a call.
            array = np.asarray(shards.open_tensor(self.location.path(shard), tensor))
            self.check_shape(shard, tensor, array.shape)
            self._opened[block] = array
        return self._opened[block]

    def check_shape(self, shard: str, tensor: str, shape: tuple[int, ...]) -> None:
        """Raises IntegrityError where a tensor is not [n, P] of its layout."""
        if len(shape) != 2 or shape[1] != self.width((tensor,)):
            raise IntegrityError(
                f"{shard} of {self.location.name}: tensor {tensor} has shape {shape}, its layout has "
                f"{self.width((tensor,))} values: the shard's header lies. Fetch or build the zoo again."
            )

    def check_bytes(self, shard: str) -> None:
        """Compare a shard with its SHA-256, once. Raises IntegrityError."""
        if shard not in self.verified:
            if files.sha256(self.location.path(shard)) != self.location.entry(shard)["sha256"]:
                raise IntegrityError(
                    f"{shard} of {self.location.name} has other contents than were sealed. Fetch or build the zoo again."
                )
            self.verified.add(shard)


class _Verified:
    """A `Gather` whose shards are compared with their checksums before their first row is returned."""

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


class _Far:
    """Rows of shards on the Hub: fetched by ranges, each compared with its SHA-256."""

    def __init__(self, source: Shards, rows: np.ndarray, width: int) -> None:
        self._source, self._rows, self._width = source, rows, width
        self._starts: dict[int, tuple[int, int]] = {}  # block → (byte offset of its row 0, rows)

    def one(self, i: int) -> np.ndarray:
        return self.take(np.array([i]))[0]

    def slice(self, start: int, stop: int) -> np.ndarray:
        return self.take(np.arange(start, stop))

    def take(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        blocks, block, row = self._source._places
        out = np.empty((len(rows), self._width), np.float32)
        size = 4 * self._width
        for b in np.unique(block[rows]):
            at = np.flatnonzero(block[rows] == b)
            begin, count = self._start(int(b))
            self._source._check(row[rows[at]], np.full(len(at), count), blocks)
            spans = [(begin + int(r) * size, size) for r in row[rows[at]]]
            pieces = self._source.location.ranges(blocks[b][0], spans)
            wanted = self._source.snapshots.column("weights_sha256").take(arrow_index(rows[at])).to_pylist()
            for i, piece, digest in zip(at, pieces, wanted, strict=True):
                if hashlib.sha256(piece).hexdigest() != digest:
                    raise IntegrityError(
                        f"{blocks[b][0]} of {self._source.location.name}: row {row[rows[i]]} differs from its checksum. "
                        "Try again; if it stays so, the zoo on the Hub is damaged."
                    )
                out[i] = np.frombuffer(piece, "<f4")
        return out

    def _start(self, block: int) -> tuple[int, int]:
        if block not in self._starts:
            shard, tensor = self._source._places[0][block]
            location = self._source.location
            [head] = location.ranges(shard, [(0, 8)])
            length = int.from_bytes(head, "little")
            if length <= shards.MOST_HEADER_BYTES:
                head += location.ranges(shard, [(8, length)])[0]
            tensors, size = shards.parse_header(io.BytesIO(head).read, f"{shard} of {location.name}")
            if tensor not in tensors or size != location.entry(shard)["bytes"]:
                raise IntegrityError(f"{shard} of {location.name}: its header lies about what it holds.")
            begin, shape = tensors[tensor]
            self._source.check_shape(shard, tensor, shape)
            self._starts[block] = begin, shape[0]
        return self._starts[block]
