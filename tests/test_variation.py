"""Pairs that differ in one factor, and what the factor does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import intervals, variation
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("reader_fixtures",)


def test_twins_share_every_factor_and_key_but_the_one(zoo: Zoo) -> None:
    rows = {m["model_id"]: m for m in zoo.models.to_pylist()}
    found = zoo.pairs("subset")
    assert len(found) == 8  # two activations, four replicates
    for pair in found:
        a, b = rows[pair.a], rows[pair.b]
        assert (a["subset"], b["subset"]) == pair.levels
        assert a["init_group"] == b["init_group"] == pair.init_group
        for name in (*zoo.manifest.factors, *variation.KEYS):
            assert a[name] == b[name] or name in ("subset", "subset_frac"), name
        assert np.array_equal(zoo.vector(pair.a, 0), zoo.vector(pair.b, 0))
        assert a["n_train"] != b["n_train"]


def test_an_axis_of_lists_is_shown_paired_and_measured(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    changes = (
        "axes={subset_classes: [[0, 1, 2], [3, 4, 5]]}",
        "paired=[subset_classes]",
        "training.epochs=1",
        "snapshots={epochs: [0]}",
    )
    build(make_plan(*changes), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    some = zoo.select(split="train")
    assert "subset_classes [0,1,2], [3,4,5]" in repr(some)
    assert "[0,1,2]" in some._repr_html_()
    (effect,) = zoo.effect("subset_classes")
    assert (effect.levels, effect.n_pairs) == (("[0,1,2]", "[3,4,5]"), 4)


def going_on(make_plan: Callable[..., plan.Plan], folder: Path, start: str, *changes: str) -> Zoo:
    """Children of parents that are paired along `lr`: those of one init have equal factors and keys."""
    short = ("cohort_size=200", "training={epochs: 2, batch_size: 100}", "snapshots={epochs: [0, 1, 2]}", "paired=[lr]")
    build(make_plan("axes={lr: [1e-3, 3e-2]}", "replicates=3", *short), folder / "parents", workers=0)
    recipe = folder / "children.yaml"
    recipe.write_text(
        "zoo: weightzoo/children\nsource: {id: digits, train: 200, validation: 60, test: 80}\n"
        "architecture: [flatten, {linear: 8}, activation, {linear: classes}]\nactivation: tanh\n"
        f"init: {{zoo: {folder / 'parents'}{start}}}\n{chr(10).join(changes)}\n"
        "training: {epochs: 1, batch_size: 100}\nsnapshots: {epochs: [0, 1]}\n"
    )
    build(plan.plan(grid.load(recipe)), folder / "children", workers=0)
    return open_zoo(folder / "children")


def test_twins_go_on_from_one_snapshot(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    zoo = going_on(make_plan, tmp_path, ", epoch: 2", "axes: {subset: [full, {frac: 0.5}]}", "paired: [subset]")
    rows = {m["model_id"]: m for m in zoo.models.to_pylist()}
    found = zoo.pairs("subset")
    assert [len(rows), len({m["init_group"] for m in rows.values()}), len(found)] == [12, 3, 6]
    for pair in found:
        for name in variation.START:
            assert rows[pair.a][name] == rows[pair.b][name] is not None
    assert zoo.effect("subset", levels=("full", "frac=0.5")).n_pairs == 6


def test_twins_along_the_start_have_one_parent(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    zoo = going_on(make_plan, tmp_path, "", "axes: {init_epoch: [1, 2]}")
    rows = {m["model_id"]: m for m in zoo.models.to_pylist()}
    found = zoo.pairs("init_epoch", (1, 2))
    assert [(rows[p.a]["parent_step"], rows[p.b]["parent_step"]) for p in found] == [(2, 4)] * 6
    assert all(rows[p.a]["parent_id"] == rows[p.b]["parent_id"] for p in found)


def test_levels_are_taken_in_the_order_asked(zoo: Zoo) -> None:
    there, back = zoo.pairs("subset", ("full", "frac=0.5")), zoo.pairs("subset", ("frac=0.5", "full"))
    assert [(p.a, p.b) for p in there] == [(p.b, p.a) for p in back]
    assert len(zoo.select(activation="relu").pairs("subset")) == 4


def test_an_effect_is_the_mean_paired_difference_with_an_interval_over_groups(zoo: Zoo) -> None:
    found = zoo.effect("subset", levels=("full", "frac=0.5"))
    value = dict(zip(zoo.models["model_id"].to_pylist(), zoo.models["test_accuracy"].to_pylist(), strict=True))
    pairs = zoo.pairs("subset", ("full", "frac=0.5"))
    before, after = (np.array([value[getattr(p, side)] for p in pairs]) for side in "ab")
    assert found.mean == pytest.approx((after - before).mean(), abs=1e-15)
    wanted = intervals.difference(before, after, np.array([p.init_group for p in pairs]))
    assert (found.low, found.high) == (wanted.low, wanted.high)
    assert (found.n_pairs, found.n_groups, found.n_missing) == (8, 8, 0)
    assert found.note == "fewer than 20 groups"
    assert str(found).startswith("subset: full → frac=0.5: test_accuracy ")
    assert zoo.effect("subset", levels=("frac=0.5", "full")).mean == pytest.approx(-found.mean)


def test_without_levels_all_are_compared_with_the_neutral_one(zoo: Zoo) -> None:
    found = zoo.effect("subset", on="train_loss")
    assert [f.levels for f in found] == [("full", "frac=0.5")]
    assert repr(found) == str(found[0])


def test_the_metric_is_that_of_the_last_selected_snapshot(zoo: Zoo) -> None:
    start = zoo.select(epoch=0).effect("subset", levels=("full", "frac=0.5"))
    assert start.mean == 0  # twins start alike
    assert start.high == -start.low == pytest.approx(1 - 0.025 ** (1 / 8))
    late = zoo.effect("subset", levels=("full", "frac=0.5"))
    assert zoo.select(epoch=[0, 2]).effect("subset", levels=("full", "frac=0.5")) == late


def test_few_groups_have_a_mean_and_no_interval_and_say_why(zoo: Zoo) -> None:
    for n in (1, 4):
        groups = list(dict.fromkeys(zoo.models["init_group"].to_pylist()))[:n]
        found = zoo.select(init_group=groups).effect("subset", levels=("full", "frac=0.5"))
        assert found.n_groups == n
        assert np.isfinite(found.mean)
        assert np.isnan([found.low, found.high]).all()
        assert str(found).endswith(
            f"[no interval] (95%, {n} pairs, {n} init groups; {n} groups, and at least 5 are needed)"
        )


def test_pairs_left_out_are_printed() -> None:
    found = variation.Effect("subset", "test_loss", ("full", "x"), 3, 3, -0.1, -0.2, 0.0, 0.95, 29)
    assert str(found) == (
        "subset: full → x: test_loss -0.1000 [-0.2000, +0.0000] (95%, 3 pairs, 3 init groups, "
        "29 of 32 pairs left out: test_loss is null)"
    )
    whole = variation.Effect("subset", "test_loss", ("full", "x"), 32, 32, -0.1, -0.2, 0.0, 0.95, 0)
    assert "left out" not in str(whole)


def crossed(make_plan: Callable[..., plan.Plan], folder: Path, draws: int) -> Zoo:
    """Six inits crossed with data draws that all of them share."""
    changes = (
        "axes={subset: [full, {frac: 0.2}]}", f"replicates={{init: 6, subset: {draws}}}",
        "training={epochs: 1, batch_size: 16}", "snapshots={epochs: [1]}", "cohort_size=200",
    )  # fmt: skip
    build(make_plan(*changes), folder, workers=0)
    return open_zoo(folder)


@pytest.mark.slow
def test_a_data_draw_that_all_inits_share_is_resampled_too(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    zoo = crossed(make_plan, tmp_path / "zoo", 6)
    found = zoo.effect("subset", levels=("full", "frac=0.2"))
    assert (found.n_pairs, found.n_groups) == (36, 6)
    assert "over 6 init groups and 6 data draws" in found.note
    assert "for 1 batch orders and no others" in found.note
    rows = {r["model_id"]: r for r in zoo.models.to_pylist()}
    twins = zoo.pairs("subset", ("full", "frac=0.2"))
    change = [rows[p.b]["test_accuracy"] - rows[p.a]["test_accuracy"] for p in twins]
    one_way = intervals.mean(np.array(change), np.array([p.init_group for p in twins]))
    by_draw = intervals.mean(np.array(change), np.array([rows[p.a]["subset_key"] for p in twins]))
    # Wider than either alone, or as wide: what is shared both ways counts once.
    assert found.high - found.low >= max(one_way.high - one_way.low, by_draw.high - by_draw.low) - 1e-12


@pytest.mark.slow
def test_one_data_draw_makes_no_interval_for_others(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    found = crossed(make_plan, tmp_path / "zoo", 2).effect("subset", levels=("full", "frac=0.2"))
    assert "for 2 data draws and no others" in found.note
    assert "for 2 data draws and no others" in str(found)


def test_effects_are_of_the_levels_that_a_selection_has(make_plan: Callable[..., plan.Plan], tmp_path: Path) -> None:
    axes = "axes={subset: [full, {frac: 0.5}, {classes: [0, 1, 2]}]}"
    zoo = open_zoo(build(make_plan(axes, "replicates=3"), tmp_path / "zoo", workers=0).root)
    assert [e.levels[1] for e in zoo.effect("subset")] == ["frac=0.5", "classes=0+1+2"]
    fewer = zoo.select(subset=["full", "frac=0.5"])
    assert list(map(str, fewer.effect("subset"))) == [str(zoo.effect("subset", levels=("full", "frac=0.5")))]
    with pytest.raises(ZooError, match="take two that differ"):
        zoo.pairs("subset", ("full", "frac=0.5", "classes=0+1+2"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda z: z.pairs("activation"),
            r"'activation' is not paired in the recipe of weightzoo/tiny.*Paired here: subset\..*`paired: \[activation\]`",
        ),
        (lambda z: z.pairs("sbset"), r"Unknown axis 'sbset'.*Did you mean `subset`"),
        (
            lambda z: z.effect("subset", levels=("full", "frac=0.4")),
            r"Unknown level of subset 'frac=0.4'.*Did you mean `frac=0.5`",
        ),
        (lambda z: z.effect("subset", on="split"), "holds string, not numbers"),
        (lambda z: z.effect("subset", on="test_acc"), r"Unknown column 'test_acc'"),
        (lambda z: z.effect("subset", on="diverged_step"), r"No two selected models .* both have diverged_step"),
        (lambda z: z.select(subset="full").effect("subset"), r"has one level of subset; an effect needs two"),
        (lambda z: z.effect("subset", levels=("full", "full")), r"`levels` of subset are full, full; take two that"),
        (lambda z: z.pairs("subset", ("full",)), r"`levels` of subset are full; take two that differ"),
        (lambda z: z.pairs("subset", "full"), r"`levels` of subset are full; take two that differ"),
    ],
)
def test_what_cannot_be_compared_is_said(call: Callable[[Zoo], Any], message: str, zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=message):
        call(zoo)


@pytest.mark.slow
def test_columns_that_an_axis_makes_meaningless_move_with_it(
    make_plan: Callable[..., plan.Plan], tmp_path: Path
) -> None:
    changes = (
        "axes={optimizer: [adam, momentum], lr: [1e-2, 3e-3]}",
        "paired=[optimizer, lr]",
        "replicates=3",
        "training={epochs: 1, batch_size: 32}",
        "snapshots={epochs: [0, 1]}",
    )
    build(make_plan(*changes), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    assert len(zoo.pairs("optimizer")) == 6
    assert len(zoo.pairs("lr", (0.01, 0.003))) == 6
    assert {p.levels for p in zoo.pairs("lr", (0.01, 0.003))} == {("0.01", "0.003")}


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("axis", "levels"),
    [("trigger_frac", "[0, 0.1]"), ("schedule_kind", "[constant, step]"), ("init_kind", "[normal, orthogonal]")],
)
@pytest.mark.slow
def test_twins_are_found_where_a_level_leaves_other_columns_null(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, axis: str, levels: str
) -> None:
    beside = {"trigger_frac": ["subset={trigger_target: 1}"], "init_kind": ["init={std: 0.1}"]}.get(axis, [])
    changes = [f"axes={{{axis}: {levels}}}", f"paired=[{axis}]", "replicates=3", "training={epochs: 1, batch_size: 32}"]
    build(make_plan(*changes, *beside, "snapshots={epochs: [0, 1]}"), tmp_path / "zoo", workers=0)
    assert len(open_zoo(tmp_path / "zoo").pairs(axis)) == 3
