"""Points and the trajectory of each → distances, dendrograms, and how well clusters are trajectories.

In:  points [n, k] and whose snapshot each is, int [n].
Out: `Neighbors` (who is near whom), linkage matrices as SciPy writes them, cuts, purity, merge
     heights.

All distances are met block by block in one pass, computed in float64 by matrix products. Single
linkage needs no n² matrix: a minimum spanning tree of everything is among the union of the
minimum spanning trees of any parts that hold every pair, so each pair of blocks leaves its tree
and is forgotten. That takes O(n·n/block) memory. The other linkages need SciPy's condensed
matrix, 8·n(n−1)/2 bytes, and as much again while they run. Distances below 1e-8 of the vectors'
length are noise, and float32 weights hold none; heights of the tree are computed again from
differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from zoo_datasets import errors

DISTANCES = ("euclidean", "cosine")
LINKAGES = ("single", "average", "complete", "ward")
# Points a side of a block: 8 MB of distances, within reach of a cache, large for a matrix product.
BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """What one pass over all distances leaves."""

    inter: np.ndarray  # [n] distance to the nearest snapshot of another trajectory
    intra: np.ndarray  # [n] distance to the nearest other snapshot of the same trajectory
    tree: np.ndarray  # int64 [n-1, 2] edges of a minimum spanning tree
    heights: np.ndarray  # [n-1] their lengths, ascending
    condensed: np.ndarray | None  # n(n-1)/2 distances in SciPy's order, if asked for

    @property
    def separation(self) -> float:
        """Smallest inter- over largest intra-trajectory nearest-neighbor distance.

        Above 1 no snapshot is nearer to a stranger than any snapshot is to its own: single
        linkage then finds every trajectory whole. Infinite where all snapshots of each are one point.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(self.inter.min(), self.intra.max()))


def distances(points: np.ndarray, metric: str, whose: np.ndarray, condensed: bool = False) -> Neighbors:
    """One pass over all distances; `condensed` keeps them.

    Cosine distances are 1 − cos: half the squared distance of unit vectors, which is what is
    computed. Raises ValueError for an unknown metric.
    """
    if metric not in DISTANCES:
        raise ValueError(errors.unknown("metric", metric, DISTANCES))
    n = len(points)
    inter, intra = np.full(n, np.inf), np.full(n, np.inf)
    all_pairs = np.empty(n * (n - 1) // 2) if condensed else None
    edges, lengths = [], []
    for rows, columns, square in _blocks(points, metric):
        same = whose[rows, None] == whose[None, columns]
        if rows.start == columns.start:
            np.fill_diagonal(square, np.inf)  # nobody is their own neighbor
        for nearest, which in ((inter, ~same), (intra, same)):
            masked = np.where(which, square, np.inf)
            nearest[rows] = np.minimum(nearest[rows], masked.min(axis=1))
            nearest[columns] = np.minimum(nearest[columns], masked.min(axis=0))
        pairs, length = _spanning(square, rows, columns)
        edges.append(pairs)
        lengths.append(length)
        if all_pairs is not None:
            _keep(all_pairs, n, rows, columns, square)
    tree = _kruskal(np.concatenate(edges), np.concatenate(lengths), n)
    # Again from differences: a product of matrices loses what nearly equal vectors have in small digits.
    squares = np.concatenate(
        [((vectors(points, tree[s, 0], metric) - vectors(points, tree[s, 1], metric)) ** 2).sum(1) for s in _slices(n)]
    )
    order = np.argsort(squares, kind="stable")
    tree, squares = tree[order], squares[order]
    if all_pairs is not None:
        _measured(all_pairs, metric)
    return Neighbors(_measured(inter, metric), _measured(intra, metric), tree, _measured(squares, metric), all_pairs)


def _measured(square: np.ndarray, metric: str) -> np.ndarray:
    """Squared Euclidean distances to those of the metric, in place."""
    return np.sqrt(square, out=square) if metric == "euclidean" else np.multiply(square, 0.5, out=square)


def vectors(points: np.ndarray, rows: slice | np.ndarray, metric: str) -> np.ndarray:
    """Rows of points in float64; for `cosine` as unit vectors, whose Euclidean distances have its order."""
    wide = points[rows].astype(np.float64)
    if metric == "cosine":
        norm = np.linalg.norm(wide, axis=1, keepdims=True)
        np.divide(wide, norm, out=wide, where=norm > 0)
    return wide


def _blocks(points: np.ndarray, metric: str) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Squared distances of every pair of blocks, float64 [b, c]; each pair of points once or twice."""
    n = len(points)
    norms = np.concatenate([np.zeros(0), *((p**2).sum(1) for p in (vectors(points, s, metric) for s in _slices(n)))])
    for rows in _slices(n):
        left = vectors(points, rows, metric)
        for columns in _slices(n, rows.start):
            right = left if rows.start == columns.start else vectors(points, columns, metric)
            square = left @ right.T  # (b, c)
            square *= -2.0
            square += norms[rows, None]
            square += norms[None, columns]
            yield rows, columns, np.maximum(square, 0.0, out=square)


def _slices(n: int, start: int = 0) -> list[slice]:
    return [slice(at, min(at + BLOCK, n)) for at in range(start, n, BLOCK)]


def _keep(condensed: np.ndarray, n: int, rows: slice, columns: slice, square: np.ndarray) -> None:
    """Copy a block's part above the diagonal to its places in the condensed matrix."""
    for i, row in enumerate(range(rows.start, rows.stop)):
        first = max(columns.start, row + 1)
        at = row * n - row * (row + 1) // 2 + first - row - 1
        condensed[at : at + columns.stop - first] = square[i, first - columns.start :]


# ── single linkage ────────────────────────────────────────────────────────────────────


def _spanning(square: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Prim's minimum spanning tree of the points of one block, or of the pairs between two."""
    if rows.start == columns.start:
        n = len(square)
        best, to = square[0].copy(), np.zeros(n, np.int64)
        best[0] = np.inf
        edges, lengths = np.empty((n - 1, 2), np.int64), np.empty(n - 1)
        outside = np.ones(n, bool)
        outside[0] = False
        for turn in range(n - 1):
            new = int(best.argmin())
            edges[turn], lengths[turn] = (to[new], new), best[new]
            outside[new] = False
            nearer = (square[new] < best) & outside
            best[nearer], to[nearer] = square[new][nearer], new
            best[new] = np.inf
        return edges + rows.start, lengths
    return _bipartite(square, rows.start, columns.start)


def _bipartite(square: np.ndarray, first_row: int, first_column: int) -> tuple[np.ndarray, np.ndarray]:
    b, c = square.shape
    both = np.ascontiguousarray(square), np.ascontiguousarray(square.T)
    best = [np.full(b, np.inf), square[0].copy()]  # of the points outside the tree, by side
    to = [np.zeros(b, np.int64), np.zeros(c, np.int64)]
    outside = [np.ones(b, bool), np.ones(c, bool)]
    outside[0][0] = False
    edges, lengths = np.empty((b + c - 1, 2), np.int64), np.empty(b + c - 1)
    for turn in range(b + c - 1):
        candidates = int(best[0].argmin()), int(best[1].argmin())
        side = 0 if best[0][candidates[0]] <= best[1][candidates[1]] else 1
        new, other = candidates[side], 1 - side
        partner = int(to[side][new])
        edges[turn] = (new, partner) if side == 0 else (partner, new)
        lengths[turn] = best[side][new]
        outside[side][new] = False
        best[side][new] = np.inf
        line = both[side][new]  # to every point of the other side
        nearer = (line < best[other]) & outside[other]
        best[other][nearer], to[other][nearer] = line[nearer], new
    return edges + np.array([first_row, first_column]), lengths


def _kruskal(edges: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """The edges of a minimum spanning tree of the graph they make, int64 [n-1, 2]."""
    from scipy.cluster.hierarchy import DisjointSet

    trees = DisjointSet(range(n))
    tree = [edge for edge in edges[np.argsort(lengths, kind="stable")].tolist() if trees.merge(*edge)]
    assert len(tree) == n - 1, "the blocks hold every pair, so their trees connect all points"
    return np.array(tree, np.int64).reshape(-1, 2)


def single(neighbors: Neighbors) -> np.ndarray:
    """The single-linkage dendrogram as SciPy writes it, float64 [n-1, 4], from the spanning tree."""
    from scipy.cluster.hierarchy import DisjointSet

    n = len(neighbors.tree) + 1
    clusters, name = DisjointSet(range(n)), list(range(n))  # the cluster's number, at its root
    merges = np.empty((n - 1, 4))
    for turn, (edge, height) in enumerate(zip(neighbors.tree.tolist(), neighbors.heights, strict=True)):
        low, high = sorted(name[clusters[point]] for point in edge)
        clusters.merge(*edge)
        name[clusters[edge[0]]] = n + turn
        merges[turn] = low, high, height, clusters.subset_size(edge[0])
    return merges


def linkage(neighbors: Neighbors, kind: str, metric: str) -> np.ndarray:
    """A dendrogram as SciPy writes it, [n-1, 4]; all kinds but `single` need the condensed distances.

    Ward's works with squared Euclidean distances: for `cosine`, those of unit vectors.
    Raises ValueError for an unknown kind.
    """
    if kind not in LINKAGES:
        raise ValueError(errors.unknown("linkage", kind, LINKAGES))
    if kind == "single":
        return single(neighbors)
    from scipy.cluster import hierarchy

    if neighbors.condensed is None:
        raise ValueError(f"{kind} linkage needs all distances: distances(…, condensed=True).")
    lengths = neighbors.condensed
    if kind == "ward" and metric == "cosine":
        lengths = np.sqrt(2.0 * lengths)  # 1 − cos to the length of the chord
    return hierarchy.linkage(lengths, kind)


# ── clusters and labels ───────────────────────────────────────────────────────────────


def cut(merges: np.ndarray, clusters: int) -> np.ndarray:
    """The label 0 … clusters−1 of every point when the last merges are undone, int [n]."""
    from scipy.sparse import coo_array, csgraph

    n = len(merges) + 1
    if not 1 <= clusters <= n:
        raise ValueError(f"{clusters} clusters of {n} points; 1 to {n} are possible.")
    done = n - clusters
    parent = np.repeat(np.arange(n, n + done), 2)
    child = merges[:done, :2].astype(np.int64).ravel()
    graph = coo_array((np.ones(2 * done), (parent, child)), shape=(n + done, n + done))
    return csgraph.connected_components(graph, directed=False)[1][:n]


def clusters_by_gap(merges: np.ndarray) -> int:
    """How many clusters there seem to be: a cut through the largest gap between merge heights."""
    heights = merges[:, 2]
    return len(heights) - int(np.diff(heights).argmax()) if len(heights) > 1 else 1


def purity(label: np.ndarray, whose: np.ndarray) -> float:
    """Share of snapshots in a cluster whose most frequent trajectory is theirs."""
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(whose, label)
    return float(table.max(axis=0).sum() / table.sum())


def adjusted_rand(label: np.ndarray, whose: np.ndarray) -> float:
    """Hubert and Arabie's (1985) chance-corrected agreement of clusters and trajectories: 1 equal, 0 chance."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(whose, label))


@dataclasses.dataclass(frozen=True)
class Heights:
    """Heights of merges inside one trajectory, and of those that join two or more."""

    within: np.ndarray
    between: np.ndarray


def owners(merges: np.ndarray, whose: np.ndarray) -> np.ndarray:
    """The trajectory 0, 1, … of every snapshot and then of every merge, int64 [2n-1]; −1 where there are several."""
    n = len(merges) + 1
    owner = np.concatenate([np.unique(whose, return_inverse=True)[1], np.empty(n - 1, np.int64)])
    for turn, (a, b) in enumerate(merges[:, :2].astype(np.int64).tolist()):
        owner[n + turn] = owner[a] if owner[a] == owner[b] else -1
    return owner


def heights(merges: np.ndarray, whose: np.ndarray) -> Heights:
    """Merge heights by kind: a merge is within where all its snapshots are of one trajectory."""
    within = owners(merges, whose)[len(merges) + 1 :] >= 0
    return Heights(merges[within, 2], merges[~within, 2])


def summary(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """Least, median and most; null where there is nothing."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return {"least": None, "median": None, "most": None}
    return {"least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}
