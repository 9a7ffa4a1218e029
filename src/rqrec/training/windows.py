"""Training sequences cut into windows and dealt out in batches of similar length.

Shapes: W windows, B batch, T items.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Histories, Sequences, gather_right_padded
from rqrec.training.batching import bucketed_batches


@dataclass
class Windows:
    """Each epoch every training item is in exactly one window of at most `max_items` items.

    Where a sequence is longer than a window, the cuts move at random from epoch to epoch; with `moving` False
    they stay, counted back from the sequence's end. A batch is a function of the step and the seed.
    """

    train: Sequences
    max_items: int
    batch_size: int
    seed: int
    moving: bool = True
    _first_steps: list[int] = field(default_factory=lambda: [0], init=False)  # of the epochs that were dealt
    _epoch: int = field(default=-1, init=False)
    _batches: list[tuple[NDArray[np.int64], ...]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.max_items < 1 or self.batch_size < 1:
            raise ValueError(f"max_items ({self.max_items}) and batch_size ({self.batch_size}) start at 1.")
        self._n_windows_U = -(-self.train.lengths // self.max_items)
        if not self._n_windows_U.sum():
            raise ValueError("The training split has no interactions: there is nothing to learn from.")
        self._times = self.train.times

    def epoch_of(self, step: int) -> tuple[int, int]:
        """The epoch of a step and its place therein; the number of batches differs from epoch to epoch."""
        while self._first_steps[-1] <= step:
            self._deal(len(self._first_steps) - 1)
            self._first_steps.append(self._first_steps[-1] + len(self._batches))
        epoch = bisect_right(self._first_steps, step) - 1
        return epoch, step - self._first_steps[epoch]

    def _cut(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        """Users, starts and lengths of this epoch's windows, each [W]."""
        n_windows_U, lengths_U = self._n_windows_U, self.train.lengths
        slack_U = n_windows_U * self.max_items - lengths_U
        shift_U = rng.integers(0, slack_U + 1) if self.moving else slack_U
        users_W = np.repeat(np.arange(len(lengths_U)), n_windows_U)
        first_W = np.repeat(np.cumsum(n_windows_U) - n_windows_U, n_windows_U)
        places_W = (np.arange(len(users_W)) - first_W) * self.max_items - shift_U[users_W]
        starts_W = np.maximum(places_W, 0)
        ends_W = np.minimum(places_W + self.max_items, lengths_U[users_W])
        return users_W, self.train.offsets[users_W] + starts_W, ends_W - starts_W

    def _deal(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        users_W, starts_W, lengths_W = self._cut(rng)
        dealt = bucketed_batches(lengths_W, self.batch_size, rng)
        self._batches = [(users_W[rows], starts_W[rows], lengths_W[rows]) for rows in dealt]
        self._epoch = epoch

    def histories(self, step: int) -> Histories:
        """The windows of a step, with their times and users."""
        epoch, place = self.epoch_of(step)
        if epoch != self._epoch:
            self._deal(epoch)
        users_B, starts_B, lengths_B = self._batches[place]
        return Histories(
            gather_right_padded(self.train.items, starts_B, lengths_B),
            None if self._times is None else gather_right_padded(self._times, starts_B, lengths_B),
            tuple(self.train.user_ids[user] for user in users_B),
        )

    def batch(self, step: int) -> NDArray[np.int64]:
        """Item indices [B, T] of a step, padded on the right."""
        return self.histories(step).items_BT
