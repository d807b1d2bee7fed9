"""A population → who is learned from and who is tested, question by question.

In:  a `Population` with the zoos' splits: whole init groups, so that twins are never parted.
Out: `Cell`s: of `matched` all pairs in their splits; of `unseen X` training has the lower half of X's levels and the test the upper.

What is held out is known by its level: trigger 12 of 0 … 23 is shown to nobody who learns. Clean networks follow their twins. The pairs
that do not work are learned from by nobody, and tested beside those that do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from zoo_datasets.analysis.backdoors.population import FACTORS, Population
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError

DEAR = ("matched", "unseen trigger", "unseen source")  # the questions that dear detectors take
LIKE = "matched, as few as the yardstick"
FEWEST = 5  # trojaned networks of a side, below which a question is not asked


@dataclasses.dataclass(frozen=True)
class Cell:
    """Masks (n,) of one question."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seen: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


def cells(p: Population) -> Iterator[Cell]:
    """The questions that this population can answer. Raises ZooError where it cannot answer any."""
    sides = [p.split == s for s in ("train", "validation", "test")]
    for name, side in zip(("train", "validation", "test"), sides, strict=True):
        n = int((side & p.works & p.trojaned).sum())
        if n < (FEWEST if name != "validation" else 1):
            raise ZooError(
                f"The {name} split has {n} pairs of twins whose attack works; at least {FEWEST} are needed to learn from and to "
                "test, and one to choose by. Build more networks, or train them until the attack works."
            )
    yield Cell("matched", *(s & p.works for s in sides))
    for factor in FACTORS:
        levels = ordered(p.factors[factor][p.trojaned & p.works])
        if len(levels) < 2:
            continue
        seen, held = levels[: -(len(levels) // 2)], levels[-(len(levels) // 2) :]
        lower, upper = (p.works & p.with_twins(np.isin(p.factors[factor].astype(str), some)) for some in (seen, held))
        cell = Cell(f"unseen {factor}", sides[0] & lower, sides[1] & lower, sides[2] & upper, tuple(seen), tuple(held))
        counts = [int((m & p.trojaned).sum()) for m in (cell.train, cell.validation, cell.test)]
        if min(counts[0], counts[2]) >= FEWEST and counts[1]:
            yield cell


def as_few(p: Population, cell: Cell, n: int, seed: int) -> Cell | None:
    """The same test after learning from n networks, and as large a share of those to choose by; None where there are fewer."""
    share = cell.validation.sum() / max(cell.train.sum(), 1)
    train, validation = few(p, cell.train, n, seed), few(p, cell.validation, max(2, round(n * share)), seed)
    if train is None or validation is None or not (p.trojaned & train).any():
        return None
    return dataclasses.replace(cell, name=LIKE, train=train, validation=validation)


def few(p: Population, train: np.ndarray, n: int, seed: int) -> np.ndarray | None:
    """Of the training networks n at most, as whole pairs, the same for every detector; None where there are fewer."""
    if int(train.sum()) < n:
        return None
    numbers = np.unique(p.pair[train])
    order = numbers[streams.permutation(streams.stream_key(["few", seed]), len(numbers))]
    size = np.array([int((p.pair[train] == i).sum()) for i in order])
    return np.asarray(train & np.isin(p.pair, order[np.cumsum(size) <= n]))


def coin(p: Population, seed: int) -> np.ndarray:
    """An arm (n,) bool dealt by chance, half of all to each."""
    return np.asarray(streams.permutation(streams.stream_key(["coin", seed]), len(p)) % 2 == 1)


def ordered(values: np.ndarray) -> list[str]:
    """Levels in their order: of numbers, or of texts."""
    found = sorted(set(values.astype(str)))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found
