"""Parts of an experiment that run in separate processes, each with a folder and a log file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from rqrec.core.progress import LINE_INTERVAL, Meter, console, meter
from rqrec.core.workers import LocalProcesses

TAIL = 4096  # bytes of a log that hold its last line


class Task(Protocol):
    """Something to run in another process; it is pickled."""

    @property
    def name(self) -> str:
        """Unique among the tasks, and the name of the log file."""

    def run(self) -> None:
        """Do the work, resuming where an earlier run was interrupted."""


def run_tasks(
    tasks: Sequence[Task], jobs: int, logs: Path, description: str, limit: float | None = None
) -> None:
    """Run tasks, `jobs` at once, in processes with one thread; each task's progress goes to `logs/NAME.log`.

    What the running tasks say last is shown, too. `limit`: seconds after which all are done; None if nobody knows.

    After Ctrl-C or an error the running tasks are interrupted, once, so that each can save a checkpoint. Raises
    ChildProcessError with the name and the message of the first task that failed.
    """
    if not tasks:
        return
    logs.mkdir(parents=True, exist_ok=True)
    finished = LocalProcesses(jobs, threads=1).run(partial(_run_logged, logs), tasks)
    running = {task.name: logs / f"{task.name}.log" for task in tasks}
    before = {name: _size(path) for name, path in running.items()}
    with (
        closing(finished),
        meter(description, len(tasks), limit) as progress,
        _showing(progress, running, before),
    ):
        for name in finished:
            del running[name]
            progress.advance(1)


@contextmanager
def _showing(progress: Meter, running: Mapping[str, Path], before: Mapping[str, int]) -> Iterator[None]:
    """While the block runs, show the last line that each running task has written to its log since `before`."""
    stop = Event()

    def show() -> None:
        while not stop.wait(LINE_INTERVAL):
            lines = {name: _last_line(path, before[name]) for name, path in list(running.items())}
            progress.advance(0, "; ".join(f"{name}: {line}" for name, line in lines.items() if line))

    thread = Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _last_line(path: Path, start: int) -> str:
    """The last line of a file after its first `start` bytes; empty if there is none yet."""
    if (size := _size(path)) <= start:
        return ""
    with path.open("rb") as file:
        file.seek(max(start, size - TAIL))
        lines = file.read().decode(errors="replace").rstrip().splitlines()
    return lines[-1].rstrip(".") if lines else ""


def _run_logged(logs: Path, task: Task) -> str:
    with _console_in(logs / f"{task.name}.log"):
        try:
            task.run()
        except (ValueError, OSError) as error:
            raise ChildProcessError(f"{task.name}: {error}") from error
    return task.name


@contextmanager
def _console_in(path: Path) -> Iterator[None]:
    """Append progress to a file instead of showing it."""
    before = console.file
    with path.open("a", encoding="utf-8", buffering=1) as file:
        console.file = file
        try:
            yield
        finally:
            console.file = before


def run_dir(root: Path, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Path:
    """`root/NAME-HASH`, with a hash of settings and inputs: changing any of them gives another folder."""
    text = json.dumps([settings, inputs], sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
