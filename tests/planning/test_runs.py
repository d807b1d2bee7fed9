"""`Grid` → runs: ids, order, stream keys and splits, the same on any machine; and back from rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_builder import grid
from zoo_builder.planning import points, runs
from zoo_builder.planning.runs import Run
from zoo_builder.recipe import axes, recipe_yaml
from zoo_builder.recipe.levels import label
from zoo_builder.recipe.settings import SETTINGS
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError

Plan = Callable[..., list[Run]]
CROSSED = """\
zoo: a/b
axes:
  lr: [1e-3, 1e-4]
  optimizer: [adam, sgd]
  subset: [full, {frac: 0.5}, {label_noise_frac: 0.2}]
paired: [subset]
"""
SAMPLED = """\
zoo: a/b
splits: {train: 1}
sample:
  models: 300
  axes:
    lr: {log_uniform: [1e-4, 1e-1]}
    dropout: {uniform: [0.1, 0.5]}
    batch_size: {integer: [8, 10]}
    activation: [relu, tanh]
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder, counter = tmp_path_factory.mktemp("grids"), itertools.count()

    def make(text: str, *changes: str, limit: int | None = None) -> list[Run]:
        path = folder / f"{next(counter)}.yaml"
        path.write_text(text)
        return runs.of(grid.load(path, changes, limit))

    return make


def ids(planned: list[Run]) -> list[str]:
    return [r.id for r in planned]


# --- ids and order ---------------------------------------------------------------------


def test_ids_and_keys_are_pinned(plan: Plan) -> None:
    planned = plan(CROSSED, "replicates=2")
    assert len(planned) == 24
    assert ids(planned)[:2] == ["accb3a5758f15e14", "4eff4b96f07c184e"]
    assert streams.digest(ids(planned))[:16] == "6bfb25a78cb4024a"
    assert planned[0].axes == {"lr": "0.0001", "optimizer": "sgd", "subset": "full"}
    assert planned[0].keys == {
        "init": "d42bb7c236302d9af4110933ee25e48f", "order": "f4fb66c2db89b8a8344bd44cb580ba73",
        "subset": "34ada8b22820f71917bbf13f5a813340", "augment": "666097d9df78a4ae84b875c19151e1b9",
        "dropout": "71be7b792717b6fab9b820a3134d7a59",
    }  # fmt: skip


def test_ids_are_unique_and_of_16_hex_digits(plan: Plan) -> None:
    planned = plan(CROSSED, "replicates={init: 2, order: 2, subset: 2}")
    assert len(set(ids(planned))) == len(planned) == 12 * 8
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids(planned))


def test_the_same_recipe_gives_the_same_runs_whatever_the_order_of_its_keys(plan: Plan) -> None:
    shuffled = (
        "paired: [subset]\naxes:\n  subset:\n  - {label_noise_frac: 2e-1}\n  - {frac: 0.50}\n  - all\n"
        "  optimizer: [sgd, adam]\n  lr: [0.0001, 0.001]\nzoo: other/name\n"
    )
    assert ids(plan(shuffled, "replicates=2")) == ids(plan(CROSSED, "replicates=2"))


def test_splits_zoo_cohorts_and_words_do_not_enter_ids(plan: Plan) -> None:
    changes = ["replicates=3", "splits={train: 0.5, test: 0.5}", "cohort_size=3", "description=x", "license=mit"]
    assert ids(plan(CROSSED, *changes)) == ids(plan(CROSSED, "replicates=3"))


@pytest.mark.parametrize(
    "change",
    ["seed=1", "training.epochs=6", "snapshots.epochs=[0, 1]", "source=iris", "activation=tanh", "init.bias=0.5"],
)
def test_whatever_changes_a_model_changes_every_id(plan: Plan, change: str) -> None:
    assert not set(ids(plan(CROSSED, "replicates=2", change))) & set(ids(plan(CROSSED, "replicates=2")))


def test_order_is_replicate_first_then_points(plan: Plan) -> None:
    planned = plan(CROSSED, "replicates=3")
    assert [r.replicate["init"] for r in planned] == [0] * 12 + [1] * 12 + [2] * 12
    points = [tuple(r.axes.items()) for r in planned]
    assert points[:12] == points[12:24] == points[24:]
    assert len(set(points)) == 12
    assert points[:12] != sorted(points[:12])  # by a hash: a prefix is a fair sample


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(1, 4))
@pytest.mark.slow
def test_more_replicates_append(plan: Plan, few: int, more: int) -> None:
    few, more = sorted((few, more))
    text = CROSSED + "splits: {train: 1}\n"
    short, long = plan(text, f"replicates={few}"), plan(text, f"replicates={more}")
    assert ids(long)[: len(short)] == ids(short)
    crossed = "replicates={{init: {}, order: 2}}".format
    short, long = plan(text, crossed(few)), plan(text, crossed(more))
    assert ids(long)[: len(short)] == ids(short)


def test_limit_is_a_prefix_where_nothing_is_paired(plan: Plan) -> None:
    whole = plan(CROSSED, "replicates=2", "paired=[]")
    for n in (5, 12, 13, 24, 99):
        assert ids(plan(CROSSED, "replicates=2", "paired=[]", limit=n)) == ids(whole)[:n]


def by_twins(planned: list[Run]) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for r in planned:
        found.setdefault(tuple(r.keys.values()), []).append(r.id)
    return found


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (CROSSED, ()),
        (CROSSED, ("paired=[subset, lr]",)),
        (CROSSED, ("replicates={init: 2, order: 2, subset: 2}",)),
        # Levels that mean nothing together: plain SGD has no momentum, and is one run at both of its levels.
        (
            "zoo: a/b\naxes: {optimizer: [sgd, momentum, nesterov], momentum: [0.5, 0.9], lr: [1, 2]}\npaired: [optimizer]\n",
            (),
        ),
        ("zoo: a/b\naxes: {init: [normal, {constant: 0.1}], lr: [1, 2]}\npaired: [lr]\n", ()),
    ],
)
@pytest.mark.slow
def test_a_limit_takes_whole_groups_of_twins_and_keeps_plan_order(
    plan: Plan, text: str, changes: tuple[str, ...]
) -> None:
    changes = ("splits={train: 1}", *(() if any("replicates" in c for c in changes) else ("replicates=2",)), *changes)
    whole = plan(text, *changes)
    twins = list(by_twins(whole).values())  # in the order of their first
    place = {i: k for k, i in enumerate(ids(whole))}
    for n in range(1, len(whole) + 1):
        found = ids(plan(text, *changes, limit=n))
        assert len(found) == n
        assert found == sorted(found, key=lambda i: place[i])
        assert set(found) == set([i for group in twins for i in group][:n])  # the last one is cut
    assert {r.id: r.split for r in plan(text, *changes, limit=99)} == {r.id: r.split for r in whole}


def test_a_limit_leaves_as_many_pairs_as_it_can(plan: Plan) -> None:
    """Twelve of 24 runs are four groups of three; the first twelve points of the plan would hold fewer whole ones."""
    text = CROSSED.replace("1e-4]", "1e-4, 1, 2]")
    found = by_twins(plan(text, "replicates=1", "splits={train: 1}", limit=12))
    assert sorted(map(len, found.values())) == [3, 3, 3, 3]
    plain = by_twins(plan(text, "replicates=1", "splits={train: 1}")[:12])
    assert sum(len(v) == 3 for v in plain.values()) < 4


def test_tied_replicates_are_one_number_and_crossed_are_three(plan: Plan) -> None:
    assert [r.replicate for r in plan("zoo: a/b\nreplicates: 3\n")] == [
        {"init": i, "order": i, "subset": i} for i in range(3)
    ]
    crossed = plan("zoo: a/b\nreplicates: {init: 3, subset: 2}\n")
    assert [tuple(r.replicate.values()) for r in crossed] == [(i, 0, s) for i in range(3) for s in range(2)]


def test_a_zoo_of_seeds_alone_has_a_run_per_replicate(plan: Plan) -> None:
    planned = plan("zoo: a/b\nreplicates: 5\n")
    assert len({r.keys["init"] for r in planned}) == 5
    assert planned[0].axes == {}


def test_levels_that_mean_nothing_make_no_extra_runs(plan: Plan) -> None:
    planned = plan("zoo: a/b\nsplits: {train: 1}\naxes: {optimizer: [sgd, momentum], momentum: [0.5, 0.9]}\n")
    assert sorted((r.axes["optimizer"], r.axes["momentum"]) for r in planned) == [
        ("momentum", "0.5"), ("momentum", "0.9"), ("sgd", "null"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ("{trigger_size: [2, 3], lr: [1]}", "axis `trigger_size` makes no difference: no `trigger_frac` above 0"),
        ("{momentum: [0.5, 0.9]}", "axis `momentum` makes no difference: nothing in this recipe uses it: it is for `optimizer` "),
        ("{schedule_gamma: [0.1, 0.5]}", "axis `schedule_gamma` makes no difference"),
        ("{min_epochs: [1, 2]}", "`min_epochs` needs one of"),
    ],
)  # fmt: skip
def test_an_axis_that_no_run_uses_is_refused_as_a_setting_is(plan: Plan, axes: str, said: str) -> None:
    with pytest.raises(GridError, match=said):
        plan(f"zoo: a/b\nsplits: {{train: 1}}\nreplicates: 3\naxes: {axes}\n")


def test_too_few_init_groups_for_the_splits_are_refused(plan: Plan) -> None:
    with pytest.raises(GridError, match=r"1 init group\(s\) cannot fill 3 splits"):
        plan("zoo: a/b\naxes: {subset: [full, {frac: 0.5}]}\npaired: [subset]\n")


# --- streams ---------------------------------------------------------------------------


def groups(planned: list[Run], *axes: str) -> list[list[Run]]:
    """Runs that differ in nothing but these axes."""
    found: dict[Any, list[Run]] = {}
    for r in planned:
        rest = {k: v for k, v in r.axes.items() if k not in axes}
        found.setdefault((tuple(rest.items()), tuple(r.replicate.values())), []).append(r)
    return list(found.values())


def test_paired_twins_share_every_stream(plan: Plan) -> None:
    for twins in groups(plan(CROSSED, "replicates=2"), "subset"):
        assert len(twins) == 3
        for stream in runs.STREAMS:
            assert len({r.keys[stream] for r in twins}) == 1, stream
        assert len({r.init_group for r in twins}) == len({r.split for r in twins}) == 1


def test_without_pairing_nothing_is_shared_but_the_subset_along_data_axes(plan: Plan) -> None:
    for twins in groups(plan(CROSSED, "replicates=2", "paired=[]"), "subset"):
        assert len({r.keys["subset"] for r in twins}) == 1
        for stream in ("init", "order", "augment", "dropout"):
            assert len({r.keys[stream] for r in twins}) == 3
    for others in groups(plan(CROSSED, "replicates=2", "paired=[]"), "lr"):
        assert len({r.keys["subset"] for r in others}) == 2  # lr is no data axis: its own subset


@pytest.mark.parametrize(
    "axis",
    ["subset_frac: [1, 0.5]", "label_noise_frac: [0, 0.1]", "trigger_frac: [0, 0.1]", "subset_classes: [null, [0, 1]]"],
)
def test_the_subset_stream_is_blind_to_every_data_axis(plan: Plan, axis: str) -> None:
    planned = plan(
        f"zoo: a/b\nsplits: {{train: 1}}\nsubset: {{trigger_target: 1}}\naxes: {{{axis}}}\n"
        if "trigger" in axis
        else f"zoo: a/b\nsplits: {{train: 1}}\naxes: {{{axis}}}\n"
    )
    assert len(planned) == 2
    assert planned[0].keys["subset"] == planned[1].keys["subset"]
    assert planned[0].keys["init"] != planned[1].keys["init"]


def test_streams_follow_their_replicate_number(plan: Plan) -> None:
    planned = plan("zoo: a/b\nsplits: {train: 1}\nreplicates: {init: 2, order: 3, subset: 4}\n")
    assert {stream: len({r.keys[stream] for r in planned}) for stream in runs.STREAMS} == {
        "init": 2, "order": 3, "subset": 4, "augment": 3, "dropout": 3,
    }  # fmt: skip


def test_no_two_streams_share_a_key(plan: Plan) -> None:
    planned = plan(CROSSED, "replicates=2")
    sets = [{r.keys[stream] for r in planned} for stream in runs.STREAMS]
    assert not any(a & b for a, b in itertools.combinations(sets, 2))


def test_another_grid_seed_gives_other_keys(plan: Plan) -> None:
    a, b = ({k for r in plan(CROSSED, "replicates=2", f"seed={s}") for k in r.keys.values()} for s in (0, 1))
    assert not a & b


def test_settings_outside_the_axes_do_not_change_an_initialization(plan: Plan) -> None:
    text = "zoo: a/b\nreplicates: 3\n"
    assert [r.keys for r in plan(text)] == [r.keys for r in plan(text, "lr=0.5", "training.epochs=9")]


@settings(deadline=None, max_examples=8)
@given(
    st.sets(st.sampled_from(["lr", "optimizer", "subset"])), st.integers(3, 5), st.integers(1, 2), st.integers(49, 72)
)
def test_an_init_group_is_never_in_two_splits(plan: Plan, paired: set[str], init: int, order: int, limit: int) -> None:
    planned = plan(
        CROSSED, f"paired=[{', '.join(paired)}]", f"replicates={{init: {init}, order: {order}}}", limit=limit
    )
    by_group: dict[str, set[str]] = {}
    for r in planned:
        by_group.setdefault(r.init_group, set()).add(r.split)
    assert all(len(found) == 1 for found in by_group.values())
    assert {s for found in by_group.values() for s in found} == {"train", "validation", "test"}


# --- random points ---------------------------------------------------------------------


@pytest.mark.slow
def test_drawn_values_are_in_range_and_spread(plan: Plan) -> None:
    planned = plan(SAMPLED)
    assert len(planned) == 300
    column = {name: np.array([r.settings[name] for r in planned]) for name in ("lr", "dropout", "batch_size")}
    assert 1e-4 <= column["lr"].min() < 1.5e-4
    assert 0.07 < column["lr"].max() < 0.1
    assert abs(np.median(np.log10(column["lr"])) + 2.5) < 0.3
    assert 0.1 <= column["dropout"].min() < 0.12
    assert 0.48 < column["dropout"].max() < 0.5
    assert set(column["batch_size"].tolist()) == {8, 9, 10}
    assert {r.settings["activation"] for r in planned} == {"relu", "tanh"}


@pytest.mark.slow
def test_more_drawn_models_begin_with_the_fewer(plan: Plan) -> None:
    assert ids(plan(SAMPLED, "sample.models=40")) == ids(plan(SAMPLED))[:40]


@pytest.mark.slow
def test_draws_do_not_depend_on_the_other_axes(plan: Plan) -> None:
    alone = plan("zoo: a/b\nsplits: {train: 1}\nsample: {models: 50, axes: {lr: {log_uniform: [1e-4, 1e-1]}}}\n")
    assert [r.settings["lr"] for r in alone] == [r.settings["lr"] for r in plan(SAMPLED)[:50]]


@pytest.mark.parametrize("u", [0.0, 2.0**-24, 0.5, 1 - 2.0**-24])
@pytest.mark.parametrize(("low", "high"), [(1e-4, 1e-1), (3e-4, 3e-3), (1e-300, 2.5e-3)])
def test_the_ends_of_a_range_are_kept(u: float, low: float, high: float) -> None:
    for kind in ("uniform", "log_uniform"):
        values = points.drawn(axes.Draw("lr", kind, low, high), u)
        assert low <= values["lr"] < high
    values = points.drawn(axes.Draw("batch_size", "integer", 3, 5), u)
    assert values["batch_size"] in (3, 4, 5)


# --- settings that depend on others ----------------------------------------------------


def test_what_means_nothing_is_null(plan: Plan) -> None:
    (sgd,) = plan("zoo: a/b\nsplits: {train: 1}\ntraining: {optimizer: sgd}\n")
    names = (
        "momentum",
        "beta1",
        "beta2",
        "alpha",
        "eps",
        "schedule_gamma",
        "schedule_final_frac",
        "init_std",
        "trigger_size",
    )
    assert {name: sgd.settings[name] for name in names} == dict.fromkeys(names)
    (adam,) = plan("zoo: a/b\nsplits: {train: 1}\ntraining: {schedule: step}\ninit: {normal: 0.1}\n")
    assert (adam.settings["beta1"], adam.settings["eps"], adam.settings["momentum"]) == (0.9, 1e-8, None)
    assert (adam.settings["schedule_gamma"], adam.settings["schedule_every_epochs"]) == (0.5, 1)
    assert (adam.settings["init_std"], adam.settings["init_low"]) == (0.1, None)


@pytest.mark.parametrize(
    ("architecture", "bias"), [("small-cnn", 0.01), ("mlp", 0.0), ("[flatten, {linear: classes}]", 0.0)]
)
def test_biases_start_as_the_preset_says_unless_told(plan: Plan, architecture: str, bias: float) -> None:
    text = f"zoo: a/b\nsplits: {{train: 1}}\narchitecture: {architecture}\n"
    assert plan(text)[0].settings["init_bias"] == bias
    assert plan(text, "init.bias=0.25")[0].settings["init_bias"] == 0.25


def test_a_trigger_keeps_its_settings_and_a_source_its_spec(plan: Plan) -> None:
    (run,) = plan(
        "zoo: a/b\nsplits: {train: 1}\nsource: {id: iris, train: 9, mean: [0, 1, 2, 3], std: 1}\n"
        "subset: {trigger_frac: 0.1, trigger_target: 2, classes: [2, 0]}\n"
    )
    assert (run.subset.trigger_target, run.subset.trigger_size, run.subset.classes) == (2, 3, (2, 0))
    assert (run.source.id, run.source.train, run.source.mean, run.source.std) == (
        "iris",
        9,
        (0.0, 1.0, 2.0, 3.0),
        (1.0,),
    )
    assert hash(run.source) is not None


@pytest.mark.parametrize(
    ("budget", "n_train", "steps"),
    [
        ("epochs: 3", 100, 12), ("epochs: 3", 96, 9), ("epochs: 0", 100, 0), ("steps: 7", 100, 7), ("examples: 100", 100, 4),
        ("examples: 101", 100, 5), ("examples: 232", 100, 9), ("examples: 233", 100, 10), ("examples: 0", 100, 0),
        ("examples: 31", 100, 1),
    ],
)  # fmt: skip
def test_a_budget_in_updates(plan: Plan, budget: str, n_train: int, steps: int) -> None:
    (run,) = plan(f"zoo: a/b\nsplits: {{train: 1}}\ntraining: {{batch_size: 32, {budget}}}\n")
    assert runs.total_steps(run, n_train) == steps


# --- run ↔ row -------------------------------------------------------------------------

EVERY_KIND = [
    "activation: [relu, tanh]", "dropout: [0, 0.25]", "lr: [1e-3, 1, 0.1]", "batch_size: [8, 16]",
    "optimizer: [sgd, adam, nesterov]", "momentum: [0.5, 0.9]", "clip_norm: [null, 1]", "resize: [null, 6]",
    "augment_flip: [false, true]", "subset_classes: [null, [0, 1], [3, 1]]", "trigger_size: [2, 3]",
    "architecture: [mlp, [flatten, {linear: 8}, activation, {linear: classes}]]", "init_bias: [null, 0.5, 0]",
    "source: [digits, iris]", "source: [{id: digits, train: 10}]", "epochs: [1, 2]", "init_std: [null, 0.1]",
    "subset: [full, {frac: 0.5}, {classes: [0, 1], relabel: true}, {trigger_frac: 0.1, trigger_target: 0, trigger_value: 0.5}]",
    "subset: [{frac: 0.7}, {trigger_frac: 0.1, trigger_target: 3}]",
    "init: [normal, {uniform: [-1, 1]}, {normal: 0.1, bias: 0}, {constant: 0.1, bias: 0.01}, orthogonal]",
    "schedule: [constant, cosine, {kind: step, gamma: 0.1}, {kind: exponential, gamma: 0.9}]",
    "augmentation: [none, {shift: 1, flip: true}, {noise_std: 0.1}]",
    "subset: [full, {rotate_degrees: 30}, {rotate_degrees: -15.5, frac: 0.5}]", "rotate_degrees: [0, 90]",
    "init: [normal, {kind: glorot_uniform, first: {uniform: [-2, 2]}}, {normal: 0.1, last: glorot_normal}]",
    "init_first_kind: [null, normal]",
]  # fmt: skip


def round_trip(planned: list[Run]) -> list[Run]:
    """Runs → an Arrow table of factors and keys, as `models` has them → rows → runs."""
    columns = {
        c.name: pa.array([runs.factors(r)[c.name] for r in planned], c.type) for c in runs.factor_columns(planned)
    }
    columns |= {
        "model_id": pa.array([r.id for r in planned]),
        "split": pa.array([r.split for r in planned]),
        "snapshot_schedule": pa.array([streams.canonical_json(r.snapshots.to_json()) for r in planned]),
        **{f"replicate_{k}": pa.array([r.replicate[k] for r in planned]) for k in ("init", "order", "subset")},
        **{f"{k}_key": pa.array([r.keys[k] for r in planned]) for k in runs.STREAMS},
    }
    lists = {
        label("architecture", r.settings): r.settings["architecture"]
        for r in planned
        if not isinstance(r.settings["architecture"], str)
    }
    axes = list(planned[0].axes)
    return [runs.from_row(row, lists, axes) for row in pa.table(columns).to_pylist()]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(EVERY_KIND), min_size=1, max_size=3, unique=True),
    st.booleans(),
    st.sampled_from(["mlp", "small-cnn"]),
)
@pytest.mark.slow
def test_a_row_gives_its_run_back(plan: Plan, axes: list[str], pair: bool, architecture: str) -> None:
    names = [a.partition(":")[0] for a in axes]
    paired = f"paired: [{names[0]}]\n" if pair else ""
    text = f"zoo: a/b\nsplits: {{train: 1}}\nreplicates: 2\narchitecture: {architecture}\n{paired}axes:\n"
    try:
        planned = plan(text + "".join(f"  {a}\n" for a in axes))
    except GridError as error:
        expected = ("set the same thing", "is given twice", "fixed here and varied", "makes no difference")
        if not any(text in str(error) for text in expected):
            raise
        return
    assert round_trip(planned) == planned


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [SAMPLED, CROSSED + "replicates: 3\nsnapshots: every_epoch\n", "zoo: a/b\nreplicates: 3\n"]
)
def test_rows_of_samples_and_of_plain_recipes_give_their_runs_back(plan: Plan, text: str) -> None:
    planned = plan(text)
    assert round_trip(planned) == planned


def test_every_factor_has_a_column_of_its_type(plan: Plan) -> None:
    (run,) = plan("zoo: a/b\nsplits: {train: 1}\n")
    first = {name for name, s in SETTINGS.items() if not s.later}
    assert set(runs.factors(run)) == {*SETTINGS, *runs.LABELS}
    assert {c.name for c in runs.factor_columns([run])} == first | set(runs.LABELS)


def test_a_setting_added_later_has_a_column_where_a_run_uses_it_and_changes_no_other_id(plan: Plan) -> None:
    turned = plan("zoo: a/b\nsplits: {train: 1}\naxes: {subset: [full, {rotate_degrees: 30}]}\n")
    upright = plan("zoo: a/b\nsplits: {train: 1}\naxes: {subset: [full, {frac: 0.5}]}\n")
    assert {r.id for r in turned} & {r.id for r in upright} == {r.id for r in upright if r.axes["subset"] == "full"}
    assert "rotate_degrees" in {c.name for c in runs.factor_columns(turned)}
    assert [runs.factors(r)["rotate_degrees"] for r in turned if r.axes["subset"] != "full"] == [30.0]
    assert {r.axes["subset"] for r in turned} == {"full", "rotate_degrees=30.0"}


@pytest.mark.parametrize("axis", ["rotate_degrees: [0]", "machine_modified: [false]"])
def test_an_axis_has_a_column_though_all_runs_are_at_its_default(plan: Plan, axis: str) -> None:
    planned = plan(f"zoo: a/b\nsplits: {{train: 1}}\nsource: {{id: machine, machine: Parity}}\naxes: {{{axis}}}\n")
    assert axis.split(":")[0] in {c.name for c in runs.factor_columns(planned)}


def test_the_dumped_document_gives_the_same_runs(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(CROSSED)
    g = grid.load(tmp_path / "g.yaml", ["replicates=2", "batch_size=7"], limit=20)
    assert plan(recipe_yaml.dump(dict(g.document))) == runs.of(g)


def test_a_run_cannot_be_changed(plan: Plan) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan("zoo: a/b\nsplits: {train: 1}\n")[0].id = "x"  # type: ignore[misc]


CROSSED_DRAWS = """\
zoo: a/b
source: {id: digits, train: 100, validation: 50, test: 50}
axes: {activation: [relu, tanh], batch_size: [8, 16]}
paired: [activation]
sample: {models: 24, axes: {lr: {log_uniform: [1e-4, 1e-1]}, optimizer: [adam, sgd]}}
splits: {train: 0.5, test: 0.5}
"""


def test_each_drawn_point_has_every_crossed_one_and_paired_ones_are_twins_on_one_side(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(CROSSED_DRAWS)
    planned = runs.of(grid.load(path))
    assert len(planned) == len({r.id for r in planned}) == 24
    draws = [planned[i : i + 4] for i in range(0, 24, 4)]
    for four in draws:
        assert len({(r.settings["lr"], r.settings["optimizer"]) for r in four}) == 1
        assert {(r.axes["activation"], r.axes["batch_size"]) for r in four} == {
            (a, b) for a in ("relu", "tanh") for b in ("8", "16")
        }
        # Twins along the paired axis alone: the other one has keys, and so initial weights, of its own.
        by_size = {b: [r for r in four if r.axes["batch_size"] == b] for b in ("8", "16")}
        for pair in by_size.values():
            assert pair[0].keys == pair[1].keys
            assert pair[0].split == pair[1].split
        assert by_size["8"][0].keys["order"] != by_size["16"][0].keys["order"]
    assert len({four[0].settings["lr"] for four in draws}) == 6
    assert {r.split for r in planned} == {"train", "test"}
    assert [r.id for r in runs.of(grid.load(path, limit=10))] == [r.id for r in planned[:10]]
    # The draws are those of the same sample without axes.
    path.write_text("\n".join(line for line in CROSSED_DRAWS.splitlines() if not line.startswith(("axes", "paired"))))
    assert [r.settings["lr"] for r in runs.of(grid.load(path))][:6] == [four[0].settings["lr"] for four in draws]


# ── twins of drawn points ──

POISONED = """\
zoo: a/b
splits: {train: 0.5, test: 0.5}
source: {id: digits, train: 200, validation: 50, test: 50}
subset: {frac: 0.5}
sample:
  models: 40
  axes:
    lr: {log_uniform: [1e-3, 1e-2]}
    trigger_frac: [0.05, 0.2]
    trigger_target: {integer: [0, 9]}
    trigger_opacity: {uniform: [0.2, 1]}
  twins: {trigger_frac: 0}
paired: [trigger_frac, trigger_target, trigger_opacity]
"""


def test_the_twin_of_a_drawn_point_differs_in_what_is_said_and_shares_every_stream(plan: Plan) -> None:
    planned = plan(POISONED)
    assert len(planned) == 40
    for drawn, twin in zip(planned[::2], planned[1::2], strict=True):
        assert drawn.settings["trigger_frac"] in (0.05, 0.2)
        assert twin.settings["trigger_frac"] == 0
        assert twin.settings["trigger_target"] is None
        assert (drawn.keys, drawn.split, drawn.settings["lr"]) == (twin.keys, twin.split, twin.settings["lr"])
    assert len({r.init_group for r in planned}) == 20
    assert {r.split for r in planned} == {"train", "test"}


def test_a_prefix_of_twins_is_half_clean_and_the_draws_are_those_without_them(plan: Plan) -> None:
    some = plan(POISONED, "limit=12")
    assert [r.settings["trigger_frac"] > 0 for r in some] == [True, False] * 6
    alone = plan(POISONED.replace("  twins: {trigger_frac: 0}\n", "").replace("models: 40", "models: 20"))
    assert [r.id for r in plan(POISONED)[::2]] == [r.id for r in alone]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "sample.models=41",
            "`axes` cross to 1 points and their twins, of which each drawn one has all: a multiple of 2",
        ),
        ("sample.twins={lr: 0.1}", "axis that is drawn and paired 'lr'"),
        ("sample.twins={}", "the settings in which they differ are needed"),
        ("sample.twins={trigger_frac: many}", "many"),
        ("sample.twin={trigger_frac: 0}", "Did you mean `twins`"),
    ],
)
def test_twins_that_are_none_are_refused(plan: Plan, change: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        plan(POISONED, change)
