"""Commands that share artefacts on Hugging Face."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.app import AsJson, app, emit, sentence


@app.command(
    epilog='Example: rqrec push out/demo owner/films --data "MovieLens 100K, 1,682 films." --private'
)
@sentence
def push(
    folder: Annotated[Path, typer.Argument(help="A retrieval model or a tokenizer, or the run it is in.")],
    repo_id: Annotated[str, typer.Argument(help="owner/name on Hugging Face.")],
    data: Annotated[str, typer.Option(help="For the model card: what it was trained on.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Only for those you let in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a model on Hugging Face with a model card. The titles and texts of its items go with it."""
    from rqrec.stages.share import push as put

    url = put(folder, repo_id, data=data, private=private)
    emit({"url": url}, as_json, url)


@app.command(epilog="Example: rqrec pull owner/films out/films")
@sentence
def pull(
    repo_id: Annotated[str, typer.Argument(help="owner/name on Hugging Face.")],
    folder: Annotated[Path, typer.Argument(help="Where to, a folder that is new or empty.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring a model from Hugging Face into a folder, every file checked against its hash."""
    from rqrec.stages.share import pull as get

    manifest = get(repo_id, folder, revision=revision)
    emit(
        {"artifact": str(folder), "kind": manifest.artifact_type},
        as_json,
        f"{manifest.artifact_type}: {folder}",
    )
