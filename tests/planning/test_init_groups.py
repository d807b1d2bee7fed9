"""Runs that start from the same weights are one init group, and never parted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_builder.planning import runs
from zoo_builder.planning.runs import Run
from zoo_datasets.errors import GridError
from zoo_datasets.zoo import open_zoo

Load = Callable[[str], list[Run]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(text: str) -> list[Run]:
        head = "" if "replicates" in text else "replicates: 3\n"
        head += "" if "splits" in text else "splits: {train: 1}\n"
        (tmp_path / "recipe.yaml").write_text(f"zoo: a/b\n{head}{text}\n")
        return runs.of(grid.load(tmp_path / "recipe.yaml"))

    return read


def groups(planned: list[Run]) -> set[str]:
    return {r.init_group for r in planned}


@pytest.mark.parametrize(
    "init",
    [
        "{constant: 0.1}",
        "{normal: [0.1, 0]}",
        "{normal: 0}",
        "{uniform: [0.1, 0.10000000001]}",  # float32 has one number for both
        "{normal: [0.1, 1e-12]}",
        "{kind: glorot_uniform, first: {uniform: [0, 1e-60]}, last: {uniform: [1, 1.00000000001]}}",  # both layers of the MLP
    ],
)
def test_an_init_that_draws_nothing_is_one_group(init: str, load: Load) -> None:
    planned = load(f"init: {init}\naxes: {{activation: [relu, tanh], lr: [0.1, 0.01]}}")
    assert len(planned) == 12
    assert len(groups(planned)) == 1
    assert len({r.keys["init"] for r in planned}) == 12  # keys, and so ids, are as they were


@pytest.mark.parametrize(
    "init",
    [
        "normal", "orthogonal", "{uniform: [0, 0.1]}", "{normal: [0, 0.1]}",
        "{constant: 0.1, first: {uniform: [-1, 1]}}", "{kind: glorot_uniform, last: {uniform: [0, 1e-60]}}",
    ],
)  # fmt: skip
def test_one_that_draws_anything_has_a_group_for_each_key(init: str, load: Load) -> None:
    planned = load(f"init: {init}")
    assert {r.init_group for r in planned} == {r.keys["init"][:16] for r in planned}
    assert len(groups(planned)) == 3


def test_scales_of_norms_that_float32_does_not_tell_from_1_draw_nothing(load: Load) -> None:
    recipe = "init: {constant: 0.1}\narchitecture: [flatten, {linear: 8}, batch_norm, activation, {linear: classes}]\n"
    assert [len(groups(load(f"{recipe}norm_scale_std: {std}"))) for std in ("0", "1e-20", "1e-9", "1e-4")] == [
        1,
        1,
        1,
        3,
    ]


def test_the_group_is_of_the_values_and_not_of_their_spelling(load: Load) -> None:
    assert (
        len(groups(load("axes: {init: [{constant: 0.1}, {uniform: [0.1, 0.10000000001]}, {normal: [0.1, 0]}]}"))) == 1
    )
    assert len(groups(load("axes: {init: [{constant: -0.0}, {normal: 0}]}"))) == 1
    assert len(groups(load("axes: {init: [{constant: 0.1}, {constant: 0.2}]}"))) == 2
    assert len(groups(load("axes: {init: [{constant: 0.1}, {constant: 0.1, bias: 1}]}"))) == 2


def test_the_architecture_is_in_it_by_the_layers_that_hold_weights(load: Load) -> None:
    spelled = "[flatten, {linear: 32}, tanh, {dropout: 0.1}, {linear: classes}]"
    other = "[flatten, {linear: 16}, activation, {linear: classes}]"
    assert len(groups(load(f"init: {{constant: 0.1}}\naxes: {{architecture: [mlp, {spelled}]}}"))) == 1
    assert len(groups(load(f"init: {{constant: 0.1}}\naxes: {{architecture: [mlp, {other}]}}"))) == 2


def test_the_one_layer_of_a_network_is_its_first_and_its_last(load: Load) -> None:
    one = "architecture: [flatten, {linear: classes}]\n"
    assert len(groups(load(one + "init: {kind: normal, first: {uniform: [0, 1e-60]}}"))) == 1
    assert len(groups(load(one + "init: {kind: normal, last: {uniform: [0, 1e-60]}}"))) == 1
    assert len(groups(load(one + "init: {kind: normal, first: {uniform: [0, 1]}, last: {uniform: [0, 1e-60]}}"))) == 3


def test_one_group_cannot_fill_three_splits_and_the_way_out_is_said(load: Load) -> None:
    with pytest.raises(GridError, match=r"1 init group\(s\) cannot fill 3 .*`splits: \{train: 1.0\}`.*draws nothing"):
        load("init: {constant: 0.1}\nreplicates: 30\nsplits: {train: 0.6, validation: 0.2, test: 0.2}")
    with pytest.raises(
        GridError, match=r"raise `replicates` or `--limit`, or take axes out of `paired`\), or ask for"
    ) as e:
        load("splits: {train: 0.6, validation: 0.2, test: 0.2}\nreplicates: 2")
    assert "draws nothing" not in str(e.value)


@pytest.mark.slow
def test_weights_that_are_equal_at_the_start_stand_in_one_split(
    make_plan: Callable[..., plan.Plan], tmp_path: Path
) -> None:
    changes = (
        "axes={init: [{constant: 0.1}, {constant: 0.2}, {uniform: [-0.1, 0.1]}], activation: [relu, tanh]}",
        "paired=[]", "replicates=4", "training={epochs: 1, batch_size: 64}", "snapshots={epochs: [0, 1]}",
    )  # fmt: skip
    build(make_plan(*changes), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    rows = {r["model_id"]: r for r in zoo.models.to_pylist()}
    by_weights: dict[str, set[tuple[str, str]]] = {}
    for s in zoo.snapshots.to_pylist():
        if s["step"] == 0:
            model = rows[s["model_id"]]
            by_weights.setdefault(s["weights_sha256"], set()).add((model["init_group"], model["split"]))
    assert max(map(len, by_weights.values())) == 1
    assert len(by_weights) == 2 + 8
    assert {s for v in by_weights.values() for _, s in v} == {"train", "validation", "test"}


def test_a_child_keeps_the_group_of_its_parent(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    short = (
        "training={epochs: 1, batch_size: 64}",
        "snapshots={epochs: [0, 1]}",
        "axes={activation: [relu]}",
        "paired=[]",
    )
    build(
        make_plan(*short, "init={constant: 0.1}", "replicates=2", "splits={train: 1}"), tmp_path / "parent", workers=0
    )
    (tmp_path / "child.yaml").write_text(
        f"zoo: a/child\nsource: {{id: digits, train: 200, validation: 60, test: 80}}\ninit: {{zoo: {tmp_path / 'parent'}, "
        "epoch: 1}\narchitecture: [flatten, {linear: 8}, activation, {linear: classes}]\naxes: {lr: [0.1, 0.01]}\ntraining: {epochs: 1, batch_size: 64}\n"
    )
    children = plan.plan(grid.load(tmp_path / "child.yaml"))
    assert len(children.runs) == 4
    assert groups(children.runs) == set(open_zoo(tmp_path / "parent").models["init_group"].to_pylist())
