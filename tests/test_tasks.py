"""A zoo, targets and a split → what is asked, of whom."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from bench_zoos import RECIPE, built

from zoo_datasets import (
    audit,
    errors,
    solving,
    targets,
    task_splits,
    tasks,
)
from zoo_datasets.baselines.design import Design
from zoo_datasets.baselines.interface import Target, View
from zoo_datasets.tasks import TaskError
from zoo_datasets.zoo import Zoo

pytest_plugins = ("bench_fixtures",)
pytestmark = pytest.mark.usefixtures("few_trees")


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


def test_what_another_zoo_drew_for_each_network_is_no_level_of_its_own(bench_zoo, tmp_path):
    """However few of its networks are asked about."""
    drawn = RECIPE.replace("weightzoo/bench", "weightzoo/drawn").replace("  lr: [1e-2, 1e-4]\nreplicates: 16\n", "")
    drawn = drawn.replace("axes:\n", "sample:\n  models: 16\n  axes:\n    dropout: {uniform: [0.1, 0.5]}\naxes:\n")
    other = built(drawn.replace("activation, {linear", "activation, dropout, {linear"), tmp_path / "drawn")
    found = tasks.problem(bench_zoo, ["test_accuracy"], others=[other])
    assert set(found.elsewhere) == {"weightzoo/drawn"}
    assert 1 < len(found.elsewhere["weightzoo/drawn"]) <= task_splits.MOST_LEVELS


def test_a_level_is_known_by_its_value(bench_zoo):
    """As recipes write numbers: 1e-2 is 0.01, in the name of the task too."""
    for split in ("lr=1e-2", "from:lr=1e-2"):
        assert list(task_splits.expand(bench_zoo, split)) == [split.replace("1e-2", "0.01")]
        assert tasks.problem(bench_zoo, ["test_accuracy"], split).split_name == split.replace("1e-2", "0.01")
    with pytest.raises(targets.TaskError, match="Unknown level '2e-2'"):
        tasks.problem(bench_zoo, ["test_accuracy"], "lr=2e-2")


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


def test_another_zoo_is_not_asked_about_groups_that_a_held_out_level_leaves_to_training(bench_zoo, other_zoo):
    """Its networks start as those here do, and each other level is learned from whole."""
    found = tasks.problem(bench_zoo, ["test_accuracy"], "activation=relu", others=[other_zoo])
    learned = {*found.train.groups.tolist(), *found.validation.groups.tolist()}
    groups = set(found.elsewhere["weightzoo/other"].groups.tolist())
    assert groups < set(found.test.groups.tolist())
    assert not groups & learned
    assert learned & set(tasks.problem(other_zoo, ["test_accuracy"]).test.groups.tolist())


def test_a_machine_whose_outputs_are_values_is_at_chance_where_it_was_before_its_first_update(tmp_path):
    """Most of its bits are 0, and a network that learned nothing is right three times of four."""
    machines = built(
        "zoo: weightzoo/machines\nsource: {id: machine, machine: SingleDirect, scale: none, steps: 4, train: 64, validation: 32, "
        "test: 64}\narchitecture: [{gru: 4}, {linear: classes}]\naxes: {lr: [1e-7, 3e-2]}\nreplicates: 8\nsplits: {train: 1}\n"
        "training: {batch_size: 16, epochs: 20, loss: mse}\nsnapshots: {epochs: [0, 20]}\n",
        tmp_path / "machines",
    )
    last = machines.final()
    trained = tasks._trained(last, [last.architecture(i).built() for i in last.column("model_id").to_pylist()])
    idle = np.array(last.column("lr").to_pylist()) == 1e-7
    assert np.mean(np.array(last.column("test_accuracy").to_pylist())[idle]) > 0.7
    assert not trained[idle].any()
    assert trained[~idle].all()


def test_a_child_of_a_trained_machine_is_measured_against_networks_that_learned_nothing(tmp_path):
    """Its first snapshot is what its parent had learned, and all children were at chance."""
    head = "source: {id: machine, machine: SingleDirect, scale: none, steps: 4, train: 64, validation: 32, test: 64}\n"
    ends = "training: {batch_size: 16, epochs: 8, loss: mse, lr: 3e-2}\nsnapshots: {epochs: [0, 8]}\n"
    layers = "architecture: [{gru: 4}, {linear: classes}]\n"
    built(f"zoo: weightzoo/first\n{head}{layers}replicates: 4\nsplits: {{train: 1}}\n{ends}", tmp_path / "first")
    children = built(
        f"zoo: weightzoo/then\n{head}{layers}init: {{zoo: {tmp_path / 'first'}, snapshot: -1}}\n{ends}",
        tmp_path / "then",
    )
    last = children.final()
    assert tasks._trained(last, [last.architecture(i).built() for i in last.column("model_id").to_pylist()]).all()


def test_chance_is_the_share_of_the_commonest_class(bench_zoo):
    last = bench_zoo.final()
    made = [last.architecture(i).built() for i in last.column("model_id").to_pylist()]
    counts = last.column("test_count_per_class")[0].as_py()
    assert max(counts) / sum(counts) > 0.1
    np.testing.assert_allclose(tasks._chance(last, made), max(counts) / sum(counts))


@pytest.mark.parametrize(("split", "why"), [("activation=relu", "is asked about: those"), ("iid", "No model is left")])
def test_another_zoo_of_which_all_starts_are_learned_from_is_named_and_left_out(bench_zoo, other_zoo, split, why):
    learned = tasks.problem(bench_zoo, ["test_accuracy"], split).train.groups.tolist()
    same = other_zoo.take(np.flatnonzero(np.isin(other_zoo.column("init_group").to_pylist(), learned)))
    found = tasks.problem(bench_zoo, ["test_accuracy"], split, others=[same])
    assert set(found.tests) == {""}
    assert why in found.refused["weightzoo/other"]
    assert "weightzoo/other" in found.refused["weightzoo/other"]
    assert len(solving.solve(found, "mean", 0)) == 1


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
    planned = sorted(bench_zoo.models.select(["plan_index", "model_id"]).to_pylist(), key=lambda r: r["plan_index"])
    first = {r["model_id"] for r in planned[:32]}
    assert first != set(bench_zoo.models["model_id"].to_pylist()[:32])  # whose order is that of the stored split
    assert len(found.train) == 7
    assert {i for p in (found.train, found.validation, found.test) for i in p.ids} <= first
    assert sum(map(len, (found.validation, found.test))) + len(
        tasks.problem(bench_zoo, ["test_accuracy"], limit=32).train
    ) == len(first)
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


def test_images_of_the_source_are_shown_that_no_network_learned_from(bench_zoo, found):
    inputs, labels = found.test.view.shown()
    source = bench_zoo.source(bench_zoo.models["model_id"][0].as_py())
    np.testing.assert_array_equal(inputs, source.scaled(source.test.inputs)[:128])  # 60 validation images are too few
    np.testing.assert_array_equal(labels, source.test.labels[:128])
    (cell, *_) = solving.solve(found, "images", 0)
    y = found.test.targets.values[:, 0]
    assert np.corrcoef(cell.predictions, y)[0, 1] > 0.9


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


def test_a_setting_that_is_off_or_one_number_is_told_to_the_control() -> None:
    """`clip_norm: [null, 0.01]` was no column at all, and what it does to the accuracy was credited to weights."""
    recipe = pa.table(
        {"clip_norm": pa.array([None, 0.01] * 3), "lr": pa.array([0.1] * 6), "off": pa.nulls(6, pa.float64())}
    )
    design = Design(recipe)
    assert [name for name, _ in design.numbers] == ["clip_norm"]
    assert design(recipe)[:2].tolist() == [[0, 1], [0.01, 0]]


def test_of_a_drawn_number_its_lowest_and_highest_quarter_and_the_middle_are_held_out(bench_zoo, monkeypatch):
    """Each network has a rate of its own: a level each would be as many problems."""
    monkeypatch.setattr(task_splits, "MOST_LEVELS", 1)
    rates = bench_zoo.models["lr"].to_numpy()
    named = task_splits.level_names(bench_zoo, "lr")
    assert set(named.values()) <= {"lowest", "middle", "highest"}
    assert named[task_splits.label(float(rates.min()))] == "lowest"
    low = min(task_splits.levels(bench_zoo, "lr"), key=["lowest", "middle", "highest"].index)
    found = tasks.problem(bench_zoo, ["test_accuracy"], f"lr={low}")
    asked, learned = (bench_zoo.select(model_id=list(p.ids)).models["lr"].to_numpy() for p in (found.test, found.train))
    assert {named[task_splits.label(float(v))] for v in asked} == {low}
    assert low not in {named[task_splits.label(float(v))] for v in learned}
    with pytest.raises(
        errors.ZooError, match=r"activation has 2 levels in weightzoo/bench, and a level is held out of at most 1\."
    ):
        task_splits.levels(bench_zoo, "activation")


def test_a_limit_that_cuts_nothing_is_none(bench_zoo, found):
    n = len(found.train)
    same = tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"], limit=64, networks=n)
    assert (same.limit, same.networks, same.digest) == (None, None, found.digest)
    less = tasks.problem(bench_zoo, ["test_accuracy"], limit=63, networks=3)
    assert (less.limit, less.networks) == (63, 3)
    level = tasks.problem(bench_zoo, ["test_accuracy"], "from:activation=relu", networks=7)
    assert len(level.train) == 7  # of that level, not of all


@pytest.mark.slow
def test_a_zoo_that_was_built_to_be_asked_is_asked_whole_and_by_what_it_alone_varies(bench_zoo, tmp_path):
    """Its networks start as those of the first zoo do, whose training side is left out."""
    text = (
        RECIPE.replace("weightzoo/bench", "weightzoo/asked")
        .replace("16", "4")
        .replace("lr:", "batch_size: [16, 32]\n  lr:")
    )
    asked = built(text.replace(", batch_size: 32", "") + "splits: {test: 1.0}\n", tmp_path / "weightzoo" / "asked")
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
def test_only_groups_that_hold_several_levels_lose_networks(bench_zoo, tmp_path):
    """Where each network has an init of its own, all of a level are asked, and all others learned from."""

    def sizes(zoo: Zoo) -> tuple[int, int]:
        found = tasks.problem(zoo, ["test_accuracy"], "lr=0.01")
        return len(found.train) + len(found.validation), len(found.test)

    assert sizes(bench_zoo) == (32, 32)
    paired = RECIPE.replace("weightzoo/bench", "weightzoo/paired") + "paired: [lr]\n"
    learned, asked = sizes(built(paired, tmp_path / "paired"))
    assert learned + asked == 32  # one of each pair


@pytest.mark.slow
def test_shares_of_images_are_asked_and_the_recipe_does_not_tell_them(tmp_path):
    text = RECIPE.replace("weightzoo/bench", "weightzoo/shares").replace("replicates: 16", "replicates: 6").replace(
        "  lr: [1e-2, 1e-4]", "  subset: [full, {frac: 0.5}, {label_noise_frac: 0.2}]"
    )  # fmt: skip
    zoo = built(text.replace("batch_size: 32", "batch_size: 32, lr: 1e-2"), tmp_path / "shares")
    assert {"subset_frac", "label_noise_frac"} <= set(targets.known(zoo))
    found = tasks.problem(zoo, ["subset_frac", "label_noise_frac"])
    assert not found.refused
    seen = np.unique(np.concatenate([found.train.targets.values, found.test.targets.values]), axis=0)
    assert seen.tolist() == [[0.5, 0.0], [1.0, 0.0], [1.0, 0.2]]
    for target in found.train.targets.of:
        assert found.train.view.recipe_without(target).column_names == ["activation"]


@pytest.mark.slow
def test_of_two_axes_that_a_zoo_alone_varies_each_combination_is_asked(bench_zoo, tmp_path, monkeypatch):
    """Widths of two parameterizations, say: a mixture of both would be about neither."""
    axes = "axes:\n  parameterization: [standard, mup]\n  batch_size: [16, 32]"
    text = RECIPE.replace("weightzoo/bench", "weightzoo/cells").replace("replicates: 16", "replicates: 3")
    text = text.replace("axes:", axes).replace(", batch_size: 32", "") + "splits: {test: 1.0}\nmup_base: 3\nseed: 1\n"
    asked = built(text, tmp_path / "weightzoo" / "cells")
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
    monkeypatch.setattr(task_splits, "MOST_LEVELS", 3)  # four combinations are too many then
    apart = tasks.problem(bench_zoo, ["test_accuracy"], others=[asked]).elsewhere
    assert sorted(w.removeprefix("weightzoo/cells/") for w in apart) == [
        "batch_size=16", "batch_size=32", "parameterization=mup", "parameterization=standard", "weightzoo/cells",
    ]  # fmt: skip
