"""Draws of the augmentation stream → images turned, moved, tinted and made noisy.

In:  scaled images (B, C, H, W), a `Distortion`, the model's key and a step.
Out: the distorted images, float32.

The definition that the C++ kernels match bit for bit (augment.cpp): whole numbers, and float32 and float64 + − × ÷
in one order. Places are counted in units of 2⁻¹⁶ pixels, so that no machine rounds a place otherwise.
"""

from __future__ import annotations

import math

import numpy as np

from zoo_datasets.core import exact, streams
from zoo_datasets.networks.augmentation import Distortion

# What the fields of a sample's eight words are, in their order.
ROW, COLUMN, ROTATE, ZOOM, SHEAR, BRIGHTNESS, CONTRAST, HUE, SATURATION, NOISE = range(10)
WORDS = 8  # of a sample: two blocks
UNIT = 1 << 16  # of a place, in a pixel
TURN, HALF_TURN = 6.0, 180.0  # of hue, in sixths; in degrees


def apply(images: np.ndarray, distortion: Distortion, fill: tuple[float, ...], key: str, step: int) -> np.ndarray:
    """The distorted batch (B, C, H, W) of one model at one step, float32."""
    u = draws(key, step, len(images))
    if distortion.warps:
        images = _warped(images, distortion, np.asarray(fill or (0.0,), np.float32), u)
    return _colored(images, distortion, u, key, step) if distortion.colors else images


def draws(key: str, step: int, batch: int) -> np.ndarray:
    """Uniforms (B, 10) in [0, 1): the top and the next 24 bits of each sample's first five words."""
    words = streams.words(key, batch * WORDS, (step, 2, streams.AUGMENT)).reshape(batch, WORDS)[:, :5]
    fields = np.stack([words >> np.uint64(40), (words >> np.uint64(16)) & np.uint64(0xFFFFFF)], axis=2)
    return fields.reshape(batch, 10).astype(np.float64) * 2.0**-24


def _either_way(u: np.ndarray, reach: float) -> np.ndarray:
    return (2.0 * u - 1.0) * reach


# ── places ──


def _cosine(degrees: float) -> float:
    return exact.cosine_half(abs(degrees) / HALF_TURN)


def _sine(degrees: float) -> float:
    positive = exact.cosine_half(abs(0.5 - abs(degrees) / HALF_TURN))
    return -positive if degrees < 0 else positive


def _maps(d: Distortion, u: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Of each sample (B, 6): what a half pixel right and down adds to x and to y, and both in the middle; in units."""
    maps = []
    for one in u:
        angle, slant = float(_either_way(one[ROTATE], d.rotate)), float(_either_way(one[SHEAR], d.shear))
        zoom = 1.0 + float(_either_way(one[ZOOM], d.zoom))
        c, s, tangent = _cosine(angle) / zoom, _sine(angle) / zoom, _sine(slant) / _cosine(slant)
        x = (columns - 1) * 0.5 - float(_either_way(one[COLUMN], d.translate))
        y = (rows - 1) * 0.5 - float(_either_way(one[ROW], d.translate))
        maps.append([c * 0.5, (s - c * tangent) * 0.5, -s * 0.5, (c + s * tangent) * 0.5, x, y])
    return np.asarray(np.rint(np.array(maps) * UNIT).astype(np.int64))


def _warped(images: np.ndarray, d: Distortion, fill: np.ndarray, u: np.ndarray) -> np.ndarray:
    batch, channels, rows, columns = images.shape
    xx, xy, yx, yy, x0, y0 = (v[:, None, None] for v in _maps(d, u, rows, columns).T)
    right, down = 2 * np.arange(columns) - (columns - 1), (2 * np.arange(rows) - (rows - 1))[:, None]
    x, y = xx * right + xy * down + x0, yx * right + yy * down + y0  # (B, H, W)
    left, top = x >> 16, y >> 16
    fx, fy = ((v & (UNIT - 1)).astype(np.float32) * np.float32(1 / UNIT) for v in (x, y))
    gx, gy = np.float32(1) - fx, np.float32(1) - fy
    sample = np.arange(batch)[:, None, None]
    black = np.broadcast_to(fill, channels)

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:  # (C, B, H, W)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        found = images[sample, :, row.clip(0, rows - 1), column.clip(0, columns - 1)]  # (B, H, W, C)
        return np.moveaxis(np.where(inside[..., None], found, black), 3, 0)

    above = gx * at(top, left) + fx * at(top, left + 1)
    below = gx * at(top + 1, left) + fx * at(top + 1, left + 1)
    return np.ascontiguousarray(np.moveaxis(gy * above + fy * below, 0, 1))


# ── colors ──


def _colored(images: np.ndarray, d: Distortion, u: np.ndarray, key: str, step: int) -> np.ndarray:
    batch, channels = images.shape[:2]
    mean, std = (np.broadcast_to(np.asarray(v, np.float32), channels)[:, None, None] for v in (d.mean, d.std))

    def each(values: np.ndarray) -> np.ndarray:  # (B, 1, 1, 1)
        return values.astype(np.float32)[:, None, None, None]

    x = images * std + mean
    if d.brightness:
        x = x + each(_either_way(u[:, BRIGHTNESS], d.brightness))
    if d.contrast != (1.0, 1.0):
        total = exact.total(x.reshape(batch, channels, -1))
        middle = (total / math.prod(x.shape[2:])).astype(np.float32)[:, :, None, None]
        x = (x - middle) * each(_between(u[:, CONTRAST], d.contrast)) + middle
    if d.tints:
        turn = each(TURN * _either_way(u[:, HUE], d.hue))[:, 0]
        x = _tinted(x, turn, each(_between(u[:, SATURATION], d.saturation))[:, 0])
    if d.noise:
        z = streams.normals(key, x.size, (step, 3, streams.AUGMENT)).reshape(x.shape)
        x = x + (z * (u[:, NOISE] * d.noise)[:, None, None, None]).astype(np.float32)
    x = np.where(x > 0, x, np.float32(0))
    return (np.where(x < 1, x, np.float32(1)) - mean) / std


def _between(u: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return ends[0] + (ends[1] - ends[0]) * u


def _tinted(x: np.ndarray, turn: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Hue turned by so many sixths, saturation multiplied; the value, which is the largest channel, stays."""
    r, g, b = np.moveaxis(x, 1, 0)  # each (B, H, W)
    value = np.maximum(np.maximum(r, g), b)
    spread = value - np.minimum(np.minimum(r, g), b)
    over = np.where(spread > 0, spread, np.float32(1))
    first, second, third = (g - b) / over, (b - r) / over + np.float32(2), (r - g) / over + np.float32(4)
    hue = np.where(value == r, first, np.where(value == g, second, third)) + turn
    hue = np.where(hue < 0, hue + np.float32(6), hue)
    hue = np.where(hue >= 6, hue - np.float32(6), hue)
    spread = np.minimum(spread * factor, np.where(value > 0, value, np.float32(0)))
    made = []
    for offset in (5, 3, 1):
        k = hue + np.float32(offset)
        k = np.where(k >= 6, k - np.float32(6), k)
        near = np.minimum(k, np.float32(4) - k)
        near = np.where(near < 1, near, np.float32(1))
        made.append(value - spread * np.where(near > 0, near, np.float32(0)))
    return np.stack(made, axis=1)
