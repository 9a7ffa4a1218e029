"""`rqrec inspect-ids`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, command, emit
from rqrec.stages.inspect_ids import inspect_table


@command("rqrec inspect-ids out/demo --out out/demo/inspection")
def inspect_ids(
    table: Annotated[Path, typer.Argument(help="Folder of semantic IDs, or of their run.")],
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder of the embeddings; by default the one in the same run.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset with the titles; by default the one in the same run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a report with figures.")] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="Write each ID as language-model tokens, .jsonl.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the quality of semantic IDs: usage, collisions, and whether neighbours share prefixes."""
    facts = inspect_table(table, embeddings, dataset, report=out, tokens=tokens)
    lines = [
        f"level {index}: {level['usage']:.1%} of {size} codes used, perplexity {level['perplexity']:.1f}, "
        f"{level['dead_codes']} dead"
        for index, (level, size) in enumerate(zip(facts["levels"], facts["codebook_sizes"], strict=True))
    ]
    lines.append(
        f"{facts['collision_rate']:.1%} of the items share their codes, at most {facts['largest_group']}."
    )
    lines += [f"Warning: {words}" for words in facts["warnings"]]
    emit(facts, as_json, "\n".join(lines))
