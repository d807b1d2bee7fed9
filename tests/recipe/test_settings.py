"""The table of settings: every one reachable, every value in its type, every label canonical."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from zoo_builder.recipe import settings
from zoo_builder.recipe.levels import expand, flatten, label
from zoo_builder.recipe.settings import SETTINGS
from zoo_builder.recipe.values import coerce
from zoo_datasets.errors import GridError

DEFAULTS = {name: s.default for name, s in SETTINGS.items()}


def labelled(axis: str, level: Any) -> str:
    return label(axis, DEFAULTS | expand(axis, level, "here"))


# --- the table -------------------------------------------------------------------------


def test_names_and_paths_are_unique() -> None:
    assert len(SETTINGS) == len(settings.BY_PATH) == len(settings._TABLE)
    assert not set(settings.COMPOSITES) & set(SETTINGS)
    assert len(set(settings.AXES)) == len(settings.AXES)


@pytest.mark.parametrize("setting", settings._TABLE, ids=lambda s: s.name)
def test_every_default_is_a_value_of_its_own_setting(setting: settings.Setting) -> None:
    found = coerce(setting, setting.default, "here")
    assert found == setting.default
    assert type(found) is type(setting.default)
    assert setting.doc
    pa.array([list(found) if isinstance(found, tuple) else found], setting.type)
    assert bool(setting.choices) == (setting.kind == "choice")


def test_columns_have_the_type_of_their_setting() -> None:
    kinds = {"lr": pa.float64(), "batch_size": pa.int64(), "augment_flip": pa.bool_(), "optimizer": pa.string(),
             "subset_classes": pa.list_(pa.int64()), "source_mean": pa.list_(pa.float64()), "architecture": pa.string(),
             "source": pa.string()}  # fmt: skip
    assert {name: SETTINGS[name].type for name in kinds} == kinds


def test_composites_have_settings_and_data_axes_are_those_of_the_subset() -> None:
    for block in settings.COMPOSITES.values():
        assert any(path.startswith(block + ".") for path in settings.BY_PATH)
    assert {"subset", "subset_frac", "label_noise_frac", "trigger_frac"} <= settings.DATA_AXES
    assert not {"lr", "init", "source"} & settings.DATA_AXES


# --- values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", 1, 1.0), ("batch_size", 32.0, 32), ("lr", -0.0, 0.0), ("source_mean", 0.5, (0.5,)),
        ("source_mean", [0, 1], (0.0, 1.0)), ("subset_classes", [3, 1], (3, 1)), ("subset_classes", 3, (3,)),
        ("augment_flip", True, True), ("label_column", 0, "0"), ("optimizer", "adam", "adam"), ("clip_norm", None, None), ("resize", None, None),
        ("architecture", "small-cnn", "small-cnn"), ("architecture", ["flatten"], ["flatten"]),
    ],
)  # fmt: skip
def test_a_value_is_coerced_to_its_type(name: str, value: Any, expected: Any) -> None:
    found = coerce(SETTINGS[name], value, "here")
    assert repr(found) == repr(expected)  # 1 is not 1.0, −0.0 not 0.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", "fast", r"here: `lr` is 'fast'; a number is needed"),
        ("lr", True, "`lr` is True; a number is needed"),
        ("lr", None, "`lr` is None; a number is needed"),
        ("lr", -1e-3, r"`lr` is -0\.001; a number ≥ 0 is needed"),
        ("lr", float("inf"), "`lr` is inf; a number is needed"),
        ("lr", [1e-3], r"`lr` is a list; several values are an axis: `axes: \{lr: \[0\.001\]\}`"),
        ("momentum", 1.5, r"`momentum` is 1\.5; a number ≥ 0 and ≤ 1 is needed"),
        ("dropout", 1, r"`dropout` is 1; a number ≥ 0 and ≤ 0\.999 is needed"),
        ("batch_size", 0, "`batch_size` is 0; a number ≥ 1 is needed"),
        ("batch_size", 2.5, r"`batch_size` is 2\.5; a whole number is needed"),
        ("steps", 1e300, r"`steps` is 1e\+300; a whole number of 64 bits is needed"),
        ("augment_flip", 1, "`augment_flip` is 1; `true` or `false` is needed"),
        ("augment_flip", "yes", "`augment_flip` is 'yes'; `true` or `false` is needed"),
        ("subset_classes", [], r"`subset_classes` is \[\]; a list of numbers is needed"),
        ("subset_classes", "cat", "`subset_classes` is 'cat'; a list of numbers is needed"),
        ("subset_classes", [1, 1], "a list without repeats is needed"),
        ("subset_classes", [1, 1.0], "a list without repeats is needed"),
        ("subset_classes", [1.5], r"`subset_classes` is 1\.5; a whole number is needed"),
        ("source_mean", [None], "`source_mean` is None; a number is needed"),
        ("optimizer", 3, "Unknown optimizer '3'"),
        ("label_column", 0.1, """`label_column` is 0.1; a name in quotes, '"0.1"', is needed"""),
        ("source", "", "`source` is ''; a name is needed"),
        ("optimizer", "adm", r"Unknown optimizer 'adm' in here\. Known: adam, .*Did you mean `adam`\?"),
        ("trigger_position", "top", "Unknown trigger_position 'top'.*Known: bottom_left"),
        ("architecture", "small_cnn", r"Unknown architecture preset 'small_cnn' in here.*Did you mean `small-cnn`\?"),
        ("architecture", [], r"`architecture` is \[\]; a preset's name or a list of layers is needed"),
        ("architecture", {"conv": 8}, "a preset's name or a list of layers is needed"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_range_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(GridError, match=message):
        coerce(SETTINGS[name], value, "here")


# --- levels ----------------------------------------------------------------------------


def test_a_bare_axis_sets_itself() -> None:
    assert expand("lr", 1, "here") == {"lr": 1.0}


def test_a_source_level_sets_what_it_names() -> None:
    assert expand("source", "iris", "here") == {"source": "iris"}
    assert expand("source", {"id": "iris", "train": 50}, "here") == {"source": "iris", "source_train": 50}
    with pytest.raises(GridError, match="here: a level of `source` needs its `id`"):
        expand("source", {"train": 50}, "here")


@pytest.mark.parametrize(
    ("axis", "level", "changed"),
    [
        ("subset", "full", {}), ("subset", "all", {}), ("subset", {}, {}), ("augmentation", "none", {}),
        ("subset", {"frac": 0.5}, {"subset_frac": 0.5}), ("subset", {"subset_frac": 0.5}, {"subset_frac": 0.5}),
        ("subset", {"classes": [0, 1], "relabel": True}, {"subset_classes": (0, 1), "subset_relabel": True}),
        ("init", "normal", {"init_kind": "normal"}),
        ("init", {"normal": None}, {"init_kind": "normal"}),
        ("init", {"normal": 0.05}, {"init_kind": "normal", "init_std": 0.05}),
        ("init", {"normal": [1, 0.05]}, {"init_kind": "normal", "init_mean": 1.0, "init_std": 0.05}),
        ("init", {"uniform": [-1, 1]}, {"init_kind": "uniform", "init_low": -1.0, "init_high": 1.0}),
        ("init", {"constant": 0.1, "bias": 0}, {"init_kind": "constant", "init_value": 0.1, "init_bias": 0.0}),
        ("init", {"kind": "normal", "std": 0.1}, {"init_kind": "normal", "init_std": 0.1}),
        ("schedule", "cosine", {"schedule_kind": "cosine"}),
        ("schedule", {"kind": "step", "gamma": 0.1}, {"schedule_kind": "step", "schedule_gamma": 0.1}),
        ("augmentation", {"shift": 2, "flip": True}, {"augment_shift": 2, "augment_flip": True}),
    ],
)  # fmt: skip
def test_a_composite_level_says_everything_about_its_block(axis: str, level: Any, changed: dict[str, Any]) -> None:
    block = settings.COMPOSITES[axis]
    defaults = {s.name: s.default for s in settings._TABLE if s.path.startswith(block + ".")}
    assert expand(axis, level, "here") == defaults | changed


@pytest.mark.parametrize(
    ("axis", "level", "message"),
    [
        ("subset", "half", r"here: a level of `subset` is a mapping, got 'half'"),
        ("subset", None, "a level of `subset` is a mapping, got None"),
        ("subset", {"fraction": 0.5}, r"Unknown key of `subset` 'fraction' in here\. Known: .*Did you mean `frac`\?"),
        ("subset", {"frac": 2}, "`subset_frac` is 2; a number ≥ 0 and ≤ 1"),
        ("init", "xavier", "Unknown init_kind 'xavier' in here. Known: constant, glorot_normal"),
        ("init", {"uniform": 3}, r"`uniform: 3` is not an init\. Write `\{uniform: \[low, high\]\}`"),
        ("init", {"orthogonal": 3}, "`orthogonal: 3` is not an init"),
        ("init", {"normal": [1, 2, 3]}, r"`normal: \[1, 2, 3\]` is not an init"),
        ("init", 3, "a level of `init` is a mapping, got 3"),
        ("schedule", "cosin", r"Unknown schedule_kind 'cosin'.*Did you mean `cosine`\?"),
        ("augmentation", {"rotat": 3}, "Unknown key of `augmentation` 'rotat' in here. Known: .* Did you mean `rotate`?"),
    ],
)  # fmt: skip
def test_a_composite_level_that_is_wrong_is_refused(axis: str, level: Any, message: str) -> None:
    with pytest.raises(GridError, match=message):
        expand(axis, level, "here")


@pytest.mark.parametrize(
    ("axis", "level", "expected"),
    [
        ("lr", 1, "1.0"), ("lr", 1e-3, "0.001"), ("batch_size", 32.0, "32"), ("optimizer", "adam", "adam"),
        ("clip_norm", None, "null"), ("augment_flip", True, "true"), ("subset_classes", [0, 1], "[0,1]"),
        ("architecture", "mlp", "mlp"), ("source", {"id": "iris", "train": 9}, "iris"),
        ("subset", "full", "full"), ("subset", {"frac": 1}, "full"), ("subset", {"frac": 0.5}, "frac=0.5"),
        ("subset", {"label_noise_frac": 0.2, "classes": [0, 1]}, "classes=0+1,label_noise_frac=0.2"),
        ("augmentation", "none", "none"), ("augmentation", {"flip": True}, "flip=True"),
        ("init", "normal", "normal"), ("init", {"normal": 0.05}, "normal(std=0.05)"),
        ("init", {"uniform": [-1, 1]}, "uniform(low=-1.0,high=1.0)"),
        ("schedule", "constant", "constant"), ("schedule", {"kind": "step", "gamma": 0.5}, "step"),
        ("schedule", {"kind": "step", "gamma": 0.1}, "step(gamma=0.1)"),
    ],
)  # fmt: skip
def test_labels_are_canonical(axis: str, level: Any, expected: str) -> None:
    assert labelled(axis, level) == expected


def test_a_list_of_layers_is_labelled_by_its_content() -> None:
    one = labelled("architecture", [{"conv": 8, "kernel": 3}, "flatten", {"linear": "classes"}])
    same = labelled("architecture", [{"kernel": 3, "conv": 8}, "flatten", {"linear": "classes"}])
    other = labelled("architecture", [{"conv": 8, "kernel": 5}, "flatten", {"linear": "classes"}])
    assert one == same != other
    assert one.startswith("layers-")


# --- blocks ----------------------------------------------------------------------------


def test_a_block_is_flattened_to_settings() -> None:
    block = {"lr": 1, "epochs": 3, "schedule": {"kind": "cosine", "final_frac": 0.1}}
    found = flatten(block, "training", lambda path: path)
    assert found["lr"] == 1.0
    assert found["epochs"] == 3
    assert (found["schedule_kind"], found["schedule_final_frac"], found["schedule_gamma"]) == ("cosine", 0.1, 0.5)


def test_a_misspelt_key_of_a_block_is_named_with_its_place() -> None:
    with pytest.raises(
        GridError, match=r"Unknown key of `training` 'epoch' in at training\.epoch\..*Did you mean `epochs`\?"
    ):
        flatten({"epoch": 3}, "training", lambda path: f"at {path}")
    with pytest.raises(GridError, match=r"Unknown key of `source` 'valid' in source\.valid"):
        flatten({"valid": 3}, "source", lambda path: path)


# --- layers of their own, columns, starts from a zoo -------------------------------------


@pytest.mark.parametrize(
    ("level", "values"),
    [
        ({"kind": "glorot_uniform", "first": {"uniform": [-2, 2]}},
         {"init_kind": "glorot_uniform", "init_first_kind": "uniform", "init_first_low": -2.0, "init_first_high": 2.0}),
        ({"normal": 0.1, "last": "glorot_normal"}, {"init_kind": "normal", "init_std": 0.1, "init_last_kind": "glorot_normal"}),
        ({"first": {"kind": "uniform", "low": 0, "high": 1}}, {"init_kind": "kaiming_uniform", "init_first_low": 0.0}),
    ],
)  # fmt: skip
def test_an_init_may_have_its_own_first_and_last_layer(level: Any, values: dict[str, Any]) -> None:
    found = expand("init", level, "here")
    assert {name: found[name] for name in values} == values


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ({"first": 3}, r"here: `first` is 3; an init is needed, like `\{uniform: \[-2, 2\]\}`"),
        ({"first": {"constant": 1}}, "Unknown init_first_kind 'constant'.*Known: glorot_normal"),
        ({"last": "constant"}, "Unknown init_last_kind 'constant'"),
        ({"first": {"kind": "normal", "low": 1, "high": 2}}, "`init_first_low` is for `init_first_kind` uniform"),
        ({"first": {"uniform": 3}}, "`uniform: 3` is not an init"),
    ],
)
def test_an_init_of_a_layer_that_cannot_be_drawn_is_refused(level: Any, message: str) -> None:
    with pytest.raises(GridError, match=message):
        expand("init", level, "here")


def test_labels_name_what_a_level_says_of_layers_zoos_and_turns() -> None:
    assert labelled("init", {"kind": "normal", "first": {"uniform": [-2, 2]}}) == (
        "normal(first.kind=uniform,first.low=-2.0,first.high=2.0)"
    )
    assert labelled("init", {"zoo": "a/b", "epoch": 5}) == "a/b(epoch=5.0)"
    assert labelled("subset", {"rotate_degrees": 30, "frac": 0.5}) == "frac=0.5,rotate_degrees=30.0"


def test_features_are_names_or_places() -> None:
    setting = SETTINGS["source_features"]
    assert coerce(setting, ["petal length", 3], "here") == ("petal length", "3")
    for wrong in ([], [None], [True], [""], {}):
        with pytest.raises(GridError, match="a list of names or places is needed"):
            coerce(setting, wrong, "here")
