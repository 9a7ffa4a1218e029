"""Figures of the running service, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
HISTORIES = (1, 2, 4, 8, 16, 32, 64)
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class Metrics:
    """Requests, batches, queues and reloads of one service."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = on = CollectorRegistry()
        self._requests = Counter("rqrec_requests", "Requests.", ["method", "path", "status"], registry=on)
        self._seconds = Histogram(
            "rqrec_request_seconds", "Time to answer a request.", ["path"], buckets=SECONDS, registry=on
        )
        self._histories = Histogram(
            "rqrec_batch_histories", "Histories answered at once.", ["model"], buckets=HISTORIES, registry=on
        )
        self._batch_seconds = Histogram(
            "rqrec_batch_seconds", "Time of a batch in the model.", ["model"], buckets=SECONDS, registry=on
        )
        self._waiting = Gauge("rqrec_waiting_histories", "Histories in the queue.", ["model"], registry=on)
        self._reloads = Counter("rqrec_reloads", "Reloads, by outcome.", ["outcome"], registry=on)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered; `path` is the route's pattern, so that there are few."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, model: str, histories: int, seconds: float) -> None:
        """A model answered a batch."""
        self._histories.labels(model).observe(histories)
        self._batch_seconds.labels(model).observe(seconds)

    def watch_queue(self, model: str, waiting: Callable[[], float]) -> None:
        """Ask `waiting` for the length of a model's queue whenever figures are read."""
        self._waiting.labels(model).set_function(waiting)

    def reload(self, outcome: str) -> None:
        """Artefacts were "loaded" or "refused"."""
        self._reloads.labels(outcome).inc()

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self.registry)
