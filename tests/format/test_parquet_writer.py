"""A table in one file or several: cut by bytes, in the same places every time, and shared by those who stream it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node

from zoo_datasets.format import check, contents, parquet_writer, writer
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.format.schema import Column
from zoo_datasets.networks.layout import Layout
from zoo_datasets.zoo import open_zoo

Tree = Callable[[Path], dict[str, str]]
WIDTH = 50
LAYOUTS = {
    "narrow": Layout.of([("a.weight", (WIDTH,), "parameter", ("",))]),
    "wide": Layout.of([("a.weight", (2 * WIDTH,), "parameter", ("",))]),
}
ABOUT = contents.About("a/large", LAYOUTS, factors=(Column("lr", pa.float64(), "rate"),), axes={"lr": ["0.1"]})
BOUND = 40_000


def models(split: str, n: int, layouts: tuple[str, ...] = ("narrow",), at_once: int = 50) -> Iterator[contents.Models]:
    """Models of two snapshots each; values that no compressor makes smaller."""
    for start in range(0, n, at_once):
        rows = range(start, min(start + at_once, n))
        ids, kinds = [f"{split}-{i}" for i in rows], [layouts[i % len(layouts)] for i in rows]
        table = pa.table({
            "model_id": ids, "init_group": ids, "layout": kinds, "n_snapshots": [2] * len(ids), "lr": [0.1] * len(ids),
        })  # fmt: skip
        draws = [np.random.default_rng([i, len(split)]) for i in rows]
        weights = [d.standard_normal((2, LAYOUTS[k].n_params), np.float32) for d, k in zip(draws, kinds, strict=True)]
        snapshots = {"step": [0, 1] * len(ids), "test_loss": [v for d in draws for v in d.random(2)]}
        yield contents.Models(split, table, pa.table(snapshots), weights)


def everything(**options: Any) -> Iterator[contents.Models]:
    for split, n in (("train", 400), ("validation", 3), ("test", 60)):
        yield from models(split, n, **options)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one") / "a" / "large"
    writer.write(root, ABOUT, everything())
    return root


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several") / "a" / "large"
    writer.write(root, ABOUT, everything(), most_file_bytes=BOUND)
    return root


def files_of(root: Path, config: str, split: str) -> list[Path]:
    return sorted((root / "data" / config).glob(f"{split}-*"))


@pytest.mark.slow
def test_a_small_table_is_one_file(one: Path) -> None:
    for config, split in itertools.product(("models", "snapshots"), ("train", "validation", "test")):
        assert files_of(one, config, split) == [ZooPaths(one).table(config, split)]


@pytest.mark.parametrize("config", ["models", "snapshots"])
@pytest.mark.slow
def test_a_large_table_is_as_many_files_as_its_bytes_need(one: Path, several: Path, config: str) -> None:
    for split, n in (("train", {"models": 3, "snapshots": 2}[config]), ("validation", 1), ("test", 1)):
        found = files_of(several, config, split)
        assert found == [ZooPaths(several).table(config, split, i, len(found)) for i in range(len(found))]
        assert len(found) >= n, split
        assert len(found) <= 2 * -(-files_of(one, config, split)[0].stat().st_size // BOUND)
        sizes = [p.stat().st_size for p in found]
        assert max(sizes) <= BOUND
        assert max(sizes) <= 1.2 * min(sizes)  # workers that share them have equally much to do
        whole = pq.read_table(files_of(one, config, split)[0], partitioning=None)
        assert pa.concat_tables([pq.read_table(p, partitioning=None) for p in found]) == whole


@pytest.mark.slow
def test_a_zoo_of_several_files_is_whole_and_the_same(one: Path, several: Path) -> None:
    report = check.check(several)
    assert (report.problems, report.warnings) == ([], [])
    a, b = open_zoo(one), open_zoo(several)
    assert (a.models, a.snapshots, a.manifest.digests) == (b.models, b.snapshots, b.manifest.digests)
    assert a.weights[:].tobytes() == b.weights[:].tobytes()
    assert len(files_of(several, "models", "train")) > 1


@pytest.mark.some(1)
@pytest.mark.parametrize("layouts", [("narrow",), ("narrow", "wide", "wide")])
@pytest.mark.slow
def test_the_same_rows_give_the_same_files_however_they_come(
    tmp_path: Path, tree_hash: Tree, layouts: tuple[str, ...]
) -> None:
    for name, at_once, batch_rows in (("a", 13, 1000), ("b", 400, 17)):
        written = everything(layouts=layouts, at_once=at_once)
        writer.write(tmp_path / name, ABOUT, written, batch_rows=batch_rows, most_file_bytes=BOUND)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")
    assert check.check(tmp_path / "a").problems == []
    assert len(files_of(tmp_path / "a", "models", "train")) > 2


@pytest.mark.slow
def test_streams_share_the_files(several: Path, tmp_path: Path) -> None:
    found = files_of(several, "models", "train")
    stream = datasets.load_dataset(str(several), split="train", streaming=True, cache_dir=str(tmp_path))
    assert stream.num_shards == len(found) > 2
    ids = [[row["model_id"] for row in split_dataset_by_node(stream, rank, 2)] for rank in range(2)]
    assert sorted(ids[0] + ids[1]) == sorted(f"train-{i}" for i in range(400))
    assert min(map(len, ids)) > 100


# ── where a table is cut ──


def cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, n: int, group_rows: int, most_bytes: int
) -> tuple[list[Path], list[list[int]]]:
    """The files of n rows of weights in groups of so many, and the rows of every group in them."""
    monkeypatch.setattr(parquet_writer, "ROW_GROUP_BYTES", 4 * WIDTH * group_rows)
    values = np.random.default_rng(0).standard_normal((n, WIDTH)).astype(np.float32)
    paths = parquet_writer.write(
        lambda i, count: folder / f"{i}-of-{count}.parquet", pa.table({"id": np.arange(n), "n_params": np.full(n, WIDTH)}),
        lambda a, b: (values[a:b].ravel(), np.full(b - a, WIDTH)), frozenset({WIDTH}), most_bytes=most_bytes,
    )  # fmt: skip
    assert sorted(os.listdir(folder)) == sorted(p.name for p in paths)  # nothing else is left
    read = pa.concat_tables([pq.read_table(p) for p in paths])
    assert np.array_equal(read["weights"].combine_chunks().flatten().to_numpy(), values.ravel())
    assert read["id"].to_pylist() == list(range(n))
    footers = [pq.read_metadata(p) for p in paths]
    return paths, [[f.row_group(g).num_rows for g in range(f.num_row_groups)] for f in footers]


def test_groups_of_rows_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    [whole], groups = cut(tmp_path / "a", monkeypatch, 950, 100, 10**9)
    assert groups == [[100] * 9 + [50]]
    exactly = whole.stat().st_size
    assert len(cut(tmp_path / "b", monkeypatch, 950, 100, exactly)[0]) == 1
    paths, groups = cut(tmp_path / "c", monkeypatch, 950, 100, exactly - 1)
    assert groups == [[100] * 5, [100] * 4 + [50]]
    assert max(p.stat().st_size for p in paths) < exactly


def test_groups_hold_as_many_rows_as_their_own_widths_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the widest layout of all, one wide network among small ones made a group of every row, and a footer that no reader takes."""
    monkeypatch.setattr(parquet_writer, "ROW_GROUP_BYTES", 4000)
    widths = np.array([10] * 150 + [2000] + [10] * 50)
    values = np.random.default_rng(0).standard_normal(widths.sum()).astype(np.float32)
    ends = np.cumsum([0, *widths])
    [path] = parquet_writer.write(
        lambda i, n: tmp_path / "t.parquet", pa.table({"n_params": widths}),
        lambda a, b: (values[ends[a] : ends[b]], widths[a:b]), frozenset({10, 2000}),
    )  # fmt: skip
    footer = pq.read_metadata(path)
    assert [footer.row_group(g).num_rows for g in range(footer.num_row_groups)] == [100, 50, 1, 50]
    read = pq.read_table(path)["weights"].combine_chunks()
    assert np.array_equal(read.flatten().to_numpy(), values)


def test_a_group_larger_than_a_file_is_cut_and_a_row_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    paths, groups = cut(tmp_path / "a", monkeypatch, 1000, 1000, 60_000)
    assert len(paths) > 3
    assert {len(g) for g in groups} == {1}
    assert max(p.stat().st_size for p in paths) <= 60_000
    assert cut(tmp_path / "b", monkeypatch, 4, 2, 1)[1] == [[1]] * 4


@pytest.mark.slow
def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
        pa.set_memory_pool(pool)
        try:
            values = pa.chunked_array([pa.array(np.random.default_rng(i).random(1000)) for i in range(n)])
            held = pool.bytes_allocated()
            (tmp_path / str(n)).mkdir()
            name = str(tmp_path / str(n) / "{}-{}")
            paths = parquet_writer.write(
                lambda *i: Path(name.format(*i)), pa.table({"x": values}), most_bytes=2_000_000
            )
            assert len(paths) > n // 300
            return pool.max_memory() - held
        finally:
            pa.set_memory_pool(before)

    few, more = peak(600), peak(3000)
    assert more - few < 2_000_000, f"{few:,} → {more:,}"  # 2,400,000 rows more are 19 MB
