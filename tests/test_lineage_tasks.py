"""Tasks on pairs, on parents and children trained for this; fresh networks of a recipe."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from resealed import write_manifest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import cli, fresh, lineage, metrics, split_files, symmetry, tasks
from zoo_datasets.baselines.interface import View
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.targets import TaskError
from zoo_datasets.zoo import Zoo, open_zoo

PARENTS = """\
zoo: weightzoo/parents
source: {id: digits, train: 200, validation: 60, test: 200}
architecture: [flatten, {linear: 6}, activation, {linear: classes}]
axes:
  lr: [1e-1, 3e-2]
replicates: 8
training: {epochs: 2, batch_size: 32}
snapshots: {epochs: [0, 1, 2]}
"""
CHILDREN = """\
zoo: weightzoo/children
source: {id: digits, train: 200, validation: 60, test: 200}
architecture: [flatten, {linear: 6}, activation, {linear: classes}]
init: {zoo: PARENTS, epoch: 1}
training: {epochs: 2, batch_size: 32}
snapshots: {steps: [0, 1, 4, 10, 14]}
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[Zoo, Zoo]:
    folder = tmp_path_factory.mktemp("family")
    made = []
    for name, text in (("parents", PARENTS), ("children", CHILDREN)):
        (folder / f"{name}.yaml").write_text(text.replace("PARENTS", str(folder / "weightzoo" / "parents")))
        build(plan.plan(grid.load(folder / f"{name}.yaml")), folder / "weightzoo" / name, workers=0)
        made.append(open_zoo(folder / "weightzoo" / name))
    return made[0], made[1]


@pytest.mark.slow
def test_pairs_are_true_half_of_the_time_and_lineages_stay_on_one_side(family):
    parents, children = family
    sides = lineage.pairs(parents, children, "same_lineage")
    early = parents.select(epoch=1)
    last = {w.tobytes(): m for w, m in zip(early.weights[:], early.column("model_id").to_pylist(), strict=True)}
    own = dict(zip(*(children.models[c].to_pylist() for c in ("model_id", "parent_id")), strict=True))
    whose = {
        w.tobytes(): (own[m], s)
        for w, m, s in zip(children.weights[:], children.column("model_id").to_pylist(), children.column("step").to_pylist(), strict=True)
    }  # fmt: skip
    seen: dict[str, set[str]] = {}
    for side, of in sides.items():
        assert of.y.mean() == 0.5
        assert (np.diff(of.y) != 0).any()
        for a, b, y in zip(of.a.vectors, of.b.vectors, of.y, strict=True):
            parent, step = whose[b.tobytes()]
            assert (last[a.tobytes()] == parent) == bool(y)
            assert step >= 4  # after a quarter of 14 steps
            seen.setdefault(side, set()).update({parent, last[a.tobytes()]})
    assert not seen["train"] & seen["test"]


@pytest.mark.slow
def test_distance_tells_kin_and_cannot_tell_the_order(family):
    kin = {a.baseline: a for a in lineage.solve(lineage.pairs(*family, "same_lineage"), shuffles=2)}
    assert kin["distance"].auc.value == 1
    assert kin["aligned-distance"].auc.value > 0.9
    assert len(kin["monotone"].shuffled) == 2
    of = lineage.pairs(*family, "parent")
    order = {a.baseline: a for a in lineage.solve(of, shuffles=1)}
    other = streams.generator("pairs", 0).permutation(of["train"].y)
    for name, make in lineage.BASELINES.items():  # shuffles are fits that know nothing of the one before
        unused = make()
        unused.fit(of["train"].a, of["train"].b, other)
        alone = metrics.auc(of["test"].y, unused.predict(of["test"].a, of["test"].b))
        assert order[name].shuffled == (pytest.approx(alone),)
    # A distance is the same from either end: whatever it scores on few pairs, it knows no order.
    a, b = of["test"].a, of["test"].b
    np.testing.assert_array_equal(lineage.distances(a, b), lineage.distances(b, a))
    np.testing.assert_array_equal(lineage.moves(a, b), -lineage.moves(b, a))
    assert order["monotone"].auc.value > 0.9  # weights grow


@pytest.mark.slow
def test_pairs_from_the_command_line(family, tmp_path, capsys):
    parents, children = family
    call = ["bench", str(parents.root), str(children.root), "--tasks", "same_lineage,parent", "--out", str(tmp_path)]
    assert cli.main(call) == 0
    first = capsys.readouterr().out
    assert "### weightzoo/children/parent@1, with parents of weightzoo/parents" in first
    assert cli.main(call) == 0
    assert capsys.readouterr().out == first  # from the files
    kept = pq.read_table(tmp_path / "leaderboard.parquet").to_pylist()
    assert {(r["target"], r["baseline"], r["metric"]) for r in kept} == set(
        itertools.product(("same_lineage", "parent"), lineage.BASELINES, ("auc", "accuracy"))
    )
    assert all(r["parameters"] > 0 and r["cpu_s"] >= 0 and r["n"] > r["n_groups"] > 1 for r in kept)
    own = next(r for r in kept if (r["target"], r["baseline"], r["metric"]) == ("same_lineage", "distance", "auc"))
    assert own["value"] == 1
    assert own["zoo_digest"] == split_files.zoo_digest(children)
    told = json.loads((tmp_path / "tasks.json").read_text())["tasks"]
    assert [t["name"] for t in told] == ["weightzoo/children/same_lineage@1", "weightzoo/children/parent@1"]
    assert told[0]["parents"]["digest"] == split_files.zoo_digest(parents)
    assert told[0]["learned_from"]["pairs"] == own["n_train"]
    assert cli.main(["bench", str(parents.root), "--tasks", "parent", "--out", str(tmp_path)]) == 1
    assert "none of the zoos goes on from another" in capsys.readouterr().err


def test_a_selection_has_results_of_its_own(family, tmp_path, monkeypatch):
    parents, children = family
    monkeypatch.setattr(lineage, "BASELINES", {"distance": lineage.BASELINES["distance"]})
    whole = lineage.solved(parents, children, "parent", tmp_path)
    ends = lineage.solved(parents, children.select(step=14), "parent", tmp_path)
    assert 3 * ends["n"]["train"]["pairs"] == whole["n"]["train"]["pairs"]  # steps 4, 10 and 14
    assert ends["digests"] == whole["digests"]
    assert ends["snapshots"][0] == whole["snapshots"][0]
    assert ends["snapshots"][1] != whole["snapshots"][1]
    some = parents.select(epoch=1).take(np.arange(12))
    assert lineage.solved(some, children, "parent", tmp_path)["n"] != whole["n"]
    assert len(list(tmp_path.iterdir())) == 3
    assert lineage.solved(parents, children, "parent", tmp_path) == whole


def test_a_pair_with_a_network_that_nearly_diverged_is_answered_with_the_others(family):
    """Weights of 1e20 are finite; the square of their distance is no float32, and one pair took the answers of all with it."""
    of = lineage.pairs(*family, "same_lineage")
    for side, pairs in of.items():
        vectors = [v * np.float32(1e20) if i == 0 else v for i, v in enumerate(pairs.b.vectors)]
        of[side] = dataclasses.replace(pairs, b=dataclasses.replace(pairs.b, vectors=vectors))
    answers = list(lineage.solve(of))
    assert [a.baseline for a in answers] == list(lineage.BASELINES)
    assert all(np.isfinite(a.auc.value) for a in answers)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"rows": 3, "n": {}, "zoos": []}'])
def test_a_damaged_file_of_pairs_is_made_again(family, tmp_path, damage, caplog):
    whole = lineage.solved(*family, "parent", tmp_path)
    (path,) = tmp_path.glob("pairs-*.json")
    path.write_bytes(damage)
    again = lineage.solved(*family, "parent", tmp_path)
    assert "its table is made again" in caplog.text
    assert [r["auc"] for r in again["rows"]] == [r["auc"] for r in whole["rows"]]
    assert json.loads(path.read_bytes()) == again


def test_a_selection_of_nothing_has_no_pairs(family):
    parents, children = family
    with pytest.raises(TaskError, match="No model of weightzoo/children starts from one of weightzoo/parents"):
        lineage.pairs(parents, children.select(step=0).select(step=1), "parent")


@pytest.mark.slow
def test_zoos_that_are_no_family_are_refused(family):
    parents, _ = family
    with pytest.raises(TaskError, match=r"No model of weightzoo/parents starts from one of weightzoo/parents"):
        lineage.pairs(parents, parents, "parent")
    with pytest.raises(TaskError, match="Unknown task on pairs 'twins'"):
        lineage.pairs(parents, parents, "twins")


@pytest.mark.slow
def test_fresh_networks_are_new_and_asked_about_beside_the_test_side(family, tmp_path, capsys):
    parents, _ = family
    call = ["bench", str(parents.root), "--baselines", "statistics-ridge", "--out", str(tmp_path), "--fresh", "77", "6"]
    assert cli.main(call) == 0
    out = capsys.readouterr().out
    assert "test_accuracy: the test side, and 6 networks built since" in out
    assert "### weightzoo/parents-fresh-77/test_accuracy/from=weightzoo/parents@1" in out
    made = open_zoo(tmp_path / "fresh" / "weightzoo" / "parents-fresh-77")
    assert not set(made.models["init_key"].to_pylist()) & set(parents.models["init_key"].to_pylist())
    found = tasks.problem(parents, ["test_accuracy"], fresh=[made])
    assert len(found.elsewhere["weightzoo/parents-fresh-77"]) == 6
    with pytest.raises(TaskError, match="holds 6 networks and not 7"):
        fresh.build(parents, 77, 7, tmp_path)
    # The zoo was built anew since, by another recipe.
    manifest = json.loads((parents.root / "manifest.json").read_bytes())
    manifest["identity"]["document"]["training"]["epochs"] = 9
    other = Path(shutil.copytree(parents.root, tmp_path / "rebuilt"))
    write_manifest(other / "manifest.json", manifest)
    with pytest.raises(TaskError, match="was built by another recipe than weightzoo/parents's"):
        fresh.build(open_zoo(other), 77, 6, tmp_path)


@pytest.mark.slow
def test_fresh_networks_from_the_zoos_own_seed_are_refused(family, tmp_path):
    with pytest.raises(TaskError, match="was built from seed 0"):
        fresh.build(family[0], 0, 4, tmp_path)


def test_a_builder_that_fails_is_a_sentence(family, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ZooError, match="The builder ended with exit code 1"):
        fresh.build(family[0], 5, 4, tmp_path)


def test_a_network_is_aligned_as_its_own_architecture_lets_it():
    """The same permuted weights are the same network without a residual block, and another one with it."""
    ways = (
        ["flatten", {"linear": 5}, "relu", {"linear": 5}, "relu"],
        ["flatten", {"linear": 5}, "relu", {"residual": [{"linear": 5}]}, "relu"],
    )
    made = tuple(build_architecture([*way, {"linear": "classes"}], (1, 2, 2), 3) for way in ways)
    weights = np.random.default_rng(0).normal(size=(4, made[0].n_params)).astype(np.float32)
    moved = symmetry.permute(weights, made[0].layout, symmetry.random_permutations(made[0].layout, 4, 1))
    for order in (made, made[::-1]):
        place = np.array([order.index(made[i % 2]) for i in range(4)])
        first, second = (View(order, place, list(w), pa.table({"": pa.nulls(4)})) for w in (weights, moved))
        apart = lineage.aligned_distances(first, second)[:, 0]
        assert max(apart[::2]) < -5 < min(apart[1::2])
