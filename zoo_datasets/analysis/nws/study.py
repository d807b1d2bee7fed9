"""A population and how it is asked → answers of every method, each learned once.

In:  a `Population`, a `Division`, the size of windows, seeds. Out: a `Study`: the numbers of snapshots that solvers read,
     and `Judged` answers about test networks, by method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo_datasets.analysis.nws import features, scoring
from zoo_datasets.analysis.nws.divisions import Division
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import ARCHITECTURE, Property
from zoo_datasets.analysis.nws.scoring import Judged
from zoo_datasets.analysis.nws.solvers import BOOSTING, EITHER, SVM, Answer, solve
from zoo_datasets.baselines.design import Design

if TYPE_CHECKING:
    from zoo_datasets.analysis.nws.deep import Deep

# Method → what it reads and how it answers. The first two read no weights, the last one none of their values. What needs no weights
# may choose between solvers: a gain over a control that overfits would be a gift.
METADATA, UPDATES = "metadata", "metadata and updates"
POSITIONS, WINDOWS = "positions", "svm, windows"
METHODS: Mapping[str, tuple[str, str]] = {
    METADATA: ("metadata", EITHER),
    UPDATES: ("updates", EITHER),
    "svm": ("layers", SVM),
    "boosting": ("layers", BOOSTING),
    "svm, whole vector": ("vector", SVM),
    WINDOWS: ("window", SVM),
    POSITIONS: (POSITIONS, SVM),
}
DEEP, ONE = "meta-classifier", "meta-classifier, one window"
SEED_0 = "meta-classifier, first seed"  # beside what was learned with one seed
OF_NETWORK, OF_MIXED = "meta-classifier, batch statistics of a network", "meta-classifier, batch statistics of many"
PUBLISHED = "meta-classifier, published epochs"
ASKED = 8  # windows of a network, where many snapshots or places are asked about


@dataclasses.dataclass
class Study:
    """How a population is asked; what was computed once is kept."""

    of: Population
    at: Division
    window: int
    seeds: int
    windows: int  # of each network, whose predictions are averaged
    seed: int
    permutations: int
    deep: Deep | None
    numbers_of: dict[tuple[str, int], np.ndarray] = dataclasses.field(default_factory=dict)
    judged: dict[tuple[str, str], Judged] = dataclasses.field(default_factory=dict)
    answers: dict[tuple[object, ...], Answer] = dataclasses.field(default_factory=dict)
    # What a meta-classifier said of all its properties at once.
    said: dict[tuple[object, ...], dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    def numbers(self, kind: str, place: int | None = None, window: int | None = None) -> np.ndarray:
        """(M, W, F) of the snapshots at a place of training, the last one by default."""
        key = self.key(kind, place, window)
        if key not in self.numbers_of:
            self.numbers_of[key] = self.of_snapshots(kind, self.of.at(key[1]), window)
        return self.numbers_of[key]

    def key(self, kind: str, place: int | None = None, window: int | None = None) -> tuple[str, int]:
        """What `numbers_of` calls them."""
        return f"{kind} {window or self.window}", self.of.n_places - 1 if place is None else place

    def of_snapshots(self, kind: str, snapshots: np.ndarray, window: int | None = None) -> np.ndarray:
        """(n, W, F) of any snapshots."""
        made: Mapping[str, Callable[[], np.ndarray]] = {
            "layers": lambda: features.layers(self.of, snapshots),
            "vector": lambda: features.vector(self.of, snapshots),
            "window": lambda: features.window(self.of, snapshots, window or self.window, self.seed),
            POSITIONS: lambda: features.positions(self.of, snapshots, window or self.window, self.seed),
        }
        return made[kind]()

    def known(self, of: Property, at: Division, updates: bool = False) -> np.ndarray:
        """(M, 1, F): the settings but this one and those that give it away, final accuracy, vector length, updates."""
        table = self.of.metadata(of, updates)
        return Design(table.take(at.train))(table)[:, None]

    def answer(self, method: str, of: Property, at: Division, place: int | None = None) -> Answer:
        """What a solver says of a division's networks; it is asked once."""
        key = (method, of.name, place, *at.key)
        if key not in self.answers:
            self.answers[key] = self.learned(method, of, at, place)
        return self.answers[key]

    def learned(self, method: str, of: Property, at: Division, place: int | None = None) -> Answer:
        """The same, learned anew: of labels that are not the property's own."""
        kind, solver = METHODS[method]
        own = kind in ("metadata", "updates")
        numbers = self.known(of, at, kind == "updates") if own else self.numbers(kind, place)
        return solve(solver, numbers, of, at, self.seed)

    def beside(self, over: str, of: Property, at: Division) -> Answer:
        """What is known without weights, beside which they are asked; of what a network looks like with what its windows cover.

        Of each tensor the mean and the most over the windows, which is its share of the vector and, where it is small, its size: one
        row a network, as trees count rows in their leaves.
        """
        if of.kind != ARCHITECTURE:
            return self.answer(over, of, at)
        key = (over, POSITIONS, of.name, *at.key)
        if key not in self.answers:
            places = self.numbers(POSITIONS)  # (M, W, tensors)
            covered = [places.mean(1, keepdims=True), places.max(1, keepdims=True)]
            numbers = np.concatenate([self.known(of, at, over == UPDATES), *covered], 2)
            self.answers[key] = solve(EITHER, numbers, of, at, self.seed)
        return self.answers[key]

    def judge(self, of: Property, at: Division, predictions: Sequence[np.ndarray]) -> Judged:
        """Predictions of each seed about the division's test networks."""
        return scoring.judge(of, predictions, at.test, self.of.groups)


def reader(of: Property) -> str:
    """The statistics that a property is read by, named before any result: of each layer; of what a network looks like, of windows.

    Statistics of layers say how many layers there are, and small tensors their size by how far their percentiles lie: of
    architectures whose values were replaced by noise, depths were still read.
    """
    return readers(of)[0]


def readers(of: Property) -> tuple[str, ...]:
    """That, and boosting on statistics of each layer, where these are no measure of the layers themselves."""
    return (WINDOWS,) if of.kind == ARCHITECTURE else ("svm", "boosting")


def by_layers_of_looks(method: str, of: Property) -> bool:
    """Whether a method would tell what a network looks like from how many statistics there are, which is no reading of weights."""
    return of.kind == ARCHITECTURE and METHODS[method][0] == "layers"


def told_by_length(of: Population, p: Property) -> bool:
    """Whether networks whose vectors are equally long all look alike: who knows the length then has nothing to gain but arithmetic."""
    pairs = np.unique(np.column_stack([of.lengths, p.values]), axis=0)
    return p.kind == ARCHITECTURE and len(pairs) == len(np.unique(of.lengths)) > 1


def askable(of: Property, at: Division) -> bool:
    """Whether two levels are there to learn, and one of those that were learned to be asked about."""
    train, test = (of.values[side][np.isfinite(of.values[side])] for side in (at.train, at.test))
    return len(np.unique(train)) > 1 and len(test) > 0
