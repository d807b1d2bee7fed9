"""A cohort and its source → what an engine is given: arrays and a `Job`.

In:  a cohort, its source, and what models with parents start from.
Out: `Data`, the inputs and labels of every model, to train on and to evaluate; the `Job`
with initial weights from the models' keys.

The same cohort and source give the same arrays on any machine, for every engine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Job, Optimizers
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import StartState
from zoo_builder.planning.runs import Run
from zoo_builder.recipe.parameterization import ADAPTIVE, width_ratio
from zoo_datasets import sources
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.initialization import LayerInit, initialize
from zoo_datasets.networks.parameterization import rate_factors
from zoo_datasets.sources.augmentation import augmentation_of
from zoo_datasets.sources.conditions import Conditions, conditions_of
from zoo_datasets.sources.measured import Attack, Measured, attack_of, measured

_KINDS = {"sgd": SGD, "momentum": SGD, "nesterov": SGD, "adam": ADAM, "adamw": ADAMW, "rmsprop": RMSPROP}


@dataclasses.dataclass(frozen=True)
class Data:
    """The arrays of a cohort: what is trained on and what is evaluated."""

    pool: np.ndarray  # (N or 2N, …) float32: the images in use; the second half is stamped with the trigger
    examples: list[sources.Examples]  # per model, rows into the source's training part
    rows: np.ndarray  # (M, n) int32 into the pool
    labels: np.ndarray  # (M, n) int32 as trained
    clean: np.ndarray  # (M, n) int32
    validation: Measured
    test: Measured
    attack: Measured | None  # test with the trigger on, where the cohort learned one
    attacks: list[Attack | None]  # per model: what its trigger is for
    conditions: Conditions | None = None  # under which metrics are measured, where they are not the usual ones
    outputs: np.ndarray | None = None  # what is right at each step of the pool's sequences, where the source says so

    def right(self, models: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of the training inputs of these models: labels as trained, and clean ones; or what is right step by step."""
        if self.outputs is None:
            return self.labels[models], self.clean[models]
        outputs = self.outputs[self.rows[:1] if self.shared_rows else self.rows[models]]
        return outputs, outputs

    @property
    def shared_rows(self) -> bool:
        """Whether all models train on the same pool rows, so that one pass shows all of them."""
        return bool((self.rows == self.rows[0]).all())

    def first(self, counts: Mapping[str, int]) -> Data:
        """The same, evaluated on the first so many images of each part that is named."""
        n = counts.get("train", self.rows.shape[1])
        validation, test = (counts.get(part) for part in ("validation", "test"))
        return dataclasses.replace(
            self, rows=self.rows[:, :n], labels=self.labels[:, :n], clean=self.clean[:, :n],
            validation=self.validation.first(validation), test=self.test.first(test),
            attack=self.attack and self.attack.first(test),
        )  # fmt: skip


def data_of(cohort: Cohort, source: sources.Source) -> Data:
    """The arrays of a cohort. Raises GridError where its data axes do not fit the source."""
    subsets = [r.subset.numbered(source.class_names) for r in cohort.runs]
    first = subsets[0]
    examples = [
        sources.training_examples(source.train.labels, source.n_classes, subset, r.keys["subset"])
        for r, subset in zip(cohort.runs, subsets, strict=True)
    ]
    # Only images that some model sees: a pair of classes is a fifth of MNIST.
    used = np.unique(np.concatenate([e.rows for e in examples]))
    images = sources.altered(source.train.inputs[used], first)
    pool = source.scaled(images)
    if first.trigger_frac:
        pool = np.concatenate([pool, source.scaled(sources.stamp(images, first, source.peak))])
    rows = np.stack([np.searchsorted(used, e.rows) + len(used) * e.poisoned for e in examples]).astype(np.int32)
    n_outputs = cohort.architecture.n_outputs
    return Data(
        pool, examples, rows, np.stack([e.labels for e in examples]).astype(np.int32),
        np.stack([e.clean_labels for e in examples]).astype(np.int32),
        measured(source, "validation", first, n_outputs), measured(source, "test", first, n_outputs),
        measured(source, "test", first, n_outputs, triggered=True) if first.trigger_frac else None,
        [attack_of(subset) for subset in subsets], conditions_of(cohort.runs[0].settings, source),
        None if source.train.outputs is None else source.train.outputs[used],
    )  # fmt: skip


def epoch_order(run: Run, epoch: int, source: sources.Source, examples: sources.Examples) -> np.ndarray:
    """The places among a model's examples that an epoch shows, in their order."""
    rows, labels = examples.rows, source.train.labels
    classes = labels[rows] if run.settings.get("balance_classes") else None
    return sources.epoch_order(run.keys["order"], epoch, len(labels), rows, classes)


def job_of(cohort: Cohort, source: sources.Source, data: Data, state: StartState | None = None) -> Job:
    """The cohort as an engine sees it, with initial weights from the models' keys or from their parents."""
    pool, outputs, s = data.pool, data.outputs, [r.settings for r in cohort.runs]

    def vector(name: str, default: float = 0.0, kind: type = np.float64) -> np.ndarray:
        return np.array([default if v[name] is None else v[name] for v in s], kind)

    optimizer = [v["optimizer"] for v in s]
    return Job(
        architecture=cohort.architecture,
        loss=s[0]["loss"],
        pool=pool,
        initial=state.weights if state else np.stack([initial_weights(r, cohort.architecture) for r in cohort.runs]),
        optimizers=Optimizers(
            kind=np.array([_KINDS[o] for o in optimizer], np.int32),
            momentum=vector("momentum"),
            nesterov=np.array([o == "nesterov" for o in optimizer]),
            beta1=vector("beta1"),
            beta2=vector("beta2"),
            eps=vector("eps"),
            alpha=vector("alpha"),
            weight_decay=vector("weight_decay"),
            clip_norm=vector("clip_norm", math.inf),
        ),
        dropout_rate=vector("dropout"),
        dropout_key=tuple(r.keys["dropout"] for r in cohort.runs),
        augment_key=tuple(r.keys["augment"] for r in cohort.runs),
        augmentation=augmentation_of(cohort.runs[0].settings, source),
        batch_size=min(cohort.batch_size, cohort.n_train),
        outputs=_wide(outputs),
        rate_factors=_factors(cohort),
    )


def _factors(cohort: Cohort) -> np.ndarray | None:
    """Of every model's tensors (M, tensors); None where each is 1."""
    if all(width_ratio(r.settings) == 1 for r in cohort.runs):
        return None
    return np.stack(
        [
            rate_factors(cohort.architecture, width_ratio(r.settings), r.settings["optimizer"] in ADAPTIVE)
            for r in cohort.runs
        ]
    )


def _wide(outputs: np.ndarray | None) -> np.ndarray | None:
    """As an engine takes them."""
    return None if outputs is None else outputs.astype(np.float32 if outputs.ndim == 3 else np.int64)


def initial_weights(run: Run, architecture: Architecture) -> np.ndarray:
    """Step 0 of a run that has no parent, float32 [P], from its init key alone."""
    assert run.start is None
    s = run.settings
    first, last = (
        LayerInit(s[f"init_{part}_kind"], s.get(f"init_{part}_low"), s.get(f"init_{part}_high"))
        if f"init_{part}_kind" in s
        else None
        for part in ("first", "last")
    )
    return initialize(
        architecture, run.keys["init"], s["init_kind"], low=s["init_low"], high=s["init_high"], mean=s["init_mean"],
        std=s["init_std"], value=s["init_value"], bias=s["init_bias"], norm_std=s.get("norm_scale_std", 0.0),
        first=first, last=last, ratio=width_ratio(s),
    )  # fmt: skip
