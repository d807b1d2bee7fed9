"""Studies of populations → figures, each with its finding as title.

In:  `Study` objects (first population of each level) and the levels' records.
Out: (name, figure): portrait and robustness of each level, spread, coordinates, fates, foretell.

Nothing here computes a result that the numbers do not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.analysis.dynamics.guidance import pooled
from zoo_datasets.analysis.dynamics.portraits import TITLES, color_of, name_of, portrait
from zoo_datasets.analysis.dynamics.study import Study
from zoo_datasets.core import streams
from zoo_datasets.core.figures import BLUE, FAINT, GREY, INK, SKY, VERMILION, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FORMS = 5  # bars; the rest is one more
MOST_WEIGHTS = 24  # on the axis of the spread


def draw(studies: Sequence[Study], levels: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """All figures there is data for, laid out."""
    for name, figure in _all(studies, levels):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # done: it is the half of saving, and is saved twice
        yield name, figure


def _all(studies: Sequence[Study], levels: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    for study in studies:
        yield f"portrait{_slug(study)}", portrait(study)
        if study.resampled:
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


# ── how sure ──────────────────────────────────────────────────────────────────────────


def robustness(study: Study) -> Figure:
    """Recurrence over resamples, the frequency of structures, and the number of sets over resolutions."""
    figure, axes = figure_of(12.0, 9.4, 3, 3, height_ratios=(2, 1.1, 0.9))
    for column, (name, resampled) in enumerate(study.resampled.items()):
        numbers, cubes = study.numbers["resamples"][name], study.cubes
        top = axes[0, column]
        n = numbers["n"]
        if cubes.dimension == 2:
            top.grid(visible=False)  # it would lie on the cells
            extent = (cubes.lower[0], cubes.upper[0], cubes.lower[1], cubes.upper[1])
            image = top.imshow(resampled.recurrent.reshape(cubes.shape).T, origin="lower", extent=extent, aspect="auto",
                               cmap="viridis", vmin=0, vmax=1, interpolation="nearest", rasterized=True)  # fmt: skip
            if column == 2:
                figure.colorbar(image, ax=top, label="share of resamples in which a cell is recurrent")
        else:
            top.hist(resampled.recurrent, np.linspace(0, 1, 21), color=BLUE)
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
        levels = study.resolutions[name]
        cuts = [r["subdivisions"] for r in levels]
        for key, style, color, label in (
            ("morse_sets", "o-", BLUE, "Morse sets"),
            ("minimal", "s--", VERMILION, "minimal"),
        ):
            bottom.plot(cuts, [r[key] for r in levels], style, color=color, ms=4, label=label)
        most = max(r["morse_sets"] for r in levels)
        bottom.set_ylim(-0.05 * max(most, 4), 1.08 * max(most, 1) + 0.2)
        bottom.set_xlabel("subdivisions k of the box, 2^k cells", fontsize=9)
        bottom.yaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel(study.coordinates.labels[1] if study.cubes.dimension == 2 else "cells", fontsize=9)
    axes[1, 0].set_ylabel("structure", fontsize=9)
    axes[2, 0].set_ylabel("number", fontsize=9)
    axes[2, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(
        f"{name_of(study.population.level)}: would another {len(study.population)} networks give the same Morse graph?",
        fontsize=12,
    )
    return figure


def _bars(axis: Axes, forms: list[dict[str, Any]], n: int) -> None:
    shown = forms[:MOST_FORMS]
    rest = n - sum(f["count"] for f in shown)
    labels = [re.sub(r"\b1 (set|edge)s", r"1 \1", f["form"].split(":")[0]).replace(", ", " · ") for f in shown]
    labels += [f"{len(forms) - len(shown)} others"] if rest else []
    counts = [f["count"] for f in shown] + ([rest] if rest else [])
    places = np.arange(len(counts))
    axis.barh(places, counts, color=[BLUE] * len(shown) + [GREY] * bool(rest), height=0.7)
    for y, (label, count) in enumerate(zip(labels, counts, strict=True)):
        axis.text(count + 0.02 * n, y, f"{count}: {label}", va="center", fontsize=7.5)
    axis.set_yticks([])
    axis.set_ylim(max(len(counts), 3) - 0.5, -0.5)
    axis.set_xlim(0, n * 2.1)
    axis.set_xticks([0, n // 2, n])
    axis.set_xlabel("resamples", fontsize=9)


# ── coordinates ───────────────────────────────────────────────────────────────────────


def spread(studies: Sequence[Study]) -> Figure:
    """Standard deviation of each final kernel weight over networks."""
    layouts = {tuple(sorted(n for n, _ in s.spread)) for s in studies}
    if len(layouts) == 1:  # one panel, weights in the order of the layout
        figure, axes = figure_of(8.5, 3.8, 1, 1)
        names = [n for n, _ in studies[0].spread][:MOST_WEIGHTS]
        names.sort(key=lambda n: [int(d) if d.isdigit() else d for d in re.split(r"(\d+)", n)])
        for k, study in enumerate(studies):
            values = dict(study.spread)
            axes[0, 0].plot(range(len(names)), [values[n] for n in names], "o", ls=":", lw=0.8, color=color_of(k), ms=6,
                            label=name_of(study.population.level))  # fmt: skip
        axes[0, 0].set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("standard deviation of final weight", fontsize=9)
    else:
        figure, axes = figure_of(3.0 * len(studies), 3.8, len(studies), 1, sharey=True)
        for k, study in enumerate(studies):
            part = study.spread[:12]
            axes[0, k].plot(range(len(part)), [v for _, v in part], "o", color=color_of(k))
            axes[0, k].set_xticks(range(len(part)), [n for n, _ in part], rotation=75, ha="right", fontsize=7)
            axes[0, k].set_title(name_of(study.population.level), fontsize=9)
            axes[0, k].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("standard deviation of final weight", fontsize=9)
    figure.suptitle(_margin(studies), fontsize=11)
    return figure


def _margin(studies: Sequence[Study]) -> str:
    """By how much the last weight that coordinates take exceeds the first that they leave; a plain title where they take none."""
    d = len(studies[0].coordinates.labels)
    pairs = [
        (s.spread[d - 1][1], s.spread[d][1]) for s in studies if s.coordinates.kind == "spread" and len(s.spread) > d
    ]
    over = [taken / left - 1 for taken, left in pairs if left > 0]
    if not over:
        return "Spread of final weights"
    least, most = f"{min(over):.0%}", f"{max(over):.0%}"
    by = least if least == most else f"{least} to {most}"
    return f"Of {d} weights taken by spread the last exceeds the first that is left by {by}"


def coordinates(studies: Sequence[Study]) -> Figure:
    """How well d numbers determine their own future, for each choice of them."""
    figure, axes = figure_of(8.5, 3.8, 1, 1)
    axis, width = axes[0, 0], 0.8 / len(studies)
    kinds = [r["kind"] for r in studies[0].numbers["coordinate_kinds"]]
    for k, study in enumerate(studies):
        rows = study.numbers["coordinate_kinds"]
        places = np.arange(len(kinds)) + (k - (len(studies) - 1) / 2) * width
        axis.bar(
            places,
            [max(r["r2_held_out"], 0) for r in rows],
            width * 0.92,
            color=color_of(k),
            label=name_of(study.population.level),
        )
        axis.plot(
            places,
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
    known = [s for s in studies if all(np.isfinite(r["r2_held_out"]) for r in s.numbers["coordinate_kinds"])]
    mean = {
        k: np.mean([r["r2_held_out"] for s in known for r in s.numbers["coordinate_kinds"] if r["kind"] == k])
        for k in kinds if known
    }  # fmt: skip
    best = max(mean, key=lambda k: mean[k], default="")
    figure.suptitle(
        f"Coordinates that determine their own future best: {best} (held-out R² {mean[best]:.2f}); spread has {mean['spread']:.2f}"
        if known else "Coordinates that determine their own future: too few init groups to hold any out", fontsize=11,
    )  # fmt: skip
    return figure


# ── what it is good for ───────────────────────────────────────────────────────────────


def fates(studies: Sequence[Study], name: str = "published") -> Figure:
    """Accuracy and entropy of the networks by the Morse sets that their start can reach."""
    figure, axes = figure_of(10.0, 1.2 + 1.9 * len(studies), 2, len(studies))
    below = 0
    for study, (left, right) in zip(studies, axes, strict=True):
        labels = pooled(study.fates[name]["start"])
        by_fate = study.numbers["guidance"]["start"]["readings"][name]
        names = sorted(by_fate["groups"], key=lambda g: -by_fate["groups"][g]["n"])
        rng = streams.generator("jitter")
        for y, group in enumerate(names):
            members = labels == group
            values = study.predicted.balanced[members]
            left.scatter(
                values, y + rng.uniform(-0.25, 0.25, len(values)), s=10, color=color_of(y), alpha=0.6, linewidths=0
            )
            left.plot([values.mean()] * 2, [y - 0.36, y + 0.36], color=INK, lw=1.6)
            right.boxplot(study.predicted.entropy(members.astype(float)), positions=[y], orientation="horizontal", widths=0.55,
                          patch_artist=True, boxprops={"facecolor": color_of(y), "alpha": 0.6}, medianprops={"color": INK}, flierprops={"ms": 3})  # fmt: skip
        ticks = [f"{g if len(g) < 16 else g[:13] + '…'} (n {by_fate['groups'][g]['n']})" for g in names]
        left.set_yticks(range(len(names)), ticks, fontsize=8)
        right.set_yticks([])
        for axis, key in ((left, "p_accuracy"), (right, "p_entropy")):
            p = by_fate[key]
            below += p is not None and p < 0.05
            result = "one fate only" if p is None else f"p = {p:.3f}"
            axis.set_title(f"{name_of(study.population.level)}: {result}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("balanced accuracy of each network (bar: mean)", fontsize=9)
    axes[-1, 1].set_xlabel("entropy of the ensemble's prediction for each test example, nats", fontsize=9)
    tests = sum(
        s.numbers["guidance"]["start"]["readings"][name][k] is not None
        for s in studies
        for k in ("p_accuracy", "p_entropy")
    )
    figure.suptitle(
        f"Do networks with different fates end differently? {below} of {tests} permutation tests below 0.05\n"
        "(Morse sets that the start can reach, published reading)", fontsize=11,
    )  # fmt: skip
    return figure


def foretell(levels: Sequence[dict[str, Any]]) -> Figure:
    """AUC on held-out networks, by fate and by the weights themselves."""
    defined = [level for level in levels if "undefined" not in level["foretell"]]
    figure, axes = figure_of(8.5, 1.4 + 0.85 * len(defined), 1, 1)
    axis, rows, best = axes[0, 0], [], 0.0
    for level in defined:
        scores_of = level["foretell"]
        rows += [(level, f"fate, {name}", score, VERMILION) for name, score in scores_of["fates"].items()]
        rows.append((level, "linear, same coordinates", scores_of["same_weights"], SKY))
        rows.append((level, "linear, all kernel weights", scores_of["all_weights"], BLUE))
    for y, (level, label, score, color) in enumerate(rows):
        marker = {"fate, published": "o", "fate, mean": "s", "fate, confident": "D"}.get(
            label, "^" if "same" in label else "v"
        )
        axis.plot([score["low"], score["high"]], [y, y], color=color, lw=1.6)
        axis.plot(score["value"], y, marker, color=color, ms=5, label=label if level is defined[0] else None)
        best = max(best, score["value"] if label.startswith("fate") else 0.0)
    per = len(rows) / len(defined)
    axis.set_yticks(
        [per * (i + 0.5) - 0.5 for i in range(len(defined))], [name_of(level["level"]) for level in defined], fontsize=9
    )
    for i in range(1, len(defined)):
        axis.axhline(per * i - 0.5, color=FAINT, lw=0.8)
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
