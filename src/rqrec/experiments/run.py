"""The folder of an experiment: the artefacts of its stages, and how long each took."""

import time
from collections.abc import Callable
from pathlib import Path

from rqrec.core.artifact import MANIFEST, DifferentArtifactError, read_json, read_manifest, write_json

SECONDS_FILE = "seconds.json"


class Run:
    """Runs stages in one folder; `seconds` is how long each stage took when its artefact was made."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        path = self.folder / SECONDS_FILE
        self.seconds: dict[str, float] = read_json(path) if path.is_file() else {}

    def stage(self, name: str, make: Callable[[Path], Path]) -> Path:
        """Run a stage, which writes its artefact to the folder `name` or reuses it; returns that folder.

        Raises ValueError if the folder holds an artefact that was made differently: an experiment replaces nothing.
        """
        folder = self.folder / name
        before, start = _hash(folder), time.monotonic()
        try:
            make(folder)
        except DifferentArtifactError as error:
            raise ValueError(
                f"{error.finding} Choose another output folder, repeat the same command, or remove {folder}."
            ) from error
        if name not in self.seconds or before != _hash(folder):
            self._record(name, time.monotonic() - start)
        return folder

    def timed(self, name: str, work: Callable[[], None]) -> None:
        """Do some work that resumes where it was interrupted, and add its seconds to those of `name`."""
        start = time.monotonic()
        try:
            work()
        finally:
            self._record(name, self.seconds.get(name, 0.0) + time.monotonic() - start)

    def _record(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(seconds, 1)
        write_json(self.folder / SECONDS_FILE, self.seconds)


def _hash(folder: Path) -> str | None:
    return read_manifest(folder).hash if (folder / MANIFEST).is_file() else None
