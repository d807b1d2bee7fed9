"""What the documented base install gives: everything but networks, without what only extras bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What the extras bring but for PyYAML and tqdm, on which huggingface_hub stands too.
HIDDEN = ("torch", "ray", "sklearn", "PIL", "matplotlib", "networkx", "threadpoolctl")


HIDE = f"""
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {HIDDEN!r} else super().find_spec(name, path, target)

sys.meta_path = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def on_the_base_install(code: str, folder: Path) -> str:
    """What code prints in a Python of its own that finds no library of the extras."""
    command = [sys.executable, "-W", "error", "-c", HIDE + code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_dataset_needs_no_torch(tiny_zoo: Path, tmp_path: Path) -> None:
    code = (
        "from zoo_datasets import open_zoo, weights\n"
        "zoo = open_zoo(sys.argv[1]).select(epoch=2)\n"
        "ds = zoo.to_hf(['model_id'])\n"
        "print(ds.num_rows, ds.column_names, (weights(ds)[:] == zoo.weights[:]).all())\n"
    )
    assert on_the_base_install(code, tiny_zoo) == "16 ['model_id', 'weights'] True"


def test_effects_and_scores_need_no_extra(tiny_zoo: Path) -> None:
    code = (
        "from zoo_datasets import metrics, open_zoo\n"
        "zoo = open_zoo(sys.argv[1])\n"
        "print([e.n_pairs for e in zoo.effect('subset')])\n"
        "print([round(metrics.SCORES[m]([0, 1, 1, 0], [0, 1, 0, 0]), 3) for m in ('kendall', 'balanced_accuracy', 'auc')])\n"
    )
    assert on_the_base_install(code, tiny_zoo).splitlines() == ["[8]", "[0.577, 0.75, 0.75]"]
