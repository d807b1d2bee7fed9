"""A zoo of trajectories → can one see training progress in weight space?

In:  a zoo of one architecture with snapshots along training, and if there is one a zoo that
     continues it on clean and changed data.
Out: a `Results`: the shape of each path; whose snapshots cluster together and in which order they
     lie, along the SVD ladder; over which stretches of training the order holds; versioning of a
     shuffled bag; detection of changed data; nulls.

After Schürholt & Borth, "An Investigation of the Weight Space to Monitor the Training Progress of
Neural Networks" (2021). Labels score what was found, and never help to find it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import intervals
from zoo_datasets.analysis.results import Results, flat
from zoo_datasets.analysis.trajectories import (
    clusters,
    detection,
    ladder,
    order,
    paths,
    pictures,
    siblings,
    snapshots,
    windows,
)
from zoo_datasets.analysis.trajectories.snapshots import Bag
from zoo_datasets.core import command, meters, streams
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo, once, open_zoo

log = logging.getLogger("zoo_datasets")

# Of the two matrices of all distances while a dendrogram is made: 3.2 GB.
MOST_SNAPSHOTS = 20_000
NULL_RELABELINGS = 20  # relabelings a null's mean is over
BASE = ("single", "euclidean")  # the paper's dendrograms are staircases, as single linkage makes them


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--first-epoch", type=float, default=1.0, metavar="E",
        help="leave out snapshots before this epoch (default: 1: neither initialization nor first epoch, as published)",
    )  # fmt: skip
    parser.add_argument(
        "--continued",
        nargs="+",
        default=[],
        metavar="ZOO",
        help="zoos that start from this one's snapshots: does their changed data show?",
    )
    parser.add_argument(
        "--regimes", nargs="+", default=[], metavar="ZOO",
        help="zoos trained in other ways: over which stretches of training does the order hold in each?",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="folder of local sources, for backdoors (default: $ZOO_DATA)")
    parser.add_argument(
        "--condition", metavar="AXIS", help="their axis along which data changes (default: the paired one)"
    )
    parser.add_argument(
        "--clean", metavar="LEVEL", help="its level that changes nothing (default: full, none or constant)"
    )
    parser.add_argument(
        "--dims", type=command.count, nargs="+", metavar="D", help="rungs of the SVD ladder (default: d, d/2, …, 3)"
    )
    parser.add_argument(
        "--resamples", type=command.count, default=1000, metavar="N", help="of each interval (default: 1000)"
    )
    parser.add_argument(
        "--most-snapshots", type=command.count, default=MOST_SNAPSHOTS, metavar="N",
        help=f"for linkages other than single, which need all distances at once; above, some trajectories are drawn (default: {MOST_SNAPSHOTS})",
    )  # fmt: skip
    parser.add_argument("--no-umap", action="store_true", help="no UMAP picture, even where umap-learn is installed")
    parser.add_argument("--no-pictures", action="store_true", help="numbers and tables alone")


def run(options: argparse.Namespace) -> Results:
    """The whole analysis of a zoo. Raises ZooError where it holds no population of trajectories."""
    zoo = open_zoo(options.path)
    if options.resamples < (least := intervals.least_resamples(intervals.LEVEL)):
        raise ZooError(f"--resamples {options.resamples} are too few for an interval; take at least {least}.")
    children, regimes = once(map(open_zoo, options.continued)), once(map(open_zoo, options.regimes))
    for child in children:  # a mistake in the call is told before the long part
        detection.check(zoo, child)
        detection.folds(np.array(list(detection.lineages(child).values())), options.seed)  # are there enough?
        conditions(child, options)
    names = ("seed", "first_epoch", "condition", "clean", "dims", "resamples", "most_snapshots")
    settings = {name: getattr(options, name) for name in names}
    results = Results("trajectories", [zoo, *children, *regimes], settings, options.out)
    bag = snapshots.bag(zoo, options.first_epoch)
    log.info("%d trajectories, %d snapshots of %d weights", bag.n_models, *bag.weights.shape)
    results.numbers["population"] = {
        "n_models": bag.n_models, "n_snapshots": len(bag.weights), "n_params": bag.weights.shape[1],
        "n_groups": len(np.unique(bag.groups)), "n_left_out": bag.left_out,
    }  # fmt: skip

    with _timed("the SVD ladder"):
        rows, partitions = climb(bag, options.dims, options.most_snapshots, options.seed)
    measured = [
        paths.measure(bag.weights[bag.rows(m)])
        for m in meters.over(range(bag.n_models), "the shape of paths", "models")
    ]
    results.numbers["paths"] = shape_of(measured, bag, options.resamples, options.seed)
    results.table("steps", steps_table(measured, bag))
    results.numbers["ladder"] = rows
    results.table("ladder", flat(rows))
    base = partitions[BASE]
    results.numbers["versioning"] = versioning(base, bag, options.seed)
    results.numbers["null"] = null(base, bag, options.seed)
    results.table("trajectories", models_table(measured, bag, base))
    with _timed("stretches of training"):
        results.numbers["windows"] = stretches(zoo, bag, options.seed)
        for other in regimes:
            results.numbers["windows"] += stretches(other, snapshots.bag(other, options.first_epoch), options.seed)
    if children:
        with _timed("detection"):
            results.numbers["detection"] = [detect(zoo, child, options) for child in children]
        with _timed("runs from one start"):
            found = [siblings.told_apart(child, options.seed) for child in children]
        results.numbers["siblings"] = [record for record in found if record]
        rows_of = {d["zoo"]: d["rows"] for d in results.numbers["detection"]}
        results.table("detection", flat([{"zoo": name, **row} for name, mine in rows_of.items() for row in mine]))
    if not options.no_pictures:
        with _timed("pictures"):
            results.figure("dendrogram", pictures.dendrogram(base.merges, bag.whose[base.rows], base.row))
            results.figure("steps", pictures.steps(measured, bag))
            results.figure("ladder", pictures.ladder(rows, bag.weights.shape[1]))
            for name, figure in pictures.embeddings(bag, options.seed, umap=not options.no_umap):
                results.figure(name, figure)
            for child in children:
                results.figure(f"detection-{child.name.split('/')[-1]}", pictures.detection(rows_of[child.name]))
    results.close()
    return results


class _timed:
    """Log how long a part took, and the most memory so far: for people, not for the numbers."""

    def __init__(self, what: str) -> None:
        self.what, self.meter = what, meters.track(what)

    def __enter__(self) -> None:
        self.start = time.perf_counter()
        self.meter.__enter__()

    def __exit__(self, *error: object) -> None:
        self.meter.__exit__(None, None, None)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        log.info("%s: %.0f s, at most %.1f GB so far", self.what, time.perf_counter() - self.start, peak)


# ── shape ─────────────────────────────────────────────────────────────────────────────


def shape_of(measured: Sequence[paths.Path], bag: Bag, resamples: int, seed: int) -> dict[str, Any]:
    """Means over models of each measure, and what step lengths say of the loss; intervals over init groups."""
    losses = bag.split("train_loss")
    steps = [p.step for p in measured]
    final = {
        name: np.array([v[-1] for v in bag.split(name)]) for name in ("train_loss", "test_accuracy", "gap_accuracy")
    }
    length = np.array([p.length for p in measured])

    def mean(values: Any, ends: tuple[float, float] | None = None) -> dict[str, Any]:
        return paths.mean(np.array(values), bag.groups, ends)

    return {
        **{name: mean([getattr(p, name) for p in measured]) for name in ("length", "chord", "tortuosity", "smoothness")},
        "curvature": mean([paths.median(p.curvature) for p in measured]),
        "first_step": mean([p.step[0] for p in measured]),
        "last_step": mean([p.step[-1] for p in measured]),
        "shrinking": mean([(np.diff(p.step) < 0).mean() for p in measured], (0.0, 1.0)),
        "kendall_step_loss_along_training": mean(paths.along_training(steps, losses), (-1.0, 1.0)),
        "kendall_step_loss_across_models": paths.across_models(steps, losses, bag.groups, resamples, seed),
        **{f"kendall_length_final_{name}": paths.related(length, v, bag.groups, seed) for name, v in final.items()},
    }  # fmt: skip


def steps_table(measured: Sequence[paths.Path], bag: Bag) -> Any:
    """One row per step of a model: lengths, and angles with the step before it (null for the first)."""
    before = np.concatenate([np.arange(r.start, r.stop - 1) for r in map(bag.rows, range(bag.n_models))])
    columns: dict[str, Any] = {"model_id": [bag.model_ids[m] for m in bag.whose[before]]}
    for name in ("step", "epoch", "train_loss"):
        columns |= {f"{name}_before": bag.columns[name][before], f"{name}_after": bag.columns[name][before + 1]}
    columns["length"] = np.concatenate([p.step for p in measured])
    for name in ("cosine", "turn", "curvature"):
        columns[name] = np.concatenate([np.append(np.nan, getattr(p, name)) for p in measured])
    return pa.table({k: pa.array(v, from_pandas=True) for k, v in columns.items()})


def models_table(measured: Sequence[paths.Path], bag: Bag, base: Partition) -> Any:
    """One row per model: its path's measures, its last metrics, τ of its recovered order."""
    names = ("length", "chord", "tortuosity", "smoothness")
    last = {
        f"final_{name}": [v[-1] for v in bag.split(name)] for name in ("train_loss", "test_accuracy", "gap_accuracy")
    }
    columns: dict[str, Any] = {
        "model_id": bag.model_ids, "init_group": bag.groups, "n_snapshots": np.bincount(bag.whose),
        **{name: [getattr(p, name) for p in measured] for name in names},
        "curvature_median": [paths.median(p.curvature) for p in measured],
        "kendall_step_loss": paths.along_training([p.step for p in measured], bag.split("train_loss")), **last,
        **{f"tau_true_{name}": s.tau for name, s in base.true_scores.items()},
        **{f"tau_found_{name}": s.tau for name, s in base.found_scores.items()},
    }  # fmt: skip
    return pa.table({k: pa.array(v, from_pandas=isinstance(v, np.ndarray)) for k, v in columns.items()})


# ── clusters and order, along the ladder ──────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Partition:
    """What one linkage found at one rung, for the pictures and the scores that follow."""

    merges: np.ndarray  # [n-1, 4]
    rows: np.ndarray  # int64 [n]: the row of the bag that each leaf is
    points: np.ndarray  # [n, k], in the order of the leaves
    row: Mapping[str, Any]
    true_scores: Mapping[str, order.Score]
    found_scores: Mapping[str, order.Score]


def climb(
    bag: Bag, dims: Sequence[int] | None, most_snapshots: int, seed: int
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], Partition]]:
    """A row per rung, metric and linkage; the partitions at full dimension, by (linkage, metric)."""
    full = bag.weights.shape[1]
    rungs = sorted({full, *(dims or ladder.rungs(full))}, reverse=True)
    if rungs[0] > full or rungs[-1] < 1:
        raise ZooError(f"Rungs {rungs[0]} to {rungs[-1]} of a ladder; these weights have 1 to {full} dimensions.")
    whole = ladder.decompose(bag.weights, rungs[1] if len(rungs) > 1 else 1)
    fits = np.arange(len(bag.weights)) if len(bag.weights) <= most_snapshots else drawn(bag, most_snapshots, seed)
    rows: list[dict[str, Any]] = []
    partitions: dict[tuple[str, str], Partition] = {}
    for rung in meters.over(rungs, "dimensions", "rungs"):
        points = bag.weights if rung == full else whole.coordinates[:, :rung]
        energy = 1.0 if rung == full else float(whole.energy[min(rung, len(whole.energy)) - 1])
        for metric in clusters.DISTANCES:
            log.info("%d dimensions, %s", rung, metric)
            for linkage, partition in _partitions(bag, points, metric, fits, seed):
                rows.append(
                    {"dimensions": rung, "energy_frac": energy, "metric": metric, "linkage": linkage, **partition.row}
                )
                if rung == full:
                    partitions[linkage, metric] = partition
    return rows, partitions


def _partitions(
    bag: Bag, points: np.ndarray, metric: str, fits: np.ndarray, seed: int
) -> Iterator[tuple[str, Partition]]:
    """Each linkage's clusters at one rung, scored: single linkage of all snapshots, the others of the rows that fit.

    Snapshots come in the order of their content, not of training, which ties would find otherwise.
    """
    rows = np.argsort(order.content(points), kind="stable")
    near = clusters.distances(points[rows], metric, bag.whose[rows], condensed=len(fits) == len(rows))
    true = {
        name: order.score(bag.whose, place, bag.whose, bag.at)
        for name, place in order.recover(points, bag.whose, metric, seed).items()
    }
    shared = {
        "separation": near.separation, "inter_least": float(near.inter.min()), "intra_most": float(near.intra.max()),
        **_taus("true", true, bag.groups),
    }  # fmt: skip
    scored: dict[bytes, dict[str, order.Score]] = {}
    part = near
    for linkage in clusters.LINKAGES:
        if linkage != "single" and part.condensed is None:
            rows = rows[np.isin(rows, fits)]
            part = clusters.distances(points[rows], metric, bag.whose[rows], condensed=True)
        models, whose = np.unique(bag.whose[rows], return_inverse=True)
        merges = clusters.linkage(part, linkage, metric)
        label = clusters.cut(merges, len(models))
        key = np.unique(label, return_index=True)[1][label].tobytes()  # the same partition by another numbering
        if key not in scored:
            scored[key] = {
                name: order.score(label, place, whose, bag.at[rows])
                for name, place in order.recover(points[rows], label, metric, seed).items()
            }
        heights = clusters.heights(merges, whose)
        row = {
            "n_snapshots": len(rows), "n_trajectories": len(models),
            "purity": clusters.purity(label, whose), "adjusted_rand": clusters.adjusted_rand(label, whose),
            "clusters_by_gap": clusters.clusters_by_gap(merges),
            **{f"within_{k}": v for k, v in clusters.summary(heights.within).items()},
            **{f"between_{k}": v for k, v in clusters.summary(heights.between).items()},
            **shared, **_taus("found", scored[key], bag.groups[models]),
        }  # fmt: skip
        yield linkage, Partition(merges, rows, points[rows], row, true, scored[key])


def drawn(bag: Bag, most_snapshots: int, seed: int) -> np.ndarray:
    """Rows of whole trajectories, drawn at random, of at most so many snapshots."""
    mixed = streams.permutation(streams.stream_key(["trajectories", seed]), bag.n_models)
    size = np.bincount(bag.whose)
    chosen = mixed[np.cumsum(size[mixed]) <= most_snapshots]
    if len(chosen) < 2:
        raise ZooError(f"--most-snapshots {most_snapshots} has no room for two trajectories.")
    return np.flatnonzero(np.isin(bag.whose, chosen))


def _taus(what: str, scores: Mapping[str, order.Score], groups: np.ndarray) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, of_algorithm in scores.items():
        mean = paths.mean(of_algorithm.tau, groups, (-1.0, 1.0))
        stem = f"tau_{what}_{name}"
        columns |= {stem: mean["value"], f"{stem}_low": mean["low"], f"{stem}_high": mean["high"]}
    return columns


# ── versioning and nulls ──────────────────────────────────────────────────────────────


def versioning(base: Partition, bag: Bag, seed: int) -> dict[str, Any]:
    """The whole way from a shuffled bag to ordered versions, by single linkage at full dimension.

    The score is F1 of ordered pairs, "b is a later version of a": grouping alone, ordered at
    random, gives ½; a reversed order 0. Once with the number of models given, and once found by
    the largest gap between merge heights. The bag is shuffled `order.SHUFFLES` times, and scores are over all.
    """
    record: dict[str, Any] = {"shuffles": order.SHUFFLES}
    for how, k in (("models_given", bag.n_models), ("models_found", clusters.clusters_by_gap(base.merges))):
        if how == "models_found" and k == bag.n_models:  # the same clusters
            record[how] = record["models_given"]
            continue
        label = clusters.cut(base.merges, k)
        record[how] = {"n_clusters": k}
        for name, place in order.recover(base.points, label, seed=seed).items():
            score = order.score(label, place, bag.whose[base.rows], bag.at[base.rows])
            record[how][name] = {
                f"f1_{what}": order.f1_interval(score, what, bag.groups) for what in ("pairs", "links")
            }
    return record


def null(base: Partition, bag: Bag, seed: int) -> dict[str, Any]:
    """The same scores where labels, or places in a trajectory, are shuffled: what chance gives."""
    random = streams.generator("shuffled labels", seed)
    label = clusters.cut(base.merges, bag.n_models)
    own, taken = bag.whose[base.rows], bag.at[base.rows]
    # One shuffle of the bag: relabelings are the chance that is looked at here.
    place = order.recover(base.points, label, seed=seed)["path"][0]
    inside = order.recover(base.points, own, seed=seed)["path"][0]
    scores = ("purity", "adjusted_rand", "f1_pairs", "f1_links", "tau_true_path")
    draws: dict[str, list[float]] = {name: [] for name in scores}
    for _ in meters.over(range(NULL_RELABELINGS), "the null", "relabelings"):
        mixed = random.permutation(len(own))
        whose, at = own[mixed], taken[mixed]
        score = order.score(label, place, whose, at)
        draws["purity"].append(clusters.purity(label, whose))
        draws["adjusted_rand"].append(clusters.adjusted_rand(label, whose))
        for what in ("pairs", "links"):
            draws[f"f1_{what}"].append(paths.mean(score.f1(what), bag.groups)["value"])
        # Whose they are stays; when they were taken is shuffled inside each trajectory.
        at = np.empty_like(taken)
        at[np.lexsort((taken, own))] = taken[np.lexsort((random.random(len(own)), own))]
        draws["tau_true_path"].append(float(np.nanmean(order.score(own, inside, own, at).tau)))
    return {
        "n_draws": NULL_RELABELINGS,
        **{k: {"mean": float(np.mean(v)), "least": min(v), "most": max(v)} for k, v in draws.items()},
    }


def stretches(zoo: Zoo, bag: Bag, seed: int) -> list[dict[str, Any]]:
    """Rows of `windows.rows`, with the name of their zoo."""
    return [{"zoo": zoo.name, **row} for row in windows.rows(bag, windows.levels(zoo, bag.model_ids), seed)]


# ── detection ─────────────────────────────────────────────────────────────────────────


def detect(parents: Zoo, children: Zoo, options: argparse.Namespace) -> dict[str, Any]:
    """Rows of `detection.detect` for every changed level against its clean twins, and for the control; backdoors."""
    axis, clean, changed = conditions(children, options)
    rows, backdoors = [], {}
    for level in meters.over(changed, f"changed data in {children.name}", "levels"):
        assert axis is not None
        assert clean is not None
        found = detection.read(parents, children, axis, clean, level)
        rows += [{"condition": level, **row} for row in detection.detect(found, options.seed)]
        if attack := detection.backdoor(children, axis, level, options.data):
            backdoors[level] = attack
    if detection.reordered(children):
        found = detection.read_control(parents, children, axis, clean)
        rows += [{"condition": detection.REORDERED, **row} for row in detection.detect(found, options.seed)]
    common = {"folds": detection.FOLDS, "deals": detection.DEALS, "nulls": detection.NULL_SWAPS}
    return {"zoo": children.name, "axis": axis, "clean": clean, **common, "backdoors": backdoors, "rows": rows}


def conditions(children: Zoo, options: argparse.Namespace) -> tuple[str | None, str | None, list[str]]:
    """As `detection.conditions`; no axis and no level for a zoo that holds the control alone. Raises ZooError."""
    if options.condition is None and not children.paired and detection.reordered(children):
        return None, None, []
    return detection.conditions(children, options.condition, options.clean)
