"""Learned inputs → what networks answer → whether they are trojaned: MNTD with query tuning, and Universal Litmus Patterns.

In:  a view of networks whose inputs have one shape. Out: baselines of `learning.Neural`: probes and reader learn together.

After Xu et al., "Detecting AI Trojans Using Meta Neural Analysis" (2021, arXiv:1910.03137): ten queries, their logits read by one hidden
layer of 20; and Kolouri et al., "Universal Litmus Patterns" (2020, arXiv:1906.10842): a linear reader, and a price on rough patterns. Both
publish one network a step; here 32 are run side by side on stacked weights, as `baselines.probing` does, and logits are read as asinh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo_datasets.baselines.learning import Training, Trial
from zoo_datasets.baselines.probing import Prober, Probing
from zoo_datasets.core import libraries

with libraries.needed():
    import torch
    from torch import nn

QUERIES = 10  # of either, as published
HIDDEN = 20  # of MNTD's reader


class Small(nn.Module):
    """Answers (B, T·S·C) → outputs (B, width) by one hidden layer, or by none."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.spine: nn.Module = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.last = nn.Linear(hidden or inputs, outputs)

    def forward(self, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs, and what the last layer read."""
        q = self.spine(answers)
        return self.last(q), q


class Queries(Probing):
    """Ten probes, learned value by value or left as drawn, and a small reader of their answers."""

    name = "queries"
    TRIALS = ({"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-3}, {"rate": 1e-2})

    def __init__(
        self, hidden: int = HIDDEN, probes: str = "learned", count: int = QUERIES, training: Training | None = None,
        trials: Sequence[Trial] = (),
    ) -> None:  # fmt: skip
        super().__init__(
            probes, count, training=training or Training(epochs=30, batch=32, rate=3e-3, clip=1.0), trials=trials
        )
        self.width = hidden

    def network(self, outputs: int, **options: Any) -> nn.Module:
        made = Prober(self._train, outputs, **{**self.options, **options})
        made.reader = Small(made.count * made.steps * made.classes, outputs, self.width)  # type: ignore[assignment]  # in the place of six layers
        return made


def mntd(training: Training | None = None) -> Queries:
    """Meta Neural Trojan Detection with tuned queries."""
    return Queries(training=training)


def ulp(training: Training | None = None) -> Queries:
    """Universal Litmus Patterns: no hidden layer."""
    return Queries(hidden=0, training=training)


def untuned(training: Training | None = None) -> Queries:
    """MNTD's control: queries stay as they were drawn."""
    return Queries(probes="random", training=training)
