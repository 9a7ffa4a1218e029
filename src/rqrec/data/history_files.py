"""Read user histories from files of any size in slices, without loading a whole file.

Input files have one row per user with `user_id`, `history` (item ids, oldest first) and perhaps `timestamps` (the
time of each item), or are an interaction log with `user_id`, `item_id` and `timestamp`, which is first grouped by
user.
"""

import shutil
from collections.abc import Sequence
from glob import glob
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl

from rqrec.core.artifact import atomic_write
from rqrec.data.interactions import COLUMNS
from rqrec.data.tables import parse_errors_for, scan_table
from rqrec.data.times import ALLOWED, column_to_seconds, read_times

TIMESTAMPS = "timestamps"
SUFFIXES = (".parquet", ".csv")
SEPARATOR = ","  # between the item ids of a history in a CSV file, and between their times
ROWS_PER_GROUP = 65_536
LOG_ROWS_IN_MEMORY = 20_000_000  # about 2 GB while grouping


def input_files(source: Path | str) -> list[Path]:
    """The input files of a file, a folder (its .parquet or else .csv files) or a glob pattern, sorted by name.

    Raises FileNotFoundError if there are none, ValueError on another suffix.
    """
    path = Path(source)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(path.glob("*.parquet")) or sorted(path.glob("*.csv"))
    else:
        files = [found for name in sorted(glob(str(source))) if (found := Path(name)).is_file()]
    if not files:
        raise FileNotFoundError(
            f"There is no {' or '.join(SUFFIXES)} file at {source}: give a file, a folder, or a quoted glob pattern."
        )
    for file in files:
        if file.suffix not in SUFFIXES:
            raise ValueError(f"{file} has the suffix {file.suffix!r}; allowed are {', '.join(SUFFIXES)}.")
    return files


def as_histories(files: Sequence[Path], folder: Path, *, times: bool = False) -> list[Path]:
    """Parquet files with one row per user: `files` themselves, or their conversion in `folder`.

    With `times`, they have the column `timestamps`: lists of seconds since 1970. If `folder` exists, an earlier
    conversion is reused. Raises ValueError if columns are missing, if times are invalid, or if some files are logs
    and others are histories.
    """
    is_log = {_is_log(file) for file in files}
    if len(is_log) > 1:
        raise ValueError(
            f"Some files of {files[0].parent} are logs and some are histories: give only one type."
        )
    if not is_log.pop() and not times and all(file.suffix == ".parquet" for file in files):
        return list(files)
    if not _converted(folder, times):
        shutil.rmtree(folder, ignore_errors=True)
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if _is_log(files[0]):
            _group(files, temporary)
        elif times:
            _with_seconds(files, temporary)
        else:
            for number, file in enumerate(files):
                with parse_errors_for(file):
                    _histories(file).sink_parquet(_numbered(temporary, number), row_group_size=ROWS_PER_GROUP)
        temporary.rename(folder)
    return sorted(folder.glob("*.parquet"))


def _converted(folder: Path, times: bool) -> bool:
    """Whether the folder holds a conversion that may be reused; an older version left out the times."""
    if not folder.is_dir():
        return False
    return not times or all(TIMESTAMPS in _columns(file).names() for file in folder.glob("*.parquet"))


def count_rows(file: Path) -> int:
    """Number of rows of a parquet file, read from its footer."""
    with parse_errors_for(file):
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def read_histories(file: Path, first: int, rows: int, *, times: bool = False) -> pl.DataFrame:
    """Rows `first` to `first + rows` of a parquet file: `user_id` unchanged, `history` as lists of strings.

    With `times`, the column `timestamps` too, unchanged. A null history counts as empty. Raises ValueError on a null
    user or item id.
    """
    with parse_errors_for(file):
        table = _histories(file, times=times).slice(first, rows).collect()
    if table["user_id"].null_count():
        row = first + int(table["user_id"].is_null().arg_max() or 0)
        raise ValueError(f"{file}: row {row} has no user_id.")
    has_null = table["history"].list.eval(pl.element().is_null()).list.any()
    if has_null.any():
        user = table["user_id"][int(has_null.arg_max() or 0)]
        raise ValueError(f"{file}: the history of user {user!r} has a missing item id.")
    return table


def _columns(file: Path) -> pl.Schema:
    with parse_errors_for(file):
        return scan_table(file).collect_schema()


def _is_log(file: Path) -> bool:
    names = _columns(file).names()
    if {"user_id", "history"} <= set(names):
        return False
    if set(COLUMNS) <= set(names):
        return True
    raise ValueError(
        f"{file} needs the columns user_id and history (item ids, oldest first), or user_id, item_id and "
        f"timestamp; it has {', '.join(names)}."
    )


def _with_seconds(files: Sequence[Path], folder: Path) -> None:
    """Write histories with their timestamps as lists of seconds, in slices."""
    unit: str | None = None
    numbers = count()
    for file in files:
        if TIMESTAMPS not in (names := _columns(file).names()):
            raise ValueError(
                f"{file} needs the column {TIMESTAMPS} (the time of each item of a history), because the model was "
                f"trained with time_gaps; it has {', '.join(names)}."
            )
        with parse_errors_for(file):
            rows = int(scan_table(file).select(pl.len()).collect().item())
        for first in range(0, rows, ROWS_PER_GROUP):
            table = read_histories(file, first, ROWS_PER_GROUP, times=True)
            table, unit = _in_seconds(file, table, unit)
            with atomic_write(_numbered(folder, next(numbers))) as target:
                table.write_parquet(target, row_group_size=ROWS_PER_GROUP)


def _in_seconds(file: Path, table: pl.DataFrame, unit: str | None) -> tuple[pl.DataFrame, str | None]:
    """The table with its timestamps as lists of seconds, and their unit, which must be `unit` if that is known."""
    lengths, counts = table["history"].list.len(), table[TIMESTAMPS].list.len()
    if (differ := lengths != counts).any():
        row = differ.arg_true()[0]
        raise ValueError(
            f"{file}: the history of user {table['user_id'][row]!r} has {lengths[row]} items and {counts[row]} "
            f"timestamps: give one timestamp per item."
        )
    flat = table.select("user_id", TIMESTAMPS).filter(counts > 0).explode(TIMESTAMPS)
    times = read_times(file, flat[TIMESTAMPS], unit)
    if (invalid := times.seconds.is_null()).any():
        row = invalid.arg_true()[0]
        raise ValueError(
            f"{file}: the history of user {flat['user_id'][row]!r} has the timestamp {flat[TIMESTAMPS][row]!r}, "
            f"which is not valid. {ALLOWED}"
        )
    per_user = np.split(times.seconds.to_numpy(), counts.cast(pl.Int64).cum_sum().to_numpy()[:-1])
    seconds = pl.Series(TIMESTAMPS, per_user, dtype=pl.List(pl.Int64))
    return table.with_columns(seconds), times.unit or unit


def _histories(file: Path, *, times: bool = False) -> pl.LazyFrame:
    columns = [_list(file, "history", "item ids").cast(pl.List(pl.String))]
    if times:
        columns.append(_list(file, TIMESTAMPS, "times"))
    return scan_table(file).select("user_id", *columns)


def _list(file: Path, name: str, elements: str) -> pl.Expr:
    """A column of lists, or of text with separated elements, as lists; null becomes an empty list."""
    column, dtype = pl.col(name), _columns(file)[name]
    if dtype == pl.String:
        parts = column.fill_null("").str.split(SEPARATOR).list.eval(pl.element().str.strip_chars())
        return parts.list.filter(pl.element() != "")
    if isinstance(dtype, pl.List | pl.Array):
        return column.cast(pl.List(dtype.inner)).fill_null([])
    raise ValueError(
        f"{file}: {name} has type {dtype}; it must be a list of {elements}, or text with comma-separated {elements}."
    )


def _group(files: Sequence[Path], folder: Path) -> None:
    """Group a log by user. A large log is partitioned by a hash of the user id; each partition fits in memory."""
    log = pl.concat([scan_table(file).select(COLUMNS) for file in files])
    with parse_errors_for(files[0]):
        rows = int(log.select(pl.len()).collect().item())
        partitions = -(-rows // LOG_ROWS_IN_MEMORY)
        unit: str | None = None
        for partition in range(partitions):
            selected = (
                log if partitions == 1 else log.filter(pl.col("user_id").hash(0) % partitions == partition)
            )
            part = selected.collect(engine="streaming")
            times = column_to_seconds(files[0], part["timestamp"], unit)
            unit = times.unit or unit
            part = part.with_columns(timestamp=times.seconds, nanosecond=times.nanoseconds)
            grouped = (
                part.sort("timestamp", "nanosecond", maintain_order=True)
                .group_by("user_id")
                .agg(history=pl.col("item_id").cast(pl.String), timestamps=pl.col("timestamp"))
                .sort("user_id")
            )
            with atomic_write(_numbered(folder, partition)) as target:
                grouped.write_parquet(target, row_group_size=ROWS_PER_GROUP)


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"
