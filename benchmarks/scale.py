"""Growth: CPU time and anonymous memory of every verb and method of a zoo, as it has more models.

    python benchmarks/scale.py [--sizes 2000 8000 32000] [--only check plan]

The zoos are of tiny networks on digits, five snapshots each. Planning, parts, commits and sealing are the
builder's own; the weights are drawn and the metrics one trained cohort's, since what training costs grows with
the updates, and step 0 is the initialization of its key, so that `check` and `verify` find nothing wrong. Each
operation has a process of its own, forked from one that imported everything. Printed are its CPU seconds, the
most anonymous memory beyond what there was before (RssAnon of /proc/self/status, every 5 ms), and between the
first and the last size the exponents of both: 1 is linear. Zoos are written under --folder and kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines import cpu_name
from sealing import Peak, anonymous_bytes

from zoo_builder import estimate, grid, plan, status, verify, worker
from zoo_builder.build import build
from zoo_builder.plan import Plan
from zoo_builder.sealing import parts
from zoo_builder.training.inputs import initial_weights
from zoo_builder.training.progress import Snapshot
from zoo_datasets import audit, cli, open_zoo, split_files, views
from zoo_datasets.format import check
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.hub import download, lookup, publish

HERE = Path(__file__).parent
MOST = 1.1  # exponent of what counts as linear
# What grows faster, and why that is right.
REASONS = {
    "audit": "compares all last weights with each other: pairs, in blocks of bounded memory",
}
SOME = 100  # models that a method of one model is called for, at each size
SMALL_S, SMALL_MB = 0.3, 20  # at the largest size: below, an exponent is of noise


def recipe(folder: Path, models: int) -> Path:
    """A grid of so many models: 8 points, the rest replicates."""
    path = folder / f"scale-{models}.yaml"
    path.write_text(json.dumps({
        "zoo": f"weightzoo/scale-{models}", "source": {"id": "digits", "train": 200, "validation": 100, "test": 80},
        "architecture": ["flatten", {"linear": 4}, "activation", {"linear": "classes"}],
        "axes": {"activation": ["tanh", "relu"], "lr": [1e-3, 3e-3], "subset": ["full", {"label_noise_frac": 0.2}]},
        "paired": ["subset"], "replicates": models // 8,
        "training": {"epochs": 4, "batch_size": 32}, "snapshots": "every_epoch",
    }))  # fmt: skip
    return path


def commit_all(planned: Plan, paths: ZooPaths) -> None:
    """The parts and commits that training would leave: drawn weights, metrics of one trained cohort."""
    cohort = planned.cohorts[0]
    trained, ended, engine = worker.train(cohort, planned.sources[cohort.runs[0].source])
    first = [s for s in trained if s.model == 0]
    draw = np.random.default_rng(0)
    for c in planned.cohorts:
        made = []
        for m, run in enumerate(c.runs):
            start = initial_weights(run, c.architecture)
            for s in first:
                moved = start + np.float32(1e-3 * s.step) * draw.standard_normal(len(start), np.float32)
                made.append(Snapshot(m, s.step, s.epoch, s.examples_seen, s.metrics, moved if s.step else start))
        results = [{**ended[0], "n_train": c.n_train} for _ in c.runs]
        parts.commit(paths, parts.write_part(paths, c.id, [r.id for r in c.runs], made, results, engine))


def operations(folder: Path, models: int) -> dict[str, Callable[[], Any]]:
    """Every verb and method, on the zoo of this size."""
    root, written = folder / f"scale-{models}", recipe(folder, models)

    def opened(call: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: call(open_zoo(root))

    def again() -> None:
        download.download(root, folder / f"copy-{models}")

    def all_batches(zoo: Any) -> None:
        for _ in zoo.loader(256, ["test_accuracy"]):
            pass

    def of_some(call: Callable[[Any, str], Any]) -> Callable[[], Any]:
        return opened(lambda zoo: [call(zoo, id) for id in zoo.models["model_id"].to_pylist()[:: models // SOME]])

    return {
        # verbs
        "plan": lambda: list(estimate.describe(plan.plan(grid.load(written)), 2)),
        "status": lambda: status.describe(ZooPaths(root)),
        "check": lambda: check.check(root),
        "verify": lambda: verify.verify(root),
        "show": opened(lambda zoo: list(cli.describe(zoo.location))),
        "list": lambda: list(cli._rows_under(root)),
        "download": again,
        "publish: card and pictures": lambda: publish.dress(lookup.locate(root), "a/b"),
        "audit": opened(lambda zoo: audit.audit(None, zoo)),
        # methods of a zoo
        "open_zoo": lambda: open_zoo(root),
        "models": opened(lambda zoo: zoo.models),
        "snapshots": opened(lambda zoo: zoo.snapshots),
        "weights": opened(lambda zoo: np.asarray(zoo.weights[:])),
        "table": opened(lambda zoo: zoo.table()),
        "select": opened(lambda zoo: zoo.select(activation="relu", split="train")),
        "final": opened(lambda zoo: zoo.final().weights[:]),
        "row of 100 models": of_some(lambda zoo, id: zoo.row(id)),
        "vector of 100 models": of_some(lambda zoo, id: zoo.vector(id)),
        "state_dict of 100 models": of_some(lambda zoo, id: zoo.state_dict(id)),
        "load_model of 100 models": of_some(lambda zoo, id: zoo.load_model(id)),
        "training_examples of 100 models": of_some(lambda zoo, id: zoo.training_examples(id)),
        "evaluate": opened(lambda zoo: zoo.evaluate()),
        "evaluate on train": opened(lambda zoo: zoo.evaluate(part="train")),
        "pairs": opened(lambda zoo: zoo.pairs("subset")),
        "effect": opened(lambda zoo: zoo.effect("subset")),
        "generalization_gap": opened(lambda zoo: zoo.generalization_gap()),
        "loader": opened(all_batches),
        "dataset": opened(lambda zoo: every_tenth(zoo.dataset(["test_accuracy"]))),
        "to_hf": opened(lambda zoo: zoo.to_hf()),
        "views.statistics": opened(lambda zoo: views.statistics(zoo.weights[:], one_layout(zoo))),
        "views.trajectories": opened(lambda zoo: views.trajectories(zoo.weights, zoo.snapshots)),
        "split_files.by_group": opened(lambda zoo: split_files.by_group(zoo)),
    }  # fmt: skip


def every_tenth(rows: Any) -> list[Any]:
    return [rows[i] for i in range(0, len(rows), 10)]


def one_layout(zoo: Any) -> Any:
    return next(iter(zoo.manifest.layouts.values()))


def measured(call: Callable[[], Any]) -> dict[str, float]:
    """CPU seconds and extra anonymous megabytes of a call, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        with os.fdopen(write, "w") as out, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            before, cpu = anonymous_bytes(), time.process_time()
            try:
                with Peak() as peak:
                    call()
                found = {"cpu_s": time.process_time() - cpu, "mb": (peak.bytes - before) / 1e6}
            except Exception as error:  # said in the table; the others are measured
                found = {"error": f"{type(error).__name__}: {error}"}  # type: ignore[dict-item]
            json.dump(found, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text or '{"error": "killed"}')  # type: ignore[no-any-return]


def exponent(values: list[float], sizes: list[int], small: float) -> float | None:
    """Of growth from the first to the last size; None where the last is too small to tell."""
    if len(sizes) < 2 or values[-1] < small or values[0] <= 0:
        return None
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000, 32000], help="multiples of 8")
    parser.add_argument("--only", nargs="+", metavar="WHAT", help="only these operations")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "weightzoo-scale")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "scale.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {}
    speeds = []
    for models in options.sizes:
        root = options.folder / f"scale-{models}"
        planned = plan.plan(grid.load(recipe(options.folder, models)))
        if not (root / "manifest.json").is_file():
            commit_all(planned, ZooPaths(root))
            # The pipeline itself takes up the commits: all there is to do is sealing.
            found.setdefault("build: seal", []).append(
                measured(lambda root=root, planned=planned: build(planned, root, workers=0))
            )
        for name, call in operations(options.folder, models).items():
            if options.only is None or name in options.only:
                found.setdefault(name, []).append(measured(call))
                print(models, name, found[name][-1], flush=True)
        size = Manifest.read(root).files.size()
        if "check" in found and "cpu_s" in found["check"][-1]:
            speeds.append(size / 1e6 / found["check"][-1]["cpu_s"])
    rows = {name: row(values, options.sizes) for name, values in found.items()}
    for name, one in rows.items():
        print(f"{name:34}", "  ".join(f"{k} {v}" for k, v in one.items()))
    print("check, MB of the zoo per CPU second:", ", ".join(f"{s:.0f}" for s in speeds))
    result = {"sizes": options.sizes, "operations": rows, "check_mb_per_cpu_s": speeds, "cpu": cpu_name()}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")


def row(values: list[dict[str, Any]], sizes: list[int]) -> dict[str, Any]:
    """What is printed and kept of an operation."""
    if errors := [v["error"] for v in values if "error" in v]:
        return {"error": errors[0]}
    kept: dict[str, Any] = {
        "cpu_s": [round(v["cpu_s"], 3) for v in values],
        "mb": [round(v["mb"], 1) for v in values],
        "cpu_exponent": exponent([v["cpu_s"] for v in values], sizes, SMALL_S),
        "mb_exponent": exponent([v["mb"] for v in values], sizes, SMALL_MB),
    }
    kept |= {k: round(v, 2) for k, v in kept.items() if isinstance(v, float)}
    return kept


if __name__ == "__main__":
    main()
