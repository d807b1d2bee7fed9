"""Columns of numbers → features, or the pixels of images.

In:  a split; the columns that hold its inputs, of numbers or of lists of numbers.
Out: features, float64 (n, F); or raw pixels (n, C, H, W) of the least of uint8, uint16, float32 and
     float64 that holds all of the source exactly, and their peak.

A number is read as it is, or refused: missing, infinite, too large for float32 (what networks see), or a
whole number that float64 would round.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.errors import GridError
from zoo_datasets.sources import image_sets
from zoo_datasets.sources.columns import depth
from zoo_datasets.sources.spec import SourceSpec
from zoo_datasets.sources.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

# The least that holds every value is a source's peak: of fractions, of scikit-learn's and UCI's digits, of eight and
# of sixteen bits a channel.
PEAKS = (1.0, 16.0, 255.0, 65535.0)
# Whose numbers are not whole was computed, and may reach above its peak (by interpolation, by contrast): up to so many times a peak
# it cannot be told from the next one.
OVERSHOOT = 2.0
VALUES_AT_ONCE = 2**22  # numbers held beside the result; bounds memory
CHANNELS = (1, 3)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What all images of a source have in common, whatever part they are in."""

    dtype: np.dtype[Any]
    peak: float


def features(spec: SourceSpec, split: str, table: Table, columns: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """These columns of these rows, float64 (n, F); a list of numbers is as many features. Raises GridError."""
    out: np.ndarray | None = None
    for start, some, block in _blocks(table, columns, rows):
        values = np.concatenate([_flat(_numbers(spec, split, block, name, some)) for name in columns], axis=1)
        out = _kept(spec, split, out, values, start, len(rows), values.dtype)
    assert out is not None
    return out


def feature_names(table: Table, columns: Sequence[str], n: int) -> list[str]:
    """The names of the features: those of the columns, or `column[3]` of lists."""
    if _all_numbers(table, columns):
        return list(columns)
    if len(columns) == 1:
        return [f"{columns[0]}[{i}]" for i in range(n)]
    return [f"feature {i}" for i in range(n)]


def images(
    spec: SourceSpec, split: str, table: Table, columns: Sequence[str], pixels: Pixels, rows: np.ndarray
) -> np.ndarray:
    """The images of these rows, (n, C, H, W) of the dtype of `pixels`. Raises GridError."""
    out: np.ndarray | None = None
    for start, some, block in _blocks(table, columns, rows):
        values = _shaped(spec, _joined(spec, split, block, some))
        out = _kept(spec, split, out, values, start, len(rows), pixels.dtype)
    assert out is not None
    return _converted(spec, out)


def pixels_of(spec: SourceSpec, splits: Iterable[tuple[str, Table]], columns: Sequence[str]) -> Pixels:
    """What holds every pixel of these splits. Raises GridError where numbers are no pixels."""
    low, high, whole, single = 0.0, 0.0, True, True
    for name, table in splits:
        for _, some, block in _blocks(table, columns, np.arange(len(table))):
            values = _joined(spec, name, block, some, checked=False)
            values = values[np.isfinite(values)]  # a row that no part takes may lack some
            if len(values):
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                whole = whole and bool((values == np.rint(values)).all())
                with np.errstate(over="ignore"):
                    single = single and bool((values == values.astype(np.float32)).all())
    peak = next((p for p in PEAKS if high <= p), None)
    if low < 0 or peak is None:
        raise GridError(
            f"Source {spec.id!r} has pixels from {low:g} to {high:g}; pixels are from 0 to 1, 16, 255 or 65535. Leave out "
            "image_columns to take the numbers as features, or rescale them."
        )
    under = next((p for p in reversed(PEAKS) if p < high), None)
    if not whole and under is not None and (high <= OVERSHOOT * under or peak == PEAKS[1]):
        raise GridError(
            f"Source {spec.id!r} has pixels from {low:g} to {high:g} that are no whole numbers: whether white is {under:g} or {peak:g} "
            f"cannot be told, and images would be too dark. Clip them to {under:g}, or divide them by what white is."
        )
    if whole:
        return Pixels(np.dtype(np.uint8 if peak <= 255 else np.uint16), peak)
    return Pixels(np.dtype(np.float32 if single else np.float64), peak)


def said(spec: SourceSpec, table: Table, columns: Sequence[str]) -> str | None:
    """How columns become RGB images, where the recipe did not say; None where there was nothing to choose."""
    k = _width(table, columns)
    if spec.image_layout is not None or depth(table.features[columns[0]]) not in (0, 1) or math.isqrt(k) ** 2 == k:
        return None
    side = math.isqrt(k // 3)
    return (
        f"source {spec.id}: {k} numbers are images of 3×{side}×{side}, all of red first; if they are red, green and blue of "
        "each pixel, set source.image_layout to pixels"
    )


def _blocks(
    table: Table, columns: Sequence[str], rows: np.ndarray
) -> Iterator[tuple[int, np.ndarray, dict[str, pa.ChunkedArray]]]:
    """Some rows after others: where they begin among all, their numbers, and their columns."""
    chosen = table.select_columns(list(columns)).with_format("arrow")
    step = max(1, VALUES_AT_ONCE // max(1, _width(table, columns)))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        block = chosen[some]
        yield start, some, {name: block.column(name) for name in columns}


def _kept(
    spec: SourceSpec, split: str, out: np.ndarray | None, values: np.ndarray, start: int, n: int, dtype: np.dtype[Any]
) -> np.ndarray:
    """`out`, made for `n` inputs where it is not there yet, with some of them in place. Raises GridError."""
    if out is None:
        out = np.empty((n, *values.shape[1:]), dtype)
    if values.shape[1:] != out.shape[1:]:
        a, b = ("×".join(map(str, v.shape[1:])) for v in (out, values))
        raise GridError(
            f"Source {spec.id!r} has inputs of {a} and of {b} numbers in split {split!r}; all need one size: rewrite them, or "
            "save images as pictures, which resize makes alike."
        )
    out[start : start + len(values)] = values
    return out


def _joined(
    spec: SourceSpec, split: str, block: dict[str, pa.ChunkedArray], rows: np.ndarray, *, checked: bool = True
) -> np.ndarray:
    """The numbers of an image each, float64 (n, k) of columns or (n, …) of one column of lists."""
    parts = [_numbers(spec, split, block, name, rows, checked=checked) for name in block]
    return parts[0] if len(parts) == 1 else np.concatenate([_flat(p) for p in parts], axis=1)


def _shaped(spec: SourceSpec, values: np.ndarray) -> np.ndarray:
    """(n, k), (n, H, W) or three dimensions of an image → (n, C, H, W). Raises GridError."""
    layout, shape = spec.image_layout, values.shape[1:]
    if len(shape) <= 1:
        k = math.prod(shape)
        side, rgb = math.isqrt(k), math.isqrt(k // 3)
        if k and side * side == k:
            return values.reshape(-1, 1, side, side)
        if k and 3 * rgb * rgb == k:
            if layout == "pixels":
                return values.reshape(-1, rgb, rgb, 3).transpose(0, 3, 1, 2)
            return values.reshape(-1, 3, rgb, rgb)
        raise GridError(
            f"Source {spec.id!r} has {k} columns of pixels, which fill no square: {max(1, side) ** 2} or {(side + 1) ** 2} "
            f"are a gray one, {3 * max(1, rgb) ** 2} or {3 * (rgb + 1) ** 2} an RGB one. Name those as image_columns."
        )
    if len(shape) == 2:
        return values[:, None]
    planes, last = shape[0] in CHANNELS, shape[2] in CHANNELS
    if layout is None and planes == last:
        raise GridError(
            f"Source {spec.id!r} has images of shape {'×'.join(map(str, shape))}; say with image_layout whether their "
            "channels come first (planes) or last (pixels)."
        )
    return values if layout == "planes" or (layout is None and planes) else values.transpose(0, 3, 1, 2)


def _converted(spec: SourceSpec, arrays: np.ndarray) -> np.ndarray:
    """The images with the channels and of the size that the recipe asks for. Raises GridError."""
    if spec.channels in (None, arrays.shape[1]) and spec.resize in (None, *set(arrays.shape[2:])):
        if spec.resize is None or arrays.shape[2] == arrays.shape[3]:
            return arrays
    if arrays.dtype != np.uint8 or arrays.shape[1] not in CHANNELS:
        raise GridError(
            f"Source {spec.id!r} has images of {arrays.shape[1]} channels, {arrays.dtype}; resize and channels are for gray "
            "and RGB images of eight bits a channel."
        )
    pictures = (image_sets.picture(array) for array in arrays)
    return np.stack([image_sets.pixels(p, spec.channels, spec.resize) for p in pictures])


def _numbers(
    spec: SourceSpec,
    split: str,
    block: dict[str, pa.ChunkedArray],
    name: str,
    rows: np.ndarray,
    *,
    checked: bool = True,
) -> np.ndarray:
    """The numbers of a column in these rows, float64 (n, …). Raises GridError naming column, row and count."""
    import pyarrow as pa
    import pyarrow.compute as pc

    where = f"Source {spec.id!r} has in column {name!r} of split {split!r}"
    chunked = block[name]
    chunks = [c.storage if isinstance(c, pa.ExtensionArray) else c for c in chunked.chunks]  # Array2D and its like
    try:
        array = pa.concat_arrays(chunks) if chunks else pa.array([], chunked.type)
    except pa.ArrowException as error:  # PyArrow joins no pieces of lists of a fixed, and of no, length
        raise GridError(f"{where} what cannot be read as numbers ({error}). {_OUT}") from None
    shape = [len(rows)]
    while pa.types.is_nested(array.type):
        if array.null_count:
            raise GridError(f"{where} {array.null_count} rows without numbers. {_OUT}")
        sizes = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(sizes) != 1:
            raise GridError(f"{where} lists of {min(sizes)} to {max(sizes)} numbers; every row needs as many.")
        shape.append(sizes[0])
        array = array.flatten()
    values = _floats(array, where).reshape(shape)
    if checked:
        _check(values, rows, where)
    return values


_OUT = "Fill them, or leave them out: name the other columns as source.features, or write the set without these rows."


def _floats(array: pa.Array, where: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.uint8())
    try:
        return pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    except pa.ArrowInvalid as error:
        raise GridError(f"{where} numbers that float64 rounds: {error}") from None


def _check(values: np.ndarray, rows: np.ndarray, where: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        first = rows[np.nonzero(bad)[0][0]]
        raise GridError(f"{where} {int(bad.sum())} missing or infinite values, the first in row {first}. {_OUT}")
    large = np.abs(values) > np.finfo(np.float32).max
    if large.any():
        raise GridError(
            f"{where} {values[large][0]:g}, which is more than networks can be shown (float32). Rescale it, or name the "
            "other columns as source.features."
        )


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _all_numbers(table: Table, columns: Sequence[str]) -> bool:
    """Whether each column holds a number a row, and no lists."""
    types = table.features  # once: `datasets` copies all of them each time, which is quadratic in the columns
    return all(depth(types[name]) == 0 for name in columns)


def _width(table: Table, columns: Sequence[str]) -> int:
    """About how many numbers a row has."""
    if _all_numbers(table, columns) or not len(table):
        return len(columns)
    first = table.select_columns(list(columns)).with_format("numpy")[0]
    return sum(np.size(v) for v in first.values())
