"""Batches of sequences of similar length, to reduce padding, and their order over the epochs of a run.

Shapes: S sequences, B batch.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

BatchT = TypeVar("BatchT")

MAX_PADDING = 0.1  # fraction of a padded batch
POOL = (
    64  # batches whose sequences are sorted together: a larger pool pads less, a smaller one is more random
)


def bucketed_batches(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """One epoch as arrays of indices int64 [B] into `lengths` [S]: every index once, in random order.

    Indices are shuffled, sorted by length within pools and cut into batches of at most `batch_size`; a batch is made
    smaller if its lengths differ so much that more than `MAX_PADDING` of it would be padding. Then the batches are
    shuffled. Raises ValueError if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        members = order[start : start + POOL * batch_size]
        members = members[np.argsort(lengths[members], kind="stable")]
        while len(members):
            size = _largest_batch(lengths[members[:batch_size]])
            batches.append(members[:size])
            members = members[size:]
    for index in rng.permutation(len(batches)):
        yield batches[index]


def _largest_batch(ascending: NDArray[np.int64]) -> int:
    """The largest number of these lengths, from the first on, with at most `MAX_PADDING` of padding; at least 1."""
    padded = ascending * np.arange(1, len(ascending) + 1)
    too_much = np.cumsum(ascending) < (1 - MAX_PADDING) * padded
    return int(too_much.argmax()) if too_much.any() else len(ascending)


class Epochs(Generic[BatchT]):
    """The batches of a run by step, epoch after epoch; epochs may differ in their number of batches.

    `make(epoch)` gives the batches of an epoch, the same ones whenever it is called. Those of one epoch are kept.
    """

    def __init__(self, make: Callable[[int], Iterable[BatchT]]) -> None:
        self._make, self._epoch, self._batches = make, -1, list[BatchT]()
        self._first_steps = [0]  # of each epoch so far, and of the next

    def epoch_and_index(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and the index of its batch within it."""
        while self._first_steps[-1] <= step:
            self._keep(len(self._first_steps) - 1)
            self._first_steps.append(self._first_steps[-1] + len(self._batches))
        epoch = bisect_right(self._first_steps, step) - 1
        return epoch, step - self._first_steps[epoch]

    def batch(self, step: int) -> BatchT:
        """The batch of a step."""
        epoch, index = self.epoch_and_index(step)
        if epoch != self._epoch:
            self._keep(epoch)
        return self._batches[index]

    def _keep(self, epoch: int) -> None:
        self._batches, self._epoch = list(self._make(epoch)), epoch
