from pathlib import Path

import numpy as np
import pytest

from rqrec.evaluation.figures import draw_bars, draw_code_counts, draw_curves
from rqrec.evaluation.report import figure, heading, paragraph, save_report, table


def test_markdown_and_page_have_the_same_content_and_the_page_is_escaped(tmp_path: Path) -> None:
    draw_bars(tmp_path / "bars.png", ["recall@10"], {"model": [0.2], "popularity": [0.1]})
    blocks = [
        heading("Part"),
        paragraph("a < b"),
        table(["name", "value"], [["x|y", 0.12345], ["<script>", 3]]),
        figure("bars.png", "bars"),
    ]
    save_report(tmp_path, "Numbers & <names>", blocks)
    markdown, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert r"| x\|y | 0.1235 |" in markdown
    assert "| --- | ---: |" in markdown
    assert "![bars](bars.png)" in markdown
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<h1>Numbers &amp; &lt;names&gt;</h1>" in page
    assert "<title>Numbers &amp; &lt;names&gt;</title>" in page
    assert '<td style="text-align:right">0.1235</td>' in page
    assert "<td>x|y</td>" in page
    assert "data:image/png;base64," in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![x](http://elsewhere/a.png)", "![x](http://elsewhere/a.png)"),
        ("![x](../secret.png)", "![x](../secret.png)"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("[x]: http://elsewhere", "[x]: http://elsewhere"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("**Bold** _Title_ `code` item_knn", "**Bold** _Title_ `code` item_knn"),
        ("back\\slash \\| pipe | AT&amp;T", "back\\slash \\| pipe | AT&amp;amp;T"),
        ("# 1", "# 1"),
        ("1. First\n\n# Second", "1. First # Second"),
    ],
)
def test_text_with_markdown_or_html_is_shown_literally(tmp_path: Path, text: str, shown: str) -> None:
    save_report(tmp_path, "Report", [paragraph(text), table(["title", "n"], [[text, 1]]), heading(text)])
    page = (tmp_path / "report.html").read_text()
    assert f"<p>{shown}</p>" in page
    assert f"<td>{shown}</td>" in page
    assert f"<h2>{shown}</h2>" in page
    assert "<img" not in page
    assert "<a " not in page


def test_every_figure_is_a_non_trivial_png(tmp_path: Path) -> None:
    draw_curves(
        tmp_path / "a.png", {"loss": {"one": [(1, 2.0), (2, 1.0)], "none": []}, "other": {"x": [(1, 1)]}}
    )
    draw_code_counts(tmp_path / "b.png", [np.array([3, 0, 1]), np.array([2, 2])])
    for name in ("a.png", "b.png"):
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000
