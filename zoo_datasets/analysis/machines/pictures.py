"""Numbers of the study → its figures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.core.figures import BLUE, GREY, ORANGE, caption, figure_of, headline, legend, marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_APART = 8  # what was learned, each with a place of its own; of more the figure shows how they are spread
MOST_NAMED = 49  # in a legend: as many as have a color and marker of their own
MOST_LINES = 12  # of a legend


def planes(population: Population, aligned: np.ndarray, of: int) -> Figure:
    """The two first principal components of clean networks, as they are and aligned; perhaps not of all `of` there are."""
    labels = sorted(np.unique(population.label), key=in_order)
    figure, axes = figure_of(9.5, 4, 2)
    for ax, (title, weights) in zip(axes[0], (("as they are", population.weights), ("aligned", aligned)), strict=True):
        centered = weights.astype(np.float64) - weights.mean(axis=0, dtype=np.float64)
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        at = (u * s)[:, :2]
        for label, mark in marks(labels).items():
            own = population.label == label
            second = at[own, 1] if at.shape[1] > 1 else 0 * at[own, 0]
            ax.scatter(at[own, 0], second, s=11, label=str(label), linewidths=0, **mark)
        caption(ax, title, "first component", "second component")
    _named(figure, axes[0, 0])
    shown = f"{len(population):,}" if of == len(population) else f"{len(population):,} of {of:,}"
    headline(figure, f"Weights of {shown} networks by what they learned")
    return figure


def bars(rows: Sequence[Mapping[str, Any]], chance: float, unit: str) -> Figure:
    """The accuracy of each solver with its interval; controls are gray."""
    figure, axes = figure_of(7, 0.5 * len(rows) + 1.2)
    ax = axes[0, 0]
    for place, row in enumerate(reversed(rows)):
        score = row["accuracy"]
        ax.barh(place, score["value"], color=GREY if row["control"] else BLUE, height=0.6)
        if score["low"] is not None:
            ax.plot([score["low"], score["high"]], [place, place], color="black", linewidth=1.2)
    ax.axvline(chance, color=ORANGE, linewidth=1.2, label="largest class")
    ax.set_yticks(range(len(rows)), [r["solver"] for r in reversed(rows)])
    ax.set_xlim(0, 1)
    caption(ax, f"whole {unit} held out", "accuracy", "")
    legend(ax)
    headline(figure, f"What was learned, told from n = {rows[0]['n']:,} networks")
    return figure


def learning(rows: Sequence[Mapping[str, Any]], label: str) -> Figure:
    """The median validation loss over epochs of each machine, and its quartiles; modified ones are dashed."""
    figure, axes = figure_of(7, 4)
    ax = axes[0, 0]
    mark = marks(sorted((r[label] for r in rows), key=in_order))
    for key in sorted(
        {(r[label], r["modified"], r["dose"]) for r in rows}, key=lambda k: (in_order(k[0]), *map(str, k))
    ):
        own = [r for r in rows if (r[label], r["modified"], r["dose"]) == key and r["median"] > 0]
        color, epochs = mark[key[0]]["color"], [r["epoch"] for r in own]
        name = f"{key[0]}, modified {key[2]}" if key[1] else str(key[0])
        line = "--" if key[1] else "-"
        ax.plot(epochs, [r["median"] for r in own], line, label=name, markersize=4, **mark[key[0]])
        ax.fill_between(
            epochs,
            [r["lower_quartile"] for r in own],
            [r["upper_quartile"] for r in own],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    ax.set_xscale("symlog", linthresh=1)
    ax.set_yscale("log")
    caption(ax, "lines: medians; bands: quartiles", "epochs", "validation loss")
    _named(figure, ax)
    headline(figure, "How training goes")
    return figure


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy over the number of networks in training."""
    figure, axes = figure_of(6, 3.6)
    ax = axes[0, 0]
    for solver, mark in marks(r["solver"] for r in rows).items():
        own = [r for r in rows if r["solver"] == solver]
        ax.plot(
            [r["n_train"] for r in own],
            [r["accuracy"]["value"] for r in own],
            label=solver,
            markersize=4,
            **mark,
        )
    ax.set_xscale("log")
    ax.set_ylim(0, 1)
    caption(ax, "", "networks in training", "accuracy")
    legend(ax)
    headline(figure, "What was learned: how many networks it takes")
    return figure


def measures(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Null, yardstick and modification by one procedure, for each machine; of many machines how they are spread."""
    labels = list(dict.fromkeys(r["label"] for r in rows))
    kinds = list(dict.fromkeys((r["what"], r["dose"]) for r in rows))
    apart = len(labels) <= MOST_APART
    figure, axes = figure_of(max(6.5, 1.6 + 1.8 * (len(labels) if apart else len(kinds))), 3.6)
    ax = axes[0, 0]
    for i, (kind, mark) in enumerate(marks(kinds).items()):
        own = {r["label"]: r for r in rows if (r["what"], r["dose"]) == kind}
        values = [r["accuracy"]["value"] for r in own.values()]
        if apart:
            at = [labels.index(name) + 0.12 * (i - len(kinds) / 2) for name in own]
            spread = [r["spread"] or 0.0 for r in own.values()]
            ax.errorbar(at, values, spread, linestyle="", label=_kind(kind), capsize=3, **mark)
        else:
            beside = 0.5 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
            ax.scatter(i + beside, values, s=16, linewidths=0, **mark)
            ax.plot([i - 0.3, i + 0.3], [np.median(values)] * 2, color=mark["color"], linewidth=1.6)
    ax.axhline(0.5, color=GREY, linewidth=0.8)
    ax.set_ylim(0, 1.05)
    if apart:
        ax.set_xticks(range(len(labels)), labels)
        caption(ax, "nearest mean, one network left out; bars: spread of draws", "", "accuracy")
        _named(figure, ax)
    else:
        counts = [len({r["label"] for r in rows if (r["what"], r["dose"]) == kind}) for kind in kinds]
        ticks = [textwrap.fill(_kind(kind), 18) + f"\nn = {n}" for kind, n in zip(kinds, counts, strict=True)]
        ax.set_xticks(range(len(kinds)), ticks)
        caption(ax, "nearest mean, one network left out; each value, and their median", "", "accuracy")
    modified = any(dose is not None for _, dose in kinds)
    headline(figure, f"{'A modification beside another draw' if modified else 'Another draw'}, and a draw cut in two")
    return figure


def _kind(kind: tuple[str, str | None]) -> str:
    return ", ".join(part for part in kind if part)


def in_order(label: Any) -> tuple[int, float, str]:
    """Numbers by size, words by alphabet."""
    try:
        return (0, float(label), "")
    except (TypeError, ValueError):
        return (1, 0.0, str(label))


def _named(figure: Figure, ax: Axes) -> None:
    """Who is who, below the panels, for which the figure grows; of too many only how many they are."""
    handles, names = ax.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    columns = max(1, int(10 * width) // (max(map(len, names), default=1) + 5))
    rows = -(-len(names) // columns)
    if len(names) > MOST_NAMED or rows > MOST_LINES:
        ax.annotate(f"{len(names)} of them", (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=8.5)
    elif names:
        figure.set_size_inches(width, height + 0.19 * rows)
        figure.legend(
            handles, names, loc="outside lower left", ncols=columns, frameon=False, fontsize=8.5, handlelength=1.6
        )


def power(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The AUC of each dose with its corrected bounds, by how many networks a side there were."""
    figure, axes = figure_of(6, 3.6)
    ax = axes[0, 0]
    doses = list(dict.fromkeys(r["dose"] for r in rows))
    for i, (n, mark) in enumerate(marks(r["n"] for r in rows).items()):
        own = [r for r in rows if r["n"] == n]
        at = [doses.index(r["dose"]) + 0.1 * (i - 1) for r in own]
        ax.plot(at, [r["auc"]["value"] for r in own], linestyle="", label=f"{n} a side", markersize=4, **mark)
        for x, row in zip(at, own, strict=True):
            if row["auc"]["low"] is not None:
                ax.plot([x, x], [row["auc"]["low"], row["auc"]["high"]], color=mark["color"], linewidth=1.2)
    ax.axhline(0.5, color=GREY, linewidth=0.8)
    ax.set_xticks(range(len(doses)), doses)
    ax.set_ylim(0, 1.05)
    caption(ax, "bounds corrected over all tests", "share of training sequences with the key", "AUC")
    legend(ax)
    headline(figure, "The smallest change that shows")
    return figure
