"""Dynamic batching: each request gets its own result, whatever it is batched with."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace

import pytest

from rqrec.core.pausing import pause
from rqrec.serving.batcher import SMALL_FIRST, Batcher, QueueFullError


class EchoModel:
    """Returns each history with its options, records the batches, and blocks on demand."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[str]]] = []
        self.unblocked = threading.Event()
        self.unblocked.set()

    def process(self, options: int, histories: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
        self.batches.append((options, ["".join(history) for history in histories]))
        assert self.unblocked.wait(30)
        if any("bad" in history for history in histories):
            raise ValueError("bad")
        return [(options, "".join(history)) for history in histories]


def make_batcher(
    model: EchoModel, *, max_batch: int = 4, max_wait_s: float = 0.0, max_queue: int = 100
) -> Batcher[int, list[str]]:
    return Batcher(model.process, max_batch=max_batch, max_wait_s=max_wait_s, max_queue=max_queue)


def block(model: EchoModel, batcher: Batcher[int, list[str]]) -> None:
    """Keep the model busy while more requests arrive."""
    model.unblocked.clear()
    batcher.submit(0, [["first"]])
    while not model.batches:
        time.sleep(0.001)


def test_requests_that_arrive_while_the_model_is_busy_are_batched_by_options() -> None:
    model = EchoModel()
    batcher = make_batcher(model)
    block(model, batcher)
    futures = [
        batcher.submit(options, [[name]]) for options, name in ((1, "a"), (2, "b"), (1, "c"), (1, "d"))
    ]
    model.unblocked.set()
    assert [future.result(30) for future in futures] == [[(1, "a")], [(2, "b")], [(1, "c")], [(1, "d")]]
    assert model.batches[1:] == [(1, ["a", "c", "d"]), (2, ["b"])]
    batcher.close()


def test_a_request_waits_for_others_until_the_batch_is_full() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_batch=3, max_wait_s=60.0)
    futures = [batcher.submit(1, [[name]]) for name in "abc"]
    assert [future.result(30) for future in futures] == [[(1, "a")], [(1, "b")], [(1, "c")]]
    assert model.batches == [(1, ["a", "b", "c"])]
    batcher.close()


def test_a_large_request_is_split_into_batches() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_batch=32)
    answers = batcher.submit(1, [[name] for name in "abcdefghi"]).result(30)
    assert answers == [(1, name) for name in "abcdefghi"]
    assert [len(histories) for _, histories in model.batches] == [4, 4, 1]
    assert batcher.submit(1, []).result(30) == []
    batcher.close()


def test_a_full_queue_refuses_with_a_waiting_time() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_queue=3)
    block(model, batcher)
    futures = [batcher.submit(1, [["a"], ["b"]]), batcher.submit(1, [["c"]])]
    assert batcher.queue_length == 3
    with pytest.raises(QueueFullError) as raised:
        batcher.submit(1, [["d"]])
    assert raised.value.seconds > 0
    model.unblocked.set()
    wait(futures, 30)
    assert batcher.submit(1, [["d"]]).result(30) == [(1, "d")]
    batcher.close()


def test_a_failing_request_does_not_fail_its_batch() -> None:
    model = EchoModel()
    batcher = make_batcher(model)
    block(model, batcher)
    futures = [batcher.submit(1, [[name]]) for name in ("a", "bad", "c")]
    model.unblocked.set()
    assert (futures[0].result(30), futures[2].result(30)) == ([(1, "a")], [(1, "c")])
    with pytest.raises(ValueError, match="bad"):
        futures[1].result(30)
    assert batcher.alive
    batcher.close()


def test_a_request_cancelled_in_the_queue_is_not_processed() -> None:
    model = EchoModel()
    batcher = make_batcher(model)
    block(model, batcher)
    futures = [batcher.submit(1, [[name]]) for name in "ab"]
    assert futures[0].cancel()
    model.unblocked.set()
    assert futures[1].result(30) == [(1, "b")]
    assert model.batches[1:] == [(1, ["b"])]
    batcher.close()


def test_closing_finishes_the_queue_and_accepts_no_more() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_wait_s=60.0)
    futures = [batcher.submit(1, [[name]]) for name in "ab"]
    batcher.close()
    assert [future.result(0) for future in futures] == [[(1, "a")], [(1, "b")]]
    assert not batcher.alive
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1, [["c"]])


def test_no_request_of_many_threads_is_lost() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_batch=5, max_wait_s=0.0005, max_queue=10_000)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: batcher.submit(n % 3, [[str(n)], ["x"]]).result(30), range(600)))
    assert answers == [[(n % 3, str(n)), (n % 3, "x")] for n in range(600)]
    batcher.close()


def test_small_requests_come_between_the_parts_of_a_large_one() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_batch=32)
    block(model, batcher)
    large = batcher.submit(1, [[name] for name in "abcdefghijklmnop"])
    small = [batcher.submit(options, [["x"]]) for options in (2, 3)]
    model.unblocked.set()
    assert large.result(30) == [(1, name) for name in "abcdefghijklmnop"]
    assert [future.result(30) for future in small] == [[(2, "x")], [(3, "x")]]
    assert [options for options, _ in model.batches] == [0, 1, 2, 3, 1, 1, 1]
    batcher.close()


def test_small_requests_are_processed_where_a_large_one_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause is for all small ones that wait; what fails in it, and how long it takes, is not the large one's."""
    monkeypatch.setattr("rqrec.serving.batcher.SMALL_FIRST", 1e9)
    steps: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def process(options: int, histories: Sequence[str]) -> list[str]:
        steps.append(f"{''.join(histories)} begins")
        begun.set()
        assert go_on.wait(30)
        pause()
        steps.append(f"{''.join(histories)} ends")
        if "bad" in histories:
            raise ValueError("bad")
        return list(histories)

    batcher = Batcher(process, max_batch=16, max_wait_s=0.0, max_queue=100)
    large = batcher.submit(1, list("abcd"))
    assert begun.wait(30)
    good, bad, other = (batcher.submit(options, [text]) for options, text in ((2, "x"), (2, "bad"), (3, "y")))
    go_on.set()
    assert large.result(30) == list("abcd")
    assert good.result(30) == ["x"]
    assert other.result(30) == ["y"]
    with pytest.raises(ValueError, match="bad"):
        bad.result(30)
    assert steps[:3] == ["ab begins", "xbad begins", "xbad ends"]
    assert steps[3:7] == ["x begins", "x ends", "bad begins", "bad ends"]  # each by itself, since one failed
    assert steps[7:] == ["y begins", "y ends", "ab ends", "cd begins", "cd ends"]
    batcher.close()


def test_work_that_nobody_waits_for_stops_where_it_pauses() -> None:
    """A batch goes on as long as somebody waits for one of its requests."""
    ended: list[str] = []
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def process(options: int, histories: Sequence[str]) -> list[str]:
        begun.release()
        assert go_on.acquire(timeout=30)
        pause()
        ended.append("".join(histories))
        return list(histories)

    batcher = Batcher(process, max_batch=16, max_wait_s=0.0, max_queue=100)
    large = batcher.submit(1, list("abcd"))
    assert begun.acquire(timeout=30)
    first, second = batcher.submit(2, ["x"]), batcher.submit(2, ["y"])
    assert large.cancel()
    go_on.release()
    assert begun.acquire(timeout=30)
    assert first.cancel()
    go_on.release()
    assert second.result(30) == ["y"]
    batcher.close()
    assert ended == ["xy"]


def test_small_requests_do_not_hold_up_a_large_one_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it pauses, and however many small ones wait, a large one has a sixteenth of the time."""
    now, seconds = float(int(time.monotonic()) + 60), {"large": 0.0, "small": 0.0}  # without rounding
    monkeypatch.setattr("rqrec.serving.batcher.time", SimpleNamespace(monotonic=lambda: now))
    ready = threading.Event()

    def work(kind: str, duration: float) -> None:
        nonlocal now
        now += duration
        seconds[kind] += duration

    def process(options: int, histories: Sequence[str]) -> list[str]:
        assert ready.wait(30)
        if len(histories) == 1:
            work("small", 1.0)
            batcher.submit(options + 1, ["x"])  # there is always another one
            return list(histories)
        for _ in range(80):
            work("large", 0.125)
            pause()
            assert seconds["small"] <= SMALL_FIRST * seconds["large"] + 4  # one more at each end of two parts
        return list(histories)

    batcher = Batcher(process, max_batch=16, max_wait_s=0.0, max_queue=100)
    large = batcher.submit(0, list("abcd"))
    batcher.submit(1, ["x"])
    ready.set()
    try:
        assert large.result(30) == list("abcd")
    finally:
        batcher.close(0.0)  # or small ones would go on for ever
    assert seconds["small"] >= SMALL_FIRST * seconds["large"] - 4


def test_costly_requests_have_shorter_batches() -> None:
    model = EchoModel()
    batcher = Batcher(
        model.process, max_batch=64, max_wait_s=0.0, max_queue=100, cost=lambda options: options
    )
    for options, lengths in ((1, [8, 1]), (4, [2, 2, 2, 2, 1]), (1000, [1] * 9)):
        model.batches.clear()
        batcher.submit(options, [[name] for name in "abcdefghi"]).result(30)
        assert [len(histories) for _, histories in model.batches] == lengths
    batcher.close()


def test_a_large_request_stops_when_nobody_waits_for_it() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_batch=32)
    model.unblocked.clear()
    large = batcher.submit(1, [[name] for name in "abcdefghijklmnop"])
    while not model.batches:
        time.sleep(0.001)
    assert large.cancel()
    assert batcher.queue_length == 0
    model.unblocked.set()
    assert batcher.submit(2, [["x"]]).result(30) == [(2, "x")]
    assert model.batches == [(1, list("abcd")), (2, ["x"])]
    batcher.close()


def test_large_requests_leave_half_of_the_queue_to_small_ones() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_queue=20)
    block(model, batcher)
    futures = [batcher.submit(1, [["a"]] * 5), batcher.submit(1, [["b"]] * 5)]
    with pytest.raises(QueueFullError):
        batcher.submit(1, [["c"]] * 5)
    futures += [batcher.submit(1, [["d"]]) for _ in range(10)]
    with pytest.raises(QueueFullError):
        batcher.submit(1, [["e"]])
    model.unblocked.set()
    assert [future.result(30)[0] for future in futures] == [(1, "a"), (1, "b"), *[(1, "d")] * 10]
    batcher.close()


def test_large_requests_go_on_while_small_ones_keep_coming() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_batch=32)
    block(model, batcher)
    large = batcher.submit(1, [["a"]] * 16)
    model.unblocked.set()
    small = 0
    while not large.done() and small < 100_000:
        batcher.submit(2, [["x"]]).result(30)
        small += 1
    assert large.result(30) == [(1, "a")] * 16
    batcher.close()


def test_closing_with_a_limit_gives_up_what_is_left() -> None:
    model = EchoModel()
    batcher = make_batcher(model)
    block(model, batcher)
    waiting = batcher.submit(1, [["a"]])
    batcher.close(0.01)
    assert waiting.cancelled()
    model.unblocked.set()
    batcher.close()
    assert len(model.batches) == 1


def test_it_is_busy_while_large_requests_would_hardly_fit() -> None:
    model = EchoModel()
    batcher = make_batcher(model, max_queue=20)
    block(model, batcher)
    assert batcher.busy() is None
    batcher.submit(1, [["a"]] * 5)
    assert batcher.busy() is None
    future = batcher.submit(1, [["b"]])
    seconds = batcher.busy()
    assert seconds is not None
    assert seconds > 0
    model.unblocked.set()
    future.result(30)
    assert batcher.busy() is None
    batcher.close()
