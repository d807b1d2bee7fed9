"""Tables of a zoo → the card's two pictures, as PNG bytes.

In:  `models` and `snapshots` without weights, and the manifest's axes.
Out: {file name: PNG}: the histogram of test accuracy, and its course over training.

Colors tell the levels of the axis that moves test accuracy most. The same tables and the
same matplotlib give the same bytes. Needs the extra `bench`.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core import plain_text
from zoo_datasets.core.figures import COLORS, INK, figure_of

MOST_LINES = 240  # trajectories drawn one by one; more would be one blot
MOST_BINS = 40
MOST_SHOWN = 40  # characters of a level; its legend takes a third of the picture then
INCHES, DPI = (8.0, 3.6), 160  # 1,280 × 576 pixels: sharp at the width of a card


def draw(models: pa.Table, snapshots: pa.Table, axes: Mapping[str, Any]) -> dict[str, bytes]:
    """The pictures there is data for, by file name."""
    accuracy = _floats(models["test_accuracy"])
    keep = np.isfinite(accuracy)
    if not keep.any():
        return {}
    axis, levels = _strongest(models, accuracy, axes)
    pictures = {
        "accuracy.png": _histogram(
            accuracy[keep], [v for v, k in zip(levels, keep, strict=True) if k], _order(levels), axis
        )
    }
    epochs = _floats(snapshots["epoch"])
    epochs = epochs[np.isfinite(epochs) & np.isfinite(_floats(snapshots["test_accuracy"]))]
    if len(snapshots) > len(models) and len(epochs) and epochs.min() < epochs.max():
        pictures["trajectories.png"] = _trajectories(
            models, snapshots, dict(zip(models["model_id"].to_pylist(), levels, strict=True)), axis
        )
    return pictures


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in column.to_pylist()], float)


def _strongest(models: pa.Table, accuracy: np.ndarray, axes: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The axis whose levels explain most of the variance of accuracy, and each model's level of it."""
    best: tuple[float, str, list[str]] = (-1.0, "", [""] * len(models))
    finite = np.isfinite(accuracy)
    for axis in sorted(axes):
        if axes[axis] == "sample" or axis not in models.column_names:
            continue
        levels = [_label(v) for v in models[axis].to_pylist()]
        if not 2 <= len(set(levels)) <= len(COLORS):  # null, where an axis means nothing, is one
            continue
        explained = 0.0
        for level in set(levels):
            members = finite & np.array([v == level for v in levels])
            if members.any():
                explained += members.sum() * (accuracy[members].mean() - accuracy[finite].mean()) ** 2
        if explained > best[0] * (1 + 1e-9):
            best = (explained, axis, levels)
    return best[1], best[2]


def _label(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f" {text}" if not text or text.startswith("_") else text  # such names matplotlib leaves out of legends


def _shown(name: str) -> str:
    """A name as a legend has room for, its beginning and its end: levels are often told by either."""
    name = plain_text.line(name)
    return name if len(name) <= MOST_SHOWN else f"{name[: MOST_SHOWN // 2]}…{name[-MOST_SHOWN // 2 + 1 :]}"


def _order(levels: list[str]) -> list[str]:
    """Numbers by size, words by alphabet."""

    def key(level: str) -> tuple[int, float, str]:
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(level)):  # what is no number has no place among numbers
                return (0, number, level)
        return (1, 0.0, level)

    return sorted(set(levels), key=key)


def _figure() -> tuple[Any, Any]:
    figure, axes = figure_of(*INCHES, dpi=DPI)
    ax = axes[0, 0]
    ax.spines["left"].set_visible(False)
    ax.tick_params(length=0, pad=6)
    ax.grid(axis="x", visible=False)
    return figure, ax


def _finish(figure: Any, axes: Any, title: str, x: str, y: str, axis: str) -> bytes:
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=12, fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=INK, labelpad=8)
    axes.set_ylabel(y, fontsize=9, color=INK, labelpad=8)
    if axis:
        handles, names = axes.get_legend_handles_labels()
        legend = figure.legend(
            handles, [*map(_shown, names)], title=_shown(axis), loc="outside right upper", frameon=False, fontsize=9,
            labelcolor=INK, title_fontproperties={"size": 9, "weight": "bold"}, alignment="left",
            handlelength=1.0, handleheight=1.0, labelspacing=0.6,
        )  # fmt: skip
        legend.get_title().set_color(INK)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})  # its version would change the bytes
    return out.getvalue()


def _histogram(accuracy: np.ndarray, levels: list[str], every: list[str], axis: str) -> bytes:
    """Colors are those of `every` level, measured or not, as in the picture of trajectories."""
    figure, axes = _figure()
    low, high = float(accuracy.min()), float(accuracy.max())
    margin = max((high - low) * 0.02, 0.005)
    bins = int(np.clip(2 * len(accuracy) ** 0.5, 10, MOST_BINS))
    edges = np.linspace(*_around(accuracy, margin, margin), bins + 1)
    colors = [(name, color) for name, color in zip(every, COLORS, strict=False) if name in levels]
    names = [name for name, _ in colors]
    groups = [accuracy[[v == name for v in levels]] for name in names]
    axes.hist(groups, edges, stacked=True, color=[c for _, c in colors], label=names, edgecolor="white", linewidth=0.6)
    median = float(np.median(accuracy))
    axes.axvline(median, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    right = median < (edges[0] + edges[-1]) / 2
    axes.annotate(
        f"median {median:.3f}", (median, 1.0), xycoords=("data", "axes fraction"), xytext=(5 if right else -5, -3),
        textcoords="offset points", ha="left" if right else "right", va="top", fontsize=9, color=INK,
    )  # fmt: skip
    axes.margins(y=0.15)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(edges[0], edges[-1])
    return _finish(figure, axes, f"Test accuracy of {len(accuracy):,} models", "test accuracy", "models", axis)


def _trajectories(models: pa.Table, snapshots: pa.Table, level_of: Mapping[str, str], axis: str) -> bytes:
    from matplotlib.collections import LineCollection

    figure, axes = _figure()
    epoch, accuracy = _floats(snapshots["epoch"]), _floats(snapshots["test_accuracy"])
    rows: dict[str, list[int]] = {}
    for i, model in enumerate(snapshots["model_id"].to_pylist()):
        rows.setdefault(model, []).append(i)
    names = _order(list(level_of.values()))
    color = dict(zip(names, COLORS, strict=False))
    # Any prefix of the plan is a fair sample; rows without a place in one come last, as they lie.
    order = np.argsort(_floats(models["plan_index"]), kind="stable")
    shown = [models["model_id"][int(i)].as_py() for i in order[:MOST_LINES]]
    # Mixed order, so that no level covers another.
    segments = [np.column_stack([epoch[rows[m]], accuracy[rows[m]]]) for m in shown if m in rows]
    axes.add_collection(LineCollection(
        segments, colors=[color[level_of[m]] for m in shown if m in rows], linewidths=0.7,
        alpha=float(np.clip(24 / len(segments), 0.18, 0.5)), zorder=1,
    ))  # fmt: skip
    for name in names:
        mine = [i for m, where in rows.items() if level_of.get(m) == name for i in where]
        x, y = _medians(epoch[mine], accuracy[mine])
        axes.plot(x, y, color="white", linewidth=4.5, zorder=2, solid_capstyle="round", clip_on=False)
        axes.plot(x, y, color=color[name], linewidth=2.4, zorder=3, label=name, solid_capstyle="round",
                  marker="o" if len(x) <= 20 else None, markersize=4.5,
                  clip_on=False)  # fmt: skip
    when, shares = epoch[np.isfinite(epoch)], accuracy[np.isfinite(accuracy)]
    axes.set_xlim(float(when.min()), float(when.max()))
    axes.set_ylim(*_around(shares, 0.02, 0.03))
    drawn = "all" if len(segments) == len(rows) else f"{len(segments):,} of"
    title = f"Test accuracy over training: medians, and {drawn} {len(rows):,} models"
    return _finish(figure, axes, title, "epoch", "test accuracy", axis)


def _around(accuracy: np.ndarray, below: float, above: float) -> tuple[float, float]:
    """The least and the greatest with margins, which leave 0 to 1 only where accuracies do, like percents."""
    low, high = float(accuracy.min()), float(accuracy.max())
    return min(low, max(0.0, low - below)), max(high, min(1.0, high + above))


def _medians(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median of y at each x that many models share; models may have snapshots of their own."""
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    where, counts = np.unique(np.round(x, 6), return_counts=True)
    where = where[counts >= max(1, counts.max(initial=1) // 4)]
    return where, np.array([np.median(y[np.abs(x - w) < 1e-6]) for w in where])
