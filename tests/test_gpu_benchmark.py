"""`benchmarks/gpu.py` is ready for the first GPU: a dry run of every step on a CPU, and its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip


@pytest.mark.slow
def test_a_dry_run_takes_every_step_and_writes_what_it_found(tmp_path):
    done = run("--device", "cpu", "--tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["tests"]["passed"], found["tests"]
    assert set(found["seconds"]) == {"device", "tests", "draws", "rates", "build"}
    assert found["about"]["product_flops"] > 0
    for entry in found["rates"]:
        assert [o["models"] for o in entry["ours"]] == [2, 2, 4, 4]
        for measured in (*entry["ours"], entry["one_process"], entry["vmap_16"], entry["processes"]):
            assert measured["steps_per_s"] > 0, measured
    assert [d["drawn"] for d in found["draws"]] == ["augmentation", "augmentation", "dropout", "dropout"]
    assert all(rate > 0 for d in found["draws"] for rate in d["steps_per_s"].values())
    assert found["build"]["seconds"] > 0
    text = (tmp_path / "gpu.md").read_text()
    assert all(entry["what"] in text for entry in found["rates"])
    assert text in done.stdout


@pytest.mark.slow
def test_an_unknown_step_is_said():
    done = run("--skip", "tests,everything")
    assert done.returncode == 2
    assert "--skip everything: known are tests, draws, rates, build" in done.stderr


@pytest.mark.slow
def test_a_machine_without_a_gpu_is_told_in_one_sentence(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = run("--out", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: --device cuda: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
