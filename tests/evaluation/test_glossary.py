"""The glossary of reports: every word that a report asks for has a meaning, and figures are numbers for people."""

from pathlib import Path

import pytest

from rqrec.evaluation.evaluation_report import _in_words, _words
from rqrec.evaluation.glossary import MEANINGS, glossary
from rqrec.evaluation.metrics import ndcg_at
from rqrec.evaluation.report import link, paragraph, save_report, shell, table
from rqrec.experiments.demo_report import WORDS


def test_every_word_of_the_reports_is_explained() -> None:
    words = {*WORDS, *_words({"comparison": {}, "id_level": {}})}
    assert words <= {*MEANINGS}
    assert "one user in ten" in "\n".join(glossary(["recall@10"]))


def test_settings_are_written_as_words() -> None:
    experts = {"codes": {"power": 0.63, "share": None}, "neighbours": {"power": 3.0, "share": 0.6}}
    words = _in_words({"beam_width": 50, "experts": experts})
    assert words == "beam width 50, experts (codes (power 0.63), neighbours (power 3.0, share 0.6))"


def test_what_it_says_of_ndcg_is_so() -> None:
    import numpy as np

    assert ndcg_at(10, np.array([0, 1, 9])).tolist() == pytest.approx([1, 0.63, 0.29], abs=0.005)


def test_links_and_commands_are_shown_and_texts_cannot_make_them(tmp_path: Path) -> None:
    blocks = [
        link("the page", "http://127.0.0.1:8000/?user=a b"),
        shell("rqrec serve --artifact 'out/my demo'"),
        paragraph("[x](http://elsewhere) ```"),
        table(["n", "share", "word"], [[1682, "3.5%", "x"]]),
    ]
    save_report(tmp_path, "Report", blocks)
    page = (tmp_path / "report.html").read_text()
    assert '<a href="http://127.0.0.1:8000/?user=a%20b">the page</a>' in page
    assert page.count("<a ") == 1
    assert "<pre><code>rqrec serve --artifact 'out/my demo'\n</code></pre>" in page
    assert '<td style="text-align:right">1,682</td>' in page
    assert '<td style="text-align:right">3.5%</td>' in page
