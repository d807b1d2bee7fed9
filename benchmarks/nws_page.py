"""benchmarks/results/nws.json → what stands between the markers of docs/nws.md.

In:  the record of each zoo, as `benchmarks/nws.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables. No number is typed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pages

# Question → what its figure shows.
PICTURES = {
    "accuracy": "accuracy by property", "features": "local and global features", "by-accuracy": "by accuracy of the networks",
    "gain": "gain over metadata", "when": "along training", "where": "along the vector", "parts": "by part of the network", "layers": "by layer",
    "how-much": "by size of the window", "null": "nulls", "null-gain": "gain by the weights of others",
}  # fmt: skip
DEEP, ONE, SEED_0 = "meta-classifier", "meta-classifier, one window", "meta-classifier, first seed"
WINDOWS = "svm, windows"
NAMED = "statistics named beforehand"  # of layers; of windows, where it is asked what a network looks like
SHOWN = ("metadata", "metadata and updates", "positions", "svm", WINDOWS, "boosting", DEEP, ONE)
FEWEST = 0.05  # as the analysis calls a gain too small to matter
LEVEL = 0.05  # of false discoveries
MOMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of training, that the table of snapshots shows
STILL, MOVED = "as they are", "both"  # of other coordinates: none, and all that there are


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    if not results:
        yield "No zoo has been analyzed with this version yet.\n"
    for name, numbers in sorted(results.items()):
        yield from _zoo(name, numbers)


def _zoo(name: str, numbers: Mapping[str, Any]) -> Iterator[str]:
    of, made = numbers["population"], numbers["settings"]
    yield f"### {name}\n"
    yield (
        f"{of['n_models']:,} networks of {of['n_architectures']:,} architectures, {of['n_snapshots']:,} snapshots of "
        f"{_range(of['lengths'])} weights; {_sides(of)}. Windows of {made['window']:,} weights"
        + (
            ""
            if made["no_deep"]
            else f", {made['seeds']} seeds of {made['epochs']} epochs, {made['windows']} windows a network"
        )
        + f". Median test accuracy {of['accuracy'][2]:.2f}, median of {of['updates'][2]:,.0f} updates"
        + _by_batch(of.get("updates_by_batch_size", {}))
        + (f"; {of['constant_start']:,} networks start from a constant" if of["constant_start"] else "")
        + ". Intervals: 95 %, over groups.\n"
    )
    yield from (f"* {sentence}" for sentence in findings(numbers))
    yield ""
    yield from pages.pictures(name, PICTURES)
    yield from tables(numbers)


def _by_batch(updates: Mapping[str, Sequence[float]]) -> str:
    """Undertrained networks are those of large batches: what is read of a batch size may be that."""
    return f" ({', '.join(f'{of[2]:,.0f} at batch {size}' for size, of in updates.items())})" if updates else ""


def _range(ends: Sequence[int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"


def _sides(of: Mapping[str, Any]) -> str:
    return ", ".join(f"{side} {n:,} networks of {of['groups'][side]:,} groups" for side, n in of["sides"].items())


# ── sentences ─────────────────────────────────────────────────────────────────────────


def findings(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers say; words follow from comparisons made here."""
    if rows := numbers.get("accuracy"):
        for who, own in (
            (f"The {DEEP}", [r for r in rows if r["method"] == DEEP]),
            ("A support vector machine on statistics", [r for r in rows if r["first"]]),
        ):
            if own:
                above = [r["property"] for r in own if _above(r)]
                yield (
                    f"**What.** {who} reads {len(above)} of {len(own)} properties above chance"
                    f"{': ' + ', '.join(f'`{n}`' for n in above) if above else ''}. Corrected over {numbers['tests']['n']} tests."
                )
    if rows := numbers.get("gain"):
        for over in dict.fromkeys(r["over"] for r in reversed(rows)):
            own = [r for r in rows if r["over"] == over and r["arm"] == "all" and r["first"]]
            readable, small, open_ = (
                _names(r for r in own if test(r["verdict"]))
                for test in ("readable".__eq__, lambda v: v.startswith("less"), "undecided".__eq__)
            )
            yield (
                f"**Beyond {over}, and vector length,** by statistics in a support vector machine (of windows, where it is asked what a network "
                f"looks like), corrected over {numbers['gain_tests']['n']} tests. Readable: {_list(readable)}. Not readable at this n (a gain "
                f"below {FEWEST:g}): {_list(small)}. Undecided: {_list(open_)}."
            )
    if rows := numbers.get("when"):
        yield from _early(rows, numbers["when_tests"]["n"])
    if found := numbers.get("null"):
        every = [r for rows in found.values() for r in rows if r.get("p") is not None]
        leaks = [f"`{r['property']}` by {r['method']}" for r in every if r["leak"]]
        yield (
            f"**Nulls.** Of {len(every)} readings of shuffled labels, of training at the first snapshot, and of what other networks' weights add, "
            f"{len(leaks)} are told though nothing can be, by permutations and corrected{': ' + ', '.join(leaks) if leaks else ''}."
        )
    if rows := (numbers.get("transfer") or {}).get("symmetry", ()):
        yield from _coordinates(rows)


def _early(rows: Sequence[Mapping[str, Any]], tests: int) -> Iterator[str]:
    own = [r for r in rows if r["method"] == DEEP] or rows
    reader = f"the {DEEP}" if own[0]["method"] == DEEP else "a support vector machine on statistics"
    first = {name: place for (name, _), place in _from(own).items()}
    said = ", ".join(f"`{name}` {place}" for name, place in sorted(first.items(), key=lambda item: item[1])) or "none"
    yield (
        f"**When.** The snapshot (of 0 to {rows[0]['of'] - 1}) from which on {reader} reads a property above chance, corrected over "
        f"{tests} tests of snapshots, properties and methods: {said}."
    )


def _from(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """Property and method → the first of those snapshots after which it is read at each; none where the last one does not tell it."""
    first: dict[tuple[str, str], int] = {}
    for r in sorted(rows, key=lambda r: r["place"]):
        key = r["property"], r["method"]
        if _above(r):
            first.setdefault(key, r["place"])
        else:
            first.pop(key, None)
    return first


def _coordinates(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Worse or not by the interval of the paired difference, of networks that were moved; of properties that are read of networks as they are."""
    own = [r for r in rows if r["method"] == DEEP] or [r for r in rows if r["method"] == WINDOWS]
    told = {r["property"] for r in own if r["move"] == STILL and _low(r) > r["chance"]}
    own = [r for r in own if r["move"] == MOVED]
    if not own:
        return
    unread = [r["property"] for r in own if r["property"] not in told]
    reader = f"the {DEEP}" if own[0]["method"] == DEEP else "a support vector machine on statistics of windows"
    own = [r for r in own if r["property"] in told]
    worse = [r["property"] for r in own if r["lost_low"] is not None and r["lost_low"] > 0]
    alike = [
        r["property"]
        for r in own
        if r["lost_high"] is not None and r["lost_high"] < FEWEST and r["property"] not in worse
    ]
    rest = [r["property"] for r in own if r["property"] not in (*worse, *alike)]
    yield (
        f"**Other coordinates.** Of networks that compute the same with permuted units and other scales, {reader} reads worse than of the same "
        f"networks as they are: {_list(worse)}. Not worse by {FEWEST:g}: {_list(alike)}. Undecided: {_list(rest)}. "
        f"Not surely read above chance as they are: {_list(unread)}."
    )


def _above(row: Mapping[str, Any]) -> bool:
    return row.get("q") is not None and row["q"] < LEVEL and _low(row) > row["chance"]


def _names(rows: Any) -> list[str]:
    return list(dict.fromkeys(r["property"] for r in rows))


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{n}`" for n in names) or "none"


def _low(row: Mapping[str, Any]) -> float:
    return float("-inf") if row["low"] is None else float(row["low"])


# ── tables ────────────────────────────────────────────────────────────────────────────


def tables(numbers: Mapping[str, Any]) -> Iterator[str]:
    """One for each question that was answered."""
    if rows := numbers.get("accuracy"):
        methods = [m for m in SHOWN if any(r["method"] == m for r in rows)]
        yield "**Accuracy on networks never seen** (of a number, 1 − error / error of the median; after a semicolon the least and the most over seeds):\n"
        yield from pages.table(
            ("property", "kind", "n", "chance", *methods),
            [
                (
                    f"`{name}`",
                    own[0]["kind"],
                    str(own[0]["n"]),
                    f"{own[0]['chance']:.2f}",
                    *(_cell(own, m) for m in methods),
                )
                for name in _names(rows)
                for own in ([r for r in rows if r["property"] == name],)
            ],
        )
        arms = {r["method"]: r["steps"] for r in rows if r["method"].startswith(DEEP) and r["method"] != ONE}
        if len(arms) > 1:
            yield (
                "**Other ways to learn and to ask the meta-classifier.** What was learned with one seed (networks of one property, published epochs) "
                "is to be compared with the first seed. Steps are those of one seed:\n"
            )
            yield from pages.table(
                ("property", *(f"{m}: {steps:,} steps" for m, steps in arms.items())),
                [(f"`{n}`", *(_cell([r for r in rows if r["property"] == n], m) for m in arms)) for n in _names(rows)],
            )
    if rows := numbers.get("gain"):
        yield "**What weights add to metadata**, by five folds over all networks (the meta-classifier on the test networks alone, unless it says so):\n"
        yield from pages.table(
            ("property", "beside", "networks", "method", "n", "metadata", "with weights", "gain", "q"),
            [
                (
                    f"`{r['property']}`", r["over"], r["arm"], r["method"], str(r["n"]), f"{r['known']:.2f}",
                    f"{r['with_weights']:.2f}", f"{r['value']:+.3f} {_bounds(r)}: {r['verdict'] if r['first'] else 'beside'}", f"{r['q']:.3g}",
                )
                for r in rows
            ],
        )  # fmt: skip
    if rows := [r for r in numbers.get("by_accuracy") or () if r["bin"] in ("inside", "no constant start")]:
        yield f"**Inside thirds of final accuracy, and without networks of a constant start,** by metadata, {NAMED}, and the {DEEP}:\n"
        yield from pages.table(
            ("property", "networks", "method", "n", "chance", "accuracy"),
            [
                (f"`{r['property']}`", "inside thirds" if r["bin"] == "inside" else r["bin"], r["method"], str(r["n"]), f"{r['chance']:.2f}", _value(r))
                for r in rows if r["first"] or r["method"] in ("metadata", DEEP)
            ],
        )  # fmt: skip
    if rows := numbers.get("features"):
        reads = {r["method"]: r["reads"] for r in rows}
        yield "**Local and global features:**\n"
        yield from pages.table(
            ("property", "chance", *(f"{method} ({what})" for method, what in reads.items())),
            [
                (f"`{n}`", f"{one['chance']:.2f}", *(_of(rows, property=n, method=m) for m in reads))
                for n in _names(rows) for one in (next(r for r in rows if r["property"] == n),)
            ],
        )  # fmt: skip
    yield from _when(numbers.get("when") or ())
    yield from _where(numbers.get("where") or {})
    if rows := numbers.get("how_much"):
        sizes = sorted({r["size"] for r in rows})
        yield "**How much:** accuracy by size of the window, one seed:\n"
        yield from pages.table(
            ("property", "method", *(f"{s:,}" for s in sizes)),
            [
                (f"`{name}`", method, *(_of(rows, property=name, method=method, size=s) for s in sizes))
                for name in _names(rows)
                for method in dict.fromkeys(r["method"] for r in rows)
            ],
        )
    yield from _null(numbers.get("null") or {})
    yield from _transfer(numbers.get("transfer") or {})


def _null(found: Mapping[str, Any]) -> Iterator[str]:
    """Nulls beside each other, each by method; and the gains by other networks' weights."""
    every = [("shuffled labels", found.get("shuffled") or ()), ("the first snapshot", found.get("step_0") or ())]
    if any(rows for _, rows in every):
        yield (
            "**Nulls:** of the first snapshot only architecture and initialization can be told; q where nothing can, and chance is there what the same "
            "answers say of labels that changed places within folds. Of shuffled labels the mean, its interval over shuffles, and the least and the "
            "most of them:\n"
        )
        yield from pages.table(
            ("property", "kind", "read from", "method", "n", "chance", "accuracy", "q"),
            [
                (f"`{r['property']}`", r["kind"], f"{r['shuffles']} {what}" if "shuffles" in r else what, r["method"], str(r["n"]),
                 f"{r['chance']:.2f}", _value(r), _told(r))
                for what, rows in every for r in rows
            ],
        )  # fmt: skip
    if rows := found.get("gain"):
        yield "**What the weights of other networks add to metadata,** as the verdicts are made; nothing can be gained:\n"
        yield from pages.table(
            ("property", "beside", "method", "n", "metadata", "with their weights", "gain", "q"),
            [
                (f"`{r['property']}`", r["over"], r["method"], str(r["n"]), f"{r['known']:.2f}", f"{r['with_weights']:.2f}",
                 f"{r['value']:+.3f} {_bounds(r)}", _told(r))
                for r in rows
            ],
        )  # fmt: skip


def _told(row: Mapping[str, Any]) -> str:
    return "" if row.get("q") is None else f"{row['q']:.2g}{', a leak' if row['leak'] else ''}"


def _when(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """At some moments of training, and the snapshot from which on a property is read."""
    if not rows:
        return
    last = rows[0]["of"] - 1
    places = list(dict.fromkeys(round(share * last) for share in MOMENTS))
    first = _from(rows)
    yield f"**When:** accuracy at snapshots 0 to {last}, and from which on it is above chance, corrected:\n"
    yield from pages.table(
        ("property", "method", "chance", *(f"snapshot {place}" for place in places), "readable from"),
        [
            (
                f"`{n}`",
                m,
                f"{own[0]['chance']:.2f}",
                *(_of(own, place=place) for place in places),
                str(first.get((n, m), "–")),
            )
            for n in _names(rows)
            for m in dict.fromkeys(r["method"] for r in rows)
            for own in ([r for r in rows if r["property"] == n and r["method"] == m],)
            if own
        ],
    )


def _where(found: Mapping[str, Any]) -> Iterator[str]:
    for key, column, what in (
        ("parts", "part", "**Where:** the meta-classifier on windows that lie in one part of the network:"),
        ("layers", "layer", "**Where:** the support vector machine on statistics of one layer alone:"),
    ):
        if rows := found.get(key):
            columns = list(dict.fromkeys(r[column] for r in rows))
            yield f"{what}\n"
            yield from pages.table(
                ("property", "n", "chance", *columns),
                [
                    (f"`{n}`", str(one["n"]), f"{one['chance']:.2f}", *(_of(rows, **{"property": n, column: c}) for c in columns))
                    for n in _names(rows) for one in (next(r for r in rows if r["property"] == n),)
                ],
            )  # fmt: skip


def _transfer(found: Mapping[str, Any]) -> Iterator[str]:
    if rows := found.get("held_out"):
        yield "**A level that was never seen:** how the other properties of its networks are read, and how within:\n"
        yield from pages.table(
            ("held out", "property", "method", "n", "chance", "never seen", "learned from", "within", "learned from", "lost"),
            [
                (f"`{r['axis']}` {r['level']}", f"`{r['property']}`", r["method"], str(r["n"]), f"{r['chance']:.2f}", _value(r),
                 str(r["n_train"]), *((f"{r['within']:.2f}", str(r["within_n_train"]), _lost(r)) if r.get("within") is not None else ("", "", "")))
                for r in rows
            ],
        )  # fmt: skip
    if rows := found.get("symmetry"):
        yield "**The same networks in other coordinates:** those that a move changes, beside the same ones as they are, paired:\n"
        yield from pages.table(
            ("property", "method", "move", "n", "as they are", "moved", "lost"),
            [
                (f"`{r['property']}`", r["method"], r["move"], str(r["n_moved"]), f"{r['before']:.2f}", _value(r), _lost(r))
                for n in _names(rows) for r in rows if r["property"] == n and r["move"] != STILL
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


def _lost(row: Mapping[str, Any]) -> str:
    bounds = "[–]" if row["lost_low"] is None else f"[{row['lost_low']:+.2f}, {row['lost_high']:+.2f}]"
    return f"{row['lost']:+.2f} {bounds}"


def _cell(rows: Sequence[Mapping[str, Any]], method: str) -> str:
    return next((_value(r) for r in rows if r["method"] == method), "")


def _of(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> str:
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
