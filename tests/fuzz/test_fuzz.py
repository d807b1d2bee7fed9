"""Every border for a minute: nothing a stranger supplies costs more than a `ZooError`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.fuzz import harness

if not sys.platform.startswith("linux"):
    pytest.skip("memory of a trial is measured as Linux tells it", allow_module_level=True)

SECONDS = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("border", harness.borders())
def test_hostile_inputs_are_refused_or_held(border: str) -> None:
    tally = harness.run(border, SECONDS)
    assert not tally.broke, "\n\n".join(tally.broke[:3])
    assert tally.trials >= 20, "hardly anything was tried"


@pytest.mark.slow
def test_every_kind_of_break_is_seen() -> None:
    tally = harness.run("_planted", 60.0, trials=5)
    assert (tally.refused, tally.held) == (1, 0)
    for text, expected in zip(
        tally.broke, ("KeyError: 'weights'", r"process \(-9\)", r"held after .* MB", "accepted"), strict=True
    ):
        assert re.search(expected, text), text
