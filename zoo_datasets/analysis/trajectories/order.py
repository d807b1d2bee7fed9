"""Snapshots without labels → the order of training, and which snapshots are versions of one model.

In:  points [n, k], clusters of them, and for the score alone the truth: whose, and at what place.
Out: each snapshot's recovered place in its cluster; τ, and scores of versioning.

Two ways to order a cluster, both from distances alone and both resting on one observation:
steps shrink while a network trains, so the first snapshot is the loneliest. Nothing here
looks at labels before it scores.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo_datasets.analysis.trajectories import clusters, paths

# Distances of this many points to all of a cluster are computed at once.
ROWS = 512
# All distances of a cluster of up to this many points are kept while it is ordered: 32 MB.
MOST_KNOWN = 2048


def nearest_sort(points: np.ndarray, distances: np.ndarray | None = None) -> np.ndarray:
    """Places 0 … m−1 of a cluster's points by distance to the nearest other point, largest first."""
    return _places(np.argsort(-_nearest(points, distances), kind="stable"))


def walk(points: np.ndarray, distances: np.ndarray | None = None) -> np.ndarray:
    """Places of a cluster's points on a walk: from the loneliest on, always to the nearest one not yet visited."""
    from scipy.spatial.distance import cdist

    m = len(points)
    here, order = int(_nearest(points, distances).argmax()), np.empty(m, np.int64)
    left = np.ones(m, bool)
    for place in range(m):
        order[place], left[here] = here, False
        row = distances[here] if distances is not None else cdist(points[here : here + 1], points)[0]
        here = int(np.where(left, row, np.inf).argmin())
    return _places(order)


# Each takes a cluster's points and, if there is room for them, their distances [m, m].
ALGORITHMS = {"walk": walk, "nearest_sort": nearest_sort}


def _nearest(points: np.ndarray, distances: np.ndarray | None) -> np.ndarray:
    """Distance of each point to the nearest other, float64 [m]; 0 for a point alone."""
    from scipy.spatial.distance import cdist

    m = len(points)
    if m < 2:
        return np.zeros(m)
    nearest = np.empty(m)
    for start in range(0, m, ROWS):
        stop = min(start + ROWS, m)
        some = cdist(points[start:stop], points) if distances is None else distances[start:stop].copy()  # (r, m)
        some[np.arange(stop - start), np.arange(start, stop)] = np.inf
        nearest[start:stop] = some.min(axis=1)
    return nearest


def _places(order: np.ndarray) -> np.ndarray:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


def recover(points: np.ndarray, cluster: np.ndarray, metric: str = "euclidean") -> dict[str, np.ndarray]:
    """By algorithm the recovered place of every point in its cluster, int64 [n], from 0."""
    from scipy.spatial.distance import cdist

    place = {name: np.empty(len(points), np.int64) for name in ALGORITHMS}
    for rows in members(cluster):
        of_cluster = clusters.vectors(points, rows, metric)
        distances = cdist(of_cluster, of_cluster) if len(of_cluster) <= MOST_KNOWN else None
        for name, algorithm in ALGORITHMS.items():
            place[name][rows] = algorithm(of_cluster, distances)
    return place


def members(label: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each label, in order of the labels."""
    order = np.argsort(label, kind="stable")
    ends = np.flatnonzero(np.diff(label[order])) + 1
    return np.split(order, ends)


# ── scores ────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Score:
    """What a partition with places says about the truth, by trajectory, [M] each.

    An *ordered pair* (a, b) is the claim "b is a later version of a": of two snapshots of one
    cluster, the one with the smaller place comes first. A *link* is such a claim of
    neighbors. Claims count for the trajectory of their first snapshot.
    """

    pairs_true: np.ndarray
    pairs_claimed: np.ndarray
    pairs_hit: np.ndarray
    pairs_reversed: np.ndarray  # of one trajectory and in one cluster, in the wrong order
    links_true: np.ndarray
    links_claimed: np.ndarray
    links_hit: np.ndarray

    @property
    def tau(self) -> np.ndarray:
        """Kendall's τ-a of place and training by trajectory [M]; a pair torn apart counts 0.

        Inside true trajectories nothing is torn and this is Kendall's τ.
        """
        pairs = self.pairs_true.astype(np.float64)
        return np.divide(
            self.pairs_hit - self.pairs_reversed, pairs, out=np.full(len(pairs), np.nan), where=self.pairs_true > 0
        )

    def f1(self, what: str, times: np.ndarray | None = None) -> float:
        """F1 of ordered `pairs` or of `links`: harmonic mean of precision and recall; `times` weighs trajectories."""
        hit, claimed, true = (getattr(self, f"{what}_{part}") for part in ("hit", "claimed", "true"))
        w = np.ones(len(hit)) if times is None else times
        total = float(w @ claimed + w @ true)
        return 2.0 * float(w @ hit) / total if total > 0 else float("nan")


def score(cluster: np.ndarray, place: np.ndarray, whose: np.ndarray, at: np.ndarray) -> Score:
    """Compare clusters and places with whose snapshots they are (0 … M−1) and their true places, int [n] each."""
    n_models = int(whose.max()) + 1
    counts = {name: np.zeros(n_models, np.int64) for name in ("hit", "reversed", "claimed", "true")}
    links = {name: np.zeros(n_models, np.int64) for name in ("hit", "claimed", "true")}
    for model, rows in enumerate(members(whose)):
        rows = rows[np.argsort(at[rows], kind="stable")]
        together = cluster[rows][:, None] == cluster[rows][None, :]
        later = np.sign(place[rows][None, :] - place[rows][:, None])
        upper = np.triu(np.ones(together.shape, bool), 1)
        counts["hit"][model] = int((together & (later > 0) & upper).sum())
        counts["reversed"][model] = int((together & (later < 0) & upper).sum())
        counts["true"][model] = int(upper.sum())
        links["true"][model] = len(rows) - 1
    for rows in members(cluster):
        rows = rows[np.argsort(place[rows], kind="stable")]
        after = np.arange(len(rows))[::-1]  # claims of which each snapshot is the earlier one
        np.add.at(counts["claimed"], whose[rows], after)
        a, b = rows[:-1], rows[1:]
        np.add.at(links["claimed"], whose[a], 1)
        np.add.at(links["hit"], whose[a], (whose[a] == whose[b]) & (at[b] == at[a] + 1))
    return Score(
        counts["true"], counts["claimed"], counts["hit"], counts["reversed"], links["true"], links["claimed"], links["hit"]
    )  # fmt: skip


def f1_interval(score: Score, what: str, groups: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """`found.f1(what)` with an interval over groups of trajectories, as `paths.bounds` gives it."""

    def f1(models: np.ndarray, _: np.ndarray) -> float:
        return score.f1(what, np.bincount(models, minlength=len(groups)).astype(np.float64))

    models = np.arange(len(groups))
    return paths.bounds(f1, models, models, groups, resamples, seed)
