"""Killed anywhere and gone on with, a build ends in the bytes of the unbroken one. Every kill is SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_builder.sealing import faults
from zoo_datasets.core import files

# Every point that the code names: a name that nobody passes would make its test pass by itself.
CODE = "".join(p.read_text() for p in Path(faults.__file__).parent.glob("*.py"))
POINTS = sorted(set(re.findall(r'faults\.point\("(\w+)"\)', CODE)))
MOST_S = 240  # ends what hangs; no promise about time
Tree = Callable[[Path], dict[str, str]]


def build_here(recipe: str, out: str, checkpoint_every_s: float = 0.0) -> None:
    build(plan.plan(grid.load(recipe)), Path(out), workers=0, checkpoint_every_s=checkpoint_every_s)


# ── at the named points ──


@pytest.mark.some(3)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_and_gone_on_with_is_the_unbroken_build(
    tiny_grid: Path, tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, elsewhere: Callable[..., Any], tree_hash: Tree,
    point: str,
) -> None:  # fmt: skip
    out = tmp_path / "zoo"
    ended = elsewhere(build_here, str(tiny_grid), str(out), env={"ZOO_FAULT": f"{point}:{tmp_path}"})
    assert ended.code == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    build(tiny_plan, out, workers=0, checkpoint_every_s=0)
    assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.slow
def test_killed_again_and_again_at_named_points_it_still_ends_in_the_same_bytes(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, elsewhere: Callable[..., Any], tree_hash: Tree
) -> None:
    """Twenty lives, each ended at a drawn point, where it is reached at all."""
    draw, out = random.Random(32), tmp_path / "zoo"  # a seed whose lives end at many points before the zoo is sealed
    deaths = 0
    for life in range(20):
        token = tmp_path / str(life)
        token.mkdir()
        point = draw.choice(POINTS)
        deaths += elsewhere(build_here, str(tiny_grid), str(out), env={"ZOO_FAULT": f"{point}:{token}"}).code != 0
    assert deaths >= 7
    assert elsewhere(build_here, str(tiny_grid), str(out)).code == 0
    assert tree_hash(out) == tree_hash(tiny_zoo)


# ── before every change of the file system ──

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def build_and_die_at(recipe: str, out: str, change: int, count: str) -> None:
    """Dies before the n-th time the builder makes, renames, links or removes a file; else writes how often it did."""
    planned = plan.plan(grid.load(recipe))
    opened: set[str] = set()
    done = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event == "open":
            if not str(arguments[0]).startswith(out) or not (arguments[2] or 0) & WRITES:
                return
            opened.add(os.path.basename(arguments[0]))
        elif event not in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if done == change:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    sys.addaudithook(watch)
    build(planned, Path(out), workers=0, checkpoint_every_s=0)
    report = json.dumps([done, sorted(opened)])
    Path(count).write_text(report)


@pytest.mark.slow
def test_killed_before_any_change_on_disk_and_gone_on_with_is_the_unbroken_build(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, elsewhere: Callable[..., Any], tree_hash: Tree
) -> None:
    planned = make_plan("axes={activation: [tanh]}", "paired=[]", "replicates=4", "cohort_size=2")
    recipe = tmp_path / "two-cohorts.yaml"
    recipe.write_text(json.dumps(planned.grid.document))  # JSON is YAML
    wanted = tree_hash(build(planned, tmp_path / "unbroken", workers=0).root)
    count = tmp_path / "count"
    assert elsewhere(build_and_die_at, str(recipe), str(tmp_path / "counted"), -1, str(count)).code == 0
    changes, opened = json.loads(count.read_text())
    # Only scratch names are ever written to: what has its final name is whole.
    assert {n for n in opened if not n.startswith(files.SCRATCH)} == {"lock", "log.jsonl"}
    assert changes > 50
    for change in range(changes):
        out = tmp_path / f"killed-{change}"
        ended = elsewhere(build_and_die_at, str(recipe), str(out), change, str(count))
        assert ended.code == -signal.SIGKILL, f"change {change}"
        build(planned, out, workers=0, checkpoint_every_s=0)
        assert tree_hash(out) == wanted, f"killed before change {change}"
        shutil.rmtree(out)


# ── at random times ──


# Enough work that a kill meets a build at work: 8 cohorts that take a third of a second or more.
LONG = ("training.epochs=400", "replicates=8", "snapshots={evenly: 20}")
LONGER = ("training.epochs=2000", *LONG[1:])  # a worker is at work long enough to be seen


@pytest.mark.slow
def test_killed_at_random_times_and_gone_on_with_is_the_unbroken_build(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, start: Callable[..., Any], tree_hash: Tree
) -> None:
    planned = make_plan(*LONG)
    recipe, out = tmp_path / "long.yaml", tmp_path / "zoo"
    recipe.write_text(json.dumps(planned.grid.document))
    wanted = tree_hash(build(planned, tmp_path / "unbroken", workers=0).root)
    draw = random.Random(1)
    deaths = 0
    while deaths < 10 and not (out / "manifest.json").exists():
        process = start(build_here, str(recipe), str(out))
        process.join(draw.uniform(0.2, 1.2))
        process.kill()
        process.join()
        deaths += process.exitcode == -signal.SIGKILL
    assert deaths >= 1
    build(planned, out, workers=0, checkpoint_every_s=0)
    assert tree_hash(out) == wanted


# ── through Ray ──


def children(pid: int) -> list[int]:
    """The processes that a process has started, and theirs, deepest last."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found: list[int] = []
    ahead = [pid]
    while ahead:
        found += (some := parents.get(ahead.pop(0), []))
        ahead += some
    return found


def workers_of(pid: int) -> list[int]:
    """Ray's worker processes under a driver that run a task of ours just now."""
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):
            if "_call" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


def wait_for(driver: subprocess.Popen[str], done: Callable[[subprocess.Popen[str]], Any]) -> None:
    """Until `done(driver)` is true or the driver has ended; a test in which neither comes fails."""
    last = time.monotonic() + MOST_S
    while driver.poll() is None and not done(driver):
        assert time.monotonic() < last, "the driver hangs"
        time.sleep(0.02)


@pytest.fixture
def on_ray(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m zoo_builder` with workers; what it leaves behind when killed is ended by number."""
    started: list[subprocess.Popen[str]] = []
    seen: set[int] = set()

    def begin(*arguments: Any, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "zoo_builder", *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**environment, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        process.note = lambda: seen.update(children(process.pid))  # type: ignore[attr-defined]
        return process

    yield begin
    for process in started:
        seen.update(children(process.pid))
        process.kill()
        process.communicate()
    for pid in seen:
        with contextlib.suppress(OSError):
            # A number may have gone to somebody else's process in the meantime.
            if "ray" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_one_worker_and_none_give_the_same_bytes(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, run_builder: Callable[..., Any], tree_hash: Tree
) -> None:
    for workers in (1, 2):
        out = tmp_path / str(workers)
        ended = run_builder("--grid", tiny_grid, "--out", out, "--workers", workers)
        assert ended.code == 0, ended.err
        assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("point", ["before_part", "after_part"])
def test_a_worker_killed_at_a_named_point_is_replaced_by_ray(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, run_builder: Callable[..., Any], tree_hash: Tree, point: str
) -> None:
    out = tmp_path / "zoo"
    fault = f"{point}:{tmp_path}"
    ended = run_builder("--grid", tiny_grid, "--out", out, "--workers", 2, ZOO_FAULT=fault)
    assert ended.code == 0, ended.err
    assert (tmp_path / point).exists()  # it did die
    assert tree_hash(out) == tree_hash(tiny_zoo)


# A worker's checkpoint is due every minute; this driver asks for one at every event.
CHECKPOINTING = """
import sys
from pathlib import Path
from zoo_builder import grid, plan
from zoo_builder.build import build
build(plan.plan(grid.load(sys.argv[1])), Path(sys.argv[2]), workers=1, checkpoint_every_s=0)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_killed_after_a_checkpoint_goes_on_from_it(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, environment: dict[str, str], tree_hash: Tree
) -> None:
    out = tmp_path / "zoo"
    command = [sys.executable, "-c", CHECKPOINTING, str(tiny_grid), str(out)]
    armed = {**environment, "ZOO_FAULT": f"after_checkpoint:{tmp_path}"}
    done = subprocess.run(command, env=armed, capture_output=True, text=True, timeout=MOST_S)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "after_checkpoint").exists()
    assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("point", ["before_commit", "after_commit", "before_manifest"])
def test_a_driver_killed_under_ray_goes_on_to_the_same_bytes(
    tiny_grid: Path, tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, on_ray: Callable[..., Any], tree_hash: Tree,
    point: str,
) -> None:  # fmt: skip
    out = tmp_path / "zoo"
    driver = on_ray("--grid", tiny_grid, "--out", out, "--workers", 2, ZOO_FAULT=f"{point}:{tmp_path}")
    wait_for(driver, lambda d: d.note())
    assert driver.returncode == -signal.SIGKILL
    build(tiny_plan, out, workers=0)
    assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_and_driver_killed_at_random_times_end_in_the_same_bytes(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, on_ray: Callable[..., Any], tree_hash: Tree
) -> None:
    planned = make_plan(*LONGER)
    recipe = tmp_path / "long.yaml"
    recipe.write_text(json.dumps(planned.grid.document))
    wanted = tree_hash(build(planned, tmp_path / "unbroken", workers=0).root)
    draw, out = random.Random(5), tmp_path / "zoo"
    arguments = ("--grid", recipe, "--out", out, "--workers", 2)
    killed = 0
    for life in range(3):
        driver = on_ray(*arguments)
        for _ in range(2):  # workers, at a drawn time after they were seen at work
            wait_for(driver, lambda d: workers_of(d.pid))
            time.sleep(draw.uniform(0.0, 0.4))
            driver.note()
            for pid in workers_of(driver.pid)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        if life < 2:  # then the driver; the third life goes on to the end
            time.sleep(draw.uniform(0.0, 0.8))
            driver.note()
            driver.kill()
        driver.communicate(timeout=MOST_S)
    assert killed >= 3
    assert driver.returncode == 0
    assert tree_hash(out) == wanted


@pytest.mark.ray
@pytest.mark.slow
def test_a_first_interrupt_drains_the_workers_and_the_next_run_goes_on(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, on_ray: Callable[..., Any], tree_hash: Tree
) -> None:
    """To the whole process group, as a terminal sends it."""
    planned = make_plan(*LONG)
    recipe = tmp_path / "long.yaml"
    recipe.write_text(json.dumps(planned.grid.document))
    out = tmp_path / "zoo"
    driver = on_ray("--grid", recipe, "--out", out, "--workers", 1)
    wait_for(driver, lambda d: workers_of(d.pid))
    driver.note()
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=MOST_S)
    assert driver.returncode == 130, err
    assert "finishing what is running" in err
    assert "error: Interrupted. What was finished is kept" in err
    commits = list((out / ".build" / "commits").glob("*.json"))
    assert 0 < len(commits) < len(planned.cohorts)
    assert not (out / ".build" / "failed").exists()
    assert tree_hash(build(planned, out, workers=0).root) == tree_hash(build(planned, tmp_path / "u", workers=0).root)
