"""Snapshots of a zoo → their metrics, measured again, beside the stored ones.

In:  a `Zoo`; ids, or all its models; their own source, or another that is named.
Out: an `Evaluation`: a table with a row per snapshot, and the largest differences.

Models are grouped by architecture and images, and run by the C++ kernels (`kernels.py`) or
batched (`forward.py`), without the builder. A stored metric came from the engine that trained
the model: an image whose two best logits agree in six digits may fall to the other side here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from zoo_datasets import sources
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.networks import scoring
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.logits import logits_of
from zoo_datasets.reading.selection import Selection
from zoo_datasets.sources import Source, SourceSpec, Subset
from zoo_datasets.sources.rows import spec_of, subset_of

PARTS = ("train", "validation", "test")
LOGITS_AT_ONCE = 2**25  # float32 in memory together: 335 models on 10,000 images of 10 classes

_F, _COUNTS = pa.float64(), pa.list_(pa.int64())
SCORES = {"loss": _F, "accuracy": _F, "correct_per_class": _COUNTS, "count_per_class": _COUNTS}
# Metrics of a part beyond its scores, as they are named in the zoo.
MORE = {"train": ("train_loss_clean", "train_accuracy_clean"), "validation": (), "test": ("attack_success",)}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. `table` has model_id, step, loss, accuracy, correct_per_class and
    count_per_class; on its own source also train_loss_clean and train_accuracy_clean, or
    attack_success of the test part; and of each a `stored_…` and a `difference_…`, which for
    counts is the largest of any class (null for a foreign source)."""

    table: pa.Table
    part: str
    n_images: int  # of a model's own training images, the most

    def largest(self, metric: str = "accuracy") -> float | None:
        """The largest absolute difference from the stored metric; None where there is none to compare. Raises ZooError."""
        name = f"difference_{metric}"
        if name not in self.table.column_names:
            known = [n.removeprefix("difference_") for n in self.table.column_names if n.startswith("difference_")]
            raise ZooError(unknown("metric", metric, known, f"the evaluation on {self.part} images"))
        found = self.table[name].drop_null().to_numpy()
        return float(np.abs(found).max()) if len(found) else None

    def __repr__(self) -> str:
        worst = {m: self.largest(m) for m in ("accuracy", "loss")}
        said = ", ".join(f"{m} {v:.2g}" for m, v in worst.items() if v is not None)
        known = self.table["accuracy"].drop_null().to_numpy()
        mean = known.mean() if len(known) else float("nan")
        return (
            f"Evaluation of {len(self.table):,} snapshots on {self.n_images:,} {self.part} images: mean accuracy "
            f"{mean:.4f}; "
            + (f"largest difference from the stored {said}" if said else "nothing stored to compare with")
        )


def evaluate(
    zoo: Selection, ids: Sequence[str] | None = None, source: str | SourceSpec | Source | None = None,
    data: str | Path | None = None, *, part: str = "test", steps: str = "last", device: str = "cpu",
) -> Evaluation:  # fmt: skip
    """Metrics of models on a part of their own source, or of another one.

    `train` is each model's own training images, spoilt as it saw them, with the labels that it
    was given; of another source, all of its training images. `ids` (default: all in the
    selection) at their last selected snapshot, or with `steps="all"` at every one. `data` names
    the folder of local sources, as $ZOO_DATA.

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
    rows: list[dict[str, Any]] = [{} for _ in range(len(chosen))]
    scaled: dict[Any, np.ndarray] = {}
    n_images = 0
    for positions, row in _groups(chosen, part, own):
        given = foreign or zoo.source(row["model_id"], data)
        architecture = zoo.architecture(row["model_id"]).built()
        _check_fits(given, architecture, row["model_id"])
        for shown in _shown(given, part, architecture, positions, own, scaled):
            n_images = max(n_images, 0 if shown.target is not None else len(shown.images))
            logits = logits_of(architecture, shown.images, device)
            at_once = max(1, LOGITS_AT_ONCE // max(1, len(shown.images) * architecture.n_outputs))
            for start in range(0, len(shown.positions), at_once):
                mine = shown.positions[start : start + at_once]
                for position, one in zip(mine, logits(chosen.weights[mine]), strict=True):
                    rows[position] |= _measured(one, shown, position, row["loss"])
    return Evaluation(_table(chosen, rows, part, own), part, n_images)


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
        "loss": mean if np.isfinite(mean) else None,
        "accuracy": int(correct.sum()) / n,
        "correct_per_class": correct.tolist(),
        "count_per_class": count.tolist(),
    }


class _Model(NamedTuple):
    """One model of a group: the positions of its snapshots, its data axes, and the key of their draws."""

    positions: list[int]
    subset: Subset
    key: str


class _Shown(NamedTuple):
    """Images (n, …) float32 that snapshots at `positions` are shown, and what they are compared with."""

    images: np.ndarray
    positions: np.ndarray
    # Of a position: labels (n,) int64 as the head numbers them; of training images as learned, and the true ones.
    labels: Callable[[int], tuple[np.ndarray, ...]]
    target: int | None = None  # the images carry the trigger, which means this class


def _groups(zoo: Selection, part: str, own: bool) -> list[tuple[list[_Model], dict[str, Any]]]:
    """Models of one architecture and source that are shown the same images, with the row of one of them."""
    positions: dict[str, list[int]] = {}
    for position, model in enumerate(zoo.column("model_id").to_pylist()):
        positions.setdefault(model, []).append(position)
    rows = {r["model_id"]: r for r in zoo.models.to_pylist()}
    groups: dict[Any, tuple[list[_Model], dict[str, Any]]] = {}
    for model, at in positions.items():
        row = rows[model]
        one = _Model(at, subset_of(row), row["subset_key"])
        same = (row["architecture_id"], row["loss"], spec_of(row) if own else None, _images_key(one, part, own))
        groups.setdefault(same, ([], row))[0].append(one)
    return list(groups.values())


def _images_key(model: _Model, part: str, own: bool) -> Any:
    """Equal for models whose images of a part are the same, in the same order; labels may differ."""
    subset = model.subset
    if part == "train" and own:
        drawn = subset.frac < 1 or subset.trigger_frac > 0
        return dataclasses.replace(subset, label_noise_frac=0.0), model.key if drawn else None
    return subset.classes if subset.relabel else None


def _shown(
    source: Source, part: str, architecture: Architecture, models: list[_Model], own: bool, scaled: dict[Any, np.ndarray]
) -> Iterator[_Shown]:  # fmt: skip
    """What the models of one group are shown: the images of the part, and with a trigger those of test stamped.

    `scaled` keeps the last images, which groups that differ in their architecture alone share.
    """
    everyone = np.array([p for m in models for p in m.positions])
    first = models[0].subset
    key = (source.spec, part, _images_key(models[0], part, own))
    if part == "train" and own:
        model_at = {p: m for m in models for p in m.positions}

        @functools.lru_cache(maxsize=1)  # snapshots of one model follow each other
        def examples(subset: Subset, key: str) -> sources.Examples:
            return sources.training_examples(source.train.labels, source.n_classes, subset, key)

        def learned(position: int) -> tuple[np.ndarray, ...]:
            own = examples(model_at[position].subset, model_at[position].key)
            return own.labels, own.clean_labels

        saw = examples(first, models[0].key)
        images = _kept(scaled, key, lambda: source.scaled(sources.training_images(source, first, saw)))
        yield _Shown(images, everyone, learned)
        return
    chosen = getattr(source, part)
    labels = sources.relabeled(chosen.labels, first)
    known = (labels >= 0) & (labels < architecture.n_outputs)  # the head has no class for others
    raw, labels = chosen.images[known], labels[known]
    images = _kept(scaled, (*key, architecture.n_outputs), lambda: source.scaled(raw))
    yield _Shown(images, everyone, lambda position: (labels,))
    if part != "test" or not own:
        return
    triggers: dict[Subset, list[int]] = {}
    for m in models:
        if m.subset.trigger_frac:
            alike = dataclasses.replace(m.subset, frac=1.0, label_noise_frac=0.0, rotate_degrees=0.0, trigger_frac=1.0)
            triggers.setdefault(alike, []).extend(m.positions)
    for subset, positions in triggers.items():
        target = int(sources.relabeled(np.array([subset.trigger_target]), subset)[0])
        stamped = source.scaled(sources.stamp(raw[labels != target], subset, source.peak))
        yield _Shown(stamped, np.array(positions), lambda position: (), target)


def _kept(scaled: dict[Any, np.ndarray], key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
    if key not in scaled:
        scaled.clear()
        scaled[key] = make()
    return scaled[key]


def _measured(logits: torch.Tensor, shown: _Shown, position: int, loss: str) -> dict[str, Any]:
    """The metrics of one snapshot from its logits (n, C), by their names in the table."""
    if shown.target is not None:
        return {"attack_success": scoring.attack_success(logits.numpy(), shown.target)}
    labels, *clean = shown.labels(position)
    found = score(logits, torch.from_numpy(labels), loss)
    for true in clean:
        again = score(logits, torch.from_numpy(true), loss)
        found |= {"train_loss_clean": again["loss"], "train_accuracy_clean": again["accuracy"]}
    return found


def _foreign(source: Any, data: str | Path | None) -> Source:
    if isinstance(source, Source):
        return source
    return sources.load(SourceSpec(id=source) if isinstance(source, str) else source, data)


def _check_fits(source: Source, architecture: Architecture, model: str) -> None:
    if source.input_shape != architecture.input_shape:
        raise ZooError(
            f"Source {source.spec.id!r} has images of shape {source.input_shape}; model {model} takes "
            f"{architecture.input_shape}. Ask for it with SourceSpec(id={source.spec.id!r}, resize=…, channels=…)."
        )


def _table(zoo: Selection, rows: list[dict[str, Any]], part: str, own: bool) -> pa.Table:
    kinds = SCORES | (dict.fromkeys(MORE[part], _F) if own else {})
    columns = {name: [r.get(name) for r in rows] for name in kinds}
    table = zoo.table(["model_id", "step"])
    for name, kind in kinds.items():
        table = table.append_column(name, pa.array(columns[name], kind))
    for name, kind in kinds.items():
        stored = f"{part}_{name}" if name in SCORES else name
        before = zoo.column(stored).to_pylist() if own else [None] * len(rows)
        gaps = [_gap(now, then) for now, then in zip(columns[name], before, strict=True)]
        table = table.append_column(f"stored_{name}", pa.array(before, kind))
        table = table.append_column(f"difference_{name}", pa.array(gaps, _F if kind == _F else pa.int64()))
    return table


def _gap(now: Any, then: Any) -> Any:
    """Now − then; of counts per class the largest difference of one class; None where either is missing."""
    if now is None or then is None:
        return None
    if not isinstance(now, list):
        return now - then
    wide = max(len(now), len(then))
    return max((abs(a - b) for a, b in zip(*(v + [0] * (wide - len(v)) for v in (now, then)), strict=True)), default=0)
