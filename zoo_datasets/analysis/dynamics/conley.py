"""A Morse graph → the Conley index of each of its sets, by CMGDB where that is installed.

In:  a `MorseGraph`.
Out: for each set the index, as a polynomial for each dimension of homology: ("x-1", "0", "0") is
     that of a fixed point that attracts, ("x-1", "x-1", "0") that of a circle that does, ("0",
     "x-1", "0") that of a saddle, and only zeros say nothing: the set may hold no recurrence
     of the map at all, only of the boxes. None where the images of a set reach the edge of
     the grid: what happens outside is not known, so no index is defined.

The index is a property of the map, not of the boxes: where it is not zero, every map within the
bounds has something invariant there (Mischaikow & Mrozek 2002).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from zoo_datasets.analysis.dynamics.morse import MorseGraph

# CMGDB keeps every edge between cells; 20 million are 0.3 GB and seconds.
MOST_EDGES = 20_000_000


def available() -> bool:
    """Whether CMGDB is installed."""
    return importlib.util.find_spec("CMGDB") is not None


def indices(graph: MorseGraph) -> list[tuple[str, ...] | None] | None:
    """The index of each Morse set, in the order of their numbers; None where the graph has too many edges."""
    import CMGDB

    cubes, images = graph.cubes, graph.images
    d, most = cubes.dimension, np.array(cubes.shape) - 1
    if np.where(images.empty[:, None], 0, images.last - images.first + 1).prod(1).sum() > MOST_EDGES:
        return None
    # CMGDB looks for the cells that meet a box; this one ends inside the cells it is to meet.
    low = cubes.lower + (images.first + 0.25) * cubes.widths
    high = cubes.lower + (images.last + 0.75) * cubes.widths
    outside = np.array(cubes.upper) + cubes.widths
    low[images.empty] = high[images.empty] = outside

    def image(boxes: Any) -> np.ndarray:  # lower and upper ends of cells [m, 2 d] → of their images
        boxes = np.asarray(boxes)
        cells = cubes.cell_of((boxes[:, :d] + boxes[:, d:]) / 2)
        return np.concatenate([low[cells], high[cells]], 1)

    model = CMGDB.Model(cubes.subdivisions, list(cubes.lower), list(cubes.upper), lambda box: image([box])[0].tolist())
    model.set_batch_map(image)
    cmgdb, _ = CMGDB.ComputeConleyMorseGraph(model)
    assert cmgdb.num_vertices() == len(graph), f"{cmgdb.num_vertices()} Morse sets for CMGDB, {len(graph)} here"
    cut = images.leaves | (images.first == 0).any(1) | (images.last == most).any(1)
    undefined = np.bincount(graph.node[graph.node >= 0], cut[graph.node >= 0], len(graph)) > 0
    index: list[tuple[str, ...] | None] = [None] * len(graph)
    for vertex in cmgdb.vertices():
        box = np.array(cmgdb.phase_space_box(cmgdb.morse_set(vertex)[0]))
        k = graph.node[cubes.cell_of((box[:d] + box[d:])[None] / 2)[0]]
        assert k >= 0, "a cell that is recurrent for CMGDB alone"
        if not undefined[k]:
            index[k] = tuple(cmgdb.annotations(vertex))
    return index
