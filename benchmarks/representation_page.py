"""benchmarks/results/representation.json → what stands between its markers in docs/backdoors.md.

In:  the record of each zoo, as `benchmarks/representation.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed; without results there is no section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pages

PICTURES = {"harm": "what poor data cost", "told": "who tells it"}  # figure → what it shows


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    for name, numbers in sorted(results.items()):
        of = numbers["population"]
        yield f"### {name}\n"
        yield (
            f"{of['networks']:,} networks, {of['reference']:,} of the reference; {of['diverged_or_unscored']:,} diverged or have no accuracy, and "
            f"{of['without_a_twin']:,} have no twin. Intervals: 95 %, over init groups: of what data cost those of all twins, else of the test "
            "split. Sentences are uncorrected for the number of detectors and levels.\n"
        )
        yield from (f"* {sentence}" for sentence in findings(numbers))
        yield ""
        yield from pages.pictures(name, PICTURES)
        yield from tables(numbers)


def findings(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers say; words follow from comparisons made here."""
    for level in _levels(numbers):
        rows = [r for r in numbers["told"] if r["level"] == level]
        yield (
            f"**{level[0].upper()}{level[1:]}.** Told above ½ by {_names(r for r in rows if _low(r['auc']) > 0.5 and not r['control'])}; of controls by "
            f"{_names(r for r in rows if _low(r['auc']) > 0.5 and r['control'])}; beyond every control by {_names(r for r in rows if r['beyond'])}."
        )
    for target in dict.fromkeys(r["target"] for r in numbers["amount"]):
        rows = [r for r in numbers["amount"] if r["target"] == target]
        yield (
            f"**How much, {target}.** Above 0 in R²: {_names(r for r in rows if _low(r['r2']) > 0)}; beyond every control: "
            f"{_names(r for r in rows if r['beyond'])}."
        )
    if nulls := {name: of["auc"] for name, of in numbers["nulls"].items() if of["auc"]}:
        bounded = {name: auc for name, auc in nulls.items() if auc["low"] is not None}
        off = [name for name, auc in bounded.items() if not auc["low"] <= 0.5 <= auc["high"]]
        yield f"**Nulls** that exclude ½: {', '.join(off) or 'none'} of {len(bounded)} that have intervals."


def tables(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What it costs, who tells it, and how much of it."""
    yield "**What it costs,** of twins:\n"
    yield from pages.table(
        ("level", "n", "accuracy lost", "lost on the classes that are rare in some", "images that the cue moves"),
        [
            (r["level"], str(r["n"]), _value(r["accuracy_lost"], 3), _value(r["accuracy_lost_on_rare_classes"], 3),
             _value(r["reliance"]))
            for r in numbers["harm"]
        ],
    )  # fmt: skip
    levels = _levels(numbers)
    at = {(r["detector"], r["level"]): r for r in numbers["told"]}
    kinds = {r["detector"]: r["control"] for r in numbers["told"]}
    first = {level: next(r for r in numbers["told"] if r["level"] == level) for level in levels}
    yield "**Told from the reference:** AUC, on so many networks of the level and of the reference, of unseen init groups:\n"
    yield from pages.table(
        ("detector", *(f"{level} (n = {first[level]['poor']} and {first[level]['reference']})" for level in levels)),
        [
            (f"{name} (control)" if control else name, *(_value(at[name, k]["auc"]) if (name, k) in at else "" for k in levels))
            for name, control in kinds.items()
        ],
    )  # fmt: skip
    yield "**How much of it:**\n"
    yield from pages.table(
        ("number", "read by", "n", "R²", "τ"),
        [
            (r["target"], f"{r['reader']} (control)" if r["control"] else r["reader"], str(r["n"]), _value(r["r2"]), _value(r["kendall"]))
            for r in numbers["amount"]
        ],
    )  # fmt: skip


def _levels(numbers: Mapping[str, Any]) -> list[str]:
    """In the order of harm, which a record by names has lost."""
    return [r["level"] for r in numbers["harm"]]


def _names(rows: Any) -> str:
    return ", ".join(r.get("detector") or r["reader"] for r in rows) or "none"


def _low(score: Mapping[str, Any]) -> float:
    return float("-inf") if score["low"] is None else float(score["low"])


def _value(score: Mapping[str, Any] | None, digits: int = 2) -> str:
    if score is None or score["value"] is None:
        return "–"
    bounds = "[–]" if score["low"] is None else f"[{score['low']:.{digits}f}, {score['high']:.{digits}f}]"
    return f"{score['value']:.{digits}f} {bounds}"
