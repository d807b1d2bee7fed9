"""Raw inputs of a source's training part → the affine map to what networks see.

In:  inputs (n, C, H, W), (n, F) or (n, T, F), their peak, the scale that the recipe asks for.
Out: mean and std of each channel or feature, in units of the peak, and what is constant there.

Sums are exact: a source has the same scale on every machine, in whatever order its rows are read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from zoo_datasets.errors import GridError
from zoo_datasets.sources import columns
from zoo_datasets.sources.spec import Source, SourceSpec


def scale_of(
    spec: SourceSpec, inputs: np.ndarray, peak: float, channel_names: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """Mean and std per channel of unit-scaled values, such that (raw / peak − mean) / std is the scale; what is constant.

    Raises GridError where all inputs are the same, or what the recipe gives does not fit them.
    """
    if inputs.ndim == 3:  # sequences: every step is an input of its features
        inputs = inputs.reshape(-1, inputs.shape[2])
    channels = inputs.shape[1]
    constant = [i for i in range(channels) if (inputs[:, i] == inputs[:1, i].ravel()[0]).all()]
    if len(constant) == channels or (
        len(inputs) > 1 and (inputs[0] == inputs[1]).all() and (inputs == inputs[:1]).all()
    ):
        raise GridError(
            f"Source {spec.id!r} has the same input in all {len(inputs)} rows of its training part, so nothing can be learned "
            "from it, and no scale be taken of it. Name other columns, or more rows."
        )
    said = columns.first_of([channel_names[i] for i in constant])
    notes = [f"source {spec.id}: constant over the training part: {said}"] if constant else []
    if spec.scale == "none":
        return (0.0,) * channels, (1.0 / peak,) * channels, notes
    if spec.scale == "unit":
        return (0.0,) * channels, (1.0,) * channels, notes
    if spec.mean is None or spec.std is None:
        pairs = [_statistics(inputs[:, channel], peak) for channel in range(channels)]
        for i in set(range(channels)) - set(constant):
            if pairs[i][1] == 0:
                raise GridError(
                    f"Source {spec.id!r} has values in {channel_names[i]} that differ by too little to be standardized: "
                    "their variance is 0 in float64. Rescale them."
                )
        return tuple(mean for mean, _ in pairs), tuple(std or 1.0 for _, std in pairs), notes
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) != channels:
            raise GridError(f"Source {spec.id!r} has {len(values)} numbers in {name} and {channels} channels.")
    return tuple(map(float, spec.mean)), tuple(map(float, spec.std)), notes


def _statistics(values: np.ndarray, peak: float) -> tuple[float, float]:
    """Mean and std of one channel over peak, from exact sums; the std of a constant channel is 0."""
    n = values.size
    if values.dtype in (np.uint8, np.uint16):
        # Blocks: bincount widens to int64, eight times the images.
        levels = int(np.iinfo(values.dtype).max) + 1
        blocks = np.array_split(values, n // 10**7 + 1)
        counts = sum((np.bincount(b.ravel(), minlength=levels) for b in blocks), np.zeros(levels, np.int64))
        total = sum(level * int(count) for level, count in enumerate(counts))
        squares = sum(level * level * int(count) for level, count in enumerate(counts))
        return total / n / peak, math.sqrt((n * squares - total * total) / (n * n)) / peak

    def wide() -> Iterator[float]:  # blocks: a list of floats is eight times the values
        parts = (np.asarray(b, np.float64).ravel().tolist() for b in np.array_split(values, n // 10**6 + 1))
        return (value / peak for value in itertools.chain.from_iterable(parts))

    mean = math.fsum(wide()) / n
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in wide()) / n)


def check_range(source: Source) -> None:
    """Raises GridError where scaled features leave float32, or all of a varying one come to one value."""
    if source.train.inputs.ndim != 2:
        return
    for name in ("train", "validation", "test"):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            scaled = source.scaled(getattr(source, name).inputs)
        if not np.isfinite(scaled).all():
            raise GridError(
                f"Source {source.spec.id!r} has features in its {name} part that are too large once they are scaled (float32). "
                "Rescale them, or leave their columns out: source.features."
            )
