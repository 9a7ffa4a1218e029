"""Every item of the training sequences as the target of one example: the items before it are its history.

Shapes: U users, E examples of an epoch, B batch, T items.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Sequences, gather_right_padded
from rqrec.training.batching import Epochs, bucketed_batches


@dataclass
class Prefixes:
    """Batches of histories with their next item, in an order that is drawn anew for each epoch.

    An item is learned from the history exactly as it is when the item is recommended. Windows
    (`rqrec.training.windows`) share one pass over a sequence among all its targets, which is cheaper, but ties
    positions to the window's start. A batch depends on the step and the seed only.
    """

    train: Sequences
    max_items: int
    """Maximum length of a history; of longer ones the most recent items are kept."""
    batch_size: int
    """Maximum number of examples in a batch."""
    seed: int

    def __post_init__(self) -> None:
        if self.max_items < 1 or self.batch_size < 1:
            raise ValueError(
                f"max_items ({self.max_items}) and batch_size ({self.batch_size}) must be at least 1."
            )
        lengths_U = self.train.lengths
        if not lengths_U.sum():
            raise ValueError("The training split has no interactions to learn from.")
        ages_E = np.arange(lengths_U.sum()) - np.repeat(self.train.offsets[:-1], lengths_U)
        self._lengths_E = np.minimum(ages_E, self.max_items) + 1  # the history and its target
        self._starts_E = np.arange(len(ages_E)) + 1 - self._lengths_E
        self._epochs = Epochs(self._batches)

    def __len__(self) -> int:
        return len(self._lengths_E)

    def batch(self, step: int) -> NDArray[np.int64]:
        """The item indices of a step's histories and targets int64 [B, T], padded on the right with -1.

        The last item of a row is the target.
        """
        rows = self._epochs.batch(step)
        return gather_right_padded(self.train.items, self._starts_E[rows], self._lengths_E[rows])

    def _batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        return bucketed_batches(self._lengths_E, self.batch_size, np.random.default_rng([self.seed, epoch]))
