"""Numbers of the study → its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.machines.population import Population
from zoo_datasets.core.figures import BLUE, COLORS, GREEN, GREY, ORANGE, PINK, SKY, caption, figure_of, headline, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def planes(population: Population, aligned: np.ndarray) -> Figure:
    """The two first principal components of clean networks, as they are and aligned."""
    figure, axes = figure_of(9.5, 4, 2)
    for ax, (title, weights) in zip(axes[0], (("as they are", population.weights), ("aligned", aligned)), strict=True):
        centered = weights.astype(np.float64) - weights.mean(axis=0, dtype=np.float64)
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        at = (u * s)[:, :2]
        for color, label in zip(COLORS, np.unique(population.label), strict=False):
            own = population.label == label
            ax.scatter(
                at[own, 0],
                at[own, 1] if at.shape[1] > 1 else 0 * at[own, 0],
                s=9,
                color=color,
                label=str(label),
                linewidths=0,
            )
        caption(ax, title, "first component", "second component")
    legend(axes[0, 0])
    headline(figure, "Weights of networks by what they learned")
    return figure


def bars(rows: Sequence[Mapping[str, Any]], chance: float) -> Figure:
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
    caption(ax, "whole data draws held out", "accuracy", "")
    legend(ax)
    headline(figure, f"What was learned, told from n = {rows[0]['n']:,} networks")
    return figure


def learning(rows: Sequence[Mapping[str, Any]], label: str) -> Figure:
    """The median validation loss over epochs of each machine, and its quartiles; modified ones are dashed."""
    figure, axes = figure_of(7, 4)
    ax = axes[0, 0]
    names = list(dict.fromkeys(r[label] for r in rows))
    for key in dict.fromkeys((r[label], r["modified"], r["dose"]) for r in rows):
        own = [r for r in rows if (r[label], r["modified"], r["dose"]) == key and r["median"] > 0]
        color, epochs = COLORS[names.index(key[0]) % len(COLORS)], [r["epoch"] for r in own]
        name = f"{key[0]}, modified {key[2]}" if key[1] else str(key[0])
        ax.plot(epochs, [r["median"] for r in own], "--" if key[1] else "-", color=color, label=name)
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
    if len(names) <= len(COLORS):
        legend(ax)
    headline(figure, "How training goes")
    return figure


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy over the number of networks in training."""
    figure, axes = figure_of(6, 3.6)
    ax = axes[0, 0]
    for color, solver in zip(COLORS, dict.fromkeys(r["solver"] for r in rows), strict=False):
        own = [r for r in rows if r["solver"] == solver]
        ax.plot(
            [r["n_train"] for r in own],
            [r["accuracy"]["value"] for r in own],
            "o-",
            color=color,
            label=solver,
            markersize=4,
        )
    ax.set_xscale("log")
    ax.set_ylim(0, 1)
    caption(ax, "", "networks in training", "accuracy")
    legend(ax)
    headline(figure, "Which machine: how many networks it takes")
    return figure


def measures(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Null, yardstick and modification by one procedure, for each machine."""
    labels = list(dict.fromkeys(r["label"] for r in rows))
    kinds = list(dict.fromkeys((r["what"], r["dose"]) for r in rows))
    figure, axes = figure_of(1.6 + 1.8 * len(labels), 3.6)
    ax = axes[0, 0]
    for i, (color, kind) in enumerate(zip((GREY, BLUE, ORANGE, GREEN, PINK, SKY), kinds, strict=False)):
        own = {r["label"]: r for r in rows if (r["what"], r["dose"]) == kind}
        what = ", ".join(part for part in kind if part)
        at = [labels.index(name) + 0.12 * (i - len(kinds) / 2) for name in own]
        ax.errorbar(
            at,
            [r["accuracy"]["value"] for r in own.values()],
            [r["spread"] or 0.0 for r in own.values()],
            fmt="o",
            color=color,
            label=what,
            capsize=3,
        )
    ax.axhline(0.5, color=GREY, linewidth=0.8)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_ylim(0, 1.05)
    caption(ax, "nearest mean, one network left out; bars: spread of draws", "", "accuracy")
    legend(ax)
    headline(figure, "A modification beside another draw, and a draw cut in two")
    return figure


def power(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The AUC of each dose with its corrected bounds, by how many networks a side there were."""
    figure, axes = figure_of(6, 3.6)
    ax = axes[0, 0]
    doses = list(dict.fromkeys(r["dose"] for r in rows))
    for i, (color, n) in enumerate(zip(COLORS, dict.fromkeys(r["n"] for r in rows), strict=False)):
        own = [r for r in rows if r["n"] == n]
        at = [doses.index(r["dose"]) + 0.1 * (i - 1) for r in own]
        ax.plot(at, [r["auc"]["value"] for r in own], "o", color=color, label=f"{n} a side", markersize=4)
        for x, row in zip(at, own, strict=True):
            if row["auc"]["low"] is not None:
                ax.plot([x, x], [row["auc"]["low"], row["auc"]["high"]], color=color, linewidth=1.2)
    ax.axhline(0.5, color=GREY, linewidth=0.8)
    ax.set_xticks(range(len(doses)), doses)
    ax.set_ylim(0, 1.05)
    caption(ax, "bounds corrected over all tests", "share of training sequences with the key", "AUC")
    legend(ax)
    headline(figure, "The smallest change that shows")
    return figure
