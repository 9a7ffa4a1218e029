"""Replacing a folder by another one, or removing it, safely against crashes and against those who read it meanwhile.

A new folder `a` is written as `.a.N.rqrec-partial`. Once it is whole and flushed to disk, it is renamed to
`.a.rqrec-new`, an old `a` to `.a.rqrec-old`, and `.a.rqrec-new` to `a`. At every moment the old or the new one, or
both, have one of these names, and `heal` completes a replacement that was interrupted after the new folder was whole.
The renames happen under a lock of the parent folder, which the system releases if its holder dies, so nobody mistakes
a running replacement for an interrupted one.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rqrec.core.real_path import real_path

T = TypeVar("T")

TRIES = 100  # replacements during one read, before it gives up
NEW, OLD, PARTIAL = "rqrec-new", "rqrec-old", "rqrec-partial"
LEFTOVER = re.compile(rf"\.(.+)\.({NEW}|{OLD}|\d+\.{PARTIAL})")
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; when the block ends, it takes the place of `folder`.

    If the block raises, `folder` stays as it was. Raises OSError if the disk is full or the place is not writable.
    """
    folder = real_path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent):
        _heal(folder)
        temporary = _unused(folder)
        temporary.mkdir()
        in_use = _lock(temporary)  # tells `heal` that its writer lives
    try:
        yield temporary
        for path in sorted(temporary.rglob("*"), reverse=True):
            sync(path)
        sync(temporary)
        with locked(folder.parent):
            _heal(folder)
            temporary.rename(_beside(folder, NEW))
            _heal(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(in_use)


def heal(folder: Path) -> None:
    """Complete a replacement of `folder` that was interrupted, and remove what it left; do nothing otherwise.

    Waits for a replacement that is going on. Where nothing can be written, nothing is done.
    """
    folder = real_path(folder)
    try:
        if any(found[1] == folder.name for found in _leftovers(folder.parent)):
            with locked(folder.parent):
                _heal(folder)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


def heal_inside(parent: Path) -> None:
    """`heal` every folder directly inside `parent`; one that cannot be is of no concern to those beside it."""
    for name in sorted({found[1] for found in _leftovers(parent)}):
        with suppress(OSError):
            heal(parent / name)


def remove(folder: Path) -> None:
    """Remove a folder, if there is one: at every moment all of it has this name, or none of it."""
    folder = real_path(folder)
    if not folder.parent.is_dir():
        return
    with locked(folder.parent):
        _heal(folder)
        if not folder.is_dir():
            return
        temporary = _unused(folder)
        folder.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)  # what is left of it if that is interrupted, `heal` removes


def undisturbed(parent: Path, look: Callable[[], T]) -> T:
    """The result of `look()` while no folder directly inside `parent` is replaced: for a moment it has no name."""
    heal_inside(parent)
    with ExitStack() as stack:
        with suppress(OSError):  # there is no such folder, or this user may not look into it
            stack.enter_context(locked(parent))
        return look()


def read_whole(folder: Path, read: Callable[[Path], T], mark: str) -> T:
    """The result of `read(folder)`, again if the folder is replaced meanwhile: it is wholly of one version.

    `mark` is a file that every version has; another file under this name tells that the folder was replaced.
    """
    for _ in range(TRIES):
        heal(folder)
        before = _version(folder / mark)
        try:
            result = read(folder)
        except (OSError, ValueError, KeyError):
            heal(folder)  # waits until the folder is there again
            if _version(folder / mark) == before:
                raise
            continue
        if _version(folder / mark) == before:
            return result
    raise OSError(errno.EBUSY, f"replaced {TRIES} times while it was read", str(folder))


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _heal(folder: Path) -> None:
    """`heal` under the lock of the parent folder."""
    new, old = _beside(folder, NEW), _beside(folder, OLD)
    if new.is_dir():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # of a replacement that was complete
            folder.rename(old)
        new.rename(folder)
        sync(folder.parent)
    elif old.is_dir() and not folder.exists():
        old.rename(folder)
        sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    for found in _leftovers(folder.parent):
        if found[1] == folder.name and found[2].endswith(PARTIAL):
            _remove_abandoned(folder.parent / found[0])


def _remove_abandoned(temporary: Path) -> None:
    """Remove a partly written folder unless its writer lives."""
    try:
        descriptor = _lock(temporary, fcntl.LOCK_NB)
    except OSError:
        return
    shutil.rmtree(temporary, ignore_errors=True)
    os.close(descriptor)


def _leftovers(parent: Path) -> list[re.Match[str]]:
    """The names in `parent` that a replacement gives: the groups are the folder's name and the ending."""
    try:
        names = os.listdir(parent)
    except OSError:
        return []
    return [found for name in names if name.startswith(".") and (found := LEFTOVER.fullmatch(name))]


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")


def _unused(folder: Path) -> Path:
    """A name for a partly written folder, which a living writer in this or another process does not use."""
    number = os.getpid()
    while (path := _beside(folder, f"{number}.{PARTIAL}")).exists():
        number += 1
    return path


def _version(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def locked(parent: Path) -> Iterator[None]:
    """Change what is inside `parent`, one process at a time."""
    found = LEFTOVER.fullmatch(parent.name)
    if found and found[2].endswith(PARTIAL):
        yield  # a folder within one that is being written, whose writer holds the lock
        return
    descriptor = _lock(parent)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, flags: int = 0) -> int:
    """Lock a folder until the returned descriptor is closed, or its process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except OSError as error:
        if flags or error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            os.close(descriptor)
            raise  # a file system without locks has one writer at a time
    return descriptor
