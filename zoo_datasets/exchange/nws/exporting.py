"""Models of a zoo → a new folder in the layout of Neural Weight Space, with all their snapshots.

There is one row of errors for each snapshot, where theirs have one for each epoch; what was not measured is
NaN. Where a model's first selected snapshot is not its initialization, its first file is not either: readers that
tell twins by it take all such models for strangers, and a line of the log says so. The files that list the
models of a split have the columns that their loader asks for.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError
from zoo_datasets.exchange import folders
from zoo_datasets.exchange.nws import properties
from zoo_datasets.exchange.nws.network import conv_values
from zoo_datasets.exchange.nws.properties import Properties
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.reading.selection import Selection
from zoo_datasets.views.nws import to_nws

log = logging.getLogger("zoo_datasets")

MOST_SNAPSHOTS = 999  # of one model: files are numbered with three digits
KEPT = 0.5  # of the smoothed error so far; the rest is the new one's
PARTS = ("train", "validation", "test")


def write(zoo: Selection, out: Path) -> int:
    """Write a selection's models into a folder that was not there, or empty; how many. Raises ZooError."""
    known = properties.of_models(zoo)
    if not known:
        raise ZooError(f"Nothing of {zoo.name} is selected; there is no model to export.")
    columns = {name: zoo.column(name) for name in ("split", "epoch", *(f"{part}_accuracy" for part in PARTS))}
    columns = {name: values.to_numpy() for name, values in columns.items()} | {"step": zoo.column("step").to_numpy()}
    places = _places(zoo)
    most = max(map(len, places.values()))
    if most > MOST_SNAPSHOTS:
        raise ZooError(
            f"A model of {zoo.name} has {most:,} snapshots, and three digits number {MOST_SNAPSHOTS}. Select some of them."
        )
    if late := sum(int(columns["step"][rows[0]]) > 0 for rows in places.values()):
        log.warning(
            "%d of %d models are exported without their initialization (step 0): readers cannot tell which share one.",
            late,
            len(places),
        )
    listed: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    with folders.fresh(out) as scratch, meters.track("exporting", len(known), "models") as meter:
        for number, (id, own) in enumerate(known.items()):
            rows = places[id]
            architecture = zoo.architecture(id).built()
            _write_model(scratch / f"{number:04d}", zoo, rows, architecture, own, columns)
            first = conv_values(architecture)
            more = {"weightn_conv": first, "weightn_fc": architecture.n_params - first, "path": f"{number:04d}"}
            listed[columns["split"][rows[0]]].append(own.coded() | more | {"model_id": id})
            meter.add()
        names = (*properties.NAMES, "weightn_conv", "weightn_fc", "path", "model_id")
        for split, models in listed.items():
            if models:
                (scratch / f"{split}.csv").write_text(properties.written(models, names), encoding="utf-8")
    return len(known)


def _places(zoo: Selection) -> dict[str, np.ndarray]:
    """Model → where its snapshots are in the selection, by step."""
    ids, steps = zoo.column("model_id").to_pylist(), zoo.column("step").to_numpy()
    places: dict[str, list[int]] = {}
    for at in np.argsort(steps, kind="stable").tolist():
        places.setdefault(ids[at], []).append(at)
    return {id: np.array(rows) for id, rows in places.items()}


def _write_model(
    folder: Path, zoo: Selection, rows: np.ndarray, architecture: Architecture, own: Properties, columns: dict[str, Any]
) -> None:
    weights = folder / "weights"
    weights.mkdir(parents=True)
    for number, at in enumerate(rows.tolist(), 1):
        to_nws(zoo.weights[at], architecture).astype("<f8").tofile(weights / f"{number:03d}.bin")
    _errors(rows, columns).astype("<f8").tofile(folder / "error.bin")
    last = rows[-1]
    # The first number is how many rows there are, by which their loader finds those of the snapshots. A manifest has no clock, so
    # nobody knows how long it took.
    np.array([len(rows), columns["step"][last], columns["epoch"][last], np.nan], "<f8").tofile(folder / "stat.bin")
    (folder / "meta.csv").write_text(properties.written([own.coded()]), encoding="utf-8")


def _errors(rows: np.ndarray, columns: dict[str, Any]) -> np.ndarray:
    """(S, 5): step, three errors in percent, and that on validation smoothed."""
    errors = [100 * (1 - columns[f"{part}_accuracy"][rows].astype(float)) for part in PARTS]
    smoothed = errors[1].copy()
    for i in range(1, len(smoothed)):
        smoothed[i] = KEPT * smoothed[i - 1] + (1 - KEPT) * errors[1][i]
    return np.column_stack([columns["step"][rows], *errors, smoothed])
