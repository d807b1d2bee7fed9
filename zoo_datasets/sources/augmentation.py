"""A run's settings, or a row of `models` → what is done to its training images, in the units that networks see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zoo_datasets.errors import GridError
from zoo_datasets.networks.augmentation import Augmentation, Distortion
from zoo_datasets.sources.spec import Source


def augmentation_of(s: Mapping[str, Any], source: Source) -> Augmentation:
    """The augmentation in scaled units. Raises GridError where it does not fit the input."""
    shape = source.input_shape
    moves = s["augment_shift"] or s["augment_crop"] or s["augment_flip"]
    if moves and len(shape) != 3:
        raise GridError(f"Augmentation shift, crop and flip need images; the source {s['source']} has shape {shape}.")
    if s["augment_noise_std"] and len(shape) == 2:
        raise GridError(
            f"Augmentation noise_std is for images and tables; the source {s['source']} has sequences {shape}."
        )
    if moves and max(s["augment_shift"], s["augment_crop"]) >= min(shape[1:]):
        raise GridError(
            f"Augmentation moves by up to {max(s['augment_shift'], s['augment_crop'])} pixels; of {shape} it takes fewer than {min(shape[1:])}."
        )
    # scaled = (raw / peak − mean) / std: black is −mean/std, and noise on 0–1 grows by 1/std.
    pairs = list(zip(source.mean, source.std, strict=True))
    noise = tuple(s["augment_noise_std"] / std for _, std in pairs) if s["augment_noise_std"] else ()
    distortion = _distortion(s, source)
    filled = s["augment_shift"] or distortion.any  # crop fills by reflection; of a table nothing moves
    fill = tuple(-mean / std for mean, std in pairs) if filled else ()
    moved = s["augment_shift"], s["augment_crop"], s["augment_flip"]
    return Augmentation(*moved, noise, fill, distortion)


# Settings that came after the first zoos are in no run's settings at their defaults.
_DISTORTIONS = ("translate", "rotate", "zoom", "shear", "brightness", "hue", "noise")


def _distortion(s: Mapping[str, Any], source: Source) -> Distortion:
    """The distortion. Raises GridError where it does not fit the input."""
    reach: dict[str, Any] = {name: s.get(f"augment_{name}") or 0.0 for name in _DISTORTIONS}
    factors: dict[str, Any] = {name: _factors(name, s.get(f"augment_{name}")) for name in ("contrast", "saturation")}
    made = Distortion(**reach, **factors)
    if not made.any:
        return made
    shape = source.input_shape
    if len(shape) != 3:
        raise GridError(
            f"Augmentation by places, colors and `noise` needs images; the source {s['source']} has shape {shape}. "
            "`noise_std` is for numbers too."
        )
    if made.translate >= min(shape[1:]):
        raise GridError(
            f"Augmentation moves by up to {made.translate:g} pixels; of {shape} it takes fewer than {min(shape[1:])}."
        )
    if made.tints and shape[0] != 3:
        raise GridError(
            f"Augmentation of hue and saturation needs RGB images; {s['source']} has {shape[0]} channel"
            f"{'s' if shape[0] != 1 else ''}. `source: {{channels: 3}}` makes it RGB."
        )
    return dataclasses.replace(made, mean=tuple(source.mean), std=tuple(source.std))


def _factors(name: str, given: Sequence[float] | None) -> tuple[float, float]:
    if given is None:
        return 1.0, 1.0
    if len(given) != 2 or given[0] > given[1]:
        raise GridError(
            f"Augmentation `{name}` is {list(given)}; two factors are needed, the smaller first, like [0.5, 1.5]."
        )
    return float(given[0]), float(given[1])
