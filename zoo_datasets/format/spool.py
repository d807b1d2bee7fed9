"""Pieces → a whole whose size was not known: what waits on the disk while a zoo is written.

In:  tables and rows of weights of one split as they come, in the zoo's order.
Out: the whole table, memory-mapped, whatever its length; and the split's shards, whose headers
say how many rows there are and therefore come before rows that are not there yet.

Nothing here is in memory for longer than a batch. Files lie in one folder and are its owner's
to remove; their names begin as all scratch does.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core import files
from zoo_datasets.format import shards

BATCH_ROWS = 20_000  # as many as a page of Parquet holds at most: the bytes of a file do not tell the batches
MOST_LAYOUTS = (
    4000  # of a shard: a header has some 100 bytes for each, or 200 of the optimizer's, and at most a million
)
MOST_SHARD_BYTES = 4_000_000_000  # the Hub takes 5 GB a file


class TableSpool:
    """A table that grows on the disk, in batches of equal length, until it is asked for."""

    def __init__(self, path: Path, schema: pa.Schema, batch_rows: int) -> None:
        self.path, self.schema, self.batch_rows = path, schema, batch_rows
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0

    def append(self, table: pa.Table) -> None:
        """Add rows of exactly this schema."""
        self._waiting.append(table)
        self._n_waiting += len(table)
        if self._n_waiting >= self.batch_rows:
            self._write(self._n_waiting // self.batch_rows * self.batch_rows)

    def _write(self, count: int) -> None:
        """The first rows that wait."""
        table = pa.concat_tables(self._waiting)
        for start in range(0, count, self.batch_rows):
            batch = table.slice(start, min(self.batch_rows, count - start))
            self._writer.write_table(batch.combine_chunks(), self.batch_rows)
        self._waiting, self._n_waiting = [table.slice(count)], len(table) - count

    def finish(self) -> pa.Table:
        """All rows, in chunks of `batch_rows`, mapped from the file; it may be unlinked then."""
        if self._n_waiting:
            self._write(self._n_waiting)
        self._waiting = []
        self._writer.close()
        self._file.close()
        return pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()

    def close(self) -> None:
        """Let go of the file, whole or not."""
        self._file.close()


@dataclasses.dataclass(frozen=True)
class Shard:
    """A whole shard under a scratch name, and the optimizer's file beside it where that is kept."""

    n_rows: int
    weights: Path
    sealed: dict[str, Any]  # bytes and sha256 of the weights' file
    optimizer: Path | None = None
    optimizer_sealed: dict[str, Any] | None = None


class ShardSpool:
    """The rows of one split → its shards: one tensor per layout, in the order in which layouts come.

    A row opens a new shard where the larger of its two files, of weights and of the optimizer's
    two slots, would pass the bound, and where its layout is one too many.
    """

    def __init__(self, folder: Path, split: str, keeps_slots: bool) -> None:
        self.folder, self.split, self.keeps_slots = folder, split, keeps_slots
        self.shards: list[Shard] = []
        self._bytes = 0
        self._counts: dict[str, int] = {}  # layout → rows in the open shard
        self._widths: dict[str, int] = {}
        self._rows: dict[
            str, Path
        ] = {}  # tensor → the file of its rows so far, closed between them: layouts may be thousands

    def add(self, layout: str, weights: np.ndarray, slots: np.ndarray | None) -> list[tuple[int, int, int]]:
        """Take rows [n, P], with slots [n, 2, P]; where they lie: (number of the shard, first row, count) …"""
        row_bytes = weights.shape[1] * (8 if self.keeps_slots else 4)
        places, start = [], 0
        while start < len(weights):
            count = min(len(weights) - start, max(0, MOST_SHARD_BYTES - self._bytes) // max(1, row_bytes))
            if self._counts and (not count or (layout not in self._counts and len(self._counts) >= MOST_LAYOUTS)):
                self._close_shard()
                continue
            count = max(1, count)  # a row that is larger than the bound has a shard of its own
            piece = slice(start, start + count)
            places.append((len(self.shards), self._counts.get(layout, 0), count))
            self._append(layout, weights[piece], None if slots is None else slots[piece])
            self._bytes += count * row_bytes
            start += count
        return places

    def _append(self, layout: str, weights: np.ndarray, slots: np.ndarray | None) -> None:
        self._counts[layout] = self._counts.get(layout, 0) + len(weights)
        self._widths[layout] = weights.shape[1]
        self._write(layout, weights)
        if slots is not None:
            for n in (1, 2):
                self._write(f"{layout}.slot{n}", slots[:, n - 1])

    def _write(self, tensor: str, rows: np.ndarray) -> None:
        new = tensor not in self._rows
        path = self._rows.setdefault(tensor, self.folder / f"{files.SCRATCH}{self.split}-{len(self._rows)}")
        with path.open("wb" if new else "ab") as file:
            file.write(np.ascontiguousarray(rows, "<f4").data)

    def _close_shard(self) -> None:
        """Headers before rows: the open shard as it is published."""
        stem = f"{self.split}-{len(self.shards):05d}"
        shapes = {layout: (n, self._widths[layout]) for layout, n in self._counts.items()}
        made: dict[str, Any] = {"weights": self.folder / f"{stem}.weights"}
        made["sealed"] = shards.write(made["weights"], shapes, lambda name: [self._read(name, shapes[name])])
        if self.keeps_slots:
            both = {f"{layout}.slot{n}": shape for layout, shape in shapes.items() for n in (1, 2)}
            made["optimizer"] = self.folder / f"{stem}.optimizer"
            made["optimizer_sealed"] = shards.write(
                made["optimizer"], both, lambda name: [self._read(name, both[name])]
            )
        self.shards.append(Shard(sum(self._counts.values()), **made))
        self.close()
        self._counts, self._bytes = {}, 0

    def _read(self, tensor: str, shape: tuple[int, int]) -> np.ndarray:
        path = self._rows[tensor]
        return np.memmap(path, "<f4", "r", shape=shape) if path.stat().st_size else np.zeros(shape, "<f4")

    def finish(self) -> list[Shard]:
        if self._counts:
            self._close_shard()
        return self.shards

    def close(self) -> None:
        """Give back the disk of rows that no shard has taken, or has taken."""
        for path in self._rows.values():
            path.unlink(missing_ok=True)
        self._rows = {}
