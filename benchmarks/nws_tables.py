"""The record of a zoo in benchmarks/results/nws.json → the tables of docs/nws.md, one a question, a row a property.

What has no place beside the others (boosting, where it is not asked first; levels and moves by every method) stands in the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pages

from zoo_datasets.analysis.nws.properties import ARCHITECTURE
from zoo_datasets.analysis.nws.study import POSITIONS

DEEP, ONE, SEED_0 = "meta-classifier", "meta-classifier, one window", "meta-classifier, first seed"
NAMED = "statistics named beforehand"  # of layers; of windows, where it is asked what a network looks like
SHOWN = ("metadata", "metadata and updates", POSITIONS, "svm", "svm, windows", "boosting", DEEP, ONE)
LEVEL = 0.05  # of false discoveries
MOMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of training, that the table of snapshots shows
STILL = "as they are"  # of other coordinates: none

Rows = Sequence[Mapping[str, Any]]


def tables(numbers: Mapping[str, Any]) -> Iterator[str]:
    """One for each question that was answered."""
    yield from _accuracy(numbers.get("accuracy") or ())
    yield from _gain(numbers.get("gain") or ())
    yield from _inside([r for r in numbers.get("by_accuracy") or () if r["bin"] in ("inside", "no constant start")])
    yield from _features(numbers.get("features") or ())
    yield from _when(numbers.get("when") or ())
    yield from _where(numbers.get("where") or {})
    yield from _how_much(numbers.get("how_much") or ())
    yield from _null(numbers.get("null") or {})
    yield from _transfer(numbers.get("transfer") or {})


def read_from(rows: Rows) -> dict[tuple[str, str], int]:
    """Property and method → the first of those snapshots after which it is read at each; none where the last one does not tell it."""
    first: dict[tuple[str, str], int] = {}
    for r in sorted(rows, key=lambda r: r["place"]):
        key = r["property"], r["method"]
        if above(r):
            first.setdefault(key, r["place"])
        else:
            first.pop(key, None)
    return first


def above(row: Mapping[str, Any]) -> bool:
    """Read above chance: by its interval, and its corrected test."""
    return row.get("q") is not None and row["q"] < LEVEL and low(row) > row["chance"]


def low(row: Mapping[str, Any]) -> float:
    return float("-inf") if row["low"] is None else float(row["low"])


def names(rows: Any) -> list[str]:
    return list(dict.fromkeys(r["property"] for r in rows))


# ── one a question ────────────────────────────────────────────────────────────────────


def _accuracy(rows: Rows) -> Iterator[str]:
    if not rows:
        return
    methods = [m for m in SHOWN if any(r["method"] == m for r in rows)]
    yield "**Accuracy on networks never seen** (of a number, 1 − error / error of the median; after a semicolon the least and the most over seeds):\n"
    yield from _by_property(
        rows, ("kind", "n", "chance", *methods),
        lambda own: (own[0]["kind"], str(own[0]["n"]), f"{own[0]['chance']:.2f}", *(_of(own, method=m) for m in methods)),
    )  # fmt: skip
    arms = {r["method"]: r["steps"] for r in rows if r["method"].startswith(DEEP) and r["method"] != ONE}
    if len(arms) > 1:
        yield (
            "**Other ways to learn and to ask the meta-classifier.** What was learned with one seed (networks of one property, published epochs) "
            "is to be compared with the first seed. Steps are those of one seed:\n"
        )
        yield from _by_property(
            rows, [f"{m}: {steps:,} steps" for m, steps in arms.items()], lambda own: [_of(own, method=m) for m in arms]
        )


def _gain(rows: Rows) -> Iterator[str]:
    """A table for what is known beside; the verdict is of the statistics named beforehand, what others gain stands behind."""
    for over in dict.fromkeys(r["over"] for r in rows):
        mine = [r for r in rows if r["over"] == over]
        others = list(dict.fromkeys(r["method"] for r in mine if not r["first"]))
        covered = (
            ", of what a network looks like together with what the windows cover"
            if over != POSITIONS and any(r["kind"] == ARCHITECTURE for r in mine)
            else ""
        )
        yield (
            f"**What weights add to {over}**{covered}: accuracy without them, with {NAMED}, and the gain, by five folds over all networks (what the "
            f"meta-classifier gains by its test networks alone, where it says so). Bold: q below {LEVEL:g}.\n"
        )
        yield from pages.table(
            ("property", "networks", "n", over, "with weights", "gain", "q", "verdict", *others),
            [
                (f"`{name}`", arm, str(first["n"]), f"{first['known']:.2f}", f"{first['with_weights']:.2f}", _gained(first),
                 f"{first['q']:.3g}", first["verdict"], *(_gains_of(own, m) for m in others))
                for name in names(mine) for arm in dict.fromkeys(r["arm"] for r in mine if r["first"])
                for own in ([r for r in mine if r["property"] == name and r["arm"] in (arm, "test networks")],)
                for first in (r for r in own if r["first"])
            ],
        )  # fmt: skip


def _gains_of(rows: Rows, method: str) -> str:
    return next(
        (_gained(r) + (f" of {r['n']}" if r["arm"] == "test networks" else "") for r in rows if r["method"] == method),
        "",
    )


def _gained(row: Mapping[str, Any]) -> str:
    found = f"{row['value']:+.3f} {_bounds(row)}"
    return f"**{found}**" if row["q"] < LEVEL and row["value"] > 0 else found


def _inside(rows: Rows) -> Iterator[str]:
    if not rows:
        return
    yield f"**Inside thirds of final accuracy, and without networks of a constant start,** by metadata, {NAMED}, and the {DEEP}:\n"
    deep = (DEEP,) if any(r["method"] == DEEP for r in rows) else ()
    yield from pages.table(
        ("property", "networks", "n", "chance", "metadata", "statistics", *deep),
        [
            (f"`{name}`", "inside thirds" if part == "inside" else part, str(first["n"]), f"{first['chance']:.2f}",
             _of(own, method="metadata"), _value(first), *(_of(own, method=m) for m in deep))
            for name in names(rows) for part in dict.fromkeys(r["bin"] for r in rows)
            for own in ([r for r in rows if r["property"] == name and r["bin"] == part],)
            for first in (r for r in own if r["first"])
        ],
    )  # fmt: skip


def _features(rows: Rows) -> Iterator[str]:
    if not rows:
        return
    reads = {r["method"]: r["reads"] for r in rows}
    yield "**Local and global features:**\n"
    yield from _by_property(
        rows, ("chance", *(f"{method} ({what})" for method, what in reads.items())),
        lambda own: (f"{own[0]['chance']:.2f}", *(_of(own, method=m) for m in reads)),
    )  # fmt: skip


def _when(rows: Rows) -> Iterator[str]:
    """At some moments of training, and the snapshot from which on a property is read."""
    if not rows:
        return
    last = rows[0]["of"] - 1
    places = list(dict.fromkeys(round(share * last) for share in MOMENTS))
    first = read_from(rows)
    yield f"**When:** accuracy at snapshots 0 to {last}, and from which on it is above chance, corrected:\n"
    yield from pages.table(
        ("property", "method", "chance", *(f"snapshot {place}" for place in places), "readable from"),
        [
            (f"`{n}`", m, f"{own[0]['chance']:.2f}", *(_of(own, place=place) for place in places), str(first.get((n, m), "–")))
            for n in names(rows) for m in dict.fromkeys(r["method"] for r in rows)
            for own in ([r for r in rows if r["property"] == n and r["method"] == m],) if own
        ],
    )  # fmt: skip


def _where(found: Mapping[str, Any]) -> Iterator[str]:
    for key, column, what in (
        (
            "parts",
            "part",
            "**Where:** the meta-classifier on windows that lie in one part of the network, of networks that have windows of both:",
        ),
        ("layers", "layer", "**Where:** the support vector machine on statistics of one layer alone:"),
    ):
        if rows := found.get(key):
            columns = list(dict.fromkeys(r[column] for r in rows))
            yield f"{what}\n"
            yield from _by_property(rows, ("n", "chance", *columns), _cells(column, columns))


def _cells(column: str, values: Sequence[Any]) -> Any:
    """n, chance, and what is read of each of the column's values."""
    return lambda own: (str(own[0]["n"]), f"{own[0]['chance']:.2f}", *(_of(own, **{column: v}) for v in values))


def _how_much(rows: Rows) -> Iterator[str]:
    if not rows:
        return
    sizes = sorted({r["size"] for r in rows})
    yield "**How much:** accuracy by size of the window, one seed:\n"
    yield from pages.table(
        ("property", "method", *(f"{s:,}" for s in sizes)),
        [
            (f"`{name}`", method, *(_of(rows, property=name, method=method, size=s) for s in sizes))
            for name in names(rows) for method in dict.fromkeys(r["method"] for r in rows)
        ],
    )  # fmt: skip


# ── nulls ─────────────────────────────────────────────────────────────────────────────


def _null(found: Mapping[str, Any]) -> Iterator[str]:
    """All nulls of a property side by side; and the gains by other networks' weights."""
    every = [
        dict(r, read=f"{r['method'].replace('svm, windows', 'svm')}, {what}")
        for what, rows in (("shuffled labels", found.get("shuffled") or ()), ("first snapshot", found.get("step_0") or ()))
        for r in rows
    ]  # fmt: skip
    if every:
        shuffles = ", ".join(
            f"{r['shuffles']} by {r['method']}" for r in {r["method"]: r for r in every if "shuffles" in r}.values()
        )
        yield (
            "**Nulls:** of the first snapshot only architecture and initialization can be told; q where nothing can, and chance is there what the same "
            "answers say of labels that changed places within folds. What a network looks like is read by statistics of windows here too. Of shuffled "
            f"labels ({shuffles}) the mean, its interval over shuffles, and the least and the most of them:\n"
        )
        columns = list(dict.fromkeys(r["read"] for r in every))
        yield from _by_property(
            every, ("kind", *columns), lambda own: (own[0]["kind"], *(_nothing(own, c) for c in columns))
        )
    if rows := found.get("gain"):
        overs = list(dict.fromkeys(r["over"] for r in rows))
        yield f"**What the weights of other networks add,** by {NAMED}, as the verdicts are made; nothing can be gained:\n"
        yield from _by_property(
            rows, ("n", *(column for over in overs for column in (over, f"gain over {over}"))),
            lambda own: (str(own[0]["n"]), *(cell for over in overs for cell in _no_gain(own, over))),
        )  # fmt: skip


def _nothing(rows: Rows, read: str) -> str:
    return next((f"{_value(r)} of {r['n']}, chance {r['chance']:.2f}{_told(r)}" for r in rows if r["read"] == read), "")


def _no_gain(rows: Rows, over: str) -> tuple[str, str]:
    return next(
        ((f"{r['known']:.2f}", f"{r['value']:+.3f} {_bounds(r)}{_told(r)}") for r in rows if r["over"] == over),
        ("", ""),
    )


def _told(row: Mapping[str, Any]) -> str:
    return "" if row.get("q") is None else f", q {row['q']:.2g}{': **a leak**' if row['leak'] else ''}"


# ── unlike those learned from ─────────────────────────────────────────────────────────


def _transfer(found: Mapping[str, Any]) -> Iterator[str]:
    if rows := found.get("held_out"):
        boosted = [r for r in rows if r["method"] == "boosting"]
        for what, mine in (
            (NAMED, [r for r in rows if r["method"] not in ("boosting", DEEP)]),
            (f"the {DEEP}", [r for r in rows if r["method"] == DEEP]),
        ):
            for axis in dict.fromkeys(r["axis"] for r in mine):
                yield from _held_out(what, [r for r in mine if r["axis"] == axis])
        if boosted:
            yield "What boosting reads of these levels stands in the result file.\n"
    if rows := found.get("symmetry"):
        moves = list(dict.fromkeys(r["move"] for r in rows if r["move"] != STILL))
        yield (
            "**The same networks in other coordinates:** how those that a move changes are read, of how many, and what is lost against the same ones "
            "as they are, paired:\n"
        )  # fmt: skip
        yield from pages.table(
            ("property", "method", STILL, *moves),
            [
                (f"`{n}`", m, _of(own, move=STILL), *(_moved(own, move) for move in moves))
                for n in names(rows) for m in dict.fromkeys(r["method"] for r in rows)
                for own in ([r for r in rows if r["property"] == n and r["method"] == m],) if own
            ],
        )  # fmt: skip
    if rows := found.get("children"):
        yield "**Children that went on under another recipe:** read as what their parent was trained with, and as what they are:\n"
        yield from pages.table(
            ("zoo", "property", "method", "snapshot", "compared with", "n", "chance", "accuracy"),
            [
                (pages.short(r["zoo"]), f"`{r['property']}`", r["method"], f"{r['place']} of {r['of'] - 1}", r["whose"], str(r["n"]), f"{r['chance']:.2f}", _value(r))
                for r in rows
            ],
        )  # fmt: skip


def _held_out(what: str, rows: Rows) -> Iterator[str]:
    """A column for each level that was left out; those who were asked and learned from are the same of all properties, but for gaps."""
    levels = list(dict.fromkeys((r["axis"], r["level"]) for r in rows))
    sizes = {level: [r for r in rows if (r["axis"], r["level"]) == level] for level in levels}
    yield (
        f"**A level that was never seen,** by {what}: how the other properties of its networks are read, chance, and what is lost against who "
        "learned from others of that level, paired:\n"
    )  # fmt: skip
    yield from _by_property(
        rows,
        [f"`{axis}` {pages.short(level)} (n {max(r['n'] for r in own)}, learned from {own[0]['n_train']}{_within(own)})" for (axis, level), own in sizes.items()],
        lambda own: [_never_seen(own, axis, level) for axis, level in levels],
    )  # fmt: skip


def _within(rows: Rows) -> str:
    return next((f"; within {r['within_n_train']}" for r in rows if r.get("within_n_train")), "")


def _never_seen(rows: Rows, axis: str, level: str) -> str:
    return next(
        (f"{r['value']:.2f}, chance {r['chance']:.2f}{_lost(r)}" for r in rows if (r["axis"], r["level"]) == (axis, level)), ""
    )  # fmt: skip


def _moved(rows: Rows, move: str) -> str:
    return next((f"{r['value']:.2f} of {r['n_moved']}{_lost(r)}" for r in rows if r["move"] == move), "")


def _lost(row: Mapping[str, Any]) -> str:
    if row.get("lost") is None:
        return ""
    bounds = "[–]" if row["lost_low"] is None else f"[{row['lost_low']:+.2f}, {row['lost_high']:+.2f}]"
    return f"; lost {row['lost']:+.2f} {bounds}"


# ── parts ─────────────────────────────────────────────────────────────────────────────


def _by_property(rows: Rows, head: Sequence[str], cells: Any) -> Iterator[str]:
    """A row for each property, whose `cells` are made of its own rows."""
    yield from pages.table(
        ("property", *head), [(f"`{name}`", *cells([r for r in rows if r["property"] == name])) for name in names(rows)]
    )


def _of(rows: Rows, **wanted: Any) -> str:
    return next((_value(r) for r in rows if all(r[k] == v for k, v in wanted.items())), "")


def _value(row: Mapping[str, Any]) -> str:
    """The value, its interval over groups, and the spread over seeds, which is no part of it; of shuffles both are over these."""
    if row["value"] is None:
        return "–"
    seeds = row.get("by_shuffle") or row.get("by_seed") or ()
    spread = f"; {min(seeds):.2f} to {max(seeds):.2f}" if len(seeds) > 1 else ""
    return f"{row['value']:.2f} {_bounds(row)}{spread}"


def _bounds(row: Mapping[str, Any]) -> str:
    return "[–]" if row["low"] is None else f"[{row['low']:.2f}, {row['high']:.2f}]"
