"""`rqrec embed`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Force, command, emit_artifact
from rqrec.core.progress import log
from rqrec.stages.embed import EmbedConfig
from rqrec.stages.embed import embed as run


@command("rqrec embed out/mine/dataset --out out/mine/embeddings --collaborative 64", section="embed")
def embed(
    dataset: Annotated[Path, typer.Argument(help="Folder of a dataset, or its run folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    config: EmbedConfig,
    embeddings: Annotated[
        Path | None, typer.Option(help="Your own vectors (.npy), instead of encoded texts.")
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="Device to encode on, such as cuda:0; repeat for several in parallel."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Encode item texts as vectors, and optionally append collaborative vectors."""
    if embeddings is not None and devices:
        raise typer.BadParameter("With --embeddings no text is encoded: leave out --device.")
    if embeddings is not None and config.encoder != EmbedConfig().encoder:
        log(f"With --embeddings no text is encoded: the encoder {config.encoder} has no effect.")
    folder = run(config, dataset, out, vectors=embeddings, devices=devices or (), force=force)
    emit_artifact(folder, as_json, "{items} vectors of {dim} dimensions")
