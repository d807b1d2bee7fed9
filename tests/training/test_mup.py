"""The maximal update parameterization in training: what it promises of widths, and that zoos of it are as any others."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from zoo_builder import engines, grid, plan, verify
from zoo_builder.build import build
from zoo_builder.planning import cohorts, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training import fingerprint
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets import open_zoo, sources, variation
from zoo_datasets.format import check

# Outputs start near 0, as in the limit of wide networks; else those of the narrow ones are wrong by more, and move by more.
RECIPE = """\
zoo: a/b
splits: {{train: 1}}
source: {{id: digits, train: 200, validation: 10, test: 100}}
architecture: [flatten, {{linear: {width}}}, activation, {{linear: {width}}}, activation, {{linear: classes}}]
init: {{kind: kaiming_uniform, last: {{uniform: [-0.05, 0.05]}}}}
replicates: {{init: 6}}
training: {{epochs: 2, batch_size: 32}}
"""
WIDTHS = (16, 64, 256)
STEPS = 5
MUP = ("parameterization=mup", "mup_base=16")


def cohort_of(folder: Path, width: int, *changes: str) -> Cohort:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(width=width))
    (made,) = cohorts.group(runs.of(grid.load(path, changes)), 16, sources.load, lambda *_: "torch_batched", "cpu")
    return made


def trained(cohort: Cohort) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights before and after the first steps, each (M, P), and images."""
    source = sources.load(cohort.runs[0].source)
    data = data_of(cohort, source)
    job = job_of(cohort, source, data)
    trainer = Trainer(cohort, source, data, engines.open_backend("torch_batched", job))
    return job.initial, trainer.weights_after(STEPS), data.pool[:100]


def values(cohort: Cohort, weights: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """What enters the units of each layer."""
    tensors = cohort.architecture.layout.unflatten(weights.astype(np.float64))
    found, x = [], images.reshape(len(images), -1)
    for i in (1, 2, 3):
        found.append(x @ tensors[f"linear{i}.weight"].T + tensors[f"linear{i}.bias"])
        x = np.maximum(found[-1], 0)
    return found


def slopes(folder: Path, *changes: str) -> np.ndarray:
    """Of each layer: how the root mean square of what training changed grows with the width, as a power of it."""
    moved = []
    for width in WIDTHS:
        cohort = cohort_of(folder, width, *changes)
        before, after, images = trained(cohort)
        pairs = zip(before, after, strict=True)
        differences = [
            [b - a for a, b in zip(values(cohort, p, images), values(cohort, q, images), strict=True)] for p, q in pairs
        ]
        moved.append(np.mean([[np.log((d**2).mean()) / 2 for d in of_model] for of_model in differences], axis=0))
    fitted: np.ndarray = np.polyfit(np.log(WIDTHS), moved, 1)[0]
    return fitted


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("optimizer", "lr"), [("momentum", 1e-3), ("sgd", 4e-3), ("adam", 2e-4), ("adamw", 2e-4), ("rmsprop", 5e-5)]
)
@pytest.mark.slow
def test_what_a_few_steps_change_grows_with_the_width_in_the_standard_parameterization_alone(
    optimizer: str, lr: float, tmp_path: Path
) -> None:
    given = (f"training.optimizer={optimizer}", f"training.lr={lr}")
    standard, mup = slopes(tmp_path, *given), slopes(tmp_path, *given, *MUP)
    assert np.abs(mup).max() < 0.2
    assert standard[1] > 0.2  # the second layer
    assert standard[2] > 0.7  # the outputs


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.slow
def test_at_its_base_it_is_the_standard_parameterization_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    given = (f"training.optimizer={optimizer}", "training.weight_decay=0.01", "training.lr=0.05")
    standard, base, other = (
        trained(cohort_of(tmp_path, 16, *given, *changes))
        for changes in ((), MUP, ("parameterization=mup", "mup_base=8"))
    )
    assert base[0].tobytes() == standard[0].tobytes()
    assert base[1].tobytes() == standard[1].tobytes()
    assert other[0].tobytes() != standard[0].tobytes()
    assert other[1].tobytes() != standard[1].tobytes()


def test_engines_are_given_no_factors_where_all_are_one(tmp_path: Path) -> None:
    for changes, width, none in (((), 32, True), (MUP, 16, True), (MUP, 32, False)):
        cohort = cohort_of(tmp_path, width, *changes)
        source = sources.load(cohort.runs[0].source)
        job = job_of(cohort, source, data_of(cohort, source))
        assert (job.rate_factors is None) == none


def test_what_engines_may_part_by_is_counted_in_the_highest_of_the_rates() -> None:
    settings: dict[str, Any] = {
        "lr": 0.01,
        "activation": "relu",
        "architecture": ["flatten", {"linear": 64}, "activation", {"linear": "classes"}],
    }
    mup = settings | {"parameterization": "mup", "mup_base": 16}
    for optimizer, factor in (("sgd", 4), ("momentum", 4), ("adam", 1), ("rmsprop", 1)):
        plain, wide = (
            fingerprint.allowed(s | {"optimizer": optimizer}) for s in (settings | {"lr": 0.01 * factor}, mup)
        )
        assert wide == plain
    narrow = mup | {"mup_base": 128}  # half as wide
    plain, found = (fingerprint.allowed(s | {"optimizer": "adam"}) for s in (settings | {"lr": 0.02}, narrow))
    assert found == plain


# ── where the best learning rate lies ──


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("mup")
    del sys.modules["mup"]


def test_the_study_finds_the_power_that_the_best_rate_goes_with(study: Any) -> None:
    octaves, widths = np.log2(study.RATES["sgd"]), np.log2(study.WIDTHS)
    for power in (0.0, -0.75):
        lowest = power * (widths - widths[0]) - 3.3  # between two rates that are tried
        shift = np.random.default_rng(0).normal(0, 0.1, (8, len(widths)))
        logs = 0.1 * (octaves - lowest[:, None] + shift[..., None]) ** 2
        found = study.summary("sgd", "standard", logs)
        assert found["low"] < power < found["high"]
        assert found["power"] == pytest.approx(power, abs=0.05)
        assert (found["networks"], found["keys"], found["at_an_end"]) == (logs.size, 8, 0)
        assert found["loss_of_widest_at_bases_best_over_own"] == pytest.approx(1, abs=0.1) if not power else True


def test_in_the_study_a_width_has_one_start_for_all_rates_and_both_parameterizations(
    study: Any, tmp_path: Path
) -> None:
    (tmp_path / "mup.yaml").write_text(yaml.safe_dump(study.recipe("adam", 2, 1)))
    planned = runs.of(grid.load(tmp_path / "mup.yaml"))
    assert len(planned) == 2 * len(study.WIDTHS) * len(study.RATES["adam"]) * 2
    assert len({r.keys["init"] for r in planned}) == 2


def test_the_page_says_what_the_study_found(study: Any) -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "build.md").read_text().split())
    result = json.loads(study.RESULT.read_text())
    assert f"{sum(r['networks'] for r in result['rows']):,} networks, {result['rows'][0]['keys']} init keys" in page
    words = {(r["optimizer"], r["parameterization"]): r for r in result["rows"]}

    def power(row: dict[str, Any]) -> str:
        return "{power:.2f} [{low:.2f}, {high:.2f}]".format(**row).replace("-", "−")

    standard, mup = words["adam", "standard"], words["adam", "mup"]
    losses = [f"{r['loss_of_widest_at_bases_best_over_own']:.2f}" for r in (standard, mup)]
    assert f"power {power(standard)} in the standard parameterization and {power(mup)} in µP" in page
    assert f"end with {losses[0]} and {losses[1]} times the training loss" in page
    assert f"With SGD the powers are {power(words['sgd', 'standard'])} and {power(words['sgd', 'mup'])}:" in page


# ── zoos ──

ZOO = """\
zoo: weightzoo/widths
source: {id: digits, train: 100, validation: 20, test: 40, resize: 16}
architecture: unterthiner
mup_base: 4
axes: {width: [2, 4, 8], parameterization: [standard, mup], optimizer: [sgd, adam]}
paired: [width, parameterization]
replicates: 2
training: {epochs: 2, batch_size: 32, lr: 0.01, weight_decay: 1e-3}
snapshots: {epochs: [0, 1, 2], optimizer: true}
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mup")
    (folder / "widths.yaml").write_text(ZOO)
    build(plan.plan(grid.load(folder / "widths.yaml")), folder / "widths", workers=0)
    return folder / "widths"


@pytest.mark.slow
def test_a_zoo_of_both_is_whole_and_is_trained_again_from_its_rows(zoo: Path) -> None:
    assert not check.check(zoo).problems
    report = verify.verify(zoo, retrain=24)
    assert not report.problems
    assert sum("retrained, bit for bit" in line for line in report.lines) > 0


@pytest.mark.slow
def test_twins_are_found_along_both_axes_and_at_the_base_they_are_equal(zoo: Path) -> None:
    opened = open_zoo(zoo)
    assert len(variation.pairs(opened, "parameterization")) == 12
    assert len(variation.pairs(opened, "width", (2, 8))) == 8
    assert variation.effect(opened, "parameterization")[0].levels == ("standard", "mup")
    rows = {r["model_id"]: r for r in opened.models.to_pylist()}
    last = {
        r["model_id"]: r["weights_sha256"] for r in opened.final().table(["model_id", "weights_sha256"]).to_pylist()
    }
    for pair in variation.pairs(opened, "parameterization"):
        assert rows[pair.a]["mup_base"] is None
        assert rows[pair.b]["mup_base"] == 4
        assert (last[pair.a] == last[pair.b]) == (rows[pair.a]["width"] == 4)


@pytest.mark.slow
def test_a_continuation_goes_on_at_its_parents_rates(tmp_path: Path) -> None:
    def built(name: str, text: str, *changes: str) -> Path:
        (tmp_path / f"{name}.yaml").write_text(text)
        build(plan.plan(grid.load(tmp_path / f"{name}.yaml", changes)), tmp_path / name, workers=0)
        return tmp_path / name

    axes = "axes: {width: [2, 4, 8], parameterization: [standard, mup], optimizer: [sgd, adam]}"
    assert axes in ZOO
    text = ZOO.replace(axes, "axes: {parameterization: [standard, mup]}").replace("[width, ", "[")
    text = text.replace("architecture: unterthiner", "architecture: {unterthiner: {width: 8}}")
    parent = built("parent", text.replace("training: {", "training: {optimizer: sgd, ") + "splits: {train: 1}\n")
    longer = (
        text.replace("weightzoo/widths", "weightzoo/longer").replace("replicates: 2\n", "").replace("mup_base: 4\n", "")
        .replace("axes: {parameterization: [standard, mup]}\npaired: [parameterization]\n", "")
        .replace("training: {epochs: 2", "training: {optimizer: sgd, epochs: 1").replace("[0, 1, 2]", "[0, 1]")
    ) + f"init: {{zoo: {parent}, epoch: 1}}\n"  # fmt: skip

    def ends(folder: Path) -> dict[tuple[str, int], str]:
        rows = open_zoo(folder).table(["model_id", "step", "weights_sha256"]).to_pylist()
        return {(r["model_id"], r["step"]): r["weights_sha256"] for r in rows}

    parents = {r["model_id"]: r for r in open_zoo(parent).models.to_pylist()}
    for name, changes in (("mup", ("parameterization=mup", "mup_base=4")), ("standard", ())):
        child = built(name, longer, *changes)
        theirs, ours = ends(parent), ends(child)
        relations = []
        for row in open_zoo(child).models.to_pylist():
            same = parents[row["parent_id"]]["parameterization"] == name
            assert (ours[row["model_id"], 4] == theirs[row["parent_id"], 8]) == same  # 4 steps an epoch
            relations.append((same, row["relation"]))
        assert sorted(relations) == [(False, "variation")] * 2 + [(True, "continuation")] * 2
