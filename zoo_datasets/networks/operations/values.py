"""What layers are made of in torch: the forms of a value, and modules from functions.

The value of m networks at once has one of two forms, told apart by its dimensions:

* stacked: (m, B, features) or (m, B, C, H, W); a sequence is (m, B, steps·features);
* grouped: (B, m·C, H, W), channels last in memory.

Images are grouped on a CPU. On a GPU they stay stacked, with the samples innermost in memory
(`gpu/convolution.py`). In evaluation m is 1 until the first layer with weights, where all networks see the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zoo_datasets.core import libraries
from zoo_datasets.networks.operations.operation import Layer

with libraries.needed():
    import torch
    import torch.nn.functional as F
    from torch import nn

__all__ = ["Add", "F", "Function", "elementwise", "grouped", "nn", "on_gpu", "stacked", "torch"]


MOST_KERNEL = 16  # sides of windows that the kernels of `gpu/` take


def on_gpu(x: torch.Tensor, kernel: int = 1) -> bool:
    """Whether an image stays stacked, for the kernels of `gpu/`."""
    return x.dim() == 5 and x.device.type == "cuda" and kernel <= MOST_KERNEL


def grouped(x: torch.Tensor) -> torch.Tensor:
    """(m, B, C, H, W) → (B, m·C, H, W), channels last in memory; a grouped value stays."""
    if x.dim() == 4:
        return x
    # Made, not asked for: a single channel counts as both formats, so no conversion would
    # touch its strides, and the kernels choose by strides.
    m, batch, channels, *size = x.shape
    out = torch.empty(batch, m * channels, *size, memory_format=torch.channels_last)
    out.unflatten(1, (m, channels)).copy_(x.transpose(0, 1))
    return out


def stacked(x: torch.Tensor, channels: int) -> torch.Tensor:
    """(B, m·C, H, W) → (m, B, C, H, W); a stacked value stays."""
    return x.unflatten(1, (-1, channels)).transpose(0, 1) if x.dim() == 4 else x


def elementwise(function: Callable[[torch.Tensor], torch.Tensor]) -> Layer:
    """The layer of a function without tensors that takes a value in any form."""
    return lambda own, x, training: function(x)


class Add(nn.Module):
    """The sum of two values of one network."""

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return x + skip


class Function(nn.Module):
    """A layer of one network, as a function of its tensors and its input (B, …)."""

    def __init__(
        self, name: str, function: Layer, shapes: Mapping[str, tuple[int, ...]] | None = None, bound: float = 0.0
    ) -> None:
        """`shapes` are of its parameters, which start uniform in ±bound, as PyTorch's own layers do."""
        super().__init__()
        self.name, self.function, self.shapes = name, function, dict(shapes or {})
        for leaf, shape in self.shapes.items():
            setattr(self, leaf, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def _get_name(self) -> str:
        return self.name

    def extra_repr(self) -> str:
        return ", ".join(f"{leaf}: {'×'.join(map(str, shape))}" for leaf, shape in self.shapes.items())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function({leaf: getattr(self, leaf) for leaf in self.shapes}, x, self.training)
