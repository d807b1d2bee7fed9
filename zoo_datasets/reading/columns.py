"""A zoo's Parquet tables → columns, each read when it is asked for.

In:  a `Location` and the name of a table, `models` or `snapshots`.
Out: its schema and row count from the files' footers alone; then single columns, kept once
read, in the zoo's order. The inline `weights` of `models` are never read here.

Row counts are compared with the manifest before anything is unfolded. Strings but
checksums are kept as dictionaries: a million rows of a factor with ten levels take 4 MB. NumPy arrays are made of
Arrow's buffers here: pyarrow's own `to_numpy`, `scalar` and `array` first import pandas,
which takes longer than everything else that opening and selecting do.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.core.arrow import arrow_index, nulls_of, numbers_of
from zoo_datasets.errors import IntegrityError, ZooError, unknown
from zoo_datasets.format import parquet
from zoo_datasets.format.parquet import plain
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.reading.location import Location

# A remote table up to this size is fetched whole, which verifies it; of a larger one (with
# its weights inline) only the columns asked for travel, guarded by page checksums.
MOST_FETCHED_BYTES = 32_000_000
# Without these nothing can be found; a zoo has many more (`schema.COLUMNS`), missed when they are asked for.
NEEDED = {
    "models": ("model_id", "split"),
    "snapshots": ("model_id", "step", "shard", "tensor", "row", "weights_sha256"),
}
MOST_COMPARED = 8  # values compared one by one; more are sorted first


class Columns:
    """One table of a zoo, read column by column. Picklable: a copy opens the files again."""

    def __init__(self, location: Location, config: str) -> None:
        self.location, self.config = location, config
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._codes: dict[str, tuple[np.ndarray, pa.Array]] = {}

    def __reduce__(self) -> Any:
        return Columns, (self.location, self.config)

    def __len__(self) -> int:
        return sum(file.metadata.num_rows for file in self._files)

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """Names and types as they are stored, without the inline weights."""
        full = self._files[0].schema_arrow
        fields = [f for f in full if f.name != "weights"]
        return pa.schema([f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in fields])

    @functools.cached_property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @functools.cached_property
    def _files(self) -> list[pq.ParquetFile]:
        found = []
        for split in (s for s in SPLITS if s in self.location.manifest["counts"][self.config]):
            prefix = f"data/{self.config}/{split}-"
            paths = [e["path"] for e in self.location.manifest["files"] if e["path"].startswith(prefix)]
            opened = [_open(self.location, path) for path in paths]
            rows, wanted = (
                sum(f.metadata.num_rows for f in opened),
                self.location.manifest["counts"][self.config][split],
            )
            if rows != wanted:
                raise IntegrityError(
                    f"{prefix}* of {self.location.name} have {rows:,} rows, the manifest says {wanted:,}: the zoo is "
                    "damaged. Fetch or build it again."
                )
            for path, file in zip(paths, opened, strict=True):
                if found and not file.schema_arrow.equals(found[0].schema_arrow):
                    raise IntegrityError(
                        f"{path} of {self.location.name} has other columns than the other files of {self.config}: the "
                        "zoo is damaged. Fetch or build it again."
                    )
                found.append(file)
        for name in NEEDED[self.config] if found else ():
            if name not in found[0].schema_arrow.names:
                raise IntegrityError(
                    f"{self.config} of {self.location.name} has no column {name!r}: the zoo is damaged. Fetch or build it "
                    "again."
                )
        if not found:
            raise IntegrityError(f"{self.location.name} has no table of {self.config}: its manifest lists none.")
        return found

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def column(self, name: str) -> pa.ChunkedArray:
        """All rows of a column; a string column but a checksum as a dictionary. Raises ZooError, IntegrityError."""
        if name not in self._columns:
            self._read([name])
        return self._columns[name]

    def table(self, names: Iterable[str] | None = None, rows: np.ndarray | None = None) -> pa.Table:
        """Columns (default: all) as they are stored, strings as strings; `rows` picks and orders."""
        names = self.names if names is None else list(names)
        self._read([n for n in names if n not in self._columns])
        index = None if rows is None else arrow_index(rows)
        return pa.table({n: plain(self._columns[n] if rows is None else self._columns[n].take(index)) for n in names})

    def codes(self, name: str) -> tuple[np.ndarray, pa.Array]:
        """A string column as numbers int32 [n], −1 for null, and the strings that they stand for."""
        if name not in self._codes:
            column = self.column(name)
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            column = column.unify_dictionaries()
            numbers = [numbers_of(c.indices, missing=-1) for c in column.chunks]
            # Unified chunks share one dictionary; there may be none.
            strings = column.chunk(0).dictionary if column.num_chunks else pa.nulls(0, pa.string())
            self._codes[name] = np.concatenate([np.zeros(0, np.int32), *numbers]), strings
        return self._codes[name]

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column as NumPy; where values are missing, as float64 with NaN."""
        chunks = self.column(name).chunks
        gaps = any(c.null_count for c in chunks)
        return np.concatenate([numbers_of(c.cast(pa.float64()) if gaps else c, missing=np.nan) for c in chunks])

    def _read(self, names: list[str]) -> None:
        for name in names:
            if name not in self:
                raise ZooError(unknown("column", name, self.names, f"{self.config} of {self.location.name}"))
        if not names:
            return
        try:
            pieces = [file.read(columns=names) for file in self._files]
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(
                f"The {self.config} table of {self.location.name} is damaged: {error}. Fetch or build the zoo again."
            ) from None
        for name in names:
            chunks = [chunk for piece in pieces for chunk in piece[name].chunks]
            self._columns[name] = pa.chunked_array(chunks, pieces[0].schema.field(name).type)


def _open(location: Location, relative: str) -> pq.ParquetFile:
    size = location.entry(relative)["bytes"]
    far = not location.is_local and size > MOST_FETCHED_BYTES
    source: Any = pa.PythonFile(_Far(location, relative, size), "r") if far else location.path(relative)
    return parquet.open_file(source, size, f"{relative} of {location.name}", memory_map=not far, pre_buffer=far)


class _Far(io.RawIOBase):
    """A file behind a location's byte ranges, for Parquet's reader."""

    def __init__(self, location: Location, relative: str, size: int) -> None:
        self._location, self._relative, self._size, self._at = location, relative, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        length = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        [data] = self._location.ranges(self._relative, [(self._at, length)]) if length > 0 else [b""]
        self._at += len(data)
        return data


# ── conditions ────────────────────────────────────────────────────────────────────────


def matches(table: Columns, name: str, wanted: Any) -> np.ndarray:
    """bool [n]: where a column equals `wanted`, or is in it where that is several values; None is null.

    A column of lists is compared as a whole: `subset_classes=[0, 1]`. Raises ZooError.
    """
    column = table.column(name)
    kind = column.type
    if pa.types.is_list(kind):
        target = None if wanted is None else list(wanted)
        return np.fromiter((v == target for v in column.to_pylist()), bool, len(table))
    values = list(_several(wanted))
    known = [_value(v, kind, name) for v in values if v is not None]
    none = np.concatenate([np.zeros(0, bool), *(nulls_of(c) for c in column.chunks)])
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        codes, strings = table.codes(name)
        wanted_strings = set(known)
        found = [codes == code for code, string in enumerate(strings.to_pylist()) if string in wanted_strings]
    else:
        numbers = table.numbers(name)
        found = [np.isin(numbers, known)] if len(known) > MOST_COMPARED else [numbers == v for v in known]
    mask = np.zeros(len(table), bool)
    for hit in found:
        mask |= hit
    return mask | none if None in values else mask & ~none


def _several(wanted: Any) -> Iterator[Any]:
    if isinstance(wanted, (pa.Array, pa.ChunkedArray)):
        wanted = wanted.to_pylist()
    elif isinstance(wanted, pa.Scalar):
        wanted = wanted.as_py()
    if isinstance(wanted, (list, tuple, set, frozenset, range, np.ndarray)):
        for value in wanted:
            yield from _several(value)
    else:
        yield wanted.item() if isinstance(wanted, np.generic) else wanted


def _value(value: Any, kind: pa.DataType, name: str) -> Any:
    """The value in the column's own type: `50` asks for the float 50.0 too. Raises ZooError."""
    stored = pa.string() if pa.types.is_dictionary(kind) else kind
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        pa.types.is_string: isinstance(value, str),
        pa.types.is_boolean: isinstance(value, bool),
        pa.types.is_floating: number,
        pa.types.is_integer: number and float(value).is_integer(),
    }
    if not any(is_kind(stored) and good for is_kind, good in fits.items()):
        raise ZooError(f"Column {name!r} holds values of type {stored}; {value!r} is not one of them.")
    return float(value) if pa.types.is_floating(stored) else value
