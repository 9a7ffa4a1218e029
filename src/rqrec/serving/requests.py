"""What a request names: histories, times and lists of items, as item indices.

Shapes: N items of the catalogue.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rqrec.data.ids import PADDING, IdMap
from rqrec.data.sequences import Histories, check_times
from rqrec.data.times import Time, lists_to_seconds

Unknown = Literal["raise", "skip"]  # what happens to an id that is not in the catalogue


@dataclass(frozen=True)
class RequestReader:
    """Reads the ids of requests. Raises UnknownIdError on one that is not in the catalogue, or skips it."""

    id_map: IdMap

    def histories(
        self,
        histories: Sequence[Sequence[str]],
        timestamps: Sequence[Sequence[Time]] | None,
        users: Sequence[str | None] | None,
        unknown: Unknown,
    ) -> tuple[Histories, list[list[str]]]:
        """The histories as item indices, and the skipped ids of each."""
        _check_histories(histories)
        rows = [self.items(history, unknown) for history in histories]
        # A history without items needs no times.
        times: list[list[int]] | None = None if any(map(len, histories)) else [[] for _ in histories]
        if timestamps is not None:
            check_times(histories, timestamps)
            times = [
                list(compress(seconds, self.id_map.find(history) != PADDING))
                for seconds, history in zip(lists_to_seconds(timestamps), histories, strict=True)
            ]
        inputs = Histories.of([indices for indices, _ in rows], times, users)
        return inputs, [skipped for _, skipped in rows]

    def items(self, ids: Iterable[str], unknown: Unknown) -> tuple[NDArray[np.int64], list[str]]:
        """The item indices of ids, and the skipped ids."""
        if unknown not in ("raise", "skip"):
            raise ValueError(f"unknown is {unknown!r}; allowed are 'raise' and 'skip'.")
        ids = as_ids(ids)
        if unknown == "raise":
            return self.id_map.indices(ids), []
        indices = self.id_map.find(ids)
        return indices[indices != PADDING], list(compress(ids, indices == PADDING))

    def listed(
        self,
        allow: Collection[str],
        block: Collection[str],
        others: bool,
        unknown: Unknown,
    ) -> tuple[NDArray[np.bool_], list[str]]:
        """Which items are in these lists, bool [N], and the skipped ids; `others`: whether items in neither are."""
        allowed_N = np.full(len(self.id_map), others)
        allow_indices, skipped_allow = self.items(allow, unknown)
        allowed_N[allow_indices] = True
        block_indices, skipped_block = self.items(block, unknown)
        allowed_N[block_indices] = False
        return allowed_N, skipped_allow + skipped_block


def _check_histories(histories: Sequence[Sequence[str]]) -> None:
    """Raise ValueError unless these are lists of ids, one for each user."""
    if isinstance(histories, str):
        raise ValueError(
            f"histories is the text {histories!r}, but must be a list of histories: [[{histories!r}]]."
        )
    if not isinstance(histories, Iterable):
        raise ValueError(
            f"histories is {histories!r}, but must be a list of histories, one per user, each a list of item ids, "
            f"such as [['50', '181']]."
        )
    for history in histories:
        if isinstance(history, str) or not isinstance(history, Iterable):
            raise ValueError(
                f"histories must be a list of histories, one per user, each a list of item ids, but {history!r} is "
                f"in the place of one: pass [[{str(history)!r}]] for one user, not {history!r} by itself."
            )


def as_ids(ids: Iterable[str]) -> list[str]:
    """Ids as a list. Raises ValueError on a single string, and on an id that is none."""
    if isinstance(ids, str):
        raise ValueError(f"A list of item ids is needed: pass [{ids!r}] instead of {ids!r}.")
    ids = list(ids)
    for item_id in ids:
        if not isinstance(item_id, str):
            raise ValueError(f"Item ids are strings: pass {str(item_id)!r} instead of {item_id!r}.")
    return ids
