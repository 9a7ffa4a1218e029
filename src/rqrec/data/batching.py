"""Batches of sequences of about one length, so that little of a batch is padding.

Shapes: S sequences, B batch.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_WASTE = 0.1  # share of a padded batch that may be padding, over an epoch


def bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """One epoch as arrays of indices int64 [B] into `lengths` [S]: every index once, in a random order.

    Indices are shuffled, cut into pools of many batches, and sorted by length within a pool; then the batches
    are shuffled. A pool is as small as keeps the padding below `MAX_WASTE`, for randomness' sake. All batches
    but one have `batch_size` indices. Equal generators give equal epochs.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    order = rng.permutation(len(lengths))
    pool = batch_size * 8
    while True:
        batches = _sorted_in_pools(order, lengths, batch_size, pool)
        if pool >= len(order) or padding_waste(lengths, batches) <= MAX_WASTE:
            break
        pool *= 4
    for index in rng.permutation(len(batches)):
        yield batches[index]


def _sorted_in_pools(
    order: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int, pool: int
) -> list[NDArray[np.int64]]:
    batches = []
    for start in range(0, len(order), pool):
        members = order[start : start + pool]
        by_length = members[np.argsort(lengths[members], kind="stable")]
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return batches


def padding_waste(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> float:
    """The share of all padded batches that is padding, 0 to 1."""
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - float(lengths.sum()) / padded if padded else 0.0
