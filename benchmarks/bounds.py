"""What bounds the native engine on the small CNNs: each convolution alone against the multiply-adds of one core.

In:  this machine's C++ compiler and `zoo_datasets/networks/native/`.
Out: a table on stdout and `benchmarks/results/bounds.json`.

Fastest of many runs on either side, so that other work on the machine counts for neither: what a quiet machine
would give. `alone` is what a training step would reach if its convolutions were all there is.

    python benchmarks/bounds.py [--workloads W1,W2]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import torch
from engines import cpu_name, native, rate, sgemm
from workloads import WORKLOADS, Workload, data_of

HERE = pathlib.Path(__file__).parent
RESULT = HERE / "results" / "bounds.json"
FLAGS = "-O3 -std=c++17 -mavx2 -mfma -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi".split()
WINDOWS = 100


def convolutions(w: Workload) -> list[tuple[int, ...]]:
    """(channels, rows, filters, kernel, stride, gradient by inputs) of each; square, without padding."""
    found, shape = [], w.shape
    for node in w.architecture.nodes:
        if node.op == "conv":
            if node.attrs["padding"]:
                raise SystemExit(f"{w.name}: padded convolutions are not taken apart here")
            found.append(
                (shape[0], shape[1], node.shape[0], node.attrs["kernel"], node.attrs["stride"], int(bool(found)))
            )
        shape = node.shape
    return found


def bounds(w: Workload, program: pathlib.Path) -> dict:
    layers = convolutions(w)
    lines = subprocess.run(
        [program, *(str(x) for layer in layers for x in layer)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    peak, per_layer = float(lines[0]), [[float(x) for x in line.split()] for line in lines[1:]]
    run, product = native(w, *data_of(w)), sgemm()
    steps = max(16, int(0.05 * rate(run, 256)))
    product(1)
    windows = [(rate(run, steps) * w.flop / 1e9, rate(product, 2) / 1e9) for _ in range(WINDOWS)]
    flop = [2 * c * k * k * f * ((r - k) // s + 1) ** 2 for c, r, f, k, s, _ in layers]
    time = sum(f / g for f, passes in zip(flop, per_layer, strict=True) for g in passes)
    alone = sum(f * len(passes) for f, passes in zip(flop, per_layer, strict=True)) / time
    return {
        "workload": w.name, "peak_gflops": peak, "sgemm_gflops": max(b for _, b in windows),
        "native_gflops": max(a for a, _ in windows), "alone_gflops": alone,
        "layers": [{"layer": layer, "gflops": passes} for layer, passes in zip(layers, per_layer, strict=True)],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="W1,W2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "bounds"
        compiler = os.environ.get("CXX", "g++")
        include = HERE.parent / "zoo_datasets" / "networks" / "native"
        subprocess.run([compiler, *FLAGS, f"-I{include}", HERE / "bounds.cpp", "-o", program], check=True)
        found = [bounds(WORKLOADS[name], program) for name in args.workloads.split(",")]
    for r in found:
        peak = r["peak_gflops"]
        print(f"{r['workload']}: multiply-adds in registers {peak:.0f} GFLOP/s, sgemm {r['sgemm_gflops'] / peak:.0%} of that, "
              f"a step {r['native_gflops'] / peak:.0%}, its convolutions alone {r['alone_gflops'] / peak:.0%}")  # fmt: skip
        for layer in r["layers"]:
            passes = ", ".join(
                f"{name} {g / peak:.0%}"
                for name, g in zip(("forward", "by weights", "by inputs"), layer["gflops"], strict=False)
            )
            c, rows, filters, kernel, stride, _ = layer["layer"]
            print(f"  {kernel}×{kernel} stride {stride}, {c}→{filters} on {rows}×{rows}: {passes}")
    RESULT.write_text(json.dumps({"cpu": cpu_name(), "windows": WINDOWS, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
