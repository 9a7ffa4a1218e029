"""Dynamic batching of the requests to one model.

A batch costs a model little more than a single request, so a request waits a few milliseconds for others.
Each model has one worker thread; requests that arrive while it is busy form the next batch.
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
    """The queue has no room; `seconds` is an estimate of how long it takes to drain."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The queue is full; it drains in about {seconds:.1f} s.")
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
    """Processes histories in batches with equal options, first come, first served.

    `process(options, histories)` returns one result per history. It gets at most `max_batch` histories at
    once, and the oldest of them has waited at most `max_wait_s` seconds for others. At most `max_queue`
    histories are queued. `on_batch(histories, seconds)` is called after each batch.
    """

    def __init__(
        self,
        process: Callable[[OptionsT, Sequence[HistoryT]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait_s: float,
        max_queue: int,
        on_batch: Callable[[int, float], None] = lambda histories, seconds: None,
    ) -> None:
        self._process, self._on_batch = process, on_batch
        self._max_batch, self._max_wait_s, self._max_queue = max_batch, max_wait_s, max_queue
        self._queue: deque[_Job[OptionsT, HistoryT]] = deque()
        self._queue_length = 0  # histories in _queue
        self._seconds_per_history = 0.01  # moving average
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def queue_length(self) -> int:
        """Number of queued histories."""
        return self._queue_length

    @property
    def alive(self) -> bool:
        """Whether requests are accepted and processed."""
        return self._thread.is_alive() and not self._closed

    def submit(self, options: OptionsT, histories: Sequence[HistoryT]) -> "Future[list[Any]]":
        """Queue histories; returns a future of the results, one per history.

        Cancelling the future before its batch starts skips the work. An empty queue accepts any number of
        histories. Raises QueueFullError if they don't fit behind those that are queued, RuntimeError once
        closed.
        """
        job = _Job(options, histories)
        with self._changed:
            if self._closed:
                raise RuntimeError("The batcher is closed.")
            if self._queue_length and self._queue_length + len(job) > self._max_queue:
                raise QueueFullError(self._queue_length * self._seconds_per_history)
            self._queue.append(job)
            self._queue_length += len(job)
            if len(self._queue) == 1 or self._queue_length >= self._max_batch:
                self._changed.notify()
        return job.future

    def close(self) -> None:
        """Accept no more requests, process the queued ones, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next_batch():
            running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if not running:
                continue
            try:
                self._run_batch(running)
            except Exception as error:  # one bad request must not fail the others: run each separately
                if len(running) == 1:
                    running[0].future.set_exception(error)
                    continue
                for job in running:
                    try:
                        self._run_batch([job])
                    except Exception as job_error:
                        job.future.set_exception(job_error)

    def _next_batch(self) -> list[_Job[OptionsT, HistoryT]]:
        """The jobs of the next batch; empty once the batcher is closed and the queue is drained."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            while self._queue and self._queue_length < self._max_batch and not self._closed:
                left = self._queue[0].arrived + self._max_wait_s - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[_Job[OptionsT, HistoryT]] = []
            rest: deque[_Job[OptionsT, HistoryT]] = deque()
            count = 0
            for job in self._queue:
                fits = not batch or count + len(job) <= self._max_batch
                if fits and (not batch or job.options == batch[0].options):
                    batch.append(job)
                    count += len(job)
                else:
                    rest.append(job)
            self._queue = rest
            self._queue_length -= count
            return batch

    def _run_batch(self, jobs: list[_Job[OptionsT, HistoryT]]) -> None:
        """Process jobs together; a job with more histories than a batch holds is processed in slices."""
        histories = [history for job in jobs for history in job.histories]
        results: list[Any] = []
        for start in range(0, len(histories), self._max_batch):
            part = histories[start : start + self._max_batch]
            started = time.monotonic()
            results += self._process(jobs[0].options, part)
            seconds = time.monotonic() - started
            self._seconds_per_history += 0.1 * (seconds / len(part) - self._seconds_per_history)
            self._on_batch(len(part), seconds)
        for job in jobs:
            job.future.set_result(results[: len(job)])
            results = results[len(job) :]
