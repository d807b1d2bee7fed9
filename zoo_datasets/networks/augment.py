"""Draws of the augmentation stream → where each pixel of a training image comes from.

Shift, crop and flip are separable: a row map and a column map per sample say which pixel
of the original is read, −1 for the fill value. What follows them is `distort.py`. Every engine applies
the same; where the kernels are built, they do it for all, with the same bits.
"""

from __future__ import annotations

import numpy as np

from zoo_datasets.core import streams
from zoo_datasets.networks import distort, kernels
from zoo_datasets.networks.augmentation import Augmentation


def maps(
    augmentation: Augmentation, key: str, step: int, batch: int, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Source row (B, rows) and source column (B, columns), int64, −1 where the fill goes."""
    words = streams.words(key, batch * 4, (step, 0, streams.AUGMENT)).reshape(batch, 4)
    top, mid = (words >> np.uint64(40)).astype(np.int64), (words >> np.uint64(16)).astype(np.int64) & 0xFFFFFF
    flip = (words[:, 3] >> np.uint64(63)).astype(bool) & augmentation.flip

    def axis(n: int, shift: np.ndarray, crop: np.ndarray) -> np.ndarray:  # (B, n)
        at = _reflect(np.arange(n) + _draw(crop, augmentation.crop)[:, None], n)
        at = at - _draw(shift, augmentation.shift)[:, None]
        return np.where((at >= 0) & (at < n), at, -1)

    row = axis(rows, top[:, 0], top[:, 2])
    column = axis(columns, top[:, 1], mid[:, 2])
    return row, np.where(flip[:, None], column[:, ::-1], column)


def noise(augmentation: Augmentation, key: str, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """What is added to a batch (B, channels, rows, columns), float32."""
    z = streams.normals(key, int(np.prod(shape)), (step, 1, streams.AUGMENT)).reshape(shape)
    scale = np.asarray(augmentation.noise, np.float64).reshape(1, -1, *([1] * (len(shape) - 2)))
    return (z * scale).astype(np.float32)


def augmented(images: np.ndarray, augmentation: Augmentation, key: str, step: int) -> np.ndarray:
    """`apply`, below Python where that is possible: many times as fast, and the same bits."""
    known = images.ndim == 4 and augmentation.channels <= kernels.MOST_CHANNELS
    if known and augmentation.distortion.any and kernels.missing() is None:
        return kernels.augment(images, augmentation.for_kernels(), streams.key_words(key), step)
    return apply(images, augmentation, key, step)


def apply(images: np.ndarray, augmentation: Augmentation, key: str, step: int) -> np.ndarray:
    """The augmented batch (B, channels, rows, columns) of one model at one step, float32.

    Flat input (B, features) takes noise alone, of one standard deviation or of each feature its own.
    """
    if images.ndim == 4 and (augmentation.shift or augmentation.crop or augmentation.flip):
        row, column = maps(augmentation, key, step, len(images), *images.shape[2:])
        sample = np.arange(len(images))[:, None, None]
        moved = images[sample, :, row[:, :, None], column[:, None, :]]  # (B, H, W, C)
        outside = (row[:, :, None] < 0) | (column[:, None, :] < 0)
        if augmentation.shift:  # only a shift shows what is behind the image
            moved = np.where(outside[..., None], np.asarray(augmentation.fill, np.float32), moved)
        images = np.ascontiguousarray(moved.transpose(0, 3, 1, 2))
    if images.ndim == 4 and augmentation.distortion.any:
        images = distort.apply(images, augmentation.distortion, augmentation.fill, key, step)
    if augmentation.noise:
        images = images + noise(augmentation, key, step, images.shape)
    return images


def _draw(field: np.ndarray, reach: int) -> np.ndarray:
    return (field * (2 * reach + 1) >> 24) - reach


def _reflect(at: np.ndarray, n: int) -> np.ndarray:
    """Mirror indices at the border pixels, which are not repeated: −1 → 1, n → n − 2."""
    at = np.abs(at)
    return np.where(at >= n, 2 * (n - 1) - at, at)
