"""Commands that make, run and inspect item tokenizers."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.app import (
    AsJson,
    Bindings,
    Configs,
    Engine,
    MaxMinutes,
    Processes,
    app,
    configured_function,
    emit,
    facts_of,
    sentence,
    within,
)


@app.command("train-rqvae", epilog="Example: rqrec train-rqvae configs/rqvae_ml100k.gin")
@sentence
def train_rqvae(
    configs: Configs,
    bindings: Bindings = [],  # noqa: B006
    max_minutes: MaxMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Train the RQ-VAE that turns items into semantic IDs."""
    folder = configured_function("train_rqvae", configs, within(max_minutes, bindings))()
    emit({"artifact": str(folder), **facts_of(folder)}, as_json, str(folder))


@app.command("run-rqvae", epilog="Example: rqrec run-rqvae configs/custom.gin")
@sentence
def run_rqvae(configs: Configs, bindings: Bindings = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Write the semantic IDs of own embeddings as one array."""
    path = configured_function("generate_semantic_ids", configs, bindings)()
    emit({"output": str(path)}, as_json, str(path))


@app.command("fit-rqkmeans", epilog="Example: rqrec fit-rqkmeans out/mine/embeddings --out out/mine/rqkmeans")
@sentence
def fit_rqkmeans(
    embeddings: Annotated[Path, typer.Argument(help="Folder of embeddings, or of their run.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    levels: Annotated[int, typer.Option(min=1, help="Codes of a semantic ID.")] = 3,
    codebook_size: Annotated[int, typer.Option(min=2, help="Codes of a level.")] = 256,
    balance: Annotated[
        float | None, typer.Option(min=1.0, help="Cap on a code's items, as a multiple of an even share.")
    ] = None,
    whiten_dim: Annotated[
        int | None, typer.Option(min=1, help="Cluster in so many whitened principal directions.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    as_json: AsJson = False,
) -> None:
    """The tokenizer without training: k-means on the residuals of the embeddings, level by level."""
    from rqrec.stages.fit_rqkmeans import fit_rqkmeans as fit

    sizes = {"codebook_size": codebook_size, "n_layers": levels, "balance": balance, "whiten_dim": whiten_dim}
    fit(embeddings, out, seed=seed, **sizes)
    emit({"artifact": str(out), **facts_of(out)}, as_json, str(out))


@app.command(
    epilog="Example: rqrec tokenize out/mine/rqkmeans out/mine/embeddings --out out/mine/semantic_ids"
)
@sentence
def tokenize(
    tokenizer: Annotated[
        str, typer.Argument(help="Folder of a tokenizer or of its run, .pt file or hub id.")
    ],
    embeddings: Annotated[
        Path | None, typer.Argument(help="Folder of embeddings, or of their run; not with --new.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")] = Path("out/semantic_ids"),
    dataset: Annotated[
        Path | None, typer.Option(help="Where the items have their ids; else numbers.")
    ] = None,
    collisions: Annotated[
        str, typer.Option(help="extra_code, or reassign: to the nearest free tuple.")
    ] = "extra_code",
    new: Annotated[
        Path | None, typer.Option(help="Embeddings of new items, .npy, to add to --table.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="With --new: the semantic IDs, which stay.")] = None,
    new_ids: Annotated[Path | None, typer.Option(help="With --new: their item ids, one a line.")] = None,
    processes: Processes = None,
    engine: Engine = "local",
    as_json: AsJson = False,
) -> None:
    """A semantic ID for every item; with --new, for items that came later."""
    from rqrec.core.workers import workers
    from rqrec.stages.inputs import Inputs
    from rqrec.stages.tokenize import tokenize as make
    from rqrec.stages.tokenize import tokenize_new

    if new is not None:
        if table is None:
            raise typer.BadParameter("--new needs --table, the semantic IDs that it adds to.")
        facts = tokenize_new(tokenizer, new, table, out, new_ids)
        words = f"{facts['new_items']} new items, {facts['items']} in all: {out}"
    elif embeddings is None:
        raise typer.BadParameter("Give the folder of the embeddings, or --new and --table.")
    else:
        item_ids = Inputs(embeddings, dataset).item_ids()
        several = None if engine == "local" and processes is None else workers(engine, processes)
        facts = make(tokenizer, embeddings, item_ids, out, collisions=collisions, workers=several)
        words = f"{facts['items']} semantic IDs; {facts['collision_rate']:.1%} of the items shared their codes: {out}"
    emit({"artifact": str(out), **facts}, as_json, words)


@app.command("inspect-ids", epilog="Example: rqrec inspect-ids out/demo --out out/demo/inspection")
@sentence
def inspect_ids(
    table: Annotated[Path, typer.Argument(help="Folder of semantic IDs, or of their run.")],
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder of the embeddings; by default the one in the same run.")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Folder of the dataset, for titles; by default the one in the same run."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a report with figures.")] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="Write each ID as language-model tokens, .jsonl.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How good a set of semantic IDs is: usage, collisions, and whether neighbours share prefixes."""
    from rqrec.stages.inspect_ids import inspect_table

    facts = inspect_table(table, embeddings, dataset, report=out, tokens=tokens)
    lines = [
        f"level {place}: {level['usage']:.1%} of {size} codes used, perplexity {level['perplexity']:.1f}, "
        f"{level['dead_codes']} dead"
        for place, (level, size) in enumerate(zip(facts["levels"], facts["codebook_sizes"], strict=True))
    ]
    lines.append(
        f"{facts['collision_rate']:.1%} of the items share their codes, at most {facts['largest_group']}."
    )
    lines += [f"Warning: {words}" for words in facts["warnings"]]
    emit(facts, as_json, "\n".join(lines))
