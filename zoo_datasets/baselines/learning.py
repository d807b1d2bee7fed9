"""What a torch network reads of n networks, and targets → the network, learned.

In:  inputs (rows → what the network takes), `Targets` with NaN where a network has none, a `Training`.
Out: `Learned`, of the epoch that validation liked best, and the record of what was tried.

A network has one head per target (`heads.py`). Whatever is fitted beside it (standardization, the constant a head starts
at) comes from training data alone, whatever is chosen from validation alone. All runs on one core: two fits with one
seed give the same bits on a machine. A `Neural` is a `Baseline` made of this.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo_datasets.baselines.heads import Heads
from zoo_datasets.baselines.interface import Predictions, Targets, View
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layout import Layout

# Rows (B,) int64 → what the network takes. The generator is there while training, for augmentation, and None otherwise.
Inputs = Callable[[np.ndarray, np.random.Generator | None], Any]
Make = Callable[..., nn.Module]  # make(outputs, **options): a network that gives (B, outputs)
Progress = Callable[[int, int, float], None]  # epochs done, epochs in all with the trials, validation score
Trial = Mapping[str, Any]  # fields of `Training`, and options of the network

MOST_TRIALS = 4
SHARE_OF_EPOCHS = 3  # a trial runs a third of the epochs
# In units of a tensor's usual size: a network that nearly diverged must not make the others' gradients infinite.
MOST_STANDARD = 100.0


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network learns: Adam, minibatches in a new order every epoch. Raises ValueError for an unknown schedule."""

    epochs: int = 50
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.0  # decoupled weight decay
    clip: float = 10.0  # norm of the gradient; 0 clips nothing
    warmup: int = 0  # steps until the rate is reached, linearly
    schedule: str = "constant"  # after that; "cosine", to 0 over all steps; "staircase", times 0.95 fifty times
    bounded: str = "bce"  # loss of a number between 0 and 1, which a sigmoid ends: "bce" or "mse"
    numbers: str = "mse"  # loss of any other number: "mse" or "mae"

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "cosine", "staircase"):
            raise ValueError(
                f"The schedule of the rate is {self.schedule!r}; it is 'constant', 'cosine' or 'staircase'."
            )

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of a step, counted from 1."""
        rate = self.rate * min(1.0, step / max(1, self.warmup))
        if self.schedule == "staircase":
            return rate * 0.95 ** (50 * (step - 1) // steps)
        return rate * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps)) if self.schedule == "cosine" else rate


# ── standardization ───────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Standard:
    """(x − shift) / scale, clipped at ±100; both (P,) float32, from training data."""

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def by_position(cls, rows: np.ndarray) -> Standard:
        """Mean and deviation of each column of (n, P); a constant column is only shifted."""
        rows = rows.astype(np.float64)
        scale = rows.std(0)
        return cls(rows.mean(0).astype(np.float32), np.where(scale < 1e-5, 1.0, scale).astype(np.float32))

    @classmethod
    def by_tensor(cls, rows: np.ndarray, layout: Layout) -> Standard:
        """One scale a tensor, the median over networks of its root mean square: it keeps every permutation symmetry."""
        scale = np.ones(layout.n_params)
        for e in layout:
            size = float(np.median(np.sqrt((rows[:, e.offset : e.end].astype(np.float64) ** 2).mean(1))))
            scale[e.offset : e.end] = size if size >= 1e-5 else 1.0
        return cls(np.zeros(layout.n_params, np.float32), scale.astype(np.float32))

    @classmethod
    def none(cls, length: int) -> Standard:
        return cls(np.zeros(length, np.float32), np.ones(length, np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(…, P) float32."""
        return np.clip((rows - self.shift) / self.scale, -MOST_STANDARD, MOST_STANDARD)


# ── training ──────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Learned:
    """A network with the weights of its best epoch."""

    network: nn.Module
    heads: Heads
    batch: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # that it was built with, beside the default

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def predict(self, inputs: Inputs, n: int) -> Predictions:
        """Of n networks."""
        self.network.eval()
        with one_core(), torch.no_grad():
            rows = [np.arange(at, min(at + self.batch, n)) for at in range(0, n, self.batch)]
            outputs = [self.network(inputs(r, None)) for r in rows] or [torch.zeros(0, self.heads.outputs)]
            return self.heads.predictions(torch.cat(outputs) + self.heads.start())


def learn(
    make: Make, train: tuple[Inputs, Targets], validation: tuple[Inputs, Targets], training: Training, seed: int,
    trials: Sequence[Trial] = (), progress: Progress | None = None, frozen: Trial | None = None,
) -> tuple[Learned, dict[str, Any]]:  # fmt: skip
    """The network of the best epoch, of the best of `trials` if there are any, and the record of what was tried.

    A trial overrides fields of `training`, and what else it names are options of `make`. Trials run a third of the epochs;
    the best by validation is learned again in full. `frozen` was chosen before, and nothing is tried. Raises ZooError
    where nothing could be learned.
    """
    trials = () if frozen is not None else trials
    told = _Told(progress, _short(training) * len(trials) + training.epochs)
    best, record = _best_of(make, train, validation, training, seed, trials, told) if trials else (frozen or {}, [])
    learned, found = _attempt(make, train, validation, training, seed, best, told)
    if math.isnan(found["score"]):
        raise ZooError(
            f"Of {len(train[1].values):,} training and {len(validation[1].values):,} validation networks nothing was "
            "learned that predicts a finite number: the validation part has no value that differs from the training mean, "
            "or the training diverged. Take more networks, or leave out those that diverged."
        )
    return learned, {"trials": record, **found}


def choose(
    make: Make, train: tuple[Inputs, Targets], validation: tuple[Inputs, Targets], training: Training, seed: int,
    trials: Sequence[Trial], progress: Progress | None = None,
) -> tuple[Trial, list[dict[str, Any]]]:  # fmt: skip
    """The best of `trials` by validation, at a third of the epochs, and all with their scores."""
    told = _Told(progress, _short(training) * len(trials))
    return _best_of(make, train, validation, training, seed, trials, told)


def _short(training: Training) -> int:
    return max(1, training.epochs // SHARE_OF_EPOCHS)


class _Told:
    """How far several trainings in a row are."""

    def __init__(self, progress: Progress | None, of_all: int) -> None:
        self.progress, self.of_all, self.done = progress, of_all, 0

    def __call__(self, epoch: int, score: float) -> None:
        if self.progress is not None:
            self.progress(self.done + epoch, self.of_all, score)


def _best_of(
    make: Make, train: tuple[Inputs, Targets], validation: tuple[Inputs, Targets], training: Training, seed: int,
    trials: Sequence[Trial], told: _Told,
) -> tuple[Trial, list[dict[str, Any]]]:  # fmt: skip
    if not 1 <= len(trials) <= MOST_TRIALS:
        raise ValueError(f"{len(trials)} trials; every baseline has at most {MOST_TRIALS}, so that none is tuned more.")
    short = dataclasses.replace(training, epochs=_short(training))
    record = [_attempt(make, train, validation, short, seed, t, told)[1] for t in trials]
    scores = [-math.inf if math.isnan(r["score"]) else r["score"] for r in record]
    return trials[int(np.argmax(scores))], record


def _attempt(
    make: Make, train: tuple[Inputs, Targets], validation: tuple[Inputs, Targets], training: Training, seed: int,
    trial: Trial, told: _Told,
) -> tuple[Learned, dict[str, Any]]:  # fmt: skip
    own = {k: v for k, v in trial.items() if k in Training.__dataclass_fields__}
    options = {k: v for k, v in trial.items() if k not in own}
    settings = dataclasses.replace(training, **own)
    learned, found = _train(lambda outputs: make(outputs, **options), train, validation, settings, seed, told)
    told.done += settings.epochs
    return dataclasses.replace(learned, options=options), {**trial, **found}


def _train(
    make: Make, train: tuple[Inputs, Targets], validation: tuple[Inputs, Targets], training: Training, seed: int,
    tell: Callable[[int, float], None],
) -> tuple[Learned, dict[str, Any]]:  # fmt: skip
    heads = Heads(train[1], training.bounded, training.numbers)
    values = torch.tensor(train[1].values, dtype=torch.float32)  # (n, K)
    start, n = heads.start(), len(values)
    rng = streams.generator("baseline", seed)
    best, best_epoch, weights = -math.inf, 0, None
    with one_core(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))  # initialization and dropout
        learned = Learned(make(heads.outputs), heads, training.batch)
        network = learned.network
        optimizer = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=training.decay, fused=True)
        # A last batch of one has no statistics for a norm to take: it waits for the next epoch's order.
        batches = range(0, n - (n % training.batch == 1 < n), training.batch)
        step, steps = 0, training.epochs * len(batches)
        for epoch in range(1, training.epochs + 1):
            network.train()
            order = rng.permutation(n)
            for at in batches:
                rows = order[at : at + training.batch]
                loss = heads.loss(network(train[0](rows, rng)) + start, values[rows])
                optimizer.zero_grad()
                loss.backward()
                if training.clip:
                    nn.utils.clip_grad_norm_(network.parameters(), training.clip)
                step += 1
                optimizer.param_groups[0]["lr"] = training.rate_at(step, steps)
                optimizer.step()
            predictions = learned.predict(validation[0], len(validation[1].values))
            score = heads.score(predictions, validation[1])
            if score > best:
                best, best_epoch, weights = score, epoch, copy.deepcopy(network.state_dict())
            tell(epoch, score)
    if weights is None:
        return learned, {"score": math.nan, "epoch": 0}
    network.load_state_dict(weights)
    return learned, {"score": best, "epoch": best_epoch}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Torch on one core: sums keep their order, so that a seed gives the same bits; cost is CPU time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ── a baseline made of this ───────────────────────────────────────────────────────────


class Neural:
    """A `Baseline` whose network is torch's: a family says how it reads a view, and builds its network."""

    name = "neural"
    TRIALS: tuple[Trial, ...] = ()  # what `tune` tries

    def __init__(self, training: Training, trials: Sequence[Trial] = (), progress: Progress | None = None) -> None:
        self.training, self.trials, self.progress = training, tuple(trials), progress
        self.frozen: Trial | None = None
        self._learned: Learned | None = None
        self._record: Mapping[str, Any] = {}

    def configure(self, settings: Trial) -> None:
        """Settings that were chosen before, as a trial names them."""
        self.frozen = dict(settings)

    def prepare(self, train: View) -> None:
        """Take from the training part what inputs and network need. Raises MixedLayoutsError."""

    def inputs(self, view: View) -> Inputs:
        """How the networks of a view are read. Raises MixedLayoutsError."""
        raise NotImplementedError

    def network(self, outputs: int, **options: Any) -> nn.Module:
        """A new network that gives (B, outputs) of what `inputs` gives."""
        raise NotImplementedError

    def tune(
        self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int
    ) -> tuple[Trial, list[dict[str, Any]]]:
        """The best of `TRIALS` by validation, and all with their scores."""
        self.prepare(train[0])
        return choose(
            self.network, (self.inputs(train[0]), train[1]), (self.inputs(validation[0]), validation[1]),
            self.training, seed, self.TRIALS, self.progress,
        )  # fmt: skip

    def estimate(self, train: tuple[View, Targets], validation: tuple[View, Targets]) -> float:
        """CPU seconds of a fit, from epochs of one step and of three; one goes before, since what runs first also allocates."""
        self.prepare(train[0])
        spent = []
        for steps in (1, 1, 3):
            rows = np.arange(min(steps * self.training.batch, len(train[0])))
            few = train[0].take(rows), train[1].take(rows)
            one = dataclasses.replace(self.training, epochs=1)
            began = time.process_time()
            _attempt(
                self.network, (self.inputs(few[0]), few[1]), (self.inputs(few[0]), few[1]), one, 0, {}, _Told(None, 1)
            )
            spent.append(time.process_time() - began)
        step = max(0.0, spent[2] - spent[1]) / 2
        return step * self.training.epochs * -(-len(train[0]) // self.training.batch)

    def fit(self, train: tuple[View, Targets], validation: tuple[View, Targets], seed: int) -> None:
        self.prepare(train[0])
        self._learned, self._record = learn(
            self.network, (self.inputs(train[0]), train[1]), (self.inputs(validation[0]), validation[1]),
            self.training, seed, self.trials, self.progress, self.frozen,
        )  # fmt: skip

    def predict(self, view: View) -> Predictions:
        return self.learned.predict(self.inputs(view), len(view))

    def rebuild(self) -> None:
        """Take up the weights that were read from a file."""
        kept = self.learned
        network = self.network(kept.heads.outputs, **kept.options)
        state: Any = kept.network  # of a file: what `state_dict` gave
        network.load_state_dict(state)
        self._learned = dataclasses.replace(kept, network=network)

    @property
    def learned(self) -> Learned:
        if self._learned is None:
            raise ZooError(f"The baseline {self.name} has learned nothing yet; call `fit` first.")
        return self._learned

    @property
    def parameters(self) -> int:
        return self.learned.parameters

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {**dataclasses.asdict(self.training), **self._record}


def perceptron(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Inputs → hidden layers with ReLU → outputs."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
