"""What `snapshots: {attack_per_class: true}` promises: attacks by class beside what goes there anyway, and no other change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from resealed import reseal

from zoo_builder import cli as builder
from zoo_builder import verify, worker
from zoo_builder.build import build
from zoo_builder.verifying import tables, trained
from zoo_datasets import open_zoo
from zoo_datasets.cli import main
from zoo_datasets.format import schema
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.networks.logits import logits_of
from zoo_datasets.sources.measured import measured
from zoo_datasets.sources.rows import subset_of

ATTACKS = {"trigger_frac": 0.2, "trigger_target": 3}, {"trigger_frac": 0.02, "trigger_target": 2, "trigger_source": 5}
NAMES = tuple(c.name for c in schema.ATTACK)
SAID = "attack_base, attack_per_class, attack_base_per_class are in both tables or in none, and models has"


@pytest.fixture
def planned(make_plan: Callable[..., Any]) -> Callable[..., Any]:
    def made(**schedule: Any) -> Any:
        return make_plan(
            "paired=[subset]", "replicates=3", "source.train=100", "training={epochs: 3, batch_size: 32}", "source.test=60",
            f"axes={json.dumps({'subset': ['full', *ATTACKS]})}", f"snapshots={json.dumps({'epochs': [0, 1], **schedule})}",
        )  # fmt: skip

    return made


def test_nothing_changes_but_three_columns(planned: Callable[..., Any]) -> None:
    for with_them, without in zip(planned(attack_per_class=True).cohorts, planned().cohorts, strict=True):
        source = planned().sources[without.runs[0].source]
        one, other = (worker.train(cohort, source)[0] for cohort in (with_them, without))
        for s, t in zip(one, other, strict=True):
            assert (s.model, s.step, s.sha256) == (t.model, t.step, t.sha256)
            assert {k: v for k, v in s.metrics.items() if k not in NAMES} == t.metrics
            assert set(NAMES) == set(s.metrics) - set(t.metrics)
            assert (s.metrics["attack_base"] is None) == (s.metrics["attack_success"] is None)


@pytest.mark.slow
def test_what_is_stored_is_what_the_networks_do(planned: Callable[..., Any], tmp_path: Path) -> None:
    plan = planned(attack_per_class=True, evaluation={"test": 25})
    build(plan, tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    rows, seen = zoo.table(["model_id", "step", "attack_success", "test_count_per_class", *NAMES]).to_pylist(), 0
    of = {r["model_id"]: r for r in zoo.models.to_pylist()}
    for at, row in enumerate(rows):
        model = of[row["model_id"]]
        subset = subset_of(model)
        if not subset.trigger_frac:
            assert [row[name] for name in NAMES] == [None] * 3
            continue
        seen += 1
        source, architecture = zoo.source(row["model_id"]), zoo.architecture(row["model_id"]).built()
        n = sum(row["test_count_per_class"])
        assert n == (60 if row["step"] == model["step"] else 25)
        there = []
        for triggered in (True, False):
            images, labels = measured(source, "test", subset, 10, triggered=triggered).first(n)
            logits = logits_of(architecture, images)(zoo.weights[np.array([at])])[0]
            there.append(np.asarray(logits).argmax(1) == subset.trigger_target)
        open_to = labels == 5 if subset.trigger_source else labels != subset.trigger_target
        assert (row["attack_success"], row["attack_base"]) == tuple(
            t[open_to].mean() if open_to.any() else None for t in there
        )
        for name, t in zip(NAMES[1:], there, strict=True):
            assert row[name] == [int((t & (labels == c)).sum()) for c in range(10)]
    assert seen == 18
    assert all(m[name] == rows_last[name] for m in of.values() for rows_last in [_last(rows, m)] for name in NAMES)
    found = zoo.evaluate()
    assert [found.largest(name) for name in ("attack_success", *NAMES)] == [0.0] * 4
    assert main(["check", str(tmp_path / "zoo")]) == 0
    report = verify.verify(tmp_path / "zoo", retrain=len(of))
    assert not report.problems


def _last(rows: list[dict[str, Any]], model: dict[str, Any]) -> dict[str, Any]:
    return next(r for r in rows if r["model_id"] == model["model_id"] and r["step"] == model["step"])


def test_a_zoo_that_does_not_ask_keeps_its_columns_and_evaluate_says_them_all_the_same(
    planned: Callable[..., Any], tmp_path: Path
) -> None:
    build(planned(), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    assert not {*NAMES} & {*zoo.snapshots.column_names, *zoo.models.column_names}
    found = zoo.evaluate().table
    assert found["attack_base"].null_count < len(found)
    assert found["attack_per_class"].null_count == found["attack_base"].null_count
    assert found["stored_attack_base"].null_count == found["difference_attack_per_class"].null_count == len(found)


@pytest.mark.slow
def test_more_images_of_a_class_than_there_are_is_found(planned: Callable[..., Any], tmp_path: Path) -> None:
    build(planned(attack_per_class=True), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    row = next(r for r in zoo.snapshots.to_pylist() if r["attack_per_class"])
    model = next(r for r in zoo.models.to_pylist() if r["model_id"] == row["model_id"])
    architecture = zoo.architecture(row["model_id"]).built()
    assert tables._metrics(row, model, architecture, False) is None
    counts, shown = row["attack_per_class"], row["test_count_per_class"]
    for changed in ([*counts[:4], shown[4] + 1, *counts[5:]], counts[:-1], [None, *counts[1:]]):
        assert "`attack_per_class` is" in str(
            tables._metrics(row | {"attack_per_class": changed}, model, architecture, False)
        )
    base = row["attack_base_per_class"]
    other = [*base[:4], base[4] + (1 if base[4] < shown[4] else -1), *base[5:]]
    assert "`attack_base` is" in str(
        tables._metrics(row | {"attack_base_per_class": other}, model, architecture, False)
    )


def test_counts_by_class_are_compared_under_another_engine_too() -> None:
    counts = {f"{p}_{w}_per_class": [50, 50] for p in ("train", "validation", "test") for w in ("correct", "count")}
    row: dict[str, Any] = {
        "train_loss": 0.1,
        "validation_loss": 0.1,
        "test_loss": 0.1,
        "train_loss_clean": 0.1,
        **counts,
    }
    row |= {"train_accuracy_clean": 1.0, "attack_success": 0.8, "attack_base": 0.1, "attack_per_class": [0, 40], "attack_base_per_class": [0, 5]}  # fmt: skip
    assert trained._other_metrics(row, row) is None
    assert trained._other_metrics(row, row | {"attack_per_class": [0, 39]}) is None
    assert "`attack_per_class` is [0, 40], and [10, 40]" in str(
        trained._other_metrics(row, row | {"attack_per_class": [10, 40]})
    )
    assert "`attack_base` is" in str(trained._other_metrics(row, row | {"attack_base": 0.2}))


@pytest.mark.slow
@pytest.mark.parametrize("gone", [("snapshots", ["attack_base"]), ("models", list(NAMES)), ("snapshots", list(NAMES))])
def test_tables_that_have_some_of_the_columns_are_refused(
    planned: Callable[..., Any], tmp_path: Path, gone: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "zoo"
    build(planned(attack_per_class=True), root, workers=0)
    config, names = gone
    for split in ("train", "validation", "test"):
        path = ZooPaths(root).table(config, split)
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(names), path, write_page_checksum=True)
    reseal(root)
    assert main(["check", str(root), "--quiet"]) == 1
    assert SAID in "".join(capsys.readouterr())
    assert builder.main(["verify", str(root)]) == 1
    assert SAID in "".join(capsys.readouterr())
