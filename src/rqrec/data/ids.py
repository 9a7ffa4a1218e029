"""Outside ids and inside indices, with one frozen map between them."""

from collections.abc import Iterable, Sequence
from reprlib import Repr

import numpy as np
from numpy.typing import NDArray

PADDING = -1  # the one item index that means "no item", everywhere


_IN_MESSAGES = Repr()  # an id may be as long as a request
_IN_MESSAGES.maxstring = 100


class UnknownIdError(ValueError):
    """An outside id that the catalogue does not have."""


class IdMap:
    """A frozen one-to-one map between item ids (strings, outside) and item indices (0 to n - 1, inside).

    The order of `ids` is the order of the indices. Raises ValueError on an empty or repeated id.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = tuple(ids)
        self._index = {item_id: index for index, item_id in enumerate(self._ids)}
        if "" in self._index:
            raise ValueError(f"Item {self._index['']} has an empty id: every item needs one.")
        if len(self._index) != len(self._ids):
            first: dict[str, int] = {}
            repeated = next(i for index, i in enumerate(self._ids) if first.setdefault(i, index) != index)
            raise ValueError(f"Item id {repeated!r} occurs more than once: ids must be unique.")

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)

    def __repr__(self) -> str:
        return f"IdMap({len(self)} ids)"

    @property
    def all(self) -> tuple[str, ...]:
        """Every id, in the order of the indices."""
        return self._ids

    def indices(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Item indices of `ids`, int64 of the same length. Raises UnknownIdError that names the ids."""
        ids = list(ids)
        unknown = [item_id for item_id in ids if item_id not in self._index]
        if unknown:
            shown = ", ".join(_IN_MESSAGES.repr(item_id) for item_id in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            example = f", such as {self._ids[0]!r}" if self._ids else ""
            raise UnknownIdError(
                f"Unknown item id {shown}{more}: it is not among the {len(self)} items of the catalogue. "
                f"Use the ids that the catalogue was made with{example}."
            )
        return np.array([self._index[item_id] for item_id in ids], dtype=np.int64)

    def ids(self, indices: Iterable[int]) -> list[str]:
        """Item ids of `indices`. Raises IndexError outside 0 to n - 1, PADDING included."""
        indices = [int(index) for index in indices]
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"Item index {index} is outside 0 to {len(self) - 1}.")
        return [self._ids[index] for index in indices]
