"""A grid that starts from another zoo's snapshots: what its models go on with, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from resealed import reseal

from zoo_builder import grid, plan, verify, worker
from zoo_builder.build import build
from zoo_builder.planning import cohorts, lineage, runs
from zoo_builder.recipe import recipe_yaml, settings
from zoo_datasets import open_zoo
from zoo_datasets.core import streams
from zoo_datasets.errors import BuildError, GridError, IntegrityError
from zoo_datasets.format import check
from zoo_datasets.format.manifest_parts import SplitRule
from zoo_datasets.networks import kernels

# Everything that a stream or the optimizer's state enters: dropout, augmentation, Adam.
PARENT = {
    "zoo": "weightzoo/parent",
    "source": {"id": "digits", "train": 100, "validation": 20, "test": 40},
    "architecture": ["flatten", {"linear": 6}, "activation", "dropout", {"linear": "classes"}],
    "dropout": 0.2,
    "augmentation": {"shift": 1},
    "training": {"epochs": 4, "batch_size": 32, "lr": 0.01, "optimizer": "adam"},
    "replicates": 4,
    "snapshots": {"steps": [0, 3, 4, 8, 12, 16], "optimizer": True},
    "cohort_size": 3,
}
ENGINES = [
    pytest.param("native", marks=pytest.mark.skipif(kernels.missing() is not None, reason="no native engine")),
    "torch_loop",
]
Make = Callable[..., Path]


def child_of(
    parent: Path | str, *, epoch: float | None = 2, zoo: str = "weightzoo/child", **changes: Any
) -> dict[str, Any]:
    """The recipe of PARENT continued for two epochs, with other blocks."""
    start = {"zoo": str(parent)} | ({"epoch": epoch} if epoch is not None else {})
    training = PARENT["training"] | {"epochs": 2} | changes.pop("training", {})
    own = {k: v for k, v in PARENT.items() if k not in ("replicates", "splits")}
    return own | {
        "zoo": zoo, "init": start | changes.pop("init", {}), "training": training,
        "snapshots": {"epochs": [0, 1, 2], "optimizer": True}, **changes,
    }  # fmt: skip


def load(document: dict[str, Any], folder: Path, *changes: str, limit: int | None = None) -> grid.Grid:
    path = folder / f"{streams.digest(document)[:8]}.yaml"
    path.write_text(recipe_yaml.dump(document))
    return grid.load(path, changes, limit)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The sealed zoo of a document, built in this process, once."""
    folder = tmp_path_factory.mktemp("zoos")
    built: dict[str, Path] = {}

    def build_one(document: dict[str, Any], engine: str = "auto") -> Path:
        key = streams.digest([document, engine])
        if key not in built:
            built[key] = folder / key[:8] / document["zoo"].split("/")[1]
            build(plan.plan(load(document, folder), engine=engine), built[key], workers=0)
        return built[key]

    return build_one


@pytest.fixture(scope="module")
def parent(make: Make) -> Path:
    return make(PARENT)


@pytest.fixture(scope="module")
def child(make: Make, parent: Path) -> Path:
    return make(child_of(parent))


def hashes(root: Path) -> dict[tuple[str, int], tuple[str, str, float]]:
    """(model, step) → what its snapshot is: weights, optimizer state, test loss."""
    columns = ["model_id", "step", "weights_sha256", "optimizer_sha256", "test_loss"]
    rows = open_zoo(root).table(columns).to_pylist()
    return {(r["model_id"], r["step"]): (r["weights_sha256"], r["optimizer_sha256"], r["test_loss"]) for r in rows}


def models(root: Path) -> list[dict[str, Any]]:
    return open_zoo(root).models.to_pylist()


def assert_is_the_parent_trained_longer(child: Path, ancestor: Path, before: int = 0) -> None:
    """Every snapshot of a child at step s is its ancestor's at before + parent_step + s, bit for bit."""
    theirs, ours = hashes(ancestor), hashes(child)
    rows = {r["model_id"]: r for r in models(child)}
    assert len(rows) == 4
    for (model, step), found in ours.items():
        row = rows[model]
        assert row["relation"] == "continuation"
        assert found == theirs[row["lineage_root"], before + row["parent_step"] + step]


# ── the clean continuation is the parent trained longer ──


@pytest.mark.some(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["adam", "momentum", "rmsprop", "sgd"])
@pytest.mark.slow
def test_a_clean_continuation_is_the_parent_trained_longer(make: Make, engine: str, optimizer: str) -> None:
    recipe = PARENT | {"training": PARENT["training"] | {"optimizer": optimizer}}
    parent = make(recipe, engine)
    child = make(child_of(parent, training={"optimizer": optimizer}), engine)
    assert_is_the_parent_trained_longer(child, parent)


@pytest.mark.some(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.slow
def test_so_is_one_that_starts_inside_an_epoch(make: Make, engine: str) -> None:
    parent = make(PARENT, engine)
    recipe = child_of(parent, epoch=None, init={"step": 3}, training={"epochs": None, "steps": 13})
    recipe["snapshots"] = {"steps": [0, 1, 5, 9, 13], "optimizer": True}
    child = make(recipe, engine)
    assert_is_the_parent_trained_longer(child, parent)
    seen = {r["step"]: r["examples_seen"] for r in open_zoo(child).snapshots.to_pylist()}
    # 100 images in batches of 32: the fourth batch of an epoch has 4, and the first step takes that one.
    assert seen == {0: 0, 1: 4, 5: 104, 9: 204, 13: 304}


@pytest.mark.parametrize(("examples", "steps"), [(4, 1), (5, 2), (104, 5), (204, 9), (205, 10)])
@pytest.mark.slow
def test_a_budget_in_examples_counts_from_inside_the_epoch(
    parent: Path, tmp_path: Path, examples: int, steps: int
) -> None:
    recipe = child_of(parent, epoch=None, init={"step": 3}, training={"epochs": None, "examples": examples})
    planned = plan.plan(load(recipe | {"snapshots": {"steps": [0]}}, tmp_path))
    assert {s for c in planned.cohorts for s in c.steps} == {steps}


@pytest.mark.slow
def test_a_grandchild_goes_on_where_its_parent_stood(make: Make, parent: Path) -> None:
    child = make(child_of(parent, epoch=1, training={"epochs": 2}))
    grandchild = make(child_of(child, epoch=1, zoo="weightzoo/grandchild", training={"epochs": 2}))
    assert_is_the_parent_trained_longer(grandchild, parent, before=4)
    for row in models(grandchild):
        assert (row["stream_step"], row["optimizer_step"], row["parent_step"]) == (8, 8, 4)
        assert row["lineage_root"] in {r["model_id"] for r in models(parent)}
        assert row["parent_id"] in {r["model_id"] for r in models(child)}


@pytest.mark.slow
def test_fresh_moments_are_no_continuation(make: Make, parent: Path, child: Path) -> None:
    reset = make(child_of(parent, init={"optimizer": "reset"}))
    rows = models(reset)
    assert {(r["relation"], r["optimizer_step"], r["parent_optimizer_sha256"]) for r in rows} == {
        ("variation", 0, None)
    }
    assert {r["stream_step"] for r in rows} == {8}
    at_end = [{h[0] for (_, step), h in hashes(z).items() if step == 8} for z in (reset, child)]
    assert not at_end[0] & at_end[1]


# ── what a child is ──


@pytest.mark.slow
def test_children_inherit_split_init_group_streams_and_ancestor(parent: Path, child: Path) -> None:
    theirs = {r["model_id"]: r for r in models(parent)}
    stored = hashes(parent)
    for row in models(child):
        origin = theirs[row["parent_id"]]
        for name in ("split", "init_group", *(f"{s}_key" for s in runs.STREAMS)):
            assert row[name] == origin[name], name
        assert (row["parent_zoo"], row["parent_step"], row["lineage_root"]) == ("weightzoo/parent", 8, row["parent_id"])
        assert (row["parent_sha256"], row["parent_optimizer_sha256"]) == stored[row["parent_id"], 8][:2]
        assert row["replicate_init"] == origin["plan_index"] == row["plan_index"]
        assert (row["init_zoo"], row["init_epoch"], row["init_optimizer"]) == ("weightzoo/parent", 2.0, "continue")
        assert row["init_kind"] is None
        assert row["model_id"] != row["parent_id"]
    assert open_zoo(child).manifest.splits == SplitRule({}, "inherited")
    card = (child / "README.md").read_text()
    assert "start from snapshots of `weightzoo/parent`" in card
    assert "state at each snapshot lies in `optimizer/`" in card


@pytest.mark.slow
def test_a_zoo_without_parents_has_no_column_of_them(tiny_zoo: Path) -> None:
    zoo = open_zoo(tiny_zoo)
    assert not {"parent_zoo", "stream_step", "init_zoo", "init_epoch"} & set(zoo.models.column_names)
    assert "optimizer_sha256" not in zoo.snapshots.column_names
    assert zoo.manifest.optimizer_state is None
    assert not (tiny_zoo / "optimizer").exists()


@pytest.mark.slow
def test_twins_start_from_one_snapshot_and_see_one_order(make: Make, parent: Path) -> None:
    levels = ["full", {"rotate_degrees": 30}, {"label_noise_frac": 0.2}, {"trigger_frac": 0.2, "trigger_target": 0}]
    root = make(child_of(parent, axes={"subset": levels}))
    zoo = open_zoo(root)
    assert zoo.paired == ["subset"]
    assert len(zoo.pairs("subset", ("full", "rotate_degrees=30.0"))) == 4
    assert {(r["subset"], r["relation"]) for r in models(root)} == {
        ("full", "continuation"), ("rotate_degrees=30.0", "variation"), ("label_noise_frac=0.2", "variation"),
        ("trigger_frac=0.2,trigger_target=0", "variation"),
    }  # fmt: skip
    by_parent: dict[str, set[Any]] = {}
    for row in models(root):
        by_parent.setdefault(row["parent_id"], set()).add((row["order_key"], row["subset_key"], row["split"]))
    assert [len(found) for found in by_parent.values()] == [1] * 4
    started = zoo.select(step=0).table(["parent_id", "weights_sha256", "parent_sha256"]).to_pylist()
    assert all(r["weights_sha256"] == r["parent_sha256"] for r in started)
    turned = zoo.select(rotate_degrees=30.0).column("model_id")[0].as_py()
    upright = next(
        r["model_id"]
        for r in models(root)
        if r["subset"] == "full" and r["init_group"] == zoo.row(turned)["init_group"]
    )
    assert zoo.training_examples(turned).rows.tolist() == zoo.training_examples(upright).rows.tolist()
    assert (zoo.training_images(turned) != zoo.training_images(upright)).any()


def test_repeats_of_the_order_are_new_orders_and_the_first_is_the_parents(tmp_path: Path, parent: Path) -> None:
    planned = plan.plan(load(child_of(parent, replicates={"order": 2}), tmp_path)).runs
    assert [(r.replicate["init"], r.replicate["order"]) for r in planned] == [
        (i, o) for i in range(4) for o in range(2)
    ]
    origin = {r["model_id"]: r for r in models(parent)}
    for first, second in zip(planned[::2], planned[1::2], strict=True):
        row = origin[first.start.model_id]
        assert first.keys["order"] == row["order_key"] != second.keys["order"]
        assert first.keys["subset"] == second.keys["subset"] == row["subset_key"]
        assert [r.start.relation for r in (first, second)] == ["continuation", "variation"]


def test_parents_that_do_not_say_what_trained_them_are_taken(parent: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(parent, bare)
    for path in (bare / "data" / "models").glob("*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["isa"]), path)
    planned = plan.plan(load(child_of(reseal(bare)), tmp_path))
    assert len(planned.runs) == 4


@pytest.mark.parametrize("more", [{}, {"replicates": {"order": 2}}])
def test_a_seed_that_draws_nothing_is_said_to(
    tmp_path: Path, parent: Path, caplog: pytest.LogCaptureFixture, more: dict[str, Any]
) -> None:
    first = [r.id for r in plan.plan(load(child_of(parent, **more), tmp_path)).runs]
    assert "changes nothing" not in caplog.text
    assert [r.id for r in plan.plan(load(child_of(parent, seed=5, **more), tmp_path)).runs] == first
    assert "`seed: 5` changes nothing: children go on in the random streams of their parents" in caplog.text


@pytest.mark.slow
def test_who_learns_other_data_or_by_another_engine_is_no_parent_trained_longer(
    make: Make, parent: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def relations(document: dict[str, Any], engine: str = "auto") -> set[str]:
        caplog.clear()
        return {r["relation"] for r in models(make(document, engine))}

    assert relations(child_of(parent)) == {"continuation"}
    assert "learn other data" not in caplog.text
    assert relations(child_of(parent, zoo="weightzoo/by-torch"), "torch_loop") == {"variation"}
    other = make(child_of(parent, zoo="weightzoo/by-torch"), "torch_loop")
    report = verify.verify(other)
    assert (report.problems, [w for w in report.warnings if "relation" in w]) == ([], [])
    forged = tmp_path / "forged"  # as older versions wrote it
    shutil.copytree(other, forged)
    for path in (forged / "data" / "models").glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        said = pa.array(["continuation"] * len(table))
        pq.write_table(table.set_column(table.column_names.index("relation"), "relation", said), path)
    report = verify.verify(reseal(forged))
    assert [p for p in report.problems if "README" not in p] == []
    assert any("`relation` of 4 models is `continuation`, as older versions wrote it" in w for w in report.warnings)
    by_torch = make(PARENT, "torch_loop")
    assert relations(child_of(by_torch), "torch_loop") == {"continuation"}
    # A table of one's own, of which the rows are other ones the next day.
    folder = tmp_path / "data" / "mine" / "table"
    folder.mkdir(parents=True)
    source = {"id": "mine/table", "path": str(folder), "train": 60, "validation": 20, "test": 20}
    recipe = {k: v for k, v in PARENT.items() if k != "augmentation"} | {"source": source}
    rng = np.random.default_rng(0)

    def write() -> None:
        rows = [f"{a:.4f},{b:.4f},{'ab'[i % 2]}" for i, (a, b) in enumerate(rng.normal(size=(120, 2)))]
        (folder / "train.csv").write_text("\n".join(["x,y,label", *rows]))

    write()
    first = make(recipe | {"zoo": "weightzoo/table"})
    child = {k: v for k, v in child_of(first, source=source).items() if k != "augmentation"}
    assert relations(child) == {"continuation"}
    write()
    assert relations(child | {"zoo": "weightzoo/table-later"}) == {"variation"}
    assert "4 children learn other data than their parents did, which is called mine/table too" in caplog.text


def test_the_first_parents_in_plan_order_are_a_prefix(tmp_path: Path, parent: Path) -> None:
    whole = [r.id for r in plan.plan(load(child_of(parent), tmp_path)).runs]
    for n in (1, 3, 9):
        assert [r.id for r in plan.plan(load(child_of(parent, init={"models": n}), tmp_path)).runs] == whole[:n]
    assert [r.id for r in plan.plan(load(child_of(parent), tmp_path, limit=2)).runs] == whole[:2]


def test_a_start_is_named_by_its_place_among_the_snapshots(tmp_path: Path, parent: Path) -> None:
    for place, step in ((0, 0), (1, 3), (-1, 16), (-6, 0)):
        planned = plan.plan(load(child_of(parent, epoch=None, init={"snapshot": place}), tmp_path))
        assert [r.start.step for r in planned.runs] == [step] * 4
    for place in (6, -7):
        with pytest.raises(GridError, match="has a snapshot at the epoch, step or place that `init` asks for"):
            plan.plan(load(child_of(parent, epoch=None, init={"snapshot": place}), tmp_path))


def test_a_place_is_one_among_its_own_models_snapshots(parent: Path) -> None:
    """Parents that ended at different steps have different last ones."""
    there = lineage.open_parents(str(parent))
    row = there.rows[0]
    kept = there.snapshots[row["model_id"]]
    shorter = {row["model_id"]: {s: kept[s] for s in (3, 8, 0)}}
    ended = dataclasses.replace(there, snapshots={**there.snapshots, **shorter})
    assert ended.step(row, None, None, -1) == 8
    assert ended.step(there.rows[1], None, None, -1) == 16
    assert ended.step(row, None, None, 3) is None
    assert (ended.step(row, None, 8, None), ended.step(row, 1.0, None, None)) == (8, None)


def test_what_is_kept_is_each_parents_own(make: Make, tmp_path: Path) -> None:
    """Parents that differ, and children that have of it what is kept; the rest is the recipe's."""
    axes = {
        "architecture": [["flatten", {"linear": n}, "activation", {"linear": "classes"}] for n in (4, 5)],
        "activation": ["tanh", "gelu"],
        "optimizer": ["momentum", "adam"],
        "source_train": [60, 100],
    }
    dropped = ("architecture", "dropout", "replicates", "augmentation")
    of = {k: v for k, v in PARENT.items() if k not in dropped}
    training = {k: v for k, v in PARENT["training"].items() if k != "optimizer"} | {"momentum": 0.5}
    sizes = {"source": {"id": "digits", "validation": 20, "test": 40}}
    first = make(of | sizes | {"zoo": "weightzoo/many", "axes": axes, "training": training})
    of.pop("source")
    start = {"zoo": str(first), "snapshot": -1, "keep": ["source", "architecture", "optimizer"]}
    recipe = of | {"zoo": "weightzoo/kept", "init": start, "training": {"epochs": 1, "lr": 0.02, "batch_size": 16}}
    second = make(recipe | {"snapshots": {"epochs": [0, 1]}})
    parents = {r["model_id"]: r for r in models(first)}
    children = models(second)
    kept = (
        "source",
        "source_train",
        "n_train",
        "architecture",
        "architecture_id",
        "activation",
        "optimizer",
        "momentum",
        "beta1",
    )
    assert len(children) == 16
    assert len({tuple(row[k] for k in kept) for row in children}) == 16
    for row in children:
        theirs = parents[row["parent_id"]]
        assert [row[k] for k in kept] == [theirs[k] for k in kept]
        assert row["momentum"] == (0.5 if row["optimizer"] == "momentum" else None)
        assert (row["lr"], row["batch_size"], row["init_snapshot"], row["relation"]) == (0.02, 16, -1, "variation")
    assert "init_keep" not in children[0]
    starts, ends = ({r["model_id"]: r["weights_sha256"] for r in open_zoo(z).table(["model_id", "step", "weights_sha256"]).to_pylist()
                     if r["step"] == at} for z, at in ((second, 0), (first, 16)))  # fmt: skip
    ended = [row for row in children if parents[row["parent_id"]]["n_train"] == 100]
    assert len(ended) == 8
    for row in ended:
        assert starts[row["model_id"]] == ends[row["parent_id"]]
    assert verify.verify(second, retrain=3).problems == []


@pytest.mark.parametrize(
    ("keep", "given", "said"),
    [
        (["source"], {"source": "digits"}, "`source` is given here, and `init: {keep: …}` takes `source`"),
        (["architecture"], {}, "`architecture` is given here, and `init: {keep: …}` takes `architecture`"),
        (["activation"], {"axes": {"activation": ["relu", "tanh"]}}, "`activation` is given here"),
        (["optimizer"], {"training": {"momentum": 0.5, "optimizer": "momentum"}}, "takes `optimizer` from the parents"),
        (["epochs"], {}, "setting to keep 'epochs'"),
        (["init_std"], {}, "setting to keep 'init_std'"),
        (["colour"], {}, "setting to keep 'colour'"),
        (["momentum"], {}, "`momentum` goes with `optimizer`; keep that."),
        (["mup_base"], {}, "`mup_base` goes with `parameterization`; keep that."),
        (["label_noise_frac"], {}, "`label_noise_frac` goes with `subset`; keep that."),
        (["subset"], {"subset": "full"}, "`subset` is given here, and `init: {keep: …}` takes `subset`"),
        (["subset"], {"subset": {}}, "`subset` is given here"),
        (["augmentation"], {"augmentation": "none"}, "`augmentation` is given here"),
        (["schedule"], {"augmentation": "none", "training": {"schedule": "constant"}}, "`schedule_kind` is given here"),
        (["patience"], {"training": {"patience": 3}}, "`patience` is given here"),
    ],
)
def test_what_is_kept_is_not_given_too(
    keep: list[str], given: dict[str, Any], said: str, tmp_path: Path, parent: Path
) -> None:
    with pytest.raises(GridError, match=re.escape(said)):
        plan.plan(load(child_of(parent, init={"keep": keep}, **given), tmp_path))


def test_what_is_kept_has_all_that_it_needs() -> None:
    """So that no value is kept of which the parent had none because it meant nothing there."""
    for name, kept in settings.KEPT.items():
        for needs in (settings.SETTINGS[k].needs for k in kept):
            assert needs is None or needs.setting in kept, name


def test_a_stop_rule_that_is_kept_may_have_a_least_number_of_epochs(tmp_path: Path, parent: Path) -> None:
    planned = plan.plan(load(child_of(parent, init={"keep": ["patience"]}, training={"min_epochs": 1}), tmp_path))
    assert {(r.settings["patience"], r.settings["min_epochs"]) for r in planned.runs} == {(None, 1)}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (
            "lr",
            float("nan"),
            r"weightzoo/parent, model [0-9a-f]{16}, by `init: {keep: …}`: `lr` is nan; a number is needed",
        ),
        ("lr", None, "`lr` is None; a number is needed"),
        ("scale", "bogus", "Unknown scale 'bogus'"),
        ("optimizer", "lion", "Unknown optimizer 'lion'"),
        ("architecture", "layers-0123", "Unknown architecture preset 'layers-0123'"),
        ("loss", 7, "Unknown loss"),
    ],
)
def test_what_a_parent_says_of_itself_is_read_as_a_recipe_is(
    setting: str, value: object, said: str, tmp_path: Path, parent: Path
) -> None:
    opened = lineage.open_parents(str(parent))
    spoilt = dataclasses.replace(opened, rows=tuple({**row, setting: value} for row in opened.rows))
    kept = next(name for name, names in settings.KEPT.items() if setting in names)
    recipe = child_of(parent, init={"keep": [kept], "optimizer": "reset"}, training={"batch_size": 16})
    recipe["training"] = {k: v for k, v in recipe["training"].items() if k not in settings.KEPT[kept]}
    recipe.pop(kept, None)
    with pytest.raises(GridError, match=said):
        runs.of(load(recipe, tmp_path), spoilt)


def test_dropout_without_a_layer_in_the_kept_architectures_is_refused(tmp_path: Path, make: Make) -> None:
    plain = ["flatten", {"linear": 6}, "activation", {"linear": "classes"}]
    first = make({k: v for k, v in PARENT.items() if k != "dropout"} | {"architecture": plain})
    recipe = child_of(first, init={"keep": ["architecture"]}, axes={"dropout": [0.1, 0.5]})
    for name in ("architecture", "dropout"):
        recipe.pop(name)
    with pytest.raises(GridError, match=r"no architecture that is kept of .* has a layer `dropout` that takes it"):
        plan.plan(load(recipe, tmp_path))


def test_a_kept_source_may_be_told_where_it_lies(tmp_path: Path, parent: Path) -> None:
    recipe = child_of(parent, init={"keep": ["source"]}, source={"id": "digits", "path": "/somewhere"})
    loaded = load(recipe, tmp_path)
    assert loaded.source_paths == {"digits": "/somewhere"}
    assert "source" not in loaded.document
    with pytest.raises(GridError, match="`source` is given here"):
        load(recipe | {"source": {"id": "digits"}}, tmp_path)


@pytest.mark.parametrize(("column", "values"), [("n_train", 0), ("batch_size", None), ("momentum", "drop")])
def test_a_zoo_that_does_not_say_how_it_was_trained_is_nobodys_parent(
    column: str, values: int | str | None, tmp_path: Path, parent: Path
) -> None:
    root = tmp_path / "spoilt"
    shutil.copytree(parent, root)
    for path in sorted((root / "data" / "models").iterdir()):
        table = pq.read_table(path)
        at = table.column_names.index(column)
        of = table.schema.field(at)
        table = (
            table.remove_column(at)
            if values == "drop"
            else table.set_column(at, of, pa.array([values] * len(table), of.type))
        )
        pq.write_table(table, path)
    with pytest.raises(GridError, match=rf"does not say how its models were trained \(no column {column}\)"):
        lineage.open_parents(str(reseal(root)))


def test_an_axis_of_epochs_starts_each_parent_at_each(tmp_path: Path, parent: Path) -> None:
    planned = plan.plan(load(child_of(parent, epoch=None, axes={"init_epoch": [1, 3]}), tmp_path))
    assert sorted((r.replicate["init"], r.start.step) for r in planned.runs) == [
        (i, s) for i in range(4) for s in (4, 12)
    ]
    assert {c.stream_step for c in planned.cohorts} == {4, 12}
    assert all(len({r.start.step for r in c.runs}) == 1 for c in planned.cohorts)


STARTS = {
    "init_epoch": {"axes": {"init_epoch": [1, 3]}},
    "init_step": {"axes": {"init_step": [3, 4, 8]}},
    "init_snapshot": {"axes": {"init_snapshot": [1, 2, -2]}},
    "init_optimizer": {"axes": {"init_optimizer": ["continue", "reset"]}, "init": {"epoch": 2}},
}


@pytest.mark.some(2)
@pytest.mark.parametrize("setting", settings.feeding(settings.Feeds.LINEAGE))
@pytest.mark.slow
def test_models_that_differ_in_their_start_alone_are_trained_as_they_are_alone(
    setting: str, tmp_path: Path, parent: Path
) -> None:
    """The promise of tests/planning/test_every_setting.py, for what a start is."""
    if setting not in STARTS:
        assert setting in ("init_zoo", "init_models", "init_keep")  # a recipe has one, for all of its runs
        assert not settings.SETTINGS[setting].axis
        return
    planned = plan.plan(load(child_of(parent, epoch=None, **STARTS[setting]), tmp_path), engine="torch_loop")
    (source,) = planned.sources.values()

    def weights(cohort: cohorts.Cohort) -> list[list[tuple[int, str]]]:
        snapshots, _, _ = worker.train(cohort, source, None, parent)
        return [[(s.step, s.sha256) for s in snapshots if s.model == m] for m in range(len(cohort.runs))]

    assert any(len(c.runs) > 1 for c in planned.cohorts)
    ends = []
    for cohort in planned.cohorts:
        alone = [weights(dataclasses.replace(cohort, runs=(run,)))[0] for run in cohort.runs]
        assert weights(cohort) == alone
        ends += [model[-1] for model in alone]
    assert len(set(ends)) == len(planned.runs)


def test_a_start_inside_an_epoch_keeps_its_batches(parent: Path, tmp_path: Path) -> None:
    recipe = child_of(parent, epoch=None, init={"step": 3}, training={"batch_size": 16})
    theirs, ours = "100 training images in batches of 32", "100 in batches of 16"
    with pytest.raises(GridError, match=f"stands inside an epoch of {theirs}, and this run has {ours}"):
        plan.plan(load(recipe, tmp_path))


@pytest.mark.slow
def test_where_the_parent_lies_changes_no_byte_of_a_table(
    parent: Path, child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(parent, tmp_path / "weightzoo" / "parent")
    monkeypatch.chdir(tmp_path)
    build(plan.plan(load(child_of("weightzoo/parent"), tmp_path)), tmp_path / "out", workers=0)
    assert open_zoo(tmp_path / "out").manifest.digests == open_zoo(child).manifest.digests


@pytest.mark.slow
def test_models_that_ended_before_are_left_out(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wild = make(
        PARENT | {"axes": {"lr": [0.01, 1e30]}, "training": {k: v for k, v in PARENT["training"].items() if k != "lr"}}
    )
    with caplog.at_level("WARNING", "zoo_builder"):
        planned = plan.plan(load(child_of(wild), tmp_path)).runs
    assert 0 < len(planned) < 8
    assert {r.start.step for r in planned} == {8}
    assert (
        "runs have no start: their parents in weightzoo/parent have no snapshot there; snapshots are at epochs"
        in caplog.text
    )


@pytest.mark.slow
def test_moments_that_were_not_kept_start_at_zero_and_it_is_said(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = make(PARENT | {"snapshots": {"epochs": [0, 2]}})
    with caplog.at_level("WARNING", "zoo_builder"):
        planned = plan.plan(load(child_of(bare), tmp_path)).runs
    assert {(r.settings["init_optimizer"], r.start.updates, r.start.relation) for r in planned} == {
        ("reset", 0, "variation")
    }
    assert "start with fresh optimizer moments: weightzoo/parent kept none" in caplog.text


# ── the state that is kept ──


def test_the_optimizers_state_lies_in_the_row_of_the_weights(parent: Path) -> None:
    zoo = open_zoo(parent)
    assert zoo.manifest.optimizer_state is True
    listed = set(zoo.manifest.files)
    assert {f"optimizer/{s}-00000-of-00001.safetensors" for s in ("train", "validation", "test")} <= listed
    parents = lineage.open_parents(str(parent))
    for row in parents.rows:
        state = lineage.load(parent, [parents.start(row, s, True, "continuation") for s in (0, 4, 16)])
        assert not state.slot1[0].any()
        assert state.slot1[1:].any(axis=1).all()
        assert (state.slot2 >= 0).all()
        assert (state.weights[2] == zoo.vector(row["model_id"], 16)).all()


@pytest.mark.slow
def test_check_and_verify_pass(parent: Path, child: Path) -> None:
    for root in (parent, child):
        report = verify.verify(root, retrain=2)
        assert report.problems == []
        assert any(line.startswith("optimizer state: ") for line in report.lines)
        assert any("retrained, bit for bit" in line for line in report.lines)
    assert "lineage: 4 models start from the snapshot that their row names" in report.lines


def flip(path: Path, at: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.some(1)
@pytest.mark.parametrize("folder", ["weights", "optimizer"])
@pytest.mark.slow
def test_a_parent_whose_bytes_changed_is_not_started_from(parent: Path, tmp_path: Path, folder: str) -> None:
    copy = Path(shutil.copytree(parent, tmp_path / "parent"))
    for path in (copy / folder).iterdir():
        flip(path)
    reseal(copy)
    assert any("checksum" in p for p in check.check(copy).problems)
    planned = plan.plan(load(child_of(copy, epoch=4), tmp_path))
    what = {"weights": "weights", "optimizer": "optimizer state"}[folder]
    with pytest.raises(BuildError, match="cohorts failed"):
        build(planned, tmp_path / "out", workers=0)
    failures = [json.loads(p.read_bytes())["error"] for p in (tmp_path / "out" / ".build" / "failed").iterdir()]
    assert all(f"The {what} of model" in f and "differ from their checksum" in f for f in failures)


def test_a_parent_whose_tables_changed_is_refused(parent: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(parent, tmp_path / "parent"))
    flip(next((copy / "data" / "snapshots").iterdir()), 40)
    with pytest.raises(IntegrityError, match="has other contents than were sealed"):
        lineage.open_parents(str(copy))


@pytest.mark.slow
def test_check_finds_a_hole_in_the_optimizers_state(parent: Path, tmp_path: Path) -> None:
    from zoo_datasets.format import shards

    copy = Path(shutil.copytree(parent, tmp_path / "parent"))
    path = copy / "optimizer" / "train-00000-of-00001.safetensors"
    (name, (_, shape)), *_ = sorted(shards.read_header(path)[0].items())
    short = np.zeros((shape[0] - 1, shape[1]), np.float32)
    shards.write(path, {name: short.shape, name.replace("slot1", "slot2"): short.shape}, lambda n: [short])
    reseal(copy)
    assert any(
        p.startswith("optimizer state of model") or "optimizer state differs" in p for p in check.check(copy).problems
    )


# ── going on after a kill, and elsewhere ──


def build_here(recipe: str, out: str) -> None:
    build(plan.plan(grid.load(recipe)), Path(out), workers=0, checkpoint_every_s=0.0)


@pytest.mark.some(1)
@pytest.mark.parametrize("point", ["after_part", "after_checkpoint", "after_commit", "before_manifest"])
def test_killed_and_gone_on_with_is_the_unbroken_build(
    parent: Path,
    child: Path,
    tmp_path: Path,
    elsewhere: Callable[..., Any],
    tree_hash: Callable[[Path], Any],
    point: str,
) -> None:
    recipe = load(child_of(parent), tmp_path)
    path, out = next(tmp_path.glob("*.yaml")), tmp_path / "out"
    ended = elsewhere(build_here, str(path), str(out), env={"ZOO_FAULT": f"{point}:{tmp_path}"})
    assert ended.code == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    build(plan.plan(recipe), out, workers=0, checkpoint_every_s=0.0)
    assert tree_hash(out) == tree_hash(child)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_builds_the_same_zoo(parent: Path, child: Path, tmp_path: Path, tree_hash: Callable[[Path], Any]) -> None:
    build(plan.plan(load(child_of(parent), tmp_path)), tmp_path / "out", workers=2)
    assert tree_hash(tmp_path / "out") == tree_hash(child)


@pytest.mark.slow
def test_a_changed_parent_is_another_recipe(make: Make, parent: Path, child: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(parent, tmp_path / "parent"))
    document = child_of(copy)
    out = tmp_path / "out"
    build(plan.plan(load(document, tmp_path)), out, workers=0)
    shutil.rmtree(copy)
    shutil.copytree(make(PARENT | {"seed": 1}), copy)
    with pytest.raises(BuildError, match=r"holds the zoo of another recipe: .*parents.*there"):
        build(plan.plan(load(document, tmp_path)), out, workers=0)


# ── what is refused ──


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": {"zoo": "weightzoo/nowhere"}}, "the parent zoo 'weightzoo/nowhere' is not here: .* is no folder. Build it, fetch it"),
        ({"init": {"epoch": 3.5}}, r"No model of weightzoo/parent has a snapshot.*epochs 0, 0\.96, 1, 2, 3, 4"),
        ({"init": {"step": 4}}, "needs one of `epoch`, `step` and `snapshot`"),
        ({"epoch": None}, "needs one of `epoch`, `step` and `snapshot`"),
        ({"init": {"kind": "normal"}}, "`init_kind` is of weights that are drawn; these are taken from"),
        ({"init": {"bias": 0.5}}, "`init_bias` is of weights that are drawn"),
        ({"init": {"optimizer": "keep"}}, "Unknown init_optimizer 'keep'.*Known: continue, reset"),
        ({"axes": {"init_bias": [0, 1]}}, "`init_bias` is of weights that are drawn"),
        ({"axes": {"init": [{"zoo": "a/b", "epoch": 1}]}, "init": {}}, "a level of `init` cannot name a zoo"),
        ({"splits": {"train": 1.0}}, "models keep the split of the model they start from"),
        ({"replicates": 3}, "there are as many starts as models in the parent zoo"),
        ({"replicates": {"init": 2, "order": 2}}, "only `order` and `subset` can be repeated"),
        ({"training": {"optimizer": "momentum"}}, "is of `adam`, and `momentum` cannot go on with it.*optimizer: reset"),
        ({"architecture": ["flatten", {"linear": 7}, "activation", "dropout", {"linear": "classes"}]},
         r"has weights of layout \w+; this recipe's architecture on digits has layout \w+ \(535 values\)"),
        ({"epoch": None, "init": {"step": 3}, "training": {"batch_size": 16}}, "stands inside an epoch"),
        ({"snapshots": {"epochs": [1], "optimizer": 1}}, "`optimizer` is 1; `true` keeps the optimizer's state"),
        ({"snapshots": {"optimizer": True}}, "`snapshots` is {}; one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_started_from_is_refused(
    parent: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(GridError, match=message):
        plan.plan(load(child_of(parent, **changes), tmp_path))


def test_a_state_that_was_not_kept_cannot_be_continued(make: Make, tmp_path: Path) -> None:
    bare = make(PARENT | {"snapshots": {"epochs": [0, 2]}})
    with pytest.raises(GridError, match=r"kept no optimizer state\. Build it with `snapshots: \{…, optimizer: true\}`"):
        plan.plan(load(child_of(bare, init={"optimizer": "continue"}), tmp_path))


@pytest.mark.parametrize("key", ["epoch", "step", "models", "optimizer"])
def test_a_key_of_a_start_needs_a_zoo(tmp_path: Path, key: str) -> None:
    value = "reset" if key == "optimizer" else 1
    with pytest.raises(GridError, match=f"`init_{key}` is given, but no `zoo` to start from"):
        load(PARENT | {"init": {key: value}}, tmp_path)


def test_an_unfinished_parent_is_refused(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "half" / ".build")
    with pytest.raises(GridError, match=r"is not here: .*is not finished: run its build command again"):
        lineage.open_parents(str(tmp_path / "half"))


def test_a_zoo_that_was_not_built_from_a_recipe_cannot_be_gone_on_from(parent: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    copy = Path(shutil.copytree(parent, tmp_path / "parent"))
    for path in (copy / "data" / "models").iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["order_key"]), path, write_page_checksum=True)
    reseal(copy)
    with pytest.raises(GridError, match=r"does not say how its models were trained \(no column order_key\)"):
        lineage.open_parents(str(copy))


def test_rows_give_the_runs_back(parent: Path, child: Path, tmp_path: Path) -> None:
    planned = {r.id: r for r in plan.plan(load(child_of(parent), tmp_path)).runs}
    manifest = open_zoo(child).manifest
    for row in models(child):
        run = runs.from_row(row, manifest.layer_lists)
        assert run == planned[run.id]
        assert dataclasses.replace(run, start=lineage.open_parents(str(parent)).placed(run.start)).start.place
