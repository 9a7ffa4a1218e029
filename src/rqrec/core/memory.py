"""The memory of this process, and how what was freed goes back to the operating system.

The C library keeps freed memory for later. After thousands of steps, each with tensors of its own sizes, the
heap is full of gaps that no later tensor fits into, and grows with every new size: without `FreeMemory` it grew to
five times what a step needs.
"""

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
# The limit of a container's memory, in the two versions of Linux's control groups.
CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
SLACK = 128  # MB that a process may hold beyond what it held after the last release


def resident_mb(name: str = "VmRSS") -> float:
    """Resident memory of this process in MB (2^20 bytes), or with "VmHWM" its peak; 0 if the system does not say."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def memory_of_machine() -> int:
    """The memory of this machine, or of the container that this process runs in, in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in CONTAINER:
        with suppress(OSError, ValueError):  # there is none, or it is "max"
            memory = min(memory, int(limit.read_text()))
    return memory


def release() -> None:
    """Give freed memory back to the operating system. Does nothing where the C library has no such call."""
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


@dataclass
class FreeMemory:
    """Releases freed memory of a loop now and then: as soon as the process has grown by `SLACK`.

    A release costs about as much as touching that much memory once, which is why it is not done at every step.
    """

    held: float = field(init=False)
    """MB held after the last release."""

    def __post_init__(self) -> None:
        self._release()  # what earlier work of this process left must not count as held

    def limit(self) -> None:
        """Release what was freed, if the process has grown by more than `SLACK`."""
        if resident_mb() > self.held + SLACK:
            self._release()

    def _release(self) -> None:
        release()
        self.held = resident_mb()
