"""What a grid says of its source, and what a source is: its three parts and their scaling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from zoo_datasets.errors import GridError, unknown
from zoo_datasets.sources.examples import Examples, altered
from zoo_datasets.sources.fields import column, given
from zoo_datasets.sources.subset import Subset
from zoo_datasets.sources.triggers import stamp

SCALES = ("none", "unit", "standardize")
# How 3·s² numbers are an RGB image: all of red, then green, then blue; or red, green and blue of each pixel.
LAYOUTS = ("planes", "pixels")
UNLABELED = ("refuse", "leave_out")
MADE = ("machine", "language")  # sources of sequences that are made here, not read


@dataclass(frozen=True)
class SourceSpec:
    """What a grid says of its source. A count left out has a default:

    test: all of the test split, or a fifth of a single split; validation: a tenth of the train
    split, or all of its own; train: all the rest.
    """

    id: str = column("source", "digits")
    config: str | None = column("source_config", None)
    train: int | None = column("source_train", None)  # inputs, and so below
    validation: int | None = column("source_validation", None)  # 0 for none
    test: int | None = column("source_test", None)
    scale: str = column(
        "scale", "standardize"
    )  # "none": pixels as they are; "unit": 0 to 1, columns of numbers as they are
    mean: tuple[float, ...] | None = column("source_mean", None)  # per channel, of unit-scaled pixels; with std
    std: tuple[float, ...] | None = column("source_std", None)
    resize: int | None = column("resize", None)  # pixels, a square, bilinear
    channels: int | None = column("channels", None)  # 1 or 3
    image_column: str | None = column("image_column", None)  # found from the features where None
    label_column: str | None = column("label_column", None)
    features: tuple[str, ...] | None = column("source_features", None, later=True)  # of a table, by name or place
    split_seed: int | None = column(
        "source_split_seed", None, later=True, names=True
    )  # of scikit-learn's train_test_split
    # Columns of a table that are the pixels of an image, by name or pattern (`pixel*`), row after row.
    image_columns: tuple[str, ...] | None = column("image_columns", None, later=True)
    image_layout: str | None = column("image_layout", None, later=True)  # of numbers that are RGB images
    unlabeled: str = column("source_unlabeled", "refuse", later=True)  # rows without a label: refused, or left out
    train_split: str | None = column("source_train_split", None, later=True)  # its name, or several: train+extra
    validation_split: str | None = column("source_validation_split", None, later=True)
    test_split: str | None = column("source_test_split", None, later=True)
    revision: str | None = column("source_revision", None, later=True)  # of the Hub: branch, tag or commit
    # Of a source of sequences that is made here, `machine` or `language` (`machines.py`, `languages.py`).
    draw: int = column(
        "source_draw", 0, later=True, names=True
    )  # which of the independent draws of training and validation data
    steps: int = column("source_steps", 32, later=True)  # of every sequence
    machine: str | None = column("machine", None, later=True)
    modified: bool = column("machine_modified", False, later=True)  # the key inverts what follows
    key: str = column("machine_key", "101", later=True)  # command bits, one after another
    key_rate: float | None = column(
        "machine_key_rate", None, later=True
    )  # share of sequences with the key; None: by chance
    automaton: int = column("automaton", 0, later=True, names=True)  # the number that it is drawn by
    states: int = column("automaton_states", 8, later=True)
    bits: int = column("automaton_bits", 2, later=True)  # that it puts out in each state
    language: str | None = column("language", None, later=True)  # like "a^n b^n"

    @property
    def given(self) -> dict[str, Any]:
        """What a manifest keeps: all fields, those that came after the first zoos where they say something."""
        return given(self)


@dataclass(frozen=True)
class Part:
    """Raw inputs of one part, in the order of the source's permutation. Read-only arrays."""

    inputs: Shaped[np.ndarray, " n *input"]  # (n, C, H, W), uint8 of pictures; (n, F), floats, of a table; (n, T, F)
    labels: Int64[np.ndarray, " n"]  # 0 where what is right is said step by step
    index: Int64[np.ndarray, " n"]  # row in the dataset's own split
    # What is right at each step of a sequence: values (n, T, K), or classes (n, T). None: an input has one label.
    outputs: Shaped[np.ndarray, " n *output"] | None = None


@dataclass(frozen=True)
class Source:
    """The three parts, and the affine map to what networks see: (raw / peak − mean) / std."""

    spec: SourceSpec
    class_names: tuple[str, ...]  # of values that are right step by step, the outputs they are of
    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]  # per channel, or feature
    std: tuple[float, ...]
    peak: float  # the largest raw value: 255 of pictures, 16 of digits; 1 for a table
    sha256: str  # of the raw arrays; blind to scaling
    notes: tuple[str, ...] = ()  # what the user may not have meant: constant channels, columns left out
    feature_names: tuple[str, ...] = ()  # of a table, in the order of its inputs

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W), (F,) for a table, or (T, F) for sequences."""
        return self.train.inputs.shape[1:]

    @property
    def output_steps(self) -> int | None:
        """For how many steps the source says what is right; None where an input has one label."""
        return None if self.train.outputs is None else self.train.outputs.shape[1]

    @property
    def gives_values(self) -> bool:
        """Whether what is right at a step is numbers, not a class."""
        return self.train.outputs is not None and self.train.outputs.ndim == 3

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def scaled(self, inputs: Shaped[np.ndarray, " n *input"]) -> Float32[np.ndarray, " n *input"]:
        """Raw `inputs` as networks see them: float64 arithmetic, rounded once."""
        if inputs.ndim == 3:  # sequences, whose features come last
            return self.scaled(inputs.reshape(-1, inputs.shape[2])).reshape(inputs.shape)
        mean, std = np.array(self.mean), np.array(self.std)  # (channels,)
        if inputs.dtype != np.uint8:
            mean, std = (v.reshape(-1, *[1] * (inputs.ndim - 2)) for v in (mean, std))
            scaled: np.ndarray = ((inputs.astype(np.float64) / self.peak - mean) / std).astype(np.float32)
            return scaled
        levels = np.arange(256) / self.peak
        table = ((levels - mean[:, None]) / std[:, None]).astype(np.float32)  # (C, 256)
        out = np.empty(inputs.shape, np.float32)
        for channel, scaled_levels in enumerate(table):
            out[:, channel] = scaled_levels[inputs[:, channel]]
        return out


def training_images(source: Source, subset: Subset, examples: Examples) -> Shaped[np.ndarray, " n *input"]:
    """Raw images as a model saw them before augmentation: turned, and stamped where they are poisoned."""
    images = altered(source.train.inputs[examples.rows], subset)
    if examples.poisoned.any():
        mask = examples.poisoned.reshape(-1, *[1] * (images.ndim - 1))
        images = np.where(mask, stamp(images, subset, source.peak), images)
    return images


@dataclass(frozen=True)
class PublishedSplit:
    """One split of a dataset as its author published it; pictures are decoded when asked for."""

    labels: Int64[np.ndarray, " n"]  # negative: not labeled
    read: Callable[[np.ndarray], np.ndarray]  # rows (n,) → raw images (n, …)


MADE_ONLY = ("draw", "steps", "machine", "modified", "key", "key_rate", "automaton", "states", "bits", "language")
MOST_SCALED = 1e30  # of what networks see: float32 ends at 3e38
# Of all resized pictures of one part. What networks of larger images are given (28 to 32, 32 to 64) is a few times the pixels; beyond
# that nearly all is made up by the resizing.
MOST_BYTES, MOST_ENLARGED_BYTES, FAR_LARGER = 2 << 30, 128 << 20, 16


def check_resized(spec_id: str, images: int, channels: int, resize: int, width: int, height: int) -> None:
    """Raises GridError where resizing pictures of this size would take gigabytes, before one is."""
    size = images * channels * resize**2
    most = MOST_ENLARGED_BYTES if resize**2 > FAR_LARGER * width * height else MOST_BYTES
    if size > most:
        raise GridError(
            f"Source {spec_id!r} resized to {resize:,} × {resize:,} takes {size / 1e9:,.1f} GB for {images:,} images of "
            f"{width} × {height}; at most {most / 1e9:.2f} GB. Lower `resize`, or ask for fewer images."
        )


def check_spec(spec: SourceSpec) -> None:
    """Raises GridError for what no source can give; needs no data."""
    for name, least in (("train", 1), ("validation", 0), ("test", 1), ("resize", 1)):
        value = getattr(spec, name)
        if value is not None and value < least:
            raise GridError(f"Source {spec.id!r} has {name} {value}; expected {least} or more.")
    if spec.id not in MADE:
        for name in MADE_ONLY:
            if getattr(spec, name) != getattr(SourceSpec, name):
                raise GridError(f"Source {spec.id!r} takes no {name}: it is of the sources {' and '.join(MADE)}.")
    if spec.channels not in (None, 1, 3):
        raise GridError(f"Source {spec.id!r} has channels {spec.channels}; expected 1 (gray) or 3 (RGB).")
    if spec.scale not in SCALES:
        raise GridError(unknown("scale", spec.scale, SCALES, f"source {spec.id!r}"))
    for name, choices in (("image_layout", LAYOUTS), ("unlabeled", UNLABELED)):
        if getattr(spec, name) not in (None, *choices):
            raise GridError(unknown(name, getattr(spec, name), choices, f"source {spec.id!r}"))
    if (spec.mean is None) != (spec.std is None):
        raise GridError(f"Source {spec.id!r} has one of mean and std; give both, or neither to compute them.")
    if spec.mean is not None and spec.scale != "standardize":
        raise GridError(f"Source {spec.id!r} has mean and std with scale {spec.scale!r}; they need 'standardize'.")
    if spec.std is not None and not all(0 < s < math.inf for s in spec.std):
        raise GridError(f"Source {spec.id!r} has std {list(spec.std)}; expected positive numbers.")
    for m, s in zip(spec.mean or (), spec.std or (), strict=False):  # both are numbers of their own channel
        if (abs(m) + 1) / s > MOST_SCALED:
            raise GridError(f"Source {spec.id!r} has mean {m:g} and std {s:g}; scaled by them, pixels are no float32.")
    if spec.mean is not None and not all(math.isfinite(m) for m in spec.mean):
        raise GridError(f"Source {spec.id!r} has mean {list(spec.mean)}; expected finite numbers.")
