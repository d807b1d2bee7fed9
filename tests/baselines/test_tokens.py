"""A token autoencoder: its tokens, what it is blind to, what it gives back and what it learns."""

from __future__ import annotations

import numpy as np
import population
import pytest
import torch
from test_graphs import moved

from zoo_datasets.baselines.learning import Training
from zoo_datasets.baselines.tokens import Autoencoder, TokenAutoencoder, parts_of, scales_of
from zoo_datasets.errors import ZooError

RELU, FLAT = population.architecture(), population.architecture(population.FLAT, "tanh")


def test_tokens_hold_every_weight_once_and_nothing_else() -> None:
    view = population.view(4, RELU, FLAT)
    for part in parts_of(view, 16):
        assert part.values.shape[2] == 16
        for values, row in zip(part.values, part.places, strict=True):
            np.testing.assert_array_equal(np.sort(values[part.mask]), np.sort(view.vectors[row]))
            assert not values[~part.mask].any()


def test_scales_are_of_each_layer() -> None:
    view = population.view(3, RELU)
    vectors = [np.concatenate([np.full(e.size, 2.0**k) for k, e in enumerate(RELU.layout)]) for _ in range(3)]
    view.vectors[:] = [v.astype(np.float32) for v in vectors]  # type: ignore[index]
    sizes = np.array([e.size for e in RELU.layout])
    expected = [
        np.sqrt((sizes[k] * 4.0**k + sizes[k + 1] * 4.0 ** (k + 1)) / (sizes[k] + sizes[k + 1])) for k in (0, 2, 4)
    ]
    np.testing.assert_allclose(scales_of(parts_of(view, 16)), expected, rtol=1e-6)


def test_the_loss_counts_only_what_tokens_have() -> None:
    parts = parts_of(population.view(2, RELU), 16)
    network = Autoencoder(torch.ones(3), 16, 8, 1, 4)
    for tensor in (network.leave.weight, network.leave.bias):
        torch.nn.init.zeros_(tensor)
    expected = np.mean(np.square(population.view(2, RELU).vectors))
    assert network.loss(parts[0], torch.arange(2)).item() == pytest.approx(expected, rel=1e-5)


def test_nothing_is_predicted_before_it_is_learned() -> None:
    with pytest.raises(ZooError, match="call `fit` first"):
        TokenAutoencoder().predict(population.view(1, RELU))


@pytest.mark.slow
def test_it_learns_what_weights_determine_whatever_the_order_of_units() -> None:
    train, validation, test = (population.view(n, RELU, FLAT, seed=s) for s, n in enumerate((64, 24, 40)))
    baseline = TokenAutoencoder(16, 16, 1, 8, Training(epochs=5, rate=3e-3), Training(epochs=30, batch=16, rate=3e-2))
    baseline.fit((train, population.targets(train)), (validation, population.targets(validation)), seed=0)
    found, wanted = baseline.predict(test), population.targets(test).values
    assert population.r2(found["number"], wanted[:, 0]) > 0.4
    np.testing.assert_allclose(found["kind"].sum(1), 1)
    other = baseline.predict(moved(test, ["permutation"]))
    for name, values in found.items():
        np.testing.assert_allclose(other[name], values, atol=1e-5)
    assert baseline.predict(test.take(np.arange(0)))["number"].shape == (0,)
    assert baseline.parameters > 1000


@pytest.mark.slow
def test_shuffled_targets_give_nothing_and_the_same_seed_the_same() -> None:
    train, validation, test = (population.view(n, RELU, seed=s) for s, n in enumerate((32, 24, 40)))
    fits = []
    for _ in range(2):
        baseline = TokenAutoencoder(32, 8, 1, 4, Training(epochs=1), Training(epochs=4))
        baseline.fit((train, population.targets(train, 7)), (validation, population.targets(validation, 8)), seed=3)
        fits.append(baseline.predict(test)["number"])
    np.testing.assert_array_equal(*fits)
    assert population.r2(fits[0], population.targets(test).values[:, 0]) < 0.1
