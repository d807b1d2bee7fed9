"""What `zoo_builder.executor` promises: the same outcomes here and through Ray, and quick refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from zoo_builder import executor
from zoo_datasets.core import meters
from zoo_datasets.errors import BuildError

MOST_S = 240  # ends what hangs; no promise about time


def halve(item: int, shared: dict[str, int]) -> float:
    if item < 0:
        raise ValueError(f"{item} is negative")
    return item / shared["by"]


def test_in_process_gives_outcomes_in_order() -> None:
    pool = executor.InProcess(halve, {"by": 2})
    assert pool.wait(0) == []
    for item in (4, 6):
        pool.submit(item)
    assert [pool.wait(0)[0].value for _ in range(2)] == [2.0, 3.0]
    assert pool.wait(0) == []


def test_an_exception_is_an_outcome_with_its_traceback() -> None:
    pool = executor.InProcess(halve, {"by": 2})
    pool.submit(-1)
    pool.submit(2)
    (failed,) = pool.wait(0)
    assert (failed.item, failed.value, str(failed.error)) == (-1, None, "-1 is negative")
    assert "in halve" in failed.trace
    assert pool.wait(0)[0].value == 1.0


def test_a_keyboard_interrupt_is_no_outcome() -> None:
    def stop(item: Any, shared: Any) -> None:
        raise KeyboardInterrupt

    pool = executor.InProcess(stop, None)
    pool.submit(1)
    with pytest.raises(KeyboardInterrupt):
        pool.wait(0)


def test_closing_forgets_what_waits() -> None:
    pool = executor.InProcess(halve, {"by": 2})
    pool.submit(1)
    pool.close()
    assert pool.wait(0) == []


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_refused_before_ray_is_asked(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{closed_port()}")
    with pytest.raises(
        BuildError, match=r"No Ray cluster answers at RAY_ADDRESS=.*Connection refused.*unset RAY_ADDRESS"
    ):
        executor.OnRay(halve, {}, None)


def test_an_address_that_listens_passes_the_first_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        executor._check_alive(f"127.0.0.1:{server.getsockname()[1]}")


LONG = "/tmp/" + "a_folder_with_a_name_too_long_for_a_socket_" * 2


@pytest.mark.parametrize("folder", [LONG, "/nowhere", "", "relative"])
def test_where_no_folder_takes_sockets_training_runs_here_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(executor, "PLACES", ("/nowhere/else",))
    pool = executor.open_executor(halve, {"by": 2}, 2)
    assert isinstance(pool, executor.InProcess)
    assert f"neither {folder!r} nor /nowhere/else is one, so training runs in this process" in caplog.text


# A /dev without shm, for this process and its children alone. The real devices are bound in.
WITHOUT_SHM = """
set -e
new=$1; shift
mount -t tmpfs none "$new"
for device in null zero random urandom; do touch "$new/$device"; mount --bind "/dev/$device" "$new/$device"; done
mount --rbind "$new" /dev
exec "$@"
"""


def alone(*command: str) -> list[str]:
    """The command in a mount namespace of its own; skips the test where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no `unshare` to hide a folder with")
    inside = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--mount", "--map-root-user"]
    if subprocess.run([*inside, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    return [*inside, *command]


@pytest.mark.slow
def test_without_shared_memory_training_runs_in_process_and_says_so(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, environment: dict[str, str], tree_hash: Callable[..., Any]
) -> None:
    (tmp_path / "dev").mkdir()
    arguments = [sys.executable, "-m", "zoo_builder", "--grid", str(tiny_grid), "--out", str(tmp_path / "zoo")]
    command = alone("sh", "-c", WITHOUT_SHM, "sh", str(tmp_path / "dev"), *arguments)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MOST_S)
    assert (done.returncode, "no /dev/shm" in done.stderr) == (0, True), done.stderr
    assert "in this process" in done.stderr
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)


# ── Ray ──

# Run in a process of its own: Ray leaves threads and settings behind.
ON_RAY = """
import errno, json, os, sys
from zoo_builder import executor

def work(item, shared):
    if item == "negative":
        raise ValueError("it is negative")
    if item == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if item == "array":
        return float(shared["array"].sum())
    return item * shared["by"]

import numpy as np
shared = {"by": 3, "array": np.arange(10.0)}
items = [1, 2, "negative", "full", "array"]

def outcomes(pool):
    for item in items:
        pool.submit(item)
    found = []
    while len(found) < len(items):
        found += pool.wait(1.0)
    pool.close()
    return {str(o.item): [o.value, type(o.error).__mro__[-4].__name__ if o.error else None, str(o.error),
                          getattr(o.error, "errno", None), "in work" in o.trace] for o in found}

here = outcomes(executor.InProcess(work, shared))
on_ray = outcomes(executor.OnRay(work, shared, 1))
try:
    executor.OnRay(work, shared, 1, gpus=1000.0)
    gpu = "accepted"
except executor.BuildError as error:
    gpu = str(error)
print(json.dumps([here, on_ray, gpu]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_build_that_is_stopped_before_ray_runs_says_so(
    tiny_grid: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "zoo"
    command = [
        sys.executable,
        "-m",
        "zoo_builder",
        "--grid",
        str(tiny_grid),
        "--out",
        str(out),
        "--workers",
        "2",
        "--quiet",
    ]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as building:
        until = time.monotonic() + MOST_S
        while not (out / ".build" / "recipe.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)  # Ray is about to start, and has no handler of its own yet
        building.send_signal(signal.SIGTERM)
        _, said = building.communicate(timeout=MOST_S)
    assert building.returncode == 130, said
    assert "kept; the same command goes on from there" in said


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gives_the_outcomes_of_in_process_and_refuses_gpus_it_lacks(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", ON_RAY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MOST_S)
    assert done.returncode == 0, done.stderr
    here, on_ray, gpu = json.loads(done.stdout.splitlines()[-1])
    for item, (value, _, text, number, traced) in here.items():
        assert on_ray[item][0] == value
        assert on_ray[item][3:] == [number, traced]
        assert text.split("] ")[-1] in on_ray[item][2]
    assert gpu == "Each worker needs 1000 GPU, the Ray cluster has 0. Use --device cpu."


# One task on a cluster of our own: which executor it was, and the niceness of its worker.
ONE_TASK = """
import os
from zoo_builder import executor
def work(item, shared): return os.nice(0)
pool = executor.open_executor(work, {}, 1)
pool.submit(1)
outcomes = []
while not outcomes: outcomes = pool.wait(1.0)
pool.close()
print(type(pool).__name__, outcomes[0].value)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("case", ["too long", "not writable", "of a dead cluster"])
def test_ray_starts_where_the_temporary_folder_does_not_serve(
    case: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    variable = "/proc/self" if case == "not writable" else str(folder)
    with tempfile.TemporaryDirectory(prefix="wz-", dir="/tmp") as short:
        if case == "of a dead cluster":  # Ray's address file names a cluster that ran here once
            (Path(short) / "ray").mkdir()
            (Path(short) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
            variable = short
        done = subprocess.run(
            [sys.executable, "-c", ONE_TASK], env={**environment, "TMPDIR": variable}, capture_output=True, text=True,
            timeout=MOST_S,
        )  # fmt: skip
    assert done.stdout.split() == ["OnRay", str(os.nice(0))], done.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("address", ["auto", "nowhere"])
def test_an_address_without_a_cluster_is_refused(environment: dict[str, str], address: str) -> None:
    code = (
        "from zoo_builder import executor\ntry: executor.OnRay(len, {}, 1)\nexcept executor.BuildError as e: print(e)"
    )
    more = {"RAY_ADDRESS": address, "HOME": environment.get("HOME", "/tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **more}, capture_output=True, text=True, timeout=MOST_S
    )
    assert f"No Ray cluster answers at RAY_ADDRESS={address}" in done.stdout, done.stderr


# A cluster of two nodes on this machine; then the builder on it, and again where its disk is not the driver's.
ON_A_CLUSTER = """
import json, os, secrets, subprocess, sys
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
try:
    said = []
    for command in json.loads(sys.argv[1]):
        done = subprocess.run(command, env={**os.environ, "RAY_ADDRESS": cluster.address}, capture_output=True, text=True)
        said.append([done.returncode, done.stderr])
finally:
    cluster.shutdown()
print(json.dumps(said))
"""
OTHER_DISK = 'mount -t tmpfs none "$1"; shift; exec "$@"'


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_exists_gives_the_same_bytes_if_its_disk_is_the_drivers(
    tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, environment: dict[str, str], tree_hash: Callable[..., Any]
) -> None:
    (tmp_path / "other").mkdir()
    builder = [sys.executable, "-m", "zoo_builder", "--grid", str(tiny_grid), "--out"]
    apart = alone("sh", "-c", OTHER_DISK, "sh", str(tmp_path / "other"), *builder, str(tmp_path / "other" / "zoo"))
    commands = json.dumps([[*builder, str(tmp_path / "zoo")], apart])
    done = subprocess.run(
        [sys.executable, "-c", ON_A_CLUSTER, commands], env=environment, capture_output=True, text=True, timeout=MOST_S
    )
    assert done.returncode == 0, done.stderr
    (shared, said), (unshared, refusal) = json.loads(done.stdout.splitlines()[-1])
    assert shared == 0, said
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)
    assert unshared == 1, refusal
    assert "the output folder must be on a disk that all nodes of the cluster share" in refusal


# ── how far an item is ──


def halve_and_tell(item: int, shared: dict[str, Any]) -> list[float]:
    """Tells three amounts; what the driver knows after each."""
    seen = []
    for amount in (1, 5, item):
        meters.tell(amount)
        seen.append(shared["under_way"]())
    return seen


def test_in_process_an_item_says_how_far_it_is() -> None:
    shared: dict[str, Any] = {}
    pool = executor.InProcess(halve_and_tell, shared)
    shared["under_way"] = pool.under_way
    pool.submit(9)
    assert pool.under_way() == 0
    assert pool.wait(0)[0].value == [1, 5, 9]
    assert pool.under_way() == 0


@pytest.mark.parametrize("name", ["RAY_worker_niceness", "RAY_task_oom_retries"])
def test_a_number_of_rays_that_is_none_is_said(name: str) -> None:
    """Ray itself ends in a segmentation fault."""
    with (
        mock.patch.dict(os.environ, {name: "abc"}),  # what is set for Ray goes again
        pytest.raises(executor.BuildError, match=f"{name}='abc': Ray needs a whole number there"),
    ):
        executor.OnRay(print, {}, 1)


# Workers that wait until the driver has heard of both; in a process of its own, whose functions Ray takes along.
TOLD = """
import os, sys, time
from pathlib import Path
from zoo_builder import executor
from zoo_datasets.core import meters

def tell_and_wait(item, shared):
    meters.tell(item)
    while not os.path.exists(shared):
        os.sched_yield()

here, most_s = Path(sys.argv[1]), float(sys.argv[2])
pool = executor.OnRay(tell_and_wait, str(here / "go"), 2, folder=here / "beats")
try:
    pool.submit(3)
    pool.submit(4)
    deadline, errors = time.monotonic() + most_s, []
    while (seen := pool.under_way()) < 7 and time.monotonic() < deadline:
        errors += [o.error for o in pool.wait(0.1)]
    print(seen, errors)
    (here / "go").touch()
    while pool.pending:
        pool.wait(1)
    print(pool.under_way(), list((here / "beats").iterdir()))
finally:
    pool.close()
print((here / "beats").exists())
"""


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_ray_say_how_far_they_are(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", TOLD, str(tmp_path), "60"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MOST_S)
    assert done.stdout.splitlines() == ["7.0 []", "0 []", "False"], done.stderr
