"""`rqrec tokenize`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Engine, Force, Processes, command, emit_artifact
from rqrec.core.workers import workers
from rqrec.stages.tokenize_config import TokenizeConfig


@command(
    "rqrec tokenize out/mine/rqkmeans out/mine/embeddings --dataset out/mine/dataset --out out/mine/semantic_ids",
    section="tokenize",
)
def tokenize(
    tokenizer: Annotated[
        str,
        typer.Argument(help="Folder of a tokenizer or its run folder, .pt file or Hugging Face repository."),
    ],
    config: TokenizeConfig,
    embeddings: Annotated[
        Path | None, typer.Argument(help="Folder of embeddings, or its run folder; not with --new.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")] = Path("out/semantic_ids"),
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset with the item ids; without it, items are numbered.")
    ] = None,
    new: Annotated[
        Path | None, typer.Option(help="Embeddings of new items, .npy, to add to --table.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="With --new: the semantic IDs to add to; they do not change.")
    ] = None,
    new_ids: Annotated[Path | None, typer.Option(help="With --new: their item ids, one per line.")] = None,
    processes: Processes = None,
    engine: Engine = "local",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Give every item a semantic ID; with --new, give new items theirs."""
    from rqrec.stages.tokenize import tokenize as run
    from rqrec.stages.tokenize import tokenize_new

    if new is not None:
        if table is None:
            raise typer.BadParameter("--new needs --table, the semantic IDs to add to.")
        if embeddings is not None or dataset is not None or processes is not None:
            raise typer.BadParameter("With --new, give no other embeddings, no --dataset and no --processes.")
        if engine != "local" or config != TokenizeConfig():
            raise typer.BadParameter(
                "New items get IDs like those of --table, in one process: leave out --collisions and --engine."
            )
        folder = tokenize_new(tokenizer, new, table, out, new_ids=new_ids, force=force)
        emit_artifact(folder, as_json, "{new_items} new items, {items} in total")
        return
    if table is not None or new_ids is not None:
        raise typer.BadParameter("--table and --new-ids go with --new.")
    if embeddings is None:
        raise typer.BadParameter("Give the folder of the embeddings, or --new and --table.")
    pool = None if engine == "local" and processes is None else workers(engine, processes)
    folder = run(config, tokenizer, embeddings, out, dataset=dataset, workers=pool, force=force)
    emit_artifact(folder, as_json, "{items} semantic IDs, collision rate {collision_rate:.1%}")
