"""Name and parameters → a list of layers: architectures that are generated, where a list for each would be hundreds.

In:  a name of `GENERATED`, and a value for each of its parameters.
Out: layers, as a recipe writes them and `layers.build_architecture` takes them.

A recipe says `architecture: wild` or `architecture: {wild: {depth: 4}}`, and varies the parameters as axes, each of
which is a column of its own. The same values give the same layers, whatever the version: as of a preset, ids of models
hold the name and the values alone. So what a name gives may never change (a test pins it); another rule is another name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

Layers = list[Any]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a generated architecture can be told: its key in the recipe, its type and its range."""

    name: str
    kind: str  # "int", "bool" or "choice"
    default: Any
    doc: str
    _: dataclasses.KW_ONLY
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    setting: str = ""  # its axis and column; by default the architecture's name before its own

    def setting_of(self, generator: str) -> str:
        return self.setting or f"{generator}_{self.name}"


@dataclasses.dataclass(frozen=True)
class Generator:
    """A named family of architectures."""

    name: str
    parameters: tuple[Parameter, ...]
    layers: Callable[..., Layers]  # of a value for each parameter, by its name

    def __call__(self, values: Mapping[str, Any]) -> Layers:
        """The layers of these values; what is missing is at its default."""
        return self.layers(**{p.name: values.get(p.name, p.default) for p in self.parameters})


def _wild(depth: int, channels: int, kernel: int, skip: bool, norm: bool) -> Layers:
    """A convolution of stride 2, a pool, and more convolutions of as many channels, around each of which a skip may lead.

    Those behind the first lie on 8×8 values of a 32×32 image, where five of them cost what two cost before the pool.
    """
    normed = ["batch_norm"] if norm else []

    def conv(**options: int) -> Layers:
        return [{"conv": channels, "kernel": kernel, **options, "padding": kernel // 2}, *normed, "activation"]

    body = [[{"residual": conv()}] if skip else conv() for _ in range(depth - 1)]
    return [
        *conv(stride=2), {"max_pool": 2}, *(layer for block in body for layer in block), "global_avg_pool",
        {"linear": "classes"},
    ]  # fmt: skip


def _unterthiner(width: int) -> Layers:
    """Three convolutions of stride 2 and a mean, after Unterthiner et al. (2020), whose width is 16; dropout as a recipe says."""
    return [
        *(layer for _ in range(3) for layer in ({"conv": width, "kernel": 3, "stride": 2}, "activation", "dropout")),
        "global_avg_pool", {"linear": "classes"},
    ]  # fmt: skip


GENERATED: dict[str, Generator] = {
    g.name: g
    for g in (
        Generator(
            "wild",
            (
                Parameter("depth", "int", 3, "convolutions", low=1, high=64),
                Parameter("channels", "int", 16, "channels of each", low=1, high=4096),
                Parameter("kernel", "int", 3, "side of their kernels, padded by half of it: odd with `skip`", low=1, high=31),
                Parameter("skip", "bool", False, "what enters a convolution but the first is added to what its activation gives"),
                Parameter("norm", "bool", False, "batch norm before each activation"),
            ),
            _wild,
        ),
        Generator(
            "unterthiner",
            (Parameter("width", "int", 16, "channels of its three convolutions", low=1, high=4096, setting="width"),),
            _unterthiner,
        ),
    )
}  # fmt: skip
