"""Result files: made once, gone on with, checked where strangers wrote them; shuffles."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from zoo_datasets import (
    errors,
    leaderboard,
    nulls,
    ranking,
    results,
    solving,
    tasks,
)
from zoo_datasets.baselines import known
from zoo_datasets.baselines.tabular import Tabular

pytest_plugins = ("bench_fixtures",)
pytestmark = pytest.mark.usefixtures("few_trees")


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"baseline": "solo, mean of 3"}, "not the name of several seeds together, is needed"),
        ({"baseline": "a|b"}, "baseline of .* is a|b; a line of at most 1,000 characters without | or space"),
        ({"baseline": "oracle"}, "no name of ours in other letters and not “oracle”, and"),
        ({"baseline": "Statistics"}, "baseline of .* is Statistics; a line"),
        ({"baseline": "theirs "}, "or space at its ends"),
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
    # Of the other zoo others are asked about now: that alone is asked again.
    fewer = dataclasses.replace(both, elsewhere={other_zoo.name: both.elsewhere[other_zoo.name].take(np.arange(20))})
    assert ("statistics", 0, False) in list(results.run(fewer, ["statistics"], 1, tmp_path))
    cells = {c.task: c for c in results.read(fewer, tmp_path) if c.baseline == "statistics"}
    assert set(cells) == set(wanted)
    assert sorted({len(c.predictions) for c in cells.values()}) == [20, len(both.test)]


def test_a_link_that_leads_nowhere_is_a_sentence_and_the_others_are_read(found, answered, tmp_path):
    folder = shutil.copytree(answered, tmp_path / "there")
    (folder / "x.json").symlink_to(tmp_path / "gone")
    wrong: list[str] = []
    assert len(results.read(found, folder, wrong)) == len(results.read(found, answered))
    assert [s for s in wrong if "x.json is no result file" in s] == wrong


def test_groups_of_any_size_lend_each_other_their_targets(found):
    """Groups of one size alone changed places: of seven sizes nothing moved, and the null was the truth."""
    sizes = [2, 3, 4, 5, 6, 7]
    groups = np.repeat(np.arange(6), sizes)
    part = dataclasses.replace(found.train.take(np.arange(len(groups))), groups=groups)
    part.targets.values[:, 0] = groups  # what a group shares
    assert nulls.within(part) == "groups of any size"
    right, lent = [], np.zeros((6, 6))
    for seed in range(400):
        after = nulls.shuffled(part, np.random.default_rng(seed)).targets.values[:, 0]
        held = [set(after[groups == g]) for g in range(6)]
        assert all(len(h) == 1 for h in held)
        to = [int(next(iter(h))) for h in held]
        assert sorted(to) == list(range(6))
        lent[range(6), to] += 1
        right.append(np.mean(np.arange(6) == to))
    assert np.mean(right) == pytest.approx(
        1 / 6, abs=0.04
    )  # as often its own as any other: no answer is the opposite of the truth
    assert lent.min() > 40


@pytest.mark.slow
def test_shuffles_keep_groups_together_and_score_as_chance(found, tmp_path):
    assert nulls.within(found.train) == "all"  # every network has an initialization of its own
    shared = dataclasses.replace(found.train, groups=np.arange(len(found.train)) // 4)
    assert nulls.within(shared) == "whole groups"

    def held(part, values):
        return [tuple(sorted(values[part.groups == g])) for g in np.unique(part.groups)]

    for part in (shared, found.train):
        before, after = part.targets.values[:, 0], nulls.shuffled(part, np.random.default_rng(0)).targets.values[:, 0]
        assert sorted(after) == sorted(before)
        assert (after != before).any()
        if part is shared:  # what a group held together another one holds now
            assert sorted(held(part, after)) == sorted(held(part, before))
            assert held(part, after) != held(part, before)
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
    assert (old, wrong) == ({"mean"}, [])
    assert ("metadata", 0, False) in list(results.run(first, [], 1, tmp_path))
    assert {c.baseline for c in results.read(first, tmp_path, wrong)} == {"mean", "metadata-ridge", "metadata"}
    assert wrong == []


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
    kept["about"]["targets"] = 5
    path.write_text(json.dumps(kept))
    assert not [c for c in results.read(found, answered, []) if c.baseline == "mean"]  # the name is of one of ours
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
