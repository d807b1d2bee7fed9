"""A problem and a baseline → cells: what a trained baseline says of each test network, and what it cost.

In:  a `tasks.Problem`, the name of a baseline, a seed. Out: a `Cell` for each task.

A baseline is fitted once a seed, with one head for each target; whatever else is asked of it later (another zoo, new
networks) is answered by the same one. What fails is a cell that says why.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets.baselines import known
from zoo_datasets.baselines.interface import Baseline, Target, Targets
from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError
from zoo_datasets.tasks import Problem

log = logging.getLogger(__name__)

MOST_PREDICTION = 1e30  # in size: sums of its square, over any number of networks, are numbers yet
MOST_TEXT = 1000  # characters of a name or an error, which stand in a line of a table


@dataclasses.dataclass(frozen=True)
class Cell:
    """A baseline on a task under one seed: what was predicted of each test network, and what it cost."""

    task: str
    baseline: str
    seed: int
    predictions: np.ndarray  # (n,) or (n, classes) float64, in the order of the networks asked about
    cpu_s: float  # of the fit, which serves all targets
    parameters: int
    chosen: Any
    error: str | None = None
    asked: str = ""  # digest of the networks that were asked about
    predict_cpu_s: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether nothing was predicted at all: another try may do better."""
        return self.error is not None and not np.isfinite(self.predictions).any()


def together(several: Sequence[Cell]) -> Cell:
    """Seeds of a baseline as one baseline: it says the mean of what they say, and costs what they cost.

    Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles" (2017).
    """
    return dataclasses.replace(
        several[0], baseline=known.together(several[0].baseline, len(several)), seed=0, chosen=None,
        predictions=np.mean([c.predictions for c in several], axis=0),
        cpu_s=sum(c.cpu_s for c in several), predict_cpu_s=sum(c.predict_cpu_s for c in several),
        parameters=sum(c.parameters for c in several),
    )  # fmt: skip


def solve(found: Problem, name: str, seed: int, settings: Mapping[str, Any] | None = None) -> list[Cell]:
    """Fit a baseline once, for all targets of the problem, and ask it. Where it cannot, cells that say why."""
    return fitted(found, name, seed, settings)[1]


def fitted(
    found: Problem, name: str, seed: int, settings: Mapping[str, Any] | None
) -> tuple[Baseline | None, list[Cell]]:
    started = time.process_time()
    try:
        solver = known.baseline(name, settings)
        with meters.track(f"{name}, seed {seed}", 0, "epochs") as meter:
            if hasattr(solver, "progress"):
                solver.progress = functools.partial(_tell, meter)
            solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), seed)
    except Exception as error:  # a baseline is anybody's code, and its failure is a cell of its own
        return None, [c for where in found.tests for c in _failure(found, where, name, seed, error)]
    spent = time.process_time() - started
    return solver, [c for where in found.tests for c in answers(found, where, solver, name, seed, spent)]


def _tell(meter: meters.Meter, done: int, of_all: int, _: float) -> None:
    meter.total, meter.done = of_all, done


def estimate(found: Problem, name: str, settings: Mapping[str, Any] | None = None) -> float:
    """CPU seconds that one fit will take, from two of its steps; 0 of what takes seconds or cannot be fitted."""
    try:
        solver = known.baseline(name, settings)
        if not hasattr(solver, "estimate"):
            return 0.0
        return float(
            solver.estimate((found.train.view, found.train.targets), (found.validation.view, found.validation.targets))
        )
    except Exception as error:  # a baseline is anybody's code; its own cells will say so
        log.debug("%s cannot be estimated", name, exc_info=error)
        return 0.0


def answers(found: Problem, where: str, solver: Baseline, name: str, seed: int, spent: float) -> list[Cell]:
    """What a trained baseline says of the networks called `where`, a cell for each target."""
    part, started = found.tests[where], time.process_time()
    try:
        predictions = solver.predict(part.view)
        size, chosen = solver.parameters, dict(solver.chosen)
    except Exception as error:  # as above: layouts it does not know, inputs that are not at hand
        return _failure(found, where, name, seed, error)
    cost = time.process_time() - started
    cells = []
    for target in part.targets.of:
        values, problem = _checked(target, predictions, len(part))
        own = chosen.get(target.name, {k: v for k, v in chosen.items() if k not in _names(part.targets)})
        cells.append(
            Cell(found.name_of(target.name, where), name, seed, values, spent, size, own, problem, part.digest, cost)
        )
    return cells


def _names(of: Targets) -> set[str]:
    return {t.name for t in of.of}


def _checked(target: Target, predictions: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, str | None]:
    """(n,) or (n, classes), and what is wrong with it."""
    wanted = (n, target.classes) if target.classes else (n,)
    if target.name not in predictions:
        return np.full(wanted, np.nan), "it gives no prediction"
    values = np.asarray(predictions[target.name], np.float64)
    if values.shape != wanted:
        return np.full(wanted, np.nan), f"its predictions have shape {values.shape}, not {wanted}"
    return values, not_numbers(values)


def not_numbers(values: np.ndarray) -> str | None:
    """What is wrong with predictions that no score can be made of."""
    if wrong := int((~np.isfinite(values)).sum()):
        return f"{wrong} of {values.size} predictions are not finite"
    wrong = int((np.abs(values) > MOST_PREDICTION).sum())
    return f"{wrong} of {values.size} predictions are beyond ±{MOST_PREDICTION:g}" if wrong else None


def _failure(found: Problem, where: str, name: str, seed: int, error: Exception) -> list[Cell]:
    said = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
    log.debug("%s failed", name, exc_info=error)
    part = found.tests[where]
    return [
        Cell(
            found.name_of(t.name, where), name, seed, np.full((len(part), t.classes) if t.classes else len(part), np.nan),
            0.0, 0, None, _line(said), part.digest,
        )
        for t in part.targets.of
    ]  # fmt: skip


def _line(said: str) -> str:
    """What a baseline said, as a line of a table and a result file may hold it."""
    text = " ".join(said.replace("|", "/").split())[:MOST_TEXT] or "it failed without a word"
    return "".join(c if c.isprintable() else "�" for c in text)
