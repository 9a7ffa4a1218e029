"""Training sequences cut into windows, in batches of similar length.

Shapes: U users, W windows of an epoch, B batch, T items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Histories, Sequences, gather_right_padded
from rqrec.training.batching import Epochs, bucketed_batches


@dataclass
class Windows:
    """Batches of windows; in each epoch every training item is in exactly one window (without `random_ends`).

    A batch depends on the step and the seed only.
    """

    train: Sequences
    max_items: int
    """Maximum length of a window; longer sequences are cut into several windows."""
    batch_size: int
    """Maximum number of windows in a batch."""
    seed: int
    moving: bool = True
    """Whether the cuts are redrawn each epoch; if not, windows are counted back from the end of a sequence."""
    random_ends: bool = False
    """Whether a window ends at a random one of its items, for models that learn the last item of a sequence only."""
    epochs: Epochs[tuple[NDArray[np.int64], ...]] = field(init=False)
    """Users, starts (in the flat items) and lengths of the windows of each batch."""

    def __post_init__(self) -> None:
        if self.max_items < 1 or self.batch_size < 1:
            raise ValueError(
                f"max_items ({self.max_items}) and batch_size ({self.batch_size}) must be at least 1."
            )
        self._n_windows_U = -(-self.train.lengths // self.max_items)
        if not self._n_windows_U.sum():
            raise ValueError("The training split has no interactions to learn from.")
        self._times = self.train.times
        self.epochs = Epochs(self._batches)

    def _cut(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        """Users, starts (in the flat items) and lengths of an epoch's windows, each int64 [W]."""
        n_windows_U, lengths_U = self._n_windows_U, self.train.lengths
        slack_U = n_windows_U * self.max_items - lengths_U
        shift_U = rng.integers(0, slack_U + 1) if self.moving else slack_U
        users_W = np.repeat(np.arange(len(lengths_U)), n_windows_U)
        first_W = np.repeat(np.cumsum(n_windows_U) - n_windows_U, n_windows_U)
        positions_W = (np.arange(len(users_W)) - first_W) * self.max_items - shift_U[users_W]
        starts_W = np.maximum(positions_W, 0)
        ends_W = np.minimum(positions_W + self.max_items, lengths_U[users_W])
        return users_W, self.train.offsets[users_W] + starts_W, ends_W - starts_W

    def _batches(self, epoch: int) -> Iterator[tuple[NDArray[np.int64], ...]]:
        rng = np.random.default_rng([self.seed, epoch])
        users_W, starts_W, lengths_W = self._cut(rng)
        for rows in bucketed_batches(lengths_W, self.batch_size, rng):
            yield users_W[rows], starts_W[rows], lengths_W[rows]

    def histories(self, step: int) -> Histories:
        """The windows of a step as histories, with times (if the source has them) and users."""
        users_B, starts_B, lengths_B = self.epochs.batch(step)
        histories = Histories(
            gather_right_padded(self.train.items, starts_B, lengths_B),
            None if self._times is None else gather_right_padded(self._times, starts_B, lengths_B),
            tuple(self.train.user_ids[user] for user in users_B),
        )
        if not self.random_ends:
            return histories
        rng = np.random.default_rng([self.seed, step, 1])  # another one than that of epoch number `step`
        return histories.first(rng.integers(1, lengths_B, endpoint=True))

    def batch(self, step: int) -> NDArray[np.int64]:
        """The item indices of a step's windows int64 [B, T], padded on the right with -1."""
        return self.histories(step).items_BT
