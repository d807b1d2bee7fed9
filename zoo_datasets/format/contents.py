"""What a zoo is made of, as it is handed to the writer; and what no zoo can hold, refused in a sentence."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets import errors
from zoo_datasets.core.files import leaves
from zoo_datasets.errors import BuildError
from zoo_datasets.format import schema
from zoo_datasets.format.manifest_parts import NEVER_SEALED
from zoo_datasets.format.paths import ZOO_ID
from zoo_datasets.format.schema import Column
from zoo_datasets.networks.layout import Layout

Tables = Mapping[str, pa.Table]
# Columns of `models` that repeat the last snapshot's.
PUBLISHED_COLUMNS = (
    "step",
    "epoch",
    "examples_seen",
    "weights_sha256",
    *(c.name for c in (*schema.METRICS, *schema.ATTACK)),
)


@dataclasses.dataclass(frozen=True)
class About:
    """What a zoo is, besides its models."""

    zoo: str  # its id: `owner/name`
    layouts: Mapping[str, Layout]  # by id
    architectures: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    factors: Sequence[Column] = ()  # columns of `models` besides the format's own
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the factors that vary → levels, or "sample"
    lineage: bool = False  # models continue another zoo's
    optimizer: bool = False  # slots are kept
    attack: bool = False  # attacks are counted by class
    license: str | None = None
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # further sealed files, by name

    @functools.cached_property
    def widths(self) -> dict[str, int]:
        """Values of a weight vector, by layout."""
        return {name: layout.n_params for name, layout in self.layouts.items()}

    @property
    def model_columns(self) -> tuple[Column, ...]:
        lineage = schema.LINEAGE if self.lineage else ()
        return (*schema.MODEL_HEAD, *self.factors, *schema.MODEL_TAIL, *lineage, *self.metrics)

    @property
    def snapshot_columns(self) -> tuple[Column, ...]:
        types = {c.name: c for c in self.factors}
        axes = tuple(types[name] for name in self.axes)
        kept = (schema.OPTIMIZER,) if self.optimizer else ()
        return (*schema.SNAPSHOT_HEAD, *axes, *self.metrics, *schema.SNAPSHOT_TAIL, *kept)

    @property
    def metrics(self) -> tuple[Column, ...]:
        """What is measured of each snapshot."""
        return (*schema.METRICS, *(schema.ATTACK if self.attack else ()))


@dataclasses.dataclass(frozen=True)
class Models:
    """Models of one split with all their snapshots: one, or as many as should be in memory together.

    `models` has a row per model with `model_id`, `init_group`, `layout` and `n_snapshots`, and what else of
    the format's columns and the factors is known; the rest is null. `snapshots` has their rows, one model
    after another by ascending `step`, with the metrics that are known. Checksums are worked out where
    they are missing.
    """

    split: str
    models: pa.Table
    snapshots: pa.Table
    weights: Iterable[np.ndarray]  # of each model, float32 [n_snapshots, P]
    slots: Iterable[np.ndarray] | None = None  # of each model, float32 [n_snapshots, 2, P]


# ── what no zoo can hold ──


def checked_rows(array: np.ndarray | None, shape: tuple[int, ...], what: str, layout: str) -> np.ndarray:
    if array is None or array.shape != shape or array.dtype != np.float32:
        has = "are missing" if array is None else f"are {array.dtype} of shape {array.shape}"
        raise BuildError(f"The {what} {has}; its snapshots and its layout {layout} ask for float32 of shape {shape}.")
    return array


def check_about(about: About) -> None:
    """Raises BuildError where what is said of the zoo contradicts itself, before a row is written."""
    if not ZOO_ID.fullmatch(about.zoo):
        raise BuildError(f"A zoo is called `owner/name`, and {about.zoo!r} is no such name.")
    factors = [c.name for c in about.factors]
    for column in about.factors:
        if not schema.is_factor(column.type):
            raise BuildError(
                f"The factor `{column.name}` of {about.zoo} is {column.type}; a factor is {', '.join(map(str, schema.FACTORS))} or a "
                "list of one of these."
            )
    for name in about.axes:
        if name not in factors:
            raise BuildError(errors.unknown("axis", name, factors, f"the factors of {about.zoo}"))
    for name in about.texts:
        if leaves(name) or name.startswith(NEVER_SEALED):
            raise BuildError(f"{about.zoo} cannot seal a file {name!r}: it is the format's own, or leaves the folder.")
    for name, architecture in about.architectures.items():
        if architecture.get("layout") not in about.layouts:
            raise BuildError(
                errors.unknown(
                    "layout", architecture.get("layout"), about.layouts, f"architecture {name} of {about.zoo}"
                )
            )


def check_models(models: pa.Table, snapshots: pa.Table, about: About) -> np.ndarray:
    """Snapshots of each model, int64 [m]. Raises BuildError where tables do not fit each other or the format."""
    given = {"models": models, "snapshots": snapshots}
    allowed = {"models": about.model_columns, "snapshots": (*about.snapshot_columns, schema.OPTIMIZER)}
    needed = {"models": ("model_id", "init_group", "layout", "n_snapshots", *about.axes), "snapshots": ("step",)}
    for config, table in given.items():
        names = [c.name for c in allowed[config]]
        for name in table.column_names:
            if name not in names:
                raise BuildError(errors.unknown("column", name, names, f"the {config} of {about.zoo}"))
        for name in needed[config]:
            if name not in table.column_names or (name not in about.axes and table[name].null_count):
                raise BuildError(f"The {config} of {about.zoo} need a `{name}` in every row.")
    if not len(models) and len(snapshots):
        raise BuildError(f"There are {len(snapshots):,} snapshots of {about.zoo} without a model.")
    ids, counts = models["model_id"], np.asarray(models["n_snapshots"], np.int64)
    for id, layout, count in zip(ids.to_pylist(), models["layout"].to_pylist(), counts.tolist(), strict=True):
        if layout not in about.layouts:
            raise BuildError(errors.unknown("layout", layout, about.layouts, f"model {id}"))
        if count < 1:
            raise BuildError(f"Model {id} has {count} snapshots: its last one is the model, so it needs one.")
    if counts.sum() != len(snapshots):
        raise BuildError(f"Models from {ids[0]} on claim {counts.sum():,} snapshots, and {len(snapshots):,} are there.")
    owner = np.repeat(np.arange(len(models)), counts)
    steps = np.asarray(snapshots["step"], np.int64)
    if (steps < 0).any():
        raise BuildError(f"Model {ids[owner[steps.argmin()]]} has a step {steps.min()}; steps are counted from 0.")
    back = np.flatnonzero((np.diff(steps) <= 0) & (np.diff(owner) == 0))
    if len(back):
        raise BuildError(f"Model {ids[owner[back[0]]]}: step {steps[back[0] + 1]} follows step {steps[back[0]]}.")
    if "model_id" in snapshots.column_names and not snapshots["model_id"].equals(ids.take(pa.array(owner))):
        raise BuildError(f"The snapshots of models from {ids[0]} on are other models', or in another order.")
    return counts


def count_groups(models: pa.Table, by_split: Tables, about: About) -> int:
    """The number of init groups. Raises BuildError where ids are not unique, or a group lies in two splits."""
    if pc.count_distinct(models["model_id"]).as_py() != len(models):
        counts = collections.Counter(models["model_id"].to_pylist())
        id, n = counts.most_common(1)[0]
        raise BuildError(f"{about.zoo} has {n} models of the id {id}; an id is one model's.")
    groups = {name: pc.unique(table["init_group"]) for name, table in by_split.items()}
    for (name, own), (other, theirs) in itertools.combinations(groups.items(), 2):
        shared = own.filter(pc.is_in(own, theirs))
        if len(shared):
            raise BuildError(
                f"Models of the init group {shared[0]} are in {name} and in {other}: near-twins would leak. "
                "Split whole groups."
            )
    return sum(map(len, groups.values()))
