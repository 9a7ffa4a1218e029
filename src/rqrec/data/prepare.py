"""From raw files to a prepared dataset: one entry for every source."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rqrec.artifact import MANIFEST, file_hash, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.sources import movielens

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The choices that make a dataset. Two runs with equal settings and raw files make the same one.

    `source` is "movielens"; `variant` names one of its sets ("100k", "1m", "32m", "latest-small").
    """

    source: str
    variant: str

    @property
    def template(self) -> str:
        """How an item's text is put together from its fields."""
        return movielens.TEMPLATE

    def to_manifest(self) -> dict[str, Any]:
        """The settings as the artefact keeps them."""
        return {**asdict(self), "template": self.template}


def load(settings: Settings, raw_folder: Path) -> Dataset:
    """Read the raw files of a source, which are downloaded into `raw_folder` unless they are there.

    Raises ConnectionError (it says what to put where) or ValueError (it says what is wrong in which file).
    """
    if settings.source != "movielens":
        raise ValueError(f"There is no source {settings.source!r}; allowed is movielens.")
    return Dataset.from_interactions(*movielens.load_movielens(settings.variant, raw_folder))


def raw_files(settings: Settings, raw_folder: Path) -> Sequence[Path]:
    """The raw files that are there already; empty where they would have to be downloaded."""
    return movielens.find_movielens(settings.variant, raw_folder) or ()


def prepare(settings: Settings, raw_folder: Path, folder: Path, *, force: bool = False) -> Dataset:
    """Make the artefact of kind "dataset" in `folder`, or read it if it is there and still holds.

    It holds where its settings are equal and its raw files are unchanged (or gone); `force` makes it again.
    """
    if not force and _still_holds(folder, settings, raw_folder):
        log.info("%s is up to date", folder)
        return Dataset.read(folder)
    dataset = load(settings, raw_folder)
    made_from = {"raw": hash_of_files(raw_files(settings, raw_folder))}
    dataset.write(folder, settings.to_manifest(), made_from)
    return dataset


def _still_holds(folder: Path, settings: Settings, raw_folder: Path) -> bool:
    if not (Path(folder) / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder, "dataset")
    if manifest.settings != settings.to_manifest():
        return False
    files = raw_files(settings, raw_folder)
    return not files or manifest.made_from.get("raw") == hash_of_files(files)


def hash_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of some files, whatever their names."""
    return hashlib.sha256("".join(file_hash(path) for path in files).encode()).hexdigest()
