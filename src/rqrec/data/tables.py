"""Tables as people have them: Parquet, CSV and JSON, with any separator and the usual encodings, perhaps compressed.

What is not the plain case (a semicolon between columns, UTF-16, no header) is recognised and said in one sentence.
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from rqrec.core.errors import first_line
from rqrec.core.memory import memory_of_machine
from rqrec.core.progress import log
from rqrec.core.regular_file import regular_file
from rqrec.core.strict_json import RepeatedNameError, unique_names
from rqrec.data.columns import is_header, listed
from rqrec.data.parquet_counts import check_counts

CSV, JSON = {".csv": ",", ".tsv": "\t"}, (".jsonl", ".ndjson", ".json")
SUFFIXES = (".parquet", *CSV, *JSON)
ALLOWED = f"{', '.join(SUFFIXES)}, also with .gz"
SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
SAMPLED_LINES = 100  # of JSON, in which names that are repeated are looked for
CHUNK = 1 << 20  # bytes that are decompressed at once
SAMPLE = 1 << 16  # bytes by which separator, header and UTF-16 are recognised
BOMS = {
    codecs.BOM_UTF32_LE: ("utf-32", "UTF-32"),
    codecs.BOM_UTF32_BE: ("utf-32", "UTF-32"),
    codecs.BOM_UTF8: ("utf-8-sig", "UTF-8 with a byte-order mark"),
    codecs.BOM_UTF16_LE: ("utf-16", "UTF-16"),
    codecs.BOM_UTF16_BE: ("utf-16", "UTF-16"),
}

NOT_TEXT = {
    b"\x1f\x8b": "gzip data within gzip data",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet (.xlsx)",
    b"PAR1\x15": "a Parquet table",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet (.xls)",
    b"BZh91AY&SY": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
    b"SQLite format 3": "an SQLite database",
    b"%PDF-": "a PDF document",
}

# The days from 1970 to the first and the last day that Python's dates have.
FIRST_DAY, LAST_DAY = (day.toordinal() - date(1970, 1, 1).toordinal() for day in (date.min, date.max))
PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}

# What spreadsheets write and read above the header.
_NAMED_SEPARATOR = re.compile(r"(?i)sep=([,;\t|])\r?\n")
# An escaped half of a character, which is no Unicode text; polars would read it as another character.
_LONE_SURROGATE = re.compile(rb"(?i)\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f]")


def suffix_of(path: Path) -> str:
    """The suffix that tells the kind of a table, in lower case and without .gz: ".csv" of LOG.CSV.GZ."""
    path = Path(path.name.lower())
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def is_table(path: Path) -> bool:
    """Whether the suffix is that of a table."""
    return suffix_of(path) in SUFFIXES


def tables_named(folder: Path, name: str) -> list[Path]:
    """The tables in a folder whose name without suffixes is `name`, in any case, sorted."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir()
        if is_table(path) and path.is_file() and path.name.lower().partition(".")[0] == name
    )  # fmt: skip


@contextmanager
def parse_errors_for(path: Path) -> Iterator[None]:
    """Convert parser errors to a ValueError that names the file."""
    try:
        yield
    except (PolarsError, PanicException) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}). Is it complete?") from error
    except UnicodeError as error:
        raise ValueError(f"{path} has text that is not valid Unicode ({error}).") from error


INTEGERS = (
    pl.Int8,
    pl.Int16,
    pl.Int32,
    pl.Int64,
    pl.UInt8,
    pl.UInt16,
    pl.UInt32,
    pl.UInt64,
)  # that NumPy has


def read_parquet(path: Path, *, strings: Sequence[str] = (), integers: Sequence[str] = ()) -> pl.DataFrame:
    """A Parquet file of an artefact. Raises ValueError if it is damaged, lacks a column or has other types."""
    check_counts(regular_file(path))
    with parse_errors_for(path):
        table = pl.read_parquet(path, glob=False)
    for column in (*strings, *integers):
        if column not in table.columns:
            raise ValueError(f"{path} is damaged: it has no column {column!r}, only {table.columns[:5]}.")
        kind = table.schema[column]
        if not (kind == pl.Null or (kind == pl.String if column in strings else kind in INTEGERS)):
            allowed = "strings" if column in strings else "whole numbers"
            raise ValueError(f"{path} is damaged: its column {column!r} has {kind}, but must have {allowed}.")
    return table


BLANK = pl.all_horizontal(pl.all().is_null()).alias(
    "blank"
)  # whether a row, or the selected part of it, is empty


@dataclass(frozen=True, eq=False)
class Table:
    """A table file, which is read when it is collected. The columns of a CSV file are strings."""

    path: Path
    frame: pl.LazyFrame
    has_header: bool = True
    """Whether the columns have names; otherwise they are column_1, column_2, ..."""
    notes: tuple[str, ...] = ()
    """What was recognised that is not the plain case."""
    encoding: str = ""
    """Of text with a row per line."""
    separator: str = ""
    """Of a CSV file."""
    first: int = 0
    """The record of the text that is the first row."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        with parse_errors_for(self.path):
            return self.frame.collect_schema().names()

    def without_blank(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """A frame of this table's rows without the empty lines of a CSV file."""
        return frame.filter(~BLANK) if self.separator else frame

    def collect(self, *columns: Any) -> pl.DataFrame:
        """These columns (or expressions), by default all, in memory. Raises ValueError if the file is damaged."""
        try:
            with parse_errors_for(self.path):
                return (self.frame.select(*columns) if columns else self.frame).collect()
        except ValueError as error:
            if self.separator and (fault := self._fault()):
                raise ValueError(f"{self.path} cannot be read: {fault}") from error
            raise

    def say(self, more: Sequence[str] = ()) -> None:
        """Log what was recognised, if it is not the plain case."""
        if notes := [*self.notes, *more]:
            log(f"{self.path}: {'; '.join(notes)}.")

    def place(self, row: int) -> str:
        """Where a row is (0 is the first): "line 2" as an editor counts, or "row 1" where a file has no lines."""
        if self.encoding:
            try:
                for number, (line, _) in enumerate(self._records(), start=-self.first):
                    if number == row:
                        return f"line {line}"
            except csv.Error:
                pass  # a field of more than 128 KiB
        return f"row {row + 1}"

    def _records(self, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """The records of text: the line on which each starts, and its fields.

        As in polars, empty lines before the first record do not count; those of JSON never do.
        """
        with _open(self.path, self.encoding) as lines:
            if not self.separator:
                yield from ((number, [line]) for number, line in enumerate(lines, start=1) if line.strip())
                return
            reader, begin, started = csv.reader(lines, delimiter=self.separator, strict=strict), 1, False
            for record in reader:
                if started := started or bool(record):
                    yield begin, record
                begin = reader.line_num + 1

    def _fault(self) -> str | None:
        """What is wrong with the lines of a CSV file, if they are at fault."""
        end, records = 0, islice(self._records(strict=True), max(0, self.first - 1), None)
        try:
            header, names = next(records, (0, []))
            end, width = header, len(names)
            for line, record in records:
                if len(record) > width:
                    separator = SEPARATORS[self.separator]
                    advice = f'Put quotes (") around fields that contain {separator}.'
                    if len(record) == width + 1 and not record[-1].strip():
                        advice = f"Remove {separator} from the end of its lines."
                    return f"line {line} has {len(record)} fields, but line {header} has {width}. {advice}"
                end = line
        except csv.Error:
            return f'a quote (") after line {end} is not closed, or no separator follows the closing one.'
        with _open(self.path, self.encoding) as lines:
            odd = next((number for number, line in enumerate(lines, start=1) if line.count('"') % 2), None)
        if odd is None:
            return None
        return f'line {odd} has a quote (") inside a field. Put quotes around it, and write the quote twice.'


def open_table(path: Path) -> Table:
    """A table: `.parquet`, `.csv`, `.tsv`, `.jsonl` or `.json` (an object per line, or a list), also with `.gz`.

    Separator, encoding and header of text are recognised. NaN in JSON is a missing value. Raises OSError if it
    is missing or no regular file, ValueError on another suffix and on a file that is damaged.
    """
    path = regular_file(path)
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} has the suffix {path.suffix!r}; allowed are {ALLOWED}.")
    if suffix == ".parquet":
        content = _read(path) if _is_gzip(path) else None
        check_counts(path, content)
        with parse_errors_for(path):
            frame = pl.scan_parquet(path if content is None else io.BytesIO(content), glob=False)
            if content is None:
                found = path.stat()
                _check_dates_once(path, found.st_mtime_ns, found.st_size)
            else:
                _check_dates(path, frame)
            return Table(path, frame)
    return _open_csv(path, CSV[suffix]) if suffix in CSV else _open_json(path)


@lru_cache(maxsize=64)
def _check_dates_once(path: Path, modified: int, size: int) -> None:
    """`_check_dates` of a file, which may be opened again for each of its parts."""
    _check_dates(path, pl.scan_parquet(path, glob=False))


def _check_dates(path: Path, frame: pl.LazyFrame) -> None:
    """Raise ValueError if a date of a Parquet file is of no year that Python has: polars would panic on it."""
    for name, kind in frame.collect_schema().items():
        inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
        if not isinstance(inner, pl.Date | pl.Datetime):
            continue
        per_day = 1 if isinstance(inner, pl.Date) else PER_DAY[inner.time_unit]
        dates = pl.col(name) if inner is kind else pl.col(name).explode()
        days = dates.to_physical() // per_day
        first, last = frame.select(days.min().alias("first"), days.max().alias("last")).collect().row(0)
        for day in (first, last):
            if day is not None and not FIRST_DAY < day < LAST_DAY:
                raise ValueError(
                    f"{path}: the column {name} has a date of {day:,} days from 1970, but allowed are those of the "
                    f"years 1 to 9999. Correct it, or leave it empty."
                )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, such as one item id each, without empty ones and the spaces around them.

    Raises OSError if it is missing or no regular file, ValueError if it is not text.
    """
    path = regular_file(path)
    lines = _utf8(path, _encoding(path)[0]).decode().split("\n")
    return [line.strip() for line in lines if line.strip()]


def _open_csv(path: Path, expected: str) -> Table:
    encoding, notes = _encoding(path)
    with _open(path, encoding) as file:
        sample = file.read(SAMPLE)
    if not sample.strip():
        raise ValueError(f"{path} is empty: its first line must name the columns.")
    if "\r\n" in sample:
        notes.append("CRLF line ends")
    skipped = 0
    if first := _NAMED_SEPARATOR.match(sample):
        skipped, expected, sample = 1, first[1], sample[first.end() :]
        notes.append("its first line names the separator")
    separator, first_row = _separator(sample, expected)
    if separator != expected:
        notes.append(f"separated by {SEPARATORS[separator]}")
    header = is_header(first_row)
    numbers = [name.strip() for name in first_row] == [str(number) for number in range(len(first_row))]
    if not header:
        notes.append("its header is only numbers" if numbers else "no header")
    repeated = [name for name, count in Counter(first_row).items() if count > 1] if header else []
    if repeated:
        notes.append(f"several columns are named {listed(repeated)}, and the first counts")
    if len(first_row) == 1 and "::" in first_row[0]:
        raise ValueError(
            f"{path} is separated by '::'; allowed are {', '.join(SEPARATORS.values())}. Replace each '::' by one "
            f"that its texts do not contain."
        )
    old_line_ends = "\r" in sample and "\n" not in sample
    plain = encoding == "utf-8" and not _is_gzip(path) and not old_line_ends
    with parse_errors_for(path):
        frame = pl.scan_csv(
            path if plain else io.BytesIO(_utf8(path, encoding)),
            separator=separator,
            has_header=header or numbers,
            skip_rows=skipped,
            infer_schema=False,
            glob=False,
        )
        if repeated:
            named = enumerate(zip(frame.collect_schema().names(), first_row, strict=False))
            frame = frame.select(name for at, (name, given) in named if given not in first_row[:at])
        if not header:
            names = frame.collect_schema().names()
            frame = frame.rename({name: f"column_{number}" for number, name in enumerate(names, start=1)})
    return Table(path, frame, header, tuple(notes), encoding, separator, skipped + (header or numbers))


def _separator(sample: str, expected: str) -> tuple[str, list[str]]:
    """The separator of a CSV text and the fields of its first record.

    It is the expected one if all records of the sample have as many fields, at least 2, with it; else another one of
    which that holds; else the one that the first record has most.
    """
    if len(sample) >= SAMPLE:
        sample = sample.rpartition("\n")[0] or sample  # without the last line, which may be cut
    firsts, consistent = {}, []
    for separator in sorted(SEPARATORS, key=lambda one: one != expected):
        try:
            reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
            records = [record for record in reader if record]
        except csv.Error:
            continue
        firsts[separator] = records[0]
        if len(records[0]) > 1 and len({len(record) for record in records}) == 1:
            consistent.append(separator)
    if expected in consistent or not firsts:
        return expected, firsts.get(expected, [])
    chosen = max(consistent or firsts, key=lambda one: len(firsts[one]))
    return chosen, firsts[chosen]


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: Path, encoding: str | None) -> Any:
    """A text file, perhaps compressed, opened for reading; bytes if `encoding` is None."""
    mode: dict[str, Any] = (
        {"mode": "rb"} if encoding is None else {"mode": "rt", "encoding": encoding, "newline": ""}
    )
    return gzip.open(path, **mode) if _is_gzip(path) else path.open(**mode)


def _read(path: Path) -> bytes:
    """The bytes of a file, without compression.

    Raises ValueError if the compressed data is damaged, or takes more than half of the memory: a file of 20 MB may
    hold 20 GB, and the system ends a process that takes too much.
    """
    content, most = io.BytesIO(), memory_of_machine() // 2
    try:
        with _open(path, None) as file:
            while chunk := file.read(CHUNK):
                content.write(chunk)
                if content.tell() > most:
                    raise ValueError(
                        f"{path} holds more than {most / 1e9:,.1f} GB of data, which is half of the memory here. Use "
                        f"less data, or save it as .parquet without .gz."
                    )
            return content.getvalue()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}).") from error


def _utf8(path: Path, encoding: str) -> bytes:
    """The text of a file as UTF-8, with newlines as line ends."""
    data = _read(path)
    if encoding != "utf-8":
        data = data.decode(encoding).encode()
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def _encoding(path: Path) -> tuple[str, list[str]]:
    """The encoding of a text file, and what to say about it. Raises ValueError if there is none that fits."""
    try:
        with _open(path, None) as file:
            sample = file.read(SAMPLE)
            for begin, kind in NOT_TEXT.items():
                if sample.startswith(begin):
                    raise ValueError(f"{path} holds {kind}, not text: unpack or export it first.")
            for bom, (encoding, name) in BOMS.items():
                if sample.startswith(bom):
                    return _checked(path, encoding, name)
            half = len(sample) // 2
            if sample[1::2].count(0) > 0.4 * half > 0 or sample[::2].count(0) > 0.4 * half > 0:
                odd = sample[1::2].count(0) > sample[::2].count(0)
                return _checked(path, "utf-16-le" if odd else "utf-16-be", "UTF-16")
            decoder = codecs.getincrementaldecoder("utf-8")()
            while sample:
                decoder.decode(sample)
                sample = file.read(1 << 20)
            decoder.decode(b"", final=True)
            return "utf-8", []
    except UnicodeDecodeError:
        return _single_byte(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}).") from error


def _checked(path: Path, encoding: str, name: str) -> tuple[str, list[str]]:
    try:
        _read(path).decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} begins like {name} text, but is not ({error}). Save it as UTF-8."
        ) from error
    return encoding, [name]


def _single_byte(path: Path) -> tuple[str, list[str]]:
    """The encoding of a file that is not UTF-8: Windows-1252, unless it looks like damaged UTF-8."""
    data = _read(path)
    letters = data.decode("utf-8", errors="surrogateescape")
    damaged = next(i for i, letter in enumerate(letters) if "\udc80" <= letter <= "\udcff")
    line = letters.count("\n", 0, damaged) + 1
    utf8 = any(letter > "\x7f" and not "\udc80" <= letter <= "\udcff" for letter in letters)
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        utf8 = True
    if utf8:
        raise ValueError(f"{path} is not UTF-8 text: line {line} has other bytes. Save it as UTF-8.")
    return "cp1252", ["Windows-1252 text, as it is not UTF-8"]


def _open_json(path: Path) -> Table:
    encoding, notes = _encoding(path)
    with parse_errors_for(path):
        data = _utf8(path, encoding)
    begin = data.lstrip()[:1]
    if begin == b"{" and not _LONE_SURROGATE.search(data):
        # What fails is read again below, where NaN is allowed, and errors have a line.
        with suppress(RepeatedNameError, PolarsError, PanicException):
            first = _first_names(data)
            frame = pl.read_ndjson(data, infer_schema_length=None)
            found = set(frame.columns)  # in any order, if there are many
            frame = frame[[*(name for name in first if name in found), *sorted(found.difference(first))]]
            return Table(path, frame.lazy(), notes=tuple(notes), encoding=encoding)
    text = data.decode()
    rows = _objects(path, text)
    if begin == b"[":
        notes.append("one JSON list")
    lines = begin == b"{" and len(rows) == sum(bool(line.strip()) for line in text.split("\n"))
    names = dict.fromkeys(name for row in rows for name in row)
    with parse_errors_for(path):
        frame = pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])
    return Table(path, frame.lazy(), notes=tuple(notes), encoding=encoding if lines else "")


def _first_names(lines: bytes) -> list[str]:
    """The names in the first objects, one per line; a line that is cut or no JSON ends them.

    Raises RepeatedNameError if one of the objects has a name more than once, of which polars would keep the last.
    """
    names: dict[str, None] = {}
    for line in lines[:SAMPLE].splitlines()[:SAMPLED_LINES]:
        try:
            names |= dict.fromkeys(json.loads(line or b"{}", object_pairs_hook=unique_names))
        except RepeatedNameError:
            raise
        except (ValueError, TypeError, RecursionError):
            break
    return list(names)


def _objects(path: Path, text: str) -> list[dict[str, Any]]:
    """The objects of JSON text: one list of them, or one after the other. NaN is read as null."""
    decoder = json.JSONDecoder(parse_constant=lambda _: None, object_pairs_hook=unique_names)
    rows, position = [], 0
    while remaining := text[position : position + SAMPLE].lstrip() or text[position:].lstrip():
        position = text.index(remaining[0], position)
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "pos", position)
            reason = "too deep" if isinstance(error, RecursionError) else getattr(error, "msg", error)
            line = text.count("\n", 0, at) + 1
            raise ValueError(f"{path} cannot be read: line {line} is not valid JSON ({reason}).") from error
        rows += value if isinstance(value, list) else [value]
        position = end
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        raise ValueError(f'{path} must hold one or more objects, such as {{"item_id": "a", "text": "..."}}.')
    return rows


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column of JSON values; if their types differ, as text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        values = [
            value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in values
        ]
    return pl.Series(name, values, strict=False)
