"""Numbers of networks and a property → predictions: a support vector machine, boosted trees, or which of both validation likes better.

In:  numbers (M, W, F) of all networks, a `Division`. Out: an `Answer`: predictions about validation and test networks, each
     the mean over the W pieces of a network. What is chosen is chosen anew in every division.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo_datasets.analysis.nws.divisions import Division
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.baselines.tabular import Boosting, Constant
from zoo_datasets.baselines.vector_machine import WIDTHS, VectorMachine

SVM, BOOSTING, EITHER = "svm", "boosting", "either"
# Pieces of a network that are learned from: the time of a machine grows with the square of its rows and faster, and all are asked about.
LEARNED = 2
LEAVES = (7, 31)  # of a tree: boosting chooses between them
TRUST = (1.0, 0.5, 0.25, 0.1, 0.0)  # in what was learned, against the shares of the classes; chosen on validation
RATE, TREES = 0.1, 100  # as many as some hundred networks can use: a study is hundreds of fits


@dataclasses.dataclass(frozen=True)
class Answer:
    """Predictions (n,) or (n, classes) about the networks of a division's sides, in their order."""

    validation: np.ndarray
    test: np.ndarray
    prior: np.ndarray  # shares of the classes in training; of a number its median
    more: tuple[np.ndarray, ...] = ()  # about further numbers that were given


def solve(
    solver: str, numbers: np.ndarray, of: Property, at: Division, seed: int, more: tuple[np.ndarray, ...] = ()
) -> Answer:
    """Learn from the train side, choose on the validation side.

    `more` are numbers (n, W, F) of other networks that are asked about beside.
    """
    values = of.values
    train, validation = at.train[np.isfinite(values[at.train])], at.validation[np.isfinite(values[at.validation])]
    y, z = values[train], values[validation]
    prior = prior_of(of, y)
    best: tuple[float, float, Any] | None = None
    for machine in _settings(solver, of, seed, len(np.unique(y)) > 1 and numbers.shape[2] > 0):
        x, pieces = _rows(numbers[train][:, :LEARNED])
        machine.fit(x, np.repeat(y, pieces))
        if isinstance(machine, VectorMachine):
            machine.warm(_rows(numbers[validation])[0], np.repeat(z, numbers.shape[1]))
        # Trees of a hundred networks are surer than they are right: nothing that is mixed with them would be heard, and a
        # machine, whose temperature is chosen, would always be preferred.
        loss, trust = _trusted(of, _said(machine, numbers[validation]), z, prior)
        if best is None or loss < best[0]:
            best = loss, trust, machine
    assert best is not None
    _, trust, machine = best
    asked = (numbers[at.validation], numbers[at.test], *more)
    said = [tempered(of, _said(machine, n), trust, prior) for n in asked]
    return Answer(said[0], said[1], prior, tuple(said[2:]))


def _trusted(of: Property, said: np.ndarray, y: np.ndarray, prior: np.ndarray) -> tuple[float, float]:
    """The least loss on validation networks, and the trust at which it is had."""
    if not len(y):
        return 0.0, 1.0
    losses = [_loss(of, tempered(of, said, t, prior), y) for t in TRUST]
    best = int(np.argmin(losses))
    return losses[best], TRUST[best]


def tempered(of: Property, said: np.ndarray, trust: float, prior: np.ndarray) -> np.ndarray:
    """Between the prior (0) and what was said (1): of a class prior^(1 − trust) · p^trust, of a number by its distance."""
    if not of.target.classes:
        return np.asarray(prior[0] + trust * (said - prior[0]))
    odds = (1 - trust) * np.log(prior) + trust * np.log(np.maximum(said, 1e-6))
    odds = np.exp(odds - odds.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def prior_of(of: Property, y: np.ndarray) -> np.ndarray:
    """Shares of the classes, none of them 0; or the median."""
    if not of.target.classes:
        return np.array([np.median(y)]) if len(y) else np.zeros(1)
    counts = np.bincount(y.astype(np.int64), minlength=of.target.classes) + 1.0
    return counts / counts.sum()


def _settings(solver: str, of: Property, seed: int, learnable: bool) -> list[Any]:
    if not learnable:
        return [Constant(of.target)]
    machines: list[Any] = [VectorMachine(of.target, cost, width) for cost, width in WIDTHS]
    trees: list[Any] = [Boosting(of.target, RATE, leaves, seed, TREES) for leaves in LEAVES]
    return {SVM: machines, BOOSTING: trees, EITHER: [*machines, *trees]}[solver]


def _rows(numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """(n · W, F), and W."""
    return numbers.reshape(-1, numbers.shape[2]), numbers.shape[1]


def _said(machine: Any, numbers: np.ndarray) -> np.ndarray:
    """The mean over a network's pieces, (n,) or (n, classes)."""
    rows, pieces = _rows(numbers)
    said = machine.predict(rows) if len(rows) else np.zeros((0, max(1, machine.target.classes)))
    return np.asarray(said.reshape(len(numbers), pieces, *said.shape[1:]).mean(1))


def _loss(of: Property, said: np.ndarray, y: np.ndarray) -> float:
    if not of.target.classes:
        return float(np.abs(said - y).mean())
    return float(-np.log(np.maximum(said[np.arange(len(y)), y.astype(np.int64)], 1e-12)).mean())
