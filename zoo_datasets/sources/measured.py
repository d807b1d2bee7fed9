"""A source and a model's data axes → the inputs its metrics are measured on, and their labels.

The one definition, for the builder that stores metrics and the reader that measures them again:
inputs of a class that the head has no number for do not count, and an attack shows the test
inputs with the trigger on. Of `train` those count that the model trained on, with the labels of
its `Examples`: as learned, noise and trigger in, and the clean ones. Where a source says what is right at each step of a sequence,
that stands in the place of labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo_datasets.sources.spec import Source
from zoo_datasets.sources.subset import Subset, relabeled
from zoo_datasets.sources.triggers import stamp


class Measured(NamedTuple):
    """What networks are shown, and what is right."""

    inputs: np.ndarray  # (n, …) float32, scaled
    labels: np.ndarray  # (n,) int64, as the head numbers them; step by step (n, T), or values (n, T, K)

    def first(self, count: int | None) -> Measured:
        """The first so many, in the order of the source's permutation; all for None."""
        return Measured(self.inputs[:count], self.labels[:count])


def measured(source: Source, part: str, subset: Subset, n_outputs: int, *, triggered: bool = False) -> Measured:
    """All of a part of the source that a head of `n_outputs` has classes for; `triggered` with the trigger on."""
    subset = subset.numbered(source.class_names)
    raw, labels = getattr(source, part).inputs, relabeled(getattr(source, part).labels, subset)
    known = _known(labels, n_outputs)
    raw = stamp(raw[known], subset, source.peak) if triggered else raw[known]
    outputs = getattr(source, part).outputs
    return Measured(source.scaled(raw), labels[known] if outputs is None else outputs[known])


def count(source: Source, part: str, subset: Subset, n_outputs: int) -> int:
    """How many of a part of the source a head of `n_outputs` has classes for."""
    return int(_known(relabeled(getattr(source, part).labels, subset.numbered(source.class_names)), n_outputs).sum())


def _known(labels: np.ndarray, n_outputs: int) -> np.ndarray:
    return (labels >= 0) & (labels < n_outputs)


class Attack(NamedTuple):
    """What a trigger is for, as the head numbers classes."""

    target: int
    source: int | None  # the class whose images are to go there; None: all others


def attack_of(subset: Subset) -> Attack | None:
    """What the trigger is for; None where nothing is poisoned."""
    if not subset.trigger_frac:
        return None
    target, source = (
        None if label is None else int(relabeled(np.array([label]), subset)[0])
        for label in (subset.trigger_target, subset.trigger_source)
    )
    assert target is not None, "`check_subset` comes first"
    return Attack(target, source)
