"""Values of m networks on a GPU → convolved and pooled values, differentiable, by kernels of our own.

In:  values (m or 1, B, C, H, W), weights (m, O, C, K, K) and biases (m, O). Out: (m, B, O, ·, ·).
Samples lie innermost in memory, as `convolution.cu` says; in shape the values stay *stacked*.

cuDNN's grouped convolutions reach 2 % of an H200's float32 rate on the networks of a zoo, because a group of
one network is small. These do not: measured by `benchmarks/gpu.py`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from zoo_datasets.core import libraries
from zoo_datasets.networks.gpu import nvrtc

with libraries.needed():
    import torch
    import torch.nn.functional as F

SOURCE = nvrtc.Source("convolution.cu")
MOST_COLUMNS = 8  # of outputs, that a thread holds at a time
MOST_CHANNELS = 8  # likewise: 64 sums and a window of the row stay in registers
MOST_TAPS = 100  # sums of the weights' gradient that a thread holds
THREADS = 128
SHARED_VALUES = 4096  # of weights in shared memory at a time, 16 kB
VERSION = "1"  # of the kernels' arithmetic: it is part of what a network's bits depend on


compiler: nvrtc.Compiler = nvrtc


def inner(x: torch.Tensor) -> torch.Tensor:
    """(m, B, C, H, W) → (m, C, H, W, B), contiguous; free where the memory lies so."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def outer(x: torch.Tensor) -> torch.Tensor:
    """(m, C, H, W, B) → (m, B, C, H, W), the same memory."""
    return x.permute(0, 4, 1, 2, 3)


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """Sizes of a convolution: inputs C × H × W, outputs O × rows × columns, B samples, m networks."""

    m: int
    batch: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel: int
    stride: int
    padding: int

    @property
    def rows(self) -> int:
        return (self.height + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def columns(self) -> int:
        return (self.width + 2 * self.padding - self.kernel) // self.stride + 1

    def constants(self) -> dict[str, int]:
        return {"B": self.batch, "K": self.kernel, "S": self.stride, "PAD": self.padding}


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: int) -> Any:
        shared, channels, height, width, batch = x.shape  # shared is 1 where all networks see the same values
        m, outputs, _, kernel, _ = weight.shape
        g = _Geometry(m, batch, channels, height, width, outputs, kernel, stride, padding)
        ctx.geometry = g
        ctx.save_for_backward(x, weight)
        out = x.new_empty(m, outputs, g.rows, g.columns, batch)
        _convolve(g, False, x, 0 if shared < m else x[0].numel(), weight, bias, out)
        return out

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        g, given = ctx.geometry, given.contiguous()
        stride = 0 if len(x) < g.m else x[0].numel()
        dx = None
        if ctx.needs_input_grad[0]:
            dx = x.new_empty(g.m, *x.shape[1:])
            _convolve(g, True, given, given[0].numel(), weight, None, dx)
            if len(x) < g.m:
                dx = dx.sum(0, keepdim=True)
        dw, db = torch.empty_like(weight), weight.new_empty(g.m, g.outputs)
        _weight_gradient(g, x, stride, given, dw, db)
        return dx, dw, db, None, None


def _run(width: int, multiple: int = 1) -> tuple[int, int]:
    """Columns that a thread takes, and how many threads a row needs."""
    run = math.ceil(width / math.ceil(width / MOST_COLUMNS))
    run = math.ceil(run / multiple) * multiple
    return run, math.ceil(width / run)


def _even(count: int, most: int) -> int:
    """So many at a time that all takes are about equal and none above `most`."""
    return math.ceil(count / math.ceil(count / most))


def _threads(units: int) -> int:
    return min(THREADS, math.ceil(units / 32) * 32)


def _convolve(
    g: _Geometry, transposed: bool, x: torch.Tensor, stride: int, weight: torch.Tensor, bias: torch.Tensor | None,
    out: torch.Tensor,
) -> None:  # fmt: skip
    inputs, outputs = (g.outputs, g.channels) if transposed else (g.channels, g.outputs)
    height, width = (g.rows, g.columns) if transposed else (g.height, g.width)
    rows, columns = (g.height, g.width) if transposed else (g.rows, g.columns)
    run, tiles = _run(columns, g.stride if transposed else 1)
    at_once = _even(outputs, MOST_CHANNELS)
    padded = math.ceil(at_once / 4) * 4
    units = g.batch * rows * tiles
    threads = _threads(units)
    constants = g.constants() | {
        "CONVOLVE": 1, "TRANSPOSED": int(transposed), "CI": inputs, "CO": outputs, "HI": height, "WI": width, "ROWS": rows,
        "COLUMNS": columns, "TILES": tiles, "PW": run, "OB": at_once, "NT": threads,
        "CB": max(1, min(inputs, SHARED_VALUES // (g.kernel**2 * padded))),
    }  # fmt: skip
    grid = math.ceil(units / threads), math.ceil(outputs / at_once), g.m
    compiler.compiled(SOURCE, constants, out.device).launch("convolve", grid, threads, x, stride, weight, bias, out)


def _weight_gradient(
    g: _Geometry, x: torch.Tensor, stride: int, given: torch.Tensor, dw: torch.Tensor, db: torch.Tensor
) -> None:
    run, tiles = _run(g.columns)
    kernel_rows = max(1, min(g.kernel, MOST_TAPS // g.kernel))
    parts = math.ceil(g.kernel / kernel_rows)
    at_once = _even(g.outputs, max(1, min(MOST_CHANNELS, MOST_TAPS // (kernel_rows * g.kernel))))
    constants = g.constants() | {
        "WEIGHT_GRADIENT": 1, "C": g.channels, "H": g.height, "W": g.width, "O": g.outputs, "ROWS": g.rows,
        "COLUMNS": g.columns, "TILES": tiles, "PW": run, "OB": at_once, "KR": kernel_rows, "PARTS": parts,
        "NT": (threads := _threads(g.batch * g.rows * tiles)),
    }  # fmt: skip
    grid = g.channels * parts, math.ceil(g.outputs / at_once), g.m
    kernels = compiler.compiled(SOURCE, constants, dw.device)
    kernels.launch("weight_gradient", grid, threads, x, stride, given, dw, db)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: int, stride: int) -> Any:
        m, channels, height, width, batch = x.shape
        rows, columns = ((n - kernel) // stride + 1 for n in (height, width))
        out = x.new_empty(m, channels, rows, columns, batch)
        places = torch.empty(out.shape, dtype=torch.uint8, device=x.device)
        ctx.constants = {
            "MAX_POOL": 1, "B": batch, "K": kernel, "S": stride, "H": height, "W": width, "ROWS": rows, "COLUMNS": columns,
            "NT": THREADS,
        }  # fmt: skip
        kernels = compiler.compiled(SOURCE, ctx.constants, x.device)
        kernels.launch("max_pool", (m * channels, 1, 1), THREADS, x, out, places)
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return out

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> Any:
        (places,) = ctx.saved_tensors
        given = given.contiguous()
        dx = given.new_empty(ctx.shape)
        m, channels = ctx.shape[:2]
        kernels = compiler.compiled(SOURCE, ctx.constants, dx.device)
        kernels.launch("max_pool_gradient", (m * channels, 1, 1), THREADS, given, places, dx)
        return dx, None, None


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """(m or 1, B, C, H, W), (m, O, C, K, K), (m, O) → (m, B, O, rows, columns)."""
    return outer(
        _Convolution.apply(  # type: ignore[no-untyped-call]  # as PyTorch has it
            inner(x), weight.contiguous(), bias.contiguous(), stride, padding
        )
    )


def pool(x: torch.Tensor, kernel: int, stride: int, largest: bool) -> torch.Tensor:
    """(m, B, C, H, W) → (m, B, C, rows, columns): the largest of each window, or the mean."""
    if largest:
        return outer(_MaxPool.apply(inner(x), kernel, stride))  # type: ignore[no-untyped-call]  # as PyTorch has it
    # Samples innermost are what PyTorch calls channels last, of images with a channel per sample.
    planes = inner(x).flatten(0, 1).permute(0, 3, 1, 2)  # (m·C, B, H, W)
    means = F.avg_pool2d(planes, kernel, stride).unflatten(0, (len(x), -1))  # (m, C, B, rows, columns)
    return torch.transpose(means, 1, 2)
