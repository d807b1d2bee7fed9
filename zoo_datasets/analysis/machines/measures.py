"""A population → nulls that must fail, a yardstick for a modification, and distances.

In:  a `Reader` of the networks of one arm, a seed.
Out: rows for tables. A modification counts by what it exceeds the difference of two data draws by, found by one procedure for
     equally few networks; and a way to learn counts if it finds nothing where there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis.machines.questions import above, changes, over_draws, sides
from zoo_datasets.analysis.machines.solvers import WEIGHTS, Reader, folds, foretold, nearest_mean
from zoo_datasets.analysis.testing import aucs
from zoo_datasets.core import streams

CUTS = 20  # of a null: their mean is known to a fifth of their spread
CUTS_OF_A_DRAW = 10  # of few networks one cut says little
MOST_REFERENCES = 5  # machines of which networks' distances to all others are taken: each is aligned anew
FEWEST_CUT = 4  # draws: two on each side, one of them in training
FEWEST = 2  # networks of a side, so that there is a mean without one of them


def nulls(reader: Reader, seed: int) -> Iterator[dict[str, Any]]:
    """By the procedure that tells modified networks: each draw's clean networks cut in two at random, and the pool of draws cut in two.

    Both must be ½ on the mean of the cuts. The spread of the second is what draws alone can do to networks of unseen draws.
    """
    p = reader.population
    for label in np.unique(p.label):
        part = reader.where((p.label == label) & ~p.modified)
        draws = part.population.draw
        for what, cut in (("each draw cut in two", _each_cut), ("the draws cut in two", _pool_cut)):
            found, used = [], 0
            for turn in range(CUTS):
                rows, y = cut(draws, seed, f"{label} {turn}")
                if (n_draws := len(np.unique(draws[rows]))) < FEWEST_CUT:
                    break
                _, score = foretold(part.where(rows), y, folds(draws[rows], seed, y), WEIGHTS, seed)
                found.append(float(aucs(y[:, None], score[:, None])[0]))
                used = len(rows)
            else:
                yield {
                    "label": str(label), "what": what, "solver": WEIGHTS.name, "n": used, "draws": n_draws,
                    "cuts": CUTS, "auc": float(np.mean(found)), "spread": float(np.std(found, ddof=1)), "least": min(found),
                    "most": max(found),
                }  # fmt: skip


def _each_cut(draws: np.ndarray, seed: int, turn: str) -> tuple[np.ndarray, np.ndarray]:
    """Networks (m,), as many of both sides of each draw, and their side (m,): of an odd number one is left out, another each turn."""
    kept, side = [], []
    for draw in np.unique(draws):
        rows = np.flatnonzero(draws == draw)
        order = streams.permutation(streams.stream_key(["each cut", seed, turn, int(draw)]), len(rows))
        half = len(rows) // 2
        kept.append(rows[order[: 2 * half]])
        side.append(np.arange(2 * half) < half)
    return _in_order(np.concatenate(kept), np.concatenate(side))


def _pool_cut(draws: np.ndarray, seed: int, turn: str) -> tuple[np.ndarray, np.ndarray]:
    """Networks (m,) of as many draws of both sides, and their side (m,): of an odd number of draws one is left out, another each turn."""
    names = np.unique(draws)
    order = names[streams.permutation(streams.stream_key(["pool cut", seed, turn]), len(names))]
    half = len(order) // 2
    rows = np.flatnonzero(np.isin(draws, order[: 2 * half]))
    return rows, np.isin(draws[rows], order[:half])


def _in_order(rows: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(rows)
    return rows[order], side[order]


# ── the yardstick ────────────────────────────────────────────────────────────────────


def yardstick(reader: Reader, seed: int) -> Iterator[dict[str, Any]]:
    """One draw cut in two, two draws, and clean against modified in one draw, each from half of a draw's networks a side.

    Of a draw's starts one half is the first side. The other is the other half, clean (the null), or modified, or another draw's:
    no network is compared with its twin. Draws are paired so that none is in two pairs: pairs are what intervals are over.
    """
    p, x = reader.population, reader.statistics
    for label in np.unique(p.label):
        seen: list[int] | None = None
        for dose in [d for name, d in changes(p) if name == label] or [""]:
            own, changed = sides(p, str(label), dose)
            at = {int(d): own[p.draw[own] == d] for d in np.unique(p.draw[own])}
            at = {d: rows for d, rows in at.items() if len(rows) >= 2 * FEWEST}
            order = streams.permutation(streams.stream_key(["pairs", seed, str(label)]), len(at))
            names = [list(at)[i] for i in order]
            pairs = list(zip(names[::2], names[1::2], strict=False))
            between = _each({pair: _cuts(x, at[pair[0]], _of_draw(at[pair[1]], seed), seed, pair[0]) for pair in pairs})
            if seen != own.tolist():  # doses share their clean networks, or have their own
                null = _each({d: _cuts(x, rows, lambda first, rest, turn: rest, seed, d) for d, rows in at.items()})
                for what, found in (("one draw cut in two", null), ("draw against draw", between)):
                    if found:
                        yield {"label": str(label), "what": what, "dose": None, **_over(found)}
            seen = own.tolist()
            twins = {d: changed[p.draw[changed] == d] for d in at}
            found = _each({d: _cuts(x, rows, _of_twins(twins[d], p.twin), seed, d) for d, rows in at.items()})
            if not found:
                continue
            row = {"label": str(label), "what": "clean against modified", "dose": dose, **_over(found)}
            both = [pair for pair in between if all(d in found for d in pair)]
            if both:
                excess = np.array([(found[a] + found[b]) / 2 - between[a, b] for a, b in both])
                row |= {
                    "exceeds_draws": intervals.mean(excess, np.arange(len(both)), ends=(-1.0, 1.0)).to_json(),
                    "test": above(excess, seed),
                }
            yield row


# From the first half of a draw's networks, the rest of them and the number of the cut: who is compared with the first.
Second = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def _of_draw(rows: np.ndarray, seed: int) -> Second:
    """Networks of another draw."""
    return lambda first, rest, turn: rows[streams.permutation(streams.stream_key(["other", seed, turn]), len(rows))]


def _of_twins(rows: np.ndarray, twin: np.ndarray) -> Second:
    """Modified networks: twins of the rest, then those without a twin; never twins of the first half."""

    def second(first: np.ndarray, rest: np.ndarray, turn: int) -> np.ndarray:
        of_rest = np.isin(twin[rows], twin[rest])
        free = ~of_rest & ~np.isin(twin[rows], twin[first])
        return np.concatenate([rows[of_rest], rows[free]])

    return second


def _cuts(x: np.ndarray, rows: np.ndarray, second: Second, seed: int, draw: int) -> list[float]:
    """How well half of a draw's networks is told from the second side, for each cut."""
    found = []
    for turn in range(CUTS_OF_A_DRAW):
        mixed = rows[streams.permutation(streams.stream_key(["cut", seed, draw, turn]), len(rows))]
        first, rest = np.split(mixed, [len(mixed) // 2])
        other = second(first, rest, turn)
        k = min(len(first), len(other))
        if k >= FEWEST:
            found.append(nearest_mean(x[np.concatenate([first[:k], other[:k]])], np.arange(2 * k) < k))
    return found


def _each(found: Mapping[Any, list[float]]) -> dict[Any, float]:
    """The mean over the cuts of each draw, or pair of draws, that has any."""
    return {of: float(np.mean(values)) for of, values in found.items() if values}


def _over(found: Mapping[Any, float]) -> dict[str, Any]:
    """Values of draws, or of pairs of them, as one."""
    values = np.array(list(found.values()))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    accuracy = intervals.mean(values, np.arange(len(values)), ends=(0.0, 1.0)).to_json()
    return {"n": len(values), "cuts": len(values) * CUTS_OF_A_DRAW, "spread": spread, "accuracy": accuracy}


# ── distances ────────────────────────────────────────────────────────────────────────


def distances(reader: Reader) -> list[dict[str, Any]]:
    """Distances of clean networks: of the same draw, the same machine, and another; as they are, and aligned.

    A network's distances to others are taken where it is aligned, and they are, to a network of its own machine: so that no
    machine is favored by what it is aligned to. That one is left out.
    """
    p = reader.population
    kinds = np.unique(p.label)
    names, draw = np.unique(p.draw, return_inverse=True)
    member = (draw[:, None] == np.arange(len(names))).astype(np.float64)  # (n, D)
    rows = []
    for what in ("as they are", "aligned"):
        sums, counts, of = [], [], []
        for label in kinds[:MOST_REFERENCES]:
            own = np.flatnonzero(p.label == label)
            weights = (p.weights if what == "as they are" else reader.aligned(int(own[0]))).astype(np.float64)
            squares = (weights**2).sum(axis=1)
            apart = np.sqrt(np.maximum(squares[own[1:], None] + squares - 2 * weights[own[1:]] @ weights.T, 0))
            usable = (np.arange(len(p)) != own[0]) & (np.arange(len(p)) != own[1:, None])
            same, near = p.label == label, p.draw == p.draw[own[1:], None]
            parts = np.stack([usable & same & near, usable & same & ~near, usable & ~same]).astype(np.float64)
            sums.append((parts * apart) @ member)  # (3, m, D)
            counts.append(parts @ member)
            of.append(draw[own[1:]])
        found = _between(np.concatenate(sums, 1), np.concatenate(counts, 1), np.concatenate(of))
        if found:
            rows.append({"weights": what, "of": min(len(kinds), MOST_REFERENCES), **found})
    return rows


def _between(sums: np.ndarray, counts: np.ndarray, draw: np.ndarray) -> dict[str, Any]:
    """Means over draws of m networks' distances to others, with jackknife bounds; sums and counts (3, m, D) of others by their draw.

    A distance is of two draws, so that a draw is left out at both ends: the spread of networks' means alone is half of it.
    """

    def at(gone: int | None) -> np.ndarray:
        """(4,): of the same draw, the same machine, another machine, and the ratio of the last two."""
        some = np.ones(sums.shape[2])
        rows = np.ones(len(draw), bool)
        if gone is not None:
            some[gone] = 0
            rows = draw != gone
        n = counts[:, rows] @ some
        good = (n > 0).all(axis=0)
        means = (sums[:, rows] @ some)[:, good] / n[:, good]  # (3, networks)
        values = np.vstack([means, means[1] / means[2]])
        if not good.any():
            return np.full(4, np.nan)
        return np.array([over_draws(v, draw[rows][good]).mean() for v in values])

    every = (counts.sum(axis=2) > 0).all(axis=0)
    if not every.any():
        return {}
    held = np.unique(draw[every])
    value, without = at(None), np.array([at(int(d)) for d in held])
    names = ("same draw", "same machine", "other machine", "ratio")
    return {"n": int(every.sum())} | {
        name: intervals.jackknife(float(value[i]), without[:, i], int(every.sum()), of="mean distance").to_json()
        for i, name in enumerate(names)
    }


def to_data(reader: Reader) -> list[dict[str, Any]]:
    """How far a network is from data: the rank of its own draw among all, by the distance to the mean of each draw's others.

    Aligned to one network of another draw, which counts for no mean; means are of equally many networks, for those of fewer lie
    further off. 0 is the nearest, and ½ what chance gives.
    """
    p, rows = reader.population, []
    for label in np.unique(p.label):
        at = {int(d): np.flatnonzero((p.label == label) & (p.draw == d)) for d in np.unique(p.draw[p.label == label])}
        at = {d: own for d, own in at.items() if len(own) >= FEWEST + 1}
        if len(at) < 2:
            continue
        # Two references are enough for each network to have one of another draw; neither is asked about.
        references = [int(own[0]) for own in list(at.values())[:2]]
        at = {d: own[~np.isin(own, references)] for d, own in at.items()}
        k = min(map(len, at.values())) - 1
        everyone = np.concatenate(list(at.values()))
        of = np.concatenate([np.full(len(own), d) for d, own in at.items()])
        ranks, groups = [], []
        first = next(iter(at))
        for side, reference in enumerate(references):
            weights = reader.aligned(reference, everyone).astype(np.float64)  # (m, P)
            for i in np.flatnonzero((of == first) == (side == 1)):
                apart = {d: _to_mean(weights, np.flatnonzero(of == d), int(i), k) for d in at}
                mine = apart.pop(int(of[i]))
                ranks.append(float(np.mean([(a < mine) + 0.5 * (a == mine) for a in apart.values()])))
                groups.append(int(of[i]))
        rank = intervals.mean(np.array(ranks), np.array(groups), ends=(0.0, 1.0))
        rows.append({
            "label": str(label), "n": len(ranks), "draws": len(at), "of_a_mean": k, "rank": rank.to_json(),
            "test": above(0.5 - over_draws(np.array(ranks), np.array(groups)), 0),
        })  # fmt: skip
    return rows


def _to_mean(weights: np.ndarray, rows: np.ndarray, i: int, k: int) -> float:
    """How far network i is from the mean of k of those, itself not among them."""
    some = rows[rows != i][:k]
    return float(np.linalg.norm(weights[i] - weights[some].mean(axis=0)))
