"""Hugging Face repositories: upload artefacts with a model card, download them without running code."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rqrec.core.artifact import MANIFEST, is_name_inside, read_json
from rqrec.core.errors import first_line

CARD_FILE = "README.md"
REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
DATA_SUFFIXES = (
    ".json",
    ".jsonl",
    ".npy",
    ".npz",
    ".parquet",
    ".safetensors",
)  # formats that cannot run code


def upload(repo_id: str, save: Callable[[Path], None], card: str, *, private: bool) -> str:
    """Upload the files that `save` writes, with a model card; returns the URL of the repository.

    The repository is created if it does not exist. Raises ValueError for an invalid repository id, and
    ConnectionError if the hub cannot be reached or refuses the upload.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r} is not a repository id: write it as owner/name.")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        (Path(folder) / CARD_FILE).write_text(card, encoding="utf-8")
        api = HfApi()
        try:
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            # The hub ignores `private` if the repository already exists.
            if private and not api.repo_info(repo_id).private:
                raise ValueError(
                    f"{repo_id} exists and is public, so nothing was uploaded. Choose another name, or make "
                    f"it private."
                )
            api.upload_folder(repo_id=repo_id, folder_path=folder)
        except _hub_errors() as error:
            raise ConnectionError(
                f"Could not push to {repo_id} on Hugging Face ({first_line(error)}). Check the network, and "
                f"log in with `hf auth login` or HF_TOKEN."
            ) from error
    return str(url)


def download(repo_id: str, names: Sequence[str], *, revision: str | None = None) -> Path:
    """Download these files of a repository into the cache of huggingface_hub; returns their folder.

    Raises ConnectionError if the hub cannot be reached or has no such repository.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(names)))
    except _hub_errors() as error:
        raise ConnectionError(
            f"Hugging Face returned no repository {repo_id!r} ({first_line(error)}), and there is no folder of that "
            f"name here. Check the name and the network, or download it and pass the folder; a "
            f"private repository needs `hf auth login` or HF_TOKEN."
        ) from error


def download_artifact(repo_id: str, *, revision: str | None = None) -> Path:
    """Download an artefact into the cache: only the files that its manifest lists.

    Hashes are checked when the caller reads the artefact. Raises ValueError if the repository contains no
    artefact, or one with file names that artefacts do not use; ConnectionError as `download` does.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r} is not a repository id: write it as owner/name.")
    path = download(repo_id, [MANIFEST], revision=revision) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{repo_id} has no {MANIFEST}: it is not an artefact uploaded by `rqrec push`.")
    manifest = read_json(path)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise ValueError(f"{repo_id}: {MANIFEST} lists no files, so it is not an rqrec manifest.")
    for name in files:
        if not is_name_inside(name) or PurePosixPath(name).suffix not in DATA_SUFFIXES:
            raise ValueError(
                f"{repo_id} lists the file {name!r}, which is not allowed in an artefact: use relative paths "
                f"inside the folder that end in {', '.join(DATA_SUFFIXES)}. Nothing was downloaded but {MANIFEST}."
            )
    # Escape glob characters: these are names, not patterns.
    patterns = [re.sub(r"([\[*?])", r"[\1]", name) for name in files]
    return download(repo_id, [MANIFEST, *patterns], revision=revision)


def _hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises if the hub refuses a request or cannot be reached.

    Its own error inherits from the errors of the HTTP library that it uses, whose name depends on its version.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError"))


def model_card(
    repo_id: str,
    description: str,
    *,
    data: str,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any],
    use: Sequence[str],
    limits: Sequence[str],
) -> str:
    """The model card in Markdown, with the YAML metadata of the hub.

    `use` are the lines of code with which the model is used, `limits` sentences on what it cannot do.
    """
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
        description,
        "",
        "## Data",
        "",
        data,
        "",
        "## Metrics",
        "",
    ]
    if metrics:
        lines += ["| metric | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    else:
        lines += ["None were recorded."]
    lines += ["", "## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in settings.items()]
    lines += ["", "## How to use", "", "```python", *use, "```"]
    lines += ["", "## Limits", "", *(f"- {sentence}" for sentence in limits), ""]
    return "\n".join(lines)
