"""A zoo's stored accuracies → its generalization gap, where labels are noisy or classes left out.

In:  a `Selection`: accuracy on the training images against their true labels, test images and right answers per
     class, the classes a model learned.
Out: a gap per snapshot.

The stored `gap_accuracy` is training accuracy as trained minus accuracy on all test images: with 20 % of
wrong labels it is −0.3 for a network that generalizes well, and of a network that never saw half the classes
it is +0.5 for that reason alone.
"""

from __future__ import annotations

import numpy as np

from zoo_datasets.reading.selection import Selection


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


def classes_in_play(zoo: Selection) -> list[list[int] | None]:
    """Of each snapshot the places of the test images' classes that its model learned; None is all of them."""
    known = set(zoo.manifest.factors)
    classes = zoo.column("subset_classes").to_pylist() if "subset_classes" in known else [None] * len(zoo)
    # A head of its own (`relabel`) numbers the classes in play alone, and test images are theirs already.
    relabeled = zoo.column("subset_relabel").to_pylist() if "subset_relabel" in known else [False] * len(zoo)
    return [None if own_head else play for play, own_head in zip(classes, relabeled, strict=True)]
