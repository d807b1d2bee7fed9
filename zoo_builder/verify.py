"""A zoo → is it what it says? Its bytes, its rows against its recipe, and by training again.

* `verify`: the check of every byte (`zoo_datasets.format.check`), every row against what the sealed recipe
  plans, and every step 0 against the initialization recomputed from its key.
* `retrain`: the cohorts of some models, trained again, every column that training gives.
* `rebuild`: a whole zoo from the recipe of a manifest, compared with its receipt.

What was not compared is said, in lines of the report that begin so.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_builder.engines import devices
from zoo_builder.plan import Plan
from zoo_builder.training.inputs import initial_weights
from zoo_builder.verifying import planned, receipts, trained
from zoo_builder.verifying.sealed import Sealed
from zoo_datasets.core import meters, streams
from zoo_datasets.core.report import Report
from zoo_datasets.errors import BuildError, GridError, IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import check
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture

log = logging.getLogger("zoo_builder")


def verify(root: Path, *, retrain: int = 0, data: str | None = None) -> Report:
    """Check a zoo; with `retrain` also train the cohorts of so many models again.

    Raises ZooNotFoundError, IntegrityError, FormatVersionError, GridError.
    """
    report = check.sealed(root)
    if report.problems:
        return report
    zoo = Sealed(root, Manifest.read(root))
    try:
        with meters.track("comparing rows with the recipe"):
            cohorts = planned.compare(zoo, report)
        if not report.problems:
            initializations(zoo, report)
        if report.problems:
            report.lines.append(
                "not compared: what training gives; rows that are not the recipe's are trained by nobody"
            )
        elif retrain:
            trained.retrain(zoo, cohorts, retrain, data, report)
        else:
            report.lines.append(
                "not compared: what training gives (later weights, metrics, stop reasons, numbers of training images) "
                f"and what the manifest says of its sources; `--retrain {len(zoo.rows)}` trains all models"
            )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        # A recipe is checked where it is read; rows without one may hold any setting.
        if isinstance(error, ZooError) or ZooPaths(root).grid.is_file():
            raise
        raise IntegrityError(f"The rows of {root} describe runs that cannot be trained: {error!r}.") from None
    check.card_of(root, report)
    report.lines.append("not compared: the words of README.md, croissant.json and pictures, which are outside the seal")
    return report


def initializations(zoo: Sealed, report: Report) -> None:
    """Step 0 of every model that has one, bitwise: from its key, or its parent's snapshot."""
    known: dict[str, Architecture] = {}
    checked, taken, wrong = 0, 0, []
    columns = ["model_id", "step", "shard", "tensor", "row", "weights_sha256"]
    for id, snapshots in meters.over(zoo.snapshots_of(zoo.by_id, columns).items(), "initializations", "models"):
        row, first = zoo.by_id[id], snapshots[0]
        if first["step"]:
            continue
        if row["parent_id"] is not None:
            taken += 1
            if first["weights_sha256"] != row["parent_sha256"]:
                wrong.append(f"model {id}: step 0 is not the snapshot of its parent")
            continue
        if row["architecture_id"] not in known:
            known[row["architecture_id"]] = zoo.architecture(row)
        start = initial_weights(zoo.runs[id], known[row["architecture_id"]])
        checked += 1
        if start.tobytes() != zoo.weights(first).tobytes():
            wrong.append(f"model {id}: step 0 is not the initialization of its key")
    report.extend(wrong)
    report.lines.append(f"initializations: {checked:,} recomputed from their keys, bitwise")
    if taken:
        report.lines.append(f"lineage: {taken:,} models start from the snapshot that their row names")


# ── rebuild ──


def rebuild(folder: Path, *, data: str | None = None, workers: int | None = None, out: str | None = None) -> Report:
    """Build the zoo of `folder/grid.yaml` and compare it with `folder/manifest.json`.

    Without `out` it is built in a folder of the temporary one, always the same for one plan, and removed once
    it is compared: a rebuild that was stopped goes on there. Raises ZooNotFoundError where the folder is not
    a recipe and receipt, GridError, BuildError.
    """
    if not (folder / "grid.yaml").is_file() or not (folder / "manifest.json").is_file():
        raise ZooNotFoundError(
            f"{folder} has no grid.yaml and manifest.json; name a folder like manifests/weightzoo/digits-mlp."
        )
    receipt = Manifest.read(folder)
    recipe = grid.load(folder / "grid.yaml")
    if recipe.digest != receipt.recipe_sha256:
        raise GridError(f"{folder}/grid.yaml is not the recipe of the manifest beside it.")
    used = {e.engine for e in receipt.engines}
    on = {text.partition(" on ")[2] for text in receipt.identity.engines or ()}
    engine, device = (used.pop() if len(used) == 1 else "auto"), (on.pop() if len(on) == 1 else "cpu")
    if engine == "native" and kernels.missing():
        engine = "auto"  # the comparison says that bits cannot agree
    ours = plan.plan(recipe, engine=engine, device=devices.check(device), data=data)
    place = Path(out) if out else temporary_place(ours)
    if out and ZooPaths(place).manifest.exists() and not ZooPaths(place).recipe.exists():
        raise BuildError(
            f"{place} is sealed already, and nothing would be built again. Name another folder with --out."
        )
    try:
        paths = build(ours, place, workers=workers)
    except BuildError as error:
        if not ZooPaths(place).build.is_dir():
            raise
        raise type(error)(f"{error} It lies in {place}.") from error
    settings = {run.id: run.settings for run in ours.runs}
    with meters.track("comparing with the receipt"):
        report = receipts.compare(Manifest.read(paths.root), receipt, settings.__getitem__, paths.root)
    if out is None:
        shutil.rmtree(place, ignore_errors=True)
    return report


def temporary_place(ours: Plan) -> Path:
    """Where the rebuild of a plan goes and goes on: a folder of our own in the temporary one. Raises BuildError."""
    way_out = "Name a folder with --out, or set TMPDIR to one that is writable."
    try:
        place = Path(tempfile.gettempdir()) / f"zoo-rebuild-{os.getuid()}-{streams.digest(ours.identity)[:16]}"
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise BuildError(f"There is no temporary folder to build in: {error.strerror or error}. {way_out}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise BuildError(f"{place} is somebody else's. {way_out}")
    if ZooPaths(place).manifest.exists():  # finished before, perhaps by another version: what is compared is built now
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, exist_ok=True)
    log.info("building in %s, which goes once it is compared; a stopped rebuild goes on there", place)
    return place
