"""What hardware is there and what of it the bits depend on. The only questions asked of it."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

from zoo_builder import engines
from zoo_builder.engines import gpu_memory
from zoo_datasets.core import libraries
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def check(device: str) -> str:
    """`cpu` or `cuda`. Raises GridError where a GPU is asked for and none is there."""
    if device not in ("cpu", "cuda"):
        raise GridError(unknown("device", device, ("cpu", "cuda")))
    if device == "cuda" and not os.environ.get("RAY_ADDRESS"):
        with libraries.needed():
            import torch

        if torch.version.cuda is None:
            raise GridError(
                "--device cuda: this PyTorch is a build for CPUs. Install one with CUDA (docs/gpu.md), or use --device cpu, or "
                "RAY_ADDRESS."
            )
        if not torch.cuda.is_available():
            raise GridError(
                f"--device cuda: PyTorch for CUDA {torch.version.cuda} sees no GPU on this machine (does `nvidia-smi` show "
                "one, with a driver as new?). Use --device cpu, or RAY_ADDRESS."
            )
        from zoo_datasets.networks.gpu import nvrtc

        if obstacle := nvrtc.obstacle():
            raise GridError(
                f"--device cuda: {obstacle}. It comes with PyTorch's builds for CUDA: install PyTorch again."
            )
    return device


def here(device: str) -> bool:
    """Whether this process can train on it: the driver of a cluster may have no GPU of its own."""
    if device == "cpu":
        return True
    import torch

    return torch.cuda.is_available()


def check_supported(
    engine: str, architecture: Architecture, loss: str, augmentation: Augmentation, device: str
) -> None:
    """Raises GridError where an engine cannot train such a cohort, or its library is missing."""
    if engine not in engines.ENGINES:
        raise GridError(unknown("engine", engine, ("auto", *engines.ENGINES)))
    if engine == "native":
        obstacle = kernels.impossible(architecture, loss, augmentation.channels)
        if device != "cpu":
            obstacle = f"it runs on the CPU, not on {device}"
        if obstacle:
            raise GridError(f"--engine native: {obstacle}. Leave --engine out, and an engine that can is chosen.")
    else:
        _need_torch(f"Engine {engine!r}")


def torch_missing() -> bool:
    """Whether PyTorch is not installed."""
    return importlib.util.find_spec("torch") is None


def _need_torch(what: str) -> None:
    """Raises GridError before anything is trained, where cohort by cohort would fail."""
    if torch_missing():
        raise GridError(f"{what} needs PyTorch, which is not installed: pip install torch.")


def cores() -> int:
    """Processors that this process may use: by its affinity, and by the quota of its control groups (containers)."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / "cpu" if controllers else CONTROL_GROUPS  # version 1 has a folder for each controller
        # A container may see its own group as the root, under the path that the host gave it.
        for folder in {root, *((root / group.lstrip("/") / "_").parents)}:
            count = min(count, _quota(folder))
    return max(1, int(count))


def _quota(folder: Path) -> float:
    """Processors that one control group may use at a time; infinite where it sets no quota."""
    pair = " ".join(_lines(folder / "cpu.max")).split()  # version 2: "150000 100000", "max 100000"
    if not pair:
        pair = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    return float(pair[0]) / float(pair[1]) if len(pair) == 2 and pair[0].isdigit() else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def gpus_per_worker(workers: int | None) -> float:
    """The part of a GPU each worker gets: one, or a share where workers outnumber the GPUs of this machine.

    Raises GridError where more would share one than its memory is divided for.
    """
    import torch

    cards = torch.cuda.device_count()
    if not workers or workers <= cards or not cards:
        return 1.0
    if workers > cards * gpu_memory.SHARE:
        raise GridError(
            f"--workers {workers}: at most {gpu_memory.SHARE} share one GPU, and here {cards} {'is' if cards == 1 else 'are'}. "
            f"Use --workers {cards}: one fills a GPU."
        )
    return cards / workers


# Variables that send the libraries under PyTorch down another code path, whose bits are others; by device.
PATH_VARIABLES = {
    "cpu": (
        "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS",
        "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
    ),
    "cuda": ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
}  # fmt: skip
NO_PATH = ("", "ALL", "DEFAULT")  # values that name no path but the usual one


def isa(engine: str, device: str) -> str:
    """The instruction set an engine's bits depend on, and what the environment changes about it.

    Of `native`, equal ones repeat each other bit for bit. PyTorch's libraries also look at the processor
    itself, which no name here tells: equal ones nearly always do.
    """
    if engine == "native":
        return "fma"  # eight-lane arithmetic with explicit FMA: the same bits on every CPU that has it
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    changed = [(v, os.environ.get(v, "").strip()) for v in PATH_VARIABLES["cuda" if device == "cuda" else "cpu"]]
    return ", ".join([name, *(f"{v}={value}" for v, value in changed if value.upper() not in NO_PATH)])
