"""Folders that describe themselves: what each stage ends in, and what the next one opens.

An artefact is a folder with a `manifest.json` beside its files. The manifest says what the folder is
(`kind`), in which format (`format_version`), with which settings it was made, and the hashes of what it was
made from. A folder appears under its name only when it is whole: it is written beside its final place,
flushed to disk and then renamed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rqrec import __version__

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

# The command that makes each kind again: an error that names it saves its reader a search.
COMMANDS = {
    "dataset": "rqrec prepare",
    "embeddings": "rqrec embed",
    "rqvae": "rqrec train-rqvae",
    "rqkmeans": "rqrec fit-rqkmeans",
    "semantic_ids": "rqrec tokenize",
    "retrieval": "rqrec train-decoder",
    "sasrec": "rqrec train-sasrec",
    "evaluation": "rqrec evaluate",
    "recommendations": "rqrec batch-recommend",
    "held_out": "rqrec hold-out-items",
    "cold_evaluation": "rqrec evaluate-cold",
}


@dataclass(frozen=True)
class Manifest:
    """What an artefact says of itself.

    `settings` are the choices that made it, `facts` what came out (counts, sizes), `made_from` the hash of
    each input artefact by kind, `files` the SHA-256 of each file.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    made_by: str = f"rqrec {__version__}"
    format_version: int = FORMAT_VERSION

    @property
    def hash(self) -> str:
        """SHA-256 over the contents: two runs that made the same files have the same hash."""
        text = json.dumps([self.kind, self.files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it holds the old bytes or all the new ones, never a part.

    Raises OSError that names `path` (a full disk, a read-only folder); nothing is left behind then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; a broken one is a ValueError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Make it again or restore it.") from error


@contextmanager
def create(
    folder: Path,
    kind: str,
    *,
    settings: Mapping[str, Any] | None = None,
    made_from: Mapping[str, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """Yield a fresh folder to write files into; when the block ends it becomes `folder`.

    `facts` may still be filled inside the block. An artefact that stood there is replaced only once the new
    one is whole. Raises OSError that names the folder, FileExistsError if `folder` holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise FileExistsError(
            f"{folder} exists and is not an artefact of rqrec, so it is left alone. Choose another folder."
        )
    facts = {} if facts is None else facts
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    retired = folder.with_name(f".{folder.name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files = {}
        for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
            _sync(path)
            files[path.relative_to(temporary).as_posix()] = file_hash(path)
        manifest = Manifest(kind, dict(settings or {}), dict(made_from or {}), facts, files)
        write_json(temporary / MANIFEST, manifest.__dict__)
        if folder.exists():
            shutil.rmtree(retired, ignore_errors=True)
            folder.rename(retired)
        temporary.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        if isinstance(error, FileExistsError):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(folder: Path, kind: str | None = None, *, verify: bool = False) -> Manifest:
    """Read an artefact's manifest and refuse one that this version cannot use.

    With `verify`, every file is hashed again: a changed or half-copied artefact is refused.
    Raises FileNotFoundError or ValueError, in a sentence that says which command to run.
    """
    folder = Path(folder)
    retired = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and (retired / MANIFEST).exists():
        retired.rename(folder)  # a crash fell between the two renames of `create`
    command = COMMANDS.get(kind or "", "the command that makes it")
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}: it is no artefact. Make it with `{command}`.")
    values = read_json(path)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        made_by = values.get("made_by", "an unknown version") if isinstance(values, dict) else "hand"
        raise ValueError(
            f"{folder} has format_version {version!r} (made by {made_by}); this is rqrec {__version__}, "
            f"which reads {FORMAT_VERSION}. Choose another folder, or remove this one and make it again "
            f"with `{command}`."
        )
    known = Manifest.__dataclass_fields__.keys()
    if unknown := values.keys() - known:
        raise ValueError(f"{path} has unknown entries {sorted(unknown)}; allowed are {sorted(known)}.")
    manifest = Manifest(**values)
    if kind is not None and manifest.kind != kind:
        raise ValueError(f"{folder} holds {manifest.kind!r}, but {kind!r} is needed here.")
    if verify:
        for name, expected in manifest.files.items():
            if not (folder / name).is_file() or file_hash(folder / name) != expected:
                raise ValueError(
                    f"{folder / name} is missing or differs from its manifest. "
                    f"Make {folder} again with `{COMMANDS.get(manifest.kind, command)}`."
                )
    return manifest


def find(folder: Path, kind: str) -> Path:
    """The artefact of `kind` that `folder` is, or that lies directly inside it (as in the folder of a run).

    Raises FileNotFoundError where there is none, ValueError where there are several.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Make it with `{COMMANDS.get(kind, 'rqrec')}`.")
    if (folder / MANIFEST).is_file():
        read_manifest(folder, kind)
        return folder
    inside = sorted(path.parent for path in folder.glob(f"[!.]*/{MANIFEST}"))
    found = [path for path in inside if read_json(path / MANIFEST).get("kind") == kind]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no artefact of kind {kind!r}. Make one with `{COMMANDS.get(kind, 'rqrec')}`."
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds several artefacts of kind {kind!r} ({names}): name one of them.")
    return found[0]


def check_made_from(child: Path, parents: Mapping[str, Path]) -> None:
    """Refuse an artefact that was made from other inputs than `parents` (kind -> folder)."""
    made_from = read_manifest(child).made_from
    for kind, parent in parents.items():
        if made_from.get(kind) != read_manifest(parent, kind).hash:
            raise ValueError(
                f"{child} was not made from {parent}: their {kind} hashes differ. "
                f"Run `{COMMANDS.get(read_manifest(child).kind, 'its command')}` again."
            )


def is_current(
    folder: Path, kind: str, settings: Mapping[str, Any], made_from: Mapping[str, str] | None
) -> bool:
    """Whether `folder` holds an unchanged artefact of these settings and inputs, so that it can be reused.

    Only the settings that are named are compared, and no inputs where `made_from` is None. Raises ValueError
    on one of another kind or format: it is somebody's work, and only they may remove it.
    """
    if not Path(folder).exists() or not any(Path(folder).iterdir()):
        return False
    manifest = read_manifest(folder, kind)
    wanted = json.loads(json.dumps(dict(settings)))  # as JSON gives it back: tuples become lists
    if any(name not in manifest.settings or manifest.settings[name] != wanted[name] for name in wanted):
        return False
    if made_from is not None and manifest.made_from != dict(made_from):
        return False
    read_manifest(folder, kind, verify=True)
    return True
