"""Dynamic batching of the requests to one model.

A batch costs a model little more than a single request, so a request waits a few milliseconds for others.
Each model has one worker thread; requests that arrive while it is busy form the next batch. A large request is
processed in parts, and smaller ones come between them and where the processing pauses; it stops at the next pause
when nobody waits for it any more.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rqrec.core.pausing import pausing

OptionsT = TypeVar("OptionsT", bound=Hashable)
HistoryT = TypeVar("HistoryT")

PARTS = 8  # a large request is processed in parts of this fraction of a batch
SMALL_FIRST = 15  # seconds of small requests for one of large ones, while both wait


class QueueFullError(Exception):
    """The queue has no room; `seconds` is an estimate of how long it takes to drain."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The queue is full; it drains in about {seconds:.1f} s.")
        self.seconds = seconds


class _AbandonedError(Exception):
    """Nobody waits for what is being processed."""


@dataclass(eq=False)
class _Job(Generic[OptionsT, HistoryT]):
    options: OptionsT
    histories: Sequence[HistoryT]
    future: "Future[list[Any]]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0
    """Histories that are processed, or being processed."""
    results: list[Any] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Number of histories that are still queued."""
        return len(self.histories) - self.taken


_Part = tuple[_Job[OptionsT, HistoryT], Sequence[HistoryT]]


class Batcher(Generic[OptionsT, HistoryT]):
    """Processes histories in batches with equal options.

    `process(options, histories)` returns one result per history. It gets at most `max_batch` histories at once, and
    the oldest of them has waited at most `max_wait_s` seconds for others. Where it calls `rqrec.core.pausing.pause`
    with a part of a large request, small ones that wait are processed meanwhile. At most `max_queue` histories are
    queued. `on_batch(histories, seconds)` is called after each batch.

    `cost(options)` is the cost of one history relative to a usual one: a batch of costlier ones is shorter, so that
    no batch keeps others waiting for long. A request that costs more than an eighth of a batch is large: it is
    processed in parts of that cost, and large requests may fill half of the queue. While both wait, small ones get
    all but a sixteenth of the time: they overtake large ones, but not for ever.
    """

    def __init__(
        self,
        process: Callable[[OptionsT, Sequence[HistoryT]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait_s: float,
        max_queue: int,
        cost: Callable[[OptionsT], float] = lambda options: 1.0,
        on_batch: Callable[[int, float], None] = lambda histories, seconds: None,
    ) -> None:
        self._process, self._cost, self._on_batch = process, cost, on_batch
        self._max_batch, self._max_wait_s, self._max_queue = max_batch, max_wait_s, max_queue
        self._queue: list[_Job[OptionsT, HistoryT]] = []
        self._part = max(1.0, max_batch / PARTS)  # cost
        self._seconds_per_cost = 0.01  # moving average
        self._seconds_for_small = 0.0  # that the smallest requests come first
        self._closed_until = math.inf  # when the rest of the queue is given up, once closed
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def queue_length(self) -> int:
        """Number of queued histories that somebody waits for."""
        with self._changed:
            return sum(job.left for job in self._waiting())

    def busy(self) -> float | None:
        """Seconds after which a large request may be accepted again; None if one of a usual size is accepted now."""
        with self._changed:
            if self.queue_length <= self._max_queue // 4:
                return None
            return self._drains_in

    @property
    def alive(self) -> bool:
        """Whether requests are accepted and processed."""
        return self._thread.is_alive() and not self._closed

    def submit(self, options: OptionsT, histories: Sequence[HistoryT]) -> "Future[list[Any]]":
        """Queue histories; returns a future of the results, one per history.

        Cancelling the future ends the work where it pauses next. An empty queue accepts any number of histories.
        Raises QueueFullError if they don't fit behind those that are queued, RuntimeError once closed.
        """
        job = _Job(options, histories)
        with self._changed:
            if self._closed:
                raise RuntimeError("The batcher is closed.")
            queued = self.queue_length
            room = self._max_queue // 2 if self._is_large(job) else self._max_queue
            if queued and queued + job.left > room:
                raise QueueFullError(self._drains_in)
            self._queue.append(job)
            if len(self._queue) == 1 or queued + job.left >= self._max_batch:
                self._changed.notify()
        return job.future

    def close(self, seconds: float = math.inf) -> None:
        """Accept no more requests, process the queued ones, and end the thread.

        After `seconds`, those that are left are cancelled.
        """
        with self._changed:
            self._closed, self._closed_until = True, time.monotonic() + seconds
            self._changed.notify()
        self._thread.join(None if math.isinf(seconds) else seconds)
        with self._changed:
            for job in self._queue:
                job.future.cancel()

    def _waiting(self) -> list[_Job[OptionsT, HistoryT]]:
        """The queue, without the jobs that were cancelled or have failed."""
        self._queue = [job for job in self._queue if not job.future.done()]
        return self._queue

    def _cost_left(self, job: _Job[OptionsT, HistoryT]) -> float:
        """The cost of the rest of a job."""
        return job.left * self._cost(job.options)

    def _seconds(self, job: _Job[OptionsT, HistoryT]) -> float:
        """About how long the rest of a job takes."""
        return self._cost_left(job) * self._seconds_per_cost

    @property
    def _drains_in(self) -> float:
        """About how long everything that is queued takes, in seconds."""
        return sum(map(self._seconds, self._queue))

    def _is_large(self, job: _Job[OptionsT, HistoryT]) -> bool:
        return len(job.histories) * self._cost(job.options) > self._part

    def _room(self, job: _Job[OptionsT, HistoryT]) -> int:
        """The number of histories of a batch in which the job may be."""
        cost = self._part if self._is_large(job) else self._max_batch
        return max(1, int(min(self._max_batch, cost / self._cost(job.options))))

    def _run(self) -> None:
        while parts := self._next_batch():
            self._run_together(parts)

    def _run_together(self, parts: Sequence[_Part[OptionsT, HistoryT]]) -> None:
        """Run a batch; if that fails, each request separately, because one bad request must not fail the others."""
        try:
            self._run_batch(parts)
        except Exception as error:
            if len(parts) == 1:
                _finish(parts[0][0], error)
                return
            for part in parts:
                try:
                    self._run_batch([part])
                except Exception as own_error:
                    _finish(part[0], own_error)

    def _next_batch(self) -> list[_Part[OptionsT, HistoryT]]:
        """The jobs of the next batch, each with its part in it; empty once closed and done, or given up."""
        with self._changed:
            while not self._closed:
                arrived = min((job.arrived for job in self._waiting()), default=math.inf)
                left = arrived + self._max_wait_s - time.monotonic()
                if self._queue and (self.queue_length >= self._max_batch or left <= 0):
                    break
                self._changed.wait(left if self._queue else None)
            if not self._waiting() or time.monotonic() > self._closed_until:
                return []
            if self._seconds_for_small > 0:
                self._queue.sort(key=lambda job: (self._cost_left(job), job.arrived))
            else:
                self._queue.sort(key=lambda job: job.arrived)
            return self._take(self._queue)

    def _small_batch(self) -> list[_Part[OptionsT, HistoryT]]:
        """The small jobs that wait, as many as fit into a batch with the first one; empty if there are none."""
        with self._changed:
            small = [job for job in self._waiting() if not self._is_large(job)]
            return self._take(sorted(small, key=lambda job: job.arrived))

    def _take(self, jobs: Sequence[_Job[OptionsT, HistoryT]]) -> list[_Part[OptionsT, HistoryT]]:
        """A batch of the first of these jobs and others with equal options, each with its part in it."""
        batch: list[_Part[OptionsT, HistoryT]] = []
        taken = 0
        for job in jobs:
            room = self._room(job) - taken
            if job.options == jobs[0].options and room >= min(job.left, 1):
                part = job.histories[job.taken : job.taken + room]
                batch.append((job, part))
                job.taken += len(part)
                taken += len(part)
        self._queue = [job for job in self._queue if job.left]
        return batch

    def _run_batch(self, parts: Sequence[_Part[OptionsT, HistoryT]]) -> None:
        histories = [history for _, part in parts for history in part]
        options = parts[0][0].options
        large = any(self._is_large(job) for job, _ in parts)
        results: list[Any] = []
        if histories:
            started, paused = time.monotonic(), 0.0

            def seconds() -> float:
                return time.monotonic() - started - paused

            def at_pause() -> None:
                nonlocal paused
                if all(job.future.cancelled() for job, _ in parts):
                    raise _AbandonedError
                while large and paused <= SMALL_FIRST * seconds() and (small := self._small_batch()):
                    began = time.monotonic()
                    self._run_together(small)
                    paused += time.monotonic() - began

            try:
                with pausing(at_pause):
                    results += self._process(options, histories)
            except _AbandonedError:
                return
            finally:
                if large:
                    self._seconds_for_small = SMALL_FIRST * seconds() - paused
                else:
                    self._seconds_for_small -= seconds()
            per_cost = seconds() / (len(histories) * self._cost(options))
            self._seconds_per_cost += 0.1 * (per_cost - self._seconds_per_cost)
            self._on_batch(len(histories), seconds())
        for job, part in parts:
            job.results += results[: len(part)]
            results = results[len(part) :]
            if len(job.results) == len(job.histories):
                _finish(job)


def _finish(job: _Job[OptionsT, HistoryT], error: Exception | None = None) -> None:
    """Answer a job, unless it was cancelled."""
    if not job.future.set_running_or_notify_cancel():
        return
    if error is None:
        job.future.set_result(job.results)
    else:
        job.future.set_exception(error)
