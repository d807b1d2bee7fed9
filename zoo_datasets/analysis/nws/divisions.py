"""Networks → who is learned from, what is chosen on, and who is asked: whole groups on one side, always.

In:  a `Population`. Out: `Division`s: the one the zoo was sealed with, five folds over all networks, one level of a
     property held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError

FOLDS = 5
CHOSEN_ON = 6  # one of so many groups that are learned from is kept for choices


@dataclasses.dataclass(frozen=True)
class Division:
    """Networks by what they are for, each (n,) int64 ascending."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def key(self) -> tuple[bytes, ...]:
        """Who is on which side: what was learned of one division is not asked about another."""
        return tuple(side.tobytes() for side in (self.train, self.validation, self.test))

    def within(self, kept: np.ndarray) -> Division:
        """The same sides of the networks that are kept, (M,) bool."""
        return Division(self.name, *(s[kept[s]] for s in (self.train, self.validation, self.test)))


def sealed(of: Population) -> Division:
    """The split the zoos were sealed with. Raises ZooError where a side is empty."""
    sides = [np.flatnonzero(of.side == s) for s in ("train", "validation", "test")]
    if not all(map(len, sides)):
        raise ZooError(f"{of.names} has too few networks for a train, a validation and a test side. Build more.")
    return Division("sealed", *sides)


def folds(of: Population, seed: int, kept: np.ndarray | None = None) -> list[Division]:
    """Five divisions that ask about every network (that is kept) once."""
    kept = np.ones(len(of), bool) if kept is None else kept
    names = np.unique(of.groups[kept])
    dealt = streams.permutation(streams.stream_key(["nws folds", seed]), len(names))
    fold_of = dict(zip(names[dealt].tolist(), (np.arange(len(names)) % FOLDS).tolist(), strict=True))
    fold = np.array([fold_of[g] if k else -1 for g, k in zip(of.groups.tolist(), kept.tolist(), strict=True)])
    found = []
    for number in range(FOLDS):
        test = np.flatnonzero(fold == number)
        rest = np.flatnonzero((fold != number) & (fold >= 0))
        found.append(_chosen_on(of, f"fold {number + 1}", rest, test, seed))
    return found


def held_out(of: Population, axis: Property, seed: int) -> Iterator[tuple[str, Division]]:
    """For each level of a class the division that never sees it while learning; of groups on both sides nothing is learned."""
    for number, level in enumerate(axis.levels):
        test = np.flatnonzero(axis.values == number)
        rest = np.flatnonzero(np.isfinite(axis.values) & ~np.isin(of.groups, of.groups[test]))
        if len(test) and len(np.unique(of.groups[rest])) > 1:
            yield level, _chosen_on(of, f"{axis.name} {level} held out", rest, test, seed)


def _chosen_on(of: Population, name: str, rest: np.ndarray, test: np.ndarray, seed: int) -> Division:
    """One in six groups of the rest, at least one, for choices."""
    groups = np.unique(of.groups[rest])
    dealt = streams.permutation(streams.stream_key(["nws choices", name, seed]), len(groups))
    kept = np.isin(of.groups[rest], groups[dealt[: max(1, len(groups) // CHOSEN_ON)]])
    return Division(name, rest[~kept], rest[kept], test)
