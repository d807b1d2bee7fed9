"""benchmarks/results/dynamics.json → what stands between the markers of docs/dynamics.md.

In:  the results, as `benchmarks/dynamics.py` keeps them.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from typing import Any

from scipy import stats

from zoo_datasets.analysis import testing
from zoo_datasets.analysis.dynamics import guidance, populations, readings

# Mean balanced accuracy of 100 networks, one population each, from the figure legends of the
# released notebooks (github.com/netrias/DOODL3 at e3d316b), with the arguments of the metric swapped.
PUBLISHED = {
    "iris-epochs": {"100": 0.85, "150": 0.92, "300": 0.95, "450": 0.95},
    "iris-batch": {"10": 0.79, "20": 0.60, "40": 0.44},
    "iris-layers": {"2": 0.94, "3": 0.85, "4": 0.77},
    "iris-nodes": {"3": 0.94, "4": 0.95, "5": 0.95, "6": 0.95},
    "mnist-epochs": {"4": 0.75, "8": 0.88, "12": 0.90, "16": 0.93},
    "mnist-batch": {"32": 0.91, "64": 0.86, "128": 0.75, "256": 0.56},
    "mnist-layers": {"1": 0.75, "2": 0.84, "3": 0.79, "4": 0.78},
}
# The sweeps share one baseline: these published values are of the recipe of mnist-epochs 4, whose networks train alike.
SAME = {("mnist-batch", "128"): "mnist-epochs 4", ("mnist-layers", "1"): "mnist-epochs 4"}
OF_PUBLISHED, ROUNDING = 100, 0.005  # networks of a published value, and what its two digits leave open
ONE_RECIPE = "iris-layers 2 and iris-nodes 3 are one recipe with another seed, and are counted as two."
CLOSE, NEARLY = 0.02, 0.025  # of a published value, which has two digits
STEP = ("--map", "step", "--level", "epochs=450")
PUBLISHED_S = 68.6  # a Morse graph of 2^15 boxes in two dimensions, as the paper reports


def section(results: dict[str, Any]) -> str:
    """The Markdown between the markers: what was not run, what the numbers say, and all tables."""
    scored = results["populations"] + results["accuracies"]
    missing = ", ".join(f"`doodl3-{f}`" for f in PUBLISHED if f not in {r["family"] for r in scored})
    without = f"**Not run with this version:** {missing}. Nothing below is about them.\n\n" if missing else ""
    if results["accuracies"]:
        families = ", ".join(dict.fromkeys(f"`doodl3-{r['family']}`" for r in results["accuracies"]))
        without += f"**Compared in accuracy, without Morse graphs:** {families}.\n\n"
    if not scored:
        return without
    said = "\n".join(f"* {sentence}" for sentence in findings(results))
    tables = (
        accuracy(scored, results["published"]), graphs(results["populations"]), corrected(results), scores(results["populations"]),
        times(results),
    )  # fmt: skip
    return without + "\n".join([said, "", *tables])


def findings(results: dict[str, Any]) -> Iterator[str]:
    """Sentences whose words follow from comparisons made here."""
    rows = results["populations"]
    off = [
        abs(r["balanced_accuracy_published"]["value"] - r["published"])
        for r in rows + results["accuracies"]
        if r["published"] is not None
    ]
    yield (
        f"**Do our populations train as the published ones did?** {sum(d <= CLOSE for d in off)} of {len(off)} mean accuracies are "
        f"within {CLOSE} of the published value, {sum(d <= NEARLY for d in off)} within {NEARLY}; the farthest is off by {max(off):.3f}. "
        f"{_left_out(rows + results['accuracies'])}"
    )
    for family in dict.fromkeys(r["family"] for r in rows):
        yield _structure(family, [p for r in rows if r["family"] == family for p in r["structures"]])
    yield from _foretold(results)
    if results["step"]:
        yield _stepwise(results["step"])


def _left_out(rows: list[dict[str, Any]]) -> str:
    """The published values that stand in no row of their own."""
    have = {(r["family"], r["level"]) for r in rows}
    missing = [(f, level) for f, levels in PUBLISHED.items() for level in levels if (f, level) not in have]
    if not missing:
        return "All published values are compared."
    names = [
        f"{f} {level}" + (f" (the recipe of {SAME[f, level]})" if (f, level) in SAME else "") for f, level in missing
    ]
    return f"Of the {sum(map(len, PUBLISHED.values()))} published values these are not compared: {', '.join(names)}."


def _structure(family: str, populations: list[dict[str, Any]]) -> str:
    published = [p["published"] for p in populations]
    sets, unseen = [r["sets"] for r in published], [r["unseen"] for r in published if r["unseen"] is not None]
    none = {name: sum(p[name]["sets"] == 0 for p in populations) for name in ("mean", "confident")}
    said = f"**{family}**, {len(populations)} populations, published reading: {min(sets)} to {max(sets)} Morse sets"
    if unseen:
        said += f"; {min(unseen):.0%} to {max(unseen):.0%} of the recurrent boxes lie where no network started"
    said += _forms(published)
    return f"{said}. No Morse set in {none['mean']} of them with a fitted prior, in {none['confident']} with the doubt counted."


def _foretold(results: dict[str, Any]) -> Iterator[str]:
    tests, rows = results["tests"], [r["foretell"] for r in results["populations"] if "undefined" not in r["foretell"]]
    for when, words in (("start", "start can reach"), ("end", "end can reach")):
        t = tests[when]
        yield (
            f"**Fates and how training ends**, by what the {words}: of {t['n']} populations with more than one fate {t['below']} have p < {t['level']}; "
            f"{t['findings']} can be named after correction (least q {t['least_q']:.3f}). The map was fitted to these same networks, from their ends: "
            "such p are too small even where a start tells nothing, and only the held-out scores say what it foretells."
        )
    fates = [max(f["value"] for f in r["fates"].values()) for r in rows]
    all_weights = [r["all_weights"]["value"] for r in rows]
    yield (
        f"**From the start alone**, on held-out networks: of {tests['foretell']['n']} recipes fates foretell the better half in "
        f"{tests['foretell']['findings']} after correction (best AUC {max(fates):.2f}); a linear model of the same two coordinates in "
        f"{tests['same_weights']['findings']}, of all weights in {tests['all_weights']['findings']} (AUC {min(all_weights):.2f} to "
        f"{max(all_weights):.2f}), all held to the same shuffles and the same correction. These are counts of findings, no test of one against another."
    )


def _stepwise(step: list[dict[str, Any]]) -> str:
    kinds = next(k for k in step[0]["coordinate_kinds"] if k["kind"] == "spread")
    published = [p["readings"]["published"] for p in step]
    none = sum(p["readings"]["mean"]["sets"] == 0 for p in step)
    resampled = step[0]["resamples"]["published"]
    more = "more" if kinds["r2_held_out"] > kinds["r2_unmoved"] else "no more"
    return (
        f"**One step at a time** (`analyze dynamics ZOO {' '.join(STEP)}`): steps of {step[0]['step_epochs']:g} epochs, {step[0]['pairs']} pairs "
        f"of {step[0]['networks_of_pairs']} networks (as many as make {populations.MOST_PAIRS}) in each of {len(step)} populations. "
        f"R² {kinds['r2_held_out']:.3f} on held-out networks of the first, {kinds['r2_shuffled_held_out']:.3f} with ends dealt at random, "
        f"{kinds['r2_unmoved']:.3f} if nothing moved at all: the map knows {more} than that. "
        f"Published reading: {min(r['sets'] for r in published)} to {max(r['sets'] for r in published)} sets"
        + _forms(published)
        + f". With a fitted prior {none} of {len(step)} have no Morse set. {resampled['n']} resamples of the first "
        f"give {_count_of(resampled)} sets."
    )


def _forms(published: list[dict[str, Any]]) -> str:
    """How often each Conley index that is not zero comes in a population: least and most."""
    counts = [Counter(r["conley"]) for r in published if r["conley"] is not None]
    said = []
    for form in sorted({form for c in counts for form in c}, reverse=True):
        each = [c[form] for c in counts]
        said.append(f"`{form}` {min(each)}" + (f" to {max(each)}" if min(each) < max(each) else ""))
    return f"; sets of an index that is not zero: {', '.join(said)}" if said else ""


def _interval(record: dict[str, Any]) -> str:
    return f"{record['value']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"


def accuracy(rows: list[dict[str, Any]], tests: dict[str, Any]) -> str:
    lines = ["| population | published | ours, published metric | difference | least … most of populations | spread of one population | ours, right metric | networks |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        ours, means = r["balanced_accuracy_published"], r["population_means_published"]
        published = difference = least = spread = "–"
        if len(means) > 1:
            least, spread = f"{min(means):.3f} … {max(means):.3f}", f"{statistics.stdev(means):.3f}"
        if r["published"] is not None:
            published, difference = f"{r['published']:.2f}", f"{ours['value'] - r['published']:+.3f}"
            if abs(ours["value"] - r["published"]) > CLOSE:
                difference = f"**{difference}**"
        lines.append(
            f"| {r['family']} {r['level']} | {published} | {_interval(ours)} | {difference} | {least} | {spread} | "
            f"{_interval(r['balanced_accuracy'])} | {r['n_populations']} × {r['n'] // r['n_populations']} |"
        )
    beyond = [f"{t['name']} (q = {t['q']:.3f})" for t in tests["tests"] if t["q"] < testing.LEVEL]
    below = [f"{t['name']} ({t['p']:.4f})" for t in tests["tests"] if t["p"] < testing.LEVEL]
    notes = (
        f"Would {OF_PUBLISHED} networks of ours be as far off? Populations scatter as their networks do (variance of their means over a "
        f"{OF_PUBLISHED}th of that of networks: {tests['scatter_ratio']:.2f}, mean over recipes), so both sides' networks are the scatter, and {ROUNDING} of a "
        f"difference is the published value's rounding. p below {testing.LEVEL}: {', '.join(below) or 'none'}, of {len(tests['tests'])} where chance gives "
        f"{testing.LEVEL * len(tests['tests']):.1f}; after correction (Benjamini and Hochberg) beyond our spread: {', '.join(beyond) or 'none'}. "
        f"{ONE_RECIPE}"
    )
    return (
        "\n".join(lines)
        + "\n\nMeans over networks, 95 % intervals over init groups. The spread is the standard deviation "
        "of our populations' means: by so much a single population of 100, as each published value is one, misses "
        f"the mean of many. Bold: off by more than {CLOSE}. {notes}\n"
    )


def against_published(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each published value against ours: p if it is the mean of as many networks of ours, rounded; q over all of them."""
    known = [r for r in rows if r["published"] is not None]
    ratios, tests = [], []
    for r in known:
        ours, means = r["balanced_accuracy_published"], r["population_means_published"]
        error = (ours["high"] - ours["low"]) / 2 / stats.t.ppf(0.975, ours["n_groups"] - 1)
        of_network = error**2 * r["n"]
        if len(means) > 1:
            ratios.append(statistics.variance(means) * OF_PUBLISHED / of_network)
        off = max(0.0, abs(ours["value"] - r["published"]) - ROUNDING)
        p = 2 * stats.norm.sf(off / (error**2 + of_network / OF_PUBLISHED) ** 0.5)
        tests.append({"name": f"{r['family']} {r['level']}", "p": float(p)})
    for test, q in zip(tests, testing.corrected([t["p"] for t in tests]), strict=True):
        test["q"] = float(q)
    return {"tests": tests, "scatter_ratio": statistics.mean(ratios), "correction": "Benjamini-Hochberg"}


def graphs(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | Morse sets (cells of the largest) | recurrent cells where no start was | Conley indices | sets in resamples, least … median … most | different structures |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        one, resampled = r["readings"]["published"], r["resamples"]["published"]
        sizes = ", ".join(f"{s:,}" for s in sorted(one["sizes"], reverse=True)[:3])
        unseen = one["beyond_data"]["recurrent"]
        lines.append(
            f"| {r['family']} {r['level']} | {len(one['sizes'])}{f' ({sizes})' if sizes else ''} | "
            f"{'–' if unseen is None else f'{unseen:.0%}'} | {_indices(one)} | {_count_of(resampled)} | "
            f"{resampled['distinct_forms']} of {resampled['n']} |"
        )
    return "\n".join(lines) + (
        "\n\nThe published reading of the first population of each recipe, and its resamples of networks: how many sets they have, and how many different "
        "structures (sets, edges and order) they are; the other readings are in the results. "
        "Conley indices by CMGDB: those that are not zero, dimension by dimension; then how many are zero (recurrent boxes, "
        "perhaps no recurrence) and how many are undefined, at the edge of the box. –: no set, or over 20 million edges.\n"
    )


def _count_of(resampled: dict[str, Any]) -> str:
    sets = resampled["morse_sets"]
    return f"{sets['least']} … {sets['median']:g} … {sets['most']}"


def _indices(reading: dict[str, Any]) -> str:
    conley = reading.get("conley")
    if not conley:
        return "–"
    count = Counter("edge" if i is None else "zero" if set(i) == {"0"} else f"({', '.join(i)})" for i in conley)
    last = {"zero": 1, "edge": 2}
    names = sorted(count, key=lambda name: (last.get(name, 0), name))
    return ", ".join(f"{count[n]} {n}" if n in last or count[n] > 1 else n for n in names)


def scores(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | better half | fate, published | fate, mean | fate, confident | fates together | linear, same weights | linear, all weights |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        f = r["foretell"]
        if "undefined" not in f:
            fates = [_interval(f["fates"][n]) if f["fates"][n]["tells"] else "–" for n in readings.READINGS]
            weights = [f"{_interval(f[k])}, {_tested(f[k])}" for k in ("same_weights", "all_weights")]
            lines.append(
                f"| {r['family']} {r['level']} | {f['good_share']:.0%} | {' | '.join(fates)} | {_tested(f)} | {' | '.join(weights)} |"
            )
    return (
        "\n".join(lines)
        + f"\n\nAUC on held-out networks, 95 % intervals over init groups; p against {guidance.SHUFFLES:,} shuffles of good and bad, of the "
        "three readings together by their least; q corrected over recipes. –: all networks that were trained on share one fate, which ranks nobody.\n"
    )


def _tested(record: dict[str, Any]) -> str:
    return f"p = {record['p']:.4f}, q = {record['q']:.3f}"


FAMILIES = {
    "start": "accuracy and entropy by the start's fate, of populations", "end": "the same by the end's fate",
    "foretell": "held-out AUC of fates, of recipes", "same_weights": "held-out AUC of the same two coordinates",
    "all_weights": "held-out AUC of all weights",
}  # fmt: skip


def corrected(results: dict[str, Any]) -> str:
    lines = ["| tests | number | p < 0.05 | by chance | after correction | least q | permutations needed | taken |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for family, t in results["tests"].items():
        least = "–" if t["least_q"] is None else f"{t['least_q']:.4f}"
        taken = "–" if t["permutations_least"] is None else f"{t['permutations_least']:,}"
        chance = (
            "–" if family in ("start", "end") else f"{t['by_chance']:.1f}"
        )  # fitted to the networks that are tested
        lines.append(
            f"| {FAMILIES[family]} | {t['n']} | {t['below']} | {chance} | {t['findings']} | {least} | "
            f"{t['permutations_needed']:,} | {taken} |"
        )
    return "\n".join(lines) + (
        "\n\nA test is of a population, or of a recipe: its readings and statistics are joined by their least p. Benjamini and "
        "Hochberg's correction within each row: q is the share of false findings to expect if all tests up to this one are called "
        "findings. By chance: – where the map was fitted to the networks that are tested. Needed are 20 permutations for each (tests / 0.05); taken, the least of any test with p up to 0.1. Every p "
        "is in `benchmarks/results/dynamics.json`.\n"
    )


def times(results: dict[str, Any]) -> str:
    lines = [
        "| 2^15 boxes, 100 synthetic points | fit, s | predict at all corners, s | graph, sets, order, regions, s | all, s |",
        "|---|---|---|---|---|",
    ]
    for t in results["timing"]:
        lines.append(
            f"| {t['dimensions']}-D, {t['reading']} | {t['fit']:.3f} | {t['predict']:.3f} | {t['graph']:.3f} | {t['all']:.3f} |"
        )
    return "\n".join(lines) + (
        f"\n\nMedians of {results['timing'][0]['rounds']} rounds, one thread; the paper reports {PUBLISHED_S} s in 2-D. Networks trained by "
        + f"{', '.join(results['engines'])}. "
        + ", ".join(f"{k} {v}" for k, v in results["versions"].items()) + ".\n"
    )  # fmt: skip
