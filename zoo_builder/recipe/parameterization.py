"""Settings of a run → how many times as wide as its base the network is: 1 in the standard parameterization.

The width is the units of the first layer that has any, and `mup_base` is what that is in the base; all other hidden layers
are taken to be as many times as wide. A width that is the number of `classes` cannot grow, and is its own base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_builder.recipe.generated import layers_of
from zoo_datasets.networks.layers import PRESETS, parse_layer, unrolled
from zoo_datasets.networks.operations.registry import operation

ADAPTIVE = ("adam", "adamw", "rmsprop")  # whose steps do not grow with the gradient


def width_ratio(settings: Mapping[str, Any]) -> float:
    """The width of a run's network over that of its base."""
    if settings.get("parameterization", "standard") == "standard":
        return 1.0
    layers = layers_of(settings)
    for place, layer in unrolled(PRESETS[layers] if isinstance(layers, str) else layers):
        op, attributes = parse_layer(layer, place, 0, settings["activation"])  # 0 stands for however many classes
        if operation(op).units:
            units = attributes.get("channels") or attributes.get("features")
            return units / settings["mup_base"] if units else 1.0
    return 1.0


def largest_rate(settings: Mapping[str, Any]) -> float:
    """The learning rate of the tensor that has the highest."""
    ratio = width_ratio(settings)
    lower = 1.0 / ratio
    return float(settings["lr"]) * max(1.0, lower if settings["optimizer"] in ADAPTIVE else max(ratio, lower))
