"""Five numbers of Neural Weight Space ↔ the network that they stand for.

In:  filter size, depth and width of the convolutions, depth and width of the fully connected layers,
     activation. Out: the `Architecture`; or the numbers, read off an architecture.

Three blocks of convolutions, each ending in a 2×2 maximum; block c has `width_conv`·2ᶜ channels, and where
there are more than three layers, the last blocks have them. Fully connected layer c has `width_fc`·2⁻ᶜ
units. Batch norm stands before the activation of a convolution and behind that of a unit; dropout of one half
follows it. Twenty logits, whatever the classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.operations.registry import ACTIVATIONS

INPUT = (3, 32, 32)
OUTPUTS = 20
BLOCKS = 3
DROPOUT = 0.5
MOST_LAYERS = 100  # of a kind: theirs have at most five


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What Neural Weight Space says of an architecture, besides its activation."""

    filter_size: int
    depth_conv: int
    depth_fc: int
    width_conv: int
    width_fc: int
    batch_norm: bool = True

    def layers(self) -> list[Any]:
        """The list of layers. Raises ZooError where no network has such numbers."""
        self._check()
        norm = ["batch_norm"] if self.batch_norm else []
        made: list[Any] = []
        for block in range(BLOCKS):
            conv = {"conv": self.width_conv << block, "kernel": self.filter_size, "padding": self.filter_size // 2}
            for _ in range((self.depth_conv + block) // BLOCKS):
                made += [conv, *norm, "activation"]
            made.append({"max_pool": 2})
        made.append("flatten")
        for layer in range(self.depth_fc):
            made += [{"linear": self.width_fc >> layer}, "activation", *norm, {"dropout": DROPOUT}]
        return [*made, {"linear": "classes"}]

    def _check(self) -> None:
        for name in ("filter_size", "depth_conv", "depth_fc", "width_conv", "width_fc"):
            if getattr(self, name) < 1:
                raise ZooError(f"`{name}` is {getattr(self, name)}; a network has at least 1.")
        if self.filter_size % 2 == 0 or self.filter_size > INPUT[1]:
            raise ZooError(
                f"`filter_size` is {self.filter_size}; it is odd and at most the {INPUT[1]} pixels of an image's side."
            )
        if not BLOCKS <= self.depth_conv <= MOST_LAYERS or self.depth_fc > MOST_LAYERS:
            raise ZooError(
                f"There are {self.depth_conv} convolutions and {self.depth_fc} fully connected layers; {BLOCKS} to "
                f"{MOST_LAYERS} and 1 to {MOST_LAYERS} can be."
            )
        if self.width_fc % (1 << self.depth_fc - 1):
            raise ZooError(
                f"`width_fc` {self.width_fc} cannot be halved {self.depth_fc - 1} times, once for each further layer."
            )

    def network(self, activation: str) -> Architecture:
        """The architecture. Raises ZooError where no network has such numbers."""
        return build_architecture(self.layers(), INPUT, OUTPUTS, activation)


def read_off(architecture: Architecture | External) -> tuple[Numbers, str] | None:
    """The numbers and the activation of a network of theirs, whatever its dropout; None for any other."""
    nodes = architecture.built().nodes
    convs, linears = ([n for n in nodes if n.op == op] for op in ("conv", "linear"))
    activation = next((n.op for n in nodes if n.op in ACTIVATIONS), "")
    if not convs or len(linears) < 2 or not activation:
        return None
    numbers = Numbers(
        convs[0].attrs["kernel"], len(convs), len(linears) - 1, convs[0].shape[0], linears[0].shape[0],
        any(n.op == "batch_norm" for n in nodes),
    )  # fmt: skip
    try:
        made = numbers.network(activation)
    except ZooError:
        return None
    return (numbers, activation) if _weights_of(made) == _weights_of(architecture.built()) else None


def _weights_of(architecture: Architecture) -> list[Any]:
    """What decides where the weights lie and what they do: everything but dropout and names."""
    layers = [(n.op, n.shape, dict(n.attrs)) for n in architecture.nodes if n.op != "dropout"]
    return [architecture.input_shape, *layers]


def conv_values(architecture: Architecture) -> int:
    """How many values of the vector are of convolutions and their batch norms; they come first."""
    flatten = next(i for i, n in enumerate(architecture.nodes) if n.op == "flatten")
    return sum(e.size for n in architecture.nodes[:flatten] for e in architecture.layout.of_node(n.name))
