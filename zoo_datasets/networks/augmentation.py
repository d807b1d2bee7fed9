"""What is done to images before a network sees them, as typed values; `augment.py` and the C++ kernels do it.

In training each step draws anew. Metrics see images as they are, unless a recipe says otherwise.
"""

from __future__ import annotations

import dataclasses

from zoo_datasets.networks import kernels


@dataclasses.dataclass(frozen=True)
class Distortion:
    """What is done to images (C, H, W) after they were moved, in this order; each image has its own draws.

    Translation, rotation, zoom and shear are one affine map about the middle, read bilinearly, black outside.
    Brightness is added, contrast multiplies differences from the channel's mean, hue turns by parts of a full
    turn, saturation multiplies, and noise is normal with a standard deviation drawn between 0 and `noise`.
    Colors are of pixels in 0–1, by `mean` and `std` of the scaling, and end there: below 0 is 0, above 1 is 1.
    Each is drawn evenly from −x to x, contrast and saturation between two factors.
    """

    translate: float = 0.0  # pixels
    rotate: float = 0.0  # degrees
    zoom: float = 0.0
    shear: float = 0.0  # degrees
    brightness: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    hue: float = 0.0
    saturation: tuple[float, float] = (1.0, 1.0)
    noise: float = 0.0
    mean: tuple[float, ...] = ()  # per channel: scaled = (pixel − mean) / std
    std: tuple[float, ...] = ()

    @property
    def warps(self) -> bool:
        return bool(self.translate or self.rotate or self.zoom or self.shear)

    @property
    def tints(self) -> bool:
        """Whether hue or saturation change, which takes three channels."""
        return bool(self.hue) or self.saturation != (1.0, 1.0)

    @property
    def colors(self) -> bool:
        return bool(self.brightness or self.contrast != (1.0, 1.0) or self.tints or self.noise)

    @property
    def any(self) -> bool:
        return self.warps or self.colors

    @property
    def numbers(self) -> tuple[float, ...]:
        """As the kernels take it: nothing, or eleven numbers."""
        if not self.any:
            return ()
        first = (self.translate, self.rotate, self.zoom, self.shear, self.brightness)
        return (*first, *self.contrast, self.hue, *self.saturation, self.noise)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images, in this order; streams.py defines the draws.

    `shift` moves by up to so many pixels and fills with `fill`; `crop` moves likewise and
    fills by reflection (pad, then cut out at random); `flip` mirrors columns half the
    time; `distortion` follows; `noise` adds a normal of that standard deviation per channel. All zero: nothing.
    """

    shift: int = 0
    crop: int = 0
    flip: bool = False
    noise: tuple[float, ...] = ()  # per channel, on the scaled values; () is none
    fill: tuple[float, ...] = ()  # per channel, what a black pixel is after scaling
    distortion: Distortion = Distortion()

    @property
    def any(self) -> bool:
        return bool(self.shift or self.crop or self.flip or self.noise or self.distortion.any)

    @property
    def channels(self) -> int:
        """How many channels noise or fill name."""
        return max(len(self.noise), len(self.fill))

    def for_kernels(self) -> kernels.Augmentation:
        """The same, as the kernels take it."""
        d = self.distortion
        moves = (self.shift, self.crop, self.flip)
        return kernels.Augmentation(moves, self.noise, self.fill, d.numbers, d.mean, d.std)
