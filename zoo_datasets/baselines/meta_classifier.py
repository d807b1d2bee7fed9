"""Windows of consecutive weights → what their networks were trained with: the deep meta-classifier.

In:  snapshots as flat vectors, and for each the order in which its values are read; targets of their networks.
Out: a `Learned`, by `learning.learn`; of windows at any place its predictions, with running or with batch statistics.

After Eilertsen et al., "Classifying the classifier: dissecting the weight space of neural networks" (ECAI 2020). A window is
k consecutive values at a random offset, drawn anew whenever its network is met and read from the mapped shard: nothing
is copied but the window. One trunk has a head for each target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from zoo_datasets.baselines.groups import finite
from zoo_datasets.baselines.interface import Predictions
from zoo_datasets.baselines.learning import Inputs, Learned, Training, one_core
from zoo_datasets.errors import ZooError

KERNEL = 5
HEAD = (1024, 1024, 1024, 1024, 64)  # units of the fully connected layers before the heads
DROPOUT = 0.5
LARGE = 40_000  # windows above this go through the larger network
# The small network halves a window before these of its six last convolutions only while it is longer than this.
SHORT = 50
FEWEST = 16  # values of a window: three halvings and the last one leave one
# Of the small network the convolutions up to its first, second and third halving; of the large one between all halvings.
SMALL: tuple[tuple[int, ...], ...] = ((8,), (16,), (32, 64), (128, 256))
TAIL = (256,) * 6
BIG: tuple[tuple[int, ...], ...] = (
    (8,), (16,), (32,), (64,), *((128,),) * 5, (128, 256), (256, 256), (256, 256),
)  # fmt: skip
# Adam at 1e-3, times 0.95 fifty times over the run, 64 windows a step; fifty epochs; numbers by their absolute error.
PUBLISHED = Training(epochs=50, batch=64, rate=1e-3, clip=0.0, schedule="staircase", numbers="mae")


def stages(window: int) -> tuple[list[tuple[int, ...]], list[bool], int]:
    """Convolutions of each stage, whether a halving follows it, and the values that reach the head, by channel.

    Raises ZooError for a window that nothing would be left of.
    """
    if window < FEWEST:
        raise ZooError(f"A window of {window} values is too short; the least is {FEWEST}.")
    if window > LARGE:
        return list(BIG), [True] * len(BIG), window >> len(BIG)
    halved, length = [True] * (len(SMALL) - 1), window >> len(SMALL) - 1
    for _ in TAIL:
        halved.append(length > SHORT)
        length //= 2 if length > SHORT else 1
    return [*SMALL, *((c,) for c in TAIL)], [*halved, True], length // 2


class MetaClassifier(nn.Module):
    """Windows (B, k) → (B, outputs).

    At precision `bfloat16` products have 8 bits of mantissa and float32 sums, and weights stay float32: on a CPU with AMX some three
    times as fast. A window is an image of one row, since channels that lie beside each other are faster in torch.
    """

    def __init__(self, window: int, outputs: int, precision: str = "float32") -> None:
        super().__init__()
        self.precision: torch.dtype = getattr(torch, precision)
        convolutions, halved, length = stages(window)
        layers: list[nn.Module] = []
        before = 1
        for channels, halves in zip(convolutions, halved, strict=True):
            for after in channels:
                layers += [nn.Conv2d(before, after, (1, KERNEL), padding="same"), nn.ReLU(), nn.BatchNorm2d(after)]
                before = after
            layers += [nn.MaxPool2d((1, 2))] if halves else []
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        head: list[nn.Module] = [nn.Flatten()]
        before *= length
        for units in HEAD:
            head += [nn.Linear(before, units), nn.ReLU(), nn.BatchNorm1d(units), nn.Dropout(DROPOUT)]
            before = units
        self.head = nn.Sequential(*head, nn.Linear(before, outputs))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        row = windows[:, None, None].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            found: torch.Tensor = self.head(self.convolutions(row))
        return found.float()


# ── windows ───────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Rows:
    """Snapshots that windows are drawn from."""

    vectors: Sequence[np.ndarray]  # of each its weights (P,) float32, as they are mapped
    orders: Sequence[np.ndarray]  # of each the place in it of every value as it is read (P,)

    def window(self, rows: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
        """The k values from `starts` on of each row, (B, k) float32; what is not finite is 0."""
        found = np.empty((len(rows), k), np.float32)
        for out, row, start in zip(found, rows.tolist(), starts.tolist(), strict=True):
            out[:] = self.vectors[row][self.orders[row][start : start + k]]
        return finite(found)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64."""
        return np.array([len(self.vectors[row]) for row in rows.tolist()], np.int64)

    def random(self, rows: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
        """A uniform start for each row, (B,) int64."""
        return np.asarray(rng.integers(0, self.lengths(rows) - k + 1), np.int64)

    def spaced(self, rows: np.ndarray, k: int, count: int) -> np.ndarray:
        """`count` evenly spaced starts for each row, from its first window to its last, (B, count) int64."""
        share = np.arange(count) / max(1, count - 1)
        return np.asarray(np.rint((self.lengths(rows) - k)[:, None] * share), np.int64)


def drawn(rows: Rows, choices: Sequence[np.ndarray], k: int) -> Inputs:
    """Network → a random window of a random snapshot among its `choices`: what an epoch is made of."""

    def read(networks: np.ndarray, rng: np.random.Generator | None) -> torch.Tensor:
        assert rng is not None, "windows are drawn while training alone"
        own = np.array([choices[n][rng.integers(len(choices[n]))] for n in networks.tolist()], np.int64)
        return torch.from_numpy(rows.window(own, rows.random(own, k, rng), k))

    return read


def fixed(rows: Rows, own: np.ndarray, starts: np.ndarray, k: int) -> Inputs:
    """Place i → the window of snapshot own[i] at starts[i], always the same."""
    return lambda places, _rng: torch.from_numpy(rows.window(own[places], starts[places], k))


# ── predictions ───────────────────────────────────────────────────────────────────────


def ask(learned: Learned, inputs: Inputs, n: int, batch: int, batch_statistics: bool = False) -> Predictions:
    """Of n windows, in batches of so many in their order.

    With `batch_statistics` the batch norms take mean and variance of the batch, as the published code does while
    testing: what is said of a window then depends on those beside it.
    """
    network = learned.network.eval()
    with (
        one_core(),
        torch.no_grad(),
        _of_the_batch(network, min(batch, n)) if batch_statistics else contextlib.nullcontext(),
    ):
        starts = [*range(0, n, batch)]
        if len(starts) > 1 and n - starts[-1] == 1:
            del starts[-1]  # a batch of one has no statistics: the last window is asked with those before it
        outputs = [network(inputs(np.arange(at, to), None)) for at, to in itertools.pairwise([*starts, n])]
        return learned.heads.predictions(torch.cat(outputs) + learned.heads.start())


@contextlib.contextmanager
def _of_the_batch(network: nn.Module, batch: int) -> Iterator[None]:
    """Batch norms as while training, their running statistics left as they are; of single windows those over positions alone."""
    kinds = (nn.BatchNorm2d, nn.BatchNorm1d) if batch > 1 else (nn.BatchNorm2d,)
    norms = [m for m in network.modules() if isinstance(m, kinds)]
    state = {name: value.clone() for name, value in network.state_dict().items() if "running" in name or "num_" in name}
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()
        network.load_state_dict(state, strict=False)
