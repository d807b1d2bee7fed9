"""What a baseline is given, and what it must do: networks of a population and numbers to foretell.

In:  a `View` of n networks and their `Targets`. Out: for each target a prediction of each network.

A baseline sees weights, architectures and, if it asks for it, the recipe: never metrics, never ids. Who makes
views, chooses splits and scores predictions is `tasks.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layout import Layout, by_id

# Inputs (n, …) float32 as the networks take them, and their labels (n,) int64.
Labelled = tuple[np.ndarray, np.ndarray]


class MixedLayoutsError(ZooError, ValueError):
    """A baseline that takes one layout was given several."""


@dataclasses.dataclass(frozen=True)
class View:
    """n networks, in an order that says nothing."""

    architectures: tuple[Architecture, ...]  # each once; of a part of a population, those of the whole
    architecture: np.ndarray  # (n,) int64: the place of each network's own in `architectures`
    vectors: Sequence[np.ndarray]  # n flat weight vectors (P,) float32; P differs where architectures do
    recipe: pa.Table  # n rows: what the recipe varied, a column for each; no metric. Read it by `recipe_without`
    # Labelled inputs of what the networks learned, for the controls that show some; raises ZooError where there are none.
    shown: Callable[[], Labelled] | None = None
    # n rows: loss and accuracy on training images, for the one control that is told them.
    training: pa.Table | None = None
    # Target → columns of the recipe that give it away beside its own, found once for the whole population.
    telling: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def own(self) -> list[Architecture]:
        """The architectures of these networks: a part of a population lists those of the whole."""
        return [self.architectures[int(i)] for i in np.unique(self.architecture)] or list(self.architectures)

    @property
    def layout(self) -> Architecture:
        """An architecture whose tensors all networks share. Raises MixedLayoutsError.

        Networks that differ only in what has no weights (an activation, a residual block) share them; which units may change
        places in all of them, `units` says.
        """
        own = self.own
        if (n_layouts := len({a.layout_id for a in own})) != 1:
            raise MixedLayoutsError(
                f"The population mixes {n_layouts} layouts, and this baseline takes one. Select one, or take a baseline that reads "
                "statistics, graphs or tokens."
            )
        return own[0]

    @property
    def units(self) -> Layout:
        """The one layout, with the groups of units that may change places in every network. Raises MixedLayoutsError."""
        return by_id(a.layout for a in self.own)[self.layout.layout_id]

    @property
    def matrix(self) -> np.ndarray:
        """Weights (n, P) float32, of one layout. Raises MixedLayoutsError."""
        return (
            np.stack(self.vectors)
            if self.layout and len(self.vectors)
            else np.zeros((0, self.layout.n_params), np.float32)
        )

    def recipe_without(self, target: Target) -> pa.Table:
        """The recipe as one may know it who is asked for `target`: what is it, or gives it away, is left out."""
        hidden = (target.name, *self.telling.get(target.name, ()))
        return self.recipe.drop_columns([n for n in self.recipe.column_names if n in hidden])

    def take(self, rows: np.ndarray) -> View:
        """Those networks, in that order."""
        return View(
            self.architectures,
            self.architecture[rows],
            [self.vectors[int(i)] for i in rows],
            self.recipe.take(pa.array(rows)),
            self.shown,
            None if self.training is None else self.training.take(pa.array(rows)),
            self.telling,
        )


def matrix(view: View, learned: Architecture) -> np.ndarray:
    """Weights (n, P) float32 of networks of the layout that was learned. Raises MixedLayoutsError."""
    if len(view) and view.layout.layout_id != learned.layout_id:
        raise MixedLayoutsError(
            f"The networks have {view.layout.n_params:,} weights in layout {view.layout.layout_id}, and this baseline "
            f"learned from {learned.n_params:,} in layout {learned.layout_id}; it knows no other. Take a baseline that "
            "reads statistics, graphs or tokens."
        )
    return view.matrix if len(view) else np.zeros((0, learned.n_params), np.float32)


@dataclasses.dataclass(frozen=True)
class Target:
    """One thing to foretell: a number, or one of `classes`."""

    name: str
    classes: int = 0  # 0: a number
    bounded: bool = False  # a number between 0 and 1, like an accuracy: a sigmoid may end the network


@dataclasses.dataclass(frozen=True)
class Targets:
    """Values (n, K) float64 of K targets; NaN where a network has none. A class is its number."""

    of: tuple[Target, ...]
    values: np.ndarray

    def take(self, rows: np.ndarray) -> Targets:
        return Targets(self.of, self.values[rows])


# Target name → (n,) float64 of a number; (n, classes) float64 probabilities of a class.
Predictions = Mapping[str, np.ndarray]


class Baseline(Protocol):
    """A reference solver. `options` of a variant are its constructor's."""

    name: str

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        """Learn from `train`; whatever is chosen is chosen on `validation`. All randomness comes from `seed`.

        One fit serves all targets: a head for each. Raises MixedLayoutsError.
        """
        ...

    def predict(self, view: View) -> Predictions:
        """Of networks never seen."""
        ...

    @property
    def parameters(self) -> int:
        """Numbers that were learned."""
        ...

    @property
    def chosen(self) -> Mapping[str, object]:
        """What was tried and chosen on validation, for the record."""
        ...
