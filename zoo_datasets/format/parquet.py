"""A Parquet file of a zoo → an opened file that cannot unfold into more than its bytes warrant.

In:  a file, here or behind byte ranges, its size in bytes, and how it is called in messages.
Out: a `TableFile`: rows and schema by the footer, then columns, strings as dictionaries; `as_strings`
makes them strings again.

A few kilobytes of Parquet can hold lists or texts of gigabytes, and a footer can say that they do not. What
columns unfold to is bounded by the footer when a file is opened; before a column is decoded its pages are
held to what the footer said; and texts that many rows share are counted before they are written out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.core.ranges import RangeFile, Ranges, Span
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format.pages import BY_DICTIONARY, BadPageError, Page, pages

# Tables of real zoos unfold to 2 to 20 times their bytes; a bomb to a thousand times and more.
MOST_UNFOLDING, ALWAYS_BYTES = 50, 64_000_000
# Counts of a thousand classes compress to nothing. A row has up to nine lists of them, 8 bytes a class, and a network has four
# bytes of weights for each class at least: what a zoo's shards take bounds its lists.
LISTS_PER_BYTE, MOST_LISTS_BYTES = 18, 16_000_000_000
# Texts are shared by rows: a tiny zoo's schedule of a thousand snapshots has 6 kB in every row.
ALWAYS_TEXT_BYTES = 128_000_000
# A chunk takes about 250 bytes of the footer, and the largest tables have a row group for each 64 MB.
FOOTER_SHARE, ALWAYS_FOOTER_BYTES = 500, 1_000_000
TAIL_BYTES = 65_536  # what pyarrow reads first, to find the footer
END_BYTES, MAGIC = 8, b"PAR1"  # the footer's length and the magic number, which begins the file too
LENGTH_BYTES = 4  # before each text of a dictionary page


@dataclasses.dataclass(frozen=True)
class TableFile:
    """An opened file; nothing but its footer was decoded."""

    source: Path | Ranges
    size: int
    where: str
    footer: pq.FileMetaData
    schema: pa.Schema  # as it is stored

    @property
    def n_rows(self) -> int:
        return int(self.footer.num_rows)

    @functools.cached_property
    def unfolded(self) -> int:
        """What all columns take in memory, by the footer: 8 bytes a value at most, texts apart."""
        return sum(max(c.total_uncompressed_size, 8 * c.num_values) for _, c in self._chunks)

    def read(self, names: Sequence[str]) -> pa.Table:
        """Columns, their pages looked at first. Raises IntegrityError."""
        wanted = [c for path, c in self._chunks if any(path == n or path.startswith(f"{n}.") for n in names)]
        spans = [_span(c) for c in wanted]
        # Checksums are all different: as a dictionary they would take five times the time to read.
        shared = [f.name for f in self.schema if pa.types.is_string(f.type) and not f.name.endswith("sha256")]
        with _damage(self.where), self._bytes(spans) as (found, source):
            texts = sum(
                self._look_at(c, data, c.path_in_schema not in shared) for c, data in zip(wanted, found, strict=True)
            )
            if texts > most_bytes(self.size):
                raise bomb(f"Checksums of {self.where}", texts, self.size)
            file = pq.ParquetFile(
                source, metadata=self.footer, read_dictionary=shared, memory_map=isinstance(source, Path),
                pre_buffer=False, page_checksum_verification=True,
            )  # fmt: skip
            table = file.read(columns=list(names))
            table.validate(full=True)  # texts that are no UTF-8, codes behind their dictionary
            return table

    @functools.cached_property
    def _chunks(self) -> list[tuple[str, pq.ColumnChunkMetaData]]:
        """(path of its column, chunk) of all chunks, row group after row group."""
        groups = map(self.footer.row_group, range(self.footer.num_row_groups))
        chunks = (group.column(c) for group in groups for c in range(self.footer.num_columns))
        return [(chunk.path_in_schema, chunk) for chunk in chunks]

    def _look_at(self, chunk: pq.ColumnChunkMetaData, data: Any, direct: bool) -> int:
        """Bytes of texts that the pages of a chunk would unfold to beyond their own. Raises IntegrityError."""
        found = pages(data)
        own = [p for p in found if not p.is_dictionary]
        values, unfolded = sum(p.values for p in own), sum(p.unfolded for p in found)
        if values != chunk.num_values or unfolded > chunk.total_uncompressed_size:
            raise IntegrityError(
                f"{self.where}: the footer says that {chunk.path_in_schema} has {chunk.num_values:,} values and unfolds "
                f"to {chunk.total_uncompressed_size:,} bytes, its pages say {values:,} and {unfolded:,}: a bomb, or "
                "damaged. Nothing of it is read."
            )
        if not direct or chunk.physical_type != "BYTE_ARRAY" or not found or not found[0].is_dictionary:
            return 0
        shared = sum(p.values for p in own if p.encoding in BY_DICTIONARY)
        return shared * _longest(found[0], data, chunk.compression)

    @contextlib.contextmanager
    def _bytes(self, spans: Sequence[Span]) -> Iterator[tuple[Sequence[Any], Any]]:
        """The bytes of spans, and what pyarrow reads the same bytes of."""
        if not isinstance(self.source, Path):
            held = self.source(spans)
            yield held, pa.PythonFile(RangeFile(self.source, self.size, dict(zip(spans, held, strict=True))), "r")
            return
        with self.source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            views = [memoryview(mapped)[start : start + length] for start, length in spans]
            try:
                yield views, self.source
            finally:
                for view in views:
                    view.release()


def open_file(source: Path | Ranges, size: int, where: str, weights: int = 0) -> TableFile:
    """The file, its footer read and sane; `weights` are the bytes of its zoo's shards. Raises IntegrityError where it is damaged, or a bomb."""
    with _damage(where):
        start = max(0, size - TAIL_BYTES)
        if isinstance(source, Path):
            with source.open("rb") as file:
                file.seek(start)
                tail, reading = file.read(size - start), source
        else:
            [tail] = source([(start, size - start)])
            reading = pa.PythonFile(RangeFile(source, size, {(start, size - start): tail}), "r")
        length = int.from_bytes(tail[-END_BYTES:-4], "little")
        if tail[-4:] != MAGIC or length > size or length > ALWAYS_FOOTER_BYTES + size // FOOTER_SHARE:
            raise IntegrityError(f"{where} is damaged: it is no Parquet file, or its footer of {length:,} bytes lies.")
        file = pq.ParquetFile(reading, memory_map=isinstance(source, Path), pre_buffer=False)
        opened = TableFile(source, size, where, file.metadata, file.schema_arrow)
        flat = {c.path for c in map(file.schema.column, range(opened.footer.num_columns)) if not c.max_repetition_level}
        _check_footer(opened, flat)
        if opened.unfolded > most_bytes(size, weights):
            raise bomb(where, opened.unfolded, size)
        return opened


def most_bytes(size: int, weights: int = 0) -> int:
    """What files of so many bytes may unfold to, beside shards of so many."""
    return ALWAYS_BYTES + MOST_UNFOLDING * size + min(LISTS_PER_BYTE * weights, MOST_LISTS_BYTES)


def bomb(where: str, unfolded: int, size: int) -> IntegrityError:
    return IntegrityError(
        f"{where} has {size:,} bytes and would unfold to {unfolded:,}: a bomb, or damaged. Nothing of it is read."
    )


def as_strings(columns: Mapping[str, pa.ChunkedArray], size: int, where: str) -> pa.Table:
    """Dictionary columns as the strings they stand for, others as they are; `size` is that of all their files.

    Raises IntegrityError for a bomb.
    """
    texts = sum(_text_bytes(chunk) for column in columns.values() for chunk in column.chunks)
    if texts > ALWAYS_TEXT_BYTES + MOST_UNFOLDING * size:
        raise IntegrityError(
            f"{where} has {size:,} bytes and its texts would unfold to {texts:,}: a bomb, or damaged. Nothing of it is "
            "read."
        )
    return pa.table({n: c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for n, c in columns.items()})


@contextlib.contextmanager
def _damage(where: str) -> Iterator[None]:
    """What pyarrow says of bytes that are no table, as an IntegrityError."""
    try:
        yield
    except (pa.ArrowException, OSError, BadPageError, ValueError, OverflowError, EOFError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise IntegrityError(f"{where} is damaged: {error}. Fetch or build the zoo again.") from None


def _check_footer(file: TableFile, flat: Iterable[str]) -> None:
    """Raises IntegrityError where the footer contradicts itself."""
    footer, single = file.footer, set(flat)
    groups = [footer.row_group(g).num_rows for g in range(footer.num_row_groups)]
    if len(set(file.schema.names)) != len(file.schema.names):
        raise IntegrityError(f"{file.where} has two columns of one name: it is damaged.")
    if any(n < 0 for n in groups) or sum(groups) != footer.num_rows:
        raise IntegrityError(f"{file.where} has {footer.num_rows:,} rows, and its row groups {sum(groups):,}.")
    for number, (path, chunk) in enumerate(file._chunks):
        rows = groups[number // footer.num_columns]
        start, length = _span(chunk)
        fits = len(MAGIC) <= start and 0 <= length and start + length <= file.size
        fits &= 0 <= chunk.num_values and 0 <= chunk.total_uncompressed_size
        if not fits or (path in single and chunk.num_values != rows):
            raise IntegrityError(f"{file.where} is damaged: its footer lies about the column {path!r}.")


def _span(chunk: pq.ColumnChunkMetaData) -> Span:
    """(offset, length) of a chunk in its file, as pyarrow finds it."""
    start, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
    if dictionary is not None and 0 < dictionary < start:
        start = dictionary
    return start, chunk.total_compressed_size


def _longest(page: Page, data: Any, compression: str) -> int:
    """Bytes of the longest text of a dictionary page. Raises BadPageError."""
    stored = pa.py_buffer(bytes(data[page.start : page.start + page.stored]))
    size = page.unfolded - (page.start)  # a dictionary is the first page: what is before its data is its header
    codec = {"LZ4": "lz4_raw"}.get(compression, compression.lower())
    plain = stored if codec == "uncompressed" else pa.Codec(codec).decompress(stored, size)
    raw = memoryview(plain)
    first = int.from_bytes(raw[:LENGTH_BYTES], "little")
    step = first + LENGTH_BYTES
    if page.values and len(raw) == page.values * step:  # of one length, as checksums are: one look at all
        lengths = np.frombuffer(raw, np.uint8).reshape(page.values, step)[:, :LENGTH_BYTES]
        if (lengths == lengths[0]).all():
            return first
    at = longest = 0
    for _ in range(page.values):
        length = int.from_bytes(raw[at : at + LENGTH_BYTES], "little")
        at, longest = at + LENGTH_BYTES + length, max(longest, length)
        if at > len(raw):
            raise BadPageError("a dictionary that ends behind its page")
    return longest


def _text_bytes(chunk: pa.Array) -> int:
    """Bytes that a dictionary array has as strings; 0 for any other."""
    if not pa.types.is_dictionary(chunk.type):
        return 0
    words, indices = chunk.dictionary, chunk.indices
    offsets = words.buffers()[1] if len(words) else None
    codes = indices.buffers()[1]
    if offsets is None or codes is None:
        return 0
    # Of the rows that are there alone: one row of a table is asked for as often as a million.
    offsets_of = np.frombuffer(offsets, np.int32)[words.offset : words.offset + len(words) + 1]
    used = np.frombuffer(codes, indices.type.to_pandas_dtype())[indices.offset : indices.offset + len(indices)]
    # Where a value is missing its code may be anything; 0 is near enough.
    used = np.where((used >= 0) & (used < len(words)), used, 0)
    return int((offsets_of[used + 1] - offsets_of[used]).sum(dtype=np.int64))
