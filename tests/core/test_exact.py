"""Float64 functions: the same bits everywhere (golden), and right to the last few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_datasets.core import exact


def test_golden_bits_of_every_function() -> None:
    assert [float(v).hex() for v in exact.log(np.array([0.1, 2.0, 3.7e10]))] == [
        "-0x1.26bb1bbb55515p+1", "0x1.62e42fefa39efp-1", "0x1.8558d10f358afp+4",
    ]  # fmt: skip
    assert [float(v).hex() for v in exact.exp(np.array([-0.1, -2.0, -345.6]))] == [
        "0x1.cf46d99d52b3ap-1", "0x1.152aaa3bf81ccp-3", "0x1.52df10f35391fp-499",
    ]  # fmt: skip
    assert exact.cosine_half(0.3).hex() == "0x1.2cf2304755a60p-1"
    assert float(exact.power(0.999, 1000)).hex() == "0x1.788526411edacp-2"


@settings(deadline=None, max_examples=200)
@given(st.floats(min_value=5e-324, max_value=1.7e308))
def test_log_is_within_1e15_of_the_c_library(x: float) -> None:
    assert exact.log(np.array([x]))[0] == pytest.approx(math.log(x), rel=1e-15, abs=0)


@settings(deadline=None, max_examples=200)
@given(st.floats(-700, 0))
def test_exp_is_within_1e15_of_the_c_library(x: float) -> None:
    assert exact.exp(np.array([x]))[0] == pytest.approx(math.exp(x), rel=1e-15, abs=0)


def test_exp_ends_in_zero_one_and_nan() -> None:
    found = exact.exp(np.array([0.0, -0.0, -700.1, -np.inf, np.nan]))
    np.testing.assert_array_equal(found, [1.0, 1.0, 0.0, 0.0, np.nan])


def test_cosine_of_half_turns() -> None:
    for x in np.linspace(0, 1, 101):
        assert exact.cosine_half(float(x)) == pytest.approx(math.cos(math.pi * x), abs=1e-15)
    assert [exact.cosine_half(x) for x in (0.0, 1.0)] == [1.0, -1.0]


@settings(deadline=None, max_examples=100)
@given(st.floats(0.01, 2), st.integers(0, 900))
def test_power_squares(base: float, exponent: int) -> None:
    # Each of at most 2 log₂ n products rounds once, and the squares double what they carry.
    assert float(exact.power(base, exponent)) == pytest.approx(base**exponent, rel=2.3e-16 * (exponent + 1))


def test_power_does_not_overflow_in_a_square_it_does_not_need() -> None:
    assert float(exact.power(10.0, 300)) == pytest.approx(1e300)
    assert float(exact.power(0.0, 0)) == 1.0
    np.testing.assert_array_equal(exact.power(np.array([2.0, 3.0]), 3), [8.0, 27.0])


def test_total_adds_from_left_to_right() -> None:
    # 1 + 1e16 rounds to 1e16, and − 1e16 leaves 0; any other order gives 1.
    assert exact.total(np.array([1.0, 1e16, -1e16])) == 0.0
    values = np.array([[1.0, 1e16, -1e16], [1e16, -1e16, 1.0]])
    np.testing.assert_array_equal(exact.total(values, axis=1), [0.0, 1.0])
    np.testing.assert_array_equal(exact.total(np.asfortranarray(values), axis=1), [0.0, 1.0])
    np.testing.assert_array_equal(exact.total(np.ones((2, 3), np.float32), axis=0), [2.0, 2.0, 2.0])


def test_total_of_nothing_is_zero() -> None:
    assert exact.total(np.zeros(0)) == 0.0
    assert exact.total(np.zeros((4, 0))).shape == (4,)
    np.testing.assert_array_equal(exact.total(np.zeros((0, 3)), axis=0), [0.0, 0.0, 0.0])
