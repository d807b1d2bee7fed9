"""The bytes of a Parquet column chunk → its pages, by their own headers: what they would really unfold to.

In:  the bytes of one chunk.
Out: of every page its kind, sizes, number of values and encoding, and where its data lie.

A footer can say anything; decoders allocate what page headers say. A header is one struct of Thrift's
compact protocol (https://github.com/apache/parquet-format, parquet.thrift: PageHeader). Refused are
fields that come twice or in another type, on which two readers might differ, and pages that leave the chunk.
"""

from __future__ import annotations

import dataclasses
from typing import Any

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
# PLAIN, PLAIN_DICTIONARY, RLE (booleans), RLE_DICTIONARY, BYTE_STREAM_SPLIT. The deltas build long texts of a few bytes.
ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 8: "RLE_DICTIONARY", 9: "BYTE_STREAM_SPLIT"}
BY_DICTIONARY = (2, 8)
MOST_DEPTH = 6  # of structs in a header; three are real
MOST_PAGES = 100_000  # of a chunk: pyarrow ends a page at a megabyte, or at 20,000 rows
MOST_VARINT_BYTES = 10

# Types of the compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


class BadPageError(ValueError):
    """A page header is none, or tells of bytes that are not there."""


@dataclasses.dataclass(frozen=True)
class Page:
    """One page of a chunk."""

    kind: int
    unfolded: int  # bytes of header and data, once uncompressed
    values: int
    encoding: int
    start: int  # of its data in the chunk
    stored: int  # bytes of its data as they lie there

    @property
    def is_dictionary(self) -> bool:
        return self.kind == DICTIONARY


def pages(chunk: Any) -> list[Page]:
    """The pages of a chunk, in order, to its last byte. Raises BadPageError."""
    found: list[Page] = []
    at = 0
    while at < len(chunk):
        if len(found) == MOST_PAGES:
            raise BadPageError(f"more than {MOST_PAGES:,} pages")
        header, start = _Reader(chunk, at).struct(MOST_DEPTH)
        kind, unfolded, stored = (_whole(header, field) for field in (1, 2, 3))
        place = {DATA: (5, 2), DICTIONARY: (7, 2), DATA_V2: (8, 4)}.get(kind)
        if place is None or not isinstance(header.get(place[0]), dict):
            raise BadPageError(f"a page of kind {kind}")
        own = header[place[0]]
        values, encoding = _whole(own, 1), _whole(own, place[1])
        if encoding not in ENCODINGS:
            raise BadPageError(f"values in the encoding {encoding}; this library reads {', '.join(ENCODINGS.values())}")
        if kind == DICTIONARY and found:
            raise BadPageError("a dictionary behind other pages")
        if start + stored > len(chunk):
            raise BadPageError("a page that ends behind its chunk")
        found.append(Page(kind, start - at + unfolded, values, encoding, start, stored))
        at = start + stored
    return found


def _whole(fields: dict[int, Any], field: int) -> int:
    value = fields.get(field)
    if type(value) is not int or not 0 <= value < 2**31:
        raise BadPageError(f"a page header whose field {field} is {value!r}")
    return value


class _Reader:
    """Values of the compact protocol, from one place on."""

    def __init__(self, data: Any, at: int) -> None:
        self.data, self.at = data, at

    def struct(self, depth: int) -> tuple[dict[int, Any], int]:
        """{field: value} of a struct, and where it ends; texts and lists are stepped over."""
        if not depth:
            raise BadPageError("a page header that is nested too deep")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._signed()
            if field in found or not 0 < field < 2**15:
                raise BadPageError(f"a page header with field {field} out of place")
            found[field] = self._value(kind, depth)
        return found, self.at

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            return self._signed()
        if kind in (BYTE, DOUBLE, BINARY):
            self._skip(self._varint() if kind == BINARY else 8 if kind == DOUBLE else 1)
            return None
        if kind == STRUCT:
            return self.struct(depth - 1)[0]
        raise BadPageError(f"a page header with a value of type {kind}")  # no page header has lists or maps

    def _skip(self, n: int) -> None:
        self.at += n
        if self.at > len(self.data):
            raise BadPageError("a page header that ends behind its chunk")

    def _byte(self) -> int:
        self._skip(1)
        return int(self.data[self.at - 1])

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 7 * MOST_VARINT_BYTES, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise BadPageError("a page header with a number without end")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
