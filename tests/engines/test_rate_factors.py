"""Learning rates of single tensors: every engine does what torch.optim does with a group of parameters for each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from cohorts import BASE_LR, RICH, RULES, cut, equal, make_job, make_optimizers, make_window
from test_cuda_graphs import Again
from torch import nn

from zoo_builder.engines.contract import Backend, Job, Optimizers, Window
from zoo_builder.engines.native import NativeBackend
from zoo_builder.engines.torch_batched import TorchBatched
from zoo_builder.engines.torch_loop import TorchLoop
from zoo_datasets.networks import kernels
from zoo_datasets.networks.modules import Network


def recorded(job: Job) -> TorchBatched:
    """As on a GPU, where steps are recorded."""
    return TorchBatched(job, recorder=Again())


ENGINES: dict[str, Any] = {"torch_loop": TorchLoop, "torch_batched": TorchBatched, "recorded": recorded}
if kernels.missing() is None:
    ENGINES["native"] = NativeBackend
every = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
STEPS = 9


def job_of(layers: Any = RICH) -> tuple[Job, Window]:
    """A cohort of every rule, each tensor of each model with a factor of its own."""
    m = len(RULES)
    vectors = {f.name: getattr(make_optimizers(m), f.name) for f in dataclasses.fields(Optimizers)}
    for model, (kind, settings, _) in enumerate(RULES.values()):
        for name, value in ({"kind": kind} | settings).items():
            vectors[name][model] = value
    job = make_job(layers, m=m, optimizers=Optimizers(**vectors))
    factors = np.random.default_rng(3).choice([0.25, 0.5, 1.0, 2.0, 3.0], (m, len(job.architecture.layout)))
    lr = np.array([BASE_LR[kind] for kind, _, _ in RULES.values()])[:, None] * np.linspace(1, 0.5, STEPS)
    return dataclasses.replace(job, rate_factors=factors), make_window(job, [8] * STEPS, lr=lr)


def by_torch(job: Job, window: Window, model: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (P,) after the window by torch.optim in float64, and where they are parameters."""
    assert job.rate_factors is not None
    network = Network(job.architecture).load_vector(job.initial[model]).double()
    made = list(RULES.values())[model]
    clip = made[1].get("clip_norm")
    tensors = dict(network.named_parameters())
    factor = dict(zip((e.name for e in job.architecture.layout), job.rate_factors[model], strict=True))
    optimizer = made[2](network.parameters())
    default = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    optimizer.param_groups = []
    for name, tensor in tensors.items():
        optimizer.add_param_group(
            {**default, "params": [tensor], "weight_decay": default["weight_decay"] / factor[name]}
        )
    for t in range(STEPS):
        rows, targets = (getattr(window, k)[model, 8 * t : 8 * t + 8] for k in ("rows", "targets"))
        for group, name in zip(optimizer.param_groups, tensors, strict=True):
            group["lr"] = window.lr[model, t] * factor[name]
        optimizer.zero_grad()
        logits = network(torch.tensor(job.pool[rows], dtype=torch.float64))
        nn.functional.cross_entropy(logits, torch.tensor(targets, dtype=torch.int64)).backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
    vector = np.concatenate([network.state_dict()[e.name].numpy().ravel() for e in job.architecture.layout])
    return vector, ~job.architecture.layout.buffer_mask()


@every
@pytest.mark.slow
def test_factors_are_torch_optims_groups_of_parameters(engine: Any) -> None:
    # Without batch norm: a bias before it has no gradient but rounding.
    layers = [
        {"conv": 4},
        "activation",
        {"conv": 3},
        "activation",
        "flatten",
        {"linear": 6},
        "activation",
        {"linear": "classes"},
    ]
    job, window = job_of(layers)
    backend = engine(job)
    backend.advance(window)
    weights = backend.state()["weights"]
    for model, name in enumerate(RULES):
        expected, of = by_torch(job, window, model)
        distance = np.abs(weights[model] - expected)[of].max()
        assert distance < 1e-5, name
        assert distance < 0.01 * np.abs(expected - job.initial[model])[of].max(), f"{name} hardly moved"


@every
@pytest.mark.slow
def test_factors_of_one_change_no_bit(engine: Any) -> None:
    job, window = job_of()
    plain, ones = (
        dataclasses.replace(job, rate_factors=None),
        dataclasses.replace(job, rate_factors=np.ones_like(job.rate_factors)),
    )
    a, b, c = engine(plain), engine(ones), engine(job)
    for backend in (a, b, c):
        backend.advance(window)
    assert equal(a.state(), b.state())
    assert not equal(a.state(), c.state())


@every
@pytest.mark.slow
def test_factors_keep_resumption_and_running_statistics(engine: Any) -> None:
    job, window = job_of()
    whole: Backend = engine(job)
    whole.advance(window)
    first, second = engine(job), engine(job)
    first.advance(cut(window, 0, 4))
    second.load_state(first.state())
    second.advance(cut(window, 4, STEPS))
    assert equal(second.state(), whole.state())
    buffers = job.architecture.layout.buffer_mask()
    assert not whole.state()["slot1"][:, buffers].any()
    frozen = dataclasses.replace(window, lr=np.zeros_like(window.lr))
    runs = [engine(j) for j in (job, dataclasses.replace(job, rate_factors=None))]
    for backend in runs:
        backend.advance(frozen)
    assert runs[0].state()["weights"][:, buffers].tobytes() == runs[1].state()["weights"][:, buffers].tobytes()


@pytest.mark.skipif(kernels.missing() is not None, reason="no native engine")
@pytest.mark.parametrize(
    ("factors", "pieces", "message"),
    [
        ([[1.0, 0.0]], [0, 1, -1], "above 0"), ([[1.0, np.nan]], [0, 1, -1], "above 0"), ([[1.0, 1.0]], [0, -1], "wrong shape of pieces"),
        ([[1.0, 1.0]], [1, 2, -1], "fill the vector"), ([[1.0, 1.0]], [0, 1, 2], "fill the vector"),
        ([[1.0, 1.0, 1.0]], [0, 9, 5, -1], "follow one another"), ([[1.0], [1.0]], [0, -1], "wrong shape of factors"),
    ],
)  # fmt: skip
def test_kernels_refuse_factors_that_do_not_fit(factors: list[list[float]], pieces: list[int], message: str) -> None:
    job = make_job(["flatten", {"linear": "classes"}], m=1)
    backend = NativeBackend(job)
    ends = [job.architecture.n_params if p == -1 else p for p in pieces]
    backend._factors = {"factors": np.array(factors), "pieces": np.array(ends, np.int64)}
    with pytest.raises(ValueError, match=message):
        backend.advance(make_window(job, [4]))
