"""A folder in the layout of Neural Weight Space → a sealed zoo.

Every model is looked at before a byte is written: its properties, the length of each of its files against
the network that the properties name. Models that start from the same weights are one init group. Where lists
like `train.csv` and `test.csv` lie beside them, these say what is in the zoo, and on which side. Columns have their names, and ours beside them where
code asks for those; a model that diverged is kept up to its last finite snapshot; of losses, keys and images a folder says nothing, so these are null.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import logging
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from zoo_datasets.core import files, meters, streams
from zoo_datasets.errors import ZooError, ZooNotFoundError, shown
from zoo_datasets.exchange import folders
from zoo_datasets.exchange.nws import properties
from zoo_datasets.exchange.nws.exporting import MOST_SNAPSHOTS, PARTS
from zoo_datasets.exchange.nws.network import Numbers
from zoo_datasets.exchange.nws.properties import Properties
from zoo_datasets.format import splits, writer
from zoo_datasets.format.contents import About, Models
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZOO_ID
from zoo_datasets.format.schema import Column
from zoo_datasets.networks import layout
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.generated import NWS_DROPOUT
from zoo_datasets.views.nws import from_nws

log = logging.getLogger("zoo_datasets")

MOST_EPOCHS = 100_000  # rows of errors; theirs have at most a thousand
MOST_META = 100_000  # bytes
VALUE = 8  # bytes of a float64
MOST_OF_A_MODEL = 1 << 33  # bytes of all snapshots of a model, which are in memory together; theirs have some 60 MB
ERROR_COLUMNS, STATISTICS = 5, 4
MOST_LIST = 1 << 28  # bytes; theirs of 13,000 models has some 2 MB
MOST_LISTED = 1_000_000  # models in all lists; theirs name 16,000
MOST_COLUMNS, MOST_LINE = 1_000, 100_000  # of a list, and characters of its lines; theirs has some 20
FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}
FROM_TRAIN = (
    0.1  # of the training side, for validation, where there is no list of it: what their code takes, by network
)
# What code for our own zoos asks for, beside the properties.
FURTHER = (
    Column("source", pa.string(), "the data, as `dataset`"),
    Column("lr", pa.float64(), "learning rate, as `lrate`"),
    Column("init_kind", pa.string(), "distribution of weights, as `initialization`"),
    Column("dropout", pa.float64(), "rate of dropout layers that have none of their own"),
    Column("seconds", pa.float64(), "how long training took"),
)


class _Listed(NamedTuple):
    """What a list says of a model."""

    side: str
    id: str | None  # that it had in the zoo that was exported


@dataclasses.dataclass(frozen=True)
class _Found:
    """A model's folder whose files have the lengths that its properties ask for."""

    folder: Path
    own: Properties
    architecture: Architecture
    weights: tuple[Path, ...]  # by number
    table: np.ndarray  # (S, 5): the rows of `error.bin` that are the snapshots'
    statistics: np.ndarray  # (4,)
    init_group: str
    listed: _Listed | None  # None where there are no lists

    @property
    def id(self) -> str:
        """The one in a list; else 16 hex digits of its name and last weights: another folder is another model."""
        if self.listed and self.listed.id:
            return self.listed.id
        last = hashlib.sha256(_bytes(self.weights[-1], VALUE * self.architecture.n_params)).hexdigest()
        return streams.digest([self.folder.name, last])[:16]


def read(folder: Path, out: Path, name: str | None = None) -> Manifest:
    """Seal a new zoo in `out` of the models in a folder; its manifest. Raises ZooError.

    It is called `name`, or by the last two parts of `out`.
    """
    name = name or "/".join(out.absolute().parts[-2:])
    if not ZOO_ID.fullmatch(name):
        raise ZooError(f"A zoo is called `owner/name`, and {name!r} is no such name. Give one with --name.")
    if not folder.is_dir():
        raise ZooNotFoundError(f"No folder {folder}.")
    with folders.fresh(out) as scratch:
        models = _models(folder)
        architectures = {m.architecture.id: m.architecture for m in models}
        about = About(
            zoo=name,
            layouts=layout.by_id(a.layout for a in architectures.values()),
            architectures={k: {**a.to_json(), "layout": a.layout_id} for k, a in architectures.items()},
            factors=(*properties.COLUMNS, *FURTHER),
            axes=_axes(models),
        )
        return writer.write(scratch, about, _rows(models, _sides(models)))


# ── what is there ──


def _models(folder: Path) -> list[_Found]:
    """The models; of a folder with lists those that are in one. Raises ZooError."""
    there, listed = _folders(folder), _listed(folder)
    if not listed:
        return _compared([_look(f, None) for f in there])
    if absent := sorted(listed.keys() - {f.name for f in there}):
        such = shown(absent[0])
        log.warning("%d of %d listed models have no folder, such as %s.", len(absent), len(listed), such)
    if left := sum(f.name not in listed for f in there):
        log.warning("%d of %d models are in no list, and are left out. Without lists all are taken.", left, len(there))
    models = [_look(f, listed[f.name]) for f in there if f.name in listed]
    if not models:
        raise ZooError(f"None of the {len(there)} models in {folder} is in one of its lists.")
    if len({m.id for m in models}) < len(models):
        raise ZooError(f"The lists in {folder} give one `model_id` to several models. Take that column out.")
    return _compared(models)


def _compared(models: list[_Found]) -> list[_Found]:
    """The same; it is said where some have fewer snapshots than others, as a copy that was cut short has."""
    most = max(len(m.weights) for m in models)
    if fewer := [m for m in models if len(m.weights) < most]:
        log.warning(
            "%d of %d models have fewer than %d snapshots, such as %s with %d: theirs are taken as evenly spaced to the end.",
            len(fewer), len(models), most, fewer[0].folder.name, len(fewer[0].weights),
        )  # fmt: skip
    return models


def _listed(folder: Path) -> dict[str, _Listed]:
    """Model's folder → what the lists of their split say of it: `train.csv`, or `nws_main_train.csv`. Raises ZooError."""
    found: dict[str, _Listed] = {}
    for path in sorted(folder.glob("*.csv")):
        side = path.stem.rpartition("_")[2]
        if side not in FRACTIONS:
            continue
        for place, own in _named(path):
            if not place:
                raise ZooError(f"{path} lists models, and a row has no `path`: the folder of its model.")
            name = Path(place).name
            if name in found:
                raise ZooError(f"{path}: model {shown(name)} is listed twice, here or in a list before it.")
            if len(found) == MOST_LISTED:
                raise ZooError(f"{path}: the lists name more than {MOST_LISTED:,} models. Import them in parts.")
            found[name] = _Listed(side, own if re.fullmatch("[0-9a-f]{16}", own) else None)
    return found


def _named(path: Path) -> Iterator[tuple[str, str]]:
    """`path` and `model_id` of each row of a list, "" where it has none. Raises ZooError."""
    text = io.TextIOWrapper(io.BytesIO(_bytes(path, MOST_LIST)), "utf-8-sig", "replace")
    head: list[str] = []
    while line := text.readline(MOST_LINE + 1):
        row = [] if len(line) > MOST_LINE else _cells(line, path)
        if len(line) > MOST_LINE or len(row) > MOST_COLUMNS:
            raise ZooError(
                f"{path} has a line of more than {MOST_COLUMNS:,} columns or {MOST_LINE:,} characters. Of its columns "
                "`path` and `model_id` are needed."
            )
        cells = dict(zip(head, row, strict=False))
        if head and row:
            yield cells.get("path", ""), cells.get("model_id", "")
        head = head or row


def _cells(line: str, path: Path) -> list[str]:
    """One row: no quoted line break goes on, so that the length of a line bounds what it unfolds to. Raises ZooError."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ZooError(f"{path} is no CSV file: {error}.") from None


def _sides(models: Sequence[_Found]) -> dict[str, str]:
    """Init group → its side: that of the lists, or one by shares. Raises ZooError where lists part a group."""
    if models[0].listed is None:
        groups = dict.fromkeys(m.init_group for m in models)
        return splits.assign(groups, FRACTIONS if len(groups) >= len(FRACTIONS) else {"train": 1.0})
    first: dict[str, _Found] = {}
    for m in models:
        other = first.setdefault(m.init_group, m)
        if other.listed and m.listed and other.listed.side != m.listed.side:
            raise ZooError(
                f"Models {other.folder.name} and {m.folder.name} start from the same weights, and the lists have one in "
                f"{other.listed.side} and one in {m.listed.side}. Take the lists away, and the zoo is divided anew."
            )
    sides = {group: m.listed.side for group, m in first.items() if m.listed}
    ours = any(m.listed and m.listed.id for m in models)  # a zoo that was exported: it had the sides it had
    return sides if ours or "validation" in sides.values() else _with_validation(sides)


def _with_validation(sides: Mapping[str, str]) -> dict[str, str]:
    """Their lists have two sides: a tenth of the one that is learned from becomes validation."""
    shares = {"train": 1 - FROM_TRAIN, "validation": FROM_TRAIN}
    return {group: splits.by_hash(group, shares) if side == "train" else side for group, side in sides.items()}


def _folders(folder: Path) -> list[Path]:
    """The models' folders, by number. Raises ZooNotFoundError where there is none."""
    with _reading(folder):
        there = list(folder.iterdir())
    found = [f for f in there if f.is_dir() and re.fullmatch("[0-9]{1,9}", f.name)]
    if not found:
        raise ZooNotFoundError(f"{folder} has no model: each is a folder with a number, like 0001, and a meta.csv.")
    return sorted(found, key=lambda f: (int(f.name), f.name))


def _look(folder: Path, listed: _Listed | None) -> _Found:
    """A model's folder, looked at. Raises ZooError, a sentence that names the file."""
    meta = folder / "meta.csv"
    own = properties.parsed(_bytes(meta, MOST_META).decode("utf-8-sig", "replace"), str(meta))
    try:
        architecture = _network(own.numbers, own.activation)
    except ZooError as error:
        raise ZooError(f"{meta} names no network: {error}") from None
    weights = _weight_files(folder / "weights")
    size = VALUE * architecture.n_params
    if size * len(weights) > MOST_OF_A_MODEL:
        raise ZooError(
            f"{folder / 'weights'} holds {len(weights)} snapshots of {architecture.n_params:,} values, more than {MOST_OF_A_MODEL / 1e9:.0f} GB of "
            "one model, which is read whole. Import fewer of its snapshots."
        )
    for path in weights:
        found = _size(path)
        if found != size:
            raise ZooError(
                f"{path} has {found:,} bytes, and the network of {meta} has {architecture.n_params:,} values, which are "
                f"{size:,}."
            )
    table = _numbers(folder / "error.bin", ERROR_COLUMNS, MOST_EPOCHS)
    statistics = _numbers(folder / "stat.bin", STATISTICS, 1)[0]
    # Which rows are the snapshots' follows from how many there are of both: with one lost all would have another's numbers.
    ours = listed is not None and listed.id is not None
    count = float(len(table)) if ours and len(table) == len(weights) else float(statistics[0])
    if not (count == np.floor(count) and count <= len(table)):
        raise ZooError(
            f"{folder / 'error.bin'} has {len(table):,} rows, and {folder / 'stat.bin'} says {count:g}. Copy the model's folder again."
        )
    if count < len(weights) or (ours and count != len(weights)):
        raise ZooError(
            f"{folder / 'error.bin'} has {count:g} rows, and there are {len(weights)} snapshots. Copy the model's folder again."
        )
    table = table[: int(count)]
    # Evenly spaced over the epochs, as they were chosen; of as many rows as snapshots each is its own.
    table = table[np.round(np.linspace(0, len(table) - 1, len(weights))).astype(int)]
    _check_table(folder / "error.bin", table)
    _check_statistics(folder / "stat.bin", statistics)
    start = _vector(weights[0], architecture)
    if not np.isfinite(start).all():
        raise ZooError(f"{weights[0]} is not finite, so no snapshot of this model is kept. Take its folder away.")
    group = streams.digest([architecture.layout_id, hashlib.sha256(start.tobytes()).hexdigest()])[:32]
    return _Found(folder, own, architecture, weights, table, statistics, group, listed)


@functools.lru_cache(1000)
def _network(numbers: Numbers, activation: str) -> Architecture:
    """One for all models of these numbers, of which there are thousands. Raises ZooError."""
    return numbers.network(activation)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    there = [p.stem for p in folder.glob("*.bin")]
    numbers = sorted(int(stem) for stem in there if re.fullmatch("[0-9]{3}", stem))
    if strange := sorted(stem for stem in there if not re.fullmatch("[0-9]{3}", stem)):
        raise ZooError(
            f"{folder} holds {shown(strange[0])}.bin; snapshots are 001.bin, 002.bin and so on. Take it away, or name it so."
        )
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        said = "none" if not numbers else ", ".join(map(str, numbers[:20]))
        raise ZooError(
            f"{folder} needs 001.bin, 002.bin and so on without a gap (up to {MOST_SNAPSHOTS}); it has {said}."
        )
    return tuple(folder / f"{n:03d}.bin" for n in numbers)


def _check_table(path: Path, table: np.ndarray) -> None:
    steps, shares = table[:, 0], table[:, 1:4]
    if not (np.isfinite(steps).all() and (steps == np.floor(steps)).all() and (steps >= 0).all() and steps[-1] < 2**53):
        raise ZooError(f"{path}: the first column holds steps, which are whole numbers from 0; these are {steps[:5]}.")
    if (np.diff(steps) <= 0).any():
        at = int(np.flatnonzero(np.diff(steps) <= 0)[0])
        raise ZooError(f"{path}: step {steps[at + 1]:.0f} follows step {steps[at]:.0f}; the steps of snapshots rise.")
    wrong = ~(np.isnan(shares) | ((shares >= 0) & (shares <= 100)))
    if wrong.any():
        raise ZooError(f"{path}: an error is {shares[wrong][0]:g} %; errors lie between 0 and 100 %.")


def _check_statistics(path: Path, statistics: np.ndarray) -> None:
    """What was not kept is NaN; what was, could have been."""
    _, updates, passes, seconds = statistics
    if (
        updates < 0
        or updates >= 2**53
        or passes < 0
        or passes > updates
        or not (np.isnan(seconds) or 0 <= seconds < np.inf)
    ):
        raise ZooError(
            f"{path}: {updates:g} updates in {passes:g} passes and {seconds:g} seconds are no training: a pass takes an update "
            "at least, and no number is negative or infinite."
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises ZooError in place of what the system says of what cannot be read, which else would be said of what is written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{path} cannot be read: {error.strerror or error}.") from None


def _size(path: Path) -> int:
    """Bytes of a plain file. Raises ZooError."""
    with _reading(path):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ZooError(f"{path} is no regular file.")
    return found.st_size


def _bytes(path: Path, most: int) -> bytes:
    _size(path)
    with _reading(path):
        return files.read_bounded(path, most)


def _numbers(path: Path, columns: int, most_rows: int) -> np.ndarray:
    """A file of float64 as rows (n, columns), n at least 1. Raises ZooError."""
    row = VALUE * columns
    data = _bytes(path, row * most_rows)
    if not data or len(data) % row:
        raise ZooError(f"{path} has {len(data):,} bytes; rows of {columns} numbers, {row} bytes each, are needed.")
    return np.frombuffer(data, "<f8").reshape(-1, columns)


def _vector(path: Path, architecture: Architecture) -> np.ndarray:
    """Weights in our order, float32 [P]. Raises ZooError where float32 cannot hold a value."""
    data = _bytes(path, VALUE * architecture.n_params)
    given = np.frombuffer(data, "<f8")
    with np.errstate(over="ignore", invalid="ignore"):
        vector = given.astype("<f4")
    if not np.array_equal(vector.astype("<f8"), given, equal_nan=True):
        raise ZooError(f"{path} holds values that no float32 is: they were not written from a float32 network.")
    return from_nws(vector, architecture)


# ── what becomes of it ──


def _axes(models: list[_Found]) -> dict[str, Any]:
    """The properties that vary, with their levels; learning rates are drawn."""
    axes: dict[str, Any] = {}
    for name in properties.NAMES:
        levels = sorted({getattr(m.own, name) for m in models})
        if len(levels) > 1:
            axes[name] = "sample" if name == "lrate" else [streams.level_label(v) for v in levels]
    return axes


def _rows(models: list[_Found], sides: dict[str, str]) -> Iterator[Models]:
    with meters.track("importing", len(models), "models") as meter:
        for place, m in enumerate(models):
            weights = np.stack([_vector(path, m.architecture) for path in m.weights])
            finite = np.append(np.isfinite(weights).all(axis=1), False)  # (S + 1,)
            kept = int(finite.argmin())  # what diverged is kept up to its last finite snapshot
            yield Models(sides[m.init_group], _model(m, place, kept), _snapshots(m, kept), [weights[:kept]])
            meter.add()


def _model(m: _Found, place: int, kept: int) -> pa.Table:
    seconds, diverged = float(m.statistics[3]), kept < len(m.weights)
    row = dataclasses.asdict(m.own) | {
        "model_id": m.id, "init_group": m.init_group, "layout": m.architecture.layout_id,
        "architecture_id": m.architecture.id, "n_snapshots": kept, "plan_index": place,
        "stop_reason": "diverged" if diverged else None, "diverged_step": int(m.table[kept, 0]) if diverged else None,
        "source": m.own.dataset, "lr": m.own.lrate, "init_kind": m.own.initialization, "dropout": NWS_DROPOUT,
        "seconds": seconds if np.isfinite(seconds) else None,
    }  # fmt: skip
    types = {c.name: c.type for c in (*properties.COLUMNS, *FURTHER)}
    return pa.table({name: pa.array([value], types.get(name)) for name, value in row.items()})


def _snapshots(m: _Found, kept: int) -> pa.Table:
    table = m.table[:kept]
    steps = table[:, 0].astype(np.int64)
    _, updates, passes, _ = m.statistics
    known = np.isfinite([updates, passes]).all() and updates > 0
    # Divided last: whole epochs stay whole numbers.
    columns = {"epoch": steps * passes / updates if known else np.full(kept, np.nan)}
    for part, percent in zip(PARTS, table[:, 1:4].T, strict=True):
        columns[f"{part}_accuracy"] = 1 - percent / 100
    columns["gap_accuracy"] = columns["train_accuracy"] - columns["test_accuracy"]
    return pa.table({"step": steps} | {k: pa.array(v, from_pandas=True) for k, v in columns.items()})  # NaN is null
