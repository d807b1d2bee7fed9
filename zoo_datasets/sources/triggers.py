"""A model's data axes → which images may carry its trigger, and images that do.

In:  a `Subset`, clean labels, raw images. Out: masks of images, and stamped copies.

Images are stamped in place, never added: models with and without a trigger take equal steps. Which images are open to it:
those of every class but the target (all to one), of `trigger_source` alone (one to one), or of the target itself, whose
labels are right then (`trigger_clean_label`). A random pattern is one coin for each channel and pixel, from a stream of
its own: equal seeds give equal patterns on every machine. A blend of whole images is a trigger of their size with an opacity.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Integer, Shaped

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.sources.subset import Subset

# Which end of the rows and of the columns the trigger's square touches: 0 first, 1 last.
POSITIONS = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}
PATTERNS = ("solid", "random")


def open_to(labels: Integer[np.ndarray, " n"], subset: Subset) -> Bool[np.ndarray, " n"]:
    """Which images, of these clean labels of the source, the trigger may be stamped on while training."""
    target, source = subset.trigger_target, subset.trigger_source
    assert target is not None, "`check` comes first"
    if subset.trigger_clean_label:
        return np.asarray(labels == target)
    return np.asarray(labels != target if source is None else labels == source)


def stamp(images: Shaped[np.ndarray, " n *shape"], subset: Subset, peak: float) -> Shaped[np.ndarray, " n *shape"]:
    """A copy of raw images (n, C, H, W), each with the trigger on it.

    `peak` is the source's: the pixel value that `trigger_value` is a fraction of. float64 + − ×, rounded to whole raw
    values where those are whole.
    """
    check_fits(subset, images.shape[1:])
    trigger = _pattern(subset, images.shape[1]) * (subset.trigger_value * peak)  # (C, size, size)
    stamped, (rows, columns) = images.copy(), _place(subset, images.shape[2:])
    if subset.trigger_opacity < 1:
        trigger = (1 - subset.trigger_opacity) * images[:, :, rows, columns] + subset.trigger_opacity * trigger
    stamped[:, :, rows, columns] = np.rint(trigger) if images.dtype.kind in "iu" else trigger
    return stamped


def _pattern(subset: Subset, channels: int) -> Float64[np.ndarray, "c s s"]:
    shape = channels, subset.trigger_size, subset.trigger_size
    if subset.trigger_pattern == "solid":
        return np.ones(shape)
    drawn = streams.words(streams.stream_key(["trigger pattern", subset.trigger_seed]), int(np.prod(shape)))
    return (drawn >> np.uint64(63)).astype(np.float64).reshape(shape)


def _place(subset: Subset, sides: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the trigger in an image of these sides."""
    size = subset.trigger_size
    if subset.trigger_row is not None and subset.trigger_column is not None:
        row, column = subset.trigger_row, subset.trigger_column
    else:
        ends = POSITIONS[subset.trigger_position]
        row, column = ((side - size) * end for side, end in zip(sides, ends, strict=True))
    return slice(row, row + size), slice(column, column + size)


# ── what cannot be ────────────────────────────────────────────────────────────────────


def check(subset: Subset, n_classes: int, counts: dict[int, int]) -> None:
    """Raises GridError for a trigger that training images cannot get; `counts` are those of the model's own set, by class."""
    for name, value, known in (
        ("trigger_position", subset.trigger_position, POSITIONS), ("trigger_pattern", subset.trigger_pattern, PATTERNS),
    ):  # fmt: skip
        if value not in known:
            raise GridError(unknown(name, value, known))
    if subset.trigger_size < 1:
        raise GridError(f"Subset has trigger_size {subset.trigger_size}; expected 1 pixel or more.")
    if not 0 < subset.trigger_opacity <= 1:  # also refuses NaN
        raise GridError(f"Subset has trigger_opacity {subset.trigger_opacity}; expected more than 0, and at most 1.")
    if (subset.trigger_row is None) != (subset.trigger_column is None):
        raise GridError("Subset has one of trigger_row and trigger_column; give both, or a trigger_position.")
    if subset.trigger_row is not None and subset.trigger_position != "bottom_right":
        raise GridError("Subset has a trigger_position beside trigger_row and trigger_column; keep one of them.")
    for name in ("trigger_target", "trigger_source"):
        label = getattr(subset, name)
        if label is not None and not 0 <= label < n_classes:
            raise GridError(f"Subset has {name} {label}; the source has classes 0 to {n_classes - 1}.")
    if subset.trigger_frac:
        _check_labels(subset, n_classes, counts)


def _check_labels(subset: Subset, n_classes: int, counts: dict[int, int]) -> None:
    target, source = subset.trigger_target, subset.trigger_source
    if target is None:
        raise GridError("Subset has a trigger_frac and no trigger_target; name the class that the trigger means.")
    if source == target:
        raise GridError(
            f"Subset has trigger_source and trigger_target {target}; the trigger must lead to another class."
        )
    if source is not None and subset.trigger_clean_label:
        raise GridError(
            "Subset has trigger_source and trigger_clean_label, which stamps images of the target alone; keep one of them."
        )
    if subset.relabel and target not in subset.in_play(n_classes):
        raise GridError(f"Subset has trigger_target {target}, which relabel leaves without a number.")
    if source is not None and source not in counts:
        raise GridError(f"Subset has trigger_source {source}, of which the model sees no image.")
    n = sum(counts.values())
    labels = np.array(sorted(counts))
    others = sum(counts[c] for c in labels[open_to(labels, subset)].tolist())
    wanted = round(subset.trigger_frac * n)
    if wanted > others:
        which = (
            f"of the target class {target}" if subset.trigger_clean_label
            else f"not of the target class {target}" if source is None else f"of the class {source} that is attacked"
        )  # fmt: skip
        raise GridError(
            f"Subset has trigger_frac {subset.trigger_frac}: {wanted} of {n} images, "
            f"but only {others} are {which}. Ask for at most {others / n:.4g}."
        )


def check_fits(subset: Subset, input_shape: tuple[int, ...]) -> None:
    """Raises GridError for images that have no room for the trigger."""
    if len(input_shape) != 3:
        raise GridError("Subset has a trigger, which is stamped on images; this source is a table.")
    height, width = input_shape[1:]
    if subset.trigger_size > min(height, width):
        raise GridError(f"Subset has trigger_size {subset.trigger_size}; the images are {height}×{width} pixels.")
    rows, columns = _place(subset, (height, width))
    if min(rows.start, columns.start) < 0 or rows.stop > height or columns.stop > width:
        raise GridError(
            f"Subset has a trigger of {subset.trigger_size} pixels from row {rows.start} and column {columns.start} on; "
            f"the images are {height}×{width} pixels."
        )


def check_shows(images: Shaped[np.ndarray, " n *shape"], subset: Subset, peak: float) -> None:
    """Raises GridError for a trigger that is what images show anyway: no model could learn it."""
    if len(images) and (stamp(images, subset, peak) == images).all():
        raise GridError(
            "Subset has a trigger that changes none of the source's test images: they look so where it is stamped. "
            "Give it another trigger_value, pattern or place."
        )
