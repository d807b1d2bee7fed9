"""A zoo → is it what it says? First its bytes (`zoo_datasets.format.check`), then by training again.

* `verify`: the check, and every step 0 against the initialization recomputed from its key.
* `retrain`: the cohorts of some models, trained from their rows alone, bit for bit.
* `rebuild`: a whole zoo from the recipe of a manifest, compared with its receipt.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

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
from zoo_datasets.errors import GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.format import check, shards
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.format.tables import read_table
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture


def verify(root: Path, *, retrain: int = 0, data: str | None = None) -> Report:
    """Check a zoo; with `retrain` also train the cohorts of so many models again.

    Raises ZooNotFoundError, IntegrityError, FormatVersionError, GridError.
    """
    report = check.check(root)
    if report.problems:
        return report
    sealed = _Runs(root, Manifest.read(root))
    sealed.initializations(report)
    if retrain:
        sealed.retrain(retrain, data, report)
    return report


class _Runs:
    """The rows of a sealed zoo, and the runs they describe. Raises IntegrityError where they describe none."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest
        self.rows = read_table(root, manifest, "models").to_pylist()
        self.runs = {r["model_id"]: self._run(r) for r in self.rows}
        self.snapshots: dict[str, list[dict[str, Any]]] = {}
        columns = ["model_id", "step", "shard", "tensor", "row", "weights_sha256", "test_accuracy"]
        for s in read_table(root, manifest, "snapshots", columns).to_pylist():
            self.snapshots.setdefault(s["model_id"], []).append(s)

    def _run(self, row: dict[str, Any]) -> runs.Run:
        try:
            return runs.from_row(row, self.manifest.layer_lists, list(self.manifest.axes))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"The row of model {row['model_id']} in {self.root} describes no run: {error!r}. The zoo is damaged, or "
                "was not built from a recipe; `python -m zoo_datasets check` compares its bytes."
            ) from None

    def architecture(self, row: dict[str, Any]) -> Architecture:
        return self.manifest.architecture(row["architecture_id"], f"model {row['model_id']}").built()

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
        places = [Path(name), self.root.absolute().parent.parent / name, Path(self.manifest.parent_folder or name)]
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


def rebuild(folder: Path, *, data: str | None = None, workers: int | None = None, out: str | None = None) -> Report:
    """Build the zoo of `folder/grid.yaml` and compare it with `folder/manifest.json`.

    Raises ZooNotFoundError where the folder is not a recipe and receipt, GridError, BuildError.
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
        engine = "auto"  # the comparison below says that bits cannot agree
    scratch = Path(out) if out else Path(tempfile.mkdtemp(prefix="zoo-rebuild-"))
    try:
        planned = plan.plan(recipe, engine=engine, device=devices.check(device), data=data)
        paths = build(planned, scratch / recipe.zoo if not out else scratch, workers=workers)
        return _compare_receipts(Manifest.read(paths.root), receipt)
    finally:
        if not out:
            shutil.rmtree(scratch, ignore_errors=True)


def _compare_receipts(ours: Manifest, theirs: Manifest) -> Report:
    report = Report()
    if ours.engines == theirs.engines:
        for name, digest in ours.digests.items():
            if theirs.digest(name) != digest:
                report.problems.append(
                    f"content digest `{name}` is {digest[:16]}…, the receipt says {theirs.digest(name)[:16]}…"
                )
        report.lines.append(
            f"compared: content digests ({', '.join(ours.digests)}), same engine, version and instruction set"
        )
        return report

    def names(manifest: Manifest) -> str:
        return "; ".join(f"{e.engine}, {e.version}, {e.isa}" for e in manifest.engines)

    report.lines.append(f"built here with {names(ours)}; the receipt is of {names(theirs)}: bits cannot agree")
    report.problems += fingerprint.differences(
        [dataclasses.asdict(f) for f in ours.fingerprints], [dataclasses.asdict(f) for f in theirs.fingerprints]
    )
    report.lines.append(
        f"compared: initialization, examples and order of {len(theirs.fingerprints)} models bitwise, "
        f"their first {fingerprint.STEPS} steps within {fingerprint.TOLERANCE:g}"
    )
    a, b = ours.population, theirs.population
    if a is None or b is None:
        raise IntegrityError("The receipt has no `population`: its mean test accuracy cannot be compared.")
    error = float(np.hypot(a.standard_error or 0.0, b.standard_error or 0.0))
    distance = abs(a.test_accuracy - b.test_accuracy)
    report.lines.append(
        f"compared: mean test accuracy {a.test_accuracy:.4f} here, {b.test_accuracy:.4f} there, ± {error:.4f}"
    )
    if distance > 3 * error:
        report.problems.append(
            f"mean test accuracies differ by {distance:.4f}, more than three standard errors ({error:.4f})"
        )
    return report
