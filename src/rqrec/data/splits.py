"""Evaluation protocols: how interactions are divided into training, validation and test splits.

A protocol ("leave_one_out" or "temporal") is a function from sequences to a `Split`.

Shapes: U users, M interactions, E evaluation examples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Histories, Sequences, gather_right_padded

MIN_ITEMS = 3  # of a user, to hold one out for test and one for validation, and train on one


@dataclass(frozen=True)
class EvalExamples:
    """Evaluation examples: histories, each with the next item as target.

    The history of example e is `items[starts[e]:ends[e]]`, its target `items[ends[e]]`.
    """

    items: NDArray[np.int32]
    """Item indices of all users, int32 [M]."""
    starts: NDArray[np.int64]
    """Start of each history in `items`, int64 [E]."""
    ends: NDArray[np.int64]
    """Position of each target in `items`, int64 [E]."""
    users: NDArray[np.int64]
    """User index of each example, int64 [E]."""
    times: NDArray[np.int64] | None = None
    """Time of each interaction, int64 [M] (seconds since 1970); None if the source has no time."""
    user_ids: tuple[str, ...] | None = None
    """Ids by user index, U strings; None if unknown."""

    @classmethod
    def of(
        cls,
        sequences: Sequences,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        users: NDArray[np.int64],
    ) -> "EvalExamples":
        """Examples within `sequences`, with their times and user ids."""
        return cls(sequences.items, starts, ends, users, sequences.times, sequences.user_ids)

    def __repr__(self) -> str:
        return f"EvalExamples({len(self):,} histories with their next items)"

    def __len__(self) -> int:
        return len(self.users)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Item index of each target, int64 [E]."""
        return self.items[self.ends].astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each history, int64 [E]."""
        return self.ends - self.starts

    def histories(self, examples: slice | NDArray[np.int64]) -> Histories:
        """The full histories of some examples, selected by a slice or an array of indices."""
        starts, lengths = self.starts[examples], self.ends[examples] - self.starts[examples]
        return Histories(
            gather_right_padded(self.items, starts, lengths),
            None if self.times is None else gather_right_padded(self.times, starts, lengths),
            None if self.user_ids is None else tuple(self.user_ids[user] for user in self.users[examples]),
        )

    def strided(self, stride: int, offset: int = 0) -> "EvalExamples":
        """The subset of examples offset, offset + stride, offset + 2 stride, ..."""
        subset = slice(offset, None, stride)
        return replace(self, starts=self.starts[subset], ends=self.ends[subset], users=self.users[subset])

    def batches(self, size: int) -> Iterator[slice]:
        """Slices that cover all examples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


def targets_in_history(examples: EvalExamples) -> int:
    """Number of examples whose target is already in their history; with seen items excluded, none can be a hit."""
    count = 0
    for batch in examples.batches(65_536):
        starts, lengths, targets = examples.starts[batch], examples.lengths[batch], examples.targets[batch]
        example = np.repeat(np.arange(len(starts)), lengths)
        first = np.cumsum(lengths) - lengths  # of each example in the concatenated histories
        items = examples.items[np.arange(len(example)) + (starts - first)[example]]
        count += len(np.unique(example[items == targets[example]]))
    return count


@dataclass(frozen=True)
class Split:
    """A dataset divided by an evaluation protocol."""

    train: Sequences
    """Training sequences."""
    validation: EvalExamples
    """Examples for model selection."""
    test: EvalExamples
    """Examples for the final evaluation."""


def leave_one_out(sequences: Sequences) -> Split:
    """The leave-one-out protocol of TIGER (arXiv 2305.05065, section 4) and SASRec.

    Of a user's n items, the last is the test target, the one before it the validation target, and the first
    n - 2 (positions 0 to n - 3) are for training. The history of the test target includes the validation item.
    A user with fewer than 3 items (`MIN_ITEMS`) has no evaluation examples, and all of their items are for training.

    Raises ValueError if no user has 3 items.
    """
    lengths = sequences.lengths
    held_out = np.where(lengths >= MIN_ITEMS, 2, 0)
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
            "Use a longer log."
        )
    starts, ends = sequences.offsets[users], sequences.offsets[users + 1]
    return Split(
        train=train,
        validation=EvalExamples.of(sequences, starts, ends - 2, users),
        test=EvalExamples.of(sequences, starts, ends - 1, users),
    )


def temporal(sequences: Sequences, validation: float = 0.1, test: float = 0.1) -> Split:
    """Split at two points in time that are the same for all users, so that training never sees the future.

    `validation` and `test` are fractions of all interactions: the last `test` of them form the test period, those
    before form the validation period, and the rest is for training. Interactions with the same timestamp stay
    together. A user's example in a period has their first interaction of the period as target and everything
    before it as history; a user without earlier interactions has no example.

    Raises ValueError if a fraction is out of range or leaves a period empty, or if the source has no time.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(
            f"The fractions {validation} (validation) and {test} (test) must be above 0 and together below 1."
        )
    times = sequences.timestamps
    if sequences.order_only:
        raise ValueError(
            "The source of this dataset has no time, only each user's order, so it cannot be split by time. Use "
            "leave_one_out, or prepare the dataset from files with timestamps."
        )
    ranked = np.sort(times)
    if ranked[0] == ranked[-1]:
        raise ValueError(
            f"All interactions have the timestamp {ranked[0]}, so they cannot be split by time. Use leave_one_out."
        )
    first = ranked[int(len(ranked) * (1 - validation - test))]
    second = ranked[int(len(ranked) * (1 - test))]
    # Times ascend within a user, so a period is a range of positions in the sequence.
    before_first = _count_by_user(sequences, times < first)
    before_second = _count_by_user(sequences, times < second)
    keep = times < first
    if first == second or not keep.any():
        raise ValueError(
            f"Too many interactions have the timestamps {first} and {second}: the fractions {validation} and "
            f"{test} leave a period empty. Choose other fractions."
        )
    train = Sequences(
        items=sequences.items[keep],
        offsets=np.concatenate([[0], np.cumsum(before_first)]).astype(np.int64),
        timestamps=times[keep],
        user_ids=sequences.user_ids,
    )
    validation_examples = _first_examples(sequences, before_first, before_second)
    test_examples = _first_examples(sequences, before_second, sequences.lengths)
    if not len(validation_examples) or not len(test_examples):
        raise ValueError(
            f"There are {len(validation_examples)} validation and {len(test_examples)} test examples: no user has "
            f"interactions both before and in each period. Choose other fractions, or use leave_one_out."
        )
    return Split(train=train, validation=validation_examples, test=test_examples)


def _count_by_user(sequences: Sequences, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    totals = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
    return totals[sequences.offsets[1:]] - totals[sequences.offsets[:-1]]


def _first_examples(sequences: Sequences, begin: NDArray[np.int64], end: NDArray[np.int64]) -> EvalExamples:
    """One example per user whose positions `begin` to `end` are not empty and who has a history before them."""
    users = np.flatnonzero((begin > 0) & (begin < end))
    starts = sequences.offsets[users]
    return EvalExamples.of(sequences, starts, starts + begin[users], users)


PROTOCOLS: dict[str, Callable[[Sequences], Split]] = {"leave_one_out": leave_one_out, "temporal": temporal}


def get_protocol(name: str) -> Callable[[Sequences], Split]:
    """The evaluation protocol of that name. Raises ValueError on an unknown name."""
    if name not in PROTOCOLS:
        raise ValueError(f"Unknown evaluation protocol {name!r}; allowed are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
