"""A zoo of this format, committed: what it was must be readable, checkable and retrainable for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo_builder import verify
from zoo_datasets import open_zoo
from zoo_datasets.networks import kernels

GOLDEN = Path(__file__).parents[1] / "golden" / "weightzoo" / "golden"


@pytest.mark.slow
def test_the_golden_zoo_is_what_was_sealed() -> None:
    report = verify.verify(GOLDEN)
    assert (report.problems, report.warnings) == ([], [])
    assert any("initializations: 8 recomputed" in line for line in report.lines)


@pytest.mark.skipif(kernels.missing() is not None, reason="the golden zoo's bits are the native engine's")
@pytest.mark.slow
def test_the_golden_zoo_is_retrained_bit_for_bit() -> None:
    report = verify.verify(GOLDEN, retrain=8)
    assert report.problems == []
    assert any("retrained, bit for bit" in line for line in report.lines)


def test_the_golden_zoo_opens_and_its_networks_give_their_stored_accuracy() -> None:
    zoo = open_zoo(GOLDEN)
    assert zoo.weights.shape == (24, 218)
    row = zoo.models.slice(0, 1).to_pylist()[0]
    assert zoo.load_model(row["model_id"]).training is False
    assert zoo.evaluate().largest("accuracy") <= 1 / 40  # of 40 test images, one at a tie
