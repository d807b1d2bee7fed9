"""Populations to Morse graphs and back: joins by id, surrogates, tests with a null, and the command."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from planted_zoos import planted
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from zoo_builder import build, grid, plan
from zoo_datasets import cli, metrics
from zoo_datasets.analysis import testing
from zoo_datasets.analysis.dynamics import (
    conley,
    coordinates,
    guidance,
    pictures,
    readings,
    robustness,
    surrogate,
)
from zoo_datasets.analysis.dynamics import populations as pop
from zoo_datasets.analysis.dynamics import run as dynamics_run
from zoo_datasets.analysis.dynamics.cubes import Cubes
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo, open_zoo

IRIS = """\
zoo: weightzoo/tiny-iris
source: {id: iris, train: 75, validation: 15, test: 60}
architecture: [{linear: classes}]
axes: {epochs: [10, 20]}
init: {kind: uniform, low: -2, high: 2, bias: 0}
replicates: 60
training: {batch_size: 5, lr: 1e-2}
snapshots: {epochs: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]}
"""
QUICK = ("--population", "30", "--subdivisions", "8", "--resamples", "2", "--quiet", "--level", "epochs=20")


@pytest.fixture(scope="module")
def iris_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels of 60 networks of 15 weights."""
    folder = tmp_path_factory.mktemp("iris")
    (folder / "iris.yaml").write_text(IRIS)
    build.build(plan.plan(grid.load(folder / "iris.yaml")), folder / "weightzoo" / "tiny-iris", workers=0)
    return folder / "weightzoo" / "tiny-iris"


@pytest.fixture(scope="module")
def iris(iris_zoo: Path) -> Zoo:
    return open_zoo(iris_zoo)


@pytest.fixture(scope="module")
def population(iris: Zoo) -> pop.Population:
    return pop.populations(iris, size=60)[1]


@pytest.fixture(scope="module")
def report(iris_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command wrote; the zoo must stay as it was."""
    out = tmp_path_factory.mktemp("report") / "out"
    before = _bytes_of(iris_zoo)
    assert cli.main(["analyze", "dynamics", str(iris_zoo), "--out", str(out), *QUICK]) == 0
    assert _bytes_of(iris_zoo) == before
    return out


def _bytes_of(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


# ── populations ───────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_populations_are_levels_and_blocks_of_replicates(iris: Zoo) -> None:
    found = pop.populations(iris, size=30)
    assert [(dict(p.level), p.number, len(p)) for p in found] == [
        ({"epochs": "10"}, 0, 30), ({"epochs": "10"}, 1, 30), ({"epochs": "20"}, 0, 30), ({"epochs": "20"}, 1, 30),
    ]  # fmt: skip
    assert len({i for p in found for i in p.ids}) == 120


@pytest.mark.slow
def test_start_and_end_are_of_one_network_whatever_the_order_of_rows(iris: Zoo) -> None:
    shuffled = iris.take(np.random.default_rng(3).permutation(len(iris)))
    for a, b in zip(pop.populations(iris), pop.populations(shuffled), strict=True):
        assert a.ids == b.ids
        np.testing.assert_array_equal(a.start, b.start)
        np.testing.assert_array_equal(a.end, b.end)
    step = {e: s for e, s in zip(iris.column("epoch").to_pylist(), iris.column("step").to_pylist(), strict=True)}
    last = pop.populations(iris)[1]
    for i in (0, 7, 31):
        np.testing.assert_array_equal(last.start[i], iris.vector(last.ids[i], step[2.0]))
        np.testing.assert_array_equal(last.end[i], iris.vector(last.ids[i]))


@pytest.mark.slow
def test_ends_of_other_networks_are_not_foretold(population: pop.Population) -> None:
    """The null that must fail: pairing by order instead of id gives no map."""
    layout, groups = population.architecture.layout, population.groups
    chosen = coordinates.choose("spread", population.start, population.end, population.end, layout)
    x, y = chosen.encode(population.start), chosen.encode(population.end)
    turned = np.random.default_rng(0).permutation(len(y))
    assert surrogate.held_out_r2(lambda _: (x, y), groups) > 0.6
    assert surrogate.held_out_r2(lambda _: (x, y[turned]), groups) < 0.1
    assert surrogate.unmoved_r2(y, y) == 1
    assert surrogate.unmoved_r2(np.broadcast_to(y.mean(0), y.shape), y) == 0


@pytest.mark.slow
def test_missing_snapshots_and_short_populations_are_refused(iris: Zoo) -> None:
    with pytest.raises(ZooError, match=r"no snapshot at epoch 3\. Known: 0, 2, 4"):
        pop.populations(iris, start_epoch=3)
    with pytest.raises(ZooError, match="epoch 10 is the last snapshot"):
        pop.populations(iris, start_epoch=10)
    with pytest.raises(ZooError, match="no population of 20 networks"):
        pop.populations(iris, size=10)


def test_networks_that_nobody_knows_the_replicate_of_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="weightzoo/strange does not say 'replicate_init' of its networks"):
        pop.populations(planted(tmp_path / "strange", 4))


def test_steps_are_equal_and_of_one_network(iris: Zoo, population: pop.Population) -> None:
    before, after, rows, epochs = pop.steps(population)
    assert epochs == 2.0
    assert len(before) == 60 * 10
    np.testing.assert_array_equal(before[rows == 4][1:], after[rows == 4][:-1])
    np.testing.assert_array_equal(after[rows == 4][-1], population.end[4])
    few, _, rows = pop.pairs(population, "step", most=100)
    assert len(few) == 100
    assert set(rows) == set(range(10))
    sparse = iris.select(epoch=[2, 8, 20])
    with pytest.raises(ZooError, match="no chain of equal steps"):
        pop.steps(pop.populations(sparse)[1])


def test_predictions_are_those_of_the_network(iris: Zoo, population: pop.Population) -> None:
    said = pop.predictions(population)
    source = iris.source(population.ids[0])
    images = torch.from_numpy(source.scaled(source.test.inputs))
    with torch.inference_mode():
        expected = torch.softmax(iris.load_model(population.ids[5])(images).double(), 1).numpy()
    np.testing.assert_allclose(said.probabilities[5], expected, atol=1e-6)
    stored = {
        i: a for i, a in zip(iris.models["model_id"].to_pylist(), iris.models["test_accuracy"].to_pylist(), strict=True)
    }
    right = (said.probabilities.argmax(2) == said.labels).mean(1)
    np.testing.assert_allclose(right, [stored[i] for i in population.ids], atol=1e-12)


@pytest.mark.parametrize(
    ("source", "architecture", "loss", "said"),
    [
        ("{id: iris, train: 75, validation: 15, test: 60}", "{linear: classes}", "mse", "learned by `mse`"),
        ("{id: language, language: a^n b^n, scale: none, steps: 6, train: 16, validation: 8, test: 8}",
         "{gru: 3}, {linear: classes}", "cross_entropy", "learned what is right at each step of a sequence"),
    ],
)  # fmt: skip
def test_outputs_that_are_no_chances_of_classes_are_refused(
    population: pop.Population, tmp_path: Path, source: str, architecture: str, loss: str, said: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"zoo: a/zoo\nsource: {source}\narchitecture: [{architecture}]\ntraining: {{batch_size: 8, steps: 2, loss: {loss}}}\n"
        "replicates: 2\nsplits: {train: 1.0}\n"
    )
    build.build(plan.plan(grid.load(tmp_path / "recipe.yaml")), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    other = dataclasses.replace(population, zoo=zoo, ids=tuple(zoo.models["model_id"].to_pylist()))
    with pytest.raises(ZooError, match=f"{said}.* Take networks that classify by `cross_entropy`"):
        pop.predictions(other)


def test_both_balanced_accuracies_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    said = pop.Predictions(rng.integers(0, 3, 40), rng.dirichlet((1, 1, 1), (9, 40)))
    for i, p in enumerate(said.probabilities.argmax(2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are never predicted
            assert said.balanced[i] == pytest.approx(balanced_accuracy_score(said.labels, p))
            assert said.balanced_swapped[i] == pytest.approx(balanced_accuracy_score(p, said.labels))


def test_entropy_is_that_of_the_mean_prediction() -> None:
    said = pop.Predictions(np.zeros(1, int), np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert said.entropy() == pytest.approx(np.log(2))
    assert said.entropy(np.array([1.0, 0.0])) == pytest.approx(0)


# ── coordinates ───────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_coordinates_see_kernels_only(population: pop.Population) -> None:
    layout = population.architecture.layout
    places, names = coordinates.kernels(layout)
    assert len(places) == 12
    assert names[0] == "linear1.weight[0, 0]"
    other = population.end.copy()
    other[:, np.setdiff1d(np.arange(15), places)] += 9
    for kind in coordinates.COORDINATES:
        one, two = (coordinates.choose(kind, population.start, e, e, layout) for e in (population.end, other))
        assert one.labels == two.labels
        np.testing.assert_array_equal(one.encode(population.end), two.encode(other))
        assert 0 < one.reconstruction_r2 <= 1


def test_spread_takes_the_weights_that_differ_most_at_the_end(population: pop.Population) -> None:
    layout = population.architecture.layout
    places, names = coordinates.kernels(layout)
    end = population.end.copy()
    end[:, places[7]] *= 50
    end[:, places[2]] *= 20
    chosen = coordinates.choose("spread", population.start, end, end, layout)
    assert chosen.labels == (names[7], names[2])
    np.testing.assert_array_equal(chosen.encode(end), end[:, places[[7, 2]]])
    assert [n for n, _ in coordinates.spread(end, layout)][:2] == [names[7], names[2]]


@pytest.mark.slow
def test_modes_determine_their_own_future_where_principal_components_do_not(population: pop.Population) -> None:
    """Of a linear map on 12 weights, two left eigenvectors are a map of their own."""
    layout, rng = population.architecture.layout, np.random.default_rng(1)
    places, _ = coordinates.kernels(layout)
    start = rng.normal(size=(200, 15))
    basis = rng.normal(size=(12, 12))
    turn = basis @ np.diag([1.6, 1.4, *rng.uniform(0.1, 0.6, 10)]) @ np.linalg.inv(basis)
    end = start.copy()
    end[:, places] = start[:, places] @ turn.T
    r2 = {}
    for kind in ("pca", "modes"):
        chosen = coordinates.choose(kind, start, end, end, layout)
        x, y = chosen.encode(start), chosen.encode(end)
        r2[kind] = surrogate.held_out_r2(lambda _, x=x, y=y: (x, y), np.arange(200))
    assert r2["modes"] > 0.99
    assert r2["pca"] < r2["modes"] - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spread", "pca", "modes"])
def test_coordinates_of_ends_that_have_nothing_to_do_with_starts_foretell_no_network_held_out(
    population: pop.Population, kind: str
) -> None:
    """Modes are a regression of ends on starts: chosen with the ends held out they foretold a third of these."""
    rng, n = np.random.default_rng(0), 100
    unlike = dataclasses.replace(
        population, start=rng.normal(size=(n, population.start.shape[1])), end=rng.normal(size=(n, population.end.shape[1])),
        groups=np.arange(n),
    )  # fmt: skip
    options = argparse.Namespace(dimensions=2, seed=0)
    coded = dynamics_run._chosen_by(kind, unlike.start, unlike.end, np.arange(n), unlike, options)
    assert surrogate.held_out_r2(coded, unlike.groups) < 0.05


@pytest.mark.parametrize(
    ("kind", "d", "said"), [("spred", 2, "Did you mean `spread`"), ("pca", 5, "2 to 4 are possible")]
)
def test_impossible_coordinates_are_refused(population: pop.Population, kind: str, d: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coordinates.choose(kind, population.start, population.end, population.end, population.architecture.layout, d)


# ── surrogates and readings ───────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cloud() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, (60, 2))
    return x, np.stack([np.sin(2 * x[:, 0]) + 3, x[:, 0] * x[:, 1]], 1) + 0.05 * rng.normal(size=(60, 2))


@pytest.mark.parametrize("recipe", [surrogate.PUBLISHED, surrogate.OURS, surrogate.Recipe("identity")])
def test_far_from_data_the_surrogate_is_its_prior(recipe: surrogate.Recipe, cloud) -> None:
    x, y = cloud
    fitted = surrogate.fit(x, y, recipe)
    far = np.array([[300.0, -200.0]])
    mean, std = fitted.predict(far)
    expected = {"zero": [[0, 0]], "constant": [y.mean(0)], "identity": far}[recipe.prior]
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(std[0], fitted.prior_std, rtol=1e-6)
    np.testing.assert_allclose(fitted.mean(far), mean)
    assert fitted.r2(x, y) > 0.9


def test_the_published_surrogate_is_the_textbook_formula(cloud) -> None:
    """Mean k(x, X)(K + σ²)⁻¹y, variance 1 − k(x, X)(K + σ²)⁻¹k(X, x): of the map, without noise."""
    x, y = cloud
    fitted = surrogate.fit(x, y, surrogate.PUBLISHED)
    kernel = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * fitted.length[0] ** 2))  # noqa: E731
    new = np.random.default_rng(1).uniform(-2, 2, (5000, 2))  # more than are predicted at once
    inverse = np.linalg.inv(kernel(x, x) + fitted.noise_std[0] ** 2 * np.eye(len(x)))
    mean, std = fitted.predict(new)
    np.testing.assert_allclose(mean, kernel(new, x) @ inverse @ y, atol=1e-5)
    variance = 1 - np.einsum("ij,jk,ik->i", kernel(new, x), inverse, kernel(new, x))
    np.testing.assert_allclose(std[:, 0] ** 2, variance, atol=1e-5)


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 finite pairs"):
        surrogate.fit(np.zeros((5, 2)), np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="Did you mean `identity`"):
        surrogate.Recipe("identiy")


def test_doubt_is_at_the_stated_level_and_only_widens(cloud) -> None:
    x, y = cloud
    cubes = Cubes.around(np.concatenate([x, y]), 9)
    narrow = readings.Settings(9)
    z = narrow.z(cubes)
    assert 2 * 8 * stats.norm.sf(z) == pytest.approx(0.05)  # two sides of eight corner coordinates
    assert readings.Settings(9, simultaneous="grid").z(cubes) > z
    found = {n: readings.read(n, x, y, cubes, narrow) for n in readings.READINGS}
    assert [r.z for r in found.values()] == [0, 0, z]
    plain, doubtful = found["mean"].graph.images, found["confident"].graph.images
    kept = ~plain.empty
    assert (doubtful.first[kept] <= plain.first[kept]).all()
    assert (doubtful.last[kept] >= plain.last[kept]).all()
    assert doubtful.leaves[plain.leaves].all()
    assert ((0 <= found["mean"].doubt) & (found["mean"].doubt <= 1 + 1e-9)).all()


def test_cells_beyond_the_data_are_those_farther_than_its_largest_gap() -> None:
    x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.5], [1.0, 0.5]])
    points = np.array([[-0.9, 0.0], [-1.1, 0.0], [1.0, 1.4], [1.0, 1.6]])
    assert readings.beyond_data(x, points).tolist() == [False, True, False, True]


def test_of_too_few_groups_to_hold_any_out_there_is_no_score(cloud) -> None:
    x, y = cloud
    for groups in (np.zeros(60, int), np.repeat([0, 1], [58, 2])):  # nothing is left, or too little to fit
        assert np.isnan(surrogate.held_out_r2(lambda _: (x, y), groups))
    assert 0.8 < surrogate.held_out_r2(lambda _: (x, y), np.arange(60) % 2) < 1


def test_grids_around_one_are_coarser_and_finer_as_far_as_there_are_any() -> None:
    assert [robustness.around(k) for k in (2, 5, 15, 20)] == [
        (2, 3), (4, 5, 6), (11, 12, 13, 14, 15, 16), (16, 17, 18, 19, 20),
    ]  # fmt: skip


@pytest.mark.slow
def test_resamples_of_a_sure_map_agree_and_the_same_seed_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (150, 2))
    y = np.stack([1.5 * np.tanh(2 * x[:, 0]), 0.2 * x[:, 1]], 1) + 0.01 * rng.normal(size=x.shape)
    settings = readings.Settings(9)
    reading = readings.read("mean", x, y, Cubes.around(np.concatenate([x, y]), 9), settings)
    one, two = (robustness.resample(reading, np.arange(150), settings, 6, seed=s) for s in (1, 1))
    assert one.forms == two.forms
    assert (one.minimal == 2).all()  # the two attractors are there each time
    assert one.agreement.min() > 0.6
    assert sum(f["count"] for f in one.numbers()["forms"]) == 6
    levels = robustness.resolutions(reading, settings, (8, 10))
    assert [r["minimal"] for r in levels] == [2, 2]


# ── what fates tell ───────────────────────────────────────────────────────────────────


def _said(rng: np.random.Generator, n: int = 40) -> pop.Predictions:
    return pop.Predictions(rng.integers(0, 3, 30), rng.dirichlet((1, 1, 1), (n, 30)))


@pytest.mark.slow
def test_p_values_are_uniform_when_fates_are_dealt_at_random() -> None:
    """Each statistic's, and that of two readings which agree with each other: they are one test, not two."""
    rng = np.random.default_rng(11)
    found = []
    for turn in range(120):
        labels = rng.choice(["0", "1>0"], 40)
        nearly = np.where(rng.random(40) < 0.1, "1>0", labels)
        found.append(
            guidance.associations({"a": labels, "b": nearly}, _said(rng), np.arange(40), turn, first=99, most=99)
        )
    p_values = {key: np.array([f["readings"]["a"][key] for f in found]) for key in ("p_accuracy", "p_entropy")}
    for p in (*p_values.values(), np.array([f["p"] for f in found])):
        assert stats.kstest(p, "uniform").pvalue > 1e-3
        assert 0.35 < p.mean() < 0.65


def test_both_statistics_of_a_fate_are_of_one_permutation() -> None:
    """What a permutation of networks gives is what the statistics give of labels permuted the other way, both of them."""
    rng = np.random.default_rng(3)
    labels, said = rng.choice(["0", "1>0", "1"], 40), _said(rng)
    turns = np.stack([rng.permutation(40) for _ in range(5)])
    found = guidance._statistics(labels, said, turns)
    whole = np.arange(40)[None]
    for turn, both in zip(turns, found, strict=True):
        moved = guidance._statistics(labels[np.argsort(turn)], said, whole)
        np.testing.assert_allclose(both, moved[0], rtol=1e-9)


@pytest.mark.slow
def test_networks_that_share_a_start_are_no_findings_of_their_own() -> None:
    """Ten groups of four, whose fate and whose answers are the group's and have nothing to do with each other: by networks one by one
    half of the tests found something."""
    rng, group, found = np.random.default_rng(5), np.repeat(np.arange(10), 4), []
    for turn in range(80):
        fates = rng.permutation(np.repeat(["0", "1>0"], 5))[group]
        said = pop.Predictions(rng.integers(0, 3, 30), rng.dirichlet((1, 1, 1), (10, 30))[group])
        found.append(guidance.associations({"a": fates}, said, group, turn, first=99, most=99)["p"])
    assert np.mean(np.array(found) < 0.05) < 0.13
    assert 0.35 < np.mean(found) < 0.65


def test_fates_that_matter_are_found_with_as_many_permutations_as_that_takes() -> None:
    rng = np.random.default_rng(2)
    said = _said(rng)
    sharp = said.probabilities.copy()
    sharp[:20] = 0.05 * sharp[:20] + 0.95 * np.eye(3)[said.labels]
    labels = {"a": np.repeat(["0", "1>0"], 20), "one fate": np.full(40, "0")}
    whole = guidance.associations(labels, pop.Predictions(said.labels, sharp), np.arange(40), first=99, most=2499)
    assert whole["p"] == pytest.approx(1 / 2500)
    assert whole["n_permutations"] == 2499
    found = whole["readings"]["a"]
    assert found["p_accuracy"] == found["p_entropy"] == pytest.approx(1 / 2500)
    assert found["groups"]["0"]["balanced_accuracy"] > 0.9
    assert found["groups"]["0"]["entropy"] < found["groups"]["1>0"]["entropy"]
    assert whole["readings"]["one fate"]["p_accuracy"] is None
    noise = guidance.associations({"a": rng.permutation(labels["a"])}, _said(rng), np.arange(40), first=99, most=2499)
    assert (noise["p"] > testing.PROMISING) == (noise["n_permutations"] == 99)


def test_one_fate_has_no_p_value_and_rare_fates_are_pooled() -> None:
    rng = np.random.default_rng(3)
    found = guidance.associations({"a": np.full(40, "0")}, _said(rng), np.arange(40), first=9, most=9)
    assert (found["p"], found["readings"]["a"]["p_accuracy"]) == (None, None)
    labels = guidance.pooled(["0"] * 6 + ["1"] * 4 + ["2"] * 2)
    assert labels.tolist() == ["0"] * 6 + ["rare"] * 6


def test_the_joint_p_value_is_that_of_the_least_p_value() -> None:
    """By its definition, with ties: p of each permutation beside all, the least over statistics, and its rank."""
    rng = np.random.default_rng(4)
    every = rng.integers(0, 30, (200, 3)).astype(float)
    p = np.array([[(every[:, k] >= every[b, k]).mean() for k in range(3)] for b in range(200)])
    expected = (p.min(1) <= p[0].min()).mean()
    assert testing.joint(every[0], every[1:]) == pytest.approx(expected)
    np.testing.assert_allclose(testing.single(every[0], every[1:]), p[0])
    # Copies of one statistic are one test; independent ones cost what they cost.
    one = every[:, :1]
    same = np.full((99, 1), -0.5)  # ties count, whatever their sign
    assert testing.single(same[0], same) == testing.single(-same[0], -same) == testing.joint(same[0], same) == 1.0
    assert testing.joint(np.repeat(one, 9, 1)[0], np.repeat(one, 9, 1)[1:]) == pytest.approx(p[0, 0])


def test_areas_under_many_curves_are_those_of_one() -> None:
    rng = np.random.default_rng(5)
    y, score = (rng.random((30, 6)) < 0.4).astype(float), rng.integers(0, 5, (30, 6)).astype(float)
    np.testing.assert_allclose(testing.aucs(y, score), [metrics.auc(a, b) for a, b in zip(y.T, score.T, strict=True)])


@pytest.mark.slow
def test_the_held_out_score_finds_a_planted_fate_and_nothing_in_noise(population: pop.Population) -> None:
    """Two attractors decide the accuracy: fates foretell it. Dealt at random, they do not."""
    places, _ = coordinates.kernels(population.architecture.layout)
    start, end = population.start.astype(np.float64), population.end.astype(np.float64)
    rng = np.random.default_rng(0)
    start[:, places[:2]] = rng.uniform(-2, 2, (60, 2))
    end[:, places] = 0.01 * rng.normal(size=(60, 12))
    end[:, places[0]] = 1.8 * np.tanh(4 * start[:, places[0]])
    end[:, places[1]] = 0.9 * start[:, places[1]]
    planted = dataclasses.replace(population, start=start, end=end)
    accuracy = (start[:, places[0]] > 0) + 0.01 * rng.normal(size=60)
    settings = readings.Settings(9)
    found = guidance.foretell(planted, accuracy, "spread", ["published"], settings, n=99)
    assert found["fates"]["published"]["value"] > 0.85
    assert found["fates"]["published"]["p"] == found["p"] == pytest.approx(0.01)
    assert found["same_weights"]["value"] > 0.95
    assert found["same_weights"]["p"] == pytest.approx(0.01)
    noise = guidance.foretell(planted, rng.permutation(accuracy), "spread", ["published"], settings, n=99)
    assert noise["fates"]["published"]["p"] > 0.02
    assert abs(noise["fates"]["published"]["null_mean"] - 0.5) < 0.1
    assert noise["all_weights"]["p"] > 0.02
    assert "undefined" in guidance.foretell(planted, np.ones(60), "spread", ["published"], settings)


def test_fewer_groups_than_folds_foretell_nothing(population: pop.Population) -> None:
    few = dataclasses.replace(population, groups=np.arange(60) % 4)
    found = guidance.foretell(few, np.arange(60.0), "spread", ["published"], readings.Settings(7), n=9)
    assert found == {"n": 60, "undefined": "4 init groups cannot be held out in 5 folds"}


def test_one_fate_for_all_ranks_nobody(population: pop.Population) -> None:
    """All starts lead to one set: whatever the folds' rates round to, the score is one, and its area a half."""
    places, _ = coordinates.kernels(population.architecture.layout)
    start, end = population.start.astype(np.float64), population.end.astype(np.float64)
    rng = np.random.default_rng(0)
    start[:, places[:2]] = rng.uniform(-1, 1, (60, 2))
    end[:, places] = 0.01 * rng.normal(size=(60, 12))
    found = guidance.foretell(
        dataclasses.replace(population, start=start, end=end), rng.random(60), "spread", ["published"], readings.Settings(9),
        n=99,
    )  # fmt: skip
    fates = found["fates"]["published"]
    assert list(fates["n_of_fate"]) == ["0"]
    assert not fates["tells"]
    assert (fates["value"], fates["null_mean"], found["p"]) == (0.5, 0.5, 1.0)


@pytest.mark.slow
def test_fates_of_a_map_that_was_fitted_to_the_same_ends_look_significant_where_a_start_tells_nothing() -> None:
    """Why the page gives no chance level for tests inside a population: p below 0.05 comes far more often than 5 %."""
    rng, low, told = np.random.default_rng(0), 0, 0
    for _ in range(240):
        x, y = rng.uniform(-1, 1, (2, 100, 2))
        accuracy = y[:, 0] + 0.1 * rng.normal(size=100)  # of the end alone, which the start does not know
        cubes = Cubes.around(np.concatenate([x, y]), 12)
        labels = guidance.pooled(guidance.fates(readings.read("published", x, y, cubes, readings.Settings(12)), x))
        names, number = np.unique(labels, return_inverse=True)
        if len(names) < 2:
            continue
        member, told = np.eye(len(names))[number].T, told + 1
        turns = np.stack([accuracy, *(rng.permutation(accuracy) for _ in range(199))])
        seen, *null = guidance._between(member, turns)
        low += np.mean(np.array([seen, *null]) >= seen) < 0.05
    assert told >= 30
    assert stats.binomtest(low, told, 0.05, "greater").pvalue < 0.01


@pytest.mark.slow
def test_held_out_scores_know_nothing_of_the_networks_they_judge(population: pop.Population) -> None:
    """They are the ones that the areas under the curve are of; and another end of a network moves those of other folds alone."""
    accuracy = np.random.default_rng(3).random(60)
    y, settings = guidance.good(accuracy), readings.Settings(7)
    scores, folds = guidance.held_out(population, y, ["published"], settings)
    found = guidance.foretell(population, accuracy, "spread", ["published"], settings, n=9)
    assert set(scores) == {"published", "same_weights", "all_weights"}
    assert metrics.auc(y, scores["all_weights"]) == found["all_weights"]["value"]
    assert metrics.auc(y, scores["published"]) == found["fates"]["published"]["value"]
    assert sorted(np.concatenate(folds).tolist()) == list(range(60))
    turned = y.copy()
    turned[folds[0]] = 1 - y[folds[0]]
    others, _ = guidance.held_out(population, turned, ["published"], settings)
    for name, score in scores.items():
        np.testing.assert_array_equal(others[name][folds[0]], score[folds[0]])
        assert (others[name][folds[1]] != score[folds[1]]).any()


def test_fewer_groups_than_folds_are_a_sentence(population: pop.Population) -> None:
    four = population.take(np.flatnonzero(np.isin(population.groups, np.unique(population.groups)[:4])))
    with pytest.raises(ZooError, match="4 init groups cannot be held out in 5 folds"):
        guidance.held_out(four, np.arange(len(four.groups)) % 2, ["published"], readings.Settings(7))


def test_the_correction_is_that_of_the_definition_and_of_each_family_alone() -> None:
    p = np.array([0.001, 0.04, 0.03, 0.2, 0.9])
    order = np.argsort(p)
    expected = np.empty(5)
    for rank, i in enumerate(order, 1):  # the least m p / k over all ranks k from its own on
        expected[i] = min(5 * p[j] / (rank + more) for more, j in enumerate(order[rank - 1 :]))
    np.testing.assert_allclose(testing.corrected(p), expected)
    populations = [
        {"name": f"population {i}", "guidance": {"start": {"p": a, "n_permutations": n}, "end": {"p": b, "n_permutations": 99}}}
        for i, (a, b, n) in enumerate(((0.02, None, 2000), (0.03, 0.01, 1000), (0.5, 0.2, 100)))
    ]  # fmt: skip
    weights = {"same_weights": {"p": 0.5, "n_permutations": 9}, "all_weights": {"p": 0.001, "n_permutations": 9}}
    levels = [
        {"level": {"lr": "1"}, "foretell": {"undefined": "all networks end alike"}},
        {"level": {"lr": "2"}, "foretell": {"p": 0.04, "n_permutations": 400} | weights},
    ]
    said = guidance.correct(populations, levels)
    start = said["start"]
    assert populations[0]["guidance"]["start"]["q"] == pytest.approx(0.045)
    assert (start["n"], start["below"], start["findings"], start["permutations_needed"]) == (3, 2, 2, 1200)
    assert start["permutations_least"] == 1000  # of those that could be findings: too few here, and said
    assert [(t["name"], t["p"]) for t in start["tests"]] == [
        (f"population {i}", p) for i, p in enumerate((0.02, 0.03, 0.5))
    ]
    assert {f: (s["n"], s["findings"]) for f, s in said.items()} == {
        "start": (3, 2), "end": (2, 1), "foretell": (1, 1), "same_weights": (1, 0), "all_weights": (1, 1),
    }  # fmt: skip
    assert guidance.correct([], [])["start"]["least_q"] is None


def test_one_true_effect_among_a_hundred_and_twenty_populations_survives() -> None:
    """At the floor of the permutations alone: with 2,000 its q would be .06, whatever the effect."""
    tests = [("planted", {"p": 1 / (guidance.PERMUTATIONS + 1), "n_permutations": guidance.PERMUTATIONS})]
    for i in range(119):  # those that could be findings took all permutations
        p = (i + 0.5) / 119
        done = guidance.PERMUTATIONS if p <= testing.PROMISING else guidance.FIRST_PERMUTATIONS
        tests.append((f"noise {i}", {"p": p, "n_permutations": done}))
    said = testing.correct(tests)
    assert said["findings"] == 1
    assert said["permutations_least"] >= said["permutations_needed"] == 48_000
    assert 120 / (guidance.FIRST_PERMUTATIONS + 1) > testing.LEVEL
    assert guidance.SHUFFLES >= 20 * 24 / testing.LEVEL


def test_a_correction_finds_nothing_in_tests_of_nothing() -> None:
    rng = np.random.default_rng(0)
    found = [(testing.corrected(rng.uniform(size=60)) < 0.05).any() for _ in range(400)]
    assert np.mean(found) < 0.09  # 0.05 is promised; 0.09 is 3.7 standard errors above


# ── the command ───────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_command_writes_numbers_tables_and_pictures(report: Path, iris: Zoo) -> None:
    numbers = json.loads((report / "numbers.json").read_text())
    assert numbers["settings"]["seed"] == 0
    assert numbers["zoos"][0]["digests"] == dict(iris.manifest.digests)
    assert [p["n"] for p in numbers["populations"]] == [30, 30]
    first, second = numbers["populations"][:2]
    assert set(first["readings"]) == set(readings.READINGS)
    assert first["resamples"]["published"]["n"] == 2
    assert "resamples" not in second
    # A test is of a population or of a recipe, however many readings it has.
    assert {f: numbers["tests"][f]["n"] for f in ("foretell", "all_weights")} == {"foretell": 1, "all_weights": 1}
    for when in ("start", "end"):
        of = [p["guidance"][when] for p in numbers["populations"]]
        assert [t["p"] for t in numbers["tests"][when]["tests"]] == [g["p"] for g in of if g["p"] is not None]
        assert all((g["p"] is None) == ("q" not in g) for g in of)
    for reading in first["readings"].values():
        assert ("conley" in reading) == conley.available()
        if reading.get("conley"):
            assert len(reading["conley"]) == reading["morse_sets"]
    assert {r["kind"] for r in first["coordinate_kinds"]} == set(coordinates.COORDINATES)
    for level in numbers["levels"]:
        assert level["n"] == 60
        assert (
            level["balanced_accuracy"]["low"] < level["balanced_accuracy"]["value"] < level["balanced_accuracy"]["high"]
        )
        assert set(level["foretell"]["fates"]) == set(readings.READINGS)


@pytest.mark.slow
def test_the_table_has_a_row_for_each_network(report: Path, iris: Zoo) -> None:
    table = pq.read_table(report / "networks.parquet")
    assert sorted(table["model_id"].to_pylist()) == sorted(iris.select(epoch=20).models["model_id"].to_pylist())
    row = table.to_pylist()[-1]
    assert {"start_1", "end_2", "start_fate_published", "balanced_accuracy", "epochs"} <= set(row)
    places, names = coordinates.kernels(iris.architecture(row["model_id"]).layout)
    label = json.loads((report / "numbers.json").read_text())["populations"][-1]["coordinates"][0]
    assert row["end_1"] == pytest.approx(iris.vector(row["model_id"])[places[names.index(label)]])


@pytest.mark.slow
def test_pictures_are_there_in_both_formats(report: Path) -> None:
    names = (
        "portrait-epochs-20",
        "robustness-epochs-20",
        "spread",
        "coordinates",
        "fates",
        "foretell",
    )
    for name in names:
        picture = (report / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG\r\n")
        assert len(picture) > 20_000
        assert re.search(r"<svg[^>]*>", (report / f"{name}.svg").read_text())


def _pictured(kind: str = "spread", d: int = 2, spread: tuple[float, ...] = (), r2: float = 0.5) -> Any:
    kinds = [{"kind": k, "r2_held_out": r2, "r2_shuffled_held_out": r2} for k in coordinates.COORDINATES]
    return SimpleNamespace(
        population=SimpleNamespace(level={}), coordinates=coordinates.Coordinates(kind, tuple("abcd"[:d]), 1.0, np.asarray),
        spread=[(f"w[{i}]", s) for i, s in enumerate(spread)], numbers={"coordinate_kinds": kinds},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "d", "said"),
    [("spread", 2, "Of 2 weights taken by spread the last exceeds the first that is left by 50%"),
     ("spread", 3, "Of 3 weights taken by spread the last exceeds the first that is left by 100%"),
     ("pca", 2, "Spread of final weights")],
)  # fmt: skip
def test_the_title_of_spreads_is_of_what_was_chosen(kind: str, d: int, said: str) -> None:
    assert pictures.spread([_pictured(kind, d, (8.0, 3.0, 2.0, 1.0))]).get_suptitle() == said


def test_coordinates_that_could_not_be_held_out_are_drawn_and_said() -> None:
    assert "too few init groups" in pictures.coordinates([_pictured(r2=np.nan)]).get_suptitle()
    assert "spread (held-out R² 0.50)" in pictures.coordinates([_pictured(r2=np.nan), _pictured()]).get_suptitle()


@pytest.mark.parametrize(
    ("option", "said"),
    [("--confidence 2", "--confidence is 2, and lies between 0 and 1"), ("--confidence nan", "--confidence is nan"),
     ("--subdivisions 1", "--subdivisions is 1, and a box of 2 dimensions is cut 2 to 20 times"),
     ("--subdivisions 21", "cut 2 to 20 times"), ("--subdivisions 3 --dimensions 4", "cut 4 to 20 times")],
)  # fmt: skip
def test_numbers_that_no_graph_is_made_by_are_refused(
    iris_zoo: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    assert cli.main(["analyze", "dynamics", str(iris_zoo), "--quiet", *option.split()]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--population 0", "--population -5", "--resamples -1"])
def test_counts_are_counts(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["analyze", "dynamics", "nowhere", *option.split()])
    assert "is not at least" in capsys.readouterr().err


def test_more_coordinates_than_weights_are_refused(population: pop.Population) -> None:
    with pytest.raises(ZooError, match=r"--dimensions is 13, and networks of .* have 12 kernel weights"):
        dynamics_run._check_dimensions([population], 13)


@pytest.mark.slow
def test_the_same_call_gives_the_same_numbers(report: Path, iris_zoo: Path, tmp_path: Path) -> None:
    assert cli.main(["analyze", "dynamics", str(iris_zoo), "--out", str(tmp_path / "again"), *QUICK]) == 0
    again = json.loads((tmp_path / "again" / "numbers.json").read_text())
    before = json.loads((report / "numbers.json").read_text())
    assert again == before
    assert (tmp_path / "again" / "spread.svg").read_bytes() == (report / "spread.svg").read_bytes()


@pytest.mark.slow
def test_another_map_and_more_dimensions(iris_zoo: Path, tmp_path: Path) -> None:
    more = [
        "--level",
        "epochs=20",
        "--map",
        "step",
        "--coordinates",
        "modes",
        "--dimensions",
        "3",
        "--prior",
        "identity",
    ]
    assert (
        cli.main(["analyze", "dynamics", str(iris_zoo), "--out", str(tmp_path), *QUICK, "--resamples", "0", *more]) == 0
    )
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    first = numbers["populations"][0]
    assert first["coordinates"] == ["mode 1", "mode 2", "mode 3"]
    assert first["pairs"] == 300
    assert first["readings"]["mean"]["surrogate"]["prior_mean"] == "identity"
    assert (tmp_path / "portrait-epochs-20.png").stat().st_size > 20_000
    assert not (tmp_path / "robustness-epochs-20.png").exists()


@pytest.mark.slow
def test_unknown_levels_are_named(iris_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["analyze", "dynamics", str(iris_zoo), "--out", str(tmp_path)]
    assert cli.main([*call, "--level", "epoch=20"]) == 1
    assert "Did you mean `epochs`?" in capsys.readouterr().err
    assert cli.main([*call, "--level", "epochs=30"]) == 1
    assert "Known: 10, 20" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_json_holds_no_nan() -> None:
    value: Any = {
        "a": np.array([1.0, np.nan]),
        "b": (np.float64(2), np.int64(3)),
        "c": float("inf"),
        "d": [True, None, "x"],
    }
    assert jsonable(value) == {"a": [1.0, None], "b": [2.0, 3], "c": None, "d": [True, None, "x"]}
