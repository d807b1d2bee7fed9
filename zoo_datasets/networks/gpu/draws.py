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
    """Batches of an augmentation, of images (C, H, W) or of flat inputs (F,), which take noise alone.

    `keys` (m, 2) of the networks' augmentation streams.
    """

    augmentation: Augmentation
    keys: torch.Tensor
    shape: tuple[int, ...]

    @property
    def _sides(self) -> tuple[int, int, int]:
        """Channels, rows, columns; each value of a flat input is a channel, which noise may name."""
        return self.shape if len(self.shape) == 3 else (math.prod(self.shape), 1, 1)

    @functools.cached_property
    def _numbers(self) -> torch.Tensor:
        """The distortion's eleven numbers; fill, mean, std and noise of each channel; float64, as `draws.cu` reads them.

        Kept here: a graph that was captured reads this memory for as long as it is replayed.
        """
        a, d, channels = self.augmentation, self.augmentation.distortion, self._sides[0]
        each = ((a.fill, 0.0), (d.mean, 0.0), (d.std, 1.0), (a.noise, 0.0))
        tables = [np.broadcast_to(given or (empty,), channels) for given, empty in each]
        return torch.from_numpy(np.concatenate([d.numbers or (0.0,) * 11, *tables])).to(self.keys.device)

    def __call__(self, pool: torch.Tensor, rows: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Pool (n, *shape), contiguous, rows (m, B) and step (1,), both int64 → (m, B, *shape)."""
        a, d = self.augmentation, self.augmentation.distortion
        if not a.any:
            return pool[rows]
        (m, batch), (channels, height, width) = rows.shape, self._sides
        images = len(self.shape) == 3
        constants = {
            "AUGMENT": 1, "B": batch, "C": channels, "ROWS": height, "COLUMNS": width, "NT": THREADS,
            "MOVES": images and bool(a.shift or a.crop or a.flip), "SHIFT": a.shift, "CROP": a.crop, "FLIP": a.flip,
            "WARPS": images and d.warps, "COLORS": images and d.colors, "BRIGHTENS": bool(d.brightness),
            "CONTRASTS": d.contrast != (1.0, 1.0), "TINTS": d.tints, "GRAINY": bool(d.noise), "NOISY": bool(a.noise),
        }  # fmt: skip
        out = pool.new_empty(m, batch, *self.shape)
        kernels = compiler.compiled(SOURCE, {name: int(v) for name, v in constants.items()}, pool.device)
        kernels.launch("augment", (batch, m, 1), THREADS, pool, rows.contiguous(), self.keys, step, self._numbers, out)
        return out


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
        constants = {"DROPOUT": 1, "B": batch, "UNITS": units, "NT": THREADS}
        blocks = math.ceil(batch * math.ceil(units / streams.FIELDS_PER_BLOCK) / THREADS)
        kernels = compiler.compiled(SOURCE, constants, out.device)
        kernels.launch(
            "dropout", (blocks, len(scales), 1), THREADS, self.keys, step, self.layer, thresholds, scales, out
        )
        return out
