"""Times in any of the usual forms as whole seconds since 1970 (UTC), and the fraction of the second."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.progress import log

Place = Callable[[int], str]  # what a message calls the position of a value
Time = int | float | str | date  # a datetime is a date

END = 4_102_444_800  # seconds: 2100-01-01; a time is from 1970 to here
PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
SMALLEST = 100_000_000  # seconds: 1973-03-03; below it in its unit, a number counts as seconds
DATES = "dates"  # the unit of values that are written as dates
NANO = 10**9
ROW: Place = "row {}".format
ALLOWED = (
    "Use ISO dates and times from 1970 to 2100, dates such as 31.12.2024, or seconds, milliseconds, micro- or "
    "nanoseconds since 1970."
)
OLDEST_FIRST = "The times of a history must not go back: give its items and their times oldest first."

# With dots, the day always comes first; with slashes, nobody can know.
_DOTTED, _AS_ISO = r"^(\d\d?)\.(\d\d?)\.(\d{4})", "$3-0$2-0$1"
_DAY_FIRST, _MONTH_FIRST = r"^(1[3-9]|[23]\d)\.\d", r"^\d\d?\.(1[3-9]|[23]\d)\.\d{4}"
_PADDED = r"^(\d{4})-0?(\d\d)-0?(\d\d)"
# ISO 8601: a date, perhaps with a time, a fraction of a second and a time zone.
_ISO = (
    r"(?i)^(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<time>\d\d:\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r"\s*(?:Z|UTC|(?P<sign>[+-])(?P<hours>[01]\d|2[0-3]):?(?P<minutes>[0-5]\d)?)?$"
)


class Times(NamedTuple):
    """The times of a column; null where a value is missing, unreadable, or not from 1970 to 2100."""

    seconds: pl.Series
    """Whole seconds since 1970 (UTC), Int64."""
    nanoseconds: pl.Series
    """The rest, 0 to 999,999,999, Int64; it orders the times within a second."""
    unit: str | None
    """What the column holds: "dates", or the unit of its numbers (a key of PER_SECOND); None if it has no times."""


def to_seconds(values: pl.Series, place: Place = ROW) -> Times:
    """Read numbers, text, dates and datetimes as times.

    The unit of numbers is recognised by their size: a time from 1973 to 2100 has another range in seconds,
    milliseconds, microseconds and nanoseconds. Smaller numbers, such as the positions 0, 1, 2, ..., count as seconds.
    Text holds numbers (also 1.7e+09) or ISO 8601 dates. Dates without a time zone are UTC. `place` is what a message
    calls the position of a value.

    Raises ValueError on another type, and if the column mixes units, or dates and numbers.
    """
    values = values.rename("value")
    dtype = values.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum) or dtype == pl.Null:
        values = values.cast(pl.String)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return _in_range(_of_dates(values), DATES)
    if dtype.is_integer() or dtype.is_float() or dtype.is_decimal():
        return _of_numbers(values, values, place)
    if values.dtype != pl.String:
        raise ValueError(f"timestamp must hold numbers, dates or times, not {dtype}.")
    return _of_text(values, place)


def read_times(path: Path, values: pl.Series, unit: str | None = None, place: Place = ROW) -> Times:
    """`to_seconds` of the timestamps of a file, saying which unit was recognised.

    `unit` is that of an earlier part of the file, if it is read in parts. Raises ValueError naming `path`.
    """
    times = _of_part(path, values, unit, place)
    if unit is None:
        log_unit(path, times)
    return times


def column_to_seconds(path: Path, values: pl.Series, unit: str | None = None) -> Times:
    """`read_times` without nulls: raises ValueError, naming `path`, on a missing or unreadable value."""
    times = _of_part(path, values, unit)
    if (missing := times.seconds.is_null()).any():
        row = missing.arg_true()[0]
        raise ValueError(
            f"{path}: {missing.sum()} rows have no valid timestamp (the first is row {row}: {_shown(values[row])}). "
            f"{ALLOWED}"
        )
    if unit is None:
        log_unit(path, times)
    return times


def _of_part(path: Path, values: pl.Series, unit: str | None, place: Place = ROW) -> Times:
    try:
        times = to_seconds(values, place)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if unit is not None and times.unit not in (None, unit):
        raise ValueError(f"{path}: timestamp mixes {unit} and {times.unit}. Use one unit for all.")
    return times


def log_unit(name: Path | str, times: Times) -> None:
    """Say which unit was recognised in the file or option `name`, if it is not plainly dates or seconds."""
    if times.unit in ("milliseconds", "microseconds", "nanoseconds"):
        log(f"{name}: the timestamps are {times.unit} since 1970, and were converted to seconds.")
    elif times.unit == "seconds" and (times.seconds.drop_nulls() < SMALLEST).all():
        seconds = times.seconds.drop_nulls().to_numpy()
        log(
            f"{name}: the timestamps are numbers from {seconds.min()} to {seconds.max()}, too small for times of "
            f"today. They are kept as an order; time_gaps would read them as seconds."
        )


def lists_to_seconds(rows: Sequence[Sequence[Time]]) -> list[list[int]]:
    """Lists of times, which all have the same unit, as whole seconds since 1970 (UTC).

    Raises ValueError that names the value if one is no time, if units are mixed (see `to_seconds`), and if the times
    of a list go back.
    """
    flat = [str(time) for row in rows for time in row]
    seconds = to_seconds(pl.Series(flat, dtype=pl.String), "number {}".format).seconds
    if seconds.null_count():
        raise ValueError(f"{flat[seconds.is_null().arg_true()[0]]!r} is not a valid timestamp. {ALLOWED}")
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    if (position := first_decrease(seconds.to_numpy(), lengths)) is not None:
        raise ValueError(f"{flat[position]!r} comes after {flat[position - 1]!r}. {OLDEST_FIRST}")
    return [part.tolist() for part in np.split(seconds.to_numpy(), np.cumsum(lengths)[:-1])] if rows else []


def first_decrease(times: NDArray[np.int64], lengths: NDArray[np.int64]) -> int | None:
    """The position of the first time that is earlier than the one before it in its list; the lists are joined."""
    starts = np.cumsum(lengths) - lengths
    back = np.diff(times, prepend=times[:1]) < 0
    back[starts[lengths > 0]] = False
    return int(back.argmax()) if back.any() else None


def _of_dates(values: pl.Series) -> pl.DataFrame:
    """Columns `seconds` and `nanoseconds` of dates or datetimes."""
    ticks = values.to_physical().cast(pl.Int64)
    if not isinstance(values.dtype, pl.Datetime):
        return pl.select(seconds=ticks * 86_400, nanoseconds=ticks * 0)
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[values.dtype.time_unit]
    return pl.select(seconds=ticks // per_second, nanoseconds=ticks % per_second * (NANO // per_second))


def _of_text(values: pl.Series, place: Place) -> Times:
    stripped = values.str.strip_chars()
    numbers = stripped.cast(pl.Float64, strict=False)
    number_row = _first(numbers.is_between(0, END * NANO))
    others = numbers.is_null().arg_true()  # few, unless the column holds dates, which take long to read
    first_date = _first(_of_iso(stripped.gather(others))["seconds"].is_not_null())
    if first_date is None:
        whole = stripped.cast(pl.Int64, strict=False)
        # Whole numbers stay exact; the others have a fraction or an exponent.
        exact = whole if whole.null_count() == numbers.null_count() else numbers
        return _of_numbers(exact, values, place)
    if number_row is not None:
        raise ValueError(_mixed(values, {DATES: others[first_date], "numbers": number_row}, place))
    # If such rows were dropped, the others would be read as other days.
    row = _first(stripped.str.contains(_MONTH_FIRST))
    if row is not None and not stripped.str.contains(_DAY_FIRST).any():
        raise ValueError(
            f"timestamp has {_shown(values[row])} ({place(row)}), where the month seems to come first; in dates with "
            f"dots the day does. Write all of them as 2024-12-31."
        )
    return _in_range(_of_iso(stripped), DATES)


def _of_iso(values: pl.Series) -> pl.DataFrame:
    """Columns `seconds` and `nanoseconds` of ISO 8601 text or dotted dates, null where it is something else."""
    part = pl.col("value").struct.field
    moment = pl.concat_str(
        part("date"),
        pl.lit(" "),
        part("time").fill_null("00:00"),
        pl.lit(":"),
        part("second").fill_null("00"),
    ).str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    offset = part("hours").cast(pl.Int64) * 3600 + part("minutes").fill_null("0").cast(pl.Int64) * 60
    offset = pl.when(part("sign") == "-").then(-offset).otherwise(offset).fill_null(0)
    fraction = part("fraction").str.slice(0, 9).str.pad_end(9, "0").fill_null("0")
    return (
        values.str.replace(_DOTTED, _AS_ISO)
        .str.replace(_PADDED, "$1-$2-$3")
        .str.extract_groups(_ISO)
        .to_frame()
        .select(seconds=moment.dt.epoch("s") - offset, nanoseconds=fraction.cast(pl.Int64))
    )


def _of_numbers(numbers: pl.Series, values: pl.Series, place: Place) -> Times:
    """Times of numbers in the unit that their size shows; `values` are the original ones, for messages."""
    numbers = numbers.cast(pl.Int64 if numbers.dtype.is_integer() else pl.Float64, strict=False)
    inside = {}
    for unit, per_second in PER_SECOND.items():
        start = 0 if unit == "seconds" else SMALLEST * per_second
        inside[unit] = (numbers >= start) & (numbers < END * per_second)
    first = {unit: row for unit in PER_SECOND if (row := _first(inside[unit])) is not None}
    if len(first) > 1:
        raise ValueError(_mixed(values, first, place))
    if not first:
        nothing = pl.Series([None] * len(numbers), dtype=pl.Int64)
        return Times(nothing, nothing, None)
    unit = next(iter(first))
    known = pl.select(pl.when(inside[unit]).then(numbers)).to_series()
    per_second = PER_SECOND[unit]
    seconds, rest = known // per_second, known % per_second
    table = pl.select(
        seconds=seconds.cast(pl.Int64), nanoseconds=(rest * (NANO // per_second)).cast(pl.Int64)
    )
    return _in_range(table, unit)


def _in_range(table: pl.DataFrame, unit: str) -> Times:
    valid = pl.col("seconds").is_between(0, END, closed="left")
    table = table.select(pl.when(valid).then(pl.col("seconds", "nanoseconds")))
    return Times(table["seconds"], table["nanoseconds"], unit if table["seconds"].count() else None)


def _first(mask: pl.Series) -> int | None:
    rows = mask.fill_null(value=False).arg_true()
    return int(rows[0]) if len(rows) else None


def _mixed(values: pl.Series, rows: dict[str, int], place: Place) -> str:
    """That a column mixes units, with the first row of each."""
    examples = " and ".join(f"{unit} ({place(row)}: {_shown(values[row])})" for unit, row in rows.items())
    return f"timestamp mixes {examples}. Use one unit for all."


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
