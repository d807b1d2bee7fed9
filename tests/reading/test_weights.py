"""Weights: the same bits as the shards hold, whatever the index and wherever they lie."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hub_server import LoopbackHub
from hypothesis import given, settings
from hypothesis import strategies as st
from resealed import write_manifest

from zoo_datasets import weights
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooError
from zoo_datasets.reading.gather import Gather
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("hub_fixtures", "reader_fixtures")
Read = Callable[[Zoo], list[np.ndarray]]


def same(found: Any, wanted: list[np.ndarray]) -> bool:
    return len(found) == len(wanted) and all(
        a.dtype == np.float32 and a.tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True)
    )


# ── gathering ──


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(sum),
    width=st.integers(1, 5),
    picks=st.lists(st.integers(0, 10**6), max_size=12),
    far=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_rows_of_many_arrays_are_gathered_bit_for_bit(
    lengths: list[int], width: int, picks: list[int], far: bool, seed: int
) -> None:
    bits = np.random.default_rng(seed).integers(
        0, 2**32, (sum(lengths), width), np.uint32
    )  # NaNs and infinities among them
    whole = bits.view(np.float32)
    arrays = [a.copy() for a in np.split(whole, np.cumsum(lengths)[:-1])]
    array = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    row = np.concatenate([np.arange(n) for n in lengths])
    some = np.sort(np.array([p % len(whole) for p in picks], np.int64))  # gaps, repeats and neighbors across arrays
    for chosen in (np.arange(len(whole)), some):
        gather, wanted = Gather(arrays, array[chosen], row[chosen]), whole[chosen]
        if far:  # as where arrays lie too far apart for one view
            gather.__dict__["_windows"] = None
        index = np.array([p % len(wanted) for p in picks], np.int64)
        assert gather.take(index).tobytes() == wanted[index].tobytes()
        for start in range(len(wanted)):
            for stop in range(start, len(wanted) + 1):
                assert gather.slice(start, stop).tobytes() == wanted[start:stop].tobytes()
            assert gather.one(start).tobytes() == wanted[start].tobytes()


# ── a zoo on this machine ──

INDEX = (
    st.integers(-48, 47)
    | st.slices(48)
    | st.lists(st.integers(-48, 47), max_size=9)
    | st.lists(st.booleans(), min_size=48, max_size=48).map(np.array)
)


@given(INDEX)
@settings(deadline=None)
def test_any_index_gives_what_numpy_would(zoo: Zoo, vectors: Read, index: Any) -> None:
    whole = np.stack(vectors(zoo))
    wanted = whole[np.array(index, np.int64) if isinstance(index, list) else index]
    found = zoo.weights[index]
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


@given(st.lists(st.integers(0, 53), max_size=12))
@settings(deadline=None, max_examples=40)
@pytest.mark.slow
def test_a_selection_has_its_rows_in_its_order(mixed_zoo: Zoo, vectors: Read, picks: list[int]) -> None:
    whole = vectors(mixed_zoo)
    assert same(mixed_zoo.take(np.array(picks, np.int64)).weights[:], [whole[i] for i in picks])
    assert same(list(mixed_zoo.weights[np.array(picks, np.int64)]), [whole[i] for i in picks])


def test_neighbors_come_as_views_that_cannot_be_written(zoo: Zoo) -> None:
    train = zoo.select(split="train").weights
    assert np.shares_memory(train[2:5], train[0:10])
    assert np.shares_memory(train[3], train[0:10])
    assert not np.shares_memory(train[[2, 3]], train[0:10])
    assert not train[2:5].flags.writeable
    scattered = zoo.select(epoch=2).weights
    assert not np.shares_memory(scattered[0:2], scattered[0:2])


def test_a_view_outlives_its_zoo(tiny_copy: Path, vectors: Read, zoo: Zoo) -> None:
    view = open_zoo(tiny_copy).weights[0:3]
    one = open_zoo(tiny_copy).weights[47]
    assert same([*view, one], [*vectors(zoo)[:3], vectors(zoo)[47]])


def test_shape_length_and_errors_are_those_of_an_array(zoo: Zoo) -> None:
    w = zoo.weights
    assert (w.shape, len(w), w.dtype, w.ragged) == ((48, 610 + 130), 48, np.float32, False) or w.shape[1] == zoo.models[
        "n_params"
    ][0].as_py()
    assert np.array_equal(np.asarray(w), w[:])
    assert sum(1 for _ in w) == 48
    assert "shape (48, " in repr(w)
    with pytest.raises(IndexError, match="Row 48 of 48"):
        _ = w[48]
    with pytest.raises(IndexError):
        _ = w[[0, 48]]
    with pytest.raises(IndexError, match="one index, over snapshots"):
        _ = w[0, 1]
    assert zoo.take([]).weights[:].shape == (0, w.shape[1])


def test_torch_has_the_same_bits_in_memory_of_its_own(zoo: Zoo, mixed_zoo: Zoo) -> None:
    for index in (3, slice(2, 6), np.array([5, 1])):
        tensor = zoo.weights.torch(index)
        assert tensor.numpy().tobytes() == zoo.weights[index].tobytes()
        before = zoo.weights[index].copy()
        tensor.zero_()
        assert np.array_equal(zoo.weights[index], before)
    assert [t.shape[0] for t in mixed_zoo.weights.torch([0, 53])] == [len(v) for v in mixed_zoo.weights[[0, 53]]]


def test_jax_has_the_same_bits(zoo: Zoo, mixed_zoo: Zoo) -> None:
    jax = pytest.importorskip("jax")
    for index in (3, slice(2, 6), np.array([5, 1]), slice(None)):
        found = zoo.weights.jax(index)
        assert isinstance(found, jax.Array)
        assert found.dtype == np.float32
        assert np.asarray(found).tobytes() == zoo.weights[index].tobytes()
    ragged = zip(mixed_zoo.weights.jax([0, 53]), mixed_zoo.weights[[0, 53]], strict=True)
    assert all(np.asarray(a).tobytes() == b.tobytes() for a, b in ragged)


def test_a_missing_jax_is_said(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setitem(sys.modules, "jax.numpy", None)
    with pytest.raises(ZooError, match="pip install jax"):
        zoo.weights.jax([0])


def test_mixed_layouts_are_lists_or_a_matrix_each(mixed_zoo: Zoo, vectors: Read) -> None:
    w = mixed_zoo.weights
    assert w.ragged
    assert w.shape == (54, None)
    assert isinstance(w[0:2], list)
    with pytest.raises(ZooError, match="by_layout"):
        np.asarray(w)
    whole, places = vectors(mixed_zoo), []
    for layout, (at, own) in w.by_layout().items():
        assert layout in mixed_zoo.manifest.layouts
        assert own[:].shape == (len(at), own.shape[1])
        assert same(own[:], [whole[i] for i in at])
        places += at.tolist()
    assert sorted(places) == list(range(54))


# ── damage ──


def shard_of(root: Path) -> Path:
    return next((root / "weights").glob("train-*"))


def test_a_flipped_bit_is_found_on_first_touch_with_verify(tiny_copy: Path) -> None:
    path = shard_of(tiny_copy)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    _ = open_zoo(tiny_copy).weights[:]  # unasked, nothing is hashed
    zoo = open_zoo(tiny_copy, verify=True)
    _ = zoo.select(split="test").weights[:]  # another shard
    for index in (0, slice(0, 2), [0, 1]):
        with pytest.raises(IntegrityError, match=r"train-00000.* has other contents than were sealed"):
            _ = zoo.select(split="train").weights[index]


def test_verified_weights_are_the_same(tiny_zoo: Path, zoo: Zoo) -> None:
    sure = open_zoo(tiny_zoo, verify=True).weights
    assert all(np.array_equal(sure[i], zoo.weights[i]) for i in (7, slice(3, 30), [40, 2], slice(None)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: {k: {**v, "dtype": "F16"} for k, v in h.items()}, "header is damaged"),
        (lambda h: {k: {**v, "shape": v["shape"][::-1]} for k, v in h.items()}, "the shard's header lies"),
        (
            lambda h: {k: {**v, "shape": [v["shape"][0] * v["shape"][1]]} for k, v in h.items()},
            "the shard's header lies",
        ),
        (lambda h: {f"x{k[1:]}": v for k, v in h.items()}, "holds no tensor"),
        (
            lambda h: {k: {**v, "shape": [v["shape"][0] // 3, 3 * v["shape"][1]]} for k, v in h.items()},
            "the shard's header lies",
        ),
    ],
)
def test_a_lying_header_is_refused(change: Callable[[Any], Any], message: str, tiny_copy: Path) -> None:
    path = shard_of(tiny_copy)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(change(json.loads(data[8 : 8 + length]))).replace(" ", "").encode()
    path.write_bytes(data[:8] + text.ljust(length)[:length] + data[8 + length :])
    with pytest.raises(IntegrityError, match=message):
        _ = open_zoo(tiny_copy).weights[0]


def test_a_truncated_shard_is_refused(tiny_copy: Path) -> None:
    path = shard_of(tiny_copy)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(IntegrityError, match="the manifest says"):
        _ = open_zoo(tiny_copy).weights[0]


def test_rows_beyond_their_shard_are_refused(tiny_copy: Path) -> None:
    import pyarrow.parquet as pq

    path = next((tiny_copy / "data" / "snapshots").glob("train-*"))
    table = pq.read_table(path)
    at = table.schema.get_field_index("row")
    pq.write_table(table.set_column(at, "row", pa.array(np.arange(len(table)) + 1)), path, compression="none")
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    for entry in manifest["files"]:
        entry["bytes"] = (tiny_copy / entry["path"]).stat().st_size
    write_manifest(tiny_copy / "manifest.json", manifest)
    with pytest.raises(IntegrityError, match="beyond the end of their shard"):
        _ = open_zoo(tiny_copy).weights[0]


def test_other_numbers_than_float32_are_refused(tiny_copy: Path) -> None:
    value = json.loads((tiny_copy / "manifest.json").read_bytes())
    write_manifest(tiny_copy / "manifest.json", {**value, "weights_dtype": "bfloat16"})
    with pytest.raises(FormatVersionError, match="bfloat16"):
        open_zoo(tiny_copy)


# ── a zoo on the Hub ──


@pytest.mark.slow
def test_far_rows_are_the_same_and_only_they_travel(published: LoopbackHub, zoo: Zoo) -> None:
    far = open_zoo("weightzoo/tiny")
    _ = far.weights.shape
    published.log.clear()
    assert np.array_equal(far.weights[[5, 1]], zoo.weights[[5, 1]])
    assert published.sent("safetensors") < 3 * zoo.weights[[5, 1]].nbytes
    assert np.array_equal(far.weights[3:30], zoo.weights[3:30])
    assert np.array_equal(far.weights[-1], zoo.weights[-1])
    assert np.array_equal(far.select(activation="relu").weights[:], zoo.select(activation="relu").weights[:])


@pytest.mark.slow
def test_far_rows_are_compared_with_their_checksums(published: LoopbackHub, tiny_dressed: Path, tmp_path: Path) -> None:
    from hub_server import NAME, tree_of

    folder = Path(shutil.copytree(tiny_dressed, tmp_path / "flipped"))
    path = shard_of(folder)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    published.put(NAME, tree_of(folder))
    far = open_zoo(NAME, cache_dir=tmp_path / "other").select(split="train").weights
    _ = far[0]
    with pytest.raises(IntegrityError, match="differs from its checksum"):
        _ = far[-1]


@pytest.mark.slow
def test_a_downloaded_shard_is_mapped(published: LoopbackHub, zoo: Zoo) -> None:
    far = open_zoo("weightzoo/tiny").select(split="test")
    far.location.path(far.column("shard")[0].as_py())
    published.log.clear()
    assert np.array_equal(far.weights[:], zoo.select(split="test").weights[:])
    assert np.shares_memory(far.weights[0:1], far.weights[0:2])
    assert published.sent("safetensors") == 0


# ── a datasets.Dataset ──


@pytest.fixture(scope="module")
def loaded(tiny_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[datasets.DatasetDict]:
    was = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    yield datasets.load_dataset(str(tiny_zoo), cache_dir=str(tmp_path_factory.mktemp("cache")))
    (datasets.disable_progress_bars if was else datasets.enable_progress_bars)()


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda d: d,
    "select": lambda d: d.select([3, 1, 2]),
    "select range": lambda d: d.select(range(2, 6)),
    "shuffle": lambda d: d.shuffle(seed=1),
    "filter": lambda d: d.filter(lambda a: a == "relu", input_columns="activation"),
    "sort": lambda d: d.sort("test_accuracy"),
    "split": lambda d: d.train_test_split(0.4, seed=0)["test"],
    "concatenate": lambda d: datasets.concatenate_datasets([d.shuffle(seed=2), d.select([0])]),
    "shard": lambda d: d.shuffle(seed=4).shard(2, 1),
    "flatten": lambda d: d.shuffle(seed=5).flatten_indices(),
    "map": lambda d: d.map(lambda r: {"twice": 2 * r["lr"]}),
    "empty": lambda d: d.select([]),
    "formatted": lambda d: d.select([4, 0]).with_format("torch"),
}


# datasets 5.2 sorts by an argument that pyarrow 26 renamed.
@pytest.mark.some(5)
@pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.slow
def test_weights_of_a_dataset_follow_whatever_was_done_to_it(name: str, loaded: datasets.DatasetDict) -> None:
    ds = OPERATIONS[name](loaded["train"])
    wanted = ds.with_format(None)["weights"][:]
    w = weights(ds)
    assert np.array_equal(
        w[:], np.array(wanted, np.float32).reshape(len(ds), -1) if len(ds) else np.empty(w.shape, np.float32)
    )


def test_weights_of_a_dataset_are_not_copied(loaded: datasets.DatasetDict) -> None:
    ds = loaded["train"]
    assert np.shares_memory(weights(ds)[0:4], weights(ds.select(range(2, 5)))[:])


@pytest.mark.slow
def test_weights_of_a_dataset_of_mixed_layouts_are_lists(mixed_zoo: Zoo, vectors: Read, tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    ds = datasets.load_dataset(str(mixed_zoo.root), cache_dir=str(tmp_path / "cache"), split="train").shuffle(seed=3)
    w = weights(ds)
    assert w.ragged
    published = {m: mixed_zoo.vector(m) for m in ds["model_id"]}
    assert same(w[:], list(published.values()))
    assert same(list(w[[2, 0]]), [published[m] for m in (ds["model_id"][2], ds["model_id"][0])])
    for at, own in w.by_layout().values():
        assert same(own[:], [published[ds["model_id"][int(i)]] for i in at])


def test_what_holds_no_weights_is_refused(loaded: datasets.DatasetDict) -> None:
    with pytest.raises(ZooError, match=r"this is a DatasetDict\. Take one of its splits: train"):
        weights(loaded)
    with pytest.raises(ZooError, match="has no column 'weights'"):
        weights(loaded["train"].remove_columns("weights"))
    with pytest.raises(ZooError, match="not float32 vectors"):
        weights(loaded["train"], column="lr")
    gap = datasets.Dataset(pa.table({"weights": pa.array([[1.0], None], pa.list_(pa.float32(), 1))}), fingerprint="x")
    with pytest.raises(IntegrityError, match="1 rows have no weights"):
        weights(gap)
