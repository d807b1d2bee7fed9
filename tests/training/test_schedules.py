"""Numbers per step, whatever the windows: the bias corrections of Adam."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from zoo_builder.training.schedules import BLOCK, BiasCorrections


def run_of(updates: int = 0, **betas: float | None) -> Any:
    return types.SimpleNamespace(settings=betas, start=types.SimpleNamespace(updates=updates) if updates else None)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999999])
def test_a_power_is_one_running_product_in_any_window(beta: float) -> None:
    whole = 1.0 - np.multiply.accumulate(np.full(5 * BLOCK, beta))
    run = run_of(beta1=beta, beta2=None)
    corrections = BiasCorrections()
    for first, count in ((0, 1), (1, BLOCK), (4 * BLOCK, 7), (BLOCK - 3, 3 * BLOCK), (0, 5 * BLOCK), (17, 1)):
        found = corrections(run, first, count)
        assert found[0].tolist() == whole[first : first + count].tolist()
        assert found[1].tolist() == [1.0] * count
    behind = BiasCorrections()(run_of(updates=BLOCK, beta1=beta, beta2=beta), 5, 10)
    assert behind.tolist() == [whole[BLOCK + 5 :][:10].tolist()] * 2


def test_a_step_after_a_long_training_holds_no_step_before_it() -> None:
    corrections = BiasCorrections()
    assert corrections(run_of(beta1=0.9, beta2=0.999), 3_000_000, 2)[0].tolist() == [1.0, 1.0]
    assert sum(map(len, corrections.ends.values())) < 10_000
