"""Networks → what they answer to probes → numbers about them.

In:  a view, of any architectures with inputs of one shape. Out: predictions from the logits of every network on
     inputs that are learned together with what reads the answers.

After Kahana et al., "Deep Linear Probe Generators for Weight Space Learning" (2025): the network of the zoo itself is
run, in evaluation, many at a time on stacked weights. Two things differ: a logit x is read as asinh(x), so that
a network that diverged drowns nobody, and logits of classes that a network lacks are 0; of one that answers at every
step all steps are read. With `hidden`, what its hidden
layers do on the same probes is read too, in the manner of HiddenProbe (2026): that branch starts at zero.

Random probes are the control for learning them; `Images` the one for accuracy: some labelled inputs, counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_datasets.baselines import probes
from zoo_datasets.baselines.groups import groups
from zoo_datasets.baselines.interface import View
from zoo_datasets.baselines.learning import Inputs, Neural, Training, Trial
from zoo_datasets.core import libraries
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.batched import Batched
from zoo_datasets.networks.operations import values as forms
from zoo_datasets.networks.operations.operation import Node, units_of
from zoo_datasets.networks.operations.registry import operation

with libraries.needed():
    import torch
    from torch import nn

WIDTH, DEPTH = 256, 6  # of the reader, as published
CELLS = 2  # side of the grid to which a hidden layer's maps are averaged
TOKEN, LATE, RANK = 16, 64, 32  # widths of the late branch
MOST_LAYERS = 16  # hidden layers with an embedding of their own; deeper ones share the last
PUBLISHED = Training(epochs=30, batch=32, rate=3e-4, clip=0.0, schedule="cosine")
MODELS = 64  # networks of one architecture that run side by side


class Reader(nn.Module):
    """Answers (B, T·S·C) → outputs (B, width): six linear layers, and for each of them but the last a ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs] + [WIDTH] * (DEPTH - 1)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.spine, self.last = nn.Sequential(*layers), nn.Linear(WIDTH, outputs)

    def forward(self, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs, and what the last layer read."""
        q = self.spine(answers)
        return self.last(q), q


class Late(nn.Module):
    """What hidden layers do on the probes: (B, T, layers, channels, cells) → what is added to the outputs."""

    def __init__(self, count: int, outputs: int) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(CELLS**2 + 1, TOKEN), nn.ReLU(), nn.Linear(TOKEN, TOKEN))
        self.layer = nn.Embedding(MOST_LAYERS, TOKEN)
        self.whole = nn.Linear(count * TOKEN, LATE)
        self.of_answers, self.of_hidden = nn.Linear(WIDTH, RANK), nn.Linear(LATE, RANK)
        self.body = nn.Sequential(nn.Linear(WIDTH + LATE + RANK, LATE), nn.ReLU())
        self.last = nn.Linear(LATE, outputs, bias=False)
        nn.init.zeros_(self.last.weight)  # training starts as that of the answers alone

    def tokens(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """(m, T, channels, cells) of each hidden layer → (m, T·TOKEN): a mean over channels, and over layers."""
        found = [
            torch.relu(self.token(cells).mean(2) + self.layer.weight[min(i, MOST_LAYERS - 1)])
            for i, cells in enumerate(maps)
        ]
        empty = self.layer.weight.new_zeros(1)
        return torch.stack(found).mean(0).flatten(1) if found else empty

    def forward(self, q: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        z = torch.relu(self.whole(tokens))
        return self.last(self.body(torch.cat([q, z, self.of_answers(q) * self.of_hidden(z)], 1)))


class Prober(nn.Module):
    """Probes, and what reads the answers: rows of a view → outputs (B, width)."""

    def __init__(self, view: View, outputs: int, count: int, kind: str, hidden: bool) -> None:
        """Raises ZooError where networks take inputs of several shapes."""
        super().__init__()
        shapes = {a.input_shape for a in view.architectures}
        if len(shapes) != 1:
            raise ZooError(
                f"The networks take inputs of {len(shapes)} shapes, and probing shows all of them the same. Select one."
            )
        self.shape, self.count = shapes.pop(), count
        # Of an answer at every step, and of its classes.
        self.steps, self.classes = (max(_form(a)[i] for a in view.architectures) for i in range(2))
        self.probes = probes.probes(kind, count, self.shape)
        self.reader = Reader(count * self.steps * self.classes, outputs)
        self.late = Late(count, outputs) if hidden else None
        self._built: dict[str, Batched] = {}

    def forward(self, batch: tuple[View, np.ndarray]) -> torch.Tensor:
        view, rows = batch
        shown = self.probes()  # (T, *shape)
        answers = shown.new_zeros(len(rows), self.count, self.steps, self.classes)
        pieces: list[tuple[np.ndarray, torch.Tensor, torch.Tensor | None]] = []
        for architecture, places, weights in groups(view, rows):
            steps, classes = _form(architecture)
            if architecture.input_shape != self.shape or steps > self.steps or classes > self.classes:
                raise ZooError(
                    f"A network takes inputs {architecture.input_shape} and gives {classes} logits at {steps} steps; the probes were "
                    f"learned for {self.shape}, {self.classes} and {self.steps}."
                )
            for start in range(0, len(places), MODELS):
                part = slice(start, start + MODELS)
                pieces.append((places[part], *self._answers(architecture, weights[part], shown)))
        order = torch.from_numpy(np.concatenate([p[0] for p in pieces]))
        missing = ((0, self.classes - p[1].shape[3], 0, self.steps - p[1].shape[2]) for p in pieces)
        found = torch.cat([nn.functional.pad(p[1], m) for p, m in zip(pieces, missing, strict=True)])
        answers = answers.index_copy(0, order, found)
        outputs, q = self.reader(answers.flatten(1))
        if self.late is None:
            return outputs
        tokens = torch.cat([p[2] for p in pieces if p[2] is not None])
        return outputs + self.late(q, torch.zeros_like(tokens).index_copy(0, order, tokens))

    def _answers(
        self, architecture: Architecture, weights: np.ndarray, shown: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(m, T, S, C) of networks of one architecture, and with `late` the tokens (m, T·TOKEN) of their hidden layers."""
        if architecture.id not in self._built:
            self._built[architecture.id] = Batched(architecture, shown.device)
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in architecture.layout.unflatten(weights).items()}
        values = self._built[architecture.id].values(tensors, {"input": shown[None]})
        logits = values[architecture.nodes[-1].name].expand(len(weights), -1, -1).unflatten(2, _form(architecture))
        if self.late is None:
            return torch.asinh(logits), None
        maps = [_cells(values[n.name], n.shape, len(weights)) for n in _hidden(architecture)]
        if not maps:
            return torch.asinh(logits), shown.new_zeros(len(weights), self.count * TOKEN)
        return torch.asinh(logits), self.late.tokens(maps)


class Probing(Neural):
    """Probing with learned inputs: ProbeGen, plain probes, or with `probes="random"` their control.

    Published: Adam at 3e-4, falling to 0 by a cosine, 32 networks a step, 64 or 128 probes.
    """

    name = "probing"
    TRIALS = ({"rate": 3e-4}, {"rate": 1e-3}, {"rate": 3e-3}, {"rate": 1e-3, "bounded": "mse"})

    def __init__(
        self, probes: str = "generated", count: int = 64, hidden: bool = False,
        training: Training = PUBLISHED, trials: Sequence[Trial] = (),
    ) -> None:  # fmt: skip
        super().__init__(training, trials)
        self.options = {"kind": probes, "count": count, "hidden": hidden}

    def prepare(self, train: View) -> None:
        self._train = train

    def inputs(self, view: View) -> Inputs:
        return lambda rows, generator: (view, rows)

    def network(self, outputs: int, **options: Any) -> nn.Module:
        return Prober(self._train, outputs, **{**self.options, **options})


def _form(architecture: Architecture) -> tuple[int, int]:
    """Steps at which it answers, one where it answers once, and classes."""
    return architecture.n_logits // architecture.n_outputs, architecture.n_outputs


def _hidden(architecture: Architecture) -> list[Node]:
    """The activations of a network; where it has none, its layers with units but the last."""
    nodes = architecture.nodes[:-1]
    return [n for n in nodes if operation(n.op).activation] or [n for n in nodes if operation(n.op).units]


def _cells(value: torch.Tensor, shape: tuple[int, ...], m: int) -> torch.Tensor:
    """A layer's values → (m, T, channels, cells + 1): means over a grid, and the root of the mean square."""
    if len(shape) == 3:
        maps = forms.stacked(value, units_of(shape)).expand(m, *[-1] * 4)  # (m, T, C, H, W)
        grid = nn.functional.adaptive_avg_pool2d(maps.flatten(0, 1), CELLS).unflatten(0, maps.shape[:2]).flatten(3)
        size = (maps.square().mean((3, 4)) + 1e-12).sqrt()
    else:
        rows = value.expand(m, -1, -1)  # (m, T, features), or the steps of a sequence one after another
        if len(shape) == 2:
            rows = rows.unflatten(2, shape).mean(2)
        grid, size = rows[..., None].expand(*rows.shape, CELLS**2), rows.abs()
    return torch.asinh(torch.cat([grid, size[..., None]], 3))
