"""What `python -m zoo_builder` promises: exit codes, where words go, and lines that load what was built."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import zoo_datasets
from zoo_builder import cli, plan
from zoo_builder.build import build
from zoo_datasets.format import writer
from zoo_datasets.format.paths import ZooPaths

MOST_S = 240  # ends what hangs; no promise about time
Tree = Callable[[Path], dict[str, str]]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command sets up logging for a process that it has to itself."""
    log = logging.getLogger("zoo_builder")
    before = log.handlers[:], log.level
    yield
    log.handlers[:], level = before
    log.setLevel(level)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: exit code, stdout, stderr."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as exit:  # argparse
            code = int(exit.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


# ── help and mistakes ──


@pytest.mark.parametrize("verb", [(), *((v,) for v in cli.VERBS)])
def test_every_verb_has_help(command: Callable[..., Any], verb: tuple[str, ...]) -> None:
    code, out, err = command(*verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: python -m zoo_builder")
    if not verb:
        assert all(v in out for v in cli.VERBS)


def test_version_says_whether_the_native_engine_is_there(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo_datasets.networks import kernels

    monkeypatch.setattr(kernels, "missing", lambda: None)
    assert command("--version") == (0, f"weightzoo {zoo_datasets.__version__}, with the native engine\n", "")
    monkeypatch.setattr(kernels, "missing", lambda: "no compiler")
    assert command("--version")[1].endswith(", without the native engine: no compiler\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required"),
        (("build",), "--grid"),
        (("bild", "--grid", "GRID"), "invalid choice: 'bild'"),
        (("--grid", "GRID", "--limit", "many"), "invalid int value: 'many'"),
        (("--grid", "nowhere.yaml"), "error: Cannot read the grid nowhere.yaml: No such file or directory"),
        (
            ("--grid", "GRID", "--workers", "-1"),
            "error: --workers -1: 0 trains in this process, N ≥ 1 takes N workers.",
        ),
        (("--grid", "GRID", "--limit", "0"), "error: --limit 0: at least 1 model is needed."),
        (("--grid", "GRID", "--set", "traning.epochs=2"), "Did you mean `training`?"),
        (("--grid", "GRID", "--engine", "torch_bached"), "Did you mean `torch_batched`?"),
        (("plan", "--grid", "GRID", "--device", "gpu"), "Unknown device 'gpu'. Known: cpu, cuda."),
        (("status", "nowhere"), "error: nowhere holds no zoo"),
        (("verify", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_in_the_call_is_exit_2_and_on_stderr(
    command: Callable[..., Any], tiny_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*(str(tiny_grid) if a == "GRID" else a for a in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_where_there_is_none_is_exit_2(command: Callable[..., Any], tiny_grid: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, out, err = command("--grid", tiny_grid, "--out", tmp_path / "zoo", "--device", "cuda")
    assert (code, out) == (2, "")
    said = "this PyTorch is a build for CPUs" if torch.version.cuda is None else "sees no GPU on this machine"
    assert "error: --device cuda: " in err
    assert said in err
    assert not (tmp_path / "zoo").exists()


# ── building ──


@pytest.mark.slow
def test_a_build_prints_the_zoo_to_stdout_and_exits_0(
    command: Callable[..., Any], tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree
) -> None:
    out = tmp_path / "zoo"
    code, said, _ = command("--grid", tiny_grid, "--out", out, "--workers", 0)
    assert code == 0
    assert said.startswith(f"{out}: 16 models, 48 snapshots, ")
    assert re.search(r"train \d+, validation \d+, test \d+\n", said)
    assert tree_hash(out) == tree_hash(tiny_zoo)
    code, again, err = command("--grid", tiny_grid, "--out", out, "--workers", 0)
    assert code == 0
    assert f"{out} is sealed already" in err
    assert again.split(",")[:2] == said.split(",")[:2]


@pytest.mark.slow
def test_without_a_terminal_a_quiet_build_says_nothing_but_the_result(
    run_builder: Callable[..., Any],
    tiny_grid: Path,
    tiny_zoo: Path,
    tmp_path: Path,
    environment: dict[str, str],
    tree_hash: Tree,
) -> None:
    """In a fresh process, where the zoo goes under the working directory; the printed lines load it."""
    ended = run_builder("--grid", tiny_grid, "--workers", 0, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("weightzoo/tiny: 16 models, 48 snapshots, ")
    assert tree_hash(tmp_path / "weightzoo" / "tiny") == tree_hash(tiny_zoo)
    load, look = ended.out.split("Load it:")[1].split("Look at it:")
    assert look.strip() == "python -m zoo_datasets page weightzoo/tiny --open"
    lines = [line[4:] for line in load.splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    plain = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        text=True,
        timeout=MOST_S,
    )
    assert loaded.returncode == 0, loaded.stderr
    shape, mean = re.fullmatch(r"\((\d+, \d+)\) (0\.\d+)\n", loaded.stdout).groups()  # type: ignore[union-attr]
    table = pq.read_table(ZooPaths(tiny_zoo).table("models", "train"))
    assert shape == f"{len(table)}, {table['n_params'][0]}"
    assert float(mean) == pytest.approx(np.mean(table["test_accuracy"].to_numpy()), abs=1e-6)


@pytest.mark.slow
def test_the_printed_lines_load_a_zoo_of_one_split_in_an_odd_folder(
    command: Callable[..., Any],
    tiny_grid: Path,
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one too large for weights in its table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "MOST_INLINE_BYTES", 1000)
    _, said, _ = command("--grid", tiny_grid, "--out", 'w"q', "--workers", 0, "--set", "splits={test: 1}", "--limit", 8)
    lines = [line[4:] for line in said.split("Load it:")[1].splitlines() if line.startswith("    ")][:3]
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=MOST_S
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith("8 0.")


@pytest.mark.slow
def test_limit_and_set_are_part_of_the_recipe(command: Callable[..., Any], tiny_grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    arguments = ("--grid", tiny_grid, "--out", out, "--workers", 0, "--limit", 12, "--set", "training.epochs=1")
    assert command(*arguments)[0] == 0
    kept = (out / "grid.yaml").read_text()
    assert "limit: 12" in kept
    assert "epochs: 1" in kept
    code, said, err = command("--grid", tiny_grid, "--out", out, "--workers", 0)
    assert (code, said) == (1, "")
    assert "holds the zoo of another recipe: " in err
    assert "`limit` is 12 there" in err
    assert command("--grid", out / "grid.yaml", "--out", tmp_path / "again", "--workers", 0)[0] == 0


@pytest.mark.slow
def test_a_failing_cohort_is_exit_1_and_the_others_are_kept(
    command: Callable[..., Any], tiny_grid: Path, tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree
) -> None:
    # A folder stands where the second cohort's part must go.
    record = first_record(tiny_plan, tmp_path / "other", 1)
    out = tmp_path / "zoo"
    (out / record / "in the way").mkdir(parents=True)
    arguments = ("--grid", tiny_grid, "--out", out, "--workers", 0)
    code, said, err = command(*arguments)
    assert (code, said) == (1, "")
    assert "error: 1 of 4 cohorts failed (4 models). Tracebacks are in" in err
    assert len(list((out / ".build" / "commits").iterdir())) == 3
    code, said, _ = command("status", out)
    assert code == 0
    assert "12 of 16 models, 3 of 4 cohorts" in said
    assert f"failed: cohort {tiny_plan.cohorts[1].id[:16]}, 4 models: IsADirectoryError" in said
    shutil.rmtree(out / record)
    assert command(*arguments)[0] == 0
    assert tree_hash(out) == tree_hash(tiny_zoo)


def first_record(planned: plan.Plan, out: Path, number: int) -> str:
    """Where the weights of a cohort are written, under the zoo."""
    from zoo_builder import worker

    done = worker.train_cohort(worker.Task(planned.cohorts[number], str(out)), planned.sources)
    return done.record.weights


def test_a_dead_ray_address_is_exit_1(
    command: Callable[..., Any], tiny_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, said, err = command("--grid", tiny_grid, "--out", tmp_path / "zoo")
    assert (code, said) == (1, "")
    assert f"error: No Ray cluster answers at RAY_ADDRESS={address}" in err


@pytest.mark.ray
@pytest.mark.slow
def test_an_unwritable_home_does_not_matter(
    run_builder: Callable[..., Any], tiny_grid: Path, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree
) -> None:
    ended = run_builder("--grid", tiny_grid, "--out", tmp_path / "zoo", "--workers", 1, HOME="/dev/null/home")
    assert ended.code == 0, ended.err
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)


# ── interrupts ──


def interrupted(arguments: list[str], signals: list[int]) -> int:
    """The command, with those signals sent to it as it makes its first commit."""
    left = list(signals)

    def watch(event: str, _: Any) -> None:
        if event == "os.link":
            while left:
                os.kill(os.getpid(), left.pop(0))

    sys.addaudithook(watch)
    return cli.main(arguments)


@pytest.mark.some(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_a_first_interrupt_drains_and_is_exit_130(
    elsewhere: Callable[..., Any], tiny_grid: Path, tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree,
    number: int,
) -> None:  # fmt: skip
    out = tmp_path / "zoo"
    ended = elsewhere(interrupted, ["--grid", str(tiny_grid), "--out", str(out), "--workers", "0"], [number])
    assert (ended.code, ended.out) == (130, "")
    assert "finishing what is running; once more stops at once" in ended.err
    assert "error: Interrupted. What was finished is kept; the same command goes on from there." in ended.err
    # One cohort was running: it was finished, and none after it.
    assert len(list((out / ".build" / "commits").glob("*.json"))) == 1
    build(tiny_plan, out, workers=0)
    assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once(
    elsewhere: Callable[..., Any],
    tiny_grid: Path,
    tiny_plan: plan.Plan,
    tiny_zoo: Path,
    tmp_path: Path,
    tree_hash: Tree,
) -> None:
    out = tmp_path / "zoo"
    arguments = ["--grid", str(tiny_grid), "--out", str(out), "--workers", "0"]
    ended = elsewhere(interrupted, arguments, [signal.SIGINT, signal.SIGINT])
    assert (ended.code, ended.out) == (130, "")
    assert "error: Stopped. What was committed is kept; the same command goes on from there." in ended.err
    assert len(list((out / ".build" / "commits").glob("*.json"))) < 2
    build(tiny_plan, out, workers=0)
    assert tree_hash(out) == tree_hash(tiny_zoo)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGINT, signal.SIGINT]])
@pytest.mark.slow
def test_an_interrupted_rebuild_is_kept_and_gone_on_with(
    elsewhere: Callable[..., Any], tiny_zoo: Path, tmp_path: Path, signals: list[int]
) -> None:
    arguments = ["verify", str(tiny_zoo), "--rebuild", "--workers", "0"]
    env = {"TMPDIR": str(tmp_path)}
    ended = elsewhere(interrupted, arguments, signals, env=env)
    assert (ended.code, ended.out) == (130, "")
    (place,) = tmp_path.glob("zoo-rebuild-*")
    assert f"building in {place}" in ended.err
    words = "is kept; the same command goes on from there."
    assert words in ended.err
    assert (place / ".build" / "recipe.json").is_file()
    again = elsewhere(cli.main, arguments, env=env)
    assert again.code == 0, again.err
    assert again.out.startswith("equal: all content digests")
    assert not place.exists()


def test_an_interrupted_check_says_that_nothing_was_written() -> None:
    parser = cli._parser()
    assert cli._kept(parser.parse_args(["verify", "x"])) == "Nothing was written; the same command begins anew"
    assert "committed is kept" in cli._kept(parser.parse_args(["verify", "x", "--rebuild"]))


# ── the other verbs ──


def test_plan_says_on_stdout_what_would_be_built_and_writes_nothing(
    command: Callable[..., Any], tiny_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, _ = command("plan", "--grid", tiny_grid, "--workers", 1)
    assert code == 0
    assert "16 models, 4 cohorts" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_status_and_verify_of_a_sealed_zoo_exit_0(command: Callable[..., Any], tiny_copy: Path) -> None:
    code, said, err = command("status", tiny_copy)
    assert (code, err) == (0, "")
    assert "finished; 16 models, 48 snapshots, 0 diverged" in said
    code, said, err = command("verify", tiny_copy)
    assert code == 0, err
    assert said
    assert "error" not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "x"), "--out is for --rebuild"),
        (("--workers", "2"), "--workers is for --rebuild"),
        (("--rebuild", "--retrain", "3"), "--rebuild trains all models again"),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    command: Callable[..., Any], tiny_zoo: Path, options: tuple[str, ...], said: str
) -> None:
    code, _, err = command("verify", tiny_zoo, *options)
    assert code == 2
    assert said in err


def test_verify_of_a_damaged_zoo_is_exit_1(command: Callable[..., Any], tiny_copy: Path) -> None:
    shard = ZooPaths(tiny_copy).shard("train")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    code, _, err = command("verify", tiny_copy)
    assert code == 1
    assert "error: " in err
    assert "weights/train-00000-of-00001.safetensors" in err


# ── the zoo as a dataset ──

# Knows nothing of ours: what a stranger does who has the folder and `datasets`.
LOAD = """
import hashlib, json, os, sys
from datasets import load_dataset
found = []
for parent in sys.argv[1:]:
    os.chdir(parent)
    models, snapshots = load_dataset("weightzoo/tiny"), load_dataset("weightzoo/tiny", "snapshots")
    found.append({
        split: {
            "models": [[i, hashlib.sha256(w.astype("<f4").tobytes()).hexdigest()]
                       for i, w in zip(models[split]["model_id"], models[split].with_format("numpy")["weights"][:])],
            "snapshots": [[r[c] for c in ("model_id", "step", "shard", "tensor", "row", "weights_sha256")]
                          for r in snapshots[split]],
        }
        for split in models
    })
    assert list(models) == list(snapshots)
ours = [m for m in sys.modules if m.startswith(("zoo_builder", "zoo_datasets"))]
print(json.dumps([found, ours]))
"""


@pytest.mark.slow
def test_load_dataset_gives_the_real_weights_and_never_those_of_an_older_zoo(
    make_plan: Callable[..., plan.Plan], tiny_zoo: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Both zoos have one name and one cache, which keys on neither place nor contents of a folder."""
    rebuilt = tmp_path / "rebuilt" / "weightzoo" / "tiny"
    build(make_plan("seed=1"), rebuilt, workers=0)
    plain = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    parents = [str(tiny_zoo.parents[1]), str(rebuilt.parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *parents], env=plain, capture_output=True, text=True, timeout=MOST_S
    )
    assert done.returncode == 0, done.stderr
    found, ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == []
    for zoo, splits in zip((tiny_zoo, rebuilt), found, strict=True):
        assert list(splits) == ["train", "validation", "test"]
        for split, rows in splits.items():
            shards = {p: load_file(zoo / p) for p in {r[2] for r in rows["snapshots"]}}
            last: dict[str, str] = {}
            for i, (model, step, shard, tensor, row, sha) in enumerate(rows["snapshots"]):
                assert row == i  # the order of the table is the order of the shard
                assert hashlib.sha256(shards[shard][tensor][row].tobytes()).hexdigest() == sha
                last[model] = sha
            assert rows["models"] == [[m, sha] for m, sha in last.items()]
            table = pq.read_table(ZooPaths(zoo).table("snapshots", split))
            assert [r[:2] for r in rows["snapshots"]] == [[r["model_id"], r["step"]] for r in table.to_pylist()]
    assert found[0] != found[1]


@pytest.mark.parametrize("file", ["recipe.json", "commits/x.json", "failed/x.json"])
@pytest.mark.parametrize(
    "value", ["", "[]", '{"models": 3}', '{"models": [{"x": 1}]}', '{"models": "x", "cohorts": []}']
)
def test_status_of_a_damaged_build_is_no_traceback(
    file: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = tmp_path / ".build"
    for name in ("commits", "failed"):
        (build / name).mkdir(parents=True)
    (build / "recipe.json").write_text('{"models": 4, "cohorts": 2}')
    (build / file).write_text(value)
    code = cli.main(["status", str(tmp_path)])
    said = capsys.readouterr()
    if file == "recipe.json":
        assert (code, said.err) == (
            2,
            f"error: {tmp_path} holds no zoo and no build. Name the folder given to --out.\n",
        )
    else:
        assert (code, said.out) == (
            0,
            f"{tmp_path}: not finished, nobody is building it; 0 of 4 models, 0 of 2 cohorts, 0 diverged\n",
        )
