"""Kept tables of `bench` → what stands between the markers of docs/benchmark.md.

In:  lines of `leaderboard.parquet`, of every folder that is kept.
Out: sentences, whose words follow from comparisons made here, and tables: accuracy by init group beside its ceiling and what the recipe
     says; learned on one zoo and asked of another; levels never seen; all other targets; pairs; what a fit costs. No number is typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pages

from zoo_datasets import lineage
from zoo_datasets.baselines import images
from zoo_datasets.baselines.known import ORACLE, is_control
from zoo_datasets.ranking import WORDS

ACCURACY = "test_accuracy"
RECIPE, IMAGES = ("metadata", "metadata-ridge"), "images"
THIRD = 1 / 3  # of what the recipe leaves, that weights may leave at most
MAIN = ("r2", "balanced_accuracy")
SCORES = ("r2", "kendall")
PICTURES = {
    "scores": "R² and τ beside their ceilings and controls",
    "transfer": "learned on one zoo and asked of another",
    "width": "learned at one width and asked of others",
    "curve": "by the number of networks that are learned from",
}
SHOWN = f"{images.COUNT} images"

Line = Mapping[str, Any]
Among = Callable[[str], bool]


def _named(*names: str) -> Among:
    return lambda name: name in names


def _weights(name: str) -> bool:
    """Whether a baseline reads weights, and is told nothing else."""
    return not is_control(name) and name != ORACLE


def _statistics(name: str) -> bool:
    return name.startswith("statistics")


def _whole(name: str) -> bool:
    """Whether it reads the weights themselves."""
    return _weights(name) and not _statistics(name)


# Columns of tables: the best of each kind.
KINDS: Mapping[str, Among] = {
    "recipe": _named(*RECIPE), SHOWN: _named(IMAGES), "statistics": _statistics, "whole networks": _whole,
}  # fmt: skip
HOME: Mapping[str, Among] = {
    "ceiling": _named(ORACLE), "recipe": _named(*RECIPE), "recipe + training metrics": _named("metadata+training"),
    SHOWN: _named(IMAGES), "statistics": _statistics, "whole networks": _whole, "recipe + statistics": _named("metadata+statistics"),
}  # fmt: skip
ONE = (
    SHOWN,
    "recipe + training metrics",
    "recipe + statistics",
    "ceiling",
)  # kinds of one baseline, which needs no name


def section(lines: Sequence[Line]) -> Iterator[str]:
    """The page's Markdown for every table that is kept."""
    lines = once(lines)
    good = [r for r in lines if r["error"] is None and _number(r["value"])]
    good = [r for r in good if r["n_train"] == _most(good, r)]
    home = [r for r in good if r["split"] == "iid" and "/from=" not in r["task"]]
    asked = [r for r in home if r["baseline"] != ORACLE and r["target"] == ACCURACY]
    zoos = list(dict.fromkeys(r["zoo"] for r in asked))
    if not zoos:
        yield "No population of networks that differ in accuracy has been asked with this version yet.\n"
        return
    yield from (f"* {sentence}" for zoo in zoos for sentence in findings(zoo, [r for r in home if r["zoo"] == zoo]))
    yield ""
    for stem, what in PICTURES.items():
        path = f"pictures/leaderboard-{stem}.svg"
        if (pages.DOCS / path).exists():
            yield f"![{what}]({path})\n"
    yield from _accuracy(zoos, home)
    yield from _every(zoos, home)
    yield from _over_statistics(zoos, home)
    yield from _by_number(
        [r for r in lines if r["error"] is None and r["split"] == "iid" and "/from=" not in r["task"]]
    )
    away = [r for r in good if r["target"] == ACCURACY and "/from=" in r["task"]]
    yield from _elsewhere(
        "**Learned on one zoo, asked of another:** test accuracy; R² against the mean of the networks that are asked:",
        ("learned on", "asked of"), [r for r in away if not _fresh(r)],
        lambda r: (pages.short(r["zoo"]), f"`{_plain(r['task'])}`"),
    )  # fmt: skip
    yield from _elsewhere(
        "**Networks that were built since,** by the same recipe from another seed; R² against the mean of those that were learned from:",
        ("learned on", "asked of"), [r for r in away if _fresh(r)],
        lambda r: (pages.short(r["zoo"]), f"`{_plain(r['task'])}`"),
    )  # fmt: skip
    yield from _elsewhere(
        "**A level that was never seen:** test accuracy of its networks:",
        ("zoo", "level"), [r for r in good if r["target"] == ACCURACY and _held_out(r)],
        lambda r: (pages.short(r["zoo"]), f"`{r['split']}`"),
    )  # fmt: skip
    yield from _targets(zoos, home)
    yield from _pairs(good)
    yield from _nulls(home)
    yield from _costs(zoos, home)


def once(lines: Iterable[Line]) -> list[Line]:
    """What several folders say of one question, as where one was gone on with under another name, is taken from the first."""
    first: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        first.setdefault(tuple(line.get(k) for k in ("zoo_digest", "task", "n_train", "baseline", "metric")), line)
    return list(first.values())


def _number(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def _most(lines: Sequence[Line], of: Line) -> int:
    """The largest number of networks that a task was learned from; smaller ones are the learning curve's."""
    same = ("zoo", "zoo_digest", "split", "task")
    return max(int(r["n_train"]) for r in lines if all(r[k] == of[k] for k in same))


def _fresh(line: Line) -> bool:
    """Whether a line is of networks that were built after a result was handed in."""
    return bool(line["task"].startswith(f"{line['zoo']}-fresh-"))


def _held_out(line: Line) -> bool:
    """Whether a line is of a level that nothing was learned from: `axis=level`, and no other question of that split."""
    return re.fullmatch(r"[^:=]+=[^:]*", line["split"]) is not None and "/from=" not in line["task"]


def _plain(task: str) -> str:
    """What is asked, of whom: a task without its owner, its source and what all of a table share."""
    return re.sub(r"/from=[^/@]+/[^/@]+", "", re.sub(r"^[^/]+/", "", task)).replace(f"/{ACCURACY}", "")


def _best(lines: Iterable[Line], metric: str, among: Among, target: str = ACCURACY) -> Line | None:
    """The best of a kind; of those that know the recipe alone the one that gains are over, which validation chose."""
    there = [r for r in lines if r["metric"] == metric and r["target"] == target]
    own = [r for r in there if among(r["baseline"])]
    if {r["baseline"] for r in own} <= set(RECIPE) and (control := {r.get("gain_over") for r in there} - {None}):
        own = [r for r in own if r["baseline"] in control]
    return max(own, key=lambda r: r["value"], default=None)


# ── sentences ─────────────────────────────────────────────────────────────────────────


def findings(zoo: str, home: Sequence[Line]) -> Iterator[str]:
    """What the numbers of a zoo say of its networks' accuracy."""
    best, known = (_best(home, "r2", kind) for kind in (_weights, _named(*RECIPE)))
    if best is not None and known is not None:
        ceiling = _best(home, "r2", _named(ORACLE))
        yield (
            f"**{pages.short(zoo)}: accuracy.** The best of the weights ({best['baseline']}) has an R² of {_value(best)}, the recipe alone "
            f"({known['baseline']}, tuned) {_value(known)}"
            + (f", an oracle {ceiling['value']:.4f}" if ceiling is not None else "")
            + f"{_left(best)}."
        )
    order, shown = (_best(home, "kendall", kind) for kind in (_whole, _named(IMAGES)))
    if order is not None and order["baseline"] != "flat":  # which `cheap` has, where no network was asked
        yield (
            f"**{pages.short(zoo)}: order.** τ of the best that reads the weights themselves ({order['baseline']}) is {_value(order)}{_beyond(order)}"
            + (
                f". {images.COUNT} labelled images run through each network reach {_value(shown)}"
                if shown is not None
                else ""
            )
            + "."
        )


def _left(row: Line) -> str:
    """What it leaves of what the recipe leaves, (1 − R²) / (1 − R² of the recipe), and whether that is a third at most."""
    if not _number(row.get("left")):
        return ""
    low, high = row["left_low"], row["left_high"]
    third = (
        "at most a third"
        if high <= THIRD
        else "more than a third"
        if low > THIRD
        else "a third lies inside these bounds"
    )
    seeds = f"; by seed {row['left_least_seed']:.2f} to {row['left_most_seed']:.2f}" if row["seeds"] > 1 else ""
    return f": it leaves {row['left']:.2f}{_bounds(low, high, '.2f')} of what the recipe leaves, {third}{seeds}"


def _beyond(row: Line) -> str:
    """Its lead over statistics on the same networks."""
    if not _number(row.get("beyond")):
        return ""
    low, high = row["beyond_low"], row["beyond_high"]
    known = _number(low) and _number(high)
    word = "no interval" if not known else "above" if low > 0 else "below" if high < 0 else "not told apart"
    return f", {_lead(row, 'beyond')} over {row['beyond_over']} on the same networks: {word}"


# ── tables ────────────────────────────────────────────────────────────────────────────


def _accuracy(zoos: Sequence[str], home: Sequence[Line]) -> Iterator[str]:
    rows = []
    for zoo in zoos:
        own = [r for r in home if r["zoo"] == zoo]
        for metric in (*SCORES, "kendall_trained", "kendall_within"):
            if (row := _row(own, metric, HOME)) is not None:
                rows.append((pages.short(zoo), f"{own[0]['n_train']:,}", *row))
    yield "**Test accuracy, by init group:** the best of each kind:\n"
    yield from pages.table(("zoo", "learned from", "asked", "", *HOME), rows)


def _elsewhere(
    what: str, head: tuple[str, str], lines: Sequence[Line], names: Callable[[Line], tuple[str, str]]
) -> Iterator[str]:
    """A table of tasks whose networks are not those of the split by init group."""
    rows = []
    for zoo, split, task in dict.fromkeys((r["zoo"], r["split"], r["task"]) for r in lines):
        own = [r for r in lines if (r["zoo"], r["split"], r["task"]) == (zoo, split, task)]
        for metric in SCORES:
            if (row := _row(own, metric, KINDS)) is not None:
                rows.append((*names(own[0]), *row))
    if rows:
        yield f"{what}\n"
        yield from pages.table((*head, "n", "", *KINDS), rows)


def _row(
    lines: Sequence[Line], metric: str, kinds: Mapping[str, Among], target: str = ACCURACY
) -> tuple[str, ...] | None:
    """How many networks were asked, the metric, and the best of each kind; None where there is none."""
    found = {name: _best(lines, metric, kind, target) for name, kind in kinds.items()}
    asked = max((r["n"] for r in found.values() if r is not None and r["n"]), default=None)
    cells = (
        "" if r is None else f"{_value(r)} {'' if name in ONE else r['baseline']}".strip() for name, r in found.items()
    )
    return None if asked is None else (f"{asked:,}", WORDS[metric], *cells)


def _every(zoos: Sequence[str], home: Sequence[Line]) -> Iterator[str]:
    """Every baseline on accuracy: R² and what it adds to the recipe."""
    at = {(r["baseline"], r["zoo"]): r for r in home if r["target"] == ACCURACY and r["metric"] == "r2"}
    names = [n for n in dict.fromkeys(name for name, _ in at) if n != ORACLE]
    names.sort(key=lambda n: -max(at[n, z]["value"] for z in zoos if (n, z) in at))
    yield "**R² of test accuracy, and its gain over the recipe, of every baseline:**\n"
    rows = [(n, *(_with_gain(at[n, z]) if (n, z) in at else "" for z in zoos)) for n in names]
    yield from pages.table(("baseline", *map(pages.short, zoos)), rows)


def _over_statistics(zoos: Sequence[str], home: Sequence[Line]) -> Iterator[str]:
    """What reading the weights themselves adds to statistics of them, on the same networks."""
    own = [r for r in home if r["target"] == ACCURACY and r["metric"] in SCORES and _number(r.get("beyond"))]
    at = {(r["baseline"], r["metric"], r["zoo"]): r for r in own}
    names = sorted(
        dict.fromkeys(r["baseline"] for r in own), key=lambda n: -max(r["beyond"] for r in own if r["baseline"] == n)
    )
    rows = [
        (n, WORDS[m], *(_lead(at[n, m, z], "beyond") if (n, m, z) in at else "" for z in zoos))
        for n in names
        for m in SCORES
    ]
    if rows:
        yield "**What readers of the weights themselves add to statistics,** those that validation likes best, on the same networks:\n"
        yield from pages.table(("baseline", "", *map(pages.short, zoos)), rows)


def _by_number(home: Sequence[Line]) -> Iterator[str]:
    """What the best reader of most networks leaves of what the recipe leaves, learned from fewer."""
    rows = []
    for zoo in dict.fromkeys(r["zoo"] for r in home):
        own = [
            r
            for r in home
            if r["zoo"] == zoo and r["target"] == ACCURACY and r["metric"] == "r2" and _number(r.get("left"))
        ]
        counts = sorted({r["n_train"] for r in own})
        best = _best([r for r in own if r["n_train"] == counts[-1]], "r2", _weights) if len(counts) > 1 else None
        if best is not None:
            found = sorted((r for r in own if r["baseline"] == best["baseline"]), key=lambda r: r["n_train"])
            rows += [
                (
                    pages.short(zoo),
                    r["baseline"],
                    f"{r['n_train']:,}",
                    _value(r),
                    f"{r['left']:.2f}{_bounds(r['left_low'], r['left_high'], '.2f')}",
                )
                for r in found
            ]
    if rows:
        yield "**Learned from fewer:** what the best reader of weights leaves of what the recipe, learned from as many, leaves:\n"
        yield from pages.table(("zoo", "baseline", "learned from", "R²", "left"), rows)


def _targets(zoos: Sequence[str], home: Sequence[Line]) -> Iterator[str]:
    """All other targets, by the best of each kind."""
    kinds = {name: HOME[name] for name in ("ceiling", "recipe", "statistics", "whole networks")}
    rows = []
    for target in dict.fromkeys(r["target"] for r in home if r["target"] != ACCURACY and r["zoo"] in zoos):
        for zoo in zoos:
            own = [r for r in home if r["zoo"] == zoo and r["target"] == target]
            for metric in MAIN:
                if (row := _row(own, metric, kinds, target)) is not None:
                    best = _best(own, metric, _weights, target)
                    rows.append((f"`{target}`", pages.short(zoo), *row, _gain(best) if best else ""))
    if rows:
        yield "**Other targets, by init group:** the best of each kind, and what the best of the weights adds to the recipe (its other axes):\n"
        yield from pages.table(("target", "zoo", "n", "", *kinds, "gain"), rows)


def _pairs(good: Sequence[Line]) -> Iterator[str]:
    """Tasks on pairs of networks, whose baselines are their own."""
    asked = [r for r in good if r["split"] == lineage.SPLIT and r["metric"] == "auc"]
    rows = []
    for task in dict.fromkeys(r["task"] for r in asked):
        of = {r["baseline"]: r for r in asked if r["task"] == task}
        first = next(iter(of.values()))
        counts = (f"{first['n']:,}", f"{first['n_groups']:,}")
        rows.append(
            (f"`{first['target']}`", pages.short(first["zoo"]), *counts, *(_value(of[b]) for b in lineage.BASELINES))
        )
    if rows:
        yield "**Pairs, by lineages that nothing was learned from:** AUC:\n"
        yield from pages.table(("task", "zoo", "pairs", "lineages", *lineage.BASELINES), rows)


def _nulls(home: Sequence[Line]) -> Iterator[str]:
    """What is left where targets were shuffled; low bounds above chance are a leak."""
    own = [r for r in home if r["target"] == ACCURACY and r["metric"] == "kendall" and _number(r.get("null_low"))]
    if not own:
        return
    leaks = [f"{r['baseline']} on {pages.short(r['zoo'])}" for r in own if r["null_low"] > 0]
    yield (
        f"**Shuffled targets,** fitted again: 2.5 to 97.5 % of τ. {'Above chance: ' + ', '.join(leaks) + '.' if leaks else 'None of these is above chance.'} "
        "Few shuffles give wide bounds, and so does who hardly foretells anything and orders by chance. Who foretells one number for all, because validation liked nothing else, has no τ; those shuffles are not counted.\n"
    )
    rows = [
        (r["baseline"], pages.short(r["zoo"]), f"[{r['null_low']:.3f}, {r['null_high']:.3f}]", str(r["shuffles"]))
        for r in own
    ]
    yield from pages.table(("baseline", "zoo", "τ", "shuffles"), rows)


def _costs(zoos: Sequence[str], home: Sequence[Line]) -> Iterator[str]:
    own = [r for r in home if r["target"] == ACCURACY and r["metric"] == "r2" and r["baseline"] != ORACLE]
    at = {(r["baseline"], r["zoo"]): r for r in own if _number(r["cpu_s"])}
    names = sorted(dict.fromkeys(n for n, _ in at), key=lambda n: -max(at[n, z]["cpu_s"] for z in zoos if (n, z) in at))
    rows = []
    for n in names:
        parameters = max(r["parameters"] or 0 for r in own if r["baseline"] == n)
        rows.append((n, f"{parameters:,}", *(f"{at[n, z]['cpu_s']:,.1f}" if (n, z) in at else "" for z in zoos)))
    yield "**What a fit of accuracy costs:** CPU seconds of a seed (of several that are averaged, of all of them) on one core, beside other work:\n"
    yield from pages.table(("baseline", "parameters", *map(pages.short, zoos)), rows)


# ── cells ─────────────────────────────────────────────────────────────────────────────


def _with_gain(row: Line) -> str:
    return "; ".join(filter(None, (_value(row), _gain(row))))


def _value(row: Line) -> str:
    return f"{row['value']:.3f}{_bounds(row['low'], row['high'], '.3f')}"


def _gain(row: Line) -> str:
    return _lead(row, "gain") if _number(row["gain"]) else ""


def _lead(row: Line, name: str) -> str:
    return f"{row[name]:+.3f}{_bounds(row[f'{name}_low'], row[f'{name}_high'], '+.3f')}"


def _bounds(low: float | None, high: float | None, how: str) -> str:
    """Nothing where there is no interval, as over one level or source."""
    return f" [{low:{how}}, {high:{how}}]" if _number(low) and _number(high) else ""
