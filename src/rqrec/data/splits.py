"""Which interactions train, which select a model, which judge it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Histories, Sequences, gather_right_padded


@dataclass(frozen=True)
class EvalExamples:
    """Evaluation cases: for each, the items before a moment, and the item that came then.

    `starts` and `ends` int64 [C] are slices of the flat `items`; the target of case c is
    `items[ends[c]]` and its history `items[starts[c]:ends[c]]`. `users` int64 [C] are user indices.
    `times` int64 (unix seconds), flat as the items are, and `user_ids` by user index are None where unknown.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    users: NDArray[np.int64]
    times: NDArray[np.int64] | None = None
    user_ids: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        sequences: Sequences,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        users: NDArray[np.int64],
    ) -> "EvalExamples":
        """EvalExamples among the interactions of `sequences`, with all that is known of them."""
        return cls(sequences.items, starts, ends, users, sequences.times, sequences.user_ids)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def targets(self) -> NDArray[np.int64]:
        """The held-out item of each case, [C]."""
        return self.items[self.ends].astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each case's history, [C]."""
        return self.ends - self.starts

    def histories(self, cases: slice | NDArray[np.int64]) -> Histories:
        """Whole histories of some cases."""
        starts, lengths = self.starts[cases], self.ends[cases] - self.starts[cases]
        return Histories(
            gather_right_padded(self.items, starts, lengths),
            None if self.times is None else gather_right_padded(self.times, starts, lengths),
            None if self.user_ids is None else tuple(self.user_ids[user] for user in self.users[cases]),
        )

    def strided(self, stride: int, first: int = 0) -> "EvalExamples":
        """EvalExamples first, first + stride, ..."""
        chosen = slice(first, None, stride)
        return replace(self, starts=self.starts[chosen], ends=self.ends[chosen], users=self.users[chosen])

    def batches(self, size: int) -> Iterator[slice]:
        """Slices that cover all cases in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True)
class Split:
    """Training sequences, and the cases to select on and to test on."""

    train: Sequences
    validation: EvalExamples
    test: EvalExamples


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
        validation=EvalExamples.of(sequences, starts, ends - 2, users),
        test=EvalExamples.of(sequences, starts, ends - 1, users),
    )


def temporal(sequences: Sequences, validation: float = 0.1, test: float = 0.1) -> Split:
    """A split at two moments, the same for all users: nobody's future trains.

    The last `test` of all interactions lie after the second moment, the `validation` before them between the
    two; interactions at one moment stay together. Training sequences end at the first moment. A user's case
    is the first interaction within a stretch, and its history all that came before; a user with none before
    has no case.

    Raises ValueError where the shares leave nothing, or where the source kept no time.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"The shares {validation} and {test} must be above 0 and together below 1.")
    times = sequences.timestamps
    if sequences.order_only:
        raise ValueError(
            "The source of this dataset kept no time, only each user's order, so there is no moment to split "
            "at. Use leave_one_out, or prepare from files that keep the time."
        )
    ranked = np.sort(times)
    first = ranked[int(len(ranked) * (1 - validation - test))]
    second = ranked[int(len(ranked) * (1 - test))]
    # As times ascend within a user, an interaction's stretch is a position in the sequence.
    before_first = _count_by_user(sequences, times < first)
    before_second = _count_by_user(sequences, times < second)
    keep = times < first
    if first == second or not keep.any():
        raise ValueError(
            f"Too many interactions share the moments {first} and {second}: the shares {validation} and "
            f"{test} leave a stretch empty. Choose other shares."
        )
    train = Sequences(
        items=sequences.items[keep],
        offsets=np.concatenate([[0], np.cumsum(before_first)]).astype(np.int64),
        timestamps=times[keep],
        user_ids=sequences.user_ids,
    )
    return Split(
        train=train,
        validation=_first_cases(sequences, before_first, before_second),
        test=_first_cases(sequences, before_second, sequences.lengths),
    )


def _count_by_user(sequences: Sequences, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    totals = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
    return totals[sequences.offsets[1:]] - totals[sequences.offsets[:-1]]


def _first_cases(sequences: Sequences, begin: NDArray[np.int64], end: NDArray[np.int64]) -> EvalExamples:
    """The case of each user with a history whose positions `begin` to `end` are not empty."""
    users = np.flatnonzero((begin > 0) & (begin < end))
    starts = sequences.offsets[users]
    return EvalExamples.of(sequences, starts, starts + begin[users], users)


PROTOCOLS: dict[str, Callable[[Sequences], Split]] = {"leave_one_out": leave_one_out, "temporal": temporal}


def get_protocol(name: str) -> Callable[[Sequences], Split]:
    """The split of that name. Raises ValueError with the names that exist."""
    if name not in PROTOCOLS:
        raise ValueError(f"There is no split {name!r}; allowed are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
