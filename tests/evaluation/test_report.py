from pathlib import Path

import numpy as np

from rqrec.evaluation.figures import draw_bars, draw_code_counts, draw_curves
from rqrec.evaluation.report import Figure, Heading, Paragraph, Report, Table


def test_both_forms_say_the_same_and_escape_what_they_show(tmp_path: Path) -> None:
    draw_bars(tmp_path / "bars.png", ["recall@10"], {"model": [0.2], "popularity": [0.1]})
    report = Report("Numbers & <names>")
    report.add(
        Heading("Part"),
        Paragraph("a < b"),
        Table(["name", "value"], [["x|y", 0.12345], ["<script>", 3]]),
        Figure("bars.png", "bars"),
    )
    report.write(tmp_path)
    markdown, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert r"| x\|y | 0.1235 |" in markdown
    assert "![bars](bars.png)" in markdown
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "Numbers &amp; &lt;names&gt;" in page
    assert '<td class="number">0.1235</td>' in page
    assert "data:image/png;base64," in page


def test_every_figure_is_a_png_of_some_size(tmp_path: Path) -> None:
    draw_curves(
        tmp_path / "a.png", {"loss": {"one": [(1, 2.0), (2, 1.0)], "none": []}, "other": {"x": [(1, 1)]}}
    )
    draw_code_counts(tmp_path / "b.png", [np.array([3, 0, 1]), np.array([2, 2])])
    for name in ("a.png", "b.png"):
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000
