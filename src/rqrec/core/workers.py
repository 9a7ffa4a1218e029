"""One function over many tasks: in this process, in several of this machine, or on a Ray cluster.

Tasks are independent and their results come in any order, so that what is computed cannot depend on where.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("local", "ray")


class Workers(Protocol):
    """Something that runs tasks."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """`function(task)` of every task, in the order in which they finish.

        The function and the tasks are pickled, and so are the results. The first error ends the run.
        """


def workers(engine: str, processes: int | None = None) -> Workers:
    """The workers of an engine; `processes` (None: a core each) is for "local", Ray knows its cluster.

    Raises ValueError on another engine, and where Ray is asked for and not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; allowed are {', '.join(ENGINES)}.")
    if engine == "ray":
        if processes is not None:
            raise ValueError("processes is for engine=local; a Ray cluster has as many as it has CPUs.")
        _ray()  # refuses now, not after the inputs were read
        return RayCluster()
    if processes is not None and processes < 1:
        raise ValueError(f"processes is {processes}, but at least 1 is needed.")
    return LocalProcesses(processes or cores())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class LocalProcesses:
    """Processes of this machine, which share its cores; one runs in this process."""

    processes: int

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """See `Workers`. On Ctrl-C the tasks under way are stopped, and no other begins."""
        if self.processes == 1:
            yield from map(function, tasks)
            return
        count = max(1, min(self.processes, len(tasks)))
        threads = max(1, cores() // count)
        try:
            with ProcessPoolExecutor(count, get_context("spawn"), _begin, (threads,)) as pool:
                remaining = iter(tasks)
                # No more than there are processes: whatever was handed over runs, also after Ctrl-C.
                running = {pool.submit(_run, function, task) for task in islice(remaining, count)}
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()  # an error, before another task begins
                        running |= {pool.submit(_run, function, task) for task in islice(remaining, 1)}
                        yield result
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "A process was killed, most likely because memory ran out: try fewer --processes. What was "
                "finished is kept, and the same command goes on from there."
            ) from error


def _begin(threads: int) -> None:
    """The first thing that a process does, before torch is imported in it."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(function: Callable[[T], R], task: T) -> R:
    """Ctrl-C reaches every process of a terminal: it ends a task, and leaves one that waits to its parent."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function(task)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class RayCluster:
    """The cluster that RAY_ADDRESS names or this machine belongs to, else a local one for this run.

    Every node needs rqrec, and finds the same files under the same paths. A task of a node that died runs
    again on another one.
    """

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """See `Workers`."""
        ray = _ray()
        own = not ray.is_initialized()
        if own:
            ray.init(log_to_driver=False, logging_level="ERROR")
        try:
            remote = ray.remote(lambda task: function(task))  # Ray takes no partial
            remaining = iter(tasks)
            running: list[Any] = []
            while True:
                # Twice what the cluster has at this moment: none of it waits, and it sees that more would help.
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
                f"The Ray cluster failed ({str(error).strip().splitlines()[0]}). What was finished is kept, "
                f"and the same command goes on from there."
            ) from error
        finally:
            if own:
                ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError('engine=ray needs Ray, which is not installed: pip install "rqrec[ray]".') from error
    return ray
