"""Snapshots without labels → the order of training, and which snapshots are versions of one model.

In:  points [n, k], clusters of them, and for the score alone the truth: whose, and at what place.
Out: each snapshot's recovered place in its cluster, once for each of some shuffles; τ, order and
     direction apart, and scores of versioning.

Three ways to order a cluster. `walk` and `nearest_sort` rest on steps that shrink while a network
trains: the first snapshot is the loneliest. `path` takes the order from distances alone and the
direction from lengths: weights grow while they train. Nothing here looks at labels before it
scores, nor at the order of rows: snapshots are put in the order of their content's digest and then
shuffled, so that ties (mutual nearest neighbors tie exactly) fall by lot. Equal snapshots share a place.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from zoo_datasets.analysis.trajectories import clusters, paths
from zoo_datasets.core import streams

# Distances of this many points to all of a cluster are computed at once.
ROWS = 512
# All distances of a cluster of up to this many points are kept while it is ordered: 32 MB.
MOST_KNOWN = 2048
# Orders in which a cluster is handed to an algorithm: what ties decide is averaged over them.
SHUFFLES = 5


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Points of one cluster in any order."""

    points: np.ndarray  # float64 [m, k], in the space of the metric
    lengths: np.ndarray  # float64 [m] ‖w‖, which for `cosine` the points have lost
    distances: np.ndarray | None  # float64 [m, m], if there is room for them

    def take(self, rows: np.ndarray) -> Cluster:
        known = None if self.distances is None else self.distances[np.ix_(rows, rows)]
        return Cluster(self.points[rows], self.lengths[rows], known)

    def row(self, here: int) -> np.ndarray:
        """Distances of one point to all, [m]."""
        from scipy.spatial.distance import cdist

        if self.distances is not None:
            return self.distances[here]
        return cdist(self.points[here : here + 1], self.points)[0]

    def nearest(self) -> np.ndarray:
        """Distance of each point to the nearest other, float64 [m]; 0 for a point alone."""
        return _nearest(self.points, self.distances)


def nearest_sort(cluster: Cluster) -> np.ndarray:
    """Rows by distance to the nearest other point, largest first."""
    return np.argsort(-cluster.nearest(), kind="stable")


def walk(cluster: Cluster) -> np.ndarray:
    """Rows on a walk: from the loneliest on, always to the nearest one not yet visited."""
    return _walk(cluster, int(cluster.nearest().argmax()))


def path(cluster: Cluster) -> np.ndarray:
    """Rows on a walk from the one farthest from their middle, turned so that weights grow along it."""
    far = ((cluster.points - cluster.points.mean(axis=0)) ** 2).sum(axis=1)
    order = _walk(cluster, int(far.argmax()))
    return order if DIRECTIONS["weights grow"](cluster, order) else order[::-1]


ALGORITHMS: dict[str, Callable[[Cluster], np.ndarray]] = {"walk": walk, "nearest_sort": nearest_sort, "path": path}


def _walk(cluster: Cluster, here: int) -> np.ndarray:
    m = len(cluster.points)
    order, left = np.empty(m, np.int64), np.ones(m, bool)
    for place in range(m):
        order[place], left[here] = here, False
        here = int(np.where(left, cluster.row(here), np.inf).argmin())
    return order


def trend(values: np.ndarray) -> float:
    """Covariance of values with their place: above 0 where they rise."""
    return float((np.arange(len(values)) - (len(values) - 1) / 2) @ values)


def _steps(cluster: Cluster, order: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(cluster.points[order], axis=0), axis=1)


# Whether a sequence of rows runs forward, from weights alone.
DIRECTIONS: dict[str, Callable[[Cluster, np.ndarray], bool]] = {
    "loneliest first": lambda c, o: bool(c.nearest()[o[0]] >= c.nearest()[o[-1]]),
    "steps shrink": lambda c, o: trend(_steps(c, o)) <= 0,
    "weights grow": lambda c, o: trend(c.lengths[o]) >= 0,
}


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


def content(points: np.ndarray) -> np.ndarray:
    """SHA-256 of the bytes of each row, text [n]: an order of snapshots that knows nothing of training."""
    return np.array([hashlib.sha256(row.tobytes()).hexdigest() for row in np.ascontiguousarray(points)], "U64")


def shuffled(
    points: np.ndarray, cluster: np.ndarray, metric: str, seed: int, shuffles: int = SHUFFLES
) -> Iterator[tuple[int, np.ndarray, Cluster]]:
    """(shuffle, rows, `Cluster`) of every cluster in some orders, which depend on its content and the seed alone."""
    from scipy.spatial.distance import cdist

    digest = content(points)
    for rows in members(cluster):
        rows = rows[np.argsort(digest[rows], kind="stable")]
        wide = clusters.vectors(points, rows, metric)
        known = cdist(wide, wide) if len(wide) <= MOST_KNOWN else None
        whole = Cluster(wide, np.linalg.norm(points[rows].astype(np.float64), axis=1), known)
        name = hashlib.sha256("".join(digest[rows]).encode()).hexdigest()
        for turn in range(shuffles):
            mixed = streams.permutation(streams.stream_key(["shuffled bag", seed, turn, name]), len(rows))
            yield turn, rows[mixed], whole.take(mixed)


def recover(points: np.ndarray, cluster: np.ndarray, metric: str = "euclidean", seed: int = 0) -> dict[str, np.ndarray]:
    """By algorithm the recovered place of every point in its cluster, int64 [SHUFFLES, n], from 0.

    Whatever order the rows have, each point gets the same places.
    """
    place = {name: np.empty((SHUFFLES, len(points)), np.int64) for name in ALGORITHMS}
    same = np.unique(content(points), return_inverse=True)[1]
    for turn, rows, of_cluster in shuffled(points, cluster, metric, seed):
        for name, algorithm in ALGORITHMS.items():
            places = np.empty(len(rows), np.int64)
            places[algorithm(of_cluster)] = np.arange(len(rows))
            copies = np.unique(same[rows], return_inverse=True)[1]
            first = np.full(copies.max() + 1, len(rows))
            np.minimum.at(first, copies, places)
            place[name][turn, rows] = first[copies]
    return place


def members(label: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each label, in order of the labels."""
    order = np.argsort(label, kind="stable")
    ends = np.flatnonzero(np.diff(label[order])) + 1
    return np.split(order, ends)


# ── scores ────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Score:
    """What a partition with places says about the truth, by shuffle and trajectory, [S, M] each.

    An *ordered pair* (a, b) is the claim "b is a later version of a": of two snapshots of one
    cluster, the one with the smaller place comes first. A *link* is such a claim of
    neighbors. Claims count for the trajectory of their first snapshot; a shared place claims nothing.
    """

    pairs_true: np.ndarray
    pairs_claimed: np.ndarray
    pairs_hit: np.ndarray
    pairs_reversed: np.ndarray  # of one trajectory and in one cluster, in the wrong order
    links_true: np.ndarray
    links_claimed: np.ndarray
    links_hit: np.ndarray

    @property
    def taus(self) -> np.ndarray:
        """Kendall's τ-a of place and training by shuffle and trajectory [S, M]; a pair torn apart counts 0.

        Inside true trajectories nothing is torn, and without equal snapshots this is Kendall's τ.
        """
        pairs = self.pairs_true.astype(np.float64)
        return np.divide(self.pairs_hit - self.pairs_reversed, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)

    @property
    def tau(self) -> np.ndarray:
        """τ of order and direction together, mean over shuffles, [M]."""
        return self.taus.mean(axis=0)

    @property
    def order(self) -> np.ndarray:
        """|τ|: how well the order is known when its direction is not asked for, mean over shuffles, [M]."""
        return np.abs(self.taus).mean(axis=0)

    @property
    def forward(self) -> np.ndarray:
        """Share of shuffles in which the order runs forward, [M]; one half where τ is 0."""
        return ((np.sign(self.taus) + 1) / 2).mean(axis=0)

    def f1(self, what: str) -> np.ndarray:
        """F1 of ordered `pairs` or of `links`, [M]: harmonic mean of precision and recall, over all shuffles."""
        hit, claimed, true = (getattr(self, f"{what}_{part}").sum(axis=0) for part in ("hit", "claimed", "true"))
        found: np.ndarray = 2.0 * hit / (claimed + true)
        return found


def score(cluster: np.ndarray, place: np.ndarray, whose: np.ndarray, at: np.ndarray) -> Score:
    """Compare clusters [n] and places [n] or [S, n] with whose snapshots they are (0 … M−1) and their true places."""
    one = [_score(cluster, p, whose, at) for p in np.atleast_2d(place)]
    return Score(*(np.stack(parts) for parts in zip(*one, strict=True)))


def _score(cluster: np.ndarray, place: np.ndarray, whose: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, ...]:
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
        places = place[rows]
        after = len(rows) - np.searchsorted(places, places, side="right")  # claims of which each is the earlier one
        np.add.at(counts["claimed"], whose[rows], after)
        alone = np.bincount(places, minlength=1)[places] == 1
        sure = alone[:-1] & alone[1:]
        a, b = rows[:-1][sure], rows[1:][sure]
        np.add.at(links["claimed"], whose[a], 1)
        np.add.at(links["hit"], whose[a], (whose[a] == whose[b]) & (at[b] == at[a] + 1))
    return (
        counts["true"], counts["claimed"], counts["hit"], counts["reversed"], links["true"], links["claimed"], links["hit"]
    )  # fmt: skip


def f1_interval(score: Score, what: str, groups: np.ndarray) -> dict[str, Any]:
    """The mean over trajectories of each one's F1 of `pairs` or `links`, with an interval over groups, as JSON."""
    return paths.mean(score.f1(what), groups, (0.0, 1.0))
