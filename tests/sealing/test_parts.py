"""What `zoo_builder.sealing.parts` and `faults` promise: a part and its commit are whole or not there."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder.sealing import faults, parts
from zoo_builder.training.progress import Progress, Snapshot
from zoo_datasets.core import files, streams
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import schema
from zoo_datasets.format.paths import ZooPaths

COHORT = "c" * 64
ENGINE = {"name": "torch_loop", "version": "torch 0", "isa": "none"}


def snapshot(model: int, step: int, n_params: int = 5) -> Snapshot:
    metrics: dict[str, Any] = {c.name: None for c in schema.METRICS}
    metrics |= {"train_loss": 0.1 * step + model, "test_correct_per_class": [step, 0], "test_count_per_class": [9, 9]}
    weights = np.arange(n_params, dtype=np.float32) + 10 * model + step
    return Snapshot(model, step, step / 2, 8 * step, metrics, weights)


SNAPSHOTS = [snapshot(m, s) for m, steps in enumerate(((0, 2, 4), (0,))) for s in steps]
RESULTS = [
    {"stop_reason": "epochs", "diverged_step": None, "n_train": 16},
    {"stop_reason": "diverged", "diverged_step": 1, "n_train": 16},
]


@pytest.fixture
def paths(tmp_path: Path) -> ZooPaths:
    return ZooPaths(tmp_path / "zoo")


def written(paths: ZooPaths) -> parts.Record:
    return parts.write_part(paths, COHORT, ["a", "b"], SNAPSHOTS, RESULTS, ENGINE)


def test_a_part_gives_back_every_bit_of_weights_and_rows(paths: ZooPaths) -> None:
    record = written(paths)
    part = parts.open_weights(paths, record)
    assert part.weights.tobytes() == np.stack([s.weights for s in SNAPSHOTS]).tobytes()
    assert part.slots is None
    rows = parts.read_rows(paths, record).to_pylist()
    assert [(r["model_id"], r["step"]) for r in rows] == [("a", 0), ("a", 2), ("a", 4), ("b", 0)]
    assert [r["weights_sha256"] for r in rows] == [s.sha256 for s in SNAPSHOTS]
    assert [r["train_loss"] for r in rows] == [s.metrics["train_loss"] for s in SNAPSHOTS]
    assert rows[1]["test_correct_per_class"] == [2, 0]
    assert rows[0]["validation_loss"] is None


def test_the_optimizers_slots_lie_in_the_rows_of_their_weights(paths: ZooPaths) -> None:
    kept = [dataclasses.replace(s, slots=np.stack([s.weights + 1, s.weights * 2])) for s in SNAPSHOTS]
    record = parts.write_part(paths, COHORT, ["a", "b"], kept, RESULTS, ENGINE)
    part = parts.open_weights(paths, record)
    assert part.slots is not None
    assert part.slots.tobytes() == np.stack([s.slots for s in kept]).tobytes()
    assert parts.read_rows(paths, record)["optimizer_sha256"].to_pylist() == [s.optimizer_sha256 for s in kept]


def test_a_record_counts_the_snapshots_of_every_model(paths: ZooPaths) -> None:
    models = written(paths).models
    assert [(m["model_id"], m["n_snapshots"], m["stop_reason"]) for m in models] == [
        ("a", 3, "epochs"),
        ("b", 1, "diverged"),
    ]


def test_a_commit_gives_back_its_record(paths: ZooPaths) -> None:
    record = written(paths)
    assert parts.read_commit(paths, COHORT) is None  # a part alone does not count
    parts.commit(paths, record)
    assert parts.read_commit(paths, COHORT) == record


def test_the_same_snapshots_give_the_same_bytes(paths: ZooPaths, tmp_path: Path) -> None:
    assert written(paths) == written(ZooPaths(tmp_path / "other"))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_disk_without_hard_links_takes_commits(paths: ZooPaths, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*names: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    first = written(paths)
    parts.commit(paths, first)
    parts.commit(paths, dataclasses.replace(first, engine={**ENGINE, "version": "late"}))
    assert parts.read_commit(paths, COHORT) == first
    assert [p.name for p in paths.commits.iterdir()] == [f"{COHORT}.json"]


def test_a_full_disk_is_not_taken_for_one_without_links(paths: ZooPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space left"):
        parts.commit(paths, written(paths))


def test_the_first_commit_wins_and_leaves_no_scratch(paths: ZooPaths) -> None:
    first = written(paths)
    parts.commit(paths, first)
    parts.commit(paths, dataclasses.replace(first, engine={**ENGINE, "version": "late"}))
    assert parts.read_commit(paths, COHORT) == first
    assert [p.name for p in paths.commits.iterdir()] == [f"{COHORT}.json"]


def test_writing_again_repairs_a_damaged_part_of_the_right_name(paths: ZooPaths) -> None:
    parts.commit(paths, written(paths))
    record = parts.read_commit(paths, COHORT)
    assert record is not None
    (paths.root / record.weights).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"safetensors is missing or damaged"):
        parts.read_commit(paths, COHORT)
    written(paths)
    assert parts.read_commit(paths, COHORT) == record


@pytest.mark.parametrize("which", ["weights", "rows"])
@pytest.mark.slow
def test_any_flipped_byte_of_a_part_is_found(paths: ZooPaths, which: str) -> None:
    record = written(paths)
    parts.commit(paths, record)
    path = paths.root / getattr(record, which)
    whole = path.read_bytes()
    for at in range(0, len(whole), 1 + len(whole) // 200):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IntegrityError, match="missing or damaged"):
            parts.read_commit(paths, COHORT)


@pytest.mark.slow
def test_any_flipped_byte_of_a_commit_is_found_or_harmless(paths: ZooPaths) -> None:
    record = written(paths)
    parts.commit(paths, record)
    path = paths.commit(COHORT)
    whole = path.read_bytes()
    found = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert parts.read_commit(paths, COHORT) == record  # a blank became another blank
        except IntegrityError:
            found += 1
    assert found > 0.9 * len(whole)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"{}", b'"text"', b'{"cohort_id": 3}', b"\xff\xfe", b"[" * 100_000,
     b'{"cohort_id": "x", "files": [], "models": [], "engine": {}}',
     b'{"sha256": "0", "cohort_id": "x", "files": "ab", "models": [], "engine": {}}'],
)  # fmt: skip
def test_a_commit_of_another_shape_is_refused(paths: ZooPaths, text: bytes) -> None:
    written(paths)
    files.write_atomic(paths.commit(COHORT), text.replace(b'"x"', f'"{COHORT}"'.encode()))
    with pytest.raises(IntegrityError, match=r"c{64}\.json is damaged"):
        parts.read_commit(paths, COHORT)


@pytest.mark.parametrize(
    "where", ["../outside.safetensors", "/etc/outside.safetensors", ".build/parts/../../../x.safetensors"]
)
def test_a_commit_that_points_outside_is_refused(paths: ZooPaths, where: str) -> None:
    record = written(paths)
    forged = ({**record.files[0], "path": where}, *record.files[1:])
    parts.commit(paths, dataclasses.replace(record, files=forged))
    with pytest.raises(IntegrityError, match="leaves the folder"):
        parts.read_commit(paths, COHORT)


def test_a_part_behind_a_symbolic_link_is_refused(paths: ZooPaths, tmp_path: Path) -> None:
    record = written(paths)
    parts.commit(paths, record)
    part = paths.root / record.weights
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="symbolic link"):
        parts.read_commit(paths, COHORT)


def test_a_commit_under_the_name_of_another_cohort_is_refused(paths: ZooPaths) -> None:
    parts.commit(paths, written(paths))
    paths.commit(COHORT).rename(paths.commit("d" * 64))
    with pytest.raises(IntegrityError, match="speaks of another cohort"):
        parts.read_commit(paths, "d" * 64)


@pytest.mark.parametrize("layout", [1, parts.LAYOUT + 1])
def test_a_commit_of_another_layout_is_never_mixed_in(paths: ZooPaths, layout: int) -> None:
    value = {**written(paths).to_json(), "layout": layout}
    if layout == 1:
        del value["layout"]  # the first had none
    files.write_json(paths.commit(COHORT), {**value, "sha256": streams.digest(value)})
    with pytest.raises(
        IntegrityError, match=rf"another version of the builder \(layout {layout}, not {parts.LAYOUT}\)"
    ):
        parts.read_commit(paths, COHORT)


def test_setting_aside_keeps_every_damaged_commit(paths: ZooPaths) -> None:
    for text in ("one", "two", "three"):
        files.write_atomic(paths.commit(COHORT), text)
        parts.set_aside(paths, COHORT)
    assert sorted(p.read_text() for p in paths.damaged.iterdir()) == ["one", "three", "two"]
    assert not paths.commit(COHORT).exists()


# ── checkpoints ──


def state_and_progress() -> tuple[dict[str, np.ndarray], Progress]:
    values = np.array([[1.5, np.nan, np.inf], [-0.0, 1e-45, 3]], np.float32)
    state = {"weights": values, "slot1": values + 1, "slot2": values * 2}
    progress = Progress(
        4, np.array([True, False]), [None, "diverged"], [None, 3], [0.25, np.inf], [1, 0],
        [snapshot(0, 0, 3), snapshot(0, 4, 3), snapshot(1, 0, 3)],
    )  # fmt: skip
    return state, progress


def same(a: tuple[dict[str, np.ndarray], Progress] | None, b: tuple[dict[str, np.ndarray], Progress]) -> bool:
    """Equal bit for bit, NaN and −0 included."""
    if a is None or a[0].keys() != b[0].keys():
        return False
    arrays = all(a[0][k].tobytes() == b[0][k].tobytes() and a[0][k].shape == b[0][k].shape for k in b[0])
    rest = [
        (p.step, p.active.tolist(), p.stop_reason, p.diverged_step, p.best_loss, p.best_epoch) for p in (a[1], b[1])
    ]
    kept = [
        [(s.model, s.step, s.epoch, s.examples_seen, s.metrics, s.sha256) for s in p.snapshots] for p in (a[1], b[1])
    ]
    return arrays and rest[0] == rest[1] and kept[0] == kept[1]


def test_a_checkpoint_gives_back_every_bit(tmp_path: Path) -> None:
    checkpoint = parts.Checkpoint(tmp_path / "c.safetensors", COHORT, 0)
    assert checkpoint.load() is None
    checkpoint.save(*state_and_progress())
    assert same(checkpoint.load(), state_and_progress())


def test_a_checkpoint_without_snapshots_gives_back_none(tmp_path: Path) -> None:
    state, progress = state_and_progress()
    checkpoint = parts.Checkpoint(tmp_path / "c.safetensors", COHORT, 0)
    checkpoint.save(state, dataclasses.replace(progress, snapshots=[]))
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[1].snapshots == []


@pytest.mark.slow
def test_a_damaged_checkpoint_means_to_start_again(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint = parts.Checkpoint(path, COHORT, 0)
    state, progress = state_and_progress()
    progress.snapshots = [dataclasses.replace(s, metrics={"train_loss": 0.5}) for s in progress.snapshots]
    checkpoint.save(state, progress)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        loaded = checkpoint.load()
        refused += loaded is None
        assert loaded is None or same(loaded, (state, progress)), f"byte {at}"
    assert refused > 0.9 * len(whole)
    for cut in (0, 1, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert checkpoint.load() is None


def test_a_checkpoint_of_another_cohort_means_to_start_again(tmp_path: Path) -> None:
    parts.Checkpoint(tmp_path / "c.safetensors", COHORT, 0).save(*state_and_progress())
    assert parts.Checkpoint(tmp_path / "c.safetensors", "d" * 64, 0).load() is None


def test_checkpoints_are_due_by_their_clock_alone(tmp_path: Path) -> None:
    assert parts.Checkpoint(tmp_path / "c", COHORT, 0).due()
    assert not parts.Checkpoint(tmp_path / "c", COHORT, 1e9).due()


# ── faults ──


def pass_by(names: list[str]) -> int:
    for name in names:
        faults.point(name)
    return 7


@pytest.mark.slow
def test_a_fault_kills_once_at_its_own_point(elsewhere: Callable[..., Any], tmp_path: Path) -> None:
    armed = {"ZOO_FAULT": f"after_part:{tmp_path}"}
    assert elsewhere(pass_by, ["before_part"], env=armed).code == 7
    assert elsewhere(pass_by, ["before_part", "after_part"], env=armed).code == -signal.SIGKILL
    assert elsewhere(pass_by, ["before_part", "after_part"], env=armed).code == 7  # disarmed by its token
    assert elsewhere(pass_by, ["before_part", "after_part"]).code == 7


def test_the_commit_is_readable_json(paths: ZooPaths) -> None:
    parts.commit(paths, written(paths))
    value = json.loads(paths.commit(COHORT).read_text())
    assert value["cohort_id"] == COHORT
    assert [f["path"].split(".")[-1] for f in value["files"]] == ["safetensors", "arrow"]


def test_a_checkpoint_of_another_engine_is_not_gone_on_with(tmp_path: Path) -> None:
    saved, same, other = (parts.Checkpoint(tmp_path / "c.safetensors", COHORT, 0) for _ in range(3))
    for checkpoint, engine in ((saved, "native 1, fma"), (same, "native 1, fma"), (other, "native 2, fma")):
        checkpoint.bind(engine)
    saved.save(*state_and_progress())
    assert same.load() is not None
    assert other.load() is None
