"""Byte ranges of a file → the file, for reading here and there.

In:  what fetches spans of it, its size, and spans that are here already.
Out: a file object; what is read of it and not here is fetched, and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

Span = tuple[int, int]  # (offset, length) in bytes
Ranges = Callable[[Sequence[Span]], list[bytes]]  # the bytes of spans of a file


class RangeFile(io.RawIOBase):
    """A file of so many bytes behind its ranges; of some spans the bytes are here."""

    def __init__(self, ranges: Ranges, size: int, held: Mapping[Span, bytes] | None = None) -> None:
        self.ranges, self.size, self.held, self.at = ranges, size, held or {}, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.size - self.at)
        length = left if size is None or size < 0 else min(size, left)
        begin, self.at = self.at, self.at + length
        for (start, there), data in self.held.items():
            if start <= begin and begin + length <= start + there:
                return data[begin - start : begin - start + length]
        return self.ranges([(begin, length)])[0] if length else b""
