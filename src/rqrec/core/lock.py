"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_one(folder: Path, what: str, advice: str) -> Iterator[None]:
    """Keep other processes that do `what` out of a folder; the system ends the lock with the process.

    Raises ValueError, with `advice`, if there is one already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f".{what}.lock", blocking=False):
            yield
    except Timeout as error:
        raise ValueError(
            f"Another {what} is running in {folder}: wait until it ends, stop it, or {advice}."
        ) from error


def names_of_others(folder: Path, mark: str) -> list[str]:
    """The names in a folder that a run may not use: it holds files, but not `mark`, which a run writes first.

    The same command may be at work in the folder, and about to write `mark`.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if any(name.removeprefix(".").startswith(mark) for name in names):
        return []
    return [name for name in names if not is_lock(name)]


def is_lock(name: str) -> bool:
    """Whether a file of this name is one that `only_one` leaves behind."""
    return name.startswith(".") and name.endswith(".lock")
