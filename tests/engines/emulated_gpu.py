"""CUDA source → the same kernels on this CPU, thread by thread: whether they are right, without a GPU.

A compiler of `gpu.convolution` and `gpu.draws`, in the place of NVRTC. Slow; tiny sizes only.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo_datasets.networks.gpu import nvrtc

HEADER = Path(__file__).with_name("emulated_cuda.h")
OPTIONS = {"--fmad=false": "-ffp-contract=off"}  # as the compiler of a CPU calls them
SIGNATURES = {
    "convolve": ("CONVOLVE", "float *x, long long xs, float *w, float *b, float *y", "x, xs, w, b, y"),
    "weight_gradient": (
        "WEIGHT_GRADIENT",
        "float *x, long long xs, float *g, float *dw, float *db",
        "x, xs, g, dw, db",
    ),
    "max_pool": ("MAX_POOL", "float *x, float *y, unsigned char *p", "x, y, p"),
    "max_pool_gradient": ("MAX_POOL", "float *g, unsigned char *p, float *dx", "g, p, dx"),
    "dropout": (
        "DROPOUT",
        "word *keys, long long *step, long long layer, long long *least, float *scales, float *y",
        "keys, step, layer, least, scales, y",
    ),
    "augment": (
        "AUGMENT",
        "float *pool, long long *rows, word *keys, long long *step, double *numbers, float *y",
        "pool, rows, keys, step, numbers, y",
    ),
}


class Emulator:
    """Compiles into a folder, once for the same constants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[tuple[nvrtc.Source, tuple[tuple[str, int], ...]], Kernels] = {}

    @classmethod
    def here(cls, folders: pytest.TempPathFactory) -> Emulator:
        """One for a test; skips it where there is no compiler."""
        if shutil.which("g++") is None:
            pytest.skip("no g++")
        return cls(folders.mktemp("kernels"))

    def compiled(self, source: nvrtc.Source, constants: Mapping[str, int], device: torch.device) -> Kernels:
        key = source, tuple(sorted(constants.items()))
        if key not in self.made:
            stem = self.folder / f"kernels{len(self.made)}"
            text = f'#include "{HEADER}"\n#include "{nvrtc.FOLDER / source.name}"\n'
            for name, (flag, parameters, arguments) in SIGNATURES.items():
                if flag in constants:
                    text += (
                        f'extern "C" void run_{name}(unsigned gx, unsigned gy, unsigned gz, unsigned threads, {parameters})'
                        f" {{ run_grid({name}, {{gx, gy, gz}}, threads, {arguments}); }}\n"
                    )
            stem.with_suffix(".cpp").write_text(text)
            subprocess.run(
                ["g++", "-std=c++20", "-O1", "-w", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC",
                 "-pthread", *(OPTIONS[o] for o in source.options), *(f"-D{k}={v}" for k, v in key[1]), str(stem.with_suffix(".cpp")), "-o", str(stem.with_suffix(".so"))],
                check=True,
            )  # fmt: skip
            self.made[key] = Kernels(ctypes.CDLL(str(stem.with_suffix(".so"))))
        return self.made[key]


class Kernels:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def launch(self, name: str, grid: tuple[int, int, int], threads: int, *arguments: Any) -> None:
        given = [ctypes.c_longlong(a.data_ptr() if isinstance(a, torch.Tensor) else a or 0) for a in arguments]
        getattr(self.library, f"run_{name}")(*grid, threads, *given)
