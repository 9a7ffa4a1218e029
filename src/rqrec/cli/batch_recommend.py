"""`rqrec batch-recommend`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Engine, Processes, command, emit
from rqrec.core.workers import workers
from rqrec.serving.batch_config import BatchConfig


@command(
    "rqrec batch-recommend --artifact out/demo --input users.parquet --out out/batch --k 20",
    section="batch_recommend",
)
def batch_recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or its run folder.")],
    source: Annotated[
        str,
        typer.Option(
            "--input",
            help="A table (.parquet, .csv, .tsv, .jsonl, .json; also .gz), a folder of them, or a pattern in quotes. "
            "Columns: user_id and history (item ids, oldest first; in CSV comma-separated or a JSON list), and "
            "timestamps for a model with time gaps; or a log: user_id, item_id, timestamp.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "--output", help="Folder of the recommendations.")],
    config: BatchConfig,
    processes: Processes = None,
    engine: Engine = "local",
    as_json: AsJson = False,
) -> None:
    """Recommend items to every user of a file of any size, as parquet files; interrupted runs can be resumed."""
    from rqrec.serving.batch import batch_recommend as run

    result = run(artifact, source, out, config, workers(engine, processes))
    text = (
        f"{result['users']} users, {result['recommendations']} recommendations in {result['parts']} parts: "
        f"{out}"
    )
    if result["skipped_ids"]:
        text += f"\n{result['skipped_ids']} ids in the histories are not in the catalogue and were skipped."
    emit({"artifact": str(out), **result}, as_json, text)
