"""A sealed zoo's Parquet tables → opened files, their row counts and columns checked first; or whole, as Arrow.

A split may lie in several files. Row counts come from the Parquet metadata, so that a small
file which unfolds to billions of rows is refused before it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import parquet
from zoo_datasets.format.manifest import Manifest, SealedFile

_DAMAGED = "the zoo is damaged. Fetch or build it again."


def open_tables(
    manifest: Manifest, config: str, open_file: Callable[[SealedFile], pq.ParquetFile]
) -> list[pq.ParquetFile]:
    """The files of `models` or `snapshots` in the zoo's order, of one schema, at least one. Raises IntegrityError."""
    opened: list[pq.ParquetFile] = []
    for split, files, wanted in manifest.tables(config):
        own = [open_file(file) for file in files]
        rows = sum(f.metadata.num_rows for f in own)
        if rows != wanted:
            here = " and ".join(f.path for f in files) or f"data/{config}/{split}-*"
            raise IntegrityError(
                f"{here} of {manifest.zoo} has {rows:,} rows, the manifest says {wanted:,}: {_DAMAGED}"
            )
        for file, one in zip(files, own, strict=True):
            if not one.schema_arrow.equals((opened or own)[0].schema_arrow):
                raise IntegrityError(
                    f"{file.path} of {manifest.zoo} has other columns than the other files of {config}: {_DAMAGED}"
                )
        opened += own
    if not opened:
        raise IntegrityError(f"{manifest.zoo} has no table of {config}: its manifest lists none.")
    return opened


def read_columns(files: Sequence[pq.ParquetFile], names: Sequence[str], where: str) -> dict[str, pa.ChunkedArray]:
    """Columns of opened files, each as it was opened: strings as dictionaries. Raises IntegrityError."""
    try:
        pieces = [file.read(columns=list(names)) for file in files]
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{where} is damaged: {error}. Fetch or build the zoo again.") from None
    return {
        name: pa.chunked_array([c for p in pieces for c in p[name].chunks], pieces[0].schema.field(name).type)
        for name in names
    }


def read_table(
    root: Path, manifest: Manifest, config: str, columns: Sequence[str] | None = None, *, weights: bool = False
) -> pa.Table:
    """All rows of `models` or `snapshots` in the zoo's order; all columns by default, the inline weights if asked for.

    Raises IntegrityError.
    """
    files = open_tables(manifest, config, lambda file: parquet.open_file(file.find(root), file.bytes, file.path))
    stored = files[0].schema_arrow.names
    names = [n for n in stored if weights or n != "weights"] if columns is None else columns
    for name in names:
        if name not in stored:
            raise IntegrityError(f"{config} of {manifest.zoo} has no column {name!r}: {_DAMAGED}")
    found = read_columns(files, names, f"The {config} table of {manifest.zoo}")
    return pa.table({name: parquet.as_strings(column) for name, column in found.items()})
