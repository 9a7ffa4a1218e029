"""Histories of users from files of any size: read in slices, never whole.

What is read: `user_id` and `history` (item ids, oldest first), a row a user; or a log of interactions with
`user_id`, `item_id` and `timestamp`, which is first grouped by user.
"""

import shutil
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import polars as pl

from rqrec.core.artifact import atomic_write
from rqrec.data.interactions import COLUMNS
from rqrec.data.sources.custom import as_timestamps
from rqrec.data.tables import parse_errors_for, scan_table

SUFFIXES = (".parquet", ".csv")
SEPARATOR = ","  # between the item ids of a history in a CSV file
ROWS_PER_GROUP = 65_536
LOG_ROWS_IN_MEMORY = 20_000_000  # about 2 GB while they are grouped


def input_files(source: Path | str) -> list[Path]:
    """The files of a path: a file, the .parquet (or else .csv) files of a folder, or those of a glob pattern.

    Sorted by name. Raises FileNotFoundError where there is none, ValueError on other files.
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
            f"There is no {' or '.join(SUFFIXES)} file at {source}: give a file, a folder, or a pattern in quotes."
        )
    for file in files:
        if file.suffix not in SUFFIXES:
            raise ValueError(f"{file} has the suffix {file.suffix!r}; allowed are {', '.join(SUFFIXES)}.")
    return files


def as_histories(files: Sequence[Path], folder: Path) -> list[Path]:
    """Parquet files with a row a user: `files` themselves, or what is made of them in `folder`, once.

    Raises ValueError on a file without the columns, or where files differ in kind.
    """
    is_log = {_is_log(file) for file in files}
    if len(is_log) > 1:
        raise ValueError(f"Some of {files[0].parent} are logs and some are histories: give one kind.")
    if not is_log.pop() and all(file.suffix == ".parquet" for file in files):
        return list(files)
    if not folder.is_dir():
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if _is_log(files[0]):
            _group(files, temporary)
        else:
            for place, file in enumerate(files):
                with parse_errors_for(file):
                    _histories(file).sink_parquet(_numbered(temporary, place), row_group_size=ROWS_PER_GROUP)
        temporary.rename(folder)
    return sorted(folder.glob("*.parquet"))


def count_rows(file: Path) -> int:
    """Rows of a parquet file, from its footer."""
    with parse_errors_for(file):
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())


def read_histories(file: Path, first: int, rows: int) -> pl.DataFrame:
    """Rows `first` to `first + rows` of a parquet file: `user_id` as it is, `history` as lists of strings.

    A missing history is an empty one. Raises ValueError on a missing user or item id.
    """
    with parse_errors_for(file):
        table = _histories(file).slice(first, rows).collect()
    if table["user_id"].null_count():
        row = first + int(table["user_id"].is_null().arg_max() or 0)
        raise ValueError(f"{file}: row {row} has no user_id.")
    holes = table["history"].list.eval(pl.element().is_null()).list.any()
    if holes.any():
        user = table["user_id"][int(holes.arg_max() or 0)]
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
            f"{file}: history is {dtype}; a list of item ids is needed, or text with ids between commas."
        )
    return scan_table(file).select("user_id", history.alias("history"))


def _group(files: Sequence[Path], folder: Path) -> None:
    """A log as histories. One that is large is first dealt out by user, so that each part fits in memory."""
    log = pl.concat([scan_table(file).select(COLUMNS) for file in files])
    with parse_errors_for(files[0]):
        rows = int(log.select(pl.len()).collect().item())
        shares = -(-rows // LOG_ROWS_IN_MEMORY)
        for share in range(shares):
            mine = log if shares == 1 else log.filter(pl.col("user_id").hash(0) % shares == share)
            part = mine.collect(engine="streaming")
            part = part.with_columns(timestamp=as_timestamps(files[0], part["timestamp"]))
            grouped = (
                part.sort("timestamp", maintain_order=True)
                .group_by("user_id")
                .agg(history=pl.col("item_id").cast(pl.String))
                .sort("user_id")
            )
            with atomic_write(_numbered(folder, share)) as target:
                grouped.write_parquet(target, row_group_size=ROWS_PER_GROUP)


def _numbered(folder: Path, place: int) -> Path:
    return folder / f"{place:05d}.parquet"
