"""The CUDA kernels give PyTorch's convolutions and poolings: emulated on a CPU here, on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from emulated_gpu import Emulator

from zoo_datasets.networks.gpu import convolution

# networks, samples, channels, side, outputs, kernel, stride, padding
SHAPES = {
    "first layer": (2, 5, 1, 9, 3, 3, 1, 0),
    "odd everything": (3, 3, 5, 11, 7, 5, 1, 0),
    "padding": (2, 4, 3, 6, 5, 3, 1, 1),
    "wide padding": (1, 3, 2, 5, 3, 3, 1, 4),
    "stride": (2, 6, 4, 9, 6, 3, 2, 0),
    "stride and padding": (2, 4, 3, 10, 9, 3, 2, 1),
    "stride above the kernel": (2, 3, 2, 11, 3, 2, 3, 0),
    "one by one": (2, 7, 6, 5, 12, 1, 1, 0),
    "even kernel": (2, 33, 6, 4, 4, 2, 1, 0),
    "many channels": (1, 2, 70, 4, 17, 3, 1, 1),  # weights come to shared memory in parts
    "large kernel": (1, 2, 2, 13, 3, 12, 1, 0),  # sums of its gradient are kept by several blocks
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator.here(tmp_path_factory)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where kernels run. On a CPU they are emulated."""
    if request.param == "cpu":
        monkeypatch.setattr(convolution, "compiler", request.getfixturevalue("emulator"))
    elif not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def reference(x, weight, bias, stride, padding):
    """(m, B, C, H, W) in float64, network by network."""
    x = x.double().expand(len(weight), *x.shape[1:])
    pairs = zip(x, weight.double(), bias.double(), strict=True)
    return torch.stack([F.conv2d(one, w, b, stride, padding) for one, w, b in pairs])


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    assert got.shape == wanted.shape
    return bool((got.double() - wanted).norm() <= 1e-6 * wanted.norm())


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["own images", "shared images"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_convolution_and_its_gradients(shape, shared, device):
    m, batch, channels, side, outputs, kernel, stride, padding = shape
    generator = torch.Generator().manual_seed(1)
    normal = lambda *size: torch.randn(size, generator=generator).to(device).requires_grad_()  # noqa: E731
    x, weight = (
        normal(1 if shared else m, batch, channels, side, side + 1),
        normal(m, outputs, channels, kernel, kernel),
    )
    bias = normal(m, outputs)
    got, wanted = convolution.convolve(x, weight, bias, stride, padding), reference(x, weight, bias, stride, padding)
    assert close(got, wanted)
    given = torch.randn(got.shape, generator=generator).to(device)
    ours = torch.autograd.grad(got, (x, weight, bias), given)
    for one, other in zip(ours, torch.autograd.grad(wanted, (x, weight, bias), given.double()), strict=True):
        assert close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2), (2, 3), (1, 1)])
def test_max_pooling_and_its_gradient(kernel, stride, device):
    generator = torch.Generator().manual_seed(2)
    # Few values, so that most windows hold their maximum more than once; and a number that is none.
    x = torch.randint(0, 4, (2, 3, 4, 7, 8), generator=generator).float()
    x[0, 1, 2, 3, 3] = torch.nan
    x = x.to(device).requires_grad_()
    got = convolution.pool(x, kernel, stride, largest=True)
    wanted = F.max_pool2d(x.flatten(0, 1), kernel, stride).unflatten(0, (2, 3))
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.nan_to_num(), wanted.nan_to_num())
    given = torch.randn(got.shape, generator=generator).to(device)
    (ours,), (theirs,) = (torch.autograd.grad(y, x, given) for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
