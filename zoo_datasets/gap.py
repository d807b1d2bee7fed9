"""A zoo's stored accuracies → its generalization gap, where labels are noisy or classes left out.

In:  a `Selection`: accuracy on the training images against their true labels, test images and right answers per
     class, the classes a model learned.
Out: a gap per snapshot.

The stored `gap_accuracy` is training accuracy as trained minus accuracy on all test images: with 20 % of
wrong labels it is −0.3 for a network that generalizes well, and of a network that never saw half the classes
it is +0.5 for that reason alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from zoo_datasets.errors import GridError, IntegrityError
from zoo_datasets.reading.selection import Selection
from zoo_datasets.sources.subset import Subset


def generalization_gap(zoo: Selection) -> np.ndarray:
    """Accuracy on clean training labels minus accuracy on test images of the classes in play, float64 [snapshots].

    NaN where either was not measured. Training images are those the model saw, triggers stamped on
    some of them; against their true labels. It is the stored `gap_accuracy` where labels are clean and no
    class is left out.
    """
    trained = zoo.column("train_accuracy_clean").to_pylist()
    correct, count = (zoo.column(f"test_{name}_per_class").to_pylist() for name in ("correct", "count"))
    gaps = np.full(len(trained), np.nan)
    for i, (train, right, of, play) in enumerate(zip(trained, correct, count, classes_in_play(zoo), strict=True)):
        if train is None or not of or right is None:
            continue
        places = range(len(of)) if play is None else play
        total = sum(of[c] for c in places)
        gaps[i] = train - sum(right[c] for c in places) / total if total else np.nan
    return gaps


class Learned(NamedTuple):
    """Which classes of its source a network learned, and which of them each output is for."""

    classes: tuple[int, ...] | None  # None: all
    outputs: tuple[int, ...] | None  # None: those of the source, in its order

    def place(self, label: int) -> int | None:
        """The output that is for this class of the source; None where there is none."""
        if self.outputs is None:
            return label
        return self.outputs.index(label) if label in self.outputs else None


def learned(zoo: Selection) -> list[Learned]:
    """Of each snapshot what its network learned, classes by their numbers in the source, however the recipe named them.

    Raises IntegrityError where the zoo's source has no class of a name.
    """
    there = set(zoo.models.column_names)
    of = {s.sha256: s.class_names for s in zoo.manifest.sources}
    columns = [
        zoo.column(n).to_pylist() if n in there else [None] * len(zoo)
        for n in ("subset_classes", "subset_class_names", "subset_relabel", "source_sha256")
    ]
    found = []
    for classes, names, relabel, source in zip(*columns, strict=True):
        own = Subset(classes=_tuple(classes), class_names=_tuple(names), relabel=bool(relabel))
        try:
            own = own.numbered(of.get(str(source), ()))
        except GridError as error:
            raise IntegrityError(f"{zoo.name}: {error}") from None
        found.append(Learned(own.classes, own.classes if own.relabel else None))
    return found


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def classes_in_play(zoo: Selection) -> list[tuple[int, ...] | None]:
    """Of each snapshot the places of the test images' classes that its model learned; None is all of them."""
    # A head of its own (`relabel`) numbers the classes in play alone, and test images are theirs already.
    return [own.classes if own.outputs is None else None for own in learned(zoo)]
