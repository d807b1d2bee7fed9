"""Predictions of networks never seen → how often they are right, beside chance, and what they add to what is known anyway.

In:  a `Property`, predictions, groups. Out: records with intervals over groups, and p-values of permutations.

Right is 1 or 0 of a class. Of a number it is 1 − error / error of the median of those that are asked about, in the mean 1 for who is
exact. Chance is the share of the most frequent level among those, and 0 of a number, so that a constant answer never beats it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.core import permuting, streams
from zoo_datasets.intervals import Interval

WORTH = 0.05  # of accuracy: what is surely less is called not readable
TOLD = "told by length"  # no gain is possible, and one that is seen says that the control has not learned what it knows
FINDING = 0.05  # false discoveries among what is called readable, or a leak
SHARES = (0.0, 0.25, 0.5, 1.0, 2.0)  # of what weights say, beside what is known anyway; chosen on validation
AT_ONCE = 2_000_000  # labels of permutations that are made together


@dataclasses.dataclass(frozen=True)
class Judged:
    """What one method said of n networks about one property, judged."""

    of: Property
    networks: np.ndarray  # (n,) int64
    groups: np.ndarray  # (n,)
    marks: np.ndarray  # (seeds, n) float64: of a class how often it was right, of a number how far off
    said: np.ndarray  # (seeds, n): the class, or the number; (0, n) of windows that were judged one by one
    scale: np.ndarray  # (n,): the mean distance from the median of those that a number is judged among; of a class 1
    fold: np.ndarray  # (n,) int64: who was asked by the same reader

    @property
    def rights(self) -> np.ndarray:
        """(seeds, n): in [0, 1] of a class; at most 1 of a number."""
        return self.marks if self.of.target.classes else np.asarray(1.0 - self.marks / self.scale)

    @property
    def right(self) -> np.ndarray:
        """(n,): the mean over seeds."""
        return np.asarray(self.rights.mean(0))

    def among(self, kept: np.ndarray) -> Judged:
        """Those of the networks, (n,) bool, or (m,) places, a number among them alone."""
        networks = self.networks[kept]
        return Judged(
            self.of, networks, self.groups[kept], self.marks[:, kept], self.said[:, kept],
            _scale(self.of, self.of.values[networks]), self.fold[kept],
        )  # fmt: skip

    @property
    def differ(self) -> bool:
        """Whether there is anybody; of a number, whether its values differ: else the median has no error to compare with."""
        return len(self.networks) > 0 and (bool(self.of.target.classes) or float(np.ptp(self.values)) > 0)

    @property
    def values(self) -> np.ndarray:
        return np.asarray(self.of.values[self.networks])

    @property
    def chance(self) -> float:
        """The share of the most frequent level, each group counting once; 0 of a number."""
        if not self.of.target.classes or not len(self.networks):
            return 0.0
        label = np.unique(self.groups, return_inverse=True)[1]
        share = 1.0 / np.bincount(label)[label]
        counts = np.bincount(self.values.astype(np.int64), share)
        return float(counts.max() / share.sum())

    def interval(self) -> Interval:
        return _interval(self.of, self.right, self.groups)

    def record(self, **more: Any) -> dict[str, Any]:
        """`value` with bounds over groups, `chance`, `n`, and of several seeds each one's value."""
        found = self.interval()
        by_seed = [float(r.mean()) for r in self.rights]
        return {
            "property": self.of.name, **more, "n": len(self.networks), "n_groups": found.n_groups, "chance": self.chance,
            "value": found.value, "low": found.low, "high": found.high, "note": found.note, "by_seed": by_seed,
        }  # fmt: skip


def judge(of: Property, predictions: Sequence[np.ndarray], networks: np.ndarray, groups: np.ndarray) -> Judged:
    """Predictions (n, …) of each seed about these networks; those without a value of the property are left out.

    `groups` are those of all networks of the population.
    """
    known = np.isfinite(of.values[networks])
    asked = networks[known]
    said = np.stack([(p.argmax(1) if of.target.classes else p)[known].astype(np.float64) for p in predictions])
    values = of.values[asked]
    scale, fold = _scale(of, values), np.zeros(len(asked), np.int64)
    return Judged(of, asked, groups[asked], _marks(of, said, values), said, scale, fold)


def joined(parts: Sequence[Judged]) -> Judged:
    """Of folds, all networks, a number among all of them."""
    found = stratified(parts)
    fold = np.repeat(np.arange(len(parts)), [len(p.networks) for p in parts])
    return dataclasses.replace(found, scale=_scale(found.of, found.values), fold=fold)


def stratified(parts: Sequence[Judged]) -> Judged:
    """Of strata, all networks, each number among those of its stratum."""
    return Judged(
        parts[0].of, np.concatenate([p.networks for p in parts]), np.concatenate([p.groups for p in parts]),
        np.concatenate([p.marks for p in parts], 1), np.concatenate([p.said for p in parts], 1),
        np.concatenate([p.scale for p in parts]), np.concatenate([p.fold for p in parts]),
    )  # fmt: skip


def _marks(of: Property, said: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray((said == values).astype(np.float64) if of.target.classes else np.abs(said - values))


def _scale(of: Property, values: np.ndarray) -> np.ndarray:
    far = 0.0 if of.target.classes or not len(values) else float(np.abs(values - np.median(values)).mean())
    return np.full(len(values), far or 1.0)


def _interval(of: Property, right: np.ndarray, groups: np.ndarray) -> Interval:
    if not len(right):
        return Interval("share", float("nan"), float("nan"), float("nan"), 0.95, "none", 0, 0, "no network")
    return intervals.proportion(right, groups) if of.target.classes else intervals.mean(right, groups)


def difference(first: Judged, second: Judged) -> Interval:
    """How much more often `second` is right than `first` about the same networks, paired. Where it is as often about each, a class
    bounds how far others can be from that, and a number does not."""
    ends = (-1.0, 1.0) if first.of.target.classes else None
    return intervals.difference(first.right, second.right, first.groups, ends=ends)


# ── gains ─────────────────────────────────────────────────────────────────────────────


def gain(known: Judged, more: Judged, n_permutations: int, seed: int, **about: Any) -> dict[str, Any]:
    """How much more often `more` is right than `known` about the same networks, paired; and what that lets one say."""
    assert (known.networks == more.networks).all()
    found = difference(known, more)
    return {
        "property": known.of.name, **about, "n": len(known.networks), "n_groups": found.n_groups,
        "known": float(known.interval().value), "with_weights": float(more.interval().value), "value": found.value,
        "low": found.low, "high": found.high, "note": found.note,
        "p": _turned(more.right - known.right, known.groups, n_permutations, seed), "n_permutations": n_permutations,
    }  # fmt: skip


def verdict(row: Mapping[str, Any], told: bool = False) -> str:
    """What a gain lets one say, whose `q` is corrected over all of them; `told`: what is known without weights decides the property."""
    if told:
        return TOLD
    if row["low"] > 0 and row["q"] < FINDING:
        return "readable"
    return f"less than {WORTH:g}" if row["high"] < WORTH else "undecided"


def mixed(of: Property, known: np.ndarray, weights: np.ndarray, share: float, prior: np.ndarray) -> np.ndarray:
    """What is known and what weights say, as one prediction: of a class p_known · (p_weights / prior)^share."""
    if not of.target.classes:
        return np.asarray(known + share * (weights - known))
    odds = np.log(np.maximum(known, 1e-6)) + share * np.log(np.maximum(weights, 1e-6) / np.maximum(prior, 1e-6))
    odds = np.exp(odds - odds.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def share_of(of: Property, known: np.ndarray, weights: np.ndarray, values: np.ndarray, prior: np.ndarray) -> float:
    """The share of weights that suits networks best which nothing was learned from: by log loss, or absolute error."""
    if not len(values):
        return 0.0
    losses = []
    for share in SHARES:
        said = mixed(of, known, weights, share, prior)
        if of.target.classes:
            losses.append(-np.log(said[np.arange(len(values)), values.astype(np.int64)]).mean())
        else:
            losses.append(np.abs(said - values).mean())
    return SHARES[int(np.argmin(losses))]


# ── permutations ──────────────────────────────────────────────────────────────────────


def p_value(judged: Judged, n_permutations: int, seed: int) -> float | None:
    """The share of permutations of the labels under which the same predictions are as often right.

    Labels change places within groups, and whole groups with others of their size in their fold: nothing of what networks of a
    group share is taken for independent. Across folds they do not change: who says what is frequent among those that he learned from
    is wrong more often than chance about the others, and labels from everywhere would hide as much of a leak. None of windows
    that were judged one by one, whose mean is another method's.
    """
    return permuted([judged], n_permutations, seed)[0] if judged.said.size else None


def permuted(parts: Sequence[Judged], n_permutations: int, seed: int) -> tuple[float, float]:
    """The same of several at once, by the mean of how often each is right: of shuffles, whose labels have nothing in common. And how
    often the same predictions are right under these permutations, in the mean: chance, for who is asked by folds.
    """
    rng = streams.generator("nws labels", seed)
    seen, reached, total = np.mean([part.right.mean() for part in parts]), 0, 0.0
    at_once = max(1, AT_ONCE // max(part.said.size for part in parts))
    for start in range(0, n_permutations, at_once):
        count = min(at_once, n_permutations - start)
        right = np.zeros(count)
        drawn: dict[bytes, np.ndarray] = {}  # to draw takes longest: parts about the same networks share it
        for part in parts:
            key = part.networks.tobytes() + part.fold.tobytes()
            if key not in drawn:
                drawn[key] = permuting.permutations(part.groups, count, rng, part.fold)
            mixed_values = part.values[drawn[key]]  # (count, n)
            marks = _marks(part.of, part.said[:, None], mixed_values[None])
            right += (marks if part.of.target.classes else 1.0 - marks / part.scale).mean((0, 2)) / len(parts)
        reached, total = reached + int((right >= seen - 1e-12).sum()), total + float(right.sum())
    return (1 + reached) / (1 + n_permutations), total / n_permutations


def _turned(difference: np.ndarray, groups: np.ndarray, n_permutations: int, seed: int) -> float:
    """One-sided p of the mean over groups being above 0: the share of sign changes of groups that reach it."""
    label = np.unique(groups, return_inverse=True)[1]
    means = np.bincount(label, difference) / np.bincount(label)
    rng, reached = streams.generator("nws signs", seed), 0
    at_once = max(1, AT_ONCE // len(means))
    for start in range(0, n_permutations, at_once):
        signs = rng.integers(0, 2, (min(at_once, n_permutations - start), len(means))) * 2 - 1
        reached += int(((signs * means).mean(1) >= means.mean() - 1e-12).sum())
    return (1 + reached) / (1 + n_permutations)
