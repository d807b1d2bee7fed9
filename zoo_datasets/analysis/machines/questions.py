"""A population → answers with their intervals over data draws: what do weights say of the data?

In:  a `Reader` of the networks of one arm, a seed.
Out: rows for tables, each a plain mapping. Protocol: whole draws are held out everywhere, for a class would be its draw else.

Who falls out, because it did not come to the target, falls out of each class alike: a machine is compared on draws with as many
networks as of every other, and a modified network beside its clean twin. What nulls and yardsticks say is in `measures.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis import testing
from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.analysis.machines.solvers import SOLVERS, WEIGHTS, Reader, Solver, folds, foretold
from zoo_datasets.core import streams

SIZES = (25, 50, 100, 200, 400, 800)  # of a learning curve
POWER = (50, 150, 300)  # networks of each side
# Flips of the signs of draws: tests are corrected together, and of some hundred each must be able to fall below 0.05 / 100.
FLIPS = 49_999
TAIL = 25  # resamples beyond each bound, however high its level


def which(reader: Reader, seed: int, solvers: Sequence[Solver] = SOLVERS) -> list[dict[str, Any]]:
    """Which machine did clean networks learn? By each solver; chance is what comes of saying the most frequent of all.

    Machines of one draw cannot be learned where it is held out: they are left out, and named where any other is asked about.
    """
    every = reader.population
    reader, evened = _asked(reader, seed)
    p = reader.population
    kinds = np.unique(p.label)
    if len(kinds) < 2:
        return []
    fold = folds(p.draw, seed, p.label)
    n_folds = len(np.unique(fold))
    share = np.array([over_draws((p.label == k).astype(float), p.draw).mean() for k in kinds])
    largest = kinds[share > share.max() - 1e-9]
    guess = np.isin(p.label, largest) / len(largest)
    asked = [s for s in solvers if reader.can(s)]
    right = {s: (foretold(reader, p.label, fold, s, seed)[0] == p.label).astype(float) for s in asked}
    best = max((s for s in asked if s.control), key=lambda s: right[s].mean(), default=None)
    rows = []
    for solver, hits in right.items():
        row = {
            "solver": solver.name, "control": solver.control, "n": len(p), "left_out": len(every) - len(p), "classes": len(kinds),
            "evened": evened, "not_asked": sorted(set(map(str, every.label)) - set(map(str, kinds))),
            "accuracy": intervals.proportion(hits, p.draw).to_json(), "chance": float(over_draws(guess, p.draw).mean()),
            "recall": {str(k): float(hits[p.label == k].mean()) for k in kinds},
            "test": above(over_draws(hits - guess, p.draw), seed, n_folds),
        }  # fmt: skip
        if best is not None and not solver.control:
            row |= {
                "best_control": best.name,
                "gain": intervals.difference(right[best], hits, p.draw, ends=(-1.0, 1.0)).to_json(),
            }
            row["gain_test"] = above(over_draws(hits - right[best], p.draw), seed, n_folds)
        rows.append(row)
    return rows


def curve(reader: Reader, seed: int, solvers: Sequence[Solver] = SOLVERS) -> list[dict[str, Any]]:
    """The same from fewer networks in training."""
    reader, _ = _asked(reader, seed)
    p = reader.population
    if len(np.unique(p.label)) < 2:
        return []
    fold = folds(p.draw, seed, p.label)
    largest = min(int((fold != f).sum()) for f in np.unique(fold))
    rows = []
    for solver in (s for s in solvers if s.reads in ("raw", "statistics")):
        for n in [*(s for s in SIZES if s < largest), largest]:
            said, _ = foretold(reader, p.label, fold, solver, seed, n)
            accuracy = intervals.score("accuracy", p.label, said, p.draw)
            rows.append({"solver": solver.name, "n_train": n, "accuracy": accuracy.to_json()})
    return rows


def modified(reader: Reader, seed: int, solvers: Sequence[Solver] = SOLVERS) -> Iterator[dict[str, Any]]:
    """Clean or modified, of one machine and dose: of networks of unseen draws alone, and of each pair of twins, which is which."""
    p = reader.population
    for label, dose in changes(p):
        clean, changed = sides(p, label, dose)
        pairs = twins(p, clean, changed)
        rows = np.sort(np.array(pairs).ravel() if pairs else np.concatenate([clean, changed]))
        part = reader.where(rows)
        own, y = part.population, part.population.modified
        if y.all() or not y.any() or len(np.unique(own.draw)) < 2:
            continue
        # Twins are as many of each side in every draw; others are dealt by side, or guesses go against the answer.
        fold = folds(own.draw, seed, None if pairs else y)
        scores = {s: foretold(part, y, fold, s, seed)[1] for s in solvers if part.can(s)}
        aucs = {s: intervals.score("auc", y.astype(np.int64), score, own.draw) for s, score in scores.items()}
        best = max((s for s in aucs if s.control and not s.knows), key=lambda s: aucs[s].value, default=None)
        at = np.searchsorted(rows, np.array(pairs)) if pairs else np.zeros((0, 2), np.int64)
        for solver, score in scores.items():
            won = (score[at[:, 1]] > score[at[:, 0]]) + 0.5 * (score[at[:, 1]] == score[at[:, 0]])
            row = {
                "label": label, "dose": dose, "solver": solver.name, "control": solver.control, "n": len(own),
                "left_out": len(clean) + len(changed) - len(own), "auc": aucs[solver].to_json(), "pairs": len(pairs),
                "paired": intervals.proportion(won, own.draw[at[:, 0]]).to_json() if pairs else None,
                "test": above(_within_draws(y, score, own.draw), seed, len(np.unique(fold))),
            }  # fmt: skip
            if best is not None and not solver.control:
                gain = intervals.contrast("auc", y.astype(np.int64), scores[best], score, own.draw)
                row |= {"best_control": best.name, "gain": gain.to_json()}
            yield row


def power(reader: Reader, seed: int, level: float = 0.95) -> list[dict[str, Any]]:
    """The smallest dose that shows at n networks a side: told apart where the AUC's lower bound is above ½, and p small, both corrected over all.

    Where there are twins, the sides are twins of each other at every n. Nothing is said of more networks than there are.
    """
    p = reader.population
    doses = sorted({dose for _, dose in changes(p)})
    if len(doses) < 2:
        return []
    tests = len(doses) * len(POWER) * len({label for label, _ in changes(p)})
    corrected = 1 - (1 - level) / tests
    rows = []
    for (label, dose), n in itertools.product(changes(p), POWER):
        both = sides(p, label, dose)
        pairs = np.array(twins(p, *both), np.int64).reshape(-1, 2).T  # (2, pairs)
        if paired := pairs.shape[1] > 0:
            both = pairs[0], pairs[1]
        if min(map(len, both)) < n:
            continue
        # The same starts on both sides, or none: a design in which their number changes with n would have another precision.
        keys = [streams.stream_key(["power", seed, label, dose, n, 0 if paired else side]) for side in range(2)]
        picked = np.sort(np.concatenate([
            some[streams.permutation(key, len(some))[:n]] for key, some in zip(keys, both, strict=True)
        ]))  # fmt: skip
        part = reader.where(picked)
        own = part.population
        if len(np.unique(own.draw)) < 2:
            continue
        fold = folds(own.draw, seed, None if paired else own.modified)
        _, score = foretold(part, own.modified, fold, WEIGHTS, seed)
        resamples = int(np.ceil(2 * TAIL / (1 - corrected)))
        auc = intervals.score("auc", own.modified.astype(np.int64), score, own.draw, level=corrected, n=resamples)
        p_value = above(_within_draws(own.modified, score, own.draw), seed, len(np.unique(fold)))["p"]
        told = auc.low > 0.5 and p_value is not None and p_value <= (1 - level) / tests
        rows.append({
            "label": label, "dose": dose, "n": n, "twins": paired, "auc": auc.to_json(), "p": p_value, "told_apart": bool(told), "tests": tests,
        })  # fmt: skip
    return rows


# ── who is compared ──────────────────────────────────────────────────────────────────


def changes(p: Population) -> list[tuple[str, str]]:
    """The machines and doses that have modified networks, doses by size."""
    found = {(str(a), str(b)) for a, b, m in zip(p.label, p.dose, p.modified, strict=True) if m}
    return sorted(found, key=lambda c: (c[0], _size(c[1]), c[1]))


def _size(dose: str) -> float:
    try:
        return float(dose)
    except ValueError:
        return float("inf")


def sides(p: Population, label: str, dose: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of the clean and modified networks of a dose; where none are clean at it, of the shared clean arm: at rate 0, or all."""
    own = p.label == label
    changed, clean = (own & p.modified & (p.dose == dose)), (own & ~p.modified)
    for same in (p.dose == dose, p.dose == "0"):
        if (clean & same).any():
            return np.flatnonzero(clean & same), np.flatnonzero(changed)
    return np.flatnonzero(clean), np.flatnonzero(changed)


def twins(p: Population, clean: np.ndarray, changed: np.ndarray) -> list[tuple[int, int]]:
    """Places of each clean network and its modified twin."""
    of = {str(p.twin[i]): int(i) for i in clean}
    return [(of[t], int(i)) for i in changed if (t := str(p.twin[i])) in of]


def _asked(reader: Reader, seed: int) -> tuple[Reader, bool]:
    """Of machines that several draws hold, in each draw as many networks of every one, so that who fell out tells nothing.

    All of them, where that would leave less than half, or no machine of several draws; and whether they were evened.
    """
    p = reader.population
    reader = reader.where(np.isin(p.label, _of_several_draws(p)))
    p = reader.population
    kinds = np.unique(p.label)
    kept: list[np.ndarray] = []
    for draw in np.unique(p.draw):
        own = [np.flatnonzero((p.label == k) & (p.draw == draw)) for k in kinds]
        least = min(map(len, own))
        kept += [
            rows[streams.permutation(streams.stream_key(["even", seed, int(draw), str(k)]), len(rows))[:least]]
            for k, rows in zip(kinds, own, strict=True)
        ]
    rows = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    even = reader.where(rows)
    evened = len(rows) >= len(p) / 2 and len(_of_several_draws(even.population)) > 0
    return (even if evened else reader), evened


def _of_several_draws(p: Population) -> list[str]:
    return [k for k in np.unique(p.label) if len(np.unique(p.draw[p.label == k])) > 1]


# ── tests ────────────────────────────────────────────────────────────────────────────


def over_draws(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The mean of each draw, [draws]."""
    label = np.unique(draws, return_inverse=True)[1]
    means: np.ndarray = np.bincount(label, values) / np.bincount(label)
    return means


def _within_draws(y: np.ndarray, score: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The AUC of each draw that has both classes, less ½."""
    found = []
    for draw in np.unique(draws):
        own = draws == draw
        if y[own].any() and not y[own].all():
            found.append(float(testing.aucs(y[own][:, None], score[own][:, None])[0]) - 0.5)
    return np.array(found)


def above(values: np.ndarray, seed: int, n_folds: int = 0) -> dict[str, Any]:
    """p that draws' values lie around 0 and not above: the t of their mean, under flips of the signs of whole draws.

    Values of `n_folds` folds, each learned from all others, go up and down together, for what they were learned from is mostly the
    same, and flips learn nothing again. The error of their mean is taken to be √(1 + K / (K - 1)) times that of flips, after the
    corrected resampled t-test of Nadeau & Bengio, "Inference for the generalization error" (Machine Learning 52, 2003, section 3):
    1/K + 1/(K - 1) in the place of 1/K.
    """
    if not len(values):
        return {"p": None, "n_permutations": 0}
    wider = np.sqrt(1 + n_folds / (n_folds - 1)) if n_folds > 1 else 1.0
    signs = streams.generator("signs", seed, len(values)).integers(0, 2, (FLIPS, len(values)), np.int8) * 2 - 1
    seen, null = _t(values.sum(), values) / wider, _t(signs @ values, values)
    return {"p": float(testing.single(seen[None], null[:, None])[0]), "n_permutations": FLIPS}


def _t(sums: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The t of sums of values with some signs, which leave squares as they are; the largest number where values do not differ."""
    squares = (values**2).sum()
    within = np.maximum(squares - sums**2 / len(values), squares * 1e-12)
    return np.asarray(np.divide(sums, np.sqrt(within), out=np.zeros_like(np.asarray(sums, float)), where=within > 0))
