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
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.core.arrow import arrow_index, floats_of, nulls_of, numbers_of
from zoo_datasets.errors import MOST_ALTERNATIVES, IntegrityError, ZooError, unknown
from zoo_datasets.format import parquet
from zoo_datasets.format.manifest_parts import SealedFile
from zoo_datasets.format.parquet import TableFile, as_strings
from zoo_datasets.format.tables import open_tables, read_columns
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
SEVERAL = (list, tuple, set, frozenset, range, np.ndarray)  # what is given where several values are meant


class Columns:
    """One table of a zoo, read column by column. Picklable: a copy opens the files again."""

    def __init__(self, location: Location, config: str) -> None:
        self.location, self.config = location, config
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._codes: dict[str, tuple[np.ndarray, pa.Array]] = {}

    def __reduce__(self) -> Any:
        return Columns, (self.location, self.config)

    def __len__(self) -> int:
        return sum(file.n_rows for file in self._files)

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """Names and types as they are stored, without the inline weights."""
        return pa.schema([f for f in self._files[0].schema if f.name != "weights"])

    @functools.cached_property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @functools.cached_property
    def _files(self) -> list[TableFile]:
        opened = open_tables(self.location.manifest, self.config, self._open)
        for name in NEEDED[self.config]:
            if name not in opened[0].schema.names:
                raise IntegrityError(
                    f"{self.config} of {self.location.name} has no column {name!r}: the zoo is damaged. Fetch or build it "
                    "again."
                )
        return opened

    def _open(self, file: SealedFile) -> TableFile:
        far = not self.location.is_local and file.bytes > MOST_FETCHED_BYTES
        source = functools.partial(self.location.ranges, file.path) if far else self.location.path(file.path)
        where = f"{file.path}, of the {self.config} table of {self.location.name}"
        return parquet.open_file(source, file.bytes, where, self.location.manifest.files.size("weights/"))

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
        found = {n: self._columns[n] if rows is None else self._columns[n].take(index) for n in names}
        size = sum(file.size for file in self._files)
        # Rows may be asked for more than once.
        times = 1 if rows is None else 1 + len(rows) // max(1, len(self))
        return as_strings(found, times * size, f"The {self.config} table of {self.location.name}")

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
        # Beyond 2⁵³ floats round; who compares whole numbers takes them as they are.
        return floats_of(self.column(name)) if gaps else np.concatenate([numbers_of(c, missing=np.nan) for c in chunks])

    def _read(self, names: list[str]) -> None:
        for name in names:
            if name not in self:
                raise ZooError(unknown("column", name, self.names, f"{self.config} of {self.location.name}"))
        if names:
            found = read_columns(self._files, names)
            for name in NEEDED[self.config]:
                if name in found and found[name].null_count:
                    raise IntegrityError(
                        f"Rows of {self.config} of {self.location.name} have no `{name}`: the zoo is damaged. Fetch or "
                        "build it again."
                    )
            self._columns |= found


# ── conditions ────────────────────────────────────────────────────────────────────────


def matches(table: Columns, name: str, wanted: Any) -> np.ndarray:
    """bool [n]: where a column equals `wanted`, or is in it where that is several values; None is null.

    A column of lists is compared as a whole: `subset_classes=[0, 1]`, or any of `[[0, 1], [2]]`. Raises ZooError.
    """
    column = table.column(name)
    kind = column.type
    if pa.types.is_list(kind):
        targets = _lists(wanted, kind, name)
        return np.fromiter((v in targets for v in column.to_pylist()), bool, len(table))
    values = list(_several(wanted))
    known = [_value(v, kind, name) for v in values if v is not None]
    none = np.concatenate([np.zeros(0, bool), *(nulls_of(c) for c in column.chunks)])
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        codes, strings = table.codes(name)
        wanted_strings = set(known)
        # One look at each row, however many values are wanted: thousands of ids are. The last is for null, code −1.
        good = np.array([*(string in wanted_strings for string in strings.to_pylist()), False], bool)
        found = [good[codes]]
    else:
        # Rows without a value are taken out below, so that any number may stand for none.
        whole = pa.types.is_integer(kind)
        numbers = np.concatenate([numbers_of(c, 0) for c in column.chunks]) if whole else table.numbers(name)
        found = [np.isin(numbers, known)] if len(known) > MOST_COMPARED else [numbers == v for v in known]
    mask = np.zeros(len(table), bool)
    for hit in found:
        mask |= hit
    return mask | none if None in values else mask & ~none


def strays(table: Columns, name: str, wanted: Any, known: Iterable[Any] = ()) -> tuple[Any, list[Any]] | None:
    """The first wanted value that a column has nowhere, and what it has; None where it has all. Null is no value."""
    column = table.column(name)
    if pa.types.is_list(column.type):
        lists = [tuple(v) for v in _lists(wanted, column.type, name) if v is not None]
        known_lists = {tuple(v) for v in column.to_pylist() if v is not None}
        return next(((v, sorted(known_lists, key=repr)) for v in lists if v not in known_lists), None)
    values = [v for v in _several(wanted) if v is not None]
    there = {v for v in column.unique().to_pylist() if v is not None}.union(known)
    return next(((v, sorted(there)) for v in values if v not in there), None)


def levels_in(expression: pc.Expression, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """(column, value) wherever an expression compares one of these columns with a value, as far as its text tells.

    It tells texts, numbers and booleans beside `==` and `!=`, and of `isin` up to twenty values. Not what a
    function makes of a column, whose values are no levels.
    """
    text = str(expression)
    literal = r'"(?:[^"\\]|\\.)*"|[^\s"()]+'
    for name in names:
        column = re.escape(name)
        for found in re.finditer(rf"\({column} [!=]= ({literal})\)", text):
            yield from ((name, v) for v in _literal(found[1], escaped=True))
        for found in re.finditer(rf"is_in\({column}, \{{value_set=[^:]*:\[\n(.*?)\n\]", text, re.DOTALL):
            yield from (
                (name, v) for line in found[1].split("\n") for v in _literal(line.strip().rstrip(","), escaped=False)
            )


def _literal(text: str, escaped: bool) -> Iterator[Any]:
    """The value that Arrow prints so; none where it prints no plain one."""
    if text.startswith('"') and not escaped:
        yield text[1:-1]
        return
    try:
        value = json.loads(text)
    except ValueError:  # null[null], nan, …
        return
    if isinstance(value, (str, bool, int, float)):
        yield value


def unknown_level(name: str, value: Any, known: list[Any], where: str) -> str:
    """That no row has this level, and which it has: of numbers the nearest."""
    what = f"level of {name}"
    if not isinstance(value, (int, float)) or isinstance(value, bool) or any(isinstance(k, str) for k in known):
        return unknown(what, list(value) if isinstance(value, tuple) else value, known, where)
    near = sorted(known, key=lambda k: abs(k - value))
    shown = ", ".join(map(repr, sorted(near[:MOST_ALTERNATIVES])))
    more = f", … ({len(known)} in all)" if len(known) > MOST_ALTERNATIVES else ""
    meant = f" Did you mean `{near[0]!r}`?" if near else ""
    return f"Unknown {what} {value!r} in {where}. Known: {shown or 'none'}{more}.{meant}"


def _lists(wanted: Any, kind: pa.DataType, name: str) -> list[list[Any] | None]:
    """The lists that a column of lists is to equal one of: `wanted`, or what is in it. Raises ZooError."""
    wanted = plain(wanted)
    if wanted is not None and not isinstance(wanted, SEVERAL):
        raise ZooError(f"Column {name!r} holds lists and is compared as a whole; {wanted!r} is none of them.")
    inside = [] if wanted is None else [plain(v) for v in wanted]
    lists = inside if inside and all(v is None or isinstance(v, SEVERAL) for v in inside) else [wanted]
    return [None if v is None else [_item(e, kind.value_type, name) for e in v] for v in lists]


def _item(value: Any, kind: pa.DataType, name: str) -> Any:
    value = plain(value)
    return None if value is None else _value(value, kind, name)


def _several(wanted: Any) -> Iterator[Any]:
    wanted = plain(wanted)
    if isinstance(wanted, SEVERAL):
        for value in wanted:
            yield from _several(value)
    else:
        yield wanted


def plain(value: Any) -> Any:
    """Python's own value of one of Arrow or a NumPy number."""
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return value.to_pylist()
    if isinstance(value, pa.Scalar):
        return value.as_py()
    return (
        value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim) else value
    )


def _value(value: Any, kind: pa.DataType, name: str) -> Any:
    """The value in the column's own type: `50` asks for the float 50.0 too. Raises ZooError."""
    stored = pa.string() if pa.types.is_dictionary(kind) else kind
    whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63  # else no column's
    number = whole or isinstance(value, float)
    fits = {
        pa.types.is_string: isinstance(value, str),
        pa.types.is_boolean: isinstance(value, bool),
        pa.types.is_floating: number,
        pa.types.is_integer: number and float(value).is_integer(),
    }
    if not any(is_kind(stored) and good for is_kind, good in fits.items()):
        raise ZooError(f"Column {name!r} holds values of type {stored}; {value!r} is not one of them.")
    return float(value) if pa.types.is_floating(stored) else value
