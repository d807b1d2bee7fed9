"""The native engine against PyTorch, against itself, and against mistakes of its caller."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from zoo_builder.engines import native
from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD
from zoo_datasets.networks import kernels
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation, Distortion
from zoo_datasets.networks.layers import PRESETS, build_architecture
from zoo_datasets.networks.operations.operation import Node
from zoo_datasets.networks.operations.registry import ACTIVATIONS, OPERATIONS

if kernels.missing():
    pytest.skip(f"no native engine: {kernels.missing()}", allow_module_level=True)

torch = pytest.importorskip("torch")
hypothesis = pytest.importorskip("hypothesis")

import native_cases as cases  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from zoo_builder.engines.native import NativeBackend  # noqa: E402
from zoo_builder.engines.torch_loop import TorchLoop  # noqa: E402
from zoo_datasets.networks.modules import Network  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
NORMED = [{"conv": 5, "kernel": 3, "padding": 1}, "batch_norm", "activation", {"max_pool": 2}, "dropout",
          {"conv": 4, "kernel": 3, "stride": 2}, "activation", "flatten", {"linear": 9}, "activation", {"linear": "classes"}]  # fmt: skip
# Blocks of every kind beside the kernels' short cuts: a convolution that does its ReLU or its pool, gradients in the
# place of outputs, halos, dropout that hands its input on, what is added twice, and the input itself.
SAME = {"conv": 6, "kernel": 3, "padding": 1}
SKIPS = [{"conv": 6, "kernel": 3}, {"residual": ["activation", SAME]}, "activation", {"residual": [SAME, "activation", SAME]},
         {"max_pool": 2}, {"residual": ["activation", "dropout", {"conv": 6, "kernel": 5, "padding": 2}, {"residual": [SAME]}]},
         "activation", "flatten", {"residual": [{"linear": 96}, "activation"]}, {"linear": "classes"}]  # fmt: skip
SKIPPED_INPUT = [{"residual": [{"conv": 2, "kernel": 3, "padding": 1}, "batch_norm", "activation"]}, {"conv": 7, "kernel": 4},
                 {"residual": [{"residual": ["dropout"]}, "batch_norm"]},
                 "activation", "global_avg_pool", {"residual": ["activation"]}, {"linear": "classes"}]  # fmt: skip
AUGMENTED = Augmentation(shift=1, crop=2, flip=True, noise=(0.1, 0.2), fill=(-0.5, 0.25))
# An odd number of values an image: the next one's noise begins inside a block of words.
DISTORTED = Augmentation(
    noise=(0.1, 0.3, 0.2), fill=(-0.5, 0.25, 0.0),
    distortion=Distortion(
        translate=2.0, rotate=15.0, zoom=0.1, shear=5.0, brightness=0.2, contrast=(0.5, 1.5), hue=0.08,
        saturation=(0.3, 1.5), noise=0.3, mean=(0.5, 0.4, 0.45), std=(0.25, 0.2, 0.3),
    ),
)  # fmt: skip

# What the kernels know: the reference has others.
ACTIVATIONS = [a for a in ACTIVATIONS if OPERATIONS[a].kernel is not None]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ of each row, the largest."""
    norms = np.linalg.norm(np.asarray(b, np.float64), axis=1)
    return float((np.linalg.norm(np.asarray(a, np.float64) - b, axis=1) / np.maximum(norms, 1e-12)).max())


GRU = [{"gru": 12}, "dropout", {"gru": 11}, {"linear": 6}, "activation", {"linear": "classes"}]
LSTM = [{"lstm": 9}, {"residual": [{"lstm": 9}, "activation"]}, "dropout", {"linear": "classes"}]
BY_ROWS = [
    {"conv": 3, "padding": 1},
    "activation",
    {"max_pool": 2},
    "rows",
    {"gru": 8},
    {"lstm": 5},
    "last_step",
    {"linear": "classes"},
]


def bits(backend: NativeBackend) -> bytes:
    return b"".join(v.tobytes() for v in backend.state().values())


# ── one step is autograd's ────────────────────────────────────────────────────────────


def check_gradient(job, sizes=(11,)) -> None:
    """The gradient of each step, in `slot1` under plain SGD, and the losses, within 2e-6 of torch_loop."""
    ours, reference = NativeBackend(job), TorchLoop(job)
    w = cases.window(job, list(sizes), lr=1e-3)
    losses, expected = ours.advance(w), reference.advance(w)
    state, want = ours.state(), reference.state()
    assert distance(state["slot1"], want["slot1"]) < 2e-6
    assert distance(state["weights"], want["weights"]) < 2e-6
    np.testing.assert_allclose(losses, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(ours.logits(job.pool), reference.logits(job.pool), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("preset", ["small-cnn", "small-cnn-gap", "mlp"])
def test_presets_have_autograds_gradient(preset, activation):
    check_gradient(cases.job(preset, (1, 28, 28), activation=activation, dropout=0.3), (9,))


@pytest.mark.parametrize(("right", "loss"), [("values", "mse"), ("classes", "cross_entropy"), ("classes", "mse")])
@pytest.mark.parametrize("layers", [GRU, LSTM, "mlds-gru", "lstm"], ids=["gru", "lstm", "mlds-gru", "lstm-2x32"])
def test_sequences_have_autograds_gradient(layers, right, loss):
    check_gradient(cases.job(layers, (11, 7), classes=4, right=right, loss=loss, dropout=0.3, activation="tanh"), (11,))


@pytest.mark.parametrize("batch", [1, 7, 8, 9, 16, 33])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (17, 8), (3, 20)])
def test_any_batch_and_length_of_sequences_has_autograds_gradient(batch, shape):
    check_gradient(cases.job(GRU, shape, classes=3, right="values", loss="mse", dropout=0.5), (batch,))
    check_gradient(cases.job(LSTM, shape, classes=3, right="classes"), (batch,))


@pytest.mark.parametrize(
    "layers", [BY_ROWS, [{"tiles": 2}, {"lstm": 7}, {"linear": 5}, "activation", "last_step", {"linear": "classes"}]]
)
def test_images_read_as_sequences_have_autograds_gradient(layers):
    check_gradient(cases.job(layers, (2, 10, 8), activation="tanh"), (16, 3))


def test_what_is_right_at_each_step_must_be_said_and_fit():
    job = cases.job(GRU, (5, 4), classes=3, right="classes")
    w = cases.window(job, [8])
    with pytest.raises(ValueError, match="what is right at each step is not said"):
        NativeBackend(dataclasses.replace(job, outputs=None)).advance(w)
    with pytest.raises(ValueError, match="classes out of range"):
        NativeBackend(dataclasses.replace(job, outputs=job.outputs + 1)).advance(w)
    with pytest.raises(ValueError, match=r"classes has shape|wrong shape"):
        NativeBackend(dataclasses.replace(job, outputs=job.outputs[:, :4])).advance(w)
    with pytest.raises(ValueError, match="values are learned by their squares alone"):
        NativeBackend(dataclasses.replace(job, outputs=np.zeros((40, 5, 3), np.float32))).advance(w)


@st.composite
def layer_lists(draw):
    """A random chain that fits 1 to 3 channels of 6×7 to 13×12, of layers and of residual blocks."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(6, 13)), draw(st.integers(7, 12)))
    layers, channels, rows, columns = [], *shape
    kinds = ["conv", "conv", "max_pool", "avg_pool", "batch_norm", "dropout", "activation", "residual", "residual"]
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        if kind == "conv":
            kernel, stride, padding = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(0, 4))
            if min(rows, columns) + 2 * padding < kernel:
                continue
            channels = draw(st.integers(1, 9))
            layers.append({"conv": channels, "kernel": kernel, "stride": stride, "padding": padding})
            rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in (rows, columns))
        elif kind.endswith("pool"):
            size, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
            if min(rows, columns) < size:
                continue
            layers.append({kind: size, "stride": stride})
            rows, columns = ((n - size) // stride + 1 for n in (rows, columns))
        elif kind == "residual":
            kernel = draw(st.sampled_from([1, 3, 5]))
            layers.append(draw(blocks({"conv": channels, "kernel": kernel, "padding": kernel // 2})))
        else:
            layers.append(kind)
    layers.append(draw(st.sampled_from(["flatten", "global_avg_pool"])))
    if draw(st.booleans()):
        features = channels * (rows * columns if layers[-1] == "flatten" else 1)
        layers.append(draw(blocks({"linear": features})))
    for _ in range(draw(st.integers(0, 2))):
        layers += [{"linear": draw(st.integers(1, 20))}, draw(st.sampled_from(["activation", "batch_norm", "dropout"]))]
    return [*layers, {"linear": "classes"}], shape


def blocks(weights: dict, nested: bool = True) -> st.SearchStrategy:
    """Residual blocks of layers that keep the shape: one with weights among them."""
    inner = [st.just(weights), st.sampled_from(["activation", "dropout", "batch_norm"])]
    inner += [blocks(weights, False)] if nested else []
    return st.lists(st.one_of(*inner), min_size=1, max_size=3).map(lambda block: {"residual": block})


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=100, derandomize=True)
@hypothesis.example(
    ([{"conv": 2, "kernel": 1, "stride": 1, "padding": 1}, "global_avg_pool", {"linear": 1}, "batch_norm", {"linear": "classes"}], (1, 6, 7)),
    "relu", "cross_entropy", 2, 217,
)  # fmt: skip
@hypothesis.given(
    layer_lists(), st.sampled_from(ACTIVATIONS), st.sampled_from(["cross_entropy", "mse"]),
    st.integers(2, 21), st.integers(0, 2**16),
)  # fmt: skip
def test_any_chain_has_autograds_gradient(chain, activation, loss, batch, seed):
    layers, shape = chain
    # Over two or three values batch norm's gradient is a difference of near-equals: nothing to compare.
    batch += 14 * ("batch_norm" in str(layers))
    job = cases.job(layers, shape, classes=7, activation=activation, loss=loss, seed=seed, dropout=0.25, n_models=1)
    w = cases.window(job, [batch], lr=1e-3)
    ours, reference = NativeBackend(job), TorchLoop(job)
    ours.advance(w), reference.advance(w)
    exact = float64_gradient(job, w)
    own, eager = (distance(b.state()["slot1"], exact) for b in (ours, reference))
    hypothesis.assume(np.linalg.norm(exact) > 1e-4)  # nothing but rounding is left of a smaller one
    if own >= max(2e-6, 2 * eager):  # batch norm amplifies rounding, eager's as well, which may have been lucky
        eager = max(eager, *(eager_distance(job, w, k) for k in range(8)))
    assert own < max(2e-6, 2 * eager)


def eager_distance(job, w, seed: int) -> float:
    """How far eager is from float64 for weights that differ from the job's by a rounding."""
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), job.initial.shape)
    near = dataclasses.replace(job, initial=job.initial * (1 + signs * np.float32(2**-23)))
    reference = TorchLoop(near)
    reference.advance(w)
    return distance(reference.state()["slot1"], float64_gradient(near, w))


def float64_gradient(job, w) -> np.ndarray:
    """The first step's gradient (1, P) of model 0 in float64, with the same dropout."""
    from zoo_builder.engines import torch_common

    network = Network(job.architecture).double().train()
    network.load_state_dict(
        {k: v.double() for k, v in Network(job.architecture).load_vector(job.initial[0]).state_dict().items()}
    )
    batch = int(w.batch_sizes[0])
    values = {"input": torch.from_numpy(job.pool[w.rows[0, :batch]]).double()}
    for node in job.architecture.nodes:
        if node.op == "dropout":
            rate = float(torch_common.dropout_rates(job)[node.name][0])
            factor = torch_common.dropout_factor(job, 0, node.name, rate, w.first_step, batch)
            value = values[node.inputs[0]] * torch.from_numpy(factor).double()
        else:
            value = network.get_submodule(node.name)(*(values[name] for name in node.inputs))
        values[node.name] = value
    torch_common.losses(
        job.loss, value[None], torch.from_numpy(w.targets[:1, :batch].astype(np.int64))
    ).sum().backward()
    gradient = np.zeros((1, job.architecture.n_params))
    for e in job.architecture.layout:
        if e.role == "parameter":
            gradient[0, e.offset : e.end] = network.get_parameter(e.name).grad.numpy().ravel()
    return gradient


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 9, 16, 33])
def test_any_batch_size_has_autograds_gradient(batch):
    check_gradient(cases.job("small-cnn", (1, 28, 28), activation="tanh", dropout=0.5), (batch,))


@pytest.mark.parametrize("layers", ["small-cnn", "mlp", NORMED, SKIPS, SKIPPED_INPUT])
def test_short_last_batch_leaves_nothing_of_the_batch_before(layers):
    check_gradient(
        cases.job(
            layers,
            (1, 28, 28) if isinstance(layers, str) else (2, 10, 10) if layers is SKIPS else (2, 14, 14),
            activation="gelu",
        ),
        (16, 3),
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 1), (3, 2), (3, 3)])
def test_ties_in_max_pool_go_to_the_first(activation, size, stride):
    # With weights of 0 the whole image is one tie, and only the first value's input enters the gradient.
    layers = [
        {"conv": 3, "kernel": 3},
        {"max_pool": size, "stride": stride},
        "activation",
        "flatten",
        {"linear": "classes"},
    ]
    job = cases.job(layers, (1, 11, 11), activation=activation)
    weight, bias = job.architecture.layout.of_node("conv1")
    initial = job.initial.copy()
    initial[:, weight.offset : weight.offset + weight.size] = 0
    initial[:, bias.offset : bias.offset + bias.size] = [0.1, 0.2, 0.3]
    check_gradient(dataclasses.replace(job, initial=initial))


def test_constant_images_train_as_in_torch():
    check_gradient(cases.job("small-cnn", (1, 28, 28), pool=np.full((40, 1, 28, 28), 0.5, np.float32)))


def test_augmented_images_are_those_of_the_reference():
    job = cases.job(NORMED, (2, 14, 14), augmentation=AUGMENTED, dropout=0.2)
    ours, reference = NativeBackend(job), TorchLoop(job)
    w = cases.window(job, [16, 5], first=7)
    np.testing.assert_allclose(ours.advance(w), reference.advance(w), rtol=2e-6)
    flat = cases.job("mlp", (12,), augmentation=Augmentation(noise=(0.3,)))
    ours, reference = NativeBackend(flat), TorchLoop(flat)
    w = cases.window(flat, [16, 5], first=7)
    np.testing.assert_allclose(ours.advance(w), reference.advance(w), rtol=2e-6)


# ── optimizers ────────────────────────────────────────────────────────────────────────

RULES = {
    "sgd": (SGD, {"momentum": 0.0}), "momentum": (SGD, {"momentum": 0.9}), "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd with decay": (SGD, {"momentum": 0.9, "weight_decay": 1e-2}), "adam": (ADAM, {}),
    "adam with decay": (ADAM, {"weight_decay": 1e-2}), "adamw": (ADAMW, {"weight_decay": 1e-1}),
    "rmsprop": (RMSPROP, {"eps": 1e-4}), "clipped": (SGD, {"momentum": 0.9, "clip_norm": 0.05}),
}  # fmt: skip


def torch_optimizer(name: str, network, lr: float):
    kind, s = RULES[name]
    decay, p = s.get("weight_decay", 0.0), network.parameters()
    if kind == SGD:
        return torch.optim.SGD(p, lr, s["momentum"], weight_decay=decay, nesterov=bool(s.get("nesterov")))
    if kind == RMSPROP:
        return torch.optim.RMSprop(p, lr, eps=s["eps"])
    return (torch.optim.AdamW if kind == ADAMW else torch.optim.Adam)(p, lr, weight_decay=decay)


@pytest.mark.parametrize("name", RULES)
def test_thirty_mild_steps_are_those_of_torch_optim(name):
    kind, settings = RULES[name]
    job = cases.job("mlp", (1, 8, 8), activation="tanh", kind=kind, n_models=1, **settings)
    w = cases.window(job, [16] * 30, lr=1e-3)
    backend = NativeBackend(job)
    backend.advance(w)
    network = Network(job.architecture).load_vector(job.initial[0])
    optimizer = torch_optimizer(name, network, 1e-3)
    for t in range(30):
        rows = slice(16 * t, 16 * t + 16)
        optimizer.zero_grad()
        logits = network(torch.from_numpy(job.pool[w.rows[0, rows]]))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(w.targets[0, rows].astype(np.int64))).backward()
        if "clip_norm" in settings:
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings["clip_norm"])
        optimizer.step()
    vector = np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])
    assert distance(backend.state()["weights"], vector[None]) < 1e-5


def test_buffers_are_left_to_batch_norm():
    job = cases.job(NORMED, (2, 14, 14), kind=ADAMW, weight_decay=0.5, clip_norm=1e-3)
    backend, reference = NativeBackend(job), TorchLoop(job)
    w = cases.window(job, [16, 16, 5])
    backend.advance(w), reference.advance(w)
    mask = job.architecture.layout.buffer_mask()
    assert distance(backend.state()["weights"][:, mask], reference.state()["weights"][:, mask]) < 1e-5
    assert not backend.state()["slot2"][:, mask].any()


# ── the same bits ─────────────────────────────────────────────────────────────────────

BITWISE = {
    "small-cnn": dict(layers="small-cnn", shape=(1, 28, 28), activation="tanh", dropout=0.3),
    "mlp": dict(layers="mlp", shape=(1, 28, 28), activation="gelu", dropout=0.1),
    "gap": dict(layers="small-cnn-gap", shape=(1, 28, 28), activation="silu"),
    "distorted": dict(layers=["flatten", {"linear": 7}, "activation", {"linear": "classes"}], shape=(3, 13, 15), augmentation=DISTORTED),
    "normed": dict(layers=NORMED, shape=(2, 14, 14), activation="elu", dropout=0.2, augmentation=AUGMENTED),
    "pooled in strips": dict(layers=[{"conv": 7, "kernel": 5}, {"max_pool": 2}, "activation", {"conv": 6, "kernel": 3, "padding": 1, "stride": 2}, "activation", "flatten", {"linear": "classes"}], shape=(1, 31, 31), activation="relu"),
    "in strips": dict(layers=[{"conv": 9, "kernel": 3, "padding": 1}, "activation", {"conv": 5, "kernel": 4, "stride": 3}, "activation", {"max_pool": 3, "stride": 2}, "activation", "dropout", {"conv": 4, "kernel": 2}, "activation", "global_avg_pool", {"linear": "classes"}], shape=(2, 31, 31), activation="relu", dropout=0.2),
    "skips": dict(layers=SKIPS, shape=(2, 10, 10), activation="relu", dropout=0.2),
    "skipped input": dict(layers=SKIPPED_INPUT, shape=(2, 13, 12), activation="relu", dropout=0.2),
    "gru": dict(layers=GRU, shape=(9, 5), right="values", loss="mse", activation="tanh", dropout=0.2),
    "lstm": dict(layers=LSTM, shape=(6, 13), right="classes", activation="relu", dropout=0.3),
    "read by rows": dict(layers=BY_ROWS, shape=(2, 10, 9), activation="gelu"),
    "read by tiles": dict(layers=[{"tiles": 4}, {"lstm": 7}, "last_step", {"linear": "classes"}], shape=(1, 12, 8)),
}  # fmt: skip


def trained(job, w, path: str | None = None) -> NativeBackend:
    with pytest.MonkeyPatch.context() as patch:
        if path is not None:
            patch.setenv(kernels.PATH_VARIABLE, path)
        backend = NativeBackend(job)
    backend.advance(w)
    return backend


@pytest.mark.parametrize("name", BITWISE)
@pytest.mark.parametrize("kind", [ADAM, RMSPROP])
def test_alone_in_a_cohort_step_by_step_and_again_give_the_same_bits(name, kind):
    job = cases.job(**BITWISE[name], n_models=3, kind=kind, clip_norm=1.0)
    w = cases.window(job, [16, 16, 5], lr=3e-3, first=4)
    cohort = trained(job, w)
    assert bits(trained(job, w)) == bits(cohort)
    stepwise = NativeBackend(job)
    for t in range(3):
        stepwise.advance(cases.part(w, steps=slice(t, t + 1)))
    assert bits(stepwise) == bits(cohort)
    logits = cohort.logits(job.pool)
    for m in range(3):
        alone = trained(cases.member(job, m), cases.part(w, m=slice(m, m + 1)))
        for slot, values in alone.state().items():
            assert values.tobytes() == cohort.state()[slot][m].tobytes()
        assert alone.logits(job.pool).tobytes() == logits[m].tobytes()


@pytest.mark.parametrize("name", BITWISE)
def test_every_path_gives_the_same_bits(name):
    job = cases.job(**BITWISE[name], kind=ADAM)
    w = cases.window(job, [16, 3], lr=3e-3)
    results = {path: trained(job, w, path) for path in kernels._kernels.paths()}
    first = next(iter(results.values()))
    assert len(results) >= 2 or kernels._kernels.paths() == ["plain"]
    for path, backend in results.items():
        assert bits(backend) == bits(first), path
        assert backend.logits(job.pool).tobytes() == first.logits(job.pool).tobytes(), path


# Of losses, state and logits under the engine's version: other digests are another version. What enters
# is arithmetic and generators that NumPy keeps as they are.
KEPT = {
    "small-cnn": "c3df5da1b20946e0", "distorted": "ae6a7389bd40e565", "mlp": "e0684020a2f39288", "gap": "c370061482b514c4",
    "normed": "0940a96b1b5a4184", "pooled in strips": "d1d62109f3b8e960", "in strips": "8646241255084e08",
    "skips": "ab20ebc293396c59", "skipped input": "3948479820958c15",
    "gru": "a75ec4fb58225627", "lstm": "1b8e8662b2078d97", "read by rows": "c9252c047a4c7449", "read by tiles": "7d6f3af142850927",
}  # fmt: skip


@pytest.mark.parametrize("name", BITWISE)
def test_a_version_keeps_its_bits(name):
    settings = BITWISE[name]
    shape = settings["shape"]
    pool = np.random.RandomState(0).standard_normal((40, *shape)).astype(np.float32)
    job = cases.job(**settings, kind=ADAM, pool=pool)
    order = np.arange(2 * 40, dtype=np.int32).reshape(2, 40)
    w = dataclasses.replace(cases.window(job, [19, 16, 5], lr=3e-3), rows=order * 7 % 40, targets=order * 3 % 10)
    backend = NativeBackend(job)
    digest = hashlib.sha256(backend.advance(w).tobytes() + bits(backend) + backend.logits(pool).tobytes()).hexdigest()
    assert (native.VERSION, digest[:16]) == ("native 3", KEPT[name])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_has_the_same_bits_on_every_path(activation):
    job = cases.job(
        "mlp", (1, 5, 5), activation=activation, pool=np.linspace(-90, 90, 1000, dtype=np.float32).reshape(40, 1, 5, 5)
    )
    w = cases.window(job, [40], lr=1e-3)
    assert len({bits(trained(job, w, path)) for path in kernels._kernels.paths()}) == 1


def test_saved_state_goes_on_to_the_same_bits():
    job = cases.job("small-cnn", (1, 28, 28), kind=ADAM, dropout=0.2)
    first, second = cases.window(job, [8, 8]), cases.window(job, [8, 3], first=2)
    whole = trained(job, first)
    resumed = NativeBackend(job)
    resumed.load_state(whole.state())
    whole.advance(second), resumed.advance(second)
    assert bits(whole) == bits(resumed)


def test_inactive_models_keep_every_bit():
    job = cases.job("small-cnn", (1, 28, 28), kind=ADAM, n_models=3)
    w = cases.window(job, [8, 8])
    w.active[1] = False
    backend = trained(job, w)
    losses = NativeBackend(job).advance(w)
    assert np.isnan(losses[1]).all()
    assert not np.isnan(losses[[0, 2]]).any()
    assert backend.state()["weights"][1].tobytes() == job.initial[1].tobytes()
    assert not backend.state()["slot1"][1].any()


def test_diverged_model_shows_in_its_loss_and_in_no_other():
    job = cases.job(NORMED, (2, 14, 14), n_models=3)
    w = cases.window(job, [8, 8, 8], lr=1e-2)
    sane = trained(job, w)
    w.lr[1] = 1e30
    wild = NativeBackend(job)
    losses = wild.advance(w)
    assert not np.isfinite(losses[1, -1])
    for m in (0, 2):
        assert wild.state()["weights"][m].tobytes() == sane.state()["weights"][m].tobytes()


@pytest.mark.parametrize("layers", ["small-cnn", "mlp", "small-cnn-gap"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_in_an_image_reaches_the_loss(layers, activation):
    pool = np.zeros((40, 1, 28, 28), np.float32)
    pool[:, 0, 14, 14] = np.nan
    job = cases.job(layers, (1, 28, 28), activation=activation, pool=pool)
    assert np.isnan(NativeBackend(job).advance(cases.window(job, [8]))).all()


@pytest.mark.parametrize("at", [(4, 4), (4, 5), (5, 4), (5, 5)])
@pytest.mark.parametrize("size", [2, 3])
def test_nan_anywhere_in_a_window_reaches_the_loss(at, size):
    pool = np.zeros((40, 1, 12, 12), np.float32)
    pool[:, 0, at[0], at[1]] = np.nan
    layers = [{"conv": 3, "kernel": 1}, {"max_pool": size}, "activation", "flatten", {"linear": "classes"}]
    job = cases.job(layers, (1, 12, 12), pool=pool)
    assert np.isnan(NativeBackend(job).advance(cases.window(job, [8]))).all()


def test_rows_show_each_model_its_own_images():
    job = cases.job("small-cnn", (1, 28, 28), n_models=3)
    backend = NativeBackend(job)
    rows = np.random.default_rng(0).integers(0, 40, (3, 11)).astype(np.int32)
    every = backend.logits(job.pool)
    assert backend.logits(job.pool, rows).tobytes() == np.stack([every[m, rows[m]] for m in range(3)]).tobytes()


# ── what it refuses, and how it stops ─────────────────────────────────────────────────


def test_unsupported_cohorts_are_named():
    a = build_architecture("mlp", (1, 4, 4), 3)
    assert kernels.unsupported(a, "cross_entropy") is None
    assert kernels.unsupported(a, "hinge") == "no kernel for loss 'hinge'"
    assert kernels.unsupported(a, "mse", channels=65) == "augmentation of more than 64 channels"
    strange = Architecture(a.input_shape, (*a.nodes, Node("attention1", "attention", ("linear2",), (3,))))
    assert kernels.unsupported(strange, "mse") == "no kernel for layer 'attention' (attention1)"
    branch = Architecture(a.input_shape, (*a.nodes, Node("relu9", "relu", ("linear1",), (32,))))
    assert "only chains of layers" in kernels.unsupported(branch, "mse")
    empty = Architecture((3,), (Node("relu1", "relu", ("input",), (3,)),))
    assert kernels.unsupported(empty) is None
    assert kernels.unsupported(empty, "mse") == "there is nothing to train"


def test_numbers_of_operations_are_those_of_the_kernels():
    plan = (ROOT / "zoo_datasets" / "networks" / "native" / "plan.h").read_text(encoding="utf-8")
    names = re.search(r"enum class Op : int \{([^}]*)\}", plan)[1].replace("\n", " ").split(",")
    ours = {o.kernel: o.name.replace("_", "") for o in OPERATIONS.values() if o.kernel is not None}
    assert dict(enumerate(n.strip().lower() for n in names if n.strip())) == ours


@pytest.mark.parametrize("widths", [(16, 32, 64), (32, 64, 128), (192, 192)])
def test_wide_convolutions_are_left_to_torch(widths):
    layers = [x for c in widths for x in ({"conv": c, "padding": 1}, {"max_pool": 2}, "activation")]
    reason = kernels.slower(build_architecture([*layers, "flatten", {"linear": "classes"}], (3, 32, 32), 10))
    assert (reason is not None) == (widths[-1] == 192)
    assert kernels.slower(build_architecture(["flatten", {"linear": 1024}, {"linear": "classes"}], (1, 28, 28), 10))
    assert all(
        kernels.slower(build_architecture(preset, (1, 28, 28), 10)) is None
        for preset in PRESETS
        if preset not in ("mlds-gru", "lstm")
    )


def test_wide_recurrent_layers_are_left_to_torch():
    for kind, widths in (("lstm", (192, 512)), ("gru", (256, 512))):
        narrow, wide = (build_architecture([{kind: w}, {kind: w}, {"linear": 2}], (6, 8), 2, steps=6) for w in widths)
        assert kernels.slower(narrow) is None
        assert "PyTorch is faster on layers this wide" in kernels.slower(wide)


def test_batch_of_one_under_batch_norm_is_refused():
    job = cases.job(["flatten", {"linear": 4}, "batch_norm", {"linear": "classes"}], (1, 4, 4))
    with pytest.raises(ValueError, match="Step 1 has a batch of one example, and batch_norm1 needs more"):
        NativeBackend(job).advance(cases.window(job, [8, 1]))


def test_row_outside_the_pool_is_refused():
    job = cases.job("mlp", (1, 4, 4))
    w = cases.window(job, [8])
    w.rows[0, 3] = 40
    with pytest.raises(ValueError, match="rows out of range"):
        NativeBackend(job).advance(w)
    with pytest.raises(ValueError, match="rows out of range"):
        NativeBackend(job).logits(job.pool, np.full((2, 1), -1, np.int32))


@pytest.mark.slow
def test_ctrl_c_is_answered_within_a_long_call():
    script = textwrap.dedent("""
        import signal
        import sys
        import native_cases as cases
        from zoo_builder.engines.native import NativeBackend
        job = cases.job("small-cnn", (1, 28, 28), n_models=64)
        backend, w = NativeBackend(job), cases.window(job, [32] * 3000)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)  # rings inside the call, as Ctrl-C would
        try:
            backend.advance(w)
        except KeyboardInterrupt:
            sys.exit(7)
    """)
    # The call's 192,000 steps take minutes; the timeout ends a call that does not listen.
    assert subprocess.run([sys.executable, "-c", script], env=environment(), timeout=30).returncode == 7


def environment() -> dict[str, str]:
    here = pathlib.Path(__file__).parent
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
