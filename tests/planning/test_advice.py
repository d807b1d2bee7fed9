"""What a plan says of recipes whose authors may have meant something else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build

HEAD = "zoo: a/b\nsource: {id: digits, train: 60, validation: 30, test: 30}\ntraining: {epochs: 2}\n"
Said = Callable[[str], str]


@pytest.fixture
def said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Said:
    """What planning a recipe says."""

    def planned(text: str) -> str:
        caplog.clear()
        head = HEAD if "training:" not in text else HEAD.replace("training: {epochs: 2}\n", "")
        (tmp_path / "g.yaml").write_text(head + text)
        with caplog.at_level(logging.WARNING, "zoo_builder"):
            plan.plan(grid.load(tmp_path / "g.yaml"))
        return caplog.text

    return planned


def test_networks_to_which_what_varies_means_nothing_are_counted(said: Said) -> None:
    layers = "architecture: [[flatten, {linear: 4}, relu, {linear: classes}], [flatten, {linear: 4}, relu, dropout, {linear: classes}]]"
    text = said(f"axes: {{{layers}, dropout: [0.0, 0.5]}}\nreplicates: 4\npaired: [dropout]\n")
    assert (
        "4 models are trained again, alike: they have no layer that takes `dropout`, and differ from others along the axis `dropout` alone"
        in text
    )
    text = said(f"axes: {{{layers}, dropout: [0.0, 0.5]}}\nreplicates: 4\n")
    assert (
        "4 models differ from others by draws alone: they have no layer that takes `dropout`, and the axis `dropout` tells them apart"
        in text
    )
    assert "alike" not in text
    normed = layers.replace("dropout", "batch_norm")
    text = said(f"axes: {{{normed}, norm_scale_std: [0.0, 0.5]}}\nreplicates: 4\npaired: [norm_scale_std]\n")
    assert "4 models are trained again, alike: they have no layer that takes `norm_scale_std`" in text
    text = said(
        "axes: {trigger_frac: [0, 0.1], trigger_seed: [1, 2, 3]}\nsubset: {trigger_pattern: random, trigger_target: 0}\nreplicates: 4\npaired: [trigger_frac, trigger_seed]\n"
    )
    assert (
        "8 models are trained again, alike: they have no trigger, and differ from others along the axis `trigger_seed` alone"
        in text
    )
    assert "alike" not in said(
        "axes: {trigger_seed: [1, 2]}\nsubset: {trigger_frac: 0.1, trigger_pattern: random, trigger_target: 0}\nreplicates: 4\npaired: [trigger_seed]\n"
    )
    assert "no layer" not in said(
        "architecture: [flatten, dropout, {linear: classes}]\naxes: {dropout: [0.0, 0.5]}\nreplicates: 4\n"
    )


def test_an_axis_that_means_nothing_at_a_paired_level_makes_no_twins(said: Said) -> None:
    axes = "axes: {trigger_frac: [0, 0.1], trigger_target: [0, 1]}\nreplicates: 4\n"
    text = said(axes + "paired: [trigger_frac]\n")
    assert "`trigger_target` means nothing at some levels of `trigger_frac`" in text
    assert "write `paired: [trigger_frac, trigger_target]`" in text
    assert "twins" not in said(axes + "paired: [trigger_frac, trigger_target]\n")
    sample = "sample: {models: 20, axes: {trigger_frac: {uniform: [0.1, 0.2]}, trigger_target: {integer: [0, 9]}, lr: {log_uniform: [1e-3, 1e-2]}}, twins: {trigger_frac: 0}}\n"
    assert "`trigger_target` means nothing at some levels of `trigger_frac`" in said(
        sample + "paired: [trigger_frac]\n"
    )
    assert "twins" not in said(sample + "paired: [trigger_frac, trigger_target]\n")


def test_sides_that_are_far_from_their_shares_are_said(said: Said) -> None:
    """Constant starts of an architecture are one init group, which lies on one side whole."""
    text = said("axes: {init: [{constant: 0.1}, {normal: 0.1}], lr: [1e-2, 1e-3]}\nreplicates: 20\n")
    assert "splits are shares of 41 init groups, which differ in size: of 80 networks train " in text
    assert "init groups, which" not in said("axes: {lr: [1e-2, 1e-3]}\nreplicates: 20\n")


def test_schedules_of_more_snapshots_than_there_are_are_said(said: Said) -> None:
    training = "training: {steps: 6}\nreplicates: 3\nsnapshots: "
    assert "`log_steps` asks for 12 snapshots, and within 6 updates these are 7 different ones" in said(
        training + "{log_steps: 12}\n"
    )
    assert "`evenly` asks for 9 snapshots, and within 6 updates these are 7" in said(training + "{evenly: 9}\n")
    assert "different ones" not in said(training + "{evenly: 7}\n")
    stopped = "training: {epochs: 2, batch_size: 32, patience: 1}\nreplicates: 3\nsnapshots: {evenly: 7}\n"
    assert "different ones: a stop rule may end training, so that they lie at ends of epochs" in said(stopped)


def test_stop_rules_that_stop_nobody_are_said(said: Said) -> None:
    rule = "training: {{epochs: 6, {}}}\nreplicates: 3\n"
    assert "`patience` is 5, and training ends after 6 epochs: no network is stopped before" in said(
        rule.format("patience: 5")
    )
    assert "is stopped" not in said(rule.format("patience: 4"))
    assert "`stop_drops` is 5" in said(rule.format("stop_drops: 5"))
    text = said(rule.format("patience: 2, min_epochs: 6"))
    assert "`min_epochs` is 6" in text
    assert "`patience`" not in text
    assert "is stopped" not in said(rule.format("patience: 2, min_epochs: 5"))
    # Of several budgets one is long enough.
    assert "is stopped" not in said("training: {patience: 5}\naxes: {epochs: [2, 9]}\nreplicates: 3\n")


def test_stop_rules_that_look_at_classes_which_are_not_learned_are_said(said: Said) -> None:
    recipe = "axes: {{subset: [full, {{classes: [0, 1, 2]{}}}]}}\nreplicates: 4\ntraining: {{epochs: 9, patience: 2}}\n"
    text = said(recipe.format(""))
    assert "`patience` looks at validation examples of all classes, and 4 networks learn some of these alone" in text
    assert "learn some of these alone" not in said(recipe.format(", relabel: true"))


def test_classes_that_are_numbered_by_their_place_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set").mkdir()
    rows = [f"{i % 3 + 1},{i / 7},{i % 11}" for i in range(90)]
    (tmp_path / "set" / "train.csv").write_text("\n".join(["label,a,b", *rows]) + "\n")
    text = "zoo: a/b\nsource: {id: me/set, path: %s, train: 60, validation: 15, test: 15}\narchitecture: [{linear: classes}]\nreplicates: 4\n"
    subset = "subset: {classes: [1, 2], relabel: true}\n"
    (tmp_path / "g.yaml").write_text(text % (tmp_path / "set") + subset)
    with caplog.at_level(logging.WARNING, "zoo_builder"):
        plan.plan(grid.load(tmp_path / "g.yaml"))
    assert (
        "`classes: [1, 2]` are places among the classes of me/set (1, 2, 3), from 0 on: 2, 3; `class_names` takes their names"
        in caplog.text
    )
    assert "`trigger_target" not in caplog.text


def test_a_column_of_numbers_that_is_no_class_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set").mkdir()
    rows = [f"{3 * i + 1},{i / 7},{i % 11}" for i in range(200)]
    (tmp_path / "set" / "train.csv").write_text("\n".join(["label,a,b", *rows]) + "\n")
    text = "zoo: a/b\nsource: {id: me/set, path: %s, train: 150, validation: 25, test: 25}\narchitecture: [{linear: classes}]\nreplicates: 4\n"
    (tmp_path / "g.yaml").write_text(text % (tmp_path / "set"))
    with caplog.at_level(logging.WARNING, "zoo_builder"):
        plan.plan(grid.load(tmp_path / "g.yaml"))
    assert (
        "me/set has 200 classes, and most of them have one training example or none: is its label a class?"
        in caplog.text
    )


def test_attacks_that_nobody_learned_are_said(said: Said) -> None:
    counted = "snapshots: {epochs: [2], attack_per_class: true}\nreplicates: 3\n"
    assert "no network learns one: its columns will be empty" in said(counted)
    assert "empty" not in said(counted + "axes: {trigger_frac: [0, 0.1]}\nsubset: {trigger_target: 0}\n")


def test_children_that_are_not_what_their_parents_were_are_said(said: Said, tmp_path: Path) -> None:
    parents = HEAD.replace("a/b", "a/parents") + (
        "architecture: [flatten, {linear: 4}, activation, {linear: classes}]\naxes: {activation: [tanh, relu], lr: [1e-2, 1e-3]}\n"
        "replicates: 3\nsnapshots: {epochs: [0, 1, 2]}\n"
    )
    (tmp_path / "p.yaml").write_text(parents)
    build(plan.plan(grid.load(tmp_path / "p.yaml")), tmp_path / "parents", workers=0)
    layers = "architecture: [flatten, {linear: 4}, activation, {linear: classes}]\n"
    init = f"init: {{zoo: {tmp_path / 'parents'}, "
    text = said(layers + init + "epoch: 1}\n")
    assert (
        "`activation` is relu, the default, in 6 children, and was tanh in their parents; `init: {keep: [activation]}` keeps it"
        in text
    )
    assert "`lr` is 0.001, the default, in 6 children, and was 0.01 in their parents" in text
    assert "`init.models` is 17, and a/parents has 12: all of them go on" in said(
        layers + init + "epoch: 1, models: 17}\n"
    )
    assert "`lr`" not in said(layers + "training: {epochs: 2, lr: 1e-3}\n" + init + "epoch: 1}\n")
    kept = said(init + "epoch: 1, keep: [architecture, lr]}\n")
    assert "the default" not in kept
    twice = said(init + "keep: [architecture, lr]}\naxes: {init_snapshot: [1, -1, 2]}\n")
    assert "12 of 36 models start from a snapshot that another one starts from by another name" in twice
    gone = said(init + "keep: [architecture, lr]}\naxes: {init_epoch: [1, 1.5]}\n")
    assert "12 of 24 runs have no start" in gone
    assert "have no snapshot there; snapshots are at epochs 0, 1, 2" in gone


def test_networks_that_differ_in_more_than_a_setting_without_a_layer_are_no_repeats(said: Said) -> None:
    layers = "architecture: [[flatten, {linear: 4}, relu, {linear: classes}], [flatten, {linear: 4}, relu, dropout, {linear: classes}]]"
    assert "alike" not in said(f"axes: {{{layers}, dropout: [0.0, 0.5]}}\nreplicates: 4\n")  # of other first weights
    drawn = "sample: {models: 24, axes: {dropout: {uniform: [0, 0.5]}, lr: {log_uniform: [1e-3, 1e-2]}}}\n"
    assert "alike" not in said(f"axes: {{{layers}}}\n{drawn}")
