"""Results of the trajectories analysis → figures.

In:  arrays and rows as `trajectories` and `detection` make them.
Out: matplotlib figures: dendrogram, steps, ladder, embeddings, detection. Titles say what was
     found, and are made from the numbers.

A few trajectories are shown where more would be one blot; the title says how many.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.trajectories import clusters, paths, windows
from zoo_datasets.analysis.trajectories.ladder import whole_down_to
from zoo_datasets.analysis.trajectories.snapshots import Bag
from zoo_datasets.core.figures import (
    BLUE,
    COLORS,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    VERMILION,
    caption,
    figure_of,
    headline,
    legend,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 7  # trajectories drawn one by one: as many as there are colors
MOST_VECTORS = 5000  # merges of a dendrogram; an SVG of more is megabytes, and keeps them as pixels
UMAP_NEIGHBORS = 15
UMAP_DIMS = 64  # UMAP sees snapshots along so many singular vectors at most

LINKAGE_COLORS = {"single": BLUE, "average": ORANGE, "complete": GREEN, "ward": PINK}


# ── dendrogram ────────────────────────────────────────────────────────────────────────


def dendrogram(merges: np.ndarray, whose: np.ndarray, row: Mapping[str, Any]) -> Figure:
    """The single-linkage tree of all snapshots, each trajectory's part in a color; beside it some of them larger."""
    from matplotlib.collections import LineCollection

    n = len(merges) + 1
    label, x = clusters.owners(merges, whose), _leaf_places(merges)
    # On a logarithmic scale leaves hang down to just below the lowest merge that has a height.
    floor = 0.7 * merges[merges[:, 2] > 0, 2].min(initial=merges[-1, 2] or 1.0)
    height = np.maximum(np.concatenate([np.zeros(n), merges[:, 2]]), floor)
    middle = np.concatenate([x, np.zeros(n - 1)])
    segments, colors = np.empty((n - 1, 4, 2)), []
    by_place = np.unique(whose[np.argsort(x)], return_index=True)[1]  # first leaf of each trajectory
    rank = np.argsort(np.argsort(by_place))
    for turn, (a, b) in enumerate(merges[:, :2].astype(np.int64).tolist()):
        h = height[n + turn]
        segments[turn] = (middle[a], height[a]), (middle[a], h), (middle[b], h), (middle[b], height[b])
        middle[n + turn] = (middle[a] + middle[b]) / 2.0
        colors.append(INK if label[n + turn] < 0 else COLORS[rank[label[n + turn]] % (len(COLORS) - 1)])
    figure, axes = figure_of(11.0, 5.0, columns=2, width_ratios=[2, 1], sharey=True)
    n_models = len(np.unique(whose))
    shown = min(SHOWN - 1, n_models)
    leaves = np.bincount(whose).max() * shown
    for ax, width, stop in ((axes[0, 0], 0.5, n), (axes[0, 1], 1.1, leaves)):
        seen = np.flatnonzero(segments[:, :, 0].min(axis=1) < stop)
        ax.add_collection(LineCollection(
            list(segments[seen]), colors=[colors[i] for i in seen], linewidths=width, rasterized=len(seen) > MOST_VECTORS,
        ))  # fmt: skip
        ax.set_xlim(-n / 200 if stop == n else -leaves / 40, stop)
        ax.set_yscale("log")
        ax.set_ylim(floor, merges[-1, 2] * 1.3)
        ax.grid(axis="x", visible=False)
        ax.tick_params(axis="x", labelbottom=False, length=0)
    caption(axes[0, 0], f"all {n:,} snapshots of {n_models} networks", "snapshots, as the tree orders them", "distance at which they join (units of weight)")  # fmt: skip
    caption(axes[0, 1], "the first of them, larger", "snapshots", "")
    least, most = row["between_least"], row["within_most"]
    if row["purity"] == 1.0:
        text = f"Every training run is a branch of its own: its own snapshots join below {most:.2f}, strangers above {least:.2f}"
    else:
        text = f"Single linkage: {row['purity']:.1%} of snapshots are in their own training run's branch"
    headline(figure, text)
    return figure


def _leaf_places(merges: np.ndarray) -> np.ndarray:
    """Where each leaf stands, so that no lines cross. SciPy's own recurses, too deep for a staircase of thousands."""
    n = len(merges) + 1
    place, at, todo = np.empty(n), 0, [2 * n - 2]
    while todo:
        node = todo.pop()
        if node < n:
            place[node] = at
            at += 1
        else:
            a, b = merges[node - n, :2].astype(np.int64).tolist()
            size = [1 if c < n else merges[c - n, 3] for c in (a, b)]
            todo += [a, b] if size[0] < size[1] else [b, a]  # the larger side first, on the left
    return place


# ── steps ─────────────────────────────────────────────────────────────────────────────


def steps(measured: Sequence[paths.Path], bag: Bag) -> Figure:
    """Step lengths of some models one after another (the saw-tooth), and of all models over training."""
    from matplotlib.ticker import NullFormatter

    figure, axes = figure_of(11.0, 4.2, columns=2, width_ratios=[1.5, 1])
    shown, start = min(SHOWN, bag.n_models), 0
    for model in range(shown):
        s = measured[model].step
        axes[0, 0].plot(np.arange(start, start + len(s)), s, color=COLORS[model], linewidth=1.4)
        start += len(s)
    caption(axes[0, 0], f"{shown} training runs, one after another", "step, counted on from run to run", "step length ‖w(t+1) − w(t)‖ (units of weight)")  # fmt: skip
    longest = max(len(p.step) for p in measured)
    table = np.full((len(measured), longest), np.nan)
    for row, p in zip(table, measured, strict=True):
        row[: len(p.step)] = p.step
    epoch = max(bag.split("epoch"), key=len)[1:]
    low, mid, high = np.nanquantile(table, [0.05, 0.5, 0.95], axis=0)
    axes[0, 1].fill_between(epoch, low, high, color=BLUE, alpha=0.2, linewidth=0, label="5–95 % of models")
    axes[0, 1].plot(epoch, mid, color=BLUE, linewidth=2, label="median")
    caption(axes[0, 1], f"all {len(measured)} runs", "epoch at the end of the step", "")
    for ax in axes.ravel():
        if np.nanmin(table) > 0:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            # Within one decade powers of ten are too few labels.
            ax.yaxis.set_minor_formatter("{x:g}" if np.nanmax(table) < 10 * np.nanmin(table) else NullFormatter())
            ax.tick_params(which="both", labelsize=9, colors=INK)
    legend(axes[0, 1])
    first, last = np.nanmedian(table[:, 0]), np.nanmedian([p.step[-1] for p in measured])
    shortest = int(np.nanargmin(mid))
    if shortest < longest - 1:
        text = f"Steps of {first:.3g} at first, {mid[shortest]:.3g} around epoch {epoch[shortest]:g}, {last:.3g} at the end (medians)"
    else:
        text = f"Steps shrink to the end: {first:.3g} in the first, {last:.3g} in the last (medians)"
    headline(figure, text)
    return figure


# ── ladder ────────────────────────────────────────────────────────────────────────────


def ladder(rows: Sequence[Mapping[str, Any]], full: int) -> Figure:
    """Purity of each linkage and metric, separation, and τ of the recovered order, by dimensions kept."""
    figure, axes = figure_of(11.0, 4.4, columns=3)
    dims = sorted({row["dimensions"] for row in rows})
    styles = {"euclidean": "-", "cosine": (0, (2, 1.5))}
    for metric, style in styles.items():
        for linkage, color in LINKAGE_COLORS.items():
            line = _line(rows, metric, linkage, "purity")
            axes[0, 0].plot(*line, color=color, linestyle=style, marker="o", markersize=3, linewidth=1.5,
                            label=linkage if metric == "euclidean" else None)  # fmt: skip
        axes[0, 1].plot(*_line(rows, metric, "single", "separation"), color=INK, linestyle=style, marker="o", markersize=3, label=metric)  # fmt: skip
    axes[0, 1].axhline(1.0, color=VERMILION, linewidth=1)
    axes[0, 1].annotate("1: a stranger as near as one's own", (dims[-1], 1.0), xytext=(0, 3), textcoords="offset points",
                        fontsize=8, color=VERMILION)  # fmt: skip
    axes[0, 1].set_yscale("log")
    for name, color, what in (
        ("path", GREEN, "walk from an end, turned"),
        ("walk", BLUE, "walk to the nearest"),
        ("nearest_sort", ORANGE, "sort by nearest distance"),
    ):
        for where, style in (("true", "-"), ("found", (0, (2, 1.5)))):
            x, y = _line(rows, "euclidean", "single", f"tau_{where}_{name}")
            axes[0, 2].plot(
                x, y, color=color, linestyle=style, marker="o", markersize=3, label=f"{what}, {where} clusters"
            )
            low, high = (
                _line(rows, "euclidean", "single", f"tau_{where}_{name}_{side}")[1] for side in ("low", "high")
            )
            # The interval is symmetric, the measure ends at 1.
            axes[0, 2].fill_between(x, low, np.minimum(high, 1.0), color=color, alpha=0.15, linewidth=0)
    for ax in axes.ravel():
        ax.set_xscale("log", base=2)
        ax.invert_xaxis()
        ticks = dims[:: -max(1, round(len(dims) / 6))]
        ax.set_xticks(ticks, [f"{d:,}" for d in ticks])
        ax.minorticks_off()
    caption(axes[0, 0], "whose: purity of the cut (solid Euclidean,\ndotted cosine)", "dimensions kept", "purity")
    caption(axes[0, 1], "margin: nearest stranger / farthest neighbor\nof one's own", "dimensions kept", "separation")
    caption(
        axes[0, 2],
        "when: order without labels (single linkage,\nEuclidean)",
        "dimensions kept",
        "Kendall's τ with 95 % interval",
    )
    legend(axes[0, 0], loc="lower left")
    legend(axes[0, 1])
    handles = axes[0, 2].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower right", ncols=3, frameon=False, fontsize=8.5, labelcolor=INK)
    least = whole_down_to(rows)
    headline(
        figure,
        f"Single linkage finds every training run down to {least:,} of {full:,} dimensions"
        if least is not None
        else "Whose snapshot, and which came first, by dimensions kept",
    )
    return figure


def _line(rows: Sequence[Mapping[str, Any]], metric: str, linkage: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    points = sorted((r["dimensions"], r[name]) for r in rows if r["metric"] == metric and r["linkage"] == linkage)
    return np.array([d for d, _ in points]), np.array([np.nan if v is None else v for _, v in points], float)


# ── embeddings ────────────────────────────────────────────────────────────────────────


def embeddings(bag: Bag, seed: int, umap: bool) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of some trajectories in three dimensions: by PCA, and by UMAP where it is installed."""
    shown = min(SHOWN, bag.n_models)
    rows = np.flatnonzero(bag.whose < shown)
    weights, whose = bag.weights[rows].astype(np.float64), bag.whose[rows]
    centered = weights - weights.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    u *= np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])  # a sign that any library gives
    kept = float((s[:3] ** 2).sum() / (s**2).sum())
    what, points = f"{shown} of {bag.n_models} networks", (u * s)[:, :3]
    yield "pca", _spatial(
        points, whose, bag, rows, _apart(points, whose, "goes its own way", "In three principal components"),
        f"{what}, {kept:.0%} of their variance", "principal component",
    )  # fmt: skip
    if umap and importlib.util.find_spec("umap"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its libraries: on import, and on what a seed costs
            from umap import UMAP

            few = min(UMAP_NEIGHBORS, len(rows) - 1)
            model = UMAP(n_components=3, n_neighbors=few, random_state=seed, n_jobs=1, init="pca")
            points = model.fit_transform((u * s)[:, :UMAP_DIMS])
        yield "umap", _spatial(
            points, whose, bag, rows, _apart(points, whose, "is one thread", "To UMAP"),
            f"{what}; how far threads lie from each other means little", "UMAP",
        )  # fmt: skip


def _apart(points: np.ndarray, whose: np.ndarray, words: str, where: str) -> str:
    """The words, where single linkage finds every run whole in the points that are shown; else what it finds of them."""
    label, row = windows.clustered(points, whose)
    purity = clusters.purity(label, whose[row])
    if purity == 1.0:
        return f"{where} each of these {len(np.unique(whose))} runs {words}"
    return f"{where} {purity:.1%} of snapshots are with their own run"


def _spatial(
    points: np.ndarray, whose: np.ndarray, bag: Bag, rows: np.ndarray, title: str, what: str, axis: str
) -> Figure:
    from matplotlib import ticker
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.0))
    ax: Any = figure.add_axes((0.0, 0.02, 0.96, 0.9), projection="3d")
    ax.set_box_aspect(None, zoom=1.0)
    for model in range(int(whose.max()) + 1):
        p = points[whose == model]
        ax.plot(*p.T, color=COLORS[model], linewidth=1.2)
        sizes = np.linspace(24, 4, len(p))  # later is smaller, as steps are
        ax.scatter(*p.T, color=COLORS[model], s=sizes, depthshade=False, linewidths=0)
        ax.scatter(
            *p[:1].T, facecolor="white", edgecolor=COLORS[model], s=46, depthshade=False, linewidths=1.4, zorder=9
        )
    for side, name in zip((ax.xaxis, ax.yaxis, ax.zaxis), "123", strict=True):
        side.set_label_text(f"{axis} {name}", fontsize=9, color=INK)
        side.set_pane_color((1, 1, 1, 0))
        side.set_tick_params(labelsize=7, colors=INK)
        side.set_major_locator(ticker.MaxNLocator(5))
        side._axinfo["grid"].update(color=FAINT, linewidth=0.8)
    ax.view_init(elev=22, azim=-58)
    headline(figure, title)
    epochs = bag.columns["epoch"][rows]
    dots = f"Circle: epoch {epochs.min():g}; smaller dots are later, up to epoch {epochs.max():g}."
    figure.text(0.01, 0.95, f"{what}. {dots}", fontsize=9, color=INK, va="top")
    return figure


# ── detection ─────────────────────────────────────────────────────────────────────────


def detection(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC over the time since the change: a panel for each condition, a line for each family of features."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    columns = min(len(conditions), 3)
    lines_of = -(-len(conditions) // columns)
    figure, axes = figure_of(3.6 * columns + 0.6, 3.2 * lines_of + 1.0, columns, lines_of, sharex=True, sharey=True)
    for ax in axes.ravel()[len(conditions) :]:
        ax.set_visible(False)
    lines = {
        "all": ("all three", BLUE, "-", 2.2), "step length": ("step length", ORANGE, "-", 1.4),
        "curvature": ("curvature", GREEN, "-", 1.4), "direction": ("direction", PINK, "-", 1.4),
        "loss_change": ("test loss less the parent's", GREY, (0, (4, 2)), 1.4),
        "metadata": ("metadata alone", INK, (0, (1, 1.5)), 1.0), "null": ("labels shuffled", FAINT, "-", 0.0),
    }  # fmt: skip
    for ax, condition in zip(axes.ravel(), conditions, strict=False):
        for name, (what, color, style, width) in lines.items():
            line = [row for row in rows if row["condition"] == condition and row["detector"] == name]
            if not line:
                continue
            x, y, low, high = (np.array([row[k] for row in line], float) for k in ("steps", "auc", "low", "high"))
            if name in ("all", "null"):
                ax.fill_between(x, low, high, color=color, alpha=0.2 if name == "all" else 1.0, linewidth=0,
                                label=what if name == "null" else None, zorder=1)  # fmt: skip
            if width:
                ax.plot(x, y, color=color, linestyle=style, linewidth=width, marker="o", markersize=3, label=what)
        ax.set_xscale("log")
        ax.set_ylim(0, 1.02)
        ax.set_title(label(condition), loc="left", fontsize=10, color=INK)
        ax.tick_params(labelbottom=True)
    for ax in axes[-1]:
        ax.set_xlabel("updates since the change", fontsize=9, color=INK)
    figure.supylabel("AUC, changed against clean", fontsize=9, color=INK)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2 + columns, frameon=False, fontsize=8.5, labelcolor=INK)
    headline(figure, _told(rows))
    return figure


def _told(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the weights tell at the last snapshot: the time is not chosen by its result."""
    last = {row["condition"]: row for row in rows if row["detector"] == "all"}.values()
    worst, most = (f"{pick(row['auc'] for row in last):.2f}" for pick in (min, max))
    aucs = f"AUC {most}" if worst == most else f"AUCs {worst} to {most}"
    when = f"{aucs} after {max(row['steps'] for row in last):,} updates"
    told = sum(row["low"] is not None and row["low"] > 0.5 for row in last)
    if not told:
        return f"Nothing is told apart at the end: {when}"
    which = "" if told == len(last) == 1 else f" in {told} of {len(last)} conditions"
    return f"Weights alone tell changed from clean data{which}: {when}"


def label(level: str) -> str:
    """A level's label for people: `label_noise_frac=0.2` as `20 % label noise`; of a trigger, its rate."""
    name, _, value = level.split(",")[0].partition("=")
    words = name.replace("_", " ")
    if name == "frac":
        return f"{100 * float(value):g} % of the images"
    if name.endswith("_frac"):
        return f"{100 * float(value):g} % {words.removesuffix(' frac')}"
    if name.endswith("_degrees"):
        return f"{words.removesuffix(' degrees')} {float(value):g}°"
    return f"{words} {value}".strip()
