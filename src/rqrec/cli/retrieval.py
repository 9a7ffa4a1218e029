"""Commands that train a retrieval model and ask it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from rqrec.serving.recommender import Recommendations


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


@app.command("train-sasrec", epilog="Example: rqrec train-sasrec configs/sasrec_amazon.gin")
@sentence
def train_sasrec(configs: Configs, bindings: Bindings = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Train the baseline that knows items by their index alone: SASRec with the full softmax."""
    folder = configured_function("train_sasrec", configs, bindings)()
    emit({"artifact": str(folder), **facts_of(folder)}, as_json, str(folder))


@app.command(epilog="Example: rqrec recommend --artifact out/demo --history 50,181,172 --k 10 --explain")
@sentence
def recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or of its run.")],
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")],
    k: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    allow: Annotated[str | None, typer.Option(help="Only these item ids may come back (commas).")] = None,
    block: Annotated[str | None, typer.Option(help="These item ids may not come back (commas).")] = None,
    max_per_code: Annotated[
        int | None, typer.Option(min=1, help="At most so many items that share the first code (variety).")
    ] = None,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Items of the history may return.")
    ] = False,
    unknown: Annotated[
        str, typer.Option(help='An id that the catalogue does not have: "raise" a failure, or "skip" it.')
    ] = "raise",
    times: Annotated[
        str | None,
        typer.Option(help="Unix seconds of the history's items (commas), for a model that reads time."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user's id, for a model that knows users.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how likely each code was, and other items under it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The next items for a history."""
    from rqrec.serving.recommender import Recommender

    ids, taken = listed(history), None if times is None else seconds(times)
    recommender = Recommender.load(artifact)
    (found,) = recommender.recommend(
        [ids],
        k,
        exclude_seen=not allow_seen,
        allow=None if allow is None else listed(allow),
        block=None if block is None else listed(block),
        max_per_code=max_per_code,
        unknown=unknown,  # type: ignore[arg-type]  # checked there
        timestamps=None if taken is None else [taken],
        users=[user],
    )
    rows: list[dict[str, Any]] = [asdict(item) for item in found]
    if explain:
        (explained,) = recommender.explain_all(
            [ids],
            [[item.item_id for item in found]],
            unknown=unknown,  # type: ignore[arg-type]
            timestamps=None if taken is None else [taken],
            users=[user],
        )
        for row, explanation in zip(rows, explained, strict=True):
            row["path"] = [asdict(step) for step in explanation.path]
    facts = {
        "history": ids,
        "k": k,
        "recommendations": rows,
        "n_allowed": found.n_allowed,
        "skipped": list(found.skipped),
    }
    emit(facts, as_json, "\n".join([table(rows), *remarks(found, k)]))


def listed(ids: str) -> list[str]:
    """Ids that are separated by commas."""
    return [item_id.strip() for item_id in ids.split(",") if item_id.strip()]


def seconds(times: str) -> list[int]:
    """Whole numbers that are separated by commas. Raises ValueError that names what is none."""
    for time in listed(times):
        if not time.lstrip("-").isdecimal():
            raise ValueError(
                f"--times has {time!r}, but must be unix seconds: whole numbers such as 1700000000."
            )
    return [int(time) for time in listed(times)]


def remarks(found: "Recommendations", k: int) -> list[str]:
    """What a person should know beside the list: why it is short, and which ids were passed over."""
    said = []
    if found.n_allowed < k:
        said.append(f"Only {found.n_allowed} items are allowed.")
    if len(found) < min(k, found.n_allowed):
        said.append(f"Only {len(found)} items come back: --max-per-code holds the others back.")
    if found.skipped:
        said.append(f"Skipped, since the catalogue does not have them: {', '.join(found.skipped)}.")
    return said
