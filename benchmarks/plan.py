"""The estimate of `plan` beside what builds take, in CPU seconds, and what the parts that it cannot measure take.

    python benchmarks/plan.py [--data DIR] [--workers 0]

Plans and builds, in a folder that is removed, `grids/digits.yaml`, the first 48 models of `grids/mnist.yaml`, 48
random architectures and 400 networks of `grids/doodl3/iris-nodes.yaml`, each in this process. Printed are the
prediction, the CPU seconds of the build and of its sealing, and those of the estimate itself. The machine may
be busy: all is CPU time. `--ray` measures the start of Ray and of a worker, by the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo_builder import estimate, executor, grid, plan
from zoo_builder.build import build
from zoo_builder.sealing import seal

HERE = Path(__file__).parent
GRIDS = HERE.parent / "grids"


def cases(folder: Path) -> dict[str, tuple[Path, list[str], int | None]]:
    """Grid, changes and limit of each case."""
    drawn = folder / "random.yaml"
    drawn.write_text(json.dumps({
        "zoo": "weightzoo/random", "source": {"id": "digits", "train": 1200, "validation": 297, "test": 300},
        "axes": {"architecture": [
            ["flatten", *(x for w in widths for x in ({"linear": w}, "activation")), {"linear": "classes"}]
            for widths in _widths()
        ]},
        "training": {"epochs": 10, "batch_size": 32}, "snapshots": "every_epoch",
    }))  # fmt: skip
    return {
        "digits": (GRIDS / "digits.yaml", [], None),
        "mnist, 48 models": (GRIDS / "mnist.yaml", [], 48),
        "random architectures": (drawn, [], None),
        "doodl3 iris-nodes": (GRIDS / "doodl3" / "iris-nodes.yaml", [], None),
    }


def _widths() -> list[list[int]]:
    draw, found = random.Random(0), []
    while len(found) < 48:
        widths = [draw.choice([4, 8, 16, 32, 64, 128]) for _ in range(draw.randint(1, 4))]
        if widths not in found:
            found.append(widths)
    return found


def measure(path: Path, changes: list[str], limit: int | None, data: str | None, folder: Path) -> dict[str, Any]:
    planned = plan.plan(grid.load(path, changes, limit), data=data)
    cpu, wall = time.process_time(), time.perf_counter()
    schedules = estimate._Schedules(planned.grid.snapshots)
    foretold = estimate._seconds(planned, schedules, 1, on_ray=False)
    took = time.process_time() - cpu
    wall = time.perf_counter() - wall
    sealed: list[float] = []
    whole = seal.seal

    def timed(*arguments: Any) -> None:
        started = time.process_time()
        whole(*arguments)
        sealed.append(time.process_time() - started)

    seal.seal = timed
    started = time.process_time()
    try:
        build(planned, folder, workers=0)
    finally:
        seal.seal = whole
    built = time.process_time() - started
    snapshots = sum(schedules.taken(c) for c in planned.cohorts)
    return {
        "models": len(planned.runs), "cohorts": len(planned.cohorts), "snapshots": snapshots,
        "foretold_s": foretold, "built_s": built, "factor": (foretold or 0) / built, "sealing_s": sealed[0],
        "estimate_cpu_s": took, "estimate_s": wall,
    }  # fmt: skip


def started_ray() -> dict[str, float]:
    """Seconds until Ray is up, and until a worker has answered."""
    begun = time.perf_counter()
    pool = executor.OnRay(_import, None, 1)
    up = time.perf_counter()
    pool.submit(1)
    while not pool.wait(1.0):
        pass
    answered = time.perf_counter()
    pool.close()
    return {"ray_s": up - begun, "worker_s": answered - up, "close_s": time.perf_counter() - answered}


def _import(item: int, shared: None) -> int:
    import zoo_builder.worker  # noqa: F401

    return item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of local copies of sources (default: $ZOO_DATA, else the Hub)")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "plan.json")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (path, changes, limit) in cases(folder).items():
            if options.only is None or name in options.only:
                found = measure(path, changes, limit, options.data, folder / name.replace(" ", "-"))
                results[name] = {k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}
                print(name, results[name], flush=True)
    if options.ray:
        results["ray"] = {k: round(v, 2) for k, v in started_ray().items()}
        print(results["ray"])
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
