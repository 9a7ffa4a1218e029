"""The text of items that have no text of their own: made from all fields that describe them."""

from collections.abc import Iterable

import polars as pl

from rqrec.data.columns import TITLES, is_id, normalised
from rqrec.data.templates import SEPARATOR, fields_of

_LIST_MARK = r"(\S)\|(\S)"  # MovieLens writes "Adventure|Comedy"
_IN_TEMPLATE = set("{}")


def title_column(columns: list[str]) -> str | None:
    """The column with the titles that are shown; None if there is none."""
    names = {normalised(column): column for column in reversed(columns)}
    return next((names[title] for title in TITLES if title in names), None)


def text_column(columns: list[str]) -> str | None:
    """The column with the texts; None if there is none."""
    return (
        "text" if "text" in columns else next((name for name in columns if normalised(name) == "text"), None)
    )


def template_of_all(items: pl.DataFrame) -> str | None:
    """A template of all columns that describe an item, the title first: "{title}; brand: {brand}; price: {price}".

    These are text, lists of text and numbers, but no ids, web addresses or columns without a value. None if there is
    no such column.
    """
    title = title_column(items.columns)
    others = [name for name in items.columns if name != title and _describes(items[name])]
    parts = [f"{name.replace('_', ' ').strip()}: {{{name}}}" for name in others]
    return SEPARATOR.join([*([f"{{{title}}}"] if title else []), *parts]) or None


def fields_given(template: str, columns: Iterable[str]) -> dict[str, str]:
    """The columns that hold the fields of a template, of which the title may have another name there."""
    columns, fields = list(columns), list(fields_of(template))
    given = {name: name for name in fields if name in columns}
    title, own = title_column(fields), title_column(columns)
    if title is not None and own is not None:
        given.setdefault(title, own)
    return given


def readable(items: pl.DataFrame) -> pl.DataFrame:
    """Items with lists that are written as "A|B" as "A, B", and whole numbers without ".0"."""
    title = title_column(items.columns)
    lists = [name for name in items.columns if name != title and items[name].dtype == pl.String]
    numbers = [name for name in items.columns if _whole(items[name])]
    return items.with_columns(
        # Twice, because neighbouring one-letter parts share a letter.
        pl.col(lists).str.replace_all(_LIST_MARK, "${1}, ${2}").str.replace_all(_LIST_MARK, "${1}, ${2}"),
        pl.col(numbers).cast(pl.Int64),
    )


def is_readable(dtype: pl.DataType) -> bool:
    """Whether values of a type are text for people: text, numbers, dates, or lists of these."""
    while isinstance(dtype, pl.List | pl.Array):
        dtype = dtype.inner  # type: ignore[assignment]
    return not (dtype.is_nested() or dtype in (pl.Binary, pl.Object))


def _describes(values: pl.Series) -> bool:
    if is_id(values.name) or _IN_TEMPLATE & set(values.name) or SEPARATOR in values.name:
        return False
    dtype = values.dtype
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    if not (inner in (pl.String, pl.Categorical, pl.Enum) or inner.is_numeric()):
        return False
    if dtype == pl.String:
        given = values.drop_nulls().str.strip_chars()
        return bool((given != "").any()) and not given.str.contains(r"^https?://\S+$").all()
    return values.null_count() < len(values)


def _whole(values: pl.Series) -> bool:
    return values.dtype.is_float() and bool(
        (values.is_finite() & (values == values.round()) & (values.abs() < 2**53)).all()
    )
