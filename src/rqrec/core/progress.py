"""What long work tells the person who waits: on standard error, with an estimate of the time left."""

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
LINE_EVERY = 10.0  # seconds between lines where there is no terminal to draw a bar on

console = Console(stderr=True, highlight=False, soft_wrap=True)


def log(message: str) -> None:
    """One line on standard error."""
    console.print(message, markup=False)


class RateColumn(ProgressColumn):
    """How many are done a second, lately."""

    def render(self, task: Task) -> Text:
        """The text of the column; empty until there is a rate."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.3g}/s" if rate else "")


class Meter:
    """A bar on a terminal; elsewhere (a log file, CI) a line now and then."""

    def __init__(self, description: str, total: int, bar: Progress | None) -> None:
        self._description, self._total, self._bar = description, total, bar
        self._task = bar.add_task(description, total=total, note="") if bar else None
        self._done, self._start, self._last = 0, time.monotonic(), time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` as done and show `note` (a loss, say) beside the bar."""
        self._done += steps
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, steps)
            if note:
                self._bar.update(self._task, note=note)
            return
        now = time.monotonic()
        if now - self._last >= LINE_EVERY and self._done < self._total:
            self._last = now
            rate = self._done / (now - self._start)
            left = (self._total - self._done) / rate
            where = f"{self._done}/{self._total}, {rate:.3g} a second"
            log(f"{self._description}: {where}, about {left:.0f} s left. {note}".rstrip())


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
    """Iterate over `items` and show the progress."""
    with meter(description, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()
