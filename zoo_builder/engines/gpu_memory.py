"""Architecture, batch and GPU → how many models step side by side there; and memory that runs out, in words.

The width follows from the size of the device and never from what is free at the moment: the bits of matrix
products may depend on it, and the same build on the same kind of GPU gives the same bits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo_datasets.core import libraries
from zoo_datasets.core.command import size
from zoo_datasets.errors import BuildError, GridError
from zoo_datasets.networks.architecture import Architecture

if TYPE_CHECKING:
    import torch

# From here on more models are no faster: 1,024 small CNNs fill an H200 (`benchmarks/gpu.py`).
MOST_MODELS = 1024
SHARE = 4  # one in so many bytes of the device is a slice's, so that up to four workers share one GPU
MARGIN = 1.25  # over the values counted below; a test holds it to the peaks in `benchmarks/results/gpu.json`
RECURRENT_COPIES = 14  # of a recurrent layer's states: gates, sums and what their gradients need, step by step


def per_model(architecture: Architecture, batch: int) -> int:
    """Bytes that a model takes while it trains: its batch twice (as drawn, as the kernels read it), every layer's
    output, and its weights with gradient, slots and what an update holds between."""
    inputs = math.prod(architecture.input_shape)
    outputs = sum(math.prod(n.shape) * (RECURRENT_COPIES if n.op in ("gru", "lstm") else 1) for n in architecture.nodes)
    return math.ceil(MARGIN * 4 * (batch * (2 * inputs + outputs) + 12 * architecture.n_params))


def width(architecture: Architecture, batch: int, device_bytes: int) -> int:
    """Models side by side: the largest power of two up to `MOST_MODELS` that fits. Raises GridError."""
    fitting = device_bytes // SHARE // per_model(architecture, batch)
    if not fitting:
        raise GridError(
            f"One model takes {size(per_model(architecture, batch))} of the GPU in batches of {batch:,}, and a worker has "
            f"{size(device_bytes // SHARE)}, a quarter of it. Lower `batch_size`, or take smaller layers."
        )
    return int(min(MOST_MODELS, 2 ** int(math.log2(fitting))))


def total() -> int | None:
    """Bytes of the first GPU, or None where this machine has none."""
    with libraries.needed():
        import torch
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def check_free(
    architecture: Architecture, batch: int, models: int, abreast: int, pool: int, device: torch.device
) -> None:
    """Raises BuildError where other programs leave too little of the GPU for a cohort, so many of it abreast, and the bytes of its images."""
    with libraries.needed():
        import torch
    free, whole = torch.cuda.mem_get_info(device)
    # What this process has reserved and does not use is free to it.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # All wait there with weights and slots, twice: theirs, and those of the part that steps.
    needed = abreast * per_model(architecture, batch) + models * 4 * 8 * architecture.n_params + pool
    if needed > free:
        raise BuildError(
            f"{models:,} models, {abreast:,} of them side by side, take {size(needed)} of the GPU, and other programs leave {size(free)} of its "
            f"{size(whole)}. End them, or lower `cohort_size`, and run the same command again."
        )


@contextlib.contextmanager
def said() -> Iterator[None]:
    """Raises BuildError where the GPU's memory runs out inside. Nothing is made smaller in silence."""
    with libraries.needed():
        import torch
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise BuildError(
            "The GPU's memory ran out while a cohort trained: another program or worker takes more of it than before. End "
            "it, or lower `cohort_size` or `--workers`, and run the same command again; finished cohorts are kept."
        ) from error
