"""One population → how much of its Morse graph would be there again.

In:  starts and ends x, y [n, d]; the grid; how often to draw.
Out: how often each structure appears over bootstrap resamples and over resolutions, how
     often each cell is recurrent, and whether networks are grouped alike.

A resample draws whole init groups with replacement; coordinates and box stay those of the
population, so that cells mean the same. Structures are compared by `MorseGraph.form`, equal
for equal orders.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from zoo_datasets.analysis.dynamics import guidance, readings
from zoo_datasets.analysis.dynamics.cubes import MOST_SUBDIVISIONS, Cubes
from zoo_datasets.core import meters, streams


@dataclasses.dataclass(frozen=True)
class Resampled:
    """What n resamples of a population gave."""

    name: str  # of the reading
    forms: tuple[str, ...]  # of each resample
    forms_seen: tuple[str, ...]  # of the Morse sets that touch the data
    sets: np.ndarray  # int64 [n]: Morse sets
    minimal: np.ndarray  # int64 [n]: minimal ones
    recurrent: np.ndarray  # [cells]: share of resamples in which a cell is recurrent
    agreement: np.ndarray  # [n]: adjusted Rand index of the networks' fates with the population's own

    def numbers(self) -> dict[str, Any]:
        return {
            "n": len(self.forms), "forms": frequency(self.forms), "forms_seen": frequency(self.forms_seen),
            "distinct_forms": len(set(self.forms)), "most_frequent_share": frequency(self.forms)[0]["share"],
            "morse_sets": {"median": float(np.median(self.sets)), "least": int(self.sets.min()), "most": int(self.sets.max())},
            "minimal_sets": {str(k): int(n) for k, n in sorted(Counter(self.minimal.tolist()).items())},
            "cells_recurrent_in_all": int((self.recurrent == 1).sum()), "cells_recurrent_in_any": int((self.recurrent > 0).sum()),
            "fate_agreement": {"median": float(np.median(self.agreement)), "least": float(self.agreement.min())},
        }  # fmt: skip


def resample(
    reading: readings.Reading, groups: np.ndarray, settings: readings.Settings, n: int = 20, seed: int = 0
) -> Resampled:
    """Read n bootstrap resamples of the networks in `groups` [len(x)] on the reading's own grid."""
    from sklearn.metrics import adjusted_rand_score

    x, y, cubes = reading.x, reading.y, reading.graph.cubes
    fates = guidance.fates(reading, x)
    rng = streams.generator("resample", seed)
    names, member = np.unique(groups, return_inverse=True)
    draws = []
    for _ in meters.over(range(n), f"resamples of the reading {reading.name}", "resamples"):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        rows = np.repeat(np.arange(len(x)), times[member])
        one = readings.read(reading.name, x[rows], y[rows], cubes, settings)
        sets = np.arange(len(one.graph))
        seen = np.array([bool((~one.beyond[one.graph.node == k]).any()) for k in sets], bool)
        draws.append((one.graph.form(), one.graph.form(sets[seen]), len(sets), len(one.graph.minimal),
                      one.graph.node >= 0, adjusted_rand_score(fates, guidance.fates(one, x))))  # fmt: skip
    forms, forms_seen, n_sets, minimal, recurrent, agreement = zip(*draws, strict=True)
    return Resampled(
        reading.name,
        forms,
        forms_seen,
        np.array(n_sets),
        np.array(minimal),
        np.mean(recurrent, axis=0),
        np.array(agreement),
    )


def around(k: int) -> tuple[int, ...]:
    """Subdivisions of coarser and finer grids than one of k, and its own, as far as there are any."""
    return tuple(range(min(max(k - 4, 4), k), min(k + 1, MOST_SUBDIVISIONS) + 1))


def resolutions(
    reading: readings.Reading, settings: readings.Settings, levels: tuple[int, ...]
) -> list[dict[str, Any]]:
    """The same population on finer and coarser grids."""
    x, y, cubes, rows = reading.x, reading.y, reading.graph.cubes, []
    for level in meters.over(levels, f"resolutions of the reading {reading.name}", "grids"):
        finer = Cubes(cubes.lower, cubes.upper, level)
        one = readings.read(reading.name, x, y, finer, settings, reading.surrogate)
        rows.append({
            "subdivisions": level, "form": one.graph.form(), "morse_sets": len(one.graph), "minimal": len(one.graph.minimal),
            "recurrent_share": float((one.graph.node >= 0).mean()),
        })  # fmt: skip
    return rows


def frequency(forms: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each structure with its count and share, the most frequent first."""
    counts = sorted(Counter(forms).items(), key=lambda item: (-item[1], item[0]))
    return [{"form": form, "count": count, "share": count / len(forms)} for form, count in counts]
