"""Figures of reports: each function draws one PNG file from plain numbers.

Shapes: V codes of a level.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#3f7fc4", "#d9822b", "#3a9d6e", "#9a6bb0", "#c9605d", "#7b8490")
INK = "#74808c"  # of text and lines: figures are transparent, and are read on white and on black


@contextmanager
def _drawing(path: Path, panels: int = 1) -> "Iterator[list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize=(5.2 * panels if panels > 1 else 7.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, panel + 1) for panel in range(panels)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(INK)
        ax.tick_params(colors=INK)
        ax.grid(axis="y", alpha=0.25, color=INK)
        ax.set_axisbelow(True)
    yield axes
    for text in figure.findobj(Text):
        if text.get_color() == "black":
            text.set_color(INK)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=130, transparent=True)


def draw_curves(
    path: Path, panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], x_label: str = "step"
) -> None:
    """One panel per title and one line per name; a point is (x, value)."""
    with _drawing(path, len(panels)) as axes:
        for ax, (title, lines) in zip(axes, panels.items(), strict=True):
            for i, (name, points) in enumerate(lines.items()):
                steps, values = zip(*points, strict=True) if points else ((), ())
                marker = "o" if len(points) < 25 else None
                color = COLORS[i % len(COLORS)]
                ax.plot(steps, values, label=name, color=color, lw=1.6, marker=marker, ms=3)
            ax.set_title(title, fontsize=10)
            ax.set_xlabel(x_label)
            ax.set_ylim(bottom=0)
            ax.legend(frameon=False, fontsize=8)


def draw_code_counts(path: Path, counts: Sequence[NDArray[np.integer]]) -> None:
    """Items per code, one panel per level, codes sorted by their number of items."""
    with _drawing(path, len(counts)) as axes:
        for level, (ax, counts_V) in enumerate(zip(axes, counts, strict=True)):
            ordered = np.sort(counts_V)[::-1]
            used = int((ordered > 0).sum())
            ax.bar(np.arange(len(ordered)), ordered, width=1.0, color=COLORS[level % len(COLORS)])
            ax.set_title(f"level {level + 1}: {used} of {len(ordered)} codes used", fontsize=10)
            ax.set_xlabel("codes, most items first")
            ax.set_ylabel("items")


def draw_bars(
    path: Path, groups: Sequence[str], series: Mapping[str, Sequence[float]], y_label: str = ""
) -> None:
    """Grouped bars, such as one group per metric and one colour per recommender."""
    with _drawing(path) as (ax,):
        width = 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            x = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
            bars = ax.bar(x, values, width=width * 0.92, label=name, color=COLORS[i % len(COLORS)])
            ax.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
        ax.set_xticks(np.arange(len(groups)), groups)
        ax.set_ylabel(y_label)
        if len(series) > 1:
            ax.legend(frameon=False)


def draw_intervals(path: Path, values: Mapping[str, tuple[float, float, float]]) -> None:
    """One bar per metric with its interval; a value is (mean, low, high)."""
    with _drawing(path) as (ax,):
        means, lows, highs = (np.array(part) for part in zip(*values.values(), strict=True))
        x = np.arange(len(values))
        bars = ax.bar(x, means, width=0.6, color=COLORS[0])
        # A mean at the edge of its interval can be outside it by a rounding error.
        errors = np.clip([means - lows, highs - means], 0, None)
        ax.errorbar(x, means, errors, fmt="none", ecolor=INK, lw=1.2, capsize=3)
        ax.bar_label(bars, fmt="%.3f", fontsize=8, label_type="center", color="white")
        ax.set_xticks(x, list(values))


def draw_trade(path: Path, points: Sequence[tuple[float, float]], chosen: tuple[float, float]) -> None:
    """A curve of recall@10 of known targets (x) and of new ones (y), with one point marked."""
    with _drawing(path) as (ax,):
        x, y = zip(*points, strict=True)
        ax.plot(x, y, color=COLORS[0], lw=1.6, marker="o", ms=4)
        ax.plot(*chosen, color=COLORS[1], marker="o", ms=9, ls="", label="chosen on validation")
        ax.set_xlabel("recall@10 of known items")
        ax.set_ylabel("recall@10 of new items")
        ax.legend(frameon=False)
