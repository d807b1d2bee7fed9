"""The deep meta-classifier: its published shape, counted by hand; windows; statistics of the batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zoo_datasets.baselines import meta_classifier
from zoo_datasets.baselines.heads import Heads
from zoo_datasets.baselines.interface import Target, Targets
from zoo_datasets.baselines.learning import Learned, Training
from zoo_datasets.baselines.meta_classifier import MetaClassifier, Rows
from zoo_datasets.errors import ZooError


def by_hand(channels: list[int], reaching_the_head: int, outputs: int) -> int:
    """Kernels of five values with a bias, scale and shift of each channel; the fully connected layers with biases."""
    pairs = list(zip([1, *channels[:-1]], channels, strict=True))
    units = [reaching_the_head, 1024, 1024, 1024, 1024, 64, outputs]
    norms = 2 * sum(units[1:-1])  # behind every layer but the last
    return sum(5 * i * o + o + 2 * o for i, o in pairs) + sum(i * o + o for i, o in itertools.pairwise(units)) + norms


SMALL = [8, 16, 32, 64, 128, 256, *[256] * 6]
LARGE = [8, 16, 32, 64, *[128] * 5, 128, 256, *[256] * 4]


@pytest.mark.parametrize(
    ("window", "channels", "reaching"),
    [(5000, SMALL, 19 * 256), (500, SMALL, 15 * 256), (40_000, SMALL, 39 * 256), (40_001, LARGE, 9 * 256), (92_868, LARGE, 22 * 256)],
)  # fmt: skip
def test_both_sizes_have_as_many_parameters_as_counted_by_hand(window: int, channels: list[int], reaching: int) -> None:
    with torch.device("meta"):
        network = MetaClassifier(window, 4)
        assert network(torch.zeros(2, window)).shape == (2, 4)
    assert sum(p.numel() for p in network.parameters()) == by_hand(channels, reaching, 4)


def test_five_thousand_weights_reach_the_head_as_4864_values_by_seven_halvings_and_one() -> None:
    convolutions, halved, length = meta_classifier.stages(5000)
    assert [c for stage in convolutions for c in stage] == SMALL
    assert (sum(halved), length * 256) == (8, 4864)


def test_a_window_goes_through_one_dimensional_layers_though_it_is_laid_out_as_an_image() -> None:
    """The layers as the paper has them, with the same weights."""
    torch.manual_seed(0)
    network, window = MetaClassifier(200, 3).eval(), torch.randn(2, 200)
    found = window[:, None]
    for module in network.convolutions:
        if isinstance(module, torch.nn.Conv2d):
            found = torch.conv1d(found, module.weight[:, :, 0], module.bias, padding=2)
        elif isinstance(module, torch.nn.MaxPool2d):
            found = torch.max_pool1d(found, 2)
        elif isinstance(module, torch.nn.BatchNorm2d):
            found = module(found[:, :, None])[:, :, 0]
        else:
            found = module(found)
    torch.testing.assert_close(network(window), network.head(found), rtol=1e-4, atol=1e-5)


def test_products_of_half_precision_are_near_those_of_full_and_weights_stay_full() -> None:
    torch.manual_seed(0)
    full, half = MetaClassifier(200, 3), MetaClassifier(200, 3, "bfloat16")
    half.load_state_dict(full.state_dict())
    window = torch.randn(4, 200)
    one, other = full.eval()(window), half.eval()(window)
    assert one.dtype == other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 0.05 * one.abs().max()
    half.train()(window).sum().backward()
    assert {p.dtype for p in half.parameters()} == {p.grad.dtype for p in half.parameters()} == {torch.float32}


def test_a_window_that_nothing_is_left_of_is_refused() -> None:
    with pytest.raises(ZooError, match="window of 15 values is too short; the least is 16"):
        meta_classifier.stages(15)


def rows() -> Rows:
    """Two snapshots of 20 and 30 values, the second one read backwards."""
    return Rows(
        [np.arange(20.0, dtype=np.float32), np.arange(30.0, dtype=np.float32)], [np.arange(20), np.arange(30)[::-1]]
    )


def test_a_window_holds_consecutive_values_in_the_order_of_reading() -> None:
    found = rows().window(np.array([0, 1]), np.array([3, 3]), 4)
    assert found.tolist() == [[3, 4, 5, 6], [26, 25, 24, 23]]


def test_values_that_are_not_finite_are_read_as_zero() -> None:
    broken = Rows([np.array([1, np.nan, np.inf, 2], np.float32)], [np.arange(4)])
    assert broken.window(np.array([0]), np.array([0]), 4).tolist() == [[1, 0, 0, 2]]


def test_random_windows_reach_both_ends_and_no_further() -> None:
    own = np.array([0, 1] * 500)
    starts = rows().random(own, 18, np.random.default_rng(0))
    assert (starts[own == 0].min(), starts[own == 0].max(), starts[own == 1].max()) == (0, 2, 12)


def test_spaced_windows_go_from_the_first_to_the_last() -> None:
    assert rows().spaced(np.array([0, 1]), 18, 3).tolist() == [[0, 1, 2], [0, 6, 12]]


def test_an_epoch_meets_every_network_with_a_snapshot_of_its_own() -> None:
    three = Rows([np.full(20, v, np.float32) for v in (0, 1, 2)], [np.arange(20)] * 3)
    read = meta_classifier.drawn(three, [np.array([0, 2]), np.array([1])], 16)
    seen = {tuple(read(np.array([0, 1]), np.random.default_rng(s))[:, 0].tolist()) for s in range(20)}
    assert seen == {(0, 1), (2, 1)}


@pytest.fixture(scope="module")
def learned() -> Learned:
    torch.manual_seed(0)
    heads = Heads(Targets((Target("a", 2), Target("b")), np.array([[0, 1.0], [1, 3.0]])), numbers="mae")
    return Learned(MetaClassifier(16, heads.outputs).eval(), heads, 4)


@pytest.mark.slow
def test_statistics_of_the_batch_depend_on_it_and_leave_the_network_as_it_was(learned: Learned) -> None:
    windows = torch.randn(8, 16, generator=torch.Generator().manual_seed(1)) * 5
    before = {k: v.clone() for k, v in learned.network.state_dict().items()}

    def ask(batch: int, of_the_batch: bool) -> np.ndarray:
        return meta_classifier.ask(learned, lambda at, _: windows[at], 8, batch, of_the_batch)["a"]

    running, four, eight = ask(4, False), ask(4, True), ask(8, True)
    assert np.allclose(running, ask(8, False), atol=1e-6)
    assert np.abs(four - eight).max() > 1e-4
    assert np.abs(four - running).max() > 1e-4
    assert np.allclose(running, ask(4, False), atol=0)
    assert all((before[k] == v).all() for k, v in learned.network.state_dict().items())


def test_numbers_are_learned_by_their_absolute_error(learned: Learned) -> None:
    outputs, values = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 2.0]])  # 2 is the mean, 1 the deviation
    only_b = learned.heads.loss(outputs, values) - torch.log(torch.tensor(2.0))
    assert float(only_b) == pytest.approx(3.0)


def test_the_staircase_ends_at_fifty_stairs_of_five_per_cent() -> None:
    rates = [Training(rate=1.0, schedule="staircase").rate_at(step, 100) for step in (1, 2, 3, 100)]
    assert rates == pytest.approx([1, 1, 0.95, 0.95**49])


def test_a_window_that_is_left_alone_is_asked_with_those_before_it() -> None:
    """Batch norms behind the fully connected layers have no statistics of one."""
    torch.manual_seed(0)
    made = Learned(MetaClassifier(20, 2), Heads(Targets((Target("t", 2),), np.array([[0.0], [1.0]]))), 4)
    windows = torch.randn(5, 20)
    inputs = lambda places, _: windows[places]  # noqa: E731
    together = meta_classifier.ask(made, inputs, 5, 5, batch_statistics=True)
    assert np.array_equal(meta_classifier.ask(made, inputs, 5, 4, batch_statistics=True)["t"], together["t"])
    alone = meta_classifier.ask(made, inputs, 5, 1, batch_statistics=True)["t"]
    assert np.isfinite(alone).all()
