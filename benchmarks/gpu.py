"""One command for a GPU: does training on it keep its promises, how fast is it, and against what.

    python benchmarks/gpu.py [--minutes 8] [--out DIR] [--skip tests,rates,build] [--device cuda]

Needs PyTorch with CUDA, NumPy, pyarrow, safetensors, scikit-learn, SciPy, PyYAML, Pillow and this checkout; for its
first step pytest, Hypothesis, jaxtyping and beartype too. No network, no Ray, no `datasets`; with the compiled kernels
the last step has a native side too. In this order, each step timed, and everything written as it goes to `gpu.json` and `gpu.md` in DIR:

1. `device`: what it is, its rate of float32 products and of copies.
2. `tests`: `pytest -m gpu tests/engines`.
3. `draws`: training steps per second with the augmentation of the Neural Weight Space and with dropout, drawn by the device and
   by the host, against none.
4. `rates`: training steps per second of cohorts of 16 to 4,096 models, with and without CUDA graphs, their memory, and
   their share of the device's products; against one process per model (as many as there are cores), and `vmap`.
5. `build`: a zoo of 4,096 small CNNs with snapshots and evaluation, against the native engine on all cores.

`--device cpu --tiny` is a dry run of all of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout that is not installed is enough

import gpu_peers
from gpu_table import table
from workloads import DROPPING, WORKLOADS, Workload, data_of, job_of, window_of

from zoo_builder.engines import gpu_memory, torch_batched
from zoo_builder.engines.torch_batched import TorchBatched
from zoo_datasets.networks import kernels
from zoo_datasets.networks.augmentation import Augmentation, Distortion

HERE = Path(__file__).parent
ROOT = HERE.parent
STEPS = ("tests", "draws", "rates", "build")
COHORTS = (16, 64, 256, 1024, 4096)
DRAWN = {
    "augmentation": lambda models: {"augmentation": Augmentation(fill=(0.0,), distortion=NWS)},
    "dropout": lambda models: {"dropout_rate": np.full(models, 0.25)},
}  # what a job has besides
NWS = Distortion(
    translate=3, rotate=15, zoom=0.099, shear=3, brightness=0.2, contrast=(0.5, 1.5), hue=0.08, saturation=(0.3, 1.5), noise=0.03,
    mean=(0.0,) * 3, std=(1.0,) * 3,
)  # as grids/nws  # fmt: skip
GRID = """\
zoo: weightzoo/gpu
source: {{id: digits, train: 1200, validation: 297, test: 300, resize: 28}}
architecture: small-cnn
seed: {seed}
axes:
  lr: [3e-3, 1e-3]
  activation: [tanh, relu]
replicates: {replicates}
training: {{epochs: {epochs}, batch_size: 32}}
snapshots: {{epochs: [0, 1, {epochs}]}}
"""


class Log:
    """Results, written at every change; and what is said meanwhile."""

    def __init__(self, out: Path) -> None:
        self.out, self.result, self.started = out, {}, time.monotonic()  # type: Path, dict[str, Any], float
        out.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def keep(self, **values: Any) -> None:
        self.result |= values
        (self.out / "gpu.json").write_text(json.dumps(self.result, indent=1) + "\n")
        (self.out / "gpu.md").write_text(table(self.result))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self.say(f"── {name}")
        yield
        self.keep(seconds=self.result.get("seconds", {}) | {name: round(time.monotonic() - started, 1)})


# ── 1. the device ──────────────────────────────────────────────────────────────────────


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: str, times: int) -> float:
    """Median by the clock of one call, after one that is not counted; the device is waited for."""
    found = []
    for _ in range(times + 1):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:]))


def about(device: str, tiny: bool) -> dict[str, Any]:
    side, values = (256, 2**16) if tiny else (8192, 2**30)
    factors, memory = torch.randn(2, side, side, device=device), torch.zeros(2, values, device=device)
    product = 2 * side**3 / seconds(lambda: factors[0] @ factors[1], device, 5)
    copy = 8 * values / seconds(lambda: memory[0].copy_(memory[1]), device, 5)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "driver": _driver() if device == "cuda" else None, "cuda": torch.version.cuda,
        "memory_bytes": gpu_memory.total() if device == "cuda" else None, "cores": os.cpu_count(),
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(), "commit": _commit(),
        "product_flops": product, "copy_bytes_per_s": copy, "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\n")[0].strip() or None


def _commit() -> str | None:
    """Of this checkout; a copy without its history is told by `GIT_COMMIT`."""
    if given := os.environ.get("GIT_COMMIT"):
        return given
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return None
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None


# ── 2. the tests ───────────────────────────────────────────────────────────────────────


def tests(device: str, tiny: bool) -> dict[str, Any]:
    marks = "gpu" if device == "cuda" else "slow and not gpu"
    chosen = ["-k", "update_rule or most_active"] if tiny else []
    call = [sys.executable, "-m", "pytest", "-q", "-m", marks, "tests/engines/test_gpu.py", "-p", "no:cacheprovider"]
    call += ["-W", "default", *chosen]
    if device == "cuda":
        call[6:6] = ["tests/engines/test_gpu_kernels.py", "tests/engines/test_gpu_draws.py"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.strip().split("\n")[-1] if done.stdout.strip() else done.stderr.strip().split("\n")[-1]
    return {
        "passed": done.returncode == 0,
        "summary": last,
        "output": "" if done.returncode == 0 else done.stdout[-6000:],
    }


# ── 3. rates ───────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class Clock:
    """Time that is left, and how long one measurement may last."""

    end: float
    each: float

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end


def ours(
    name: str, models: int, graphs: bool, device: str, clock: Clock, drawn: str = "", drawing: bool | None = None
) -> dict[str, Any]:
    """Training steps of all models per second by the clock, windows of 32 steps, host work included.

    `drawn` is one of `DRAWN`, and `drawing` whether the device draws it.
    """
    w = _workload(name)
    pool, labels = data_of(w)
    free()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before, least = torch_batched.GRAPH_STEPS, gpu_memory.MOST_MODELS
    torch_batched.GRAPH_STEPS = before if graphs else 2**31
    gpu_memory.MOST_MODELS = models  # as wide as the cohort, where memory allows it
    try:
        job = dataclasses.replace(job_of(w, models, pool), **(DRAWN[drawn](models) if drawn else {}))
        backend, generator = TorchBatched(job, device, drawing=drawing), np.random.default_rng(1)
        width = min(models, backend.width)
        steps = max(8, min(32, 2**24 // (models * w.batch)))
        windows = [window_of(w, models, steps, labels, 0, generator) for _ in range(2)]
        backend.advance(windows[0])
        wait(device)
        started, done = time.perf_counter(), 0
        while not done or (time.perf_counter() - started < clock.each and done < 1000):
            window = windows[done % 2]
            backend.advance(dataclasses.replace(window, first_step=(done + 1) * steps))
            done += 1
        elapsed = time.perf_counter() - started
    finally:
        torch_batched.GRAPH_STEPS, gpu_memory.MOST_MODELS = before, least
    rate = done * steps * models / elapsed
    found = {"models": models, "side_by_side": width, "graphs": graphs, "steps_per_s": rate, "flops": rate * w.flop}
    if device == "cuda":
        found["bytes_per_model"] = torch.cuda.max_memory_allocated() / width
        found["planned_bytes_per_model"] = gpu_memory.per_model(w.architecture, w.batch)
    return found


def _workload(name: str) -> Workload:
    return (WORKLOADS | {DROPPING.name: DROPPING})[name]


def draws(device: str, tiny: bool, clock: Clock, log: Log) -> None:
    """Steps per second with draws and without, in rounds; of few models by the host too, once, which takes long.

    A device that is a CPU is told its draws.
    """
    found: list[dict[str, Any]] = []
    for name, drawn, models in (
        ("W6", "augmentation", 16), ("W6", "augmentation", 256), (DROPPING.name, "dropout", 16), (DROPPING.name, "dropout", 1024),
    ):  # fmt: skip
        sides: dict[str, bool | None] = {"device": None} if device == "cuda" else {}
        if models == 16:
            sides["host"] = False
        models = min(models, 2) if tiny else models
        entry: dict[str, Any] = {"workload": name, "what": _workload(name).what, "drawn": drawn, "models": models}
        cases: dict[str, tuple[str, bool | None]] = {"none": ("", None)}
        cases |= {side: (drawn, drawing) for side, drawing in sides.items()}
        each: dict[str, list[float]] = {case: [] for case in cases}
        for turn in range(1 if tiny else 3):
            for case, given in cases.items():
                if case == "host" and turn:
                    continue
                each[case].append(ours(name, models, True, device, clock, *given)["steps_per_s"])
        found.append(entry | {"steps_per_s": {case: float(np.median(r)) for case, r in each.items()}})
        log.say(json.dumps(found[-1]))
        log.keep(draws=found)


def rates(device: str, tiny: bool, clock: Clock, log: Log) -> None:
    names = ("W1", "W3") if tiny else tuple(WORKLOADS)
    cohorts = (2, 4) if tiny else COHORTS
    found: list[dict[str, Any]] = []
    many = gpu_peers.Processes(device, 2 if tiny else os.cpu_count() or 1)
    try:
        for name in names:
            entry: dict[str, Any] = {"workload": name, "what": WORKLOADS[name].what, "batch": WORKLOADS[name].batch}
            entry["flop_per_step"] = WORKLOADS[name].flop
            found.append(entry)
            entry["ours"] = []
            for models in cohorts:
                for graphs in (True, False):
                    if clock.over:
                        entry["cut"] = "time"
                        continue
                    try:
                        measured = ours(name, models, graphs, device, clock)
                    except Exception as error:  # the others are worth having
                        measured = {
                            "models": models,
                            "graphs": graphs,
                            "error": f"{type(error).__name__}: {error}"[:300],
                        }
                    entry["ours"].append(measured)
                    log.say(f"{name} {json.dumps(measured)}")
                    log.keep(rates=found)
            for key, peer in (("one_process", gpu_peers.one), ("vmap_16", gpu_peers.vmapped)):
                if not clock.over:
                    try:
                        entry[key] = peer(name, device, clock.each)
                    except Exception as error:
                        entry[key] = {"error": f"{type(error).__name__}: {error}"[:300]}
                    log.say(f"{name} {key} {json.dumps(entry[key])}")
            if not clock.over:
                entry["processes"] = many.rate(name, 2 * clock.each)
                log.say(f"{name} processes {json.dumps(entry['processes'])}")
            log.keep(rates=found)
    finally:
        many.close()


# ── 4. a build ─────────────────────────────────────────────────────────────────────────


def build(device: str, tiny: bool, log: Log) -> None:
    replicates, epochs = (1, 2) if tiny else (1024, 10)
    cores = min(2, os.cpu_count() or 1) if tiny else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"models": 4 * replicates, "epochs": epochs, "cores": cores}
        started = time.monotonic()
        _run([_call(Path(folder), "one", 0, replicates, epochs, "--device", device)])
        found["seconds"] = time.monotonic() - started
        log.keep(build=found)
        log.say(f"build {json.dumps(found)}")
        if (missing := kernels.missing()) is not None:
            found["native"] = missing
        else:
            started = time.monotonic()
            share = max(1, replicates // cores)
            _run([_call(Path(folder), f"core{i}", i + 1, share, epochs) for i in range(cores)])
            found["native_seconds"] = (time.monotonic() - started) * replicates / (share * cores)
        log.keep(build=found)
        log.say(f"build {json.dumps(found)}")


def _call(folder: Path, name: str, seed: int, replicates: int, epochs: int, *more: str) -> list[str]:
    recipe = folder / f"{name}.yaml"
    recipe.write_text(GRID.format(seed=seed, replicates=replicates, epochs=epochs))
    out = str(folder / name)
    return [sys.executable, "-m", "zoo_builder", "--grid", str(recipe), "--out", out, "--workers", "0", *more]


def _run(calls: list[list[str]]) -> None:
    """All at once. Raises RuntimeError with what the first that failed said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in calls
    ]
    said = [process.communicate()[0] for process in running]
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            raise RuntimeError(text[-2000:])


def main() -> None:
    parser = argparse.ArgumentParser(description="What training on this machine's GPU does, and how fast.")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--skip", default="", help="of tests,draws,rates,build")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the script itself")
    options = parser.parse_args()
    skipped = [s for s in options.skip.split(",") if s]
    if unknown := set(skipped) - set(STEPS):
        parser.error(f"--skip {','.join(sorted(unknown))}: known are {', '.join(STEPS)}")
    if options.device == "cuda":
        from zoo_builder.engines import devices
        from zoo_datasets.errors import ZooError

        try:
            devices.check("cuda")
        except ZooError as error:
            sys.exit(f"error: {error}")
    log = Log(options.out)
    end = log.started + 60 * options.minutes
    with log.step("device"):
        log.keep(about=about(options.device, options.tiny))
        log.say(json.dumps(log.result["about"]))
    if "tests" not in skipped:
        with log.step("tests"):
            log.keep(tests=tests(options.device, options.tiny))
            log.say(log.result["tests"]["summary"] + log.result["tests"]["output"])
    if "build" not in skipped:  # before the rates, which take what time is left
        with log.step("build"):
            build(options.device, options.tiny, log)
    if "draws" not in skipped:
        with log.step("draws"):
            draws(options.device, options.tiny, Clock(end, 0.05 if options.tiny else 0.5), log)
    if "rates" not in skipped:
        with log.step("rates"):
            rates(options.device, options.tiny, Clock(end, 0.05 if options.tiny else 0.5), log)
    print((options.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
