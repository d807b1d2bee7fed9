"""Two zoos of 64 networks on `digits` that benchmarks are tested on, the problem of one, and its answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bench_zoos import OTHER, RECIPE, built

from zoo_datasets import results, tasks
from zoo_datasets.baselines import tabular
from zoo_datasets.zoo import Zoo

FEW_TREES = 25


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boosting of 300 trees takes seconds on 32 networks too."""
    monkeypatch.setattr(tabular, "TREES", FEW_TREES)


@pytest.fixture(scope="session")
def bench_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(RECIPE, tmp_path_factory.mktemp("bench") / "weightzoo" / "bench")


@pytest.fixture(scope="session")
def other_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(OTHER, tmp_path_factory.mktemp("other") / "weightzoo" / "other")


@pytest.fixture(scope="session")
def found(bench_zoo: Zoo) -> tasks.Problem:
    return tasks.problem(bench_zoo, ["test_accuracy", "lr", "generalization_gap"])


@pytest.fixture(scope="session")
def answered_once(found: tasks.Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one question to the cheapest baselines alone."""
    folder = tmp_path_factory.mktemp("answered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabular, "TREES", FEW_TREES)
        list(results.run(found, [], 1, folder))
    return folder


@pytest.fixture
def answered(answered_once: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    return Path(shutil.copytree(answered_once, tmp_path / "answered"))
