"""Draw the pictures of docs/how-it-works.md from a recommender: `python tools/pictures.py out/demo docs`.

`tree.png`: the items of one first code, by their codes. `search.png`: the prefixes that a beam search keeps for one
history, with the probability of all items below each.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rqrec import Recommender
from rqrec.evaluation.figures import COLORS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILY = range(10, 16)  # items of the first code that is drawn, if any has so many
BEAM = 5
TITLE = 48  # characters
Prefix = tuple[int, ...]


@contextmanager
def drawing(path: Path, height: float) -> "Iterator[Axes]":
    """An empty drawing, whose rows are counted downwards from 0."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.8, 0.36 * height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.set(xlim=(0, 0.88), ylim=(height - 0.4, -1.4))
    ax.axis("off")
    yield ax
    figure.savefig(path, dpi=130, transparent=True)


def draw_headings(ax: "Axes", xs: Sequence[float]) -> None:
    """What stands in each column of codes."""
    for level, x in enumerate(xs):
        ax.text(x, -1.1, f"code {level + 1}", ha="center", va="center", color=INK, fontsize=9)


def draw_node(ax: "Axes", x: float, y: float, text: str, level: int) -> None:
    """A code in a box."""
    box = {"boxstyle": "round,pad=0.35", "facecolor": COLORS[level % len(COLORS)], "edgecolor": "none"}
    ax.text(x, y, text, ha="center", va="center", color="white", fontsize=9, bbox=box)


def draw_edge(ax: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    """A curve from a code to one that continues it."""
    (x0, y0), (x1, y1) = start, end
    along = np.linspace(0, 1, 40)
    risen = along**2 * (3 - 2 * along)
    ax.plot(x0 + along * (x1 - x0), y0 + risen * (y1 - y0), color=INK, lw=1, zorder=0)


def shortened(title: str) -> str:
    """A title that fits beside the codes."""
    return title if len(title) <= TITLE else f"{title[: TITLE - 1].rstrip()}…"


def codes_of(recommender: Recommender) -> list[Prefix]:
    """The codes of each item, as long as they differ between any items."""
    codes_NL = recommender.table.codes_NL
    used = max(level for level in range(codes_NL.shape[1]) if codes_NL[:, level].any()) + 1
    return [tuple(codes) for codes in codes_NL[:, :used].tolist()]


def draw_tree(path: Path, recommender: Recommender) -> None:
    """The first code whose items share most of their second codes, among those with a number of items that fits."""
    families: Mapping[int, list[int]] = defaultdict(list)
    codes = codes_of(recommender)
    for item, of_item in enumerate(codes):
        families[of_item[0]].append(item)
    fitting = [items for items in families.values() if len(items) in FAMILY] or list(families.values())
    family = min(fitting, key=lambda items: len({codes[item][:2] for item in items}) / len(items))
    family.sort(key=lambda item: codes[item])
    rows = {item: row for row, item in enumerate(family)}
    levels = len(codes[0])
    xs = [0.05 + 0.13 * level for level in range(levels)]
    places: dict[Prefix, float] = {}
    for level in range(1, levels + 1):
        for prefix in dict.fromkeys(codes[item][:level] for item in family):
            places[prefix] = float(np.mean([rows[item] for item in family if codes[item][:level] == prefix]))
    with drawing(path, len(family)) as ax:
        draw_headings(ax, xs)
        for prefix, y in places.items():
            level = len(prefix) - 1
            if level:
                draw_edge(ax, (xs[level - 1], places[prefix[:-1]]), (xs[level], y))
            draw_node(ax, xs[level], y, str(prefix[-1]), level)
        for item, row in rows.items():
            y = places[codes[item]]
            if y != row:
                draw_edge(ax, (xs[-1], y), (xs[-1] + 0.06, row))
            ax.text(
                xs[-1] + 0.07, row, shortened(recommender.titles[item]), va="center", color=INK, fontsize=9
            )


def draw_search(path: Path, recommender: Recommender, history: Sequence[str]) -> None:
    """The prefixes that a beam search keeps at each level, and the items that it finds."""
    codes = codes_of(recommender)
    (listed,) = recommender.recommend([list(history)], k=len(codes))
    probabilities: Mapping[Prefix, float] = defaultdict(float)
    best: dict[Prefix, int] = {}
    items = recommender.catalog.id_map.indices([one.item_id for one in listed]).tolist()
    for item, one in zip(items, listed, strict=True):
        for level in range(1, len(codes[0]) + 1):
            probabilities[codes[item][:level]] += float(np.exp(one.score))
        best.setdefault(codes[item], item)
    kept: list[list[Prefix]] = [[()]]
    for level in range(1, len(codes[0]) + 1):
        reached = [prefix for prefix in probabilities if len(prefix) == level and prefix[:-1] in kept[-1]]
        kept.append(sorted(reached, key=lambda prefix: -probabilities[prefix])[:BEAM])
    xs = [0.12 + 0.17 * level for level in range(len(codes[0]))]
    rows = [{prefix: float(row) for row, prefix in enumerate(level)} for level in kept[1:]]
    with drawing(path, BEAM) as ax:
        draw_headings(ax, xs)
        for level, x in enumerate(xs):
            for prefix, y in rows[level].items():
                if level:
                    draw_edge(ax, (xs[level - 1], rows[level - 1][prefix[:-1]]), (x, y))
                draw_node(ax, x, y, f"{prefix[-1]}   {probabilities[prefix]:.1%}", level)
        for prefix, y in rows[-1].items():
            title = shortened(recommender.titles[best[prefix]])
            ax.text(xs[-1] + 0.1, y, title, va="center", color=INK, fontsize=9)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("artifact", type=Path, help="folder of a recommender")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--history", nargs="+", default=["1", "95", "71"], help="item ids, oldest first")
    options = parser.parse_args()
    recommender = Recommender.load(options.artifact)
    draw_tree(options.folder / "tree.png", recommender)
    draw_search(options.folder / "search.png", recommender, options.history)


if __name__ == "__main__":
    main()
