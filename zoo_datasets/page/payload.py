"""A zoo → all that its page holds: a header of JSON and arrays, as compressed bytes.

In:  a `Selection`, all of a zoo.
Out: bytes: gzip of the header's length (uint32), the header, and arrays, each at a multiple of 8, which the
     header names with type, place and length. The same zoo gives the same bytes.

Of more than 20,000 models a sample by the hash of their ids is shown, and of long trajectories some snapshots;
both are said. A part that cannot be had is a line of `missing`, and the others are there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import zoo_datasets
from zoo_datasets import audit, variation
from zoo_datasets.core import files, meters, streams
from zoo_datasets.core.arrow import numbers_of
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError
from zoo_datasets.format import card
from zoo_datasets.page import columns, effects, geometry
from zoo_datasets.reading.selection import Selection

log = logging.getLogger("zoo_datasets")

MOST_MODELS = 20_000
MOST_SNAPSHOTS = 60_000  # of all models shown
MOST_CURVE_CELLS = 600_000
MOST_AUDITED = 2_000  # models of a layout whose weights are compared pair by pair: some seconds
MOST_RECIPE_BYTES = 200_000
TARGETS = ("test_accuracy", "validation_accuracy", "train_accuracy", "test_loss", "validation_loss", "train_loss")
CURVES = (
    "test_accuracy", "train_accuracy", "test_loss", "train_loss", "validation_accuracy", "validation_loss",
    "attack_success", "gap_accuracy",
)  # fmt: skip


def make(zoo: Selection, name: str, revision: str | None = None) -> bytes:
    """The page's data; `name` is the id under which the zoo is opened in the code to copy, at `revision`."""
    whole = zoo.whole
    rows, missing = _sample(whole)
    shown = _snapshots(whole, rows, missing)
    table = columns.read(whole, rows)
    found = geometry.read(shown)
    arrays: dict[str, np.ndarray] = {f"column:{i}": c.values for i, c in enumerate(table.varying)}
    owner, curves = _curves(shown, whole, rows, missing)
    arrays |= {f"curve:{n}": v for n, v in curves.items()}
    final = shown.final()
    last, n = _places(final.column("model_id"), whole, rows), len(rows)  # a damaged zoo has models without snapshots
    arrays |= {
        "owner": owner, "xy": found.xy, "step": _numbers(shown, "step"), "epoch": _epochs(shown, missing),
        "neighbors": _by_model(_renamed(found.neighbors, last), last, -1, n),
        "distances": _by_model(found.distances, last, np.nan, n),
        "filter_scales": _by_model(found.filter_scales, last, np.nan, n),
        "filters": found.filter_bytes,
        "filter_start": _starts(found, final, last, n),
        "layout": _layouts(found, final, last, n),
    }  # fmt: skip
    target = next((c for n in TARGETS if (c := table.named(n)) is not None), None)
    groups = effects.groups_of(_init_groups(whole, missing)[rows].tolist())
    shares: list[effects.Share] = []
    if target is not None:
        with meters.track("bootstrapping effects"):
            shares, notes = effects.shares(target, table.varying, groups)
        missing += notes
    arrays["group"] = groups.astype(np.int32)
    twins = {}
    for axis in whole.paired:
        if table.named(axis) is not None:
            try:
                twins[axis] = variation.twins(whole, axis)[rows].astype(np.int32)
            except ZooError as error:
                missing.append(f"Twins along {columns.shorter(axis)} are not shown: {error}")
    arrays |= {f"twins:{i}": v for i, v in enumerate(twins.values())}
    ids = np.array(whole.models["model_id"].to_pylist(), object)[rows].tolist()
    header = {
        **_about(whole, name, missing),
        "revision": revision,
        "shown": {"models": len(rows), "snapshots": len(shown)},
        "columns": [c.to_json() for c in table.varying],
        "settings": jsonable(table.shared),
        "curves": list(curves),
        "maps": [dataclasses.asdict(m) for m in found.maps],
        "filters": [dataclasses.asdict(f) for f in found.filters],
        "twins": list(twins),
        "target": None if target is None else target.name,
        "effects": [s.to_json() for s in shares],
        "ids": ids,
        "audit": _audit(whole, final, found, missing),
        "missing": [*missing, *table.missing, *found.missing],
    }
    return pack(header, arrays)


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Header and arrays as the page unpacks them."""
    places: dict[str, Any] = {}
    parts: list[bytes] = []
    at = 0
    for name, values in arrays.items():
        data = np.ascontiguousarray(values).tobytes()
        places[name] = [values.dtype.name, at, int(values.size)]
        parts += [data, bytes(-len(data) % 8)]
        at += len(data) + -len(data) % 8
    text = json.dumps({**header, "arrays": places}, allow_nan=False).encode()
    text += b" " * (-(len(text) + 4) % 8)
    return gzip.compress(b"".join([len(text).to_bytes(4, "little"), text, *parts]), 6, mtime=0)


# ── which models and snapshots ──


def _sample(zoo: Selection) -> tuple[np.ndarray, list[str]]:
    """Rows of `models` that are shown, ascending."""
    n = len(zoo.models)
    if n <= MOST_MODELS:
        return np.arange(n), []
    order = np.argsort(np.array([streams.digest(i) for i in zoo.models["model_id"].to_pylist()]), kind="stable")
    note = (
        f"{MOST_MODELS:,} of {n:,} models are shown, drawn by the hash of their ids; the code to copy selects from all"
    )
    return np.sort(order[:MOST_MODELS]), [note]


def _snapshots(zoo: Selection, rows: np.ndarray, missing: list[str]) -> Selection:
    """The snapshots of these models, by model and step; of long trajectories every so many a one, and the last."""
    owner, step = zoo._opened.owner, zoo._opened.snapshots.numbers("step")
    position = np.full(len(zoo.models), -1)
    position[rows] = np.arange(len(rows))
    at = np.flatnonzero(position[owner] >= 0)
    at = at[np.lexsort((step[at], position[owner[at]]))]
    if len(at) <= MOST_SNAPSHOTS:
        return zoo.take(at)
    most = max(2, MOST_SNAPSHOTS // len(rows))
    kept = np.concatenate([
        own[np.unique(np.linspace(0, len(own) - 1, most).round().astype(int))]
        for own in np.split(at, np.flatnonzero(np.diff(position[owner[at]])) + 1)
    ])  # fmt: skip
    missing.append(
        f"{len(kept):,} of {len(at):,} snapshots are shown: at most {most:,} of each model, its first and last among them"
    )
    return zoo.take(kept)


def _places(ids: pa.ChunkedArray, zoo: Selection, rows: np.ndarray) -> np.ndarray:
    """Where in the models shown each of these ids is, int64 [n]."""
    position = {int(row): i for i, row in enumerate(rows)}
    known = zoo._opened.row_of_id
    return np.array([position[known[i]] for i in ids.to_pylist()], np.int64)


def _numbers(zoo: Selection, name: str) -> np.ndarray:
    column = zoo.column(name)
    parts = [numbers_of(c.cast(pa.float64(), safe=False), missing=np.nan) for c in column.chunks]
    with np.errstate(over="ignore"):  # beyond float32 is infinite: no point of a curve
        return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def _epochs(shown: Selection, missing: list[str]) -> np.ndarray:
    """Epochs of the snapshots; NaN, and a line, where nobody counted them: curves are by step then."""
    try:
        return _numbers(shown, "epoch")
    except ZooError as error:
        missing.append(f"Epochs are not shown: {error}")
        return np.full(len(shown), np.nan, np.float32)


def _init_groups(zoo: Selection, missing: list[str]) -> np.ndarray:
    """The init group of each model, object [n]; None, and a line, where the table has none."""
    if "init_group" in zoo.models.column_names:
        return np.array([None, *zoo.models["init_group"].to_pylist()], object)[1:]
    missing.append("The models have no column init_group: each counts as a group of its own")
    return np.full(len(zoo.models), None, object)


def _curves(
    shown: Selection, zoo: Selection, rows: np.ndarray, missing: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The model of each snapshot shown, int32 [n], and its metrics, float32 [n] each."""
    owner = _places(shown.column("model_id"), zoo, rows).astype(np.int32)
    found: dict[str, np.ndarray] = {}
    try:
        for name in CURVES:
            if name not in zoo.snapshots.column_names or (len(found) + 1) * len(shown) > MOST_CURVE_CELLS:
                continue
            values = _numbers(shown, name)
            if np.isfinite(values).any():
                found[name] = values
    except (ZooError, OSError) as error:
        missing.append(f"Curves could not be read: {error}")
    if len(shown) <= len(rows) and found:
        missing.append("Each model has one snapshot: there are no curves and no trajectories")
    return owner, found


# ── by model ──


def _by_model(values: np.ndarray, last: np.ndarray, empty: float, n: int) -> np.ndarray:
    out = np.full((n, *values.shape[1:]), empty, values.dtype)
    out[last] = values
    return out


def _renamed(neighbors: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Neighbors by their place among the models shown rather than among last snapshots."""
    known = np.append(last, -1).astype(np.int32)  # −1 stays
    return known[neighbors]


def _starts(found: geometry.Geometry, final: Selection, last: np.ndarray, n: int) -> np.ndarray:
    """Where in the packed filters each model's begin, int32; −1 where there are none."""
    sizes = {f.layout: f.count * f.channels * f.rows * f.columns for f in found.filters}
    length = np.array([sizes.get(name, 0) for name in _layout_names(final)], np.int64)
    start = np.where(length > 0, np.cumsum(length) - length, -1)
    return _by_model(start.astype(np.int32), last, -1, n)


def _layouts(found: geometry.Geometry, final: Selection, last: np.ndarray, n: int) -> np.ndarray:
    """Each model's place in `maps`, int32; −1 where its layout is not there."""
    place = {m.layout: i for i, m in enumerate(found.maps)}
    return _by_model(np.array([place.get(n, -1) for n in _layout_names(final)], np.int32), last, -1, n)


def _layout_names(final: Selection) -> list[str]:
    names: list[str] = final.column("tensor").to_pylist()
    return names


# ── what the zoo says of itself ──


def _about(zoo: Selection, name: str, missing: list[str]) -> dict[str, Any]:
    manifest = zoo.manifest
    return {
        "zoo": zoo.name, "name": name, "version": zoo_datasets.__version__,
        "counts": {"models": manifest.counts.n_models, "snapshots": manifest.counts.n_snapshots,
                   "diverged": manifest.counts.diverged, "init_groups": manifest.counts.init_groups},
        "splits": {s: manifest.counts.models[s] for s in manifest.split_names},
        "axes": {axis: [] if levels == "sample" else list(levels) for axis, levels in manifest.axes.items()},
        "paired": list(manifest.paired),
        "bytes": manifest.files.size(),
        "sources": [s.id for s in manifest.sources],
        "engines": [" ".join(v for v in (e.version or e.engine, e.isa) if v) for e in manifest.engines],
        "digest": card.digest(manifest, "models"),
        "license": card.license_of(manifest),
        "citation": card.citation(manifest, name),
        "recipe": _recipe(zoo, missing),
    }  # fmt: skip


def _recipe(zoo: Selection, missing: list[str]) -> str | None:
    if "grid.yaml" not in zoo.manifest.files:
        missing.append("The recipe of this zoo is not in it (grid.yaml)")
        return None
    try:
        data = files.read_bounded(Path(zoo.location.path("grid.yaml")), MOST_RECIPE_BYTES)
    except (ZooError, OSError) as error:
        missing.append(f"The recipe could not be read: {error}")
        return None
    return data.decode("utf-8", errors="replace")


@dataclasses.dataclass(frozen=True)
class _Remembered:
    """A zoo for the audit, whose last weights were read already: `weights[rows]` of the snapshots table."""

    zoo: Selection
    found: geometry.Geometry
    place: Mapping[int, tuple[str, int]]  # row of the snapshots table → layout, row in memory

    models = property(lambda self: self.zoo.models)
    snapshots = property(lambda self: self.zoo.snapshots)
    manifest = property(lambda self: self.zoo.manifest)
    name = property(lambda self: self.zoo.name)

    @property
    def weights(self) -> _Remembered:
        return self

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        layout = self.place[int(rows[0])][0]
        return self.found.last[layout][1][[self.place[int(r)][1] for r in rows]]


def _audit(zoo: Selection, final: Selection, found: geometry.Geometry, missing: list[str]) -> list[str] | None:
    """The audit of the stored splits in lines, with its near-duplicates over the weights in memory."""
    place = {}
    for layout, (members, _) in found.last.items():
        for row, member in enumerate(members.tolist()):
            place[int(final.rows[member])] = (layout, row)
    if len(place) < len(zoo.models):
        missing.append(
            "The audit is left out: not all last weights are in memory. `python -m zoo_datasets audit` makes it"
        )
        return None
    try:
        with _quiet():
            report = audit.audit(None, _Remembered(zoo, found, place), most_models=MOST_AUDITED)
    except (ZooError, ValueError, OSError) as error:
        missing.append(f"The audit could not be made: {error}")
        return None
    return str(report).splitlines()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """scikit-learn warns of data that it can do nothing with; the audit says so in its own words."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
