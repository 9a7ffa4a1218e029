"""How a command ends: with a sentence on an error that can be expected, and when it is stopped from outside."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from rqrec.core.address_space import check_address_space
from rqrec.core.errors import WRITE_ERRORS

# What torch, its kernels and the loader of libraries say when there is no memory.
NO_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "could not create a primitive",
    "failed to map segment",
    "can't start new thread",
)
WHAT_TO_DO = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "`ls -ld` shows who may read it and write into it."),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room there, or choose another place."),
    errno.ELOOP: "Links lead in a circle: remove them, or choose another place.",
    errno.EROFS: "Choose another place.",
    errno.EFBIG: "Raise the limit (`ulimit -f`), or choose another place.",
}
QUERIES = ("collect", "sink")  # how functions of polars begin that compute, and ask for signals meanwhile
STOPPED_AGAIN = 0.1  # seconds after an interrupt that was lost or came at a bad moment


def handle_errors(run: Callable[[dict[str, Any]], None], given: dict[str, Any]) -> None:
    """Print an expected error as one sentence and exit with status 1; other exceptions keep their traceback."""
    with _terminable() as stop, _threads_report():
        try:
            stop.begin()
            check_address_space()
            run(given)
            stop.end()
        except BaseException as error:
            stop.end()
            _exit_by_status()
            if not stop.caused(error):
                _report(error)
                raise
            print(
                f"rqrec: {stop.word}. Run the same command again to resume from what was saved.",
                file=sys.stderr,
            )
            raise typer.Exit(stop.status) from error


@contextmanager
def standard_output() -> Iterator[None]:
    """Write to standard output in the block. An OSError names it, unless its reader has gone."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename:
            raise
        raise OSError(error.errno, error.strerror, "standard output") from error


def run_or_exit(run: Callable[[], None]) -> None:
    """Run the command line; exit with status 1 and a sentence on what fails outside its commands, such as help."""
    _open_standard_streams()
    try:
        _check_working_directory()
        with standard_output():
            run()
    except OSError as error:
        _say(_message(error) or str(error))
        sys.exit(1)


def _open_standard_streams() -> None:
    """Give a closed standard stream, as after `>&-`, the null device: the next opened file would take its place.

    Nothing reads what is written there, so the command fails before it begins if it is standard output.
    """
    closed = [stream for stream in range(3) if not _is_open(stream)]
    for stream in closed:
        os.open(os.devnull, os.O_RDONLY if stream == 0 else os.O_WRONLY)
    if 2 in closed:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if 1 in closed:
        _say("Standard output is closed: send it to a file or to /dev/null.")
        sys.exit(1)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _exit_by_status() -> None:
    """Keep `python -m` from killing itself with SIGINT in place of exiting with a status.

    It does so if a KeyboardInterrupt has passed through an exec() of text, such as that of a dataclass, even if it
    was caught, unless another exec() of text came later.
    """
    exec("")


def _report(error: BaseException) -> None:
    """Exit with one sentence on an expected error; typer ends quietly if nobody reads on, as with `| head`."""
    if (
        isinstance(error, Exception)
        and not isinstance(error, BrokenPipeError)
        and (message := _message(error)) is not None
    ):
        _say(message)
        raise typer.Exit(1) from error


def _say(message: str) -> None:
    """Write a sentence about what went wrong to standard error; names of files in it may hold any characters."""
    from rqrec.core.progress import printable

    print(f"rqrec: {printable(message)}", file=sys.stderr)


@contextmanager
def _threads_report() -> Iterator[None]:
    """A thread of a library that cannot write ends with a sentence, too; what it lost fails in the command itself."""
    before = threading.excepthook

    def report(failed: Any) -> None:
        error = failed.exc_value
        if _cannot_write(error):
            _say(_message(error) or str(error))
        else:
            before(failed)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


@dataclass
class _Stop:
    """The first signal that stopped a command from outside, if one came."""

    number: int | None = None
    running: bool = False  # whether an interrupt would be reported: else a signal is only noted
    raised: bool = False
    again: threading.Timer | None = None

    def begin(self) -> None:
        self.running = True
        if self.number is not None:
            raise KeyboardInterrupt

    def underway(self) -> bool:
        """Whether the first interrupt is being handled already, as polars raises one of its own; asked once."""
        first, self.raised = not self.raised, True
        return first and isinstance(sys.exception(), KeyboardInterrupt)

    def repeat(self) -> None:
        """Send the signal once more, a moment later."""
        self.again = threading.Timer(STOPPED_AGAIN, os.kill, (os.getpid(), self.number or signal.SIGINT))
        self.again.daemon = True
        self.again.start()

    def end(self) -> None:
        self.running = False
        if self.again:
            self.again.cancel()

    @property
    def word(self) -> str:
        return "terminated" if self.number == signal.SIGTERM else "interrupted"

    @property
    def status(self) -> int:
        return 128 + (self.number or signal.SIGINT)

    def caused(self, error: BaseException) -> bool:
        """Whether this is the interrupt, or what a library made of it.

        polars raises a PanicException that has its text; a compiled module that is interrupted while it is imported
        raises an ImportError without it; and what reads a file may take either for damage. So after a signal, only
        what could not be written or found no memory is told as an error of its own.
        """
        if "KeyboardInterrupt" in f"{type(error).__name__} {error}":
            return True
        own = isinstance(error, typer.Exit | MemoryError) or not isinstance(error, Exception)
        return self.number is not None and not own and not _cannot_write(error)


@contextmanager
def _terminable() -> Iterator[_Stop]:
    """SIGTERM, which a system sends before it shuts down, stops a command like Ctrl-C: training saves its state."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.number = stop.number or number
        if _called_by_polars(frame):
            stop.repeat()
        elif stop.running and not stop.underway():
            raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        stop.number = stop.number or number
        # A shell starts background jobs with SIGINT ignored, unless what runs (a training) has a handler of its own.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            interrupt(number, frame)
        else:
            signal.raise_signal(signal.SIGINT)

    def stop_again(lost: Any) -> None:
        """Python drops what is raised in a finaliser or a weak reference's callback: an interrupt comes again.

        What finalisers say of a command that was stopped, such as that their file is closed, is of no use.
        """
        if lost.exc_type is KeyboardInterrupt:
            stop.repeat()
        elif stop.number is None:
            report(lost)

    handlers = {signal.SIGTERM: terminate}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        handlers[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    report, sys.unraisablehook = sys.unraisablehook, stop_again
    try:
        yield stop
    finally:
        if stop.number is None:
            sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _called_by_polars(frame: FrameType | None) -> bool:
    """Whether this is, or may be, a function of Python that the compiled part of polars calls.

    An exception there, even in an import of NumPy or in a short function of polars itself, can become a panic of
    Rust, which prints its backtrace. In a query it ends what polars computes, however long that would take.
    """
    modules = []
    while frame and frame.f_globals is globals():  # `terminate`, which passes the signal on
        frame = frame.f_back
    in_query = frame is not None and frame.f_code.co_name.strip("_").startswith(QUERIES)
    while frame:
        modules.append(str(frame.f_globals.get("__name__")).partition(".")[0])
        frame = frame.f_back
    return "polars" in modules and not (in_query and modules[0] == "polars")


def _check_working_directory() -> None:
    """Raise FileNotFoundError if the current folder was deleted: libraries fail without saying so."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "The current folder does not exist any more: go to another one with cd, and run the command again."
        ) from error


def _cannot_write(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in WRITE_ERRORS


def _message(error: Exception) -> str | None:
    """The sentence for an expected error; None for any other."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open. Raise the limit (`ulimit -n`), or use fewer processes."
    if isinstance(error, OSError) and error.strerror and error.filename:
        said = [f"{error.filename}: {error.strerror}."]
        if _cannot_write(error):
            said.append("Everything saved earlier is intact.")
        if error.errno in WHAT_TO_DO:
            said.append(WHAT_TO_DO[error.errno])
        return " ".join(said)
    if isinstance(error, ValueError | OSError):
        return str(error)
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        reason = (str(error).strip().splitlines() or ["the system gives no details"])[0]
        return (
            f"There is not enough memory ({reason[-200:]}). Use less data, a smaller model or smaller batches, or a "
            f"machine with more memory. Everything saved earlier is intact."
        )
    return None
