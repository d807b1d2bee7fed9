"""Orbits of weights: the same function, one representative, the way back to a reference."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_datasets import symmetry
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.layout import Layout, by_id

IMAGE = (2, 8, 8)
# One architecture per way in which units meet: what stands between a layer and the next.
LAYERS = {
    "mlp": ["flatten", {"linear": 7}, "activation", {"linear": 5}, "activation", {"linear": "classes"}],
    "conv-pool-flatten": [
        {"conv": 4, "kernel": 3}, {"max_pool": 2}, "activation", "dropout", {"conv": 3, "kernel": 2, "padding": 1},
        "activation", "flatten", {"linear": 6}, "activation", {"linear": "classes"},
    ],
    "avg-pool-gap": [
        {"conv": 4, "kernel": 3}, "activation", {"avg_pool": 2}, {"conv": 5, "kernel": 2}, "activation",
        "global_avg_pool", {"linear": "classes"},
    ],
    "batch-norm": [
        "batch_norm", {"conv": 4, "kernel": 3}, "batch_norm", "activation", {"conv": 3, "kernel": 3}, "activation",
        "batch_norm", {"max_pool": 2}, "flatten", "batch_norm", "activation", {"linear": 6}, "batch_norm", "activation",
        {"linear": "classes"},
    ],
    "no-activation": [{"conv": 3, "kernel": 3}, "flatten", {"linear": 5}, {"linear": "classes"}, "batch_norm"],
    "gru": [
        {"conv": 3, "kernel": 3}, "activation", {"max_pool": 2}, "rows", {"gru": 5}, "dropout", {"gru": 4}, "last_step",
        {"linear": 6}, "activation", {"linear": "classes"},
    ],
    "gru-averaged": [{"conv": 3, "kernel": 3}, "activation", {"avg_pool": 2}, "rows", {"gru": 4}, "activation", "last_step", {"linear": "classes"}],
    "lstm": [
        {"conv": 3, "kernel": 3}, "activation", {"tiles": 2}, {"lstm": 5}, "dropout", {"lstm": 4}, {"linear": 6}, "activation",
        "last_step", {"linear": "classes"},
    ],
    "gru-last": ["rows", {"gru": 5}, "activation", {"gru": 3}, "last_step"],
    # Blocks with a layer inside and one of the sum alone, in a row, nested, over flattened channels, over batch norm.
    "skips": [
        {"conv": 4, "kernel": 3}, {"residual": [{"conv": 5, "kernel": 3, "padding": 1}, "activation", {"conv": 4, "kernel": 1}]},
        "activation", {"residual": [{"conv": 4, "kernel": 3, "padding": 1}, {"residual": ["activation", {"conv": 4, "kernel": 1}]}]},
        {"avg_pool": 2}, "flatten", {"residual": [{"linear": 36}, "activation"]}, {"linear": 6}, "activation",
        {"residual": [{"linear": 6}]}, {"linear": "classes"},
    ],
    "skips-batch-norm": [
        {"conv": 4, "kernel": 3}, "batch_norm", "activation",
        {"residual": ["batch_norm", {"conv": 5, "kernel": 3, "padding": 1}, "batch_norm", "activation", {"conv": 4, "kernel": 1}]},
        "batch_norm", "activation", "global_avg_pool", {"linear": "classes"},
    ],
    "skips-gru": ["rows", {"gru": 5}, {"residual": [{"gru": 5}, "activation"]}, "last_step", {"linear": 4}, {"linear": "classes"}],
    "conv-last": [{"conv": 4, "kernel": 3}, "activation", {"conv": 3, "kernel": 3}, "global_avg_pool"],
}  # fmt: skip
CASES = [(name, act) for name in LAYERS if name != "no-activation" for act in ("relu", "tanh", "gelu")]
CASES += [("no-activation", "relu"), ("mlp", "leaky_relu"), ("mlp", "sigmoid")]


def network(name: str, activation: str = "relu") -> Architecture:
    return build_architecture(LAYERS[name], IMAGE, 3, activation)


def random_weights(architecture: Architecture, n: int, seed: int) -> np.ndarray:
    """float32 [n, P], normal, with running variances in [0.5, 1.5]."""
    rows = np.random.default_rng(seed).normal(0, 0.5, (n, architecture.n_params)).astype(np.float32)
    for e in architecture.layout:
        if e.name.endswith("running_var"):
            rows[:, e.offset : e.end] = 0.5 + np.abs(np.tanh(rows[:, e.offset : e.end]))
    return rows


def outputs(weights: np.ndarray, architecture: Architecture, shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    """float64 [S, B, C] on random images, in evaluation mode."""
    import torch

    from zoo_datasets.networks.modules import Network

    images = torch.tensor(np.random.default_rng(0).normal(size=(3, *shape)), dtype=torch.float64)
    network = Network(architecture).double().eval()
    with torch.no_grad():
        return np.array([network.load_vector(row)(images).numpy() for row in weights])


def assert_same_function(a: np.ndarray, b: np.ndarray, architecture: Architecture) -> None:
    wanted = outputs(a, architecture)
    # Weights are float32: a rescaled one is off by 6e-8 of itself, layer after layer.
    np.testing.assert_allclose(outputs(b, architecture), wanted, rtol=0, atol=3e-6 * max(1.0, np.abs(wanted).max()))


@pytest.mark.some(3)
@pytest.mark.parametrize(("name", "activation"), CASES)
def test_augmented_weights_compute_the_same_function(name: str, activation: str) -> None:
    architecture = network(name, activation)
    weights = random_weights(architecture, 3, 1)
    moved = symmetry.augment(weights, architecture, "a")
    assert moved.dtype == np.float32
    assert (moved != weights).any(axis=1).all()
    assert_same_function(weights, moved, architecture)


@pytest.mark.some(3)
@pytest.mark.parametrize(("name", "activation"), CASES)
def test_canonical_weights_compute_the_same_function_and_are_the_same_for_the_whole_orbit(
    name: str, activation: str
) -> None:
    architecture = network(name, activation)
    weights = random_weights(architecture, 3, 2)
    canonical = symmetry.canonicalize(weights, architecture)
    assert_same_function(weights, canonical, architecture)
    moved = symmetry.augment(weights, architecture, 5)
    np.testing.assert_allclose(symmetry.canonicalize(moved, architecture), canonical, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(symmetry.canonicalize(canonical, architecture), canonical, rtol=1e-5, atol=1e-6)


@pytest.mark.some(27)
@pytest.mark.parametrize("kinds", [("permutation",), ("sign",), ("permutation", "sign"), ("scale",)])
@pytest.mark.parametrize(("name", "activation"), CASES)
def test_canonical_weights_are_bitwise_equal_over_permutations_and_signs(
    name: str, activation: str, kinds: tuple[str, ...]
) -> None:
    architecture = network(name, activation)
    weights = random_weights(architecture, 3, 3)
    moved = symmetry.augment(weights, architecture, 7, kinds=set(kinds) - {"scale"})
    same = symmetry.canonicalize(weights, architecture, kinds=kinds)
    assert same.tobytes() == symmetry.canonicalize(moved, architecture, kinds=kinds).tobytes()


def test_a_unit_that_decayed_under_a_sum_stays_finite() -> None:
    """What is added to it later would be divided by its norm too."""
    layers = ["flatten", {"linear": 4}, {"residual": ["relu", {"linear": 4}]}, "relu", {"linear": 3}]
    architecture = build_architecture(layers, IMAGE, 3)
    weights = random_weights(architecture, 2, 0)
    for row in weights:
        named = architecture.layout.unflatten(row)
        named["linear1.weight"][1] = 1e-40
        named["linear1.bias"][1] = 0
        row[:] = architecture.layout.flatten(named)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canonical = symmetry.canonicalize(weights, architecture)
    assert np.isfinite(canonical).all()
    assert_same_function(weights, canonical, architecture)
    moved = symmetry.augment(weights, architecture, 1, kinds="permutation")
    assert symmetry.canonicalize(moved, architecture).tobytes() == canonical.tobytes()


@pytest.mark.parametrize("octaves", [-1.0, 31, float("nan"), float("inf")])
def test_scales_that_no_weight_could_bear_are_refused(octaves: float) -> None:
    architecture = network("batch-norm")
    with pytest.raises(ValueError, match="a number from 0 to 30 is needed"):
        symmetry.augment(random_weights(architecture, 1, 0), architecture, 0, octaves=octaves)


def test_a_permutation_keeps_every_bit_of_float64() -> None:
    architecture = network("batch-norm")
    weights = random_weights(architecture, 2, 0).astype(np.float64) + 1e-12
    drawn = symmetry.random_permutations(architecture.layout, 2, "a")
    moved = symmetry.permute(weights, architecture.layout, drawn)
    assert moved.dtype == np.float64
    assert symmetry.permute(moved, architecture.layout, symmetry.invert(drawn)).tobytes() == weights.tobytes()


@given(seed=st.integers(0, 10**6), case=st.sampled_from(CASES))
@settings(max_examples=20, deadline=None)
@pytest.mark.slow
def test_aligning_a_permuted_copy_gives_the_reference_back(seed: int, case: tuple[str, str]) -> None:
    architecture = network(*case)
    weights = random_weights(architecture, 2, seed)
    moved = symmetry.augment(weights[:1].repeat(2, axis=0), architecture, seed, kinds="permutation")
    assert symmetry.align(moved, weights[0], architecture).tobytes() == weights[:1].repeat(2, axis=0).tobytes()


@given(seed=st.integers(0, 10**6), case=st.sampled_from(CASES))
@settings(max_examples=10, deadline=None)
@pytest.mark.slow
def test_orbits_keep_the_function_and_the_representative(seed: int, case: tuple[str, str]) -> None:
    architecture = network(*case)
    weights = random_weights(architecture, 1, seed)
    moved = symmetry.augment(weights, architecture, seed)
    assert_same_function(weights, moved, architecture)
    np.testing.assert_allclose(
        symmetry.canonicalize(moved, architecture), symmetry.canonicalize(weights, architecture), rtol=1e-4, atol=1e-5
    )


@given(
    seed=st.integers(0, 10**6), values=st.sampled_from([[np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45], [0.0, 1.0, -1.0]])
)
@settings(max_examples=25, deadline=None)
def test_permutations_are_undone_to_the_bit_whatever_the_values(seed: int, values: list[float]) -> None:
    architecture = network("batch-norm")
    rng = np.random.default_rng(seed)
    weights = rng.choice(np.array(values, np.float32), (2, architecture.n_params))
    drawn = symmetry.random_permutations(architecture.layout, 2, seed)
    moved = symmetry.permute(weights, architecture.layout, drawn)
    assert symmetry.permute(moved, architecture.layout, symmetry.invert(drawn)).tobytes() == weights.tobytes()


def test_a_permuted_channel_takes_its_block_of_the_next_linear_layer_along() -> None:
    architecture = build_architecture([{"conv": 2, "kernel": 7}, "flatten", {"linear": 3}], IMAGE, 3)  # 2×2 a channel
    weights = np.arange(architecture.n_params, dtype=np.float32)
    before = architecture.layout.unflatten(weights)
    after = architecture.layout.unflatten(symmetry.permute(weights, architecture.layout, {"conv1": np.array([1, 0])}))
    np.testing.assert_array_equal(after["conv1.weight"], before["conv1.weight"][[1, 0]])
    np.testing.assert_array_equal(after["conv1.bias"], before["conv1.bias"][[1, 0]])
    np.testing.assert_array_equal(after["linear1.weight"], before["linear1.weight"][:, [4, 5, 6, 7, 0, 1, 2, 3]])
    np.testing.assert_array_equal(after["linear1.bias"], before["linear1.bias"])


def free(name: str, activation: str) -> dict[str, str]:
    """`source>sink` → which of scale and sign is free there."""
    found = symmetry.factors(network(name, activation))
    return {f"{f.source}>{f.sink}": "+".join(k for k, v in (("scale", f.scale), ("sign", f.sign)) if v) for f in found}


def test_scale_and_sign_are_claimed_where_they_are_free_and_nowhere_else() -> None:
    assert free("mlp", "relu") == {"linear1>linear2": "scale", "linear2>linear3": "scale"}
    assert free("mlp", "tanh") == {"linear1>linear2": "sign", "linear2>linear3": "sign"}
    assert free("mlp", "gelu") == free("mlp", "sigmoid") == free("mlp", "elu") == free("mlp", "silu") == {}
    # A max pool is no odd function, an average is.
    assert free("conv-pool-flatten", "tanh") == {"conv2>linear1": "sign", "linear1>linear2": "sign"}
    assert free("avg-pool-gap", "tanh") == {"conv1>conv2": "sign", "conv2>linear1": "sign"}
    # Into a batch norm only a sign, and only with nothing but averages in between; out of it also a scale.
    assert free("batch-norm", "relu") == {
        "batch_norm1>conv1": "scale+sign", "conv1>batch_norm2": "sign", "batch_norm2>conv2": "scale",
        "batch_norm4>linear1": "scale", "linear1>batch_norm5": "sign", "batch_norm5>linear2": "scale",
    }  # fmt: skip
    assert free("no-activation", "relu")["conv1>linear1"] == "scale+sign"
    # Out of a GRU a sign, for its state is a mean of tanh; into one a scale or a sign as into any product.
    assert free("gru", "relu") == {
        "conv1>gru1": "scale",
        "gru1>gru2": "sign",
        "gru2>linear1": "sign",
        "linear1>linear2": "scale",
    }
    # Of an LSTM too: the cell is a sum of tanh, and its gates have no sign. A layer at each step is a layer.
    assert free("lstm", "relu") == {
        "conv1>lstm1": "scale",
        "lstm1>lstm2": "sign",
        "lstm2>linear1": "sign",
        "linear1>linear2": "scale",
    }
    assert free("gru-averaged", "tanh") == {"conv1>gru1": "sign", "gru1>linear1": "sign"}
    assert free("gru-averaged", "relu") == {"conv1>gru1": "scale"}  # behind relu the state has no sign
    assert free("gru-last", "tanh") == {"gru1>gru2": "sign"}


def test_groups_name_their_units_tensors_and_readers() -> None:
    groups = {g.name: g for g in symmetry.groups(network("conv-pool-flatten").layout)}
    assert {name: g.units for name, g in groups.items()} == {"conv1": 4, "conv2": 3, "linear1": 6}
    assert [p.entry.name for p in groups["conv2"].own] == ["conv2.weight", "conv2.bias"]
    assert [(p.entry.name, p.block) for p in groups["conv2"].readers] == [("linear1.weight", 16)]


def test_a_permuted_unit_of_a_gru_moves_in_every_gate_and_as_what_the_next_step_reads() -> None:
    architecture = build_architecture(["rows", {"gru": 2}, "last_step", {"linear": 3}], IMAGE, 3)
    weights = np.arange(architecture.n_params, dtype=np.float32)
    before = architecture.layout.unflatten(weights)
    after = architecture.layout.unflatten(symmetry.permute(weights, architecture.layout, {"gru1": np.array([1, 0])}))
    for name, tensor in before.items():
        if name == "linear1.bias":
            wanted = tensor
        elif name == "linear1.weight":
            wanted = tensor[:, ::-1]
        else:
            wanted = tensor[::-1, ::-1] if ".weight_h" in name else tensor[::-1]
        np.testing.assert_array_equal(after[name], wanted, err_msg=name)


@pytest.mark.slow
def test_a_match_of_gru_units_is_a_gain_over_all_weights() -> None:
    # Nearly all weights are recurrent, so that the linear part of a move says little about its gain.
    architecture = build_architecture(["rows", {"gru": 12}, "last_step", {"linear": 3}], (1, 4, 1), 3)
    rows = np.random.default_rng(0).normal(size=(41, architecture.n_params)).astype(np.float32)
    reference, weights = rows[0], rows[1:]  # strangers: nothing to find but a local optimum
    aligned = symmetry.align(weights, reference, architecture)
    assert (aligned @ reference > weights @ reference + 1.0).all()
    assert symmetry.align(aligned, reference, architecture).tobytes() == aligned.tobytes()


def test_a_row_is_augmented_alike_alone_and_in_a_batch_and_by_its_key_alone() -> None:
    architecture = network("conv-pool-flatten")
    weights = random_weights(architecture, 5, 4)
    whole = symmetry.augment(weights, architecture, {"seed": 1})
    np.testing.assert_array_equal(symmetry.augment(weights[:2], architecture, {"seed": 1}), whole[:2])
    np.testing.assert_array_equal(symmetry.augment(weights[0], architecture, {"seed": 1}), whole[0])
    assert (symmetry.augment(weights, architecture, {"seed": 2}) != whole).any()
    shaped = symmetry.augment(weights[:4].reshape(2, 2, -1), architecture, {"seed": 1})
    np.testing.assert_array_equal(shaped.reshape(4, -1), whole[:4])


@pytest.mark.parametrize(("kind", "activation"), [("scale", "relu"), ("sign", "tanh"), ("permutation", "gelu")])
def test_each_kind_moves_weights_by_its_key_and_only_where_it_is_free(kind: str, activation: str) -> None:
    architecture = network("mlp", activation)
    weights = random_weights(architecture, 2, 11)
    moved = symmetry.augment(weights, architecture, 0, kinds=kind)
    assert (moved != weights).any(axis=1).all()
    assert (symmetry.augment(weights, architecture, 1, kinds=kind) != moved).any(axis=1).all()
    output_bias = architecture.layout[-1]
    np.testing.assert_array_equal(moved[:, output_bias.offset :], weights[:, output_bias.offset :])
    for other in {"scale", "sign"} - {kind}:
        np.testing.assert_array_equal(symmetry.augment(weights, architecture, 0, kinds=other), weights)


def test_scales_span_the_octaves_asked_for() -> None:
    architecture = network("mlp")
    weights = random_weights(architecture, 200, 12)
    moved = symmetry.augment(weights, architecture, 0, kinds="scale", octaves=2.0)
    ratio = moved[:, :7] / weights[:, :7]  # of one unit's row: a single factor
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(7, 1), rtol=1e-6)
    assert 0.25 <= ratio.min() < 0.27
    assert 3.7 < ratio.max() <= 4.0


def test_a_representative_has_unit_norms_positive_tops_and_ascending_units() -> None:
    architecture = network("mlp")
    tensors = architecture.layout.unflatten(symmetry.canonicalize(random_weights(architecture, 3, 13), architecture))
    rows = np.concatenate([tensors["linear1.weight"], tensors["linear1.bias"][..., None]], axis=2)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=2), 1.0, rtol=1e-6)
    assert (np.diff(tensors["linear1.weight"][..., 0], axis=1) > 0).all()
    architecture = network("mlp", "tanh")
    tensors = architecture.layout.unflatten(symmetry.canonicalize(random_weights(architecture, 3, 13), architecture))
    rows = np.concatenate([tensors["linear2.weight"], tensors["linear2.bias"][..., None]], axis=2)
    assert (np.take_along_axis(rows, np.abs(rows).argmax(2)[..., None], 2) > 0).all()


def test_a_representative_of_finite_weights_is_finite() -> None:
    """Networks that diverged: a layer of 1e22 before one of 1e25, whose product float32 does not hold."""
    made = build_architecture(["flatten", {"linear": 4}, "activation", {"linear": 2}], (1, 2, 2), 2, "relu")
    weights = np.random.default_rng(0).normal(size=made.layout.n_params).astype(np.float32)
    first, second = (e for e in made.layout if len(e.shape) > 1)
    weights[first.offset : first.end] *= np.float32(1e22)
    weights[second.offset : second.end] *= np.float32(1e25)
    found = symmetry.canonicalize(weights, made)
    assert np.isfinite(found).all()
    turned = symmetry.augment(weights, made, 3, kinds=("permutation",))
    assert symmetry.canonicalize(turned, made).tobytes() == found.tobytes()


def test_zeros_that_were_turned_come_back_with_their_sign() -> None:
    architecture = network("mlp", "tanh")
    weights = random_weights(architecture, 4, 14)
    weights.reshape(4, -1)[:, : 7 * 128 : 128] = 0.0  # the first weight of every unit: −0 when its unit is turned
    moved = symmetry.augment(weights, architecture, 2)
    assert np.signbit(moved[moved == 0]).any()
    assert (
        symmetry.canonicalize(moved, architecture).tobytes() == symmetry.canonicalize(weights, architecture).tobytes()
    )


@pytest.mark.parametrize("function", [
    lambda w, a: symmetry.augment(w, a, 0), symmetry.canonicalize, lambda w, a: symmetry.align(w, np.zeros(a.n_params), a),
])  # fmt: skip
def test_no_rows_give_no_rows(function) -> None:
    architecture = network("mlp", "tanh")
    assert function(np.zeros((0, architecture.n_params), np.float32), architecture).shape == (0, architecture.n_params)


def test_the_weights_given_are_left_as_they_are() -> None:
    architecture = network("batch-norm")
    weights = random_weights(architecture, 2, 5)
    weights.flags.writeable = False
    symmetry.augment(weights, architecture, 0)
    symmetry.canonicalize(weights, architecture)
    symmetry.align(weights, weights[0], architecture)


def test_equal_units_are_ordered_by_what_they_feed() -> None:
    architecture = build_architecture(
        ["flatten", {"linear": 6}, "gelu", {"linear": 4}, "gelu", {"linear": 3}], (1, 1, 2), 3
    )
    tensors = architecture.layout.unflatten(random_weights(architecture, 1, 6)[0])
    tensors["linear1.weight"][:] = 0.25  # as a constant initialization leaves it
    tensors["linear1.bias"][:] = 0.0
    weights = architecture.layout.flatten(tensors)
    moved = symmetry.augment(weights, architecture, 3, kinds="permutation")
    assert (
        symmetry.canonicalize(moved, architecture).tobytes() == symmetry.canonicalize(weights, architecture).tobytes()
    )


def test_units_that_nothing_enters_keep_the_function_when_scaled() -> None:
    architecture = network("mlp")
    weights = random_weights(architecture, 1, 7)
    for e in architecture.layout[:2]:
        weights[:, e.offset : e.end] = 0.0
    assert np.isfinite(symmetry.canonicalize(weights, architecture)).all()
    assert_same_function(weights, symmetry.canonicalize(weights, architecture), architecture)


def test_aligning_brings_a_noisy_permuted_copy_nearer_and_keeps_its_function() -> None:
    architecture = network("conv-pool-flatten")
    weights = random_weights(architecture, 4, 8)
    noisy = (weights[:1] + 0.1 * weights[1:]).astype(np.float32)
    moved = symmetry.augment(noisy, architecture, 9, kinds="permutation")
    aligned = symmetry.align(moved, weights[0], architecture)
    assert (np.linalg.norm(aligned - weights[0], axis=1) < 0.5 * np.linalg.norm(moved - weights[0], axis=1)).all()
    assert_same_function(moved, aligned, architecture)


@pytest.mark.slow
def test_a_permuted_copy_is_found_where_descent_from_the_weights_as_they_are_is_not_enough() -> None:
    # Two inputs tell eight units apart hardly at all against what they feed: a local optimum from there.
    layers = ["flatten", {"linear": 8}, "relu", {"linear": 8}, "relu", {"linear": 8}, "relu", {"linear": 3}]
    architecture = build_architecture(layers, (1, 1, 2), 3)
    for seed in range(10):
        weights = random_weights(architecture, 1, seed)[0]
        moved = symmetry.augment(weights, architecture, seed, kinds="permutation")
        assert symmetry.align(moved, weights, architecture).tobytes() == weights.tobytes()


def test_matching_reports_the_permutations_that_align() -> None:
    architecture = network("avg-pool-gap")
    weights = random_weights(architecture, 1, 10)[0]
    drawn = {name: p[0] for name, p in symmetry.random_permutations(architecture.layout, 1, 0).items()}
    found = symmetry.match(symmetry.permute(weights, architecture.layout, drawn), weights, architecture)
    for name, undone in symmetry.invert(drawn).items():
        np.testing.assert_array_equal(found[name], undone)


@pytest.mark.parametrize("layers", [["rows", {"gru": 5}, {"lstm": 4}, "last_step", {"linear": 3}], [{"conv": 4, "kernel": 2}, "relu", "flatten", {"linear": 6}, "relu", {"linear": 3}]])  # fmt: skip
def test_a_row_is_matched_alike_alone_and_beside_others(layers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = build_architecture(layers, (1, 4, 4), 3)
    rows = np.random.default_rng(1).normal(size=(40, architecture.n_params)).astype(np.float32)
    rows[3] = rows[0]  # one that has nothing to gain is done at once, and the others go on
    alone = [symmetry.match(row, rows[0], architecture) for row in rows]
    for at_once in (64, 5, 1):
        monkeypatch.setattr("zoo_datasets.symmetry.matching.AT_ONCE", at_once)
        together = symmetry.match(rows, rows[0], architecture)
        for name, found in together.items():
            np.testing.assert_array_equal(found, [one[name] for one in alone])
    assert all((together[name][3] == np.arange(together[name].shape[1])).all() for name in together)
    again = symmetry.match(symmetry.permute(rows, architecture.layout, together), rows[0], architecture)
    assert all((found == np.arange(found.shape[1])).all() for found in again.values())  # none can gain any more
    assert any((together[name][1:] != np.arange(together[name].shape[1])).any() for name in together)


def test_golden_permutation_of_a_key() -> None:
    drawn = symmetry.random_permutations(network("mlp").layout, 2, "golden")
    np.testing.assert_array_equal(drawn["linear1"], GOLDEN)
    words = streams.words(streams.stream_key(["permutation", "linear1", "golden"]), 14).reshape(2, 7)
    np.testing.assert_array_equal(drawn["linear1"], words.argsort(axis=1))


GOLDEN = [[2, 1, 5, 0, 4, 3, 6], [1, 5, 0, 2, 3, 4, 6]]


def test_wrong_shapes_name_what_was_given_and_what_is_needed() -> None:
    architecture = network("mlp")
    with pytest.raises(
        ValueError, match=rf"Weights have shape \(2, 3\); the layout has {architecture.n_params} values"
    ):
        symmetry.canonicalize(np.zeros((2, 3)), architecture)
    good = np.zeros((2, architecture.n_params), np.float32)
    with pytest.raises(ValueError, match=r"The reference has shape \(2, \d+\); it must be"):
        symmetry.align(good, good, architecture)
    with pytest.raises(ValueError, match="The weights hold values that are not finite"):
        symmetry.align(np.full_like(good, np.inf), good[0], architecture)
    with pytest.raises(ValueError, match=r"'linear1' has shape \(6,\).* must be \(7,\) or \(2, 7\)"):
        symmetry.permute(good, architecture.layout, {"linear1": np.arange(6)})
    with pytest.raises(ValueError, match="'linear1' does not hold each of 0 … 6 once"):
        symmetry.permute(good, architecture.layout, {"linear1": np.zeros(7, int)})
    with pytest.raises(ZooError, match=r"Unknown group of units 'linear9'.*Known: linear1, linear2"):
        symmetry.permute(good, architecture.layout, {"linear9": np.arange(7)})
    with pytest.raises(ValueError, match=r"Unknown kind of symmetry 'flip'.*Known: permutation, scale, sign"):
        symmetry.augment(good, architecture, 0, kinds=["flip"])
    wrong = Layout.of([("a.weight", (4, 2), "parameter", ("a", "")), ("b.weight", (1, 6), "parameter", ("", "a"))])
    with pytest.raises(
        ValueError, match=r"Dimension 1 of b.weight has size 6, no multiple of the 4 units of its group 'a'"
    ):
        symmetry.groups(wrong)


def test_layers_on_both_sides_of_an_add_share_one_permutation_and_one_factor() -> None:
    architecture = network("skips")
    entries = {e.name: e.groups[:2] for e in architecture.layout}
    assert entries["conv1.weight"] == ("conv1", "")
    assert entries["conv2.weight"] == ("conv2", "conv1")  # inside of a block: its own
    assert entries["conv3.weight"] == ("conv1", "conv2")  # its last: those of what it is added to
    assert entries["conv4.weight"] == entries["conv5.weight"] == ("conv1", "conv1")
    # Channels that were flattened move as blocks, and so do the features that are added to them.
    assert entries["linear1.weight"] == ("conv1", "conv1")
    assert entries["linear2.weight"] == ("linear2", "conv1")
    units = {g.name: (g.units, [p.entry.name for p in g.first]) for g in symmetry.groups(architecture.layout)}
    assert units["conv1"] == (4, ["conv1.weight", "conv1.bias"])
    found = {f.source: (f.sources, f.sinks, f.units) for f in symmetry.factors(architecture)}
    joined = ("conv1", "conv3", "conv4", "conv5", "linear1")
    assert found["conv1"] == (joined, ("conv2", "conv4", "conv5", "linear1", "linear2"), 4)
    assert found["conv2"] == (("conv2",), ("conv3",), 5)


@pytest.mark.parametrize(
    ("layers", "where"),
    [
        ([{"residual": [{"conv": 2, "padding": 1}, "activation"]}, {"conv": 3}], "conv1"),  # the input's channels
        ([{"conv": 3}, "global_avg_pool", {"linear": 3}, {"residual": [{"linear": 3}]}], "linear1"),  # the logits
    ],
)
def test_what_is_added_to_the_input_or_the_logits_stays_as_it_is(layers: list, where: str) -> None:
    tail = [] if where == "linear1" else ["activation", "global_avg_pool", {"linear": "classes"}]
    architecture = build_architecture([*layers, *tail], IMAGE, 3)
    assert {e.groups[0] for e in architecture.layout.of_node(where)} == {""}
    assert where not in {f.source for f in symmetry.factors(architecture)}
    weights = random_weights(architecture, 2, 4)
    moved = symmetry.augment(weights, architecture, 1)
    assert (moved != weights).any()
    assert_same_function(weights, moved, architecture)


# ── several networks of one layout ──

PLAIN = ["flatten", {"linear": 9}, "relu", {"linear": 9}, "relu", {"linear": 9}, "relu", {"linear": "classes"}]
FIRST_ADDED = [
    "flatten",
    {"linear": 9},
    "relu",
    {"residual": [{"linear": 9}, "relu"]},
    {"linear": 9},
    "relu",
    {"linear": "classes"},
]
LAST_ADDED = [
    "flatten",
    {"linear": 9},
    "relu",
    {"linear": 9},
    "relu",
    {"residual": [{"linear": 9}, "relu"]},
    {"linear": "classes"},
]
INPUT_ADDED = [
    "flatten",
    {"residual": [{"linear": 9}, "relu"]},
    {"linear": 9},
    "relu",
    {"linear": 9},
    "relu",
    {"linear": "classes"},
]


@pytest.mark.parametrize(
    ("layers", "free"),
    [
        ((PLAIN,), [9, 9, 9]),
        ((PLAIN, FIRST_ADDED), [9, 9]),
        ((FIRST_ADDED, LAST_ADDED), [9]),
        ((INPUT_ADDED, PLAIN), [9, 9]),
        ((INPUT_ADDED, FIRST_ADDED), [9]),
        ((INPUT_ADDED, FIRST_ADDED, LAST_ADDED), []),
    ],
)
def test_what_a_layout_lets_move_may_move_in_each_of_its_networks(layers: tuple[list, ...], free: list[int]) -> None:
    made = [build_architecture(own, (1, 3, 3), 4) for own in layers]
    assert len({a.layout_id for a in made}) == 1
    (layout,) = by_id(a.layout for a in made).values()
    assert by_id(a.layout for a in reversed(made)) == {layout.id: layout}
    assert [(e.name, e.shape, e.role, e.offset) for e in layout] == [
        (e.name, e.shape, e.role, e.offset) for e in made[0].layout
    ]
    assert [g.units for g in symmetry.groups(layout)] == free
    weights = np.random.default_rng(0).normal(size=(5, layout.n_params)).astype(np.float32)
    moved = symmetry.permute(weights, layout, symmetry.random_permutations(layout, 5, 7))
    assert (moved != weights).any() == bool(free)
    for architecture in made:
        wanted = outputs(weights, architecture, (1, 3, 3))
        np.testing.assert_allclose(
            outputs(moved, architecture, (1, 3, 3)), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
        )


def test_blocks_of_units_stay_together_in_a_layout_of_several_networks() -> None:
    """Of one the three channels are a group, of the other the six features that they become, two a channel."""
    tensors = (("a", (3, 2), "parameter"), ("b", (6, 3), "parameter"), ("c", (4, 6), "parameter"))
    first = Layout.of((*t, g) for t, g in zip(tensors, [("x", ""), ("", "x"), ("", "")], strict=True))
    ways = [[("x", ""), ("y", "x"), ("", "y")], [("x", ""), ("x", "x"), ("", "x")]]
    other = [Layout.of((*t, g) for t, g in zip(tensors, way, strict=True)) for way in ways]
    (joined,) = by_id(other).values()
    assert [e.groups for e in joined] == [("a", ""), ("a", "a"), ("", "a")]
    (joined,) = by_id([*other, first]).values()
    assert {g for e in joined for g in e.groups} == {""}  # fixed in one of them, and tied to all others in another
