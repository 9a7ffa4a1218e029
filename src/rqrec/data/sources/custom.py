"""Custom data: an interaction log, and items with texts or precomputed embeddings."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import EMBEDDINGS_FILE, read_vectors
from rqrec.data.ids import IdMap
from rqrec.data.interactions import COLUMNS, Interactions
from rqrec.data.tables import SUFFIXES, parse_errors_for, scan_table
from rqrec.data.templates import clean, fields_of, fill
from rqrec.data.times import column_to_seconds

ID_TYPES = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True)
class CustomFiles:
    """Paths of custom data."""

    interactions: Path
    """Interaction log (.parquet or .csv) with the columns user_id, item_id and timestamp."""
    items: Path | None = None
    """Items (.parquet, .csv or .jsonl) with item_id and either text or the fields of a template."""
    embeddings: Path | None = None
    """Embeddings (.npy), float [num_items, dim], in the order of `items`; without `items`, ids are "0", "1", ..."""

    def paths(self) -> tuple[Path, ...]:
        """All files, in a fixed order."""
        return tuple(Path(p) for p in (self.interactions, self.items, self.embeddings) if p is not None)

    @classmethod
    def in_folder(cls, folder: Path) -> "CustomFiles":
        """The files log.*, items.* and item_embeddings.npy of a folder.

        Raises FileNotFoundError unless there is exactly one log and at most one items file.
        """
        folder = Path(folder)
        log, items = (
            [p for suffix in SUFFIXES if (p := folder / f"{name}{suffix}").is_file()]
            for name in ("log", "items")
        )
        if len(log) != 1 or len(items) > 1:
            found = ", ".join(p.name for p in [*log, *items]) or "none of them"
            raise FileNotFoundError(
                f"{folder} needs one log.parquet or log.csv and at most one items.parquet, items.csv or "
                f"items.jsonl; it has {found}."
            )
        embeddings = folder / EMBEDDINGS_FILE
        return cls(log[0], items[0] if items else None, embeddings if embeddings.is_file() else None)


def load_custom(files: CustomFiles, template: str | None = None) -> tuple[Catalog, Interactions]:
    """Items and interactions of custom files; `template` (see `rqrec.data.templates`) builds texts from fields.

    The catalogue keeps the order of the items. With embeddings, its column `embedding_row` is the row of each
    item. Raises FileNotFoundError if a file is missing, ValueError if its content is invalid; the message names
    the file and what is expected.
    """
    if files.items is None and files.embeddings is None:
        raise ValueError(
            f"{files.interactions} does not describe the items: add an items file with texts, or "
            f"{EMBEDDINGS_FILE}."
        )
    rows = len(read_vectors(Path(files.embeddings))) if files.embeddings else None
    if files.items is None:
        assert rows is not None
        ids = pl.Series([str(row) for row in range(rows)])
        items = pl.DataFrame({"item_id": ids, "title": [""] * rows, "text": [""] * rows})
    else:
        items = _read_items(Path(files.items), template, text_needed=rows is None)
        if rows is not None and rows != len(items):
            raise ValueError(
                f"{files.embeddings} has {rows} rows, but {files.items} has {len(items)} items: "
                f"one row per item is required, in the same order."
            )
    if rows is not None:
        items = items.with_row_index("embedding_row")
    catalog = Catalog(items)
    return catalog, _read_log(Path(files.interactions), catalog.id_map)


def _as_ids(path: Path, table: pl.DataFrame, column: str) -> pl.Series:
    dtype = table.schema[column]
    if not (dtype.is_integer() or isinstance(dtype, ID_TYPES) or dtype == pl.Null):
        raise ValueError(f"{path}: {column} must hold strings or whole numbers, not {dtype}.")
    ids = table[column].cast(pl.String)
    if (empty := ids.is_null() | (ids == "")).any():
        row = empty.arg_true()[0]
        raise ValueError(f"{path}: {empty.sum()} rows have no {column} (the first is row {row}).")
    return ids


def _need_columns(path: Path, columns: list[str], needed: tuple[str, ...]) -> None:
    if missing := [column for column in needed if column not in columns]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; its columns are {', '.join(columns)}.")


def _read_items(path: Path, template: str | None, *, text_needed: bool) -> pl.DataFrame:
    with parse_errors_for(path):
        table = scan_table(path).collect()
    needed = ("item_id", *(fields_of(template) if template else ()))
    _need_columns(path, table.columns, needed)
    if template is None and text_needed and "text" not in table.columns:
        raise ValueError(
            f"{path} has no column text; its columns are {', '.join(table.columns)}. Add one, or give a "
            f"template of its fields, such as '{{title}}; Brand: {{brand}}'."
        )
    if not table.height:
        raise ValueError(f"{path} is empty: at least one item is required.")
    ids = _as_ids(path, table, "item_id")
    try:
        IdMap(ids)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    template = template or "{text}"
    texts = [fill(template, row) for row in table.iter_rows(named=True)]
    titles = [clean(value) for value in table["title"]] if "title" in table.columns else [""] * len(texts)
    if text_needed and (without := [i for i, text in zip(ids, texts, strict=True) if not text]):
        raise ValueError(
            f"{path}: {len(without)} items have no text (the first is {without[0]!r}). Add texts, remove these "
            f"items, or provide {EMBEDDINGS_FILE}."
        )
    return pl.DataFrame({"item_id": ids, "title": titles, "text": texts})


def _read_log(path: Path, id_map: IdMap) -> Interactions:
    with parse_errors_for(path):
        table = scan_table(path)
        _need_columns(path, table.collect_schema().names(), COLUMNS)
        log = table.select(COLUMNS).collect()
    if not log.height:
        raise ValueError(f"{path} is empty: at least one interaction is required.")
    times = column_to_seconds(path, log["timestamp"])
    log = log.with_columns(
        user_id=_as_ids(path, log, "user_id"),
        item_id=_as_ids(path, log, "item_id"),
        timestamp=times.seconds,
        nanosecond=times.nanoseconds,
    )
    catalog_ids = id_map.all.implode()
    unknown = log.select(pl.col("item_id").unique(maintain_order=True)).filter(
        ~pl.col("item_id").is_in(catalog_ids)
    )
    if unknown.height:
        raise ValueError(
            f"{path} has {unknown.height} item ids that are not among the items (the first is "
            f"{unknown['item_id'][0]!r}). Add them to the items, or remove their interactions."
        )
    try:
        return Interactions(log)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
