"""A table, and the published weights of its rows → its Parquet files, encoded as the format says.

Measured on the Hub and with `datasets`: weights are noise to a compressor, so they are stored as
they are, in large pages; all other columns as dictionaries, compressed. The table may be mapped
and of any length; weights are asked for in groups of rows of ROW_GROUP_BYTES.

A table is one file up to MOST_FILE_BYTES and several above, about equally large, so that ranks and
workers that stream it can share it. They are cut between groups of rows where these are small enough:
where, is a function of the table alone.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.core import files

ROW_GROUP_BYTES = 64_000_000
DATA_PAGE_BYTES = 8_000_000  # de-duplicates against the shard on the Hub (2 % new bytes against 9 % at 1 MB)
MOST_FILE_BYTES = 256_000_000  # three full groups of rows: eight workers share 2 GB

# The weights of rows from … to, one after another, and how many values each row has.
WeightsOfRows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
Span = tuple[int, int]  # rows from … to, which are one group


def write(
    name: Callable[[int, int], Path], table: pa.Table, weights: WeightsOfRows | None = None,
    widths: frozenset[int] = frozenset(), *, most_bytes: int = MOST_FILE_BYTES,
) -> list[Path]:  # fmt: skip
    """Write a table; with `weights`, inline: of one width as fixed-size lists, else ragged. Raises OSError.

    `name(i, n)` is the path of file i of n. A larger table than `most_bytes` is written twice: what
    its groups take when compressed is known once they are.
    """
    full, cuts = table.schema, [0, len(table)]
    if weights is not None:
        kind = pa.list_(pa.float32(), min(widths)) if len(widths) == 1 else pa.list_(pa.float32())
        full = full.append(pa.field("weights", kind))
        cuts = _cuts(table["n_params"].to_numpy())
    spans = [(a, b) for a, b in itertools.pairwise(cuts) if a < b]
    whole = name(0, 1)
    _write_file(whole, table, full, spans, weights)
    if whole.stat().st_size <= most_bytes:
        return [whole]
    dealt = _dealt(whole, spans, most_bytes)
    if len(dealt) == 1:  # one row that is larger than the bound
        return [whole]
    whole.unlink()
    paths = [name(i, len(dealt)) for i in range(len(dealt))]
    for path, own in zip(paths, dealt, strict=True):
        _write_file(path, table, full, own, weights)
    return paths


def _cuts(widths: np.ndarray) -> list[int]:
    """Where groups of rows of so many weights (n,) begin and end: as many rows as ROW_GROUP_BYTES hold, at least one."""
    ends, cuts = np.cumsum(4 * widths.astype(np.int64)), [0]
    while cuts[-1] < len(ends):
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(ends.searchsorted(before + ROW_GROUP_BYTES, side="right"))))
    return cuts


def _write_file(
    path: Path, table: pa.Table, full: pa.Schema, spans: Sequence[Span], weights: WeightsOfRows | None
) -> None:
    names = _leaves(table.schema)
    with files.atomic(path) as out, pq.ParquetWriter(
        out, full, compression={**dict.fromkeys(names, "zstd"), "weights.list.element": "none"}, use_dictionary=names,
        data_page_size=DATA_PAGE_BYTES, write_page_index=True, write_page_checksum=True, store_schema=True,
    ) as writer:  # fmt: skip
        for start, end in spans:
            piece = table.slice(start, end - start)
            if weights is not None:
                lists = _lists(*weights(start, end), full.field("weights").type)
                piece = piece.append_column(full.field("weights"), lists)
            writer.write_table(piece, row_group_size=end - start)


def _dealt(whole: Path, spans: Sequence[Span], most_bytes: int) -> list[list[Span]]:
    """The groups of rows of each file, as few files as hold them and about equally large."""
    footer = pq.read_metadata(whole)
    sizes = [_stored_bytes(footer.row_group(i)) for i in range(footer.num_row_groups)]
    # Footer and indexes are counted to every file, in full: none passes the bound for them.
    room = max(1, most_bytes - (whole.stat().st_size - sum(sizes)))
    pieces: list[tuple[Span, int]] = []
    for (start, end), size in zip(spans, sizes, strict=True):
        # A group larger than a file is cut; an eighth is left for dictionaries, which each piece has anew.
        parts = 1 if size <= room else min(end - start, -(-size * 8 // (7 * room)))
        cuts = [start + (end - start) * i // parts for i in range(parts + 1)]
        pieces += [((a, b), -(-size * (b - a) // (end - start))) for a, b in itertools.pairwise(cuts)]
    count = len(_filled(pieces, room))
    least = bisect.bisect_left(range(room), True, key=lambda most: len(_filled(pieces, most)) <= count)
    return _filled(pieces, least)


def _filled(pieces: Sequence[tuple[Span, int]], most_bytes: int) -> list[list[Span]]:
    """One file after another, each as full as the bound allows and never empty."""
    filled: list[list[Span]] = []
    used = 0
    for span, size in pieces:
        if not filled or used + size > most_bytes:
            filled.append([])
            used = 0
        filled[-1].append(span)
        used += size
    return filled


def _stored_bytes(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(c).total_compressed_size for c in range(group.num_columns))


def _lists(flat: np.ndarray, lengths: np.ndarray, kind: pa.DataType) -> pa.Array:
    values = pa.array(flat, pa.float32())
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), values)


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet paths of the columns: a list column's values lie under `.list.element`."""
    return [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
