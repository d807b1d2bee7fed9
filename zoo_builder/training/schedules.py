"""A run's settings → numbers per step: learning rates and bias corrections.

Functions of the settings and the step alone, whatever windows the loop takes, in exact
arithmetic: the same bits on every machine.
"""

from __future__ import annotations

import numpy as np

from zoo_builder.planning.runs import Run
from zoo_datasets.core import exact


def learning_rates(run: Run, first: int, count: int, steps_per_epoch: int, total: int) -> np.ndarray:
    """Learning rate of `count` steps of one epoch from step `first` on, float64 [count].

    `step` and `exponential` multiply by gamma at epoch ends; `cosine` (Loshchilov & Hutter
    2017, without restarts) goes from lr at step 0 to final_frac · lr at the end, per step.
    """
    s = run.settings
    kind, lr = s["schedule_kind"], s["lr"]
    if kind == "cosine":
        f, steps = s["schedule_final_frac"], range(first, first + count)
        return np.array([lr * (f + (1 - f) * (1 + exact.cosine_half(t / max(total, 1))) / 2) for t in steps])
    if kind == "constant":
        return np.full(count, lr)
    every = s["schedule_every_epochs"] if kind == "step" else 1
    return np.full(count, lr * float(exact.power(s["schedule_gamma"], first // steps_per_epoch // every)))


BLOCK = 1024  # powers worked out at once: microseconds


class BiasCorrections:
    """1 − βᵢᵗ of Adam; βᵗ is one running product, of which the ends of blocks are remembered."""

    def __init__(self) -> None:
        self.ends: dict[float, list[float]] = {}  # β → β⁰, β¹⁰²⁴, …
        self.recent: dict[float, tuple[int, np.ndarray]] = {}  # β → a block and its powers

    def __call__(self, run: Run, first: int, count: int) -> np.ndarray:
        """For t = first + 1 …, float64 [2, count]; a function of t alone, whatever the window."""
        first += run.start.updates if run.start else 0
        result = np.ones((2, count))
        for i, name in enumerate(("beta1", "beta2")):
            beta = run.settings[name]
            if beta is not None and count:
                blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
                powers = np.concatenate([self._block(beta, block) for block in blocks])
                result[i] = 1.0 - powers[first % BLOCK :][:count]
        return result

    def _block(self, beta: float, block: int) -> np.ndarray:
        """β to the powers from block · 1024 + 1 on, float64 [1024]."""
        if beta not in self.recent or self.recent[beta][0] != block:
            ends = self.ends.setdefault(beta, [1.0])
            while len(ends) <= block:
                ends.append(float(_powers(beta, ends[-1])[-1]))
            self.recent[beta] = block, _powers(beta, ends[block])
        return self.recent[beta][1]


def _powers(beta: float, before: float) -> np.ndarray:
    factors = np.full(BLOCK, beta)
    factors[0] *= before
    return np.multiply.accumulate(factors)
