"""The sealed tables: weights inline while they are small, ragged where layouts differ, encoded as the format says."""

from __future__ import annotations

import subprocess
import sys
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
from zoo_datasets.format import shards, spool, writer
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


def test_a_zoo_of_many_cohorts_and_layouts_is_sealed_and_read_with_few_open_files(tmp_path: Path) -> None:
    """A part of each cohort and a file of each layout stood open at once: of a thousand, all trained, nothing could be sealed."""
    recipe = tmp_path / "many.yaml"
    layers = ", ".join(f"[flatten, {{linear: {i}}}, tanh, {{linear: classes}}]" for i in range(1, 121))
    recipe.write_text(
        "zoo: weightzoo/many\nsource: {id: digits, train: 40, validation: 20, test: 20}\ntraining: {epochs: 1}\n"
        f"snapshots: {{epochs: [0, 1]}}\nreplicates: 1\nsplits: {{train: 1}}\naxes: {{architecture: [{layers}]}}\npaired: [architecture]\n"
    )
    code = (
        "import resource, sys, os\n"
        "from zoo_builder import grid, plan\nfrom zoo_builder.build import build\nfrom zoo_datasets import open_zoo\n"
        f"planned = plan.plan(grid.load({str(recipe)!r}), engine='native')\n"
        "most = len(os.listdir('/dev/fd')) + 100\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        f"build(planned, __import__('pathlib').Path({str(tmp_path / 'zoo')!r}), workers=0)\n"
        f"zoo = open_zoo({str(tmp_path / 'zoo')!r})\n"
        "print(len(zoo.weights[:]), len(zoo.manifest.layouts), len(planned.cohorts))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["240", "120", "120"], done.stderr[-2000:]


def test_layouts_beyond_what_a_header_holds_begin_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MOST_LAYOUTS", 3)
    made = spool.ShardSpool(tmp_path, "train", keeps_slots=False)
    places = [made.add(f"{i}", np.full((2, i + 1), i, np.float32), None) for i in (0, 1, 2, 1, 3, 4)]
    assert [[p[0] for p in place] for place in places] == [[0], [0], [0], [0], [1], [1]]
    first, second = made.finish()
    assert {n: v.shape for n, v in shards.open_tensors(first.weights).items()} == {
        "0": (2, 1),
        "1": (4, 2),
        "2": (2, 3),
    }
    assert {n: v[0, 0] for n, v in shards.open_tensors(second.weights).items()} == {"3": 3, "4": 4}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train-00000.weights", "train-00001.weights"]


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
