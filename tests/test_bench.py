"""Tasks, tabular baselines, result files and tables, on 64 networks trained for this."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from resealed import reseal

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import (
    audit,
    cli,
    errors,
    intervals,
    leaderboard,
    metrics,
    nulls,
    ranking,
    results,
    solving,
    targets,
    tasks,
)
from zoo_datasets.baselines import known, saved, tabular
from zoo_datasets.baselines.design import Design
from zoo_datasets.baselines.interface import Target, Targets, View
from zoo_datasets.baselines.tabular import Tabular
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.tasks import TaskError
from zoo_datasets.views import per_tensor
from zoo_datasets.zoo import Zoo, open_zoo

RECIPE = """\
zoo: weightzoo/bench
source: {id: digits, train: 200, validation: 60, test: 300}
architecture: [flatten, {linear: 6}, activation, {linear: classes}]
axes:
  activation: [tanh, relu]
  lr: [1e-2, 1e-4]
replicates: 16
training: {epochs: 2, batch_size: 32}
snapshots: {epochs: [0, 2]}
"""


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boosting of 300 trees takes seconds on 32 networks too."""
    monkeypatch.setattr(tabular, "TREES", 25)


@pytest.fixture(scope="module")
def bench_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "bench.yaml").write_text(RECIPE)
    build(plan.plan(grid.load(folder / "bench.yaml")), folder / "weightzoo" / "bench", workers=0)
    return open_zoo(folder / "weightzoo" / "bench")


@pytest.fixture(scope="module")
def found(bench_zoo: Zoo) -> tasks.Problem:
    return tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"])


@pytest.fixture(scope="module")
def answered_once(found: tasks.Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one question to the cheapest baselines alone."""
    folder = tmp_path_factory.mktemp("answered")
    list(results.run(found, [], 1, folder))
    return folder


@pytest.fixture
def answered(answered_once: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    return Path(shutil.copytree(answered_once, tmp_path / "answered"))


# ── tasks ──


@pytest.mark.slow
def test_a_problem_is_the_population_split_by_init_group(bench_zoo, found):
    parts = (found.train, found.validation, found.test)
    assert sum(map(len, parts)) == 64
    groups = [set(p.groups.tolist()) for p in parts]
    assert not groups[0] & groups[2] | groups[0] & groups[1] | groups[1] & groups[2]
    rows = {w.tobytes(): i for i, w in enumerate(bench_zoo.final().weights[:])}
    accuracy = bench_zoo.final().column("test_accuracy").to_numpy()
    lr = bench_zoo.final().column("lr").to_numpy()
    for part in parts:
        at = [rows[v.tobytes()] for v in part.view.vectors]
        np.testing.assert_array_equal(part.targets.values[:, 0], accuracy[at])
        assert [found.classes["lr"][int(k)] for k in part.targets.values[:, 1]] == [json.dumps(x) for x in lr[at]]
        assert part.view.recipe["lr"].to_pylist() == lr[at].tolist()
        assert (part.tested[:, 0, 1] == 300).all()
    assert found.name_of("lr") == "weightzoo/bench/lr@1"


@pytest.mark.slow
def test_rows_are_in_an_order_that_says_nothing_and_stays(bench_zoo, found):
    again = tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"])
    assert [v.tobytes() for v in again.test.view.vectors] == [v.tobytes() for v in found.test.view.vectors]
    models = bench_zoo.final().column("lr").to_numpy()
    assert (np.diff(np.concatenate([p.targets.values[:, 1] for p in (found.train, found.test)])) != 0).sum() > 8
    assert (np.diff(models) != 0).sum() < 64


@pytest.mark.slow
def test_a_held_out_level_is_in_no_training_set(bench_zoo):
    found = tasks.problem(bench_zoo, ["test_accuracy"], "activation=relu")
    for part, levels in ((found.train, {"tanh"}), (found.validation, {"tanh"}), (found.test, {"relu"})):
        assert set(part.view.recipe["activation"].to_pylist()) == levels
    assert found.name_of("test_accuracy") == "weightzoo/bench/test_accuracy/activation=relu@1"


@pytest.mark.slow
def test_a_held_out_level_leaves_validation_a_group_however_few_there_are(bench_zoo):
    """A sixth of the groups by hash may be none of them: of these prefixes some have a handful."""
    for limit in (8, 10, 12, 14, 16, 20):
        found = tasks.problem(bench_zoo, ["generalization_gap"], "activation=relu", limit=limit)
        assert len(found.validation)
        assert not set(found.validation.groups.tolist()) & set(found.train.groups.tolist())


def test_progress_asks_about_every_snapshot(bench_zoo):
    found = tasks.problem(bench_zoo, ["progress"])
    assert sum(len(p) for p in (found.train, found.validation, found.test)) == 128
    assert set(found.test.targets.values[:, 0]) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("targets", "split", "said"),
    [
        (["accuracy"], "iid", r"Unknown target 'accuracy' in weightzoo/bench\. Known: .*test_accuracy"),
        ([], "iid", "No target was named"),
        (["progress", "lr"], "iid", "ask for it alone"),
        (["test_accuracy"], "random", r"Unknown split 'random'\. Known: iid, AXIS=LEVEL"),
        (["test_accuracy"], "activation=gelu", r"Unknown level 'gelu' .*relu"),
        (["test_accuracy"], "depth=3", "Unknown axis 'depth'"),
        (["test_accuracy_of_class_12"], "iid", "fewer than 13 classes"),
    ],
)
def test_a_task_that_there_is_not_is_said(bench_zoo, targets, split, said):
    with pytest.raises(TaskError, match=said):
        tasks.problem(bench_zoo, targets, split)


def test_a_constant_target_is_refused(bench_zoo):
    with pytest.raises(
        TaskError, match="'activation' is \"tanh\" for every train network; there is nothing to tell apart"
    ):
        tasks.problem(bench_zoo, ["activation"], "activation=relu")


def test_ties_are_counted():
    assert targets.tied_share(np.array([1.0, 1.0, 2.0, 3.0])) == pytest.approx(1 / 6)
    assert targets.tied_share(np.ones(5)) == 1


# ── baselines ──


@pytest.mark.some(1)
@pytest.mark.parametrize("name", ["statistics", "statistics-ridge"])
@pytest.mark.slow
def test_weights_tell_the_learning_rate_and_shuffled_ones_do_not(name, found):
    (cell,) = [c for c in solving.solve(found, name, 0) if "/lr@" in c.task]
    y = found.test.targets.values[:, 1]
    assert (cell.predictions.argmax(1) == y).mean() > 0.9
    np.testing.assert_allclose(cell.predictions.sum(1), 1)


@pytest.mark.slow
def test_the_recipe_tells_accuracy_but_not_the_setting_that_is_asked_for(found):
    cells = {c.task.split("/")[2]: c for c in solving.solve(found, "metadata", 0)}
    y = found.test.targets.values
    assert np.corrcoef(cells["test_accuracy@1"].predictions, y[:, 0])[0, 1] > 0.8  # the learning rate decides it
    assert abs((cells["lr@1"].predictions.argmax(1) == y[:, 1]).mean() - 0.5) < 0.3


@pytest.mark.slow
def test_one_seed_gives_the_same_numbers(found):
    first, second = solving.solve(found, "statistics", 3), solving.solve(found, "statistics", 3)
    assert all(a.predictions.tobytes() == b.predictions.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_all_solvers_have_the_same_budget_and_record_it(found):
    for name in ("metadata", "metadata-ridge", "statistics", "statistics-ridge"):
        (cell, *_) = solving.solve(found, name, 0)
        assert len(cell.chosen["tried"]) == 4
        losses = [t["validation_loss"] for t in cell.chosen["tried"]]
        settings = [{k: v for k, v in t.items() if k not in ("validation_loss", "turns")} for t in cell.chosen["tried"]]
        assert cell.chosen["chosen"] == settings[int(np.argmin(losses))]


@pytest.mark.slow
def test_nothing_is_chosen_on_test(found):
    """Other test targets give the same predictions."""
    spoiled = dataclasses.replace(found.test.targets, values=found.test.targets.values[::-1].copy())
    other = dataclasses.replace(found, test=dataclasses.replace(found.test, targets=spoiled))
    for a, b in zip(solving.solve(found, "statistics", 0), solving.solve(other, "statistics", 0), strict=True):
        assert a.predictions.tobytes() == b.predictions.tobytes()


@pytest.mark.slow
def test_a_baseline_of_ones_own_is_a_few_lines(found, tmp_path, monkeypatch):
    class Norm:
        name, parameters, chosen = "norm", 2, {}

        def fit(self, train, validation, seed):
            view, targets = train
            norms = np.linalg.norm(view.matrix, axis=1)
            self.lines = {
                t.name: np.polyfit(norms, targets.values[:, k], 1) for k, t in enumerate(targets.of) if not t.classes
            }
            self.classes = {t.name: t.classes for t in targets.of if t.classes}

        def predict(self, view):
            norms = np.linalg.norm(view.matrix, axis=1)
            numbers = {name: np.polyval(line, norms) for name, line in self.lines.items()}
            return numbers | {name: np.full((len(view), n), 1 / n) for name, n in self.classes.items()}

    monkeypatch.setitem(known.BASELINES, "norm", Norm)
    assert all(not there for *_, there in results.run(found, ["norm"], 1, tmp_path))
    assert "| norm" in leaderboard.markdown(found, results.read(found, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", known.BASELINES)
def test_every_baseline_solves_every_task(name, found):
    for cell in solving.solve(found, name, 0):
        assert cell.error is None
        assert np.isfinite(cell.predictions).all()
        assert cell.predictions.shape == ((len(found.test), 2) if "/lr@" in cell.task else (len(found.test),))


@pytest.mark.slow
@pytest.mark.parametrize("name", known.BASELINES)
def test_every_baseline_comes_back_from_its_file(name, found, tmp_path):
    solver = known.baseline(name)
    if hasattr(solver, "training"):
        solver.training = dataclasses.replace(solver.training, epochs=2)
    solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), 0)
    saved.save(solver, tmp_path / "x")
    again = saved.load(tmp_path / "x")
    before, after = (s.predict(found.test.view) for s in (solver, again))
    assert set(before) == set(after) == {t.name for t in found.test.targets.of}
    assert all(np.array_equal(before[k], after[k]) for k in before)
    assert again.parameters == solver.parameters


def test_mixed_layouts_are_a_sentence(found):
    other = build_architecture(["flatten", {"linear": 3}, "activation", {"linear": "classes"}], (1, 8, 8), 10)
    whole = found.train.view
    view = dataclasses.replace(
        whole,
        architectures=(*whole.architectures, other),
        architecture=np.array([*whole.architecture[:-1], len(whole.architectures)]),
    )
    assert view.take(np.arange(len(view) - 1)).layout.layout_id == whole.layout.layout_id  # of a part without it
    mixed = dataclasses.replace(found, train=dataclasses.replace(found.train, view=view))
    for cell in solving.solve(mixed, "flat", 0):
        assert re.search(r"mixes \d layouts, and this baseline takes one", cell.error)


def test_statistics_read_networks_of_any_depth(found):
    """First and last layers meet their like: zeros stand in the middle."""
    deep = build_architecture(
        ["flatten", {"linear": 5}, "activation", {"linear": 4}, "activation", {"linear": "classes"}], (1, 8, 8), 10
    )
    small = found.train.view.architectures[0]
    weights = [np.arange(a.n_params, dtype=np.float32) for a in (deep, small)]
    view = View((deep, small), np.array([0, 1]), weights, pa.table({"lr": [1.0, 2.0]}))
    targets_of = Targets((Target("x"),), np.array([[0.0], [1.0]]))
    solver = Tabular("x", "statistics", "ridge")
    solver.fit((view, targets_of), (view, targets_of), 0)
    shown = solver._statistics(view).reshape(2, 6, 7)
    own = per_tensor.statistics(weights[1][None], small.layout)[0]
    np.testing.assert_array_equal(shown[1, [0, 1, 4, 5]], own)
    assert not shown[1, 2:4].any()
    assert shown[0].all(1).any()


# ── result files and tables ──


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(found, tmp_path):
    first = next(results.run(found, ["statistics-ridge"], 2, tmp_path))
    assert first == ("mean", 0, False)
    kept = {p: p.read_bytes() for p in tmp_path.rglob("*.*")}
    again = list(results.run(found, ["statistics-ridge"], 2, tmp_path))
    assert again == [
        ("mean", 0, True), ("metadata-ridge", 0, False), ("metadata", 0, False), ("statistics-ridge", 0, False),
    ]  # fmt: skip
    assert all(p.read_bytes() == data for p, data in kept.items())


@pytest.mark.slow
def test_the_table_ranks_marks_and_bounds(bench_zoo, found, tmp_path):
    list(results.run(found, ["statistics-ridge", "statistics"], 1, tmp_path))
    cells = results.read(found, tmp_path)
    target = found.test.targets.of[0]
    ranked = ranking.rows(found, cells, target)
    values = [r.scores["r2"].value for r in ranked]
    assert values == sorted(values, reverse=True)
    assert ranked[0].separable is None
    assert next(r for r in ranked if r.baseline == "mean").separable is True  # far behind
    top = ranking.ceiling(found, target)
    assert values[0] < top["r2"] < 1
    assert ranking.ceiling(found, found.test.targets.of[1]) == {}  # a setting is known exactly
    of_gap = ranking.ceiling(found, found.test.targets.of[2])
    assert of_gap["kendall"] < top["kendall"]  # the same images, and less that networks differ by
    of_class = tasks.problem(open_zoo(bench_zoo.root), ["test_accuracy_of_class_3"])
    assert 0 < ranking.ceiling(of_class, of_class.test.targets.of[0])["r2"] < top["r2"]  # a tenth of the images
    text = leaderboard.markdown(found, cells)
    assert text.count("### weightzoo/bench/") == 3
    assert "of test pairs are tied" in text


@pytest.mark.slow
def test_a_result_from_other_bytes_or_of_another_shape_is_refused(found, bench_zoo, tmp_path):
    list(results.run(found, [], 1, tmp_path))
    path = next(tmp_path.glob("*.json"))
    value = json.loads(path.read_text())
    other = value["about"] | {"zoo_digest": "0" * 64}
    path.write_text(json.dumps(value | {"about": other}))
    with pytest.raises(errors.IntegrityError, match="was made from other bytes than weightzoo/bench's"):
        results.read(found, tmp_path)
    value["cells"][0]["predictions"] = value["cells"][0]["predictions"][1:]
    path.write_text(json.dumps(value))
    with pytest.raises(errors.IntegrityError, match=r"predictions of .* have shape"):
        results.read(found, tmp_path)


@pytest.mark.slow
def test_numbers_that_are_none_are_a_cell_of_their_own(found, tmp_path, monkeypatch):
    class Broken(Tabular):
        def predict(self, view):
            return {k: v * np.nan for k, v in super().predict(view).items()}

    monkeypatch.setitem(known.BASELINES, "broken", lambda: Broken("broken", "none", "mean"))
    list(results.run(found, ["broken"], 1, tmp_path))
    text = leaderboard.markdown(found, results.read(found, tmp_path))
    assert "predictions are not finite" in text
    assert "| metadata |" in text or "| metadata *" in text


def test_bench_from_the_command_line(bench_zoo, tmp_path):
    code = cli.main(
        ["bench", str(bench_zoo.root), "--baselines", "statistics-ridge", "--seeds", "1", "--out", str(tmp_path)]
    )
    assert code == 0
    text = (tmp_path / "leaderboard.md").read_text()
    assert "statistics-ridge" in text
    assert "The split, audited" in text
    assert cli.main(["bench", str(bench_zoo.root), "--baselines", "magic", "--out", str(tmp_path)]) == 1


def test_a_folder_that_has_tables_is_gone_on_with(bench_zoo, tmp_path, capsys, caplog):
    """Again it is the same; what cannot be asked leaves its tables; a stranger's misspelt task is said."""
    call = ["bench", str(bench_zoo.root), "--baselines", "mean", "--out", str(tmp_path)]
    assert cli.main(call) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.*")}
    assert cli.main(call) == 0
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.*")} == before
    capsys.readouterr()
    for wrong, said in (
        ([*call, "--split", "activaton"], "Unknown split 'activaton'"), ([*call, "--shuffles", "-1"], "-1 is not at least 0"),
        (["bench", str(tmp_path / "nowhere"), *call[2:]], "nowhere"), ([*call, "--networks", "1e3,x"], "'1e3' is no whole number"),
    ):  # fmt: skip
        try:
            code = cli.main(wrong)
        except SystemExit as ended:
            code = ended.code
        assert code in (1, 2)
        assert said in capsys.readouterr().err
        assert {p.name: p.read_bytes() for p in tmp_path.glob("*.*")} == before
    path = next(p for p in tmp_path.glob("*.json") if '"mean"' in p.read_text())
    theirs = path.read_text().replace('"mean"', '"theirs"').replace("/test_accuracy@1", "/test_acuracy@1")
    (tmp_path / "theirs.json").write_text(theirs)
    assert cli.main(call) == 0
    assert (
        "theirs.json answers weightzoo/bench/test_acuracy@1, which was not asked this time" in capsys.readouterr().err
    )


def test_what_another_zoo_drew_for_each_network_is_no_level_of_its_own(bench_zoo, tmp_path):
    """However few of its networks are asked about."""
    drawn = RECIPE.replace("weightzoo/bench", "weightzoo/drawn").replace("  lr: [1e-2, 1e-4]\nreplicates: 16\n", "")
    drawn = drawn.replace("axes:\n", "sample:\n  models: 16\n  axes:\n    dropout: {uniform: [0.1, 0.5]}\naxes:\n")
    (tmp_path / "drawn.yaml").write_text(drawn.replace("activation, {linear", "activation, dropout, {linear"))
    build(plan.plan(grid.load(tmp_path / "drawn.yaml")), tmp_path / "drawn", workers=0)
    found = tasks.problem(bench_zoo, ["test_accuracy"], others=[open_zoo(tmp_path / "drawn")])
    assert set(found.elsewhere) == {"weightzoo/drawn"}
    assert 1 < len(found.elsewhere["weightzoo/drawn"]) <= tasks.MOST_LEVELS


def test_several_numbers_of_networks_are_tables_and_tasks_of_their_own(bench_zoo, tmp_path):
    call = ["bench", str(bench_zoo.root), "--baselines", "mean", "--networks", "8,16", "--out", str(tmp_path)]
    assert cli.main(call) == 0
    text = (tmp_path / "leaderboard.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## weightzoo/bench, split iid, {n} networks" for n in (16, 8)
    ]
    assert "the first that reads weights" not in text  # there is none
    learned = [t["learned_from"]["networks"] for t in json.loads((tmp_path / "tasks.json").read_text())["tasks"]]
    assert learned == [16, 8]


def test_every_baseline_and_set_is_on_the_page():
    text = (Path(__file__).parents[1] / "docs" / "benchmark.md").read_text()
    assert not [n for n in (*known.BASELINES, *known.SETS) if f"`{n}`" not in text]


def test_a_level_is_known_by_its_value(bench_zoo):
    """As recipes write numbers: 1e-2 is 0.01, in the name of the task too."""
    for split in ("lr=1e-2", "from:lr=1e-2"):
        assert list(tasks.expand(bench_zoo, split)) == [split.replace("1e-2", "0.01")]
        assert tasks.problem(bench_zoo, ["test_accuracy"], split).split_name == split.replace("1e-2", "0.01")
    with pytest.raises(targets.TaskError, match="Unknown level '2e-2'"):
        tasks.problem(bench_zoo, ["test_accuracy"], "lr=2e-2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"baseline": "solo, mean of 3"}, "not the name of several seeds together, is needed"),
        ({"baseline": "a|b"}, "baseline of .* is a|b; a line of at most 1,000 characters without |, and"),
        ({"seed": -1}, "seed of .* is -1; a whole number from 0 is needed"),
        ({"predictions": True}, "predictions of .* are no numbers"),
        ({"predictions": "0.5"}, "predictions of .* are no numbers"),
        ({"predictions": [3, 5]}, "are no probabilities: each network's are from 0 to 1 and add up to 1"),
        ({"predictions": [-0.5, 1.5]}, "are no probabilities"),
        (None, "has seed 0 twice"),
    ],
)
def test_what_a_file_of_others_may_not_say(change, said, found, tmp_path):
    of_a_class = change is not None and isinstance(change.get("predictions"), list)
    target = next(t for t in found.test.targets.of if bool(t.classes) == of_a_class)
    each = change["predictions"] if change and "predictions" in change else [0.5, 0.5] if of_a_class else 0.5
    cell = {"task": found.name_of(target.name), "baseline": "theirs", "seed": 0, "asked": found.test.digest, "cpu_s": 1.0,
            "predict_cpu_s": 0.0, "parameters": 3, "chosen": None, "error": None} | (change or {})  # fmt: skip
    cells = [cell | {"predictions": [each] * len(found.test)}] * (2 if change is None else 1)
    value = {"format": results.FORMAT, "about": tasks.describe(found), "cells": cells}
    (tmp_path / "theirs.json").write_text(json.dumps(value))
    with pytest.raises(errors.IntegrityError, match=said.replace("|", r"\|")):
        results.read(found, tmp_path)


# ── several zoos, nulls, saved baselines, strata ──


OTHER = RECIPE.replace("weightzoo/bench", "weightzoo/other").replace("train: 200", "train: 220")


@pytest.fixture(scope="module")
def other_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("other")
    (folder / "other.yaml").write_text(OTHER)
    build(plan.plan(grid.load(folder / "other.yaml")), folder / "weightzoo" / "other", workers=0)
    return open_zoo(folder / "weightzoo" / "other")


@pytest.mark.slow
def test_another_zoo_is_asked_about_in_the_same_terms(bench_zoo, other_zoo):
    found = tasks.problem(bench_zoo, ["test_accuracy", "lr"], others=[other_zoo])
    part = found.elsewhere["weightzoo/other"]
    assert found.name_of("lr", "weightzoo/other") == "weightzoo/other/lr/from=weightzoo/bench@1"
    assert {found.classes["lr"][int(k)] for k in part.targets.values[:, 1]} == {"0.01", "0.0001"}
    assert set(part.ids) == {
        i for i, s in tasks.problem(other_zoo, ["lr"]).split.assignment.items() if s == "test"
    }  # fmt: skip
    cells = {c.task: c for c in solving.solve(found, "statistics-ridge", 0)}
    y = part.targets.values[:, 1]
    assert (cells["weightzoo/other/lr/from=weightzoo/bench@1"].predictions.argmax(1) == y).mean() > 0.9


@pytest.mark.slow
def test_a_level_that_training_never_saw_is_unknown(bench_zoo, other_zoo):
    like = targets.asked(bench_zoo.final(), "lr")
    one = dataclasses.replace(like, levels=("0.01",))
    values = targets.asked(other_zoo.final(), "lr", one).values
    assert np.isnan(values).sum() == 32
    assert np.nansum(values) == 0


def test_learning_on_one_level_is_asked_on_the_others(bench_zoo):
    found = tasks.problem(bench_zoo, ["test_accuracy"], "from:activation=relu")
    for part, level in ((found.train, "relu"), (found.test, "relu"), (found.elsewhere["activation=tanh"], "tanh")):
        assert set(part.view.recipe["activation"].to_pylist()) == {level}
    assert not set(found.train.groups.tolist()) & set(found.elsewhere["activation=tanh"].groups.tolist())


def test_limit_and_networks_take_prefixes(bench_zoo):
    found = tasks.problem(bench_zoo, ["test_accuracy"], limit=32, networks=7)
    first = set(bench_zoo.models["model_id"].to_pylist()[:32])
    assert len(found.train) == 7
    assert {i for p in (found.train, found.validation, found.test) for i in p.ids} <= first
    whole = tasks.problem(bench_zoo, ["test_accuracy"], limit=32)
    assert whole.train.ids[:7] == found.train.ids
    assert whole.test.ids == found.test.ids
    with pytest.raises(TaskError, match="0 models of weightzoo/bench are none"):
        tasks.problem(bench_zoo, ["test_accuracy"], limit=0)


def test_a_target_that_cannot_be_asked_leaves_the_others(bench_zoo):
    found = tasks.problem(bench_zoo, ["test_accuracy", "colour", "optimizer"])
    assert [t.name for t in found.test.targets.of] == ["test_accuracy"]
    assert set(found.refused) == {"colour", "optimizer"}
    assert "Unknown target 'colour'" in found.refused["colour"]


@pytest.mark.slow
def test_a_second_question_is_answered_by_the_saved_baseline(bench_zoo, other_zoo, tmp_path, monkeypatch):
    alone = tasks.problem(bench_zoo, ["test_accuracy", "lr"])
    both = tasks.problem(bench_zoo, ["test_accuracy", "lr"], others=[other_zoo])
    wanted = {c.task: c.predictions for c in solving.solve(both, "statistics", 0)}
    list(results.run(alone, ["statistics"], 1, tmp_path))

    def never(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(Tabular, "fit", never)
    assert ("statistics", 0, False) in list(results.run(both, ["statistics"], 1, tmp_path))
    cells = {c.task: c for c in results.read(both, tmp_path) if c.baseline == "statistics"}
    assert set(cells) == set(wanted)
    for task, cell in cells.items():
        np.testing.assert_allclose(cell.predictions, wanted[task], rtol=1e-6)
    assert ("statistics", 0, True) in list(results.run(both, ["statistics"], 1, tmp_path))


@pytest.mark.parametrize(
    ("damage", "said"), [("cut", "damaged"), ("code", "collections is not of this package"), ("other", "damaged")]
)
def test_a_saved_baseline_that_is_none_is_a_sentence(found, tmp_path, damage, said):
    solver = known.baseline("metadata-ridge")
    solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), 0)
    saved.save(solver, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    head = data[8:end].replace(b"zoo_datasets.baselines.tabular:Tabular", b"collections:UserDict")
    changed = {
        "cut": data[:-40],
        "code": len(head).to_bytes(8, "little") + head + data[end:],
        "other": b"no tensors",
    }[damage]
    (tmp_path / "x").write_bytes(changed)
    with pytest.raises(errors.IntegrityError, match=f"is no saved baseline, or {said}" if damage != "code" else said):
        saved.load(tmp_path / "x")


def test_trees_give_what_scikit_learn_gives():
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    from zoo_datasets.baselines.forest import Forest

    draw = np.random.default_rng(0)
    x = draw.standard_normal((200, 4))
    x[::7, 1] = np.nan
    y = np.nan_to_num(x[:, 0] * x[:, 1] + x[:, 2])
    model = HistGradientBoostingRegressor(max_iter=20).fit(x, y)
    np.testing.assert_allclose(Forest.of(model)(x)[:, 0], model.predict(x), rtol=1e-12)
    classes = HistGradientBoostingClassifier(max_iter=20).fit(x, np.digitize(y, [-0.5, 0.5]))
    np.testing.assert_allclose(Forest.of(classes)(x), classes.decision_function(x), rtol=1e-12)


@pytest.mark.slow
def test_shuffles_stay_in_groups_and_score_as_chance(found, tmp_path):
    assert nulls.within(found.train) == "all"  # every network has an initialization of its own
    shared = dataclasses.replace(found.train, groups=np.arange(len(found.train)) // 4)
    assert nulls.within(shared) == "groups"
    for part in (shared, found.train):
        mixed = nulls.shuffled(part, np.random.default_rng(0))
        same = [
            sorted(mixed.targets.values[own, 0]) == sorted(part.targets.values[own, 0])
            for own in (part.groups == g for g in np.unique(part.groups))
        ]
        assert all(same) == (part is shared)
        assert sorted(mixed.targets.values[:, 0]) == sorted(part.targets.values[:, 0])
        assert (mixed.targets.values[:, 0] != part.targets.values[:, 0]).any()
    first = found.only(["test_accuracy"])
    list(results.run(first, ["statistics-ridge"], 1, tmp_path))
    cells = results.read(first, tmp_path)
    for count in (4, 12):  # goes on from the first four
        list(nulls.run(first, ["statistics-ridge"], count, tmp_path, cells))
    read = nulls.read(first, ["statistics-ridge", "metadata"], tmp_path)
    values = read["statistics-ridge"]["weightzoo/bench/test_accuracy@1"]["kendall"]
    assert len(values) == 12
    assert np.quantile(values, 0.025) < 0 < np.quantile(values, 0.975)
    true = ranking.rows(first, cells, first.test.targets.of[0], nulls=read)
    row = next(r for r in true if r.baseline == "statistics-ridge")
    assert row.null["kendall"][1] < row.scores["kendall"].value
    assert "12 shuffles" in leaderboard.markdown(first, cells, read)


def test_a_result_of_what_a_baseline_was_before_stands_aside_and_is_made_again(found, tmp_path, monkeypatch):
    first, wrong = found.only(["test_accuracy"]), []
    with monkeypatch.context() as before:
        before.setattr(results, "REVISIONS", {})
        list(results.run(first, [], 1, tmp_path))
    old = {c.baseline for c in results.read(first, tmp_path, wrong)}
    assert (old, wrong) == ({"mean", "metadata-ridge"}, [])
    assert ("metadata", 0, False) in list(results.run(first, [], 1, tmp_path))
    assert {c.baseline for c in results.read(first, tmp_path, wrong)} == {"mean", "metadata-ridge", "metadata"}
    assert wrong == []


@pytest.mark.parametrize(("boosting", "ridge", "liked"), [(0.4, 0.3, "metadata-ridge"), (0.3, 0.4, "metadata")])
def test_what_weights_must_add_to_is_the_recipe_that_validation_likes_better(found, answered, boosting, ridge, liked):
    """Boosting learns from noise where the recipe says nothing: a gain over that alone would be a gift."""
    losses = {"metadata": boosting, "metadata-ridge": ridge}
    cells = [
        dataclasses.replace(c, chosen={"tried": [{"validation_loss": losses[c.baseline]}, {"validation_loss": 9.0}]})
        if c.baseline in losses
        else c
        for c in results.read(found, answered)
    ]
    target = found.test.targets.of[0]
    table = ranking.rows(found, cells, target)
    assert {r.control for r in table} == {liked}
    (row,) = (r for r in table if r.baseline == liked)
    assert row.gains == {}
    assert all("r2" in r.gains for r in table if r.baseline != liked)
    assert f"The recipe is {liked}" in leaderboard.markdown(found, cells)
    lines = leaderboard.as_table(found, [(target, table)]).to_pylist()
    assert {r["gain_over"] for r in lines if r["gain"] is not None} == {liked}


def test_stars_are_of_readers_of_weights_and_controls_that_know_more_stand_above_without_one(found, answered):
    """A control that is told training accuracy is best of all, and would leave nobody to be compared."""
    target = found.test.targets.of[0]
    cells = [c for c in results.read(found, answered) if c.task == found.name_of(target.name)]
    y = found.test.targets.values[:, 0]
    rng = np.random.default_rng(0)
    told, weights, near, far = (
        dataclasses.replace(cells[0], baseline=name, predictions=y + scale * rng.normal(size=len(y)))
        for name, scale in (("metadata+training", 1e-4), ("nfn", 0.02), ("probing", 0.022), ("flat", 2.0))
    )
    table = {r.baseline: r for r in ranking.rows(found, [*cells, told, weights, near, far], target)}
    assert list(table)[:2] == ["metadata+training", "nfn"]
    assert [table[n].separable for n in ("metadata+training", "nfn", "probing", "flat")] == [None, None, False, True]
    said = leaderboard.markdown(found, [*cells, told, weights, near, far])
    assert "| probing * |" in said
    assert "| metadata+training |" in said
    assert "not separable from nfn, the first that reads weights" in said


def test_what_is_left_of_what_the_recipe_leaves_is_a_share_of_squared_error_with_bounds(found, answered):
    target = found.test.targets.of[0]
    cells = [c for c in results.read(found, answered) if c.task == found.name_of(target.name)]
    y = found.test.targets.values[:, 0]
    (recipe,) = (c for c in cells if c.baseline == "metadata")
    off = recipe.predictions - y
    half = [
        dataclasses.replace(recipe, baseline="nfn", seed=i, predictions=y + share * off)
        for i, share in enumerate((0.5, 0.4))
    ]
    control = [
        dataclasses.replace(c, chosen={"tried": [{"validation_loss": 0.0}]}) if c is recipe else c for c in cells
    ]
    row = next(r for r in ranking.rows(found, [*control, *half], target) if r.baseline == "nfn")
    assert row.left.value == pytest.approx(0.25)
    assert row.left.low == pytest.approx(0.25)  # the same share in every group
    assert row.left_by_seed == pytest.approx((0.16, 0.25))
    score, known = (
        row.scores["r2"].value,
        next(r for r in ranking.rows(found, control, target) if r.baseline == "metadata"),
    )
    assert row.left.value == pytest.approx((1 - score) / (1 - known.scores["r2"].value))


@pytest.mark.slow
def test_strata_are_equal_recipes_or_tenths_of_what_the_recipe_says(found):
    target = found.test.targets.of[0]
    asked = ranking.question(found, target)
    assert len(np.unique(asked.strata)) == 4  # two activations, two rates
    alone = dataclasses.replace(found.test, points=np.arange(len(found.test)).astype(str))
    (control, *_) = solving.solve(found, "metadata", 0)
    tenths = ranking.question(dataclasses.replace(found, test=alone), target, control=control)
    means = [control.predictions[tenths.strata == s] for s in np.unique(tenths.strata)]
    assert len(means) == 10
    assert all(a.max() <= b.min() for a, b in itertools.pairwise(means))


def test_over_levels_there_are_bounds_from_five_on(found):
    def row(value: float) -> ranking.Row:
        return ranking.Row("t", "b", {"r2": ranking._without("r2", value, 9)}, {}, 1, 0.0, 0, None)

    few = ranking.over_units({str(i): [row(0.1 * i)] for i in range(4)}, "r2")
    many = ranking.over_units({str(i): [row(0.1 * i)] for i in range(5)}, "r2")
    assert few["b"].method == "none"
    assert "4 groups" in few["b"].note
    assert many["b"].low < many["b"].value < many["b"].high


def test_without_an_interval_no_row_is_said_to_be_as_good(found, tmp_path):
    """Where a class is of too few groups nothing is known of a lead: no star, and the note names the class as a number."""
    list(results.run(found, ["statistics-ridge", "statistics"], 1, tmp_path))
    cells = results.read(found, tmp_path)
    target = next(t for t in found.test.targets.of if t.classes)
    asked = ranking.question(found, target)
    one = np.unique(asked.groups)[:1]
    place = [t.name for t in found.train.targets.of].index(target.name)
    values = found.test.targets.values.copy()
    values[asked.keep, place] = np.isin(asked.groups, one).astype(float)
    part = dataclasses.replace(found.test, targets=dataclasses.replace(found.test.targets, values=values))
    rare = dataclasses.replace(found, test=part)
    ranked = ranking.rows(rare, cells, target)
    assert len(ranked) - 1 > ranking.first_of(ranked)
    assert all(r.separable is None for r in ranked)
    table = "\n".join(leaderboard._table(target, ranked))
    assert " * |" not in table
    assert table.count(" ? |") == len(ranked) - 1 - ranking.first_of(ranked)
    assert "? of too few groups to say whether it is." in leaderboard._notes(rare, part, target, "", ranked)
    assert f"1 of {len(np.unique(asked.groups))} groups hold class 1, and at least 5 are needed" in table


def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page and its pictures are made of the folder alone."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "leaderboard", raising=False)
    out = folder / "page"
    written = folder / "benchmark.md"
    written.write_text("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
    call = ["leaderboard.py", str(folder), "--out", str(out), "--pictures", str(out), "--page", str(written)]
    monkeypatch.setattr(sys, "argv", call)
    importlib.import_module("leaderboard").main()
    assert (folder / "leaderboard.md").read_text() in (out / "leaderboard.md").read_text()
    kept = out / "bench" / folder.name
    assert (kept / "leaderboard.parquet").read_bytes() == (folder / "leaderboard.parquet").read_bytes()
    monkeypatch.setattr(sys, "argv", [call[0], str(kept), *call[2:]])  # what is kept already stays
    importlib.import_module("leaderboard").main()
    assert (kept / "leaderboard.parquet").exists()
    # One of two cannot be kept: neither is.
    (kept / "leaderboard.md").write_text("kept")
    twin, half = folder / "apart" / folder.name, folder / "half"
    twin.mkdir(parents=True)
    half.mkdir()
    shutil.copyfile(folder / "leaderboard.parquet", half / "leaderboard.parquet")
    for other, said in (
        (half, "half holds no leaderboard.md: name a folder"),
        (twin, "holds no leaderboard.md and no"),
    ):
        monkeypatch.setattr(sys, "argv", [call[0], str(folder), str(other), *call[2:]])
        with pytest.raises(SystemExit, match=said):
            importlib.import_module("leaderboard").main()
    for name in ("leaderboard.md", "leaderboard.parquet"):
        shutil.copyfile(folder / name, twin / name)
    with pytest.raises(SystemExit, match="have one name"):
        importlib.import_module("leaderboard").main()
    assert (kept / "leaderboard.md").read_text() == "kept"
    shutil.copyfile(folder / "leaderboard.md", kept / "leaderboard.md")
    # Another folder beside it: the page has the tables of both, in the order of their names.
    (out / "bench" / "another").mkdir()
    for name in ("leaderboard.md", "leaderboard.parquet"):
        shutil.copyfile(kept / name, out / "bench" / "another" / name)
    monkeypatch.setattr(sys, "argv", [call[0], *call[2:]])
    importlib.import_module("leaderboard").main()
    assert (out / "leaderboard.md").read_text().count((folder / "leaderboard.md").read_text()) == 2
    text = written.read_text()
    assert "old" not in text
    assert all(f"| {zoo} |" in text for zoo in ("bench", "other"))
    assert "Learned on one zoo, asked of another" in text
    assert "A level that was never seen" in text
    assert {p.name for p in out.glob("*.svg")} == {"leaderboard-scores.svg", "leaderboard-transfer.svg"}


def test_what_two_folders_say_of_one_question_counts_once(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    once = importlib.import_module("benchmark_page").once
    line = {"zoo_digest": "d", "task": "t", "n_train": 9, "baseline": "b", "metric": "r2", "value": 0.5}
    others = [
        line | {k: v}
        for k, v in (("zoo_digest", "e"), ("task", "u"), ("n_train", 3), ("baseline", "c"), ("metric", "mae"))
    ]
    assert once([line, *others, line | {"value": 0.7}]) == [line, *others]


def test_widths_are_a_panel_for_each_parameterization_and_a_line_for_the_best_of_each_kind(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    leaderboards = importlib.import_module("leaderboard")

    def line(baseline, task, value, metric="kendall"):
        given = {
            "zoo": "o/a",
            "split": "iid",
            "target": "test_accuracy",
            "n_train": 9,
            "low": value - 0.1,
            "high": value + 0.1,
        }
        return given | {"baseline": baseline, "task": task, "value": value, "metric": metric}

    rows = [
        line(n, "o/a/test_accuracy@1", v, "r2")
        for n, v in (("metadata", 0.5), ("nfn", 0.7), ("probing", 0.8), ("statistics", 0.6))
    ]
    assert leaderboards.width(rows) is None
    for place, width in enumerate((64, 8)):
        for kind in ("mup", "standard"):
            task = f"o/a-wide/test_accuracy/from=o/a/parameterization={kind},width={width}@1"
            rows += [
                line(n, task, v + 0.1 * place)
                for n, v in (("metadata", 0.3), ("nfn", 0.1), ("probing", 0.4), ("statistics", 0.2))
            ]
    axes = leaderboards.width(rows).axes
    assert [a.get_xlabel() for a in axes] == [
        f"width of the networks asked, parameterization {k}" for k in ("mup", "standard")
    ]
    drawn = {of.get_label(): of.get_xydata().tolist() for of in axes[0].lines}
    assert set(drawn) == {"metadata", "statistics", "probing"}
    np.testing.assert_allclose(drawn["probing"], [[8, 0.5], [64, 0.4]])


@pytest.mark.slow
def test_bench_of_several_zoos_goes_on_after_what_cannot_be_asked(bench_zoo, other_zoo, tmp_path, capsys, monkeypatch):
    code = cli.main(
        [
            "bench", str(bench_zoo.root), str(other_zoo.root), "--tasks", "test_accuracy,colour", "--split",
            "transfer,activation,depth=3", "--baselines", "statistics-ridge", "--shuffles", "3", "--out", str(tmp_path),
        ]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 1
    assert "Unknown target 'colour' in weightzoo/bench" in said.err
    assert "Unknown axis 'depth' in weightzoo/other" in said.err
    assert "Traceback" not in said.err
    for text in (
        "### weightzoo/other/test_accuracy/from=weightzoo/bench@1", "over sources one permits no interval",
        "| baseline | bench → bench | bench → other | other → bench | other → other |", "2 sources: the unit is the source",
        "each level of activation held out", "(2 groups, and at least 5 are needed)", "Shuffled targets",
    ):  # fmt: skip
        assert text in said.out, text
    page(tmp_path, monkeypatch)
    tasks_there = json.loads((tmp_path / "tasks.json").read_text())["tasks"]
    (asked,) = (t for t in tasks_there if t["name"] == "weightzoo/other/test_accuracy/from=weightzoo/bench@1")
    assert asked["population"]["zoo"] == "weightzoo/bench"
    assert asked["asked_of"]["zoo"] == "weightzoo/other"
    assert asked["metrics"][:2] == ["r2", "kendall"]
    table = pq.read_table(tmp_path / "leaderboard.parquet")
    kept = table.filter((pc.field("metric") == "r2") & (pc.field("baseline") == "statistics-ridge"))
    assert len(kept) == 8  # two zoos: iid, transfer, two levels held out
    assert np.isfinite(kept["gain"].to_numpy()).all()


@pytest.mark.slow
def test_a_baseline_that_raises_is_a_cell_and_the_others_go_on(found, tmp_path, monkeypatch):
    class Raises(Tabular):
        def fit(self, *_: object) -> None:
            raise IndexError("of its own")

    monkeypatch.setitem(known.BASELINES, "raises", lambda: Raises("raises", "none", "mean"))
    list(results.run(found, ["raises", "statistics-ridge"], 1, tmp_path))
    cells = results.read(found, tmp_path)
    assert {c.error for c in cells if c.baseline == "raises"} == {"IndexError: of its own"}
    assert not [c for c in cells if c.baseline == "statistics-ridge" and c.error]


@pytest.mark.slow
def test_settings_are_chosen_once_and_kept(found, tmp_path, monkeypatch):
    from zoo_datasets.baselines.flat import FlatMlp
    from zoo_datasets.baselines.learning import Training

    monkeypatch.setitem(
        known.BASELINES, "flat-mlp", lambda: FlatMlp(hidden=(8,), training=Training(epochs=6, batch=16))
    )
    frozen = results.choose(found, ["flat-mlp", "statistics"], tmp_path)
    kept = json.loads((tmp_path / "chosen.json").read_text())["baselines"]["flat-mlp"]
    assert frozen == {"flat-mlp": kept["settings"]}
    assert [t["epoch"] <= 2 for t in kept["tried"]] == [True] * 4  # a third of the epochs
    assert kept["on"] == "weightzoo/bench"
    monkeypatch.setattr(FlatMlp, "tune", None)
    assert results.choose(found, ["flat-mlp"], tmp_path) == frozen
    (cell, *_) = solving.solve(found, "flat-mlp", 0, frozen["flat-mlp"])
    assert {k: cell.chosen[k] for k in frozen["flat-mlp"]} == frozen["flat-mlp"]


def test_images_of_the_source_are_shown_that_no_network_learned_from(bench_zoo, found):
    inputs, labels = found.test.view.shown()
    source = bench_zoo.source(bench_zoo.models["model_id"][0].as_py())
    np.testing.assert_array_equal(inputs, source.scaled(source.test.inputs)[:128])  # 60 validation images are too few
    np.testing.assert_array_equal(labels, source.test.labels[:128])
    (cell, *_) = solving.solve(found, "images", 0)
    y = found.test.targets.values[:, 0]
    assert np.corrcoef(cell.predictions, y)[0, 1] > 0.9


# ── what a control may not be told, files of strangers ──


def test_a_control_is_not_told_a_setting_by_what_is_null_beside_it(bench_zoo):
    """`std` means something beside `normal` alone; `label` beside a share above 0; `free` beside anything."""

    class Recipe:
        axes = dict.fromkeys(["kind", "std", "share", "label", "free", "subset", "lr"], ())
        columns = pa.table(
            {
                "kind": ["normal", "normal", "orthogonal", "orthogonal"] * 2,
                "std": [0.1, None, None, None, 0.2, 0.3, None, None],
                "share": [0.0, 0.1, 0.2, 0.0, 0.3, 0.0, 0.0, 0.4],
                "label": [None, 1, 2, None, 3, None, None, 4],
                "free": [None, 1, 2, None, None, 5, None, 6],
                "subset": ["a", "b"] * 4,
                "lr": [0.1 * i for i in range(1, 9)],
            }
        )
        snapshots = models = columns

        def column(self, name):
            return self.columns[name]

    told = {name: targets.telling(Recipe(), name) for name in ("kind", "share", "lr", "subset", "learned_class_3")}
    assert told == {"kind": ("std",), "share": ("label",), "lr": (), "subset": (), "learned_class_3": ("subset",)}
    view = View((), np.zeros(8, np.int64), [np.zeros(1)] * 8, Recipe.columns, telling=told).take(np.arange(3))
    assert view.recipe_without(Target("kind", 2)).column_names == ["share", "label", "free", "subset", "lr"]
    assert "subset" not in view.recipe_without(Target("learned_class_3", 2)).column_names


def test_a_number_that_names_something_is_a_level_to_whoever_reads_the_recipe():
    """Automaton 7 lies no nearer to 8 than to 40: it is asked for as a class, and a control may tell any from any."""

    class Recipe:
        axes = dict.fromkeys(["automaton", "automaton_states"], ())
        columns = pa.table({"automaton": [0, 7, 40] * 4, "automaton_states": [4, 8, 16] * 4})
        snapshots = models = columns

        def column(self, name):
            return self.columns[name]

    asked = targets.asked(Recipe(), "automaton")
    assert (asked.target.classes, asked.levels) == (3, ("0", "40", "7"))
    assert asked.values.tolist() == [0, 2, 1] * 4
    assert targets.asked(Recipe(), "automaton_states").target.classes == 0
    # Null, where nothing is named, is no class of its own: the setting that says so would give it away.
    Recipe.columns = Recipe.columns.set_column(0, "automaton", pa.array([0, None, 40] * 4))
    absent = targets.asked(Recipe(), "automaton")
    assert absent.levels == ("0", "40")
    np.testing.assert_array_equal(absent.values, [0, np.nan, 1] * 4)
    Recipe.columns = pa.table({"automaton": [0, 7, 40] * 4, "automaton_states": [4, 8, 16] * 4})
    design = Design(Recipe.columns)
    assert design(Recipe.columns)[:3].tolist() == [[4, 0, 1, 0, 0], [8, 0, 0, 0, 1], [16, 0, 0, 1, 0]]
    assert audit._design([Recipe()], ["automaton"], np.ones(12, bool))[0].shape == (12, 3)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_boosting_keeps_the_turns_that_validation_likes_and_none_where_nothing_can_be_read(classes):
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))

    def right(of):
        return np.digitize(of[:, 0], [-0.5, 0.5][: classes - 1]).astype(float) if classes else of[:, 0]

    solver = tabular.Boosting(Target("t", classes), 0.1, 15, 0)
    solver.fit(x, right(x))
    whole, last = solver.predict(other), tabular._loss(solver.target, solver.predict(other), right(other))
    turns = solver.keep_best(other, right(other))
    assert 0 < turns <= 25
    assert tabular._loss(solver.target, solver.predict(other), right(other)) <= last
    if turns == 25:
        np.testing.assert_array_equal(solver.predict(other), whole)
    noise = rng.permutation(right(x))
    solver.fit(x, noise)
    assert solver.keep_best(other, np.full(200, noise.mean()) if not classes else rng.permutation(noise)) < 25
    solver.forest = solver.forest.first(0)
    said = solver.predict(other)
    np.testing.assert_allclose(said, np.tile(said[:1], (200,) + (1,) * (said.ndim - 1)))
    expected = np.bincount(noise.astype(int)) / 200 if classes else noise.mean()
    np.testing.assert_allclose(said[0], expected, rtol=1e-6)


def test_of_a_drawn_number_its_lowest_and_highest_quarter_and_the_middle_are_held_out(bench_zoo, monkeypatch):
    """Each network has a rate of its own: a level each would be as many problems."""
    monkeypatch.setattr(tasks, "MOST_LEVELS", 1)
    rates = bench_zoo.models["lr"].to_numpy()
    named = tasks.level_names(bench_zoo, "lr")
    assert set(named.values()) <= {"lowest", "middle", "highest"}
    assert named[tasks._label(float(rates.min()))] == "lowest"
    low = min(tasks.levels(bench_zoo, "lr"), key=["lowest", "middle", "highest"].index)
    found = tasks.problem(bench_zoo, ["test_accuracy"], f"lr={low}")
    asked, learned = (bench_zoo.select(model_id=list(p.ids)).models["lr"].to_numpy() for p in (found.test, found.train))
    assert {named[tasks._label(float(v))] for v in asked} == {low}
    assert low not in {named[tasks._label(float(v))] for v in learned}
    with pytest.raises(
        errors.ZooError, match=r"activation has 2 levels in weightzoo/bench, and a level is held out of at most 1\."
    ):
        tasks.levels(bench_zoo, "activation")


def test_boosting_of_many_classes_takes_fewer_turns(monkeypatch):
    monkeypatch.setattr(tabular, "TREES", 300)
    turns = {n: tabular.Boosting(Target("t", n), 0.1, 15, 0).trees for n in (0, 2, 20, 100, 200)}
    assert turns == {0: 300, 2: 300, 20: 300, 100: 60, 200: 30}


def test_a_limit_that_cuts_nothing_is_none(bench_zoo, found):
    n = len(found.train)
    same = tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"], limit=64, networks=n)
    assert (same.limit, same.networks, same.digest) == (None, None, found.digest)
    less = tasks.problem(bench_zoo, ["test_accuracy"], limit=63, networks=3)
    assert (less.limit, less.networks) == (63, 3)
    level = tasks.problem(bench_zoo, ["test_accuracy"], "from:activation=relu", networks=7)
    assert len(level.train) == 7  # of that level, not of all


@pytest.mark.slow
def test_a_bad_file_is_a_sentence_and_the_others_are_read(found, tmp_path):
    list(results.run(found, [], 1, tmp_path))
    whole = len(results.read(found, tmp_path))
    path = results.path_of(found, "metadata", 0, tmp_path)
    text = path.read_text()
    (tmp_path / "0000.json").write_text(text)  # a stranger's, who calls it as ours
    (tmp_path / "0001.json").write_text(text.replace('"metadata"', '"metadata, mean of 3"'))
    (tmp_path / "zzz.json").write_text("{")
    path.write_text(text[:-9])
    wrong: list[str] = []
    cells = results.read(found, tmp_path, wrong)
    assert len(cells) == whole - 3
    assert len(wrong) == 4
    assert any("calls a result 'metadata'" in s for s in wrong)
    assert any("not the name of several seeds together, is needed" in s for s in wrong)
    assert not [c for c in cells if c.baseline == "metadata"]
    assert ("metadata", 0, False) in list(results.run(found, [], 1, tmp_path))  # ours is made again
    assert len(results.read(found, tmp_path, [])) == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", 1e30), ("parameters", 10**30), ("parameters", True), ("error", 5), ("error", "a\nb"), ("baseline", "\ud800"),
        ("baseline", "a|b"), ("cpu_s", float("nan")), ("cpu_s", 10**400), ("predict_cpu_s", "1"), ("seed", -1), ("chosen", [1]),
    ],
)  # fmt: skip
def test_a_strangers_cell_is_checked(found, answered, name, value):
    path = results.path_of(found, "mean", 0, answered)
    kept = json.loads(path.read_text())
    kept["cells"][0][name] = value
    path.write_text(json.dumps(kept))
    with pytest.raises(errors.IntegrityError, match=f"{name} of weightzoo/bench/"):
        results.read(found, answered)


@pytest.mark.slow
def test_tasks_and_predictions_of_strangers_are_no_traceback(found, answered):
    path = results.path_of(found, "mean", 0, answered)
    kept = json.loads(path.read_text())
    kept["cells"][1]["task"] = ["lr"]
    kept["cells"][0]["predictions"][0] = 1e308
    path.write_text(json.dumps(kept))
    cells = [c for c in results.read(found, answered) if c.baseline == "mean"]
    assert [c.error for c in cells] == [f"1 of {len(found.test)} predictions are beyond ±1e+30", None]
    kept["cells"][0]["predictions"][0] = 10**400
    path.write_text(json.dumps(kept))
    with pytest.raises(errors.IntegrityError, match="are no numbers"):
        results.read(found, answered)


def test_a_result_counts_where_its_settings_are_those_that_were_chosen():
    cell = solving.Cell("t", "b", 0, np.zeros(1), 0.0, 1, {"width": 3, "shape": [1]})
    assert results._with(cell, {"width": 3, "shape": (1,)})
    assert not results._with(cell, {"width": 4})
    assert not results._with(dataclasses.replace(cell, chosen=None), {"width": 3})


def test_a_shuffle_that_fails_keeps_its_place(found, tmp_path, monkeypatch):
    tried: list[int] = []

    class Odd(Tabular):
        def fit(self, train, validation, seed):
            tried.append(seed)
            if seed % 2:
                raise FloatingPointError("diverged")
            super().fit(train, validation, seed)

    first = found.only(["test_accuracy"])
    monkeypatch.setitem(known.BASELINES, "odd", lambda: Odd("odd", "statistics", "ridge"))
    list(results.run(first, ["odd"], 1, tmp_path, controls=()))
    cells = results.read(first, tmp_path)
    tried.clear()
    for count in (3, 5):
        list(nulls.run(first, ["odd"], count, tmp_path, cells))
    assert tried == [0, 1, 2, 3, 4]
    read = nulls.read(first, ["odd"], tmp_path)
    values = read["odd"]["weightzoo/bench/test_accuracy@1"]["r2"]
    assert np.isfinite(values).tolist() == [True, False, True, False, True]
    (row,) = ranking.rows(first, cells, first.test.targets.of[0], nulls=read)
    assert row.null["r2"][2] == 3
    assert np.isfinite(row.null["r2"][:2]).all()


def test_a_baseline_whose_estimate_raises_costs_nothing_yet(found, monkeypatch):
    class Raises(Tabular):
        def estimate(self, *_: object) -> float:
            raise IndexError("of its own")

    monkeypatch.setitem(known.BASELINES, "raises", lambda: Raises("raises", "none", "mean"))
    assert solving.estimate(found, "raises") == 0


def test_seeds_and_bounds_are_of_the_same_mean(found):
    """Of two groups of unlike size, each counts once."""
    target = found.test.targets.of[0]
    n = len(found.test)
    part = dataclasses.replace(found.test, groups=np.array(["a"] * (n - 2) + ["b"] * 2))
    asked = ranking.question(dataclasses.replace(found, test=part), target)
    given = asked.y + np.where(asked.groups == "a", 0.0, 1.0)
    assert asked.value("mae", given) == pytest.approx(0.5)
    assert asked.interval("mae", given).value == pytest.approx(0.5)


@pytest.mark.slow
def test_a_zoo_that_was_built_to_be_asked_is_asked_whole_and_by_what_it_alone_varies(bench_zoo, tmp_path):
    """Its networks start as those of the first zoo do, whose training side is left out."""
    text = (
        RECIPE.replace("weightzoo/bench", "weightzoo/asked")
        .replace("16", "4")
        .replace("lr:", "batch_size: [16, 32]\n  lr:")
    )
    (tmp_path / "asked.yaml").write_text(text.replace(", batch_size: 32", "") + "splits: {test: 1.0}\n")
    build(plan.plan(grid.load(tmp_path / "asked.yaml")), tmp_path / "weightzoo" / "asked", workers=0)
    asked = open_zoo(tmp_path / "weightzoo" / "asked")
    found = tasks.problem(bench_zoo, ["test_accuracy"], others=[asked])
    part = found.elsewhere["weightzoo/asked"]
    learned = {*found.train.groups.tolist(), *found.validation.groups.tolist()}
    assert not set(part.groups.tolist()) & learned
    assert len(part) > 0.4 * len(asked.models)
    levels = [found.elsewhere[f"weightzoo/asked/batch_size={n}"] for n in (16, 32)]
    assert sorted(i for p in levels for i in p.ids) == sorted(part.ids)
    assert (
        found.name_of("test_accuracy", "weightzoo/asked/batch_size=16")
        == "weightzoo/asked/test_accuracy/from=weightzoo/bench/batch_size=16@1"
    )


@pytest.mark.slow
def test_a_zoo_that_was_built_to_be_asked_is_never_learned_from(bench_zoo, tmp_path, capsys):
    text = RECIPE.replace("weightzoo/bench", "weightzoo/asked").replace("16", "4").replace("weightzoo", "weightzoo")
    (tmp_path / "asked.yaml").write_text(text + "splits: {test: 1.0}\nseed: 1\n")
    build(plan.plan(grid.load(tmp_path / "asked.yaml")), tmp_path / "asked", workers=0)
    bench = ["--baselines", "statistics-ridge", "--split", "iid,transfer", "--out", str(tmp_path / "out")]
    assert cli.main(["bench", str(bench_zoo.root), str(tmp_path / "asked"), *bench]) == 0
    said = capsys.readouterr().out
    assert "### weightzoo/asked/test_accuracy/from=weightzoo/bench@1" in said
    assert "## weightzoo/asked, split" not in said
    assert "R² is against their own mean" in said
    assert cli.main(["bench", str(tmp_path / "asked"), *bench]) == 1
    assert "weightzoo/asked: all of its own split is test. Name a zoo to learn from" in capsys.readouterr().err


def test_r2_of_another_source_is_against_its_own_mean(bench_zoo, other_zoo):
    """Who knows no more than that a source is harder has no R² there."""
    found = tasks.problem(bench_zoo, ["test_accuracy"], others=[other_zoo])
    target = found.train.targets.of[0]
    home, away = (ranking.question(found, target, w) for w in ("", "weightzoo/other"))
    assert home.middle == found.train.targets.values[:, 0].mean()
    assert away.value("r2", np.full(len(away.y), away.y.mean())) == pytest.approx(0)
    held = tasks.problem(bench_zoo, ["test_accuracy"], "activation=relu")
    assert ranking.question(held, target).middle is None


def _reader(found: tasks.Problem, name: str, seed: int, noise: np.ndarray) -> solving.Cell:
    said = found.test.targets.values[:, 0] + noise
    return solving.Cell(found.name_of("test_accuracy"), name, seed, said, 1.0, 1, None, None, found.test.digest)


def test_the_first_of_many_is_held_to_a_stricter_level(found):
    """A lead that would count in a table of two does not where the first is the best of nine."""
    target, rng = found.test.targets.of[0], np.random.default_rng(0)
    unit = 0.1 * rng.normal(size=(9, len(found.test)))
    best = _reader(found, "best", 0, 0.5 * unit[0])
    others = [_reader(found, f"other {i}", 0, 3 * unit[i]) for i in range(2, 9)]
    verdicts = set()
    for scale in np.linspace(0.6, 2, 29):
        second = _reader(found, "second", 0, scale * unit[1])
        two, nine = (ranking.rows(found, [best, second, *more], target) for more in ([], others))
        verdicts.add(tuple(next(r.separable for r in t if r.baseline == "second") for t in (two, nine)))
    assert (True, False) in verdicts
    assert (False, True) not in verdicts


def test_a_row_is_not_beaten_by_a_reader_one_of_whose_seeds_it_reaches(found):
    target, rng = found.test.targets.of[0], np.random.default_rng(0)
    unit = 0.05 * rng.normal(size=(2, len(found.test)))
    seeds = [_reader(found, "best", s, scale * unit[0]) for s, scale in enumerate((0.1, 0.1, 5))]
    second = _reader(found, "second", 0, 4 * unit[1])
    for of_best, beaten in ((seeds[:1], True), (seeds, False)):
        ranked = ranking.rows(found, [*of_best, second], target)
        assert ranked[0].baseline == "best"
        assert next(r.separable for r in ranked if r.baseline == "second") is beaten
    lucky = [_reader(found, "second", s, scale * unit[1]) for s, scale in enumerate((4, 4, 0.05))]  # one seed is ahead
    ranked = ranking.rows(found, [seeds[0], *lucky], target)
    by_name = {r.baseline: r.separable for r in ranked}
    assert ranked[0].baseline == "best"
    assert (by_name["second"], by_name["second, mean of 3"]) == (False, False)


def test_bounds_of_an_order_lie_where_an_order_can(found):
    """A jackknife's over few groups lie beyond 1."""
    asked = ranking.question(found, found.test.targets.of[0])
    few = np.arange(len(asked.y)) < 6
    few = dataclasses.replace(asked, y=asked.y[few], groups=asked.groups[few], keep=asked.keep[few])
    beyond = 0
    for seed in range(20):
        given = np.random.default_rng(seed).normal(size=6)
        raw = intervals.deleted(metrics.spearman, (few.y, given), few.groups)
        shown = few.interval("spearman", given)
        assert (shown.low, shown.high) == (max(-1, raw.low), min(1, raw.high))
        beyond += raw.high > 1 or raw.low < -1
    assert beyond


def test_seeds_that_are_asked_together_are_a_row_of_their_own(found):
    """What they say on average errs less than each, costs what they cost, and has the rank of what it is made of."""
    target, rng = found.test.targets.of[0], np.random.default_rng(0)
    noise = 0.05 * rng.normal(size=(6, len(found.test)))
    seeds = [_reader(found, "reader", s, noise[s]) for s in range(3)]
    control = [_reader(found, "probing-random", s, 0.1 * noise[3 + s]) for s in range(3)]
    ranked = ranking.rows(found, [*seeds, *control], target)
    by_name = {r.baseline: r for r in ranked}
    assert [r.baseline for r in ranked] == [
        "probing-random, mean of 3",
        "probing-random",
        "reader, mean of 3",
        "reader",
    ]
    assert ranked[ranking.first_of(ranked)].baseline == "reader, mean of 3"
    one, three = by_name["reader"], by_name["reader, mean of 3"]
    mean = np.mean([c.predictions for c in seeds], axis=0)
    asked = ranking.question(found, target)
    assert three.scores["r2"].value == asked.value("r2", mean[asked.keep])
    assert (three.seeds, three.cpu_s, three.parameters) == (3, 3 * one.cpu_s, 3 * one.parameters)
    assert (three.spread, three.left_by_seed) == (one.spread, one.left_by_seed)  # those of its seeds
    assert three.spread["r2"][1] < three.scores["r2"].value
    same = [_reader(found, "sure", s, noise[0]) for s in range(3)]  # draws nothing
    assert [r.baseline for r in ranking.rows(found, same, target)] == ["sure"]
    assert "reader, mean of 2" not in {r.baseline for r in ranking.rows(found, seeds[:2], target)}


@pytest.mark.slow
def test_only_groups_that_hold_several_levels_lose_networks(bench_zoo, tmp_path):
    """Where each network has an init of its own, all of a level are asked, and all others learned from."""

    def sizes(zoo: Zoo) -> tuple[int, int]:
        found = tasks.problem(zoo, ["test_accuracy"], "lr=0.01")
        return len(found.train) + len(found.validation), len(found.test)

    assert sizes(bench_zoo) == (32, 32)
    (tmp_path / "paired.yaml").write_text(RECIPE.replace("weightzoo/bench", "weightzoo/paired") + "paired: [lr]\n")
    build(plan.plan(grid.load(tmp_path / "paired.yaml")), tmp_path / "paired", workers=0)
    learned, asked = sizes(open_zoo(tmp_path / "paired"))
    assert learned + asked == 32  # one of each pair


@pytest.mark.slow
def test_seeds_of_other_settings_are_not_mixed_into_a_row(found, tmp_path):
    """Nor those learned with other targets, nor more of them than were asked for."""
    one = found.only(["test_accuracy"])
    list(results.run(one, ["flat-mlp"], 3, tmp_path, controls=()))
    frozen = {"flat-mlp": {"rate": 1e-3, "dropout": 0.3}}
    list(results.run(one, ["flat-mlp"], 2, tmp_path, frozen=frozen, controls=()))
    assert {c.seed for c in results.read(one, tmp_path, frozen=frozen)} == {0, 1}
    assert {c.seed for c in results.read(one, tmp_path, seeds=1)} == {0}
    list(results.run(found, ["flat-mlp"], 1, tmp_path, controls=()))
    cells = [c for c in results.read(found, tmp_path) if c.task == found.name_of("test_accuracy")]
    assert [c.seed for c in cells] == [0]  # learned with all three, and not the two others that learned accuracy alone


@pytest.mark.slow
def test_who_learned_a_result_stays_named(bench_zoo, other_zoo, tmp_path):
    """Another question to a saved baseline is answered by later code, and learned by the earlier one."""
    alone = tasks.problem(bench_zoo, ["test_accuracy"])
    both = tasks.problem(bench_zoo, ["test_accuracy"], others=[other_zoo])
    list(results.run(alone, ["statistics"], 1, tmp_path, "first"))
    list(results.run(both, ["statistics"], 1, tmp_path, "second"))
    head = json.loads(results.path_of(both, "statistics", 0, tmp_path).read_text())
    assert head["commit"] == "first"
    assert {"python", "weightzoo", "numpy", "scikit-learn"} <= set(head["versions"])


@pytest.mark.slow
def test_progress_is_a_population_of_its_own_and_networks_are_counted_in_it(bench_zoo, tmp_path, capsys):
    few = tasks.problem(bench_zoo, ["progress"], networks=30)
    assert len(set(few.train.ids)) == 30
    assert len(few.train) == 60  # two snapshots each
    code = cli.main(
        ["bench", str(bench_zoo.root), "--tasks", "progress,test_accuracy", "--baselines", "mean", "--out", str(tmp_path)]
    )  # fmt: skip
    said = capsys.readouterr()
    assert (code, said.err.count("ask for it alone")) == (0, 0)
    assert "weightzoo/bench/progress@1" in said.out
    assert "weightzoo/bench/test_accuracy@1" in said.out


@pytest.mark.slow
def test_a_split_that_leaks_is_a_sentence_and_gives_no_number(bench_zoo, tmp_path, capsys):
    """A network of the test side has the bytes of one that is learned from."""
    root = Path(shutil.copytree(bench_zoo.root, tmp_path / "leaky"))
    split = tasks.problem(bench_zoo, ["test_accuracy"]).split
    for path in root.rglob("*.parquet"):
        table = pq.read_table(path)
        if "weights_sha256" in table.column_names:
            side = [split.assignment[i] for i in table["model_id"].to_pylist()]
            hashes = table["weights_sha256"].to_pylist()
            hashes[side.index("test")] = hashes[side.index("train")]
            place, field = table.schema.get_field_index("weights_sha256"), table.schema.field("weights_sha256")
            pq.write_table(table.set_column(place, field, pa.array(hashes, field.type)), path)
            break
    reseal(root)
    assert cli.main(["bench", str(root), "--baselines", "mean", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "weightzoo/bench: the split iid leaks (1 weights on two sides), and is not asked." in said.err
    assert "| mean" not in said.out


@pytest.mark.slow
def test_shares_of_images_are_asked_and_the_recipe_does_not_tell_them(tmp_path):
    text = RECIPE.replace("weightzoo/bench", "weightzoo/shares").replace("replicates: 16", "replicates: 6").replace(
        "  lr: [1e-2, 1e-4]", "  subset: [full, {frac: 0.5}, {label_noise_frac: 0.2}]"
    )  # fmt: skip
    (tmp_path / "shares.yaml").write_text(text.replace("batch_size: 32", "batch_size: 32, lr: 1e-2"))
    build(plan.plan(grid.load(tmp_path / "shares.yaml")), tmp_path / "shares", workers=0)
    zoo = open_zoo(tmp_path / "shares")
    assert {"subset_frac", "label_noise_frac"} <= set(targets.known(zoo))
    found = tasks.problem(zoo, ["subset_frac", "label_noise_frac"])
    assert not found.refused
    seen = np.unique(np.concatenate([found.train.targets.values, found.test.targets.values]), axis=0)
    assert seen.tolist() == [[0.5, 0.0], [1.0, 0.0], [1.0, 0.2]]
    for target in found.train.targets.of:
        assert found.train.view.recipe_without(target).column_names == ["activation"]


def test_accuracy_is_learned_by_itself_where_a_fit_is_dear(bench_zoo, tmp_path, monkeypatch):
    """One trunk for many heads serves each of them worse, and the controls choose for each."""
    learned: list[list[str]] = []

    class Dear(Tabular):
        def fit(self, train, validation, seed):
            learned.append([t.name for t in train[1].of])
            super().fit(train, validation, seed)

    monkeypatch.setitem(known.BASELINES, "dear-one", lambda: Dear("dear-one", "none", "mean"))
    code = cli.main(
        [
            "bench", str(bench_zoo.root), "--tasks", "lr,test_accuracy,generalization_gap", "--split", "iid,activation=relu",
            "--baselines", "dear-one", "--seeds", "1", "--out", str(tmp_path),
        ]
    )  # fmt: skip
    assert code == 0
    assert learned == [["test_accuracy"], ["lr", "generalization_gap"], ["test_accuracy"]]
    rows = pq.read_table(tmp_path / "leaderboard.parquet").to_pylist()
    assert {r["target"] for r in rows if r["baseline"] == "dear-one" and r["split"] == "iid"} == {
        "lr",
        "test_accuracy",
        "generalization_gap",
    }


@pytest.mark.slow
def test_of_two_axes_that_a_zoo_alone_varies_each_combination_is_asked(bench_zoo, tmp_path, monkeypatch):
    """Widths of two parameterizations, say: a mixture of both would be about neither."""
    axes = "axes:\n  parameterization: [standard, mup]\n  batch_size: [16, 32]"
    text = RECIPE.replace("weightzoo/bench", "weightzoo/cells").replace("replicates: 16", "replicates: 3")
    text = text.replace("axes:", axes).replace(", batch_size: 32", "") + "splits: {test: 1.0}\nmup_base: 3\nseed: 1\n"
    (tmp_path / "cells.yaml").write_text(text)
    build(plan.plan(grid.load(tmp_path / "cells.yaml")), tmp_path / "weightzoo" / "cells", workers=0)
    asked = open_zoo(tmp_path / "weightzoo" / "cells")
    parts = {
        where.removeprefix("weightzoo/cells"): part
        for where, part in tasks.problem(bench_zoo, ["test_accuracy"], others=[asked]).elsewhere.items()
    }
    cells = {f"batch_size={b},parameterization={p}": (b, p) for b in (16, 32) for p in ("mup", "standard")}
    assert set(parts) == {"", *(f"/{cell}" for cell in cells)}
    rows = {r["model_id"]: r for r in asked.models.to_pylist()}
    for cell, levels in cells.items():
        members = parts[f"/{cell}"].ids
        assert len(members) == 12
        assert {(rows[i]["batch_size"], rows[i]["parameterization"]) for i in members} == {levels}
    monkeypatch.setattr(tasks, "MOST_LEVELS", 3)  # four combinations are too many then
    apart = tasks.problem(bench_zoo, ["test_accuracy"], others=[asked]).elsewhere
    assert sorted(w.removeprefix("weightzoo/cells/") for w in apart) == [
        "batch_size=16", "batch_size=32", "parameterization=mup", "parameterization=standard", "weightzoo/cells",
    ]  # fmt: skip
