"""Log lines and progress bars on standard error, with an estimate of the time left."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

T = TypeVar("T")
LINE_INTERVAL = 10.0  # seconds between progress lines if standard error is not a terminal
# What moves the cursor, colours, or turns text round: control characters but tab and line end, line separators, and
# overrides of the direction of writing.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

# In a notebook, plain lines too.
console = Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)


_heard: ContextVar[list[str] | None] = ContextVar("_heard", default=None)


def printable(text: str) -> str:
    """The text with escapes for characters that a terminal would obey: ids and titles may hold any."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def log(message: str) -> None:
    """Say one line: on standard error, unless lines are written otherwise (see `write_lines_by`)."""
    _write_line(message)
    if (heard := _heard.get()) is not None:
        heard.append(message)


def _print_line(line: str) -> None:
    console.print(printable(line), markup=False)


_write_line: Callable[[str], Any] = _print_line


def write_lines_by(write: Callable[[str], Any] = _print_line) -> None:
    """Give each line to this function, such as that of a log, instead of printing it; by default print it again."""
    global _write_line
    _write_line = write


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that the block logs, for those who do not see standard error, such as the clients of a service.

    Lines of threads that the block starts with `asyncio.to_thread` are among them, and the progress is not.
    """
    lines: list[str] = []
    token = _heard.set(lines)
    try:
        yield lines
    finally:
        _heard.reset(token)


class RateColumn(ProgressColumn):
    """Recent steps per second."""

    def render(self, task: Task) -> Text:
        """The text of the column; empty until a rate is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.3g}/s" if rate else "")


class TimeLeftColumn(ProgressColumn):
    """The time left by the recent speed, or by the time limit if that is earlier."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """The text of the column; empty until a speed is known."""
        left = time_left(task.time_remaining, task.elapsed or 0.0, task.fields["limit"])
        return Text(f"{duration(left)} left" if left else "", style="progress.remaining")


def time_left(by_speed: float | None, elapsed: float, limit: float | None) -> float | None:
    """Seconds left: by the speed (None: not known yet), but no more than the limit (None: there is none) leaves.

    0 if the limit has passed: what is left cannot be known.
    """
    by_limit = None if limit is None else max(0.0, limit - elapsed)
    known = [seconds for seconds in (by_speed, by_limit) if seconds is not None]
    return min(known) if known else None


def duration(seconds: float) -> str:
    """A duration as people read it: 45 s, 12 min, 2.5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


class Meter:
    """A progress bar on a terminal; elsewhere (a log file, CI) a line every 10 seconds.

    `limit`: seconds after which the work ends even if it is not complete; None if there is no such limit.
    """

    def __init__(
        self, description: str, total: int, bar: Progress | None, limit: float | None = None
    ) -> None:
        self._description, self._total, self._bar, self._limit = description, total, bar, limit
        self._task = bar.add_task(description, total=total, note="", limit=limit) if bar else None
        self._done = 0
        self._start = self._last_line = time.monotonic()

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
            by_speed = (self._total - self._done) / rate if rate else None
            left = time_left(by_speed, now - self._start, self._limit)
            estimate = f", about {duration(left)} left" if left else ""
            speed = f", {rate:.3g}/s" if rate else ""
            self._print(f"{self._done:,} of {self._total:,}{speed}{estimate}. {note}".rstrip())

    def close(self, *, quietly: bool) -> None:
        """End the meter. `quietly`: remove its bar, or write no last line unless there were others."""
        if self._bar is None or self._task is None:
            if not quietly or self._last_line != self._start:
                self._print(f"done in {duration(time.monotonic() - self._start)}.")
        elif quietly:
            self._bar.remove_task(self._task)

    def _print(self, line: str) -> None:
        _write_line(f"{self._description}: {line}")


_open: list[Progress | None] = []  # the bars of the meters that are open, the outermost first


@contextmanager
def meter(description: str, total: int, limit: float | None = None) -> Iterator[Meter]:
    """Show progress over `total` steps while the block runs, or until `limit` seconds have passed.

    A meter inside another one (a validation during training) shows its bar below the other's, and only as long as it
    runs.
    """
    inner = bool(_open)
    bar = _open[-1] if inner else _bar() if console.is_terminal else None
    shown = Meter(description, total, bar, limit)
    _open.append(bar)
    try:
        with bar if bar is not None and not inner else nullcontext():
            yield shown
            shown.close(quietly=inner)
    finally:
        _open.pop()
        if bar is not None:
            sys.stderr.flush()


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeLeftColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate over `items` and show progress."""
    with meter(description, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()
