"""What a step draws for m networks, drawn on a GPU: their images as they see them, and which units stay.

In:  a pool of images, rows of each network's batch, keys, a step. Out: images (m, B, …), dropout's factors (m, B, …).

The bits of `augment.py` and `streams.dropout_keep`, by kernels of our own (`draws.cu`): a step is drawn in the graph that
takes it, and the host has nothing to do.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from zoo_datasets.core import libraries, streams
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.gpu import nvrtc

with libraries.needed():
    import torch

SOURCE = nvrtc.Source("draws.cu", ("--fmad=false",), ("as241.inc",))
THREADS = 256

compiler: nvrtc.Compiler = nvrtc


def keys(of: Sequence[str], device: torch.device) -> torch.Tensor:
    """Keys (m, 2) as the kernels take them."""
    return torch.from_numpy(np.stack([streams.key_words(k) for k in of]).view(np.int64)).to(device)


@dataclasses.dataclass(frozen=True)
class Images:
    """Batches of an augmentation. `keys` (m, 2) of the networks' augmentation streams."""

    augmentation: Augmentation
    keys: torch.Tensor

    def __call__(self, pool: torch.Tensor, rows: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Pool (n, C, H, W) or (n, F), rows (m, B), step (1,), all whole numbers int64 → (m, B, C, H, W) or (m, B, F).

        Flat input takes noise alone, one standard deviation for all.
        """
        a, d = self.augmentation, self.augmentation.distortion
        if not a.any:
            return pool[rows]
        m, batch = rows.shape
        flat = pool.dim() == 2
        channels, height, width = (1, 1, pool.shape[1]) if flat else pool.shape[1:]
        moves, warps, colors = ((not flat and bool(x)) for x in (a.shift or a.crop or a.flip, d.warps, d.colors))
        constants = {
            "AUGMENT": 1, "B": batch, "C": channels, "ROWS": height, "COLUMNS": width, "NT": THREADS,
            "MOVES": moves, "SHIFT": a.shift, "CROP": a.crop, "FLIP": a.flip, "WARPS": warps, "COLORS": colors,
            "BRIGHTENS": bool(d.brightness), "CONTRASTS": d.contrast != (1.0, 1.0), "TINTS": d.tints, "GRAINY": bool(d.noise),
            "NOISY": bool(a.noise),
        }  # fmt: skip
        out = pool.new_empty(m, batch, *pool.shape[1:])
        kernels = compiler.compiled(SOURCE, {name: int(v) for name, v in constants.items()}, pool.device)
        numbers = _numbers(a, channels, pool.device)
        kernels.launch("augment", (batch, m, 1), THREADS, pool, rows.contiguous(), self.keys, step, numbers, out)
        return out


@functools.lru_cache(maxsize=64)
def _numbers(a: Augmentation, channels: int, device: torch.device) -> torch.Tensor:
    """The distortion's eleven numbers; fill, mean, std and noise of each channel; float64, as `draws.cu` reads them."""
    d = a.distortion
    tables = [
        np.broadcast_to(v or (empty,), channels)
        for v, empty in ((a.fill, 0.0), (d.mean, 0.0), (d.std, 1.0), (a.noise, 0.0))
    ]
    numbers = np.concatenate([d.numbers or (0.0,) * 11, *tables])
    return torch.from_numpy(numbers).to(device)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Factors of a dropout node, the `layer`-th of its network, with `shape` units.

    `keys` (m, 2) of the networks' dropout streams, `rates` (m,).
    """

    layer: int
    shape: tuple[int, ...]
    keys: torch.Tensor
    rates: np.ndarray

    @functools.cached_property
    def _given(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Thresholds (m,) int64; what stays is multiplied by (m,) float32."""
        thresholds = np.array([streams.dropout_threshold(r) for r in self.rates.tolist()], np.int64)
        scales = (1 / (1 - self.rates)).astype(np.float32)
        return torch.from_numpy(thresholds).to(self.keys.device), torch.from_numpy(scales).to(self.keys.device)

    def __call__(self, batch: int, step: torch.Tensor) -> torch.Tensor:
        """What the units of `batch` samples are multiplied by at that step (1,): 0 or 1 / (1 − rate), (m, B, *shape)."""
        units = math.prod(self.shape)
        thresholds, scales = self._given
        out = scales.new_empty(len(scales), batch, *self.shape)
        constants = {"DROPOUT": 1, "B": batch, "UNITS": units, "LAYER": self.layer, "NT": THREADS}
        blocks = math.ceil(batch * math.ceil(units / streams.FIELDS_PER_BLOCK) / THREADS)
        kernels = compiler.compiled(SOURCE, constants, out.device)
        kernels.launch("dropout", (blocks, len(scales), 1), THREADS, self.keys, step, thresholds, scales, out)
        return out
