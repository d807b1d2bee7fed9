"""Architectures that are generated: a name and parameters in a recipe, columns and axes, layers in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zoo_builder import build, grid, plan
from zoo_builder.planning import runs
from zoo_builder.recipe import generated, settings
from zoo_datasets import open_zoo
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError
from zoo_datasets.networks.generated import GENERATED
from zoo_datasets.networks.layers import build_architecture

RECIPE = """\
zoo: weightzoo/generated
source: {id: digits, train: 100, validation: 40, test: 60}
architecture: ARCHITECTURE
splits: {train: 1}
training: {epochs: 1}
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(architecture: str = "wild", more: str = "", *changes: str) -> grid.Grid:
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.replace("ARCHITECTURE", architecture) + more)
        return grid.load(path, changes)

    return load


def the_run(made: grid.Grid) -> runs.Run:
    (run,) = runs.of(made)
    return run


# Ids of models hold a name and its values alone: what these give never changes.
PINNED = {
    ("wild", ()): "482d5d911be32084",
    ("wild", (("depth", 2), ("channels", 8), ("kernel", 5), ("skip", True), ("norm", True))): "d51601327a9d1173",
    ("unterthiner", ()): "03c7432a301aaccd",
    ("unterthiner", (("width", 64),)): "1b9cd976aee04f7b",
}


@pytest.mark.parametrize(("name", "given"), PINNED, ids=str)
def test_a_name_and_its_values_give_the_same_layers_for_ever(name: str, given: tuple) -> None:
    assert streams.digest(GENERATED[name](dict(given)))[:16] == PINNED[name, given]


def test_depth_skips_and_normalization_are_what_their_names_say() -> None:
    layers = GENERATED["wild"]({"depth": 3, "channels": 8, "kernel": 5, "skip": True, "norm": True})
    nodes = build_architecture(layers, (3, 32, 32), 10).nodes
    assert [n.op for n in nodes].count("conv") == 3
    assert [n.op for n in nodes].count("add") == 2
    assert [n.op for n in nodes].count("batch_norm") == 3
    assert [n.shape for n in nodes if n.op == "conv"] == [(8, 16, 16), (8, 8, 8), (8, 8, 8)]
    plain = build_architecture(GENERATED["wild"]({"depth": 3}), (3, 32, 32), 10).nodes
    assert {n.op for n in plain} == {"conv", "relu", "max_pool", "global_avg_pool", "linear"}


def test_the_width_of_16_is_the_published_network() -> None:
    assert build_architecture(GENERATED["unterthiner"]({}), (1, 28, 28), 10).n_params == 4970


def test_a_name_with_parameters_is_the_name_and_settings(load) -> None:
    run = the_run(load("{wild: {depth: 4, skip: true}}"))
    assert (run.settings["architecture"], run.settings["wild_depth"], run.settings["wild_skip"]) == ("wild", 4, True)
    assert generated.layers_of(run.settings) == GENERATED["wild"]({"depth": 4, "skip": True})
    assert run.id == the_run(load("wild", "", "architecture.wild.depth=4", "wild_skip=true")).id


def test_a_parameter_at_its_default_is_in_no_id(load) -> None:
    bare = the_run(load("wild"))
    assert not {name for name in bare.settings if name.startswith("wild_")}
    assert bare.id == the_run(load("{wild: {}}")).id == the_run(load("{wild: {depth: 3, skip: false}}")).id
    assert bare.id != the_run(load("{wild: {depth: 2}}")).id


def test_parameters_are_axes_and_columns_and_null_where_they_mean_nothing(load) -> None:
    made = load("", "axes: {architecture: [wild, mlp], wild_depth: [1, 2, 3]}\n")
    planned = runs.of(made)
    found = {(r.settings["architecture"], runs.factors(r)["wild_depth"]) for r in planned}
    assert len(planned) == 4
    assert found == {("wild", 1), ("wild", 2), ("wild", 3), ("mlp", None)}


@pytest.mark.slow
def test_a_sample_draws_each_parameter_by_itself_and_the_zoo_holds_them(load, tmp_path: Path) -> None:
    more = (
        "sample: {models: 6, axes: {wild_depth: {integer: [1, 3]}, wild_channels: [2, 4], wild_skip: [false, true]}}\n"
    )
    made = load("wild", more)
    again = [r.id for r in runs.of(load("wild", more))]
    assert [r.id for r in runs.of(made)] == again
    assert [r.id for r in runs.of(load("wild", more, "sample.models=3"))] == again[:3]
    build.build(plan.plan(made), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    for row in zoo.models.to_pylist():
        values = {k.removeprefix("wild_"): v for k, v in row.items() if k.startswith("wild_")}
        wanted = build_architecture(GENERATED["wild"](values), (1, 8, 8), 10)
        assert (row["architecture"], row["architecture_id"]) == ("wild", wanted.id)
    assert len({row["architecture_id"] for row in zoo.models.to_pylist()}) > 2


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            "{wild: {dpth: 3}}",
            r"Unknown parameter of `wild` 'dpth' in recipe\.yaml, line 3\. Known: .*Did you mean `depth`\?",
        ),
        (
            "{wlid: {}}",
            r"Unknown generated architecture 'wlid' in recipe\.yaml, line 3\. Known: nws, unterthiner, wild\. Did",
        ),
        ("{wild: 3}", r"line 3: `wild` is 3; its parameters are needed, like \{wild: \{\}\}"),
        ("{wild: }", r"`wild` is None; its parameters are needed"),
        ("{}", r"names 0 generated ones; give one"),
        ("{wild: {}, unterthiner: {}}", r"names 2 generated ones; give one"),
        ("{wild: {depth: 0}}", r"`wild_depth` is 0; a number ≥ 1 and ≤ 64 is needed"),
        ("{wild: {skip: 1}}", r"`wild_skip` is 1; `true` or `false` is needed"),
        ("wlid", r"Unknown architecture preset 'wlid'.*Did you mean `wild`\?"),
    ],
)
def test_a_name_or_parameter_that_is_not_there_is_one_sentence(load, architecture: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(architecture)


@pytest.mark.parametrize(
    ("architecture", "more", "message"),
    [
        (
            "mlp",
            "axes: {architecture: [{wild: {depth: 2}}]}\n",
            r"its name alone there, and its parameters are axes of their own",
        ),
        ("{wild: {depth: 2}}", "axes: {wild_depth: [1, 2]}\n", r"`wild_depth` is fixed here and varied by axis"),
        ("{wild: {depth: 2}}", "norm_scale_std: 0.1\n", r"no architecture of this recipe has a batch norm"),
        ("{wild: {depth: 2}}", "axes: {dropout: [0, 0.5]}\n", r"no architecture of this recipe has a layer `dropout`"),
        (
            "{wild: {depth: 2}}",
            "evaluation: {batch_statistics: true}\n",
            r"evaluate_batch_statistics` is given, but no architecture of this recipe has a batch norm",
        ),
        (
            "wild",
            "axes: {evaluate_augmented: [false, true]}\n",
            r"evaluate_augmented` is given, but no network of this recipe is trained on augmented inputs",
        ),
    ],
)
def test_what_contradicts_itself_is_said(load, architecture: str, more: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(architecture, more)


@pytest.mark.parametrize(
    "more",
    [
        "norm_scale_std: 0.1\naxes: {wild_norm: [false, true]}\n",
        "evaluation: {batch_statistics: true}\naxes: {wild_norm: [false, true]}\n",
        "axes: {augment_shift: [0, 1]}\nevaluation: {augmented: true}\n",
        "axes: {augmentation: [none, {noise: 0.1}], evaluate_augmented: [false, true]}\n",
    ],
)
def test_what_one_level_alone_uses_is_taken(load, more: str) -> None:
    load("wild", more)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wild_kernel": 2, "wild_skip": True}, r"Architecture wild \(depth: 3, .*kernel: 2, skip: True.*does not fit \(1, 8, 8\): .*residual"),
        ({"architecture": "unterthiner"}, r"Architecture unterthiner \(width: 16\) does not fit \(1, 8, 8\): Layer 7 \(conv\)"),
    ],
)  # fmt: skip
def test_values_that_no_network_can_have_name_the_parameters(given: dict[str, Any], message: str) -> None:
    from zoo_builder.planning import cohorts

    run = runs.Run("", settings.DEFAULTS | {"architecture": "wild"} | given, {}, {}, {}, None, "train")  # type: ignore[arg-type]
    with pytest.raises(GridError, match=message):
        cohorts.build(run, (1, 8, 8), 10)
