"""Sealing alone: seconds and peak anonymous memory for so many snapshots of 650 values.

    python benchmarks/sealing.py 51000 204000 2000000

Each size has a process of its own. It plans a seed-only zoo on digits, writes the committed
parts that training would leave, with drawn numbers, and seals them. Reported are the seconds
of `seal.seal`, by the clock and of CPU, and RssAnon of /proc/self/status: before it, and its
highest value while it runs, every 5 ms; mapped files are not in it. Everything is written
under --folder and removed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo_builder import grid, plan
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.sealing import parts, seal
from zoo_builder.training.progress import Snapshot
from zoo_datasets.format import schema
from zoo_datasets.format.paths import ZooPaths

PER_MODEL = 51  # snapshots, one per epoch
VALUES = 650  # of a linear network on digits
POOL = 1000  # different rows of counts: drawing them anew takes longer than what is measured


def anonymous_bytes() -> int:
    """What this process holds that is no mapped file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("This kernel tells no RssAnon.")


class Peak:
    """The most anonymous memory while the block runs."""

    def __enter__(self) -> Peak:
        self.bytes, self.over = anonymous_bytes(), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.005):
            self.bytes = max(self.bytes, anonymous_bytes())

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()


def scores(draw: np.random.Generator) -> dict[str, Any]:
    """Metrics of a row but its losses."""
    metrics: dict[str, Any] = {c.name: None for c in schema.METRICS}
    for section, n in (("train", 20), ("validation", 10), ("test", 8)):
        right = draw.integers(0, n, 10).tolist()
        metrics[f"{section}_correct_per_class"], metrics[f"{section}_count_per_class"] = right, [n] * 10
        metrics[f"{section}_accuracy"] = sum(right) / (10 * n)
    return metrics


def snapshots(
    cohort: Cohort, per_model: int, draw: np.random.Generator, pool: list[dict[str, Any]]
) -> Iterator[Snapshot]:
    """What training would give: drawn weights, losses and, out of a pool, counts of right answers."""
    names = [f"{section}_loss" for section in ("train", "validation", "test")]
    for model in range(len(cohort.runs)):
        weights = draw.standard_normal((per_model, VALUES), np.float32)
        losses = draw.random((per_model, len(names))).tolist()
        for step, i in enumerate(draw.integers(0, len(pool), per_model)):
            metrics = {**pool[i], **dict(zip(names, losses[step], strict=True))}
            yield Snapshot(model, 7 * step, float(step), 200 * step, metrics, weights[step])


def measure(rows: int, per_model: int, folder: Path) -> dict[str, Any]:
    """Plan, parts and commits of so many snapshots; then sealing, watched."""
    recipe = folder / "sealing.yaml"
    recipe.write_text(
        json.dumps({
            "zoo": "weightzoo/sealing", "source": {"id": "digits", "train": 200, "validation": 100, "test": 80},
            "architecture": ["flatten", {"linear": "classes"}], "replicates": rows // per_model,
            "training": {"epochs": per_model - 1, "batch_size": 32}, "snapshots": {"every_epoch": True},
        })
    )  # fmt: skip
    planned = plan.plan(grid.load(recipe))
    paths, draw, records = ZooPaths(folder / "zoo"), np.random.default_rng(0), {}
    pool = [scores(draw) for _ in range(POOL)]
    for cohort in planned.cohorts:
        results = [{"stop_reason": "epochs", "diverged_step": None, "n_train": 200} for _ in cohort.runs]
        made = list(snapshots(cohort, per_model, draw, pool))
        engine = {"name": cohort.engine, "version": "drawn", "isa": "none"}
        record = parts.write_part(paths, cohort.id, [r.id for r in cohort.runs], made, results, engine)
        parts.commit(paths, record)
        records[cohort.id] = record
    before, started, cpu = anonymous_bytes(), time.perf_counter(), time.process_time()
    with Peak() as peak:
        seal.seal(paths, planned, records)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    digests = json.loads(paths.manifest.read_bytes())["digests"]
    return {
        "snapshots": rows // per_model * per_model, "models": rows // per_model,
        "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2),
        "before_mb": round(before / 1e6), "peak_mb": round(peak.bytes / 1e6), "digests": digests,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and peak anonymous memory of sealing.")
    parser.add_argument("rows", nargs="+", type=int, help="numbers of snapshots")
    parser.add_argument("--per-model", type=int, default=PER_MODEL)
    parser.add_argument("--folder", help="a disk with room for twice the weights (default: the temporary folder)")
    parser.add_argument("--here", action="store_true", help="measure in this very process")
    options = parser.parse_args()
    for rows in options.rows:
        if options.here:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                print(json.dumps(measure(rows, options.per_model, Path(folder))), flush=True)
        else:
            folder = ["--folder", options.folder] if options.folder else []
            own = [sys.executable, __file__, "--here", "--per-model", str(options.per_model), *folder, str(rows)]
            subprocess.run(own, check=True)


if __name__ == "__main__":
    main()
