"""Outside ids and inside indices, with one frozen map between them."""

from collections.abc import Iterable, Sequence
from reprlib import Repr
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

PADDING = -1  # the one item index that means "no item", everywhere


_IN_MESSAGES = Repr()  # an id may be as long as a request
_IN_MESSAGES.maxstring = 100


class UnknownIdError(ValueError):
    """An outside id that the catalogue does not have."""


class IdMap:
    """A frozen one-to-one map between item ids (strings, outside) and item indices (0 to n - 1, inside).

    The order of `ids` is the order of the indices. Raises ValueError on an empty or repeated id.

    An id costs 28 bytes and, where it has more than 12 bytes, its own: there is no Python object per item.
    It is found by bisecting the sorted hashes of all ids; the string itself has the last word.
    """

    def __init__(self, ids: Sequence[str] | pl.Series) -> None:
        self._ids = pl.Series("item_id", ids, dtype=pl.String)
        if (empty := self._ids.is_null() | (self._ids == "")).any():
            raise ValueError(f"Item {empty.arg_true()[0]} has an empty id: every item needs one.")
        hashes_N = _hashes(self._ids)
        order_N = hashes_N.argsort(kind="stable")
        self._sorted_hashes = hashes_N[order_N]
        self._index_of_hash = order_N.astype(np.int32 if len(self._ids) < 2**31 else np.int64)
        # Equal ids have equal hashes, so that only ids that share theirs have to be compared.
        shared = self._sorted_hashes[1:][self._sorted_hashes[1:] == self._sorted_hashes[:-1]]
        if len(shared):
            suspects = self._ids.filter(np.isin(hashes_N, shared))
            if len(repeated := suspects.filter(suspects.is_duplicated())):
                raise ValueError(f"Item id {repeated[0]!r} occurs more than once: ids must be unique.")

    def __reduce__(self) -> tuple[Any, ...]:
        return IdMap, (self._ids,)  # hashes of strings differ from process to process

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
        """Every id, in the order of the indices."""
        return self._ids

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Item indices of `ids`, int64 of the same length; PADDING for those that the map does not have."""
        ids = list(ids)
        hashes = _hashes(ids)
        places = np.searchsorted(self._sorted_hashes, hashes)
        found = np.full(len(ids), PADDING, dtype=np.int64)
        rows = np.flatnonzero(places < len(self))
        rows = rows[self._sorted_hashes[places[rows]] == hashes[rows]]
        found[rows] = self._index_of_hash[places[rows]]
        for row, item_id in zip(rows.tolist(), self._ids.gather(found[rows]).to_list(), strict=True):
            if item_id != ids[row]:
                found[row] = self._find_after(ids[row], int(hashes[row]), int(places[row]) + 1)
        return found

    def _find_after(self, item_id: str, hashed: int, place: int) -> int:
        """The index of an id whose hash stands at `place` or later: a look that is needed only where hashes meet."""
        while place < len(self) and self._sorted_hashes[place] == hashed:
            index = int(self._index_of_hash[place])
            if self._ids[index] == item_id:
                return index
            place += 1
        return PADDING

    def indices(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Item indices of `ids`, int64 of the same length. Raises UnknownIdError that names the ids."""
        ids = list(ids)
        found = self.find(ids)
        if (found == PADDING).any():
            unknown = [ids[place] for place in np.flatnonzero(found == PADDING)]
            shown = ", ".join(_IN_MESSAGES.repr(item_id) for item_id in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            example = f", such as {self._ids[0]!r}" if len(self) else ""
            raise UnknownIdError(
                f"Unknown item id {shown}{more}: it is not among the {len(self)} items of the catalogue. "
                f"Use the ids that the catalogue was made with{example}."
            )
        return found

    def ids(self, indices: Iterable[int]) -> list[str]:
        """Item ids of `indices`. Raises IndexError outside 0 to n - 1, PADDING included."""
        indices = np.fromiter(indices, dtype=np.int64)
        if len(outside := indices[(indices < 0) | (indices >= len(self))]):
            raise IndexError(f"Item index {outside[0]} is outside 0 to {len(self) - 1}.")
        return self._ids.gather(indices).to_list()


def _hashes(ids: Iterable[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), dtype=np.int64)
