"""Does an engine train networks as good as eager PyTorch's? Test accuracy over seeds, as a paired difference.

    python benchmarks/accuracy.py --data DIR [--seeds 64] [--epochs 5]

The 2,464-parameter CNN on 10,000 MNIST images, batch 32, Adam 3e-3, tanh: each seed once with
the native engine and once with `torch_loop`, from the same initial weights and in the same
batch order. Rounding alone makes the two trajectories part; their accuracies must not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from zoo_builder import grid, plan, worker

HERE = Path(__file__).parent
RECIPE = """\
zoo: weightzoo/accuracy
source: {{id: ylecun/mnist, train: 10000, validation: 1000, test: 10000}}
architecture: small-cnn
activation: tanh
replicates: {seeds}
training: {{epochs: {epochs}, batch_size: 32, lr: 3e-3}}
snapshots: {{epochs: [{epochs}]}}
splits: {{train: 1}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of local copies of sources (default: $ZOO_DATA, else the Hub)")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--engines", nargs=2, default=["native", "torch_loop"], metavar="ENGINE")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "accuracy.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accuracy.yaml"
        path.write_text(RECIPE.format(seeds=options.seeds, epochs=options.epochs))
        recipe = grid.load(path)
    accuracy: dict[str, dict[str, float]] = {}
    for engine in options.engines:
        planned = plan.plan(recipe, engine=engine, data=options.data)
        accuracy[engine] = {}
        for cohort in planned.cohorts:
            snapshots, _, _ = worker.train(cohort, planned.sources[cohort.runs[0].source])
            accuracy[engine] |= {cohort.runs[s.model].id: s.metrics["test_accuracy"] for s in snapshots}
            print(f"{engine}: {len(accuracy[engine])} of {options.seeds}", flush=True)
    a, b = (np.array([accuracy[e][m] for m in sorted(accuracy[e])]) for e in options.engines)
    error = {"mean": lambda x: float(x.mean()), "standard_error": lambda x: float(x.std(ddof=1) / np.sqrt(len(x)))}
    result = {
        "seeds": options.seeds, "epochs": options.epochs, "torch": torch.__version__,
        **{e: {k: f(x) for k, f in error.items()} for e, x in zip(options.engines, (a, b), strict=True)},
        "paired_difference": {k: f(a - b) for k, f in error.items()},
    }  # fmt: skip
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    for name in (*options.engines, "paired_difference"):
        print(f"{name}: {result[name]['mean']:.5f} ± {result[name]['standard_error']:.5f}")


if __name__ == "__main__":
    main()
