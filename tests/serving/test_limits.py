import pytest

from rqrec.serving import limits
from rqrec.serving.config import ServiceConfig
from rqrec.serving.limits import RateLimiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_key_gets_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, 3, clock)
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.take("a") == pytest.approx(0.5)
    assert limiter.take("b") == 0
    clock.now = 0.5
    assert limiter.take("a") == 0
    assert limiter.take("a") > 0
    clock.now = 100.0
    assert [limiter.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_rate_zero_means_no_limit() -> None:
    limiter = RateLimiter(0.0, 1)
    assert not any(limiter.take("a") for _ in range(1000))


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS", 10)
    limiter = RateLimiter(1.0, 1, Clock())
    for key in range(1000):
        limiter.take(str(key))
    assert len(limiter._buckets) == 10
    assert limiter.take("999") > 0


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"max_batch": 0}, "max_batch is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"max_wait_ms": -1.0}, "max_wait_ms is -1.0"),
        ({"threads": 0}, "threads is 0"),
        ({"port": 65536}, "port is 65536, but must be at least 0 and at most 65535"),
        ({"log_level": "loud"}, "log_level is 'loud', but must be one of 'debug', 'info'"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"tokens": ("a b",)}, "contains a space"),
        ({"admin_token": "ä"}, "ASCII"),
    ],
)
def test_invalid_options_are_refused(option: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        ServiceConfig(**option)
