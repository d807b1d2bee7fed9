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
import json
import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_builder import executor, output, worker
from zoo_builder.engines import devices
from zoo_builder.plan import Plan
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.sealing import earlier, parts, seal
from zoo_builder.training import fingerprint
from zoo_datasets.core import files, meters
from zoo_datasets.errors import BuildError, IntegrityError, InterruptedBuildError
from zoo_datasets.format.paths import ZooPaths

log = logging.getLogger("zoo_builder")
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
    output.refuse_name(paths)
    output.refuse_other(paths, planned)
    if paths.manifest.exists() and not paths.recipe.exists():
        output.refuse_incomplete(paths)
        log.info("%s is sealed already", out)
        return paths
    taken = _taken(planned, earlier_zoos) if earlier_zoos else {}
    try:
        files.make_folder(paths.build)
    except OSError as error:
        raise BuildError(f"Cannot write to {out}: {error.strerror}. Choose another folder with --out.") from None
    try:
        with output.lock(paths):
            output.refuse_other(paths, planned)
            if paths.manifest.exists():
                if output.is_sealed(paths, planned):  # killed in the clean-up, or finished by somebody else just now
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
        if not output.is_of(error, paths):
            raise
        raise BuildError(output.message(paths, error)) from error
    return paths


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
                if isinstance(error, OSError) and output.is_of(error, paths):
                    disk = disk or error
                else:
                    failed.append(cohort.id)
                    progress.failed += len(cohort.runs)
                    _record_failure(paths, cohort, error, outcome.trace)
            report(progress)
    if disk is not None:
        raise BuildError(output.message(paths, disk)) from disk
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
