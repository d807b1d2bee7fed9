"""A recipe's columns → numbers: what the hyper-parameters alone say.

In:  an Arrow table of settings. Out: a matrix of numbers, whose columns are fixed by the training rows.

Positive numbers whose levels span a factor of 50 are logarithms, other numbers stand as they are, all else is one-hot,
numbers that are names of something too. Null is a level: of a setting that is off or one number, it tells which.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zoo_datasets.core import streams
from zoo_datasets.core.arrow import floats_of
from zoo_datasets.sources.rows import NAMES

LOG_RANGE = 50.0


class Design:
    """How the columns of training rows become numbers."""

    def __init__(self, recipe: pa.Table) -> None:
        self.numbers: list[tuple[str, bool]] = []
        self.levels: list[tuple[str, tuple[str, ...]]] = []
        for name in recipe.column_names:
            kind = recipe[name].type
            if (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and name not in NAMES:
                values = _numbers(recipe, name)
                seen = values[np.isfinite(values)]
                if len(seen) and len(np.unique(seen)) + (len(seen) < len(values)) > 1:
                    self.numbers.append((name, bool(seen.min() > 0 and seen.max() / seen.min() > LOG_RANGE)))
            else:
                found = tuple(sorted(set(_labels(recipe, name))))
                if 1 < len(found) <= len(recipe) // 2:  # a level of its own for each network says nothing of others
                    self.levels.append((name, found))

    def __call__(self, recipe: pa.Table) -> np.ndarray:
        """(n, columns) float64; a number that is null, or a level never seen, is 0 with a column that says so."""
        columns = []
        for name, logarithm in self.numbers:
            values = _numbers(recipe, name)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.log10(values) if logarithm else values
            missing = ~np.isfinite(values)
            columns += [np.where(missing, 0.0, values), missing.astype(float)]
        for name, levels in self.levels:
            labels = np.array(_labels(recipe, name), object)
            columns += [(labels == level).astype(float) for level in levels]
        return np.stack(columns, 1) if columns else np.zeros((len(recipe), 0))


def _numbers(recipe: pa.Table, name: str) -> np.ndarray:
    return floats_of(recipe[name])


def _labels(recipe: pa.Table, name: str) -> list[str]:
    return [streams.level_json(v) for v in recipe[name].to_pylist()]
