"""The sealed tables: weights inline while they are small, ragged where layouts differ, encoded as the format says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo_builder import verify
from zoo_builder.build import build, committed
from zoo_builder.plan import Plan
from zoo_builder.sealing import parts, seal
from zoo_datasets import open_zoo
from zoo_datasets.errors import BuildError
from zoo_datasets.format import writer
from zoo_datasets.format.paths import ZooPaths


def test_weights_of_one_layout_are_a_fixed_size_list_without_nulls(tiny_zoo: Path) -> None:
    table = pq.read_table(ZooPaths(tiny_zoo).table("models", "train"))
    kind = table.schema.field("weights").type
    assert pa.types.is_fixed_size_list(kind)
    assert kind.value_type == pa.float32()
    assert table["weights"].null_count == 0


def test_weights_are_stored_plain_and_other_columns_compressed(tiny_zoo: Path) -> None:
    metadata = pq.ParquetFile(ZooPaths(tiny_zoo).table("models", "train")).metadata.row_group(0)
    columns = {metadata.column(i).path_in_schema: metadata.column(i) for i in range(metadata.num_columns)}
    weights = columns.pop("weights.list.element")
    assert weights.compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in weights.encodings
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert all(c.has_offset_index for c in columns.values())


@pytest.mark.slow
def test_mixed_layouts_are_ragged_and_every_row_is_its_own(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    layers = "{architecture: [mlp, [flatten, {linear: classes}]]}"
    planned = make_plan("architecture=null", f"axes={layers}", "paired=[]")
    paths = build(planned, tmp_path / "zoo", workers=0)
    assert verify.verify(paths.root).problems == []
    zoo = open_zoo(paths.root)
    for split in ("train", "test"):
        table = pq.read_table(paths.table("models", split))
        assert table.schema.field("weights").type == pa.list_(pa.float32())
        for row in table.select(["model_id", "n_params", "weights"]).to_pylist():
            stored = zoo.vector(row["model_id"])
            assert len(row["weights"]) == row["n_params"] == len(stored)
            assert (np.array(row["weights"], np.float32) == stored).all()


@pytest.mark.slow
def test_large_zoos_keep_their_weights_in_the_shards_alone(
    make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_INLINE_BYTES", 1000)
    paths = build(make_plan(), tmp_path / "zoo", workers=0)
    assert verify.verify(paths.root).problems == []
    assert "weights" not in pq.read_schema(paths.table("models", "train")).names
    assert "(in `weights/`)" in paths.card.read_text()


@pytest.mark.slow
def test_parts_of_another_layout_are_set_aside_and_trained_again(
    tiny_plan: Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise BuildError("before sealing")

    out = tmp_path / "zoo"
    with monkeypatch.context() as patch:
        patch.setattr(parts, "LAYOUT", parts.LAYOUT - 1)
        patch.setattr(seal, "seal", stop)
        with pytest.raises(BuildError, match="before sealing"):
            build(tiny_plan, out, workers=0)
    paths = ZooPaths(out)
    assert len(list(paths.commits.iterdir())) == len(tiny_plan.cohorts)
    assert committed(paths, tiny_plan.cohorts[0]) is None
    assert len(list(paths.damaged.iterdir())) == 1
    build(tiny_plan, out, workers=0)
    assert tree_hash(out) == tree_hash(tiny_zoo)


def test_rows_come_in_plan_order_whatever_their_cohorts(tiny_plan: Plan, tiny_zoo: Path) -> None:
    rows = open_zoo(tiny_zoo).models.to_pylist()
    for split in ("train", "validation", "test"):
        assert [r["model_id"] for r in rows if r["split"] == split] == [
            r.id for r in tiny_plan.runs if r.split == split
        ]
    assert [tiny_plan.runs[r["plan_index"]].id for r in rows] == [r["model_id"] for r in rows]
