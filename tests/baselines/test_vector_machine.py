"""A support vector machine's probabilities: at a temperature that validation chose, of classes it never saw next to none."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_datasets.baselines.interface import Target
from zoo_datasets.baselines.vector_machine import TEMPERATURES, VectorMachine


def clouds(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of three numbers, (n, 3) and (n,), that overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2.0
    return rng.normal(size=(n, 3)) + 1.5 * y[:, None], y


def machine(classes: int, n: int = 80) -> VectorMachine:
    found = VectorMachine(Target("kind", classes), 1.0, 1.0)
    found.fit(*clouds(n, 0))
    return found


def test_the_temperature_is_the_one_at_which_validation_is_likeliest() -> None:
    x, y = clouds(40, 1)
    found = machine(2)
    losses = []
    for temperature in TEMPERATURES:
        found.temperature = temperature
        losses.append(-np.log(found.predict(x)[np.arange(40), y.astype(int)]).mean())
    found.warm(x, y)
    assert found.temperature == TEMPERATURES[int(np.argmin(losses))]
    assert len(set(losses)) == len(TEMPERATURES)


def test_a_class_that_was_never_seen_is_nearly_impossible() -> None:
    shares = machine(4).predict(clouds(10, 2)[0])
    assert shares.shape == (10, 4)
    assert shares.sum(1) == pytest.approx(np.ones(10))
    assert (shares[:, 2:] < 1e-5).all()
    alone = VectorMachine(Target("kind", 3), 1.0, 1.0)
    x = clouds(10, 0)[0]
    alone.fit(x, np.ones(10))
    assert (alone.predict(x).argmax(1) == 1).all()
    assert (alone.predict(x)[:, 1] > 0.999).all()


def test_numbers_are_foretold_in_their_own_units() -> None:
    x = np.linspace(-1, 1, 60)[:, None]
    found = VectorMachine(Target("lr"), 10.0, 1.0)
    found.fit(x, 1000 + 50 * x[:, 0])
    assert found.predict(x) == pytest.approx(1000 + 50 * x[:, 0], abs=10)
