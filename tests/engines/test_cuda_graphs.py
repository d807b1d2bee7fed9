"""What a recorded step reads, writes and leaves alone: the bookkeeping around CUDA graphs, without CUDA."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cohorts import RICH, cut, equal, make_job, make_optimizers, make_window, rich_job
from recorders import Again

from zoo_builder import grid
from zoo_builder.engines import gpu_memory, graphs, torch_batched
from zoo_builder.engines.contract import ADAM, SGD
from zoo_builder.engines.torch_batched import TorchBatched
from zoo_datasets.errors import GridError

ROOT = Path(__file__).parents[2]


def test_a_graph_copies_what_it_is_given_and_shows_no_trial():
    state = [torch.zeros(3)]

    def step(given: dict[str, torch.Tensor]) -> torch.Tensor:
        state[0] += given["x"] * given["rate"]
        return state[0].sum()

    given = {"x": torch.ones(3), "rate": torch.tensor(2.0)}
    recorder = Again()
    graph = graphs.Graph(step, given, state, recorder)
    assert torch.equal(state[0], torch.zeros(3))  # as before the trials
    given["x"] += 100  # the caller's memory is not the graph's
    first = graph({"x": torch.full((3,), 1.0), "rate": torch.tensor(2.0)})
    assert torch.equal(state[0], torch.full((3,), 2.0))
    assert float(first) == 6
    second = graph({"x": torch.full((3,), 3.0), "rate": torch.tensor(1.0)})
    assert float(second) == 15
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(given["x"], torch.full((3,), 101.0))  # nor is the graph's the caller's
    assert (recorder.trials, recorder.recordings, recorder.replays) == (1, 1, 2)


@pytest.mark.parametrize("augmented", [True, False], ids=["augmented", "plain"])
@pytest.mark.slow
def test_recorded_training_is_training(augmented):
    """Dropout, batch norm, augmentation, schedules, mixed rules and a short last batch: bit for bit."""
    changes = {} if augmented else {"augmentation": dataclasses.replace(rich_job().augmentation, shift=0)}
    job = rich_job(**changes)
    window = make_window(job, [6] * 10 + [3], lr=1e-3 * np.linspace(1, 0.1, 11))
    plain, recorder = TorchBatched(job), Again()
    recorded = TorchBatched(job, recorder=recorder)
    assert recorded.advance(window).tobytes() == plain.advance(window).tobytes()
    assert equal(recorded.state(), plain.state())
    assert (recorder.recordings, recorder.replays) == (1, 10)  # the one short batch is not worth a recording


def test_windows_go_on_with_the_recording_of_the_first():
    job, recorder = make_job(RICH, m=4), Again()
    window = make_window(job, [6] * 20, lr=0.01)
    whole, parts = TorchBatched(job), TorchBatched(job, recorder=recorder)
    losses = whole.advance(window)
    found = [parts.advance(cut(window, *steps)) for steps in ((0, 9), (9, 10), (10, 20))]
    assert np.concatenate(found, 1).tobytes() == losses.tobytes()
    assert equal(parts.state(), whole.state())
    assert (recorder.recordings, recorder.replays) == (1, 20)


def test_short_windows_are_not_recorded():
    job, recorder = make_job(RICH, m=2), Again()
    TorchBatched(job, recorder=recorder).advance(make_window(job, [6] * (torch_batched.GRAPH_STEPS - 1)))
    assert recorder.recordings == 0


@pytest.mark.slow
def test_few_inactive_models_cost_no_recording_and_keep_every_bit():
    job = rich_job(6)
    window = make_window(job, [6] * 8, lr=1e-3)
    backend, recorder = TorchBatched(job, recorder=(recorder := Again())), recorder
    backend.advance(window)
    before = backend.state()
    active = np.array([True, False, True, True, True, False])
    losses = backend.advance(dataclasses.replace(window, first_step=8, active=active))
    after = backend.state()
    assert recorder.recordings == 1
    assert np.isnan(losses[~active]).all()
    assert np.isfinite(losses[active]).all()
    assert equal({k: v[~active] for k, v in after.items()}, {k: v[~active] for k, v in before.items()})
    assert (after["weights"][active] != before["weights"][active]).any(1).all()
    # Who is left is not slowed down by those who are gone.
    few = np.array([True, False, False, False, False, False])
    backend.advance(dataclasses.replace(window, first_step=16, active=few))
    assert recorder.recordings == 2
    ended = backend.state()
    assert equal({k: v[1:] for k, v in ended.items()}, {k: v[1:] for k, v in after.items()})


@pytest.mark.slow
def test_a_resumed_recording_gives_the_same_bits():
    job = rich_job()
    window = make_window(job, [6] * 18, lr=1e-3)
    whole = TorchBatched(job, recorder=Again())
    whole.advance(window)
    first, second = TorchBatched(job, recorder=Again()), TorchBatched(job, recorder=Again())
    first.advance(cut(window, 0, 9))
    second.load_state(first.state())
    second.advance(cut(window, 9, 18))
    assert equal(second.state(), whole.state())


# ── memory ────────────────────────────────────────────────────────────────────────────


def test_width_follows_from_memory():
    job = make_job("small-cnn", (1, 28, 28), m=1)
    each = gpu_memory.per_model(job.architecture, 32)
    assert 2e5 < each < 2e7
    assert gpu_memory.per_model(job.architecture, 64) > 1.5 * each
    for models in (1, 2, 3, 64, 100):
        fitting = gpu_memory.width(job.architecture, 32, gpu_memory.SHARE * models * each)
        assert fitting == 2 ** int(np.log2(models))
    assert gpu_memory.width(job.architecture, 32, 10**15) == gpu_memory.MOST_MODELS
    with pytest.raises(
        GridError, match=r"One model takes .* of the GPU in batches of 32, and a worker has .*, a quarter"
    ):
        gpu_memory.width(job.architecture, 32, gpu_memory.SHARE * each - 1)


def test_planned_memory_covers_what_a_gpu_measured(monkeypatch):
    """Each further model of the widest cohorts took no more than planned, and at least a third of it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from workloads import WORKLOADS

    for entry in json.loads((ROOT / "benchmarks/results/gpu.json").read_text())["rates"]:
        w = WORKLOADS[entry["workload"]]
        peaks = {
            o["side_by_side"]: o["side_by_side"] * o["bytes_per_model"]
            for o in entry["ours"]
            if o["graphs"] and o["models"] == o["side_by_side"]
        }
        (few, less), (many, more) = sorted(peaks.items())[-2:]
        measured, planned = (more - less) / (many - few), gpu_memory.per_model(w.architecture, w.batch)
        assert planned / 3 < measured <= planned, (entry["workload"], measured, planned)


@pytest.mark.slow
def test_a_model_too_large_for_the_gpu_is_refused_by_the_plan(make_plan, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a plan for a cluster, whose GPUs this machine does not ask for
    assert len(make_plan(device="cuda").runs) == 16
    monkeypatch.setattr(gpu_memory, "total", lambda: 4000)
    with pytest.raises(GridError, match=r"One model takes .* of the GPU in batches of 32, and a worker has 1\.0 kB"):
        make_plan(device="cuda")


def test_a_cohort_on_a_gpu_is_as_large_as_a_gpu_wants(tmp_path):
    (tmp_path / "grid.yaml").write_text("zoo: a/b\n")
    usual = grid.load(tmp_path / "grid.yaml")
    assert (usual.cohort_size_on("cpu"), usual.cohort_size_on("cuda")) == (16, 1024)
    (tmp_path / "grid.yaml").write_text("zoo: a/b\ncohort_size: 7\n")
    said = grid.load(tmp_path / "grid.yaml")
    assert (said.cohort_size_on("cpu"), said.cohort_size_on("cuda")) == (7, 7)


def test_optimizers_of_one_cohort_are_recorded_together():
    kinds = [SGD, ADAM, SGD, ADAM]
    job = make_job("mlp", (1, 4, 4), m=4, optimizers=make_optimizers(4, kind=kinds, momentum=0.5))
    window, recorder = make_window(job, [8] * 9, lr=1e-2), Again()
    plain, recorded = TorchBatched(job), TorchBatched(job, recorder=recorder)
    assert recorded.advance(window).tobytes() == plain.advance(window).tobytes()
    assert equal(recorded.state(), plain.state())
    assert recorder.recordings == 1
