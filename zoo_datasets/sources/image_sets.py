"""A Hugging Face image-classification dataset → its labels, and the pixels of the rows asked for.

In:  an id and the folder of a local copy, or none for the Hub; rows.
Out: tables with undecoded pictures; int64 labels; uint8 pixels (n, C, H, W).

`datasets` caches a local folder under its name, not its content, and under HOME. So a local
copy is loaded into a temporary cache, which lives as long as `opened`: a rebuilt copy gives
its new rows, and nothing else is written. The Hub's cache is keyed by commit and is used.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.errors import GridError, IntegrityError, ZooNotFoundError, unknown
from zoo_datasets.sources.spec import check_resized

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from PIL.Image import Image

# Pillow's modes of eight bits a channel → the mode read when the grid does not say.
MODES = {
    "1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
}  # fmt: skip
MOST_LISTED = 10  # columns in a message; a table of pixels has hundreds
# One question to the Hub before `datasets` asks: its own retries take 23 s without a network.
PATIENCE_S = 5.0
# Undecoded pictures held at once; bounds memory, and is too many for its own cost to show.
ROWS_AT_ONCE = 1000


@contextmanager
def opened(source: str, config: str | None, folder: Path | None) -> Iterator[dict[str, Dataset]]:
    """The splits of the dataset by name, pictures undecoded.

    Raises ZooNotFoundError, GridError (no such config) or IntegrityError (unreadable files).
    """
    import datasets

    where = f"in {str(folder)!r}" if folder else "on the Hugging Face Hub"
    with ExitStack() as stack:
        if folder:
            cache = tempfile.TemporaryDirectory(prefix="zoo-source-", ignore_cleanup_errors=True)
            settings = {"path": str(folder), "cache_dir": stack.enter_context(cache)}
            stack.enter_context(_no_progress_bars())
        else:
            # The prefix keeps a folder of the same name in the working directory out of it.
            settings = {"path": f"hf://datasets/{source}"}
            if not _hub_answers():
                stack.enter_context(_from_cache_alone())
        try:
            splits = datasets.load_dataset(name=config, **settings)
        except ConnectionError as error:
            raise ZooNotFoundError(
                f"Source {source!r} has no local copy and the Hugging Face Hub does not answer. "
                f"Set ZOO_DATA or --data to a folder that holds {source}/, or connect to the Hub."
            ) from error
        except FileNotFoundError as error:
            raise ZooNotFoundError(f"No source {source!r} {where}: {error}") from error
        except datasets.exceptions.DatasetsError as error:
            raise IntegrityError(f"Source {source!r} {where} cannot be read: {error.__cause__ or error}") from error
        except ValueError as error:  # an unknown or a missing config; the message lists them
            raise GridError(f"Source {source!r} {where}: {error}") from error
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            raise GridError(
                f"Source {source!r} {where} is published as a loading script, which `datasets` ≥ 4 does not run. Load it "
                "once with datasets<4 and write each split with `to_parquet` to data/train-00000-of-00001.parquet (and "
                f"test-…) in a folder {source}/ under ZOO_DATA."
            ) from error
        except OSError as error:
            raise IntegrityError(f"Source {source!r} {where} cannot be read: {error}") from error
        yield dict(splits)


def columns(source: str, tables: dict[str, Dataset], image: str | None, label: str | None) -> tuple[str, str]:
    """The names of the image and the label column, found from the features where not given."""
    import datasets

    features = next(iter(tables.values())).features
    pictured = [name for name, feature in features.items() if _is_picture(feature)]
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [name for name, feature in features.items() if _holds_labels(feature)]
    named = [name for name in ("label", "labels") if name in classes + plain]
    image = _column(
        source, "image", image, features, pictured, [n for n in ("image", "img") if n in pictured], pictured
    )
    label = _column(source, "label", label, features, classes or named, named, classes + plain)
    if image not in pictured:
        raise GridError(f"Source {source!r} has no pictures in column {image!r}, but {_described(features[image])}.")
    if label not in classes + plain:
        raise GridError(f"Source {source!r} has no classes in column {label!r}, but {_described(features[label])}.")
    return image, label


def class_names(table: Dataset, label: str) -> list[Any]:
    """The classes in the order of their numbers: as published, or the sorted values of the column."""
    published = getattr(table.features[label], "names", None)
    values = published or sorted(value for value in set(_values(table, label).to_pylist()) if value is not None)
    return [v for v in values if not isinstance(v, int) or v >= 0]  # a negative number says: not labeled


def labels(table: Dataset, label: str, names: list[Any]) -> np.ndarray:
    """The class of every row, int64 [n]; −1 where it has none of `names`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _values(table, label)
    if not hasattr(table.features[label], "names"):
        values = pc.index_in(values, value_set=pa.array(names, values.type))
    return values.fill_null(-1).to_numpy().astype(np.int64)


def _values(table: Dataset, label: str) -> pa.ChunkedArray:
    """The label column as Arrow holds it; numbers that pandas made floats (for want of some) as the whole ones they were.

    Raises GridError where a number is not whole.
    """
    import pyarrow as pa

    values = table.select_columns([label]).with_format("arrow")[:].column(0)
    if pa.types.is_floating(values.type):
        try:
            values = pa.chunked_array([pa.Array.from_pandas(c.to_numpy(zero_copy_only=False)) for c in values.chunks])
            values = values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise GridError(f"Column {label!r} holds no classes: {error}. Name another as label_column.") from None
    return values


def read(
    source: str, split: str, table: Dataset, image: str, channels: int | None, resize: int | None, rows: np.ndarray
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
            f"Image of mode {picture.mode!r} in {where}; known are {', '.join(MODES)}: eight bits a channel."
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


def gray(array: np.ndarray) -> Image:
    """The picture of a uint8 array (H, W)."""
    with libraries.needed():
        from PIL import Image

    return Image.fromarray(array)


def _decoded(value: dict[str, Any] | None, mode: str | None, where: str) -> Image:
    """The picture that `datasets` shows: upright by its EXIF tag, in the mode of its feature."""
    with libraries.needed():
        from PIL import Image, ImageOps

    if value is None:
        raise IntegrityError(f"No image in {where}.")
    try:
        picture = Image.open(io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"])
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError) as error:  # Pillow calls a damaged PNG a SyntaxError
        raise IntegrityError(f"Image in {where} cannot be decoded: {error}") from error
    return picture.convert(mode) if mode and mode != picture.mode else picture


def _column(
    source: str, what: str, asked: str | None, features: dict[str, Any], candidates: list[str], usual: list[str],
    possible: list[str],
) -> str:  # fmt: skip
    """The column asked for, or the one there can be no doubt of. Raises GridError, which names those that would do."""
    if asked is not None:
        if asked not in features:
            raise GridError(unknown(f"{what}_column", asked, features, f"source {source!r}"))
        return asked
    if len(candidates) == 1 or usual:
        return (usual if len(candidates) > 1 else candidates or usual)[0]
    shown = [f"{name} ({_described(feature)})" for name, feature in features.items()]
    more = f" and {len(shown) - MOST_LISTED} more" if len(shown) > MOST_LISTED else ""
    some = ", ".join(possible[:MOST_LISTED])
    raise GridError(
        f"Source {source!r} has {'several' if candidates else 'no'} {what} columns among: "
        f"{', '.join(shown[:MOST_LISTED])}{more}. "
        + (f"Name one as {what}_column: {some}." if possible else "Use an image classification set.")
    )


def _holds_labels(feature: Any) -> bool:
    """A column of texts, whole numbers or booleans; of floats too, which pandas makes of numbers where some are missing."""
    import datasets

    kinds = ("int", "uint", "bool", "string", "large_string", "float")
    return isinstance(feature, datasets.Value) and feature.dtype.rstrip("0123456789") in kinds


def _is_picture(feature: Any) -> bool:
    """An Image feature, or its storage in a table that was written without one."""
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _described(feature: Any) -> str:
    import datasets

    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _shape(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{height}×{width} {'gray' if channels == 1 else 'RGB'}"


def _hub_answers() -> bool:
    """Whether the Hub can be asked: anything it says will do."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except Exception:  # whose type is that of requests, httpx or httpx2, as huggingface_hub's version has it
        return False
    return True


@contextmanager
def _from_cache_alone() -> Iterator[None]:
    """`datasets` does not ask the Hub, and loads what it has downloaded before."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
