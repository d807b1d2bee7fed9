"""Zoos for tests of the reader: the tiny one opened, and one of mixed layouts in many shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import build, grid, plan
from zoo_datasets.core import files
from zoo_datasets.format import spool
from zoo_datasets.zoo import Zoo, open_zoo

# Three architectures of two layouts (relu and tanh share one), batch norm and convolution among them.
MIXED = """\
zoo: weightzoo/mixed
source: {id: digits, train: 120, validation: 40, test: 60}
axes:
  architecture:
    - [{conv: 3, kernel: 3}, batch_norm, tanh, {max_pool: 2}, {conv: 2, kernel: 2}, relu, global_avg_pool, {linear: classes}]
    - [flatten, {linear: 5}, batch_norm, relu, dropout, {linear: classes}]
    - [flatten, {linear: 5}, batch_norm, gelu, dropout, {linear: classes}]
  subset: [full, {classes: [1, 4, 7]}]
replicates: 3
paired: [subset]
dropout: 0.3
training: {epochs: 2, batch_size: 32, lr: 1e-2}
snapshots: {epochs: [0, 1, 2]}
"""


@pytest.fixture(scope="session")
def zoo(tiny_zoo: Path) -> Zoo:
    """The tiny zoo: 16 models of one layout, 48 snapshots, three shards."""
    return open_zoo(tiny_zoo)


@pytest.fixture(scope="session")
def mixed_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """18 models of two layouts, 54 snapshots, in shards of a few rows each."""
    folder = tmp_path_factory.mktemp("mixed")
    recipe = folder / "mixed.yaml"
    recipe.write_text(MIXED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "MOST_SHARD_BYTES", 12_000)
        build.build(plan.plan(grid.load(recipe)), folder / "weightzoo" / "mixed", workers=0)
    return open_zoo(folder / "weightzoo" / "mixed")


@pytest.fixture(scope="session")
def vectors() -> Callable[[Zoo], list[np.ndarray]]:
    """All vectors of a zoo in the order of its snapshots, read the plain way with safetensors."""
    from safetensors.numpy import load_file

    def read(zoo: Zoo) -> list[np.ndarray]:
        shards: dict[str, Any] = {}
        found = []
        for row in zoo.snapshots.select(["shard", "tensor", "row"]).to_pylist():
            if row["shard"] not in shards:
                shards[row["shard"]] = load_file(files.inside(zoo.root, row["shard"]))
            found.append(shards[row["shard"]][row["tensor"]][row["row"]])
        return found

    return read
