"""verify finds every kind of damage, and a zoo's rows are enough to train it again."""

from __future__ import annotations

import base64
import dataclasses
import fcntl
import json
import math
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from resealed import write_manifest

from zoo_builder import estimate, grid, plan, status, verify, worker
from zoo_builder.build import build
from zoo_builder.engines import devices
from zoo_builder.plan import Plan
from zoo_builder.sealing import parts
from zoo_builder.training import fingerprint
from zoo_builder.verifying import receipts
from zoo_datasets.core import files
from zoo_datasets.errors import BuildError, FormatVersionError, GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.format import schema, shards
from zoo_datasets.format.manifest import Manifest, PopulationScore
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.format.tables import read_table


@pytest.mark.slow
def test_a_sealed_zoo_has_no_problems(tiny_zoo: Path) -> None:
    report = verify.verify(tiny_zoo)
    assert report.problems == []
    assert report.warnings == []
    assert any("initializations: 16" in line for line in report.lines)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_flipped_weight_with_a_fitting_manifest_is_found(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).shard("train")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    _resign(tiny_copy)
    assert any("weights differ from their checksum" in p for p in verify.verify(tiny_copy).problems)


@pytest.mark.slow
def test_a_shard_whose_header_lies_is_found(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).shard("train")
    tensors, _ = shards.read_header(path)
    (name, (offset, (n, width))), data = next(iter(tensors.items())), path.read_bytes()
    path.write_bytes(shards.header({name: (n + 1, width)}) + data[offset:])
    _resign(tiny_copy)
    assert any("its header describes" in p for p in verify.verify(tiny_copy).problems)


@pytest.mark.some(2)
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
@pytest.mark.slow
def test_changed_rows_with_a_fitting_manifest_are_found(
    tiny_copy: Path, config: str, column: str, change: Callable, finding: str
) -> None:
    _edit(tiny_copy, config, column, change)
    assert any(finding in p for p in verify.verify(tiny_copy).problems)


@pytest.mark.slow
def test_an_init_group_in_two_splits_is_found(tiny_copy: Path) -> None:
    for split in ("train", "test"):
        _edit(tiny_copy, "models", "init_group", lambda v: ["f" * 16] * len(v), split)
    assert any("is in two splits: test, train" in p for p in verify.verify(tiny_copy).problems)


@pytest.mark.slow
def test_a_parquet_bomb_is_refused_before_it_is_read(tiny_copy: Path) -> None:
    path = ZooPaths(tiny_copy).table("snapshots", "train")
    table = pq.read_table(path)
    pq.write_table(table.take([0] * 100_000), path)
    _resign(tiny_copy)
    assert any("has 100,000 rows, the manifest says" in p for p in verify.verify(tiny_copy).problems)


@pytest.mark.slow
def test_a_model_that_never_moves_is_a_warning(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_groups_of_one_network_of_a_layout_are_those_of_an_older_version(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plain = ["flatten", {"linear": 9}, "activation", {"linear": 9}, "activation", {"linear": "classes"}]
    added = ["flatten", {"linear": 9}, "activation", {"residual": [{"linear": 9}]}, "activation", {"linear": "classes"}]
    levels = json.dumps([plain, added])
    planned = make_plan("architecture=null", f"axes={{architecture: {levels}}}", "paired=[]", "replicates=6")
    root = build(planned, tmp_path / "zoo", workers=0).root
    report, manifest = verify.verify(root), Manifest.read(root)
    assert (report.problems, report.warnings) == ([], [])
    (layout,) = manifest.layouts
    assert len({e for one in manifest.layouts.values() for e in one.entries[2].groups}) == 1
    for name in manifest.architectures:
        own = manifest.architecture(name).layout
        value = json.loads((root / "manifest.json").read_bytes()) | {"layouts": {layout: own.to_json()}}
        write_manifest(root / "manifest.json", value)
        report = verify.verify(root)
        assert report.problems == []
        assert [w.split(", as")[0] for w in report.warnings] in (
            [],
            ["`layouts` of the manifest has the groups of one network each"],
        )
    value["layouts"][layout][0]["groups"] = ["", ""]
    write_manifest(root / "manifest.json", value)
    assert "`layouts` of the manifest is not what the recipe gives" in verify.verify(root).problems


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


@pytest.mark.slow
def test_a_rebuild_gives_the_same_content_digests(receipt: Path) -> None:
    report = verify.rebuild(receipt, workers=0)
    assert report.problems == []
    (line,) = report.lines
    assert line.startswith("equal: all content digests (models_rows, snapshots_rows, weights); built here with ")


def test_a_rebuild_into_a_sealed_zoo_would_compare_it_with_itself(receipt: Path, tiny_zoo: Path) -> None:
    for place in (receipt, tiny_zoo):
        with pytest.raises(BuildError, match="is sealed already, and nothing would be built again"):
            verify.rebuild(receipt, workers=0, out=str(place))


@pytest.mark.slow
def test_a_rebuild_that_differs_is_a_problem(receipt: Path) -> None:
    manifest = json.loads((receipt / "manifest.json").read_bytes())
    manifest["digests"]["weights"] = "0" * 64
    write_manifest(receipt / "manifest.json", manifest)
    assert any("content digest `weights`" in p for p in verify.rebuild(receipt, workers=0).problems)


def settings_of(planned: Plan) -> Callable[[str], Mapping[str, Any]]:
    return {run.id: run.settings for run in planned.runs}.__getitem__


@pytest.mark.slow
def test_another_engine_is_compared_by_start_data_thirty_steps_and_accuracy(
    receipt: Path, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    theirs = Manifest.read(receipt)
    planned = make_plan(engine="torch_loop")
    ours = Manifest.read(build(planned, tmp_path / "other", workers=0).root)
    report = receipts.compare(ours, theirs, settings_of(planned), tmp_path / "other")
    assert report.problems == []
    assert any("bits cannot agree" in line for line in report.lines)
    assert any("mean test accuracy" in line for line in report.lines)
    assert report.lines[-1].startswith("equal within rounding")
    assert ours.population
    first = dataclasses.replace(ours.fingerprints[0], order_sha256="0" * 64)
    population = dataclasses.replace(ours.population, test_accuracy=ours.population.test_accuracy + 0.5)
    ours = dataclasses.replace(ours, fingerprints=(first, *ours.fingerprints[1:]), population=population)
    problems = receipts.compare(ours, theirs, settings_of(planned)).problems
    assert any("order differs" in p for p in problems)
    assert any("mean test accuracies differ by 0.5" in p for p in problems)


@pytest.mark.slow
def test_a_receipt_of_other_libraries_with_the_same_weights_is_equal(tiny_zoo: Path, tiny_plan: Plan) -> None:
    ours = Manifest.read(tiny_zoo)
    models = read_table(tiny_zoo, ours, "models")
    at = models.column_names.index("isa")
    models = models.set_column(at, models.schema.field(at), [["other"] * len(models)])
    engines = tuple(dataclasses.replace(e, isa="other") for e in ours.engines)
    digests = {**ours.digests, "models_rows": schema.rows_digest(models)}
    theirs = dataclasses.replace(ours, engines=engines, digests=digests)
    report = receipts.compare(ours, theirs, settings_of(tiny_plan), tiny_zoo)
    assert report.problems == []
    assert report.lines[0].startswith("equal: all weights, snapshots and rows, bit for bit; only the columns that name")
    forged = dataclasses.replace(theirs, digests={**digests, "models_rows": "0" * 64})
    assert not receipts.compare(ours, forged, settings_of(tiny_plan), tiny_zoo).lines[0].startswith("equal")


def test_the_accuracy_of_one_init_group_is_compared_without_a_standard_error(tiny_zoo: Path, tiny_plan: Plan) -> None:
    ours = Manifest.read(tiny_zoo)
    other = tuple(dataclasses.replace(e, engine="torch_loop") for e in ours.engines)
    for shift, found in ((0.004, []), (0.05, ["mean test accuracies differ by 0.0500"])):
        score = PopulationScore(0.5 + shift, None, 1)
        theirs = dataclasses.replace(
            ours, engines=other, population=score, digests=dict.fromkeys(ours.digests, "0" * 64)
        )
        ours_here = dataclasses.replace(ours, population=PopulationScore(0.5, None, 1))
        problems = receipts.compare(ours_here, theirs, settings_of(tiny_plan)).problems
        assert [p[: len(f)] for p, f in zip(problems, found, strict=True)] == found


SETTINGS = {"optimizer": "adam", "lr": 0.01}


def test_weights_that_part_within_thirty_steps_are_found(receipt: Path) -> None:
    ours = json.loads((receipt / "manifest.json").read_bytes())["fingerprints"]
    other = [dict(f) for f in ours]
    other[0]["weights"] = other[1]["weights"]
    assert any("weights after" in d for d in fingerprint.differences(ours, other, lambda id: SETTINGS))
    other[0]["weights"] = ours[0]["weights"][:-8]  # of fewer values
    assert any("weights after" in d for d in fingerprint.differences(ours, other, lambda id: SETTINGS))
    assert fingerprint.differences(ours, ours, lambda id: SETTINGS) == []
    assert fingerprint.differences(ours, ours[1:], lambda id: SETTINGS) == [
        "the plans differ: other models were fingerprinted"
    ]


@pytest.mark.parametrize(
    ("optimizer", "share", "distance", "agrees"),
    [
        ("sgd", 1.0, 9e-6, True),
        ("sgd", 1.0, 2e-5, False),
        ("sgd", 0.1, 5e-3, True),  # a unit whose ReLU fell the other way
        ("sgd", 0.1, 2e-2, False),
        ("adam", 0.1, 0.5, True),  # a bias before batch norm
        ("adam", 0.1, 0.7, False),
        ("adam", 0.3, 1e-3, False),
        ("rmsprop", 0.1, 2.0, True),
        ("rmsprop", 1.0, 9e-4, True),
        ("rmsprop", 0.3, 2e-3, False),
        ("rmsprop", 0.1, 2.5, False),
        ("adamw", 0.0, math.nan, False),
    ],
)
def test_how_far_engines_may_part_is_said_by_optimizer(
    optimizer: str, share: float, distance: float, agrees: bool
) -> None:
    ours = np.zeros(1000, np.float32)
    theirs = ours.copy()
    theirs[: max(1, int(1000 * share))] = distance
    found = fingerprint.apart({"optimizer": optimizer, "lr": 0.01}, ours, theirs)
    assert (found is None) == agrees


def test_models_that_diverged_alike_are_alike() -> None:
    settings, ours = {"optimizer": "sgd", "lr": 0.01}, np.array([0.0, np.nan, np.inf, -np.inf] * 50, np.float32)
    assert fingerprint.apart(settings, ours, ours.copy()) is None
    assert (
        fingerprint.apart(settings, ours, np.where(np.isnan(ours), np.inf, ours)) is None
    )  # engines overflow in their own ways
    for there in (0.0, np.nan):  # a number on one side alone
        theirs = ours.copy()
        theirs[0 if np.isnan(there) else 1] = there
        assert "differ by up to inf" in str(fingerprint.apart(settings, ours, theirs))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_fingerprints_of_workers_are_those_of_the_driver(
    make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The driver of a GPU cluster may have no GPU: what sealing would train there, workers train."""
    planned = make_plan("cohort_size=4", limit=24)
    build(planned, tmp_path / "here", workers=0)
    monkeypatch.setattr(devices, "here", lambda device: False)
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "of", lambda *_: pytest.fail("made by the driver"))
        build(planned, tmp_path / "there", workers=workers)
    ours, theirs = (Manifest.read(tmp_path / name) for name in ("here", "there"))
    assert len(ours.fingerprints) == fingerprint.MODELS
    assert ours.fingerprints == theirs.fingerprints
    assert estimate._costs(planned) is None


def test_half_a_commit_of_a_killed_driver_is_no_finished_cohort(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    planned = make_plan(limit=8)
    paths = ZooPaths(tmp_path / "zoo")
    paths.commits.mkdir(parents=True)
    files.write_json(paths.recipe, planned.identity)
    done = worker.train_cohort(worker.Task(planned.cohorts[0], str(paths.root)), planned.sources)
    parts.commit(paths, done.record)
    assert f"{len(planned.cohorts[0].runs)} of {len(planned.runs):,} models, 1 of" in status.describe(paths)[0]
    whole = paths.commits / f"{planned.cohorts[0].id}.json"
    whole.rename(whole.with_name(f"{files.SCRATCH}4711-{whole.name}"))
    assert f"0 of {len(planned.runs):,} models, 0 of" in status.describe(paths)[0]


@pytest.mark.slow
def test_a_zoo_of_models_that_diverge_at_once_is_verified(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    changes = (
        "training.lr=30.0",
        "training.optimizer=momentum",
        "training.loss=mse",
        "training.epochs=5",
        "cohort_size=1",
    )
    planned = make_plan(*changes, limit=12)
    build(planned, tmp_path / "zoo", workers=0)
    assert Manifest.read(tmp_path / "zoo").counts.diverged
    assert verify.verify(tmp_path / "zoo", retrain=2).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("norm", [True, False])
def test_engines_agree_within_what_is_allowed(make_plan: Callable[..., Plan], optimizer: str, norm: bool) -> None:
    """With batch norm the bias before it has no gradient but rounding: Adam and RMSprop move it any way."""
    layers = "[{conv: 4, kernel: 3}, batch_norm, activation, flatten, {linear: classes}]"
    changes = ["training.epochs=8", f"training.optimizer={optimizer}", *([f"architecture={layers}"] if norm else [])]
    found = []
    for engine in ("torch_loop", "torch_batched"):
        planned = make_plan(*changes, engine=engine)
        found.append(fingerprint.of(planned.cohorts, planned.sources))
    assert found[0][0]["steps"] == fingerprint.STEPS
    assert fingerprint.differences(*found, settings_of(planned)) == []
    if norm and optimizer in ("adam", "adamw", "rmsprop"):
        vectors = [np.frombuffer(base64.b64decode(f[0]["weights"]), "<f4") for f in found]
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-5  # "within 1e-5" is false


def test_a_folder_without_recipe_and_receipt_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError, match="manifests/weightzoo/digits-mlp"):
        verify.rebuild(tmp_path)


def test_a_recipe_that_is_not_the_receipts_is_refused(receipt: Path) -> None:
    (receipt / "grid.yaml").write_text((receipt / "grid.yaml").read_text().replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(GridError, match="is not the recipe of the manifest"):
        verify.rebuild(receipt)


@pytest.mark.slow
def test_what_a_stopped_rebuild_leaves_is_where_it_goes_on(
    receipt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    planned = plan.plan(grid.load(receipt / "grid.yaml"))
    place = verify.temporary_place(planned)
    assert place == verify.temporary_place(planned)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    done = worker.train_cohort(worker.Task(planned.cohorts[0], str(place)), planned.sources)
    parts.commit(ZooPaths(place), done.record)
    files.write_json(ZooPaths(place).recipe, planned.identity)
    kept = sorted(p.name for p in ZooPaths(place).commits.iterdir())
    with ZooPaths(place).lock.open("a+") as lock:  # somebody else builds there
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match=re.escape(f"It lies in {place}.")):
            verify.rebuild(receipt, workers=0)
    assert sorted(p.name for p in ZooPaths(place).commits.iterdir()) == kept
    assert verify.rebuild(receipt, workers=0).problems == []
    assert not place.exists()


def test_a_finished_rebuild_of_before_is_built_again(
    receipt: Path, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    place = verify.temporary_place(plan.plan(grid.load(receipt / "grid.yaml")))
    shutil.copytree(tiny_zoo, place, dirs_exist_ok=True)
    assert verify.temporary_place(plan.plan(grid.load(receipt / "grid.yaml"))) == place
    assert list(place.iterdir()) == []


def test_a_temporary_folder_that_is_not_ours_is_refused(
    receipt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(BuildError, match=r"There is no temporary folder to build in: .*--out, or set TMPDIR"):
        verify.rebuild(receipt, workers=0)
    (tmp_path / "missing").mkdir()
    place = verify.temporary_place(plan.plan(grid.load(receipt / "grid.yaml")))
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(BuildError, match="is somebody else's"):
        verify.rebuild(receipt, workers=0)


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
