"""ScaleGMN: blind to order, positive factors and signs, and to nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import population
import pytest
import torch
from test_graphs import SKIP, moved

from zoo_datasets.baselines.learning import Training
from zoo_datasets.baselines.scalegmn import Equivariant, Invariant, Round, ScaleGMN, ScaleNetwork, symmetries

RELU, TANH = population.architecture(population.FLAT), population.architecture(activation="tanh")
GELU = population.architecture(activation="gelu")
POOLED = population.architecture(population.FLAT, "tanh")  # a maximum of −x is no −maximum of x
NORMED = population.architecture([{"conv": 4, "kernel": 2}, "batch_norm", "relu", "flatten", {"linear": "classes"}])
GRU = population.architecture(["rows", {"gru": 3}, "last_step", {"linear": "classes"}])
ALL = (RELU, TANH, GELU, POOLED, NORMED, GRU)


def test_the_symmetries_each_layer() -> None:
    assert [symmetries(a) for a in ALL] == [
        {"conv1": "scale", "linear1": "scale"}, {"conv1": "sign", "conv2": "sign"}, {}, {"linear1": "sign"}, {}, {},
    ]  # fmt: skip
    assert symmetries(SKIP) == {"conv1": "scale", "conv2": "scale", "conv3": "scale"}


@pytest.mark.parametrize("symmetry", ["scale", "sign"])
def test_maps_are_invariant_and_equivariant(symmetry: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 5, 8)
    factor = torch.tensor([[0.01], [3.0], [100.0], [1.0], [7.0]]) if symmetry == "scale" else torch.tensor([[-1.0]])
    invariant, equivariant = Invariant(8), Equivariant(2, 8)
    torch.testing.assert_close(invariant(x * factor, symmetry), invariant(x, symmetry))
    found = equivariant(symmetry, x * factor, y * factor)
    torch.testing.assert_close(found, equivariant(symmetry, x, y) * factor, rtol=1e-4, atol=1e-5)


def test_a_normalized_state_worked_out_by_hand_whatever_its_size() -> None:
    for size in (1.0, 1e-20, 1e30):
        found = Invariant(2)(torch.tensor([3.0, -4.0]) * size, "scale")
        torch.testing.assert_close(found, torch.tensor([0.6, -0.8]), rtol=1e-4, atol=0)


class _Sum(torch.nn.Module):
    def forward(self, symmetry: str, *parts: torch.Tensor) -> torch.Tensor:
        return torch.stack(parts).sum(0)


def test_messages_are_products_that_are_summed() -> None:
    """Width 1, one step: what a unit gathers is the sum over sources of state times connection."""
    view = population.view(1, population.architecture(["flatten", {"linear": 4}, "relu", {"linear": "classes"}]))
    batch = next(iter(ScaleNetwork(view, 1, 1, 1).wired(view, np.arange(1))))
    layer = Round(1, last=True)
    layer.of_unit.weight.data.fill_(2.0)
    layer.of_link.weight.data.fill_(3.0)
    layer.message = layer.message_out = layer.update = layer.update_out = _Sum()  # type: ignore[assignment]
    units = [torch.ones(1, 64, 1), torch.full((1, 4, 1), 0.5), torch.zeros(1, 3, 1)]
    (_, hidden, last), links = layer(batch, ["scale"] * 3, units, batch.links)
    assert links == []
    first, second = (e[..., 0] for e in batch.links)
    torch.testing.assert_close(hidden[..., 0], 0.5 + 6 * first.sum(2))
    torch.testing.assert_close(last[..., 0], 3 * second.sum(2))


@pytest.mark.some(1)
@pytest.mark.parametrize("kinds", [["permutation"], ["scale"], ["sign"], ["permutation", "scale", "sign"]])
@pytest.mark.slow
def test_outputs_are_blind_to_all_that_leaves_the_function_alone(kinds: list[str]) -> None:
    view = population.view(12, *ALL)
    torch.manual_seed(0)
    network = ScaleNetwork(view, 2, d=8, layers=3)
    other = moved(view, kinds)
    if "scale" in kinds or "sign" in kinds:
        # A normalized layer and a GRU have a sign, or a scale, of their own, which these maps do not know.
        rows = np.flatnonzero(view.architecture < 4)
        view, other = view.take(rows), other.take(rows)
        assert any((a != b).any() for a, b in zip(view.vectors, other.vectors, strict=True))
    np.testing.assert_allclose(population.outputs(network, other), population.outputs(network, view), atol=1e-5)


@pytest.mark.slow
def test_what_changes_the_function_changes_the_outputs() -> None:
    view = population.view(6, *ALL)
    torch.manual_seed(0)
    network = ScaleNetwork(view, 1, d=8, layers=3)
    found = population.outputs(network, view)
    for change in (lambda v: np.roll(v, 1), lambda v: np.concatenate([2 * v[:1], v[1:]])):
        other = dataclasses.replace(view, vectors=[change(v) for v in view.vectors])
        assert np.abs(population.outputs(network, other) - found).min() > 1e-6


@pytest.mark.slow
def test_it_learns_what_weights_determine_and_nothing_from_shuffled_targets() -> None:
    def drawn(n: int, seed: int) -> population.View:
        """Networks whose last biases are large, and of all else a target keeps them: their mean."""
        view = population.view(n, TANH, seed=seed)
        ends = np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)
        return dataclasses.replace(
            view, vectors=[np.concatenate([v[:-3], e]) for v, e in zip(view.vectors, ends, strict=True)]
        )

    def given(view: population.View, shuffled: int | None = None) -> population.Targets:
        values = np.array([v[-3:].mean() for v in view.vectors])[:, None].astype(float)
        if shuffled is not None:
            values = values[np.random.default_rng(shuffled).permutation(len(values))]
        return population.Targets((population.NUMBER,), values)

    train, validation, test = drawn(80, 0), drawn(30, 1), drawn(50, 2)
    for shuffled in (False, True):
        baseline = ScaleGMN(8, 2, Training(epochs=2 if shuffled else 12, batch=16, rate=1e-2))
        baseline.fit(*[(v, given(v, s if shuffled else None)) for s, v in enumerate((train, validation))], seed=1)
        score = population.r2(baseline.predict(test)["number"], given(test).values[:, 0])
        assert score < 0.1 if shuffled else score > 0.4, score
