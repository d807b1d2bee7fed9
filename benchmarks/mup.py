"""Widths and learning rates → where the best rate lies, in the standard and the maximal update parameterization.

In:  nothing but this machine; networks of two hidden layers learn scikit-learn's digits.
Out: lines on stdout and `benchmarks/results/mup.json`: for each optimizer and parameterization the mean of the logarithm of
the training loss at each width and rate, the best rate of each width, and the power of the width that the best rate goes
with: 0 where a rate that is best at one width is best at all.

The unit is an init key, of which every width and rate has one network: each key's best rates (the lowest point of a parabola
in logarithms, through the best rate tried and those beside it) give it a power of its own, and the interval is Student's t
over keys. A best rate at the end of what was tried is counted, for it bounds the power.

    python benchmarks/mup.py [--keys 8] [--epochs 4]
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import platform
import subprocess
import tempfile
import time
from typing import Any

import numpy as np
import yaml
from scipy import stats

import zoo_datasets
from zoo_builder import grid, plan, worker
from zoo_datasets.networks import kernels

RESULT = pathlib.Path(__file__).parent / "results" / "mup.json"
WIDTHS, BASE = (16, 32, 64, 128, 256), 16
RATES = {"sgd": [2.0**k for k in range(-9, 3)], "adam": [2.0**k for k in range(-13, -1)]}
WORST = 10.0  # a loss that is larger, or none, counts as this much: chance is 2.3
PARAMETERIZATIONS = ("standard", "mup")


def recipe(optimizer: str, keys: int, epochs: int) -> dict[str, Any]:
    layers = [
        ["flatten", {"linear": w}, "activation", {"linear": w}, "activation", {"linear": "classes"}] for w in WIDTHS
    ]
    axes = {"architecture": layers, "parameterization": list(PARAMETERIZATIONS), "lr": RATES[optimizer]}
    return {
        "zoo": "weightzoo/mup",
        "source": {"id": "digits", "train": 1000, "validation": 0, "test": 200},
        "mup_base": BASE,
        "axes": axes,
        "paired": list(axes),
        "replicates": keys,
        "training": {"optimizer": optimizer, "epochs": epochs, "batch_size": 32},
        "snapshots": {"epochs": [epochs]},
        "splits": {"train": 1.0},
    }


def losses(optimizer: str, keys: int, epochs: int) -> dict[str, np.ndarray]:
    """Parameterization → logarithms of the last training losses (keys, widths, rates)."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(recipe(optimizer, keys, epochs), file)
        file.flush()
        planned = plan.plan(grid.load(file.name))
    found = {p: np.full((keys, len(WIDTHS), len(RATES[optimizer])), np.nan) for p in PARAMETERIZATIONS}
    for cohort in planned.cohorts:
        snapshots, results, _ = worker.train(cohort, planned.sources[cohort.runs[0].source])
        for m, (run, result) in enumerate(zip(cohort.runs, results, strict=True)):
            s = run.settings
            loss = WORST
            if result["stop_reason"] != "diverged":
                (last,) = (x for x in snapshots if x.model == m and x.step == cohort.steps[m])
                assert last.metrics is not None
                stored = last.metrics["train_loss"]  # null where a logit is infinite
                loss = WORST if stored is None else min(float(stored), WORST)
            place = run.replicate["init"], WIDTHS.index(s["architecture"][1]["linear"]), RATES[optimizer].index(s["lr"])
            found[s.get("parameterization", "standard")][place] = math.log(max(loss, 1e-12))
    return found


def best(logs: np.ndarray) -> float:
    """Place of the lowest loss among rates, between them by a parabola."""
    k = int(np.argmin(logs))
    if k in (0, len(logs) - 1):
        return float(k)
    before, at, after = logs[k - 1 : k + 2]
    bend = before - 2 * at + after
    return k + float(0.5 * (before - after) / bend if bend > 0 else 0.0)


def summary(optimizer: str, name: str, logs: np.ndarray) -> dict[str, Any]:
    """What is kept of an optimizer and a parameterization, of losses (keys, widths, rates)."""
    octaves = np.log2(RATES[optimizer])
    places = np.array([[best(at_width) for at_width in of_key] for of_key in logs])  # (keys, widths)
    rates = np.interp(places, np.arange(len(octaves)), octaves)
    powers = np.polyfit(np.log2(WIDTHS), rates.T, 1)[0]
    half = stats.t.ppf(0.975, len(powers) - 1) * powers.std(ddof=1) / math.sqrt(len(powers))
    at_base = int(np.argmin(logs.mean(0)[WIDTHS.index(BASE)]))
    return {
        "optimizer": optimizer, "parameterization": name, "networks": int(logs.size), "keys": len(logs),
        "log_loss": logs.mean(0).round(4).tolist(), "best_lr": [float(f"{2**r:.4g}") for r in rates.mean(0)],
        "at_an_end": int(((places == 0) | (places == len(octaves) - 1)).sum()),
        "power": round(float(powers.mean()), 4), "low": round(float(powers.mean() - half), 4),
        "high": round(float(powers.mean() + half), 4),
        # The widest network at the rate that is best for the base, over what it reaches at its own best.
        "loss_of_widest_at_bases_best_over_own": round(float(np.exp(logs.mean(0)[-1, at_base] - logs.mean(0)[-1].min())), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    started, rows = time.process_time(), []
    for optimizer in RATES:
        for name, logs in losses(optimizer, options.keys, options.epochs).items():
            rows.append(summary(optimizer, name, logs))
            r = rows[-1]
            print(
                f"{optimizer} {name}: best lr {r['best_lr']}, power {r['power']} [{r['low']}, {r['high']}]", flush=True
            )
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    about = {
        "version": zoo_datasets.__version__, "commit": commit, "machine": platform.machine(), "engine": kernels.missing() or "native",
        "widths": WIDTHS, "base": BASE, "rates": RATES, "epochs": options.epochs, "cpu_s": round(time.process_time() - started, 1),
    }  # fmt: skip
    RESULT.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
