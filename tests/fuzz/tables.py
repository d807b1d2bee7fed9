"""A stranger's Parquet tables: columns of odd types and values, bytes flipped, footers that lie; the manifest agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import _strangers
from tests.fuzz._strangers import prepare as prepare
from zoo_datasets.errors import ZooError
from zoo_datasets.format import schema
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.format.tables import read_table

KINDS = (
    pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(),
    pa.large_string(), pa.binary(), pa.date32(), pa.timestamp("ns", "UTC"), pa.duration("s"), pa.decimal128(20, 3), pa.null(),
    pa.list_(pa.int64()), pa.list_(pa.string()), pa.list_(pa.float32(), 3), pa.large_list(pa.int64()),
    pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()), pa.dictionary(pa.int32(), pa.string()),
    pa.list_(pa.list_(pa.int64())), pa.binary(4),
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 10, 2**31, 2**62, -(2**62), 2**63 - 1)
REALS = (0.0, -0.0, 1.0, -1.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "", "x", "train", "test", "../x", "/etc/passwd", "weights/train-00000-of-00001.safetensors", "manifest.json", "\x00",
    "\x1b[2J", "é" * 400, "0" * 64, "‮x", "x" * 100_000,
)  # fmt: skip


def trial(rng: np.random.Generator, folder: Path) -> str:
    """One changed table or two, sealed again, and everything that is done with the zoo."""
    root = _strangers.copied(folder)
    config = ("models", "snapshots")[rng.integers(2)]
    splits = SPLITS if rng.integers(2) else (SPLITS[rng.integers(3)],)
    if rng.integers(2):
        how = _of_values if rng.integers(3) else _of_columns
        change, options = how(rng), _options(rng)
        for split in splits:
            path = ZooPaths(root).table(config, split)
            try:
                table = change(pq.read_table(path, partitioning=None), np.random.default_rng(int(rng.integers(2**31))))
                pq.write_table(table, path, **options)
            except (pa.ArrowException, OSError):  # no such table can be written
                pq.write_table(pa.table({"x": [1]}), path)
    else:
        for split in splits:
            _of_bytes(rng, ZooPaths(root).table(config, split))
    _strangers.seal(root, _digests(root) if rng.integers(2) else None)
    return _strangers.used(root, rng)


def _digests(root: Path) -> dict[str, str]:
    """Content digests of the tables as they are, where they can be read: what a forger writes down."""
    _strangers.seal(root)
    try:
        manifest = Manifest.read(root)
        return schema.digests({c: read_table(root, manifest, c) for c in ("snapshots", "models")})
    except (ZooError, KeyError):  # a column that every digest needs is gone
        return {}


def _options(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "compression": str(rng.choice(["none", "snappy", "zstd", "gzip", "brotli", "lz4"])),
        "use_dictionary": bool(rng.integers(2)),
        "row_group_size": int(rng.choice([1, 2, 1000])),
        "data_page_version": str(rng.choice(["1.0", "2.0"])),
        "store_schema": bool(rng.integers(2)),
        "write_page_checksum": bool(rng.integers(2)),
        "data_page_size": int(rng.choice([1, 100, 1_000_000])),
        "write_statistics": bool(rng.integers(2)),
    }


Change = Callable[[pa.Table, np.random.Generator], pa.Table]


def _of_columns(rng: np.random.Generator) -> Change:
    """A column dropped, renamed, doubled, added, of another type; rows dropped, doubled or turned round."""
    kind, other, place = int(rng.integers(8)), KINDS[rng.integers(len(KINDS))], rng.random()

    def change(table: pa.Table, own: np.random.Generator) -> pa.Table:
        at = int(place * table.num_columns)
        name = table.column_names[at]
        if kind == 0:
            return table.drop_columns([name])
        if kind == 1:
            names = list(table.column_names)
            names[at] = str(own.choice(["x", "", "weights", "row", "a.b", "\x1b[31m"]))
            return table.rename_columns(names)
        if kind == 2:
            return table.append_column(name, table[name])
        if kind == 3:
            return table.append_column("more", pa.nulls(len(table), other))
        if kind == 4:
            return table.take(pa.array(own.integers(0, len(table), len(table))))
        if kind == 5:
            return table.select(table.column_names[::-1])
        if kind == 6:
            return table.slice(1) if own.integers(2) else pa.concat_tables([table, table])
        try:
            made = table[name].cast(other, safe=False)
        except pa.ArrowException:
            made = pa.chunked_array([pa.nulls(len(table), other)])
        return table.set_column(at, pa.field(name, made.type), made)

    return change


def _of_values(rng: np.random.Generator) -> Change:
    """Some values of a column: at the edges, missing, another row's."""
    place, kind = rng.random(), int(rng.integers(4))
    needed = (
        "model_id",
        "split",
        "step",
        "shard",
        "tensor",
        "row",
        "weights_sha256",
        "layout",
        "architecture_id",
        "n_snapshots",
    )

    def change(table: pa.Table, own: np.random.Generator) -> pa.Table:
        names = [n for n in needed if n in table.column_names] if own.integers(2) else table.column_names
        name = names[int(place * len(names))]
        values = table[name].to_pylist()
        field = table.schema.field(name)
        for i in own.integers(0, len(values), int(own.integers(1, 4))):
            values[i] = (
                _odd(field.type, own) if kind else None if own.integers(2) else values[own.integers(len(values))]
            )
        try:
            made = pa.array(values, field.type)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            made = pa.nulls(len(table), field.type)
        return table.set_column(table.column_names.index(name), pa.field(name, field.type), made)

    return change


def _odd(kind: pa.DataType, rng: np.random.Generator) -> Any:
    if pa.types.is_integer(kind):
        return NUMBERS[rng.integers(len(NUMBERS))]
    if pa.types.is_floating(kind):
        return REALS[rng.integers(len(REALS))]
    if pa.types.is_string(kind):
        return TEXTS[rng.integers(len(TEXTS))]
    if pa.types.is_boolean(kind):
        return bool(rng.integers(2))
    if pa.types.is_list(kind):
        return [_odd(kind.value_type, rng) for _ in range(int(rng.integers(0, 30)))]
    return None


def _of_bytes(rng: np.random.Generator, path: Path) -> None:
    """Flips and cuts, in the pages or in the footer; numbers of the footer changed to others of as many bytes."""
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    kind = rng.integers(5)
    low, high = ((len(data) - 8 - footer, len(data)), (0, len(data) - 8 - footer))[rng.integers(2)]
    if kind < 2:
        for place in rng.integers(low, high, rng.integers(1, 6)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in rng.integers(low, high, rng.integers(1, 4)):
            data[place] = int(rng.choice([0, 1, 127, 128, 255, 0x15, 0x19, 0x1C]))
    elif kind == 3:
        at = int(rng.integers(low, high))
        data[at : at + 10] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[: max(0, len(data) - at)]
    else:
        del data[int(rng.integers(0, len(data))) :]
    path.write_bytes(data)
