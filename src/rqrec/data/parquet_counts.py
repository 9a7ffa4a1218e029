"""The counts in the headers of a Parquet file, checked before polars allocates memory for them.

A negative count, for which damage of one byte is enough, makes polars ask for 2^61 bytes, and that ends the process:
Rust raises no exception for it. Headers are structs of Thrift's compact protocol, and their fields have the numbers
of parquet.thrift in the format's specification (https://github.com/apache/parquet-format).
"""

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rqrec.core.errors import first_line
from rqrec.core.memory import memory_of_machine

MAGIC = b"PAR1"
TAIL = 8  # bytes of the footer's length and the magic number
BYTES_PER_VALUE = 16  # of the largest allocation that polars makes for a count of values
# Numbers of fields in parquet.thrift.
ROW_GROUPS, COLUMNS, META_DATA = 4, 1, 3
VALUES, COLUMN_BYTES, DATA_PAGE, DICTIONARY_PAGE = 5, 7, 9, 11
PAGE_TYPE, PLAIN_BYTES, PAGE_BYTES = 1, 2, 3
# By page type: the field of what only this type has, the names of the counts in it from 1 on, and how many whole
# numbers every writer gives from 1 on.
PAGES = {
    0: (5, ("values",), 4),
    1: (6, (), 0),
    2: (7, ("values",), 2),
    3: (8, ("values", "nulls", "rows"), 6),
}

Content = bytes | mmap.mmap
Struct = dict[int, Any]
T = TypeVar("T")


def check_counts(path: Path, content: bytes | None = None) -> None:
    """Raise ValueError if headers of a Parquet file are damaged, or count more values than memory has room for.

    `content` is what a compressed file holds. Whatever else is wrong with a file is left to those who read it.
    """
    if content is not None:
        _check(path, content)
    elif path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            _check(path, mapped)


def _check(path: Path, content: Content) -> None:
    if content[-len(MAGIC) :] != MAGIC:
        return  # cut off, encrypted, or no Parquet
    most = memory_of_machine() // BYTES_PER_VALUE
    try:
        for name, count in counts(content):
            if not 0 <= count <= most:
                raise ValueError(f"one of its headers counts {count} {name}")
    except (ValueError, LookupError, RecursionError) as error:
        reason = first_line(error) if isinstance(error, ValueError) else "its headers are damaged"
        raise ValueError(f"{path} cannot be read ({reason}). Is it complete?") from error


def counts(content: Content) -> Iterator[tuple[str, int]]:
    """What and how many, for the counts of all columns and pages.

    Raises ValueError, LookupError or RecursionError if headers are damaged.
    """
    start = len(content) - TAIL - int.from_bytes(content[-TAIL : -len(MAGIC)], "little")
    footer, _ = _Reader(content).struct(start)
    for group in _get(footer, ROW_GROUPS, list):
        for column in _get(group, COLUMNS, list):
            about = _get(column, META_DATA, dict)
            yield "values", _get(about, VALUES, int)
            yield from _counts_of_pages(content, about)


def _counts_of_pages(content: Content, column: Struct) -> Iterator[tuple[str, int]]:
    first = DICTIONARY_PAGE if column.get(DICTIONARY_PAGE) else DATA_PAGE  # 0 is no place of a page
    if not (position := _get(column, first, int)):
        return
    end = position + _get(column, COLUMN_BYTES, int)
    reader = _Reader(content)
    while position < end:
        header, position = reader.struct(position)
        field, names, given = PAGES[_get(header, PAGE_TYPE, int)]
        own = _get(header, field, dict) if given else {}
        numbers = [_get(own, number, int) for number in range(1, given + 1)]
        yield from zip(names, numbers, strict=False)
        size = _get(header, PAGE_BYTES, int)
        yield from (("bytes", _get(header, PLAIN_BYTES, int)), ("bytes", size))
        position += size


def _get(fields: Any, number: int, kind: type[T]) -> T:
    """A field of a struct. Raises ValueError if there is none of this type."""
    value = fields.get(number) if isinstance(fields, dict) else None
    if not isinstance(value, kind):
        raise ValueError("its headers are damaged")
    return value


class _Reader:
    """Values of Thrift's compact protocol. Each method returns a value and the position after it."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.of_type: dict[int, Callable[[int], tuple[Any, int]]] = {
            3: lambda at: (None, at + 1),  # a byte
            4: self._number,
            5: self._number,
            6: self._number,
            7: lambda at: (None, at + 8),  # a double
            8: self._binary,
            9: self._list,
            10: self._list,
            11: self._map,
            12: self.struct,
        }

    def struct(self, position: int) -> tuple[Struct, int]:
        """The fields of a struct by number: whole numbers, lists and structs; others are None or left out."""
        fields: Struct = {}
        number = 0
        while head := self._byte(position):
            position += 1
            step, kind = head >> 4, head & 15
            if step:
                number += step
            else:
                number, position = self._number(position)
            if kind not in (1, 2):  # false and true, which are in the head
                fields[number], position = self.of_type[kind](position)
        return fields, position + 1

    def _byte(self, position: int) -> int:
        if position < 0:
            raise IndexError(position)
        return self.content[position]

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._byte(position)
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
            if shift > 63:
                raise ValueError("its headers are damaged")

    def _number(self, position: int) -> tuple[int, int]:
        value, position = self._varint(position)
        return (value >> 1) ^ -(value & 1), position

    def _size(self, position: int) -> tuple[int, int]:
        size, position = self._varint(position)
        if size > len(self.content):  # each value takes a byte or more
            raise ValueError("its headers are damaged")
        return size, position

    def _binary(self, position: int) -> tuple[None, int]:
        size, position = self._size(position)
        return None, position + size

    def _list(self, position: int) -> tuple[list[Any], int]:
        head = self._byte(position)
        size, position = (head >> 4, position + 1) if head >> 4 < 15 else self._size(position + 1)
        read = self.of_type[max(head & 15, 3)]  # in a list, false and true have a byte each
        values = []
        for _ in range(size):
            value, position = read(position)
            values.append(value)
        return values, position

    def _map(self, position: int) -> tuple[None, int]:
        size, position = self._size(position)
        if size:
            kinds = self._byte(position)
            position += 1
            for _ in range(size):
                _, position = self.of_type[max(kinds >> 4, 3)](position)
                _, position = self.of_type[max(kinds & 15, 3)](position)
        return None, position
