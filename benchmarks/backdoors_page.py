"""benchmarks/results/backdoors.json → what stands between the markers of docs/backdoors.md.

In:  the record of each zoo, as `benchmarks/backdoors.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed; without results there is no section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pages

from zoo_datasets.analysis.backdoors.study import SIZES
from zoo_datasets.intervals import FEW_GROUPS

# Figure → what it shows.
PICTURES = {
    "triggers": "triggers", "detectors": "detectors and controls", "questions": "held-out levels", "doses": "dose and response",
    "where": "where it shows",
}  # fmt: skip
CONFOUND = ("weightzoo/backdoors-mntd", "weightzoo/backdoors-as-published")
FIXED, KNOWN = "statistics, logistic", "recipe"  # of all zoos side by side


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    if results:
        yield "## Results\n"
        yield from summary(results)
        yield from _confound(results)
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
        own = _matched_rows(numbers)
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


def _confound(results: Mapping[str, Any]) -> Iterator[str]:
    """What it is worth that trojaned networks of published sets train longer: the same attacks, with and without it."""
    even, longer = (
        {(r["detector"], r["seed"]): r for r in _matched_rows(results[name])} if name in results else {}
        for name in CONFOUND
    )
    if even and longer:
        readers = [
            k
            for k, r in longer.items()
            if not r["control"] and k in even and None not in (r["auc"]["low"], even[k]["auc"]["high"])
        ]
        above = [_name(longer[k]) for k in readers if longer[k]["auc"]["low"] > even[k]["auc"]["high"]]
        told = longer[KNOWN, 0]["auc"]
        yield (
            f"**What longer training of the trojaned arm is worth** (`{pages.short(CONFOUND[1])}`): the count of updates tells the arms at "
            f"{_value(told)}, without a look at a network. Of {len(readers)} detectors, the AUC of {', '.join(above) or 'none'} lies above its interval "
            f"in `{pages.short(CONFOUND[0])}`, where both arms take equal steps.\n"
        )


def _matched_rows(numbers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [r for r in numbers["table"] if r["question"] == "matched" and r["pairs_that"] == "works"]


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
        said = (
            f"**{question[0].upper()}{question[1:]}.** Highest of {len(mine)}, {_name(best)}: {_value(best['auc'])} of {best['trojaned']} trojaned and "
            f"{best['clean']} clean networks, learned from {best['n_train']:,}"
        )
        if controls:
            more = list(
                dict.fromkeys(r["detector"] for r in mine if r["gain"]["low"] is not None and r["gain"]["low"] > 0)
            )
            said += (
                f"; {_signed(best['gain'])} over the best control, {best['best_control']}, and {_signed(best['gain_of_twins'])} of twins over "
                f"{best['best_of_twins']}. Above the best control, uncorrected: {', '.join(more) or 'none, which is no finding about weights'}"
            )
        if any(r["detected"] is not None for r in mine):
            detected = list(dict.fromkeys(r["detector"] for r in mine if r["detected"]))
            said += f". Above the yardstick's upper bound, uncorrected: {', '.join(detected) or 'none'}"
        yield said + "."
    yield from _unlike(numbers["population"])
    yield from _fooled(numbers)
    yield from _smallest(numbers["smallest"], numbers["population"])
    if broken := [name for name, of in numbers["scales"].items() if not _holds(of["null"])]:
        yield f"**Nulls,** one coin for all detectors, that exclude ½: {', '.join(broken)} (of {len(numbers['scales'])}, uncorrected)."
    elif numbers["scales"]:
        known = sum(_bounded(of["null"]) for of in numbers["scales"].values())
        yield f"**Nulls,** one coin for all detectors: all {known} that have intervals hold ½ within them; {len(numbers['scales']) - known} have none."


def _unlike(of: Mapping[str, Any]) -> Iterator[str]:
    """The yardstick's detectors learned from fewer networks than those they are a scale for."""
    if of["yardstick_n_train"] is not None and of["yardstick_n_train"] < of["n_train"]:
        yield (
            f"**The yardstick's detectors** learned from {of['yardstick_n_train']:,} networks, and those of matched pairs from {of['n_train']:,}: "
            "like for like is the question with as few."
        )


def _fooled(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Whether wrong labels without a mark score as trojaned networks do."""
    matched = {
        r["detector"]: r
        for r in numbers["table"]
        if (r["question"], r["pairs_that"], r["seed"]) == ("matched", "works", 0)
    }
    rows = [r for r in numbers["decoys"] if r["wrong_labels"] == "all" and not r["control"]]
    told = [r for r in rows if _low(matched[r["detector"]]) > 0.5]
    if told:
        fooled = [r for r in told if _low(r) > 0.5]
        said = [
            f"{r['detector']} ({_value(r['auc'])} of {r['trojaned']}; backdoors {_value(matched[r['detector']]['auc'])})"
            for r in fooled or [r for r in told if r["detector"] == FIXED]
        ]
        yield (
            f"**Wrong labels without a mark.** Of {len(told)} detectors that tell backdoors above ½, {len(fooled) or 'none'} "
            f"{'tells' if len(fooled) < 2 else 'tell'} twins of which one learned wrong labels above ½ too"
            f"{', the one for all zoos among them' if said and not fooled else ''}{': ' if said else ''}{', '.join(said)}."
        )


def _low(row: Mapping[str, Any]) -> float:
    return float("-inf") if row["auc"]["low"] is None else float(row["auc"]["low"])


def _smallest(rows: Sequence[Mapping[str, Any]], of: Mapping[str, Any]) -> Iterator[str]:
    for n in SIZES:
        own = [r for r in rows if r["n"] == n]
        if not own:
            yield f"**The smallest dose from {n:,} networks:** not asked; {of['n_train']:,} networks of pairs that work are there to learn from."
            continue
        mine, controls = ([r for r in own if r["control"] is kind] for kind in (False, True))
        found = [
            min((r for r in some if r["smallest_rate"] is not None), key=lambda r: r["smallest_rate"], default=None)
            for some in (mine, controls)
        ]
        none = f"none of {own[0]['rates']} from the largest down"
        least, of_controls = (f"{r['smallest_rate']:.1%} of images, by {r['detector']}" if r else none for r in found)
        yield (
            f"**The smallest dose from {n:,} networks,** of pairs that work, the smallest of {len(mine)} detectors, uncorrected for their number: "
            f"{least}; by controls {of_controls}."
        )


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
    others = {
        arm: {(r["detector"], r["seed"]): r for r in numbers["table"] if r["pairs_that"] == arm}
        for arm in ("attack works", "rest")
    }
    rows = _matched_rows(numbers)
    if rows:
        yield (
            f"**Matched:** {rows[0]['trojaned']} trojaned and {rows[0]['clean']} clean networks of unseen init groups, learned from "
            f"{rows[0]['n_train']:,}; beside them all whose attack works, whatever it costs on clean images, and the pairs that do not work. "
            "† fewer than 20 init groups:\n"
        )
        yield from pages.table(
            ("detector", "AUC", "over the best control", f"found at {numbers['settings']['false_alarms']:.0%} false alarms", "of twins", "null",
             "yardstick", "detected", "AUC, attack works", "AUC of the rest", "CPU s"),
            [_matched(r, [of.get((r["detector"], r["seed"])) for of in others.values()], numbers["scales"]) for r in rows],
        )  # fmt: skip
    yield from _questions([r for r in numbers["table"] if r["pairs_that"] == "works"])
    yield from _doses(numbers["doses"])
    yield from _decoys(numbers["decoys"])
    if rows := numbers["smallest"]:
        yield f"**The smallest rate from which on all are found,** of pairs that work ({', '.join(f'{n} at {rate}' for rate, n in rows[0]['pairs'].items())}); rates of fewer than ten are not asked about, and bounds are corrected for {rows[0]['rates']} rates and all sizes:\n"
        sizes = sorted({r["n"] for r in rows})
        at = {(r["detector"], r["n"]): r["smallest_rate"] for r in rows}
        kinds = {r["detector"]: r["control"] for r in rows}
        yield from pages.table(
            ("detector", *(f"{n:,} networks" for n in sizes)),
            [(_kind(name, control), *(_rate(at, name, n) for n in sizes)) for name, control in kinds.items()],
        )


def _matched(row: Mapping[str, Any], others: Sequence[Any], scales: Mapping[str, Any]) -> tuple[str, ...]:
    null, yard = (scales.get(row["detector"], {}).get(name, {}).get("auc") for name in ("null", "yardstick"))
    return (
        _kind(_name(row), row["control"]), _value(row["auc"]), _signed(row["gain"]) if "gain" in row else "", _value(row["tpr"]),
        _value(row["paired"]), _value(null) if null else "–", _value(yard) if yard else "–",
        "–" if row["detected"] is None else "yes" if row["detected"] else "no", *(_value(r["auc"]) if r else "–" for r in others),
        f"{row['cpu_seconds']:.1f}",
    )  # fmt: skip


def _questions(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    asked = [q for q in dict.fromkeys(r["question"] for r in rows) if q != "matched"]
    if not asked:
        return
    first = {q: next(r for r in rows if r["question"] == q) for q in asked}
    yield "**Held-out levels:** AUC, n of trojaned networks tested, and of how many networks it was learned; what is held out of ordered levels is the upper half:\n"
    at = {(_name(r), r["question"]): r for r in rows}
    kinds = {_name(r): r["control"] for r in rows}
    yield from pages.table(
        ("detector", *(f"{q} (n = {first[q]['trojaned']}, from {first[q]['n_train']:,})" for q in asked)),
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


def _decoys(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    sides = list(dict.fromkeys(r["wrong_labels"] for r in rows))
    first = {side: next(r for r in rows if r["wrong_labels"] == side) for side in sides}
    yield "**Wrong labels without a mark:** AUC of the same detectors on twins of which one learned so many wrong labels, by chance; who tells them tells no backdoor:\n"
    at = {(r["detector"], r["wrong_labels"]): r for r in rows}
    kinds = {r["detector"]: r["control"] for r in rows}
    yield from pages.table(
        ("detector", *(f"{side} (n = {first[side]['trojaned']})" for side in sides)),
        [
            (_kind(name, control), *(_value(at[name, side]["auc"]) if (name, side) in at else "" for side in sides))
            for name, control in kinds.items()
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


def _auc(row: Mapping[str, Any]) -> float:
    return float(row["auc"]["value"])


def _value(score: Mapping[str, Any], digits: int = 2) -> str:
    if score["low"] is None:
        return f"{score['value']:.{digits}f} [–]"
    few = " †" if score["n_groups"] < FEW_GROUPS else ""
    return f"{score['value']:.{digits}f} [{score['low']:.{digits}f}, {score['high']:.{digits}f}]{few}"


def _signed(score: Mapping[str, Any]) -> str:
    bounds = "[–]" if score["low"] is None else f"[{score['low']:+.2f}, {score['high']:+.2f}]"
    return f"{score['value']:+.2f} {bounds}"
