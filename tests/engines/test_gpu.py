"""`torch_batched` on a GPU keeps the promises of `contract.Backend`, and agrees with `torch_loop` on the CPU.

`benchmarks/gpu.py` runs what is marked `gpu`. The same tests run on a CPU (slow), so that they are tests.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cohorts import BASE_LR, LAYERS, RICH, RULES, cut, equal, make_job, make_optimizers, make_window, rich_job

from zoo_builder.engines import gpu_memory
from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Job, Optimizers
from zoo_builder.engines.torch_batched import TorchBatched
from zoo_builder.engines.torch_loop import TorchLoop
from zoo_datasets.errors import BuildError
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.operations.registry import ACTIVATIONS

STEPS = 30
# Between engines after 30 steps, as `benchmarks/agreement.py` found for networks without batch norm, with room for a
# division whose divisor is about 0 (Adam, RMSprop); share of the weights that may be farther.
NEAR, FAR, MOST_FAR = 1e-5, 1e-3, 0.005

pytestmark = pytest.mark.slow


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def agrees(job: Job, device: str, lr: float | np.ndarray = 1e-2, batch: int = 8) -> TorchBatched:
    """Thirty steps and the evaluation after them, as the reference takes them."""
    window = make_window(job, [batch] * (STEPS - 1) + [3], lr=lr)
    ours, reference = TorchBatched(job, device), TorchLoop(job)
    losses, expected = ours.advance(window), reference.advance(window)
    np.testing.assert_allclose(losses, expected, rtol=2e-3, atol=1e-4)
    a, b = ours.state()["weights"], reference.state()["weights"]
    distance = np.abs(a - b)
    assert (distance > NEAR).mean() <= MOST_FAR
    assert distance.max() <= FAR
    assert np.abs(b - job.initial).max() > 30 * NEAR  # they were trained
    rows = np.random.default_rng(3).integers(0, len(job.pool), (job.n_models, 21)).astype(np.int32)
    for shown in ((job.pool,), (job.pool, rows)):
        np.testing.assert_allclose(ours.logits(*shown), reference.logits(*shown), atol=5e-3)
    return ours


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_every_layer(layers, device):
    agrees(make_job(layers, dropout_rate=np.array([0.5, 0.0, 0.1])), device)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation, device):
    agrees(make_job(LAYERS["max_pool"], activation=activation), device)


@pytest.mark.parametrize("preset", ["small-cnn", "small-cnn-gap", "mlp"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_presets_and_losses(preset, loss, device):
    agrees(make_job(preset, (1, 28, 28), m=5, loss=loss, dropout_rate=np.full(5, 0.2)), device)


@pytest.mark.parametrize("layers", ["mlp", "gap", "max_pool"])
def test_every_update_rule_in_one_cohort(layers, device):
    m = len(RULES)
    vectors = {f.name: getattr(make_optimizers(m), f.name) for f in dataclasses.fields(Optimizers)}
    for model, (kind, settings, _) in enumerate(RULES.values()):
        for name, value in ({"kind": kind} | settings).items():
            vectors[name][model] = value
    rates = np.array([BASE_LR[kind] for kind, *_ in RULES.values()])[:, None] * np.linspace(1, 0.2, STEPS)
    job = make_job(LAYERS[layers], m=m, optimizers=Optimizers(**vectors))
    agrees(job, device, lr=rates)
    factors = np.random.default_rng(3).choice([0.25, 1.0, 2.0], (m, len(job.architecture.layout)))
    agrees(dataclasses.replace(job, rate_factors=factors), device, lr=rates)


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(shift=2, fill=(-0.5, 0.25)), Augmentation(crop=1, flip=True, noise=(0.2, 0.1), fill=(1.0, -1.0))],
    ids=["shift", "crop, flip, noise"],
)
def test_augmentation(augmentation, device):
    agrees(make_job(LAYERS["max_pool"], augmentation=augmentation), device)


@pytest.mark.parametrize("layers", ["small-cnn", "small-cnn-gap", "mlp", RICH, *LAYERS.values()], ids=str)
def test_the_same_cohort_twice_and_step_by_step_gives_the_same_bits(layers, device):
    shape = (1, 28, 28) if isinstance(layers, str) else (2, 8, 8)
    job = make_job(
        layers, shape, m=6, dropout_rate=np.full(6, 0.2), optimizers=make_optimizers(6, kind=[ADAM, SGD] * 3)
    )
    window = make_window(job, [8] * 12 + [3], lr=1e-3)
    first, second, stepped = (TorchBatched(job, device) for _ in range(3))
    losses = first.advance(window)  # on a GPU twelve steps by graph, the last as it is
    assert losses.tobytes() == second.advance(window).tobytes()
    assert equal(first.state(), second.state())
    assert first.logits(job.pool).tobytes() == second.logits(job.pool).tobytes()
    for j in range(13):  # a window of one step takes no graph
        stepped.advance(cut(window, j, j + 1))
    assert equal(stepped.state(), first.state())


def test_models_that_stop_until_one_is_left(device):
    """Fewer than half are graphs of their own, and the last ones' are gone by then."""
    job = make_job(LAYERS["max_pool"], m=6)
    ours, reference = TorchBatched(job, device), TorchLoop(job)
    for first, left in ((0, 6), (10, 2), (20, 1)):
        active = np.arange(6) < left
        window = make_window(job, [8] * 10, lr=1e-2, first_step=first, active=active)
        for engine in (ours, reference):
            engine.advance(window)
    np.testing.assert_allclose(ours.state()["weights"], reference.state()["weights"], atol=NEAR)


def test_a_resumed_checkpoint_gives_the_same_bits(device):
    job = rich_job(6)
    window = make_window(job, [6] * 20, lr=1e-3)
    whole, first, second = (TorchBatched(job, device) for _ in range(3))
    whole.advance(window)
    first.advance(cut(window, 0, 9))
    second.load_state(first.state())
    second.advance(cut(window, 9, 20))
    assert equal(second.state(), whole.state())


@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW, RMSPROP])
def test_a_diverging_neighbor_changes_no_bit(kind, device):
    seen = []
    for lr in (1e-3, 1e20):
        optimizers = make_optimizers(5, kind=[kind, SGD, kind, ADAM, SGD], clip_norm=[np.inf, 1, 1, 1, 1])
        job = rich_job(optimizers=optimizers)
        backend, rates = TorchBatched(job, device), np.full((5, 1), 1e-3)
        rates[2] = lr
        losses = backend.advance(make_window(job, [6] * 10 + [5], lr=rates))
        seen.append([losses, *backend.state().values(), backend.logits(job.pool)])
    assert not np.isfinite(seen[1][1][2]).all()
    for quiet, loud in zip(*seen, strict=True):
        assert quiet[[0, 1, 3, 4]].tobytes() == loud[[0, 1, 3, 4]].tobytes()


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.empty_cache()
    return "cuda"


@pytest.mark.gpu
def test_a_gpu_that_others_fill_is_said_before_training(cuda):
    job = make_job("small-cnn", (1, 28, 28), m=256)
    free, _ = torch.cuda.mem_get_info()
    needed = 256 * gpu_memory.per_model(job.architecture, job.batch_size) + 256 * 4 * 8 * job.architecture.n_params
    others = [torch.empty(free - needed + 2**26, dtype=torch.uint8, device=cuda)]
    # What this process holds itself counts as others', once it is in use.
    with pytest.raises(
        BuildError, match=r"256 models, 256 of them side by side, take .* other programs leave .* End them, or lower"
    ):
        TorchBatched(job, cuda)
    del others
    torch.cuda.empty_cache()
    TorchBatched(job, cuda)


@pytest.mark.gpu
def test_memory_that_runs_out_while_training_is_said(cuda):
    job = make_job("small-cnn", (1, 28, 28), m=256)
    backend = TorchBatched(job, cuda)
    _, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / whole)
    try:
        with pytest.raises(
            BuildError, match=r"The GPU's memory ran out while a cohort trained: .* finished cohorts are kept"
        ):
            backend.advance(make_window(job, [8] * 10))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("active", [[1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0]], ids=["most active", "one active"])
def test_inactive_models_keep_every_bit(active, device):
    job, active = rich_job(6), np.array(active, bool)
    backend = TorchBatched(job, device)
    window = make_window(job, [6] * 10, lr=1e-3)
    backend.advance(window)
    before = backend.state()
    losses = backend.advance(dataclasses.replace(window, first_step=10, active=active))
    after = backend.state()
    assert np.isnan(losses[~active]).all()
    assert np.isfinite(losses[active]).all()
    assert equal({k: v[~active] for k, v in after.items()}, {k: v[~active] for k, v in before.items()})
    assert (after["weights"][active] != before["weights"][active]).any(1).all()
