"""Zoos → networks with and without a backdoor, as pairs of twins, and which of them are worth detecting.

In:  zoos whose networks were trained with a trigger or without (`trigger_frac`), and share first weights, images and order.
Out: a `Population` of their last snapshots; with the test images, how often each attack works and what goes to its target anyway.

Twins are known by their keys, and a pair has one clean network. It `works` where of the images that would not go to the target
nine in ten do with the trigger on, and both networks classify clean images alike within 1 %: fixed before any detector was tried,
and counted by `outcomes`. A pair of which one diverged, or has no accuracy, is left out, and counted. The split is the zoo's own;
several zoos are divided anew, so that networks of one start are on one side whichever zoo they are of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import intervals, split_files
from zoo_datasets.errors import ZooError
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.sources import Subset
from zoo_datasets.sources.fields import columns_of
from zoo_datasets.zoo import Zoo

WORKS = 0.9  # of the images that would not go to the target
LEFT = 0.1  # of the images would not go to the target anyway, or there is no telling what a trigger does
MARGIN = 0.01  # of clean accuracy between twins
KEYS = ("init_key", "order_key", "subset_key")
# What may be held out: how it is called → the column that says it. Values are those of the trojaned twin.
FACTORS = {
    "trigger": "trigger_seed", "position": "trigger_row", "opacity": "trigger_opacity", "target": "trigger_target",
    "rate": "trigger_frac", "source": "source", "architecture": "layout",
}  # fmt: skip
# Columns that may say which arm a network is of: those that differ between twins are told to no control.
TELLING = ("subset", *columns_of(Subset))
LOSS = ("test_loss", "test_accuracy")
BY_CLASS = ("test_correct_per_class", "test_count_per_class")
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}  # of several zoos
MOST_DOSES = 8  # rates that are told apart; more are cut into so many parts of equal size


@dataclasses.dataclass(frozen=True)
class Population:
    """n networks, clean and trojaned."""

    architectures: tuple[Architecture, ...]
    architecture: np.ndarray  # (n,) int64, a place in `architectures`
    weights: Sequence[np.ndarray]  # n of (P,) float32
    earlier: Sequence[np.ndarray]  # n of (t, P) float32: snapshots before the last, in order of steps
    starts: np.ndarray  # (n,) bool: whether the first of `earlier` is the initialization
    trojaned: np.ndarray  # (n,) bool
    pair: np.ndarray  # (n,) int64, equal of twins
    group: np.ndarray  # (n,) text: init group
    split: np.ndarray  # (n,) text
    model: np.ndarray  # (n,) text
    factors: Mapping[str, np.ndarray]  # of `FACTORS`, (n,) text; of a clean network ""
    success: np.ndarray  # (n,) float64; NaN of a clean network
    base: np.ndarray  # (n,) float64
    dose: (
        np.ndarray
    )  # (n,) float64: rate, or the middle one of those like it where rates are many; NaN of a clean network
    works: np.ndarray  # (n,) bool, equal of all networks of a pair that have it
    recipe: pa.Table  # n rows: the recipe without what says the arm, and updates done
    loss: np.ndarray  # (n, 2) float64: loss and accuracy on clean test images
    steps: Sequence[tuple[int, ...]]  # n of: updates done at each of `earlier`
    classes: np.ndarray  # (n, C) float64: accuracy on clean test images of each class; NaN of a class without any

    @classmethod
    def of_weights(
        cls, architectures: tuple[Architecture, ...], architecture: np.ndarray, weights: Sequence[np.ndarray],
        names: Sequence[str], earlier: Sequence[np.ndarray] | None = None, starts: np.ndarray | None = None,
        loss: np.ndarray | None = None, recipe: pa.Table | None = None, steps: Sequence[tuple[int, ...]] | None = None,
    ) -> Population:  # fmt: skip
        """Networks of which nobody says whether they are trojaned."""
        n, unknown = len(weights), np.array([""] * len(weights), object)
        return cls(
            architectures, architecture, weights, [w[None][:0] for w in weights] if earlier is None else earlier,
            np.zeros(n, bool) if starts is None else starts, np.zeros(n, bool), np.arange(n), unknown, unknown,
            np.array(names, object), {name: unknown for name in FACTORS}, np.full(n, np.nan), np.full(n, np.nan),
            np.full(n, np.nan), np.zeros(n, bool), pa.table({"": pa.nulls(n)}) if recipe is None else recipe,
            np.full((n, len(LOSS)), np.nan) if loss is None else loss, [()] * n if steps is None else steps, np.zeros((n, 0)),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, rows: np.ndarray) -> Population:
        """Those networks, by places or by a mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        used, architecture = np.unique(self.architecture[rows], return_inverse=True)
        return Population(
            tuple(self.architectures[i] for i in used), architecture.astype(np.int64), [self.weights[int(i)] for i in rows], [self.earlier[int(i)] for i in rows],
            self.starts[rows], self.trojaned[rows], self.pair[rows], self.group[rows], self.split[rows], self.model[rows],
            {k: v[rows] for k, v in self.factors.items()}, self.success[rows], self.base[rows], self.dose[rows],
            self.works[rows], self.recipe.take(pa.array(rows)), self.loss[rows],
            [self.steps[int(i)] for i in rows], self.classes[rows],
        )  # fmt: skip

    def with_twins(self, trojaned: np.ndarray) -> np.ndarray:
        """Those of the trojaned networks (n,) bool, and the clean twins of each, as a mask."""
        mine = self.trojaned & trojaned
        return np.asarray(mine | (~self.trojaned & np.isin(self.pair, self.pair[mine])))


def read(zoos: Sequence[Zoo], data: str | Path | None = None) -> tuple[Population, dict[str, Any]]:
    """All pairs of the zoos, and how many networks fell out. Attacks are measured on the zoos' own test images.

    Raises ZooError where there is no pair, or the source is not at hand.
    """
    rows = [row for place, zoo in enumerate(zoos) for row in rows_of(zoo, place)]
    _divide(zoos, rows)
    gone, kinds = _paired(rows, "trigger_frac")
    twins = kinds[False] & kinds[True]
    if not twins:
        lacking = "network with a trigger" if not kinds[True] else "clean one that is a twin of one with a trigger"
        raise ZooError(
            f"{', '.join(z.name for z in zoos)} has no {lacking}; backdoors are looked for among twins, like those of "
            "grids/mlds/ds4.yaml."
        )
    kept = [r for r in rows if r["pair"] in twins - gone]
    if not kept:
        raise ZooError(
            f"In each of the {len(twins):,} pairs of twins one network diverged, or has no test accuracy; nothing is left to "
            "compare."
        )
    check_pairs(kept, "trigger_frac", "grids/mlds/ds4.yaml")
    counts = {
        "networks": len(rows), "diverged": sum(r["diverged"] for r in rows),
        "without_accuracy": sum(not r["diverged"] and not np.isfinite(r["scores"][1]) for r in rows),
        "without_a_twin": sum(r["pair"] not in twins for r in rows),
    }  # fmt: skip
    attacks = attacks_of(zoos, kept, data)
    return population_of(zoos, kept, attacks), counts


def clean(zoos: Sequence[Zoo]) -> Population:
    """The networks of clean data alone: the yardstick's, `trojaned` those of the second fixed set.

    Raises ZooError where there are not two sets.
    """
    rows = [row for place, zoo in enumerate(zoos) for row in rows_of(zoo, place) if not row["diverged"]]
    _divide(zoos, rows)
    for number, row in enumerate(rows):
        row["pair"] = number
    sides = sorted({row.get("subset_skip") or 0.0 for row in rows})
    if len(sides) != 2 or any(row["trigger_frac"] for row in rows):
        raise ZooError(
            f"{', '.join(z.name for z in zoos)} is no yardstick: clean networks of two sets are needed, one with "
            "`subset: {skip: …}`, like those of grids/backdoors/yardstick.yaml."
        )
    second = np.array([(row.get("subset_skip") or 0.0) == sides[1] for row in rows])
    for split in SPLITS:
        of_split = [bool(s) for s, row in zip(second, rows, strict=True) if row["split"] == split]
        if len(set(of_split)) < 2:
            raise ZooError(
                f"{', '.join(z.name for z in zoos)} is no yardstick: its {split} split has {len(of_split)} networks, not of both "
                "sets. Build more of them."
            )
    found = population_of(zoos, rows, {})
    return dataclasses.replace(found, trojaned=second, works=np.ones(len(rows), bool))


def wrong_labels(zoos: Sequence[Zoo]) -> Population:
    """Twins of which one learned wrong labels without a mark: `trojaned` are those, `dose` their share, and `works` all equal on clean images.

    Raises ZooError where there are none, or a trigger is among them.
    """
    rows = [row for place, zoo in enumerate(zoos) for row in rows_of(zoo, place)]
    names, like = ", ".join(z.name for z in zoos), "grids/backdoors/wrong-labels.yaml"
    if any(row["trigger_frac"] for row in rows):
        raise ZooError(
            f"{names} has networks with a trigger; wrong labels are looked at without one, like those of {like}."
        )
    gone, kinds = _paired(rows, "label_noise_frac")
    kept = [r for r in rows if r["pair"] in (kinds[False] & kinds[True]) - gone]
    if not kept:
        raise ZooError(f"{names} has no pair of twins of which one learned wrong labels, like those of {like}.")
    check_pairs(kept, "label_noise_frac", like)
    found = population_of(zoos, kept, {})
    wrong = np.array([bool(r["label_noise_frac"]) for r in kept])
    accuracy = {int(i): a for i, a, w in zip(found.pair, found.loss[:, 1], wrong, strict=True) if not w}
    equal = np.array(
        [abs(a - accuracy[int(i)]) <= MARGIN + 1e-12 for i, a in zip(found.pair, found.loss[:, 1], strict=True)]
    )
    mine = wrong & equal
    dose = np.where(wrong, [r["label_noise_frac"] for r in kept], np.nan)
    return dataclasses.replace(
        found, trojaned=wrong, dose=dose, works=np.asarray(mine | (~wrong & np.isin(found.pair, found.pair[mine])))
    )


def scanned(zoo: Zoo) -> Population:
    """The last snapshots of any zoo whose networks can be run, with the earlier ones; nothing is asked of its recipe."""
    table = zoo.table(["model_id", "step"]).to_pydict()
    at: dict[str, list[int]] = {}
    for position, model in enumerate(table["model_id"]):
        at.setdefault(model, []).append(position)
    built: dict[str, Architecture] = {}
    which, paths, steps = [], [], []
    for model, positions in at.items():
        own = sorted(positions, key=lambda p: table["step"][p])
        architecture = zoo.architecture(model).built()
        built.setdefault(architecture.id, architecture)
        which.append(list(built).index(architecture.id))
        paths.append(zoo.weights[np.array(own, np.int64)])
        steps.append(tuple(int(table["step"][p]) for p in own[:-1]))
    return Population.of_weights(
        tuple(built.values()), np.array(which, np.int64), [v[-1] for v in paths], list(at), [v[:-1] for v in paths],
        np.array([s[:1] == (0,) for s in steps], bool), steps=steps,
    )  # fmt: skip


def outcomes(population: Population) -> list[dict[str, Any]]:
    """By source and rate: how many attacks work, how many pairs are equal on clean images, how many are both."""
    p, rows = population, []
    accuracy = {int(i): float(a) for i, a, t in zip(p.pair, p.loss[:, 1], p.trojaned, strict=True) if not t}
    lost = np.array([float(a) - accuracy[int(i)] for i, a in zip(p.pair, p.loss[:, 1], strict=True)])
    for source, rate in sorted(
        {(s, float(d)) for s, d, t in zip(p.factors["source"], p.dose, p.trojaned, strict=True) if t}
    ):
        own = p.trojaned & (p.factors["source"] == source) & (p.dose == rate)
        rows.append({
            "source": source, "rate": rate, "pairs": int(own.sum()),
            "success": float(p.success[own].mean()), "base": float(p.base[own].mean()),
            "attack_works": int((lift(p.success[own], p.base[own]) >= WORKS).sum()),
            "attack_unknown": int(np.isnan(lift(p.success[own], p.base[own])).sum()),
            "equal_on_clean": int((np.abs(lost[own]) <= MARGIN + 1e-12).sum()), "both": int(p.works[own].sum()),
            "lost_accuracy": intervals.mean(-lost[own], p.group[own], ends=(-1.0, 1.0)).to_json(),
        })  # fmt: skip
    return rows


def lift(success: np.ndarray, base: np.ndarray) -> np.ndarray:
    """By how many images more go to the target with the trigger on, of those that would not go there anyway; NaN where these are too few.

    Net: images that the trigger moves away count against those that it moves there, so that one that does nothing is 0 on average.
    """
    left = 1.0 - base
    return np.asarray(np.where(left >= LEFT, (success - base) / np.maximum(left, LEFT), np.nan))


# ── reading ───────────────────────────────────────────────────────────────────────────


def rows_of(zoo: Zoo, place: int) -> list[dict[str, Any]]:
    """The rows of `models`, with the places of their snapshots. Raises ZooError for a zoo that knows no triggers."""
    lacking = [n for n in ("trigger_frac", *KEYS, "init_group", *LOSS) if n not in zoo.models.column_names]
    lacking = [n for n in lacking if n not in LOSS or n not in zoo.snapshots.column_names]
    if lacking:
        raise ZooError(f"{zoo.name} has no column {lacking[0]!r}; backdoors are looked for in zoos of this builder.")
    by_class = BY_CLASS if set(BY_CLASS) <= set(zoo.snapshots.column_names) else ()
    table = zoo.table(["model_id", "step", *LOSS, *by_class]).to_pydict()
    at: dict[str, list[int]] = {}
    for position, model in enumerate(table["model_id"]):
        at.setdefault(model, []).append(position)
    rows = zoo.models.to_pylist()
    for row in rows:
        own = sorted(at[row["model_id"]], key=lambda p: table["step"][p])
        values = [table[name][own[-1]] for name in LOSS]
        row |= {
            "place": place, "at": own, "earlier": tuple(int(table["step"][p]) for p in own[:-1]), "updates": table["step"][own[-1]],
            "scores": [np.nan if v is None else v for v in values], "classes": _shares(*(table[name][own[-1]] for name in by_class)), "diverged": row.get("stop_reason") == "diverged",
        }  # fmt: skip
    return rows


def _paired(rows: Sequence[dict[str, Any]], arm: str) -> tuple[set[int], dict[bool, set[int]]]:
    """Number the pairs by the keys of twins; those of which one fell out, and those that have networks without the arm and with it."""
    numbers: dict[tuple[Any, ...], int] = {}
    for row in rows:
        row["pair"] = numbers.setdefault((row["place"], *(row[k] for k in KEYS)), len(numbers))
    gone = {r["pair"] for r in rows if r["diverged"] or not np.isfinite(r["scores"][1])}
    return gone, {kind: {r["pair"] for r in rows if bool(r[arm]) is kind} for kind in (False, True)}


def _divide(zoos: Sequence[Zoo], rows: Sequence[dict[str, Any]]) -> None:
    """Several zoos get one split: each has divided its groups by their number, and another zoo's of one start differently."""
    if len(zoos) > 1:
        side = split_files.by_group(*zoos, fractions=SHARES).assignment
        for row in rows:
            row["split"] = side[row["model_id"]]


def check_pairs(rows: Sequence[dict[str, Any]], arm: str, like: str) -> None:
    """Raises ZooError where it is not known which network is the clean twin: the one of which `arm` is false."""
    clean: dict[int, str] = {}
    for row in rows:
        if not row[arm] and clean.setdefault(row["pair"], row["model_id"]) != row["model_id"]:
            raise ZooError(
                f"Networks {clean[row['pair']]} and {row['model_id']} are both clean twins of the same networks: they differ in "
                f"something else too. Select one of their levels, or build pairs, like {like}."
            )


def attacks_of(
    zoos: Sequence[Zoo], rows: Sequence[dict[str, Any]], data: str | Path | None
) -> dict[str, tuple[float, float]]:
    """Model → success and base rate of its attack, measured on the test images of its source."""
    found: dict[str, tuple[float, float]] = {}
    for place, zoo in enumerate(zoos):
        ids = [r["model_id"] for r in rows if r["place"] == place and r["trigger_frac"]]
        if ids:
            table = zoo.evaluate(ids, data=data).table
            values = [
                table[name].to_numpy(zero_copy_only=False).astype(float) for name in ("attack_success", "attack_base")
            ]
            found |= dict(
                zip(table["model_id"].to_pylist(), zip(*(v.tolist() for v in values), strict=True), strict=True)
            )
    return found


def population_of(
    zoos: Sequence[Zoo], rows: list[dict[str, Any]], attacks: Mapping[str, tuple[float, float]]
) -> Population:
    architectures: dict[str, Architecture] = {}
    which = []
    for row in rows:
        id = row["architecture_id"]
        if id not in architectures:
            architectures[id] = zoos[row["place"]].architecture(row["model_id"]).built()
        which.append(list(architectures).index(id))
    vectors = [zoos[row["place"]].weights[np.array(row["at"], np.int64)] for row in rows]  # of each (t + 1, P)
    trojaned = np.array([bool(r["trigger_frac"]) for r in rows])
    success, base = np.array([attacks.get(r["model_id"], (np.nan, np.nan)) for r in rows], float).T
    loss = np.array([r["scores"] for r in rows], float)
    pair = np.array([r["pair"] for r in rows], np.int64)
    factors = {
        name: np.array([_text(r.get(column)) if t else "" for r, t in zip(rows, trojaned, strict=True)], object)
        for name, column in FACTORS.items()
    }
    return Population(
        tuple(architectures.values()), np.array(which, np.int64), [v[-1] for v in vectors], [v[:-1] for v in vectors],
        np.array([r["earlier"][:1] == (0,) for r in rows]), trojaned, pair, np.array([r["init_group"] for r in rows], object),
        np.array([r["split"] for r in rows], object), np.array([r["model_id"] for r in rows], object), factors, success, base,
        _doses(rows), _working(trojaned, pair, success, base, loss[:, 1]), _recipe(zoos, rows), loss,
        [r["earlier"] for r in rows], _padded([r["classes"] for r in rows]),
    )  # fmt: skip


def _shares(correct: Sequence[int] | None = None, count: Sequence[int] | None = None) -> list[float]:
    """Accuracy of each class."""
    return [c / n if n else np.nan for c, n in zip(correct or (), count or (), strict=True)]


def _padded(rows: Sequence[list[float]]) -> np.ndarray:
    most = max(map(len, rows), default=0)
    return np.array([[*row, *[np.nan] * (most - len(row))] for row in rows], float).reshape(len(rows), most)


def _doses(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """The rate of each network, or the median of its part where there are too many to ask about each."""
    rate = np.array([r["trigger_frac"] or np.nan for r in rows], float)
    known = np.isfinite(rate)
    if len(np.unique(rate[known])) <= MOST_DOSES:
        return rate
    edges = np.quantile(rate[known], np.linspace(0, 1, MOST_DOSES + 1)[1:-1])
    part = np.searchsorted(edges, rate)
    return np.array(
        [np.median(rate[known & (part == k)]) if own else np.nan for k, own in zip(part, known, strict=True)]
    )


def _working(
    trojaned: np.ndarray, pair: np.ndarray, success: np.ndarray, base: np.ndarray, accuracy: np.ndarray
) -> np.ndarray:
    """Trojaned networks that work beside their clean twin, and the clean twins of those, (n,) bool."""
    of_clean = {int(i): a for i, a, t in zip(pair, accuracy, trojaned, strict=True) if not t}
    beside = np.array([of_clean.get(int(i), np.nan) for i in pair])
    with np.errstate(invalid="ignore"):
        mine = trojaned & (lift(success, base) >= WORKS) & (np.abs(accuracy - beside) <= MARGIN + 1e-12)
    return np.asarray(mine | (~trojaned & np.isin(pair, pair[mine])))


def _recipe(zoos: Sequence[Zoo], rows: Sequence[dict[str, Any]]) -> pa.Table:
    of_pair: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        of_pair.setdefault(row["pair"], []).append(row)
    twins = [own for own in of_pair.values() if len(own) > 1]

    def tells(name: str) -> bool:  # without twins any of them may
        return name in TELLING and not (twins and all(len({str(r.get(name)) for r in own}) == 1 for own in twins))

    names = [n for zoo in zoos for n in zoo.manifest.factors if not tells(n)]
    columns = {n: pa.array([r.get(n) for r in rows]) for n in dict.fromkeys(names)}
    columns["updates"] = pa.array([r["updates"] for r in rows])
    return pa.table({n: c for n, c in columns.items() if not pa.types.is_null(c.type)})


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
