"""A zoo and one that continues it → does a change of the data show in the trajectory?

In:  parents, and children that start from the parents' snapshots: twins that differ in the data
     they go on with, one of them clean. Children name their parent and its step.
Out: by condition and snapshot since the change, how well clean and changed children are told
     apart: AUC of single features, and with bounds of logistic models of each family of features
     and of all, beside what metadata or the test loss would tell; and for a backdoor, whether it works.

The detector sees weights alone: the parent's last two snapshots and the child's so far; never
its twin. The parent's last step u = w_p − w_before is the unit of length. The test loss is
given the same: the parent's loss, and the child's. Twins start from one snapshot, and scores of a logistic
model come from folds that hold no relative of it: lineages are split neither in folds nor in bounds, and those
that share an initialization are one.

Cross-validation is repeated over five deals of the folds, and AUC has exact binomial bounds with one
example a lineage. They are wide on purpose: an AUC varies at most as a share does (Birnbaum & Klose
1957), and what is left covers the training of the detector (simulated in tests/analysis).

Zoos that repeat their order (`replicates: {order: 2}`) give the control that can fail: children on
the same data in another order must not be told from those that go on in their parent's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import intervals, metrics, split_files, variation
from zoo_datasets.analysis.trajectories import paths
from zoo_datasets.baselines.design import Design
from zoo_datasets.core import meters, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError, alternatives
from zoo_datasets.zoo import Zoo

FEATURES = {
    "step": "log of the last step's length over ‖u‖",
    "distance": "log of the distance from the parent over ‖u‖",
    "length": "log of the path's length since the parent over ‖u‖",
    "curvature": "log of the curvature at the last snapshot but one, times ‖u‖",
    "onward": "cosine of the last step and u: does it go on as its parent did?",
    "heading": "cosine of the way from the parent and u",
    "turning": "cosine of the last step and the one before (u, for the first)",
}
# Which features a word of the question means.
FAMILIES = {
    "step length": ("step", "distance", "length"),
    "curvature": ("curvature",),
    "direction": ("onward", "heading", "turning"),
}
FOLDS = 5
DEALS = 5  # of the folds: what one deal happens to hold is averaged out
REORDERED = "another order"
NULL_SWAPS = 20  # relabelings of the null: its mean has a standard error below .02 with 40 lineages
WORKS = 0.5  # of the images that would not go to the target, more than half do with the trigger on
SMALLEST_TURN = 1e-6  # radians: float32 weights know no smaller one; keeps the logarithm finite


@dataclasses.dataclass(frozen=True)
class Children:
    """Children of one clean or changed kind beside their twins, as features."""

    features: np.ndarray  # [2·pairs, T, F]: clean twins first, then the changed ones in the same order
    lineage: np.ndarray  # [2·pairs]: as `lineages` names them
    metadata: np.ndarray  # [2·pairs, C]: what the tables say of a model before it is trained
    test_loss: np.ndarray  # [2·pairs, T]
    parent_loss: np.ndarray  # [2·pairs]: test loss of the parent at the snapshot that they start from
    steps: np.ndarray  # int64 [T] updates since the change

    @property
    def changed(self) -> np.ndarray:
        """0 for clean, 1 for changed, [2·pairs]."""
        return np.repeat([0, 1], len(self.lineage) // 2)


def features(before: np.ndarray, parent: np.ndarray, path: np.ndarray) -> np.ndarray:
    """`FEATURES` at each snapshot of a child's path [T, P] from its parent [P], which came from `before`: [T, F].

    All NaN where the parent's last step has length 0: it gives neither unit nor direction."""
    before, parent, path = (np.asarray(w, np.float64) for w in (before, parent, path))
    u = parent - before
    unit = float(np.linalg.norm(u))
    if not unit > 0:
        return np.full((len(path), len(FEATURES)), np.nan)
    delta = np.diff(np.concatenate([parent[None], path]), axis=0)  # (T, P)
    earlier = np.concatenate([u[None], delta[:-1]])
    away = path - parent
    length, earlier_length = np.linalg.norm(delta, axis=1), np.linalg.norm(earlier, axis=1)
    turning = paths.cosines(earlier, delta)
    with np.errstate(divide="ignore"):  # a child that does not move is -inf, and left out as such
        return np.column_stack([
            np.log(length / unit),
            np.log(np.linalg.norm(away, axis=1) / unit),
            np.log(np.cumsum(length) / unit),
            np.log(np.maximum(np.arccos(turning), SMALLEST_TURN) * unit / ((length + earlier_length) / 2.0)),
            paths.cosines(delta, np.broadcast_to(u, delta.shape)),
            paths.cosines(away, np.broadcast_to(u, away.shape)),
            turning,
        ])  # fmt: skip


# ── reading ───────────────────────────────────────────────────────────────────────────


def check(parents: Zoo, children: Zoo) -> None:
    """Raises ZooError where children do not start from the parents' snapshots."""
    known = set(zip(parents.column("model_id").to_pylist(), parents.column("step").to_pylist(), strict=True))
    for row in children.models.select(["model_id", "parent_id", "parent_step"]).to_pylist():
        parent, at = row["parent_id"], row["parent_step"]
        if (parent, at) not in known:
            why = (
                "has no parent" if parent is None else f"starts from {parent} at step {at}, which is no snapshot of it"
            )
            raise ZooError(
                f"{children.name} does not go on from {parents.name}: model {row['model_id']} {why}. "
                "Name with --continued a zoo that starts from its snapshots."
            )


def lineages(children: Zoo) -> dict[str, str]:
    """Model id → its first ancestor; lineages that share an initialization are one, which has the least of these names."""
    group, names = split_files.group_keys(children), dict[str, str]()
    roots = zip(children.models["model_id"].to_pylist(), children.models["lineage_root"].to_pylist(), strict=True)
    for model, root in roots:
        name = root or group[model]
        names[group[model]] = min(name, names.get(group[model], name))
    return {model: names[key] for model, key in group.items()}


def conditions(children: Zoo, axis: str | None = None, clean: str | None = None) -> tuple[str, str, list[str]]:
    """The axis along which twins differ, its clean level, and the changed ones. Raises ZooError."""
    if axis is None:
        if len(children.paired) != 1:
            raise ZooError(
                f"{children.name} pairs {alternatives(children.paired)}; name with --condition the axis along which "
                "the data changes."
            )
        axis = children.paired[0]
    levels = children.axes.get(axis, [])
    if clean is None:
        clean = next((name for name in variation.NEUTRAL if name in levels), None)
    if clean not in levels:
        raise ZooError(
            f"{axis} of {children.name} has no level that changes nothing; name with --clean one of {alternatives(levels)}."
        )
    return axis, clean, [name for name in levels if name != clean]


def read(parents: Zoo, children: Zoo, axis: str, clean: str, changed: str) -> Children:
    """Features of every pair of twins (clean, changed). Raises ZooError where children have no parents here."""
    check(parents, children)
    first = children.select(replicate_order=0) if reordered(children) else children
    pairs = [(pair.a, pair.b) for pair in variation.pairs(first, axis, (clean, changed))]
    if not pairs:
        raise ZooError(f"{children.name} has no twins that differ in {axis} alone at {clean!r} and {changed!r}.")
    return _read(parents, children, pairs, _before_training(children, axis))


def reordered(children: Zoo) -> bool:
    """Whether children go on in their parent's order and in another one."""
    return len(set(children.models["replicate_order"].to_pylist())) > 1


def read_control(parents: Zoo, children: Zoo, axis: str | None, clean: str | None) -> Children:
    """Features of clean children in their parent's order and of those in another, as `read` gives them. Raises ZooError."""
    check(parents, children)
    fixed = [n for n in children.manifest.factors if axis is None or n not in (axis, "subset")]
    twins: dict[Any, dict[int, str]] = {}
    for row in children.models.to_pylist():
        if axis is None or streams.level_label(row[axis]) == clean:
            key = tuple(str(row[n]) for n in (*fixed, "parent_id", "parent_step", "replicate_subset"))
            twins.setdefault(key, {})[row["replicate_order"]] = row["model_id"]
    pairs = [(two[0], two[1]) for two in twins.values() if {0, 1} <= two.keys()]
    if not pairs:
        raise ZooError(
            f"{children.name} has no clean children of one parent in two orders; build it with `replicates: {{order: 2}}`."
        )
    return _read(parents, children, pairs, [*fixed, "parent_step", "n_train"])


def _read(parents: Zoo, children: Zoo, pairs: list[tuple[str, str]], names: list[str]) -> Children:
    rows = {row["model_id"]: row for row in children.models.to_pylist()}
    places = {name: i for i, name in enumerate(rows)}
    course: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for name in dict.fromkeys(id for pair in pairs for id in pair):
        course[name] = _child(parents, children, rows[name])
    schedule = max((tuple(steps.tolist()) for steps, _, _ in course.values()), key=len)
    # Diverged before the end, or not moved, or from a parent that did not: the pair cannot be compared at every snapshot.
    complete = [
        pair for pair in pairs
        if all(tuple(course[i][0].tolist()) == schedule and np.isfinite(course[i][1]).all() for i in pair)
    ]  # fmt: skip
    ids, lineage = [a for a, _ in complete] + [b for _, b in complete], lineages(children)
    if not ids:
        raise ZooError(
            f"No twins of {children.name} can be compared: both need all snapshots, at the same steps, and weights that move, as their "
            "parent's have to."
        )
    return Children(
        np.stack([course[i][1] for i in ids]),
        np.array([lineage[i] for i in ids]),
        _metadata(children.models.select(names), [places[i] for i in ids]),
        np.stack([course[i][2] for i in ids]),
        _losses(parents, [(rows[i]["parent_id"], rows[i]["parent_step"]) for i in ids]),
        np.array(schedule),
    )


def _losses(parents: Zoo, snapshots: list[tuple[str, int]]) -> np.ndarray:
    """Test loss of parents at the snapshots that children start from; NaN where the zoo has none."""
    table = parents.table(["model_id", "step", "test_loss"]).to_pylist()
    known = {(r["model_id"], r["step"]): r["test_loss"] for r in table}
    return np.array([known[at] for at in snapshots], np.float64)


def _child(parents: Zoo, children: Zoo, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps since the change [T], features [T, F] and test loss [T] of a child."""
    parent, at = row["parent_id"], row["parent_step"]
    before = parents.select(model_id=parent).column("step").to_numpy()
    before = before[before < at]
    if not len(before):
        raise ZooError(
            f"Model {parent} of {parents.name} has no snapshot before step {at}, where {children.name} goes on: its "
            "last step is unknown. Continue from a later snapshot."
        )
    snapshots = children.select(model_id=row["model_id"])
    table = snapshots.table(["step", "test_loss", "weights_sha256"])
    order = np.argsort(table["step"].to_numpy())
    table = table.take(order)
    step, same = table["step"].to_numpy(), np.array(table["weights_sha256"].to_pylist()) == row["parent_sha256"]
    first = int(same.argmax()) + 1 if same.any() else 0  # its own copy of the parent's snapshot is no step
    start = int(step[first - 1]) if first else 0
    values = features(
        parents.vector(parent, int(before.max())), parents.vector(parent, at), snapshots.weights[order[first:]]
    )
    return step[first:] - start, values, table["test_loss"].to_numpy().astype(np.float64)[first:]


def _before_training(children: Zoo, axis: str) -> list[str]:
    """Columns that are known of a model before training, but for those that say its condition."""
    factors = variation.fixed_factors(axis, children.manifest.factors)
    return [*factors, "parent_step", "n_train", "replicate_init", "replicate_order", "replicate_subset"]


def _metadata(recipe: pa.Table, places: list[int]) -> np.ndarray:
    """The rows of a recipe as numbers; of settings that are all the same, one column that says nothing."""
    recipe = recipe.take(places)
    columns = Design(recipe)(recipe)
    return columns if columns.shape[1] else np.zeros((len(places), 1))


# ── detecting ─────────────────────────────────────────────────────────────────────────


def detect(children: Children, seed: int) -> Iterator[dict[str, Any]]:
    """Rows (snapshot, steps, detector, auc, low, high, …) for every snapshot since the change.

    AUC is the chance that a changed child scores above a clean one; a single feature's, which
    has no bounds, is below ½ where the change makes it smaller. `loss_change` is a logistic model of
    (child − parent) test loss and its absolute value. `null` is the model of all features
    where twins swap labels at random: its mean over `NULL_SWAPS` draws, and their 2.5th and 97.5th
    percentiles.
    """
    y, lineage = children.changed, children.lineage
    deals = [folds(lineage, seed, turn) for turn in range(DEALS)]
    change = children.test_loss - children.parent_loss[:, None]
    for t, step in enumerate(meters.over(children.steps.tolist(), "detection", "snapshots")):
        values = children.features[:, t]
        row = {"snapshot": t + 1, "steps": step, "n_pairs": len(y) // 2, "n_lineages": len(np.unique(lineage))}
        for i, name in enumerate(FEATURES):
            yield {**row, "detector": f"feature {name}", "auc": metrics.auc(y, values[:, i]), "low": None, "high": None}
        inputs = {
            **{family: values[:, _places(names)] for family, names in FAMILIES.items()},
            "all": values, "metadata": children.metadata,
            "loss_change": np.column_stack([change[:, t], np.abs(change[:, t])]),
        }  # fmt: skip
        for name, columns in inputs.items():
            if np.isfinite(columns).all():
                yield {**row, "detector": name, **bounded([out_of_fold(columns, y, f) for f in deals], y, lineage)}
        if np.isfinite(children.test_loss[:, t]).all():
            yield {**row, "detector": "test_loss", **bounded([children.test_loss[:, t]], y, lineage)}
        null = nulls(values, y, deals[0], seed)
        low, high = np.quantile(null, [0.025, 0.975])
        yield {**row, "detector": "null", "auc": float(null.mean()), "low": float(low), "high": float(high)}


def bounded(scores: Sequence[np.ndarray], y: np.ndarray, lineage: np.ndarray) -> dict[str, Any]:
    """AUC, the mean over scores [n] of several deals, and its exact bounds with one example a lineage."""
    won = np.mean([_won(score, y) for score in scores], axis=0)
    names, of = np.unique(lineage, return_inverse=True)
    found = intervals.proportion(np.clip(np.bincount(of, won) / np.bincount(of), 0.0, 1.0), names)
    return {"auc": found.value, "low": jsonable(found.low), "high": jsonable(found.high)}


def _won(score: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of the other kind that each child stands on the right side of, ties one half, [n]."""
    beats = np.sign(np.subtract.outer(score[y == 1], score[y == 0])) / 2 + 0.5  # (changed, clean)
    won = np.empty(len(y))
    won[y == 1], won[y == 0] = beats.mean(axis=1), beats.mean(axis=0)
    return won


def backdoor(children: Zoo, axis: str, changed: str, data: str | Path | None = None) -> dict[str, Any] | None:
    """Whether the attack of a level works at the end: success, the base rate, and what success adds; None without a trigger.

    The base rate is the share of the same images that go to the target with no trigger on. An attack
    works where the lower bound of what success adds is above `WORKS`; else the level is a change of data.
    """
    rows = children.models.to_pylist()
    ids = [r["model_id"] for r in rows if streams.level_label(r[axis]) == changed and r["trigger_frac"]]
    if not ids:
        return None
    found = children.evaluate(ids, data=data).table
    lineage = lineages(children)
    groups = np.array([lineage[i] for i in found["model_id"].to_pylist()])
    success, base = (found[name].to_numpy() for name in ("attack_success", "attack_base"))
    added = intervals.difference(base, success, groups, ends=(-1.0, 1.0))
    return {
        "success": intervals.mean(success, groups, ends=(0.0, 1.0)).to_json(), "base": intervals.mean(base, groups, ends=(0.0, 1.0)).to_json(),
        "added": added.to_json(), "works": bool(added.low > WORKS),
    }  # fmt: skip


def nulls(values: np.ndarray, y: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
    """AUCs of the logistic model where each pair of twins swaps labels with chance ½, [NULL_SWAPS]."""
    random = streams.generator("swapped twins", seed)
    aucs = np.empty(NULL_SWAPS)
    for turn in range(NULL_SWAPS):
        swap = random.random(len(y) // 2) < 0.5
        shuffled = np.where(np.concatenate([swap, swap]), 1 - y, y)
        aucs[turn] = metrics.auc(shuffled, out_of_fold(values, shuffled, fold))
    return aucs


def folds(lineage: np.ndarray, seed: int, turn: int = 0) -> np.ndarray:
    """The fold of every child, int [n]; lineages are dealt out whole, in random order."""
    names, code = np.unique(lineage, return_inverse=True)
    if len(names) < FOLDS:
        raise ZooError(
            f"{len(names)} lineages, those that share an initialization as one; {FOLDS}-fold cross-validation needs as many, none of "
            "them split. Continue more networks."
        )
    return (streams.permutation(streams.stream_key(["folds", seed]), len(names), turn) % FOLDS)[code]


def out_of_fold(values: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Scores [n] of a logistic regression (standardized inputs, L2, C = 1) that never saw the row's fold.

    Scores are ranks inside the fold, in (0, 1]: models of different folds have scales of their
    own, and an AUC over mixed scales is below ½ by chance alone (Airola et al. 2011).
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    score = np.empty(len(y))
    with threadpool_limits(1):  # a second thread for a few hundred rows makes a fit seven times slower
        for number in np.unique(fold):
            test = fold == number
            mean, spread = values[~test].mean(axis=0), values[~test].std(axis=0)
            standard = (values - mean) / np.where(spread > 0, spread, 1.0)
            model = LogisticRegression(max_iter=1000).fit(standard[~test], y[~test])
            held_out = model.decision_function(standard[test])
            score[test] = rankdata(held_out) / len(held_out)
    return score


def _places(names: Sequence[str]) -> list[int]:
    return [list(FEATURES).index(name) for name in names]
