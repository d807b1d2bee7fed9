"""Targets and inputs → a network: losses, what is left out, what is chosen, the same bits again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic_populations import MLP, random_view, shuffled, size_targets
from torch import nn

from zoo_datasets.baselines.heads import Heads
from zoo_datasets.baselines.interface import MixedLayoutsError, Target, Targets, matrix
from zoo_datasets.baselines.learning import Neural, Standard, Training, learn
from zoo_datasets.errors import ZooError

NUMBER, SHARE, CLASS = Target("n"), Target("s", bounded=True), Target("c", classes=3)


def values(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float64)


@pytest.fixture
def heads() -> Heads:
    """Of a number with mean 2 and deviation 2, a share with mean 0.25, classes counted 1, 0, 2."""
    return Heads(Targets((NUMBER, SHARE, CLASS), values([0, 0.0, 0], [4, 0.5, 2], [math.nan, math.nan, 2])))


def test_an_output_of_zero_predicts_what_training_knows_without_weights(heads: Heads) -> None:
    found = heads.predictions(torch.zeros(1, heads.outputs) + heads.start())
    assert found["n"] == pytest.approx([2.0])
    assert found["s"] == pytest.approx([0.25])
    assert found["c"] == pytest.approx(np.array([[2, 1, 3]]) / 6)  # Laplace's rule


def test_losses_by_hand(heads: Heads) -> None:
    outputs = torch.tensor([[1.0, 0.0, 0.0, 0.0, math.log(2.0)]])
    y = torch.tensor([[6.0, 0.25, 2.0]])
    # ((6 − 2) / 2 − 1)², BCE of a half (ln 2 whatever the label), −ln(2 / 4).
    assert heads.loss(outputs, y).item() == pytest.approx(1.0 + math.log(2) + math.log(2), rel=1e-6)


def test_mean_squared_error_of_a_share_is_in_units_of_its_training_spread() -> None:
    heads = Heads(Targets((SHARE,), values([0.2], [0.4])), "mse")
    assert heads.loss(torch.zeros(1, 1), torch.tensor([[0.3]])).item() == pytest.approx((0.2 / 0.1) ** 2, rel=1e-5)


def test_missing_values_change_neither_loss_nor_gradient(heads: Heads) -> None:
    outputs = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.tensor([[6.0, 0.25, 2.0], [math.nan, math.nan, math.nan]])
    loss = heads.loss(outputs, y)
    loss.backward()
    assert loss.item() == pytest.approx(heads.loss(outputs[:1], y[:1]).item())
    assert outputs.grad is not None
    assert not outputs.grad[1].any()
    assert outputs.grad[0].all()


def test_scores_are_shares_of_what_the_constant_loses(heads: Heads) -> None:
    y = Targets((NUMBER, SHARE, CLASS), values([0, 0.0, 2], [4, 0.5, 2]))
    thirds = np.array([[0, 0.25, 0.75]] * 2)
    found = heads.scores({"n": np.array([1.0, 3.0]), "s": np.array([9.0, 9.0]), "c": thirds}, y)
    assert found == pytest.approx({"n": 1 - 2 / 8, "s": -1.0, "c": 1 - math.log(0.75) / math.log(0.5)})
    assert math.isnan(heads.score({"n": np.array([math.nan, 3.0]), "s": np.zeros(2), "c": thirds}, y))


def test_a_target_without_values_is_one_sentence() -> None:
    with pytest.raises(ZooError, match=r"has a value of s\. Leave this target out"):
        Heads(Targets((NUMBER, SHARE), values([1, math.nan], [2, math.nan])))


def test_standardization_comes_from_training_and_a_giant_stays_finite() -> None:
    rows = np.array([[1.0, 5, 0], [3.0, 5, 0]], np.float32)
    standard = Standard.by_position(rows)
    assert standard(rows).tolist() == [[-1, 0, 0], [1, 0, 0]]
    assert standard(np.array([[1e38, 5.5, -1e38]], np.float32)).tolist() == [[100, 0.5, -100]]
    view = random_view(MLP, (1, 2, 2), 9, 0)
    one = Standard.by_tensor(view.matrix, view.layout.layout)
    for e in view.layout.layout:
        assert len(set(one.scale[e.offset : e.end])) == 1
        sizes = np.sqrt((one(view.matrix)[:, e.offset : e.end] ** 2).mean(1))
        assert np.median(sizes) == pytest.approx(1.0, rel=1e-5)


def inputs_of(x: np.ndarray):
    tensor = torch.from_numpy(x.astype(np.float32))
    return lambda rows, _rng: tensor[rows]


def line(outputs: int, width: int = 0) -> nn.Module:
    return (
        nn.Linear(2, outputs) if not width else nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, outputs))
    )


def problem(seed: int, n: int = 40) -> tuple:
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return inputs_of(x), Targets((NUMBER,), (3 + x[:, :1] - 2 * x[:, 1:]))


@pytest.mark.slow
def test_two_fits_with_one_seed_give_the_same_bits_and_leave_the_callers_generator_alone() -> None:
    train, validation = problem(0), problem(1)
    found = []
    for at, seed in enumerate((7, 7, 8)):
        torch.manual_seed(at)
        expected = torch.rand(1)
        torch.manual_seed(at)
        learned, _ = learn(line, train, validation, Training(epochs=3, batch=8), seed)
        assert torch.rand(1) == expected
        found.append(learned.predict(validation[0], 40)["n"].tobytes())
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_it_learns_a_line_and_the_best_trial_is_learned_in_full() -> None:
    told: list[tuple[int, int]] = []
    trials = [{"rate": 1e-6}, {"rate": 0.1, "width": 3}, {"rate": 0.1}]
    learned, record = learn(
        line,
        problem(0),
        problem(1),
        Training(epochs=30, batch=8),
        0,
        trials,
        lambda done, of, _: told.append((done, of)),
    )
    assert record["rate"] == 0.1
    assert record["score"] > 0.99
    assert [t["rate"] for t in record["trials"]] == [1e-6, 0.1, 0.1]
    assert record["trials"][0]["score"] < 0.1
    assert told == [(i, 60) for i in range(1, 61)]
    assert learned.parameters == (13 if "width" in record else 3)


@pytest.mark.slow
def test_the_best_epoch_is_kept_not_the_last() -> None:
    """The slope of validation is half that of training: learning passes it and goes on."""
    x, y = problem(0)
    other = Targets(y.of, 3 + (y.values - 3) / 2)
    scores: list[float] = []
    learned, record = learn(
        line, (x, y), (x, other), Training(epochs=30, rate=0.1), 0, progress=lambda _d, _o, s: scores.append(s)
    )
    assert record["epoch"] == int(np.argmax(scores)) + 1 < 30
    assert scores[-1] < max(scores) - 0.2
    assert learned.heads.score(learned.predict(x, 40), other) == pytest.approx(max(scores))


def test_shuffled_targets_teach_nothing() -> None:
    x, y = problem(0, 64)
    learned, _ = learn(line, (x, shuffled(y, 0)), problem(1), Training(epochs=10), 0)
    assert learned.heads.score(learned.predict(*(problem(2)[0], 40)), problem(2)[1]) < 0.2


def test_more_than_four_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="5 trials; every baseline has at most 4"):
        learn(line, problem(0), problem(1), Training(), 0, [{"rate": 0.1}] * 5)


def test_training_that_diverged_is_one_sentence() -> None:
    y = problem(0)[1]
    x = inputs_of(np.full((40, 2), np.inf))
    with pytest.raises(ZooError, match="nothing was learned that predicts a finite number"):
        learn(line, (x, y), (x, y), Training(epochs=2), 0)


class Sizes(Neural):
    """The shortest baseline of one's own: the size of a network's weights."""

    name = "sizes"

    def prepare(self, train):
        self.layout = train.layout

    def inputs(self, view):
        return inputs_of(np.log(matrix(view, self.layout).std(1, keepdims=True).repeat(2, 1) + 1e-9))

    def network(self, outputs: int, **options: int) -> nn.Module:
        return line(outputs, 8)


@pytest.mark.slow
def test_a_neural_baseline_learns_all_heads_and_knows_its_layout() -> None:
    view, validation, test = (random_view(MLP, (1, 2, 2), n, n) for n in (64, 40, 30))
    baseline = Sizes(Training(epochs=40, batch=16, rate=0.03))
    with pytest.raises(ZooError, match="sizes has learned nothing yet"):
        baseline.predict(test)
    baseline.fit((view, size_targets(view)), (validation, size_targets(validation)), 1)
    predictions = baseline.predict(test)
    assert {k: v.shape for k, v in predictions.items()} == {"size": (30,), "share": (30,), "third": (30, 3)}
    scores = baseline.learned.heads.scores(predictions, size_targets(test))
    assert scores["size"] > 0.9
    assert scores["share"] > 0.8
    assert scores["third"] > 0.4
    assert baseline.chosen["epochs"] == 40
    assert baseline.parameters == 16 + 8 + 40 + 5
    assert baseline.predict(test.take(np.zeros(0, np.int64)))["third"].shape == (0, 3)
    with pytest.raises(MixedLayoutsError, match="it knows no other"):
        baseline.predict(random_view(MLP, (1, 3, 2), 4, 0))
