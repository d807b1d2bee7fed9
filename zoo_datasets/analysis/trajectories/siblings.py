"""A zoo that goes on from another's snapshots → can runs that start from one and the same weights be told apart?

In:  children, two or more of one snapshot of a parent, with snapshots after this common start.
Out: by stretch of their training, inside each family of siblings: how many of them single linkage finds whole, and its purity, beside
     labels that are dealt at random inside each update.

Runs from different starts lie far apart before they have learned anything. Siblings share every weight at first, so what
tells them apart is their training alone. The start itself, which is every sibling's, is left out. Siblings at one update may lie
nearer to each other than to themselves: clusters are moments then, and their purity is less than that of the deal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_datasets.analysis.trajectories import clusters, paths, snapshots, windows
from zoo_datasets.analysis.trajectories.snapshots import Bag
from zoo_datasets.core import meters, streams
from zoo_datasets.zoo import Zoo

LEFT_OUT = (0.0, 0.5)  # the share of snapshots that a stretch leaves out at the start
RELABELINGS = 20


def told_apart(children: Zoo, seed: int) -> dict[str, Any] | None:
    """A record of all families with at least two siblings; None where there is none. Raises ZooError as `snapshots.bag`.

    `found` (siblings whose snapshots are one cluster, as a share) and purity are means over families, with t bounds over init groups;
    `whole` is the share of families of purity 1, with exact ones.
    """
    bag = snapshots.bag(children.take(children.column("step").to_numpy() > 0))
    start_of = {row["model_id"]: (row["parent_id"], row["parent_step"]) for row in children.models.to_pylist()}
    record = of_families(bag, [start_of[name] for name in bag.model_ids], seed)
    return record and {"zoo": children.name, **record}


def of_families(bag: Bag, starts: Sequence[tuple[str | None, int | None]], seed: int) -> dict[str, Any] | None:
    """The record of a bag whose trajectories start from these snapshots: parent and its step, one of each [M], no parent where drawn."""
    families: dict[tuple[str, int | None], list[int]] = {}
    for model, (parent, step) in enumerate(starts):
        if parent is not None:
            families.setdefault((parent, step), []).append(model)
    families = {start: models for start, models in families.items() if len(models) > 1}
    if not families:
        return None
    longest, rows = int(bag.at.max()) + 1, []
    for share in LEFT_OUT:
        first = round(share * longest)
        if longest - first < paths.FEWEST_SNAPSHOTS:
            continue
        # A run that has ended before is nobody's sibling there, and one that is left alone is told from nobody.
        later = set(np.unique(bag.whose[bag.at >= first]).tolist())
        there = {start: [m for m in models if m in later] for start, models in families.items()}
        there = {start: models for start, models in there.items() if len(models) > 1}
        if not there:
            continue
        groups = np.array([bag.groups[models[0]] for models in there.values()])
        named = meters.over(there.items(), "runs from one start", "families")
        # Dealt by the parent alone: as the results that are kept were.
        found, purity, null = np.array(
            [_family(bag, models, first, f"{seed} {parent}") for (parent, _), models in named]
        ).T
        rows.append({
            "n_families": len(there), "n_siblings": sum(map(len, there.values())),
            "first_step": int(bag.columns["step"][bag.at == first].min()), "last_step": int(bag.columns["step"].max()),
            "found": paths.mean(found, groups, (0.0, 1.0)), "purity": paths.mean(purity, groups, (0.0, 1.0)), "whole": paths.share((purity == 1).astype(float), groups),
            "null": float(null.mean()),
        })  # fmt: skip
    if not rows:
        return None
    sizes = sorted({len(models) for models in families.values()})
    return {"n_families": len(families), "siblings": sizes, "relabelings": RELABELINGS, "rows": rows}


def _family(bag: Bag, models: list[int], first: int, key: str) -> tuple[float, float, float]:
    """Of one family's snapshots from place `first` on: the share of siblings found whole, purity, and its mean under a deal."""
    chosen = np.isin(bag.whose, models) & (bag.at >= first)
    whose, at = np.unique(bag.whose[chosen], return_inverse=True)[1], bag.at[chosen]
    label, row_of = windows.clustered(bag.weights[chosen], whose)
    whose, at = whose[row_of], at[row_of]
    table = np.zeros((len(models), len(models)))
    np.add.at(table, (whose, label), 1)
    alone = (table > 0).sum(1) == 1  # a sibling in one cluster, which holds nobody else
    found = alone & ((table > 0).sum(0)[table.argmax(1)] == 1)
    random, moments = streams.generator("siblings", key), np.argsort(at, kind="stable")
    null = []
    for _ in range(RELABELINGS):
        dealt = np.empty_like(whose)
        # By moment, and inside each in a random order: that of the siblings that are there.
        dealt[np.lexsort((random.random(len(at)), at))] = whose[moments]
        null.append(clusters.purity(label, dealt))
    return float(found.mean()), clusters.purity(label, whose), float(np.mean(null))
