"""Kept tables of `bench` → what stands between the markers of docs/benchmark.md.

In:  lines of `leaderboard.parquet`, of every folder that is kept.
Out: sentences, whose words follow from comparisons made here, and tables: accuracy by init group beside its ceiling and what the recipe
     says; learned on one zoo and asked of another; levels never seen; all other targets; what a fit costs. No number is typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pages

from zoo_datasets.baselines.known import SETS
from zoo_datasets.leaderboard import ORACLE, WORDS

ACCURACY = "test_accuracy"
RECIPE = ("metadata", "metadata-ridge")
IMAGES = "images"
THIRD = 1 / 3  # of what the recipe leaves, that weights may leave at most
WHOLE = ("probing", "neural-graph", "nfn", "scalegmn", "deep-sets", "tokens")  # what reads whole networks
MAIN = ("r2", "balanced_accuracy")
PICTURES = {
    "scores": "R² and τ beside their ceilings and controls",
    "transfer": "learned on one zoo and asked of another",
    "curve": "by the number of networks that are learned from",
}

Line = Mapping[str, Any]


def section(lines: Sequence[Line]) -> Iterator[str]:
    """The page's Markdown for every table that is kept."""
    good = [r for r in lines if r["error"] is None and r["value"] is not None and not math.isnan(r["value"])]
    home = [
        r for r in good if r["split"] == "iid" and r["task"].startswith(f"{r['zoo']}/") and "/from=" not in r["task"]
    ]
    full = [r for r in home if r["n_train"] == _most(home, r)]
    if not any(r["target"] == ACCURACY for r in full):
        yield "No population of networks that differ in accuracy has been asked with this version yet.\n"
        return
    yield from (f"* {sentence}" for sentence in findings(full))
    yield ""
    for stem, what in PICTURES.items():
        path = f"pictures/leaderboard-{stem}.svg"
        if (pages.DOCS / path).exists():
            yield f"![{what}]({path})\n"
    yield from _accuracy(full)
    yield from _statistics(full)
    yield from _asked_of_others([r for r in good if r["target"] == ACCURACY and "/from=" in r["task"]])
    yield from _levels([r for r in good if r["target"] == ACCURACY and r["split"] != "iid"])
    yield from _targets(full)
    yield from _costs(full)


def _most(lines: Sequence[Line], of: Line) -> int:
    return max(int(r["n_train"]) for r in lines if (r["zoo"], r["target"]) == (of["zoo"], of["target"]))


# ── who is best at what ───────────────────────────────────────────────────────────────


def _zoos(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(r["zoo"] for r in lines if r["target"] == ACCURACY))


def _weights(name: str) -> bool:
    """Whether a baseline reads weights, and nothing else that a control is told."""
    return name not in SETS["controls"] and name != ORACLE


def _best(lines: Iterable[Line], metric: str, among: Any, target: str = ACCURACY, zoo: str = "") -> Line | None:
    own = [
        r for r in lines if r["metric"] == metric and r["target"] == target and r["zoo"] == zoo and among(r["baseline"])
    ]
    return max(own, key=lambda r: r["value"], default=None)


def _named(names: Sequence[str]) -> Any:
    return lambda name: name in names


def findings(full: Sequence[Line]) -> Iterator[str]:
    """What the numbers say, a sentence for each zoo and question."""
    for zoo in _zoos(full):
        best, known = _best(full, "r2", _weights, zoo=zoo), _best(full, "r2", _named(RECIPE), zoo=zoo)
        ceiling = _best(full, "r2", _named((ORACLE,)), zoo=zoo)
        if best is not None and known is not None:
            share = (1 - best["value"]) / (1 - known["value"])
            yield (
                f"**{pages.short(zoo)}: accuracy.** The best of the weights ({best['baseline']}) leaves {1 - best['value']:.3f} of the variance, the recipe alone "
                f"({known['baseline']}, tuned) {1 - known['value']:.3f}: {share:.2f} of it, {'at most' if share <= THIRD else 'more than'} a third"
                + (f"; an oracle leaves {1 - ceiling['value']:.4f}" if ceiling is not None else "")
                + "."
            )
        order, old = _best(full, "kendall", _named(WHOLE), zoo=zoo), _best(full, "kendall", _statistics_alone, zoo=zoo)
        shown = _best(full, "kendall", _named((IMAGES,)), zoo=zoo)
        if order is not None and old is not None:
            apart = (
                order["low"] is not None
                and old["high"] is not None
                and (order["low"] > old["high"] or order["high"] < old["low"])
            )
            yield (
                f"**{pages.short(zoo)}: order.** τ of the best that reads whole networks ({order['baseline']}) is {_value(order)}, of the best statistics "
                f"({old['baseline']}) {_value(old)}: the intervals {'lie apart' if apart else 'overlap'}"
                + (f". 128 labelled images run through each network reach {_value(shown)}" if shown is not None else "")
                + "."
            )


def _statistics_alone(name: str) -> bool:
    return name.startswith("statistics")


# ── tables ────────────────────────────────────────────────────────────────────────────


def _accuracy(full: Sequence[Line]) -> Iterator[str]:
    yield "**Test accuracy, by init group:** R² and τ of the best of each kind, on the same test networks:\n"
    rows = []
    for zoo in _zoos(full):
        one = next(r for r in full if r["zoo"] == zoo and r["target"] == ACCURACY and r["baseline"] != ORACLE)
        for metric in ("r2", "kendall", "kendall_trained", "kendall_within"):
            kinds = (
                _named((ORACLE,)),
                _named(RECIPE),
                _named(("metadata+training",)),
                _named((IMAGES,)),
                _statistics_alone,
                _named(WHOLE),
                _named(("metadata+statistics",)),
            )
            found = [_best(full, metric, kind, zoo=zoo) for kind in kinds]
            if any(found):
                rows.append(
                    (pages.short(zoo), f"{one['n_train']:,}", f"{one['n']:,}", WORDS[metric], *map(_cell, found))
                )
    head = (
        "zoo",
        "learned from",
        "asked",
        "",
        "ceiling",
        "recipe",
        "recipe + training metrics",
        "128 images",
        "statistics",
        "whole networks",
        "recipe + statistics",
    )
    yield from pages.table(head, rows)


def _statistics(full: Sequence[Line]) -> Iterator[str]:
    """Every baseline on accuracy: R² and what it adds to the recipe."""
    zoos = _zoos(full)
    names = [n for n in dict.fromkeys(r["baseline"] for r in full if r["target"] == ACCURACY) if n != ORACLE]
    value = {(r["baseline"], r["zoo"]): r for r in full if r["target"] == ACCURACY and r["metric"] == "r2"}
    names.sort(key=lambda n: -sum(value[n, z]["value"] for z in zoos if (n, z) in value))
    yield "**R² of test accuracy, and its gain over the recipe, of every baseline:**\n"
    cell = lambda r: "" if r is None else _value(r) + (f"; {_gain(r)}" if r["gain"] is not None else "")  # noqa: E731
    yield from pages.table(
        ("baseline", *map(pages.short, zoos)), [(n, *(cell(value.get((n, z))) for z in zoos)) for n in names]
    )


def _asked_of_others(lines: Sequence[Line]) -> Iterator[str]:
    """R² (against the mean of the networks asked) and τ of who was learned elsewhere."""
    if not lines:
        return
    yield "**Learned on one zoo, asked of another:** test accuracy; R² against the mean of the networks that are asked:\n"
    rows = []
    for task in dict.fromkeys(r["task"] for r in lines):
        own = [
            r
            for r in lines
            if r["task"] == task and r["n_train"] == max(x["n_train"] for x in lines if x["task"] == task)
        ]
        zoo = own[0]["zoo"]
        asked = re.sub(r"^[^/]+/", "", re.sub(r"/from=.*", "", task)).replace(f"/{ACCURACY}", "")
        for metric in ("r2", "kendall"):
            kinds = (_named(RECIPE), _named((IMAGES,)), _statistics_alone, _named(WHOLE))
            found = [_best(own, metric, kind, zoo=zoo) for kind in kinds]
            rows.append((pages.short(zoo), asked, _asked(own), WORDS[metric], *map(_cell, found)))
    yield from pages.table(
        ("learned on", "asked of", "n", "", "recipe", "128 images", "statistics", "whole networks"), rows
    )


def _levels(lines: Sequence[Line]) -> Iterator[str]:
    """R² and τ on a level that nothing was learned from."""
    lines = [r for r in lines if r["split"] not in ("transfer",)]
    if not lines:
        return
    yield "**A level that was never seen:** test accuracy of its networks:\n"
    rows = []
    for zoo, split in dict.fromkeys((r["zoo"], r["split"]) for r in lines):
        own = [r for r in lines if (r["zoo"], r["split"]) == (zoo, split)]
        for metric in ("r2", "kendall"):
            kinds = (_named(RECIPE), _named((IMAGES,)), _statistics_alone, _named(WHOLE))
            found = [_best(own, metric, kind, zoo=zoo) for kind in kinds]
            rows.append((pages.short(zoo), split, _asked(own), WORDS[metric], *map(_cell, found)))
    yield from pages.table(("zoo", "level", "n", "", "recipe", "128 images", "statistics", "whole networks"), rows)


def _targets(full: Sequence[Line]) -> Iterator[str]:
    """All other targets, by the best of each kind."""
    rows = []
    for zoo, target in dict.fromkeys((r["zoo"], r["target"]) for r in full if r["target"] != ACCURACY):
        if zoo not in _zoos(full):
            continue
        metric = next(
            (m for m in MAIN if any(r["metric"] == m for r in full if (r["zoo"], r["target"]) == (zoo, target))), None
        )
        if metric is None:
            continue
        kinds = (_named((ORACLE,)), _named(RECIPE), _statistics_alone, _named(WHOLE))
        found = [_best(full, metric, kind, target, zoo) for kind in kinds]
        best = _best(full, metric, _weights, target, zoo)
        gain = "" if best is None or best["gain"] is None else _gain(best)
        rows.append((f"`{target}`", pages.short(zoo), WORDS[metric], *map(_cell, found), gain))
    if rows:
        yield "**Other targets, by init group:** the best of each kind, and what the best of the weights adds to the recipe (its other axes):\n"
        yield from pages.table(("target", "zoo", "", "ceiling", "recipe", "statistics", "whole networks", "gain"), rows)


def _costs(full: Sequence[Line]) -> Iterator[str]:
    """CPU seconds of a fit, the mean over seeds."""
    own = [
        r
        for r in full
        if r["target"] == ACCURACY and r["metric"] == "r2" and r["baseline"] != ORACLE and r["cpu_s"] is not None
    ]
    if not own:
        return
    yield "**What a fit of accuracy costs:** CPU seconds of a seed on one core, beside other work:\n"
    zoos = _zoos(own)
    at = {(r["baseline"], r["zoo"]): r for r in own}
    names = sorted(
        dict.fromkeys(r["baseline"] for r in own),
        key=lambda n: -max(at[n, z]["cpu_s"] for z in zoos if (n, z) in at),
    )
    cell = lambda r: "" if r is None else f"{r['cpu_s']:,.1f}"  # noqa: E731
    yield from pages.table(
        ("baseline", "parameters", *map(pages.short, zoos)),
        [(n, f"{next(r['parameters'] for r in own if r['baseline'] == n):,}", *(cell(at.get((n, z))) for z in zoos)) for n in names],
    )  # fmt: skip


def _asked(lines: Sequence[Line]) -> str:
    """How many networks were asked about; a ceiling has no number of its own."""
    return f"{max(r['n'] or 0 for r in lines):,}"


def _cell(row: Line | None) -> str:
    return (
        ""
        if row is None
        else f"{_value(row)} {row['baseline']}"
        if row["baseline"] != ORACLE
        else f"{row['value']:.3f}"
    )


def _value(row: Line) -> str:
    return f"{row['value']:.3f}{_bounds(row['low'], row['high'], '.3f')}"


def _gain(row: Line) -> str:
    return f"{row['gain']:+.3f}{_bounds(row['gain_low'], row['gain_high'], '+.3f')}"


def _bounds(low: float | None, high: float | None, how: str) -> str:
    """Nothing where there is no interval, as over one level or source."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f" [{low:{how}}, {high:{how}}]"
