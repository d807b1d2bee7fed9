"""YAML → `Grid`: what is read, and every mistake with its file, line and way out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo_builder import grid
from zoo_builder.planning import runs
from zoo_builder.recipe import document, recipe_yaml, settings
from zoo_datasets.errors import GridError

Load = Callable[..., grid.Grid]
FULL = """\
zoo: weightzoo/full
description: Everything at once.
license: mit
source: {id: digits, train: 500, scale: unit}
architecture: [flatten, {linear: 8}, activation, dropout, {linear: classes}]
activation: tanh
dropout: 0.1
init: {normal: 0.1}
augmentation: {shift: 1}
subset: {frac: 0.5}
axes:
  lr: [1e-3, 1]
  optimizer: [adam, sgd]
replicates: {init: 2, order: 3}
paired: [lr]
training: {batch_size: 16, steps: 100, schedule: {kind: cosine, final_frac: 0.1}}
snapshots: {steps: [0, 100, 50, 50.0]}
splits: {test: 0.25, train: 0.75}
seed: 7
cohort_size: 4
limit: 9
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(text: str, *changes: str, limit: int | None = None) -> grid.Grid:
        path = tmp_path / "g.yaml"
        path.write_text(text, encoding="utf-8")
        return grid.load(path, changes, limit)

    return read


# --- what is read ----------------------------------------------------------------------


def test_a_recipe_needs_a_zoo_alone(load: Load) -> None:
    g = load("zoo: weightzoo/least\n")
    assert (g.zoo, g.axes, g.draws, g.sample_points, g.paired) == ("weightzoo/least", (), (), 0, ())
    assert (g.replicates, g.tied, g.seed, g.limit) == ({"init": 1, "order": 1, "subset": 1}, True, 0, None)
    assert g.fixed["epochs"] == 5
    assert (g.fixed["source"], g.fixed["architecture"], g.fixed["optimizer"]) == ("digits", "mlp", "adam")
    assert g.splits == {"train": 0.7, "validation": 0.15, "test": 0.15}
    assert g.snapshots.to_json() == {"epochs": [0.0]}


def test_everything_is_read_in_its_own_type(load: Load) -> None:
    g = load(FULL)
    fixed = {
        "source": "digits", "source_train": 500, "scale": "unit", "activation": "tanh", "dropout": 0.1,
        "init_kind": "normal", "init_std": 0.1, "augment_shift": 1, "subset_frac": 0.5, "batch_size": 16, "steps": 100,
        "epochs": None, "schedule_kind": "cosine", "schedule_final_frac": 0.1,
    }  # fmt: skip
    assert {name: g.fixed[name] for name in fixed} == fixed
    assert set(g.fixed) == set(settings.SETTINGS)
    assert [(a.name, [lv.label for lv in a.levels]) for a in g.axes] == [
        ("lr", ["0.001", "1.0"]), ("optimizer", ["adam", "sgd"]),
    ]  # fmt: skip
    assert (g.replicates, g.tied) == ({"init": 2, "order": 3, "subset": 1}, False)
    assert (g.paired, g.seed, g.cohort_size, g.limit) == (("lr",), 7, 4, 9)
    assert g.snapshots.to_json() == {"steps": [0, 50, 100]}
    assert list(g.splits.items()) == [("train", 0.75), ("test", 0.25)]
    assert g.axis_names == ("lr", "optimizer")


def test_a_source_may_be_its_id_alone(load: Load) -> None:
    assert load("zoo: a/b\nsource: iris\n").fixed["source"] == "iris"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every_epoch", {"every_epoch": True}), ("{every_epoch: true}", {"every_epoch": True}),
        ("{epochs: [2, 0, 0.5, 2.0]}", {"epochs": [0.0, 0.5, 2.0]}), ("{steps: [0, 10.0]}", {"steps": [0, 10]}),
        ("{evenly: 20}", {"evenly": 20}), ("{log_steps: 8}", {"log_steps": 8}),
    ],
)  # fmt: skip
def test_snapshot_schedules(load: Load, text: str, expected: dict[str, Any]) -> None:
    assert load(f"zoo: a/b\nsnapshots: {text}\n").snapshots.to_json() == expected


def test_a_sample_is_read(load: Load) -> None:
    g = load(
        "zoo: a/b\nsample:\n  models: 40\n  axes:\n    lr: {log_uniform: [1e-4, 1]}\n    dropout: {uniform: [0, 0.5]}\n"
        "    batch_size: {integer: [8, 64]}\n    activation: [relu, tanh]\n    subset: {choice: [full, {frac: 0.5}]}\n"
    )
    assert (g.sample_points, g.axes) == (40, ())
    assert [(d.name, d.kind, d.low, d.high, [lv.label for lv in d.levels]) for d in g.draws] == [
        ("lr", "log_uniform", 1e-4, 1.0, []), ("dropout", "uniform", 0.0, 0.5, []), ("batch_size", "integer", 8, 64, []),
        ("activation", "choice", 0, 0, ["relu", "tanh"]), ("subset", "choice", 0, 0, ["full", "frac=0.5"]),
    ]  # fmt: skip
    assert g.axis_names == ("lr", "dropout", "batch_size", "activation", "subset")


# --- mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Names.
        ("axis: {lr: [1]}", r"Unknown key 'axis' in g\.yaml, line 2\. Known: .*Did you mean `axes`\?"),
        ("axes:\n  lr: [1e-3]\n  weigth_decay: [0]", r"Unknown axis 'weigth_decay' in g\.yaml, line 4\..*Did you mean `weight_decay`\?"),
        ("axes:\n  optimizer:\n  - adam\n  - adamm", r"Unknown optimizer 'adamm' in g\.yaml, line 5\..*Did you mean `adam`\?"),
        ("axes: {source_test: [10]}", "Unknown axis 'source_test'"),  # a setting, and no axis
        ("training:\n  lrr: 3", r"Unknown key of `training` 'lrr' in g\.yaml, line 3\..*Did you mean `lr`\?"),
        ("source: {id: digits, trian: 3}", r"Unknown key of `source` 'trian' in g\.yaml, line 2.*Did you mean `train`\?"),
        ("init: {kind: normal, sdt: 3}", r"Unknown key of `init` 'sdt' in g\.yaml, line 2.*Did you mean `std`\?"),
        ("activation: rleu", r"Unknown activation 'rleu' in g\.yaml, line 2.*Did you mean `relu`\?"),
        ("axes: {lr: [1]}\npaired: [lrr]", r"Unknown axis 'lrr' in g\.yaml, line 3\. Known: lr\. Did you mean `lr`\?"),
        ("paired: [lr]", r"Unknown axis 'lr' in g\.yaml, line 2\. Known: none\."),
        ("replicates: {inti: 3}", r"Unknown stream of `replicates` 'inti' in g\.yaml, line 2.*Did you mean `init`\?"),
        ("snapshots: {epoch: [1]}", r"Unknown snapshot schedule 'epoch' in g\.yaml, line 2.*Did you mean `epochs`\?"),
        ("splits: {train: 0.5, valid: 0.5}", r"Unknown split 'valid' in g\.yaml, line 2. Known: test, train, validation"),
        # Types.
        ("axes: [lr]", r"g\.yaml, line 2: `axes` is \['lr'\]; a mapping is needed"),
        ("training: 3", "line 2: `training` is 3; a mapping is needed"),
        ("source: 3", "line 2: `source` is 3; a mapping is needed"),
        ("axes: {lr: 1e-3}", r"line 2: axis `lr` is 0\.001; a list of levels is needed, like \[1e-3, 1e-4\]"),
        ("axes: {lr: []}", r"axis `lr` is \[\]; a list of levels is needed"),
        ("axes: {lr: null}", "axis `lr` is None; a list of levels is needed"),
        ("axes:\n  lr:\n    - fast", "line 4: `lr` is 'fast'; a number is needed"),
        ("training: {epochs: 2.5}", r"line 2: `epochs` is 2\.5; a whole number is needed"),
        ("seed: -1", "line 2: `seed` is -1; a whole number ≥ 0 is needed"),
        ("seed: null", "line 2: `seed` is None; a whole number ≥ 0 is needed"),
        ("cohort_size: 0", "line 2: `cohort_size` is 0; a whole number ≥ 1 is needed"),
        ("limit: true", "line 2: `limit` is True; a whole number ≥ 1 is needed"),
        ("paired: 3", r"line 2: `paired` is 3; a list of axes is needed, like \[subset\]"),
        ("paired: {lr: 1}", "a list of axes is needed"),
        ("description: [a]", r"line 2: `description` is \['a'\]; text is needed"),
        ("license: 3", r"line 2: `license` is 3; a name like cc-by-4\.0 is needed"),
        ('license: "a\\nb: c"', "a name like cc-by-4.0 is needed"),
        # Levels.
        ("axes: {lr: [1, 1.0]}", r"line 2: level 1\.0 of `lr` is there already \(both are 1\.0\)"),
        ("axes:\n  subset:\n    - full\n    - {frac: 1}", r"line 5: level \{'frac': 1\} of `subset` is there already \(both are full\)"),
        ("axes: {lr: [0.0, -0.0]}", "is there already"),
        ("axes:\n  source: [{train: 10}]", "line 3: a level of `source` needs its `id`"),
        ("axes:\n  subset: [full]\n  subset_frac: [1, 0.5]", "line 4: axes `subset` and `subset_frac` set the same thing"),
        ("axes:\n  init_std: [1]\n  init: [normal]", "line 4: axes `init_std` and `init` set the same thing"),
        ("axes:\n  source: [{id: digits, train: 9}]\n  source_train: [9]", "axes `source` and `source_train` set the same"),
        ("sample: {models: 3, axes: {subset: [full], subset_frac: [1]}}", "line 2: axes `subset` and `subset_frac` set the same"),
        # Zero models.
        ("replicates: 0", r"line 2: `replicates` is 0; a whole number ≥ 1"),
        ("lr: 1e-3", r"line 2: `lr` stands inside a block: `training: \{lr: …\}`"),
        ("schedule: cosine", r"line 2: `schedule` stands inside a block: `training: \{schedule: …\}`"),
        ("axes: {training.lr: [1, 2]}", "line 2: the axis of `training.lr` is called `lr`"),
        ("training: {lr: [1e-2, 1e-3]}", r"`lr` is a list; several values are an axis: `axes: \{lr: \[0\.01, 0\.001\]\}`"),
        ("training: {target_loss: -1}", "line 2: `target_loss` is -1, and no loss is below 0"),
        ("replicates: {init: 0}", "`replicates` is 0; a whole number"),
        ("replicates: 1.5", r"`replicates` is 1\.5"),
        ("replicates: null", "`replicates` is None"),
        # Sample.
        ("axes: {lr: [1]}\nsample: {models: 3, axes: {lr: [1]}}", r"line 3: axes `lr` and `lr` set the same thing"),
        ("axes: {dropout: [0, 0.5]}\nsample: {models: 3, axes: {lr: [1, 2]}}", r"line 3: `models` is 3, and `axes` cross to 2 points, .* a multiple of 2 is needed, like 4"),
        ("sample: {modles: 3}", r"Unknown key of `sample` 'modles' in g\.yaml, line 2.*Did you mean `models`\?"),
        ("sample: {axes: {lr: [1]}}", "line 2: `sample` needs `models`, a whole number ≥ 1; got None"),
        ("sample: {models: 0, axes: {lr: [1]}}", "got 0"),
        ("sample: {models: 3}", r"`sample` needs `axes`, like \{lr: \{log_uniform"),
        ("sample: {models: 3, axes: {rl: [1]}}", r"Unknown axis 'rl' in g\.yaml, line 2"),
        ("sample: {models: 3, axes: {lr: 3}}", "`lr` is 3; one of choice, uniform, log_uniform, integer is needed"),
        ("sample: {models: 3, axes: {lr: {normal: [0, 1]}}}", "Unknown distribution 'normal' in g.yaml, line 2. Known: choice"),
        ("sample: {models: 3, axes: {lr: {uniform: 3}}}", r"`uniform` needs \[low, high\], got 3"),
        ("sample: {models: 3, axes: {clip_norm: {uniform: [null, 1]}}}", r"`uniform` needs \[low, high\], got \[None, 1\]"),
        ("sample: {models: 3, axes: {lr: {uniform: [1, 1]}}}", r"`uniform: \[1\.0, 1\.0\]` needs low < high\."),
        ("sample: {models: 3, axes: {lr: {log_uniform: [0, 1]}}}", "needs low < high, both above 0"),
        ("sample: {models: 3, axes: {dropout: {uniform: [0, 2]}}}", "`dropout` is 2; a number ≥ 0 and ≤ 0.999"),
        ("sample: {models: 3, axes: {batch_size: {uniform: [1, 9]}}}", "`batch_size` cannot be drawn uniform; use `choice`"),
        ("sample: {models: 3, axes: {lr: {integer: [1, 9]}}}", "`lr` cannot be drawn integer; use `choice`"),
        ("sample: {models: 3, axes: {subset: {uniform: [0, 1]}}}", "`subset` cannot be drawn uniform"),
        ("sample:\n  models: 3\n  axes:\n    lr:\n      choice:\n        - 1\n        - x", "line 8: `lr` is 'x'"),
        ("sample:\n  models: 3\n  axes:\n    lr:\n      - 1\n      - x", "line 7: `lr` is 'x'"),
        # Snapshots.
        ("snapshots: 3", "line 2: `snapshots` is 3; one of epochs, steps, log_steps, evenly, every_epoch is needed"),
        ("snapshots: {epochs: [1], steps: [1]}", "one of epochs, steps"),
        ("snapshots: {epochs: 3}", r"`epochs` is 3; a list of numbers ≥ 0 is needed, like \[0, 1, 2, 5\]"),
        ("snapshots: {epochs: []}", r"`epochs` is \[\]; a list of numbers"),
        ("snapshots: {epochs: [-1]}", "a list of numbers ≥ 0"),
        ("snapshots: {steps: [1.5]}", "a list of numbers ≥ 0"),
        ("snapshots: {steps: [true]}", "a list of numbers ≥ 0"),
        ("snapshots: {evenly: 1}", "`evenly` is 1; a number of snapshots ≥ 2 is needed"),
        ("snapshots: evenly", "`evenly` is True; a number of snapshots ≥ 2"),
        ("snapshots: {every_epoch: 5}", "`every_epoch` is 5; write `snapshots: every_epoch`, or list `epochs`"),
        # Splits.
        ("splits: {train: 0.7, test: 0.2}", r"line 2: the splits add up to 0\.9; they must add up to 1"),
        ("splits: {train: 1.2}", r"split `train` is 1\.2; a share in \(0, 1\] is needed"),
        ("splits: {train: 1, test: 0}", r"split `test` is 0; a share in \(0, 1\]"),
        ("splits: {train: true}", "split `train` is True"),
        ("splits: 0.5", r"`splits` is 0\.5; shares are needed, like \{train: 0\.7, test: 0\.3\}"),
        ("splits: {}", "shares are needed"),
        # Budget.
        ("training: {epochs: 3, steps: 5}", "line 2: the budget is given in epochs and steps; give one of them"),
        ("training: {examples: 3}\naxes: {epochs: [3]}", "the budget is given in epochs and examples"),
        ("axes: {epochs: [1], steps: [2]}", "the budget is given in epochs and steps"),
        ("axes:\n  epochs: [null, 3]", "line 3: a level of `epochs` is null; a budget is needed"),
        ("sample: {models: 3, axes: {steps: [null, 3]}}", "line 2: a level of `steps` is null"),
        # Inits.
        ("init: constant", r"line 2: init `constant` needs its value: `\{constant: 0\.1\}`"),
        ("axes:\n  init: [normal, constant, {constant: 1}]", "line 3: init `constant` needs its value"),
        ("axes:\n  init_kind: [normal, constant]", "line 3: init `constant` needs its value"),
        ("sample: {models: 3, axes: {init: [constant]}}", "line 2: init `constant` needs its value"),
        ("init: {kind: uniform, low: 1}", "init `uniform` has one of `low` and `high`; give both or neither"),
        ("init: {uniform: [1, -1]}", r"init `uniform: \[1\.0, -1\.0\]` needs low < high"),
        ("init: {uniform: [0, 1]}\naxes: {init_high: [1, 0]}", r"init `uniform: \[0\.0, 0\.0\]` needs low < high"),
        ("init: {uniform: [0, 1]}\nsample: {models: 3, axes: {init_low: {uniform: [0, 2]}}}", "needs low < high"),
        # The maximal update parameterization.
        ("parameterization: mup", "line 2: `mup` needs the width of its base, units of the first layer: `mup_base: 16`"),
        ("axes:\n  parameterization: [standard, mup]", "line 3: `mup` needs the width of its base"),
        ("mup_base: 16", "line 2: `mup_base` is given, but nothing in this recipe uses it: it is for `parameterization` mup"),
        ("parameterization: mup\naxes: {mup_base: [8, null]}", "line 2: `mup` needs the width of its base"),
        ("parameterization: mup\nmup_base: 0", "line 3: `mup_base` is 0; a number ≥ 1"),
        ("parameterization: muP", "Unknown parameterization 'muP' in g.yaml, line 2. Known: mup, standard"),
        ("parameterization: mup\nmup_base: 8\ninit: {constant: 1}", "line 2: `mup` scales weights that are drawn about 0, and those of "
         "init `constant` are not; take an init that is, or `parameterization: standard`"),
        ("parameterization: mup\nmup_base: 8\ninit: {uniform: [0, 1]}", "line 2: `mup` scales .* init `uniform` are not"),
        ("parameterization: mup\nmup_base: 8\ninit: {normal: [1, 2]}", "line 2: `mup` scales .* init `normal` are not"),
        ("parameterization: mup\nmup_base: 8\ninit: {kind: normal, last: {uniform: [-1, 2]}}", "init `uniform` are not"),
        ("mup_base: 8\naxes:\n  parameterization: [standard, mup]\n  init: [normal, {normal: [1, 2]}]", "line 4: `mup` scales .* init `normal`"),
    ],
    ids=lambda v: v[:40],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(load: Load, text: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(f"zoo: a/b\n{text}\n")


@pytest.mark.parametrize(
    "zoo", ["", "zoo: mnist\n", "zoo: a/b/c\n", "zoo: ../b\n", "zoo: a/.b\n", "zoo: 3\n", 'zoo: "a/b\\n"\n']
)
def test_a_zoo_is_owner_and_name(load: Load, zoo: str) -> None:
    with pytest.raises(GridError, match=r"`zoo` is .*; it must be owner/name, like weightzoo/mnist-cnn"):
        load(zoo + "seed: 1\n")


@pytest.mark.parametrize("zoo", ["a/" + "b" * 97, "a" * 97 + "/b", "a/b--c", "a/b..c", "a/b.git", "a/b-", "a/b."])
def test_a_zoo_has_a_name_that_can_be_published(load: Load, zoo: str) -> None:
    with pytest.raises(GridError, match=r"the Hub takes no such name: at most 96 characters, without `--`"):
        load(f"zoo: {zoo}\n")
    assert load(f"zoo: a/{'b' * 96}\n").zoo == f"a/{'b' * 96}"


def test_a_recipe_is_a_mapping(load: Load) -> None:
    with pytest.raises(GridError, match=r"g\.yaml holds a list; a recipe is a mapping"):
        load("- zoo\n")


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"Cannot read the grid .*absent\.yaml: No such file.*--grid"):
        grid.load(tmp_path / "absent.yaml")
    with pytest.raises(GridError, match="Is a directory"):
        grid.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "init: {uniform: [-1, 1]}", "init: {kind: uniform}", "init: {kind: constant, value: 0}",
        "init: {constant: 1}\naxes: {init_value: [0, 1]}", "axes: {init_kind: [constant, normal], init_value: [1]}",
        "axes: {init: [constant, normal]}\nlimit: 3".replace("constant,", "{constant: 2},"),
        "init: {kind: normal}\nsample: {models: 3, axes: {init_std: {uniform: [0, 1]}}}", "axes: {clip_norm: [null, 1]}", "axes: {}", "axes:",
        "parameterization: mup\nmup_base: 8", "mup_base: 8\naxes: {parameterization: [standard, mup], init: [normal, {uniform: [-2, 2]}, {normal: [0, 2]}]}",
        "parameterization: standard\ninit: {constant: 1}", "parameterization: mup\naxes: {mup_base: [8, 16], width: [8, 16]}\narchitecture: unterthiner",
        "description: null", "license: cc-by-4.0", "training: {schedule: cosine}", "splits: {train: 1}",
    ],
)  # fmt: skip
def test_what_is_allowed_is_not_refused(load: Load, text: str) -> None:
    load(f"zoo: a/b\n{text}\n")


# --- --set and --limit -----------------------------------------------------------------


@pytest.mark.parametrize("change", ["training.lr=1e-2", "lr=0.01", "lr= 0.01 "])
def test_set_takes_a_path_or_a_bare_name(load: Load, change: str) -> None:
    g = load("zoo: a/b\n", change)
    assert g.fixed["lr"] == 0.01
    assert g.document["training"] == {"lr": 0.01}


def test_set_changes_anything_of_the_recipe(load: Load) -> None:
    g = load(FULL, "axes.lr=[1, 2, 3]", "replicates=5", "zoo=c/d", "paired=[]", "snapshots.steps=[7]", "limit=")
    assert [len(a.levels) for a in g.axes] == [3, 2]
    assert (g.zoo, g.replicates["init"], g.paired, g.snapshots.to_json(), g.limit) == (
        "c/d",
        5,
        (),
        {"steps": [7]},
        None,
    )


def test_the_last_of_two_changes_counts(load: Load) -> None:
    assert load("zoo: a/b\n", "lr=1", "training.lr=2").fixed["lr"] == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lr", r"--set 'lr': write it as path=value, for example --set training\.epochs=2"),
        ("=3", "write it as path=value"),
        ("lrr=3", r"Unknown setting 'lrr' in --set\..*Did you mean `lr`\?"),
        ("training.lrr=3", r"Unknown key of `training` 'lrr' in --set training\.lrr\..*Did you mean `lr`\?"),
        ("trianing.lr=3", r"Unknown key 'trianing' in --set trianing.*Did you mean `training`\?"),
        ("axes.rl=[1]", r"Unknown axis 'rl' in --set axes\.rl"),
        ("lr=fast", r"--set training\.lr: `lr` is 'fast'; a number is needed"),
        ("training.batch_size=0", r"--set training\.batch_size: `batch_size` is 0"),
        ("lr=", r"--set training\.lr: `lr` is None"),
        ("lr=[1", "--set lr, line 1: this is not YAML"),
        ("lr=!x 1", "--set lr, line 1: the tag '!x' is refused"),
        ("architecture.conv=3", r"--set 'architecture\.conv=3': `architecture` is \[.*\] in the recipe, so nothing can be set"),
        ("replicates=0", "--set replicates: `replicates` is 0; a whole number"),
        ("axes={}", r"Unknown axis 'lr' in g\.yaml, line 15"),  # paired still names it
    ],
)  # fmt: skip
def test_a_change_that_is_wrong_is_named(load: Load, change: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(FULL, change)


def test_a_limit_that_no_recipe_can_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("zoo: a/b\n")
    with pytest.raises(GridError, match="--limit 9223372036854775808: whole numbers have 64 bits"):
        grid.load(tmp_path / "g.yaml", limit=2**63)


def test_the_recipe_of_a_sealed_zoo_may_say_what_makes_no_difference(tmp_path: Path) -> None:
    """It was accepted when the zoo was built, and `verify` reads it."""
    for text in (
        "evaluation: {augmented: true}",
        "training: {target_loss: -1}",
        "axes: {momentum: [0.5, 0.9], lr: [1, 2]}",
    ):
        (tmp_path / "grid.yaml").write_text(f"zoo: a/b\nreplicates: 9\n{text}\n")
        (tmp_path / "manifest.json").write_text('{"format_version": 1}')
        grid.load(tmp_path / "grid.yaml")
        (tmp_path / "manifest.json").unlink()
        with pytest.raises(GridError, match=r"is given, but no|no loss is below 0|makes no difference"):
            grid.load(tmp_path / "grid.yaml")


def test_a_manifest_of_another_program_beside_a_grid_makes_no_zoo(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("zoo: a/b\nsource: {id: a/table, path: data, label_column: y}\nreplicates: 9\n")
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    grid.load(tmp_path / "g.yaml")
    (tmp_path / "manifest.json").write_text('{"format_version": 1}')
    with pytest.raises(GridError, match="names no place"):
        grid.load(tmp_path / "g.yaml")


def test_limit_is_part_of_the_recipe(load: Load) -> None:
    g = load(FULL, limit=3)
    assert (g.limit, g.document["limit"]) == (3, 3)
    assert g.digest != load(FULL).digest
    assert load(FULL, "limit=3").digest == g.digest
    with pytest.raises(GridError, match=r"--limit 0: at least 1 model is needed"):
        load(FULL, limit=0)
    with pytest.raises(GridError, match=r"--limit 3 and --set limit say both how many models are built"):
        load(FULL, "limit=2", limit=3)


def test_the_document_loads_as_the_same_grid(load: Load) -> None:
    g = load(
        FULL, "weight_decay=8e-1", "batch_size=24", "description='1e-3'", "axes.label_noise_frac=[0, 5e-1]", limit=5
    )
    again = load(recipe_yaml.dump(dict(g.document)))
    assert again.digest == g.digest
    assert again == g
    assert [r.id for r in runs.of(again)] == [r.id for r in runs.of(g)]


def test_the_digest_is_blind_to_order_and_comments_alone(load: Load) -> None:
    digest = load("zoo: a/b\nseed: 1\n").digest
    assert load("# a comment\nseed: 1\nzoo: a/b\n").digest == digest
    assert load("zoo: a/b\nseed: 2\n").digest != digest


def test_difference_names_what_two_recipes_disagree_about(load: Load) -> None:
    ours, theirs = load(FULL).document, load(FULL, "training.batch_size=8", "seed=1").document
    assert document.difference(ours, theirs) == "`training.batch_size` is 8 there, 16 here; `seed` is 1 there, 7 here"
    assert document.difference(ours, ours) == ""
    assert document.difference({"z": 1, "a": 1}, {"z": 1}) == "`a` is absent there, 1 here"
    assert document.difference({"a": None}, {"a": {}}) == "`a` is {} there, none here"
    assert (
        document.difference({"z": 1, "a": None}, {"z": 1.0})
        == "`z` is 1.0 there, 1 here; `a` is absent there, none here"
    )
    many = document.difference({str(i): i for i in range(8)}, {"0": 0})
    assert many.endswith("; and 2 more")


def test_a_grid_cannot_be_changed(load: Load) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load("zoo: a/b\n").seed = 3  # type: ignore[misc]


def test_a_setting_that_nothing_uses_is_refused(load: Load) -> None:
    with pytest.raises(
        GridError,
        match="line 2: `momentum` is given, but nothing in this recipe uses it: it is for `optimizer` momentum or nesterov",
    ):
        load("zoo: a/b\ntraining: {optimizer: sgd, momentum: 0.9}\n")
    assert load("zoo: a/b\ntraining: {momentum: 0.5}\naxes: {optimizer: [sgd, momentum]}\n").fixed["momentum"] == 0.5


def test_a_setting_that_an_axis_overrides_is_refused(load: Load) -> None:
    with pytest.raises(
        GridError, match=r"--set training\.lr: `lr` is fixed here and varied by axis `lr`; keep one of them"
    ):
        load("zoo: a/b\naxes: {lr: [1, 2]}\n", "lr=3")
    with pytest.raises(GridError, match="`subset_frac` is fixed here and varied by axis `subset`"):
        load("zoo: a/b\nsubset: {frac: 0.5}\naxes: {subset: [full, {classes: [0, 1]}]}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "axes: {dropout: [0.1, 0.5]}\narchitecture: [flatten, {linear: classes}]\n",
            "has a layer `dropout` that takes it",
        ),
        ("activation: tanh\narchitecture: [flatten, {linear: classes}]\n", "has a layer `activation` that takes it"),
        (
            "axes: {subset: [full, {trigger_target: 1}]}\n",
            "`trigger_target` needs a `trigger_frac` above 0 in the same level",
        ),
        ("subset: {trigger_size: 2}\n", "`trigger_size` is given, but no `trigger_frac` above 0"),
        ("training: {min_epochs: 2}\n", "`min_epochs` needs one of `target_loss`, `patience`"),
        ("axes: {init: [{kind: normal, low: 3}]}\n", "`init_low` is for `init_kind` uniform; this level has normal"),
    ],
)
def test_what_would_have_no_effect_is_refused(load: Load, text: str, message: str) -> None:
    with pytest.raises(GridError, match=re.escape(message)):
        load("zoo: a/b\n" + text)


def test_a_difference_is_not_in_the_order_of_keys() -> None:
    assert document.difference({"a": [{"x": 1, "y": 2}]}, {"a": [{"y": 2, "x": 1}]}) == ""
