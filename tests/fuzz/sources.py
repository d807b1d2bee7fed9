"""Odd small data sets → the border where `datasets` of strangers become sources.

A trial writes one set of a few rows: random columns of random types, labels of any kind, missing values,
pictures of odd modes and sizes, damaged files, splits of any name; and asks for it with random settings.
It is refused, or what the source holds is what `datasets` shows of the same rows.
"""

from __future__ import annotations

import datetime
import decimal
import io
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from zoo_datasets.errors import ZooError
from zoo_datasets.sources import Source, SourceSpec, Subset, check_subset, load

LONGEST = 3000  # characters of a message
TEXTS = ("a", "b", "ß ü", "", "0", "1", "-1", "None", "nan", "*", "a+b", "a,b", "\x1b[31m", "<b>", "𝔘", "x" * 300, " ")
NAMES = (
    "image",
    "img",
    "label",
    "labels",
    "x",
    "y",
    "pixel0",
    "pixel1",
    "pixel2",
    "pixel3",
    "a b",
    "p*",
    "0",
    "1",
    "ü",
    "[x]",
)
SPLITS = ("train", "test", "validation", "val", "dev", "extra", "full", "a.b")
NUMBERS = (0, 1, -1, 2, 3, 16, 17, 255, 256, 65535, 65536, 2**31 - 1, 2**53, 2**53 + 1, -(2**63))
FLOATS = (0.0, -0.0, 0.5, 1.0, 255.0, 1e-320, 1e-160, 1e38, 1e39, 1e200, 1e308, math.inf, -math.inf, math.nan)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr")
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def prepare(folder: Path) -> None:
    """Nothing is needed: every trial writes its own set."""
    folder.mkdir(parents=True, exist_ok=True)


def trial(rng: np.random.Generator, folder: Path) -> str:
    """One odd set, asked for in one odd way."""
    home = folder / "me" / "odd"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = written(rng, home)
        if tables is None:
            return "refused"  # `datasets` itself does not write such a set
        spec = asked(rng, tables)
        try:
            source = load(spec, folder, home if rng.random() < 0.5 else None)
            check(source, rng)
        except ZooError as error:
            if not 10 < len(str(error)) < LONGEST:
                raise AssertionError(f"A message of {len(str(error))} characters: {error}") from error
            return "refused"
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return "held"


def check(source: Source, rng: np.random.Generator) -> None:
    """What a source promises, whatever it was made of."""
    for name in ("train", "validation", "test"):
        part = getattr(source, name)
        assert len(part.inputs) == len(part.labels) == len(part.index)
        assert part.inputs.shape[1:] == source.input_shape
        assert ((part.labels >= 0) & (part.labels < source.n_classes)).all()
        assert len(set(part.index.tolist())) == len(part.index)
        assert np.isfinite(source.scaled(part.inputs)).all()
    assert len(source.mean) == len(source.std) == source.input_shape[0]
    assert all(s > 0 for s in source.std)
    assert source.train.inputs.ndim in (2, 4)
    names = tuple(str(n) for n in rng.choice(np.array([*source.class_names, "none"], object), 2))
    try:
        subset = Subset(class_names=names).numbered(source.class_names)
        check_subset(subset, source.n_classes, source.train.labels, source.input_shape)
    except ZooError:
        pass
    else:
        assert [source.class_names[c] for c in subset.classes] == list(names)


def asked(rng: np.random.Generator, tables: dict[str, datasets.Dataset]) -> SourceSpec:
    """A few settings, most of them of names that there are."""
    columns = [*next(iter(tables.values())).column_names, "label", "nothing", "*", "p*", "0", "?"]
    splits = [*tables, *("+".join(rng.choice(list(tables), 2)) for _ in range(2)), "nothing"]

    def some(values: Any, chance: float = 0.05) -> Any:
        return values[int(rng.integers(len(values)))] if rng.random() < chance else None

    def names() -> Any:
        return tuple(str(n) for n in rng.choice(columns, int(rng.integers(1, 4)))) if rng.random() < 0.1 else None

    given = {
        "image_column": some(columns), "label_column": some(("label", *columns), 0.3), "features": names(), "image_columns": names(),
        "image_layout": some(("planes", "pixels")), "train_split": some(splits), "validation_split": some(splits),
        "test_split": some(splits), "unlabeled": some(("leave_out",), 0.5), "train": some((1, 2, 5)),
        "validation": some((0, 1, 3)), "test": some((1, 4)), "resize": some((1, 3, 8), 0.1), "channels": some((1, 3)),
        "scale": some(("none", "unit", "standardize"), 0.5), "split_seed": some((0, 3)), "config": some(("default", "x"), 0.02),
    }  # fmt: skip
    return SourceSpec("me/odd", **{name: value for name, value in given.items() if value is not None})


def written(rng: np.random.Generator, home: Path) -> dict[str, datasets.Dataset] | None:
    """The set in a layout of its own; None where `datasets` cannot make it."""
    rows = int(rng.choice([1, 7, 12, 30, 30]))
    kinds = [*rng.choice(NAMES, int(rng.integers(1, 5)), replace=False)]
    if rng.random() < 0.95 and "label" not in kinds:
        kinds.append("label")
    splits = [str(s) for s in rng.choice(SPLITS, int(rng.integers(1, 4)), replace=False)]
    splits = list(dict.fromkeys(["train", *splits])) if rng.random() < 0.7 else splits
    makers = {str(name): maker(rng, str(name)) for name in kinds}
    tables = {}
    try:
        for split in splits:
            n = rows if rng.random() < 0.85 else 0
            values = {name: [holed(rng, make(i)) for i in range(n)] for name, (_, make) in makers.items()}
            features = datasets.Features({name: feature for name, (feature, _) in makers.items()})
            tables[split] = datasets.Dataset.from_dict(values, features=features)
        layout = str(rng.choice(["parquet", "disk", "one", "csv"]))
        if layout == "disk":
            datasets.DatasetDict(tables).save_to_disk(home)
        elif layout == "one":
            tables[splits[0]].save_to_disk(home)
        else:
            for split, table in tables.items():
                (table.to_csv if layout == "csv" else table.to_parquet)(home / f"{split}.{layout}")
    except Exception:
        return None
    if rng.random() < 0.15:
        damaged(rng, home)
    return tables


def holed(rng: np.random.Generator, value: Any) -> Any:
    """The value, or now and then none."""
    return None if rng.random() < 0.003 else value


def damaged(rng: np.random.Generator, home: Path) -> None:
    """One file of the set, cut or with some bits turned."""
    files = sorted(p for p in home.rglob("*") if p.is_file() and p.stat().st_size)
    if not files:
        return
    file = files[int(rng.integers(len(files)))]
    data = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        del data[int(rng.integers(len(data))) :]
    else:
        for place in rng.integers(0, len(data), 3):
            data[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(bytes(data))


def maker(rng: np.random.Generator, name: str) -> tuple[Any, Any]:
    """A feature, and what gives its value in a row."""
    labels = name.startswith("label") and rng.random() < 0.85
    pictures = name in ("image", "img") and rng.random() < 0.8
    kind = str(rng.choice(["class", "text", "int", "bool"] if labels else ["picture"] if pictures else
                          ["int", "int", "float", "float", "bool", "decimal", "text", "date", "list", "array", "struct", "class", "picture"]))  # fmt: skip

    def pick(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    if kind == "class":
        names = [str(i) for i in range(int(rng.integers(1, 5)))]
        return datasets.ClassLabel(names=names), lambda i: int(
            rng.integers(-1 if rng.random() < 0.05 else 0, len(names))
        )
    if kind == "text":
        some = [pick(TEXTS) for _ in range(3)]
        return datasets.Value(pick(("string", "large_string"))), lambda i: pick(some)
    if kind == "int":
        odd = 0.02 if rng.random() < 0.3 else 0.0
        high = pick((2, 3, 17, 100))
        return datasets.Value(
            pick(INTEGERS)
        ), lambda i: pick(NUMBERS) if rng.random() < odd else int(rng.integers(high))
    if kind == "float":
        odd = 0.05 if rng.random() < 0.4 else 0.0
        return datasets.Value(pick(("float16", "float32", "float64"))), lambda i: pick(FLOATS) if rng.random() < odd else float(rng.random())  # fmt: skip
    if kind == "bool":
        return datasets.Value("bool"), lambda i: bool(rng.integers(2))
    if kind == "decimal":
        return datasets.Value("decimal128(9, 3)"), lambda i: decimal.Decimal(int(rng.integers(1000))) / 8
    if kind == "date":
        return datasets.Value("timestamp[s]"), lambda i: datetime.datetime(2020, 1, 1 + i % 28)
    if kind in ("list", "array"):
        shape = tuple(int(rng.choice([1, 2, 3, 4])) for _ in range(int(rng.integers(1 if kind == "list" else 2, 4))))
        dtype, top = pick((("uint8", 256), ("float32", 2), ("int64", 70000)))
        feature: Any = datasets.Value(dtype)
        for size in reversed(shape):
            feature = datasets.List(feature, length=pick((-1, size)))
        if kind == "array":
            feature = {2: datasets.Array2D, 3: datasets.Array3D}[len(shape)](shape, dtype)
        ragged = rng.random() < 0.2
        return feature, lambda i: rng.integers(0, top, (shape[0] + (ragged and i % 2), *shape[1:])).tolist()
    if kind == "struct":
        return {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, lambda i: {
            "bytes": b"\x89PNG",
            "path": None,
        }
    mode, sizes = pick(MODES), rng.random() < 0.2
    return datasets.Image(mode=pick((None, None, "L", "RGB"))), lambda i: picture(rng, mode, 3 + (sizes and i % 2))


def picture(rng: np.random.Generator, mode: str, side: int) -> dict[str, Any]:
    """An encoded picture, now and then damaged."""
    noise = rng.integers(0, 256, (side, side + 1), dtype=np.uint8)
    made = Image.fromarray(noise.astype(np.uint16)) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    out = io.BytesIO()
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "F": "TIFF"}.get(mode, str(rng.choice(["PNG", "PNG", "TIFF"])))
    made.save(out, kind)
    data = out.getvalue()
    if rng.random() < 0.01:
        data = data[: int(rng.integers(len(data)))]
    return {"bytes": data, "path": None}
