"""Dates and times as people write them in comparisons: each stands for the period that it names.

`2024` is a year, `2024-12` a month, `2024-12-31` a day, `2024-12-31 23:59` a minute, `23:59:59` a second of any day.
"""

import re
from calendar import monthrange
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple

import polars as pl

MICROSECONDS = 1_000_000
_DAY = 86_400 * MICROSECONDS
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
_DATE = r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
_WRITTEN = {
    pl.Date: re.compile(_DATE + ")?)?"),
    pl.Datetime: re.compile(_DATE + rf"(?:[T ]{_CLOCK}(?P<zone>Z|[+-][01]\d:?[0-5]\d)?)?)?)?", re.IGNORECASE),
    pl.Time: re.compile(_CLOCK),
}
KINDS = {
    pl.Date: "dates, such as 2024-12-31, 2024-12 or 2024",
    pl.Datetime: "times, such as 2024-12-31T23:59:59, 2024-12-31 or 2024",
    pl.Time: "times of day, such as 23:59 or 23:59:59",
}


class Period(NamedTuple):
    """From `start` to before `end`: microseconds since 1970, in UTC where there is a zone, or since midnight."""

    start: int
    end: int


def period(text: str, dtype: Any) -> Period:
    """The period that a text names, for comparisons with values of a type: Date, Datetime or Time.

    Raises ValueError if it names none.
    """
    found = _WRITTEN[dtype.base_type()].fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} names no period")
    parts = {name: part for name, part in found.groupdict().items() if part is not None}
    clock = time(
        int(parts.get("hour", 0)),
        int(parts.get("minute", 0)),
        int(parts.get("second", 0)),
        int(parts.get("fraction", "").ljust(6, "0")),
    )
    if "year" not in parts:
        day = datetime(1970, 1, 1, tzinfo=UTC)
    else:
        day = datetime(int(parts["year"]), int(parts.get("month", 1)), int(parts.get("day", 1)), tzinfo=UTC)
    start = _microseconds(day) + _microseconds(datetime.combine(datetime(1970, 1, 1), clock, UTC))
    if zone := parts.get("zone", "Z").upper().replace("Z", ""):
        offset = int(zone[1:3]) * 60 + int(zone[-2:])
        start -= int(f"{zone[0]}{offset}") * 60 * MICROSECONDS
    return Period(start, start + _length(parts, day))


def microseconds(values: pl.Series) -> pl.Series:
    """Dates and times as Int64: microseconds since 1970, or since midnight."""
    if values.dtype == pl.Date:
        return values.cast(pl.Int64) * _DAY
    if values.dtype == pl.Time:
        return values.cast(pl.Int64) // 1000
    return values.cast(pl.Datetime("us")).cast(pl.Int64)


def _length(parts: dict[str, str], day: datetime) -> int:
    """The microseconds of a period with these parts, the last of which is the most precise."""
    if "fraction" in parts:
        return 10 ** (6 - len(parts["fraction"]))
    if "second" in parts:
        return MICROSECONDS
    if "minute" in parts:
        return 60 * MICROSECONDS
    if "day" in parts:
        return _DAY
    months = [day.month] if "month" in parts else range(1, 13)
    return sum(monthrange(day.year, month)[1] for month in months) * _DAY


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
