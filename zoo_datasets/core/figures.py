"""An empty figure, its words and its palette: what all figures of this package share.

Colors are Okabe and Ito's without their yellow, told apart with any color vision and in grey.
Needs matplotlib, of the extra `bench`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, GREY = COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666",
)  # fmt: skip
INK, FAINT = "#333333", "#E6E6E6"
MARKERS = "osD^vPX"


def figure_of(
    width: float, height: float, columns: int = 1, rows: int = 1, *, dpi: float | None = None, **options: Any
) -> tuple[Figure, Any]:
    """A figure of so many inches, and its axes [rows, columns]; `options` as `Figure.subplots` takes them."""
    figure = _literal_figure()(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(INK)
        ax.tick_params(colors=INK, labelsize=9)
        ax.grid(color=FAINT, linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


@functools.cache
def _literal_figure() -> type[Figure]:
    """A figure that shows every text as it is: a level of a zoo like `$\\frac$` is no formula, nor an error in one."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    class Literal(Figure):  # type: ignore[misc]  # matplotlib has no types here
        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):
                text.set_parse_math(False)
            for axis in (axis for ax in self.axes for axis in (ax.xaxis, ax.yaxis)):
                numbers = [axis.offsetText]  # matplotlib's own, where 10⁻³ is a formula
                if isinstance(axis.get_major_formatter(), LogFormatter | ScalarFormatter):
                    numbers += [label for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)]
                if isinstance(axis.get_minor_formatter(), LogFormatter | ScalarFormatter):
                    numbers += [label for tick in axis.get_minor_ticks() for label in (tick.label1, tick.label2)]
                for text in numbers:
                    text.set_parse_math(True)
            super().draw(renderer)

    return Literal


def marks(names: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """Name → color and marker, as `plot` and `scatter` take them; of more names than colors the next have another marker.

    49 pairs are told apart; beyond them they come again, and none is left out.
    """
    return {
        name: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i // len(COLORS) % len(MARKERS)]}
        for i, name in enumerate(dict.fromkeys(names))
    }


def headline(figure: Figure, text: str) -> None:
    """The figure's finding, above everything."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold")


def caption(ax: Axes, title: str, x: str, y: str) -> None:
    """Title and labels of one panel."""
    ax.set_title(title, loc="left", fontsize=10, color=INK)
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)


def legend(of: Axes | Figure, **options: Any) -> None:
    """Inside of axes, or of a figure where `loc` says: `outside lower center` covers no data."""
    of.legend(frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1.6, **options)
