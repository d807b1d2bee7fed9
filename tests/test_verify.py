"""verify finds every kind of damage, and a zoo's rows are enough to train it again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from resealed import write_manifest

from zoo_builder import estimate, status, verify
from zoo_builder.plan import Plan
from zoo_builder.training import fingerprint
from zoo_datasets.core import files
from zoo_datasets.core.report import Report
from zoo_datasets.errors import FormatVersionError, GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.format import shards
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths


def test_a_sealed_zoo_has_no_problems(tiny_zoo: Path) -> None:
    report = verify.verify(tiny_zoo)
    assert report.problems == []
    assert report.warnings == []
    assert any("initializations: 16" in line for line in report.lines)


def test_models_are_retrained_bit_for_bit_from_their_rows_alone(tiny_zoo: Path, tmp_path: Path) -> None:
    # Neither the recipe nor anything else but tables, shards and manifest is needed.
    copy = Path(shutil.copytree(tiny_zoo, tmp_path / "zoo"))
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (copy / "grid.yaml").unlink()
    manifest["files"] = [e for e in manifest["files"] if e["path"] != "grid.yaml"]
    write_manifest(copy / "manifest.json", manifest)
    report = verify.verify(copy, retrain=16)
    assert report.problems == []
    assert sum("retrained, bit for bit" in line for line in report.lines) == 4


def _resign(root: Path) -> None:
    """Make the manifest agree with the files' bytes: what is left is damage of content."""
    manifest = json.loads((root / "manifest.json").read_bytes())
    manifest["files"] = [files.record(root, root / e["path"]) for e in manifest["files"]]
    write_manifest(root / "manifest.json", manifest)


def _edit(root: Path, config: str, column: str, change: Callable[[list], list], split: str = "train") -> None:
    path = ZooPaths(root).table(config, split)
    table = pq.read_table(path)
    at = table.column_names.index(column)
    values = change(table[column].to_pylist())
    table = table.set_column(at, table.field(column), [values])
    pq.write_table(table, path, write_page_checksum=True)
    _resign(root)


@pytest.mark.parametrize(
    "name", ["weights/train-00000-of-00001.safetensors", "data/models/test-00000-of-00001.parquet", "grid.yaml"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "remove"])
def test_damaged_bytes_are_found(tiny_copy: Path, name: str, damage: str) -> None:
    path = tiny_copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "flip":
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "grow":
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        path.unlink()
    assert any(name in problem for problem in verify.verify(tiny_copy).problems)


def test_a_stranger_in_the_folder_is_found(tiny_copy: Path) -> None:
    (tiny_copy / "data" / "models" / "train-00001-of-00001.parquet").write_bytes(b"x")
    assert any("does not belong" in p for p in verify.verify(tiny_copy).problems)


def test_a_flipped_weight_with_a_fitting_manifest_is_found(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).shard("train")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    _resign(tiny_copy)
    assert any("weights differ from their checksum" in p for p in verify.verify(tiny_copy).problems)


def test_a_shard_whose_header_lies_is_found(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).shard("train")
    tensors, _ = shards.read_header(path)
    (name, (offset, (n, width))), data = next(iter(tensors.items())), path.read_bytes()
    path.write_bytes(shards.header({name: (n + 1, width)}) + data[offset:])
    _resign(tiny_copy)
    assert any("its header describes" in p for p in verify.verify(tiny_copy).problems)


@pytest.mark.parametrize(
    ("config", "column", "change", "finding"),
    [
        ("models", "init_group", lambda v: ["0" * 16] * len(v), "content digest"),
        ("models", "test_accuracy", lambda v: [0.5, *v[1:]], "content digest `models_rows`"),
        ("models", "model_id", lambda v: [v[1], *v[1:]], "not unique"),
        ("models", "n_snapshots", lambda v: [9, *v[1:]], "should have 9 snapshots"),
        ("snapshots", "row", lambda v: [v[1], *v[1:]], "is not its own"),
        ("snapshots", "step", lambda v: [v[1], *v[1:]], "not ascending"),
        ("models", "init_key", lambda v: ["00" * 16, *v[1:]], "content digest"),
    ],
)
def test_changed_rows_with_a_fitting_manifest_are_found(
    tiny_copy: Path, config: str, column: str, change: Callable, finding: str
) -> None:
    _edit(tiny_copy, config, column, change)
    assert any(finding in p for p in verify.verify(tiny_copy).problems)


def test_an_init_group_in_two_splits_is_found(tiny_copy: Path) -> None:
    for split in ("train", "test"):
        _edit(tiny_copy, "models", "init_group", lambda v: ["f" * 16] * len(v), split)
    assert any("is in two splits: test, train" in p for p in verify.verify(tiny_copy).problems)


def test_a_parquet_bomb_is_refused_before_it_is_read(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).table("snapshots", "train")
    table = pq.read_table(path)
    pq.write_table(table.take([0] * 100_000), path)
    _resign(tiny_copy)
    assert any("has 100,000 rows, the manifest says" in p for p in verify.verify(tiny_copy).problems)


def test_a_wrong_key_is_found_by_the_initialization(tiny_zoo: Path) -> None:
    manifest = Manifest.read(tiny_zoo)
    zoo, report = verify._Runs(tiny_zoo, manifest), Report()
    row = zoo.rows[0]
    run = zoo.runs[row["model_id"]]
    zoo.runs[row["model_id"]] = type(run)(**{**vars(run), "keys": {**run.keys, "init": "00" * 16}})
    zoo.initializations(report)
    assert report.problems == [f"model {row['model_id']}: step 0 is not the initialization of its key"]


def test_rows_that_describe_another_cohort_are_found(tiny_zoo: Path) -> None:
    zoo, report = verify._Runs(tiny_zoo, Manifest.read(tiny_zoo)), Report()
    zoo.rows[0]["engine"] = "torch_loop"
    zoo.cohort(zoo.rows[0]["cohort_id"], report)
    first = sorted((r for r in zoo.rows if r["cohort_id"] == zoo.rows[0]["cohort_id"]), key=lambda r: r["plan_index"])[
        0
    ]
    assert bool(report.problems) == (first is zoo.rows[0])


def test_retraining_with_another_source_checksum_is_a_problem(tiny_zoo: Path) -> None:
    zoo, report = verify._Runs(tiny_zoo, Manifest.read(tiny_zoo)), Report()
    for row in zoo.rows:
        row["source_sha256"] = "0" * 64
    zoo.retrain(1, None, report)
    assert any("checksum" in p for p in report.problems)


def test_a_model_that_never_moves_is_a_warning(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    from zoo_builder.build import build

    planned = make_plan(
        "training.lr=0",
        "training.optimizer=sgd",
        "replicates=3",
        "axes.subset=[full]",
        "axes.activation=[tanh]",
        "paired=[]",
    )
    paths = build(planned, tmp_path / "zoo", workers=0)
    report = verify.verify(paths.root)
    assert report.problems == []
    assert "3 models never move" in report.warnings[0]


def test_no_manifest_is_no_zoo(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError, match=r"holds no zoo: it has no manifest\.json"):
        verify.verify(tmp_path)
    (tmp_path / ".build").mkdir()
    with pytest.raises(ZooNotFoundError, match="is not finished: run its build command again"):
        verify.verify(tmp_path)


def test_a_newer_format_is_refused_with_what_to_do(tiny_copy: Path) -> None:
    manifest = json.loads((tiny_copy / "manifest.json").read_bytes())
    write_manifest(tiny_copy / "manifest.json", {**manifest, "format_version": 2})
    with pytest.raises(FormatVersionError, match=r"format version 2; this library reads up to 1\. Upgrade"):
        verify.verify(tiny_copy)


@pytest.mark.parametrize("text", ["{", "[]", '{"zoo": "a/b"}'])
def test_a_damaged_manifest_is_an_integrity_error(tiny_copy: Path, text: str) -> None:
    (tiny_copy / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match="manifest"):
        verify.verify(tiny_copy)


def test_paths_that_leave_the_zoo_are_refused(tiny_copy: Path) -> None:
    manifest = json.loads((tiny_copy / "manifest.json").read_bytes())
    manifest["files"].append({"path": "../outside", "bytes": 0, "sha256": "0" * 64})
    write_manifest(tiny_copy / "manifest.json", manifest)
    with pytest.raises(IntegrityError, match=r"'\.\./outside' leaves the folder"):
        verify.verify(tiny_copy)


# ── rebuild ──


@pytest.fixture
def receipt(tiny_zoo: Path, tmp_path: Path) -> Path:
    """Recipe and receipt of the tiny zoo, as `manifests/` holds them."""
    folder = tmp_path / "receipt"
    folder.mkdir()
    for name in ("grid.yaml", "manifest.json"):
        shutil.copy(tiny_zoo / name, folder)
    return folder


def test_a_rebuild_gives_the_same_content_digests(receipt: Path) -> None:
    report = verify.rebuild(receipt, workers=0)
    assert report.problems == []
    assert any("content digests (models_rows, snapshots_rows, weights)" in line for line in report.lines)


def test_a_rebuild_that_differs_is_a_problem(receipt: Path) -> None:
    manifest = json.loads((receipt / "manifest.json").read_bytes())
    manifest["digests"]["weights"] = "0" * 64
    write_manifest(receipt / "manifest.json", manifest)
    assert any("content digest `weights`" in p for p in verify.rebuild(receipt, workers=0).problems)


def test_another_engine_is_compared_by_start_data_thirty_steps_and_accuracy(
    receipt: Path, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    from zoo_builder.build import build

    theirs = Manifest.read(receipt)
    paths = build(make_plan(engine="torch_loop"), tmp_path / "other", workers=0)
    ours = Manifest.read(paths.root)
    report = verify._compare_receipts(ours, theirs)
    assert report.problems == []
    assert any("bits cannot agree" in line for line in report.lines)
    assert any("mean test accuracy" in line for line in report.lines)
    assert ours.population
    first = dataclasses.replace(ours.fingerprints[0], order_sha256="0" * 64)
    population = dataclasses.replace(ours.population, test_accuracy=ours.population.test_accuracy + 0.5)
    ours = dataclasses.replace(ours, fingerprints=(first, *ours.fingerprints[1:]), population=population)
    problems = verify._compare_receipts(ours, theirs).problems
    assert any("order differs" in p for p in problems)
    assert any("more than three standard errors" in p for p in problems)


def test_weights_that_part_within_thirty_steps_are_found(receipt: Path) -> None:
    ours = json.loads((receipt / "manifest.json").read_bytes())["fingerprints"]
    other = [dict(f) for f in ours]
    other[0]["weights"] = other[1]["weights"]
    assert any("weights after" in d for d in fingerprint.differences(ours, other))
    other[0]["weights"] = ours[0]["weights"][:-8]  # of fewer values
    assert any("weights after" in d for d in fingerprint.differences(ours, other))
    assert fingerprint.differences(ours, ours) == []


def test_a_folder_without_recipe_and_receipt_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError, match="manifests/weightzoo/digits-mlp"):
        verify.rebuild(tmp_path)


def test_a_recipe_that_is_not_the_receipts_is_refused(receipt: Path) -> None:
    (receipt / "grid.yaml").write_text((receipt / "grid.yaml").read_text().replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(GridError, match="is not the recipe of the manifest"):
        verify.rebuild(receipt)


# ── status ──


def test_status_of_a_finished_zoo(tiny_zoo: Path) -> None:
    assert status.describe(ZooPaths(tiny_zoo)) == [f"{tiny_zoo}: finished; 16 models, 48 snapshots, 0 diverged"]


def test_status_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError, match="holds no zoo and no build"):
        status.describe(ZooPaths(tmp_path))


# ── plan ──


def test_a_plan_of_no_training_and_a_late_snapshot_are_said(
    make_plan: Callable[..., Plan], caplog: pytest.LogCaptureFixture
) -> None:
    lines = list(estimate.describe(make_plan("training.epochs=0"), 2))
    assert lines[0] == "16 models, 4 cohorts, 610 parameters each"
    assert "snapshots at epochs 1, 2 are after the end of training; not taken" in caplog.text


def test_a_trigger_that_does_not_fit_is_found_by_the_plan(make_plan: Callable[..., Plan]) -> None:
    with pytest.raises(GridError, match="trigger_size 9"):
        make_plan("axes.subset=[full, {trigger_frac: 0.1, trigger_target: 1, trigger_size: 9}]")
