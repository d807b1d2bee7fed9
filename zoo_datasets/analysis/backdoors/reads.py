"""Networks → what a detector reads of them: a `View` of weights as they are, aligned, sorted or since the start, or of numbers.

In:  a `Population`, the name of a reading, and for alignment a reference network. Out: a `View` of the same networks.

Alignment and sorting undo what permutations (and, of some layers, scales and signs) leave free; the way from the initial weights
needs none, for a network moves little from where it began. Trajectories are those of `trajectories.detection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from zoo_datasets import symmetry
from zoo_datasets.analysis.backdoors.population import LOSS, Population
from zoo_datasets.analysis.trajectories import detection
from zoo_datasets.baselines.groups import finite
from zoo_datasets.baselines.interface import MixedLayoutsError, View
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.networks.architecture import Architecture

NOTHING = pa.table({})
MOST_LISTED = 12  # steps in a message


def view(name: str, networks: Population, reference: np.ndarray | None) -> View:
    """The networks as the reading of that name shows them. Raises ZooError where they lack what it needs."""
    if name not in READS:
        raise ZooError(unknown("reading", name, READS))
    return READS[name](networks, reference)


def readable(name: str, p: Population) -> np.ndarray:
    """Networks (n,) bool of which the reading of that name sees numbers: what is not finite would be read as 0."""
    good = np.array([bool(np.isfinite(w).all()) for w in p.weights], bool)
    if name in ("change", "trajectory"):
        good &= [bool(np.isfinite(e).all()) for e in p.earlier]
    return good & _moved(p) if name == "trajectory" else good


def _moved(p: Population) -> np.ndarray:
    """Networks (n,) bool that are elsewhere at the second snapshot: of a trajectory that way is the unit of length."""
    return np.array([len(e) < 2 or bool((finite(e[0]) != finite(e[1])).any()) for e in p.earlier], bool)


def _raw(p: Population, reference: np.ndarray | None) -> View:
    return _weights(p, [finite(w) for w in p.weights])


def _aligned(p: Population, reference: np.ndarray | None) -> View:
    assert reference is not None, "a detector that aligns keeps the network that it aligns to"
    if len(reference) != (n := _one_layout(p).n_params):
        raise MixedLayoutsError(
            f"The networks have {n:,} weights, and the one they are to be aligned to {len(reference):,}."
        )
    return _moved_by(p, lambda rows, own: symmetry.align(rows, reference, own))


def _sorted(p: Population, reference: np.ndarray | None) -> View:
    return _moved_by(p, symmetry.canonicalize)


def _moved_by(p: Population, move: Callable[[np.ndarray, Architecture], np.ndarray]) -> View:
    """Each network moved as its own architecture allows: activations and added values decide what is free, and no layout shows them."""
    _one_layout(p)
    rows = np.stack([finite(w) for w in p.weights])
    for place in np.unique(p.architecture):
        own = p.architecture == place
        rows[own] = move(rows[own], p.architectures[place])
    return _weights(p, list(rows))


def _change(p: Population, reference: np.ndarray | None) -> View:
    check_starts("change", p)
    return _weights(p, [finite(w) - finite(e[0]) for w, e in zip(p.weights, p.earlier, strict=True)])


def _trajectory(p: Population, reference: np.ndarray | None) -> View:
    """Features of the first updates after the first kept one, the way until then being the unit of length."""
    check_starts("trajectory", p)
    rows = [detection.features(e[0], e[1], e[2:]).ravel() for e in map(finite, p.earlier)]
    values = np.clip(np.nan_to_num(np.array(rows)), -1e3, 1e3)
    return _table(p, {f"{i:03d}": values[:, i] for i in range(values.shape[1])})


def _recipe(p: Population, reference: np.ndarray | None) -> View:
    return _numbers(p, p.recipe)


def _loss(p: Population, reference: np.ndarray | None) -> View:
    return _table(p, dict(zip(LOSS, p.loss.T, strict=True)))


def _accuracy(p: Population, reference: np.ndarray | None) -> View:
    return _table(p, {LOSS[1]: p.loss[:, 1]})


def _by_class(p: Population, reference: np.ndarray | None) -> View:
    # A class without an image has no accuracy, and a column of its own says nothing of who is told from whom.
    return _table(p, {f"{c:04d}": np.nan_to_num(p.classes[:, c]) for c in range(p.classes.shape[1])})


def _all_but_weights(p: Population, reference: np.ndarray | None) -> View:
    """Recipe, loss and accuracies together: who knows the source and the learning rate sees a loss that is small beside theirs."""
    columns = {name: p.recipe[name] for name in p.recipe.column_names}
    columns |= {name: pa.array(values) for name, values in zip(LOSS, p.loss.T, strict=True)}
    columns |= {f"accuracy of {c:04d}": pa.array(np.nan_to_num(p.classes[:, c])) for c in range(p.classes.shape[1])}
    return _numbers(p, pa.table(columns))


READS: Mapping[str, Callable[[Population, np.ndarray | None], View]] = {
    "weights": _raw, "aligned": _aligned, "sorted": _sorted, "change": _change, "trajectory": _trajectory,
    "recipe": _recipe, "loss": _loss, "accuracy": _accuracy, "classes": _by_class, "all but weights": _all_but_weights,
}  # fmt: skip


def _weights(p: Population, vectors: list[np.ndarray]) -> View:
    return View(p.architectures, p.architecture, vectors, _empty(len(p)))


def _table(p: Population, columns: Mapping[str, np.ndarray]) -> View:
    return _numbers(p, pa.table({k: pa.array(np.asarray(v, np.float64)) for k, v in columns.items()}))


def _numbers(p: Population, recipe: pa.Table) -> View:
    return View(p.architectures, p.architecture, [w[:0] for w in p.weights], recipe)


def _empty(n: int) -> pa.Table:
    return pa.table({"": pa.nulls(n)})  # a table that has its rows counted by a column which says nothing


def _one_layout(p: Population) -> Architecture:
    return View(p.architectures, p.architecture, [], NOTHING).layout


def check_starts(reading: str, p: Population) -> None:
    """Raises ZooError where networks lack the initial weights, or the first updates, that a reading needs."""
    if not p.starts.all():
        raise ZooError(
            f"Of {len(p):,} networks {int((~p.starts).sum()):,} have no initial weights, and this detector reads what changed "
            "since the start. Build the zoo with `snapshots: {steps: [0, …]}`, or take a detector that reads the last weights."
        )
    counts = {len(e) for e in p.earlier}
    if reading == "trajectory" and len(p) and (len(counts) != 1 or min(counts) < 3):
        raise ZooError(
            f"The networks keep {min(counts)} to {max(counts)} snapshots before the last, and trajectories need as many of "
            "each, three at least, of which the first is the start: `snapshots: {steps: [0, 20, 80]}`."
        )
    if reading == "trajectory" and len(schedules := sorted(set(p.steps))) > 1:
        raise ZooError(
            f"Networks keep snapshots at steps {listed(schedules[0])} and others at {listed(schedules[1])}, and trajectories are "
            "compared step by step. Take networks of one schedule, or a detector that reads the last weights."
        )
    if reading == "trajectory" and (still := int((~_moved(p)).sum())):
        raise ZooError(
            f"Of {len(p):,} networks {still:,} are at the second snapshot where they started, and that way is the unit of length of "
            "a trajectory. Leave them out, or take a detector that reads the last weights."
        )


def listed(steps: Sequence[int]) -> str:
    """A schedule in words: `0, 20, 80`."""
    return ", ".join(map(str, steps[:MOST_LISTED])) + (
        f", … ({len(steps):,} in all)" if len(steps) > MOST_LISTED else ""
    )
