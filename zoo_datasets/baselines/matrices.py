"""Weights of one layer → their products with learned probes → numbers about the network.

In:  networks of one layout; of each, one weight as a matrix (to, from·k). Out: predictions from its responses X·U.

In the manner of Horwitz et al., "Learning on Model Weights using Tree Experts" (ProbeX, 2025): probes U, a projection shared by
all responses, and a reader. Units have no common order in networks of independent initializations, and nothing here looks
for one: it is for children of one checkpoint. Which layer is read is chosen on validation, among the four largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zoo_datasets.baselines.interface import View, matrix
from zoo_datasets.baselines.learning import MOST_TRIALS, Inputs, Neural, Standard, Training, Trial
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layout import Entry

HIDDEN = 256  # of the reader


class Network(nn.Module):
    """Flat weights (B, P) → (B, outputs)."""

    def __init__(self, entry: Entry, outputs: int, probes: int) -> None:
        super().__init__()
        self.entry, outs = entry, entry.shape[0]
        ins = entry.size // outs
        self.probes = nn.Parameter(torch.randn(ins, probes) / ins**0.5)
        self.project = nn.Linear(outs, probes)
        self.read = nn.Sequential(nn.Linear(probes**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        x = vectors[:, self.entry.offset : self.entry.end].reshape(len(vectors), self.entry.shape[0], -1)
        responses = (x @ self.probes).transpose(1, 2)  # (B, probes, to)
        return self.read(torch.relu(self.project(responses)).flatten(1))


class MatrixProbes(Neural):
    """Probes on one weight matrix; published with 128 of them, Adam at 1e-3 and decay 1e-5."""

    name = "matrix-probes"

    def __init__(
        self, probes: int = 32, training: Training = Training(epochs=60, batch=64, decay=1e-5),  # noqa: B008
        trials: Sequence[Trial] = (),
    ) -> None:  # fmt: skip
        super().__init__(training, trials)
        self.probes = probes

    def prepare(self, train: View) -> None:
        self.layout = train.layout
        self.standard = Standard.by_position(train.matrix)  # children of one start differ from it by little
        found = [e for e in self.layout.layout if e.role == "parameter" and len(e.shape) > 1]
        if not found:
            raise ZooError("The networks have no weight that is a matrix, and this baseline reads one.")
        self.entries = tuple(sorted(found, key=lambda e: -e.size)[:MOST_TRIALS])
        self.trials = tuple({"layer": i} for i in range(len(self.entries)))

    def inputs(self, view: View) -> Inputs:
        vectors = torch.from_numpy(self.standard(matrix(view, self.layout)))
        return lambda rows, _rng: vectors[rows]

    def network(self, outputs: int, **options: Any) -> nn.Module:
        return Network(self.entries[int(options.get("layer", 0))], outputs, self.probes)
