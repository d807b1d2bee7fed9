"""Source name → the arrays that small networks learn, divided and checksummed.

In:  a `SourceSpec`: "digits", "iris" or the id of a dataset with classes, of images or a table of
     numbers; "machine" or "language", whose sequences are made here (`sequences.py`); how many inputs of
     each part; scaling, size, channels; perhaps the folder it lies in.
Out: a `Source`: raw inputs, labels and row numbers of its train, validation and test part.

Which inputs are in which part is fixed by the source alone (`division.py`). The data axes of a
model are in `examples.py`.

A local copy is read afresh where it lies; nothing is written outside a temporary folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, ZooError, ZooNotFoundError, alternatives, unknown
from zoo_datasets.sources import columns, division, image_sets, number_tables, opening, scaling, sequences
from zoo_datasets.sources.embedded import EMBEDDED, embedded
from zoo_datasets.sources.spec import MADE, Part, PublishedSplit, Source, SourceSpec, check_spec
from zoo_datasets.sources.tables import Table

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def load(spec: SourceSpec, data_dir: str | Path | None = None, path: str | Path | None = None) -> Source:
    """The source, from the folder `path`, scikit-learn, `data_dir` (or $ZOO_DATA), or the Hugging Face Hub.

    Of a machine of your own `path` is the Python file that it is a function of, which is run.
    A spec with a revision is read from the Hub alone: no copy says of which commit it is.

    Raises:
        ZooNotFoundError: there is no such source where it was looked for.
        GridError: it has no images or numbers with classes, or too few, or ones that cannot be read as they are.
        IntegrityError: its files cannot be read.
    """
    check_spec(spec)
    if spec.id in MADE:
        names, parts = sequences.made(spec, path)
        features = [f"feature {i}" for i in range(parts["train"].inputs.shape[2])]
        return _scaled(spec, _Raw(names, parts, 1.0, _checksum(parts), (), features))
    try:
        folder = _folder(spec, data_dir, path)
        fingerprint = _fingerprint(folder)
    except OSError as error:
        if isinstance(error, ZooError):
            raise
        raise ZooNotFoundError(
            f"Source {spec.id!r} cannot be looked for: {str(error.filename)[:200]!r}: {error.strerror}. Correct source.path, "
            "--data or ZOO_DATA, or make the folder readable."
        ) from None
    unscaled = replace(spec, scale="none", mean=None, std=None)
    return _scaled(spec, _read(unscaled, folder, fingerprint))


def _scaled(spec: SourceSpec, read: _Raw) -> Source:
    mean, std, notes = scaling.scale_of(spec, read.parts["train"].inputs, read.peak, read.channel_names)
    source = Source(
        spec, read.class_names, **read.parts, mean=mean, std=std, peak=read.peak, sha256=read.sha256,
        notes=(*read.notes, *notes), feature_names=tuple(read.channel_names) if read.parts["train"].inputs.ndim == 2 else (),
    )  # fmt: skip
    scaling.check_range(source)
    return source


def _channels(n: int) -> list[str]:
    return [f"channel {i}" for i in range(n)]


@dataclass(frozen=True)
class _Splits:
    """A dataset as its author published it."""

    class_names: tuple[str, ...]
    splits: dict[str, PublishedSplit]
    peak: float
    notes: tuple[str, ...] = ()
    names: Callable[[int], list[str]] = _channels  # of that many channels, or features


@dataclass(frozen=True)
class _Raw:
    """What a source is before it is scaled."""

    class_names: tuple[str, ...]
    parts: dict[str, Part]
    peak: float
    sha256: str
    notes: tuple[str, ...]
    channel_names: list[str]


SIGNS = "Where -1 and 1 are two classes, write them as 0 and 1, or as texts."


# Two: a grid that crosses sources has few, and each may be hundreds of megabytes.
@functools.lru_cache(maxsize=2)
def _read(spec: SourceSpec, folder: Path | None, fingerprint: tuple[Any, ...]) -> _Raw:
    """A source, decoded once while its files stay the same."""
    with _published(spec, folder) as found:
        usable = {name: _usable(spec, split.labels) for name, split in found.splits.items()}
        # Some test sets are published without labels; they can test nothing here.
        labeled = [name for name, split in found.splits.items() if (split.labels >= 0).any()]
        for name in division.named(spec):
            for member in division.members(name, found.splits):
                if member in found.splits and member not in labeled:
                    raise GridError(f"Source {spec.id!r} has no labels of its classes in its split {member!r}.")
        parts_of = division.roles(spec, labeled)
        for name in set(parts_of) - set(found.splits):
            joined = division.members(name, found.splits)
            found.splits[name] = _joined([found.splits[member] for member in joined])
            usable[name] = np.concatenate([usable[member] for member in joined])
        places = division.divided(spec, {name: usable[name] for name in dict.fromkeys(parts_of)}, parts_of)
        parts = {part: _part(spec, name, found, rows) for part, (name, rows) in places.items()}
        notes = [*found.notes, *_left_out(spec, parts_of, usable)]
        names = found.names(parts["train"].inputs.shape[1])
    return _Raw(found.class_names, parts, found.peak, _checksum(parts), tuple(notes), names)


@contextmanager
def _published(spec: SourceSpec, folder: Path | None) -> Iterator[_Splits]:
    if spec.id in EMBEDDED:
        names, splits, peak, features = embedded(spec)
        yield _Splits(names, splits, peak, names=lambda n: list(features or _channels(n)))
        return
    with opening.opened(spec, folder) as tables:
        first = tables[_first(spec, tables)]
        inputs, label = columns.found(spec, first)
        needed = [label, *([inputs.image] if inputs.image is not None else inputs.numbers)]
        # A split that lacks the columns can serve as nothing, unless the recipe names it.
        for name in division.named(spec):
            for member in division.members(name, tables):
                there = set(tables[member].column_names) if member in tables else set(needed)
                lacking = [c for c in needed if c not in there]
                if lacking:
                    raise GridError(
                        f"Source {spec.id!r} has no column {lacking[0]!r} in its split {member!r}; it has "
                        f"{alternatives(tables[member].features, lacking[0])}."
                    )
        whole = {n: t for n, t in tables.items() if len(t) and set(needed) <= set(t.column_names)}
        # A training split that is several has the classes of all of them.
        train = division.members(spec.train_split, tables) if spec.train_split is not None else ()
        classes = columns.class_names([first, *(whole[name] for name in train[1:] if name in whole)], label)
        labels = {n: columns.labels(t, label, classes) for n, t in whole.items()}
        yield _of_tables(spec, whole, labels, inputs, tuple(map(str, classes)))


def _first(spec: SourceSpec, tables: dict[str, Table]) -> str:
    """The split that says what columns and classes there are: that of train, as far as it is known yet."""
    if not tables:
        raise GridError(f"Source {spec.id!r} has no split; it cannot be learned from.")
    if spec.train_split is not None:
        name = division.members(spec.train_split, tables)[0]
        if name not in tables:
            raise GridError(unknown("split", name, tables, f"source {spec.id!r}"))
        return name
    return "train" if "train" in tables else next(iter(tables))


def _of_tables(
    spec: SourceSpec, tables: dict[str, Table], labels: dict[str, np.ndarray], inputs: columns.Inputs,
    class_names: tuple[str, ...],
) -> _Splits:  # fmt: skip
    """The splits of a dataset of pictures, of images as numbers, or of features."""
    first = next(iter(tables.values()), None)
    if first is None:
        raise GridError(f"Source {spec.id!r} has no rows.")
    image = inputs.image
    if image is not None and columns.is_picture(first.features[image]):
        splits = {
            name: PublishedSplit(
                labels[name],
                functools.partial(image_sets.read, spec.id, name, table, image, spec.channels, spec.resize),
            )
            for name, table in tables.items()
        }
        return _Splits(class_names, splits, 255.0)
    if image is not None or spec.image_columns is not None:
        chosen = inputs.numbers if image is None else (image,)
        pixels = number_tables.pixels_of(spec, tables.items(), chosen)
        splits = {
            name: PublishedSplit(
                labels[name], functools.partial(number_tables.images, spec, name, table, chosen, pixels)
            )
            for name, table in tables.items()
        }
        note = number_tables.said(spec, first, chosen)
        return _Splits(class_names, splits, pixels.peak, (note,) if note else ())
    if spec.resize or spec.channels:
        raise GridError(
            f"Source {spec.id!r} is a table; resize and channels are for images. Name its columns of pixels as image_columns."
        )
    splits = {
        name: PublishedSplit(labels[name], functools.partial(number_tables.features, spec, name, table, inputs.numbers))
        for name, table in tables.items()
    }
    notes = tuple(
        f"source {spec.id}: left out of the features, as {why}: {columns.first_of(names)}{way}"
        for names, why, way in (
            (inputs.left_out, "no numbers", ""),
            (inputs.row_names, "numbers of the rows", "; source.features takes what it names"),
            (inputs.labels, "labels too", "; source.features takes what it names"),
        )
        if names
    )
    notes += tuple(
        f"source {spec.id}: {name} is among the features, and each of its numbers occurs in one class alone: it says the class; "
        "source.features can leave it out"
        for name in columns.says_class(first, inputs.numbers, labels[next(iter(tables))])
    )
    names = functools.partial(number_tables.feature_names, first, inputs.numbers)
    return _Splits(class_names, splits, 1.0, notes, names)


def _usable(spec: SourceSpec, labels: np.ndarray) -> np.ndarray:
    return labels != columns.UNLABELED if spec.unlabeled == "leave_out" else np.ones(len(labels), bool)


def _left_out(spec: SourceSpec, used: tuple[str, ...], usable: dict[str, np.ndarray]) -> Iterator[str]:
    for name in dict.fromkeys(used):
        missing = int((~usable[name]).sum())
        if missing:
            yield f"source {spec.id}: {missing} of {len(usable[name])} rows of split {name} have no label and are left out"


def _joined(splits: list[PublishedSplit]) -> PublishedSplit:
    """One split after another."""
    ends = np.cumsum([len(split.labels) for split in splits])

    def read(rows: np.ndarray) -> np.ndarray:
        of = np.searchsorted(ends, rows, side="right")
        out: np.ndarray | None = None
        for i, split in enumerate(splits):
            here = np.flatnonzero(of == i)
            if not len(here):
                continue
            values = split.read(rows[here] - (ends[i] - len(split.labels)))
            if out is None:
                out = np.empty((len(rows), *values.shape[1:]), values.dtype)
            if out.shape[1:] != values.shape[1:]:
                a, b = ("×".join(map(str, v.shape[1:])) for v in (out, values))
                raise GridError(f"Splits that are joined have inputs of {a} and of {b}. Set resize for one size.")
            out[here] = values
        assert out is not None
        return out

    return PublishedSplit(np.concatenate([split.labels for split in splits]), read)


def _part(spec: SourceSpec, name: str, found: _Splits, rows: np.ndarray) -> Part:
    split, class_names = found.splits[name], found.class_names
    labels = split.labels[rows]
    if (labels == columns.UNLABELED).any():
        strange = rows[labels == columns.UNLABELED]
        raise GridError(
            f"Source {spec.id!r} has {len(strange)} of {len(rows)} images without a label of its {len(class_names)} classes in "
            f"split {name!r}, the first in row {strange[0]} (a number below 0 is none). "
            + (SIGNS if class_names == ("1",) else "To train without such rows, set source.unlabeled: leave_out.")
        )
    if (labels < 0).any() or (labels >= len(class_names)).any():
        strange = rows[(labels < 0) | (labels >= len(class_names))]
        raise GridError(
            f"Source {spec.id!r} has {len(strange)} of {len(rows)} images without a label of its {len(class_names)} classes in "
            f"split {name!r}, the first in row {strange[0]}: their class is not among those of the training split. Name "
            "other splits, or write the set without these rows."
        )
    inputs = split.read(rows) if len(rows) else split.read(np.zeros(1, np.int64))[:0]
    part = Part(inputs, labels, rows.astype(np.int64))
    for array in (part.inputs, part.labels, part.index):
        array.setflags(write=False)  # shared by every caller of load
    return part


def _checksum(parts: dict[str, Part]) -> str:
    """SHA-256 of inputs, labels and row numbers, with their shapes and types, little-endian."""
    sha = hashlib.sha256()
    for part in ("train", "validation", "test"):
        own = parts[part]
        for name, array in (
            ("images", own.inputs),
            ("labels", own.labels),
            ("index", own.index),
            ("outputs", own.outputs),
        ):  # the first zoos' names
            if array is None:
                continue
            array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            sha.update(streams.canonical_json([part, name, array.dtype.str, list(array.shape)]).encode())
            sha.update(array.data)
    return sha.hexdigest()


def _folder(spec: SourceSpec, data_dir: str | Path | None, path: str | Path | None) -> Path | None:
    """The folder to read, or None where scikit-learn or the Hub has to be asked."""
    if path is not None:
        if spec.id in EMBEDDED:
            raise GridError(
                f"Source {spec.id!r} comes with scikit-learn and takes no path; name your set with source.id."
            )
        if not HUB_ID.fullmatch(spec.id):
            raise GridError(f"Source {spec.id!r} is no name for a set in a folder; write it as owner/name.")
        if spec.revision is not None:
            raise GridError(
                f"Source {spec.id!r} has a path and a revision; a folder has no revisions. Keep one of them."
            )
        folder = Path(path).expanduser()
        if not folder.is_dir():
            what = "is a file; name the folder it lies in" if folder.is_file() else "is not there"
            raise ZooNotFoundError(f"The folder {str(folder)!r} of source {spec.id!r} {what}: source.path.")
        return folder.absolute()
    if spec.id in EMBEDDED:
        return None
    if spec.revision is None:
        return _local_copy(spec.id, data_dir)
    _check_hub_id(spec.id)
    return None


def _check_hub_id(source: str) -> None:
    if not HUB_ID.fullmatch(source) or "/" not in source:
        raise ZooNotFoundError(
            f"{unknown('source', source, (*EMBEDDED, *MADE))} A dataset of the Hub is written owner/name."
        )


def _local_copy(source: str, data_dir: str | Path | None) -> Path | None:
    """The folder of the local copy, or None where the Hub has to be asked."""
    named = data_dir or os.environ.get("ZOO_DATA")
    root = Path(named) if named else None
    if root and not root.is_dir():
        raise ZooNotFoundError(
            f"No folder {str(root)!r} to read sources from. Correct ZOO_DATA or --data, or unset it."
        )
    copies = sorted(str(p.parent.relative_to(root).as_posix()) for p in root.glob("*/*/README.md")) if root else []
    if not HUB_ID.fullmatch(source):
        folder = (
            " A folder is named beside an id: `source: {id: owner/name, path: …}`." if Path(source).is_dir() else ""
        )
        raise ZooNotFoundError(unknown("source", source, [*EMBEDDED, *MADE, *copies]) + folder)
    copy = root / source if root else None
    if copy and copy.is_dir() and ("/" in source or (copy / "README.md").is_file()):
        return copy
    if "/" not in source:  # no dataset of the Hub lacks an owner; do not ask for a misspelt "digits"
        text = unknown("source", source, [*EMBEDDED, *MADE, *copies])
        raise ZooNotFoundError(f"{text} A dataset of the Hub is written owner/name.")
    return None


def _fingerprint(folder: Path | None) -> tuple[Any, ...]:
    """What changes when a file of the copy does, so that a rebuilt copy is read again."""
    if folder is None:
        return ()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(p.relative_to(folder)), (s := p.stat()).st_size, s.st_mtime_ns) for p in files)
