"""The promises of `contract.Backend`, kept by both torch engines.

References are `nn.Module`, `torch.autograd` and `torch.optim` in float64, so that a
distance is the engine's own rounding. Native kernels have their own file.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from cohorts import (
    BASE_LR,
    CLASSES,
    LAYERS,
    RICH,
    RULES,
    SEQUENCES,
    cut,
    equal,
    make_job,
    make_optimizers,
    make_sequences,
    make_window,
    rich_job,
    take,
)
from torch import nn

from zoo_builder import engines
from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Job, Optimizers, Window
from zoo_builder.engines.torch_batched import TorchBatched
from zoo_builder.engines.torch_loop import TorchLoop
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError
from zoo_datasets.networks import augment
from zoo_datasets.networks.augmentation import Augmentation, Distortion
from zoo_datasets.networks.modules import Network
from zoo_datasets.networks.operations.registry import ACTIVATIONS, OPERATIONS


def by_vmap(job: Job, device: str = "cpu") -> TorchBatched:
    """The batched engine as if no layer had a batched form, but those that vmap cannot take."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS.keys() - {"dropout", "batch_norm", "gru", "lstm"}:
            patch.setitem(OPERATIONS, name, dataclasses.replace(OPERATIONS[name], batched=None))
        return TorchBatched(job, device)


ENGINES = {"torch_loop": TorchLoop, "torch_batched": TorchBatched, "by_vmap": by_vmap}
both = pytest.mark.parametrize("engine", [TorchLoop, TorchBatched])


class Keep(nn.Module):
    """Dropout by the definition in streams.py, at step 0."""

    def __init__(self, key: str, rate: float, layer: int) -> None:
        super().__init__()
        self.key, self.rate, self.layer = key, rate, layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep = streams.dropout_keep(self.key, self.rate, 0, self.layer, len(x), x[0].numel())
        return x * torch.from_numpy(keep.reshape(x.shape)) / (1 - self.rate)


def reference(job: Job, model: int) -> Network:
    """The float64 module of a model, with its dropout."""
    network = Network(job.architecture).load_vector(job.initial[model]).double()
    for layer, node in enumerate(job.architecture.nodes):
        if node.op == "dropout":
            rate = job.dropout_rate[model] if node.attrs["rate"] is None else node.attrs["rate"]
            setattr(network, node.name, Keep(job.dropout_key[model], float(rate), layer))
    return network


def reference_loss(job: Job, network: Network, images: np.ndarray, targets: np.ndarray) -> torch.Tensor:
    logits = network(torch.tensor(images, dtype=torch.float64))
    wanted = torch.tensor(targets, dtype=torch.float64 if targets.dtype.kind == "f" else torch.int64)
    if wanted.dim() == 3:
        return nn.functional.mse_loss(logits, wanted)
    if wanted.dim() == 2:  # every step is an example
        logits, wanted = logits.flatten(0, 1), wanted.flatten()
    if job.loss == "mse":
        return nn.functional.mse_loss(logits, nn.functional.one_hot(wanted, CLASSES).double())
    return nn.functional.cross_entropy(logits, wanted)


def vector_of(job: Job, named: dict[str, torch.Tensor]) -> np.ndarray:
    """Named tensors in layout order, zero where there is none."""
    return np.concatenate(
        [
            named[e.name].detach().numpy().ravel() if e.name in named else np.zeros(e.size)
            for e in job.architecture.layout
        ]
    )


# ── gradients ─────────────────────────────────────────────────────────────────────────


def gradients(job: Job, window: Window, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss (M,) and gradient (M, P) by autograd in float64; `images` (M, B, …)."""
    losses, found = [], []
    for model in range(job.n_models):
        network = reference(job, model)
        right = window.targets[model] if job.outputs is None else job.outputs[window.rows[model]]
        loss = reference_loss(job, network, images[model], right)
        loss.backward()
        losses.append(loss.item())
        found.append(vector_of(job, {name: p.grad for name, p in network.named_parameters()}))
    return np.array(losses), np.stack(found)


def assert_gradient(job: Job, engine, window: Window, images: np.ndarray) -> None:
    loss, expected = gradients(job, window, images)
    backend = engine(job)
    np.testing.assert_allclose(backend.advance(window)[:, 0], loss, rtol=2e-6)
    state, fixed = backend.state(), job.architecture.layout.buffer_mask()
    distance = np.linalg.norm(state["slot1"] - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert distance.max() < 2e-6
    # Momentum starts at 0, so slot1 is the gradient itself; with lr 1 the step is it too.
    np.testing.assert_array_equal(state["weights"][:, ~fixed], (job.initial - state["slot1"])[:, ~fixed])


@pytest.mark.some(24)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_gradient_equals_autograd(layers, activation, engine):
    job = make_job(layers, activation=activation, dropout_rate=np.array([0.5, 0.0, 0.1]))
    window = make_window(job, [6], lr=1.0)
    assert_gradient(job, engine, window, job.pool[window.rows])


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(("values", "loss"), [(True, "mse"), (False, "cross_entropy"), (False, "mse")])
@pytest.mark.parametrize("layers", SEQUENCES.values(), ids=SEQUENCES)
def test_gradient_of_losses_step_by_step_equals_autograd(layers, values, loss, engine):
    job = make_sequences(layers, values=values, loss=loss, dropout_rate=np.array([0.5, 0.0, 0.1]))
    window = make_window(job, [6], lr=1.0)
    assert_gradient(job, engine, window, job.pool[window.rows])


@both
def test_logits_of_sequences_lie_flat_and_rows_pick_them(engine):
    job = make_sequences(SEQUENCES["lstm"])
    backend = engine(job)
    network = reference(job, 1).eval()
    shown = backend.logits(job.pool)
    wanted = network(torch.tensor(job.pool, dtype=torch.float64)).flatten(1)
    np.testing.assert_allclose(shown[1], wanted.detach().numpy(), rtol=1e-4, atol=1e-6)
    rows = np.array([[3, 1], [0, 9], [5, 5]], np.int32)
    np.testing.assert_allclose(backend.logits(job.pool, rows)[1], shown[1][[0, 9]], rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_survives_ties_in_the_pool(activation, engine):
    """Two grey levels under one flat kernel: most windows hold the same maximum several times."""
    layers = [{"conv": 3, "kernel": 1}, {"max_pool": 2}, "activation", "flatten", {"linear": "classes"}]
    pool = np.random.default_rng(3).integers(0, 2, (40, 1, 8, 8)).astype(np.float32)
    job = make_job(layers, (1, 8, 8), activation=activation, pool=pool)
    window = make_window(job, [6], lr=1.0)
    assert_gradient(job, engine, window, job.pool[window.rows])


@both
def test_gradient_of_mse_equals_autograd(engine):
    job = make_job(LAYERS["max_pool"], loss="mse")
    window = make_window(job, [6], lr=1.0)
    assert_gradient(job, engine, window, job.pool[window.rows])


@both
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(shift=2, fill=(-0.5, 0.25)),
        Augmentation(crop=3, fill=(0, 0)),
        Augmentation(flip=True, noise=(0.1, 0.3), fill=(0, 0)),
        Augmentation(shift=1, crop=1, flip=True, noise=(0.2, 0.1), fill=(1.0, -1.0)),
        Augmentation(
            flip=True,
            fill=(0.5, -1.0),
            distortion=Distortion(
                rotate=30.0, zoom=0.2, contrast=(0.5, 1.5), noise=0.1, mean=(0.4, 0.5), std=(0.3, 0.2)
            ),
        ),
    ],
)
def test_training_on_augmented_images(augmentation, engine):
    job = make_job(LAYERS["max_pool"], augmentation=augmentation)
    window = make_window(job, [6], lr=1.0, first_step=4)
    images = [augment.apply(job.pool[r], augmentation, k, 4) for r, k in zip(window.rows, job.augment_key, strict=True)]
    assert_gradient(job, engine, window, np.stack(images))


def test_flat_input_takes_noise():
    job = make_job([{"linear": 6}, "activation", {"linear": "classes"}], (9,), augmentation=Augmentation(noise=(0.2,)))
    window = make_window(job, [6, 6])
    loop, batched = TorchLoop(job), TorchBatched(job)
    np.testing.assert_allclose(loop.advance(window), batched.advance(window), rtol=1e-6)


@both
def test_running_statistics_equal_batch_norm(engine):
    job = make_job(RICH)
    window = make_window(job, [6, 5, 2], lr=0.0)
    backend = engine(job)
    backend.advance(window)
    fixed, ends = job.architecture.layout.buffer_mask(), [0, 6, 11, 13]
    for model in range(job.n_models):
        network = reference(job, model)
        for a, b in itertools.pairwise(ends):
            network(torch.tensor(job.pool[window.rows[model, a:b]], dtype=torch.float64))
        expected = vector_of(job, dict(network.named_buffers()))
        np.testing.assert_allclose(backend.state()["weights"][model][fixed], expected[fixed], rtol=1e-5, atol=1e-6)


@both
def test_batch_statistics_of_one_value_are_refused(engine):
    backend = engine(make_job(LAYERS["norm1d"]))
    with pytest.raises(ValueError, match=r"Step 3 has a batch of one example, and batch_norm1 needs more than one"):
        backend.advance(make_window(make_job(LAYERS["norm1d"]), [4, 1], first_step=2))


# ── optimizers ────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@both
@pytest.mark.parametrize("layers", ["mlp", "input", "gap"])  # a bias before batch norm has no gradient but rounding
def test_thirty_steps_equal_torch_optim_under_a_schedule(layers, engine):
    m, steps = len(RULES), 30
    vectors = {f.name: getattr(make_optimizers(m), f.name) for f in dataclasses.fields(Optimizers)}
    for model, (kind, settings, _) in enumerate(RULES.values()):
        for name, value in ({"kind": kind} | settings).items():
            vectors[name][model] = value
    job = make_job(LAYERS[layers], m=m, optimizers=Optimizers(**vectors))
    base = np.array([BASE_LR[kind] for kind, _, _ in RULES.values()])[:, None]
    window = make_window(job, [8] * steps, lr=base * np.linspace(1.0, 0.2, steps))
    backend = engine(job)
    losses = backend.advance(window)
    for model, (name, (_, settings, make)) in enumerate(RULES.items()):
        network = reference(job, model)
        optimizer = make(network.parameters())
        for step in range(steps):
            rows, targets = (getattr(window, k)[model, 8 * step : 8 * step + 8] for k in ("rows", "targets"))
            optimizer.param_groups[0]["lr"] = window.lr[model, step]
            optimizer.zero_grad()
            loss = reference_loss(job, network, job.pool[rows], targets)
            loss.backward()
            if "clip_norm" in settings:
                nn.utils.clip_grad_norm_(network.parameters(), settings["clip_norm"])
            optimizer.step()
            assert losses[model, step] == pytest.approx(loss.item(), abs=1e-5), name
        expected = vector_of(job, {**dict(network.named_parameters()), **dict(network.named_buffers())})
        distance = np.abs(backend.state()["weights"][model] - expected).max()
        assert distance < 1e-5, f"{name}: {distance}"
        assert distance < 0.01 * np.abs(expected - job.initial[model]).max(), f"{name} hardly moved"


@both
def test_without_a_limit_an_overflowing_norm_scales_nothing(engine):
    """The gradient's norm is float32's inf, its values are not: clipping by inf must not make NaN, nor by 1 stand still."""
    pool = np.full((4, 3), 1e30, np.float32)
    job = make_job([{"linear": "classes"}], (3,), 2, pool=pool, optimizers=make_optimizers(2, clip_norm=[np.inf, 1.0]))
    backend = engine(job)
    backend.advance(make_window(job, [4], lr=1e-30))
    assert np.isfinite(backend.state()["weights"][0]).all()
    assert np.abs(backend.state()["slot1"][0]).max() > 1e28
    assert 1e-3 < np.abs(backend.state()["slot1"][1]).max() < 1


@both
def test_optimizers_leave_running_statistics_alone(engine):
    """With every update at rate 0 and strong decay, buffers move as with no decay at all."""
    states = []
    for decay in (0.0, 0.9):
        job = make_job(RICH, optimizers=make_optimizers(3, kind=[SGD, ADAM, ADAMW], weight_decay=decay, clip_norm=0.1))
        backend = engine(job)
        backend.advance(make_window(job, [6, 6], lr=0.0))
        states.append(backend.state())
    fixed = job.architecture.layout.buffer_mask()
    assert states[0]["weights"][:, fixed].tobytes() == states[1]["weights"][:, fixed].tobytes()
    assert not states[1]["slot1"][:, fixed].any()
    assert not states[1]["slot2"][:, fixed].any()


# ── cohorts ───────────────────────────────────────────────────────────────────────────


@both
@pytest.mark.slow
def test_step_by_step_and_resumed_give_the_same_bits(engine):
    job = rich_job()
    window = make_window(job, [6, 6, 6, 3], lr=1e-3)
    whole = engine(job)
    losses = whole.advance(window)

    stepped = engine(job)
    ones = [stepped.advance(cut(window, j, j + 1)) for j in range(4)]
    assert np.concatenate(ones, 1).tobytes() == losses.tobytes()
    assert equal(stepped.state(), whole.state())

    first, second = engine(job), engine(job)
    first.advance(cut(window, 0, 2))
    second.load_state(first.state())
    second.advance(cut(window, 2, 4))
    assert equal(second.state(), whole.state())


@both
@pytest.mark.slow
def test_the_same_cohort_twice_gives_the_same_bits(engine):
    job = rich_job(m=20)  # more than a batched engine puts side by side
    window = make_window(job, [6, 6, 3], lr=1e-3)
    first, second = engine(job), engine(job)
    assert first.advance(window).tobytes() == second.advance(window).tobytes()
    assert equal(first.state(), second.state())
    assert first.logits(job.pool).tobytes() == second.logits(job.pool).tobytes()


@both
@pytest.mark.parametrize("layers", ["small-cnn-gap", "mlp", RICH], ids=["small-cnn-gap", "mlp", "rich"])
def test_alone_equals_in_a_cohort(layers, engine):
    """`torch_loop`: the same bits. `torch_batched`: within 1e-6 after one step.

    On one Zen 3 core it gave the same bits for MLPs and for convolutions of one input
    channel, any size of cohort, and up to 1.5e-8 apart where oneDNN takes another kernel for
    a single group or a reduction runs along other strides. No such kernel is promised.
    """
    shape = (1, 16, 16) if isinstance(layers, str) else (2, 8, 8)
    job = make_job(layers, shape, m=5, dropout_rate=np.full(5, 0.2))
    window = make_window(job, [6])
    cohort = engine(job)
    cohort.advance(window)
    for members in ([0], [3], [1, 4]):
        smaller, part = take(job, window, members)
        alone = engine(smaller)
        alone.advance(part)
        distance = np.abs(alone.state()["weights"] - cohort.state()["weights"][members]).max()
        assert distance <= (0 if engine is TorchLoop else 1e-6)


@pytest.mark.some(2)
@both
@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW, RMSPROP])
@pytest.mark.slow
def test_a_diverging_neighbour_changes_no_bit(kind, engine):
    calm, wild = [], []
    for lr, found in ((1e-3, calm), (1e20, wild)):
        job = rich_job(optimizers=make_optimizers(5, kind=[kind, SGD, kind, ADAM, SGD], clip_norm=[np.inf, 1, 1, 1, 1]))
        backend = engine(job)
        rates = np.full((5, 1), 1e-3)
        rates[2] = lr
        losses = backend.advance(make_window(job, [6, 6, 6, 6, 5], lr=rates))
        found += [losses, *backend.state().values(), backend.logits(job.pool)]
    assert not np.isfinite(wild[1][2]).all()
    for quiet, loud in zip(calm, wild, strict=True):
        others = [0, 1, 3, 4]
        assert quiet[others].tobytes() == loud[others].tobytes()


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_neighbour_without_numbers_changes_no_bit(value, engine):
    job = make_job("small-cnn-gap", (1, 16, 16), m=4)
    broken = job.initial.copy()
    broken[1] = value
    window, seen = make_window(job, [6, 6]), []
    for initial in (job.initial, broken):
        backend = engine(dataclasses.replace(job, initial=initial))
        losses = backend.advance(window)
        seen.append([losses, *backend.state().values(), backend.logits(job.pool)])
    for quiet, loud in zip(*seen, strict=True):
        assert quiet[[0, 2, 3]].tobytes() == loud[[0, 2, 3]].tobytes()


@both
def test_inactive_models_keep_every_bit(engine):
    job = rich_job()
    backend = engine(job)
    backend.advance(make_window(job, [6, 6], lr=1e-3))
    before = backend.state()
    active = np.array([True, False, True, True, False])
    losses = backend.advance(make_window(job, [6, 6], lr=1e-3, first_step=2, active=active))
    after = backend.state()
    assert np.isnan(losses[~active]).all()
    assert np.isfinite(losses[active]).all()
    assert equal({k: v[~active] for k, v in after.items()}, {k: v[~active] for k, v in before.items()})
    assert (after["weights"][active] != before["weights"][active]).any(1).all()

    nobody = backend.advance(make_window(job, [6], active=np.zeros(5, bool)))
    assert np.isnan(nobody).all()
    assert backend.advance(make_window(job, [])).shape == (5, 0)
    assert equal(backend.state(), after)


def test_engines_draw_the_same_dropout_and_images():
    """The draws differ from step to step, so a wrong counter would show as a loss far off."""
    job = rich_job()
    window = make_window(job, [6, 6, 6], lr=0.0, first_step=17)
    loop, batched = TorchLoop(job).advance(window), TorchBatched(job).advance(window)
    np.testing.assert_allclose(loop, batched, rtol=1e-5)
    other = TorchLoop(job).advance(dataclasses.replace(window, first_step=18))
    assert np.abs(loop - other).max() > 1e-3


@both
def test_a_state_is_a_copy(engine):
    job = rich_job()
    backend = engine(job)
    held = backend.state()
    held["weights"][:] = 0
    np.testing.assert_array_equal(backend.state()["weights"], job.initial)
    backend.load_state(held)
    held["weights"][:] = 1
    assert not backend.state()["weights"].any()


# ── evaluation ────────────────────────────────────────────────────────────────────────


@pytest.mark.some(8)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("layers", [*LAYERS.values(), RICH], ids=[*LAYERS, "rich"])
def test_logits_equal_the_module_in_evaluation(layers, engine):
    job = make_job(layers, m=4, n=300, dropout_rate=np.full(4, 0.5))  # 300: not a whole number of blocks
    backend = engine(job)
    backend.advance(make_window(job, [6, 6], lr=0.01))
    weights = backend.state()["weights"]
    rows = np.random.default_rng(5).integers(0, 300, (4, 270)).astype(np.int32)
    shared, gathered = backend.logits(job.pool), backend.logits(job.pool, rows)
    assert shared.shape == (4, 300, CLASSES)
    assert gathered.shape == (4, 270, CLASSES)
    assert shared.dtype == gathered.dtype == np.float32
    for model in range(4):
        network = Network(job.architecture, 0.5).load_vector(weights[model]).double().eval()
        with torch.no_grad():
            expected = network(torch.tensor(job.pool, dtype=torch.float64)).numpy()
        np.testing.assert_allclose(shared[model], expected, atol=2e-6, rtol=2e-6)
        np.testing.assert_allclose(gathered[model], expected[rows[model]], atol=2e-6, rtol=2e-6)


@both
def test_evaluation_changes_nothing(engine):
    job = rich_job()
    backend = engine(job)
    backend.logits(job.pool)
    other = engine(job)
    window = make_window(job, [6, 6], lr=1e-3)
    assert backend.advance(window).tobytes() == other.advance(window).tobytes()
    assert equal(backend.state(), other.state())
    assert backend.logits(job.pool[:0]).shape == (5, 0, CLASSES)


# ── opening and choosing ──────────────────────────────────────────────────────────────


def test_backends_open_by_name():
    job = make_job(LAYERS["mlp"])
    for name in ("torch_loop", "torch_batched"):
        backend = engines.open_backend(name, job)
        assert backend.name == name
        assert backend.version == f"torch {torch.__version__.split('+')[0]}"


def test_unknown_engines_and_devices_are_refused():
    job = make_job(LAYERS["mlp"])
    with pytest.raises(GridError, match=r"Unknown engine 'torch_bathed'.*Did you mean `torch_batched`\?"):
        engines.open_backend("torch_bathed", job)
    with pytest.raises(GridError, match=r"Engine 'native' runs on 'cpu', not on 'cuda'"):
        engines.open_backend("native", job, "cuda")
    with pytest.raises(GridError, match=r"Unknown device 'cdua'\. Known: cpu, cuda\. Did you mean `cuda`\?"):
        engines.choose(job.architecture, job.loss, job.augmentation, "cdua")


@both
def test_unknown_losses_and_update_rules_are_refused(engine):
    window = make_window(make_job(LAYERS["mlp"]), [4])
    with pytest.raises(ValueError, match=r"Unknown loss 'hinge'\. Known: cross_entropy, mse"):
        engine(make_job(LAYERS["mlp"], loss="hinge")).advance(window)
    with pytest.raises(ValueError, match=r"Unknown optimizer kind 9\. Known: SGD 0, ADAM 1, ADAMW 2, RMSPROP 3"):
        engine(make_job(LAYERS["mlp"], optimizers=make_optimizers(3, kind=9))).advance(window)


def test_the_choice_follows_device_and_layers():
    architecture = make_job(RICH).architecture
    assert engines.choose(architecture, "mse", Augmentation(), "cuda")[0] == "torch_batched"
    name, reason = engines.choose(architecture, "mse", Augmentation(), "cpu")
    assert name in ("native", "torch_batched")
    assert "native" in reason or name == "native"
    strange = dataclasses.replace(architecture.nodes[-2], op="attention")
    unknown = dataclasses.replace(architecture, nodes=(*architecture.nodes[:-2], strange, architecture.nodes[-1]))
    name, reason = engines.choose(unknown, "mse", Augmentation(), "cpu")
    assert name == "torch_loop"
    assert reason.startswith("no batched form of attention; native: ")


@pytest.mark.slow
def test_importing_engines_loads_no_torch():
    code = "import sys, zoo_builder.engines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
