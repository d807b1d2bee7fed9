"""Probes on one weight matrix: a hand-computed case, and children of one start."""

from __future__ import annotations

import numpy as np
import population
import pytest
import torch

from zoo_datasets.baselines import matrices
from zoo_datasets.baselines.learning import Training
from zoo_datasets.networks.layout import Entry


def test_responses_are_products_with_the_probes_by_hand() -> None:
    entry = Entry("a.weight", (2, 3), 1, "parameter", ("", ""))
    network = matrices.Network(entry, 1, probes=2)
    with torch.no_grad():
        network.probes.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        network.project.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, -1.0]]))
        network.project.bias.zero_()
    seen = []
    network.read.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(torch.tensor([[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]))
    # X U = [[4, 5], [10, 11]]; of each probe the two units: (4, 10), (5, 11); projected (4, −6), (5, −6); ReLU.
    assert seen[0].tolist() == [[4.0, 0.0, 5.0, 0.0]]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.slow
def test_children_of_one_start_are_told_apart_and_shuffled_ones_are_not(shuffled: bool) -> None:
    start = population.view(1, population.architecture()).vectors[0]
    draw = np.random.default_rng(0)
    direction = draw.standard_normal(len(start)).astype(np.float32)
    views, targets = [], []
    for seed, n in enumerate((80, 30, 60)):
        view = population.view(n, population.architecture(), seed=seed)
        y = draw.integers(0, 2, n)
        noise = draw.standard_normal((n, len(start))).astype(np.float32)
        view.vectors[:] = list(
            start + 0.1 * noise + np.float32(0.1) * (2 * y - 1).astype(np.float32)[:, None] * direction
        )
        told = draw.permutation(y) if shuffled and seed < 2 else y
        views.append(view)
        targets.append(population.Targets((population.KIND,), told[:, None].astype(float)))
    baseline = matrices.MatrixProbes(probes=4, training=Training(epochs=9, batch=16))
    baseline.fit((views[0], targets[0]), (views[1], targets[1]), 0)
    right = (baseline.predict(views[2])["kind"].argmax(1) == targets[2].values[:, 0]).mean()
    assert (right > 0.9) != shuffled
    assert len(baseline.chosen["trials"]) == len(baseline.entries) == 3
    assert baseline.chosen["layer"] in range(3)
