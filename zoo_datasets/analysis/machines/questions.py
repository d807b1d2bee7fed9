"""A population → answers with their intervals over data draws: what do weights say of the data?

In:  a `Population` of one arm, a `Reader` of its features, a seed.
Out: rows for tables, each a plain mapping. Protocol: whole draws are held out everywhere, for a class would be its draw else;
     the null is one draw's networks cut in two at random, and the yardstick is one draw against another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals, symmetry
from zoo_datasets.analysis.machines.solvers import SOLVERS, Reader, Solver, folds, foretold, nearest_mean
from zoo_datasets.core import streams

CUTS = 20  # of each machine's draws; their spread is the error bar of one
MOST_PAIRS = 30  # of draws that are compared
SIZES = (25, 50, 100, 200, 400, 800)  # of a learning curve
FEWEST = 2  # networks of a draw, so that there is a mean without one of them
POWER = (50, 150, 300)  # networks of each side


def which(reader: Reader, seed: int, solvers: Sequence[Solver] = SOLVERS) -> list[dict[str, Any]]:
    """Which machine did clean networks learn? By each solver; chance is the share of the largest class."""
    p = reader.population
    kinds, counts = np.unique(p.label, return_counts=True)
    if len(kinds) < 2:
        return []
    fold = folds(p.draw, seed)
    rows = []
    for solver in solvers:
        said, _ = foretold(reader, p.label, fold, solver, seed)
        score = intervals.score("accuracy", p.label, said, p.draw)
        each = {str(k): float((said[p.label == k] == k).mean()) for k in kinds}
        rows.append({
            "solver": solver.name, "control": solver.control, "n": len(p), "classes": len(kinds), "accuracy": score.to_json(),
            "chance": float(counts.max() / len(p)), "recall": each,
        })  # fmt: skip
    return rows


def curve(reader: Reader, seed: int, solvers: Sequence[Solver] = SOLVERS) -> list[dict[str, Any]]:
    """The same from fewer networks in training."""
    p = reader.population
    if len(np.unique(p.label)) < 2:
        return []
    fold = folds(p.draw, seed)
    largest = min(int((fold != f).sum()) for f in np.unique(fold))
    rows = []
    for solver in (s for s in solvers if s.reads in ("raw", "statistics")):
        for n in [*(s for s in SIZES if s < largest), largest]:
            said, _ = foretold(reader, p.label, fold, solver, seed, n)
            rows.append(
                {
                    "solver": solver.name,
                    "n_train": n,
                    "accuracy": intervals.score("accuracy", p.label, said, p.draw).to_json(),
                }
            )
    return rows


def modified(reader: Reader, seed: int, solvers: Sequence[Solver] = SOLVERS) -> Iterator[dict[str, Any]]:
    """Clean or modified, of one machine and dose: of networks of unseen draws alone, and of each pair of twins, which is which."""
    p = reader.population
    for label, dose in sorted({(a, b) for a, b, m in zip(p.label, p.dose, p.modified, strict=True) if m}):
        rows = np.flatnonzero((p.label == label) & (p.dose == dose))
        own = p.where(rows)
        if own.modified.all() or len(np.unique(own.draw)) < 2:
            continue
        part = Reader(own, None if reader.loss is None else reader.loss[rows])
        fold = folds(own.draw, seed)
        for solver in solvers:
            _, score = foretold(part, own.modified, fold, solver, seed)
            pairs = [
                (int(np.flatnonzero(side & ~own.modified)[0]), int(np.flatnonzero(side & own.modified)[0]))
                for t in np.unique(own.twin) if (side := own.twin == t).sum() == 2 and own.modified[side].sum() == 1
            ]  # fmt: skip
            won = np.array([float(score[b] > score[a]) + 0.5 * (score[b] == score[a]) for a, b in pairs])
            yield {
                "label": label, "dose": dose, "solver": solver.name, "control": solver.control, "n": len(own),
                "auc": intervals.score("auc", own.modified.astype(np.int64), score, own.draw).to_json(), "pairs": len(pairs),
                "paired": intervals.proportion(won, own.draw[[a for a, _ in pairs]]).to_json() if pairs else None,
            }  # fmt: skip


def yardstick(reader: Reader, seed: int) -> Iterator[dict[str, Any]]:
    """By one procedure for few networks: a draw cut in two at random, two draws, and clean against modified in one draw.

    A modification counts by what it exceeds the second by.
    """
    p, x = reader.population, reader.statistics
    for label in np.unique(p.label):
        clean, changed = ((p.label == label) & (p.modified == m) for m in (False, True))
        at = {int(d): np.flatnonzero(clean & (p.draw == d)) for d in np.unique(p.draw[clean])}
        at = {d: rows for d, rows in at.items() if len(rows) >= FEWEST}
        cuts: list[float] = []
        turn = 0
        whole = [rows for rows in at.values() if len(rows) >= 4]  # two on each side, so that one can be left out
        while whole and len(cuts) < CUTS:
            rows = whole[turn % len(whole)]
            mixed = rows[streams.permutation(streams.stream_key(["cut", seed, str(label), turn]), len(rows))]
            cuts.append(nearest_mean(x[mixed], np.arange(len(mixed)) < len(mixed) // 2))
            turn += 1
        if cuts:
            yield {
                "label": str(label),
                "what": "one draw cut in two",
                "n": len(cuts),
                "accuracy": float(np.mean(cuts)),
                "spread": float(np.std(cuts, ddof=1)),
            }
        pairs = list(itertools.combinations(at, 2))
        order = streams.permutation(streams.stream_key(["pairs", seed, str(label)]), len(pairs))[:MOST_PAIRS]
        found = [(pairs[i][0], _apart(x, at[pairs[i][0]], at[pairs[i][1]])) for i in order]
        if found:
            yield {"label": str(label), "what": "draw against draw", **_over(found)}
        twins = {d: np.flatnonzero(changed & (p.draw == d)) for d in at}
        found = [(d, _apart(x, at[d], rows, p.twin)) for d, rows in twins.items() if len(rows) >= FEWEST]
        if found:
            yield {"label": str(label), "what": "clean against modified, one draw", **_over(found)}


def _apart(x: np.ndarray, first: np.ndarray, second: np.ndarray, twin: np.ndarray | None = None) -> float:
    rows = np.concatenate([first, second])
    return nearest_mean(x[rows], np.arange(len(rows)) < len(first), None if twin is None else twin[rows])


def _over(found: list[tuple[int, float]]) -> dict[str, Any]:
    values, groups = np.array([v for _, v in found]), np.array([d for d, _ in found])
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "n": len(found),
        "accuracy": float(values.mean()),
        "spread": spread,
        "interval": intervals.mean(values, groups).to_json(),
    }


def distances(reader: Reader) -> list[dict[str, Any]]:
    """Mean distances of clean networks within machines and between, as they are and aligned to the first of each pair's machine."""
    p = reader.population
    aligned = symmetry.align(p.weights, p.weights[0], p.architecture) if len(p) else p.weights
    rows = []
    for what, weights in (("raw", p.weights), ("aligned", aligned)):
        squares = (weights.astype(np.float64) ** 2).sum(axis=1)
        apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * weights.astype(np.float64) @ weights.T, 0))
        same, other = p.label[:, None] == p.label, ~np.eye(len(p), dtype=bool)
        ratio = [
            apart[i, same[i] & other[i]].mean() / apart[i, ~same[i]].mean()
            for i in range(len(p))
            if (~same[i]).any() and (same[i] & other[i]).any()
        ]
        groups = [int(p.draw[i]) for i in range(len(p)) if (~same[i]).any() and (same[i] & other[i]).any()]
        if ratio:
            rows.append({
                "weights": what, "within": float(apart[same & other].mean()), "between": float(apart[~same].mean()),
                "ratio": intervals.mean(np.array(ratio), np.array(groups)).to_json(),
            })  # fmt: skip
    return rows


def to_data(reader: Reader) -> list[dict[str, Any]]:
    """How far a network is from data: the rank of its own draw among all, by the distance to the mean of each draw's others.

    Aligned to one network of another draw; 0 is the nearest, and ½ what chance gives.
    """
    p, rows = reader.population, []
    for label in np.unique(p.label):
        own = p.where(p.label == label)
        draws, counts = np.unique(own.draw, return_counts=True)
        draws = draws[counts >= 2]
        if len(draws) < 2:
            continue
        ranks, groups = [], []
        # Two references are enough for each network to have one of another draw.
        first = [own.weights[int(np.flatnonzero(own.draw == d)[0])] for d in draws[:2]]
        aligned = [symmetry.align(own.weights, reference, own.architecture).astype(np.float64) for reference in first]
        for i in np.flatnonzero(np.isin(own.draw, draws)):
            weights = aligned[int(own.draw[i] == draws[0])]
            others = np.arange(len(own)) != i
            apart = [np.linalg.norm(weights[i] - weights[others & (own.draw == d)].mean(axis=0)) for d in draws]
            mine = apart[int(np.searchsorted(draws, own.draw[i]))]
            ranks.append(float(np.mean([a < mine for a, d in zip(apart, draws, strict=True) if d != own.draw[i]])))
            groups.append(int(own.draw[i]))
        rows.append(
            {
                "label": str(label),
                "n": len(ranks),
                "draws": len(draws),
                "rank": intervals.mean(np.array(ranks), np.array(groups)).to_json(),
            }
        )
    return rows


def power(reader: Reader, seed: int, level: float = 0.95) -> list[dict[str, Any]]:
    """The smallest dose that shows at n networks a side: told apart where the AUC's lower bound, corrected over all, is above ½."""
    p = reader.population
    doses = sorted(set(p.dose[p.modified]))
    if len(doses) < 2:
        return []
    tests = len(doses) * len(POWER)
    rows = []
    for label, dose, n in itertools.product(np.unique(p.label), doses, POWER):
        changed = np.flatnonzero((p.label == label) & p.modified & (p.dose == dose))
        clean = np.flatnonzero((p.label == label) & ~p.modified)
        if min(len(changed), len(clean)) < n:
            continue
        picked = np.concatenate([
            some[streams.permutation(streams.stream_key(["power", seed, dose, n, side]), len(some))[:n]]
            for side, some in enumerate((clean, changed))
        ])  # fmt: skip
        own = p.where(picked)
        _, score = foretold(Reader(own), own.modified, folds(own.draw, seed), SOLVERS[3], seed)
        auc = intervals.score("auc", own.modified.astype(np.int64), score, own.draw, level=1 - (1 - level) / tests)
        rows.append(
            {
                "label": str(label),
                "dose": dose,
                "n": n,
                "auc": auc.to_json(),
                "told_apart": bool(auc.low > 0.5),
                "tests": tests,
            }
        )
    return rows
