"""Requests of one model gathered into batches.

A batch costs a model little more than one request, so a request waits a few milliseconds for company. Each
model has one worker thread; what arrives while it works is the next batch.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

OptionsT = TypeVar("OptionsT", bound=Hashable)
HistoryT = TypeVar("HistoryT")


class QueueFullError(Exception):
    """Too much waits already; `seconds` is about how long that will take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The queue is full for about {seconds:.1f} s.")
        self.seconds = seconds


@dataclass(eq=False)
class _Job(Generic[OptionsT, HistoryT]):
    options: OptionsT
    histories: Sequence[HistoryT]
    future: "Future[list[Any]]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.histories)


class Batcher(Generic[OptionsT, HistoryT]):
    """Answers histories in batches of equal options, first come, first served.

    `answer(options, histories)` gives one answer a history. At most `max_batch` histories go to it at once,
    the first of which has waited `max_wait` seconds or less for others; at most `max_queue` wait.
    `observe(histories, seconds)` is told of each batch.
    """

    def __init__(
        self,
        answer: Callable[[OptionsT, Sequence[HistoryT]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait: float,
        max_queue: int,
        observe: Callable[[int, float], None] = lambda histories, seconds: None,
    ) -> None:
        self._answer, self._observe = answer, observe
        self._max_batch, self._max_wait, self._max_queue = max_batch, max_wait, max_queue
        self._jobs: deque[_Job[OptionsT, HistoryT]] = deque()
        self._waiting = 0  # histories of _jobs
        self._pace = 0.01  # seconds a history, a moving average
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Histories in the queue."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether requests are taken and answered."""
        return self._thread.is_alive() and not self._closed

    def submit(self, options: OptionsT, histories: Sequence[HistoryT]) -> "Future[list[Any]]":
        """A future of the answers, one a history. Cancel it, and what has not begun is left undone.

        Raises QueueFullError where too much waits, RuntimeError once closed.
        """
        job = _Job(options, histories)
        with self._changed:
            if self._closed:
                raise RuntimeError("The batcher is closed.")
            if self._waiting and self._waiting + len(job) > self._max_queue:
                raise QueueFullError(self._waiting * self._pace)
            self._jobs.append(job)
            self._waiting += len(job)
            if len(self._jobs) == 1 or self._waiting >= self._max_batch:
                self._changed.notify()
        return job.future

    def close(self) -> None:
        """Take no more, finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if not running:
                continue
            try:
                self._finish(running)
            except Exception as error:  # of one request, it may be: the others are not to blame
                if len(running) == 1:
                    running[0].future.set_exception(error)
                    continue
                for job in running:
                    try:
                        self._finish([job])
                    except Exception as its_own:
                        job.future.set_exception(its_own)

    def _next(self) -> list[_Job[OptionsT, HistoryT]]:
        """The jobs of the next batch; none once closed and empty."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            while self._jobs and self._waiting < self._max_batch and not self._closed:
                left = self._jobs[0].arrived + self._max_wait - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken: list[_Job[OptionsT, HistoryT]] = []
            others: deque[_Job[OptionsT, HistoryT]] = deque()
            count = 0
            for job in self._jobs:
                fits = not taken or count + len(job) <= self._max_batch
                if fits and (not taken or job.options == taken[0].options):
                    taken.append(job)
                    count += len(job)
                else:
                    others.append(job)
            self._jobs = others
            self._waiting -= count
            return taken

    def _finish(self, jobs: list[_Job[OptionsT, HistoryT]]) -> None:
        """Answer the jobs together. A job of more histories than a batch is answered in parts."""
        histories = [history for job in jobs for history in job.histories]
        answers: list[Any] = []
        for start in range(0, len(histories), self._max_batch):
            part = histories[start : start + self._max_batch]
            begun = time.monotonic()
            answers += self._answer(jobs[0].options, part)
            seconds = time.monotonic() - begun
            self._pace += 0.1 * (seconds / len(part) - self._pace)
            self._observe(len(part), seconds)
        for job in jobs:
            job.future.set_result(answers[: len(job)])
            answers = answers[len(job) :]
