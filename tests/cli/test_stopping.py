"""How a command ends that is stopped from outside, or for which the machine is too small."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import typer
from polars.exceptions import PanicException
from typer.testing import CliRunner

from rqrec.cli.command import command


@pytest.fixture(autouse=True)
def unraisable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped command leaves its own hook, as the process ends."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def run(action: Any) -> Any:
    """The result of a command that does this."""
    group = typer.Typer()

    @command("rqrec act", group=group)
    def act() -> None:
        """Act."""
        action()

    return CliRunner().invoke(group)


@pytest.fixture
def in_background() -> Iterator[None]:
    """As a shell starts a background job: SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def in_foreground() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests themselves are a background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Finalised:
    """Is stopped while Python drops it, and drops what that raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("in_background")
def test_an_interrupt_that_python_drops_comes_again() -> None:
    def action() -> None:
        Finalised()
        time.sleep(30)

    done = run(action)
    assert done.exit_code == 143
    assert "Traceback" not in done.stderr


class Closed:
    """Fails while Python drops it, as a ZipFile does whose file is closed."""

    def __del__(self) -> None:
        raise ValueError("seek of closed file")


@pytest.mark.usefixtures("in_background")
def test_what_finalisers_say_of_a_stopped_command_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    kept = []

    def action() -> None:
        kept.append(Closed())
        signal.raise_signal(signal.SIGTERM)

    done = run(action)
    kept.clear()
    assert "closed file" not in done.stderr + capfd.readouterr().err


@pytest.mark.usefixtures("in_background")
def test_a_signal_just_before_the_command_begins_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def stopped() -> Iterator[None]:
        signal.raise_signal(signal.SIGTERM)
        yield

    monkeypatch.setattr("rqrec.cli.ending._threads_report", stopped)
    began: list[int] = []
    done = run(lambda: began.append(1))
    assert (done.exit_code, "terminated" in done.stderr, began) == (143, True, [])


def test_a_thread_that_cannot_write_ends_with_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    def write() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "events")

    def action() -> None:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    done = run(action)
    assert "events: No space left on device" in done.stderr + capfd.readouterr().err
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("in_background")
def test_a_background_job_can_be_terminated() -> None:
    assert run(lambda: signal.raise_signal(signal.SIGTERM)).exit_code == 143


@pytest.mark.usefixtures("in_foreground")
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_termination_is_reported_like_an_interrupt(number: int, status: int, word: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    done = run(lambda: signal.raise_signal(number))
    assert (done.exit_code, done.stderr) == (
        status,
        f"rqrec: {word}. Run the same command again to resume from what was saved.\n",
    )
    assert signal.getsignal(signal.SIGTERM) == before


STOPPED_IN_TEXT = """
import typer
from rqrec.cli.command import command

group = typer.Typer()

@command("rqrec act", group=group)
def act() -> None:
    \"\"\"Act.\"\"\"
    exec("import signal; signal.raise_signal(signal.SIGTERM)")

group()
"""


def test_an_interrupt_in_code_made_of_text_ends_with_the_status_too(tmp_path: Path) -> None:
    """As while a dataclass is defined; Python would kill itself with SIGINT in the end."""
    (tmp_path / "stopped.py").write_text(STOPPED_IN_TEXT)
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "terminated" in done.stderr) == (143, True)


def test_an_interrupt_that_a_library_wraps_is_one() -> None:
    def panics() -> None:
        raise PanicException("PyErr { type: <class 'KeyboardInterrupt'>, value: KeyboardInterrupt() }")

    done = run(panics)
    assert (done.exit_code, "interrupted" in done.stderr) == (130, True)


@pytest.mark.usefixtures("in_background")
def test_an_interrupt_in_a_function_that_polars_calls_waits_for_its_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An exception there can become a panic, which prints the backtrace of Rust."""
    after = []

    def called(value: int) -> int:
        signal.raise_signal(signal.SIGTERM)
        after.append(value)
        return value

    def action() -> None:
        pl.Series([1]).map_elements(called, return_dtype=pl.Int64)
        time.sleep(30)

    assert run(action).exit_code == 143
    assert after == [1]
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.usefixtures("in_background")
def test_an_interrupt_in_a_function_of_polars_that_its_compiled_part_may_call_waits_for_its_end() -> None:
    """It calls some of its own functions, such as for the defaults of a scan."""
    after: list[int] = []
    polars: dict[str, Any] = {"__name__": "polars.io.scan_options.cast_options", "after": after}
    exec("import signal\ndef _default():\n    signal.raise_signal(15)\n    after.append(1)", polars)

    def action() -> None:
        polars["_default"]()
        time.sleep(30)

    assert run(action).exit_code == 143
    assert after == [1]


@pytest.mark.usefixtures("in_foreground")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_in_polars_itself_ends_what_it_does(number: int, status: int) -> None:
    """It asks for signals while it computes, which may take long."""
    after: list[int] = []
    polars: dict[str, Any] = {"__name__": "polars.lazyframe.engine", "number": number, "after": after}
    exec("import signal\ndef collect():\n    signal.raise_signal(number)\n    after.append(1)", polars)
    assert run(polars["collect"]).exit_code == status
    assert not after


@pytest.mark.usefixtures("in_foreground")
def test_an_interrupt_that_polars_has_raised_before_is_not_raised_again() -> None:
    """It sees a signal before Python does, whose turn comes when the exception is handled."""
    after = []

    def action() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            signal.raise_signal(signal.SIGINT)
            after.append(1)

    assert run(action).exit_code == 130
    assert after == [1]


def test_a_reader_that_stops_early_is_no_error() -> None:
    """As in `rqrec settings | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "rqrec", "settings"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.usefixtures("in_foreground")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("error", [ImportError("initialization failed"), ValueError("items.npz is damaged.")])
def test_an_interrupt_that_becomes_another_error_is_one(number: int, status: int, error: Exception) -> None:
    """As a compiled module makes of it that is imported, and as a reader takes it for damage."""

    def imports() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise error from None

    done = run(imports)
    assert (done.exit_code, "Traceback" in done.stderr, "damaged" in done.stderr) == (status, False, False)


@pytest.mark.usefixtures("in_foreground")
def test_what_a_stopped_command_could_not_save_is_said() -> None:
    def saves() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise OSError(errno.ENOSPC, "No space left on device", "state") from None

    done = run(saves)
    assert (done.exit_code, "state: No space left on device" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "state: Permission denied. `ls -ld` shows who may read it and write into it."),
        (
            errno.EROFS,
            "state: Read-only file system. Everything saved earlier is intact. Choose another place.",
        ),
        (errno.ENOENT, "state: No such file or directory."),
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(number: int, advice: str) -> None:
    def writes() -> None:
        raise OSError(number, os.strerror(number), "state")

    done = run(writes)
    assert (done.exit_code, done.stderr) == (1, f"rqrec: {advice}\n")


@pytest.mark.parametrize("allocate", [lambda: np.ones((10**7, 10**7)), lambda: torch.empty(10**15)])
def test_too_little_memory_is_one_sentence_with_the_size(allocate: Any) -> None:
    done = run(allocate)
    assert (done.exit_code, "Traceback" in done.stderr) == (1, False)
    assert "not enough memory" in done.stderr
    assert "728. TiB" in done.stderr or "4000000000000000 bytes" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        ImportError("libX.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
)
def test_libraries_without_memory_are_one_sentence(error: Exception) -> None:
    def fails() -> None:
        raise error

    done = run(fails)
    assert (done.exit_code, "Traceback" in done.stderr) == (1, False)
    assert f"not enough memory ({error})" in done.stderr


@pytest.mark.parametrize(("limit", "status"), [(3 << 30, 1), (4 << 30, 0), (resource.RLIM_INFINITY, 0)])
def test_too_little_address_space_is_refused_with_what_is_needed(
    limit: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda name: (limit, limit))
    done = run(lambda: None)
    assert done.exit_code == status
    assert ("3.0 GiB of address space" in done.stderr) == bool(status)
    assert ("needs at least 4 GiB" in done.stderr) == bool(status)


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    assert isinstance(run(lambda: {}["missing"]).exception, KeyError)
