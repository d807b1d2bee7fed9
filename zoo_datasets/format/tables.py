"""A sealed zoo's Parquet tables → opened files, their row counts and columns checked first; or whole, as Arrow.

In:  the manifest, and how a file of it is opened.
Out: the files of a table in the zoo's order, of one schema, each column in the type of the format; columns of
them, and whole tables. A split may lie in several files.

Row counts come from the Parquet metadata and what all files unfold to is added up, so that small files which
unfold to billions of rows are refused before they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import parquet, schema
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.manifest_parts import SealedFile
from zoo_datasets.format.parquet import TableFile

_DAMAGED = "the zoo is damaged. Fetch or build it again."


def open_tables(manifest: Manifest, config: str, open_file: Callable[[SealedFile], TableFile]) -> list[TableFile]:
    """The files of `models` or `snapshots` in the zoo's order, of one schema, at least one. Raises IntegrityError."""
    opened: list[TableFile] = []
    for split, files, wanted in manifest.tables(config):
        own = []
        for file in files:
            own.append(open_file(file))
            _fits_the_others(manifest, config, file.path, [*opened, *own])
        rows = sum(f.n_rows for f in own)
        if rows != wanted:
            here = " and ".join(f.path for f in files) or f"data/{config}/{split}-*"
            raise IntegrityError(
                f"{here} of {manifest.zoo} has {rows:,} rows, the manifest says {wanted:,}: {_DAMAGED}"
            )
        opened += own
    if not opened:
        raise IntegrityError(f"{manifest.zoo} has no table of {config}: its manifest lists none.")
    for name, kind, wanted_type in schema.wrong_types(config, opened[0].schema):
        raise IntegrityError(f"Column `{name}` of {config} of {manifest.zoo} is {kind}, not {wanted_type}: {_DAMAGED}")
    return opened


def _fits_the_others(manifest: Manifest, config: str, path: str, opened: Sequence[TableFile]) -> None:
    """Raises IntegrityError where the file opened last has other columns, or all together are a bomb."""
    if not opened[-1].schema.equals(opened[0].schema):
        raise IntegrityError(f"{path} of {manifest.zoo} has other columns than the other files of {config}: {_DAMAGED}")
    size, unfolded = sum(f.size for f in opened), sum(f.unfolded for f in opened)
    if unfolded > parquet.most_bytes(size, manifest.files.size("weights/")):
        raise parquet.bomb(f"The {config} table of {manifest.zoo}", unfolded, size)


def read_columns(files: Sequence[TableFile], names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Columns of opened files, strings but checksums as dictionaries. Raises IntegrityError."""
    pieces = [file.read(names) for file in files]
    return {
        name: pa.chunked_array([c for p in pieces for c in p[name].chunks], pieces[0].schema.field(name).type)
        for name in names
    }


def read_schema(root: Path, manifest: Manifest, config: str) -> pa.Schema:
    """Columns of `models` or `snapshots` as they are stored. Raises IntegrityError."""
    return _open(root, manifest, config)[0].schema


def read_table(
    root: Path, manifest: Manifest, config: str, columns: Sequence[str] | None = None, *, weights: bool = False
) -> pa.Table:
    """All rows of `models` or `snapshots` in the zoo's order; all columns by default, the inline weights if asked for.

    Raises IntegrityError.
    """
    files = _open(root, manifest, config)
    stored = files[0].schema.names
    names = [n for n in stored if weights or n != "weights"] if columns is None else columns
    for name in names:
        if name not in stored:
            raise IntegrityError(f"{config} of {manifest.zoo} has no column {name!r}: {_DAMAGED}")
    kind = files[0].schema.field("weights").type if "weights" in names else pa.list_(pa.float32())
    if pa.types.is_fixed_size_list(kind) and kind.list_size not in manifest.widths:  # rows without any are filled up
        raise IntegrityError(f"Inline weights of {manifest.zoo} are {kind}, and no layout is as long: {_DAMAGED}")
    found = read_columns(files, names)
    return parquet.as_strings(found, sum(f.size for f in files), f"The {config} table of {manifest.zoo}")


def _open(root: Path, manifest: Manifest, config: str) -> list[TableFile]:
    weights = manifest.files.size("weights/")
    return open_tables(
        manifest, config, lambda file: parquet.open_file(file.find(root), file.bytes, file.path, weights)
    )
