"""Flat weights of one layout → neural functional network with NP or HNP layers → predictions.

In:  networks that are a chain of conv and linear layers (CNNs and MLPs), biases included.
Out: the `NFN` baseline, and its layers.

Zhou et al., "Permutation Equivariant Neural Functionals" (NeurIPS 2023), sections 2.2 and 2.3 and appendix A; the terms
are those of its reference implementation, so that parameter counts agree. Weight i is (B, out, in, c·k) of c channels:
k values tie a pair of units, the kernel's area of a conv, the block of columns that one channel has after `flatten`.
HNP layers commute with permutations of hidden units; NP layers without position embedding with those of inputs and
outputs too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zoo_datasets.baselines.interface import View, matrix
from zoo_datasets.baselines.learning import Inputs, Neural, Progress, Standard, Training, Trial
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layout import Entry
from zoo_datasets.symmetry.units import groups

Features = tuple[list[torch.Tensor], list[torch.Tensor]]  # weights (B, out, in, c·k), biases (B, out, c), one a layer

# Inputs and outputs are channels to an HNP layer, and its maps grow with their square: 28 × 28 inputs take 4e8 numbers.
MOST_PARAMETERS = 50_000_000


@dataclasses.dataclass(frozen=True)
class Pair:
    """A layer of the network that is read: where its weight and bias lie, and how many units it ties."""

    weight: Entry
    bias: Entry
    outs: int
    ins: int

    @property
    def k(self) -> int:
        """Values that tie a pair of units."""
        return self.weight.size // (self.outs * self.ins)


def pairs(architecture: Architecture) -> tuple[Pair, ...]:
    """The chain of layers with weights, in forward order. Raises ZooError where it is no such chain."""
    units = {g.name: g.units for g in groups(architecture.layout)}
    found: list[Pair] = []
    for node in architecture.nodes:
        entries = architecture.layout.of_node(node.name)
        if not entries:
            continue
        if node.op not in ("conv", "linear"):
            raise ZooError(
                f"NFN reads chains of conv and linear layers, and layer {node.name} is a {node.op}. Take `statistics`, "
                "`deep-sets` or `tokens` for this population."
            )
        weight, bias = entries
        made = Pair(weight, bias, weight.shape[0], units.get(weight.groups[1], weight.shape[1]))
        if found and made.ins != found[-1].outs:
            raise ZooError(
                f"NFN reads chains, and layer {node.name} takes {made.ins:,} units where the layer before gives {found[-1].outs:,}: "
                "something was added between them. Take `statistics`, `deep-sets` or `tokens` for this population."
            )
        found.append(made)
    if len(found) < 2:
        raise ZooError(f"NFN needs hidden units, and the network has {len(found)} layers with weights. Take `flat`.")
    return tuple(found)


# ── layers ────────────────────────────────────────────────────────────────────────────


class Sum(nn.Module):
    """A sum of linear maps, one a term: terms (B, …, in) with sides of 1 where they are constant → (B, …, out)."""

    def __init__(self, ins: Sequence[int], out: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(n, out) for n in ins)
        limit = 1.0 / math.sqrt(sum(ins))  # all terms together are as large as one of torch's linear layers
        for p in self.parameters():
            nn.init.uniform_(p, -limit, limit)

    def forward(self, *terms: torch.Tensor) -> torch.Tensor:
        """The first term has the size of the result, and the last is constant along all sides that any other is."""
        parameters = [getattr(m, name) for name in ("weight", "bias") for m in self.maps]
        found: torch.Tensor = _SumOfMaps.apply(len(terms), *terms, *parameters)  # type: ignore[no-untyped-call]
        return found


class _SumOfMaps(torch.autograd.Function):
    """Σ term · weightᵀ + bias, whose large arrays are written once.

    As linear layers and additions in place it would be the same, at 1.5 times the cost: the result of `nn.Linear` is a view
    where a term has more than two sides, and autograd copies the gradient for every change of a view.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *given: torch.Tensor) -> torch.Tensor:
        terms, weights, biases = given[:count], given[count : 2 * count], given[2 * count :]
        ctx.save_for_backward(*terms, *weights)
        first, *others = terms
        result = first.new_empty(*first.shape[:-1], len(weights[0]))
        torch.mm(_rows(first), weights[0].t(), out=_rows(result))
        small = [term @ weight.t() for term, weight in zip(others, weights[1:], strict=True)]
        bias = torch.stack(biases).sum(0)
        small = [*small[:-1], small[-1] + bias] if small else [bias]
        if len(small) > 2:
            small[-2:] = [small[-2] + small[-1]]
        for term in small:
            result += term
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        terms, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        summed = [gradients[0].contiguous()]  # over the sides where a term is constant
        by_term, by_weight = [], []
        for place, (term, weight) in enumerate(zip(terms, weights, strict=True)):
            fitting = (
                g for g in summed if all(n in (1, m) for n, m in zip(term.shape[:-1], g.shape[:-1], strict=True))
            )
            least = min(fitting, key=torch.Tensor.numel)
            sides = [d for d, (n, m) in enumerate(zip(term.shape[:-1], least.shape[:-1], strict=True)) if n != m]
            if sides:
                summed.append(least := least.sum(sides, keepdim=True))
            by_weight.append(_rows(least).t() @ _rows(term))
            asked = ctx.needs_input_grad[1 + place]
            by_term.append((_rows(least) @ weight).view(term.shape) if asked else None)
        bias = _rows(min(summed, key=torch.Tensor.numel)).sum(0)
        return None, *by_term, *by_weight, *(bias for _ in terms)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(…, n) → (rows, n)."""
    return x.reshape(-1, x.shape[-1])


def mean(x: torch.Tensor, *sides: int) -> torch.Tensor:
    """Mean over sides: the gradient of a sum is spread without a copy, that of torch's mean with one."""
    return x.sum(sides) * (1.0 / math.prod(x.shape[side] for side in sides))


class NPLayer(nn.Module):
    """c → d channels, commuting with permutations of the units of every layer, inputs and outputs included.

    With `positions`, learned offsets tell inputs, classes and their biases apart (the published variant).
    """

    def __init__(self, layers: Sequence[Pair], c: int, d: int, positions: bool = True) -> None:
        super().__init__()
        self.layers, last = layers, len(layers) - 1
        k = [p.k for p in layers]
        means = c * (sum(k) + len(k))
        self.weights, self.biases = nn.ModuleList(), nn.ModuleList()
        for i, own in enumerate(k):
            by_column = own + (k[i - 1] + 1 if i else 0)
            by_row = own + 1 + (k[i + 1] if i < last else 0)
            self.weights.append(Sum([c * own, c * by_row, c * by_column, means], d * own))
            self.biases.append(Sum([c * by_row, means], d))
        self.offsets: nn.ParameterList | None = None
        if positions:
            shapes = [(1, layers[0].ins, c * k[0]), (layers[-1].outs, 1, c * k[-1]), (layers[-1].outs, c)]
            self.offsets = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, features: Features) -> Features:
        weights, biases = list(features[0]), list(features[1])
        if self.offsets is not None:
            for values, at, offset in zip((weights, weights, biases), (0, -1, -1), self.offsets, strict=True):
                values[at] = values[at] + offset
        columns = [mean(w, 1) for w in weights]  # (B, in, c·k): of a unit that sends, over those that receive
        rows = [mean(w, 2) for w in weights]  # (B, out, c·k)
        means = torch.cat([mean(r, 1) for r in rows] + [mean(b, 1) for b in biases], 1)[:, None]  # (B, 1, Σ)
        new: Features = [], []
        for i, weight in enumerate(weights):
            by_column = torch.cat([columns[i], *([rows[i - 1], biases[i - 1]] if i else [])], 2)
            by_row = torch.cat([rows[i], biases[i], *columns[i + 1 : i + 2]], 2)
            new[0].append(self.weights[i](weight, by_row[:, :, None], by_column[:, None], means[:, None]))
            new[1].append(self.biases[i](by_row, means))
        return new


class HNPLayer(nn.Module):
    """c → d channels, commuting with permutations of hidden units: inputs and outputs are channels, with maps of their own."""

    def __init__(self, layers: Sequence[Pair], c: int, d: int) -> None:
        super().__init__()
        self.layers, last = layers, len(layers) - 1
        k = [p.k for p in layers]
        first_width, last_width = layers[0].ins * k[0], layers[-1].outs * k[-1]  # of the weights at the borders, a unit
        means = c * (sum(k) + len(k) + first_width + last_width + layers[-1].outs)
        # The neighbor at a border is given as a mean, like any other, and in full beside it.
        ahead = [k[i + 1] + (last_width if i + 1 == last else 0) if i < last else 0 for i in range(len(k))]
        behind = [k[i - 1] + (first_width if i == 1 else 0) if i else 0 for i in range(len(k))]
        self.weights, self.biases = nn.ModuleList(), nn.ModuleList()
        for i, own in enumerate(k):
            by_row = c * ((first_width if i == 0 else own) + 1 + ahead[i])
            by_column = c * (own + 1 + behind[i])
            if i == 0:
                self.weights.append(Sum([by_row, means], d * first_width))
            elif i == last:
                self.weights.append(Sum([c * (last_width + behind[i]), means], d * last_width))
            else:
                self.weights.append(Sum([c * own, by_row, by_column, means], d * own))
            self.biases.append(Sum([by_row, means], d) if i < last else Sum([means], d * layers[-1].outs))

    def forward(self, features: Features) -> Features:
        weights, biases = features
        last = len(weights) - 1
        columns = [mean(w, 1) for w in weights]  # (B, in, c·k)
        rows = [mean(w, 2) for w in weights]  # (B, out, c·k)
        entering = weights[0].flatten(2)  # (B, first hidden, inputs·c·k)
        leaving = weights[-1].transpose(1, 2).flatten(2)  # (B, last hidden, outputs·c·k)
        means = [mean(r, 1) for r in rows] + [mean(b, 1) for b in biases]
        means += [columns[0].flatten(1), rows[-1].flatten(1), biases[-1].flatten(1)]
        whole = torch.cat(means, 1)[:, None]  # (B, 1, Σ)
        new: Features = [], []
        for i, weight in enumerate(weights):
            behind = [rows[i - 1], *([entering] if i == 1 else [])] if i else []
            ahead = [columns[i + 1], *([leaving] if i + 1 == last else [])] if i < last else []
            by_row = torch.cat([entering if i == 0 else rows[i], biases[i], *ahead], 2) if i < last else None
            if i == 0:
                new[0].append(self.weights[i](by_row, whole).unflatten(2, (weight.shape[2], -1)))
            elif i == last:
                out = self.weights[i](torch.cat([leaving, *behind], 2), whole)
                new[0].append(out.unflatten(2, (weight.shape[1], -1)).transpose(1, 2))
            else:
                assert by_row is not None
                by_column = torch.cat([columns[i], *behind, biases[i - 1]], 2)
                new[0].append(self.weights[i](weight, by_row[:, :, None], by_column[:, None], whole[:, None]))
            if i < last:
                new[1].append(self.biases[i](by_row, whole))
            else:
                new[1].append(self.biases[i](whole)[:, 0].unflatten(1, (biases[i].shape[1], -1)))
        return new


def np_pool(features: Features) -> torch.Tensor:
    """(B, c·(Σk + L)): the mean of every weight and bias; blind to every permutation, of inputs and outputs too."""
    weights, biases = features
    return torch.cat([mean(w, 1, 2) for w in weights] + [mean(b, 1) for b in biases], 1)


def hnp_pool(features: Features) -> torch.Tensor:
    """Means over hidden units alone: inputs of the first layer, outputs of the last and its bias stay apart."""
    weights, biases = features
    parts = [mean(weights[0], 1).flatten(1), *(mean(w, 1, 2) for w in weights[1:-1]), mean(weights[-1], 2).flatten(1)]
    parts += [*(mean(b, 1) for b in biases[:-1]), biases[-1].flatten(1)]
    return torch.cat(parts, 1)


# ── network ───────────────────────────────────────────────────────────────────────────


class Network(nn.Module):
    """Flat weights (B, P) → (B, outputs): layers with ReLU, a pool, two hidden linear layers of `hidden` units."""

    def __init__(
        self, layers: Sequence[Pair], outputs: int, *, layer: str, positions: bool, channels: Sequence[int], hidden: int
    ) -> None:
        super().__init__()
        self.pairs = layers
        widths = list(zip([1, *channels[:-1]], channels, strict=True))
        if layer == "hnp":
            made: list[nn.Module] = [HNPLayer(layers, c, d) for c, d in widths]
        else:
            made = [NPLayer(layers, c, d, positions) for c, d in widths]
        self.layers = nn.ModuleList(made)
        # The published NP network keeps inputs and outputs apart in its pool too.
        self.pool = hnp_pool if layer == "hnp" or positions else np_pool
        pooled = sum(p.k + 1 for p in layers)
        if self.pool is hnp_pool:
            first, last = layers[0], layers[-1]
            pooled += (first.ins - 1) * first.k + (last.outs - 1) * (last.k + 1)
        self.head = nn.Sequential(
            nn.Linear(channels[-1] * pooled, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, outputs),
        )  # fmt: skip

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        features = features_of(vectors, self.pairs)
        for layer in self.layers:
            weights, biases = layer(features)
            features = [torch.relu_(w) for w in weights], [torch.relu_(b) for b in biases]
        return self.head(self.pool(features))


def features_of(vectors: torch.Tensor, layers: Sequence[Pair]) -> Features:
    """Flat weights (B, P) as features of one channel: views, nothing is copied."""
    weights = [
        vectors[:, p.weight.offset : p.weight.end].reshape(len(vectors), p.outs, p.ins, p.k) for p in layers
    ]  # fmt: skip
    biases = [vectors[:, p.bias.offset : p.bias.end].reshape(len(vectors), p.outs, 1) for p in layers]
    return weights, biases


class NFN(Neural):
    """`layer`: "hnp" or "np", whose `positions` tell inputs and outputs apart.

    `standardize`: "tensor" (one scale a tensor, which keeps the symmetry), "position" (of every weight, published with NP)
    or "none" (published with HNP).
    """

    name = "nfn"
    TRIALS = ({"rate": 5e-4}, {"rate": 1e-3}, {"rate": 2e-3}, {"rate": 1e-3, "decay": 1e-2})

    def __init__(
        self, layer: str = "hnp", *, positions: bool = True, channels: Sequence[int] = (16, 16, 5), hidden: int = 1000,
        standardize: str = "tensor", training: Training = Training(epochs=50, batch=64, rate=2e-3),  # noqa: B008
        trials: Sequence[Trial] = (), progress: Progress | None = None,
    ) -> None:  # fmt: skip
        super().__init__(training, trials, progress)
        if layer not in ("hnp", "np"):
            raise ValueError(f"The layers of NFN are {layer!r}; they are 'hnp' or 'np'.")
        if standardize not in ("tensor", "position", "none"):
            raise ValueError(f"Weights are standardized by {standardize!r}; it is by 'tensor', 'position' or 'none'.")
        self.layer, self.positions, self.standardize = layer, positions, standardize
        self.channels, self.hidden = tuple(channels), hidden

    def prepare(self, train: View) -> None:
        self.layout = train.layout
        rows = train.matrix
        self.pairs = pairs(self.layout)
        with torch.device("meta"):  # counts, and fills no memory
            size = sum(p.numel() for p in self.network(1).parameters())
        if size > MOST_PARAMETERS:
            raise ZooError(
                f"NFN with {self.layer} layers would learn {size:,} numbers for {self.pairs[0].ins:,} inputs; at most "
                f"{MOST_PARAMETERS:,}. Take layer 'np', whose size does not depend on the inputs, or fewer channels."
            )
        self.standard = {
            "tensor": lambda: Standard.by_tensor(rows, self.layout.layout),
            "position": lambda: Standard.by_position(rows),
            "none": lambda: Standard.none(self.layout.n_params),
        }[self.standardize]()

    def inputs(self, view: View) -> Inputs:
        vectors = torch.from_numpy(self.standard(matrix(view, self.layout)))
        return lambda rows, _rng: vectors[rows]

    def network(self, outputs: int, **options: Any) -> nn.Module:
        given: dict[str, Any] = {
            "layer": self.layer, "positions": self.positions, "channels": self.channels, "hidden": self.hidden,
        }  # fmt: skip
        return Network(self.pairs, outputs, **given | options)
