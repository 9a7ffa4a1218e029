"""`rqrec items`: change the catalogue of a trained model (see `rqrec.retrieval.changes`)."""

from collections.abc import Sequence
from pathlib import Path

from rqrec.core.artifact import find
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import read_with_zeros
from rqrec.data.new_fields import field_types
from rqrec.data.sources.custom import read_item_updates, read_new_items
from rqrec.retrieval.live_catalog import (
    add_items,
    all_return,
    can_take_new_items,
    remove_items,
    update_items,
)
from rqrec.retrieval.versions import Version, change, read_live, versions


def add(artifact: Path, items: Path, embeddings: Path | None = None) -> Version:
    """Add the items of a table to the catalogue of a "retrieval" artefact, and return its new version.

    They are encoded by the model's own encoder, unless `embeddings` (.npy, one row for each item, in the same order)
    are given. Items that were removed come back with the semantic IDs that they had. Raises ValueError on invalid
    items or embeddings, and if the model does not hold what new items need.
    """
    live = read_live(artifact)
    trained = live.artifact.as_trained
    kept = can_take_new_items(trained)
    encoded = embeddings is None
    types = field_types(trained.catalog.items)
    described = read_new_items(items, types, kept.settings.template, text_needed=encoded)
    vectors = None
    if embeddings is not None:
        vectors = read_with_zeros(embeddings)[0]
    elif not all_return(live.artifact, described["item_id"]):
        vectors = kept.encode(described["text"].to_list())
    made = change(
        artifact,
        f"{len(described)} added",
        lambda trained, before: add_items(trained, before, described, vectors),
        live,
    )
    return _version(artifact, made.version)


def remove(artifact: Path, item_ids: Sequence[str]) -> Version:
    """Remove items from the catalogue of a "retrieval" artefact, and return its new version."""
    made = change(
        artifact,
        f"{len(set(item_ids))} removed",
        lambda trained, before: remove_items(trained, before, item_ids),
    )
    return _version(artifact, made.version)


def update(artifact: Path, items: Path) -> Version:
    """Change titles, texts and fields of items to those of a table, and return the new version of the catalogue."""
    values = read_item_updates(items, field_types(Catalog.read(find(artifact, "retrieval")).items))
    made = change(
        artifact, f"{len(values)} updated", lambda trained, before: update_items(trained, before, values)
    )
    return _version(artifact, made.version)


def _version(artifact: Path, number: int) -> Version:
    return next(one for one in versions(find(artifact, "retrieval")) if one.number == number)
