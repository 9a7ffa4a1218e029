"""`rqrec items`: find, add, remove and update items of a trained model, and go back to an earlier catalogue."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rqrec.cli.command import AsJson, command, command_group, emit
from rqrec.retrieval.defaults import DEFAULT_K

if TYPE_CHECKING:
    from rqrec.retrieval.versions import Version


@command_group
def items() -> None:
    """Find items of a trained model by words, and add, remove and update items without training."""


Artifact = Annotated[Path, typer.Argument(help="Folder of a trained retrieval model, or its run folder.")]


def _emit(version: "Version", as_json: bool) -> None:
    text = f"version {version.number}: {version.what}, {version.items:,} items, {version.new:,} of them new"
    emit(version._asdict(), as_json, text)


@command('rqrec items find out/demo "star wars"', group=items)
def find(
    artifact: Artifact,
    words: Annotated[
        list[str], typer.Argument(help="Words of the title or any other field; typos are forgiven.")
    ],
    k: Annotated[int, typer.Option(min=1, help="Number of items to show.")] = DEFAULT_K,
    as_json: AsJson = False,
) -> None:
    """Find items by words, with the ids that histories, filters and changes of items name."""
    from rqrec.retrieval.model_items import read_items
    from rqrec.serving.search_index import SearchIndex

    query = " ".join(words)
    catalog, available_N, counts_N = read_items(artifact)
    found = SearchIndex().view(catalog.items, available_N, counts_N).found_items(query, k, catalog)
    width = max((len(item.item_id) for item in found), default=0)
    lines = [f"{item.item_id:>{width}}  {item.title}" for item in found]
    emit(
        {"query": query, "items": [asdict(item) for item in found]},
        as_json,
        "\n".join(lines) or f"No item has {query!r} in a field: try fewer or other words.",
    )


@command("rqrec items add out/mine --items new.csv", group=items)
def add(
    artifact: Artifact,
    items: Annotated[
        Path, typer.Option(help="New items: .parquet, .csv or .jsonl with item_id, title, texts and fields.")
    ],
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Their embeddings, .npy, if those of the model's items were given, too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add items: they are recommended from now on, without any training."""
    from rqrec.stages import items as stage

    _emit(stage.add(artifact, items, embeddings), as_json)


@command("rqrec items remove out/mine B00001 B00002", group=items)
def remove(
    artifact: Artifact,
    item_ids: Annotated[list[str], typer.Argument(help="Ids of the items.")],
    as_json: AsJson = False,
) -> None:
    """Remove items: they are never recommended again, and still read in histories."""
    from rqrec.stages import items as stage

    _emit(stage.remove(artifact, item_ids), as_json)


@command("rqrec items update out/mine --items changed.csv", group=items)
def update(
    artifact: Artifact,
    items: Annotated[Path, typer.Option(help="Items with item_id, and title, text or fields.")],
    as_json: AsJson = False,
) -> None:
    """Change titles, texts and fields of items; their semantic IDs stay as they are."""
    from rqrec.stages import items as stage

    _emit(stage.update(artifact, items), as_json)


@command("rqrec items log out/mine", group=items)
def log(artifact: Artifact, as_json: AsJson = False) -> None:
    """List the versions of the catalogue; the current one has a star."""
    from rqrec.core import artifact as artifacts
    from rqrec.retrieval.changes import current_version
    from rqrec.retrieval.versions import versions

    folder = artifacts.find(artifact, "retrieval")
    current, found = current_version(folder), versions(folder)
    lines = [
        f"{'*' if one.number == current else ' '} {one.number:4d}  {one.made or '':25s}  {one.items:12,d} items  "
        f"{one.what}{f' (from version {one.based_on})' if one.number else ''}"
        for one in found
    ]
    emit({"current": current, "versions": [one._asdict() for one in found]}, as_json, "\n".join(lines))


@command("rqrec items rollback out/mine 2", group=items)
def rollback(
    artifact: Artifact,
    version: Annotated[
        int | None, typer.Argument(help="A version; by default the one before the current one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make another version of the catalogue the current one; 0 is that of the training."""
    from rqrec.retrieval.versions import roll_back

    number = roll_back(artifact, version)
    emit({"version": number}, as_json, f"version {number} is the current one")
