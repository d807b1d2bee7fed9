"""Statistics of each tensor → an MLP: the third of three readers of the same numbers, beside ridge and boosted trees.

In:  networks of any layouts. Out: `StatisticsMlp`.

Source: Unterthiner et al., "Predicting Neural Network Accuracy from Weights" (arXiv:2002.11448), section 3, which has all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo_datasets.baselines.interface import View
from zoo_datasets.baselines.learning import Inputs, Neural, Progress, Standard, Training, Trial, perceptron
from zoo_datasets.baselines.tabular import aligned
from zoo_datasets.views.per_tensor import UNTERTHINER_2020


class StatisticsMlp(Neural):
    """MLP on mean, variance and quantiles of each tensor, standardized."""

    name = "statistics-mlp"
    TRIALS = ({"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-4, "dropout": 0.3}, {"rate": 1e-3, "dropout": 0.3})

    def __init__(
        self, *, hidden: Sequence[int] = (512, 512), dropout: float = 0.0,
        training: Training = Training(epochs=100, batch=64, rate=1e-3), trials: Sequence[Trial] = (),  # noqa: B008
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        super().__init__(training, trials, progress)
        self.hidden, self.dropout = tuple(hidden), dropout

    def prepare(self, train: View) -> None:
        self.tensors = max(sum(e.role == "parameter" for e in a.layout) for a in train.architectures)
        self.standard = Standard.by_position(self._numbers(train))

    def inputs(self, view: View) -> Inputs:
        numbers = torch.from_numpy(self.standard(self._numbers(view)).astype(np.float32))

        def read(rows: np.ndarray, rng: np.random.Generator | None) -> torch.Tensor:
            return numbers[torch.from_numpy(rows)]

        return read

    def network(self, outputs: int, **options: Any) -> nn.Module:
        """Numbers → hidden layers with ReLU → outputs."""
        hidden, dropout = options.pop("hidden", self.hidden), options.pop("dropout", self.dropout)
        return perceptron(len(self.standard.shift), hidden, outputs, dropout)

    def _numbers(self, view: View) -> np.ndarray:
        """(n, tensors · numbers) float64."""
        found = aligned(view, self.tensors, UNTERTHINER_2020)
        return found.reshape(len(view), found.shape[1] * found.shape[2])
