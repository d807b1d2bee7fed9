"""What the kernels refuse: a plan whose numbers do not follow from each other, before any buffer is made."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_datasets.networks import kernels

if kernels.missing() is not None:
    pytest.skip(str(kernels.missing()), allow_module_level=True)

import native_cases as cases

# op, in (c, h, w), out (c, h, w), kernel, stride, padding, number, weight: 1×8×8 → pool → flat → 10 classes.
POOL = [1, 1, 8, 8, 1, 4, 4, 2, 2, 0, 0, 0]
FLATTEN = [7, 1, 4, 4, 16, 1, 1, 0, 1, 0, 1, 0]
ADD = [16, 16, 1, 1, 16, 1, 1, 0, 1, 0, 0, 0]  # to what the first layer gives: no such shape
LINEAR = [4, 16, 1, 1, 10, 1, 1, 0, 1, 0, 2, 0]


def made(rows: list[list[int]], n_params: int = 170, loss: int = 0, rate: float = -1.0) -> object:
    module = kernels._kernels
    rates = [rate] * len(rows)
    return module.Kernels(
        module.paths()[0], rows, rates, False, n_params, loss, (1e-5, 0.1, 0.01), (0, 0, False), [], []
    )


def changed(row: list[int], **changes: int) -> list[int]:
    names = ("op", "in_c", "in_h", "in_w", "out_c", "out_h", "out_w", "kernel", "stride", "pad", "number", "weight")
    return [changes.get(name, value) for name, value in zip(names, row, strict=True)]


def test_a_sound_plan_is_taken() -> None:
    assert made([POOL, FLATTEN, LINEAR]) is not None
    assert made([POOL, FLATTEN, changed(ADD, number=1), changed(LINEAR, number=3)]) is not None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([changed(POOL, kernel=9), FLATTEN, LINEAR], r"layer 1 of the plan: its window does not fit"),
        ([changed(POOL, kernel=3000, stride=1), FLATTEN, LINEAR], r"layer 1 .*its window does not fit"),
        ([changed(POOL, stride=1_000_000), FLATTEN, LINEAR], r"layer 1 .*its output has another shape"),
        ([changed(POOL, kernel=0), FLATTEN, LINEAR], r"layer 1 .*impossible"),
        ([changed(POOL, pad=1), FLATTEN, LINEAR], r"pooling knows no padding"),
        ([changed(POOL, op=22), FLATTEN, LINEAR], r"no such operation"),
        ([POOL, FLATTEN, ADD, changed(LINEAR, number=3)], r"layer 3 .*it adds values of another shape"),
        ([POOL, FLATTEN, changed(ADD, number=2), changed(LINEAR, number=3)], r"layer 3 .*no layer before gives"),
        ([POOL, FLATTEN, changed(ADD, number=-2), changed(LINEAR, number=3)], r"layer 3 .*no layer before gives"),
        ([changed(POOL, op=-1), FLATTEN, LINEAR], r"no such operation"),
        ([changed(POOL, in_h=2**24 + 1), FLATTEN, LINEAR], r"empty or too large"),
        ([changed(POOL, out_w=0), FLATTEN, LINEAR], r"empty or too large"),
        ([POOL, changed(FLATTEN, out_c=17), LINEAR], r"layer 2 .*its output has another shape"),
        ([POOL, FLATTEN, changed(LINEAR, in_c=17)], r"layer 3 .*does not take what the layer before gives"),
        ([POOL, FLATTEN, changed(LINEAR, weight=1)], r"its weights lie outside the vector"),
        ([POOL, FLATTEN, changed(LINEAR, weight=2**62)], r"its weights lie outside the vector"),
        ([POOL, FLATTEN, changed(LINEAR, weight=-1)], r"its weights lie outside the vector"),
        ([POOL], r"one value a class"),
        (
            [POOL, FLATTEN, [1, 16, 1, 1, 16, 1, 1, 1, 1, 0, 2, 0], changed(LINEAR, number=3)],
            r"layer 3 .*rows and columns",
        ),
        ([changed(POOL, in_c=2**40), FLATTEN, LINEAR], r"does not fit an int"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(rows)


def test_a_loss_or_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no such loss"):
        made([POOL, FLATTEN, LINEAR], loss=7)
    for rate in (1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="no such rate"):
            made([POOL, FLATTEN, LINEAR], rate=rate)


@pytest.mark.slow
def test_random_plans_run_or_are_refused() -> None:
    counts = cases.try_plans(kernels._kernels, kernels._kernels.paths(), rounds=4000)
    assert counts["sound"] == 1000
    assert counts["refused"] > 2000
    assert counts["ran"] > 50, "a change of what a layer does not read is no reason to refuse"


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="wrong shape of weights"):
        made([POOL, FLATTEN, LINEAR]).evaluate(
            np.zeros((1, 169), np.float32), np.zeros((3, 64), np.float32), None, np.zeros((1, 3, 10), np.float32)
        )
