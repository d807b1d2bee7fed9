"""Architectures, layouts, initial weights, and the way to `nn.Module` and back."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zoo_datasets.core import streams
from zoo_datasets.core.records import Mismatch
from zoo_datasets.errors import FormatVersionError, GridError, IntegrityError, NoNetworkError
from zoo_datasets.networks import modules
from zoo_datasets.networks.architecture import Architecture, External, from_json
from zoo_datasets.networks.initialization import INITS, LayerInit, _orthogonal, initialize
from zoo_datasets.networks.layers import PRESETS, build_architecture
from zoo_datasets.networks.layout import Layout
from zoo_datasets.networks.operations.operation import Node
from zoo_datasets.networks.operations.recurrent import GRU_TENSORS, LSTM_TENSORS
from zoo_datasets.networks.operations.registry import ACTIVATIONS

KEY = "000102030405060708090a0b0c0d0e0f"
MNIST = (1, 28, 28)
EVERY_LAYER = [
    {"conv": 4, "kernel": 3, "stride": 2, "padding": 1}, "batch_norm", "activation", {"max_pool": 2}, {"dropout": 0.25},
    {"conv": 6}, "tanh", {"avg_pool": 2, "stride": 1}, "flatten", {"linear": 5}, "batch_norm", "dropout",
    {"linear": "classes"},
]  # fmt: skip


def every_layer() -> Architecture:
    return build_architecture(EVERY_LAYER, (3, 20, 16), 7, "gelu")


# --- layers → architecture -------------------------------------------------------------


@pytest.mark.parametrize(("preset", "n_params"), [("small-cnn", 2464), ("small-cnn-gap", 4970), ("mlp", 25450)])
def test_presets_have_the_published_number_of_parameters(preset: str, n_params: int) -> None:
    architecture = build_architecture(preset, MNIST, 10)
    assert architecture.n_params == n_params
    assert sum(p.numel() for p in modules.Network(architecture).parameters()) == n_params


def test_ids_are_pinned() -> None:
    architecture = build_architecture("small-cnn", MNIST, 10, "tanh")
    assert architecture.layout_id == "1339e72e9414d330"
    assert architecture.id == "604c2ca426ced764"


def test_layout_of_small_cnn_is_in_forward_order_without_holes() -> None:
    layout = build_architecture("small-cnn", MNIST, 10).layout
    assert [(e.name, e.shape) for e in layout] == [
        ("conv1.weight", (8, 1, 5, 5)), ("conv1.bias", (8,)), ("conv2.weight", (6, 8, 5, 5)), ("conv2.bias", (6,)),
        ("conv3.weight", (4, 6, 2, 2)), ("conv3.bias", (4,)), ("linear1.weight", (20, 36)), ("linear1.bias", (20,)),
        ("linear2.weight", (10, 20)), ("linear2.bias", (10,)),
    ]  # fmt: skip
    assert [e.offset for e in layout] == [0, *(e.end for e in layout[:-1])]


def test_shapes_follow_the_layers() -> None:
    assert [n.shape for n in every_layer().nodes] == [
        (4, 10, 8), (4, 10, 8), (4, 10, 8), (4, 5, 4), (4, 5, 4), (6, 3, 2), (6, 3, 2), (6, 2, 1), (12,), (5,), (5,),
        (5,), (7,),
    ]  # fmt: skip


def test_permutation_groups_tie_neighbouring_tensors() -> None:
    groups = {e.name: e.groups for e in every_layer().layout}
    assert groups["conv1.weight"] == ("conv1", "", "", "")
    assert groups["batch_norm1.running_var"] == groups["batch_norm1.bias"] == ("conv1",)
    assert groups["conv2.weight"] == ("conv2", "conv1", "", "")
    assert groups["linear1.weight"] == ("linear1", "conv2")
    assert groups["linear2.weight"] == ("", "linear1")
    assert groups["linear2.bias"] == ("",)  # classes are fixed


def test_the_channels_of_a_last_convolution_are_classes() -> None:
    architecture = build_architecture(
        [{"conv": 4}, "batch_norm", {"conv": 10}, "batch_norm", "global_avg_pool"], MNIST, 10
    )
    groups = {e.name: e.groups for e in architecture.layout}
    assert groups["conv2.weight"] == ("", "conv1", "", "")
    assert groups["conv2.bias"] == groups["batch_norm2.weight"] == ("",)


def test_a_gru_is_pytorchs_gate_by_gate() -> None:
    """The tensors of four neighbors of the layout, concatenated, are those of `nn.GRU`; the function is the same."""
    architecture = build_architecture([{"conv": 2}, "rows", {"gru": 5}, {"gru": 10}, "last_step"], (3, 7, 6), 10)
    assert [n.shape for n in architecture.nodes] == [(2, 5, 4), (5, 8), (5, 5), (5, 10), (10,)]
    groups = {e.name: e.groups for e in architecture.layout}
    assert groups["gru1.weight_ir"] == ("gru1", "conv1")
    assert groups["gru1.weight_hn"] == ("gru1", "gru1")
    assert groups["gru2.weight_in"] == ("", "gru1")  # the classes
    assert groups["gru2.bias_hz"] == ("",)
    vector = np.random.default_rng(0).normal(0, 0.5, architecture.n_params).astype(np.float32)
    state = modules.to_state_dict(vector, architecture)
    conv = torch.nn.functional.conv2d(images := torch.randn(4, 3, 7, 6), state["conv1.weight"], state["conv1.bias"])
    x = conv.permute(0, 2, 1, 3).reshape(4, 5, 8)
    for name, features, units in (("gru1", 8, 5), ("gru2", 5, 10)):
        theirs = torch.nn.GRU(features, units, batch_first=True)
        for i, leaf in enumerate(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")):
            gates = [state[f"{name}.{t}"] for t in GRU_TENSORS[3 * i : 3 * i + 3]]
            getattr(theirs, leaf).data = torch.cat(gates)
        x = theirs(x)[0]
    found = modules.Network(architecture).load_vector(vector)(images)
    torch.testing.assert_close(found, x[:, -1], rtol=1e-5, atol=1e-6)


def test_an_lstm_is_pytorchs_gate_by_gate() -> None:
    architecture = build_architecture([{"tiles": 2}, {"lstm": 5}, {"lstm": 7}, {"linear": 3}], (2, 6, 4), 3, steps=6)
    assert [n.shape for n in architecture.nodes] == [(6, 8), (6, 5), (6, 7), (6, 3)]
    assert (architecture.n_outputs, architecture.n_logits) == (3, 18)
    groups = {e.name: e.groups for e in architecture.layout}
    assert groups["lstm1.weight_if"] == ("lstm1", "")
    assert groups["lstm2.weight_hg"] == ("lstm2", "lstm2")
    vector = np.random.default_rng(0).normal(0, 0.5, architecture.n_params).astype(np.float32)
    state = modules.to_state_dict(vector, architecture)
    images = torch.randn(4, 2, 6, 4)
    unfolded = torch.nn.functional.unfold(images, 2, stride=2)  # (B, C·2·2, tiles), row after row
    x = unfolded.transpose(1, 2)
    for name, features, units in (("lstm1", 8, 5), ("lstm2", 5, 7)):
        theirs = torch.nn.LSTM(features, units, batch_first=True)
        for i, leaf in enumerate(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")):
            gates = [state[f"{name}.{t}"] for t in LSTM_TENSORS[4 * i : 4 * i + 4]]
            getattr(theirs, leaf).data = torch.cat(gates)
        x = theirs(x)[0]
    wanted = torch.nn.functional.linear(x, state["linear1.weight"], state["linear1.bias"])
    found = modules.Network(architecture).load_vector(vector)(images)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_published_shape_of_the_networks_of_mlds_has_its_parameters() -> None:
    architecture = build_architecture("mlds-gru", (32, 9), 8, steps=32)
    assert architecture.n_params == 4364
    stacked = torch.nn.GRU(9, 12, 4)
    assert sum(p.numel() for p in stacked.parameters()) + 4 * (12 * 12 + 12) + 12 * 8 + 8 == 4364


def test_a_gru_starts_as_pytorchs_does() -> None:
    architecture = build_architecture(["rows", {"gru": 16}, "last_step", {"linear": 10}], MNIST, 10)
    drawn = architecture.layout.unflatten(initialize(architecture, KEY, "uniform", bias=0.25))
    for name, tensor in drawn.items():
        if name.startswith("gru1.weight"):  # ±1/√units, of the inputs' weights too
            assert 0.24 < np.abs(tensor).max() <= 0.25
    assert (drawn["gru1.bias_hn"] == 0.25).all()
    first = LayerInit("constant")
    first_own = initialize(architecture, KEY, "normal", first=first, value=0.5)
    tensors = architecture.layout.unflatten(first_own)
    assert all((tensors[f"gru1.{t}"] == (0.5 if t.startswith("weight") else 0.0)).all() for t in GRU_TENSORS)
    assert tensors["linear1.weight"].std() > 0


def test_taking_dropout_out_renames_nothing() -> None:
    without = [layer for layer in EVERY_LAYER if "dropout" not in layer]
    assert build_architecture(without, (3, 20, 16), 7, "gelu").layout == every_layer().layout


def test_another_activation_has_the_same_layout_and_another_id() -> None:
    relu, tanh = (build_architecture("small-cnn", MNIST, 10, a) for a in ("relu", "tanh"))
    assert relu.layout == tanh.layout
    assert relu.layout_id == tanh.layout_id
    assert relu.id != tanh.id


def test_batch_norm_buffers_are_masked() -> None:
    architecture = build_architecture([{"linear": 3}, "batch_norm", {"linear": 2}], (4,), 2)
    roles = {e.name: e.role for e in architecture.layout}
    assert {name for name, role in roles.items() if role == "buffer"} == {
        "batch_norm1.running_mean", "batch_norm1.running_var",
    }  # fmt: skip
    mask = architecture.layout.buffer_mask()
    assert mask.sum() == 6
    assert mask[12 + 3 + 6 : 12 + 3 + 12].all()  # after linear1, batch norm's weight and bias


def test_entries_are_the_tensors_of_one_node() -> None:
    names = [e.name for e in every_layer().layout.of_node("batch_norm1")]
    assert names == [f"batch_norm1.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
    assert every_layer().layout.of_node("conv1")[0].name == "conv1.weight"
    assert every_layer().layout.of_node("flatten1") == []


# Presets for sequences, the shape of their inputs, and for how many steps something is right.
OF_SEQUENCES = {"mlds-gru": ((5, 9), 8, 5), "lstm": ((5, 8), 2, 5)}


def preset(name: str) -> Architecture:
    shape, n_classes, steps = OF_SEQUENCES.get(name, (MNIST, 10, None))
    return build_architecture(name, shape, n_classes, steps=steps)


@pytest.mark.parametrize("architecture", [every_layer(), *map(preset, PRESETS)])
def test_an_architecture_comes_back_from_json(architecture: Architecture) -> None:
    layout = Layout.from_json(json.loads(json.dumps(architecture.layout.to_json())))
    again = from_json(json.loads(json.dumps(architecture.to_json())), layout).built()
    assert (again, again.layout) == (architecture, layout)
    assert again.id == architecture.id
    assert again.n_outputs == architecture.nodes[-1].shape[-1]


def test_an_architecture_of_another_kind_is_of_a_newer_version() -> None:
    problem = r"kind 'attention': this version builds 'layers' and reads 'external'. Upgrade"
    with pytest.raises(FormatVersionError, match=problem):
        from_json({"kind": "attention"}, Layout(()))


def test_an_architecture_with_an_unknown_layer_is_of_a_newer_version() -> None:
    architecture = every_layer()
    value = architecture.to_json()
    value["nodes"][1]["op"] = "batch_nrom"
    with pytest.raises(FormatVersionError, match=r"Unknown layer 'batch_nrom'.*Did you mean `batch_norm`\? A newer"):
        from_json(value, architecture.layout)


def test_layers_of_another_layout_are_damage() -> None:
    with pytest.raises(
        IntegrityError, match=r"The architecture of model m1 has layout \w{16}, the manifest says \w{16}"
    ):
        from_json(every_layer().to_json(), Layout(()), "model m1")


def test_a_layout_stands_without_an_architecture() -> None:
    layout = Layout.of([("a.weight", (2, 3), "parameter", ("a", "")), ("a.gain", (2,), "buffer", ("a",))])
    assert layout.n_params == 8
    assert len(layout) == 2
    assert list(layout) == [layout[0], layout[1]]
    assert layout.buffer_mask().tolist() == [False] * 6 + [True] * 2
    vector = np.arange(8, dtype=np.float32)
    assert layout.unflatten(vector)["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    np.testing.assert_array_equal(layout.flatten(layout.unflatten(vector)), vector)
    external = from_json({"kind": "external"}, layout, "model m1 of their/zoo")
    assert external == External(layout)
    assert external.to_json() == {"kind": "external"}
    assert (external.n_params, external.layout_id) == (8, layout.id)
    with pytest.raises(
        NoNetworkError, match=r"Model m1 of their/zoo is of kind 'external', a layout without layers: no"
    ):
        external.built()


GOOD = {"name": "a.w", "shape": [2], "offset": 0, "role": "parameter", "groups": [""]}


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([{**GOOD, "offset": 1}], r"a.w with role 'parameter' and 1 groups at 1; .* the offset 0 are needed"),
        ([{**GOOD, "role": "optimizer"}], "with role 'optimizer'.*a role of parameter, buffer"),
        ([{**GOOD, "groups": []}], "and 0 groups at 0; .* 1 groups"),
        ([GOOD, {**GOOD, "offset": 2}], "a.w .* a name of its own"),
        ([{**GOOD, "shape": [-1]}], r"`\[0\].shape\[0\]` is -1, not a whole number"),
        ([{**GOOD, "name": 3}], r"`\[0\].name` is 3, not a string"),
        ([{**GOOD, "shape": [0]}], r"`\[0\].shape\[0\]` is 0; a tensor has sides of 1 or more"),
        (
            [{**GOOD, "groups": ["g"]}, {**GOOD, "name": "b.w", "offset": 2, "shape": [1, 5], "groups": ["", "g"]}],
            r"`\[1\].shape\[1\]` is 5, no multiple of the 2 units of its group 'g'",
        ),
        ([{"name": "a.w"}], r"it has no `\[0\].shape`"),
        (7, "`all of it` is 7, not a list"),
    ],
)
def test_entries_that_are_no_layout_are_damage(entries: Any, problem: str) -> None:
    with pytest.raises(Mismatch, match=problem):
        Layout.from_json(entries)


def test_layout_json_is_plain() -> None:
    value = every_layer().layout.to_json()
    assert json.loads(json.dumps(value)) == value
    assert value[0] == {
        "name": "conv1.weight", "shape": [4, 3, 3, 3], "offset": 0, "role": "parameter", "groups": ["conv1", "", "", ""],
    }  # fmt: skip


def nested(blocks: int) -> list[Any]:
    return ["relu"] if not blocks else [{"residual": nested(blocks - 1)}]


def test_a_residual_block_is_its_layers_and_an_add() -> None:
    layers = [
        {"conv": 4},
        "activation",
        {"residual": ["activation", {"residual": [{"conv": 4, "padding": 1}]}, "dropout"]},
    ]
    made = build_architecture([*layers, "flatten", {"linear": "classes"}], MNIST, 10)
    assert [(n.name, n.inputs) for n in made.nodes] == [
        ("conv1", ("input",)), ("activation1", ("conv1",)), ("activation2", ("activation1",)), ("conv2", ("activation2",)),
        ("add1", ("conv2", "activation2")), ("dropout1", ("add1",)), ("add2", ("dropout1", "activation1")),
        ("flatten1", ("add2",)), ("linear1", ("flatten1",)),
    ]  # fmt: skip
    assert from_json(json.loads(json.dumps(made.to_json())), made.layout) == made
    assert build_architecture([*nested(8), "flatten", {"linear": "classes"}], MNIST, 10).nodes[8].inputs == (
        "add7",
        "input",
    )


def test_units_that_are_added_to_fixed_ones_are_fixed_and_blocks_need_channels_first() -> None:
    def groups(nodes: list[Node], shape: tuple[int, ...]) -> list[str]:
        return [e.groups[0] for e in Architecture(shape, tuple(nodes)).layout]

    def linear(name: str, before: str, n: int) -> Node:
        return Node(name, "linear", (before,), (n,), {"features": n})

    tail = linear("last", "sum", 2)
    both = [linear("a", "input", 6), linear("b", "a", 6), Node("sum", "add", ("b", "a"), (6,)), tail]
    assert groups(both, (3,)) == ["a"] * 4 + [""] * 2
    assert groups([linear("a", "input", 6), Node("sum", "add", ("a", "input"), (6,)), tail], (6,)) == [""] * 4
    # Six features, and three channels of two each that a linear layer before them could never follow.
    conv = Node("b", "conv", ("input",), (3, 2, 1), {"channels": 3, "kernel": 1, "stride": 1, "padding": 0})
    a = [Node("flat", "flatten", ("input",), (6,)), linear("a", "flat", 6)]
    rest = [Node("flat2", "flatten", ("b",), (6,)), Node("sum", "add", ("flat2", "a"), (6,)), tail]
    assert groups([*a, conv, *rest], (3, 2, 1)) == [""] * 6
    assert groups([conv, *a, *rest], (3, 2, 1)) == ["b"] * 4 + [""] * 2


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("smal-cnn", r"Unknown architecture preset 'smal-cnn'.*Did you mean `small-cnn`\?"),
        ([{"cnov": 8}], r"Unknown layer 'cnov' in architecture, layer 1\..*Did you mean `conv`\?"),
        ([7], r"Layer 1 is 7; a layer is a name or a mapping like `\{conv: 8\}`"),
        ([{}], r"Layer 1 is \{\}"),
        ([{"conv": 8, "kernal": 3}], r"Unknown option of `conv` 'kernal' in layer 1\. Known: kernel.*Did you mean `kernel`"),
        ([{"linear": 8, "bias": 3}], r"Unknown option of `linear` 'bias' in layer 1\. Known: outputs\."),
        (["flatten", {"linear": 2.5}], r"Layer 2 \(linear\): `linear` is 2\.5; a whole number ≥ 1"),
        ([{"conv": True}], r"`conv` is True; a whole number ≥ 1"),
        (["conv"], r"`conv` is None; a whole number ≥ 1"),
        ([{"conv": 2, "stride": 0}], r"`stride` is 0; a whole number ≥ 1"),
        ([{"conv": 2, "padding": -1}], r"`padding` is -1; a whole number ≥ 0"),
        ([{"dropout": 1}], r"Layer 1 \(dropout\): the rate is 1; it must be in \[0, 1\)"),
        ([{"dropout": False}], r"the rate is False"),
        ([{"relu": 3}], r"Layer 1: `relu` takes no value, got 3\. Write it as `relu`"),
        ([{"conv": 4, "kernel": 30}], r"Layer 1 \(conv\): its window 30×30 does not fit into the input of shape \(1, 28, 28\)"),
        (["flatten", {"max_pool": 2}], r"Layer 2 \(max_pool\) needs \(channels, rows, columns\), but .* gives \(784,\)"),
        ([{"conv": 4}, {"linear": 5}], r"Layer 2 \(linear\) needs a flat input .* gives \(4, 26, 26\).*Put `flatten`"),
        ([{"gru": 4}], r"Layer 1 \(gru\) needs a sequence \(steps, features\), .* gives \(1, 28, 28\)\. `rows` makes one"),
        (["flatten", "rows"], r"Layer 2 \(rows\) reads \(channels, rows, columns\) .* gives \(784,\)"),
        (["flatten", "last_step"], r"Layer 2 \(last_step\) needs a sequence"),
        (["rows", {"gru": 0}], r"Layer 2 \(gru\): `gru` is 0; a whole number ≥ 1"),
        (["rows", {"gru": 4}, {"linear": 10}], r"gives \(steps, features\) = \(28, 10\); an input .* one label, .* \(10,\)\. Put `last_step`"),
        (["rows", {"lstm": 4}, "flatten"], r"Layer 3 \(flatten\) takes no sequence, .* = \(28, 4\)\. Put `last_step`"),
        ([{"lstm": 4}], r"Layer 1 \(lstm\) needs a sequence \(steps, features\), .* gives \(1, 28, 28\)\. `rows` makes one"),
        ([{"tiles": 3}], r"Layer 1 \(tiles\) cuts .* into tiles of 3×3, of whole ones alone, .* gives \(1, 28, 28\)"),
        (["flatten", {"tiles": 4}], r"Layer 2 \(tiles\) cuts .* gives \(784,\)"),
        ([{"tiles": 0}], r"Layer 1 \(tiles\): `tiles` is 0; a whole number ≥ 1"),
        (["rows", {"gru": 4}, "flatten"], r"Layer 3 \(flatten\) takes no sequence, .* = \(28, 4\)\. Put `last_step`"),
        (["rows", {"gru": 4}, "batch_norm"], r"Layer 3 \(batch_norm\) takes no sequence"),
        (["rows", {"gru": 4}, "softmax"], r"Layer 3 \(softmax\) takes no sequence"),
        (["rows", {"gru": 4}, {"max_pool": 2}], r"Layer 3 \(max_pool\) needs \(channels, rows, columns\)"),
        ([{"residual": [{"conv": 2}]}], r"Layer 1 \(residual\): its layers make \(2, 26, 26\) of \(1, 28, 28\), and what"),
        ([{"conv": 4}, {"residual": [{"max_pool": 2}]}], r"Layer 2 \(residual\): its layers make \(4, 13, 13\) of \(4, 26, 26\)"),
        (["residual"], r"Layer 1 \(residual\) is None; it takes a list of layers, like `\{residual: \[\{conv: 8"),
        ([{"residual": []}], r"Layer 1 \(residual\) is \[\]; it takes a list"),
        ([{"residual": "relu"}], r"Layer 1 \(residual\) is 'relu'; it takes a list"),
        ([{"residual": ["relu"], "scale": 2}], r"Layer 1 \(residual\) has `scale` beside its layers; it takes nothing else"),
        (["flatten", {"residual": ["relu", {"linaer": 3}]}], r"Unknown layer 'linaer' in architecture, layer 2\.2\."),
        ([{"residual": ["relu", {"conv": 4, "kernel": 30}]}], r"Layer 1\.2 \(conv\): its window 30×30 does not fit"),
        (["add"], r"Unknown layer 'add' in architecture, layer 1\."),  # of two inputs: it comes of a block
        (nested(9), r"Layer 1\.1\.1\.1\.1\.1\.1\.1\.1 \(residual\) is inside of 8 others"),
        ([{"residual": ["relu"] * 1001}], r"The architecture has 1,001 layers; at most 1,000"),
        (["flatten", {"linear": 5}], r"gives shape \(5,\); the source has 10 classes, so it must give \(10,\)"),
    ],
)  # fmt: skip
def test_a_layer_that_does_not_fit_is_named_with_both_shapes(layers: Any, message: str) -> None:
    with pytest.raises(GridError, match=message):
        build_architecture(layers, MNIST, 10)


@pytest.mark.parametrize("activation", ["swish", "", "conv"])
def test_an_activation_that_is_none_is_named(activation: str) -> None:
    with pytest.raises(GridError, match=f"Unknown activation '{activation}'.* Known: elu, gelu, .*tanh"):
        build_architecture("mlp", MNIST, 10, activation)


# --- vector ↔ tensors ------------------------------------------------------------------

FLOATS = hnp.arrays(np.float32, every_layer().n_params, elements=st.floats(width=32), fill=st.floats(width=32))


@settings(deadline=None, max_examples=15)
@given(FLOATS)
def test_vectors_and_state_dicts_are_the_same_bits(vector: np.ndarray) -> None:
    architecture = every_layer()
    state = modules.to_state_dict(vector, architecture, step=3)
    assert modules.to_vector(state, architecture).tobytes() == vector.tobytes()
    network = modules.Network(architecture).load_vector(vector, step=3)  # strict: every name, no other
    assert modules.to_vector(network.state_dict(), architecture).tobytes() == vector.tobytes()
    assert state["batch_norm1.num_batches_tracked"] == 3


def test_a_state_dict_owns_its_memory() -> None:
    architecture = build_architecture("mlp", (4,), 3)
    vector = np.zeros(architecture.n_params, np.float32)
    vector.setflags(write=False)  # as a memory-mapped shard is
    state = modules.to_state_dict(vector, architecture)
    state["linear1.weight"] += 1
    assert not vector.any()


def test_unflatten_gives_views_of_one_or_many_vectors() -> None:
    architecture = build_architecture("small-cnn", MNIST, 10)
    vectors = np.arange(2 * architecture.n_params, dtype=np.float32).reshape(2, -1)
    named = architecture.layout.unflatten(vectors)
    assert named["conv2.weight"].shape == (2, 6, 8, 5, 5)
    assert all(np.shares_memory(tensor, vectors) for tensor in named.values())
    one = {name: tensor[1] for name, tensor in named.items()}
    np.testing.assert_array_equal(architecture.layout.flatten(one), vectors[1])


def test_flatten_says_which_tensor_has_which_shape() -> None:
    architecture = build_architecture("mlp", (4,), 3)
    tensors = architecture.layout.unflatten(np.zeros(architecture.n_params, np.float32))
    with pytest.raises(ValueError, match=r"linear2\.weight has shape \(32, 3\), the layout says \(3, 32\)"):
        architecture.layout.flatten({**tensors, "linear2.weight": np.zeros((32, 3))})
    del tensors["linear1.bias"]
    with pytest.raises(KeyError, match=r"linear1\.bias"):
        architecture.layout.flatten(tensors)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_gives_the_shapes_of_its_architecture(activation: str) -> None:
    architecture = build_architecture(EVERY_LAYER, (3, 20, 16), 7, activation)
    network = modules.Network(architecture, dropout=0.5)
    values = torch.zeros(2, 3, 20, 16)
    for node in architecture.nodes:
        values = network.get_submodule(node.name)(values)
        assert tuple(values.shape[1:]) == node.shape
    assert network(torch.zeros(2, 3, 20, 16)).shape == (2, 7)


def test_dropout_takes_its_own_rate_or_the_models() -> None:
    network = modules.Network(every_layer(), dropout=0.5)
    assert [network.get_submodule(f"dropout{i}").p for i in (1, 2)] == [0.25, 0.5]


def test_a_networks_module_names_are_the_nodes() -> None:
    network = modules.Network(every_layer())
    assert [name for name, _ in network.named_children()] == [n.name for n in every_layer().nodes]


# --- initialization --------------------------------------------------------------------

GOLDEN = {
    "uniform": "1058e05d59c0458c59f1fcd32902a961",
    "normal": "8088f07f95b09db19e082021041c61a9",
    "kaiming_uniform": "9291c510f975afe7950c231155886655",
    "kaiming_normal": "40f083d95cf873f4e3c989f62afb7f4b",
    "glorot_uniform": "ced2a58d28f1fd399fcb2b1f62f2969e",
    "glorot_normal": "cdbea0ccd7ae9cc80d500b2819926ba5",
    "orthogonal": "5317c9e0522471a561e8d4a7748739b6",
    "constant": "587da9e76a16b2bf56746170c8a14ae6",
}


def sha(vector: np.ndarray) -> str:
    assert vector.dtype == np.float32
    return hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()[:32]


@pytest.mark.parametrize("kind", INITS)
def test_initial_weights_of_small_cnn_are_pinned(kind: str) -> None:
    architecture = build_architecture("small-cnn", MNIST, 10)
    assert sha(initialize(architecture, KEY, kind, value=0.125, bias=0.01)) == GOLDEN[kind]


def test_initial_weights_of_a_range_and_a_normal_are_pinned() -> None:
    architecture = build_architecture("small-cnn", MNIST, 10)
    ranged = initialize(architecture, KEY, "uniform", low=-0.05, high=0.1)
    assert sha(ranged) == "6017f49f2a9677327a0d82bbc5552e13"
    shifted = initialize(architecture, KEY, "normal", mean=0.5, std=0.1)
    assert sha(shifted) == "646848dd8cdf50a3e3e294879f969a7e"


@pytest.mark.parametrize(
    ("kind", "options", "mean", "std"),
    [
        ("uniform", {}, 0, 1 / math.sqrt(3 * 400)),  # ±1/√fan_in has variance 1/(3 fan_in)
        ("uniform", {"low": 0.0, "high": 1.2}, 0.6, 1.2 / math.sqrt(12)),
        ("normal", {}, 0, 1 / math.sqrt(400)),
        ("normal", {"mean": 2.0, "std": 0.3}, 2, 0.3),
        ("normal", {"mean": 2.0}, 2, 1 / math.sqrt(400)),
        ("kaiming_uniform", {}, 0, math.sqrt(2 / 400)),
        ("kaiming_normal", {}, 0, math.sqrt(2 / 400)),
        ("glorot_uniform", {}, 0, math.sqrt(2 / 500)),
        ("glorot_normal", {}, 0, math.sqrt(2 / 500)),
        ("orthogonal", {}, 0, 1 / math.sqrt(400)),
        ("constant", {"value": -0.25}, -0.25, 0),
    ],
)
@pytest.mark.slow
def test_initial_weights_have_the_moments_of_their_kind(kind: str, options: dict, mean: float, std: float) -> None:
    architecture = build_architecture([{"linear": 100}], (400,), 100)
    weights = initialize(architecture, KEY, kind, **options)[: 400 * 100].astype(np.float64)
    assert abs(weights.mean() - mean) <= 4 * std / 200
    assert weights.std() == pytest.approx(std, rel=0.02, abs=1e-12)


def test_a_convolutions_fans_count_its_window() -> None:
    architecture = build_architecture([{"conv": 64, "kernel": 5}, "global_avg_pool", {"linear": 2}], (32, 5, 5), 2)
    for kind, variance in [("kaiming_normal", 2 / (32 * 25)), ("glorot_normal", 2 / (32 * 25 + 64 * 25))]:
        weights = initialize(architecture, KEY, kind)[: 64 * 32 * 25]
        assert weights.var() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(("rows", "columns"), [(7, 20), (20, 7), (9, 9), (1, 5), (5, 1)])
def test_orthogonal_weights_have_orthonormal_rows_or_columns(rows: int, columns: int) -> None:
    matrix = _orthogonal(streams.normals(KEY, rows * columns).reshape(rows, columns))
    assert matrix.shape == (rows, columns)
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=1e-14)


def test_biases_and_batch_norm_start_where_they_should() -> None:
    vector = initialize(every_layer(), KEY, "normal", bias=0.5)
    named = every_layer().layout.unflatten(vector)
    for name, start in {
        "conv1.bias": 0.5, "linear2.bias": 0.5, "batch_norm1.weight": 1, "batch_norm1.bias": 0,
        "batch_norm2.running_mean": 0, "batch_norm2.running_var": 1,
    }.items():  # fmt: skip
        assert (named[name] == start).all(), name


def test_appending_a_layer_leaves_the_draws_before_it_alone() -> None:
    short = build_architecture(["flatten", {"linear": 10}], MNIST, 10)
    long = build_architecture(["flatten", {"linear": 10}, "activation", {"linear": 10}], MNIST, 10)
    a, b = (initialize(x, KEY, "normal") for x in (short, long))
    np.testing.assert_array_equal(b[: len(a)], a)


def test_another_key_gives_other_weights() -> None:
    architecture = build_architecture("mlp", (4,), 3)
    a, b = (initialize(architecture, streams.stream_key(k), "uniform") for k in "ab")
    assert (a != b).mean() > 0.8


def test_a_layer_more_leaves_the_draws_of_the_others_alone() -> None:
    plain = build_architecture([{"conv": 4}, "activation", "flatten", {"linear": "classes"}], MNIST, 10)
    normed = build_architecture([{"conv": 4}, "batch_norm", "activation", "flatten", {"linear": "classes"}], MNIST, 10)
    a, b = (x.layout.unflatten(initialize(x, KEY, "normal")) for x in (plain, normed))
    assert all((a[name] == b[name]).all() for name in a)


# --- the first and the last layer's own init ------------------------------------------------


def weights_of(kind: str, **options: Any) -> dict[str, np.ndarray]:
    layers = [{"conv": 4}, "activation", {"conv": 3}, "flatten", {"linear": "classes"}]
    architecture = build_architecture(layers, (1, 8, 8), 5, "relu")
    return architecture.layout.unflatten(initialize(architecture, KEY, kind, **options))


def test_the_first_layer_can_have_an_init_of_its_own() -> None:
    plain, own = weights_of("normal", std=0.5), weights_of("normal", std=0.5, first=LayerInit("uniform", -2, 2))
    assert (own["conv1.weight"] == weights_of("uniform", low=-2, high=2)["conv1.weight"]).all()
    assert [name for name in plain if (plain[name] != own[name]).any()] == ["conv1.weight"]


def test_the_last_layer_can_have_one_too_and_takes_no_numbers_of_the_general_one() -> None:
    own = weights_of("normal", std=0.5, mean=3.0, bias=0.25, last=LayerInit("normal"))
    assert (own["linear1.weight"] == weights_of("normal")["linear1.weight"]).all()
    assert (own["conv2.weight"] == weights_of("normal", std=0.5, mean=3.0)["conv2.weight"]).all()
    assert (own["linear1.bias"] == 0.25).all()


def test_a_single_layer_is_the_first() -> None:
    architecture = build_architecture([{"linear": "classes"}], (4,), 3)
    first, last = LayerInit("uniform", 1, 2), LayerInit("uniform", -2, -1)
    assert initialize(architecture, KEY, "normal", first=first, last=last)[:12].min() >= 1
    assert initialize(architecture, KEY, "normal", last=last)[:12].max() <= -1


def test_softmax_is_over_channels_or_features() -> None:
    network = modules.Network(
        build_architecture(
            [{"conv": 3}, "softmax", "flatten", {"linear": 4}, "softmax", {"linear": "classes"}], (1, 5, 5), 2
        )
    )
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(network.get_submodule("activation1")(x).sum(1), torch.ones(2, 4, 4))
    assert torch.allclose(network.get_submodule("activation2")(torch.randn(2, 4)).sum(1), torch.ones(2))


# ── architectures of strangers ──


def changed(place: int, **changes: Any) -> dict[str, Any]:
    """JSON of a sound network with one node changed: its fields, or its attributes where they have the name."""
    layers = [{"conv": 4, "kernel": 3}, "relu", {"max_pool": 2}, "dropout", "flatten", {"linear": 3}]
    value = build_architecture(layers, (1, 8, 8), 3).to_json()
    node = value["nodes"][place]
    for name, new in changes.items():
        if name in node:
            node[name] = new
        else:
            node["attrs"][name] = new
    return value


def added(*inputs: str) -> dict[str, Any]:
    """The same with an add behind the convolution."""
    value = changed(0)
    value["nodes"].insert(1, {"name": "add1", "op": "add", "inputs": list(inputs), "shape": [4, 6, 6], "attrs": {}})
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (changed(2, kernel=9), r"layer 3 \(max_pool\) does not fit: .*window 9×9"),
        (changed(2, kernel=3), r"layer 3 \(max_pool\) has shape \[4, 3, 3\], and \[4, 2, 2\] follows"),
        (changed(2, stride=1_000_000), r"and \[4, 1, 1\] follows"),
        (changed(2, stride=0), "has `stride` 0"),
        (changed(2, kernel=2.0), "has `kernel` 2.0"),
        (changed(2, kernel=True), "has `kernel` True"),
        (changed(2, dilation=2), "has `dilation` 2"),
        (changed(2, attrs={"kernel": 2}), "lacks 'stride'"),
        (changed(0, padding=-1), "has `padding` -1"),
        (changed(0, channels=5), r"has shape \[4, 6, 6\], and \[5, 6, 6\] follows"),
        (changed(5, features=10**9), "has `features` 1000000000"),
        (changed(5, shape=[]), r"has shape \[\]"),
        (changed(5, shape=[3.0]), r"has shape \[3.0\]"),
        (changed(3, rate=1.0), "has `rate` 1.0"),
        (changed(1, inputs=["conv2"]), r"takes \['conv2'\]"),
        (changed(1, inputs=["conv1", "input"]), "takes"),
        (changed(1, name="conv1"), "is called 'conv1'"),
        (added("conv1", "input"), r"layer 2 \(add\) adds values of shape \[4, 6, 6\] and \[1, 8, 8\]"),
        (added("conv1"), r"takes \['conv1'\]"),
        (added("conv1", "conv1", "conv1"), r"takes \['conv1', 'conv1', 'conv1'\]"),
        (added("conv1", "activation1"), r"takes \['conv1', 'activation1'\]"),  # which comes later
        ({**changed(0), "input_shape": [1, 2**14, 2**15]}, "has 536,870,912 values"),
        ({**changed(0), "input_shape": [0, 8, 8]}, r"has shape \[0, 8, 8\]"),
    ],
)
def test_shapes_and_attributes_that_contradict_each_other_are_refused(value: dict[str, Any], problem: str) -> None:
    with pytest.raises(IntegrityError, match=rf"The architecture of model m contradicts itself: .*{problem}"):
        from_json(value, Layout(()), "model m")
