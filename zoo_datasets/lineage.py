"""Two zoos, one continued from the other → tasks on pairs of networks: do they belong together, and which came first.

In:  a zoo of parents and a zoo whose models start from them. Out: for each baseline its AUC and accuracy on lineages that
     it never saw, with intervals over lineages: a file, a table, and lines of the table that `bench` keeps.

`same_lineage` pairs the weights that a child starts from with a snapshot of it, or with one of a stranger's child; strangers that
were trained at another rate are among them wherever there are any. `parent` shows a true pair in drawn order and asks
which came first. Only snapshots after the transient are asked about, rows are shuffled, and no id is shown. Distances tell
the first at once and can say nothing of the second; how the statistics of each tensor move tells what a direction is worth.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from zoo_datasets import intervals, metrics, split_files, symmetry
from zoo_datasets.baselines.groups import finite
from zoo_datasets.baselines.interface import Target, View
from zoo_datasets.baselines.tabular import Boosting, Ridge
from zoo_datasets.core import files, libraries, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.format import splits
from zoo_datasets.intervals import Interval
from zoo_datasets.reading.selection import Selection
from zoo_datasets.results import MOST_BYTES, VERSIONS
from zoo_datasets.targets import TaskError
from zoo_datasets.tasks import prefix
from zoo_datasets.views.per_tensor import statistics
from zoo_datasets.zoo import Zoo

log = logging.getLogger("zoo_datasets")

VERSION, FORMAT = 1, 3  # of the tasks, of their files
SPLIT = "lineages"
METRICS = ("auc", "accuracy")
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
    """What a baseline on pairs does; `predict` gives (n,) scores, larger for y = 1, from 0 to 1. A second `fit` forgets the first."""

    parameters: int

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
    most = np.zeros(model.max(initial=-1) + 1, np.int64)
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
        self.features, self.make = features, solver
        self.known: list[tuple[View, View, np.ndarray]] = []  # aligning takes longer than a hundred fits

    def fit(self, a: View, b: View, y: np.ndarray) -> None:
        self.solver = self.make()
        self.solver.fit(self._of(a, b), y.astype(np.float64))
        self.parameters = int(self.solver.size)

    def predict(self, a: View, b: View) -> np.ndarray:
        return np.asarray(self.solver.predict(self._of(a, b))[:, 1])

    def _of(self, a: View, b: View) -> np.ndarray:
        """Numbers of these very views, worked out once: shuffles ask about the same ones."""
        for first, second, numbers in self.known:
            if first is a and second is b:
                return numbers
        self.known.append((a, b, self.features(a, b)))
        return self.known[-1][2]


class Monotone:
    """The one statistic whose move from `a` to `b` has the best AUC in training, and its direction."""

    def fit(self, a: View, b: View, y: np.ndarray) -> None:
        found = np.array([metrics.auc(y, column) for column in moves(a, b).T])
        self.column = int(np.nanargmax(np.abs(found - 0.5)))
        self.sign = 1.0 if found[self.column] >= 0.5 else -1.0
        self.scores = np.sort(self.sign * moves(a, b)[:, self.column])
        self.shares = np.cumsum(np.ones(len(y))) / len(y)
        self.parameters = 2 + len(self.scores)

    def predict(self, a: View, b: View) -> np.ndarray:
        """Where the move lies among those of training, half of which belong to each answer."""
        return np.interp(self.sign * moves(a, b)[:, self.column], self.scores, self.shares)


def distances(a: View, b: View) -> np.ndarray:
    """(n, 1): logarithm of the distance of the two vectors."""
    return _distances(*_both(a, b))


def aligned_distances(a: View, b: View) -> np.ndarray:
    """(n, 1): the same, after the units of `b` are permuted to match those of `a`, as far as its own architecture lets them."""
    first, second = _both(a, b)
    own = [b.architectures[place] for place in b.architecture]
    return _distances(first, np.stack([symmetry.align(w, v, of) for v, w, of in zip(first, second, own, strict=True)]))


def moves(a: View, b: View) -> np.ndarray:
    """(n, tensors · numbers): how the statistics of each tensor change from `a` to `b`."""
    first, second = (statistics(w, a.layout.layout).reshape(len(a), -1) for w in _both(a, b))
    return np.asarray(second - first)


def _both(a: View, b: View) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of both, (n, P) each; of networks that nearly diverged none beyond what any other reader sees."""
    return finite(a.matrix), finite(b.matrix)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.linalg.norm(np.subtract(first, second, dtype=np.float64), axis=1) + 1e-12)[:, None])


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
    parameters: int
    cpu_s: float  # of one fit and its answers


def solve(of: Mapping[str, Pairs], shuffles: int = 0) -> Iterator[Answer]:
    """Every baseline, and so many shuffles of the answers of training for each."""
    train, test = of["train"], of["test"]
    for name, make in BASELINES.items():
        began, solver = time.process_time(), make()
        given = _given(solver, train, train.y, test)
        spent, parameters = time.process_time() - began, solver.parameters
        null = []
        for k in range(shuffles):
            y = streams.generator("pairs", k).permutation(train.y)
            null.append(metrics.auc(test.y, _given(solver, train, y, test)))
        yield Answer(
            name, intervals.score("auc", test.y, given, test.groups),
            intervals.score("accuracy", test.y, (given > 0.5).astype(np.int64), test.groups), tuple(null), parameters, spent,
        )  # fmt: skip


def _given(solver: PairBaseline, train: Pairs, y: np.ndarray, test: Pairs) -> np.ndarray:
    solver.fit(train.a, train.b, y)
    return solver.predict(test.a, test.b)


def solved(
    parents: Zoo, children: Zoo, task: str, out: Path, shuffles: int = 0, limit: int | None = None,
    commit: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What is asked and what every baseline reached, from a file in `out` where it is there; `limit` takes the first children
    by plan order. Raises TaskError where the zoos are no parents and children."""
    limit = limit if limit is not None and limit < children.manifest.counts.n_models else None
    digests = [split_files.zoo_digest(z) for z in (parents, children)]
    asked_of = [_snapshots_digest(z) for z in (parents, children)]
    key = streams.digest([FORMAT, *digests, *asked_of, task, VERSION, shuffles, *([] if limit is None else [limit])])
    path = out / f"pairs-{key[:16]}.json"
    if (known := _known(path)) is not None:
        return known
    of = pairs(parents, prefix(children, limit), task)
    about = {"kind": "pairs", "format": FORMAT, "task": task, "version": VERSION, "limit": limit, "commit": commit}
    about |= {"zoos": [parents.name, children.name], "digests": digests, "snapshots": asked_of}
    about["versions"] = libraries.versions(VERSIONS)
    n = {s: {"pairs": len(p), "lineages": len(set(p.groups.tolist()))} for s, p in of.items()}
    rows = [dataclasses.asdict(a) for a in solve(of, shuffles)]
    files.write_atomic(path, json.dumps(jsonable({**about, "n": n, "rows": rows}), indent=1) + "\n")
    return dict(json.loads(path.read_bytes()))


def _known(path: Path) -> dict[str, Any] | None:
    """What a file says that was made before; None where there is none, or it is damaged and is made again."""
    if not path.exists():
        return None
    try:
        found = dict(json.loads(files.read_bounded(path, MOST_BYTES)))
        markdown(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read (%s); its table is made again.", path, type(error).__name__)
        return None
    return found


def _snapshots_digest(zoo: Selection) -> str:
    """Of which models and snapshots a selection has, in its order, by which pairs are drawn."""
    return streams.digest([zoo.column(name).to_pylist() for name in ("model_id", "step")])[:32]


def markdown(kept: Mapping[str, Any]) -> str:
    """The table of what `solved` gives."""
    counts = ", ".join(f"{n['pairs']:,} {s} ({n['lineages']:,} lineages)" for s, n in kept["n"].items())
    lines = [f"### {_name(kept)}, with parents of {kept['zoos'][0]}", "", f"Pairs: {counts}.", ""]
    lines += ["| baseline | AUC | accuracy | shuffled (AUC) | parameters | CPU-s |", "|---|---|---|---|---|---|"]
    for row in sorted(kept["rows"], key=lambda r: -(r["auc"]["value"] or 0.0)):
        null = _null(row)
        shown = f"[{null['null_low']:.3f}, {null['null_high']:.3f}]" if null else "–"
        scores = " | ".join(_shown(row[m]) for m in METRICS)
        lines.append(f"| {row['baseline']} | {scores} | {shown} | {row['parameters']:,} | {row['cpu_s']:,.1f} |")
    return "\n".join([*lines, ""])


def lines(kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `solved` gives, a line for each baseline and metric, in columns of the table that `bench` keeps."""
    about = {
        "zoo": kept["zoos"][1], "zoo_digest": kept["digests"][1], "split": SPLIT, "target": kept["task"], "task": _name(kept),
        "n_train": kept["n"]["train"]["pairs"], "seeds": 1,
    }  # fmt: skip
    return [
        {
            **about, "baseline": row["baseline"], "parameters": row["parameters"], "cpu_s": row["cpu_s"], "metric": metric,
            **{k: row[metric][k] for k in ("value", "low", "high", "method", "n_groups")}, "n": row[metric]["n_examples"],
            **(_null(row) if metric == "auc" else {}),
        }
        for row in kept["rows"]
        for metric in METRICS
    ]  # fmt: skip


def asked(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The task in words, as `tasks.asked` says those on networks."""
    (parents, children), (digest_of_parents, digest) = kept["zoos"], kept["digests"]
    return {
        "name": _name(kept),
        "population": {"zoo": children, "digest": digest, "limit": kept["limit"]},
        "parents": {"zoo": parents, "digest": digest_of_parents},
        "filter": f"snapshots that children start from, and theirs after {TRANSIENT:.0%} of their steps",
        "target": kept["task"], "kind": "class", "classes": 2,
        "split": {"name": SPLIT, "rule": {"by": "hash of the lineage", "shares": SHARES}},
        "learned_from": kept["n"]["train"], "asked_of": {"zoo": children, **kept["n"]["test"]},
        "version": kept["version"], "metrics": list(METRICS),
    }  # fmt: skip


def _name(kept: Mapping[str, Any]) -> str:
    return f"{kept['zoos'][1]}/{kept['task']}@{kept['version']}"


def _null(row: Mapping[str, Any]) -> dict[str, Any]:
    """The middle 95% of AUC after shuffles; nothing where none was made."""
    null = [v for v in row["shuffled"] if v is not None]
    if not null:
        return {}
    low, high = np.quantile(null, [0.025, 0.975])
    return {"null_low": float(low), "null_high": float(high), "shuffles": len(null)}


def _shown(of: Mapping[str, Any]) -> str:
    if of["value"] is None:
        return "–"
    bounds = f"[{of['low']:.3f}, {of['high']:.3f}]" if of["low"] is not None else f"({of['note']})"
    return f"{of['value']:.3f} {bounds}"
