"""The data axes of one model, as a grid says them and as a row of `models` keeps them.

A field names its column; what the axes do to a source's labels is in `examples.py`, and to its images in `triggers.py` and
there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from zoo_datasets.errors import GridError, unknown
from zoo_datasets.sources.fields import column

_NAMED = "the subset's classes have names yet: `numbered` comes first"


@dataclass(frozen=True)
class Subset:
    """The data axes of one model: which training images it sees, and how they are spoilt.

    Labels stay those of the source, and the head stays full, unless `relabel`: then a label is
    its place in `classes`. `trigger_target` is always a label of the source.
    """

    frac: float = column("subset_frac", 1.0)  # of each class
    classes: tuple[int, ...] | None = column("subset_classes", None)
    label_noise_frac: float = column("label_noise_frac", 0.0)  # of the model's own set
    relabel: bool = column("subset_relabel", False)
    trigger_frac: float = column("trigger_frac", 0.0)  # of the model's own set
    trigger_target: int | None = column("trigger_target", None, names=True)
    trigger_size: int = column("trigger_size", 3)  # pixels, a square
    trigger_value: float = column("trigger_value", 1.0)  # fraction of the source's peak
    trigger_position: str = column("trigger_position", "bottom_right")
    rotate_degrees: float = column("rotate_degrees", 0.0, later=True)  # counterclockwise, before the trigger is stamped
    class_names: tuple[str, ...] | None = column("subset_class_names", None, later=True)  # `classes` by their names
    class_shares: tuple[float, ...] | None = column(
        "subset_class_shares", None, later=True
    )  # times frac, a source's class each
    skip: float = column("subset_skip", 0.0, later=True)  # of each class, passed over before `frac` of it is taken
    trigger_pattern: str = column("trigger_pattern", "solid", later=True)  # "random": each value on or off, by a coin
    trigger_seed: int = column("trigger_seed", 0, later=True, names=True)  # of a random pattern
    trigger_opacity: float = column("trigger_opacity", 1.0, later=True)  # how much of it covers the image
    trigger_row: int | None = column("trigger_row", None, later=True)  # of its first pixel, in place of a position
    trigger_column: int | None = column("trigger_column", None, later=True)
    trigger_source: int | None = column(
        "trigger_source", None, later=True, names=True
    )  # the one class whose images are stamped
    trigger_clean_label: bool = column(
        "trigger_clean_label", False, later=True
    )  # images of the target, labels as they are

    def frac_of(self, label: int) -> float:
        """The part of this class of the source that the model sees."""
        return self.frac if self.class_shares is None else self.frac * self.class_shares[label]

    def taken(self, label: int, n: int) -> slice:
        """Which of the n images of this class, by rank, the model sees: where none is passed over at least one.

        Parts that begin where others end have no image in common: a part ends before the next one begins.
        """
        frac = self.frac_of(label)
        count = max(1, round(frac * n))
        if not self.skip:
            return slice(0, min(n, count))
        first = max(1, round(self.skip * n))
        following = round(round(self.skip + frac, 12) * n)  # 0.1 + 0.2 is where 0.3 begins
        return slice(first, max(first, min(n, following, first + count)))

    @property
    def patch(self) -> tuple[Any, ...]:
        """What is stamped, and where: equal for subsets whose stamped images are equal."""
        seed = self.trigger_seed if self.trigger_pattern == "random" else 0
        at = (self.trigger_row, self.trigger_column)
        return (
            self.trigger_size, self.trigger_value, self.trigger_position, self.trigger_pattern, seed, self.trigger_opacity, at,
        )  # fmt: skip

    @property
    def head(self) -> tuple[int, ...] | tuple[str, ...] | None:
        """The classes that the head numbers 0, 1, …; None where it has those of the source."""
        return (self.class_names or self.classes) if self.relabel else None

    def numbered(self, class_names: Sequence[str]) -> Subset:
        """The same with `classes` in place of their names, as all below needs it. Raises GridError."""
        if self.class_names is None:
            return self
        if self.classes is not None:
            raise GridError("Subset has classes and class_names; keep one of them.")
        for name in self.class_names:
            if name not in class_names:
                raise GridError(unknown("class", name, class_names, "class_names of the subset"))
        return replace(self, classes=tuple(map(class_names.index, self.class_names)), class_names=None)

    def in_play(self, n_classes: int) -> tuple[int, ...]:
        """The source's labels that the model trains on, ascending."""
        assert self.class_names is None, _NAMED
        return tuple(range(n_classes)) if self.classes is None else tuple(sorted(self.classes))


def relabeled(labels: Integer[np.ndarray, " n"], subset: Subset) -> Int64[np.ndarray, " n"]:
    """The source's labels as the model's head numbers them; −1 for a class it has none for."""
    if subset.head is None:
        return labels.astype(np.int64)
    assert subset.classes is not None, _NAMED
    assert subset.class_names is None, _NAMED
    places = np.full(max(int(labels.max(initial=0)), *subset.classes) + 1, -1, np.int64)
    places[list(subset.classes)] = np.arange(len(subset.classes))
    numbers: np.ndarray = places[labels]
    return numbers
