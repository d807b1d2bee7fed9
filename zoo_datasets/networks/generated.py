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

from zoo_datasets.errors import GridError
from zoo_datasets.networks.architecture import Architecture

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
    kept: bool = False  # at its default too it is in ids and tables

    def setting_of(self, generator: str) -> str:
        return self.setting or f"{generator}_{self.name}"


@dataclasses.dataclass(frozen=True)
class Generator:
    """A named family of architectures."""

    name: str
    parameters: tuple[Parameter, ...]
    layers: Callable[..., Layers]  # of a value for each parameter, by its name
    # Raises GridError where an architecture made of them is none that the name stands for.
    check: Callable[[Architecture], None] = lambda architecture: None

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


# ── Neural Weight Space (Eilertsen et al. 2020), as its released code builds them ──

NWS_BLOCKS = 3
NWS_OUTPUTS = 20  # whatever the classes
NWS_DROPOUT = 0.5
MOST_NWS_LAYERS = 100  # of a kind: theirs have at most five
NWS_SIDE = 32  # pixels of their images


def nws_layers(
    filter_size: int, depth_conv: int, depth_fc: int, width_conv: int, width_fc: int, batch_norm: bool = True
) -> Layers:
    """Three blocks of convolutions, each ending in a 2×2 maximum, and fully connected layers. Raises GridError.

    Block c has `width_conv`·2ᶜ channels, and where there are more than three convolutions, the last blocks have them.
    Fully connected layer c has `width_fc`·2⁻ᶜ units. Batch norm stands before the activation of a convolution and
    behind that of a unit; dropout of one half follows it.
    """
    given = {
        "filter_size": filter_size,
        "depth_conv": depth_conv,
        "depth_fc": depth_fc,
        "width_conv": width_conv,
        "width_fc": width_fc,
    }
    for name, number in given.items():
        if number < 1:
            raise GridError(f"`{name}` is {number}; a network has at least 1.")
    if filter_size % 2 == 0 or filter_size > NWS_SIDE:
        raise GridError(
            f"`filter_size` is {filter_size}; it is odd and at most the {NWS_SIDE} pixels of an image's side."
        )
    if not NWS_BLOCKS <= depth_conv <= MOST_NWS_LAYERS or depth_fc > MOST_NWS_LAYERS:
        raise GridError(
            f"There are {depth_conv} convolutions and {depth_fc} fully connected layers; {NWS_BLOCKS} to "
            f"{MOST_NWS_LAYERS} and 1 to {MOST_NWS_LAYERS} can be."
        )
    if width_fc % (1 << depth_fc - 1):
        raise GridError(f"`width_fc` {width_fc} cannot be halved {depth_fc - 1} times, once for each further layer.")
    norm = ["batch_norm"] if batch_norm else []
    made: Layers = []
    for block in range(NWS_BLOCKS):
        conv = {"conv": width_conv << block, "kernel": filter_size, "padding": filter_size // 2}
        for _ in range((depth_conv + block) // NWS_BLOCKS):
            made += [conv, *norm, "activation"]
        made.append({"max_pool": 2})
    made.append("flatten")
    for layer in range(depth_fc):
        made += [{"linear": width_fc >> layer}, "activation", *norm, {"dropout": NWS_DROPOUT}]
    return [*made, {"linear": "classes", "outputs": NWS_OUTPUTS}]


def _filters_fit(architecture: Architecture) -> None:
    """Raises GridError for a filter larger than what it is given: most of it would only ever read the border."""
    for node in architecture.nodes:
        if node.op == "conv":
            _, rows, columns = architecture.input_shapes[node.name]
            if (kernel := node.attrs["kernel"]) > min(rows, columns):
                enough = kernel * (max(architecture.input_shape[1:]) // max(1, min(rows, columns)))
                raise GridError(
                    f"`filter_size` is {kernel}, and {node.name} is given {rows}×{columns} values. Lower it, or take larger images: "
                    f"`source: {{resize: {enough}}}`."
                )


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
        # Parameters have their published names, which are the columns that code for these networks asks for.
        Generator(
            "nws",
            (
                Parameter("filter_size", "int", 5, "side of all filters, odd, padded by half of it", low=1, high=31, setting="filter_size", kept=True),
                Parameter("depth_conv", "int", 3, "convolutions, in three blocks", low=3, high=100, setting="depth_conv", kept=True),
                Parameter("depth_fc", "int", 2, "fully connected layers, besides the last", low=1, high=100, setting="depth_fc", kept=True),
                Parameter("width_conv", "int", 8, "channels of the first block; each further one has twice as many", low=1, high=4096, setting="width_conv", kept=True),
                Parameter("width_fc", "int", 128, "units of the first fully connected layer; each further one has half", low=1, high=65536, setting="width_fc", kept=True),
                Parameter("batch_norm", "bool", True, "batch norm in every layer but the last", setting="batch_norm", kept=True),
            ),
            nws_layers,
            _filters_fit,
        ),
    )
}  # fmt: skip
