"""Shared fixtures."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads; see rqrec.cli

import pytest

from rqrec.core import progress

# A shell starts jobs in the background with Ctrl-C ignored, and so would all commands be that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no part of a test's name: those of a gzip file hold the time, and all processes need one name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def logs_of_a_service_end() -> Iterator[None]:
    """A service sends logs and lines of progress to the standard error that it finds, which a test ends with."""
    loggers = [logging.getLogger(name) for name in ("rqrec", "uvicorn")]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    yield
    for one, (found, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = found, propagate
        one.setLevel(level)
    progress.write_lines_by()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data: RQREC_TEST_DATA, or `shared/data` next to the repository."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("RQREC_TEST_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"The data for tests is not at {folder}; set RQREC_TEST_DATA to its folder.")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the dataset of `tests/tiny.py`, trained once per session; do not modify it."""
    from tests.tiny import train_tiny

    run = tmp_path_factory.mktemp("tiny") / "run"
    train_tiny(run)
    return run


@pytest.fixture(scope="session")
def tiny_joined(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with `tiny_run`'s model joined with three other experts (see `join_tiny`); do not modify it."""
    from tests.tiny import join_tiny

    run = tmp_path_factory.mktemp("joined") / "run"
    join_tiny(run, tiny_run)
    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("This user may not mount a small file system.")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
