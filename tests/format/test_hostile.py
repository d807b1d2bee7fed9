"""Zoos made to harm: small files that would unfold to gigabytes, manifests and tables that lack their parts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from resealed import write_manifest

from zoo_datasets import audit, cli
from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import check, pages, parquet
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
    write_manifest(root / "manifest.json", manifest)


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


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("config", "column", "make"),
    [
        ("snapshots", "test_correct_per_class", _lists),
        ("models", "train_count_per_class", _lists),
        ("snapshots", "subset", _one_text(8 * HUGE)),
    ],
)
@pytest.mark.slow
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


@pytest.mark.slow
def test_a_text_that_many_rows_share_is_refused_where_it_would_unfold(tiny_copy: Path) -> None:
    _put(
        tiny_copy, "snapshots", "subset", _one_text(10_000_000)
    )  # within what a footer may say; 36 times that as strings
    zoo = open_zoo(tiny_copy)
    with pytest.raises(IntegrityError, match="texts would unfold to 300,"):
        _ = zoo.snapshots
    assert len(zoo.select(activation="tanh")) == 24  # other columns are not touched
    with pytest.raises(IntegrityError, match="texts would unfold to 300,"):
        read_table(tiny_copy, Manifest.read(tiny_copy), "snapshots")


def test_texts_that_are_missing_or_unused_unfold_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ALWAYS_TEXT_BYTES", 100)
    words = pa.array(["unseen", "a", "x" * 101], pa.string())[1:]
    codes = pa.array([7, 0, None, 0], pa.int32())[1:]
    kind = pa.dictionary(pa.int32(), pa.string())
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(codes, words), pa.array([None, None], kind)])
    assert parquet.as_strings({"c": column}, 0, "It")["c"].to_pylist() == ["a", None, "a", None, None]
    long = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([1], pa.int32()), words)])
    with pytest.raises(IntegrityError, match="It has 0 bytes and its texts would unfold to 101: a bomb"):
        parquet.as_strings({"c": long}, 0, "It")
    assert parquet.as_strings({"c": long}, 1, "It")["c"].to_pylist() == ["x" * 101]
    short = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a", "y" * 51]))])
    with pytest.raises(IntegrityError, match="would unfold to 102"):  # columns are added up
        parquet.as_strings({"c": short, "d": short}, 0, "It")


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


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("config", "column"),
    [("models", "model_id"), ("models", "split"), ("snapshots", "row"), ("snapshots", "weights_sha256")],
)
@pytest.mark.slow
def test_a_table_without_its_keys_is_damaged(tiny_copy: Path, config: str, column: str) -> None:
    _drop(tiny_copy, config, column)
    with pytest.raises(IntegrityError, match=f"{config} of weightzoo/tiny has no column '{column}'"):
        open_zoo(tiny_copy)
    assert check.check(tiny_copy).problems == [f"{config} has no column {column!r}"]


@pytest.mark.slow
def test_check_misses_any_column_of_the_format(tiny_copy: Path) -> None:
    _drop(tiny_copy, "models", "n_snapshots")
    assert check.check(tiny_copy).problems == ["models has no column 'n_snapshots'"]


@pytest.mark.some(1)
@pytest.mark.parametrize("column", ["init_key", "init_group", "parent_id", "lineage_root", "layout"])
def test_an_audit_of_a_table_without_what_it_compares_says_so(tiny_copy: Path, column: str) -> None:
    _drop(tiny_copy, "models", column)
    with pytest.raises(IntegrityError, match=f"models of weightzoo/tiny has no column '{column}'"):
        audit.audit(None, open_zoo(tiny_copy))


# ── footers that lie ──


def _varint(n: int) -> bytes:
    return bytes([n & 127 | 128]) + _varint(n >> 7) if n > 127 else bytes([n])


def _lie(path: Path, true: int, false: int) -> int:
    """Another number in the footer, in as many bytes; how often it was there."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    said, lie = _varint(true << 1), bytearray(_varint(false << 1))
    lie[-1] |= 128
    lie += b"\x80" * (len(said) - len(lie))
    lie[-1] &= 127
    path.write_bytes(data[: -8 - length] + footer.replace(said, bytes(lie)) + data[-8:])
    return footer.count(said)


def _numbers(path: Path) -> dict[str, Any]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    return {c.path_in_schema: c for c in chunks}


@pytest.mark.slow
def test_a_footer_that_denies_a_long_text_is_found_before_a_page_is_read(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 MB of one text in all rows, of which the footer says that it has 1000 bytes."""
    path = _put(tiny_copy, "snapshots", "subset", _one_text(100_000_000))
    assert _lie(path, _numbers(path)["subset"].total_uncompressed_size, 1000)
    _sign(tiny_copy)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("pages were decoded"))
    file = parquet.open_file(path, path.stat().st_size, "it")
    assert file.unfolded < 1_000_000
    with pytest.raises(
        IntegrityError, match=r"subset has .* values and unfolds to 1,000 bytes, its pages say .* 100,000,"
    ):
        file.read(["subset"])


def test_everything_that_reads_it_refuses_a_footer_that_lies(tiny_copy: Path) -> None:
    path = _put(tiny_copy, "snapshots", "subset", _one_text(1_000_000))
    assert _lie(path, _numbers(path)["subset"].total_uncompressed_size, 1000)
    _sign(tiny_copy)
    assert "its pages say" in check.check(tiny_copy).problems[0]
    zoo = open_zoo(tiny_copy)
    for read in (
        lambda: zoo.snapshots,
        lambda: zoo.select(subset="full"),
        lambda: zoo.to_hf(),
        lambda: read_table(tiny_copy, Manifest.read(tiny_copy), "snapshots"),
    ):
        with pytest.raises(IntegrityError, match="its pages say"):
            read()


def test_a_page_with_more_values_than_the_footer_says_is_found(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).table("snapshots", "train")
    rows = pq.ParquetFile(path).metadata.num_rows
    table = pq.read_table(path, partitioning=None)
    made = table.set_column(table.column_names.index("step"), "step", pa.array(np.zeros(rows, np.int64)))
    pq.write_table(made, path, use_dictionary=False, column_encoding={"step": "PLAIN"}, compression="none")
    where = _numbers(path)["step"]
    data = bytearray(path.read_bytes())
    page = pages.pages(memoryview(data)[where.data_page_offset :][: where.total_compressed_size])[0]
    head = data[where.data_page_offset : where.data_page_offset + page.start]
    at = bytes(head).index(bytes([0x15, rows << 1]))  # field 1 of the page's own header: number of values
    data[where.data_page_offset + at + 1] = (rows - 1) << 1
    path.write_bytes(data)
    _sign(tiny_copy)
    with pytest.raises(IntegrityError, match=f"step has {rows} values .*, its pages say {rows - 1} and"):
        _ = open_zoo(tiny_copy).snapshots


def test_a_checksum_that_all_rows_share_and_that_is_none_is_a_bomb(tiny_copy: Path) -> None:
    """Checksums are read as texts at once: a dictionary of one long one would be written out for every row."""
    _put(tiny_copy, "snapshots", "weights_sha256", _one_text(5_000_000))
    with pytest.raises(IntegrityError, match=r"Checksums of .* would unfold to 150,000,000: a bomb"):
        _ = open_zoo(tiny_copy).snapshots


def test_the_longest_text_of_a_dictionary_is_found(tmp_path: Path) -> None:
    for texts, longest in ((["aa", "bb"], 2), (["", "x" * 300, "y"], 300), ([""], 0), (["ab", "c", "d" * 64], 64)):
        for compression in ("none", "zstd", "snappy", "gzip", "brotli", "lz4"):
            pq.write_table(pa.table({"t_sha256": texts * 3}), tmp_path / "t", compression=compression)
            chunk = _numbers(tmp_path / "t")["t_sha256"]
            begin, length = parquet._span(chunk)
            data = (tmp_path / "t").read_bytes()[begin : begin + length]
            first = pages.pages(data)[0]
            assert first.is_dictionary
            assert parquet._longest(first, data, chunk.compression) == longest
            file = parquet.open_file(tmp_path / "t", (tmp_path / "t").stat().st_size, "t")
            assert file.read(["t_sha256"])["t_sha256"].to_pylist() == texts * 3


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_that_build_on_each_other_are_refused(tmp_path: Path, encoding: str) -> None:
    """A long text and a thousand that add a letter to it: a page of kilobytes, gigabytes of texts."""
    texts = pa.array([f"{'x' * 10_000}{i}" for i in range(1000)])
    pq.write_table(
        pa.table({"a": texts}),
        tmp_path / "t",
        use_dictionary=False,
        column_encoding={"a": encoding},
        compression="zstd",
    )
    size = (tmp_path / "t").stat().st_size
    with pytest.raises(IntegrityError, match="values in the encoding"):
        parquet.open_file(tmp_path / "t", size, "it").read(["a"])


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("num_values", b"\x15\x80\x80\x80\x80\x20"),
        ("twice", b"\x15\x02\x05\x02\x02"),
        ("list", b"\x19\x00"),
        ("nothing", b""),
    ],
)
def test_a_page_header_that_is_none_is_refused(field: str, wrong: bytes) -> None:
    for junk in (wrong, b"\x15\x00" + wrong, b"\x00", b"\xff" * 30, b"\x1c" * 30):
        with pytest.raises(pages.BadPageError, match="page"):
            pages.pages(junk or b"\x15")


def test_many_small_files_of_one_table_are_a_bomb_together(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [
        parquet.open_file(p, p.stat().st_size, "it").unfolded
        for p in (ZooPaths(tiny_copy).table("snapshots", s) for s in SPLITS)
    ]
    monkeypatch.setattr(parquet, "MOST_UNFOLDING", 0)
    monkeypatch.setattr(parquet, "LISTS_PER_BYTE", 0)
    monkeypatch.setattr(parquet, "ALWAYS_BYTES", max(sizes))
    said = f"The snapshots table of weightzoo/tiny has .* unfold to {sum(sizes[:2]):,}"
    with pytest.raises(IntegrityError, match=said):
        read_table(tiny_copy, Manifest.read(tiny_copy), "snapshots", ["step"])


def test_lists_of_many_classes_are_bounded_by_the_weights_that_give_them(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts of a thousand classes compress a thousandfold: a zoo of them was built, and called a bomb by its own reader."""
    monkeypatch.setattr(parquet, "MOST_UNFOLDING", 0)
    monkeypatch.setattr(parquet, "ALWAYS_BYTES", 5000)  # enough for texts
    assert read_table(tiny_copy, Manifest.read(tiny_copy), "snapshots").num_rows == 48
    assert len(open_zoo(tiny_copy).select(epoch=0)) == 16
    monkeypatch.setattr(parquet, "LISTS_PER_BYTE", 0.01)
    for read in (lambda: read_table(tiny_copy, Manifest.read(tiny_copy), "snapshots"), lambda: open_zoo(tiny_copy)):
        with pytest.raises(IntegrityError, match="a bomb, or damaged"):
            read()


# ── columns that are not what they should be ──


def _is(root: Path, config: str, column: str, make: Callable[[pa.Array], pa.Array]) -> None:
    """Another column in all tables of a config."""
    for split in SPLITS:
        path = ZooPaths(root).table(config, split)
        table = pq.read_table(path, partitioning=None)
        at = table.column_names.index(column)
        made = make(table[column].combine_chunks())
        pq.write_table(table.set_column(at, pa.field(column, made.type), made), path)
    _sign(root)


@pytest.mark.some(4)
@pytest.mark.parametrize(
    ("config", "column", "kind"),
    [
        ("snapshots", "row", pa.uint64()), ("snapshots", "row", pa.int32()), ("snapshots", "step", pa.float64()),
        ("snapshots", "shard", pa.large_string()), ("snapshots", "weights_sha256", pa.binary()),
        ("snapshots", "test_accuracy", pa.float32()), ("models", "n_params", pa.string()),
        ("models", "test_correct_per_class", pa.list_(pa.int32())), ("models", "test_correct_per_class", pa.list_(pa.int64(), 10)),
        ("models", "lr", pa.decimal128(9, 4)), ("models", "lr", pa.float32()), ("models", "activation", pa.large_string()),
        ("models", "weights", pa.list_(pa.float64())), ("models", "epoch", pa.timestamp("s")),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_column_of_another_type_is_refused_by_check_and_by_readers(
    tiny_copy: Path, config: str, column: str, kind: pa.DataType
) -> None:
    def cast(old: pa.Array) -> pa.Array:
        if kind == pa.timestamp("s"):
            return pa.array(np.zeros(len(old), "datetime64[s]"))
        return pa.array(old.to_pylist(), kind) if pa.types.is_nested(kind) else old.cast(kind, safe=False)

    _is(tiny_copy, config, column, cast)
    said = f"Column `{column}` of {config} of weightzoo/tiny is "
    assert check.check(tiny_copy).problems[0].startswith(said)
    with pytest.raises(IntegrityError, match=said):
        _ = getattr(open_zoo(tiny_copy), config)
    with pytest.raises(IntegrityError, match=said):
        read_table(tiny_copy, Manifest.read(tiny_copy), config)


def test_two_columns_of_one_name_are_refused(tiny_copy: Path) -> None:
    for split in SPLITS:
        path = ZooPaths(tiny_copy).table("snapshots", split)
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("row", table["row"]), path)
    _sign(tiny_copy)
    assert "two columns of one name" in check.check(tiny_copy).problems[0]
    with pytest.raises(IntegrityError, match="two columns of one name"):
        open_zoo(tiny_copy)


def test_columns_in_another_order_are_the_same_table(tiny_copy: Path) -> None:
    for split in SPLITS:
        path = ZooPaths(tiny_copy).table("snapshots", split)
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.select(table.column_names[::-1]), path)
    _sign(tiny_copy)
    assert check.check(tiny_copy).problems == []
    assert len(open_zoo(tiny_copy)) == 48


@pytest.mark.some(2)
@pytest.mark.parametrize("column", ["model_id", "step", "shard", "tensor", "row", "weights_sha256"])
def test_a_row_without_a_needed_value_is_refused(tiny_copy: Path, column: str) -> None:
    _is(tiny_copy, "snapshots", column, lambda old: pa.array([None, *old.to_pylist()[1:]], old.type))
    assert any(f"`{column}`" in p for p in check.check(tiny_copy).problems)
    with pytest.raises(IntegrityError, match=f"have no `{column}`: the zoo is damaged"):
        _ = open_zoo(tiny_copy).snapshots


@pytest.mark.some(2)
@pytest.mark.parametrize("place", ["README.md", "../x", "weights/../manifest.json", "pipe", "x" * 100_000])
@pytest.mark.slow
def test_weights_lie_in_sealed_files_alone(tiny_copy: Path, place: str) -> None:
    os.mkfifo(tiny_copy / "pipe")
    _is(tiny_copy, "snapshots", "shard", lambda old: pa.array([place] * len(old)))
    with pytest.raises(IntegrityError, match="Unknown file") as caught:
        _ = open_zoo(tiny_copy).weights[0]
    assert len(str(caught.value)) < 2000
    problems = check.check(tiny_copy).problems
    assert any("which the manifest does not name" in p for p in problems)
    assert max(map(len, problems)) < 2000


def test_texts_that_are_no_text_are_damage(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).table("snapshots", "train")
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(table["model_id"][0].as_py().encode(), b"\xff" * 16))
    _sign(tiny_copy)
    assert "UTF8" in check.check(tiny_copy).problems[0]
    with pytest.raises(IntegrityError, match="Invalid UTF8"):
        _ = open_zoo(tiny_copy).snapshots
