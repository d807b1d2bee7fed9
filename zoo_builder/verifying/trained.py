"""Cohorts of a sealed zoo, trained again ↔ their rows: every column that training gives.

In:  a `Sealed` zoo, cohorts made anew from its recipe, how many models to look at.
Out: problems, and a line a cohort. The same bits are asked for first. Where another engine, version or
instruction set trained, or a torch engine whose libraries took another path than anything here can tell,
bits may differ: then weights are compared within what `fingerprint.apart` allows while rounding is small,
metrics by measuring the stored weights again, and later weights only for being that model's at all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_builder import engines, worker
from zoo_builder.engines import devices
from zoo_builder.planning import cohorts, lineage
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import StartState
from zoo_builder.planning.runs import watched
from zoo_builder.sealing import rows, seal
from zoo_builder.training import evaluation, fingerprint
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.progress import Snapshot
from zoo_builder.verifying.planned import parent_folder
from zoo_builder.verifying.sealed import Row, Sealed
from zoo_datasets import sources
from zoo_datasets.core import meters, records
from zoo_datasets.core.report import MOST_LISTED, Report
from zoo_datasets.errors import ZooError
from zoo_datasets.format import contents, schema
from zoo_datasets.networks import kernels
from zoo_datasets.sources import Source
from zoo_datasets.sources.augmentation import augmentation_of

MORE = ("optimizer_sha256", *(c.name for c in schema.ATTACK))  # of zoos whose recipe asks for them
SNAPSHOT_COLUMNS = ("step", "epoch", "examples_seen", *(c.name for c in schema.METRICS), "weights_sha256")
ENDED = ("stop_reason", "diverged_step", "n_snapshots", "n_train")
# ‖a − b‖ / √(‖a‖² + ‖b‖²): trainings of one start on one data set stay below .4, other models' lie near 1.
SAME_MODEL = 0.9
# Metrics of equal weights by other engines: logits differ in their last bits, and few images lie on an edge.
LOSS_TOLERANCE = 1e-4  # relative, of losses of 1 and more
CORRECT_TOLERANCE = 1 / 200  # of the images, and one


def retrain(zoo: Sealed, made: Sequence[Cohort], count: int, data: str | None, report: Report) -> None:
    """Train the cohorts of `count` models, evenly over the zoo. Raises ZooNotFoundError, GridError."""
    owner = {run.id: cohort for cohort in made for run in cohort.runs}
    count = min(count, len(zoo.rows))
    chosen = [zoo.rows[i * len(zoo.rows) // count]["model_id"] for i in range(count)]
    picked = {owner[id].id: owner[id] for id in chosen}
    fingerprints = {f.model_id: f for f in zoo.manifest.fingerprints}
    seen: set[str] = set()
    for cohort in _watched(list(picked.values())):
        source = sources.load(cohort.runs[0].source, data)
        report.extend([] if source.spec.id in seen else list(_source(zoo, cohort, source)))
        seen.add(source.spec.id)
        if source.sha256 != cohort.source_sha256:
            continue
        parents = None
        if cohort.runs[0].start is not None:
            found = lineage.open_parents(parent_folder(zoo), f"cohort {cohort.id[:16]}")
            placed = [dataclasses.replace(r, start=found.placed(r.start)) for r in cohort.runs if r.start]
            cohort, parents = dataclasses.replace(cohort, runs=tuple(placed)), found.root
        exact = _Comparison(zoo, cohort, source, parents).compare(report)
        if kept := fingerprints.get(cohort.runs[0].id):
            ours, theirs = fingerprint.one(_runnable(cohort), source, parents), records.encode(kept)
            settings = {cohort.runs[0].id: cohort.runs[0].settings}
            problems = fingerprint.differences([ours], [theirs], settings.__getitem__)
            if exact and ours != theirs and not problems:
                problems = [f"model {kept.model_id}: its fingerprint is not that of its weights"]
            report.extend(problems)
    looked = sum(len(c.runs) for c in picked.values())
    if looked < len(zoo.rows):
        report.lines.append(
            f"not compared: what training gives of the {len(zoo.rows) - looked:,} other models; `--retrain "
            f"{len(zoo.rows)}` trains all"
        )


def _watched(picked: Sequence[Cohort]) -> Iterator[Cohort]:
    """The cohorts, counted by their steps while each is trained."""
    with meters.track("training again", sum(sum(c.steps) for c in picked), "steps") as meter:
        for number, cohort in enumerate(picked):
            before, meter.note = meter.done, f"{number} of {len(picked)} cohorts"

            def taken(amount: float, before: float = before) -> None:
                meter.done = before + amount

            with meters.listening(taken):
                yield cohort
            meter.done = before + sum(cohort.steps)


def _source(zoo: Sealed, cohort: Cohort, source: Source) -> Iterator[str]:
    """A source as it is here, against what the manifest says of it."""
    record = zoo.source_of(cohort.runs[0])
    if record is None:
        return
    if record.sha256 != source.sha256:
        yield f"source {source.spec.id}: checksum {source.sha256[:16]}… is not that of the zoo, {record.sha256[:16]}…"
        return
    here, there = seal.source_record(source), records.encode(record)
    for name, value in here.items():
        if there[name] != value:
            yield f"source {source.spec.id}: `{name}` of the manifest is {there[name]!r}, and {value!r} here"


def _runnable(cohort: Cohort) -> Cohort:
    """The cohort as this machine can train it: by another engine or on the CPU, where the zoo's is not here."""
    engine, device = cohort.engine, cohort.device
    try:
        device = devices.check(device)
    except ZooError:
        device = "cpu"
    if engine == "native" and kernels.missing() and not devices.torch_missing():
        engine = "torch_batched"
    elif engine != "native" and devices.torch_missing() and not kernels.impossible(
        cohort.architecture, str(cohort.runs[0].settings["loss"]), 0
    ):  # fmt: skip
        engine = "native"
    return dataclasses.replace(cohort, engine=engine, device=device)


class _Comparison:
    """One cohort: its stored rows, and what training gives here."""

    def __init__(self, zoo: Sealed, cohort: Cohort, source: Source, parents: Path | None) -> None:
        self.zoo, self.cohort, self.source, self.parents = zoo, cohort, source, parents
        self.here = _runnable(cohort)
        self.name = f"cohort {cohort.id[:16]}"
        self.stored = zoo.snapshots_of([r.id for r in cohort.runs])
        self.settings = {r.id: r.settings for r in cohort.runs}

    def compare(self, report: Report) -> bool:
        """Whether all came out the same, bit for bit. Raises GridError where nothing here can train the cohort."""
        cohort, run = self.cohort, self.cohort.runs[0]
        n, architecture = cohorts.n_train(run, self.source), cohorts.architecture(run, self.source)
        if (n, architecture.id) != (cohort.n_train, cohort.architecture.id):
            report.problems.append(
                f"{self.name}: its models have {n:,} training images and architecture {architecture.id} on their source, "
                f"not {cohort.n_train:,} and {cohort.architecture.id}"
            )
            return False
        loss, augmentation = run.settings["loss"], augmentation_of(run.settings, self.source)
        devices.check_supported(self.here.engine, architecture, loss, augmentation, self.here.device)
        snapshots, results, engine = worker.train(self.here, self.source, parents=self.parents)
        row = self.zoo.by_id[run.id]
        same = (engine["name"], engine["version"], engine["isa"]) == (row["engine"], row["engine_version"], row["isa"])
        strict = list(self._strict(snapshots, results))
        total = sum(map(len, self.stored.values()))
        if not strict:
            report.lines.append(
                f"{self.name}: {len(cohort.runs)} models, {total} snapshots retrained, bit for bit, with every metric"
                + ("" if same else f" (there {_named(row)}, here {_named(engine)})")
            )
            return True
        if same and engine["name"] == "native":
            report.extend([f"{self.name}: {text}" for text in strict])
            return False
        loose = list(self._loose(snapshots))
        if loose:
            report.extend([f"{self.name}: {text}" for text in loose])
            why = (
                "columns say that bits agree, and they do not"
                if same
                else f"there {_named(row)}, here {_named(engine)}"
            )
            report.lines.append(f"{self.name}: compared within rounding ({why})")
            return False
        early, later = self._counts()
        report.lines.append(
            f"{self.name}: {len(cohort.runs)} models equal within rounding, as other engines, libraries or instruction sets "
            f"give (there {_named(row)}; here {_named(engine)}): {early} snapshots of the first {fingerprint.STEPS} steps within "
            f"{fingerprint.allowed(run.settings)}, the metrics of all {total} measured again from their weights"
        )
        if later:
            report.lines.append(
                f"not compared: weights of {later} later snapshots of {self.name}, in which rounding grows, but for being "
                "those of their models"
            )
        if any(watched(r) for r in cohort.runs):
            report.lines.append(f"not compared: `stop_reason` of {self.name}, whose rules look at rounded losses")
        return False

    # ── the same bits ──

    def _strict(self, snapshots: Sequence[Snapshot], results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Every column, model by model: the first difference of each."""
        trained: dict[str, list[dict[str, Any]]] = {r.id: [] for r in self.cohort.runs}
        for s in snapshots:
            trained[self.cohort.runs[s.model].id].append(rows.of_snapshot(self.cohort.runs[s.model].id, s))
        for run, result in zip(self.cohort.runs, results, strict=True):
            ours, theirs, row = trained[run.id], self.stored[run.id], self.zoo.by_id[run.id]
            ended = {**result, "n_snapshots": len(ours), "n_train": self.cohort.n_train}
            published = {k: ours[-1][k] for k in contents.PUBLISHED_COLUMNS if k in ours[-1]}
            if text := _difference(row, ended | published, (*ENDED, *published)):
                yield f"model {run.id}: {text}"
                continue
            for mine, other in zip(ours, theirs, strict=False):
                columns = (*SNAPSHOT_COLUMNS, *(n for n in MORE if n in other))
                if text := _difference(other, mine, columns):
                    yield f"model {run.id}, step {other['step']}: {text}"
                    break

    # ── the same but for rounding ──

    def _early(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((id, s) for id, of in self.stored.items() for s in of if s["step"] <= fingerprint.STEPS)

    def _counts(self) -> tuple[int, int]:
        early = sum(1 for _ in self._early())
        return early, sum(map(len, self.stored.values())) - early

    def _loose(self, snapshots: Sequence[Snapshot]) -> Iterator[str]:
        trained = {(self.cohort.runs[s.model].id, s.step): s for s in snapshots}
        for id, s in self._early():
            if (id, s["step"]) in trained:
                ours = trained[id, s["step"]].weights
                if text := fingerprint.apart(self.settings[id], ours, self.zoo.weights(s)):
                    yield f"model {id}: weights after {s['step']} steps {text}"
        for id, of in self.stored.items():
            for s in of:
                if (id, s["step"]) in trained and (
                    far := _far(trained[id, s["step"]].weights, self.zoo.weights(s))
                ) > SAME_MODEL:
                    yield f"model {id}: weights after {s['step']} steps are of another model (distance {far:.2f} of 1)"
                    break
        for run in self.cohort.runs:
            if (
                not watched(run)
                and run.snapshots.target_loss is None
                and (wanted := {k[1] for k in trained if k[0] == run.id}) != {s["step"] for s in self.stored[run.id]}
            ):
                yield f"model {run.id}: snapshots are at other steps than {sorted(wanted)[:8]}"
        yield from self._measured()

    def _measured(self) -> Iterator[str]:
        """Stored weights, evaluated here, against their stored metrics."""
        cohort, data = self.here, data_of(self.cohort, self.source)
        first = np.stack([self.zoo.weights(of[0]) for of in self.stored.values()])
        job = job_of(cohort, self.source, data, StartState(first, np.zeros_like(first), np.zeros_like(first)))
        backend = engines.open_backend(cohort.engine, job, cohort.device)
        for number in range(max(map(len, self.stored.values()))):
            shown = [of[min(number, len(of) - 1)] for of in self.stored.values()]
            weights = np.stack([self.zoo.weights(s) for s in shown])  # (M, P)
            backend.load_state({"weights": weights, "slot1": np.zeros_like(weights), "slot2": np.zeros_like(weights)})
            have = [m for m, of in enumerate(self.stored.values()) if number < len(of)]
            thin = [m for m, of in enumerate(self.stored.values()) if number < len(of) - 1]
            steps = {m: shown[m]["step"] for m in have}
            for m, found in evaluation.metrics(cohort, data, backend, steps, thin).items():
                if text := _other_metrics(shown[m], found):
                    yield f"model {cohort.runs[m].id}, step {shown[m]['step']}: {text}, measured on its weights"


def _difference(stored: Mapping[str, Any], ours: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    names = [n for n in columns if stored[n] != ours.get(n)]
    if not names:
        return None
    name = names[0]
    text = f"`{name}` is {_short(stored[name])}, retrained {_short(ours.get(name))}"
    return text + (f"; so are {', '.join(names[1:MOST_LISTED])}" if len(names) > 1 else "")


def _short(value: Any) -> str:
    return f"{value[:16]}…" if isinstance(value, str) and len(value) > 20 else repr(value)


def _other_metrics(stored: Row, found: Mapping[str, Any]) -> str | None:
    for part in ("train", "validation", "test"):
        n = sum(found[f"{part}_count_per_class"])
        if stored[f"{part}_count_per_class"] != found[f"{part}_count_per_class"]:
            return f"`{part}_count_per_class` is {stored[f'{part}_count_per_class']}, and {found[f'{part}_count_per_class']}"
        pairs = zip(stored[f"{part}_correct_per_class"], found[f"{part}_correct_per_class"], strict=True)
        if sum(abs(a - b) for a, b in pairs) > 1 + CORRECT_TOLERANCE * n:
            return f"`{part}_accuracy` is {stored[f'{part}_accuracy']}, and {found[f'{part}_accuracy']}"
    n_train = sum(found["train_count_per_class"])
    for name in ("train_loss", "validation_loss", "test_loss", "train_loss_clean"):
        a, b = stored[name], found[name]
        if (a is None) != (b is None) or (a is not None and abs(a - b) > LOSS_TOLERANCE * max(1.0, abs(b))):
            return f"`{name}` is {a}, and {b}"
    n_test = sum(found["test_count_per_class"])
    for name, n in (("train_accuracy_clean", n_train), ("attack_success", n_test), ("attack_base", n_test)):
        a, b = stored.get(name), found.get(name)
        if (a is None) != (b is None) or (a is not None and abs(a - b) > 2 / max(n, 1) + 2 * CORRECT_TOLERANCE):
            return f"`{name}` is {a}, and {b}"
    for name in ("attack_per_class", "attack_base_per_class"):
        if stored.get(name) is not None and found.get(name) is not None:
            apart = sum(abs(a - b) for a, b in zip(stored[name], found[name], strict=True))
            if apart > 1 + CORRECT_TOLERANCE * n_test:
                return f"`{name}` is {stored[name]}, and {found[name]}"
    return None


def _far(a: np.ndarray, b: np.ndarray) -> float:
    norm = math.sqrt(float((a.astype(float) ** 2).sum() + (b.astype(float) ** 2).sum()))
    return float(np.linalg.norm(a.astype(float) - b)) / norm if norm else 0.0


def _named(engine: Mapping[str, Any]) -> str:
    """An engine, from a row or as `worker.train` names it."""
    name, version = engine.get("name") or engine["engine"], engine.get("version") or engine["engine_version"]
    return f"{name} ({version}, {engine['isa']})"
