"""A command → its exit code: the frame of `python -m zoo_datasets` and `python -m zoo_builder`.

In:  what to run, and the exit code of each deliberate error.
Out: an exit code. Data went to stdout; an error is one line on stderr, and so is progress,
which reaches it through the package's log.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import zoo_datasets
from zoo_datasets.core import libraries, meters, plain_text
from zoo_datasets.errors import ZooError, shown

if TYPE_CHECKING:
    from zoo_datasets.core.report import Report

# Of a redirected stdout, whose errors name no file.
NO_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def run(
    call: Callable[[], int], code_of: Callable[[ZooError], int], *, log: logging.Logger, quiet: bool, stopped: str
) -> int:
    """The exit code of `call`, or of what ended it; `stopped` is said of Ctrl-C and SIGTERM, which are 130."""
    handler = _Handler()
    handler.setFormatter(_Shown(f"{log.name}: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    display = contextlib.nullcontext() if quiet else meters.shown(meters.Display(sys.stderr, f"{log.name}: "))
    try:
        with display, _terminable():
            code = call()
        if sys.stdout is not None:  # as it is where somebody closed it: `>&-`
            sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except ZooError as error:
        print(f"error: {plain_text.line(error)}", file=sys.stderr)
        return code_of(error)
    except ModuleNotFoundError as error:
        if libraries.missing(error) is None:
            raise
        print(f"error: {libraries.missing(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `… | head`: the reader has seen enough
        _say_no_more()
        return 1
    except OSError as error:
        if error.filename is not None:  # of a path that was given: it is too long, or not ours to enter
            what = f"{shown(error.filename)} cannot be used"
        elif error.errno in NO_OUTPUT:
            _say_no_more()
            what = "What is printed cannot be written"
        else:
            raise
        print(f"error: {plain_text.line(what)}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"error: Stopped. {stopped}.", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, by which schedulers stop a job, is as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # signals are somebody else's
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if before is not None:  # else not Python's
            signal.signal(signal.SIGTERM, before)


def say_in_any_encoding() -> None:
    """What the encoding of stdout or stderr lacks is written as Python writes it, like `\\u017c`; the command goes on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not None, where somebody closed it, nor what a program put there
            stream.reconfigure(errors="backslashreplace")


def _say_no_more() -> None:
    """The interpreter flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_version(parser: argparse.ArgumentParser, engine: Callable[[], str | None]) -> None:
    """`--version`: this library's, and whether its compiled engine is there; `engine` says why not, or None."""

    class Version(argparse.Action):
        def __call__(self, *_: object) -> None:
            missing = engine()  # asked here alone: help needs no kernels
            print(f"weightzoo {zoo_datasets.__version__}, {'with' if missing is None else 'without'} the native engine"
                  + ("" if missing is None else f": {missing}"))  # fmt: skip
            parser.exit()

    parser.add_argument(
        "--version", action=Version, nargs=0, help="say the version, and whether the native engine is there"
    )


def count(text: str) -> int:
    """A whole number from 1 on, as argparse reads it."""
    return _whole(text, 1)


def from_zero(text: str) -> int:
    """A whole number from 0 on, as argparse reads it."""
    return _whole(text, 0)


def seed(text: str) -> int:
    """What every library that draws takes as a seed."""
    return _whole(text, 0, 2**32 - 1)


def _whole(text: str, least: int, most: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is not at least {least}")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"{value} is more than {most}")
    return value


def say(value: object, end: str = "\n") -> None:
    """Print to stdout what may hold a stranger's text: it is shown, and never obeyed by the terminal."""
    print(plain_text.lines(value), end=end)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    def emit(self, record: logging.LogRecord) -> None:
        meters.erase()  # a bar that stands there is drawn again below
        super().emit(record)


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain_text.lines(super().format(record))


def tell(report: Report) -> int:
    """Print what a check found; the exit code: 1 where it found damage."""
    for line in report.lines:
        say(line)
    for warning in report.warnings:
        print(f"warning: {plain_text.line(warning)}", file=sys.stderr)
    for problem in report.problems:
        print(f"error: {plain_text.line(problem)}", file=sys.stderr)
    return 1 if report.problems else 0


def tell_loading(lines: str) -> None:
    """Print the lines that load a zoo, to be copied."""
    print("Load it:\n")
    say("".join(f"    {line}\n" for line in lines.splitlines()), end="")


def size(n_bytes: float) -> str:
    """`1.5 MB`, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
