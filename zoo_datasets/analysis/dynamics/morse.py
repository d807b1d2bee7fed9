"""Where each cell may go → Morse sets, their order, and regions of attraction.

In:  `Images` of a grid.
Out: a `MorseGraph`. Morse sets are the strongly connected sets of cells that hold a cycle:
     all recurrence of the map happens inside them, and between them it goes one way. The
     Hasse diagram is that order without the edges that follow from others. The region of
     attraction of a set is what can reach no other set; the rest is undecided.

Kalies, Mischaikow & VanderVorst (2005) is the theory. Sets are numbered from the bottom of
the order, ties by their first cell. Needs scipy, and networkx for the Hasse diagram.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from zoo_datasets.analysis.dynamics.cubes import Cubes, Images

if TYPE_CHECKING:
    import networkx as nx

UNDECIDED, OUTSIDE = -1, -2
MOST_NAMED = 24  # sets that a name lists; a coarse grid can have hundreds


@dataclasses.dataclass(frozen=True)
class MorseGraph:
    """The recurrent sets of a grid's cells, and what reaches what."""

    images: Images
    node: np.ndarray  # int64 [n]: the Morse set of each cell, −1 in none
    reaches: np.ndarray  # bool [n, K]: a path of at least one edge, or none, leads to the set
    may_leave: np.ndarray  # bool [n]: a path leads out of the box

    @property
    def cubes(self) -> Cubes:
        return self.images.cubes

    def __len__(self) -> int:
        return self.reaches.shape[1]

    @property
    def sizes(self) -> np.ndarray:
        """Cells of each Morse set, int64 [K]."""
        return np.bincount(self.node[self.node >= 0], minlength=len(self))

    @functools.cached_property
    def order(self) -> np.ndarray:
        """bool [K, K]: the first reaches the second, another one."""
        first = np.zeros(len(self), np.int64)
        cells = np.flatnonzero(self.node >= 0)
        first[self.node[cells[::-1]]] = cells[::-1]
        above = self.reaches[first].copy()
        np.fill_diagonal(above, False)
        return above

    @functools.cached_property
    def hasse(self) -> nx.DiGraph:
        """The transitive reduction of the order: an edge leads down to a set that nothing stands between."""
        import networkx as nx

        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(self)))
        graph.add_edges_from(np.argwhere(_reduced(self.order)).tolist())
        return graph

    @property
    def minimal(self) -> np.ndarray:
        """Morse sets that reach no other: the attractors, as far as the grid tells."""
        return np.flatnonzero(~self.order.any(1))

    def regions(self, *, strict: bool = True) -> np.ndarray:
        """Per cell the only Morse set it can reach, int64 [n]; `UNDECIDED` with several, `OUTSIDE` with none.

        Such a set is minimal. `strict` counts leaving the box as one more end, so a cell that
        may leave has no region; without, what is outside is ignored, as published.
        """
        number = self.reaches.sum(1)
        region = np.full(len(self.reaches), UNDECIDED)
        region[number == 0] = OUTSIDE
        one = (number == 1) & ~(self.may_leave & strict)
        if len(self):
            region[one] = self.reaches[one].argmax(1)
        return region

    def fates(self, cells: np.ndarray) -> list[str]:
        """Of each cell the Morse sets it can reach, highest first: "1>0"; "out" in front where it may leave the box.

        With more than 24 sets the first, the last, their number and a digest: "165>…>0 of 160 #1f0c2a77".
        """
        ends = np.column_stack([self.reaches[cells], self.may_leave[cells]])  # [m, K + 1]
        kinds, which = np.unique(np.packbits(ends, axis=1), axis=0, return_inverse=True)
        names = []
        for row in np.unpackbits(kinds, axis=1, count=len(self) + 1).astype(bool):
            parts = [*(["out"] if row[-1] else []), *map(str, np.flatnonzero(row[:-1])[::-1])]
            names.append(
                _short(">".join(parts), f"{parts[0]}>…>{parts[-1]} of {len(parts)}" if parts else "", len(parts))
            )
        return [names[i] for i in which.ravel()]

    def form(self, keep: np.ndarray | None = None) -> str:
        """The order up to isomorphism, as far as counts tell: equal for equal orders.

        "3 sets, 2 edges, 1 minimal: 0/2 1/1 2/0" — of each set how many lie below and above.
        Of the sets in `keep` alone, if given.
        """
        order = self.order if keep is None else self.order[np.ix_(keep, keep)]
        edges = int(_reduced(order).sum())
        pairs = sorted(zip(order.sum(1).tolist(), order.sum(0).tolist(), strict=True))
        minimal = sum(below == 0 for below, _ in pairs)
        all_pairs = " ".join(f"{a}/{b}" for a, b in pairs)
        return f"{len(order)} sets, {edges} edges, {minimal} minimal: {_short(all_pairs, '', len(pairs))}"


def morse_graph(images: Images) -> MorseGraph:
    """The Morse graph of an outer approximation."""
    from scipy.sparse import csgraph

    graph = images.graph()
    n = images.cubes.n
    _, component = csgraph.connected_components(graph, directed=True, connection="strong")
    component = component[:n]
    recurrent = (np.bincount(component)[component] > 1) | images.itself
    labels, number = np.unique(component[recurrent], return_inverse=True)
    node = np.full(n, -1)
    node[recurrent] = number
    back = graph.T.tocsr()
    cells = np.flatnonzero(recurrent)
    representative = np.zeros(len(labels), np.int64)
    representative[number[::-1]] = cells[::-1]
    reaches = np.zeros((n, len(labels)), bool)
    for k, cell in enumerate(representative):
        reaches[_before(back, int(cell), n), k] = True
    may_leave = _leaving(back, images.leaves)
    # From the bottom up: a set above another reaches more.
    below = reaches[representative].sum(1)
    order = np.lexsort((representative, below))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    node[recurrent] = rank[number]
    return MorseGraph(images, node, reaches[:, order], may_leave)


def _short(name: str, instead: str, parts: int) -> str:
    """A name that can be read: of many parts, another one with a digest that still tells it from all others."""
    if parts <= MOST_NAMED:
        return name
    return f"{instead} #{hashlib.sha256(name.encode()).hexdigest()[:8]}".strip()


def _reduced(order: np.ndarray) -> np.ndarray:
    """A strict order bool [K, K] without the pairs that others imply: nothing stands between the rest."""
    counts = order.astype(np.float32)  # BLAS multiplies no integers; hundreds of sets are common
    return order & (counts @ counts == 0)


def _before(back: object, cell: int, n: int) -> np.ndarray:
    """Cells from which a path leads to `cell`, itself among them."""
    from scipy.sparse import csgraph

    nodes = csgraph.breadth_first_order(back, cell, directed=True, return_predecessors=False)
    return nodes[nodes < n]


def _leaving(back: object, leaves: np.ndarray) -> np.ndarray:
    """Cells from which a path leads to one of `leaves`: one search from a node before all of them."""
    from scipy.sparse import csr_array

    n, size = len(leaves), back.shape[0]  # type: ignore[attr-defined]
    exits = np.flatnonzero(leaves).astype(np.int32)
    if not len(exits):
        return np.zeros(n, bool)
    starts = np.append(back.indptr, back.indptr[-1] + len(exits))  # type: ignore[attr-defined]
    index = np.concatenate([back.indices, exits])  # type: ignore[attr-defined]
    joined = csr_array((np.ones(len(index)), index, starts), shape=(size + 1, size + 1))
    leaving = np.zeros(n, bool)
    leaving[_before(joined, size, n)] = True
    return leaving
