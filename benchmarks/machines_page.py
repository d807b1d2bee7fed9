"""benchmarks/results/mlds.json → what stands between the markers of docs/machines.md.

In:  the record of each zoo, as `benchmarks/mlds.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed; without results there is no section.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log2
from statistics import median
from typing import Any

import pages

from zoo_datasets.analysis.machines.pictures import in_order

# Figure → what it shows.
PICTURES = {
    "learning": "how training goes", "planes": "two components of weights", "which": "what was learned", "curve": "by how many networks",
    "yardstick": "a modification beside a draw", "power": "the smallest change that shows",
}  # fmt: skip
ARMS = {"matched": "equal length", "target": "stopped on error"}
WEIGHTS, BLIND, KNOWING, TRAINING = (
    "logistic on statistics", "loss without keys", "loss with keys", "training alone",
)  # fmt: skip
LEVEL = 0.05  # of corrected tests
STILL = 1.1  # a loss that falls by less in a doubling of epochs gives no pace
MOST_DOUBLINGS = 6  # of the budget: of what lies beyond a curve says nothing
MOST_TIMES = 10  # as many networks: of what lies beyond an AUC says nothing
# Results that are kept from before p took into account that folds learn from much the same networks.
UNCORRECTED = " The q of which it was, of clean or modified and of gains are of before the correction for what folds share: too small."
FEW = 8  # units, of whose flips of signs a test has hardly enough
MOST_APART = 8  # machines that have rows of their own; of more a table says how they are spread


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    if results:
        yield "## Results\n"
        yield (
            "Of each machine the two arms: networks that trained equally long, the primary one, and the first snapshots at the "
            "target loss. Intervals: 95 %, over the units that are held out whole; q is corrected over all tests of a study.\n"
        )
        yield from summary(results)
    for name, numbers in sorted(results.items()):
        yield from _zoo(name, numbers)


def _zoo(name: str, numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    others = ", ".join(f"`{z['name']}`" for z in numbers["zoos"][1:])
    yield (
        "; ".join(
            f"{ARMS[arm]}{_missed(numbers) if arm == 'matched' else ''}: {of['n']:,} networks, {of['clean']:,} of them clean, of {of['units']:,} {of['unit']}"
            for arm, of in numbers["arms"].items()
        )
        + (f"; with {others}" if others else "")
        + f". {numbers['tests']['n']} tests, of which {numbers['tests']['findings']} stay below q = {LEVEL:g}"
        + "".join(
            {
                f"; over {of['units']} {of['unit']} no p is below {2.0 ** -of['units']:.2g}"
                for of in numbers["arms"].values()
                if of["units"] < FEW
            }
        )
        + ("." if "of_folds" in numbers["tests"] or not numbers["tests"]["n"] else f".{UNCORRECTED}")
        + "\n"
    )
    yield from (f"* {sentence}" for sentence in findings(numbers))
    yield ""
    yield from pages.pictures(name, PICTURES)
    yield from tables(numbers)


def summary(results: Mapping[str, Any]) -> Iterator[str]:
    """All zoos at a glance: of each question the best reader of weights beside the best control, at equal length."""
    rows = []
    for name, numbers in sorted(results.items()):
        found = numbers["arms"].get("matched", {})
        label = numbers["settings"]["label"]
        told = found.get("which") or []
        readers, controls = ([r for r in told if r["control"] == c and r["solver"] != KNOWING] for c in (False, True))
        if readers and controls:
            best, control = (max(some, key=lambda r: r["accuracy"]["value"]) for some in (readers, controls))
            rows.append((
                f"`{pages.short(name)}`", f"which {label} of {best['classes']}{_missed(numbers)}", f"{best['n']:,}", f"{best['chance']:.2f}",
                best["solver"], _value(best["accuracy"]), control["solver"], _value(control["accuracy"]),
            ))  # fmt: skip
        for own in (r for r in found.get("modified") or [] if r["solver"] == WEIGHTS):
            controls = [r for s in (BLIND, TRAINING) if (r := _of(found, own, s)) is not None]
            if controls:
                control = max(controls, key=lambda r: r["auc"]["value"])
                rows.append((
                    f"`{pages.short(name)}`", f"modified: {_change(own)}", f"{own['n']:,}", "0.50", own["solver"], _value(own["auc"]),
                    control["solver"], _value(control["auc"]),
                ))  # fmt: skip
    if rows:
        yield (
            f"**At a glance**, at equal length: accuracy of which it was, by the reader and by the control with the highest, which favors "
            f"both; AUC of clean against modified, by {WEIGHTS} and by the better of two controls. The loss without keys is of data that hold none; what is "
            "known of training has the loss of the zoo's own validation data, in which the key is.\n"
        )
        yield from pages.table(("zoo", "asked", "n", "chance", "by weights", "score", "by a control", "score"), rows)


# ── sentences ─────────────────────────────────────────────────────────────────────────


def findings(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers say; words follow from comparisons made here."""
    label = numbers["settings"]["label"]
    never = [_what(r, numbers) for r in numbers["outcomes"] if r["came_to_target"] == 0]
    if never:
        yield f"**Not learned in the budget:** {', '.join(never)}."
    yield from _would_take(numbers)
    for arm, found in numbers["arms"].items():
        said = ARMS.get(arm, arm)
        if rows := [r for r in found["which"] if not r["control"]]:
            best = max(rows, key=lambda r: r["accuracy"]["value"])
            chance = f"chance is {best['chance']:.2f}"
            if not best.get("evened", True) and best["chance"] > 1 / best["classes"] + 1e-9:
                chance += "; machines are not evened, for that would leave less than half"
            if best.get("not_asked"):
                chance += f"; not asked, for they are of one draw: {_list(best['not_asked'])}"
            gain = best.get("gain")
            beside = (
                f"; {_signed(gain)} over the best control, {best['best_control']}{_doubt(best, found)}" if gain else ""
            )
            yield f"**What was learned, {said}.** Best, the {best['solver']}: {_value(best['accuracy'])} of {best['n']:,}; {chance}{beside}."
        elif len({r[label] for r in numbers["outcomes"]}) > 1:
            yield f"**What was learned, {said}.** Not asked: no two values of {label} are of several {found['unit']}."
        if rows := [r for r in found["modified"] if r["solver"] == WEIGHTS]:
            told = [r for r in rows if _low(r["auc"]) > 0.5 and _q(r) < LEVEL]
            yield f"**Clean or modified, {said}.** By {WEIGHTS}, fixed beforehand, weights tell {len(told)} of {len(rows)} changes in networks of unseen {found['unit']}: {_list(map(_change, told))}.{_others(found, len(told))}"
            blind = [r for r in told if _of(found, r, BLIND) is not None and _low(_of(found, r, BLIND)["auc"]) <= 0.5]
            alone = [r for r in blind if _of(found, r, TRAINING) is None or _low(_of(found, r, TRAINING)["auc"]) <= 0.5]
            yield f"**Where loss is blind, {said}.** Of these, the held-out loss without keys does not tell {len(blind)}: {_list(map(_change, blind))}; nor does what is known of training {len(alone)}: {_list(map(_change, alone))}."
        if rows := [r for r in found["yardstick"] if "exceeds_draws" in r]:
            more = [r for r in rows if _low(r["exceeds_draws"]) > 0 and _q(r) < LEVEL]
            yield f"**Beside another draw, {said}.** From as few networks, {len(more)} of {len(rows)} changes are told better than another draw of the data: {_list(map(_change, more))}."
        if rows := found["nulls"]:
            # The mean of the cuts against its standard error.
            off = [r for r in rows if abs(r["auc"] - 0.5) > 3 * r["spread"] / r["cuts"] ** 0.5]
            yield f"**Nulls, {said}.** Of {len(rows)} nulls of {rows[0]['cuts']} cuts, {len(off)} lie further from ½ than three standard errors of their mean."


def _others(found: Mapping[str, Any], n_told: int) -> str:
    """Readers of weights that tell more changes than the one fixed beforehand: seen afterwards, and said so."""
    rows = [r for r in found["modified"] if not r["control"] and r["solver"] != WEIGHTS]
    told = Counter(r["solver"] for r in rows if _low(r["auc"]) > 0.5 and _q(r) < LEVEL)
    more = [f"the {solver} {n}" for solver, n in told.most_common() if n > n_told]
    return f" Others tell more, which is seen afterwards: {', '.join(more)}." if more else ""


def _missed(numbers: Mapping[str, Any]) -> str:
    """Where training stops at the target, those who trained equally long are those who did not come to it."""
    came = sum(r["came_to_target"] or 0 for r in numbers["outcomes"])
    n = sum(r["n"] - r["diverged"] for r in numbers["outcomes"])
    matched = numbers["arms"].get("matched", {}).get("n")
    return ", of those that missed the target alone" if came and matched == n - came else ""


def _would_take(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Where less than half came to the target: how training goes at the end, and how much longer it would take at that pace."""
    label = numbers["settings"]["label"]
    for row in numbers["outcomes"]:
        if row["came_to_target"] is None or 2 * row["came_to_target"] >= row["n"]:
            continue
        path = [r for r in numbers["learning"] if all(r[k] == row[k] for k in (label, "modified", "dose"))]
        if not path:
            continue
        last, target = path[-1], row["target"]
        said = (
            f"**What it would take.** {_what(row, numbers)}: {row['came_to_target']} of {row['n']} came to {target:g} within "
            f"{last['epoch']:,.0f} epochs, and the median ended at {last['median']:.1e}"
        )
        half = [r for r in path if 0 < r["epoch"] <= last["epoch"] / 2]
        if half and 0 < target < last["median"]:
            fell = half[-1]["median"] / last["median"]
            said += f"; after {half[-1]['epoch']:,.0f} it was at {half[-1]['median']:.1e}"
            doublings = log2(last["epoch"] / half[-1]["epoch"])
            # Halvings of the loss that are missing, by those that a doubling of epochs brings.
            more = log2(last["median"] / target) / log2(fell) * doublings if fell > STILL**doublings else MOST_DOUBLINGS
            if more < MOST_DOUBLINGS:
                said += f", and at that pace, which is an extrapolation, comes there after {last['epoch'] * 2**more:,.0f} epochs"
            else:
                said += ", which is no pace to foretell anything by"
        yield said + "."


def _doubt(best: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Why a gain is none; of few draws the interval may say what no test over them can."""
    if _q(best, "gain_test") < LEVEL:
        return ""
    if _low(best["gain"]) <= 0:
        return ", which is no finding"
    units = best["gain"]["n_groups"]
    least = f"; of so few no p is below {2.0**-units:.2g}" if units < FEW else ""
    return f", but q = {_q(best, 'gain_test'):.2g} over {units} {found['unit']}{least}"


def _what(row: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    label = numbers["settings"]["label"]
    return f"`{row[label]}`" + (f" modified, {_key(row['dose'])}" if row["modified"] else "")


def _change(row: Mapping[str, Any]) -> str:
    return f"{row['label']} ({_key(row['dose'])})"


def _key(dose: str) -> str:
    return f"key {dose}" if dose.startswith("by ") else f"key in {dose} of sequences"


def _of(found: Mapping[str, Any], row: Mapping[str, Any], solver: str) -> Any:
    """The answer of another solver to the same question; None where it was not asked."""
    same = (row["label"], row["dose"], solver)
    return next((r for r in found["modified"] if (r["label"], r["dose"], r["solver"]) == same), None)


def _list(names: Any) -> str:
    return ", ".join(names) or "none"


def _low(score: Mapping[str, Any]) -> float:
    return float("-inf") if score["low"] is None else float(score["low"])


def _q(row: Mapping[str, Any], test: str = "test") -> float:
    q = (row.get(test) or {}).get("q")
    return 1.0 if q is None else float(q)


# ── tables ────────────────────────────────────────────────────────────────────────────


def tables(numbers: Mapping[str, Any]) -> Iterator[str]:
    """One for each question that was answered."""
    label = numbers["settings"]["label"]
    yield from _outcomes(numbers, label)
    arms = numbers["arms"]
    if rows := _all(arms, "which"):
        yield f"**Which {label} a clean network learned:**\n"
        yield from pages.table(
            ("arm", "by", "n", "chance", "accuracy", "q", "over the best control", "q", "least recall"),
            [
                (ARMS[arm], r["solver"] + (" (control)" if r["control"] else ""), str(r["n"]), f"{r['chance']:.2f}",
                 _value(r["accuracy"]), _test(r), _signed(r["gain"]) if "gain" in r else "", _test(r, "gain_test"), _least(r["recall"]))
                for arm, r in rows
            ],
        )  # fmt: skip
    if rows := _all(arms, "curve"):
        yield "**From fewer networks in training:**\n"
        sizes = sorted({r["n_train"] for _, r in rows})
        kinds = list(dict.fromkeys((arm, r["solver"]) for arm, r in rows))
        at = {(arm, r["solver"], r["n_train"]): _value(r["accuracy"]) for arm, r in rows}
        yield from pages.table(
            ("arm", "by", *(str(n) for n in sizes)),
            [(ARMS[arm], solver, *(at.get((arm, solver, n), "") for n in sizes)) for arm, solver in kinds],
        )
    yield from _blind(arms, label)
    if rows := _all(arms, "nulls"):
        yield f"**Nulls:** AUC of networks of unseen draws where there is nothing, by {rows[0][1]['solver']}:\n"
        if _many(rows):
            yield from _spread(rows, label, lambda r: r["what"], lambda r: r["auc"])
        else:
            yield from pages.table(
                ("arm", label, "null", "n", "cuts", "mean", "spread", "least … most"),
                [
                    (ARMS[arm], r["label"], r["what"], str(r["n"]), str(r["cuts"]), f"{r['auc']:.3f}", f"{r['spread']:.3f}",
                     f"{r['least']:.2f} … {r['most']:.2f}")
                    for arm, r in rows
                ],
            )  # fmt: skip
    if rows := _all(arms, "yardstick"):
        yield "**Draw against draw,** by the nearest mean of half of a draw's networks a side; over draws, or over pairs of which none share one:\n"
        if _many(rows):
            yield from _spread(rows, label, _told_apart, lambda r: r["accuracy"]["value"])
        else:
            yield from pages.table(
                ("arm", label, "told apart", "n", "accuracy", "spread", "exceeds draws by", "q"),
                [
                    (ARMS[arm], r["label"], _told_apart(r), str(r["n"]), _value(r["accuracy"]),
                     "–" if r["spread"] is None else f"{r['spread']:.2f}",
                     _signed(r["exceeds_draws"]) if "exceeds_draws" in r else "", _test(r))
                    for arm, r in rows
                ],
            )  # fmt: skip
    if rows := _all(arms, "distances"):
        of = sorted(
            {r["of"] for _, r in rows if "of" in r and r["of"] < len({str(o[label]) for o in numbers["outcomes"]})}
        )
        some = f", from networks of {of[0]} values of {label}" if of else ""
        yield f"**Mean distance of a network to others{some}:**\n"
        yield from pages.table(
            ("arm", "weights", "n", "same draw", "same machine, other draw", "other machine", "ratio of the last two"),
            [
                (ARMS[arm], r["weights"], str(r["n"]), *(_value(r[k]) for k in ("same draw", "same machine", "other machine", "ratio")))
                for arm, r in rows
            ],
        )  # fmt: skip
    if rows := _all(arms, "to_data"):
        yield "**Which data a network is nearest to:** the rank of its own draw among all (0 the nearest, ½ by chance), aligned:\n"
        if _many(rows):
            yield from _spread(rows, label, lambda r: "own draw", lambda r: r["rank"]["value"])
        else:
            yield from pages.table(
                ("arm", label, "n", "draws", "networks of a mean", "rank", "q"),
                [
                    (
                        ARMS[arm],
                        r["label"],
                        str(r["n"]),
                        str(r["draws"]),
                        str(r["of_a_mean"]),
                        _value(r["rank"]),
                        _test(r),
                    )
                    for arm, r in rows
                ],
            )
    if rows := _all(arms, "power"):
        yield from _power(rows)


def _outcomes(numbers: Mapping[str, Any], label: str) -> Iterator[str]:
    """Who came to the target, and where training ended."""
    rows = sorted(numbers["outcomes"], key=lambda r: in_order(r[label]))
    changed, aimed = (any(r[name] for r in rows) for name in ("modified", "share"))
    ends = {}  # rows of `learning` come by epoch: the last one stays
    for r in numbers["learning"]:
        ends[r[label], r["modified"], r["dose"]] = (
            f"{r['median']:.1e} [{r['lower_quartile']:.1e}, {r['upper_quartile']:.1e}]"
        )
    yield f"**How training ended**{', and who came to the target within the budget' if aimed else ''}; losses are medians, with quartiles:\n"
    yield from pages.table(
        (label, *(["modified: key in"] if changed else []), "n", "diverged",
         *(["came to it", "share", "median epochs"] if aimed else []), "validation loss"),
        [
            (str(r[label]), *([r["dose"] if r["modified"] else "–"] if changed else []), str(r["n"]), str(r["diverged"]),
             *([_or_none(r["came_to_target"]), _value(r["share"]) if r["share"] else "–", _or_none(r["median_epochs"])] if aimed else []),
             ends.get((r[label], r["modified"], r["dose"]), "–"))
            for r in rows
        ],
    )  # fmt: skip


def _all(arms: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    return [(arm, row) for arm, found in arms.items() for row in found[name]]


def _many(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    return len({r["label"] for _, r in rows}) > MOST_APART


def _spread(
    rows: Sequence[tuple[str, Mapping[str, Any]]], label: str, what: Callable[[Any], str], value: Callable[[Any], float]
) -> Iterator[str]:
    """Of many machines the least, the median and the most, instead of a row of each."""
    kinds = list(dict.fromkeys((arm, what(r)) for arm, r in rows))
    lines = []
    for kind in kinds:
        own = sorted(v for arm, r in rows if (arm, what(r)) == kind and (v := value(r)) is not None)
        told = [r for arm, r in rows if (arm, what(r)) == kind and "test" in r]
        tests = f"{sum(_q(r) < LEVEL for r in told)} of {len(told)}" if told else ""
        lines.append(
            (ARMS[kind[0]], kind[1], str(len(own)), f"{own[0]:.2f}", f"{median(own):.2f}", f"{own[-1]:.2f}", tests)
        )
    yield from pages.table(
        ("arm", "asked", f"values of {label}", "least", "median", "most", f"q below {LEVEL:g}"), lines
    )


def _told_apart(row: Mapping[str, Any]) -> str:
    return row["what"] + (f", {_key(row['dose'])}" if row["dose"] else "")


def _or_none(number: float | None) -> str:
    return "–" if number is None else f"{number:.0f}"


def _blind(arms: Mapping[str, Any], label: str) -> Iterator[str]:
    """Held-out loss, duration and weights side by side."""
    rows = []
    for arm, found in arms.items():
        solvers = list(dict.fromkeys(r["solver"] for r in found["modified"] if not r["control"]))
        for beside in found["beside"]:
            own = {s: _of(found, beside, s) for s in (BLIND, KNOWING, TRAINING, *solvers)}
            if (first := next((r for r in own.values() if r), None)) is None:
                continue
            told = [s for s, r in own.items() if r and _low(r["auc"]) > 0.5 and _q(r) < LEVEL]
            weights = own.get(WEIGHTS) or {}
            rows.append((
                ARMS[arm], beside["label"], beside["dose"], str(first["n"]), *(_both(beside, f"loss {k} a key") for k in ("before", "after")),
                _both(beside, "epochs until the target", ".0f"), *(_value(r["auc"]) if r else "" for r in own.values()),
                _test(weights), _value(weights["paired"]) if weights.get("paired") else "",
                _signed(weights["gain"]) if "gain" in weights else "", _list(told),
            ))  # fmt: skip
    if rows:
        solvers = list(dict.fromkeys(r["solver"] for _, r in _all(arms, "modified") if not r["control"]))
        yield (
            "**Where is loss blind and weights not?** Clean against modified networks of unseen draws. Losses are of what the clean machine "
            "puts out, on steps before any key and right after one; then the AUC of each reader, alone, and of twins the share told "
            f"right and the gain over the best control that knows no key by {WEIGHTS}:\n"
        )
        yield from pages.table(
            ("arm", label, "key in", "n", "loss before a key, clean / modified", "loss after a key", "epochs to the target", BLIND, KNOWING,
             TRAINING, *solvers, f"q of {WEIGHTS}", "of twins", "over the best control", "told by"),
            rows,
        )  # fmt: skip


def _power(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    sizes = sorted({r["n"] for _, r in rows})
    at = {
        (arm, r["label"], r["dose"], r["n"]): _value(r["auc"]) + (" told" if r["told_apart"] else "") for arm, r in rows
    }
    twins = ", each with its twin on the other" if all(r.get("twins") for _, r in rows) else ""
    tested = " and its p as small" if all("p" in r for _, r in rows) else ""
    yield (
        f"**The smallest change that shows,** by {WEIGHTS}: AUC at so many networks a side{twins}, told apart where its lower bound, corrected over "
        f"{rows[0][1]['tests']} tests, is above ½{tested}. What more networks would do is an extrapolation: the AUC stays as it is with the most, and "
        "its bounds narrow by the root of their number:\n"
    )
    most = {(arm, r["label"], r["dose"]): r for arm, r in sorted(rows, key=lambda row: row[1]["n"])}
    kinds = list(dict.fromkeys(key[:3] for key in at))
    yield from pages.table(
        ("arm", "machine", "key in", *(f"{n} a side" for n in sizes), "told from, extrapolated"),
        [(ARMS[k[0]], *k[1:], *(at.get((*k, n), "") for n in sizes), _more(most[k])) for k in kinds],
    )


def _more(row: Mapping[str, Any]) -> str:
    """From how many networks a side a change would be told whose AUC stays as it is."""
    auc = row["auc"]
    if row["told_apart"]:
        return "–"
    if auc["low"] is None:
        return "no lower bound"
    if auc["value"] <= 0.5:
        return "none: its AUC is not above ½"
    times = ((auc["value"] - auc["low"]) / (auc["value"] - 0.5)) ** 2
    return f"{row['n'] * times:,.0f} a side" if times <= MOST_TIMES else f"more than {row['n'] * MOST_TIMES:,}"


def _value(score: Mapping[str, Any]) -> str:
    bounds = "[–]" if score["low"] is None else f"[{score['low']:.2f}, {score['high']:.2f}]"
    return f"{score['value']:.2f} {bounds}"


def _signed(score: Mapping[str, Any]) -> str:
    bounds = "[–]" if score["low"] is None else f"[{score['low']:+.2f}, {score['high']:+.2f}]"
    return f"{score['value']:+.2f} {bounds}"


def _both(row: Mapping[str, Any], name: str, form: str = ".1e") -> str:
    values = [row.get(f"{name}, {side}") for side in ("clean", "modified")]
    return " / ".join("–" if v is None else format(v["value"], form) for v in values)


def _test(row: Mapping[str, Any], test: str = "test") -> str:
    q = (row.get(test) or {}).get("q")
    return "" if q is None else f"{q:.2g}"


def _least(recall: Mapping[str, float]) -> str:
    name = min(recall, key=lambda k: recall[k])
    return f"{recall[name]:.2f} ({name})"
