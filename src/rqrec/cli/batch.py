"""The command that recommends to everybody."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.app import AsJson, Engine, Processes, app, emit, sentence


@app.command(
    "batch-recommend",
    epilog="Example: rqrec batch-recommend --artifact out/demo --input users.parquet --output out/batch --k 20",
)
@sentence
def batch_recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or of its run.")],
    source: Annotated[
        str,
        typer.Option(
            "--input",
            help="A .parquet or .csv file, a folder of them, or a pattern in quotes. Columns: user_id and "
            "history (item ids, oldest first; in CSV between commas), or a log: user_id, item_id, timestamp.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the recommendations.")],
    k: Annotated[int, typer.Option(min=1, help="How many for each user.")] = 20,
    beam_width: Annotated[int, typer.Option(min=1, help="Prefixes kept in the search; at least k are.")] = 50,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--allow-seen", help="Whether items of the history may return.")
    ] = True,
    unknown: Annotated[
        str, typer.Option(help="raise or skip: what to do about an id that the catalogue lacks.")
    ] = "raise",
    rows_per_part: Annotated[
        int, typer.Option(min=1, help="Users of a part, a multiple of 64: what an interruption costs.")
    ] = 8192,
    processes: Processes = None,
    engine: Engine = "local",
    as_json: AsJson = False,
) -> None:
    """Recommendations for every user of a file of any size, as parquet files; interrupted, it goes on."""
    from rqrec.core.workers import workers
    from rqrec.serving.batch import BatchConfig
    from rqrec.serving.batch import batch_recommend as run

    if unknown not in ("raise", "skip"):
        raise typer.BadParameter(f"--unknown is {unknown!r}: use raise or skip.")
    config = BatchConfig(k, beam_width, exclude_seen, "skip" if unknown == "skip" else "raise", rows_per_part)
    facts = run(artifact, source, output, config, workers(engine, processes))
    words = f"{facts['users']} users, {facts['recommendations']} recommendations in {facts['parts']} parts: {output}"
    if facts["skipped_ids"]:
        words += (
            f"\n{facts['skipped_ids']} ids of their histories are not in the catalogue and were passed over."
        )
    emit({"artifact": str(output), **facts}, as_json, words)
