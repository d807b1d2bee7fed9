"""Logits → metrics: exact counts, losses of the textbook, nulls where there is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from zoo_datasets.format import schema
from zoo_datasets.networks import kernels, scoring

C = 4
LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(C)), elements=st.floats(-1e4, 1e4, width=32))


def score(logits: np.ndarray, labels: np.ndarray, loss: str) -> dict[str, Any]:
    """The metrics of one model."""
    [row] = scoring.part_metrics("test", logits[None], labels[None], loss)
    return {name.removeprefix("test_"): value for name, value in row.items()}


def labels_of(logits: np.ndarray) -> np.ndarray:
    return np.arange(len(logits)) * 3 % C


@settings(deadline=None, max_examples=80)
@given(LOGITS)
def test_losses_are_those_of_the_textbook(logits: np.ndarray) -> None:
    labels = labels_of(logits)
    wide = logits.astype(np.float64)
    at = np.arange(len(labels))
    entropy = -special.log_softmax(wide, axis=1)[at, labels]
    np.testing.assert_allclose(scoring.losses(logits, labels, "cross_entropy"), entropy, rtol=1e-12, atol=1e-12)
    squares = ((wide - np.eye(C)[labels]) ** 2).mean(axis=1)
    np.testing.assert_allclose(scoring.losses(logits, labels, "mse"), squares, rtol=1e-12)


def test_golden_loss_bits() -> None:
    logits = np.array([[0.5, -1.25, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]], np.float32)
    found = scoring.losses(logits, np.array([0, 3]), "cross_entropy")
    assert [x.hex() for x in found.tolist()] == ["0x1.5175712b41f81p+1", "0x1.62e42fefa39efp+0"]


def test_counts_are_exact_per_class() -> None:
    logits = np.eye(C, dtype=np.float32)[[0, 0, 1, 2, 2]]
    found = score(logits, np.array([0, 1, 1, 2, 2]), "mse")
    assert found["correct_per_class"] == [1, 1, 2, 0]
    assert found["count_per_class"] == [1, 2, 2, 0]
    assert found["accuracy"] == 4 / 5
    assert found["loss"] == pytest.approx(2 / 4 / 5)
    assert all(type(n) is int for n in found["correct_per_class"])


@settings(deadline=None, max_examples=40)
@given(LOGITS, st.permutations(range(C)))
def test_counts_add_up_and_columns_of_zero_change_nothing_else(logits: np.ndarray, order: list[int]) -> None:
    labels = labels_of(logits)
    found = score(logits, labels, "cross_entropy")
    assert sum(found["count_per_class"]) == len(labels)
    assert found["accuracy"] == sum(found["correct_per_class"]) / len(labels)
    distinct = all(len(set(row)) == C for row in logits.tolist())
    moved = score(logits[:, order], np.argsort(order)[labels], "cross_entropy")
    if distinct:  # a tie goes to the class of the lower number
        assert moved["accuracy"] == found["accuracy"]
    assert moved["loss"] == pytest.approx(found["loss"], rel=1e-12, abs=1e-300)


def test_a_tie_goes_to_the_lower_class() -> None:
    assert score(np.zeros((2, 3), np.float32), np.array([0, 1]), "mse")["correct_per_class"] == [1, 0, 0]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_nothing_to_score_is_null(loss: str) -> None:
    found = score(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), loss)
    assert found == {"loss": None, "accuracy": None, "correct_per_class": [0, 0, 0], "count_per_class": [0, 0, 0]}


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_never_right_and_leave_no_loss(loss: str, bad: float) -> None:
    logits = np.array([[bad, 0.0, 0.0], [3.0, 0.0, 0.0]], np.float32)
    found = score(logits, np.array([0, 0]), loss)
    assert found["correct_per_class"] == [1, 0, 0]
    if not (loss == "cross_entropy" and bad == -np.inf):
        assert found["loss"] is None


def test_an_infinite_loss_is_no_loss() -> None:
    logits = np.array([[-np.inf, 0.0]], np.float32)
    assert score(logits, np.array([0]), "cross_entropy")["loss"] is None


def test_logits_of_any_size_overflow_nothing() -> None:
    logits = np.array([[3e38, -3e38, 0.0]], np.float32)
    assert score(logits, np.array([0]), "cross_entropy")["loss"] == 0.0
    assert score(logits, np.array([1]), "cross_entropy")["loss"] == pytest.approx(6e38)
    assert np.isfinite(score(logits, np.array([1]), "mse")["loss"])


def test_attack_success_is_the_share_of_the_target_among_other_classes() -> None:
    logits = np.eye(3, dtype=np.float32)[[1, 1, 1, 0, 2]]
    assert scoring.attack_success(logits, np.array([1, 0, 2, 0, 2]), 1) == 0.5
    assert scoring.attack_success(logits[:1], np.array([1]), 1) is None
    assert scoring.attack_success(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 1) is None


def test_a_diverged_model_has_no_attack_success() -> None:
    assert scoring.attack_success(np.full((4, 3), np.nan, np.float32), np.ones(4, int), 0) == 0.0  # argmax of NaN is 0
    assert scoring.attack_success(np.array([[0, np.inf, 0]], np.float32), np.zeros(1, int), 1) == 0.0


def test_metrics_of_a_part_have_the_names_of_the_format() -> None:
    logits, labels = np.eye(3, dtype=np.float32)[None], np.array([[0, 1, 1]])
    [row] = scoring.part_metrics("train", logits, labels, "mse", np.array([[0, 1, 2]]))
    row |= scoring.part_metrics("validation", logits[:, :0], labels[:, :0], "mse")[0]
    row |= scoring.part_metrics("test", logits[:, :2], labels[:, :2], "mse")[0]
    row |= scoring.gaps(row) | {"attack_success": None}
    assert set(row) == {c.name for c in schema.METRICS}
    assert (row["train_accuracy"], row["train_accuracy_clean"], row["test_accuracy"]) == (2 / 3, 1.0, 1.0)
    assert (row["gap_accuracy"], row["gap_loss"]) == (2 / 3 - 1.0, row["train_loss"])
    assert scoring.gaps(row | {"test_loss": None}) == {"gap_accuracy": 2 / 3 - 1.0, "gap_loss": None}


@pytest.mark.some(2)
@pytest.mark.skipif(kernels.missing() is not None, reason=str(kernels.missing()))
@pytest.mark.parametrize("path", kernels._kernels.paths() if kernels.missing() is None else [])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_build_of_the_kernels_has_the_bits_of_numpy(
    path: str, loss: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, n, classes = (data.draw(st.integers(1, most)) for most in (3, 200, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = rng.normal(size=(models, n, classes)) * 10.0 ** rng.uniform(-3, data.draw(st.sampled_from([1, 3, 37])))
    logits = logits.astype(np.float32)
    odd = rng.random(logits.shape) < data.draw(st.sampled_from([0.0, 0.001, 0.1]))
    logits[odd] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45], odd.sum())
    labels = rng.integers(0, classes, (data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, models])), n))
    monkeypatch.setenv(kernels.PATH_VARIABLE, path)
    with np.errstate(all="ignore"):
        expected = scoring.scored_in_numpy(logits, labels, loss)
    found = scoring.scored(logits, labels, loss)
    np.testing.assert_array_equal(found.correct, expected.correct)
    finite = np.isfinite(expected.loss)  # the sign of NaN is no promise
    np.testing.assert_array_equal(np.isfinite(found.loss), finite)
    np.testing.assert_array_equal(found.loss[finite].view(np.int64), expected.loss[finite].view(np.int64))


@pytest.mark.skipif(kernels.missing() is not None, reason=str(kernels.missing()))
def test_the_kernels_refuse_labels_and_shapes_that_lead_outside() -> None:
    logits, losses, correct = np.zeros((2, 3, 4), np.float32), np.empty((1, 2)), np.empty((1, 2, 4), np.int64)
    for labels, message in (
        (np.full((1, 1, 3), 4), "label out of range"),
        (np.full((1, 1, 3), -1), "label out of range"),
        (np.zeros((1, 1, 2), np.int64), "wrong shape of labels"),
        (np.zeros((1, 3, 3), np.int64), "wrong shape of logits or labels"),
        (np.zeros((2, 1, 3), np.int64), "wrong shape of losses"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.score(logits, labels, "mse", losses, correct)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_of_sequences_every_step_counts(models: int, n: int, steps: int, seed: int, own: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(models, n, steps * C)).astype(np.float32)
    labels = rng.integers(0, C, (models if own else 1, n, steps))
    found = scoring.part_metrics("test", logits, labels, "cross_entropy", labels)
    wanted = scoring.part_metrics(
        "test",
        logits.reshape(models, n * steps, C),
        labels.reshape(len(labels), -1),
        "cross_entropy",
        labels.reshape(len(labels), -1),
    )
    assert found == wanted


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_values_of_sequences_are_scored_by_their_squares(models: int, n: int, steps: int, seed: int, own: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(models, n, steps * C)).astype(np.float32)
    values = rng.integers(0, 2, (models if own else 1, n, steps, C)).astype(np.uint8)
    for m, row in enumerate(scoring.part_metrics("test", logits, values, "mse", values)):
        apart = logits[m].reshape(n, steps, C).astype(np.float64) - values[m if own else 0]
        right = (np.abs(apart) < 0.5).sum(axis=(0, 1))
        assert row["test_correct_per_class"] == right.tolist()
        assert row["test_count_per_class"] == [n * steps] * C
        assert row["test_loss"] == (pytest.approx((apart**2).mean()) if n else None)
        assert row["test_accuracy"] == row["test_accuracy_clean"] == (right.sum() / apart.size if n else None)
    if n and not own:
        broken = logits.copy()
        broken[0, 0, 0] = np.nan
        assert scoring.part_metrics("test", broken, values, "mse")[0]["test_loss"] is None
