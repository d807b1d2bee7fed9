"""Cohort → the engine that trains it; `contract.py` says what an engine promises.

Three engines give the same models to within rounding: `native` (C++ for CPU),
`torch_batched` (all models of a cohort at once) and `torch_loop` (the reference, one
`nn.Module` after another). Importing this package loads none of them, nor torch.
"""

from __future__ import annotations

import importlib

from zoo_builder.engines.contract import Backend, Job
from zoo_datasets import errors
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.operations import registry

ENGINES = ("native", "torch_batched", "torch_loop")


def open_backend(name: str, job: Job, device: str = "cpu") -> Backend:
    """The engine of that name, holding the job's models. Raises GridError.

    `device` is "cpu", "cuda" or "cuda:1"; `native` knows "cpu" alone.
    """
    if name == "native":
        if device != "cpu":
            raise errors.GridError(
                f"Engine 'native' runs on 'cpu', not on {device!r}. Use `--engine torch_batched` there."
            )
        return importlib.import_module("zoo_builder.engines.native").NativeBackend(job)
    if name == "torch_batched":
        return importlib.import_module("zoo_builder.engines.torch_batched").TorchBatched(job, device)
    if name == "torch_loop":
        return importlib.import_module("zoo_builder.engines.torch_loop").TorchLoop(job, device)
    raise errors.GridError(errors.unknown("engine", name, ENGINES))


def choose(architecture: Architecture, loss: str, augmentation: Augmentation, device: str) -> tuple[str, str]:
    """The engine for such a cohort and the reason, as the plan prints it. Raises GridError."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise errors.GridError(errors.unknown("device", device, ("cpu", "cuda")))
    if device != "cpu":
        return "torch_batched", f"on {device} all models of a cohort step at once"
    obstacle = kernels.unfit(architecture, loss, augmentation.channels)
    if obstacle is None:
        return "native", "the C++ kernels know every layer"
    alone = registry.without("batched", [n.op for n in architecture.nodes])
    if alone:
        return "torch_loop", f"no batched form of {', '.join(alone)}; native: {obstacle}"
    return "torch_batched", f"native: {obstacle}"
