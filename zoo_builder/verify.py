"""A zoo → is it what it says? First its bytes (`zoo_datasets.check`), then by training again.

* `verify`: the check, and every step 0 against the initialization recomputed from its key.
* `retrain`: the cohorts of some models, trained from their rows alone, bit for bit.
* `rebuild`: a whole zoo from the recipe of a manifest, compared with its receipt.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_builder import grid, plan, worker
from zoo_builder.build import build
from zoo_builder.engines import devices
from zoo_builder.planning import cohorts, lineage, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.training import fingerprint
from zoo_builder.training.inputs import initial_weights
from zoo_datasets import sources
from zoo_datasets.core import files
from zoo_datasets.core.report import Report
from zoo_datasets.errors import GridError, ZooNotFoundError
from zoo_datasets.format import check, shards
from zoo_datasets.format.manifest import read_manifest
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.format.tables import read_table
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture, from_json
from zoo_datasets.networks.layout import Layout


def verify(root: Path, *, retrain: int = 0, data: str | None = None) -> Report:
    """Check a zoo; with `retrain` also train the cohorts of so many models again.

    Raises ZooNotFoundError, IntegrityError, FormatVersionError, GridError.
    """
    report = check.check(root)
    if report.problems:
        return report
    manifest = read_manifest(root)
    zoo = _Zoo(root, manifest)
    zoo.initializations(report)
    if retrain:
        zoo.retrain(retrain, data, report)
    return report


class _Zoo:
    """The rows of a zoo, and the runs they describe."""

    def __init__(self, root: Path, manifest: dict[str, Any]) -> None:
        self.root, self.manifest = root, manifest
        table = _without_weights(root, manifest)
        self.rows = table.to_pylist()
        self.runs = {
            r["model_id"]: runs.from_row(r, manifest["layer_lists"], list(manifest["axes"])) for r in self.rows
        }
        self.snapshots: dict[str, list[dict[str, Any]]] = {}
        columns = ["model_id", "step", "shard", "tensor", "row", "weights_sha256", "test_accuracy"]
        for s in read_table(root, manifest, "snapshots", columns).to_pylist():
            self.snapshots.setdefault(s["model_id"], []).append(s)

    def architecture(self, row: dict[str, Any]) -> Architecture:
        record = self.manifest["architectures"][row["architecture_id"]]
        layout = Layout.from_json(self.manifest["layouts"][record["layout"]])
        return from_json(record, layout, f"model {row['model_id']} of {self.manifest['zoo']}").built()

    def weights(self, snapshot: dict[str, Any]) -> np.ndarray:
        return shards.open_tensor(files.inside(self.root, snapshot["shard"]), snapshot["tensor"])[snapshot["row"]]

    def initializations(self, report: Report) -> None:
        """Step 0 of every model that has one, bitwise: from its key, or its parent's snapshot."""
        known: dict[str, Architecture] = {}
        checked, taken, wrong = 0, 0, []
        for row in self.rows:
            first = self.snapshots[row["model_id"]][0]
            if first["step"]:
                continue
            if row["parent_id"] is not None:
                taken += 1
                if first["weights_sha256"] != row["parent_sha256"]:
                    wrong.append(f"model {row['model_id']}: step 0 is not the snapshot of its parent")
                continue
            architecture = known.setdefault(row["architecture_id"], self.architecture(row))
            start = initial_weights(self.runs[row["model_id"]], architecture)
            checked += 1
            if start.tobytes() != self.weights(first).tobytes():
                wrong.append(f"model {row['model_id']}: step 0 is not the initialization of its key")
        report.extend(wrong)
        report.lines.append(f"initializations: {checked:,} recomputed from their keys, bitwise")
        if taken:
            report.lines.append(f"lineage: {taken:,} models start from the snapshot that their row names")

    def cohort(self, cohort_id: str, report: Report) -> Cohort:
        """A cohort from the rows of its models; its id must come out the same."""
        rows = sorted((r for r in self.rows if r["cohort_id"] == cohort_id), key=lambda r: r["plan_index"])
        first = rows[0]
        members = tuple(self.runs[r["model_id"]] for r in rows)
        made = cohorts.make(
            members,
            self.architecture(first),
            first["n_train"],
            first["engine"],
            first["device"],
            first["source_sha256"],
        )
        if made.id != cohort_id:
            report.problems.append(f"cohort {cohort_id[:16]}: its rows describe another cohort ({made.id[:16]})")
        return made

    def retrain(self, count: int, data: str | None, report: Report) -> None:
        """Train the cohorts of `count` models, evenly over the zoo, from their rows alone."""
        chosen = [self.rows[i * len(self.rows) // count] for i in range(min(count, len(self.rows)))]
        for cohort_id in dict.fromkeys(r["cohort_id"] for r in chosen):
            row = next(r for r in chosen if r["cohort_id"] == cohort_id)
            cohort = self.cohort(cohort_id, report)
            source = sources.load(cohort.runs[0].source, data)
            if source.sha256 != cohort.source_sha256:
                report.problems.append(
                    f"source {source.spec.id}: checksum {source.sha256[:16]}… is not that of the zoo"
                )
                continue
            parents = None
            if row["parent_id"] is not None:
                found = lineage.open_parents(self._parent_folder(row), f"cohort {cohort_id[:16]}")
                placed = [dataclasses.replace(r, start=found.placed(r.start)) for r in cohort.runs if r.start]
                cohort, parents = dataclasses.replace(cohort, runs=tuple(placed)), found.root
            self._compare(cohort, row, source, parents, report)

    def _parent_folder(self, row: dict[str, Any]) -> str:
        """Where the parent zoo lies: under the working directory, beside this zoo, or where the recipe said."""
        name = str(row["parent_zoo"])
        said = self.manifest["identity"]["document"]["init"]["zoo"]
        places = [Path(name), self.root.absolute().parent.parent / name, Path(said)]
        return str(next((p for p in places if ZooPaths(p).manifest.is_file()), name))

    def _compare(
        self, cohort: Cohort, row: dict[str, Any], source: sources.Source, parents: Path | None, report: Report
    ) -> None:
        snapshots, _, engine = worker.train(cohort, source, parents=parents)
        same = (engine["version"], engine["isa"]) == (row["engine_version"], row["isa"])
        stored = {(r.id, s["step"]): s for r in cohort.runs for s in self.snapshots[r.id]}
        trained = {(cohort.runs[s.model].id, s.step): s for s in snapshots}
        name = f"cohort {cohort.id[:16]}"
        if same:
            equal = sum(k in trained and trained[k].sha256 == s["weights_sha256"] for k, s in stored.items())
            if equal != len(stored) or len(trained) != len(stored):
                report.problems.append(
                    f"{name}: {len(stored) - equal} of {len(stored)} snapshots differ when retrained"
                )
            else:
                report.lines.append(f"{name}: {len(cohort.runs)} models, {equal} snapshots retrained, bit for bit")
            return
        early = [(k, s) for k, s in stored.items() if k[1] <= fingerprint.STEPS and k in trained]
        worst = max((float(np.abs(trained[k].weights - self.weights(s)).max()) for k, s in early), default=0.0)
        if worst > fingerprint.TOLERANCE:
            report.problems.append(f"{name}: within {fingerprint.STEPS} steps weights differ by {worst:.1e}")
        report.lines.append(
            f"{name}: trained by {row['engine']} ({row['engine_version']}, {row['isa']}), here {engine['version']}, "
            f"{engine['isa']}: bits cannot agree; {len(early)} snapshots of the first {fingerprint.STEPS} steps "
            f"differ by at most {worst:.1e}"
        )


def _without_weights(root: Path, manifest: dict[str, Any]) -> pa.Table:
    first = next(e["path"] for e in manifest["files"] if e["path"].startswith("data/models/"))
    names = [n for n in pq.read_schema(root / first).names if n != "weights"]
    return read_table(root, manifest, "models", names)


def rebuild(folder: Path, *, data: str | None = None, workers: int | None = None, out: str | None = None) -> Report:
    """Build the zoo of `folder/grid.yaml` and compare it with `folder/manifest.json`.

    Raises ZooNotFoundError where the folder is not a recipe and receipt, GridError, BuildError.
    """
    if not (folder / "grid.yaml").is_file() or not (folder / "manifest.json").is_file():
        raise ZooNotFoundError(
            f"{folder} has no grid.yaml and manifest.json; name a folder like manifests/weightzoo/digits-mlp."
        )
    receipt = read_manifest(folder)
    recipe = grid.load(folder / "grid.yaml")
    if recipe.digest != receipt["recipe_sha256"]:
        raise GridError(f"{folder}/grid.yaml is not the recipe of the manifest beside it.")
    used = {e["engine"] for e in receipt["engines"]}
    on = {text.split(" on ")[1] for text in receipt["identity"]["engines"]}
    engine, device = (used.pop() if len(used) == 1 else "auto"), (on.pop() if len(on) == 1 else "cpu")
    if engine == "native" and kernels.available():
        engine = "auto"  # the comparison below says that bits cannot agree
    scratch = Path(out) if out else Path(tempfile.mkdtemp(prefix="zoo-rebuild-"))
    try:
        planned = plan.plan(recipe, engine=engine, device=devices.check(device), data=data)
        paths = build(planned, scratch / recipe.zoo if not out else scratch, workers=workers)
        return _compare_receipts(json.loads(paths.manifest.read_bytes()), receipt)
    finally:
        if not out:
            shutil.rmtree(scratch, ignore_errors=True)


def _compare_receipts(ours: dict[str, Any], theirs: dict[str, Any]) -> Report:
    report = Report()
    if ours["engines"] == theirs["engines"]:
        for name, digest in theirs["digests"].items():
            if ours["digests"][name] != digest:
                report.problems.append(
                    f"content digest `{name}` is {ours['digests'][name][:16]}…, the receipt says {digest[:16]}…"
                )
        report.lines.append(
            f"compared: content digests ({', '.join(theirs['digests'])}), same engine, version and instruction set"
        )
        return report

    def names(manifest: dict[str, Any]) -> str:
        return "; ".join(f"{e['engine']}, {e['version']}, {e['isa']}" for e in manifest["engines"])

    report.lines.append(f"built here with {names(ours)}; the receipt is of {names(theirs)}: bits cannot agree")
    report.problems += fingerprint.differences(ours["fingerprints"], theirs["fingerprints"])
    report.lines.append(
        f"compared: initialization, examples and order of {len(theirs['fingerprints'])} models bitwise, "
        f"their first {fingerprint.STEPS} steps within {fingerprint.TOLERANCE:g}"
    )
    a, b = ours["population"], theirs["population"]
    error = float(np.hypot(a["standard_error"] or 0.0, b["standard_error"] or 0.0))
    distance = abs(a["test_accuracy"] - b["test_accuracy"])
    report.lines.append(
        f"compared: mean test accuracy {a['test_accuracy']:.4f} here, {b['test_accuracy']:.4f} there, ± {error:.4f}"
    )
    if distance > 3 * error:
        report.problems.append(
            f"mean test accuracies differ by {distance:.4f}, more than three standard errors ({error:.4f})"
        )
    return report
