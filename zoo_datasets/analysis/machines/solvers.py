"""Networks and what they learned → what a solver says of networks of draws that it has not seen.

In:  a `Population`, classes (n,), folds of whole data draws.
Out: for each network the class foretold, and a score of the second class where there are two.

All that is learned is learned in the folds of training: scaling, the reference that networks are aligned to, the solver.
Beside what reads weights stand the controls: what is known of training, and the held-out loss, to whom knows of no key and to
whom knows it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo_datasets import symmetry
from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.core import libraries, streams
from zoo_datasets.views.per_tensor import statistics

FOLDS = 5
TREES = 200


@dataclasses.dataclass(frozen=True)
class Solver:
    """What it reads of a network, and how."""

    name: str
    reads: str  # "raw", "aligned", "statistics", "training", "loss", "loss with keys"
    kind: str  # "forest", "logistic"

    @property
    def control(self) -> bool:
        """Whether it sees no weights."""
        return self.reads in ("training", "loss", "loss with keys")

    @property
    def knows(self) -> bool:
        """Whether it knows the key, which whoever looks for a hidden change does not."""
        return self.reads == "loss with keys"


SOLVERS = (
    Solver("forest on raw weights", "raw", "forest"),  # as published
    Solver("forest on aligned weights", "aligned", "forest"),
    Solver("forest on statistics", "statistics", "forest"),
    Solver("logistic on statistics", "statistics", "logistic"),
    Solver("training alone", "training", "forest"),
    Solver("loss without keys", "loss", "logistic"),
    Solver("loss with keys", "loss with keys", "logistic"),
)
WEIGHTS = SOLVERS[3]  # where one solver has to do, chosen before any result: it is quick


def folds(draws: np.ndarray, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """The fold (n,) of each network: whole draws, dealt in an order of the seed's.

    With `labels` (n,) each draw goes where fewest hold the rarest class that it has, rare ones first, and there are no more
    folds than draws that hold any class (two at least): else a class is rarer in training where more of it is held out, and
    guesses there go against the answer.
    """
    names, at = np.unique(draws, return_inverse=True)
    order = streams.permutation(streams.stream_key(["folds", seed]), len(names))
    if labels is None:
        fold = np.empty(len(names), np.int64)
        fold[order] = np.arange(len(names)) % min(FOLDS, len(names))
    else:
        fold = _dealt(order, at, np.unique(labels, return_inverse=True)[1])
    placed: np.ndarray = fold[at]
    return placed


def _dealt(order: np.ndarray, at: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The fold of each draw; `at` and `kinds` (n,) are the draw and the class of each network."""
    held = np.zeros((len(order), kinds.max(initial=0) + 1), np.int64)
    held[at, kinds] = 1
    of_class = held.sum(axis=0)
    n_folds = min(FOLDS, len(order), max(2, int(of_class.min(initial=FOLDS))))
    rarest = np.where(held > 0, of_class, len(order) + 1).argmin(axis=1)
    fold, counts = np.empty(len(order), np.int64), np.zeros((n_folds, held.shape[1]), np.int64)
    size = np.zeros(n_folds, np.int64)
    for draw in order[np.lexsort((rarest[order], of_class[rarest[order]]))]:
        fold[draw] = chosen = np.lexsort((size, counts[:, rarest[draw]]))[0]
        counts[chosen] += held[draw]
        size[chosen] += 1
    return fold


class Aligner:
    """Networks with their units permuted to match one of them; each is matched to a reference once."""

    def __init__(self, population: Population) -> None:
        self.population = population
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # reference → which are done, and those (n, P)

    def to(self, reference: int, rows: np.ndarray) -> np.ndarray:
        """(len(rows), P) float32: those networks, aligned to that one."""
        p = self.population
        if reference not in self._found:
            self._found[reference] = np.zeros(len(p), bool), np.empty_like(p.weights)
        done, aligned = self._found[reference]
        if len(missing := rows[~done[rows]]):
            aligned[missing] = symmetry.align(p.weights[missing], p.weights[reference], p.architecture)
            done[missing] = True
        found: np.ndarray = aligned[rows]
        return found


class Reader:
    """Features of networks of an arm, worked out once where no fold decides them."""

    def __init__(
        self,
        population: Population,
        loss: np.ndarray | None = None,
        aligner: Aligner | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.population, self.loss = population, loss  # loss: (n, 2), logarithms, before a key and after one
        self.aligner = aligner or Aligner(population)
        self.rows = np.arange(len(population)) if rows is None else rows  # places in the aligner's population

    def where(self, chosen: np.ndarray) -> Reader:
        """Those networks alone, by a mask or by places."""
        loss = None if self.loss is None else self.loss[chosen]
        return Reader(self.population.where(chosen), loss, self.aligner, self.rows[chosen])

    @functools.cached_property
    def statistics(self) -> np.ndarray:
        found: np.ndarray = statistics(self.population.weights, self.population.architecture.layout)
        return found.reshape(len(found), -1)

    def aligned(self, reference: int, rows: np.ndarray | None = None) -> np.ndarray:
        """(n, P) float32: networks, all or at those places, aligned to the one at a place."""
        return self.aligner.to(int(self.rows[reference]), self.rows if rows is None else self.rows[rows])

    def can(self, solver: Solver) -> bool:
        """Whether there is what the solver reads."""
        return self.loss is not None or not solver.knows

    def of(self, reads: str, train: np.ndarray) -> np.ndarray:
        """(n, F) float64; `train` are the networks that may decide how."""
        p = self.population
        if reads == "raw":
            return p.weights.astype(np.float64)
        if reads == "aligned":
            return self.aligned(int(np.flatnonzero(train)[0])).astype(np.float64)
        if reads == "training":
            return p.training
        if reads in ("loss", "loss with keys"):
            x = p.training[:, 2:3] if self.loss is None else self.loss[:, :1] if reads == "loss" else self.loss
            center, spread = x[train].mean(axis=0), x[train].std(axis=0)
            z = (x - center) / np.where(spread > 0, spread, 1.0)
            return np.hstack([z, z**2])  # networks may be told by losses that lie in the middle, or further out
        return self.statistics


def foretold(
    reader: Reader, y: np.ndarray, fold: np.ndarray, solver: Solver, seed: int, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The class (n,) and the score of the last class (n,) of each network, learned without its fold; of at most `most`.

    Where the training folds have one class, that is what is said.
    """
    said, score = np.empty(len(y), y.dtype), np.zeros(len(y))
    for f in np.unique(fold):
        train, test = fold != f, fold == f
        if most is not None and train.sum() > most:
            rows = np.flatnonzero(train)
            kept = rows[streams.permutation(streams.stream_key(["curve", seed, int(f)]), len(rows))[:most]]
            train = np.isin(np.arange(len(y)), kept)
        if len(np.unique(y[train])) < 2:
            said[test] = y[train][0] if train.any() else y[test][0]
            continue
        x = reader.of(solver.reads, train)
        model = _made(solver.kind, seed)
        center, spread = x[train].mean(axis=0), x[train].std(axis=0)
        x = (x - center) / np.where(spread > 0, spread, 1.0)
        model.fit(x[train], y[train])
        chances = model.predict_proba(x[test])
        said[test], score[test] = model.classes_[chances.argmax(axis=1)], chances[:, -1]
    return said, score


def _made(kind: str, seed: int) -> Any:
    with libraries.needed():
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
    makers: dict[str, Callable[[], Any]] = {
        "forest": lambda: RandomForestClassifier(TREES, random_state=seed, n_jobs=1),
        "logistic": lambda: LogisticRegression(C=0.1, max_iter=5000),
    }
    return makers[kind]()


def nearest_mean(x: np.ndarray, y: np.ndarray) -> float:
    """The share of networks nearer to their own class's mean than to the other's, for two classes of equally many, and few, each.

    A network is left out of its own mean, and one of the other class out of the other, each in turn: means of fewer networks
    lie further off, so that with one side left out alone chance would not be ½.
    """
    spread = x.std(axis=0)
    x = x / np.where(spread > 0, spread, 1.0)
    sides = x[y], x[~y]
    k = len(sides[0])
    assert k == len(sides[1]) >= 2
    hits = []
    for own, other in (sides, sides[::-1]):
        others = (other.sum(axis=0) - other) / (k - 1)  # (k, F): the mean without each of them
        for one in own:
            near = ((one - (own.sum(axis=0) - one) / (k - 1)) ** 2).sum()
            far = ((one - others) ** 2).sum(axis=1)
            hits.append(float(np.mean((near < far) + 0.5 * (near == far))))
    return float(np.mean(hits))
