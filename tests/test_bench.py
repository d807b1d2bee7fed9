"""Tasks, tabular baselines, result files and tables, on 64 networks trained for this."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import errors, leaderboard, tasks
from zoo_datasets.baselines import known
from zoo_datasets.baselines.interface import MixedLayoutsError
from zoo_datasets.baselines.tabular import Tabular
from zoo_datasets.tasks import TaskError
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


@pytest.fixture(scope="module")
def bench_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "bench.yaml").write_text(RECIPE)
    build(plan.plan(grid.load(folder / "bench.yaml")), folder / "weightzoo" / "bench", workers=0)
    return open_zoo(folder / "weightzoo" / "bench")


@pytest.fixture(scope="module")
def found(bench_zoo: Zoo) -> tasks.Problem:
    return tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"])


# ── tasks ──


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
        assert (part.images == 300).all()
    assert found.name_of("lr") == "weightzoo/bench/lr@1"


def test_rows_are_in_an_order_that_says_nothing_and_stays(bench_zoo, found):
    again = tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"])
    assert [v.tobytes() for v in again.test.view.vectors] == [v.tobytes() for v in found.test.view.vectors]
    models = bench_zoo.final().column("lr").to_numpy()
    assert (np.diff(np.concatenate([p.targets.values[:, 1] for p in (found.train, found.test)])) != 0).sum() > 8
    assert (np.diff(models) != 0).sum() < 64


def test_a_held_out_level_is_in_no_training_set(bench_zoo):
    found = tasks.problem(bench_zoo, ["test_accuracy"], "activation=relu")
    for part, levels in ((found.train, {"tanh"}), (found.validation, {"tanh"}), (found.test, {"relu"})):
        assert set(part.view.recipe["activation"].to_pylist()) == levels
    assert found.name_of("test_accuracy") == "weightzoo/bench/test_accuracy/activation=relu@1"


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
        (["test_accuracy"], "random", r"Unknown split 'random'\. Known: iid, and AXIS=LEVEL"),
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
    assert tasks.tied_share(np.array([1.0, 1.0, 2.0, 3.0])) == pytest.approx(1 / 6)
    assert tasks.tied_share(np.ones(5)) == 1


# ── baselines ──


@pytest.mark.some(1)
@pytest.mark.parametrize("name", ["statistics", "statistics-ridge"])
def test_weights_tell_the_learning_rate_and_shuffled_ones_do_not(name, found):
    (cell,) = [c for c in leaderboard.solve(found, name, 0) if "/lr@" in c.task]
    y = found.test.targets.values[:, 1]
    assert (cell.predictions.argmax(1) == y).mean() > 0.9
    np.testing.assert_allclose(cell.predictions.sum(1), 1)


@pytest.mark.slow
def test_the_recipe_tells_accuracy_but_not_the_setting_that_is_asked_for(found):
    cells = {c.task.split("/")[2]: c for c in leaderboard.solve(found, "metadata", 0)}
    y = found.test.targets.values
    assert np.corrcoef(cells["test_accuracy@1"].predictions, y[:, 0])[0, 1] > 0.8  # the learning rate decides it
    assert abs((cells["lr@1"].predictions.argmax(1) == y[:, 1]).mean() - 0.5) < 0.3


@pytest.mark.slow
def test_one_seed_gives_the_same_numbers(found):
    first, second = leaderboard.solve(found, "statistics", 3), leaderboard.solve(found, "statistics", 3)
    assert all(a.predictions.tobytes() == b.predictions.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_all_solvers_have_the_same_budget_and_record_it(found):
    for name in ("metadata", "metadata-ridge", "statistics", "statistics-ridge"):
        (cell, *_) = leaderboard.solve(found, name, 0)
        assert len(cell.chosen["tried"]) == 4
        losses = [t["validation_loss"] for t in cell.chosen["tried"]]
        settings = [{k: v for k, v in t.items() if k != "validation_loss"} for t in cell.chosen["tried"]]
        assert cell.chosen["chosen"] == settings[int(np.argmin(losses))]


@pytest.mark.slow
def test_nothing_is_chosen_on_test(found):
    """Other test targets give the same predictions."""
    import dataclasses

    spoiled = dataclasses.replace(found.test.targets, values=found.test.targets.values[::-1].copy())
    other = dataclasses.replace(found, test=dataclasses.replace(found.test, targets=spoiled))
    for a, b in zip(leaderboard.solve(found, "statistics", 0), leaderboard.solve(other, "statistics", 0), strict=True):
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
    assert all(not there for *_, there in leaderboard.run(found, ["norm"], 1, tmp_path))
    assert "| norm" in leaderboard.markdown(found, leaderboard.read(found, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", known.BASELINES)
def test_every_baseline_solves_every_task(name, found):
    for cell in leaderboard.solve(found, name, 0):
        assert cell.error is None
        assert np.isfinite(cell.predictions).all()
        assert cell.predictions.shape == ((len(found.test), 2) if "/lr@" in cell.task else (len(found.test),))


def test_mixed_layouts_are_a_sentence(found):
    import dataclasses

    from zoo_datasets.networks.layers import build_architecture

    other = build_architecture(["flatten", {"linear": 3}, "activation", {"linear": "classes"}], (1, 8, 8), 10)
    view = dataclasses.replace(found.train.view, architectures=(*found.train.view.architectures, other))
    with pytest.raises(MixedLayoutsError, match=r"mixes \d layouts, and this baseline takes one"):
        Tabular("x", "statistics", "ridge").fit((view, found.train.targets), (view, found.train.targets), 0)


# ── result files and tables ──


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(found, tmp_path):
    first = next(leaderboard.run(found, ["statistics-ridge"], 2, tmp_path))
    assert first == ("mean", 0, False)
    kept = {p: p.read_bytes() for p in tmp_path.iterdir()}
    again = list(leaderboard.run(found, ["statistics-ridge"], 2, tmp_path))
    assert again == [
        ("mean", 0, True), ("metadata-ridge", 0, False), ("metadata", 0, False), ("metadata", 1, False),
        ("statistics-ridge", 0, False),
    ]  # fmt: skip
    assert all(p.read_bytes() == data for p, data in kept.items())


@pytest.mark.slow
def test_the_table_ranks_marks_and_bounds(found, tmp_path):
    list(leaderboard.run(found, ["statistics-ridge", "statistics"], 1, tmp_path))
    cells = leaderboard.read(found, tmp_path)
    target = found.test.targets.of[0]
    ranked = leaderboard.rows(found, cells, target)
    values = [r.scores["r2"].value for r in ranked]
    assert values == sorted(values, reverse=True)
    assert ranked[0].separable is None
    assert next(r for r in ranked if r.baseline == "mean").separable is True  # far behind
    top = leaderboard.ceiling(found, target)
    assert values[0] < top["r2"] < 1
    assert leaderboard.ceiling(found, found.test.targets.of[2]) == {}
    text = leaderboard.markdown(found, cells)
    assert text.count("### weightzoo/bench/") == 3
    assert "of test pairs are tied" in text


def test_a_result_from_other_bytes_or_of_another_shape_is_refused(found, bench_zoo, tmp_path):
    list(leaderboard.run(found, [], 1, tmp_path))
    path = next(tmp_path.glob("*.json"))
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"problem": "0" * 64}))
    with pytest.raises(errors.IntegrityError, match="was made from other bytes than weightzoo/bench's"):
        leaderboard.read(found, tmp_path)
    value["cells"][0]["predictions"] = value["cells"][0]["predictions"][1:]
    path.write_text(json.dumps(value))
    with pytest.raises(errors.IntegrityError, match=r"predictions of .* have shape"):
        leaderboard.read(found, tmp_path)


def test_numbers_that_are_none_are_a_cell_of_their_own(found, tmp_path, monkeypatch):
    class Broken(Tabular):
        def predict(self, view):
            return {k: v * np.nan for k, v in super().predict(view).items()}

    monkeypatch.setitem(known.BASELINES, "broken", lambda: Broken("broken", "none", "mean"))
    list(leaderboard.run(found, ["broken"], 1, tmp_path))
    text = leaderboard.markdown(found, leaderboard.read(found, tmp_path))
    assert "predictions are not finite" in text
    assert "| metadata |" in text or "| metadata *" in text


def test_bench_from_the_command_line(bench_zoo, tmp_path):
    from zoo_datasets import cli

    code = cli.main(
        ["bench", str(bench_zoo.root), "--baselines", "statistics-ridge", "--seeds", "1", "--out", str(tmp_path)]
    )
    assert code == 0
    text = (tmp_path / "leaderboard.md").read_text()
    assert "statistics-ridge" in text
    assert "The split, audited" in text
    assert cli.main(["bench", str(bench_zoo.root), "--baselines", "magic", "--out", str(tmp_path)]) == 1
