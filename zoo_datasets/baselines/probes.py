"""A number → probes: inputs that are shown to networks, made by a generator, learned as they are, or random.

In:  how many, and the shape of the networks' input. Out: probes (T, *shape), a function of what is learned.

The generator is that of Kahana et al., "Deep Linear Probe Generators for Weight Space Learning" (2025): for each
probe a learned code of 32 numbers, then transposed convolutions without a nonlinearity between them, and one tanh.
"""

from __future__ import annotations

import itertools
import math

from zoo_datasets import errors
from zoo_datasets.core import libraries

with libraries.needed():
    import torch
    from torch import nn

CODE = 32  # numbers in a probe's code, as published
FIRST, LAST = 4, 16  # side of the first image; channels before the last convolution
MOST_CHANNELS = 128  # of the first image, as published for 32 × 32
KINDS = ("generated", "learned", "random")


class Generated(nn.Module):
    """Probes of a deep linear generator.

    An image of 32 × 32 takes the published six layers (4 × 4, doubled three times); another size as many doublings
    as it needs, and is cut to its middle.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.codes = nn.Parameter(torch.randn(count, CODE))
        self.layers = _of_images(shape) if len(shape) == 3 else _of_features(math.prod(shape))

    def forward(self) -> torch.Tensor:
        if len(self.shape) != 3:
            return torch.tanh(self.layers(self.codes)).unflatten(1, self.shape)
        images = torch.tanh(self.layers(self.codes[:, :, None, None]))  # (T, C, side, side)
        rows, columns = self.shape[1:]
        top, left = (images.shape[2] - rows) // 2, (images.shape[3] - columns) // 2
        return images[:, :, top : top + rows, left : left + columns]


def _of_images(shape: tuple[int, ...]) -> nn.Sequential:
    doublings = max(0, math.ceil(math.log2(max(shape[1:]) / FIRST)))
    widths = [min(MOST_CHANNELS, LAST * 2**i) for i in range(doublings, -1, -1)]  # 128, 64, 32, 16
    layers: list[nn.Module] = [nn.ConvTranspose2d(CODE, widths[0], FIRST)]
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        if i == doublings - 1:
            layers.append(nn.ConvTranspose2d(before, before, 3, padding=1))
        layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], shape[0], 3, padding=1))


def _of_features(count: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(CODE, CODE), nn.Linear(CODE, count))


class Plain(nn.Module):
    """Probes that are learned value by value, or with `learned` false stay as they were drawn."""

    def __init__(self, count: int, shape: tuple[int, ...], learned: bool = True) -> None:
        super().__init__()
        drawn = torch.randn(count, *shape).tanh()
        self.probes: torch.Tensor
        if learned:
            self.probes = nn.Parameter(drawn)
        else:
            self.register_buffer("probes", drawn)

    def forward(self) -> torch.Tensor:
        return self.probes


def probes(kind: str, count: int, shape: tuple[int, ...]) -> nn.Module:
    """The probes of that kind. Raises ZooError for one that is not known."""
    if kind not in KINDS:
        raise errors.ZooError(errors.unknown("kind of probe", kind, KINDS))
    return Generated(count, shape) if kind == "generated" else Plain(count, shape, learned=kind == "learned")
