"""What a cohort costs beside training, and what augmentation costs of a step: networks of grids/nws on MNIST.

    python benchmarks/cohort_price.py --out benchmarks/results/cohort_price.json

CPU seconds of this process on one core, so that other work on the machine counts little. Cohorts of --sizes
networks of the fixed architecture are trained for --epochs epochs, written, committed and sealed, round after round, one
size after another; stages are timed where the worker passes them. The fixed price is that of a cohort of one: start (its
images, its engine, initial weights), part and commit, and its share of sealing. It does not grow with epochs, so beside
its share here stands that of a network of --usual epochs. Steps with augmentation and without are taken in turn, of each engine
on this CPU, and the ratio is the median of rounds; ranges are of the middle half of them. `docs/nws.md` says what was found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines import cpu_name

from zoo_builder import engines, grid, plan
from zoo_builder.engines import devices
from zoo_builder.planning import cohorts
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.sealing import parts, seal
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.sources import Source

GRID = Path(__file__).resolve().parents[1] / "grids" / "nws" / "fixed.yaml"
SIZES = (1, 2, 4, 8, 16)  # the first is what the others are compared with
STEPS = 4  # of a window that is timed with augmentation and without
COMMON = (
    "sample.axes.source=[ylecun/mnist]", "source.train=2000", "sample.axes.batch_size=[64]", "cohort_size=16",
    "sample.axes.activation=[relu]", "splits={train: 1}",
)  # fmt: skip
NONE = "sample.axes.augmentation=[none]"


class Clock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started


def planned(models: int, *changes: str) -> plan.Plan:
    return plan.plan(grid.load(GRID, [*COMMON, *changes], models))


def built(made: plan.Plan, size: int, folder: Path) -> dict[str, float]:
    """Seconds of the stages of one cohort of so many networks, trained, committed and sealed."""
    clock, paths = Clock(), ZooPaths(folder)
    whole, source = made.cohorts[0], next(iter(made.sources.values()))
    cohort = cohorts.make(
        whole.runs[:size], whole.architecture, whole.n_train, whole.engine, whole.device, whole.source_sha256
    )
    trained = plan.Plan(made.grid, list(cohort.runs), [cohort], made.sources)
    with clock.stage("start"):
        data = data_of(cohort, source)
        backend = engines.open_backend(cohort.engine, job_of(cohort, source, data), cohort.device)
        trainer = Trainer(cohort, source, data, backend)
    with clock.stage("training"):
        snapshots, results = trainer.run()
    engine = {"name": backend.name, "version": backend.version, "isa": devices.isa(backend.name, cohort.device)}
    with clock.stage("part and commit"):
        extra = [{**result, "n_train": cohort.n_train} for result in results]
        record = parts.write_part(paths, cohort.id, [r.id for r in cohort.runs], snapshots, extra, engine)
        parts.commit(paths, record)
    with clock.stage("sealing"):
        seal.seal(paths, trained, {cohort.id: record})
    return clock.seconds


def windows(cohort: Cohort, source: Source) -> Any:
    data = data_of(cohort, source)
    backend = engines.open_backend(cohort.engine, job_of(cohort, source, data), cohort.device)
    trainer = Trainer(cohort, source, data, backend)
    active = np.ones(len(cohort.runs), bool)

    def seconds() -> float:
        started = time.process_time()
        trainer._losses(0, STEPS, active)
        return time.process_time() - started

    trainer._load_start()
    seconds()
    return seconds


def augmentation(engine: str, rounds: int) -> dict[str, Any]:
    """A step with all nine augmentations over one without, in turn; each on one network."""
    takes = []
    for change in (NONE, f"sample.axes.augmentation={json.dumps([_published()])}"):
        made = plan.plan(grid.load(GRID, [*COMMON, change], 1), engine=engine)
        takes.append(windows(made.cohorts[0], next(iter(made.sources.values()))))
    ratios = [with_all / without for without, with_all in ([take() for take in takes] for _ in range(rounds))]
    return {"engine": engine, "ratio": spread(ratios), "rounds": rounds}


def _published() -> Any:
    axis = next(d for d in grid.load(GRID).draws if d.name == "augmentation")
    level = axis.levels[1].values
    return {k.removeprefix("augment_"): list(v) if isinstance(v, tuple) else v for k, v in level.items() if v}


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(middle, 4), "from": round(low, 4), "to": round(high, 4)}


def measure(sizes: list[int], rounds: int, epochs: int, usual: int) -> dict[str, Any]:
    made = planned(16, NONE, f"training={{epochs: {epochs}, momentum: 0.95, alpha: 0.9, balance_classes: true}}",
                   "snapshots={evenly: 20, evaluation: {train: 500, validation: 500, test: 500}}")  # fmt: skip
    assert len(made.cohorts) == 1
    took: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                took[size].append(built(made, size, Path(folder) / "zoo"))
    rates = {size: [t["training"] / size for t in of] for size, of in took.items()}
    fixed = [{k: v for k, v in t.items() if k != "training"} for t in took[1]]
    shares = [sum(f.values()) / t["training"] for f, t in zip(fixed, took[1], strict=True)]
    return {
        "networks": "grids/nws/fixed.yaml on MNIST, 2,000 images, batches of 64, ReLU, no augmentation",
        "machine": cpu_name(), "rounds": rounds, "epochs": epochs,
        "fixed_seconds": {k: spread([f[k] for f in fixed]) for k in fixed[0]},
        "share_of_training": spread(shares),
        "usual_epochs": usual, "share_of_usual_training": spread([s * epochs / usual for s in shares]),
        "training_seconds_per_network": {size: spread(of) for size, of in rates.items()},
        "rate_against_one": {size: spread([a / b for a, b in zip(rates[1], of, strict=True)]) for size, of in rates.items()},
        "augmentation": [augmentation(engine, 4 * rounds) for engine in engines.ENGINES],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="of each network here")
    parser.add_argument("--usual", type=int, default=60, help="of a network that ends by its own rules")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = json.dumps(measure(args.sizes, args.rounds, args.epochs, args.usual), indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
