"""A run of stages in one folder: each makes an artefact once, and finds it again after that."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rqrec.core.artifact import MANIFEST, is_current, read_json, read_manifest, write_json
from rqrec.core.progress import log

SECONDS_FILE = "seconds.json"


class Stages:
    """The folder `output` of a run; `seconds` is what each of its stages took, whenever it was made."""

    def __init__(self, output: Path) -> None:
        self.output = Path(output)
        path = self.output / SECONDS_FILE
        self.seconds: dict[str, float] = read_json(path) if path.is_file() else {}

    def make(
        self,
        name: str,
        kind: str,
        settings: Mapping[str, Any],
        stages: tuple[str, ...] | None,
        make: Callable[[Path], Any],
    ) -> Path:
        """The folder `name` with an artefact of `kind`: as it is, where these settings and inputs made it.

        `stages` are the names of earlier stages (None: raw files, which the artefact itself looks after).
        """
        folder = self.output / name
        inputs = None if stages is None else self.hashes(*stages)
        if is_current(folder, kind, settings, inputs):
            log(f"{name}: found in {folder}.")
            return folder
        self._timed(name, make)
        return folder

    def update(self, name: str, make: Callable[[Path], Any]) -> Path:
        """The folder `name` of a stage that knows by itself whether its artefact is up to date."""
        before = self._hash(name)
        known = dict(self.seconds)
        self._timed(name, make)
        if before == self._hash(name) and name in known:
            self.seconds = known
            write_json(self.output / SECONDS_FILE, self.seconds)
        return self.output / name

    def _timed(self, name: str, make: Callable[[Path], Any]) -> None:
        start = time.monotonic()
        make(self.output / name)
        self.seconds[name] = round(time.monotonic() - start, 1)
        write_json(self.output / SECONDS_FILE, self.seconds)

    def _hash(self, name: str) -> str | None:
        there = (self.output / name / MANIFEST).is_file()
        return read_manifest(self.output / name).hash if there else None

    def hashes(self, *names: str) -> dict[str, str]:
        """The hash of each stage's artefact by its kind, as a `inputs` keeps them."""
        manifests = [read_manifest(self.output / name) for name in names]
        return {manifest.artifact_type: manifest.hash for manifest in manifests}
