"""Which interactions train, which select a model, which judge it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Sequences, gather_right_padded


@dataclass(frozen=True)
class Cases:
    """Evaluation cases: for each, the items before a moment, and the item that came then.

    `starts` and `ends` int64 [C] are slices of the flat `items`; the target of case c is
    `items[ends[c]]` and its history `items[starts[c]:ends[c]]`. `users` int64 [C] are user indices.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    users: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def targets(self) -> NDArray[np.int64]:
        """The held-out item of each case, [C]."""
        return self.items[self.ends].astype(np.int64)

    def histories(self, cases: slice) -> NDArray[np.int64]:
        """Whole histories of some cases, item indices [B, T] padded on the right."""
        starts, ends = self.starts[cases], self.ends[cases]
        return gather_right_padded(self.items, starts, ends - starts)

    def batches(self, size: int) -> Iterator[slice]:
        """Slices that cover all cases in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True)
class Split:
    """Training sequences, and the cases to select on and to test on."""

    train: Sequences
    validation: Cases
    test: Cases


def leave_one_out(sequences: Sequences) -> Split:
    """The protocol of TIGER (arXiv 2305.05065, section 4) and SASRec.

    Of a user's n items the last is the test target, the one before it the validation target, and the first
    n - 2 train: training targets are the positions 0 to n - 3 and nothing later. The history of the test
    target includes the validation item. A user with fewer than 3 items has no cases and trains whole.
    """
    lengths = sequences.lengths
    held_out = np.where(lengths >= 3, 2, 0)
    keep = np.arange(len(sequences.items)) < np.repeat(sequences.offsets[1:] - held_out, lengths)
    train = Sequences(
        items=sequences.items[keep],
        offsets=np.concatenate([[0], np.cumsum(lengths - held_out)]).astype(np.int64),
        timestamps=sequences.timestamps[keep],
        user_ids=sequences.user_ids,
    )
    users = np.flatnonzero(held_out)
    if not len(users):
        raise ValueError(
            "No user has 3 or more interactions, so nothing can be held out for validation and test. "
            "Bring a longer log."
        )
    starts, ends = sequences.offsets[users], sequences.offsets[users + 1]
    return Split(
        train=train,
        validation=Cases(sequences.items, starts, ends - 2, users),
        test=Cases(sequences.items, starts, ends - 1, users),
    )
