"""Studies of populations → figures, each with its finding as title.

In:  `Study` objects (first population of each level) and the levels' records.
Out: (name, figure): portrait and robustness of each level, spread, coordinates, fates, foretell.

Colors are Okabe and Ito's, told apart with any color vision; shades of one hue are ordered
by lightness. Nothing here computes a result that the numbers do not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.guidance import pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zoo_datasets.analysis.dynamics import Study
    from zoo_datasets.analysis.readings import Reading

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHER, UNDECIDED, OUTSIDE, INK = "#444444", "#E4E4E4", "#FFFFFF", "#222222"
MOST_NODES = 12  # of a Hasse diagram with labels that can be read
MOST_FORMS = 5  # bars; the rest is one more
MOST_WEIGHTS = 24  # on the axis of the spread
TITLES = {
    "published": "as published: zero prior, mean only", "mean": "fitted prior, mean only", "confident": "with its doubt",
}  # fmt: skip


def draw(studies: Sequence[Study], levels: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """All figures there is data for, laid out."""
    for name, figure in _all(studies, levels):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # done: it is the half of saving, and is saved twice
        yield name, figure


def _all(studies: Sequence[Study], levels: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    for study in studies:
        yield f"portrait{_slug(study)}", portrait(study)
        if study.robust:
            yield f"robustness{_slug(study)}", robustness(study)
    yield "spread", spread(studies)
    if any("coordinate_kinds" in s.numbers for s in studies):
        yield "coordinates", coordinates([s for s in studies if "coordinate_kinds" in s.numbers])
    yield "fates", fates(studies)
    if any("undefined" not in level["foretell"] for level in levels):
        yield "foretell", foretell(levels)


def _slug(study: Study) -> str:
    text = "-".join(f"{k}-{v}" for k, v in study.population.level.items())
    text = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()[:60]
    return f"-{text}" if text else ""


def _name(level: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in level.items()) or "all networks"


def _figure(columns: int, rows: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, axes


def _color(k: int) -> str:
    return COLORS[k] if k < len(COLORS) else OTHER


def _set_colors(reading: Reading) -> list[str]:
    """A color for each of the largest Morse sets, in the order of their numbers; grey for others."""
    largest = sorted(np.argsort(-reading.graph.sizes, kind="stable")[: len(COLORS)].tolist())
    return [COLORS[largest.index(k)] if k in largest else OTHER for k in range(len(reading.graph))]


# ── phase portraits and Hasse diagrams ────────────────────────────────────────────────


def portrait(study: Study) -> Figure:
    """Regions, Morse sets, starts and ends in each reading, the Hasse diagrams below."""
    figure, axes = _figure(3, 2, 12.0, 7.6, height_ratios=(2.4, 1))
    for (name, reading), top, bottom in zip(study.readings.items(), axes[0], axes[1], strict=True):
        _phase(top, study, reading)
        numbers = study.numbers["readings"][name]
        unseen = numbers["beyond_data"]["recurrent"]
        found = f"{len(reading.graph)} Morse set{'s' if len(reading.graph) != 1 else ''}"
        if unseen is None:
            found += ": everything leaves the box"
        else:
            found += f", {unseen:.0%} of their cells where no start was"
        top.set_title(f"{TITLES[name]}\n{found}", fontsize=10)
        _hasse(bottom, reading)
    axes[0, 0].set_ylabel(study.coordinates.labels[1], fontsize=9)
    for axis in axes[0]:
        axis.set_xlabel(study.coordinates.labels[0], fontsize=9)
    figure.legend(handles=_legend(study), loc="outside lower center", ncols=6, fontsize=8.5, frameon=False)
    figure.suptitle(
        f"{_name(study.population.level)}: where training takes the weights of {len(study.population)} networks",
        fontsize=12,
    )
    return figure


def _phase(axis: Axes, study: Study, reading: Reading) -> None:
    from matplotlib.colors import to_rgb

    graph, cubes, colors = reading.graph, reading.graph.cubes, _set_colors(reading)
    extent = (cubes.lower[0], cubes.upper[0], cubes.lower[1], cubes.upper[1])
    if cubes.dimension == 2:
        regions = graph.regions(strict=reading.z > 0)
        pale = lambda c: tuple(0.72 + 0.28 * v for v in to_rgb(c))  # noqa: E731
        image = np.empty((cubes.n, 3))
        for value in np.unique(regions):
            image[regions == value] = to_rgb({-1: UNDECIDED, -2: OUTSIDE}.get(int(value)) or pale(colors[int(value)]))
        for k in range(len(graph)):
            image[graph.node == k] = to_rgb(colors[k])
        axis.imshow(image.reshape(*cubes.shape, 3).transpose(1, 0, 2), origin="lower", extent=extent, aspect="auto",
                    interpolation="nearest", rasterized=True)  # fmt: skip
        x, y = (cubes.centers()[:, i].reshape(cubes.shape) for i in (0, 1))
        if reading.beyond.any() and not reading.beyond.all():
            axis.contour(
                x,
                y,
                reading.beyond.reshape(cubes.shape).astype(float),
                [0.5],
                colors=INK,
                linestyles="--",
                linewidths=0.8,
            )
    else:  # the sets' cells seen along the other coordinates
        centers = cubes.centers()
        for k in range(len(graph)):
            axis.scatter(*centers[graph.node == k][:, :2].T, s=3, color=colors[k], linewidths=0, rasterized=True)
        axis.set_xlim(extent[:2])
        axis.set_ylim(extent[2:])
    for a, b in zip(study.start, study.end, strict=True):
        axis.plot([a[0], b[0]], [a[1], b[1]], color=INK, lw=0.35, alpha=0.35)
    axis.scatter(
        study.start[:, 0], study.start[:, 1], s=9, facecolors="white", edgecolors=INK, linewidths=0.6, zorder=3
    )
    axis.scatter(study.end[:, 0], study.end[:, 1], s=9, color=INK, linewidths=0, zorder=3)
    centers = cubes.centers()
    for k in np.argsort(-graph.sizes)[:3]:  # the largest get a name, beside the cell nearest to their middle
        own = centers[graph.node == k]
        where = own[((own - own.mean(0)) ** 2).sum(1).argmin()]
        axis.annotate(
            str(k), where[:2], (14, 12), textcoords="offset points", fontsize=9, weight="bold", color=INK, ha="center",
            va="center", zorder=4, arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.8},
            bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": colors[int(k)], "lw": 1.2},
        )  # fmt: skip


def _legend(study: Study) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D(
            [],
            [],
            marker="o",
            ls="",
            mfc="white",
            mec=INK,
            ms=4,
            label=f"start (epoch {study.population.start_epoch:g})",
        ),
        Line2D([], [], marker="o", ls="", color=INK, ms=4, label="end of training"),
        Patch(fc=COLORS[0], label="Morse set 0 (others in their colors)"),
        Patch(fc="#B8D5E8", label="region of attraction of 0"),
        Patch(fc=UNDECIDED, label="undecided"),
        Line2D([], [], color=INK, ls="--", lw=0.8, label="no start this near" if study.cubes.dimension == 2 else ""),
    ]


def _hasse(axis: Axes, reading: Reading) -> None:
    graph, colors = reading.graph, _set_colors(reading)
    axis.axis("off")
    height = np.zeros(len(graph), int)
    for k in range(len(graph)):  # numbered from the bottom up
        height[k] = 1 + max((height[j] for j in graph.hasse.successors(k)), default=-1)
    if not 0 < len(graph) <= MOST_NODES:
        said = "no Morse set in the box"
        if len(graph):
            said = (
                f"{len(graph)} Morse sets, {graph.hasse.number_of_edges()} edges, {len(graph.minimal)} minimal,\n"
                f"the longest chain of {height.max() + 1}; {(graph.sizes == 1).sum()} sets are single cells"
            )
        axis.text(0.5, 0.5, said, ha="center", va="center", fontsize=9, transform=axis.transAxes)
        return
    place = np.zeros(len(graph))
    for h in np.unique(height):
        row = np.flatnonzero(height == h)
        place[row] = np.arange(len(row)) - (len(row) - 1) / 2
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 0.8, "shrinkA": 7, "shrinkB": 7}
    for a, b in graph.hasse.edges:
        axis.annotate("", (place[b], height[b]), (place[a], height[a]), arrowprops=arrow)
    axis.scatter(place, height, s=210, color=colors, zorder=3)
    node = {"color": "white", "ha": "center", "va": "center", "fontsize": 8.5, "weight": "bold", "zorder": 4}
    for k in range(len(graph)):
        axis.text(place[k], height[k], str(k), **node)
        cells = int(graph.sizes[k])
        said = f"{cells:,} cell{'s' if cells > 1 else ''}"
        axis.text(place[k] + 0.16, height[k], said, va="center", fontsize=7.5, color=INK)
    axis.set_xlim(min(place.min() - 0.6, -1.2), max(place.max() + 0.9, 1.4))
    axis.set_ylim(-0.5, height.max() + 0.5)


# ── how sure ──────────────────────────────────────────────────────────────────────────


def robustness(study: Study) -> Figure:
    """Recurrence over resamples, the frequency of structures, and the number of sets over resolutions."""
    figure, axes = _figure(3, 3, 12.0, 9.4, height_ratios=(2, 1.1, 0.9))
    for column, (name, found) in enumerate(study.resampled.items()):
        numbers, cubes = study.numbers["resamples"][name], study.cubes
        top = axes[0, column]
        n = numbers["n"]
        if cubes.dimension == 2:
            extent = (cubes.lower[0], cubes.upper[0], cubes.lower[1], cubes.upper[1])
            shown = top.imshow(found.recurrent.reshape(cubes.shape).T, origin="lower", extent=extent, aspect="auto",
                               cmap="viridis", vmin=0, vmax=1, interpolation="nearest", rasterized=True)  # fmt: skip
            if column == 2:
                figure.colorbar(shown, ax=top, label="share of resamples in which a cell is recurrent")
        else:
            top.hist(found.recurrent, np.linspace(0, 1, 21), color=COLORS[0])
            top.set_yscale("log")
        top.scatter(
            study.end[:, 0],
            study.end[:, 1],
            s=5,
            color="white" if cubes.dimension == 2 else "none",
            edgecolors="black",
            linewidths=0.4,
        )
        top.set_title(
            f"{TITLES[name]}\nsame structure in at most {numbers['most_frequent_share']:.0%} of {n} resamples",
            fontsize=10,
        )
        _bars(axes[1, column], numbers["forms"], n)
        bottom = axes[2, column]
        levels = study.levels[name]
        bottom.plot(
            [r["subdivisions"] for r in levels],
            [r["morse_sets"] for r in levels],
            "o-",
            color=COLORS[0],
            ms=4,
            label="Morse sets",
        )
        bottom.plot(
            [r["subdivisions"] for r in levels],
            [r["minimal"] for r in levels],
            "s--",
            color=COLORS[1],
            ms=4,
            label="minimal",
        )
        bottom.set_ylim(bottom=-0.3)
        bottom.set_xlabel("subdivisions k of the box, 2^k cells", fontsize=9)
        bottom.yaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel(study.coordinates.labels[1] if study.cubes.dimension == 2 else "cells", fontsize=9)
    axes[1, 0].set_ylabel("structure", fontsize=9)
    axes[2, 0].set_ylabel("number", fontsize=9)
    axes[2, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(
        f"{_name(study.population.level)}: would another {len(study.population)} networks give the same Morse graph?",
        fontsize=12,
    )
    return figure


def _bars(axis: Axes, forms: list[dict[str, Any]], n: int) -> None:
    shown = forms[:MOST_FORMS]
    rest = n - sum(f["count"] for f in shown)
    labels = [re.sub(r": .*", "", f["form"]).replace(", ", " · ") for f in shown] + (
        [f"{len(forms) - len(shown)} others"] if rest else []
    )
    counts = [f["count"] for f in shown] + ([rest] if rest else [])
    at = np.arange(len(counts))
    axis.barh(at, counts, color=[COLORS[0]] * len(shown) + [OTHER] * bool(rest), height=0.7)
    for y, (label, count) in enumerate(zip(labels, counts, strict=True)):
        axis.text(count + 0.02 * n, y, f"{count}: {label}", va="center", fontsize=7.5)
    axis.set_yticks([])
    axis.set_ylim(max(len(counts), 3) - 0.5, -0.5)
    axis.set_xlim(0, n * 1.9)
    axis.set_xticks([0, n // 2, n])
    axis.set_xlabel("resamples", fontsize=9)


# ── coordinates ───────────────────────────────────────────────────────────────────────


def spread(studies: Sequence[Study]) -> Figure:
    """Standard deviation of each final kernel weight over networks."""
    layouts = {tuple(sorted(n for n, _ in s.spread)) for s in studies}
    if len(layouts) == 1:  # one panel, weights in the order of the layout
        figure, axes = _figure(1, 1, 8.5, 3.8)
        names = [n for n, _ in studies[0].spread][:MOST_WEIGHTS]
        names.sort(key=lambda n: [int(d) if d.isdigit() else d for d in re.split(r"(\d+)", n)])
        for k, study in enumerate(studies):
            values = dict(study.spread)
            axes[0, 0].plot(range(len(names)), [values[n] for n in names], "o", ls=":", lw=0.8, color=_color(k), ms=6,
                            label=_name(study.population.level))  # fmt: skip
        axes[0, 0].set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("standard deviation of final weight", fontsize=9)
    else:
        figure, axes = _figure(len(studies), 1, 3.0 * len(studies), 3.8, sharey=True)
        for k, study in enumerate(studies):
            part = study.spread[:12]
            axes[0, k].plot(range(len(part)), [v for _, v in part], "o", color=_color(k))
            axes[0, k].set_xticks(range(len(part)), [n for n, _ in part], rotation=75, ha="right", fontsize=7)
            axes[0, k].set_title(_name(study.population.level), fontsize=9)
            axes[0, k].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("standard deviation of final weight", fontsize=9)
    first = [s.spread[0][1] / s.spread[2][1] for s in studies if len(s.spread) > 2]
    figure.suptitle(
        "The choice of two weights by spread is close: the widest exceeds the third by "
        f"{min(first) - 1:.0%} to {max(first) - 1:.0%}" if first else "Spread of final weights", fontsize=11,
    )  # fmt: skip
    return figure


def coordinates(studies: Sequence[Study]) -> Figure:
    """How well d numbers determine their own future, for each choice of them."""
    figure, axes = _figure(1, 1, 8.5, 3.8)
    axis, width = axes[0, 0], 0.8 / len(studies)
    kinds = [r["kind"] for r in studies[0].numbers["coordinate_kinds"]]
    for k, study in enumerate(studies):
        rows = study.numbers["coordinate_kinds"]
        at = np.arange(len(kinds)) + (k - (len(studies) - 1) / 2) * width
        axis.bar(
            at,
            [max(r["r2_held_out"], 0) for r in rows],
            width * 0.92,
            color=_color(k),
            label=_name(study.population.level),
        )
        axis.plot(
            at,
            [r["r2_shuffled_held_out"] for r in rows],
            "x",
            color=INK,
            ms=5,
            label="ends dealt at random" if k == 0 else None,
        )
    axis.set_xticks(range(len(kinds)), kinds, fontsize=9)
    axis.axhline(0, color=INK, lw=0.8)
    axis.set_ylim(-0.2, 1.02)
    axis.set_ylabel("R² of the end, held-out networks", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    mean = {
        k: np.mean([r["r2_held_out"] for s in studies for r in s.numbers["coordinate_kinds"] if r["kind"] == k])
        for k in kinds
    }
    best = max(mean, key=lambda k: mean[k])
    figure.suptitle(
        f"Coordinates that determine their own future best: {best} (held-out R² {mean[best]:.2f}); spread has {mean['spread']:.2f}",
        fontsize=11,
    )
    return figure


# ── what it is good for ───────────────────────────────────────────────────────────────


def fates(studies: Sequence[Study], name: str = "published") -> Figure:
    """Accuracy and entropy of the networks by the Morse sets that their start can reach."""
    figure, axes = _figure(2, len(studies), 10.0, 1.2 + 1.9 * len(studies))
    below = 0
    for study, (left, right) in zip(studies, axes, strict=True):
        labels = pooled(study.fates[name]["start"])
        found = study.numbers["guidance"][name]["start"]
        names = sorted(found["groups"], key=lambda g: -found["groups"][g]["n"])
        rng = np.random.default_rng(0)  # of the jitter alone
        for y, group in enumerate(names):
            mine = labels == group
            values = study.predicted.balanced[mine]
            left.scatter(
                values, y + rng.uniform(-0.25, 0.25, len(values)), s=10, color=_color(y), alpha=0.6, linewidths=0
            )
            left.plot([values.mean()] * 2, [y - 0.36, y + 0.36], color=INK, lw=1.6)
            right.boxplot(study.predicted.entropy(mine.astype(float)), positions=[y], orientation="horizontal", widths=0.55,
                          patch_artist=True, boxprops={"facecolor": _color(y), "alpha": 0.6}, medianprops={"color": INK}, flierprops={"ms": 3})  # fmt: skip
        ticks = [f"{g if len(g) < 16 else g[:13] + '…'} (n {found['groups'][g]['n']})" for g in names]
        left.set_yticks(range(len(names)), ticks, fontsize=8)
        right.set_yticks([])
        for axis, key in ((left, "p_accuracy"), (right, "p_entropy")):
            p = found[key]
            below += p is not None and p < 0.05
            said = "one fate only" if p is None else f"p = {p:.3f}"
            axis.set_title(f"{_name(study.population.level)}: {said}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("balanced accuracy of each network (bar: mean)", fontsize=9)
    axes[-1, 1].set_xlabel("entropy of the ensemble's prediction for each test example, nats", fontsize=9)
    tests = sum(
        s.numbers["guidance"][name]["start"][k] is not None for s in studies for k in ("p_accuracy", "p_entropy")
    )
    figure.suptitle(
        f"Do networks with different fates end differently? {below} of {tests} permutation tests below 0.05\n"
        "(Morse sets that the start can reach, published reading)", fontsize=11,
    )  # fmt: skip
    return figure


def foretell(levels: Sequence[dict[str, Any]]) -> Figure:
    """AUC on held-out networks, by fate and by the weights themselves."""
    kept = [level for level in levels if "undefined" not in level["foretell"]]
    figure, axes = _figure(1, 1, 8.5, 1.4 + 0.85 * len(kept))
    axis, rows, best = axes[0, 0], [], 0.0
    for level in kept:
        found = level["foretell"]
        rows += [(level, f"fate, {name}", score, COLORS[1]) for name, score in found["fates"].items()]
        rows.append((level, "logistic, same coordinates", found["same_weights"], COLORS[5]))
        rows.append((level, "logistic, all kernel weights", found["all_weights"], COLORS[0]))
    for y, (level, label, score, color) in enumerate(rows):
        marker = {"fate, published": "o", "fate, mean": "s", "fate, confident": "D"}.get(
            label, "^" if "same" in label else "v"
        )
        axis.plot([score["low"], score["high"]], [y, y], color=color, lw=1.6)
        axis.plot(score["value"], y, marker, color=color, ms=5, label=label if level is kept[0] else None)
        best = max(best, score["value"] if label.startswith("fate") else 0.0)
    per = len(rows) / len(kept)
    axis.set_yticks(
        [per * (i + 0.5) - 0.5 for i in range(len(kept))], [_name(level["level"]) for level in kept], fontsize=9
    )
    for i in range(1, len(kept)):
        axis.axhline(per * i - 0.5, color=UNDECIDED, lw=0.8)
    axis.axvline(0.5, color=INK, lw=0.8, ls="--")
    axis.invert_yaxis()
    axis.set_xlabel(
        "AUC on held-out networks: does a start end in the better half? (95 % intervals over init groups)", fontsize=9
    )
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    weights = max(score["value"] for _, label, score, _ in rows if "all" in label)
    figure.suptitle(
        f"From the start alone: fates foretell with AUC {best:.2f} at best, the weights themselves {weights:.2f}",
        fontsize=11,
    )
    return figure
