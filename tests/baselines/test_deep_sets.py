"""Deep sets: what a unit's token reads, blindness to the order of units, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_populations import CNN, MLP, random_view, shuffled, size_targets

from zoo_datasets import symmetry
from zoo_datasets.baselines import deep_sets
from zoo_datasets.baselines.learning import Training
from zoo_datasets.symmetry.units import groups

LAYERS = {
    "mlp": (MLP, (1, 2, 2)),
    "cnn": (CNN, (2, 7, 7)),
    "batch-norm": (["batch_norm", {"conv": 3, "kernel": 2}, "batch_norm", "activation", "flatten", {"linear": "classes"}], (1, 3, 3)),
    "gru": (["rows", {"gru": 3}, "last_step", {"linear": "classes"}], (1, 3, 4)),
}  # fmt: skip


def test_a_token_reads_kernels_bias_and_what_leaves() -> None:
    layout = random_view(CNN, (2, 7, 7), 1, 0).layout.layout
    at = {e.name: e.offset for e in layout}
    kernel, bias, leaving = deep_sets.readings(groups(layout)[1], layout)  # the second conv: 3 channels of 4 inputs
    assert kernel.index.shape == (3, 4, 4)
    assert kernel.is_set
    assert kernel.index[1, 2].tolist() == [at["conv2.weight"] + (1 * 4 + 2) * 4 + i for i in range(4)]
    assert bias.index[:, 0, 0].tolist() == [at["conv2.bias"] + i for i in range(3)]
    assert not bias.is_set
    assert leaving.index.shape == (3, 5, 1)
    assert leaving.is_set
    assert leaving.index[2, 4, 0] == at["linear1.weight"] + 4 * 3 + 2


@pytest.mark.parametrize("name", LAYERS)
def test_the_order_of_hidden_units_is_not_seen(name: str) -> None:
    view = random_view(*LAYERS[name], 3, 0)
    layout = view.layout.layout
    torch.manual_seed(0)
    network = deep_sets.Network(layout, 2, width=8, rounds=2, hidden=8)
    moved = symmetry.permute(view.matrix, layout, symmetry.random_permutations(layout, 3, "a"))
    before, after = network(torch.from_numpy(view.matrix)), network(torch.from_numpy(moved))
    assert not np.array_equal(moved, view.matrix)
    assert (before - after).abs().max() < 1e-5
    assert (before[0] - before[1]).abs().max() > 1e-5


@pytest.mark.some(1)
@pytest.mark.parametrize("name", LAYERS)
def test_every_weight_is_seen(name: str) -> None:
    view = random_view(*LAYERS[name], 8, 0)
    torch.manual_seed(0)
    network = deep_sets.Network(view.layout.layout, 2, width=16, rounds=1, hidden=16)
    x = torch.from_numpy(view.matrix).requires_grad_()
    network(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any(0).all()


@pytest.mark.slow
def test_it_learns_what_weights_determine_and_nothing_from_shuffled_targets() -> None:
    train, validation, test = (random_view(MLP, (1, 2, 2), n, n) for n in (64, 32, 33))
    found = {}
    for name in ("true", "shuffled"):
        y = size_targets(train) if name == "true" else shuffled(size_targets(train), 0)
        baseline = deep_sets.DeepSets(width=16, hidden=32, training=Training(epochs=30, batch=16, rate=5e-3))
        baseline.fit((train, y), (validation, size_targets(validation)), 0)
        found[name] = baseline.learned.heads.scores(baseline.predict(test), size_targets(test))
    assert found["true"]["share"] > 0.3
    assert found["shuffled"]["share"] < 0.2
