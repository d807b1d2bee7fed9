"""A published population and its split, as others evaluated on it → a `Problem` like those of our zoos.

In:  a folder of the Small CNN Zoo (`weights.npy`, `metrics.csv` or `.csv.gz`, `layout.csv`), and the row permutation of Zhou
     et al., "Permutation Equivariant Neural Functionals" (2023). Out: test accuracy, learned and asked as published.

The protocol: rows in the permutation's order, whose first line is a row like any other (it names row 0, which so stands
twice); of them step 86; the first half shuffled by Python's `Random(0)` and cut 80/20 into train and validation; the second half
is test. Where row 0's two places fall on two sides, the same network is on both: it is kept, as published, and said.
"""

from __future__ import annotations

import math
import os
import random
import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from zoo_datasets.baselines.interface import Target, Targets, View
from zoo_datasets.core import files, streams
from zoo_datasets.errors import GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.split_files import Split
from zoo_datasets.tasks import Part, Problem

PROTOCOLS = ("nfn",)
STEP = 86
MOST_BYTES = 1 << 30  # of a table or a split
SPLITS_IN = "small-cnn-zoo-splits"
MOST_SHAPES = 10  # that are shown
SETTING = "config."  # what a column of the recipe begins with
NO_SETTING = ("random_seed",)  # a name of the run
# What NumPy says of a file that is no array; the last ones of a header whose text is none of Python.
UNREADABLE = (OSError, ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError)
IMAGES = {"svhn": 26_032}  # test images of a source; the others have 10,000


def sides(permutation: Sequence[int], steps: np.ndarray) -> dict[str, list[int]]:
    """Side → rows of the tables, in the order of the protocol. Raises IntegrityError unless each row is named, and once."""
    most = max(permutation, default=-1)
    if most >= len(steps) or min(permutation, default=0) < 0:
        raise IntegrityError(
            f"The split names row {most:,}, and the tables have {len(steps):,}: they are not of one population."
        )
    named = np.bincount(np.asarray(permutation, np.int64), minlength=len(steps))
    named[:1] -= named[:1] == 2  # the first line of the published files, and its place in the order
    if (named != 1).any():
        lost, again = int((named == 0).sum()), int((named > 1).sum())
        raise IntegrityError(
            f"The split names {lost:,} of {len(steps):,} rows nowhere and {again:,} more than once; the published one has each of them once. "
            "Take the whole file."
        )
    rows = [r for r in permutation if steps[r] == STEP]
    half = len(rows) // 2
    first, test = rows[:half], rows[half:]
    random.Random(0).shuffle(first)
    cut = int(0.8 * len(first))
    found = {"train": first[:cut], "validation": first[cut:], "test": test}
    if not all(found.values()):
        raise IntegrityError(
            f"Of the rows that the split names, {len(rows)} are of step {STEP}: too few for three sides."
        )
    return found


def permutation(path: Path) -> list[int]:
    """The rows that a split file names, its first line among them. Raises IntegrityError."""
    lines = files.read_bounded(path, MOST_BYTES).decode("utf-8", "replace").split()
    try:
        return [int(line) for line in lines]
    except ValueError as error:
        raise IntegrityError(f"{path} is no permutation of rows: {error}.") from None


def published(folder: Path, split: Path | None = None, networks: int | None = None) -> Problem:
    """The problem of a folder. Raises ZooNotFoundError, IntegrityError."""
    folder = folder.resolve()  # what it is called says whose networks it holds
    split = split or _split_of(folder)
    table = _table(folder)
    steps = np.asarray(table["step"].to_numpy(), np.int64)
    found = sides(permutation(split), steps)
    if networks is not None and networks >= len(found["train"]):
        networks = None  # no limit: the results are the same, and so are their names
    found["train"] = found["train"][:networks]
    try:
        weights = np.lib.format.open_memmap(folder / "weights.npy", mode="r")
    except UNREADABLE as error:
        raise IntegrityError(f"{folder / 'weights.npy'} cannot be read as an array: {error}.") from None
    if weights.dtype.kind != "f":
        raise IntegrityError(f"{folder / 'weights.npy'} holds {weights.dtype}, and no weights.")
    order = _order(folder, weights.shape[-1] if weights.ndim else 0)
    if weights.ndim != 2 or weights.shape != (len(table), len(order)):
        raise IntegrityError(
            f"{folder}: weights have shape {weights.shape}; {len(table):,} rows of {len(order):,} values are named."
        )
    name = f"small-cnn-zoo/{folder.name}"
    try:
        parts = {s: _part(name, table, weights, order, rows) for s, rows in found.items()}
    except GridError as error:
        raise IntegrityError(f"{_metrics(folder)} has networks that nobody can build: {error}") from None
    digest = streams.digest([files.sha256(_metrics(folder)), files.sha256(split), list(weights.shape)])
    rule = {"maker": "nfn", "row_0_on": [s for s, rows in found.items() if 0 in rows]}
    made = Split(
        "nfn", 1, {name: digest}, rule, {f"{i}:{r}": s for s, rows in found.items() for i, r in enumerate(rows)}
    )
    return Problem(
        name, digest, made, "nfn", {}, parts["train"], parts["validation"], parts["test"], {}, {}, None, networks
    )


# ── files ─────────────────────────────────────────────────────────────────────────────


def _metrics(folder: Path) -> Path:
    for name in ("metrics.csv.gz", "metrics.csv"):
        if (folder / name).exists():
            return folder / name
    raise ZooNotFoundError(f"{folder} has no metrics.csv or metrics.csv.gz: it is no folder of the Small CNN Zoo.")


def _table(folder: Path) -> pa.Table:
    path = _metrics(folder)
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            text = stream.read(MOST_BYTES + 1)
            if len(text) > MOST_BYTES:
                raise IntegrityError(
                    f"{path} holds more than {MOST_BYTES:,} bytes: it is no table of the Small CNN Zoo."
                )
            table = pyarrow.csv.read_csv(pa.py_buffer(text))
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{path} is no table: {error}.") from None
    names = table.column_names
    if len(set(names)) < len(names):
        raise IntegrityError(f"{path} has two columns {next(n for n in names if names.count(n) > 1)!r}.")
    for name, wanted in (
        ("step", pa.types.is_integer),
        ("test_accuracy", lambda t: pa.types.is_floating(t) or pa.types.is_integer(t)),
    ):
        if name not in names:
            raise IntegrityError(f"{path} has no column {name!r}.")
        if not wanted(table[name].type) or (name == "step" and table[name].null_count):
            raise IntegrityError(f"{path}: {name} is no number in every row.")
    return table


def _split_of(folder: Path) -> Path:
    """The published permutation of that population, beside it or in $ZOO_DATA."""
    source = folder.name.partition("-")[0].partition("_")[0].lower()
    places = [folder, *([Path(os.environ["ZOO_DATA"])] if os.environ.get("ZOO_DATA") else [])]
    for place in places:
        for pattern in (
            f"{source}_split*.csv",
            f"{SPLITS_IN}/{source}_split*.csv",
            f"*/{SPLITS_IN}/{source}_split*.csv",
        ):
            if found := sorted(place.glob(pattern)):
                return found[0]
    raise ZooNotFoundError(
        f"No split `{source}_split….csv` lies in {' or '.join(map(str, places))}. It is published with the code of Zhou et al. "
        "(2023); put it beside the weights."
    )


def _order(folder: Path, width: int) -> np.ndarray:
    """Where each of our weights lies in a published row of so many values: kernels are (rows, columns, in, out) there, and biases come first.

    Raises ZooNotFoundError, IntegrityError where it is not the published network, or a value lies nowhere or twice.
    """
    path = folder / "layout.csv"
    try:
        with pa.input_stream(str(path)) as stream:
            rows = pyarrow.csv.read_csv(stream).to_pylist()
        entries = {
            str(r["varname"]): (
                int(r["start_idx"]),
                tuple(int(x) for x in str(r["shape"]).strip("()").split(",") if x.strip()),
            )
            for r in rows
        }
    except FileNotFoundError:
        raise ZooNotFoundError(f"{path} is missing: it says where each tensor lies.") from None
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise IntegrityError(f"{path} does not say where tensors lie: {error}.") from None
    if not entries:
        raise IntegrityError(f"{path} names no tensor.")
    layers: dict[str, dict[str, tuple[int, tuple[int, ...]]]] = {}
    for name, entry in entries.items():
        layer, _, kind = name.rpartition("/")
        layers.setdefault(layer, {})[kind.partition(":")[0]] = entry
    placed = []  # start, shape and the order of its sides here
    for tensors in layers.values():
        for kind in ("kernel", "bias"):
            if kind not in tensors:
                raise IntegrityError(f"{path}: a layer has no {kind}.")
            start, shape = tensors[kind]
            if start < 0 or min(shape, default=1) < 1 or start + math.prod(shape) > width:
                raise IntegrityError(
                    f"{path}: a {kind} of shape {shape} from value {start} on lies outside of the {width:,} values of a row."
                )
            placed.append((start, shape, (3, 2, 0, 1) if len(shape) == 4 else tuple(range(len(shape)))[::-1]))
    found = [tuple(shape[a] for a in axes) for _, shape, axes in placed]
    wanted = [e.shape for e in _architecture("relu").layout]
    if found != wanted:
        raise IntegrityError(
            f"{path} names tensors of shapes {_some(found)} as they lie here; the network of the Small CNN Zoo has "
            f"{_some(wanted)}."
        )
    order = np.concatenate(
        [np.arange(start, start + math.prod(s)).reshape(s).transpose(axes).ravel() for start, s, axes in placed]
    )
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise IntegrityError(f"{path}: tensors lie one over another, or leave some of the {len(order):,} values out.")
    return order


def _some(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes[:MOST_SHAPES])) + (", …" if len(shapes) > MOST_SHAPES else "")


def _part(name: str, table: pa.Table, weights: np.ndarray, order: np.ndarray, rows: Sequence[int]) -> Part:
    own = table.take(pa.array(rows, pa.int64()))
    columns = [c.removeprefix(SETTING) for c in table.column_names if c.startswith(SETTING)]
    settings = {c: own[SETTING + c] for c in columns if c not in NO_SETTING}
    recipe = pa.table(settings or {"": pa.nulls(len(rows))})  # a table of no columns has no rows either
    activation = settings["activation"].to_pylist() if "activation" in settings else ["relu"] * len(rows)
    names = sorted(set(map(str, activation)))
    vectors = [np.asarray(weights[r], np.float32)[order] for r in rows]
    y = np.asarray(own["test_accuracy"].to_numpy(zero_copy_only=False), np.float64)
    good = np.array([np.isfinite(v).all() for v in vectors], bool) & np.isfinite(y)
    images = float(next((n for source, n in IMAGES.items() if source in name), 10_000))
    part = Part(
        name,
        View(
            tuple(_architecture(n) for n in names), np.array([names.index(str(a)) for a in activation], np.int64), vectors,
            recipe,
        ),
        Targets((Target("test_accuracy", bounded=True),), y[:, None]),
        tuple(map(str, rows)),
        np.array(rows).astype(str),
        np.stack([y, np.full(len(rows), images)], axis=1)[:, None],
        y > 0.1 + 3 * np.sqrt(0.1 * 0.9 / images),
        np.array([streams.canonical_json(r) for r in recipe.to_pylist()]),
    )  # fmt: skip
    return part.take(np.flatnonzero(good))


def _architecture(activation: str) -> Architecture:
    """Of the Small CNN Zoo: no padding, whatever later code assumed."""
    return build_architecture("small-cnn-gap", (1, 28, 28), 10, activation)
