"""A field of `SourceSpec` or `Subset` ↔ its column in `models`.

What a recipe says of the data of a model stands once, in the fields of these two: each names its
column, which is the bare name of the recipe's setting too. So a run's settings and a row of the
metadata give the same value by the same function, and no list of names is kept beside it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from zoo_datasets import errors

T = TypeVar("T")


def column(name: str, default: Any, *, later: bool = False, names: bool = False) -> Any:
    """A field of this column.

    `later`: it came after the first zoos, and is absent at its default. `names`: its numbers are names, of a class or a
    draw; 3 lies no nearer to 4 than to 40.
    """
    return dataclasses.field(default=default, metadata={"column": name, "later": later, "names": names})


def columns_of(kind: type[Any]) -> tuple[str, ...]:
    """The columns of all fields."""
    return tuple(f.metadata["column"] for f in dataclasses.fields(kind))


def names_in(kind: type[Any]) -> frozenset[str]:
    """The columns whose numbers are names."""
    return frozenset(f.metadata["column"] for f in dataclasses.fields(kind) if f.metadata["names"])


def from_row(kind: type[T], row: Mapping[str, Any]) -> T:
    """What a row of `models`, or the settings of a run, say of it; null is a field's default."""
    values = {}
    for field, name, later in _places(kind):  # type: ignore[arg-type]
        if name not in row and not later:
            raise errors.ZooError(
                f"The zoo has no column `{name}`: it does not say on what data its models were trained, which an "
                "imported one may not know. Its weights, statistics and columns can be read all the same."
            )
        value = row.get(name)
        if value is not None:
            values[field] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


@functools.cache  # asked for once per model
def _places(kind: type[Any]) -> tuple[tuple[str, str, bool], ...]:
    return tuple((f.name, f.metadata["column"], f.metadata["later"]) for f in dataclasses.fields(kind))


def given(value: Any) -> dict[str, Any]:
    """All fields by name, those that came later where they say something: what a manifest keeps."""
    return {
        f.name: getattr(value, f.name)
        for f in dataclasses.fields(value)
        if not f.metadata["later"] or getattr(value, f.name) != f.default
    }
