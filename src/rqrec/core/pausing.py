"""Long computations that let short ones come between their steps.

A computation calls `pause` between steps of a few milliseconds. What happens then is up to whoever runs it, and makes
no difference to its result; by default it is nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PAUSE: ContextVar[Callable[[], None]] = ContextVar("pause", default=lambda: None)


def pause() -> None:
    """Call what `pausing` was given, if anything."""
    _PAUSE.get()()


@contextmanager
def pausing(what: Callable[[], None]) -> Iterator[None]:
    """Have `what` called by `pause` in this thread, until the end of the block."""
    token = _PAUSE.set(what)
    try:
        yield
    finally:
        _PAUSE.reset(token)
