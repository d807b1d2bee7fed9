"""What `image_sets` promises: a network sees the picture and the class that `datasets` shows."""

from __future__ import annotations

import io
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from zoo_datasets.errors import GridError
from zoo_datasets.sources import SourceSpec, load
from zoo_datasets.sources.spec import check_resized

SIDE, COUNT = 6, 60
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE), dtype=np.uint8)
CLASSES = datasets.ClassLabel(names=["a", "b", "c"])
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def no_local_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> dict[str, Any]:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return {"bytes": out.getvalue(), "path": None}


def put(
    root: Path, pictures: list[dict[str, Any]], labels: list[Any], label: Any = CLASSES, image: datasets.Image | None = None
) -> SourceSpec:  # fmt: skip
    """A local copy `me/set` of one split, and what names it."""
    features = datasets.Features({"image": image or datasets.Image(), "label": label})
    folder = root / "me" / "set" / "data"
    folder.mkdir(parents=True)
    table = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    table.to_parquet(str(folder / "train-00000-of-00001.parquet"))
    return SourceSpec("me/set")


def shown(root: Path, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(root / "me" / "set"), split="train", cache_dir=str(cache))


def plain(count: int = COUNT) -> list[dict[str, Any]]:
    return [encoded(Image.fromarray(p)) for p in PIXELS[:count]]


# ── labels ──


@pytest.mark.some(3)
@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("int8", [2, 0, 1], ("0", "1", "2")),
        ("uint8", [2, 0, 1], ("0", "1", "2")),
        ("uint64", [7, 5, 6], ("5", "6", "7")),
        ("bool", [True, False, True], ("False", "True")),
        ("string", ["b", "a", "c"], ("a", "b", "c")),
        ("large_string", ["b", "a", "c"], ("a", "b", "c")),
        ("string_view", ["b", "a", "c"], ("a", "b", "c")),
        ("float64", [1.0, 0.0, 2.0], ("0", "1", "2")),
        ("decimal128(9, 2)", [Decimal(1), Decimal(0), Decimal(2)], ("0", "1", "2")),
    ],
)
def test_labels_of_any_type_are_classes_in_the_order_of_their_values(
    tmp_path: Path, kind: str, values: list[Any], names: tuple[str, ...]
) -> None:
    spec = put(tmp_path, plain(), values * (COUNT // 3), datasets.Value(kind))
    source = load(spec, tmp_path)
    assert source.class_names == names
    expected = [names.index(str(int(v) if isinstance(v, (float, Decimal)) else v)) for v in values * (COUNT // 3)]
    assert source.train.labels.tolist() == [expected[i] for i in source.train.index]


def test_a_number_that_is_no_class_is_refused(tmp_path: Path) -> None:
    spec = put(tmp_path, plain(), [0.5, 1.0, 2.0] * (COUNT // 3), datasets.Value("float32"))
    with pytest.raises(GridError, match=r"Column 'label' holds no classes: .*0\.5"):
        load(spec, tmp_path)


@pytest.mark.some(2)
@pytest.mark.parametrize("kind", ["uint16", "bool", "large_string", "string_view", "float32"])
def test_a_hint_names_only_columns_that_do(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "me" / "set" / "data"
    folder.mkdir(parents=True)
    values = {"uint16": 1, "bool": True, "large_string": "x", "string_view": "x", "float32": 1.0}
    lists, real = datasets.List(datasets.Value("int64")), datasets.Value("float64")
    columns = {"image": plain(), "size": [0.5] * COUNT, "kind": [values[kind]] * COUNT, "when": [[1]] * COUNT}
    features = {"image": datasets.Image(), "size": real, "kind": datasets.Value(kind), "when": lists}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(str(folder / "train-00000-of-00001.parquet"))
    with pytest.raises(GridError, match=r"no label columns among: .*Name one as label_column: kind\.$"):
        load(SourceSpec("me/set"), tmp_path)
    assert load(SourceSpec("me/set", label_column="kind"), tmp_path).n_classes == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [("binary", [b"a", b"b", b"c"]), ("date32", [date(2020, 1, n) for n in (1, 2, 3)]), ("duration[s]", [timedelta(n) for n in (0, 1, 2)])],
)  # fmt: skip
def test_labels_that_are_no_texts_are_refused_with_what_makes_them_texts(
    tmp_path: Path, kind: str, values: list[Any]
) -> None:
    spec = put(tmp_path, plain(), values * (COUNT // 3), datasets.Value(kind))
    for asked in (spec, SourceSpec("me/set", label_column="label")):
        with pytest.raises(GridError, match=r"after `cast_column\('label', datasets.Value\('string'\)\)`\.$"):
            load(asked, tmp_path)
    table = shown(tmp_path, tmp_path / "cache").cast_column("label", datasets.Value("string"))
    table.to_parquet(str(tmp_path / "me" / "set" / "data" / "train-00000-of-00001.parquet"))
    assert load(spec, tmp_path).n_classes == 3


def test_at_most_ten_columns_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "me" / "set"
    folder.mkdir(parents=True)
    names = [f"pixel{i}" for i in range(64)]
    (folder / "train.csv").write_text(",".join(names) + "\n" + ",".join(["1"] * 64) + "\n")
    ten = (
        r"pixel0 \(int64\), .* pixel9 \(int64\) and 54 more\. Name one as label_column: pixel0, .* pixel9 and 54 more\."
    )
    with pytest.raises(GridError, match=rf"no label columns among: {ten}$"):
        load(SourceSpec("me/set"), tmp_path)


# ── pictures ──


@pytest.mark.some(3)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    spec = put(tmp_path, [encoded(Image.fromarray(p), exif=exif) for p in PIXELS], [0, 1, 2] * (COUNT // 3))
    source, rows = load(spec, tmp_path), shown(tmp_path, tmp_path / "cache")
    for pixels, row in zip(source.train.inputs, source.train.index.tolist(), strict=True):
        assert np.array_equal(pixels[0], np.asarray(rows[row]["image"]))


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_the_mode_of_the_feature_is_what_networks_see(tmp_path: Path, mode: str) -> None:
    color = [encoded(Image.fromarray(np.stack([p, p.T, 255 - p], -1))) for p in PIXELS]
    spec = put(tmp_path, color, [0, 1, 2] * (COUNT // 3), image=datasets.Image(mode=mode))
    features = shown(tmp_path, tmp_path / "cache").features
    assert features["image"].mode == mode
    source, rows = load(spec, tmp_path), shown(tmp_path, tmp_path / "cache")
    for pixels, row in zip(source.train.inputs, source.train.index.tolist(), strict=True):
        expected = np.asarray(rows[row]["image"].convert("L" if mode == "1" else mode))
        assert np.array_equal(
            pixels if mode == "RGB" else pixels[0], np.moveaxis(expected, -1, 0) if mode == "RGB" else expected
        )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_shows_through_is_white(tmp_path: Path, mode: str) -> None:
    pictures = []
    for p in PIXELS:
        alpha = np.where(np.arange(SIDE) < 2, 0, 255).astype(np.uint8) * np.ones_like(p)
        if mode == "P":
            picture = Image.fromarray(np.where(alpha == 0, 0, 1 + p // 2).astype(np.uint8), "P")
            picture.putpalette([v for level in range(256) for v in (level, level, level)])
            pictures.append(encoded(picture, transparency=0))
        else:
            bands = [p, alpha] if mode == "LA" else [p, p, p, alpha]
            pictures.append(encoded(Image.merge(mode, [Image.fromarray(b) for b in bands])))
    source = load(put(tmp_path, pictures, [0, 1, 2] * (COUNT // 3)), tmp_path)
    assert source.input_shape[0] == (1 if mode == "LA" else 3)
    assert (source.train.inputs[..., :2] == 255).all()
    rest = PIXELS[source.train.index][:, None, :, 2:]
    assert np.array_equal(source.train.inputs[..., 2:], np.broadcast_to(1 + rest // 2 if mode == "P" else rest, source.train.inputs[..., 2:].shape))  # fmt: skip


# ── what cannot be read ──


def test_a_set_with_a_loading_script_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "me" / "set"
    folder.mkdir(parents=True)
    (folder / "set.py").write_text("import datasets\n")
    with pytest.raises(GridError, match=r"published as a loading script, .* a folder me/set/ under ZOO_DATA\."):
        load(SourceSpec("me/set"), tmp_path)


@pytest.mark.parametrize(
    ("images", "channels", "resize", "size"),
    [
        (60_000, 3, 32, 28),  # all of MNIST, as Neural Weight Space has it
        (60_000, 1, 64, 28),
        (50_000, 3, 64, 32),
        (5_000, 3, 32, 96),
    ],
)
def test_whole_sets_are_resized_to_what_networks_are_given(images: int, channels: int, resize: int, size: int) -> None:
    check_resized("set", images, channels, resize, size, size)


@pytest.mark.parametrize(
    ("images", "channels", "resize", "size"), [(50_000, 3, 224, 32), (200, 1, 3_000, 8), (60_000, 3, 128, 28)]
)
def test_gigabytes_that_resizing_makes_up_are_refused(images: int, channels: int, resize: int, size: int) -> None:
    with pytest.raises(GridError, match=rf"resized to {resize:,} .* for {images:,} images of {size} × {size}; at most"):
        check_resized("set", images, channels, resize, size, size)
