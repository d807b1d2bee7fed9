"""Tables, weights and rows → a selection of a zoo's snapshots.

In:  a `Location`: its tables' footers are read at once, columns and weights when they are asked for.
Out: a `Selection`. `select` gives another that shares everything read so far: a selection is an
     array of row numbers of the `snapshots` table, and nothing is copied.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.core import notebook, plain_text, streams
from zoo_datasets.core.arrow import arrow_index, distinct, numbers_of
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError, unknown
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.parquet import as_strings
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.reading.columns import Columns, levels_in, matches, plain, strays, unknown_level
from zoo_datasets.reading.location import Location
from zoo_datasets.reading.shard_weights import Shards
from zoo_datasets.reading.weights import Weights
from zoo_datasets.sources import Source
from zoo_datasets.sources.rows import spec_of, subset_of

if TYPE_CHECKING:
    from zoo_datasets.networks import modules
    from zoo_datasets.sources.examples import Examples

MOST_LEVELS = 8  # shown of one axis in a repr


class Opened:
    """What all selections of one opened zoo share."""

    def __init__(self, location: Location, verify: bool) -> None:
        self.location, self.verify = location, verify
        self.models = Columns(location, "models")
        self.snapshots = Columns(location, "snapshots")
        self.shards = Shards(location, self.snapshots, verify)
        len(self.models)  # opens the files: a damaged table is found here

    def __reduce__(self) -> Any:
        return Opened, (self.location, self.verify)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """The row in `models` of every snapshot, int32 [n]."""
        codes, ids = self.snapshots.codes("model_id")
        known = self.models.table(["model_id"])["model_id"]
        place = numbers_of(pc.index_in(ids, pa.concat_arrays(known.chunks)), missing=-1)[codes]
        if len(codes) and min(codes.min(), place.min()) < 0:
            raise IntegrityError(
                f"{self.location.name} has snapshots of models that are not in `models`: it is damaged."
            )
        return place

    @functools.cached_property
    def row_of_id(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.models.column("model_id").to_pylist())}


class Selection:
    """Some snapshots of a zoo, in an order.

    `models` and `snapshots` are Arrow tables of the selection, `weights` its vectors in the
    order of `snapshots`. `len(zoo)` counts snapshots.
    """

    def __init__(self, opened: Opened, rows: np.ndarray) -> None:
        self._opened = opened
        self.rows = rows  # int64 [n], of the whole zoo's snapshots table
        rows.setflags(write=False)

    def __reduce__(self) -> Any:  # to worker processes: what was read stays here
        return type(self), (self._opened, self.rows)

    @property
    def name(self) -> str:
        """The zoo's id, as its manifest says."""
        return self._opened.location.name

    @property
    def root(self) -> Path:
        """Its folder, or the cache of a zoo on the Hub."""
        return self._opened.location.root

    @property
    def location(self) -> Location:
        return self._opened.location

    @property
    def manifest(self) -> Manifest:
        return self._opened.location.manifest

    @property
    def whole(self) -> Self:
        """All snapshots of the zoo that this is a selection of."""
        return self if self._is_whole else type(self)(self._opened, np.arange(len(self._opened.snapshots)))

    @property
    def axes(self) -> dict[str, list[str]]:
        """Varied factors and the labels of their levels in the whole zoo; no levels of one sampled at random."""
        return {k: [] if v == "sample" else list(v) for k, v in self.manifest.axes.items()}

    @property
    def paired(self) -> list[str]:
        """Axes along which twins share initialization and batch order; all, where models start from another zoo's."""
        return list(self.manifest.paired)

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def snapshots(self) -> pa.Table:
        """One row per selected snapshot, all columns. `table` reads only some."""
        return self.table()

    @functools.cached_property
    def models(self) -> pa.Table:
        """One row per model with a selected snapshot, all columns but the inline weights."""
        return self._opened.models.table(rows=None if self._is_whole else self._model_rows)

    @functools.cached_property
    def weights(self) -> Weights:
        """Vectors of the selected snapshots, read when indexed."""
        return Weights(self._opened.shards, self.rows)

    def table(self, columns: Iterable[str] | None = None) -> pa.Table:
        """Some columns (one by its name alone) for the selected snapshots, in order; factors and keys of their models among them."""
        if columns is None:
            return self._opened.snapshots.table(rows=None if self._is_whole else self.rows)
        columns = [columns] if isinstance(columns, str) else columns
        found = {name: self._column(name) for name in columns}
        return as_strings(found, self.location.manifest.files.size("data/"), f"The selection of {self.name}")

    def column(self, name: str) -> pa.ChunkedArray:
        """One column for the selected snapshots, of `snapshots` or else of their models. Raises ZooError."""
        return self.table([name])[name]

    def _column(self, name: str) -> pa.ChunkedArray:
        if name in self._opened.snapshots:
            found = self._opened.snapshots.column(name)
            return found if self._is_whole else found.take(arrow_index(self.rows))
        self._known(name)
        return self._opened.models.column(name).take(arrow_index(self._opened.owner[self.rows]))

    @functools.cached_property
    def _is_whole(self) -> bool:
        n = len(self._opened.snapshots)
        return len(self.rows) == n and bool((self.rows == np.arange(n)).all())

    @functools.cached_property
    def _model_rows(self) -> np.ndarray:
        """Rows in `models` of the selected models, ascending."""
        return np.flatnonzero(np.bincount(self._opened.owner[self.rows], minlength=len(self._opened.models)))

    def _known(self, name: str) -> None:
        if name not in self._opened.snapshots and name not in self._opened.models:
            known = dict.fromkeys([*self._opened.snapshots.names, *self._opened.models.names])
            raise ZooError(unknown("column", name, known, self.name))

    def _table_of(self, name: str) -> Columns:
        self._known(name)
        return self._opened.snapshots if name in self._opened.snapshots else self._opened.models

    def _has_levels(self, name: str) -> bool:
        return name in self.axes or name in self.manifest.factors or name == "split"

    def _check_levels(self, name: str, wanted: Any) -> None:
        """Raises ZooError where a factor has a wanted level in no row of the whole zoo: a typo would select nothing."""
        if self._has_levels(name):
            stray = strays(self._table_of(name), name, wanted, SPLITS if name == "split" else ())
            if stray is not None:
                raise ZooError(unknown_level(name, *stray, self.name))

    # ── selections ──

    def select(self, expression: pc.Expression | None = None, /, **wanted: Any) -> Self:
        """The snapshots where each column equals the value, or is among the values; None is null.

        Any column of `snapshots`, else of `models`, can be named; a `pyarrow.compute`
        expression over them may come first: `zoo.select(pc.field("lr") > 1e-3, epoch=[0, 50])`.

        A factor's level that no row of the whole zoo has is a mistake, in an expression too where it is
        compared by `==`, `!=` or `isin`; what this selection lost gives an empty one. Raises ZooError for such a level, an unknown column, a value that a column cannot hold.
        """
        keep = np.ones(len(self._opened.snapshots), bool)
        for name, value in wanted.items():
            table = self._table_of(name)
            found = matches(table, name, value)
            self._check_levels(name, value)
            keep &= found if table is self._opened.snapshots else found[self._opened.owner]
        rows = np.flatnonzero(keep) if self._is_whole else self.rows[keep[self.rows]]
        selected = type(self)(self._opened, rows)
        return selected if expression is None else selected._where(expression)

    def _where(self, expression: pc.Expression) -> Self:
        if not isinstance(expression, pc.Expression):
            raise ZooError(
                f"select() takes a pyarrow.compute expression or column=value, not {expression!r}. "
                'Write select(pc.field("lr") > 1e-3) or select(lr=[1e-3, 3e-3]).'
            )
        # An expression does not tell its fields; names found in its text include them all. Of names that are no
        # single word (`my col`, `a.b`) any part of the text may be one.
        text = str(expression)
        words = set(re.findall(r"\w+", text))
        known = dict.fromkeys([*self._opened.snapshots.names, *self._opened.models.names])
        named = [name for name in known if name and (name in words if re.fullmatch(r"\w+", name) else name in text)]
        plain = [
            n for n in named if self._has_levels(n) and not pa.types.is_list(self._table_of(n).schema.field(n).type)
        ]
        for name, value in levels_in(expression, plain):
            self._check_levels(name, value)
        table = self.table(named or ["model_id"])
        try:
            kept = table.append_column("", pa.array(np.arange(len(self)))).filter(expression)
        except pa.ArrowException as error:
            missing = re.search(r"No match for FieldRef\.Name\((.*?)\)", str(error))
            if missing:
                raise ZooError(unknown("column", missing[1], known, self.name)) from None
            raise ZooError(f"{expression} cannot be computed: {str(error).splitlines()[0]}.") from None
        return type(self)(self._opened, self.rows[kept[""].to_numpy()])

    def take(self, positions: Any) -> Self:
        """The snapshots at positions of this selection, in that order: a slice, an array, a bool mask."""
        positions = positions if isinstance(positions, slice) else np.asarray(positions)
        if not isinstance(positions, slice) and not positions.size and positions.dtype != bool:
            positions = positions.astype(np.int64)  # NumPy's empty array holds floats
        return type(self)(self._opened, np.ascontiguousarray(self.rows[positions]).reshape(-1).copy())

    def final(self) -> Self:
        """The last selected snapshot of each model, in the order of the selection."""
        owner, step = self._opened.owner[self.rows], self._opened.snapshots.numbers("step")[self.rows]
        order = np.lexsort((step, owner))
        last = np.append(owner[order][1:] != owner[order][:-1], True)[: len(order)]
        return self.take(np.sort(order[last]))

    # ── one model ──

    def row(self, model_id: str) -> dict[str, Any]:
        """The row of a model in `models`, without weights. Raises ZooNotFoundError."""
        at = self._model(model_id)
        return {n: v[0] for n, v in self._opened.models.table(rows=np.array([at])).to_pydict().items()}

    def _model(self, model_id: Any) -> int:
        model_id = plain(model_id)
        if model_id not in self._opened.row_of_id:
            raise ZooNotFoundError(unknown("model", model_id, self._opened.row_of_id, self.name))
        return self._opened.row_of_id[model_id]

    def position(self, model_id: str, step: int | None = None) -> int:
        """Where in this selection a model's snapshot is: at `step`, or the last. Raises ZooNotFoundError."""
        step = plain(step)
        mine = np.flatnonzero(self._opened.owner[self.rows] == self._model(model_id))
        steps = self._opened.snapshots.numbers("step")[self.rows[mine]]
        if not len(mine):
            raise ZooNotFoundError(
                f"Model {model_id} of {self.name} has no snapshot in this selection; widen `select`."
            )
        if step is None:
            return int(mine[steps.argmax()])
        if step not in steps:
            here = ", ".join(map(str, np.sort(steps)))
            raise ZooNotFoundError(f"Model {model_id} has no snapshot at step {step} in this selection. Known: {here}.")
        return int(mine[np.flatnonzero(steps == step)[0]])

    def architecture(self, model_id: str) -> Architecture | External:
        """The layers of a model, or of an imported one its layout alone.

        Raises ZooNotFoundError, FormatVersionError, IntegrityError.
        """
        key = self._opened.models.column("architecture_id")[self._model(model_id)].as_py()
        return self.manifest.architecture(str(key), f"model {model_id}")

    def vector(self, model_id: str, step: int | None = None) -> np.ndarray:
        """The weights [P] of a model's snapshot: at `step`, or the last of this selection."""
        return self.weights[self.position(model_id, step)]

    def state_dict(self, model_id: str, step: int | None = None) -> dict[str, Any]:
        """The same as a torch state dict, which owns its memory; `modules.to_vector` is the way back."""
        from zoo_datasets.networks import modules

        at = self.position(model_id, step)
        step = int(self._opened.snapshots.numbers("step")[self.rows[at]])
        return modules.to_state_dict(self.weights[at], self.architecture(model_id), step)

    def load_model(self, model_id: str, step: int | None = None) -> modules.Network:
        """The trained network as an `nn.Module`, in evaluation mode: at `step`, or the last of this selection.

        Raises NoNetworkError where the zoo does not know its layers.
        Its inputs are images as the source scales them: `zoo.source(model_id)`.
        """
        from zoo_datasets.networks import modules

        network = modules.Network(self.architecture(model_id).built(), self.row(model_id).get("dropout") or 0.0)
        network.load_state_dict(self.state_dict(model_id, step))
        return network.eval()

    # ── what it was trained on ──

    def source(self, model_id: str, data: str | Path | None = None) -> Source:
        """The data that a model learned, from `data`, $ZOO_DATA, scikit-learn or the Hub; checked against the row.

        Raises ZooNotFoundError, IntegrityError where it is not the same data.
        """
        from zoo_datasets import sources

        row = self.row(model_id)
        found = sources.load(spec_of(row), data)
        if found.sha256 != row["source_sha256"]:
            raise IntegrityError(
                f"Source {row['source']!r} is not what {self.name} was trained on: its checksum is "
                f"{found.sha256[:16]}…, the zoo says {row['source_sha256'][:16]}…. Name the right copy with `data`."
            )
        return found

    def training_examples(self, model_id: str, data: str | Path | None = None) -> Examples:
        """What a model saw: rows of `zoo.source(id).train`, labels as trained and clean, which carry the trigger."""
        from zoo_datasets import sources

        row, source = self.row(model_id), self.source(model_id, data)
        subset = subset_of(row).numbered(source.class_names)
        return sources.training_examples(source.train.labels, source.n_classes, subset, row["subset_key"])

    def training_images(self, model_id: str, data: str | Path | None = None) -> np.ndarray:
        """The raw images [n, …] that a model saw, turned and stamped as it saw them, in the order of
        `training_examples`; `source(id).scaled` makes them inputs."""
        from zoo_datasets import sources

        row, source = self.row(model_id), self.source(model_id, data)
        subset = subset_of(row).numbered(source.class_names)
        examples = sources.training_examples(source.train.labels, source.n_classes, subset, row["subset_key"])
        return sources.training_images(source, subset, examples)

    def __repr__(self) -> str:
        return _describe(self)

    def _repr_html_(self) -> str:
        title, *lines = _describe(self).split("\n")
        return notebook.table(title, (), (line.split(maxsplit=1) for line in lines))


def _describe(zoo: Selection) -> str:
    manifest, counts = zoo.manifest, zoo.manifest.counts
    whole = zoo._is_whole
    selected = "" if whole else f", of {counts.n_models:,} and {counts.n_snapshots:,}"
    n_models = counts.n_models if whole else len(zoo._model_rows)
    lines = [f"Zoo {zoo.name}: {n_models:,} models, {len(zoo):,} snapshots{selected}"]
    for axis, known in zoo.axes.items():
        levels = known
        if not whole:
            present = map(streams.level_label, distinct(zoo._column(axis)))
            levels = sorted(present, key=lambda v: known.index(v) if v in known else len(known))
        shown = ", ".join(levels[:MOST_LEVELS]) + (f", … ({len(levels)} in all)" if len(levels) > MOST_LEVELS else "")
        lines.append(f"  {axis:<12} {shown or ('drawn at random' if n_models else 'none')}")
    of_split: Mapping[str, int] = counts.models
    if not whole:
        codes, names = zoo._opened.models.codes("split")
        number = np.bincount(codes[zoo._model_rows] + 1, minlength=len(names) + 1)[1:].tolist()
        of_split = dict(
            sorted(zip(names.to_pylist(), number, strict=True), key=lambda s: list(counts.models).index(s[0]))
        )
    shown = ", ".join(f"{k} {v:,}" for k, v in of_split.items() if v or whole)
    lines.append(f"  {'splits':<12} {shown or 'no'} models")
    params = ", ".join(f"{w:,}" for w in manifest.widths[:MOST_LEVELS])
    size = manifest.files.size("weights/") / 1e6
    lines.append(f"  {'weights':<12} {params} float32 each, {len(manifest.layouts)} layout(s), {size:,.1f} MB in all")
    return "\n".join(map(plain_text.line, lines))
