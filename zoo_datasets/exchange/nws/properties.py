"""A row of `models` ↔ the thirteen properties of Neural Weight Space, in words and in its codes.

In:  the settings of a model and its architecture, by our names; or a `meta.csv`.
Out: `Properties`, typed and named as there; the row of a `meta.csv`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from zoo_datasets import errors
from zoo_datasets.errors import ZooError
from zoo_datasets.exchange.nws.network import Numbers, read_off
from zoo_datasets.format.schema import Column
from zoo_datasets.reading.selection import Selection

# Their code is the place in the tuple.
CODES = {
    "optimizer": ("adam", "rmsprop", "momentum"),
    "activation": ("relu", "elu", "sigmoid", "tanh"),
    "initialization": ("constant", "normal", "glorot_uniform", "glorot_normal"),
}
# The last part of a source's id → their name of the data; another source keeps its own.
DATASETS = {"mnist": "mnist", "fashion_mnist": "fashion", "fashion-mnist": "fashion", "cifar10": "cifar10",
            "svhn": "svhn", "stl10": "stl10"}  # fmt: skip
MOST_NAME = 255  # characters of a dataset's name in a file


@dataclasses.dataclass(frozen=True)
class Properties:
    """One model's, in the order of the columns of a `meta.csv`."""

    dataset: str
    lrate: float
    batch_size: int
    batch_norm: bool
    augmentation: bool
    optimizer: str
    activation: str
    initialization: str
    filter_size: int
    depth_conv: int
    depth_fc: int
    width_conv: int
    width_fc: int

    @property
    def numbers(self) -> Numbers:
        return Numbers(
            self.filter_size, self.depth_conv, self.depth_fc, self.width_conv, self.width_fc, self.batch_norm
        )

    def coded(self) -> dict[str, Any]:
        """The row of a `meta.csv`."""
        words = dataclasses.asdict(self)
        codes = {name: words_of.index(words[name]) for name, words_of in CODES.items()}
        return words | codes | {"lrate": repr(self.lrate), "augmentation": int(self.augmentation)}


NAMES = tuple(f.name for f in dataclasses.fields(Properties))
_TYPES = {"str": pa.string(), "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
COLUMNS = tuple(
    Column(f.name, _TYPES[str(f.type)], f"as Neural Weight Space has it: {f.name}")
    for f in dataclasses.fields(Properties)
)


def table(zoo: Selection) -> pa.Table:
    """The properties of a selection's models under their names there, beside `model_id`, a row each.

    So code that was written for Neural Weight Space finds its columns. Raises ZooError for a model that has none.
    """
    rows = of_models(zoo)
    columns = {"model_id": pa.array(rows, pa.string())}
    for c in COLUMNS:
        columns[c.name] = pa.array([getattr(p, c.name) for p in rows.values()], c.type)
    return pa.table(columns)


def of_models(zoo: Selection) -> dict[str, Properties]:
    """The properties of a selection's models, by id. Raises ZooError for a model that has none."""
    found: dict[str, tuple[Numbers, str] | None] = {}
    result = {}
    for row in zoo.models.to_pylist():
        id, key = row["model_id"], str(row["architecture_id"])
        if key not in found:
            found[key] = read_off(zoo.architecture(id))
        read = found[key]
        if read is None:
            raise ZooError(
                f"Model {id} of {zoo.name} is no network of Neural Weight Space: three blocks of convolutions on "
                "3×32×32, fully connected layers, 20 logits. Its weights in that order are `views.to_nws`."
            )
        result[id] = _of_row(row, *read, f"model {id} of {zoo.name}")
    return result


def _of_row(row: Mapping[str, Any], numbers: Numbers, activation: str, where: str) -> Properties:
    words = {
        "optimizer": row.get("optimizer"),
        "activation": activation,
        "initialization": row.get("initialization", row.get("init_kind")),
    }
    for name, known in CODES.items():
        if words[name] not in known:
            raise ZooError(
                errors.unknown(name, words[name], known, f"{where}, for which Neural Weight Space has no code")
            )
    rate, batch = row.get("lrate", row.get("lr")), row.get("batch_size")
    if rate is None or batch is None:
        raise ZooError(f"The zoo does not say the learning rate and the batch size of {where}.")
    source = str(row.get("dataset", row.get("source")))
    return Properties(
        dataset=DATASETS.get(source.rpartition("/")[2].lower(), source), lrate=float(rate), batch_size=int(batch),
        augmentation=_augmented(row), **words, **dataclasses.asdict(numbers),
    )  # fmt: skip


def _augmented(row: Mapping[str, Any]) -> bool:
    """Whether anything was done to the training images: an imported column says so, or our settings do."""
    if isinstance(row.get("augmentation"), bool):
        return bool(row["augmentation"])
    return any(bool(v) for name, v in row.items() if name.startswith("augment_") and name != "augment_key")


# ── meta.csv ──


def written(rows: Iterable[Mapping[str, Any]], names: Iterable[str] = NAMES) -> str:
    """The text of a CSV file."""
    text = io.StringIO()
    out = csv.DictWriter(text, list(names), lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue()


def parsed(text: str, where: str) -> Properties:
    """The properties in a `meta.csv`. Raises ZooError."""
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ZooError(f"{where} is no CSV file: {error}.") from None
    rows = [r for r in rows if r]
    head = [c.strip() for c in rows[0]] if rows else []
    missing = [name for name in NAMES if name not in head]
    if missing:
        raise ZooError(f"{where} has no column {errors.alternatives(missing)}; all of {', '.join(NAMES)} are needed.")
    if len(rows) != 2:
        raise ZooError(f"{where} has {len(rows) - 1} rows; one with {len(head)} values is needed, the model's.")
    if len(rows[1]) != len(head):
        raise ZooError(f"{where} has {len(rows[1])} values in its row and {len(head)} names above them.")
    row = dict(zip(head, (v.strip() for v in rows[1]), strict=True))
    return Properties(
        **{f.name: _value(f.name, str(f.type), row[f.name], where) for f in dataclasses.fields(Properties)}
    )


def _value(name: str, kind: str, text: str, where: str) -> Any:
    if name in CODES:
        code = _number(name, text, where)
        if code not in range(len(CODES[name])):
            known = ", ".join(f"{i} {word}" for i, word in enumerate(CODES[name]))
            raise ZooError(f"{where}: `{name}` is {errors.shown(text)!r}; known are {known}.")
        return CODES[name][int(code)]
    if kind == "str":
        if not text or len(text) > MOST_NAME or not text.isprintable():
            raise ZooError(f"{where}: `{name}` is {errors.shown(text)!r}; a name is needed.")
        return text
    if kind == "bool":
        known_bools = {"0": False, "1": True, "false": False, "true": True}
        if text.lower() not in known_bools:
            raise ZooError(f"{where}: `{name}` is {errors.shown(text)!r}; 0 or 1 is needed.")
        return known_bools[text.lower()]
    value = _number(name, text, where)
    if kind == "int":
        if value != int(value) or not 0 < value < 2**31:
            raise ZooError(f"{where}: `{name}` is {errors.shown(text)!r}; a whole number above 0 is needed.")
        return int(value)
    if value < 0:  # the one number that is not whole is the learning rate
        raise ZooError(f"{where}: `{name}` is {errors.shown(text)!r}; a number from 0 on is needed.")
    return value


def _number(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ZooError(f"{where}: `{name}` is {errors.shown(text)!r}; a number is needed.")
    return value
