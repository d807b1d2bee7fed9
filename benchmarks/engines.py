"""Workloads → training steps per CPU-second of the native engine and of eager PyTorch.

In:  nothing but this machine; images are random numbers of the right shape.
Out: a table on stdout and `benchmarks/results/engines.json`.

All candidates take turns in one process on one thread. A number is the median over rounds
of process CPU time; a ratio is the median of the ratios within a round, so that other work
on the machine touches both sides. FLOP are those of convolutions and linear layers: forward, by
weights, and by inputs except for the first layer.

    python benchmarks/engines.py [--rounds 7] [--seconds 1.0] [--workloads W1,W3] [--only-training]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from workloads import LR, POOL, WORKLOADS, Workload, block, data_of, job_of, pooled, window_of

from zoo_builder.engines.native import VERSION, NativeBackend
from zoo_datasets.networks import kernels
from zoo_datasets.networks.modules import Network

SGEMM = 2048  # side of the matrices
PAIRS = 4  # of windows for the share of sgemm, per round
RESULT = pathlib.Path(__file__).parent / "results" / "engines.json"


# ── candidates: each gives a function that takes about so many steps ──────────────────


def native(w: Workload, pool: np.ndarray, labels: np.ndarray, n_models: int = 16) -> Callable[[int], int]:
    job = job_of(w, n_models, pool)
    backend, generator = NativeBackend(job), np.random.default_rng(1)
    taken = 0

    def run(steps: int) -> int:
        nonlocal taken
        each = max(1, steps // n_models)
        backend.advance(window_of(w, n_models, each, labels, taken, generator))
        taken += each
        return each * n_models

    return run


def eager(w: Workload, pool: np.ndarray, labels: np.ndarray, channels_last: bool = False) -> Callable[[int], int]:
    network = Network(w.architecture)
    images, targets = torch.from_numpy(pool), torch.from_numpy(labels)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, fused=True)

    def run(steps: int) -> int:
        for rows in torch.randint(len(images), (steps, w.batch)):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(images[rows]), targets[rows]).backward()
            optimizer.step()
        return steps

    return run


def dataloader(w: Workload, pool: np.ndarray, labels: np.ndarray) -> Callable[[int], int]:
    """The usual loop: a `DataLoader` over a dataset of single images, default Adam, the loss read each step."""
    network = Network(w.architecture)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(pool), torch.from_numpy(labels))
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    batches = iter(())

    def run(steps: int) -> int:
        nonlocal batches
        for _ in range(steps):
            batch = next(batches, None)
            if batch is None:
                batches = iter(torch.utils.data.DataLoader(dataset, w.batch, shuffle=True, drop_last=True))
                batch = next(batches)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(batch[0]), batch[1])
            loss.backward()
            optimizer.step()
            loss.item()
        return steps

    return run


# ── measuring ─────────────────────────────────────────────────────────────────────────


def rate(run: Callable[[int], int], steps: int) -> float:
    start = time.process_time()
    done = run(steps)
    return done / (time.process_time() - start)


def sgemm() -> Callable[[int], int]:
    """So many matrix products of one thread → FLOP. The matrices are made once, outside of what is timed."""
    a, b, out = (torch.rand(SGEMM, SGEMM) for _ in range(3))

    def run(products: int) -> int:
        for _ in range(products):
            torch.mm(a, b, out=out)
        return products * 2 * SGEMM**3

    return run


def shares(w: Workload, run: Callable[[int], int], pairs: int, seconds: float = 0.2) -> tuple[list[float], list[float]]:
    """FLOP per CPU-second of native training and of sgemm, in windows that take turns and last equally long.

    Nothing else runs between them and the windows are short, so both meet the same clock and neighbors.
    """
    product = sgemm()
    product(1)
    steps, products = max(16, int(seconds * rate(run, 256))), max(1, round(seconds * rate(product, 1) / (2 * SGEMM**3)))
    each = [(rate(run, steps) * w.flop, rate(product, products)) for _ in range(pairs)]
    return [a for a, _ in each], [b for _, b in each]


def training(w: Workload, rounds: int, seconds: float) -> dict:
    pool, labels = data_of(w)
    candidates = {
        "native": native(w, pool, labels),
        "eager": eager(w, pool, labels),
        "eager channels_last": eager(w, pool, labels, channels_last=True),
        "DataLoader": dataloader(w, pool, labels),
    }
    steps = {}
    for name, run in candidates.items():  # warm up, and find out how many steps are worth timing
        run(16)
        steps[name] = max(16, int(seconds * rate(run, 32)))
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            rates[name].append(rate(run, steps[name]))
    median = {name: statistics.median(r) for name, r in rates.items()}
    best = [max(a, b) for a, b in zip(rates["eager"], rates["eager channels_last"], strict=True)]

    def ratios(over: list[float]) -> dict[str, float]:
        each = [a / b for a, b in zip(rates["native"], over, strict=True)]
        return {"median": statistics.median(each), "least": min(each), "most": max(each)}

    flops, of = shares(w, candidates["native"], PAIRS * rounds)
    return {
        "workload": w.name, "what": w.what, "batch": w.batch, "n_params": w.architecture.n_params, "flop_per_step": w.flop,
        "n_rounds": rounds,
        "steps_per_cpu_s": median,
        "gflop_per_cpu_s": {k: v * w.flop / 1e9 for k, v in median.items()} | {"sgemm": statistics.median(of) / 1e9},
        "native_over_eager": ratios(rates["eager"]),
        "native_over_best_eager": ratios(best),
        "native_over_dataloader": ratios(rates["DataLoader"]),
        "share_of_sgemm": statistics.median(a / b for a, b in zip(flops, of, strict=True)), "n_shares": len(of),
        "best_share_of_sgemm": max(flops) / max(of),
    }  # fmt: skip


def cohort_sizes(w: Workload, rounds: int, seconds: float, sizes: tuple[int, ...] = (1, 16, 256)) -> dict:
    """Steps per CPU-second by the number of models in the cohort."""
    pool, labels = data_of(w)
    candidates = {n: native(w, pool, labels, n) for n in sizes}
    steps = max(2 * max(sizes), int(seconds * rate(candidates[16], 256)))
    rates: dict[int, list[float]] = {n: [] for n in sizes}
    for _ in range(rounds):
        for n, run in candidates.items():
            rates[n].append(rate(run, steps))
    over = [a / b for a, b in zip(rates[sizes[-1]], rates[16], strict=True)]
    return {
        "workload": w.name, "n_rounds": rounds,
        "steps_per_cpu_s": {str(n): statistics.median(r) for n, r in rates.items()},
        f"rate_of_{sizes[-1]}_over_16": statistics.median(over),
    }  # fmt: skip


def evaluation(w: Workload, rounds: int, n_models: int = 16, images: int = 10_000) -> dict:
    """CPU-milliseconds per model to show it the test set."""
    pool, _ = data_of(w)
    backend, network = NativeBackend(job_of(w, n_models, pool)), Network(w.architecture).eval()
    shown = torch.from_numpy(pool)

    def eager_pass(images_: torch.Tensor) -> float:
        start = time.process_time()
        with torch.inference_mode():
            for part in images_.split(256):
                network(part)
        return time.process_time() - start

    times: dict[str, list[float]] = {"native": [], "eager": [], "eager channels_last": []}
    for _ in range(rounds):
        start = time.process_time()
        backend.logits(pool[:images])
        times["native"].append((time.process_time() - start) / n_models)
        network = network.to(memory_format=torch.contiguous_format)
        times["eager"].append(eager_pass(shown))
        network = network.to(memory_format=torch.channels_last)
        times["eager channels_last"].append(eager_pass(shown.contiguous(memory_format=torch.channels_last)))
    return {"workload": w.name, "n_rounds": rounds, "images": images, "models": n_models,
            "cpu_ms_per_model": {k: 1e3 * statistics.median(v) for k, v in times.items()}}  # fmt: skip


# Networks on both sides of the width where eager PyTorch overtakes: those the rule of
# `kernels.slower` was fitted on, and others of other shapes that it has not seen.
def _wide(*channels: int) -> list:
    return [*(x for c in channels for x in pooled(c)), "flatten", {"linear": "classes"}]


def _dense(*units: int) -> list:
    return ["flatten", *(x for u in units for x in ({"linear": u}, "activation")), {"linear": "classes"}]


WIDTHS = {
    "fitted": {
        "conv 32-64-128": _wide(32, 64, 128), "conv 64-64-64": _wide(64, 64, 64), "conv 48-96-192": _wide(48, 96, 192),
        "conv 128-128": _wide(128, 128), "conv 64-128-256": _wide(64, 128, 256), "conv 160-160": _wide(160, 160),
        "linear 256-256": _dense(256, 256), "linear 512-512": _dense(512, 512), "linear 1024-1024": _dense(1024, 1024),
    },
    "held out": {
        "conv 24-48-96": _wide(24, 48, 96), "conv 96-96": _wide(96, 96), "conv 80-160": _wide(80, 160),
        "conv 192-192": _wide(192, 192), "conv 5×5 32-64, fc 256": [*block(32), *block(64), "flatten", {"linear": 256}, "activation", {"linear": "classes"}],
        "conv 5×5 96-128": [*block(96), *block(128), "flatten", {"linear": "classes"}],
        "linear 400-100": _dense(400, 100), "linear 768": _dense(768), "linear 640-640-640": _dense(640, 640, 640),
    },
}  # fmt: skip


def widths(rounds: int, seconds: float) -> list[dict]:
    """Native over the best eager by width, and what the rule says."""
    found = []
    for group, nets in WIDTHS.items():
        for name, layers in nets.items():
            shape = (1, 28, 28) if name.startswith("linear") else (3, 32, 32)
            w = Workload(name, name, layers, shape, 64)
            pool, labels = data_of(w)
            candidates = {"native": native(w, pool, labels, 1), "eager": eager(w, pool, labels)}
            if name.startswith("conv"):
                candidates["eager channels_last"] = eager(w, pool, labels, channels_last=True)
            steps = {}
            for key, run in candidates.items():
                run(2)
                steps[key] = max(2, int(seconds * rate(run, 2)))
            rates: dict[str, list[float]] = {key: [] for key in candidates}
            for _ in range(rounds):
                for key, run in candidates.items():
                    rates[key].append(rate(run, steps[key]))
            best = [max(r) for r in zip(*(v for k, v in rates.items() if k != "native"), strict=True)]
            ratio = statistics.median([a / b for a, b in zip(rates["native"], best, strict=True)])
            to_torch = kernels.slower(w.architecture) is not None
            found.append(
                {
                    "network": name,
                    "group": group,
                    "native_over_best_eager": ratio,
                    "rule_takes": "torch" if to_torch else "native",
                }
            )
            print(
                f"{name:24} {group:9} native over best eager {ratio:5.2f}, the rule takes {found[-1]['rule_takes']}",
                flush=True,
            )
    return found


def _worker(name: str, seconds: float, barrier, results) -> None:
    torch.set_num_threads(1)
    run = native(WORKLOADS[name], *data_of(WORKLOADS[name]))
    steps = int(seconds * rate(run, 256))
    barrier.wait()
    results.put(rate(run, steps))


def two_workers(w: Workload, rounds: int, seconds: float) -> dict:
    """Per-CPU-second rate of two processes at once over that of one alone."""
    context = multiprocessing.get_context("spawn")

    def rates(n: int) -> float:
        barrier, results = context.Barrier(n), context.Queue()
        workers = [context.Process(target=_worker, args=(w.name, seconds, barrier, results)) for _ in range(n)]
        for worker in workers:
            worker.start()
        found = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        return statistics.mean(found)

    pairs = [(rates(2), rates(1)) for _ in range(rounds)]
    return {"workload": w.name, "n_rounds": rounds, "two_over_one": statistics.median([a / b for a, b in pairs])}


def cpu_name() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description="Native engine against eager PyTorch on this CPU, one thread each.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per candidate and round")
    parser.add_argument(
        "--workloads", default=",".join(n for n, w in WORKLOADS.items() if kernels.unsupported(w.architecture) is None)
    )
    parser.add_argument(
        "--only-training", action="store_true", help="leave out cohort sizes, evaluation, two workers and widths"
    )
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [WORKLOADS[name] for name in args.workloads.split(",")]
    result: dict = {
        "cpu": cpu_name(), "path": NativeBackend(job_of(chosen[0], 1, data_of(chosen[0])[0][:1])).path, "engine": VERSION,
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "conditions": f"one thread each, process CPU time, medians of {args.rounds} interleaved rounds of about "
        f"{args.seconds:g} s, Adam, {POOL} random images, cohort of 16 models",
        "training": [],
    }  # fmt: skip
    print(f"{result['cpu']}, {result['path']}; {result['conditions']}")
    print(
        f"{'':3} {'steps/CPU-s':>11} {'GFLOP/s':>8} {'vs eager':>9} {'vs best':>8} {'vs loader':>9} {'of sgemm':>8} {'at best':>8}"
    )
    for w in chosen:
        r = training(w, args.rounds, args.seconds)
        result["training"].append(r)
        print(
            f"{w.name:3} {r['steps_per_cpu_s']['native']:11.0f} {r['gflop_per_cpu_s']['native']:8.1f} "
            f"{r['native_over_eager']['median']:8.2f}× {r['native_over_best_eager']['median']:7.2f}× "
            f"{r['native_over_dataloader']['median']:8.1f}× {r['share_of_sgemm']:8.0%} {r['best_share_of_sgemm']:8.0%}",
            flush=True,
        )
    if not args.only_training:
        small = [w for w in chosen if w.name in ("W1", "W3")] or chosen[:1]
        result["cohort_sizes"] = [cohort_sizes(w, args.rounds, args.seconds) for w in small]
        result["evaluation"] = [evaluation(w, args.rounds) for w in small]
        result["two_workers"] = [two_workers(w, args.rounds, args.seconds) for w in small]
        result["widths"] = widths(max(3, args.rounds // 2), args.seconds / 2)
        for key in ("cohort_sizes", "evaluation", "two_workers"):
            for entry in result[key]:
                print(key, json.dumps(entry))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
