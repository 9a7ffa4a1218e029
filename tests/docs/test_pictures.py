"""The pictures of how it works are drawn from any recommender."""

import runpy
from pathlib import Path

from PIL import Image

from rqrec import Recommender

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "pictures.py"


def test_the_tree_and_the_search_are_drawn(tiny_run: Path, tmp_path: Path) -> None:
    pictures, recommender = runpy.run_path(str(SCRIPT)), Recommender.load(tiny_run)
    history = recommender.catalog.id_map.all[:3]
    pictures["draw_tree"](tmp_path / "tree.png", recommender)
    pictures["draw_search"](tmp_path / "search.png", recommender, history)
    for name in ("tree.png", "search.png"):
        with Image.open(tmp_path / name) as image:
            colours = image.convert("RGBA").getcolors(1 << 24)
            assert colours is not None
            assert image.width > 600
            assert len(colours) > 50  # boxes, curves and titles, with smooth edges
