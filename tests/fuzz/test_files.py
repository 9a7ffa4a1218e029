"""Damaged and hostile files of every kind: they are read, or refused in a sentence; never a traceback or a hang.

A short run is part of the fast tests. The slow one takes hours with the 100,000 cases that it does by default:

    RQREC_FUZZ_EXAMPLES=1000 python -m pytest -m slow tests/fuzz
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rqrec.core.memory import resident_mb
from tests.fuzz.kinds import KINDS, Runs, forge_hashes
from tests.fuzz.mutations import mutated

SECONDS = 10  # of work: other jobs may have the processor meanwhile
WAITING = 60  # seconds without work
MEGABYTES = 2048
EXAMPLES = int(os.environ.get("RQREC_FUZZ_EXAMPLES", "100000"))
SHORT = 1000  # A run of fewer examples, as in CI, tries the same ones each time; longer ones search.


class Hang(BaseException):
    """Reading took longer than a user would wait."""


@contextmanager
def time_limit() -> Iterator[None]:
    begun, worked = time.monotonic(), time.process_time()

    def hangs(number: int, frame: FrameType | None) -> None:
        if time.process_time() - worked > SECONDS or time.monotonic() - begun > WAITING:
            raise Hang

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def runs(tiny_run: Path, tiny_joined: Path) -> Runs:
    return Runs(tiny_run, tiny_joined)


def fuzz(kind: str, runs: Runs, folder: Path, examples: int) -> None:
    """Damage a file of a valid folder, again and again."""
    write, read = KINDS[kind].write, KINDS[kind].read
    valid, work = folder / "valid", folder / "work"
    write(runs, valid)
    files = [path.relative_to(valid) for path in sorted(valid.rglob("*")) if path.is_file()]
    shutil.copytree(valid, work)
    read(work)
    limit = max(MEGABYTES, resident_mb() + MEGABYTES / 2)

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=examples < SHORT,
    )
    @given(st.data())
    def refuses_or_reads(data: st.DataObject) -> None:
        shutil.rmtree(work)
        shutil.copytree(valid, work)
        file = data.draw(st.sampled_from(files))
        (work / file).write_bytes(mutated(data.draw, valid / file))
        if data.draw(st.integers(0, 3)):
            forge_hashes(work)
        with time_limit(), suppress(ValueError, OSError):
            read(work)
        assert resident_mb() < limit

    refuses_or_reads()


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_damaged_files_are_refused(kind: str, runs: Runs, tmp_path: Path) -> None:
    fuzz(kind, runs, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(kind: str, runs: Runs, tmp_path: Path) -> None:
    fuzz(kind, runs, tmp_path, EXAMPLES)
