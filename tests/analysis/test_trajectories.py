"""The trajectories analysis on zoos built for it: its files, its numbers, and nulls that fail."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text
from planted_zoos import planted
from scipy import stats
from sklearn.linear_model import LogisticRegression

from zoo_builder import build, grid, plan
from zoo_datasets import cli
from zoo_datasets.analysis.results import Results
from zoo_datasets.analysis.trajectories import clusters, detection, order, paths, pictures, snapshots, windows
from zoo_datasets.analysis.trajectories import run as trajectories
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("reader_fixtures",)

# Six networks, ten snapshots each, of 10 × 64 + 10 weights: paths that shrink, in a second.
PARENTS = """\
zoo: weightzoo/paths
source: {id: digits, train: 200, validation: 60, test: 80}
architecture: [flatten, {linear: 8}, activation, {linear: classes}]
activation: tanh
replicates: 6
training: {epochs: 10, batch_size: 20, lr: 0.1, optimizer: momentum}
snapshots: every_epoch
"""
CHILDREN = """\
zoo: weightzoo/paths-continued
source: {{id: digits, train: 200, validation: 60, test: 80}}
architecture: [flatten, {{linear: 8}}, activation, {{linear: classes}}]
activation: tanh
init: {{zoo: {parents}, epoch: 8}}
axes: {{subset: [full, {{label_noise_frac: 0.5}}]}}
paired: [subset]
training: {{epochs: 2, batch_size: 20, lr: 0.1, optimizer: momentum}}
snapshots: {{steps: [0, 1, 10, 20]}}
"""


def built(recipe: str, folder: Path) -> Path:
    path = folder / "grid.yaml"
    path.write_text(recipe)
    loaded = grid.load(path)
    out = folder / loaded.zoo
    build.build(plan.plan(loaded), out, workers=0)
    return out


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(PARENTS, tmp_path_factory.mktemp("parents"))


@pytest.fixture(scope="module")
def children(parents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(CHILDREN.format(parents=parents), tmp_path_factory.mktemp("children"))


@pytest.fixture
def analyze(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs the verb and gives `numbers.json`."""

    def run(*arguments: Any) -> dict[str, Any]:
        out = tmp_path / "out"
        common = ("--quiet", "--out", str(out), "--resamples", "200", "--no-umap")
        assert cli.main(["analyze", "trajectories", *map(str, arguments), *common]) == 0
        written = capsys.readouterr().out.split()
        assert sorted(written) == sorted(map(str, out.iterdir()))
        return json.loads((out / "numbers.json").read_text())

    return run


@pytest.mark.slow
def test_the_verb_finds_every_training_run_and_its_order(
    parents: Path, analyze: Callable[..., Any], tmp_path: Path
) -> None:
    numbers = analyze(parents, "--no-pictures")
    assert numbers["population"] == {
        "n_models": 6, "n_snapshots": 60, "n_params": 610, "n_groups": 6, "n_left_out": 0
    }  # fmt: skip
    full = [r for r in numbers["ladder"] if r["dimensions"] == 610]
    assert [(r["metric"], r["linkage"]) for r in full] == [
        (m, l) for m in ("euclidean", "cosine") for l in ("single", "average", "complete", "ward")
    ]
    assert all(r["purity"] == 1.0 and r["adjusted_rand"] == 1.0 for r in full)
    assert full[0]["separation"] > 1
    assert full[0]["tau_found_walk"] > 0.9
    assert full[0]["clusters_by_gap"] == 6
    assert numbers["versioning"]["models_given"]["walk"]["f1_pairs"]["value"] > 0.95
    # The same scores with shuffled labels are those of chance.
    null = numbers["null"]
    assert null["purity"]["most"] < 0.5
    assert abs(null["tau_true_path"]["mean"]) < 0.15
    assert null["f1_pairs"]["most"] < 0.2


@pytest.mark.slow
def test_tables_have_a_row_per_model_per_step_and_per_rung(
    parents: Path, analyze: Callable[..., Any], tmp_path: Path
) -> None:
    numbers = analyze(parents, "--dims", 20, 3, "--first-epoch", 0)
    models, steps, rungs = (
        pq.read_table(tmp_path / "out" / f"{n}.parquet") for n in ("trajectories", "steps", "ladder")
    )
    assert (len(models), len(steps), len(rungs)) == (6, 60, 3 * 2 * 4)
    pictures = {p.name for p in (tmp_path / "out").glob("*.svg")}
    assert pictures == {f"{n}.svg" for n in ("dendrogram", "steps", "ladder", "pca")}
    assert rungs["dimensions"].unique().to_pylist() == [610, 20, 3]
    assert rungs.to_pylist() == numbers["ladder"]
    zoo = open_zoo(parents)
    name = models["model_id"][0].as_py()
    weights = zoo.select(model_id=name).weights[:]
    expected = np.linalg.norm(np.diff(weights.astype(float), axis=0), axis=1)
    mine = steps.filter(np.array(steps["model_id"].to_pylist()) == name)
    np.testing.assert_allclose(mine["length"].to_numpy(), expected)
    assert models["length"][0].as_py() == pytest.approx(expected.sum())
    assert mine["curvature"].null_count == 1


@pytest.mark.slow
def test_the_same_call_gives_the_same_bytes(parents: Path, analyze: Callable[..., Any], tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}

    analyze(parents, "--dims", 3)
    first = contents()
    analyze(parents, "--dims", 3)
    assert contents() == first


@pytest.mark.slow
def test_above_the_limit_other_linkages_see_some_trajectories_whole(parents: Path, analyze: Callable[..., Any]) -> None:
    rows = analyze(parents, "--dims", 3, "--most-snapshots", 35, "--no-pictures")["ladder"]
    seen = {r["linkage"]: (r["n_snapshots"], r["n_trajectories"]) for r in rows}
    assert seen == {"single": (60, 6), "average": (30, 3), "complete": (30, 3), "ward": (30, 3)}
    assert all(r["purity"] == 1.0 for r in rows if r["dimensions"] == 610)


def test_what_is_no_population_of_paths_is_refused(
    parents: Path, mixed_zoo: Zoo, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["analyze", "trajectories", str(mixed_zoo.root)]) == 1
    assert "weights of 2 layouts" in capsys.readouterr().err
    assert cli.main(["analyze", "trajectories", str(parents), "--first-epoch", "9"]) == 1
    assert "0 models with at least 3 snapshots from epoch 9 on" in capsys.readouterr().err
    assert cli.main(["analyze", "trajectories", str(parents), "--dims", "700"]) == 1
    assert "these weights have 1 to 610 dimensions" in capsys.readouterr().err
    assert cli.main(["analyze", "trajectories", str(parents), "--most-snapshots", "5"]) == 1
    assert "no room for two trajectories" in capsys.readouterr().err
    for option in ("--resamples", "--dims", "--most-snapshots"):
        for number in ("0", "-3"):
            with pytest.raises(SystemExit) as stop:
                cli.main(["analyze", "trajectories", str(parents), option, number])
            assert stop.value.code == 2
            assert f"{number} is not at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing was written


def test_a_zoo_that_does_not_go_on_is_refused_before_the_long_part(
    parents: Path, tiny_zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "bag", None)  # where the long part begins
    assert cli.main(["analyze", "trajectories", str(parents), "--continued", str(parents)]) == 1
    assert "weightzoo/paths does not go on from weightzoo/paths: model" in capsys.readouterr().err


def test_snapshots_without_an_epoch_are_named(tmp_path: Path) -> None:
    zoo = planted(tmp_path / "imported", n=12).select(width=4)
    with pytest.raises(
        ZooError, match=rf"`epoch` is null for {len(zoo)} of {len(zoo)} snapshots of weightzoo/imported"
    ):
        snapshots.bag(zoo)


def test_trajectories_of_different_length_are_kept_apart(parents: Path) -> None:
    zoo = open_zoo(parents)
    short = zoo.models["model_id"][2].as_py()
    keep = ~((np.array(zoo.column("model_id").to_pylist()) == short) & (zoo.column("epoch").to_numpy() > 4))
    found = snapshots.bag(zoo.take(np.random.default_rng(0).permutation(np.flatnonzero(keep))))
    assert sorted(np.bincount(found.whose)) == [5, 11, 11, 11, 11, 11]
    for model, name in enumerate(found.model_ids):
        rows = found.rows(model)
        np.testing.assert_array_equal(found.weights[rows.start], zoo.vector(name, 0))
        np.testing.assert_array_equal(found.columns["epoch"][rows], np.arange(rows.stop - rows.start))
    few = snapshots.bag(zoo.take(keep), 3.0)
    assert (few.n_models, few.left_out) == (5, 1)


# ── detection ──


@pytest.mark.slow
def test_wrong_labels_show_in_the_trajectory_and_metadata_tells_nothing(
    parents: Path, children: Path, analyze: Callable[..., Any], tmp_path: Path
) -> None:
    numbers = analyze(parents, "--dims", 3, "--continued", children)["detection"]
    [numbers] = numbers
    assert (numbers["axis"], numbers["clean"]) == ("subset", "full")
    rows = numbers["rows"]
    assert {r["condition"] for r in rows} == {"label_noise_frac=0.5"}
    assert sorted({(r["snapshot"], r["steps"]) for r in rows}) == [(1, 1), (2, 10), (3, 20)]
    last = {r["detector"]: r["auc"] for r in rows if r["steps"] == 20}
    assert len(last) == sum(r["steps"] == 20 for r in rows)  # a row for each detector
    assert last["all"] > 0.9
    assert last["feature step"] > 0.9
    assert {r["auc"] for r in rows if r["detector"] == "metadata"} == {0.5}
    assert all(r["low"] <= 0.5 <= r["high"] for r in rows if r["detector"] == "null")
    assert {r["detector"] for r in rows} >= {"loss_change", "test_loss"}
    assert numbers["backdoors"] == {}
    assert pq.read_table(tmp_path / "out" / "detection.parquet").drop_columns("zoo").to_pylist() == rows
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "numbers.json", "trajectories.parquet", "steps.parquet", "ladder.parquet", "detection.parquet",
        *(f"{n}.{kind}" for n in ("dendrogram", "steps", "ladder", "pca", "detection-paths-continued") for kind in ("png", "svg")),
    }  # fmt: skip


@pytest.mark.slow
def test_twins_have_one_parent_and_start_from_its_weights(parents: Path, children: Path) -> None:
    found = detection.read(open_zoo(parents), open_zoo(children), "subset", "full", "label_noise_frac=0.5")
    assert found.features.shape == (12, 3, len(detection.FEATURES))
    np.testing.assert_array_equal(found.lineage[:6], found.lineage[6:])
    np.testing.assert_array_equal(found.metadata[:6], found.metadata[6:])
    assert set(found.lineage) == set(open_zoo(parents).models["model_id"].to_pylist())
    np.testing.assert_array_equal(found.steps, [1, 10, 20])
    losses = {(r["model_id"], r["step"]): r["test_loss"] for r in open_zoo(parents).snapshots.to_pylist()}
    assert found.parent_loss.tolist() == [losses[name, 80] for name in found.lineage]


def test_lineages_that_share_an_initialization_are_one(tmp_path: Path) -> None:
    paired = (
        PARENTS.replace("lr: 0.1, ", "").replace("epochs: 10", "epochs: 2").replace("replicates: 6", "replicates: 5")
    )
    parents = built(paired + "axes: {lr: [0.1, 0.3]}\npaired: [lr]\n", tmp_path)
    whole = open_zoo(parents)
    recipe = (
        CHILDREN.format(parents=parents)
        .replace("epoch: 8", "epoch: 2")
        .replace("[full, ", "[full, {trigger_frac: 0.3, trigger_target: 0}, ")
    )
    children = open_zoo(built(recipe, tmp_path))
    found = detection.read(whole, children, "subset", "full", "label_noise_frac=0.5")
    rows = {r["model_id"]: r for r in whole.models.to_pylist()}
    assert len(found.lineage) == 20  # of ten parents a pair each
    assert (found.lineage[:10] == found.lineage[10:]).all()
    inits = {name: rows[name]["init_group"] for name in found.lineage}
    assert len(inits) == len(set(inits.values())) == 5
    of = detection.lineages(children)
    for row in children.models.to_pylist():
        assert inits[of[row["model_id"]]] == rows[row["lineage_root"]]["init_group"]
    assert np.bincount(detection.folds(found.lineage, 0)).tolist() == [4] * 5
    attack = detection.backdoor(children, "subset", children.axes["subset"][1])
    assert attack is not None
    assert [attack[of]["n_groups"] for of in ("success", "base", "added")] == [5] * 3


@pytest.mark.slow
def test_what_cannot_be_compared_says_why(parents: Path, children: Path, tiny_zoo: Path) -> None:
    continued, whole = open_zoo(children), open_zoo(parents)
    with pytest.raises(ZooError, match=r"has no snapshot before step 80, where .* goes on"):
        detection.read(whole.select(epoch=8), continued, "subset", "full", "label_noise_frac=0.5")
    tiny = open_zoo(tiny_zoo)
    with pytest.raises(ZooError, match=r"weightzoo/tiny does not go on from weightzoo/paths: model .* has no parent"):
        detection.read(whole, tiny, "subset", "full", "frac=0.5")
    with pytest.raises(
        ZooError, match=r"does not go on from .*: model .* starts from .* at step 80, which is no snapshot"
    ):
        detection.read(whole.select(epoch=[0, 7]), continued, "subset", "full", "label_noise_frac=0.5")
    with pytest.raises(ZooError, match="has no level that changes nothing; name with --clean"):
        detection.conditions(continued, "activation")
    with pytest.raises(ZooError, match="name with --condition the axis"):
        detection.conditions(whole)
    with pytest.raises(ZooError, match="4 lineages, those that share an initialization as one; 5-fold"):
        detection.folds(np.arange(4), 0)


def test_features_know_a_straight_continuation_from_a_turn() -> None:
    before, parent = np.zeros(3), np.array([2.0, 0, 0])
    straight = detection.features(before, parent, np.array([[4.0, 0, 0], [5.0, 0, 0]]))
    column = {name: straight[:, i] for i, name in enumerate(detection.FEATURES)}
    np.testing.assert_allclose(column["step"], np.log([1.0, 0.5]))
    np.testing.assert_allclose(column["distance"], np.log([1.0, 1.5]))
    np.testing.assert_allclose(column["length"], np.log([1.0, 1.5]))
    for name in ("onward", "heading", "turning"):
        np.testing.assert_allclose(column[name], 1.0)
    turned = detection.features(before, parent, np.array([[2.0, 2.0, 0], [0.0, 2.0, 0]]))
    column = {name: turned[:, i] for i, name in enumerate(detection.FEATURES)}
    np.testing.assert_allclose(column["onward"], [0.0, -1.0], atol=1e-12)
    np.testing.assert_allclose(column["turning"], [0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(column["heading"], [0.0, -np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(column["curvature"], np.log(np.pi / 2), atol=1e-12)
    # Of a parent that does not move nothing is said: its pairs are left out.
    at_rest = detection.features(parent, parent, turned)
    assert at_rest.shape == turned.shape
    assert np.isnan(at_rest).all()


def twins(shift: float, pairs: int = 60) -> detection.Children:
    """Twins that differ by `shift` standard deviations of their lineage in one feature."""
    random = np.random.default_rng(0)
    base = random.standard_normal((pairs, 1, len(detection.FEATURES)))
    both = np.concatenate([base, base]) + 0.1 * random.standard_normal((2 * pairs, 1, len(detection.FEATURES)))
    both[pairs:, :, 0] += shift
    names = np.tile(np.array([f"model{i:03}" for i in range(pairs)]), 2)
    nothing = np.zeros(2 * pairs)
    return detection.Children(both, names, np.ones((2 * pairs, 2)), nothing[:, None], nothing, np.array([7]))


@pytest.mark.slow
def test_a_shift_is_detected_and_none_is_not() -> None:
    found = {r["detector"]: r for r in detection.detect(twins(3.0), 0)}
    assert found["feature step"]["auc"] > 0.95
    assert found["all"]["low"] > 0.85  # 60 lineages without an error have .94
    assert found["direction"]["low"] < 0.5 < found["direction"]["high"]
    assert abs(found["null"]["auc"] - 0.5) < 0.05
    assert found["metadata"]["auc"] == found["test_loss"]["auc"] == found["loss_change"]["auc"] == 0.5
    same = {r["detector"]: r for r in detection.detect(twins(0.0), 0)}
    assert same["all"]["low"] < 0.5 < same["all"]["high"]


@pytest.mark.slow
def test_the_loss_is_given_what_the_weights_are_given() -> None:
    """A change of the loss that is small beside how lineages differ: seen once the parent's loss is known."""
    random = np.random.default_rng(2)
    whole = twins(0.0)
    parent = np.tile(random.standard_normal(60), 2)
    change = np.concatenate([0.01 * random.standard_normal(60), 0.1 * random.choice([-1, 1], 60)])
    children = dataclasses.replace(whole, parent_loss=parent, test_loss=(parent + change)[:, None])
    found = {r["detector"]: r["auc"] for r in detection.detect(children, 0)}
    assert found["test_loss"] < 0.6
    assert found["loss_change"] > 0.95  # either sign


def test_perfect_separation_of_forty_lineages_allows_nine_per_cent_of_errors() -> None:
    y = np.repeat([0, 1], 40)
    lineage = np.tile(np.arange(40), 2)
    found = detection.bounded([y.astype(float)], y, lineage)
    assert (found["auc"], found["high"]) == (1.0, 1.0)
    assert found["low"] == pytest.approx(0.025 ** (1 / 40))


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5, 3.5])
def test_bounds_cover_the_auc_of_detectors_trained_on_so_many_lineages(shift: float) -> None:
    """The truth is the mean AUC, on new lineages, of all detectors that were trained: their scatter is to be covered."""
    random = np.random.default_rng(int(10 * shift))
    lineages, inputs, turns = 40, 4, 100
    truths, bounds = [], []
    for turn in range(turns):
        common = random.standard_normal((lineages, inputs))
        x = np.concatenate([common, common]) + random.standard_normal((2 * lineages, inputs))
        x[lineages:, 0] += shift
        y, lineage = np.repeat([0, 1], lineages), np.tile(np.arange(lineages), 2)
        deals = [detection.folds(lineage, turn, k) for k in range(2)]
        bounds.append(detection.bounded([detection.out_of_fold(x, y, f) for f in deals], y, lineage))
        model = LogisticRegression().fit(x, y)
        truths.append(stats.norm.cdf(model.coef_[0, 0] * shift / np.linalg.norm(model.coef_) / 2))
    truth = np.mean(truths)  # differences of two independent children have a variance of 2 · 2
    covered = np.mean([b["low"] <= truth <= b["high"] for b in bounds])
    assert covered >= 0.92  # of 100: 95 % less three standard errors is 88 %; seen: 99 % and more
    assert np.median([b["high"] - b["low"] for b in bounds]) < 0.35


@pytest.mark.slow
def test_the_same_data_in_another_order_is_the_control(
    parents: Path, tmp_path: Path, analyze: Callable[..., Any]
) -> None:
    recipe = CHILDREN.format(parents=parents).replace("axes: {subset: [full, {label_noise_frac: 0.5}]}", "").replace(
        "paired: [subset]", "replicates: {order: 2}"
    )  # fmt: skip
    children = built(recipe.replace("paths-continued", "paths-reordered"), tmp_path)
    [found] = analyze(parents, "--dims", 3, "--continued", children, "--no-pictures")["detection"]
    assert found["axis"] is None
    assert {r["condition"] for r in found["rows"]} == {detection.REORDERED}
    of_all = [r for r in found["rows"] if r["detector"] == "all"]
    assert [r["steps"] for r in of_all] == [1, 10, 20]
    assert all(r["low"] <= 0.5 <= r["high"] for r in of_all)
    # It can fail: the children are others.
    whole = detection.read_control(open_zoo(parents), open_zoo(children), None, None)
    assert (whole.features[:6] != whole.features[6:]).any()


BACKDOORS = """\
zoo: weightzoo/paths-backdoors
source: {{id: digits, train: 200, validation: 60, test: 80}}
architecture: [flatten, {{linear: 8}}, activation, {{linear: classes}}]
activation: tanh
init: {{zoo: {parents}, epoch: 8, optimizer: reset}}
axes:
  subset:
    - full
    - {{trigger_frac: 0.005, trigger_target: 0, trigger_size: 2}}
    - {{trigger_frac: 0.3, trigger_target: 0, trigger_size: 3}}
paired: [subset]
training: {{epochs: 8, batch_size: 20, lr: 0.1, optimizer: momentum}}
snapshots: {{epochs: [0, 8]}}
"""


@pytest.mark.slow
def test_an_attack_that_adds_nothing_is_a_change_of_data(parents: Path, tmp_path: Path) -> None:
    children = open_zoo(built(BACKDOORS.format(parents=parents), tmp_path))
    axis, _, (weak, strong) = detection.conditions(children)
    found = {level: detection.backdoor(children, axis, level) for level in ("full", weak, strong)}
    assert found["full"] is None
    assert found[weak] is not None
    assert found[strong] is not None
    assert found[strong]["works"]
    assert not found[weak]["works"]
    for attack in (found[weak], found[strong]):
        assert attack["added"]["value"] == pytest.approx(attack["success"]["value"] - attack["base"]["value"])
    assert found[weak]["base"]["value"] < 0.2


@pytest.mark.slow
def test_an_attack_whose_level_is_a_whole_number_is_asked_about(parents: Path, tmp_path: Path) -> None:
    """A level 1.0 is not the text "1"."""
    recipe = BACKDOORS.format(parents=parents)
    levels = recipe.index("axes:"), recipe.index("training:")
    recipe = (
        recipe[: levels[0]]
        + "subset: {trigger_frac: 0.3, trigger_target: 0, trigger_size: 3}\naxes: {trigger_opacity: [0.2, 1.0]}\npaired: [trigger_opacity]\n"
        + recipe[levels[1] :]
    )
    children = open_zoo(built(recipe, tmp_path))
    for level in children.axes["trigger_opacity"]:
        assert detection.backdoor(children, "trigger_opacity", level) is not None


@pytest.mark.slow
def test_stretches_of_training_are_rows_by_level(parents: Path) -> None:
    zoo = open_zoo(parents)
    bag = snapshots.bag(zoo, 1.0)
    found = list(windows.rows(bag, windows.levels(zoo, bag.model_ids), 0))
    assert [(r["first_epoch"], r["last_epoch"], r["n_snapshots"]) for r in found] == [
        (1, 10, 60), (2, 10, 54), (3, 10, 48), (6, 10, 30)
    ]  # fmt: skip
    assert found[0]["purity"] == 1.0
    assert set(found[0]["direction"]) == set(order.DIRECTIONS)
    assert found[0]["order"]["path"]["value"] > 0.9
    assert all(0 <= d["value"] <= 1 for r in found for d in r["direction"].values())
    apart = [{"lr": "a"} if m < 3 else {"lr": "b"} for m in range(6)]
    assert [r["level"] for r in windows.rows(bag, apart, 0)] == [{"lr": "a"}] * 4 + [{"lr": "b"}] * 4


@pytest.mark.parametrize(
    ("lows", "said"),
    [
        ([0.8, 0.2], "Nothing is told apart at the end: AUC 0.60 after 20 updates"),
        ([0.2, 0.8], "Weights alone tell changed from clean data: AUC 0.60 after 20 updates"),
    ],
)
def test_a_picture_is_headed_by_the_last_snapshot_and_not_by_the_best(lows: list[float], said: str) -> None:
    rows = [
        {"condition": "rotate_degrees=3", "detector": d, "steps": steps, "auc": 0.6, "low": low, "high": 0.9}
        for d in ("all", "null")
        for steps, low in zip((1, 20), lows, strict=True)
    ]
    assert said in [text.get_text() for text in pictures.detection(rows).findobj(Text)]


@pytest.mark.parametrize(
    ("mixed", "said"),
    [
        (False, "In three principal components each of these 6 runs goes its own way"),
        (True, "In three principal components 50.0% of snapshots are with their own run"),
    ],
)
def test_runs_are_said_to_part_where_they_do(parents: Path, mixed: bool, said: str) -> None:
    bag = snapshots.bag(open_zoo(parents), 1.0)
    if mixed:  # each even run is half of itself, and half of the odd one beside it
        weights = bag.weights.reshape(3, 2, 2, 5, -1).copy()
        weights[:, 0, 1], weights[:, 1, 0] = weights[:, 1, 0].copy(), weights[:, 0, 1].copy()
        bag = dataclasses.replace(bag, weights=weights.reshape(bag.weights.shape))
    [(_, picture)] = pictures.embeddings(bag, 0, umap=False)
    assert said in [text.get_text() for text in picture.findobj(Text)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ([4.0, 2.0, 1.0], "Steps shrink to the end: 4 in the first, 1 in the last (medians)"),
        ([4.0, 1.0, 2.0], "Steps of 4 at first, 1 around epoch 3, 2 at the end (medians)"),
    ],
)
def test_steps_that_grow_again_are_not_said_to_shrink(parents: Path, lengths: list[float], said: str) -> None:
    bag = snapshots.bag(open_zoo(parents), 1.0)
    first = bag.at < len(lengths) + 1
    columns = {name: values[first] for name, values in bag.columns.items()}
    bag = dataclasses.replace(
        bag, weights=bag.weights[first], whose=bag.whose[first], at=bag.at[first], columns=columns
    )
    path = paths.measure(np.concatenate([[0.0], np.cumsum(lengths)])[:, None])
    picture = pictures.steps([path] * bag.n_models, bag)
    assert said in [text.get_text() for text in picture.findobj(Text)]


def test_no_lineage_is_on_both_sides_of_a_fold() -> None:
    lineage = twins(0.0).lineage
    fold = detection.folds(lineage, 3)
    assert np.bincount(fold).tolist() == [24] * 5
    assert (fold != detection.folds(lineage, 3, 1)).any()
    assert all(len(np.unique(fold[lineage == name])) == 1 for name in lineage)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    trajectories.arguments(parser)
    text = parser.format_help()
    for option in (
        "--first-epoch",
        "--continued",
        "--condition",
        "--clean",
        "--regimes",
        "--data",
        "--dims",
        "--most-snapshots",
        "--no-umap",
        "--no-pictures",
    ):
        assert option in text


@pytest.mark.slow
def test_umap_is_drawn_where_it_is_installed(parents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("umap", exc_type=ImportError)
    from zoo_datasets.analysis.trajectories import pictures

    found = snapshots.bag(open_zoo(parents), 1.0)
    with caplog.at_level(logging.ERROR):
        figures = dict(pictures.embeddings(found, 0, umap=True))
    assert list(figures) == ["pca", "umap"]


@pytest.mark.parametrize(
    ("level", "text"),
    [
        ("label_noise_frac=0.2", "20 % label noise"),
        ("rotate_degrees=30.0", "rotate 30°"),
        ("trigger_frac=0.002,trigger_target=0", "0.2 % trigger"),
        ("frac=0.9", "90 % of the images"),
        ("full", "full"),
    ],
)
def test_levels_read_as_words(level: str, text: str) -> None:
    from zoo_datasets.analysis.trajectories import pictures

    assert pictures.label(level) == text


def test_numbers_of_a_study_are_json_for_every_reader(tiny_zoo: Path, tmp_path: Path) -> None:
    """`Infinity` is no JSON, and is what runs at rest have as their separation."""
    found = Results("trajectories", [open_zoo(tiny_zoo)], {}, tmp_path)
    near = clusters.Neighbors(np.ones(2), np.zeros(2), np.zeros((1, 2), np.int64), np.zeros(1), None)
    found.numbers["ladder"] = [{"separation": near.separation, "taus": np.array([np.nan, 1.0])}]
    found.save()
    found.close()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    kept = json.loads((tmp_path / "numbers.json").read_text(), parse_constant=refuse)
    assert kept["ladder"] == found.numbers["ladder"] == [{"separation": None, "taus": [None, 1.0]}]
