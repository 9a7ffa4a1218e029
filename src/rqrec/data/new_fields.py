"""Fields of items that are added to a catalogue or changed: each value has the type of the catalogue's field."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, DecimalException
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from rqrec.data.columns import listed
from rqrec.data.fields import DECIMAL_COMMA, OWN_COLUMNS, type_of_field
from rqrec.data.templates import MISSING, flattened

FieldTypes = Mapping[str, pl.DataType]
_TRUTHS = {"true": True, "false": False}
_ISO: Mapping[Any, Callable[[str], Any]] = {
    pl.Date: date.fromisoformat,
    pl.Datetime: datetime.fromisoformat,
    pl.Time: time.fromisoformat,
}
_DIGITS = (39, 309)  # of the largest whole number and float; an int of 1e999999999 would fill the memory
_NAMES: Mapping[Any, str] = {
    pl.Boolean: "true and false",
    pl.Date: "dates (2024-12-31)",
    pl.Datetime: "times (2024-12-31T23:59:59)",
    pl.Time: "times of day (23:59:59)",
    pl.Duration: "durations",
}


def field_types(items: pl.DataFrame) -> FieldTypes:
    """The fields of a catalogue, and their types."""
    return {
        name: dtype
        for name, dtype in items.schema.items()
        if name not in OWN_COLUMNS and type_of_field(dtype) is not None
    }


def known_fields(
    items: pl.DataFrame, read: Collection[str], types: FieldTypes
) -> tuple[pl.DataFrame, list[str]]:
    """The columns of a table of new items that are fields of the catalogue, and what to say about the others.

    `read` are the columns that the catalogue has under names of its own.
    """
    others = [name for name in items.columns if name not in read and name not in OWN_COLUMNS]
    left_out = [name for name in others if name not in types]
    has = f"; its fields are {listed(list(types))}" if types else ""
    notes = (
        [f"the catalogue has no field {listed(left_out)}, so it is left out of the fields{has}"]
        if left_out
        else []
    )
    return items.select([name for name in others if name in types]), notes


def as_fields(
    item_ids: Iterable[str], values: Mapping[str, Iterable[Any]], types: FieldTypes
) -> pl.DataFrame:
    """Values of fields by name, one for each item, as columns of the catalogue's types; null if there is none.

    Numbers may be written as text and the other way round, and one value stands for a list of one. Raises ValueError
    on a value that is not of the field's type, and on a field that the catalogue does not have.
    """
    ids, columns = list(item_ids), {}
    for name, column in values.items():
        if name not in types:
            known = f"its fields are {listed(list(types))}" if types else "it has no fields"
            raise ValueError(f"The catalogue has no field {name!r}: leave it out; {known}.")
        dtype = types[name]
        columns[name] = pl.Series(
            name,
            [_checked(item_id, name, one, dtype) for item_id, one in zip(ids, column, strict=True)],
            dtype,
        )
    return pl.DataFrame(columns)


def _checked(item_id: str, name: str, value: Any, dtype: pl.DataType) -> Any:
    try:
        fitted = _as_type(value, dtype)
        pl.Series([fitted], dtype=dtype, strict=True)  # raises if a number is too large, for instance
    except (ValueError, TypeError, KeyError, OverflowError, DecimalException, PolarsError) as error:
        shown = repr(value if len(repr(value)) <= 100 else f"{str(value)[:97]}...")
        raise ValueError(
            f"Item {item_id!r} has {name} {shown}, but {name} holds {_described(dtype)} in this catalogue: "
            f"give such a value, or leave it out."
        ) from error
    return fitted


def _as_type(value: Any, dtype: pl.DataType) -> Any:
    """The value as one of this type. Raises one of several errors if it is none."""
    if isinstance(value, pl.Series):
        value = value.to_list()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(dtype, pl.List | pl.Array):
        parts = flattened(value if isinstance(value, list | tuple) else [value])
        inner: Any = dtype.inner
        return [_as_type(part, inner) for part in parts]
    if isinstance(value, list | tuple | dict | bytes):
        raise TypeError
    if dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str) and value.strip().lower() in MISSING:
        return None
    if dtype == pl.Boolean:
        return value if isinstance(value, bool) else _TRUTHS[str(value).strip().lower()]
    if isinstance(value, bool):
        raise TypeError
    if dtype.is_numeric():
        if isinstance(value, str) and re.fullmatch(DECIMAL_COMMA, value.strip()):
            value = value.replace(".", "").replace(",", ".")
        number = Decimal(value.strip() if isinstance(value, str) else str(value))
        if not number.is_finite() or number.adjusted() >= _DIGITS[dtype.is_float()]:
            raise ValueError
        if dtype.is_integer() and number != int(number):
            raise ValueError
        if isinstance(dtype, pl.Decimal) and number != round(number, dtype.scale):
            raise ValueError
        return number if dtype.is_decimal() else int(number) if dtype.is_integer() else float(number)
    if isinstance(value, int | float | Decimal):
        raise TypeError
    iso = _ISO.get(type(dtype))
    if isinstance(value, str) and re.search(r"[.,]\d{7}", value):
        raise ValueError("less than a microsecond")
    return _without_zone(iso(value.strip()) if iso and isinstance(value, str) else value, dtype)


def _without_zone(value: Any, dtype: pl.DataType) -> Any:
    """A date or time as its field has it: in UTC. Raises TypeError on what the field would not keep."""
    if isinstance(value, time) and value.tzinfo is not None:
        raise TypeError
    if not isinstance(value, datetime):
        return value
    if dtype == pl.Date and value.time() == time.min:
        return value.date()
    if not isinstance(dtype, pl.Datetime):
        raise TypeError
    in_utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return in_utc if dtype.time_zone else in_utc.replace(tzinfo=None)


def _described(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List | pl.Array):
        return f"lists of {_described(dtype.inner)}"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Enum):
        return f"one of {listed(dtype.categories.to_list())}"
    if dtype.is_numeric():
        return "whole numbers" if dtype.is_integer() else "numbers"
    return _NAMES.get(type(dtype), "text")
