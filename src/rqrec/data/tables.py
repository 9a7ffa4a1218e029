"""Lazy reading of table files, with one-line errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

SUFFIXES = (".parquet", ".csv", ".jsonl")


@contextmanager
def parse_errors_for(path: Path) -> Iterator[None]:
    """Convert parser errors to a ValueError that names the file."""
    try:
        yield
    except PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        if "utf-8" in reason.lower() or "utf8" in reason.lower():
            raise ValueError(f"{path} is not UTF-8 text ({reason}). Save it as UTF-8.") from error
        raise ValueError(f"{path} cannot be read ({reason}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


def scan_table(path: Path, **csv_options: Any) -> pl.LazyFrame:
    """A `.parquet`, `.csv` (with a header) or `.jsonl` file as a lazy frame; CSV columns are read as strings.

    Raises FileNotFoundError if the file is missing, ValueError on another suffix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".parquet":
        return pl.scan_parquet(path)
    if path.suffix == ".csv":
        return pl.scan_csv(path, infer_schema=False, **csv_options)
    if path.suffix == ".jsonl":
        return pl.scan_ndjson(path, infer_schema_length=None)
    raise ValueError(f"{path} has the suffix {path.suffix!r}; allowed are {', '.join(SUFFIXES)}.")
