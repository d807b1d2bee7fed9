"""A border on which every kind of break is planted, one a trial: what shows that the harness sees them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def prepare(folder: Path) -> None:
    (folder / "trials").write_text("")


def trial(rng: np.random.Generator, folder: Path) -> str:
    with (folder / "trials").open("a") as done:
        done.write(".")
    match len((folder / "trials").read_text()):
        case 1:
            raise KeyError("weights")
        case 2:
            os.kill(os.getpid(), 9)
        case 3:
            return "held" * bool(np.ones(150_000_000).any())
        case 4:
            return "accepted"
    return "refused"
