"""A Parquet file of a zoo → an opened file that cannot unfold into more than its bytes warrant.

In:  a file, its size in bytes, and how it is called in messages.
Out: a `ParquetFile`, its strings read as dictionaries; `as_strings` makes them strings again.

A few kilobytes of Parquet can hold a list or a text of gigabytes. The footer tells what columns
unfold to, and dictionaries what their strings do: both are looked at before memory is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.errors import IntegrityError

# Tables of real zoos unfold to 2 to 20 times their bytes; a bomb to a thousand times and more.
MOST_UNFOLDING, ALWAYS_BYTES = 200, 64_000_000
# The longest text of a real row, a schedule of a thousand snapshots, has 6 kB; of most rows, 20 bytes.
MOST_TEXT_BYTES_A_ROW, ALWAYS_TEXT_BYTES = 2_000, 250_000_000


def open_file(source: Any, size: int, where: str, **options: Any) -> pq.ParquetFile:
    """The file, pages checked against their checksums. Raises IntegrityError where it is damaged, or a bomb."""
    options = {"page_checksum_verification": True, **options}
    try:
        first = pq.ParquetFile(source, **options)
        # Checksums are all different: as a dictionary they would take five times the time to read.
        strings = [f.name for f in first.schema_arrow if pa.types.is_string(f.type) and not f.name.endswith("sha256")]
        unfolded = _unfolded_bytes(first.metadata)
        if unfolded > ALWAYS_BYTES + MOST_UNFOLDING * size:
            raise IntegrityError(
                f"{where} has {size:,} bytes and would unfold to {unfolded:,}: a bomb, or damaged. Nothing of it is read."
            )
        return pq.ParquetFile(source, metadata=first.metadata, read_dictionary=strings, **options)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{where} is damaged: {error}. Fetch or build the zoo again.") from None


def _unfolded_bytes(footer: pq.FileMetaData) -> int:
    """What all columns take in memory, by the footer: 8 bytes a value at most, texts apart."""
    chunks = [footer.row_group(g).column(c) for g in range(footer.num_row_groups) for c in range(footer.num_columns)]
    return sum(max(c.total_uncompressed_size, 8 * c.num_values) for c in chunks)


def as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary column as the strings it stands for; any other as it is. Raises IntegrityError for a bomb."""
    if not pa.types.is_dictionary(column.type):
        return column
    size = sum(_text_bytes(chunk) for chunk in column.chunks)
    if size > max(ALWAYS_TEXT_BYTES, MOST_TEXT_BYTES_A_ROW * len(column)):
        raise IntegrityError(
            f"A column of {len(column):,} texts would unfold to {size:,} bytes: a bomb, or damaged. Nothing of it is read."
        )
    return column.cast(pa.string())


def _text_bytes(chunk: pa.DictionaryArray) -> int:
    words, indices = chunk.dictionary, chunk.indices
    offsets = words.buffers()[1] if len(words) else None
    codes = indices.buffers()[1]
    if offsets is None or codes is None:
        return 0
    lengths = np.diff(np.frombuffer(offsets, np.int32)[words.offset : words.offset + len(words) + 1]).astype(np.int64)
    used = np.frombuffer(codes, indices.type.to_pandas_dtype())[indices.offset : indices.offset + len(indices)]
    # Where a value is missing its code may be anything; 0 is near enough.
    return int(np.bincount(np.where((used >= 0) & (used < len(words)), used, 0), minlength=len(words)) @ lengths)
