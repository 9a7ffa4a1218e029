"""Run one function on many tasks: in this process, in several processes of this machine, or on a Ray cluster.

Tasks are independent and their results arrive in any order, so that no result can depend on where a task ran.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from threading import Thread
from types import FrameType
from typing import Any, Protocol, TypeVar

from rqrec.core.errors import first_line

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("local", "ray")
FAILED = 1  # exit status of a Python process that ends with a traceback
CHECK_EVERY = 1.0  # seconds between checks that all processes are alive


class Workers(Protocol):
    """An engine that runs tasks."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """Yield `function(task)` for every task, in the order in which they finish.

        The function, the tasks and the results are pickled. The first error stops the run.
        """


def workers(engine: str, processes: int | None = None) -> Workers:
    """The workers of an engine; `processes` (None: one per core) is for "local" only.

    Raises ValueError if the engine is unknown, or if it is "ray" and Ray is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; allowed are {', '.join(ENGINES)}.")
    if engine == "ray":
        if processes is not None:
            raise ValueError(
                "--processes is for --engine local; a Ray cluster uses all its CPUs. Leave it out."
            )
        _ray()  # fails here rather than after the inputs were read
        return RayCluster()
    if processes is not None and processes < 1:
        raise ValueError(f"processes is {processes}, but must be at least 1.")
    return LocalProcesses(processes or cores())


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class LocalProcesses:
    """Processes of this machine. With one process and no `threads`, tasks run in the current process."""

    processes: int
    """How many tasks run at once."""

    threads: int | None = None
    """Threads of each process; None: OMP_NUM_THREADS, or else the cores divided among the processes."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Generator[R, None, None]:
        """See `Workers`.

        After Ctrl-C, an error or the generator's `close()` no further task starts, and each running one gets
        a KeyboardInterrupt, once, so that it can save its state; the run ends when all of them have ended. A
        task is interrupted in the same way if another one's process or this one is killed.

        Raises ChildProcessError if a process was killed, or ended before it could run a task.
        """
        if self.processes == 1 and self.threads is None:
            yield from map(function, tasks)
            return
        count = max(1, min(self.processes, len(tasks)))
        threads = self.threads or os.environ.get("OMP_NUM_THREADS") or max(1, cores() // count)
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        try:
            started: set[BaseProcess] = set()
            with ProcessPoolExecutor(count, context, _initialize, (str(threads),)) as pool:
                remaining = iter(tasks)
                try:
                    # At most one task per process, because a submitted task cannot be withdrawn.
                    running = {_submit(pool, function, task) for task in islice(remaining, count)}
                    while running:
                        # Before the wait, because `active_children` leaves out those that have died.
                        started |= set(multiprocessing.active_children()) - others
                        done, running = wait(running, CHECK_EVERY, FIRST_COMPLETED)
                        # The executor can miss the death of a process that started after its first one.
                        if not done and not all(process.is_alive() for process in started):
                            raise BrokenProcessPool
                        for future in done:
                            result = future.result()  # raises an error before another task starts
                            running |= {_submit(pool, function, task) for task in islice(remaining, 1)}
                            yield result
                except BaseException:
                    for process in set(multiprocessing.active_children()) - others:
                        process.terminate()
                    raise
        except BrokenProcessPool as error:
            if any(process.exitcode == FAILED for process in started):
                raise ChildProcessError(
                    "A worker process ended with an error before it could work; its traceback is above. Each worker "
                    'imports the script that started it: put what a script does under `if __name__ == "__main__":`.'
                ) from error
            raise ChildProcessError(
                "A worker process was killed, most likely because memory ran out: try fewer --processes (or "
                "jobs). What was finished is kept, and the same command resumes from there."
            ) from error


def _submit(pool: ProcessPoolExecutor, function: Callable[[T], R], task: T) -> Future[R]:
    """Submit a task; a process that this starts inherits a blocked SIGINT, until `_initialize` unblocks it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_run, function, task)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _initialize(threads: str) -> None:
    """Prepare a worker process, before it imports torch.

    A terminal sends Ctrl-C to the whole process group. Workers leave that group: the first process decides
    which of them to interrupt, by SIGTERM, and an interrupt never arrives twice.
    """
    os.environ["OMP_NUM_THREADS"] = threads
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # discards a Ctrl-C that came before setpgrp
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Thread(target=_terminate_with_parent, daemon=True).start()


def _terminate_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _run(function: Callable[[T], R], task: T) -> R:
    """Run a task in a worker process. SIGTERM interrupts it like Ctrl-C, and the process exits after it."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        # The executor terminates all its processes again as soon as one has exited.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.raise_signal(signal.SIGINT)

    try:
        signal.signal(signal.SIGTERM, interrupt)
        try:
            return function(task)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    finally:
        if interrupted:
            os._exit(128 + signal.SIGINT)  # an exception would only go back to the executor


@dataclass(frozen=True)
class RayCluster:
    """The Ray cluster at RAY_ADDRESS, or the one that this machine belongs to, or else a new local one.

    Every node needs rqrec and the same files under the same paths. If a node dies, its tasks run again on
    another one.
    """

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """See `Workers`."""
        ray = _ray()
        started_here = not ray.is_initialized()
        if started_here:
            ray.init(log_to_driver=False, logging_level="ERROR")
        try:
            remote = ray.remote(lambda task: function(task))  # Ray does not accept a functools.partial
            remaining = iter(tasks)
            running: list[Any] = []
            while True:
                # Twice the present number of CPUs: none is ever idle, and an autoscaler sees the demand.
                room = 2 * int(ray.cluster_resources().get("CPU", 1)) - len(running)
                running += [remote.remote(task) for task in islice(remaining, max(0, room))]
                if not running:
                    return
                done, running = ray.wait(running)
                yield ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ChildProcessError(
                f"The Ray cluster failed ({first_line(error)}). What was finished is kept, "
                f"and the same command resumes from there."
            ) from error
        finally:
            if started_here:
                ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            '--engine ray needs Ray, which is not installed: pip install "rqrec[ray]".'
        ) from error
    return ray
