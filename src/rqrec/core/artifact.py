"""Artefacts: self-describing folders. Every stage writes one, and the next stage reads it.

An artefact is a folder with a `manifest.json` next to its files. The manifest records what the folder holds
(`artifact_type`), its format (`format_version`), the settings it was made with, and the hashes of its inputs. A
folder appears under its final name only when it is complete (see `rqrec.core.replace`).
"""

import errno
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, get_origin, get_type_hints

from rqrec import __version__
from rqrec.core import strict_json
from rqrec.core.errors import WRITE_ERRORS, first_few
from rqrec.core.progress import log
from rqrec.core.real_path import real_path
from rqrec.core.regular_file import regular_file
from rqrec.core.replace import read_whole, replaced, sync, undisturbed

T = TypeVar("T")

FORMAT_VERSION = 2
# Types that have changed since. 3: a model's softmax is over the children of a node of the trie, no longer over all
# codes of a level, and SASRec counts positions from the end; a checkpoint of the former kind must not be resumed.
# 4: the sharpness of new items is that of a cosine.
FORMAT_VERSIONS = {"retrieval": 4, "sasrec": 3, "checkpoint": 3}
MANIFEST = "manifest.json"
FORBIDDEN = (errno.EACCES, errno.EPERM)  # to write into the folder around
CHECKPOINT = re.compile(r"checkpoint_\w+\.pt")  # a file name of the reference implementation
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # in messages of Rust
DATA = {
    ".json",
    ".npy",
    ".npz",
    ".parquet",
    ".safetensors",
}  # what is read; a README beside it is nobody's business
VERSIONS = "versions"  # folder in an artefact with what changed later, under manifests of its own
NEAR = 3  # folders around an artefact, from the innermost outwards, in which its inputs are looked for

# What makes each type of artefact, for error messages.
COMMANDS = {
    "dataset": "`rqrec prepare`",
    "embeddings": "`rqrec embed`",
    "rqvae": "`rqrec train-rqvae`",
    "rqkmeans": "`rqrec fit-rqkmeans`",
    "semantic_ids": "`rqrec tokenize`",
    "retrieval": "`rqrec train-decoder` or `rqrec join` (`demo`, `quickstart` and `reproduce` run all stages)",
    "sasrec": "`rqrec train-sasrec`",
    "evaluation": "`rqrec evaluate`",
    "onnx": "`rqrec export`",
    "recommendations": "`rqrec batch-recommend`",
    "held_out": "`rqrec hold-out-items`",
    "cold_evaluation": "`rqrec evaluate-cold`",
    "catalogue_version": "`rqrec items`",
}


@dataclass(frozen=True)
class Manifest:
    """The content of an artefact's `manifest.json`."""

    artifact_type: str
    """What the folder holds: a key of `COMMANDS`, or "checkpoint"."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings that the artefact was made with."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The hash of each artefact that it was made from, by type."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Properties of the result: counts, sizes, measured values."""
    files: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of each file."""
    made_by: str = f"rqrec {__version__}"
    format_version: int = FORMAT_VERSION
    """The format of its type (see `format_version_of`)."""

    def __repr__(self) -> str:
        return f"Manifest({self.artifact_type}, {self.hash[:8]}, {len(self.files)} files, metrics {self.metrics})"

    @property
    def hash(self) -> str:
        """SHA-256 over type and files: two runs that wrote the same files have the same hash."""
        text = json.dumps([self.artifact_type, self.files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class DifferentArtifactError(ValueError):
    """A stage found something that was made with other settings or inputs, and may not replace it."""

    def __init__(self, finding: str, advice: str) -> None:
        super().__init__(f"{finding} {advice}")
        self.finding = finding


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError if it is no regular file."""
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing, so that it always holds either all of the old bytes or all of the new ones.

    Raises OSError that names `path` (a full disk, a read-only folder), and then removes the partial file.
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
        sync(path.parent)
    except Exception as error:
        _raise_if_system_refused(error, path)
        raise
    finally:
        with suppress(OSError):  # the first error says more
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError, naming the file, if it is not valid JSON."""
    try:
        return strict_json.loads(regular_file(path).read_text(encoding="utf-8-sig"), allow_nan=True)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Recreate or restore it.") from error


def finite(value: Any) -> Any:
    """The value with None (null) in place of each number that JSON does not have: NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def as_json(values: Mapping[str, Any]) -> Any:
    """Values as JSON would return them: tuples become lists."""
    return json.loads(json.dumps(dict(values)))


@contextmanager
def create(
    folder: Path,
    artifact_type: str,
    *,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    metrics: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """Yield a new folder to write files into; when the block ends, it becomes `folder`.

    The block may still add to `metrics`. An existing artefact is replaced only when the new one is complete. Raises
    OSError that names the folder, FileExistsError or ValueError if it holds something else.
    """
    folder = Path(folder)
    _check_replaceable(folder, artifact_type)
    metrics = {} if metrics is None else metrics
    try:
        with replaced(folder) as target:
            yield target
            written = sorted(path for path in target.rglob("*") if path.is_file())
            files = {path.relative_to(target).as_posix(): file_hash(path) for path in written}
            manifest = Manifest(
                artifact_type,
                dict(settings or {}),
                dict(inputs or {}),
                metrics,
                files,
                format_version=format_version_of(artifact_type),
            )
            write_json(target / MANIFEST, asdict(manifest))
    except FileExistsError:
        raise
    except Exception as error:
        _raise_if_system_refused(error, folder)
        raise


def _raise_if_system_refused(error: Exception, path: Path) -> None:
    """Raise OSError that names the path if the system refused to write; polars may give the number in its text.

    Where something may not be written, that is the folder around it, in which it is put in place.
    """
    number = int(found[1]) if (found := _SYSTEM_ERROR.search(str(error))) else 0
    if number in WRITE_ERRORS:
        raise OSError(number, os.strerror(number), str(path)) from error
    if isinstance(error, OSError):
        parts = Path(str(error.filename or path)).parts
        if path.name not in parts and not any(part.startswith(f".{path.name}.") for part in parts):
            return  # of something else, such as an input
        refused = path.parent if error.errno in FORBIDDEN else path
        raise OSError(error.errno, error.strerror or str(error), str(refused)) from error


def _check_replaceable(folder: Path, artifact_type: str) -> None:
    """Refuse to write over anything but an artefact of the same type, in whichever format, and where it gets lost."""
    if os.path.ismount(folder):
        raise ValueError(
            f"{folder} is where a file system is mounted, which no new folder can replace: give a folder inside it."
        )
    if artifact_type not in ("checkpoint", "catalogue_version"):  # these are parts of another
        # Training prepares data where the raw data are, which may be those without held-out items.
        check_outside_artifacts(folder, "held_out" if artifact_type in ("dataset", "embeddings") else None)
    if not _exists(folder):
        return
    if not _undisturbed(folder, (folder / MANIFEST).is_file):
        raise FileExistsError(
            f"{folder} exists and is not an artefact of rqrec, so it was not touched. Choose another folder."
        )
    found = read_version(folder, _type_or_none)
    if found is None:
        raise ValueError(
            f"{folder} has a {MANIFEST} that is damaged or not of rqrec, so nothing in it was replaced. Delete the "
            f"folder if it is of no use, or choose another one."
        )
    if found != artifact_type:
        raise ValueError(
            f"{folder} is an artefact of type {found!r}, so it was not replaced by one of type {artifact_type!r}. "
            f"Choose another folder."
        )


def check_outside_artifacts(path: Path, may_lie_in: str | None = None) -> None:
    """Raise ValueError if a path lies in an artefact, except of the type `may_lie_in`.

    Its files have to stay those of its manifest, and what replaces it removes all that lies in it.
    """
    for parent in real_path(path).parents:
        if _type_or_none(parent) not in (None, may_lie_in):
            raise ValueError(
                f"{path} lies in {parent}, an artefact that another file would damage: choose a place outside."
            )


def check_replaceable(file: Path, is_earlier: Callable[[Path], bool]) -> None:
    """Raise ValueError if a file to write lies in an artefact, FileExistsError if it is there and no earlier result.

    `is_earlier` says whether an existing file is one, and may raise ValueError or OSError if it is not. An empty file
    may be replaced.
    """
    check_outside_artifacts(file)
    if not file.exists() or (file.is_file() and not file.stat().st_size):
        return
    try:
        replaceable = file.is_file() and is_earlier(file)
    except (ValueError, OSError):
        replaceable = False
    if not replaceable:
        raise FileExistsError(
            f"{file} is there already and is no earlier result: choose another name, or remove it."
        )


def _type_of(manifest: Any) -> Any:
    """The type in a manifest of any format; format 1 called it "kind"."""
    return manifest.get("artifact_type", manifest.get("kind")) if isinstance(manifest, dict) else None


def format_version_of(artifact_type: object) -> int:
    """The format that this version of rqrec writes and reads."""
    return FORMAT_VERSIONS.get(str(artifact_type), FORMAT_VERSION)


def _type_inside(folder: Path) -> Any:
    return _type_of(read_json(folder / MANIFEST))


def _type_or_none(folder: Path) -> str | None:
    """The type of the artefact in a folder; None if its manifest is of another program, or there is none."""
    try:
        found = _type_inside(folder)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def read_manifest(folder: Path, artifact_type: str | None = None, *, verify: bool = False) -> Manifest:
    """Read an artefact's manifest.

    With `verify`, the hash of every file is checked, so a changed or partly copied artefact is refused. Raises
    FileNotFoundError if there is no artefact, ValueError if it has another type or format version or is damaged; the
    message names the command that recreates it.
    """
    return read_version(Path(folder), lambda found: _read_manifest(found, artifact_type, verify=verify))


def read_version(folder: Path, read: Callable[[Path], T]) -> T:
    """The result of `read(folder)` for one version of an artefact, even if it is replaced meanwhile."""
    return read_whole(folder, read, MANIFEST)


def _read_manifest(folder: Path, artifact_type: str | None, *, verify: bool) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}, so it is not an artefact. Make one with {_command(artifact_type)}."
        )
    values = read_json(path)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != (wanted := format_version_of(_type_of(values) or artifact_type)):
        values = values if isinstance(values, dict) else {}
        made_with = _command(artifact_type or _type_of(values))
        raise ValueError(
            f"{folder} has format_version {version!r} (made by {values.get('made_by', 'an unknown version')}); "
            f"this is rqrec {__version__}, which reads format_version {wanted}. Choose another folder, or "
            f"remove this one and recreate it with {made_with}."
        )
    known = Manifest.__dataclass_fields__.keys()
    if unknown := values.keys() - known:
        raise ValueError(f"{path} has unknown entries {sorted(unknown)}; allowed are {sorted(known)}.")
    for name, field_type in get_type_hints(Manifest).items():
        if not isinstance(values.get(name), get_origin(field_type) or field_type):
            raise ValueError(
                f"{path} is damaged: its entry {name!r} is missing or has the wrong type. Recreate the folder with "
                f"{_command(artifact_type or _type_of(values))}."
            )
    manifest = Manifest(**values)
    for name in manifest.files:
        if not is_name_inside(name):
            raise ValueError(
                f"{path} is damaged: {name!r} is not the name of a file in its folder. Do not use it."
            )
    if artifact_type is not None and manifest.artifact_type != artifact_type:
        raise ValueError(
            f"{folder} is an artefact of type {manifest.artifact_type!r}, but {artifact_type!r} is needed here."
        )
    if verify:
        _verify(folder, manifest)
    return manifest


def is_name_inside(name: str) -> bool:
    """Whether the name of a file in a manifest, which others may have written, stays inside its folder."""
    path = PurePosixPath(name)
    return bool(name) and not ("\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts)


def _verify(folder: Path, manifest: Manifest) -> None:
    """Raise ValueError unless the files of a folder are those of its manifest."""
    again = f"Recreate {folder} with {_command(manifest.artifact_type)}."
    for name, expected in manifest.files.items():
        if not (folder / name).is_file() or file_hash(folder / name) != expected:
            raise ValueError(f"{folder / name} is missing or differs from its manifest. {again}")
    for path in _files_of_others(folder, manifest):
        if path.suffix in DATA and not _is_of_another(path, folder):
            raise ValueError(
                f"{path} is not in the manifest of {folder}, so it may be anything. Move it elsewhere, or: {again}"
            )


def _files_of_others(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """The files in an artefact's folder that neither its manifest nor a version of its catalogue accounts for."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        known = inside.as_posix() in (MANIFEST, *manifest.files) or inside.parts[0] == VERSIONS
        if not known and path.is_file():
            yield path


def _is_of_another(path: Path, folder: Path) -> bool:
    """Whether a file inside an artefact belongs to another one inside it: the dataset made of held-out data."""
    return any((parent / MANIFEST).is_file() for parent in path.parents if folder in parent.parents)


def _command(artifact_type: object) -> str:
    return COMMANDS.get(str(artifact_type), "the command that made it")


def find(folder: Path, artifact_type: str) -> Path:
    """The artefact of this type that a folder given by a user means.

    It is `folder` itself, or the one directly inside it (`folder` is a run folder), or the one in a run folder
    directly inside it (`folder` holds the runs of an experiment). A missing `checkpoint_N.pt` stands for its folder
    (see `run_folder`).

    Raises FileNotFoundError if there is none, ValueError if there are several at the same depth.
    """
    folder = run_folder(Path(folder))
    is_folder, is_artifact = _undisturbed(folder, lambda: (folder.is_dir(), (folder / MANIFEST).is_file()))
    if folder.is_file():
        raise FileNotFoundError(
            f"{folder} is a file, but a folder with an artefact of type {artifact_type!r} is needed. Make it with "
            f"{_command(artifact_type)}."
        )
    if not is_folder:
        raise FileNotFoundError(f"There is no folder {folder}. Make it with {_command(artifact_type)}.")
    if is_artifact:
        read_manifest(folder, artifact_type)
        return folder
    folders = sorted(folder.glob("[!.]*/"))
    runs = undisturbed(folder, lambda: [path for path in folders if not (path / MANIFEST).is_file()])
    for places in ([folder], runs):
        inside = [path for place in places for path in _artifacts_in(place)]
        found = [path for path in inside if read_version(path, _type_inside) == artifact_type]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in found)
            raise ValueError(
                f"{folder} has several artefacts of type {artifact_type!r} ({names}): give one of these folders."
            )
        if found:
            return found[0]
    raise FileNotFoundError(
        f"{folder} has no artefact of type {artifact_type!r}. Make one with {_command(artifact_type)}."
    )


def _artifacts_in(folder: Path) -> list[Path]:
    """The artefacts directly inside a folder."""
    return undisturbed(folder, lambda: sorted(path.parent for path in folder.glob(f"[!.]*/{MANIFEST}")))


def find_input(artifact: Path, artifact_type: str) -> Path | None:
    """What an artefact was made from, if it lies near: in one of the `NEAR` folders around the artefact.

    It is recognised by its hash; None if no artefact of this type there has it.
    """
    wanted = read_manifest(artifact).inputs.get(artifact_type)
    for around in list(Path(artifact).absolute().parents)[:NEAR]:
        for path in _artifacts_in(around):
            try:
                manifest = read_manifest(path)
            except (OSError, ValueError):  # of another program, or of another version
                continue
            if manifest.artifact_type == artifact_type and manifest.hash == wanted:
                return path
    return None


def run_folder(path: Path) -> Path:
    """The folder of a missing `checkpoint_N.pt`, with a sentence; any other path as it is.

    The reference implementation saves its models under such names in `save_dir_root`, where ours have a folder.
    """
    if path.exists() or not CHECKPOINT.fullmatch(path.name) or not path.parent.is_dir():
        return path
    log(f"There is no file {path}: using what training saved in {path.parent}.")
    return path.parent


def check_inputs(artifact: Path, parents: Mapping[str, Path]) -> None:
    """Raise ValueError if an artefact was made from other inputs than `parents` (artefact type -> folder)."""
    manifest = read_manifest(artifact)
    for artifact_type, parent in parents.items():
        if manifest.inputs.get(artifact_type) != read_manifest(parent, artifact_type).hash:
            raise ValueError(
                f"{artifact} was not made from {parent}: their {artifact_type} hashes differ. "
                f"Run {_command(manifest.artifact_type)} again."
            )


def is_current(
    folder: Path, artifact_type: str, settings: Mapping[str, Any], inputs: Mapping[str, str] | None
) -> bool:
    """Whether `folder` holds an unchanged artefact with these settings and inputs.

    Only the given settings are compared, and no inputs if `inputs` is None. Raises ValueError if the folder holds
    another type or format version.
    """
    if not _exists(folder):
        return False
    manifest = read_manifest(folder, artifact_type)
    wanted = as_json(settings)
    if any(name not in manifest.settings or manifest.settings[name] != wanted[name] for name in wanted):
        return False
    if inputs is not None and manifest.inputs != dict(inputs):
        return False
    read_manifest(folder, artifact_type, verify=True)
    return True


def reuse(
    folder: Path,
    artifact_type: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    force: bool = False,
    how_to_replace: str = "--force",
) -> bool:
    """Whether a stage can reuse the artefact in `folder`; False if it has to make a new one.

    An artefact with the same settings and inputs is verified and reused. One with other settings or inputs is
    replaced only with `force`; otherwise DifferentArtifactError lists the differences and `how_to_replace`.
    """
    _check_replaceable(Path(folder), artifact_type)
    if not _exists(folder):
        _check_place(Path(folder))
        return False
    if force:
        _check_nothing_is_lost(Path(folder))
        return False
    manifest = read_manifest(folder, artifact_type)
    differing = differences({"settings": manifest.settings}, {"settings": settings})
    differing += [
        f"its input {name!r} was another one"
        for name in sorted(manifest.inputs.keys() | inputs.keys())
        if manifest.inputs.get(name) != inputs.get(name)
    ]
    if differing:
        raise DifferentArtifactError(
            f"{folder} already holds an artefact of type {artifact_type!r} that was made differently: "
            f"{first_few(differing, separator='; ')}.",
            "Choose another folder, keep the settings and inputs of the existing artefact, or replace it with "
            f"{how_to_replace}.",
        )
    read_manifest(folder, artifact_type, verify=True)
    log(f"{Path(folder).name}: found in {folder}.")
    return True


def _check_nothing_is_lost(folder: Path) -> None:
    """Raise FileExistsError if an artefact that is to be replaced holds files that are not its own."""
    try:
        manifest = read_manifest(folder)
    except ValueError:  # of another version: its files are not known
        return
    if manifest.artifact_type == "held_out":  # in which training prepares data
        return
    inside = sorted(path.relative_to(folder) for path in _files_of_others(folder, manifest))
    if others := [path for path in inside if not any(part.startswith(".") for part in path.parts)]:
        raise FileExistsError(
            f"{folder} holds files that are not its own and would be lost ({first_few(others)}): move them "
            f"elsewhere, or choose another folder."
        )


def _check_place(folder: Path) -> None:
    """Raise OSError, before any work, if a new folder cannot be made there."""
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(
            f"{folder} cannot be made, because {parent} is a file: choose another place."
        )
    try:
        tempfile.TemporaryFile(dir=parent).close()  # of which a kill leaves nothing
    except OSError as error:
        refused = parent if error.errno in FORBIDDEN else folder
        raise OSError(error.errno, error.strerror, str(refused)) from error


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Each value that differs between two nested mappings, as "name was 1 and is 2"."""
    before, now = _flat(as_json(found)), _flat(as_json(wanted))
    return [
        f"{name.partition('.')[2]} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        flat |= inner
    return flat


def _exists(folder: Path) -> bool:
    folder = Path(folder)
    return _undisturbed(folder, lambda: folder.exists() and any(folder.iterdir()))


def _undisturbed(folder: Path, look: Callable[[], T]) -> T:
    """The result of `look()` while `folder` is not replaced."""
    return undisturbed(real_path(folder).parent, look)
