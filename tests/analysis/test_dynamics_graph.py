"""Cubical grids and Morse graphs: maps whose recurrence is known, brute force, and CMGDB."""

from __future__ import annotations

import dataclasses
import itertools
import re

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csgraph

from zoo_datasets.analysis.dynamics import conley
from zoo_datasets.analysis.dynamics.cubes import Cubes, Images, images
from zoo_datasets.analysis.dynamics.morse import OUTSIDE, UNDECIDED, MorseGraph, morse_graph


def leslie(x: np.ndarray) -> np.ndarray:
    """The Leslie population map of the literature: an attractor, and the origin, a fixed point that repels."""
    fertile = (19.6 * x[:, 0] + 23.68 * x[:, 1]) * np.exp(-0.1 * x.sum(1))
    return np.stack([fertile, 0.7 * x[:, 0]], 1)


def two_wells(x: np.ndarray) -> np.ndarray:
    """Fixed points at −1 and 1 of the first coordinate that attract, and at 0 that repels."""
    return np.concatenate([np.tanh(5 * x[:, :1]), 0.2 * x[:, 1:]], 1)


def graph_of(f, cubes: Cubes, doubt: float = 0.0, padding: int = 1) -> MorseGraph:
    mean = f(cubes.corners())
    return morse_graph(images(cubes, mean - doubt, mean + doubt, padding))


def direct_edges(found: Images) -> np.ndarray:
    """Which cell may go to which, bool [n, n], cell by cell."""
    edges = np.zeros((found.cubes.n,) * 2, bool)
    for cell, (first, last) in enumerate(zip(found.first, found.last, strict=True)):
        for place in itertools.product(*(range(a, b + 1) for a, b in zip(first, last, strict=True))):
            edges[cell, np.ravel_multi_index(place, found.cubes.shape)] = True
    return edges


def test_leslie_map_has_an_attractor_and_the_origin_above_it() -> None:
    found = graph_of(leslie, Cubes((-0.001, -0.001), (90.0, 70.0), 14))
    assert found.sizes.tolist() == [3542, 1]  # as CMGDB says of the same boxes
    assert sorted(found.hasse.edges) == [(1, 0)]
    assert found.form() == "2 sets, 1 edges, 1 minimal: 0/1 1/0"
    assert found.node[found.cubes.cell_of(np.zeros((1, 2)))[0]] == 1


@pytest.mark.parametrize("dimension", [2, 3, 4])
@pytest.mark.slow
def test_two_wells_have_three_morse_sets_and_a_region_each(dimension: int) -> None:
    found = graph_of(two_wells, Cubes((-2.0,) * dimension, (2.0,) * dimension, {2: 12, 3: 15, 4: 16}[dimension]))
    assert len(found) == 3
    assert sorted(found.hasse.edges) == [(2, 0), (2, 1)]
    assert found.minimal.tolist() == [0, 1]
    ends = np.zeros((3, dimension))
    ends[:, 0] = -1.0, 1.0, 0.0
    assert set(found.node[found.cubes.cell_of(ends)][:2]) == {0, 1}
    starts = np.full((3, dimension), 0.3)
    starts[:, 0] = -1.6, 1.6, 0.0
    regions = found.regions()[found.cubes.cell_of(starts)]
    assert regions.tolist() == [*found.node[found.cubes.cell_of(ends)][:2], UNDECIDED]
    fates = np.array(found.fates(found.cubes.cell_of(starts)))
    assert fates[2] == "2>1>0"
    assert set(fates[:2]) == {"0", "1"}


def test_what_leaves_the_box_has_no_region() -> None:
    cubes = Cubes((0.0, 0.0), (1.0, 1.0), 8)
    found = graph_of(lambda x: x + 0.3, cubes)
    assert len(found) == 0
    assert found.may_leave.all()
    assert (found.regions() == OUTSIDE).all()
    assert found.form() == "0 sets, 0 edges, 0 minimal: "
    assert set(found.fates(np.arange(found.cubes.n))) == {"out"}


def test_a_cell_that_may_leave_is_decided_only_where_the_outside_is_ignored() -> None:
    found = graph_of(lambda x: 0.5 * x, Cubes((-1.0, -1.0), (1.0, 1.0), 8), doubt=0.6)
    assert len(found) == 1
    assert found.may_leave.all()
    assert (found.regions() == UNDECIDED).all()
    assert (found.regions(strict=False) == 0).all()


@pytest.mark.slow
def test_names_of_many_sets_are_short_and_still_tell_them_apart() -> None:
    cubes = Cubes((0.0, 0.0), (1.0, 1.0), 10)
    places = np.stack(np.unravel_index(np.arange(1024), cubes.shape), -1)
    row, column = places.T
    # Each cell stays; those of the first row may also go one to the right: a chain of 32 sets, 992 lone ones.
    on = np.column_stack([np.zeros(1024, int), (row == 0) & (column < 31)])
    found = morse_graph(Images(cubes, places, places + on, np.zeros(1024, bool)))
    fates = found.fates(np.arange(1024))
    assert fates[40] == str(found.node[40])
    assert fates[20].split(">") == [str(k) for k in sorted(found.node[20:32], reverse=True)]  # 12 sets
    assert re.fullmatch(r"\d+>…>\d+ of 32 #[0-9a-f]{8}", fates[0])
    assert len(set(fates)) == 1024
    assert found.form().startswith("1024 sets, 31 edges, 993 minimal: #")
    broken = morse_graph(Images(cubes, places, places + on * (column != 15)[:, None], np.zeros(1024, bool)))
    moved = morse_graph(Images(cubes, places, places + on * (column != 16)[:, None], np.zeros(1024, bool)))
    assert broken.form().split("#")[0] == moved.form().split("#")[0]  # 16 + 16 sets and 17 + 15 sets in a chain
    assert broken.form() != moved.form()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3), st.integers(0, 2**32 - 1), st.integers(0, 1))
def test_blocks_reach_what_single_cells_reach(dimension: int, seed: int, padding: int) -> None:
    """Components, recurrence and reachability equal those of the graph with one edge a pair of cells."""
    rng = np.random.default_rng(seed)
    cubes = Cubes((0.0,) * dimension, (1.0,) * dimension, 6)
    n = len(cubes.corners())
    mean = rng.uniform(-0.2, 1.2, (n, dimension))
    doubt = rng.exponential(0.05, (n, dimension))
    smooth = 0.7 * cubes.corners() + 0.3 * mean
    found = images(cubes, smooth - doubt, smooth + doubt, padding)
    edges = direct_edges(found)
    assert (edges.diagonal() == found.itself).all()
    graph = nx.from_numpy_array(edges, create_using=nx.DiGraph)
    parts = [p for p in nx.strongly_connected_components(graph) if len(p) > 1 or edges[min(p), min(p)]]
    morse = morse_graph(found)
    assert {frozenset(np.flatnonzero(morse.node == k).tolist()) for k in range(len(morse))} == set(
        map(frozenset, parts)
    )
    reach = np.isfinite(csgraph.shortest_path(edges, unweighted=True))
    for k in range(len(morse)):
        assert (morse.reaches[:, k] == reach[:, morse.node == k].any(1)).all()
    assert (morse.may_leave == reach[:, found.leaves].any(1)).all()
    # Numbered from the bottom: what a set reaches has a smaller number.
    assert not np.triu(morse.order).any()
    order = nx.from_numpy_array(morse.order, create_using=nx.DiGraph)
    assert set(morse.hasse.edges) == set(nx.transitive_reduction(order).edges)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3), st.floats(0, 0.3))
def test_doubt_only_adds_edges(seed: int, less: float, more: float) -> None:
    rng = np.random.default_rng(seed)
    cubes = Cubes((0.0, 0.0), (1.0, 1.0), 7)
    mean = rng.uniform(-0.3, 1.3, (len(cubes.corners()), 2))
    narrow, wide = (direct_edges(images(cubes, mean - d, mean + d)) for d in (less, less + more))
    assert (wide | narrow == wide).all()


def test_a_cover_beyond_the_grid_fails_at_once() -> None:
    cubes = Cubes((0.0, 0.0), (1.0, 1.0), 4)
    good = images(cubes, *[cubes.corners()] * 2)
    for broken in ({"last": good.last + 1}, {"first": good.first - 1}):
        with pytest.raises(AssertionError):
            dataclasses.replace(good, **broken)


@pytest.mark.parametrize(("f", "lower", "upper", "expected"), [
    # Known from their linear parts: attractors, one of period two, a circle, saddles that keep or
    # turn the direction that grows, and a source.
    (two_wells, (-2.03, -2.01), (2.0, 2.0), [("x-1", "0", "0"), ("x-1", "0", "0"), ("0", "x-1", "0")]),
    (lambda x: x * [0.5, -0.4], (-1.0, -1.1), (1.0, 1.0), [("x-1", "0", "0")]),
    (lambda x: np.stack([-1.5 * np.tanh(2 * x[:, 0]), 0.2 * x[:, 1]], 1), (-2.03, -2.01), (2.0, 2.0),
     [("x^2-1", "0", "0"), ("0", "x+1", "0")]),
    (lambda x: turned(x, 0.7), (-2.0, -2.0), (2.01, 2.0), [("x-1", "x-1", "0"), ("0", "0", "x-1")]),
])  # fmt: skip
@pytest.mark.slow
def test_conley_indices_are_those_of_the_map(f, lower, upper, expected) -> None:
    pytest.importorskip("CMGDB")
    found = conley.indices(graph_of(f, Cubes(lower, upper, 12)))
    assert found is not None
    assert [index for index in found if index != ("0", "0", "0")] == expected  # zeros: recurrent boxes, no more


def turned(x: np.ndarray, angle: float) -> np.ndarray:
    """Turns the plane by an angle and draws it to the circle of radius 1."""
    radius, at = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0]) + angle
    radius = radius + 0.7 * (1 - radius)
    return np.stack([radius * np.cos(at), radius * np.sin(at)], 1)


def test_a_set_at_the_edge_has_no_conley_index_and_a_graph_of_too_many_edges_none(monkeypatch) -> None:
    pytest.importorskip("CMGDB")
    found = graph_of(two_wells, Cubes((-2.03, -2.01), (1.0, 2.0), 12))  # the right-hand well lies on a face
    at_one = found.cubes.cell_of(np.array([[0.99, 0.0]]))[0]
    expected = {int(found.node[at_one]): None, 2: ("0", "x-1", "0")}
    assert dict(enumerate(conley.indices(found))) == {0: ("x-1", "0", "0"), 1: ("x-1", "0", "0")} | expected
    monkeypatch.setattr(conley, "MOST_EDGES", 10_000)
    assert conley.indices(found) is None


def test_an_image_that_ends_on_a_face_meets_both_sides() -> None:
    cubes = Cubes((0.0, 0.0), (1.0, 1.0), 4)
    found = images(cubes, *[np.full((25, 2), 0.5)] * 2, padding=0)
    assert (found.first == 1).all()
    assert (found.last == 2).all()


def test_cells_know_their_points_and_points_their_cells() -> None:
    cubes = Cubes((-1.0, 0.0, 2.0), (1.0, 3.0, 4.0), 10)
    assert cubes.shape == (16, 8, 8)  # the first dimensions are halved first
    assert (cubes.cell_of(cubes.centers()) == np.arange(cubes.n)).all()
    assert cubes.cell_of(np.array([[1.0, 3.0, 4.0], [1.01, 1.0, 3.0]])).tolist() == [cubes.n - 1, -1]


@pytest.mark.parametrize(
    ("lower", "upper", "k", "said"), [((0, 0), (1, 0), 6, "empty"), ((0, 0), (1, 1), 21, "2 to 20")]
)
def test_an_impossible_grid_is_refused(lower, upper, k: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cubes(lower, upper, k)


@pytest.mark.slow
@pytest.mark.parametrize(("f", "lower", "upper", "doubt"), [
    (leslie, (-0.001, -0.001), (90.0, 70.0), 0.0),
    (two_wells, (-2.03, -2.01), (2.0, 2.0), 0.0),
    (two_wells, (-2.03, -2.01), (2.0, 2.0), 0.07),
])  # fmt: skip
def test_the_same_cells_order_and_regions_as_cmgdb(f, lower, upper, doubt: float) -> None:
    cmgdb = pytest.importorskip("CMGDB")
    cubes = Cubes(lower, upper, 12)
    ours = graph_of(f, cubes, doubt)
    width = cubes.widths

    def image(box: list[float]) -> list[float]:
        corners = np.array(list(itertools.product(*zip(box[:2], box[2:], strict=True))))
        mean = f(corners)
        return [*(mean.min(0) - doubt - width), *(mean.max(0) + doubt + width)]

    model = cmgdb.Model(12, list(lower), list(upper), image)
    theirs, map_graph = cmgdb.ComputeMorseGraph(model, cache_map_graph=True)

    def cell(number: int) -> int:
        box = theirs.phase_space_box(number)
        return int(cubes.cell_of(np.mean([box[:2], box[2:]], axis=0)[None])[0])

    sets = {v: frozenset(cell(i) for i in theirs.morse_set(v)) for v in theirs.vertices()}
    same = {v: next(k for k in range(len(ours)) if ours.node[next(iter(s))] == k) for v, s in sets.items()}
    assert len(same) == len(ours)
    for v, members in sets.items():
        assert members == set(np.flatnonzero(ours.node == same[v]).tolist())
    assert {(same[a], same[b]) for a in theirs.vertices() for b in theirs.adjacencies(a)} == set(ours.hasse.edges)
    fate = cmgdb.MorseSingletonReachability(map_graph, theirs, list(range(cubes.n)))
    named = {**same, -1: OUTSIDE, -2: UNDECIDED}
    regions = np.empty(cubes.n, np.int64)
    for number, one in enumerate(fate):
        regions[cell(number)] = named[int(one)]
    assert (regions == ours.regions(strict=False)).all()
