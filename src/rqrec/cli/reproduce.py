"""The command that goes from raw files to test figures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rqrec.cli.app import AsJson, app, emit, sentence


@app.command(epilog="Example: rqrec reproduce amazon-beauty --raw dataset/amazon --max-minutes 30 --json")
@sentence
def reproduce(
    source: Annotated[
        str,
        typer.Argument(help="amazon-beauty, -sports, -toys; movielens-100k, -1m, -latest-small; or custom."),
    ],
    raw: Annotated[
        Path, typer.Option(help="Where raw files are kept, and downloaded to where they are missing.")
    ] = Path("dataset"),
    interactions: Annotated[Path | None, typer.Option(help="custom: a log, .parquet or .csv.")] = None,
    items: Annotated[Path | None, typer.Option(help="custom: items, .parquet, .csv or .jsonl.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="custom: vectors of the items, .npy.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; out/SOURCE if unset.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings, with seeds 0, 1, ...")] = 1,
    max_minutes: Annotated[float, typer.Option(help="Budget for all of it.")] = 30.0,
    encoder: Annotated[
        str | None, typer.Option(help="A sentence-transformers model, by name or folder.")
    ] = None,
    tie_break: Annotated[str, typer.Option(help="Order at equal times: keep or hash.")] = "keep",
    as_json: AsJson = False,
) -> None:
    """The recipe of the result table on any log: items' vectors, semantic IDs, model, test figures."""
    from rqrec.data.sources.custom import CustomFiles
    from rqrec.experiments.reproduce import ENCODER, FIGURES, METRICS, Reproduction

    if source == "custom" and interactions is None:
        raise typer.BadParameter("custom needs --interactions, a log of user_id, item_id and timestamp.")
    if source != "custom" and (interactions or items or embeddings):
        raise typer.BadParameter(f"--interactions, --items and --embeddings go with custom, not {source}.")
    files = CustomFiles(interactions, items, embeddings) if interactions else raw
    reproduction = Reproduction(
        source,
        files,
        out or Path("out") / source,
        seeds=seeds,
        max_minutes=max_minutes,
        encoder=encoder or ENCODER,
        tie_break=tie_break,
    )
    facts = reproduction.run()
    lines = [" " * 27 + "  ".join(f"{name:>9}" for name in METRICS)]
    for figures in FIGURES:
        cells = "  ".join(_cell(facts[figures][name]) for name in METRICS)
        lines.append(f"{figures.replace('_', ' '):<27}{cells}")
    emit(facts, as_json, "\n".join(lines))


def _cell(found: dict[str, Any]) -> str:
    return f"{found['mean']:9.4f}" + (f" ± {found['deviation']:.4f}" if "deviation" in found else "")
