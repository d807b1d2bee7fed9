"""benchmarks/results/nws.json → what stands between the markers of docs/nws.md.

In:  the record of each zoo, as `benchmarks/nws.py` keeps it.
Out: sentences, whose words follow from comparisons made here, and tables (`nws_tables.py`). No number is typed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pages
from nws_tables import DEEP, STILL, above, low, names, read_from, tables

from zoo_datasets.analysis.nws import features
from zoo_datasets.analysis.nws.properties import ARCHITECTURE
from zoo_datasets.analysis.nws.run import QUESTIONS
from zoo_datasets.analysis.nws.scoring import TOLD
from zoo_datasets.analysis.nws.study import OF_MIXED, OF_NETWORK, POSITIONS, PUBLISHED

# Question → what its figure shows.
PICTURES = {
    "accuracy": "accuracy by property", "features": "local and global features", "by-accuracy": "by accuracy of the networks",
    "gain": "gain over metadata", "when": "along training", "where": "along the vector", "parts": "by part of the network", "layers": "by layer",
    "how-much": "by size of the window", "null": "nulls", "null-gain": "gain by the weights of others",
}  # fmt: skip
WINDOWS = "svm, windows"
OTHERWISE = {  # how the published code learns and asks
    OF_NETWORK: f"With the statistics of each batch, of one network's windows, the {DEEP}",
    OF_MIXED: f"With the statistics of each batch, of many networks' windows, the {DEEP}",
    PUBLISHED: f"After epochs as published, by one seed, the {DEEP}",
}
FEWEST = 0.05  # as the analysis calls a gain too small to matter
MOVED = "both"  # of other coordinates: all that there are


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
        f"{of['n_models']:,} networks of {of['n_architectures']:,} architectures{_layouts(of)}, {of['n_snapshots']:,} snapshots of "
        f"{_range(of['lengths'])} weights; {_sides(of)}. Windows of {made['window']:,} weights"
        + (
            ""
            if made["no_deep"]
            else f", {made['seeds']} seeds of {made['epochs']} epochs, {made['windows']} windows a network"
        )
        + f". Median test accuracy {of['accuracy'][2]:.2f}, median of {of['updates'][2]:,.0f} updates"
        + _by_batch(of.get("updates_by_batch_size", {}))
        + (f"; {of['constant_start']:,} networks start from a constant" if of["constant_start"] else "")
        + f". Intervals: 95 %, over groups.{_not_asked(numbers)}\n"
    )
    yield from (f"* {sentence}" for sentence in findings(numbers))
    yield ""
    yield from pages.pictures(name, PICTURES)
    yield from tables(numbers)


def _not_asked(numbers: Mapping[str, Any]) -> str:
    made = numbers["settings"]
    missing = [f"`{q}`" for q in QUESTIONS if q not in made["questions"]]
    said = f" Not asked yet, of the questions above: {', '.join(missing)}." if missing else ""
    parts = ["children"] if "transfer" in made["questions"] and not numbers["transfer"]["children"] else []
    parts += ["epochs as published"] if not made["no_deep"] and not made["published_epoch"] else []
    return said + (f" Not asked of this zoo: {' and '.join(parts)}." if parts else "")


def _layouts(of: Mapping[str, Any]) -> str:
    """Architectures may differ in what no weight shows, like the activation."""
    found = of.get("n_layouts", of["n_architectures"])
    return f" ({found:,} layouts of weights)" if found != of["n_architectures"] else ""


def _by_batch(updates: Mapping[str, Sequence[float]]) -> str:
    """Undertrained networks are those of large batches: what is read of a batch size may be that."""
    by_size = sorted(updates.items(), key=lambda item: float(item[0]))  # JSON has them as words
    return f" ({', '.join(f'{of[2]:,.0f} at batch {size}' for size, of in by_size)})" if updates else ""


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
            *((how, [r for r in rows if r["method"] == method]) for method, how in OTHERWISE.items()),
            ("A support vector machine on statistics", [r for r in rows if r["first"]]),
        ):
            if own:
                told = [r["property"] for r in own if above(r)]
                yield (
                    f"**What.** {who} reads {len(told)} of {len(own)} properties above chance"
                    f"{': ' + ', '.join(f'`{n}`' for n in told) if told else ''}. Corrected over {numbers['tests']['n']} tests."
                )
        yield from _positions(rows)
    if rows := numbers.get("gain"):
        for over in dict.fromkeys(r["over"] for r in reversed(rows)):
            own = [r for r in rows if r["over"] == over and r["arm"] == "all" and r["first"]]
            readable, small, open_, told = (
                names(r for r in own if test(r["verdict"]))
                for test in ("readable".__eq__, lambda v: v.startswith("less"), "undecided".__eq__, TOLD.__eq__)
            )
            beyond = (
                "**Beyond where the windows lie,** of what a network looks like, by statistics of windows in a support vector machine"
                if over == POSITIONS
                else f"**Beyond {over}, and vector length,** by statistics in a support vector machine (of windows, where it is asked what a "
                "network looks like)"
            )
            decided = (
                f" Decided by the length of the vector, so that there is nothing to gain: {_list(told)}."
                if told
                else ""
            )
            yield (
                f"{beyond}, corrected over {numbers['gain_tests']['n']} tests. Readable: {_list(readable)}. Not readable at this n (a gain "
                f"below {FEWEST:g}): {_list(small)}. Undecided: {_list(open_)}.{decided}"
            )
    if rows := numbers.get("when"):
        yield from _early(rows, numbers["when_tests"]["n"])
    if rows := numbers.get("how_much"):
        yield from _enough(rows, numbers["population"])
    if found := numbers.get("null"):
        every = [r for rows in found.values() for r in rows if r.get("p") is not None]
        leaks = [f"`{r['property']}` by {r['method']}" for r in every if r["leak"]]
        yield (
            f"**Nulls.** Of {len(every)} readings of shuffled labels, of training at the first snapshot, and of what other networks' weights add, "
            f"{len(leaks)} are told though nothing can be, by permutations and corrected{': ' + ', '.join(leaks) if leaks else ''}."
        )
    transfer = numbers.get("transfer") or {}
    if rows := transfer.get("held_out", ()):
        yield from _never_seen(rows)
    if rows := transfer.get("symmetry", ()):
        yield from _coordinates(rows)
    if rows := transfer.get("children", ()):
        yield from _grown(rows)


def _early(rows: Sequence[Mapping[str, Any]], tests: int) -> Iterator[str]:
    for reader, own in _by_reader(rows):
        first = {name: place for (name, _), place in read_from(own).items()}
        yield (
            f"**When.** The snapshot (of 0 to {own[0]['of'] - 1}) from which on {reader} reads a property above chance, corrected over "
            f"{tests} tests of snapshots, properties and methods: {_from(first)}."
        )


def _positions(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a network looks like can be told by where its layers begin, without a value."""
    own = [r for r in rows if r["method"] == POSITIONS and r["kind"] == ARCHITECTURE]
    by_values = {r["property"]: r["value"] for r in rows if r["method"] == WINDOWS}
    if own:
        told = ", ".join(
            f"`{r['property']}` {r['value']:.2f} (with their values {by_values[r['property']]:.2f}, chance {r['chance']:.2f})"
            for r in own
        )
        yield f"**What positions give away.** How many values of each tensor {features.WINDOWS} windows cover, and none of the values, says of what a network looks like: {told}."


def _enough(rows: Sequence[Mapping[str, Any]], of: Mapping[str, Any]) -> Iterator[str]:
    sizes = sorted({r["size"] for r in rows})
    part = sizes[-1] / of.get("median_length", sizes[-1])
    most = (
        f" The largest is the shortest vector, {part:.0%} of the median one: of all weights nothing is said."
        if part < 1
        else ""
    )
    for reader, own in _by_reader(rows):
        told = {(r["property"], r["size"]) for r in own if low(r) > r["chance"]}
        first = {
            name: next((k for n, k in enumerate(sizes) if all((name, size) in told for size in sizes[n:])), None)
            for name in names(own)
        }
        yield (
            f"**How much.** The smallest window (of {len(sizes)}, from {sizes[0]:,} to {sizes[-1]:,} values) from which on {reader} reads a "
            f"property above chance, by one seed and its interval, not corrected: {_from({n: k for n, k in first.items() if k})}.{most}"
        )


def _by_reader(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """What a sentence calls those who read, and the rows of each that there are."""
    for reader, methods in (
        (f"the {DEEP}", (DEEP,)),
        ("a support vector machine on statistics", ("svm", WINDOWS)),
    ):
        if own := [r for r in rows if r["method"] in methods]:
            yield reader, own


def _from(first: Mapping[str, int]) -> str:
    return ", ".join(f"`{name}` {at:,}" for name, at in sorted(first.items(), key=lambda item: item[1])) or "none"


def _never_seen(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of how many readings something is lost where nobody has learned from the level, by the interval of the paired difference."""
    for who, own in (
        ("statistics named beforehand read", [r for r in rows if r["method"] not in (DEEP, "boosting")]),
        (f"the {DEEP} reads", [r for r in rows if r["method"] == DEEP]),
    ):
        asked = [r for r in own if r.get("lost_low") is not None]
        if asked:
            by_axis = {
                axis: [r for r in asked if r["axis"] == axis] for axis in dict.fromkeys(r["axis"] for r in asked)
            }
            worse, alike = (
                ", ".join(f"`{axis}` {sum(test(r) for r in mine)} of {len(mine)}" for axis, mine in by_axis.items())
                for test in (lambda r: r["lost_low"] > 0, lambda r: r["lost_low"] <= 0 and r["lost_high"] < FEWEST)
            )
            n, within = (sum(r[k] for r in asked) / len(asked) for k in ("n_train", "within_n_train"))
            yield (
                f"**Levels never seen.** Who has learned from none of a level ({n:,.0f} networks in the mean), and from fewer networks for that than "
                f"who has ({within:,.0f}): {who} other properties of its networks worse, for "
                f"{worse} (pairs of level and property whose interval lies above 0; not corrected). Not worse by {FEWEST:g}: {alike}."
            )


def _coordinates(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Worse or not by the interval of the paired difference, of networks that were moved; of properties that are read of networks as they are."""
    for reader, method in (
        (f"the {DEEP}", DEEP), ("a support vector machine on statistics of layers", "svm"), ("one on statistics of windows", WINDOWS),
    ):  # fmt: skip
        own = [r for r in rows if r["method"] == method]
        told = {r["property"] for r in own if r["move"] == STILL and low(r) > r["chance"]}
        own = [r for r in own if r["move"] == MOVED]
        if not own:
            continue
        unread = [r["property"] for r in own if r["property"] not in told]
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


def _grown(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where a child's setting is its parent's no more: is the parent's read above chance, along the child's own training?"""
    for zoo in dict.fromkeys(r["zoo"] for r in rows):
        for reader, mine in _by_reader([r for r in rows if r["zoo"] == zoo and r["whose"] == "parent's"]):
            places = sorted({r["place"] for r in mine})
            told = "; ".join(
                f"at {place} {_list([r['property'] for r in mine if r['place'] == place and low(r) > r['chance']])}"
                for place in places
            )
            yield (
                f"**Children** ({zoo}). What their parent was trained with and they were not, as {reader} reads it of them above chance (by its "
                f"interval, not corrected), by the child's snapshot of 0 to {mine[0]['of'] - 1}: {told}. Of {_list(names(mine))}."
            )


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{n}`" for n in names) or "none"
