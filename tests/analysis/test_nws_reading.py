"""Settings read from weights: planted ones are found, others are not, and nothing is asked of networks that were seen."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_zoos import planted
from resealed import reseal

from zoo_datasets import cli, views
from zoo_datasets.analysis.nws import (
    divisions,
    features,
    kept,
    nulls,
    population,
    questions,
    run,
    scoring,
    solvers,
    transfer,
)
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import ARCHITECTURE, TRAINING, Property
from zoo_datasets.analysis.nws.solvers import BOOSTING, EITHER, SVM
from zoo_datasets.analysis.nws.study import (
    METADATA,
    METHODS,
    POSITIONS,
    UPDATES,
    WINDOWS,
    Study,
    reader,
    told_by_length,
)
from zoo_datasets.analysis.results import Results
from zoo_datasets.baselines.interface import Target
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.zoo import Zoo

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return planted(tmp_path_factory.mktemp("planted") / "weightzoo" / "planted")


@pytest.fixture(scope="module")
def of(zoo: Zoo) -> Population:
    return population.read([zoo])


@pytest.fixture(scope="module")
def study(of: Population) -> Study:
    return Study(of, divisions.sealed(of), 64, 1, 4, 0, 200, None)


def rows_of(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


# ── the population ──


@pytest.mark.slow
def test_what_varies_is_a_property_of_a_kind_and_aliases_are_none(of: Population) -> None:
    kinds = {p.name: (p.kind, p.target.classes) for p in of.properties}
    assert kinds == {
        "batch_size": ("training", 3), "init_kind": ("initialization", 2), "lr": ("training", 0),
        "optimizer": ("training", 2), "width": ("architecture", 2),
    }  # fmt: skip
    assert of.refused == {"momentum": "`optimizer` says it too"}
    assert next(p for p in of.properties if p.name == "batch_size").levels == ("8", "16", "32")
    lr = next(p for p in of.properties if p.name == "lr")
    assert lr.logarithm
    assert np.allclose(10**lr.values, of.zoos[0].models["lr"].to_numpy())


def test_vectors_are_where_the_zoo_mapped_them(of: Population, zoo: Zoo) -> None:
    assert not any(v.flags.owndata or v.flags.writeable for v in of.vectors)
    for network in (0, 7, 59):
        rows = of.snapshots[network]
        assert [len(of.vectors[i]) for i in rows] == [of.lengths[network]] * 4
        assert (of.vectors[rows[-1]] == zoo.vector(of.ids[network])).all()
        assert (of.vectors[rows[0]] == zoo.vector(of.ids[network], 0)).all()
    assert of.starts.all()
    assert (of.updates == 30).all()


def test_networks_of_a_constant_start_are_groups_of_their_own(tmp_path: Path) -> None:
    """They share an init group, which says nothing of one of them; all of them on one side would be a level never seen."""
    shared = planted(tmp_path / "weightzoo" / "shared", 48, sides=("train",), init_kind="constant", init_group="all")
    found = population.read([shared])
    assert found.constant.all()
    assert set(found.groups.tolist()) == set(found.ids)
    assert set(found.side.tolist()) == {"train", "validation", "test"}


def test_networks_whose_constant_start_is_their_own_stay_where_they_were_sealed(tmp_path: Path) -> None:
    """Scales of batch norms were drawn, so that each is an init group; twins of one initialization are one too."""
    own = planted(tmp_path / "weightzoo" / "own", 48, init_kind="constant")
    found = population.read([own])
    assert found.constant.all()
    assert found.side.tolist() == own.models["split"].to_pylist()
    assert set(found.groups.tolist()) == set(own.models["init_group"].to_pylist())
    assert not population.shared_starts([own], found.ids).any()


def test_networks_that_end_in_the_same_weights_are_one_group(tmp_path: Path) -> None:
    """Whoever has learned one of them can look the other up; shuffled labels, which part them, would not tell."""
    first = planted(tmp_path / "weightzoo" / "first", 48)
    again = planted(tmp_path / "weightzoo" / "again", 48, ids=1)
    assert not set(first.models["model_id"].to_pylist()) & set(again.models["model_id"].to_pylist())
    found = population.read([first, again])
    assert len(np.unique(found.groups)) == 48
    assert found.side[:48].tolist() == found.side[48:].tolist()


def test_of_few_networks_a_number_that_each_has_its_own_of_is_no_class(tmp_path: Path) -> None:
    few = population.read([planted(tmp_path / "weightzoo" / "few", 12)])
    kinds = {p.name: p.target.classes for p in few.properties}
    assert kinds["lr"] == 0
    assert kinds["batch_size"] > 0


def test_a_setting_that_two_zoos_hold_as_different_types_is_left_out_where_it_is_not_asked_for(tmp_path: Path) -> None:
    words = planted(tmp_path / "weightzoo" / "words", 24, note="much")
    numbers = planted(tmp_path / "weightzoo" / "numbers", 24, seed=1, note=7)
    found = population.read([words, numbers], ["optimizer"])
    assert [p.name for p in found.properties] == ["optimizer"]
    assert "`note` is of different types" in found.refused["note"]
    with pytest.raises(ZooError, match="`note` is of different types"):
        population.read([words, numbers], ["note"])


def test_nobody_keeps_its_own_weights_though_it_is_alone_in_its_architecture(of: Population) -> None:
    alone = dataclasses.replace(
        of, architecture=np.where(np.arange(len(of)) == 7, len(of.architectures), of.architecture),
        architectures=(*of.architectures, of.architectures[0]),
    )  # fmt: skip
    assert (nulls.others(alone, 0) != np.arange(len(of))).all()


def test_who_goes_on_from_a_network_is_on_its_side(tmp_path: Path) -> None:
    """Of a parent of a constant start too, which is a group of its own."""
    older = planted(tmp_path / "weightzoo" / "older", 48, sides=("train",), init_kind="constant", init_group="all")
    younger = planted(tmp_path / "weightzoo" / "younger", 48, seed=1, sides=("train",), parents=older)
    found = population.read([older, younger])
    side, group = (dict(zip(found.ids, of.tolist(), strict=True)) for of in (found.side, found.groups))
    assert set(side.values()) == {"train", "validation", "test"}
    for row in younger.models.to_pylist():
        assert side[row["model_id"]] == side[row["parent_id"]]
        assert group[row["model_id"]] == group[row["parent_id"]]


def test_sides_and_folds_part_no_group_and_ask_everybody_once(of: Population) -> None:
    for at in (divisions.sealed(of), *divisions.folds(of, 0)):
        sides = [set(of.groups[s].tolist()) for s in (at.train, at.validation, at.test)]
        assert all(sides)
        assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
    asked = np.concatenate([at.test for at in divisions.folds(of, 0)])
    assert np.sort(asked).tolist() == list(range(60))


def test_a_level_held_out_is_asked_and_never_learned(of: Population) -> None:
    axis = next(p for p in of.properties if p.name == "optimizer")
    found = dict(divisions.held_out(of, axis, 0))
    assert set(found) == {"adam", "momentum"}
    for number, at in enumerate(found.values()):
        assert set(axis.values[at.test].tolist()) == {number}
        assert number not in axis.values[np.concatenate([at.train, at.validation])]


def test_metadata_knows_neither_the_property_nor_what_gives_it_away(of: Population) -> None:
    optimizer = next(p for p in of.properties if p.name == "optimizer")
    names = of.metadata(optimizer).column_names
    assert names == ["batch_size", "init_kind", "lr", "width", "final accuracy", "final vector_length"]
    assert of.metadata(optimizer, updates=True).column_names == [*names, "updates"]


# ── features ──


def test_statistics_are_the_published_eight() -> None:
    row = np.arange(101.0) ** 2
    found = features.statistics(row[None])[0]
    assert found[0] == pytest.approx(row.mean())
    assert found[1] == pytest.approx(row.var())
    assert found[2] == pytest.approx(((row - row.mean()) ** 3).mean() / row.std() ** 3)
    assert found[3:].tolist() == pytest.approx([1.0, 625.0, 2500.0, 5625.0, 99.0**2])
    assert features.statistics(np.ones((1, 5)))[0].tolist() == [1, 0, 0, 1, 1, 1, 1, 1]


def test_what_comes_before_the_fully_connected_layers_has_its_buffers_with_it() -> None:
    layers = [
        {"conv": 2, "kernel": 1},
        "batch_norm",
        "relu",
        "flatten",
        {"linear": 3},
        "batch_norm",
        {"linear": "classes"},
    ]
    made = build_architecture(layers, (1, 2, 2), 2)
    before = features.before_layers(made)
    assert before.sum() == 2 + 2 + 4 * 2
    assert before[views.nws_order(made)].tolist() == [True] * 12 + [False] * (made.n_params - 12)


def test_positions_count_the_values_of_each_tensor_and_see_none(of: Population) -> None:
    found = features.positions(of, of.last, 40, 0)
    assert (found.sum(2) == 40).all()
    assert (found == features.positions(of, of.at(0), 40, 0)).all()


def test_a_layer_is_each_networks_own_wherever_it_stands() -> None:
    """The last of two convolutions stands elsewhere than the only one; where all have as many, each is named. Biases go with them."""
    made = [
        build_architecture([*({"conv": 2}, "relu") * depth, "flatten", {"linear": "classes"}], (1, 8, 8), 3)
        for depth in (1, 2)
    ]
    of = dataclasses.replace(tiny(2), architectures=tuple(made), architecture=np.arange(2))
    found = {name: slots.tolist() for name, slots in features.parts(of).items()}
    assert found == {"first convolution": [[0, 1]] * 2, "last convolution": [[0, 1], [2, 3]], "linear 1": [[4, 5]] * 2}
    alike = dataclasses.replace(of, architectures=(made[1], made[1]))
    assert list(features.parts(alike)) == ["convolution 1", "convolution 2", "linear 1"]


# ── solvers ──


def test_what_needs_no_weights_chooses_between_solvers_and_is_not_worse_than_either(study: Study) -> None:
    """On validation, where it chooses; so that no gain is over a control that overfits."""
    at = study.at
    for p in study.of.properties:
        said = [solvers.solve(s, study.known(p, at), p, at, 0).validation for s in (EITHER, SVM, BOOSTING)]
        both, *each = (solvers._loss(p, v, p.values[at.validation]) for v in said)
        assert both == min(each)
    assert {solver for kind, solver in METHODS.values() if kind in ("metadata", "updates")} == {EITHER}


def test_what_windows_cover_is_one_row_a_network_and_asked_once(study: Study) -> None:
    width = next(p for p in study.of.properties if p.name == "width")
    found = study.beside(METADATA, width, study.at)
    assert found is study.beside(METADATA, width, study.at)
    assert (found.test.argmax(1) == width.values[study.at.test]).all()  # the length says it


def test_two_pieces_of_a_network_are_learned_from_and_all_are_asked_about() -> None:
    made, numbers = twins(40)
    (p,) = made.properties
    at = divisions.sealed(made)
    pieces = np.repeat(numbers, 4, axis=1)
    pieces[at.train, 2:] = np.nan  # which no machine learns from
    two = solvers.solve(SVM, pieces, p, at, 0)
    assert np.allclose(two.test, solvers.solve(SVM, numbers[:, [0, 0]], p, at, 0).test)
    pieces[at.test, 3] += 5.0
    assert not np.allclose(two.test, solvers.solve(SVM, pieces, p, at, 0).test)


# ── answers ──


@pytest.mark.slow
def test_planted_settings_are_read_and_one_that_weights_do_not_say_is_not(study: Study) -> None:
    rows = questions.accuracy(study)
    (optimizer,) = rows_of(rows, property="optimizer", method="svm")
    assert optimizer["low"] > optimizer["chance"]
    assert optimizer["p"] < 0.01
    (lr,) = rows_of(rows, property="lr", method="svm, whole vector")
    assert lr["value"] > 0.2
    for method in ("svm", "boosting", "svm, windows", METADATA):
        (batch,) = rows_of(rows, property="batch_size", method=method)
        assert batch["p"] > 0.01
        assert batch["value"] < batch["chance"] + 0.2
    # The length of the vector gives the width away, and so does which tensors a window covers.
    for method in (METADATA, POSITIONS):
        assert rows_of(rows, property="width", method=method)[0]["value"] == 1.0
    inside = [r for r in questions.by_accuracy(study) if r["method"] == "svm" and r["property"] == "optimizer"]
    assert [r["bin"] for r in inside] == [0, 1, 2, "inside", "no constant start"]
    assert sum(r["n"] for r in inside[:3]) == inside[3]["n"] == len(study.at.test)
    # Of a third in which a number is the same for all nothing can be said.
    number = study.judged["lr", "svm"]
    own = study.of.accuracy[number.networks]
    low = number.networks[own < np.quantile(own, 1 / 3)]
    values = number.of.values.copy()
    values[low] = values[low[0]]
    changed = dataclasses.replace(number, of=dataclasses.replace(number.of, values=values))
    found = questions.by_accuracy(dataclasses.replace(study, judged={("lr", "svm"): changed}))
    assert [r["bin"] for r in found] == [1, 2, "inside", "no constant start"]
    assert found[2]["n"] == len(number.networks) - len(low)


@pytest.mark.slow
def test_nothing_of_training_is_readable_at_the_first_snapshot(study: Study) -> None:
    rows = questions.when(study)
    first, last = (rows_of(rows, property="optimizer", place=place)[0] for place in (0, 3))
    assert first["step_0"]
    assert not last["step_0"]
    assert first["low"] <= first["chance"]
    assert last["value"] == 1.0
    assert all(0 < r["p"] <= 1 for r in rows)
    found = {name: ask() for name, ask in nulls.asked(study, 3).items()}
    every = [*found["shuffled"], *found["step_0"], *found["gain"]]
    nulls.mark(every)
    assert {(r["shuffles"], len(r["by_shuffle"])) for r in found["shuffled"]} == {(3, 3)}
    assert all(min(r["by_shuffle"]) <= r["value"] <= max(r["by_shuffle"]) for r in found["shuffled"])
    assert not [r for r in every if r["leak"]]


def test_what_nothing_can_say_and_is_told_is_marked() -> None:
    """By permutations, corrected; a share above chance of few networks is no leak, and one below its tick may be."""
    rows = [
        {"property": f"p{i}", "method": "svm", "p": p, "n_permutations": 999}
        for i, p in enumerate([0.001, 0.04, 0.5, 0.9])
    ]
    rows.append({"property": "width", "method": "svm"})  # which may be read
    summary = nulls.mark(rows)
    assert [r["leak"] for r in rows] == [True, False, False, False, False]
    assert (summary["n"], summary["findings"]) == (4, 1)


@pytest.mark.slow
def test_the_null_asks_every_network_and_tells_a_leak(study: Study, of: Population) -> None:
    """A first snapshot that says how its network was trained, as if it had been taken late."""
    found = nulls.first_snapshot(study)
    assert {r["n"] for r in found if r["property"] == "optimizer"} == {int(of.starts.sum())}
    late = dataclasses.replace(study, numbers_of={("layers 64", 0): study.numbers("layers", 3)}, answers={})
    assert late.window == 64
    rows = nulls.first_snapshot(late)
    nulls.mark(rows)
    assert {r["property"] for r in rows if r["leak"]} >= {"optimizer"}


def test_twins_on_both_sides_are_a_leak_of_shuffled_labels() -> None:
    """Pairs that share weights and label: who is learned from says what the other is, whatever the label."""
    pairs = 40
    made, numbers = twins(pairs)
    study = Study(made, divisions.sealed(made), 4, 1, 8, 0, 400, None)
    study.numbers_of["layers 4", 0] = numbers
    first, second = np.arange(pairs), np.arange(pairs, 2 * pairs)
    parted = divisions.Division("parted", first, second[:8], second[8:])
    rows = nulls.shuffled(study, [parted], 3)
    nulls.mark(rows)
    assert {r["method"] for r in rows if r["leak"]} == {"svm", "boosting"}
    together = nulls.shuffled(study, divisions.folds(made, 0), 3)
    nulls.mark(together)
    assert not [r for r in together if r["leak"]]


@pytest.mark.slow
def test_the_weights_of_others_gain_nothing_and_ones_own_would_be_a_leak(study: Study, of: Population) -> None:
    folds = divisions.folds(of, 0)
    moved = nulls.others(of, 0)
    assert (np.sort(moved) == np.arange(60)).all()
    assert (moved != np.arange(60)).all()
    layout = np.array([a.layout_id for a in of.architectures])[of.architecture]
    assert (layout[moved] == layout).all()
    rows, own = (
        nulls.no_gain(study, folds, m, a) for m, a in ((moved, nulls.anybody(of, 0)), (np.arange(60), np.arange(60)))
    )
    assert {(r["over"], r["arm"], r["first"]) for r in rows if r["kind"] != ARCHITECTURE} == {
        (o, "weights of others", True) for o in (METADATA, UPDATES)
    }
    assert {r["over"] for r in rows if r["kind"] == ARCHITECTURE} == {METADATA, UPDATES, POSITIONS}
    nulls.mark(rows)
    nulls.mark(own)
    assert not [r for r in rows if r["leak"]]
    assert "optimizer" in {r["property"] for r in own if r["leak"]}


def test_networks_alone_in_their_layout_lend_each_other_their_weights() -> None:
    made = tuple(build_architecture([{"linear": "classes"}], (n,), 2) for n in range(1, 5))
    of = dataclasses.replace(tiny(6), architectures=made, architecture=np.array([0, 0, 0, 1, 2, 3]))
    moved = nulls.others(of, 0)
    assert set(moved[:3].tolist()) == {0, 1, 2}
    assert set(moved[3:].tolist()) == {3, 4, 5}
    assert (moved != np.arange(6)).all()


def test_what_a_network_looks_like_is_asked_with_anybodys_weights(study: Study, of: Population) -> None:
    """Another one of its layout tells it as well as the network itself."""
    layout = np.array([a.layout_id for a in of.architectures])[of.architecture]
    anyone = nulls.anybody(of, 0)
    assert (np.sort(anyone) == np.arange(60)).all()
    assert (anyone != np.arange(60)).all()
    assert 15 < (layout[anyone] == layout).sum() < 45
    folds, own = divisions.folds(of, 0)[:2], np.arange(60)
    for kind, name in ((ARCHITECTURE, "width"), (TRAINING, "optimizer")):
        some = dataclasses.replace(
            study, of=dataclasses.replace(of, properties=[p for p in of.properties if p.name == name])
        )
        one, two, both = (
            nulls.no_gain(some, folds, *places) for places in ((own, anyone), (anyone, own), (anyone, anyone))
        )
        assert [r["with_weights"] for r in both] == [r["with_weights"] for r in (one if kind == ARCHITECTURE else two)]


def test_where_the_length_decides_there_is_nothing_to_gain(study: Study, of: Population) -> None:
    decided = {p.name for p in of.properties if told_by_length(of, p)}
    assert decided == {p.name for p in of.properties if p.kind == ARCHITECTURE} == {"width"}
    odd = next(p for p in of.properties if p.name == "width")
    mixed = np.where(np.arange(len(of)) == 0, 1 - odd.values[0], odd.values)
    assert not told_by_length(of, dataclasses.replace(odd, values=mixed))
    row = {"low": 0.1, "high": 0.3, "q": 0.001}
    assert scoring.verdict(row, told=True) == scoring.TOLD
    assert scoring.verdict(row) == "readable"


def test_statistics_of_layers_are_no_reading_of_what_a_network_looks_like(study: Study) -> None:
    """How many there are tells it."""
    rows = questions.accuracy(dataclasses.replace(study, deep=None, judged={}))
    by = {kind: {r["method"] for r in rows if r["kind"] == kind} for kind in (ARCHITECTURE, TRAINING)}
    assert by[TRAINING] - by[ARCHITECTURE] == {"svm", "boosting"}
    assert by[ARCHITECTURE] >= {"positions", "svm, windows"}


def test_another_networks_weights_do_not_tell_an_activation() -> None:
    """Of one layout it is the architecture: whoever lends within it lends the answer."""
    layers = [{"linear": 3}, "activation", {"linear": "classes"}]
    made = tuple(build_architecture(layers, (2,), 2, a) for a in ("relu", "tanh"))
    of = dataclasses.replace(tiny(40), architectures=made, architecture=np.arange(40) % 2)
    moved = nulls.others(of, 0)
    assert 5 < (of.architecture[moved] == of.architecture).sum() < 35


@pytest.mark.slow
def test_the_gain_over_metadata_is_large_for_a_planted_setting_and_none_for_the_length(study: Study) -> None:
    folds = divisions.folds(study.of, 0)
    found = {
        p.name: questions._gains(study, p, folds, ("svm",), "an arm")[0]
        for p in study.of.properties if p.name in ("optimizer", "width", "batch_size")
    }  # fmt: skip
    optimizer, width = found["optimizer"], found["width"]
    assert (optimizer["n"], optimizer["folds"], optimizer["over"], optimizer["low"] > 0) == (60, 5, METADATA, True)
    assert optimizer["value"] == pytest.approx(optimizer["with_weights"] - optimizer["known"])
    assert width["known"] == 1.0
    assert (width["value"], width["high"]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 60)))  # no answer differs
    assert found["batch_size"]["low"] <= 0
    assert reader(next(p for p in study.of.properties if p.name == "width")) == WINDOWS


@pytest.mark.slow
def test_permuted_networks_keep_their_statistics_and_lose_their_windows(study: Study) -> None:
    rows = transfer.symmetries(study)
    before, after = (rows_of(rows, property="optimizer", method="svm", move=m)[0] for m in ("as they are", "permuted"))
    assert (before["n_moved"], before["n"]) == (0, len(study.of))
    assert len(study.of) - 5 < after["n_moved"] <= len(study.of)  # a permutation of few units may be none
    assert before["value"] == after["value"] == 1.0
    numbers = {p.name for p in study.of.properties if not p.target.classes}
    for row in rows:
        if row["move"] != transfer.STILL:
            assert row["n"] == row["n_moved"]
            assert row["lost"] == pytest.approx(row["before"] - row["value"], abs=1e-12)
            if (
                row["property"] in numbers and abs(row["lost"]) < 1e-12
            ):  # a number read alike of all has nothing to bound
                assert np.isnan([row["lost_low"], row["lost_high"]]).all()
            else:
                assert row["lost_low"] <= row["lost"] <= row["lost_high"]


def test_a_move_is_judged_by_the_networks_that_it_changes_alone(study: Study) -> None:
    """Half of them change, and of these all are read wrong; the others, read right, say nothing of the move."""
    optimizer = next(p for p in study.of.properties if p.name == "optimizer")
    right = np.eye(2)[optimizer.values[study.at.test].astype(int)]
    move = np.arange(len(study.of)) % 2 == 0
    changed = move[study.at.test]
    wrong = np.where(changed[:, None], 1 - right, right)
    by_move = {
        name: study.judge(optimizer, study.at, [said]) for name, said in (("as they are", right), ("both", wrong))
    }
    still, row = transfer._paired("svm", by_move, {"as they are": ~move & move, "both": move})
    assert (still["n"], still["value"], still["n_moved"]) == (len(right), 1.0, 0)
    assert (row["n"], row["before"], row["value"], row["lost"]) == (changed.sum(), 1.0, 0.0, 1.0)
    assert transfer._paired("svm", by_move, dict.fromkeys(by_move, ~move & move)) == [still]


@pytest.mark.slow
def test_a_held_out_level_is_asked_beside_what_is_read_of_it_within(zoo: Zoo) -> None:
    of = population.read([zoo], ["optimizer", "width"])
    study = Study(of, divisions.sealed(of), 64, 1, 4, 0, 200, None)
    rows = transfer.held_out(study, ["width"])
    assert {r["level"] for r in rows} == {"4", "6"}
    assert "width" not in {r["property"] for r in rows}
    for row in rows:
        assert row["lost"] == pytest.approx(row["within"] - row["value"])
        assert row["lost_low"] <= row["lost"] <= row["lost_high"]
        assert 0 < row["n_train"] < row["within_n_train"] < len(of)
    with pytest.raises(ZooError, match=r"Unknown property with levels 'lr'.*optimizer"):
        transfer.held_out(study, ["lr"])


@pytest.mark.slow
@pytest.mark.parametrize("deep_folds", [False, True])
def test_the_meta_classifier_is_asked_within_where_it_learns_in_five_folds(
    zoo: Zoo, tmp_path: Path, deep_folds: bool
) -> None:
    from zoo_datasets.analysis.nws.deep import Deep

    of = population.read([zoo], ["optimizer", "width"])
    study = Study(of, divisions.sealed(of), 64, 1, 4, 0, 200, Deep(of, 1, 8, tmp_path, "float32"))
    rows = transfer.held_out(study, ["width"], deep=True, deep_folds=deep_folds)
    assert {r["method"] for r in rows} == {"svm", "boosting", "meta-classifier"}
    assert {r["method"] for r in rows if "within" in r} == {"svm", "boosting"} | (
        {"meta-classifier"} if deep_folds else set()
    )
    for row in (r for r in rows if r["method"] == "meta-classifier" and deep_folds):
        assert row["lost"] == pytest.approx(row["within"] - row["value"])
    young = planted(tmp_path / "weightzoo" / "young", 60, seed=1, parents=zoo)
    everyone, some = len(of), len(of) if deep_folds else len(study.at.test)
    moved = rows_of(transfer.symmetries(study, deep_folds), move="as they are", property="optimizer")
    assert {r["method"]: r["n"] for r in moved} == {"svm": everyone, WINDOWS: everyone, "meta-classifier": some}
    grown = rows_of(transfer.children(study, [young], deep_folds), place=0, property="optimizer")
    for method, n in (("svm", everyone), ("meta-classifier", some)):
        assert sum(r["n"] for r in rows_of(grown, method=method) if r["whose"] != "child's own") == n


@pytest.mark.slow
def test_a_child_is_read_as_its_parent_first_and_as_itself_in_the_end(zoo: Zoo, tmp_path: Path) -> None:
    of = population.read([zoo], ["optimizer"])
    study = Study(of, divisions.sealed(of), 64, 1, 4, 0, 200, None)
    young = planted(tmp_path / "weightzoo" / "young", 60, seed=1, parents=zoo)
    rows = rows_of(transfer.children(study, [young]), method="svm")
    first, last = (rows_of(rows, place=place) for place in (0, 3))
    assert {r["whose"]: r["value"] for r in first} == {"both": 1.0, "parent's": 1.0, "child's own": 0.0}
    assert sum(r["n"] for r in first if r["whose"] != "child's own") == len(of)
    by_whose = {r["whose"]: r["value"] for r in last}
    assert by_whose["child's own"] == pytest.approx(1 - by_whose["parent's"])


@pytest.mark.slow
def test_a_child_of_a_level_that_its_parents_population_lacks_is_told_as_its_parent(zoo: Zoo, tmp_path: Path) -> None:
    of = population.read([zoo], ["optimizer"])
    study = Study(of, divisions.sealed(of), 64, 1, 4, 0, 200, None)
    young = planted(tmp_path / "weightzoo" / "young", 60, seed=1, parents=zoo, optimizer="sgd")
    rows = rows_of(transfer.children(study, [young]), method="svm")
    assert {r["whose"] for r in rows} == {"parent's"}
    unsaid = planted(tmp_path / "weightzoo" / "unsaid", 60, seed=1, parents=zoo, optimizer=None)
    assert {r["whose"] for r in transfer.children(study, [unsaid])} == {"both"}


def test_a_number_that_all_children_have_is_not_compared_with() -> None:
    """Its errors have no spread to be a share of: 0.999 of a rate that all have would be units and no score."""
    n = 20
    lr = Property(Target("lr"), TRAINING, (), False, np.linspace(0.001, 0.002, n), "lr", ())
    said = [np.full(n, 0.0015)]
    groups = np.array([f"g{i}" for i in range(n)])
    rows = transfer._two_ways(lr, said, groups, np.arange(n), np.full(n, 0.005), np.arange(n), {})
    assert [r["whose"] for r in rows] == ["parent's"]
    assert rows[0]["value"] == pytest.approx(0.0)


# ── the command ──


@pytest.mark.slow
def test_the_command_writes_numbers_tables_and_pictures(zoo: Zoo, tmp_path: Path, capsys: Said) -> None:
    call = ["analyze", "nws", str(zoo.root), "--no-deep", "--permutations", "50", "--out", str(tmp_path), "--quiet",
            "--questions", "accuracy", "features", "by-accuracy", "where", "how-much", "--window", "40", "--sizes", "20", "40", "--properties", "optimizer", "width"]  # fmt: skip
    assert cli.main(call) == 0
    written = {Path(line).name for line in capsys.readouterr().out.split()}
    assert {"where_layers.parquet", "features.parquet"} <= written
    assert {"numbers.json", "accuracy.parquet", "accuracy.png", "features.svg", "layers.png", "how-much.png"} <= written
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["population"]["lengths"] == [83, 123]
    assert all("q" in r for r in numbers["accuracy"])
    assert numbers["tests"]["n"] == len(numbers["accuracy"])
    assert {r["size"] for r in numbers["how_much"]} == {20, 40}
    assert not (tmp_path / "unfinished.json").exists()
    said = page_of(numbers)
    assert "A support vector machine on statistics reads" in said
    assert "**Local and global features:**" in said


def test_what_was_answered_is_not_asked_again_of_the_same_question_code_and_zoo(zoo: Zoo, tmp_path: Path) -> None:
    def ask(settings: dict[str, Any], answer: float) -> dict[str, Any]:
        results = Results("nws", [zoo], settings, tmp_path)
        kept.Answers(results).ask("accuracy", lambda: {"accuracy": [{"value": answer, "low": np.float64("nan")}]})
        return results.numbers

    first = ask({"seed": 0}, 0.5)["accuracy"]
    assert first == [{"value": 0.5, "low": None}]
    assert ask({"seed": 0}, 0.6)["accuracy"] == first
    assert ask({"seed": 1}, 0.7)["accuracy"][0]["value"] == 0.7
    (tmp_path / "unfinished.json").write_text("{")  # whatever else lies there
    assert ask({"seed": 1}, 0.8)["accuracy"][0]["value"] == 0.8


def test_a_property_of_one_level_gets_no_meta_classifier_of_its_own() -> None:
    made, _ = twins(40)
    (kind,) = made.properties
    alone = dataclasses.replace(made, properties=(dataclasses.replace(kind, values=np.zeros(80)),))
    study = Study(alone, divisions.sealed(alone), 4, 1, 8, 0, 100, None)
    with pytest.raises(ZooError, match=r"--single kind: the 40 networks that are learned from have one level of it"):
        run._single(study, ["kind"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "84"], "longer than the shortest vector of weightzoo/planted, 83. Take at most --window 83."),
        (["--window", "0"], "A window of 0 weights is none"),
        (["--properties", "optimiser"], "Did you mean `optimizer`?"),
        (["--properties", "note"], "`note`: it is \"same\" for every network"),
        (["--sizes", "84"], "longer than the shortest vector of weightzoo/planted, 83. Take at most --sizes 83."),
        (["--seeds", "0"], "--seeds 0 is none; the least is 1."),
        (["--batch", "1"], "--batch 1: batch norm needs two windows in a step, or more."),
        (["--single", "lr"], "--single asks for a meta-classifier, and --no-deep leaves it out"),
        (["--held-out", "depth"], "Unknown property 'depth'"),
        (["--held-out", "lr"], "--held-out lr: it is a number, and has no levels to leave out."),
        (["--children", "{zoo}"], "No network of weightzoo/planted went on from one of weightzoo/planted."),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_mistake_is_one_sentence(zoo: Zoo, tmp_path: Path, capsys: Said, options: list[str], said: str) -> None:
    named = [o.format(zoo=zoo.root) for o in options]
    questions_asked = ["--questions", "transfer"] if "--children" in named else ["--questions", "features"]
    call = ["analyze", "nws", str(zoo.root), *named, "--no-deep", "--out", str(tmp_path / "out"), *questions_asked]
    assert cli.main(call) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "numbers.json").exists()


@pytest.mark.slow
def test_a_zoo_named_twice_is_one_and_networks_that_two_zoos_have_are_refused(
    zoo: Zoo, tmp_path: Path, capsys: Said
) -> None:
    call = ["--no-deep", "--questions", "features", "--no-pictures", "--out", str(tmp_path / "out")]
    assert cli.main(["analyze", "nws", str(zoo.root), f"{zoo.root}/../{zoo.root.name}", *call]) == 0
    kept = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert kept["population"]["n_models"] == len(zoo.models)
    shutil.copytree(zoo.root, tmp_path / "again")
    reseal(tmp_path / "again", zoo="weightzoo/again")
    assert cli.main(["analyze", "nws", str(zoo.root), str(tmp_path / "again"), *call]) == 1
    assert "weightzoo/planted, weightzoo/again have networks in common; take one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_one_network_and_a_zoo_in_which_nothing_varies_are_one_sentence(tmp_path: Path, capsys: Said) -> None:
    alone = planted(tmp_path / "weightzoo" / "alone", 1)
    assert cli.main(["analyze", "nws", str(alone.root), "--no-deep"]) == 1
    assert "1 networks of 1 initializations" in capsys.readouterr().err
    same = planted(
        tmp_path / "weightzoo" / "same", 24, optimizer="adam", lr=0.1, batch_size=8, init_kind="normal", momentum=None
    )
    assert cli.main(["analyze", "nws", str(same.root), "--no-deep", "--properties", "optimizer"]) == 1
    assert (
        'weightzoo/same that could be read from weights. `optimizer`: it is "adam" for every network.'
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_meta_classifier_reads_a_planted_setting_from_windows_of_networks_never_seen(
    zoo: Zoo, tmp_path: Path, precision: str
) -> None:
    from zoo_datasets.analysis.nws.deep import Deep

    of = population.read([zoo], ["optimizer"])
    study = Study(of, divisions.sealed(of), 64, 1, 8, 0, 200, Deep(of, 30, 8, tmp_path, precision))
    (optimizer,) = of.properties
    said = questions._last(study, 0, study.at.test, 8)["optimizer"].mean(1)
    assert questions._last(study, 0, study.at.test, 8) is questions._last(study, 0, study.at.test, 8)
    row = study.judge(optimizer, study.at, [said]).record()
    assert row["value"] > row["chance"] + 0.2


@pytest.mark.slow
def test_every_question_is_asked_of_a_meta_classifier(zoo: Zoo, tmp_path: Path, capsys: Said) -> None:
    call = ["analyze", "nws", str(zoo.root), "--out", str(tmp_path), "--epochs", "1", "--seeds", "2", "--windows", "4", "--window",
            "40", "--sizes", "20", "--permutations", "20", "--shuffles", "2", "--single", "lr", "--published-epoch", "--deep-transfer", "--quiet"]  # fmt: skip
    assert cli.main(call) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    methods = {r["method"] for r in numbers["accuracy"]}
    assert {"meta-classifier", "meta-classifier, one window", "meta-classifier of lr alone", "meta-classifier, published epochs",
            "meta-classifier, batch statistics of a network", "meta-classifier, batch statistics of many"} <= methods  # fmt: skip
    assert {len(r["by_seed"]) for r in numbers["accuracy"] if r["method"] == "meta-classifier"} == {2}
    for row in numbers["where"]["positions"]:
        assert len(row["values"]) == 100
        assert all(a is None or a <= v <= b for a, v, b in zip(row["low"], row["values"], row["high"], strict=True))
    assert ARCHITECTURE not in {
        p["kind"] for p in numbers["properties"] if p["name"] in {r["property"] for r in numbers["where"]["layers"]}
    }
    assert {r["method"] for r in numbers["gain"]} == {"svm", WINDOWS, "boosting", "boosting of both", "meta-classifier"}
    assert {r["method"] for r in numbers["gain"] if r["kind"] == ARCHITECTURE} == {WINDOWS, "meta-classifier"}
    assert {r["method"] for r in numbers["gain"] if r["first"]} == {"svm", WINDOWS}
    assert {len(r["by_shuffle"]) for r in numbers["null"]["shuffled"] if r["method"] == "meta-classifier"} == {2}
    steps = {r["method"]: r["steps"] for r in numbers["accuracy"] if r["method"].startswith("meta-classifier")}
    n = numbers["population"]["sides"]["train"]
    assert steps["meta-classifier, first seed"] == steps["meta-classifier of lr alone"] == -(-n // 16)
    assert steps["meta-classifier, published epochs"] == -(-2 * n // 16)  # two of four snapshots
    for name, rows in (("accuracy", numbers["accuracy"]), ("null_step_0", numbers["null"]["step_0"]),
                       ("transfer_symmetry", numbers["transfer"]["symmetry"])):  # fmt: skip
        kept = pq.read_table(tmp_path / f"{name}.parquet")
        assert set(kept.column_names) == {key for r in rows for key in r}  # of any of them, not of the first
        assert kept["value"].to_pylist() == [r["value"] for r in rows]
    held_out = numbers["transfer"]["held_out"]
    for kind, methods in (
        (ARCHITECTURE, {WINDOWS, "meta-classifier"}),
        (TRAINING, {"svm", "boosting", "meta-classifier"}),
    ):
        assert {r["method"] for r in held_out if r["kind"] == kind} == methods
    assert {r["method"] for r in numbers["features"]} >= {"meta-classifier", "meta-classifier, one window"}
    said = page_of(numbers)
    for words in ("**What.** The meta-classifier reads", "**When.**", "**Nulls.**", "**Other coordinates.**", f"first seed: {-(-n // 16)} steps",
                  "**When:**", "**What the weights of other networks add,**"):  # fmt: skip
        assert words in said
    first = (tmp_path / "numbers.json").read_bytes()
    trained = {p: p.stat().st_mtime_ns for p in (tmp_path / "trained").iterdir()}
    assert cli.main(call) == 0  # again: nothing is learned, and the numbers are the same
    assert (tmp_path / "numbers.json").read_bytes() == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "trained").iterdir()} == trained


@pytest.mark.slow
def test_what_weights_say_is_heard_beside_trees_that_know_nothing() -> None:
    """Of settings that say nothing trees are as sure as of any; what is mixed with them gained a third of what weights know."""
    rng, n, seed = np.random.default_rng(0), 300, 0
    values = rng.integers(0, 3, (5, n)).astype(float)
    told = tuple(
        Property(Target(f"p{i}", 3), TRAINING, ("0", "1", "2"), False, v, f"p{i}", ()) for i, v in enumerate(values)
    )
    recipe = pa.table({p.name: [f"level {int(v)}" for v in p.values] for p in told})
    side = np.repeat(["test", "validation", "train"], [45, 45, 210])
    made = dataclasses.replace(
        tiny(n),
        side=side,
        properties=told,
        recipe=recipe,
        accuracy=rng.uniform(0.3, 0.9, n),
        updates=rng.uniform(100, 900, n),
    )
    study = Study(made, divisions.sealed(made), 4, 1, 8, seed, 100, None)
    numbers = rng.normal(size=(n, 1, 24))
    numbers[:, 0, :3] += 1.2 * np.eye(3)[values[0].astype(int)]
    study.numbers_of["layers 4", 0] = numbers
    folds = divisions.folds(made, seed)
    alone = scoring.joined([study.judge(told[0], at, [study.answer("svm", told[0], at).test]) for at in folds])
    gained = questions._gains(study, told[0], folds, ("svm",), "all")[0]
    assert alone.right.mean() > gained["known"] + 0.08
    assert gained["value"] > 0.6 * (alone.right.mean() - gained["known"])
    assert gained["low"] > 0


def page_of(numbers: dict[str, Any]) -> str:
    """What the page says of a study, by a module of benchmarks/."""
    if (folder := str(Path(__file__).resolve().parents[2] / "benchmarks")) not in sys.path:
        sys.path.append(folder)
    return "\n".join(importlib.import_module("nws_page").section({"weightzoo/planted": numbers}))


def twins(pairs: int) -> tuple[Population, np.ndarray]:
    """Pairs i, i + pairs of one group, with one label; and statistics (M, 1, 6) that are those of the pair."""
    rng = np.random.default_rng(0)
    values = np.tile(rng.integers(0, 2, pairs).astype(float), 2)
    numbers = np.tile(rng.normal(size=(pairs, 1, 6)), (2, 1, 1))
    made = dataclasses.replace(
        tiny(2 * pairs),
        groups=np.tile([f"g{i}" for i in range(pairs)], 2),
        side=np.tile(np.repeat(["test", "validation", "train"], [10, 10, pairs - 20]), 2),
        properties=(Property(Target("kind", 2), TRAINING, ("a", "b"), False, values, "kind", ()),),
    )
    return made, numbers


def tiny(n: int) -> Population:
    """Networks of four weights, one snapshot each and none of them from a constant."""

    class Named:
        name = "tiny"

    return Population(
        (Named(),), tuple(f"m{i}" for i in range(n)), np.array([f"g{i}" for i in range(n)]), np.full(n, "train"), (), {}, pa.table({}),
        np.ones(n), np.ones(n), (build_architecture([{"linear": "classes"}], (1,), 2),), np.zeros(n, int), tuple(np.zeros(4, np.float32) for _ in range(n)),
        tuple(np.array([i]) for i in range(n)), np.ones(n, bool), np.zeros(n, bool), True,
    )  # fmt: skip
