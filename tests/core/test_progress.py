"""Progress as people see it: how much is done, and how long it takes at most."""

import pytest

from rqrec.core import progress
from rqrec.core.progress import console, duration, meter, printable, time_left, track


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress lines follow each other without a pause."""
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)


def test_what_a_terminal_would_obey_is_printed_as_an_escape() -> None:
    assert printable("a\x1b[2Jb\r\x07\x9b\u202ec") == r"a\x1b[2Jb\r\x07\x9b\u202ec"
    for text in ("two\nlines\tand a tab", "é e\u0301 שלום 💥 \\x1b", ""):
        assert printable(text) == text


def test_a_time_limit_bounds_the_time_left() -> None:
    assert time_left(26_478.0, 60.0, 240.0) == 180.0
    assert time_left(100.0, 60.0, 240.0) == 100.0
    assert time_left(None, 60.0, 240.0) == 180.0
    assert time_left(None, 300.0, 240.0) == 0.0
    assert time_left(None, 60.0, None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (240, "4 min"), (26_478, "7.4 h"), (99.4 * 60, "99 min")],
)
def test_durations_are_in_the_unit_that_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_long_job_with_a_limit_says_no_more_than_the_limit(
    no_waiting: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with meter("Training", 10**9, limit=240) as shown:
        shown.advance(1, "loss 1.000")
    shown_lines = capsys.readouterr().err
    assert "Training: 1 of 1,000,000,000" in shown_lines
    assert "about 4 min left. loss 1.000" in shown_lines


def test_work_inside_other_work_shows_its_own_progress(
    no_waiting: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with meter("Training", 3) as shown:
        for _ in track(range(2), "Validating"):
            shown.advance()
    shown_lines = capsys.readouterr().err
    assert "Validating: 1 of 2" in shown_lines
    assert "Training: 1 of 3" in shown_lines


def test_short_work_inside_other_work_adds_no_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL", 1000.0)
    with meter("Training", 3) as shown:
        for _ in track(range(2), "Validating"):
            shown.advance()
    assert capsys.readouterr().err.splitlines() == ["Training: done in 0 s."]


def test_on_a_terminal_the_bar_of_inner_work_is_removed_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    with meter("Training", 3, limit=60) as shown:
        list(track(range(2), "Validating"))
        shown.advance()
        shown.advance(2)
        assert shown._bar is not None
        assert [task.description for task in shown._bar.tasks] == ["Training"]
    assert "Training" in capsys.readouterr().err
