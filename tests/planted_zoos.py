"""Zoos of networks that were never trained, whose weights say some of their settings and not others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.format import contents, writer
from zoo_datasets.format.schema import Column
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.zoo import Zoo, open_zoo

FACTORS = (
    Column("width", pa.int64(), ""), Column("init_kind", pa.string(), ""), Column("optimizer", pa.string(), ""),
    Column("lr", pa.float64(), ""), Column("batch_size", pa.int64(), ""), Column("momentum", pa.float64(), ""),
    Column("note", pa.string(), ""), Column("number", pa.int64(), ""),
)  # fmt: skip
AXES: dict[str, Any] = {
    "width": ["4", "6"], "init_kind": ["constant", "normal"], "optimizer": ["adam", "momentum"], "lr": "sample",
    "batch_size": ["8", "16", "32"],
}  # fmt: skip
STEPS = [0, 10, 20, 30]
SIDES = ("train", "train", "train", "validation", "test", "test")


def planted(
    root: Path,
    n: int = 60,
    seed: int = 0,
    sides: Sequence[str] = SIDES,
    parents: Zoo | None = None,
    ids: int | None = None,
    numbers: Sequence[int | None] | None = None,
    **changes: Any,
) -> Zoo:
    """Readable at the start: `width` (the layout) and `init_kind` (the spread). Readable later: `optimizer` (the mean drifts)
    and `lr` (the spread grows with it). Never: `batch_size`. Accuracy tells nothing.

    Networks of one `seed` are the same, under other names with other `ids`. With `parents`, such a zoo, each network goes on from one of theirs, in the same layout, with an optimizer of its own.
    """
    draw, named = np.random.default_rng(seed), seed if ids is None else ids
    made = {
        w: build_architecture(["flatten", {"linear": w}, "activation", {"linear": "classes"}], (1, 4, 4), 3, "relu")
        for w in (4, 6)
    }
    of_side: dict[str, tuple[list[dict[str, Any]], list[np.ndarray]]] = {s: ([], []) for s in dict.fromkeys(sides)}
    for i in range(n):
        width, kind = (4, 6)[draw.integers(2)], ("constant", "normal")[draw.integers(2)]
        optimizer, lr = ("adam", "momentum")[draw.integers(2)], float(10 ** draw.uniform(-3, -1))
        parent = None if parents is None else parents.row(f"{0:08x}{i:08x}")
        if parent is not None:
            width = parent["width"]
        architecture = made[width]
        start = draw.normal(0, {"constant": 0.1, "normal": 1.0}[kind], architecture.n_params)
        if parents is not None and parent is not None:
            start = parents.vector(parent["model_id"])
        drift = {"adam": 1.0, "momentum": -1.0}[optimizer]
        spread = draw.normal(0, 1, architecture.n_params) * (3 + np.log10(lr))
        weights = np.stack([start + (step / 30) * (drift + spread) for step in STEPS]).astype(np.float32)
        row = {
            "model_id": f"{named:08x}{i:08x}", "init_group": f"g{named}-{i}", "layout": architecture.layout_id,
            "architecture_id": architecture.id, "n_snapshots": len(STEPS), "width": width, "init_kind": kind,
            "optimizer": optimizer, "lr": lr, "batch_size": int(draw.choice([8, 16, 32])),
            "momentum": 0.9 if optimizer == "momentum" else None, "note": "same",
            "test_accuracy": float(draw.uniform(0.2, 0.9)), "step": STEPS[-1],
        } | changes  # fmt: skip
        if numbers is not None:
            row["number"] = numbers[i % len(numbers)]
        if parent is not None:
            own = {
                "init_group": parent["init_group"],
                "parent_id": parent["model_id"],
                "lineage_root": parent["model_id"],
            }
            row |= own | {"init_kind": parent["init_kind"]}
        rows, vectors = of_side[sides[i % len(sides)]]
        rows.append(row)
        vectors.append(weights)
    about = contents.About(
        f"weightzoo/{root.name}", {a.layout_id: a.layout for a in made.values()},
        {a.id: {**a.to_json(), "layout": a.layout_id} for a in made.values()},
        tuple(dataclasses.replace(c, type=pa.int64()) if isinstance(changes.get(c.name), int) else c for c in FACTORS
              if c.name != "number" or numbers is not None),
        {name: levels for name, levels in AXES.items() if name not in changes}, lineage=parents is not None,
    )  # fmt: skip
    parts = []
    for side, (rows, vectors) in of_side.items():
        if rows:
            accuracies = np.repeat([r["test_accuracy"] for r in rows], len(STEPS))
            snapshots = {"step": np.tile(STEPS, len(rows)), "test_accuracy": accuracies}
            table = pa.Table.from_pylist(
                [{k: v for k, v in r.items() if k not in ("test_accuracy", "step")} for r in rows]
            )
            parts.append(contents.Models(side, table, pa.table(snapshots), vectors))
    writer.write(root, about, parts)
    return open_zoo(root)
