"""Statistics under shared permutations → one p-value a population, corrected for all populations.

In:  statistics as seen [K] and under B permutations [B, K], larger meaning more.
Out: p of each; p of all K together; and beside the tests of a family, q (Benjamini & Hochberg 1995).

K readings of one population are not K findings. Their least p is compared with the least p under
each permutation (Westfall & Young 1993), which takes their dependence as it is. A permutation test
cannot say less than 1 / (B + 1): with m tests a single true effect survives correction only if
B ≥ m / level, and is known to 20 % or so with 20 times that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LEVEL = 0.05
PROMISING = 0.1  # a joint p above this, from the first permutations, can be no finding
ENOUGH = 20  # permutations for each m / level


def single(seen: np.ndarray, null: np.ndarray) -> np.ndarray:
    """p of each statistic [K]: the share of permutations that reach it; what is seen counts as one. Raises ValueError for NaN."""
    _numbers(seen, null)
    reached = null >= _or_as_good(seen)
    return np.asarray((1 + reached.sum(0)) / (len(null) + 1))


def _numbers(seen: np.ndarray, null: np.ndarray) -> None:
    """Raises ValueError for NaN, which no comparison reaches: it would have the least p there is."""
    if np.isnan(seen).any() or np.isnan(null).any():
        raise ValueError("A statistic is NaN, as seen or under a permutation; leave out what it is not defined for.")


def _or_as_good(seen: np.ndarray) -> np.ndarray:
    """What equals a statistic, whatever its sign, to rounding."""
    return np.asarray(seen - 1e-12 * np.abs(seen))


def joint(seen: np.ndarray, null: np.ndarray) -> float:
    """p of the K statistics together: the share of permutations whose least p is as small as the one seen. Raises ValueError for NaN."""
    _numbers(seen, null)
    every = np.concatenate([seen[None], null])
    n = len(every)
    # How many are at least as large as each, ties (to rounding) counted in: p of every permutation beside all others.
    least = np.ones(n)
    for column in every.T:
        ordered = np.sort(column)
        least = np.minimum(least, (n - np.searchsorted(ordered, _or_as_good(column), side="left")) / n)
    return float((least <= least[0]).mean())


def staged(
    seen: np.ndarray, permuted: Callable[[int], np.ndarray], first: int, most: int
) -> tuple[np.ndarray, float, int]:
    """p of each, p of all together, and permutations done: `first` of them, and where that looks promising `most`.

    Stopping early leaves p above `PROMISING`, so that whether p is at most `LEVEL` is decided by all.
    `permuted(n)` gives the statistics of n more permutations, [n, K].
    """
    null = permuted(first)
    p = joint(seen, null)
    if p <= PROMISING and most > first:
        null = np.concatenate([null, permuted(most - first)])
        p = joint(seen, null)
    return single(seen, null), p, len(null)


def aucs(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """AUC of each column of labels y [n, B] and scores [n, B]; ties one half."""
    from scipy.stats import rankdata

    ranks = rankdata(score, axis=0)
    positives = y.sum(0)
    won = (ranks * y).sum(0) - positives * (positives + 1) / 2
    return np.asarray(won / (positives * (len(y) - positives)))


def corrected(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The false discovery rate at which each p-value would be called a finding (Benjamini & Hochberg 1995), [n].

    Of findings at a rate of 0.05, 5 % are expected to be none, if the tests are independent or
    depend positively on each other.
    """
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values)) if len(p_values) else np.zeros(0)


def correct(tests: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Adds `q` to each (name, record with `p` and `n_permutations`), in place; a record whose p is None is no test."""
    tests = [(name, record) for name, record in tests if record["p"] is not None]
    p = np.array([record["p"] for _, record in tests], np.float64)
    for (_, record), q in zip(tests, corrected(p), strict=True):
        record["q"] = float(q)
    promising = [record["n_permutations"] for _, record in tests if record["p"] <= PROMISING]
    needed = int(np.ceil(ENOUGH * len(p) / LEVEL))
    return {
        "n": len(p), "level": LEVEL, "below": int((p < LEVEL).sum()), "by_chance": LEVEL * len(p),
        "findings": sum(record["q"] < LEVEL for _, record in tests), "least_p": float(p.min()) if len(p) else None,
        "least_q": min(record["q"] for _, record in tests) if tests else None, "correction": "Benjamini-Hochberg",
        "permutations_needed": needed, "permutations_least": min(promising) if promising else None,
        "tests": [{"name": n, "p": r["p"], "q": r["q"], "n_permutations": r["n_permutations"]} for n, r in tests],
    }  # fmt: skip
