"""What the default run takes of the tests marked `some(n)`, and of the examples of a property."""

from __future__ import annotations

import types
from typing import Any

import hypothesis
import pytest
from conftest import take_some
from hypothesis import strategies

LAYERS, ENGINES = [[], {}, "conv", 3.0, None], ["loop", ["batched"], 3]


class Case:
    """What the choice looks at of a collected test."""

    def __init__(self, layers: Any, engine: Any, n: int) -> None:
        self.nodeid = f"test_x[{layers}-{engine}]"
        self.callspec = types.SimpleNamespace(params={"layers": layers, "engine": engine})
        self.marks = {"some": pytest.mark.some(n).mark}

    def get_closest_marker(self, name: str) -> Any:
        return self.marks.get(name)

    def add_marker(self, mark: Any) -> None:
        self.marks[mark.name] = mark


@pytest.mark.parametrize("n", [2, 5, 99])
def test_as_many_values_occur_as_can_and_the_other_cases_are_slow(n: int) -> None:
    cases = [Case(layers, engine, n) for layers in LAYERS for engine in ENGINES]
    take_some(cases)  # type: ignore[arg-type]
    taken = [c.callspec.params for c in cases if "slow" not in c.marks]
    assert len(taken) == min(n, 15)
    for name, values in (("layers", LAYERS), ("engine", ENGINES)):
        assert sum(any(t[name] is v for t in taken) for v in values) == min(n, len(values))


@hypothesis.settings(max_examples=50)
@hypothesis.given(strategies.just(0))
def test_a_property_is_tried_on_a_fifth_of_its_examples(zero: int) -> None:
    """Or on all that were asked for, under the profile that CI gives."""
    here = test_a_property_is_tried_on_a_fifth_of_its_examples
    every = hypothesis.settings.get_current_profile_name() == "all"
    assert here._hypothesis_internal_use_settings.max_examples == (50 if every else 10)


def test_a_property_is_marked(request: pytest.FixtureRequest) -> None:
    of = [i for i in request.session.items if i.name == test_a_property_is_tried_on_a_fifth_of_its_examples.__name__]
    assert [i.get_closest_marker("property") is not None for i in of] in ([], [True])  # [] where it is not asked for
