"""`rqrec train-sasrec`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Bindings, Configs, MaxMinutes, command, emit_artifact, training_config


@command("rqrec train-sasrec configs/sasrec_amazon.gin")
def train_sasrec(
    configs: Configs = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of a dataset; without it, one is made from the raw data.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder of the dataset's embeddings, for content_input.")
    ] = None,
    bindings: Bindings = None,
    max_minutes: MaxMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Train SASRec with a full softmax: a baseline with one learned vector per item."""
    from rqrec.stages.train_sasrec import TrainSasRecConfig
    from rqrec.stages.train_sasrec import train_sasrec as run

    config = training_config(TrainSasRecConfig(), "train_sasrec", configs, bindings, max_minutes)
    emit_artifact(run(config, dataset=dataset, embeddings=embeddings), as_json)
