"""A zoo → its snapshots as one matrix, trajectory after trajectory.

In:  a `Zoo` of one layout, and the first epoch that counts.
Out: a `Bag`: weights [n, P] and of each row whose it is, its place and its metrics.

Models with fewer snapshots than a path needs are left out and counted.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from zoo_datasets import views
from zoo_datasets.analysis.trajectories import paths
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo

COLUMNS = ("epoch", "step", "train_loss", "test_accuracy", "gap_accuracy")


@dataclasses.dataclass(frozen=True)
class Bag:
    """Snapshots by trajectory, in the order of training."""

    weights: np.ndarray  # float32 [n, P]
    whose: np.ndarray  # int64 [n]: 0 … M−1
    at: np.ndarray  # int64 [n]: place in the trajectory, from 0
    columns: dict[str, np.ndarray]  # `COLUMNS`, float64 [n]; NaN where the zoo has no value
    model_ids: tuple[str, ...]  # [M]
    groups: np.ndarray  # [M] init groups: models that are no independent repeats
    left_out: int  # models with too few snapshots

    @property
    def n_models(self) -> int:
        return len(self.model_ids)

    def rows(self, model: int) -> slice:
        """Where a trajectory's snapshots are."""
        first, last = np.searchsorted(self.whose, (model, model + 1))
        return slice(int(first), int(last))

    def split(self, name: str) -> list[np.ndarray]:
        """One column, by trajectory."""
        return [self.columns[name][self.rows(m)] for m in range(self.n_models)]


def bag(zoo: Zoo, first_epoch: float = 0.0) -> Bag:
    """The snapshots of a zoo from `first_epoch` on. Raises ZooError where they make no population of paths."""
    layouts = zoo.weights.layouts
    if len(layouts) > 1:
        raise ZooError(
            f"{zoo.name} has weights of {len(layouts)} layouts; trajectories are compared within one weight space. "
            "Build a zoo of one architecture."
        )
    epoch = zoo.column("epoch")
    if epoch.null_count:
        raise ZooError(
            f"`epoch` is null for {epoch.null_count:,} of {len(epoch):,} snapshots of {zoo.name}: where in training they were taken is "
            "not known. Analyze a zoo that says it of each, as those do that are built with `snapshots: every_epoch`."
        )
    zoo = zoo.take(epoch.to_numpy() >= first_epoch)
    _, model, count = np.unique(zoo.column("model_id").to_numpy(), return_inverse=True, return_counts=True)
    left_out = int((count < paths.FEWEST_SNAPSHOTS).sum())
    zoo = zoo.take(count[model] >= paths.FEWEST_SNAPSHOTS)
    table = zoo.table(["model_id", "step", "init_group", *COLUMNS])
    order = np.lexsort((table["step"].to_numpy(), model[count[model] >= paths.FEWEST_SNAPSHOTS]))
    zoo, table = zoo.take(order), table.take(order)
    n_models = len(count) - left_out
    if n_models < 2:
        raise ZooError(
            f"{zoo.name} has {n_models} models with at least {paths.FEWEST_SNAPSHOTS} snapshots from epoch {first_epoch:g} on; "
            "trajectories are compared, so two are needed. Build it with `snapshots: every_epoch`."
        )
    trajectories = views.trajectories(zoo.weights, table, by="order")
    weights = trajectories.values.reshape(-1, trajectories.values.shape[-1])  # a view, where all are equally long
    whose, at = np.nonzero(trajectories.mask)
    groups = np.array(table["init_group"].to_pylist())[at == 0]
    columns = {name: table[name].to_numpy().astype(np.float64) for name in COLUMNS}
    return Bag(
        weights if trajectories.mask.all() else weights[trajectories.mask.ravel()], whose, at, columns, trajectories.model_ids, groups, left_out
    )  # fmt: skip
