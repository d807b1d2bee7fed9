"""A row of `models` → the source its model learned, and the data axes that spoilt it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zoo_datasets.sources.examples import Subset
from zoo_datasets.sources.spec import SourceSpec


def spec_of(row: Mapping[str, Any]) -> SourceSpec:
    """The source that a row of `models` names."""
    own = {
        "id": row["source"], "config": row["source_config"], "train": row["source_train"], "test": row["source_test"],
        "validation": row["source_validation"], "mean": row["source_mean"], "std": row["source_std"],
        **{k: row[k] for k in ("scale", "resize", "channels", "image_column", "label_column")},
        "features": row.get("source_features"), "split_seed": row.get("source_split_seed"),
    }  # fmt: skip
    return SourceSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in own.items()})


def subset_of(row: Mapping[str, Any]) -> Subset:
    """The data axes that a row of `models` names."""
    own = {f.name: row.get(f.name, row.get(f"subset_{f.name}")) for f in dataclasses.fields(Subset)}
    return Subset(**{k: tuple(v) if isinstance(v, list) else v for k, v in own.items() if v is not None})
