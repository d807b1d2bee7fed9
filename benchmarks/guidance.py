"""Do dynamics help to train? Stop half of the networks early, by what their start says → benchmarks/results/guidance.json and docs.

    python benchmarks/guidance.py ZOO… [--most N]

Each ZOO is built from a grid under grids/doodl3/. At the end of the start epoch half of a population is stopped and fresh
networks are started in its place until the budget is spent: by the fate of their start in each reading, by a linear model of
the same coordinates or of all weights, by the training loss so far, or by lot. All rules look at the same epoch and keep the same
share, so at equal CPU all finish equally many networks, and differ in which: the gain is the mean final accuracy of those kept, less
the lot's. Rules that are fitted never saw the networks they judge. They learn, and the best is chosen, on one half of
the held-out images; gains are of the other. What fitting costs is not charged.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pages
from scipy import stats
from threadpoolctl import threadpool_limits

from zoo_datasets.analysis.dynamics import guidance, populations, readings
from zoo_datasets.analysis.dynamics.populations import Population, Predictions
from zoo_datasets.analysis.results import VERSIONS
from zoo_datasets.core import libraries
from zoo_datasets.zoo import Zoo, open_zoo

HERE = Path(__file__).parent
RESULT = HERE / "results" / "guidance.json"
PAGE = HERE.parent / "docs" / "dynamics.md"
SUBDIVISIONS = 12  # as held-out scores of `analyze dynamics`
FATES = {name: f"fate, {name}" for name in readings.READINGS}
FITTED = FATES | {"same_weights": "linear, same coordinates", "all_weights": "linear, all weights"}
LOSS = "training loss so far"
NAMES = {"iris": "Iris", "mnist": "MNIST"}
RULES = (*FITTED.values(), LOSS)
LEVEL = 1 - 0.05 / len(RULES)  # of each interval: those of one column hold at once with 95 % (Bonferroni)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="+", type=Path, metavar="ZOO")
    parser.add_argument("--most", type=int, default=5, help="populations of a level (default: 5)")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    longer: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for path in options.zoos:
            zoo, family = open_zoo(path), path.name.removeprefix("doodl3-")
            used = [p for p in populations.populations(zoo) if p.number < options.most]
            rows += [{"family": family, **gains(population)} for population in used]
            longer += [{"family": family, **r} for r in trained_longer(zoo, used)]
    result = {"versions": libraries.versions(VERSIONS), "rows": rows, "longer": longer, "summary": summary(rows)}
    RESULT.write_text(json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    pages.rewrite(PAGE, "guidance", section(result))


def gains(population: Population, seed: int = 0) -> dict[str, Any]:
    """By rule, how much better the half that it keeps ends than all networks do: balanced accuracy, on both halves of the images."""
    learned, judged = halves(populations.predictions(population))
    scores, folds = guidance.held_out(
        population, learned.balanced, list(readings.READINGS), readings.Settings(SUBDIVISIONS), seed=seed
    )
    score = {FITTED[name]: s for name, s in scores.items()} | {LOSS: -early_loss(population)}

    def gain(accuracy: np.ndarray, by: np.ndarray) -> float:
        return float(np.mean([kept(by[t], accuracy[t]) - accuracy[t].mean() for t in folds]))

    last = float(population.zoo.select(model_id=population.ids[0]).column("epoch").to_numpy().max())
    return {
        "name": population.name, "level": dict(population.level), "n": len(population), "accuracy": float(judged.balanced.mean()),
        "stopping_costs": population.start_epoch / (last + population.start_epoch),  # of the CPU of a network that is kept
        "best": gain(judged.balanced, judged.balanced),
        "gain": {rule: gain(judged.balanced, score[rule]) for rule in RULES},
        "gain_validation": {rule: gain(learned.balanced, score[rule]) for rule in RULES},
    }  # fmt: skip


def halves(predicted: Predictions) -> tuple[Predictions, Predictions]:
    """The images every second one of a class: rules learn on one half, and are judged on the other."""
    turn = np.empty(len(predicted.labels), np.int64)
    for c in np.unique(predicted.labels):
        of = np.flatnonzero(predicted.labels == c)
        turn[of] = np.arange(len(of)) % 2
    parts = (turn == i for i in range(2))
    first, second = (Predictions(predicted.labels[p], predicted.probabilities[:, p]) for p in parts)
    return first, second


def early_loss(population: Population) -> np.ndarray:
    """Training loss of each network at the start epoch, [n]."""
    found = population.zoo.select(epoch=population.start_epoch).table(["model_id", "train_loss"]).to_pylist()
    loss = {row["model_id"]: row["train_loss"] for row in found}
    return np.array([loss[i] for i in population.ids], np.float64)


def kept(score: np.ndarray, accuracy: np.ndarray) -> float:
    """Mean accuracy of the half with the higher scores; networks that tie at the border are drawn by lot, in expectation."""
    half = len(score) / 2
    border = np.sort(score)[::-1][int(np.ceil(half)) - 1]
    above, tied = score > border, score == border
    weight = above + tied * (half - above.sum()) / tied.sum()
    return float(weight @ accuracy / half)


def trained_longer(zoo: Zoo, used: Sequence[Population]) -> Iterator[dict[str, Any]]:
    """What the same CPU gains if nobody is stopped and all train for the start's epochs more, where a longer level of the sweep shows it.

    Of the same populations as the rules, in balanced accuracy on the same images.
    """
    if list(zoo.axes) != ["epochs"]:
        return
    of_level: dict[str, list[Population]] = {}
    for population in used:
        of_level.setdefault(population.level["epochs"], []).append(population)
    for shorter, longer in zip(of_level, list(of_level)[1:], strict=False):
        start = of_level[shorter][0].start_epoch
        there = zoo.select(epoch=float(shorter) + start)
        at = {model: i for i, model in enumerate(there.column("model_id").to_pylist())}
        after = Population.joined(of_level[longer])
        if not set(after.ids) <= set(at):
            continue
        after = dataclasses.replace(after, end=np.array(there.weights[np.array([at[i] for i in after.ids])]))
        ends, more = (
            halves(populations.predictions(p))[1].balanced for p in (Population.joined(of_level[shorter]), after)
        )
        low, high = stats.ttest_ind(more, ends, equal_var=False).confidence_interval(0.95)
        yield {"level": shorter, "gain": {"value": float(more.mean() - ends.mean()), "low": float(low), "high": float(high)},
               "n": [len(ends), len(more)]}  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean gains by data set, over recipes, with intervals over populations; of each rule less the loss too; and the rule chosen on validation."""
    record: dict[str, Any] = {}
    for data in dict.fromkeys(r["family"].split("-")[0] for r in rows):
        mine = [r for r in rows if r["family"].startswith(data)]

        recipes = np.array([f"{r['family']} {r['level']}" for r in mine])

        def over(values: list[float], recipes: np.ndarray = recipes) -> dict[str, float]:
            return of_recipes(np.array(values), recipes)

        record[data] = {
            "n_populations": len(mine), "n_recipes": len(set(recipes)), "best": over([r["best"] for r in mine]),
            "chosen": max(RULES, key=lambda rule: np.mean([r["gain_validation"][rule] for r in mine])),
            "gain": {rule: over([r["gain"][rule] for r in mine]) for rule in RULES},
            "less the loss": {rule: over([r["gain"][rule] - r["gain"][LOSS] for r in mine]) for rule in RULES[:-1]},
        }  # fmt: skip
    return record


def of_recipes(values: np.ndarray, recipes: np.ndarray, level: float = LEVEL) -> dict[str, float]:
    """The mean of recipes' means, and its interval over new populations of these recipes: recipes gain differently, and are not drawn.

    Variances of each recipe's mean add up; t with Welch and Satterthwaite's degrees of freedom. Raises SystemExit
    where a recipe has one population: nothing is known of its scatter.
    """
    parts = [values[recipes == r] for r in np.unique(recipes)]
    if alone := [str(r) for r, p in zip(np.unique(recipes), parts, strict=True) if len(p) < 2]:
        raise SystemExit(
            f"{alone[0]} has one population: an interval needs two. Build with more replicates, or raise --most."
        )
    variances = np.array([p.var(ddof=1) / len(p) for p in parts])
    value, variance = float(np.mean([p.mean() for p in parts])), variances.sum() / len(parts) ** 2
    if variance == 0:
        return {"value": value, "low": value, "high": value, "n_populations": len(values)}
    degrees = variances.sum() ** 2 / sum(v**2 / (len(p) - 1) for v, p in zip(variances, parts, strict=True))
    half = float(stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(variance))
    return {"value": value, "low": value - half, "high": value + half, "n_populations": len(values)}


# ── the page ──────────────────────────────────────────────────────────────────────────


def section(result: Mapping[str, Any]) -> str:
    """The Markdown between the markers."""
    said = [f"* {sentence}" for sentence in findings(result)]
    data = list(result["summary"])
    lines = ["| rule | " + " | ".join(f"{NAMES[d]}: gain | {NAMES[d]}: less the loss" for d in data) + " |", "|---" * (1 + 2 * len(data)) + "|"]  # fmt: skip
    for rule in RULES:
        of = (result["summary"][d] for d in data)
        lines.append(
            f"| {rule} | " + " | ".join(f"{_interval(s['gain'][rule])} | {_interval(s['less the loss'][rule]) if rule != LOSS else '–'}" for s in of) + " |"
        )  # fmt: skip
    counts = ", ".join(
        f"{s['n_recipes']} of {NAMES[d]} with {_each(s)} populations each" for d, s in result["summary"].items()
    )
    return (
        "\n".join(said)
        + "\n\n"
        + "\n".join(lines)
        + f"\n\nPoints of balanced accuracy, means over recipes, with t intervals over populations of these recipes: {counts}; those of one column hold at once with 95 % (Bonferroni over rules)."
        " iris-layers 2 and iris-nodes 3 are one recipe with another seed. Populations of one data set share its images. What fitting a rule costs is not charged; the loss and the lot have nothing to fit.\n"
    )


def findings(result: Mapping[str, Any]) -> Iterator[str]:
    """Sentences whose words follow from comparisons made here."""
    for data, of in result["summary"].items():
        rows = [r for r in result["rows"] if r["family"].startswith(data)]
        costs = [r["stopping_costs"] for r in rows]
        helps = [rule for rule in RULES if of["gain"][rule]["low"] > 0]
        harms = [rule for rule in RULES if of["gain"][rule]["high"] < 0]
        beaten = [rule for rule in RULES[:-1] if of["less the loss"][rule]["low"] > 0]
        fates = [rule for rule in FATES.values() if rule in helps]
        yield (
            f"**{NAMES[data]}**, {len(rows)} populations. Better than a lot: {'; '.join(helps) or 'none'}"
            + (f"; worse: {'; '.join(harms)}" if harms else "")
            + f"; {'fates gain in ' + str(len(fates)) + ' of ' + str(len(FATES)) + ' readings' if fates else 'no gain by fates can be claimed'}. "
            + f"Better than the loss, which needs no analysis: {'; '.join(beaten) or 'none'}. "
            f"Chosen on validation: {of['chosen']}, which gains {_interval(of['gain'][of['chosen']])}, by recipe {_spread(rows, of['chosen'])}; knowing the end would gain "
            f"{_interval(of['best'])}. Stopping costs a network that is kept {min(costs):.1%} to {max(costs):.1%} of its CPU."
        )
    if result["longer"]:
        said = ", ".join(
            f"{_interval(r['gain'])} at {r['family']} {r['level']} (by the loss {_of_loss(result, r)})"
            for r in result["longer"]
        )
        yield (
            "**Nobody stopped, and the CPU that stopping costs spent on two more epochs for all**, where a longer level of the sweep "
            f"has a snapshot there: {said}; balanced accuracy of the same populations on the same images; 95 % intervals (Welch) over networks."
        )  # fmt: skip


def _each(of: Mapping[str, Any]) -> str:
    """Populations a recipe, where all have as many; else their mean."""
    return f"{of['n_populations'] / of['n_recipes']:.2g}"


def _of_loss(result: Mapping[str, Any], longer: Mapping[str, Any]) -> str:
    """The mean gain of stopping by the loss in the same recipe."""
    mine = [r["gain"][LOSS] for r in result["rows"] if r["family"] == longer["family"] and longer["level"] in r["level"].values()]  # fmt: skip
    return f"{100 * np.mean(mine):+.2f}"


def _spread(rows: Sequence[Mapping[str, Any]], rule: str) -> str:
    """Least and largest mean gain of a recipe."""
    of: dict[str, list[float]] = {}
    for r in rows:
        of.setdefault(f"{r['family']} {r['level']}", []).append(100 * r["gain"][rule])
    means = [float(np.mean(v)) for v in of.values()]
    return f"{min(means):+.2f} to {max(means):+.2f}"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{100 * found['value']:+.2f} [{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"


if __name__ == "__main__":
    main()
