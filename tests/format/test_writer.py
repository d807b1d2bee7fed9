"""The writer as an importer uses it, with neither grid nor plan: what it gives, refuses, and never needs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo_datasets import open_zoo
from zoo_datasets.core import files
from zoo_datasets.errors import BuildError, ZooError
from zoo_datasets.format import check, contents, schema, spool, writer
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.format.schema import Column
from zoo_datasets.networks.layout import Layout

Tree = Callable[[Path], dict[str, str]]


LAYOUTS = {
    "narrow": Layout.of([("a.weight", (2, 3), "parameter", ("", "")), ("a.bias", (2,), "parameter", ("",))]),
    "wide": Layout.of([("a.weight", (4, 3), "parameter", ("", ""))]),
}
WIDTHS = {"narrow": 8, "wide": 12}
FACTORS = (Column("lr", pa.float64(), "learning rate"), Column("paper", pa.string(), "where it was published"))
ABOUT = contents.About("someone/theirs", LAYOUTS, factors=FACTORS, axes={"lr": ["0.1", "0.2"]}, license="mit")
COUNTS = {"train": (3, 1, 2, 4), "validation": (2, 2), "test": (1, 3)}  # snapshots of each model


def one(split: str, number: int, count: int, layout: str = "narrow", slots: bool = False) -> contents.Models:
    """A model with random weights, as it may lie in somebody's folder."""
    draw = np.random.default_rng([number, count, len(split)])
    models = pa.table({
        "model_id": [f"{split}-{number}"], "init_group": [f"{split}-{number // 2}"], "layout": [layout],
        "n_snapshots": [count], "lr": [0.1 * (1 + number % 2)], "plan_index": [number],
    })  # fmt: skip
    snapshots = pa.table({"step": 10 * np.arange(count), "test_accuracy": draw.random(count)})
    weights = draw.standard_normal((count, WIDTHS[layout]), np.float32)
    kept = draw.standard_normal((count, 2, WIDTHS[layout]), np.float32) if slots else None
    return contents.Models(split, models, snapshots, [weights], None if kept is None else [kept])


def some(layouts: tuple[str, ...] = ("narrow",), slots: bool = False) -> list[contents.Models]:
    models = [(s, i, n) for s, counts in COUNTS.items() for i, n in enumerate(counts)]
    return [one(s, i, n, layouts[i % len(layouts)], slots) for s, i, n in models]


def together(models: list[contents.Models]) -> contents.Models:
    """Several models of one split as one."""
    slots = [s for m in models if m.slots is not None for s in m.slots]
    tables = (pa.concat_tables([getattr(m, name) for m in models]) for name in ("models", "snapshots"))
    return contents.Models(models[0].split, *tables, [w for m in models for w in m.weights], slots or None)


@pytest.mark.slow
def test_an_imported_zoo_is_whole_and_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    models = some()
    manifest = writer.write(tmp_path / "theirs", ABOUT, models)
    report = check.check(tmp_path / "theirs")
    assert (report.problems, report.warnings) == ([], [])
    assert manifest.to_json() == json.loads((tmp_path / "theirs" / "manifest.json").read_bytes())
    assert not ZooPaths(tmp_path / "theirs").build.exists()
    zoo = open_zoo(tmp_path / "theirs")
    assert zoo.weights[:].tobytes() == b"".join(w.tobytes() for m in models for w in m.weights)
    rows = zoo.models.to_pylist()
    assert [r["model_id"] for r in rows] == [m.models["model_id"][0].as_py() for m in models]
    assert [r["test_accuracy"] for r in rows] == [m.snapshots["test_accuracy"][-1].as_py() for m in models]
    assert [r["step"] for r in rows] == [10 * (n - 1) for counts in COUNTS.values() for n in counts]
    assert {r["paper"] for r in rows} == {r["train_loss"] for r in rows} == {r["engine"] for r in rows} == {None}
    assert [r["lr"] for r in rows] == [m.models["lr"][0].as_py() for m in models]
    assert len(zoo.select(lr=0.1)) == sum(n for counts in COUNTS.values() for n in counts[::2])


def test_what_the_manifest_says_follows_from_the_models(tmp_path: Path) -> None:
    manifest = writer.write(
        tmp_path / "z", ABOUT, some(), lambda tables: {"splits": {"fractions": {}, "rule": str(len(tables["models"]))}}
    )
    assert manifest.to_json()["counts"] == {
        "models": {"train": 4, "validation": 2, "test": 2}, "snapshots": {"train": 10, "validation": 4, "test": 4},
        "init_groups": 4, "cohorts": 0, "diverged": 0,
    }  # fmt: skip
    assert manifest.factors == ("lr", "paper")
    assert manifest.splits is not None
    assert manifest.splits.rule == "8"  # of the caller, who has seen the tables
    assert manifest.identity.document == {"license": "mit"}
    assert "license: mit" in (tmp_path / "z" / "README.md").read_text()
    assert "under mit" in (tmp_path / "z" / "LICENSE").read_text()


@pytest.mark.some(2)
@pytest.mark.parametrize("batch_rows", [1, 3, 1000])
@pytest.mark.parametrize("slots", [False, True])
def test_the_same_models_give_the_same_bytes_however_they_come(
    tmp_path: Path, tree_hash: Tree, monkeypatch: pytest.MonkeyPatch, batch_rows: int, slots: bool
) -> None:
    """One by one or many at once, splits in any order, in batches of any length, over many shards, layouts mixed."""
    monkeypatch.setattr(spool, "MOST_SHARD_BYTES", 100)
    about = dataclasses.replace(ABOUT, optimizer=slots)
    models = some(("narrow", "wide", "wide"), slots)
    one_by_one = writer.write(tmp_path / "a", about, models)
    grouped = [together([m for m in models if m.split == split]) for split in ("test", "train", "validation")]
    writer.write(tmp_path / "b", about, grouped, batch_rows=batch_rows)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")
    assert check.check(tmp_path / "b").problems == []
    assert len(one_by_one.files.under("weights/train-")) >= 3
    for split in COUNTS:
        rows = pq.read_table(ZooPaths(tmp_path / "b").table("models", split)).to_pylist()
        last = [w[-1] for m in models if m.split == split for w in m.weights]
        assert [r["weights"] for r in rows] == [w.tolist() for w in last]


def test_checksums_that_are_known_are_taken_and_others_worked_out(tmp_path: Path) -> None:
    model = one("train", 0, 3)
    (weights,) = model.weights
    known = [hashlib.sha256(row.tobytes()).hexdigest() for row in weights]
    given = model.snapshots.append_column("weights_sha256", pa.array(known))
    first = writer.write(tmp_path / "a", ABOUT, [model])
    second = writer.write(tmp_path / "b", ABOUT, [dataclasses.replace(model, snapshots=given)])
    assert first == second
    assert writer.sha256_of_rows(weights) == known


# ── stopped ──


def failing(error: BaseException, after: int) -> Iterator[contents.Models]:
    yield from some()[:after]
    raise error


@pytest.mark.some(1)
@pytest.mark.parametrize("after", [0, 1, 7])
@pytest.mark.slow
def test_a_failed_source_leaves_no_zoo_and_the_next_call_begins_anew(
    tmp_path: Path, tree_hash: Tree, after: int
) -> None:
    paths = ZooPaths(tmp_path / "zoo")
    with pytest.raises(OSError, match="No space left"):
        writer.write(paths.root, ABOUT, failing(OSError(28, "No space left on device"), after))
    assert not paths.manifest.exists()
    assert list(paths.build.iterdir()) == []
    with pytest.raises(ZooError, match="not finished"):
        open_zoo(paths.root)
    for left in (paths.shard("train", 7, 9), paths.table("models", "test", 1, 2)):  # of other numbers of files
        files.write_atomic(left, b"of an earlier attempt")
    writer.write(paths.root, ABOUT, some())
    writer.write(tmp_path / "unbroken", ABOUT, some())
    assert tree_hash(paths.root) == tree_hash(tmp_path / "unbroken")


def write_and_die(root: str, change: int) -> int:
    """Dies by SIGKILL where the writer makes, renames or removes something for the n-th time; else how often it did."""
    done = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            if done == change:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(watch)
    writer.write(root, ABOUT, some())
    return done


@pytest.mark.slow
def test_killed_anywhere_there_is_no_manifest_or_a_whole_zoo(
    tmp_path: Path, tree_hash: Tree, elsewhere: Callable[..., Any]
) -> None:
    writer.write(tmp_path / "unbroken", ABOUT, some())
    changes = elsewhere(write_and_die, str(tmp_path / "counted"), -1).code
    assert changes > 20
    for change in range(0, changes, changes // 8):
        root = tmp_path / str(change)
        assert elsewhere(write_and_die, str(root), change).code == -signal.SIGKILL
        if not (root / "manifest.json").exists():
            writer.write(root, ABOUT, some())
        assert tree_hash(root) == tree_hash(tmp_path / "unbroken"), change


@pytest.mark.parametrize("held", ["manifest.json", "photographs"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, held: str) -> None:
    (tmp_path / "weights").mkdir()
    for name in (held, "weights/theirs"):
        (tmp_path / name).write_text("precious")
    with pytest.raises(BuildError, match=r"Choose an(other| empty) folder"):
        writer.write(tmp_path, ABOUT, some())
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted([held, "theirs"])


# ── what no zoo can hold ──


def with_columns(which: str, **columns: Any) -> Callable[[contents.Models], contents.Models]:
    def change(model: contents.Models) -> contents.Models:
        table = {n: getattr(model, which)[n] for n in getattr(model, which).column_names} | columns
        return dataclasses.replace(model, **{which: pa.table({k: v for k, v in table.items() if v is not None})})

    return change


def with_weights(*shapes: tuple[int, ...], kind: type = np.float32) -> Callable[[contents.Models], contents.Models]:
    return lambda model: dataclasses.replace(model, weights=[np.ones(s, kind) for s in shapes])


BAD = {
    "unknown split": (lambda m: dataclasses.replace(m, split="tset"), r"Unknown split 'tset' .* Did you mean `test`\?"),
    "unknown layout": (with_columns("models", layout=["narow"]), r"Unknown layout 'narow' in model train-9\. .*`narrow`"),
    "unknown column": (with_columns("models", papr=["x"]), r"Unknown column 'papr' in the models .* `paper`"),
    "unknown metric": (with_columns("snapshots", los=[0.0, 1.0]), r"Unknown column 'los' in the snapshots"),
    "no group": (with_columns("models", init_group=pa.array([None], pa.string())), "need a `init_group` in every row"),
    "no axis": (with_columns("models", lr=None), "models of someone/theirs need a `lr`"),
    "no step": (with_columns("snapshots", step=None), "snapshots of someone/theirs need a `step` in every row"),
    "another type": (with_columns("snapshots", test_loss=["low", "high"]), "Column `test_loss` is double"),
    "no snapshot": (with_columns("models", n_snapshots=[0]), "Model train-9 has 0 snapshots"),
    "too few rows": (with_columns("models", n_snapshots=[3]), "claim 3 snapshots, and 2 are there"),
    "step below 0": (with_columns("snapshots", step=[-1, 4]), "Model train-9 has a step -1"),
    "steps go back": (with_columns("snapshots", step=[4, 4]), "Model train-9: step 4 follows step 4"),
    "others' rows": (with_columns("snapshots", model_id=["train-9", "x"]), "are other models', or in another order"),
    "too wide": (with_weights((2, 9)), r"weights of model train-9 are float32 of shape \(2, 9\); .*narrow.* \(2, 8\)"),
    "flat": (with_weights((16,)), r"weights of model train-9 are float32 of shape \(16,\)"),
    "too precise": (with_weights((2, 8), kind=np.float64), r"are float64 of shape \(2, 8\)"),
    "missing": (with_weights(), "weights of model train-9 are missing"),
    "too many": (with_weights((2, 8), (2, 8)), "weights of more models than the 1 in the table"),
    "twice": (with_columns("models", model_id=["train-0"]), "has 2 models of the id train-0"),
    "leak": (with_columns("models", init_group=["test-0"]), "init group test-0 are in train and in test"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_no_zoo_can_hold_is_refused_in_a_sentence(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        writer.write(tmp_path / "zoo", ABOUT, [*some(), change(one("train", 9, 2))])
    assert not (tmp_path / "zoo" / "manifest.json").exists()


def test_slots_are_asked_for_where_the_zoo_keeps_them(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="optimizer slots of model train-0 are missing"):
        writer.write(tmp_path / "zoo", dataclasses.replace(ABOUT, optimizer=True), some())


BAD_ABOUT = {
    "name": ({"zoo": 'own"er/z'}, r"A zoo is called `owner/name`, and 'own\"er/z' is no such name\."),
    "axis": ({"axes": {"learning_rate": ["0.1"]}}, "Unknown axis 'learning_rate' in the factors of someone/theirs"),
    "type": (
        {"factors": (Column("seed", pa.int32(), ""),), "axes": {}},
        "factor `seed` of someone/theirs is int32; a factor is string, int64",
    ),
    "type of a list": (
        {"factors": (Column("when", pa.list_(pa.date32()), ""),), "axes": {}},
        "`when` of someone/theirs is list<item: date32",
    ),
    "own file": ({"texts": {"README.md": "x"}}, "cannot seal a file 'README.md'"),
    "outside": ({"texts": {"../x": "x"}}, r"cannot seal a file '\.\./x'"),
    "layout": ({"architectures": {"a": {"kind": "external", "layout": "narow"}}}, "Unknown layout 'narow' .* `narrow`"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ABOUT.values(), ids=BAD_ABOUT)
def test_what_contradicts_itself_is_refused_before_a_row_is_taken(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        writer.write(tmp_path / "zoo", dataclasses.replace(ABOUT, **changes), iter(()))
    assert not (tmp_path / "zoo").exists()


@pytest.mark.slow
def test_no_models_at_a_time_are_none(tmp_path: Path) -> None:
    nothing = one("train", 9, 2)
    nothing = dataclasses.replace(nothing, models=nothing.models[:0], snapshots=nothing.snapshots[:0], weights=[])
    assert writer.write(tmp_path / "a", ABOUT, [nothing, *some()]) == writer.write(tmp_path / "b", ABOUT, some())
    stray = dataclasses.replace(one("train", 9, 2), models=nothing.models)
    with pytest.raises(BuildError, match="2 snapshots of someone/theirs without a model"):
        writer.write(tmp_path / "c", ABOUT, [stray])


def test_a_zoo_without_models_is_none(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="someone/theirs has no model"):
        writer.write(tmp_path / "zoo", ABOUT, [])


# ── in bounded memory ──


def many(n_models: int, count: int) -> Iterator[contents.Models]:
    """Models with `count` snapshots each, of values that no dictionary holds, some 640 snapshots at a time."""
    draw, width = np.random.default_rng(0), 640 // count
    for start in range(0, n_models, width):
        ids, n = [f"{i:016x}" for i in range(start, start + width)], width * count
        models = pa.table({
            "model_id": ids, "init_group": ids, "layout": ["narrow"] * width, "n_snapshots": [count] * width,
            "lr": draw.random(width),
        })  # fmt: skip
        rows = {"step": np.tile(np.arange(count), width), "test_loss": draw.random(n), "train_loss": draw.random(n)}
        yield contents.Models("train", models, pa.table(rows), draw.standard_normal((width, count, 8), np.float32))


def peak_bytes(folder: Path, n_models: int, count: int) -> int:
    """The most memory of Python, NumPy and Arrow while a zoo is written."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        writer.write(folder, ABOUT, many(n_models, count), batch_rows=1024)
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peak_bytes(tmp_path / "first", 16, 40)  # imports
    few, longer = peak_bytes(tmp_path / "few", 480, 40), peak_bytes(tmp_path / "longer", 480, 8 * 40)
    # 134,400 rows more are 30 MB. What grows has its bounds: a column's dictionary in Parquet (1 MB, then
    # it is given up), and 5 kB for each mapped batch, of which there are 131 more.
    assert longer - few < 2_000_000, f"{few:,} → {longer:,}"
    # Ids and groups are compared over the whole zoo, and the card counts models: some bytes each.
    more = peak_bytes(tmp_path / "more", 8 * 480, 5)
    assert more - few < 500 * 7 * 480, f"{few:,} → {more:,}"


def test_the_digests_are_those_of_tables_in_memory(tmp_path: Path) -> None:
    manifest = writer.write(tmp_path / "zoo", ABOUT, many(48, 40), batch_rows=100)
    paths = ZooPaths(tmp_path / "zoo")
    tables = {
        config: pq.read_table(paths.table(config, "train")).combine_chunks() for config in ("models", "snapshots")
    }
    assert schema.digests(tables) == manifest.digests
