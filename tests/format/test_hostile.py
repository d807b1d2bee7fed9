"""Zoos made to harm: small files that would unfold to gigabytes, manifests and tables that lack their parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo_datasets import cli
from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import check, parquet
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.format.tables import read_table
from zoo_datasets.zoo import open_zoo

HUGE = 15_000_000  # values of a row, of 120 MB


def _sign(root: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Make the manifest agree with the files, or not."""
    manifest = json.loads((root / "manifest.json").read_bytes())
    manifest["files"] = [files.record(root, root / e["path"]) for e in manifest["files"]]
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))


def _put(root: Path, config: str, column: str, make: Callable[[int], pa.Array]) -> Path:
    """Another column in the train table of a zoo, whose manifest agrees."""
    path = ZooPaths(root).table(config, "train")
    table = pq.read_table(path, partitioning=None)
    at = table.column_names.index(column)
    made = table.set_column(at, column, make(len(table)))
    # Without Arrow's own schema a dictionary is stored as any text is.
    pq.write_table(made, path, compression="zstd", write_page_checksum=True, store_schema=config == "models")
    _sign(root)
    return path


def _one_text(length: int) -> Callable[[int], pa.Array]:
    return lambda n: pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["x" * length]))


def _lists(n: int) -> pa.Array:
    """A list of zeros in the first row, empty ones below."""
    ends = np.full(n + 1, HUGE, np.int32)
    ends[0] = 0
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.zeros(HUGE, np.int64)))


@pytest.mark.parametrize(
    ("config", "column", "make"),
    [
        ("snapshots", "test_correct_per_class", _lists),
        ("models", "train_count_per_class", _lists),
        ("snapshots", "subset", _one_text(8 * HUGE)),
    ],
)
def test_a_table_that_unfolds_to_gigabytes_is_refused(
    tiny_copy: Path, config: str, column: str, make: Callable[[int], pa.Array], capsys: pytest.CaptureFixture[str]
) -> None:
    path = _put(tiny_copy, config, column, make)
    assert path.stat().st_size < 200_000
    for read in (
        open_zoo,
        check.check,
        lambda root: read_table(root, Manifest.read(root), config, ["model_id"]),
    ):
        try:
            problems = getattr(read(tiny_copy), "problems", ["none"])
        except IntegrityError as error:
            problems = [str(error)]
        assert "a bomb, or damaged. Nothing of it is read." in problems[0]
    if config == "models":
        assert cli.main(["show", str(tiny_copy)]) == 1
        assert "a bomb" in capsys.readouterr().err


def test_a_text_that_many_rows_share_is_refused_where_it_would_unfold(tiny_copy: Path) -> None:
    _put(
        tiny_copy, "snapshots", "subset", _one_text(10_000_000)
    )  # within what a footer may say; 36 times that as strings
    zoo = open_zoo(tiny_copy)
    with pytest.raises(IntegrityError, match="texts would unfold to 360,"):
        _ = zoo.snapshots
    assert len(zoo.select(activation="tanh")) == 24  # other columns are not touched
    with pytest.raises(IntegrityError, match="texts would unfold to 360,"):
        read_table(tiny_copy, Manifest.read(tiny_copy), "snapshots")


def test_texts_that_are_missing_or_unused_unfold_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ALWAYS_TEXT_BYTES", 100)
    monkeypatch.setattr(parquet, "MOST_TEXT_BYTES_A_ROW", 1)
    words = pa.array(["unseen", "a", "x" * 101], pa.string())[1:]
    codes = pa.array([7, 0, None, 0], pa.int32())[1:]
    kind = pa.dictionary(pa.int32(), pa.string())
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(codes, words), pa.array([None, None], kind)])
    assert parquet.as_strings(column).to_pylist() == ["a", None, "a", None, None]
    with pytest.raises(IntegrityError, match="A column of 1 texts would unfold to 101 bytes"):
        parquet.as_strings(pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([1], pa.int32()), words)]))


@pytest.mark.parametrize("text", ["[" * 100_000, "", '{"format_version": true}', '{"format_version": 0}', "\udcff"])
def test_what_is_no_manifest_is_said(tiny_copy: Path, text: str) -> None:
    (tiny_copy / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(IntegrityError, match=r"is not JSON|names no format version"):
        open_zoo(tiny_copy)


def _drop(root: Path, config: str, column: str) -> None:
    for split in SPLITS:
        path = ZooPaths(root).table(config, split)
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns([column]), path)
    _sign(root)


@pytest.mark.parametrize(
    ("config", "column"),
    [("models", "model_id"), ("models", "split"), ("snapshots", "row"), ("snapshots", "weights_sha256")],
)
def test_a_table_without_its_keys_is_damaged(tiny_copy: Path, config: str, column: str) -> None:
    _drop(tiny_copy, config, column)
    with pytest.raises(IntegrityError, match=f"{config} of weightzoo/tiny has no column '{column}'"):
        open_zoo(tiny_copy)
    assert check.check(tiny_copy).problems == [f"{config} has no column {column!r}"]


def test_check_misses_any_column_of_the_format(tiny_copy: Path) -> None:
    _drop(tiny_copy, "models", "n_snapshots")
    assert check.check(tiny_copy).problems == ["models has no column 'n_snapshots'"]
