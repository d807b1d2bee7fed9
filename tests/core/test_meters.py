"""What is seen of long work: through a pipe, in a terminal, and by a clock that the test holds."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from zoo_datasets.core import meters


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """One end of a pipe or of a terminal, and what came out at the other."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.stream = read, os.fdopen(write, "w")

    def text(self) -> str:
        """All that was written: up to a mark, since a terminal hands on what it has in its own time."""
        self.stream.write("\0")
        self.stream.flush()
        found = b""
        while not found.endswith(b"\0"):
            found += os.read(self.read, 100_000)
        return found[:-1].decode()


@pytest.fixture
def pipe() -> Iterator[Screen]:
    yield from _screen(os.pipe())


@pytest.fixture
def terminal() -> Iterator[Screen]:
    yield from _screen(pty.openpty())


def _screen(ends: tuple[int, int]) -> Iterator[Screen]:
    screen = Screen(*ends)
    yield screen
    screen.stream.close()
    os.close(screen.read)


def work(display: meters.Display, clock: Clock, seconds: int, each: Callable[[], None] = lambda: None) -> None:
    """100 steps a second of 10,000, looked at every second."""
    with meters.shown(display, pulse=False), meters.track("training", 10_000, "steps") as meter:
        for _ in range(seconds):
            clock.now += 1
            meter.add(100)
            display.tick()
            each()


def test_without_a_terminal_there_is_a_line_after_ten_seconds_and_then_every_half_minute(pipe: Screen) -> None:
    clock = Clock()
    work(meters.Display(pipe.stream, "zoo_builder: ", clock), clock, 75)
    assert pipe.text() == (
        "zoo_builder: training: 1,000 of 10,000 steps (10%), 90 s left\n"
        "zoo_builder: training: 4,000 of 10,000 steps (40%), 60 s left\n"
        "zoo_builder: training: 7,000 of 10,000 steps (70%), 30 s left\n"
    ).replace("90 s", "2 min")


def test_short_work_says_nothing(pipe: Screen) -> None:
    clock = Clock()
    work(meters.Display(pipe.stream, clock=clock), clock, 9)
    assert pipe.text() == ""


def test_the_half_minute_goes_on_from_one_piece_of_work_to_the_next(pipe: Screen) -> None:
    clock = Clock()
    display = meters.Display(pipe.stream, clock=clock)
    work(display, clock, 12)
    work(display, clock, 27)
    work(display, clock, 2)
    assert [line.split("(")[1] for line in pipe.text().splitlines()] == ["10%), 2 min left", "1%)"]


def test_in_a_terminal_a_bar_is_drawn_over_itself_and_gone_in_the_end(terminal: Screen) -> None:
    clock = Clock()
    seen: list[str] = []
    display = meters.Display(terminal.stream, clock=clock)
    work(display, clock, 7, lambda: seen.append(terminal.text()))
    assert seen[0] == "\r\x1b[Ktraining: [....................] 100 of 10,000 steps (1%)"
    assert seen[6] == "\r\x1b[Ktraining: [#...................] 700 of 10,000 steps (7%), 2 min left"
    assert terminal.text() == "\r\x1b[K"


def test_a_bar_is_no_wider_than_its_terminal(terminal: Screen) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    clock = Clock()
    seen: list[str] = []
    work(meters.Display(terminal.stream, clock=clock), clock, 1, lambda: seen.append(terminal.text()))
    assert seen == ["\r\x1b[K" + "training: [....................] 100 of 10,000"[:39]]


def test_a_bar_makes_room_for_another_line(terminal: Screen) -> None:
    clock = Clock()
    seen: list[str] = []

    def warn() -> None:
        meters.erase()
        terminal.stream.write("a warning\n")
        seen.append(terminal.text())

    work(meters.Display(terminal.stream, clock=clock), clock, 1, warn)
    assert seen[0].endswith("\r\x1b[Ka warning\r\n")


def test_work_inside_work_stands_behind_it(pipe: Screen) -> None:
    clock = Clock()
    display = meters.Display(pipe.stream, clock=clock)
    with meters.shown(display, pulse=False):
        for _ in meters.over(range(3), "populations", "populations"):
            with meters.track("pictures"):
                clock.now += 40
                display.tick()
    said = pipe.text().splitlines()
    assert said[0] == "populations: 0 of 3 populations (0%); pictures"
    assert said[2] == "populations: 2 of 3 populations (67%), 60 s left; pictures"


def test_what_was_there_before_says_nothing_of_the_speed(pipe: Screen) -> None:
    clock = Clock()
    display = meters.Display(pipe.stream, clock=clock)
    with meters.shown(display, pulse=False), meters.track("training", 1000, "steps") as meter:
        meter.skip(900)
        meter.note, meter.also = "9 of 10 models", lambda: 50.0
        clock.now += 50
        display.tick()
    assert pipe.text() == "training: 950 of 1,000 steps (95%), 9 of 10 models, 50 s left\n"


def test_an_error_ends_the_bar(terminal: Screen) -> None:
    clock = Clock()
    display = meters.Display(terminal.stream, clock=clock)

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        work(display, clock, 2, fail)
    assert terminal.text().endswith("\r\x1b[K")
    assert not display.meters


def test_a_reader_that_went_away_stops_no_work() -> None:
    read, write = os.pipe()
    stream: TextIO = os.fdopen(write, "w")
    os.close(read)
    clock = Clock()
    work(meters.Display(stream, clock=clock), clock, 80)
    assert clock.now == 1080
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_what_is_told_reaches_who_listens_and_nobody_else() -> None:
    heard: list[float] = []
    meters.tell(1)
    with meters.listening(heard.append):
        meters.tell(2)
    meters.tell(3)
    assert heard == [2]


def test_a_library_call_shows_nothing() -> None:
    stream = io.StringIO()
    clock = Clock()
    display = meters.Display(stream, clock=clock)
    for _ in meters.over(range(3), "measuring", "models"):
        clock.now += 100
        display.tick()
    assert stream.getvalue() == ""


@pytest.mark.slow
def test_the_pulse_draws_what_nobody_else_does(pipe: Screen) -> None:
    times = iter([0.0, 5.0])
    with meters.shown(meters.Display(pipe.stream, clock=lambda: next(times, 60.0))):  # 60 s by the second look
        with meters.track("training"):
            assert os.read(pipe.read, 100) == b"training\n"  # waits for the thread
