"""`rqrec join`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Force, command, emit_artifact
from rqrec.stages.join_config import JoinConfig


@command(
    "rqrec join out/mine/decoder out/mine/sasrec --dataset out/mine/dataset --embeddings out/mine/embeddings "
    "--out out/mine/joined",
    section="join",
)
def join(
    models: Annotated[
        list[Path],
        typer.Argument(help="Run folders of the models; the first one generates semantic IDs."),
    ],
    dataset: Annotated[Path, typer.Option(help="The dataset that the models were trained on.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    config: JoinConfig,
    embeddings: Annotated[
        Path | None, typer.Option(help="Item embeddings: neighbours then are alike in content too.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Join trained models and neighbours to one recommender, weighted on validation."""
    from rqrec.stages.join import join as run

    folder = run(config, models, dataset, out, embeddings=embeddings, force=force)
    emit_artifact(folder, as_json)
