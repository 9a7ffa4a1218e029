"""Versions of a served catalogue, in the folder of its model.

The files of a "retrieval" artefact stay as training wrote them. `versions/3` in its folder has all changes since then
(see `rqrec.retrieval.changes`), and `versions/current.json` says which version is served; 0 is the catalogue of the
training. A version is small, and complete before it becomes the current one, so a crash leaves the one before.
Training the model again replaces the whole folder.

Shapes: N items of the catalogue.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from rqrec.core.artifact import VERSIONS, Manifest, create, find, read_manifest, read_version, write_json
from rqrec.core.progress import log
from rqrec.core.replace import locked, remove
from rqrec.data.catalog import CATALOG_FILE
from rqrec.retrieval.artifact import RetrievalArtifact, expert_types, read_retrieval
from rqrec.retrieval.changes import (
    ARTIFACT_TYPE,
    CURRENT_FILE,
    CatalogueChanges,
    current_version,
    read_changes,
    says_how_to_leave,
)
from rqrec.retrieval.live_catalog import apply_changes
from rqrec.retrieval.new_items import CONTENT

KEPT = 10  # versions, beside that of the training: each has all items added since then

Change = Callable[[RetrievalArtifact, CatalogueChanges], CatalogueChanges]


class Version(NamedTuple):
    """A version of a catalogue."""

    number: int
    """1, 2, ...; 0 is the catalogue of the training."""
    based_on: int
    """The version that it was made from."""
    made: str
    """When, in ISO 8601, UTC; empty for version 0."""
    what: str
    """What was changed."""
    items: int
    """Number of items that may be recommended."""
    new: int
    """How many of them the model was not trained on."""


class LiveModel(NamedTuple):
    """A model with the current version of its catalogue."""

    artifact: RetrievalArtifact
    version: int


def read_live(folder: Path) -> LiveModel:
    """Read a "retrieval" artefact, or the one in a run folder, with the current version of its catalogue.

    Raises ValueError if a file was changed, or does not fit the others or this version of rqrec.
    """
    return read_version(find(folder, "retrieval"), _read_live)


def _read_live(folder: Path) -> LiveModel:
    trained, number = read_retrieval(folder), current_version(folder)
    return LiveModel(_with_version(folder, trained, number), number)


def _with_version(folder: Path, trained: RetrievalArtifact, number: int) -> RetrievalArtifact:
    return apply_changes(trained, read_changes(folder, number)) if number else trained


def live_hash(folder: Path) -> str:
    """The hash of a "retrieval" artefact and of the current version of its catalogue."""
    number, trained = current_version(folder), read_manifest(folder, "retrieval").hash
    if not number:
        return trained
    return f"{trained}+{_manifest(folder, number).hash}"


def live_types(folder: Path) -> dict[str, str]:
    """The experts of a "retrieval" artefact with its current catalogue, without reading the models."""
    number, types = current_version(folder), expert_types(folder)
    if number and _manifest(folder, number).metrics.get("new"):
        types[CONTENT] = CONTENT
    return types


def _manifest(folder: Path, number: int) -> Manifest:
    """The manifest of a version of the catalogue."""
    with says_how_to_leave():
        return read_manifest(folder / VERSIONS / str(number), ARTIFACT_TYPE)


def change(folder: Path, what: str, make: Change, live: LiveModel | None = None) -> LiveModel:
    """Make a new version of a model's catalogue the current one, and return the model with it.

    `make` gives the changes of the new version from the model as it was trained and the changes of the current one;
    `what` says in a few words what changes. `live` is what this process has read of the artefact before, if it has.
    Raises what `make` raises, and OSError if the folder cannot be written; then nothing changes.
    """
    folder = find(folder, "retrieval")
    with _writing(folder):
        number, trained_hash = current_version(folder), read_manifest(folder, "retrieval").hash
        if live is not None and live.artifact.hash not in (None, trained_hash):
            raise ValueError(
                f"The model in {folder} was replaced by another one since it was read, so nothing was changed. Load "
                f"it again (a service does with POST /admin/reload), and repeat the change."
            )
        if live is None or live.version != number:
            live = _read_live(folder)
        trained, before = live.artifact, CatalogueChanges.none()
        if live.artifact.live is not None:
            trained, before, _ = live.artifact.live
        after = make(trained, before)
        artifact = apply_changes(trained, after)
        assert artifact.live is not None
        new = 1 + max(map(int, _numbers(folder)), default=0)
        metrics: dict[str, Any] = {
            "based_on": number,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "what": what,
            "items": int(artifact.live.available_N.sum()),
            "new": int(artifact.live.available_N[len(trained.catalog) :].sum()),
        }
        inputs = {"retrieval": trained_hash}
        with create(folder / VERSIONS / str(new), ARTIFACT_TYPE, inputs=inputs, metrics=metrics) as target:
            after.write(target)
        _set_current(folder, new)
        for old in sorted(_numbers(folder))[:-KEPT]:
            if old != number:
                remove(folder / VERSIONS / str(old))
    return LiveModel(artifact, new)


def roll_back(folder: Path, number: int | None = None) -> int:
    """Make an earlier (or later) version the current one, by default the one that the current one was made from.

    Returns its number. Raises ValueError if there is no such version.
    """
    folder = find(folder, "retrieval")
    with _writing(folder):
        there = {version.number: version for version in versions(folder)}
        if number is None:
            if not (current := current_version(folder)):
                raise ValueError(
                    f"{folder} has the catalogue of its training: there is nothing to roll back."
                )
            number = there[current].based_on if current in there else 0
        if number not in there:
            listed = ", ".join(map(str, there))
            raise ValueError(f"{folder} has no version {number} of its catalogue; there are {listed}.")
        read_changes(folder, number)  # raises if it is damaged
        _set_current(folder, number)
    return number


def versions(folder: Path) -> list[Version]:
    """All versions of an artefact's catalogue that are kept, the oldest first.

    Damaged ones are left out and named in the log, so that one can go back to the others.
    """
    folder = find(folder, "retrieval")
    manifest = read_manifest(folder, "retrieval")
    found = [Version(0, 0, "", "as trained", _trained_items(folder), 0)]
    for number in sorted(_numbers(folder)):
        try:
            made = read_manifest(folder / VERSIONS / str(number), ARTIFACT_TYPE)
            if made.inputs.get("retrieval") == manifest.hash:
                found.append(_version(number, made.metrics))
        except (ValueError, OSError, TypeError) as error:
            log(f"Version {number} of the catalogue is damaged, and is left out: {error}")
    return found


def _version(number: int, values: Mapping[str, Any]) -> Version:
    found = Version(number, **values)
    if [type(value) for value in found] != [int, int, str, str, int, int]:
        raise ValueError(f"its manifest says {dict(values)}, which describes no version.")
    return found


def _trained_items(folder: Path) -> int:
    return int(pl.scan_parquet(folder / CATALOG_FILE, glob=False).select(pl.len()).collect().item())


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in (folder / VERSIONS).glob("[0-9]*") if path.name.isdecimal()]


def _set_current(folder: Path, number: int) -> None:
    write_json(folder / VERSIONS / CURRENT_FILE, {"version": number})


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Change the versions of an artefact, one process at a time."""
    with locked(folder):
        (folder / VERSIONS).mkdir(exist_ok=True)
        yield
