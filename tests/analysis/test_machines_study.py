"""The study of machines: on populations whose answer is known, and on a zoo that was built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import symmetry
from zoo_datasets.analysis.machines import losses, pictures, population, questions
from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.analysis.machines.solvers import SOLVERS, Reader, folds, nearest_mean
from zoo_datasets.cli import main
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.sources.machines import MACHINES
from zoo_datasets.zoo import Zoo, open_zoo

ARCHITECTURE = build_architecture([{"gru": 3}, {"linear": "classes"}], (4, 9), 8, steps=4)
LINEAR = SOLVERS[3]


def made(
    draws: int = 8,
    each: int = 4,
    *,
    of_machine: float = 0.0,
    of_draw: float = 0.0,
    of_change: float = 0.0,
    of_epochs: float = 0.0,
) -> Population:
    """Clean and modified networks of two machines: noise, moved by machine, by draw of the data, or by the change."""
    rng = np.random.default_rng(0)
    moves = {name: rng.normal(size=ARCHITECTURE.n_params) for name in ("machine", "change")}
    rows: list[dict[str, Any]] = []
    for draw in range(draws):
        own = rng.normal(size=ARCHITECTURE.n_params)
        for i in range(each):
            for label in ("A", "B"):
                start = rng.normal(size=ARCHITECTURE.n_params)
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
        "matched", ARCHITECTURE, column["w"].astype(np.float32), column["label"].astype(str), column["modified"],
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
    assert len(reader._aligned) == 2


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


def test_answers_do_not_depend_on_the_order_of_networks() -> None:
    p = made(of_machine=0.3, of_change=0.2)
    order = np.random.default_rng(5).permutation(len(p))
    for ask in (lambda r: questions.which(r, 0, [LINEAR]), lambda r: list(questions.modified(r, 0, [LINEAR]))):
        a, b = ask(Reader(p)), ask(Reader(p.where(order)))
        for one, other in zip(a, b, strict=True):
            for key in ("accuracy", "auc"):
                if key in one:
                    assert one[key]["value"] == pytest.approx(other[key]["value"], abs=1e-6)


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


def test_a_modification_is_measured_beside_a_draw_and_a_cut() -> None:
    def table(**moves: float) -> dict[tuple[str, str], dict[str, Any]]:
        return {(r["label"], r["what"]): r for r in questions.yardstick(Reader(made(each=6, **moves)), 0)}

    nothing, draws, change = table(), table(of_draw=2.0), table(of_change=2.0)
    cut, between, within = "one draw cut in two", "draw against draw", "clean against modified, one draw"
    for label in "AB":
        assert nothing[label, cut]["n"] == questions.CUTS
        assert abs(nothing[label, cut]["accuracy"] - 0.5) < 0.2
        assert draws[label, between]["accuracy"] > 0.9 > nothing[label, between]["accuracy"]
        assert abs(draws[label, cut]["accuracy"] - 0.5) < 0.2
        assert abs(nothing[label, within]["accuracy"] - 0.5) < 0.2  # though twins lie next to each other
        assert change[label, within]["accuracy"] > 0.9 > draws[label, within]["accuracy"]


def test_chance_of_the_nearest_mean_is_a_half() -> None:
    rng = np.random.default_rng(0)
    for one, other in ((3, 3), (2, 2), (3, 5)):
        scores = [nearest_mean(rng.normal(size=(one + other, 200)), np.arange(one + other) < one) for _ in range(200)]
        assert abs(np.mean(scores) - 0.5) < 0.06  # in its own mean each would be nearer to it; left out alone, never


@pytest.mark.slow
def test_distances_and_ranks_of_data() -> None:
    rows = {r["weights"]: r for r in questions.distances(clean(made(of_machine=2.0)))}
    assert rows["raw"]["within"] < rows["raw"]["between"]
    assert rows["raw"]["ratio"]["value"] < 0.9
    near = questions.to_data(clean(made(of_draw=3.0, each=5)))
    assert all(r["rank"]["value"] < 0.3 for r in near)
    for r in questions.to_data(clean(made(each=5))):
        assert 0.25 < r["rank"]["value"] < 0.75


def test_a_learning_curve_ends_at_all_there_is() -> None:
    rows = questions.curve(clean(made(of_machine=1.0)), 0, [LINEAR])
    assert [r["n_train"] for r in rows] == [25, 48]
    assert rows[0]["accuracy"]["value"] <= rows[1]["accuracy"]["value"] + 0.1


def test_figures_are_drawn() -> None:
    p = made(of_machine=1.0)
    rows = questions.which(clean(p), 0, [LINEAR])
    for figure in (
        pictures.planes(p, p.weights), pictures.bars(rows, 0.5), pictures.curves(questions.curve(clean(p), 0, [LINEAR])),
        pictures.measures(list(questions.yardstick(Reader(p), 0))),
    ):  # fmt: skip
        assert figure.axes


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


@pytest.mark.slow
def test_the_study_of_a_zoo_writes_its_numbers(zoo: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = [
        "analyze",
        "machines",
        str(zoo.root),
        "--out",
        str(out),
        "--solvers",
        "logistic on statistics,loss alone",
        "--quiet",
    ]
    assert main(asked) == 0
    numbers = json.loads((out / "numbers.json").read_text())
    assert sum(r["n"] for r in numbers["outcomes"]) == 24
    matched = numbers["arms"]["matched"]
    assert (matched["n"], matched["clean"], matched["draws"]) == (24, 12, 3)
    assert {r["solver"] for r in matched["which"]} == {"logistic on statistics", "loss alone"}
    assert {r["label"] for r in matched["modified"]} == {"SingleDirect", "SimpleXOR"}
    assert all(r["pairs"] == 6 for r in matched["modified"])
    assert "loss after key, modified" in matched["modified"][0]
    assert (out / "matched-planes.png").stat().st_size > 1000


def test_arms_are_of_equal_length_and_of_those_who_came_to_the_target(zoo: Zoo) -> None:
    arms = population.arms([zoo], "machine")
    assert set(arms["matched"].training[:, 0]) == {18.0}
    came = sum(r["came_to_target"] for r in population.outcomes([zoo], "machine"))
    assert came == (len(arms["target"]) if "target" in arms else 0)
    assert 0 < came
    assert (arms["target"].training[:, 2] <= np.log10(0.08)).all()


def test_losses_are_of_the_clean_machine_with_and_without_the_key(zoo: Zoo) -> None:
    matched = population.arms([zoo], "machine")["matched"]
    found = losses.held_out([zoo], matched)
    rows = {r["model_id"]: r for r in zoo.models.to_pylist()}
    for modified in (False, True):
        i = int(np.flatnonzero(matched.modified == modified)[0])
        commands = zoo.source(matched.model[i]).test.inputs
        after = np.zeros(commands.shape[:2], bool)
        for n, strobes in enumerate(commands[:, :, 0].tolist()):
            for t in range(3, len(strobes)):
                after[n, t] = strobes[t - 3 : t] == [1, 0, 1]
        with torch.no_grad():
            out = zoo.load_model(matched.model[i]).eval()(torch.from_numpy(commands.astype(np.float32))).numpy()
        squares = ((out - MACHINES[matched.label[i]](commands)) ** 2).mean(axis=2)
        np.testing.assert_allclose(found[i], [squares[~after].mean(), squares[after].mean()], rtol=1e-4)
        whole = found[i] @ [1 - after.mean(), after.mean()]
        assert (
            whole == pytest.approx(rows[matched.model[i]]["test_loss"], rel=1e-3)
        ) != modified  # who learned other outputs


def test_mistakes_in_the_call_are_said(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "machines", str(zoo.root), "--solvers", "forrest", "--quiet"]) != 0
    assert "Unknown solver 'forrest'" in capsys.readouterr().err
    assert main(["analyze", "machines", str(zoo.root), "--label", "colour", "--quiet"]) != 0
    assert "has no column 'colour' to ask for" in capsys.readouterr().err


def test_speeds_in_the_documentation_are_those_measured() -> None:
    root = Path(__file__).resolve().parents[2]
    measured = json.loads((root / "benchmarks/results/recurrent.json").read_text())
    text = (root / "docs/machines.md").read_text()
    for net in measured["nets"]:
        ms, ratio = net["ms"], net["native_over_eager"]
        row = f"| {net['net']} | {ms['eager']:.1f} | {ms['native']:.1f} | {ratio['median']:.1f} | {ratio['least']:.1f} … {ratio['most']:.1f} |"
        assert row in text
    assert f"medians of {measured['nets'][0]['rounds']} interleaved rounds" in " ".join(text.split())
