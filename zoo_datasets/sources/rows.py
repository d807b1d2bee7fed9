"""A row of `models`, or a run's settings → the source its model learned, and the data axes that spoilt it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zoo_datasets.errors import IntegrityError
from zoo_datasets.sources.fields import from_row, names_in
from zoo_datasets.sources.spec import SourceSpec
from zoo_datasets.sources.subset import Subset

# Columns of whole numbers that are names: of a class, an automaton, a draw. Who counts or predicts takes them as levels.
NAMES = names_in(SourceSpec) | names_in(Subset)


def spec_of(row: Mapping[str, Any]) -> SourceSpec:
    """The source that a row of `models` names."""
    return from_row(SourceSpec, row)


def subset_of(row: Mapping[str, Any]) -> Subset:
    """The data axes that a row of `models` names."""
    return from_row(Subset, row)


def first_of(row: Mapping[str, Any], part: str) -> int | None:
    """How many images of a part, its first, the snapshots before the last were scored on; None for all of them.

    Raises IntegrityError where the schedule in a row of `models` is none.
    """
    if row.get("snapshot_schedule") is None:  # of networks that others trained nobody knows
        return None
    try:
        count = json.loads(row["snapshot_schedule"]).get("evaluation", {}).get(part)
    except (ValueError, AttributeError, TypeError, RecursionError):
        count = -1
    if count is not None and (type(count) is not int or count < 0):
        raise IntegrityError(f"`snapshot_schedule` of model {row['model_id']} is no schedule of snapshots.")
    return count
