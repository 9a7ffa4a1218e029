"""Custom data: an interaction log, and items with texts or precomputed embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rqrec.core.errors import first_few
from rqrec.core.progress import log as say
from rqrec.core.values import Config, Share
from rqrec.data.catalog import Catalog
from rqrec.data.columns import LOG_ROLES, OPTIONS, find_column, listed, renamed
from rqrec.data.embeddings import EMBEDDINGS_FILE, read_vectors
from rqrec.data.fields import EMBEDDING_ROW, kept_fields
from rqrec.data.ids import LONGEST_ID, IdMap
from rqrec.data.interactions import FRACTION, Interactions
from rqrec.data.invalid_rows import InvalidRows
from rqrec.data.item_texts import (
    fields_given,
    is_readable,
    readable,
    template_of_all,
    text_column,
    title_column,
)
from rqrec.data.log_table import LogTable, read_as_log
from rqrec.data.new_fields import FieldTypes, as_fields, known_fields
from rqrec.data.tables import BLANK, Table, open_table, tables_named
from rqrec.data.templates import clean, fields_of, fill
from rqrec.data.times import ALLOWED, read_times

LOG_NAME, ITEMS_NAME = "log", "items"
ID_TYPES = (pl.String, pl.Categorical, pl.Enum)
# How tools write a missing value, so that it may be no id.
NO_VALUES = ["NaN", "nan", "NULL", "null", "None", "none", "N/A", "NA", "\\N", "<NA>", "undefined"]
# Floats hold every whole number below these.
EXACT: dict[Any, int] = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}


@dataclass(frozen=True, kw_only=True)
class CustomOptions(Config):
    """How custom files are read."""

    user_column: str | None = None
    """custom: column of the log with the user ids; by default recognised by its name."""
    item_column: str | None = None
    """custom: column of the log and of the items with the item ids; by default recognised by its name."""
    time_column: str | None = None
    """custom: column of the log with the times; by default recognised by its name."""
    rating_column: str | None = None
    """custom: column of the log with the ratings, for min_rating; by default recognised by its name."""
    min_rating: float | None = None
    """custom: leave out interactions with a lower rating; by default ratings are not read."""
    drop_invalid: bool = False
    """custom: drop rows that cannot be used, instead of refusing the file."""
    max_invalid: Share = 1.0
    """custom: with drop_invalid, refuse a file of which a larger share than this cannot be used."""
    keep_duplicates: bool = False
    """custom: keep rows that repeat the user, item and time of an earlier row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rating_column is not None and self.min_rating is None:
            raise ValueError("rating_column has no effect without min_rating: give both, or leave it out.")

    @property
    def columns(self) -> dict[str, str | None]:
        """The column that is given for each role, None for those that are recognised."""
        return {role: getattr(self, option) for role, option in OPTIONS.items()}


@dataclass(frozen=True)
class CustomFiles:
    """Paths of custom data."""

    interactions: Path
    """Interaction log with the columns user_id, item_id and timestamp (see `rqrec.data.tables`)."""
    items: Path | None = None
    """Items with item_id, and text or other fields."""
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
        log, items = tables_named(folder, LOG_NAME), tables_named(folder, ITEMS_NAME)
        if len(log) != 1 or len(items) > 1:
            found = ", ".join(p.name for p in [*log, *items]) or "none of them"
            raise FileNotFoundError(
                f"{folder} needs one log.parquet or log.csv and at most one items.parquet, items.csv or "
                f"items.jsonl; it has {found}."
            )
        embeddings = folder / EMBEDDINGS_FILE
        return cls(log[0], items[0] if items else None, embeddings if embeddings.is_file() else None)


def load_custom(
    files: CustomFiles, template: str | None = None, options: CustomOptions | None = None
) -> tuple[Catalog, Interactions]:
    """Items and interactions of custom files; `template` (see `rqrec.data.templates`) builds texts from fields.

    The catalogue keeps the order of the items. With embeddings, its column `EMBEDDING_ROW` is the row of each
    item. What was recognised in the files, and what was left out, is logged. Raises FileNotFoundError if a file is
    missing, ValueError if its content is invalid; the message names the file and what is expected.
    """
    options = options or CustomOptions()
    if files.items is None and files.embeddings is None:
        raise ValueError(
            f"{files.interactions} does not describe the items: add an items file with texts, or "
            f"{EMBEDDINGS_FILE}."
        )
    log = open_table(files.interactions)
    tables = [log] if files.items is None else [log, open_table(files.items)]
    if files.items is not None:
        _check_not_swapped(log, tables[1], options)
    given = options.item_column
    with_column = tables if given is None else [table for table in tables if given in table.columns]
    if not with_column:
        names = "; ".join(f"those of {table.path} are {listed(table.columns)}" for table in tables)
        raise ValueError(f"No file has a column {given!r}, which item_column names: {names}.")
    if files.items is None:
        rows = _count_vectors(files)
        ids = pl.Series([str(row) for row in range(rows)])
        items = pl.DataFrame({"item_id": ids, "title": [""] * rows, "text": [""] * rows})
        items, used = items.with_row_index(EMBEDDING_ROW), None
    else:
        given_items = given if tables[1] in with_column else None
        items, used = _read_items(files, tables[1], given_items, template, options)
    catalog = Catalog(items, used)
    column = given if log in with_column else None
    if given is None and files.items is not None:
        column = _common_column(log, tables[1])
    columns = {**options.columns, "item_id": column}
    roles = LOG_ROLES if options.min_rating is None else (*LOG_ROLES, "rating")
    return catalog, _read_log(read_as_log(log, columns, roles), catalog.id_map, options)


def _check_not_swapped(log: Table, items: Table, options: CustomOptions) -> None:
    """Raises ValueError if the items look like a log, and the log does not."""
    if any(options.columns.values()) or not log.has_header:
        return

    def has(table: Table, role: str) -> bool:
        try:
            return find_column(table.columns, role) is not None
        except ValueError:  # several could be meant
            return True

    roles = ("user_id", "timestamp")
    if not any(has(log, role) for role in roles) and all(has(items, role) for role in roles):
        raise ValueError(
            f"{log.path} has neither users nor times, and {items.path} has both: the two files seem to be swapped. "
            f"Give {items.path} as the log, and {log.path} as the items."
        )


def _common_column(log: Table, items: Table) -> str | None:
    """The column of the log that has the name of the items' id column, if several of the log could hold item ids."""
    try:
        find_column(log.columns, "item_id")
    except ValueError:
        column = _id_column(items, None)
        return column if column in log.columns else None
    return None


def _as_ids(path: Path, values: pl.Series, role: str) -> pl.Series:
    """Ids as strings, null where there is none. Raises ValueError on another type than text and whole numbers."""
    dtype = values.dtype
    whole = dtype.is_integer()
    if dtype.is_float():  # of whole numbers, where tools allow missing values only in floats
        values = values.fill_nan(None)
        whole = bool(((values == values.round()) & (values.abs() < EXACT[dtype])).all())
        if not whole:
            raise ValueError(
                f"{path}: {role} must hold strings or whole numbers, not {dtype}, unless all are whole and "
                f"below {EXACT[dtype]}: larger ones are not exact."
            )
        values = values.cast(pl.Int64)
    if not (whole or isinstance(dtype, ID_TYPES) or dtype == pl.Null):
        raise ValueError(f"{path}: {role} must hold strings or whole numbers, not {dtype}.")
    ids = values.cast(pl.String)
    if whole:
        return ids
    if len(words := ids.filter(ids.is_in(NO_VALUES))):
        rows = "1 row has" if len(words) == 1 else f"{len(words):,} rows have"
        found = first_few([repr(word) for word in words.unique(maintain_order=True)])
        say(
            f"{path}: {rows} the {role} {found}, which counts as an id. If it stands for a missing value, leave it "
            f"empty."
        )
    return ids.set(ids.str.strip_chars() == "", None)


def _id_column(
    table: Table,
    given: str | None,
    advice: str = "Say which column holds the item ids with --item-column (item_column in a gin file).",
) -> str:
    """The column of a table of items that holds their ids; `advice` is what to do if none is recognised."""
    columns = table.columns
    try:
        column = given or find_column(columns, "item_id", of_items=True)
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from error
    if column is None:
        header = "" if table.has_header else ", as its first line does not name the columns"
        raise ValueError(f"{table.path} lacks item_id{header}; its columns are {listed(columns)}. {advice}")
    return column


def _count_vectors(files: CustomFiles) -> int:
    assert files.embeddings is not None
    return len(read_vectors(Path(files.embeddings)))


def _blank(table: Table, used: pl.DataFrame) -> pl.Series:
    """A mask of the empty lines of a table, of which `used` are some or all columns."""
    empty = used.select(BLANK)["blank"]
    if not (table.separator and empty.any()):
        return pl.repeat(False, used.height, dtype=pl.Boolean, eager=True)
    return empty & table.collect(BLANK)["blank"]


def _read_items(
    files: CustomFiles, table: Table, given: str | None, template: str | None, options: CustomOptions
) -> tuple[pl.DataFrame, str | None]:
    """The items of a table, and the template of their texts; `given` is its id column, if the user says so."""
    path, column, fields = table.path, _id_column(table, given), table.collect()
    counted = ~_blank(table, fields)
    if not counted.any():
        raise ValueError(f"{path} is empty: at least one item is required.")
    if files.embeddings is not None and (rows := _count_vectors(files)) != counted.sum():
        raise ValueError(
            f"{files.embeddings} has {rows} rows, but {path} has {counted.sum()} items: "
            f"one row per item is required, in the same order."
        )
    ids = _as_ids(path, fields[column], "item_id")
    items, used = _describe(table, column, fields, template, text_needed=files.embeddings is None)
    items.insert_column(0, pl.Series("item_id", ids))
    invalid = _invalid_ids(table, counted, ids)
    if files.embeddings is None:
        invalid.add("no text", items["text"] == "", ids, f"With {EMBEDDINGS_FILE}, no texts are needed.")
    else:
        items = items.with_columns((counted.cum_sum() - 1).cast(pl.UInt32).alias(EMBEDDING_ROW))
    return items.filter(invalid.kept(drop=options.drop_invalid, at_most=options.max_invalid)), used


def _invalid_ids(table: Table, counted: pl.Series, ids: pl.Series) -> InvalidRows:
    """The rows of items without an id of their own."""
    invalid = InvalidRows(table, counted)
    invalid.add("no item_id", ids.is_null())
    invalid.add("an item_id that occurs more than once", ~ids.is_first_distinct(), ids)
    too_long = ids.str.len_chars() > LONGEST_ID
    invalid.add(f"an item_id of more than {LONGEST_ID} characters", too_long, ids)
    return invalid


def read_new_items(
    path: Path, types: FieldTypes, template: str | None = None, *, text_needed: bool = True
) -> pl.DataFrame:
    """New items of a catalogue from a table: `item_id`, `title`, `text` and fields of these types, in its order.

    Texts are made with the template, without its parts whose fields the table lacks; if it lacks all of them, or has
    texts, as those of custom data. What is left out is logged. Raises ValueError on missing titles, repeated ids,
    missing texts if they are needed, and values of another type than their field's.
    """
    table, column, fields, counted = _changes(path)
    ids = _as_ids(path, fields[column], "item_id")
    if title_column(fields.columns) is None:
        raise ValueError(f"{path} has no titles; its columns are {listed(fields.columns)}. Add title.")
    if template:
        lacks = set(fields_of(template)) - set(fields.columns)
        if lacks and (text_column(fields.columns) or not fields_given(template, fields.columns)):
            template = None
    items, _ = _describe(table, column, fields, template, text_needed=text_needed, types=types)
    items.insert_column(0, pl.Series("item_id", ids))
    invalid = _invalid_ids(table, counted, ids)
    invalid.add("no title", items["title"] == "", ids)
    if text_needed:
        invalid.add("no text", items["text"] == "", ids)
    return _typed(items.filter(invalid.kept(drop=False, advice="Correct or remove them.")), types)


def _changes(path: Path) -> tuple[Table, str, pl.DataFrame, pl.Series]:
    """A table of new or changed items, its column with the ids, its rows, and a mask of those that are not blank."""
    table = open_table(path)
    column, fields = _id_column(table, None, "Name the column of the ids item_id."), table.collect()
    counted = ~_blank(table, fields)
    if not counted.any():
        raise ValueError(f"{path} has no items: at least one is required.")
    return table, column, fields, counted


def _typed(items: pl.DataFrame, types: FieldTypes) -> pl.DataFrame:
    """Items whose fields have these types. Raises ValueError on a value of another type."""
    given = {name: items[name] for name in items.columns if name in types}
    return items.with_columns(as_fields(items["item_id"], given, types))


def read_item_updates(path: Path, types: FieldTypes) -> pl.DataFrame:
    """Changes of items, from a table: `item_id`, and `title`, `text` or fields of these types; null if not given.

    What is left out is logged. Raises ValueError if nothing changes, and on a value that is not of its field's type.
    """
    table, column, fields, counted = _changes(path)
    fields = fields.filter(counted)
    given = {"title": title_column(fields.columns), "text": text_column(fields.columns)}
    kept, notes = known_fields(
        fields, {name for name in (column, *given.values()) if name is not None}, types
    )
    if not (any(given.values()) or kept.width):
        raise ValueError(
            f"{path} has neither title nor text nor a field of the catalogue; its columns are "
            f"{listed(fields.columns)}. Add what changes."
        )
    _check_readable(table, fields, [name for name in given.values() if name is not None])
    values, about = {}, list[str]()
    for name, own in given.items():
        if own is not None:
            cleaned, words = _titles(fields[own])
            values[name], about = [one or None for one in cleaned], [*about, *words]
    table.say([*about, *notes])
    ids = _as_ids(path, fields[column], "item_id")
    if ids.is_null().any():
        raise ValueError(f"{path}: {ids.null_count()} rows have no item_id. Name the item of each row.")
    described = pl.DataFrame({"item_id": ids, **values}, schema_overrides=dict.fromkeys(values, pl.String))
    return _typed(described.hstack(kept), types)


def _describe(
    table: Table,
    id_column: str,
    fields: pl.DataFrame,
    template: str | None,
    *,
    text_needed: bool,
    types: FieldTypes | None = None,
) -> tuple[pl.DataFrame, str | None]:
    """The columns `title` and `text` of items and their other fields, and the template of the texts.

    What they are made of is logged. With `types`, the fields are those of an existing catalogue, and the table may
    lack fields of the template.
    """
    columns = [name for name in fields.columns if name != id_column]
    title, text = title_column(columns), text_column(columns)
    used, notes = {"item_id": id_column, **({"title": title} if title else {})}, []
    if template is not None:
        lacking = [name for name in fields_of(template) if name not in fields.columns]
        if lacking and types is None:
            raise ValueError(
                f"{table.path} lacks {', '.join(lacking)}; its columns are {listed(fields.columns)}."
            )
    elif text is not None:
        template, used["text"] = f"{{{text}}}", text
    elif template := template_of_all(fields.select(columns)):
        notes.append(f"it has no column text, so the texts are made with the template {template!r}")
    elif text_needed:
        raise ValueError(
            f"{table.path} has no column that describes the items; its columns are {listed(fields.columns)}. Add "
            f"text, or a column such as title, or provide {EMBEDDINGS_FILE}."
        )
    given = fields_given(template, fields.columns) if template else {}
    _check_readable(table, fields, [*given.values(), *([title] if title else ())])
    if title is None and types is None:
        notes.append("it has no column title, so people are shown the ids")
    read = {name for name in (id_column, title, text) if name is not None}
    kept, about_fields = kept_fields(fields, read) if types is None else known_fields(fields, read, types)
    titles, about_titles = _titles(fields[title]) if title else ([""] * len(fields), [])
    table.say([*renamed(used), *notes, *about_titles, *about_fields])
    if text is None:
        fields = readable(fields)
    texts = [""] * len(fields)
    if template:
        rows = fields.select(pl.col(own).alias(name) for name, own in given.items()).iter_rows(named=True)
        texts = [fill(template, row) for row in rows]
    described = pl.DataFrame({"title": titles, "text": texts}, schema={"title": pl.String, "text": pl.String})
    return described.hstack(kept), template


def _titles(values: pl.Series) -> tuple[list[str], list[str]]:
    """Titles as they are shown, and what to say of words that count as none."""
    given = values.to_list()
    titles = [clean(value) for value in given]
    words = [str(value) for value, title in zip(given, titles, strict=True) if not title and value]
    if words := [word for word in words if word.strip()]:
        distinct = first_few([repr(word) for word in dict.fromkeys(words)])
        return titles, [f"{len(words):,} of the titles count as none: {distinct}"]
    return titles, []


def _check_readable(table: Table, fields: pl.DataFrame, names: Iterable[str]) -> None:
    """Raise ValueError if a column of a title or text is of a type that is not read as one."""
    for name in names:
        if not is_readable(fields[name].dtype):
            raise ValueError(
                f"{table.path}: {name} must hold text, numbers, dates or lists of these, not {fields[name].dtype}."
            )


def _read_log(log: LogTable, id_map: IdMap, options: CustomOptions) -> Interactions:
    table = log.table
    path = table.path
    rows = table.collect(*log.selected)
    counted = ~_blank(table, rows)
    if not counted.any():
        raise ValueError(f"{path} is empty: at least one interaction is required.")
    unreadable = None
    if options.min_rating is not None:
        counted, unreadable = _rated(path, rows["rating"], options.min_rating, counted)
    user_ids, item_ids = (_as_ids(path, rows[role], role) for role in ("user_id", "item_id"))
    times = read_times(path, rows["timestamp"], place=table.place)
    invalid = InvalidRows(table, counted)
    if unreadable is not None:
        invalid.add("a rating that is not a number", unreadable, rows["rating"])
    invalid.add("no user_id", user_ids.is_null())
    invalid.add("no item_id", item_ids.is_null())
    invalid.add("no timestamp", rows["timestamp"].is_null() | (rows["timestamp"].cast(pl.String) == ""))
    invalid.add("a timestamp that is not valid", times.seconds.is_null(), rows["timestamp"], ALLOWED)
    unknown = item_ids.unique(maintain_order=True).drop_nulls()
    unknown = unknown.filter(~unknown.is_in(id_map.all.implode()))
    if len(unknown):
        invalid.add(
            "an item_id that is not among the items",
            item_ids.is_in(unknown.implode()),
            item_ids,
            id_map.explain(unknown[0]),
        )
    kept = pl.DataFrame(
        {
            "user_id": user_ids,
            "item_id": item_ids,
            "timestamp": times.seconds,
            FRACTION: times.nanoseconds,
        }
    ).filter(invalid.kept(drop=options.drop_invalid, at_most=options.max_invalid))
    return Interactions(kept if options.keep_duplicates else _without_duplicates(path, kept))


def _rated(path: Path, ratings: pl.Series, lowest: float, rows: pl.Series) -> tuple[pl.Series, pl.Series]:
    """A mask of the `rows` (a mask, too) that are not left out for their rating, and of ratings that cannot be read.

    NaN is a missing rating. Raises ValueError on another type than numbers and text, and if no rating is high enough.
    """
    if ratings.dtype in (*ID_TYPES, pl.Null):
        ratings = ratings.cast(pl.String).str.strip_chars().replace("", None)
        numbers = ratings.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
    elif ratings.dtype.is_numeric() or ratings.dtype == pl.Boolean:
        numbers = ratings.cast(pl.Float64)
    else:
        raise ValueError(f"{path}: rating must hold numbers, not {ratings.dtype}.")
    unreadable = (numbers.is_null() & ratings.is_not_null()) | numbers.is_infinite().fill_null(value=False)
    numbers = numbers.fill_nan(None)
    kept = rows & ((numbers >= lowest).fill_null(value=False) | unreadable)
    if not kept.any():
        highest = numbers.max()
        found = "there are none" if highest is None else f"the highest is {highest!r}"
        raise ValueError(f"{path}: no rating is {lowest:g} or higher; {found}.")
    say(
        f"{path}: {(rows & ~kept).sum()} of {rows.sum()} interactions are not rated {lowest:g} or more and "
        f"left out."
    )
    return kept, unreadable


def _without_duplicates(path: Path, log: pl.DataFrame) -> pl.DataFrame:
    """The log without rows that repeat the user, item and time of an earlier row."""
    if log.hash_rows().n_unique() == log.height:  # equal rows have equal hashes
        return log
    distinct = log.unique(maintain_order=True)
    if repeated := log.height - distinct.height:
        say(
            f"{path}: {repeated} of {log.height} rows repeat the user, item and time of an earlier row and are "
            f"dropped. Keep them with --keep-duplicates (keep_duplicates=True in a gin file)."
        )
    return distinct
