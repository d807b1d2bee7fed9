"""Engines and instruction sets → how far weights part within 30 steps, by optimizer.

In:  nothing but this machine; networks learn scikit-learn's digits.
Out: lines on stdout and `benchmarks/results/agreement.json`: for each optimizer and pair, networks with batch norm
apart, the number of networks, those with a weight further apart than 1e-5, and the largest distances: of any weight,
in learning rates, and by quantiles over a network. `training/fingerprint.py` takes its tolerances from them.

Initialization, examples and order are the same bits. What differs is rounding: another engine, or PyTorch
under another code path of oneDNN, MKL and ATen, for which this script calls itself.

    python benchmarks/agreement.py [--replicates 10] [--optimizers adam rmsprop]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import numpy as np
import torch
import yaml

from zoo_builder import engines, grid, plan
from zoo_builder.planning.runs import Run
from zoo_builder.training import fingerprint
from zoo_builder.training.inputs import data_of, job_of
from zoo_builder.training.trainer import Trainer

RESULT = pathlib.Path(__file__).parent / "results" / "agreement.json"
OTHER_PATH = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
RATES = {
    **{name: [1e-1, 1e-2, 1e-3] for name in ("sgd", "momentum", "nesterov")},
    **{name: [1e-2, 3e-3, 1e-3] for name in ("adam", "adamw", "rmsprop")},
}
ARCHITECTURES = [
    ["flatten", {"linear": 20}, "activation", {"linear": "classes"}],
    [{"conv": 8, "kernel": 3}, "activation", {"max_pool": 2}, "flatten", {"linear": "classes"}],
    [{"conv": 8, "kernel": 3}, "batch_norm", "activation", "flatten", {"linear": 16}, "activation", {"linear": "classes"}],
]  # fmt: skip


def recipe(optimizer: str, replicates: int) -> dict:
    return {
        "zoo": "weightzoo/agreement",
        "source": {"id": "digits", "train": 1200, "validation": 100, "test": 200},
        "axes": {
            "architecture": ARCHITECTURES,
            "activation": ["tanh", "relu"],
            "subset": ["full", {"frac": 0.3, "classes": [1, 3, 5, 8], "relabel": True}],
            "lr": RATES[optimizer],
        },
        "replicates": replicates,
        "training": {"optimizer": optimizer, "epochs": 10, "batch_size": 32},
        "splits": {"train": 1.0},
    }


def weights(optimizer: str, engine: str, replicates: int) -> dict[str, tuple[Run, np.ndarray]]:
    """Model id → its run and its weights after 30 steps."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(recipe(optimizer, replicates), file)
        file.flush()
        planned = plan.plan(grid.load(file.name), engine=engine)
    found = {}
    for cohort in planned.cohorts:
        source = planned.sources[cohort.runs[0].source]
        data = data_of(cohort, source)
        trainer = Trainer(cohort, source, data, engines.open_backend(engine, job_of(cohort, source, data)))
        found |= {r.id: (r, w) for r, w in zip(cohort.runs, trainer.weights_after(fingerprint.STEPS), strict=True)}
    return found


def elsewhere(optimizer: str, replicates: int) -> dict[str, np.ndarray]:
    """Weights of `torch_loop` under another code path of its libraries, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.npz")
        command = [sys.executable, __file__, "--child", optimizer, path, "--replicates", str(replicates)]
        subprocess.run(command, check=True, env={**os.environ, **OTHER_PATH})
        return dict(np.load(path))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--optimizers", nargs="+", default=list(RATES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        optimizer, path = options.child
        np.savez(path, **{i: w for i, (_, w) in weights(optimizer, "torch_loop", options.replicates).items()})
        return
    rows = []
    for optimizer in options.optimizers:
        loop = weights(optimizer, "torch_loop", options.replicates)
        others = {
            "native": {i: w for i, (_, w) in weights(optimizer, "native", options.replicates).items()},
            "torch_batched": {i: w for i, (_, w) in weights(optimizer, "torch_batched", options.replicates).items()},
            "torch_loop, other path": elsewhere(optimizer, options.replicates),
        }
        for name, other in others.items():
            rows += [row | {"optimizer": optimizer, "pair": f"torch_loop, {name}"} for row in table(loop, other)]
        for row in rows[-2 * len(others) :]:
            print(" ".join(f"{k} {v:.1e}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        cpu = torch.backends.cpu.get_cpu_capability()
        about = {"machine": platform.machine(), "torch": torch.__version__, "cpu": cpu, "steps": fingerprint.STEPS}
        RESULT.write_text(json.dumps({**about, "replicates": options.replicates, "rows": rows}, indent=1) + "\n")


def table(loop: dict[str, tuple[Run, np.ndarray]], other: dict[str, np.ndarray]) -> list[dict]:
    """What is kept of a pair of engines: networks with batch norm apart, in which a bias before it has no gradient."""
    found = []
    for normed in (False, True):
        pairs = [(r, np.abs(w.astype(float) - other[i])) for i, (r, w) in loop.items()
                 if any("batch_norm" in str(layer) for layer in r.settings["architecture"]) == normed]  # fmt: skip
        found.append({
            "batch_norm": normed, "networks": len(pairs), "other_bits": sum(bool(d.any()) for _, d in pairs),
            "above_1e-5": sum(bool(d.max() > 1e-5) for _, d in pairs),
            "median_of_largest": float(np.median([d.max() for _, d in pairs])),
            "largest": max(float(d.max()) for _, d in pairs),
            "largest_over_lr": max(float(d.max()) / r.settings["lr"] for r, d in pairs),
            "largest_share_above_1e-5": max(float((d > 1e-5).mean()) for _, d in pairs),
            "largest_share_above_lr/100": max(float((d > r.settings["lr"] / 100).mean()) for r, d in pairs),
            **{f"largest_quantile_{q}": max(float(np.quantile(d, q / 100)) for _, d in pairs) for q in (50, 90, 98)},
        })  # fmt: skip
    return found


if __name__ == "__main__":
    main()
