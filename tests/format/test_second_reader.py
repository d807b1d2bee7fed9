"""A reader made from docs/format.md alone: it imports nothing of ours, and agrees with every byte of our zoos."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "weightzoo" / "golden"
SPLITS = ("train", "validation", "test")


# ── the reader ──


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_table(root: Path, manifest: dict[str, Any], config: str) -> pa.Table:
    names = sorted(f["path"] for f in manifest["files"] if f["path"].startswith(f"data/{config}/"))
    names.sort(key=lambda n: SPLITS.index(n.split("/")[-1].split("-")[0]))
    return pa.concat_tables(pq.ParquetFile(root / n).read() for n in names).combine_chunks()


def read_shard(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    tensors, at = {}, 8 + length
    assert at % 8 == 0
    for name, entry in json.loads(data[8:at]).items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[at + begin : at + end], "<f4").reshape(entry["shape"])
    assert at + sum(4 * t.size for t in tensors.values()) == len(data)
    return tensors


def bits(values: list[bool]) -> bytes:
    return np.packbits(np.array(values, bool)).tobytes()


def content(kind: pa.DataType, values: list[Any]) -> bytes:
    held = [v for v in values if v is not None]
    result = bits([v is not None for v in values])
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = np.array([0 if v is None else len(v) for v in values], "<i8").tobytes()
        return result + lengths + content(kind.value_type, [x for v in held for x in v])
    if pa.types.is_string(kind):
        texts = [v.encode() for v in held]
        return result + np.array([len(t) for t in texts], "<i8").tobytes() + b"".join(texts)
    if pa.types.is_boolean(kind):
        return result + bits([bool(v) for v in values])
    if pa.types.is_null(kind):
        return result
    return (
        result
        + np.array([0 if v is None else v for v in values], {"int64": "<i8", "double": "<f8"}[str(kind)]).tobytes()
    )


def rows_digest(table: pa.Table) -> str:
    columns = sorted(c for c in table.column_names if c != "weights")
    return sha(b"".join(f"{c}:{len(table)}\n".encode() + content(table[c].type, table[c].to_pylist()) for c in columns))


# ── what it finds ──


@pytest.fixture(params=["golden", "tiny"])
def root(request: pytest.FixtureRequest) -> Path:
    return GOLDEN if request.param == "golden" else request.getfixturevalue("tiny_zoo")


def test_a_reader_made_from_the_page_agrees_with_the_zoo(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_bytes())
    assert manifest["format_version"] == 1
    for file in manifest["files"]:
        data = (root / file["path"]).read_bytes()
        assert (len(data), sha(data)) == (file["bytes"], file["sha256"])
    if stated := manifest.pop("manifest_sha256", None):
        assert stated == sha(canonical(manifest))

    for name, entries in manifest["layouts"].items():
        assert name == sha(canonical([[e["name"], e["shape"], e["role"]] for e in entries]))[:16]
        ends = [e["offset"] + math.prod(e["shape"]) for e in entries]
        assert [e["offset"] for e in entries] == [0, *ends[:-1]]
    for name, graph in manifest["architectures"].items():
        assert name == sha(canonical({k: v for k, v in graph.items() if k != "layout"}))[:16]

    models, snapshots = (read_table(root, manifest, c) for c in ("models", "snapshots"))
    for config, table in (("models", models), ("snapshots", snapshots)):
        assert rows_digest(table) == manifest["digests"][f"{config}_rows"]
        assert [table["split"].to_pylist().count(s) for s in SPLITS] == [
            manifest["counts"][config].get(s, 0) for s in SPLITS
        ]
    assert set(manifest["factors"]) <= set(models.column_names)
    assert set(manifest["axes"]) <= set(snapshots.column_names)
    assert sha(canonical(snapshots["weights_sha256"].to_pylist())) == manifest["digests"]["weights"]

    shards = {n: read_shard(root / n) for n in {f["path"] for f in manifest["files"]} if n.startswith("weights/")}
    last, next_row = {}, dict.fromkeys(((s, t) for s, tensors in shards.items() for t in tensors), 0)
    for row in snapshots.to_pylist():
        place = row["shard"], row["tensor"]
        assert row["row"] == next_row[place]
        next_row[place] += 1
        weights = shards[row["shard"]][row["tensor"]][row["row"]]
        assert sha(weights.tobytes()) == row["weights_sha256"]
        last[row["model_id"]] = row["step"], weights
    assert next_row == {(s, t): len(tensor) for s, tensors in shards.items() for t, tensor in tensors.items()}

    order = [(SPLITS.index(m["split"]), m["plan_index"]) for m in models.to_pylist()]
    assert order == sorted(order)
    assert models["model_id"].to_pylist() == list(last)
    for row in models.to_pylist():
        step, weights = last[row["model_id"]]
        assert (row["step"], row["n_params"]) == (step, len(weights))
        np.testing.assert_array_equal(np.array(row["weights"], np.float32), weights)
