"""Which inputs and labels a model's metrics are measured on."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_datasets import sources
from zoo_datasets.sources import Source, SourceSpec, Subset
from zoo_datasets.sources.measured import attack_of, measured

SHRUNK = Subset(classes=(8, 2, 5), relabel=True)


@pytest.fixture(scope="module")
def digits() -> Source:
    return sources.load(SourceSpec("digits", train=100, validation=0, test=60))


def test_a_full_head_is_shown_the_whole_part(digits: Source) -> None:
    shown = measured(digits, "test", Subset(classes=(1, 2)), 10)  # classes it did not learn count too
    np.testing.assert_array_equal(shown.inputs, digits.scaled(digits.test.inputs))
    np.testing.assert_array_equal(shown.labels, digits.test.labels)


def test_a_shrunk_head_is_shown_its_own_classes_by_their_places(digits: Source) -> None:
    shown = measured(digits, "test", SHRUNK, 3)
    known = np.isin(digits.test.labels, (8, 2, 5))
    np.testing.assert_array_equal(np.array([8, 2, 5])[shown.labels], digits.test.labels[known])
    np.testing.assert_array_equal(shown.inputs, digits.scaled(digits.test.inputs[known]))


def test_a_head_with_fewer_classes_than_another_source_is_not_asked_for_them(digits: Source) -> None:
    shown = measured(digits, "test", Subset(), 4)
    assert set(shown.labels.tolist()) == {0, 1, 2, 3}
    assert len(shown.inputs) == len(shown.labels)


def test_an_attack_shows_the_same_inputs_with_the_trigger_on(digits: Source) -> None:
    subset = Subset(trigger_frac=0.1, trigger_target=3, trigger_size=2)
    plain, attack = measured(digits, "test", subset, 10), measured(digits, "test", subset, 10, triggered=True)
    np.testing.assert_array_equal(attack.labels, plain.labels)
    np.testing.assert_array_equal(attack.inputs, digits.scaled(sources.stamp(digits.test.inputs, subset, digits.peak)))
    assert (attack.inputs != plain.inputs).any()


def test_an_empty_part_is_shown_as_nothing(digits: Source) -> None:
    shown = measured(digits, "validation", Subset(), 10)
    assert shown.inputs.shape == (0, 1, 8, 8)
    assert len(shown.labels) == 0


def test_a_target_is_a_class_of_the_head() -> None:
    assert attack_of(Subset()) is None
    assert attack_of(Subset(trigger_frac=0.1, trigger_target=3)) == (3, None)
    assert attack_of(Subset(classes=(8, 2, 5), relabel=True, trigger_frac=0.1, trigger_target=5)) == (2, None)
    one_to_one = Subset(classes=(8, 2, 5), relabel=True, trigger_frac=0.1, trigger_target=5, trigger_source=8)
    assert attack_of(one_to_one) == (2, 0)
