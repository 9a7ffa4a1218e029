"""Batches of sequences of about one length, so that little of a batch is padding.

Shapes: S sequences, B batch.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_WASTE = 0.1  # share of a padded batch that may be padding
POOL = 64  # batches whose sequences are sorted together: more waste less, fewer are more random


def bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """One epoch as arrays of indices int64 [B] into `lengths` [S]: every index once, in a random order.

    Indices are shuffled, sorted by length within pools, and cut into batches of at most `batch_size`, none of
    which is padding to more than `MAX_WASTE`: where lengths differ much, a batch is smaller. Then the batches
    are shuffled. Equal generators give equal epochs.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        members = order[start : start + POOL * batch_size]
        members = members[np.argsort(lengths[members], kind="stable")]
        while len(members):
            size = _most_within_waste(lengths[members[:batch_size]])
            batches.append(members[:size])
            members = members[size:]
    for index in rng.permutation(len(batches)):
        yield batches[index]


def _most_within_waste(ascending: NDArray[np.int64]) -> int:
    """How many of these lengths, from the first on, make a batch that keeps to `MAX_WASTE`; at least 1."""
    padded = ascending * np.arange(1, len(ascending) + 1)
    too_much = np.cumsum(ascending) < (1 - MAX_WASTE) * padded
    return int(too_much.argmax()) if too_much.any() else len(ascending)


def padding_waste(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> float:
    """The share of all padded batches that is padding, 0 to 1."""
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - float(lengths.sum()) / padded if padded else 0.0
