"""Columns and a metric → η² of each factor's main effect, with an interval over init groups.

η² is the share of the metric's variance between the means of a factor's levels: 0 where the means are equal,
1 where the level says all. Of many numbers (a learning rate drawn at random) the levels are eighths of the models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.core import streams
from zoo_datasets.page.columns import Column, shorter
from zoo_datasets.sources.rows import NAMES

BINS = 8  # of a number with more values than MOST_VALUES
MOST_VALUES = 12
MOST_LEVELS = 50  # a label with more tells models apart rather than settings
MOST_FACTORS = 60  # bootstrapped; a zoo of 200 axes would take a minute


@dataclasses.dataclass(frozen=True)
class Share:
    """What one factor explains of a metric."""

    factor: str
    interval: intervals.Interval
    n_levels: int
    binned: bool
    with_it: tuple[str, ...] = ()  # factors that change where it does: nothing tells their effects apart

    def to_json(self) -> dict[str, Any]:
        return {
            "factor": self.factor, "n_levels": self.n_levels, "binned": self.binned, "with_it": list(self.with_it),
            **self.interval.to_json(),
        }  # fmt: skip


def shares(metric: Column, columns: Sequence[Column], groups: np.ndarray) -> tuple[list[Share], list[str]]:
    """η² of every factor that varies, the largest first; and in words, which have none and why."""
    finite = np.isfinite(metric.values)
    y, group = metric.values[finite], groups[finite]
    missing: list[str] = []
    if len(y) < 2 or (y == y[0]).all():
        return [], [f"No effects of factors: {metric.name} does not vary"]
    factors = [c for c in columns if c.role in ("axis", "factor")]
    if len(factors) > MOST_FACTORS:
        missing.append(f"Effects of {MOST_FACTORS} of {len(factors):,} factors are shown, axes before other settings")
    found: dict[bytes, Share] = {}
    for column in factors[:MOST_FACTORS]:
        levels, binned = _levels(column, finite)
        n_levels = len(np.unique(levels))
        if n_levels < 2:
            continue
        if n_levels > MOST_LEVELS:
            missing.append(
                f"No effect of {shorter(column.name)} is shown: its {n_levels:,} levels tell networks apart rather than settings"
            )
            continue
        same = _partition(levels)
        if same in found:
            found[same] = dataclasses.replace(found[same], with_it=(*found[same].with_it, column.name))
            continue
        share = intervals.eta_squared(y, levels, group)
        if not math.isfinite(share.value):  # the squares of what doubles hold may be beyond them
            missing.append(f"No effect of {shorter(column.name)} is shown: the variance of {metric.name} is no number")
            continue
        found[same] = Share(column.name, share, n_levels, binned)
    return sorted(found.values(), key=lambda s: -s.interval.value), missing


def _partition(levels: np.ndarray) -> bytes:
    """The same for levels that part the models alike, whatever they are called."""
    _, first, code = np.unique(levels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code].astype(np.int32).tobytes()


def _levels(column: Column, finite: np.ndarray) -> tuple[np.ndarray, bool]:
    values = column.values[finite]
    if not column.is_number:
        return values, False
    codes = np.unique(values, return_inverse=True)[1]
    if len(np.unique(codes)) <= MOST_VALUES or column.name in NAMES:  # neighbors among names have nothing in common
        return codes, False
    known = np.isfinite(values)
    edges = np.quantile(values[known], np.linspace(0, 1, BINS + 1)[1:-1])
    return np.where(known, np.searchsorted(edges, values, side="right"), -1), True


def groups_of(names: Sequence[str | None]) -> np.ndarray:
    """Init groups as numbers; a model without one is a group of its own."""
    own = [n if n is not None else streams.canonical_json([i]) for i, n in enumerate(names)]
    return np.unique(np.array(own, object).astype(str), return_inverse=True)[1]
