import pytest

from rqrec.serving import limits
from rqrec.serving.limits import RateLimiter
from rqrec.serving.settings import Settings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate_for_each_key_alone() -> None:
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


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(0.0, 1)
    assert not any(limiter.take("a") for _ in range(1000))


def test_keys_without_number_take_no_memory_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS", 10)
    limiter = RateLimiter(1.0, 1, Clock())
    for key in range(1000):
        limiter.take(str(key))
    assert len(limiter._buckets) == 10
    assert limiter.take("999") > 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"max_batch": 0}, "max_batch is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"rate": -1.0}, "rate is -1.0"),
        ({"tokens": ("a b",)}, "without spaces"),
        ({"admin_token": "ä"}, "ASCII"),
    ],
)
def test_settings_that_cannot_be_are_sentences(setting: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**setting)
