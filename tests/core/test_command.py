"""What both command lines promise of any verb: one line an error, an exit code, no noise."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import zoo_builder.cli
import zoo_datasets.cli
from zoo_datasets.core import command
from zoo_datasets.errors import GridError, IntegrityError, ZooError

ROOT = Path(command.__file__).parents[2]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def run() -> Iterator[Callable[..., int]]:
    """Runs a call in the frame, with a log of its own."""
    log = logging.getLogger("zoo_of_a_test")

    def code_of(error: ZooError) -> int:
        return 2 if isinstance(error, GridError) else 1

    def run(call: Callable[[], int], quiet: bool = False) -> int:
        return command.run(
            call, code_of, log=log, quiet=quiet, stopped="All is kept; the same command goes on from there"
        )

    yield run
    log.handlers.clear()


def test_a_scheduler_stops_a_command_as_ctrl_c_does(run: Callable[..., int], capsys: Said) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stopped() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert run(stopped) == 130
    assert capsys.readouterr().err == "error: Stopped. All is kept; the same command goes on from there.\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GridError("No such axis."), 2, "error: No such axis.\n"),
        (IntegrityError("Damaged."), 1, "error: Damaged.\n"),
        (KeyboardInterrupt(), 130, "error: Stopped. All is kept; the same command goes on from there.\n"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_exit_code(
    run: Callable[..., int], capsys: Said, error: BaseException, code: int, said: str
) -> None:
    def call() -> int:
        raise error

    assert run(call) == code
    assert capsys.readouterr() == ("", said)


def test_an_error_of_ours_is_not_hidden(run: Callable[..., int]) -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("quiet", "said"), [(False, "zoo_of_a_test: begun\nzoo_of_a_test: odd\n"), (True, "zoo_of_a_test: odd\n")]
)
def test_progress_goes_to_stderr_and_quiet_leaves_warnings(
    run: Callable[..., int], capsys: Said, quiet: bool, said: str
) -> None:
    def call() -> int:
        log = logging.getLogger("zoo_of_a_test")
        log.info("begun")
        log.warning("odd")
        return 7

    for _ in range(2):  # a second command in one process does not say it twice
        assert run(call, quiet) == 7
        assert capsys.readouterr() == ("", said)


@pytest.mark.some(1)
@pytest.mark.parametrize("arguments", [("zoo_builder", "status"), ("zoo_datasets", "show")])
@pytest.mark.slow
def test_a_reader_that_has_seen_enough_hears_no_complaint(tiny_zoo: Path, arguments: tuple[str, str]) -> None:
    """`… | head`: what is printed meets a closed pipe, and so does the interpreter's last flush."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments, str(tiny_zoo)],
        cwd=ROOT, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (1, b"")


@pytest.mark.some(1)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [("> /dev/full", 1, "error: What is printed cannot be written: No space left on device.\n"), (">&-", 0, "")],
)
@pytest.mark.slow
def test_a_full_disk_or_a_closed_stdout_is_no_traceback(tiny_zoo: Path, redirected: str, code: int, said: str) -> None:
    command = f"exec {sys.executable} -m zoo_datasets show {tiny_zoo} {redirected}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("main", [zoo_builder.cli.main, zoo_datasets.cli.main])
def test_what_an_encoding_lacks_is_written_as_python_writes_it(
    main: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        main(["--version"])
    command.say("żoo")
    assert out.buffer.getvalue().endswith(b"\\u017coo\n")  # type: ignore[attr-defined]
    for closed in (None, io.StringIO()):  # `>&-`, and what a program puts there
        monkeypatch.setattr(sys, "stdout", closed)
        command.say_in_any_encoding()


def test_help_is_said_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    with pytest.raises(SystemExit) as ended:
        zoo_datasets.cli.main(["analyze", "trajectories", "--help"])
    assert ended.value.code == 0


def test_a_path_that_the_system_refuses_is_named(run: Callable[..., int], capsys: Said) -> None:
    assert run(lambda: int(Path("x" * 5000).exists())) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: xxxx")
    assert said.endswith("x… cannot be used: File name too long.\n")
    assert len(said) < 300
    with pytest.raises(OSError, match="of ours"):
        run(lambda: (_ for _ in ()).throw(OSError("of ours")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("HF_HUB_DOWNLOAD_TIMEOUT", ["zoo_datasets", "show", "a/other"]),
        ("HF_DATASETS_IN_MEMORY_MAX_SIZE", ["zoo_builder", "plan", "--set", "source.id=a/b", "--data", "."]),
    ],
)
def test_a_library_that_stumbles_over_its_variable_is_said(tmp_path: Path, name: str, call: list[str]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "g.yaml").write_text("{zoo: a/b, source: {id: a/b}, replicates: 4}")
    grid = ["--grid", "g.yaml"] if "plan" in call else []
    environment = {**os.environ, name: "ten", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *call, *grid], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert last.startswith("error: A library does not start: ")
    assert last.endswith(". Correct its variable in the environment (HF_…).")


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2e9, "2.0 GB"), (3.2e15, "3200.0 TB")],
)
def test_sizes_have_a_unit(n_bytes: float, said: str) -> None:
    assert command.size(n_bytes) == said
