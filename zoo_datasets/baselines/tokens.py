"""Networks → tokens of their units → a code of each network → numbers about it.

In:  a view of any architectures. Out: predictions by a linear probe on mean and spread of the tokens' codes.

An autoencoder of tokens, learned without targets, then a linear layer with them: in the manner of Schürholt et al.,
"Towards Scalable and Versatile Weight Space Learning" (2024), and a hundredth of its size. Theirs is aligned to a reference
and sees windows, noise and a contrastive loss; here units stand in a canonical order, whole networks are seen, and what is
asked of the code is to give back the tokens. The spread is ours too: a mean alone forgets how large weights are. So its
row stands for the idea, not for their numbers.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_datasets.baselines.groups import groups
from zoo_datasets.baselines.interface import Predictions, Targets, View
from zoo_datasets.baselines.learning import Learned, Training, learn, one_core
from zoo_datasets.core import libraries, streams
from zoo_datasets.errors import ZooError
from zoo_datasets.symmetry import canonicalize
from zoo_datasets.views.tokenization import tokens

with libraries.needed():
    import torch
    from torch import nn

# The probe is a linear layer on standardized codes: cheap, and without a choice but its best epoch.
PROBE = Training(epochs=60, batch=64, rate=1e-2)
AUTOENCODER = Training(epochs=20, batch=32, rate=1e-3)
MOST_PLACES = 1024  # tokens of one layer with an embedding of their own
MOST_VALUE = 10.0  # in units of a layer's usual size


@dataclasses.dataclass(frozen=True)
class Part:
    """Networks of one layout: their tokens, the places of these networks in the view, and where tokens stand."""

    places: np.ndarray  # int64 (m,)
    values: torch.Tensor  # (m, T, D) float32
    mask: torch.Tensor  # (T, D)
    layer: torch.Tensor  # int64 (T,)
    place: torch.Tensor  # int64 (T,): in its layer


def parts_of(view: View, size: int) -> list[Part]:
    """Tokens of `size` values, a unit's own cut into pieces; units in canonical order, so that no order matters."""
    found = []
    for architecture, places, weights in groups(view, np.arange(len(view))):
        ordered = canonicalize(weights, architecture, kinds=("permutation",))
        t = tokens(ordered, architecture.layout, "neuron", size=size)
        missing = ((0, 0), (0, size - t.mask.shape[1]))
        found.append(Part(
            places, torch.from_numpy(np.pad(t.values, ((0, 0), *missing))), torch.from_numpy(np.pad(t.mask, missing)),
            torch.from_numpy(t.positions[:, 1]), torch.from_numpy(np.minimum(t.positions[:, 2], MOST_PLACES - 1)),
        ))  # fmt: skip
    return found


def scales_of(parts: list[Part]) -> torch.Tensor:
    """(L,): the usual size of a value in each layer, the median over networks of the root of its mean square."""
    layers = 1 + max(int(p.layer.max()) for p in parts)
    scales = torch.ones(layers)
    for number in range(layers):
        sizes = [
            (p.values[:, own].square().sum((1, 2)) / p.mask[own].sum()).sqrt()
            for p in parts if bool((own := p.layer == number).any())
        ]  # fmt: skip
        usual = float(torch.cat(sizes).median())
        scales[number] = usual if usual > 0 else 1.0
    return scales


class Autoencoder(nn.Module):
    """Tokens (m, T, D) → codes (m, T, code) → tokens."""

    scales: torch.Tensor

    def __init__(self, scales: torch.Tensor, size: int, d: int, layers: int, code: int) -> None:
        super().__init__()
        self.register_buffer("scales", scales)
        self.of_layer, self.of_place = nn.Embedding(len(scales), d), nn.Embedding(MOST_PLACES, d)
        self.enter, self.leave = nn.Linear(size, d), nn.Linear(d, size)
        self.encoder, self.decoder = _attention(d, layers), _attention(d, layers)
        self.to_code, self.from_code = nn.Linear(d, code), nn.Linear(code, d)

    def standard(self, part: Part, rows: torch.Tensor) -> torch.Tensor:
        """Values in units of their layer's usual size."""
        return (part.values[rows] / self.scales[self._layer(part)][:, None]).clamp(-MOST_VALUE, MOST_VALUE)

    def codes(self, part: Part, x: torch.Tensor) -> torch.Tensor:
        return self.to_code(self.encoder(self.enter(x) + self._position(part)))

    def loss(self, part: Part, rows: torch.Tensor) -> torch.Tensor:
        """Mean square of what the codes do not give back, over values that tokens have."""
        x = self.standard(part, rows)
        found = self.leave(self.decoder(self.from_code(self.codes(part, x)) + self._position(part)))
        return ((found - x).square() * part.mask).sum() / (part.mask.sum() * len(x))

    def _position(self, part: Part) -> torch.Tensor:
        return self.of_layer(self._layer(part)) + self.of_place(part.place)

    def _layer(self, part: Part) -> torch.Tensor:
        """Layers deeper than any that was learned from count as the last."""
        return part.layer.clamp(max=len(self.scales) - 1)


def _attention(d: int, layers: int) -> nn.TransformerEncoder:
    block = nn.TransformerEncoderLayer(d, 4, 2 * d, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, layers, enable_nested_tensor=False)


class TokenAutoencoder:
    """A small token autoencoder with a linear probe."""

    name = "tokens"

    def __init__(
        self, size: int = 64, d: int = 64, layers: int = 2, code: int = 64, training: Training = AUTOENCODER,
        probe: Training = PROBE,
    ) -> None:  # fmt: skip
        self.size, self.shape, self.training, self.probe = size, (size, d, layers, code), training, probe
        self._network: Autoencoder | None = None
        self._learned: Learned | None = None
        self._chosen: dict[str, Any] = {}

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        parts, others = parts_of(train[0], self.size), parts_of(validation[0], self.size)
        rng = streams.generator("tokens", seed)
        with one_core(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            self._network = Autoencoder(scales_of(parts), *self.shape)
            found = _autoencode(self._network, parts, others, self.training, rng)
            codes = self._codes(parts, len(train[0]))
            self._shift, self._spread = codes.mean(0), codes.std(0) + 1e-6  # a code that never changes stays 0
            inputs = [self._standard(c) for c in (codes, self._codes(others, len(validation[0])))]
        self._learned, record = learn(
            lambda outputs: nn.Linear(2 * self.shape[3], outputs), (lambda rows, _: inputs[0][rows], train[1]),
            (lambda rows, _: inputs[1][rows], validation[1]), self.probe, seed,
        )  # fmt: skip
        self._chosen = {"autoencoder": {**dataclasses.asdict(self.training), **found}, "probe": record}

    def predict(self, view: View) -> Predictions:
        if self._learned is None:
            raise ZooError(f"The baseline {self.name} has learned nothing yet; call `fit` first.")
        with one_core():
            codes = self._standard(self._codes(parts_of(view, self.size), len(view)))
        return self._learned.predict(lambda rows, _: codes[rows], len(view))

    def rebuild(self) -> None:
        """Take up the weights that were read from a file."""
        state: Any = self._network
        assert self._learned is not None
        self._network = Autoencoder(state["scales"], *self.shape)
        self._network.load_state_dict(state)
        probe = nn.Linear(2 * self.shape[3], self._learned.heads.outputs)
        state = self._learned.network
        probe.load_state_dict(state)
        self._learned = dataclasses.replace(self._learned, network=probe)

    @property
    def parameters(self) -> int:
        """Of the autoencoder and of the probe."""
        assert self._learned is not None
        assert self._network is not None
        return self._learned.parameters + sum(p.numel() for p in self._network.parameters())

    @property
    def chosen(self) -> Mapping[str, object]:
        return self._chosen

    def _codes(self, parts: list[Part], n: int) -> torch.Tensor:
        """(n, 2·code): mean and standard deviation over a network's tokens."""
        assert self._network is not None
        self._network.eval()
        found = torch.zeros(n, 2 * self.shape[3])
        with torch.no_grad():
            for part, rows in _batches(parts, self.training.batch):
                codes = self._network.codes(part, self._network.standard(part, rows))
                found[part.places[rows]] = torch.cat([codes.mean(1), codes.std(1, correction=0)], 1)
        return found

    def _standard(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes - self._shift) / self._spread


def _batches(parts: list[Part], size: int, rng: np.random.Generator | None = None) -> list[tuple[Part, torch.Tensor]]:
    """Every network once, those of one layout together; in a drawn order where there is a generator."""
    found = []
    for part in parts:
        m = len(part.places)
        order = np.arange(m) if rng is None else rng.permutation(m)
        found += [(part, torch.from_numpy(order[a : a + size])) for a in range(0, m, size)]
    return found if rng is None else [found[i] for i in rng.permutation(len(found))]


def _autoencode(
    network: Autoencoder, parts: list[Part], others: list[Part], training: Training, rng: np.random.Generator
) -> dict[str, float]:
    """Learn to give tokens back; the network ends as it was when it did so best on validation."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=training.decay)
    best, best_epoch, weights = math.inf, 0, copy.deepcopy(network.state_dict())
    for epoch in range(1, training.epochs + 1):
        network.train()
        for part, rows in _batches(parts, training.batch, rng):
            loss = network.loss(part, rows)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), training.clip)
            optimizer.step()
        network.eval()
        with torch.no_grad():
            batches = _batches(others, training.batch)
            total = sum(float(network.loss(part, rows)) * len(rows) for part, rows in batches)
        loss_of_all = total / max(1, sum(len(rows) for _, rows in batches))
        if loss_of_all < best:
            best, best_epoch, weights = loss_of_all, epoch, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    return {"reconstruction": best, "epoch": best_epoch}
