"""The folder of an experiment: the artefacts of its stages, and how long each took."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rqrec.core.artifact import MANIFEST, DifferentArtifactError, read_json, read_manifest, write_json
from rqrec.core.lock import is_lock, names_of_others, only_one

SECONDS_FILE = "seconds.json"
SHOWN = 3  # maximum number of names in a message


class Run:
    """Runs stages in a folder of its own; `seconds` is how long each stage took when its artefact was made.

    Raises FileExistsError if the folder holds anything and no experiment made it: nothing in it is touched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._path = self.folder / SECONDS_FILE  # also the sign that the folder is an experiment's
        if not self._path.is_file():
            _check_free(self.folder)
        self.seconds: dict[str, float] = read_numbers(self._path) or {}

    def stage(self, name: str, make: Callable[[Path], Path]) -> Path:
        """Run a stage, which writes its artefact to the folder `name` or reuses it; returns that folder.

        Raises ValueError if the folder holds an artefact that was made differently: an experiment replaces nothing.
        """
        folder = self.folder / name
        if not self._path.is_file():
            write_json(self._path, self.seconds)
        before, start = _hash(folder), time.monotonic()
        with self.replaces_nothing():
            make(folder)
        if name not in self.seconds or before != _hash(folder):
            self._record(name, time.monotonic() - start)
        return folder

    @contextmanager
    def replaces_nothing(self) -> Iterator[None]:
        """Say what to do, in words of an experiment, if a stage in the block finds what was made differently."""
        try:
            yield
        except DifferentArtifactError as error:
            raise ValueError(
                f"{error.finding} Repeat the same command, choose another folder with --out, or remove {self.folder} "
                f"to begin again."
            ) from error

    def timed(self, name: str, work: Callable[[], None]) -> None:
        """Do some work that resumes where it was interrupted, and add its seconds to those of `name`."""
        start = time.monotonic()
        try:
            work()
        finally:
            self._record(name, self.seconds.get(name, 0.0) + time.monotonic() - start)

    def _record(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(seconds, 1)
        write_json(self._path, self.seconds)


@contextmanager
def only_run(folder: Path) -> Iterator[Run]:
    """The run in a folder, in which no other command works meanwhile: its trainings would have other time limits.

    Raises ValueError if one does, and what `Run` raises.
    """
    folder = Run(folder).folder  # first: nothing is written into a folder of others
    is_new = not folder.exists()
    with only_one(folder, "command", "choose another folder with --out"):
        try:
            yield Run(folder)
        finally:
            if is_new and all(is_lock(path.name) for path in folder.iterdir()):  # nothing was made
                shutil.rmtree(folder)


def read_numbers(path: Path) -> dict[str, float] | None:
    """The numbers by name that an experiment noted in a file; None if there is no such file.

    Raises ValueError, naming the file, if it is damaged.
    """
    if not path.is_file():
        return None
    values = read_json(path)
    if not isinstance(values, dict) or not all(type(value) in (int, float) for value in values.values()):
        raise ValueError(f"{path} must hold numbers by name. Remove {path.parent} to begin again.")
    return values


def _check_free(folder: Path) -> None:
    """Raise FileExistsError unless there is no such file or folder, an empty folder, or one of an experiment."""
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, but what is made needs a folder: choose one with --out.")
    if names := names_of_others(folder, SECONDS_FILE):
        more = ", ..." if len(names) > SHOWN else ""
        raise FileExistsError(
            f"{folder} already holds {', '.join(names[:SHOWN])}{more}, and what is made needs a folder of its own, "
            f"so that nothing of yours is replaced: choose a new or empty one with --out."
        )


def _hash(folder: Path) -> str | None:
    return read_manifest(folder).hash if (folder / MANIFEST).is_file() else None
