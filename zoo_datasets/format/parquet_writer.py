"""A table, and the published weights of its rows → one Parquet file, encoded as the format says.

Measured on the Hub and with `datasets`: weights are noise to a compressor, so they are stored as
they are, in large pages; all other columns as dictionaries, compressed. The table may be mapped
and of any length; weights are asked for in groups of rows of ROW_GROUP_BYTES.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.core import files

ROW_GROUP_BYTES = 64_000_000
DATA_PAGE_BYTES = 8_000_000  # de-duplicates against the shard on the Hub (2 % new bytes against 9 % at 1 MB)

# The weights of rows from … to, one after another, and how many values each row has.
WeightsOfRows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def write(
    path: Path, table: pa.Table, weights: WeightsOfRows | None = None, widths: frozenset[int] = frozenset()
) -> None:
    """Write a table; with `weights`, inline: of one width as fixed-size lists, else ragged. Raises OSError."""
    full, group = table.schema, len(table) or 1
    if weights is not None:
        kind = pa.list_(pa.float32(), min(widths)) if len(widths) == 1 else pa.list_(pa.float32())
        full = full.append(pa.field("weights", kind))
        group = max(1, ROW_GROUP_BYTES // (4 * max(widths)))
    names = _leaves(table.schema)
    with files.atomic(path) as out, pq.ParquetWriter(
        out, full, compression={**dict.fromkeys(names, "zstd"), "weights.list.element": "none"}, use_dictionary=names,
        data_page_size=DATA_PAGE_BYTES, write_page_index=True, write_page_checksum=True, store_schema=True,
    ) as writer:  # fmt: skip
        for start in range(0, len(table), group):
            piece = table.slice(start, group)
            if weights is not None:
                lists = _lists(*weights(start, start + len(piece)), full.field("weights").type)
                piece = piece.append_column(full.field("weights"), lists)
            writer.write_table(piece, row_group_size=group)


def _lists(flat: np.ndarray, lengths: np.ndarray, kind: pa.DataType) -> pa.Array:
    values = pa.array(flat, pa.float32())
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), values)


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet paths of the columns: a list column's values lie under `.list.element`."""
    return [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
