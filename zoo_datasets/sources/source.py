"""Source name → the arrays that small networks learn, divided and checksummed.

In:  a `SourceSpec`: "digits", "iris" or the id of an image-classification dataset; how many
     images of each part; scaling, size, channels.
Out: a `Source`: raw pixels, labels and row numbers of its train, validation and test part.

Which images are in which part is fixed by the source alone. One permutation per split of the
dataset, of `stream_key(["source", id, split])`: train takes its first images, validation the
last ones, test the first of the test split's; in a dataset of one split, test takes the last
and validation those before them. A validation split of its own serves as one, and as test
where there is no other. `split_seed` divides a dataset of one split as scikit-learn's
`train_test_split` does, for comparison with published work. The data axes of a model are in `examples.py`.

A local copy is read afresh where it lies; nothing is written outside a temporary folder.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, ZooNotFoundError, unknown
from zoo_datasets.sources import image_sets
from zoo_datasets.sources.embedded import EMBEDDED, embedded
from zoo_datasets.sources.spec import Part, PublishedSplit, Source, SourceSpec, check_spec

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
VALIDATION_NAMES = ("validation", "valid", "val", "dev")


def load(spec: SourceSpec, data_dir: str | Path | None = None) -> Source:
    """The source, from scikit-learn, `data_dir` (or $ZOO_DATA), or the Hugging Face Hub.

    Raises:
        ZooNotFoundError: there is no such source where it was looked for.
        GridError: it is not an image classification set, or holds too few images.
        IntegrityError: its files cannot be read.
    """
    check_spec(spec)
    folder = None if spec.id in EMBEDDED else _local_copy(spec.id, data_dir)
    unscaled = replace(spec, scale="none", mean=None, std=None)
    class_names, parts, peak, sha256 = _read(unscaled, folder, _fingerprint(folder))
    mean, std = _scaling(spec, parts["train"].inputs, peak)
    return Source(spec, class_names, **parts, mean=mean, std=std, peak=peak, sha256=sha256)


# Two: a grid that crosses sources has few, and each may be hundreds of megabytes.
@functools.lru_cache(maxsize=2)
def _read(
    spec: SourceSpec, folder: Path | None, fingerprint: tuple[Any, ...]
) -> tuple[tuple[str, ...], dict[str, Part], float, str]:
    """Class names, parts, peak and checksum; decoded once while the files stay the same."""
    with _splits(spec, folder) as (class_names, splits, peak):
        places = _places(spec, {name: len(split.labels) for name, split in splits.items()})
        parts = {part: _part(spec, name, splits[name], rows, class_names) for part, (name, rows) in places.items()}
    return class_names, parts, peak, _checksum(parts)


@contextmanager
def _splits(
    spec: SourceSpec, folder: Path | None
) -> Iterator[tuple[tuple[str, ...], dict[str, PublishedSplit], float]]:
    """Class names, the splits by name, and the peak of raw values."""
    if spec.id in EMBEDDED:
        yield embedded(spec)
        return
    with image_sets.opened(spec.id, spec.config, folder) as tables:
        image, label = image_sets.columns(spec.id, tables, spec.image_column, spec.label_column)
        first = tables["train"] if "train" in tables else next(iter(tables.values()))
        names = image_sets.class_names(first, label)
        splits = {}
        for name, table in tables.items():
            read = functools.partial(image_sets.read, spec.id, name, table, image, spec.channels, spec.resize)
            splits[name] = PublishedSplit(image_sets.labels(table, label, names), read)
        # Some test sets are published without labels; they can test nothing here.
        yield tuple(map(str, names)), {n: s for n, s in splits.items() if (s.labels >= 0).any()}, 255.0


def _places(spec: SourceSpec, lengths: dict[str, int]) -> dict[str, tuple[str, np.ndarray]]:
    """Part → (split, rows of it), from the number of rows of each split."""
    train, validation, test = _roles(spec.id, list(lengths))
    n = lengths[train]
    n_validation = lengths[validation] if validation != train else max(1, n // 10)
    n_validation = n_validation if spec.validation is None else spec.validation
    n_test = spec.test or (lengths[test] if test != train else max(1, n // 5))
    held_out = n_validation * (validation == train) + n_test * (test == train)
    n_train = spec.train or max(1, n - held_out)
    asked = {"train": (train, n_train), "validation": (validation, n_validation), "test": (test, n_test)}
    for split, held in lengths.items():
        here = {part: count for part, (where, count) in asked.items() if where == split}
        if sum(here.values()) > held:
            raise GridError(
                f"Source {spec.id!r} holds {held} images in its split {split!r}; the grid needs "
                + " + ".join(f"{part} {count}" for part, count in here.items())
                + ". Ask for fewer; a count left out has its default."
            )

    def order(split: str) -> np.ndarray:
        return streams.permutation(streams.stream_key(["source", spec.id, split]), lengths[split])

    if spec.split_seed is not None:
        if test != train or validation != train:
            raise GridError(f"Source {spec.id!r} has splits of its own; split_seed divides a dataset of one split.")
        # RandomState's stream is frozen by NumPy (NEP 19); scikit-learn takes test first, then train.
        rows = np.random.RandomState(spec.split_seed).permutation(n)
        picked = {
            "test": rows[:n_test],
            "train": rows[n_test : n_test + n_train],
            "validation": rows[n - n_validation :],
        }
        return {part: (train, picked[part]) for part in ("train", "validation", "test")}
    rows, end = order(train), n - n_test if test == train else n
    test_rows = rows[end:] if test == train else order(test)[:n_test]
    own = validation != train
    validation_rows = order(validation)[:n_validation] if own else rows[end - n_validation : end]
    return {"train": (train, rows[:n_train]), "validation": (validation, validation_rows), "test": (test, test_rows)}


def _roles(source: str, splits: list[str]) -> tuple[str, str, str]:
    """The splits that hold train, validation and test images; the train split where there is no other."""
    if not splits:
        raise GridError(f"Source {source!r} has no split with labels; it cannot be learned from.")
    if "train" not in splits and len(splits) > 1:
        raise GridError(f"Source {source!r} has no split 'train'; it has {', '.join(splits)}.")
    train = "train" if "train" in splits else splits[0]
    held_out = next((name for name in VALIDATION_NAMES if name in splits and name != train), train)
    if "test" in splits and train != "test":
        return train, held_out, "test"
    return train, train, held_out


def _part(spec: SourceSpec, name: str, split: PublishedSplit, rows: np.ndarray, class_names: tuple[str, ...]) -> Part:
    labels = split.labels[rows]
    strange = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(strange):
        raise GridError(
            f"Source {spec.id!r} has {len(strange)} of {len(rows)} images without a label of its "
            f"{len(class_names)} classes in split {name!r}, the first in row {rows[strange[0]]}."
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
        ):  # the first zoos' names
            array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            sha.update(streams.canonical_json([part, name, array.dtype.str, list(array.shape)]).encode())
            sha.update(array.data)
    return sha.hexdigest()


def _scaling(spec: SourceSpec, images: np.ndarray, peak: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of unit-scaled values, such that (raw / peak − mean) / std is the scale."""
    channels = images.shape[1]
    if spec.scale == "none":
        return (0.0,) * channels, (1.0 / peak,) * channels
    if spec.scale == "unit":
        return (0.0,) * channels, (1.0,) * channels
    if spec.mean is None or spec.std is None:
        pairs = [_statistics(images[:, channel], peak) for channel in range(channels)]
        return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) != channels:
            raise GridError(f"Source {spec.id!r} has {len(values)} numbers in {name} and {channels} channels.")
    return tuple(map(float, spec.mean)), tuple(map(float, spec.std))


def _statistics(values: np.ndarray, peak: float) -> tuple[float, float]:
    """Mean and std of one channel over peak, from exact sums; a constant channel has std 1."""
    n = values.size
    if values.dtype == np.uint8:
        # Blocks: bincount widens to int64, eight times the images.
        counts = sum(np.bincount(block.ravel(), minlength=256) for block in np.array_split(values, n // 10**7 + 1))
        total = sum(level * int(count) for level, count in enumerate(counts))
        squares = sum(level * level * int(count) for level, count in enumerate(counts))
        mean, std = total / n / peak, math.sqrt((n * squares - total * total) / (n * n)) / peak
    else:
        wide = [float(value) / peak for value in values.ravel()]
        mean = math.fsum(wide) / n
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in wide) / n)
    return mean, std or 1.0


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
        raise ZooNotFoundError(unknown("source", source, [*EMBEDDED, *copies]))
    copy = root / source if root else None
    if copy and copy.is_dir() and ("/" in source or (copy / "README.md").is_file()):
        return copy
    if "/" not in source:  # no dataset of the Hub lacks an owner; do not ask for a misspelt "digits"
        text = unknown("source", source, [*EMBEDDED, *copies])
        raise ZooNotFoundError(f"{text} A dataset of the Hub is written owner/name.")
    return None


def _fingerprint(folder: Path | None) -> tuple[Any, ...]:
    """What changes when a file of the copy does, so that a rebuilt copy is read again."""
    if folder is None:
        return ()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(p.relative_to(folder)), (s := p.stat()).st_size, s.st_mtime_ns) for p in files)
