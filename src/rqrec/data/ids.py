"""External item ids and internal item indices, with an immutable map between them.

Shapes: N ids.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from reprlib import Repr
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.errors import first_few

PADDING = -1  # the item index that means "no item"
LONGEST_ID = 1000  # characters; an address (URL) can hold it
LONGEST_EXPLAINED = 200  # characters of an unknown id of which other forms are tried
LONGEST_NUMBER = 20  # digits up to which leading zeros are tried

_IN_MESSAGES = Repr()  # ids from a request may be arbitrarily long
_IN_MESSAGES.maxstring = 100


class UnknownIdError(ValueError):
    """An item id that is not in the catalogue."""


class IdMap:
    """An immutable one-to-one map between item ids (external, strings) and item indices (internal, 0 to n - 1).

    The order of `ids` is the order of the indices. Raises ValueError on an empty, repeated or
    overlong id (`LONGEST_ID`).

    An id takes 28 bytes of memory, plus its own length if it is longer than 12 bytes; there is no Python object
    per item. Look-up is a binary search in the sorted hashes of all ids, confirmed by comparing the strings.
    """

    def __init__(self, ids: Sequence[str] | pl.Series) -> None:
        self._ids = pl.Series("item_id", ids, dtype=pl.String)
        if (empty := self._ids.is_null() | (self._ids == "")).any():
            raise ValueError(f"Item {empty.arg_true()[0]} has an empty id: every item needs one.")
        if (longer := self._ids.str.len_chars() > LONGEST_ID).any():
            row = int(longer.arg_true()[0])
            shown, length = _IN_MESSAGES.repr(self._ids[row]), len(self._ids[row])
            raise ValueError(
                f"Item {row} has the id {shown} of {length} characters, but {LONGEST_ID} are allowed: shorten it."
            )
        hashes_N = _hashes(self._ids)
        order_N = hashes_N.argsort(kind="stable")
        self._sorted_hashes = hashes_N[order_N]
        self._index_of_hash = order_N.astype(np.int32 if len(self._ids) < 2**31 else np.int64)
        # Equal ids have equal hashes, so only ids with the same hash need to be compared.
        shared = self._sorted_hashes[1:][self._sorted_hashes[1:] == self._sorted_hashes[:-1]]
        if len(shared):
            suspects = self._ids.filter(np.isin(hashes_N, shared))
            if len(repeated := suspects.filter(suspects.is_duplicated())):
                raise ValueError(f"Item id {repeated[0]!r} occurs more than once: ids must be unique.")

    def __reduce__(self) -> tuple[Any, ...]:
        return IdMap, (self._ids,)  # rebuild: string hashes differ between processes

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and bool(self.find([item_id])[0] != PADDING)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self._ids.equals(other._ids)

    def __hash__(self) -> int:
        return hash(self._sorted_hashes.tobytes())

    def __repr__(self) -> str:
        return f"IdMap({len(self)} ids)"

    @property
    def all(self) -> pl.Series:
        """All ids, in order of item index."""
        return self._ids

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Item indices of `ids`, int64 of the same length; PADDING for unknown ids."""
        ids = list(ids)
        hashes = _hashes(ids)
        positions = np.searchsorted(self._sorted_hashes, hashes)
        found = np.full(len(ids), PADDING, dtype=np.int64)
        rows = np.flatnonzero(positions < len(self))
        rows = rows[self._sorted_hashes[positions[rows]] == hashes[rows]]
        found[rows] = self._index_of_hash[positions[rows]]
        for row, item_id in zip(rows.tolist(), self._texts(found[rows]), strict=True):
            if item_id != ids[row]:
                found[row] = self._find_from(ids[row], int(hashes[row]), int(positions[row]) + 1)
        return found

    def _find_from(self, item_id: str, hashed: int, position: int) -> int:
        """The index of an id after a hash collision: search the equal hashes from `position` on."""
        while position < len(self) and self._sorted_hashes[position] == hashed:
            index = int(self._index_of_hash[position])
            if self._ids[index] == item_id:
                return index
            position += 1
        return PADDING

    def indices(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Item indices of `ids`, int64 of the same length. Raises UnknownIdError naming the unknown ids."""
        ids = list(ids)
        found = self.find(ids)
        if (found == PADDING).any():
            unknown = [ids[position] for position in np.flatnonzero(found == PADDING)]
            shown = first_few([_IN_MESSAGES.repr(item_id) for item_id in unknown])
            example = f", such as {self._ids[0]!r}" if len(self) else ""
            raise UnknownIdError(
                f"Unknown item id {shown}: it is not among the {len(self)} items of the catalogue. "
                f"{self.explain(unknown[0]) or f'Use the ids of the catalogue{example}.'}"
            )
        return found

    def explain(self, unknown: str) -> str:
        """A sentence on an id of the catalogue that differs from an unknown one only in its form; "" without one."""
        if not unknown or len(unknown) > LONGEST_EXPLAINED:
            return ""
        for form, difference in _other_forms(unknown):
            if form in self:
                return f"The catalogue has {form!r}, which differs only by {difference}."
        return ""

    def ids(self, indices: Iterable[int]) -> list[str]:
        """Item ids of `indices`. Raises IndexError on an index outside 0 to n - 1, including PADDING."""
        indices = np.fromiter(indices, dtype=np.int64)
        if len(outside := indices[(indices < 0) | (indices >= len(self))]):
            raise IndexError(f"Item index {outside[0]} is outside 0 to {len(self) - 1}.")
        return self._texts(indices)

    def _texts(self, indices: NDArray[np.int64]) -> list[str]:
        """The ids of indices, one by one: for the few of a request, `gather` takes ten times as long."""
        return [self._ids[index] for index in indices.tolist()]


def _other_forms(item_id: str) -> Iterator[tuple[str, str]]:
    """Forms in which tools write the same id, each with the difference to the given one."""
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield unicodedata.normalize(form, item_id), f"the Unicode form of its letters ({form})"
    for spaced in (item_id.strip(), f"{item_id} ", f" {item_id}"):
        yield spaced, "spaces around it"
    for decimal in (item_id.removesuffix(".0"), f"{item_id}.0"):
        yield decimal, "'.0' at the end"
    number = item_id.lstrip("0") or "0"
    if len(number) <= LONGEST_NUMBER:
        for width in range(len(number), LONGEST_NUMBER + 1):
            yield number.zfill(width), "leading zeros"
    for cased in (item_id.lower(), item_id.upper()):
        yield cased, "upper and lower case"


def _hashes(ids: Iterable[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), dtype=np.int64)
