"""What the default run takes of the tests marked `some(n)`."""

from __future__ import annotations

import types
from typing import Any

import pytest
from conftest import pytest_collection_modifyitems

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
    pytest_collection_modifyitems(cases)  # type: ignore[arg-type]
    taken = [c.callspec.params for c in cases if "slow" not in c.marks]
    assert len(taken) == min(n, 15)
    for name, values in (("layers", LAYERS), ("engine", ENGINES)):
        assert sum(any(t[name] is v for t in taken) for v in values) == min(n, len(values))
