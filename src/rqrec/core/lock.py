"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def only_one(folder: Path, what: str, advice: str) -> Iterator[None]:
    """Keep other processes that do `what` out of a folder; the system ends the lock with the process.

    Raises ValueError, with `advice`, if there is one already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, blocking=False):
            yield
    except Timeout as error:
        raise ValueError(
            f"Another {what} is running in {folder}: wait until it ends, stop it, or {advice}."
        ) from error
