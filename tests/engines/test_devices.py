"""What `devices` tells of the machine: processors by affinity and by the quotas of containers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from zoo_builder.engines import devices
from zoo_datasets.errors import GridError, MissingLibraryError
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.layers import build_architecture

ARCHITECTURE = build_architecture("mlp", (1, 4, 4), 3)
HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, HERE),
        ({"cpu.max": "max 100000"}, HERE),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, HERE),
        ({"cpu.max": "nonsense"}, HERE),
    ],
)
def test_a_quota_counts_as_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(devices, "CONTROL_GROUPS", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    if not Path("/proc/self/cgroup").is_file():
        pytest.skip("this system has no control groups")
    assert devices.cores() == cores


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (None, r"this PyTorch is a build for CPUs\. Install one with CUDA \(docs/gpu\.md\), or use --device cpu"),
        ("13.0", r"PyTorch for CUDA 13\.0 sees no GPU on this machine .*nvidia-smi.* Use --device cpu, or RAY_ADDRESS"),
    ],
)
def test_why_there_is_no_gpu_is_said(build: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(GridError, match=said):
        devices.check("cuda")


@pytest.mark.parametrize(
    ("workers", "cards", "share"), [(None, 2, 1.0), (1, 1, 1.0), (2, 2, 1.0), (4, 1, 0.25), (3, 2, 2 / 3)]
)
def test_workers_share_gpus(workers: int | None, cards: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert devices.gpus_per_worker(workers) == share
    with pytest.raises(
        GridError, match=f"--workers {cards * 4 + 1}: at most 4 share one GPU, and here .* Use --workers {cards}"
    ):
        devices.gpus_per_worker(cards * 4 + 1)


@pytest.mark.parametrize("engine", ["torch_batched", "torch_loop"])
def test_an_engine_without_its_library_is_refused_before_training(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.check_supported(engine, ARCHITECTURE, "mse", Augmentation(), "cpu")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(GridError, match=f"Engine '{engine}' needs PyTorch, .*: pip install torch"):
        devices.check_supported(engine, ARCHITECTURE, "mse", Augmentation(), "cpu")
    with pytest.raises(MissingLibraryError, match="torch is not installed: pip install torch"):
        devices.check("cuda")
