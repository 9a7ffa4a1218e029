"""A signal right before a command's n-th change of the files of a folder.

`tests.faults.every_change` stops commands before each of them.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = (
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def at_changes(folder: Path, act: Callable[[], object]) -> None:
    """Call `act` in this process before every change that Python makes inside `folder`, from now on.

    Libraries that open files themselves, such as polars, are not seen.
    """

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        # What removes a tree names its files from within an open folder, and so does not say where that is.
        within = event in ("os.remove", "os.rmdir") and arguments[1] != -1
        if (opened or event in CHANGES) and (within or str(folder) in str(arguments)):
            act()

    sys.addaudithook(hook)


def count_changes(folder: Path, tally: Path) -> None:
    """Add one byte to `tally` at each change inside `folder`."""
    descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    at_changes(folder, lambda: os.write(descriptor, b"."))


def signal_at_change(folder: Path, change: int, number: signal.Signals) -> None:
    """Send this process a signal before change `change`, counted from 0, inside `folder`."""
    left = change

    def act() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), number)
        left -= 1

    at_changes(folder, act)
