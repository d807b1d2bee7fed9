"""Networks of machines → their held-out loss as clean, on steps before any key and on steps right after one.

In:  zoos and a `Population` of their networks. Out: (n, 2) float64: mean squared errors against the outputs of the clean machine.

This is what somebody sees who tests a network and knows the machine but not of the change: without a key in the test, the
first column alone. What follows later in a sequence that had a key is in neither, for a network may remember it. Both are of
the test part, which is the same for all draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import intervals
from zoo_datasets.analysis.machines.population import UNTIL, Population
from zoo_datasets.analysis.machines.questions import changes, sides
from zoo_datasets.sources.machines import MACHINES, after_key
from zoo_datasets.sources.rows import spec_of
from zoo_datasets.sources.spec import SourceSpec
from zoo_datasets.zoo import Zoo

COLUMNS = ("before a key", "after a key")
MODELS_AT_ONCE = 64
LEAST = 1e-12  # of a loss whose logarithm is taken


def logarithms(loss: np.ndarray) -> np.ndarray:
    """(n, 2) of base 10; a part without a step says nothing, and is the same for all."""
    found: np.ndarray = np.log10(np.maximum(np.nan_to_num(loss, nan=1.0), LEAST))
    return found


def beside(population: Population, loss: np.ndarray | None) -> list[dict[str, Any]]:
    """Of each machine and dose what a test and a clock show: mean losses of clean and modified networks, and epochs to the target."""
    rows = []
    for label, dose in changes(population):
        row: dict[str, Any] = {"label": label, "dose": dose}
        for side, own in zip(("clean", "modified"), sides(population, label, dose), strict=True):
            draws = population.draw[own]
            row[f"n, {side}"] = len(own)
            known = {} if loss is None else {f"loss {name}": loss[own, i] for i, name in enumerate(COLUMNS)}
            for name, values in (known | {"epochs until the target": population.training[own, UNTIL]}).items():
                if len(own) and np.isfinite(values).all():
                    row[f"{name}, {side}"] = intervals.mean(values, draws).to_json()
        rows.append(row)
    return rows


def held_out(zoos: Sequence[Zoo], population: Population, data: str | Path | None = None) -> np.ndarray | None:
    """(n, 2), NaN where a part has no step; None where the networks learned none of our machines."""
    from zoo_datasets.networks.logits import logits_of  # needs torch, which the command line's help does not

    rows = [{r["model_id"]: r for r in zoo.models.to_pylist()} for zoo in zoos]
    specs = [spec_of(rows[z][m]) for z, m in zip(population.zoo, population.model, strict=True)]
    if any(spec.machine not in MACHINES for spec in specs):
        return None
    shown = [_shown(spec) for spec in specs]
    found = np.full((len(population), 2), np.nan)
    for spec in dict.fromkeys(shown):
        own = np.array([i for i, s in enumerate(shown) if s == spec])
        source = zoos[int(population.zoo[own[0]])].source(population.model[own[0]], data)
        commands = source.test.inputs
        assert spec.machine is not None
        outputs = MACHINES[spec.machine](commands)  # of the clean machine, whatever the network learned
        after = after_key(commands[:, :, 0], spec.key)  # (n, T)
        before = ~np.maximum.accumulate(after, axis=1)
        logits = logits_of(population.architecture, source.scaled(commands))
        for start in range(0, len(own), MODELS_AT_ONCE):
            some = own[start : start + MODELS_AT_ONCE]
            apart = logits(population.weights[some]).reshape(len(some), *outputs.shape) - outputs.astype(np.float32)
            squares = (apart.astype(np.float64) ** 2).mean(axis=3)  # (m, n, T)
            for column, steps in enumerate((before, after)):
                if steps.any():
                    found[some, column] = squares[:, steps].mean(axis=1)
    return found


def _shown(spec: SourceSpec) -> SourceSpec:
    """Equal of networks that see the same test inputs: their draw decides their scaling alone."""
    same = dataclasses.replace(spec, modified=False)
    return dataclasses.replace(same, draw=0, key_rate=None, train=None) if spec.scale == "none" else same
