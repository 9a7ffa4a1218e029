"""Add, remove and update items of a model that is served (see `rqrec.retrieval.changes`).

Shapes: N items of the training, M new items, L levels, D width of a vector, C width of its content, P (or K) most
similar items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from rqrec.core.progress import log
from rqrec.data.catalog import Catalog
from rqrec.data.fields import ANEW, INDEX
from rqrec.data.ids import PADDING, IdMap, UnknownIdError
from rqrec.data.item_texts import fields_given
from rqrec.data.nearest import nearest
from rqrec.data.new_fields import as_fields, field_types
from rqrec.data.templates import fill
from rqrec.knn.graph import CONTENT_NEIGHBOURS
from rqrec.knn.index import KnnIndex
from rqrec.models.new_items import with_new_items
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.artifact import CODES, CodesModel, Live, OtherExpert, RetrievalArtifact
from rqrec.retrieval.changes import DESCRIPTION, CatalogueChanges, without_fields
from rqrec.retrieval.ensemble import ExpertSettings
from rqrec.retrieval.item_vectors import ItemVectors
from rqrec.retrieval.new_items import CONTENT
from rqrec.tokenizer.loading import KeptTokenizer
from rqrec.tokenizer.semantic_ids import SemanticIdTable


def describe_items(
    rows: Sequence[Mapping[str, Any]], catalog: Catalog, template: str | None = None
) -> pl.DataFrame:
    """Items with `item_id`, `title`, `text` and fields of the catalogue, for `add_items`.

    The text of an item that has none is made with the template from its title and fields, or else is its title.
    Raises ValueError on a missing or empty id or title, values that are no text, and fields that the catalogue does
    not have or whose values are of another type.
    """
    columns: dict[str, list[str]] = {name: [] for name in ("item_id", *DESCRIPTION)}
    for number, row in enumerate(rows):
        values = {**row, "text": row.get("text") or _text_of(row, template) or row.get("title")}
        for name, column in columns.items():
            if not isinstance(value := values.get(name), str) or not value.strip():
                raise ValueError(
                    f"Item {number} has no {name}, but {value!r}: give each item an id and a title."
                )
            column.append(value)
    if not rows:
        raise ValueError("There are no items: give at least one.")
    return pl.DataFrame(columns).hstack(_fields_of(rows, catalog))


def _text_of(row: Mapping[str, Any], template: str | None) -> str:
    """The text that a template makes of an item; its title has the name that it had in the items of the training."""
    if template is None:
        return ""
    return fill(template, {name: row[own] for name, own in fields_given(template, row).items()})


def describe_updates(rows: Sequence[Mapping[str, Any]], catalog: Catalog) -> pl.DataFrame:
    """Changes of items for `update_items`: `item_id`, `title`, `text` and fields of the catalogue, null if not given.

    Raises ValueError as `describe_items`.
    """
    names = ("item_id", *DESCRIPTION)
    for row in rows:
        for name in names:
            if not isinstance(row.get(name, ""), str | None) or not row.get("item_id"):
                raise ValueError(
                    f"{name} is {row.get(name)!r}, but must be text; each item needs its item_id."
                )
            if row.get(name) is not None and not row[name].strip():
                raise ValueError(
                    f"Item {row['item_id']!r} has the {name} {row[name]!r}: give one with letters, or leave it out."
                )
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String)).hstack(_fields_of(rows, catalog))


def _fields_of(rows: Sequence[Mapping[str, Any]], catalog: Catalog) -> pl.DataFrame:
    """What rows say beside id, title and text."""
    names = dict.fromkeys(name for row in rows for name in row if name not in ("item_id", *DESCRIPTION))
    values = {name: [row.get(name) for row in rows] for name in names}
    return as_fields([row["item_id"] for row in rows], values, field_types(catalog.items))


def add_items(
    trained: RetrievalArtifact,
    changes: CatalogueChanges,
    items: pl.DataFrame,
    vectors_MD: NDArray[np.floating] | None,
) -> CatalogueChanges:
    """The changes with more items: `item_id`, `title`, `text` and fields, and the vectors of those that are new.

    `vectors_MD` (whole, of the model's width) may be None if all items were removed before: these come back, with
    their semantic IDs. Raises ValueError on an id that is in the catalogue, and if the model cannot take new items.
    """
    ids, known = items["item_id"], _ids(trained, changes)
    if len(repeated := ids.filter(ids.is_duplicated())):
        raise ValueError(
            f"Item id {repeated[0]!r} occurs more than once among the new items: give each once."
        )
    found = known.find(ids)
    returning = np.isin(found, changes.removed)
    if len(there := np.flatnonzero((found != PADDING) & ~returning)):
        raise ValueError(
            f"Item {ids[int(there[0])]!r} is in the catalogue already: leave it out, or change its title or text "
            f"with `rqrec items update`."
        )
    if returning.any():
        log(f"{returning.sum()} items were removed before and come back with the semantic IDs that they had.")
    changes = replace(changes, removed=np.setdiff1d(changes.removed, found[returning]))
    changes = _described(trained, changes, found[returning], items.filter(returning), anew=True)
    items = items.filter(~returning)
    if items.is_empty():
        return changes
    vectors = can_take_new_items(trained)
    if vectors_MD is None or len(vectors_MD) != len(returning):
        rows = "none" if vectors_MD is None else len(vectors_MD)
        raise ValueError(f"There are {len(returning)} items, but {rows} vectors: give one for each item.")
    new_MD = vectors.complete(vectors_MD[~returning])
    if len(zero := np.flatnonzero(~vectors_MD[~returning].any(axis=1))):
        log(
            f"{len(zero)} of {len(items)} new items have a vector of zeros (the first is "
            f"{items['item_id'][int(zero[0])]!r}): without content they share their codes, and nothing tells whom "
            f"they suit."
        )
    codes = {}
    for name, model in trained.codes_models.items():
        assert model.tokenizer is not None
        table = _table(model.table, known, changes.codes.get(name))
        ids_ML, moved = _free_ids(model.tokenizer, table, new_MD)
        if moved:
            log(
                f"{moved} of {len(items)} new items get the nearest free semantic ID of {name}, because all items "
                f"that its code tuple has room for are there."
            )
        codes[name] = np.concatenate([changes.codes.get(name, ids_ML[:0]), ids_ML])
    old = changes.vectors_MD is not None
    changes = replace(
        changes,
        added=pl.concat([changes.added, items], how="diagonal"),
        vectors_MD=np.concatenate([changes.vectors_MD, new_MD]) if old else new_MD,
        codes=codes,
    )
    if not any(isinstance(one, KnnIndex) and one.settings.content_weight for one in trained.others.values()):
        return changes
    similar = nearest(vectors.content_of(new_MD), vectors.content, CONTENT_NEIGHBOURS)
    rows_MP, cosines_MP = similar.rows_MK.astype(np.int32), similar.cosines_MK.clip(min=0)
    return replace(
        changes,
        neighbours_MP=np.concatenate([changes.neighbours_MP, rows_MP]) if old else rows_MP,
        cosines_MP=np.concatenate([changes.cosines_MP, cosines_MP]) if old else cosines_MP,
    )


def all_return(artifact: RetrievalArtifact, item_ids: Sequence[str] | pl.Series) -> bool:
    """Whether all these items were removed before, so that they come back without vectors."""
    if artifact.live is None:
        return False
    trained, changes, _ = artifact.live
    return bool(np.isin(_ids(trained, changes).find(item_ids), changes.removed).all())


def remove_items(
    trained: RetrievalArtifact, changes: CatalogueChanges, item_ids: Sequence[str]
) -> CatalogueChanges:
    """The changes with fewer items. Raises UnknownIdError on an id that is not in the catalogue, or was removed."""
    items = _present(trained, changes, item_ids)
    removed = np.union1d(changes.removed, items)
    if len(removed) == len(_ids(trained, changes)):
        raise ValueError("These are all items of the catalogue: at least one has to stay.")
    return replace(changes, removed=removed)


def update_items(
    trained: RetrievalArtifact, changes: CatalogueChanges, items: pl.DataFrame
) -> CatalogueChanges:
    """The changes with items described otherwise: `item_id`, and `title`, `text` or fields; null leaves one as it is.

    Raises UnknownIdError on an id that is not in the catalogue, or was removed.
    """
    ids = items["item_id"]
    if len(repeated := ids.filter(ids.is_duplicated())):
        raise ValueError(f"Item id {repeated[0]!r} occurs more than once among the updates: give each once.")
    if all(items[name].is_null().all() for name in items.columns if name != "item_id"):
        raise ValueError("No item has a title, a text or a field that changes: give at least one.")
    return _described(trained, changes, _present(trained, changes, ids.to_list()), items)


def can_take_new_items(trained: RetrievalArtifact) -> ItemVectors:
    """The vectors of the model's items. Raises ValueError if it lacks what gives new items their semantic IDs."""
    kept = [model.tokenizer for model in trained.codes_models.values()]
    vectors = trained.vectors
    if vectors is None or any(one is None or one.embeddings != vectors.settings.source for one in kept):
        raise ValueError(
            "This model does not hold its tokenizers and the vectors of its items, which new items need. Make the "
            "semantic IDs again with this version of rqrec (`rqrec tokenize --force`), and train or join the model "
            "with --embeddings."
        )
    return vectors


def apply_changes(trained: RetrievalArtifact, changes: CatalogueChanges) -> RetrievalArtifact:
    """The model that is served: it reads all items, and recommends those that were not removed.

    Raises ValueError if the changes do not fit the model.
    """
    changes.check_fits(len(trained.catalog), trained.codes_models)
    catalog, count = changes.catalog(trained.catalog), len(changes.added)
    live = Live(trained, changes, changes.available(len(catalog)))
    artifact = trained._replace(catalog=catalog, live=live)
    if live.has_new:
        expert = ExpertSettings(trained.new_items.sharpness)
        artifact = artifact._replace(settings={**trained.settings, CONTENT: expert})
    vectors = trained.vectors
    if not count or changes.vectors_MD is None or vectors is None:
        return artifact
    content_MC = torch.from_numpy(vectors.scaled(vectors.content_of(changes.vectors_MD)))

    def extended(name: str, one: OtherExpert) -> OtherExpert:
        match one:
            case CodesModel(model, table, tokenizer):
                table = _table(table, catalog.id_map, changes.codes[name])
                return CodesModel(with_new_items(model, content_MC), table, tokenizer)
            case SasRec() as model:
                return with_new_items(model, content_MC)
            case KnnIndex() as index:
                if changes.neighbours_MP is None:  # as an item without interactions has none without content
                    nobody = torch.full((count, 0), PADDING)
                    return index.with_rows(nobody, nobody.float())
                neighbours_MP, cosines_MP = changes.neighbours_MP, changes.cosines_MP
                weight = index.settings.content_weight
                return index.with_rows(torch.from_numpy(neighbours_MP), weight * torch.from_numpy(cosines_MP))

    first = extended(CODES, trained.codes_models[CODES])
    assert isinstance(first, CodesModel)
    others = {name: extended(name, one) for name, one in trained.others.items()}
    return artifact._replace(model=first.model, table=first.table, others=others)


def _table(table: SemanticIdTable, ids: IdMap, new_ML: NDArray[np.int64] | None) -> SemanticIdTable:
    """The table with the semantic IDs of new items."""
    if new_ML is None:
        return table
    return replace(table, item_ids=ids, codes_NL=np.concatenate([table.codes_NL, new_ML]))


def _free_ids(
    tokenizer: KeptTokenizer, table: SemanticIdTable, new_MD: NDArray[np.floating]
) -> tuple[NDArray[np.int64], int]:
    """Semantic IDs of new items with these vectors, and how many got another tuple than the tokenizer's."""
    model, vectors = tokenizer.model, torch.from_numpy(new_MD.astype(np.float32))
    codes_ML = model.semantic_ids(vectors).numpy()
    return table.free_ids(codes_ML, lambda rows: model.last_level_costs(vectors[rows]).numpy())


def _ids(trained: RetrievalArtifact, changes: CatalogueChanges) -> IdMap:
    """The ids of all items, those that were removed included."""
    if changes.added.is_empty():
        return trained.catalog.id_map
    return IdMap(pl.concat([trained.catalog.id_map.all, changes.added["item_id"]]))


def _present(
    trained: RetrievalArtifact, changes: CatalogueChanges, item_ids: Sequence[str]
) -> NDArray[np.int64]:
    """The indices of items. Raises UnknownIdError on an id that is not in the catalogue, or was removed."""
    items = _ids(trained, changes).indices(item_ids)
    if len(gone := np.flatnonzero(np.isin(items, changes.removed))):
        raise UnknownIdError(f"Item {item_ids[int(gone[0])]!r} was removed from the catalogue already.")
    return items


def _described(
    trained: RetrievalArtifact,
    changes: CatalogueChanges,
    items: NDArray[np.int64],
    values: pl.DataFrame,
    *,
    anew: bool = False,
) -> CatalogueChanges:
    """The changes with items (indices) described otherwise.

    Null leaves a title, text or field as it is; in a description that is `anew`, a field has no value then.
    """
    values = values.with_columns(pl.Series(INDEX, items)).drop("item_id")
    if not len(values) or values.width == 1:
        return changes
    old = len(trained.catalog)
    new, own = values.filter(pl.col(INDEX) >= old), values.filter(pl.col(INDEX) < old)
    added = pl.concat([changes.added, new.drop(INDEX).clear()], how="diagonal").with_row_index(
        INDEX, offset=old
    )
    added = added.with_columns(pl.col(INDEX).cast(pl.Int64))
    updated = changes.updated
    if anew:
        added, own = without_fields(added, new[INDEX]), own.with_columns(pl.lit(True).alias(ANEW))
        updated = updated.filter(~pl.col(INDEX).is_in(own[INDEX].implode()))
    added = added.update(new, on=INDEX).drop(INDEX)
    updated = pl.concat([updated, own], how="diagonal")
    latest = updated.group_by(INDEX).agg(pl.all().drop_nulls().last())
    return replace(changes, added=added, updated=latest.sort(INDEX))
