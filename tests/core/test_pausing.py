"""Pauses belong to a block of code in one thread."""

from contextlib import suppress
from threading import Thread

from rqrec.core.pausing import pause, pausing


def test_the_innermost_block_says_what_a_pause_is() -> None:
    pauses: list[str] = []
    pause()
    with pausing(lambda: pauses.append("outer")):
        pause()
        with suppress(ValueError), pausing(lambda: pauses.append("inner")):
            pause()
            raise ValueError
        thread = Thread(target=pause)
        thread.start()
        thread.join()
        pause()
    pause()
    assert pauses == ["outer", "inner", "outer"]
