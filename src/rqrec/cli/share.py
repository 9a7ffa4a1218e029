"""`rqrec push` and `rqrec pull`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, command, emit


@command('rqrec push out/demo owner/films --data "MovieLens 100K, 1,682 films." --private')
def push(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a retrieval model or tokenizer, or its run folder.")
    ],
    repo_id: Annotated[str, typer.Argument(help="owner/name on Hugging Face.")],
    data: Annotated[str, typer.Option(help="Description of the training data, for the model card.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    as_json: AsJson = False,
) -> None:
    """Push a model to Hugging Face with a model card. The titles and texts of its items are uploaded too."""
    from rqrec.stages import share

    url = share.push(folder, repo_id, data=data, private=private)
    emit({"url": url}, as_json, url)


@command("rqrec pull owner/films out/films")
def pull(
    repo_id: Annotated[str, typer.Argument(help="owner/name on Hugging Face.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to, new or empty.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Pull a model from Hugging Face into a folder, and verify the hash of every file."""
    from rqrec.stages import share

    manifest = share.pull(repo_id, folder, revision=revision)
    result = {"artifact": str(folder), "artifact_type": manifest.artifact_type}
    emit(result, as_json, f"{manifest.artifact_type}: {folder}")
