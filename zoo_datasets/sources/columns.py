"""The splits of a dataset → which columns hold inputs and labels; and the labels.

In:  the splits as `datasets` has them, and what the recipe names.
Out: names of columns; the classes in order; int64 labels. What cannot be found without doubt is
refused, with the names that would do: ten at most, for a table of pixels has hundreds.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.errors import MOST_ALTERNATIVES, GridError, unknown
from zoo_datasets.sources.spec import SourceSpec
from zoo_datasets.sources.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_LOOKED_AT = 10_000  # of each column that a hint would name
UNLABELED, UNKNOWN = -1, -2  # labels of a row that has none, and of one whose class the training split lacks
INPUT_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels")
TEXTS = ("string", "large_string", "string_view")  # as pandas, polars and Arrow leave them
AS_TEXT = (
    "binary",
    "large_binary",
    "binary_view",
    "date",
    "time",
    "timestamp",
    "duration",
)  # what a cast makes texts of
# As pandas leaves its index, and as tables name their rows: where such a column is another whole number in each row it is none of what
# was measured, and in a table that was sorted it says the class.
ROW_NAMES = re.compile(r"__index_level_\d+__|Unnamed: \d+|level_\d+|index|idx|[\w ]*id|row|row_?number|", re.IGNORECASE)
# A column that is the class in other numbers has few of them, and each in many rows.
MOST_WORDS_A_CLASS, FEWEST_ROWS_A_WORD = 3, 5
NO_LABELS = "Use an image classification set, or a table with labels."


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where the inputs of a source stand. Exactly one of the first two says something."""

    image: str | None  # a column of pictures, or of images as nested lists of numbers
    numbers: tuple[str, ...]  # columns of numbers: features, or pixels where the recipe says so
    left_out: tuple[str, ...] = ()  # columns of a table that are no numbers, as messages show them
    row_names: tuple[str, ...] = ()  # and those that number its rows
    labels: tuple[str, ...] = ()  # and those of the usual name of a label, where the recipe names another


def found(spec: SourceSpec, table: Table) -> tuple[Inputs, str]:
    """Where the inputs stand, and the label column. Raises GridError, which names what would do."""
    features = dict(table.features)
    pictures = [name for name, feature in features.items() if is_picture(feature)]
    grids = [name for name, feature in features.items() if depth(feature) in (2, 3)]
    lists = [name for name, feature in features.items() if depth(feature) == 1]
    table_like = spec.image_columns is not None or spec.features is not None
    if spec.image_column is not None and table_like:
        other = "image_columns" if spec.image_columns is not None else "features"
        raise GridError(f"Source {spec.id!r} has image_column and {other}; keep one of them.")
    if spec.image_columns is not None and spec.features is not None:
        raise GridError(f"Source {spec.id!r} has image_columns and features; keep one of them.")
    numbers = [name for name, feature in features.items() if depth(feature) in (0, 1)]
    if spec.image_column is not None or (not table_like and (pictures or grids)):
        images = pictures or grids
        usual = [n for n in INPUT_NAMES if n in images]
        image = _column(spec, "image", spec.image_column, features, images, usual, lambda: [*pictures, *grids])
        if image not in (*pictures, *grids, *lists):
            raise GridError(
                f"Source {spec.id!r} has no pictures in column {image!r}, but {described(features[image])}. "
                + (
                    _say(
                        ("Name one as image_column", [*pictures, *grids]),
                        ("Columns of numbers are features", [n for n in numbers if n not in LABEL_NAMES]),
                    )
                    or _no_inputs(features)
                )
            )
        return Inputs(image, ()), _label(spec, table, features, inputs=[image])
    asked = spec.image_columns or spec.features
    if asked is not None:
        picked = tuple(_picked(spec, "image_columns" if spec.image_columns else "features", asked, features, numbers))
        return Inputs(None, picked), _label(spec, table, features, inputs=picked)
    # Before the label is asked for: where nothing could be an input, no name of a label would help.
    label = _label(spec, table, features, inputs=[]) if numbers else None
    rest = [name for name in features if name != label]
    naming = tuple(name for name in rest if name in numbers and _names_rows(table, name))
    # The label once more, as a number beside its text.
    again = tuple(name for name in rest if name in numbers and name in LABEL_NAMES)
    used = tuple(name for name in rest if name in numbers and name not in (*naming, *again))
    if not used or label is None:
        raise GridError(
            f"Source {spec.id!r} has no image columns among: {_listed(features)}, and no other columns of numbers. "
            + _no_inputs(features)
        )
    texts = tuple(shown(n, features[n]) for n in rest if n not in (*used, *naming, *again))
    return Inputs(None, used, texts, naming, again if spec.label_column is not None else ()), label


def counted(names: list[str]) -> list[str]:
    """Names that differ by numbers alone, in the order of these: where a writer has sorted them, pixel10 stands before pixel2."""
    parts = [re.split(r"(\d+)", name) for name in names]
    numbers = [tuple(map(int, p[1::2])) for p in parts]
    if len({tuple(p[::2]) for p in parts}) != 1 or len(set(numbers)) < len(names):
        return names
    return [name for _, name in sorted(zip(numbers, names, strict=True))]


def says_class(table: Table, names: Iterable[str], labels: np.ndarray) -> list[str]:
    """Columns of few whole numbers, each of which occurs in one class alone, where there is one or more for each: the class in other words.

    By the first rows, as hints are.
    """
    labels = labels[:ROWS_LOOKED_AT]
    classes, found, features = np.unique(labels[labels >= 0]), [], table.features
    single = [name for name in names if depth(features[name]) == 0]
    if len(classes) < 2 or not single:
        return []
    first = table.select_columns(single).with_format("arrow")[: len(labels)]
    for name in single:
        try:
            held = _whole(first.column(name), name)
        except GridError:  # of a class there is no half
            continue
        known = (labels >= 0) & np.asarray(held.is_valid())
        values, place = np.unique(held.filter(known).to_numpy(), return_inverse=True)
        most = min(MOST_WORDS_A_CLASS * len(classes), known.sum() / FEWEST_ROWS_A_WORD)
        if len(classes) <= len(values) <= most and len(np.unique([place, labels[known]], axis=1).T) == len(values):
            found.append(name)
    return found


def _names_rows(table: Table, name: str) -> bool:
    """Whether a column has the name of an index, and another whole number of 0 or more in each row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not ROW_NAMES.fullmatch(name) or depth(table.features[name]) != 0 or len(table) < 2:
        return False
    try:
        held = _values(table, name)
    except GridError:  # not whole
        return False
    if held.null_count or not pa.types.is_integer(held.type):
        return False
    return bool(len(pc.unique(held)) == len(held) and pc.min(held).as_py() >= 0)


def class_names(tables: Sequence[Table], label: str) -> list[str | int]:
    """The classes in the order of their numbers: as the first table publishes them, or the sorted values of the column in all."""
    published = getattr(tables[0].features[label], "names", None)
    try:
        held = set[Any]() if published else {value for table in tables for value in _values(table, label).to_pylist()}
    except UnicodeDecodeError:
        raise GridError(f"Column {label!r} holds a text that is no UTF-8; write it anew.") from None
    values = published or sorted(value for value in held if value is not None)
    return [v for v in values if not isinstance(v, int) or v >= 0]  # a negative number says: not labeled


def labels(table: Table, label: str, names: Sequence[str | int]) -> np.ndarray:
    """The class of every row by its place in `names`, int64 [n]; UNLABELED, or UNKNOWN where it is not among them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _values(table, label)
    own = getattr(table.features[label], "names", None)
    if own is not None:  # numbers of its own names, which need not be the training split's
        place = {name: i for i, name in enumerate(names)}
        numbers = np.array([*(place.get(name, UNKNOWN) for name in own), UNLABELED], np.int64)
        held = values.cast(pa.int64()).fill_null(UNLABELED).to_numpy()
        return numbers[np.where((held < 0) | (held >= len(own)), len(own), held)]
    try:
        places = pc.index_in(values, value_set=pa.array(names, values.type)).fill_null(UNKNOWN)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise GridError(f"Column {label!r} holds other types in other splits: {error}.") from None
    result = places.to_numpy().astype(np.int64)
    missing = values.is_null().to_numpy()
    if pa.types.is_integer(values.type):
        missing = missing | (values.fill_null(0).to_numpy() < 0)
    return np.where(missing, UNLABELED, result)


def depth(feature: object) -> int | None:
    """How deep lists of numbers are nested: 0 for a number, 1 for a vector, …; None for anything else."""
    import datasets

    if isinstance(feature, datasets.Value):
        return 0 if _kind(feature) in ("int", "uint", "float", "bool", "decimal") else None
    if isinstance(feature, list):  # how older versions wrote a list
        inner = depth(feature[0]) if len(feature) == 1 else None
    elif hasattr(feature, "shape") and hasattr(feature, "dtype"):  # Array2D to Array5D
        return len(feature.shape) if depth(datasets.Value(feature.dtype)) == 0 else None
    else:
        inner = depth(feature.feature) if hasattr(feature, "feature") else None
    return None if inner is None else inner + 1


def is_picture(feature: object) -> bool:
    """An Image feature, or its storage in a table that was written without one."""
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def described(feature: object) -> str:
    """The type of a column, as messages call it."""
    import datasets

    return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__


def shown(name: str, feature: object) -> str:
    """A column in a message."""
    return f"{name} ({described(feature)})"


def first_of(names: list[str] | tuple[str, ...]) -> str:
    """Ten of the names at most, and how many more there are."""
    more = f" and {len(names) - MOST_ALTERNATIVES} more" if len(names) > MOST_ALTERNATIVES else ""
    return ", ".join(names[:MOST_ALTERNATIVES]) + more


def _label(spec: SourceSpec, table: Table, features: Mapping[str, object], inputs: Collection[str]) -> str:
    import datasets

    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [
        name
        for name, feature in features.items()
        if _holds_labels(feature) and (name not in inputs or spec.label_column)
    ]
    # Of a table the texts are likelier than the numbers.
    plain.sort(key=lambda name: _kind(features[name]) not in TEXTS)
    named = [name for name in LABEL_NAMES if name in classes + plain]
    hint = functools.partial(_of_whole_numbers, table, classes + plain)
    # A column of the usual name is asked about beside one that is published as classes: that may be another question.
    label = _column(spec, "label", spec.label_column, features, list(dict.fromkeys([*classes, *named])), named, hint)
    if label not in classes + plain:
        raise GridError(
            f"Source {spec.id!r} has no classes in column {label!r}, but {described(features[label])}; a row has one class, "
            "a text, a whole number or a bool. " + _other_labels(hint(), features, label)
        )
    if label in inputs:
        raise GridError(f"Source {spec.id!r} has {label!r} as its label and among its inputs; keep one of them.")
    return label


def _column(
    spec: SourceSpec, what: str, asked: str | None, features: Mapping[str, object], candidates: list[str], usual: list[str],
    possible: Callable[[], list[str]],
) -> str:  # fmt: skip
    """The column asked for, or the one there can be no doubt of. Raises GridError, which names those that would do."""
    if asked is not None:
        if asked not in features:
            raise GridError(unknown(f"{what}_column", asked, features, f"source {spec.id!r}"))
        return asked
    if len(candidates) == 1 or usual:
        return (usual if len(candidates) > 1 else candidates or usual)[0]
    names = possible()
    hint = (
        _other_labels(names, features) if what == "label" else _say((f"Name one as {what}_column", names)) or NO_LABELS
    )
    raise GridError(
        f"Source {spec.id!r} has {'several' if candidates else 'no'} {what} columns among: {_listed(features)}. {hint}"
    )


def _picked(
    spec: SourceSpec, setting: str, asked: tuple[str, ...], features: Mapping[str, object], numbers: list[str]
) -> list[str]:
    """Columns of numbers by name, by a pattern (`pixel*`), or by place. Raises GridError."""
    every = [name for name in numbers if name != spec.label_column]
    picked: list[str] = []
    for wanted in asked:
        if wanted in features:
            some = [wanted]
        elif any(sign in wanted for sign in "*?"):
            # What a pattern takes of the usual labels is no input.
            usual = LABEL_NAMES if spec.label_column is None else ()
            some = [n for n in every if fnmatch.fnmatchcase(n, wanted) and n not in usual and n not in picked]
            if setting == "image_columns":
                some = counted(some)
        else:
            some = [every[int(wanted)]] if wanted.isdecimal() and int(wanted) < len(every) else []
        if not some:
            raise GridError(unknown("column", wanted, every, f"{setting} of source {spec.id!r}"))
        picked += some
    for name in picked:
        if name not in numbers:
            raise GridError(
                f"Source {spec.id!r} has no numbers in column {name!r}, but {described(features[name])}. "
                + (_say((f"Name others as {setting}", every)))
            )
    if len(set(picked)) < len(picked):
        twice = sorted({name for name in picked if picked.count(name) > 1})
        raise GridError(f"Source {spec.id!r} has a column twice in {setting}: {first_of(twice)}.")
    return picked


def _holds_labels(feature: object) -> bool:
    """A column of texts, whole numbers or booleans; of floats too, which pandas makes of numbers where some are missing,
    and of decimals, which databases give."""
    import datasets

    kinds = ("int", "uint", "bool", *TEXTS, "float", "decimal")
    return isinstance(feature, datasets.Value) and _kind(feature) in kinds


def _kind(feature: object) -> str:
    """The name of a type without its bits: `decimal` of decimal128(9, 2)."""
    return str(getattr(feature, "dtype", "")).split("(")[0].rstrip("0123456789")


def _of_whole_numbers(table: Table, names: list[str]) -> list[str]:
    """Those of the columns whose first rows hold no fraction: a hint names what will do, as far as a look tells."""

    doubtful = [name for name in names if _kind(table.features[name]) in ("float", "decimal")]
    if not doubtful:
        return names
    rows = table.select_columns(doubtful).with_format("arrow")[:ROWS_LOOKED_AT]
    for name in doubtful:
        try:
            _whole(rows.column(name), name)
        except GridError:
            names = [n for n in names if n != name]
    return names


def _values(table: Table, label: str) -> pa.ChunkedArray:
    """The label column as Arrow holds it, numbers as whole ones. Raises GridError where one is not."""
    return _whole(table.select_columns([label]).with_format("arrow")[:].column(0), label)


def _whole(values: pa.ChunkedArray, label: str) -> pa.ChunkedArray:
    """Numbers that pandas made floats (for want of some), and decimals, as the whole ones they were; others as they are."""
    import pyarrow as pa

    if pa.types.is_string_view(values.type):  # of which Arrow cannot tell what is among them
        return values.cast(pa.large_string())
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        try:
            if pa.types.is_floating(values.type):
                chunks = [pa.Array.from_pandas(c.to_numpy(zero_copy_only=False)) for c in values.chunks]
                values = pa.chunked_array(chunks, values.type)
            values = values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise GridError(f"Column {label!r} holds no classes: {error}. Name another as label_column.") from None
    return values


def _other_labels(names: list[str], features: Mapping[str, object], asked: str | None = None) -> str:
    """What to do without a label column: name another, or make texts of one that `datasets` can make texts of."""
    if names:
        return _say(("Name one as label_column", names))
    for name in [asked] if asked else LABEL_NAMES:
        if name in features and described(features[name]).split("[")[0].rstrip("0123456789") in AS_TEXT:
            return f"Write the set once more after `cast_column({name!r}, datasets.Value('string'))`."
    return NO_LABELS


def _no_inputs(features: Mapping[str, object]) -> str:
    """What to do with a table without inputs that we know."""
    encoded = [name for name, feature in features.items() if described(feature).endswith("binary")]
    if encoded:
        return (
            f"Where {encoded[0]!r} holds the bytes of pictures, write the set once more after "
            f"`cast_column({encoded[0]!r}, datasets.Image())`."
        )
    if len(features) == 1 and any(sign in next(iter(features)) for sign in ";\t|"):
        return "Its one column looks like several: write the file with commas between them."
    return "Use an image classification set, or a table of numbers with a label."


def _listed(features: Mapping[str, object]) -> str:
    return first_of([shown(name, feature) for name, feature in features.items()])


def _say(*hints: tuple[str, list[str]]) -> str:
    """`Name one as label_column: a, b.` of the first hint that has names."""
    return next((f"{text}: {first_of(names)}." for text, names in hints if names), "")
