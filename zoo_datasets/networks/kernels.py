"""The C++ kernels: which networks they know, how they are told one, and logits of many models.

In:  an `Architecture`; weights [m, P] and images (n, …).
Out: why the kernels cannot take it, or None; the arguments they are made from; logits (m, n, C).

The kernels are optional, and one compiled module for the reader, which evaluates with them,
and for the builder, which trains with them (their C++ lies in `zoo_datasets/networks/native/`).
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer, Shaped, UInt64

from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.operations.activations import LEAKY_RELU_SLOPE
from zoo_datasets.networks.operations.normalization import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM
from zoo_datasets.networks.operations.operation import units_of
from zoo_datasets.networks.operations.registry import operation, without

try:
    from zoo_datasets.networks import _kernels  # type: ignore[attr-defined]  # compiled
except ImportError as error:  # built without a compiler
    _kernels, _missing = None, str(error)

# Forces one build ("avx512", "avx2", "plain"); the bits are the same, so only tests need it.
PATH_VARIABLE = "WEIGHTZOO_NATIVE_PATH"

LOSSES = ("cross_entropy", "mse")  # in the order of the kernels' plan.h
MOST_CHANNELS = 64  # of augmentation's noise and fill, fixed arrays in random.h


def missing() -> str | None:
    """Why the kernels cannot run here, or None."""
    if _kernels is None:
        return _elsewhere() or f"the C++ kernels were not built ({_missing})"
    if not _kernels.paths():
        return "this CPU has no fused multiply-add"
    return None


@functools.cache
def _elsewhere() -> str | None:
    """That kernels are installed, but with another copy of this package: one stands in a checkout, which Python takes first."""
    try:
        files = importlib.metadata.files("weightzoo") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith("_kernels.") and os.path.exists(file.locate()):
            return (
                f"this is the copy in {Path(__file__).resolve().parents[2]}, and "
                "the C++ kernels are installed with another: start Python in another folder, or `pip install -e .` here"
            )
    return None


def unsupported(architecture: Architecture, loss: str | None = None, channels: int = 0) -> str | None:
    """Why the kernels cannot run such a network, with a `loss` train it, or None.

    `channels` are those of an augmentation's noise or fill.
    """
    before = "input"
    for node in architecture.nodes:
        if without("kernel", [node.op]):
            return f"no kernel for layer {node.op!r} ({node.name})"
        if node.inputs[0] != before or len(node.inputs) != operation(node.op).inputs:
            return f"{node.name} takes {', '.join(node.inputs)}; the kernels know only chains of layers"
        if node.op == "linear" and len(architecture.input_shapes[node.name]) > 2:
            return f"{node.name} needs a flat input or a sequence"
        before = node.name
    if loss is None:
        return None
    if not any(e.role == "parameter" for e in architecture.layout):
        return "there is nothing to train"
    if loss not in LOSSES:
        return f"no kernel for loss {loss!r}"
    return f"augmentation of more than {MOST_CHANNELS} channels" if channels > MOST_CHANNELS else None


def impossible(architecture: Architecture, loss: str | None = None, channels: int = 0) -> str | None:
    """Why the kernels cannot run such networks, with a `loss` train them, on this machine, or None."""
    return missing() or unsupported(architecture, loss, channels)


def unfit(architecture: Architecture, loss: str | None = None, channels: int = 0) -> str | None:
    """Why something else should, or None: they cannot, or PyTorch is faster."""
    return impossible(architecture, loss, channels) or slower(architecture)


# Where eager PyTorch (the better of its two memory layouts) overtakes the kernels in training: the
# product of a layer's input and output widths. By `benchmarks/engines.py` on one Zen 3 core, batch 64,
# native over eager: convolutions of 32-64-128 channels 1.20, 128-128 1.24, 64-128-256 1.10, 160-160
# 1.12; linear layers of 256-256 1.46, 512-512 0.96, 1024-1024 0.63. It also measures unseen ones.
# By `benchmarks/recurrent.py` and its networks in other widths: LSTMs of 128 units 1.1, of 192 1.16; GRUs of 128 1.8, of
# 256 1.31. Where these end is extrapolated.
WIDEST = {"conv": 32_000, "linear": 330_000, "lstm": 70_000, "gru": 150_000}


def slower(architecture: Architecture) -> str | None:
    """Why PyTorch trains such networks faster, or None: by the widths of the layers that take the time.

    A rule, not a limit: a cohort over it can be trained here as well.
    """
    work = over = 0.0
    for node in architecture.nodes:
        if node.op in WIDEST:
            shape = architecture.input_shapes[node.name]
            places = node.shape[0] if len(node.shape) == 2 else math.prod(node.shape[1:])
            multiplications = places * sum(e.size for e in architecture.layout.of_node(node.name) if len(e.shape) > 1)
            work += multiplications
            over += multiplications * units_of(shape) * units_of(node.shape) / WIDEST[node.op]
    if not work or over <= work:
        return None
    return f"PyTorch is faster on layers this wide ({over / work:.1f} times the width where it overtakes)"


def build() -> str:
    """The build that is used: $WEIGHTZOO_NATIVE_PATH, or this CPU's best."""
    return os.environ.get(PATH_VARIABLE) or str(_kernels.paths()[0])


class Augmentation(NamedTuple):
    """An augmentation as the kernels take it; what it does says `zoo_builder/engines/contract.py`."""

    moves: tuple[int, int, bool] = (0, 0, False)  # shift, crop, flip
    noise: tuple[float, ...] = ()  # per channel
    fill: tuple[float, ...] = ()
    distortion: tuple[float, ...] = ()  # the numbers of a distortion in the order of random.h, or none
    mean: tuple[float, ...] = ()  # per channel, of its colors
    std: tuple[float, ...] = ()


UNCHANGED = Augmentation()


def augment(
    images: Float32[np.ndarray, "b c h w"], augmentation: Augmentation, key: UInt64[np.ndarray, " 2"], step: int
) -> Float32[np.ndarray, "b c h w"]:
    """The augmented batch of one model at one step."""
    assert _kernels is not None
    out = np.empty(images.shape, np.float32)
    numbers = (list(values) for values in augmentation[1:])
    _kernels.augment(np.ascontiguousarray(images), out, int(key[0]), int(key[1]), step, augmentation.moves, *numbers)
    return out


def make(
    architecture: Architecture, loss: str = "cross_entropy", augmentation: Augmentation = UNCHANGED, *,
    momentum: float = BATCH_NORM_MOMENTUM, dropping: bool = True,
) -> tuple[Any, str]:  # fmt: skip
    """Kernels for such networks, and the build they are of: $WEIGHTZOO_NATIVE_PATH, or this CPU's best.

    An object serves one thread at a time. `momentum` is the new batch's part of running statistics.
    """
    assert _kernels is not None
    layers, rates = [], []
    places = {"input": -1} | {node.name: i for i, node in enumerate(architecture.nodes)}
    for place, node in enumerate(architecture.nodes):
        shape, entries = architecture.input_shapes[node.name], architecture.layout.of_node(node.name)
        number = places[node.inputs[1]] if len(node.inputs) > 1 else place  # of what is added, or of dropout's stream
        layers.append([
            operation(node.op).kernel, *_three(shape), *_three(node.shape), node.attrs.get("kernel", 0),
            node.attrs.get("stride", 1), node.attrs.get("padding", 0), number, entries[0].offset if entries else 0,
        ])  # fmt: skip
        if len(shape) == 2 and node.op == "linear":  # at each step: a convolution of one place
            layers[-1][0], layers[-1][7] = operation("conv").kernel, 1
        if len(shape) == 2 and node.op == "dropout":  # whose stream goes step by step
            layers[-1][7] = 1
        rate = node.attrs.get("rate")
        rates.append(-1.0 if rate is None else float(rate) if dropping else 0.0)
    constants = (BATCH_NORM_EPS, momentum, LEAKY_RELU_SLOPE)
    path = build()
    flat = len(architecture.input_shape) == 1
    made = _kernels.Kernels(
        path, layers, rates, flat, architecture.n_params, LOSSES.index(loss), constants, augmentation.moves,
        *(list(values) for values in augmentation[1:]),
    )  # fmt: skip
    return made, path


def statistics(architecture: Architecture) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The function vector [P], batch (b, …) → the vector with the batch's own mean and unbiased variance in its buffers.

    A training step at rate 0 gives them; what it makes of the parameters is nobody's.
    """
    made, _ = make(architecture, momentum=1.0, dropping=False)
    one, key = np.ones((1, 1)), np.zeros((1, 2), np.uint64)

    def measured(vector: np.ndarray, images: np.ndarray) -> np.ndarray:
        weights, n = np.array(vector[None], np.float32), len(images)
        made.advance(
            weights, np.zeros_like(weights), np.zeros_like(weights), flat(images), 0, np.array([n], np.int64),
            np.arange(n, dtype=np.int32)[None], np.zeros((1, n), np.int32), [0 * one, one, one], np.ones(1, np.uint8),
            np.zeros(1, np.int32), np.zeros(1, np.uint8), [np.zeros(1)] * 6 + [np.full(1, np.inf)], np.zeros(1), key, key,
            np.empty((1, 1), np.float32),
        )  # fmt: skip
        found: np.ndarray = weights[0]
        return found

    return measured


def logits(
    architecture: Architecture,
    weights: Shaped[np.ndarray, "m p"] | list[Shaped[np.ndarray, " p"]],
    images: Shaped[np.ndarray, " n *input"],
    threads: int = 1,
) -> Float32[np.ndarray, "m n c"]:
    """Logits, as in evaluation mode, of models on images; each thread takes some models."""
    weights, shown = np.ascontiguousarray(weights, np.float32), flat(images)
    out = np.empty((len(weights), len(images), architecture.n_logits), np.float32)
    share = max(1, -(-len(weights) // threads))
    parts = [slice(a, a + share) for a in range(0, len(weights), share)]

    def fill(part: slice) -> None:
        make(architecture)[0].evaluate(weights[part], shown, None, out[part])

    if len(parts) <= 1:
        for part in parts:
            fill(part)
    else:
        with ThreadPoolExecutor(threads) as pool:  # the kernels run without the interpreter's lock
            list(pool.map(fill, parts))
    return out


def score(  # sizes are checked in C++, by which a wrong one would lead outside
    logits: Float32[np.ndarray, "_ _ _"], labels: Integer[np.ndarray, "_ _ _"], loss: str,
    losses: Float64[np.ndarray, "_ _"], correct: Int64[np.ndarray, "_ _ _"],
) -> None:  # fmt: skip
    """Fill sums of losses (K, M) and right answers (K, M, C) of logits (M, n, C) by labels (K, 1 or M, n)."""
    path = os.environ.get(PATH_VARIABLE) or _kernels.paths()[0]
    shown, given = np.ascontiguousarray(logits, np.float32), np.ascontiguousarray(labels, np.int64)
    _kernels.score(path, shown, given, LOSSES.index(loss), losses, correct)


def flat(images: Shaped[np.ndarray, " n *shape"]) -> Float32[np.ndarray, "n units"]:
    """(n, *shape) → (n, units), without a copy where that is what it is; of sequences all steps of a feature together."""
    if images.ndim == 3:
        images = images.transpose(0, 2, 1)
    return np.ascontiguousarray(images, np.float32).reshape(len(images), -1)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 2:  # (steps, features): a sequence lies as features of one row, a column a step
        return (shape[1], 1, shape[0])
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)
