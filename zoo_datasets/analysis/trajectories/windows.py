"""A zoo of trajectories → over which stretches of training its order can be read from weights.

In:  a `Bag`, and for each model its level: networks of one recipe are compared among themselves.
Out: rows (level, stretch): purity of single linkage, how well each algorithm finds the order, and
     how often each rule finds the direction, apart.

The first epochs are easy: steps are long and shrink, and a network leaves its start. A stretch
that begins later has lost them. Order is |τ|, which a reversed order keeps; direction is a share of
networks, one half by chance, and is asked of the order that `order.path` found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets.analysis.trajectories import clusters, order, paths
from zoo_datasets.analysis.trajectories.snapshots import Bag
from zoo_datasets.core import streams
from zoo_datasets.zoo import Zoo

# The share of snapshots that a stretch leaves out at the start; all go on to the end.
LEFT_OUT = (0.0, 0.1, 0.2, 0.5, 0.8)


def levels(zoo: Zoo, model_ids: Sequence[str]) -> list[dict[str, str]]:
    """Axis → level of each model, as the zoo labels it."""
    names = list(zoo.axes)
    row_of = {row["model_id"]: row for row in zoo.models.select(["model_id", *names]).to_pylist()}
    return [{a: streams.level_label(row_of[i][a]) for a in names} for i in model_ids]


def rows(bag: Bag, level_of: Sequence[dict[str, str]], seed: int) -> Iterator[dict[str, Any]]:
    """A row per level and stretch; a stretch of fewer than three snapshots is left out."""
    by_level: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for model, level in enumerate(level_of):
        by_level.setdefault(tuple(level.items()), []).append(model)
    for names, models in by_level.items():
        of_level = np.isin(bag.whose, models)
        longest = int(bag.at[of_level].max()) + 1
        for share in LEFT_OUT:
            first = round(share * longest)
            if longest - first >= paths.FEWEST_SNAPSHOTS:
                yield {"level": dict(names), **stretch(bag, np.flatnonzero(of_level & (bag.at >= first)), seed)}


def stretch(bag: Bag, chosen: np.ndarray, seed: int) -> dict[str, Any]:
    """What can be read of some rows of the bag: whose, in which order, in which direction."""
    models, whose = np.unique(bag.whose[chosen], return_inverse=True)
    points, at, epoch = bag.weights[chosen], bag.at[chosen], bag.columns["epoch"][chosen]
    groups = bag.groups[models]
    record: dict[str, Any] = {
        "first_epoch": float(epoch.min()), "last_epoch": float(epoch.max()), "n_models": len(models),
        "n_snapshots": len(chosen), "purity": _purity(points, whose), "order": {}, "forward": {}, "direction": {},
    }  # fmt: skip
    for name, place in order.recover(points, whose, seed=seed).items():
        score = order.score(whose, place, whose, at)
        record["order"][name] = paths.mean(score.order, groups, (0.0, 1.0))
        record["forward"][name] = paths.share(score.forward, groups)
    found = {name: np.full(len(models), np.nan) for name in order.DIRECTIONS}
    for _, rows_of, cluster in order.shuffled(points, whose, "euclidean", seed, shuffles=1):
        walked = order.path(cluster)
        # One snapshot has no direction, and is no half of a hit.
        truth = np.sign(order.trend(at[rows_of][walked])) if len(rows_of) > 1 else np.nan
        for name, forward in order.DIRECTIONS.items():
            says = 1 if forward(cluster, walked) else -1
            found[name][whose[rows_of[0]]] = (1 + says * truth) / 2
    record["direction"] = {name: paths.share(right, groups) for name, right in found.items()}
    return record


def clustered(points: np.ndarray, whose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many clusters as there are trajectories, by single linkage: the label of each point, and which row that point is.

    Points come in the order of their content, so that ties cannot break toward the truth.
    """
    mixed = np.argsort(order.content(points), kind="stable")
    near = clusters.distances(points[mixed], "euclidean", whose[mixed])
    return clusters.cut(clusters.single(near), len(np.unique(whose))), mixed


def _purity(points: np.ndarray, whose: np.ndarray) -> float | None:
    if len(np.unique(whose)) < 2:
        return None
    label, mixed = clustered(points, whose)
    return clusters.purity(label, whose[mixed])
