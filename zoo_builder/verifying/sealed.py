"""A sealed zoo → its rows, and the run that each describes, once the columns have their types.

In:  the folder of a zoo whose bytes are those of its manifest.
Out: `Sealed`. What was not built from a recipe, or whose rows describe no run, is an IntegrityError.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_builder.planning import runs
from zoo_builder.planning.runs import Run
from zoo_datasets.core import files
from zoo_datasets.core.streams import canonical_json
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import schema, shards
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.manifest_parts import SourceRecord
from zoo_datasets.format.schema import Column
from zoo_datasets.format.tables import read_table
from zoo_datasets.networks.architecture import Architecture

Row = Mapping[str, Any]

# Null in no zoo that was built from a recipe; arithmetic relies on it.
ALWAYS = {
    "models": (
        "model_id", "split", "plan_index", "batch_size", "n_train", "snapshot_schedule", "engine", "device", "engine_version",
        "isa", "cohort_id", "stop_reason", "n_snapshots", "step", "weights_sha256", "source_sha256", "init_key",
    ),
    "snapshots": ("model_id", "split", "step", "epoch", "examples_seen", "shard", "tensor", "row", "weights_sha256"),
}  # fmt: skip
AT_LEAST = {"models": {"n_train": 1, "batch_size": 1, "n_snapshots": 1}, "snapshots": {"step": 0}}


class Sealed:
    """The tables of a sealed zoo without weights, in their order. Raises IntegrityError."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest
        self.tables = {config: read_table(root, manifest, config) for config in ("models", "snapshots")}
        names = {n for table in self.tables.values() for n in table.column_names}
        metrics = (*schema.METRICS, *(schema.ATTACK if names & {c.name for c in schema.ATTACK} else ()))
        self._check_columns("models", (*schema.MODEL_HEAD, *runs.factor_columns(), *schema.MODEL_TAIL, *metrics))
        self._check_columns("snapshots", (*schema.SNAPSHOT_HEAD, *metrics, *schema.SNAPSHOT_TAIL))
        self.rows: list[Row] = self.tables["models"].to_pylist()
        self.by_id = {r["model_id"]: r for r in self.rows}
        self.runs = {r["model_id"]: self._run(r) for r in self.rows}

    def _check_columns(self, config: str, columns: Iterable[Column]) -> None:
        table = self.tables[config]
        known = {c.name: c.type for c in columns}
        for name, kind in known.items():
            if name not in table.column_names:
                raise self._no_recipe(f"{config} has no column {name!r}")
            if table.schema.field(name).type != kind:
                raise self._no_recipe(f"column {name!r} of {config} is {table.schema.field(name).type}, not {kind}")
        for name in ALWAYS[config]:
            if table[name].null_count:
                raise self._no_recipe(f"column {name!r} of {config} has gaps")
        for name, least in AT_LEAST[config].items():
            if len(table) and pc.min(table[name]).as_py() < least:
                raise self._no_recipe(f"column {name!r} of {config} holds {pc.min(table[name]).as_py()}")

    def _no_recipe(self, why: str) -> IntegrityError:
        return IntegrityError(
            f"The rows of {self.root} describe no runs: {why}. The zoo is damaged, or was not built from a recipe; "
            "`python -m zoo_datasets check` compares its bytes."
        )

    def _run(self, row: Row) -> Run:
        try:
            return runs.from_row(row, self.manifest.layer_lists, list(self.manifest.axes))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._no_recipe(f"that of model {row['model_id']} fails with {error!r}") from None

    def source_of(self, run: Run) -> SourceRecord | None:
        """What the manifest says of a run's source, if it does."""
        return self._sources.get(canonical_json(_plain(run.source.given)))

    @functools.cached_property
    def _sources(self) -> dict[str, SourceRecord]:
        return {canonical_json(_plain(record.spec)): record for record in self.manifest.sources}

    @functools.cached_property
    def steps(self) -> dict[str, list[int]]:
        """Steps of each model's snapshots, in the order of the table."""
        found: dict[str, list[int]] = {}
        table = self.tables["snapshots"]
        for model, step in zip(table["model_id"].to_pylist(), table["step"].to_pylist(), strict=True):
            found.setdefault(model, []).append(step)
        return found

    def snapshots_of(self, ids: Iterable[str], columns: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
        """The rows of `snapshots` of some models, by model, in the order of the table."""
        table = self.tables["snapshots"] if columns is None else self.tables["snapshots"].select(columns)
        wanted = pa.array(list(ids), pa.string())
        found: dict[str, list[dict[str, Any]]] = {id: [] for id in wanted.to_pylist()}
        for row in table.filter(pc.is_in(table["model_id"], wanted)).to_pylist():
            found[row["model_id"]].append(row)
        return found

    def weights(self, snapshot: Row) -> np.ndarray:
        """The vector of a row of `snapshots`, float32 [P]."""
        tensor = shards.open_tensor(files.inside(self.root, snapshot["shard"]), snapshot["tensor"])
        return np.array(tensor[snapshot["row"]])

    def architecture(self, row: Row) -> Architecture:
        """The network of a row of `models`. Raises IntegrityError, NoNetworkError, FormatVersionError."""
        return self.manifest.architecture(row["architecture_id"], f"model {row['model_id']}").built()


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in spec.items()}
