"""Tables of numbers as sources: what a network is shown is what stands in the table, or it is refused."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from zoo_datasets.errors import GridError, ZooNotFoundError
from zoo_datasets.sources import SourceSpec, Subset, columns, load
from zoo_datasets.sources.augmentation import augmentation_of

N = 60
RNG = np.random.default_rng(0)
LABELS = ["b", "a", "c"] * (N // 3)
ROWS = list(range(N))


@pytest.fixture(autouse=True)
def no_local_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)


def put(root: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None, **splits: slice) -> Path:
    """The set `me/set` with these columns and a label, saved by `save_to_disk`; the folder it is in."""
    columns = {"label": LABELS, **columns}
    known = datasets.Features({"label": datasets.Value("string"), **features}) if features else None
    table = datasets.Dataset.from_dict(columns, features=known)
    if splits:
        parts = {name: table.select(range(*rows.indices(N))) for name, rows in splits.items()}
        datasets.DatasetDict(parts).save_to_disk(root / "me" / "set")
    else:
        table.save_to_disk(root / "me" / "set")
    return root


def spec(**fields: Any) -> SourceSpec:
    return SourceSpec("me/set", **fields)


# ── features ──


@pytest.mark.some(6)
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        *((f"{sign}int{bits}", [i % 100 for i in ROWS]) for sign in ("", "u") for bits in (8, 16, 32, 64)),
        ("float16", [i / 8 for i in ROWS]), ("float32", [i / 3 for i in ROWS]), ("float64", [i / 3 for i in ROWS]),
        ("bool", [i % 2 == 0 for i in ROWS]), ("decimal128(6, 2)", [decimal.Decimal(i) / 4 for i in ROWS]),
        ("int64", [2**40 - i for i in ROWS]), ("float64", [1e9 + i / 1024 for i in ROWS]),
    ],
)  # fmt: skip
def test_numbers_of_any_type_are_features(tmp_path: Path, kind: str, values: list[Any]) -> None:
    put(
        tmp_path,
        {"x": values, "y": [float(i) for i in ROWS]},
        {"x": datasets.Value(kind), "y": datasets.Value("float64")},
    )
    source = load(spec(), tmp_path)
    assert source.input_shape == (2,)
    stored = np.array([float(np.float32(v) if kind == "float32" else v) for v in values])
    assert source.train.inputs[:, 0].tolist() == stored[source.train.index].tolist()
    assert source.class_names == ("a", "b", "c")
    scaled = source.scaled(source.train.inputs)
    # A mean is a float64, so a column far from 0 is off by what float64 cannot hold there.
    np.testing.assert_allclose(scaled.mean(0), 0, atol=max(1e-6, np.spacing(stored.max()) / stored.std()))
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-5)


def test_all_columns_but_the_label_are_features_and_those_that_are_no_numbers_are_said(tmp_path: Path) -> None:
    columns = {
        "x": ROWS, "name": [f"n{i}" for i in ROWS], "when": [datetime.datetime(2020, 1, 1 + i % 9) for i in ROWS],
        "v": [[i, i + 0.5] for i in ROWS], "y": [i % 7 for i in ROWS],
    }  # fmt: skip
    put(tmp_path, columns)
    source = load(spec(), tmp_path)
    assert source.train.inputs.tolist() == [[i, i, i + 0.5, i % 7] for i in source.train.index]
    assert source.notes == (
        "source me/set: left out of the features, as no numbers: name (string), when (timestamp[us])",
    )
    assert load(spec(features=("y", "x")), tmp_path).train.inputs.tolist() == [[i % 7, i] for i in source.train.index]
    assert load(spec(features=("0",)), tmp_path).train.inputs.tolist() == [[i] for i in source.train.index]
    assert load(spec(label_column="y", features=("x",)), tmp_path).class_names == tuple("0123456")


INDEX = [(7 * i + 3) % N for i in ROWS]  # of a table that was shuffled


@pytest.mark.parametrize(
    "name", ["__index_level_0__", "Unnamed: 0", "index", "Id", "row_number", "PassengerId", "sample_id"]
)
def test_an_index_is_no_feature_unless_it_is_asked_for(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"x": ROWS, name: INDEX})
    source = load(spec(), tmp_path)
    assert (source.input_shape, source.feature_names) == ((1,), ("x",))
    assert source.notes == (
        f"source me/set: left out of the features, as numbers of the rows: {name}; source.features takes what it names",
    )
    assert load(spec(features=("x", name)), tmp_path).feature_names == ("x", name)


@pytest.mark.parametrize("values", [[i // 2 for i in ROWS], [i + 0.5 for i in ROWS], [i - 5 for i in ROWS]])
def test_a_column_that_does_not_number_rows_is_a_feature_whatever_its_name(tmp_path: Path, values: list[float]) -> None:
    assert load(spec(), put(tmp_path, {"x": ROWS, "id": values})).feature_names == ("x", "id")


def test_an_index_that_pandas_wrote_is_no_feature(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "me" / "set").mkdir(parents=True)
    frame = pd.DataFrame({"x": [0.5 * i for i in ROWS], "label": LABELS}).sample(frac=1, random_state=0)
    frame.to_parquet(tmp_path / "me" / "set" / "train.parquet")
    assert load(spec(), tmp_path).feature_names == ("x",)
    (tmp_path / "me" / "set" / "train.parquet").unlink()
    frame.to_csv(tmp_path / "me" / "set" / "train.csv")
    assert load(spec(), tmp_path).feature_names == ("x",)


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), -float("inf")])
def test_a_missing_value_is_refused_with_its_column_and_count(tmp_path: Path, bad: float | None) -> None:
    values = [float(i) for i in ROWS]
    source = load(spec(), put(tmp_path / "whole", {"x": values, "y": values}))
    gone = sorted(source.train.index[:3].tolist())
    for i in gone:
        values[i] = bad
    put(tmp_path / "gone", {"x": values, "y": [float(i) for i in ROWS]})
    first = next(i for i in source.train.index.tolist() if i in gone)
    with pytest.raises(
        GridError, match=f"in column 'x' of split 'train' 3 missing or infinite values, the first in row {first}"
    ):
        load(spec(), tmp_path / "gone")
    assert load(spec(features=("y",)), tmp_path / "gone").input_shape == (1,)


@pytest.mark.parametrize(
    ("values", "fields", "message"),
    [
        ([2**53 + 1 + i for i in ROWS], {}, "in column 'x' .* numbers that float64 rounds"),
        ([1e39] * 59 + [0.0], {}, r"in column 'x' .* 1e\+39, which is more than networks can be shown"),
        ([1e-170 * i for i in ROWS], {}, "values in x that differ by too little"),
        ([[1.0]] * 59 + [[1.0, 2.0]], {}, "in column 'x' of split 'train' lists of 1 to 2 numbers"),
        ([1] * N, {}, "has the same input in all"),
        ([1] * N, {"scale": "none"}, "has the same input in all"),
        (ROWS, {"features": ("z",)}, "Unknown column 'z' in features of source 'me/set'. Known: x."),
        (ROWS, {"features": ("x", "x")}, "has a column twice in features: x"),
        (ROWS, {"features": ("label",)}, "has no numbers in column 'label', but string. Name others as features: x"),
        (ROWS, {"resize": 8}, "is a table; resize and channels are for images. Name its columns of pixels"),
        (ROWS, {"features": ("x",), "image_columns": ("x",)}, "has image_columns and features; keep one"),
        (ROWS, {"features": ("x",), "image_column": "x"}, "has image_column and features; keep one"),
        (ROWS, {"image_column": "x"}, "has no pictures in column 'x', but int64. Columns of numbers are features: x"),
        (ROWS, {"features": ("x",), "label_column": "x"}, "has 'x' as its label and among its inputs"),
        (ROWS, {"mean": (0.0, 0.0), "std": (1.0, 1.0)}, "2 numbers in mean and 1 channels"),
        ([float(i) for i in ROWS], {"mean": (0.0,), "std": (1e-38,)}, "scaled by them, pixels are no float32"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_as_it_stands_is_refused(
    tmp_path: Path, values: list[Any], fields: dict[str, Any], message: str
) -> None:
    put(tmp_path, {"x": values})
    with pytest.raises(GridError, match=message):
        load(spec(**fields), tmp_path)


def test_a_constant_column_is_said_ten_at_most(tmp_path: Path) -> None:
    put(tmp_path, {"x": ROWS, **{f"c{i}": [i] * N for i in range(12)}})
    source = load(spec(), tmp_path)
    ten = ", ".join(f"c{i}" for i in range(10))
    assert source.notes == (f"source me/set: constant over the training part: {ten} and 2 more",)
    assert (source.scaled(source.test.inputs)[:, 1:] == 0).all()


@pytest.mark.slow
def test_messages_name_ten_columns_at_most(tmp_path: Path) -> None:
    put(tmp_path, {f"pixel{i}": ROWS for i in range(784)})
    for fields in (
        {"features": ("pixel",)},
        {"label_column": "pixel"},
        {"image_columns": ("pixel",)},
        {"image_column": "pixel"},
    ):
        with pytest.raises(GridError) as caught:
            load(spec(**fields), tmp_path)
        assert str(caught.value).count("pixel") <= 14


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"text": LABELS}, {}, "no other columns of numbers. Use an image classification set, or a table of numbers"),
        ({"a;b;class": LABELS}, {}, "Its one column looks like several: write the file with commas"),
        ({"image": [b"\x89PNG"] * N, "label": ROWS}, {}, r"write the set once more after `cast_column\('image', datasets.Im"),
        ({"image": [b"\x89PNG"] * N, "label": ROWS}, {"image_column": "image"}, r"but binary. Where .* `cast_column\('image'"),
    ],
)  # fmt: skip
def test_no_label_column_is_asked_for_where_there_are_no_inputs(
    tmp_path: Path, columns: dict[str, list[Any]], fields: dict[str, Any], message: str
) -> None:
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "me" / "set")
    with pytest.raises(GridError, match=message) as caught:
        load(spec(**fields), tmp_path)
    assert "label_column" not in str(caught.value)


@pytest.mark.slow
def test_the_types_of_columns_are_read_once_a_block_and_not_once_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {f"x{i}": ROWS for i in range(300)})
    asked: list[int] = []
    features = datasets.Dataset.features.fget
    monkeypatch.setattr(datasets.Dataset, "features", property(lambda table: asked.append(1) or features(table)))
    load(spec(), tmp_path)
    assert len(asked) < 100  # each is a copy of all of them: once a column is quadratic, minutes for 3,072


# ── images ──


def pixel_columns(images: np.ndarray) -> dict[str, list[Any]]:
    return {f"pixel{i}": column.tolist() for i, column in enumerate(images.reshape(len(images), -1).T)}


@pytest.mark.parametrize("names", [("pixel*",), ("*",), tuple(f"pixel{i}" for i in range(16))])
def test_columns_are_the_pixels_of_gray_images(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = RNG.integers(0, 256, (N, 4, 4))
    source = load(spec(image_columns=names), put(tmp_path, pixel_columns(images)))
    assert source.input_shape == (1, 4, 4)
    assert source.train.inputs.dtype == np.uint8
    assert source.peak == 255.0
    np.testing.assert_array_equal(source.train.inputs[:, 0], images[source.train.index])


@pytest.mark.slow
def test_columns_are_the_pixels_of_colored_images(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (N, 3, 4, 4))
    put(tmp_path / "planes", pixel_columns(images))
    put(tmp_path / "pixels", pixel_columns(images.transpose(0, 2, 3, 1)))
    said = load(spec(image_columns=("pixel*",)), tmp_path / "planes")
    assert said.notes == (
        "source me/set: 48 numbers are images of 3×4×4, all of red first; if they are red, green and blue of each pixel, set "
        "source.image_layout to pixels",
    )
    for layout in ("planes", "pixels"):
        source = load(spec(image_columns=("pixel*",), image_layout=layout), tmp_path / layout)
        assert source.notes == ()
        np.testing.assert_array_equal(source.train.inputs, images[source.train.index])
    small = load(spec(image_columns=("pixel*",), channels=1, resize=2), tmp_path / "planes")
    assert small.input_shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("images", "dtype", "peak"),
    [
        (RNG.integers(0, 17, (N, 4, 4)), np.uint8, 16.0), (RNG.integers(0, 2, (N, 4, 4)) > 0, np.uint8, 1.0),
        (RNG.integers(0, 2**16, (N, 4, 4)), np.uint16, 65535.0), (RNG.random((N, 4, 4)), np.float64, 1.0),
        (RNG.random((N, 4, 4)).astype(np.float32).astype(float), np.float32, 1.0),
        (RNG.integers(0, 256, (N, 4, 4)).astype(float), np.uint8, 255.0), (RNG.random((N, 4, 4)) * 240, np.float64, 255.0),
    ],
)  # fmt: skip
def test_pixels_of_any_range_are_read_exactly(tmp_path: Path, images: np.ndarray, dtype: type, peak: float) -> None:
    source = load(spec(image_columns=("*",)), put(tmp_path, pixel_columns(images)))
    assert source.train.inputs.dtype == dtype
    assert source.peak == peak
    np.testing.assert_array_equal(source.train.inputs[:, 0], images[source.train.index])
    scaled = source.scaled(source.train.inputs).astype(float)
    assert abs(scaled.mean()) < 1e-5
    assert abs(scaled.std() - 1) < 1e-5
    unit = load(spec(image_columns=("*",), scale="unit"), tmp_path)
    np.testing.assert_allclose(unit.scaled(unit.test.inputs)[:, 0], images[unit.test.index] / peak, rtol=1e-6)


def test_images_with_three_channels_of_fractions_are_scaled_by_channel(tmp_path: Path) -> None:
    images = RNG.random((N, 3, 4, 5)) * np.array([1, 0.5, 0.1])[:, None, None]
    put(tmp_path, {"image": images.tolist()}, {"image": datasets.Array3D((3, 4, 5), "float64")})
    source = load(spec(), tmp_path)
    np.testing.assert_allclose(source.scaled(source.train.inputs).std((0, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(source.mean, images[source.train.index].mean((0, 2, 3)), rtol=1e-12)


@pytest.mark.some(5)
@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (5, 4, 3), (1, 5, 4), (16,), (48,)])
@pytest.mark.parametrize("kind", ["array", "list", "fixed"])
def test_nested_numbers_are_images(tmp_path: Path, shape: tuple[int, ...], kind: str) -> None:
    images = RNG.integers(0, 256, (N, *shape))
    feature: Any = datasets.Value("int32")
    for size in reversed(shape):
        feature = datasets.List(feature, length=size if kind == "fixed" else -1)
    if kind == "array":
        if len(shape) == 1:
            return
        feature = {2: datasets.Array2D, 3: datasets.Array3D}[len(shape)](shape, "int32")
    put(tmp_path, {"picture": images.tolist()}, {"picture": feature})
    source = load(spec(image_column="picture"), tmp_path)
    wanted = images[source.train.index]
    if len(shape) == 1:
        wanted = wanted.reshape(-1, 1, 4, 4) if shape == (16,) else wanted.reshape(-1, 3, 4, 4)
    elif len(shape) == 2:
        wanted = wanted[:, None]
    elif shape[-1] == 3:
        wanted = wanted.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(source.train.inputs, wanted)
    if len(shape) > 1:  # there is no doubt what it is
        assert load(spec(), tmp_path).sha256 == source.sha256


@pytest.mark.parametrize(
    ("images", "fields", "message"),
    [
        (
            RNG.integers(0, 9, (N, 15)),
            {},
            "has 15 columns of pixels, which fill no square: 9 or 16 are a gray one, 12 or 27",
        ),
        (RNG.integers(-5, 9, (N, 16)), {}, "has pixels from -5 to 8; pixels are from 0 to 1, 16, 255 or 65535"),
        (RNG.integers(0, 70000, (N, 16)), {}, "has pixels from 0 to 699"),
        *(
            (
                (RNG.random((N, 16)) * high).clip(0, 0.99 * high),
                {},
                f"that are no whole numbers: whether white is {under} or {white} cannot be told",
            )
            for high, under, white in ((1.02, 1, 16), (15.0, 1, 16), (17.0, 16, 255), (270.0, 255, 65535))
        ),
        (
            RNG.random((N, 16)),
            {"resize": 8},
            "has images of 1 channels, float64; resize and channels are for gray and RGB",
        ),
    ],
)
def test_columns_that_are_no_pixels_are_refused(
    tmp_path: Path, images: np.ndarray, fields: dict[str, Any], message: str
) -> None:
    put(tmp_path, pixel_columns(images))
    with pytest.raises(GridError, match=message):
        load(spec(image_columns=("*",), **fields), tmp_path)
    assert load(spec(), tmp_path).input_shape == (images.shape[1],)


def test_images_whose_channels_could_be_first_or_last_are_refused(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (N, 3, 4, 3))
    put(tmp_path, {"image": images.tolist()}, {"image": datasets.Array3D((3, 4, 3), "uint8")})
    with pytest.raises(GridError, match=r"images of shape 3×4×3; say with image_layout"):
        load(spec(), tmp_path)
    source = load(spec(image_layout="pixels"), tmp_path)
    np.testing.assert_array_equal(source.train.inputs, images[source.train.index].transpose(0, 3, 1, 2))


# ── splits, labels ──


@pytest.mark.slow
def test_splits_are_named_and_joined(tmp_path: Path) -> None:
    put(tmp_path, {"x": ROWS}, None, a=slice(0, 20), b=slice(20, 30), c=slice(30, 60))
    with pytest.raises(GridError, match="no split 'train'; it has a, b, c"):
        load(spec(), tmp_path)
    source = load(spec(train_split="c+a", validation_split="b"), tmp_path)
    held = [*range(30, 60), *range(20)]
    assert [held[i] for i in source.train.index] == source.train.inputs[:, 0].tolist()
    assert sorted(source.validation.inputs[:, 0].tolist()) == list(range(20, 30))
    assert not set(source.train.index) & set(source.test.index)
    assert len(source.train.index) + len(source.test.index) == 50
    both = load(spec(train_split="a", validation_split="c", test_split="c", validation=5), tmp_path)
    assert not set(both.validation.index) & set(both.test.index)
    assert len(both.test.index) == 25
    assert len(both.train.index) == 20
    rest = load(spec(validation_split="b", test_split="c"), tmp_path)
    assert (
        rest.train.index.tolist()
        == load(spec(train_split="a", test_split="c", validation_split="b"), tmp_path).train.index.tolist()
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_split": "d"}, "Unknown split 'd' in source 'me/set'. Known: a, b, c"),
        ({"train_split": "a+d"}, "Unknown split 'd'"),
        ({"train_split": "a+a"}, r"is asked for a split twice in 'a\+a'"),
        ({"train_split": "a", "test_split": "bb"}, "Unknown split 'bb'.* Did you mean `b`"),
        ({"train_split": "a+b", "test_split": "b"}, "has split 'b' in 'a\\+b' and in 'b': the same rows"),
    ],
)
def test_splits_that_are_not_there_or_overlap_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    put(tmp_path, {"x": ROWS}, None, a=slice(0, 20), b=slice(20, 30), c=slice(30, 60))
    with pytest.raises((GridError, ZooNotFoundError), match=message):
        load(spec(**fields), tmp_path)


@pytest.mark.parametrize("kind", ["string", "int64", "class"])
def test_rows_without_a_label_are_refused_or_left_out(tmp_path: Path, kind: str) -> None:
    missing = set(range(0, N, 4))
    values = [None if i in missing else i % 3 for i in ROWS]
    labels: list[Any] = [None if v is None else "abc"[v] for v in values] if kind == "string" else values
    if kind == "class":
        labels = [-1 if v is None else v for v in values]
    feature = datasets.ClassLabel(names=["a", "b", "c"]) if kind == "class" else datasets.Value(kind)
    put(tmp_path, {"label": labels, "x": ROWS}, {"label": feature, "x": datasets.Value("int64")})
    with pytest.raises(
        GridError, match=r"10 of 42 images without a label of its 3 classes in split 'train', .* leave_out\."
    ):
        load(spec(), tmp_path)
    source = load(spec(unlabeled="leave_out"), tmp_path)
    assert source.notes == ("source me/set: 15 of 60 rows of split train have no label and are left out",)
    rows = np.concatenate([source.train.index, source.validation.index, source.test.index])
    assert sorted(rows.tolist()) == sorted(set(ROWS) - missing)
    for part in (source.train, source.validation, source.test):
        assert part.labels.tolist() == [i % 3 for i in part.index]
    seeded = load(spec(unlabeled="leave_out", split_seed=3), tmp_path)
    assert not missing & set(seeded.train.index.tolist())


def test_a_class_that_the_training_split_lacks_is_never_left_out(tmp_path: Path) -> None:
    labels = [*["a", "b"] * 20, *["a", "z"] * 10]
    put(tmp_path, {"label": labels, "x": ROWS}, {"label": datasets.Value("string"), "x": datasets.Value("int64")},
        train=slice(0, 40), test=slice(40, 60))  # fmt: skip
    for unlabeled in ("refuse", "leave_out"):
        with pytest.raises(GridError, match=r"10 of 20 images .* not among those of the training split"):
            load(spec(unlabeled=unlabeled), tmp_path)


def test_splits_that_number_their_classes_otherwise_are_matched_by_name(tmp_path: Path) -> None:
    def table(names: list[str], start: int) -> datasets.Dataset:
        features = datasets.Features({"label": datasets.ClassLabel(names=names), "x": datasets.Value("int64")})
        rows = range(start, start + 30)
        return datasets.Dataset.from_dict(
            {"label": [names.index("abc"[i % 3]) for i in rows], "x": list(rows)}, features=features
        )

    parts = datasets.DatasetDict({"train": table(["a", "b", "c"], 0), "test": table(["c", "a", "b"], 30)})
    parts.save_to_disk(tmp_path / "me" / "set")
    source = load(spec(), tmp_path)
    assert source.test.labels.tolist() == [int(x) % 3 for x in source.test.inputs[:, 0]]


def test_a_split_without_the_columns_serves_as_nothing(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"label": LABELS, "x": ROWS})
    datasets.DatasetDict(
        {"train": table, "test": table.remove_columns("label"), "none": table.select([])}
    ).save_to_disk(tmp_path / "me" / "set")
    assert len(load(spec(), tmp_path).test.labels) == 12
    with pytest.raises(GridError, match="has no column 'label' in its split 'test'; it has x"):
        load(spec(test_split="test"), tmp_path)


# ── classes by their names ──


def test_classes_have_names() -> None:
    names = ["cat", "dog", "emu"]
    assert Subset(class_names=("emu", "cat")).numbered(names) == Subset(classes=(2, 0))
    assert Subset(classes=(1,)).numbered(names) == Subset(classes=(1,))
    with pytest.raises(
        GridError,
        match=r"Unknown class 'dg' in class_names of the subset\. Known: cat, dog, emu\. Did you mean `dog`\?",
    ):
        Subset(class_names=("dg",)).numbered(names)
    with pytest.raises(GridError, match="has classes and class_names; keep one of them"):
        Subset(classes=(1,), class_names=("dog",)).numbered(names)


def test_a_name_is_not_a_number(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"label": [1 + i % 3 for i in ROWS], "x": ROWS},
        {"label": datasets.Value("int64"), "x": datasets.Value("int64")},
    )
    source = load(spec(), tmp_path)
    assert source.class_names == ("1", "2", "3")
    assert Subset(class_names=("1",)).numbered(source.class_names).classes == (0,)


def test_a_label_that_stands_there_twice_is_no_feature(tmp_path: Path) -> None:
    """As text and as its number: who is given the second need not learn anything."""
    root = put(
        tmp_path,
        {"label": [f"kind {i % 2}" for i in ROWS], "labels": [i % 2 for i in ROWS], "x": [i / 3 for i in ROWS]},
    )
    assert load(spec(), root).feature_names == ("x",)
    named = load(spec(label_column="label"), root)
    assert named.feature_names == ("x",)
    assert named.notes == (
        "source me/set: left out of the features, as labels too: labels; source.features takes what it names",
    )
    assert load(spec(label_column="label", features=("labels", "x")), root).feature_names == (
        "labels",
        "x",
    )  # who names one means it


@pytest.mark.parametrize(
    ("words", "says"), [([2, 0, 1], True), ([0, 0, 1], False), ([20.0, 0.0, -1.0], True), ([2.5, 0.0, 1.0], False)]
)
def test_a_feature_that_says_the_class_is_named(tmp_path: Path, words: list[float], says: bool) -> None:
    """A label as text, and beside it the same as a number of another name."""
    root = put(tmp_path, {"x": [i / 3 for i in ROWS], "kind_number": [words["bac".index(label)] for label in LABELS]})
    source = load(spec(), root)
    assert source.feature_names == ("x", "kind_number")
    note = "source me/set: kind_number is among the features, and each of its numbers occurs in one class alone: it says the class"
    assert any(n.startswith(note) for n in source.notes) is says


def test_pixels_of_a_pattern_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """A writer that sorts names puts pixel10 before pixel2, and no picture is left."""
    held = {f"pixel{p}": [(i * 7 + p * p) % 256 for i in ROWS] for p in range(16)}
    whole = load(spec(image_columns=("pixel*",)), put(tmp_path / "a", held))
    mixed = load(spec(image_columns=("pixel*",)), put(tmp_path / "b", dict(sorted(held.items()))))
    np.testing.assert_array_equal(whole.train.inputs, mixed.train.inputs)
    assert whole.sha256 == mixed.sha256
    assert columns.counted(["r1c10", "r1c2", "r0c3"]) == ["r0c3", "r1c2", "r1c10"]
    assert columns.counted(["b2", "a1"]) == ["b2", "a1"]
    assert columns.counted(["x1", "x01"]) == ["x1", "x01"]


def test_a_label_column_stands_before_other_classes_that_are_published(tmp_path: Path) -> None:
    kinds = {
        "label": datasets.Value("int64"),
        "domain": datasets.ClassLabel(names=["photo", "sketch"]),
        "x": datasets.Value("float64"),
    }
    root = put(
        tmp_path, {"label": [i % 5 for i in ROWS], "domain": [i % 2 for i in ROWS], "x": [i / 3 for i in ROWS]}, kinds
    )
    assert load(spec(), root).class_names == ("0", "1", "2", "3", "4")
    assert load(spec(label_column="domain"), root).class_names == ("photo", "sketch")


def test_a_training_split_that_is_several_has_the_classes_of_all(tmp_path: Path) -> None:
    """Classes were those of the first, and rows of the second were said to be of none of the training split."""
    order = ["a"] * 20 + ["b"] * 20 + ["a", "c"] * 10
    root = put(tmp_path, {"label": order, "x": ROWS}, first=slice(0, 40), second=slice(40, 50), test=slice(50, 60))
    assert load(spec(train_split="first+second", test_split="test"), root).class_names == ("a", "b", "c")


def test_a_table_is_not_augmented_and_may_be_as_wide_as_it_likes(tmp_path: Path) -> None:
    source = load(spec(), put(tmp_path, {f"x{i}": [float(i * j % 7) for j in ROWS] for i in range(80)}))
    plain = dict.fromkeys(("augment_shift", "augment_crop", "augment_noise_std"), 0) | {
        "augment_flip": False,
        "source": "me/set",
    }
    assert augmentation_of(plain, source).channels == 0
    assert augmentation_of(plain | {"augment_noise_std": 0.1}, source).channels == 80


def test_of_labels_of_two_signs_it_is_said_how_to_write_them(tmp_path: Path) -> None:
    kinds = {"label": datasets.Value("int64"), "x": datasets.Value("float64")}
    root = put(tmp_path, {"label": [1 - 2 * (i % 2) for i in ROWS], "x": [i / 3 for i in ROWS]}, kinds)
    with pytest.raises(GridError, match="Where -1 and 1 are two classes, write them as 0 and 1, or as texts"):
        load(spec(), root)
