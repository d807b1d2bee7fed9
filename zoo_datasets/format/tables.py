"""A sealed zoo's Parquet tables → Arrow, whole, with their row counts checked first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import parquet
from zoo_datasets.format.paths import SPLITS


def read_table(root: Path, manifest: dict[str, Any], config: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of `models` or `snapshots` in the zoo's order. Raises IntegrityError.

    A split may lie in several files. Row counts come from the Parquet metadata first, so that a
    small file which unfolds to billions of rows is refused before it is read.
    """
    pieces = []
    for split in SPLITS:
        if split not in manifest["counts"][config]:
            continue
        prefix = f"data/{config}/{split}-"
        opened = [(e["path"], _parquet(root, e["path"])) for e in manifest["files"] if e["path"].startswith(prefix)]
        rows, wanted = sum(f.metadata.num_rows for _, f in opened), manifest["counts"][config][split]
        if rows != wanted:
            here = " and ".join(path for path, _ in opened) or f"{prefix}*"
            raise IntegrityError(f"{here} has {rows:,} rows, the manifest says {wanted:,}.")
        for path, file in opened:
            try:
                piece = file.read(columns)
                pieces.append(pa.table({n: parquet.plain(piece[n]) for n in piece.column_names}))
            except (pa.ArrowException, OSError) as error:
                raise IntegrityError(f"{path} is damaged: {error}") from None
    try:
        return pa.concat_tables(pieces)
    except pa.ArrowException as error:
        raise IntegrityError(f"The files of {config} have different columns: {error}") from None


def _parquet(root: Path, relative: str) -> pq.ParquetFile:
    path = files.inside(root, relative)
    return parquet.open_file(path, path.stat().st_size, relative)
