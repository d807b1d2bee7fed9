"""A population's readings → its phase portraits, and the order of its Morse sets below them.

In:  a `Study`.
Out: one figure with a column for each reading.

Where CMGDB is installed, a set's Conley index stands beside it unless it is zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.dynamics.morse import OUTSIDE, UNDECIDED
from zoo_datasets.analysis.dynamics.readings import Reading
from zoo_datasets.analysis.dynamics.study import Study
from zoo_datasets.core.figures import BLUE, COLORS, FAINT, GREY, INK, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "published": "as published: zero prior, mean only", "mean": "fitted prior, mean only", "confident": "with its doubt",
}  # fmt: skip
MOST_NODES = 12  # of a Hasse diagram with labels that can be read


def name_of(level: Mapping[str, str]) -> str:
    """A level for titles: "epochs 100, width 3"."""
    return ", ".join(f"{axis} {label}" for axis, label in level.items()) or "all networks"


def color_of(k: int) -> str:
    """One of the palette; its grey for all that come after."""
    return COLORS[min(k, len(COLORS) - 1)]


def portrait(study: Study) -> Figure:
    """Regions, Morse sets, starts and ends in each reading, the Hasse diagrams below."""
    figure, axes = figure_of(12.0, 7.6, 3, 2, height_ratios=(2.4, 1))
    for (name, reading), top, bottom in zip(study.readings.items(), axes[0], axes[1], strict=True):
        _phase(top, study, reading)
        numbers = study.numbers["readings"][name]
        unseen = numbers["beyond_data"]["recurrent"]
        finding = f"{len(reading.graph)} Morse set{'s' if len(reading.graph) != 1 else ''}"
        if unseen is None:
            finding += ": everything leaves the box"
        else:
            finding += f", {unseen:.0%} of their cells where no start was"
        top.set_title(f"{TITLES[name]}\n{finding}", fontsize=10)
        _hasse(bottom, reading, numbers.get("conley"))
    axes[0, 0].set_ylabel(study.coordinates.labels[1], fontsize=9)
    for axis in axes[0]:
        axis.set_xlabel(study.coordinates.labels[0], fontsize=9)
    figure.legend(handles=_legend(study), loc="outside lower center", ncols=6, fontsize=8.5, frameon=False)
    figure.suptitle(
        f"{name_of(study.population.level)}: where training takes the weights of {len(study.population)} networks",
        fontsize=12,
    )
    return figure


def _phase(axis: Axes, study: Study, reading: Reading) -> None:
    from matplotlib.colors import to_rgb

    graph, cubes, colors = reading.graph, reading.graph.cubes, _set_colors(reading)
    extent = (cubes.lower[0], cubes.upper[0], cubes.lower[1], cubes.upper[1])
    if cubes.dimension == 2:
        regions = graph.regions(strict=reading.z > 0)
        image = np.empty((cubes.n, 3))
        axis.grid(visible=False)  # it would lie on the cells
        for value in np.unique(regions):
            if value >= 0:  # a set's region is paler than the set
                image[regions == value] = 0.72 + 0.28 * np.array(to_rgb(colors[value]))
            else:
                image[regions == value] = to_rgb({UNDECIDED: FAINT, OUTSIDE: "white"}[int(value)])
        for k in range(len(graph)):
            image[graph.node == k] = to_rgb(colors[k])
        axis.imshow(image.reshape(*cubes.shape, 3).transpose(1, 0, 2), origin="lower", extent=extent, aspect="auto",
                    interpolation="nearest", rasterized=True)  # fmt: skip
        x, y = (cubes.centers()[:, i].reshape(cubes.shape) for i in (0, 1))
        if reading.beyond.any() and not reading.beyond.all():
            beyond = reading.beyond.reshape(cubes.shape).astype(float)
            axis.contour(x, y, beyond, [0.5], colors=INK, linestyles="--", linewidths=0.8)
    else:  # the sets' cells seen along the other coordinates
        centers = cubes.centers()
        for k in range(len(graph)):
            x, y = centers[graph.node == k][:, :2].T
            axis.scatter(x, y, s=3, color=colors[k], linewidths=0, rasterized=True)
        axis.set_xlim(extent[:2])
        axis.set_ylim(extent[2:])
    for a, b in zip(study.start, study.end, strict=True):
        axis.plot([a[0], b[0]], [a[1], b[1]], color=INK, lw=0.35, alpha=0.35)
    axis.scatter(
        study.start[:, 0], study.start[:, 1], s=9, facecolors="white", edgecolors=INK, linewidths=0.6, zorder=3
    )
    axis.scatter(study.end[:, 0], study.end[:, 1], s=9, color=INK, linewidths=0, zorder=3)
    centers = cubes.centers()
    # The largest get a name, beside the cell nearest to their middle, each on another side: sets of a chain lie close.
    for k, aside in zip(np.argsort(-graph.sizes, kind="stable"), ((16, 14), (-18, 12), (18, -16)), strict=False):
        cells = centers[graph.node == k]
        where = cells[((cells - cells.mean(0)) ** 2).sum(1).argmin()]
        axis.annotate(
            str(k), where[:2], aside, textcoords="offset points", fontsize=9, weight="bold", color=INK, ha="center",
            va="center", zorder=4, arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.8},
            bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": colors[int(k)], "lw": 1.2},
        )  # fmt: skip


def _legend(study: Study) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    start = f"start (epoch {study.population.start_epoch:g})"
    return [
        Line2D([], [], marker="o", ls="", mfc="white", mec=INK, ms=4, label=start),
        Line2D([], [], marker="o", ls="", color=INK, ms=4, label="end of training"),
        Patch(fc=BLUE, label="Morse set 0 (others in their colors)"),
        Patch(fc="#B8D5E8", label="region of attraction of 0"),
        Patch(fc=FAINT, label="undecided"),
        Line2D([], [], color=INK, ls="--", lw=0.8, label="no start this near" if study.cubes.dimension == 2 else ""),
    ]


def _hasse(axis: Axes, reading: Reading, indices: Sequence[tuple[str, ...] | None] | None) -> None:
    graph, colors = reading.graph, _set_colors(reading)
    axis.axis("off")
    height = np.zeros(len(graph), int)
    for k in range(len(graph)):  # numbered from the bottom up
        height[k] = 1 + max((height[j] for j in graph.hasse.successors(k)), default=-1)
    if not 0 < len(graph) <= MOST_NODES:
        text = "no Morse set in the box"
        if len(graph):
            text = (
                f"{len(graph)} Morse sets, {graph.hasse.number_of_edges()} edges, {len(graph.minimal)} minimal,\n"
                f"the longest chain of {height.max() + 1}; {(graph.sizes == 1).sum()} sets are single cells"
            )
        axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, transform=axis.transAxes)
        return
    place = np.zeros(len(graph))
    for h in np.unique(height):
        row = np.flatnonzero(height == h)
        place[row] = np.arange(len(row)) - (len(row) - 1) / 2
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 0.8, "shrinkA": 7, "shrinkB": 7}
    for a, b in graph.hasse.edges:
        axis.annotate("", (place[b], height[b]), (place[a], height[a]), arrowprops=arrow)
    axis.scatter(place, height, s=210, color=colors, zorder=3)
    for k in range(len(graph)):
        axis.text(place[k], height[k], str(k), color="white", ha="center", va="center", fontsize=8.5, weight="bold", zorder=4)  # fmt: skip
        cells = int(graph.sizes[k])
        text = f"{cells:,} cell{'s' if cells > 1 else ''}{_index(indices[k] if indices else None)}"
        axis.text(place[k] + 0.16, height[k], text, va="center", fontsize=7.5, color=INK)
    axis.set_xlim(min(place.min() - 0.6, -1.2), max(place.max() + 0.9, 1.4))
    axis.set_ylim(-0.5, height.max() + 0.5)


def _index(index: tuple[str, ...] | None) -> str:
    """A line with the Conley index, ("x^2-1", "0", "0") as (x²−1, 0, 0); nothing where it is zero or not known."""
    if index is None or set(index) == {"0"}:
        return ""
    powers = re.sub(r"\^(\d+)", lambda m: m[1].translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")), ", ".join(index))
    return f"\n({powers.replace('-', '−')})"


def _set_colors(reading: Reading) -> list[str]:
    """A color for each of the largest Morse sets, in the order of their numbers; grey for others."""
    largest = sorted(np.argsort(-reading.graph.sizes, kind="stable")[: len(COLORS) - 1].tolist())
    return [color_of(largest.index(k)) if k in largest else GREY for k in range(len(reading.graph))]
