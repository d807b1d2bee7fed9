"""What a forger who seals anew, with our own writer, cannot hide from verify: row by row, the right answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forger import Change, Model, opened, perfect, sealed, swap_last
from resealed import reseal

from zoo_builder import verify
from zoo_builder.build import build
from zoo_builder.plan import Plan
from zoo_datasets.core import records
from zoo_datasets.format import check
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.networks import kernels

pytestmark = pytest.mark.skipif(kernels.missing() is not None, reason="the bits of these zoos are the native engine's")


@pytest.fixture
def forged(tiny_zoo: Path, tmp_path: Path) -> Callable[..., Path]:
    def forge(change: Change = lambda models: None, **parts: Any) -> Path:
        models = opened(tiny_zoo)
        changed = change(models)
        return sealed(tiny_zoo, tmp_path / "forged", models if changed is None else changed, **parts)

    return forge


def found(root: Path, retrain: int = 16) -> list[str]:
    """What verify finds of a zoo whose checksums and digests are right, all of them."""
    assert not [p for p in check.check(root).problems if "SHA-256" in p or "sealed" in p or "digest" in p]
    return verify.verify(root, retrain=retrain).problems


def says(problems: list[str], finding: str) -> bool:
    """Whether verify says so itself, or the check before it that the manifest and its tables disagree."""
    return any(
        part in p or "the manifest says" in p or "no such model" in p for p in problems for part in finding.split("|")
    )


@pytest.mark.slow
def test_an_honest_copy_by_the_same_writer_has_no_problem(forged: Callable[..., Path], tiny_zoo: Path) -> None:
    root = forged()
    assert Manifest.read(root).digests == Manifest.read(tiny_zoo).digests
    report = verify.verify(root, retrain=16)
    assert report.problems == []
    assert sum("bit for bit, with every metric" in line for line in report.lines) == 4


# ── what the plan gives, found without training ──


def every(models: list[Model], change: Callable[[Model], Any]) -> None:
    for model in models:
        change(model)


def exchange(models: list[Model], *names: str) -> None:
    for name in names:
        models[0][name], models[1][name] = models[1][name], models[0][name]


def drop(models: list[Model], place: int) -> None:
    del models[2]["snapshots"][place]


def add_snapshot(models: list[Model]) -> None:
    last, more = models[2]["snapshots"][-1], dict(models[2]["snapshots"][-1])
    more["step"] = last["step"] + 1
    models[2]["snapshots"].append(more)


PLANNED: dict[str, tuple[Change, str]] = {
    "learning rate": (lambda z: every(z, lambda m: m.update(lr=0.5)), "column `lr` of 16 models"),
    "axis labels": (lambda z: every(z, lambda m: m.update(activation={"tanh": "relu", "relu": "tanh"}[m["activation"]])), "column `activation` of 16"),
    "label of one": (lambda z: z[3].update(subset="full" if z[3]["subset"] != "full" else "frac=0.5"), "column `subset` of 1 models"),
    "stream key": (lambda z: z[0].update(order_key="0" * 32), "column `order_key` of 1"),
    "replicate number": (lambda z: z[0].update(replicate_init=9), "column `replicate_init`"),
    "init group": (lambda z: z[0].update(init_group="0" * 16), "column `init_group`"),
    "plan index": (lambda z: z[0].update(plan_index=99), "not in the order of `plan_index`"),
    "cohort": (lambda z: z[0].update(cohort_id="0" * 64), "column `cohort_id`"),
    "cohort's width": (lambda z: every(z, lambda m: m.update(cohort_width=8)), "column `cohort_width` of 16"),
    "engine": (lambda z: every(z, lambda m: m.update(engine="torch_loop")), "column `cohort_id` of 16"),
    "device": (lambda z: every(z, lambda m: m.update(device="cuda")), "column `cohort_id` of 16"),
    "lineage": (lambda z: every(z, lambda m: m.update(relation="continuation")), "column `relation` of 16"),
    "source's checksum": (lambda z: every(z, lambda m: m.update(source_sha256="0" * 64)), "column `source_sha256` of 16"),
    "more images than there are": (lambda z: every(z, lambda m: m.update(n_train=201)), "n_train"),
    "schedule": (lambda z: z[0].update(snapshot_schedule='{"epochs":[0,2]}'), "column `snapshot_schedule`"),
    "stop reason": (lambda z: every(z, lambda m: m.update(stop_reason="early_stopping")), "ended by 'early_stopping'"),
    "diverged step": (lambda z: z[0].update(diverged_step=3), "its diverged_step is 3"),
    "dropped snapshot": (lambda z: drop(z, 1), "has snapshots at steps"),
    "dropped last snapshot": (lambda z: drop(z, -1), "has snapshots at steps"),
    "dropped initialization": (lambda z: drop(z, 0), "has snapshots at steps"),
    "another snapshot": (add_snapshot, "has snapshots at steps"),
    "step": (lambda z: z[0]["snapshots"][1].update(step=6), "has snapshots at steps"),
    "epoch": (lambda z: z[0]["snapshots"][-1].update(epoch=99.0), "`epoch` is 99.0, not 2.0"),
    "examples seen": (lambda z: z[0]["snapshots"][1].update(examples_seen=1), "`examples_seen` is 1, not"),
    "accuracy": (lambda z: every(z, lambda m: m["snapshots"][-1].update(test_accuracy=1.0)), "by its counts per class"),
    "gap": (lambda z: z[0]["snapshots"][0].update(gap_loss=0.0), "`gap_loss` is 0.0"),
    "initialization": (lambda z: z[0]["snapshots"][0].update(weights=z[1]["snapshots"][1]["weights"]), "step 0 is not the initialization"),
    "missing model": (lambda z: z[:-1], "of grid.yaml is missing"),
    "order of models": (lambda z: [z[1], z[0], *z[2:]], "not in the order of `plan_index`"),
    "model of another id": (lambda z: z[0].update(model_id="0" * 16), "is not one that grid.yaml asks for"),
    "exchanged models": (lambda z: exchange(z, "model_id"), "or another order"),
}  # fmt: skip


@pytest.mark.some(1)
@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.slow
def test_a_row_that_is_not_the_recipes_is_found_without_training(forged: Callable[..., Path], name: str) -> None:
    change, finding = PLANNED[name]
    problems = found(forged(change), retrain=0)
    assert says(problems, finding), problems


def edit(root: Path, config: str, column: str, change: Callable[[list], list]) -> None:
    """A column of the train split, in place, with a new seal."""
    path = ZooPaths(root).table(config, "train")
    table = pq.read_table(path, partitioning=None)
    at = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()), table.field(column).type)
    pq.write_table(table.set_column(at, table.field(column), values), path, write_page_checksum=True)


@pytest.mark.slow
def test_labels_of_snapshots_that_are_not_their_models_are_found(tiny_copy: Path) -> None:
    edit(tiny_copy, "snapshots", "activation", lambda v: ["tanh" if a == "relu" else "relu" for a in v])
    assert any("another `activation` than their model's" in p for p in found(reseal(tiny_copy), 0))


@pytest.mark.slow
def test_published_columns_that_are_not_the_last_snapshots_are_found(tiny_copy: Path) -> None:
    edit(tiny_copy, "models", "epoch", lambda v: [99.0] * len(v))
    assert any("models have another `epoch` than their last snapshot" in p for p in found(reseal(tiny_copy), 0))


@pytest.mark.slow
def test_rows_that_changed_places_in_their_shard_are_found(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).shard("train")
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    rows = np.frombuffer(data, "<f4", offset=start).reshape(-1, 610)
    rows[[1, 5]] = rows[[5, 1]]
    path.write_bytes(data)
    edit(tiny_copy, "snapshots", "row", lambda v: [{1: 5, 5: 1}.get(r, r) for r in v])
    assert any("`row` is 5, not 1" in p for p in found(reseal(tiny_copy), 0))


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("part", "value", "finding"),
    [
        ("grid", "zoo: weightzoo/tiny\nlr: 1\n: [", "grid.yaml is not a recipe"),
        ("grid", "", "no line of it"),
        ("splits", {"fractions": {"train": 1.0}, "rule": "blocks"}, "`splits` of the manifest"),
        ("splits", {"fractions": {"train": 0.7, "validation": 0.15, "test": 0.15}, "rule": "deficit"}, "other splits, or another order"),
        ("recipe_sha256", "0" * 64, "is not the recipe of the manifest"),
        ("layer_lists", {}, "`layer_lists` of the manifest"),
        ("fingerprints", [], "`fingerprints` of the manifest"),
        ("population", {"test_accuracy": 0.99, "standard_error": 0.1, "init_groups": 8}, "`population` of the manifest"),
        ("engines", [{"engine": "native", "version": "native 9", "isa": "fma"}], "`engines` of the manifest"),
        ("sources", [], "names no source"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_manifest_that_is_not_the_recipes_is_found(
    forged: Callable[..., Path], part: str, value: Any, finding: str
) -> None:
    if finding == "no line of it":
        report = verify.verify(forged(grid=""))
        assert (
            "not compared: rows with a recipe, of which the zoo holds none; with their own ids instead" in report.lines
        )
        return
    problems = found(forged(**{part: value}), 0)
    assert says(problems, finding), problems


@pytest.mark.slow
def test_a_zoo_without_its_recipe_is_held_to_its_ids(forged: Callable[..., Path]) -> None:
    problems = found(forged(lambda z: z[0].update(lr=0.5), grid=""), 0)
    assert any("is not what its row says" in p for p in problems)


def other_recipe(make_plan: Callable[..., Plan], tiny_zoo: Path, folder: Path, *changes: str) -> Path:
    """A zoo of another recipe that claims to be of this one."""
    paths = build(make_plan(*changes), folder / "other", workers=0)
    mine = Manifest.read(tiny_zoo)
    parts = {k: records.encode(getattr(mine, k)) for k in ("identity", "recipe_sha256", "splits")}
    return sealed(paths.root, folder / "claims", opened(paths.root), grid=(tiny_zoo / "grid.yaml").read_text(), **parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("training.lr=0.02", "is not one that grid.yaml asks for"),
        ("splits={train: 0.5, validation: 0.25, test: 0.25}", "other splits, or another order"),
        ("replicates=5", "is not one that grid.yaml asks for"),
        ("seed=1", "is not one that grid.yaml asks for"),
        ("cohort_size=2", "column `cohort_id` of 16 models"),
        ("architecture=[flatten, {linear: 9}, activation, {linear: classes}]", "describe no runs|is not one that"),
    ],
)
def test_a_zoo_attributed_to_another_recipe_is_found(
    make_plan: Callable[..., Plan], tiny_zoo: Path, tmp_path: Path, change: str, finding: str
) -> None:
    problems = found(other_recipe(make_plan, tiny_zoo, tmp_path, change), 0)
    assert says(problems, finding), problems


# ── what training gives, found by training again ──


def nudge(models: list[Model]) -> None:
    models[0]["snapshots"][1]["weights"][-1] = np.nextafter(models[0]["snapshots"][1]["weights"][-1], np.float32(9))


def fewer_images(models: list[Model]) -> None:
    """A fresh `n_train`, with counts that agree."""
    for model in models:
        model["n_train"] -= 1
        for s in model["snapshots"]:
            label = max(range(10), key=lambda c: s["train_count_per_class"][c] - s["train_correct_per_class"][c])
            s["train_count_per_class"][label] -= 1
            s["train_accuracy"] = sum(s["train_correct_per_class"]) / model["n_train"]
            s["gap_accuracy"] = s["train_accuracy"] - s["test_accuracy"]


def loss(name: str) -> Change:
    def change(models: list[Model]) -> None:
        s = models[0]["snapshots"][1]
        s[name] = math.nextafter(s[name], 9.0)
        s["gap_loss"] = s["train_loss"] - s["test_loss"]

    return change


def attack(models: list[Model]) -> None:
    models[0]["snapshots"][0]["attack_success"] = 0.5


TRAINED: dict[str, tuple[Change, str]] = {
    "perfect accuracies": (lambda z: every(z, perfect), "`test_accuracy` is 1.0, retrained"),
    "a loss": (loss("test_loss"), "`test_loss` is"),
    "a training loss": (loss("train_loss"), "`train_loss` is"),
    "a clean loss": (loss("train_loss_clean"), "`train_loss_clean` is"),
    "a validation loss": (loss("validation_loss"), "`validation_loss` is"),
    "an attack": (attack, "`attack_success` is 0.5, retrained None"),
    "exchanged last snapshots": (swap_last, "`weights_sha256` is"),
    "one bit of one weight": (nudge, "`weights_sha256` is"),
}  # fmt: skip


@pytest.mark.some(1)
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.slow
def test_a_row_that_training_does_not_give_is_found_by_training(forged: Callable[..., Path], name: str) -> None:
    change, finding = TRAINED[name]
    root = forged(change)
    assert found(root, 0) == []
    problems = found(root)
    assert says(problems, finding), problems


@pytest.mark.slow
def test_a_number_of_images_that_the_source_does_not_give_is_found(forged: Callable[..., Path]) -> None:
    problems = found(forged(fewer_images))
    assert any("column `cohort_id`" in p or "training images" in p or "`epoch` is" in p for p in problems), problems


@pytest.mark.some(1)
@pytest.mark.parametrize(("name", "value"), [("mean", [0.5]), ("peak", 255.0), ("images", {"train": 200, "validation": 60, "test": 79}),
                                             ("class_names", [str(c) for c in range(9, -1, -1)])])  # fmt: skip
@pytest.mark.slow
def test_a_source_that_is_not_what_the_manifest_says_is_found(
    forged: Callable[..., Path], tiny_zoo: Path, name: str, value: Any
) -> None:
    (record,) = records.encode(Manifest.read(tiny_zoo).sources)
    problems = found(forged(sources=[record | {name: value}]))
    assert says(problems, f"`{name}` of the manifest is"), problems


@pytest.mark.slow
def test_a_fingerprint_that_is_not_its_weights_is_found(forged: Callable[..., Path], tiny_zoo: Path) -> None:
    first, *others = Manifest.read(tiny_zoo).fingerprints
    prints = [records.encode(dataclasses.replace(first, order_sha256="0" * 64)), *map(records.encode, others)]
    assert any("order differs" in p for p in found(forged(fingerprints=prints)))


@pytest.mark.slow
def test_what_a_sample_leaves_out_is_said(tiny_zoo: Path) -> None:
    lines = verify.verify(tiny_zoo, retrain=1).lines
    assert "not compared: what training gives of the 12 other models; `--retrain 16` trains all" in lines
    assert any(line.startswith("not compared: the words of README.md") for line in lines)
    assert any("`--retrain 16` trains all models" in line for line in verify.verify(tiny_zoo).lines)


@pytest.mark.slow
def test_more_models_than_there_are_is_all_of_them(tiny_zoo: Path) -> None:
    lines = verify.verify(tiny_zoo, retrain=1000).lines
    assert sum("retrained, bit for bit" in line for line in lines) == 4
    assert not any("other models" in line for line in lines)


@pytest.mark.slow
def test_inline_weights_alone_are_found_by_the_check(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).table("models", "train")
    table = pq.read_table(path, partitioning=None)
    at = table.column_names.index("weights")
    values = table["weights"].to_pylist()
    values[0][0] += 1
    pq.write_table(
        table.set_column(at, table.field("weights"), pa.array(values, table.field("weights").type)),
        path,
        write_page_checksum=True,
    )
    assert any("inline weights differ" in p for p in verify.verify(reseal(tiny_copy)).problems)
