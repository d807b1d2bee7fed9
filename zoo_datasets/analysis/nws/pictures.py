"""The numbers of the analysis → figures, one a question. Titles say what was found, and are made from the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.nws.scoring import TOLD
from zoo_datasets.core.figures import (
    BLUE,
    COLORS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    caption,
    figure_of,
    headline,
    legend,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
METHOD_COLORS = {
    "meta-classifier": BLUE, "svm": ORANGE, "boosting": GREEN, "metadata": GREY, "metadata and updates": INK,
    "svm, windows": PINK, "svm, whole vector": SKY, "meta-classifier, one window": VERMILION, "positions": VERMILION,
    "boosting of both": SKY, "meta-classifier, whole vector": INK,
}  # fmt: skip
# What a network looks like is read by statistics of windows, all else by those of layers.
SHOWN = ("metadata", "svm", "svm, windows", "boosting", "meta-classifier")
LOCAL = (
    "svm, windows", "svm, whole vector", "svm", "meta-classifier, one window", "meta-classifier", "meta-classifier, whole vector",
)  # fmt: skip
LEVEL = 0.05  # of false discoveries, as on the page
COLUMNS = 4  # panels side by side, where each property has one


def figures(numbers: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of every question that was answered."""
    if rows := numbers.get("accuracy"):
        looks = [r for r in rows if r["method"] != "positions" or r["kind"] == "architecture"]
        yield "accuracy", _bars(looks, (*SHOWN, "positions"), _above(rows))
    if rows := numbers.get("features"):
        yield "features", _bars(rows, LOCAL, "Local and global features: windows, layers, the whole vector")
    if rows := [r for r in numbers.get("by_accuracy") or () if isinstance(r["bin"], int)]:
        yield "by-accuracy", _lines(rows, "accuracy_of_networks", "mean test accuracy", SHOWN,
                                    "Read by how accurate the networks are, in thirds")  # fmt: skip
    if rows := numbers.get("gain"):
        # Where what is known decides a property, the gain is over where the windows lie.
        told = {r["property"] for r in rows if r["verdict"] == TOLD}
        own = [r for r in rows if r["arm"] != "no constant start"
               and r["over"] == ("positions" if r["property"] in told else "metadata")]  # fmt: skip
        known = "metadata (of architectures: than where windows lie)" if told else "metadata"
        readable = {r["property"] for r in own if r["first"] and r["verdict"] == "readable"}
        yield (
            "gain",
            _gains(
                own,
                f"Weights say more than {known} of {len(readable)} of {len({r['property'] for r in own})} properties",
            ),
        )
    if rows := numbers.get("when"):
        yield "when", _lines([r | {"at": r["place"] / max(1, r["of"] - 1)} for r in rows], "at", "share of training",
                             SHOWN, "When each property becomes readable")  # fmt: skip
    if (found := numbers.get("where")) and found["positions"]:
        yield "where", _positions(found["positions"])
    if found and found["parts"]:
        yield (
            "parts",
            _split(found["parts"], "part", "Where: windows of one part of the network, read by the meta-classifier"),
        )
    if found and found["layers"]:
        yield (
            "layers",
            _split(found["layers"], "layer", "Where: statistics of one layer alone, read by a support vector machine"),
        )
    if rows := numbers.get("how_much"):
        yield "how-much", _lines(rows, "size", "consecutive weights", LOCAL, "How many weights it takes", log=True)
    if found := numbers.get("null"):
        rows = [*(r | {"method": f"{r['method']}, shuffled"} for r in found["shuffled"]),
                *(r | {"method": f"{r['method']}, step 0"} for r in found["step_0"])]  # fmt: skip
        asked = [r for r in rows if r.get("p") is not None]
        if rows:
            yield "null", _bars(rows, tuple(dict.fromkeys(r["method"] for r in rows)),
                                f"Nulls: {sum(r['leak'] for r in asked)} of {len(asked)} are told where nothing can be read")  # fmt: skip
        if rows := found["gain"]:
            leaks, names = {r["property"] for r in rows if r["leak"]}, {r["property"] for r in rows}
            yield "null-gain", _gains([r for r in rows if r["over"] == "metadata"],
                                      f"Weights of other networks: a gain of {len(leaks)} of {len(names)} properties, where there is none")  # fmt: skip


def _above(rows: Rows) -> str:
    """By the meta-classifier, or the statistics that were named beforehand; as the page counts."""
    deep = [r for r in rows if r["method"] == "meta-classifier"]
    own = deep or [r for r in rows if r["first"]]
    above = sum(r["q"] < LEVEL and _number(r["low"]) > r["chance"] for r in own)
    reader = "the meta-classifier" if deep else "a support vector machine"
    return f"{above} of {len(own)} properties are read above chance by {reader}"


def _bars(rows: Rows, methods: Sequence[str], title: str) -> Figure:
    """Per property a row of points with their intervals, one for each method; chance as a tick."""
    names = list(dict.fromkeys(r["property"] for r in rows))
    shown = [m for m in methods if any(r["method"] == m for r in rows)]
    figure, axes = figure_of(8.0, 1.2 + 0.14 * len(names) * (len(shown) + 1))
    ax = axes[0, 0]
    for j, method in enumerate(shown):
        color = METHOD_COLORS.get(method, COLORS[j % len(COLORS)])
        for r in (r for r in rows if r["method"] == method):
            y = names.index(r["property"]) + 0.8 * (j + 0.5) / len(shown) - 0.4
            ax.plot(_number(r["value"]), y, "o", color=color, markersize=4, label=method)
            if np.isfinite(_number(r["low"])):
                ax.plot([r["low"], r["high"]], [y, y], color=color, linewidth=1.2)
            ax.plot([r["chance"]] * 2, [y - 0.4 / len(shown), y + 0.4 / len(shown)], color=INK, linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    caption(ax, "with 95 % intervals; the tick is chance", "accuracy; of a number 1 − error / error of the median", "")
    _once(ax)
    headline(figure, title)
    return figure


def _lines(rows: Rows, x: str, label: str, methods: Sequence[str], title: str, log: bool = False) -> Figure:
    """A panel for each property, a line for each method, chance in grey."""
    names = list(dict.fromkeys(r["property"] for r in rows))
    figure, axes = _panels(names)
    for name, ax in zip(names, axes, strict=False):
        own = [r for r in rows if r["property"] == name]
        for method in methods:
            mine = sorted((r for r in own if r["method"] == method), key=lambda r: float(r[x]))
            if mine:
                at = [float(r[x]) for r in mine]
                ax.plot(at, [_number(r["value"]) for r in mine], color=METHOD_COLORS[method], marker=".", label=method)
                bounds = [[_number(r[k]) for r in mine] for k in ("low", "high")]
                ax.fill_between(at, *bounds, color=METHOD_COLORS[method], alpha=0.15, linewidth=0)
        best = sorted((float(r[x]), r["chance"]) for r in own)
        ax.plot(*zip(*best, strict=True), color=GREY, linestyle=":", label="chance")
        if log:  # labels of few sizes lie close: the first and the last are enough
            ax.set_xscale("log")
            ends = sorted({best[0][0], best[-1][0]})
            ax.set_xticks(ends, [f"{e:,.0f}" for e in ends])
            ax.minorticks_off()
        else:
            ax.locator_params(axis="x", nbins=4)
        caption(ax, name, label, "accuracy")
    _once(axes[0], axes[: len(names)])
    headline(figure, title)
    return figure


def _positions(rows: Rows) -> Figure:
    names = [r["property"] for r in rows]
    figure, axes = _panels(names)
    for r, ax in zip(rows, axes, strict=False):
        at, of = np.linspace(0, 1, len(r["values"])), {k: [_number(v) for v in r[k]] for k in ("values", "low", "high")}
        ax.plot(at, of["values"], color=BLUE, label="meta-classifier, one window")
        ax.fill_between(at, of["low"], of["high"], color=BLUE, alpha=0.15, linewidth=0)
        ax.axhline(r["chance"], color=GREY, linestyle=":", label="chance")
        caption(ax, r["property"], "place of the window in the vector", "accuracy")
    _once(axes[0])
    headline(figure, f"Where: {len(rows[0]['values'])} evenly spaced windows, first layer to last")
    return figure


def _split(rows: Rows, key: str, title: str) -> Figure:
    names = list(dict.fromkeys(r[key] for r in rows))
    # More layers than colors: these come round again, in the order of the layers.
    figure, ax = _beside(rows, key, {name: COLORS[j % len(COLORS)] for j, name in enumerate(names)}, chance=True)
    caption(ax, "with 95 % intervals; the tick is chance", "accuracy; of a number 1 − error / error of the median", "")
    _once(ax)
    headline(figure, title)
    return figure


def _beside(rows: Rows, key: str, colors: Mapping[str, str], *, chance: bool) -> tuple[Figure, Axes]:
    """A line of the figure for each property, and in it a point with its interval for each value of `key`; a tick at `chance`."""
    names = list(dict.fromkeys(r["property"] for r in rows))
    shown = list(dict.fromkeys(r[key] for r in rows))
    figure, axes = figure_of(8.0, 1.2 + 0.14 * len(names) * (len(shown) + 1))
    ax = axes[0, 0]
    for r in rows:
        y, color = names.index(r["property"]) + 0.8 * (shown.index(r[key]) + 0.5) / len(shown) - 0.4, colors[r[key]]
        ax.plot(_number(r["value"]), y, "o", color=color, markersize=4, label=r[key])
        ax.plot([_number(r["low"]), _number(r["high"])], [y, y], color=color, linewidth=1.2)
        if chance:
            ax.plot([r["chance"]] * 2, [y - 0.4 / len(shown), y + 0.4 / len(shown)], color=INK, linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    return figure, ax


def _gains(rows: Rows, title: str) -> Figure:
    figure, ax = _beside(rows, "method", METHOD_COLORS, chance=False)
    ax.axvline(0, color=INK, linewidth=1)
    caption(ax, "with 95 % intervals over groups", "accuracy with weights − accuracy of what is known without", "")
    _once(ax)
    headline(figure, title)
    return figure


def _panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, axes = figure_of(2.8 * columns + 0.6, 2.3 * rows + 0.5, columns, rows)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    return figure, list(axes.flat)


def _once(ax: Axes, of: Sequence[Axes] = ()) -> None:
    """A legend below, in which each label stands once; of several panels those of all, which need not show the same methods."""
    handles = {label: h for a in (of or [ax]) for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure = ax.get_figure(root=True)
    assert figure is not None
    columns = min(len(handles), max(2, int(figure.get_figwidth() // 2.2)))
    legend(figure, handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=columns)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
