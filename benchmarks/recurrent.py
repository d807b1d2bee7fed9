"""Recurrent networks → milliseconds of a training step, of the native engine and of eager PyTorch, and what bounds the former.

In:  this machine's C++ compiler; sequences and what is right at each step are random numbers.
Out: a table on stdout, `benchmarks/results/recurrent.json`, and the tables of docs/machines.md.

PyTorch's side is what people write: `nn.GRU` or `nn.LSTM` of several layers, `nn.Linear`, Adam. Both take turns on one thread;
a number is the median over rounds of process CPU time, a ratio the median of the ratios within a round.

What bounds a recurrent layer is taken from `recurrent.cpp`: its products and its functions alone, each the fastest of many runs,
so that other work on the machine counts for none.

    python benchmarks/recurrent.py [--rounds 7] [--seconds 1.0] [--bounds]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pages
import torch
from bounds import FLAGS
from engines import cpu_name
from torch import nn
from workloads import LR, Workload, job_of, window_of

from zoo_builder.engines.native import VERSION, NativeBackend
from zoo_datasets.networks.layers import build_architecture

HERE = pathlib.Path(__file__).parent
RESULT = HERE / "results" / "recurrent.json"
PAGE = HERE.parent / "docs" / "machines.md"
STEPS, BATCH, POOL = 32, 64, 512


@dataclasses.dataclass(frozen=True)
class Net:
    """A stack of recurrent layers with linear ones at each step, as both sides build it."""

    name: str
    kind: str  # "GRU" or "LSTM"
    features: int
    units: int
    layers: int
    hidden: int  # linear layers before the last
    outputs: int

    @property
    def recipe(self) -> list[object]:
        linear = [x for _ in range(self.hidden) for x in ({"linear": self.units}, "activation")]
        return [*({self.kind.lower(): self.units} for _ in range(self.layers)), *linear, {"linear": "classes"}]


NETS = (
    Net("GRU 4 × 12, 4 hidden linear: 4,364 parameters", "GRU", 9, 12, 4, 4, 8),
    Net("LSTM 2 × 32", "LSTM", 8, 32, 2, 0, 2),
    Net("GRU 2 × 64", "GRU", 8, 64, 2, 0, 2),
    Net("LSTM 3 × 128: 1.34 MB", "LSTM", 8, 128, 3, 0, 2),
)


class Theirs(nn.Module):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.recurrent = getattr(nn, net.kind)(net.features, net.units, net.layers, batch_first=True)
        hidden = [m for _ in range(net.hidden) for m in (nn.Linear(net.units, net.units), nn.ReLU())]
        self.head = nn.Sequential(*hidden, nn.Linear(net.units, net.outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x)[0])


def eager(net: Net, pool: np.ndarray, right: np.ndarray) -> Callable[[int], None]:
    network, inputs, wanted = Theirs(net), torch.from_numpy(pool), torch.from_numpy(right)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, fused=True)

    def run(steps: int) -> None:
        for rows in torch.randint(len(inputs), (steps, BATCH)):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(inputs[rows]), wanted[rows]).backward()
            optimizer.step()

    return run


def native(net: Net, pool: np.ndarray, right: np.ndarray) -> Callable[[int], None]:
    workload = Workload("", "", ["flatten", {"linear": "classes"}], (1, 2, 2), BATCH)  # of which the job is taken over
    architecture = build_architecture(net.recipe, (STEPS, net.features), net.outputs, "relu", STEPS)
    job = job_of(workload, 1, pool)
    initial = np.random.default_rng(0).normal(0, 0.2, (1, architecture.n_params)).astype(np.float32)
    backend = NativeBackend(
        dataclasses.replace(job, architecture=architecture, loss="mse", initial=initial, outputs=right)
    )
    generator = np.random.default_rng(1)

    def run(steps: int) -> None:
        backend.advance(window_of(workload, 1, steps, np.zeros(len(pool), np.int64), 0, generator))

    return run


def measured(net: Net, rounds: int, seconds: float) -> dict[str, object]:
    generator = np.random.default_rng(0)
    pool = generator.random((POOL, STEPS, net.features), np.float32)
    right = generator.random((POOL, STEPS, net.outputs), np.float32)
    sides = {"eager": eager(net, pool, right), "native": native(net, pool, right)}
    counts = {name: max(1, int(seconds / timed(run, 2))) for name, run in sides.items()}
    took = [{name: timed(run, counts[name]) for name, run in sides.items()} for _ in range(rounds)]
    ratios = sorted(t["eager"] / t["native"] for t in took)
    return {
        "net": net.name, "ms": {name: 1e3 * statistics.median(t[name] for t in took) for name in sides},
        "native_over_eager": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}, "rounds": rounds,
    }  # fmt: skip


def timed(run: Callable[[int], None], steps: int) -> float:
    """CPU seconds of a step."""
    run(1)
    started = time.process_time()
    run(steps)
    return (time.process_time() - started) / steps


# ── what bounds it ───────────────────────────────────────────────────────────────────


def layers_of(net: Net) -> list[tuple[str, ...]]:
    """Kind, features, units, steps, and whether somebody wants the gradient by the inputs, of each recurrent layer."""
    sizes = [net.features, *(net.units for _ in range(net.layers))]
    return [
        (net.kind.lower(), str(features), str(net.units), str(STEPS), str(int(i > 0)))
        for i, features in enumerate(sizes[:-1])
    ]


def bounds(folder: pathlib.Path) -> list[dict[str, object]]:
    """Of the recurrent layers of each network: the share of their time that is products, that is functions, and the products' rate."""
    program, compiler = folder / "recurrent", os.environ.get("CXX", "g++")
    include = HERE.parent / "zoo_datasets" / "networks" / "native"
    subprocess.run([compiler, *FLAGS, f"-I{include}", HERE / "recurrent.cpp", "-o", program], check=True)
    found = []
    for net in NETS:
        words = [word for layer in layers_of(net) for word in layer]
        lines = subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout.splitlines()
        peak, layers = float(lines[0]), np.array([[float(x) for x in line.split()] for line in lines[1:]])
        whole, products, functions, gflop = layers.sum(axis=0)
        found.append({
            "net": net.name, "peak_gflops": peak, "ms": 1e-3 * whole * BATCH / 8, "products": products / whole,
            "functions": functions / whole, "products_gflops": gflop / (1e-6 * products),
        })  # fmt: skip
    return found


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """Tables of docs/machines.md, and the sentence between them."""
    nets = results["nets"]
    yield (
        f"A training step on {BATCH} sequences of {STEPS} steps, in milliseconds of CPU time on one thread, Adam included, against "
        "PyTorch as people write it (`nn.GRU`, `nn.LSTM`, `nn.Linear`); ratios are medians of "
        f"{nets[0]['rounds']} interleaved rounds, with the least and the most, on a machine with other work "
        "(`benchmarks/recurrent.py`):\n"
    )
    rows = [
        (n["net"], f"{n['ms']['eager']:.1f}", f"{n['ms']['native']:.1f}", f"{n['native_over_eager']['median']:.1f}",
         f"{n['native_over_eager']['least']:.1f} … {n['native_over_eager']['most']:.1f}")
        for n in nets
    ]  # fmt: skip
    yield from pages.table(("network", "eager PyTorch", "native", "ratio", "least … most"), rows)
    if not (found := results.get("bounds")):
        return
    yield (
        "What bounds the recurrent layers, both ways, by their parts alone, each the fastest of many runs: products of matrices "
        "(with inputs and state, and the gradients by all of them), `tanh` and `sigmoid`, and the rest, which is arithmetic of "
        "gates and what is kept for the way back. The rate of products is a share of the multiply-adds that one core does in "
        "registers:\n"
    )
    rows = [
        (b["net"], f"{b['ms']:.1f}", f"{b['products']:.0%}", f"{b['functions']:.0%}",
         f"{max(0.0, 1 - b['products'] - b['functions']):.0%}", f"{b['products_gflops'] / b['peak_gflops']:.0%}")
        for b in found
    ]  # fmt: skip
    yield from pages.table(
        ("network", "ms of its recurrent layers", "products", "functions", "rest", "rate of products"), rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Recurrent networks: the native engine against eager PyTorch, one thread each."
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per candidate and round")
    parser.add_argument(
        "--bounds", action="store_true", help="measure what bounds the layers, and keep the times there are"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(RESULT.read_text()) if args.bounds else times(args.rounds, args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        result["bounds"] = bounds(pathlib.Path(folder))
    for b in result["bounds"]:
        print(
            f"{b['net']:48} products {b['products']:.0%}, functions {b['functions']:.0%}; {b['products_gflops']:.0f} GFLOP/s"
        )
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    pages.rewrite(PAGE, "recurrent", "\n".join(section(result)) + "\n")


def times(rounds: int, seconds: float) -> dict[str, Any]:
    """A step of each network, as PyTorch and the native engine take it."""
    rows = []
    for net in NETS:
        row = measured(net, rounds, seconds)
        rows.append(row)
        ratio = row["native_over_eager"]
        print(
            f"{net.name:48} {row['ms']['eager']:8.2f} ms eager {row['ms']['native']:8.2f} ms native {ratio['median']:6.1f}× ({ratio['least']:.1f} … {ratio['most']:.1f})",
            flush=True,
        )
    return {
        "cpu": cpu_name(), "engine": VERSION, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "conditions": f"one thread each, process CPU time of a training step on {BATCH} sequences of {STEPS} steps, Adam, medians of "
        f"{rounds} interleaved rounds of about {seconds:g} s", "nets": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
