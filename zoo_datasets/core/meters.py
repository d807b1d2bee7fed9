"""Long work → what a person sees of it on stderr: a bar in a terminal, elsewhere a line now and then.

In:  meters, which whatever takes long opens and counts up, one inside the other; a `Display`, which the command
     that a person gave opens. A library call without one shows nothing.
Out: in a terminal a bar from the first second on, drawn over itself and gone in the end; without one (SLURM, nohup,
     a pipe) a plain line after ten seconds and then every half minute. Short work says nothing.

Meters are written by the work and read by the display alone: no result can depend on them. A worker process has
no display: what runs for somebody else says with `tell` how far it is, and `listening` hands that on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TextIO, TypeVar

FIRST_S, EVERY_S = 10.0, 30.0  # of plain lines, since the command began and since the last one
BAR_AFTER_S = 1.0  # a bar that flashes up for less is only noise
PULSE_S = 0.25  # how often a terminal is drawn
WORTH_S = 5.0  # of work before it is foretold how long the rest takes
CELLS = 20  # of the bar
ERASE = "\r\x1b[K"

T = TypeVar("T")


class Meter:
    """How much of one piece of work is done. Counting up costs an addition."""

    def __init__(self, what: str, total: float, unit: str, show: Callable[[float], str]) -> None:
        self.what, self.total, self.unit, self.show = what, total, unit, show
        self.done = self.before = 0.0  # with what an earlier call had done, which says nothing of the speed
        self.note = ""
        self.also: Callable[[], float] = lambda: 0.0  # what is under way besides, asked for when it is shown
        self.started = 0.0

    def add(self, amount: float = 1) -> None:
        """So much more is done."""
        self.done += amount

    def skip(self, amount: float) -> None:
        """So much was there before."""
        self.done += amount
        self.before += amount

    def words(self, now: float, bar: bool = False) -> str:
        """`training: 300 of 900 steps (33 %), 3 of 9 models, 2 min left`."""
        if not self.total:
            return self.what
        done = min(self.done + self.also(), self.total)
        share = done / self.total
        drawn = f"[{'#' * int(CELLS * share):.<{CELLS}}] " if bar else ""
        text = f"{self.what}: {drawn}{self.show(done)} of {self.show(self.total)} {self.unit}".rstrip()
        text += f" ({share:.0%})" + (f", {self.note}" if self.note else "")
        spent, moved = now - self.started, done - self.before
        if spent >= WORTH_S and moved > 0 and done < self.total:
            text += f", {duration((self.total - done) * spent / moved)} left"
        return text


class Display:
    """Where meters are shown. `tick` draws what is due by the clock; `shown` calls it."""

    def __init__(self, stream: TextIO, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.name, self.clock = stream, name, clock
        self.terminal = stream.isatty()
        self.meters: list[Meter] = []
        self.lock = threading.RLock()
        self.drawn = False
        self.next_s = clock() + (BAR_AFTER_S if self.terminal else FIRST_S)

    def tick(self) -> None:
        """Draw the bar, or write a line where one is due."""
        with self.lock:
            now = self.clock()
            if not self.meters or now < self.next_s:
                return
            text = "; ".join(m.words(now, bar=self.terminal and m is self.meters[0]) for m in self.meters)
            if self.terminal:
                self._write(ERASE + text[: self._width()])
                self.drawn, self.next_s = True, now
            else:
                self._write(f"{self.name}{text}\n")
                self.next_s = now + EVERY_S

    def erase(self) -> None:
        """Take the bar away: something else is written, or the work is done."""
        with self.lock:
            if self.drawn:
                self._write(ERASE)
                self.drawn = False

    def open(self, meter: Meter) -> None:
        with self.lock:
            meter.started = self.clock()
            self.meters.append(meter)

    def close(self, meter: Meter) -> None:
        with self.lock:
            self.meters.remove(meter)
            if not self.meters:
                self.erase()

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except OSError:
            columns = 0
        return (columns or 80) - 1  # a terminal may not know; the last place would break the line

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # nobody reads any more; the work itself goes on
            self.meters.clear()


_display: Display | None = None


@contextlib.contextmanager
def shown(display: Display, pulse: bool = True) -> Iterator[Display]:
    """Meters that are opened inside are shown there; with `pulse` a thread looks at the clock meanwhile."""
    global _display
    before, _display = _display, display
    done = threading.Event()

    def look() -> None:
        while not done.wait(PULSE_S):
            display.tick()

    thread = threading.Thread(target=look, name="progress", daemon=True)
    if pulse:
        thread.start()
    try:
        yield display
    finally:
        done.set()
        if pulse:
            thread.join()
        display.erase()
        _display = before


@contextlib.contextmanager
def track(
    what: str, total: float = 0, unit: str = "", show: Callable[[float], str] = "{:,.0f}".format
) -> Iterator[Meter]:
    """A meter for the work inside; without a total it says what is done, not how far."""
    meter, display = Meter(what, total, unit, show), _display
    if display is not None:
        display.open(meter)
    try:
        yield meter
    finally:
        if display is not None and meter in display.meters:
            display.close(meter)


def over(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """The items, counted as they are done with."""
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    with track(what, total, unit) as meter:
        for item in items:
            yield item
            meter.add()


def erase() -> None:
    """Make room for another line on stderr."""
    if _display is not None:
        _display.erase()


# ── work for somebody else ──

_listener: Callable[[float], None] | None = None


def tell(amount: float) -> None:
    """Say how much of the item at hand is done, to whoever gave it."""
    if _listener is not None:
        _listener(amount)


@contextlib.contextmanager
def listening(listener: Callable[[float], None]) -> Iterator[None]:
    """What is told inside goes to the listener."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
