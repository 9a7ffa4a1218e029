"""User sequences as flat arrays: no Python object per user, batches by indexing.

Shapes: U users, M interactions, B batch, T items in a history (padded on the right with PADDING).
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.arrays import read_npz
from rqrec.core.artifact import atomic_write
from rqrec.data.ids import PADDING
from rqrec.data.tables import read_parquet

SEQUENCES_FILE = "sequences.npz"
USERS_FILE = "users.parquet"


@dataclass(frozen=True)
class Sequences:
    """The concatenated item sequences of all users, each oldest first.

    The items of user u are `items[offsets[u]:offsets[u + 1]]`. Raises ValueError if the lengths disagree, and on
    arrays of another kind.
    """

    items: NDArray[np.int32]
    """Item indices, int32 [M]."""
    offsets: NDArray[np.int64]
    """Start of each user's sequence in `items`, and M at the end; int64 [U + 1]."""
    timestamps: NDArray[np.int64]
    """int64 [M], seconds since 1970; positions 0, 1, ... if the source has no time."""
    user_ids: tuple[str, ...]
    """U ids."""

    def __post_init__(self) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "items": self.items,
            "offsets": self.offsets,
            "timestamps": self.timestamps,
        }
        for name, array in arrays.items():
            if array.ndim != 1 or array.dtype.kind != "i":
                raise ValueError(
                    f"{name} has {array.ndim} dimensions of {array.dtype}, but must be integers [n]."
                )
        if self.offsets[:1].any() or (np.diff(self.offsets) < 0).any():
            raise ValueError("The offsets must start with 0 and not decrease.")
        if len(self.items) != len(self.timestamps) or self.offsets[-1] != len(self.items):
            raise ValueError("items, timestamps and the last offset disagree on the number of interactions.")
        if len(self.offsets) != len(self.user_ids) + 1:
            raise ValueError(f"{len(self.user_ids)} users need {len(self.user_ids) + 1} offsets.")

    def __repr__(self) -> str:
        return f"Sequences({len(self):,} users, {len(self.items):,} interactions)"

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of interactions of each user, int64 [U]."""
        return np.diff(self.offsets)

    def of_user(self, user: int) -> NDArray[np.int32]:
        """Item indices of one user (by user index), oldest first, int32."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def order_only(self) -> bool:
        """Whether only the order is known: the timestamps are positions in each user's sequence."""
        return bool((self.timestamps == self._positions).all())

    @property
    def times(self) -> NDArray[np.int64] | None:
        """The timestamps, int64 [M] (seconds since 1970), or None if the source has no time."""
        return None if self.order_only else self.timestamps

    def without_times(self) -> "Sequences":
        """The same sequences with positions as timestamps."""
        return replace(self, timestamps=self._positions)

    @property
    def _positions(self) -> NDArray[np.int64]:
        return np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.lengths)

    def last(self, count: int) -> "Sequences":
        """The sequences limited to each user's last `count` interactions."""
        kept = np.minimum(self.lengths, count)
        dropped = np.repeat(self.lengths - kept, self.lengths)
        keep = self._positions >= dropped
        offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        # Positions restart at the first interaction that is kept.
        timestamps = self.timestamps - dropped if self.order_only else self.timestamps
        return Sequences(self.items[keep], offsets, timestamps[keep], self.user_ids)

    def write(self, folder: Path) -> None:
        """Write the arrays (`sequences.npz`) and the user ids (`users.parquet`) into `folder`."""
        with atomic_write(folder / SEQUENCES_FILE) as file:
            np.savez(file, items=self.items, offsets=self.offsets, timestamps=self.timestamps)
        with atomic_write(folder / USERS_FILE) as file:
            pl.DataFrame({"user_id": list(self.user_ids)}, schema={"user_id": pl.String}).write_parquet(file)

    @classmethod
    def read(cls, folder: Path) -> "Sequences":
        """Read sequences written by `write`. Raises ValueError, naming the file, if they are damaged."""
        users = read_parquet(folder / USERS_FILE, strings=["user_id"])["user_id"].to_list()
        path = folder / SEQUENCES_FILE
        try:
            arrays = read_npz(path)
            return cls(arrays["items"], arrays["offsets"], arrays["timestamps"], tuple(users))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path} is damaged ({error}). Run `rqrec prepare` again.") from error


@dataclass(frozen=True)
class Histories:
    """A batch of B user histories: the input of every recommender."""

    items_BT: NDArray[np.int64]
    """Item indices, int64 [B, T], oldest first, padded on the right with PADDING."""
    times_BT: NDArray[np.int64] | None = None
    """Time of each interaction, int64 [B, T] (seconds since 1970), padded like the items; None if unknown."""
    user_ids: tuple[str | None, ...] | None = None
    """B user ids, None for a user without one; None if no user has an id."""

    def __len__(self) -> int:
        return len(self.items_BT)

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[int] | NDArray[Any]],
        times: Sequence[Sequence[int] | NDArray[Any]] | None = None,
        user_ids: Sequence[str | None] | None = None,
    ) -> "Histories":
        """Build a batch from lists of item indices, with one time per item and one id per user if given.

        Raises ValueError if the numbers of items, times and users disagree.
        """
        if times is not None:
            check_times(histories, times)
        if user_ids is not None and len(user_ids) != len(histories):
            raise ValueError(
                f"{len(histories)} histories have {len(user_ids)} user ids: give one per history."
            )
        return cls(
            _right_padded(histories),
            None if times is None else _right_padded(times),
            None if user_ids is None else tuple(user_ids),
        )

    def first(self, counts_B: NDArray[np.int64]) -> "Histories":
        """The batch limited to the first `counts_B` items of each history, int64 [B], none above its length."""
        starts = np.arange(len(self)) * self.items_BT.shape[1]
        return self._slices(starts, counts_B)

    def last(self, count: int) -> "Histories":
        """The batch limited to each history's last `count` items."""
        lengths = (self.items_BT != PADDING).sum(axis=1)
        kept = np.minimum(lengths, count)
        starts = np.arange(len(self)) * self.items_BT.shape[1]
        return self._slices(starts + lengths - kept, kept)

    def row(self, row: int) -> "Histories":
        """The batch of one of its histories."""
        rows = slice(row, row + 1)
        items_1T = self.items_BT[rows, : int((self.items_BT[row] != PADDING).sum())]
        times_1T = None if self.times_BT is None else self.times_BT[rows, : items_1T.shape[1]]
        return Histories(items_1T, times_1T, None if self.user_ids is None else self.user_ids[rows])

    def _slices(self, starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> "Histories":
        """Part of each history; it starts at an index into the flat arrays."""
        items_BT = gather_right_padded(self.items_BT.ravel(), starts_B, lengths_B)
        times_BT = None
        if self.times_BT is not None:
            times_BT = gather_right_padded(self.times_BT.ravel(), starts_B, lengths_B)
        return Histories(items_BT, times_BT, self.user_ids)


def check_times(histories: Sequence[Sized], times: Sequence[Sized]) -> None:
    """Raise ValueError unless there is one time per item of each history."""
    lengths, given = ([len(row) for row in rows] for rows in (histories, times))
    if len(lengths) != len(given):
        raise ValueError(
            f"{len(lengths)} histories have timestamps for {len(given)}: give one list per history."
        )
    for row, (items, stamps) in enumerate(zip(lengths, given, strict=True)):
        if items != stamps:
            raise ValueError(
                f"History {row} has {items} items and {stamps} timestamps: give one timestamp per item."
            )


def _right_padded(rows: Sequence[Sequence[int] | NDArray[Any]]) -> NDArray[np.int64]:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows] or [np.zeros(0, int)])
    return gather_right_padded(flat, np.cumsum(lengths) - lengths, lengths)


def gather_right_padded(
    items: NDArray[Any], starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Slices of a flat array as a matrix int64 [B, max length], padded on the right with PADDING."""
    width = int(lengths_B.max(initial=0))
    steps_T = np.arange(width)
    inside_BT = steps_T < lengths_B[:, None]
    positions_BT = np.where(inside_BT, starts_B[:, None] + steps_T, 0)
    if not len(items):
        return np.full(inside_BT.shape, PADDING, dtype=np.int64)
    return np.where(inside_BT, items[positions_BT], PADDING).astype(np.int64)
