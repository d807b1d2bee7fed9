"""Somebody who opens a zoo, changes its models and seals them anew with our own writer: every checksum is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_builder.training import fingerprint
from zoo_datasets.core import records
from zoo_datasets.format import contents, shards, writer
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.format.schema import Column
from zoo_datasets.format.tables import read_table

Model = dict[str, Any]  # a row of `models`, and under `snapshots` its rows there, each with its weights
Change = Callable[[list[Model]], Any]
KEPT = ("identity", "recipe_sha256", "splits", "layer_lists", "sources", "fingerprints")


def opened(root: Path) -> list[Model]:
    manifest = Manifest.read(root)
    models = read_table(root, manifest, "models").to_pylist()
    for model in models:
        model["snapshots"] = []
    by_id = {m["model_id"]: m for m in models}
    for row in read_table(root, manifest, "snapshots").to_pylist():
        row["weights"] = np.array(shards.open_tensor(root / row["shard"], row["tensor"])[row["row"]])
        by_id[row["model_id"]]["snapshots"].append(row)
    return models


def sealed(source: Path, out: Path, models: list[Model], **parts: Any) -> Path:
    """The models as a zoo with every checksum, count and digest right; `parts` of the manifest are replaced."""
    manifest = Manifest.read(source)
    full = read_table(source, manifest, "models").schema
    columns = [Column(name, full.field(name).type, "") for name in manifest.factors]
    grid = parts.pop("grid", (source / "grid.yaml").read_text())
    about = contents.About(
        zoo=manifest.zoo, layouts=manifest.layouts, architectures=records.encode(manifest.architectures), factors=columns,
        axes=records.encode(dict(manifest.axes)), texts={"grid.yaml": grid} if grid else {},
    )  # fmt: skip
    given = {c.name: c.type for c in about.snapshot_columns}
    derived = ("model_id", "split", "shard", "tensor", "row", "weights_sha256", *about.axes)

    def some() -> Iterator[contents.Models]:
        for model in sorted(models, key=lambda m: SPLITS.index(m["split"])):
            row = {k: [v] for k, v in model.items() if k not in ("snapshots", "split", *contents.PUBLISHED_COLUMNS)}
            row["n_snapshots"] = [len(model["snapshots"])]
            names = {c.name: c.type for c in about.model_columns}
            table = pa.table({k: pa.array(v, names[k]) for k, v in row.items()})
            rows = {k: pa.array([s[k] for s in model["snapshots"]], t) for k, t in given.items() if k not in derived}
            yield contents.Models(
                model["split"], table, pa.table(rows), [np.stack([s["weights"] for s in model["snapshots"]])]
            )

    def further(tables: contents.Tables) -> dict[str, Any]:
        value = {k: records.encode(getattr(manifest, k)) for k in KEPT}
        return value | {"population": fingerprint.population(tables["models"])} | parts

    writer.write(out, about, some(), further)
    return out


def pair_of_one_cohort(models: list[Model]) -> tuple[Model, Model]:
    first = models[0]
    return first, next(m for m in models[1:] if m["cohort_id"] == first["cohort_id"])


def perfect(model: Model) -> None:
    """All test images right, with counts and gap that agree."""
    for s in model["snapshots"]:
        s.update(
            test_correct_per_class=list(s["test_count_per_class"]),
            test_accuracy=1.0,
            gap_accuracy=s["train_accuracy"] - 1.0,
        )


def swap_last(models: list[Model]) -> None:
    a, b = pair_of_one_cohort(models)
    a, b = a["snapshots"][-1], b["snapshots"][-1]
    a["weights"], b["weights"] = b["weights"], a["weights"]
