"""Networks → their graphs → numbers about them: a graph network over neurons.

In:  a view of any architectures. Out: predictions from the states of the output units, after rounds of messages.

After Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of Neural Networks" (2024), in the
form NG-GNN: Fourier features of weights and biases, positions of layers, PNA layers (Corso et al. 2020) whose messages are
scaled and shifted by the connection, and connections that change from layer to layer. Blind to the order of hidden units.
Which activation a unit has is told where `activation` is set: that leaks the recipe, so it is off by default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_datasets.baselines.interface import View
from zoo_datasets.baselines.learning import Inputs, Neural, Training, Trial
from zoo_datasets.baselines.wiring import ACTIVATIONS, Batch, Sizes, Wired, mean_log_degree
from zoo_datasets.core import libraries

with libraries.needed():
    import torch
    from torch import nn

SIGMA = 3.0  # of the frequencies, as published for this form
LEAST_SPREAD = 1e-5  # variance under the root of a standard deviation
TRAINING = Training(epochs=50, batch=32, rate=1e-3, decay=5e-4)


class Fourier(nn.Module):
    """Values (…, K) → sines and cosines of random directions → (…, d)."""

    frequencies: torch.Tensor

    def __init__(self, inputs: int, count: int, d: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", SIGMA * torch.randn(inputs, count))
        self.first, self.second = nn.Linear(2 * count, d), nn.Linear(d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = x @ self.frequencies
        return self.second(self.first(torch.cat([angles.sin(), angles.cos()], -1)))


class Messages(nn.Module):
    """One PNA layer: states of units (m, n, d) and of links (m, to, from, d) → the same, after one round."""

    def __init__(self, d: int, degree: float, last: bool) -> None:
        super().__init__()
        self.degree = degree
        self.of_target, self.of_source = nn.Linear(d, d), nn.Linear(d, d, bias=False)
        self.film = nn.Linear(d, 2 * d)
        self.update = nn.Linear(9 * d, d)  # a unit's own state, and four means of gathering at two scales
        self.norm = nn.LayerNorm(d)
        self.edge, self.edge_source = nn.Linear(d, d), nn.Linear(d, d, bias=False)
        self.edge_target, self.edge_out = nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.last = last

    def forward(
        self, batch: Batch, units: Sequence[torch.Tensor], links: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        gathered: list[list[torch.Tensor]] = [[] for _ in units]
        for link, e in zip(batch.wiring.links, links, strict=True):
            scale, shift = self.film(e).chunk(2, -1)
            pair = self.of_target(units[link.target])[:, :, None] + link.senders(self.of_source(units[link.source]))
            gathered[link.target].append(torch.addcmul(shift, scale, pair))  # (m, to, from, d)
        states = []
        for x, messages in zip(units, gathered, strict=True):
            found = self._gather(torch.cat(messages, 2)) if messages else x.new_zeros(*x.shape[:2], 8 * x.shape[2])
            states.append(nn.functional.silu(self.norm(self.update(torch.cat([x, found], -1)))))
        if self.last:
            return states, []
        return states, [
            self.edge_out(nn.functional.silu(
                self.edge(e) + link.senders(self.edge_source(units[link.source])) + self.edge_target(units[link.target])[:, :, None]
            ))
            for link, e in zip(batch.wiring.links, links, strict=True)
        ]  # fmt: skip

    def _gather(self, messages: torch.Tensor) -> torch.Tensor:
        """(m, n, from, d) → (m, n, 8·d): mean, least, largest, spread; and each of them times what the degree says."""
        mean = messages.mean(2)
        spread = (messages.square().mean(2) - mean.square()).relu().add(LEAST_SPREAD).sqrt()
        found = torch.cat([mean, messages.amin(2), messages.amax(2), spread], -1)
        return torch.cat([found, found * (math.log(messages.shape[2] + 1) / self.degree)], -1)


class GraphNetwork(nn.Module):
    """Rows of a view → outputs (B, width)."""

    def __init__(self, view: View, outputs: int, d: int, layers: int, frequencies: int, activation: bool) -> None:
        super().__init__()
        sizes = Sizes.of(view)
        self.wired, self.sizes = Wired(sizes), sizes
        self.unit, self.link = Fourier(sizes.features, frequencies, d), Fourier(sizes.positions, frequencies, d)
        self.of_input, self.of_layer = nn.Embedding(sizes.inputs, d), nn.Embedding(sizes.layers, d)
        self.of_output = nn.Embedding(sizes.outputs, d)
        self.of_activation = nn.Embedding(len(ACTIVATIONS), d) if activation else None
        degree = mean_log_degree(view, sizes)
        self.rounds = nn.ModuleList(Messages(d, degree, last=i == layers - 1) for i in range(layers))
        self.read = nn.Sequential(
            nn.Linear(sizes.outputs * d, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, outputs)
        )

    def forward(self, batch: tuple[View, np.ndarray]) -> torch.Tensor:
        places, found = [], []
        for part in self.wired(*batch):
            units, links = self._embedded(part)
            for layer in self.rounds:
                units, links = layer(part, units, links)
            missing = self.sizes.outputs - units[-1].shape[1]
            found.append(nn.functional.pad(units[-1], (0, 0, 0, missing)).flatten(1))
            places.append(part.places)
        states = torch.cat(found)
        return self.read(torch.zeros_like(states).index_copy(0, torch.cat(places), states))

    def _embedded(self, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        last = len(batch.units) - 1
        units = []
        for number, values in enumerate(batch.units):
            x = self.unit(values)
            if number in (0, last):
                table = self.of_output if number else self.of_input
                x = x + table.weight[: x.shape[1]]
            else:
                x = x + self.of_layer.weight[min(number, self.sizes.layers - 1)]
                if self.of_activation is not None:
                    x = x + self.of_activation.weight[batch.wiring.activations[number]]
            units.append(x)
        return units, [self.link(values) for values in batch.links]


class NeuralGraph(Neural):
    """A graph network over neurons, of width `d`; published with d 64 or 256 and 128 frequencies."""

    name = "neural-graph"
    TRIALS = ({"rate": 5e-4}, {"rate": 1e-3}, {"rate": 2e-3}, {"rate": 1e-3, "decay": 1e-2})

    def __init__(
        self, d: int = 32, layers: int = 4, frequencies: int = 64, activation: bool = False,
        training: Training = TRAINING, trials: Sequence[Trial] = (),
    ) -> None:  # fmt: skip
        super().__init__(training, trials)
        self.options = {"d": d, "layers": layers, "frequencies": frequencies, "activation": activation}

    def prepare(self, train: View) -> None:
        self._train = train

    def inputs(self, view: View) -> Inputs:
        return lambda rows, generator: (view, rows)

    def network(self, outputs: int, **options: Any) -> nn.Module:
        return GraphNetwork(self._train, outputs, **{**self.options, **options})
