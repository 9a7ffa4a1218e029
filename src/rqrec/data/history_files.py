"""Read user histories from files of any size in slices, without loading a whole file.

Input files have one row per user with `user_id`, `history` (item ids, oldest first) and perhaps `timestamps` (the
time of each item), or are an interaction log with `user_id`, `item_id` and `timestamp`, which is first grouped by
user.
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rqrec.core.artifact import atomic_write
from rqrec.core.progress import log as say
from rqrec.core.regular_file import regular_file
from rqrec.core.replace import heal, replaced
from rqrec.data.columns import LOG_ROLES, find_column, listed, normalised, renamed
from rqrec.data.log_table import read_as_log
from rqrec.data.tables import ALLOWED as ALLOWED_SUFFIXES
from rqrec.data.tables import Table, is_table, open_table, parse_errors_for, suffix_of
from rqrec.data.times import ALLOWED, OLDEST_FIRST, column_to_seconds, first_decrease, read_times

HISTORY, TIMESTAMPS = "history", "timestamps"
SEPARATOR = ","  # between the item ids of a history in a CSV file, and between their times
ROWS_PER_GROUP = 65_536
LOG_ROWS_IN_MEMORY = 20_000_000  # about 2 GB while grouping


def input_files(source: Path | str) -> list[Path]:
    """The input files of a file, a folder (its .parquet files, or else other tables) or a glob pattern, by name.

    Raises FileNotFoundError if there are none, ValueError on another suffix.
    """
    path = Path(source)
    if path.is_dir():
        tables = sorted(file for file in path.iterdir() if is_table(file) and file.is_file())
        files = [file for file in tables if suffix_of(file) == ".parquet"] or tables
    elif path.exists():
        files = [regular_file(path)]
    else:
        files = [found for name in sorted(glob(str(source))) if (found := Path(name)).is_file()]
    if not files:
        raise FileNotFoundError(
            f"There is no table ({ALLOWED_SUFFIXES}) at {source}: give a file, a folder, or a quoted glob pattern."
        )
    for file in files:
        if not is_table(file):
            raise ValueError(f"{file} has the suffix {file.suffix!r}; allowed are {ALLOWED_SUFFIXES}.")
    return files


def as_histories(files: Sequence[Path], folder: Path, *, times: bool = False) -> list[Path]:
    """Parquet files with one row per user: `files` themselves, or their conversion in `folder`.

    With `times`, they have the column `timestamps`: lists of seconds since 1970. If `folder` exists, an earlier
    conversion is reused. Raises ValueError if columns are missing, if times are invalid, or if some files are logs
    and others are histories.
    """
    tables = [open_table(file) for file in files]
    columns = [_history_columns(table) for table in tables]
    if len({of_histories is None for of_histories in columns}) > 1:
        raise ValueError(
            f"Some files of {files[0].parent} are logs and some are histories: give only one type."
        )
    types = [
        table.frame.collect_schema()[names["user_id"]]
        for table, names in zip(tables, columns, strict=True)
        if names is not None
    ]
    plain = (
        len(set(types)) == 1
        and all(suffix_of(file) == ".parquet" for file in files)
        and not any(map(renamed, filter(None, columns)))
    )
    if plain and not times:
        return list(files)
    if not _converted(folder, times):
        tables = [_with_users(table, types) for table in tables] if len(set(types)) > 1 else tables
        with replaced(folder) as temporary:
            if columns[0] is None:
                _group(tables, temporary)
            elif times:
                _with_seconds(tables, temporary)
            else:
                for number, table in enumerate(tables):
                    table.say(renamed(columns[number] or {}))
                    with parse_errors_for(table.path):
                        _histories(table).sink_parquet(
                            _numbered(temporary, number), row_group_size=ROWS_PER_GROUP
                        )
    return sorted(folder.glob("*.parquet"))


def _with_users(table: Table, types: Sequence[pl.DataType]) -> Table:
    """A table of histories, its user ids as whole numbers if those of all files are, else as text."""
    name = (_history_columns(table) or {})["user_id"]
    own = table.frame.collect_schema()[name]
    _check_type(table.path, "user_id", own)
    whole = all(one.is_integer() and one != pl.UInt64 for one in types)
    users = pl.col(name).cast(pl.Int64) if whole else _as_id(pl.col(name), own)
    note = f"{name} is {own} here, and becomes {'Int64' if whole else 'text'} because other files have another type"
    return replace(table, frame=table.frame.with_columns(users), notes=(*table.notes, note))


def _converted(folder: Path, times: bool) -> bool:
    """Whether the folder holds a conversion that may be reused; an older version left out the times."""
    heal(folder)
    if not folder.is_dir():
        return False
    return not times or all(TIMESTAMPS in open_table(file).columns for file in folder.glob("*.parquet"))


def count_rows(file: Path) -> int:
    """Number of rows of a parquet file, read from its footer."""
    with parse_errors_for(file):
        return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())


def read_histories(
    file: Path, first: int, rows: int, *, times: bool = False, given: Path | None = None
) -> pl.DataFrame:
    """Rows `first` to `first + rows` of a parquet file: `user_id` unchanged, `history` as lists of strings.

    With `times`, the column `timestamps` too, unchanged. A null history counts as empty. Raises ValueError on a null
    user or item id, naming the file, or the one that was `given` for it.
    """
    return _read(open_table(file), first, rows, times=times, given=given)


def _read(source: Table, first: int, rows: int, *, times: bool, given: Path | None = None) -> pl.DataFrame:
    file = given or source.path
    with parse_errors_for(file):
        table = _histories(source, times=times).slice(first, rows).collect()
    if table["user_id"].null_count():
        row = first + int(table["user_id"].is_null().arg_max() or 0)
        raise ValueError(f"{file}: row {row} has no user_id.")
    has_null = table["history"].list.eval(pl.element().is_null()).list.any()
    if has_null.any():
        user = table["user_id"][int(has_null.arg_max() or 0)]
        raise ValueError(f"{file}: the history of user {user!r} has a missing item id.")
    return table


def _history_columns(table: Table) -> dict[str, str] | None:
    """The columns of a table of histories by role: `user_id`, `history`, perhaps `timestamps`; None for a log.

    Raises ValueError if the table is neither.
    """
    columns = table.columns
    names = {normalised(name): name for name in reversed(columns)}
    try:
        user = find_column(columns, "user_id")
        of_log = [find_column(columns, role) for role in LOG_ROLES]
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from error
    if user is not None and HISTORY in names:
        return {"user_id": user, **{role: names[role] for role in (HISTORY, TIMESTAMPS) if role in names}}
    if None in of_log and table.has_header:
        raise ValueError(
            f"{table.path} needs the columns user_id and history (item ids, oldest first), or user_id, item_id and "
            f"timestamp; it has {listed(table.columns)}."
        )
    return None


def _with_seconds(tables: Sequence[Table], folder: Path) -> None:
    """Write histories with their timestamps as lists of seconds, in slices."""
    unit: str | None = None
    numbers = count()
    for source in tables:
        columns = _history_columns(source) or {}
        if TIMESTAMPS not in columns:
            raise ValueError(
                f"{source.path} needs the column {TIMESTAMPS} (the time of each item of a history), because the "
                f"model was trained with time_gaps; it has {listed(source.columns)}."
            )
        source.say(renamed(columns))
        rows = int(source.collect(pl.len()).item())
        for first in range(0, rows, ROWS_PER_GROUP):
            table = _read(source, first, ROWS_PER_GROUP, times=True)
            table, unit = _in_seconds(source.path, table, unit)
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
    if (position := first_decrease(times.seconds.to_numpy(), counts.to_numpy().astype(np.int64))) is not None:
        raise ValueError(
            f"{file}: in the history of user {flat['user_id'][position]!r}, {flat[TIMESTAMPS][position]!r} comes "
            f"after {flat[TIMESTAMPS][position - 1]!r}. {OLDEST_FIRST}"
        )
    per_user = np.split(times.seconds.to_numpy(), counts.cast(pl.Int64).cum_sum().to_numpy()[:-1])
    seconds = pl.Series(TIMESTAMPS, per_user, dtype=pl.List(pl.Int64))
    return table.with_columns(seconds), times.unit or unit


def _histories(table: Table, *, times: bool = False) -> pl.LazyFrame:
    names, schema = _history_columns(table) or {}, table.frame.collect_schema()
    history = _list(table, schema, names[HISTORY], "item ids").list.eval(
        _as_id(pl.element(), schema[names[HISTORY]])
    )
    _check_type(table.path, "user_id", schema[names["user_id"]])
    columns = [history.alias(HISTORY)]
    if times:
        columns.append(_list(table, schema, names[TIMESTAMPS], "times").alias(TIMESTAMPS))
    return table.without_blank(table.frame).select(pl.col(names["user_id"]).alias("user_id"), *columns)


def _as_id(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """An item id as text; whole numbers have no ".0", which tools add where values are missing."""
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    if not inner.is_float():
        return value.cast(pl.String)
    whole = value.cast(pl.Int64, strict=False)
    known = pl.when(value.is_not_nan()).then(value)
    return pl.when(whole == value).then(whole.cast(pl.String)).otherwise(known.cast(pl.String))


def _list(table: Table, schema: pl.Schema, name: str, elements: str) -> pl.Expr:
    """A column of lists, or of text with separated elements or a JSON list, as lists; null becomes an empty list."""
    column, dtype = pl.col(name), schema[name]
    if dtype == pl.String:
        return column.fill_null("").map_batches(_split, return_dtype=pl.List(pl.String), is_elementwise=True)
    if isinstance(dtype, pl.List | pl.Array) and not _holds_others(dtype.inner):
        return column.cast(pl.List(dtype.inner)).fill_null([])
    raise ValueError(
        f"{table.path}: {name} has type {dtype}; it must be a list of {elements}, or text with comma-separated "
        f"{elements}."
    )


def _check_type(path: Path, role: str, dtype: pl.DataType) -> None:
    """Raise ValueError unless ids of this type can be text."""
    if _holds_others(dtype) or dtype.is_temporal():
        raise ValueError(f"{path}: {role} has type {dtype}; it must be text or whole numbers.")


def _holds_others(dtype: Any) -> bool:
    """Whether a value of this type is no single text, number or time."""
    return bool(dtype.is_nested()) or dtype in (pl.Binary, pl.Object)


def _split(values: pl.Series) -> pl.Series:
    """Text such as "a, b" or '["a", "b"]' as lists of text."""
    values = values.str.strip_chars()
    parts = values.str.split(SEPARATOR).list.eval(pl.element().str.strip_chars())
    parts = parts.list.eval(pl.element().filter(pl.element() != ""))
    written = values.str.starts_with("[") & values.str.ends_with("]")
    if not written.any():
        return parts
    lists = [
        _parsed(value) if is_list else part
        for value, is_list, part in zip(values, written, parts.to_list(), strict=True)
    ]
    return pl.Series(values.name, lists, dtype=pl.List(pl.String))


def _parsed(text: str) -> list[str | None]:
    """A list in JSON, or as Python prints it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = [part.strip() for part in text[1:-1].split(SEPARATOR)]
    return [None if one is None else _as_text(one) for one in found]


def _as_text(value: object) -> str:
    """An element of a list as `_as_id` writes it."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _group(tables: Sequence[Table], folder: Path) -> None:
    """Group a log by user. A large log is partitioned by a hash of the user id; each partition fits in memory."""
    frames, rows = [], 0
    for table in tables:
        log_table = read_as_log(table)
        frame = table.without_blank(table.frame.select(log_table.selected))
        schema = frame.collect_schema()
        for role in ("user_id", "item_id"):
            _check_type(table.path, role, schema[role])
        rows += _complete_rows(table.path, frame)
        frames.append(frame)
    files = [table.path for table in tables]
    log = pl.concat(frames, how="vertical_relaxed")
    with parse_errors_for(files[0]):
        item_id = _as_id(pl.col("item_id"), log.collect_schema()["item_id"])
        partitions = -(-rows // LOG_ROWS_IN_MEMORY)
        unit: str | None = None
        repeated = 0
        for partition in range(partitions):
            selected = (
                log if partitions == 1 else log.filter(pl.col("user_id").hash(0) % partitions == partition)
            )
            part = selected.collect(engine="streaming")
            times = column_to_seconds(files[0], part["timestamp"], unit)
            unit = times.unit or unit
            part = part.with_columns(timestamp=times.seconds, nanosecond=times.nanoseconds)
            distinct = part.unique(
                ["user_id", "item_id", "timestamp", "nanosecond"], keep="first", maintain_order=True
            )
            repeated += part.height - distinct.height
            grouped = (
                distinct.sort("timestamp", "nanosecond", maintain_order=True)
                .group_by("user_id")
                .agg(history=item_id, timestamps=pl.col("timestamp"))
                .sort("user_id")
            )
            with atomic_write(_numbered(folder, partition)) as target:
                grouped.write_parquet(target, row_group_size=ROWS_PER_GROUP)
    if repeated:
        say(
            f"{files[0]}: {repeated} of {rows} rows repeat the user, item and time of an earlier row and are "
            f"dropped. To keep them, give histories instead of a log."
        )


def _complete_rows(path: Path, log: pl.LazyFrame) -> int:
    """The number of rows of a log. Raises ValueError if one lacks the user or the item."""
    with parse_errors_for(path):
        missing = (
            log.select(pl.col("user_id", "item_id").null_count(), rows=pl.len()).collect().row(0, named=True)
        )
    for role in ("user_id", "item_id"):
        if missing[role]:
            raise ValueError(
                f"{path}: {missing[role]:,} of {missing['rows']:,} rows have no {role}. Correct or remove them."
            )
    return int(missing["rows"])


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"
