"""A column of pictures → pixels, as `datasets` shows them.

In:  a split with its pictures undecoded; rows.
Out: uint8 pixels (n, C, H, W).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.errors import GridError, IntegrityError
from zoo_datasets.sources.spec import check_resized
from zoo_datasets.sources.tables import Table

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's modes of eight bits a channel → the mode read when the grid does not say.
MODES = {
    "1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
}  # fmt: skip
# Undecoded pictures held at once; bounds memory, and is too many for its own cost to show.
ROWS_AT_ONCE = 1000


def read(
    source: str, split: str, table: Table, image: str, channels: int | None, resize: int | None, rows: np.ndarray
) -> np.ndarray:
    """The pixels of these rows, uint8 (n, C, H, W). Raises GridError where shapes differ."""
    import datasets

    mode = getattr(table.features[image], "mode", None)  # as its author has `datasets` show it
    undecoded = table.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format("arrow")
    out: np.ndarray | None = None
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        for place, (row, value) in enumerate(zip(some, undecoded[some].column(0).to_pylist(), strict=True), start):
            where = f"source {source!r}, split {split!r}, row {row}"
            picture = _decoded(value, mode, where)
            if out is None and resize:
                check_resized(source, len(rows), channels or len(picture.getbands()), resize, *picture.size)
            one = pixels(picture, channels, resize, where)
            if out is None:
                out = np.empty((len(rows), *one.shape), np.uint8)
            if one.shape != out.shape[1:]:
                raise GridError(
                    f"Images differ in shape: {_shape(out[0])} and, in {where}, {_shape(one)}. "
                    "Set resize for one size, channels for gray or RGB."
                )
            out[place] = one
    assert out is not None
    return out


def pixels(picture: Image, channels: int | None, resize: int | None, where: str = "") -> np.ndarray:
    """The picture's pixels, uint8 (C, H, W): over white, converted to gray or RGB, then resized, by Pillow."""
    with libraries.needed():
        from PIL import Image

    if picture.mode not in MODES:
        raise GridError(
            f"Image of mode {picture.mode!r} in {where}; known are {', '.join(MODES)}: eight bits a channel. Save it with "
            "eight (16-bit values // 257), or as a column of Array2D, whose numbers are read as they are."
        )
    mode = {None: MODES[picture.mode], 1: "L", 3: "RGB"}[channels]
    if picture.has_transparency_data:
        above = picture.convert("RGBA")
        picture = Image.new("RGBA", picture.size, "white")
        picture.alpha_composite(above)
    if picture.mode != mode:
        picture = picture.convert(mode)
    if resize and picture.size != (resize, resize):
        picture = picture.resize((resize, resize), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


def picture(array: np.ndarray) -> Image:
    """The picture of a uint8 array (C, H, W), gray or RGB."""
    with libraries.needed():
        from PIL import Image

    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def _decoded(value: dict[str, Any] | None, mode: str | None, where: str) -> Image:
    """The picture that `datasets` shows: upright by its EXIF tag, in the mode of its feature."""
    with libraries.needed():
        from PIL import Image, ImageOps, UnidentifiedImageError

    if value is None:
        raise IntegrityError(f"No image in {where}.")
    try:
        picture: Image.Image = Image.open(io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"])
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise IntegrityError(
            f"Image in {where} cannot be decoded: its bytes are no picture that Pillow knows."
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead to: SyntaxError, struct.error, …
        raise IntegrityError(f"Image in {where} cannot be decoded: {error or type(error).__name__}") from error
    return picture.convert(mode) if mode and mode != picture.mode else picture


def _shape(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{height}×{width} {'gray' if channels == 1 else 'RGB'}"
