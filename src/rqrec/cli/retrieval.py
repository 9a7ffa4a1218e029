"""Commands that train a retrieval model and ask it."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.app import (
    AsJson,
    Bindings,
    Configs,
    MaxMinutes,
    app,
    configured_function,
    emit,
    facts_of,
    sentence,
    table,
    within,
)


@app.command("train-decoder", epilog="Example: rqrec train-decoder configs/decoder_ml100k.gin")
@sentence
def train_decoder(
    configs: Configs,
    bindings: Bindings = [],  # noqa: B006
    max_minutes: MaxMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Train the retrieval model that generates the next item's semantic ID."""
    folder = configured_function("train_decoder", configs, within(max_minutes, bindings))()
    emit({"artifact": str(folder), **facts_of(folder)}, as_json, str(folder))


@app.command(epilog="Example: rqrec recommend --artifact out/demo --history 50,181,172 --k 10")
@sentence
def recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or of its run.")],
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")],
    k: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Items of the history may return.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The next items for a history."""
    from rqrec.serving.recommender import Recommender

    ids = [item_id.strip() for item_id in history.split(",") if item_id.strip()]
    (found,) = Recommender.load(artifact).recommend([ids], k, exclude_seen=not allow_seen)
    rows = [
        {
            "item_id": item.item_id,
            "title": item.title,
            "score": item.score,
            "semantic_id": list(item.semantic_id),
        }
        for item in found
    ]
    facts = {"history": ids, "k": k, "recommendations": rows}
    note = f"\nOnly {len(rows)} items are allowed." if len(rows) < k else ""
    emit(facts, as_json, table(rows) + note)
