"""`rqrec train-rqvae`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Bindings, Configs, MaxMinutes, command, emit_artifact, training_config


@command("rqrec train-rqvae configs/rqvae_ml100k.gin")
def train_rqvae(
    configs: Configs = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Folder of embeddings; without it, embeddings are made from the raw data."),
    ] = None,
    bindings: Bindings = None,
    max_minutes: MaxMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Train the RQ-VAE that maps item embeddings to semantic IDs."""
    from rqrec.stages.train_rqvae import TrainRqVaeConfig
    from rqrec.stages.train_rqvae import train_rqvae as run

    config = training_config(TrainRqVaeConfig(), "train_rqvae", configs, bindings, max_minutes)
    emit_artifact(run(config, embeddings=embeddings), as_json)
