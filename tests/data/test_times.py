from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rqrec.data.times import PER_SECOND, column_to_seconds, lists_to_seconds, to_seconds

# Around the moments at which the ranges of the units begin and end.
MOMENTS = [100_000_000, 891_000_000, 1_000_000_000, 1_700_367_873, 4_102_444_799]
NUMBER_TYPES: list[Any] = [pl.Int64, pl.UInt64, pl.Float64, pl.String, pl.Decimal(38, 0), pl.Categorical]


def in_type(ticks: list[int], dtype: Any) -> pl.Series:
    text = pl.Series([str(tick) for tick in ticks])
    return text.cast(pl.Int64).cast(dtype) if dtype != pl.Categorical else text.cast(dtype)


@pytest.mark.parametrize("dtype", NUMBER_TYPES, ids=str)
@pytest.mark.parametrize("unit", PER_SECOND)
def test_the_unit_of_numbers_is_recognised_in_every_type(unit: str, dtype: Any) -> None:
    ticks = [moment * PER_SECOND[unit] for moment in MOMENTS]
    times = to_seconds(in_type(ticks, dtype))
    assert times.unit == unit
    assert times.seconds.to_list() == MOMENTS
    assert times.nanoseconds.to_list() == [0] * len(MOMENTS)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_datetimes_of_every_unit_and_zone(unit: Any, zone: str | None) -> None:
    values = pl.Series([datetime(2023, 11, 19, 4, 24, 33, 250_000)]).cast(pl.Datetime(unit, zone))
    times = to_seconds(values)
    assert times.seconds.to_list() == [1_700_367_873]
    assert times.nanoseconds.to_list() == [250_000_000]
    assert to_seconds(pl.Series([date(2023, 11, 19), None])).seconds.to_list() == [1_700_352_000, None]


def iso_forms(moment: datetime) -> list[str]:
    local = moment.astimezone(timezone(timedelta(hours=-3, minutes=-30)))
    return [
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        moment.strftime(" %Y-%m-%dt%H:%M:%S.0000z "),
        moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
        moment.isoformat(),
        local.isoformat(),
        local.strftime("%Y-%m-%dT%H:%M:%S,000%z"),
    ]


@pytest.mark.parametrize("moment", MOMENTS)
def test_iso_text_in_every_form(moment: int) -> None:
    texts = iso_forms(datetime.fromtimestamp(moment, UTC))
    times = to_seconds(pl.Series(texts))
    assert times.seconds.to_list() == [moment] * len(texts)
    assert times.unit == "dates"


@pytest.mark.parametrize(
    ("value", "seconds", "nanoseconds"),
    [
        ("1.7e+09", 1_700_000_000, 0),
        ("1.700367873E12", 1_700_367_873, 0),
        ("1234567890.5", 1_234_567_890, 500_000_000),
        (1234567890.25, 1_234_567_890, 250_000_000),
        ("1700000000123456789", 1_700_000_000, 123_456_789),
        (1700000000123, 1_700_000_000, 123_000_000),
        ("2023-11-19T04:24:33.1234567891Z", 1_700_367_873, 123_456_789),
        ("2023-11-19 04:24", 1_700_367_840, 0),
        ("2023-11-19", 1_700_352_000, 0),
        ("2023-11-19T01:00+01", 1_700_352_000, 0),
        (0, 0, 0),
        ("7", 7, 0),
    ],
)
def test_fractions_and_other_ways_to_write_a_time(value: Any, seconds: int, nanoseconds: int) -> None:
    times = to_seconds(pl.Series([value]))
    assert times.seconds.to_list() == [seconds]
    assert times.nanoseconds.to_list() == [nanoseconds]


@pytest.mark.parametrize(
    "values",
    [
        [-1, 20231119042433, 4_102_444_800],
        [float("nan"), float("inf"), -0.5, 5e9, 1e300],
        [
            "",
            "soon",
            "2023-02-30",
            "2023-13-01",
            "19/11/2023",
            "2023-11-19 25:00",
            "nan",
            "-1",
            "1969-12-31",
            "2023-11-19T01:00+99:99",
        ],
        [date(1969, 12, 31), date(2100, 1, 1), None],
        [None, None],
    ],
)
def test_what_is_no_time_is_null(values: list[Any]) -> None:
    times = to_seconds(pl.Series(values))
    assert times.seconds.to_list() == [None] * len(values)
    assert times.nanoseconds.to_list() == [None] * len(values)


def test_dates_with_dots_have_the_day_first() -> None:
    values = ["19.11.2023 04:24:33", " 19.11.2023", "9.1.2023 04:24", "2023-11-19", "13.13.2023", "19.11.23"]
    times = to_seconds(pl.Series(values))
    assert times.seconds.to_list() == [1_700_367_873, 1_700_352_000, 1_673_238_240, 1_700_352_000, None, None]


def test_numbers_beyond_64_bits_are_null() -> None:
    assert to_seconds(pl.Series([2**64 - 1], dtype=pl.UInt64)).seconds.to_list() == [None]
    assert to_seconds(pl.Series([str(10**30)])).seconds.to_list() == [None]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            [1700000000, 1700000000000],
            r"seconds \(row 0: 1700000000\) and milliseconds \(row 1: 1700000000000\)",
        ),
        (["1.7e15", "x", "1.7e18"], r"microseconds \(row 0: '1.7e15'\) and nanoseconds \(row 2: '1.7e18'\)"),
        ([1.7e12, 0.0], r"seconds \(row 1: 0.0\) and milliseconds \(row 0: 1700000000000.0\)"),
        (["1700000000", "2023-11-19"], r"dates \(row 1: '2023-11-19'\) and numbers \(row 0: '1700000000'\)"),
    ],
)
def test_mixed_units_are_refused_with_an_example_of_each(values: list[Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        to_seconds(pl.Series(values))


def test_the_reader_says_what_it_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    assert column_to_seconds(path, pl.Series([1_700_000_000_000])).seconds.to_list() == [1_700_000_000]
    assert "log.csv: the timestamps are milliseconds since 1970" in capsys.readouterr().err
    column_to_seconds(path, pl.Series([1, 5]))
    assert "numbers from 1 to 5, too small for times of today" in capsys.readouterr().err
    column_to_seconds(path, pl.Series(["1700000000"]))
    column_to_seconds(path, pl.Series(["2023-11-19"]))
    assert capsys.readouterr().err == ""


def test_lists_of_times() -> None:
    assert lists_to_seconds([[1_700_000_000_999], [], ["1700000001000"]]) == [
        [1_700_000_000],
        [],
        [1_700_000_001],
    ]
    assert lists_to_seconds([[date(2023, 11, 19), datetime(2023, 11, 19, 4, 24, 33)]]) == [
        [1_700_352_000, 1_700_367_873]
    ]
    assert lists_to_seconds([np.array([3, 4])]) == [[3, 4]]  # type: ignore[list-item]
    assert lists_to_seconds([]) == []
    with pytest.raises(ValueError, match="'soon' is not a valid timestamp"):
        lists_to_seconds([[5], ["soon"]])
    assert lists_to_seconds([[7, 8], [], [5, 5, 6]]) == [[7, 8], [], [5, 5, 6]]
    with pytest.raises(ValueError, match=r"'5' comes after '6'. The times of a history must not go back"):
        lists_to_seconds([[7], [], [6, 5]])


def test_dates_with_dots_and_the_month_first_are_refused() -> None:
    """Read as others, those with a day up to 12 would be other days, also where the rest is dropped."""
    with pytest.raises(ValueError, match=r"'03.13.2023' \(row 1\), where the month seems to come first"):
        to_seconds(pl.Series(["03.01.2023", "03.13.2023", "03.02.2023"]))
    mixed = to_seconds(pl.Series(["13.03.2023", "03.13.2023", "03.02.2023"])).seconds
    assert mixed.is_null().to_list() == [False, True, False]
