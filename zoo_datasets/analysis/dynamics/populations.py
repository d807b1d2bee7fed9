"""A zoo → its populations: networks alike but for their seeds, at the start and the end of training.

In:  a `Zoo`; how many replicates make a population; the epoch that counts as start.
Out: a `Population` for each point of the grid and each block of replicates.

Start and end are joined by model id, and so is everything else: whatever order tables or
shards have, row i of every array is the network `ids[i]`. Networks that diverged are left
out and counted. `predictions` runs the networks, so it needs torch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import metrics
from zoo_datasets.core import streams
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.zoo import Zoo

log = logging.getLogger(__name__)
MAPS = ("whole", "step")
MOST_PAIRS = 300  # a Gaussian process costs the cube of them, and resamples fit some hundred
KNOWN = ("replicate_init", "plan_index", "init_group")  # of every network of a recipe of ours
FEWEST_NETWORKS = 20  # networks; fewer say nothing about a distribution, and a last, short block is dropped


@dataclasses.dataclass(frozen=True)
class Population:
    """n networks of one recipe. P weights each, in the layout of `architecture`."""

    zoo: Zoo
    level: Mapping[str, str]  # axis → level, as the zoo labels it
    number: int  # of the block of replicates
    ids: tuple[str, ...]
    groups: np.ndarray  # [n]: init groups, never to be split
    start_epoch: float
    start: np.ndarray  # float32 [n, P]
    end: np.ndarray  # float32 [n, P]
    n_diverged: int

    @property
    def name(self) -> str:
        level = ", ".join(f"{k} {v}" for k, v in self.level.items())
        return f"{level or self.zoo.name}, population {self.number}"

    @property
    def architecture(self) -> Architecture:
        return self.zoo.architecture(self.ids[0]).built()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[Population]) -> Population:
        """Populations of one level as one."""
        first = parts[0]
        return dataclasses.replace(
            first, ids=tuple(i for p in parts for i in p.ids), groups=np.concatenate([p.groups for p in parts]),
            start=np.concatenate([p.start for p in parts]), end=np.concatenate([p.end for p in parts]),
            n_diverged=sum(p.n_diverged for p in parts),
        )  # fmt: skip

    def take(self, rows: np.ndarray) -> Population:
        """Some networks, in the order given; a bootstrap resample may repeat them."""
        return dataclasses.replace(
            self, ids=tuple(self.ids[i] for i in rows), groups=self.groups[rows], start=self.start[rows],
            end=self.end[rows],
        )  # fmt: skip


def populations(zoo: Zoo, size: int = 100, start_epoch: float = 2.0) -> list[Population]:
    """All populations, in the order of the axes' levels, then of the replicates.

    Raises ZooError where a network has no snapshot at `start_epoch`, or only that one, or nobody knows which replicate it is.
    """
    if lacking := [n for n in KNOWN if n not in zoo.models.column_names or zoo.models[n].null_count]:
        raise ZooError(
            f"{zoo.name} does not say {lacking[0]!r} of its networks; populations are replicates, as zoos of this builder have them."
        )
    rows = zoo.models.to_pylist()
    axes = list(zoo.axes)
    blocks: dict[tuple[tuple[str, ...], int], list[dict[str, Any]]] = {}
    for row in rows:
        level = tuple(streams.level_label(row[a]) for a in axes)
        blocks.setdefault((level, row["replicate_init"] // size), []).append(row)
    named = _architectures(zoo, rows) if "architecture" in axes else {}
    place = {a: {label: i for i, label in enumerate(known)} for a, known in zoo.axes.items()}

    def order(key: tuple[tuple[str, ...], int]) -> tuple[Any, ...]:
        return [place[a].get(v, len(place[a])) for a, v in zip(axes, key[0], strict=True)], key

    result = []
    start, end = zoo.select(epoch=start_epoch), zoo.final()
    start_at, end_at = _positions(start), _positions(end)
    for key in sorted(blocks, key=order):
        members = sorted(blocks[key], key=lambda r: (r["replicate_init"], r["plan_index"]))
        trained = [r for r in members if r["diverged_step"] is None]
        label = ", ".join(f"{a} {v}" for a, v in zip(axes, key[0], strict=True))
        if len(trained) < FEWEST_NETWORKS:
            log.warning(
                "%s: %d networks of block %d left out; a population has at least %d",
                label,
                len(trained),
                key[1],
                FEWEST_NETWORKS,
            )
            continue
        ids = tuple(r["model_id"] for r in trained)
        missing = [i for i in ids if i not in start_at]
        if missing:
            known = ", ".join(
                f"{e:g}" for e in sorted(set(zoo.select(model_id=missing[0]).column("epoch").to_pylist()))
            )
            raise ZooError(
                f"Model {missing[0]} of {zoo.name} has no snapshot at epoch {start_epoch:g}. Known: {known}."
            )
        first, last = (np.array([at[i] for i in ids]) for at in (start_at, end_at))
        if (end.rows[last] == start.rows[first]).any():
            raise ZooError(f"{zoo.name}, {label}: epoch {start_epoch:g} is the last snapshot; a map needs a later one.")
        result.append(
            Population(
                zoo,
                {a: named.get(v, v) for a, v in zip(axes, key[0], strict=True)},
                key[1],
                ids,
                np.array([r["init_group"] for r in trained]),
                start_epoch,
                np.array(start.weights[first]),
                np.array(end.weights[last]),
                len(members) - len(trained),
            )
        )  # fmt: skip
    if not result:
        raise ZooError(f"{zoo.name} has no population of {FEWEST_NETWORKS} networks that differ in their seeds alone.")
    return result


def _architectures(zoo: Zoo, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Labels of the axis `architecture` → units of its layers, like "c2-3", where that tells them apart."""
    ids = {row["architecture"]: row["model_id"] for row in rows}
    units = {}
    for label, model in ids.items():
        nodes = [n for n in zoo.architecture(model).built().nodes if n.op in ("conv", "linear")]
        units[label] = "-".join(f"{'c' if n.op == 'conv' else ''}{n.shape[0]}" for n in nodes)
    return units if len(set(units.values())) == len(units) else {}


def _positions(zoo: Zoo) -> dict[str, int]:
    return {model: i for i, model in enumerate(zoo.column("model_id").to_pylist())}


def pairs(population: Population, how: str, most: int = MOST_PAIRS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the map is fitted to: weights before [m, P], after [m, P], and the network's row [m].

    `whole`: from start to end, one pair a network. `step`: between snapshots one step apart
    (see `steps`), of the first networks, as many as make `most` pairs.
    """
    if how not in MAPS:
        raise ValueError(unknown("map", how, MAPS))
    if how == "whole":
        return population.start, population.end, np.arange(len(population))
    before, after, rows, _ = steps(population)
    used = rows < max(2, int(most * len(population) / len(rows)))
    return before[used], after[used], rows[used]


def steps(population: Population) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Snapshots one step apart: weights before [m, P], after [m, P], the network's row [m], epochs of a step.

    A step is as long as the last one; snapshots at whole numbers of steps before the end are
    used, others left out. Raises ZooError where that leaves no more than start and end.
    """
    zoo = population.zoo
    row_of = {model: i for i, model in enumerate(population.ids)}
    snapshots = zoo.select(model_id=list(population.ids))
    epoch = snapshots.column("epoch").to_numpy()
    network = np.array([row_of[m] for m in snapshots.column("model_id").to_pylist()])
    last, step = epoch.max(), _step(epoch)
    turn = (last - epoch) / step
    on = np.flatnonzero(np.abs(turn - np.round(turn)) < 1e-6)
    order = on[np.lexsort((epoch[on], network[on]))]
    pair = (network[order][1:] == network[order][:-1]) & (np.abs(np.diff(epoch[order]) - step) < 1e-6)
    before, after = order[:-1][pair], order[1:][pair]
    if len(before) < 2 * len(population):
        epochs = ", ".join(f"{e:g}" for e in np.unique(epoch))
        raise ZooError(
            f"{population.name} has snapshots at epochs {epochs}: no chain of equal steps to the end. Build with "
            "`snapshots: every_epoch`, or take the map from start to end (`--map whole`)."
        )
    return np.array(snapshots.weights[before]), np.array(snapshots.weights[after]), network[before], step


def step_epochs(population: Population) -> float:
    """Epochs between the last two snapshots: how long a step of `steps` is."""
    return _step(population.zoo.select(model_id=population.ids[0]).column("epoch").to_numpy())


def _step(epoch: np.ndarray) -> float:
    before, last = np.unique(epoch)[-2:]
    return float(last - before)


# ── what the networks say ─────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What n networks say about T test examples of C classes, after training."""

    labels: np.ndarray  # int64 [T]
    probabilities: np.ndarray  # float64 [n, T, C]

    @property
    def balanced(self) -> np.ndarray:
        """Balanced accuracy of each network, [n]."""
        return np.array([metrics.balanced_accuracy(self.labels, p) for p in self.probabilities.argmax(2)])

    @property
    def balanced_swapped(self) -> np.ndarray:
        """The published number: arguments swapped, so a mean over *predicted* classes of the share that is right."""
        return np.array([metrics.balanced_accuracy(p, self.labels) for p in self.probabilities.argmax(2)])

    def entropy(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Entropy in nats of the ensemble's mean prediction for each example, [T]; `weights` [..., n] pick ensembles."""
        n, t, c = self.probabilities.shape
        weights = np.full(n, 1 / n) if weights is None else weights / weights.sum(-1, keepdims=True)
        mean = (weights @ self.probabilities.reshape(n, t * c)).reshape(*weights.shape[:-1], t, c)
        return -(mean * np.log(np.maximum(mean, 1e-300))).sum(-1)


def predictions(population: Population, data: str | Path | None = None) -> Predictions:
    """The final networks on the test examples of their source, of the classes they were trained on.

    Raises ZooError for networks whose outputs are no classes' log odds.
    """
    import torch

    from zoo_datasets import sources
    from zoo_datasets.networks.logits import logits_of
    from zoo_datasets.sources.rows import subset_of

    first = population.ids[0]
    source, row = population.zoo.source(first, data), population.zoo.row(first)
    if source.output_steps is not None or row["loss"] != "cross_entropy":
        learned = f"by `{row['loss']}`" if source.output_steps is None else "what is right at each step of a sequence"
        raise ZooError(
            f"The networks of {population.zoo.name} learned {learned}, and how training ends is told by labels and chances of "
            "classes. Take networks that classify by `cross_entropy`."
        )
    subset = subset_of(row).numbered(source.class_names)
    keep = np.isin(source.test.labels, subset.in_play(source.n_classes))
    labels = sources.relabeled(source.test.labels, subset)[keep]
    logits = logits_of(population.architecture, source.scaled(source.test.inputs[keep]))(population.end)
    return Predictions(labels, torch.softmax(torch.from_numpy(logits).double(), 2).numpy())
