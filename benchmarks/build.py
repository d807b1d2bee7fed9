"""The same MNIST CNNs built by weightzoo and by a plain loop, as a ratio of CPU time.

    python benchmarks/build.py --data DIR [--models 64] [--epochs 1] [--set PATH=VALUE]

Both train the first models of `grids/mnist.yaml` on the same images from the same initial
weights, take a snapshot before and after every epoch and evaluate it on training,
validation and test images; ours also with thinned evaluation. The plain loop is how peers write it: one model at a time, an
`nn.Module`, `torch.optim`, a `DataLoader` with batch 32, evaluation in batches of 1,000,
`torch.save` per snapshot. One thread each, interleaved cohort by cohort in one process, so
that the noise of a shared machine falls on both.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines import cpu_name
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zoo_builder import grid, plan, worker
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import Run
from zoo_builder.training.inputs import data_of, initial_weights
from zoo_datasets import sources
from zoo_datasets.networks import modules

HERE = Path(__file__).parent
THIN = "{train: 1000, validation: 0}"  # images scored before the last snapshot
RULES = {
    "adam": lambda p, s: torch.optim.Adam(p, s["lr"], (s["beta1"], s["beta2"]), s["eps"], s["weight_decay"]),
    "momentum": lambda p, s: torch.optim.SGD(p, s["lr"], s["momentum"], weight_decay=s["weight_decay"]),
}


def plain_loop(run: Run, cohort: Cohort, data: object, m: int) -> float:
    """Train and evaluate one model as peers do; its test accuracy at the end."""
    s = run.settings
    network = modules.Network(cohort.architecture, s["dropout"])
    network.load_vector(initial_weights(run, cohort.architecture))
    rows = torch.from_numpy(data.rows[m].astype(np.int64))
    train = TensorDataset(torch.from_numpy(data.pool)[rows], torch.from_numpy(data.labels[m].astype(np.int64)))
    parts = [train, *(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)) for x, y in (data.validation, data.test))]
    loader = DataLoader(train, batch_size=s["batch_size"], shuffle=True)
    optimizer = RULES[s["optimizer"]](network.parameters(), s)
    criterion = nn.CrossEntropyLoss()
    accuracy = _evaluate(network, parts)
    for _ in range(s["epochs"]):
        network.train()
        for images, labels in loader:
            optimizer.zero_grad()
            criterion(network(images), labels).backward()
            optimizer.step()
        accuracy = _evaluate(network, parts)
    return accuracy


def _evaluate(network: nn.Module, parts: list[TensorDataset]) -> float:
    network.eval()
    with torch.no_grad():
        for part in parts:
            right = 0
            for images, labels in DataLoader(part, batch_size=1000):
                logits = network(images)
                nn.functional.cross_entropy(logits, labels)
                right += int((logits.argmax(1) == labels).sum())
            accuracy = right / len(part)
    torch.save(network.state_dict(), io.BytesIO())
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of local copies of sources (default: $ZOO_DATA, else the Hub)")
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--plain", type=int, metavar="N",
                        help="the plain loop trains N models of each cohort and is said to take as long for each of the others")  # fmt: skip
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="PATH=VALUE",
                        help="change the recipe, say to one whose models train together")  # fmt: skip
    parser.add_argument("--json", type=Path, default=HERE / "results" / "build.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changes = [
        f"training.epochs={options.epochs}",
        "snapshots.epochs=" + str(list(range(options.epochs + 1))),
        "splits={train: 1}",
        *options.changes,
    ]
    path = HERE.parent / "grids" / "mnist.yaml"
    planned, thinned = (
        plan.plan(grid.load(path, changes + more, options.models), engine=options.engine, data=options.data)
        for more in ([], [f"snapshots.evaluation={THIN}"])
    )
    ours, thin, theirs, accuracies = [], [], [], [[], []]
    for cohort, other in zip(planned.cohorts, thinned.cohorts, strict=True):
        source: sources.Source = planned.sources[cohort.runs[0].source]
        started = time.process_time()
        snapshots, _, engine = worker.train(cohort, source)
        ours.append(time.process_time() - started)
        started = time.process_time()
        again, _, _ = worker.train(other, source)
        thin.append(time.process_time() - started)
        assert [s.sha256 for s in again] == [s.sha256 for s in snapshots]  # how it is scored changes no weight
        last = {s.model: s.metrics["test_accuracy"] for s in snapshots}
        data = data_of(cohort, source)
        plain = range(len(cohort.runs))[: options.plain]  # one after another: each costs what the others cost
        accuracies[0] += [last[m] for m in plain]
        started = time.process_time()
        accuracies[1] += [plain_loop(cohort.runs[m], cohort, data, m) for m in plain]
        theirs.append((time.process_time() - started) * len(cohort.runs) / len(plain))
        print(
            f"cohort of {len(cohort.runs)}: {ours[-1]:.1f} s, thinned evaluation {thin[-1]:.1f} s, plain loop {theirs[-1]:.1f} s CPU",
            flush=True,
        )
    means = [float(np.mean(a)) for a in accuracies]
    error = float(np.std(np.subtract(*accuracies), ddof=1) / np.sqrt(len(accuracies[0])))
    result = {
        "models": len(planned.runs), "epochs": options.epochs, "changes": options.changes,
        "plain_models": len(accuracies[1]), "cohorts": len(planned.cohorts),
        "engine": engine, "cpu_s": sum(ours), "plain_loop_cpu_s": sum(theirs), "ratio": sum(theirs) / sum(ours),
        "evaluation": THIN, "cpu_thinned_s": sum(thin), "ratio_thinned": sum(theirs) / sum(thin),
        "test_accuracy": means[0], "plain_loop_test_accuracy": means[1], "difference_standard_error": error,
        "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine(),
        "cpu": cpu_name(), "threads": 1,
    }  # fmt: skip
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['models']} models, {options.epochs} epoch(s), {engine['name']}: {sum(ours):.1f} s CPU")
    print(f"plain loop: {sum(theirs):.1f} s CPU, {result['ratio']:.1f} times as long")
    print(f"with evaluation {THIN}: {sum(thin):.1f} s CPU, {result['ratio_thinned']:.1f} times")
    print(f"mean test accuracy {means[0]:.4f} against {means[1]:.4f} (paired difference ± {error:.4f})")


if __name__ == "__main__":
    main()
