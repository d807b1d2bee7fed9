"""Snapshots of a zoo → their metrics, measured again, beside the stored ones.

In:  a `Selection`; ids, or all its models; their own source, or another that is named.
Out: an `Evaluation`: a table with a row per snapshot, and the largest differences.

Models are grouped by architecture and images, and run by the C++ kernels (`networks/kernels.py`) or
batched (`networks/forward.py`), without the builder; metrics are those of `networks/scoring.py`, as stored. Of the
native engine the kernels give the stored bits; of another, an image whose two best logits agree
in six digits may fall to the other side here. Exact sums cost 4 ms a model and 10,000 images.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from zoo_datasets import sources
from zoo_datasets.core import meters, notebook
from zoo_datasets.errors import ZooError, alternatives, unknown
from zoo_datasets.format import schema
from zoo_datasets.networks import scoring
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.logits import logits_of
from zoo_datasets.reading.columns import plain
from zoo_datasets.reading.selection import Selection
from zoo_datasets.sources import Source, SourceSpec, Subset
from zoo_datasets.sources.conditions import Conditions, conditions_of
from zoo_datasets.sources.measured import Attack, Measured, attack_of, measured
from zoo_datasets.sources.rows import first_of, spec_of, subset_of

PARTS = ("train", "validation", "test")
MOST_NAMED = 10  # classes in a message
LOGITS_AT_ONCE = 2**25  # float32 in memory together: 335 models on 10,000 images of 10 classes

_F, _COUNTS = pa.float64(), pa.list_(pa.int64())
SCORES = {"loss": _F, "accuracy": _F, "correct_per_class": _COUNTS, "count_per_class": _COUNTS}
# Metrics of a part beyond its scores, as they are named in the zoo; those of attacks by class are stored where the recipe asks for them.
MORE: dict[str, dict[str, pa.DataType]] = {
    "train": {"train_loss_clean": _F, "train_accuracy_clean": _F},
    "validation": {},
    "test": {"attack_success": _F} | {c.name: _F if pa.types.is_floating(c.type) else _COUNTS for c in schema.ATTACK},
}


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
    """What `evaluate` found. `table` has model_id, step, loss, accuracy, correct_per_class and
    count_per_class; on its own source also train_loss_clean and train_accuracy_clean, or
    attack_success of the test part; and of each a `stored_…` and a `difference_…`, which for
    counts is the largest of any class (null for a foreign source, and where the zoo stores none). Beside attack_success
    stand attack_base, the share of the same images that go to the target without the trigger on, and both by class:
    attack_per_class and attack_base_per_class, of test images as many as count_per_class says."""

    table: pa.Table
    part: str
    n_images: int  # of a model's own training images, the most
    n_unknown: int = 0  # further ones of another source, of classes that the models do not know

    def largest(self, metric: str = "accuracy") -> float | None:
        """The largest absolute difference from the stored metric; None where there is none to compare. Raises ZooError."""
        name = f"difference_{metric}"
        if name not in self.table.column_names:
            metrics = [n.removeprefix("difference_") for n in self.table.column_names if n.startswith("difference_")]
            raise ZooError(unknown("metric", metric, metrics, f"the evaluation on {self.part} examples"))
        differences = self.table[name].drop_null().to_numpy()
        return float(np.abs(differences).max()) if len(differences) else None

    def __repr__(self) -> str:
        worst = {m: self.largest(m) for m in ("accuracy", "loss")}
        largest = ", ".join(f"{m} {v:.2g}" for m, v in worst.items() if v is not None)
        accuracy = self.table["accuracy"].drop_null().to_numpy()
        mean = accuracy.mean() if len(accuracy) else float("nan")
        return (
            f"Evaluation of {len(self.table):,} snapshots on {self.n_images:,} {self.part} examples: mean accuracy "
            f"{mean:.4f}; "
            + (f"{self.n_unknown:,} more are of classes that the models do not know; " if self.n_unknown else "")
            + (f"largest difference from the stored {largest}" if largest else "nothing stored to compare with")
        )

    def _repr_html_(self) -> str:
        names = [n for n in self.table.column_names if not n.endswith("_per_class")]
        shown = self.table.select(names).slice(0, notebook.MOST_ROWS).to_pylist()
        rows = [[f"{v:.4g}" if isinstance(v, float) else v for v in row.values()] for row in shown]
        return notebook.table(repr(self), names, rows, f"{len(self.table):,} snapshots")


def evaluate(
    zoo: Selection, ids: Sequence[str] | None = None, source: str | SourceSpec | Source | None = None,
    data: str | Path | None = None, *, part: str = "test", steps: str = "last", device: str = "cpu",
) -> Evaluation:  # fmt: skip
    """Metrics of models on a part of their own source, or of another one.

    `train` is each model's own training images, spoilt as it saw them, with the labels that it
    was given; snapshots that were scored on the first images of a part (`evaluation` of their schedule) are
    scored on the same; of another source, all of its training images. Models see another source as they
    saw their own: its raw values over its own peak, by the mean and std that they were trained with.
    Its classes are matched by name, and inputs of a class that they do not know are left out and
    counted. `ids` (default: all in the
    selection) at their last selected snapshot, or with `steps="all"` at every one. `data` names
    the folder of local sources, as $ZOO_DATA.

    Raises ZooNotFoundError for an unknown id or source, ZooError where images or classes do not fit.
    """
    if part not in PARTS:
        raise ZooError(unknown("part", part, PARTS, "evaluate"))
    if steps not in ("last", "all"):
        raise ZooError(unknown("steps", steps, ("last", "all"), "evaluate"))
    _check_device(device)
    chosen = zoo if steps == "all" else zoo.final()
    if ids is not None:
        places: dict[str, list[int]] = {plain(m): [] for m in ([ids] if isinstance(ids, str | pa.Scalar) else ids)}
        for position, model in enumerate(chosen.column("model_id").to_pylist()):
            if model in places:
                places[model].append(position)
        for model, positions in places.items():
            if not positions:
                zoo.position(model)  # says what is wrong
        chosen = chosen.take(np.array([p for positions in places.values() for p in positions], np.int64))
    own = source is None
    foreign = None if source is None else _foreign(source, data)
    rows: list[dict[str, Any]] = [{} for _ in range(len(chosen))]
    cache, n_images, n_unknown = _Cache(), 0, 0
    groups = _groups(chosen, part, own)
    for models, row in meters.over(
        groups, f"measuring {len(chosen):,} snapshots on {part} examples", "groups of models"
    ):
        learned = foreign or zoo.source(row["model_id"], data)
        architecture = zoo.architecture(row["model_id"]).built()
        _check_fits(learned, architecture, row["model_id"])
        if foreign is not None:
            learned = _as_their_own(foreign, zoo, row)
            n_unknown = max(n_unknown, len(getattr(foreign, part).labels) - len(getattr(learned, part).labels))
        models = [m._replace(subset=m.subset.numbered(learned.class_names)) for m in models]
        for exam in _exams(learned, part, architecture, models, row["loss"], own, cache):
            n_images = max(n_images, len(exam.inputs) if exam.counts else 0)
            logits = _logits(chosen, exam, part, architecture, conditions_of(row, learned) if own else None, device)
            at_once = max(1, LOGITS_AT_ONCE // max(1, len(exam.inputs) * architecture.n_logits))
            for start in range(0, len(exam.positions), at_once):
                some = exam.positions[start : start + at_once]
                for position, found in zip(some.tolist(), exam.metrics(some, logits(some)), strict=True):
                    rows[position] |= found
    return Evaluation(_table(chosen, rows, part, own), part, n_images, n_unknown)


def _logits(
    chosen: Selection, exam: _Exam, part: str, architecture: Architecture, conditions: Conditions | None, device: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Positions of snapshots → their logits (m, n, C) on an exam's inputs, under the conditions of their recipe if it has any."""
    if conditions is None:
        logits = logits_of(architecture, exam.inputs, device)
        return lambda some: logits(chosen.weights[some])
    key_of = dict(zip(*(chosen.models[name].to_pylist() for name in ("model_id", "augment_key")), strict=True))
    ids, steps = chosen.column("model_id").to_pylist(), chosen.column("step").to_pylist()
    shown = part if exam.counts else "attack"
    return lambda some: conditions.logits(
        architecture, chosen.weights[some], exam.inputs, None, [key_of[ids[i]] for i in some], shown,
        [steps[i] for i in some],
    )  # fmt: skip


class _Model(NamedTuple):
    """One model of a group: the positions of its snapshots, its data axes, and the key of their draws."""

    positions: list[int]
    subset: Subset
    key: str
    first: int | None  # of the images, so many; None: all


class _Exam(NamedTuple):
    """Inputs (n, …) float32 that snapshots at `positions` are shown, and the metrics of m of them from logits (m, n, C)."""

    inputs: np.ndarray
    positions: np.ndarray
    metrics: Callable[[np.ndarray, np.ndarray], list[dict[str, Any]]]
    counts: bool = True  # among the inputs that an `Evaluation` says it was on


def _groups(zoo: Selection, part: str, own: bool) -> list[tuple[list[_Model], dict[str, Any]]]:
    """Models of one architecture and source that are shown the same images, with the row of one of them."""
    rows = {r["model_id"]: r for r in zoo.models.to_pylist()}
    thin = {m: first_of(row, part) if own else None for m, row in rows.items()}
    positions: dict[tuple[str, int | None], list[int]] = {}
    columns = (zoo.column(name).to_pylist() for name in ("model_id", "step"))
    for position, (model, step) in enumerate(zip(*columns, strict=True)):
        first = thin[model] if step != rows[model]["step"] else None
        positions.setdefault((model, first), []).append(position)
    groups: dict[Any, tuple[list[_Model], dict[str, Any]]] = {}
    for (model, first), at in positions.items():
        row = rows[model]
        one = _Model(at, subset_of(row), row["subset_key"], first)
        same = (row["architecture_id"], row["loss"], spec_of(row), _images_key(one, part, own), first, _alike(row))
        groups.setdefault(same, ([], row))[0].append(one)
    return list(groups.values())


def _alike(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Equal for models that are measured under the same conditions."""
    if not (row.get("evaluate_batch_statistics") or row.get("evaluate_augmented")):
        return ()
    names = sorted(n for n in row if n.startswith(("evaluate_", "augment_")) and n != "augment_key")
    return (row["batch_size"], *(str(row[n]) for n in names))


def _images_key(model: _Model, part: str, own: bool) -> Any:
    """Equal for models whose images of a part are the same, in the same order; labels may differ."""
    subset = model.subset
    if part == "train" and own:
        drawn = subset.frac < 1 or subset.class_shares is not None or subset.trigger_frac > 0
        return dataclasses.replace(subset, label_noise_frac=0.0), model.key if drawn else None
    return subset.head


def _exams(
    source: Source, part: str, architecture: Architecture, models: list[_Model], loss: str, own: bool, cache: _Cache
) -> Iterator[_Exam]:  # fmt: skip
    """What the models of one group are shown: the inputs of the part, and with a trigger those of test stamped."""
    if part == "train" and own:
        yield _training(source, models, loss, cache)
        return
    everyone, n_outputs = np.concatenate([m.positions for m in models]), architecture.n_outputs
    key = (source.spec, source.class_names, part, _images_key(models[0], part, own), n_outputs)
    inputs, labels = cache(key, lambda: measured(source, part, models[0].subset, n_outputs)).first(models[0].first)
    attacks = _attacks(models) if part == "test" and own else {}

    def metrics(positions: np.ndarray, logits: np.ndarray) -> list[dict[str, Any]]:
        rows = scoring.part_metrics(part, logits, labels[None], loss)
        for position, row, z in zip(positions.tolist(), rows, logits, strict=True):
            if position in attacks:
                row |= scoring.attack_metrics(z, labels, *attacks[position], stamped=False)
        return rows

    yield _Exam(inputs, everyone, metrics)
    patches: dict[Any, list[_Model]] = {}
    for m in models:
        if part == "test" and own and m.subset.trigger_frac:
            patches.setdefault(m.subset.patch, []).append(m)
    for alike in patches.values():
        stamped = measured(source, part, alike[0].subset, n_outputs, triggered=True)
        yield _attack(stamped.first(models[0].first), alike)


def _training(source: Source, models: list[_Model], loss: str, cache: _Cache) -> _Exam:
    """Training inputs as all these models saw them; labels are each model's own."""
    model_at = {p: m for m in models for p in m.positions}
    shown = slice(models[0].first)

    @functools.lru_cache(maxsize=1)  # snapshots of one model follow each other
    def examples(subset: Subset, key: str) -> sources.Examples:
        return sources.training_examples(source.train.labels, source.n_classes, subset, key)

    def metrics(positions: np.ndarray, logits: np.ndarray) -> list[dict[str, Any]]:
        learned = [examples(model_at[p].subset, model_at[p].key) for p in positions.tolist()]
        if source.train.outputs is not None:  # step by step, and the same inputs of all these models
            outputs = source.train.outputs[learned[0].rows][shown][None]
            return scoring.part_metrics("train", logits, outputs, loss, outputs)
        labels, clean = (np.stack([getattr(e, k)[shown] for e in learned]) for k in ("labels", "clean_labels"))
        return scoring.part_metrics("train", logits, labels, loss, clean)

    def inputs() -> np.ndarray:
        seen = examples(models[0].subset, models[0].key)
        return source.scaled(sources.training_images(source, models[0].subset, seen))

    key = (source.spec, "train", _images_key(models[0], "train", own=True))
    return _Exam(cache(key, inputs)[shown], np.array(list(model_at)), metrics)


def _attack(stamped: Measured, models: list[_Model]) -> _Exam:
    """Test inputs with the trigger that these models learned, each with an attack of its own."""
    attacks = _attacks(models)

    def metrics(positions: np.ndarray, logits: np.ndarray) -> list[dict[str, Any]]:
        each = zip(positions.tolist(), logits, strict=True)
        return [scoring.attack_metrics(z, stamped.labels, *attacks[p], stamped=True) for p, z in each]

    return _Exam(stamped.inputs, np.array(list(attacks)), metrics, counts=False)


def _attacks(models: list[_Model]) -> dict[int, Attack]:
    """What the trigger of each snapshot is for, by position; those that learned none are left out."""
    return {p: attack for m in models if (attack := attack_of(m.subset)) is not None for p in m.positions}


class _Cache:
    """The last inputs that were made, which groups that differ in their architecture alone share."""

    def __init__(self) -> None:
        self.key: Any = None
        self.value: Any = None

    def __call__(self, key: Any, make: Callable[[], Any]) -> Any:
        if key != self.key:
            self.value = None  # the old ones go before new ones come
            self.key, self.value = key, make()
        return self.value


def _check_device(device: str) -> None:
    """Raises ZooError for what is no device, or none of this machine."""
    import torch

    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:  # the second: a torch that was built without
        raise ZooError(
            f"device {device!r} does not serve here: {str(error).splitlines()[0]}. Take cpu, or cuda where there is a GPU."
        ) from None


def _foreign(source: Any, data: str | Path | None) -> Source:
    if isinstance(source, Source):
        return source
    if not isinstance(source, str | SourceSpec):
        raise ZooError(f"source is a {type(source).__name__}; an id, a `SourceSpec` or a `Source` is needed.")
    return sources.load(SourceSpec(id=source) if isinstance(source, str) else source, data)


def _as_their_own(foreign: Source, zoo: Selection, row: Mapping[str, Any]) -> Source:
    """Another source as a model sees it: scaled as its own, classes and features by name as its own, unknown classes left out.

    Raises ZooError where they share no class, a feature is missing, or the zoo does not say what its models learned.
    """
    spec = {k: list(v) if isinstance(v, tuple) else v for k, v in spec_of(row).given.items()}
    if (
        foreign.output_steps is not None
    ):  # shown as it is to whoever takes it: its outputs have no names to be matched by
        return foreign
    own = next((s for s in zoo.manifest.sources if s.sha256 == row["source_sha256"] and dict(s.spec) == spec), None)
    if own is None:
        raise ZooError(f"{zoo.name} does not say how the inputs of model {row['model_id']} were scaled.")
    number = {name: i for i, name in enumerate(own.class_names)}
    numbers = np.array([number.get(name, -1) for name in foreign.class_names], np.int64)
    if (numbers < 0).all():
        raise ZooError(
            f"Source {foreign.spec.id!r} has classes {', '.join(foreign.class_names[:MOST_NAMED])}; model {row['model_id']} "
            f"learned {', '.join(own.class_names[:MOST_NAMED])}: no name is the same, so none of its answers is right."
        )

    columns = _columns(foreign, own.feature_names or (), row["model_id"])

    def renumbered(part: sources.Part) -> sources.Part:
        labels = numbers[part.labels]
        return sources.Part(part.inputs[labels >= 0][:, columns], labels[labels >= 0], part.index[labels >= 0])

    scaled = dataclasses.replace(foreign.spec, scale="standardize", mean=own.mean, std=own.std)
    return dataclasses.replace(
        foreign, spec=scaled, class_names=own.class_names, mean=own.mean, std=own.std,
        train=renumbered(foreign.train), validation=renumbered(foreign.validation), test=renumbered(foreign.test),
    )  # fmt: skip


def _columns(foreign: Source, names: Sequence[str], model: str) -> list[int] | slice:
    """Where the features that a model learned stand in another table; all channels as they are of what is none. Raises ZooError."""
    if not names or not foreign.feature_names:
        return slice(None)
    place = {name: i for i, name in enumerate(foreign.feature_names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ZooError(
            f"Source {foreign.spec.id!r} has no feature {missing[0]!r}, which model {model} learned; it has "
            f"{alternatives(foreign.feature_names, missing[0])}. Rename its columns as they were."
        )
    return [place[name] for name in names]


def _check_fits(source: Source, architecture: Architecture, model: str) -> None:
    wanted = (source.n_classes,) if source.output_steps is None else (source.output_steps, source.n_classes)
    given = architecture.nodes[-1].shape
    if source.input_shape == architecture.input_shape and (len(given) > 1 or len(wanted) > 1) and given != wanted:
        raise ZooError(
            f"Source {source.spec.id!r} says what is right in shape {wanted}, and model {model} gives {given}: name a source "
            "of as many steps and outputs."
        )
    if len(source.input_shape) == 2 and source.input_shape != architecture.input_shape:
        raise ZooError(
            f"Source {source.spec.id!r} has sequences of shape {source.input_shape}; model {model} takes "
            f"{architecture.input_shape}."
        )
    if source.input_shape != architecture.input_shape:
        raise ZooError(
            f"Source {source.spec.id!r} has images of shape {source.input_shape}; model {model} takes "
            f"{architecture.input_shape}. Ask for it with SourceSpec(id={source.spec.id!r}, resize=…, channels=…)."
        )


def _table(zoo: Selection, rows: list[dict[str, Any]], part: str, own: bool) -> pa.Table:
    kinds = SCORES | (MORE[part] if own else {})
    stored = {name: f"{part}_{name}" if name in SCORES else name for name in kinds}
    columns = {name: [r.get(stored[name]) for r in rows] for name in kinds}
    table = zoo.table(["model_id", "step"])
    for name, kind in kinds.items():
        table = table.append_column(name, pa.array(columns[name], kind))
    for name, kind in kinds.items():
        known = own and stored[name] in zoo.snapshots.column_names
        before = zoo.column(stored[name]).to_pylist() if known else [None] * len(rows)
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
