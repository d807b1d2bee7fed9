"""Five numbers of Neural Weight Space ↔ the network that they stand for.

In:  filter size, depth and width of the convolutions, depth and width of the fully connected layers,
     activation. Out: the `Architecture`; or the numbers, read off an architecture.

The layers are those of the generated architecture `nws`, which `networks/generated.py` alone knows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.generated import NWS_OUTPUTS, nws_layers
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.operations.registry import ACTIVATIONS

INPUT = (3, 32, 32)


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
        return nws_layers(**dataclasses.asdict(self))

    def network(self, activation: str) -> Architecture:
        """The architecture. Raises ZooError where no network has such numbers."""
        return build_architecture(self.layers(), INPUT, NWS_OUTPUTS, activation)


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
