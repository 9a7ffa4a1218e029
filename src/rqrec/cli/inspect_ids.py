"""`rqrec inspect-ids`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, command, emit


@command("rqrec inspect-ids out/demo --out out/demo/inspection")
def inspect_ids(
    table: Annotated[Path, typer.Argument(help="Folder of semantic IDs, or its run folder.")],
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder of the embeddings; by default the one in the run folder.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset with the titles; by default the one in the run folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a report with figures.")] = None,
    tokens: Annotated[
        Path | None, typer.Option(help=".jsonl file to write the IDs to, as language-model tokens.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the quality of semantic IDs: usage, collisions, and whether neighbours share prefixes."""
    from rqrec.stages.inspect_ids import inspect_table

    result = inspect_table(table, embeddings, dataset, report=out, tokens=tokens)
    lines = [
        f"level {index}: {level['usage']:.1%} of {size} codes used, perplexity {level['perplexity']:.1f}, "
        f"{level['dead_codes']} dead"
        for index, (level, size) in enumerate(zip(result["levels"], result["codebook_sizes"], strict=True))
    ]
    lines.append(
        f"{result['collision_rate']:.1%} of the items share their codes with another item; the largest such group "
        f"has {result['largest_group']} items."
    )
    lines += [f"Warning: {warning}" for warning in result["warnings"]]
    emit(result, as_json, "\n".join(lines))
