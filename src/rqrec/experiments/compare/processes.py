"""Work on several tasks at once, each in a process of one thread."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from threading import Thread
from typing import NamedTuple, TypeVar

from rqrec.core.progress import console, log, meter

T = TypeVar("T")


class _Running(NamedTuple):
    name: str
    process: SpawnProcess
    failure: Connection


def in_processes(
    work: Callable[[T], object], tasks: Mapping[str, T], jobs: int, logs: Path, description: str
) -> None:
    """Call `work` on each task, `jobs` at a time; what a task says goes to `logs/NAME.log`.

    `work` and the tasks travel by pickle. Ctrl-C reaches this process alone, which hands it on once, so that
    each task can save what it has. Raises ChildProcessError with the words of the first task that failed,
    after the others were interrupted too.
    """
    if not tasks:
        return
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running = list(tasks.items()), list[_Running]()
    try:
        with meter(description, len(tasks)) as progress:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(work, *waiting.pop(0), logs))
                ended = wait([task.process.sentinel for task in running])
                for task in [task for task in running if task.process.sentinel in ended]:
                    running.remove(task)
                    _check(task, logs)
                    progress.advance(1, task.name)
    finally:
        if running:
            log(f"Interrupting {', '.join(task.name for task in running)}.")
        for task in running:
            os.kill(task.process.pid or 0, signal.SIGINT)
        for task in running:
            task.process.join()


def _start(work: Callable[[T], object], name: str, task: T, logs: Path) -> _Running:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_run, args=(work, task, logs / f"{name}.log", sender), name=name, daemon=True
    )
    ensure_running()  # multiprocessing's own helper, whose start would unblock the signal
    # A process that is not yet in its work has nothing to save: it hears of Ctrl-C when it gets there.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sender.close()
    return _Running(name, process, receiver)


def _check(task: _Running, logs: Path) -> None:
    task.process.join()
    if not task.process.exitcode:
        return
    try:
        words = task.failure.recv()
    except EOFError:
        words = f"its process ended with status {task.process.exitcode}; see {logs / task.name}.log."
    raise ChildProcessError(f"{task.name}: {words}")


def _run(work: Callable[[T], object], task: T, log: Path, failure: Connection) -> None:
    """The life of a process."""
    import torch

    os.setpgrp()  # a terminal's Ctrl-C goes to the group of the first process
    torch.set_num_threads(1)
    with log.open("a", encoding="utf-8", buffering=1) as file:
        console.file = file
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            Thread(target=_end_with_the_first_process, daemon=True).start()
            work(task)
        except KeyboardInterrupt:
            sys.exit(130)
        except (ValueError, OSError) as error:
            failure.send(str(error))
            sys.exit(1)


def _end_with_the_first_process() -> None:
    """Where the first process is killed, this one is interrupted, and saves what it has."""
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os.kill(os.getpid(), signal.SIGINT)
