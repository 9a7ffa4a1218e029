"""The counts in the headers of a Parquet file, checked before polars allocates memory for them.

A negative count, for which damage of one byte is enough, makes polars ask for 2^61 bytes, and that ends the process:
Rust raises no exception for it. Headers are structs of Thrift's compact protocol, and their fields have the numbers
of parquet.thrift in the format's specification (https://github.com/apache/parquet-format).
"""

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rqrec.core.memory import memory_of_machine

MAGIC = b"PAR1"
TAIL = 8  # bytes of the footer's length and the magic number
BYTES_PER_VALUE = 16  # of the largest allocation that polars makes for a count of values
# Fields of parquet.thrift.
ROW_GROUPS, COLUMNS, META_DATA = 4, 1, 3
VALUES, COMPRESSED_BYTES, DATA_PAGE, DICTIONARY_PAGE = 5, 7, 9, 11
COMPRESSED = 3
PAGE_BYTES = {2: "uncompressed bytes", COMPRESSED: "compressed bytes"}
COUNTS = {5: {1: "values"}, 7: {1: "values"}, 8: {1: "values", 2: "nulls", 3: "rows"}}

Struct = dict[int, Any]


def check_counts(path: Path, content: bytes | None = None) -> None:
    """Raise ValueError if a header of a Parquet file has a negative count, or one that memory has no room for.

    `content` is what a compressed file holds. Whatever else is wrong with a file is left to those who read it.
    """
    if content is not None:
        _check(path, content)
    elif path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            _check(path, mapped)


def _check(path: Path, content: bytes | mmap.mmap) -> None:
    most = memory_of_machine() // BYTES_PER_VALUE
    for name, count in counts(content):
        if not 0 <= count <= most:
            raise ValueError(
                f"{path} is damaged, or too large for this machine: one of its headers counts {count} {name}."
            )


def counts(content: bytes | mmap.mmap) -> Iterator[tuple[str, int]]:
    """What and how many, for the counts of all columns and pages, until a header cannot be read."""
    try:
        footer, _ = _Reader(content).struct(_start_of_footer(content))
        for group in footer[ROW_GROUPS]:
            for column in group[COLUMNS]:
                yield "values", _number(column[META_DATA], VALUES)
                yield from _counts_of_pages(content, column[META_DATA])
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return


def _start_of_footer(content: bytes | mmap.mmap) -> int:
    if content[-len(MAGIC) :] != MAGIC:
        raise ValueError("not Parquet, or encrypted")
    return len(content) - TAIL - int.from_bytes(content[-TAIL : -len(MAGIC)], "little")


def _counts_of_pages(content: bytes | mmap.mmap, column: Struct) -> Iterator[tuple[str, int]]:
    first = _number(column, DATA_PAGE)
    position = min(first, _number(column, DICTIONARY_PAGE, first) or first)
    end = position + _number(column, COMPRESSED_BYTES)
    reader = _Reader(content)
    while position < end:
        header, position = reader.struct(position)
        for field, name in PAGE_BYTES.items():
            yield name, _number(header, field)
        for kind, names in COUNTS.items():
            for field, name in names.items():
                yield name, _number(header.get(kind, {}), field, 0)
        position += _number(header, COMPRESSED)


def _number(fields: Any, field: int, default: int | None = None) -> int:
    value = fields.get(field, default) if isinstance(fields, dict) else None
    if not isinstance(value, int):
        raise ValueError(f"field {field} is not a number")
    return value


class _Reader:
    """Values of Thrift's compact protocol. Each method returns a value and the position after it."""

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self.content = content
        self.of_type: dict[int, Callable[[int], tuple[Any, int]]] = {
            3: lambda at: (self._byte(at), at + 1),
            4: self._integer,
            5: self._integer,
            6: self._integer,
            7: lambda at: (None, at + 8),  # a double
            8: self._binary,
            9: self._list,
            10: self._list,
            11: self._map,
            12: self.struct,
        }

    def struct(self, position: int) -> tuple[Struct, int]:
        """The fields of a struct by number. Bytes are left out, and so are values of false and true."""
        fields: Struct = {}
        number = 0
        while head := self._byte(position):
            position += 1
            step, kind = head >> 4, head & 15
            if step:
                number += step
            else:
                number, position = self._integer(position)
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
                raise ValueError("a number of more than 64 bits")

    def _integer(self, position: int) -> tuple[int, int]:
        value, position = self._varint(position)
        return (value >> 1) ^ -(value & 1), position

    def _size(self, position: int) -> tuple[int, int]:
        size, position = self._varint(position)
        if size > len(self.content):  # each value takes a byte or more
            raise ValueError(f"{size} values or bytes")
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
