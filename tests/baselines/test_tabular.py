"""Baselines on tables and what all baselines promise: chosen on validation, the same again, back from their file."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest

from zoo_datasets import (
    errors,
    solving,
)
from zoo_datasets.baselines import known, saved, tabular
from zoo_datasets.baselines.interface import Target, Targets, View
from zoo_datasets.baselines.tabular import Tabular
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.views import per_tensor

pytest_plugins = ("bench_fixtures",)
pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.mark.some(1)
@pytest.mark.parametrize("name", ["statistics", "statistics-ridge"])
@pytest.mark.slow
def test_weights_tell_the_learning_rate_and_shuffled_ones_do_not(name, found):
    (cell,) = [c for c in solving.solve(found, name, 0) if "/lr@" in c.task]
    y = found.test.targets.values[:, 1]
    assert (cell.predictions.argmax(1) == y).mean() > 0.9
    np.testing.assert_allclose(cell.predictions.sum(1), 1)


@pytest.mark.slow
def test_the_recipe_tells_accuracy_but_not_the_setting_that_is_asked_for(found):
    cells = {c.task.split("/")[2]: c for c in solving.solve(found, "metadata", 0)}
    y = found.test.targets.values
    assert np.corrcoef(cells["test_accuracy@1"].predictions, y[:, 0])[0, 1] > 0.8  # the learning rate decides it
    assert abs((cells["lr@1"].predictions.argmax(1) == y[:, 1]).mean() - 0.5) < 0.3


@pytest.mark.slow
def test_one_seed_gives_the_same_numbers(found):
    first, second = solving.solve(found, "statistics", 3), solving.solve(found, "statistics", 3)
    assert all(a.predictions.tobytes() == b.predictions.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_all_solvers_have_the_same_budget_and_record_it(found):
    for name in ("metadata", "metadata-ridge", "statistics", "statistics-ridge"):
        (cell, *_) = solving.solve(found, name, 0)
        assert len(cell.chosen["tried"]) == 4
        losses = [t["validation_loss"] for t in cell.chosen["tried"]]
        settings = [{k: v for k, v in t.items() if k not in ("validation_loss", "turns")} for t in cell.chosen["tried"]]
        assert cell.chosen["chosen"] == settings[int(np.argmin(losses))]


@pytest.mark.slow
def test_nothing_is_chosen_on_test(found):
    """Other test targets give the same predictions."""
    spoiled = dataclasses.replace(found.test.targets, values=found.test.targets.values[::-1].copy())
    other = dataclasses.replace(found, test=dataclasses.replace(found.test, targets=spoiled))
    for a, b in zip(solving.solve(found, "statistics", 0), solving.solve(other, "statistics", 0), strict=True):
        assert a.predictions.tobytes() == b.predictions.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", known.BASELINES)
def test_every_baseline_solves_every_task(name, found):
    for cell in solving.solve(found, name, 0):
        assert cell.error is None
        assert np.isfinite(cell.predictions).all()
        assert cell.predictions.shape == ((len(found.test), 2) if "/lr@" in cell.task else (len(found.test),))


@pytest.mark.slow
@pytest.mark.parametrize("name", known.BASELINES)
def test_every_baseline_comes_back_from_its_file(name, found, tmp_path):
    solver = known.baseline(name)
    if hasattr(solver, "training"):
        solver.training = dataclasses.replace(solver.training, epochs=2)
    solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), 0)
    saved.save(solver, tmp_path / "x")
    again = saved.load(tmp_path / "x")
    before, after = (s.predict(found.test.view) for s in (solver, again))
    assert set(before) == set(after) == {t.name for t in found.test.targets.of}
    assert all(np.array_equal(before[k], after[k]) for k in before)
    assert again.parameters == solver.parameters


def test_mixed_layouts_are_a_sentence(found):
    other = build_architecture(["flatten", {"linear": 3}, "activation", {"linear": "classes"}], (1, 8, 8), 10)
    whole = found.train.view
    view = dataclasses.replace(
        whole,
        architectures=(*whole.architectures, other),
        architecture=np.array([*whole.architecture[:-1], len(whole.architectures)]),
    )
    assert view.take(np.arange(len(view) - 1)).layout.layout_id == whole.layout.layout_id  # of a part without it
    mixed = dataclasses.replace(found, train=dataclasses.replace(found.train, view=view))
    for cell in solving.solve(mixed, "flat", 0):
        assert re.search(r"mixes \d layouts, and this baseline takes one", cell.error)


def test_statistics_read_networks_of_any_depth(found):
    """First and last layers meet their like: zeros stand in the middle."""
    deep = build_architecture(
        ["flatten", {"linear": 5}, "activation", {"linear": 4}, "activation", {"linear": "classes"}], (1, 8, 8), 10
    )
    small = found.train.view.architectures[0]
    weights = [np.arange(a.n_params, dtype=np.float32) for a in (deep, small)]
    view = View((deep, small), np.array([0, 1]), weights, pa.table({"lr": [1.0, 2.0]}))
    targets_of = Targets((Target("x"),), np.array([[0.0], [1.0]]))
    solver = Tabular("x", "statistics", "ridge")
    solver.fit((view, targets_of), (view, targets_of), 0)
    shown = solver._statistics(view).reshape(2, 6, 7)
    own = per_tensor.statistics(weights[1][None], small.layout)[0]
    np.testing.assert_array_equal(shown[1, [0, 1, 4, 5]], own)
    assert not shown[1, 2:4].any()
    assert shown[0].all(1).any()


@pytest.mark.parametrize(
    ("damage", "said"), [("cut", "damaged"), ("code", "collections is not of this package"), ("other", "damaged")]
)
def test_a_saved_baseline_that_is_none_is_a_sentence(found, tmp_path, damage, said):
    solver = known.baseline("metadata-ridge")
    solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), 0)
    saved.save(solver, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    head = data[8:end].replace(b"zoo_datasets.baselines.tabular:Tabular", b"collections:UserDict")
    changed = {
        "cut": data[:-40],
        "code": len(head).to_bytes(8, "little") + head + data[end:],
        "other": b"no tensors",
    }[damage]
    (tmp_path / "x").write_bytes(changed)
    with pytest.raises(errors.IntegrityError, match=f"is no saved baseline, or {said}" if damage != "code" else said):
        saved.load(tmp_path / "x")


def test_trees_give_what_scikit_learn_gives():
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    from zoo_datasets.baselines.forest import Forest

    draw = np.random.default_rng(0)
    x = draw.standard_normal((200, 4))
    x[::7, 1] = np.nan
    y = np.nan_to_num(x[:, 0] * x[:, 1] + x[:, 2])
    model = HistGradientBoostingRegressor(max_iter=20).fit(x, y)
    np.testing.assert_allclose(Forest.of(model)(x)[:, 0], model.predict(x), rtol=1e-12)
    classes = HistGradientBoostingClassifier(max_iter=20).fit(x, np.digitize(y, [-0.5, 0.5]))
    np.testing.assert_allclose(Forest.of(classes)(x), classes.decision_function(x), rtol=1e-12)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_boosting_keeps_the_turns_that_validation_likes_and_none_where_nothing_can_be_read(classes):
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))

    def right(of):
        return np.digitize(of[:, 0], [-0.5, 0.5][: classes - 1]).astype(float) if classes else of[:, 0]

    solver = tabular.Boosting(Target("t", classes), 0.1, 15, 0)
    solver.fit(x, right(x))
    whole, last = solver.predict(other), tabular._loss(solver.target, solver.predict(other), right(other))
    turns = solver.keep_best(other, right(other))
    assert 0 < turns <= 25
    assert tabular._loss(solver.target, solver.predict(other), right(other)) <= last
    if turns == 25:
        np.testing.assert_array_equal(solver.predict(other), whole)
    noise = rng.permutation(right(x))
    solver.fit(x, noise)
    assert solver.keep_best(other, np.full(200, noise.mean()) if not classes else rng.permutation(noise)) < 25
    solver.forest = solver.forest.first(0)
    said = solver.predict(other)
    np.testing.assert_allclose(said, np.tile(said[:1], (200,) + (1,) * (said.ndim - 1)))
    expected = np.bincount(noise.astype(int)) / 200 if classes else noise.mean()
    np.testing.assert_allclose(said[0], expected, rtol=1e-6)


def test_boosting_of_many_classes_takes_fewer_turns(monkeypatch):
    monkeypatch.setattr(tabular, "TREES", 300)
    turns = {n: tabular.Boosting(Target("t", n), 0.1, 15, 0).trees for n in (0, 2, 20, 100, 200)}
    assert turns == {0: 300, 2: 300, 20: 300, 100: 60, 200: 30}


@pytest.mark.parametrize(
    "name", ["mean", "statistics-ridge", "statistics", "statistics-eilertsen", "metadata+statistics"]
)
def test_nothing_is_said_of_no_networks_and_of_one_class_that_it_is_the_one(name):
    made = build_architecture(["flatten", {"linear": 3}, "activation", {"linear": "classes"}], (1, 2, 2), 2)
    vectors = list(np.random.default_rng(0).normal(size=(24, made.n_params)).astype(np.float32))
    view = View((made,), np.zeros(24, np.int64), vectors, pa.table({"lr": np.arange(24.0)}))
    targets = Targets((Target("kind", classes=3),), np.ones((24, 1)))
    baseline = known.baseline(name)
    baseline.fit((view, targets), (view, targets), 0)
    np.testing.assert_allclose(baseline.predict(view)["kind"].argmax(1), 1)
    assert len(baseline.predict(view.take(np.zeros(0, np.int64)))["kind"]) == 0
