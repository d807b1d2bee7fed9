"""The two studies of what analyses are good for: rules that stop networks early, and the monitor under another domain."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from zoo_builder import build, grid, plan
from zoo_datasets.analysis.dynamics.populations import Predictions, predictions
from zoo_datasets.analysis.dynamics.populations import populations as populations_of
from zoo_datasets.zoo import Zoo, open_zoo

RECIPE = """\
zoo: weightzoo/doodl3-tiny
source: {id: iris, train: 75, validation: 0, test: 75}
architecture: [{linear: classes}]
axes: {epochs: [4, 8]}
init: {kind: uniform, low: -2, high: 2, bias: 0}
replicates: 30
training: {batch_size: 5, lr: 1e-2}
snapshots: {epochs: [0, 2, 4, 6, 8]}
"""


def benchmark(name: str) -> ModuleType:
    if (folder := str(Path(__file__).parents[2] / "benchmarks")) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def guidance() -> ModuleType:
    return benchmark("guidance")


@pytest.fixture(scope="module")
def monitor() -> ModuleType:
    return benchmark("monitor")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "grid.yaml").write_text(RECIPE)
    build.build(plan.plan(grid.load(folder / "grid.yaml")), folder / "zoo", workers=0)
    return open_zoo(folder / "zoo")


# ── guidance ──────────────────────────────────────────────────────────────────────────


def test_ties_at_the_border_are_drawn_by_lot(guidance: ModuleType) -> None:
    accuracy = np.array([0.1, 0.2, 0.3, 0.4])
    assert guidance.kept(np.zeros(4), accuracy) == pytest.approx(0.25)
    assert guidance.kept(np.array([0.0, 1.0, 1.0, 1.0]), accuracy) == pytest.approx(0.3)
    assert guidance.kept(accuracy, accuracy) == pytest.approx(0.35)
    assert guidance.kept(np.array([3.0, 2.0, 2.0]), np.array([1.0, 0.0, 1.0])) == pytest.approx((1 + 0.25) / 1.5)


def test_rules_learn_on_images_that_they_are_not_judged_by(guidance: ModuleType) -> None:
    labels = np.array([0, 1, 0, 1, 2, 0, 2, 0])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (5, 8))
    learned, judged = guidance.halves(Predictions(labels, probabilities))
    assert sorted(learned.labels) == [0, 0, 1, 2]
    assert sorted(judged.labels) == [0, 0, 1, 2]
    rows = {tuple(p) for part in (learned, judged) for p in part.probabilities[0].tolist()}
    assert rows == {tuple(p) for p in probabilities[0].tolist()}


@pytest.mark.slow
def test_a_gain_is_over_the_lot_and_no_rule_beats_the_end(guidance: ModuleType, zoo: Zoo) -> None:
    found = guidance.gains(populations_of(zoo, size=30)[1])
    assert found["stopping_costs"] == pytest.approx(2 / (8 + 2))
    assert found["n"] == 30
    assert found["best"] > 0
    assert set(found["gain"]) == set(guidance.RULES)
    assert all(-found["best"] <= g <= found["best"] for g in found["gain"].values())
    assert found["gain"][guidance.LOSS] > 0  # after 2 of 8 epochs the loss says most


@pytest.mark.slow
def test_training_all_a_little_longer_is_read_off_the_longer_level(guidance: ModuleType, zoo: Zoo) -> None:
    """Of the same populations as the rules, and in balanced accuracy on the images that they are judged by."""
    used = populations_of(zoo, size=30)
    [found] = guidance.trained_longer(zoo, used)
    short, long = used
    at = zoo.select(epoch=6.0)
    place = {model: i for i, model in enumerate(at.column("model_id").to_pylist())}
    later = dataclasses.replace(long, end=np.stack([at.weights[place[i]] for i in long.ids]))
    ends, more = (guidance.halves(predictions(p))[1].balanced for p in (short, later))
    assert found["gain"]["value"] == pytest.approx(float(more.mean() - ends.mean()))
    assert found["gain"]["low"] < found["gain"]["value"] < found["gain"]["high"]
    assert (found["level"], found["n"]) == ("4", [30, 30])
    assert list(guidance.trained_longer(zoo, [short])) == []


def test_an_interval_over_populations_of_two_recipes_is_welchs(guidance: ModuleType) -> None:
    """The mean of two is half the difference of one and the other turned around."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.1, 0.01, 5), rng.normal(0.0, 0.05, 4)
    found = guidance.of_recipes(np.concatenate([first, second]), np.repeat(["a", "b"], [5, 4]), level=0.95)
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    assert [found["low"], found["high"]] == pytest.approx([welch.low / 2, welch.high / 2])


def test_words_follow_the_intervals(guidance: ModuleType) -> None:
    row = {
        "family": "iris-epochs", "level": {"epochs": "100"}, "stopping_costs": 0.02, "best": 0.1,
        "gain": dict.fromkeys(guidance.RULES, 0.0), "gain_validation": dict.fromkeys(guidance.RULES, 0.0),
    }  # fmt: skip
    noise = np.tile([[1e-3], [-0.9e-3]], (10, len(guidance.RULES)))
    rows = [row | {"gain": dict(zip(guidance.RULES, n, strict=True)), "best": 0.1 + n[0]} for n in noise]
    result = {"rows": rows, "longer": [], "summary": guidance.summary(rows)}
    assert "no gain by fates can be claimed" in guidance.section(result)
    assert "Better than a lot: none" in guidance.section(result)
    for r in rows:
        r["gain"] = r["gain"] | {"fate, mean": r["gain"]["fate, mean"] + 0.05}
    result["summary"] = guidance.summary(rows)
    assert "Better than a lot: fate, mean" in guidance.section(result)
    assert "fates gain in 1 of 3 readings" in guidance.section(result)


# ── monitor ───────────────────────────────────────────────────────────────────────────


def test_a_dose_replaces_so_many_images_and_a_larger_one_holds_the_smaller(monitor: ModuleType, tmp_path: Path) -> None:
    for folder, first in ((monitor.MNIST, 0), (monitor.FASHION, 10**6)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        rows = pa.table({"label": np.arange(50_100) + first})
        for split in ("train", "test"):
            pq.write_table(rows, tmp_path / "data" / folder / f"{split}-00000-of-00001.parquet")
    foreign = []
    for dose in (0.0, 0.02, 0.5, 1.0):
        made = monitor.source(tmp_path / "data", tmp_path / "made", f"dose-{dose}", 300, 200, dose)
        labels = pq.read_table(made / "train.parquet")["label"].to_numpy()
        foreign.append(set(np.flatnonzero(labels >= 10**6).tolist()))
        assert (labels % 10**6 == np.arange(300, 500)).all()
        assert pq.read_table(made / "test.parquet")["label"].to_numpy().max() < 10**6  # tested on the old domain
    assert [len(f) for f in foreign] == [0, 4, 100, 200]
    assert foreign[1] < foreign[2] < foreign[3]


def test_false_alarms_are_held_to_each_level_and_doses_to_images_of_the_same_domain(monitor: ModuleType) -> None:
    n = 100
    lineages = [f"{i:03}" for i in range(n)]

    def row(condition: str, alarms: int, change: float) -> dict[str, Any]:
        p = np.where(np.arange(n) < alarms, 1 / 30, 0.5)
        changes = change + np.tile([0.001, -0.001], n // 2)
        return {
            "condition": condition, "p": p.tolist(), "lineages": lineages, "accuracy_changes": changes.tolist(),
            "retest": {f"{level:g}": {"value": 0.0, "low": 0.0, "high": 0.0} for level in monitor.LEVELS},
            "accuracy_change": {"value": 0.0, "low": 0.0, "high": 0.0}, "median_length": 1.0, "median_direction": 0.0,
        }  # fmt: skip

    rows = [row(monitor.SEEN, 5, 0.0), row(monitor.name(0.0), 30, -0.01)]
    rows += [row(monitor.name(d), 30 if d < 0.1 else 90, -0.01 if d < 0.5 else -0.2) for d in monitor.DOSES if d]
    for one in rows:
        one |= monitor.beside(one, rows[1])
    said = monitor.section({"rows": rows, "networks": n, "n_history": 29, "test_accuracy_of_parents": 0.9})
    assert "images seen before, 0.05 [0.02, 0.11] at level 0.05 (as allowed), 0.05 [0.02, 0.11] at level 0.1" in said
    assert "images never seen, 0.30 [0.21, 0.40] at level 0.05 (**more than allowed**)" in said
    assert "images never seen from 10 % on; less accuracy on MNIST than after those from 50 % on" in said
