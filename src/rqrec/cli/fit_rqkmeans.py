"""`rqrec fit-rqkmeans`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Force, command, emit_artifact
from rqrec.stages.fit_rqkmeans_config import FitRqKMeansConfig


@command("rqrec fit-rqkmeans out/mine/embeddings --out out/mine/rqkmeans", section="fit_rqkmeans")
def fit_rqkmeans(
    embeddings: Annotated[Path, typer.Argument(help="Folder of embeddings, or its run folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    config: FitRqKMeansConfig,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Fit the tokenizer that needs no gradient training: k-means on the residuals of the embeddings."""
    from rqrec.stages.fit_rqkmeans import fit_rqkmeans as run

    emit_artifact(run(config, embeddings, out, force=force), as_json)
