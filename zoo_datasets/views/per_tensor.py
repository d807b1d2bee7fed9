"""Weights → the vectors themselves, and the statistics of each tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Shaped

from zoo_datasets.networks.layout import Layout
from zoo_datasets.views.index import entries_of, index_of

# Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (2020):
# with mean and variance 7 numbers a tensor, for kernel and bias of each layer.
UNTERTHINER_2020 = (0.0, 0.25, 0.5, 0.75, 1.0)
# Eilertsen et al., "Classifying the classifier" (2020, section on feature-based
# meta-classification): with mean, variance and skewness 8 numbers. The published code of
# Schürholt et al., "Self-Supervised Representation Learning on Neural Network Weights"
# (2021), takes these with mean and variance only. Both use population variance.
EILERTSEN_2020 = (0.01, 0.25, 0.5, 0.75, 0.99)


def flat(
    weights: Shaped[np.ndarray, "*batch p"], layout: Layout, buffers: bool = True
) -> Shaped[np.ndarray, "*batch parameters"]:
    """The vectors themselves, or without their buffers."""
    weights = layout.checked(weights)
    return weights if buffers else weights[..., index_of(layout, buffers=False)]


def statistics(
    weights: Shaped[np.ndarray, "*batch p"], layout: Layout, quantiles: Sequence[float] = UNTERTHINER_2020,
    *, skewness: bool = False, buffers: bool = False,
) -> Float64[np.ndarray, "*batch t kinds"]:  # fmt: skip
    """Per tensor its mean, variance, (skewness) and quantiles.

    T tensors in layout order. Variance is the population's; quantiles interpolate linearly;
    the skewness of a constant tensor is 0. See `UNTERTHINER_2020`, `EILERTSEN_2020` (with
    `skewness=True`) for the published sets, and `statistic_names` for the columns.
    """
    weights = layout.checked(weights)
    _check_quantiles(quantiles)
    columns = []
    for e in entries_of(layout, buffers):
        w = weights[..., e.offset : e.end].astype(np.float64)
        mean = w.mean(-1, keepdims=True)
        centered = w - mean
        variance = (centered * centered).mean(-1)
        parts = [mean[..., 0], variance]
        if skewness:
            third = (centered * centered * centered).mean(-1)  # a power of 3 takes many times as long
            parts.append(np.divide(third, variance**1.5, out=np.zeros_like(third), where=variance > 0))
        parts += list(np.quantile(w, quantiles, axis=-1))
        columns.append(np.stack(parts, -1))
    return np.stack(columns, -2)


def statistic_names(
    layout: Layout, quantiles: Sequence[float] = UNTERTHINER_2020,
    *, skewness: bool = False, buffers: bool = False,
) -> list[str]:  # fmt: skip
    """Names of `statistics(…).reshape(-1, T * F)`: `conv1.weight:mean`, …, `linear2.bias:q100`."""
    _check_quantiles(quantiles)
    kinds = ["mean", "variance", *(["skewness"] if skewness else []), *(f"q{100 * q:g}" for q in quantiles)]
    return [f"{e.name}:{kind}" for e in entries_of(layout, buffers) for kind in kinds]


def _check_quantiles(quantiles: Sequence[float]) -> None:
    wrong = [q for q in quantiles if not 0 <= q <= 1]
    if wrong:
        raise ValueError(f"Quantile {wrong[0]} is not in [0, 1]; the 99th percentile is 0.99.")
