"""Weights of the models shown → maps, neighbors and first-layer filters, from one reading of each vector.

In:  a `Selection` of the snapshots shown. The last of each model stay in memory, the others pass through.
Out: `Geometry`: coordinates of every snapshot on the map of its layout (principal components of the last
     snapshots), each model's nearest neighbors in canonical form, and its first filters as small integers.

Buffers are left out: a running variance says more of the data than of what was learned. What cannot be had
is said in `missing`, and the rest is there: a layout of two models has no map, a Hub that went away no weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo_datasets import symmetry
from zoo_datasets.core import meters
from zoo_datasets.core.command import size as in_words
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Layout
from zoo_datasets.page.principal import principal
from zoo_datasets.reading.selection import Selection

FEWEST_ON_A_MAP = 3  # models of a layout: two are one distance
MOST_FINAL_BYTES = 300_000_000  # of last snapshots in memory; canonical forms take as much again
CHUNK_BYTES = 16_000_000
NEIGHBORS = 6
# Multiplications of all pairs: 10 s on one core. Beyond, distances are measured in leading components.
MOST_EXACT = 1e11
LEADING = 64
MOST_SINGLE = 1e15  # weights beyond it: sums of their products leave float32
MOST_FILTER_BYTES = 900_000  # of all models together
MOST_FILTERS = 32  # of one model
MOST_PIXELS = 4_096  # of one filter
CONV_SIDES, LINEAR_SIDES = 4, 2


@dataclasses.dataclass(frozen=True)
class Map:
    """The map of one layout."""

    layout: str
    n_models: int
    n_params: int
    explained: tuple[float, float]  # shares of the variance of the last snapshots
    note: str = ""  # why there is none


@dataclasses.dataclass(frozen=True)
class Filters:
    """How a layout's first filters lie in the packed bytes: each model has count · channels · rows · columns."""

    layout: str
    name: str
    count: int
    of: int
    channels: int
    rows: int
    columns: int


@dataclasses.dataclass
class Geometry:
    """What weights look like; `snapshots` are in the order of the selection, `models` in that of its `final()`."""

    xy: np.ndarray  # float32 [snapshots, 2], NaN where there is no map
    neighbors: np.ndarray  # int32 [models, NEIGHBORS], −1 where there is none
    distances: np.ndarray  # float32 [models, NEIGHBORS], 0 the same, 1 strangers
    filter_bytes: np.ndarray  # int8, model after model
    filter_scales: np.ndarray  # float32 [models]: what 127 stands for; NaN where there are no filters
    maps: list[Map] = dataclasses.field(default_factory=list)
    filters: list[Filters] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    last: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)


def read(shown: Selection) -> Geometry:
    """Maps, neighbors and filters of a selection; what fails is a line of `missing`."""
    final = shown.final()
    n = len(final)
    out = Geometry(
        np.full((len(shown), 2), np.nan, np.float32), np.full((n, NEIGHBORS), -1, np.int32),
        np.full((n, NEIGHBORS), np.nan, np.float32), np.zeros(0, np.int8), np.full(n, np.nan, np.float32),
    )  # fmt: skip
    place = {int(row): i for i, row in enumerate(shown.rows)}
    at_last = np.array([place[int(row)] for row in final.rows], np.int64)
    ids = final.table(["model_id"])["model_id"].to_pylist()
    try:
        others = np.setdiff1d(np.arange(len(shown)), at_last)
        passing = shown.take(others).weights.by_layout() if len(others) else {}
        layouts = final.weights.by_layout()
        packed: list[tuple[np.ndarray, np.ndarray]] = []
        room, budget = MOST_FINAL_BYTES, MOST_FILTER_BYTES
        for layout, (members, weights) in sorted(layouts.items(), key=lambda item: (-len(item[1][0]), item[0])):
            known = shown.manifest.layouts.get(layout)
            if known is None:
                out.missing.append(f"Layout {layout} is not written down in the manifest: its models have no map")
                continue
            kinds = _architectures(shown, {i: ids[i] for i in members.tolist()}, known)
            # With more models than memory, every so many a weight stands for all. However much larger layouts keep,
            # each gets a map: of a quarter, which is freed again.
            stride = max(1, math.ceil(len(members) * known.n_params * 4 / max(1, room, MOST_FINAL_BYTES // 4)))
            keep = np.flatnonzero(~known.buffer_mask())[::stride]
            if stride > 1:
                out.missing.append(
                    f"Map and neighbors of layout {layout} are made of every {stride}th weight: all of {len(members):,} models "
                    f"take {in_words(len(members) * known.n_params * 4)}"
                )
            held = _Held(layout, known, members, keep)
            _read_last(held, weights, kinds, budget, whole=stride == 1)
            _map(out, held, at_last[members], passing, others)
            _neighbors(out, held, kinds)
            budget -= _pack(out, packed, held)
            if held.whole is not None:
                out.last[layout] = (members, held.whole)
                room -= held.whole.nbytes
        if packed:
            order = np.concatenate([np.repeat(m, b.shape[1]) for m, b in packed])
            flat = np.concatenate([b.reshape(-1) for _, b in packed])
            out.filter_bytes = flat[np.argsort(order, kind="stable")]
        drawn = [m for m in out.maps if not m.note]
        if not drawn:
            out.missing.append(
                f"There is no map of weights: no layout has {FEWEST_ON_A_MAP} models that differ ({len(layouts):,} layouts)"
            )
        elif left := sum(m.n_models for m in out.maps if m.note):
            out.missing.append(f"{left:,} models are on no map: there are too few of their layout")
    except np.linalg.LinAlgError as error:
        out.missing.append(
            f"Maps and neighbors could not be computed: {error}. Tables and curves are shown without them"
        )
    except (ZooError, OSError) as error:  # of a zoo on the Hub, which may go away
        out.missing.append(f"Weights could not be read: {error} Tables and curves are shown without them")
    return out


@dataclasses.dataclass
class _Held:
    """What stays in memory of one layout's last snapshots, a row for each of `members`."""

    layout: str
    known: Layout
    members: np.ndarray
    keep: np.ndarray  # which values of a vector maps and neighbors are made of
    plain: np.ndarray = dataclasses.field(init=False)  # float32 [n, kept]
    canonical: np.ndarray = dataclasses.field(init=False)  # the same of canonical forms; NaN where there is none
    finite: np.ndarray = dataclasses.field(init=False)  # bool [n]
    whole: np.ndarray | None = None  # float32 [n, P], where that fits
    picture: tuple[Any, tuple[int, int, int, int]] | None = None
    first: np.ndarray | None = None  # float32 [n, weights of the first filters]
    refused: str = ""  # why there is no canonical form


def _read_last(
    held: _Held, weights: Any, kinds: dict[int, Architecture | External], budget: int, *, whole: bool
) -> None:  # fmt: skip
    """Read each last snapshot once, and keep what maps, neighbors and filters are made of."""
    n, width = len(held.members), held.known.n_params
    held.plain = np.empty((n, len(held.keep)), np.float32)
    held.canonical = np.full((n, len(held.keep)), np.nan, np.float32)
    held.finite = np.zeros(n, bool)
    held.whole = np.empty((n, width), np.float32) if whole else None
    first = next((k for k in map(kinds.get, held.members.tolist()) if isinstance(k, Architecture)), None)
    held.picture = None if first is None else picture(first)
    if held.picture is not None:
        count = _room_for(held.picture[1], n, budget)
        held.first = np.empty((n, count * math.prod(held.picture[1][1:])), np.float32) if count else None
    for start, stop in meters.over(list(_chunks(n, width)), "reading last weights", "chunks"):
        block = np.asarray(weights[start:stop], np.float32)
        held.plain[start:stop] = block[:, held.keep]
        held.finite[start:stop] = np.isfinite(block).all(axis=1)
        if held.whole is not None:
            held.whole[start:stop] = block
        if held.first is not None and held.picture is not None:
            offset = held.picture[0].offset
            held.first[start:stop] = block[:, offset : offset + held.first.shape[1]]
        by_kind: dict[int, list[int]] = {}
        for row in range(start, stop):
            kind = kinds.get(int(held.members[row]))
            if kind is not None and held.finite[row]:
                by_kind.setdefault(id(kind), []).append(row)
        for rows in by_kind.values():
            kind = kinds[int(held.members[rows[0]])]
            try:
                own = block[np.array(rows) - start]
                form = symmetry.canonicalize(own, kind, kinds=symmetry.known_kinds(kind))
                held.canonical[rows] = form[:, held.keep]
            except (ZooError, ValueError) as error:
                held.refused = str(error)


def _chunks(n: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(1, CHUNK_BYTES // (4 * max(1, width)))
    return ((start, min(n, start + rows)) for start in range(0, n, rows))


# ── maps ──


def _map(out: Geometry, held: _Held, places: np.ndarray, passing: dict[str, Any], others: np.ndarray) -> None:
    """Fit on the last snapshots, and project all."""
    n_params = held.known.n_params
    x = held.plain[held.finite]
    found = principal(x, 2) if len(x) >= FEWEST_ON_A_MAP and len(held.keep) else None
    if found is None:
        note = "fewer than three models" if len(x) < FEWEST_ON_A_MAP else "all last weights are equal"
        out.maps.append(Map(held.layout, len(held.members), n_params, (0.0, 0.0), note))
        return
    found = found.padded(2)
    shares = float(found.shares[0]), float(found.shares[1])
    out.maps.append(Map(held.layout, len(held.members), n_params, shares))
    out.xy[places[held.finite]] = found.project(x)
    if held.layout in passing:
        members, weights = passing[held.layout]
        for start, stop in meters.over(list(_chunks(len(members), n_params)), "reading weights", "chunks"):
            block = np.asarray(weights[start:stop], np.float32)[:, held.keep]
            good = np.isfinite(block).all(axis=1)
            out.xy[others[members[start:stop][good]]] = found.project(block[good])


# ── neighbors ──


def _architectures(shown: Selection, named: dict[int, str], layout: Layout) -> dict[int, Architecture | External]:
    """Model → its architecture; where its layers cannot be built here, or nobody wrote them down, the layout alone."""
    models = shown._opened.models
    rows = models.column("architecture_id").to_pylist() if "architecture_id" in models else [None] * len(models)
    made: dict[Any, Architecture | External] = {}
    found: dict[int, Architecture | External] = {}
    for i, model in named.items():
        key = rows[shown._opened.row_of_id[model]]
        if key not in made:
            made[key] = External(layout)
            with contextlib.suppress(ZooError):
                made[key] = made[key] if key is None else shown.manifest.architecture(key)
        found[i] = made[key]
    return found


def _neighbors(out: Geometry, held: _Held, kinds: dict[int, Architecture | External]) -> None:
    """Of each model the nearest others of its architecture, by ‖a − b‖ / √(‖a‖² + ‖b‖²) of canonical forms."""
    if held.refused:
        out.missing.append(f"Some models of layout {held.layout} have no neighbors: no canonical form ({held.refused})")
    groups: dict[int, list[int]] = {}
    for row, model in enumerate(held.members.tolist()):
        if held.finite[row] and model in kinds and np.isfinite(held.canonical[row]).all():
            groups.setdefault(id(kinds[model]), []).append(row)
    for rows in groups.values():
        if len(rows) < 2:
            continue
        canonical = held.canonical[rows]
        if float(len(rows)) ** 2 * canonical.shape[1] > MOST_EXACT:
            found = principal(canonical, LEADING)
            canonical = found.project(canonical) if found is not None else canonical[:, :LEADING]
            out.missing.append(
                f"Neighbors of {len(rows):,} models are by their first {LEADING} principal components: all pairs take too long"
            )
        nearest, distance = _nearest(canonical)
        place = held.members[rows]
        out.neighbors[place, : nearest.shape[1]] = place[nearest]
        out.distances[place, : nearest.shape[1]] = distance


def _nearest(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the nearest others, int [n, k], and their distances, nearest first; ties by row.

    The nearest are found by products, which are quick and lose what near copies differ by; their distances are measured anew.
    """
    if np.abs(x).max(initial=0.0) > MOST_SINGLE:
        x = x.astype(np.float64)
    n = len(x)
    k = min(NEIGHBORS, n - 1)
    squares = (x.astype(np.float64) ** 2).sum(axis=1)
    nearest, distance = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    rows = max(1, CHUNK_BYTES // (8 * n))
    for start in meters.over(range(0, n, rows), "finding neighbors", "blocks"):
        stop = min(n, start + rows)
        both = squares[start:stop, None] + squares[None, :]
        far = np.maximum(both - 2.0 * (x[start:stop] @ x.T), 0.0) / np.where(both > 0, both, 1.0)
        far[np.arange(stop - start), np.arange(start, stop)] = np.inf
        near = np.sort(np.argpartition(far, k - 1, axis=1)[:, :k], axis=1)
        value = np.empty(near.shape)
        for row, others in enumerate(near):
            apart = ((x[others].astype(np.float64) - x[start + row]) ** 2).sum(axis=1)
            value[row] = apart / np.where(both[row, others] > 0, both[row, others], 1.0)
        order = np.argsort(value, axis=1, kind="stable")
        nearest[start:stop] = np.take_along_axis(near, order, 1)
        distance[start:stop] = np.sqrt(np.take_along_axis(value, order, 1))
    return nearest, distance


# ── filters ──


def _room_for(sides: tuple[int, int, int, int], n: int, budget: int) -> int:
    """How many first filters of each of n models have room on the page."""
    pixels = math.prod(sides[1:])
    return 0 if pixels > MOST_PIXELS else max(0, min(sides[0], MOST_FILTERS, budget // max(1, pixels * n)))


def _pack(out: Geometry, packed: list[tuple[np.ndarray, np.ndarray]], held: _Held) -> int:
    """Pack the first filters of a layout's models, and how many bytes that took."""
    if held.picture is None:
        return 0
    entry, (units, channels, rows, columns) = held.picture
    pixels, n = channels * rows * columns, len(held.members)
    if held.first is None:
        out.missing.append(
            f"First-layer filters of layout {held.layout} are left out: {units:,} of {channels} × {rows} × {columns} for "
            f"{n:,} models have no room on this page"
        )
        return 0
    count = held.first.shape[1] // pixels
    values = np.where(held.finite[:, None], held.first, 0.0)
    top = np.abs(values).max(axis=1)
    out.filter_scales[held.members] = np.where(held.finite, top, np.nan)
    packed.append((held.members, np.rint(values / np.where(top > 0, top, 1.0)[:, None] * 127).astype(np.int8)))
    out.filters.append(Filters(held.layout, entry.name, count, units, channels, rows, columns))
    return count * pixels * n


def picture(architecture: Architecture) -> tuple[Any, tuple[int, int, int, int]] | None:
    """The first weights as images (units, channels, rows, columns) where they look at one of 1 or 3 channels."""
    entry = next((e for e in architecture.layout if e.role == "parameter" and len(e.shape) > 1), None)
    seen = tuple(architecture.input_shape)
    if entry is None or len(seen) != 3 or seen[0] not in (1, 3):
        return None
    if len(entry.shape) == CONV_SIDES and entry.shape[1] == seen[0]:
        return entry, (entry.shape[0], entry.shape[1], entry.shape[2], entry.shape[3])
    pixels = seen[0] * seen[1] * seen[2]
    if len(entry.shape) == LINEAR_SIDES and entry.shape[1] == pixels and min(seen[1:]) > 1:
        return entry, (entry.shape[0], seen[0], seen[1], seen[2])
    return None
