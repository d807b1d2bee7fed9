"""A zoo of networks that learned sequences, from the recipe to metrics measured again: machines, a language, tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo_builder import grid, plan, verify
from zoo_builder.build import build
from zoo_datasets import sources, tasks
from zoo_datasets.errors import GridError, ZooError, ZooNotFoundError
from zoo_datasets.evaluate import evaluate
from zoo_datasets.sources import SourceSpec
from zoo_datasets.zoo import Zoo, open_zoo

MACHINES = """\
zoo: a/machines
source: {id: machine, scale: none, steps: 6, train: 48, validation: 16, test: 20}
axes: {machine: [SingleDirect, SimpleXOR], machine_modified: [false, true], source_draw: [0, 1]}
paired: [machine_modified]
replicates: 2
architecture: [{gru: 5}, {linear: 4}, activation, {linear: classes}]
training: {loss: mse, lr: 0.02, batch_size: 16, epochs: 4}
snapshots: {epochs: [0], target_loss: 0.12}
splits: {train: 0.5, test: 0.5}
"""
LANGUAGE = """\
zoo: a/language
source: {id: language, language: a^n b^n, scale: none, steps: 7, train: 30, validation: 8, test: 9}
architecture: [{lstm: 4}, dropout, {linear: classes}]
dropout: 0.2
training: {batch_size: 8, steps: 6}
snapshots: {steps: [0, 3], evaluation: {train: 5, test: 4}}
replicates: 3
"""


def planned(tmp_path: Path, text: str, *changes: str, engine: str = "auto") -> plan.Plan:
    (tmp_path / "recipe.yaml").write_text(text)
    return plan.plan(grid.load(tmp_path / "recipe.yaml", changes), engine=engine)


def built(tmp_path: Path, text: str, *changes: str, engine: str = "auto") -> Zoo:
    build(planned(tmp_path, text, *changes, engine=engine), tmp_path / "zoo", workers=0)
    return open_zoo(tmp_path / "zoo")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(tmp_path_factory.mktemp("machines"), MACHINES)


@pytest.mark.slow
def test_metrics_of_a_zoo_of_machines_are_measured_again(zoo: Zoo) -> None:
    for part in ("train", "validation", "test"):
        found = zoo.evaluate(part=part, steps="all")
        assert found.largest("loss") < 1e-5
        assert found.largest("accuracy") < 1e-3
    row = zoo.models.to_pylist()[0]
    assert row["test_count_per_class"] == [20 * 6] * 8
    assert row["test_accuracy"] == sum(row["test_correct_per_class"]) / (20 * 6 * 8)


@pytest.mark.slow
def test_what_was_measured_is_the_mean_squared_error_of_outputs(zoo: Zoo) -> None:
    row = zoo.models.to_pylist()[1]
    source = zoo.source(row["model_id"])
    network = zoo.load_model(row["model_id"]).eval()
    with torch.no_grad():
        found = network(torch.from_numpy(source.scaled(source.test.inputs))).numpy()
    assert row["test_loss"] == pytest.approx(((found - source.test.outputs) ** 2).mean(), rel=1e-5)


@pytest.mark.slow
def test_a_zoo_of_machines_verifies_and_retrains(zoo: Zoo) -> None:
    report = verify.verify(zoo.root, retrain=16)
    assert not report.problems
    assert any("retrained, bit for bit" in line for line in report.lines)


def test_twins_start_alike_and_learn_other_outputs(zoo: Zoo) -> None:
    rows = zoo.models.to_pylist()
    for one in rows:
        [twin] = [
            r for r in rows
            if r["machine_modified"] != one["machine_modified"] and r["init_key"] == one["init_key"]
        ]  # fmt: skip
        assert (twin["machine"], twin["source_draw"], twin["order_key"]) == (
            one["machine"],
            one["source_draw"],
            one["order_key"],
        )
        assert twin["source_sha256"] != one["source_sha256"]


def by_network(zoo: Zoo, column: str) -> dict[str, dict[int, float]]:
    """Network, by what it learned and where it started → step → that column of its snapshots."""
    names = {
        r["model_id"]: repr([r[n] for n in ("machine", "machine_modified", "source_draw", "init_key")])
        for r in zoo.models.to_pylist()
    }
    found: dict[str, dict[int, float]] = {}
    for r in zoo.snapshots.to_pylist():
        found.setdefault(names[r["model_id"]], {})[r["step"]] = r[column]
    return found


@pytest.mark.slow
def test_a_snapshot_is_taken_at_the_first_epoch_that_comes_to_the_target(zoo: Zoo, tmp_path: Path) -> None:
    every = built(tmp_path, MACHINES.replace("epochs: [0], target_loss: 0.12", "every_epoch: true"))
    losses, steps = by_network(every, "validation_loss"), by_network(zoo, "step")
    assert steps.keys() == losses.keys()
    reached = 0
    for key, taken in steps.items():
        first = next((s for s, loss in sorted(losses[key].items()) if s and loss <= 0.12), None)
        assert list(taken) == sorted({0, 12, *([] if first is None else [first])})
        reached += first is not None and first < 12
    assert 0 < reached
    # One that a stop rule looks at after every epoch takes it once, too.
    build(planned(tmp_path, MACHINES, "training.patience=50"), tmp_path / "watched", workers=0)
    assert by_network(open_zoo(tmp_path / "watched"), "step") == steps


@pytest.mark.slow
def test_a_language_is_learned_symbol_by_symbol(tmp_path: Path) -> None:
    zoo = built(tmp_path, LANGUAGE)
    for part in ("train", "validation", "test"):
        assert zoo.evaluate(part=part, steps="all").largest("loss") < 1e-5
    with pytest.raises(
        ZooError, match=r"learned what is right at each step of a sequence, so that inputs have no labels"
    ):
        tasks.shown(zoo)
    row = zoo.models.to_pylist()[0]
    assert sum(row["test_count_per_class"]) == 9 * 7
    first = zoo.snapshots.to_pylist()[0]
    assert sum(first["test_count_per_class"]) == 4 * 7
    assert sum(first["train_count_per_class"]) == 5 * 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["training.loss=cross_entropy"],
            r"right at each of 6 steps in numbers, which `loss: cross_entropy` cannot learn",
        ),
        (["subset.classes=[0]"], r"says what is right at each of 6 steps, and has no labels for `subset_classes`"),
        (["subset.label_noise_frac=0.1"], r"has no labels for `label_noise_frac`"),
        (["subset.class_shares=[0.5, 1]"], r"has no labels for `subset_class_shares`"),
        (["training.balance_classes=true"], r"has no labels for `balance_classes`"),
        (
            ["augmentation.noise_std=0.1"],
            r"noise_std is for images and tables; the source machine has sequences \(6, 9\)",
        ),
        (["augmentation.flip=true"], r"flip need images; the source machine has shape \(6, 9\)"),
        (["subset.rotate_degrees=30"], r"rotate_degrees, which turn images"),
        (["architecture=[{conv: 4}, flatten, {linear: classes}]"], r"Layer 1 \(conv\) needs .*gives \(6, 9\)"),
        (
            ["architecture=[{gru: 4}, last_step, {linear: classes}]"],
            r"right at each of 6 steps, so it must give .*= \(6, 8\)",
        ),
        (["architecture=[{gru: 4}, {linear: 3}]"], r"gives shape \(6, 3\)"),
        (["source.validation=0"], r"`snapshots: \{target_loss: …\}` looks at validation examples"),
        (["source.key_rate=2"], r"`machine_key_rate` is 2; a number ≥ 0 and ≤ 1"),
        (["source.states=4"], r"nothing in this recipe uses it: it is for `machine` Automaton"),
        (["snapshots.target_loss=-1"], r"`target_loss` is -1; a validation loss ≥ 0"),
    ],
)
def test_what_sequences_cannot_have_is_refused(tmp_path: Path, changes: list[str], message: str) -> None:
    with pytest.raises(GridError, match=message):
        planned(tmp_path, MACHINES, *changes)


def test_a_sequence_under_images_layers_and_the_reverse_name_the_layer(tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"Architecture|Layer 1 \(gru\) needs a sequence"):
        planned(tmp_path, MACHINES.replace("id: machine, scale: none, steps: 6", "id: digits").replace(
            "axes: {machine: [SingleDirect, SimpleXOR], machine_modified: [false, true], source_draw: [0, 1]}\npaired: [machine_modified]\n", ""
        ))  # fmt: skip


@pytest.mark.slow
def test_a_machine_of_ones_own_is_learned_and_read_without_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).write_text('')\n"
        "def counter(commands):\n    return commands[:, :, :1].cumsum(axis=1) % 2\n"
    )
    text = MACHINES.replace("id: machine, scale", f"id: machine, machine: counter, path: {tmp_path / 'mine.py'}, scale").replace(
        "machine: [SingleDirect, SimpleXOR], machine_modified: [false, true], ", ""
    ).replace("paired: [machine_modified]\n", "")  # fmt: skip
    zoo = built(tmp_path, text)
    assert "mine.py" not in (zoo.root / "manifest.json").read_text()
    marker.unlink()
    monkeypatch.chdir(tmp_path)
    row = open_zoo(tmp_path / "zoo").models.to_pylist()[0]
    assert row["machine"] == "counter"
    with pytest.raises((ZooNotFoundError, ZooError), match=r"Unknown machine 'counter'.*One of your own is a function"):
        zoo.evaluate()
    assert not marker.exists()
    mine = sources.load(
        SourceSpec("machine", machine="counter", scale="none", steps=6, train=48, validation=16, test=20),
        path=tmp_path / "mine.py",
    )
    ids = [r["model_id"] for r in zoo.models.to_pylist() if r["source_draw"] == 0]
    found = evaluate(zoo, ids, mine)
    stored = {r["model_id"]: r["test_loss"] for r in zoo.models.to_pylist()}
    for model, loss in zip(found.table["model_id"].to_pylist(), found.table["loss"].to_pylist(), strict=True):
        assert loss == pytest.approx(stored[model], rel=1e-5)
    with pytest.raises(ZooError, match=r"sequences of shape \(32, 9\); model .* takes \(6, 9\)"):
        evaluate(zoo, source=SourceSpec("machine", machine="Parity"))
