"""What `devices` tells of the machine: processors by affinity and by the quotas of containers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from zoo_builder.engines import devices
from zoo_builder.engines.contract import Augmentation
from zoo_datasets.errors import GridError, MissingLibraryError
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


@pytest.mark.parametrize("engine", ["torch_batched", "torch_loop"])
def test_an_engine_without_its_library_is_refused_before_training(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.check_supported(engine, ARCHITECTURE, "mse", Augmentation(), "cpu")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(GridError, match=f"Engine '{engine}' needs PyTorch, .*: pip install torch"):
        devices.check_supported(engine, ARCHITECTURE, "mse", Augmentation(), "cpu")
    with pytest.raises(MissingLibraryError, match="torch is not installed: pip install torch"):
        devices.check("cuda")
