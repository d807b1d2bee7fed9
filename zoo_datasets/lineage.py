"""Two zoos, one continued from the other → tasks on pairs of networks: do they belong together, and which came first.

In:  a zoo of parents and a zoo whose models start from them. Out: for each baseline its AUC and accuracy on lineages that
     it never saw, with intervals over lineages.

`same_lineage` pairs the weights that a child starts from with a snapshot of it, or with one of a stranger's child; strangers that
were trained at another rate are among them wherever there are any. `parent` shows a true pair in drawn order and asks
which came first. Only snapshots after the transient are asked about, rows are shuffled, and no id is shown. Distances tell
the first at once and can say nothing of the second; how the statistics of each tensor move tells what a direction is worth.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from zoo_datasets import intervals, metrics, split_files, symmetry
from zoo_datasets.baselines.interface import Target, View
from zoo_datasets.baselines.tabular import Boosting, Ridge
from zoo_datasets.core import files, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.format import splits
from zoo_datasets.intervals import Interval
from zoo_datasets.reading.selection import Selection
from zoo_datasets.targets import TaskError
from zoo_datasets.tasks import prefix
from zoo_datasets.views.per_tensor import statistics
from zoo_datasets.zoo import Zoo

VERSION = 1
TASKS = ("same_lineage", "parent")
TRANSIENT = 0.25  # of a child's steps, in which every distance from the parent still tells the order
SHARES = {"train": 0.6, "test": 0.4}
ASKED = Target("pair", classes=2)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """n pairs of networks of one architecture, and what is true of each."""

    a: View
    b: View
    y: np.ndarray  # (n,) int64: 1 where they belong together, or where `a` came first
    groups: np.ndarray  # (n,) str: the lineage of `b`, of a stranger's pair too

    def __len__(self) -> int:
        return len(self.y)


class PairBaseline(Protocol):
    """What a baseline on pairs does; `predict` gives (n,) scores, larger for y = 1, from 0 to 1."""

    def fit(self, a: View, b: View, y: np.ndarray) -> None: ...
    def predict(self, a: View, b: View) -> np.ndarray: ...


# ── tasks ─────────────────────────────────────────────────────────────────────────────


def pairs(parents: Zoo, children: Zoo, task: str) -> dict[str, Pairs]:
    """Side → pairs; sides are of whole lineages. Raises TaskError where the zoos are no parents and children."""
    if task not in TASKS:
        raise TaskError(f"Unknown task on pairs {task!r}. Known: {', '.join(TASKS)}.")
    known = set(parents.models["model_id"].to_pylist())
    start = dict(
        zip(
            children.models["model_id"].to_pylist(),
            zip(*(children.models[c].to_pylist() for c in ("parent_id", "parent_step")), strict=True),
            strict=True,
        )
    )
    later = _after_transient(children)
    own = [start[m] for m in later.column("model_id").to_pylist()]
    rows_known = np.array([parent in known for parent, _ in own], bool)
    if not rows_known.any():
        raise TaskError(
            f"No model of {children.name} starts from one of {parents.name}: pairs are asked of a zoo and one that goes on from it."
        )
    later, own = later.take(np.flatnonzero(rows_known)), [s for s, k in zip(own, rows_known, strict=True) if k]
    starts = sorted(set(own))
    place = {s: i for i, s in enumerate(starts)}
    first = parents.take(np.array([parents.position(*s) for s in starts]))
    keys = split_files.group_keys(parents, children)
    lineages = np.array([keys[parent] for parent, _ in starts])
    rng = np.random.default_rng(int(streams.digest([split_files.zoo_digest(children), task, VERSION])[:16], 16))
    side = np.array([splits.by_hash(keys[parent], SHARES) for parent, _ in own], object)
    drawn = _Drawn(first, later, lineages, _rates(first), rng)
    found = {}
    for name in SHARES:
        rows = np.flatnonzero(side == name)
        of = np.array([place[own[i]] for i in rows], np.int64)
        if (count := len(set(lineages[of].tolist()))) < 2:
            raise TaskError(f"{children.name}: {count} lineages are left for {name}; pairs need two.")
        found[name] = drawn.belonging(of, rows) if task == TASKS[0] else drawn.ordered(of, rows)
    return found


def _after_transient(children: Zoo) -> Selection:
    steps = np.asarray(children.column("step").to_numpy(), np.int64)
    _, model = np.unique(children.column("model_id").to_numpy(zero_copy_only=False), return_inverse=True)
    most = np.zeros(model.max() + 1, np.int64)
    np.maximum.at(most, model, steps)
    return children.take(np.flatnonzero(steps >= np.maximum(1, TRANSIENT * most[model])))


def _rates(zoo: Selection) -> np.ndarray:
    known = "lr" in zoo.models.column_names
    return np.asarray(zoo.column("lr").to_numpy()) if known else np.zeros(len(zoo))


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """How pairs are drawn: from the snapshots that children start from, and theirs after the transient."""

    first: Selection
    later: Selection
    lineages: np.ndarray  # of each of `first`
    rates: np.ndarray
    rng: np.random.Generator

    def belonging(self, of: np.ndarray, rows: np.ndarray) -> Pairs:
        """Each snapshot once with its parent, and once with another's, of another rate where one has any."""
        all_of_side = np.unique(of)
        strangers = []
        for parent in of:
            others = all_of_side[self.lineages[all_of_side] != self.lineages[parent]]
            unlike = others[self.rates[others] != self.rates[parent]]
            strangers.append(self.rng.choice(unlike if len(unlike) and self.rng.random() < 0.5 else others))
        a, b = np.concatenate([of, strangers]).astype(np.int64), np.concatenate([rows, rows])
        y = np.concatenate([np.ones(len(rows), np.int64), np.zeros(len(rows), np.int64)])
        order = self.rng.permutation(len(y))
        groups = self.lineages[np.concatenate([of, of])]
        return Pairs(_view(self.first, a[order]), _view(self.later, b[order]), y[order], groups[order])

    def ordered(self, of: np.ndarray, rows: np.ndarray) -> Pairs:
        """Each true pair once, the parent first in half of them."""
        order = self.rng.permutation(len(rows))
        before, after, y = _view(self.first, of[order]), _view(self.later, rows[order]), np.arange(len(rows)) % 2
        both = list(zip(before.vectors, after.vectors, strict=True))
        a = [p if first else q for (p, q), first in zip(both, y, strict=True)]
        b = [q if first else p for (p, q), first in zip(both, y, strict=True)]
        mixed = self.rng.permutation(len(rows))
        views = [dataclasses.replace(before, vectors=v).take(mixed) for v in (a, b)]
        return Pairs(views[0], views[1], y[mixed], self.lineages[of[order]][mixed])


def _view(zoo: Selection, rows: np.ndarray) -> View:
    """Networks of one architecture; rows may come twice. Raises TaskError."""
    ids = set(zoo.column("architecture_id").to_pylist())
    if len(ids) != 1:
        raise TaskError(f"{zoo.name} mixes {len(ids)} architectures; pairs are asked of one.")
    architecture = zoo.manifest.architecture(str(ids.pop()), "a network of the task").built()
    weights = np.asarray(zoo.weights[:])
    return View(
        (architecture,), np.zeros(len(rows), np.int64), list(weights[rows]), pa.table({"": pa.nulls(len(rows))})
    )


# ── baselines ─────────────────────────────────────────────────────────────────────────


class _OnFeatures:
    """A solver on numbers of a pair."""

    def __init__(self, features: Callable[[View, View], np.ndarray], solver: Callable[[], Any]) -> None:
        self.features, self.solver = features, solver()

    def fit(self, a: View, b: View, y: np.ndarray) -> None:
        self.solver.fit(self.features(a, b), y.astype(np.float64))

    def predict(self, a: View, b: View) -> np.ndarray:
        return np.asarray(self.solver.predict(self.features(a, b))[:, 1])


class Monotone:
    """The one statistic whose move from `a` to `b` has the best AUC in training, and its direction."""

    def fit(self, a: View, b: View, y: np.ndarray) -> None:
        found = np.array([metrics.auc(y, column) for column in moves(a, b).T])
        self.column = int(np.nanargmax(np.abs(found - 0.5)))
        self.sign = 1.0 if found[self.column] >= 0.5 else -1.0
        self.scores = np.sort(self.sign * moves(a, b)[:, self.column])
        self.shares = np.cumsum(np.ones(len(y))) / len(y)

    def predict(self, a: View, b: View) -> np.ndarray:
        """Where the move lies among those of training, half of which belong to each answer."""
        return np.interp(self.sign * moves(a, b)[:, self.column], self.scores, self.shares)


def distances(a: View, b: View) -> np.ndarray:
    """(n, 1): logarithm of the distance of the two vectors."""
    return np.asarray(np.log(np.linalg.norm(a.matrix - b.matrix, axis=1) + 1e-12)[:, None], np.float64)


def aligned_distances(a: View, b: View) -> np.ndarray:
    """(n, 1): the same, after the units of `b` are permuted to match those of `a`."""
    matched = [symmetry.align(w[None], v, b.layout)[0] for v, w in zip(a.matrix, b.matrix, strict=True)]
    return np.asarray(np.log(np.linalg.norm(a.matrix - np.stack(matched), axis=1) + 1e-12)[:, None], np.float64)


def moves(a: View, b: View) -> np.ndarray:
    """(n, tensors · numbers): how the statistics of each tensor change from `a` to `b`."""
    first, second = (statistics(v.matrix, v.layout.layout).reshape(len(v), -1) for v in (a, b))
    return np.asarray(second - first)


def _changes(a: View, b: View) -> np.ndarray:
    found = moves(a, b)
    return np.hstack([found, np.abs(found), distances(a, b)])


BASELINES: dict[str, Callable[[], PairBaseline]] = {
    "distance": lambda: _OnFeatures(distances, lambda: Ridge(ASKED, 1e-3)),
    "aligned-distance": lambda: _OnFeatures(aligned_distances, lambda: Ridge(ASKED, 1e-3)),
    "monotone": Monotone,
    "statistics": lambda: _OnFeatures(_changes, lambda: Boosting(ASKED, 0.1, 15, 0)),
}


# ── results ───────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a baseline reached on a task, and after its training answers were shuffled."""

    baseline: str
    auc: Interval
    accuracy: Interval
    shuffled: tuple[float, ...]  # AUC after each shuffle


def solve(of: Mapping[str, Pairs], shuffles: int = 0) -> Iterator[Answer]:
    """Every baseline, and so many shuffles of the answers of training for each."""
    train, test = of["train"], of["test"]
    for name, make in BASELINES.items():
        given = _given(make, train, train.y, test)
        null = []
        for k in range(shuffles):
            y = streams.generator("pairs", k).permutation(train.y)
            null.append(metrics.auc(test.y, _given(make, train, y, test)))
        yield Answer(
            name, intervals.score("auc", test.y, given, test.groups),
            intervals.score("accuracy", test.y, (given > 0.5).astype(np.int64), test.groups), tuple(null),
        )  # fmt: skip


def _given(make: Callable[[], PairBaseline], train: Pairs, y: np.ndarray, test: Pairs) -> np.ndarray:
    solver = make()
    solver.fit(train.a, train.b, y)
    return solver.predict(test.a, test.b)


def report(
    parents: Zoo, children: Zoo, tasks: Sequence[str], out: Path, shuffles: int = 0, limit: int | None = None
) -> str:
    """The tables of the tasks, from a file in `out` where it is there; `limit` takes the first children by plan order."""
    pages = []
    limit = limit if limit is not None and limit < children.manifest.counts.n_models else None
    children = prefix(children, limit)
    for task in tasks:
        of = pairs(parents, children, task)
        digests = [split_files.zoo_digest(z) for z in (parents, children)]
        path = (
            out
            / f"pairs-{streams.digest([*digests, task, VERSION, shuffles, *([] if limit is None else [limit])])[:16]}.json"
        )
        if not path.exists():
            rows = [dataclasses.asdict(a) for a in solve(of, shuffles)]
            about = {"task": task, "version": VERSION, "zoos": [parents.name, children.name], "digests": digests}
            n = {s: {"pairs": len(p), "lineages": len(set(p.groups.tolist()))} for s, p in of.items()}
            files.write_atomic(
                path, json.dumps(jsonable({"kind": "pairs", **about, "n": n, "rows": rows}), indent=1) + "\n"
            )
        kept = json.loads(path.read_bytes())
        counts = ", ".join(f"{n['pairs']:,} {s} ({n['lineages']:,} lineages)" for s, n in kept["n"].items())
        lines = [f"### {children.name}/{task}@{VERSION}, with parents of {parents.name}", "", f"Pairs: {counts}.", ""]
        lines += ["| baseline | AUC | accuracy | shuffled (AUC) |", "|---|---|---|---|"]
        for row in sorted(kept["rows"], key=lambda r: -(r["auc"]["value"] or 0.0)):
            null = [v for v in row["shuffled"] if v is not None]
            shown = "[{:.3f}, {:.3f}]".format(*np.quantile(null, [0.025, 0.975])) if null else "–"
            lines.append(f"| {row['baseline']} | {_shown(row['auc'])} | {_shown(row['accuracy'])} | {shown} |")
        pages.append("\n".join([*lines, ""]))
    return "\n".join(pages)


def _shown(of: Mapping[str, Any]) -> str:
    if of["value"] is None:
        return "–"
    bounds = f"[{of['low']:.3f}, {of['high']:.3f}]" if of["low"] is not None else f"({of['note']})"
    return f"{of['value']:.3f} {bounds}"
