"""Metrics against their references."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from zoo_datasets import metrics

small = st.lists(st.integers(-3, 3), min_size=2, max_size=40)  # few values: many ties


@given(data=st.data(), a=small)
@settings(max_examples=150, deadline=None)
def test_kendall_is_scipys_tau_b_with_any_ties(data: st.DataObject, a: list[int]) -> None:
    b = data.draw(st.lists(st.integers(-3, 3), min_size=len(a), max_size=len(a)))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(metrics.kendall(np.array(a), np.array(b)))
    else:
        assert metrics.kendall(np.array(a), np.array(b)) == pytest.approx(kendalltau(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("n", [1000, 30_001])
def test_kendall_is_scipys_on_long_arrays(n: int) -> None:
    rng = np.random.default_rng(n)
    y = rng.normal(size=n)
    for prediction in (y + rng.normal(size=n), np.round(y, 1), -y, rng.normal(size=n)):
        assert metrics.kendall(y, prediction) == pytest.approx(kendalltau(y, prediction).statistic, abs=1e-12)


def test_perfect_and_reversed_orders_are_one_and_minus_one() -> None:
    y = np.arange(7)
    assert metrics.kendall(y, y**3) == 1.0
    assert metrics.kendall(y, -y) == -1.0


def test_r2_is_against_the_baseline_that_is_given() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(1, 1, 50)
    prediction = y + rng.normal(0, 0.3, 50)
    assert metrics.r2(y, prediction) == pytest.approx(r2_score(y, prediction))
    assert metrics.r2(y, np.full(50, 0.2), baseline=0.2) == pytest.approx(0.0)
    assert metrics.r2(y, prediction, baseline=0.0) == pytest.approx(1 - ((y - prediction) ** 2).sum() / (y**2).sum())
    assert math.isnan(metrics.r2(np.ones(5), np.ones(5)))


@given(data=st.data(), y=st.lists(st.integers(0, 1), min_size=2, max_size=30).filter(lambda v: len(set(v)) == 2))
@settings(max_examples=60, deadline=None)
def test_auc_is_scikit_learns_with_ties(data: st.DataObject, y: list[int]) -> None:
    score = data.draw(st.lists(st.integers(0, 5), min_size=len(y), max_size=len(y)))
    assert metrics.auc(np.array(y), np.array(score)) == pytest.approx(roc_auc_score(y, score))


def test_accuracies_count_labels_of_any_type() -> None:
    y = np.array(["adam", "adam", "adam", "sgd"])
    prediction = np.array(["adam", "adam", "sgd", "sgd"])
    assert metrics.accuracy(y, prediction) == 0.75
    assert metrics.balanced_accuracy(y, prediction) == pytest.approx(balanced_accuracy_score(y, prediction))
    # A class that is only predicted is no class of y.
    assert metrics.balanced_accuracy(np.array([0, 0]), np.array([0, 1])) == 0.5


def test_errors_keep_their_unit_and_sign() -> None:
    assert metrics.mae(np.array([1.0, 2.0]), np.array([2.0, 0.0])) == 1.5
    assert metrics.difference(np.array([1.0, 2.0]), np.array([2.0, 0.0])) == -0.5


def test_metrics_load_no_torch_scipy_or_scikit_learn() -> None:
    code = "import sys, zoo_datasets.metrics; print([m for m in ('torch', 'scipy', 'sklearn') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_input_that_cannot_be_scored_says_why() -> None:
    with pytest.raises(ValueError, match=r"y has shape \(3,\), the prediction \(2,\)"):
        metrics.mae(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.accuracy(np.zeros(0), np.zeros(0))
    for y, said in (([0, 1], ["0", "1"]), ([0.0, np.nan], [0.0, 1.0]), (["a", None], ["a", "b"])):
        with pytest.raises(ValueError, match=r"text and numbers are never equal|missing values"):
            metrics.accuracy(np.array(y), np.array(said))
        with pytest.raises(ValueError, match=r"text and numbers are never equal|missing values"):
            metrics.balanced_accuracy(np.array(y), np.array(said))
    with pytest.raises(ValueError, match="1 of 2 values of the prediction are not finite"):
        metrics.r2(np.zeros(2), np.array([np.nan, 1]))
    with pytest.raises(ValueError, match=r"auc takes labels 0 and 1, got 0.0, 2.0"):
        metrics.auc(np.array([0, 2]), np.zeros(2))


@pytest.mark.parametrize("n", [5, 100, 299])
@pytest.mark.parametrize("value", [0.1, 1e-30, 1e12, -0.3])
def test_r2_of_equal_targets_is_none_whatever_rounding_leaves_of_their_spread(n: int, value: float) -> None:
    """The mean of a hundred times 0.1 is not 0.1."""
    y = np.full(n, value)
    assert math.isnan(metrics.r2(y, y * 1.1))
    assert math.isnan(metrics.r2(y, y * 1.1, float(y.mean())))
    assert math.isfinite(metrics.r2(y + np.arange(n) * abs(value) * 1e-9, y * 1.1))
