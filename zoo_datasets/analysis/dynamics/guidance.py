"""Fates of networks and how they ended → does the Morse graph tell anything about training?

In:  for each network the Morse sets that its start (or end) can reach, and its predictions.
Out: accuracy and entropy by fate with permutation p-values; how well the fate of the start
     foretells the final accuracy of networks that the analysis has not seen.

The held-out score repeats everything on the training networks alone: choice of coordinates,
surrogate, grid, Morse graph and the rate of good networks in each fate. Splits keep init
groups whole. The baseline is a logistic regression on the same coordinates of the start;
another one sees all kernel weights. Needs scikit-learn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from zoo_datasets import metrics
from zoo_datasets.analysis.dynamics import coordinates, readings
from zoo_datasets.analysis.dynamics.cubes import Cubes
from zoo_datasets.analysis.dynamics.populations import Population, Predictions, pairs
from zoo_datasets.core import streams

FEWEST_OF_A_FATE = 5  # networks of a fate; rarer fates are put together
REST = "rare"
FOLDS = 5
PERMUTATIONS = 2000  # the least p-value is 1 / 2001
LEVEL = 0.05


def fates(reading: readings.Reading, points: np.ndarray) -> np.ndarray:
    """The fate of each point [n, d], a string; "beyond the box" where no cell holds it."""
    cells = reading.graph.cubes.cell_of(points)
    return np.where(cells < 0, "beyond the box", np.array(reading.graph.fates(cells), str))


def pooled(labels: Sequence[str] | np.ndarray) -> np.ndarray:
    """Labels, those of fewer than five networks called "rare"."""
    labels = np.asarray(labels, dtype=object)
    _, number, count = np.unique(labels, return_inverse=True, return_counts=True)
    return np.where(count[number] < FEWEST_OF_A_FATE, REST, labels).astype(str)


def association(labels: np.ndarray, predicted: Predictions, seed: int = 0, n: int = PERMUTATIONS) -> dict:
    """Accuracy and ensemble entropy by fate, with p-values of the null that fates are dealt at random.

    Statistics: the share of the accuracy's variance between fates; the range of the fates'
    mean ensemble entropies (a permutation keeps the sizes, on which entropy depends).
    """
    labels = pooled(labels)
    names, number = np.unique(labels, return_inverse=True)
    accuracy = predicted.balanced
    groups = {
        str(name): {"n": int((labels == name).sum()), "balanced_accuracy": float(accuracy[labels == name].mean()),
                    "balanced_accuracy_median": float(np.median(accuracy[labels == name])),
                    "entropy": float(predicted.entropy((labels == name).astype(float)).mean())}
        for name in names
    }  # fmt: skip
    record: dict = {"groups": groups, "n_permutations": n, "p_accuracy": None, "p_entropy": None}
    if len(names) < 2:
        return record
    rng = streams.generator("association", seed)
    member = np.eye(len(names))[number].T  # [K, n]
    turns = np.stack([np.arange(len(labels)), *(rng.permutation(len(labels)) for _ in range(n))])
    between = _between(member, accuracy[turns])
    t, c = predicted.probabilities.shape[1:]
    entropies = np.empty((n + 1, len(names)))
    for start in range(0, n + 1, 256):  # bounds memory: 256 ensembles of each fate at once
        some = turns[start : start + 256]
        # Permuting labels by the inverse of what permutes networks: which is as random.
        ensembles = member[:, some].transpose(1, 0, 2)  # (b, K, n)
        mean = (ensembles / ensembles.sum(2, keepdims=True)).reshape(-1, len(labels)) @ predicted.probabilities.reshape(
            len(labels), -1
        )
        entropy = -(mean * np.log(np.maximum(mean, 1e-300))).reshape(-1, t, c).sum(2).mean(1)
        entropies[start : start + 256] = entropy.reshape(len(some), -1)
    ranges = entropies.max(1) - entropies.min(1)
    record["accuracy_between"] = float(between[0])
    record["entropy_range"] = float(ranges[0])
    record["p_accuracy"], record["p_entropy"] = p_value(between), p_value(ranges)
    return record


def p_value(statistics: np.ndarray) -> float:
    """Share of statistics at least as large as the first, which is the one seen; it counts itself."""
    return float((statistics >= statistics[0] * (1 - 1e-12)).mean())


def corrected(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The false discovery rate at which each p-value would be called a finding (Benjamini & Hochberg 1995), [n].

    Of findings at a rate of 0.05, 5 % are expected to be none, if the tests are independent or
    depend positively on each other, as readings of one population do.
    """
    from scipy.stats import false_discovery_control

    return false_discovery_control(p_values) if len(p_values) else np.zeros(0)


def correct(populations: Sequence[dict], levels: Sequence[dict]) -> dict[str, dict]:
    """Adds to every p-value of a report (`p…`) what is left of it beside all tests of its family (`q…`), in place.

    Three families: accuracy and entropy by the fate of the start, the same by the fate of the
    end, and the scores of `foretell`. What comes back says of each how many tests found something.
    """
    families: dict[str, list[tuple[dict, str]]] = {"start": [], "end": [], "foretell": []}
    for reading_of in (reading for population in populations for reading in population["guidance"].values()):
        for when in ("start", "end"):
            families[when] += [
                (reading_of[when], key) for key in ("p_accuracy", "p_entropy") if reading_of[when][key] is not None
            ]
    for level in levels:
        families["foretell"] += [(score, "p") for score in level["foretell"].get("fates", {}).values()]
    summary = {}
    for family, tests in families.items():
        p = np.array([record[key] for record, key in tests])
        q = corrected(p)
        for (record, key), value in zip(tests, q, strict=True):
            record["q" + key[1:]] = float(value)
        summary[family] = {
            "n": len(p), "level": LEVEL, "below": int((p < LEVEL).sum()), "by_chance": LEVEL * len(p),
            "findings": int((q < LEVEL).sum()), "least_p": float(p.min()) if len(p) else None,
            "least_q": float(q.min()) if len(p) else None, "correction": "Benjamini-Hochberg",
        }  # fmt: skip
    return summary


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
    d: int = 2, seed: int = 0, n: int = 500, how: str = "whole",
) -> dict:  # fmt: skip
    """AUC, on held-out networks, of "ends in the better half" from the start weights alone.

    By the fate in each reading of `names`, by logistic regression on the same coordinates, by
    logistic regression on all kernel weights; fates against a permutation null, and minus
    the regression on the same coordinates.
    """
    y = good(accuracy)
    if min(y.sum(), len(y) - y.sum()) < FOLDS:
        return {"n": len(y), "undefined": "all networks end alike"}
    folds, scores = _held_out(population, y, kind, names, settings, d, seed, how)
    groups = population.groups
    record: dict = {"n": len(y), "good_share": float(y.mean()), "coordinates": kind, "folds": FOLDS, "fates": {}}
    record |= {key: metrics.interval("auc", y, score, groups, seed=seed).to_json() for key, score in scores.items()}
    same = scores["same_weights"]

    def difference(labels: np.ndarray, rows: np.ndarray) -> float:
        return metrics.auc(labels, score[rows]) - metrics.auc(labels, same[rows])

    shuffled = [streams.generator("foretell", turn, seed).permutation(y) for turn in range(n)]
    for name, parts in folds.items():
        score = _rates(parts, y)
        one = metrics.interval("auc", y, score, groups, seed=seed).to_json()
        fate = np.empty(len(y), object)
        for part in parts:
            fate[part.test] = part.names[part.held_fates]
        null = np.array([metrics.auc(z, _rates(parts, z)) for z in shuffled])
        record["fates"][name] = one | {
            "minus_same_weights": metrics.interval(difference, y, np.arange(len(y)), groups, seed=seed).to_json(),
            "p": float((1 + (null >= one["value"]).sum()) / (n + 1)), "null_mean": float(null.mean()),
            "n_of_fate": {str(k): int(v) for k, v in zip(*np.unique(pooled(fate), return_counts=True), strict=True)},
        }  # fmt: skip
    return record


@dataclasses.dataclass(frozen=True)
class _Fold:
    train: np.ndarray  # rows
    test: np.ndarray
    fates: np.ndarray  # of the training networks' starts, as numbers into `names`
    held_fates: np.ndarray
    names: np.ndarray


def _rates(folds: Sequence[_Fold], y: np.ndarray) -> np.ndarray:
    """Per network the share of good ones among training networks of its fate, drawn to the overall share by one of them.

    Less the overall share: held-out folds have the opposite excess, so that a fate that all
    share would score below chance.
    """
    score = np.empty(len(y))
    for part in folds:
        overall = y[part.train].mean()
        size = 1 + max(part.fates.max(), part.held_fates.max())
        alike = np.bincount(part.fates, minlength=size)
        rate = (np.bincount(part.fates, y[part.train], size) + overall) / (alike + 1)
        score[part.test] = rate[part.held_fates] - overall
    return score


def _held_out(
    population: Population, y: np.ndarray, kind: str, names: Sequence[str], settings: readings.Settings, d: int, seed: int,
    how: str,
) -> tuple[dict[str, list[_Fold]], dict[str, np.ndarray]]:  # fmt: skip
    """Fates in folds that do not know the networks held out, and the baselines' scores."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    layout = population.architecture.layout
    places, _ = coordinates.kernels(layout)
    folds: dict[str, list[_Fold]] = {name: [] for name in names}
    scores = {"same_weights": np.empty(len(y)), "all_weights": np.empty(len(y))}
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
        for key, inside, outside in (
            ("same_weights", start, held), ("all_weights", part.start[:, places], population.start[test][:, places]),
        ):  # fmt: skip
            model = make_pipeline(StandardScaler(), LogisticRegression()).fit(inside, y[train])
            scores[key][test] = model.predict_proba(outside)[:, 1]
    return folds, scores
