"""Parts of an experiment that run in separate processes, each with a folder and a log file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rqrec.core.progress import console, meter
from rqrec.core.workers import LocalProcesses


class Task(Protocol):
    """Something to run in another process; it is pickled."""

    @property
    def name(self) -> str:
        """Unique among the tasks, and the name of the log file."""

    def run(self) -> None:
        """Do the work, resuming where an earlier run was interrupted."""


def run_tasks(tasks: Sequence[Task], jobs: int, logs: Path, description: str) -> None:
    """Run tasks, `jobs` at once, in processes with one thread; each task's progress goes to `logs/NAME.log`.

    After Ctrl-C or an error the running tasks are interrupted, once, so that each can save a checkpoint. Raises
    ChildProcessError with the name and the message of the first task that failed.
    """
    if not tasks:
        return
    logs.mkdir(parents=True, exist_ok=True)
    finished = LocalProcesses(jobs, threads=1).run(partial(_run_logged, logs), tasks)
    with closing(finished), meter(description, len(tasks)) as progress:
        for name in finished:
            progress.advance(1, name)


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
