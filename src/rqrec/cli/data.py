"""Commands that make data."""

import resource
import time
from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.app import (
    AsJson,
    DataDir,
    app,
    emit,
    sentence,
)


@app.command(epilog="Example: rqrec prepare amazon --variant beauty --data-dir dataset/amazon")
@sentence
def prepare(
    source: Annotated[str, typer.Argument(help="amazon, movielens or custom.")],
    variant: Annotated[
        str,
        typer.Option("--variant", "--split", help="beauty, sports, toys; 100k, 1m, 32m, latest-small."),
    ] = "",
    data_dir: DataDir = Path("dataset"),
    interactions: Annotated[Path | None, typer.Option(help="custom: a log, .parquet or .csv.")] = None,
    items: Annotated[Path | None, typer.Option(help="custom: items, .parquet, .csv or .jsonl.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="custom: vectors of the items, .npy.")] = None,
    template: Annotated[str | None, typer.Option(help='Text of an item, such as "{title}; {brand}".')] = None,
    tie_break: Annotated[str, typer.Option(help="Order at equal times: keep or hash.")] = "keep",
    user_core: Annotated[int, typer.Option(min=1, help="Interactions of a user, at least.")] = 1,
    item_core: Annotated[int, typer.Option(min=1, help="Interactions of an item, at least.")] = 1,
    max_history: Annotated[int | None, typer.Option(min=1, help="Last interactions of a user kept.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the artefact.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """From raw files to items with text and users' sequences; downloads what is missing."""
    from rqrec.data.sources.custom import CustomFiles
    from rqrec.stages.prepare import Settings
    from rqrec.stages.prepare import prepare as make

    start = time.monotonic()
    settings = Settings(source, variant, template, tie_break, user_core, item_core, max_history)
    raw = CustomFiles(interactions, items, embeddings) if interactions else data_dir
    folder = out or data_dir / "processed" / (variant or "own") / "dataset"
    facts = {
        "artifact": str(folder),
        **make(settings, raw, folder, force=force).counts(),
        "seconds": round(time.monotonic() - start, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    emit(
        facts,
        as_json,
        f"{facts['users']} users, {facts['items']} items, {facts['interactions']} interactions: {folder}",
    )


@app.command(epilog="Example: rqrec embed out/mine/dataset --out out/mine/embeddings --collaborative 64")
@sentence
def embed(
    dataset: Annotated[Path, typer.Argument(help="Folder of a dataset, or of its run.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    encoder: Annotated[str, typer.Option(help="A sentence-transformers model, by name or folder.")] = "",
    embeddings: Annotated[
        Path | None, typer.Option(help="Vectors of your own in place of text, .npy.")
    ] = None,
    collaborative: Annotated[
        int, typer.Option(min=0, help="Width of vectors of who took what together, to append; 0: none.")
    ] = 0,
    devices: Annotated[
        list[str], typer.Option("--device", help="Encode on these at once: cpu, cuda:0; again for more.")
    ] = [],  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Make it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Item texts as vectors."""
    from rqrec.data.encoders import DEFAULT_MODEL
    from rqrec.stages.embed import Collaborative, embed_catalog

    joined = Collaborative(collaborative) if collaborative else None
    vectors = embed_catalog(
        dataset,
        out,
        encoder or DEFAULT_MODEL,
        collaborative=joined,
        vectors=embeddings,
        devices=devices,
        force=force,
    ).vectors
    items, dim = vectors.shape
    facts = {"artifact": str(out), "items": items, "dim": dim}
    emit(facts, as_json, f"{items} vectors of {dim} dimensions: {out}")
