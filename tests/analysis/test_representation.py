"""Poor data: what is planted is told from weights where a clean test shows it and where it does not, and what must be refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets.analysis.representation import arms as arms_of
from zoo_datasets.analysis.representation import run as study
from zoo_datasets.analysis.representation.arms import REFERENCE
from zoo_datasets.cli import main
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo, open_zoo

POOR = """\
zoo: mine/poor
source: {id: digits, train: 1000, validation: 97, test: 600, scale: standardize}
architecture: [flatten, {linear: 16}, activation, {linear: classes}]
axes:
  subset:
    - {frac: 0.5}
    - {frac: 0.5, class_shares: [1, 1, 1, 0.1, 1, 1, 1, 1, 1, 1]}
    - {frac: 0.5, trigger_frac: 0.08, trigger_target: 3, trigger_clean_label: true}
paired: [subset]
replicates: 30
training: {optimizer: adam, lr: 5.0e-3, batch_size: 32, steps: 300}
snapshots: {steps: [0, 5, 15, 30], attack_per_class: true}
splits: {train: 0.4, validation: 0.2, test: 0.4}
"""
RARE, CUE = "class 3 of share 0.1", "a cue for 3 on 0.08"


def built(root: Path, recipe: str) -> Zoo:
    (root / "recipe.yaml").write_text(recipe)
    planned = plan.plan(grid.load(root / "recipe.yaml"))
    build(planned, root / planned.grid.zoo, workers=0)
    return open_zoo(root / planned.grid.zoo)


def page_of() -> ModuleType:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("representation_page")


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(tmp_path_factory.mktemp("poor"), POOR)


@pytest.mark.slow
def test_levels_are_read_with_what_they_cost(poor: Zoo) -> None:
    arms, counts = arms_of.read(poor)
    assert counts == {"networks": 90, "diverged_or_unscored": 0, "without_a_twin": 0}
    assert arms.levels == {RARE: "rare", CUE: "cue"}
    assert [int(arms.side(level).sum()) for level in (REFERENCE, RARE, CUE)] == [30] * 3
    assert set(arms.share[arms.side(REFERENCE, RARE)]) == {1.0, 0.1}
    np.testing.assert_array_equal(np.isnan(arms.share), arms.side(CUE))
    stored = {r["model_id"]: r for r in poor.models.to_pylist()}
    for k in np.flatnonzero(arms.side(CUE)):
        row = stored[arms.networks.model[k]]
        assert arms.reliance[k] == (row["attack_success"] - row["attack_base"]) / (1 - row["attack_base"])
    row = stored[arms.networks.model[0]]
    assert arms.rare[0] == row["test_correct_per_class"][3] / row["test_count_per_class"][3]
    rare, cue = study.harm(arms)
    assert rare["accuracy_lost_on_rare_classes"]["low"] > 0.3 > cue["accuracy_lost_on_rare_classes"]["high"]
    assert rare["accuracy_lost"]["low"] > 0.02 > cue["accuracy_lost"]["high"]
    assert rare["reliance"] is None
    assert cue["reliance"]["low"] > 0.1


@pytest.mark.slow
def test_the_study_leaves_numbers_tables_and_pictures(poor: Zoo, tmp_path: Path) -> None:
    asked = "statistics-logistic,linear-on-final-initial,recipe,test-loss-and-accuracy,accuracy-by-class"
    out = tmp_path / "out"
    assert main(["analyze", "representation", str(poor.root), "--detectors", asked, "--out", str(out), "--quiet"]) == 0
    numbers = json.loads((out / "numbers.json").read_text())
    row = {(r["level"], r["detector"]): r for r in numbers["told"]}
    assert len(row) == 10
    assert {row[level, "recipe"]["auc"]["value"] for level in (RARE, CUE)} == {0.5}  # no control is told the level
    # A class that was rare shows in weights and in its own accuracy; so does one that is known by its mark, and hardly in the loss.
    for level, detector in ((RARE, "statistics, logistic"), (RARE, "accuracy by class"), (CUE, "accuracy by class")):
        assert row[level, detector]["auc"]["low"] > 0.6
    assert row[CUE, "test loss and accuracy"]["auc"]["value"] < row[CUE, "accuracy by class"]["auc"]["value"] - 0.1
    assert row[RARE, "statistics, logistic"]["beyond"] is False
    assert row[CUE, "accuracy by class"]["beyond"] is None
    null = numbers["nulls"]["accuracy by class"]["auc"]
    assert null["low"] < 0.5 < null["high"]
    targets = {r["target"] for r in numbers["amount"]}
    assert targets == {"log10 of the smallest share", "reliance on the cue"}
    by_class = next(
        r for r in numbers["amount"] if r["reader"] == "accuracy by class" and r["target"].startswith("log")
    )
    assert by_class["r2"]["value"] > 0.3
    page = page_of()
    assert list(page.section({})) == []
    text = "\n".join(page.section({"mine/poor": numbers}))
    assert "**Class 3 of share 0.1.** Told above ½ by statistics, logistic" in text
    assert "beyond every control by none." in text
    tables = [[k.count(" | ") for k in block.splitlines()] for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 3
    assert all(len(set(lines[:1] + lines[2:])) == 1 for lines in tables)
    for name in ("told", "harm"):
        assert (out / f"{name}.png").stat().st_size > 5000


@pytest.mark.slow
def test_networks_that_send_next_to_all_images_there_anyway_are_left_out_and_counted(poor: Zoo) -> None:
    arms, _ = arms_of.read(poor)
    gone = np.flatnonzero(arms.side(CUE))[:7]
    told = dataclasses.replace(
        arms, reliance=np.where(np.isin(np.arange(len(arms.level)), gone), np.nan, arms.reliance)
    )
    rare, cue = study.harm(told)
    assert (rare["reliance_unknown"], cue["reliance_unknown"], cue["n"], cue["reliance"]["n_examples"]) == (
        None,
        7,
        30,
        23,
    )
    assert cue["reliance"]["value"] == pytest.approx(np.nanmean(told.reliance))
    rows = study.amount(told, 0)
    assert {(r["target"], r["left_out"]) for r in rows} == {
        ("log10 of the smallest share", 0),
        ("reliance on the cue", 7),
    }
    none = dataclasses.replace(arms, reliance=np.full(len(arms.level), np.nan))
    assert (study.harm(none)[1]["reliance"], study.harm(none)[1]["reliance_unknown"]) == (None, 30)
    assert {r["target"] for r in study.amount(none, 0)} == {"log10 of the smallest share"}


def test_what_weights_say_beyond_controls_is_said_by_bounds() -> None:
    def row(control: bool, low: float | None, high: float | None) -> dict[str, object]:
        return {"control": control, "auc": {"low": low, "high": high}}

    def said(*rows: dict[str, object]) -> list[object]:
        return [r["beyond"] for r in study._beyond(list(rows), "auc")]

    assert said(row(False, 0.8, 0.9), row(True, 0.5, 0.7)) == [True, None]
    assert said(row(False, 0.8, 0.9), row(True, 0.5, 0.8)) == [False, None]
    assert said(row(False, 0.8, 0.9), row(True, None, None)) == [False, None]
    assert said(row(False, None, None), row(True, 0.5, 0.7)) == [False, None]
    assert said(row(False, 0.8, 0.9)) == [None]


QUICK = (
    POOR.replace("steps: 300", "steps: 3").replace("[0, 5, 15, 30]", "[0]").replace("replicates: 30", "replicates: 5")
)
FULL, SHARES, MARK = (line for line in QUICK.splitlines(keepends=True) if line.startswith("    - "))
OTHERS = {
    "alike": (QUICK.replace(SHARES, "").replace(MARK, ""), "has no network whose classes"),
    "wrong": (QUICK.replace(", trigger_clean_label: true", ""), "those are backdoors"),
    "alone": (QUICK.replace(FULL, ""), "has no twin of a network whose classes are alike"),
    "noise": (QUICK.replace(FULL, FULL + FULL.replace("0.5}", "0.5, label_noise_frac: 0.4}")), "differ in `label_noise_frac` too"),
    "fewer": (QUICK.replace(MARK, MARK.replace("frac: 0.5,", "frac: 0.8,")), "differ in `subset_frac` too"),
    "rates": (QUICK.replace("lr: 5.0e-3, ", "").replace("axes:\n", "axes:\n  lr: [5.0e-3, 1.0e-3]\n").replace("[subset]", "[subset, lr]"), "are both clean twins"),
    "equal": (QUICK.replace("[1, 1, 1, 0.1, 1, 1, 1, 1, 1, 1]", "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]"), "that are all equal"),
    "both": (QUICK.replace(MARK, MARK.replace("frac: 0.5,", "frac: 0.5, class_shares: [1, 1, 1, 1, 1, 0.1, 1, 1, 1, 1],")), "unequal shares and a mark"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_zoos_that_hold_no_such_networks_are_refused(name: str, tmp_path: Path) -> None:
    text, said = OTHERS[name]
    with pytest.raises(ZooError, match=said):
        arms_of.read(built(tmp_path, text))


@pytest.mark.slow
def test_levels_of_equal_share_and_other_classes_are_two(tmp_path: Path) -> None:
    other = SHARES.replace("[1, 1, 1, 0.1", "[0.1, 1, 1, 1")
    arms, _ = arms_of.read(built(tmp_path, QUICK.replace(MARK, other)))
    assert list(arms.levels) == ["class 0 of share 0.1", "class 3 of share 0.1"]
    assert [row["reliance"] for row in study.harm(arms)] == [None, None]


@pytest.mark.slow
def test_a_zoo_of_cues_alone_has_no_rare_classes_and_two_layouts_have_fewer_readers(tmp_path: Path) -> None:
    two = QUICK.replace(SHARES, "").replace("replicates: 5", "replicates: 16").replace(
        "architecture: [flatten, {linear: 16}, activation, {linear: classes}]\naxes:\n",
        "axes:\n  architecture:\n    - [flatten, {linear: 16}, activation, {linear: classes}]\n    - [flatten, {linear: 12}, activation, {linear: classes}]\n",
    )  # fmt: skip
    zoo = built(tmp_path, two)
    assert main(["analyze", "representation", str(zoo.root), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert [row["accuracy_lost_on_rare_classes"] for row in numbers["harm"]] == [None]
    assert "statistics, logistic" in {r["detector"] for r in numbers["told"]}
    assert not {"linear on weights", "linear on sorted weights"} & {r["detector"] for r in numbers["told"]}
    assert "several layouts" in numbers["nulls"]["linear on sorted weights"]["note"]
    assert {r["reader"] for r in numbers["amount"]} >= {"statistics, boosting", "accuracy by class"}
    assert "\n".join(page_of().section({"mine/poor": numbers}))


@pytest.mark.slow
def test_sides_that_are_too_small_are_refused(poor: Zoo) -> None:
    arms, _ = arms_of.read(poor)
    few = dataclasses.replace(arms, level=np.where(arms.networks.split == "test", REFERENCE, arms.level))
    with pytest.raises(
        ZooError, match=r"The test split has 0 networks of the level 'class 3 of share 0.1'; at least 5"
    ):
        study._check_sides(few)
