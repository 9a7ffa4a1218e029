"""`rqrec train-decoder`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Bindings, Configs, MaxMinutes, command, emit_artifact, training_config


@command("rqrec train-decoder configs/decoder_ml100k.gin")
def train_decoder(
    configs: Configs = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of a dataset; without it, one is made from the raw data.")
    ] = None,
    semantic_ids: Annotated[
        Path | None,
        typer.Option(help="Folder of semantic IDs; without it, IDs are made from the embeddings."),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of embeddings, for --dataset without --semantic-ids, and for content_input."
        ),
    ] = None,
    bindings: Bindings = None,
    max_minutes: MaxMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Train the retrieval model that generates the next item's semantic ID."""
    from rqrec.stages.train_decoder import TrainDecoderConfig
    from rqrec.stages.train_decoder import train_decoder as run

    config = training_config(TrainDecoderConfig(), "train_decoder", configs, bindings, max_minutes)
    folder = run(config, dataset=dataset, semantic_ids=semantic_ids, embeddings=embeddings)
    emit_artifact(folder, as_json)
