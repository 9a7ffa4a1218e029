"""Requests gathered into batches: each gets its own answer, whatever comes together."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from rqrec.serving.batcher import Batcher, QueueFullError


class Model:
    """Answers a history with its options and itself, and remembers the batches; holds still on demand."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[str]]] = []
        self.go = threading.Event()
        self.go.set()

    def answer(self, options: int, histories: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
        self.batches.append((options, ["".join(history) for history in histories]))
        assert self.go.wait(30)
        if any("bad" in history for history in histories):
            raise ValueError("bad")
        return [(options, "".join(history)) for history in histories]


def gather(
    model: Model, *, max_batch: int = 4, max_wait: float = 0.0, max_queue: int = 100
) -> Batcher[int, list[str]]:
    return Batcher(model.answer, max_batch=max_batch, max_wait=max_wait, max_queue=max_queue)


def held(model: Model, batcher: Batcher[int, list[str]]) -> None:
    """Let the model work on something while more arrives."""
    model.go.clear()
    batcher.submit(0, [["first"]])
    while not model.batches:
        time.sleep(0.001)


def test_what_arrives_while_the_model_works_is_one_batch_of_equal_options() -> None:
    model = Model()
    batcher = gather(model)
    held(model, batcher)
    futures = [
        batcher.submit(options, [[name]]) for options, name in ((1, "a"), (2, "b"), (1, "c"), (1, "d"))
    ]
    model.go.set()
    assert [future.result(30) for future in futures] == [[(1, "a")], [(2, "b")], [(1, "c")], [(1, "d")]]
    assert model.batches[1:] == [(1, ["a", "c", "d"]), (2, ["b"])]
    batcher.close()


def test_a_request_waits_for_company_but_not_once_the_batch_is_full() -> None:
    model = Model()
    batcher = gather(model, max_batch=3, max_wait=60.0)
    futures = [batcher.submit(1, [[name]]) for name in "abc"]
    assert [future.result(30) for future in futures] == [[(1, "a")], [(1, "b")], [(1, "c")]]
    assert model.batches == [(1, ["a", "b", "c"])]
    batcher.close()


def test_no_batch_is_larger_than_allowed_even_of_one_request() -> None:
    model = Model()
    batcher = gather(model)
    answers = batcher.submit(1, [[name] for name in "abcdefghi"]).result(30)
    assert answers == [(1, name) for name in "abcdefghi"]
    assert [len(histories) for _, histories in model.batches] == [4, 4, 1]
    assert batcher.submit(1, []).result(30) == []
    batcher.close()


def test_a_full_queue_refuses_and_says_for_how_long() -> None:
    model = Model()
    batcher = gather(model, max_queue=3)
    held(model, batcher)
    futures = [batcher.submit(1, [["a"], ["b"]]), batcher.submit(1, [["c"]])]
    assert batcher.waiting == 3
    with pytest.raises(QueueFullError) as told:
        batcher.submit(1, [["d"]])
    assert told.value.seconds > 0
    model.go.set()
    wait(futures, 30)
    assert batcher.submit(1, [["d"]]).result(30) == [(1, "d")]
    batcher.close()


def test_one_that_fails_does_not_fail_its_neighbours() -> None:
    model = Model()
    batcher = gather(model)
    held(model, batcher)
    futures = [batcher.submit(1, [[name]]) for name in ("a", "bad", "c")]
    model.go.set()
    assert (futures[0].result(30), futures[2].result(30)) == ([(1, "a")], [(1, "c")])
    with pytest.raises(ValueError, match="bad"):
        futures[1].result(30)
    assert batcher.alive
    batcher.close()


def test_what_is_cancelled_in_time_is_left_undone() -> None:
    model = Model()
    batcher = gather(model)
    held(model, batcher)
    futures = [batcher.submit(1, [[name]]) for name in "ab"]
    assert futures[0].cancel()
    model.go.set()
    assert futures[1].result(30) == [(1, "b")]
    assert model.batches[1:] == [(1, ["b"])]
    batcher.close()


def test_closing_finishes_what_waits_and_takes_no_more() -> None:
    model = Model()
    batcher = gather(model, max_wait=60.0)
    futures = [batcher.submit(1, [[name]]) for name in "ab"]
    batcher.close()
    assert [future.result(0) for future in futures] == [[(1, "a")], [(1, "b")]]
    assert not batcher.alive
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1, [["c"]])


def test_many_threads_lose_nothing() -> None:
    model = Model()
    batcher = gather(model, max_batch=5, max_wait=0.0005, max_queue=10_000)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: batcher.submit(n % 3, [[str(n)], ["x"]]).result(30), range(600)))
    assert answers == [[(n % 3, str(n)), (n % 3, "x")] for n in range(600)]
    batcher.close()
