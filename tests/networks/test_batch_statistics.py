"""Evaluation by the statistics of the batch: the kernels against torch, and how batches are cut."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_datasets.networks import batch_statistics, kernels
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.modules import Network

LAYERS = [
    {"conv": 3, "kernel": 3, "padding": 1}, "batch_norm", "relu", {"max_pool": 2}, "flatten", {"linear": 5}, "tanh",
    "batch_norm", {"dropout": 0.5}, {"linear": "classes"},
]  # fmt: skip
ARCHITECTURE = build_architecture(LAYERS, (1, 4, 4), 4)
WEIGHTS = np.stack([initialize(ARCHITECTURE, f"{i:032x}", "kaiming_normal") for i in range(2)])
IMAGES = np.random.default_rng(0).standard_normal((17, 1, 4, 4)).astype(np.float32)


def by_torch(weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Training mode of the module, its dropout off."""
    import torch

    network = Network(ARCHITECTURE).load_vector(weights).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        found: np.ndarray = network(torch.from_numpy(images)).numpy()
    return found


def check() -> None:
    found = batch_statistics.logits(ARCHITECTURE, WEIGHTS, IMAGES, 8)
    cuts = [slice(0, 8), slice(8, 17)]  # a last one alone joins the others
    for m in range(2):
        wanted = np.concatenate([by_torch(WEIGHTS[m], IMAGES[cut]) for cut in cuts])
        np.testing.assert_allclose(found[m], wanted, rtol=1e-4, atol=1e-5)
    own = np.stack([IMAGES, IMAGES[::-1]])
    assert (batch_statistics.logits(ARCHITECTURE, WEIGHTS, own, 8)[0] == found[0]).all()
    assert (batch_statistics.logits(ARCHITECTURE, WEIGHTS, own, 8)[1] != found[1]).any()
    assert np.isfinite(batch_statistics.logits(ARCHITECTURE, WEIGHTS, IMAGES[:1], 8)).all()


@pytest.mark.skipif(kernels.missing() is not None, reason="the C++ kernels are missing")
def test_the_kernels_normalize_by_the_batch_as_torch_does() -> None:
    check()


def test_without_kernels_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_kernels", None)
    monkeypatch.setattr(kernels, "_missing", "left out", raising=False)
    check()


def test_weights_are_left_as_they_were() -> None:
    before = WEIGHTS.copy()
    batch_statistics.logits(ARCHITECTURE, WEIGHTS, IMAGES, 8)
    assert (WEIGHTS == before).all()


@pytest.mark.parametrize(
    ("count", "batch", "sizes"), [(16, 8, [8, 8]), (17, 8, [8, 9]), (18, 8, [8, 8, 2]), (1, 8, [1]), (3, 1, [1, 2])]
)
def test_a_last_batch_of_one_joins_the_one_before(count: int, batch: int, sizes: list[int]) -> None:
    cut = batch_statistics.batches(count, batch)
    assert [s.stop - s.start for s in cut] == sizes
    assert [i for s in cut for i in range(s.start, s.stop)] == list(range(count))
