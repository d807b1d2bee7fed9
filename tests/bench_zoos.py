"""Recipes of benchmarks' tests: 64 networks on `digits`, whose activation and rate differ, and how one is built."""

from __future__ import annotations

from pathlib import Path

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets.zoo import Zoo, open_zoo

RECIPE = """\
zoo: weightzoo/bench
source: {id: digits, train: 200, validation: 60, test: 300}
architecture: [flatten, {linear: 6}, activation, {linear: classes}]
axes:
  activation: [tanh, relu]
  lr: [1e-2, 1e-4]
replicates: 16
training: {epochs: 2, batch_size: 32}
snapshots: {epochs: [0, 2]}
"""
OTHER = RECIPE.replace("weightzoo/bench", "weightzoo/other").replace("train: 200", "train: 220")


def built(recipe: str, folder: Path) -> Zoo:
    """The zoo of a recipe, in a folder of the zoo's own name."""
    (path := folder.with_suffix(".yaml")).parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe)
    build(plan.plan(grid.load(path)), folder, workers=0)
    return open_zoo(folder)
