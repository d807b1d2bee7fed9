"""Fates of networks and how they ended → does the Morse graph tell anything about training?

In:  for each network the Morse sets that its start (or end) can reach, and its predictions.
Out: accuracy and entropy by fate with permutation p-values; how well the fate of the start
     foretells the final accuracy of networks that the analysis has not seen.

The held-out score repeats everything on the training networks alone: choice of coordinates,
surrogate, grid, Morse graph and the rate of good networks in each fate. Splits keep init
groups whole. Beside it stand linear models (ridge) of the same coordinates of the start, and of
all kernel weights, held to the same shuffles. The unit of a test is a population, not a reading of
it: readings and statistics are joined by their least p (`testing.joint`). Needs scikit-learn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals, metrics
from zoo_datasets.analysis import testing
from zoo_datasets.analysis.dynamics import coordinates, readings
from zoo_datasets.analysis.dynamics.cubes import Cubes
from zoo_datasets.analysis.dynamics.populations import Population, Predictions, pairs
from zoo_datasets.core import meters, permuting, streams
from zoo_datasets.errors import ZooError

FEWEST_OF_A_FATE = 5  # networks of a fate; rarer fates are put together
REST = "rare"
DIGITS = 12  # of a fate's excess over the overall share: a fate that all share exceeds it by rounding alone
FOLDS = 5
# A population takes the first; one whose p is below `testing.PROMISING` takes all, so that the least of 120
# populations could survive the correction: at least 20 · 120 / 0.05.
FIRST_PERMUTATIONS, PERMUTATIONS = 2000, 50_000
SHUFFLES = 10_000  # of good and bad networks, per recipe: 20 · 24 / 0.05 is 9,600
SHUFFLES_AT_ONCE = 1000
RIDGE = 1.0  # penalty on weights of inputs of standard deviation 1


def fates(reading: readings.Reading, points: np.ndarray) -> np.ndarray:
    """The fate of each point [n, d], a string; "beyond the box" where no cell holds it."""
    cells = reading.graph.cubes.cell_of(points)
    return np.where(cells < 0, "beyond the box", np.array(reading.graph.fates(cells), str))


def pooled(labels: Sequence[str] | np.ndarray) -> np.ndarray:
    """Labels, those of fewer than five networks called "rare"."""
    labels = np.asarray(labels, dtype=object)
    _, number, count = np.unique(labels, return_inverse=True, return_counts=True)
    return np.where(count[number] < FEWEST_OF_A_FATE, REST, labels).astype(str)


def associations(
    labels_of: Mapping[str, np.ndarray], predicted: Predictions, groups: np.ndarray, seed: int = 0,
    first: int = FIRST_PERMUTATIONS, most: int = PERMUTATIONS,
) -> dict[str, Any]:  # fmt: skip
    """Accuracy and ensemble entropy by fate in each reading, with p-values of the null that fates are dealt at random.

    Statistics: the share of the accuracy's variance between fates; the range of the fates'
    mean ensemble entropies (a permutation keeps the sizes, on which entropy depends). Networks of one group change places
    among each other, and whole groups with others of their size. All readings see the same permutations, so that `p` is one test of the population. None where every reading has one fate.
    """
    of = {name: pooled(labels) for name, labels in labels_of.items()}
    record: dict[str, Any] = {name: _groups(labels, predicted) for name, labels in of.items()}
    told = [name for name, labels in of.items() if len(np.unique(labels)) > 1]
    rng = streams.generator("association", seed)
    n = len(predicted.balanced)

    def statistics(count: int) -> np.ndarray:
        turns = permuting.permutations(groups, count, rng)
        return np.concatenate([_statistics(of[name], predicted, turns) for name in told], axis=1)

    if not told:
        return {"readings": record, "p": None, "n_permutations": 0}
    seen = np.concatenate([_statistics(of[name], predicted, np.arange(n)[None]) for name in told], axis=1)
    single, p, done = testing.staged(seen[0], statistics, first, most)
    for i, name in enumerate(told):
        record[name] |= {
            "accuracy_between": float(seen[0, 2 * i]), "entropy_range": float(seen[0, 2 * i + 1]),
            "p_accuracy": float(single[2 * i]), "p_entropy": float(single[2 * i + 1]),
        }  # fmt: skip
    return {"readings": record, "p": p, "n_permutations": done}


def _groups(labels: np.ndarray, predicted: Predictions) -> dict[str, Any]:
    accuracy = predicted.balanced
    groups = {
        str(name): {"n": int((labels == name).sum()), "balanced_accuracy": float(accuracy[labels == name].mean()),
                    "balanced_accuracy_median": float(np.median(accuracy[labels == name])),
                    "entropy": float(predicted.entropy((labels == name).astype(float)).mean())}
        for name in np.unique(labels)
    }  # fmt: skip
    return {"groups": groups, "p_accuracy": None, "p_entropy": None}


def _statistics(labels: np.ndarray, predicted: Predictions, turns: np.ndarray) -> np.ndarray:
    """Both statistics for each permutation of networks [B, n]: [B, 2]."""
    names, number = np.unique(labels, return_inverse=True)
    member = np.eye(len(names))[number].T  # [K, n]
    n, t, c = predicted.probabilities.shape
    flat = predicted.probabilities.reshape(n, t * c)
    between = _between(member, predicted.balanced[turns])
    # What permutes networks permutes labels by its inverse: both statistics are of one permutation, or `joint` takes them for strangers.
    inverse = np.argsort(turns, axis=1)
    ranges = np.empty(len(turns))
    for start in range(0, len(turns), 64):  # bounds memory: 64 ensembles of each fate at once
        ensembles = member[:, inverse[start : start + 64]].transpose(1, 0, 2)  # (b, K, n)
        mean = (ensembles / ensembles.sum(2, keepdims=True)).reshape(-1, n) @ flat
        entropy = -(mean * np.log(np.maximum(mean, 1e-300))).reshape(-1, t, c).sum(2).mean(1)
        entropy = entropy.reshape(-1, len(names))
        ranges[start : start + 64] = entropy.max(1) - entropy.min(1)
    return np.column_stack([between, ranges])


def correct(populations: Sequence[dict[str, Any]], levels: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Adds to every joint p-value of a report (`p`) what is left of it beside all tests of its family (`q`), in place.

    Five families: accuracy and entropy of a population by the fate of the start, the same by the fate of
    the end; and of a recipe the held-out scores of fates, of the same coordinates, and of all weights. What
    comes back holds every p-value, and says whether permutations were enough to find a single true effect.
    """
    families: dict[str, list[tuple[str, dict[str, Any]]]] = {
        f: [] for f in ("start", "end", "foretell", "same_weights", "all_weights")
    }
    for population in populations:
        for when in ("start", "end"):
            families[when].append((population["name"], population["guidance"][when]))
    for level in levels:
        foretold, name = level["foretell"], ", ".join(f"{k} {v}" for k, v in level["level"].items())
        if "undefined" not in foretold:
            families["foretell"].append((name, foretold))
            families["same_weights"].append((name, foretold["same_weights"]))
            families["all_weights"].append((name, foretold["all_weights"]))
    return {family: testing.correct(tests) for family, tests in families.items()}


def _between(member: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of the variance of each row of values [m, n] between the groups of member [K, n]."""
    centered = values - values.mean(1, keepdims=True)
    total = (centered**2).sum(1)
    sums = centered @ member.T  # [m, K]
    return np.divide((sums**2 / member.sum(1)).sum(1), total, out=np.zeros(len(total)), where=total > 0)


def good(accuracy: np.ndarray) -> np.ndarray:
    """The better half of the networks, int64 [n]: above the median, or at least at it where that splits more evenly."""
    above, at_least = accuracy > np.median(accuracy), accuracy >= np.median(accuracy)
    return (above if abs(above.mean() - 0.5) <= abs(at_least.mean() - 0.5) else at_least).astype(np.int64)


def foretell(
    population: Population, accuracy: np.ndarray, kind: str, names: Sequence[str], settings: readings.Settings,
    d: int = 2, seed: int = 0, n: int = SHUFFLES, how: str = "whole",
) -> dict[str, Any]:  # fmt: skip
    """AUC, on held-out networks, of "ends in the better half" from the start weights alone.

    By the fate in each reading of `names`, by a linear model of the same coordinates, and by one of all
    kernel weights; each against the same shuffles of good and bad. `p` is of all readings together.
    """
    y = good(accuracy)
    if min(y.sum(), len(y) - y.sum()) < FOLDS:
        return {"n": len(y), "undefined": "all networks end alike"}
    if (n_groups := len(np.unique(population.groups))) < FOLDS:
        return {"n": len(y), "undefined": f"{n_groups} init groups cannot be held out in {FOLDS} folds"}
    folds, models = _held_out(population, y, kind, names, settings, d, seed, how)
    groups, truth = population.groups, y[:, None].astype(np.float64)
    record: dict[str, Any] = {
        "n": len(y),
        "good_share": float(y.mean()),
        "coordinates": kind,
        "folds": FOLDS,
        "fates": {},
    }
    scores = {name: _rates(parts, truth)[:, 0] for name, parts in folds.items()}
    scores |= {name: _linear(parts, truth)[:, 0] for name, parts in models.items()}
    seen = np.array([metrics.auc(y, score) for score in scores.values()])
    null = np.empty((n, len(scores)))
    rng = streams.generator("foretell", seed)
    for start in meters.over(range(0, n, SHUFFLES_AT_ONCE), "what the start foretells", "bundles of shuffles"):
        count = min(SHUFFLES_AT_ONCE, n - start)
        mixed = y[permuting.permutations(groups, count, rng)].T.astype(np.float64)  # (networks, b)
        for i, (name, parts) in enumerate((*folds.items(), *models.items())):
            null[start : start + count, i] = testing.aucs(
                mixed,
                (_rates if i < len(folds) else _linear)(parts, mixed),  # type: ignore[arg-type]
            )
    single = testing.single(seen, null)
    for i, (name, score) in enumerate(scores.items()):
        one = intervals.score("auc", y, score, groups, seed=seed).to_json()
        one |= {"p": float(single[i]), "null_mean": float(null[:, i].mean()), "n_permutations": n}
        if name not in folds:
            record[name] = one
            continue
        fate = np.empty(len(y), object)
        for part in folds[name]:
            fate[part.test] = part.names[part.held_fates]

        record["fates"][name] = one | {
            "tells": bool(np.ptp(score) > 0),  # not where all training networks share one fate
            "n_of_fate": {str(k): int(v) for k, v in zip(*np.unique(pooled(fate), return_counts=True), strict=True)},
        }  # fmt: skip
    joint = testing.joint(seen[: len(folds)], null[:, : len(folds)])
    return record | {"p": joint, "n_permutations": n}


def held_out(
    population: Population, y: np.ndarray, names: Sequence[str], settings: readings.Settings, kind: str = "spread",
    d: int = 2, seed: int = 0, how: str = "whole",
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:  # fmt: skip
    """Of a target y [n], what each network's start foretells by models that never saw it: scores [n] by reading, by
    `same_weights` and by `all_weights`, 0 at the mean; and the networks of each fold, whose scores are of one model.

    Raises ZooError where there are fewer init groups than folds."""
    if (n_groups := len(np.unique(population.groups))) < FOLDS:
        raise ZooError(f"{n_groups} init groups cannot be held out in {FOLDS} folds. Build more replicates.")
    folds, models = _held_out(population, y, kind, names, settings, d, seed, how)
    target = y[:, None].astype(np.float64)
    scores = {name: _rates(parts, target)[:, 0] for name, parts in folds.items()}
    scores |= {name: _linear(parts, target)[:, 0] for name, parts in models.items()}
    return scores, [part.test for part in models["all_weights"]]


@dataclasses.dataclass(frozen=True)
class _Fold:
    train: np.ndarray  # rows
    test: np.ndarray
    fates: np.ndarray  # of the training networks' starts, as numbers into `names`
    held_fates: np.ndarray
    names: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Model:
    """A ridge regression is linear in its targets: `hat` [test, train] takes them to scores."""

    train: np.ndarray
    test: np.ndarray
    hat: np.ndarray


def _rates(folds: Sequence[_Fold], y: np.ndarray) -> np.ndarray:
    """Per network the share of good ones among training networks of its fate, drawn to the overall share by one of them.

    Less the overall share: held-out folds have the opposite excess, so that a fate that all
    share would score below chance. Rounded, so that it ranks nobody. `y` [n, B] holds B divisions into
    good and bad; so does what comes back.
    """
    score = np.empty(y.shape)
    for part in folds:
        overall = y[part.train].mean(0)  # (B,)
        size = 1 + max(part.fates.max(), part.held_fates.max())
        of_fate = np.eye(size)[part.fates].T  # (K, train)
        rate = (of_fate @ y[part.train] + overall) / (of_fate.sum(1)[:, None] + 1)
        score[part.test] = np.round(rate[part.held_fates] - overall, DIGITS)
    return score


def _linear(models: Sequence[_Model], y: np.ndarray) -> np.ndarray:
    """Per network the score of a model that was fitted to the others, for each division in y [n, B]; 0 at the overall share."""
    score = np.empty(y.shape)
    for part in models:
        score[part.test] = part.hat @ (y[part.train] - y[part.train].mean(0))
    return score


def _hat(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    middle, scale = inside.mean(0), inside.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    x, held = (inside - middle) / scale, (outside - middle) / scale
    return held @ np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T)


def _held_out(
    population: Population, y: np.ndarray, kind: str, names: Sequence[str], settings: readings.Settings, d: int, seed: int,
    how: str,
) -> tuple[dict[str, list[_Fold]], dict[str, list[_Model]]]:  # fmt: skip
    """Fates in folds that do not know the networks held out, and the linear models of both baselines."""
    from sklearn.model_selection import GroupKFold

    layout = population.architecture.layout
    places, _ = coordinates.kernels(layout)
    folds: dict[str, list[_Fold]] = {name: [] for name in names}
    models: dict[str, list[_Model]] = {"same_weights": [], "all_weights": []}
    splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in splitter.split(y, groups=population.groups):
        part = population.take(train)
        before, after, _ = pairs(part, how)
        chosen = coordinates.choose(kind, before, after, part.end, layout, d, seed)
        x, y_map = chosen.encode(before), chosen.encode(after)
        start, held = chosen.encode(part.start), chosen.encode(population.start[test])
        cubes = Cubes.around(np.concatenate([x, y_map, start]), settings.subdivisions)
        for name in names:
            reading = readings.read(name, x, y_map, cubes, settings)
            labels, code = np.unique(np.append(fates(reading, start), fates(reading, held)), return_inverse=True)
            folds[name].append(_Fold(train, test, code[: len(train)], code[len(train) :], labels))
        all_weights = (w[:, places].astype(np.float64) for w in (part.start, population.start[test]))
        models["same_weights"].append(_Model(train, test, _hat(start, held)))
        models["all_weights"].append(_Model(train, test, _hat(*all_weights)))
    return folds, models
