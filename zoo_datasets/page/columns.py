"""The tables of a zoo → what the page shows of each model: columns that vary, and settings that all share.

In:  a `Selection`, and the rows of its `models` that are shown.
Out: `Columns`: numbers as float64 (exact, for they are compared with the zoo's own), anything else as codes of
     levels; the settings that are one for all; and what was left out, in words.

A level's text is data: it is kept whole, and the page decides how much of it fits.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core import streams
from zoo_datasets.core.arrow import arrow_index
from zoo_datasets.format import schema
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.reading.selection import Selection

# Of no use to look at: keys, hashes, and what stands elsewhere on the page.
HIDDEN = {
    "model_id", "architecture_id", "cohort_id", "snapshot_schedule", "plan_index", "cohort_width", "lineage_root",
    "parent_id", "weights", "step", "examples_seen",
}  # fmt: skip
HIDDEN_ENDS = ("_key", "_sha256", "_per_class")
# A page is opened by people: 2 million numbers are 16 MB before they are compressed.
MOST_CELLS = 2_000_000
MOST_TEXT = 1_000_000  # characters of one column's levels
EXACT = 2**53  # whole numbers beyond it are not what JavaScript holds
METRICS = tuple(c.name for c in (*schema.METRICS, *schema.ATTACK) if pa.types.is_floating(c.type))
DOCS = {
    c.name: c.doc for c in (*schema.MODEL_HEAD, *schema.MODEL_TAIL, *schema.LINEAGE, *schema.METRICS, *schema.ATTACK)
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the models shown: `values` are numbers, or codes of `levels` with −1 for null."""

    name: str
    kind: str  # "number", "integer", "boolean", "text", "list"
    role: str  # "axis", "factor", "metric", "other"
    values: np.ndarray  # float64 [n] with NaN for null, or int32 [n]
    levels: tuple[Any, ...] = ()  # as JSON: what `select` compares with
    has_nan: bool = False  # a NaN that the zoo holds, which is no null: no level can say which of the two is meant

    @property
    def is_number(self) -> bool:
        return self.kind in ("number", "integer")

    def to_json(self) -> dict[str, Any]:
        """All but the values."""
        told = {"name": self.name, "kind": self.kind, "role": self.role, "doc": DOCS.get(self.name, "")}
        return {**told, "nan": self.has_nan} if self.is_number else {**told, "levels": list(self.levels)}


@dataclasses.dataclass(frozen=True)
class Columns:
    """What varies, what all share, and what is not shown."""

    varying: tuple[Column, ...]
    shared: dict[str, Any]
    missing: tuple[str, ...]

    def named(self, name: str) -> Column | None:
        return next((c for c in self.varying if c.name == name), None)


def read(zoo: Selection, rows: np.ndarray) -> Columns:
    """The columns of these rows of `models`; axes first, then factors, metrics and the rest."""
    table = zoo.models
    varying: list[Column] = []
    shared: dict[str, Any] = {}
    missing: list[str] = []
    room = max(1, MOST_CELLS // max(1, len(rows)))
    dropped: list[str] = []
    for name in _order(table.column_names, zoo.manifest):
        values = table[name].take(arrow_index(rows))
        kind = values.type
        if pa.types.is_list(kind) and kind.value_type == pa.float32():
            continue  # weights
        distinct = values.drop_null()
        column = _column(name, _role(name, zoo.manifest), values)
        if isinstance(column, str):
            missing.append(column)
        elif not len(distinct):
            continue
        elif _is_constant(column):
            shared[name] = distinct[0].as_py()
        elif len(varying) < room:
            varying.append(column)
        else:
            dropped.append(name)
    if dropped:
        missing.append(f"{len(dropped):,} columns are not on this page, which has room for {room:,}: {_few(dropped)}")
    if not any(c.role == "metric" for c in varying) and not any(m in shared for m in METRICS):
        missing.append("This zoo holds no metrics: there is nothing to show of how well its networks do")
    return Columns(tuple(varying), shared, tuple(missing))


def _order(names: list[str], manifest: Manifest) -> list[str]:
    kept = [n for n in names if n not in HIDDEN and not n.endswith(HIDDEN_ENDS)]
    rank = {"axis": 0, "factor": 1, "metric": 2, "other": 3}
    return sorted(kept, key=lambda n: rank[_role(n, manifest)])  # stable: otherwise as stored


def _role(name: str, manifest: Manifest) -> str:
    if name in manifest.axes:
        return "axis"
    if name in METRICS:
        return "metric"
    return "factor" if name in manifest.factors else "other"


def _is_constant(column: Column) -> bool:
    values = column.values
    if column.is_number:
        known = np.isnan(values)
        return bool(known.all() or (not known.any() and (values == values[0]).all()))
    return len(values) == 0 or bool((values == values[0]).all())


def _column(name: str, role: str, values: pa.ChunkedArray) -> Column | str:
    """A column, or in words why it is none."""
    kind = values.type
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_dictionary(kind) or pa.types.is_list(kind):
        found = values.to_pylist()
        word = "boolean" if pa.types.is_boolean(kind) else "list" if pa.types.is_list(kind) else "text"
        try:
            known = {streams.canonical_json(v): v for v in found if v is not None}
        except (TypeError, ValueError):  # NaN in a list
            return f"{shorter(name)} is not shown: it holds {kind}, with values that JSON has no words for"
        if (length := sum(map(len, known))) > MOST_TEXT:
            return f"{shorter(name)} is not shown: its {len(known):,} levels have {length:,} characters"
        order = sorted(known, key=lambda key: (len(key) if word == "list" else 0, key))
        place = {key: i for i, key in enumerate(order)}
        codes = np.array([-1 if v is None else place[streams.canonical_json(v)] for v in found], np.int32)
        return Column(name, word, role, codes, tuple(known[key] for key in order))
    if pa.types.is_integer(kind):
        numbers = np.array([np.nan if v is None else v for v in values.to_pylist()], np.float64)
        if np.nanmax(np.abs(numbers), initial=0) >= EXACT:
            return f"{shorter(name)} is not shown: it holds whole numbers beyond 2^53"
        return Column(name, "integer", role, numbers)
    if pa.types.is_floating(kind):
        numbers = np.array([np.nan if v is None else v for v in values.to_pylist()], np.float64)
        return Column(name, "number", role, numbers, has_nan=bool(np.isnan(numbers).sum() > values.null_count))
    return f"{shorter(name)} is not shown: it holds {kind}"


def shorter(text: str, most: int = 60) -> str:
    """A name as a sentence of the page has it."""
    return text if len(text) <= most else f"{text[:most]}…"


def _few(names: list[str]) -> str:
    shown = ", ".join(map(shorter, names[:5]))
    return shown + (", …" if len(names) > 5 else "")


def label(value: Any) -> str:
    """A level as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
