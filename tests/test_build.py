"""What `zoo_builder.build` promises of a folder: one recipe, one builder, the same bytes, nothing lost."""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from zoo_builder import build as build_module
from zoo_builder import executor, grid, output, plan, worker
from zoo_builder.build import BuildProgress, build
from zoo_datasets.core import files, meters
from zoo_datasets.errors import BuildError
from zoo_datasets.format.paths import SPLITS, ZooPaths

MOST_S = 240  # ends what hangs; no promise about time
GOLDEN = Path(__file__).parent / "golden" / "weightzoo" / "golden"
Tree = Callable[[Path], dict[str, str]]


def log_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ".build" / "log.jsonl").read_text().splitlines()]


def build_until_dead(grid_path: str, out: str) -> None:
    build(plan.plan(grid.load(grid_path)), Path(out), workers=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a folder with every cohort committed and nothing sealed will be; made by `half_built`."""
    return tmp_path_factory.mktemp("trained") / "zoo"


@pytest.fixture
def half_built(trained: Path, tiny_grid: Path, elsewhere: Callable[..., Any], tmp_path: Path) -> Path:
    """A copy of a build that was killed when all was trained and the manifest not yet written."""
    if not trained.exists():
        armed = {"ZOO_FAULT": f"before_manifest:{tmp_path}"}
        assert elsewhere(build_until_dead, str(tiny_grid), str(trained), env=armed).code == -9
    return Path(shutil.copytree(trained, tmp_path / "half"))


# ── what a zoo is ──


@pytest.mark.slow
def test_two_builds_give_the_same_bytes(tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree) -> None:
    build(tiny_plan, tmp_path / "elsewhere", workers=0)
    assert tree_hash(tmp_path / "elsewhere") == tree_hash(tiny_zoo)


@pytest.mark.slow
def test_checkpoints_change_no_byte(tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree) -> None:
    build(tiny_plan, tmp_path / "zoo", workers=0, checkpoint_every_s=0)
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)


def test_a_sealed_zoo_holds_what_the_format_says_and_nothing_private(tiny_zoo: Path, tree_hash: Tree) -> None:
    splits = ("test", "train", "validation")
    data = [f"data/{c}/{s}-00000-of-00001.parquet" for c in ("models", "snapshots") for s in splits]
    shards = [f"weights/{s}-00000-of-00001.safetensors" for s in splits]
    plain = [".gitattributes", "CITATION.cff", "LICENSE", "README.md", "grid.yaml", "manifest.json"]
    assert list(tree_hash(tiny_zoo)) == sorted([*data, *shards, *plain])
    assert sorted(p.name for p in (tiny_zoo / ".build").iterdir()) == ["lock", "log.jsonl"]


def test_the_manifest_names_every_other_file_but_the_card(tiny_zoo: Path, tree_hash: Tree) -> None:
    manifest = json.loads((tiny_zoo / "manifest.json").read_bytes())
    named = {f["path"]: f["sha256"] for f in manifest["files"]}
    assert named == {k: v for k, v in tree_hash(tiny_zoo).items() if k not in ("README.md", "manifest.json")}
    assert all((tiny_zoo / f["path"]).stat().st_size == f["bytes"] for f in manifest["files"])


def test_rows_lie_in_plan_order_within_their_split(tiny_plan: plan.Plan, tiny_zoo: Path) -> None:
    paths = ZooPaths(tiny_zoo)
    for split in SPLITS:
        ids = [r.id for r in tiny_plan.runs if r.split == split]
        assert pq.read_table(paths.table("models", split))["model_id"].to_pylist() == ids
        rows = pq.read_table(paths.table("snapshots", split)).to_pylist()
        assert [(r["model_id"], r["step"]) for r in rows] == [
            (r.id, s) for r in tiny_plan.runs if r.split == split for s in steps_of(tiny_plan, r.id)
        ]
        assert [r["row"] for r in rows] == list(range(len(rows)))


def steps_of(planned: plan.Plan, run: str) -> list[int]:
    """Epochs 0, 1 and 2 in updates of 32 images."""
    (n_train,) = {c.n_train for c in planned.cohorts for r in c.runs if r.id == run}
    return [0, -(-n_train // 32), 2 * -(-n_train // 32)]


@pytest.mark.slow
def test_progress_counts_models_to_the_end(tiny_plan: plan.Plan, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    build(tiny_plan, tmp_path / "zoo", workers=0, report=lambda p: seen.append((p.total, p.done, p.resumed)))
    assert seen == [(16, 0, 0), (16, 4, 0), (16, 8, 0), (16, 12, 0), (16, 16, 0)]


@pytest.mark.slow
def test_a_build_shows_steps_inside_a_cohort_and_no_byte_of_the_zoo_knows(
    tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    display = meters.Display(stream, clock=itertools.count(0, 100).__next__)  # every look is due
    tell = meters.tell

    def tell_and_look(amount: float) -> None:
        """A look whenever something is told: when a clock's thread gets its turn is the machine's affair."""
        tell(amount)
        display.tick()

    monkeypatch.setattr(meters, "tell", tell_and_look)
    with meters.shown(display, pulse=False):
        build(tiny_plan, tmp_path / "zoo", workers=0)
    said = stream.getvalue().splitlines()
    shown = [int(line.split()[1].replace(",", "")) for line in said if line.startswith("training:")]
    total = sum(sum(c.steps) for c in tiny_plan.cohorts)
    assert shown[0] < shown[-1] <= total
    ends = set(itertools.accumulate((sum(c.steps) for c in tiny_plan.cohorts), initial=0))
    assert set(shown) - ends  # not by whole cohorts alone
    assert any("4 of 16 models" in line for line in said)
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)


# ── somebody else's folder ──


def test_the_same_recipe_on_a_sealed_zoo_says_that_it_is_there(
    tiny_plan: plan.Plan, tiny_copy: Path, tree_hash: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    before = tree_hash(tiny_copy)
    with caplog.at_level(logging.INFO, "zoo_builder"):
        assert build(tiny_plan, tiny_copy, workers=0).root == tiny_copy
    assert f"{tiny_copy} is sealed already" in caplog.text
    assert tree_hash(tiny_copy) == before


@pytest.mark.parametrize("how", ["missing", "shorter"])
def test_a_sealed_zoo_that_is_not_whole_is_not_said_to_be_there(
    tiny_plan: plan.Plan, tiny_copy: Path, tree_hash: Tree, how: str
) -> None:
    shard = ZooPaths(tiny_copy).shard("train")
    shard.unlink() if how == "missing" else shard.write_bytes(shard.read_bytes()[:-4])
    before = tree_hash(tiny_copy)
    with pytest.raises(BuildError, match=r"was sealed, and is not whole any more: .*Remove the folder and run"):
        build(tiny_plan, tiny_copy, workers=0)
    assert tree_hash(tiny_copy) == before


def test_a_receipt_is_no_damaged_zoo(tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "grid.yaml"):
        shutil.copy(tiny_zoo / name, tmp_path)
    with pytest.raises(BuildError, match=r"is the receipt of a zoo, whose files are elsewhere.*verify --rebuild"):
        build(tiny_plan, tmp_path, workers=0)


def test_a_sealed_zoo_of_another_recipe_beside_a_damaged_one_is_not_touched(
    make_plan: Callable[..., plan.Plan], tiny_copy: Path, tree_hash: Tree
) -> None:
    paths = ZooPaths(tiny_copy)
    paths.build.mkdir(exist_ok=True)
    paths.recipe.write_text("")
    before = tree_hash(tiny_copy)
    with pytest.raises(BuildError, match=r"holds the zoo of another recipe: `training\.epochs` is 2 there, 3 here"):
        build(make_plan("training.epochs=3"), tiny_copy, workers=0)
    assert tree_hash(tiny_copy) == before


def test_what_could_never_be_sealed_is_said_before_anything_is_trained(tiny_plan: plan.Plan, tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "fast").mkdir()
    (tmp_path / "zoo" / ".build").symlink_to(tmp_path / "fast")
    with pytest.raises(BuildError, match=r"\.build is a symbolic link, and a zoo holds plain files only"):
        build(tiny_plan, tmp_path / "zoo", workers=0)
    assert list((tmp_path / "fast").iterdir()) == []
    with pytest.raises(BuildError, match="is no UTF-8, and Arrow cannot write there"):
        build(tiny_plan, Path(os.fsdecode(os.fsencode(tmp_path) + b"/z\xe9")), workers=0)


@pytest.mark.parametrize("relative", [True, False])
def test_a_folder_that_is_taken_away_ends_the_build_in_a_sentence(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("zoo") if relative else tmp_path / "zoo"
    seen: list[int] = []

    def taken_away(progress: BuildProgress) -> None:
        seen.append(progress.done)
        if progress.done == 4:
            shutil.rmtree(out)

    with pytest.raises(BuildError, match="was taken away while it was built, and what was finished with it"):
        build(make_plan("cohort_size=1"), out, workers=0, report=taken_away)
    assert max(seen) == 4


def test_who_looks_for_a_moment_does_not_end_a_build(
    tiny_plan: plan.Plan, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` holds the lock while it looks."""
    paths, tries = ZooPaths(tiny_copy), []
    paths.build.mkdir(exist_ok=True)
    with paths.lock.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        monkeypatch.setattr(output.time, "sleep", lambda s: (tries.append(s), fcntl.flock(held, fcntl.LOCK_UN)))
        with output.lock(paths):
            assert len(tries) == 1


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("changes", "limit", "difference"),
    [
        (["training.epochs=3"], None, "`training.epochs` is 2 there, 3 here"),
        (["seed=7"], None, "`seed` is absent there, 7 here"),
        ([], 8, "`limit` is absent there, 8 here"),
    ],
)
@pytest.mark.slow
def test_another_recipe_is_refused_and_says_what_differs(
    make_plan: Callable[..., plan.Plan], tiny_zoo: Path, half_built: Path, tree_hash: Tree,
    sealed: bool, changes: list[str], limit: int | None, difference: str,
) -> None:  # fmt: skip
    out = tiny_zoo if sealed else half_built
    before = tree_hash(out)
    with pytest.raises(BuildError, match="holds the zoo of another recipe") as error:
        build(make_plan(*changes, limit=limit), out, workers=0)
    assert difference in str(error.value)
    assert tree_hash(out) == before


def test_another_engine_is_another_recipe(make_plan: Callable[..., plan.Plan], tiny_zoo: Path) -> None:
    with pytest.raises(BuildError, match=r'`engines` is \["\w+ on cpu"\] there, \["torch_loop on cpu"\] here'):
        build(
            make_plan(engine="torch_batched" if "torch_loop" in str(make_plan().identity) else "torch_loop"), tiny_zoo
        )


def test_a_folder_with_other_files_is_refused(tiny_plan: plan.Plan, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(BuildError, match=r"holds other files and no zoo\. Choose an empty folder with --out"):
        build(tiny_plan, tmp_path, workers=0)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "an extension of a browser"}'])
def test_a_manifest_that_is_no_zoo_is_refused(tiny_plan: plan.Plan, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BuildError, match=r"manifest\.json is damaged, or no zoo's"):
        build(tiny_plan, tmp_path, workers=0)
    assert (tmp_path / "manifest.json").read_text() == text


def test_a_file_in_place_of_the_folder_is_refused(tiny_plan: plan.Plan, tmp_path: Path) -> None:
    (tmp_path / "zoo").write_text("a file")
    with pytest.raises(BuildError, match=r"Cannot use .*zoo: Not a directory\. Choose another folder with --out"):
        build(tiny_plan, tmp_path / "zoo", workers=0)


@pytest.mark.slow
def test_an_empty_folder_is_taken(tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree) -> None:
    assert tree_hash(build(tiny_plan, tmp_path, workers=0).root) == tree_hash(tiny_zoo)


# ── two builders ──


def build_and_wait(grid_path: str, out: str, ready: str, go: str) -> None:
    """Builds, but stops at the first report until somebody writes to `go`."""

    def report(progress: BuildProgress) -> None:
        if not os.path.exists(ready):
            Path(ready).touch()
            with open(go) as word:
                word.read()

    build(plan.plan(grid.load(grid_path)), Path(out), workers=0, report=report)


@pytest.mark.slow
def test_a_second_builder_leaves_with_the_number_of_the_first(
    tiny_plan: plan.Plan, tiny_grid: Path, tiny_zoo: Path, start: Callable[..., Any], tmp_path: Path, tree_hash: Tree
) -> None:
    out, ready, go = tmp_path / "zoo", tmp_path / "ready", tmp_path / "go"
    os.mkfifo(go)
    first = start(build_and_wait, str(tiny_grid), str(out), str(ready), str(go))
    while not ready.exists():
        first.join(0.02)
        assert first.exitcode is None
    with pytest.raises(BuildError, match=f"is being built by process {first.pid}. Wait for it, or end it"):
        build(tiny_plan, out, workers=0)
    go.write_text("on")
    first.join(MOST_S)
    assert first.exitcode == 0
    assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.slow
def test_a_dead_builder_holds_no_lock(tiny_plan: plan.Plan, tiny_zoo: Path, half_built: Path, tree_hash: Tree) -> None:
    assert (half_built / ".build" / "lock").read_text().isdigit()
    build(tiny_plan, half_built, workers=0)
    assert tree_hash(half_built) == tree_hash(tiny_zoo)


# ── damage between two runs ──


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def traverse(path: Path) -> None:
    path.write_text(path.read_text().replace(".build/parts/", "../parts/"))


def swap(path: Path) -> None:
    """Two commits exchanged, each whole."""
    one, two = sorted(path.parent.glob("*.json"))[:2]
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b)
    two.write_bytes(a)


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], int]] = {
    # kind: files it happens to, what happens to the first of them, cohorts trained again
    "weights truncated": ("parts/*.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-4]), 1),
    "weights flipped": ("parts/*.safetensors", flip, 1),
    "weights emptied": ("parts/*.safetensors", lambda p: p.write_bytes(b""), 1),
    "weights missing": ("parts/*.safetensors", lambda p: p.unlink(), 1),
    "rows flipped": ("parts/*.arrow", flip, 1),
    "rows missing": ("parts/*.arrow", lambda p: p.unlink(), 1),
    "commit emptied": ("commits/*.json", lambda p: p.write_bytes(b""), 1),
    "commit halved": ("commits/*.json", lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), 1),
    "commit flipped": ("commits/*.json", flip, 1),
    "commit missing": ("commits/*.json", lambda p: p.unlink(), 1),
    "commit pointing outside": ("commits/*.json", traverse, 1),
    "commits exchanged": ("commits/*.json", swap, 2),
    "clock of the disk in 2096": ("parts/*", lambda p: os.utime(p, (4e9, 4e9)), 0),
    "scratch of a killed worker": ("parts/*", lambda p: p.with_name(".scratch-7-part").write_bytes(b"half"), 0),
    "scratch of a killed driver": ("lock", lambda p: (p.parents[1] / ".scratch-7-LICENSE").write_bytes(b"half"), 0),
}


# One of each way to notice by default: test_parts.py has the ways themselves.
OFTEN = ("weights flipped", "rows missing", "commit halved", "commit pointing outside", "scratch of a killed driver")


@pytest.mark.some(2)
@pytest.mark.parametrize("kind", [k if k in OFTEN else pytest.param(k, marks=pytest.mark.slow) for k in DAMAGE])
def test_damage_is_found_set_aside_and_trained_again(
    tiny_plan: plan.Plan, tiny_zoo: Path, half_built: Path, kind: str, tree_hash: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    pattern, harm, again = DAMAGE[kind]
    harm(sorted((half_built / ".build").glob(pattern))[0])
    build(tiny_plan, half_built, workers=0)
    assert len(log_lines(half_built)) == 4 + again
    assert caplog.text.count("It is trained again.") == (0 if kind == "commit missing" else again)
    assert tree_hash(half_built) == tree_hash(tiny_zoo)


@pytest.mark.some(1)
@pytest.mark.parametrize("kind", ["empty", "not JSON", "of another zoo"])
@pytest.mark.slow
def test_a_manifest_that_is_not_this_zoos_costs_no_commit(
    tiny_plan: plan.Plan, tiny_zoo: Path, half_built: Path, kind: str, tree_hash: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    text = {"empty": "", "not JSON": '{"format_version": 1', "of another zoo": (GOLDEN / "manifest.json").read_text()}
    (half_built / "manifest.json").write_text(text[kind])
    before = len(log_lines(half_built))
    build(tiny_plan, half_built, workers=0)
    assert "It is set aside, and the build goes on from its commits." in caplog.text
    assert len(log_lines(half_built)) == before
    assert tree_hash(half_built) == tree_hash(tiny_zoo)


@pytest.mark.slow
def test_a_torn_shard_behind_a_good_manifest_costs_no_commit(
    tiny_plan: plan.Plan, tiny_zoo: Path, half_built: Path, tree_hash: Tree
) -> None:
    shutil.copytree(tiny_zoo, half_built, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".build"))
    shard = next((half_built / "weights").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    build(tiny_plan, half_built, workers=0)
    assert tree_hash(half_built) == tree_hash(tiny_zoo)


def test_damaged_commits_are_kept_until_the_zoo_is_sealed(tiny_plan: plan.Plan, half_built: Path) -> None:
    paths = ZooPaths(half_built)
    broken = sorted(paths.commits.glob("*.json"))[0]
    broken.write_text("half a comm")
    cohort = next(c for c in tiny_plan.cohorts if c.id == broken.stem)
    assert build_module.committed(paths, cohort) is None
    assert [p.read_text() for p in paths.damaged.iterdir()] == ["half a comm"]
    assert not broken.exists()


def test_a_new_attempt_forgets_the_failures_of_the_last(
    tiny_plan: plan.Plan, half_built: Path, weak_disk: Callable[[int, int], None]
) -> None:
    paths = ZooPaths(half_built)
    files.write_json(paths.failed / "old.json", {})
    weak_disk(2, errno.ENOSPC)  # after the recipe, and before anything that would clean up after a success
    with pytest.raises(BuildError, match="No space left"):
        build(tiny_plan, half_built, workers=0)
    assert not paths.failed.exists()


@pytest.mark.slow
def test_a_resumed_build_trains_only_what_is_missing(tiny_plan: plan.Plan, half_built: Path) -> None:
    sorted((half_built / ".build" / "commits").glob("*.json"))[0].unlink()
    seen: list[BuildProgress] = []
    build(tiny_plan, half_built, workers=0, report=lambda p: seen.append(BuildProgress(**vars(p))))
    assert [(p.done, p.resumed) for p in seen] == [(12, 12), (16, 12)]


# ── a disk that does not take it ──


@pytest.fixture
def weak_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes the n-th flush to the disk from now on, and every later one, fail with that error."""
    real = os.fsync

    def weaken(after: int, number: int) -> None:
        left = iter(range(after))

        def fsync(handle: int) -> None:
            if next(left, None) is None:
                raise OSError(number, os.strerror(number))
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    return weaken


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("after", "number"),
    [
        *((n, errno.ENOSPC) for n in (1, 14, 33)),
        # A build of the tiny recipe flushes some 60 times; the last is after the manifest has its name.
        *(
            pytest.param(n, errno.ENOSPC, marks=pytest.mark.slow)
            for n in (0, 2, 3, 5, 8, 13, 15, 27, 37, 41, 47, 55, 58)
        ),
        *(
            pytest.param(9, number, marks=pytest.mark.slow)
            for number in (errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ENAMETOOLONG)
        ),
        (9, errno.EFBIG),
        pytest.param(33, errno.EFBIG, marks=pytest.mark.slow),
        pytest.param(9, errno.EMFILE, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_stops_with_a_message_and_the_next_run_goes_on(
    tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree, monkeypatch: pytest.MonkeyPatch,
    weak_disk: Callable[[int, int], None], after: int, number: int,
) -> None:  # fmt: skip
    out = tmp_path / "zoo"
    weak_disk(after, number)
    with pytest.raises(
        BuildError,
        match=rf"Cannot write to .*: {os.strerror(number)}\. (What was finished is kept|Choose another folder)",
    ):
        build(tiny_plan, out, workers=0)
    monkeypatch.undo()
    assert list(out.rglob(f"*{files.SCRATCH}*")) == []
    assert not (out / "manifest.json").exists()
    build(tiny_plan, out, workers=0)
    assert tree_hash(out) == tree_hash(tiny_zoo)


# What a disk, a quota, a limit of the shell or another program may answer, and the way out that is named.
ANSWERS = {
    errno.ENOSPC: "free some space", errno.EDQUOT: "free some of your quota", errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "make the folder writable", errno.EACCES: "make the folder writable", errno.EIO: "look after the disk",
    errno.ENAMETOOLONG: "move the folder to a shorter path", errno.EMFILE: "raise the limit on open files",
    errno.ENOENT: "bring the folder back", errno.ESTALE: "bring the folder back",
}  # fmt: skip


@pytest.mark.parametrize("number", ANSWERS)
def test_what_an_output_refuses_ends_the_training_of_more(tiny_plan: plan.Plan, tmp_path: Path, number: int) -> None:
    """In this process one cohort is handed over at a time: the others never start."""
    tried: list[str] = []

    def full(task: worker.Task, shared: Any) -> worker.Done:
        tried.append(task.cohort.id)
        raise OSError(number, os.strerror(number), str(tmp_path / ".build" / "part"))

    with pytest.raises(BuildError, match=f"{os.strerror(number)}. What was finished is kept; {ANSWERS[number]}"):
        drive(tiny_plan, ZooPaths(tmp_path), full)
    assert tried == [c.id for c in tiny_plan.cohorts[:1]]


UNDER_A_LIMIT = """
import resource, sys
from zoo_builder import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
sys.exit(cli.main(["--grid", sys.argv[1], "--out", sys.argv[2], "--workers", "0", "--quiet"]))
"""


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_said_and_lifting_it_is_enough(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, environment: dict[str, str], tree_hash: Tree
) -> None:
    """`ulimit -f`, as schedulers set it: the build stops at the first cohort, and goes on from there."""

    def built(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", UNDER_A_LIMIT, tiny_grid, tmp_path / "zoo", limit]
        return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=MOST_S)

    small = built(20_000)
    assert small.returncode == 1
    assert "File too large. What was finished is kept; raise the limit on the size of files" in small.stderr
    assert small.stderr.count("\n") == 1
    assert built(-1).returncode == 0
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)


# Builds on a disk of 256 kB, which is too small, then on the same disk grown to 16 MB.
ON_A_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets.errors import BuildError
recipe, disk = sys.argv[1], Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], check=True)
planned, said = plan.plan(grid.load(recipe)), ""
try:
    build(planned, disk / "zoo", workers=int(sys.argv[3]))
except BuildError as error:
    said = str(error)
left = [str(p) for p in disk.rglob("*scratch*")]
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
try:
    build(planned, disk / "zoo", workers=0)
except BuildError as error:
    read_only = str(error)
try:
    build(planned, disk / "new", workers=0)
except BuildError as error:
    new = str(error)
subprocess.run(["mount", "-o", "remount,rw,size=16m", str(disk)], check=True)
build(planned, disk / "zoo", workers=0)
subprocess.run(["cp", "-r", str(disk / "zoo"), sys.argv[4]], check=True)
print(json.dumps([said, left, read_only, new]))
"""


def on_a_small_disk(recipe: Path, workers: int, tmp_path: Path, environment: dict[str, str]) -> list[Any]:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no `unshare` to make a small disk with")
    inside = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--mount", "--map-root-user"]
    if subprocess.run([*inside, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    (tmp_path / "disk").mkdir()
    command = [*inside, sys.executable, "-c", ON_A_SMALL_DISK, recipe, tmp_path / "disk", workers, tmp_path / "kept"]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=MOST_S)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.ray)])
def test_a_full_and_a_read_only_disk_say_so_and_more_space_is_enough(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, environment: dict[str, str], tree_hash: Tree, workers: int
) -> None:
    full, scratch, read_only, new = on_a_small_disk(tiny_grid, workers, tmp_path, environment)
    assert "No space left on device. What was finished is kept; free some space" in full
    assert scratch == []
    assert "Cannot write to" in read_only
    assert "Read-only file system" in read_only
    assert "Read-only file system. Choose another folder with --out." in new
    assert tree_hash(tmp_path / "kept") == tree_hash(tiny_zoo)


# ── a cohort that fails ──


def drive(planned: plan.Plan, paths: ZooPaths, work: executor.Work) -> dict[str, Any]:
    """Trains every cohort of a plan with that work function, in this process."""
    records: dict[str, Any] = {}
    files.write_json(paths.recipe, planned.identity)
    pool = executor.InProcess(work, planned.sources)
    tasks = [worker.Task(c, str(paths.root)) for c in planned.cohorts]
    with build_module._Interrupt() as interrupt:
        build_module._drive(paths, pool, tasks, records, BuildProgress(len(planned.runs)), lambda p: None, interrupt)
    return records


@pytest.mark.some(1)
@pytest.mark.parametrize("error", [ValueError("it does not fit"), FileNotFoundError(errno.ENOENT, "gone")])
@pytest.mark.slow
def test_a_failing_cohort_is_recorded_and_the_others_go_on(
    tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree, error: Exception
) -> None:
    second = tiny_plan.cohorts[1]

    def work(task: worker.Task, shared: Any) -> worker.Done:
        if task.cohort.id == second.id:
            raise error
        return worker.train_cohort(task, shared)

    paths = ZooPaths(tmp_path / "zoo")
    with pytest.raises(BuildError, match=r"1 of 4 cohorts failed \(4 models\)\. Tracebacks are in .*failed"):
        drive(tiny_plan, paths, work)
    (failure,) = paths.failed.iterdir()
    record = json.loads(failure.read_text())
    assert record["cohort_id"] == second.id
    assert record["runs"] == [r.id for r in second.runs]
    assert record["error"].startswith(type(error).__name__)
    assert "in work" in record["traceback"]
    assert {p.stem for p in paths.commits.iterdir()} == {c.id for c in tiny_plan.cohorts} - {second.id}
    # The same command tries the failed one again, and forgets the failure.
    build(tiny_plan, paths.root, workers=0)
    assert tree_hash(paths.root) == tree_hash(tiny_zoo)


# ── diverged models are results ──


def test_diverged_models_are_sealed_with_their_last_finite_weights(
    make_plan: Callable[..., plan.Plan], tmp_path: Path
) -> None:
    planned = make_plan("axes={lr: [1e-2, 1e20]}", "paired=[]", "training={epochs: 2, batch_size: 32, optimizer: sgd}", "activation=relu",
                        "snapshots={epochs: [2]}", "splits={train: 1}")  # fmt: skip
    paths = build(planned, tmp_path / "zoo", workers=0)
    manifest = json.loads(paths.manifest.read_bytes())
    assert manifest["counts"]["diverged"] == 4
    rows = pq.read_table(paths.table("models", "train")).to_pylist()
    assert [r["stop_reason"] for r in rows if r["lr"] > 1] == ["diverged"] * 4
    assert all(r["diverged_step"] > 0 and r["step"] == 0 for r in rows if r["lr"] > 1)
    assert all(r["diverged_step"] is None and r["step"] == 14 for r in rows if r["lr"] < 1)
    assert all(np.isfinite(r["weights"]).all() for r in rows)
    (tensor,) = load_file(paths.shard("train")).values()
    assert len(tensor) == 8
    assert [r["weights"] for r in rows] == tensor.tolist()


@pytest.mark.slow
def test_only_what_the_build_wrote_is_sealed(tiny_plan: Any, tmp_path: Path) -> None:
    def leave_a_note(progress: Any) -> None:
        (tmp_path / "zoo" / "notes.txt").write_text("mine")

    paths = build(tiny_plan, tmp_path / "zoo", workers=0, report=leave_a_note)
    assert "notes.txt" not in {e["path"] for e in json.loads(paths.manifest.read_bytes())["files"]}


def test_a_clean_up_that_was_killed_is_finished_by_the_next_call(tiny_plan: Any, tiny_copy: Path) -> None:
    paths = ZooPaths(tiny_copy)
    paths.parts.mkdir(parents=True)
    (paths.parts / "left").write_bytes(b"x")
    files.write_json(paths.recipe, tiny_plan.identity)
    build(tiny_plan, tiny_copy, workers=0)
    assert not paths.parts.exists()
    assert not paths.recipe.exists()


def test_a_build_that_went_on_with_another_version_of_its_engine_says_so(
    make_plan: Callable[..., plan.Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Commits of before an upgrade are kept, and such a zoo cannot be built again bit for bit."""

    def stop(progress: BuildProgress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    planned = make_plan("cohort_size=4", engine="torch_loop")
    with monkeypatch.context() as before:
        before.setattr(torch, "__version__", "0.9.0")
        with pytest.raises(KeyboardInterrupt):
            build(planned, tmp_path / "zoo", workers=0, report=stop)
    build(planned, tmp_path / "zoo", workers=0)
    assert "models were trained by torch 0.9.0" in caplog.text
    assert "such a zoo cannot be built again bit for bit" in caplog.text
