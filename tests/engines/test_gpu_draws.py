"""What a GPU draws has the bits of what the CPU draws: emulated on a CPU here, on a GPU where there is one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cohorts import cut, equal, make_window, rich_job
from emulated_gpu import Emulator
from recorders import Again

from zoo_builder.engines.torch_batched import TorchBatched
from zoo_datasets.core import streams
from zoo_datasets.networks import augment
from zoo_datasets.networks.augmentation import Augmentation, Distortion
from zoo_datasets.networks.gpu import draws

KEYS = tuple(f"{i + 3:032x}" for i in range(3))
COLORS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
WARP = Distortion(translate=3, rotate=15, zoom=0.1, shear=3)
FILL = (-2.0, -1.5, -1.0)
CASES = {
    "shift": Augmentation(shift=2, fill=FILL),
    "crop and flip": Augmentation(crop=2, flip=True),
    "warp": Augmentation(fill=FILL, distortion=WARP),
    "brightness": Augmentation(distortion=Distortion(brightness=0.2, **COLORS)),
    "contrast": Augmentation(distortion=Distortion(contrast=(0.5, 1.5), **COLORS)),
    "tint": Augmentation(distortion=Distortion(hue=0.08, saturation=(0.3, 1.5), **COLORS)),
    "noise within a distortion": Augmentation(distortion=Distortion(noise=0.03, **COLORS)),
    "noise of each channel": Augmentation(noise=(0.1, 0.0, 2.0)),
    "all": Augmentation(
        shift=1, crop=1, flip=True, fill=FILL, noise=(0.1, 0.2, 0.3),
        distortion=dataclasses.replace(WARP, brightness=0.2, contrast=(0.5, 1.5), hue=0.08, saturation=(0.3, 1.5), noise=0.03, **COLORS),
    ),
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> torch.device:
    """Where kernels run. On a CPU they are emulated."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.param == "cpu":
        monkeypatch.setattr(draws, "compiler", Emulator.here(tmp_path_factory))
    return torch.device(request.param)


def drawn(
    a: Augmentation, shape: tuple[int, ...], step: int, batch: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """A batch of each network by the kernels, and by NumPy."""
    generator = np.random.default_rng(5)
    pool = generator.standard_normal((30, *shape)).astype(np.float32)
    rows = generator.integers(0, len(pool), (len(KEYS), batch))
    at = torch.tensor([7, step], device=device)[1:]  # as a window gives it: one of many
    images = draws.Images(a, draws.keys(KEYS, device), shape)
    made = images(torch.from_numpy(pool).to(device), torch.from_numpy(rows).to(device), at)
    return made.cpu().numpy(), np.stack([augment.apply(pool[r], a, k, step) for r, k in zip(rows, KEYS, strict=True)])


@pytest.mark.parametrize(
    "shape", [(3, 9, 7), (3, 32, 32)], ids=["odd sides", "a block of threads takes several pixels"]
)
@pytest.mark.parametrize("case", CASES)
def test_images_have_the_bits_of_the_definition(case, shape, device):
    batch = 4 if shape[1] < 32 else 2
    got, wanted = drawn(CASES[case], shape, 2**33 + 5, batch, device)
    assert got.shape == wanted.shape
    assert got.astype(np.float32).tobytes() == wanted.astype(np.float32).tobytes()
    assert drawn(CASES[case], shape, 6, batch, device)[0].tobytes() != got.tobytes()  # a step draws anew


def test_one_channel_and_one_fill_for_all(device):
    grey = dataclasses.replace(CASES["shift"], fill=(0.5,), noise=(0.1,), distortion=WARP)
    for channels in (1, 2):
        got, wanted = drawn(grey, (channels, 8, 8), 3, 4, device)
        assert got.astype(np.float32).tobytes() == wanted.astype(np.float32).tobytes()


@pytest.mark.parametrize("noise", [(0.5,), tuple(np.linspace(0, 3, 21).tolist())], ids=["one", "each its own"])
def test_flat_input_takes_noise_alone(noise, device):
    a = Augmentation(noise=noise, fill=(1.0,) * len(noise))
    got, wanted = drawn(a, (21,), 3, 5, device)
    assert got.tobytes() == wanted.astype(np.float32).tobytes()
    moved = dataclasses.replace(a, shift=2, flip=True, distortion=WARP)
    assert drawn(moved, (21,), 3, 5, device)[0].tobytes() == got.tobytes()


@pytest.mark.parametrize(
    "shape", [(5,), (16,), (3, 7, 5), (20, 9, 11)], ids=str
)  # the last takes several blocks of threads
def test_dropout_keeps_what_the_definition_keeps(shape, device):
    rates, layer, step = np.array([0.0, 0.3, 0.999]), 4, 2**33 + 1
    got = draws.Dropout(layer, shape, draws.keys(KEYS, device), rates)(6, torch.tensor([step], device=device))
    for m, rate in enumerate(rates.tolist()):
        units = int(np.prod(shape))
        keep = streams.dropout_keep(KEYS[m], rate, step, layer, 6, units)
        wanted = (keep * np.float32(1 / (1 - rate))).reshape(6, *shape)
        assert got[m].cpu().numpy().tobytes() == wanted.astype(np.float32).tobytes()


def test_a_cohort_that_draws_itself_trains_the_same_networks(device):
    """A CPU that is told its draws, and one whose kernels draw them: the same bits, whole and in parts."""
    if device.type == "cuda":
        pytest.skip("compares two ways of one CPU; `test_gpu.py` compares a GPU with the reference")
    job = rich_job(4, augmentation=Augmentation(shift=1, fill=(0, 0), noise=(0.1, 0.2)))
    # Rows may lie in memory in any order: what is sent to the device is its own.
    job = dataclasses.replace(job, pool=np.ascontiguousarray(job.pool.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
    window = make_window(job, [6] * 10 + [3], lr=1e-3)
    told, drawing, parts = TorchBatched(job), TorchBatched(job, drawing=True), TorchBatched(job, drawing=True)
    recorded = TorchBatched(job, recorder=Again(), drawing=True)
    losses = told.advance(window)
    for engine in (drawing, recorded):
        assert losses.tobytes() == engine.advance(window).tobytes()
        assert equal(told.state(), engine.state())
    for j in range(11):
        parts.advance(cut(window, j, j + 1))
    assert equal(parts.state(), told.state())
