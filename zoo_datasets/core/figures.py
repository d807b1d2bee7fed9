"""What the figures of the dynamics analysis share: colors, captions, an empty figure.

Colors are Okabe and Ito's, told apart with any color vision; shades of one hue are ordered
by lightness.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHER, UNDECIDED, OUTSIDE, INK = "#444444", "#E4E4E4", "#FFFFFF", "#222222"
TITLES = {
    "published": "as published: zero prior, mean only", "mean": "fitted prior, mean only", "confident": "with its doubt",
}  # fmt: skip


def name_of(level: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in level.items()) or "all networks"


def figure_of(columns: int, rows: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, axes


def color_of(k: int) -> str:
    return COLORS[k] if k < len(COLORS) else OTHER
