"""Networks over graphs: wiring, layers worked out by hand, what they are blind to, and what they learn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import population
import pytest
import torch

from zoo_datasets.baselines.graphs import GraphNetwork, Messages, NeuralGraph
from zoo_datasets.baselines.interface import View
from zoo_datasets.baselines.learning import Training
from zoo_datasets.baselines.scalegmn import ScaleNetwork
from zoo_datasets.baselines.wiring import Sizes, Wired, wire
from zoo_datasets.errors import ZooError
from zoo_datasets.symmetry import augment

RELU, FLAT = population.architecture(), population.architecture(population.FLAT, "tanh")
NORMED = population.architecture([{"conv": 4, "kernel": 2}, "batch_norm", "relu", "flatten", {"linear": "classes"}])
GRU = population.architecture(["rows", {"gru": 3}, "last_step", {"linear": "classes"}])


SKIP = population.architecture([
    {"conv": 3, "kernel": 3, "padding": 1}, "relu", {"residual": [{"conv": 3, "kernel": 3, "padding": 1}, "relu"]},
    {"residual": [{"conv": 3, "kernel": 1}]}, "global_avg_pool", {"linear": "classes"},
])  # fmt: skip


def moved(view: View, kinds: list[str]) -> View:
    vectors = [
        augment(v, view.architectures[a], [int(i)], kinds=kinds)
        for i, (v, a) in enumerate(zip(view.vectors, view.architecture, strict=True))
    ]
    return dataclasses.replace(view, vectors=vectors)


def test_every_weight_has_one_place_in_the_wiring() -> None:
    view = population.view(4, RELU, FLAT, NORMED, GRU)
    for batch in Wired(Sizes.of(view))(view, np.arange(4)):
        places = np.concatenate([u.ravel() for u in batch.wiring.units] + [e.index.ravel() for e in batch.wiring.links])
        assert sorted(places[places >= 0]) == list(range(batch.architecture.n_params))
        values = torch.cat([t.flatten() for t in (*batch.units, *batch.links)]).numpy()
        np.testing.assert_array_equal(values[places >= 0], view.vectors[int(batch.places)][places[places >= 0]])
        assert not values[places < 0].any()


def test_kernels_lie_in_the_middle_of_the_largest() -> None:
    small = population.architecture([{"conv": 2, "kernel": 1}, "relu", "global_avg_pool", {"linear": "classes"}])
    sizes = Sizes.of(population.view(2, RELU, small))
    first, last = wire(small, sizes).links
    assert first.index.shape == (2, 1, 9)
    assert (first.index[..., 4] >= 0).all()
    assert (last.index[..., 4] >= 0).all()
    assert (np.delete(first.index, 4, 2) < 0).all()


def test_an_add_links_each_unit_to_its_own_by_a_one_in_the_middle() -> None:
    view = population.view(1, SKIP)
    sizes = Sizes.of(view)
    (batch,) = Wired(sizes)(view, np.arange(1))
    adds = [
        (link, values) for link, values in zip(batch.wiring.links, batch.links, strict=True) if link.units is not None
    ]
    names = batch.wiring.names
    assert [(names[a.source], names[a.target]) for a, _ in adds] == [("conv1", "conv2"), ("conv2", "conv3")]
    for add, values in adds:
        assert add.units is not None
        assert add.units.tolist() == [[0], [1], [2]]
        states = torch.arange(6.0).reshape(1, 3, 2)
        assert add.senders(states).tolist() == states[:, :, None].tolist()
        expected = torch.zeros(1, 3, 1, 9)
        expected[..., 4] = 1
        assert torch.equal(values, expected)
    weights = [link.index for link in batch.wiring.links if link.units is None]
    places = np.concatenate([u.ravel() for u in (*batch.wiring.units, *weights)])
    assert sorted(places[places >= 0]) == list(range(SKIP.n_params))


def test_an_add_is_seen() -> None:
    """The same weights with and without it are two networks, and no order of units changes what is said of them."""
    plain = population.architecture([
        {"conv": 3, "kernel": 3, "padding": 1}, "relu", {"conv": 3, "kernel": 3, "padding": 1}, "relu",
        {"conv": 3, "kernel": 1}, "global_avg_pool", {"linear": "classes"},
    ])  # fmt: skip
    view = population.view(4, SKIP, plain)
    same = dataclasses.replace(view, vectors=[view.vectors[0]] * 4)
    torch.manual_seed(0)
    for network in (GraphNetwork(view, 2, 8, 3, 8, activation=False), ScaleNetwork(view, 2, 8, 3)):
        found = population.outputs(network, same)
        assert np.abs(found[0] - found[1]).max() > 1e-4
        kinds = ["permutation"] if isinstance(network, GraphNetwork) else ["permutation", "scale"]
        other, first = moved(view, kinds), population.outputs(network, view)
        assert all((a != b).any() for a, b in zip(other.vectors, view.vectors, strict=True))
        np.testing.assert_allclose(population.outputs(network, other), first, atol=1e-5)


def test_a_round_of_messages_worked_out_by_hand() -> None:
    """One width, two units that feed one: message = shift + scale · (target + source)."""
    layer = Messages(1, degree=math.log(2), last=True)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    ones = (layer.of_target.weight, layer.of_source.weight, layer.norm.bias)
    for tensor in ones:
        torch.nn.init.ones_(tensor)
    layer.film.weight.data = torch.tensor([[1.0], [0.5]])  # scale e, shift e / 2
    layer.update.weight.data = torch.arange(1.0, 10.0)[None]
    layer.norm = torch.nn.Identity()  # type: ignore[assignment]
    view = population.view(1, population.architecture(["flatten", {"linear": "classes"}]))
    wiring = dataclasses.replace(
        next(iter(Wired(Sizes.of(view))(view, np.arange(1)))).wiring, units=(np.zeros((2, 1)), np.zeros((1, 1)))
    )
    batch = dataclasses.replace(next(iter(Wired(Sizes.of(view))(view, np.arange(1)))), wiring=wiring)
    units = [torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[2.0]]])]
    links = [torch.tensor([[[[1.0], [2.0]]]])]
    messages = np.array([0.5 + 1 * (2 + 1), 1 + 2 * (2 + 3)])  # 3.5 and 11
    gathered = np.array([messages.mean(), 3.5, 11, math.sqrt(messages.var() + 1e-5)])
    amplified = gathered * math.log(3) / math.log(2)
    expected = np.array([2.0, *gathered, *amplified]) @ np.arange(1.0, 10.0)
    (_, found), _ = layer(batch, units, links)
    assert found.item() == pytest.approx(expected / (1 + math.exp(-expected)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [False, True])
def test_outputs_are_blind_to_the_order_of_units_and_to_the_other_networks(activation: bool) -> None:
    view = population.view(8, RELU, FLAT, NORMED, GRU)
    torch.manual_seed(0)
    network = GraphNetwork(view, 2, d=8, layers=3, frequencies=8, activation=activation)
    found = population.outputs(network, view)
    np.testing.assert_allclose(population.outputs(network, moved(view, ["permutation"])), found, atol=1e-5)
    alone = np.concatenate([population.outputs(network, view.take(np.array([i]))) for i in range(8)])
    np.testing.assert_allclose(alone, found, atol=1e-5)
    shuffled = dataclasses.replace(view, vectors=[np.roll(v, 1) for v in view.vectors])
    assert np.abs(population.outputs(network, shuffled) - found).max(1).min() > 1e-4


def test_an_activation_is_told_only_where_asked() -> None:
    relu, tanh = population.architecture(), population.architecture(activation="tanh")
    view = population.view(2, relu, tanh)
    same = dataclasses.replace(view, vectors=[view.vectors[0]] * 2)
    for told in (False, True):
        torch.manual_seed(0)
        found = population.outputs(GraphNetwork(view, 1, 8, 2, 8, activation=told), same)
        assert (abs(found[0] - found[1]) > 1e-6) == told


def test_a_network_that_is_too_large_is_refused() -> None:
    network = GraphNetwork(population.view(1, RELU), 1, 8, 2, 8, activation=False)
    large = population.architecture([{"conv": 2, "kernel": 5}, "relu", "global_avg_pool", {"linear": "classes"}])
    with pytest.raises(ZooError, match="larger kernels"):
        population.outputs(network, population.view(1, large))


@pytest.mark.slow
def test_it_learns_what_weights_determine_and_nothing_from_shuffled_targets() -> None:
    train, validation, test = (population.view(n, RELU, seed=s) for s, n in enumerate((80, 30, 50)))
    wanted = population.targets(test).values
    for shuffled in (False, True):
        baseline = NeuralGraph(8, 2, 8, training=Training(epochs=2 if shuffled else 10, batch=16, rate=1e-2))
        given = [(v, population.targets(v, s if shuffled else None)) for s, v in enumerate((train, validation))]
        baseline.fit(*given, seed=1)
        score = population.r2(baseline.predict(test)["number"], wanted[:, 0])
        assert score < 0.1 if shuffled else score > 0.5
