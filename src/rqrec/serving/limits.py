"""Rate limiting per client."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000
LONGEST_WAIT = 86_400.0  # seconds


class RateLimiter:
    """A token bucket per key, refilled at `rate` requests per second up to `burst`; rate 0 means no limit.

    At most MAX_KEYS buckets are kept. Beyond that the least recently used one is dropped, so its key starts
    again with a full bucket.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, time of update

    def take(self, key: str) -> float:
        """Take one request from the bucket of `key`.

        Returns 0 if the request is allowed, else the number of seconds until the next one will be.
        """
        if not self._rate:
            return 0.0
        now = self._clock()
        left, updated = self._buckets.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - updated) * self._rate)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else min((1 - left) / self._rate, LONGEST_WAIT)
