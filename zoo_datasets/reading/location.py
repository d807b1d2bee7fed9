"""A zoo that was found → whole files, verified against the manifest, and byte ranges of files."""

from __future__ import annotations

import abc
import bisect
import dataclasses
import functools
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo_datasets import errors
from zoo_datasets.core import files
from zoo_datasets.core.ranges import RangeFile, Span
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.manifest_parts import UNSEALED, SealedFile

# A gap between two spans that is fetched along rather than asked around: about what a
# connection of 20 MB/s moves while a request of 50 ms is on its way.
MOST_GAP_BYTES = 1_000_000


@dataclasses.dataclass(frozen=True)
class Location(abc.ABC):
    """A zoo that was found; its manifest is read and sane. Picklable, safe in threads and forks."""

    name: str
    root: Path
    manifest: Manifest = dataclasses.field(repr=False)

    @property
    @abc.abstractmethod
    def is_local(self) -> bool:
        """Whether the zoo lies on this machine; else `root` is a cache, filled as files are asked for."""

    @abc.abstractmethod
    def path(self, relative: str) -> Path:
        """A whole file of the zoo on the disk. Raises IntegrityError, ZooNotFoundError."""

    @abc.abstractmethod
    def has(self, relative: str) -> bool:
        """Whether a sealed file lies on this machine whole."""

    @abc.abstractmethod
    def read(self, relative: str, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of ascending spans that do not overlap."""

    def verified(self, relative: str) -> Path:
        """As `path`, compared with its SHA-256 now. Raises IntegrityError, ZooNotFoundError."""
        self.path(relative)
        return self.entry(relative).verify(self.root)

    def ranges(self, relative: str, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each (offset, length), in the order asked; any order, overlaps allowed.

        Neighboring spans travel together, but never more than twice the bytes asked for.
        Raises IntegrityError for spans beyond the file's end.
        """
        size = self.entry(relative).bytes
        for offset, length in spans:
            if offset < 0 or length < 0 or offset + length > size:
                raise IntegrityError(
                    f"{relative} of {self.name} has {size:,} bytes; {length:,} at {offset:,} are not in it."
                )
        merged = coalesce(spans)
        blocks = dict(zip((begin for begin, _ in merged), self.read(relative, merged), strict=True))
        starts = sorted(blocks)
        return [_cut(blocks, starts, offset, length) for offset, length in spans]

    def open(self, relative: str) -> io.RawIOBase:
        """A file of the zoo for reading here and there; from the Hub only what is read comes."""
        return RangeFile(functools.partial(self.ranges, relative), self.entry(relative).bytes)

    def entry(self, relative: str) -> SealedFile:
        """Path, size and SHA-256 of a sealed file. Raises IntegrityError where the manifest has none of that name."""
        if relative not in self.manifest.files:
            raise IntegrityError(errors.unknown("file", relative, self.manifest.files, f"the zoo {self.name}"))
        return self.manifest.files[relative]


@dataclasses.dataclass(frozen=True)
class LocalFolder(Location):
    """A sealed zoo in a folder of this machine."""

    @property
    def is_local(self) -> bool:
        return True

    def path(self, relative: str) -> Path:
        if relative == "manifest.json" or relative.startswith(UNSEALED):
            return files.inside(self.root, relative)
        return self.entry(relative).find(self.root)

    def has(self, relative: str) -> bool:
        return True

    def read(self, relative: str, spans: Sequence[Span]) -> list[bytes]:
        return pread(self.path(relative), spans)


def coalesce(spans: Sequence[Span]) -> list[Span]:
    """Ascending spans that cover the given ones; never more than twice the bytes those cover.

    A gap no longer than the span behind it is bridged, so gaps add up to less than spans. (fsspec's
    `merge_offset_ranges` takes one gap for all: with a megabyte, 64 rows of 10 kB in a shard of 30 MB move 21 MB.)
    """
    merged: list[Span] = []
    for offset, length in sorted(s for s in set(spans) if s[1]):
        if merged:
            begin, size = merged[-1]
            gap = offset - (begin + size)
            if gap <= min(length, MOST_GAP_BYTES):
                merged[-1] = (begin, max(size, offset + length - begin))
                continue
        merged.append((offset, length))
    return merged


def _cut(blocks: Mapping[int, bytes], starts: Sequence[int], offset: int, length: int) -> bytes:
    if not length:
        return b""
    begin = starts[bisect.bisect_right(starts, offset) - 1]
    block = blocks[begin]
    return block if len(block) == length else block[offset - begin : offset - begin + length]


def pread(path: Path, spans: Sequence[Span]) -> list[bytes]:
    """Spans of a file on the disk. Raises IntegrityError where it ends early or cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        found = []
        for offset, length in spans:
            pieces = []
            while length:
                piece = os.pread(handle, length, offset)  # at most 2 GB a call
                if not piece:
                    raise IntegrityError(f"{path} ends early, at {offset:,} bytes: it changed while it was read.")
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
            found.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return found
    finally:
        os.close(handle)
