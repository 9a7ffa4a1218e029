"""Read user histories from files of any size in slices, without loading a whole file.

Input files have one row per user with `user_id` and `history` (item ids, oldest first), or are an interaction
log with `user_id`, `item_id` and `timestamp`, which is first grouped by user.
"""

import shutil
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import polars as pl

from rqrec.core.artifact import atomic_write
from rqrec.data.interactions import COLUMNS
from rqrec.data.tables import parse_errors_for, scan_table
from rqrec.data.times import column_to_seconds

SUFFIXES = (".parquet", ".csv")
SEPARATOR = ","  # between the item ids of a history in a CSV file
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


def as_histories(files: Sequence[Path], folder: Path) -> list[Path]:
    """Parquet files with one row per user: `files` themselves, or their conversion in `folder`.

    If `folder` exists, an earlier conversion is reused. Raises ValueError if columns are missing, or if some
    files are logs and others are histories.
    """
    is_log = {_is_log(file) for file in files}
    if len(is_log) > 1:
        raise ValueError(
            f"Some files of {files[0].parent} are logs and some are histories: give only one type."
        )
    if not is_log.pop() and all(file.suffix == ".parquet" for file in files):
        return list(files)
    if not folder.is_dir():
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if _is_log(files[0]):
            _group(files, temporary)
        else:
            for number, file in enumerate(files):
                with parse_errors_for(file):
                    _histories(file).sink_parquet(_numbered(temporary, number), row_group_size=ROWS_PER_GROUP)
        temporary.rename(folder)
    return sorted(folder.glob("*.parquet"))


def count_rows(file: Path) -> int:
    """Number of rows of a parquet file, read from its footer."""
    with parse_errors_for(file):
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def read_histories(file: Path, first: int, rows: int) -> pl.DataFrame:
    """Rows `first` to `first + rows` of a parquet file: `user_id` unchanged, `history` as lists of strings.

    A null history counts as empty. Raises ValueError on a null user or item id.
    """
    with parse_errors_for(file):
        table = _histories(file).slice(first, rows).collect()
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


def _histories(file: Path) -> pl.LazyFrame:
    history = pl.col("history")
    dtype = _columns(file)["history"]
    if dtype == pl.String:
        ids = history.fill_null("").str.split(SEPARATOR).list.eval(pl.element().str.strip_chars())
        history = ids.list.filter(pl.element() != "")
    elif isinstance(dtype, pl.List | pl.Array):
        history = history.cast(pl.List(pl.String)).fill_null([])
    else:
        raise ValueError(
            f"{file}: history has type {dtype}; it must be a list of item ids, or text with comma-separated ids."
        )
    return scan_table(file).select("user_id", history.alias("history"))


def _group(files: Sequence[Path], folder: Path) -> None:
    """Group a log by user. A large log is partitioned by a hash of the user id; each partition fits in memory."""
    log = pl.concat([scan_table(file).select(COLUMNS) for file in files])
    with parse_errors_for(files[0]):
        rows = int(log.select(pl.len()).collect().item())
        partitions = -(-rows // LOG_ROWS_IN_MEMORY)
        for partition in range(partitions):
            selected = (
                log if partitions == 1 else log.filter(pl.col("user_id").hash(0) % partitions == partition)
            )
            part = selected.collect(engine="streaming")
            times = column_to_seconds(files[0], part["timestamp"])
            part = part.with_columns(timestamp=times.seconds, nanosecond=times.nanoseconds)
            grouped = (
                part.sort("timestamp", "nanosecond", maintain_order=True)
                .group_by("user_id")
                .agg(history=pl.col("item_id").cast(pl.String))
                .sort("user_id")
            )
            with atomic_write(_numbered(folder, partition)) as target:
                grouped.write_parquet(target, row_group_size=ROWS_PER_GROUP)


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"
