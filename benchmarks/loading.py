"""Ways to read a zoo → rows per second, beside `np.memmap` and a folder of `.pt` files.

In:  nothing: a synthetic zoo is written to a temporary folder (random numbers of real shapes).
Out: a table on stdout and `benchmarks/results/loading.json`.

All candidates take turns in one process, page cache warm; a number is the median over
rounds, a ratio the median of the ratios within a round, so that other work on the machine
touches both sides; seconds are of CPU time. Opening is measured in a process of its own, for its memory.

    python benchmarks/loading.py [--rounds 7] [--snapshots 20000] [--rows 1000000] [--device cpu]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from zoo_datasets import open_zoo, weights
from zoo_datasets.core import files
from zoo_datasets.format import shards
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.loaders import WeightsStream
from zoo_datasets.networks import modules, scoring
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.forward import Forward
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.logits import logits_of

BATCH = 64
STEPS = 5  # snapshots of each model
PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}
RESULT = pathlib.Path(__file__).parent / "results" / "loading.json"
GOALS = {
    "random, one shard": 0.8, "random, all shards": 0.8, "random, 40 shards": 0.8, "DataLoader, 0 workers": 0.5,
    "DataLoader of a stream, 0 workers": 0.5,
    "Loader, 0 workers": 0.5, "sequential": 0.9,
}  # fmt: skip


def synthetic(
    root: pathlib.Path, name: str, n: int, architecture: Architecture | None, n_shards: int = 3
) -> pathlib.Path:
    """A zoo of `n` snapshots with random columns and weights; without an architecture, no shards."""
    paths = ZooPaths(root / name)
    rng = np.random.default_rng(0)
    n_models = n // STEPS
    cut = np.cumsum([0, *(round(n_models * f) for f in PARTS.values())])
    cut[-1] = n_models
    ids = np.char.mod("%016x", rng.permutation(n_models).astype(np.int64))
    split = np.repeat(list(PARTS), np.diff(cut))
    width = architecture.n_params if architecture else 0
    layout = architecture.layout_id if architecture else "0"
    of_shard = np.sort(np.minimum(np.arange(n_models) * n_shards // n_models, n_shards - 1))
    if n_shards == len(PARTS):
        of_shard = np.repeat(np.arange(len(PARTS)), np.diff(cut))
    names = [
        f"weights/{'train' if n_shards != 3 else list(PARTS)[i]}-{i:05d}-of-{n_shards:05d}.safetensors"
        for i in range(n_shards)
    ]
    counts = np.bincount(of_shard, minlength=n_shards) * STEPS
    if architecture:
        for i in range(n_shards):
            draw = np.random.default_rng(i)
            shards.write(paths.root / names[i], {layout: (int(counts[i]), width)},
                         lambda _, c=int(counts[i]), d=draw: iter([d.standard_normal((c, width), np.float32) / 10]))  # fmt: skip
    levels = {
        "activation": rng.choice(["tanh", "relu", "gelu"], n_models), "optimizer": rng.choice(["adam", "momentum"], n_models),
        "lr": rng.choice([1e-3, 3e-3], n_models), "subset": rng.choice(["full", "frac=0.5", "label_noise_frac=0.2"], n_models),
    }  # fmt: skip
    table: dict[str, Any] = {k: pa.array(v) for k, v in {"model_id": ids, "split": split, **levels}.items()}
    rows = np.repeat(np.arange(n_models), STEPS)
    snapshots = {k: v.take(pa.array(rows)) for k, v in table.items()}
    snapshots["step"] = pa.array(np.tile(np.arange(STEPS) * 100, n_models))
    snapshots["epoch"] = pa.array(np.tile([0.0, 1.0, 5.0, 10.0, 50.0], n_models))
    for i in range(20):  # as many metrics as a real zoo has, two lists among them
        snapshots[f"metric_{i}"] = pa.array(rng.random(n))
    per_class = pa.array(rng.integers(0, 100, 10 * n))
    for key in ("test_correct_per_class", "test_count_per_class"):
        snapshots[key] = pa.ListArray.from_arrays(pa.array(np.arange(0, 10 * n + 1, 10, np.int32)), per_class)
    snapshots["shard"] = pa.array(np.array(names)[of_shard[rows]])
    snapshots["tensor"] = pa.array(np.full(n, layout))
    snapshots["row"] = pa.array(np.arange(n) - np.concatenate([[0], np.cumsum(counts)])[of_shard[rows]])
    snapshots["weights_sha256"] = pa.array(np.char.mod("%064x", np.arange(n)))
    for config, columns, at in (("models", table, cut), ("snapshots", snapshots, cut * STEPS)):
        whole = pa.table(columns)
        for part, (start, stop) in zip(PARTS, itertools.pairwise(at), strict=True):
            path = paths.table(config, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(whole.slice(start, stop - start), path, compression="zstd", row_group_size=max(1, int(stop - start)),
                           data_page_size=8_000_000, write_page_index=True, write_page_checksum=True)  # fmt: skip
    manifest = {
        "format_version": 1, "zoo": f"weightzoo/{name}", "identity": {"document": {}}, "weights_dtype": "float32",
        "axes": {k: sorted(map(str, set(v.tolist()))) for k, v in levels.items()}, "factors": list(levels), "inline_weights": False,
        "counts": {c: dict(zip(PARTS, (np.diff(cut) * k).tolist(), strict=True)) for c, k in (("models", 1), ("snapshots", STEPS))},
        "digests": {"weights": "0"}, "architectures": {}, "sources": [],
        "layouts": {layout: architecture.layout.to_json()} if architecture else {},
        "files": [files.record(paths.root, p) for p in sorted(paths.root.rglob("*.*")) if p.is_file()],
    }  # fmt: skip
    files.write_json(paths.manifest, manifest)
    return paths.root


def turns(
    candidates: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of every candidate in every round, after one that does not count.

    CPU seconds of this process, blind to other work on the cores, unless worker processes do part of it.
    """
    for run in candidates.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = clock()
            run()
            found[name].append(clock() - start)
    return found


def after_the_first(batches: Any) -> float:
    """Wall seconds of an epoch behind its first batch, which waits for worker processes to start."""
    rest = iter(batches)
    next(rest)
    start = time.perf_counter()
    for _ in rest:
        pass
    return time.perf_counter() - start


def reading(scratch: pathlib.Path, n: int, rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Random batches, DataLoader and sequential reads of n snapshots of 2,464 values."""
    architecture = build_architecture("small-cnn", (1, 28, 28), 10)
    width = architecture.n_params
    zoo = open_zoo(synthetic(scratch, "three", n, architecture))
    forty = open_zoo(synthetic(scratch, "forty", n, architecture, 40))
    flat = scratch / "flat.bin"
    np.asarray(zoo.weights[:]).tofile(flat)
    limit = np.memmap(flat, "<f4", "r", 0, (n, width))
    train = zoo.select(split="train")
    peers = scratch / "pt"
    peers.mkdir()
    n_peers = min(n, 2000)
    for i in range(n_peers):
        torch.save(modules.to_state_dict(limit[i], architecture), peers / f"{i}.pt")

    def peer(index: np.ndarray) -> np.ndarray:
        states = [torch.load(peers / f"{i}.pt", weights_only=True) for i in index.tolist()]
        return np.stack([np.concatenate([t.numpy().ravel() for t in s.values()]) for s in states])

    inline = scratch / "inline.parquet"
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(limit).reshape(-1)), width)
    pq.write_table(pa.table({"weights": column}), inline, compression="none", use_dictionary=False, row_group_size=6000)
    loaded = weights(
        datasets.load_dataset("parquet", data_files=str(inline), cache_dir=str(scratch / "cache"), split="train")
    )
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, len(train), BATCH) for _ in range(200)]
    few = [b % n_peers for b in batches[:4]]
    assert np.array_equal(zoo.weights[batches[0]], limit[batches[0]])
    assert np.array_equal(loaded[batches[0]], limit[batches[0]])
    mapped, ours = zoo.dataset(), zoo.loader(BATCH)
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "collate_fn": mapped.collate}
    buffer, memory = np.empty((256, width), np.float32), np.array(limit)

    def over(read: Callable[[np.ndarray], Any], what: list[np.ndarray] = batches) -> Callable[[], None]:
        def run() -> None:
            for b in what:  # each batch is dropped, as in training: a list of all would measure fresh pages
                read(b)

        return run

    def sequential(source: Any) -> Callable[[], None]:
        return lambda: (
            [np.copyto(buffer[: len(s)], s) for i in range(0, n, 256) if len(s := source[i : i + 256])] and None
        )

    def drain(batches: Any) -> Callable[[], None]:
        return lambda: [None for _ in batches] and None

    random = BATCH * len(batches)
    candidates = {
        "np.memmap": (over(lambda b: limit[b]), random),
        "random, one shard": (over(lambda b: train.weights[b]), random),
        "random, all shards": (over(lambda b: zoo.weights[b]), random),
        "random, 40 shards": (over(lambda b: forty.weights[b]), random),
        "weights(ds) of load_dataset": (over(lambda b: loaded[b]), random),
        "one .pt per model": (over(peer, few), BATCH * len(few)),
        "DataLoader, 0 workers": (drain(DataLoader(mapped, **options)), n),
        "DataLoader of a stream, 0 workers": (drain(DataLoader(WeightsStream(zoo, BATCH), batch_size=None)), n),
        "Loader, 0 workers": (drain(ours), n),
        "memory copy": (sequential(memory), n),
        "np.memmap, sequential": (sequential(limit), n),
        "sequential": (sequential(zoo.weights), n),
    }
    found = turns({k: run for k, (run, _) in candidates.items()}, rounds)
    slow: dict[str, Any] = {
        "DataLoader, 2 workers": lambda: DataLoader(mapped, num_workers=2, **options),
        "Loader, 2 workers": lambda: zoo.loader(BATCH, workers=2),
    }
    limit_by_wall = turns({"np.memmap": candidates["np.memmap"][0]}, 3, time.perf_counter)["np.memmap"]
    for name, make in slow.items():
        found[name] = [after_the_first(make()) for _ in range(3)]
    table = []
    for name, rows in {**{k: rows for k, (_, rows) in candidates.items()}, **dict.fromkeys(slow, n - BATCH)}.items():
        against = "memory copy" if "sequential" in name or name == "memory copy" else "np.memmap"
        base = candidates[against][1]
        paired = zip(found[name], limit_by_wall if name in slow else found[against], strict=False)
        table.append({
            "what": name, "rows_per_s": round(rows / statistics.median(found[name])), "against": against,
            "ratio": round(statistics.median(b / base / (t / rows) for t, b in paired), 3), "goal": GOALS.get(name),
        })  # fmt: skip
    files_of = {t["what"]: t["rows_per_s"] for t in table}
    return table, {
        "times_a_pt_folder": round(files_of["random, all shards"] / files_of["one .pt per model"]), "goal": 500,
        "snapshots": n, "n_params": width, "batch": BATCH, "pt_files": n_peers,
    }  # fmt: skip


OPENING = """
import json, sys, time
def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
start = time.perf_counter(); import zoo_datasets; imported = time.perf_counter() - start
loaded = [m for m in ("torch", "ray", "sklearn", "datasets", "pandas") if m in sys.modules]
start = time.perf_counter(); open_zoo = zoo_datasets.open_zoo; reader = time.perf_counter() - start
start = time.perf_counter(); zoo = open_zoo(sys.argv[1]); text = repr(zoo); opened = time.perf_counter() - start
held = megabytes()
start = time.perf_counter(); found = zoo.select(lr=1e-3, optimizer="adam"); first = time.perf_counter() - start
start = time.perf_counter(); found = zoo.select(subset="full", epoch=[0, 50]); second = time.perf_counter() - start
start = time.perf_counter(); zoo.select(lr=1e-3, optimizer="adam"); again = time.perf_counter() - start
print(json.dumps({"import_s": imported, "import_reader_s": reader, "imported": loaded, "open_s": opened, "open_MB": held,
                  "select_s": first, "other_select_s": second, "same_select_s": again, "MB": megabytes(), "rows": len(zoo)}))
"""


def opening(scratch: pathlib.Path, rows: int, rounds: int) -> dict[str, Any]:
    """Import, open and select with so many snapshot rows: medians over fresh processes."""
    root = synthetic(scratch, "long", rows, None)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[1])}
    runs = []
    for _ in range(rounds + 1):
        done = subprocess.run(
            [sys.executable, "-c", OPENING, str(root)], capture_output=True, text=True, env=environment, check=True
        )
        runs.append(json.loads(done.stdout))
    return {
        k: round(statistics.median(r[k] for r in runs[1:]), 4) if isinstance(v, (int, float)) else v
        for k, v in runs[0].items()
    }


def evaluating(activation: str, rounds: int, n_models: int, n_images: int, device: str) -> dict[str, Any]:
    """The 2,464-parameter CNN on shared images: as `zoo.evaluate` does, by torch batched, and a loop over modules."""
    architecture = build_architecture("small-cnn", (1, 28, 28), 10, activation)
    rng = np.random.default_rng(2)
    vectors = (rng.standard_normal((n_models, architecture.n_params)) / 10).astype(np.float32)
    images = torch.from_numpy(rng.standard_normal((n_images, 1, 28, 28)).astype(np.float32)).to(device)
    labels = rng.integers(0, 10, n_images)
    logits, forward = logits_of(architecture, images.cpu().numpy(), device), Forward(architecture, device)
    few = max(1, n_models // 8)  # a loop takes as long for each

    def ours() -> list[Any]:
        return [scoring.score(one, labels, "cross_entropy") for one in logits(vectors)]

    def batched() -> list[Any]:
        return [scoring.score(one, labels, "cross_entropy") for one in forward.logits(vectors, images).numpy()]

    @torch.inference_mode()
    def loop(size: int) -> list[Any]:
        scores = []
        for vector in vectors[:few]:
            network = modules.Network(architecture).load_vector(vector).eval().to(device)
            logits = torch.cat([network(part).cpu() for part in images.split(size)])
            scores.append(scoring.score(logits.numpy(), labels, "cross_entropy"))
        return scores

    same = max(abs(a["loss"] - b["loss"]) for a, b in zip(ours(), loop(1000), strict=False))
    candidates: dict[str, Callable[[], Any]] = {"evaluate": ours, "torch, batched": batched}
    candidates |= {f"loop, {size}": functools.partial(loop, size) for size in (64, 256, 1000)}
    found = turns(candidates, rounds, time.process_time if device == "cpu" else time.perf_counter)
    each = {k: [t / (few if k.startswith("loop") else n_models) for t in v] for k, v in found.items()}
    return {
        "activation": activation, "models": n_models, "of them in the loops": few, "images": n_images, "device": device,
        "threads": torch.get_num_threads(), "ms_per_model": {k: round(1e3 * statistics.median(v), 2) for k, v in each.items()},
        "times_faster_than": {
            k: round(statistics.median(b / a for a, b in zip(each["evaluate"], v, strict=True)), 2)
            for k, v in each.items() if k != "evaluate"
        },
        "extrapolated_s_for_1000_models_on_10000_images": round(1e7 / n_images * statistics.median(each["evaluate"]), 1),
        "largest_loss_difference": same, "goal": 5,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--snapshots", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("reading", "opening", "evaluating"))
    options = parser.parse_args()
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    versions = {m.__name__: m.__version__ for m in (np, pa, torch, datasets)}
    record: dict[str, Any] = json.loads(RESULT.read_text()) if options.only and RESULT.exists() else {}
    record["conditions"] = {
        "python": platform.python_version(), **versions, "cores": os.cpu_count(), "how": "one process, one thread, page cache warm, candidates in turn; medians over rounds of CPU seconds (wall "
        "seconds where worker processes take part, and for opening), ratios within a round",
    }  # fmt: skip
    for section in ("reading", "opening", "evaluating"):
        if options.only in (None, section):
            record.setdefault("rounds", {})[section] = (
                min(options.rounds, 5) if section == "evaluating" else options.rounds
            )
    with tempfile.TemporaryDirectory(prefix="zoo-loading-") as folder:
        scratch = pathlib.Path(folder)
        if options.only in (None, "reading"):
            record["reading"], record["against_pt_folder"] = reading(scratch, options.snapshots, options.rounds)
            print(f"{'':34} {'rows/s':>10} {'ratio':>7}  goal")
            for t in record["reading"]:
                print(
                    f"{t['what']:34} {t['rows_per_s']:>10,} {t['ratio']:>7.3f}  {t['goal'] or ''}  (of {t['against']})"
                )
            print("against one .pt per model:", record["against_pt_folder"])
        if options.only in (None, "opening"):
            record["opening"] = opening(scratch, options.rows, options.rounds)
            print("opening:", record["opening"])
        if options.only in (None, "evaluating"):
            key = "evaluating" if options.device == "cpu" else f"evaluating_{options.device}"
            arguments = (min(options.rounds, 5), options.models, options.images, options.device)
            record[key] = [evaluating(activation, *arguments) for activation in ("relu", "tanh", "gelu")]
            for e in record[key]:
                print("evaluating:", e)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
