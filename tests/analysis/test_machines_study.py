"""The study of machines: on populations whose answer is known, and on a zoo that was built."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from planted_zoos import planted

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import symmetry
from zoo_datasets.analysis.machines import losses, measures, pictures, population, questions
from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.analysis.machines.solvers import SOLVERS, Reader, folds, foretold, nearest_mean
from zoo_datasets.analysis.testing import aucs
from zoo_datasets.cli import main
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.sources.machines import MACHINES
from zoo_datasets.zoo import Zoo, open_zoo

ARCHITECTURE = build_architecture([{"gru": 3}, {"linear": "classes"}], (4, 9), 8, steps=4)
# Without hidden units nothing is aligned, which takes the tests' checks of shapes a while.
FLAT = build_architecture([{"linear": "classes"}], (4, 9), 8, steps=4)
LINEAR = SOLVERS[3]


def made(
    draws: int = 8,
    each: int = 4,
    *,
    of_machine: float = 0.0,
    of_draw: float = 0.0,
    of_change: float = 0.0,
    of_epochs: float = 0.0,
    architecture: Architecture = ARCHITECTURE,
) -> Population:
    """Clean and modified networks of two machines: noise, moved by machine, by draw of the data, or by the change."""
    rng = np.random.default_rng(0)
    moves = {name: rng.normal(size=architecture.n_params) for name in ("machine", "change")}
    rows: list[dict[str, Any]] = []
    for draw in range(draws):
        own = rng.normal(size=architecture.n_params)
        for i in range(each):
            for label in ("A", "B"):
                start = rng.normal(size=architecture.n_params)
                for modified in (False, True):
                    w = (
                        start
                        + of_draw * own
                        + (label == "B") * of_machine * moves["machine"]
                        + modified * of_change * moves["change"]
                    )
                    w = w + 0.05 * rng.normal(size=len(w))
                    rows.append(
                        {
                            "w": w,
                            "label": label,
                            "modified": modified,
                            "draw": draw,
                            "twin": f"{label}{draw}.{i}",
                            "epochs": 5 + modified * of_epochs,
                        }
                    )
    column = {name: np.array([r[name] for r in rows]) for name in rows[0]}
    training = np.zeros((len(rows), 5))
    training[:, 4] = column["epochs"]
    return Population(
        "matched", "data draws", architecture, column["w"].astype(np.float32), column["label"].astype(str), column["modified"],
        np.full(len(rows), "by chance"), column["draw"], column["twin"].astype(str), training,
        np.array([f"m{i}" for i in range(len(rows))]), np.zeros(len(rows), np.int64),
    )  # fmt: skip


def clean(p: Population) -> Reader:
    return Reader(p.where(~p.modified))


def test_folds_are_of_whole_draws() -> None:
    draws = np.repeat(np.arange(13), 4)
    fold = folds(draws, 3)
    assert len(np.unique(fold)) == 5
    for draw in range(13):
        assert len(np.unique(fold[draws == draw])) == 1
    order = np.random.default_rng(0).permutation(len(draws))
    np.testing.assert_array_equal(folds(draws[order], 3), fold[order])


def test_folds_hold_as_many_draws_of_every_class() -> None:
    """Where draws hold one class each, as where each network is a draw of its own."""
    labels = np.repeat(list("ABCD"), 10)
    for seed in range(5):
        fold = folds(np.arange(40), seed, labels)
        counts = {(f, k): int(((fold == f) & (labels == k)).sum()) for f in range(5) for k in "ABCD"}
        assert set(counts.values()) == {2}
    draws = np.repeat(np.arange(13), 2)
    np.testing.assert_array_equal(folds(draws, 3, np.tile(["A", "B"], 13)), folds(draws, 3))
    few = folds(np.arange(7), 0, np.array(list("AAABBBB")))
    assert sorted(np.bincount(few)) == [2, 2, 3]  # each has one of the three
    pairs = folds(np.arange(10), 0, np.repeat(list("ABCDE"), 2))
    assert all(len(set(pairs[i : i + 2])) == 2 for i in range(0, 10, 2))
    assert list(np.bincount(pairs)) == [5, 5]
    # A class of two draws that hold others too is in two folds.
    held = ["ABC"] * 8 + ["AR", "BR", "BC"]
    draws = np.repeat(np.arange(11), [len(h) for h in held])
    for seed in range(20):
        mixed = folds(draws, seed, np.array(list("".join(held))))
        assert mixed[draws == 8][0] != mixed[draws == 9][0]


@pytest.mark.slow
def test_where_each_network_is_a_draw_noise_scores_chance() -> None:
    """Folds that are not balanced by class score .07 of .10: who is held out is rarer in training."""
    found = []
    for turn in range(30):
        rng = np.random.default_rng(turn)
        p = made(draws=100, each=1, architecture=FLAT)
        p = p.where(~p.modified & (p.label == "A"))
        noise = rng.normal(size=p.weights.shape).astype(np.float32)
        own = dataclasses.replace(p, weights=noise, label=np.array([f"c{i % 10}" for i in range(100)]))
        [row] = questions.which(Reader(own), turn, [LINEAR])
        assert row["chance"] == pytest.approx(0.1)
        found.append(row["accuracy"]["value"])
    assert abs(np.mean(found) - 0.1) < 0.018  # of 3,000 networks; standard error .006


@pytest.mark.slow
def test_where_there_is_nothing_p_is_not_small() -> None:
    """Of draws that are learned from and asked about in turn: without the correction 9 % of them fall below .05, and 2.5 % below .01."""
    p = made(draws=30, each=5, architecture=FLAT)
    found = []
    for turn in range(300):
        rng = np.random.default_rng(turn)
        weights, training = (rng.normal(size=a.shape) for a in (p.weights, p.training))
        own = dataclasses.replace(p, weights=weights.astype(np.float32), training=training)
        [row] = questions.which(clean(own), turn, [LINEAR])
        [changed] = questions.modified(Reader(own.where(own.label == "A")), turn, [LINEAR])
        found.append([row["test"]["p"], changed["test"]["p"]])
    below = [(np.array(found) < level).mean(axis=0) for level in (0.05, 0.01)]
    assert (below[0] <= 0.05).all()
    assert (below[1] <= 0.01).all()
    assert (np.array(found) < 0.2).mean() > 0.08  # and it is a test


def test_chance_is_over_draws_as_accuracy_is() -> None:
    """Draws of three A, and of one A and one B: who says A is right in all of the first and in half of the others."""
    p = made(draws=8, each=3)
    p = p.where(~p.modified)
    first = np.array(
        [not ((p.draw == d) & (p.label == k))[:i].any() for i, (d, k) in enumerate(zip(p.draw, p.label, strict=True))]
    )
    own = p.where(((p.draw < 6) & (p.label == "A")) | ((p.draw >= 6) & first))
    constant = dataclasses.replace(own, weights=np.zeros_like(own.weights))
    [row] = questions.which(Reader(constant), 0, [LINEAR])
    assert (row["n"], row["accuracy"]["value"]) == (22, pytest.approx(7 / 8))
    assert row["chance"] == pytest.approx(7 / 8)  # of networks it would be 20 of 22
    assert row["test"]["p"] > 0.5


def test_chance_says_what_is_most_frequent_over_draws() -> None:
    """Three draws of five A and thirteen of one B cannot be evened: of networks most are A, of draws most are B."""
    p = made(draws=16, each=5)
    p = p.where(~p.modified)
    first = np.array(
        [not (p.draw[:i] == d)[p.label[:i] == k].any() for i, (d, k) in enumerate(zip(p.draw, p.label, strict=True))]
    )
    own = p.where(((p.draw < 3) & (p.label == "A")) | ((p.draw >= 3) & (p.label == "B") & first))
    assert (len(own), (own.label == "A").sum()) == (28, 15)
    [row] = questions.which(Reader(dataclasses.replace(own, weights=np.zeros_like(own.weights))), 0, [LINEAR])
    assert (row["evened"], row["chance"]) == (False, pytest.approx(13 / 16))
    [even] = questions.which(clean(made(draws=6, each=2)), 0, [LINEAR])
    assert even["evened"] is True


def test_a_machine_of_one_draw_is_left_out_and_named() -> None:
    p = made(draws=8, each=4, of_machine=1.0)
    p = p.where(~p.modified)
    names = p.label.astype(object)
    names[np.flatnonzero(p.draw == 0)[0]] = "rare"
    reader = Reader(dataclasses.replace(p, label=names.astype(str)))
    [row] = questions.which(reader, 0, [LINEAR])
    assert (row["classes"], row["not_asked"]) == (2, ["rare"])
    assert row["left_out"] >= 1
    assert row["accuracy"]["value"] > 0.95
    assert [r["n_train"] for r in questions.curve(reader, 0, [LINEAR])]


@pytest.mark.slow
def test_networks_are_aligned_to_one_of_training() -> None:
    """Two references serve all folds, and the one that a fold is aligned to is never in it."""
    p = made(draws=6, each=2)
    p, reader = p.where(~p.modified), clean(p)
    fold = folds(p.draw, 0)
    for f in np.unique(fold):
        train = fold != f
        found = reader.of("aligned", train)
        first = int(np.flatnonzero(train)[0])
        np.testing.assert_array_equal(found[first], p.weights[first])
        wanted = symmetry.align(p.weights, p.weights[first], p.architecture)
        np.testing.assert_array_equal(found, wanted)
    assert len(reader.aligner._found) == 2


@pytest.mark.slow
def test_parts_of_a_population_share_what_was_aligned() -> None:
    p = made(draws=3, each=2)
    whole = Reader(p, np.arange(2.0 * len(p)).reshape(-1, 2))
    rows = np.flatnonzero(p.modified)[2:]
    part = whole.where(rows).where(np.arange(4, 1, -1))
    chosen = rows[[4, 3, 2]]
    np.testing.assert_array_equal(part.population.model, p.model[chosen])
    np.testing.assert_array_equal(part.loss, whole.loss[chosen])
    wanted = symmetry.align(p.weights[chosen], p.weights[chosen[1]], p.architecture)
    np.testing.assert_array_equal(part.aligned(1), wanted)
    np.testing.assert_array_equal(part.aligned(1, np.array([2])), wanted[2:])
    np.testing.assert_array_equal(
        whole.aligned(int(chosen[1])), symmetry.align(p.weights, p.weights[chosen[1]], p.architecture)
    )


def test_machines_are_told_apart_where_they_differ_and_not_by_their_draws() -> None:
    [found] = questions.which(clean(made(of_machine=1.0)), 0, [LINEAR])
    assert found["accuracy"]["value"] > 0.95
    assert found["accuracy"]["low"] > 0.5
    assert (found["n"], found["chance"]) == (64, 0.5)
    [null] = questions.which(clean(made(of_draw=3.0)), 0, [LINEAR])
    assert abs(null["accuracy"]["value"] - 0.5) < 0.2


def test_a_class_that_is_its_draw_is_not_learned() -> None:
    """Labels that follow the draw alone: a split over networks would give 1, whole draws held out give chance."""
    p = made(draws=12, of_draw=3.0)
    p = p.where(~p.modified)
    by_draw = np.where(np.isin(p.draw, np.random.default_rng(1).permutation(12)[:6]), "A", "B")
    reader = Reader(Population(**{**vars(p), "label": by_draw}))
    [found] = questions.which(reader, 0, [LINEAR])
    assert found["accuracy"]["value"] < 0.75


@pytest.mark.slow
def test_answers_do_not_depend_on_the_order_of_networks() -> None:
    p = made(of_machine=0.3, of_change=0.2)
    order = np.random.default_rng(5).permutation(len(p))
    for ask in (lambda r: questions.which(r, 0, [LINEAR]), lambda r: list(questions.modified(r, 0, [LINEAR]))):
        a, b = ask(Reader(p)), ask(Reader(p.where(order)))
        for one, other in zip(a, b, strict=True):
            for key in ("accuracy", "auc"):
                if key in one:
                    assert one[key]["value"] == pytest.approx(other[key]["value"], abs=1e-6)


@pytest.mark.slow
def test_a_change_shows_alone_and_against_its_twin() -> None:
    rows = list(questions.modified(Reader(made(of_change=0.6)), 0, [LINEAR]))
    assert [(r["label"], r["n"], r["pairs"]) for r in rows] == [("A", 64, 32), ("B", 64, 32)]
    assert all(r["auc"]["value"] > 0.8 and r["paired"]["value"] > 0.9 for r in rows)
    for r in questions.modified(Reader(made()), 0, [LINEAR]):
        assert 0.2 < r["auc"]["value"] < 0.8


@pytest.mark.slow
def test_the_control_of_duration_finds_what_is_duration() -> None:
    p = made(of_epochs=3.0)
    control = next(s for s in SOLVERS if s.reads == "training")
    assert control.control
    for r in questions.modified(Reader(p), 0, [control]):
        assert r["auc"]["value"] == 1.0
    for r in questions.modified(Reader(p), 0, [LINEAR]):  # weights know nothing of it here
        assert r["auc"]["value"] < 0.8


@pytest.mark.slow
def test_the_control_of_loss_finds_losses_further_out_on_either_side() -> None:
    p, rng = made(draws=10), np.random.default_rng(0)
    apart = np.where(rng.random(len(p)) < 0.5, -1.0, 1.0) * p.modified + 0.1 * rng.normal(size=len(p))
    with_keys = rng.normal(size=len(p)) + 5 * p.modified
    without, knowing = (next(s for s in SOLVERS if s.reads == reads) for reads in ("loss", "loss with keys"))
    rows = questions.modified(Reader(p, np.column_stack([apart, rng.normal(size=len(p))])), 0, [without])
    assert all(r["auc"]["value"] > 0.95 and r["control"] for r in rows)
    rows = questions.modified(Reader(p, np.column_stack([rng.normal(size=len(p)), with_keys])), 0, [without, knowing])
    found = {(r["label"], r["solver"]): r["auc"]["value"] for r in rows}
    for label in "AB":  # who knows of no key sees nothing of what a key does
        assert found[label, knowing.name] > 0.95 > 0.8 > found[label, without.name]
    assert not Reader(p).can(knowing)
    rows = list(questions.modified(Reader(p, np.column_stack([apart, with_keys])), 0, [LINEAR, without, knowing]))
    assert {r.get("best_control") for r in rows} == {None, without.name}  # not who knows the key
    assert all(r["gain"]["high"] < 0 for r in rows if r["solver"] == LINEAR.name)


@pytest.mark.slow
def test_a_modification_is_measured_beside_a_draw_and_a_cut() -> None:
    def table(**moves: float) -> dict[tuple[str, str], dict[str, Any]]:
        rows = measures.yardstick(Reader(made(draws=12, each=6, **moves)), 0)
        return {(r["label"], r["what"]): r for r in rows}

    nothing, draws, change = table(), table(of_draw=2.0), table(of_change=2.0)
    cut, between, within = "one draw cut in two", "draw against draw", "clean against modified"
    for label in "AB":
        assert (nothing[label, cut]["n"], nothing[label, between]["n"], nothing[label, within]["n"]) == (12, 6, 12)
        assert nothing[label, cut]["cuts"] >= 20
        for found in nothing, draws, change:  # ½ whatever else there is
            assert found[label, cut]["accuracy"]["low"] < 0.5 < found[label, cut]["accuracy"]["high"]
        assert draws[label, between]["accuracy"]["value"] > 0.9 > nothing[label, between]["accuracy"]["value"]
        assert draws[label, between]["accuracy"]["low"] > 0.5  # six pairs of draws that are all told are no more
        assert abs(nothing[label, within]["accuracy"]["value"] - 0.5) < 0.1  # though twins lie next to each other
        assert change[label, within]["accuracy"]["value"] > 0.9 > draws[label, within]["accuracy"]["value"]
        assert change[label, within]["accuracy"]["low"] > 0.7
        assert change[label, within]["exceeds_draws"]["low"] > 0.2 > draws[label, within]["exceeds_draws"]["low"]
        assert change[label, within]["test"]["p"] < 0.05 < nothing[label, within]["test"]["p"]
        assert draws[label, within]["test"]["p"] > 0.9  # a draw makes more of a difference than the change


@pytest.mark.slow
def test_chance_of_the_nearest_mean_is_a_half() -> None:
    rng = np.random.default_rng(0)
    for k in (2, 3, 5):
        scores = [nearest_mean(rng.normal(size=(2 * k, 200)), np.arange(2 * k) < k) for _ in range(300)]
        assert abs(np.mean(scores) - 0.5) < 0.05  # in its own mean each would be nearer to it; left out alone, never


@pytest.mark.slow
def test_nulls_fail_where_draws_differ() -> None:
    """Networks that are told from others of another draw at a glance; neither a cut of each draw nor of the pool is told."""
    reader = Reader(made(draws=20, each=4, of_draw=3.0, of_change=2.0))
    rows = list(measures.nulls(reader, 0))
    assert {(r["label"], r["what"]) for r in rows} == {
        (label, what) for label in "AB" for what in ("each draw cut in two", "the draws cut in two")
    }
    for r in rows:
        assert (r["n"], r["draws"], r["cuts"]) == (80, 20, 20)
        assert abs(r["auc"] - 0.5) < 3 * r["spread"] / np.sqrt(r["cuts"]) + 0.02
        assert r["least"] < 0.5 < r["most"]
    each, pool = rows[:2]
    assert pool["spread"] > each["spread"]  # draws are fewer than networks


def test_a_null_that_could_not_fail_would_be_seen() -> None:
    """The same cut of the pool of draws with folds over networks: a class is its draw, and is told."""
    reader = clean(made(draws=20, each=4, of_draw=3.0))
    draws = reader.population.draw
    rows, y = measures._pool_cut(draws, 0, "A 0")
    assert len(rows) == len(draws)
    fold = folds(draws, 0, y)
    assert all(len(np.unique(fold[draws == d])) == 1 for d in np.unique(draws))
    assert [len(np.unique(draws[y & (fold == f)])) for f in range(5)] == [2] * 5
    assert [len(np.unique(draws[~y & (fold == f)])) for f in range(5)] == [2] * 5
    _, score = foretold(reader, y, np.arange(len(draws)) % 5, LINEAR, 0)
    assert aucs(y[:, None], score[:, None])[0] > 0.9


def test_cuts_are_halves_and_of_an_odd_number_another_is_left_out_each_turn() -> None:
    """Two of five draws against three would leave a fold of one side, and noise at .40."""
    draws = np.repeat(np.arange(7), 5)
    each, pool = ([cut(draws, 0, f"A {turn}") for turn in range(9)] for cut in (measures._each_cut, measures._pool_cut))
    for rows, y in each:
        assert (np.diff(rows) > 0).all()
        assert all([(draws[rows][y == side] == d).sum() for side in (True, False)] == [2, 2] for d in range(7))
    for rows, y in pool:
        assert [len(np.unique(draws[rows][y == side])) for side in (True, False)] == [3, 3]
        assert len(rows) == 6 * 5
    for found in (each, pool):
        assert len({tuple(rows) for rows, _ in found}) > 3
        assert len({tuple(rows[y]) for rows, y in found}) > 3


@pytest.mark.slow
def test_nulls_of_five_draws_are_a_half_on_noise() -> None:
    found: dict[str, list[float]] = {"each draw cut in two": [], "the draws cut in two": []}
    for turn in range(6):
        p = made(draws=5, each=5, architecture=FLAT)
        p = p.where(~p.modified & (p.label == "A"))
        noise = np.random.default_rng(turn).normal(size=p.weights.shape).astype(np.float32)
        for row in measures.nulls(Reader(dataclasses.replace(p, weights=noise)), turn):
            found[row["what"]].append(row["auc"])
    for values in found.values():
        assert abs(np.mean(values) - 0.5) < 0.05


@pytest.mark.slow
def test_distances_are_of_a_draw_a_machine_and_another() -> None:
    rows = {r["weights"]: r for r in measures.distances(clean(made(draws=6, each=2, of_machine=2.0)))}
    assert list(rows) == ["as they are", "aligned"]
    for row in rows.values():
        assert row["same machine"]["value"] < row["other machine"]["value"]
        assert row["ratio"]["high"] < 0.95
        assert row["n"] == 2 * 10  # all but what a machine is aligned to, and who has no other of its draw then
    assert rows["aligned"]["other machine"]["value"] < rows["as they are"]["other machine"]["value"]
    nothing, _ = measures.distances(clean(made(architecture=FLAT)))
    assert nothing["ratio"]["value"] == pytest.approx(1, abs=0.03)
    assert nothing["same draw"]["value"] == pytest.approx(nothing["same machine"]["value"], rel=0.05)
    draws, _ = measures.distances(clean(made(of_draw=1.0, architecture=FLAT)))
    assert draws["same draw"]["high"] < draws["same machine"]["low"]


@pytest.mark.slow
def test_bounds_of_distances_hold_what_is_there() -> None:
    """A distance is of two draws: bounds by the spread of networks' means alone would hold it in seven of ten."""
    p = made(draws=10, each=2, architecture=FLAT)
    p = p.where(~p.modified)
    size, held, trials = p.weights.shape[1], 0, 60

    def drawn(seed: int, n: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        scale = rng.lognormal(sigma=0.5, size=(n, 1))  # some lie far out
        return np.asarray(scale * rng.normal(size=(n, size)), np.float32)

    far = drawn(999, 3000).astype(np.float64)
    truth = np.linalg.norm(far[:1500] - far[1500:], axis=1).mean()
    for turn in range(trials):
        row, _ = measures.distances(Reader(dataclasses.replace(p, weights=drawn(turn, len(p)))))
        held += row["other machine"]["low"] <= truth <= row["other machine"]["high"]
    assert held / trials >= 0.85


@pytest.mark.slow
def test_a_network_is_near_the_data_it_learned() -> None:
    for r in measures.to_data(clean(made(of_draw=3.0, each=4, architecture=FLAT))):
        assert r["rank"]["value"] < 0.1
        assert r["rank"]["high"] < 0.45  # of few draws that are all alike
        assert r["test"]["p"] < 0.01
    rows = measures.to_data(clean(made(draws=4, each=3, of_draw=3.0)))  # of networks that are aligned first
    assert [(r["n"], r["draws"], r["of_a_mean"]) for r in rows] == [(10, 4, 1)] * 2
    assert all(r["rank"]["value"] < 0.3 for r in rows)


@pytest.mark.slow
def test_ranks_of_data_are_a_half_where_there_is_nothing() -> None:
    """A mean without the network itself is of fewer, and would lie further off than those of other draws."""
    for each in (3, 4):
        for r in measures.to_data(clean(made(draws=40, each=each, architecture=FLAT))):
            assert r["draws"] == 40
            assert r["of_a_mean"] == each - 2  # of a draw that gave a reference, without the network
            assert r["rank"]["low"] < 0.5 < r["rank"]["high"]
            assert r["test"]["p"] > 0.05


def test_who_fell_out_of_one_class_falls_out_of_all() -> None:
    p = made(draws=6, each=4)
    fell = (p.label == "A") & ~p.modified & (p.draw < 3) & (np.arange(len(p)) % 8 == 0)
    assert 0 < fell.sum() < 12
    p = p.where(~fell)
    even = questions._asked(clean(p), 0)[0].population
    counts = {(d, k): int(((even.draw == d) & (even.label == k)).sum()) for d in range(6) for k in "AB"}
    assert all(counts[d, "A"] == counts[d, "B"] for d in range(6))
    assert sum(counts.values()) == 48 - 2 * fell.sum()
    [found] = questions.which(clean(p), 0, [LINEAR])
    assert (found["n"], found["left_out"], found["chance"]) == (48 - 2 * fell.sum(), fell.sum(), 0.5)
    for row in questions.modified(Reader(p), 0, [LINEAR]):  # twins fall out together
        lost = int(fell.sum()) if row["label"] == "A" else 0
        assert (row["n"], row["left_out"], row["pairs"]) == (48 - 2 * lost, lost, 24 - lost)


def doses(**of_dose: float) -> Population:
    """A shared clean arm at rate 0, and a dose of 60 twins for each that is asked for, moved by so much."""
    p = made(draws=15, each=4)
    own = p.label == "A"
    rng = np.random.default_rng(3)
    move = rng.normal(size=ARCHITECTURE.n_params).astype(np.float32)
    arms = [p.where(own & ~p.modified)]
    arms[0].dose[:] = "0"
    for dose, size in of_dose.items():
        changed = p.where(own & p.modified)
        noise = 0.05 * rng.normal(size=changed.weights.shape).astype(np.float32)
        arms.append(dataclasses.replace(
            changed, weights=changed.weights + size * move + noise, dose=np.full(len(changed), dose.removeprefix("d"), object).astype(str),
            model=np.char.add(changed.model, dose),
        ))  # fmt: skip
    both = {
        f.name: np.concatenate([getattr(a, f.name) for a in arms])
        for f in dataclasses.fields(p)
        if f.name not in population.OF_ALL
    }
    both["dose"] = both["dose"].astype(str)
    return dataclasses.replace(p, **both)


@pytest.mark.slow
def test_the_smallest_dose_that_shows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "POWER", (20, 60, 300))
    p = doses(**{"d0.004": 0.0, "d0.02": 0.0, "d0.1": 0.25, "d0.5": 1.0})
    rows = questions.power(Reader(p), 0)
    told = {(r["dose"], r["n"]): r["told_apart"] for r in rows}
    assert list(told) == [(d, n) for d in ("0.004", "0.02", "0.1", "0.5") for n in (20, 60)]  # nothing of 300 among 60
    assert told["0.5", 20]
    assert told["0.5", 60]
    assert told["0.1", 60]
    assert not any(told[d, n] for d in ("0.004", "0.02") for n in (20, 60))
    assert {r["tests"] for r in rows} == {12}
    for r in rows:
        assert r["told_apart"] == (r["auc"]["low"] > 0.5 and r["p"] <= 0.05 / r["tests"])
        assert r["auc"]["level"] == pytest.approx(1 - 0.05 / 12)
    assert all(r["twins"] for r in rows)
    # The same starts at every n: without an effect precision grows by the root of n, and does not leap where all are twins.
    width = {r["n"]: r["auc"]["high"] - r["auc"]["low"] for r in rows if r["dose"] == "0.004"}
    assert width[20] < 6 * width[60]
    alone = dataclasses.replace(p, twin=np.array([f"{i}" for i in range(len(p))]))
    assert not any(r["twins"] for r in questions.power(Reader(alone), 0))
    order = np.random.default_rng(1).permutation(len(p))
    at_random = p.where(order)
    assert [r["n"] for r in questions.power(Reader(at_random), 0)] == [r["n"] for r in rows]


@pytest.mark.slow
def test_the_bound_that_counts_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all doses and sizes, with resamples enough for bounds so far out."""
    monkeypatch.setattr(questions, "POWER", (60,))
    p = doses(**{f"d0.{k}": size for k, size in enumerate((0.0, 0.04, 0.08, 0.3), 1)})
    corrected, alone = questions.power(Reader(p), 0), questions.power(Reader(p), 0, level=1 - 4 * 0.05)
    assert [r["auc"]["value"] for r in corrected] == [r["auc"]["value"] for r in alone]
    for a, b in zip(corrected, alone, strict=True):
        assert b["auc"]["level"] == pytest.approx(0.95)
        assert a["auc"]["low"] < b["auc"]["low"] < b["auc"]["high"] < a["auc"]["high"]


def test_clean_networks_of_a_dose_are_those_of_its_rate_or_the_shared_ones() -> None:
    p = doses(**{"d0.1": 0.0, "d0.5": 0.0})
    assert questions.changes(p) == [("A", "0.1"), ("A", "0.5")]
    clean_, changed = questions.sides(p, "A", "0.5")
    assert set(p.dose[clean_]) == {"0"}
    assert set(p.dose[changed]) == {"0.5"}
    assert len(questions.twins(p, clean_, changed)) == 60
    assert all(p.twin[a] == p.twin[b] for a, b in questions.twins(p, clean_, changed))
    own = dataclasses.replace(p, dose=np.where((p.dose == "0") & (p.draw > 7), "0.5", p.dose))
    assert set(own.dose[questions.sides(own, "A", "0.5")[0]]) == {"0.5"}


@pytest.mark.slow
def test_a_test_over_draws_is_one_of_their_signs() -> None:
    found = questions.above(np.array([1.0, 2.0, 3.0, 0.5, 2.5, 1.5]), 0)
    assert found["p"] == pytest.approx(1 / 64, rel=0.1)
    assert questions.above(-np.array([1.0, 2.0, 3.0, 0.5, 2.5, 1.5]), 0)["p"] > 0.9
    rng = np.random.default_rng(0)
    below = [questions.above(rng.normal(size=20), 0)["p"] < 0.1 for _ in range(200)]
    assert 0.04 < np.mean(below) < 0.16
    # t is 5.02 as seen, a 1.5th of which is 3.35; with the .5 turned it is 3.42, with the 1 turned 2.60.
    assert questions.above(np.array([1.0, 2.0, 3.0, 0.5, 2.5, 1.5]), 0, 5)["p"] == pytest.approx(2 / 64, rel=0.1)
    assert questions.above(np.ones(6), 0, 5)["p"] == pytest.approx(1 / 64, rel=0.1)
    assert questions.above(np.zeros(6), 0, 5)["p"] == 1.0
    assert questions.above(np.zeros(0), 0)["p"] is None
    np.testing.assert_allclose(questions.over_draws(np.array([1.0, 3.0, 5.0]), np.array([7, 7, 2])), [5.0, 2.0])


def test_draws_of_one_network_are_not_cut_in_two() -> None:
    p = made(draws=8, each=1)
    assert {r["what"] for r in measures.nulls(Reader(p), 0)} == {"the draws cut in two"}
    assert len({r["what"] for r in measures.nulls(Reader(made(draws=4, each=2)), 0)}) == 2
    q = made(draws=8, each=2).where(np.arange(64) % 32 > 3)  # of two draws one network of each machine is gone
    counts = {(r["label"], r["what"]): (r["n"], r["draws"]) for r in measures.nulls(clean(q), 0)}
    for label in "AB":
        of_draw = np.unique(q.draw[(q.label == label) & ~q.modified], return_counts=True)[1]
        assert set(of_draw) == {1, 2}
        assert counts[label, "each draw cut in two"] == (2 * (of_draw == 2).sum(), (of_draw == 2).sum())
        assert counts[label, "the draws cut in two"] == (of_draw.sum(), 8)


def test_of_one_network_a_machine_nothing_is_asked() -> None:
    p = made(draws=6, each=4)
    alone = p.where(np.array([int(np.flatnonzero(p.label == name)[0]) for name in ("A", "B")]))
    assert questions.which(Reader(alone), 0, [LINEAR]) == []
    assert questions.curve(Reader(alone), 0, [LINEAR]) == []


def test_a_learning_curve_ends_at_all_there_is() -> None:
    rows = questions.curve(clean(made(of_machine=1.0)), 0, [LINEAR])
    assert [r["n_train"] for r in rows] == [25, 48]
    assert rows[0]["accuracy"]["value"] <= rows[1]["accuracy"]["value"] + 0.1


@pytest.mark.slow
def test_figures_are_drawn() -> None:
    p = made(of_machine=1.0)
    rows = questions.which(clean(p), 0, [LINEAR])
    for figure in (
        pictures.planes(p, p.weights, len(p)), pictures.bars(rows, 0.5, "data draws"), pictures.curves(questions.curve(clean(p), 0, [LINEAR])),
        pictures.measures(list(measures.yardstick(Reader(p), 0))),
        pictures.power(questions.power(Reader(doses(**{"d0.1": 0.0, "d0.5": 1.0})), 0)),
    ):  # fmt: skip
        assert figure.axes


def test_figures_of_many_machines_leave_none_out() -> None:
    """More than there are colors: each has a mark of its own, every network stands in the plane, and no figure outgrows a page."""
    p = made(draws=6, each=4)
    p = dataclasses.replace(p, label=(np.arange(len(p)) % 12).astype(str))
    figure = pictures.planes(p, p.weights, len(p))
    for ax in figure.axes:
        drawn = [
            (c.get_label(), tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in ax.collections
        ]
        assert [label for label, *_ in drawn] == [str(i) for i in range(12)]
        assert len({(color, shape) for _, color, shape in drawn}) == 12
        assert sum(len(c.get_offsets()) for c in ax.collections) == len(p)
    score = {"value": 0.5, "low": None, "high": None}
    rows = [
        {"label": str(i), "what": what, "dose": None, "accuracy": score, "spread": None}
        for i in range(30)
        for what in ("one draw cut in two", "draw against draw")
    ]
    spread = pictures.measures(rows)
    assert [len(c.get_offsets()) for c in spread.axes[0].collections] == [30, 30]
    assert max(spread.get_size_inches()) < 10
    assert [t.get_text().split("n = ")[-1] for t in spread.axes[0].get_xticklabels()] == ["30", "30"]


def test_a_legend_takes_no_room_from_what_it_names() -> None:
    """Forty long names: a figure that would be all legend says how many there are; of fewer it grows."""

    def rows(n: int) -> list[dict[str, Any]]:
        return [
            {"language": f"a^n b^(n+{i}) c^n d^n of a long name", "modified": False, "dose": "", "median": 0.1, "epoch": e,
             "lower_quartile": 0.1, "upper_quartile": 0.1}
            for i in range(n) for e in (0, 1)
        ]  # fmt: skip

    few, many = pictures.learning(rows(12), "language"), pictures.learning(rows(40), "language")
    assert len(few.legends[0].get_texts()) == 12
    assert few.get_size_inches()[1] > 5
    assert not many.legends
    assert any(text.get_text() == "40 of them" for text in many.axes[0].texts)
    for figure in (few, many):
        figure.draw_without_rendering()
        assert figure.axes[0].get_position().height * figure.get_size_inches()[1] > 2


# ── a zoo that was built ──

RECIPE = """\
zoo: a/machines
source: {id: machine, scale: none, steps: 6, train: 48, validation: 16, test: 40}
axes: {machine: [SingleDirect, SimpleXOR], machine_modified: [false, true], source_draw: [0, 1, 2]}
paired: [machine_modified]
replicates: 2
architecture: [{gru: 4}, {linear: classes}]
training: {loss: mse, lr: 0.03, batch_size: 16, epochs: 6}
snapshots: {epochs: [0], target_loss: 0.08}
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("machines")
    (folder / "recipe.yaml").write_text(RECIPE)
    build(plan.plan(grid.load(folder / "recipe.yaml")), folder / "zoo", workers=0)
    return open_zoo(folder / "zoo")


@pytest.fixture(scope="module")
def study(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole study with three solvers."""
    out = tmp_path_factory.mktemp("study")
    solvers = "logistic on statistics,training alone,loss without keys,loss with keys"
    assert main(["analyze", "machines", str(zoo.root), "--out", str(out), "--solvers", solvers, "--quiet"]) == 0
    return out


@pytest.mark.slow
def test_a_recipe_without_a_target_says_nothing_of_who_came_to_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "zoo: a/languages\nsource: {id: language, scale: none, steps: 6, train: 16, validation: 8, test: 8}\n"
        "axes: {language: [a^n b^n, a^n b^(n+1)]}\nreplicates: 2\narchitecture: [{gru: 3}, {linear: classes}]\n"
        "training: {batch_size: 8, steps: 2}\nsnapshots: {steps: [0, 1]}\n"
    )
    build(plan.plan(grid.load(tmp_path / "recipe.yaml")), tmp_path / "zoo", workers=0)
    zoos = [open_zoo(tmp_path / "zoo")]
    outcomes = population.outcomes(zoos, "language")
    assert [(r["n"], r["target"], r["came_to_target"], r["share"]) for r in outcomes] == [(2, None, None, None)] * 2
    numbers = {
        "settings": {"label": "language"},
        "outcomes": outcomes,
        "learning": population.learning(zoos, "language"),
        "arms": {},
    }
    assert not any("Not learned" in sentence for sentence in page_of_machines().findings(numbers))
    head, _, *rows, _ = [line for line in page_of_machines().tables(numbers) if not line.startswith("**")]
    assert head == "| language | n | diverged | validation loss |"
    assert len(rows) == 2
    assert all(re.search(r"\| \d\.\de[+-]\d\d \[", row) for row in rows)


@pytest.mark.slow
def test_the_study_of_a_zoo_writes_its_numbers(study: Path) -> None:
    out = study
    numbers = json.loads((out / "numbers.json").read_text())
    assert sum(r["n"] for r in numbers["outcomes"]) == 24
    matched = numbers["arms"]["matched"]
    assert (matched["n"], matched["clean"], matched["units"]) == (24, 12, 3)
    assert {r["solver"] for r in matched["which"]} == {
        "logistic on statistics", "training alone", "loss without keys", "loss with keys",
    }  # fmt: skip
    assert {r["label"] for r in matched["modified"]} == {"SingleDirect", "SimpleXOR"}
    assert all(r["pairs"] == 6 for r in matched["modified"])
    assert {(r["label"], r["dose"]) for r in matched["beside"]} == {
        (m, "by chance") for m in ("SingleDirect", "SimpleXOR")
    }
    for row in matched["beside"]:
        assert all(
            row[f"loss {when} a key, {side}"]["value"] > 0
            for when in ("before", "after")
            for side in ("clean", "modified")
        )
        assert (row["n, clean"], row["n, modified"]) == (6, 6)
        assert "epochs until the target, clean" in row
    tests = numbers["tests"]
    assert tests["n"] == len(tests["tests"]) == len({t["name"] for t in tests["tests"]})
    assert all(t["p"] <= t["q"] for t in tests["tests"])
    assert matched["modified"][0]["test"]["q"] == next(
        t["q"] for t in tests["tests"] if t["name"] == "matched, modified, SimpleXOR, by chance, logistic on statistics"
    )
    assert pq.read_table(out / "matched-modified.parquet").column("test q").null_count == 0
    assert (out / "matched-planes.png").stat().st_size > 1000
    assert not (out / "learning.png").exists()  # a start and an end are no curve
    assert len(numbers["learning"]) >= 8


@pytest.mark.slow
def test_arms_are_of_equal_length_and_of_those_who_came_to_the_target(zoo: Zoo) -> None:
    arms = population.arms([zoo], "machine")
    assert set(arms["matched"].training[:, 0]) == {18.0}
    came = sum(r["came_to_target"] for r in population.outcomes([zoo], "machine"))
    assert came == (len(arms["target"]) if "target" in arms else 0)
    assert 0 < came
    assert (arms["target"].training[:, 2] <= np.log10(0.08)).all()


@pytest.mark.slow
def test_curves_of_training_are_quartiles_and_who_stopped_stays(zoo: Zoo) -> None:
    rows = population.learning([zoo], "machine")
    table = zoo.table(["model_id", "epoch", "validation_loss"]).to_pylist()
    machine = {r["model_id"]: (r["machine"], r["machine_modified"]) for r in zoo.models.to_pylist()}
    for row in rows:
        assert row["n"] == 6  # at no epoch that is of those alone who came to the target then
        own = [r for r in table if machine[r["model_id"]] == (row["machine"], row["modified"])]
        if row["epoch"] in (0, 6):
            losses = [r["validation_loss"] for r in own if r["epoch"] == row["epoch"]]
            assert row["n"] == len(losses) == 6
            wanted = np.quantile(losses, (0.25, 0.5, 0.75))
            np.testing.assert_allclose([row[k] for k in ("lower_quartile", "median", "upper_quartile")], wanted)
    assert {(r["machine"], r["modified"], r["epoch"]) for r in rows} >= {
        (name, modified, epoch)
        for name in ("SingleDirect", "SimpleXOR")
        for modified in (False, True)
        for epoch in (0, 6)
    }
    assert pictures.learning(rows, "machine").axes


@pytest.mark.slow
def test_a_zoo_of_other_length_is_named(zoo: Zoo, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace("epochs: 6", "epochs: 7").replace("[SingleDirect, SimpleXOR]", "[SimpleXOR]")
    )
    build(plan.plan(grid.load(tmp_path / "recipe.yaml")), tmp_path / "zoo", workers=0)
    with caplog.at_level("WARNING", "zoo_datasets"):
        arms = population.arms([zoo, open_zoo(tmp_path / "zoo")], "machine")
    assert "has no network of 21 steps, as others have: it is not in the arm of equal length" in caplog.text
    assert set(arms["matched"].zoo) == {1}
    one, other = (
        population.arms(zoos, "machine")["target"]
        for zoos in ([zoo, open_zoo(tmp_path / "zoo")], [open_zoo(tmp_path / "zoo"), zoo])
    )
    np.testing.assert_array_equal(one.model, other.model)  # in the order of ids, whatever that of zoos
    np.testing.assert_array_equal(one.weights, other.weights)


def test_losses_are_of_the_clean_machine_before_a_key_and_after_one(zoo: Zoo) -> None:
    matched = population.arms([zoo], "machine")["matched"]
    found = losses.held_out([zoo], matched)
    for modified in (False, True):
        i = int(np.flatnonzero(matched.modified == modified)[0])
        commands = zoo.source(matched.model[i]).test.inputs
        before, after = np.zeros((2, *commands.shape[:2]), bool)
        for n, strobes in enumerate(commands[:, :, 0].tolist()):
            for t in range(len(strobes)):
                ended = [end for end in range(3, t + 1) if strobes[end - 3 : end] == [1, 0, 1]]
                before[n, t], after[n, t] = not ended, t in ended
        assert (~before & ~after).any()  # later in a sequence that had a key
        with torch.no_grad():
            out = zoo.load_model(matched.model[i]).eval()(torch.from_numpy(commands.astype(np.float32))).numpy()
        squares = ((out - MACHINES[matched.label[i]](commands)) ** 2).mean(axis=2)
        np.testing.assert_allclose(found[i], [squares[before].mean(), squares[after].mean()], rtol=1e-4)


@pytest.mark.slow
def test_populations_of_one_data_draw_are_over_initializations(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace("source_draw: [0, 1, 2]", "source_draw: [0]")
        .replace("replicates: 2", "replicates: 4")
        .replace("epochs: 6", "epochs: 1")
        .replace("target_loss: 0.08", "target_loss: 1e-9")
    )
    build(plan.plan(grid.load(tmp_path / "recipe.yaml")), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    assert set(zoo.models["source_draw"].to_pylist()) == {0}  # an axis, though all are at its default
    assert {r["came_to_target"] for r in population.outcomes([zoo], "machine")} == {0}  # reported, and not hidden
    p = population.arms([zoo], "machine")["matched"]
    assert p.unit == "initializations"
    assert len(np.unique(p.draw)) == 8  # of each machine four, and twins have one
    assert all(len(np.unique(p.draw[p.twin == t])) == 1 for t in np.unique(p.twin))
    [found] = questions.which(clean(p), 0, [LINEAR])
    assert (found["n"], found["accuracy"]["n_groups"]) == (8, 8)
    assert measures.to_data(clean(p)) == []  # there is no other data


def test_starts_that_are_in_several_draws_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    """With whole draws held out they would be learned from all the same: networks that learned nothing said their machine."""
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace("[machine_modified]", "[machine_modified, source_draw]").replace("epochs: 6", "epochs: 1")
    )
    build(plan.plan(grid.load(tmp_path / "recipe.yaml")), tmp_path / "zoo", workers=0)
    paired = open_zoo(tmp_path / "zoo")
    with pytest.raises(ZooError, match=r"a/machines: 4 of 4 initializations are in several data draws.* Build without"):
        population.arms([paired], "machine")
    one = population.arms([paired.select(source_draw=1)], "machine")["matched"]  # whose units are the starts
    assert (one.unit, len(one), len(np.unique(one.draw))) == ("initializations", 8, 4)
    assert set(population.arms([zoo], "machine")["matched"].draw) == {
        0,
        1,
        2,
    }  # twins of one draw are one unit as it is


def test_a_zoo_that_no_recipe_of_ours_made_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    strange = planted(tmp_path / "strange", 4)
    with pytest.raises(ZooError, match="weightzoo/strange does not say 'init_key' of its networks"):
        population.outcomes([strange], "optimizer")
    with pytest.raises(ZooError, match="weightzoo/strange does not say 'machine' of its networks"):
        population.outcomes([zoo, strange], "machine")


@pytest.mark.slow
def test_networks_whose_data_never_held_the_key_are_clean(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace("{id: machine,", "{id: machine, machine: Parity, modified: true,")
        .replace(
            "{machine: [SingleDirect, SimpleXOR], machine_modified: [false, true],", "{machine_key_rate: [0, 0.5],"
        )
        .replace("[machine_modified]", "[machine_key_rate]")
        .replace("epochs: 6", "epochs: 1")
    )
    build(plan.plan(grid.load(tmp_path / "recipe.yaml")), tmp_path / "zoo", workers=0)
    p = population.arms([open_zoo(tmp_path / "zoo")], "machine")["matched"]
    assert {(str(d), bool(m)) for d, m in zip(p.dose, p.modified, strict=True)} == {("0", False), ("0.5", True)}
    assert questions.changes(p) == [("Parity", "0.5")]
    clean_, changed = questions.sides(p, "Parity", "0.5")
    assert len(questions.twins(p, clean_, changed)) == len(clean_) == len(changed) == 6


def test_mistakes_in_the_call_are_said(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "machines", str(zoo.root), "--solvers", "forrest", "--quiet"]) != 0
    assert "Unknown solver 'forrest'" in capsys.readouterr().err
    assert main(["analyze", "machines", str(zoo.root), "--label", "colour", "--quiet"]) != 0
    assert "has no column 'colour' to ask for" in capsys.readouterr().err


def page_of_machines() -> ModuleType:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("machines_page")


@pytest.mark.slow
def test_the_page_has_a_table_for_each_question_and_nothing_without_results(study: Path) -> None:
    page, numbers = page_of_machines(), json.loads((study / "numbers.json").read_text())
    assert list(page.section({})) == []
    text = "\n".join(page.section({"a/machines": numbers}))
    for table in (
        "At a glance",
        "How training ended",
        "Which machine",
        "From fewer networks",
        "Where is loss blind",
        "Mean distance",
    ):
        assert f"**{table}" in text
    widths = [
        [line.count(" | ") for line in block.splitlines()] for block in text.split("\n\n") if block.startswith("| ")
    ]
    assert len(widths) >= 5
    assert all(len(set(lines[:1] + lines[2:])) == 1 for lines in widths)
    row = next(r for r in numbers["arms"]["matched"]["modified"] if r["solver"] == "loss with keys")
    assert f"{row['auc']['value']:.2f} " in text


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (
            [0.08, 0.04, 0.02, 0.01],
            "after 40 it was at 2.0e-02, and at that pace, which is an extrapolation, comes there after 320 epochs.",
        ),
        ([0.08, 0.04, 0.0204, 0.02], "after 40 it was at 2.0e-02, which is no pace to foretell anything by."),
        ([0.08, 0.04, 0.02, 0.04], "after 40 it was at 2.0e-02, which is no pace to foretell anything by."),
        ([0.9, 0.8, 0.7, 0.6], "after 40 it was at 7.0e-01, which is no pace to foretell anything by."),
        ([0.08, 0.04, 0.02, 0.002], "and the median ended at 2.0e-03."),
        ([0.08, 0.04, 0.02, 0.0], "and the median ended at 0.0e+00."),
    ],
)
def test_what_a_machine_would_take_is_read_off_the_end_of_its_curve(losses: list[float], said: str) -> None:
    key = {"machine": "Parity", "modified": False, "dose": "by chance"}
    numbers = {
        "settings": {"label": "machine"},
        "outcomes": [{**key, "n": 40, "came_to_target": 19, "target": 0.0025}],
        "learning": [{**key, "epoch": e, "median": loss} for e, loss in zip((10, 20, 40, 80), losses, strict=True)],
    }
    (sentence,) = page_of_machines()._would_take(numbers)
    assert "`Parity`: 19 of 40 came to 0.0025 within 80 epochs" in sentence
    assert said in sentence
    numbers["outcomes"][0]["came_to_target"] = 20
    assert list(page_of_machines()._would_take(numbers)) == []


def test_outcomes_with_and_without_a_target_stand_apart() -> None:
    """A zoo beside it that aims at nothing, or at something else, is not counted among those that missed."""
    key = {"machine": "Parity", "modified": False, "dose": "by chance", "diverged": 0, "median_epochs": None}
    score = {"value": 0.5, "low": 0.2, "high": 0.8}
    outcomes = [
        {**key, "n": 4, "target": None, "came_to_target": None, "share": None},
        {**key, "n": 6, "target": 0.1, "came_to_target": 3, "share": score},
    ]
    numbers = {"settings": {"label": "machine"}, "outcomes": outcomes, "learning": [], "arms": {}}
    rows = [line for line in page_of_machines().tables(numbers) if "Parity" in line]
    assert rows == ["| Parity | 4 | 0 | – | – | – | – |", "| Parity | 6 | 0 | 3 | 0.50 [0.20, 0.80] | – | – |"]


def test_the_page_says_who_is_left_and_what_was_not_asked() -> None:
    """Where training stops at the target, equal length is those who missed it; and a question without an answer is named."""
    page, of = page_of_machines(), {"n": 40, "diverged": 0, "target": 0.1, "share": None}
    numbers: dict[str, Any] = {
        "settings": {"label": "machine"},
        "outcomes": [{"machine": "A", "came_to_target": 27, **of}, {"machine": "B", "came_to_target": 2, **of}],
        "learning": [], "arms": {"matched": {"n": 51, "unit": "data draws", "which": [], "modified": [], "yardstick": [], "nulls": []}},
    }  # fmt: skip
    assert page._missed(numbers) == ", of those that missed the target alone"
    numbers["arms"]["matched"]["n"] = 80
    assert page._missed(numbers) == ""
    assert "**What was learned, equal length.** Not asked: no two values of machine are of several data draws." in list(
        page.findings(numbers)
    )
    found = {
        "modified": [
            {"solver": solver, "control": False, "auc": {"low": low}, "test": {"q": 0.01}}
            for solver, lows in ((page.WEIGHTS, (0.6, 0.4)), ("forest", (0.6, 0.6)), ("other", (0.6, 0.4)))
            for low in lows
        ]
    }
    assert page._others(found, 1) == " Others tell more, which is seen afterwards: the forest 2."
    assert page._others(found, 2) == ""


def test_beyond_the_networks_there_are_the_page_extrapolates_and_says_so() -> None:
    def row(n: int, dose: str, value: float, low: float) -> tuple[str, dict[str, Any]]:
        auc = {"value": value, "low": low, "high": 1.0}
        return "matched", {"label": "A", "dose": dose, "n": n, "auc": auc, "told_apart": low > 0.5, "tests": 6}

    rows = [row(50, "0.1", 0.7, 0.3), row(300, "0.1", 0.6, 0.4), row(300, "0.2", 0.5, 0.4), row(300, "0.5", 0.9, 0.8)]
    rows.append(row(300, "0.3", 0.51, 0.4))
    rows.append(row(300, "0.4", 0.51, 0.4))
    rows[-1][1]["auc"]["low"] = None
    text = list(page_of_machines()._power(rows))
    assert "is an extrapolation" in text[0]
    # The half width .2 has to halve: four times as many.
    assert [line.split(" | ")[-1] for line in text[3:8]] == [
        "1,200 a side |", "none: its AUC is not above ½ |", "– |", "more than 3,000 |", "no lower bound |",
    ]  # fmt: skip


def test_of_many_machines_the_page_says_how_they_are_spread() -> None:
    page, score = page_of_machines(), {"low": 0.1, "high": 0.9}
    rows = [
        ("matched", {"label": str(i), "rank": {"value": i / 10, **score}, "test": {"q": 0.01 if i < 3 else 0.5}})
        for i in range(11)
    ]
    assert page._many(rows)
    assert not page._many(rows[:8])
    lines = list(page._spread(rows, "automaton", lambda r: "own draw", lambda r: r["rank"]["value"]))
    rows[0][1]["rank"]["value"] = None  # an AUC that is none
    rest = list(page._spread(rows, "automaton", lambda r: "own draw", lambda r: r["rank"]["value"]))
    assert rest[2] == "| equal length | own draw | 10 | 0.10 | 0.55 | 1.00 | 3 of 11 |"
    assert lines[2] == "| equal length | own draw | 11 | 0.00 | 0.50 | 1.00 | 3 of 11 |"


@pytest.mark.slow
def test_sentences_of_the_page_follow_the_numbers(study: Path) -> None:
    """A result turned around turns the sentence: words are not typed beside the numbers."""
    page, numbers = page_of_machines(), json.loads((study / "numbers.json").read_text())

    def said(**low: float) -> str:
        for row in numbers["arms"]["matched"]["modified"]:
            row["auc"]["low"] = low[row["solver"].split(" ")[0] + row["solver"].split(" ")[1]]
            row["test"]["q"] = 0.001
        return " ".join(s for s in page.findings(numbers) if "equal length" in s)

    known = {"logisticon": 0.9, "trainingalone": 0.4, "losswithout": 0.4, "losswith": 0.9}
    both = "SimpleXOR (key by chance), SingleDirect (key by chance)"
    alone = said(**known)
    assert (
        f"By logistic on statistics, fixed beforehand, weights tell 2 of 2 changes in networks of unseen data draws: {both}."
        in alone
    )
    assert (
        f"the held-out loss without keys does not tell 2: {both}; nor does what is known of training 2: {both}."
        in alone
    )
    longer = said(**known | {"trainingalone": 0.9})
    assert f"does not tell 2: {both}; nor does what is known of training 0: none." in longer
    assert "does not tell 0: none" in said(**known | {"losswithout": 0.8})
    assert "weights tell 0 of 2 changes" in said(**known | {"logisticon": 0.45})
    numbers["outcomes"][0]["came_to_target"] = 0
    assert f"**Not learned in the budget:** `{numbers['outcomes'][0]['machine']}`" in next(iter(page.findings(numbers)))
