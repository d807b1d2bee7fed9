"""Items → outcomes: one interface, in this process or through Ray, with the same results.

`submit` hands over an item, `wait` gives back what is finished; the work itself is one
function of (item, shared data). This is the only file that imports Ray.

Ray runs plain tasks on long-lived worker processes: a lost worker or node is retried by
Ray itself; an exception is not, it comes back as an outcome. Where Ray cannot start a cluster
of its own on this machine, `open_executor` says why and gives the one in this process.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from zoo_builder.engines import devices
from zoo_datasets.core import files, meters
from zoo_datasets.errors import BuildError

log = logging.getLogger("zoo_builder")
RETRIES = 3  # of a lost worker or node; enough for preemption, few enough to show a task that kills its worker
BEAT_EVERY_S = 2.0  # at most so often a worker says how far it is
CONNECT_S = 3.0  # a dead address otherwise hangs for minutes
# A socket's path has at most 107 bytes (man 7 unix); Ray adds `/ray/session_<time>_<pid>/sockets/plasma_store`.
MOST_PLACE_BYTES = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # where the system's own temporary folder does not serve
Work = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an item: a value, or an error with its traceback as text."""

    item: Any
    value: Any = None
    error: BaseException | None = None
    trace: str = ""


class Executor(Protocol):
    """Runs `work(item, shared)` for items, of which `window` may be handed over at a time."""

    window: int

    def submit(self, item: Any) -> None: ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """What finished since the last call; waits up to that long for the first."""
        ...

    def under_way(self) -> float:
        """What the items that run have told of themselves (`meters.tell`), added up."""
        ...

    def close(self) -> None: ...


class InProcess:
    """One item at a time, here: `wait` runs the next. For tests, tiny jobs and `--workers 0`."""

    window = 1

    def __init__(self, work: Work, shared: Any) -> None:
        self.work, self.shared = work, shared
        self.items: collections.deque[Any] = collections.deque()
        self.told = 0.0

    def submit(self, item: Any) -> None:
        self.items.append(item)

    def wait(self, timeout_s: float) -> list[Outcome]:
        if not self.items:
            return []
        item = self.items.popleft()
        try:
            with meters.listening(self._hear):
                return [Outcome(item, self.work(item, self.shared))]
        except Exception as error:
            return [Outcome(item, error=error, trace=traceback.format_exc())]
        finally:
            self.told = 0.0

    def _hear(self, amount: float) -> None:
        self.told = amount

    def under_way(self) -> float:
        return self.told

    def close(self) -> None:
        self.items.clear()


def open_executor(
    work: Work, shared: Any, workers: int | None, gpus: float = 0.0, folder: Path | None = None
) -> Executor:
    """Ray with that many workers; this process for 0 of them, or where Ray cannot start here, which is said.

    In `folder`, which is theirs alone and which driver and workers share, workers leave how far they are.

    Raises BuildError as `OnRay` does.
    """
    if workers == 0:
        return InProcess(work, shared)
    try:
        return OnRay(work, shared, workers, gpus, folder)
    except NoRayHereError as error:
        log.warning("%s, so training runs in this process, one cohort at a time", error)
        return InProcess(work, shared)


class NoRayHereError(Exception):
    """This machine has no room for a Ray cluster of our own; the text is a clause that says why."""


class OnRay:
    """A local cluster of `workers` processes, or the one at RAY_ADDRESS.

    `gpus` is the part of a GPU each task gets (0: none). Raises BuildError where the
    address is dead or the cluster has no such resources, NoRayHereError where a cluster of
    our own cannot start.
    """

    def __init__(
        self, work: Work, shared: Any, workers: int | None, gpus: float = 0.0, folder: Path | None = None
    ) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if address:
            _check_alive(address)
        else:
            # Our own loopback cluster: a token of this run's own in the environment keeps
            # Ray's authentication on and writes nothing to HOME, which may be read-only.
            place = _place()
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            # Training is what the user asked this machine for: Ray's default of 15 would starve it.
            _set_number("RAY_worker_niceness", "0")
            # One kill for want of memory comes back to us, who say so; by default Ray retries for ever, without a word.
            _set_number("RAY_task_oom_retries", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray announces a change of default for GPU-less tasks on every start otherwise.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            if not address:
                raise NoRayHereError("Ray is not installed (pip install ray)") from error
            raise BuildError(f"RAY_ADDRESS={address} needs Ray, which is not installed: pip install ray.") from None
        self.ray = ray
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if address:
            options = {
                "address": address,
                "log_to_driver": False,
                "logging_level": "ERROR",
                "runtime_env": {"py_modules": _our_packages(self._staging())},
            }
        else:
            # "local": a cluster of others on this machine, running or dead, is none of our business.
            options |= {"address": "local", "num_cpus": workers or devices.cores()}
            if place is not None:
                options["_temp_dir"] = str(Path(place) / "ray")
        ours = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except SystemExit as stopped:  # Ray's own handler of SIGTERM, which it installs on the way
            ray.shutdown()
            raise KeyboardInterrupt from stopped
        except Exception as error:  # Ray raises plain ones too: "The current node timed out during startup"
            if not address:
                ray.shutdown()
                raise NoRayHereError(_reason(error)) from error
            if isinstance(error, (ConnectionError, ValueError)):
                raise BuildError(_no_cluster(address, error)) from None
            raise
        finally:
            if ours is not None:  # else not Python's
                with contextlib.suppress(ValueError):  # not in the main thread, where Ray installs none either
                    signal.signal(signal.SIGTERM, ours)
        try:
            total = ray.cluster_resources()
            cpus, cards = int(total.get("CPU", 0)), total.get("GPU", 0.0)
            if gpus and cards < gpus:
                raise BuildError(f"Each worker needs {gpus:g} GPU, the Ray cluster has {cards:g}. Use --device cpu.")
            limit = int(cards / gpus) if gpus else cpus
            # One more waits, so that no worker is idle while the driver commits; not many
            # more, because a drain finishes them all.
            self.window = max(1, min(workers or limit, limit)) + 1
            # max_calls=0 keeps GPU workers alive: by default Ray restarts them for every task.
            self.task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, max_calls=0)(_call)
            self.shared = ray.put(shared)
            self.work = ray.put(work)
            self.pending: dict[Any, Any] = {}
            self.killed: dict[int, int] = {}  # id of an item → times it ended for want of memory
            self.beats, self.count = folder, 0
            self.beat_of: dict[Any, Path | None] = {}
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # of a driver that was killed
                folder.mkdir(parents=True, exist_ok=True)
            if address and folder is not None:
                self._probe(folder)
        except BaseException:
            ray.shutdown()
            raise

    def _staging(self) -> Path:
        self.staging = files.temporary("weightzoo-")
        return Path(self.staging.name)

    def _probe(self, folder: Path) -> None:
        """Every node must write where the driver reads: an unshared disk would lose the work."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [n for n in self.ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
        for node in nodes:
            word = secrets.token_hex(8)
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            remote = self.ray.remote(num_cpus=0, scheduling_strategy=strategy)(_write_word)
            try:
                self.ray.get(remote.remote(str(folder), word), timeout=60)
                found = (folder / f".probe-{word}").read_text() == word
            except (self.ray.exceptions.RayError, OSError):
                found = False
            (folder / f".probe-{word}").unlink(missing_ok=True)
            if not found:
                raise BuildError(
                    f"Node {node['NodeManagerHostname']} does not write to {folder}: the output folder must be on a "
                    "disk that all nodes of the cluster share."
                )

    def submit(self, item: Any) -> None:
        self.count += 1
        beat = None if self.beats is None else self.beats / str(self.count)
        ref = self.task.remote(self.work, item, self.shared, beat)
        self.pending[ref], self.beat_of[ref] = item, beat

    def under_way(self) -> float:
        return sum(_beat(path) for path in list(self.beat_of.values()) if path is not None)

    def wait(self, timeout_s: float) -> list[Outcome]:
        if not self.pending:
            return []
        done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=timeout_s)
        return [outcome for ref in done if (outcome := self._outcome(ref)) is not None]

    def _outcome(self, ref: Any) -> Outcome | None:
        """What became of an item; None where it was ended for want of memory and is tried again."""
        item = self.pending.pop(ref)
        beat = self.beat_of.pop(ref)
        if beat is not None:
            beat.unlink(missing_ok=True)
        try:
            return Outcome(item, self.ray.get(ref))
        except self.ray.exceptions.OutOfMemoryError as error:
            times = self.killed[id(item)] = self.killed.get(id(item), 0) + 1
            log.warning(
                "the machine ran short of memory, and Ray ended a worker (%d of %d times): fewer --workers take less",
                times, RETRIES + 1,
            )  # fmt: skip
            if times > RETRIES:
                return Outcome(item, error=error, trace=str(error))
            self.submit(item)
            return None
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            return Outcome(item, error=cause, trace=str(error))
        except self.ray.exceptions.RayError as error:
            return Outcome(item, error=error, trace=str(error))

    def close(self) -> None:
        for ref in self.pending:
            self.ray.cancel(ref, force=True)
        self.pending.clear()
        self.ray.shutdown()
        if self.beats is not None:
            shutil.rmtree(self.beats, ignore_errors=True)


def _our_packages(folder: Path) -> list[str]:
    """Copies of our packages for the nodes of a cluster, each whole in one folder.

    An editable install keeps the compiled kernels apart from the sources; Ray sends folders.
    """
    import zoo_builder
    import zoo_datasets

    copies = []
    for package in (zoo_builder, zoo_datasets):
        for part in package.__path__:
            ignored = shutil.ignore_patterns("__pycache__", "*.cpp", "*.h")
            shutil.copytree(part, folder / package.__name__, dirs_exist_ok=True, ignore=ignored)
        copies.append(str(folder / package.__name__))
    return copies


def _call(work: Work, item: Any, shared: Any, beat: Path | None) -> Any:
    if beat is None:
        return work(item, shared)
    last_s = -math.inf

    def hear(amount: float) -> None:
        nonlocal last_s
        now = time.monotonic()
        if now - last_s < BEAT_EVERY_S:
            return
        last_s = now
        with contextlib.suppress(OSError):  # a full disk is told by what cannot do without it
            beat.write_text(f"{amount:.0f}")

    with meters.listening(hear):
        return work(item, shared)


def _beat(path: Path) -> float:
    """How far a worker is; 0 where it has not said, or is just saying it."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0


def _write_word(folder: str, word: str) -> None:
    (Path(folder) / f".probe-{word}").write_text(word)


def _set_number(name: str, default: str) -> None:
    """Set a variable of Ray's unless the user did. Raises BuildError: on what is no number Ray crashes, without a word."""
    given = os.environ.setdefault(name, default)
    if not given.removeprefix("-").isdecimal():
        raise BuildError(f"{name}={given!r}: Ray needs a whole number there. Unset it, or use --workers 0.")


def _place() -> str | None:
    """A folder for Ray's sockets and logs where its own choice does not serve; None where it does.

    Raises NoRayHereError where no folder does, or the system has no shared memory.
    """
    if not os.path.isdir("/dev/shm") and os.uname().sysname == "Linux":
        raise NoRayHereError("there is no /dev/shm for Ray's object store")
    own = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", PLACES[0]))
    if _serves(own):
        return None
    place = next((p for p in PLACES if _serves(p)), None)
    if place is None:
        raise NoRayHereError(
            f"Ray needs a folder that can be written to, with a path of at most {MOST_PLACE_BYTES} bytes, and neither "
            f"{own!r} nor {', '.join(PLACES)} is one"
        )
    return place


def _serves(folder: str) -> bool:
    """Whether Ray's sockets fit into a folder, and it takes files."""
    if not os.path.isabs(folder) or len(os.fsencode(folder)) > MOST_PLACE_BYTES:
        return False
    try:
        with tempfile.TemporaryDirectory(prefix="weightzoo-", dir=folder):
            return True
    except OSError:
        return False


def _reason(error: BaseException) -> str:
    """The first line of what Ray said, as a clause."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"Ray cannot start on this machine ({first})"


def _check_alive(address: str) -> None:
    """Raises BuildError within seconds where nothing listens at a host:port."""
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" or "local": Ray itself answers at once
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise BuildError(_no_cluster(address, error.strerror or error)) from None


def _no_cluster(address: str, why: object) -> str:
    return (
        f"No Ray cluster answers at RAY_ADDRESS={address} ({str(why).rstrip('.')}). Start it, correct the address, or "
        "unset RAY_ADDRESS to use this machine."
    )
