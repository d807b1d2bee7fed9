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


class BiasCorrections:
    """1 − βᵢᵗ of Adam, of runs that take at most so many steps; βᵗ is one running product."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.powers: dict[float, np.ndarray] = {}  # β → β¹, β², …

    def __call__(self, run: Run, first: int, count: int) -> np.ndarray:
        """For t = first + 1 …, float64 [2, count]; a function of t alone, whatever the window."""
        first += run.start.updates if run.start else 0
        result = np.ones((2, count))
        for i, name in enumerate(("beta1", "beta2")):
            beta = run.settings[name]
            if beta is not None:
                if beta not in self.powers:
                    self.powers[beta] = np.multiply.accumulate(np.full(self.most, beta))
                result[i] = 1.0 - self.powers[beta][first : first + count]
        return result
