"""NFN held to its reference: parameter counts, a case by hand, the symmetries of its layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_populations import CNN, MLP, random_view, shuffled, size_targets

from zoo_datasets import symmetry
from zoo_datasets.baselines import nfn
from zoo_datasets.baselines.learning import Training
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture

SHAPES = {"mlp": (MLP, (1, 2, 2)), "cnn": (CNN, (2, 7, 7)), "one-hidden": ([*MLP[:3], MLP[-1]], (1, 2, 2))}


def vector_of(features: nfn.Features, architecture: Architecture) -> np.ndarray:
    """Features of one channel (B, out, in, k) as flat vectors (B, P)."""
    out = np.zeros((len(features[0][0]), architecture.n_params), np.float32)
    for p, weight, bias in zip(nfn.pairs(architecture), *features, strict=True):
        out[:, p.weight.offset : p.weight.end] = weight.flatten(1).detach().numpy()
        out[:, p.bias.offset : p.bias.end] = bias.flatten(1).detach().numpy()
    return out


@pytest.mark.parametrize(("layer", "parameters"), [("hnp", 2_811_743), ("np", 2_031_390)])
def test_parameters_of_the_published_networks(layer: str, parameters: int) -> None:
    layers = nfn.pairs(build_architecture("small-cnn-gap", (1, 28, 28), 10, "relu"))
    assert [(p.outs, p.ins, p.k) for p in layers] == [(16, 1, 9), (16, 16, 9), (16, 16, 9), (10, 16, 1)]
    with torch.device("meta"):
        network = nfn.Network(layers, 1, layer=layer, positions=True, channels=(16, 16, 5), hidden=1000)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_columns_of_one_channel_after_flatten_are_its_block() -> None:
    a = build_architecture(CNN, (2, 7, 7), 3, "relu")
    x = torch.arange(a.n_params, dtype=torch.float32)[None]
    third = nfn.pairs(a)[2]
    assert (third.outs, third.ins, third.k) == (5, 3, 1)
    wide = build_architecture([*CNN[:2], "flatten", CNN[-1]], (1, 4, 4), 3, "relu")
    last = nfn.pairs(wide)[-1]
    assert (last.outs, last.ins, last.k) == (3, 4, 4)
    weight = nfn.features_of(torch.arange(wide.n_params, dtype=torch.float32)[None], nfn.pairs(wide))[0][-1]
    assert weight[0, 1, 2].tolist() == [last.weight.offset + 16 + 8 + i for i in range(4)]
    assert nfn.features_of(x, nfn.pairs(a))[1][0].shape == (1, 4, 1)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("layer", ["hnp", "np"])
def test_layers_commute_with_permutations_of_hidden_units(name: str, layer: str) -> None:
    view = random_view(*SHAPES[name], 3, 0)
    a, layers = view.layout, nfn.pairs(view.layout)
    torch.manual_seed(1)
    made = nfn.HNPLayer(layers, 1, 1) if layer == "hnp" else nfn.NPLayer(layers, 1, 1)
    moves = symmetry.random_permutations(a.layout, 3, "a")
    moved = torch.from_numpy(symmetry.permute(view.matrix, a.layout, moves))
    assert not np.array_equal(moved, view.matrix)
    before = vector_of(made(nfn.features_of(torch.from_numpy(view.matrix), layers)), a)
    after = vector_of(made(nfn.features_of(moved, layers)), a)
    assert np.abs(after - symmetry.permute(before, a.layout, moves)).max() < 1e-5
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.some(3)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("layer", "positions"), [("hnp", True), ("np", True), ("np", False)])
def test_networks_do_not_see_the_order_of_hidden_units(name: str, layer: str, positions: bool) -> None:
    view = random_view(*SHAPES[name], 3, 0)
    layout = view.layout.layout
    torch.manual_seed(1)
    network = nfn.Network(nfn.pairs(view.layout), 2, layer=layer, positions=positions, channels=(4, 3), hidden=8)
    moved = symmetry.permute(view.matrix, layout, symmetry.random_permutations(layout, 3, "b"))
    before, after = network(torch.from_numpy(view.matrix)), network(torch.from_numpy(moved))
    assert (before - after).abs().max() < 1e-5
    assert (before[0] - before[1]).abs().max() > 1e-6  # it does see weights


@pytest.mark.parametrize(
    ("layer", "positions", "blind"), [("np", False, True), ("np", True, False), ("hnp", True, False)]
)
def test_only_np_without_positions_is_blind_to_the_order_of_inputs_and_classes(
    layer: str, positions: bool, blind: bool
) -> None:
    view = random_view(MLP, (1, 2, 2), 3, 0)
    layers = nfn.pairs(view.layout)
    torch.manual_seed(1)
    network = nfn.Network(layers, 2, layer=layer, positions=positions, channels=(4, 3), hidden=8)
    moved = view.matrix.copy()
    tensors = view.layout.layout.unflatten(moved)  # views
    tensors["linear1.weight"][:] = tensors["linear1.weight"][:, :, [2, 0, 3, 1]]
    tensors["linear3.weight"][:] = tensors["linear3.weight"][:, [1, 2, 0]]
    tensors["linear3.bias"][:] = tensors["linear3.bias"][:, [1, 2, 0]]
    difference = (network(torch.from_numpy(view.matrix)) - network(torch.from_numpy(moved))).abs().max()
    assert difference < 1e-5 if blind else difference > 1e-5


def test_what_was_added_to_flattened_units_is_no_chain() -> None:
    layers = [
        {"conv": 3, "kernel": 3},
        "activation",
        "flatten",
        {"residual": [{"linear": 12}, "activation"]},
        {"linear": "classes"},
    ]
    with pytest.raises(
        ZooError, match=r"NFN reads chains, and layer linear\d takes .* something was added between them"
    ):
        nfn.pairs(build_architecture(layers, (1, 4, 4), 3, "relu"))


def set_maps(module: nfn.Sum, *values: float) -> None:
    """Every weight of the i-th linear map of a sum is values[i], biases are 0."""
    for linear, value in zip(module.maps, values, strict=True):
        linear.weight.data.fill_(value)
        linear.bias.data.zero_()


# Two inputs, two hidden units, one output: W₁ = [[1, 2], [3, 4]], b₁ = [5, 6], W₂ = [[7, 9]], b₂ = [10].
BY_HAND = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 9, 10]])


def by_hand() -> tuple[nfn.Pair, ...]:
    return nfn.pairs(
        build_architecture(["flatten", {"linear": 2}, "activation", {"linear": "classes"}], (1, 1, 2), 1, "relu")
    )


def test_np_layer_by_hand() -> None:
    layer = nfn.NPLayer(by_hand(), 1, 1, positions=False)
    set_maps(layer.weights[0], 1000, 100, 10, 1)  # own, by row, by column, means of all
    set_maps(layer.weights[1], 1000, 100, 10, 1)
    set_maps(layer.biases[0], 100, 1)
    set_maps(layer.biases[1], 100, 1)
    weights, biases = layer(nfn.features_of(BY_HAND, by_hand()))
    means = 2.5 + 8 + 5.5 + 10  # W₁, W₂, b₁, b₂
    rows, columns = np.array([1.5 + 5 + 7, 3.5 + 6 + 9]), np.array([2.0, 3.0])
    expected = 1000 * np.array([[1, 2], [3, 4]]) + 100 * rows[:, None] + 10 * columns + means
    assert weights[0][0, :, :, 0].tolist() == expected.tolist()
    columns = np.array([7 + 1.5 + 5, 9 + 3.5 + 6])
    expected = 1000 * np.array([7, 9]) + 100 * (8 + 10) + 10 * columns + means
    assert weights[1][0, 0, :, 0].tolist() == expected.tolist()
    assert biases[0][0, :, 0].tolist() == (100 * rows + means).tolist()
    assert biases[1][0, :, 0].tolist() == [100 * (8 + 10) + means]


def test_offsets_are_added_to_inputs_outputs_and_the_last_bias() -> None:
    plain, placed = nfn.NPLayer(by_hand(), 1, 1, positions=False), nfn.NPLayer(by_hand(), 1, 1)
    placed.load_state_dict(plain.state_dict(), strict=False)
    assert placed.offsets is not None
    for offset, values in zip(placed.offsets, ([[[1.0], [2.0]]], [[[3.0]]], [[4.0]]), strict=True):
        offset.data = torch.tensor(values)
    shifted = BY_HAND + torch.tensor([[1.0, 2, 1, 2, 0, 0, 3, 3, 4]])
    found, expected = placed(nfn.features_of(BY_HAND, by_hand())), plain(nfn.features_of(shifted, by_hand()))
    for a, b in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(a, b)


def test_hnp_layer_by_hand_next_to_both_borders() -> None:
    layer = nfn.HNPLayer(by_hand(), 1, 1)
    for module in (*layer.weights, *layer.biases[:1]):
        set_maps(module, 100, 1)
    set_maps(layer.biases[1], 1)
    weights, biases = layer(nfn.features_of(BY_HAND, by_hand()))
    # Means of W₁ W₂ b₁ b₂; inputs' means of W₁, outputs' mean of W₂, the last bias.
    means = 2.5 + 8 + 5.5 + 10 + (2 + 3) + 8 + 10
    # A hidden unit: what enters it, its bias, the mean of what leaves it and all of it (one output: the same).
    unit = np.array([1 + 2 + 5 + 7 + 7, 3 + 4 + 6 + 9 + 9])
    assert weights[0][0, :, :, 0].tolist() == (100 * unit[:, None] + means).repeat(2, 1).tolist()
    assert biases[0][0, :, 0].tolist() == (100 * unit + means).tolist()
    # To the output: what leaves the unit, the mean of what enters it, all of what enters it.
    assert weights[1][0, 0, :, 0].tolist() == [100 * (7 + 1.5 + 3) + means, 100 * (9 + 3.5 + 7) + means]
    assert biases[1][0, :, 0].tolist() == [means]


def test_hnp_layer_keeps_inputs_apart() -> None:
    """A map from one input's weights to another's output: channels, not a set."""
    layer = nfn.HNPLayer(by_hand(), 1, 1)
    for module in (*layer.weights, *layer.biases):
        set_maps(module, *[0.0] * len(module.maps))
    layer.weights[0].maps[0].weight.data[1, 0] = 1.0  # the second input's new weight is the first's
    weights, _ = layer(nfn.features_of(BY_HAND, by_hand()))
    assert weights[0][0, :, :, 0].tolist() == [[0, 1], [0, 3]]


@pytest.mark.slow
def test_it_learns_what_weights_determine_and_nothing_from_shuffled_targets() -> None:
    train, validation, test = (random_view(MLP, (1, 2, 2), n, n) for n in (64, 32, 33))
    options = {"channels": (4, 4), "hidden": 32, "training": Training(epochs=25, batch=16, rate=3e-3)}
    found = {}
    for name in ("true", "shuffled"):
        y = size_targets(train) if name == "true" else shuffled(size_targets(train), 0)
        baseline = nfn.NFN("hnp", **options)
        baseline.fit((train, y), (validation, size_targets(validation)), 0)
        found[name] = baseline.learned.heads.scores(baseline.predict(test), size_targets(test))
    assert found["true"]["share"] > 0.4
    assert found["shuffled"]["share"] < 0.2


@pytest.mark.parametrize(
    ("layers", "shape", "match"),
    [
        (["batch_norm", *CNN], (2, 7, 7), "layer batch_norm1 is a batch_norm"),
        (["flatten", {"linear": "classes"}], (1, 2, 2), "needs hidden units"),
        (
            ["flatten", {"linear": 32}, "activation", {"linear": "classes"}],
            (1, 28, 28),
            "would learn .* for 784 inputs",
        ),
    ],
)
def test_what_it_cannot_read_is_one_sentence(layers: list, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ZooError, match=match):
        nfn.NFN().prepare(random_view(layers, shape, 2, 0))


@pytest.mark.parametrize(
    "sides", [[(3, 4)], [(3, 4), (1, 1)], [(3, 4), (3, 1), (1, 1)], [(3, 4), (3, 1), (1, 4), (1, 1)], [(3, 1), (1, 1)]]
)
def test_a_sum_of_maps_and_its_gradient_are_those_of_linear_layers(sides: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    made = nfn.Sum(list(range(2, 2 + len(sides))), 5).double()
    terms = [torch.randn(2, *side, 2 + i, dtype=torch.float64, requires_grad=i != 1) for i, side in enumerate(sides)]
    plain = sum(linear(term) for linear, term in zip(made.maps, terms, strict=True))
    torch.testing.assert_close(made(*terms), plain)
    asked = [*(t for t in terms if t.requires_grad), *made.parameters()]
    weights = torch.randn_like(made(*terms))
    ours, theirs = (
        torch.autograd.grad((out * weights).sum(), asked, retain_graph=True) for out in (made(*terms), plain)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    (spread,) = torch.autograd.grad(made(*terms).sum(), terms[:1])  # whose own gradient is one number, expanded
    torch.testing.assert_close(spread, torch.autograd.grad(plain.sum(), terms[:1])[0])
