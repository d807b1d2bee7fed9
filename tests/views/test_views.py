"""Views: the declared shapes, the published numbers, and the way back to the vector."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_datasets import symmetry, views
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.layout import Layout
from zoo_datasets.networks.operations.operation import Node

LAYERS = {
    "mlp": ["flatten", {"linear": 5}, "activation", {"linear": "classes"}],
    "cnn": [{"conv": 3, "kernel": 3}, {"max_pool": 2}, "relu", {"conv": 2, "kernel": 2}, "flatten", {"linear": 4}, "relu", {"linear": "classes"}],
    "gap": [{"conv": 3, "kernel": 3}, "relu", "global_avg_pool", {"linear": "classes"}],
    "batch-norm": [
        "batch_norm", {"conv": 3, "kernel": 3}, "batch_norm", "relu", "batch_norm", {"max_pool": 2}, "flatten", "batch_norm",
        {"linear": 4}, "batch_norm", "relu", {"linear": "classes"}, "batch_norm",
    ],
    "gru": [{"conv": 2, "kernel": 3}, "batch_norm", "rows", {"gru": 4}, {"gru": 3}, "last_step", {"linear": "classes"}],
    "lstm": [{"conv": 2, "kernel": 3}, "relu", "rows", {"lstm": 4}, {"linear": 3}, "relu", {"lstm": 3}, "last_step", {"linear": "classes"}],
    "skips": [
        {"conv": 3, "kernel": 3}, "relu", {"residual": [{"conv": 3, "kernel": 3, "padding": 1}, "batch_norm", "relu"]}, "batch_norm",
        {"max_pool": 2}, "flatten", {"residual": [{"linear": 4}, "relu", {"linear": 12}]}, {"linear": "classes"},
    ],
    "norm-flat": [{"conv": 2, "kernel": 5}, "flatten", "batch_norm", {"linear": 4}, "batch_norm", {"linear": "classes"}],
}  # fmt: skip


def network(name: str) -> Architecture:
    return build_architecture(LAYERS[name], (2, 6, 6), 3)


def rows(architecture: Architecture, n: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, architecture.n_params)).astype(np.float32)


bits = st.integers(0, 2**32 - 1)  # any float32: NaN payloads, ±inf, −0 and subnormals too


@st.composite
def vectors(draw: st.DrawFn) -> tuple[Architecture, np.ndarray]:
    """An architecture and rows [S, P] of arbitrary bits, S from 0."""
    architecture = network(draw(st.sampled_from(sorted(LAYERS))))
    n, seed = draw(st.integers(0, 3)), draw(st.integers(0, 10**6))
    raw = np.random.default_rng(seed).integers(0, 2**32, (n, architecture.n_params), np.uint32)
    some = draw(st.lists(bits, max_size=20))
    raw[:1, : len(some)] = some
    return architecture, raw.view(np.float32)


# ── flat ──


def test_flat_leaves_out_the_buffers_where_told_to() -> None:
    architecture = network("batch-norm")
    weights = rows(architecture)
    assert views.flat(weights, architecture.layout).tobytes() == weights.tobytes()
    np.testing.assert_array_equal(
        views.flat(weights, architecture.layout, buffers=False), weights[:, ~architecture.layout.buffer_mask()]
    )


# ── statistics ──


@pytest.mark.parametrize("quantiles", [views.UNTERTHINER_2020, views.EILERTSEN_2020])
def test_statistics_are_mean_variance_and_percentiles_of_each_tensor(quantiles: tuple[float, ...]) -> None:
    architecture = network("cnn")
    weights = rows(architecture, 4)
    found = views.statistics(weights, architecture.layout, quantiles)
    assert found.shape == (4, 8, 7)
    assert found.dtype == np.float64
    for s in range(4):
        for t, tensor in enumerate(architecture.layout.unflatten(weights[s]).values()):
            w = tensor.ravel().astype(np.float64)
            wanted = [w.mean(), w.var(), *np.percentile(w, [100 * q for q in quantiles])]
            np.testing.assert_allclose(found[s, t], wanted, rtol=1e-12, atol=1e-15)


def test_statistics_take_the_skewness_of_eilertsen() -> None:
    from scipy.stats import skew

    architecture = network("mlp")
    weights = rows(architecture, 2)
    weights[:, -3:] = 1.5  # a constant bias has no spread, so no skewness
    found = views.statistics(weights, architecture.layout, views.EILERTSEN_2020, skewness=True)
    assert found.shape == (2, 4, 8)
    np.testing.assert_allclose(found[:, 0, 2], skew(weights[:, :360].astype(np.float64), axis=1), rtol=1e-9)
    np.testing.assert_array_equal(found[:, 3, 2], 0.0)


def test_names_of_statistics_follow_their_columns() -> None:
    architecture = network("batch-norm")
    names = views.statistic_names(architecture.layout, views.EILERTSEN_2020, skewness=True)
    found = views.statistics(rows(architecture), architecture.layout, views.EILERTSEN_2020, skewness=True)
    assert len(names) == found[0].size
    assert names[8:10] == ["batch_norm1.bias:mean", "batch_norm1.bias:variance"]
    assert names[3:8] == [f"batch_norm1.weight:q{q}" for q in (1, 25, 50, 75, 99)]
    assert not any("running" in name for name in names)
    assert any("running" in name for name in views.statistic_names(architecture.layout, buffers=True))


def test_statistics_do_not_see_the_order_of_units() -> None:
    architecture = network("cnn")
    weights = rows(architecture)
    moved = symmetry.augment(weights, architecture, 1, kinds="permutation")
    np.testing.assert_allclose(
        views.statistics(moved, architecture.layout),
        views.statistics(weights, architecture.layout),
        rtol=1e-9,
        atol=1e-12,
    )


# ── tokens ──


@given(case=vectors(), by=st.sampled_from(["layer", "neuron", "window"]), size=st.sampled_from([None, 1, 4, 1000]))
@settings(max_examples=50, deadline=None)
def test_tokens_give_the_vectors_back_to_the_bit(case: tuple, by: str, size: int | None) -> None:
    architecture, weights = case
    found = views.tokens(weights, architecture.layout, by, size=size or (7 if by == "window" else None))
    assert views.untokens(found).tobytes() == weights.tobytes()
    assert found.values.shape == (len(weights), *found.mask.shape)
    assert found.positions.shape == (len(found.mask), 3)
    assert not found.values[..., ~found.mask].any()


def test_a_neuron_token_holds_a_units_incoming_weights_and_its_bias() -> None:
    architecture = network("cnn")
    weights = rows(architecture)
    found = views.tokens(weights, architecture.layout, "neuron")
    tensors = architecture.layout.unflatten(weights)
    assert len(found.mask) == 3 + 2 + 4 + 3
    np.testing.assert_array_equal(
        found.values[:, 1, :19],
        np.concatenate([tensors["conv1.weight"][:, 1].reshape(3, 18), tensors["conv1.bias"][:, 1:2]], 1),
    )
    assert found.mask[1].sum() == 19
    np.testing.assert_array_equal(found.positions[:5], [[0, 0, 0], [1, 0, 1], [2, 0, 2], [3, 1, 0], [4, 1, 1]])


def test_a_layer_token_holds_all_its_tensors_and_a_window_a_run_of_them() -> None:
    architecture = network("mlp")
    weights = rows(architecture, 2)
    layers = views.tokens(weights, architecture.layout, "layer")
    np.testing.assert_array_equal(layers.values[:, 0], weights[:, :365])
    assert layers.mask.sum(1).tolist() == [365, 18]
    windows = views.tokens(weights, architecture.layout, "window", size=100)
    assert windows.mask.sum(1).tolist() == [100, 100, 100, 65, 18]
    assert windows.positions.tolist() == [[0, 0, 0], [1, 0, 1], [2, 0, 2], [3, 0, 3], [4, 1, 0]]


def test_tensors_of_other_units_in_one_layer_are_tokens_of_their_own() -> None:
    layout = Layout.of([("a.weight", (2, 3), "parameter", ("", "")), ("a.gain", (4,), "parameter", ("",))])
    found = views.tokens(np.arange(10.0), layout, "neuron")
    assert [row[m].tolist() for row, m in zip(found.values, found.mask, strict=True)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
        [7],
        [8],
        [9],
    ]


def test_tokens_without_buffers_take_them_back() -> None:
    architecture = network("batch-norm")
    weights = rows(architecture)
    found = views.tokens(weights, architecture.layout, "neuron", buffers=False)
    left = weights[:, architecture.layout.buffer_mask()]
    np.testing.assert_array_equal(views.untokens(found, buffers=left), weights)
    with pytest.raises(ValueError, match=rf"leave out {left.shape[1]} buffers of {architecture.n_params} values"):
        views.untokens(found)


def test_other_values_may_stand_in_the_tokens() -> None:
    architecture = network("gap")
    found = views.tokens(rows(architecture), architecture.layout, "layer")
    np.testing.assert_array_equal(views.untokens(found, 2 * found.values), 2 * rows(architecture))


# ── windows ──


def test_a_window_is_a_run_of_each_row_at_an_offset_of_its_own() -> None:
    weights = np.arange(40 * 1000, dtype=np.float32).reshape(40, 1000)
    values, offsets = views.window(weights, 100, key=3)
    assert values.shape == (40, 100)
    np.testing.assert_array_equal(values, weights[:, :100] + offsets[:, None])
    assert offsets.min() >= 0
    assert offsets.max() <= 900
    assert len(set(offsets.tolist())) > 30
    _, same = views.window(weights[:5], 100, key=3)
    np.testing.assert_array_equal(same, offsets[:5])
    assert (views.window(weights, 100, key=4)[1] != offsets).any()
    np.testing.assert_array_equal(views.window(weights, 1000, key=3)[0], weights)
    assert views.window(weights[:0], 10, key=3)[0].shape == (0, 10)


def test_golden_offsets_of_a_key() -> None:
    assert views.window(np.zeros((6, 2464)), 500, "golden")[1].tolist() == GOLDEN_OFFSETS


GOLDEN_OFFSETS = [1532, 1236, 1692, 1597, 1649, 185]


# ── graphs ──


@given(case=vectors())
@settings(max_examples=30, deadline=None)
def test_graphs_give_the_vectors_back_to_the_bit(case: tuple) -> None:
    architecture, weights = case
    assert views.ungraph(views.graph(weights, architecture)).tobytes() == weights.tobytes()


def test_a_gru_is_nodes_with_six_biases_and_edges_with_three_gates_to_the_next_layer_and_to_itself() -> None:
    architecture = build_architecture(["rows", {"gru": 4}, "last_step", {"linear": 3}], (2, 6, 5), 3)
    weights = rows(architecture)
    found = views.graph(weights, architecture)
    tensors = architecture.layout.unflatten(weights)
    assert np.bincount(found.node_layer).tolist() == [2 * 5, 4, 3]  # a row of both channels is a step
    assert found.edge_index.shape == (2, 10 * 4 + 4 * 4 + 4 * 3)
    first = 10  # of the GRU's nodes
    biases = [tensors[f"gru1.bias_{side}{gate}"][:, 2] for side in "ih" for gate in "rzn"]
    np.testing.assert_array_equal(found.node_features[:, first + 2], np.stack(biases, 1))
    for start, end, side, unit in ((7, first + 1, "i", 7), (first + 3, first + 1, "h", 3)):
        edge = np.flatnonzero((found.edge_index.T == (start, end)).all(axis=1))
        assert len(edge) == 1
        gates = [tensors[f"gru1.weight_{side}{gate}"][:, 1, unit] for gate in "rzn"]
        np.testing.assert_array_equal(found.edge_features[:, edge[0], :3], np.stack(gates, 1))


def test_channels_are_nodes_and_kernels_are_edges() -> None:
    architecture = network("cnn")
    weights = rows(architecture)
    found = views.graph(weights, architecture)
    tensors = architecture.layout.unflatten(weights)
    assert found.layer_names == ("input", "conv1", "conv2", "linear1", "linear2")
    assert np.bincount(found.node_layer).tolist() == [2, 3, 2, 4, 3]
    assert found.edge_index.shape == (2, 2 * 3 + 3 * 2 + 2 * 4 + 4 * 3)
    np.testing.assert_array_equal(found.node_features[:, found.node_layer == 1, 0], tensors["conv1.bias"])
    # From input channel 1 to channel 2 of conv1: node 1 to node 2 + 2.
    edge = np.flatnonzero((found.edge_index == [[1], [4]]).all(0))
    assert len(edge) == 1
    np.testing.assert_array_equal(found.edge_features[:, edge[0]], tensors["conv1.weight"][:, 2, 1].reshape(3, 9))
    # After flatten: from channel 1 of conv2 to unit 3 of linear1, a weight at its one position.
    edge = np.flatnonzero((found.edge_index == [[6], [10]]).all(0))
    assert found.edge_mask[edge[0]].sum() == architecture.nodes[3].shape[1] * architecture.nodes[3].shape[2]
    np.testing.assert_array_equal(
        found.edge_features[:, edge[0]][:, found.edge_mask[edge[0]]], tensors["linear1.weight"][:, 3, 1:2]
    )


def test_a_residual_add_is_an_edge_from_each_unit_to_the_one_it_is_added_to() -> None:
    architecture = network("skips")
    weights = rows(architecture)
    found = views.graph(weights, architecture)
    assert found.layer_names == ("input", "conv1", "conv2", "linear1", "linear2", "linear3")
    assert np.bincount(found.node_layer).tolist() == [2, 3, 3, 4, 12, 3]
    weighed = 2 * 3 + 3 * 3 + 3 * 4 + 4 * 12 + 12 * 3
    assert found.edge_skip.tolist() == [False] * weighed + [True] * (3 + 12)
    # conv1 1, 2, 3 to conv2; then a channel of conv2, which is 4 of the flattened features, to linear2.
    assert found.edge_index[:, weighed : weighed + 3].tolist() == [[2, 3, 4], [5, 6, 7]]
    assert found.edge_index[0, weighed + 3 :].tolist() == [5] * 4 + [6] * 4 + [7] * 4
    assert found.edge_index[1, weighed + 3 :].tolist() == list(range(12, 24))
    assert not found.edge_mask[weighed:].any()
    assert not found.edge_features[:, weighed:].any()
    # Both normalizations of conv2, inside of the block and behind it, are features of its units.
    assert found.node_mask[found.node_layer == 2].sum(1).tolist() == [1 + 4 + 4] * 3


def test_a_batch_norm_is_features_of_the_nodes_it_normalizes() -> None:
    architecture = network("norm-flat")
    weights = rows(architecture)
    found = views.graph(weights, architecture)
    tensors = architecture.layout.unflatten(weights)
    conv, linear = found.node_layer == 1, found.node_layer == 2
    # 2×2 positions a channel: weight, bias, running mean and variance have 4 columns each.
    assert found.node_mask[conv].sum(1).tolist() == [17, 17]
    np.testing.assert_array_equal(
        found.node_features[:, conv, 9:13], tensors["batch_norm1.running_mean"].reshape(3, 2, 4)
    )
    # A linear unit has one of each, in the first of the same columns.
    assert np.flatnonzero(found.node_mask[linear][0]).tolist() == [0, 1, 5, 9, 13]
    np.testing.assert_array_equal(found.node_features[:, linear, 9], tensors["batch_norm2.running_mean"])


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_permuting_units_permutes_nodes_and_edges(name: str) -> None:
    architecture = network(name)
    weights = rows(architecture, 1)[0]
    drawn = {k: p[0] for k, p in symmetry.random_permutations(architecture.layout, 1, name).items()}
    before = views.graph(weights, architecture)
    after = views.graph(symmetry.permute(weights, architecture.layout, drawn), architecture)
    new = np.arange(len(before.node_layer))  # node i of the permuted graph is node new[i]
    for layer, layer_name in enumerate(before.layer_names):
        group = architecture.layout.of_node(layer_name)[0].groups[0] if layer else ""
        if group in drawn:
            at = before.node_layer == layer
            p = drawn[group]
            new[at] = new[at].reshape(len(p), -1)[p].ravel()  # of flattened channels a unit is a block
    np.testing.assert_array_equal(after.node_features, before.node_features[new])
    place = {
        (*e, skip): i for i, (e, skip) in enumerate(zip(before.edge_index.T.tolist(), before.edge_skip, strict=True))
    }
    order = [place[new[a], new[b], skip] for (a, b), skip in zip(after.edge_index.T, after.edge_skip, strict=True)]
    assert len(set(order)) == len(order) == len(place)
    np.testing.assert_array_equal(after.edge_features, before.edge_features[order])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch_geometric's own import
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_graph_becomes_data_of_torch_geometric(name: str) -> None:
    geometric = pytest.importorskip("torch_geometric.data")
    weights = rows(network(name))
    found = views.graph(weights, network(name))
    data = found.to_pyg(row=1)
    assert data.validate()
    assert (data.num_nodes, data.num_edges) == (len(found.node_layer), found.edge_index.shape[1])
    assert data.has_self_loops() is (name in ("gru", "lstm"))  # a unit's state enters its own next step
    assert data.is_directed()
    batch = geometric.Batch.from_data_list([found.to_pyg(row=i) for i in range(len(weights))])
    for i, one in enumerate(batch.to_data_list()):  # collated and parted again: the same networks
        back = dataclasses.replace(
            found, node_features=one.x.numpy(), edge_features=one.edge_attr.numpy(),
            edge_index=one.edge_index.numpy(), node_mask=one.x_mask.numpy(), edge_mask=one.edge_mask.numpy(),
        )  # fmt: skip
        assert views.ungraph(back).tobytes() == weights[i].tobytes()
        np.testing.assert_array_equal(back.edge_index, found.edge_index)
    with pytest.raises(ValueError, match=r"node_features have shape .*; pick one vector"):
        found.to_pyg()


def test_a_graph_says_what_it_needs_where_torch_geometric_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ImportError, match="torch_geometric is not installed: pip install torch_geometric"):
        views.graph(rows(network("mlp"))[0], network("mlp")).to_pyg()


# ── trajectories ──

SNAPSHOTS = pa.table({
    "model_id": ["b", "b", "b", "a", "a", "c"], "step": [0, 10, 20, 0, 20, 5], "epoch": [0.0, 1.0, 2.0, 0.0, 2.0, 0.5],
})  # fmt: skip


@pytest.mark.parametrize(("by", "at", "mask"), [
    ("step", [0, 5, 10, 20], [[1, 0, 1, 1], [1, 0, 0, 1], [0, 1, 0, 0]]),
    ("epoch", [0, 0.5, 1, 2], [[1, 0, 1, 1], [1, 0, 0, 1], [0, 1, 0, 0]]),
    ("order", [0, 1, 2], [[1, 1, 1], [1, 1, 0], [1, 0, 0]]),
])  # fmt: skip
def test_trajectories_are_by_model_and_step_with_a_mask(by: str, at: list, mask: list) -> None:
    weights = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    found = views.trajectories(weights, SNAPSHOTS, by)
    assert found.model_ids == ("b", "a", "c")
    assert found.at.tolist() == at
    np.testing.assert_array_equal(found.mask, np.array(mask, bool))
    np.testing.assert_array_equal(found.values[found.mask], weights)
    assert not found.values[~found.mask].any()


def test_trajectories_take_rows_in_any_order() -> None:
    weights = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    shuffle = [4, 0, 5, 2, 3, 1]
    found = views.trajectories(weights[shuffle], SNAPSHOTS.take(shuffle), "order")
    assert found.model_ids == ("a", "b", "c")
    np.testing.assert_array_equal(found.values[0, :2], weights[[3, 4]])
    np.testing.assert_array_equal(found.values[1], weights[[0, 1, 2]])


# ── errors ──


def test_wrong_shapes_name_what_was_given_and_what_is_needed() -> None:
    architecture = network("mlp")
    weights = rows(architecture)
    short = r"Weights have shape \(3, 382\); the layout has 383 values, so \(\.\.\., 383\) is needed"
    for view in (
        lambda w: views.flat(w, architecture.layout), lambda w: views.statistics(w, architecture.layout),
        lambda w: views.tokens(w, architecture.layout), lambda w: views.graph(w, architecture),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=short):
            view(weights[:, 1:])
    with pytest.raises(ValueError, match=r"Weights have shape \(383,\); window needs rows"):
        views.window(weights[0], 3, 0)
    with pytest.raises(ValueError, match=r"A window of 400 values does not fit .* 1 ≤ k ≤ 383"):
        views.window(weights, 400, 0)
    with pytest.raises(ValueError, match=r"Weights have shape \(3, 383\); for 6 rows of snapshots \(6, P\)"):
        views.trajectories(weights, SNAPSHOTS)
    with pytest.raises(ValueError, match="1 rows repeat a model at the same step"):
        views.trajectories(np.zeros((2, 3)), pa.table({"model_id": ["a", "a"], "step": [4, 4]}))
    with pytest.raises(ValueError, match=r"Unknown axis of trajectories 'time'.*epoch, order, step"):
        views.trajectories(np.zeros((6, 3)), SNAPSHOTS, "time")
    with pytest.raises(ValueError, match=r"These weights mix layouts.*weights.by_layout"):
        views.trajectories(types.SimpleNamespace(shape=(6, None)), SNAPSHOTS)
    found = views.tokens(weights, architecture.layout)
    with pytest.raises(ValueError, match=r"Token values have shape \(3, 9, 9\)"):
        views.untokens(found, np.zeros((3, 9, 9)))
    graph = views.graph(weights, architecture)
    with pytest.raises(ValueError, match=r"edge_features have shape \(3, 1, 1\)"):
        views.ungraph(dataclasses.replace(graph, edge_features=np.zeros((3, 1, 1))))


def test_a_graph_begins_with_what_the_first_layer_with_weights_reads() -> None:
    architecture = build_architecture([{"max_pool": 2}, "flatten", {"linear": 3}], (2, 6, 6), 3)
    weights = rows(architecture)
    drawn = views.graph(weights, architecture)
    assert np.bincount(drawn.node_layer).tolist() == [2 * 3 * 3, 3]
    np.testing.assert_array_equal(views.ungraph(drawn), weights)


def test_wrong_options_name_what_is_allowed() -> None:
    layout = network("mlp").layout
    weights = rows(network("mlp"))
    with pytest.raises(ValueError, match=r"Quantile 99 is not in \[0, 1\]"):
        views.statistics(weights, layout, [1, 99])
    with pytest.raises(ValueError, match=r"Unknown kind of token 'row'.*layer, neuron, window"):
        views.tokens(weights, layout, "row")
    with pytest.raises(ValueError, match="needs a `size`"):
        views.tokens(weights, layout, "window")
    with pytest.raises(ValueError, match="`size` is 0; a token takes at least 1 value"):
        views.tokens(weights, layout, "window", size=0)
    nodes = (Node("a", "linear", ("input", "input"), (2,), {"features": 2}),)
    with pytest.raises(ValueError, match="Node a has 2 inputs; `linear` takes 1"):
        views.graph(np.zeros(6), Architecture((2,), nodes))


@pytest.mark.slow
def test_views_symmetry_and_audit_load_no_torch_scipy_or_scikit_learn() -> None:
    code = (
        "import sys, zoo_datasets.views, zoo_datasets.symmetry, zoo_datasets.audit; "
        "print([m for m in ('torch', 'scipy', 'sklearn', 'torch_geometric') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
