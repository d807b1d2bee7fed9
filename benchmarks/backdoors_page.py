"""benchmarks/results/backdoors.json → what stands between the markers of docs/backdoors.md.

In:  the record of each zoo, as `benchmarks/backdoors.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed; without results there is no section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pages

# Figure → what it shows.
PICTURES = {
    "triggers": "triggers", "detectors": "detectors and controls", "questions": "held-out levels", "doses": "dose and response",
    "where": "where it shows",
}  # fmt: skip
FIXED, KNOWN = "statistics, logistic", "recipe"  # of all zoos side by side


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    if results:
        yield "## Results\n"
        yield from summary(results)
    for name, numbers in sorted(results.items()):
        yield f"### {name}\n"
        yield _counts(numbers)
        yield from (f"* {sentence}" for sentence in findings(numbers))
        yield ""
        yield from pages.pictures(name, PICTURES)
        yield from tables(numbers)


def summary(results: Mapping[str, Any]) -> Iterator[str]:
    """All zoos at a glance: of matched networks the best detector beside the best control, and what is known of training alone."""
    rows = []
    for name, numbers in sorted(results.items()):
        own = [r for r in numbers["table"] if r["question"] == "matched" and r["pairs_that"] == "works"]
        readers, controls = ([r for r in own if r["control"] is kind] for kind in (False, True))
        if readers and controls:
            best, control = max(readers, key=_auc), max(controls, key=_auc)
            of = numbers["population"]
            at = {_name(r): _value(r["auc"]) for r in own}
            known = best["yardstick"]
            rows.append((
                f"`{pages.short(name)}`", f"{of['working']:,} of {of['pairs']:,}", f"{best['trojaned']:,}", _name(best), _value(best["auc"]),
                "–" if known is None else f"{known:.2f}", control["detector"], _value(control["auc"]), at.get(FIXED, ""), at.get(KNOWN, ""),
            ))  # fmt: skip
    if rows:
        yield (
            "**At a glance,** matched pairs that work, by the detector and by the control with the highest AUC, which favors both; then "
            "one detector for all of them, and the recipe with the count of updates, which sees no network:\n"
        )
        yield from pages.table(
            ("zoo", "pairs that work", "trojaned, tested", "by weights", "AUC", "yardstick", "by a control", "AUC", FIXED, KNOWN), rows
        )  # fmt: skip


def _counts(numbers: Mapping[str, Any]) -> str:
    of, made = numbers["population"], numbers["settings"]
    others = ", ".join(f"`{z['name']}`" for z in numbers["zoos"][1:])
    return (
        f"{of['networks']:,} networks{f' with {others}' if others else ''}, {of['pairs']:,} pairs of twins; {of['diverged']:,} diverged. "
        f"{of['working']:,} pairs work: the attack moves {made['works']:.0%} of the images that would not go to its target, and twins are equal on clean "
        f"images within {made['margin']:.0%}. Intervals: 95 %, over init groups: of the test split, of accuracy that is lost those of all pairs.\n"
    )


# ── sentences ─────────────────────────────────────────────────────────────────────────


def findings(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers say; words follow from comparisons made here."""
    asked = list(dict.fromkeys(r["question"] for r in numbers["table"]))
    for question in asked:
        rows = [r for r in numbers["table"] if r["question"] == question and r["pairs_that"] == "works"]
        mine, controls = ([r for r in rows if r["control"] is kind] for kind in (False, True))
        if not mine:
            continue
        best = max(mine, key=_auc)
        beside = max(controls, key=_high) if controls else None
        detected = list(dict.fromkeys(r["detector"] for r in mine if r["detected"]))
        unseen = _apart(best, beside) if beside else ""
        yield (
            f"**{question[0].upper()}{question[1:]}.** Highest of {len(mine)}, {_name(best)}: {_value(best['auc'])} of {best['trojaned']} trojaned and "
            f"{best['clean']} clean networks; the control that reaches highest, {beside['detector'] if beside else 'none'}, "
            f"{_value(beside['auc']) if beside else ''}{unseen}. Above the yardstick: {', '.join(detected) or 'none'}."
        )
    yield from _smallest(numbers["smallest"])
    if broken := [name for name, of in numbers["scales"].items() if not _holds(of["null"])]:
        yield f"**Nulls** that exclude ½: {', '.join(broken)} (of {len(numbers['scales'])}, uncorrected)."
    elif numbers["scales"]:
        known = sum(_bounded(of["null"]) for of in numbers["scales"].values())
        yield f"**Nulls.** All {known} that have intervals hold ½ within them; {len(numbers['scales']) - known} have none."


def _apart(best: Mapping[str, Any], control: Mapping[str, Any]) -> str:
    apart = best["auc"]["low"] is not None and control["auc"]["high"] is not None
    return ", and their intervals " + (
        "do not meet" if apart and best["auc"]["low"] > control["auc"]["high"] else "meet: no finding about weights"
    )


def _smallest(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for n in sorted({r["n"] for r in rows}):
        own = [r for r in rows if r["n"] == n and r["smallest_rate"] is not None]
        if mine := [r for r in own if not r["control"]]:
            least = min(mine, key=lambda r: r["smallest_rate"])
            of_controls = min((r["smallest_rate"] for r in own if r["control"]), default=None)
            of = sum(not r["control"] for r in rows if r["n"] == n)
            yield (
                f"**The smallest dose from {n:,} networks:** the smallest of {of} detectors, uncorrected for their number, {least['smallest_rate']:.1%} of images, by {least['detector']}; by controls "
                f"{'none' if of_controls is None else f'{of_controls:.1%}'}."
            )
        else:
            yield f"**The smallest dose from {n:,} networks:** none of {rows[0]['rates']} is found from the largest down."


def _bounded(null: Mapping[str, Any]) -> bool:
    return bool(null["auc"] is not None and null["auc"]["low"] is not None)


def _holds(null: Mapping[str, Any]) -> bool:
    return not _bounded(null) or null["auc"]["low"] <= 0.5 <= null["auc"]["high"]


# ── tables ────────────────────────────────────────────────────────────────────────────


def tables(numbers: Mapping[str, Any]) -> Iterator[str]:
    """One for each question that was answered."""
    yield "**Which attacks work,** by source and by the share of images that are stamped:\n"
    yield from pages.table(
        ("source", "rate", "pairs", "success", "go there unstamped", "attack works", "equal on clean images", "both", "accuracy lost"),
        [
            (f"`{r['source']}`", f"{r['rate']:.3g}", str(r["pairs"]), f"{r['success']:.2f}", f"{r['base']:.3f}", str(r["attack_works"]),
             str(r["equal_on_clean"]), str(r["both"]), _value(r["lost_accuracy"], 4))
            for r in numbers["outcomes"]
        ],
    )  # fmt: skip
    rest = {(r["detector"], r["seed"]): r for r in numbers["table"] if r["pairs_that"] == "rest"}
    rows = [r for r in numbers["table"] if r["question"] == "matched" and r["pairs_that"] == "works"]
    if rows:
        yield (
            f"**Matched:** {rows[0]['trojaned']} trojaned and {rows[0]['clean']} clean networks of unseen init groups, learned from "
            f"{rows[0]['n_train']:,}; pairs that do not work beside them:\n"
        )
        yield from pages.table(
            ("detector", "AUC", f"found at {numbers['settings']['false_alarms']:.0%} false alarms", "of twins", "null", "yardstick", "detected",
             "AUC of the rest", "CPU s"),
            [_matched(r, rest.get((r["detector"], r["seed"])), numbers["scales"]) for r in rows],
        )  # fmt: skip
    yield from _questions([r for r in numbers["table"] if r["pairs_that"] == "works"])
    yield from _doses(numbers["doses"])
    if rows := numbers["smallest"]:
        yield f"**The smallest rate from which on all are found,** bounds corrected for {rows[0]['rates']} rates and all sizes:\n"
        sizes = sorted({r["n"] for r in rows})
        at = {(r["detector"], r["n"]): r["smallest_rate"] for r in rows}
        kinds = {r["detector"]: r["control"] for r in rows}
        yield from pages.table(
            ("detector", *(f"{n:,} networks" for n in sizes)),
            [(_kind(name, control), *(_rate(at, name, n) for n in sizes)) for name, control in kinds.items()],
        )


def _matched(row: Mapping[str, Any], rest: Mapping[str, Any] | None, scales: Mapping[str, Any]) -> tuple[str, ...]:
    null = scales.get(row["detector"], {}).get("null", {}).get("auc")
    known = row["yardstick"]
    return (
        _kind(_name(row), row["control"]), _value(row["auc"]), _value(row["tpr"]), _value(row["paired"]), _value(null) if null else "–",
        "–" if known is None else f"{known:.2f}", "–" if row["detected"] is None else "yes" if row["detected"] else "no",
        _value(rest["auc"]) if rest else "–", f"{row['cpu_seconds']:.1f}",
    )  # fmt: skip


def _questions(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    asked = [q for q in dict.fromkeys(r["question"] for r in rows) if q != "matched"]
    if not asked:
        return
    first = {q: next(r for r in rows if r["question"] == q) for q in asked}
    yield "**Held-out levels:** AUC, and n of trojaned networks tested:\n"
    at = {(_name(r), r["question"]): r for r in rows}
    kinds = {_name(r): r["control"] for r in rows}
    yield from pages.table(
        ("detector", *(f"{q} (n = {first[q]['trojaned']})" for q in asked)),
        [
            (_kind(name, control), *(_value(at[name, q]["auc"]) if (name, q) in at else "" for q in asked))
            for name, control in kinds.items()
        ],
    )


def _doses(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    rates = sorted({r["rate"] for r in rows})
    first = {rate: next(r for r in rows if r["rate"] == rate) for rate in rates}
    yield "**Dose and response:** AUC of the matched detectors on all tested pairs of a rate, working or not:\n"
    at = {(r["detector"], r["rate"]): r for r in rows}
    yield from pages.table(
        ("detector", *(f"{rate:.3g} (n = {first[rate]['trojaned']}, {first[rate]['works']} work)" for rate in rates)),
        [
            (name, *(_value(at[name, rate]["auc"]) if (name, rate) in at else "" for rate in rates))
            for name in dict.fromkeys(r["detector"] for r in rows)
        ],
    )


def _rate(at: Mapping[tuple[str, int], float | None], name: str, n: int) -> str:
    if (name, n) not in at:
        return ""
    rate = at[name, n]
    return "none" if rate is None else f"{rate:.3g}"


def _name(row: Mapping[str, Any]) -> str:
    return str(row["detector"]) + (f", seed {row['seed']}" if row["seed"] else "")


def _kind(name: str, control: bool) -> str:
    return f"{name} (control)" if control else name


def _high(row: Mapping[str, Any]) -> float:
    return float("inf") if row["auc"]["high"] is None else float(row["auc"]["high"])


def _auc(row: Mapping[str, Any]) -> float:
    return float(row["auc"]["value"])


def _value(score: Mapping[str, Any], digits: int = 2) -> str:
    bounds = "[–]" if score["low"] is None else f"[{score['low']:.{digits}f}, {score['high']:.{digits}f}]"
    return f"{score['value']:.{digits}f} {bounds}"
