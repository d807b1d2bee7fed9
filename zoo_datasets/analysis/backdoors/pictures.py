"""Numbers of the study → its figures: triggers, detectors, questions, dose–response, and where in the weights it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.backdoors.linear import last_layer
from zoo_datasets.analysis.backdoors.population import Population
from zoo_datasets.core.figures import BLUE, COLORS, GREY, ORANGE, SKY, VERMILION, caption, figure_of, headline, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 8  # images in a row
MOST_LINES = len(COLORS)  # detectors in one panel, the best first


def triggers(images: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Test images (C, H, W) with a trigger on each, and what it is."""
    rows = -(-len(images) // ACROSS)
    figure, axes = figure_of(1.25 * ACROSS, 1.5 * rows + 0.4, ACROSS, rows)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (title, image) in zip(axes.flat, images, strict=False):
        low, high = float(image.min()), float(image.max())
        shown = (image.astype(np.float64) - low) / max(high - low, 1e-9)
        ax.imshow(
            shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0),
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        ax.set_title(title, fontsize=7)
    headline(figure, "Triggers as they are stamped")
    return figure


def bars(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC of each detector with its interval; controls are gray, and a mark is its yardstick."""
    figure, axes = figure_of(7.5, 0.36 * len(rows) + 1.3)
    ax = axes[0, 0]
    for place, row in enumerate(reversed(rows)):
        auc = row["auc"]
        ax.barh(place, auc["value"], color=GREY if row["control"] else BLUE, height=0.6)
        if auc["low"] is not None:
            ax.plot([auc["low"], auc["high"]], [place, place], color="black", linewidth=1.2)
        if row["yardstick"] is not None:
            ax.plot([row["yardstick"]] * 2, [place - 0.4, place + 0.4], color=VERMILION, linewidth=2)
    ax.axvline(0.5, color=ORANGE, linewidth=1.2)
    names = [r["detector"] for r in rows]
    labels = [r["detector"] + (f", seed {r['seed']}" if names.count(r["detector"]) > 1 else "") for r in rows]
    ax.set_yticks(range(len(rows)), labels[::-1])
    ax.set_xlim(0, 1)
    caption(ax, "unseen init groups; gray sees no weights; red marks: the yardstick", "AUC, trojaned against clean", "")
    headline(figure, f"Backdoors told from n = {rows[0]['n_train']:,} networks")
    return figure


def questions(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC of every detector in every question, as a table of colors with its numbers."""
    asked, names = ([*dict.fromkeys(r[k] for r in rows)] for k in ("question", "detector"))
    value = np.full((len(names), len(asked)), np.nan)
    for row in rows:
        value[names.index(row["detector"]), asked.index(row["question"])] = row["auc"]["value"]
    figure, axes = figure_of(1.15 * len(asked) + 2.6, 0.36 * len(names) + 1.5)
    ax = axes[0, 0]
    ax.grid(False)
    ax.imshow(value, vmin=0, vmax=1, cmap="RdBu_r", aspect="auto")
    for i, j in zip(*np.nonzero(np.isfinite(value)), strict=True):
        strong = abs(value[i, j] - 0.5) > 0.3
        ax.text(j, i, f"{value[i, j]:.2f}", ha="center", va="center", fontsize=8, color="white" if strong else "black")
    ax.set_xticks(range(len(asked)), [a.replace(" ", "\n") for a in asked])
    ax.set_yticks(range(len(names)), names)
    headline(figure, "AUC where levels are held out")
    return figure


def doses(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC and the attack's success over the share of stamped images."""
    figure, axes = figure_of(9.5, 4, 2)
    names = [*dict.fromkeys(r["detector"] for r in rows)]
    best = sorted(names, key=lambda n: -max(r["auc"]["value"] for r in rows if r["detector"] == n))[:MOST_LINES]
    for color, name in zip(COLORS, best, strict=False):
        own = sorted((r for r in rows if r["detector"] == name), key=lambda r: r["rate"])
        at = [r["rate"] for r in own]
        axes[0, 0].plot(at, [r["auc"]["value"] for r in own], color=color, marker="o", markersize=3.5, label=name)
        bounds = [(r["auc"]["low"], r["auc"]["high"]) for r in own]
        if all(low is not None for low, _ in bounds):
            axes[0, 0].fill_between(at, *zip(*bounds, strict=True), color=color, alpha=0.12, linewidth=0)
    own = sorted((r for r in rows if r["detector"] == names[0]), key=lambda r: r["rate"])
    axes[0, 1].plot(
        [r["rate"] for r in own], [r["success"] for r in own], color=BLUE, marker="o", label="success, mean"
    )
    axes[0, 1].plot(
        [r["rate"] for r in own],
        [r["works"] / r["trojaned"] for r in own],
        color=GREY,
        marker="o",
        label="pairs that work",
    )
    for ax, title, y in zip(axes[0], ("what detectors see", "what the attack does"), ("AUC", "share"), strict=True):
        ax.set_xscale("log")
        ax.set_ylim(0, 1.02)
        caption(ax, title, "share of training images stamped", y)
        legend(ax)
    axes[0, 0].axhline(0.5, color=ORANGE, linewidth=1)
    headline(
        figure, "Dose and response" + (f": the {len(best)} highest of {len(names)}" if len(best) < len(names) else "")
    )
    return figure


def where(p: Population) -> Figure:
    """Of pairs of one layout: by how much each tensor's size differs between twins, and the last layer's row of each class."""
    architecture = p.architectures[int(p.architecture[0])]
    clean = {int(i): k for k, (i, t) in enumerate(zip(p.pair, p.trojaned, strict=True)) if not t}
    mine = [k for k in np.flatnonzero(p.trojaned) if int(p.pair[k]) in clean]
    w = np.stack([p.weights[int(k)] for k in mine]).astype(np.float64)
    twin = np.stack([p.weights[clean[int(p.pair[k])]] for k in mine]).astype(np.float64)
    figure, axes = figure_of(10, 4, 2)
    entries = [e for e in architecture.layout if e.role == "parameter"]
    ratios = [
        np.log2(np.maximum(np.linalg.norm(w[:, e.offset : e.end], axis=1), 1e-12)
                / np.maximum(np.linalg.norm(twin[:, e.offset : e.end], axis=1), 1e-12))
        for e in entries
    ]  # fmt: skip
    for place, ratio in enumerate(reversed(ratios)):
        low, lower, middle, upper, high = np.quantile(ratio, [0.05, 0.25, 0.5, 0.75, 0.95])
        axes[0, 0].plot([low, high], [place, place], color=SKY, linewidth=2)
        axes[0, 0].plot([lower, upper], [place, place], color=BLUE, linewidth=6)
        axes[0, 0].plot([middle], [place], color="white", marker="|", markersize=8)
    axes[0, 0].set_yticks(range(len(entries)), [e.name for e in reversed(entries)])
    axes[0, 0].axvline(0, color=ORANGE, linewidth=1)
    caption(axes[0, 0], "size of each tensor", "log₂ of trojaned over its clean twin: quarters, and 5 to 95 %", "")
    rows = last_layer(architecture, w.astype(np.float32))[0].sum(2) - last_layer(architecture, twin.astype(np.float32))[
        0
    ].sum(2)
    target = np.array([int(t) for t in p.factors["target"][mine]])
    is_target = np.arange(rows.shape[1])[None] == target[:, None]
    low, high = np.quantile(rows, [0.005, 0.995]).tolist()
    bins = np.linspace(low, high, 40)
    axes[0, 1].hist(rows[~is_target], bins, density=True, color=SKY, alpha=0.7, label="other classes")
    axes[0, 1].hist(rows[is_target], bins, density=True, color=VERMILION, alpha=0.7, label="the target")
    caption(axes[0, 1], "last layer: sum of a class's weights", "trojaned less its clean twin", "density")
    legend(axes[0, 1])
    headline(figure, f"Where it shows: {len(mine):,} pairs that work")
    return figure
