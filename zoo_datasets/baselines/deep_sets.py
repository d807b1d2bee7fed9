"""Weights of one layout → sets of units → predictions: deep sets over the neurons or channels of each layer.

In:  networks of one layout, of any layers, external ones too: the permutation groups of the layout are all it needs.
Out: the `DeepSets` baseline, blind to the order of hidden units.

Zaheer et al., "Deep Sets" (NeurIPS 2017): a unit is a token, two rounds of (own, mean of its layer), the mean of each
layer, an MLP. A token is the sum of what each tensor has for the unit. Where a tensor ties it to other units that may
change places, that is a set of its own: each value (or the block, such as a kernel) through an MLP, then the mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo_datasets.baselines.interface import View, matrix
from zoo_datasets.baselines.learning import Inputs, Neural, Progress, Standard, Training, Trial
from zoo_datasets.networks.layout import Entry, Layout
from zoo_datasets.symmetry.units import Group, groups


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one dimension of a tensor says of a group's units: places in the flat vector (units, others, values).

    `others` are units that may change places, seen as a set; 1 where there are none.
    """

    index: np.ndarray
    is_set: bool


def readings(group: Group, layout: Layout) -> list[Reading]:
    """Every tensor dimension that runs over the group, in forward order."""
    units = {g.name: g.units for g in groups(layout)}
    return [_reading(p.entry, p.dim, units) for p in group.places]


def _reading(entry: Entry, dim: int, units: dict[str, int]) -> Reading:
    shape: list[int] = []
    own, others = -1, []  # axes of the split shape
    for d, (size, name) in enumerate(zip(entry.shape, entry.groups, strict=True)):
        if name:
            if d == dim:
                own = len(shape)
            else:
                others.append(len(shape))
            shape += [units[name], size // units[name]]
        else:
            shape.append(size)
    index = np.arange(entry.offset, entry.end).reshape(shape)
    rest = [a for a in range(len(shape)) if a != own and a not in others]
    index = index.transpose(own, *others, *rest)
    sizes = [shape[a] for a in others]
    return Reading(index.reshape(shape[own], int(np.prod(sizes, dtype=np.int64)), -1), bool(others))


class UnitTokens(nn.Module):
    """Flat weights (B, P) → tokens (B, units, width) of one group."""

    def __init__(self, read: Sequence[Reading], width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList()
        for i, r in enumerate(read):
            self.register_buffer(f"index{i}", torch.from_numpy(r.index), persistent=False)
            first = nn.Linear(r.index.shape[2], width)
            self.maps.append(nn.Sequential(first, nn.ReLU(), nn.Linear(width, width)) if r.is_set else first)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        found = [m(vectors[:, getattr(self, f"index{i}")]).mean(2) for i, m in enumerate(self.maps)]
        return torch.stack(found).sum(0)


class Round(nn.Module):
    """(B, units, in) → (B, units, width): own features and the mean over units, each through a linear map, then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own, self.all = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.own(tokens) + self.all(tokens.mean(1, keepdim=True)))


class Network(nn.Module):
    """Flat weights (B, P) → (B, outputs)."""

    fixed: torch.Tensor  # places of what belongs to no unit

    def __init__(self, layout: Layout, outputs: int, *, width: int, rounds: int, hidden: int) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(UnitTokens(readings(g, layout), width) for g in groups(layout))
        self.rounds = nn.ModuleList(
            nn.Sequential(nn.ReLU(), *(Round(width) for _ in range(rounds))) for _ in self.tokens
        )
        # What belongs to no unit that may change places, such as the last bias, is read as it is.
        fixed = [np.arange(e.offset, e.end) for e in layout if not any(e.groups)]
        self.register_buffer(
            "fixed", torch.from_numpy(np.concatenate([*fixed, np.zeros(0, np.int64)])), persistent=False
        )
        self.whole = nn.Linear(len(self.fixed), width)
        self.head = nn.Sequential(
            nn.Linear((len(self.tokens) + 1) * width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, outputs),
        )  # fmt: skip

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        pooled = [r(t(vectors)).mean(1) for t, r in zip(self.tokens, self.rounds, strict=True)]
        return self.head(torch.cat([*pooled, self.whole(vectors[:, self.fixed])], 1))


class DeepSets(Neural):
    """Deep sets over units; weights have one scale a tensor, which keeps the symmetry."""

    name = "deep-sets"
    TRIALS = ({"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-3}, {"rate": 1e-3, "decay": 1e-2})

    def __init__(
        self, *, width: int = 64, rounds: int = 2, hidden: int = 256,
        training: Training = Training(epochs=100, batch=64, rate=1e-3), trials: Sequence[Trial] = (),  # noqa: B008
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        super().__init__(training, trials, progress)
        self.width, self.rounds, self.hidden = width, rounds, hidden

    def prepare(self, train: View) -> None:
        self.layout, self.units = train.layout, train.units
        self.standard = Standard.by_tensor(train.matrix, self.units)

    def inputs(self, view: View) -> Inputs:
        vectors = torch.from_numpy(self.standard(matrix(view, self.layout)))
        return lambda rows, _rng: vectors[rows]

    def network(self, outputs: int, **options: Any) -> nn.Module:
        own = {"width": self.width, "rounds": self.rounds, "hidden": self.hidden}
        return Network(self.units, outputs, **own | options)
