"""Numbers of the study → its figures: who tells which level, and what each level costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.core.figures import BLUE, GREY, ORANGE, caption, figure_of, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def told(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC of each detector (blue) and control (gray) with its interval, a panel for each level."""
    levels = [*dict.fromkeys(r["level"] for r in rows)]
    names = [*dict.fromkeys(r["detector"] for r in rows)]
    figure, axes = figure_of(2.3 * len(levels) + 2.4, 0.3 * len(names) + 1.6, len(levels))
    for ax, level in zip(axes[0], levels, strict=True):
        for row in (r for r in rows if r["level"] == level):
            at = len(names) - 1 - names.index(row["detector"])
            auc, color = row["auc"], GREY if row["control"] else BLUE
            ax.plot([auc["value"]], [at], "o", color=color, markersize=4)
            if auc["low"] is not None:
                ax.plot([auc["low"], auc["high"]], [at, at], color=color, linewidth=1.5)
        ax.axvline(0.5, color=ORANGE, linewidth=1)
        ax.set_xlim(0, 1.02)
        ax.set_yticks(range(len(names)), names[::-1] if ax is axes[0, 0] else [""] * len(names))
        n = next((r["poor"], r["reference"]) for r in rows if r["level"] == level)
        caption(ax, f"{level}\nn = {n[0]} and {n[1]}", "AUC", "")
    headline(figure, "Against all classes alike; gray sees no weights")
    return figure


def harm(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy lost, over all classes and on the rare ones, and how many images the cue moves."""
    parts = {
        "accuracy_lost": "all classes",
        "accuracy_lost_on_rare_classes": "classes that are rare in some",
        "reliance": "moved by the cue",
    }
    figure, axes = figure_of(10, 0.4 * len(rows) + 1.4, len(parts))
    for ax, (name, title) in zip(axes[0], parts.items(), strict=True):
        for at, row in enumerate(reversed(rows)):
            if (score := row[name]) is None or not np.isfinite(score["value"]):
                continue
            ax.plot([score["value"]], [at], "o", color=BLUE, markersize=4)
            if score["low"] is not None:
                ax.plot([score["low"], score["high"]], [at, at], color=BLUE, linewidth=1.5)
        ax.axvline(0, color=ORANGE, linewidth=1)
        ax.set_ylim(-0.5, len(rows) - 0.5)
        ax.set_yticks(range(len(rows)), [r["level"] for r in reversed(rows)] if ax is axes[0, 0] else [""] * len(rows))
        caption(ax, title, "share of test images" if name == "reliance" else "accuracy lost, of twins", "")
    headline(figure, "What poor data cost")
    return figure
