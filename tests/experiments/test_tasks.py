"""Tasks in other processes: what they say is shown while they run."""

import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rqrec.core import progress
from rqrec.core.progress import log
from rqrec.experiments import tasks


@dataclass(frozen=True)
class Waiting:
    """Says something, and waits until a file exists."""

    name: str
    until: Path

    def run(self) -> None:
        """Do it."""
        log(f"{self.name} says hello")
        while not self.until.exists():
            time.sleep(0.02)


def test_the_last_lines_of_running_tasks_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LINE_INTERVAL", 0.05)
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    done = tmp_path / "done"

    class Console(io.StringIO):
        def write(self, text: str) -> int:
            if "says hello" in text:
                done.touch()
            return super().write(text)

    shown = Console()
    monkeypatch.setattr(sys, "stderr", shown)
    tasks.run_tasks([Waiting("one", done)], 1, tmp_path / "logs", "Waiting", limit=600)
    assert "Waiting: 0 of 1, about 10 min left. one: one says hello" in shown.getvalue()
