"""Rows → one safetensors file, written as they come; and the header back.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian length, that
many bytes of JSON {name: {dtype, shape, data_offsets}}, then the tensors' bytes. The
library's writer needs all tensors in memory; a shard has up to 4 GB, so this one streams.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, alternatives

MOST_HEADER_BYTES = 1_000_000  # a tensor takes about 100; more is a damaged length
MOST_BYTES = 2**62  # of a tensor: offsets are int64
MOST_SIDES = 32  # of a shape; their product is worked out
PIECE_BYTES = 8_000_000  # hashed and written at a time, however large a block is


def header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Length and JSON of a file of float32 tensors, padded to 8 bytes so that rows are aligned."""
    entries, at = {}, 0
    for name, shape in shapes.items():
        end = at + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def pieces(
    shapes: Mapping[str, tuple[int, ...]], blocks: Callable[[str], Iterable[np.ndarray]]
) -> Iterator[bytes | memoryview]:
    """The bytes of a file of tensors [n, …], in order, from their rows in blocks [k, …] of any sizes."""
    yield header(shapes)
    for name, shape in shapes.items():
        count, at_once = 0, max(1, PIECE_BYTES // max(1, 4 * math.prod(shape[1:])))
        for block in blocks(name):
            assert block.shape[1:] == shape[1:], (name, block.shape, shape)
            count += len(block)
            for start in range(0, len(block), at_once):
                yield np.ascontiguousarray(block[start : start + at_once], "<f4").data
        assert count == shape[0], (name, count, shape)


def write(
    path: Path, shapes: Mapping[str, tuple[int, ...]], blocks: Callable[[str], Iterable[np.ndarray]]
) -> dict[str, Any]:
    """Write the file of `pieces`, whole or not there; its size and SHA-256. Raises OSError."""
    size, digest = 0, hashlib.sha256()
    with files.atomic(path) as out:
        for piece in pieces(shapes, blocks):
            size += out.write(piece)
            digest.update(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_header(path: Path) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
    """As `parse_header`, of a file on the disk."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for a writer
        raise IntegrityError(f"{path} is no regular file.")
    with path.open("rb") as file:
        return parse_header(file.read, str(path))


def parse_header(read: Callable[[int], bytes], where: str) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
    """{tensor: (byte offset in the file, shape)} and the file's expected size; `read` gives the next n bytes.

    Raises IntegrityError where the header lies: too long, not JSON, another dtype,
    tensors that overlap or leave holes.
    """
    length = int.from_bytes(read(8), "little")
    if length > MOST_HEADER_BYTES:
        raise IntegrityError(f"{where}: the header claims {length:,} bytes; this is not a shard of a zoo.")
    text = read(length)
    if len(text) != length:
        raise IntegrityError(f"{where}: the file ends inside its header of {length:,} bytes.")
    try:
        entries = json.loads(text, object_pairs_hook=_mapping)
        if not isinstance(entries, dict):
            raise ValueError("it is no mapping")
        entries.pop("__metadata__", None)
        places, at = {}, 0
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            shape = tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            sizes = (begin, end, *shape)
            if entry["dtype"] != "F32" or any(type(n) is not int or not 0 <= n <= MOST_BYTES for n in sizes):
                raise ValueError(f"tensor {name!r} is not float32 of whole sizes")
            if len(shape) > MOST_SIDES or begin != at or end - begin != 4 * math.prod(shape):
                raise ValueError(f"tensor {name!r} does not fit its place")
            places[name], at = (8 + length + begin, shape), end
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{where}: the shard's header is damaged: {error}.") from None
    return places, 8 + length + at


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("something in it is named twice")
    return result


def open_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors [n, P] of a shard, float32, as views of one map of it: where many are needed, its header is read once.

    Raises IntegrityError.
    """
    tensors, size = read_header(path)
    if path.stat().st_size != size:
        raise IntegrityError(f"{path} has {path.stat().st_size:,} bytes; its header describes {size:,}.")
    first = min((offset for offset, _ in tensors.values()), default=size)
    if first == size:
        return {name: np.zeros(shape, "<f4") for name, (_, shape) in tensors.items()}
    values = np.memmap(path, "<f4", "r", first)
    return {
        name: values[(offset - first) // 4 :][: math.prod(shape)].reshape(shape)
        for name, (offset, shape) in tensors.items()
    }


def open_tensor(path: Path, name: str) -> np.ndarray:
    """One tensor [n, P] of a shard, float32, memory-mapped, read-only. Raises IntegrityError."""
    tensors, size = read_header(path)
    if path.stat().st_size != size:
        raise IntegrityError(f"{path} has {path.stat().st_size:,} bytes; its header describes {size:,}.")
    if name not in tensors:
        raise IntegrityError(f"{path} holds no tensor {name!r}; it has {alternatives(tensors, name)}.")
    offset, shape = tensors[name]
    if not math.prod(shape):  # nothing to map, and sides that no array has
        raise IntegrityError(f"{path}: tensor {name!r} of shape {list(shape)} holds nothing.")
    return np.memmap(path, "<f4", "r", offset, shape)
