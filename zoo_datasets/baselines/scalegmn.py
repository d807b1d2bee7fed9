"""Networks → their graphs → numbers about them, the same for all weights of one function: a scale-equivariant graph network.

In:  a view of any architectures. Out: predictions that no order of hidden units changes, and no positive factor of a
     relu's units or sign of a tanh's.

After Kalogeropoulos et al., "Scale Equivariant Graph Metanetworks" (2024), the forward variant: connections carry
messages one way. A hidden unit's state is multiplied by what its incoming weights are multiplied by; products of
states and weights keep that, and networks in between see normalized states (relu) or even functions of them (tanh).
Which layer has which symmetry is told by `symmetry`; one that has neither (before a normalization or tanh and max pool,
of another activation, recurrent) is read by the same network with states as they are, blind to order alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_datasets.baselines.groups import finite
from zoo_datasets.baselines.interface import View
from zoo_datasets.baselines.learning import Inputs, Neural, Training, Trial
from zoo_datasets.baselines.wiring import Batch, Sizes, Wired
from zoo_datasets.core import libraries
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.registry import operation
from zoo_datasets.symmetry import factors

with libraries.needed():
    import torch
    from torch import nn

TRAINING = Training(epochs=50, batch=32, rate=1e-3, decay=0.01, warmup=200)
LEAST_NORM = 1e-10  # of a state, as published


def symmetries(architecture: Architecture) -> dict[str, str]:
    """Layer → what each of its hidden units allows: `scale` or `sign`; those that allow neither are left out."""
    plain = {n.name for n in architecture.nodes if operation(n.op).units}
    recurrent = {name for name, tensors in architecture.tensors.items() if any(t.recurrent for t in tensors)}
    return {
        source: "scale" if f.scale else "sign"
        for f in factors(architecture)
        if set(f.sources) <= plain - recurrent and set(f.sinks) <= plain
        for source in f.sources  # several where their outputs are added: one factor for all
    }


def _mlp(inputs: int, d: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, d), nn.LayerNorm(d), nn.SiLU(), nn.Linear(d, outputs))


def _gate(inputs: int, d: int) -> nn.Sequential:
    """An MLP that starts near 1: products of gates must not vanish over rounds."""
    last = nn.Linear(d, d)
    nn.init.ones_(last.bias)
    return nn.Sequential(nn.Linear(inputs, d), nn.LayerNorm(d), nn.SiLU(), last)


def _linear(inputs: int, d: int) -> nn.Linear:
    """Without a bias, which would not scale, and keeping sizes: states are products, and torch's own start shrinks them."""
    made = nn.Linear(inputs, d, bias=False)
    nn.init.orthogonal_(made.weight)
    return made


def _size(view: View) -> float:
    """The usual size of a weight: the median over networks of the root of its mean square."""
    sizes = [float(np.sqrt(np.square(finite(v), dtype=np.float64).mean())) for v in view.vectors]
    return float(np.median(sizes)) or 1.0


class Invariant(nn.Module):
    """A state (…, d) → what its symmetry leaves of it (…, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.even = _mlp(d, d, d)

    def forward(self, x: torch.Tensor, symmetry: str) -> torch.Tensor:
        if symmetry == "scale":
            # By its largest value first: the square of a product of weights may be no float32.
            x = x / (x.abs().amax(-1, keepdim=True) + LEAST_NORM**2)
            return x / (x.norm(dim=-1, keepdim=True) + LEAST_NORM)
        return self.even(x) + self.even(-x) if symmetry == "sign" else x


class Equivariant(nn.Module):
    """States (…, sum of widths) that change by one factor → a state (…, d) that changes by it too: (Γx) ⊙ MLP(invariant x)."""

    def __init__(self, parts: int, d: int) -> None:
        super().__init__()
        self.linear = nn.ModuleList(_linear(d, d) for _ in range(parts))
        self.invariant = nn.ModuleList(Invariant(d) for _ in range(parts))
        self.gate = _gate(parts * d, d)

    def forward(self, symmetry: str, *parts: torch.Tensor) -> torch.Tensor:
        seen = [invariant(x, symmetry) for invariant, x in zip(self.invariant, parts, strict=True)]
        moved = [linear(x) for linear, x in zip(self.linear, parts, strict=True)]
        return torch.stack(moved).sum(0) * self.gate(torch.cat(seen, -1))


class Plain(nn.Module):
    """The same for units that have no symmetry, inputs and outputs: an MLP."""

    def __init__(self, parts: int, d: int) -> None:
        super().__init__()
        self.mlp = _mlp(parts * d, d, d)

    def forward(self, symmetry: str, *parts: torch.Tensor) -> torch.Tensor:
        return self.mlp(torch.cat(parts, -1))


class Round(nn.Module):
    """States of units (m, n, d) and of links (m, to, from, d) → the same, after one round of messages."""

    def __init__(self, d: int, last: bool) -> None:
        super().__init__()
        self.of_unit, self.of_link = _linear(d, d), _linear(d, d)
        self.message, self.message_out = Equivariant(1, d), Plain(1, d)
        self.update, self.update_out = Equivariant(2, d), Plain(2, d)
        self.last = last
        if not last:
            self.link, self.ends = _linear(d, d), nn.ModuleList(Invariant(d) for _ in range(2))
            self.link_gate = _gate(2 * d, d)

    def forward(
        self, batch: Batch, symmetry: Sequence[str], units: Sequence[torch.Tensor], links: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        final = len(units) - 1
        sums = [torch.zeros_like(x) for x in units]
        for link, e in zip(batch.wiring.links, links, strict=True):
            product = link.senders(self.of_unit(units[link.source])) * self.of_link(e)  # (m, to, from, d)
            message = self.message_out if link.target == final else self.message
            sums[link.target] = sums[link.target] + message(symmetry[link.target], product).sum(2)
        states = [
            (self.update_out if number in (0, final) else self.update)(symmetry[number], x, total)
            for number, (x, total) in enumerate(zip(units, sums, strict=True))
        ]
        if self.last:
            return states, []
        changed = []
        for link, e in zip(batch.wiring.links, links, strict=True):
            # Inputs and outputs have no symmetry: they are seen as they are.
            source = units[link.source] if link.source == 0 else self.ends[0](units[link.source], symmetry[link.source])
            target = (
                units[link.target] if link.target == final else self.ends[1](units[link.target], symmetry[link.target])
            )
            shape = (*e.shape[:3], -1)
            seen = torch.cat([link.senders(source).expand(shape), target[:, :, None].expand(shape)], -1)
            changed.append(self.link(e) * self.link_gate(seen))
        return states, changed


class ScaleNetwork(nn.Module):
    """Rows of a view → outputs (B, width)."""

    def __init__(self, view: View, outputs: int, d: int, layers: int, size: float | None = None) -> None:
        super().__init__()
        sizes = Sizes.of(view)
        self.wired, self.sizes = Wired(sizes), sizes
        self.unit, self.link = _linear(sizes.features, d), _linear(sizes.positions, d)
        self.size = _size(view) if size is None else size
        # Multiplied into hidden units, since a sum would not scale; added to inputs and outputs.
        self.of_layer = nn.Parameter(1 + 0.1 * torch.randn(sizes.layers, d))
        self.of_input, self.of_output = nn.Embedding(sizes.inputs, d), nn.Embedding(sizes.outputs, d)
        self.rounds = nn.ModuleList(Round(d, last=i == layers - 1) for i in range(layers))
        self.read = nn.Sequential(_mlp(sizes.outputs * d, d, d), nn.SiLU(), nn.Linear(d, outputs))

    def forward(self, batch: tuple[View, np.ndarray]) -> torch.Tensor:
        places, found = [], []
        for part in self.wired(*batch):
            known = symmetries(part.architecture)
            symmetry = [known.get(name, "permutation") for name in part.wiring.names]
            units, links = self._embedded(part)
            for layer in self.rounds:
                units, links = layer(part, symmetry, units, links)
            missing = self.sizes.outputs - units[-1].shape[1]
            found.append(nn.functional.pad(units[-1], (0, 0, 0, missing)).flatten(1))
            places.append(part.places)
        states = torch.cat(found)
        return self.read(torch.zeros_like(states).index_copy(0, torch.cat(places), states))

    def _embedded(self, batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        last, units = len(batch.units) - 1, []
        for number, values in enumerate(batch.units):
            if number == 0:  # what an input holds is no weight: a constant, told apart by its place
                units.append(self.unit(torch.ones_like(values)) + self.of_input.weight[: values.shape[1]])
            elif number == last:
                units.append(self.unit(values / self.size) + self.of_output.weight[: values.shape[1]])
            else:
                units.append(self.unit(values / self.size) * self.of_layer[min(number, self.sizes.layers - 1)])
        return units, [self.link(values / self.size) for values in batch.links]


class ScaleGMN(Neural):
    """A graph network that is blind to scale and sign, of width `d`; published with d 64 or 128."""

    name = "scalegmn"
    TRIALS = ({"rate": 5e-4}, {"rate": 1e-3}, {"rate": 2e-3}, {"rate": 1e-3, "decay": 1e-2})

    def __init__(
        self, d: int = 32, layers: int = 4, training: Training = TRAINING, trials: Sequence[Trial] = ()
    ) -> None:
        super().__init__(training, trials)
        self.options = {"d": d, "layers": layers}

    def prepare(self, train: View) -> None:
        self._train, self._size = train, _size(train)

    def inputs(self, view: View) -> Inputs:
        return lambda rows, generator: (view, rows)

    def network(self, outputs: int, **options: Any) -> nn.Module:
        return ScaleNetwork(self._train, outputs, size=self._size, **{**self.options, **options})
