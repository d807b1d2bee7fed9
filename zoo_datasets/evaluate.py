"""Snapshots of a zoo → their metrics, measured again, beside the stored ones.

In:  a `Zoo`; ids, or all its models; their own source, or another that is named.
Out: an `Evaluation`: a table with a row per snapshot, and the largest differences.

Models are grouped by architecture and source and run by the C++ kernels (`kernels.py`) or
batched (`forward.py`), without the builder. A stored metric came from the engine that trained the model: an image whose two
best logits agree in six digits may fall to the other side here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from zoo_datasets import kernels, sources
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.forward import Forward
from zoo_datasets.models import Architecture
from zoo_datasets.rows import spec_of, subset_of
from zoo_datasets.sources import Source, SourceSpec
from zoo_datasets.zoo import Zoo

PARTS = ("test", "validation")
MODELS_AT_ONCE = 256  # whose logits are in memory together: 100 MB on 10,000 images of 10 classes


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. `table` has model_id, step, loss, accuracy, correct_per_class,
    count_per_class, and `stored_…` and `difference_…` of loss and accuracy (null for a foreign source)."""

    table: pa.Table
    part: str
    n_images: int

    def largest(self, metric: str = "accuracy") -> float | None:
        """The largest absolute difference from the stored metric; None where there is none to compare."""
        found = self.table[f"difference_{metric}"].drop_null().to_numpy()
        return float(np.abs(found).max()) if len(found) else None

    def __repr__(self) -> str:
        worst = {m: self.largest(m) for m in ("accuracy", "loss")}
        said = ", ".join(f"{m} {v:.2g}" for m, v in worst.items() if v is not None)
        mean = np.nanmean(self.table["accuracy"].to_numpy()) if len(self.table) else float("nan")
        return (
            f"Evaluation of {len(self.table):,} snapshots on {self.n_images:,} {self.part} images: mean accuracy "
            f"{mean:.4f}; "
            + (f"largest difference from the stored {said}" if said else "nothing stored to compare with")
        )


def evaluate(
    zoo: Zoo, ids: Sequence[str] | None = None, source: str | SourceSpec | Source | None = None,
    data: str | Path | None = None, *, part: str = "test", steps: str = "last", device: str = "cpu",
) -> Evaluation:  # fmt: skip
    """Loss and accuracy of models on a part of their own source, or of another one.

    `ids` (default: all in the selection) at their last selected snapshot, or with
    `steps="all"` at every one. `data` names the folder of local sources, as $ZOO_DATA.

    Raises ZooNotFoundError for an unknown id or source, ZooError where images do not fit.
    """
    if part not in PARTS:
        raise ZooError(unknown("part", part, PARTS, "evaluate"))
    if steps not in ("last", "all"):
        raise ZooError(unknown("steps", steps, ("last", "all"), "evaluate"))
    chosen = zoo if steps == "all" else zoo.final()
    if ids is not None:
        places = {m: [] for m in ids} if not isinstance(ids, str) else {ids: []}
        for position, model in enumerate(chosen.column("model_id").to_pylist()):
            if model in places:
                places[model].append(position)
        for model, found in places.items():
            if not found:
                zoo.position(model)  # says what is wrong
        chosen = chosen.take(np.array([p for found in places.values() for p in found], np.int64))
    own = source is None
    foreign = None if own else _foreign(source, data)
    rows: list[dict[str, Any] | None] = [None] * len(chosen)
    scaled: dict[SourceSpec, np.ndarray] = {}
    n_images = 0
    for positions, row in _groups(chosen, own):
        given = foreign or zoo.source(row["model_id"], data)
        images, labels = _images(given, part, row, zoo, scaled)
        n_images = max(n_images, len(labels))
        logits = logits_of(zoo.architecture(row["model_id"]), images, device)
        right = torch.from_numpy(labels)
        for start in range(0, len(positions), MODELS_AT_ONCE):
            mine = positions[start : start + MODELS_AT_ONCE]
            for position, one in zip(mine, logits(chosen.weights[mine]), strict=True):
                rows[position] = score(one, right, row["loss"])
    return Evaluation(_table(chosen, rows, part, own), part, n_images)


def logits_of(
    architecture: Architecture, images: np.ndarray, device: str = "cpu"
) -> Callable[[np.ndarray], torch.Tensor]:
    """The function weights [m, P] → logits (m, n, C) on these images (n, …).

    By the C++ kernels where they are the fastest; else by torch, batched. On a CPU as many
    models go side by side as torch has threads.
    """
    if device == "cpu" and not (kernels.available() or kernels.supported(architecture) or kernels.slower(architecture)):
        threads = torch.get_num_threads()
        return lambda weights: torch.from_numpy(kernels.logits(architecture, weights, images, threads))
    forward = Forward(architecture, device)
    shown = torch.from_numpy(images).to(forward.device)
    return lambda weights: forward.logits(weights, shown)


@torch.inference_mode()
def score(logits: torch.Tensor, labels: torch.Tensor, loss: str) -> dict[str, Any]:
    """Loss, accuracy and counts per class of one model: logits (n, C), labels (n,).

    As `scoring.score`, whose fixed order of sums costs more than the network does.
    """
    n, n_classes = logits.shape
    count = torch.bincount(labels, minlength=n_classes)
    if not n:
        return {"loss": None, "accuracy": None, "correct_per_class": count.tolist(), "count_per_class": count.tolist()}
    right = (logits.argmax(1) == labels) & torch.isfinite(logits).all(1)
    correct = torch.bincount(labels[right], minlength=n_classes)
    if loss == "mse":
        each = (logits - F.one_hot(labels, n_classes)).double().square().mean(1)
    else:
        each = F.cross_entropy(logits, labels, reduction="none").double()
    mean = float(each.mean())
    return {
        "loss": None if np.isnan(mean) else mean,
        "accuracy": int(correct.sum()) / n,
        "correct_per_class": correct.tolist(),
        "count_per_class": count.tolist(),
    }


def _groups(zoo: Zoo, own: bool) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Positions of snapshots of one architecture, source and head, with the row of one of their models."""
    ids = zoo.column("model_id").to_pylist()
    models = {r["model_id"]: r for r in zoo.models.to_pylist()}
    groups: dict[Any, list[int]] = {}
    for position, model in enumerate(ids):
        row = models[model]
        head = tuple(row["subset_classes"] or ()) if row["subset_relabel"] else ()
        groups.setdefault((row["architecture_id"], spec_of(row) if own else None, head, row["loss"]), []).append(
            position
        )
    return [(np.array(at), models[ids[at[0]]]) for at in groups.values()]


def _foreign(source: Any, data: str | Path | None) -> Source:
    if isinstance(source, Source):
        return source
    return sources.load(SourceSpec(id=source) if isinstance(source, str) else source, data)


def _images(
    source: Source, part: str, row: dict[str, Any], zoo: Zoo, scaled: dict[SourceSpec, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, …) and labels (n,) as the model's head numbers them; those it has no class for are left out."""
    architecture = zoo.architecture(row["model_id"])
    if source.input_shape != architecture.input_shape:
        raise ZooError(
            f"Source {source.spec.id!r} has images of shape {source.input_shape}; model {row['model_id']} takes "
            f"{architecture.input_shape}. Ask for it with SourceSpec(id={source.spec.id!r}, resize=…, channels=…)."
        )
    chosen = getattr(source, part)
    labels = sources.relabeled(chosen.labels, subset_of(row))
    known = (labels >= 0) & (labels < architecture.n_outputs)
    if source.spec not in scaled:  # groups that differ in their architecture alone share their images
        scaled.clear()
        scaled[source.spec] = source.scaled(chosen.images)
    images = scaled[source.spec]
    return (images, labels) if known.all() else (images[known], labels[known])


def _table(zoo: Zoo, rows: list[Any], part: str, own: bool) -> pa.Table:
    table = zoo.table(["model_id", "step"])
    kinds = {
        "loss": pa.float64(),
        "accuracy": pa.float64(),
        "correct_per_class": pa.list_(pa.int64()),
        "count_per_class": pa.list_(pa.int64()),
    }
    for name, kind in kinds.items():
        table = table.append_column(name, pa.array([r[name] for r in rows], kind))
    for name in ("loss", "accuracy"):
        stored = zoo.column(f"{part}_{name}").to_pylist() if own else [None] * len(rows)
        gaps = [None if None in (r[name], s) else r[name] - s for r, s in zip(rows, stored, strict=True)]
        table = table.append_column(f"stored_{name}", pa.array(stored, pa.float64()))
        table = table.append_column(f"difference_{name}", pa.array(gaps, pa.float64()))
    return table
