"""A row of `models`, or a run's settings → the source its model learned, and the data axes that spoilt it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_datasets.sources.examples import Subset
from zoo_datasets.sources.fields import from_row
from zoo_datasets.sources.spec import SourceSpec


def spec_of(row: Mapping[str, Any]) -> SourceSpec:
    """The source that a row of `models` names."""
    return from_row(SourceSpec, row)


def subset_of(row: Mapping[str, Any]) -> Subset:
    """The data axes that a row of `models` names."""
    return from_row(Subset, row)
