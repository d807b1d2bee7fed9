"""Grid → sealed zoo: the pipeline as one sentence.

    plan the cohorts → train what has no commit → commit in the driver → seal

Nothing is lost and nothing is done twice: a build that was killed anywhere, or ran out of
disk, goes on from its commits and ends in the same bytes. The driver holds a lock on the
output and is the only one that commits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from zoo_builder import executor, worker
from zoo_builder.engines import devices
from zoo_builder.plan import Plan
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.recipe import document
from zoo_builder.sealing import earlier, parts, seal
from zoo_builder.training import fingerprint
from zoo_datasets.core import files, meters, records
from zoo_datasets.errors import BuildError, FormatVersionError, IntegrityError, InterruptedBuildError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths

log = logging.getLogger("zoo_builder")
# What an output may refuse, whatever is written, and the way out. The next cohort would be trained for nothing.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EROFS: "make the folder writable",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.EIO: "look after the disk",
    errno.ENAMETOOLONG: "move the folder to a shorter path",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENFILE: "close other programs' files",
}
# These say something of the output only where they name a file of it: somebody took it away.
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENXIO, errno.ENODEV}
LOCK_TRIES = 20  # in a second
_Taken = Mapping[str, Mapping[int, earlier.Earlier]]  # by cohort and place, models that other zoos have


@dataclasses.dataclass
class BuildProgress:
    """Counts for whoever watches: models, and the steps of those that are done."""

    total: int
    done: int = 0
    failed: int = 0
    diverged: int = 0
    resumed: int = 0
    steps: int = 0


def build(
    planned: Plan,
    out: Path,
    *,
    workers: int | None = None,
    earlier_zoos: Sequence[Path] = (),
    checkpoint_every_s: float = worker.CHECKPOINT_EVERY_S,
    report: Callable[[BuildProgress], None] = lambda progress: None,
) -> ZooPaths:
    """Build, or go on building, the zoo of a plan in the folder `out`; its paths when sealed.

    `workers` 0 trains in this process; None takes one worker per core (or GPU). Models that `earlier_zoos` have
    too are taken from there: the zoo comes out as if they had been trained here. Raises
    BuildError where the folder holds another recipe, is locked, the disk is full, cohorts
    failed, or the build was interrupted; the next call goes on. Also where no earlier zoo has a model of the plan.
    """
    paths = ZooPaths(out)
    _refuse_name(paths)
    _refuse_other(paths, planned)
    if paths.manifest.exists() and not paths.recipe.exists():
        _refuse_incomplete(paths)
        log.info("%s is sealed already", out)
        return paths
    taken = _taken(planned, earlier_zoos) if earlier_zoos else {}
    try:
        paths.build.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"Cannot write to {out}: {error.strerror}. Choose another folder with --out.") from None
    try:
        with _lock(paths):
            _refuse_other(paths, planned)
            if paths.manifest.exists():
                if _is_sealed(paths, planned):  # killed in the clean-up, or finished by somebody else just now
                    seal.finish(paths)
                    return paths
                paths.damaged.mkdir(parents=True, exist_ok=True)
                paths.manifest.replace(paths.damaged / paths.manifest.name)
            files.write_json(paths.recipe, planned.identity)
            records = _train_missing(paths, planned, workers, taken, checkpoint_every_s, report)
            for scratch in paths.root.glob(f"{files.SCRATCH}*"):
                scratch.unlink()  # of a killed driver; else it would be sealed with the zoo
            seal.seal(paths, planned, records, _fingerprints(paths, planned, workers))
    except OSError as error:
        if not _of_output(error, paths):
            raise
        raise BuildError(_disk_message(paths, error)) from error
    return paths


def _refuse_name(paths: ZooPaths) -> None:
    """Raises BuildError where sealing would fail, when all is trained: a path that is no UTF-8, private folders that are links."""
    try:
        str(paths.root.absolute()).encode()
    except UnicodeEncodeError:
        raise BuildError(
            f"{str(paths.root)!r} is no UTF-8, and Arrow cannot write there. Choose another folder with --out."
        ) from None
    for folder in (paths.build, paths.parts, paths.commits, paths.checkpoints):
        if folder.is_symlink():
            raise BuildError(
                f"{folder} is a symbolic link, and a zoo holds plain files only. Remove it; to build on another disk, build there with "
                "--out and move the zoo when it is sealed."
            )


def _refuse_incomplete(paths: ZooPaths) -> None:
    """Raises BuildError where a sealed zoo lacks files, or has them in other sizes: to say that it is there would be false."""
    try:
        manifest = Manifest.read(paths.root)
        for file in manifest.files.values():
            file.find(paths.root)
    except (IntegrityError, FormatVersionError) as error:
        raise BuildError(
            f"{paths.root} was sealed, and is not whole any more: {error} Remove the folder and run the same command again, or build "
            "into another one with --out."
        ) from None


def _refuse_other(paths: ZooPaths, planned: Plan) -> None:
    """Raises BuildError where the folder belongs to another recipe: it is never overwritten."""
    try:
        theirs = json.loads(paths.recipe.read_bytes())
    except FileNotFoundError:
        if paths.manifest.exists():
            theirs = _sealed_identity(paths)
        elif paths.root.is_dir() and any(p.name != ".build" for p in paths.root.iterdir()):
            raise BuildError(f"{paths.root} holds other files and no zoo. Choose an empty folder with --out.") from None
        else:
            return
    except ValueError:
        if not paths.manifest.exists():
            return  # a power cut in the very first write; nothing was built yet
        theirs = _sealed_identity(paths)
    except OSError as error:  # a file of that name, or a folder that is not ours to read
        raise BuildError(f"Cannot use {paths.root}: {error.strerror}. Choose another folder with --out.") from None
    ours = planned.identity
    if theirs != ours:
        raise BuildError(
            f"{paths.root} holds the zoo of another recipe: {document.difference(ours, theirs)}. "
            "Build into another folder with --out, or remove that one yourself."
            + (
                f" Models that both have are not trained again with --from {paths.root}."
                if paths.manifest.exists()
                else ""
            )
        )


def _is_sealed(paths: ZooPaths, planned: Plan) -> bool:
    """Whether the manifest is of this recipe and every file it seals is whole; only then may private parts go."""
    try:
        manifest = Manifest.read(paths.root)
        if records.encode(manifest.identity) != planned.identity:
            raise IntegrityError(f"{paths.manifest} is of another recipe.")
        for file in manifest.files.values():
            file.verify(paths.root)
    except (IntegrityError, FormatVersionError) as error:
        log.warning("%s It is set aside, and the build goes on from its commits.", error)
        return False
    return True


def _sealed_identity(paths: ZooPaths) -> Any:
    try:
        return records.encode(Manifest.read(paths.root).identity)
    except IntegrityError:
        raise BuildError(
            f"{paths.manifest} is damaged, or no zoo's. Choose another folder with --out, or remove that one yourself."
        ) from None


def _take(file: IO[str]) -> None:
    """Lock the file; tried for a second, since `status` looks by holding it for a moment. Raises BlockingIOError, OSError."""
    for attempt in range(LOCK_TRIES):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 == LOCK_TRIES:
                raise
            time.sleep(1 / LOCK_TRIES)


@contextlib.contextmanager
def _lock(paths: ZooPaths) -> Iterator[None]:
    """Hold the output; the kernel lets go of the lock when the process dies."""
    with paths.lock.open("a+") as file:
        try:
            _take(file)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise BuildError(f"{paths.root} is being built by process {owner}. Wait for it, or end it.") from None
        except OSError as error:
            raise BuildError(
                f"Cannot lock {paths.lock}: {error.strerror}. Choose a folder on a disk with file locks with --out."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def committed(paths: ZooPaths, cohort: Cohort) -> parts.Record | None:
    """The record of a finished cohort; a damaged one is set aside and counts as missing."""
    try:
        return parts.read_commit(paths, cohort.id)
    except IntegrityError as error:
        log.warning("%s It is trained again.", error)
        parts.set_aside(paths, cohort.id)
        return None


def _train_missing(
    paths: ZooPaths, planned: Plan, workers: int | None, taken: _Taken, checkpoint_every_s: float,
    report: Callable[[BuildProgress], None],
) -> dict[str, parts.Record]:  # fmt: skip
    """Every cohort's record, in plan order, after training what had none."""
    there = {p.stem for p in paths.commits.glob("*.json")}
    kept = [c for c in planned.cohorts if c.id in there]
    looked = meters.over(kept, "looking at what was finished", "cohorts")
    records = {c.id: r for c in looked if (r := committed(paths, c)) is not None}
    progress = BuildProgress(len(planned.runs))
    progress.done = progress.resumed = sum(len(r.models) for r in records.values())
    progress.diverged = sum(_diverged(r) for r in records.values())
    progress.steps = sum(sum(c.steps) for c in planned.cohorts if c.id in records)
    report(progress)
    missing = [c for c in planned.cohorts if c.id not in records]
    shutil.rmtree(paths.failed, ignore_errors=True)
    if missing:
        with _executor(planned, workers, paths) as pool, _Interrupt() as interrupt:
            parents, root = (str(planned.parents.root) if planned.parents else None), str(paths.root.absolute())
            tasks = [worker.Task(c, root, checkpoint_every_s, parents, taken.get(c.id, {})) for c in missing]
            with meters.track("training", progress.steps + sum(sum(c.steps) for c in missing), "steps") as meter:
                meter.skip(progress.steps)
                meter.also, meter.note = pool.under_way, _note(progress)

                def told(progress: BuildProgress) -> None:
                    meter.done, meter.note = progress.steps, _note(progress)
                    report(progress)

                _drive(paths, pool, tasks, records, progress, told, interrupt)
    by_name: dict[str, set[str]] = {}
    for record in records.values():
        by_name.setdefault(record.engine["name"], set()).add(record.engine["version"])
    for versions in by_name.values():
        if len(versions) > 1:
            log.warning(
                "models were trained by %s: such a zoo cannot be built again bit for bit",
                " and ".join(sorted(versions)),
            )
    return {c.id: records[c.id] for c in planned.cohorts}


def _fingerprints(paths: ZooPaths, planned: Plan, workers: int | None) -> list[dict[str, Any]] | None:
    """Those that workers make, where this machine has no such device; else None, and sealing makes them. Raises BuildError."""
    some = fingerprint.chosen(planned.cohorts)
    if all(devices.here(c.device) for c in some):
        return None
    parents, found = (str(planned.parents.root) if planned.parents else None), {}
    with _executor(planned, workers, paths, worker.fingerprinted) as pool:
        waiting = [worker.Task(c, str(paths.root.absolute()), parents=parents) for c in some]
        running = 0
        while waiting or running:
            while waiting and running < pool.window:
                pool.submit(waiting.pop(0))
                running += 1
            for outcome in pool.wait(0.5):
                running -= 1
                if outcome.error is not None:
                    raise BuildError(
                        f"The fingerprint of cohort {outcome.item.cohort.id[:16]} failed: {outcome.error!r}. All is trained; the same "
                        "command goes on from there."
                    ) from outcome.error
                found[outcome.item.cohort.id] = outcome.value
    return [found[c.id] for c in some]


def _taken(planned: Plan, zoos: Sequence[Path]) -> _Taken:
    """By cohort and place the models that are in other zoos. Raises BuildError where these have none of the plan."""
    there = earlier.Zoos(zoos)
    taken = {c.id: found for c in planned.cohorts if (found := there.of(c))}
    names, count = ", ".join(map(str, zoos)), sum(map(len, taken.values()))
    if not count:
        raise BuildError(
            f"None of the {len(planned.runs):,} models of this plan can be taken from {names}. {there.why_not(planned.cohorts)} "
            "Leave out --from to train all."
        )
    log.info("%d of %d models are taken from %s, not trained again", count, len(planned.runs), names)
    return taken


def _note(progress: BuildProgress) -> str:
    counts = {"failed": progress.failed, "diverged": progress.diverged}
    return ", ".join(
        [f"{progress.done:,} of {progress.total:,} models", *(f"{n:,} {what}" for what, n in counts.items() if n)]
    )


def _drive(
    paths: ZooPaths, pool: executor.Executor, tasks: list[worker.Task], records: dict[str, parts.Record],
    progress: BuildProgress, report: Callable[[BuildProgress], None], interrupt: _Interrupt,
) -> None:  # fmt: skip
    waiting = iter(tasks)
    running = 0
    failed: list[str] = []
    disk: OSError | None = None
    while True:
        while running < pool.window and not interrupt.draining and disk is None:
            task = next(waiting, None)
            if task is None:
                break
            pool.submit(task)
            running += 1
        if not running:
            break
        for outcome in pool.wait(0.5):
            running -= 1
            cohort = outcome.item.cohort
            try:
                if outcome.error is not None:
                    raise outcome.error
                _commit(paths, outcome.value, records)
                progress.done += len(cohort.runs)
                progress.steps += sum(cohort.steps)
                progress.diverged += _diverged(records[cohort.id])
            except Exception as error:
                if isinstance(error, OSError) and _of_output(error, paths):
                    disk = disk or error
                else:
                    failed.append(cohort.id)
                    progress.failed += len(cohort.runs)
                    _record_failure(paths, cohort, error, outcome.trace)
            report(progress)
    if disk is not None:
        raise BuildError(_disk_message(paths, disk)) from disk
    if interrupt.draining:
        raise InterruptedBuildError("Interrupted. What was finished is kept; the same command goes on from there.")
    if failed:
        raise BuildError(
            f"{len(failed)} of {len(tasks)} cohorts failed ({progress.failed} models). Tracebacks are in {paths.failed}; "
            "the other cohorts are kept, and the same command tries the failed ones again."
        )


def _commit(paths: ZooPaths, done: worker.Done, records: dict[str, parts.Record]) -> None:
    if (
        not paths.recipe.exists()
    ):  # somebody took the folder away, and the worker made it anew without what was finished
        raise FileNotFoundError(errno.ENOENT, "the folder was removed while it was built", str(paths.recipe.absolute()))
    parts.commit(paths, done.record)
    records[done.record.cohort_id] = done.record
    paths.checkpoint(done.record.cohort_id).unlink(missing_ok=True)
    line = {"cohort_id": done.record.cohort_id, "models": len(done.record.models), "seconds": round(done.seconds, 3)}
    with paths.log.open("a") as file:
        file.write(json.dumps({**line, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}) + "\n")


def _diverged(record: parts.Record) -> int:
    return sum(m["diverged_step"] is not None for m in record.models)


def _record_failure(paths: ZooPaths, cohort: Cohort, error: Exception, trace: str) -> None:
    log.error("cohort %s failed: %s: %s", cohort.id[:16], type(error).__name__, error)
    files.write_json(
        paths.failed / f"{cohort.id}.json",
        {"cohort_id": cohort.id, "runs": [r.id for r in cohort.runs], "error": f"{type(error).__name__}: {error}",
         "traceback": trace},
    )  # fmt: skip


def _of_output(error: OSError, paths: ZooPaths) -> bool:
    """Whether the output takes no more files, so that there is no use in going on."""
    if error.errno in _REMEDIES:
        return True
    if error.errno not in _GONE:
        return False
    # Arrow names no file: then what is gone is of the output where a folder of it is.
    return str(error.filename).startswith(str(paths.root.absolute())) if error.filename else not paths.recipe.exists()


def _disk_message(paths: ZooPaths, error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0, "bring the folder back")
    return (
        f"Cannot write to {paths.root}: {error.strerror}. What was finished is kept; {remedy} and run the same "
        "command again."
    )


@contextlib.contextmanager
def _executor(
    planned: Plan, workers: int | None, paths: ZooPaths, work: executor.Work = worker.train_cohort
) -> Iterator[executor.Executor]:
    gpus = devices.gpus_per_worker(workers) if workers != 0 and planned.cohorts[0].device == "cuda" else 0.0
    workers = workers and min(workers, len(planned.cohorts))  # more would start, and have nothing to do
    pool = executor.open_executor(work, planned.sources, workers, gpus, paths.beats.absolute())
    try:
        yield pool
    finally:
        pool.close()


class _Interrupt:
    """First Ctrl-C (or SIGTERM): finish what runs, start nothing new. Second: stop now."""

    def __init__(self) -> None:
        self.draining = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        with contextlib.suppress(ValueError):  # not in the main thread: signals are somebody else's
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.draining:
            raise KeyboardInterrupt
        self.draining = True
        log.warning("finishing what is running; once more stops at once")

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
