"""benchmarks/results/trajectories.json → what stands between the markers of docs/trajectories.md.

In:  the record of each zoo, as `benchmarks/trajectories.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pages
import yaml

from zoo_datasets.analysis.trajectories.detection import REORDERED
from zoo_datasets.analysis.trajectories.ladder import whole_down_to
from zoo_datasets.analysis.trajectories.pictures import label
from zoo_datasets.analysis.trajectories.run import MOST_SNAPSHOTS

PICTURES = (
    "dendrogram",
    "steps",
    "ladder",
    "pca",
    "detection",
)  # what the names of those begin with that the page shows
GRIDS = Path(__file__).parents[1] / "grids" / "trajectories"
SHAPES = {
    "length": "path length Σ‖Δ‖", "chord": "chord", "tortuosity": "tortuosity, length / chord",
    "smoothness": "smoothness, mean cosine of consecutive steps", "curvature": "curvature, median over the path (rad per unit)",
    "first_step": "first step", "last_step": "last step", "shrinking": "share of steps shorter than the one before",
    "kendall_step_loss_along_training": "τ of step length and train loss along one training",
    "kendall_step_loss_across_models": "the same across models at equal epoch",
    "kendall_length_final_train_loss": "τ of path length and final training loss, across models",
    "kendall_length_final_test_accuracy": "τ of path length and final test accuracy, across models",
}  # fmt: skip
PERFECT = 0.999  # an F1 above it in every zoo is a sentence, and no rows
RUNGS_SHOWN = 3  # of the ladder: first, last, and evenly between; all are in the results and in the picture
HOWS = {"models_given": "given", "models_found": "found"}  # of networks, to the clusters that are put in order
ALGORITHMS = {"path": "path", "walk": "walk", "nearest_sort": "sort"}
# Whose numbers belong on the page: one that was not analyzed with this version is named there, and keeps no old numbers.
POPULATIONS = (
    "weightzoo/trajectories-digits", "weightzoo/trajectories-mnist-cnn", "weightzoo/trajectories-mnist-cnn-continued",
    "weightzoo/trajectories-mnist-cnn-reordered", "weightzoo/trajectories-mnist-mlp",
)  # fmt: skip


# ── the page ──────────────────────────────────────────────────────────────────────────


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    done = {*results, *(found["zoo"] for numbers in results.values() for found in numbers.get("detection", ()))}
    missing = [f"`{name}`" for name in POPULATIONS if name not in done]
    if missing:
        yield f"**Not run with this version:** {', '.join(missing)}. Nothing below is about them.\n"
    for name, numbers in sorted(results.items()):
        of, made = numbers["population"], numbers["settings"]
        yield f"### {name}\n"
        yield (
            f"{of['n_models']} networks{_less(name, of['n_models'])}, {of['n_snapshots']:,} snapshots of {of['n_params']:,} weights, from epoch "
            f"{made['first_epoch']:g} on{_chosen(made)}. Intervals: 95 %, over {of['n_groups']} init groups. "
            "Versions: " + ", ".join(f"{k} {v}" for k, v in numbers["versions"].items() if k in ("numpy", "scipy", "scikit-learn")) + ".\n"
        )  # fmt: skip
        yield from (f"* {sentence}" for sentence in findings(numbers))
        yield ""
        yield from _pictures(pages.short(name))
    yield "### Tables\n"
    yield "“(all)” beside a value: it is that of every network, so that nothing scattered and there is no interval.\n"
    of_zoo = {pages.short(name): numbers for name, numbers in sorted(results.items())}
    yield from _clusters(of_zoo)
    windows = {w["zoo"]: [] for n in of_zoo.values() for w in n["windows"]}
    for w in (w for n in of_zoo.values() for w in n["windows"]):
        windows[w["zoo"]].append(w)
    yield from _windows([w for name, rows in windows.items() if name in results for w in rows])
    yield from _regimes([w for name, rows in windows.items() if name not in results for w in rows])
    yield from _versions(of_zoo)
    yield from _shapes(of_zoo)
    yield from _detection([found for numbers in of_zoo.values() for found in numbers.get("detection", ())])


def _less(name: str, n: int) -> str:
    """Where fewer were built than the recipe asks for: that, and how."""
    asked = yaml.safe_load((GRIDS / f"{pages.short(name).removeprefix('trajectories-')}.yaml").read_text())[
        "replicates"
    ]
    return "" if n == asked else f" of the recipe's {asked} (`--limit {n}`)"


def _chosen(made: Mapping[str, Any]) -> str:
    """The options of the analysis that are not its defaults, as one types them."""
    said = [f"--dims {' '.join(map(str, made['dims']))}"] if made["dims"] else []
    said += [f"--most-snapshots {made['most_snapshots']}"] if made["most_snapshots"] != MOST_SNAPSHOTS else []
    return f" (`{' '.join(said)}`)" if said else ""


def findings(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers say, one sentence or two each; words follow from comparisons made here."""
    yield _whose(numbers["ladder"])
    yield from _when(numbers)
    paths = numbers["paths"]
    across = paths["kendall_step_loss_across_models"]
    loss, final = (paths[f"kendall_length_final_{name}"] for name in ("train_loss", "test_accuracy"))
    yield (
        f"**Steps and loss.** Along one training, where time can make it, τ is {_interval(paths['kendall_step_loss_along_training'], 2)}. "
        f"Across networks at equal epoch, where it cannot, {_interval(across, 2)}: {_sign(across, 'longer steps go with', 'loss')}. "
        f"The length of the whole path and the final training loss: τ {_interval(loss, 2)}, {_sign(loss, 'longer paths go with', 'loss')}; "
        f"and the final test accuracy: {_interval(final, 2)}, {_sign(final, 'longer paths go with', 'accuracy')}."
    )
    axis_of = {found["zoo"]: found["axis"] for found in numbers.get("detection", ())}
    for found in numbers.get("siblings", ()):
        yield _siblings(found, axis_of[found["zoo"]])
    for found in numbers.get("detection", ()):
        yield from _changed(found, numbers["population"]["n_models"])


def _sign(found: Mapping[str, Any], longer: str, what: str) -> str:
    if found["low"] is None or found["low"] <= 0 <= found["high"]:
        return "no relation can be claimed"
    return f"{longer} {'more' if found['low'] > 0 else 'less'} {what}"


def _siblings(found: Mapping[str, Any], axis: str | None) -> str:
    """Whether runs that start from one and the same snapshot are told apart; without an axis they differ in their order."""
    said = [
        f"over updates {r['first_step']:,} to {r['last_step']:,} {_families(r, found)}{_interval(r['found'], 2)} of the siblings are found whole, all of a family in "
        f"{_interval(r['whole'], 2)}; purity inside a family {_interval(r['purity'], 2)}, {r['null']:.2f} by labels dealt at random inside each update"
        for r in found["rows"]
    ]
    return (
        f"**Runs from one start, `{pages.short(found['zoo'])}`**, {found['n_families']} families of {' or '.join(map(str, found['siblings']))}: "
        f"{'; '.join(said)}. They differ in "
        + ("the order of their data alone." if axis is None else "their data." if axis == "subset" else f"`{axis}`.")
    )


def _families(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How many families have siblings left there, where runs ended before."""
    left = row.get("n_families", found["n_families"])
    return "" if left == found["n_families"] else f"({left} families, the others' runs have ended) "


def _whose(rows: Sequence[Mapping[str, Any]]) -> str:
    mine = [r for r in rows if (r["metric"], r["linkage"]) == ("euclidean", "single")]
    full = max(mine, key=lambda r: r["dimensions"])
    down_to = whole_down_to(rows)
    least = min(mine, key=lambda r: r["dimensions"])
    found = (
        f"Single linkage finds all {full['n_trajectories']} training runs down to {down_to:,} of {full['dimensions']:,} dimensions"
        if down_to is not None
        else f"Single linkage puts {full['purity']:.1%} of snapshots with their own run"
    )
    return (
        f"**Whose.** {found}; in {least['dimensions']} its purity is {least['purity']:.2f}. The nearest stranger of any "
        f"snapshot is {_times(full['separation'])} as far as the farthest nearest neighbor of one's own."
    )


def _times(separation: float | None) -> str:
    return "infinitely many times" if separation is None else f"{separation:.1f} times"


def _when(numbers: Mapping[str, Any]) -> Iterator[str]:
    name = numbers["zoos"][0]["name"]
    mine = [w for w in numbers["windows"] if w["zoo"] == name]
    first, last = mine[0], mine[-1]
    said = [
        f"over epochs {w['first_epoch']:g} to {w['last_epoch']:g} the walk has |τ| {w['order']['walk']['value']:.2f} and runs "
        f"forward in {w['forward']['walk']['value']:.0%} of networks, the path has {w['order']['path']['value']:.2f} and {w['forward']['path']['value']:.0%}"
        for w in (first, last)
    ]
    yield f"**When.** Order and direction are two questions: {'; '.join(said)}."
    others = [w for w in numbers["windows"] if w["zoo"] != name]
    if not others:
        return
    late = [w for w in others if w["first_epoch"] == max(v["first_epoch"] for v in others)]
    lost = [w for w in late if w["order"]["path"]["value"] < 0.5]
    mixed = [w for w in others if w["first_epoch"] == first["first_epoch"] and w["purity"] < 0.5]
    wrong = [w for w in late if w["order"]["path"]["value"] >= 0.5 and w["direction"]["weights grow"]["value"] < 0.9]
    back = [
        w for w in others
        if w["first_epoch"] == first["first_epoch"] and w["direction"]["weights grow"]["high"] < 0.5
        and w["level"] in [v["level"] for v in wrong]
    ]  # fmt: skip
    yield (
        f"**It depends on how networks are trained.** Of {len(late)} other recipes (optimizer, rate, labels), runs cannot be told apart "
        f"(purity below one half over all epochs) in {len(mixed)}"
        + (f": {'; '.join(_level(w['level']) for w in mixed)}" if mixed else "")
        + f". Over their last epochs ({late[0]['first_epoch']:g} to {late[0]['last_epoch']:g}), inside true runs, the order is lost "
        f"(|τ| below one half) in {len(lost)}"
        + (f": {'; '.join(_level(w['level']) for w in lost)}" if lost else "")
        + f". Where it is not, the growth of weights fails to give the direction (right in fewer than nine of ten networks) in {len(wrong)}"
        + (f": {'; '.join(_level(w['level']) for w in wrong)}" if wrong else "")
        + f", and in {len(back)} of them over all epochs it gives the other direction (upper bound below one half)"
        + ". The results have every stretch."
    )


def _level(level: Mapping[str, str]) -> str:
    return ", ".join(label(v) if k == "subset" and v != "full" else f"{k} {v}" for k, v in level.items() if v != "full")


def _changed(found: Mapping[str, Any], n_parents: int) -> Iterator[str]:
    name = pages.short(found["zoo"])
    by = _curves(found)
    changed = [c for c in by if c != REORDERED]
    if changed:
        sooner, later, same = [], [], []
        for c in changed:
            w, t = (_first_seen(by[c].get(d, [])) for d in ("all", "loss_change"))
            (sooner if (w or np.inf) < (t or np.inf) else later if (w or np.inf) > (t or np.inf) else same).append(
                _name(c, found)
            )
        yield (
            f"**Changed data, `{name}`**, {_of(by[changed[0]]['all'][-1]['n_lineages'], n_parents)}. The test loss is given the parent's loss as the weights are given "
            f"the parent's last step. A lower bound above one half comes first in the weights for {len(sooner)} of {len(changed)} conditions, "
            f"first in the loss for {len(later)}, at the same snapshot for {len(same)}: counts of bounds, each of one snapshot, no test of one against the other. At the last snapshot the weights have AUC "
            f"{min(by[c]['all'][-1]['auc'] for c in changed):.2f} to {max(by[c]['all'][-1]['auc'] for c in changed):.2f}, the loss "
            f"{min(by[c]['loss_change'][-1]['auc'] for c in changed):.2f} to {max(by[c]['loss_change'][-1]['auc'] for c in changed):.2f}."
        )  # fmt: skip
        none = [_name(c, found) for c in found["backdoors"] if not found["backdoors"][c]["works"]]
        works = [_name(c, found) for c in found["backdoors"] if found["backdoors"][c]["works"]]
        if found["backdoors"]:
            yield (
                f"**Backdoors, `{name}`.** The attack works in {len(works)} of {len(found['backdoors'])} conditions with a trigger"
                + (f" ({', '.join(works)})" if works else "")
                + (f"; {', '.join(none)}: no more than a change of the data." if none else ".")
            )
    if REORDERED in by:
        rows = by[REORDERED]["all"]
        told = [r for r in rows if not r["low"] <= 0.5 <= r["high"]]
        yield (
            f"**The control, `{name}`.** On the same data in another order the AUC is {min(r['auc'] for r in rows):.2f} to "
            f"{max(r['auc'] for r in rows):.2f} over {len(rows)} snapshots; bounds leave out one half at {len(told)} of them."
        )


def _of(lineages: int, parents: int) -> str:
    return f"{lineages} lineages" + (f" of the {parents} networks" if lineages < parents else "")


def _curves(found: Mapping[str, Any]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """condition → detector → rows by snapshot."""
    by: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in found["rows"]:
        by.setdefault(row["condition"], {}).setdefault(row["detector"], []).append(row)
    return by


def _first_seen(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Updates at the first snapshot from which on the lower bound stays above one half; None where it never does."""
    seen = None
    for row in rows:
        seen = (seen or row["steps"]) if row["low"] is not None and row["low"] > 0.5 else None
    return seen


def _seen(rows: Sequence[Mapping[str, Any]]) -> str:
    """From which update on; "not to the end" where a bound stood above one half for a while alone."""
    if (seen := _first_seen(rows)) is not None:
        return f"{seen:,}"
    return "not to the end" if any(r["low"] is not None and r["low"] > 0.5 for r in rows) else "never"


def _name(condition: str, found: Mapping[str, Any]) -> str:
    attack = found["backdoors"].get(condition)
    return label(condition) + (" (no backdoor)" if attack and not attack["works"] else "")


# ── tables ────────────────────────────────────────────────────────────────────────────


def _clusters(of_zoo: Mapping[str, Any]) -> Iterator[str]:
    lines, less = [], []
    for zoo, numbers in of_zoo.items():
        rows = numbers["ladder"]
        dims = list(dict.fromkeys(r["dimensions"] for r in rows))
        shown = sorted({round(i * (len(dims) - 1) / (RUNGS_SHOWN - 1)) for i in range(RUNGS_SHOWN)})
        for dimension in (dims[i] for i in shown):
            of = {(r["metric"], r["linkage"]): r for r in rows if r["dimensions"] == dimension}
            one = of["euclidean", "single"]
            purity = [
                " / ".join(f"{of[m, k]['purity']:.3f}" for k in ("single", "average", "complete", "ward"))
                for m in ("euclidean", "cosine")
            ]
            taus = [_interval(_cut({"value": one[t], "low": one[f"{t}_low"], "high": one[f"{t}_high"]}), 3)
                    for t in (f"tau_true_{a}" for a in ALGORITHMS)]  # fmt: skip
            lines.append(
                [
                    zoo,
                    f"{dimension:,}",
                    f"{one['energy_frac']:.3f}",
                    *purity,
                    "" if one["separation"] is None else f"{one['separation']:.2f}",
                    *taus,
                ]
            )
        part = {r["linkage"]: r["n_trajectories"] for r in rows}
        if len(set(part.values())) > 1:
            less.append(f"; in `{zoo}` all linkages but single see {part['ward']} trajectories")
    yield f"Whose and when, by dimensions kept; τ inside true clusters, Euclidean{''.join(less)}:\n"
    yield from pages.table(
        ["zoo", "dimensions", "of Σ‖w‖²", "purity single / average / complete / Ward, Euclidean", "the same, cosine", "separation",
         *(f"τ {a}" for a in ALGORITHMS.values())], lines,
    )  # fmt: skip


def _windows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines = []
    for w in rows:
        what = _level(w["level"]) or pages.short(w["zoo"])
        purity = "–" if w["purity"] is None else f"{w['purity']:.2f}"
        order = [f"{w['order'][a]['value']:.2f}" for a in ALGORITHMS]
        forward = [_interval(w["forward"][a], 2) for a in ("path", "walk")]
        rules = [f"{w['direction'][r]['value']:.2f}" for r in ("weights grow", "steps shrink", "loneliest first")]
        lines.append(
            [what, f"{w['first_epoch']:g}–{w['last_epoch']:g}", str(w["n_models"]), purity, *order, *forward, *rules]
        )
    yield "Order and direction apart, by stretch of training, inside true clusters:\n"
    yield from pages.table(
        ["recipe", "epochs", "networks", "purity", *(f"order &#124;τ&#124; {a}" for a in ALGORITHMS.values()), "forward, path", "forward, walk",
         "right: weights grow", "right: steps shrink", "right: loneliest first"], lines,
    )  # fmt: skip


def _regimes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line per recipe: its whole training, and its last stretch."""
    of_recipe: dict[str, list[Mapping[str, Any]]] = {}
    for w in rows:
        of_recipe.setdefault(_level(w["level"]) or pages.short(w["zoo"]), []).append(w)
    if not of_recipe:
        return
    lines = []
    for what, stretches in of_recipe.items():
        ends = stretches[0], stretches[-1]
        cells = [[w["purity"], w["order"]["path"]["value"], w["forward"]["path"]["value"], w["order"]["walk"]["value"],
                  w["forward"]["walk"]["value"], w["direction"]["weights grow"]["value"], w["direction"]["steps shrink"]["value"]]
                 for w in ends]  # fmt: skip
        lines.append(
            [what, *(" → ".join("–" if v is None else f"{v:.2f}" for v in pair) for pair in zip(*cells, strict=True))]
        )
    first, last = next(iter(of_recipe.values()))[0], next(iter(of_recipe.values()))[-1]
    yield (
        f"Other ways to train, {first['n_models']} networks each: epochs {first['first_epoch']:g} to {first['last_epoch']:g} → the last "
        f"stretch alone, {last['first_epoch']:g} to {last['last_epoch']:g}. The stretches between, and all intervals, are in the results.\n"
    )
    yield from pages.table(
        ["recipe", "purity", "order &#124;τ&#124; path", "forward, path", "order &#124;τ&#124; walk", "forward, walk", "right: weights grow", "right: steps shrink"], lines,
    )  # fmt: skip


def _shapes(of_zoo: Mapping[str, Any]) -> Iterator[str]:
    rows = [[words, *(_interval(n["paths"][k], 3) for n in of_zoo.values())] for k, words in SHAPES.items()]
    yield from pages.table(["path of a network, mean over networks", *of_zoo], rows)


def _versions(of_zoo: Mapping[str, Any]) -> Iterator[str]:
    """Scores of each algorithm; where it finds everything in every zoo, a sentence."""
    rows, perfect = [], []
    for name, words in ALGORITHMS.items():
        of = [
            n["versioning"][how][name][f"f1_{w}"]["value"]
            for n in of_zoo.values()
            for how in HOWS
            for w in ("pairs", "links")
        ]
        if min(of) >= PERFECT:
            perfect.append(words)
    for zoo, numbers in of_zoo.items():
        found, null = numbers["versioning"], numbers["null"]
        for name, words in ALGORITHMS.items():
            cells = [_interval(_cut(found[how][name][f"f1_{what}"]), 3) for how in HOWS for what in ("pairs", "links")]
            if words not in perfect:
                rows.append([zoo, words, *cells])
        nulls = [f"{null[f'f1_{what}']['mean']:.4f}" for what in ("pairs", "links")]
        purity, tau = null["purity"]["mean"], null["tau_true_path"]["mean"]
        rows.append(
            [
                zoo,
                f"null: labels shuffled {null['n_draws']} times; purity {purity:.3f}, τ path {tau:+.3f}",
                *nulls,
                "–",
                "–",
            ]
        )
    counts = ", ".join(f"{n['versioning']['models_found']['n_clusters']} in `{zoo}`" for zoo, n in of_zoo.items())
    yield f"Versions from a shuffled bag, F1 of ordered pairs and of links; clusters found by the largest gap: {counts}."
    yield (f"Above {PERFECT:g} everywhere: {' and '.join(perfect)}.\n" if perfect else "")
    heads = [f"{what}, number {words}" for words in HOWS.values() for what in ("pairs", "links")]
    yield from pages.table(["zoo", "order", *heads], rows)


def _detection(studies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row per condition of every zoo that goes on from another."""
    lines = []
    for found in studies:
        for condition, of in _curves(found).items():
            cells = []
            for detector in ("all", "loss_change"):
                rows = of[detector]
                ends = [_interval({"value": r["auc"], **r}, 2) for r in (rows[0], rows[-1])]
                cells += [ends[0], _seen(rows), ends[1]]
            attack = found["backdoors"].get(condition)
            success = f"{_interval(attack['success'], 2)}; {attack['base']['value']:.2f} without" if attack else "–"
            metadata = f"{of['metadata'][0]['auc']:.2f}" if "metadata" in of else "–"
            last = of["all"][-1]
            lines.append([pages.short(found["zoo"]), _name(condition, found), f"{last['n_lineages']}", f"{last['steps']:,}", *cells, success,
                          metadata, f"{of['null'][-1]['auc']:.2f}"])  # fmt: skip
    if not lines:
        return
    yield (
        f"Changed against clean, a pair of twins a lineage: AUC, {studies[0]['folds']}-fold by lineage, {studies[0]['deals']} deals of the folds, exact "
        "bounds with one example a lineage; `seen` from so many updates on, the lower bound above one half:\n"
    )
    yield from pages.table(
        ["zoo", "condition", "lineages", "updates", *(f"{d}: {a}" for d in ("weights", "test loss less the parent's") for a in ("after 1", "seen", "at the end")),
         "attack success at the end; base rate", "metadata alone", "labels swapped"], lines,
    )  # fmt: skip


def _pictures(name: str) -> Iterator[str]:
    for path in sorted((pages.DOCS / "pictures").glob(f"{name}-*.png")):
        yield f"![{path.stem.removeprefix(name + '-')} of {name}](pictures/{path.name})\n"


def _cut(found: Mapping[str, Any]) -> dict[str, Any]:
    """A t interval of what cannot exceed 1."""
    return {**found, "high": found["high"] and min(found["high"], 1.0)}


def _interval(found: Mapping[str, Any], digits: int) -> str:
    if found["value"] is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.{digits}f}"
    if found["low"] == found["high"]:  # no bounds: nothing scattered
        return f"{found['value']:.{digits}f} (all)"
    low = found["low"] + 0.0 if round(found["low"], digits) else 0.0  # no minus before a zero
    return f"{found['value']:.{digits}f} [{low:.{digits}f}, {found['high']:.{digits}f}]"
