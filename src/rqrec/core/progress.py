"""Log lines and progress bars on standard error, with an estimate of the time left."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")
LINE_INTERVAL = 10.0  # seconds between progress lines if standard error is not a terminal

console = Console(stderr=True, highlight=False, soft_wrap=True)


def log(message: str) -> None:
    """Print one line on standard error."""
    console.print(message, markup=False)


class RateColumn(ProgressColumn):
    """Recent steps per second."""

    def render(self, task: Task) -> Text:
        """The text of the column; empty until a rate is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.3g}/s" if rate else "")


class Meter:
    """A progress bar on a terminal; elsewhere (a log file, CI) a line every 10 seconds."""

    def __init__(self, description: str, total: int, bar: Progress | None) -> None:
        self._description, self._total, self._bar = description, total, bar
        self._task = bar.add_task(description, total=total, note="") if bar else None
        self._done, self._start, self._last_line = 0, time.monotonic(), time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` as done and show `note`, such as a loss, next to the bar."""
        self._done += steps
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, steps)
            if note:
                self._bar.update(self._task, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_INTERVAL and self._done < self._total:
            self._last_line = now
            rate = self._done / (now - self._start)
            left = (self._total - self._done) / rate
            done = f"{self._done}/{self._total}, {rate:.3g}/s"
            log(f"{self._description}: {done}, about {left:.0f} s left. {note}".rstrip())


@contextmanager
def meter(description: str, total: int) -> Iterator[Meter]:
    """Show progress over `total` steps while the block runs."""
    if not console.is_terminal:
        start = time.monotonic()
        yield Meter(description, total, None)
        log(f"{description}: done in {time.monotonic() - start:.1f} s.")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(description, total, bar)
    sys.stderr.flush()


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate over `items` and show progress."""
    with meter(description, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()
