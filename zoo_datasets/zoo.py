"""Path or id of a zoo → a handle: its tables, a selection of its snapshots, their weights.

In:  a folder or an id of the Hub. Opening reads the manifest and the tables' footers only;
     columns and weights are read when they are asked for.
Out: a `Zoo`. `select` gives another that shares everything read so far: a selection is an
     array of row numbers of the `snapshots` table, and nothing is copied.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets import files, hub, models, streams, tables
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError, unknown
from zoo_datasets.matrix import Shards, Weights
from zoo_datasets.rows import spec_of, subset_of
from zoo_datasets.sources import Source

if TYPE_CHECKING:
    from zoo_datasets import evaluate, loaders, modules, variation
    from zoo_datasets.examples import Examples

MOST_LEVELS = 8  # shown of one axis in a repr


def open_zoo(
    path_or_id: str | Path, revision: str | None = None, verify: bool = False, *, cache_dir: str | Path | None = None
) -> Zoo:
    """The zoo in a folder or on the Hub, all its snapshots selected; only metadata is read.

    `revision` is a tag, branch or commit of the Hub. With `verify` tables are compared with
    their SHA-256 now, and each shard when it is first touched.

    Raises ZooNotFoundError, FormatVersionError, IntegrityError.
    """
    location = hub.locate(path_or_id, revision, Path(cache_dir) if cache_dir else None)
    if verify:
        for entry in location.manifest["files"]:
            if entry["path"].startswith("data/") and files.sha256(location.path(entry["path"])) != entry["sha256"]:
                raise IntegrityError(
                    f"{entry['path']} of {location.name} has other contents than were sealed. "
                    "Fetch or build the zoo again."
                )
    whole = _Whole(location, verify)
    return Zoo(whole, np.arange(len(whole.snapshots)))


class _Whole:
    """What all selections of one opened zoo share."""

    def __init__(self, location: hub.Location, verify: bool) -> None:
        self.location, self.verify = location, verify
        self.models = tables.Columns(location, "models")
        self.snapshots = tables.Columns(location, "snapshots")
        self.shards = Shards(location, self.snapshots, verify)
        len(self.models)  # opens the files: a damaged table is found here

    def __reduce__(self) -> Any:
        return _Whole, (self.location, self.verify)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """The row in `models` of every snapshot, int32 [n]."""
        codes, ids = self.snapshots.codes("model_id")
        known = tables.plain(self.models.column("model_id"))
        place = tables.numbers_of(pc.index_in(ids, pa.concat_arrays(known.chunks)), missing=-1)[codes]
        if len(codes) and min(codes.min(), place.min()) < 0:
            raise IntegrityError(
                f"{self.location.name} has snapshots of models that are not in `models`: it is damaged."
            )
        return place

    @functools.cached_property
    def row_of_id(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.models.column("model_id").to_pylist())}


class Zoo:
    """A selection of a zoo's snapshots; see `open_zoo`.

    `models` and `snapshots` are Arrow tables of the selection, `weights` its vectors in the
    order of `snapshots`. `len(zoo)` counts snapshots.
    """

    def __init__(self, whole: _Whole, rows: np.ndarray) -> None:
        self._whole = whole
        self.rows = rows  # int64 [n], of the whole zoo's snapshots table
        rows.setflags(write=False)

    def __reduce__(self) -> Any:  # to worker processes: what was read stays here
        return Zoo, (self._whole, self.rows)

    @property
    def name(self) -> str:
        """The zoo's id, as its manifest says."""
        return self._whole.location.name

    @property
    def root(self) -> Path:
        """Its folder, or the cache of a zoo on the Hub."""
        return self._whole.location.root

    @property
    def location(self) -> hub.Location:
        return self._whole.location

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._whole.location.manifest

    @property
    def whole(self) -> Zoo:
        """All snapshots of the zoo that this is a selection of."""
        return self if self._is_whole else Zoo(self._whole, np.arange(len(self._whole.snapshots)))

    @property
    def axes(self) -> dict[str, list[str]]:
        """Varied factors and the labels of their levels in the whole zoo; no levels of one sampled at random."""
        return {k: [] if v == "sample" else list(v) for k, v in self.manifest["axes"].items()}

    @property
    def paired(self) -> list[str]:
        """Axes along which twins share initialization and batch order; all, where models start from another zoo's."""
        if "parents" in self.manifest["identity"]:
            return list(self.axes)
        return list(self.manifest["identity"]["document"].get("paired") or [])

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def snapshots(self) -> pa.Table:
        """One row per selected snapshot, all columns. `table` reads only some."""
        return self.table()

    @functools.cached_property
    def models(self) -> pa.Table:
        """One row per model with a selected snapshot, all columns but the inline weights."""
        return self._whole.models.table(rows=None if self._is_whole else self._model_rows)

    @functools.cached_property
    def weights(self) -> Weights:
        """Vectors of the selected snapshots, read when indexed."""
        return Weights(self._whole.shards, self.rows)

    def table(self, columns: Iterable[str] | None = None) -> pa.Table:
        """Some columns for the selected snapshots, in order; factors and keys of their models among them."""
        if columns is None:
            return self._whole.snapshots.table(rows=None if self._is_whole else self.rows)
        return pa.table({name: tables.plain(self._column(name)) for name in columns})

    def column(self, name: str) -> pa.ChunkedArray:
        """One column for the selected snapshots, of `snapshots` or else of their models. Raises ZooError."""
        return tables.plain(self._column(name))

    def _column(self, name: str) -> pa.ChunkedArray:
        if name in self._whole.snapshots:
            found = self._whole.snapshots.column(name)
            return found if self._is_whole else found.take(tables.arrow_index(self.rows))
        self._known(name)
        return self._whole.models.column(name).take(tables.arrow_index(self._whole.owner[self.rows]))

    @functools.cached_property
    def _is_whole(self) -> bool:
        n = len(self._whole.snapshots)
        return len(self.rows) == n and bool((self.rows == np.arange(n)).all())

    @functools.cached_property
    def _model_rows(self) -> np.ndarray:
        """Rows in `models` of the selected models, ascending."""
        return np.flatnonzero(np.bincount(self._whole.owner[self.rows], minlength=len(self._whole.models)))

    def _known(self, name: str) -> None:
        if name not in self._whole.snapshots and name not in self._whole.models:
            known = dict.fromkeys([*self._whole.snapshots.names, *self._whole.models.names])
            raise ZooError(unknown("column", name, known, self.name))

    # ── selections ──

    def select(self, expression: pc.Expression | None = None, /, **wanted: Any) -> Zoo:
        """The snapshots where each column equals the value, or is among the values; None is null.

        Any column of `snapshots`, else of `models`, can be named; a `pyarrow.compute`
        expression over them may come first: `zoo.select(pc.field("lr") > 1e-3, epoch=[0, 50])`.

        Raises ZooError for an unknown column, or a value that a column cannot hold.
        """
        keep = np.ones(len(self._whole.snapshots), bool)
        for name, value in wanted.items():
            self._known(name)
            if name in self._whole.snapshots:
                keep &= tables.matches(self._whole.snapshots, name, value)
            else:
                keep &= tables.matches(self._whole.models, name, value)[self._whole.owner]
        rows = np.flatnonzero(keep) if self._is_whole else self.rows[keep[self.rows]]
        found = Zoo(self._whole, rows)
        return found if expression is None else found._where(expression)

    def _where(self, expression: pc.Expression) -> Zoo:
        if not isinstance(expression, pc.Expression):
            raise ZooError(
                f"select() takes a pyarrow.compute expression or column=value, not {expression!r}. "
                'Write select(pc.field("lr") > 1e-3) or select(lr=[1e-3, 3e-3]).'
            )
        # An expression does not tell its fields; names found in its text include them all.
        words = set(re.findall(r"\w+", str(expression)))
        known = dict.fromkeys([*self._whole.snapshots.names, *self._whole.models.names])
        table = self.table([name for name in known if name in words] or ["model_id"])
        try:
            kept = table.append_column("", pa.array(np.arange(len(self)))).filter(expression)
        except pa.ArrowInvalid as error:
            missing = re.search(r"No match for FieldRef\.Name\((.*?)\)", str(error))
            if missing:
                raise ZooError(unknown("column", missing[1], known, self.name)) from None
            raise ZooError(f"{expression} cannot be computed: {str(error).splitlines()[0]}.") from None
        except pa.ArrowNotImplementedError as error:
            raise ZooError(f"{expression} cannot be computed: {str(error).splitlines()[0]}.") from None
        return Zoo(self._whole, self.rows[kept[""].to_numpy()])

    def take(self, positions: Any) -> Zoo:
        """The snapshots at positions of this selection, in that order: a slice, an array, a bool mask."""
        return Zoo(self._whole, np.ascontiguousarray(self.rows[positions]).reshape(-1).copy())

    def final(self) -> Zoo:
        """The last selected snapshot of each model, in the order of the selection."""
        owner, step = self._whole.owner[self.rows], self._whole.snapshots.numbers("step")[self.rows]
        order = np.lexsort((step, owner))
        last = np.append(owner[order][1:] != owner[order][:-1], True)[: len(order)]
        return self.take(np.sort(order[last]))

    # ── one model ──

    def row(self, model_id: str) -> dict[str, Any]:
        """The row of a model in `models`, without weights. Raises ZooNotFoundError."""
        at = self._model(model_id)
        return {n: v[0] for n, v in self._whole.models.table(rows=np.array([at])).to_pydict().items()}

    def _model(self, model_id: str) -> int:
        if model_id not in self._whole.row_of_id:
            raise ZooNotFoundError(unknown("model", model_id, self._whole.row_of_id, self.name))
        return self._whole.row_of_id[model_id]

    def position(self, model_id: str, step: int | None = None) -> int:
        """Where in this selection a model's snapshot is: at `step`, or the last. Raises ZooNotFoundError."""
        mine = np.flatnonzero(self._whole.owner[self.rows] == self._model(model_id))
        steps = self._whole.snapshots.numbers("step")[self.rows[mine]]
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

    def architecture(self, model_id: str) -> models.Architecture:
        """The layers of a model. Raises ZooNotFoundError, FormatVersionError, IntegrityError."""
        return self._architecture(str(self._whole.models.column("architecture_id")[self._model(model_id)].as_py()))

    def _architecture(self, key: str) -> models.Architecture:
        known = self.manifest["architectures"]
        if key not in known:
            raise IntegrityError(f"{self.name}: no architecture {key!r} in the manifest; the zoo is damaged.")
        found = models.Architecture.from_json(known[key])
        if found.layout_id != known[key]["layout"]:
            raise IntegrityError(
                f"{self.name}: architecture {key} has layout {found.layout_id}, the manifest says "
                f"{known[key]['layout']}; the zoo is damaged."
            )
        return found

    def vector(self, model_id: str, step: int | None = None) -> np.ndarray:
        """The weights [P] of a model's snapshot: at `step`, or the last of this selection."""
        return self.weights[self.position(model_id, step)]  # type: ignore[no-any-return]

    def state_dict(self, model_id: str, step: int | None = None) -> dict[str, Any]:
        """The same as a torch state dict, which owns its memory; `modules.to_vector` is the way back."""
        from zoo_datasets import modules

        at = self.position(model_id, step)
        step = int(self._whole.snapshots.numbers("step")[self.rows[at]])
        return modules.to_state_dict(self.weights[at], self.architecture(model_id), step)

    def load_model(self, model_id: str, step: int | None = None) -> modules.Network:
        """The trained network as an `nn.Module`, in evaluation mode: at `step`, or the last of this selection.

        Its inputs are images as the source scales them: `zoo.source(model_id)`.
        """
        from zoo_datasets import modules

        state = self.state_dict(model_id, step)
        network = modules.Network(self.architecture(model_id), self.row(model_id)["dropout"] or 0.0)
        network.load_state_dict(state)
        return network.eval()  # type: ignore[no-any-return]

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
        return sources.training_examples(source.train.labels, source.n_classes, subset_of(row), row["subset_key"])

    def training_images(self, model_id: str, data: str | Path | None = None) -> np.ndarray:
        """The raw images [n, …] that a model saw, turned and stamped as it saw them, in the order of
        `training_examples`; `source(id).scaled` makes them inputs."""
        from zoo_datasets import sources

        row, source = self.row(model_id), self.source(model_id, data)
        examples = sources.training_examples(source.train.labels, source.n_classes, subset_of(row), row["subset_key"])
        return sources.training_images(source, subset_of(row), examples)

    # ── sentences of other files ──

    def evaluate(self, ids: Sequence[str] | None = None, **options: Any) -> evaluate.Evaluation:
        """`evaluate.evaluate`: all models again, batched, against their stored metrics."""
        from zoo_datasets import evaluate

        return evaluate.evaluate(self, ids, **options)

    def pairs(self, vary: str, levels: tuple[Any, Any] | None = None) -> list[variation.Pair]:
        """`variation.pairs`: models equal in all but one factor."""
        from zoo_datasets import variation

        return variation.pairs(self, vary, levels)

    def effect(
        self, vary: str, on: str = "test_accuracy", levels: tuple[Any, Any] | None = None, **options: Any
    ) -> Any:
        """`variation.effect`: what one factor does, from pairs, with an interval."""
        from zoo_datasets import variation

        return variation.effect(self, vary, on, levels, **options)

    def dataset(self, targets: Sequence[str] = ()) -> loaders.WeightsDataset:
        """`loaders.WeightsDataset`: a map-style torch dataset of weights and columns."""
        from zoo_datasets import loaders

        return loaders.WeightsDataset(self, targets)

    def loader(self, batch_size: int, targets: Sequence[str] = (), **options: Any) -> loaders.Loader:
        """`loaders.Loader`: batches over workers and ranks, resumable inside an epoch."""
        from zoo_datasets import loaders

        return loaders.Loader(self, batch_size, targets, **options)

    def to_hf(self, columns: Sequence[str] | None = None) -> Any:
        """`loaders.to_hf`: the selection as a `datasets.Dataset`, weights not copied."""
        from zoo_datasets import loaders

        return loaders.to_hf(self, columns)

    def __repr__(self) -> str:
        return _describe(self)


def _describe(zoo: Zoo) -> str:
    counts = zoo.manifest["counts"]
    n_models, n_snapshots = sum(counts["models"].values()), sum(counts["snapshots"].values())
    whole = zoo._is_whole
    selected = "" if whole else f", of {n_models:,} and {n_snapshots:,}"
    mine = n_models if whole else len(zoo._model_rows)
    lines = [f"Zoo {zoo.name}: {mine:,} models, {len(zoo):,} snapshots{selected}"]
    for axis, known in zoo.axes.items():
        levels = known
        if not whole:
            found = [
                v if isinstance(v, str) else streams.canonical_json(v) for v in zoo._column(axis).unique().to_pylist()
            ]
            levels = sorted(found, key=lambda v: known.index(v) if v in known else len(known))
        shown = ", ".join(levels[:MOST_LEVELS]) + (f", … ({len(levels)} in all)" if len(levels) > MOST_LEVELS else "")
        lines.append(f"  {axis:<12} {shown or 'drawn at random'}")
    layouts = zoo.manifest["layouts"]
    widths = sorted({max((e["offset"] + int(np.prod(e["shape"])) for e in v), default=0) for v in layouts.values()})
    size = sum(e["bytes"] for e in zoo.manifest["files"] if e["path"].startswith("weights/"))
    lines.append(f"  {'splits':<12} " + ", ".join(f"{k} {v:,}" for k, v in counts["models"].items()) + " models")
    params = ", ".join(f"{w:,}" for w in widths[:MOST_LEVELS])
    lines.append(f"  {'weights':<12} {params} float32 each, {len(layouts)} layout(s), {size / 1e6:,.1f} MB in all")
    return "\n".join(lines)
