"""Settings of runs → which of them start from the same weights, and with that their splits.

In:  runs with their stream keys.
Out: the init group of each, and the split of each group.

An init that draws nothing (`constant`, a `normal` of std 0, a `uniform` whose ends are equal) gives the
same weights under every key: there the group is made of those values and of the layers that hold them, and
replicates are one group. It follows from the settings alone: splits are assigned before a source is opened.
Layouts that differ in their input's shape alone are one group too, which parts nothing that belongs together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_builder.recipe.generated import layers_of, takes
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError
from zoo_datasets.format import splits
from zoo_datasets.networks.layers import PRESETS, parse_layer, unrolled
from zoo_datasets.networks.operations.registry import operation

# `streams.normals` ends at ±8.3: it has 2⁵³ values.
MOST_DEVIATIONS = 9.0
SIZES = ("channels", "features", "kernel")  # attributes that a layer's tensors have their shape from


def fixed_start(settings: Mapping[str, Any]) -> str | None:
    """A key of the weights that every replicate of these settings starts from; None where they are drawn.

    Ends count as equal where float32, which weights are kept in, does not tell them apart.
    """
    plain = _value(settings, "init")
    ends = [_value(settings, f"init_{layer}") if _own(settings, layer) else plain for layer in ("first", "last")]
    if plain is None and ends == [None, None]:  # the common case: most inits draw
        return None
    spread = MOST_DEVIATIONS * (settings.get("norm_scale_std") or 0.0)
    if _single(1 - spread) != _single(1 + spread) and takes(settings, "batch_norm"):
        return None
    layers = _layers(layers_of(settings), settings["activation"])
    if len(layers) == 1:
        ends = [ends[0] if _own(settings, "first") or not _own(settings, "last") else ends[1]]
    values = [*ends[:1], *[plain] * (len(layers) - 2), *ends[1:]][: len(layers)]
    if None in values:
        return None
    return streams.digest({"layers": layers, "values": values, "bias": _single(settings["init_bias"])})


def assign(runs: Sequence[Any], fractions: Mapping[str, float], rule: str = "") -> dict[str, str]:
    """`splits.assign` of the runs' init groups. Raises GridError, which says so where replicates do not help."""
    try:
        return splits.assign((r.init_group for r in runs), fractions, rule)
    except GridError as error:
        if not any(fixed_start(r.settings) for r in runs):
            raise
        raise GridError(
            f"{error} An init that draws nothing starts all networks of an architecture alike: they are one group, "
            "however many the `replicates`."
        ) from None


def _own(settings: Mapping[str, Any], layer: str) -> bool:
    return settings.get(f"init_{layer}_kind") is not None


def _value(settings: Mapping[str, Any], prefix: str) -> float | None:
    """What all weights of that init are; None where they differ."""
    kind = settings.get(f"{prefix}_kind")
    low, high = settings.get(f"{prefix}_low"), settings.get(f"{prefix}_high")
    if kind == "constant":
        low = high = settings["init_value"]
    elif kind == "normal" and settings.get(f"{prefix}_std") is not None:
        mean, spread = settings.get(f"{prefix}_mean") or 0.0, MOST_DEVIATIONS * settings[f"{prefix}_std"]
        low, high = mean - spread, mean + spread
    elif kind != "uniform":
        return None
    if low is None or high is None or _single(low) != _single(high):
        return None
    return _single(low)


def _single(value: float) -> float:
    """As float32 keeps it; −0 is 0."""
    with np.errstate(over="ignore"):
        return float(np.float32(value)) + 0.0


def _layers(architecture: Any, activation: str) -> list[Any]:
    """The layers that hold weights: their operations and what their tensors' shapes come from."""
    found = []
    for place, layer in unrolled(PRESETS[architecture] if isinstance(architecture, str) else architecture):
        op, attributes = parse_layer(layer, place, 0, activation)  # 0 stands for however many classes there are
        if operation(op).units:
            found.append([op, {k: v for k, v in attributes.items() if k in SIZES}])
    return found
