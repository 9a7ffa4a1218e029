"""Metrics of the running service, in the Prometheus text format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
HISTORIES = (1, 2, 4, 8, 16, 32, 64)
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Requests, batches, queue lengths and reloads of one service."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "rqrec_requests",
            "Requests by method, route and status.",
            ["method", "path", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "rqrec_request_seconds", "Request latency.", ["path"], buckets=SECONDS, registry=registry
        )
        self._histories = Histogram(
            "rqrec_batch_histories", "Histories per batch.", ["model"], buckets=HISTORIES, registry=registry
        )
        self._batch_seconds = Histogram(
            "rqrec_batch_seconds", "Model time per batch.", ["model"], buckets=SECONDS, registry=registry
        )
        self._waiting = Gauge(
            "rqrec_waiting_histories", "Histories in the queue.", ["model"], registry=registry
        )
        self._reloads = Counter("rqrec_reloads", "Reloads by outcome.", ["outcome"], registry=registry)

    def observe_request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Record an answered request; `path` is the route's pattern, which bounds the number of labels."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def observe_batch(self, model: str, histories: int, seconds: float) -> None:
        """Record a batch that a model has processed."""
        self._histories.labels(model).observe(histories)
        self._batch_seconds.labels(model).observe(seconds)

    def watch_queue(self, model: str, queue_length: Callable[[], float]) -> None:
        """Call `queue_length` for a model's queue whenever the metrics are read."""
        self._waiting.labels(model).set_function(queue_length)

    def count_reload(self, outcome: str) -> None:
        """Record a reload; `outcome` is "loaded" or "refused"."""
        self._reloads.labels(outcome).inc()

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)
