"""Float64 functions with the same bits on every machine: + − × ÷ √ and bit operations only.

`pow`, `exp`, `log` and `cos` of C libraries, and of NumPy's vector code, differ between
machines in their last bits. What a zoo records (initial weights, learning rates, metrics)
is computed with these instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


def power(base: np.ndarray | float, exponent: int) -> Float64[np.ndarray, " ..."] | np.float64:
    """base**exponent for a whole exponent ≥ 0, by squaring."""
    result, square = np.ones_like(np.asarray(base, np.float64)), np.asarray(base, np.float64)
    while exponent:
        if exponent & 1:
            result = result * square
        exponent >>= 1
        if exponent:  # the square after the last is not needed, and may overflow
            square = square * square
    return result


def cosine_half(x: float) -> float:
    """cos(πx) for x in [0, 1], by its Taylor series about the nearer end of a quarter turn."""
    if x > 0.5:
        return -cosine_half(1.0 - x)
    angle = math.pi * x
    z, term, total = -angle * angle, 1.0, 1.0
    for k in range(1, 14):  # (π/2)²⁶/26! < 4e-22
        term *= z / ((2 * k - 1) * (2 * k))
        total += term
    return total


def log(x: Float[np.ndarray, " *shape"]) -> Float64[np.ndarray, " *shape"]:
    """Natural logarithm of finite x > 0, error below 1e-15 relative: 2·artanh((m − 1)/(m + 1)) + e·ln 2."""
    m, e = np.frexp(x)
    small = m < math.sqrt(0.5)
    m, e = np.where(small, m * 2.0, m), e - small
    t = (m - 1.0) / (m + 1.0)  # |t| ≤ 0.1716
    t2, series = t * t, np.zeros_like(t)
    for k in range(21, 0, -2):  # t²²/23 < 1e-18
        series = series * t2 + 1.0 / k
    result: np.ndarray = 2.0 * t * series + e * (LN2_HIGH + LN2_LOW)
    return result


def exp(x: Float64[np.ndarray, " *shape"]) -> Float64[np.ndarray, " *shape"]:
    """e**x for x ≤ 0, error below 1e-15 relative; 0 below −700, NaN stays NaN."""
    clipped = np.maximum(x, -700.0)
    n = np.rint(clipped * (1.0 / math.log(2.0)))
    r = (clipped - n * LN2_HIGH) - n * LN2_LOW  # |r| ≤ 0.347
    series = np.ones_like(r)
    for k in range(13, 0, -1):  # 0.347¹⁴/14! < 5e-18; in place, which takes half the time
        series *= r
        series *= 1.0 / k
        series += 1.0
    power = ((np.nan_to_num(n).astype(np.int64) + 1023) << 52).view(np.float64)  # 2ⁿ by its bits
    with np.errstate(invalid="ignore"):
        return np.where(x < -700.0, 0.0, series * power)


def total(values: Float[np.ndarray, " ..."], axis: int = -1) -> Any:
    """The float64 sum along an axis from left to right, a number of a vector; `np.sum` picks an order by CPU and layout."""
    if values.shape[axis] == 0:
        return np.zeros(np.delete(values.shape, axis))
    return np.take(np.cumsum(values, axis=axis, dtype=np.float64), -1, axis=axis)
