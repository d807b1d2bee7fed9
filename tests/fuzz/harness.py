"""A border, seconds → what came of hostile inputs there: refused, held, broke.

A border is a file beside this one with two functions. `prepare(folder)` writes once what its
trials start from. `trial(rng, folder)` makes one hostile input out of `rng` alone and says
"refused" (our code raised a `ZooError`) or "held" (it was taken, and all that was done with it
worked). Whatever it raises is a break, and so are more than `MOST_S` seconds of the processor, more than
`MOST_MB` of memory above the start, a process that dies, and one that waits longer than `MOST_WAIT_S`.

Trials run in a process of their own, which is started again behind a trial that ended it. Trial
n of a border is the same everywhere: `python -m tests.fuzz BORDER --first n --trials 1` repeats it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO, Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MOST_S, MOST_WAIT_S = 30.0, 300.0  # of one trial: the processor's time, and by the clock of a machine however busy
MOST_MB = 1000.0
# What a trial may take before the system refuses it: a break is reported by its number and not by a dead machine.
LIMIT_MB = 3000
START_S = 900.0  # imports, and what `prepare` builds
OUTCOMES = ("refused", "held")


def borders() -> tuple[str, ...]:
    """The names of all borders."""
    named = {p.stem for p in HERE.glob("*.py")} - {"harness", "__main__", "test_fuzz"}
    return tuple(sorted(n for n in named if not n.startswith("_")))


@dataclasses.dataclass
class Tally:
    """What came of the trials of one border."""

    border: str
    refused: int = 0
    held: int = 0
    broke: list[str] = dataclasses.field(default_factory=list)  # the trial's number and what it raised
    most_s: float = 0.0  # of the processor, in one trial
    most_mb: float = 0.0  # above what the process took before its first trial

    @property
    def trials(self) -> int:
        return self.refused + self.held + len(self.broke)

    def __str__(self) -> str:
        return (
            f"| {self.border} | {self.trials:,} | {self.refused:,} | {self.held:,} | {len(self.broke)} | "
            f"{self.most_s:.1f} | {self.most_mb:.0f} |"
        )


HEAD = "| border | trials | refused | held | broke | longest, CPU-s | most memory, MB |\n|---|---:|---:|---:|---:|---:|---:|"


def run(border: str, seconds: float, first: int = 0, trials: int | None = None) -> Tally:
    """Trials `first`, `first` + 1, … of a border until `seconds` or `trials` are over."""
    tally = Tally(border)
    end = time.monotonic() + seconds
    last = None if trials is None else first + trials
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{border}-") as folder:
        number, prepared = first, False
        while (last is None or number < last) and (time.monotonic() < end or not prepared):
            number, prepared = _one_process(tally, Path(folder), number, last, end, prepared)
    return tally


def _one_process(
    tally: Tally, folder: Path, number: int, last: int | None, end: float, prepared: bool
) -> tuple[int, bool]:
    """The trial to go on with, after a process that ran until it died or time was over."""
    read, write = os.pipe()
    said = folder.parent / f"{folder.name}.said"
    command = [sys.executable, "-m", "tests.fuzz", "child", tally.border, str(folder), str(number), str(write)]
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    try:
        with os.fdopen(read, "rb", buffering=0) as pipe:
            lines = _Lines(pipe)
            if (line := lines.next(START_S)) is None:
                raise RuntimeError(f"{tally.border}: nothing was prepared\n{said.read_text(errors='replace')[-4000:]}")
            assert line == {"prepared": True}
            while (last is None or number < last) and time.monotonic() < end:
                line = lines.next(MOST_WAIT_S)
                if line is None:
                    tally.broke.append(f"trial {number} {_end(process)}: {said.read_text(errors='replace')[-1000:]}")
                    return number + 1, True
                _count(tally, number, line)
                number += 1
            return number, True
    finally:
        process.kill()
        process.wait()
        said.unlink()


def _end(process: subprocess.Popen[bytes]) -> str:
    try:
        return f"ended the process ({process.wait(1)})"  # its pipe closes a moment before it can be waited for
    except subprocess.TimeoutExpired:
        return "did not end"


def _count(tally: Tally, number: int, line: dict[str, Any]) -> None:
    assert line["number"] == number
    tally.most_s, tally.most_mb = max(tally.most_s, line["s"]), max(tally.most_mb, line["mb"])
    if line["outcome"] not in OUTCOMES:
        tally.broke.append(f"trial {number}: {line['outcome']}")
    elif line["s"] > MOST_S or line["mb"] > MOST_MB:
        tally.broke.append(f"trial {number} was {line['outcome']} after {line['s']:.1f} s and {line['mb']:.0f} MB")
    else:
        setattr(tally, line["outcome"], getattr(tally, line["outcome"]) + 1)


class _Lines:
    """Lines of JSON from a pipe, each awaited for a bounded time."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe, self.rest = pipe, b""

    def next(self, seconds: float) -> dict[str, Any] | None:
        """The next line, or None where none came in time or the other side is gone."""
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.pipe], [], [], max(0.0, end - time.monotonic()))
            if not ready or not (more := self.pipe.read(1 << 16)):
                return None
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)


# ── in the process of the trials ──


def child(border: str, folder: Path, number: int, pipe: int) -> None:
    """Run trials from `number` on, one line a trial into `pipe`, until the other side ends it."""
    sys.path.insert(0, str(HERE.parent))  # where the tests' own servers and fixtures lie
    module = importlib.import_module(f"tests.fuzz.{border}")
    marker = folder / ".prepared"
    if not marker.exists():
        module.prepare(folder)
        marker.touch()
    with os.fdopen(pipe, "w", encoding="utf-8") as out:
        _tell(out, prepared=True)
        start_mb = _memory_mb("VmRSS")
        data = _memory_mb("VmData")
        bound = int((data + LIMIT_MB) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        while True:
            _forget_peak()
            before = time.process_time()  # of all threads
            outcome = _trial(module, np.random.default_rng([*border.encode(), number]), folder)
            took = time.process_time() - before
            peak = _memory_mb("VmHWM") - start_mb
            _tell(out, number=number, outcome=outcome, s=took, mb=peak)
            number += 1


def _trial(module: Any, rng: np.random.Generator, folder: Path) -> str:
    try:
        return module.trial(rng, folder)
    except Exception:
        return traceback.format_exc()[-3000:]


def _tell(out: IO[str], **line: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        out.write(json.dumps(line) + "\n")
        out.flush()


def _memory_mb(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
