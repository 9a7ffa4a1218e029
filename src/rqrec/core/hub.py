"""Hugging Face repositories: what goes there with a model card, and what comes back without running code."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rqrec.core.artifact import MANIFEST, read_json

CARD_FILE = "README.md"
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
PLAIN_SUFFIXES = (".json", ".jsonl", ".npy", ".npz", ".parquet", ".safetensors")  # none of them can run code


def upload(repo_id: str, save: Callable[[Path], None], card: str, *, private: bool) -> str:
    """Create the repository if need be and put what `save` writes and the model card there; gives its URL.

    Raises ValueError for a name that is no repository id, ConnectionError where the hub cannot be reached
    or refuses.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r} is no repository id: write it as owner/name.")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        (Path(folder) / CARD_FILE).write_text(card, encoding="utf-8")
        try:
            url = HfApi().create_repo(repo_id, private=private, exist_ok=True)
            HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
        except (OSError, HfHubHTTPError) as error:
            raise ConnectionError(
                f"Could not push to {repo_id} on Hugging Face ({first_line(error)}). Check the network, and "
                f"log in with `hf auth login` or HF_TOKEN."
            ) from error
    return str(url)


def download(repo_id: str, names: Sequence[str], *, revision: str | None = None) -> Path:
    """These files of a repository, in the cache of huggingface_hub; gives their folder.

    Raises ConnectionError where the hub cannot be reached or gives no such repository.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(names)))
    except (OSError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"There is no folder {repo_id!r} here, and Hugging Face gave no repository of that name "
            f"({first_line(error)}). Check the name and the network, or download it and give the folder; a "
            f"private one needs `hf auth login` or HF_TOKEN."
        ) from error


def download_artifact(repo_id: str, *, revision: str | None = None) -> Path:
    """The artefact of a repository, in the cache: the files that its manifest names, and no others.

    The caller reads it as any artefact, which checks the hashes. Raises ValueError where the repository
    holds none, or one with names that no artefact has; ConnectionError as `download` does.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r} is no repository id: write it as owner/name.")
    path = download(repo_id, [MANIFEST], revision=revision) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{repo_id} holds no {MANIFEST}: it is no artefact that `rqrec push` put there.")
    manifest = read_json(path)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise ValueError(f"{repo_id}: {MANIFEST} names no files, so it is no manifest of rqrec.")
    for name in files:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name or place.suffix not in PLAIN_SUFFIXES:
            raise ValueError(
                f"{repo_id} names the file {name!r}, which no artefact has: allowed are plain names within the "
                f"folder with {', '.join(PLAIN_SUFFIXES)}. Nothing of it was used."
            )
    # A name is taken as it is: brackets and stars would be patterns.
    patterns = [re.sub(r"([\[*?])", r"[\1]", name) for name in files]
    return download(repo_id, [MANIFEST, *patterns], revision=revision)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def model_card(
    repo_id: str,
    what: str,
    *,
    data: str,
    figures: Mapping[str, float],
    settings: Mapping[str, Any],
    use: Sequence[str],
) -> str:
    """Markdown with the metadata that the hub reads: what it is, data, figures, settings, and code to use it."""
    lines = [
        "---",
        "library_name: rqrec",
        "tags:",
        "- recommendation",
        "- semantic-ids",
        "- generative-retrieval",
        "---",
        "",
        f"# {repo_id.split('/')[-1]}",
        "",
        what,
        "",
        "## Data",
        "",
        data,
        "",
        "## Figures",
        "",
    ]
    if figures:
        lines += ["| figure | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    else:
        lines += ["None were recorded when this was pushed."]
    lines += ["", "## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in settings.items()]
    lines += ["", "## How to use", "", "```python", *use, "```", ""]
    return "\n".join(lines)
