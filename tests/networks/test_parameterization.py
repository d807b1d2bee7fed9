"""The maximal update parameterization: its table, its draws, and what it leaves as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.initialization import INITS, LayerInit, initialize
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.parameterization import rate_factors, variance

KEY = "0f" * 16
DRAWN = [kind for kind in INITS if kind != "constant"]


def factors(architecture: Architecture, ratio: float, adaptive: bool) -> dict[str, float]:
    names = [e.name for e in architecture.layout]
    return dict(zip(names, rate_factors(architecture, ratio, adaptive).tolist(), strict=True))


def variances(architecture: Architecture, ratio: float) -> dict[str, float]:
    return {e.name: variance(t, ratio) for n in architecture.nodes for e, t in architecture.placed(n.name)}


def test_every_tensor_has_its_row_of_the_table() -> None:
    layers = [
        {"conv": 8},
        "batch_norm",
        "activation",
        {"conv": 8},
        "activation",
        "flatten",
        {"linear": 8},
        "activation",
        {"linear": "classes"},
    ]
    network = build_architecture(layers, (1, 8, 8), 5)
    into, vectors = (
        ["conv1.weight"],
        ["conv1.bias", "batch_norm1.weight", "batch_norm1.bias", "conv2.bias", "linear1.bias"],
    )
    hidden, out, last = ["conv2.weight", "linear1.weight"], ["linear2.weight"], ["linear2.bias"]
    wanted = {  # input weights, vectors over hidden units, hidden weights, output weights, output biases
        "variance": (1, 1, 1 / 4, 1 / 16, 1), "sgd": (4, 4, 1, 1 / 4, 1), "adam": (1, 1, 1 / 4, 1 / 4, 1),
    }  # fmt: skip
    found = {"variance": variances(network, 4), "sgd": factors(network, 4, False), "adam": factors(network, 4, True)}
    for what, numbers in wanted.items():
        for names, number in zip((into, vectors, hidden, out, last), numbers, strict=True):
            assert {found[what][n] for n in names} == {number}, (what, names)


@pytest.mark.parametrize(("layer", "gates"), [("gru", "rzn"), ("lstm", "ifgo")])
def test_recurrent_layers_read_inputs_or_units_and_their_own_state(layer: str, gates: str) -> None:
    network = build_architecture([{layer: 4}, {layer: 4}, "last_step", {"linear": "classes"}], (6, 3), 5)
    found = variances(network, 2), factors(network, 2, False), factors(network, 2, True)
    for gate in gates:
        assert [f[f"{layer}1.weight_i{gate}"] for f in found] == [1, 2, 1]
        for name in (f"{layer}1.weight_h{gate}", f"{layer}2.weight_i{gate}", f"{layer}2.weight_h{gate}"):
            assert [f[name] for f in found] == [1 / 2, 1, 1 / 2]
        assert [f[f"{layer}2.bias_h{gate}"] for f in found] == [1, 2, 1]


def test_what_a_skip_ties_to_the_input_cannot_grow() -> None:
    layers = [{"residual": [{"conv": 2, "padding": 1}]}, {"conv": 4}, "global_avg_pool", {"linear": "classes"}]
    found = factors(build_architecture(layers, (2, 6, 6), 5), 2, False)
    assert (found["conv1.weight"], found["conv1.bias"], found["conv2.weight"], found["conv2.bias"]) == (1, 1, 2, 2)


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.slow
def test_draws_have_the_variance_of_the_table_relative_to_the_bases(kind: str) -> None:
    def deviations(width: int, ratio: float, **options: float) -> list[float]:
        layers = ["flatten", {"linear": width}, "activation", {"linear": width}, "activation", {"linear": "classes"}]
        network = build_architecture(layers, (40,), 40)
        tensors = network.layout.unflatten(initialize(network, KEY, kind, ratio=ratio, **options))
        return [float(tensors[f"linear{i}.weight"].std()) for i in (1, 2, 3)]

    given = {"normal": {"std": 0.3}, "uniform": {"low": -0.2, "high": 0.2}}
    for options in ({}, *([given[kind]] if kind in given else [])):
        base, wide = deviations(32, 1.0, **options), deviations(96, 3.0, **options)
        assert np.array(wide) / base == pytest.approx([1, 1 / math.sqrt(3), 1 / 3], rel=0.05)


def test_a_layers_own_init_is_scaled_as_its_own() -> None:
    layers = ["flatten", {"linear": 64}, "activation", {"linear": "classes"}]
    network = build_architecture(layers, (4,), 50)
    ends = {"first": LayerInit("uniform", -2, 2), "last": LayerInit("glorot_normal")}
    plain, wide = (
        network.layout.unflatten(initialize(network, KEY, "normal", std=0.1, ratio=r, **ends)) for r in (1.0, 4.0)
    )
    assert (plain["linear1.weight"] == wide["linear1.weight"]).all()
    # Glorot's variance is 2/(64 + 50), of the base of 16 units 2/(16 + 50), of which a sixteenth is left.
    scale = math.sqrt((64 + 50) / (16 + 50) / 16)
    np.testing.assert_allclose(wide["linear2.weight"], plain["linear2.weight"] * scale, rtol=1e-6)


@pytest.mark.parametrize("kind", INITS)
def test_the_base_is_the_standard_parameterization_bit_for_bit(kind: str) -> None:
    network = build_architecture("small-cnn", (1, 28, 28), 10)
    plain = initialize(network, KEY, kind, value=0.5, bias=0.01)
    assert initialize(network, KEY, kind, value=0.5, bias=0.01, ratio=1.0).tobytes() == plain.tobytes()
    assert initialize(network, KEY, kind, value=0.5, bias=0.01, ratio=2.0).tobytes() != plain.tobytes()
    for adaptive in (False, True):
        assert (rate_factors(network, 1.0, adaptive) == 1).all()


def test_biases_start_where_they_do_in_the_base() -> None:
    network = build_architecture("mlp", (4,), 3)
    found = network.layout.unflatten(initialize(network, KEY, "normal", bias=0.25, ratio=8.0))
    assert (found["linear1.bias"] == 0.25).all()
    assert (found["linear2.bias"] == 0.25).all()
