"""Shards: the safetensors library reads them bit for bit, and lying headers are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import save_file

from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import shards

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda n: n != "__metadata__"),
    hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32)),  # NaN, ±inf and subnormal numbers too
    min_size=1, max_size=4,
)  # fmt: skip


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    shards.write(path, {name: t.shape for name, t in tensors.items()}, lambda name: [tensors[name]])
    return path


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TENSORS)
def test_the_library_and_we_read_the_same_bits(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    path = write(tmp_path / "shard", tensors)
    with safe_open(path, "np") as library:
        assert set(library.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert library.get_tensor(name).tobytes() == tensor.tobytes()
            ours = shards.open_tensor(path, name)
            assert ours.shape == tensor.shape
            assert ours.tobytes() == tensor.tobytes()


def test_the_bytes_of_a_small_shard() -> None:
    head = b'{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}'
    assert shards.header({"a": (2, 1)}) == len(head).to_bytes(8, "little") + head
    assert len(head) % 8 == 0


@pytest.mark.parametrize("name", ["a", "ab", "abc", "é"])
def test_rows_are_aligned_to_eight_bytes(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "shard", {name: np.ones((2, 3), np.float32)})
    assert shards.read_header(path)[0][name][0] % 8 == 0


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((1, 2), np.float32)}
    save_file(tensors, tmp_path / "shard", metadata={"format": "np"})
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(shards.open_tensor(tmp_path / "shard", name), tensor)


def test_an_opened_tensor_cannot_be_written(tmp_path: Path) -> None:
    tensor = shards.open_tensor(write(tmp_path / "shard", {"a": np.ones((2, 3), np.float32)}), "a")
    with pytest.raises(ValueError, match="read-only"):
        tensor[0] = 0


def test_a_writer_that_fails_leaves_no_shard(tmp_path: Path) -> None:
    def rows(name: str) -> Any:
        yield np.ones((1, 3), np.float32)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        shards.write(tmp_path / "shard", {"a": (2, 3)}, rows)
    assert list(tmp_path.iterdir()) == []


def test_too_few_rows_are_no_shard(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        shards.write(tmp_path / "shard", {"a": (2, 3)}, lambda name: [np.ones((1, 3), np.float32)])
    with pytest.raises(AssertionError):
        shards.write(tmp_path / "shard", {"a": (1, 3)}, lambda name: [np.ones((1, 4), np.float32)])
    assert list(tmp_path.iterdir()) == []


def raw(path: Path, text: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "head",
    [
        {"a": entry(dtype="F16")},
        {"a": entry(shape=[3, 1])},
        {"a": entry(shape=[-2, -1])},
        {"a": entry(shape=[2.0, 1])},
        {"a": entry(shape=["2", "1"])},
        {"a": entry(shape=2)},
        {"a": entry(data_offsets=[0, 4])},
        {"a": entry(data_offsets=[4, 12])},  # a hole before it
        {"a": entry(data_offsets=[0.0, 8.0])},
        {"a": entry(data_offsets=[8, 0])},
        {"a": entry(data_offsets=[0])},
        {"a": entry(data_offsets="08")},
        {"a": entry(shape=[2**62, 4])},  # of which the product is 0 in 64 bits
        {"a": entry(shape=[2**63, 0], data_offsets=[0, 0])},
        {"a": entry(shape=[1] * 40 + [2, 1])},
        {"a\ud800": entry(dtype="F16")},
        {"a": entry(), "b": entry()},  # both on the same bytes
        {"a": entry(), "b": entry(data_offsets=[4, 12])},
        {"a": entry(), "b": entry(data_offsets=[12, 20])},
        {"a": {"dtype": "F32"}},
        {"a": 3},
        {"a": [["dtype", "F32"], ["shape", [2, 1]], ["data_offsets", [0, 8]]]},
        [],
        3,
        None,
    ],
    ids=str,
)
def test_a_lying_header_is_refused(tmp_path: Path, head: Any) -> None:
    path = raw(tmp_path / "shard", json.dumps(head).encode(), bytes(20))
    with pytest.raises(IntegrityError, match=r"shard: the shard's header is damaged"):
        shards.read_header(path)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":NaN}', json.dumps({"a": entry()}).encode()[:-1]],
    ids=["empty", "cut", "not UTF-8", "nested", "NaN", "one byte short"],
)
def test_a_header_that_is_not_json_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(IntegrityError, match="the shard's header is damaged"):
        shards.read_header(raw(tmp_path / "shard", text, bytes(8)))


def test_a_tensor_named_twice_is_refused(tmp_path: Path) -> None:
    one = json.dumps(entry())
    other = json.dumps(entry(data_offsets=[8, 16]))
    with pytest.raises(IntegrityError, match="something in it is named twice"):
        shards.read_header(raw(tmp_path / "shard", f'{{"a":{one},"a":{other}}}'.encode(), bytes(16)))


def test_a_claimed_length_beyond_reason_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"the header claims 9,\d+,.* bytes; this is not a shard of a zoo"):
        shards.read_header(raw(tmp_path / "shard", b"{}", length=2**63))


def test_an_empty_or_cut_file_is_refused(tmp_path: Path) -> None:
    for n in (0, 5, 8):
        (tmp_path / "shard").write_bytes(bytes(n))
        with pytest.raises(IntegrityError, match="header is damaged"):
            shards.read_header(tmp_path / "shard")


def test_a_file_that_ends_in_its_header_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="ends inside its header of 999,999 bytes"):
        shards.read_header(raw(tmp_path / "shard", b"{}", length=999_999))
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer
    with pytest.raises(IntegrityError, match="is no regular file"):
        shards.read_header(tmp_path / "pipe")


def test_a_tensor_of_nothing_is_refused(tmp_path: Path) -> None:
    path = raw(tmp_path / "shard", json.dumps({"a": entry(shape=[2**62, 0], data_offsets=[0, 0])}).encode())
    with pytest.raises(IntegrityError, match=r"tensor 'a' of shape \[4611686018427387904, 0\] holds nothing"):
        shards.open_tensor(path, "a")


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0"])
def test_a_file_of_another_size_is_refused(tmp_path: Path, change: Any) -> None:
    path = write(tmp_path / "shard", {"a": np.ones((2, 3), np.float32)})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"has \d+ bytes; its header describes \d+"):
        shards.open_tensor(path, "a")


def test_a_missing_tensor_is_named_with_those_there(tmp_path: Path) -> None:
    path = write(tmp_path / "shard", {"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.float32)})
    with pytest.raises(IntegrityError, match=r"holds no tensor 'c'; it has a, b\."):
        shards.open_tensor(path, "c")
